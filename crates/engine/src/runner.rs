//! The runner that works in this process.

use crate::dead_letters::Drawer;
use crate::error::blamed;
use crate::session::{Engine, EngineOptions};
use crate::stage::{self, Group, Pass, open_sink};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::ipc::convert::fb_to_schema;
use datafusion::arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use gristmill_connect::Recovered;
use gristmill_model::fault::{self, Point};
use gristmill_model::spec::{OneOrMany, StepBody, pick};
use gristmill_model::{
    CancellationToken, Error, ErrorKind, EventSink, JobPhase, JobReport, JobRunner, JobSpec, LoadKey, OwnerId, Result,
    ResultExt, RunEvent, RunId, StagedLoad, StepKind, StepName, StepReport, StepState,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// Runs jobs in this process.
#[derive(Debug, Clone)]
pub struct LocalRunner {
    engine: Arc<Engine>,
}

impl LocalRunner {
    /// A runner with an engine of its own.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn new(options: EngineOptions) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { engine: Engine::new(options)? }))
    }

    /// The engine below.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    async fn stage(&self, job: &JobSpec, events: &EventSink, cancel: &CancellationToken) -> JobReport {
        let mut report = self.stage_once(job, events, cancel, Pass::First).await;
        // The estimate was wrong: a hash join's build side did not fit, and it cannot spill.
        if report.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Memory) {
            let text = "the memory limit was reached; trying again with sort-merge joins, which spill".to_owned();
            events.send(RunEvent::Note { step: None, text });
            report = self.stage_once(job, events, cancel, Pass::SortMerge).await;
        }
        let retries =
            job.steps.iter().filter_map(|name| job.pipeline.step(name.as_str())).map(|step| step.retries).max();
        if report.error.is_none() || job.attempt > retries.unwrap_or(0) {
            self.engine.ended(&stage::name_of(job));
        }
        report
    }

    async fn stage_once(&self, job: &JobSpec, events: &EventSink, cancel: &CancellationToken, pass: Pass) -> JobReport {
        let planned = tokio::select! {
            planned = Group::plan(&self.engine, job, pass) => planned,
            () = cancel.cancelled() => Err(Error::new(ErrorKind::Canceled, "stopped on request")),
        };
        match planned {
            Ok(group) => group.run(job, events, cancel).await,
            Err(error) => failed(job, error),
        }
    }

    async fn commit(&self, job: &JobSpec, staged: &[StagedLoad], events: &EventSink) -> JobReport {
        let mut report = JobReport::default();
        for load in staged {
            let started = Instant::now();
            let mut step = StepReport::new(load.step.clone(), StepKind::Load);
            step.attempts = job.attempt;
            match self.commit_one(job, load).await.context(|| format!("step `{}`", load.step)) {
                Ok(committed) => {
                    // An incremental load has not read again what was refused before.
                    if !job.cursors.iter().any(|(name, _)| *name == load.step) {
                        self.drawer(job).supersede(&job.run, &load.step).await;
                    }
                    step.state = StepState::Success;
                    step.rows_out = Some(committed.rows);
                    step.output.files = committed.files;
                    step.output.bytes = committed.bytes;
                    if committed.already {
                        step.notes.push("the target already held this load; nothing was done".to_owned());
                    }
                    report.committed.push((load.step.clone(), committed));
                    let text = format!("committed {}", load.key);
                    events.send(RunEvent::Note { step: Some(load.step.clone()), text });
                }
                Err(error) => {
                    step.state = StepState::Failed;
                    step.error = Some(error.clone());
                    report.error.get_or_insert(error);
                }
            }
            step.millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            report.steps.push(step);
            if report.error.is_some() {
                break;
            }
        }
        report.peak_memory = crate::memory::peak_resident();
        report
    }

    /// Where the dead letters of a job are.
    fn drawer(&self, job: &JobSpec) -> Drawer {
        let options = &self.engine.options;
        let shelf = self.engine.shelf().unwrap_or_else(|error| {
            // The job could not have begun.
            tracing::warn!("dead letters cannot be looked at: {error}");
            None
        });
        let home = self.engine.letters_home();
        Drawer::new(&home, job.pipeline.name.as_str(), options.profile.as_deref(), &job.interval).on(shelf)
    }

    async fn commit_one(&self, job: &JobSpec, load: &StagedLoad) -> Result<gristmill_model::Committed> {
        let sink = self.sink(job, load)?;
        fault::at(Point::BeforeCommit)?;
        sink.commit(&load.staged, &load.checkpoint).await
    }

    fn sink(&self, job: &JobSpec, load: &StagedLoad) -> Result<Arc<dyn gristmill_connect::Sink>> {
        let step = job.pipeline.step(load.step.as_str());
        let Some(StepBody::Load(spec)) = step.map(|step| &step.body) else {
            return Err(Error::internal(format!("`{}` is not a load of the pipeline", load.step)));
        };
        open_sink(&self.engine, job, spec, &load.key, decode_schema(&load.schema)?, load.source_key.clone())
    }

    /// Throws away what the loads have staged, but for what can be kept where it is to be. A stage that was cut short answers
    /// nothing, so what counts are the keys.
    async fn abort(&self, job: &JobSpec, staged: &[StagedLoad], keep: bool) -> JobReport {
        let mut report = JobReport::default();
        let known = staged.iter().map(|load| (&load.step, &load.key));
        let mut keys: Vec<(&StepName, &LoadKey)> = known.collect();
        for (step, key) in &job.loads {
            if !keys.iter().any(|(other, _)| *other == step) {
                keys.push((step, key));
            }
        }
        for (step, key) in keys {
            let Some(StepBody::Load(load)) = job.pipeline.step(step.as_str()).map(|step| &step.body) else { continue };
            let known = staged.iter().find(|load| load.step == *step);
            let aborted = async {
                let schema = known.map_or_else(|| Ok(Arc::new(Schema::empty())), |load| decode_schema(&load.schema))?;
                let source_key = known.map(|load| load.source_key.clone()).unwrap_or_default();
                let sink = open_sink(&self.engine, job, load, key, schema, source_key)?;
                if let Some(known) = known.filter(|_| keep)
                    && let Some(kept) = stage::keep(step, load, key, sink.as_ref(), &known.staged).await
                {
                    return Ok(Some(kept));
                }
                sink.abort(key).await.map(|()| None)
            };
            self.drawer(job).throw_away(&job.run, step).await;
            match aborted.await {
                Ok(kept) => report.kept.extend(kept),
                Err(error) => {
                    report.error.get_or_insert(error.context(format!("step `{step}`")));
                }
            }
        }
        report
    }

    /// Asks connections which tables the extracts take that stand for many.
    async fn tables(&self, job: &JobSpec) -> JobReport {
        let mut report = JobReport::default();
        for name in &job.steps {
            let Some(StepBody::Extract(extract)) = job.pipeline.step(name.as_str()).map(|step| &step.body) else {
                continue;
            };
            let picked = async {
                let found = self.engine.connection(&extract.from)?.tables().await?;
                pick(extract.tables.as_ref().unwrap_or(&OneOrMany::default()), extract.exclude.as_ref(), found)
            };
            let picked = picked.await.context(|| format!("connection `{}`", extract.from));
            match picked.context(|| format!("step `{name}`")) {
                Ok(tables) => report.tables.push((name.clone(), tables)),
                Err(error) => {
                    report.error.get_or_insert(error);
                }
            }
        }
        report
    }

    /// Asks every target of the pipeline to finish or sweep what dead owners left.
    async fn recover(&self, job: &JobSpec, dead: &[RunId], events: &EventSink) -> JobReport {
        let mut report = JobReport::default();
        for (name, key) in &job.loads {
            let Some(StepBody::Load(load)) = job.pipeline.step(name.as_str()).map(|step| &step.body) else { continue };
            let empty: SchemaRef = Arc::new(Schema::empty());
            let recovered = async {
                let is_dead = |owner: &OwnerId| dead.contains(&owner.0);
                let sink = open_sink(&self.engine, job, load, key, empty, Vec::new())?;
                let recovered = sink.recover(&is_dead).await?;
                if sink.last(&key.slot).await?.is_none_or(|last| last.key != *key) {
                    for run in dead {
                        self.drawer(job).throw_away(run, name).await;
                    }
                }
                Ok(recovered)
            };
            let mut step = StepReport::new(name.clone(), StepKind::Load);
            match recovered.await.context(|| format!("step `{name}`")) {
                Ok(Recovered { finished, undone, swept }) => {
                    step.state = StepState::Success;
                    step.notes.extend(finished.iter().map(|key| format!("finished {key}")));
                    step.notes.extend(undone.iter().map(|key| format!("undid {key}")));
                    if swept > 0 {
                        step.notes.push(format!("swept {swept} staged leftovers"));
                    }
                    for text in &step.notes {
                        events.send(RunEvent::Note { step: Some(name.clone()), text: text.clone() });
                    }
                }
                Err(error) => {
                    step.state = StepState::Failed;
                    step.error = Some(error.clone());
                    report.error.get_or_insert(error);
                }
            }
            report.steps.push(step);
        }
        report
    }
}

/// A job that could not begin.
fn failed(job: &JobSpec, error: Error) -> JobReport {
    let steps = job
        .steps
        .iter()
        .filter_map(|name| {
            let step = job.pipeline.step(name.as_str())?;
            let mut report = StepReport::new(name.clone(), step.body.kind());
            report.state = if error.kind() == ErrorKind::Canceled { StepState::Canceled } else { StepState::Failed };
            report.attempts = job.attempt;
            Some(report)
        })
        .collect();
    let mut steps: Vec<StepReport> = steps;
    // A view that cannot even be opened is what failed, and the actions above it with it.
    let view = blamed(&error).and_then(|name| job.pipeline.step(name));
    if let Some(view) = view.filter(|view| !view.body.kind().is_action() && error.kind() != ErrorKind::Canceled) {
        let mut report = StepReport::new(view.name.clone(), view.body.kind());
        report.state = StepState::Failed;
        steps.push(report);
    }
    JobReport { steps, error: Some(error), peak_memory: crate::memory::peak_resident(), ..JobReport::default() }
}

impl JobRunner for LocalRunner {
    fn run<'a>(
        &'a self,
        job: JobSpec,
        events: EventSink,
        cancel: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = JobReport> + Send + 'a>> {
        Box::pin(async move {
            tracing::debug!(steps = ?job.steps, shared = ?job.shared, loads = ?job.loads, "job begins");
            let report = match &job.phase {
                JobPhase::Stage => self.stage(&job, &events, &cancel).await,
                JobPhase::Commit { staged } => self.commit(&job, staged, &events).await,
                JobPhase::Abort { staged, keep } => self.abort(&job, staged, *keep).await,
                JobPhase::Tables => tokio::select! {
                    report = self.tables(&job) => report,
                    () = cancel.cancelled() => JobReport {
                        error: Some(Error::new(ErrorKind::Canceled, "stopped on request")),
                        ..JobReport::default()
                    },
                },
                JobPhase::Recover { dead } => self.recover(&job, dead, &events).await,
            };
            tracing::debug!(error = ?report.error, staged = report.staged.len(), steps = report.steps.len(), "job ends");
            report
        })
    }
}

/// A schema as text that crosses processes: arrow's own IPC message, in hexadecimal.
pub(crate) fn encode_schema(schema: &Schema) -> serde_json::Value {
    let mut tracker = DictionaryTracker::new(true);
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        schema,
        &mut tracker,
        &IpcWriteOptions::default(),
    );
    serde_json::Value::String(encoded.ipc_message.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(crate) fn decode_schema(value: &serde_json::Value) -> Result<SchemaRef> {
    let complain = || Error::internal("the schema of a staged load cannot be decoded");
    let text = value.as_str().ok_or_else(complain)?;
    let bytes: Option<Vec<u8>> = (0..text.len() / 2)
        .map(|position| u8::from_str_radix(text.get(position * 2..position * 2 + 2)?, 16).ok())
        .collect();
    let bytes = bytes.ok_or_else(complain)?;
    let message = datafusion::arrow::ipc::root_as_message(&bytes).map_err(|_| complain())?;
    Ok(Arc::new(fb_to_schema(message.header_as_schema().ok_or_else(complain)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};

    #[test]
    fn a_schema_comes_back_as_it_went() {
        let schema = Schema::new(vec![
            Field::new("d", DataType::Decimal128(18, 6), true),
            Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
            Field::new("l", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
        ]);
        assert_eq!(decode_schema(&encode_schema(&schema)).unwrap().as_ref(), &schema);
    }
}
