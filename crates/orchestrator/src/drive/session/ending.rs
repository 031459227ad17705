//! How tasks, steps and the run come to their end, and what is recorded and reported about them.

use super::super::state_of;
use super::{Progress, Session, is_final};
use crate::decide::TaskState;
use crate::{RunReport, RunState};
use chrono::Utc;
use gristmill_model::{Error, ErrorKind, Result, RunEvent, StepKind, StepName, StepReport, StepState};

impl Session<'_> {
    /// Brings a task, and with it its steps, to the end.
    pub(super) async fn settle(&mut self, task: usize, state: TaskState) {
        self.tasks[task].state = state;
        let error = self.tasks[task].error.clone();
        match state {
            TaskState::Failed => self.settle_failed(task, error.as_ref()),
            _ => {
                let ending = match state {
                    TaskState::Done => StepState::Success,
                    TaskState::UpstreamFailed => StepState::UpstreamFailed,
                    _ => StepState::Canceled,
                };
                for step in self.open_actions(task) {
                    self.finish(&step, ending, None);
                }
                self.settle_views(task, ending);
            }
        }
        let error = match state {
            TaskState::Canceled => Some(Error::new(ErrorKind::Canceled, "stopped")),
            _ => error.filter(|_| state == TaskState::Failed),
        };
        self.attempt_ended(task, error.as_ref()).await;
        self.record(task).await;
    }

    /// Who failed: the steps the runner says failed; where it says nothing, every action of the task. Actions above
    /// which a view failed are not to blame.
    pub(super) fn settle_failed(&mut self, task: usize, error: Option<&Error>) {
        let blamed = std::mem::take(&mut self.tasks[task].blamed);
        for step in self.open_actions(task) {
            let above = self.dag.upstream(step.as_str());
            if blamed.is_empty() || blamed.contains(&step) {
                let unsaid = self.steps.get(&step).is_some_and(|report| report.error.is_none());
                self.finish(&step, StepState::Failed, error.filter(|_| unsaid).cloned());
            } else if let Some(view) = blamed.iter().find(|view| above.contains(*view)) {
                self.add_note(&step, format!("not done, because `{view}` failed"));
                self.finish(&step, StepState::UpstreamFailed, None);
            } else {
                self.finish(&step, StepState::Canceled, None);
            }
        }
        for view in self.plan.tasks[task].views().iter().filter(|view| blamed.contains(view)) {
            if let Some(report) = self.steps.get_mut(view) {
                report.state = StepState::Failed;
                report.error = report.error.take().or_else(|| error.cloned());
            }
        }
        self.settle_views(task, StepState::Canceled);
        if let Some(error) = error {
            self.error.get_or_insert_with(|| error.clone());
        }
    }

    /// Whether what is staged is to be looked at rather than thrown away: a check has failed, of a step or of a target, and
    /// somebody will look for the reason. A project that was made for one command has nobody who would.
    pub(super) fn keeps(&self) -> bool {
        let refused = |task: &Progress| {
            task.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Check) || !task.kept.is_empty()
        };
        !self.driver.project.made && (!self.kept.is_empty() || self.tasks.iter().any(refused))
    }

    /// Leaves what a task has staged that is not going to be published to whoever wants to look at it, until the next run of the pipeline or a recovery
    /// finds the run's lock file, and throws it away like anything that a run has left. Answers which loads are left. A
    /// project that was made for one command has no next run.
    pub(super) async fn keep(&mut self, task: usize) -> Vec<StepName> {
        let kept = std::mem::take(&mut self.tasks[task].kept);
        if kept.is_empty() || self.driver.project.made {
            return Vec::new();
        }
        self.kept.extend(kept.iter().cloned());
        if let Err(error) = self.driver.store.kept(&self.id, &self.kept).await {
            self.written(Err(error));
            return Vec::new();
        }
        self.unclean = true;
        for load in &kept {
            let text = format!(
                "its rows are kept until the next run of the pipeline: gristmill sql --staged {}.{} \"SELECT * FROM staged\"",
                self.id, load.step
            );
            self.add_note(&load.step, text);
        }
        kept.into_iter().map(|load| load.step).collect()
    }

    /// Views end with the task that computed them. The runner has told about those it touched.
    pub(super) fn settle_views(&mut self, task: usize, ending: StepState) {
        for view in self.plan.tasks[task].views().to_vec() {
            if let Some(report) = self.steps.get_mut(&view)
                && !is_final(report.state)
            {
                report.state = ending;
            }
        }
    }

    /// Takes over what a runner says about a step. An action's state stays the driver's.
    pub(super) fn merge(&mut self, mut report: StepReport, attempt: u32) {
        let Some(known) = self.steps.get_mut(&report.step) else { return };
        report.attempts = attempt;
        report.kind = known.kind;
        if known.kind.is_action() {
            report.state = StepState::Running;
        }
        *known = report;
    }

    pub(super) fn merge_commit(&mut self, report: StepReport) {
        let Some(known) = self.steps.get_mut(&report.step) else { return };
        if known.kind != StepKind::Load {
            return;
        }
        known.error = report.error;
        known.rows_in = report.rows_in.or(known.rows_in);
        known.rows_out = report.rows_out.or(known.rows_out);
        if report.output.files > 0 {
            known.output = report.output;
        }
        known.rejects = known.rejects.max(report.rejects);
        for note in report.notes {
            if !known.notes.contains(&note) {
                known.notes.push(note);
            }
        }
    }

    pub(super) fn set(&mut self, step: &StepName, state: StepState) {
        if let Some(report) = self.steps.get_mut(step) {
            report.state = state;
        }
    }

    pub(super) fn add_note(&mut self, step: &StepName, text: String) {
        if let Some(report) = self.steps.get_mut(step) {
            report.notes.push(text);
        }
    }

    /// Brings a step to its end and tells it.
    pub(super) fn finish(&mut self, step: &StepName, state: StepState, error: Option<Error>) {
        let millis = self.began.get(step).map(|began| u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        let Some(report) = self.steps.get_mut(step) else { return };
        report.state = state;
        if let Some(millis) = millis {
            report.millis = millis;
        }
        if error.is_some() {
            report.error = error;
        } else if state != StepState::Failed {
            report.error = None;
        }
        let report = Box::new(report.clone());
        self.driver.events.send(RunEvent::StepFinished { report, at: Utc::now() });
    }

    pub(super) async fn attempt_began(&mut self, task: usize, attempt: u32) {
        if self.tasks[task].open == Some(attempt) {
            return;
        }
        self.tasks[task].open = Some(attempt);
        for step in self.open_actions(task) {
            if let Some(report) = self.steps.get_mut(&step) {
                report.state = StepState::Running;
                report.attempts = attempt;
            }
            let written = self.driver.store.attempt_began(&self.id, &step, attempt, Utc::now()).await;
            self.written(written);
        }
    }

    pub(super) async fn attempt_ended(&mut self, task: usize, error: Option<&Error>) {
        let Some(attempt) = self.tasks[task].open.take() else { return };
        for step in self.plan.tasks[task].actions().to_vec() {
            let written = self.driver.store.attempt_ended(&self.id, &step, attempt, Utc::now(), error).await;
            self.written(written);
        }
    }

    pub(super) async fn record(&mut self, task: usize) {
        let planned = &self.plan.tasks[task];
        let names = planned.views().iter().chain(planned.actions());
        let reports: Vec<StepReport> = names.filter_map(|step| self.steps.get(step).cloned()).collect();
        let written = self.driver.store.steps_changed(&self.id, &reports).await;
        self.written(written);
    }

    /// A run whose states cannot be recorded must not go on: it would publish what nobody can recover.
    pub(super) fn written(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.broken = true;
            self.error.get_or_insert(error);
        }
    }

    pub(super) fn report(mut self) -> RunReport {
        self.jobs.abort_all();
        let order: Vec<StepName> = self.dag.order().into_iter().cloned().collect();
        let steps: Vec<StepReport> = order.iter().filter_map(|step| self.steps.remove(step)).collect();
        let failed = self.error.is_some() || steps.iter().any(|step| step.state == StepState::Failed);
        let canceled = steps.iter().any(|step| step.state == StepState::Canceled);
        let state = state_of(failed, canceled);
        let error = match state {
            RunState::Canceled => Some(Error::new(ErrorKind::Canceled, "the run was stopped")),
            RunState::Failed => self.error.or_else(|| steps.iter().find_map(|step| step.error.clone())),
            RunState::Running | RunState::Success => None,
        };
        RunReport {
            run: self.id,
            pipeline: self.spec.name,
            profile: self.driver.project.spec.profile.clone(),
            interval: self.request.interval,
            state,
            steps,
            millis: 0,
            peak_memory: self.peak_memory,
            error,
            notes: self.notes,
            awaited: Vec::new(),
        }
    }
}
