//! JSON records to batches, and the columns that records have.
//!
//! Every record is validated in full by `serde_json`, along the schema asked for, before arrow's decoder sees it: arrow
//! accepts some texts that are not JSON and cuts the fraction off a number that should be whole. What passes is decoded
//! in bulk; only when a bulk fails are its records taken one by one to find the one to blame.

mod infer;
mod rewrite;
mod shape;

pub(super) use infer::Inference;

use super::adapt::shorten;
use super::decode::{Blame, Out};
use crate::{Reject, Scan};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use gristmill_model::spec::OnFail;
use gristmill_model::{Error, ErrorKind, Result, ResultExt};
use shape::Shape;
use std::borrow::Cow;

/// The largest record that is read.
pub(super) const MAX_RECORD_BYTES: usize = 64 << 20;

/// Records are decoded at the latest when they come to this.
const BULK_BYTES: usize = 16 << 20;

/// The most cells in a bulk, so that a file of a hundred thousand columns stays within memory.
const BULK_CELLS: usize = 4 << 20;

/// How a record is counted, for places and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// By the line it stands on.
    Line,
    /// By its number in the document.
    Record,
}

impl Unit {
    /// `orders.ndjson:17`, `orders.json: record 17`.
    pub(super) fn place(self, name: &str, number: u64) -> String {
        match self {
            Self::Line => format!("{name}:{number}"),
            Self::Record => format!("{name}: record {number}"),
        }
    }
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is not JSON, or a value is not of its type.
    Invalid(String),
    /// It is JSON, but not an object.
    NotARow(String),
}

impl Problem {
    /// The words, for people.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Invalid(text) | Self::NotARow(text) => text,
        }
    }

    /// The error of a file whose bad rows fail the run.
    pub(super) fn error(&self, place: &str) -> Error {
        match self {
            Self::Invalid(text) => Error::new(ErrorKind::Data, format!("`{place}` cannot be read: {text}"))
                .hint("leave such rows out with `on_bad_row: drop`, or keep them aside with `on_bad_row: dead_letter`"),
            Self::NotARow(text) => not_rows(place, text),
        }
    }
}

/// Valid JSON that has no rows in it.
pub(super) fn not_rows(place: &str, text: &str) -> Error {
    Error::new(ErrorKind::Schema, format!("`{place}` is valid JSON but not rows: {text}"))
        .hint("rows are objects; where they are inside a document say it with `json: {records: data.items}`")
}

/// Validates, decodes and, where asked, leaves out records.
pub(super) struct Records {
    scan: Scan,
    blame: Blame,
    unit: Unit,
    /// What records are counted from.
    counted_from: String,
    shape: Shape,
    decoder: Decoder,
    bulk_rows: usize,
    /// The records waiting to be decoded, one after the other.
    text: Vec<u8>,
    /// For each, where it ends in `text` and its number.
    ends: Vec<(usize, u64)>,
    /// The fields of a record that no column holds.
    beyond: Vec<String>,
}

impl Records {
    /// # Errors
    /// A type that JSON cannot be read as.
    pub(super) fn new(scan: &Scan, blame: Blame, unit: Unit) -> Result<Self> {
        let shape = Shape::of_schema(&scan.schema);
        let bulk_rows = (BULK_CELLS / shape.leaves().max(1)).clamp(1, scan.batch_size.max(1));
        let decoder = decoder(scan, bulk_rows)?;
        let counted_from = blame.name().to_owned();
        let (text, ends, beyond) = (Vec::new(), Vec::new(), Vec::new());
        let mut scan = scan.clone();
        scan.rejects = scan.rejects.map(|rejects| rejects.of_file(&counted_from, String::new()));
        Ok(Self { scan, blame, unit, counted_from, shape, decoder, bulk_rows, text, ends, beyond })
    }

    /// Counts records from somewhere else than the beginning of the file.
    pub(super) fn with_place(mut self, place: String) -> Self {
        self.counted_from = place;
        self
    }

    /// Takes one record.
    ///
    /// # Errors
    /// A bad record where those fail the run; a reader that has gone.
    pub(super) fn push(&mut self, record: &[u8], number: u64, out: &Out) -> Result<()> {
        let fields = self.scan.rejects.as_ref().filter(|rejects| rejects.wants_fields());
        let before = self.text.len();
        match self.shape.check(record, fields.is_some().then_some(&mut self.beyond)) {
            Ok(false) => self.text.extend_from_slice(record),
            Ok(true) => rewrite::nested_as_text(record, &self.shape, &mut self.text),
            Err(problem) => return self.refuse(record, number, &problem),
        }
        if let Some(fields) = fields {
            let noted = fields.note_fields(self.beyond.iter().map(String::as_str));
            self.beyond.clear();
            if noted.context(|| self.unit.place(&self.counted_from, number))? {
                self.text.truncate(before);
                return Ok(());
            }
        }
        self.text.push(b'\n');
        self.ends.push((self.text.len(), number));
        if self.ends.len() >= self.bulk_rows || self.text.len() >= BULK_BYTES {
            self.flush(out)?;
        }
        Ok(())
    }

    /// Leaves a record out, or fails.
    ///
    /// # Errors
    /// The problem as an error, where bad rows fail the run.
    pub(super) fn refuse(&self, record: &[u8], number: u64, problem: &Problem) -> Result<()> {
        let place = self.unit.place(&self.counted_from, number);
        if self.scan.on_bad_row == OnFail::Fail {
            return Err(problem.error(&place));
        }
        if let Some(rejects) = &self.scan.rejects {
            let shown = &record[..record.len().min(super::adapt::MAX_REJECT_BYTES)];
            rejects.send(Reject {
                record: shorten(String::from_utf8_lossy(shown).trim_end().to_owned()),
                error: problem.text().to_owned(),
                place,
            });
        }
        Ok(())
    }

    /// Decodes what is waiting.
    ///
    /// # Errors
    /// As [`Records::push`].
    pub(super) fn flush(&mut self, out: &Out) -> Result<()> {
        if self.ends.is_empty() {
            return Ok(());
        }
        let text = std::mem::take(&mut self.text);
        let ends = std::mem::take(&mut self.ends);
        let batch = match decode(&mut self.decoder, &text, ends.len()) {
            Ok(batch) => batch,
            Err(error) => self.decode_one_by_one(&text, &ends, &error)?,
        };
        self.text = text;
        self.text.clear();
        if batch.num_rows() > 0 {
            // Arrow's decoder makes fields of its own; ours carry the metadata asked for.
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let batch = RecordBatch::try_new_with_options(self.scan.schema.clone(), batch.columns().to_vec(), &options)
                .map_err(|error| self.blame.data(error))?;
            out.send_as_is(batch)?;
        }
        Ok(())
    }

    /// A bulk failed: finds the records to blame, and decodes the others.
    fn decode_one_by_one(&mut self, text: &[u8], ends: &[(usize, u64)], error: &ArrowError) -> Result<RecordBatch> {
        let mut good = Vec::with_capacity(text.len());
        let mut count = 0;
        let mut start = 0;
        self.decoder = decoder(&self.scan, self.bulk_rows)?;
        for (end, number) in ends {
            let record = &text[start..*end];
            start = *end;
            match decode(&mut self.decoder, record, 1) {
                Ok(_) => {
                    good.extend_from_slice(record);
                    count += 1;
                }
                Err(error) => {
                    self.decoder = decoder(&self.scan, self.bulk_rows)?;
                    self.refuse(record, *number, &Problem::Invalid(words(&error)))?;
                }
            }
        }
        if count == ends.len() {
            return Err(self.blame.data(error));
        }
        if count == 0 {
            return Ok(RecordBatch::new_empty(self.scan.schema.clone()));
        }
        decode(&mut self.decoder, &good, count).map_err(|error| self.blame.data(error))
    }
}

fn decoder(scan: &Scan, rows: usize) -> Result<Decoder> {
    ReaderBuilder::new(scan.schema.clone())
        .with_batch_size(rows)
        .with_coerce_primitive(true)
        .build_decoder()
        .map_err(|error| Error::new(ErrorKind::Schema, "a column has a type that JSON cannot be read as").cause(error))
}

fn decode(decoder: &mut Decoder, text: &[u8], rows: usize) -> Result<RecordBatch, ArrowError> {
    let taken = decoder.decode(text)?;
    let batch = decoder.flush()?;
    match batch {
        Some(batch) if taken == text.len() && batch.num_rows() == rows => Ok(batch),
        // Said of a bulk, this makes its records be taken one by one.
        _ => Err(ArrowError::JsonError("it is not one object".into())),
    }
}

/// Arrow's words, with the column said as we say it.
fn words(error: &ArrowError) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("Json error: ").unwrap_or(&text);
    let mut path = Vec::new();
    let mut rest = text;
    while let Some((field, inner)) =
        rest.strip_prefix("whilst decoding field '").and_then(|text| text.split_once("': "))
    {
        path.push(field);
        rest = inner;
    }
    let rest: Cow<'_, str> =
        if rest.len() > 300 { rest.chars().take(300).collect::<String>().into() } else { rest.into() };
    if path.is_empty() { rest.into_owned() } else { format!("column `{}`: {rest}", path.join(".")) }
}
