//! Dead letters: rows that were refused, kept with the reason, durable before the commit.
//!
//! One Parquet file per job attempt below `.gristmill/dead_letters/<pipeline>[@<profile>]/<date>/`, written under a
//! temporary name and renamed when the job's rows are staged. A row says run, pipeline, profile, interval, step, who
//! refused it, unit, attempt, load (the key of the job's first load), reason, record (JSON, or the text of an unreadable
//! row), place, how it can be read again, and when; the file itself, what its rows have in common ([`letter::Notes`]).
//!
//! With `defaults: {dead_letters: {to: CONNECTION}}` the finished file goes there instead ([`shelf`]).
//!
//! The file belongs to that load and is named after it: it goes when the load is thrown away, and when a later load of
//! the same step and date has been committed, so that no letter is there twice.
//!
//! [`read`] looks into them, [`source`] makes them rows again, for a replay: what readers refused by [`spooled`] where it was of files
//! and pages, by [`rows`] where it was of databases.

mod letter;
mod pages;
mod place;
mod read;
mod rows;
mod shelf;
mod source;
mod spooled;

pub(crate) use place::Drawer;
pub use place::home;
pub use read::{Letter, LetterLoad, LetterSet, letter_sets, letters};
pub(crate) use shelf::{Shelf, expire};
pub(crate) use source::connection;

use chrono::Utc;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use gristmill_connect::{Reject, RejectSink};
use gristmill_model::{Error, Interval, LoadKey, RefusedBy, Result, RunId, StepName};
use letter::{NOTES, Notes, as_json, columns_of, encode, schema};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// So many letters are encoded at once.
const TOGETHER: usize = 1024;

/// Or so many bytes of them.
const TOGETHER_BYTES: usize = 1 << 20;

/// So many of these may wait for the disk.
const WAITING: usize = 8;

/// So many letters of a step are told in errors, shortened to so many letters.
const SAMPLES: usize = 3;
const SAMPLE: usize = 120;

/// The writer lets go of a row group when it has become so large, in bytes.
const ROW_GROUP: usize = 8 << 20;

/// Where a job's dead letters go. The file is made with the first of them.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    gathered: Mutex<(Vec<letter::Letter>, usize)>,
    known: Arc<Mutex<Known>>,
    shelf: Option<Shelf>,
    sender: Mutex<Option<SyncSender<Vec<letter::Letter>>>>,
    writer: Mutex<Option<std::thread::JoinHandle<Result<Option<Finished>>>>>,
}

/// What comes to be known of a job while it is planned and done.
#[derive(Debug, Default)]
struct Known {
    load: Option<LoadKey>,
    loads: Vec<(StepName, Vec<String>)>,
    /// The columns of refused rows, by who refused them and step.
    columns: BTreeMap<String, SchemaRef>,
    /// A few letters of each step, for people.
    samples: BTreeMap<StepName, Vec<String>>,
}

#[derive(Debug)]
struct Finished {
    temporary: PathBuf,
    path: PathBuf,
}

/// Which job the letters belong to.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) state: PathBuf,
    pub(crate) pipeline: String,
    pub(crate) profile: Option<String>,
    pub(crate) interval: Interval,
    pub(crate) run: RunId,
    /// The first load of the job; its first step where there is none.
    pub(crate) job: String,
    pub(crate) attempt: u32,
}

/// The step as the pipeline has it: a load of a replay refuses rows of the load it stands for. The run tells the two apart, and
/// names do not grow with each replay of a replay.
fn written(step: &StepName) -> StepName {
    step.replay().map_or_else(|| step.clone(), |(load, _)| load)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SAMPLE) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
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

impl DeadLetters {
    /// `shelf`: where they go, if not to the state folder.
    pub(crate) fn new(job: Job, shelf: Option<Shelf>) -> Result<Arc<Self>> {
        let (sender, receiver) = sync_channel(WAITING);
        let known: Arc<Mutex<Known>> = Arc::default();
        let of_writer = known.clone();
        let writer = std::thread::Builder::new()
            .name("dead-letters".to_owned())
            .spawn(move || write(&job, &of_writer, &receiver))
            .map_err(|error| Error::io(&error, "a thread for dead letters"))?;
        Ok(Arc::new(Self {
            gathered: Mutex::default(),
            known,
            shelf,
            sender: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// Whose they are, once the job is planned; before the first letter. `loads`: with the source's primary key, where they
    /// go by it.
    pub(crate) fn belong_to(&self, key: &LoadKey, loads: Vec<(StepName, Vec<String>)>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        (known.load, known.loads) = (Some(key.clone()), loads);
    }

    /// Keeps what the rows of a step look like.
    fn remember(&self, by: RefusedBy, step: &StepName, schema: &SchemaRef) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.columns.entry(columns_of(by, step)).or_insert_with(|| schema.clone());
    }

    /// Keeps the first few of a step.
    fn sample(&self, letter: &letter::Letter) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = known.samples.entry(letter.step.clone()).or_default();
        if samples.len() < SAMPLES {
            let place = if letter.place.is_empty() { &letter.record } else { &letter.place };
            samples.push(format!("{}: {}", shortened(place), shortened(&letter.reason)));
        }
    }

    /// A few letters of a step, for people.
    pub(crate) fn samples(&self, step: &StepName) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.samples.get(&written(step)).cloned().unwrap_or_default()
    }

    /// Gathers letters and hands them on when they have become many; waits for the disk when it is too slow, so that
    /// memory stays bounded however many rows are bad.
    fn send(&self, letters: impl IntoIterator<Item = letter::Letter>) {
        let full = {
            let Ok(mut gathered) = self.gathered.lock() else { return };
            for letter in letters {
                self.sample(&letter);
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

    /// Keeps whole rows that were refused. `unit`: the share of the work they came from.
    pub(crate) fn rows(
        &self,
        step: &StepName,
        by: RefusedBy,
        unit: &str,
        rows: &RecordBatch,
        reasons: &[String],
    ) -> Result<()> {
        let step = &written(step);
        self.remember(by, step, &rows.schema());
        let unit: Option<Arc<str>> = Some(unit.into());
        let letters = as_json(rows)?.into_iter().zip(reasons).map(|(record, reason)| letter::Letter {
            step: step.clone(),
            by,
            unit: unit.clone(),
            reason: reason.clone(),
            record,
            place: String::new(),
            again: None,
            beside: None,
        });
        self.send(letters);
        Ok(())
    }

    /// A sink for rows of a source with these columns that a reader refused.
    pub(crate) fn sink(
        self: &Arc<Self>,
        step: StepName,
        columns: &SchemaRef,
        count: impl Fn() + Send + Sync + 'static,
    ) -> RejectSink {
        self.remember(RefusedBy::Reader, &step, columns);
        let letters = self.clone();
        RejectSink::telling(move |Reject { record, error, place }, whence| {
            count();
            letters.send([letter::Letter {
                step: step.clone(),
                by: RefusedBy::Reader,
                unit: whence.unit.clone(),
                reason: error,
                record,
                place,
                again: whence.again.clone(),
                beside: whence.beside.clone(),
            }]);
        })
    }

    /// Makes what was kept durable and gives it its name; the file, if there is one.
    pub(crate) async fn finish(&self) -> Result<Option<PathBuf>> {
        let Some(finished) = self.stop().await? else { return Ok(None) };
        let Finished { temporary, path } = finished;
        if let Some(shelf) = &self.shelf {
            let put = shelf.put(&temporary, &path).await;
            drop(tokio::fs::remove_file(&temporary).await);
            return put.map(Some);
        }
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

fn write(job: &Job, known: &Mutex<Known>, receiver: &Receiver<Vec<letter::Letter>>) -> Result<Option<Finished>> {
    let Ok(first) = receiver.recv() else { return Ok(None) };
    let drawer = Drawer::new(&job.state, &job.pipeline, job.profile.as_deref(), &job.interval);
    let (temporary, path) = drawer.files(&job.run, &job.job, job.attempt);
    let complain = |error: &std::io::Error| Error::io(error, format!("the dead letters `{}`", temporary.display()));
    std::fs::create_dir_all(drawer.folder()).map_err(|error| complain(&error))?;
    let file = File::create(&temporary).map_err(|error| complain(&error))?;
    let parquet = |error: parquet::errors::ParquetError| {
        Error::new(gristmill_model::ErrorKind::Storage, "dead letters cannot be written").cause(error)
    };
    let mut writer = ArrowWriter::try_new(file, schema(), None).map_err(parquet)?;
    let load = known.lock().unwrap_or_else(PoisonError::into_inner).load.as_ref().map(LoadKey::text);
    let mut letters = Some(first);
    while let Some(batch) = letters.take().or_else(|| receiver.recv().ok()) {
        writer.write(&encode(job, load.as_deref().unwrap_or_default(), &batch, Utc::now())?).map_err(parquet)?;
        if writer.in_progress_size() > ROW_GROUP {
            writer.flush().map_err(parquet)?;
        }
    }
    let notes = serde_json::to_string(&notes(job, known, load))
        .map_err(|error| Error::internal(format!("what dead letters have in common cannot be written: {error}")))?;
    writer.append_key_value_metadata(KeyValue::new(NOTES.to_owned(), notes));
    let file = writer.into_inner().map_err(parquet)?;
    file.sync_all().map_err(|error| complain(&error))?;
    Ok(Some(Finished { temporary, path }))
}

fn notes(job: &Job, known: &Mutex<Known>, load: Option<String>) -> Notes {
    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let encoded = |schema: &Schema| crate::runner::encode_schema(schema);
    Notes {
        run: job.run.clone(),
        pipeline: job.pipeline.as_str().into(),
        profile: job.profile.clone(),
        interval: job.interval,
        attempt: job.attempt,
        load,
        loads: known.loads.clone(),
        columns: known.columns.iter().map(|(name, schema)| (name.clone(), encoded(schema))).collect(),
    }
}

#[cfg(test)]
mod tests;
