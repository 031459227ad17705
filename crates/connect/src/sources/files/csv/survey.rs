//! A quick walk over the bytes of a text file that finds records without understanding them.
//!
//! A big file is divided at line breaks into slices, which are walked side by side. A line break in the middle of a CSV
//! file may stand inside quotes, and nothing near it tells. So each slice is walked twice, once as if it began outside
//! and once as if it began inside quotes: right after a line break there is no third way. The two walks soon meet (quotes
//! count only where a field begins) and go on as one. What came out of the slice before then says which of them was right.
//!
//! The grammar is that of [`super::record`].

use super::dialect::Dialect;
use memchr::{memchr, memchr_iter, memchr2, memchr2_iter, memrchr};

/// What is special in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources::files) struct Rules {
    pub(super) delimiter: u8,
    pub(super) quote: Option<u8>,
    pub(super) escape: Option<u8>,
    pub(super) comment: Option<u8>,
    /// Whether `\r` alone ends a record, too.
    pub(super) carriage: bool,
    /// Whether lines and records are counted; without, only the quotes are looked at.
    pub(super) lines: bool,
}

impl Rules {
    /// A CSV file of a dialect.
    pub(in crate::sources::files) fn csv(dialect: &Dialect) -> Self {
        let Dialect { delimiter, quote, escape, comment, .. } = *dialect;
        Self { delimiter, quote, escape, comment, carriage: true, lines: true }
    }

    /// One record a line, whatever stands in it.
    pub(in crate::sources::files) fn lines() -> Self {
        Self { delimiter: b'\n', quote: None, escape: None, comment: None, carriage: false, lines: true }
    }

    /// Whether a record ends with every line, whatever stands before.
    pub(in crate::sources::files) fn any_line(&self) -> bool {
        self.quote.is_none() && self.comment.is_none()
    }

    /// Looks at the quotes alone.
    pub(super) fn only_quotes(self) -> Self {
        Self { lines: false, ..self }
    }
}

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// Bytes before it.
    pub(super) at: u64,
    /// Lines before it.
    pub(super) lines: u64,
}

/// What was seen in a piece of text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) bytes: u64,
    /// Lines, counted as the readers count them.
    pub(super) lines: u64,
    /// The first place after a `\n` at which a record begins.
    pub(super) start: Option<Start>,
    /// Where the first record ends that ends here, and the last.
    pub(super) breaks: Option<(u64, u64)>,
    /// The longest record that ends here, its beginning before the piece left aside. Of those that end in one chunk only
    /// the first is measured: no other is longer than the chunk.
    pub(super) longest: u64,
    /// A field in quotes.
    pub(super) quoted: bool,
    /// A field in quotes with nothing between them.
    pub(super) empty: bool,
    /// A line break in quotes.
    pub(super) broken: bool,
}

impl Facts {
    /// Both pieces, one after the other.
    pub(super) fn then(self, next: Self) -> Self {
        let moved = |at: u64| self.bytes + at;
        let breaks = match (self.breaks, next.breaks) {
            (Some((first, _)), Some((_, last))) => Some((first, moved(last))),
            (Some(only), None) => Some(only),
            (None, Some((first, last))) => Some((moved(first), moved(last))),
            (None, None) => None,
        };
        // The record that both have a part of.
        let last = self.breaks.map_or(0, |(_, last)| last);
        let between = next.breaks.map_or(0, |(first, _)| moved(first) - last);
        let start =
            self.start.or(next.start.map(|start| Start { at: moved(start.at), lines: self.lines + start.lines }));
        Self {
            bytes: moved(next.bytes),
            lines: self.lines + next.lines,
            start,
            breaks,
            longest: self.longest.max(next.longest).max(between),
            quoted: self.quoted || next.quoted,
            empty: self.empty || next.empty,
            broken: self.broken || next.broken,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Outside,
    Inside,
    /// After an escape inside quotes.
    Escaped,
    /// After a quote inside quotes: the end of the field, or the first of two.
    Closing,
    /// In a line that is left out.
    Comment,
}

/// A walk from the beginning of a file, or from behind a line break.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    rules: Rules,
    pub(super) state: State,
    /// The byte before.
    before: u8,
    /// Whether nothing has come since a quote was opened.
    pub(super) bare: bool,
    pub(super) facts: Facts,
}

impl Walk {
    pub(super) fn new(rules: Rules, state: State) -> Self {
        Self { rules, state, before: b'\n', bare: false, facts: Facts::default() }
    }

    /// Whether the two go on alike.
    fn meets(&self, other: &Self) -> bool {
        (self.state, self.bare) == (other.state, other.bare)
    }

    /// Goes on over the next bytes.
    pub(super) fn take(&mut self, chunk: &[u8]) {
        let Rules { quote, escape, comment, .. } = self.rules;
        let Some(last) = chunk.last() else { return };
        let mut at = 0;
        while at < chunk.len() {
            let previous = if at == 0 { self.before } else { chunk[at - 1] };
            match self.state {
                State::Outside => {
                    if comment == Some(chunk[at]) && matches!(previous, b'\n' | b'\r') {
                        self.state = State::Comment;
                        continue;
                    }
                    let rest = &chunk[at..];
                    let found = quote.and_then(|quote| memchr(quote, rest)).unwrap_or(rest.len());
                    let end = at + comment.map_or(found, |comment| first_comment(&rest[..found], comment));
                    self.outside(&chunk[at..end], at, previous);
                    at = end;
                    // A quote in the middle of a field is an ordinary character.
                    if end < chunk.len() && quote == Some(chunk[end]) {
                        let previous = if end == 0 { self.before } else { chunk[end - 1] };
                        if previous == self.rules.delimiter || matches!(previous, b'\n' | b'\r') {
                            self.state = State::Inside;
                            self.bare = true;
                            self.facts.quoted = true;
                        }
                        at += 1;
                    }
                }
                State::Inside => {
                    let rest = &chunk[at..];
                    let quote = quote.unwrap_or(b'"');
                    let found = match escape {
                        Some(escape) => memchr2(quote, escape, rest),
                        None => memchr(quote, rest),
                    };
                    let length = found.unwrap_or(rest.len());
                    self.inside(&rest[..length]);
                    at += length;
                    if found.is_some() {
                        self.bare &= length == 0 && chunk[at] == quote;
                        self.state = if chunk[at] == quote { State::Closing } else { State::Escaped };
                        at += 1;
                    } else {
                        self.bare = false;
                    }
                }
                State::Escaped => {
                    self.inside(&chunk[at..=at]);
                    self.state = State::Inside;
                    at += 1;
                }
                State::Closing => {
                    if Some(chunk[at]) == quote {
                        at += 1;
                        self.bare = false;
                        self.state = State::Inside;
                    } else {
                        self.facts.empty |= self.bare;
                        self.bare = false;
                        self.state = State::Outside;
                    }
                }
                State::Comment => match memchr(b'\n', &chunk[at..]) {
                    Some(length) => {
                        at += length + 1;
                        self.state = State::Outside;
                        self.facts.lines += 1;
                        self.ends(at, at, Some((at, 0)));
                    }
                    None => at = chunk.len(),
                },
            }
        }
        self.before = *last;
        self.facts.bytes += chunk.len() as u64;
    }

    /// Counts lines and records in text outside of quotes, which stands at `at` in the chunk.
    fn outside(&mut self, text: &[u8], at: usize, previous: u8) {
        if !self.rules.lines || text.is_empty() {
            return;
        }
        if !self.rules.carriage || (previous != b'\r' && memchr(b'\r', text).is_none()) {
            if let (Some(first), Some(last)) = (memchr(b'\n', text), memrchr(b'\n', text)) {
                let starts = (at + first + 1, 1);
                self.ends(starts.0, at + last + 1, Some(starts));
                self.facts.lines += memchr_iter(b'\n', text).count() as u64;
            }
            return;
        }
        for place in memchr2_iter(b'\n', b'\r', text) {
            let before = if place == 0 { previous } else { text[place - 1] };
            let line = text[place] == b'\r' || before != b'\r';
            self.facts.lines += u64::from(line);
            let end = at + place + 1;
            self.ends(end, end, (text[place] == b'\n').then_some((end, 0)));
        }
    }

    /// Notes that records end, the first and the last of them at these places in the chunk, and where one begins, with
    /// the lines that are not counted yet.
    fn ends(&mut self, first: usize, last: usize, start: Option<(usize, u64)>) {
        let base = self.facts.bytes;
        let facts = &mut self.facts;
        facts.longest =
            facts.longest.max((base + first as u64).saturating_sub(facts.breaks.map_or(0, |(_, last)| last)));
        let from = facts.breaks.map_or(base + first as u64, |(first, _)| first);
        facts.breaks = Some((from, base + last as u64));
        if let (None, Some((at, lines))) = (facts.start, start) {
            facts.start = Some(Start { at: base + at as u64, lines: facts.lines + lines });
        }
    }

    fn inside(&mut self, text: &[u8]) {
        let breaks = memchr_iter(b'\n', text).count() as u64;
        self.facts.lines += breaks;
        self.facts.broken |= breaks > 0 || memchr(b'\r', text).is_some();
    }
}

/// Where a comment begins, or the end of the text.
fn first_comment(text: &[u8], comment: u8) -> usize {
    let begins = |place: &usize| matches!(text[place - 1], b'\n' | b'\r');
    memchr_iter(comment, text).filter(|place| *place > 0).find(begins).unwrap_or(text.len())
}

/// Both walks over a slice that begins behind a line break.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    outside: Walk,
    /// The other walk, as long as it has not met the first; none where nothing is ever quoted.
    inside: Option<Walk>,
    /// What the two saw before they met: (outside, inside).
    apart: Option<(Facts, Facts)>,
}

impl Slice {
    pub(super) fn new(rules: Rules) -> Self {
        let inside = rules.quote.map(|_| Walk::new(rules, State::Inside));
        Self { outside: Walk::new(rules, State::Outside), inside, apart: None }
    }

    pub(super) fn take(&mut self, chunk: &[u8]) {
        // In small steps, so that the walks go together soon after they have met.
        let mut rest = chunk;
        while let Some(inside) = &mut self.inside
            && !rest.is_empty()
        {
            let (step, more) = rest.split_at(rest.len().min(TOGETHER));
            rest = more;
            self.outside.take(step);
            inside.take(step);
            if self.outside.meets(inside) {
                self.apart = Some((self.outside.facts, inside.facts));
                self.outside.facts = Facts::default();
                self.inside = None;
            }
        }
        self.outside.take(rest);
    }

    /// What the slice holds and how it ends, if it begins inside quotes or not.
    pub(super) fn told(&self, begins_inside: bool) -> (Facts, State, bool) {
        let walk = match &self.inside {
            Some(inside) if begins_inside => inside,
            _ => &self.outside,
        };
        let facts = match (&self.apart, begins_inside) {
            (Some((_, inside)), true) => inside.then(walk.facts),
            (Some((outside, _)), false) => outside.then(walk.facts),
            (None, _) => walk.facts,
        };
        (facts, walk.state, walk.bare)
    }
}

/// How many bytes the two walks go on alone.
const TOGETHER: usize = 4 << 10;
