//! One file of any format, being written.

use super::config::{Config, Dialect, Encoding, TextCompression};
use super::csv::CsvWriter;
use super::finite::only_finite;
use super::output::{Held, Output};
use super::parquet::{ParquetEncoder, ParquetPlan, RowGroups, io_error, row_group_bytes};
use super::typed::{Typed, TypedFile};
use ::parquet::file::metadata::RowGroupMetaData;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, WriterBuilder as JsonBuilder};
use gristmill_model::{Error, ErrorKind, Result};
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the files of one writer are encoded; shared by them.
#[derive(Debug, Clone)]
pub(super) enum FilePlan {
    Parquet(Arc<ParquetPlan>),
    Csv(Dialect, TextCompression),
    Ndjson(TextCompression),
    Typed(Typed, SchemaRef),
}

impl FilePlan {
    /// How `config` wants its files.
    ///
    /// # Errors
    /// A schema that the format cannot hold.
    pub(super) fn new(config: &Config) -> Result<Self> {
        Ok(match &config.encoding {
            Encoding::Parquet { compression, row_group_rows, layout } => {
                let bytes = layout.row_group_bytes.unwrap_or_else(row_group_bytes);
                let groups = RowGroups { compression: *compression, rows: *row_group_rows, bytes };
                Self::Parquet(Arc::new(ParquetPlan::new(config.stored.clone(), groups, layout.clone())?))
            }
            Encoding::Csv { dialect, compression } => Self::Csv(dialect.clone(), *compression),
            Encoding::Ndjson { compression } => Self::Ndjson(*compression),
            Encoding::Typed { typed, schema } => Self::Typed(*typed, schema.clone()),
        })
    }

    /// Begins a file. `run_bytes` bounds what is gathered before it is encoded.
    ///
    /// # Errors
    /// An output that refuses.
    pub(super) fn open(&self, output: Box<dyn Output>, run_bytes: usize) -> Result<Encoder> {
        Ok(match self {
            Self::Parquet(plan) => Encoder::Parquet(Box::new(ParquetEncoder::new(plan.clone(), output, run_bytes)?)),
            Self::Csv(dialect, compression) => {
                let (codec, written) = Codec::new(output, *compression)?;
                Encoder::Csv(Box::new(CsvWriter::new(codec, dialect.clone())), written)
            }
            Self::Ndjson(compression) => {
                let (codec, written) = Codec::new(output, *compression)?;
                let writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(codec);
                Encoder::Ndjson(Box::new(writer), written)
            }
            Self::Typed(typed, schema) => Encoder::Typed(Box::new(typed.open(schema, output)?)),
        })
    }
}

/// One file, being written.
pub(super) enum Encoder {
    Parquet(Box<ParquetEncoder<Box<dyn Output>>>),
    Csv(Box<CsvWriter<Codec>>, Arc<AtomicU64>),
    Ndjson(Box<arrow::json::LineDelimitedWriter<Codec>>, Arc<AtomicU64>),
    Typed(Box<TypedFile>),
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder")
    }
}

fn text_error(error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, error) => io_error(&error),
        other => Error::new(ErrorKind::Data, "rows cannot be encoded as text").cause(other),
    }
}

impl Encoder {
    /// Takes rows in.
    ///
    /// # Errors
    /// An output that refuses, values that cannot be encoded.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Parquet(encoder) => encoder.write(batch),
            Self::Csv(writer, _) => writer.write(batch),
            Self::Ndjson(writer, _) => {
                only_finite(batch)?;
                writer.write(batch).map_err(text_error)
            }
            Self::Typed(file) => file.write(batch),
        }
    }

    /// Ends a row group, so that nothing is held but what the output holds.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub(super) fn release(&mut self) -> Result<()> {
        match self {
            Self::Parquet(encoder) => encoder.close_row_group(),
            Self::Csv(..) | Self::Ndjson(..) => Ok(()),
            Self::Typed(file) => file.flush(),
        }
    }

    /// Bytes of the file so far, about.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Parquet(encoder) => encoder.bytes(),
            Self::Csv(_, written) | Self::Ndjson(_, written) => written.load(Ordering::Relaxed),
            Self::Typed(file) => file.bytes(),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub(super) fn finish(self) -> Result<Held> {
        match self {
            Self::Parquet(_) => self.finish_with_footer().map(|(_, held)| held),
            Self::Csv(writer, _) => writer.into_inner().finish(),
            Self::Ndjson(mut writer, _) => {
                writer.finish().map_err(text_error)?;
                writer.into_inner().finish()
            }
            Self::Typed(file) => file.finish(),
        }
    }

    /// Ends the file; gives back what its footer says of its row groups, where it has one.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub(super) fn finish_with_footer(self) -> Result<(Vec<RowGroupMetaData>, Held)> {
        match self {
            Self::Parquet(encoder) => {
                let (groups, output) = encoder.finish()?;
                Ok((groups, output.finish()?))
            }
            text => Ok((Vec::new(), text.finish()?)),
        }
    }
}

/// A text file's compressor.
pub(super) enum Codec {
    Plain(Counted),
    Gzip(flate2::write::GzEncoder<Counted>),
    Zstd(zstd::stream::write::Encoder<'static, Counted>),
}

impl Codec {
    /// Begins a file, and tells how many bytes it has come to.
    ///
    /// # Errors
    /// A compressor that cannot be started.
    pub(super) fn new(output: Box<dyn Output>, compression: TextCompression) -> Result<(Self, Arc<AtomicU64>)> {
        let (counted, written) = Counted::new(output);
        let codec = match compression {
            TextCompression::None => Self::Plain(counted),
            TextCompression::Gzip(level) => {
                Self::Gzip(flate2::write::GzEncoder::new(counted, flate2::Compression::new(level)))
            }
            TextCompression::Zstd(level) => Self::Zstd(
                zstd::stream::write::Encoder::new(counted, level)
                    .map_err(|error| Error::internal("zstd cannot be started").cause(error))?,
            ),
        };
        Ok((codec, written))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// An output that refuses.
    pub(super) fn finish(self) -> Result<Held> {
        let counted = match self {
            Self::Plain(counted) => Ok(counted),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        };
        counted.map_err(|error| io_error(&error))?.finish()
    }
}

impl Write for Codec {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(output) => output.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // Flushing a compressor would cost ratio; the end of the file is soon enough.
        Ok(())
    }
}

/// An output that counts, for whoever rolls files.
pub(super) struct Counted {
    output: Box<dyn Output>,
    written: Arc<AtomicU64>,
}

impl Counted {
    pub(super) fn new(output: Box<dyn Output>) -> (Self, Arc<AtomicU64>) {
        let written = Arc::<AtomicU64>::default();
        (Self { output, written: written.clone() }, written)
    }

    /// Ends the output.
    ///
    /// # Errors
    /// An output that refuses.
    pub(super) fn finish(self) -> Result<Held> {
        self.output.finish()
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.written.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}
