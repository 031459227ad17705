//! Everything that can be found wrong without looking at the world.

use super::render::step_names;
use super::{Draft, Project};
use crate::dag::{Dag, circles};
use gristmill_model::one_of;
use gristmill_model::spec::{PipelineSpec, StepBody};
use gristmill_model::yaml::Diagnostic;

impl Project {
    /// Looks over all pipelines, rendered for a sample day with the default parameters: files, templates, steps, SQL,
    /// cycles, waits between pipelines. Reads SQL files and blocks meanwhile; asks no connection.
    #[must_use]
    pub fn validate(&self) -> Vec<Diagnostic> {
        let mut mistakes = Vec::new();
        let names = || self.drafts.iter().map(|draft| draft.name.as_str());
        if let (Some(main), Some(place)) = (&self.spec.main, &self.main_place)
            && !names().any(|name| name == main.as_str())
        {
            let message = format!("`main` names the pipeline `{main}`, which does not exist");
            mistakes.push(place.diagnostic(message, Some(one_of(main.as_str(), names()))));
        }
        let mut specs: Vec<PipelineSpec> = Vec::new();
        for draft in &self.drafts {
            let (spec, found) = self.render_partly(draft, &self.sample_context(draft));
            mistakes.extend(found);
            let Some(spec) = spec else { continue };
            let written = draft.node.as_ref().map(step_names).unwrap_or_default();
            let left_out: Vec<&str> = written.into_iter().filter(|name| spec.step(name).is_none()).collect();
            mistakes.extend(Dag::mistakes(&spec, &left_out));
            self.check_waits(&spec, &mut mistakes);
            specs.push(spec);
        }
        wait_cycles(&specs, &mut mistakes);
        mistakes
    }

    fn check_waits(&self, spec: &PipelineSpec, mistakes: &mut Vec<Diagnostic>) {
        for step in &spec.steps {
            let StepBody::WaitFor(wait) = &step.body else { continue };
            let awaited: Option<&Draft> = self.drafts.iter().find(|draft| draft.name == wait.pipeline);
            let Some(awaited) = awaited else {
                let names = self.drafts.iter().map(|draft| draft.name.as_str());
                mistakes.push(step.place.diagnostic(
                    format!("step `{}` waits for the pipeline `{}`, which does not exist", step.name, wait.pipeline),
                    Some(one_of(wait.pipeline.as_str(), names)),
                ));
                continue;
            };
            if let (Some(wanted), Ok(node)) = (&wait.step, &awaited.node) {
                let names = step_names(node);
                if !names.contains(&wanted.written()) {
                    mistakes.push(step.place.diagnostic(
                        format!(
                            "step `{}` waits for the step `{wanted}` of `{}`, which does not exist",
                            step.name, wait.pipeline
                        ),
                        Some(one_of(wanted.as_str(), names)),
                    ));
                }
            }
        }
    }
}

/// Pipelines that wait for each other in a circle never begin, whatever the dates: each of them waits for a run of the
/// same date or of a fixed one, so the circle comes round to the same date sooner or later.
fn wait_cycles(specs: &[PipelineSpec], mistakes: &mut Vec<Diagnostic>) {
    let awaited = |spec: &PipelineSpec| -> Vec<usize> {
        let names = spec.steps.iter().filter_map(|step| match &step.body {
            StepBody::WaitFor(wait) => Some(&wait.pipeline),
            _ => None,
        });
        names.filter_map(|name| specs.iter().position(|spec| spec.name == *name)).collect()
    };
    let edges: Vec<Vec<usize>> = specs.iter().map(awaited).collect();
    for circle in circles(&edges) {
        let spec = &specs[circle[0]];
        let next = circle.get(1).map(|&at| &specs[at].name);
        let step = spec.steps.iter().find(|step| match &step.body {
            StepBody::WaitFor(wait) => Some(&wait.pipeline) == next,
            _ => false,
        });
        let names: Vec<&str> = circle.iter().map(|&at| specs[at].name.as_str()).collect();
        if let Some(step) = step {
            mistakes.push(step.place.diagnostic(
                format!("pipelines wait for each other: {}", names.join(" → ")),
                Some("take one of the `wait_for` steps out".to_owned()),
            ));
        }
    }
}
