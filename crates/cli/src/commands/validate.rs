//! `gristmill validate`: every mistake in the files, without calling anything outside.

use crate::args::ValidateArgs;
use crate::exit::{self, Outcome};
use crate::printer::{Printer, Tone};
use crate::{context, local_engine};
use arrow::datatypes::Schema;
use chrono::NaiveDate;
use gristmill_connect::{LoadContext, OpenContext, registry};
use gristmill_model::spec::{ExtractSpec, StepBody};
use gristmill_model::yaml::Diagnostic;
use gristmill_model::{ConnectionName, Interval, LoadKey, OwnerId, PipelineName, Result, RunId, Slot, StepName};
use gristmill_orchestrator::Project;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Validates.
pub(crate) async fn run(args: &ValidateArgs, printer: &Printer) -> Result<Outcome> {
    let (project, mut mistakes) = context::load_to_validate(&args.path, args.profile.as_deref()).await?;
    let checked = project.clone();
    let found = tokio::task::spawn_blocking(move || {
        let mut found = checked.validate();
        found.extend(connectors(&checked));
        found
    })
    .await
    .map_err(|error| gristmill_model::Error::internal("validating ended early").cause(error))?;
    mistakes.extend(found);
    mistakes.sort_by(|a, b| (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message)));
    mistakes.dedup();
    printer.document(&serde_json::json!({
        "project": project.spec.name,
        "pipelines": project.pipelines().iter().map(|draft| draft.name.as_str()).collect::<Vec<_>>(),
        "mistakes": mistakes,
    }))?;
    if mistakes.is_empty() {
        let pipelines = project.pipelines().len();
        let word = if pipelines == 1 { "pipeline" } else { "pipelines" };
        printer.line(format!("{} {} ({pipelines} {word})", printer.paint(Tone::Good, "fine:"), project.spec.name))?;
        return Ok(Outcome::Done);
    }
    for mistake in &mistakes {
        let place = format!("{}:{}:{}:", mistake.file, mistake.line, mistake.column);
        printer.line(format!("{} {}", printer.paint(Tone::Strong, place), mistake.message))?;
        if let Some(hint) = &mistake.hint {
            printer.line(format!("  {} {hint}", printer.paint(Tone::Good, "hint:")))?;
        }
    }
    let word = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
    printer.line(printer.paint(Tone::Bad, format!("{} {word}", mistakes.len())))?;
    Ok(Outcome::Ended(exit::COULD_NOT_RUN))
}

/// A load of which nothing is known but what its step says: what is wrong for any rows is wrong for these.
fn unstaged(pipeline: &PipelineName, step: &StepName, open: &OpenContext) -> LoadContext {
    let interval = Interval::day(NaiveDate::default());
    let slot = Slot { pipeline: pipeline.clone(), step: step.clone(), interval, target: String::new() };
    LoadContext {
        key: LoadKey { slot, generation: 1 },
        owner: OwnerId(RunId::from("validate")),
        schema: Arc::new(Schema::empty()),
        source_key: Vec::new(),
        alone: false,
        open: open.clone(),
        ledger_retention: None,
    }
}

/// What only the connectors know: their keys, and which extracts and loads they can serve. Nothing outside is called.
fn connectors(project: &Arc<Project>) -> Vec<Diagnostic> {
    let open = context::open_context(project);
    let mut mistakes = Vec::new();
    let mut opened = BTreeMap::new();
    for (name, node) in &project.connections {
        match registry::open(node, &open) {
            Ok(connection) => {
                opened.insert(name.clone(), connection);
            }
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    for draft in project.pipelines() {
        // What cannot be understood has been reported by the project itself.
        let Some(pipeline) = project.sample(draft) else { continue };
        for step in &pipeline.steps {
            let complaint = match &step.body {
                StepBody::Extract(extract) => {
                    // Which tables a pattern takes is known to the database alone; one of them is like any other.
                    let one = extract.tables.is_some().then(|| ExtractSpec {
                        table: Some("one_of_them".to_owned()),
                        tables: None,
                        exclude: None,
                        ..extract.clone()
                    });
                    let extract = one.as_ref().unwrap_or(extract);
                    opened.get::<ConnectionName>(&extract.from).and_then(|connection| connection.source(extract).err())
                }
                StepBody::Load(load) => opened
                    .get::<ConnectionName>(&load.to)
                    .and_then(|connection| connection.sink(load, unstaged(&pipeline.name, &step.name, &open)).err()),
                StepBody::Generate(generate) => local_engine::generator_problem(generate),
                _ => None,
            };
            if let Some(error) = complaint {
                let mut message = error.message().to_owned();
                if let Some(cause) = error.cause_text() {
                    message.push_str(&format!(": {cause}"));
                }
                mistakes.push(step.place.diagnostic(message, error.hint_text().map(str::to_owned)));
            }
        }
    }
    mistakes
}
