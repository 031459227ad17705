//! `gristmill show`: one run.

use super::runs::tone;
use crate::args::ShowArgs;
use crate::exit::Outcome;
use crate::printer::{Cell, Printer, Table, Tone, number};
use crate::{context, report};
use gristmill_model::{Error, ErrorKind, LoadReport, Result};
use gristmill_orchestrator::Store;
use gristmill_orchestrator::store::{RunRecord, StepRecord, find_run};

/// Shows the run.
pub(crate) async fn run(args: &ShowArgs, printer: &Printer) -> Result<Outcome> {
    let project = context::load(&args.project.project, args.project.profile.as_deref()).await?;
    let Some(store) = context::existing_store(&project).await? else {
        return Err(Error::new(ErrorKind::NotFound, "there are no runs yet").hint("begin one with `gristmill run`"));
    };
    let record = find_run(store.as_ref(), &args.run).await?;
    let steps = store.steps(&record.id).await?;
    if !printer.json() {
        match &record.report {
            Some(done) => report::print(printer, done)?,
            None => unfinished(printer, &record, &steps)?,
        }
        printer.line(format!("started {}", record.started.format("%Y-%m-%d %H:%M:%S UTC")))?;
        for (key, value) in &record.params {
            printer.line(format!("param {key}={value}"))?;
        }
        loads(printer, &steps)?;
        attempts(printer, &steps)?;
        if let Some(error) = &record.error {
            printer.line(format!("{} {error}", printer.paint(Tone::Bad, "error:")))?;
        }
    }
    printer.document(&serde_json::json!({"run": record, "steps": steps}))?;
    Ok(Outcome::Done)
}

/// A run that goes on, or whose process died before it could report.
fn unfinished(printer: &Printer, record: &RunRecord, steps: &[StepRecord]) -> Result<()> {
    let state = printer.paint(tone(record.state), record.state.as_str());
    printer.line(format!("{} for {}: {state}", record.pipeline, record.interval))?;
    let mut table = Table::new(&["step", "kind", "state", "attempts>"]);
    for step in steps {
        let attempts = step.attempts.len();
        table.row([
            step.step.as_str().into(),
            step.kind.as_str().into(),
            step.state.as_str().into(),
            if attempts == 0 { Cell::default() } else { attempts.to_string().into() },
        ]);
    }
    table.print(printer, "  ")
}

/// What the targets hold of the run: each load with its key, rows, files, strategy, cursor, and when it was committed.
fn loads(printer: &Printer, steps: &[StepRecord]) -> Result<()> {
    let loads: Vec<_> = steps
        .iter()
        .filter_map(|step| Some((step.step.as_str(), step.report.as_ref().and_then(|report| report.load.as_ref())?)))
        .collect();
    if loads.is_empty() {
        return Ok(());
    }
    printer.line("committed loads")?;
    let mut table = Table::new(&["step", "strategy", "rows>", "files>", "committed", "cursor", "key"]);
    for (step, load) in loads {
        table.row([
            step.into(),
            load.strategy.as_str().into(),
            number(load.rows).into(),
            if load.files > 0 { number(load.files).into() } else { Cell::default() },
            load.at.format("%Y-%m-%d %H:%M:%S UTC").to_string().into(),
            cursors(load).into(),
            load.key.as_str().into(),
        ]);
    }
    table.print(printer, "  ")
}

/// How far the extracts of a load have come: `orders: 1200`, or nothing.
fn cursors(load: &LoadReport) -> String {
    let text = |value: &Option<serde_json::Value>| match value {
        None => "nothing yet".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let each: Vec<String> = load.cursors.iter().map(|(step, value)| format!("{step}: {}", text(value))).collect();
    each.join(", ")
}

/// Attempts that failed, before the one that counts.
fn attempts(printer: &Printer, steps: &[StepRecord]) -> Result<()> {
    for step in steps.iter().filter(|step| step.attempts.len() > 1) {
        for attempt in &step.attempts {
            if let Some(error) = &attempt.error {
                printer.line(format!(
                    "  {} attempt {} at {}: {error}",
                    step.step,
                    attempt.attempt,
                    attempt.started.format("%H:%M:%S")
                ))?;
            }
        }
    }
    Ok(())
}
