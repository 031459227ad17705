//! The one DAG driver: every command that runs a pipeline comes through here.
//!
//! A run goes like this:
//! 1. render the pipeline, ask which tables it is about where it does not say, read its graph, plan the tasks;
//! 2. under the start lock: mark runs whose process died, let the runner clean up after them, take the owner lock,
//!    record the run and take a generation for each load;
//! 3. run awaited pipelines that have not succeeded yet, in this process;
//! 4. the loop of `session.rs`: ask [`crate::decide`], do what it says, wait for something to end;
//! 5. record how it ended.
//!
//! Invariant: the driver never commits, aborts or stages by itself; it only says so to the [`JobRunner`].

mod command;
mod recover;
mod replay;
mod session;
mod tables;
mod unasked;
mod wait;

pub use recover::Recovered;
pub use tables::Spreading;

/// The name of the pipeline that a command of one line (`copy`, `generate`) makes for itself. A project whose pipelines
/// have other names leaves its runs to `gristmill recover`, which makes the pipeline again from the load's slot.
pub const ONE_LINE: &str = "copy";

use crate::dag::{Dag, Replay, RunPlan, TaskKind, target};
use crate::store::{NewRun, OwnerLock, Owners, Store, TakenLoad, WantedLoad};
use crate::{Project, RunReport, RunState};
use chrono::{NaiveDate, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use gristmill_model::spec::{LoadSpec, PipelineSpec, StepBody, Strategy};
use gristmill_model::yaml::to_error;
use gristmill_model::{
    CancellationToken, Error, ErrorKind, EventSink, Interval, JobRunner, PipelineName, Result, ResultExt, RunEvent,
    RunId, Slot, StepKind, StepName, TemplateContext,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tables::Unspread;
use tokio::time::Instant;
use unasked::Unasked;

/// Runs pipelines of a project. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Driver {
    project: Arc<Project>,
    store: Arc<dyn Store>,
    runner: Arc<dyn JobRunner>,
    events: EventSink,
    options: DriverOptions,
}

/// How a [`Driver`] works.
#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// Stops everything: running jobs are asked to end, what is staged is thrown away, the run ends as canceled. A
    /// commit that has begun goes on to its end.
    pub cancel: CancellationToken,
    /// At most so many tasks (stage groups, commands, waits) at once.
    pub max_active: usize,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self { cancel: CancellationToken::new(), max_active: 4 }
    }
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The interval.
    pub interval: Interval,
    /// Parameters over the pipeline's defaults.
    pub params: BTreeMap<String, String>,
    /// Only this action and what it needs.
    pub selection: Option<StepName>,
    /// Replace everything instead of continuing from a checkpoint. Refused where an `append` has loaded its rows: it
    /// could only add them once more.
    pub full_refresh: bool,
    /// Only what was refused in an earlier run, from the step on that it was refused in.
    pub replay: Option<Replay>,
}

impl RunRequest {
    /// All of a pipeline for one interval, with its default parameters.
    pub fn new(pipeline: impl Into<PipelineName>, interval: Interval) -> Self {
        Self {
            pipeline: pipeline.into(),
            interval,
            params: BTreeMap::new(),
            selection: None,
            full_refresh: false,
            replay: None,
        }
    }
}

/// A pipeline and the interval it runs for, with those that wait for it: guards against waiting in a circle.
struct Chain<'a> {
    pipeline: &'a PipelineName,
    interval: Interval,
    above: Option<&'a Chain<'a>>,
}

impl Chain<'_> {
    /// The way from the outermost run to this one.
    fn names(&self) -> Vec<String> {
        let mut names = self.above.map(Chain::names).unwrap_or_default();
        names.push(format!("{} ({})", self.pipeline, self.interval));
        names
    }

    fn contains(&self, pipeline: &PipelineName, interval: Interval) -> bool {
        (self.pipeline == pipeline && self.interval == interval)
            || self.above.is_some_and(|above| above.contains(pipeline, interval))
    }
}

/// A run that is understood and may begin.
struct Prepared {
    id: RunId,
    spec: PipelineSpec,
    context: TemplateContext,
    dag: Dag,
    plan: RunPlan,
}

impl Driver {
    /// A driver for a project.
    pub fn new(
        project: Arc<Project>,
        store: Arc<dyn Store>,
        runner: Arc<dyn JobRunner>,
        events: EventSink,
        options: DriverOptions,
    ) -> Self {
        Self { project, store, runner, events, options }
    }

    /// Runs a pipeline for one interval, awaited pipelines of the project first.
    ///
    /// # Errors
    /// What keeps the run from beginning: a mistake in the pipeline, another run of the same pipeline and interval
    /// ([`ErrorKind::Conflict`]), a store that cannot be written. A run that began and failed is a report, not an
    /// error.
    pub async fn run(&self, request: &RunRequest) -> Result<RunReport> {
        self.run_below(request, None).await
    }

    /// Runs a pipeline for every day from `first` to `last`, both inclusive, one after the other, and stops at the
    /// first run that does not succeed (its report is the last one). `request.interval` is not looked at.
    ///
    /// # Errors
    /// As [`Driver::run`], with the day it happened on; `last` before `first`.
    pub async fn run_many(&self, request: &RunRequest, first: NaiveDate, last: NaiveDate) -> Result<Vec<RunReport>> {
        if last < first {
            return Err(Error::new(ErrorKind::Usage, format!("the last date `{last}` is before the first, `{first}`"))
                .hint(format!("e.g. `--from {last} --to {first}`")));
        }
        let mut reports = Vec::new();
        for day in first.iter_days().take_while(|day| *day <= last) {
            let one = RunRequest { interval: Interval::day(day), ..request.clone() };
            let report = self.run(&one).await.context(|| format!("the run for {day}"))?;
            let succeeded = report.succeeded();
            reports.push(report);
            if !succeeded {
                break;
            }
        }
        Ok(reports)
    }

    fn run_below<'a>(
        &'a self,
        request: &'a RunRequest,
        above: Option<&'a Chain<'a>>,
    ) -> BoxFuture<'a, Result<RunReport>> {
        async move {
            let started = Instant::now();
            let here = Chain { pipeline: &request.pipeline, interval: request.interval, above };
            let prepared = match self.prepare(request).await? {
                Ok(prepared) => prepared,
                Err(unasked) => return self.fail(request, unasked, started).await,
            };
            let waits = self.waits(&prepared, request.interval, &here).await?;
            let (lock, taken, recovered) = self.begin(&prepared, request).await?;
            let id = prepared.id.clone();
            let mut awaited = Vec::new();
            let mut outcomes = BTreeMap::new();
            for wait in waits {
                let outcome = self.run_awaited(&wait, &here, &mut awaited).await;
                outcomes.insert(wait.step.clone(), (wait, outcome));
            }
            self.events.send(RunEvent::RunStarted {
                run: id,
                pipeline: request.pipeline.to_string(),
                interval: request.interval,
            });
            let session = session::Session::new(self, request, prepared, taken, outcomes);
            let (mut report, clean) = session.drive().await;
            report.millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            report.peak_memory = awaited.iter().map(|run| run.peak_memory).chain([report.peak_memory]).flatten().max();
            report.awaited = awaited;
            report.notes.splice(0..0, recovered.notes);
            report.notes.extend(request.replay.as_ref().map(Replay::describe));
            if let Err(error) = self.store.end(&report, Utc::now()).await {
                report.notes.push(format!("how the run ended could not be recorded: {error}"));
            }
            match clean {
                true => drop(lock),
                // Whoever comes next finds the file, and throws away what is left.
                false => lock.leave(),
            }
            Ok(report)
        }
        .boxed()
    }

    /// The inner error: a run that is understood, but fails before anything of it begins.
    async fn prepare(&self, request: &RunRequest) -> Result<Result<Prepared, Unasked>> {
        let id = RunId::from(uuid::Uuid::now_v7().simple().to_string());
        let (spec, context) = self.render(&request.pipeline, &id, request.interval, &request.params).await?;
        let spreading = Spreading {
            project: &self.project,
            runner: self.runner.as_ref(),
            run: &id,
            interval: request.interval,
            context: &context,
            selection: request.selection.as_ref(),
        };
        let mut spec = match spreading.try_spread(spec.clone(), &self.events, &self.options.cancel).await {
            Ok(spec) => spec,
            Err(Unspread { asked: Some(step), error }) => return Ok(Err(Unasked { id, spec, context, step, error })),
            Err(Unspread { asked: None, error }) => return Err(error),
        };
        if let Some(replay) = &request.replay {
            self.may_be_replayed(replay, &spec, request.interval).await?;
            spec = replay.pipeline(&spec)?;
        }
        let dag = Dag::new(&spec).map_err(|mistakes| to_error(&mistakes))?.knowing(&self.project.connections);
        let plan = dag.plan(request.selection.as_ref())?;
        if request.full_refresh {
            dag.refresh_fully(&mut spec);
        }
        Ok(Ok(Prepared { id, spec, context, dag, plan }))
    }

    async fn render(
        &self,
        pipeline: &PipelineName,
        run: &RunId,
        interval: Interval,
        params: &BTreeMap<String, String>,
    ) -> Result<(PipelineSpec, TemplateContext)> {
        let (project, pipeline, run, params) =
            (Arc::clone(&self.project), pipeline.clone(), run.clone(), params.clone());
        blocking(move || project.render(pipeline.as_str(), &run, interval, &params)).await
    }

    /// Records the run and takes what it needs, one process at a time.
    async fn begin(
        &self,
        prepared: &Prepared,
        request: &RunRequest,
    ) -> Result<(OwnerLock, Vec<(StepName, TakenLoad)>, Recovered)> {
        let Prepared { id, spec, context, dag, plan } = prepared;
        let load_of = |name: &StepName| match &spec.step(name.as_str())?.body {
            StepBody::Load(load) => Some((name.clone(), load)),
            _ => None,
        };
        let involved: Vec<&StepName> =
            plan.tasks.iter().flat_map(|task| task.actions().iter().chain(task.views())).collect();
        let steps = dag.order().into_iter().filter(|step| involved.contains(step));
        let steps: Vec<_> = steps.filter_map(|step| Some((step.clone(), dag.kind(step.as_str())?))).collect();
        let loads = plan.tasks.iter().flat_map(|task| task.actions()).filter_map(load_of).map(|(name, load)| {
            // What is incremental adds only what is new, however often it runs.
            let adds = load.strategy == Strategy::Append && dag.cursors(spec, name.as_str()).is_empty();
            let once = adds && !(request.full_refresh && load.knows_its_rows());
            let slot = slot(spec, &name, load, request.interval);
            // So is a replay: its slot is that of these very letters.
            (name, WantedLoad { slot, spec: load.clone(), once: once || request.replay.is_some() })
        });
        let (names, loads): (Vec<StepName>, Vec<WantedLoad>) = loads.unzip();
        let run = self.new_run(id, spec, context, request, steps, loads);
        let (lock, taken, recovered) = self.record(&run, request).await?;
        Ok((lock, names.into_iter().zip(taken).collect(), recovered))
    }

    fn new_run(
        &self,
        id: &RunId,
        spec: &PipelineSpec,
        context: &TemplateContext,
        request: &RunRequest,
        steps: Vec<(StepName, StepKind)>,
        loads: Vec<WantedLoad>,
    ) -> NewRun {
        NewRun {
            id: id.clone(),
            pipeline: spec.name.clone(),
            profile: self.project.spec.profile.clone(),
            interval: request.interval,
            params: context.params().clone(),
            started: Utc::now(),
            steps,
            loads,
        }
    }

    /// Records a run that begins, once what dead ones left is gone.
    async fn record(&self, run: &NewRun, request: &RunRequest) -> Result<(OwnerLock, Vec<TakenLoad>, Recovered)> {
        let start = self.start().await?;
        let mut recovered = self.recover_dead(Some(&request.interval)).await?;
        self.recover_left(Some(&request.pipeline), &mut recovered.notes).await?;
        if request.full_refresh {
            self.refuse_to_double(run).await?;
        }
        let owners = self.owners();
        let owner = run.id.clone();
        // Held before the run is recorded: whoever sees the record must find the lock taken.
        let lock = blocking(move || owners.hold(&owner)).await?;
        let taken = self.store.begin(run).await?;
        drop(start);
        Ok((lock, taken, recovered))
    }

    /// A full refresh of an append that is done would stand beside the old rows. It is refused before the run takes
    /// anything: a generation that was taken would be resumed by the next run, and doubles the rows then.
    async fn refuse_to_double(&self, run: &NewRun) -> Result<()> {
        for load in run.loads.iter().filter(|load| load.once) {
            let done = self.store.loads(&load.slot).await?;
            if done.iter().any(|done| done.profile == run.profile && done.committed.is_some()) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("`{}` already holds these rows, and `append` cannot replace them", load.slot.target),
                )
                .hint(
                    "leave `--full-refresh` out, or use `strategy: delete+insert`, `partition_overwrite` or `replace`, or `load_column: true` from the first load on",
                )
                .context(format!("step `{}`", load.slot.step)));
            }
        }
        Ok(())
    }

    /// Waits for the lock under which runs are recovered and begun.
    async fn start(&self) -> Result<OwnerLock> {
        let began = Instant::now();
        let mut told = false;
        loop {
            let owners = self.owners();
            if let Some(lock) = blocking(move || owners.try_start()).await? {
                return Ok(lock);
            }
            if !told && began.elapsed() > Duration::from_secs(2) {
                told = true;
                self.note(None, "waiting for another gristmill of this project to recover what a dead run left");
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = self.options.cancel.cancelled() => {
                    return Err(Error::new(ErrorKind::Canceled, "stopped before the run began"));
                }
            }
        }
    }

    fn owners(&self) -> Owners {
        Owners::new(&self.project.state)
    }

    fn note(&self, step: Option<&StepName>, text: impl Into<String>) {
        self.events.send(RunEvent::Note { step: step.cloned(), text: text.into() });
    }
}

/// Where the answer of a load belongs. The target is named as the pipeline names it: `connection:table` or
/// `connection:path`.
fn slot(spec: &PipelineSpec, step: &StepName, load: &LoadSpec, interval: Interval) -> Slot {
    Slot { pipeline: spec.name.clone(), step: step.clone(), interval, target: target(load) }
}

/// The waits of a plan.
fn wait_steps(plan: &RunPlan) -> impl Iterator<Item = &StepName> {
    plan.tasks.iter().filter_map(|task| match &task.kind {
        TaskKind::WaitFor(step) => Some(step),
        TaskKind::Stage(_) | TaskKind::Command(_) => None,
    })
}

/// The state of a run whose steps stand like this.
fn state_of(failed: bool, canceled: bool) -> RunState {
    match (failed, canceled) {
        (true, _) => RunState::Failed,
        (false, true) => RunState::Canceled,
        (false, false) => RunState::Success,
    }
}

/// Does something that blocks where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("a file operation did not come to its end").cause(error)),
    }
}

#[cfg(test)]
mod tests;
