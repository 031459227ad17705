//! `gristmill run`: one date, or every date of a range.

use super::compare;
use crate::args::RunArgs;
use crate::exit::{self, Outcome};
use crate::printer::Printer;
use crate::progress::Progress;
use crate::{compactions, context, local_engine, report};
use gristmill_model::{CancellationToken, Error, ErrorKind, Result, StepName};
use gristmill_orchestrator::{Driver, DriverOptions, RunReport, RunRequest, RunState};

/// Runs the pipeline.
pub(crate) async fn run(args: RunArgs, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    if args.compare {
        return compare::run(&args, printer, cancel).await;
    }
    let range = match (args.from, args.to) {
        (Some(from), Some(to)) if to < from => {
            return Err(Error::new(ErrorKind::Usage, format!("the range ends ({to}) before it begins ({from})"))
                .hint(format!("swap them: `--from {to} --to {from}`")));
        }
        (Some(from), Some(to)) => Some((from, to)),
        _ => None,
    };
    let project = context::load(&args.pipeline.path, args.pipeline.profile.as_deref()).await?;
    let pipeline = context::pipeline(&project, args.pipeline.pipeline.as_deref())?;
    let interval = match range {
        Some((from, _)) => gristmill_model::Interval::day(from),
        None => context::interval(args.date, printer)?,
    };
    let request = RunRequest {
        pipeline,
        interval,
        params: context::params(&args.pipeline.params),
        selection: args.step.as_deref().map(StepName::from),
        full_refresh: args.full_refresh,
        replay: None,
    };
    let mut options = context::engine_options(&project, args.memory);
    options.collect = args.collect;
    let store = context::open_state(&project).await?;
    let runner = local_engine::runner(options)?;
    compactions::recover(Some(&project), &cancel).await?.into_iter().for_each(|note| printer.note(note));
    let progress = Progress::new(printer);
    let driver =
        Driver::new(project, store, runner, progress.events(), DriverOptions { cancel, ..DriverOptions::default() });
    let outcome = match range {
        Some((from, to)) => driver.run_many(&request, from, to).await,
        None => driver.run(&request).await.map(|report| vec![report]),
    };
    progress.finish();
    let reports = outcome?;
    let outcome = conclude(printer, &reports, range.is_some());
    if let (Some((_, to)), Some(last)) = (range, reports.last())
        && let Some(next) = last.interval.date().succ_opt().filter(|next| *next <= to)
    {
        let left = (to - next).num_days() + 1;
        let dates = if left == 1 { next.to_string() } else { format!("{next} to {to} ({left} dates)") };
        printer.warning(format!("not run, since {} did not succeed: {dates}", last.interval));
    }
    outcome
}

/// Prints the reports, the error last, and answers with the exit code of the last run: the others have succeeded.
pub(crate) fn conclude(printer: &Printer, reports: &[RunReport], many: bool) -> Result<Outcome> {
    for (at, one) in reports.iter().enumerate() {
        if at > 0 {
            printer.line("")?;
        }
        if !printer.json() {
            report::print(printer, one)?;
        }
    }
    match reports {
        // One date gives one report; a range gives a list, even of one day, so that a script can rely on it.
        [one] if !many => printer.document(one)?,
        several => printer.document(&several)?,
    }
    let Some(last) = reports.last() else { return Ok(Outcome::Done) };
    if let Some(error) = &last.error {
        printer.error(error);
    }
    Ok(match (last.state, &last.error) {
        (RunState::Success, _) => Outcome::Done,
        (RunState::Canceled, _) => Outcome::Ended(exit::INTERRUPTED),
        (RunState::Failed | RunState::Running, Some(error)) => Outcome::Ended(exit::code_of(error)),
        (RunState::Failed | RunState::Running, None) => Outcome::Ended(exit::FAILED),
    })
}
