//! Cutting bytes into records and fields.
//!
//! The grammar is that of the csv crate (and so of arrow's and DataFusion's readers), which a property test holds it
//! to: quotes count only at the beginning of a field, a doubled quote inside quotes is a quote, `\r`, `\n` and `\r\n`
//! end a record, empty lines are left out, and text after a closing quote belongs to the field. It is our own because
//! a tolerant reader must know what those do not tell: where a record begins and ends in the text, and whether its
//! last quote was ever closed.

use super::dialect::Dialect;
use memchr::{memchr, memchr2, memchr3};

/// Where a field is: in the input, or in the unescaped text.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    unescaped: bool,
    /// Whether it stood in quotes.
    quoted: bool,
}

/// The fields of one record; kept between records for its memory.
#[derive(Debug, Default)]
pub(super) struct Fields {
    spans: Vec<Span>,
    /// Fields that do not stand in the input as they are.
    unescaped: Vec<u8>,
}

impl Fields {
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The fields as text.
    ///
    /// # Errors
    /// The first field that is not UTF-8.
    pub(super) fn text<'a>(&'a self, input: &'a [u8]) -> Result<Texts<'a>, usize> {
        let end = self.spans.iter().filter(|span| !span.unescaped).map(|span| span.end).max().unwrap_or(0);
        let start = self.spans.iter().filter(|span| !span.unescaped).map(|span| span.start).min().unwrap_or(0);
        let valid = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok();
        // Everything from the first to the last field at once; field by field only to say which one is wrong.
        match (valid(input.get(start..end).unwrap_or_default()), valid(&self.unescaped)) {
            (Some(plain), Some(unescaped)) => Ok(Texts { spans: &self.spans, plain, offset: start, unescaped }),
            _ => Err(self.spans.iter().position(|span| valid(self.bytes(span, input)).is_none()).unwrap_or(0)),
        }
    }

    /// The fields as they are.
    #[cfg(any(test, fuzzing))]
    pub(super) fn raw(&self, input: &[u8]) -> Vec<Vec<u8>> {
        self.spans.iter().map(|span| self.bytes(span, input).to_vec()).collect()
    }

    fn bytes<'a>(&'a self, span: &Span, input: &'a [u8]) -> &'a [u8] {
        let from = if span.unescaped { &self.unescaped } else { input };
        from.get(span.start..span.end).unwrap_or_default()
    }
}

/// The fields of a record as text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texts<'a> {
    spans: &'a [Span],
    plain: &'a str,
    /// Where `plain` begins in the input.
    offset: usize,
    unescaped: &'a str,
}

impl<'a> Texts<'a> {
    pub(super) fn get(&self, index: usize) -> &'a str {
        let Some(span) = self.spans.get(index) else { return "" };
        let (text, offset) = if span.unescaped { (self.unescaped, 0) } else { (self.plain, self.offset) };
        text.get(span.start - offset..span.end - offset).unwrap_or_default()
    }

    /// Whether a field stood in quotes: then it is a text, whatever it says.
    pub(super) fn is_quoted(&self, index: usize) -> bool {
        self.spans.get(index).is_some_and(|span| span.quoted)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a str> + '_ {
        (0..self.spans.len()).map(|index| self.get(index))
    }
}

/// What [`next`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A record, from `start` to `end` in the input (its line break included).
    Record {
        start: usize,
        end: usize,
        /// Line breaks before the record: empty lines and comments.
        lines_before: u64,
        /// Line breaks in it, the last one included.
        lines: u64,
        /// Its last quote is never closed: everything up to the end of the input is one field.
        open: bool,
    },
    /// The input must be longer to tell.
    More {
        /// Where the record begins; what is before it can be let go of.
        start: usize,
        /// Line breaks before it.
        lines_before: u64,
    },
    /// Nothing more comes.
    End,
}

/// Finds the next record of `input`; `last` says that nothing comes after it.
pub(super) fn next(dialect: &Dialect, input: &[u8], last: bool, fields: &mut Fields) -> Step {
    fields.spans.clear();
    fields.unescaped.clear();
    let mut at = 0;
    let mut lines_before = 0;
    // Before the record: empty lines and comments.
    loop {
        match input.get(at) {
            None => return if last { Step::End } else { Step::More { start: at, lines_before } },
            Some(b'\n') => {
                lines_before += 1;
                at += 1;
            }
            Some(b'\r') => {
                match input.get(at + 1) {
                    None if !last => return Step::More { start: at, lines_before },
                    Some(b'\n') => at += 1,
                    _ => {}
                }
                lines_before += 1;
                at += 1;
            }
            Some(byte) if dialect.comment == Some(*byte) => match memchr(b'\n', &input[at..]) {
                Some(length) => {
                    at += length + 1;
                    lines_before += 1;
                }
                None => return if last { Step::End } else { Step::More { start: at, lines_before } },
            },
            Some(_) => break,
        }
    }
    let start = at;
    let mut lines = 0;
    loop {
        // The beginning of a field.
        let field = if dialect.quote.is_some() && dialect.quote == input.get(at).copied() {
            quoted(dialect, input, at + 1, &mut lines, fields)
        } else {
            let end = memchr3(dialect.delimiter, b'\n', b'\r', &input[at..]).map_or(input.len(), |length| at + length);
            fields.spans.push(Span { start: at, end, unescaped: false, quoted: false });
            Field { end, open: false }
        };
        match input.get(field.end) {
            None if !last => return Step::More { start, lines_before },
            None => return Step::Record { start, end: field.end, lines_before, lines, open: field.open },
            Some(b'\n') => {
                return Step::Record { start, end: field.end + 1, lines_before, lines: lines + 1, open: false };
            }
            Some(b'\r') => {
                let end = match input.get(field.end + 1) {
                    None if !last => return Step::More { start, lines_before },
                    Some(b'\n') => field.end + 2,
                    _ => field.end + 1,
                };
                return Step::Record { start, end, lines_before, lines: lines + 1, open: false };
            }
            Some(_) => at = field.end + 1,
        }
    }
}

struct Field {
    /// Where its delimiter or line break stands, or the end of the input.
    end: usize,
    open: bool,
}

/// A field whose opening quote stands before `from`.
fn quoted(dialect: &Dialect, input: &[u8], from: usize, lines: &mut u64, fields: &mut Fields) -> Field {
    let quote = dialect.quote.unwrap_or(b'"');
    let begun = fields.unescaped.len();
    // Where the piece begins that has not been copied; nothing is copied as long as the field is one piece.
    let mut piece = from;
    let mut at = from;
    loop {
        let found = match dialect.escape {
            Some(escape) => memchr2(quote, escape, &input[at..]),
            None => memchr(quote, &input[at..]),
        };
        let Some(length) = found else {
            *lines += breaks(&input[at..]);
            fields.unescaped.extend_from_slice(&input[piece..]);
            fields.spans.push(Span { start: begun, end: fields.unescaped.len(), unescaped: true, quoted: true });
            return Field { end: input.len(), open: true };
        };
        *lines += breaks(&input[at..at + length]);
        at += length;
        if input[at] != quote {
            // The escape goes, the character after it stays, whatever it is.
            fields.unescaped.extend_from_slice(&input[piece..at]);
            piece = at + 1;
            if matches!(input.get(piece), Some(b'\n')) {
                *lines += 1;
            }
            at = (at + 2).min(input.len());
            piece = piece.min(input.len());
            continue;
        }
        if input.get(at + 1) == Some(&quote) {
            fields.unescaped.extend_from_slice(&input[piece..=at]);
            at += 2;
            piece = at;
            continue;
        }
        // The quote closes; what stands between it and the delimiter belongs to the field all the same.
        let close = at;
        let end =
            memchr3(dialect.delimiter, b'\n', b'\r', &input[close + 1..]).map_or(input.len(), |more| close + 1 + more);
        let whole = fields.unescaped.len() == begun;
        if whole && end == close + 1 {
            fields.spans.push(Span { start: piece, end: close, unescaped: false, quoted: true });
        } else {
            fields.unescaped.extend_from_slice(&input[piece..close]);
            fields.unescaped.extend_from_slice(&input[close + 1..end]);
            fields.spans.push(Span { start: begun, end: fields.unescaped.len(), unescaped: true, quoted: true });
        }
        return Field { end, open: false };
    }
}

/// Line breaks inside quotes.
fn breaks(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}
