//! New rows and the rows of the table that they meet, in a scratch database: the statements that bring them together are
//! those of the databases (`sinks/keyed.rs`), so that a Delta table comes to hold the same rows.
//!
//! The database is a file without a name below the state folder, so that what does not fit into its cache is on disk.

use super::codec::{Codec, Kept};
use crate::sinks::keyed::{
    Keyed, KeyedColumn, KeyedStep, Words, doubled_key, refuse_doubled, refuse_null, refuse_past,
};
use crate::sinks::rules::{Rules, Stamps};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use chrono::{DateTime, Utc};
use gristmill_model::spec::Strategy;
use gristmill_model::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Kibibytes of the database that are kept in memory.
const CACHE: u32 = 65_536;
/// Rows that are read back together.
const ROWS: usize = 8192;

/// `o`: rows of the table (`f`: of which file, NULL for new ones; `k`, `v`, `e`: key, values and other columns; `s`: in the
/// scope), `n`: new rows, `t`: files that lose or change a row.
const TABLES: &str = "
    CREATE TABLE n (k BLOB NOT NULL, v BLOB NOT NULL);
    CREATE TABLE o (r INTEGER PRIMARY KEY, f INTEGER, k BLOB NOT NULL, v BLOB NOT NULL, e BLOB, s INTEGER NOT NULL DEFAULT 1,
                    valid_from INTEGER, valid_to INTEGER, writer TEXT, made INTEGER, changed INTEGER);
    CREATE TABLE t (f INTEGER PRIMARY KEY);
    CREATE TRIGGER o_gone AFTER DELETE ON o WHEN old.f IS NOT NULL BEGIN INSERT OR IGNORE INTO t VALUES (old.f); END;
    CREATE TRIGGER o_changed AFTER UPDATE ON o WHEN old.f IS NOT NULL BEGIN INSERT OR IGNORE INTO t VALUES (old.f); END;";

/// The scratch database of a commit.
#[derive(Debug)]
pub(super) struct Scratch {
    db: Connection,
    codec: Arc<Codec>,
    /// As the user says them.
    rules: Rules,
    /// NULLs in each column of the new rows' key.
    nulls: Vec<usize>,
}

fn broken(error: rusqlite::Error) -> Error {
    let full = matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
    let kind = if full { ErrorKind::Storage } else { ErrorKind::Internal };
    Error::new(kind, "the scratch database of a load by key has failed").cause(error)
}

impl Scratch {
    /// Makes a database in `folder`.
    ///
    /// # Errors
    /// A disk that refuses.
    pub(super) fn new(folder: &Path, codec: Arc<Codec>, rules: Rules) -> Result<Self> {
        let at = |error: std::io::Error| Error::io(&error, format!("`{}`", folder.display()));
        std::fs::create_dir_all(folder).map_err(at)?;
        let path = folder.join(format!("keyed-{}.db", uuid::Uuid::new_v4().simple()));
        let db = Connection::open(&path).map_err(broken)?;
        let pragmas = format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -{CACHE};"
        );
        db.execute_batch(&pragmas).and_then(|()| db.execute_batch(TABLES)).map_err(broken)?;
        // It vanishes with the process.
        std::fs::remove_file(&path).map_err(at)?;
        db.execute_batch("BEGIN").map_err(broken)?;
        let nulls = vec![0; codec.key_names().len()];
        Ok(Self { db, codec, rules, nulls })
    }

    /// What its rows are written in.
    pub(super) fn codec(&self) -> Arc<Codec> {
        self.codec.clone()
    }

    /// Takes new rows in; gives back their keys.
    pub(super) fn add_new(&mut self, batch: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        for (all, more) in self.nulls.iter_mut().zip(self.codec.nulls(batch)?) {
            *all += more;
        }
        let mut insert = self.db.prepare_cached("INSERT INTO n VALUES (?, ?)").map_err(broken)?;
        let mut keys = Vec::with_capacity(batch.num_rows());
        for row in self.codec.new_rows(batch)? {
            insert.execute(params![row.key, row.values]).map_err(broken)?;
            keys.push(row.key);
        }
        Ok(keys)
    }

    /// Takes rows of the table's file number `file` in, those that `concerns` says.
    pub(super) fn add_old(
        &self,
        file: i64,
        batch: &RecordBatch,
        concerns: &BooleanArray,
        scoped: &BooleanArray,
    ) -> Result<()> {
        let cut = |error| Error::internal("rows cannot be cut").cause(error);
        let rows = self.codec.old_rows(&filter_record_batch(batch, concerns).map_err(cut)?)?;
        let scoped = scoped.iter().zip(concerns).filter(|(_, concerns)| *concerns == Some(true));
        let sql = "INSERT INTO o (f, k, v, e, s, valid_from, valid_to, writer, made, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let mut insert = self.db.prepare_cached(sql).map_err(broken)?;
        for (row, (scoped, _)) in rows.into_iter().zip(scoped) {
            let Kept { key, values, others, from, to, load, created, updated } = row;
            let values = params![file, key, values, others, scoped, from, to, load, created, updated];
            insert.execute(values).map_err(broken)?;
        }
        Ok(())
    }

    /// Looks whether the new rows have a key, each its own.
    ///
    /// # Errors
    /// [`ErrorKind::Data`], naming the column or the key.
    pub(super) fn check_keys(&self) -> Result<()> {
        if !self.rules.is_keyed() {
            return Ok(());
        }
        let mut nulls = self.codec.key_names().iter().zip(&self.nulls);
        if let Some((column, rows)) = nulls.find(|(_, rows)| **rows > 0) {
            return Err(refuse_null(&self.rules, column, i64::try_from(*rows).unwrap_or(i64::MAX)));
        }
        let sql = doubled_key(Words::Standard, &["k".to_owned()], "n").replace("CAST(\"k\" AS text)", "k");
        let found = self.db.query_row(&sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)));
        match found.optional().map_err(broken)? {
            None => Ok(()),
            Some((rows, key)) => Err(refuse_doubled(&self.rules, &self.codec.shown(&key)?, rows)),
        }
    }

    /// Brings new and old rows together.
    ///
    /// # Errors
    /// What stands in the way, naming its key.
    pub(super) fn run(&self, load: &str, now: DateTime<Utc>) -> Result<()> {
        self.db.execute_batch("CREATE INDEX n_key ON n (k); CREATE INDEX o_key ON o (k); ANALYZE").map_err(broken)?;
        let stamp = |name: &Option<String>, ours: &str| name.is_some().then(|| ours.to_owned());
        let stamps = &self.rules.stamps;
        let rules = Rules {
            match_on: vec!["k".to_owned()],
            scope: self.rules.scope.is_some().then(|| "o.s = 1".to_owned()),
            stamps: Stamps {
                load: stamp(&stamps.load, "writer"),
                created: stamp(&stamps.created, "made"),
                updated: stamp(&stamps.updated, "changed"),
            },
            ..self.rules.clone()
        };
        let column = |name: &str| KeyedColumn { name: name.to_owned(), as_text: false };
        let keyed = Keyed {
            words: Words::Standard,
            rules: &rules,
            table: "o".to_owned(),
            new: "n".to_owned(),
            columns: vec![column("k"), column("v")],
            load: format!("'{}'", load.replace('\'', "''")),
            now: now.timestamp_micros().to_string(),
            holds_from: self.rules.holds_from.timestamp_micros().to_string(),
            overriding: "",
        };
        let steps = match self.rules.strategy {
            Strategy::DeleteInsert => self.deletes().into_iter().chain([keyed.insert("")]).map(KeyedStep::Do).collect(),
            _ => keyed.steps(),
        };
        for step in steps {
            match step {
                KeyedStep::Do(sql) => drop(self.db.execute(&sql, []).map_err(broken)?),
                KeyedStep::Refuse(sql) => {
                    // The key itself and not its text.
                    let sql = sql.replace("CAST(n.\"k\" AS text)", "n.k").replace("CAST(o.\"k\" AS text)", "o.k");
                    let found = self.db.query_row(&sql, [], |row| row.get::<_, Vec<u8>>(0)).optional();
                    if let Some(key) = found.map_err(broken)? {
                        return Err(refuse_past(&self.rules, &self.codec.shown(&key)?));
                    }
                }
            }
        }
        Ok(())
    }

    /// What `delete+insert` takes away first.
    fn deletes(&self) -> Vec<String> {
        let scope = self.rules.scope.iter().map(|_| "DELETE FROM o WHERE s = 1");
        let key = (!self.rules.match_on.is_empty()).then_some("DELETE FROM o WHERE k IN (SELECT k FROM n)");
        scope.chain(key).map(str::to_owned).collect()
    }

    /// The files that lose or change a row.
    pub(super) fn touched(&self) -> Result<BTreeSet<i64>> {
        let mut statement = self.db.prepare("SELECT f FROM t").map_err(broken)?;
        let found = statement.query_map([], |row| row.get(0)).map_err(broken)?;
        found.collect::<rusqlite::Result<_>>().map_err(broken)
    }

    /// The rows after number `last` that are to be written: new ones, and those of files that are written anew.
    pub(super) fn next(&self, last: i64) -> Result<Option<(i64, RecordBatch)>> {
        let sql = "SELECT k, v, e, valid_from, valid_to, writer, made, changed, r FROM o \
                   WHERE r > ? AND (f IS NULL OR f IN (SELECT f FROM t)) ORDER BY r LIMIT ?";
        let mut statement = self.db.prepare_cached(sql).map_err(broken)?;
        let found = statement.query_map(params![last, ROWS as u64], |row| Ok((kept(row)?, row.get(8)?)));
        let found: Vec<(Kept, i64)> = found.and_then(Iterator::collect).map_err(broken)?;
        let (rows, numbers): (Vec<Kept>, Vec<i64>) = found.into_iter().unzip();
        numbers.last().map(|last| Ok((*last, self.codec.batch(&rows)?))).transpose()
    }
}

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept {
        key: row.get(0)?,
        values: row.get(1)?,
        others: row.get(2)?,
        from: row.get(3)?,
        to: row.get(4)?,
        load: row.get(5)?,
        created: row.get(6)?,
        updated: row.get(7)?,
    })
}
