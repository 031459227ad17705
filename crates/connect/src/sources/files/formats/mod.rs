//! One reader per file format: what a file's columns are, and its rows as batches of the schema asked for.
//!
//! A reader never panics, hangs or grows without bound on any bytes: decoding runs in [`decode`], where a library's
//! panic becomes an error that names the file, and sizes that a file merely claims are checked before anything is
//! allocated for them.

mod adapt;
mod arrow;
mod avro;
pub(crate) mod bytes;
mod decode;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod json;
mod ndjson;
mod orc;
mod parquet;
mod records;
#[cfg(test)]
mod tests;

pub(crate) use avro::{Frames, Marker};
pub use decode::quiet_decoders;
pub(super) use parquet::OURS_ONLY;
pub(crate) use parquet::{Traits, traits};

use crate::{Rows, Scan};
use ::arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use gristmill_model::Result;
use gristmill_model::spec::{Compression, CsvOptions, FileFormat, JsonOptions};
use object_store::{ObjectMeta, ObjectStore};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// One file to be read.
#[derive(Debug, Clone)]
pub(crate) struct FileInput {
    /// The store it is in.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Path, size, time and etag.
    pub(crate) meta: ObjectMeta,
    /// What messages call it.
    pub(crate) name: String,
    /// How it is compressed as a whole; text, Avro and Arrow streams only.
    pub(crate) compression: Compression,
    /// The dialect, for CSV.
    pub(crate) csv: CsvOptions,
    /// Where the records are, for JSON.
    pub(crate) json: JsonOptions,
    /// Standard input instead of `store` and `meta`.
    pub(crate) stdin: bool,
    /// Only a piece of it is read.
    pub(crate) piece: Option<Piece>,
}

impl FileInput {
    /// The bytes that are read, unless it is all of them.
    pub(crate) fn byte_range(&self) -> Option<&ByteRange> {
        match &self.piece {
            Some(Piece::Bytes(range)) => Some(range),
            Some(Piece::RowGroups { .. }) | None => None,
        }
    }

    /// What the places of rows are counted from: the file, or a byte of it where nobody has counted the lines before.
    pub(crate) fn place(&self) -> String {
        match self.byte_range() {
            Some(ByteRange { start, lines_before: None, .. }) => format!("{} (from byte {start})", self.name),
            _ => self.name.clone(),
        }
    }

    /// The lines before the first that is read.
    pub(crate) fn lines_before(&self) -> u64 {
        self.byte_range().and_then(|range| range.lines_before).unwrap_or(0)
    }
}

/// A piece of a file that can be read by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Piece {
    /// Whole records of a text.
    Bytes(ByteRange),
    /// Row groups of a Parquet file: from the first on, up to the second.
    RowGroups { start: usize, end: usize },
}

/// Bytes that begin with a record and end with one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ByteRange {
    pub(crate) start: u64,
    /// The first byte behind it.
    pub(crate) end: u64,
    /// The lines before it, where they have been counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lines_before: Option<u64>,
    /// The columns of the file, for CSV, where the record that tells them is not in the range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) columns: Vec<String>,
}

/// What a first look at a file tells.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) schema: SchemaRef,
    pub(crate) rows: RowCount,
    /// Of Parquet.
    pub(crate) row_groups: Vec<RowGroup>,
}

impl Seen {
    fn new(schema: SchemaRef, rows: RowCount) -> Self {
        Self { schema, rows, row_groups: Vec::new() }
    }
}

/// How much is in a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowGroup {
    pub(crate) rows: u64,
    /// As they stand in the file.
    pub(crate) bytes: u64,
}

/// How many rows a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowCount {
    /// As it says itself.
    Exact(u64),
    /// The first rows took so many bytes.
    Sampled {
        rows: u64,
        bytes: u64,
    },
    Unknown,
}

impl RowCount {
    /// The count, where the file says it.
    pub(crate) fn exact(self) -> Option<u64> {
        match self {
            Self::Exact(rows) => Some(rows),
            _ => None,
        }
    }

    /// Rows of a file of that size, about; of compressed text a sample tells nothing.
    pub(crate) fn estimate(self, size: u64, compression: Compression) -> Option<u64> {
        match self {
            Self::Exact(rows) => Some(rows),
            Self::Sampled { rows, bytes } if compression == Compression::None && bytes > 0 => {
                let rows = u128::from(size) * u128::from(rows) / u128::from(bytes);
                u64::try_from(rows).ok()
            }
            Self::Sampled { .. } | Self::Unknown => None,
        }
    }
}

/// Reads one format.
#[async_trait]
pub(crate) trait FileReader: Send + Sync + fmt::Debug {
    /// Schema and, as far as the format tells, the row count.
    ///
    /// Where the beginning of a JSON file has nothing but NULLs for a column, its type is `Null`: any other file may
    /// say better. Whoever has unified the files ends with [`settle`].
    ///
    /// # Errors
    /// A file that cannot be opened, or whose bytes are not of the format.
    async fn infer(&self, input: &FileInput) -> Result<Seen>;

    /// Reads the file, or the piece of it, as batches of `scan.schema` (no hive columns in it): columns matched by name, missing ones NULL,
    /// cast where widened.
    fn read(&self, input: FileInput, scan: Scan) -> Rows;
}

/// Makes what is still of type `Null` once all files have been asked a text, at any depth.
pub(crate) fn settle(schema: &Schema) -> SchemaRef {
    fn settled(field: &FieldRef) -> FieldRef {
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8,
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(settled).collect()),
            DataType::List(item) => DataType::List(settled(item)),
            other => other.clone(),
        };
        Arc::new(field.as_ref().clone().with_data_type(data_type))
    }
    let fields: Fields = schema.fields().iter().map(settled).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The reader of a format.
pub(crate) fn reader(format: FileFormat) -> &'static dyn FileReader {
    match format {
        // Of a Delta table only single files are ever met: a source refuses the format.
        FileFormat::Parquet | FileFormat::Delta => &parquet::ParquetReader,
        FileFormat::Ndjson => &ndjson::NdjsonReader,
        FileFormat::Json => &json::JsonReader,
        FileFormat::Avro => &avro::AvroReader,
        FileFormat::Orc => &orc::OrcReader,
        FileFormat::Arrow => &arrow::ArrowReader,
        FileFormat::Csv => &super::csv::CsvReader,
    }
}
