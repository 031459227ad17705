//! Which tables an extract of many takes: asked before the run is planned, since each of them becomes steps of its own.
//!
//! The graph is made of names alone, so it cannot ask; and an answer that came later would change the graph of a run that is
//! going on. So the driver (and `plan`) asks the runner first, which knows the connections, and plans what it says.

use crate::Project;
use crate::dag::{Dag, many, spread};
use crate::decide::{backoff, worth_retrying};
use gristmill_model::spec::{PipelineSpec, Step};
use gristmill_model::yaml::to_error;
use gristmill_model::{
    CancellationToken, ConnectionName, Error, ErrorKind, EventSink, Interval, JobPhase, JobRunner, JobSpec, Result,
    RunEvent, RunId, StepName, TemplateContext,
};
use std::time::Duration;

/// Puts one step for each table in place of each step of a pipeline that stands for many.
#[derive(Debug, Clone, Copy)]
pub struct Spreading<'a> {
    /// The project.
    pub project: &'a Project,
    /// Who knows the connections.
    pub runner: &'a dyn JobRunner,
    /// The run this is for.
    pub run: &'a RunId,
    /// The interval it is for.
    pub interval: Interval,
    /// The values the pipeline was rendered with.
    pub context: &'a TemplateContext,
    /// Only this action and what it needs: tables of other steps are not asked for.
    pub selection: Option<&'a StepName>,
}

/// Why there is no step for each table.
pub(super) struct Unspread {
    /// The extract whose connection could not say; none for a mistake of the pipeline's.
    pub(super) asked: Option<StepName>,
    pub(super) error: Error,
}

impl From<Error> for Unspread {
    fn from(error: Error) -> Self {
        Self { asked: None, error }
    }
}

impl Spreading<'_> {
    /// Asks for the tables and spreads the steps. A question that fails for a passing reason is asked again as often as the
    /// extract's `retries` say.
    ///
    /// # Errors
    /// A connection that cannot be asked or has no tables; a pattern that takes nothing; two tables with one target.
    pub async fn spread(
        &self,
        spec: PipelineSpec,
        events: &EventSink,
        cancel: &CancellationToken,
    ) -> Result<PipelineSpec> {
        self.try_spread(spec, events, cancel).await.map_err(|unspread| unspread.error)
    }

    /// As [`Spreading::spread`], and says which question failed.
    pub(super) async fn try_spread(
        &self,
        spec: PipelineSpec,
        events: &EventSink,
        cancel: &CancellationToken,
    ) -> Result<PipelineSpec, Unspread> {
        if many(&spec).next().is_none() {
            return Ok(spec);
        }
        let dag = Dag::new(&spec).map_err(|mistakes| to_error(&mistakes))?;
        let selection = self.selection.map(|step| StepName::from(step.written()));
        let plan = dag.plan(selection.as_ref())?;
        let is_read = |step: &&Step| plan.tasks.iter().any(|task| task.views().contains(&step.name));
        let mut found = Vec::new();
        for step in many(&spec).filter(is_read) {
            let asked = self.ask(&spec, step, events, cancel).await;
            // A mistake in the pipeline keeps a run from beginning; a system that does not answer makes it fail.
            found.extend(asked.map_err(|error| {
                let is_mistake = matches!(error.kind(), ErrorKind::Config | ErrorKind::Usage);
                Unspread { asked: (!is_mistake).then(|| step.name.clone()), error }
            })?);
        }
        Ok(spread(spec, &found, self.context, &|connection| self.folds(connection))?)
    }

    async fn ask(
        &self,
        spec: &PipelineSpec,
        step: &Step,
        events: &EventSink,
        cancel: &CancellationToken,
    ) -> Result<Vec<(StepName, Vec<gristmill_model::spec::FoundTable>)>> {
        let mut failures = 0;
        loop {
            let job = JobSpec {
                run: self.run.clone(),
                pipeline: spec.clone(),
                steps: vec![step.name.clone()],
                shared: Vec::new(),
                loads: Vec::new(),
                resumed: Vec::new(),
                interval: self.interval,
                context: self.context.clone(),
                attempt: failures + 1,
                phase: JobPhase::Tables,
                full_refresh: false,
                cursors: Vec::new(),
            };
            let report = self.runner.run(job, EventSink::none(), cancel.clone()).await;
            let Some(error) = report.error else { return Ok(report.tables) };
            failures += 1;
            if failures > step.retries || !worth_retrying(&error) || cancel.is_cancelled() {
                return Err(error);
            }
            let delay = u64::try_from(step.retry_delay.0.as_millis()).unwrap_or(u64::MAX);
            let wait_millis = backoff(delay, failures, rand::random());
            events.send(RunEvent::Retry { step: step.name.clone(), attempt: failures, wait_millis, error });
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_millis)) => {}
                () = cancel.cancelled() => return Err(Error::new(ErrorKind::Canceled, "stopped before the run began")),
            }
        }
    }

    /// Whether names of tables there differ in more than upper and lower case.
    fn folds(&self, connection: &ConnectionName) -> bool {
        let kind = self.project.connections.get(connection).and_then(|node| node.get("type"));
        kind.and_then(|kind| kind.text()).is_some_and(|kind| matches!(kind, "sqlite" | "mysql" | "mariadb"))
    }
}
