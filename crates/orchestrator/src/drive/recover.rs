//! What dead runs left behind.

use super::{Driver, ONE_LINE, blocking, slot};
use crate::RunState;
use crate::store::{LoadRecord, RunFilter, RunRecord};
use chrono::Utc;
use gristmill_model::spec::{LoadSpec, PipelineSpec, StepBody, Strategy};
use gristmill_model::{
    Committed, Error, ErrorKind, EventSink, Interval, JobPhase, JobReport, JobSpec, LoadReport, Result, RunId,
    StepKind, StepName, StepReport, StepState, TemplateContext,
};
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
    /// A load whose publishing was decided is published, so that the loads of one run do not disagree; it is left for
    /// a later recovery where its target cannot be reached just now. Any other generation that was not committed stays
    /// with its slot: the next run of the slot resumes it.
    ///
    /// # Errors
    /// A store that cannot be read or written. A target that cannot be recovered just now is a note.
    pub async fn recover(&self, thorough: bool) -> Result<Recovered> {
        let _start = self.start().await?;
        let mut recovered = self.recover_dead(None).await?;
        if thorough {
            let mut left: BTreeMap<RunId, Vec<LoadRecord>> = BTreeMap::new();
            for load in self.store.unfinished(None).await? {
                if !recovered.dead.contains(&load.run) {
                    left.entry(load.run.clone()).or_default().push(load);
                }
            }
            for (run, loads) in left {
                if let Some(run) = self.store.run(&run).await?
                    && !self.is_of_others(&run, None).await?
                {
                    self.clean_up(&run, &loads, &mut recovered.notes).await;
                }
            }
        }
        Ok(recovered)
    }

    /// Must be called under the start lock: between a look at the owners and the mark no run may begin. `beginning` is
    /// the interval of the run that is about to begin, if one is.
    pub(super) async fn recover_dead(&self, beginning: Option<&Interval>) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        let running = RunFilter { state: Some(RunState::Running), ..RunFilter::default() };
        for run in self.store.runs(&running).await? {
            let (owners, id) = (self.owners(), run.id.clone());
            if self.is_of_others(&run, beginning).await? || !blocking(move || owners.is_dead(&id)).await? {
                continue;
            }
            if !self.store.crashed(&run.id, Utc::now()).await? {
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

    /// Whether a run is to be recovered by somebody else: one of another profile, whose connections this driver does not
    /// have, or of a pipeline this project does not have, or, in a project that was made for one command, of another
    /// command's pipeline of the same name.
    async fn is_of_others(&self, run: &RunRecord, beginning: Option<&Interval>) -> Result<bool> {
        if run.profile != self.project.spec.profile {
            return Ok(true);
        }
        if !self.project.made {
            let known = self.project.pipelines().iter().any(|draft| draft.name == run.pipeline);
            return Ok(run.pipeline.as_str() == ONE_LINE && !known);
        }
        if beginning == Some(&run.interval) && self.project.pipeline(run.pipeline.as_str()).is_ok() {
            return Ok(false);
        }
        let Ok((pipeline, _)) = self.render(&run.pipeline, &run.id, run.interval, &run.params).await else {
            return Ok(true);
        };
        for (step, load) in load_steps(&pipeline) {
            let taken = self.store.loads(&slot(&pipeline, step, load, run.interval)).await?;
            if taken.iter().any(|load| load.run == run.id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finishes or undoes the loads of a dead run. What goes wrong is a note: the run that is about to begin may not
    /// need those targets, and a later recovery tries again.
    async fn clean_up(&self, run: &RunRecord, loads: &[LoadRecord], notes: &mut Vec<String>) {
        let mut add = |text: String| {
            self.note(None, &text);
            notes.push(text);
        };
        if loads.is_empty() {
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
        let left = Left { driver: self, run, pipeline: &pipeline, context: &context };
        let mut later = Vec::new();
        let mut sweep: Vec<&LoadRecord> = Vec::new();
        for load in loads {
            let step = &load.key.slot.step;
            let now = pipeline.step(step.as_str()).and_then(|step| match &step.body {
                StepBody::Load(load) => Some(load),
                _ => None,
            });
            let Some(now) = now.filter(|now| slot(&pipeline, step, now, run.interval) == load.key.slot) else {
                if load.decided.is_some() {
                    add(format!("`{}` was not published, and the pipeline no longer loads it", load.key));
                }
                continue;
            };
            match left.roll_forward(load, now, &mut add).await {
                Forward::Later => later.push(step),
                Forward::Done | Forward::Nothing => sweep.push(load),
            }
        }
        // A sweep throws away whatever the dead run has staged in a target: also what is still to be published.
        if later.is_empty() && !sweep.is_empty() {
            left.sweep(&sweep, &mut add).await;
        }
    }
}

/// What became of a load whose publishing was, or was not, decided.
enum Forward {
    /// It was not decided, or cannot be done any more.
    Nothing,
    /// It is published.
    Done,
    /// Not just now.
    Later,
}

/// What a dead run left.
struct Left<'a> {
    driver: &'a Driver,
    run: &'a RunRecord,
    pipeline: &'a PipelineSpec,
    context: &'a TemplateContext,
}

impl Left<'_> {
    /// Publishes a load if that was decided before the process died.
    async fn roll_forward(&self, load: &LoadRecord, now: &LoadSpec, add: &mut impl FnMut(String)) -> Forward {
        let step = &load.key.slot.step;
        let Some(decided) = &load.decided else { return Forward::Nothing };
        let error = if decided.spec == *now {
            let report = self.ask(&[load], JobPhase::Commit { staged: vec![decided.staged.clone()] }).await;
            match report.committed.into_iter().next() {
                Some((_, committed)) => match self.driver.store.committed(&self.run.id, &committed).await {
                    Ok(()) => {
                        self.published(step, &committed, now.strategy, add).await;
                        return Forward::Done;
                    }
                    Err(error) => error,
                },
                None => report.error.unwrap_or_else(|| Error::internal("the runner ended without an answer")),
            }
        } else {
            Error::new(ErrorKind::Config, format!("the step `{step}` was changed meanwhile"))
        };
        let gone = matches!(
            error.kind(),
            ErrorKind::Config | ErrorKind::NotFound | ErrorKind::Schema | ErrorKind::Data | ErrorKind::Internal
        );
        let what_now = if gone && !error.is_retryable() {
            if let Err(error) = self.driver.store.given_up(&self.run.id, std::slice::from_ref(&load.key)).await {
                add(format!("that `{}` is given up could not be recorded: {error}", load.key));
            }
            "run the pipeline for that interval again"
        } else {
            "`gristmill recover` tries again"
        };
        add(format!("`{}` is not published, though it was about to be: {error}; {what_now}", load.key));
        self.record(step, StepState::Failed, None, "not published; what belongs to it may be".to_owned(), add).await;
        if gone { Forward::Nothing } else { Forward::Later }
    }

    async fn published(
        &self,
        step: &StepName,
        committed: &Committed,
        strategy: Strategy,
        add: &mut impl FnMut(String),
    ) {
        let how = if committed.already { "had been published" } else { "was about to be published, and is now" };
        add(format!("`{}` {how}: {} rows", committed.key, committed.rows));
        let note = format!("{how}; recorded by a recovery");
        self.record(step, StepState::Success, Some((committed, strategy)), note, add).await;
    }

    async fn record(
        &self,
        step: &StepName,
        state: StepState,
        committed: Option<(&Committed, Strategy)>,
        note: String,
        add: &mut impl FnMut(String),
    ) {
        let mut report = StepReport::new(step.clone(), StepKind::Load);
        report.state = state;
        report.notes.push(note);
        if let Some((committed, strategy)) = committed {
            report.load = Some(LoadReport::new(committed, strategy));
            report.rows_out = Some(committed.rows);
            report.output.files = committed.files;
            report.output.bytes = committed.bytes;
        }
        if let Err(error) = self.driver.store.steps_changed(&self.run.id, &[report]).await {
            add(format!("what became of `{step}` could not be recorded: {error}"));
        }
    }

    /// Lets the targets finish or undo what the run left in them.
    async fn sweep(&self, loads: &[&LoadRecord], add: &mut impl FnMut(String)) {
        let report = self.ask(loads, JobPhase::Recover { dead: vec![self.run.id.clone()] }).await;
        report.notes.into_iter().for_each(&mut *add);
        for step in report.steps {
            step.notes.into_iter().for_each(|note| add(format!("`{}`: {note}", step.step)));
        }
        if let Some(error) = report.error {
            add(format!("what run `{}` left could not be cleaned up: {error}", self.run.id));
        }
    }

    async fn ask(&self, loads: &[&LoadRecord], phase: JobPhase) -> JobReport {
        let loads: Vec<_> = loads.iter().map(|load| (load.key.slot.step.clone(), load.key.clone())).collect();
        let steps: Vec<StepName> = loads.iter().map(|(step, _)| step.clone()).collect();
        let job = JobSpec {
            run: self.run.id.clone(),
            resumed: steps.clone(),
            steps,
            shared: Vec::new(),
            loads,
            interval: self.run.interval,
            context: self.context.clone(),
            attempt: 1,
            phase,
            full_refresh: false,
            cursors: Vec::new(),
            pipeline: self.pipeline.clone(),
        };
        // The notes are in the report; as events they would be told twice.
        self.driver.runner.run(job, EventSink::none(), self.driver.options.cancel.clone()).await
    }
}

fn load_steps(pipeline: &PipelineSpec) -> impl Iterator<Item = (&StepName, &LoadSpec)> {
    pipeline.steps.iter().filter_map(|step| match &step.body {
        StepBody::Load(load) => Some((&step.name, load)),
        _ => None,
    })
}
