//! Dead letters: rows that were refused, kept with the reason, durable before the commit.
//!
//! One Parquet file per job attempt below `.gristmill/dead_letters/<pipeline>/<date>/`, written under a temporary name
//! and renamed when the job's rows are staged. Columns: run, pipeline, step, attempt, reason, record (JSON, or the text
//! of an unreadable row), place, at.

use chrono::{DateTime, Utc};
use datafusion::arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::json::LineDelimitedWriter;
use gristmill_connect::{Reject, RejectSink};
use gristmill_model::{Error, Result, RunId, StepName};
use parquet::arrow::ArrowWriter;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// One dead letter.
#[derive(Debug)]
struct Letter {
    step: StepName,
    reason: String,
    record: String,
    place: String,
}

/// Where a job's dead letters go. The file is made with the first of them.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    sender: Mutex<Option<mpsc::UnboundedSender<Vec<Letter>>>>,
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
    pub(crate) date: String,
    pub(crate) run: RunId,
    pub(crate) job: String,
    pub(crate) attempt: u32,
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        text("run"),
        text("pipeline"),
        text("step"),
        Field::new("attempt", DataType::Int32, false),
        text("reason"),
        text("record"),
        text("place"),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]))
}

impl DeadLetters {
    pub(crate) fn new(origin: Origin) -> Result<Arc<Self>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let writer = std::thread::Builder::new()
            .name("dead-letters".to_owned())
            .spawn(move || write(&origin, receiver))
            .map_err(|error| Error::io(&error, "a thread for dead letters"))?;
        Ok(Arc::new(Self { sender: Mutex::new(Some(sender)), writer: Mutex::new(Some(writer)) }))
    }

    fn send(&self, letters: Vec<Letter>) {
        if let Ok(sender) = self.sender.lock()
            && let Some(sender) = sender.as_ref()
        {
            // The writer only goes away with an error, which `finish` reports.
            drop(sender.send(letters));
        }
    }

    /// Keeps rows that broke a check.
    pub(crate) fn rows(&self, step: &StepName, rows: &RecordBatch, reasons: &[String]) -> Result<()> {
        let records = as_json(rows)?;
        let letters = records
            .into_iter()
            .zip(reasons)
            .map(|(record, reason)| Letter { step: step.clone(), reason: reason.clone(), record, place: String::new() })
            .collect();
        self.send(letters);
        Ok(())
    }

    /// A sink for rows that a reader refused.
    pub(crate) fn sink(self: &Arc<Self>, step: StepName, count: impl Fn() + Send + Sync + 'static) -> RejectSink {
        let letters = self.clone();
        RejectSink::new(move |Reject { record, error, place }| {
            count();
            letters.send(vec![Letter { step: step.clone(), reason: error, record, place }]);
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
        if let Ok(mut sender) = self.sender.lock() {
            *sender = None;
        }
        let writer = self.writer.lock().ok().and_then(|mut writer| writer.take());
        let Some(writer) = writer else { return Ok(None) };
        tokio::task::spawn_blocking(move || writer.join())
            .await
            .map_err(|error| Error::internal(format!("dead letters ended: {error}")))?
            .map_err(|_| Error::internal("the writer of dead letters panicked"))?
    }
}

fn as_json(rows: &RecordBatch) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut bytes);
    writer
        .write(rows)
        .and_then(|()| writer.finish())
        .map_err(|error| Error::internal(format!("a dead letter cannot be written as JSON: {error}")))?;
    drop(writer);
    let text = String::from_utf8(bytes).map_err(|_| Error::internal("a dead letter is not UTF-8"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn write(origin: &Origin, mut receiver: mpsc::UnboundedReceiver<Vec<Letter>>) -> Result<Option<Finished>> {
    let Some(first) = receiver.blocking_recv() else { return Ok(None) };
    let folder = origin.state.join("dead_letters").join(&origin.pipeline).join(origin.date.replace([':', '/'], "-"));
    let path = folder.join(format!("{}-{}-{}.parquet", origin.run, origin.job, origin.attempt));
    let temporary = path.with_extension("parquet.tmp");
    let complain = |error: &std::io::Error| Error::io(error, format!("the dead letters `{}`", temporary.display()));
    std::fs::create_dir_all(&folder).map_err(|error| complain(&error))?;
    let file = File::create(&temporary).map_err(|error| complain(&error))?;
    let parquet = |error: parquet::errors::ParquetError| {
        Error::new(gristmill_model::ErrorKind::Storage, "dead letters cannot be written").cause(error)
    };
    let mut writer = ArrowWriter::try_new(file, schema(), None).map_err(parquet)?;
    let mut letters = Some(first);
    while let Some(batch) = letters.take().or_else(|| receiver.blocking_recv()) {
        writer.write(&encode(origin, &batch, Utc::now())?).map_err(parquet)?;
    }
    let file = writer.into_inner().map_err(parquet)?;
    file.sync_all().map_err(|error| complain(&error))?;
    Ok(Some(Finished { temporary, path }))
}

fn encode(origin: &Origin, letters: &[Letter], at: DateTime<Utc>) -> Result<RecordBatch> {
    let count = letters.len();
    let attempt = i32::try_from(origin.attempt).unwrap_or(i32::MAX);
    let text =
        |value: fn(&Letter) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(letters.iter().map(value))) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(origin.run.as_str(), count))),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(origin.pipeline.as_str(), count))),
        text(|letter| letter.step.as_str()),
        Arc::new(Int32Array::from_iter_values(std::iter::repeat_n(attempt, count))),
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
