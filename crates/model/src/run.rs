//! What a runner is asked to do, what it tells meanwhile, and what it answers.

use crate::spec::ExtractSpec;
use crate::spec::{FoundTable, OnFail, PipelineSpec, Strategy};
use crate::{CancellationToken, Committed, Error, Interval, LoadKey, RunId, Staged, StepName, TemplateContext};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What a runner is to do with the steps of a [`JobSpec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum JobPhase {
    /// Read, transform, check and stage; publish nothing. For `load` and `check` steps.
    Stage,
    /// Publish what was staged.
    Commit {
        /// What the stage phase answered.
        staged: Vec<StagedLoad>,
    },
    /// Throw away what was staged.
    Abort {
        /// What the stage phase answered.
        staged: Vec<StagedLoad>,
        /// Keep it to be looked at instead, where that can be: a check of the run has failed.
        #[serde(default)]
        keep: bool,
    },
    /// Say which tables the extracts among `steps` take that stand for many (`tables:`). Done before a run begins, since
    /// each table becomes steps of its own.
    Tables,
    /// Finish or undo what dead owners left in the targets of the load steps among `steps`. Answers with notes.
    Recover {
        /// Runs that are known to be dead; nothing of any other owner may be touched.
        dead: Vec<RunId>,
    },
}

/// One piece of a run, as plain data: enough for another process to do it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The run this belongs to; also the owner of whatever is staged.
    pub run: RunId,
    /// The pipeline, rendered for the interval.
    pub pipeline: PipelineSpec,
    /// The actions to do, together: loads that share a view are staged in one pass.
    pub steps: Vec<StepName>,
    /// Views that more than one of these actions reads: computed once.
    pub shared: Vec<StepName>,
    /// The keys of the loads among `steps`.
    pub loads: Vec<(StepName, LoadKey)>,
    /// Loads among `steps` that go on with a generation an earlier, unfinished run took: it may have been committed
    /// already. A key that is *not* resumed is new; where its target's ledger already holds that generation or a later
    /// one (the store was lost), the stage phase answers with the next free generation in [`StagedLoad::key`].
    #[serde(default)]
    pub resumed: Vec<StepName>,
    /// The interval the run is for.
    pub interval: Interval,
    /// The values the pipeline was rendered with.
    pub context: TemplateContext,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// What to do.
    pub phase: JobPhase,
    /// Replace everything instead of continuing from a checkpoint.
    #[serde(default)]
    pub full_refresh: bool,
    /// Per load among `steps`: the incremental extracts it reads, directly or through other views. Loads without any are
    /// left out.
    #[serde(default)]
    pub cursors: Vec<(StepName, Vec<StepName>)>,
}

/// A load that has been staged and audited, and waits for its commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagedLoad {
    /// The load step.
    pub step: StepName,
    /// Its key.
    pub key: LoadKey,
    /// The schema of the rows, for whoever commits: text in the runner's own encoding (the local runner's is an Arrow
    /// IPC schema message in hexadecimal digits), nothing to be read by others.
    pub schema: serde_json::Value,
    /// What each writer staged.
    pub staged: Vec<Staged>,
    /// The checkpoint to write with it.
    pub checkpoint: crate::Checkpoint,
    /// The primary key of the table its rows come from, where it is needed and known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_key: Vec<String>,
}

/// A load as its target has it, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Its key, as the target's ledger has it.
    pub key: String,
    /// How its rows met the old ones.
    pub strategy: Strategy,
    /// Rows that were loaded.
    pub rows: u64,
    /// Files that were published; 0 for databases.
    pub files: u64,
    /// Bytes that were published; 0 where the target cannot tell.
    pub bytes: u64,
    /// How far its incremental extracts have come: the cursor of each; empty where it has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cursors: BTreeMap<String, Option<serde_json::Value>>,
    /// When the target says it was committed.
    pub at: DateTime<Utc>,
}

impl LoadReport {
    /// What is told of a load.
    #[must_use]
    pub fn new(committed: &Committed, strategy: Strategy) -> Self {
        // Not the digests of rows that a cursor may remember: there can be many thousands.
        let cursors = committed.checkpoint.cursors.iter();
        Self {
            key: committed.key.text(),
            strategy,
            rows: committed.rows,
            files: committed.files,
            bytes: committed.bytes,
            cursors: cursors.map(|(step, cursor)| (step.clone(), cursor.value.clone())).collect(),
            at: committed.at,
        }
    }
}

/// What a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A view on a source.
    Extract,
    /// A view computed by a query.
    Sql,
    /// A view of made-up rows.
    Generate,
    /// Rows to a target.
    Load,
    /// Checks without a load.
    Check,
    /// Waiting for something.
    WaitFor,
    /// A command of the operating system.
    Command,
}

impl StepKind {
    /// Whether this step is done for its effect (a load), not for its rows (a view).
    #[must_use]
    pub fn is_action(self) -> bool {
        matches!(self, Self::Load | Self::Check | Self::WaitFor | Self::Command)
    }

    /// The word used in files and on screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Extract => "extract",
            Self::Sql => "sql",
            Self::Generate => "generate",
            Self::Load => "load",
            Self::Check => "check",
            Self::WaitFor => "wait_for",
            Self::Command => "command",
        }
    }
}

/// How a step ended, or where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Being worked on.
    Running,
    /// Rows are staged and audited; nothing is published yet.
    Staged,
    /// Done.
    Success,
    /// Ended with an error.
    Failed,
    /// Not done on purpose.
    Skipped,
    /// Not done because a step before it failed.
    UpstreamFailed,
    /// Stopped by request.
    Canceled,
}

impl StepState {
    /// The word used in files and on screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Staged => "staged",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::UpstreamFailed => "upstream_failed",
            Self::Canceled => "canceled",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The check, as people read it: `unique(order_id)`.
    pub name: String,
    /// Whether it passed. A `dead_letter`, `drop` or `warn` check that found bad rows did not pass but does not fail the run.
    pub passed: bool,
    /// What happens to the run or the row when it does not pass.
    pub on_fail: OnFail,
    /// Rows that were looked at.
    pub rows: u64,
    /// Rows (or groups, for `unique`) that broke it.
    pub unexpected: u64,
    /// What was seen, for people: `30,412 rows`, a few of the values.
    pub observed: String,
    /// A few of the rows that broke it: the columns that tell them apart, and the one that was looked at. NULL is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sample: Vec<BTreeMap<String, Option<String>>>,
}

/// Files a load published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSummary {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step.
    pub step: StepName,
    /// What it is.
    pub kind: StepKind,
    /// How it ended.
    pub state: StepState,
    /// Rows that came in; none where the step has no input of its own or they were not counted.
    pub rows_in: Option<u64>,
    /// Rows that went out; none where they were not counted.
    pub rows_out: Option<u64>,
    /// Rows refused: dead letters and dropped rows.
    pub rejects: u64,
    /// Bytes read, for an extract.
    pub bytes_in: Option<u64>,
    /// Files written, for a load to files.
    pub output: FileSummary,
    /// What its checks found.
    pub checks: Vec<CheckReport>,
    /// Milliseconds from its start to its end.
    pub millis: u64,
    /// How many attempts it took.
    pub attempts: u32,
    /// Things to know: what a load did, why a step was skipped.
    pub notes: Vec<String>,
    /// The load as its target has it, once it is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadReport>,
    /// What went wrong.
    pub error: Option<Error>,
}

impl StepReport {
    /// A report with nothing in it yet.
    #[must_use]
    pub fn new(step: StepName, kind: StepKind) -> Self {
        Self {
            step,
            kind,
            state: StepState::Pending,
            rows_in: None,
            rows_out: None,
            rejects: 0,
            bytes_in: None,
            output: FileSummary::default(),
            checks: Vec::new(),
            millis: 0,
            attempts: 0,
            notes: Vec::new(),
            load: None,
            error: None,
        }
    }
}

/// What a runner answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JobReport {
    /// The steps that were touched: the actions asked for and the views they read.
    pub steps: Vec<StepReport>,
    /// After [`JobPhase::Stage`]: what waits for its commit.
    pub staged: Vec<StagedLoad>,
    /// After [`JobPhase::Stage`] whose checks failed, and after [`JobPhase::Abort`] that keeps: what can be looked at until it is aborted or recovered.
    #[serde(default)]
    pub kept: Vec<KeptLoad>,
    /// After [`JobPhase::Commit`]: what the targets answered.
    pub committed: Vec<(StepName, Committed)>,
    /// After [`JobPhase::Tables`]: the tables of each extract.
    #[serde(default)]
    pub tables: Vec<(StepName, Vec<FoundTable>)>,
    /// Why the job failed, if it did.
    pub error: Option<Error>,
    /// The largest resident set seen, in bytes.
    pub peak_memory: Option<u64>,
    /// Things to know about the job as a whole: what [`JobPhase::Recover`] finished, undid and swept away.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Rows that are staged and are not going to be published, kept to be looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptLoad {
    /// The load.
    pub step: StepName,
    /// Its key.
    pub key: LoadKey,
    /// Where its rows are.
    pub rows: KeptRows,
}

/// How rows that are staged can be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptRows {
    /// A folder of this machine that is read as a connection of files; where there is none, the load's own connection is
    /// read.
    pub folder: Option<String>,
    /// What is read there.
    pub extract: ExtractSpec,
}

/// What happens while a run goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum RunEvent {
    /// The run has begun.
    RunStarted {
        /// The run.
        run: RunId,
        /// Its pipeline.
        pipeline: String,
        /// Its interval.
        interval: Interval,
    },
    /// A step has begun.
    StepStarted {
        /// The step.
        step: StepName,
        /// What it is.
        kind: StepKind,
        /// Expected rows, where they can be told.
        rows: Option<u64>,
    },
    /// A step has come further. Totals since its start, not differences.
    Progress {
        /// The step.
        step: StepName,
        /// Rows so far.
        rows: u64,
        /// Bytes so far.
        bytes: u64,
        /// Expected rows, where they can be told.
        total_rows: Option<u64>,
    },
    /// A line for the log.
    Note {
        /// The step it is about.
        step: Option<StepName>,
        /// The line.
        text: String,
    },
    /// A step is tried again.
    Retry {
        /// The step.
        step: StepName,
        /// The attempt that failed.
        attempt: u32,
        /// Milliseconds until the next.
        wait_millis: u64,
        /// Why.
        error: Error,
    },
    /// A step has ended.
    StepFinished {
        /// What became of it.
        report: Box<StepReport>,
        /// When.
        at: DateTime<Utc>,
    },
}

/// Where events go. Cheap to clone. Events are sent from the midst of the work: a receiver may take a moment (a line on
/// a terminal), but must not wait for anything.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(RunEvent) + Send + Sync>);

impl EventSink {
    /// Sends every event to `receive`.
    pub fn new(receive: impl Fn(RunEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }

    /// Throws every event away.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    /// Sends one event.
    pub fn send(&self, event: RunEvent) {
        (self.0)(event);
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}

/// Whoever executes jobs: in process, as a child process, or on a cluster.
///
/// Nothing but plain data crosses this line. A failed job is a report with an error, never a panic.
pub trait JobRunner: Send + Sync + std::fmt::Debug {
    /// Does one job and answers with its report.
    fn run<'a>(
        &'a self,
        job: JobSpec,
        events: EventSink,
        cancel: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = JobReport> + Send + 'a>>;
}
