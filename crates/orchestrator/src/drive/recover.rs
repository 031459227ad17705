//! What dead runs left behind.

use super::{Driver, blocking};
use crate::RunState;
use crate::store::{LoadRecord, RunFilter, RunRecord};
use chrono::Utc;
use gristmill_model::spec::StepBody;
use gristmill_model::{EventSink, JobPhase, JobSpec, Result, RunId};
use std::collections::BTreeMap;

/// What [`Driver::recover`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Runs that were recorded as running and whose process is dead.
    pub dead: Vec<RunId>,
    /// What was finished, undone and swept away, and what could not be.
    pub notes: Vec<String>,
}

impl Driver {
    /// Marks runs whose process died as failed and lets the runner finish or undo what they left in their targets.
    /// Every run does this for the newly dead before it begins; `thorough` looks at every unfinished load of every
    /// ended run again.
    ///
    /// A generation that was not committed stays with its slot: the next run of the slot resumes it.
    ///
    /// # Errors
    /// A store that cannot be read or written. A target that cannot be recovered just now is a note.
    pub async fn recover(&self, thorough: bool) -> Result<Recovered> {
        let _start = self.start().await?;
        let mut recovered = self.recover_dead().await?;
        if thorough {
            let mut left: BTreeMap<RunId, Vec<LoadRecord>> = BTreeMap::new();
            for load in self.store.unfinished(None).await? {
                if !recovered.dead.contains(&load.run) {
                    left.entry(load.run.clone()).or_default().push(load);
                }
            }
            for (run, loads) in left {
                if let Some(run) = self.store.run(&run).await? {
                    self.clean_up(&run, &loads, &mut recovered.notes).await;
                }
            }
        }
        Ok(recovered)
    }

    /// Must be called under the start lock: between a look at the owners and the mark no run may begin.
    pub(super) async fn recover_dead(&self) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        let running = RunFilter { state: Some(RunState::Running), ..RunFilter::default() };
        for run in self.store.runs(&running).await? {
            let (owners, id) = (self.owners(), run.id.clone());
            if !blocking(move || owners.is_dead(&id)).await? || !self.store.crashed(&run.id, Utc::now()).await? {
                continue;
            }
            let note =
                format!("run `{}` of `{}` ({}) had died; it is marked as failed", run.id, run.pipeline, run.interval);
            self.note(None, &note);
            recovered.notes.push(note);
            recovered.dead.push(run.id.clone());
            let loads = self.store.unfinished(Some(&run.id)).await?;
            self.clean_up(&run, &loads, &mut recovered.notes).await;
            let (owners, id) = (self.owners(), run.id.clone());
            blocking(move || {
                owners.forget(&id);
                Ok(())
            })
            .await?;
        }
        Ok(recovered)
    }

    /// Lets the runner look at the targets of a dead run. What goes wrong is a note: the run that is about to begin
    /// may not need those targets, and a later recovery tries again.
    async fn clean_up(&self, run: &RunRecord, loads: &[LoadRecord], notes: &mut Vec<String>) {
        let mut add = |text: String| {
            self.note(None, &text);
            notes.push(text);
        };
        if loads.is_empty() {
            return;
        }
        if run.profile != self.project.spec.profile {
            let how = run.profile.as_ref().map_or_else(
                || "`gristmill recover` without a profile".to_owned(),
                |profile| format!("`gristmill recover --profile {profile}`"),
            );
            add(format!("run `{}` left unfinished loads under another profile; {how} cleans up after it", run.id));
            return;
        }
        let rendered = self.render(&run.pipeline, &run.id, run.interval, &run.params).await;
        let (pipeline, context) = match rendered {
            Ok(rendered) => rendered,
            Err(error) => {
                add(format!(
                    "what run `{}` left cannot be looked at, since its pipeline cannot be read: {error}",
                    run.id
                ));
                return;
            }
        };
        let loads: Vec<_> = loads
            .iter()
            .map(|load| (load.key.slot.step.clone(), load.key.clone()))
            .filter(|(step, _)| pipeline.step(step.as_str()).is_some_and(|step| matches!(step.body, StepBody::Load(_))))
            .collect();
        if loads.is_empty() {
            return;
        }
        let job = JobSpec {
            run: run.id.clone(),
            steps: loads.iter().map(|(step, _)| step.clone()).collect(),
            shared: Vec::new(),
            resumed: loads.iter().map(|(step, _)| step.clone()).collect(),
            loads,
            interval: run.interval,
            context,
            attempt: 1,
            phase: JobPhase::Recover { dead: vec![run.id.clone()] },
            full_refresh: false,
            memory: self.memory(),
            pipeline,
        };
        // The notes are in the report; as events they would be told twice.
        let report = self.runner.run(job, EventSink::none(), self.options.cancel.clone()).await;
        report.notes.into_iter().for_each(&mut add);
        for step in report.steps {
            step.notes.into_iter().for_each(|note| add(format!("`{}`: {note}", step.step)));
        }
        if let Some(error) = report.error {
            add(format!("what run `{}` left could not be cleaned up: {error}", run.id));
        }
    }
}
