//! `gristmill recover`: finishes or undoes what runs and compactions that died have left.

use super::copy::{Target, folders, made_up, plain_load, surrounding};
use crate::args::RecoverArgs;
use crate::exit::Outcome;
use crate::place::Place;
use crate::printer::Printer;
use crate::{compactions, context, local_engine};
use gristmill_model::spec::Strategy;
use gristmill_model::{CancellationToken, EventSink, Result};
use gristmill_orchestrator::drive::Recovered;
use gristmill_orchestrator::store::{LoadRecord, RunFilter};
use gristmill_orchestrator::{Driver, DriverOptions, ONE_LINE, Project, RunState, Store};
use std::sync::Arc;

/// Recovers.
pub(crate) async fn run(args: &RecoverArgs, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    let project = surrounding(&args.project.project, args.project.profile.as_deref()).await?;
    let (_, state) = folders(project.as_deref())?;
    if !state.is_dir() {
        printer.line("nothing has run here yet; there is nothing to recover")?;
        printer.document(&serde_json::json!({"dead": [], "notes": []}))?;
        return Ok(Outcome::Done);
    }
    let mut recovered = all(project.clone(), cancel.clone()).await?;
    recovered.notes.extend(compactions::recover(project.as_deref(), &cancel).await?);
    if recovered.dead.is_empty() && recovered.notes.is_empty() {
        printer.line("nothing to recover")?;
    }
    // The notes tell more, where there is one.
    let told = |run: &str| recovered.notes.iter().any(|note| note.contains(run));
    for run in recovered.dead.iter().filter(|run| !told(run.as_str())) {
        printer.line(format!("run {run} had died; it is recorded as failed"))?;
    }
    for note in &recovered.notes {
        printer.line(note)?;
    }
    printer.document(&serde_json::json!({"dead": recovered.dead, "notes": recovered.notes}))?;
    Ok(Outcome::Done)
}

/// The pipelines of the project, and whatever `copy` and `generate` have left here or, outside of a project, anywhere.
async fn all(project: Option<Arc<Project>>, cancel: CancellationToken) -> Result<Recovered> {
    let mut recovered = match &project {
        Some(project) => recover(project.clone(), &cancel).await?,
        None => Recovered::default(),
    };
    let is_a_pipeline =
        |project: &Arc<Project>| project.pipelines().iter().any(|draft| draft.name.as_str() == ONE_LINE);
    if project.as_ref().is_some_and(is_a_pipeline) {
        return Ok(recovered);
    }
    for load in copies(project.as_deref()).await? {
        let made = match of_copy(&load, project.as_deref()) {
            Ok(made) => made,
            Err(error) => {
                recovered.notes.push(format!("what `{}` left cannot be looked at: {error}", load.key));
                continue;
            }
        };
        let more = recover(made, &cancel).await?;
        recovered.dead.extend(more.dead);
        recovered.notes.extend(more.notes);
    }
    Ok(recovered)
}

async fn recover(project: Arc<Project>, cancel: &CancellationToken) -> Result<Recovered> {
    let store = context::open_state(&project).await?;
    let engine = context::engine_options(&project, None);
    let runner = local_engine::runner(engine.clone())?;
    let options = DriverOptions { cancel: cancel.clone(), ..DriverOptions::default() };
    let retention = project.spec.defaults.dead_letters.as_ref().and_then(|letters| letters.retention);
    // Everything it has to say is in its notes.
    let mut recovered = Driver::new(project, store, runner, EventSink::none(), options).recover(true).await?;
    if let Some(retention) = retention {
        match local_engine::expire_letters(engine).await {
            Ok(0) => {}
            Ok(files) => recovered.notes.push(format!("removed {files} files of dead letters, older than {retention}")),
            Err(error) => recovered.notes.push(format!("old dead letters could not be removed: {error}")),
        }
    }
    Ok(recovered)
}

/// The loads that copies began and have not ended.
async fn copies(project: Option<&Project>) -> Result<Vec<LoadRecord>> {
    let (_, state) = folders(project)?;
    let store = gristmill_orchestrator::SqliteStore::open(&state).await?;
    let filter = RunFilter { pipeline: Some(ONE_LINE.into()), ..RunFilter::default() };
    let mut loads = Vec::new();
    for run in store.runs(&filter).await? {
        if run.state != RunState::Success {
            loads.extend(store.unfinished(Some(&run.id)).await?);
        }
    }
    Ok(loads)
}

/// The project that the copy had made for itself, as far as the load's slot tells.
fn of_copy(load: &LoadRecord, project: Option<&Project>) -> Result<Arc<Project>> {
    let target = Place::of_slot(&load.key.slot.target, project)?;
    let spec = match &load.decided {
        Some(decided) => decided.spec.clone(),
        None => plain_load(&Target { place: &target, from: "src", format: None }, Some(Strategy::Replace))?,
    };
    let (root, state) = folders(project)?;
    let mut connections = project.map(|project| project.connections.clone()).unwrap_or_default();
    target.add_to(&mut connections);
    // The load reads something; a recovery does not.
    let mut steps = serde_json::Map::new();
    steps.insert(spec.from.to_string(), serde_json::json!({"generate": {"table": "people", "rows": 1}}));
    made_up(root, state, connections, steps, &spec)
}
