//! The graph of a pipeline's steps: what depends on what, what is staged together, in which order. Pure.

use gristmill_model::spec::PipelineSpec;
use gristmill_model::yaml::Diagnostic;
use gristmill_model::{Error, Result, StepKind, StepName};
use std::collections::BTreeSet;

/// The graph of a pipeline's steps.
#[derive(Debug, Clone)]
pub struct Dag {
    nodes: Vec<()>,
}

/// Actions (loads and checks) that are staged together in one job, because they read a shared view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageGroup {
    /// The loads and checks, in the order of the graph.
    pub actions: Vec<StepName>,
    /// The views they read, directly or through other views, in the order of the graph.
    pub views: Vec<StepName>,
    /// Those of the views that are computed once, because several of the actions (or of the shared views) read them.
    pub shared: Vec<StepName>,
}

/// What a task of a run does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskKind {
    /// Stage a group, then, for its loads, commit.
    Stage(StageGroup),
    /// Run a command.
    Command(StepName),
    /// Wait for another pipeline.
    WaitFor(StepName),
}

/// One task of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What it does.
    pub kind: TaskKind,
    /// Tasks that must be done (loads: committed) before it may begin, as positions in [`RunPlan::tasks`].
    pub needs: Vec<usize>,
    /// How many loads are on the longest way to it: loads of one wave are committed when all tasks of the wave have
    /// been staged and audited.
    pub wave: usize,
    /// Whether it has loads, so that something is to be committed.
    pub loads: bool,
}

/// What a run does, task by task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlan {
    /// The tasks; each comes after those it needs.
    pub tasks: Vec<Task>,
}

impl Task {
    /// The actions of the task.
    #[must_use]
    pub fn actions(&self) -> &[StepName] {
        match &self.kind {
            TaskKind::Stage(group) => &group.actions,
            TaskKind::Command(step) | TaskKind::WaitFor(step) => std::slice::from_ref(step),
        }
    }
}

impl Dag {
    /// Reads the graph off a rendered pipeline (its SQL files read).
    ///
    /// # Errors
    /// Everything wrong, each with its place: SQL that does not parse, a table that is no step, a step without rows
    /// that is read, a cycle.
    pub fn new(spec: &PipelineSpec) -> Result<Self, Vec<Diagnostic>> {
        let _ = spec;
        Ok(Self { nodes: Vec::new() })
    }

    /// Every step, each after those it depends on; otherwise in the order of the file.
    #[must_use]
    pub fn order(&self) -> Vec<&StepName> {
        let _ = &self.nodes;
        Vec::new()
    }

    /// What a step is.
    #[must_use]
    pub fn kind(&self, _step: &str) -> Option<StepKind> {
        None
    }

    /// The views whose rows a step reads itself: tables of its query, `from`, relationships.
    #[must_use]
    pub fn reads(&self, _step: &str) -> Vec<&StepName> {
        Vec::new()
    }

    /// The steps a step waits for itself by `after`.
    #[must_use]
    pub fn after(&self, _step: &str) -> Vec<&StepName> {
        Vec::new()
    }

    /// Every step that must come before, at any distance.
    #[must_use]
    pub fn upstream(&self, _step: &str) -> BTreeSet<StepName> {
        BTreeSet::new()
    }

    /// Every step that comes after, at any distance.
    #[must_use]
    pub fn downstream(&self, _step: &str) -> BTreeSet<StepName> {
        BTreeSet::new()
    }

    /// The views an action reads, directly or through other views, in the order of the graph.
    #[must_use]
    pub fn views(&self, _action: &str) -> Vec<StepName> {
        Vec::new()
    }

    /// Plans a run of all actions, or of one and what it needs.
    ///
    /// # Errors
    /// A selected step that does not exist or is a view; a pipeline without actions.
    pub fn plan(&self, _selection: Option<&StepName>) -> Result<RunPlan> {
        Err(Error::internal("not there yet"))
    }
}
