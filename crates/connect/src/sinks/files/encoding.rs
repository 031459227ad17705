//! What a load says about the encoding of its files, understood.

use super::config::wrong;
use super::parquet_layout::{Layout, sorted};
use super::typed::Typed;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow_avro::compression::CompressionCodec;
use gristmill_model::spec::{Compression, CsvOptions, FileFormat, LoadSpec};
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;

/// How a file is encoded.
#[derive(Debug, Clone)]
pub(super) enum Encoding {
    Parquet {
        compression: parquet::basic::Compression,
        row_group_rows: Option<usize>,
        layout: Layout,
    },
    Csv {
        dialect: Dialect,
        compression: TextCompression,
    },
    Ndjson {
        compression: TextCompression,
    },
    /// `schema`: the columns as the format keeps them.
    Typed {
        typed: Typed,
        schema: SchemaRef,
    },
}

/// How a text file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextCompression {
    None,
    Gzip(u32),
    Zstd(i32),
}

/// The dialect of the CSV files to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: u8,
    /// `None`: a quote is doubled.
    pub(super) escape: Option<u8>,
    pub(super) header: bool,
    pub(super) null: String,
}

impl Encoding {
    pub(super) fn format(&self) -> FileFormat {
        match self {
            Self::Parquet { .. } => FileFormat::Parquet,
            Self::Csv { .. } => FileFormat::Csv,
            Self::Ndjson { .. } => FileFormat::Ndjson,
            Self::Typed { typed: Typed::Avro(_), .. } => FileFormat::Avro,
            Self::Typed { typed: Typed::Arrow(_), .. } => FileFormat::Arrow,
        }
    }

    /// The ending of the files' names.
    pub(super) fn extension(&self) -> String {
        let (format, compression) = match self {
            Self::Parquet { .. } => return "parquet".to_owned(),
            Self::Typed { typed: Typed::Avro(_), .. } => return "avro".to_owned(),
            Self::Typed { typed: Typed::Arrow(_), .. } => return "arrow".to_owned(),
            Self::Csv { compression, .. } => ("csv", compression),
            Self::Ndjson { compression } => ("ndjson", compression),
        };
        match compression {
            TextCompression::None => format.to_owned(),
            TextCompression::Gzip(_) => format!("{format}.gz"),
            TextCompression::Zstd(_) => format!("{format}.zst"),
        }
    }

    /// The columns as the files keep them; none where they keep no types.
    pub(super) fn keeps<'a>(&'a self, stored: &'a Schema) -> Option<&'a Schema> {
        match self {
            Self::Parquet { .. } => Some(stored),
            Self::Typed { schema, .. } => Some(schema),
            Self::Csv { .. } | Self::Ndjson { .. } => None,
        }
    }

    /// Whether a file without rows says which columns there are.
    pub(super) fn says_columns(&self) -> bool {
        match self {
            Self::Parquet { .. } | Self::Typed { .. } => true,
            Self::Csv { dialect, .. } => dialect.header,
            Self::Ndjson { .. } => false,
        }
    }
}

/// How `load` wants rows of `stored` encoded.
///
/// # Errors
/// Options that the format does not have; columns that it cannot hold.
pub(super) fn encoding(load: &LoadSpec, stored: &SchemaRef) -> Result<Encoding> {
    let format = load.format.unwrap_or(FileFormat::Parquet);
    if format != FileFormat::Csv && load.csv.is_some() {
        return Err(wrong(format!("`csv` means nothing to `format: {}`", format.as_str())).hint("remove `csv`"));
    }
    if format != FileFormat::Parquet && load.row_group_rows.is_some() {
        return Err(wrong(format!("`row_group_rows` means nothing to `format: {}`", format.as_str()))
            .hint("remove `row_group_rows`"));
    }
    if format != FileFormat::Parquet && load.parquet.is_some() {
        return Err(wrong(format!("`parquet` means nothing to `format: {}`", format.as_str())).hint("remove `parquet`"));
    }
    let sorted = sorted(load, stored)?;
    match format {
        FileFormat::Parquet => {
            let row_group_rows = match load.row_group_rows {
                Some(0) => return Err(wrong("`row_group_rows` cannot be 0").hint("leave it out, or use e.g. 1000000")),
                Some(rows) => Some(usize::try_from(rows).unwrap_or(usize::MAX)),
                None => None,
            };
            parquet::arrow::ArrowSchemaConverter::new().convert(stored).map_err(|error| {
                Error::new(ErrorKind::Schema, "the columns cannot be written as Parquet").cause(error)
            })?;
            let layout = Layout::new(load, stored, sorted)?;
            Ok(Encoding::Parquet { compression: parquet_compression(load)?, row_group_rows, layout })
        }
        FileFormat::Csv => {
            for field in stored.fields() {
                if field.data_type().is_nested() {
                    return Err(Error::new(
                        ErrorKind::Schema,
                        format!("column `{}` of type {} cannot be written as CSV", field.name(), field.data_type()),
                    )
                    .hint("write Parquet or NDJSON, or turn it into text in a `sql` step"));
                }
            }
            let dialect = dialect(load.csv.as_ref().unwrap_or(&CsvOptions::default()))?;
            Ok(Encoding::Csv { dialect, compression: text_compression(load)? })
        }
        FileFormat::Ndjson => {
            if let Some(field) = stored.fields().iter().find(|field| !can_be_json(field.data_type())) {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!("column `{}` of type {} cannot be written as JSON", field.name(), field.data_type()),
                )
                .hint("JSON has only texts for keys of maps; write Parquet, or turn it into text in a `sql` step"));
            }
            Ok(Encoding::Ndjson { compression: text_compression(load)? })
        }
        FileFormat::Avro => typed(Typed::Avro(avro_compression(load)?), stored),
        FileFormat::Arrow => typed(Typed::Arrow(arrow_compression(load)?), stored),
        FileFormat::Json | FileFormat::Orc => {
            Err(wrong(format!("files of format `{}` can be read, not written", format.as_str()))
                .hint("use `format: parquet`, `csv`, `ndjson`, `avro`, `arrow` or `delta`"))
        }
        FileFormat::Delta => Err(Error::internal("a Delta table was taken for a folder of files")),
    }
}

fn typed(typed: Typed, stored: &SchemaRef) -> Result<Encoding> {
    Ok(Encoding::Typed { typed, schema: typed.schema(stored)? })
}

fn avro_compression(load: &LoadSpec) -> Result<Option<CompressionCodec>> {
    let compression = load.compression.unwrap_or(Compression::Deflate);
    no_level(load, compression.as_str())?;
    match compression {
        Compression::None => Ok(None),
        Compression::Deflate => Ok(Some(CompressionCodec::Deflate)),
        Compression::Snappy => Ok(Some(CompressionCodec::Snappy)),
        Compression::Zstd => Ok(Some(CompressionCodec::ZStandard)),
        other => Err(wrong(format!("Avro files cannot be compressed with `{}`", other.as_str()))
            .hint("use `deflate`, `snappy`, `zstd` or `none`")),
    }
}

fn arrow_compression(load: &LoadSpec) -> Result<Option<CompressionType>> {
    let compression = load.compression.unwrap_or(Compression::Lz4);
    no_level(load, compression.as_str())?;
    match compression {
        Compression::None => Ok(None),
        Compression::Lz4 => Ok(Some(CompressionType::LZ4_FRAME)),
        Compression::Zstd => Ok(Some(CompressionType::ZSTD)),
        other => Err(wrong(format!("Arrow files cannot be compressed with `{}`", other.as_str()))
            .hint("use `lz4`, `zstd` or `none`")),
    }
}

/// Whether JSON has a word for values of the type: arrow's own writer is asked, with no values.
fn can_be_json(data_type: &DataType) -> bool {
    let field = Arc::new(Field::new("column", data_type.clone(), true));
    let empty = arrow::array::new_empty_array(data_type);
    arrow::json::writer::make_encoder(&field, &empty, &arrow::json::writer::EncoderOptions::default()).is_ok()
}

fn level(load: &LoadSpec, name: &str, least: u32, most: u32, default: u32) -> Result<u32> {
    match load.compression_level {
        None => Ok(default),
        Some(level) if (least..=most).contains(&level) => Ok(level),
        Some(level) => Err(wrong(format!("`compression_level: {level}` is not a level of {name}"))
            .hint(format!("use {least} to {most}"))),
    }
}

fn no_level(load: &LoadSpec, name: &str) -> Result<()> {
    match load.compression_level {
        None => Ok(()),
        Some(_) => Err(wrong(format!("`compression: {name}` has no levels here")).hint("remove `compression_level`")),
    }
}

fn parquet_compression(load: &LoadSpec) -> Result<parquet::basic::Compression> {
    use parquet::basic::{Compression as Codec, GzipLevel, ZstdLevel};
    let bad = |error| wrong("`compression_level` cannot be used").cause(error);
    match load.compression.unwrap_or(Compression::Zstd) {
        Compression::Zstd => {
            let level = level(load, "zstd", 1, 22, 1)?;
            Ok(Codec::ZSTD(ZstdLevel::try_new(i32::try_from(level).unwrap_or(1)).map_err(bad)?))
        }
        Compression::Gzip => Ok(Codec::GZIP(GzipLevel::try_new(level(load, "gzip", 0, 9, 6)?).map_err(bad)?)),
        Compression::Snappy => no_level(load, "snappy").map(|()| Codec::SNAPPY),
        Compression::Lz4 => no_level(load, "lz4").map(|()| Codec::LZ4_RAW),
        Compression::None => no_level(load, "none").map(|()| Codec::UNCOMPRESSED),
        other => Err(wrong(format!("Parquet files cannot be compressed with `{}`", other.as_str()))
            .hint("use `zstd`, `snappy`, `gzip`, `lz4` or `none`")),
    }
}

fn text_compression(load: &LoadSpec) -> Result<TextCompression> {
    match load.compression.unwrap_or(Compression::None) {
        Compression::None => no_level(load, "none").map(|()| TextCompression::None),
        Compression::Gzip => Ok(TextCompression::Gzip(level(load, "gzip", 0, 9, 6)?)),
        Compression::Zstd => Ok(TextCompression::Zstd(i32::try_from(level(load, "zstd", 1, 22, 1)?).unwrap_or(1))),
        other => Err(wrong(format!("text files are not written with `compression: {}`", other.as_str()))
            .hint("use `zstd`, `gzip` or `none`")),
    }
}

fn dialect(csv: &CsvOptions) -> Result<Dialect> {
    if let Some(encoding) = &csv.encoding
        && !["utf-8", "utf8"].contains(&encoding.to_ascii_lowercase().as_str())
    {
        return Err(wrong(format!("CSV is written as UTF-8, not as `{encoding}`")).hint("remove `encoding`"));
    }
    if csv.comment.is_some() {
        return Err(wrong("`comment` means nothing when CSV is written").hint("remove `comment`"));
    }
    let null = match csv.null_text.as_ref().map(|texts| texts.0.as_slice()) {
        None | Some([]) => String::new(),
        Some([text]) => text.clone(),
        Some(_) => {
            return Err(wrong("NULL is written as one text").hint("name one text in `null`, e.g. `null: \"\\\\N\"`"));
        }
    };
    Ok(Dialect {
        delimiter: byte("delimiter", csv.delimiter.as_deref(), b',')?,
        quote: byte("quote", csv.quote.as_deref(), b'"')?,
        escape: csv.escape.as_deref().map(|text| byte("escape", Some(text), b'\\')).transpose()?,
        header: csv.header.unwrap_or(true),
        null,
    })
}

fn byte(name: &str, text: Option<&str>, default: u8) -> Result<u8> {
    match text {
        None => Ok(default),
        Some("\\t") => Ok(b'\t'),
        Some(text) => match text.as_bytes() {
            [byte] if byte.is_ascii() => Ok(*byte),
            _ => {
                Err(wrong(format!("`{name}` must be one ASCII character, not `{text}`")).hint("e.g. `;`, `|` or `\\t`"))
            }
        },
    }
}
