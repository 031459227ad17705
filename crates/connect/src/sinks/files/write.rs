//! One writer's rows to files: one after another, or by partition.
//!
//! Everything here runs on a thread that may block (`stage.rs` starts it). Rows without partitions go straight into the
//! open file. Partitioned rows are gathered up to a budget, sorted by partition (a counting sort of row numbers and one
//! `take` per partition), and each partition's share becomes a row group; the smallest shares wait for the next round,
//! so that a rare partition is not written in crumbs. No encoder stays open between two rounds: with thousands of open
//! column writers their compressors alone would fill the memory. Where there are more partitions than files can be open,
//! rows are clustered on disk first.

use super::computed::with_computed;
use super::config::Config;
use super::delta::stats;
use super::encode::{Encoder, FilePlan};
use super::layout::{file_name, join};
use super::output::{Held, Output};
use super::parquet::{Busy, batch_bytes, share};
use super::partition::Splitter;
use super::place::side_by_side;
use super::spill::Spill;
use crate::memory;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use gristmill_model::{Error, ErrorKind, Result, StagedFile, TaskKey};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What all partitioned writers of the process may gather together: a part of the process's limit, and the most.
const GATHER_PART: u64 = 12;
const MOST_GATHER_BYTES: usize = 128 << 20;
/// What one of them may gather however many there are.
const LEAST_GATHER_BYTES: usize = 8 << 20;
/// What a writer gathers that clusters rows on disk, while others read and decode beside it: enough for a thousand rows of
/// each bucket at once.
const CLUSTER_BYTES: usize = 8 << 20;
/// What it gathers of one bucket when it reads them again: fewer rows would make more row groups of each partition.
const BUCKET_BYTES: usize = 16 << 20;
/// Files one writer keeps open.
const MOST_OPEN: usize = 128;
/// Files that have ended and are not yet known to be on the disk, of one writer: they are open until then.
const MOST_UNSETTLED: usize = 64;
/// What the unsent tails of held-open uploads of one writer may hold.
const TAIL_BYTES: u64 = 128 << 20;

/// Partitioned writers at work, which share what may be gathered.
static WRITERS: AtomicUsize = AtomicUsize::new(0);

/// Makes outputs of a place (`place.rs`).
pub(super) trait Outputs: Send {
    /// Opens the output of a file that will be at `path`, relative to the target.
    fn open(&mut self, path: &str) -> Result<Box<dyn Output>>;

    /// The size of parts that wait in memory, where outputs are uploads.
    fn part_size(&self) -> Option<u64>;

    /// A folder for what does not fit into memory.
    fn spill_folder(&self) -> PathBuf;
}

/// A file that has been written and is not visible yet.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) file: StagedFile,
    pub(super) held: Held,
}

/// A file being written.
struct Open {
    path: String,
    partition: String,
    rows: u64,
    encoder: Encoder,
    /// The columns, where the file is to tell about their values.
    statistics: Option<SchemaRef>,
}

impl Open {
    fn finish(self) -> Result<Written> {
        let (groups, mut held) = self.encoder.finish_with_footer()?;
        if let Some(schema) = &self.statistics {
            held.handle["stats"] = stats::of_file(&groups, schema).into();
        }
        let file = StagedFile {
            path: self.path,
            partition: self.partition,
            rows: self.rows,
            bytes: held.bytes,
            handle: held.handle.clone(),
        };
        Ok(Written { file, held })
    }
}

/// Opens files one after another.
struct Files {
    config: Arc<Config>,
    plan: FilePlan,
    task: TaskKey,
    outputs: Box<dyn Outputs>,
    extension: String,
    number: u32,
    written: Vec<Written>,
    /// How many of them are on the disk, and closed.
    settled: usize,
}

impl Files {
    /// Takes a file that has ended. Now and then those are settled: many small ones must not all stay open to the end.
    fn ended(&mut self, written: Written) -> Result<()> {
        self.written.push(written);
        if self.written.len() - self.settled >= MOST_UNSETTLED { self.settle() } else { Ok(()) }
    }

    /// Waits until the files that have ended are on the disk.
    fn settle(&mut self) -> Result<()> {
        side_by_side(&self.written[self.settled..], |written| written.held.sync())?;
        self.settled = self.written.len();
        Ok(())
    }

    fn open(&mut self, partition: &str) -> Result<Open> {
        let partition = if partition.is_empty() { self.config.inside.as_str() } else { partition };
        let path = match &self.config.single {
            Some(name) => name.clone(),
            None => join(partition, &file_name(&self.task, self.number, &self.extension)),
        };
        self.number += 1;
        let output = self.outputs.open(&path)?;
        // A file that is to stay small must not gather more than itself before its size is known.
        let run_bytes = usize::try_from(self.config.file_size).unwrap_or(usize::MAX).max(1 << 20);
        let encoder = self.plan.open(output, run_bytes)?;
        let statistics = self.config.statistics.then(|| self.config.stored.clone());
        Ok(Open { path, partition: partition.to_owned(), rows: 0, encoder, statistics })
    }
}

/// Writes one task's rows.
pub(super) struct TaskWriter {
    files: Files,
    rows: u64,
    shape: Shape,
}

enum Shape {
    Plain(Option<Open>),
    Partitioned(Box<Partitioned>),
}

struct Partitioned {
    splitter: Splitter,
    /// Partitions known to be in the scope.
    checked: usize,
    gathered: Gathered,
    open: HashMap<u32, Open>,
    spill: Option<Spill>,
    /// What may be gathered; by default this writer's share of what all may.
    budget: Option<usize>,
    _count: Count,
}

/// Counts a partitioned writer.
struct Count;

impl Count {
    fn new() -> Self {
        WRITERS.fetch_add(1, Ordering::Relaxed);
        Self
    }

    fn share() -> usize {
        let all = memory::share(GATHER_PART, LEAST_GATHER_BYTES, MOST_GATHER_BYTES);
        (all / WRITERS.load(Ordering::Relaxed).max(1)).max(LEAST_GATHER_BYTES)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        WRITERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Rows (stored columns only) that wait, and their partitions.
#[derive(Default)]
struct Gathered {
    batches: Vec<RecordBatch>,
    ids: Vec<u32>,
    bytes: usize,
}

impl TaskWriter {
    /// A writer for `task`.
    ///
    /// # Errors
    /// A schema that the format cannot hold.
    pub(super) fn new(config: Arc<Config>, task: TaskKey, outputs: Box<dyn Outputs>) -> Result<Self> {
        let plan = FilePlan::new(&config)?;
        let shape = if config.partition_by.is_empty() {
            Shape::Plain(None)
        } else {
            Shape::Partitioned(Box::new(Partitioned {
                splitter: Splitter::new(&config.schema, &config.partition_by)?,
                checked: 0,
                gathered: Gathered::default(),
                open: HashMap::new(),
                spill: None,
                budget: None,
                _count: Count::new(),
            }))
        };
        let extension = config.encoding.extension();
        let files = Files { config, plan, task, outputs, extension, number: 0, written: Vec::new(), settled: 0 };
        Ok(Self { files, rows: 0, shape })
    }

    /// Lets a test see what happens when little fits.
    #[cfg(test)]
    pub(super) fn gather_at_most(&mut self, bytes: usize) {
        if let Shape::Partitioned(partitioned) = &mut self.shape {
            partitioned.budget = Some(bytes);
        }
    }

    /// Takes rows in.
    ///
    /// # Errors
    /// An output that refuses, values that cannot be encoded, rows outside of the scope.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let _busy = Busy::now();
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.rows += batch.num_rows() as u64;
        match &mut self.shape {
            Shape::Plain(open) => {
                let mut file = match open.take() {
                    Some(file) => file,
                    None => self.files.open("")?,
                };
                file.encoder.write(batch)?;
                file.rows += batch.num_rows() as u64;
                if self.files.config.single.is_none() && file.encoder.bytes() >= self.files.config.file_size {
                    self.files.ended(file.finish()?)?;
                } else {
                    *open = Some(file);
                }
                Ok(())
            }
            Shape::Partitioned(partitioned) => partitioned.write(&mut self.files, batch),
        }
    }

    /// Writes a file even without rows, so that readers of the target learn its columns.
    ///
    /// # Errors
    /// As [`TaskWriter::write`].
    pub(super) fn write_nothing(&mut self) -> Result<()> {
        let mut file = self.files.open("")?;
        file.encoder.write(&RecordBatch::new_empty(self.files.config.stored.clone()))?;
        self.files.ended(file.finish()?)
    }

    /// Ends all files and waits until they are on the disk. Gives back the rows and the files.
    ///
    /// # Errors
    /// As [`TaskWriter::write`].
    pub(super) fn finish(mut self) -> Result<(u64, Vec<Written>)> {
        let _busy = Busy::now();
        match self.shape {
            Shape::Plain(None) => {}
            Shape::Plain(Some(file)) => self.files.ended(file.finish()?)?,
            Shape::Partitioned(mut partitioned) => partitioned.finish(&mut self.files)?,
        }
        self.files.settle()?;
        Ok((self.rows, self.files.written))
    }
}

fn encode_error(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Data, "rows cannot be sorted into their partitions").cause(error)
}

impl Partitioned {
    fn budget(&self) -> usize {
        let share = self.budget.unwrap_or_else(Count::share);
        if self.spill.is_some() || self.has_too_many() { share.min(CLUSTER_BYTES) } else { share }
    }

    /// Whether more partitions have been gathered than files can be open: gathering more rows does not help.
    fn has_too_many(&self) -> bool {
        if self.splitter.len() <= MOST_OPEN || self.gathered.bytes < CLUSTER_BYTES {
            return false;
        }
        let mut seen = vec![false; self.splitter.len()];
        let fresh = |id: &&u32| seen.get_mut(**id as usize).is_some_and(|seen| !std::mem::replace(seen, true));
        self.gathered.ids.iter().filter(fresh).nth(MOST_OPEN).is_some()
    }

    fn write(&mut self, files: &mut Files, batch: &RecordBatch) -> Result<()> {
        let batch = &with_computed(batch, &files.config.computed, &files.config.schema)?;
        let ids = self.splitter.split(batch)?;
        if let Some(scope) = &files.config.scope {
            for partition in self.checked..self.splitter.len() {
                let folder = self.splitter.folder(u32::try_from(partition).unwrap_or(u32::MAX));
                if !scope.holds_folder(folder) {
                    return Err(Error::new(
                        ErrorKind::Data,
                        format!("rows of partition `{folder}` are outside of the scope `{}`", scope.text),
                    )
                    .hint("select only rows of the scope, or widen `scope`"));
                }
            }
        }
        self.checked = self.splitter.len();
        let stored = batch.project(&files.config.keep).map_err(encode_error)?;
        self.gather(files, stored, ids)
    }

    fn gather(&mut self, files: &mut Files, stored: RecordBatch, ids: Vec<u32>) -> Result<()> {
        self.gathered.bytes += batch_bytes(&stored) + ids.len() * 4;
        self.gathered.batches.push(stored);
        self.gathered.ids.extend(ids);
        if self.gathered.bytes >= self.budget() { self.flush(files, false) } else { Ok(()) }
    }

    /// Writes what has been gathered: all of it, or the larger shares.
    fn flush(&mut self, files: &mut Files, all: bool) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.ids.is_empty() {
            return Ok(());
        }
        let sorted = Sorted::new(gathered, self.splitter.len(), &files.config)?;
        // What counts is how many come together: rows in the order of their partitions never need more than a few files.
        if !all && self.spill.is_none() && sorted.shares.len() > MOST_OPEN {
            self.spill = Some(Spill::new(files.outputs.spill_folder(), files.config.stored.clone()));
        }
        if let Some(spill) = &mut self.spill {
            let mut buckets: BTreeMap<u32, Vec<&Share>> = BTreeMap::new();
            for share in &sorted.shares {
                buckets.entry(Spill::bucket_of(share.partition)).or_default().push(share);
            }
            return buckets.into_iter().try_for_each(|(bucket, shares)| {
                let partitions = shares.iter().map(|share| (share.partition, share.count)).collect();
                spill.write(bucket, partitions, &sorted.rows_of(&shares)?)
            });
        }
        let chosen = if all { sorted.shares.len() } else { sorted.larger_shares() };
        self.write_shares(files, &sorted, chosen)?;
        let rest = &sorted.shares[chosen..];
        for share in rest {
            let rows = sorted.rows(share)?;
            self.gathered.bytes += batch_bytes(&rows) + share.count * 4;
            self.gathered.ids.extend(std::iter::repeat_n(share.partition, share.count));
            self.gathered.batches.push(rows);
        }
        Ok(())
    }

    /// Writes the first `chosen` shares, each as a row group of its partition's file.
    fn write_shares(&mut self, files: &mut Files, sorted: &Sorted, chosen: usize) -> Result<()> {
        for chunk in sorted.shares[..chosen].chunks(MOST_OPEN) {
            let mut slots = Vec::with_capacity(chunk.len());
            for share in chunk {
                let file = match self.open.remove(&share.partition) {
                    Some(file) => file,
                    None => files.open(self.splitter.folder(share.partition))?,
                };
                slots.push(Mutex::new(Some(file)));
            }
            let file_size = files.config.file_size;
            let done: Vec<Mutex<Option<Written>>> = chunk.iter().map(|_| Mutex::new(None)).collect();
            share(chunk.len(), &|at| {
                let mut slot = slots[at].lock().unwrap_or_else(PoisonError::into_inner);
                let Some(mut file) = slot.take() else { return Ok(()) };
                let rows = sorted.rows(&chunk[at])?;
                file.encoder.write(&rows)?;
                file.encoder.release()?;
                file.rows += rows.num_rows() as u64;
                if file.encoder.bytes() >= file_size {
                    *done[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(file.finish()?);
                } else {
                    *slot = Some(file);
                }
                Ok(())
            })?;
            for (share, slot) in chunk.iter().zip(slots) {
                if let Some(file) = slot.into_inner().unwrap_or_else(PoisonError::into_inner) {
                    self.open.insert(share.partition, file);
                }
            }
            for done in done {
                if let Some(written) = done.into_inner().unwrap_or_else(PoisonError::into_inner) {
                    files.ended(written)?;
                }
            }
            self.close_some(files)?;
        }
        Ok(())
    }

    /// Ends the largest files while too many are open, or while the tails of uploads hold too much.
    fn close_some(&mut self, files: &mut Files) -> Result<()> {
        let part_size = files.outputs.part_size();
        let tail = |open: &Open| part_size.map_or(0, |part| open.encoder.bytes() % part);
        let mut tails: u64 = self.open.values().map(tail).sum();
        while self.open.len() > MOST_OPEN || tails > TAIL_BYTES {
            let largest = self
                .open
                .iter()
                .max_by_key(|(_, open)| if part_size.is_some() { tail(open) } else { open.encoder.bytes() });
            let Some(partition) = largest.map(|(partition, _)| *partition) else { break };
            if let Some(file) = self.open.remove(&partition) {
                tails = tails.saturating_sub(tail(&file));
                files.ended(file.finish()?)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, files: &mut Files) -> Result<()> {
        self.flush(files, true)?;
        if let Some(spill) = self.spill.take() {
            // Files that were open before the clustering began are complete as they are.
            self.close_all(files)?;
            let mut buckets = spill.finish()?;
            while let Some(mut bucket) = buckets.pop() {
                while let Some((rows, partitions)) = bucket.next()? {
                    self.gathered.bytes += batch_bytes(&rows) + rows.num_rows() * 4;
                    self.gathered.batches.push(rows);
                    for (partition, count) in partitions {
                        self.gathered.ids.extend(std::iter::repeat_n(partition, count));
                    }
                    if self.gathered.bytes >= self.budget.unwrap_or_else(Count::share).min(BUCKET_BYTES) {
                        self.flush_clustered(files)?;
                    }
                }
                self.flush_clustered(files)?;
                self.close_all(files)?;
            }
        }
        self.close_all(files)
    }

    fn flush_clustered(&mut self, files: &mut Files) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.ids.is_empty() {
            return Ok(());
        }
        let sorted = Sorted::new(gathered, self.splitter.len(), &files.config)?;
        self.write_shares(files, &sorted, sorted.shares.len())
    }

    fn close_all(&mut self, files: &mut Files) -> Result<()> {
        for (_, file) in self.open.drain() {
            files.ended(file.finish()?)?;
        }
        Ok(())
    }
}

/// One partition's rows among the sorted.
struct Share {
    partition: u32,
    start: usize,
    count: usize,
}

/// Gathered rows, sorted by partition: by number, the rows themselves are taken share by share.
struct Sorted {
    schema: arrow::datatypes::SchemaRef,
    columns: Vec<ArrayRef>,
    order: ScalarBuffer<u32>,
    /// The largest first.
    shares: Vec<Share>,
}

impl Sorted {
    fn new(gathered: Gathered, partitions: usize, config: &Config) -> Result<Self> {
        let Gathered { batches, ids, .. } = gathered;
        let mut starts = vec![0usize; partitions + 1];
        for &id in &ids {
            starts[id as usize + 1] += 1;
        }
        let mut shares: Vec<Share> = Vec::new();
        for partition in 0..partitions {
            let (start, count) = (starts[partition], starts[partition + 1]);
            starts[partition + 1] += start;
            if count > 0 {
                shares.push(Share { partition: u32::try_from(partition).unwrap_or(u32::MAX), start, count });
            }
        }
        let mut order = vec![0u32; ids.len()];
        for (row, &id) in ids.iter().enumerate() {
            let place = &mut starts[id as usize];
            order[*place] = u32::try_from(row).map_err(|_| Error::internal("more than 2^32 rows were gathered"))?;
            *place += 1;
        }
        shares.sort_by(|one, other| other.count.cmp(&one.count).then(one.partition.cmp(&other.partition)));
        let columns = glue(batches, config.stored.fields().len())?;
        Ok(Self { schema: config.stored.clone(), columns, order: order.into(), shares })
    }

    /// How many of the largest shares make up three quarters of the rows.
    fn larger_shares(&self) -> usize {
        let enough = self.order.len() / 4 * 3;
        let mut rows = 0;
        self.shares
            .iter()
            .take_while(|share| {
                let before = rows;
                rows += share.count;
                before < enough
            })
            .count()
    }

    /// The rows of a share, copied out.
    fn rows(&self, share: &Share) -> Result<RecordBatch> {
        self.taken(UInt32Array::new(self.order.slice(share.start, share.count), None))
    }

    /// The rows of several shares, one after the other, copied out.
    fn rows_of(&self, shares: &[&Share]) -> Result<RecordBatch> {
        let of = |share: &&Share| self.order[share.start..share.start + share.count].iter().copied();
        self.taken(UInt32Array::from_iter_values(shares.iter().flat_map(of)))
    }

    fn taken(&self, order: UInt32Array) -> Result<RecordBatch> {
        let columns = self.columns.iter().map(|column| take(column, &order, None)).collect::<Result<Vec<_>, _>>();
        let options = RecordBatchOptions::new().with_row_count(Some(order.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns.map_err(encode_error)?, &options)
            .map_err(encode_error)
    }
}

/// Concatenates batches column by column; each column's pieces are let go as soon as they are one.
fn glue(batches: Vec<RecordBatch>, columns: usize) -> Result<Vec<ArrayRef>> {
    let mut pieces: Vec<Vec<ArrayRef>> = (0..columns).map(|_| Vec::with_capacity(batches.len())).collect();
    for batch in batches {
        for (pieces, column) in pieces.iter_mut().zip(batch.columns()) {
            pieces.push(column.clone());
        }
    }
    pieces
        .into_iter()
        .map(|pieces| match pieces.as_slice() {
            [one] => Ok(one.clone()),
            many => {
                let arrays: Vec<&dyn arrow::array::Array> = many.iter().map(AsRef::as_ref).collect();
                concat(&arrays).map_err(encode_error)
            }
        })
        .collect()
}
