//! What a run came to, as plain data.

use gristmill_model::{Error, Interval, PipelineName, RunId, StepReport, StepState};
use serde::{Deserialize, Serialize};

/// How a run ended, or that it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Going on, as far as the store knows.
    Running,
    /// Every step succeeded or was skipped on purpose.
    Success,
    /// A step failed, or the process of the run died.
    Failed,
    /// Stopped by request.
    Canceled,
}

impl RunState {
    /// Every state, for lists of valid values.
    pub const ALL: [Self; 4] = [Self::Running, Self::Success, Self::Failed, Self::Canceled];

    /// The word used in files and on screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// The state a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The run.
    pub run: RunId,
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// The profile it ran under.
    pub profile: Option<String>,
    /// The interval it was for.
    pub interval: Interval,
    /// How it ended.
    pub state: RunState,
    /// What became of its steps, in the order they depend on each other.
    pub steps: Vec<StepReport>,
    /// Milliseconds from its start to its end, awaited runs included.
    pub millis: u64,
    /// The largest resident set a runner saw, in bytes.
    pub peak_memory: Option<u64>,
    /// Why it failed: the first error of a step, or what stopped it.
    pub error: Option<Error>,
    /// Things to know about the run as a whole: what was recovered before it began.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Runs of awaited pipelines that this run had to do first.
    #[serde(default)]
    pub awaited: Vec<RunReport>,
}

impl RunReport {
    /// Whether every step succeeded or was skipped on purpose.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.state == RunState::Success
    }

    /// The steps that ended in `state`.
    pub fn steps_in(&self, state: StepState) -> impl Iterator<Item = &StepReport> {
        self.steps.iter().filter(move |step| step.state == state)
    }
}
