//! Batches to Parquet row groups, as fast as two cores allow.
//!
//! Not `ArrowWriter`, because here
//! - a column's dictionary is decided by a look at the first rows, instead of being filled to its limit and thrown away
//!   in every row group;
//! - columns are encoded side by side while a core is idle;
//! - row groups are bounded by the bytes that came in, so that memory is bounded as well.

use super::parquet_layout::Layout;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use gristmill_model::{Error, ErrorKind, Result};
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescriptor;
use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of arrow data in a row group unless told otherwise: about half a million rows of a narrow table, and what an open
/// row group may hold in memory (encoded and compressed, a fraction of that). Twice as many make a file 0.2 % smaller and a
/// process with two writers 20 MB larger (lineitem). Fewer where the process may use little.
pub(super) const ROW_GROUP_BYTES: usize = 64 << 20;
const LEAST_ROW_GROUP_BYTES: usize = 16 << 20;
const ROW_GROUP_PART: u64 = 8;

/// The bytes of arrow data in a row group that the process's memory limit allows.
pub(super) fn row_group_bytes() -> usize {
    crate::memory::share(ROW_GROUP_PART, LEAST_ROW_GROUP_BYTES, ROW_GROUP_BYTES)
}
/// Rows gathered before the columns are encoded: enough for small batches to be worth it, few enough to be in the
/// processor's cache still; also what is looked at to decide on dictionaries. Eight times as many were no faster and took 35 MB more (lineitem).
const RUN_ROWS: usize = 8 << 10;
/// Bytes gathered before the columns are encoded.
const RUN_BYTES: usize = 4 << 20;
/// A dictionary larger than this is given up by the encoder (its default limit).
const DICTIONARY_BYTES: f64 = 1_048_576.0;

/// What is asked of the row groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowGroups {
    pub(super) compression: Compression,
    /// Rows, at most.
    pub(super) rows: Option<usize>,
    /// Bytes of arrow data, about.
    pub(super) bytes: usize,
}

/// An error of the Parquet library, ours if it came from us.
pub(super) fn parquet_error(error: ParquetError) -> Error {
    if let ParquetError::External(inner) = error {
        return match inner.downcast::<std::io::Error>() {
            Ok(io) => io_error(&io),
            Err(other) => Error::new(ErrorKind::Data, "rows cannot be encoded as Parquet").cause(other),
        };
    }
    Error::new(ErrorKind::Data, "rows cannot be encoded as Parquet").cause(error)
}

/// An error of writing, ours if it came from us (see `output.rs`).
pub(super) fn io_error(error: &std::io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(ours) => ours.clone(),
        None => Error::io(error, "the output"),
    }
}

/// What all files of one writer share: schema, settings, and which columns have a dictionary.
pub(super) struct ParquetPlan {
    schema: SchemaRef,
    parquet_schema: SchemaDescriptor,
    groups: RowGroups,
    layout: Layout,
    /// How columns are encoded; none until the first rows have been seen.
    factory: Mutex<Option<Arc<ArrowRowGroupWriterFactory>>>,
    file_properties: WriterPropertiesPtr,
}

impl fmt::Debug for ParquetPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParquetPlan")
            .field("schema", &self.schema)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl ParquetPlan {
    /// A plan for files of `schema`.
    ///
    /// # Errors
    /// A schema that Parquet cannot hold.
    pub(super) fn new(schema: SchemaRef, groups: RowGroups, layout: Layout) -> Result<Self> {
        let parquet_schema = ArrowSchemaConverter::new()
            .convert(&schema)
            .map_err(|error| Error::new(ErrorKind::Schema, "the columns cannot be written as Parquet").cause(error))?;
        let mut properties = layout.apply(properties(groups.compression), &parquet_schema, 0).build();
        add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
        let file_properties = Arc::new(properties);
        Ok(Self { schema, parquet_schema, groups, layout, factory: Mutex::new(None), file_properties })
    }

    /// The maker of column writers; the first call decides on dictionaries by `batches`.
    fn factory(&self, batches: &[RecordBatch]) -> Result<Arc<ArrowRowGroupWriterFactory>> {
        let mut known = self.factory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(factory) = known.as_ref() {
            return Ok(factory.clone());
        }
        let width = width(batches);
        let expected = (self.groups.bytes / width).min(self.groups.rows.unwrap_or(usize::MAX)).max(1);
        let dictionaries = match self.layout.dictionary {
            Some(all) => vec![all; self.schema.fields().len()],
            None => dictionaries(&self.schema, batches, expected),
        };
        let factory = Arc::new(self.factory_for(&dictionaries, expected, width)?);
        *known = Some(factory.clone());
        Ok(factory)
    }

    fn factory_for(&self, dictionaries: &[bool], expected: usize, width: usize) -> Result<ArrowRowGroupWriterFactory> {
        let rows = expected as u64;
        // After so many rows the encoder looks whether a page is full: pages of long values would become as large as a row group.
        let looks = properties(self.groups.compression).set_write_batch_size((RUN_BYTES / width).clamp(1, RUN_ROWS));
        let mut properties = self.layout.apply(looks, &self.parquet_schema, rows);
        for leaf in self.parquet_schema.columns() {
            let root = leaf.path().parts().first().map(String::as_str).unwrap_or_default();
            let field = self.schema.fields().iter().position(|field| field.name() == root);
            if field.is_some_and(|field| !dictionaries[field]) {
                properties = properties.set_column_dictionary_enabled(leaf.path().clone(), false);
            }
        }
        // A factory takes its settings from a file writer; this one writes nowhere.
        let root = self.parquet_schema.root_schema_ptr();
        let nowhere = SerializedFileWriter::new(std::io::sink(), root, Arc::new(properties.build()));
        Ok(ArrowRowGroupWriterFactory::new(&nowhere.map_err(parquet_error)?, self.schema.clone()))
    }
}

fn properties(compression: Compression) -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(compression)
        .set_created_by(concat!("gristmill ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_write_batch_size(RUN_ROWS)
        .set_max_row_group_row_count(None)
}

/// The bytes of a row, about: 1 at least.
fn width(batches: &[RecordBatch]) -> usize {
    let (rows, bytes) = batches
        .iter()
        .fold((0usize, 0usize), |(rows, bytes), batch| (rows + batch.num_rows(), bytes + batch_bytes(batch)));
    bytes.checked_div(rows).unwrap_or(1).max(1)
}

/// Decides by the first rows which fields a dictionary pays for.
///
/// The number of distinct values in a row group is estimated from two halves of a sample, by what they share
/// (capture and recapture): few shared values mean many distinct ones, be they random or ascending.
fn dictionaries(schema: &SchemaRef, batches: &[RecordBatch], expected: usize) -> Vec<bool> {
    let hasher = RandomState::new();
    let fields = schema.fields().len();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let sample = rows.min(RUN_ROWS);
    (0..fields)
        .map(|field| {
            let data_type = schema.field(field).data_type();
            // Booleans have no dictionary; nested columns keep the library's own way, which gives up by itself.
            if data_type.is_nested() || sample < 1000 {
                return true;
            }
            let Ok(converter) = RowConverter::new(vec![SortField::new(data_type.clone())]) else {
                return true;
            };
            let (mut first, mut second) = (HashSet::new(), HashSet::new());
            let (mut seen, mut value_bytes) = (0usize, 0usize);
            for batch in batches {
                let array = batch.column(field).slice(0, batch.num_rows().min(sample - seen));
                let Ok(values) = converter.convert_columns(&[array]) else {
                    return true;
                };
                for value in &values {
                    value_bytes += value.as_ref().len();
                    let half = if seen < sample / 2 { &mut first } else { &mut second };
                    half.insert(hasher.hash_one(value.as_ref()));
                    seen += 1;
                }
                if seen >= sample {
                    break;
                }
            }
            dictionary_pays(&first, &second, expected, value_bytes / seen.max(1))
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn dictionary_pays(first: &HashSet<u64>, second: &HashSet<u64>, expected_rows: usize, value_bytes: usize) -> bool {
    let shared = first.intersection(second).count() as f64;
    let distinct = (first.len() as f64 + 1.0) * (second.len() as f64 + 1.0) / (shared + 1.0) - 1.0;
    let distinct = distinct.min(expected_rows as f64);
    distinct * value_bytes as f64 <= DICTIONARY_BYTES && distinct <= expected_rows as f64 / 2.0
}

/// The bytes of a batch's rows: of a slice only its own share.
pub(super) fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(array_bytes).sum()
}

fn array_bytes(array: &ArrayRef) -> usize {
    // Views share their buffers with whatever they were cut from: what counts is what they point to.
    if let Some(texts) = array.as_string_view_opt() {
        return views_bytes(texts.views());
    }
    if let Some(values) = array.as_binary_view_opt() {
        return views_bytes(values.views());
    }
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}

/// A view's first 32 bits are the length of its value, which lies in the view itself up to 12 bytes.
fn views_bytes(views: &[u128]) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "the first 32 bits are meant")]
    let lengths = views.iter().map(|view| *view as u32 as usize);
    views.len() * 16 + lengths.filter(|length| *length > 12).sum::<usize>()
}

/// How many threads encode just now, in all of the process: a helper starts only where a core is idle.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Counts one thread as encoding.
pub(super) struct Busy;

impl Busy {
    pub(super) fn now() -> Self {
        BUSY.fetch_add(1, Ordering::Relaxed);
        Self
    }

    /// Counts one more thread, if a core is idle.
    fn if_idle() -> Option<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        BUSY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |busy| (busy < cores).then_some(busy + 1))
            .is_ok()
            .then(|| Self)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does `work(0..count)`, each once, on this thread and on as many others as cores are idle (at most three).
///
/// # Errors
/// The first error of `work`; the rest is not begun then.
pub(super) fn share(count: usize, work: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
    let next = AtomicUsize::new(0);
    let run = || -> Result<()> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(());
            }
            if let Err(error) = work(at) {
                next.store(count, Ordering::Relaxed);
                return Err(error);
            }
        }
    };
    let mut helpers = Vec::new();
    while helpers.len() < count.saturating_sub(1).min(3) {
        match Busy::if_idle() {
            Some(busy) => helpers.push(busy),
            None => break,
        }
    }
    if helpers.is_empty() {
        return run();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = helpers
            .into_iter()
            .map(|busy| {
                let run = &run;
                scope.spawn(move || {
                    let _busy = busy;
                    run()
                })
            })
            .collect();
        let mut result = run();
        for thread in threads {
            let theirs = thread.join().unwrap_or_else(|_| Err(Error::internal("an encoder panicked")));
            result = result.and(theirs);
        }
        result
    })
}

/// The column writers of one top-level field.
type Field = Mutex<Vec<ArrowColumnWriter>>;

/// Writes one Parquet file to `W`.
pub(super) struct ParquetEncoder<W: Write + Send> {
    plan: Arc<ParquetPlan>,
    file: SerializedFileWriter<W>,
    /// The open row group; empty when none is open.
    fields: Vec<Field>,
    /// Batches of the open row group that are not encoded yet.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    run_bytes: usize,
    group_rows: usize,
    group_bytes: usize,
    /// Bytes in the column writers after the last run.
    held: usize,
}

impl<W: Write + Send> fmt::Debug for ParquetEncoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParquetEncoder").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl<W: Write + Send> ParquetEncoder<W> {
    /// Begins a file. `run_bytes` bounds what is gathered before columns are encoded.
    ///
    /// # Errors
    /// An output that refuses.
    pub(super) fn new(plan: Arc<ParquetPlan>, output: W, run_bytes: usize) -> Result<Self> {
        let root = plan.parquet_schema.root_schema_ptr();
        let file = SerializedFileWriter::new(output, root, plan.file_properties.clone()).map_err(parquet_error)?;
        Ok(Self {
            plan,
            file,
            fields: Vec::new(),
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            run_bytes: run_bytes.min(RUN_BYTES),
            group_rows: 0,
            group_bytes: 0,
            held: 0,
        })
    }

    /// Bytes of the file so far, the open row group as far as it is encoded.
    pub(super) fn bytes(&self) -> u64 {
        (self.file.bytes_written() + self.held) as u64
    }

    /// Row groups written so far.
    pub(super) fn row_groups(&self) -> usize {
        self.file.flushed_row_groups().len()
    }

    /// Takes rows in. A batch is cut where a row group is full.
    ///
    /// # Errors
    /// An output that refuses, values that cannot be encoded.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let width = (batch_bytes(batch) / rows).max(1);
        let mut at = 0;
        while at < rows {
            let room_bytes = self.plan.groups.bytes.saturating_sub(self.group_bytes).div_ceil(width).max(1);
            let room_rows = self.plan.groups.rows.map_or(usize::MAX, |most| most - self.group_rows);
            let take = room_bytes.min(room_rows).min(rows - at);
            self.pending.push(if take == rows { batch.clone() } else { batch.slice(at, take) });
            self.pending_rows += take;
            self.pending_bytes += take * width;
            self.group_rows += take;
            self.group_bytes += take * width;
            at += take;
            if self.group_bytes >= self.plan.groups.bytes || self.plan.groups.rows == Some(self.group_rows) {
                self.close_row_group()?;
            } else if self.pending_rows >= RUN_ROWS || self.pending_bytes >= self.run_bytes {
                self.encode_pending()?;
            }
        }
        Ok(())
    }

    fn encode_pending(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.fields.is_empty() {
            let factory = self.plan.factory(&self.pending)?;
            let mut writers = factory.create_column_writers(self.row_groups()).map_err(parquet_error)?.into_iter();
            for field in self.plan.schema.fields() {
                self.fields.push(Mutex::new(writers.by_ref().take(leaves(field.data_type())).collect()));
            }
        }
        let (fields, pending, schema) = (&self.fields, &self.pending, &self.plan.schema);
        share(fields.len(), &|at| {
            let mut writers = fields[at].lock().unwrap_or_else(PoisonError::into_inner);
            for batch in pending {
                let columns = compute_leaves(schema.field(at), batch.column(at)).map_err(parquet_error)?;
                for (writer, column) in writers.iter_mut().zip(&columns) {
                    writer.write(column).map_err(parquet_error)?;
                }
            }
            Ok(())
        })?;
        self.pending.clear();
        self.pending_rows = 0;
        self.pending_bytes = 0;
        self.held = 0;
        for field in &mut self.fields {
            let writers = field.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.held += writers.iter().map(ArrowColumnWriter::memory_size).sum::<usize>();
        }
        Ok(())
    }

    /// Ends the open row group, if there is one.
    ///
    /// # Errors
    /// An output that refuses, values that cannot be encoded.
    pub(super) fn close_row_group(&mut self) -> Result<()> {
        self.encode_pending()?;
        let fields = std::mem::take(&mut self.fields);
        if fields.is_empty() {
            return Ok(());
        }
        let slots: Vec<Mutex<Slot>> = fields.into_iter().map(|field| Mutex::new(Slot::Open(field))).collect();
        // The last page of every column is compressed here.
        share(slots.len(), &|at| {
            let mut slot = slots[at].lock().unwrap_or_else(PoisonError::into_inner);
            if let Slot::Open(field) = std::mem::replace(&mut *slot, Slot::Closed(Vec::new())) {
                let writers = field.into_inner().unwrap_or_else(PoisonError::into_inner);
                let chunks = writers.into_iter().map(ArrowColumnWriter::close).collect::<Result<Vec<_>, _>>();
                *slot = Slot::Closed(chunks.map_err(parquet_error)?);
            }
            Ok(())
        })?;
        let mut group = self.file.next_row_group().map_err(parquet_error)?;
        for slot in slots {
            if let Slot::Closed(chunks) = slot.into_inner().unwrap_or_else(PoisonError::into_inner) {
                for chunk in chunks {
                    chunk.append_to_row_group(&mut group).map_err(parquet_error)?;
                }
            }
        }
        group.close().map_err(parquet_error)?;
        self.group_rows = 0;
        self.group_bytes = 0;
        self.held = 0;
        Ok(())
    }

    /// Ends the file; gives back what its footer says of the row groups, and the output.
    ///
    /// # Errors
    /// An output that refuses, values that cannot be encoded.
    pub(super) fn finish(mut self) -> Result<(Vec<RowGroupMetaData>, W)> {
        self.close_row_group()?;
        let groups = self.file.flushed_row_groups().to_vec();
        // This writes the footer.
        let output = self.file.into_inner().map_err(parquet_error)?;
        Ok((groups, output))
    }
}

/// The column writers of a field, then what came of them.
enum Slot {
    Open(Field),
    Closed(Vec<ArrowColumnChunk>),
}

/// How many Parquet columns a type becomes.
fn leaves(data_type: &arrow::datatypes::DataType) -> usize {
    use arrow::datatypes::DataType;
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => leaves(field.data_type()),
        DataType::Struct(fields) => fields.iter().map(|field| leaves(field.data_type())).sum(),
        DataType::Dictionary(_, values) => leaves(values),
        DataType::RunEndEncoded(_, values) => leaves(values.data_type()),
        _ => 1,
    }
}
