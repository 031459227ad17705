//! `wait_for`: pipelines of the project that must have succeeded first.

use super::{Chain, Driver, Prepared, RunRequest, blocking, wait_steps};
use crate::store::RunFilter;
use crate::{RunReport, RunState};
use gristmill_model::spec::{StepBody, WaitForSpec};
use gristmill_model::{
    CancellationToken, Error, ErrorKind, Interval, PipelineName, Result, ResultExt, RunId, StepName, StepState,
};
use tokio::time::Instant;

/// A `wait_for` step, understood.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    pub(super) step: StepName,
    pub(super) spec: WaitForSpec,
    /// The interval of the awaited run.
    pub(super) interval: Interval,
    /// The steps that must have succeeded.
    pub(super) wanted: Vec<StepName>,
}

/// What became of a wait before the tasks of the run began.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The awaited run had succeeded before.
    Satisfied,
    /// It was run first, in this process, and succeeded.
    Ran(RunId),
    /// Another process runs it: look again until it has ended.
    Elsewhere,
    /// It was run first and did not succeed, or could not be run.
    Failed(Error),
}

impl Driver {
    /// The waits of a run, each checked: the pipeline and step are there, and nobody waits in a circle.
    pub(super) async fn waits(&self, prepared: &Prepared, interval: Interval, here: &Chain<'_>) -> Result<Vec<Wait>> {
        let mut waits = Vec::new();
        for name in wait_steps(&prepared.plan) {
            let Some(StepBody::WaitFor(spec)) = prepared.spec.step(name.as_str()).map(|step| &step.body) else {
                continue;
            };
            let at = spec.date.map_or(interval, Interval::day);
            if here.contains(&spec.pipeline, at) {
                let mut names = here.names();
                names.push(format!("{} ({at})", spec.pipeline));
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("pipelines wait for each other: {}", names.join(" → ")),
                )
                .hint("take one of the `wait_for` steps out"));
            }
            let wanted = self.wanted(&spec.pipeline, spec.step.as_ref(), &prepared.id, at).await;
            let wanted = wanted.context(|| format!("step `{name}`"))?;
            waits.push(Wait { step: name.clone(), spec: spec.clone(), interval: at, wanted });
        }
        Ok(waits)
    }

    /// The steps of an awaited pipeline that must have succeeded: the one named, or every action.
    async fn wanted(
        &self,
        pipeline: &PipelineName,
        step: Option<&StepName>,
        run: &RunId,
        interval: Interval,
    ) -> Result<Vec<StepName>> {
        let (spec, _) = self.render(pipeline, run, interval, &std::collections::BTreeMap::new()).await?;
        let Some(step) = step else {
            let actions = spec.steps.into_iter().filter(|step| step.body.kind().is_action());
            return Ok(actions.map(|step| step.name).collect());
        };
        if spec.step(step.written()).is_none() {
            let names = spec.steps.iter().map(|step| step.name.as_str());
            return Err(Error::new(ErrorKind::Config, format!("`{pipeline}` has no step `{step}`"))
                .hint(gristmill_model::one_of(step.as_str(), names)));
        }
        Ok(vec![step.clone()])
    }

    /// Runs an awaited pipeline unless it has succeeded.
    pub(super) async fn run_awaited(&self, wait: &Wait, here: &Chain<'_>, awaited: &mut Vec<RunReport>) -> Outcome {
        match self.satisfied(wait).await {
            Ok(true) => return Outcome::Satisfied,
            Ok(false) => {}
            Err(error) => return Outcome::Failed(error),
        }
        let pipeline = &wait.spec.pipeline;
        let request = RunRequest::new(pipeline.clone(), wait.interval);
        match self.run_below(&request, Some(here)).await {
            Ok(report) => {
                let outcome = if report.succeeded() {
                    Outcome::Ran(report.run.clone())
                } else {
                    let why = report.error.as_ref().map(Error::message).unwrap_or("it was stopped");
                    let kind = report.error.as_ref().map_or(ErrorKind::Canceled, Error::kind);
                    Outcome::Failed(
                        Error::new(
                            kind,
                            format!("the awaited pipeline `{pipeline}` ({}) did not succeed", wait.interval),
                        )
                        .cause(why)
                        .hint(format!("`gristmill show {}` says more", report.run))
                        .retryable(false),
                    )
                };
                awaited.push(report);
                outcome
            }
            Err(error) if error.kind() == ErrorKind::Conflict => Outcome::Elsewhere,
            Err(error) => {
                Outcome::Failed(error.context(format!("the awaited pipeline `{pipeline}` ({})", wait.interval)))
            }
        }
    }

    /// Whether the newest word on each wanted step is that it succeeded.
    async fn satisfied(&self, wait: &Wait) -> Result<bool> {
        let runs = self.store.runs(&self.awaited_runs(wait)).await?;
        let mut open: Vec<&StepName> = wait.wanted.iter().collect();
        for run in runs {
            if open.is_empty() {
                break;
            }
            let records = self.store.steps(&run.id).await?;
            let mut said = Vec::new();
            for step in &open {
                // A step that was written for many tables is done when all of them are.
                let own =
                    records.iter().filter(|record| record.step == **step || record.step.written() == step.as_str());
                let states: Vec<StepState> = own.map(|record| record.state).collect();
                // A step that was selected out of a run, or that the run never came to, says nothing.
                let told = |state: &&StepState| **state != StepState::Pending;
                if states.iter().filter(told).any(|state| !matches!(state, StepState::Success | StepState::Skipped)) {
                    return Ok(false);
                }
                if !states.is_empty() && states.iter().all(|state| told(&state)) {
                    said.push(*step);
                }
            }
            open.retain(|step| !said.contains(step));
        }
        Ok(open.is_empty())
    }

    fn awaited_runs(&self, wait: &Wait) -> RunFilter {
        RunFilter {
            pipeline: Some(wait.spec.pipeline.clone()),
            profile: Some(self.project.spec.profile.clone()),
            interval: Some(wait.interval),
            ..RunFilter::default()
        }
    }

    /// The task of a `wait_for` step: what it noted, or why it failed.
    pub(super) async fn wait(
        &self,
        wait: &Wait,
        outcome: Outcome,
        attempt: u32,
        cancel: &CancellationToken,
    ) -> Result<String> {
        let what = format!("`{}` ({})", wait.spec.pipeline, wait.interval);
        let before = match outcome {
            Outcome::Satisfied => return Ok(format!("{what} had succeeded before")),
            Outcome::Ran(run) => return Ok(format!("{what} was run first, as run `{run}`")),
            // A retry looks whether somebody has run it meanwhile.
            Outcome::Failed(error) if attempt == 1 => return Err(error),
            Outcome::Failed(error) => Some(error),
            Outcome::Elsewhere => None,
        };
        let began = Instant::now();
        let limit = wait.spec.timeout.0;
        loop {
            // In this order: a run that ends between the two looks is found by the next round's first.
            let going_on = self.going_on(wait).await?;
            if self.satisfied(wait).await? {
                return Ok(format!("{what} has succeeded in another process"));
            }
            let Some(run) = going_on else {
                // What kept it from succeeding says more than that it has not.
                if let Some(error) = before {
                    return Err(error);
                }
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("{what} has not succeeded, and no run of it is going on"),
                )
                .hint(format!("`gristmill runs --pipeline {}` shows what became of it", wait.spec.pipeline)));
            };
            if began.elapsed() >= limit {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("waited {} for {what}, and its run `{run}` is still going on", wait.spec.timeout),
                )
                .hint("give the step a longer `timeout` under `wait_for`"));
            }
            let pause = wait.spec.poke_interval.0.min(limit.saturating_sub(began.elapsed()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return Err(Error::new(ErrorKind::Canceled, "the wait was stopped")),
            }
        }
    }

    /// The run of the awaited pipeline that is going on in a living process.
    async fn going_on(&self, wait: &Wait) -> Result<Option<RunId>> {
        let filter = RunFilter { state: Some(RunState::Running), ..self.awaited_runs(wait) };
        for run in self.store.runs(&filter).await? {
            let (owners, id) = (self.owners(), run.id.clone());
            if !blocking(move || owners.is_dead(&id)).await? {
                return Ok(Some(run.id));
            }
        }
        Ok(None)
    }
}
