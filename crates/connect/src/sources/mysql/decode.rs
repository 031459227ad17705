//! Rows of the binary protocol to batches: rows are looked through where they were received, then taken apart column by
//! column.

use super::columns;
use super::kept;
use super::types::{Column, Form};
use super::wire::row::{Layout, Raw};
use crate::columns::Place;
use crate::declared::Values;
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use gristmill_model::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;

/// A batch is closed when its rows reach this many bytes: large values must not make large batches.
const BATCH_BYTES: usize = 16 << 20;

/// Rows that are looked through before their columns are decoded: so many that they are still in the processor's cache then.
const GATHERED: usize = 256;

/// Builds batches of rows.
#[derive(Debug)]
pub(super) struct Decoder {
    schema: SchemaRef,
    columns: Vec<Building>,
    /// How the columns of a row come. There may be more of them than columns: a SELECT has one at least.
    layout: Layout,
    /// Where the values lie of the rows that were looked through: [`GATHERED`] places for each column.
    places: Vec<Place>,
    /// Rows of this batch that were looked through, and are not decoded yet.
    placed: usize,
    /// Those that are.
    rows: usize,
    bytes: usize,
    batch_size: usize,
    /// Rows of this batch with a value that cannot be had, and why.
    refused: Vec<(usize, String)>,
    /// Those rows as they came.
    records: BTreeMap<usize, String>,
}

#[derive(Debug)]
struct Building {
    name: String,
    raw: Raw,
    form: Form,
    values: Values,
}

/// A row that was refused: as it came, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) record: String,
    pub(super) why: String,
}

impl Decoder {
    /// `raw` is how the server says that the columns come.
    ///
    /// # Errors
    /// A type that nothing becomes, which planning has looked at; fewer columns than were asked for.
    pub(super) fn new(columns: &[Column], raw: Vec<Raw>, schema: SchemaRef, batch_size: usize) -> Result<Self> {
        if raw.len() < columns.len() {
            return Err(Error::internal("MySQL gives fewer columns than were asked for"));
        }
        let columns = columns
            .iter()
            .zip(&raw)
            .map(|(column, raw)| {
                let values = Values::new(&column.kind)
                    .ok_or_else(|| Error::internal(format!("nothing becomes {} here", column.kind)))?;
                Ok(Building { name: column.name.clone(), raw: *raw, form: column.form, values })
            })
            .collect::<Result<Vec<_>>>()?;
        let places = vec![Place::null(); columns.len() * GATHERED];
        let batch_size = batch_size.max(1);
        Ok(Self {
            schema,
            columns,
            layout: Layout::new(&raw),
            places,
            placed: 0,
            rows: 0,
            bytes: 0,
            batch_size,
            refused: Vec::new(),
            records: BTreeMap::new(),
        })
    }

    /// Looks through one row of what was received. None for a row that is torn.
    pub(super) fn place(&mut self, received: &[u8], row: Range<usize>) -> Option<()> {
        let (start, placed) = (row.start, self.placed);
        // Nobody has received 4 GB and not looked at it.
        let bytes = received.get(row).filter(|_| u32::try_from(received.len()).is_ok())?;
        self.layout.walk(bytes, |column, place| {
            if let Some(slot) = self.places.get_mut(column * GATHERED + placed) {
                *slot = place.map_or(Place::null(), |place| Place::near(start + place.start, start + place.end));
            }
        })?;
        self.bytes += bytes.len();
        self.placed += 1;
        if self.placed == GATHERED {
            self.decode(received);
        }
        Some(())
    }

    /// Takes the rows apart that were looked through. What was received is not needed any more then.
    pub(super) fn decode(&mut self, received: &[u8]) {
        let (before, refused) = (self.rows, &mut self.refused);
        let earlier = refused.len();
        let places = self.places.chunks_exact(GATHERED);
        for (Building { name, raw, form, values }, places) in self.columns.iter_mut().zip(places) {
            columns::extend(values, (*raw, *form), received, &places[..self.placed], &mut |row, why| {
                refused.push((before + row, format!("column `{name}`: {why}")));
            });
        }
        for (row, _) in &refused[earlier..] {
            let (columns, places) = (&self.columns, self.places.chunks_exact(GATHERED));
            self.records.entry(*row).or_insert_with(|| {
                let values = columns
                    .iter()
                    .zip(places)
                    .map(|(of, places)| (of.name.as_str(), (of.raw, of.form), places[row - before]));
                kept::record(values, received)
            });
        }
        self.rows += self.placed;
        self.placed = 0;
    }

    /// Whether the batch has reached its size.
    pub(super) fn is_full(&self) -> bool {
        self.rows + self.placed >= self.batch_size || self.bytes >= BATCH_BYTES
    }

    /// Whether there is nothing in the batch.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// How many rows there are in the batch.
    pub(super) fn rows(&self) -> u64 {
        self.rows as u64
    }

    /// Closes the batch: the good rows, and those that were refused.
    ///
    /// # Errors
    /// Only a bug here.
    pub(super) fn finish(&mut self) -> Result<(RecordBatch, Vec<Refused>)> {
        let internal = |error| Error::internal("rows from MySQL do not make a batch").cause(error);
        let arrays: Vec<ArrayRef> =
            self.columns.iter_mut().map(|column| column.values.finish(self.rows)).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(internal)?;
        self.rows = 0;
        self.bytes = 0;
        if self.refused.is_empty() {
            return Ok((batch, Vec::new()));
        }
        // They came column by column. The sort is stable, so that a row's reasons stay in the order of its columns.
        self.refused.sort_by_key(|(row, _)| *row);
        let mut keep = vec![true; batch.num_rows()];
        let mut refused: Vec<Refused> = Vec::new();
        let mut last = None;
        for (row, why) in self.refused.drain(..) {
            keep[row] = false;
            match refused.last_mut() {
                Some(refused) if last == Some(row) => refused.why = format!("{}; {why}", refused.why),
                _ => refused.push(Refused { record: self.records.remove(&row).unwrap_or_default(), why }),
            }
            last = Some(row);
        }
        let good = filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(internal)?;
        Ok((good, refused))
    }
}
