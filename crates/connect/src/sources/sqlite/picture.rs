//! One picture of a database file for several connections.
//!
//! A read transaction of SQLite sees what was committed when its first statement began. Whether several of them see the
//! same is proven, not hoped: another connection asks for `PRAGMA data_version` before the first of them begins and after
//! the last has begun. The number changes with every commit of anybody else's, in WAL mode and without. Where it did not
//! change, nothing lies between them; where it did, they begin again, and after a few times one connection has to do.

use super::Wanted;
use super::database::Database;
use super::units::{label, look};
use crate::picture::{self, Pool, Register, Tally};
use crate::units::miscounted;
use crate::units::share::Slice;
use gristmill_model::{Error, Result};
use rusqlite::Connection;
use std::sync::Arc;

/// How often the readers begin again.
const ATTEMPTS: usize = 10;

/// The pictures of this process: a unit that another opening of the source reads finds its readers here.
pub(super) static PICTURES: Register<Picture> = Register::new();

/// Connections within read transactions that see the same.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) id: String,
    pub(super) pool: Pool<Connection>,
    place: String,
    tally: Tally,
    /// Whether the rows that were read are compared with those that are there.
    counted: bool,
}

impl Picture {
    /// A picture of a plan of so many units.
    pub(super) fn of(database: &Database, readers: Vec<Connection>, units: usize, counted: bool) -> Arc<Self> {
        let picture = Arc::new(Self {
            id: uuid::Uuid::new_v4().to_string(),
            pool: Pool::new(readers),
            place: database.shown.clone(),
            tally: Tally::new(units),
            counted,
        });
        PICTURES.add(&picture.id, &picture);
        picture
    }

    /// The error for a unit that no connection can read any more.
    pub(super) fn lost(&self) -> Error {
        picture::lost(&self.place).retryable(false)
    }

    /// A unit has been read to its end. When it was the last of its plan, the rows are reconciled.
    ///
    /// # Errors
    /// Another number of rows than there are in the same picture.
    pub(super) fn end_unit(&self, wanted: &Wanted, connection: &Connection, ordinal: u32, rows: u64) -> Result<()> {
        let Some(read) = self.tally.end(ordinal, rows).filter(|_| self.counted) else { return Ok(()) };
        let sql = look(wanted, connection)?.select_list("count(*)", &Slice::Whole);
        let counted: i64 = connection
            .query_row(&sql, [], |row| row.get(0))
            .map_err(|error| wanted.database.explain(error).context("counting the rows"))?;
        if u64::try_from(counted) == Ok(read) {
            return Ok(());
        }
        Err(miscounted(&label(wanted), self.tally.units(), read, u64::try_from(counted).unwrap_or(0)))
    }
}

/// A reader that is lent to a unit; it goes back when dropped.
#[derive(Debug)]
pub(super) struct Lent {
    picture: Arc<Picture>,
    /// There until it is dropped.
    connection: Option<Connection>,
}

impl Lent {
    /// Waits for a reader.
    ///
    /// # Errors
    /// None is left.
    pub(super) async fn of(picture: &Arc<Picture>) -> Result<Self> {
        let connection = picture.pool.take().await.ok_or_else(|| picture.lost())?;
        Ok(Self { picture: picture.clone(), connection: Some(connection) })
    }

    pub(super) fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or_else(|| Error::internal("a connection that was given back"))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        connection.progress_handler(0, None::<fn() -> bool>);
        // Some errors end the transaction, and then it sees something else.
        if connection.is_autocommit() || std::thread::panicking() {
            self.picture.pool.lose();
        } else {
            self.picture.pool.give_back(connection);
        }
    }
}

/// Up to `readers` connections whose read transactions see the same; one alone, and why, where that cannot be had.
///
/// # Errors
/// A file that cannot be opened or read.
pub(super) fn share(database: &Database, readers: usize) -> Result<(Vec<Connection>, Option<String>)> {
    let explain = |error| database.explain(error);
    let witness = database.open_to_read()?;
    let mut connections = (0..readers.max(1)).map(|_| database.open_to_read()).collect::<Result<Vec<Connection>>>()?;
    for _ in 0..ATTEMPTS {
        let before = commits(&witness).map_err(explain)?;
        for connection in &connections {
            begin(connection).map_err(explain)?;
        }
        if connections.len() == 1 || commits(&witness).map_err(explain)? == before {
            return Ok((connections, None));
        }
        for connection in &connections {
            connection.execute_batch("ROLLBACK").map_err(explain)?;
        }
    }
    connections.truncate(1);
    for connection in &connections {
        begin(connection).map_err(explain)?;
    }
    Ok((connections, Some("another program writes so often that no two connections begin with the same".to_owned())))
}

/// Begins a read transaction, and reads something, which fixes what it sees.
fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))
}

/// A number that changes with every commit of others.
fn commits(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}
