//! Whether the engine's own scan may read the files: only where it gives the same rows as our readers would.

use super::csv::quotes;
use super::csv::survey::Rules;
use super::csv::{Dialect, can_be_any_text};
use super::picture::{self, Picture, SourceFile};
use super::{formats, units};
use crate::stores::{Store, StoreKind};
use crate::{NativeFile, NativeScan};
use arrow::datatypes::{DataType, SchemaRef};
use gristmill_model::spec::{Compression, CsvOptions, ExtractSpec, FileFormat, OnFail, OneOrMany};
use gristmill_model::{Error, Result};
use object_store::local::LocalFileSystem;
use object_store::path::Path;

/// The files and the columns that each has by itself.
type Files = Vec<(SourceFile, SchemaRef)>;

/// The scan, or `None` where our readers must do it.
///
/// # Errors
/// What the store says when a file is looked at.
pub(super) async fn scan(store: &Store, spec: &ExtractSpec, picture: &Picture) -> Result<Option<NativeScan>> {
    // The engine makes units of its own.
    if units::asked(spec) {
        return Ok(None);
    }
    let Some(first) = picture.files.first() else { return Ok(None) };
    let format = first.format;
    // An empty file has no rows; not every reader of the engine takes it.
    let files: Files = picture
        .files
        .iter()
        .zip(&picture.schemas)
        .filter(|(file, _)| file.meta.size > 0)
        .map(|(file, schema)| (file.clone(), schema.clone()))
        .collect();
    let apart = files.iter().any(|(file, _)| file.root != 0 || file.stdin || file.compression != first.compression);
    if apart || files.is_empty() || store.kind() == StoreKind::Http || !in_order(picture) {
        return Ok(None);
    }
    let whole = picture.schema.fields().len() == picture.columns.fields().len() + picture.hive.len();
    let strict = spec.on_bad_row == OnFail::Fail;
    let mut csv = None;
    let mut splittable = false;
    let fits = match format {
        FileFormat::Parquet => {
            let ours = |schema: &SchemaRef| schema.metadata().contains_key(formats::OURS_ONLY);
            same_types(picture, &files) && !files.iter().any(|(_, schema)| ours(schema))
        }
        FileFormat::Csv if strict && whole && first.compression == Compression::None => {
            match csv_quotes(store, spec, picture, &files).await? {
                // The engine would read a big file in one go; we know where such a file can be cut.
                Some((_, false)) if files.iter().any(|(file, _)| file.meta.size >= units::CUT_FROM) => false,
                Some((options, unbroken)) => {
                    csv = Some(options);
                    splittable = unbroken;
                    true
                }
                None => false,
            }
        }
        // The engine's NDJSON reader cuts `2.5` to `2` where an integer is expected, its Avro reader takes torn files
        // for whole ones, and its Arrow reader believes what a file says of its own sizes: ours look first.
        FileFormat::Csv
        | FileFormat::Ndjson
        | FileFormat::Json
        | FileFormat::Avro
        | FileFormat::Orc
        | FileFormat::Arrow
        | FileFormat::Delta => false,
    };
    if !fits {
        return Ok(None);
    }
    let native = |(file, _): &(SourceFile, SchemaRef)| NativeFile {
        meta: file.meta.clone(),
        partition_values: picture
            .hive
            .iter()
            .filter(|field| picture.schema.column_with_name(field.name()).is_some())
            .map(|field| file.hive.iter().find(|(key, _)| key == field.name()).and_then(|(_, value)| value.clone()))
            .collect(),
    };
    Ok(Some(NativeScan {
        format,
        store: store.store.clone(),
        store_url: store.url.clone(),
        files: files.iter().map(native).collect(),
        partition_columns: picture
            .hive
            .iter()
            .filter(|field| picture.schema.column_with_name(field.name()).is_some())
            .cloned()
            .collect(),
        schema: picture.schema.clone(),
        compression: first.compression,
        csv,
        splittable,
    }))
}

/// Whether the columns of the paths come last, as the engine wants them; `columns:` may have mixed them up.
fn in_order(picture: &Picture) -> bool {
    let is_hive = |name: &str| picture.hive.iter().any(|field| field.name() == name);
    let names: Vec<&String> = picture.schema.fields().iter().map(|field| field.name()).collect();
    let own = names.iter().take_while(|name| !is_hive(name)).count();
    let hive: Vec<&String> =
        picture.hive.iter().map(|field| field.name()).filter(|name| names.contains(name)).collect();
    names[own..] == hive
}

/// Whether every file has each column in the very type asked for, or not at all: the engine fills in NULL by itself, but
/// it casts by rules of its own.
fn same_types(picture: &Picture, files: &Files) -> bool {
    files.iter().all(|(_, own)| {
        picture.columns.fields().iter().all(|field| match own.field_with_name(field.name()) {
            Ok(found) => found.data_type() == field.data_type(),
            Err(_) => true,
        })
    })
}

/// The full dialect, and whether no line break stands in quotes, where the engine reads these CSV files as we do.
async fn csv_quotes(
    store: &Store,
    spec: &ExtractSpec,
    picture: &Picture,
    files: &Files,
) -> Result<Option<(CsvOptions, bool)>> {
    // Columns are told apart by their position there.
    let alike = files.iter().all(|(_, own)| {
        let names = own.fields().iter().map(|field| field.name());
        names.eq(picture.columns.fields().iter().map(|field| field.name()))
    });
    // Others are types that the engine does not read. Decimals it cuts off where ours rounds: it reads them with one
    // digit more, see `NativeScan::csv`.
    let known = picture.columns.fields().iter().all(|field| {
        use DataType as T;
        let data_type = field.data_type();
        data_type.is_integer()
            || matches!(data_type, T::Decimal128(precision, scale) if *precision < 38 && *scale >= 0)
            || matches!(
                data_type,
                T::Float32 | T::Float64 | T::Boolean | T::Utf8 | T::Date32 | T::Timestamp(..) | T::Time64(_)
            )
    });
    if store.kind() != StoreKind::Local || !alike || !known {
        return Ok(None);
    }
    let mut options: Option<CsvOptions> = None;
    for (file, _) in files {
        let own = picture::input(std::slice::from_ref(store), spec, file)?.csv;
        if options.as_ref().is_some_and(|options| options.delimiter != own.delimiter) {
            return Ok(None);
        }
        options = Some(own);
    }
    let Some(options) = options else { return Ok(None) };
    let dialect = Dialect::new(&options)?;
    let Some((quote, escape)) = dialect.quoting().filter(|_| dialect.is_plain()) else { return Ok(None) };
    let rules = Rules::csv(&dialect);
    let locations: Vec<(Path, String)> =
        files.iter().map(|(file, _)| (file.meta.location.clone(), file.name.clone())).collect();
    let delimiter = dialect.delimiter();
    let any_text = picture.columns.fields().iter().any(|field| can_be_any_text(field.data_type()));
    let null_is_empty = options.null_text.as_ref().is_none_or(|texts| texts.0.iter().all(String::is_empty));
    let look = move || -> Result<Option<bool>> {
        let mut unbroken = true;
        for (location, name) in locations {
            let path = LocalFileSystem::new().path_to_filesystem(&location);
            let path = path.map_err(|error| super::connection::store_error(error, &name))?;
            let io = |error: std::io::Error| Error::io(&error, format!("`{name}`"));
            if is_utf16(&path).map_err(io)? {
                return Ok(None);
            }
            let quotes = quotes::scan(&path, rules).map_err(io)?;
            // The engine takes a quoted text for NULL where it reads like NULL.
            let null_text = any_text && (quotes.empty || (quotes.any && !null_is_empty));
            if quotes.open || null_text {
                return Ok(None);
            }
            unbroken &= !quotes.broken;
        }
        Ok(Some(unbroken))
    };
    let looked = tokio::task::spawn_blocking(look).await;
    let found = looked.map_err(|error| Error::internal("looking for quotes failed").cause(error))??;
    let character = |byte: u8| (byte as char).to_string();
    let full = CsvOptions {
        delimiter: Some(character(delimiter)),
        quote: Some(character(quote)),
        escape: escape.map(character),
        header: Some(options.header.unwrap_or(true)),
        null_text: Some(options.null_text.unwrap_or_else(|| OneOrMany(vec![String::new()]))),
        encoding: None,
        comment: None,
    };
    Ok(found.map(|unbroken| (full, unbroken)))
}

/// Whether a file begins with the byte order mark of UTF-16; blocks.
fn is_utf16(path: &std::path::Path) -> std::io::Result<bool> {
    use std::io::Read;
    let mut first = Vec::new();
    std::fs::File::open(path)?.take(2).read_to_end(&mut first)?;
    Ok(matches!(first.as_slice(), [0xff, 0xfe] | [0xfe, 0xff]))
}
