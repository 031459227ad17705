//! The short report at the end of a run, and of `show`.
//!
//! The order is that of questions: which steps, how many rows, what was refused; how long and how much memory; what a
//! check has seen that did not pass; and last, where the eye rests, what went wrong and what to do.

use crate::printer::{Cell, Printer, Table, Tone, number, time};
use gristmill_model::spec::OnFail;
use gristmill_model::{ByteSize, Error, Interval, Result, StepReport, StepState};
use gristmill_orchestrator::{RunReport, RunState};

/// Prints a run's report as text.
pub(crate) fn print(printer: &Printer, report: &RunReport) -> Result<()> {
    for awaited in &report.awaited {
        print(printer, awaited)?;
        printer.line("")?;
    }
    let profile = report.profile.as_ref().map(|profile| format!(" under profile {profile}")).unwrap_or_default();
    printer
        .line(printer.paint(Tone::Strong, format!("{}{profile}", title(report.pipeline.as_str(), report.interval))))?;
    steps(&report.steps).print(printer, "  ")?;
    printer.line(summary(printer, report))?;
    for note in &report.notes {
        printer.line(format!("  {note}"))?;
    }
    for step in &report.steps {
        for note in &step.notes {
            printer.line(format!("  {}: {note}", step.step))?;
        }
    }
    // The first error ends the report; tables of many may have failed each by itself.
    let said = report.error.as_ref().map(Error::message);
    for step in report.steps.iter().filter(|step| step.kind.is_action() && step.state == StepState::Failed) {
        if let Some(error) = step.error.as_ref().filter(|error| Some(error.message()) != said) {
            printer.line(format!("  {}: {}: {}", step.step, printer.paint(Tone::Bad, "failed"), error.message()))?;
        }
    }
    checks(printer, report)
}

/// `orders for 2024-01-15`. What begins at a fraction of a second is a moment made up to be unique (`copy`), and nobody
/// wants to read it.
pub(crate) fn title(pipeline: &str, interval: Interval) -> String {
    if interval.start.timestamp_subsec_nanos() == 0 {
        format!("{pipeline} for {interval}")
    } else {
        pipeline.to_owned()
    }
}

/// `success in 1.2 s, peak memory 85.0 MB, run 0192…`.
fn summary(printer: &Printer, report: &RunReport) -> String {
    let tone = match report.state {
        RunState::Success => Tone::Good,
        RunState::Running => Tone::Dim,
        RunState::Failed | RunState::Canceled => Tone::Bad,
    };
    let mut line = format!("{} in {}", printer.paint(tone, report.state.as_str()), time(report.millis));
    if let Some(peak) = report.peak_memory {
        line.push_str(&format!(", peak memory {}", ByteSize(peak)));
    }
    line.push_str(&printer.paint(Tone::Dim, format!(", run {}", report.run)));
    line
}

/// The table of steps.
fn steps(steps: &[StepReport]) -> Table {
    let headings =
        ["step", "kind", "state", "rows in>", "rows out>", "rejects>", "checks", "files>", "bytes>", "time>"];
    let mut table = Table::new(&headings);
    for step in steps {
        let count = |value: Option<u64>| Cell::from(value.map(number).unwrap_or_default());
        let bytes = if step.output.files > 0 { Some(step.output.bytes) } else { step.bytes_in };
        let retried = if step.attempts > 1 { format!(" ({} attempts)", step.attempts) } else { String::new() };
        table.row([
            step.step.as_str().into(),
            step.kind.as_str().into(),
            Cell::toned(format!("{}{retried}", step.state.as_str()), tone(step.state)),
            count(step.rows_in),
            count(step.rows_out),
            match step.rejects {
                0 => Cell::default(),
                rejects => Cell::toned(number(rejects), Tone::Warning),
            },
            checks_cell(step),
            count(Some(step.output.files).filter(|files| *files > 0)),
            bytes.filter(|bytes| *bytes > 0).map(|bytes| ByteSize(bytes).to_string()).unwrap_or_default().into(),
            if step.millis > 0 { time(step.millis).into() } else { Cell::default() },
        ]);
    }
    table
}

fn tone(state: StepState) -> Tone {
    match state {
        StepState::Success => Tone::Good,
        StepState::Failed => Tone::Bad,
        StepState::UpstreamFailed | StepState::Canceled => Tone::Warning,
        StepState::Pending | StepState::Running | StepState::Staged | StepState::Skipped => Tone::Dim,
    }
}

/// `6 passed`, or `5 passed, 1 failed`; a check that only sends rows away or warns has `1 noted`.
fn checks_cell(step: &StepReport) -> Cell {
    let count = |wanted: fn(&gristmill_model::CheckReport) -> bool| step.checks.iter().filter(|c| wanted(c)).count();
    let passed = count(|check| check.passed);
    let failed = count(|check| !check.passed && check.on_fail == OnFail::Fail);
    let noted = count(|check| !check.passed && check.on_fail != OnFail::Fail);
    let parts: Vec<String> = [(passed, "passed"), (noted, "noted"), (failed, "failed")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let text = parts.join(", ");
    match (failed, noted) {
        (0, 0) => text.into(),
        (0, _) => Cell::toned(text, Tone::Warning),
        _ => Cell::toned(text, Tone::Bad),
    }
}

/// What each check that did not pass has seen.
fn checks(printer: &Printer, report: &RunReport) -> Result<()> {
    for step in &report.steps {
        for check in step.checks.iter().filter(|check| !check.passed) {
            let (tone, word) = match check.on_fail {
                OnFail::Fail => (Tone::Bad, "failed"),
                OnFail::Warn => (Tone::Warning, "warned"),
                OnFail::Drop => (Tone::Warning, "dropped rows"),
                OnFail::DeadLetter => (Tone::Warning, "sent rows to dead letters"),
            };
            let colon = if check.observed.is_empty() { "" } else { ": " };
            printer.line(format!(
                "  check {} of {} {}{colon}{}",
                check.name,
                step.step,
                printer.paint(tone, word),
                check.observed
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_model::{CheckReport, FileSummary, StepKind};

    fn step(name: &str, kind: StepKind) -> StepReport {
        StepReport { state: StepState::Success, millis: 1_200, attempts: 1, ..StepReport::new(name.into(), kind) }
    }

    fn check(name: &str, on_fail: OnFail, unexpected: u64) -> CheckReport {
        let observed = if unexpected == 0 { String::new() } else { "501, 502".to_owned() };
        CheckReport {
            name: name.to_owned(),
            passed: unexpected == 0,
            on_fail,
            rows: 27_000,
            unexpected,
            observed,
            sample: Vec::new(),
        }
    }

    #[test]
    fn a_column_that_no_step_fills_is_left_out() {
        let table = steps(&[step("cleaned", StepKind::Sql)]);
        let heading = &table.plain()[0];
        assert_eq!(heading, "step     kind  state     time");
    }

    #[test]
    fn rows_rejects_checks_files_and_bytes_stand_in_one_line() {
        let mut cleaned = step("cleaned", StepKind::Sql);
        cleaned.rows_in = Some(31_000);
        cleaned.rows_out = Some(27_000);
        cleaned.rejects = 12;
        cleaned.checks = vec![check("unique(order_id)", OnFail::Fail, 0), check("known", OnFail::DeadLetter, 12)];
        let mut load = step("load_lake", StepKind::Load);
        load.rows_in = Some(27_000);
        load.output = FileSummary { files: 1, bytes: 1_048_576 };
        let lines = steps(&[cleaned, load]).plain();
        assert_eq!(
            lines,
            [
                "step       kind  state    rows in  rows out  rejects  checks             files   bytes   time",
                "cleaned    sql   success   31,000    27,000       12  1 passed, 1 noted                 1.2 s",
                "load_lake  load  success   27,000                                            1  1.0 MB  1.2 s",
            ]
        );
    }
}
