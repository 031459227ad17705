//! What jobs have answered, and what comes of it for their tasks.

use super::{Ended, Purpose, Session};
use crate::decide::{Phase, TaskState, worth_retrying};
use gristmill_model::spec::StepBody;
use gristmill_model::{
    Error, ErrorKind, JobReport, LoadKey, LoadReport, Result, StepKind, StepName, StepReport, StepState,
};

impl Session<'_> {
    pub(super) async fn ended(&mut self, ended: Ended) {
        let Ended { task, purpose, report } = ended;
        self.peak_memory = self.peak_memory.max(report.peak_memory);
        self.notes.extend(report.notes.iter().cloned());
        match purpose {
            Purpose::Work => self.work_ended(task, report).await,
            Purpose::Commit => self.commit_ended(task, report).await,
            Purpose::Abort { failed } => {
                self.unclean |= report.error.is_some();
                self.tasks[task].kept.extend(report.kept);
                self.keep(task).await;
                // A server that was away when the work failed is still away: that needs no saying twice.
                let known = self.tasks[task].error.as_ref().map(Error::message);
                if let Some(error) = report.error.filter(|error| known != Some(error.message())) {
                    for step in self.open_actions(task) {
                        let text = format!("what was staged could not be thrown away: {error}");
                        self.add_note(&step, text);
                    }
                }
                self.settle(task, if failed { TaskState::Failed } else { TaskState::Canceled }).await;
            }
        }
    }

    async fn work_ended(&mut self, task: usize, report: JobReport) {
        let TaskState::Running { attempt, interrupted, .. } = self.tasks[task].state else { return };
        let JobReport { steps, staged, kept, error, .. } = report;
        let skipped: Vec<StepName> =
            steps.iter().filter(|step| step.state == StepState::Skipped).map(|step| step.step.clone()).collect();
        self.tasks[task].blamed = blamed(&steps);
        for step in steps {
            self.merge(step, attempt);
        }
        let mut error = error;
        for load in &staged {
            if let Err(moved) = self.moved(&load.step, &load.key).await {
                error.get_or_insert(moved);
            }
        }
        for load in &kept {
            let moved = self.moved(&load.step, &load.key).await;
            self.written(moved);
        }
        self.tasks[task].staged = staged;
        self.tasks[task].kept = kept;
        if error.is_none() {
            error = self.unanswered(task, &skipped);
        }
        let canceled = error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Canceled);
        let stopped = interrupted || (canceled && self.driver.options.cancel.is_cancelled());
        match error {
            Some(_) if stopped => self.tasks[task].state = TaskState::Interrupted,
            Some(error) => self.broke(task, Phase::Work, attempt, error).await,
            None => {
                for step in skipped {
                    self.finish(&step, StepState::Skipped, None);
                }
                if self.tasks[task].staged.is_empty() {
                    self.settle(task, TaskState::Done).await;
                } else {
                    self.tasks[task].state = TaskState::Staged { attempt };
                    for step in self.open_actions(task) {
                        match self.dag.kind(step.as_str()) {
                            Some(StepKind::Load) => self.set(&step, StepState::Staged),
                            _ => self.finish(&step, StepState::Success, None),
                        }
                    }
                    self.record(task).await;
                }
            }
        }
    }

    /// A load for which the runner gave neither staged rows nor a reason not to.
    fn unanswered(&self, task: usize, skipped: &[StepName]) -> Option<Error> {
        let staged = &self.tasks[task].staged;
        let load = self.plan.tasks[task].actions().iter().find(|step| {
            self.dag.kind(step.as_str()) == Some(StepKind::Load)
                && !skipped.contains(step)
                && !staged.iter().any(|load| load.step == **step)
        })?;
        Some(Error::internal(format!("the runner ended without an answer for the load `{load}`")))
    }

    /// Follows the runner where it went to a later generation, since the target's ledger was ahead of the store.
    async fn moved(&mut self, step: &StepName, key: &LoadKey) -> Result<()> {
        let Some(taken) = self.loads.get_mut(step) else {
            return Err(Error::internal(format!("the runner staged `{step}`, which is not a load of this run")));
        };
        if taken.key != *key {
            self.driver.store.generation_moved(&self.id, &taken.key, key).await?;
            taken.key = key.clone();
        }
        Ok(())
    }

    async fn commit_ended(&mut self, task: usize, report: JobReport) {
        let TaskState::Running { attempt, .. } = self.tasks[task].state else { return };
        let JobReport { steps, committed, error, .. } = report;
        self.tasks[task].blamed = blamed(&steps);
        for step in steps {
            self.merge_commit(step);
        }
        let mut error = error;
        for (step, committed) in committed {
            // Only what is recorded counts as done. Otherwise it is committed again, which the target takes as a no-op.
            if let Err(unrecorded) = self.driver.store.committed(&self.id, &committed).await {
                error.get_or_insert(unrecorded);
                continue;
            }
            self.tasks[task].staged.retain(|load| load.step != step);
            let strategy = self.spec.step(step.as_str()).and_then(|step| match &step.body {
                StepBody::Load(load) => Some(load.strategy),
                _ => None,
            });
            if let Some(report) = self.steps.get_mut(&step) {
                report.load = strategy.map(|strategy| LoadReport::new(&committed, strategy));
                report.rows_out = report.rows_out.or(Some(committed.rows));
                if report.output.files == 0 && committed.files > 0 {
                    report.output.files = committed.files;
                    report.output.bytes = committed.bytes;
                }
                if committed.already && !report.notes.iter().any(|note| note.contains("already")) {
                    report.notes.push(format!("the target held `{}` already; nothing was written", committed.key));
                }
            }
            self.finish(&step, StepState::Success, None);
        }
        if error.is_none()
            && let Some(load) = self.tasks[task].staged.first()
        {
            error =
                Some(Error::internal(format!("the runner ended without an answer for the commit of `{}`", load.step)));
        }
        match error {
            Some(error) => self.broke(task, Phase::Commit, attempt, error).await,
            None => self.settle(task, TaskState::Done).await,
        }
    }

    async fn broke(&mut self, task: usize, phase: Phase, attempt: u32, error: Error) {
        let again = worth_retrying(&error);
        self.attempt_ended(task, Some(&error)).await;
        self.tasks[task].error = Some(error);
        let failures = self.tasks[task].failures + 1;
        self.tasks[task].state = TaskState::Broke { phase, attempt, failures, again };
    }
}

fn blamed(steps: &[StepReport]) -> Vec<StepName> {
    steps.iter().filter(|step| step.state == StepState::Failed).map(|step| step.step.clone()).collect()
}
