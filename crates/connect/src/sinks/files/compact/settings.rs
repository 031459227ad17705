//! How files are written anew: as the project's load of them says, or else as they are.

use crate::Compaction;
use crate::sources::files::formats::Traits;
use arrow::datatypes::{DataType, Schema};
use gristmill_model::ByteSize;
use gristmill_model::spec::{Compression, CsvOptions, FileFormat, LoadSpec, OneOrMany, SortBy, Strategy};

/// The load that is known to write files of `format` into the folder.
pub(super) fn known(want: &Compaction, format: FileFormat) -> Option<&LoadSpec> {
    want.load.as_ref().filter(|load| load.format.unwrap_or(FileFormat::Parquet) == format)
}

/// The dialect of CSV files with this ending, where it is known.
pub(super) fn dialect(want: &Compaction, delimiter: Option<&str>) -> Option<CsvOptions> {
    let mut csv = known(want, FileFormat::Csv)?.csv.clone().unwrap_or_default();
    csv.delimiter = csv.delimiter.or_else(|| delimiter.map(str::to_owned));
    Some(csv)
}

/// The load that writes rows of `schema` anew. Columns that these files have not got are left out of what it says.
pub(super) fn load(want: &Compaction, format: FileFormat, schema: &Schema, traits: &Traits) -> LoadSpec {
    let mut load = LoadSpec::new("compact".into(), "target".into(), Strategy::Append);
    load.path = Some(want.path.clone());
    load.format = Some(format);
    let file_size = want.load.as_ref().and_then(|load| load.file_size);
    load.file_size = want.file_size.map(ByteSize).or(file_size);
    if let Some(like) = known(want, format) {
        load.compression = like.compression;
        load.compression_level = like.compression_level;
        load.row_group_rows = like.row_group_rows;
        load.parquet.clone_from(&like.parquet);
    } else if format == FileFormat::Parquet {
        load.compression = traits.compression;
        load.row_group_rows = traits.row_group_rows;
        load.parquet = traits.rows.then(|| traits.options.clone());
    } else {
        load.compression = traits.compression;
    }
    if let Some(parquet) = &mut load.parquet {
        let may_have_one = |name: &String| {
            let found = schema.column_with_name(name).map(|(_, field)| field.data_type());
            found.is_some_and(|data_type| !data_type.is_nested() && *data_type != DataType::Boolean)
        };
        parquet.bloom_filter.0.retain(may_have_one);
        if parquet.bloom_filter.0.is_empty() {
            parquet.bloom_filter_fpp = None;
        }
    }
    load.sort_by = OneOrMany(traits.sorted.iter().map(text_of).collect());
    load
}

/// The load that puts files together, compressed as they are.
pub(super) fn spliced(want: &Compaction, format: FileFormat, compression: Compression) -> LoadSpec {
    let mut load = load(want, format, &Schema::empty(), &Traits::default());
    if load.compression.unwrap_or(Compression::None) != compression {
        load.compression_level = None;
    }
    load.compression = Some(compression);
    load
}

fn text_of(by: &SortBy) -> String {
    let direction = if by.descending { "desc" } else { "asc" };
    let nulls = if by.nulls_first { "first" } else { "last" };
    format!("\"{}\" {direction} nulls {nulls}", by.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_said_so_that_it_is_understood() {
        for (column, descending, nulls_first) in [("a", true, false), ("a desc", false, true), ("\"", true, true)] {
            let by = SortBy { column: column.to_owned(), descending, nulls_first };
            assert_eq!(SortBy::parse(&text_of(&by)).unwrap(), by);
        }
    }
}
