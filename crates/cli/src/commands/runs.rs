//! `gristmill runs`: what has run, the newest first.

use crate::args::RunsArgs;
use crate::context;
use crate::exit::Outcome;
use crate::printer::{Cell, Printer, Table, Tone, time};
use gristmill_model::Result;
use gristmill_orchestrator::store::{RunFilter, RunRecord};
use gristmill_orchestrator::{RunState, Store};

/// Lists runs.
pub(crate) async fn run(args: &RunsArgs, printer: &Printer) -> Result<Outcome> {
    let project = context::load(&args.project.project, args.project.profile.as_deref()).await?;
    let filter = RunFilter {
        pipeline: args.pipeline.as_deref().map(|name| context::pipeline(&project, Some(name))).transpose()?,
        // Without --profile: the runs of all of them; the table says which.
        profile: args.project.profile.clone().map(Some),
        limit: Some(args.limit),
        ..RunFilter::default()
    };
    let runs = match context::existing_store(&project).await? {
        Some(store) => store.runs(&filter).await?,
        None => Vec::new(),
    };
    if runs.is_empty() {
        printer.note("no runs yet; begin one with `gristmill run`");
    } else {
        table(&runs).print(printer, "")?;
    }
    printer.document(&runs)?;
    Ok(Outcome::Done)
}

fn table(runs: &[RunRecord]) -> Table {
    let mut table = Table::new(&["run", "pipeline", "profile", "interval", "state", "started", "time>", "error"]);
    for run in runs {
        let took = run.ended.map(|ended| (ended - run.started).num_milliseconds());
        let error = run.error.as_ref().map(ToString::to_string).unwrap_or_default();
        table.row([
            run.id.as_str().into(),
            run.pipeline.as_str().into(),
            run.profile.clone().unwrap_or_default().into(),
            run.interval.to_string().into(),
            Cell::toned(run.state.as_str(), tone(run.state)),
            run.started.format("%Y-%m-%d %H:%M:%S").to_string().into(),
            took.and_then(|millis| u64::try_from(millis).ok()).map(time).unwrap_or_default().into(),
            Cell::toned(shortened(error.lines().next().unwrap_or_default(), 80), Tone::Bad),
        ]);
    }
    table
}

pub(super) fn tone(state: RunState) -> Tone {
    match state {
        RunState::Success => Tone::Good,
        RunState::Failed => Tone::Bad,
        RunState::Canceled => Tone::Warning,
        RunState::Running => Tone::Dim,
    }
}

/// The first `most` characters, with an ellipsis where more follow.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_cut_between_characters() {
        assert_eq!(shortened("größer", 4), "grö…");
        assert_eq!(shortened("kurz", 4), "kurz");
    }
}
