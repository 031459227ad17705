//! Splits a JSON document into its records while it streams by.
//!
//! A push parser of the whole grammar (RFC 8259): it takes bytes in chunks of any size, validates all of them, whether
//! they belong to a record or not, and keeps only the record being read. It never recurses.

use gristmill_model::Error;
use std::mem;

use super::super::records::MAX_RECORD_BYTES;

/// Deeper nesting is refused, so that the stack of open brackets stays small.
const MAX_DEPTH: usize = 10_000;

/// A key longer than this is not on any path.
const MAX_KEY_BYTES: usize = 4 << 10;

/// Keys kept for the message about a path that leads nowhere.
const KEYS_SHOWN: usize = 12;

/// What stands where a record is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// An object: its text.
    Record(&'a [u8]),
    /// Anything else: what it is.
    NotARow(&'static str),
}

/// Why splitting ended early.
#[derive(Debug)]
pub(super) enum Problem {
    /// It is not JSON: where and why.
    Syntax(String),
    /// Whoever takes the items said so.
    Stopped(Error),
}

type Take<'t> = dyn FnMut(Item<'_>) -> Result<(), Error> + 't;

/// Where a value stands with regard to the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// So many keys of the path lead here.
    Path(usize),
    /// The path ends here: a list of records, or one record.
    Target,
    /// A record.
    Record,
    /// Inside a record.
    Inside,
    /// Neither here nor there.
    Other,
}

/// An open bracket.
#[derive(Debug, Clone, Copy)]
struct Frame {
    object: bool,
    role: Role,
    /// The key on the path was already there.
    hit: bool,
}

/// What the next byte may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The byte order mark, or the first value.
    Start(u8),
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Text,
    Escape,
    Hex(u8),
    /// So many bytes of a character are left, the next in this range.
    Utf8 {
        left: u8,
        low: u8,
        high: u8,
    },
    Number(Number),
    Word(&'static [u8], usize),
    /// Between documents.
    Between,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Splitter {
    path: Vec<String>,
    expect: Expect,
    stack: Vec<Frame>,
    /// Whether the text being read is a key.
    in_key: bool,
    /// The text of the key being read, where it matters.
    key: Option<Vec<u8>>,
    /// The role of the value of the key that was read last.
    key_role: Role,
    /// The record being read.
    record: Option<Vec<u8>>,
    /// Where the record begins in this chunk.
    record_from: usize,
    found: bool,
    keys_seen: Vec<String>,
    /// Documents may follow each other if they are objects.
    first_is_object: bool,
    line: u64,
    line_start: u64,
    offset: u64,
}

impl Splitter {
    /// Records are at `path` (`data.items`), or the document itself.
    pub(super) fn new(path: Option<&str>) -> Self {
        Self {
            path: path.map(|path| path.split('.').map(str::to_owned).collect()).unwrap_or_default(),
            expect: Expect::Start(0),
            stack: Vec::new(),
            in_key: false,
            key: None,
            key_role: Role::Other,
            record: None,
            record_from: 0,
            found: false,
            keys_seen: Vec::new(),
            first_is_object: false,
            line: 1,
            line_start: 0,
            offset: 0,
        }
    }

    /// Whether there was anything where the path leads.
    pub(super) fn found(&self) -> bool {
        self.found
    }

    /// Keys that stand beside the path.
    pub(super) fn keys_seen(&self) -> &[String] {
        &self.keys_seen
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Bytes that are not JSON, and what `take` says.
    pub(super) fn push(&mut self, chunk: &[u8], take: &mut Take<'_>) -> Result<(), Problem> {
        self.record_from = 0;
        let mut at = 0;
        while at < chunk.len() {
            at = self.step(chunk, at, take)?;
        }
        if let Some(record) = &mut self.record {
            let more = &chunk[self.record_from..];
            if record.len() + more.len() > MAX_RECORD_BYTES {
                let text = format!("a record is larger than the {} MiB that can be read", MAX_RECORD_BYTES >> 20);
                return Err(self.syntax(chunk.len(), &text));
            }
            record.extend_from_slice(more);
        }
        self.offset += chunk.len() as u64;
        Ok(())
    }

    /// Ends the document.
    ///
    /// # Errors
    /// A document that is not complete.
    pub(super) fn finish(&mut self) -> Result<(), Problem> {
        // A number ends where nothing follows.
        if let Expect::Number(Number::Zero | Number::Whole | Number::Fraction | Number::Exponent) = self.expect {
            self.value_done();
        }
        match self.expect {
            Expect::Between => Ok(()),
            Expect::Start(0 | 3) => Err(Problem::Syntax("it is empty, which is not JSON".into())),
            _ => Err(Problem::Syntax("it ends in the middle of a value; was it fully written?".into())),
        }
    }

    fn syntax(&self, at: usize, what: &str) -> Problem {
        let column = (self.offset + at as u64).saturating_sub(self.line_start) + 1;
        Problem::Syntax(format!("line {}, byte {column}: {what}", self.line))
    }

    fn unexpected(&self, chunk: &[u8], at: usize, expected: &str) -> Problem {
        let found = match chunk.get(at) {
            Some(byte @ 0x21..=0x7e) => format!("`{}`", char::from(*byte)),
            Some(byte) => format!("byte 0x{byte:02x}"),
            None => "the end".into(),
        };
        self.syntax(at, &format!("expected {expected}, found {found}"))
    }

    /// Takes one byte, or a stretch of a text; the place of the next.
    fn step(&mut self, chunk: &[u8], at: usize, take: &mut Take<'_>) -> Result<usize, Problem> {
        let byte = chunk[at];
        match self.expect {
            Expect::Text => return self.text(chunk, at),
            Expect::Number(number) => return self.number(chunk, at, number),
            Expect::Utf8 { left, low, high } => {
                if !(low..=high).contains(&byte) {
                    return Err(self.syntax(at, "a text is not UTF-8"));
                }
                self.note_key(byte);
                self.expect =
                    if left == 1 { Expect::Text } else { Expect::Utf8 { left: left - 1, low: 0x80, high: 0xbf } };
                return Ok(at + 1);
            }
            Expect::Escape => {
                self.expect = match byte {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Expect::Text,
                    b'u' => Expect::Hex(4),
                    _ => return Err(self.unexpected(chunk, at, "an escape")),
                };
                self.note_key(byte);
                return Ok(at + 1);
            }
            Expect::Hex(left) => {
                if !byte.is_ascii_hexdigit() {
                    return Err(self.unexpected(chunk, at, "a hexadecimal digit"));
                }
                self.note_key(byte);
                self.expect = if left == 1 { Expect::Text } else { Expect::Hex(left - 1) };
                return Ok(at + 1);
            }
            Expect::Word(word, done) => {
                if byte != word[done] {
                    return Err(self.unexpected(chunk, at, "`true`, `false` or `null`"));
                }
                if done + 1 == word.len() {
                    self.value_done();
                } else {
                    self.expect = Expect::Word(word, done + 1);
                }
                return Ok(at + 1);
            }
            Expect::Start(mark) if mark < 3 => {
                let expected = [0xef, 0xbb, 0xbf][usize::from(mark)];
                if byte == expected {
                    self.expect = Expect::Start(mark + 1);
                    return Ok(at + 1);
                }
                if mark > 0 {
                    return Err(self.unexpected(chunk, at, "a value"));
                }
                self.expect = Expect::Start(3);
                return Ok(at);
            }
            _ => {}
        }
        match byte {
            b' ' | b'\t' | b'\r' => return Ok(at + 1),
            b'\n' => {
                self.line += 1;
                self.line_start = self.offset + at as u64 + 1;
                return Ok(at + 1);
            }
            _ => {}
        }
        match (self.expect, byte) {
            (Expect::ValueOrEnd, b']') | (Expect::KeyOrEnd, b'}') => self.close(chunk, at, take)?,
            (Expect::Start(_) | Expect::Value | Expect::ValueOrEnd, _) => self.begin_value(chunk, at, take)?,
            (Expect::Between, b'{') if self.first_is_object => self.begin_value(chunk, at, take)?,
            (Expect::Between, _) => return Err(self.unexpected(chunk, at, "the end")),
            (Expect::Key | Expect::KeyOrEnd, b'"') => {
                self.in_key = true;
                let on_path = self.stack.last().is_some_and(|frame| matches!(frame.role, Role::Path(_)));
                self.key = on_path.then(Vec::new);
                self.expect = Expect::Text;
            }
            (Expect::Key | Expect::KeyOrEnd, _) => return Err(self.unexpected(chunk, at, "a key in quotes")),
            (Expect::Colon, b':') => self.expect = Expect::Value,
            (Expect::Colon, _) => return Err(self.unexpected(chunk, at, "`:`")),
            (Expect::CommaOrEnd, b',') => {
                let object = self.stack.last().is_some_and(|frame| frame.object);
                self.expect = if object { Expect::Key } else { Expect::Value };
            }
            (Expect::CommaOrEnd, b'}' | b']') => self.close(chunk, at, take)?,
            _ => {
                let object = self.stack.last().is_some_and(|frame| frame.object);
                return Err(self.unexpected(chunk, at, if object { "`,` or `}`" } else { "`,` or `]`" }));
            }
        }
        Ok(at + 1)
    }

    /// The role of the value that begins now.
    fn role(&self) -> Role {
        let Some(frame) = self.stack.last() else {
            return if self.path.is_empty() { Role::Target } else { Role::Path(0) };
        };
        match frame.role {
            Role::Record | Role::Inside => Role::Inside,
            Role::Target => Role::Record,
            Role::Path(_) if frame.object => self.key_role,
            // A list on the way: the path goes on in each of its objects.
            Role::Path(depth) => Role::Path(depth),
            Role::Other => Role::Other,
        }
    }

    fn begin_value(&mut self, chunk: &[u8], at: usize, take: &mut Take<'_>) -> Result<(), Problem> {
        let byte = chunk[at];
        let mut role = self.role();
        if self.stack.is_empty() {
            self.first_is_object = byte == b'{';
        }
        self.found |= role == Role::Target;
        if role == Role::Target && byte == b'{' {
            role = Role::Record;
        }
        let odd = match (role, byte) {
            (Role::Record, b'{') => {
                self.record = Some(Vec::new());
                self.record_from = at;
                None
            }
            (Role::Target, b'[') => None,
            // Nothing at the end of a path is no records; a document that is nothing is no rows.
            (Role::Target, b'n') if !self.path.is_empty() => None,
            (Role::Target | Role::Record, b'[') => Some("a list"),
            (Role::Target | Role::Record, b'"') => Some("a text"),
            (Role::Target | Role::Record, b'n') => Some("null"),
            (Role::Target | Role::Record, b't' | b'f') => Some("true or false"),
            (Role::Target | Role::Record, _) => Some("a number"),
            _ => None,
        };
        if odd.is_some() {
            role = Role::Other;
        }
        match byte {
            b'{' | b'[' => {
                if self.stack.len() >= MAX_DEPTH {
                    return Err(self.syntax(at, &format!("values are nested deeper than {MAX_DEPTH} levels")));
                }
                let object = byte == b'{';
                self.stack.push(Frame { object, role, hit: false });
                self.expect = if object { Expect::KeyOrEnd } else { Expect::ValueOrEnd };
            }
            b'"' => {
                self.in_key = false;
                self.key = None;
                self.expect = Expect::Text;
            }
            b't' => self.expect = Expect::Word(b"true", 1),
            b'f' => self.expect = Expect::Word(b"false", 1),
            b'n' => self.expect = Expect::Word(b"null", 1),
            b'-' => self.expect = Expect::Number(Number::Minus),
            b'0' => self.expect = Expect::Number(Number::Zero),
            b'1'..=b'9' => self.expect = Expect::Number(Number::Whole),
            _ => return Err(self.unexpected(chunk, at, "a value")),
        }
        match odd {
            Some(what) => take(Item::NotARow(what)).map_err(Problem::Stopped),
            None => Ok(()),
        }
    }

    /// A stretch of a text, up to what needs a closer look.
    fn text(&mut self, chunk: &[u8], at: usize) -> Result<usize, Problem> {
        let plain = chunk[at..].iter().position(|byte| !matches!(byte, 0x20..=0x7f) || matches!(byte, b'"' | b'\\'));
        let end = plain.map_or(chunk.len(), |plain| at + plain);
        if let Some(key) = &mut self.key {
            if key.len() + end - at > MAX_KEY_BYTES {
                self.key = None;
            } else {
                key.extend_from_slice(&chunk[at..end]);
            }
        }
        let Some(&byte) = chunk.get(end) else {
            return Ok(end);
        };
        self.expect = match byte {
            b'"' => {
                if mem::take(&mut self.in_key) {
                    self.key_done(end)?;
                    self.expect = Expect::Colon;
                } else {
                    self.value_done();
                }
                return Ok(end + 1);
            }
            b'\\' => Expect::Escape,
            0xc2..=0xdf => Expect::Utf8 { left: 1, low: 0x80, high: 0xbf },
            0xe0 => Expect::Utf8 { left: 2, low: 0xa0, high: 0xbf },
            0xe1..=0xec | 0xee..=0xef => Expect::Utf8 { left: 2, low: 0x80, high: 0xbf },
            0xed => Expect::Utf8 { left: 2, low: 0x80, high: 0x9f },
            0xf0 => Expect::Utf8 { left: 3, low: 0x90, high: 0xbf },
            0xf1..=0xf3 => Expect::Utf8 { left: 3, low: 0x80, high: 0xbf },
            0xf4 => Expect::Utf8 { left: 3, low: 0x80, high: 0x8f },
            0x00..=0x1f => return Err(self.syntax(end, &format!("a text holds the control character 0x{byte:02x}"))),
            _ => return Err(self.syntax(end, "a text is not UTF-8")),
        };
        self.note_key(byte);
        Ok(end + 1)
    }

    fn note_key(&mut self, byte: u8) {
        if let Some(key) = self.key.as_mut().filter(|key| key.len() < MAX_KEY_BYTES) {
            key.push(byte);
        }
    }

    /// A key on the path was read: does it lead on?
    fn key_done(&mut self, at: usize) -> Result<(), Problem> {
        self.key_role = Role::Other;
        let Some(raw) = self.key.take() else { return Ok(()) };
        let Some(Frame { role: Role::Path(depth), .. }) = self.stack.last().copied() else { return Ok(()) };
        let mut quoted = Vec::with_capacity(raw.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(&raw);
        quoted.push(b'"');
        let Ok(key) = serde_json::from_slice::<String>(&quoted) else { return Ok(()) };
        if self.path.get(depth) != Some(&key) {
            if self.keys_seen.len() < KEYS_SHOWN && !self.keys_seen.contains(&key) && key.len() <= 64 {
                self.keys_seen.push(key);
            }
            return Ok(());
        }
        // The last of equal keys is the one that counts, but the first has gone by already.
        if let Some(frame) = self.stack.last_mut() {
            if mem::replace(&mut frame.hit, true) {
                return Err(self.syntax(at, &format!("the key `{key}` stands twice in one object")));
            }
        }
        self.key_role = if depth + 1 == self.path.len() { Role::Target } else { Role::Path(depth + 1) };
        Ok(())
    }

    fn number(&mut self, chunk: &[u8], at: usize, number: Number) -> Result<usize, Problem> {
        use Number as N;
        let next = match (number, chunk[at]) {
            (N::Minus, b'0') => N::Zero,
            (N::Minus | N::Whole, b'1'..=b'9') | (N::Whole, b'0') => N::Whole,
            (N::Zero | N::Whole, b'.') => N::Point,
            (N::Point | N::Fraction, b'0'..=b'9') => N::Fraction,
            (N::Zero | N::Whole | N::Fraction, b'e' | b'E') => N::E,
            (N::E, b'+' | b'-') => N::Sign,
            (N::E | N::Sign | N::Exponent, b'0'..=b'9') => N::Exponent,
            (N::Zero | N::Whole | N::Fraction | N::Exponent, _) => {
                self.value_done();
                return Ok(at);
            }
            _ => return Err(self.unexpected(chunk, at, "a digit")),
        };
        self.expect = Expect::Number(next);
        Ok(at + 1)
    }

    fn close(&mut self, chunk: &[u8], at: usize, take: &mut Take<'_>) -> Result<(), Problem> {
        let object = chunk[at] == b'}';
        let Some(frame) = self.stack.pop_if(|frame| frame.object == object) else {
            let open = self.stack.last().is_some_and(|frame| frame.object);
            return Err(self.unexpected(chunk, at, if open { "`}`" } else { "`]`" }));
        };
        if frame.role == Role::Record {
            if let Some(mut record) = self.record.take() {
                let whole = if record.is_empty() {
                    &chunk[self.record_from..=at]
                } else {
                    record.extend_from_slice(&chunk[self.record_from..=at]);
                    &record
                };
                take(Item::Record(whole)).map_err(Problem::Stopped)?;
            }
        }
        self.value_done();
        Ok(())
    }

    /// A value is complete.
    fn value_done(&mut self) {
        self.expect = if self.stack.is_empty() { Expect::Between } else { Expect::CommaOrEnd };
    }
}
