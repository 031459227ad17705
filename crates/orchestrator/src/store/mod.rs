//! What the orchestrator remembers: runs, their steps and attempts, and which load is current for which slot.
//!
//! [`Store`] is the contract, [`SqliteStore`] the embedded implementation, [`suite`] the tests every implementation
//! must pass. Whether a run's process still lives is not in the store but in [`Owners`]: a file lock cannot be left
//! behind by a crash, a row can.

mod owners;
mod sqlite;
pub mod suite;

pub use owners::{OwnerLock, Owners};
pub use sqlite::SqliteStore;

use crate::{RunReport, RunState};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_model::spec::LoadSpec;
use gristmill_model::{
    Committed, Error, ErrorKind, Interval, KeptLoad, LoadKey, PipelineName, Result, RunId, Slot, StagedLoad, StepKind,
    StepName, StepReport, StepState, one_of,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A run that begins.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// The profile it runs under.
    pub profile: Option<String>,
    /// The interval it is for.
    pub interval: Interval,
    /// Its parameters, defaults included.
    pub params: BTreeMap<String, String>,
    /// When it began.
    pub started: DateTime<Utc>,
    /// Its steps, in order.
    pub steps: Vec<(StepName, StepKind)>,
    /// The loads it is going to do.
    pub loads: Vec<WantedLoad>,
}

/// A load that a run is going to do.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedLoad {
    /// Where its answer belongs.
    pub slot: Slot,
    /// What it is to do.
    pub spec: LoadSpec,
    /// Do not take a new generation where the slot has ever been finished, not even one that was taken since: adding
    /// the same rows again would double them.
    pub once: bool,
}

/// The generation a load got.
#[derive(Debug, Clone, PartialEq)]
pub struct TakenLoad {
    /// The key to load under. For a `finished` load: the key it was committed under.
    pub key: LoadKey,
    /// An earlier, unfinished run took this generation: it may have been committed already.
    pub resumed: bool,
    /// The slot is finished and was wanted `once`: nothing is to be done.
    pub finished: bool,
}

/// A run, as the store knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// The profile it ran under.
    pub profile: Option<String>,
    /// The interval it was for.
    pub interval: Interval,
    /// Where it stands.
    pub state: RunState,
    /// Its parameters, defaults included.
    pub params: BTreeMap<String, String>,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub ended: Option<DateTime<Utc>>,
    /// Why it failed.
    pub error: Option<Error>,
    /// What it came to; none while it goes on and for a run whose process died.
    pub report: Option<RunReport>,
}

/// A step of a run, as the store knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step.
    pub step: StepName,
    /// What it is.
    pub kind: StepKind,
    /// Where it stands.
    pub state: StepState,
    /// Its attempts, the first one first.
    pub attempts: Vec<AttemptRecord>,
    /// What became of it.
    pub report: Option<StepReport>,
}

/// One attempt at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Which one, from 1.
    pub attempt: u32,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub ended: Option<DateTime<Utc>>,
    /// Why it failed.
    pub error: Option<Error>,
}

/// A load that is staged and audited like everything else of its wave: it is going to be published, and from then on
/// whoever finds its run dead finishes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecidedLoad {
    /// The load as the pipeline described it then; another target or strategy must not be given these rows.
    pub spec: LoadSpec,
    /// What was staged.
    pub staged: StagedLoad,
}

/// A load, as the store knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadRecord {
    /// Its key.
    pub key: LoadKey,
    /// The profile it was done under.
    pub profile: Option<String>,
    /// The run that took it last.
    pub run: RunId,
    /// What its target answered; none while it is unfinished.
    pub committed: Option<Committed>,
    /// The load as the pipeline described it for the run that took it last, for who finds its leavings when the pipeline no
    /// longer says where they are; none of a committed load, and of one that an earlier version has taken.
    pub spec: Option<Box<LoadSpec>>,
    /// What is to be published, once that is decided; none before, and after the load was given up or taken again.
    pub decided: Option<Box<DecidedLoad>>,
    /// What is kept to be looked at of a load whose checks failed.
    pub kept: Option<Box<KeptLoad>>,
}

/// Which runs to list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunFilter {
    /// Only of this pipeline.
    pub pipeline: Option<PipelineName>,
    /// Only under this profile; `Some(None)` means without a profile.
    pub profile: Option<Option<String>>,
    /// Only for this interval.
    pub interval: Option<Interval>,
    /// Only in this state.
    pub state: Option<RunState>,
    /// At most so many, the newest ones; all where none is given.
    pub limit: Option<u32>,
}

/// What the orchestrator remembers.
///
/// Every call is atomic and durable when it returns. Times are UTC.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Records a run as running and takes a generation for each of its loads, all or nothing. Answers in the order
    /// of `run.loads`.
    ///
    /// The rule per slot and profile: an unfinished load is resumed under its own generation; a finished one gets the
    /// next generation, or, wanted `once`, comes back as finished. Generations that are taken are unique across
    /// profiles, because profiles may share a target, whose ledger knows keys and no profiles.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when a run of the same pipeline, profile and interval is recorded as running.
    async fn begin(&self, run: &NewRun) -> Result<Vec<TakenLoad>>;

    /// Records that an attempt at a step began.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn attempt_began(&self, run: &RunId, step: &StepName, attempt: u32, at: DateTime<Utc>) -> Result<()>;

    /// Records that an attempt at a step ended, and why if it failed.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn attempt_ended(
        &self,
        run: &RunId,
        step: &StepName,
        attempt: u32,
        at: DateTime<Utc>,
        error: Option<&Error>,
    ) -> Result<()>;

    /// Records where steps stand; a step the run has not yet is added to it.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn steps_changed(&self, run: &RunId, steps: &[StepReport]) -> Result<()>;

    /// Records that a runner went to another generation than the store gave it: to a later one, since the target's
    /// ledger was ahead, or, for an append, to the one that the ledger holds already. Where the slot has that one under
    /// the same profile, the run takes it over and lets go of its own.
    ///
    /// # Errors
    /// A store that cannot be written, or a key that the run does not hold.
    async fn generation_moved(&self, run: &RunId, from: &LoadKey, to: &LoadKey) -> Result<()>;

    /// Records that loads of a run are going to be published, all or nothing: everything beside them is staged and
    /// audited too.
    ///
    /// # Errors
    /// A store that cannot be written, or a key that the run does not hold.
    async fn decided(&self, run: &RunId, loads: &[DecidedLoad]) -> Result<()>;

    /// Records that loads are not going to be published after all: what was staged is thrown away.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn given_up(&self, run: &RunId, loads: &[LoadKey]) -> Result<()>;

    /// Records what of a run's staged rows is kept to be looked at, in place of what was recorded before.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn kept(&self, run: &RunId, loads: &[KeptLoad]) -> Result<()>;

    /// Records that a load is committed, and with it that its step has succeeded, unless that has ended already.
    ///
    /// # Errors
    /// A store that cannot be written, or a key that nobody took.
    async fn committed(&self, run: &RunId, load: &Committed) -> Result<()>;

    /// Records how a run ended. A run that has ended already stays as it is.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn end(&self, report: &RunReport, at: DateTime<Utc>) -> Result<()>;

    /// Records that the process of a run died: the run and its unfinished steps have failed. Its loads stay
    /// unfinished, so that the next run of the slot resumes them. False when the run had ended already.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn crashed(&self, run: &RunId, at: DateTime<Utc>) -> Result<bool>;

    /// Runs, the newest first.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>>;

    /// One run.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn run(&self, id: &RunId) -> Result<Option<RunRecord>>;

    /// The steps of a run, in its order.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn steps(&self, run: &RunId) -> Result<Vec<StepRecord>>;

    /// Loads that were taken but not committed: of one run, or of all that have ended.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn unfinished(&self, run: Option<&RunId>) -> Result<Vec<LoadRecord>>;

    /// Every load of a slot, under any profile, the lowest generation first.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn loads(&self, slot: &Slot) -> Result<Vec<LoadRecord>>;

    /// The load of the slot's series, for any interval, that was committed by the newest run of a profile.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn newest(&self, slot: &Slot, profile: Option<&str>) -> Result<Option<LoadRecord>>;

    /// Every load of a replay, whether it is committed or not.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn replays(&self) -> Result<Vec<LoadRecord>>;
}

/// The newest run but for those that were begun only because another one awaited them.
async fn newest_asked_for(store: &dyn Store) -> Result<Option<RunRecord>> {
    // A run awaits few others, and they begin right after it.
    const NEAR: u32 = 64;
    let newest = store.runs(&RunFilter { limit: Some(NEAR), ..RunFilter::default() }).await?;
    let awaited: Vec<RunId> = newest
        .iter()
        .filter_map(|run| run.report.as_ref())
        .flat_map(|report| report.awaited.iter().map(|awaited| awaited.run.clone()))
        .collect();
    Ok(newest.into_iter().find(|run| !awaited.contains(&run.id)))
}

/// Finds a run by what a person types: its id, a unique beginning or end of it, or `last` for the newest run that somebody
/// asked for.
///
/// # Errors
/// No such run, or several.
pub async fn find_run(store: &dyn Store, text: &str) -> Result<RunRecord> {
    let exact = store.run(&RunId::from(text)).await?;
    if let Some(run) = exact {
        return Ok(run);
    }
    if text == "last" {
        return newest_asked_for(store).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there are no runs yet").hint("begin one with `gristmill run`")
        });
    }
    let all = store.runs(&RunFilter::default()).await?;
    let mut like: Vec<RunRecord> = Vec::new();
    if text.len() >= 4 {
        like.extend(
            all.iter().filter(|run| run.id.as_str().starts_with(text) || run.id.as_str().ends_with(text)).cloned(),
        );
    }
    match like.len() {
        1 => Ok(like.remove(0)),
        0 => Err(Error::new(ErrorKind::NotFound, format!("the run `{text}` does not exist"))
            .hint(one_of(text, all.iter().take(12).map(|run| run.id.as_str())))),
        several => Err(Error::new(ErrorKind::Usage, format!("`{text}` could be any of {several} runs"))
            .hint("give more of its id; `gristmill runs` shows them")),
    }
}
