//! What a run says while it goes on: bars on a terminal, plain lines elsewhere.
//!
//! Both are fed by [`RunEvent`]s, which arrive from any thread and must never wait: a state behind a lock that is held
//! for as long as it takes to change a number.

use crate::printer::{Printer, Tone, number, time};
use crate::report::title;
use gristmill_model::{ByteSize, EventSink, RunEvent, StepKind, StepName, StepReport, StepState};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A plain line about a step's progress comes at most this often; a log should tell, not scroll.
const BETWEEN_LINES: Duration = Duration::from_secs(3);

/// The progress of one or more runs. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    printer: Printer,
    /// The bars' owner, on a terminal.
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    steps: BTreeMap<StepName, Seen>,
    total: Option<ProgressBar>,
    finished: usize,
    started: Instant,
}

/// What has been heard of a step.
#[derive(Debug)]
struct Seen {
    kind: StepKind,
    rows: u64,
    bytes: u64,
    expected: Option<u64>,
    started: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Progress on standard error, in the form that fits it; nothing with `--quiet`.
    pub(crate) fn new(printer: &Printer) -> Self {
        let bars = (printer.live() && !printer.quiet())
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        printer.set_bars(bars.clone());
        let state = State { steps: BTreeMap::new(), total: None, finished: 0, started: Instant::now() };
        Self(Arc::new(Inner { printer: printer.clone(), bars, state: Mutex::new(state) }))
    }

    /// Where a run sends its events.
    pub(crate) fn events(&self) -> EventSink {
        let inner = self.0.clone();
        EventSink::new(move |event| inner.hear(event))
    }

    /// Takes the bars off the screen; what follows is printed plainly.
    pub(crate) fn finish(&self) {
        self.0.clear();
        self.0.printer.set_bars(None);
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, event: RunEvent) {
        // Logged for whoever reads `.gristmill/logs/` later; the screen may show less.
        tracing::debug!(target: "gristmill::run", event = %serde_json::to_string(&event).unwrap_or_default());
        if self.printer.quiet() {
            return;
        }
        match event {
            RunEvent::RunStarted { run, pipeline, interval } => {
                self.clear();
                let id = self.printer.paint_note(Tone::Dim, format!("(run {run})"));
                self.printer.note(format!("{} {id}", title(pipeline.as_str(), interval)));
            }
            RunEvent::StepStarted { step, kind, rows } => self.begin(step, kind, rows),
            RunEvent::Progress { step, rows, bytes, total_rows } => self.advance(&step, rows, bytes, total_rows),
            RunEvent::Note { step, text } => match step {
                Some(step) => self.printer.note(format!("  {step}: {text}")),
                None => self.printer.note(format!("  {text}")),
            },
            RunEvent::Retry { step, attempt, wait_millis, error } => self.printer.warning(format!(
                "{step}: attempt {attempt} failed, trying again in {}: {}",
                time(wait_millis),
                error.to_string().lines().next().unwrap_or_default()
            )),
            RunEvent::StepFinished { report, .. } => self.end(&report),
        }
    }

    fn begin(&self, step: StepName, kind: StepKind, rows: Option<u64>) {
        let mut state = self.lock();
        let now = Instant::now();
        let bar = self.bars.as_ref().map(|bars| {
            if state.total.is_none() {
                let total = bars.add(ProgressBar::new_spinner().with_style(style("{spinner} {prefix:24} {msg}")));
                total.set_prefix("total");
                total.enable_steady_tick(Duration::from_millis(200));
                state.total = Some(total);
            }
            let bar = ProgressBar::new_spinner().with_style(style("  {spinner} {prefix:22} {msg}"));
            let bar = match &state.total {
                Some(total) => bars.insert_before(total, bar),
                None => bars.add(bar),
            };
            bar.set_prefix(step.to_string());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let seen = Seen { kind, rows: 0, bytes: 0, expected: rows, started: now, said: now, bar };
        seen.draw();
        if let Some(old) = state.steps.insert(step, seen).and_then(|old| old.bar) {
            // A second attempt, or commit after stage: one bar per step.
            old.finish_and_clear();
        }
        state.draw_total();
    }

    fn advance(&self, step: &StepName, rows: u64, bytes: u64, expected: Option<u64>) {
        let mut state = self.lock();
        let Some(seen) = state.steps.get_mut(step) else { return };
        seen.rows = rows;
        seen.bytes = bytes;
        seen.expected = expected.or(seen.expected);
        seen.draw();
        let due = seen.bar.is_none() && seen.said.elapsed() >= BETWEEN_LINES;
        let line = due.then(|| {
            seen.said = Instant::now();
            format!("  {step}: {}", seen.text())
        });
        state.draw_total();
        drop(state);
        if let Some(line) = line {
            self.printer.note(line);
        }
    }

    fn end(&self, report: &StepReport) {
        let mut state = self.lock();
        state.finished += 1;
        if let Some(bar) = state.steps.get_mut(&report.step).and_then(|seen| seen.bar.take()) {
            bar.finish_and_clear();
        }
        state.draw_total();
        drop(state);
        // The report at the end has the figures; a line per step says that it is over, and how.
        let tone = match report.state {
            StepState::Success => Tone::Good,
            StepState::Failed => Tone::Bad,
            _ => Tone::Dim,
        };
        let mut line = format!("  {} {}", self.printer.paint_note(tone, report.state.as_str()), report.step);
        if let Some(rows) = report.rows_out.or(report.rows_in) {
            line.push_str(&format!(", {} rows", number(rows)));
        }
        line.push_str(&format!(", {}", time(report.millis)));
        self.printer.note(line);
    }

    fn clear(&self) {
        let mut state = self.lock();
        for seen in std::mem::take(&mut state.steps).into_values() {
            if let Some(bar) = seen.bar {
                bar.finish_and_clear();
            }
        }
        if let Some(total) = state.total.take() {
            total.finish_and_clear();
        }
        state.finished = 0;
        state.started = Instant::now();
    }
}

impl Seen {
    /// `1,234 of 5,000 rows, 1.2 MB, 400 rows/s, 9.4 s left`.
    fn text(&self) -> String {
        describe(self.rows, self.bytes, self.expected, self.started.elapsed())
    }

    fn draw(&self) {
        let Some(bar) = &self.bar else { return };
        if let Some(expected) = self.expected.filter(|expected| *expected > 0)
            && bar.length() != Some(expected.max(self.rows))
        {
            bar.set_style(style("  {spinner} {prefix:22} {bar:20.green} {msg}").progress_chars("━╸ "));
            bar.set_length(expected.max(self.rows));
        }
        bar.set_position(self.rows);
        bar.set_message(self.text());
    }
}

impl State {
    /// The sum of what the sources gave: loads would count the same rows again.
    fn draw_total(&self) {
        let Some(total) = &self.total else { return };
        let sources = || self.steps.values().filter(|seen| matches!(seen.kind, StepKind::Extract | StepKind::Generate));
        let rows = sources().map(|seen| seen.rows).sum();
        let bytes = sources().map(|seen| seen.bytes).sum();
        let expected = sources().map(|seen| seen.expected).sum::<Option<u64>>().filter(|expected| *expected > 0);
        let steps = format!("{}/{} steps", self.finished.min(self.steps.len()), self.steps.len());
        total.set_message(format!("{steps}, {}", describe(rows, bytes, expected, self.started.elapsed())));
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is shown as a whole number, and an estimate is one"
)]
fn describe(rows: u64, bytes: u64, expected: Option<u64>, elapsed: Duration) -> String {
    let mut text = match expected {
        // Estimates may be low: never show more of them than there are.
        Some(expected) if expected >= rows && expected > 0 => format!("{} of {} rows", number(rows), number(expected)),
        _ => format!("{} rows", number(rows)),
    };
    if bytes > 0 {
        text.push_str(&format!(", {}", ByteSize(bytes)));
    }
    let seconds = elapsed.as_secs_f64();
    if rows > 0 && seconds >= 0.5 {
        let rate = rows as f64 / seconds;
        text.push_str(&format!(", {} rows/s", number(rate as u64)));
        if let Some(left) = expected.and_then(|expected| expected.checked_sub(rows)).filter(|left| *left > 0) {
            text.push_str(&format!(", {} left", time((left as f64 / rate * 1000.0) as u64)));
        }
    }
    text
}

/// The styles above are constants; the plain spinner stands in for one that does not parse.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_rows_bytes_rate_and_time_left() {
        let text = describe(1_000, 2_048, Some(5_000), Duration::from_secs(2));
        assert_eq!(text, "1,000 of 5,000 rows, 2.0 KB, 500 rows/s, 8.0 s left");
    }

    #[test]
    fn an_estimate_that_was_too_low_is_not_shown() {
        assert_eq!(describe(10, 0, Some(5), Duration::from_millis(10)), "10 rows");
    }

    #[test]
    fn nothing_is_said_of_a_rate_before_there_is_one() {
        assert_eq!(describe(0, 0, None, Duration::from_secs(9)), "0 rows");
    }
}
