//! `gristmill recover`: finishes or undoes what runs that died have left.

use crate::args::RecoverArgs;
use crate::exit::Outcome;
use crate::printer::Printer;
use crate::progress::Progress;
use crate::{context, local_engine};
use gristmill_model::{CancellationToken, Result};
use gristmill_orchestrator::{Driver, DriverOptions};

/// Recovers.
pub(crate) async fn run(args: &RecoverArgs, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    let project = context::load(&args.project.project, args.project.profile.as_deref()).await?;
    if !project.state.is_dir() {
        printer.line("nothing has run here yet; there is nothing to recover")?;
        printer.document(&serde_json::json!({"dead": [], "notes": []}))?;
        return Ok(Outcome::Done);
    }
    let store = context::open_state(&project).await?;
    let runner = local_engine::runner(context::engine_options(&project, None))?;
    let progress = Progress::new(printer);
    let options = DriverOptions { cancel, ..DriverOptions::default() };
    let recovered = Driver::new(project, store, runner, progress.events(), options).recover(true).await;
    progress.finish();
    let recovered = recovered?;
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
