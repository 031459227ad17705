//! Commit, and what belongs to it: abort, recovery.
//!
//! MySQL commits whatever is open when a table is made, changed or dropped. So everything of that kind is done before the
//! transaction of the load, or after it: the target is made or widened first (a load that breaks off then may leave an empty
//! table, a column of NULLs, or a wider one, and no row), staging tables are dropped last (whoever recovers a load sweeps them). Between
//! the two is one transaction with the ledger's row, old rows deleted and new rows inserted. Rows are deleted and never
//! truncated, tables never swapped: whoever reads meanwhile sees the old rows until the commit, whole; indexes, triggers,
//! foreign keys, grants, views and comments stay as they are.
//!
//! Loads of one target take turns by a lock of the server (`GET_LOCK`), which ends with the session.

use super::MysqlSink;
use super::session::{is_in_transaction, open, take_turn};
use crate::Recovered;
use crate::sinks::rival::{stop_if_of_another, stop_unless_next};
use crate::sinks::staged_table::{Label, PREFIX, Payload};
use crate::sources::mysql::connect::{Failure, Session, is_lost};
use crate::sources::mysql::names::literal;
use crate::wrap::retry;
use gristmill_model::fault::{self, Point};
use gristmill_model::{Checkpoint, Committed, Error, ErrorKind, LoadKey, OwnerId, Result, Staged};
use mysql_async::prelude::Queryable;
use std::collections::BTreeSet;

/// How often a commit is tried whose end is not known, or that others were in the way of.
const TRIES: u32 = 5;
/// The server's word for a key that is there already.
const DUPLICATE: u16 = 1062;

/// How an attempt to commit failed.
pub(super) enum Failed {
    /// Nothing was published.
    Plainly(Error),
    /// Nothing was published, since another transaction was in the way: a deadlock, a lock that was not given up.
    Again(Error),
    /// The connection went while the server was committing: nobody knows.
    Unknown(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Conflict if error.is_retryable() => Self::Again(error),
            _ => Self::Plainly(error),
        }
    }
}

impl MysqlSink {
    pub(super) async fn commit_staged(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
        let tables = staged.iter().map(Payload::of).collect::<Result<Vec<_>>>()?;
        let (mut unknown, mut hindered): (Option<Error>, Option<Error>) = (None, None);
        for attempt in 0..TRIES {
            if attempt > 0 {
                // Loads that stood in each other's way must not come back together.
                tokio::time::sleep(retry::backoff(attempt, retry::random())).await;
            }
            let mut session = match open(&self.config).await {
                Ok(session) => session,
                Err(error) if unknown.is_some() && error.is_retryable() => continue,
                Err(error) => return Err(error),
            };
            // Trying again asks the ledger, when the session before has ended: until then it keeps its turn.
            match self.try_commit(&mut session, staged, &tables, next).await {
                Ok(mut committed) => {
                    if !committed.already {
                        fault::at(Point::AfterLedger)?;
                        self.drop_after_all(session, staged).await;
                    }
                    committed.already &= unknown.is_none();
                    return Ok(committed);
                }
                Err(Failed::Unknown(error)) => unknown = Some(error),
                Err(Failed::Again(error)) => hindered = Some(error),
                Err(Failed::Plainly(error)) if unknown.is_some() && error.is_retryable() => {}
                Err(Failed::Plainly(error)) => return Err(error),
            }
        }
        let hint = "whether it was committed is asked for when the load runs again";
        Err(unknown
            .map(|error| error.hint(hint))
            .or(hindered)
            .unwrap_or_else(|| Error::internal("a commit was never tried")))
    }

    async fn try_commit(
        &self,
        session: &mut Session,
        staged: &[Staged],
        tables: &[Payload],
        next: &Checkpoint,
    ) -> Result<Committed, Failed> {
        let doing = self.doing();
        let failed = |error: Failure| self.refused(&error, &doing);
        take_turn(session, self.options.database(), &self.options.table.name, |error| self.refused(error, &doing))
            .await?;
        let mut target = self.target(session).await?;
        self.make_ledger(session, &target).await?;
        if let Some((known, entered)) = self.entry(session, &self.key).await? {
            // The rows are in; what this attempt staged is of no more use.
            self.drop_staged(session, staged).await?;
            stop_if_of_another(&self.key, &entered, &self.owner, staged)?;
            return Ok(known);
        }
        stop_unless_next(&self.key, next, self.newest_checkpoint(session, &self.key.slot).await?.as_ref())?;
        target = self.target_of(session, target, tables).await?;
        target.check(&self.columns, &self.options)?;
        for note in target.notes_of_wider() {
            tracing::info!("{note}");
        }
        if let Some(change) = target.change(&self.columns, &self.options) {
            session.run(&change).await.map_err(failed)?;
            target = self.target(session).await?;
        }
        let new = self.prepare_rows(session, &target, tables).await?;

        let rows: u64 = staged.iter().map(|staged| staged.rows).sum();
        session.run("BEGIN").await.map_err(failed)?;
        let at = self.now(session).await?;
        self.run_sql(session, &self.options.rules.pre_sql, "pre_sql").await?;
        fault::at(Point::BeforeLedger)?;
        match self.enter(session, rows, next, at).await {
            Ok(()) => {}
            // A rival that another server of a cluster has let pass. The next try finds its entry.
            Err(Failure::Server(refusal)) if refusal.code == DUPLICATE => {
                return Err(Failed::Again(
                    Error::new(
                        ErrorKind::Conflict,
                        format!("the load `{}` is being committed by another run", self.key),
                    )
                    .retryable(true),
                ));
            }
            Err(error) => return Err(failed(error).into()),
        }
        fault::at(Point::DuringLedger)?;
        self.drop_earlier(session, &target, next).await?;
        let inserted = self.publish(session, &target, tables, new.as_ref(), at).await?;
        fault::at(Point::AfterInsert)?;
        self.run_sql(session, &self.options.rules.post_sql, "post_sql").await?;
        if inserted != rows {
            // A server that crashes may forget what it has just been told (`innodb_flush_log_at_trx_commit`).
            return Err(Failed::Plainly(
                Error::new(ErrorKind::Conflict, format!("{inserted} of {rows} staged rows were left at the commit"))
                    .retryable(false)
                    .hint("the server restarted meanwhile; run again"),
            ));
        }
        self.forget_old(session, next.sequence, at).await?;
        match session.run("COMMIT").await {
            Ok(()) => Ok(Committed {
                key: self.key.clone(),
                rows,
                files: 0,
                bytes: 0,
                checkpoint: next.clone(),
                at,
                already: false,
            }),
            Err(error) if is_lost(&error) => Err(Failed::Unknown(self.asked(&error, &doing))),
            Err(error) => Err(failed(error).into()),
        }
    }

    /// Runs the user's own statements.
    async fn run_sql(&self, session: &mut Session, statements: &[String], key: &str) -> Result<()> {
        let doing = format!("`{key}` of `{}` failed", self.options.table);
        for statement in statements {
            // Prepared, since a text of several statements would be run as such, and a `commit` among them.
            let conn = session.conn().map_err(|error| self.refused(&error, &doing))?;
            conn.exec_drop(statement.as_str(), ()).await.map_err(|error| self.refused(&error, &doing))?;
            // A procedure may do what no statement here may.
            if !is_in_transaction(session).await.map_err(|error| self.refused(&error, &doing))? {
                return Err(Error::new(ErrorKind::Query, doing)
                    .cause(format!("`{statement}` has ended the transaction of the load"))
                    .hint("leave out what commits or changes tables; procedures that do so cannot be called here"));
            }
        }
        Ok(())
    }

    /// All tables of ours in the database that say whose they are.
    async fn staged_tables(&self, session: &mut Session) -> Result<Vec<(Payload, Label)>> {
        let database = self.options.database();
        let sql = format!(
            "SELECT table_name, table_comment FROM information_schema.tables WHERE table_schema = {} \
             AND table_type = 'BASE TABLE' AND table_name LIKE '{}%' ESCAPE '|'",
            literal(database),
            PREFIX.replace('_', "|_")
        );
        let rows = session.ask(&sql).await.map_err(|error| self.asked(&error, "cannot list the staging tables"))?;
        let tables = rows.into_iter().filter_map(|row| {
            let [Some(table), Some(comment)] = <[Option<String>; 2]>::try_from(row).ok()? else { return None };
            let label = serde_json::from_str(&comment).ok()?;
            Some((Payload::aside(database, table), label))
        });
        Ok(tables.collect())
    }

    async fn drop_table(&self, session: &mut Session, table: &Payload) -> Result<()> {
        fault::at(Point::BeforeSweep)?;
        let sql = format!("DROP TABLE IF EXISTS {}", table.in_backticks());
        session
            .run(&sql)
            .await
            .map_err(|error| self.refused(&error, &format!("cannot drop the staging table `{}`", table.table)))
    }

    /// Drops what this load's owners have staged for it, failed attempts included.
    async fn drop_staged(&self, session: &mut Session, staged: &[Staged]) -> Result<()> {
        let owners: BTreeSet<&str> =
            staged.iter().map(|staged| staged.task.owner.0.as_str()).chain([self.owner.0.as_str()]).collect();
        for (table, label) in self.staged_tables(session).await? {
            if label.key == self.key && owners.contains(label.owner.0.as_str()) {
                self.drop_table(session, &table).await?;
            }
        }
        Ok(())
    }

    /// Drops what was staged for a load that is committed. What cannot be dropped is no failure of the load: whoever
    /// recovers this run sweeps it.
    async fn drop_after_all(&self, mut session: Session, staged: &[Staged]) {
        let Err(error) = self.drop_staged(&mut session, staged).await else { return session.close().await };
        tracing::debug!(%error, "staging tables are dropped by another session");
        drop(session);
        let again = async { self.drop_staged(&mut open(&self.config).await?, staged).await };
        if let Err(error) = again.await {
            tracing::warn!(%error, "staging tables are left; `gristmill recover` sweeps them");
        }
    }

    pub(super) async fn abort_load(&self, key: &LoadKey) -> Result<()> {
        let mut session = open(&self.config).await?;
        for (table, label) in self.staged_tables(&mut session).await? {
            // Another owner may be staging the same load; recovery sweeps what is left of the dead.
            if label.key == *key && label.owner == self.owner {
                self.drop_table(&mut session, &table).await?;
            }
        }
        session.close().await;
        Ok(())
    }

    pub(super) async fn sweep(&self, is_dead: &(dyn Fn(&OwnerId) -> bool + Send + Sync)) -> Result<Recovered> {
        let mut session = open(&self.config).await?;
        let mut recovered = Recovered::default();
        let has_ledger = self.has_ledger(&mut session).await?;
        for (table, label) in self.staged_tables(&mut session).await? {
            if !is_dead(&label.owner) {
                continue;
            }
            self.drop_table(&mut session, &table).await?;
            recovered.swept += 1;
            // A commit is all or nothing here, so there is never one to finish.
            let committed = has_ledger && self.entry(&mut session, &label.key).await?.is_some();
            if !committed && !recovered.undone.contains(&label.key.text()) {
                recovered.undone.push(label.key.text());
            }
        }
        session.close().await;
        Ok(recovered)
    }
}
