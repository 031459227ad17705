//! Opening a database file, asking it what it holds, and saying clearly what it refuses. Shared by source and sink.

use gristmill_model::{Error, ErrorKind, Result, one_of};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The sink's ledger; never listed as something to extract.
pub(crate) const LEDGER: &str = "_gristmill_loads";

/// How long to wait for another program's transaction. A commit of a big load may hold the file for a good while; a
/// reader waits only where the database is not in WAL mode.
const BUSY: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });

/// A database file of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Database {
    /// The file.
    pub(crate) path: PathBuf,
    /// The file as the project names it.
    pub(crate) shown: String,
}

impl Database {
    /// Opens an existing file for reading only.
    pub(crate) fn open_to_read(&self) -> Result<Connection> {
        self.must_be_a_file()?;
        self.open(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// Opens the file for writing, if it is there.
    pub(crate) fn open_to_write(&self) -> Result<Connection> {
        self.must_be_a_file()?;
        self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// Opens the file for writing, and makes it, and its folder, if it is not there.
    pub(crate) fn open_or_create(&self) -> Result<Connection> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| Error::io(&error, format!("the folder `{}`", folder.display())))?;
        }
        self.open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
    }

    /// Whether the file is there.
    pub(crate) fn exists(&self) -> bool {
        self.path.is_file()
    }

    fn open(&self, mode: OpenFlags) -> Result<Connection> {
        let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(|error| self.explain(error))?;
        let set_up = || -> rusqlite::Result<()> {
            connection.busy_timeout(BUSY)?;
            // A misspelt "column" is an error, not a text.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
            // The file is read here, so that what is no database is found out before anything else is said.
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))
        };
        set_up().map_err(|error| self.explain(error))?;
        Ok(connection)
    }

    fn must_be_a_file(&self) -> Result<()> {
        if self.path.is_dir() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("`{}` is a folder, not a SQLite database", self.shown),
            )
            .hint("name the database file in the connection's `path`"));
        }
        if !self.path.exists() {
            return Err(Error::new(ErrorKind::NotFound, format!("the database `{}` does not exist", self.shown))
                .hint(format!("check the connection's `path`; it is looked for at `{}`", self.path.display())));
        }
        Ok(())
    }

    pub(crate) fn must_have_a_folder(&self) -> Result<()> {
        if self.path.is_dir() {
            return self.must_be_a_file();
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        if folder.as_os_str().is_empty() || folder.is_dir() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("the folder of the database `{}` does not exist", self.shown))
            .hint(format!("mkdir -p '{}'", folder.display())))
    }

    /// An error of SQLite in our words.
    pub(crate) fn explain(&self, error: rusqlite::Error) -> Error {
        let shown = &self.shown;
        let (code, message) = match &error {
            rusqlite::Error::SqliteFailure(code, message) => (*code, message.clone()),
            rusqlite::Error::SqlInputError { error, msg, .. } => (*error, Some(msg.clone())),
            rusqlite::Error::MultipleStatement => {
                return Error::new(ErrorKind::Query, "the query has more than one statement")
                    .hint("write one `select` statement");
            }
            other => return Error::internal(format!("the database `{shown}` cannot be used")).cause(other),
        };
        let words = message.unwrap_or_else(|| error.to_string());
        let make = |kind, message: String| Error::new(kind, message).cause(&words);
        match code.code {
            ErrorCode::NotADatabase => Error::new(ErrorKind::Data, format!("`{shown}` is not a SQLite database"))
                .hint("check the connection's `path`; an encrypted database looks the same and cannot be read"),
            ErrorCode::DatabaseCorrupt => make(ErrorKind::Data, format!("the database `{shown}` is damaged"))
                .hint(format!("sqlite3 '{}' .recover", self.path.display())),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                make(ErrorKind::Unavailable, format!("the database `{shown}` is locked by another program"))
                    .hint("wait for the other program to end its transaction, then run again")
            }
            ErrorCode::DiskFull => make(ErrorKind::Storage, format!("no room for the database `{shown}`"))
                .hint("free some space, then run again"),
            ErrorCode::ReadOnly => make(ErrorKind::Denied, format!("the database `{shown}` is read-only"))
                .hint(format!("check the owner and mode of `{}` and of its folder", self.path.display())),
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
                make(ErrorKind::Denied, format!("the database `{shown}` cannot be opened"))
                    .hint(format!("check the owner and mode of `{}` and of its folder", self.path.display()))
            }
            ErrorCode::SystemIoFailure => make(ErrorKind::Storage, format!("the database `{shown}` cannot be used")),
            ErrorCode::OutOfMemory => make(ErrorKind::Memory, "SQLite has no memory left".to_owned()),
            ErrorCode::OperationInterrupted => make(ErrorKind::Canceled, "the statement was stopped".to_owned()),
            ErrorCode::ConstraintViolation => {
                make(ErrorKind::Data, format!("a row breaks a constraint of the database `{shown}`"))
            }
            ErrorCode::SchemaChanged => {
                make(ErrorKind::Conflict, format!("the tables of `{shown}` have just changed")).retryable(true)
            }
            _ => make(ErrorKind::Query, format!("the database `{shown}` refused a statement")),
        }
    }

    /// An error of a statement the user wrote (part of): names that do not exist get the nearest that do.
    pub(crate) fn explain_sql(&self, connection: &Connection, error: rusqlite::Error, columns: &[String]) -> Error {
        let words = match &error {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            _ => String::new(),
        };
        if let Some(name) = words.strip_prefix("no such table: ") {
            let name = name.strip_prefix("main.").unwrap_or(name);
            return self.no_such_table(connection, name);
        }
        if let Some(name) = words.strip_prefix("no such column: ") {
            let name = name.split(" - ").next().unwrap_or(name).trim_matches('"');
            let short = name.rsplit('.').next().unwrap_or(name);
            let error = Error::new(ErrorKind::Schema, format!("column `{name}` does not exist"));
            return if columns.is_empty() {
                error
            } else {
                error.hint(one_of(short, columns.iter().map(String::as_str)))
            };
        }
        self.explain(error)
    }

    /// An unknown table, with the one that may be meant.
    pub(crate) fn no_such_table(&self, connection: &Connection, name: &str) -> Error {
        let tables = list_tables(connection).unwrap_or_default();
        Error::new(ErrorKind::NotFound, format!("table `{name}` does not exist in `{}`", self.shown))
            .hint(one_of(name, tables.iter().map(|table| table.name.as_str())))
    }
}

/// A name as SQL text.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names as a list in SQL.
pub(crate) fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// A table or view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is a view.
    pub(crate) view: bool,
}

/// Tables and views, without SQLite's own and the ledger.
pub(crate) fn list_tables(connection: &Connection) -> rusqlite::Result<Vec<Listed>> {
    let mut statement = connection.prepare(
        "SELECT name, type = 'view' FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' \
         ESCAPE '\\' AND name <> ?1 ORDER BY name",
    )?;
    let rows = statement.query_map([LEDGER], |row| Ok(Listed { name: row.get(0)?, view: row.get(1)? }))?;
    rows.collect()
}

/// A database up to this size is looked through for the sizes of its tables: it has to be read for that.
const MEASURED: u64 = 1 << 30;

/// The bytes of each table, its indexes not among them, where that can be told at little cost.
pub(crate) fn sizes(database: &Database, connection: &Connection) -> BTreeMap<String, u64> {
    if std::fs::metadata(&database.path).map_or(true, |file| file.len() > MEASURED) {
        return BTreeMap::new();
    }
    let ask = || {
        let mut statement =
            connection.prepare("SELECT name, sum(pgsize) FROM dbstat WHERE aggregate = TRUE GROUP BY name")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
        rows.collect::<rusqlite::Result<Vec<(String, i64)>>>()
    };
    // Sizes are nice to have; a library that cannot tell them is no reason to show nothing.
    let rows = ask().unwrap_or_default();
    rows.into_iter().filter_map(|(name, bytes)| Some((name, u64::try_from(bytes).ok()?))).collect()
}

/// A table or view and its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// Its name, as the database has it.
    pub(crate) name: String,
    /// Whether it is a view.
    pub(crate) view: bool,
    /// The name under which its row id can be asked for, if it has one.
    pub(crate) rowid: Option<&'static str>,
    /// Its columns in order.
    pub(crate) columns: Vec<Column>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// Its declared type, empty where there is none.
    pub(crate) declared: String,
    /// Whether it refuses NULL and has no default, so that an insert must name it.
    pub(crate) required: bool,
    /// Position in the primary key from 1; 0 when it is not part of it.
    pub(crate) key: i64,
    /// Whether the database computes it.
    pub(crate) generated: bool,
}

impl Table {
    /// Looks a table up by name; case matters only where two names differ by nothing else. `None`: not there.
    pub(crate) fn look_up(connection: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let find = |name: &str| {
            connection
                .query_row(
                    "SELECT name, type = 'view' FROM sqlite_master WHERE type IN ('table', 'view') \
                     AND name = ?1 COLLATE NOCASE ORDER BY name = ?1 DESC LIMIT 1",
                    [name],
                    |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)),
                )
                .optional()
        };
        let found = match find(name)? {
            Some(found) => Some(found),
            None => match name.split_once('.') {
                Some((schema, rest)) if schema.eq_ignore_ascii_case("main") => find(rest)?,
                _ => None,
            },
        };
        let Some((name, view)) = found else { return Ok(None) };
        let mut statement = connection.prepare(
            "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden FROM pragma_table_xinfo(?1) WHERE hidden <> 1",
        )?;
        let columns: Vec<Column> = statement
            .query_map([&name], |row| {
                let (not_null, default): (bool, bool) = (row.get(2)?, row.get(3)?);
                let hidden: i64 = row.get(5)?;
                Ok(Column {
                    name: row.get(0)?,
                    declared: row.get(1)?,
                    required: not_null && !default,
                    key: row.get(4)?,
                    generated: hidden >= 2,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let rowid = if view { None } else { rowid_name(connection, &name, &columns) };
        Ok(Some(Self { name, view, rowid, columns }))
    }

    /// The names of the columns.
    pub(crate) fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// The columns of the primary key, in its order.
    pub(crate) fn key(&self) -> Vec<String> {
        let mut key: Vec<&Column> = self.columns.iter().filter(|column| column.key > 0).collect();
        key.sort_by_key(|column| column.key);
        key.into_iter().map(|column| column.name.clone()).collect()
    }

    /// About how many rows: SQLite's own statistics where somebody ran `ANALYZE`, else the largest row id (rows that
    /// were deleted count too). `None` for views and tables without row ids.
    pub(crate) fn estimated_rows(&self, connection: &Connection) -> Option<u64> {
        let analyzed: Option<String> = connection
            .query_row("SELECT stat FROM sqlite_stat1 WHERE tbl = ?1 LIMIT 1", [&self.name], |row| row.get(0))
            .ok();
        let analyzed = analyzed.and_then(|stat| stat.split(' ').next().and_then(|rows| rows.parse().ok()));
        analyzed.or_else(|| {
            let sql = format!("SELECT max({}) FROM {}", self.rowid?, quoted(&self.name));
            let largest: Option<i64> = connection.query_row(&sql, [], |row| row.get(0)).ok()?;
            u64::try_from(largest.unwrap_or(0)).ok()
        })
    }
}

/// One of SQLite's names for the row id that no column has taken; `None` for `WITHOUT ROWID` and virtual tables.
fn rowid_name(connection: &Connection, table: &str, columns: &[Column]) -> Option<&'static str> {
    let free = |name: &&&str| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let name = ["rowid", "_rowid_", "oid"].iter().find(free).copied()?;
    connection.prepare(&format!("SELECT {name} FROM {} LIMIT 0", quoted(table))).is_ok().then_some(name)
}
