//! One picture for all units of an extract.
//!
//! ```text
//!   locker:  LOCK TABLES t READ ───────────────────────────────► UNLOCK TABLES
//!   readers:      START TRANSACTION WITH CONSISTENT SNAPSHOT        SELECT unit; SELECT unit; …
//!                 SELECT … LIMIT 0
//! ```
//!
//! A connection cannot join the picture of another. But while the table is locked for reading, nobody writes to it, and
//! nobody has written to it who has not committed: `LOCK TABLES` waits for the metadata lock that every such transaction
//! holds, and with `autocommit = 0` for InnoDB's own lock on the table, too (prepared XA transactions, cascades of foreign
//! keys). So whatever snapshot begins within that time sees the same rows of the table. The readers begin all of theirs,
//! and touch the table, so that it cannot be altered while they read; then the lock is gone, a few milliseconds after it
//! was there. A reader that is lost cannot be made anew: the others take its units, as long as there is one.
//!
//! Where the table cannot be locked, and for views and queries, one connection reads all units in one transaction.

use super::config::MysqlConfig;
use super::connect::{Failure, Session, is_lost, server_error};
use super::types::Column;
use super::wanted::{Relation, Wanted};
use crate::picture::{self, Pool, Register, Tally};
use crate::units::miscounted;
use futures::future::try_join_all;
use gristmill_model::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

/// How long the lock is waited for, in seconds. Whoever wants to write to the table waits behind it.
const LOCK_WAIT: u32 = 2;

/// How long locking and unlocking may take, and how long the table stays locked for transactions to begin. Whoever waits to
/// change the table is behind the lock, and a reader that begins is behind them: without a limit they would wait for each
/// other, and everybody else for them.
const LOCKED: Duration = Duration::from_secs(10);

/// The snapshots of this process: a unit that another opening of the source reads finds its readers here.
pub(super) static SNAPSHOTS: Register<Snapshot> = Register::new();

/// Connections that see the same picture.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) id: String,
    /// The columns of the extract, as they are while the snapshot lives.
    pub(super) columns: Vec<Column>,
    pub(super) pool: Pool<Reader>,
    config: Arc<MysqlConfig>,
    label: String,
    /// Set when the units are known.
    book: Mutex<Option<Book>>,
}

/// A connection within its transaction, and its place among the readers; the first of a snapshot needs none.
#[derive(Debug)]
pub(super) struct Reader {
    session: Session,
    place: Option<OwnedSemaphorePermit>,
}

/// A reader that is lent to a unit. Dropping it in the middle of something gives it back once it is idle again.
#[derive(Debug)]
pub(super) struct Lent {
    snapshot: Arc<Snapshot>,
    /// There until it is given back.
    reader: Option<Reader>,
}

impl Lent {
    /// Waits for a reader.
    ///
    /// # Errors
    /// None is left.
    pub(super) async fn of(snapshot: &Arc<Snapshot>) -> Result<Self> {
        let reader = snapshot.pool.take().await.ok_or_else(|| snapshot.lost())?;
        Ok(Self { snapshot: snapshot.clone(), reader: Some(reader) })
    }

    /// A reader that is idle just now.
    pub(super) fn idle(snapshot: &Arc<Snapshot>) -> Option<Self> {
        let reader = snapshot.pool.take_idle()?;
        Some(Self { snapshot: snapshot.clone(), reader: Some(reader) })
    }

    /// # Errors
    /// Only after it was given back.
    pub(super) fn session(&mut self) -> Result<&mut Session, Failure> {
        let gone = Failure::Driver(mysql_async::DriverError::ConnectionClosed);
        self.reader.as_mut().map(|reader| &mut reader.session).ok_or(gone)
    }

    /// The statement has been read to its end.
    pub(super) fn give_back(mut self) {
        if let Some(reader) = self.reader.take() {
            self.snapshot.keep(reader);
        }
    }

    /// The statement failed: whether the connection is still good, it tells itself.
    pub(super) fn look_after(mut self) {
        if let Some(reader) = self.reader.take() {
            self.snapshot.clone().look_after(reader);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.snapshot.clone().recover(reader);
        }
    }
}

/// What is to be read, and to be counted.
#[derive(Debug)]
struct Book {
    tally: Arc<Tally>,
    count: Count,
}

/// Counting the rows of a plan.
#[derive(Debug)]
enum Count {
    /// Nobody wants to know, or it has been done.
    Never,
    /// With this statement: by a connection of its own while units are read, or by a reader at the end.
    Later {
        sql: String,
        strict: bool,
        counter: Option<Box<Session>>,
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

/// A snapshot, with a connection more where rows are to be counted.
pub(super) struct Taken {
    pub(super) snapshot: Arc<Snapshot>,
    /// Sees the same picture.
    counter: Option<Session>,
}

impl Snapshot {
    /// Takes a picture of a table that up to `readers` connections see, fewer where the connection's limit is reached, and
    /// one more with `counted`.
    ///
    /// # Errors
    /// The outer error: a server that does not answer. The inner one: why several connections cannot see the same, for
    /// people.
    pub(super) async fn share(wanted: &Wanted, readers: usize, counted: bool) -> Result<Result<Taken, String>> {
        let Relation::Table(table) = &wanted.relation else { return Ok(Err("a query cannot be locked".to_owned())) };
        let config = &wanted.config;
        let mut locker = Session::open_to_ask(config).await?;
        let mut group = open_readers(config, readers).await?;
        let mut counter = if counted { Some(Session::open_to_ask(config).await?) } else { None };
        // All of them are there already: the lock is held for no longer than it takes to begin transactions.
        let lock = async {
            locker
                .run(&format!(
                    "SET autocommit = 0, lock_wait_timeout = {LOCK_WAIT}, innodb_lock_wait_timeout = {LOCK_WAIT}"
                ))
                .await?;
            locker.run(&format!("LOCK TABLES {} READ", table.sql())).await
        };
        let late = |doing: &str| format!("{doing} took longer than {LOCKED:?}");
        // A lock that comes later is gone with its connection.
        let Ok(lock) = tokio::time::timeout(LOCKED, lock).await else { return Ok(Err(late("locking the table"))) };
        match lock {
            Ok(()) => {}
            Err(error) if is_lost(&error) => return Err(server_error(&error, config, "cannot lock the table")),
            Err(Failure::Server(refusal)) => {
                let why = match refusal.code {
                    1044 | 1045 | 1142 | 1227 => {
                        format!("`{}` has not the privilege LOCK TABLES, which sharing a picture takes", config.user)
                    }
                    1205 => format!("a transaction that writes to it did not end within {LOCK_WAIT} seconds"),
                    _ => format!("the table cannot be locked ({})", refusal.message),
                };
                return Ok(Err(why));
            }
            Err(error) => return Err(server_error(&error, config, "cannot lock the table")),
        }
        let touch = format!("SELECT 1 FROM {} LIMIT 0", table.sql());
        let sessions = group.iter_mut().map(|reader| &mut reader.session).chain(counter.as_mut());
        let began = try_join_all(sessions.map(|session| {
            let touch = touch.as_str();
            async move {
                session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
                session.run(touch).await
            }
        }));
        let began = tokio::time::timeout(LOCKED, began).await;
        // If the lock was lost meanwhile, somebody may have written between two snapshots.
        let unlocked = tokio::time::timeout(LOCKED, locker.run("UNLOCK TABLES")).await;
        let (Ok(began), Ok(unlocked)) = (began, unlocked) else {
            return Ok(Err(late("beginning transactions while the table is locked")));
        };
        began.map_err(|error| server_error(&error, config, "cannot take a snapshot"))?;
        unlocked.map_err(|error| server_error(&error, config, "cannot take a snapshot: the lock was lost"))?;
        locker.close().await;
        Ok(Ok(Taken { snapshot: Self::of(wanted, group).await?, counter }))
    }

    /// A picture that one connection sees.
    ///
    /// # Errors
    /// A server that does not answer.
    pub(super) async fn alone(wanted: &Wanted) -> Result<Taken> {
        let mut session = Session::open_reader(&wanted.config).await?;
        session
            .run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            .await
            .map_err(|error| server_error(&error, &wanted.config, "cannot take a snapshot"))?;
        Ok(Taken { snapshot: Self::of(wanted, vec![Reader { session, place: None }]).await?, counter: None })
    }

    async fn of(wanted: &Wanted, mut readers: Vec<Reader>) -> Result<Arc<Self>> {
        let Some(first) = readers.first_mut() else { return Err(Error::internal("a snapshot without a reader")) };
        let columns = wanted.describe(&mut first.session).await?;
        let snapshot = Arc::new(Self {
            id: uuid::Uuid::new_v4().to_string(),
            columns,
            pool: Pool::new(readers),
            config: wanted.config.clone(),
            label: wanted.label(),
            book: Mutex::new(None),
        });
        SNAPSHOTS.add(&snapshot.id, &snapshot);
        Ok(snapshot)
    }

    /// The error for a unit that no connection can read any more.
    pub(super) fn lost(&self) -> Error {
        picture::lost(&self.config.place)
    }

    /// Gives a reader back for the next unit, unless somebody else waits for its place.
    fn keep(&self, reader: Reader) {
        if reader.place.is_some() && self.config.readers.is_waited_for() {
            self.pool.lose();
            let_go(reader.session);
        } else {
            self.pool.give_back(reader);
        }
    }

    /// A reader was left in the middle of a unit. Others may still want it, so what it is being sent is stopped and thrown
    /// away, and its transaction goes on.
    fn recover(self: Arc<Self>, mut reader: Reader) {
        // Nobody but the loan that ends holds the snapshot: there is nothing left to be read.
        if Arc::strong_count(&self) <= 2 {
            self.pool.lose();
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return self.pool.lose() };
        runtime.spawn(async move {
            let stopped = async {
                let mut other = Session::open_to_ask(&self.config).await?;
                let failed = |error| server_error(&error, &self.config, "cannot stop a statement");
                other.run(&format!("KILL QUERY {}", reader.session.id)).await.map_err(failed)?;
                other.close().await;
                // The first statement reads what is left of the one before, and may be told that it was stopped.
                for _ in 0..3 {
                    match reader.session.run("DO 0").await {
                        Ok(()) => return Ok(()),
                        Err(Failure::Server(refusal)) if refusal.code == 1317 => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
                Err(Error::internal("a statement that is stopped again and again"))
            };
            match stopped.await {
                Ok(()) => self.keep(reader),
                Err(error) => {
                    tracing::debug!(%error, "a reader of MySQL is lost");
                    self.pool.lose();
                }
            }
        });
    }

    /// A statement failed on a reader: whether the connection is still good, it tells itself.
    fn look_after(self: Arc<Self>, mut reader: Reader) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return self.pool.lose() };
        runtime.spawn(async move {
            match reader.session.run("DO 0").await {
                Ok(()) => self.keep(reader),
                Err(_) => self.pool.lose(),
            }
        });
    }

    /// A unit begins to be read: the server begins to count, too.
    pub(super) fn begin_unit(&self) {
        let mut book = open(&self.book);
        let Some(Book { count, .. }) = book.as_mut() else { return };
        if let Count::Later { sql, strict, counter } = count
            && let Some(counter) = counter.take()
        {
            let (sql, config) = (sql.clone(), self.config.clone());
            let task = tokio::spawn(async move {
                let mut counter = *counter;
                let counted = rows_of(&mut counter, &sql, &config).await;
                counter.close().await;
                counted
            });
            *count = Count::Running { task, strict: *strict };
        }
    }

    /// A unit of the plan was divided: there is one more, of this number.
    pub(super) fn add_unit(&self) -> Option<u32> {
        open(&self.book).as_ref()?.tally.add()
    }

    /// A unit has been read to its end. When it was the last of its plan, the rows are reconciled.
    ///
    /// # Errors
    /// Another number of rows than the server counts in the same snapshot.
    pub(super) async fn end_unit(self: &Arc<Self>, ordinal: u32, rows: u64) -> Result<()> {
        let (read, units, count) = {
            let mut book = open(&self.book);
            let Some(book) = book.as_mut() else { return Ok(()) };
            let Some(read) = book.tally.end(ordinal, rows) else { return Ok(()) };
            (read, book.tally.units(), std::mem::replace(&mut book.count, Count::Never))
        };
        let (counted, strict) = match count {
            Count::Never => (None, false),
            Count::Running { task, strict } => {
                let counted = task.await;
                let early = |error| Err(Error::internal("counting the rows ended early").cause(error));
                (Some(counted.unwrap_or_else(early)), strict)
            }
            Count::Later { sql, strict, .. } => {
                let mut lent = Lent::of(self).await?;
                let counted = match lent.session() {
                    Ok(session) => rows_of(session, &sql, &self.config).await,
                    Err(error) => Err(server_error(&error, &self.config, "cannot count the rows")),
                };
                match &counted {
                    Ok(_) => lent.give_back(),
                    Err(_) => lent.look_after(),
                }
                (Some(counted), strict)
            }
        };
        // Nothing of this plan is left to be read; for a second reading of a unit, one connection stays.
        for reader in self.pool.dismiss(|reader| reader.place.is_some()) {
            let_go(reader.session);
        }
        match counted {
            None => Ok(()),
            Some(Ok(counted)) if counted == read => Ok(()),
            Some(Ok(counted)) => Err(miscounted(&self.label, units, read, counted)),
            Some(Err(error)) if strict => Err(error.context(format!("verifying `{}`", self.label))),
            Some(Err(error)) => {
                tracing::warn!(%error, "the rows of `{}` could not be counted", self.label);
                Ok(())
            }
        }
    }
}

impl Taken {
    /// Opens the book on a plan of so many units. `count` counts its rows, and whether it must.
    pub(super) fn begin_plan(self, units: usize, count: Option<(String, bool)>) -> Arc<Snapshot> {
        let count = match count {
            Some((sql, strict)) => Count::Later { sql, strict, counter: self.counter.map(Box::new) },
            None => Count::Never,
        };
        *open(&self.snapshot.book) = Some(Book { tally: Arc::new(Tally::new(units)), count });
        self.snapshot
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some(Book { count: Count::Running { task, .. }, .. }) = open(&self.book).as_ref() {
            task.abort();
        }
        for reader in self.pool.dismiss(|_| true) {
            let_go(reader.session);
        }
    }
}

async fn open_readers(config: &MysqlConfig, readers: usize) -> Result<Vec<Reader>> {
    let places = (0..readers.max(1)).map_while(|index| match index {
        // Without it, two extracts could wait for each other's.
        0 => Some(None),
        _ => config.readers.place_now().map(Some),
    });
    let places: Vec<Option<OwnedSemaphorePermit>> = places.collect();
    try_join_all(
        places.into_iter().map(|place| async { Ok(Reader { session: Session::open_reader(config).await?, place }) }),
    )
    .await
}

/// Ends a session in good order without waiting for it.
fn let_go(session: Session) {
    // Closing takes a moment of somebody's time; without a runtime, dropping hangs up.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(session.close());
    }
}

async fn rows_of(session: &mut Session, sql: &str, config: &MysqlConfig) -> Result<u64> {
    let counted = session.value(sql).await.map_err(|error| server_error(&error, config, "cannot count the rows"))?;
    counted.and_then(|text| text.parse().ok()).ok_or_else(|| Error::internal("a number of rows that is no number"))
}
