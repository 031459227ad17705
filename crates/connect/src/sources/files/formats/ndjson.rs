//! One JSON object a line.

use super::bytes::{Purpose, SyncBytes};
use super::decode::{self, Blame, Bridge};
use super::records::{Inference, MAX_RECORD_BYTES, Problem, Records, Unit};
use super::{FileInput, FileReader, Seen};
use crate::{Rows, Scan};
use async_trait::async_trait;
use gristmill_model::Result;

/// How much is read at once.
const CHUNK_BYTES: usize = 256 << 10;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug)]
pub(super) struct NdjsonReader;

#[async_trait]
impl FileReader for NdjsonReader {
    async fn infer(&self, input: &FileInput) -> Result<Seen> {
        let input = input.clone();
        decode::call(Blame::new(&input, "NDJSON"), move |bridge| {
            let mut seen = Inference::default();
            each_line(bridge, &input, Purpose::Look, |line| {
                match line {
                    Line::Whole(text, number) => {
                        seen.see_bytes(text.len() + 1);
                        seen.see(text, number);
                    }
                    Line::TooLong(text, number) => {
                        seen.see_bytes(text.len());
                        seen.see_problem(number, too_long());
                    }
                }
                Ok(!seen.enough())
            })?;
            let rows = seen.count();
            let schema = seen.finish().map_err(|(number, problem)| {
                let error = problem.error(&Unit::Line.place(&input.name, number));
                match problem {
                    Problem::NotARow(_) => error.hint("for a JSON document say `format: json`"),
                    Problem::Invalid(_) => error,
                }
            })?;
            Ok(Seen::new(schema, rows))
        })
        .await
    }

    fn read(&self, input: FileInput, scan: Scan) -> Rows {
        decode::rows(scan, Blame::new(&input, "NDJSON"), move |bridge, out| {
            let mut records = Records::new(out.scan(), bridge.blame.clone(), Unit::Line)?.with_place(input.place());
            each_line(bridge, &input, Purpose::Read, |line| {
                match line {
                    Line::Whole(text, number) => records.push(text, number, out)?,
                    Line::TooLong(text, number) => records.refuse(text, number, &too_long())?,
                }
                Ok(true)
            })?;
            records.flush(out)
        })
    }
}

fn too_long() -> Problem {
    Problem::Invalid(format!("the line is longer than the {} MiB that can be read", MAX_RECORD_BYTES >> 20))
}

fn each_line(
    bridge: &Bridge,
    input: &FileInput,
    purpose: Purpose,
    mut visit: impl FnMut(Line<'_>) -> Result<bool>,
) -> Result<()> {
    let mut bytes = SyncBytes::open(bridge, input, purpose)?;
    let mut lines = Lines::after(input.lines_before(), input.byte_range().is_none_or(|piece| piece.start == 0));
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = bytes.take(&mut chunk)?;
        if read == 0 {
            return lines.finish(&mut visit);
        }
        if !lines.push(&chunk[..read], &mut visit)? {
            return Ok(());
        }
    }
}

/// A line that is not blank, with its number from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// All of it.
    Whole(&'a [u8], u64),
    /// Its beginning; it is too long to be read.
    TooLong(&'a [u8], u64),
}

/// Cuts chunks into lines; the same lines however the bytes are chunked.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end is yet to come.
    partial: Vec<u8>,
    /// Whether that line is already too long: only its beginning is kept.
    too_long: bool,
    number: u64,
    /// Whether a line has been seen, or the file does not begin with the first one.
    begun: bool,
}

impl Lines {
    /// The lines that stand behind so many others; `first` says that the file begins with them.
    pub(super) fn after(lines_before: u64, first: bool) -> Self {
        Self { number: lines_before, begun: !first, ..Self::default() }
    }

    /// Takes a chunk; false as soon as `visit` has seen enough.
    ///
    /// # Errors
    /// Those of `visit`.
    pub(super) fn push(&mut self, mut chunk: &[u8], visit: &mut impl FnMut(Line<'_>) -> Result<bool>) -> Result<bool> {
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            let line = &chunk[..end];
            chunk = &chunk[end + 1..];
            let more = if self.partial.is_empty() && !self.too_long {
                self.visit(line, false, visit)?
            } else {
                self.extend(line);
                self.visit_partial(visit)?
            };
            if !more {
                return Ok(false);
            }
        }
        self.extend(chunk);
        Ok(true)
    }

    /// Takes the last line, if it has no end of its own.
    ///
    /// # Errors
    /// Those of `visit`.
    pub(super) fn finish(&mut self, visit: &mut impl FnMut(Line<'_>) -> Result<bool>) -> Result<()> {
        self.visit_partial(visit).map(drop)
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = (MAX_RECORD_BYTES + BYTE_ORDER_MARK.len()).saturating_sub(self.partial.len());
        self.too_long |= bytes.len() > room;
        if self.too_long {
            self.partial.truncate(super::adapt::MAX_REJECT_BYTES);
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn visit_partial(&mut self, visit: &mut impl FnMut(Line<'_>) -> Result<bool>) -> Result<bool> {
        let line = std::mem::take(&mut self.partial);
        let too_long = std::mem::take(&mut self.too_long);
        let more = self.visit(&line, too_long, visit);
        self.partial = line;
        self.partial.clear();
        more
    }

    fn visit(
        &mut self,
        mut line: &[u8],
        too_long: bool,
        visit: &mut impl FnMut(Line<'_>) -> Result<bool>,
    ) -> Result<bool> {
        self.number += 1;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if too_long {
            return visit(Line::TooLong(line, self.number));
        }
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            return Ok(true);
        }
        visit(Line::Whole(line, self.number))
    }
}
