//! The block writer: rows arrive in blocks and become the row groups of one Parquet file.

use super::output::{FileOutput, Held, Output, UploadOutput, UploadTo, complete, part_size};
use super::parquet::{Busy, ParquetEncoder, ParquetPlan, ROW_GROUP_BYTES, RowGroups};
use super::parquet_layout::Layout;
use super::place::sync_folder;
use crate::stores::Store;
use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{SortOptions, sort_limit};
use arrow::datatypes::SchemaRef;
use arrow::util::display::array_value_to_string;
use gristmill_model::{Error, ErrorKind, Result};
use object_store::multipart::MultipartStore;
use object_store::path::Path as StorePath;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::RowGroupMetaData;
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How a [`BlockWriter`] cuts and compresses.
#[derive(Debug, Clone, Copy)]
pub struct BlockOptions {
    /// Rows in a row group, exactly (but for the last); `None`: bounded by bytes alone.
    pub row_group_rows: Option<usize>,
    /// Bytes of arrow data in a row group, about; 128 MiB by default. Bounds the writer's memory.
    pub row_group_bytes: usize,
    /// The codec; zstd at level 1 by default.
    pub compression: Compression,
    /// How large the file may become. Uploads are cut into at most 10,000 equal parts of at least 8 MiB: beyond 80 GB
    /// the parts must be larger, and this says so.
    pub expected_bytes: u64,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            row_group_rows: None,
            row_group_bytes: ROW_GROUP_BYTES,
            compression: Compression::ZSTD(ZstdLevel::default()),
            expected_bytes: 64 << 30,
        }
    }
}

/// What a [`BlockWriter`] has written.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockStats {
    /// Rows.
    pub rows: u64,
    /// Rows of each row group.
    pub row_groups: Vec<u64>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the pages as stored.
    pub compressed: u64,
    /// Bytes of the pages before compression.
    pub uncompressed: u64,
    /// The columns, in order; the fields of a nested column each by its path.
    pub columns: Vec<ColumnStats>,
}

/// What is known of one column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnStats {
    /// The column's path: its name, or `a.b` within a structure.
    pub name: String,
    /// Bytes of its pages as stored.
    pub compressed: u64,
    /// Bytes of its pages before compression.
    pub uncompressed: u64,
    /// NULLs, for columns that are not nested.
    pub nulls: Option<u64>,
    /// The least value, for columns that are not nested and have an order; texts are cut to a bound of 64 bytes.
    pub min: Option<String>,
    /// The greatest value, as `min`.
    pub max: Option<String>,
}

/// Where the file goes when it is whole.
enum Target {
    Local { path: PathBuf, temporary: PathBuf },
    Remote { multipart: Arc<dyn MultipartStore>, path: StorePath, runtime: Handle },
}

impl Target {
    fn publish(&self, handle: &Value) -> Result<()> {
        match self {
            Self::Local { path, temporary } => {
                let what = || format!("`{}`", path.display());
                std::fs::rename(temporary, path).map_err(|error| Error::io(&error, what()))?;
                path.parent().map_or(Ok(()), |folder| {
                    sync_folder(if folder.as_os_str().is_empty() { ".".as_ref() } else { folder })
                })
            }
            Self::Remote { multipart, path, runtime } => runtime.block_on(complete(multipart.as_ref(), path, handle)),
        }
    }
}

enum Message {
    Block(RecordBatch),
    End,
}

/// Writes blocks of rows as one Parquet file.
///
/// Blocks are cut and gathered into row groups of the wanted size. The first block fixes the schema; a block that
/// differs is an error that names the column. The file appears under its name only when [`BlockWriter::finish`] has
/// answered: on local disk it is written under a hidden name, synchronised and renamed, on an object store it is a
/// multipart upload that is completed at the end. A writer that fails or is dropped leaves nothing.
///
/// Encoding happens on a thread of its own; [`BlockWriter::write`] waits while it is two blocks behind, so that memory
/// is bounded by a row group, two blocks and, for uploads, three parts.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use gristmill_connect::sinks::files::{BlockOptions, BlockWriter};
/// use std::sync::Arc;
///
/// let folder = std::env::temp_dir().join(format!("blocks-{}", std::process::id()));
/// std::fs::create_dir_all(&folder)?;
/// let options = BlockOptions { row_group_rows: Some(1000), ..BlockOptions::default() };
/// let mut writer = BlockWriter::to_file(folder.join("numbers.parquet"), options)?;
/// for block in 0..5 {
///     let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(block * 500..(block + 1) * 500));
///     writer.write(RecordBatch::try_from_iter([("number", numbers)])?).await?;
/// }
/// let stats = writer.finish().await?;
/// assert_eq!(stats.row_groups, [1000, 1000, 500]);
/// assert_eq!(stats.columns[0].max.as_deref(), Some("2499"));
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(())
/// # }
/// ```
pub struct BlockWriter {
    schema: Option<SchemaRef>,
    send: Option<mpsc::Sender<Message>>,
    encoder: Option<JoinHandle<Result<BlockStats>>>,
}

impl fmt::Debug for BlockWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockWriter").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl BlockWriter {
    /// Writes the local file `path`, whose folder must exist. A file that is there is replaced when the new one is whole.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A path without a file name.
    pub fn to_file(path: impl Into<PathBuf>, options: BlockOptions) -> Result<Self> {
        let path = path.into();
        let Some(name) = path.file_name() else {
            return Err(Error::new(ErrorKind::Usage, format!("`{}` is not a file name", path.display()))
                .hint("name a file, e.g. `out.parquet`"));
        };
        let unique = uuid::Uuid::new_v4().simple();
        let temporary = path.with_file_name(format!(".{}.{unique}.tmp", name.to_string_lossy()));
        let target = Target::Local { path, temporary };
        Ok(Self::start(target, options, |target| match target {
            Target::Local { temporary, .. } => Ok(Box::new(FileOutput::create(temporary.clone(), Value::Null)?)),
            Target::Remote { .. } => Err(Error::internal("a file is no upload")),
        }))
    }

    /// Writes the object `path` (relative to the connection's folder) of a store; a local one too. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// A store that can only be read from, a path that cannot be a name.
    pub fn to_store(store: &Store, path: &str, options: BlockOptions) -> Result<Self> {
        if let Some(folder) = &store.local {
            return Self::to_file(folder.join(path), options);
        }
        let Some(multipart) = store.multipart.clone() else {
            return Err(Error::new(ErrorKind::Config, format!("`{}` can only be read from", store.describe()))
                .hint("write to a folder, or to s3://, gs:// or az://"));
        };
        let (objects, path) = (store.store.clone(), store.locate(path)?);
        let target = Target::Remote { multipart, path, runtime: Handle::current() };
        let part_size = part_size(options.expected_bytes);
        Ok(Self::start(target, options, move |target| match target {
            Target::Remote { multipart, path, runtime } => {
                let (multipart, path, runtime) = (multipart.clone(), path.clone(), runtime.clone());
                let to = UploadTo { multipart, store: objects, path, hidden: None, part_size, runtime };
                Ok(Box::new(UploadOutput::create(to, None)?))
            }
            Target::Local { .. } => Err(Error::internal("an upload is no file")),
        }))
    }

    fn start(
        target: Target,
        options: BlockOptions,
        open: impl FnOnce(&Target) -> Result<Box<dyn Output>> + Send + 'static,
    ) -> Self {
        let (send, receive) = mpsc::channel(2);
        let encoder = tokio::task::spawn_blocking(move || encode(&target, options, open, receive));
        Self { schema: None, send: Some(send), encoder: Some(encoder) }
    }

    /// Takes a block in.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] for a block that differs from the first, naming the column and both types; whatever the
    /// output says. After an error the writer is finished and nothing is left.
    pub async fn write(&mut self, block: RecordBatch) -> Result<()> {
        match &self.schema {
            None => self.schema = Some(block.schema()),
            Some(schema) => {
                if let Err(error) = same_schema(schema, &block.schema()) {
                    self.give_up().await;
                    return Err(error);
                }
            }
        }
        let Some(send) = &self.send else {
            return Err(Error::internal("a block was written to a writer that has failed"));
        };
        if send.send(Message::Block(block)).await.is_ok() {
            return Ok(());
        }
        self.send = None;
        match self.join().await {
            Err(error) => Err(error),
            Ok(_) => Err(Error::internal("an encoder has ended before its blocks")),
        }
    }

    /// Ends the file and lets it appear. The statistics come from its footer.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] when no block has come, so that there is no schema; whatever the output says. Nothing is left.
    pub async fn finish(mut self) -> Result<BlockStats> {
        if let Some(send) = self.send.take() {
            drop(send.send(Message::End).await);
        }
        self.join().await
    }

    async fn join(&mut self) -> Result<BlockStats> {
        match self.encoder.take() {
            Some(encoder) => encoder.await.map_err(|error| Error::internal("an encoder panicked").cause(error))?,
            None => Err(Error::internal("a writer that has failed was finished")),
        }
    }

    /// Stops, and waits until what was written is taken back.
    async fn give_up(&mut self) {
        self.send = None;
        drop(self.join().await);
    }
}

/// Says which column of a block is not as in the first one.
fn same_schema(first: &SchemaRef, block: &SchemaRef) -> Result<()> {
    if Arc::ptr_eq(first, block) || first.fields() == block.fields() {
        return Ok(());
    }
    let differs = |what: String| {
        Error::new(ErrorKind::Schema, format!("a block differs from the first one: {what}"))
            .hint("cast the block to the schema of the first one")
    };
    for (at, field) in first.fields().iter().enumerate() {
        let Some(other) = block.fields().get(at) else {
            return Err(differs(format!("column `{}` of type {} is missing", field.name(), field.data_type())));
        };
        if other.name() != field.name() {
            let place = at + 1;
            return Err(differs(format!("column {place} is `{}` instead of `{}`", other.name(), field.name())));
        }
        if other.data_type() != field.data_type() {
            let (was, is) = (field.data_type(), other.data_type());
            return Err(differs(format!("column `{}` is {is} instead of {was}", field.name())));
        }
        if other.is_nullable() && !field.is_nullable() {
            return Err(differs(format!("column `{}` may be NULL and might not before", field.name())));
        }
    }
    match block.fields().get(first.fields().len()) {
        Some(field) => Err(differs(format!("column `{}` of type {} is new", field.name(), field.data_type()))),
        // What is left is metadata, or a column that may no longer be NULL.
        None => Ok(()),
    }
}

fn encode(
    target: &Target,
    options: BlockOptions,
    open: impl FnOnce(&Target) -> Result<Box<dyn Output>>,
    mut receive: mpsc::Receiver<Message>,
) -> Result<BlockStats> {
    let mut open = Some(open);
    let mut encoder: Option<ParquetEncoder<Box<dyn Output>>> = None;
    let mut schema = None;
    while let Some(message) = receive.blocking_recv() {
        let _busy = Busy::now();
        match message {
            Message::Block(block) => {
                if let Some(open) = open.take() {
                    let groups = RowGroups {
                        compression: options.compression,
                        rows: options.row_group_rows.map(|rows| rows.max(1)),
                        bytes: options.row_group_bytes.max(1),
                    };
                    let plan = Arc::new(ParquetPlan::new(block.schema(), groups, Layout::default())?);
                    schema = Some(block.schema());
                    encoder = Some(ParquetEncoder::new(plan, open(target)?, options.row_group_bytes)?);
                }
                if let Some(encoder) = &mut encoder {
                    encoder.write(&block)?;
                }
            }
            Message::End => {
                let (Some(encoder), Some(schema)) = (encoder, schema) else {
                    return Err(Error::new(ErrorKind::Data, "no block has been written, so the file has no columns")
                        .hint("write a block without rows to make an empty file"));
                };
                let (groups, output) = encoder.finish()?;
                let held: Held = output.finish()?;
                held.sync()?;
                target.publish(&held.handle)?;
                let bytes = held.bytes;
                held.keep();
                return stats(&schema, &groups, bytes);
            }
        }
    }
    // Dropping the encoder takes back what it has written.
    Err(Error::new(ErrorKind::Canceled, "the writer was dropped before its end"))
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn stats(schema: &SchemaRef, groups: &[RowGroupMetaData], bytes: u64) -> Result<BlockStats> {
    let parquet = ArrowSchemaConverter::new()
        .convert(schema)
        .map_err(|error| Error::new(ErrorKind::Schema, "the columns cannot be written as Parquet").cause(error))?;
    let mut columns: Vec<ColumnStats> = Vec::with_capacity(parquet.num_columns());
    for (at, column) in parquet.columns().iter().enumerate() {
        let of = |what: fn(&parquet::file::metadata::ColumnChunkMetaData) -> i64| {
            groups.iter().map(|group| unsigned(what(group.column(at)))).sum()
        };
        let mut known = ColumnStats {
            name: column.path().string(),
            compressed: of(|column| column.compressed_size()),
            uncompressed: of(|column| column.uncompressed_size()),
            nulls: None,
            min: None,
            max: None,
        };
        if let Ok(converter) = StatisticsConverter::try_new(&known.name, schema, &parquet)
            && let Ok(nulls) = converter.row_group_null_counts(groups)
        {
            known.nulls = (nulls.null_count() == 0).then(|| nulls.values().iter().sum());
            let rows: Vec<u64> = groups.iter().map(|group| unsigned(group.num_rows())).collect();
            let least = converter.row_group_mins(groups).ok();
            known.min = least.and_then(|values| extreme(&values, &nulls, &rows, false));
            let greatest = converter.row_group_maxes(groups).ok();
            known.max = greatest.and_then(|values| extreme(&values, &nulls, &rows, true));
        }
        columns.push(known);
    }
    Ok(BlockStats {
        rows: groups.iter().map(|group| unsigned(group.num_rows())).sum(),
        row_groups: groups.iter().map(|group| unsigned(group.num_rows())).collect(),
        bytes,
        compressed: columns.iter().map(|column| column.compressed).sum(),
        uncompressed: columns.iter().map(|column| column.uncompressed).sum(),
        columns,
    })
}

/// The extreme of the row groups' extremes; `None` where a row group with values has none.
fn extreme(values: &ArrayRef, nulls: &UInt64Array, rows: &[u64], greatest: bool) -> Option<String> {
    let told = |group: usize| !values.is_null(group) || (nulls.is_valid(group) && nulls.value(group) == rows[group]);
    if !(0..rows.len()).all(told) {
        return None;
    }
    let order = SortOptions { descending: greatest, nulls_first: false };
    let first = sort_limit(values, Some(order), Some(1)).ok()?;
    if first.is_empty() || first.is_null(0) {
        return None;
    }
    array_value_to_string(&first, 0).ok()
}
