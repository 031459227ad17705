//! A run that fails because nobody could say which tables it is about: recorded like any other, so that `show` tells it.

use super::{Driver, RunRequest, state_of};
use crate::RunReport;
use crate::dag::Dag;
use chrono::Utc;
use gristmill_model::spec::PipelineSpec;
use gristmill_model::yaml::to_error;
use gristmill_model::{Error, ErrorKind, Result, RunEvent, RunId, StepName, StepReport, StepState, TemplateContext};
use tokio::time::Instant;

/// Such a run, as far as it is known.
pub(super) struct Unasked {
    pub(super) id: RunId,
    /// Not spread.
    pub(super) spec: PipelineSpec,
    pub(super) context: TemplateContext,
    /// The extract of many tables.
    pub(super) step: StepName,
    /// What its connection said.
    pub(super) error: Error,
}

impl Driver {
    /// Records the run and that it failed. It takes no loads: which there would be, nobody knows.
    ///
    /// # Errors
    /// As [`Driver::run`].
    pub(super) async fn fail(&self, request: &RunRequest, unasked: Unasked, started: Instant) -> Result<RunReport> {
        let Unasked { id, spec, context, step, error } = unasked;
        let dag = Dag::new(&spec).map_err(|mistakes| to_error(&mistakes))?;
        let selection = request.selection.as_ref().map(|step| StepName::from(step.written()));
        let plan = dag.plan(selection.as_ref())?;
        let involved = |name: &StepName| {
            plan.tasks.iter().any(|task| task.actions().iter().chain(task.views()).any(|known| known == name))
        };
        let mut reports = Vec::new();
        for name in dag.order().into_iter().filter(|name| involved(name)) {
            let Some(kind) = dag.kind(name.as_str()) else { continue };
            let mut report = StepReport::new(name.clone(), kind);
            report.state = StepState::Canceled;
            if *name == step {
                let is_stopped = error.kind() == ErrorKind::Canceled;
                report.state = if is_stopped { StepState::Canceled } else { StepState::Failed };
                report.error = Some(error.clone());
            } else if dag.upstream(name.as_str()).contains(&step) {
                report.state = StepState::UpstreamFailed;
            }
            reports.push(report);
        }
        let steps = reports.iter().map(|report| (report.step.clone(), report.kind)).collect();
        let run = self.new_run(&id, &spec, &context, request, steps, Vec::new());
        let (lock, _, recovered) = self.record(&run, request).await?;
        self.events.send(RunEvent::RunStarted {
            run: id.clone(),
            pipeline: request.pipeline.to_string(),
            interval: request.interval,
        });
        for report in &reports {
            let report = Box::new(report.clone());
            self.events.send(RunEvent::StepFinished { report, at: Utc::now() });
        }
        let canceled = error.kind() == ErrorKind::Canceled;
        let mut report = RunReport {
            run: id,
            pipeline: spec.name,
            profile: run.profile,
            interval: request.interval,
            state: state_of(!canceled, canceled),
            steps: reports,
            millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            peak_memory: None,
            error: Some(error),
            notes: recovered.notes,
            awaited: Vec::new(),
        };
        if let Err(error) = self.store.steps_changed(&report.run, &report.steps).await {
            report.notes.push(format!("how its steps ended could not be recorded: {error}"));
        }
        if let Err(error) = self.store.end(&report, Utc::now()).await {
            report.notes.push(format!("how the run ended could not be recorded: {error}"));
        }
        drop(lock);
        Ok(report)
    }
}
