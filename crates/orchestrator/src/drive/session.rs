//! The loop of one run: ask [`decide`] what to do, do it, wait for something to end.

mod answers;
mod ending;

use super::wait::{Outcome, Wait};
use super::{Driver, Prepared, RunRequest, command};
use crate::RunReport;
use crate::dag::{Dag, RunPlan, TaskKind};
use crate::decide::{Action, Facts, Phase, Policy, TaskState, decide};
use crate::store::{DecidedLoad, TakenLoad};
use futures::FutureExt;
use gristmill_model::spec::{PipelineSpec, StepBody};
use gristmill_model::{
    CancellationToken, Error, ErrorKind, EventSink, JobPhase, JobReport, JobSpec, KeptLoad, LoadKey, Result, RunEvent,
    RunId, StagedLoad, StepKind, StepName, StepReport, StepState, TemplateContext,
};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a job may take to end after it was asked to. Then it is dropped: recovery finds what it left.
const GRACE: Duration = Duration::from_secs(30);

/// One run.
pub(super) struct Session<'a> {
    driver: &'a Driver,
    request: &'a RunRequest,
    id: RunId,
    spec: PipelineSpec,
    context: TemplateContext,
    dag: Dag,
    plan: RunPlan,
    policies: Vec<Policy>,
    timeouts: Vec<Option<Duration>>,
    waits: BTreeMap<StepName, (Wait, Outcome)>,
    loads: BTreeMap<StepName, TakenLoad>,
    tasks: Vec<Progress>,
    steps: BTreeMap<StepName, StepReport>,
    began: BTreeMap<StepName, Instant>,
    jobs: JoinSet<Ended>,
    started: Instant,
    /// The first failure; what the run says it failed of.
    error: Option<Error>,
    /// The store cannot be written: nothing can be decided safely any more, so the run winds down.
    broken: bool,
    /// Something that was staged could not be thrown away, or is left to be looked at.
    unclean: bool,
    kept: Vec<KeptLoad>,
    peak_memory: Option<u64>,
    notes: Vec<String>,
}

/// Where one task has come to, beside its state.
struct Progress {
    state: TaskState,
    /// Failed attempts at the present phase.
    failures: u32,
    /// The attempt that is recorded as going on.
    open: Option<u32>,
    staged: Vec<StagedLoad>,
    /// What the last attempt staged before its checks failed.
    kept: Vec<KeptLoad>,
    /// That what is staged is going to be published is recorded.
    decided: bool,
    error: Option<Error>,
    /// The steps, views too, that the runner says failed in the last attempt.
    blamed: Vec<StepName>,
    token: CancellationToken,
}

/// What a job was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Work,
    Commit,
    Abort { failed: bool },
}

/// A job that has ended.
struct Ended {
    task: usize,
    purpose: Purpose,
    report: JobReport,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        driver: &'a Driver,
        request: &'a RunRequest,
        prepared: Prepared,
        taken: Vec<(StepName, TakenLoad)>,
        waits: BTreeMap<StepName, (Wait, Outcome)>,
    ) -> Self {
        let Prepared { id, spec, context, dag, plan } = prepared;
        let mut steps = BTreeMap::new();
        for name in plan.tasks.iter().flat_map(|task| task.actions().iter().chain(task.views())) {
            if let Some(kind) = dag.kind(name.as_str()) {
                steps.insert(name.clone(), StepReport::new(name.clone(), kind));
            }
        }
        let count = plan.tasks.len();
        let mut session = Self {
            driver,
            request,
            id,
            policies: plan.tasks.iter().map(|task| policy(&spec, task)).collect(),
            timeouts: plan.tasks.iter().map(|task| timeout(&spec, task)).collect(),
            spec,
            context,
            dag,
            plan,
            waits,
            loads: taken.into_iter().collect(),
            tasks: (0..count)
                .map(|_| Progress {
                    state: TaskState::Waiting,
                    failures: 0,
                    open: None,
                    staged: Vec::new(),
                    kept: Vec::new(),
                    decided: false,
                    error: None,
                    blamed: Vec::new(),
                    token: CancellationToken::new(),
                })
                .collect(),
            steps,
            began: BTreeMap::new(),
            jobs: JoinSet::new(),
            started: Instant::now(),
            error: None,
            broken: false,
            unclean: false,
            kept: Vec::new(),
            peak_memory: None,
            notes: Vec::new(),
        };
        session.skip_finished();
        session
    }

    /// Takes loads out of their groups whose slot is finished and must not be loaded twice.
    fn skip_finished(&mut self) {
        let finished: Vec<(StepName, LoadKey)> = self
            .loads
            .iter()
            .filter(|(_, load)| load.finished)
            .map(|(step, load)| (step.clone(), load.key.clone()))
            .collect();
        for (name, key) in finished {
            self.loads.remove(&name);
            if let Some(report) = self.steps.get_mut(&name) {
                report.notes.push(match self.request.replay {
                    Some(_) => "these rows were replayed before; nothing was done".to_owned(),
                    None => format!(
                        "`{}` is loaded already (generation {}), and `append` would add its rows a second time",
                        key.slot.interval, key.generation
                    ),
                });
            }
            for at in 0..self.plan.tasks.len() {
                let task = &mut self.plan.tasks[at];
                if let TaskKind::Stage(group) = &mut task.kind
                    && group.actions.contains(&name)
                {
                    let left: Vec<StepName> = group.actions.iter().filter(|step| **step != name).cloned().collect();
                    *group = self.dag.group(&left);
                    task.loads = left.iter().any(|step| self.dag.kind(step.as_str()) == Some(StepKind::Load));
                    if left.is_empty() {
                        self.tasks[at].state = TaskState::Skipped;
                    }
                }
            }
            self.finish(&name, StepState::Skipped, None);
        }
    }

    /// Runs to the end and says what it came to, and whether nothing is left of it that should not be.
    pub(super) async fn drive(mut self) -> (RunReport, bool) {
        let cancel = self.driver.options.cancel.clone();
        loop {
            let canceled = cancel.is_cancelled();
            let states: Vec<TaskState> = self.tasks.iter().map(|task| task.state).collect();
            let decision = decide(&Facts {
                plan: &self.plan,
                policies: &self.policies,
                states: &states,
                now: self.now(),
                stop: canceled || self.broken,
                jitter: rand::random(),
                max_active: self.driver.options.max_active,
            });
            if decision.over {
                break;
            }
            if !decision.actions.is_empty() {
                for action in decision.actions {
                    self.apply(action).await;
                }
                continue;
            }
            let wake = decision.wake.map(|at| self.started + Duration::from_millis(at));
            let alarm = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            if self.jobs.is_empty() && wake.is_none() {
                // Cannot be, by the rules of `decide`; better an error than a run that hangs.
                self.error.get_or_insert_with(|| Error::internal("the run has nothing to do and is not over"));
                break;
            }
            tokio::select! {
                Some(ended) = self.jobs.join_next(), if !self.jobs.is_empty() => match ended {
                    Ok(ended) => self.ended(ended).await,
                    Err(error) => {
                        // A job catches its own panics, so only its being dropped can bring us here.
                        self.error.get_or_insert_with(|| Error::internal("a job was lost").cause(error));
                        break;
                    }
                },
                () = alarm => {}
                () = cancel.cancelled(), if !canceled => {}
            }
        }
        let clean = !self.unclean;
        (self.report(), clean)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn apply(&mut self, action: Action) {
        match action {
            Action::Start { task, attempt, failures } => {
                self.tasks[task].failures = failures;
                self.start(task, attempt).await;
            }
            Action::Commit { task, attempt, failures } => {
                if !self.decide(task).await {
                    return;
                }
                self.tasks[task].failures = failures;
                self.tasks[task].state = TaskState::Running { phase: Phase::Commit, attempt, interrupted: false };
                self.attempt_began(task, attempt).await;
                let job = self.job(task, attempt, JobPhase::Commit { staged: self.tasks[task].staged.clone() });
                self.spawn_job(task, Purpose::Commit, vec![job], CancellationToken::new(), None);
            }
            Action::Sleep { task, phase, attempt, failures, until } => {
                self.tasks[task].state = TaskState::Sleeping { phase, attempt, failures, until };
                let wait_millis = until.saturating_sub(self.now());
                if let Some(error) = &self.tasks[task].error {
                    for step in self.open_actions(task) {
                        let error = error.clone();
                        self.driver.events.send(RunEvent::Retry { step, attempt, wait_millis, error });
                    }
                }
            }
            Action::Interrupt { task } => {
                if let TaskState::Running { interrupted, .. } = &mut self.tasks[task].state {
                    *interrupted = true;
                }
                self.tasks[task].token.cancel();
            }
            Action::Abort { task, failed } => {
                self.tasks[task].state = TaskState::Aborting { failed };
                let staged = std::mem::take(&mut self.tasks[task].staged);
                if self.tasks[task].decided {
                    let keys: Vec<LoadKey> = staged.iter().map(|load| load.key.clone()).collect();
                    let written = self.driver.store.given_up(&self.id, &keys).await;
                    self.written(written);
                }
                let kept = if failed { self.keep(task).await } else { Vec::new() };
                let keep = self.keeps();
                let mut job = self.job(task, 1, JobPhase::Abort { staged, keep });
                job.loads.retain(|(step, _)| !kept.contains(step));
                // Not to be stopped: it is the stopping. But a target that hangs must not hold the run for ever.
                self.spawn_job(task, Purpose::Abort { failed }, vec![job], CancellationToken::new(), Some(GRACE));
            }
            Action::Fail { task } => self.settle(task, TaskState::Failed).await,
            Action::UpstreamFail { task, because } => {
                let names: Vec<String> =
                    self.plan.tasks[because].actions().iter().map(|step| format!("`{step}`")).collect();
                for step in self.open_actions(task) {
                    self.add_note(&step, format!("not begun, because {} failed", names.join(" or ")));
                }
                self.settle(task, TaskState::UpstreamFailed).await;
            }
            Action::Cancel { task } => self.settle(task, TaskState::Canceled).await,
        }
    }

    /// Records, before the first commit of a wave, everything that is going to be published with it: a process that
    /// dies between two commits must not leave the one load without the other. False when it cannot be recorded, and
    /// nothing may be committed then.
    async fn decide(&mut self, task: usize) -> bool {
        if self.tasks[task].decided {
            return true;
        }
        let wave = self.plan.tasks[task].wave;
        let is_alone = self.plan.tasks[task].alone;
        let goes_along = |other: &usize| {
            let planned = &self.plan.tasks[*other];
            planned.wave <= wave && !planned.alone && matches!(self.tasks[*other].state, TaskState::Staged { .. })
        };
        // One table of many is published by itself.
        let together: Vec<usize> =
            if is_alone { vec![task] } else { (0..self.tasks.len()).filter(goes_along).collect() };
        let loads = together.iter().flat_map(|task| &self.tasks[*task].staged).filter_map(|staged| {
            let StepBody::Load(spec) = &self.spec.step(staged.step.as_str())?.body else { return None };
            Some(DecidedLoad { spec: spec.clone(), staged: staged.clone() })
        });
        let loads: Vec<DecidedLoad> = loads.collect();
        let written = self.driver.store.decided(&self.id, &loads).await;
        let done = written.is_ok();
        self.written(written);
        if done {
            for task in together {
                self.tasks[task].decided = true;
            }
        }
        done
    }

    async fn start(&mut self, task: usize, attempt: u32) {
        self.tasks[task].state = TaskState::Running { phase: Phase::Work, attempt, interrupted: false };
        let token = CancellationToken::new();
        self.tasks[task].token = token.clone();
        self.tasks[task].blamed.clear();
        // What an earlier attempt said about the steps no longer holds.
        for view in self.plan.tasks[task].views().to_vec() {
            self.set(&view, StepState::Pending);
        }
        self.attempt_began(task, attempt).await;
        for step in self.open_actions(task) {
            self.began.entry(step.clone()).or_insert_with(Instant::now);
            if let Some(kind) = self.dag.kind(step.as_str()) {
                self.driver.events.send(RunEvent::StepStarted { step, kind, rows: None });
            }
        }
        let limit = self.timeouts[task];
        match self.plan.tasks[task].kind.clone() {
            TaskKind::Stage(_) => {
                let mut jobs = Vec::new();
                let left = std::mem::take(&mut self.tasks[task].staged);
                let kept = std::mem::take(&mut self.tasks[task].kept);
                if !left.is_empty() || !kept.is_empty() {
                    // The attempt before staged some of its loads; nobody else will throw that away.
                    jobs.push(self.job(task, attempt, JobPhase::Abort { staged: left, keep: false }));
                }
                jobs.push(self.job(task, attempt, JobPhase::Stage));
                self.spawn_job(task, Purpose::Work, jobs, token, limit);
            }
            TaskKind::Command(step) => {
                let Some(StepBody::Command(spec)) = self.spec.step(step.as_str()).map(|step| step.body.clone()) else {
                    return;
                };
                let job = command::CommandJob {
                    step,
                    spec,
                    folder: self.driver.project.root.clone(),
                    dotenv: self.driver.project.dotenv.clone(),
                    context: self.context.clone(),
                };
                let work = command::run(job, self.driver.events.clone(), token.clone());
                let work = async move { JobReport { error: work.await.err(), ..JobReport::default() } };
                self.spawn(task, Purpose::Work, work, token, limit);
            }
            TaskKind::WaitFor(step) => {
                let Some((wait, outcome)) = self.waits.get(&step).cloned() else { return };
                let (driver, stop) = (self.driver.clone(), token.clone());
                let kind = StepKind::WaitFor;
                let work = async move {
                    match driver.wait(&wait, outcome, attempt, &stop).await {
                        Ok(note) => {
                            let report = StepReport { notes: vec![note], ..StepReport::new(step, kind) };
                            JobReport { steps: vec![report], ..JobReport::default() }
                        }
                        Err(error) => JobReport { error: Some(error), ..JobReport::default() },
                    }
                };
                self.spawn(task, Purpose::Work, work, token, None);
            }
        }
    }

    /// The actions of a task that have not come to their end.
    fn open_actions(&self, task: usize) -> Vec<StepName> {
        let open = |step: &&StepName| self.steps.get(*step).is_some_and(|report| !is_final(report.state));
        self.plan.tasks[task].actions().iter().filter(open).cloned().collect()
    }

    fn job(&self, task: usize, attempt: u32, phase: JobPhase) -> JobSpec {
        let (steps, shared) = match &self.plan.tasks[task].kind {
            // Only what is still open: a load that is committed must not be in the hands of whoever aborts.
            TaskKind::Stage(group) => (self.open_actions(task), group.shared.clone()),
            TaskKind::Command(_) | TaskKind::WaitFor(_) => (Vec::new(), Vec::new()),
        };
        let loads: Vec<(&StepName, &TakenLoad)> =
            steps.iter().filter_map(|step| self.loads.get_key_value(step)).collect();
        let cursors = steps.iter().filter_map(|step| {
            let extracts = self.dag.cursors(&self.spec, step.as_str());
            (loads.iter().any(|(load, _)| *load == step) && !extracts.is_empty()).then(|| (step.clone(), extracts))
        });
        let cursors = cursors.collect();
        JobSpec {
            run: self.id.clone(),
            pipeline: self.spec.clone(),
            resumed: loads.iter().filter(|(_, load)| load.resumed).map(|(step, _)| (*step).clone()).collect(),
            loads: loads.into_iter().map(|(step, load)| (step.clone(), load.key.clone())).collect(),
            steps,
            shared,
            interval: self.request.interval,
            context: self.context.clone(),
            attempt,
            phase,
            full_refresh: self.request.full_refresh,
            cursors,
        }
    }

    /// Lets the runner do some jobs, one after the other, as long as they go well; answers with the last report.
    fn spawn_job(
        &mut self,
        task: usize,
        purpose: Purpose,
        jobs: Vec<JobSpec>,
        token: CancellationToken,
        limit: Option<Duration>,
    ) {
        let runner = Arc::clone(&self.driver.runner);
        let events = self.forward();
        let cancel = token.clone();
        let work = async move {
            let mut last = JobReport::default();
            for job in jobs {
                let report = runner.run(job, events.clone(), cancel.clone()).await;
                let failed = report.error.is_some();
                last = report;
                if failed {
                    break;
                }
            }
            last
        };
        self.spawn(task, purpose, work, token, limit);
    }

    fn spawn(
        &mut self,
        task: usize,
        purpose: Purpose,
        work: impl Future<Output = JobReport> + Send + 'static,
        token: CancellationToken,
        limit: Option<Duration>,
    ) {
        let what =
            self.plan.tasks[task].actions().iter().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", ");
        self.jobs.spawn(async move { Ended { task, purpose, report: limited(work, &token, limit, &what).await } });
    }

    /// The events of a runner go on to the caller, except that an action is finished only when the driver says so: for
    /// the runner it is, once its rows are staged.
    fn forward(&self) -> EventSink {
        let events = self.driver.events.clone();
        let actions: BTreeSet<StepName> =
            self.plan.tasks.iter().flat_map(|task| task.actions().iter().cloned()).collect();
        let begun: Mutex<BTreeSet<StepName>> = Mutex::new(BTreeSet::new());
        EventSink::new(move |event| {
            match &event {
                RunEvent::StepFinished { report, .. } if actions.contains(&report.step) => return,
                RunEvent::StepStarted { step, rows, .. } => {
                    let again = !begun.lock().unwrap_or_else(PoisonError::into_inner).insert(step.clone());
                    if (again || actions.contains(step)) && rows.is_none() {
                        return;
                    }
                }
                RunEvent::RunStarted { .. } => return,
                _ => {}
            }
            events.send(event);
        })
    }
}

fn is_final(state: StepState) -> bool {
    !matches!(state, StepState::Pending | StepState::Running | StepState::Staged)
}

/// Runs something until it ends, at most so long. Panics become errors; what does not end after it was asked to is
/// dropped.
async fn limited(
    work: impl Future<Output = JobReport> + Send,
    token: &CancellationToken,
    limit: Option<Duration>,
    what: &str,
) -> JobReport {
    let work = AssertUnwindSafe(work).catch_unwind();
    let mut work = std::pin::pin!(work);
    let failed = |error: Error| JobReport { error: Some(error), ..JobReport::default() };
    let caught = |result: Result<JobReport, _>| match result {
        Ok(report) => report,
        Err(_) => failed(Error::internal(format!("the runner panicked at {what}"))),
    };
    let alarm = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let timed_out = tokio::select! {
        biased;
        report = &mut work => return caught(report),
        () = token.cancelled() => false,
        () = alarm => true,
    };
    token.cancel();
    let mut report = match tokio::time::timeout(GRACE, &mut work).await {
        Ok(report) => caught(report),
        Err(_) => failed(Error::new(ErrorKind::Canceled, format!("{what} did not end when asked to"))),
    };
    if let (true, Some(limit), Some(_)) = (timed_out, limit, &report.error) {
        let shown = gristmill_model::Duration(limit);
        report.error = Some(
            Error::new(ErrorKind::Timeout, format!("{what} took longer than {shown}"))
                .hint("raise `timeout:` of the step, or look why it is slow"),
        );
    }
    report
}

/// The steps of a task: a group is tried as often as the most patient of them asks, since they are one piece of work.
fn members<'s>(
    spec: &'s PipelineSpec,
    task: &'s crate::dag::Task,
) -> impl Iterator<Item = &'s gristmill_model::spec::Step> {
    task.actions().iter().chain(task.views()).filter_map(|name| spec.step(name.as_str()))
}

fn policy(spec: &PipelineSpec, task: &crate::dag::Task) -> Policy {
    let chosen = members(spec, task).max_by_key(|step| step.retries);
    chosen.map_or(Policy { retries: 0, retry_delay: 0 }, |step| Policy {
        retries: step.retries,
        retry_delay: u64::try_from(step.retry_delay.0.as_millis()).unwrap_or(u64::MAX),
    })
}

/// The shortest limit among the steps of a task. A wait has its own.
fn timeout(spec: &PipelineSpec, task: &crate::dag::Task) -> Option<Duration> {
    members(spec, task).filter_map(|step| step.timeout).map(|limit| limit.0).min()
}
