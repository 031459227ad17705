//! What a run would do, without doing it.

use crate::resolve::Origin;
use crate::session::Engine;
use crate::stage::{Group, Pass};
use datafusion::physical_plan::displayable;
use gristmill_model::spec::StepBody;
use gristmill_model::{JobSpec, Result, StepKind, StepName};
use serde::Serialize;
use std::sync::Arc;

/// The plan of one stage group.
#[derive(Debug, Clone, Serialize)]
pub struct PlanReport {
    /// The views, in the order they are computed.
    pub views: Vec<ViewPlan>,
    /// The actions.
    pub actions: Vec<ActionPlan>,
}

/// How one view is read or computed.
#[derive(Debug, Clone, Serialize)]
pub struct ViewPlan {
    /// The step.
    pub step: StepName,
    /// What it is.
    pub kind: StepKind,
    /// Estimated rows, where they can be told.
    pub rows: Option<u64>,
    /// Work units; 0 for a query, the files for the engine's own scan.
    pub units: usize,
    /// Why it is read so.
    pub why: String,
    /// One of the units, as an example.
    pub sample: Option<String>,
    /// What the source itself does.
    pub pushed_down: Vec<String>,
    /// How far the units agree on one picture of the source.
    pub consistency: Option<String>,
    /// What becomes of a unit that fails for a passing reason.
    pub retry: Option<String>,
    /// Computed once for several readers, or because it has checks.
    pub piped: bool,
}

/// How one action is carried out.
#[derive(Debug, Clone, Serialize)]
pub struct ActionPlan {
    /// The step.
    pub step: StepName,
    /// What it is.
    pub kind: StepKind,
    /// Where the rows go, for a load.
    pub target: Option<String>,
    /// How they meet what is there, for a load.
    pub strategy: Option<String>,
    /// What its commit would change in the target beside the rows: columns that are added, partitions that are dropped.
    pub changes: Vec<String>,
    /// DataFusion's physical plan, indented.
    pub physical: String,
}

impl Engine {
    /// Plans a stage group as a run would, and says what it found.
    ///
    /// # Errors
    /// Whatever would keep the run from beginning.
    pub async fn explain(self: &Arc<Self>, job: &JobSpec) -> Result<PlanReport> {
        let group = Group::plan(self, job, Pass::Explain).await?;
        let piped: Vec<&StepName> = group.resolver.pipes.iter().map(|job| &job.step).collect();
        let mut views = Vec::new();
        for view in &group.resolver.views {
            let mut plan = ViewPlan {
                step: view.step.clone(),
                kind: view.kind,
                rows: view.meter.expected(),
                units: 0,
                why: String::new(),
                sample: None,
                pushed_down: Vec::new(),
                consistency: None,
                retry: None,
                piped: piped.contains(&&view.step),
            };
            match &view.origin {
                Origin::Native(table) => {
                    plan.units = table.files();
                    plan.why = table.describe_plan();
                }
                Origin::Extract(table) => {
                    if let Ok(planned) = table.planned.lock()
                        && let Some(read) = planned.as_ref()
                    {
                        plan.units = read.units.len();
                        plan.why.clone_from(&read.why);
                        plan.sample = read.units.first().map(|unit| unit.label.clone());
                        plan.pushed_down.clone_from(&read.pushed_down);
                        plan.consistency = Some(read.consistency.as_str().to_owned());
                        plan.retry = Some(read.retry.as_str().to_owned());
                    }
                }
                Origin::Query => "a query over the steps above".clone_into(&mut plan.why),
            }
            views.push(plan);
        }
        let mut actions = Vec::new();
        for action in &group.actions {
            let mut physical = String::new();
            for pipe in group.resolver.pipes.iter().filter(|pipe| pipe.step == action.step.name) {
                physical.push_str(&displayable(pipe.plan.as_ref()).indent(false).to_string());
            }
            if let Some(load) = &action.load {
                physical.push_str(&displayable(load.plan.as_ref()).indent(false).to_string());
            }
            let strategy = match &action.step.body {
                StepBody::Load(load) => Some(load.strategy.as_str().to_owned()),
                _ => None,
            };
            actions.push(ActionPlan {
                step: action.step.name.clone(),
                kind: action.step.body.kind(),
                target: action.load.as_ref().map(|load| load.key.slot.target.clone()),
                strategy,
                changes: action.load.as_ref().map(|load| load.notes.clone()).unwrap_or_default(),
                physical,
            });
        }
        for pipe in &group.resolver.pipes {
            if let Some(view) = group.resolver.views.iter().find(|view| view.step == pipe.step) {
                actions.insert(
                    0,
                    ActionPlan {
                        step: view.step.clone(),
                        kind: view.kind,
                        target: None,
                        strategy: None,
                        changes: Vec::new(),
                        physical: displayable(pipe.plan.as_ref()).indent(false).to_string(),
                    },
                );
            }
        }
        Ok(PlanReport { views, actions })
    }
}
