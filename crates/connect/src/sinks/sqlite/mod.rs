//! A table of a SQLite database as a target.
//!
//! SQLite has one writer at a time, so rows wait in side files below the state folder (`stage.rs`) and the database is
//! written only at the commit (`commit.rs`): one `BEGIN IMMEDIATE` transaction holds the ledger row, the table's DDL and
//! the rows. Readers see all of it or nothing; a crash before `COMMIT` leaves the old picture. The database keeps its
//! journal mode; `synchronous` is FULL for the commit.
//!
//! # How values are kept
//! | arrow | declared | kept as |
//! |---|---|---|
//! | integers of every width | `INTEGER` | integer; a `uint64` beyond 2^63 - 1 is refused |
//! | floats | `REAL` | real, infinities too; NaN is refused, since SQLite would make it NULL; -0.0 becomes 0.0 |
//! | `utf8`, dictionaries of it | `TEXT` | text |
//! | `binary` | `BLOB` | blob |
//! | `boolean` | `BOOLEAN` | 0 or 1 |
//! | `date` | `DATE` | `2024-01-15` |
//! | `timestamp` | `TIMESTAMP` | `2024-01-15 10:20:30[.123456]` |
//! | `timestamp` with a zone | `TIMESTAMPTZ` | the same in UTC, with `+00:00` |
//! | `time` | `TIME` | `10:20:30[.123456]` |
//! | `decimal(p,s)` up to 38 digits | `DECIMAL(p,s)` | a number that reads back as exactly this decimal, else refused |
//!
//! A decimal is a number, not a text, so that `sum(revenue)` and `revenue > 100` mean what they say in plain SQL. A real
//! holds any decimal of 15 digits (and many longer ones, and every whole number of 64 bits) so that its text is exactly
//! that decimal; the few values beyond are refused with a hint, never rounded. Into a column that somebody has declared
//! `TEXT`, decimals are written as text, however long.
//!
//! Dates and timestamps are of the years 0 to 9999 and count whole microseconds; anything else is refused when it is
//! staged, before the target is touched.

mod commit;
mod config;
mod convert;
mod keyed;
mod outside;
mod shape;
mod stage;
mod target;

#[cfg(test)]
mod tests;

use crate::sinks::widen;
use crate::sources::sqlite::blocking;
use crate::sources::sqlite::database::{Database, LEDGER, Table, quoted};
use crate::{LoadContext, Recovered, Rows, Sink, SinkMode};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use config::Plan;
use convert::Shelf;
use gristmill_model::spec::LoadSpec;
use gristmill_model::{
    Checkpoint, Committed, Error, ErrorKind, KeptRows, LoadKey, OwnerId, Result, ResultExt, Slot, Staged, TaskKey,
};
use rusqlite::{Connection, OptionalExtension};
use std::path::PathBuf;
use std::sync::Arc;

/// A table of a SQLite database.
#[derive(Debug)]
pub struct SqliteSink {
    inner: Arc<Inner>,
}

/// What the blocking work shares.
#[derive(Debug)]
struct Inner {
    database: Database,
    plan: Plan,
    context: LoadContext,
    /// How each column is kept.
    shelves: Vec<Shelf>,
}

impl SqliteSink {
    pub(crate) fn new(database: Database, load: &LoadSpec, context: LoadContext) -> Result<Self> {
        let plan = Plan::new(load, &context)?;
        let shelves = context.schema.fields().iter().map(|field| Shelf::new(field)).collect::<Result<Vec<_>>>()?;
        Ok(Self { inner: Arc::new(Inner { database, plan, context, shelves }) })
    }
}

impl Inner {
    /// The columns of the rows, and those that the table has beside them.
    fn all_shelves(&self) -> impl Iterator<Item = &Shelf> {
        self.shelves.iter().chain(&self.plan.added)
    }

    /// Where side files wait.
    fn staging(&self) -> PathBuf {
        self.context.open.state.join("staging").join("sqlite")
    }

    /// Looks whether rows of the load's schema fit what is there, changing nothing.
    fn check(&self) -> Result<()> {
        if self.database.path.is_dir() {
            // Says that a folder is no database.
            self.database.open_to_write()?;
        }
        // A folder that is not there yet is made by the commit, below the nearest one that is.
        let nearest = |folder: &&std::path::Path| !folder.as_os_str().is_empty() && folder.exists();
        if let Some(folder) = self.database.path.ancestors().skip(1).find(nearest) {
            if !folder.is_dir() {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("`{}` is not a folder, so no database can be made in it", folder.display()),
                )
                .hint("correct the connection's `path`"));
            }
            // SQLite needs a journal beside the file.
            rustix::fs::access(folder, rustix::fs::Access::WRITE_OK)
                .map_err(|error| Error::io(&error.into(), format!("the folder `{}`", folder.display())))?;
        }
        if !self.database.exists() {
            return Ok(());
        }
        let connection = self.database.open_to_write()?;
        let read_only = connection.is_readonly("main").map_err(|error| self.database.explain(error))?;
        if read_only {
            let path = self.database.path.display();
            return Err(Error::new(ErrorKind::Denied, format!("the database `{}` is read-only", self.database.shown))
                .hint(format!("chmod u+w '{path}'")));
        }
        let Some(table) = self.table(&connection)? else { return Ok(()) };
        target::check(self, &connection, &table)
    }

    /// The target table, if it is there.
    fn table(&self, connection: &Connection) -> Result<Option<Table>> {
        Table::look_up(connection, &self.plan.table).map_err(|error| self.database.explain(error))
    }
}

/// A load as the ledger has it.
fn ledger_row(
    connection: &Connection,
    condition: &str,
    value: &str,
    slot: &Slot,
) -> rusqlite::Result<Option<Committed>> {
    let known: bool =
        connection.query_row("SELECT count(*) FROM sqlite_master WHERE name = ?1", [LEDGER], |row| row.get(0))?;
    if !known {
        return Ok(None);
    }
    let sql = format!(
        "SELECT generation, rows, checkpoint, committed_at FROM {} WHERE {condition} = ?1 ORDER BY generation DESC LIMIT 1",
        quoted(LEDGER)
    );
    connection
        .query_row(&sql, [value], |row| {
            let (checkpoint, at): (String, String) = (row.get(2)?, row.get(3)?);
            Ok(Committed {
                key: LoadKey { slot: slot.clone(), generation: row.get(0)? },
                rows: u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default(),
                files: 0,
                bytes: 0,
                checkpoint: serde_json::from_str(&checkpoint).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, error.into())
                })?,
                at: at.parse::<DateTime<Utc>>().map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, error.into())
                })?,
                already: true,
            })
        })
        .optional()
}

#[async_trait]
impl Sink for SqliteSink {
    fn mode(&self) -> SinkMode {
        SinkMode::Staged
    }

    async fn prepare(&self) -> Result<()> {
        let inner = self.inner.clone();
        blocking(move || inner.check().context(|| inner.plan.table.clone())).await
    }

    async fn changes(&self) -> Result<Vec<String>> {
        let inner = self.inner.clone();
        blocking(move || {
            if !inner.database.exists() {
                return Ok(Vec::new());
            }
            let connection = inner.database.open_to_read()?;
            let Some(table) = inner.table(&connection)? else { return Ok(Vec::new()) };
            // One that does not fit is made anew.
            if target::fit(&inner, &table).is_err() {
                return Ok(Vec::new());
            }
            let given: Vec<&str> = inner.all_shelves().map(|shelf| shelf.name.as_str()).collect();
            let there: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
            Ok(widen::added(&table.name, &given, &there, |a, b| a.eq_ignore_ascii_case(b)))
        })
        .await
    }

    fn tells_refused_rows(&self) -> bool {
        true
    }

    async fn stage(&self, task: &TaskKey, rows: Rows) -> Result<Staged> {
        stage::stage(self.inner.clone(), task.clone(), rows).await
    }

    async fn audit(&self, staged: &[Staged]) -> Result<()> {
        let (inner, staged) = (self.inner.clone(), staged.to_vec());
        let audit = move || {
            let looked = keyed::audit(&inner, &staged).and_then(|()| outside::audit(&inner, &staged));
            looked.context(|| format!("loading `{}`", inner.plan.table))
        };
        blocking(audit).await
    }

    async fn keep(&self, staged: &[Staged]) -> Result<Option<KeptRows>> {
        stage::keep(&self.inner.staging(), staged)
    }

    async fn commit(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
        let (inner, staged, next) = (self.inner.clone(), staged.to_vec(), next.clone());
        blocking(move || {
            let place = || format!("loading `{}`", inner.plan.table);
            let committed = commit::commit(&inner, &staged, &next).context(place)?;
            // The rows are in the database; a side file that cannot be removed now is swept with its owner's others.
            stage::remove_staged(&inner.staging(), &staged);
            Ok(committed)
        })
        .await
    }

    async fn last(&self, slot: &Slot) -> Result<Option<Committed>> {
        let (inner, slot) = (self.inner.clone(), slot.clone());
        blocking(move || {
            if !inner.database.exists() {
                return Ok(None);
            }
            let connection = inner.database.open_to_read()?;
            ledger_row(&connection, "slot", &slot.text(), &slot).map_err(|error| inner.database.explain(error))
        })
        .await
    }

    async fn checkpoint(&self, slot: &Slot) -> Result<Option<Checkpoint>> {
        let (inner, slot) = (self.inner.clone(), slot.clone());
        blocking(move || {
            if !inner.database.exists() {
                return Ok(None);
            }
            let connection = inner.database.open_to_read()?;
            commit::newest_checkpoint(&connection, &slot).map_err(|error| inner.database.explain(error))
        })
        .await
    }

    async fn abort(&self, key: &LoadKey) -> Result<()> {
        let (inner, load) = (self.inner.clone(), key.short());
        // Another run may be staging the same load; recovery sweeps what is left of the dead.
        let owner = inner.context.owner.clone();
        blocking(move || stage::sweep(&inner.staging(), |name| name.load == load && name.owner == owner).map(drop))
            .await
    }

    async fn recover(&self, is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync)) -> Result<Recovered> {
        let staging = self.inner.staging();
        let owners = {
            let staging = staging.clone();
            blocking(move || stage::owners(&staging)).await?
        };
        let dead: Vec<OwnerId> = owners.into_iter().filter(|owner| is_dead(owner)).collect();
        let swept = blocking(move || stage::sweep(&staging, |name| dead.contains(&name.owner))).await?;
        Ok(Recovered { swept, ..Recovered::default() })
    }
}
