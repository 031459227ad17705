//! One exported snapshot for all units of an extract.
//!
//! ```text
//!   holder: BEGIN … READ ONLY; LOCK TABLE … ACCESS SHARE; pg_export_snapshot() ─► id
//!     └─ asked something every 20 seconds                        │
//!                                                                ▼
//!   readers: BEGIN … READ ONLY; SET TRANSACTION SNAPSHOT id; COPY unit; COPY unit; …
//!   verify:  BEGIN … READ ONLY; SET TRANSACTION SNAPSHOT id; SELECT count(*), while units are read
//! ```
//!
//! A snapshot can be imported for as long as the transaction that exported it goes on, so one connection does nothing
//! else than hold it. Readers that have imported it keep it by themselves: they go from unit to unit within their
//! transaction and do not mind when the holder dies; a *new* reader does, and the load begins anew then, since units of
//! two pictures do not add up. The table lock keeps the table's columns (and TRUNCATE) away while units are read.

use super::config::PostgresConfig;
use super::connect::{Session, server_error};
use super::names::quoted;
use super::types::Column;
use super::wanted::{Relation, Wanted};
use crate::units::miscounted;
use gristmill_model::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;

/// How often the holder is asked something, so that neither the server nor a firewall takes it for dead.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// An exported snapshot and the connection that holds it.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// As `SET TRANSACTION SNAPSHOT` takes it.
    pub(super) id: String,
    /// The columns of the extract, as they are while the snapshot lives.
    pub(super) columns: Vec<Column>,
    /// The transaction that holds the snapshot; questions about the picture are asked here.
    pub(super) holder: Arc<Session>,
    config: Arc<PostgresConfig>,
    heart: JoinHandle<()>,
    /// Readers that have the snapshot and no unit just now.
    idle: Mutex<Vec<Reader>>,
    tallies: Mutex<Vec<Tally>>,
}

/// A connection that has imported a snapshot, and its place among the readers.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) session: Session,
    pub(super) _place: OwnedSemaphorePermit,
}

/// What has been read of one plan.
#[derive(Debug)]
struct Tally {
    units: usize,
    rows: BTreeMap<u32, u64>,
    count: Count,
}

/// Counting the rows of a plan.
#[derive(Debug)]
enum Count {
    /// Nobody wants to know.
    Never,
    /// With this statement, once the first unit is read. `strict`: the user wants it.
    Later {
        sql: String,
        strict: bool,
    },
    Running {
        task: JoinHandle<Result<u64>>,
        strict: bool,
    },
}

fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can leave them half done.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Snapshot {
    /// Opens the holder and exports its snapshot.
    ///
    /// # Errors
    /// The outer error: a server that does not answer, a table that cannot be read. The inner one: why there is no
    /// snapshot to share here, for people.
    pub(super) async fn export(wanted: &Wanted) -> Result<Result<Arc<Self>, String>> {
        let config = &wanted.config;
        let session = Session::open_to_read(config).await?;
        let failed = |error: tokio_postgres::Error| server_error(&error, config, "cannot take a snapshot");
        let settings = "SET application_name = 'gristmill snapshot'";
        session.batch_execute(settings).await.map_err(failed)?;
        session.begin_to_read(config, None).await.map_err(failed)?;
        if let Relation::Table(table) = &wanted.relation {
            // Before the first snapshot of the transaction, so that none falls between. Views and foreign tables cannot
            // be locked, and a user who may read some columns may not lock; describing the table locks it then.
            let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", table.sql());
            if session.batch_execute(&lock).await.is_err() {
                session.batch_execute("ROLLBACK").await.map_err(failed)?;
                session.begin_to_read(config, None).await.map_err(failed)?;
            }
        }
        let id: String = match session.query_one("SELECT pg_export_snapshot()", &[]).await {
            Ok(row) => row.try_get(0).map_err(failed)?,
            Err(error) if error.as_db_error().is_some() => {
                let words = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
                session.close().await;
                return Ok(Err(format!("the server cannot export a snapshot ({words})")));
            }
            Err(error) => return Err(failed(error)),
        };
        let columns = wanted.describe(&session).await?;
        let holder = Arc::new(session);
        let beating = Arc::downgrade(&holder);
        let heart = tokio::spawn(async move {
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                let Some(holder) = beating.upgrade() else { break };
                if holder.batch_execute("SELECT 1").await.is_err() {
                    break;
                }
            }
        });
        Ok(Ok(Arc::new(Self {
            id,
            columns,
            holder,
            config: config.clone(),
            heart,
            idle: Mutex::default(),
            tallies: Mutex::default(),
        })))
    }

    /// Whether nobody can import it any more.
    pub(super) fn is_lost(&self) -> bool {
        self.holder.is_closed()
    }

    /// The error for a reader that comes too late.
    pub(super) fn lost(&self) -> Error {
        lost(&self.config, self.holder.ended().cloned())
    }

    /// A reader that has the snapshot already.
    pub(super) fn idle_reader(&self) -> Option<Reader> {
        let mut idle = open(&self.idle);
        while let Some(reader) = idle.pop() {
            if !reader.session.is_closed() {
                return Some(reader);
            }
        }
        None
    }

    /// Keeps a reader for the next unit, unless somebody else waits for its place.
    pub(super) fn keep(&self, reader: Reader) {
        if self.config.readers.is_waited_for() {
            reader.session.let_go();
        } else {
            open(&self.idle).push(reader);
        }
    }

    /// Opens the book on a plan of so many units; gives its number. `count` counts its rows, and whether it must.
    pub(super) fn begin_plan(&self, units: usize, count: Option<(String, bool)>) -> u32 {
        let count = count.map_or(Count::Never, |(sql, strict)| Count::Later { sql, strict });
        let mut tallies = open(&self.tallies);
        tallies.push(Tally { units, rows: BTreeMap::new(), count });
        u32::try_from(tallies.len() - 1).unwrap_or(u32::MAX)
    }

    /// A unit of a plan was divided: there is one more, of this number.
    pub(super) fn add_unit(&self, plan: u32) -> Option<u32> {
        let mut tallies = open(&self.tallies);
        let tally = tallies.get_mut(plan as usize)?;
        let ordinal = u32::try_from(tally.units).ok()?;
        tally.units += 1;
        Some(ordinal)
    }

    /// A unit of a plan begins to be read: the server begins to count, too.
    pub(super) fn begin_unit(&self, plan: u32) {
        let mut tallies = open(&self.tallies);
        let Some(tally) = tallies.get_mut(plan as usize) else { return };
        let Count::Later { sql, strict } = &tally.count else { return };
        let (id, config, sql, strict) = (self.id.clone(), self.config.clone(), sql.clone(), *strict);
        // Not on the holder: a statement that fails there (a timeout) would end its transaction, and the snapshot.
        let task = tokio::spawn(async move {
            let failed = |error| server_error(&error, &config, "cannot count the rows");
            let _place = config.readers.place().await?;
            let session = Session::open_to_read(&config).await?;
            session.begin_to_read(&config, Some(&id)).await.map_err(failed)?;
            let row = session.query_one(&sql, &[]).await.map_err(failed)?;
            let count: i64 = row.try_get(0).map_err(failed)?;
            session.close().await;
            u64::try_from(count).map_err(|error| Error::internal("a number of rows below zero").cause(error))
        });
        tally.count = Count::Running { task, strict };
    }

    /// A unit has been read to its end. When it was the last of its plan, the rows are reconciled.
    ///
    /// # Errors
    /// Another number of rows than the server counts in the same snapshot.
    pub(super) async fn end_unit(&self, plan: u32, ordinal: u32, rows: u64, label: &str) -> Result<()> {
        let (read, units, count) = {
            let mut tallies = open(&self.tallies);
            let Some(tally) = tallies.get_mut(plan as usize) else { return Ok(()) };
            tally.rows.insert(ordinal, rows);
            if tally.rows.len() < tally.units {
                return Ok(());
            }
            (tally.rows.values().sum::<u64>(), tally.units, std::mem::replace(&mut tally.count, Count::Never))
        };
        // Nothing of this plan is left to be read; what a second reading of a unit needs, it opens.
        for reader in open(&self.idle).drain(..) {
            reader.session.let_go();
        }
        let Count::Running { task, strict } = count else { return Ok(()) };
        let counted = match task.await {
            Ok(counted) => counted,
            Err(error) => Err(Error::internal("counting the rows ended early").cause(error)),
        };
        match counted {
            Ok(counted) if counted == read => Ok(()),
            Ok(counted) => Err(miscounted(label, units, read, counted)),
            Err(error) if strict => Err(error.context(format!("verifying `{label}`"))),
            Err(error) => {
                tracing::warn!(%error, "the rows of `{label}` could not be counted");
                Ok(())
            }
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.heart.abort();
        for tally in open(&self.tallies).iter() {
            if let Count::Running { task, .. } = &tally.count {
                task.abort();
            }
        }
        for reader in open(&self.idle).drain(..) {
            reader.session.let_go();
        }
        // The holder is hung up on when its last user is gone: nothing of it is worth an orderly end.
    }
}

/// The error for a snapshot whose holder is gone, with what to set where the server says why it went.
pub(super) fn lost(config: &PostgresConfig, ended: Option<(Option<SqlState>, String)>) -> Error {
    let (code, words) = ended.map_or((None, None), |(code, words)| (code, Some(words)));
    let user = quoted(&config.user);
    let hint = match code.as_ref().map(SqlState::code) {
        Some("25P03") => {
            format!("let the holder wait: alter role {user} set idle_in_transaction_session_timeout = 0")
        }
        Some("25P04") => format!("let the read take its time: alter role {user} set transaction_timeout = 0"),
        Some(code) if code.starts_with("57P") => "the server ended it; run again".to_owned(),
        _ => format!(
            "run again; if it comes back: alter role {user} set idle_in_transaction_session_timeout = 0, and let poolers \
             and firewalls keep a connection for as long as the read takes"
        ),
    };
    let error = Error::new(
        ErrorKind::Unavailable,
        format!("the connection to `{}` that held the snapshot of all units was lost", config.place),
    )
    .hint(hint);
    match words {
        Some(words) => error.cause(words),
        None => error,
    }
}
