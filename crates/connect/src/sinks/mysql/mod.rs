//! MySQL and MariaDB tables as targets.
//!
//! Each writer puts its rows into a staging table beside the target: by LOAD DATA LOCAL where the server allows that, by
//! INSERTs of many rows otherwise. The commit makes or widens the target first, since MySQL commits whatever is open when a
//! table is changed; then one transaction enters the load into the ledger `_gristmill_loads` and applies the strategy; then
//! the staging tables go. [`types`] has the table of types; see `commit.rs` for what a concurrent reader sees.
//!
//! ```text
//!   stage:  CREATE TABLE stage ─► BEGIN ─► LOAD DATA | INSERT … ─► COMMIT
//!   commit: GET_LOCK ─► ledger? ─► CREATE | ALTER TABLE ─► BEGIN ─► ledger, strategy ─► COMMIT ─► DROP TABLE stage
//! ```
//!
//! Strategies are those of PostgreSQL. Only tables with transactions are loaded: in others (MyISAM, Aria) a load that breaks off
//! would leave half of it.

mod column;
mod comment;
mod commit;
mod config;
mod digits;
mod encode;
mod keyed;
mod ledger;
mod outside;
mod publish;
mod session;
mod stage;
mod target;
#[cfg(test)]
mod tests;
mod tolerant;
pub mod types;
mod widen;

use crate::sinks::staged_table;
use crate::sinks::widen::added;
use crate::sources::mysql::MysqlConfig;
use crate::sources::mysql::connect::{Failure, Session, server_error};
use crate::sources::mysql::names::quoted;
use crate::{LoadContext, Recovered, Rows, Sink, SinkMode};
use async_trait::async_trait;
use config::{Options, same_name};
use gristmill_model::spec::{LoadSpec, Strategy};
use gristmill_model::{
    Checkpoint, Committed, Error, ErrorKind, KeptRows, LoadKey, OwnerId, Result, Slot, Staged, TaskKey,
};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use target::Target;
use types::Outgoing;

/// A table of a MySQL or MariaDB database that rows are loaded into.
#[derive(Debug)]
pub struct MysqlSink {
    config: Arc<MysqlConfig>,
    options: Options,
    columns: Vec<Outgoing>,
    key: LoadKey,
    owner: OwnerId,
    /// How long the ledger remembers loads.
    ledger_retention: Option<std::time::Duration>,
}

impl MysqlSink {
    /// Checks a load step without calling the server.
    ///
    /// # Errors
    /// Options that are for files, a strategy without what it needs, a type that MySQL has nothing for.
    pub(crate) fn new(config: Arc<MysqlConfig>, load: &LoadSpec, context: LoadContext) -> Result<Self> {
        let options = Options::new(&config, load, &context)?;
        let columns = context.schema.fields().iter().map(Outgoing::new).collect::<Result<Vec<_>>>()?;
        let LoadContext { key, owner, ledger_retention, .. } = context;
        Ok(Self { config, options, columns, key, owner, ledger_retention })
    }

    /// What the server's refusal to write means; a missing right comes with the grant that gives it.
    fn refused(&self, error: &Failure, doing: &str) -> Error {
        let refusal = server_error(error, &self.config, doing);
        let Failure::Server(server) = error else { return refusal };
        let place = &self.config.place;
        match server.code {
            // Read-only: the server, InnoDB, the transaction, a replica.
            1290 | 1792 | 1836 => Error::new(ErrorKind::Denied, format!("the server at `{place}` is read-only"))
                .cause(&server.message)
                .hint("load into the primary server, not a replica"),
            1044 | 1142 | 1143 | 1227 | 1370 => refusal.hint(self.grant()),
            1048 | 1062 | 1216 | 1217 | 1265 | 1364 | 1451 | 1452 | 1569 | 3140 | 3819 | 4025 => {
                Error::new(ErrorKind::Data, doing).cause(format!("{} [{}]", server.message, server.code))
            }
            // A table that was changed by another since the transaction began (MariaDB's `innodb_snapshot_isolation`).
            1020 => Error::new(ErrorKind::Conflict, doing).cause(&server.message).retryable(true),
            1153 | 1301 => refusal.hint("raise `max_allowed_packet` of the server"),
            _ => refusal,
        }
    }

    /// What an administrator may say to let us load.
    fn grant(&self) -> String {
        format!(
            "let an administrator run: grant select, insert, update, delete, create, alter, drop, index on {}.* to `{}`",
            quoted(self.options.database()),
            self.config.user
        )
    }

    /// What is being done, for errors of the commit.
    fn doing(&self) -> String {
        format!("loading `{}` failed", self.options.table)
    }
}

#[async_trait]
impl Sink for MysqlSink {
    fn mode(&self) -> SinkMode {
        SinkMode::Staged
    }

    async fn prepare(&self) -> Result<()> {
        let mut session = session::open(&self.config).await?;
        let target = self.target(&mut session).await?;
        target.check(&self.columns, &self.options)?;
        self.check_rights(&mut session, &target).await?;
        session.close().await;
        Ok(())
    }

    async fn changes(&self) -> Result<Vec<String>> {
        let mut session = session::open(&self.config).await?;
        let target = self.target(&mut session).await?;
        session.close().await;
        let Some(existing) = &target.existing else { return Ok(Vec::new()) };
        let given: Vec<&str> =
            self.columns.iter().chain(&self.options.added).map(|column| column.name.as_str()).collect();
        let mut notes = added(&target.name, &given, &existing.names(), same_name);
        notes.extend(target.notes_of_wider());
        Ok(notes)
    }

    fn tells_refused_rows(&self) -> bool {
        true
    }

    async fn stage(&self, task: &TaskKey, rows: Rows) -> Result<Staged> {
        match rows.refused().cloned() {
            Some(refused) => self.stage_tolerantly(task, rows, &refused).await,
            None => self.stage_rows(task, rows).await,
        }
    }

    async fn audit(&self, staged: &[Staged]) -> Result<()> {
        self.audit_keys(staged).await?;
        self.audit_scope(staged).await
    }

    async fn keep(&self, staged: &[Staged]) -> Result<Option<KeptRows>> {
        let columns = self.columns.iter().enumerate();
        let named = columns.map(|(place, column)| format!("{} AS {}", types::staged_name(place), quoted(&column.name)));
        staged_table::keep(staged, named, staged_table::Payload::in_backticks)
    }

    async fn commit(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
        self.commit_staged(staged, next).await
    }

    async fn last(&self, slot: &Slot) -> Result<Option<Committed>> {
        self.last_load(slot).await
    }

    async fn checkpoint(&self, slot: &Slot) -> Result<Option<Checkpoint>> {
        self.last_checkpoint(slot).await
    }

    async fn abort(&self, key: &LoadKey) -> Result<()> {
        self.abort_load(key).await
    }

    async fn recover(&self, is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync)) -> Result<Recovered> {
        self.sweep(is_dead).await
    }
}

impl MysqlSink {
    /// Has the server prepare what the load is going to say: it looks at rights, and at the scope, before the first row is read.
    async fn check_rights(&self, session: &mut Session, target: &Target) -> Result<()> {
        let cannot = format!("`{}` may not load into `{}`", self.config.user, self.options.table);
        let stage = target.beside(staged_table_probe());
        self.try_out(session, &format!("CREATE TABLE {stage} (a int)"), &cannot).await?;
        if target.existing.is_none() {
            return Ok(());
        }
        let table = target.sql();
        if let Some(scope) = &self.options.rules.scope {
            let doing = format!("the scope `{scope}` does not work");
            self.try_out(session, &format!("SELECT 1 FROM {table} WHERE (\n{scope}\n)"), &doing).await?;
        }
        self.try_out(session, &format!("INSERT INTO {table} () VALUES ()"), &cannot).await?;
        if self.options.rules.deletes() {
            self.try_out(session, &format!("DELETE FROM {table} WHERE 1 = 0"), &cannot).await?;
        }
        let known = self.columns.iter().find(|column| target.column(&column.name).is_some());
        if let (Strategy::Merge | Strategy::Scd2, Some(column)) = (self.options.rules.strategy, known) {
            let name = quoted(&column.name);
            self.try_out(session, &format!("UPDATE {table} SET {name} = {name} WHERE 1 = 0"), &cannot).await?;
        }
        Ok(())
    }

    /// Prepares a statement without running it.
    async fn try_out(&self, session: &mut Session, sql: &str, doing: &str) -> Result<()> {
        let conn = session.conn().map_err(|error| self.refused(&error, doing))?;
        match conn.prep(sql).await {
            Ok(statement) => conn.close(statement).await.map_err(|error| self.refused(&error, doing)),
            // Not every server prepares every statement.
            Err(Failure::Server(refusal)) if refusal.code == 1295 => Ok(()),
            Err(error) => Err(self.refused(&error, doing)),
        }
    }
}

/// A name that no table of ours has.
fn staged_table_probe() -> &'static str {
    "_gristmill_stage_probe"
}
