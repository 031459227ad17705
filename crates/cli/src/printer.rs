//! The only one who prints.
//!
//! Results go to standard output; progress, notes and errors to standard error, so that a pipe gets nothing but the
//! result. With `--output json` standard output holds exactly one JSON document. Colours are used on a terminal only,
//! and not when `NO_COLOR` is set (<https://no-color.org>).

use crate::args::{GlobalArgs, OutputFormat};
use anstyle::{AnsiColor, Style};
use gristmill_model::{Error, ErrorKind, Result};
use indicatif::MultiProgress;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use unicode_width::UnicodeWidthStr;

/// What a word on the screen means; its colour follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It went well.
    Good,
    /// Worth a look.
    Warning,
    /// It went wrong.
    Bad,
    /// Beside the point.
    Dim,
    /// A heading.
    Strong,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Dim => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }
}

/// The printer. Cheap to clone; all clones share the screen.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    format: OutputFormat,
    quiet: bool,
    colour_out: bool,
    colour_err: bool,
    live: bool,
    /// Something is on standard output already.
    begun: Arc<AtomicBool>,
    /// While bars are drawn, lines go through their owner, or they would tear each other.
    bars: Arc<Mutex<Option<MultiProgress>>>,
}

/// Whether a terminal gets colours.
pub(crate) fn may_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

impl Printer {
    /// A printer for these arguments and this terminal.
    pub(crate) fn new(args: &GlobalArgs) -> Self {
        let colour = may_colour();
        Self {
            format: args.output,
            quiet: args.quiet,
            colour_out: colour && io::stdout().is_terminal(),
            colour_err: colour && io::stderr().is_terminal(),
            live: io::stderr().is_terminal(),
            begun: Arc::default(),
            bars: Arc::default(),
        }
    }

    /// A printer for a command line that could not be read, but asks for JSON.
    pub(crate) fn json_only() -> Self {
        Self {
            format: OutputFormat::Json,
            quiet: true,
            colour_out: false,
            colour_err: false,
            live: false,
            begun: Arc::default(),
            bars: Arc::default(),
        }
    }

    /// That the command failed, as the one JSON document, where there is none yet; nothing in text form.
    pub(crate) fn failure(&self, error: &Error) {
        if self.json() && !self.begun.load(Ordering::Relaxed) {
            // Standard error says the same; whoever closed standard output does not want to know.
            let _ = self.document(&serde_json::json!({"error": error}));
        }
    }

    /// Whether results are one JSON document.
    pub(crate) fn json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Whether progress and notes are not wanted.
    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// Whether standard error is a terminal that can draw bars.
    pub(crate) fn live(&self) -> bool {
        self.live
    }

    /// From now on lines on standard error go through `bars`; `None` ends that.
    pub(crate) fn set_bars(&self, bars: Option<MultiProgress>) {
        *self.bars.lock().unwrap_or_else(PoisonError::into_inner) = bars;
    }

    /// `text` in the colours of `tone`, for standard output.
    pub(crate) fn paint(&self, tone: Tone, text: impl AsRef<str>) -> String {
        painted(self.colour_out, tone, text.as_ref())
    }

    /// `text` in the colours of `tone`, for standard error.
    pub(crate) fn paint_note(&self, tone: Tone, text: impl AsRef<str>) -> String {
        painted(self.colour_err, tone, text.as_ref())
    }

    /// A line of the result, in text form; nothing with `--output json`.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> Result<()> {
        if self.json() {
            return Ok(());
        }
        self.raw(text.as_ref().as_bytes())?;
        self.raw(b"\n")
    }

    /// Bytes of the result, as they are, in either form: rows of a query, a completion script.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<()> {
        self.begun.store(true, Ordering::Relaxed);
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| closed(&error))
    }

    /// The result as a JSON document; nothing in text form.
    pub(crate) fn document(&self, value: &impl Serialize) -> Result<()> {
        if !self.json() {
            return Ok(());
        }
        let mut text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::internal("cannot write the result as JSON").cause(error))?;
        text.push('\n');
        self.raw(text.as_bytes())
    }

    /// A line that is good to know: what was assumed, where something is. Not with `--quiet`.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.complain(text.as_ref());
        }
    }

    /// A warning. `--quiet` does not silence it.
    pub(crate) fn warning(&self, text: impl AsRef<str>) {
        self.complain(&format!("{} {}", self.paint_note(Tone::Warning, "warning:"), text.as_ref()));
    }

    /// An error, with its hint on a line of its own.
    pub(crate) fn error(&self, error: &Error) {
        let text = error.to_string();
        let (message, hint) = match text.split_once("\n  hint: ") {
            // A list of diagnostics carries its hints inside.
            Some((message, hint)) if error.hint_text() == Some(hint) => (message.to_owned(), Some(hint.to_owned())),
            _ => (text, None),
        };
        self.complain(&format!("{} {message}", self.paint_note(Tone::Bad, "error:")));
        if let Some(hint) = hint {
            self.complain(&format!("  {} {hint}", self.paint_note(Tone::Good, "hint:")));
        }
    }

    /// A line on standard error.
    fn complain(&self, line: &str) {
        let bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let write = || {
            // Nobody is left to be told when standard error itself is closed.
            let _ = writeln!(io::stderr().lock(), "{line}");
        };
        match bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

fn painted(colour: bool, tone: Tone, text: &str) -> String {
    if !colour {
        return text.to_owned();
    }
    let style = tone.style();
    format!("{style}{text}{style:#}")
}

/// Standard output that nobody reads any more (`gristmill … | head`) is not an error worth words.
fn closed(error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Error::new(ErrorKind::Canceled, "standard output was closed");
    }
    Error::io(error, "standard output")
}

/// Whether an error only says that nobody reads standard output any more.
pub(crate) fn is_closed_output(error: &Error) -> bool {
    error.kind() == ErrorKind::Canceled && error.message() == "standard output was closed"
}

/// Aligned columns without lines: what a terminal, a log and `awk` all read well.
#[derive(Debug)]
pub(crate) struct Table {
    /// The heading, and whether the column is aligned to the right.
    columns: Vec<(String, bool)>,
    rows: Vec<Vec<Cell>>,
}

/// One cell of a [`Table`].
#[derive(Debug, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    /// A cell in the colours of `tone`.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone: Some(tone) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: None }
    }
}

impl Table {
    /// A table with these headings; a heading that ends with `>` stands over numbers, aligned right.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let columns =
            headings.iter().map(|heading| (heading.trim_end_matches('>').to_owned(), heading.ends_with('>'))).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether no row was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, without blanks at their ends. A column without a single value is left out.
    pub(crate) fn lines(&self, printer: &Printer) -> Vec<String> {
        self.render(|tone, text| printer.paint(tone, text))
    }

    /// The lines without colours, for tests.
    #[cfg(test)]
    pub(crate) fn plain(&self) -> Vec<String> {
        self.render(|_, text| text.to_owned())
    }

    /// Prints the table, each line after `indent`.
    pub(crate) fn print(&self, printer: &Printer, indent: &str) -> Result<()> {
        self.lines(printer).iter().try_for_each(|line| printer.line(format!("{indent}{line}").trim_end()))
    }

    fn render(&self, paint: impl Fn(Tone, &str) -> String) -> Vec<String> {
        let widest = |at: usize| self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.text.width()).max();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, (heading, _))| match widest(at) {
                Some(0) => 0,
                widest => heading.width().max(widest.unwrap_or(0)),
            })
            .collect();
        let line = |cells: &[Cell]| {
            let mut line = String::new();
            for (at, width) in widths.iter().enumerate().filter(|(_, width)| **width > 0) {
                let empty = Cell::default();
                let cell = cells.get(at).unwrap_or(&empty);
                let gap = " ".repeat(width.saturating_sub(cell.text.width()));
                let text = cell.tone.map_or_else(|| cell.text.clone(), |tone| paint(tone, &cell.text));
                let right = self.columns.get(at).is_some_and(|(_, right)| *right);
                line.push_str(&if right { format!("{gap}{text}") } else { format!("{text}{gap}") });
                line.push_str("  ");
            }
            line.trim_end().to_owned()
        };
        let headings: Vec<Cell> =
            self.columns.iter().map(|(heading, _)| Cell::toned(heading.as_str(), Tone::Strong)).collect();
        std::iter::once(line(&headings)).chain(self.rows.iter().map(|row| line(row))).collect()
    }
}

/// A number with its thousands apart: `1,234,567`.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time as people say it: `85 ms`, `1.2 s`, `3m 05s`.
pub(crate) fn time(millis: u64) -> String {
    match millis {
        0..=999 => format!("{millis} ms"),
        1_000..=59_999 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        60_000..=3_599_999 => format!("{}m {:02}s", millis / 60_000, millis % 60_000 / 1_000),
        _ => format!("{}h {:02}m", millis / 3_600_000, millis % 3_600_000 / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_time_is_said_in_the_unit_that_fits() {
        for (millis, text) in [(85, "85 ms"), (1_234, "1.2 s"), (185_000, "3m 05s"), (7_500_000, "2h 05m")] {
            assert_eq!(time(millis), text);
        }
    }

    #[test]
    fn numbers_are_aligned_to_the_right_and_lines_end_where_their_text_does() {
        let mut table = Table::new(&["step", "rows>", "files>", "note"]);
        table.row(["a".into(), "1,000".into(), "".into(), Cell::default()]);
        table.row(["longer".into(), "5".into(), "".into(), Cell::toned("x", Tone::Bad)]);
        let lines = table.render(|_, text| text.to_owned());
        assert_eq!(lines, ["step     rows  note", "a       1,000", "longer      5  x"]);
    }
}
