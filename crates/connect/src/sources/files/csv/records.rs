//! The records of a text as bytes, cut where readers cut them and never changed: for who writes them anew.

use super::record::{self, Fields, Step};
use super::text::Text;
use super::{Dialect, MAX_RECORD};
use crate::sources::files::formats::FileInput;
use crate::sources::files::formats::bytes::Purpose;
use gristmill_model::spec::FileFormat;
use gristmill_model::{Error, ErrorKind, Result};

/// What is given away at once, about.
const CHUNK_BYTES: usize = 1 << 20;
/// The longest line of NDJSON, as its reader has it.
const MAX_LINE: usize = 64 << 20;

/// Whole records, the last one with a line break behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: u64,
}

/// What a file begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The record that names the columns, with its line break; empty where there is none.
    pub(crate) header: Vec<u8>,
    /// The fields of the first record.
    pub(crate) fields: usize,
}

/// A file's records.
pub(crate) struct Records {
    text: Text,
    name: String,
    cut: Cut,
}

enum Cut {
    Csv(Dialect, Fields),
    Lines,
}

/// What the rest of a text begins with.
enum Found {
    /// A record from the first byte to the second.
    Record {
        start: usize,
        end: usize,
        fields: usize,
    },
    /// Nothing whole; what is before the byte can be let go of.
    More(usize),
    End,
}

impl Records {
    /// Opens a file of CSV or NDJSON.
    ///
    /// # Errors
    /// A file that cannot be opened; a dialect that is none.
    pub(crate) async fn open(input: &FileInput, format: FileFormat) -> Result<Self> {
        let cut =
            if format == FileFormat::Csv { Cut::Csv(Dialect::new(&input.csv)?, Fields::default()) } else { Cut::Lines };
        let encoding = match &cut {
            Cut::Csv(dialect, _) => dialect.encoding,
            Cut::Lines => None,
        };
        let text = Text::open(input, encoding, Purpose::Read).await?;
        Ok(Self { text, name: input.name.clone(), cut })
    }

    /// Takes the header, where there is one. To be asked first.
    ///
    /// # Errors
    /// What the store, the disk or the decompressor says; a record without an end.
    pub(crate) async fn head(&mut self) -> Result<Head> {
        let Cut::Csv(dialect, _) = &self.cut else { return Ok(Head::default()) };
        let is_header = dialect.header;
        loop {
            match self.found()? {
                Found::Record { start, end, fields } => {
                    let mut header = Vec::new();
                    if is_header {
                        header.extend_from_slice(&self.text.rest().0[start..end]);
                        while matches!(header.last(), Some(b'\n' | b'\r')) {
                            header.pop();
                        }
                        header.push(b'\n');
                        self.text.advance(end);
                    }
                    return Ok(Head { header, fields });
                }
                Found::More(start) => {
                    self.text.advance(start);
                    self.text.more().await?;
                }
                Found::End => return Ok(Head::default()),
            }
        }
    }

    /// The next records; none at the end.
    ///
    /// # Errors
    /// As [`Records::head`].
    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>> {
        let mut chunk = Chunk::default();
        while chunk.bytes.len() < CHUNK_BYTES {
            match self.found()? {
                Found::Record { start, end, .. } => {
                    chunk.bytes.extend_from_slice(&self.text.rest().0[start..end]);
                    self.text.advance(end);
                    if !matches!(chunk.bytes.last(), Some(b'\n' | b'\r')) {
                        chunk.bytes.push(b'\n');
                    }
                    chunk.records += 1;
                }
                Found::More(start) => {
                    self.text.advance(start);
                    self.text.more().await?;
                }
                Found::End => break,
            }
        }
        Ok((chunk.records > 0).then_some(chunk))
    }

    fn found(&mut self) -> Result<Found> {
        let (rest, last) = self.text.rest();
        let (found, most) = match &mut self.cut {
            Cut::Csv(dialect, fields) => match record::next(dialect, rest, last, fields) {
                Step::Record { open: true, .. } => return Err(self.wrong("a quote is never closed")),
                Step::Record { start, end, .. } => (Found::Record { start, end, fields: fields.len() }, MAX_RECORD),
                Step::More { start, .. } => (Found::More(start), MAX_RECORD),
                Step::End => (Found::End, MAX_RECORD),
            },
            Cut::Lines => (line(rest, last), MAX_LINE),
        };
        match found {
            Found::More(start) if rest.len() - start > most => Err(self.wrong("a record has no end")),
            found => Ok(found),
        }
    }

    fn wrong(&self, why: &str) -> Error {
        Error::new(ErrorKind::Data, format!("`{}` cannot be cut into records: {why}", self.name))
            .hint("correct the file, or move it away")
    }
}

/// The next line that is not blank.
fn line(rest: &[u8], last: bool) -> Found {
    let mut start = 0;
    loop {
        let end = memchr::memchr(b'\n', &rest[start..]).map(|length| start + length + 1);
        let end = match end {
            Some(end) => end,
            None if last && start == rest.len() => return Found::End,
            None if last => rest.len(),
            None => return Found::More(start),
        };
        if !rest[start..end].iter().all(u8::is_ascii_whitespace) {
            return Found::Record { start, end, fields: 1 };
        }
        start = end;
    }
}
