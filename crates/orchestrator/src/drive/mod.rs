//! The one DAG driver.

use crate::store::Store;
use crate::{Project, RunReport};
use chrono::NaiveDate;
use gristmill_model::{
    ByteSize, CancellationToken, Error, EventSink, Interval, JobRunner, PipelineName, Result, RunId, StepName,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs pipelines of a project. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Driver {
    project: Arc<Project>,
    store: Arc<dyn Store>,
    runner: Arc<dyn JobRunner>,
    events: EventSink,
    options: DriverOptions,
}

/// How a [`Driver`] works.
#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// Stops everything: running jobs are asked to end, what is staged is thrown away, the run ends as canceled.
    pub cancel: CancellationToken,
    /// A limit on resident memory for the runner; `defaults: {memory: …}` of the project where none is given.
    pub memory: Option<ByteSize>,
    /// At most so many tasks (stage groups, commands, waits) at once.
    pub max_active: usize,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self { cancel: CancellationToken::new(), memory: None, max_active: 4 }
    }
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The interval.
    pub interval: Interval,
    /// Parameters over the pipeline's defaults.
    pub params: BTreeMap<String, String>,
    /// Only this action and what it needs.
    pub selection: Option<StepName>,
    /// Replace everything instead of continuing from a checkpoint; also loads an `append` again.
    pub full_refresh: bool,
}

/// What [`Driver::recover`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Runs that were recorded as running and whose process is dead.
    pub dead: Vec<RunId>,
    /// What was finished, undone and swept away.
    pub notes: Vec<String>,
}

impl Driver {
    /// A driver for a project.
    pub fn new(
        project: Arc<Project>,
        store: Arc<dyn Store>,
        runner: Arc<dyn JobRunner>,
        events: EventSink,
        options: DriverOptions,
    ) -> Self {
        Self { project, store, runner, events, options }
    }

    /// Runs a pipeline for one interval, awaited pipelines of the project first.
    ///
    /// # Errors
    /// What keeps the run from beginning: a mistake in the pipeline, another run of the same pipeline and interval, a
    /// store that cannot be written. A run that began and failed is a report, not an error.
    pub async fn run(&self, request: &RunRequest) -> Result<RunReport> {
        let _ = (request, &self.project, &self.store, &self.runner, &self.events, &self.options);
        Err(Error::internal("not there yet"))
    }

    /// Runs a pipeline for every day from `first` to `last`, both inclusive, one after the other, and stops at the
    /// first run that does not succeed (its report is the last one). `request.interval` is not looked at.
    ///
    /// # Errors
    /// As [`Driver::run`]; `last` before `first`.
    pub async fn run_many(&self, request: &RunRequest, first: NaiveDate, last: NaiveDate) -> Result<Vec<RunReport>> {
        let _ = (request, first, last);
        Err(Error::internal("not there yet"))
    }

    /// Marks runs whose process died as failed and lets the runner finish or undo what they left in their targets.
    /// Every run does this for the newly dead before it begins; `thorough` looks at every unfinished load of every
    /// ended run again.
    ///
    /// # Errors
    /// A store that cannot be read or written. A target that cannot be recovered just now is a note.
    pub async fn recover(&self, thorough: bool) -> Result<Recovered> {
        let _ = thorough;
        Err(Error::internal("not there yet"))
    }
}
