//! CSV, read row by row so that one bad row is one bad row.
//!
//! ```text
//!   bytes ── text (decode) ── record (cut) ── read (understand, or refuse) ── batches
//!                                └── guess (types, from a sample)
//! ```
//!
//! A row is refused when it has too few or too many fields, when a field asked for is not of its column's type, when it
//! is not text in the file's encoding, or when a quote is never closed (only the line it begins on is refused then, and
//! reading goes on with the next). Only the columns asked for are understood.
//!
//! The types are told from the first 1,000 rows or about 1 MiB, whichever ends first; a value further down that does not
//! fit is a bad row, and `schema:` declares the type by hand.

mod column;
mod dialect;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guess;
pub(super) mod quotes;
mod read;
mod record;
pub(crate) mod records;
pub(super) mod slices;
pub(super) mod survey;
#[cfg(test)]
mod tests;
mod text;

pub(super) use dialect::Dialect;
pub(crate) use dialect::delimiter_by_name;
pub(super) use read::{can_be_any_text, first_columns};

use super::formats::bytes::Purpose;
use super::formats::{FileInput, FileReader, RowCount, Seen};
use crate::{Rows, Scan};
use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use gristmill_model::Result;
use guess::Guess;
use record::{Fields, Step};
use std::collections::HashSet;
use std::sync::Arc;
use text::Text;

/// Rows that are looked at to tell the types.
const SAMPLE_ROWS: usize = 1_000;

/// Bytes that are looked at to tell the types, about.
const SAMPLE_BYTES: usize = 1 << 20;

/// The longest record. Longer ones are most likely a quote that is never closed.
const MAX_RECORD: usize = 16 << 20;

/// Reads CSV.
#[derive(Debug, Clone, Copy)]
pub(super) struct CsvReader;

#[async_trait]
impl FileReader for CsvReader {
    async fn infer(&self, input: &FileInput) -> Result<Seen> {
        let dialect = Dialect::new(&input.csv)?;
        let mut text = Text::open(input, dialect.encoding, Purpose::Look).await?;
        let mut fields = Fields::default();
        let mut columns: Option<Vec<String>> = None;
        let mut guesses: Vec<Guess> = Vec::new();
        let (mut rows, mut seen) = (0, 0);
        while rows < SAMPLE_ROWS && seen < SAMPLE_BYTES {
            let (rest, last) = text.rest();
            match record::next(&dialect, rest, last, &mut fields) {
                Step::More { start, .. } if rest.len() - start <= MAX_RECORD => {
                    text.advance(start);
                    text.more().await?;
                    continue;
                }
                Step::More { .. } | Step::End | Step::Record { open: true, .. } => break,
                Step::Record { end, .. } => {
                    // What is not text here is an error when it is read, in its place.
                    if let Ok(texts) = fields.text(rest) {
                        match &columns {
                            None if dialect.header => columns = Some(names(texts.iter())),
                            None => columns = Some(numbered(fields.len())),
                            Some(_) => {}
                        }
                        let width = columns.as_ref().map_or(0, Vec::len);
                        guesses.resize(width, Guess::Unknown);
                        if (rows > 0 || !dialect.header) && fields.len() == width {
                            let values =
                                guesses.iter_mut().zip(texts.iter()).filter(|(_, text)| !dialect.is_null(text));
                            values.for_each(|(guess, text)| guess.add(text));
                        }
                    }
                    rows += 1;
                    seen += end;
                    text.advance(end);
                }
            }
        }
        let columns = columns.unwrap_or_default();
        let fields: Vec<Field> =
            columns.into_iter().zip(guesses).map(|(name, guess)| Field::new(name, guess.data_type(), true)).collect();
        let sampled = rows.saturating_sub(usize::from(dialect.header));
        let sampled = RowCount::Sampled { rows: sampled as u64, bytes: seen as u64 };
        Ok(Seen { schema: Arc::new(Schema::new(fields)), rows: sampled, row_groups: Vec::new() })
    }

    fn read(&self, input: FileInput, scan: Scan) -> Rows {
        read::rows(input, scan)
    }
}

/// The names of a header; a name that is empty or already there gets its position, so that every column can be named.
fn names<'a>(header: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut taken: HashSet<String> = HashSet::new();
    header
        .enumerate()
        .map(|(index, name)| {
            let position = format!("column_{}", index + 1);
            let mut name = if name.is_empty() { position } else { name.to_owned() };
            let plain = name.clone();
            let mut count = 1;
            while !taken.insert(name.clone()) {
                count += 1;
                name = format!("{plain}_{count}");
            }
            name
        })
        .collect()
}

/// The names of columns without a header.
fn numbered(count: usize) -> Vec<String> {
    (1..=count).map(|index| format!("column_{index}")).collect()
}
