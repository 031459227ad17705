//! One pass over a stage group: pipes are filled, checks are judged, rows are staged. Nothing is published.

mod action;
mod group;
mod sort;

use crate::dead_letters::{self, DeadLetters};
use crate::error::{from_datafusion, in_step};
use crate::increment::Increments;
use crate::memory::Pressure;
use crate::meter::{Meter, bytes_of};
use crate::pipe::Pipe;
use crate::rejects::Refused;
use crate::resolve::{Origin, PipeJob, Resolver};
use crate::session::Engine;
use action::plan_action;
pub(crate) use action::{open_sink, plain_type};
use datafusion::arrow::array::{Array, StringArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use gristmill_connect::Sink;
use gristmill_model::fault::{self, Point};
use gristmill_model::spec::{FileFormat, LoadSpec, OnFail, Step, StepBody};
use gristmill_model::{
    CancellationToken, CheckReport, Error, ErrorKind, EventSink, JobReport, JobSpec, KeptLoad, LoadKey, RefusedBy,
    Result, RunEvent, Staged, StagedLoad, StepKind, StepName, StepReport, StepState,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// A load or check of the group, planned.
pub(crate) struct Action {
    pub(crate) step: Step,
    pub(crate) meter: Arc<Meter>,
    pub(crate) load: Option<PlannedLoad>,
}

/// A load, planned.
pub(crate) struct PlannedLoad {
    pub(crate) key: LoadKey,
    pub(crate) schema: SchemaRef,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// The primary key of the table its rows come from, where the load goes by it.
    source_key: Vec<String>,
    /// Whether the target held this load before the run began: what is staged will not be needed.
    held: bool,
    /// What the commit will change in the target beside its rows.
    pub(crate) notes: Vec<String>,
}

/// What a group is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// To be shown; nothing is asked of the targets but what they are.
    Explain,
    /// To be done, with hash joins.
    First,
    /// To be done once more in the same attempt, without hash joins, since memory was short.
    SortMerge,
}

impl Pass {
    /// The number of the writers' attempt. Each pass has one of its own: writers of the pass before may still be at
    /// work when the next one begins, and no two may write the same object.
    fn attempt(self, attempt: u32) -> u32 {
        let twice = attempt.saturating_mul(2);
        if self == Self::SortMerge { twice } else { twice.saturating_sub(1) }
    }
}

/// The step that a job's dead letters are named after: its first load, or its first step where there is none.
pub(crate) fn letters_of(job: &JobSpec) -> Option<&StepName> {
    let load = job.steps.iter().find(|step| job.loads.iter().any(|(name, _)| name == *step));
    load.or_else(|| job.steps.first())
}

/// What a job is called by whoever keeps something for further attempts of it: the same in each of them.
pub(crate) fn name_of(job: &JobSpec) -> String {
    format!("{}/{}", job.run, letters_of(job).map_or("", StepName::as_str))
}

/// A stage group, planned.
pub(crate) struct Group {
    pub(crate) resolver: Resolver,
    pub(crate) actions: Vec<Action>,
    letters: Arc<DeadLetters>,
    increments: Arc<Increments>,
    engine: Arc<Engine>,
}

impl Group {
    /// Opens sources and sinks, plans every query, and looks whether the targets can take the rows.
    pub(crate) async fn plan(engine: &Arc<Engine>, job: &JobSpec, pass: Pass) -> Result<Self> {
        let letters = dead_letters::Job {
            state: engine.letters_home(),
            pipeline: job.pipeline.name.to_string(),
            profile: engine.options.profile.clone(),
            interval: job.interval,
            run: job.run.clone(),
            job: letters_of(job).map(ToString::to_string).unwrap_or_default(),
            attempt: job.attempt,
        };
        let letters = DeadLetters::new(letters, engine.shelf()?)?;
        let mut shared = job.shared.clone();
        loop {
            let session = engine.session(pass != Pass::SortMerge);
            // Anew each time: what was planned before has moved them on.
            let increments = Arc::new(Increments::find(engine, job).await?);
            let letters_of_job = letters.clone();
            let mut resolver =
                Resolver::for_job(engine.clone(), session, job, &shared, letters_of_job, increments.clone());
            let mut actions = Vec::new();
            for name in &job.steps {
                let Some(step) = job.pipeline.step(name.as_str()) else {
                    return Err(Error::internal(format!("step `{name}` is not in the pipeline")));
                };
                let action = plan_action(engine, job, step, pass, &mut resolver, &letters).await;
                actions.push(action.map_err(|error| in_step(error, name.as_str()))?);
            }
            // How often a source is read is known only when every query has been planned.
            let read_again = resolver.read_again();
            if read_again.is_empty() {
                let loads = || actions.iter().filter_map(|action: &Action| Some((action, action.load.as_ref()?)));
                if let Some((_, first)) = loads().next() {
                    let all = loads().map(|(action, load)| (action.step.name.clone(), load.source_key.clone()));
                    letters.belong_to(&first.key, all.collect());
                }
                return Ok(Self { resolver, actions, letters, increments, engine: engine.clone() });
            }
            shared.extend(read_again);
        }
    }

    /// Runs the group to its end, or to the first error.
    pub(crate) async fn run(self, job: &JobSpec, events: &EventSink, cancel: &CancellationToken) -> JobReport {
        let started = Instant::now();
        for view in &self.resolver.views {
            events.send(RunEvent::StepStarted { step: view.step.clone(), kind: view.kind, rows: None });
        }
        for action in &self.actions {
            let kind = action.step.body.kind();
            events.send(RunEvent::StepStarted { step: action.step.name.clone(), kind, rows: None });
        }
        let teller = self.tell(events);
        let outcome = tokio::select! {
            outcome = self.execute_unchanged() => outcome,
            error = self.too_many_rejects(job) => Err(error),
            () = cancel.cancelled() => Err(Error::new(ErrorKind::Canceled, "stopped on request")),
        };
        teller.abort();
        let (staged, error) = match outcome {
            Ok(staged) => (staged, None),
            Err(error) => (Vec::new(), Some(self.explain(error).await)),
        };
        let mut report = JobReport { steps: self.step_reports(), error, ..JobReport::default() };
        match &report.error {
            None => {
                report.error = fault::at(Point::BeforeAudit)
                    .err()
                    .or_else(|| verdict(&report.steps))
                    .or_else(|| self.refused(job).find_map(|refused| refused.error(true)));
            }
            // Not all rows were seen: bad ones are bad all the same, but nothing has passed, and none were counted.
            Some(_) => {
                for step in &mut report.steps {
                    step.checks.retain(|check| !check.passed && !check.name.starts_with("row_count"));
                }
            }
        }
        let mut refused = report.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Check);
        if report.error.is_none() {
            report.error = match fault::at(Point::DuringAudit) {
                Ok(()) => self.audit(&staged).await.err(),
                Err(error) => Some(error),
            };
            refused = report.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Data);
        }
        if report.error.is_none() {
            match self.letters.finish().await {
                Ok(Some(path)) => {
                    let text = format!("dead letters: {}", path.display());
                    events.send(RunEvent::Note { step: None, text });
                }
                Ok(None) => {}
                Err(error) => report.error = Some(error),
            }
        }
        if report.error.is_none() {
            report.error = fault::at(Point::AfterAudit).err();
        }
        match &report.error {
            None => {
                report.staged = self.staged_loads(staged);
                self.give_up_held(&mut report.staged).await;
            }
            Some(_) => {
                self.letters.discard().await;
                for (action, load) in self.actions.iter().filter_map(|action| Some((action, action.load.as_ref()?))) {
                    if refused && let Some(kept) = load.keep(action, &staged).await {
                        report.kept.push(kept);
                        continue;
                    }
                    if let Err(error) = load.sink.abort(&load.key).await {
                        tracing::warn!("what `{}` staged could not be thrown away: {error}", load.key);
                    }
                }
            }
        }
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        finish_reports(&mut report, job, millis);
        report.peak_memory = crate::memory::peak_resident();
        report
    }

    /// Lets each target look at what all writers have staged for it, before any load of the run is committed.
    async fn audit(&self, staged: &[(StepName, Staged)]) -> Result<()> {
        for action in &self.actions {
            let Some(load) = action.load.as_ref().filter(|load| !load.held) else { continue };
            let of_load = staged.iter().filter(|(step, _)| *step == action.step.name);
            let parts: Vec<Staged> = of_load.map(|(_, part)| part.clone()).collect();
            load.sink.audit(&parts).await.map_err(|error| in_step(error, action.step.name.as_str()))?;
        }
        Ok(())
    }

    /// Throws away the rows of loads that the target holds: handed to the commit they would look like those of a rival.
    async fn give_up_held(&self, staged: &mut [StagedLoad]) {
        for load in self.actions.iter().filter_map(|action| action.load.as_ref()).filter(|load| load.held) {
            if let Err(error) = load.sink.abort(&load.key).await {
                tracing::warn!("what `{}` staged could not be thrown away: {error}", load.key);
            }
            for staged in staged.iter_mut().filter(|staged| staged.key == load.key) {
                staged.staged.clear();
            }
        }
    }

    /// What steps with a limit have refused so far.
    fn refused<'a>(&'a self, job: &'a JobSpec) -> impl Iterator<Item = Refused> + 'a {
        let pipe = |step: &StepName| self.resolver.pipes.iter().find(|pipe| pipe.step == *step);
        let views = self.resolver.views.iter().map(move |view| {
            let rejects = view.meter.rejects();
            // What its checks refused was read, too; the good rows are counted where they come out.
            let good = pipe(&view.step).map_or(view.meter.rows(), crate::resolve::PipeJob::out_rows);
            (&view.step, rejects, good + rejects)
        });
        let actions = self.actions.iter().map(move |action| {
            let step = &action.step.name;
            let (checked, seen) =
                pipe(step).map_or((0, action.meter.rows()), |pipe| (pipe.out.rejects(), pipe.seen.rows()));
            (step, checked + action.meter.rejects(), seen)
        });
        views.chain(actions).filter_map(|(step, rejects, rows)| {
            let limit = job.pipeline.step(step.as_str())?.max_rejects?;
            let samples = self.letters.samples(step);
            Some(Refused { step: step.clone(), limit, rejects, rows, samples })
        })
    }

    /// Comes back with an error as soon as a step has refused too much, however many rows are still to come.
    async fn too_many_rejects(&self, job: &JobSpec) -> Error {
        let mut tick = tokio::time::interval(TELL_EVERY);
        loop {
            tick.tick().await;
            if let Some(error) = self.refused(job).find_map(|refused| refused.error(false)) {
                return error;
            }
        }
    }

    fn tell(&self, events: &EventSink) -> tokio::task::JoinHandle<()> {
        let mut meters: Vec<Arc<Meter>> = self.resolver.views.iter().map(|view| view.meter.clone()).collect();
        meters.extend(self.actions.iter().map(|action| action.meter.clone()));
        let natives: Vec<(Arc<Meter>, Arc<crate::table::NativeTable>)> = self
            .resolver
            .views
            .iter()
            .filter_map(|view| match &view.origin {
                Origin::Native(table) => Some((view.meter.clone(), table.clone())),
                _ => None,
            })
            .collect();
        // A query of its own has no reader that counts; its pipe knows how many rows went on.
        let is_query = |step: &StepName| {
            self.resolver.views.iter().any(|view| view.step == *step && matches!(view.origin, Origin::Query))
        };
        let piped: Vec<_> = self
            .resolver
            .pipes
            .iter()
            .filter(|job| is_query(&job.step))
            .map(|job| (job.out.clone(), job.passed.clone()))
            .collect();
        let events = events.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(TELL_EVERY);
            loop {
                tick.tick().await;
                for (meter, table) in &natives {
                    meter.settle(table.rows_read());
                }
                for (meter, passed) in &piped {
                    let rows = passed.load(std::sync::atomic::Ordering::Relaxed);
                    meter.settle((rows > meter.rows()).then_some(rows));
                }
                for meter in &meters {
                    meter.tell(&events);
                }
            }
        })
    }

    /// As [`Self::execute`]; an error where files that the engine's own scan has read were changed meanwhile.
    async fn execute_unchanged(&self) -> Result<Vec<(StepName, Staged)>> {
        let staged = self.execute().await?;
        for view in &self.resolver.views {
            if let Origin::Native(table) = &view.origin {
                table.source.unchanged().await.map_err(|error| in_step(error, view.step.as_str()))?;
            }
        }
        Ok(staged)
    }

    async fn execute(&self) -> Result<Vec<(StepName, Staged)>> {
        let session = &self.resolver.session;
        let _watch = self.engine.pressure.watch(self.engine.limit.total);
        let mut tasks: JoinSet<Result<Option<(StepName, Staged)>>> = JoinSet::new();
        for job in &self.resolver.pipes {
            job.pipe.start();
        }
        for job in &self.resolver.pipes {
            for lane in 0..job.pipe.lanes() {
                let feed = Feed::new(job, lane, session, &self.letters, self.engine.pressure.clone());
                tasks.spawn(async move { feed.run().await.map(|()| None) });
            }
            for unique in &job.uniques {
                for partition in 0..unique.plan.output_partitioning().partition_count() {
                    let unique = unique.clone();
                    let session = session.clone();
                    tasks.spawn(async move { unique.run(&session, partition).await.map(|()| None) });
                }
            }
        }
        for action in &self.actions {
            let Some(load) = &action.load else { continue };
            for partition in 0..load.plan.output_partitioning().partition_count() {
                let (plan, context, step) = (load.plan.clone(), session.task_ctx(), action.step.name.clone());
                tasks.spawn(async move {
                    let staged =
                        stage(plan, partition, context).await.map_err(|error| in_step(error, step.as_str()))?;
                    Ok(staged.map(|staged| (step, staged)))
                });
            }
        }
        let mut staged = Vec::new();
        // Dropping the set on an error stops every other task.
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(outcome) => staged.extend(outcome?),
                Err(error) if error.is_panic() => {
                    return Err(Error::internal(format!("a task of the job panicked: {error}")));
                }
                Err(error) => return Err(Error::internal(format!("a task of the job ended: {error}"))),
            }
        }
        Ok(staged)
    }

    /// A native scan says what is wrong, but not where; the source reads again and finds the place.
    async fn explain(&self, error: Error) -> Error {
        // A file that was replaced under the scan looks damaged, or is gone.
        for view in &self.resolver.views {
            if let Origin::Native(table) = &view.origin
                && error.kind() != ErrorKind::Canceled
                && let Err(changed) = table.source.unchanged().await
                && changed.kind() == ErrorKind::Conflict
            {
                return in_step(changed.cause(error.message()), view.step.as_str());
            }
        }
        if !matches!(error.kind(), ErrorKind::Data | ErrorKind::Internal) {
            return error;
        }
        for view in &self.resolver.views {
            if let Origin::Native(table) = &view.origin
                && let Some(found) = table.source.diagnose().await
            {
                return found.context(format!("step `{}`", view.step));
            }
        }
        error
    }

    fn step_reports(&self) -> Vec<StepReport> {
        let mut reports = Vec::new();
        for view in &self.resolver.views {
            let mut report = StepReport::new(view.step.clone(), view.kind);
            let meter = &view.meter;
            match &view.origin {
                Origin::Native(table) => {
                    report.rows_out = table.rows_read();
                    report.notes.push(table.describe());
                }
                Origin::Extract(table) => {
                    report.rows_out = Some(meter.rows());
                    report.bytes_in = Some(meter.bytes());
                    if let Ok(planned) = table.planned.lock()
                        && let Some(plan) = planned.as_ref()
                    {
                        let plural = if plan.units.len() == 1 { "unit" } else { "units" };
                        report.notes.push(format!("{} {plural}: {}", plan.units.len(), plan.why));
                    }
                }
                Origin::Query => {}
            }
            report.notes.extend(self.increments.get(&view.step).map(|progress| progress.describe()));
            report.rejects = meter.rejects();
            report.notes.extend(meter.warning("could not be read"));
            report.notes.extend(meter.beyond());
            report.millis = meter.millis();
            reports.push(report);
        }
        for action in &self.actions {
            let mut report = StepReport::new(action.step.name.clone(), action.step.body.kind());
            report.millis = action.meter.millis();
            report.rejects = action.meter.rejects();
            report.notes.extend(action.meter.warning("did not fit the target"));
            if let Some(load) = &action.load {
                report.notes.extend(load.notes.iter().cloned());
                report.rows_in = Some(action.meter.rows());
            }
            reports.push(report);
        }
        for job in &self.resolver.pipes {
            let Some(report) = reports.iter_mut().find(|report| report.step == job.step) else { continue };
            let (seen, out) = (job.seen.rows(), job.out_rows());
            report.rows_in = Some(seen);
            if report.kind != StepKind::Load {
                report.rows_out = Some(out);
            }
            if report.kind.is_action() {
                report.rejects += job.out.rejects();
            }
            report.millis = report.millis.max(job.seen.millis());
            report.checks = job.tallies.iter().map(|tally| tally.report(seen, out)).collect();
            if job.pipe.spilled() > 0 {
                let size = gristmill_model::ByteSize(job.pipe.spilled());
                report.notes.push(format!("{size} waited on disk for a slow reader"));
            }
        }
        reports
    }

    fn staged_loads(&self, staged: Vec<(StepName, Staged)>) -> Vec<StagedLoad> {
        let mut loads: Vec<StagedLoad> = self
            .actions
            .iter()
            .filter_map(|action| {
                let load = action.load.as_ref()?;
                Some(StagedLoad {
                    step: action.step.name.clone(),
                    key: load.key.clone(),
                    schema: crate::runner::encode_schema(&load.schema),
                    staged: Vec::new(),
                    checkpoint: self.increments.checkpoint(&action.step.name),
                    source_key: load.source_key.clone(),
                })
            })
            .collect();
        for (step, part) in staged {
            if let Some(load) = loads.iter_mut().find(|load| load.step == step) {
                load.staged.push(part);
            }
        }
        for load in &mut loads {
            load.staged.sort_by_key(|part| part.task.partition);
        }
        loads
    }
}

impl PlannedLoad {
    /// As [`keep`], of what the writers of this group have staged for it.
    async fn keep(&self, action: &Action, staged: &[(StepName, Staged)]) -> Option<KeptLoad> {
        let step = &action.step.name;
        let StepBody::Load(spec) = &action.step.body else { return None };
        let parts = staged.iter().filter(|(of, _)| of == step).map(|(_, part)| part.clone());
        if self.held { None } else { keep(step, spec, &self.key, self.sink.as_ref(), &parts.collect::<Vec<_>>()).await }
    }
}

/// Keeps what a load has staged to be looked at, where a check or its target has refused it. None where there is nothing to
/// see, or no way to see it: then it is to be thrown away.
pub(crate) async fn keep(
    step: &StepName,
    spec: &LoadSpec,
    key: &LoadKey,
    sink: &dyn Sink,
    staged: &[Staged],
) -> Option<KeptLoad> {
    let parts: Vec<Staged> = staged.iter().filter(|part| part.rows > 0).cloned().collect();
    if parts.is_empty() {
        return None;
    }
    let mut rows = match sink.keep(&parts).await {
        Ok(rows) => rows?,
        Err(error) => {
            tracing::warn!("what `{key}` staged cannot be kept: {error}");
            return None;
        }
    };
    rows.extract.from = spec.to.clone();
    if rows.extract.format == Some(FileFormat::Csv) {
        rows.extract.csv.clone_from(&spec.csv);
    }
    Some(KeptLoad { step: step.clone(), key: key.clone(), rows })
}

fn finish_reports(report: &mut JobReport, job: &JobSpec, millis: u64) {
    let failed = report.error.as_ref();
    for step in &mut report.steps {
        step.attempts = job.attempt;
        let blamed = failed
            .is_some_and(|error| error.contexts().iter().any(|context| *context == format!("step `{}`", step.step)));
        step.state = match failed {
            None if step.kind.is_action() => StepState::Staged,
            None => StepState::Success,
            Some(error) if error.kind() == ErrorKind::Canceled => StepState::Canceled,
            Some(_) if blamed || step.kind.is_action() => StepState::Failed,
            Some(_) => StepState::Success,
        };
        if step.kind.is_action() {
            step.millis = millis;
            if let Some(load) = report.staged.iter().find(|load| load.step == step.step) {
                step.output.files = load.staged.iter().map(|part| part.files.len() as u64).sum();
                step.output.bytes = load.staged.iter().map(|part| part.bytes).sum();
                step.rows_out = Some(load.staged.iter().map(|part| part.rows).sum());
            }
        }
    }
}

/// The error of the checks that say no, if any does.
fn verdict(steps: &[StepReport]) -> Option<Error> {
    let failing: Vec<(&StepName, &CheckReport)> = steps
        .iter()
        .flat_map(|step| step.checks.iter().map(move |check| (&step.step, check)))
        .filter(|(_, check)| !check.passed && check.on_fail == OnFail::Fail)
        .collect();
    let (first_step, _) = failing.first()?;
    let lines: Vec<String> = failing
        .iter()
        .map(|(step, check)| {
            // The first step is named in front of everything.
            let of = if step == first_step { String::new() } else { format!(" of step `{step}`") };
            format!("check `{}`{of} failed: {}", check.name, check.observed)
        })
        .collect();
    // A set check judges all rows together: there is none it could leave out.
    let of_rows =
        failing.iter().any(|(_, check)| !check.name.starts_with("unique") && !check.name.starts_with("row_count"));
    let hint = if of_rows {
        "nothing was published; mend the rows, or let bad ones go with `on_fail: dead_letter`, `drop` or `warn`"
    } else {
        "nothing was published; mend the rows, or go on in spite of it with `on_fail: warn`"
    };
    Some(Error::new(ErrorKind::Check, lines.join("; ")).hint(hint).context(format!("step `{first_step}`")))
}

async fn stage(plan: Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<Option<Staged>> {
    let mut manifest = plan.execute(partition, context).map_err(from_datafusion)?;
    let mut staged = None;
    while let Some(batch) = manifest.try_next().await.map_err(from_datafusion)? {
        let texts = batch.column(0).as_any().downcast_ref::<StringArray>();
        let texts = texts.ok_or_else(|| Error::internal("a manifest is not text"))?;
        for row in 0..texts.len() {
            let part = serde_json::from_str(texts.value(row))
                .map_err(|error| Error::internal(format!("a manifest cannot be decoded: {error}")))?;
            staged = Some(part);
        }
    }
    Ok(staged)
}

/// One lane of a pipe's producer: reads, judges, hands on.
struct Feed {
    step: StepName,
    pipe: Arc<Pipe>,
    lane: usize,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    judge: Arc<crate::checks::Judge>,
    numbers: Vec<Arc<crate::checks::UniqueNumbers>>,
    seen: Arc<Meter>,
    out: Arc<Meter>,
    passed: Arc<std::sync::atomic::AtomicU64>,
    must_finish: bool,
    letters: Arc<DeadLetters>,
    pressure: Pressure,
}

impl Feed {
    fn new(
        job: &PipeJob,
        lane: usize,
        session: &SessionContext,
        letters: &Arc<DeadLetters>,
        pressure: Pressure,
    ) -> Self {
        Self {
            step: job.step.clone(),
            pipe: job.pipe.clone(),
            lane,
            plan: job.plan.clone(),
            context: session.task_ctx(),
            judge: job.judge.clone(),
            numbers: job.numbers.clone(),
            seen: job.seen.clone(),
            out: job.out.clone(),
            passed: job.passed.clone(),
            must_finish: job.must_finish(),
            letters: letters.clone(),
            pressure,
        }
    }

    async fn run(self) -> Result<()> {
        let outcome = self.feed().await.map_err(|error| in_step(error, self.step.as_str()));
        self.pipe.finish(self.lane, outcome.clone());
        outcome
    }

    async fn feed(&self) -> Result<()> {
        let mut rows = self.plan.execute(self.lane, self.context.clone()).map_err(from_datafusion)?;
        self.seen.touch();
        while self.must_finish || self.pipe.wanted(self.lane) {
            self.pressure.ease().await;
            let Some(batch) = rows.try_next().await.map_err(from_datafusion)? else { break };
            self.seen.add(batch.num_rows(), bytes_of(&batch));
            let judged = self.judge.judge(&batch)?;
            if judged.rejected > 0 {
                self.out.reject(judged.rejected);
            }
            if let Some((dead, reasons)) = &judged.dead {
                let unit = format!("lane {}", self.lane);
                self.letters.rows(&self.step, RefusedBy::Check, &unit, dead, reasons)?;
            }
            self.passed.fetch_add(judged.good.num_rows() as u64, std::sync::atomic::Ordering::Relaxed);
            for check in &self.numbers {
                check.add(judged.good.column(check.column)).await?;
            }
            self.pipe.push(self.lane, judged.good).await?;
        }
        for check in &self.numbers {
            check.end_lane().await?;
        }
        self.seen.touch();
        Ok(())
    }
}
