//! Dead letters: rows that were refused, kept with the reason, durable before the commit.
//!
//! One Parquet file per job attempt below `.gristmill/dead_letters/<pipeline>/<date>/`, written under a temporary name
//! and renamed when the job's rows are staged. Columns: run, pipeline, step, attempt, load (the key of the job's first
//! load), reason, record (JSON, or the text of an unreadable row), place, at.
//!
//! The file belongs to that load and is named after it: it goes when the load is thrown away, and when a later load of
//! the same step and date has been committed, so that no letter is there twice.

use chrono::{DateTime, Utc};
use datafusion::arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::json::WriterBuilder;
use datafusion::arrow::json::writer::LineDelimited;
use gristmill_connect::{Reject, RejectSink};
use gristmill_model::{Error, Interval, LoadKey, Result, RunId, StepName};
use parquet::arrow::ArrowWriter;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};

/// So many letters are encoded at once.
const TOGETHER: usize = 1024;

/// Or so many bytes of them.
const TOGETHER_BYTES: usize = 1 << 20;

/// So many of these may wait for the disk.
const WAITING: usize = 8;

/// The writer lets go of a row group when it has become so large, in bytes.
const ROW_GROUP: usize = 8 << 20;

/// How the files' names end, and those of files that are not finished.
const ENDING: &str = ".parquet";
const PARTIAL: &str = ".tmp";

/// One dead letter.
#[derive(Debug)]
struct Letter {
    step: StepName,
    reason: String,
    record: String,
    place: String,
}

impl Letter {
    fn size(&self) -> usize {
        self.reason.len() + self.record.len() + self.place.len()
    }
}

/// Where a job's dead letters go. The file is made with the first of them.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    gathered: Mutex<(Vec<Letter>, usize)>,
    load: Arc<OnceLock<LoadKey>>,
    sender: Mutex<Option<SyncSender<Vec<Letter>>>>,
    writer: Mutex<Option<std::thread::JoinHandle<Result<Option<Finished>>>>>,
}

#[derive(Debug)]
struct Finished {
    temporary: PathBuf,
    path: PathBuf,
}

/// Which job the letters belong to.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) state: PathBuf,
    pub(crate) pipeline: String,
    pub(crate) interval: Interval,
    pub(crate) run: RunId,
    /// The first load of the job; its first step where there is none.
    pub(crate) job: String,
    pub(crate) attempt: u32,
}

/// The dead letters of a pipeline's interval.
fn folder(state: &Path, pipeline: &str, interval: &Interval) -> PathBuf {
    state.join("dead_letters").join(pipeline).join(interval.to_string().replace([':', '/'], "-"))
}

/// Removes the letters of a load that is thrown away.
pub(crate) async fn throw_away(state: &Path, pipeline: &str, interval: &Interval, run: &RunId, load: &StepName) {
    let begins = format!("{run}-{load}-");
    remove(folder(state, pipeline, interval), move |stem| is_attempt(stem.strip_prefix(&begins))).await;
}

/// Removes the letters of earlier runs of a load that has just been committed.
pub(crate) async fn supersede(state: &Path, pipeline: &str, interval: &Interval, run: &RunId, load: &StepName) {
    let (own, middle) = (format!("{run}-"), format!("-{load}-"));
    remove(folder(state, pipeline, interval), move |stem| {
        // Ids of runs have no `-`.
        let rest = stem.find('-').and_then(|at| stem[at..].strip_prefix(&middle));
        !stem.starts_with(&own) && is_attempt(rest)
    })
    .await;
}

fn is_attempt(text: Option<&str>) -> bool {
    text.is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Removes the files whose names, without their endings, are meant. What cannot be removed stays and is said in the log:
/// the load is done whatever becomes of it.
async fn remove(folder: PathBuf, meant: impl Fn(&str) -> bool + Send + 'static) {
    let work = move || {
        let Ok(entries) = std::fs::read_dir(&folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // The name of a step for one of many tables may have a dot itself.
            let stem = name.strip_suffix(PARTIAL).unwrap_or(&name);
            if meant(stem.strip_suffix(ENDING).unwrap_or(stem))
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                tracing::warn!("the dead letters `{}` could not be removed: {error}", entry.path().display());
            }
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::warn!("dead letters could not be removed: {error}");
    }
}

/// Does something that may wait for the disk for a moment, so that other tasks of the runtime go on.
fn waiting<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        text("run"),
        text("pipeline"),
        text("step"),
        Field::new("attempt", DataType::Int32, false),
        text("load"),
        text("reason"),
        text("record"),
        text("place"),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]))
}

impl DeadLetters {
    pub(crate) fn new(origin: Origin) -> Result<Arc<Self>> {
        let (sender, receiver) = sync_channel(WAITING);
        let load: Arc<OnceLock<LoadKey>> = Arc::default();
        let key = load.clone();
        let writer = std::thread::Builder::new()
            .name("dead-letters".to_owned())
            .spawn(move || write(&origin, &key, &receiver))
            .map_err(|error| Error::io(&error, "a thread for dead letters"))?;
        Ok(Arc::new(Self {
            gathered: Mutex::default(),
            load,
            sender: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// The load they belong to, once its key is known; before the first letter.
    pub(crate) fn belong_to(&self, key: &LoadKey) {
        // A job is planned once, so it is not set twice; if it were, the first would be as good.
        let _ = self.load.set(key.clone());
    }

    /// Gathers letters and hands them on when they have become many; waits for the disk when it is too slow, so that
    /// memory stays bounded however many rows are bad.
    fn send(&self, letters: impl IntoIterator<Item = Letter>) {
        let full = {
            let Ok(mut gathered) = self.gathered.lock() else { return };
            for letter in letters {
                gathered.1 += letter.size();
                gathered.0.push(letter);
            }
            if gathered.0.len() < TOGETHER && gathered.1 < TOGETHER_BYTES {
                return;
            }
            std::mem::take(&mut *gathered).0
        };
        let sender = self.sender.lock().ok().and_then(|sender| sender.clone());
        let Some(sender) = sender else { return };
        // The writer only goes away with an error, which `finish` reports.
        if let Err(TrySendError::Full(letters)) = sender.try_send(full) {
            drop(waiting(|| sender.send(letters)));
        }
    }

    /// Keeps rows that broke a check.
    pub(crate) fn rows(&self, step: &StepName, rows: &RecordBatch, reasons: &[String]) -> Result<()> {
        let records = as_json(rows)?;
        let letters = records.into_iter().zip(reasons).map(|(record, reason)| Letter {
            step: step.clone(),
            reason: reason.clone(),
            record,
            place: String::new(),
        });
        self.send(letters);
        Ok(())
    }

    /// A sink for rows that a reader refused.
    pub(crate) fn sink(self: &Arc<Self>, step: StepName, count: impl Fn() + Send + Sync + 'static) -> RejectSink {
        let letters = self.clone();
        RejectSink::new(move |Reject { record, error, place }| {
            count();
            letters.send([Letter { step: step.clone(), reason: error, record, place }]);
        })
    }

    /// Makes what was kept durable and gives it its name; the file, if there is one.
    pub(crate) async fn finish(&self) -> Result<Option<PathBuf>> {
        let Some(finished) = self.stop().await? else { return Ok(None) };
        let Finished { temporary, path } = finished;
        let renamed = path.clone();
        let publish = tokio::task::spawn_blocking(move || {
            std::fs::rename(&temporary, &renamed)?;
            match renamed.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        });
        publish
            .await
            .map_err(|error| Error::internal(format!("dead letters ended: {error}")))?
            .map_err(|error| Error::io(&error, format!("the dead letters `{}`", path.display())))?;
        Ok(Some(path))
    }

    /// Throws away what was kept.
    pub(crate) async fn discard(&self) {
        if let Ok(Some(Finished { temporary, .. })) = self.stop().await {
            drop(tokio::fs::remove_file(temporary).await);
        }
    }

    async fn stop(&self) -> Result<Option<Finished>> {
        let sender = self.sender.lock().ok().and_then(|mut sender| sender.take());
        let rest = self.gathered.lock().map(|mut gathered| std::mem::take(&mut *gathered).0).unwrap_or_default();
        let writer = self.writer.lock().ok().and_then(|mut writer| writer.take());
        let Some(writer) = writer else { return Ok(None) };
        let last_words = move || {
            if let Some(sender) = sender.filter(|_| !rest.is_empty()) {
                drop(sender.send(rest));
            }
            writer.join()
        };
        tokio::task::spawn_blocking(last_words)
            .await
            .map_err(|error| Error::internal(format!("dead letters ended: {error}")))?
            .map_err(|_| Error::internal("the writer of dead letters panicked"))?
    }
}

fn as_json(rows: &RecordBatch) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    // A column without a value is there all the same: whoever replays the record must see what it was.
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
    writer
        .write(rows)
        .and_then(|()| writer.finish())
        .map_err(|error| Error::internal(format!("a dead letter cannot be written as JSON: {error}")))?;
    drop(writer);
    let text = String::from_utf8(bytes).map_err(|_| Error::internal("a dead letter is not UTF-8"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn write(origin: &Origin, load: &OnceLock<LoadKey>, receiver: &Receiver<Vec<Letter>>) -> Result<Option<Finished>> {
    let Ok(first) = receiver.recv() else { return Ok(None) };
    let folder = folder(&origin.state, &origin.pipeline, &origin.interval);
    let path = folder.join(format!("{}-{}-{}{ENDING}", origin.run, origin.job, origin.attempt));
    let temporary = folder.join(format!("{}-{}-{}{ENDING}{PARTIAL}", origin.run, origin.job, origin.attempt));
    let complain = |error: &std::io::Error| Error::io(error, format!("the dead letters `{}`", temporary.display()));
    std::fs::create_dir_all(&folder).map_err(|error| complain(&error))?;
    let file = File::create(&temporary).map_err(|error| complain(&error))?;
    let parquet = |error: parquet::errors::ParquetError| {
        Error::new(gristmill_model::ErrorKind::Storage, "dead letters cannot be written").cause(error)
    };
    let mut writer = ArrowWriter::try_new(file, schema(), None).map_err(parquet)?;
    let key = load.get().map(LoadKey::text).unwrap_or_default();
    let mut letters = Some(first);
    while let Some(batch) = letters.take().or_else(|| receiver.recv().ok()) {
        writer.write(&encode(origin, &key, &batch, Utc::now())?).map_err(parquet)?;
        if writer.in_progress_size() > ROW_GROUP {
            writer.flush().map_err(parquet)?;
        }
    }
    let file = writer.into_inner().map_err(parquet)?;
    file.sync_all().map_err(|error| complain(&error))?;
    Ok(Some(Finished { temporary, path }))
}

fn encode(origin: &Origin, load: &str, letters: &[Letter], at: DateTime<Utc>) -> Result<RecordBatch> {
    let count = letters.len();
    let attempt = i32::try_from(origin.attempt).unwrap_or(i32::MAX);
    let text =
        |value: fn(&Letter) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(letters.iter().map(value))) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(origin.run.as_str(), count))),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(origin.pipeline.as_str(), count))),
        text(|letter| letter.step.as_str()),
        Arc::new(Int32Array::from_iter_values(std::iter::repeat_n(attempt, count))),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(load, count))),
        text(|letter| &letter.reason),
        text(|letter| &letter.record),
        text(|letter| &letter.place),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(std::iter::repeat_n(at.timestamp_micros(), count))
                .with_timezone("UTC"),
        ),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| Error::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    fn origin(state: &Path, run: &str, job: &str) -> Origin {
        let interval = Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap());
        Origin {
            state: state.to_owned(),
            pipeline: "p".to_owned(),
            interval,
            run: run.into(),
            job: job.to_owned(),
            attempt: 1,
        }
    }

    fn names(origin: &Origin) -> Vec<String> {
        let folder = folder(&origin.state, &origin.pipeline, &origin.interval);
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    async fn keep(origin: Origin, count: usize) -> PathBuf {
        let letters = DeadLetters::new(origin).unwrap();
        let sink = letters.sink("v".into(), || {});
        let many = std::thread::spawn(move || {
            for line in 0..count {
                sink.send(Reject { record: "x".repeat(90), error: "no".to_owned(), place: format!("a.csv:{line}") });
            }
        });
        many.join().unwrap();
        letters.finish().await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn many_letters_are_kept_in_few_batches() {
        let folder = tempfile::tempdir().unwrap();
        let path = keep(origin(folder.path(), "r1", "load"), 50_000).await;
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 50_000);
        assert!(reader.metadata().num_row_groups() < 5, "{}", reader.metadata().num_row_groups());
    }

    #[tokio::test]
    async fn letters_go_with_the_load_that_is_thrown_away_and_with_its_successor() {
        let folder = tempfile::tempdir().unwrap();
        let of = |run: &str, job: &str| origin(folder.path(), run, job);
        for (run, job) in [("r1", "load"), ("r1", "load-2"), ("r1", "load[a.b]"), ("r2", "load"), ("r3", "load")] {
            keep(of(run, job), 1).await;
        }
        let Origin { state, pipeline, interval, .. } = of("r1", "load");
        throw_away(&state, &pipeline, &interval, &"r1".into(), &"load[a.c]".into()).await;
        assert_eq!(names(&of("r1", "load")).len(), 5);
        throw_away(&state, &pipeline, &interval, &"r1".into(), &"load[a.b]".into()).await;
        throw_away(&state, &pipeline, &interval, &"r3".into(), &"load".into()).await;
        assert_eq!(names(&of("r1", "load")), ["r1-load-1.parquet", "r1-load-2-1.parquet", "r2-load-1.parquet"]);
        supersede(&state, &pipeline, &interval, &"r2".into(), &"load".into()).await;
        assert_eq!(names(&of("r1", "load")), ["r1-load-2-1.parquet", "r2-load-1.parquet"]);
    }

    #[test]
    fn a_record_names_the_columns_that_are_null() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int32, true)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int32Array::from(vec![None]))]).unwrap();
        assert_eq!(as_json(&rows).unwrap(), [r#"{"a":null}"#]);
    }
}
