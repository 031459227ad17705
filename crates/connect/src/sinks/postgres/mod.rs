//! PostgreSQL tables as targets.
//!
//! Each writer copies its rows (binary COPY) into an unlogged staging table beside the target; the commit is one
//! transaction that enters the load into the ledger `_gristmill_loads`, applies the strategy and drops the staging
//! tables. Where every row would be written twice for nothing, one writer copies them to where they stay (`way.rs`).
//! [`types`] has the table of types; see `commit.rs` for what a concurrent reader sees.
//!
//! Strategies: `append`; `replace` (the table stays, its rows are deleted and inserted); `truncate+insert`, which lets
//! readers wait; `delete+insert` by distinct keys; `partition_overwrite` by distinct values of `partition_by`; `merge` and
//! `scd2` (`keyed.rs`). A missing table is created, new columns are added, numbers become wider (`widen.rs`); any other
//! type that does not fit is an error before the first row.

mod commit;
mod config;
mod forget;
mod keyed;
mod outside;
mod stage;
mod target;
#[cfg(test)]
mod tests;
mod tolerant;
pub mod types;
pub(crate) mod way;
mod widen;

use crate::sinks::staged_table;
use crate::sinks::staged_table::Way;
use crate::sinks::widen::added;
use crate::sources::postgres::PostgresConfig;
use crate::sources::postgres::connect::{Session, server_error};
use crate::sources::postgres::names::quoted;
use crate::{LoadContext, Recovered, Rows, Sink, SinkMode};
use async_trait::async_trait;
use config::Options;
use gristmill_model::spec::{LoadSpec, OnFail};
use gristmill_model::{
    Checkpoint, Committed, Error, ErrorKind, KeptRows, LoadKey, OwnerId, Result, Slot, Staged, TaskKey,
};
use std::sync::{Arc, OnceLock};
use target::Target;
use types::Outgoing;

/// A table of a PostgreSQL database that rows are loaded into.
#[derive(Debug)]
pub struct PostgresSink {
    config: Arc<PostgresConfig>,
    options: Options,
    columns: Vec<Outgoing>,
    key: LoadKey,
    owner: OwnerId,
    /// Whether it is published without other loads of its run.
    alone: bool,
    /// How long the ledger remembers loads.
    ledger_retention: Option<std::time::Duration>,
    /// Whether rows that the server refuses are left out.
    tolerates: bool,
    /// The way of its rows, once the server has been asked.
    way: OnceLock<Way>,
}

impl PostgresSink {
    /// Checks a load step without calling the server.
    ///
    /// # Errors
    /// Options that are for files, a strategy without what it needs, a type that PostgreSQL has nothing for.
    pub(crate) fn new(config: Arc<PostgresConfig>, load: &LoadSpec, context: LoadContext) -> Result<Self> {
        let options = Options::new(&config, load, &context)?;
        let columns = context.schema.fields().iter().map(Outgoing::new).collect::<Result<Vec<_>>>()?;
        let tolerates = load.on_bad_row != OnFail::Fail;
        let LoadContext { key, owner, alone, ledger_retention, .. } = context;
        // What a transaction holds nobody else can look at.
        let alone = alone && !load.readable_staging;
        let way = OnceLock::new();
        Ok(Self { config, options, columns, key, owner, alone, ledger_retention, tolerates, way })
    }

    /// What the server's refusal to write means; a missing right comes with the grant that gives it.
    fn refused(&self, error: &tokio_postgres::Error, schema: &str, doing: &str) -> Error {
        let refusal = server_error(error, &self.config, doing);
        if refusal.kind() != ErrorKind::Denied || error.code().is_none_or(|code| code.code() != "42501") {
            return refusal;
        }
        let user = quoted(&self.config.user);
        let words = error.as_db_error().map(|refusal| refusal.message().to_owned()).unwrap_or_default();
        let grant = if words.contains("for schema") {
            format!("grant usage, create on schema {} to {user}", quoted(schema))
        } else if words.contains("must be owner") {
            format!("alter table {} owner to {user}", quoted(&self.options.table.name))
        } else {
            // The table the server names: the target, or the ledger.
            let table = words.split("for table ").nth(1).unwrap_or(&self.options.table.name);
            format!("grant select, insert, delete on {}.{} to {user}", quoted(schema), quoted(table))
        };
        refusal.hint(format!("let the owner run: {grant}"))
    }
}

#[async_trait]
impl Sink for PostgresSink {
    fn mode(&self) -> SinkMode {
        match self.way.get() {
            Some(Way::Held | Way::Ready) => SinkMode::Single,
            Some(Way::Aside) | None => SinkMode::Staged,
        }
    }

    async fn prepare(&self) -> Result<()> {
        let session = Session::open(&self.config).await?;
        let target = self.target(&session).await?;
        target.check(&self.columns, &self.options)?;
        target.check_rights(&session, &self.config, &self.columns, &self.options).await?;
        self.check_wider(&session, &target).await?;
        self.check_scope(&session, &target).await?;
        self.ask_way(&session, &target).await?;
        session.close().await;
        Ok(())
    }

    async fn changes(&self) -> Result<Vec<String>> {
        let session = Session::open(&self.config).await?;
        let target = self.target(&session).await?;
        self.ask_way(&session, &target).await?;
        session.close().await;
        let Some(existing) = &target.existing else { return Ok(Vec::new()) };
        let given: Vec<&str> =
            self.columns.iter().chain(&self.options.added).map(|column| column.name.as_str()).collect();
        let mut notes = added(&target.name, &given, &existing.names(), |a, b| a == b);
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
        let parts = staged.iter().map(staged_table::Payload::of).collect::<Result<Vec<_>>>()?;
        if parts.iter().any(|part| part.way == Way::Held) {
            // Only its own transaction sees them.
            return Ok(None);
        }
        let columns = self.columns.iter().enumerate();
        let named = columns.map(|(place, column)| format!("{} AS {}", types::staged_name(place), quoted(&column.name)));
        staged_table::keep(staged, named, |part| self.rows_of(part))
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

impl PostgresSink {
    async fn ask_way(&self, session: &Session, target: &Target) -> Result<()> {
        if self.way.get().is_none() {
            let way = self.way_into(session, target).await?;
            // Another call may have been first, with the same answer.
            let _known = self.way.set(way);
        }
        Ok(())
    }

    /// A `scope` that the server does not understand is told before the first row is read.
    async fn check_scope(&self, session: &Session, target: &Target) -> Result<()> {
        let Some(scope) = &self.options.rules.scope else { return Ok(()) };
        if target.existing.is_none() {
            return Ok(());
        }
        let sql = format!("SELECT FROM {} WHERE (\n{scope}\n)", target.sql());
        match session.prepare(&sql).await {
            Ok(_) => Ok(()),
            Err(error) => Err(server_error(&error, &self.config, &format!("the scope `{scope}` does not work"))),
        }
    }
}
