//! Rows that may be refused are tried before they are staged: on a table like the target, in memory.
//!
//! What is tried is what a row can break by itself: NOT NULL, CHECK, the types of a STRICT table. Keys and foreign keys are
//! matters of several rows, and stay errors of the whole load.

use super::Inner;
use super::commit::insert_statement;
use super::convert::{Affinity, Kept, Shelf};
use super::{stage, target};
use crate::RefusedRows;
use crate::sources::sqlite::database::Table;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use chrono::Utc;
use gristmill_model::{Error, ErrorKind, Result};
use rusqlite::{Connection, ErrorCode, OptionalExtension};

/// The extended codes of keys that are there already, which says that everything else was fine (sqlite.org/rescode.html).
const UNIQUE: [i32; 3] = [1555, 2067, 2579];

/// A table like the target.
pub(super) struct Shape<'a> {
    inner: &'a Inner,
    memory: Connection,
    insert: String,
    affinities: Vec<Affinity>,
    refused: RefusedRows,
}

impl<'a> Shape<'a> {
    /// Makes it. `table`: the target, where it is there.
    pub(super) fn new(inner: &'a Inner, table: Option<&Table>, refused: RefusedRows) -> Result<Self> {
        let explain = |error| inner.database.explain(error);
        let memory = Connection::open_in_memory().map_err(explain)?;
        if let Some(table) = table {
            let sql = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?1";
            let made: Option<Option<String>> = inner
                .database
                .open_to_read()?
                .query_row(sql, [&table.name], |row| row.get(0))
                .optional()
                .map_err(explain)?;
            if let Some(made) = made.flatten() {
                memory.execute_batch(&made).map_err(explain)?;
            }
        }
        let table = target::bring_about(inner, &memory)?;
        let insert = insert_statement(inner, &table, Utc::now());
        let affinities = target::affinities(inner, Some(&table));
        Ok(Self { inner, memory, insert, affinities, refused })
    }

    /// The rows of a batch that the target takes, as they are kept in a side file; the others are sent on.
    pub(super) fn sift(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let mut fine = Vec::new();
        let mut open = vec![batch.clone()];
        while let Some(rows) = open.pop() {
            match stage::put(self.inner, &rows, &self.affinities, schema) {
                Ok(kept) => fine.extend(self.judge(&rows, kept)?),
                Err(error) if error.kind() != ErrorKind::Data => return Err(error),
                Err(error) if rows.num_rows() <= 1 => self.refused.send(&rows, &[error.message().to_owned()])?,
                Err(_) => {
                    let half = rows.num_rows() / 2;
                    open.extend([rows.slice(half, rows.num_rows() - half), rows.slice(0, half)]);
                }
            }
        }
        Ok(fine)
    }

    /// Tries each row; those that the table takes.
    fn judge(&self, rows: &RecordBatch, kept: RecordBatch) -> Result<Option<RecordBatch>> {
        let explain = |error| self.inner.database.explain(error);
        self.memory.execute_batch("BEGIN").map_err(explain)?;
        let said = self.try_rows(&kept);
        self.memory.execute_batch("ROLLBACK").map_err(explain)?;
        let said = said?;
        if said.iter().all(Option::is_none) {
            return Ok(Some(kept));
        }
        let arrow = |error| Error::internal("refused rows cannot be left out").cause(error);
        let bad: BooleanArray = said.iter().map(|why| Some(why.is_some())).collect();
        let good: BooleanArray = said.iter().map(|why| Some(why.is_none())).collect();
        let reasons: Vec<String> = said.into_iter().flatten().collect();
        self.refused.send(&filter_record_batch(rows, &bad).map_err(arrow)?, &reasons)?;
        let kept = filter_record_batch(&kept, &good).map_err(arrow)?;
        Ok((kept.num_rows() > 0).then_some(kept))
    }

    /// What the table says of each row; nothing where it takes it.
    fn try_rows(&self, kept: &RecordBatch) -> Result<Vec<Option<String>>> {
        let explain = |error| self.inner.database.explain(error);
        let mut insert = self.memory.prepare_cached(&self.insert).map_err(explain)?;
        let shelves = kept.columns().iter().zip(&self.affinities);
        let columns: Vec<Kept> = shelves.map(|(column, into)| Shelf::kept(column, *into)).collect();
        let mut said = Vec::with_capacity(kept.num_rows());
        for row in 0..kept.num_rows() {
            for (place, column) in columns.iter().enumerate() {
                let value = column.value(row).map_err(|why| self.inner.shelves[place].explain(&why))?;
                insert.raw_bind_parameter(place + 1, value).map_err(explain)?;
            }
            said.push(match insert.raw_execute() {
                Ok(_) => None,
                Err(rusqlite::Error::SqliteFailure(failure, _)) if UNIQUE.contains(&failure.extended_code) => None,
                Err(rusqlite::Error::SqliteFailure(failure, message))
                    if matches!(
                        failure.code,
                        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig
                    ) =>
                {
                    Some(message.unwrap_or_else(|| failure.to_string()))
                }
                Err(error) => return Err(explain(error)),
            });
        }
        Ok(said)
    }
}
