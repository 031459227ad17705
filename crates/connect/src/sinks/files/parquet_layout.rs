//! What a load says of the inside of its Parquet files, understood.

use super::config::wrong;
use arrow::datatypes::{DataType, Field, Schema};
use gristmill_model::spec::{LoadSpec, SortBy, Statistics};
use gristmill_model::{Error, ErrorKind, Result, one_of};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::SchemaDescriptor;

/// How often a bloom filter may be wrong, unless the load says otherwise.
const BLOOM_FILTER_FPP: f64 = 0.01;
/// Row groups smaller than this would be mostly headers.
const LEAST_ROW_GROUP: u64 = 64 << 10;

/// The layout of Parquet files.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    /// Bytes of arrow data in a row group; by default what the memory allows.
    pub(super) row_group_bytes: Option<usize>,
    /// Dictionaries in all columns or in none; by default decided by the first rows.
    pub(super) dictionary: Option<bool>,
    statistics: Statistics,
    without_page_index: bool,
    /// The columns with a filter, and how often it may be wrong.
    bloom_filter: Vec<String>,
    bloom_filter_fpp: f64,
    /// How the rows come sorted.
    sorted: Vec<SortBy>,
}

impl Layout {
    /// What `load` says of files of `stored`, whose rows come sorted by `sorted`.
    ///
    /// # Errors
    /// Columns that are not there or that cannot have a filter; numbers without a meaning.
    pub(super) fn new(load: &LoadSpec, stored: &Schema, sorted: Vec<SortBy>) -> Result<Self> {
        let options = load.parquet.clone().unwrap_or_default();
        let row_group_bytes = match options.row_group_size {
            None => None,
            Some(size) if size.0 < LEAST_ROW_GROUP => {
                return Err(
                    wrong(format!("`row_group_size` of {} bytes is too small", size.0)).hint("use at least `64KB`")
                );
            }
            Some(size) => Some(usize::try_from(size.0).unwrap_or(usize::MAX)),
        };
        for name in &options.bloom_filter.0 {
            let field = stored_column("bloom_filter", name, stored)?;
            if field.data_type().is_nested() || *field.data_type() == DataType::Boolean {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!("column `{name}` of type {} cannot have a bloom filter", field.data_type()),
                )
                .hint("leave it out of `bloom_filter`"));
            }
        }
        let bloom_filter_fpp = options.bloom_filter_fpp.unwrap_or(BLOOM_FILTER_FPP);
        if !(bloom_filter_fpp > 0.0 && bloom_filter_fpp < 1.0) {
            return Err(wrong(format!("`bloom_filter_fpp: {bloom_filter_fpp}` is no share")).hint("use e.g. `0.01`"));
        }
        if options.bloom_filter_fpp.is_some() && options.bloom_filter.0.is_empty() {
            return Err(wrong("`bloom_filter_fpp` means nothing without `bloom_filter`").hint("name the columns there"));
        }
        let statistics = options.statistics.unwrap_or_default();
        if options.page_index == Some(true) && statistics != Statistics::Page {
            return Err(
                wrong("`page_index` needs statistics of pages").hint("use `statistics: page`, or leave one out")
            );
        }
        Ok(Self {
            row_group_bytes,
            dictionary: options.dictionary,
            statistics,
            without_page_index: options.page_index == Some(false),
            bloom_filter: options.bloom_filter.0,
            bloom_filter_fpp,
            sorted,
        })
    }

    /// The settings of the library for files of `columns` with about `rows` rows in a row group.
    pub(super) fn apply(
        &self,
        mut properties: WriterPropertiesBuilder,
        columns: &SchemaDescriptor,
        rows: u64,
    ) -> WriterPropertiesBuilder {
        let statistics = match self.statistics {
            // The index of the columns is the statistics of their pages.
            Statistics::Page if self.without_page_index => EnabledStatistics::Chunk,
            Statistics::Page => EnabledStatistics::Page,
            Statistics::RowGroup => EnabledStatistics::Chunk,
            Statistics::None => EnabledStatistics::None,
        };
        properties = properties.set_statistics_enabled(statistics).set_offset_index_disabled(self.without_page_index);
        if let Some(dictionary) = self.dictionary {
            properties = properties.set_dictionary_enabled(dictionary);
        }
        let mut sorted = Vec::new();
        for by in &self.sorted {
            let at = columns.columns().iter().position(|column| *column.path().parts() == [by.column.clone()]);
            // The order is by all columns before, so a gap would make it wrong.
            let Some(at) = at.and_then(|at| i32::try_from(at).ok()) else { break };
            sorted.push(SortingColumn { column_idx: at, descending: by.descending, nulls_first: by.nulls_first });
        }
        if !sorted.is_empty() {
            properties = properties.set_sorting_columns(Some(sorted));
        }
        for column in columns.columns() {
            let path = column.path();
            if let [name] = path.parts()
                && self.bloom_filter.contains(name)
            {
                properties = properties
                    .set_column_bloom_filter_enabled(path.clone(), true)
                    .set_column_bloom_filter_fpp(path.clone(), self.bloom_filter_fpp)
                    .set_column_bloom_filter_max_ndv(path.clone(), rows.max(1));
            }
        }
        properties
    }
}

/// The order that `sort_by` asks for.
///
/// # Errors
/// Columns that are not in the files; types without an order.
pub(super) fn sorted(load: &LoadSpec, stored: &Schema) -> Result<Vec<SortBy>> {
    let mut sorted = Vec::with_capacity(load.sort_by.0.len());
    for text in &load.sort_by.0 {
        let by = SortBy::parse(text).map_err(|(message, hint)| wrong(message).hint(hint))?;
        let field = stored_column("sort_by", &by.column, stored)?;
        if field.data_type().is_nested() {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("rows cannot be sorted by column `{}` of type {}", by.column, field.data_type()),
            )
            .hint("sort by numbers, texts, dates or timestamps"));
        }
        if sorted.iter().any(|known: &SortBy| known.column == by.column) {
            return Err(wrong(format!("`sort_by` names `{}` twice", by.column)).hint("name it once"));
        }
        sorted.push(by);
    }
    Ok(sorted)
}

fn stored_column<'a>(key: &str, name: &str, stored: &'a Schema) -> Result<&'a Field> {
    stored.column_with_name(name).map(|(_, field)| field).ok_or_else(|| {
        Error::new(ErrorKind::Schema, format!("`{key}` names a column `{name}` that is not in the files"))
            .hint(one_of(name, stored.fields().iter().map(|field| field.name().as_str())))
    })
}
