//! What dead runs left behind.

use super::{Driver, ONE_LINE, blocking, slot};
use crate::RunState;
use crate::dag::{Dag, left_behind, replay_left_behind};
use crate::store::{LoadRecord, RunFilter, RunRecord};
use chrono::Utc;
use gristmill_model::fault::{self, Point};
use gristmill_model::spec::{LoadSpec, PipelineSpec, Step, StepBody, Strategy};
use gristmill_model::{
    Committed, Error, ErrorKind, EventSink, Interval, JobPhase, JobReport, JobSpec, LoadKey, LoadReport, PipelineName,
    Result, RunId, StepKind, StepName, StepReport, StepState, TemplateContext,
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
    /// Lets the runner finish or undo what runs whose process died have left in their targets, and marks them as failed.
    /// Every run does this for the newly dead before it begins, and once more for those of its own pipeline whose targets
    /// could not be reached then; `thorough` looks at all of these and at every unfinished load of every ended run.
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
        let again = if thorough { self.recover_left(None, &mut recovered.notes).await? } else { Vec::new() };
        if thorough {
            let mut left: BTreeMap<RunId, Vec<LoadRecord>> = BTreeMap::new();
            for load in self.store.unfinished(None).await? {
                if !recovered.dead.contains(&load.run) && !again.contains(&load.run) {
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
    ///
    /// A run is marked only when its targets have been looked at: whoever dies in between leaves it to the next one. Its
    /// lock file goes only when there is nothing left of it ([`Self::recover_left`]).
    pub(super) async fn recover_dead(&self, beginning: Option<&Interval>) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        let running = RunFilter { state: Some(RunState::Running), ..RunFilter::default() };
        for run in self.store.runs(&running).await? {
            let (owners, id) = (self.owners(), run.id.clone());
            if self.is_of_others(&run, beginning).await? || !blocking(move || owners.is_dead(&id)).await? {
                continue;
            }
            let note =
                format!("run `{}` of `{}` ({}) had died; it is marked as failed", run.id, run.pipeline, run.interval);
            self.note(None, &note);
            recovered.notes.push(note);
            recovered.dead.push(run.id.clone());
            let loads = self.store.unfinished(Some(&run.id)).await?;
            let clean = self.clean_up(&run, &loads, &mut recovered.notes).await;
            fault::at(Point::BeforeForget)?;
            self.store.crashed(&run.id, Utc::now()).await?;
            if clean {
                self.forget(&run.id).await?;
            }
        }
        Ok(recovered)
    }

    /// Looks once more at dead runs that left something which could not be cleaned up, of one pipeline or of all: their lock
    /// files are still there. Another run may have taken over their loads meanwhile, but not what they had staged. Answers
    /// whose it was. Under the start lock, as above.
    pub(super) async fn recover_left(
        &self,
        pipeline: Option<&PipelineName>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<RunId>> {
        let owners = self.owners();
        let mut again = Vec::new();
        for id in blocking(move || owners.left()).await? {
            let Some(run) = self.store.run(&id).await? else {
                // It died before it was recorded, and so before it did anything.
                self.forget(&id).await?;
                continue;
            };
            let is_meant = pipeline.is_none_or(|pipeline| run.pipeline == *pipeline);
            if run.state == RunState::Running || !is_meant || self.is_of_others(&run, None).await? {
                continue;
            }
            let loads = self.store.unfinished(Some(&id)).await?;
            if self.clean_up(&run, &loads, notes).await {
                self.forget(&id).await?;
            }
            again.push(id);
        }
        Ok(again)
    }

    async fn forget(&self, run: &RunId) -> Result<()> {
        let (owners, id) = (self.owners(), run.clone());
        blocking(move || {
            owners.forget(&id);
            Ok(())
        })
        .await
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

    /// Finishes or undoes the unfinished `loads` of a dead run, and sweeps whatever else it has left in its targets. What
    /// goes wrong is a note: the run that is about to begin may not need those targets, and a later recovery tries again.
    /// Answers whether nothing is left.
    async fn clean_up(&self, run: &RunRecord, loads: &[LoadRecord], notes: &mut Vec<String>) -> bool {
        let mut add = |text: String| {
            self.note(None, &text);
            notes.push(text);
        };
        let steps = match self.store.steps(&run.id).await {
            Ok(steps) => steps,
            Err(error) => {
                add(format!("what run `{}` did cannot be looked up: {error}", run.id));
                return false;
            }
        };
        if loads.is_empty() && steps.iter().all(|step| step.kind != StepKind::Load) {
            return true;
        }
        let rendered = self.render(&run.pipeline, &run.id, run.interval, &run.params).await;
        let (mut pipeline, context) = match rendered {
            Ok(rendered) => rendered,
            Err(error) => {
                add(format!(
                    "what run `{}` left cannot be looked at, since its pipeline cannot be read: {error}",
                    run.id
                ));
                return false;
            }
        };
        for load in loads {
            let decided = load.decided.as_ref().map(|decided| &decided.spec);
            let slot = &load.key.slot;
            let left = left_behind(&pipeline, slot, decided).or_else(|| replay_left_behind(&pipeline, slot, decided));
            pipeline.steps.extend(left);
        }
        let left = Left { driver: self, run, pipeline: &pipeline, context: &context };
        let dag = Dag::new(&pipeline).ok();
        // As the commits would have come.
        let order = dag.as_ref().map(Dag::order).unwrap_or_default();
        let mut loads: Vec<&LoadRecord> = loads.iter().collect();
        loads.sort_by_key(|load| order.iter().position(|step| **step == load.key.slot.step));
        let (mut later, mut lost): (Vec<&StepName>, Vec<&StepName>) = (Vec::new(), Vec::new());
        let mut elsewhere: Vec<&LoadRecord> = Vec::new();
        for load in loads {
            let step = &load.key.slot.step;
            let now = pipeline.step(step.as_str()).and_then(|step| match &step.body {
                StepBody::Load(load) => Some(load),
                _ => None,
            });
            let Some(now) = now.filter(|now| slot(&pipeline, step, now, run.interval) == load.key.slot) else {
                if load.decided.is_some() {
                    left.give_up(load, "the pipeline no longer loads it", &mut add).await;
                    lost.push(step);
                }
                elsewhere.push(load);
                continue;
            };
            // The order of the commits is the pipeline's still.
            let above = dag.as_ref().map(|dag| dag.upstream(step.as_str())).unwrap_or_default();
            if let Some(first) = later.iter().find(|first| load.decided.is_some() && above.contains(**first)) {
                add(format!("`{}` is not published before `{first}` is; `gristmill recover` tries again", load.key));
                later.push(step);
            } else if let Some(first) = lost.iter().find(|first| load.decided.is_some() && above.contains(**first)) {
                // A run that goes on would have stopped there, too.
                left.give_up(load, &format!("it comes after `{first}`, which is given up"), &mut add).await;
                lost.push(step);
            } else {
                match left.roll_forward(load, now, &mut add).await {
                    Rolled::Done => {}
                    Rolled::Later => later.push(step),
                    Rolled::Lost => lost.push(step),
                }
            }
        }
        // A sweep throws away whatever the dead run has staged in a target: also what is still to be published.
        if !later.is_empty() {
            return false;
        }
        if let Err(error) = self.store.kept(&run.id, &[]).await {
            add(format!("that nothing of run `{}` is kept could not be recorded: {error}", run.id));
            return false;
        }
        let mut sweep = Vec::new();
        for (step, load) in load_steps(&pipeline) {
            if !steps.iter().any(|known| known.step == *step) {
                continue;
            }
            let slot = slot(&pipeline, step, load, run.interval);
            match self.store.loads(&slot).await {
                Ok(taken) => {
                    let own = taken.into_iter().rev().find(|load| load.run == run.id).map(|load| load.key);
                    // Where another run has taken the load over: a key that no target holds.
                    sweep.push((step.clone(), own.unwrap_or(LoadKey { slot, generation: 0 })));
                }
                Err(error) => {
                    add(format!("what run `{}` did cannot be looked up: {error}", run.id));
                    return false;
                }
            }
        }
        let mut clean = sweep.is_empty() || left.sweep(sweep, &mut add).await;
        for load in elsewhere {
            clean &= left.sweep_elsewhere(load, &mut add).await;
        }
        clean
    }
}

/// What became of a load that was decided.
enum Rolled {
    /// It is published, or there was nothing to publish.
    Done,
    /// It is still to be done, but not just now.
    Later,
    /// It is given up.
    Lost,
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
    async fn roll_forward(&self, load: &LoadRecord, now: &LoadSpec, add: &mut impl FnMut(String)) -> Rolled {
        let step = &load.key.slot.step;
        let Some(decided) = &load.decided else { return Rolled::Done };
        let error = if decided.spec == *now {
            let loads = vec![(step.clone(), load.key.clone())];
            let report = self.ask(loads, JobPhase::Commit { staged: vec![decided.staged.clone()] }).await;
            match report.committed.into_iter().next() {
                Some((_, committed)) => match self.driver.store.committed(&self.run.id, &committed).await {
                    Ok(()) => {
                        self.published(step, &committed, now.strategy, add).await;
                        return Rolled::Done;
                    }
                    Err(error) => error,
                },
                None => report.error.unwrap_or_else(|| Error::internal("the runner ended without an answer")),
            }
        } else {
            Error::new(ErrorKind::Config, format!("the step `{step}` was changed meanwhile"))
        };
        // What stays wrong however often it is tried. A conflict is one: what was staged is gone, or somebody else was first and
        // has loaded the slot, or moved the cursor that these rows were read from, so that they would be doubled. The next run
        // reads what is left to be read.
        let gone = !error.is_retryable()
            && matches!(
                error.kind(),
                ErrorKind::Config
                    | ErrorKind::NotFound
                    | ErrorKind::Schema
                    | ErrorKind::Data
                    | ErrorKind::Conflict
                    | ErrorKind::Internal
            );
        if gone {
            self.give_up(load, &error.to_string(), add).await;
            return Rolled::Lost;
        }
        self.unpublished(load, &error.to_string(), "`gristmill recover` tries again", add).await;
        Rolled::Later
    }

    /// Records that a load will not be published.
    async fn give_up(&self, load: &LoadRecord, why: &str, add: &mut impl FnMut(String)) {
        if let Err(error) = self.driver.store.given_up(&self.run.id, std::slice::from_ref(&load.key)).await {
            add(format!("that `{}` is given up could not be recorded: {error}", load.key));
        }
        self.unpublished(load, why, "it is given up; run the pipeline for that interval again", add).await;
    }

    async fn unpublished(&self, load: &LoadRecord, why: &str, what_now: &str, add: &mut impl FnMut(String)) {
        add(format!("`{}` is not published, though it was about to be: {why}; {what_now}", load.key));
        let note = "not published; what belongs to it may be".to_owned();
        self.record(&load.key.slot.step, StepState::Failed, None, note, add).await;
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

    /// Lets the targets finish or undo what the run left in them. False where one could not.
    async fn sweep(&self, loads: Vec<(StepName, LoadKey)>, add: &mut impl FnMut(String)) -> bool {
        let report = self.ask(loads, JobPhase::Recover { dead: vec![self.run.id.clone()] }).await;
        report.notes.into_iter().for_each(&mut *add);
        for step in report.steps {
            step.notes.into_iter().for_each(|note| add(format!("`{}`: {note}", step.step)));
        }
        let clean = report.error.is_none();
        if let Some(error) = report.error {
            add(format!("what run `{}` left could not be cleaned up: {error}", self.run.id));
        }
        clean
    }

    /// The same for a load that the pipeline does not describe any more: it was edited since, and what was staged for the
    /// target of then lies there still.
    async fn sweep_elsewhere(&self, load: &LoadRecord, add: &mut impl FnMut(String)) -> bool {
        // Of a load that an earlier version has taken nobody knows where it went.
        let Some(spec) = &load.spec else { return true };
        let step = &load.key.slot.step;
        if !self.driver.project.spec.connections.contains_key(&spec.to) {
            add(format!(
                "what run `{}` staged for `{}` stays there: the project has no connection `{}` any more",
                self.run.id, load.key.slot.target, spec.to
            ));
            return true;
        }
        let mut pipeline = self.pipeline.clone();
        pipeline.steps.retain(|other| other.name != *step);
        pipeline.steps.push(Step::new(step.clone(), StepBody::Load((**spec).clone())));
        let of_then = Left { pipeline: &pipeline, ..*self };
        of_then.sweep(vec![(step.clone(), load.key.clone())], add).await
    }

    async fn ask(&self, loads: Vec<(StepName, LoadKey)>, phase: JobPhase) -> JobReport {
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
