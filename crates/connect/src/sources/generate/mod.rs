//! Made-up rows: the same seed makes the same rows, on every machine and however they are read.
//!
//! ```text
//!   GenerateSpec ──compile──► Table: one Column a rule ──make(rows a..b)──► RecordBatch
//!                                │
//!                                └─ rows are made in blocks of 1,024: every block of every column
//!                                   has a random stream of its own (see `stream`)
//! ```
//!
//! A value depends on the seed, its column's *name* and its row number, and on nothing else. So batch size, work units
//! and parallelism never change a row, and neither does moving a column, leaving one out or adding one. (One exception,
//! on purpose: an `email` is made of the table's own `first_name` and `last_name` columns where it has them.) Columns
//! of one name in two tables draw the same bits, therefore: give each table a seed of its own.
//!
//! Random bits are ChaCha8 and the way from bits to values is in this module, so numbers and times stay the same when a
//! library is updated; names, addresses and words come from the `fake` crate's lists and may change with those.
//!
//! Why blocks, and not a stream for the whole column: a unit of work must start anywhere without making what comes
//! before. Why not a stream for each row: setting one up costs as much as hundreds of values.

mod compile;
mod kinds;
mod people;
mod stream;
mod transactions;
mod values;

#[cfg(test)]
mod tests;

pub use kinds::{Kind, kinds};

use crate::{Consistency, ReadPlan, ReadRequest, Retry, Rows, Scan, Source, SourceStats};
use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use compile::Column;
use gristmill_model::spec::{ColumnRule, GenerateSpec, GenerateTable};
use gristmill_model::{Error, ErrorKind, Result, WorkUnit, one_of};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use stream::BLOCK_ROWS;

/// Rows of a unit of work: 98 blocks, the whole number of blocks nearest to 100,000 rows.
const UNIT_ROWS: u64 = 98 * BLOCK_ROWS;

/// Units of a plan, at most; beyond it units grow, since a million of them would cost more than they make parallel.
const MAX_UNITS: u64 = 4096;

/// Rows that are made at once where no batch size asks for more.
const CHUNK_ROWS: u64 = 8 * BLOCK_ROWS;

/// Makes the rows of `spec`, in batches of `batch_rows` (the last may be smaller).
///
/// # Errors
/// A rule that cannot be followed: an unknown kind, bounds that are not of the kind's type, keys the kind does not
/// take. `batch_rows` of zero.
pub fn generate(spec: &GenerateSpec, batch_rows: usize) -> Result<Blocks> {
    let source = GenerateSource::new(spec)?;
    if batch_rows == 0 {
        return Err(Error::new(ErrorKind::Usage, "a batch needs at least one row").hint("8192 is a good batch size"));
    }
    let rows = source.table.rows;
    Ok(Blocks::new(source.table, 0..rows, batch_rows))
}

/// Everything that is wrong with `spec`; empty when [`generate`] would make its rows.
#[must_use]
pub fn problems(spec: &GenerateSpec) -> Vec<Error> {
    compile::compile(spec).err().unwrap_or_default()
}

/// The columns of a ready-made table as rules, for the reference and as a start for one's own.
#[must_use]
pub fn table_rules(table: GenerateTable) -> Vec<ColumnRule> {
    match table {
        GenerateTable::People => people::rules(),
        GenerateTable::Transactions => transactions::rules(),
    }
}

/// A compiled [`GenerateSpec`]: the columns to make, and how many rows of them.
#[derive(Debug, Clone)]
struct Table {
    schema: SchemaRef,
    columns: Arc<[Column]>,
    rows: u64,
}

impl Table {
    /// Makes the rows of a range.
    fn make(&self, rows: Range<u64>) -> Result<RecordBatch> {
        let arrays = self.columns.iter().map(|column| column.make(&rows)).collect::<Result<_>>()?;
        let count = usize::try_from(rows.end - rows.start).map_err(|_| Error::internal("a batch of 2^64 rows"))?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(|error| Error::internal("generated columns do not fit together").cause(error))
    }

    /// The same table with only the columns of `schema`, in its order.
    fn project(&self, schema: &SchemaRef) -> Result<Self> {
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let Some((_, own)) = self.schema.column_with_name(field.name()) else {
                let names = self.schema.fields().iter().map(|field| field.name().as_str());
                return Err(Error::new(ErrorKind::Schema, format!("column `{}` is not generated", field.name()))
                    .hint(one_of(field.name(), names)));
            };
            if own.data_type() != field.data_type() {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!("column `{}` is generated as {}, not {}", field.name(), own.data_type(), field.data_type()),
                )
                .hint("cast it in an sql step"));
            }
            columns.extend(self.columns.iter().find(|column| column.name() == field.name()).cloned());
        }
        Ok(Self { schema: schema.clone(), columns: columns.into(), rows: self.rows })
    }
}

/// Generated rows as an iterator of batches; see [`generate`].
#[derive(Debug)]
pub struct Blocks {
    table: Table,
    rest: Range<u64>,
    batch_rows: usize,
    /// Cuts chunks into batches, where a batch is not a whole number of blocks.
    cutter: Option<BatchCoalescer>,
}

impl Blocks {
    fn new(table: Table, rows: Range<u64>, batch_rows: usize) -> Self {
        let batch_rows = batch_rows.max(1);
        let whole_blocks = (batch_rows as u64).is_multiple_of(BLOCK_ROWS) && rows.start.is_multiple_of(BLOCK_ROWS);
        let cutter = (!whole_blocks).then(|| BatchCoalescer::new(table.schema.clone(), batch_rows));
        Self { table, rest: rows, batch_rows, cutter }
    }

    /// The schema of every batch.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.table.schema.clone()
    }

    /// Takes the next rows off the rest: up to the end of a block, so that no block is made twice.
    fn chunk(&mut self, rows: u64) -> Option<Result<RecordBatch>> {
        if self.rest.is_empty() {
            return None;
        }
        let start = self.rest.start;
        let end = (start - start % BLOCK_ROWS).saturating_add(rows).min(self.rest.end);
        self.rest.start = end;
        Some(self.table.make(start..end))
    }

    fn cut(&mut self) -> Result<Option<RecordBatch>> {
        let broken = |error: arrow::error::ArrowError| Error::internal("cannot cut generated batches").cause(error);
        loop {
            let Some(cutter) = &mut self.cutter else { return Ok(None) };
            if let Some(batch) = cutter.next_completed_batch() {
                return Ok(Some(batch));
            }
            match self.chunk(CHUNK_ROWS) {
                Some(chunk) => {
                    let chunk = chunk?;
                    if let Some(cutter) = &mut self.cutter {
                        cutter.push_batch(chunk).map_err(broken)?;
                    }
                }
                None => {
                    let Some(cutter) = &mut self.cutter else { return Ok(None) };
                    cutter.finish_buffered_batch().map_err(broken)?;
                    return Ok(cutter.next_completed_batch());
                }
            }
        }
    }
}

impl Iterator for Blocks {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.cutter {
            None => self.chunk(self.batch_rows as u64),
            Some(_) => self.cut().transpose(),
        };
        if matches!(next, Some(Err(_))) {
            // An error is the last thing said.
            self.rest.start = self.rest.end;
            self.cutter = None;
        }
        next
    }
}

/// Generated rows as a source: units are ranges of rows, so that they are made in parallel.
#[derive(Debug, Clone)]
pub struct GenerateSource {
    table: Table,
    row_bytes: u64,
}

/// What a unit's payload holds: rows `from` up to, but not including, `to`, counted from 0.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct RowRange {
    from: u64,
    to: u64,
}

impl GenerateSource {
    /// A source of the rows of `spec`.
    ///
    /// # Errors
    /// As [`generate`]; the first of [`problems`].
    pub fn new(spec: &GenerateSpec) -> Result<Self> {
        let columns = compile::compile(spec).map_err(|errors| {
            errors
                .into_iter()
                .next()
                .unwrap_or_else(|| Error::internal("a generator refused its rules without a reason"))
        })?;
        let row_bytes = columns.iter().map(Column::width).sum();
        let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
        Ok(Self { table: Table { schema, columns: columns.into(), rows: spec.rows }, row_bytes })
    }
}

#[async_trait]
impl Source for GenerateSource {
    async fn schema(&self) -> Result<SchemaRef> {
        Ok(self.table.schema.clone())
    }

    async fn plan(&self, _want: &ReadRequest) -> Result<ReadPlan> {
        let rows = self.table.rows;
        let unit_rows = UNIT_ROWS.max(rows.div_ceil(MAX_UNITS).next_multiple_of(BLOCK_ROWS));
        let mut units = Vec::new();
        let mut from = 0;
        while from < rows {
            let to = from.saturating_add(unit_rows).min(rows);
            units.push(WorkUnit {
                ordinal: u32::try_from(units.len()).map_err(|_| Error::internal("more units than a plan can count"))?,
                label: format!("rows {} to {to}", from + 1),
                payload: serde_json::json!(RowRange { from, to }),
                rows: Some(to - from),
                bytes: Some((to - from).saturating_mul(self.row_bytes)),
            });
            from = to;
        }
        let why = match units.len() {
            1 => "one range of rows".to_owned(),
            count => format!("{count} ranges of {unit_rows} rows"),
        };
        Ok(ReadPlan {
            units,
            consistency: Consistency::Snapshot,
            why,
            pushed_down: vec!["columns".to_owned()],
            retry: Retry::Never,
            pin: None,
        })
    }

    fn read(&self, unit: &WorkUnit, scan: &Scan) -> Rows {
        let prepared = serde_json::from_value::<RowRange>(unit.payload.clone())
            .map_err(|error| Error::internal(format!("unit `{}` is not of a generator", unit.label)).cause(error))
            .and_then(|range| Ok((range, self.table.project(&scan.schema)?)));
        match prepared {
            Ok((RowRange { from, to }, table)) => {
                let blocks = Blocks::new(table, from..to.min(self.table.rows), scan.batch_size);
                Rows::new(scan.schema.clone(), futures::stream::iter(blocks))
            }
            Err(error) => Rows::failed(scan.schema.clone(), error),
        }
    }

    async fn stats(&self) -> SourceStats {
        SourceStats { rows: Some(self.table.rows), bytes: Some(self.table.rows.saturating_mul(self.row_bytes)) }
    }
}
