//! Avro and Arrow IPC, being written: formats that keep types and hold rows in blocks.
//!
//! What a format has no type for is refused when the load is opened, by the name of the column; what it has another
//! word for (dictionaries, small whole numbers in Avro) is cast batch by batch. Rows are gathered into blocks of some
//! size: each batch as its own block would make files of headers, and one large block could not be read in pieces.

use super::encode::Counted;
use super::output::{Held, Output};
use super::parquet::{batch_bytes, io_error};
use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_avro::compression::CompressionCodec;
use arrow_avro::errors::AvroError;
use arrow_avro::writer::format::AvroOcfFormat;
use arrow_avro::writer::{Writer, WriterBuilder};
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows of a block, at most: what readers take in one piece.
const BLOCK_ROWS: usize = 64 << 10;
/// Bytes of arrow data in a block, about. Memory of an open file is bounded by it.
const BLOCK_BYTES: usize = 1 << 20;

/// How the files are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Typed {
    Avro(Option<CompressionCodec>),
    Arrow(Option<CompressionType>),
}

impl Typed {
    fn name(self) -> &'static str {
        match self {
            Self::Avro(_) => "Avro",
            Self::Arrow(_) => "Arrow IPC",
        }
    }

    /// The columns as the format keeps them.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`], naming the column that the format has no type or no name for.
    pub(super) fn schema(self, stored: &Schema) -> Result<SchemaRef> {
        let mut fields = Vec::with_capacity(stored.fields().len());
        for field in stored.fields() {
            let refused = |why: String| {
                Error::new(
                    ErrorKind::Schema,
                    format!("column `{}` cannot be written as {}: {why}", field.name(), self.name()),
                )
            };
            if let Self::Avro(_) = self {
                avro_name(field.name()).map_err(|why| refused(why).hint("rename it in a `sql` step"))?;
            }
            let data_type = self.data_type(field.data_type()).map_err(|why| {
                refused(why).hint(format!("cast it in a `sql` step: `cast({} as …)`, or write Parquet", field.name()))
            })?;
            fields.push(self.field(field, data_type));
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    /// A field of another type. What Avro files are read with would be taken for orders to the writer of new ones.
    fn field(self, field: &Field, data_type: DataType) -> Field {
        let new = Field::new(field.name(), data_type, field.is_nullable());
        match self {
            Self::Avro(_) => new,
            Self::Arrow(_) => new.with_metadata(field.metadata().clone()),
        }
    }

    fn child(self, field: &FieldRef) -> Result<FieldRef, String> {
        Ok(Arc::new(self.field(field, self.data_type(field.data_type())?)))
    }

    /// The type of the format that holds every value of `data_type`.
    fn data_type(self, data_type: &DataType) -> Result<DataType, String> {
        Ok(match data_type {
            DataType::Dictionary(_, values) => self.data_type(values)?,
            // Views share buffers with other rows; and not every reader knows them.
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            DataType::List(item) => DataType::List(self.child(item)?),
            DataType::LargeList(item) => DataType::LargeList(self.child(item)?),
            DataType::FixedSizeList(item, size) => match self {
                Self::Avro(_) => DataType::List(self.child(item)?),
                Self::Arrow(_) => DataType::FixedSizeList(self.child(item)?, *size),
            },
            DataType::Struct(fields) => {
                if let Self::Avro(_) = self {
                    fields.iter().try_for_each(|field| avro_name(field.name()))?;
                }
                let fields: Result<Fields, String> = fields.iter().map(|field| self.child(field)).collect();
                DataType::Struct(fields?)
            }
            DataType::Map(entries, sorted) => {
                let DataType::Struct(pair) = entries.data_type() else {
                    return Err("a map without keys and values".to_owned());
                };
                let [key, value] = pair.as_ref() else {
                    return Err("a map without keys and values".to_owned());
                };
                if matches!(self, Self::Avro(_)) && !matches!(key.data_type(), DataType::Utf8 | DataType::LargeUtf8) {
                    return Err("its maps have texts for keys".to_owned());
                }
                let pair = DataType::Struct(Fields::from(vec![self.child(key)?, self.child(value)?]));
                DataType::Map(Arc::new(self.field(entries, pair)), *sorted)
            }
            other => match self {
                Self::Avro(_) => avro_type(other)?,
                Self::Arrow(_) => other.clone(),
            },
        })
    }

    /// Begins a file for rows of `schema` (as [`Typed::schema`] gives it).
    ///
    /// # Errors
    /// An output that refuses.
    pub(super) fn open(self, schema: &SchemaRef, output: Box<dyn Output>) -> Result<TypedFile> {
        let (counted, written) = Counted::new(output);
        let file = match self {
            Self::Avro(codec) => File::Avro(Box::new(
                WriterBuilder::new(schema.as_ref().clone())
                    .with_compression(codec)
                    .build(counted)
                    .map_err(|error| avro_error(&error))?,
            )),
            Self::Arrow(codec) => {
                let options = IpcWriteOptions::default().try_with_compression(codec).map_err(arrow_error)?;
                File::Arrow(Box::new(FileWriter::try_new_with_options(counted, schema, options).map_err(arrow_error)?))
            }
        };
        Ok(TypedFile { schema: schema.clone(), pending: Vec::new(), rows: 0, bytes: 0, file, written })
    }
}

/// Names of Avro begin with a letter or `_` and go on with letters, digits and `_`.
fn avro_name(name: &str) -> Result<(), String> {
    let mut letters = name.chars();
    let begins = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    if begins && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        return Ok(());
    }
    Err(format!("`{name}` is no name there (letters, digits and `_`)"))
}

fn avro_type(data_type: &DataType) -> Result<DataType, String> {
    use DataType::{
        Binary, Boolean, Date32, Date64, Decimal32, Decimal64, Decimal128, Decimal256, FixedSizeBinary, Float16,
        Float32, Float64, Int8, Int16, Int32, Int64, LargeBinary, LargeUtf8, Time32, Time64, Timestamp, UInt8, UInt16,
        UInt32, Utf8,
    };
    Ok(match data_type {
        Boolean | Int32 | Int64 | Float32 | Float64 | Utf8 | LargeUtf8 | Binary | LargeBinary | Date32 => {
            data_type.clone()
        }
        FixedSizeBinary(_) | Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, _) => {
            data_type.clone()
        }
        Time32(TimeUnit::Millisecond) | Time64(TimeUnit::Microsecond) => data_type.clone(),
        Int8 | Int16 | UInt8 | UInt16 => Int32,
        UInt32 => Int64,
        Float16 => Float32,
        Date64 => Date32,
        Time32(_) => Time32(TimeUnit::Millisecond),
        Timestamp(TimeUnit::Second, zone) => Timestamp(TimeUnit::Millisecond, zone.clone()),
        Decimal32(precision, scale) | Decimal64(precision, scale) => avro_type(&Decimal128(*precision, *scale))?,
        Decimal128(precision, scale) | Decimal256(precision, scale) => match u8::try_from(*scale) {
            Ok(scale) if scale <= *precision => data_type.clone(),
            _ => return Err(format!("it has no decimals with {scale} of {precision} digits behind the point")),
        },
        other => return Err(format!("it has no type for {other}")),
    })
}

/// One file, being written.
pub(super) struct TypedFile {
    schema: SchemaRef,
    /// Rows of the block that is not written yet.
    pending: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    file: File,
    written: Arc<AtomicU64>,
}

enum File {
    Avro(Box<Writer<Counted, AvroOcfFormat>>),
    Arrow(Box<FileWriter<Counted>>),
}

impl TypedFile {
    /// Takes rows in.
    ///
    /// # Errors
    /// An output that refuses, values that the format cannot hold.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let width = (batch_bytes(batch) / rows).max(1);
        let most = (BLOCK_BYTES / width).clamp(1, BLOCK_ROWS);
        let mut at = 0;
        while at < rows {
            let take = most.saturating_sub(self.rows).max(1).min(rows - at);
            self.pending.push(self.cast(&batch.slice(at, take))?);
            self.rows += take;
            self.bytes += take * width;
            at += take;
            if self.rows >= most || self.bytes >= BLOCK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// The rows with the types of the format.
    fn cast(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let columns = batch.columns().iter().zip(self.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() {
                return Ok(column.clone());
            }
            cast_with_options(column, field.data_type(), &options).map_err(|error| {
                Error::new(ErrorKind::Data, format!("a value of column `{}` cannot be written", field.name()))
                    .cause(error)
            })
        });
        RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_>>()?).map_err(arrow_error)
    }

    /// Writes the rows that wait as a block.
    ///
    /// # Errors
    /// As [`TypedFile::write`].
    pub(super) fn flush(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        (self.rows, self.bytes) = (0, 0);
        let block = match pending.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            many => concat_batches(&self.schema, many).map_err(arrow_error)?,
        };
        match &mut self.file {
            File::Avro(writer) => writer.write(&block).map_err(|error| avro_error(&error)),
            File::Arrow(writer) => writer.write(&block).map_err(arrow_error),
        }
    }

    /// Bytes of the file so far.
    pub(super) fn bytes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As [`TypedFile::write`].
    pub(super) fn finish(mut self) -> Result<Held> {
        self.flush()?;
        let counted = match self.file {
            File::Avro(mut writer) => {
                writer.finish().map_err(|error| avro_error(&error))?;
                writer.into_inner()
            }
            File::Arrow(writer) => writer.into_inner().map_err(arrow_error)?,
        };
        counted.finish()
    }
}

fn arrow_error(error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, error) => io_error(&error),
        other => Error::new(ErrorKind::Data, "rows cannot be encoded").cause(other),
    }
}

fn avro_error(error: &AvroError) -> Error {
    match error {
        AvroError::IoError(_, error) => io_error(error),
        AvroError::ArrowError(inner) => match inner.as_ref() {
            ArrowError::IoError(_, error) => io_error(error),
            other => Error::new(ErrorKind::Data, "rows cannot be encoded as Avro").cause(other.to_string()),
        },
        AvroError::External(inner) if inner.is::<std::io::Error>() => {
            inner.downcast_ref().map_or_else(|| Error::internal("an error of another kind"), io_error)
        }
        other => Error::new(ErrorKind::Data, "rows cannot be encoded as Avro").cause(other.to_string()),
    }
}
