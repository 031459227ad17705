//! A pipe: one producer of a view's rows, any number of readers, each of which gets every row once.
//!
//! A view that several actions read, or that has checks, is computed once and handed to all its readers while it is
//! being computed. Batches wait in memory for the slowest reader. When they would take more than the pipe's share, the
//! producer waits for readers to catch up; when none of them moves (a reader may be busy with something else, such as
//! the other side of a join over the same pipe), batches go to disk instead. So the pipe never deadlocks and its memory
//! is bounded, and in the usual case nothing is written.

use crate::error::to_datafusion;
use crate::memory::Pressure;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use gristmill_model::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// How long a producer over its share waits for a reader to move before it writes to disk.
const PATIENCE: Duration = Duration::from_millis(250);

/// A pipe holds this part of its share when the process is over its limit.
const UNDER_PRESSURE: u64 = 8;

/// One view's rows on their way from one producer to its readers.
pub(crate) struct Pipe {
    name: String,
    schema: SchemaRef,
    lanes: Vec<Lane>,
    readers: Mutex<u64>,
    limit: u64,
    pressure: Pressure,
    held: AtomicU64,
    reservation: MemoryReservation,
    moved: watch::Sender<u64>,
    spill: Mutex<Option<Arc<Spill>>>,
    spill_dir: PathBuf,
    spilled: AtomicU64,
    started: AtomicBool,
    /// A wait was in vain; until a reader moves on, there is no use in another.
    impatient: AtomicBool,
}

/// One partition of the producer.
struct Lane {
    state: Mutex<LaneState>,
    grown: watch::Sender<u64>,
}

#[derive(Default)]
struct LaneState {
    queue: VecDeque<Slot>,
    /// The position of the queue's first slot.
    base: u64,
    /// Each reader's position; `None` once it wants no more.
    positions: Vec<Option<u64>>,
    ended: Option<Result<()>>,
}

#[derive(Clone)]
enum Slot {
    Memory(RecordBatch, u64),
    Disk { spill: Arc<Spill>, offset: u64, length: u64 },
}

/// A temporary file that is gone with its last user.
struct Spill {
    file: File,
    path: PathBuf,
    end: AtomicU64,
}

impl Drop for Spill {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe").field("name", &self.name).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock means a panic elsewhere, which ends the job anyway; the data is still whole.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Pipe {
    /// A pipe of so many lanes that keeps at most `limit` bytes in memory, and hardly any under `pressure`; the rest goes
    /// below `spill_dir`.
    pub(crate) fn new(
        name: &str,
        schema: SchemaRef,
        lanes: usize,
        limit: u64,
        pressure: Pressure,
        runtime: &RuntimeEnv,
        spill_dir: PathBuf,
    ) -> Arc<Self> {
        let reservation = MemoryConsumer::new(format!("view {name}")).register(&runtime.memory_pool);
        let lane = || Lane { state: Mutex::default(), grown: watch::channel(0).0 };
        Arc::new(Self {
            name: name.to_owned(),
            schema,
            lanes: (0..lanes).map(|_| lane()).collect(),
            readers: Mutex::new(0),
            limit,
            pressure,
            held: AtomicU64::new(0),
            reservation,
            moved: watch::channel(0).0,
            spill: Mutex::new(None),
            spill_dir,
            spilled: AtomicU64::new(0),
            started: AtomicBool::new(false),
            impatient: AtomicBool::new(false),
        })
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The view's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Bytes that went to disk because no reader was ready for them.
    pub(crate) fn spilled(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }

    /// A new reader. All readers must be there before the first row is.
    pub(crate) fn reader(self: &Arc<Self>) -> PipeReader {
        let id = {
            let mut readers = lock(&self.readers);
            *readers += 1;
            *readers - 1
        };
        for lane in &self.lanes {
            let mut state = lock(&lane.state);
            let base = state.base;
            state.positions.push(Some(base));
        }
        let late = self.started.load(Ordering::Relaxed);
        PipeReader { pipe: self.clone(), id: usize::try_from(id).unwrap_or(usize::MAX), late }
    }

    /// Marks the beginning: readers that come later are an error.
    pub(crate) fn start(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Whether any reader still wants rows.
    pub(crate) fn wanted(&self, lane: usize) -> bool {
        lock(&self.lanes[lane].state).positions.iter().any(Option::is_some)
    }

    /// Hands on one batch; waits while readers are behind.
    pub(crate) async fn push(&self, lane: usize, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 || !self.wanted(lane) {
            return Ok(());
        }
        let bytes = batch.get_array_memory_size() as u64;
        let slot = if self.make_room(bytes).await {
            self.held.fetch_add(bytes, Ordering::Relaxed);
            Slot::Memory(batch, bytes)
        } else {
            self.write(batch).await?
        };
        let position = {
            let mut state = lock(&self.lanes[lane].state);
            state.queue.push_back(slot);
            state.base + state.queue.len() as u64
        };
        self.lanes[lane].grown.send_replace(position);
        Ok(())
    }

    /// Whether `bytes` more may be held in memory, after some waiting if need be.
    async fn make_room(&self, bytes: u64) -> bool {
        let mut moved = self.moved.subscribe();
        loop {
            let held = self.held.load(Ordering::Relaxed);
            let limit = if self.pressure.is_on() { self.limit / UNDER_PRESSURE } else { self.limit };
            if held == 0 || held + bytes <= limit {
                let fits = self.reservation.try_grow(usize::try_from(bytes).unwrap_or(usize::MAX)).is_ok();
                // A single batch that even an empty pipe cannot reserve has been accounted for by whoever made it.
                if fits || held == 0 {
                    return fits;
                }
            }
            if self.impatient.load(Ordering::Relaxed) {
                return false;
            }
            moved.borrow_and_update();
            if tokio::time::timeout(PATIENCE, moved.changed()).await.is_err() {
                self.impatient.store(true, Ordering::Relaxed);
                return false;
            }
        }
    }

    async fn write(&self, batch: RecordBatch) -> Result<Slot> {
        let spill = self.spill_file()?;
        let target = spill.clone();
        let written = tokio::task::spawn_blocking(move || write_batch(&target, &batch)).await;
        let (offset, length) = written.map_err(|error| Error::internal(format!("spilling ended: {error}")))??;
        self.spilled.fetch_add(length, Ordering::Relaxed);
        Ok(Slot::Disk { spill, offset, length })
    }

    fn spill_file(&self) -> Result<Arc<Spill>> {
        let mut spill = lock(&self.spill);
        if let Some(spill) = spill.as_ref() {
            return Ok(spill.clone());
        }
        let path = self.spill_dir.join(format!("view-{}-{}.ipc", self.name, uuid::Uuid::new_v4()));
        let open = || {
            std::fs::create_dir_all(&self.spill_dir)?;
            File::options().read(true).write(true).create_new(true).open(&path)
        };
        let file = open().map_err(|error| Error::io(&error, format!("the spill file `{}`", path.display())))?;
        let new = Arc::new(Spill { file, path, end: AtomicU64::new(0) });
        *spill = Some(new.clone());
        Ok(new)
    }

    /// Says that a lane has no more rows, or why.
    pub(crate) fn finish(&self, lane: usize, outcome: Result<()>) {
        let mut state = lock(&self.lanes[lane].state);
        if state.ended.is_none() {
            state.ended = Some(outcome);
        }
        drop(state);
        self.lanes[lane].grown.send_modify(|version| *version += 1);
    }

    /// Drops slots that every reader has passed.
    fn trim(&self, state: &mut LaneState) {
        let least = state.positions.iter().flatten().min().copied();
        let keep_from = least.unwrap_or(state.base + state.queue.len() as u64);
        let mut freed = 0;
        while state.base < keep_from
            && let Some(slot) = state.queue.pop_front()
        {
            state.base += 1;
            if let Slot::Memory(_, bytes) = slot {
                freed += bytes;
            }
        }
        if freed > 0 {
            self.impatient.store(false, Ordering::Relaxed);
            self.held.fetch_sub(freed, Ordering::Relaxed);
            self.reservation.shrink(usize::try_from(freed).unwrap_or(usize::MAX));
        }
    }

    /// A reader wants no more of any lane.
    fn close(&self, reader: usize) {
        (0..self.lanes.len()).for_each(|lane| self.close_lane(reader, lane));
    }

    fn close_lane(&self, reader: usize, lane: usize) {
        let mut state = lock(&self.lanes[lane].state);
        if let Some(position) = state.positions.get_mut(reader) {
            *position = None;
        }
        self.trim(&mut state);
        drop(state);
        self.moved.send_modify(|version| *version += 1);
    }
}

fn write_batch(spill: &Spill, batch: &RecordBatch) -> Result<(u64, u64)> {
    let mut bytes = Vec::new();
    let encode = || -> std::result::Result<Vec<u8>, datafusion::arrow::error::ArrowError> {
        let mut writer = StreamWriter::try_new(&mut bytes, batch.schema_ref())?;
        writer.write(batch)?;
        writer.finish()?;
        drop(writer);
        Ok(bytes)
    };
    let bytes = encode().map_err(|error| Error::internal(format!("a batch cannot be spilled: {error}")))?;
    let length = bytes.len() as u64;
    let offset = spill.end.fetch_add(length, Ordering::Relaxed);
    spill
        .file
        .write_all_at(&bytes, offset)
        .map_err(|error| Error::io(&error, format!("the spill file `{}`", spill.path.display())))?;
    Ok((offset, length))
}

fn read_batch(spill: &Spill, offset: u64, length: u64) -> Result<RecordBatch> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    spill
        .file
        .read_exact_at(&mut bytes, offset)
        .map_err(|error| Error::io(&error, format!("the spill file `{}`", spill.path.display())))?;
    StreamReader::try_new(bytes.as_slice(), None)
        .and_then(|mut reader| reader.next().transpose())
        .map_err(|error| Error::internal(format!("a spilled batch cannot be read: {error}")))?
        .ok_or_else(|| Error::internal("a spilled batch is empty"))
}

/// One reader of a pipe. Dropping it tells the pipe that it wants no more.
pub(crate) struct PipeReader {
    pipe: Arc<Pipe>,
    id: usize,
    late: bool,
}

impl std::fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reader {} of view {}", self.id, self.pipe.name)
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.pipe.close(self.id);
    }
}

impl PipeReader {
    /// The rows of one lane. A lane can be read once.
    pub(crate) fn stream(reader: Arc<Self>, lane: usize) -> SendableRecordBatchStream {
        let schema = reader.pipe.schema();
        let reading = Reading { reader, lane };
        let stream = futures::stream::unfold(Some((reading, 0u64)), move |state| async move {
            let (reading, position) = state?;
            match reading.reader.next(lane, position).await {
                Ok(Some(batch)) => Some((Ok(batch), Some((reading, position + 1)))),
                Ok(None) => None,
                Err(error) => Some((Err(to_datafusion(error)), None)),
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, stream))
    }

    async fn next(&self, lane: usize, position: u64) -> Result<Option<RecordBatch>> {
        if self.late {
            return Err(Error::internal(format!("view `{}` got a reader after its first row", self.pipe.name)));
        }
        let mut grown = self.pipe.lanes[lane].grown.subscribe();
        loop {
            grown.borrow_and_update();
            match self.take(lane, position)? {
                Taken::Slot(Slot::Memory(batch, _)) => return Ok(Some(batch)),
                Taken::Slot(Slot::Disk { spill, offset, length }) => {
                    let read = tokio::task::spawn_blocking(move || read_batch(&spill, offset, length)).await;
                    return read.map_err(|error| Error::internal(format!("reading a spill ended: {error}")))?.map(Some);
                }
                Taken::End => return Ok(None),
                Taken::NotYet => {}
            }
            if grown.changed().await.is_err() {
                return Err(Error::new(ErrorKind::Canceled, "the producer of a view went away"));
            }
        }
    }

    fn take(&self, lane: usize, position: u64) -> Result<Taken> {
        let pipe = &self.pipe;
        let taken = {
            let mut state = lock(&pipe.lanes[lane].state);
            if position < state.base {
                return Err(Error::internal(format!("view `{}` was read twice by one reader", pipe.name)));
            }
            let index = usize::try_from(position - state.base).unwrap_or(usize::MAX);
            match state.queue.get(index).cloned() {
                Some(slot) => {
                    if let Some(own) = state.positions.get_mut(self.id) {
                        *own = Some(position + 1);
                    }
                    pipe.trim(&mut state);
                    Taken::Slot(slot)
                }
                None => match &state.ended {
                    Some(Ok(())) => {
                        if let Some(own) = state.positions.get_mut(self.id) {
                            *own = None;
                        }
                        pipe.trim(&mut state);
                        Taken::End
                    }
                    Some(Err(error)) => return Err(error.clone()),
                    None => Taken::NotYet,
                },
            }
        };
        if matches!(taken, Taken::Slot(_)) {
            pipe.moved.send_modify(|version| *version += 1);
        }
        Ok(taken)
    }
}

/// One lane being read; a query that needs no more rows (a limit, a join without a match) drops it, and the lane does
/// not wait for it any longer.
struct Reading {
    reader: Arc<PipeReader>,
    lane: usize,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.reader.pipe.close_lane(self.reader.id, self.lane);
    }
}

enum Taken {
    Slot(Slot),
    NotYet,
    End,
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use futures::TryStreamExt;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
    }

    fn batch(n: i64) -> RecordBatch {
        RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(n * 100..n * 100 + 100))]).unwrap()
    }

    fn pipe(limit: u64) -> (Arc<Pipe>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = RuntimeEnv::default();
        (Pipe::new("v", schema(), 1, limit, Pressure::default(), &runtime, folder.path().to_owned()), folder)
    }

    async fn total(reader: Arc<PipeReader>) -> i64 {
        let batches: Vec<RecordBatch> = PipeReader::stream(reader, 0).try_collect().await.unwrap();
        batches
            .iter()
            .map(|batch| {
                let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                column.values().iter().sum::<i64>()
            })
            .sum()
    }

    #[tokio::test]
    async fn every_reader_gets_every_row_once() {
        let (pipe, _folder) = pipe(1 << 20);
        let readers = [Arc::new(pipe.reader()), Arc::new(pipe.reader())];
        pipe.start();
        let tasks: Vec<_> = readers.map(|reader| tokio::spawn(total(reader))).into();
        for n in 0..50 {
            pipe.push(0, batch(n)).await.unwrap();
        }
        pipe.finish(0, Ok(()));
        for task in tasks {
            assert_eq!(task.await.unwrap(), (0..5000).sum::<i64>());
        }
        assert_eq!(pipe.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_move_sends_the_rows_to_disk_and_gets_them_back() {
        let (pipe, folder) = pipe(2000);
        let (fast, slow) = (Arc::new(pipe.reader()), Arc::new(pipe.reader()));
        pipe.start();
        let fast = tokio::spawn(total(fast));
        for n in 0..20 {
            pipe.push(0, batch(n)).await.unwrap();
        }
        pipe.finish(0, Ok(()));
        assert_eq!(fast.await.unwrap(), (0..2000).sum::<i64>());
        assert!(pipe.spilled() > 0);
        assert_eq!(total(slow).await, (0..2000).sum::<i64>());
        drop(pipe);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_error_reaches_every_reader() {
        let (pipe, _folder) = pipe(1 << 20);
        let reader = Arc::new(pipe.reader());
        pipe.push(0, batch(0)).await.unwrap();
        pipe.finish(0, Err(Error::new(ErrorKind::Data, "torn")));
        let result: std::result::Result<Vec<RecordBatch>, _> = PipeReader::stream(reader, 0).try_collect().await;
        assert!(result.unwrap_err().to_string().contains("torn"));
    }

    #[tokio::test]
    async fn a_reader_that_went_away_holds_nothing_back() {
        let (pipe, _folder) = pipe(100);
        let reader = pipe.reader();
        drop(reader);
        assert!(!pipe.wanted(0));
        pipe.push(0, batch(0)).await.unwrap();
        assert_eq!(pipe.held.load(Ordering::Relaxed), 0);
    }
}
