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
mod json;
mod ndjson;
mod orc;
mod parquet;
mod records;
#[cfg(test)]
mod tests;

pub use decode::quiet_decoders;
pub(super) use parquet::OURS_ONLY;

use crate::{Rows, Scan};
use ::arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use gristmill_model::Result;
use gristmill_model::spec::{Compression, CsvOptions, FileFormat, JsonOptions};
use object_store::{ObjectMeta, ObjectStore};
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
}

/// Reads one format.
#[async_trait]
pub(crate) trait FileReader: Send + Sync + fmt::Debug {
    /// Schema and, where the format tells, the row count.
    ///
    /// Where the beginning of a JSON file has nothing but NULLs for a column, its type is `Null`: any other file may
    /// say better. Whoever has unified the files ends with [`settle`].
    ///
    /// # Errors
    /// A file that cannot be opened, or whose bytes are not of the format.
    async fn infer(&self, input: &FileInput) -> Result<(SchemaRef, Option<u64>)>;

    /// Reads the file as batches of `scan.schema` (no hive columns in it): columns matched by name, missing ones NULL,
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
        FileFormat::Parquet => &parquet::ParquetReader,
        FileFormat::Ndjson => &ndjson::NdjsonReader,
        FileFormat::Json => &json::JsonReader,
        FileFormat::Avro => &avro::AvroReader,
        FileFormat::Orc => &orc::OrcReader,
        FileFormat::Arrow => &arrow::ArrowReader,
        FileFormat::Csv => &super::csv::CsvReader,
    }
}
