//! Rows of a binary COPY to batches: rows are gathered until there are some, then taken apart column by column.

use super::columns::Values;
use super::copy::Span;
use super::kept;
use super::types::{Column, Kind};
use crate::columns::Place;
use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use gristmill_model::{Error, Result};
use std::collections::BTreeMap;

/// A batch is closed when its rows reach this many bytes: large values must not make large batches.
const BATCH_BYTES: usize = 16 << 20;
/// Rows that are gathered before their columns are decoded: so many, and of so many bytes, that they are still in the
/// processor's cache then.
const GATHERED_ROWS: usize = 256;
const GATHERED_BYTES: usize = 128 << 10;

/// Builds batches of rows.
#[derive(Debug)]
pub(crate) struct Decoder {
    schema: SchemaRef,
    columns: Vec<Building>,
    /// Bytes of rows that are not decoded yet.
    gathered: Vec<u8>,
    gathered_rows: usize,
    /// Rows of this batch that are.
    rows: usize,
    bytes: usize,
    batch_size: usize,
    /// Rows of this batch with a value that cannot be had, and why.
    refused: Vec<(usize, String)>,
    /// Those rows as they came.
    records: BTreeMap<usize, String>,
}

/// A column of the batch.
#[derive(Debug)]
struct Building {
    name: String,
    kind: Kind,
    values: Values,
    /// Where its values lie in what is gathered.
    places: Vec<Place>,
}

/// A row that was refused: as it came, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) record: String,
    pub(crate) why: String,
}

impl Decoder {
    /// # Errors
    /// A type that nothing becomes, which planning has looked at.
    pub(crate) fn new(columns: &[Column], schema: SchemaRef, batch_size: usize) -> Result<Self> {
        let building = |column: &Column| {
            let (name, kind) = (column.name.clone(), column.kind.clone());
            Ok(Building { name, values: Values::new(&kind)?, kind, places: Vec::with_capacity(GATHERED_ROWS) })
        };
        Ok(Self {
            schema,
            columns: columns.iter().map(building).collect::<Result<_>>()?,
            gathered: Vec::new(),
            gathered_rows: 0,
            rows: 0,
            bytes: 0,
            batch_size: batch_size.max(1),
            refused: Vec::new(),
            records: BTreeMap::new(),
        })
    }

    /// Takes one row.
    ///
    /// # Errors
    /// A row of more than 4 GB, which no server sends.
    pub(crate) fn push(&mut self, bytes: &[u8], spans: &[Span]) -> Result<()> {
        let start = self.gathered.len();
        self.gathered.extend_from_slice(bytes);
        for (column, span) in self.columns.iter_mut().zip(spans) {
            column.places.push(match span {
                None => Place::null(),
                Some((from, to)) => Place::new(start + from, start + to)?,
            });
        }
        self.bytes += bytes.len();
        self.gathered_rows += 1;
        if self.gathered_rows >= GATHERED_ROWS || self.gathered.len() >= GATHERED_BYTES {
            self.decode();
        }
        Ok(())
    }

    /// Takes what is gathered apart.
    fn decode(&mut self) {
        let (before, refused) = (self.rows, &mut self.refused);
        let earlier = refused.len();
        for Building { name, values, places, .. } in &mut self.columns {
            values.extend(&self.gathered, places, &mut |row, why| {
                refused.push((before + row, format!("column `{name}`: {why}")));
            });
        }
        for (row, _) in &refused[earlier..] {
            let (columns, gathered) = (&self.columns, &self.gathered);
            self.records.entry(*row).or_insert_with(|| {
                let values = columns.iter().map(|of| (of.name.as_str(), &of.kind, of.places[row - before]));
                kept::record(values, gathered)
            });
        }
        self.columns.iter_mut().for_each(|column| column.places.clear());
        self.rows += self.gathered_rows;
        self.gathered_rows = 0;
        self.gathered.clear();
        // One large row must not keep its room for ever.
        self.gathered.shrink_to(2 * GATHERED_BYTES);
    }

    /// Whether the batch has reached its size.
    pub(crate) fn is_full(&self) -> bool {
        self.rows + self.gathered_rows >= self.batch_size || self.bytes >= BATCH_BYTES
    }

    /// Whether there is nothing in the batch.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows + self.gathered_rows == 0
    }

    /// Closes the batch: the good rows, and those that were refused.
    ///
    /// # Errors
    /// Only a bug here.
    pub(crate) fn finish(&mut self) -> Result<(RecordBatch, Vec<Refused>)> {
        self.decode();
        let internal = |error| Error::internal("rows from PostgreSQL do not make a batch").cause(error);
        let arrays =
            self.columns.iter_mut().map(|column| column.values.finish(self.rows)).collect::<Result<Vec<_>>>()?;
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
