//! Which loads read incremental extracts, and what that rules out.

use super::{Dag, Node};
use gristmill_model::StepName;
use gristmill_model::spec::{PipelineSpec, StepBody, Strategy};
use gristmill_model::yaml::Diagnostic;
use std::collections::BTreeSet;

impl Dag {
    /// The incremental extracts an action reads, directly or through other views.
    #[must_use]
    pub fn cursors(&self, spec: &PipelineSpec, action: &str) -> Vec<StepName> {
        self.views(action).into_iter().filter(|view| is_incremental(spec, view.as_str())).collect()
    }

    /// Makes the loads that read incremental extracts take the place of everything that was loaded before, since a full
    /// refresh reads everything again. `merge` and `scd2` do so by themselves once they know that it is everything. Done to the pipeline itself, so that whoever finishes such a load knows, too.
    pub fn refresh_fully(&self, spec: &mut PipelineSpec) {
        let names: Vec<StepName> = spec.steps.iter().map(|step| step.name.clone()).collect();
        let refreshed: BTreeSet<StepName> =
            names.into_iter().filter(|name| !self.cursors(spec, name.as_str()).is_empty()).collect();
        for step in &mut spec.steps {
            if let StepBody::Load(load) = &mut step.body
                && refreshed.contains(&step.name)
            {
                match load.strategy {
                    // Everything is read, so what does not come is gone; history and the time of creation stay.
                    Strategy::Merge | Strategy::Scd2 => (load.delete_missing, load.insert_only) = (true, false),
                    // What it goes by is the source's key, which is not known here: all of the target is its scope.
                    Strategy::DeleteInsert if load.key.0.is_empty() => load.scope = Some("1 = 1".to_owned()),
                    // The key stays: it tells which of them append otherwise.
                    _ => load.strategy = Strategy::Replace,
                }
            }
        }
    }
}

fn is_incremental(spec: &PipelineSpec, step: &str) -> bool {
    let body = spec.step(step).map(|step| &step.body);
    matches!(body, Some(StepBody::Extract(extract)) if extract.incremental_key.is_some())
}

/// Loads that would drop what earlier runs have loaded, since they only get what is new.
pub(super) fn mistakes(spec: &PipelineSpec, nodes: &[Node]) -> Vec<Diagnostic> {
    let mut mistakes = Vec::new();
    for step in &spec.steps {
        let StepBody::Load(load) = &step.body else { continue };
        let drops = match load.strategy {
            Strategy::Replace => "`strategy: replace` would drop",
            Strategy::TruncateInsert => "`strategy: truncate+insert` would drop",
            Strategy::Merge | Strategy::Scd2 if load.delete_missing => "`delete_missing` would drop",
            Strategy::PartitionOverwrite => "`strategy: partition_overwrite` would drop partitions of",
            Strategy::DeleteInsert if load.scope.is_some() => "`scope` would drop",
            _ => continue,
        };
        let Some(start) = nodes.iter().position(|node| node.name == step.name) else { continue };
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(position) = open.pop() {
            if seen.insert(position) {
                open.extend(&nodes[position].reads);
            }
        }
        let found = seen.iter().map(|position| &nodes[*position].name).find(|name| is_incremental(spec, name.as_str()));
        if let Some(extract) = found {
            mistakes.push(step.place.diagnostic(
                format!(
                    "{drops} what earlier runs have loaded: `{}` gets only what is new of `{extract}`, which has an \
                     `incremental_key`",
                    step.name
                ),
                Some("use `append`, or `delete+insert` or `merge` with a `key`".to_owned()),
            ));
        }
    }
    mistakes
}
