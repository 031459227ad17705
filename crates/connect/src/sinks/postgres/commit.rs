//! Commit, and what belongs to it: the ledger, the last load, abort, recovery.
//!
//! One transaction: the ledger's row first (rivals for a key wait there), then the table made or widened, old rows
//! deleted, new rows inserted, staging tables dropped. Rows are deleted: whoever
//! reads meanwhile sees the old rows until the commit, whole, even in a transaction that began before; views, foreign
//! keys, grants, owners and publications stay as they are. One exception is asked for: `truncate+insert` truncates, and
//! readers wait for it. Another is a table on which nothing hangs: it is swapped out (`way.rs`).

use super::PostgresSink;
use super::target::Target;
use super::types::staged_name;
use crate::Recovered;
use crate::sinks::rival::{stop_if_of_another, stop_unless_next};
use crate::sinks::staged_table::{Label, PREFIX, Payload, Way};
use crate::sources::postgres::connect::{Session, is_lost, server_error};
use crate::sources::postgres::names::{literal, quoted};
use crate::wrap::retry;
use chrono::{DateTime, Utc};
use gristmill_model::fault::{self, Point};
use gristmill_model::spec::Strategy;
use gristmill_model::{Checkpoint, Committed, Error, ErrorKind, LoadKey, OwnerId, Result, RunId, Slot, Staged};
use std::collections::BTreeSet;
use tokio_postgres::Row;

/// The table of loads that were committed.
pub(super) const LEDGER: &str = "_gristmill_loads";
/// How often a commit is tried whose end is not known.
const TRIES: u32 = 5;

/// How an attempt to commit failed.
enum Failed {
    /// Nothing was published.
    Plainly(Error),
    /// The connection went while the server was committing: nobody knows.
    Unknown(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Plainly(error)
    }
}

impl PostgresSink {
    pub(super) async fn commit_staged(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
        let tables = staged.iter().map(Payload::of).collect::<Result<Vec<_>>>()?;
        let mut unknown: Option<Error> = None;
        // Its transaction is the commit's.
        let mut held = tables.iter().find_map(|table| self.config.held.take(&table.table));
        for attempt in 0..TRIES {
            if attempt > 0 {
                // Loads that stood in each other's way must not come back together.
                tokio::time::sleep(retry::backoff(attempt, retry::random())).await;
            }
            let (session, holds) = match held.take() {
                Some(session) => (session, true),
                None => match Session::open(&self.config).await {
                    Ok(session) => (session, false),
                    Err(error) if unknown.is_some() && error.is_retryable() => continue,
                    Err(error) => return Err(error),
                },
            };
            // Trying again asks the ledger: the key's row waits for a transaction that is still at it, is there if the
            // first try ended well, and is free if it did not.
            match self.try_commit(&session, holds, staged, &tables, next).await {
                Ok(mut committed) => {
                    fault::at(Point::AfterLedger)?;
                    session.close().await;
                    committed.already &= unknown.is_none();
                    return Ok(committed);
                }
                Err(Failed::Unknown(error)) => unknown = Some(error),
                Err(Failed::Plainly(error)) if unknown.is_some() && error.is_retryable() => {}
                Err(Failed::Plainly(error)) => return Err(error),
            }
        }
        Err(unknown
            .unwrap_or_else(|| Error::internal("a commit was never tried"))
            .hint("whether it was committed is asked for when the load runs again"))
    }

    async fn try_commit(
        &self,
        session: &Session,
        holds: bool,
        staged: &[Staged],
        tables: &[Payload],
        next: &Checkpoint,
    ) -> Result<Committed, Failed> {
        let doing = format!("loading `{}` failed", self.options.table);
        let schema = Target::schema(session, &self.config, &self.options).await?;
        let failed = |error: tokio_postgres::Error| self.refused(&error, &schema, &doing);
        // Two loads of one target come one after the other: both would create it, or delete and insert the same rows.
        let turn = literal(&format!("gristmill:{schema}.{}", self.options.table.name));
        // A server that may forget its last commits in a crash must not forget one that our store is told of.
        // What others have entered into the ledger while this waited for its turn must be seen.
        let begin = if holds { "" } else { "BEGIN ISOLATION LEVEL READ COMMITTED; " };
        let begin = format!(
            "{begin}SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; \
             SELECT pg_advisory_xact_lock(hashtextextended({turn}, 0))"
        );
        session.batch_execute(&begin).await.map_err(failed)?;
        self.make_ledger(session, &schema).await?;

        let rows: u64 = staged.iter().map(|staged| staged.rows).sum();
        fault::at(Point::BeforeLedger)?;
        let Some(at) = self.enter(session, &schema, rows, next).await? else {
            session.batch_execute("ROLLBACK").await.map_err(failed)?;
            let known = self.entry(session, &schema, &self.key).await?;
            let known = known.ok_or_else(|| Error::internal("the ledger's row is there and is not"))?;
            // The rows are in; what this attempt staged is of no more use.
            self.drop_tables(session, tables).await?;
            let entered = self.entered_by(session, &schema).await?;
            stop_if_of_another(&self.key, &entered, &self.owner, staged)?;
            return Ok(Committed { already: true, ..known });
        };
        fault::at(Point::DuringLedger)?;
        // Not before the row is entered: a rival of this load waits there. Rivals of the target wait for the lock.
        let newest = self.newest_checkpoint(session, &schema, &self.key.slot, true).await?;
        stop_unless_next(&self.key, next, newest.as_ref())?;
        let held = tables.iter().find(|table| table.way == Way::Held);
        let inserted = match held {
            Some(_) if holds && tables.len() == 1 => rows,
            Some(lost) => return Err(Failed::Plainly(self.gone(lost, "the transaction that held them has ended"))),
            None => self.change_target(session, tables, rows, next, &failed).await?,
        };
        fault::at(Point::AfterInsert)?;
        self.run_sql(session, &self.options.rules.post_sql, "post_sql").await?;
        if inserted != rows {
            // Unlogged tables are emptied by a crash of the server.
            return Err(Failed::Plainly(
                Error::new(ErrorKind::Conflict, format!("{inserted} of {rows} staged rows were left at the commit"))
                    .hint("the server restarted meanwhile; run again"),
            ));
        }
        self.forget_old(session, &schema, next.sequence, at).await?;
        let owners: BTreeSet<&str> = staged.iter().map(|staged| staged.task.owner.0.as_str()).collect();
        let left = self
            .staged_tables(session, &schema)
            .await?
            .into_iter()
            .filter(|(_, label)| label.key == self.key && owners.contains(label.owner.0.as_str()));
        for (table, _) in left {
            session.batch_execute(&format!("DROP TABLE IF EXISTS {}", table.sql())).await.map_err(failed)?;
        }
        match session.batch_execute("COMMIT").await {
            Ok(()) => Ok(Committed {
                key: self.key.clone(),
                rows,
                files: 0,
                bytes: 0,
                checkpoint: next.clone(),
                at,
                already: false,
            }),
            Err(error) if is_lost(&error) => Err(Failed::Unknown(server_error(&error, &self.config, &doing))),
            Err(error) => Err(Failed::Plainly(failed(error))),
        }
    }

    /// Makes the target fit the rows, and publishes them; answers with their number.
    async fn change_target(
        &self,
        session: &Session,
        tables: &[Payload],
        rows: u64,
        next: &Checkpoint,
        failed: &(dyn Fn(tokio_postgres::Error) -> Error + Sync),
    ) -> Result<u64> {
        self.run_sql(session, &self.options.rules.pre_sql, "pre_sql").await?;
        let target = self.target_of(session, tables).await?;
        target.check(&self.columns, &self.options)?;
        for table in tables {
            if !self.is_there(session, table).await? {
                return Err(self.gone(table, "another process swept them"));
            }
        }
        self.check_rows_in_scope(session, &target, tables).await?;
        if let [ready] = tables
            && ready.way == Way::Ready
            && self.swap_in(session, &target, ready).await?
        {
            self.check_table_in_scope(session, &target, rows).await?;
            return Ok(rows);
        }
        self.check_wider(session, &target).await?;
        for note in target.notes_of_wider() {
            tracing::info!("{note}");
        }
        let comments = target.comments(&self.columns);
        for change in target.changes(&self.columns, &self.options).into_iter().chain(comments) {
            session.batch_execute(&change).await.map_err(failed)?;
        }
        self.drop_earlier(session, &target, next).await?;
        let inserted = self.publish(session, &target, tables).await?;
        self.check_table_in_scope(session, &target, inserted).await?;
        Ok(inserted)
    }

    /// Whether a staging table is still there.
    pub(super) async fn is_there(&self, session: &Session, table: &Payload) -> Result<bool> {
        let sql = format!("SELECT to_regclass({}) IS NOT NULL", literal(&table.sql()));
        let failed = |error| server_error(&error, &self.config, &format!("loading `{}` failed", self.options.table));
        session.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)
    }

    fn gone(&self, table: &Payload, why: &str) -> Error {
        Error::new(
            ErrorKind::Conflict,
            format!("the rows staged in `{}` for `{}` are gone", table.table, self.options.table),
        )
        .hint(format!("{why}; run again"))
    }

    /// Deletes what the strategy says and inserts what was staged; answers with the number of rows inserted.
    async fn publish(&self, session: &Session, target: &Target, tables: &[Payload]) -> Result<u64> {
        let doing = format!("loading `{}` failed", self.options.table);
        let failed = |error: tokio_postgres::Error| self.refused(&error, &target.schema, &doing);
        if self.options.rules.is_keyed() {
            return self.publish_keyed(session, target, tables).await;
        }
        let deletes = self.deletes(session, target, tables).await?;
        let selects: Vec<String> =
            tables.iter().map(|table| format!("SELECT * FROM {}", self.rows_of(table))).collect();
        let mut names: Vec<String> = self.columns.iter().map(|column| quoted(&column.name)).collect();
        let mut values: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| target.expression(column, &staged_name(place)))
            .collect();
        let stamps = &self.options.rules.stamps;
        for (name, value) in stamps
            .load
            .iter()
            .map(|name| (name, literal(&self.key.text())))
            .chain(stamps.created.iter().chain(&stamps.updated).map(|name| (name, "now()".to_owned())))
        {
            names.push(quoted(name));
            values.push(value);
        }
        let overriding = if target.overrides_identity(&self.columns) { " OVERRIDING SYSTEM VALUE" } else { "" };
        let insert = (!selects.is_empty()).then(|| {
            format!(
                "INSERT INTO {} ({}){overriding} SELECT {} FROM ({}) AS staged",
                target.sql(),
                names.join(", "),
                values.join(", "),
                selects.join(" UNION ALL ")
            )
        });
        let is_truncate = self.options.rules.strategy == Strategy::TruncateInsert;
        match insert {
            // Rows that others point at may go and come again within one statement: a foreign key looks at its end.
            Some(insert) if target.is_pointed_at() && !deletes.is_empty() && !is_truncate => {
                let parts = deletes.iter().enumerate();
                let parts: Vec<String> =
                    parts.map(|(n, delete)| format!("gone_{n} AS ({delete} RETURNING 1)")).collect();
                // Counting them makes the server delete first.
                let first: Vec<String> =
                    (0..deletes.len()).map(|n| format!("(SELECT count(*) FROM gone_{n}) >= 0")).collect();
                let sql = format!("WITH {} {insert} WHERE {}", parts.join(", "), first.join(" AND "));
                session.execute(&sql, &[]).await.map_err(failed)
            }
            insert => {
                for delete in &deletes {
                    fault::at(Point::BeforeDelete)?;
                    session.batch_execute(delete).await.map_err(failed)?;
                    fault::at(Point::AfterDelete)?;
                }
                match insert {
                    Some(insert) => session.execute(&insert, &[]).await.map_err(failed),
                    None => Ok(0),
                }
            }
        }
    }

    /// The statements that delete old rows.
    async fn deletes(&self, session: &Session, target: &Target, tables: &[Payload]) -> Result<Vec<String>> {
        if target.existing.is_none() {
            return Ok(Vec::new());
        }
        let table = target.sql();
        match self.options.rules.strategy {
            Strategy::Replace => return Ok(vec![format!("DELETE FROM {table}")]),
            Strategy::TruncateInsert => return Ok(vec![format!("TRUNCATE {table}")]),
            _ => {}
        }
        // What the user wrote stands on a line of its own, so that a comment in it ends there.
        let scope = self.options.rules.scope.as_ref().map(|scope| format!("DELETE FROM {table} WHERE (\n{scope}\n)"));
        let mut deletes: Vec<String> = scope.into_iter().collect();
        if self.options.rules.match_on.is_empty() || tables.is_empty() {
            return Ok(deletes);
        }
        let columns: Vec<(String, String, String)> = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| self.options.rules.match_on.contains(&column.name))
            .map(|(place, column)| {
                let staged = staged_name(place);
                (quoted(&column.name), target.expression(column, &staged), staged)
            })
            .collect();
        let list: Vec<&str> = columns.iter().map(|(_, _, staged)| staged.as_str()).collect();
        let list = list.join(", ");
        let any_null: Vec<String> = columns.iter().map(|(_, _, staged)| format!("{staged} IS NULL")).collect();
        let any_null = any_null.join(" OR ");
        let values: Vec<String> = columns.iter().map(|(_, value, staged)| format!("{value} AS {staged}")).collect();
        let all: Vec<String> =
            tables.iter().map(|table| format!("SELECT {list} FROM {}", self.rows_of(table))).collect();
        let all = all.join(" UNION ALL ");
        let delete = |of: &str, operator: &str| {
            let same: Vec<String> =
                columns.iter().map(|(name, _, staged)| format!("old.{name} {operator} new.{staged}")).collect();
            format!(
                "DELETE FROM {table} AS old USING (SELECT DISTINCT {} FROM ({all}) AS staged WHERE {of}) AS new WHERE {}",
                values.join(", "),
                same.join(" AND ")
            )
        };
        // `IS NOT DISTINCT FROM` cannot be hashed or looked up in an index, so NULL keys are dealt with alone.
        deletes.push(delete(&format!("NOT ({any_null})"), "="));
        let sql = format!("SELECT EXISTS (SELECT FROM ({all}) AS staged WHERE {any_null})");
        let failed = |error| server_error(&error, &self.config, &format!("loading `{}` failed", self.options.table));
        let nulls: bool = session.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
        if nulls {
            deletes.push(delete(&any_null, "IS NOT DISTINCT FROM"));
        }
        Ok(deletes)
    }

    async fn make_ledger(&self, session: &Session, schema: &str) -> Result<()> {
        if self.has_ledger(session, schema).await? {
            return Ok(());
        }
        let ledger = format!("{}.{LEDGER}", quoted(schema));
        let turn = literal(&format!("gristmill:{schema}:ledger"));
        let sql = format!(
            "SELECT pg_advisory_xact_lock(hashtextextended({turn}, 0)); \
             CREATE TABLE IF NOT EXISTS {ledger} (key text PRIMARY KEY, slot text NOT NULL, generation bigint NOT NULL, \
             rows bigint NOT NULL, checkpoint jsonb NOT NULL, owner text NOT NULL, at timestamptz NOT NULL DEFAULT now()); \
             CREATE INDEX IF NOT EXISTS {LEDGER}_slot ON {ledger} (slot, generation); \
             CREATE INDEX IF NOT EXISTS {LEDGER}_at ON {ledger} (at); \
             COMMENT ON TABLE {ledger} IS 'loads that Gristmill has committed; deleting a row lets its load happen again'"
        );
        session
            .batch_execute(&sql)
            .await
            .map_err(|error| self.refused(&error, schema, &format!("cannot make the ledger `{schema}.{LEDGER}`")))
    }

    async fn has_ledger(&self, session: &Session, schema: &str) -> Result<bool> {
        let sql = format!("SELECT to_regclass({}) IS NOT NULL", literal(&format!("{}.{LEDGER}", quoted(schema))));
        let failed = |error| server_error(&error, &self.config, "cannot look for the ledger");
        session.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)
    }

    /// Enters the load into the ledger; `None` where it is there already. Waits for a rival with the same key.
    async fn enter(
        &self,
        session: &Session,
        schema: &str,
        rows: u64,
        next: &Checkpoint,
    ) -> Result<Option<DateTime<Utc>>> {
        let checkpoint = serde_json::to_string(next)
            .map_err(|error| Error::internal("a checkpoint cannot be written").cause(error))?;
        let sql = format!(
            "INSERT INTO {}.{LEDGER} (key, slot, generation, rows, checkpoint, owner) \
             VALUES ($1, $2, $3, $4, $5::text::jsonb, $6) ON CONFLICT (key) DO NOTHING RETURNING at",
            quoted(schema)
        );
        let rows = i64::try_from(rows).map_err(|_| Error::internal("more rows than can be counted"))?;
        let (key, slot, owner) = (self.key.text(), self.key.slot.text(), self.owner.0.as_str());
        let row = session
            .query_opt(&sql, &[&key, &slot, &i64::from(self.key.generation), &rows, &checkpoint, &owner])
            .await
            .map_err(|error| {
                self.refused(&error, schema, &format!("cannot write to the ledger `{schema}.{LEDGER}`"))
            })?;
        row.map(|row| row.try_get(0))
            .transpose()
            .map_err(|error| server_error(&error, &self.config, "the ledger was not understood"))
    }

    async fn entry(&self, session: &Session, schema: &str, key: &LoadKey) -> Result<Option<Committed>> {
        let sql =
            format!("SELECT generation, rows, checkpoint::text, at FROM {}.{LEDGER} WHERE key = $1", quoted(schema));
        let failed = |error| server_error(&error, &self.config, "cannot read the ledger");
        let row = session.query_opt(&sql, &[&key.text()]).await.map_err(failed)?;
        row.map(|row| self.committed(&row, &key.slot)).transpose()
    }

    /// Whose the load is that the ledger has under this key.
    async fn entered_by(&self, session: &Session, schema: &str) -> Result<OwnerId> {
        let sql = format!("SELECT owner FROM {}.{LEDGER} WHERE key = $1", quoted(schema));
        let failed = |error| server_error(&error, &self.config, "cannot read the ledger");
        let row = session.query_one(&sql, &[&self.key.text()]).await.map_err(failed)?;
        Ok(OwnerId(RunId::new(row.try_get::<_, String>(0).map_err(failed)?)))
    }

    fn committed(&self, row: &Row, slot: &Slot) -> Result<Committed> {
        let failed = |error| server_error(&error, &self.config, "the ledger was not understood");
        let checkpoint: String = row.try_get(2).map_err(failed)?;
        let checkpoint = serde_json::from_str(&checkpoint)
            .map_err(|error| Error::internal("the ledger's checkpoint was not understood").cause(error))?;
        let generation: i64 = row.try_get(0).map_err(failed)?;
        let rows: i64 = row.try_get(1).map_err(failed)?;
        Ok(Committed {
            key: LoadKey { slot: slot.clone(), generation: u32::try_from(generation).unwrap_or(u32::MAX) },
            rows: u64::try_from(rows).unwrap_or(0),
            files: 0,
            bytes: 0,
            checkpoint,
            at: row.try_get(3).map_err(failed)?,
            already: true,
        })
    }

    pub(super) async fn last_load(&self, slot: &Slot) -> Result<Option<Committed>> {
        let session = Session::open(&self.config).await?;
        let schema = Target::schema(&session, &self.config, &self.options).await?;
        if !self.has_ledger(&session, &schema).await? {
            return Ok(None);
        }
        let sql = format!(
            "SELECT generation, rows, checkpoint::text, at FROM {}.{LEDGER} WHERE slot = $1 \
             ORDER BY generation DESC LIMIT 1",
            quoted(&schema)
        );
        let row = session
            .query_opt(&sql, &[&slot.text()])
            .await
            .map_err(|error| self.refused(&error, &schema, &format!("cannot read the ledger `{schema}.{LEDGER}`")))?;
        let last = row.map(|row| self.committed(&row, slot)).transpose()?;
        session.close().await;
        Ok(last)
    }

    pub(super) async fn last_checkpoint(&self, slot: &Slot) -> Result<Option<Checkpoint>> {
        let session = Session::open(&self.config).await?;
        let schema = Target::schema(&session, &self.config, &self.options).await?;
        let newest = match self.has_ledger(&session, &schema).await? {
            true => self.newest_checkpoint(&session, &schema, slot, false).await?,
            false => None,
        };
        session.close().await;
        Ok(newest)
    }

    /// The newest checkpoint of a series of loads, as [`crate::Sink::checkpoint`]; `but_own`: without that of the load at hand, which has been entered.
    async fn newest_checkpoint(
        &self,
        session: &Session,
        schema: &str,
        slot: &Slot,
        but_own: bool,
    ) -> Result<Option<Checkpoint>> {
        let (begin, end) = slot.series_ends();
        let own = if but_own { self.key.text() } else { String::new() };
        let sql = format!(
            "SELECT key, slot FROM {}.{LEDGER} WHERE starts_with(slot, $1) AND right(slot, length($2)) = $2 AND key <> $3 \
             ORDER BY (checkpoint->>'sequence')::int8 DESC NULLS LAST",
            quoted(schema)
        );
        let failed = |error| server_error(&error, &self.config, "cannot read the ledger");
        for row in session.query(&sql, &[&begin, &end, &own]).await.map_err(failed)? {
            let (key, text): (String, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            if slot.is_text_of_series(&text) {
                let sql = format!("SELECT checkpoint::text FROM {}.{LEDGER} WHERE key = $1", quoted(schema));
                let row = session.query_one(&sql, &[&key]).await.map_err(failed)?;
                return serde_json::from_str(&row.try_get::<_, String>(0).map_err(failed)?)
                    .map(Some)
                    .map_err(|error| Error::internal("the ledger's checkpoint was not understood").cause(error));
            }
        }
        Ok(None)
    }

    /// All staging tables of the schema that say whose they are.
    async fn staged_tables(&self, session: &Session, schema: &str) -> Result<Vec<(Payload, Label)>> {
        let sql = "SELECT c.relname::text, obj_description(c.oid, 'pg_class') FROM pg_class c \
                   JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $1 AND c.relkind = 'r' AND starts_with(c.relname::text, $2)";
        let failed = |error| server_error(&error, &self.config, "cannot list the staging tables");
        let rows = session.query(sql, &[&schema, &PREFIX]).await.map_err(failed)?;
        let mut tables = Vec::new();
        for row in rows {
            let (table, comment): (String, Option<String>) =
                (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            if let Some(label) = comment.and_then(|comment| serde_json::from_str(&comment).ok()) {
                tables.push((Payload::aside(schema, table), label));
            }
        }
        Ok(tables)
    }

    async fn drop_tables(&self, session: &Session, tables: &[Payload]) -> Result<()> {
        for table in tables {
            fault::at(Point::BeforeSweep)?;
            session.batch_execute(&format!("DROP TABLE IF EXISTS {}", table.sql())).await.map_err(|error| {
                self.refused(&error, &table.schema, &format!("cannot drop the staging table `{}`", table.table))
            })?;
        }
        Ok(())
    }

    pub(super) async fn abort_load(&self, key: &LoadKey) -> Result<()> {
        self.config.held.give_up(key, &self.owner);
        let session = Session::open(&self.config).await?;
        let schema = Target::schema(&session, &self.config, &self.options).await?;
        let tables = self.staged_tables(&session, &schema).await?;
        // Another owner may be staging the same load; recovery sweeps what is left of the dead.
        let ours = |label: &Label| label.key == *key && label.owner == self.owner;
        let tables: Vec<Payload> =
            tables.into_iter().filter(|(_, label)| ours(label)).map(|(table, _)| table).collect();
        self.drop_tables(&session, &tables).await?;
        session.close().await;
        Ok(())
    }

    pub(super) async fn sweep(&self, is_dead: &(dyn Fn(&OwnerId) -> bool + Send + Sync)) -> Result<Recovered> {
        let session = Session::open(&self.config).await?;
        let schema = Target::schema(&session, &self.config, &self.options).await?;
        let mut recovered = Recovered::default();
        let has_ledger = self.has_ledger(&session, &schema).await?;
        for (table, label) in self.staged_tables(&session, &schema).await? {
            if !is_dead(&label.owner) {
                continue;
            }
            self.drop_tables(&session, std::slice::from_ref(&table)).await?;
            recovered.swept += 1;
            // A commit is all or nothing here, so there is never one to finish.
            let committed = has_ledger && self.entry(&session, &schema, &label.key).await?.is_some();
            if !committed && !recovered.undone.contains(&label.key.text()) {
                recovered.undone.push(label.key.text());
            }
        }
        session.close().await;
        Ok(recovered)
    }
}
