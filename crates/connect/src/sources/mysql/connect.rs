//! Sessions: connecting, TLS, and what the server's refusals mean.

use super::config::MysqlConfig;
use super::names::{TableName, literal};
use super::wire::{Prepared, Wire};
use crate::sources::postgres::{SslMode, Tls, tls};
use gristmill_model::{Error, ErrorKind, Result, one_of};
use mysql_async::prelude::Queryable;
use mysql_async::{Column, Conn, DriverError, IoError, SslOpts, Value};
use std::io;
use std::time::Duration;

/// An error of the driver.
pub(crate) type Failure = mysql_async::Error;

/// How long the server may wait for a reader that is busy elsewhere, in seconds: a week. It would take a slow reader for
/// dead after a minute otherwise.
const PATIENCE: u32 = 604_800;

/// A row of texts.
pub(crate) type TextRow = Vec<Option<String>>;

/// One connection to a server. Dropping it hangs up at once, so that a reader that stops early does not make the server
/// send the rest of a table.
#[derive(Debug)]
pub(crate) struct Session {
    /// There until it is closed or dropped.
    link: Option<Link>,
    /// The server's number of it, for `KILL`.
    pub(crate) id: u32,
    pub(crate) is_mariadb: bool,
    /// Its version, as the server says it.
    pub(crate) version: String,
    /// How long an answer is waited for; none where what is asked for may take its time, as a commit may.
    patience: Option<Duration>,
}

/// What speaks the protocol: our own client for what reads units, the driver for everything else.
#[derive(Debug)]
enum Link {
    Driver(Box<Conn>),
    Wire(Box<Wire>),
}

impl Link {
    fn id(&self) -> u32 {
        match self {
            Self::Driver(conn) => conn.id(),
            Self::Wire(wire) => wire.id,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Ours closes the socket and that is that.
        let Some(Link::Driver(conn)) = self.link.take() else { return };
        // On its own, the driver would first read what is still to come. It cannot where there is no runtime, and closes
        // the socket instead.
        let hung_up = std::thread::Builder::new().name("gristmill-mysql".to_owned()).spawn(move || drop(conn));
        if let Err(error) = hung_up {
            tracing::debug!(%error, "no thread to hang up a MySQL connection");
        }
    }
}

impl Session {
    /// Connects, and sets what our sessions rely on: UTC, UTF-8, repeatable reads, patience.
    ///
    /// # Errors
    /// One clear error for each way in which it can fail; never with the password in it.
    pub(crate) async fn open(config: &MysqlConfig) -> Result<Self> {
        Self::over(Self::dial(config, config.database.as_deref()).await, config).await
    }

    /// The same for one that asks what is to be read: where the server stays silent for longer than `read_timeout`, the
    /// connection is taken for lost.
    ///
    /// # Errors
    /// The same.
    pub(super) async fn open_to_ask(config: &MysqlConfig) -> Result<Self> {
        let mut session = Self::open(config).await?;
        session.patience = Some(config.read_timeout);
        Ok(session)
    }

    /// The same for a connection that is to read units.
    ///
    /// # Errors
    /// The same.
    pub(super) async fn open_reader(config: &MysqlConfig) -> Result<Self> {
        let dial = async {
            let tls = match config.sslmode {
                SslMode::Disable => None,
                _ if config.socket.is_some() => None,
                mode => {
                    let wanted = Tls { mode, roots: config.sslrootcert.clone(), identity: None };
                    let tls = tls::client_config(&wanted).await;
                    Some(tls.map_err(|error| Failure::Other(Box::new(Misconfigured(error))))?)
                }
            };
            Ok(Link::Wire(Box::new(Wire::connect(config, tls, config.database.as_deref()).await?)))
        };
        Self::over(tokio::time::timeout(config.connect_timeout, dial).await.ok().transpose(), config).await
    }

    /// None when dialling took too long.
    async fn over(dialled: Result<Option<Link>, Failure>, config: &MysqlConfig) -> Result<Self> {
        let link = match dialled {
            Err(Failure::Server(refusal)) if refusal.code == 1049 => return Err(unknown_database(config).await),
            Err(error) => return Err(connect_error(&error, config)),
            Ok(None) => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("no answer from MySQL at `{}` within {:?}", config.place, config.connect_timeout),
                )
                .hint("check host and port, or raise `connect_timeout`"));
            }
            Ok(Some(link)) => link,
        };
        let mut session = Self::new(link, Some(config.connect_timeout));
        session.set_up(config).await.map_err(|error| server_error(&error, config, "cannot set up a session"))?;
        session.patience = None;
        Ok(session)
    }

    fn new(link: Link, patience: Option<Duration>) -> Self {
        Self { id: link.id(), link: Some(link), is_mariadb: false, version: String::new(), patience }
    }

    /// None when it takes too long.
    async fn dial(config: &MysqlConfig, database: Option<&str>) -> Result<Option<Link>, Failure> {
        let dial = async {
            let tls = driver_tls(config).await?;
            let can_do_without = config.sslmode == SslMode::Prefer;
            match Conn::new(config.opts(tls, database)).await {
                Err(Failure::Driver(DriverError::NoClientSslFlagFromServer)) if can_do_without => {
                    Conn::new(config.opts(None, database)).await
                }
                outcome => outcome,
            }
            .map(|conn| Link::Driver(Box::new(conn)))
        };
        tokio::time::timeout(config.connect_timeout, dial).await.ok().transpose()
    }

    async fn set_up(&mut self, config: &MysqlConfig) -> Result<(), Failure> {
        let version = self.value("SELECT VERSION()").await?.unwrap_or_default();
        self.is_mariadb = version.to_ascii_lowercase().contains("mariadb");
        self.version = version;
        let mut settings = format!(
            "SET NAMES utf8mb4, time_zone = '+00:00', autocommit = 1, \
             sql_select_limit = 18446744073709551615, sql_big_selects = 1, wait_timeout = {PATIENCE}, \
             net_write_timeout = {PATIENCE}, net_read_timeout = {PATIENCE}"
        );
        if self.is_mariadb {
            settings.push_str(", idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0");
        } else if !self.version.starts_with("5.") {
            settings.push_str(", information_schema_stats_expiry = 0");
        }
        if let Some(limit) = config.statement_timeout {
            settings.push_str(&match self.is_mariadb {
                true => format!(", max_statement_time = {}", limit.as_secs_f64()),
                false => format!(", max_execution_time = {}", limit.as_millis().max(1)),
            });
        }
        self.run(&settings).await?;
        self.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await
    }

    fn link(&mut self) -> Result<&mut Link, Failure> {
        self.link.as_mut().ok_or(Failure::Driver(DriverError::ConnectionClosed))
    }

    /// The driver's connection.
    ///
    /// # Errors
    /// Only after it was closed, or where it was opened as a reader.
    pub(crate) fn conn(&mut self) -> Result<&mut Conn, Failure> {
        match self.link()? {
            Link::Driver(conn) => Ok(conn),
            Link::Wire(_) => Err(Failure::Driver(DriverError::ConnectionClosed)),
        }
    }

    /// Our own connection.
    ///
    /// # Errors
    /// Only after it was closed, or where it was not opened as a reader.
    pub(super) fn wire(&mut self) -> Result<&mut Wire, Failure> {
        match self.link()? {
            Link::Wire(wire) => Ok(wire),
            Link::Driver(_) => Err(Failure::Driver(DriverError::ConnectionClosed)),
        }
    }

    /// Runs a statement; what it gives is dropped.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        match self.link()? {
            Link::Wire(wire) => wire.query(sql).await.map(|_| ()),
            Link::Driver(_) => heard(self.patience, self.conn()?.query_drop(sql)).await,
        }
    }

    /// The few rows of a question, each value as the server's text of it, and the names of their columns.
    async fn table(&mut self, sql: &str) -> Result<(Vec<String>, Vec<TextRow>), Failure> {
        if let Link::Wire(wire) = self.link()? {
            return wire.query(sql).await;
        }
        let rows: Vec<mysql_async::Row> = heard(self.patience, self.conn()?.query(sql)).await?;
        let names = rows.first().map(|row| row.columns_ref().iter().map(|column| column.name_str().into_owned()));
        let names = names.into_iter().flatten().collect();
        Ok((names, rows.into_iter().map(|row| row.unwrap().into_iter().map(text_of).collect()).collect()))
    }

    /// The few rows of a question, each value as the server's text of it.
    pub(crate) async fn ask(&mut self, sql: &str) -> Result<Vec<TextRow>, Failure> {
        Ok(self.table(sql).await?.1)
    }

    /// The rows of a question by the names of their columns, in lower case.
    pub(crate) async fn ask_named(
        &mut self,
        sql: &str,
    ) -> Result<Vec<std::collections::BTreeMap<String, Option<String>>>, Failure> {
        let (names, rows) = self.table(sql).await?;
        let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(rows.into_iter().map(|row| names.iter().cloned().zip(row).collect()).collect())
    }

    /// What the server says of a statement without running it: its columns, and how many parameters it has.
    pub(super) async fn describe(&mut self, sql: &str) -> Result<(Vec<Column>, u16), Failure> {
        let patience = self.patience;
        match self.link()? {
            Link::Driver(conn) => {
                let statement = heard(patience, conn.prep(sql)).await?;
                let said = (statement.columns().to_vec(), statement.num_params());
                conn.close(statement).await?;
                Ok(said)
            }
            Link::Wire(wire) => {
                let Prepared { id, columns, parameters } = wire.prepare(sql).await?;
                wire.forget(id).await?;
                Ok((columns, parameters))
            }
        }
    }

    /// The one value of a question.
    pub(crate) async fn value(&mut self, sql: &str) -> Result<Option<String>, Failure> {
        Ok(self.ask(sql).await?.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// Ends the session in good order: the server is told.
    pub(crate) async fn close(mut self) {
        let goodbye = async {
            match self.link.take() {
                Some(Link::Driver(conn)) => conn.disconnect().await,
                Some(Link::Wire(wire)) => wire.quit().await,
                None => Ok(()),
            }
        };
        // A server that does not hear is hung up on by the drop.
        let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }
}

/// Waits for an answer of the driver for as long as there is patience. The connection is of no use after that.
async fn heard<T>(patience: Option<Duration>, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match patience {
        None => answer.await,
        Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(silence(limit))),
    }
}

/// The error for a server that sends nothing: a server that was stopped keeps its connections, and never answers.
pub(super) fn silence(limit: Duration) -> Failure {
    let words = format!("the server sent nothing for {limit:?}");
    Failure::Io(IoError::Io(io::Error::new(io::ErrorKind::TimedOut, words)))
}

/// Whether the server was silent for too long.
fn is_silence(error: &IoError) -> bool {
    // Those of the system have nothing within.
    matches!(error, IoError::Io(error) if error.kind() == io::ErrorKind::TimedOut && error.get_ref().is_some())
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
        other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}

/// What the driver needs for TLS; none where none is to be spoken.
async fn driver_tls(config: &MysqlConfig) -> Result<Option<SslOpts>, Failure> {
    if config.sslmode == SslMode::Disable || config.socket.is_some() {
        return Ok(None);
    }
    // The driver takes the process's; where something else has chosen one, that serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = SslOpts::default();
    if config.sslmode != SslMode::VerifyFull {
        // They encrypt without asking who is there (libpq does the same).
        return Ok(Some(options.with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)));
    }
    match &config.sslrootcert {
        None => Ok(Some(options)),
        Some(path) => {
            tls::certificates(path).await.map_err(|error| Failure::Other(Box::new(Misconfigured(error))))?;
            Ok(Some(options.with_disable_built_in_roots(true).with_root_certs(vec![path.clone().into()])))
        }
    }
}

/// An error of ours on its way through the driver's type.
#[derive(Debug)]
struct Misconfigured(Error);

impl std::fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Misconfigured {}

async fn unknown_database(config: &MysqlConfig) -> Error {
    let name = config.database.as_deref().unwrap_or_default();
    let error = Error::new(ErrorKind::NotFound, format!("the database `{name}` does not exist at `{}`", config.place));
    let Ok(Some(link)) = Session::dial(config, None).await else { return error };
    let mut session = Session::new(link, Some(config.connect_timeout));
    let Ok(rows) = session.ask("SHOW DATABASES").await else { return error };
    let names: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    session.close().await;
    error.hint(one_of(name, names.iter().map(String::as_str)))
}

/// Why connecting failed.
fn connect_error(error: &Failure, config: &MysqlConfig) -> Error {
    let place = &config.place;
    match error {
        Failure::Other(ours) if ours.is::<Misconfigured>() => {
            ours.downcast_ref::<Misconfigured>().map_or_else(|| Error::internal("no TLS"), |ours| ours.0.clone())
        }
        Failure::Server(refusal) => match refusal.code {
            1045 | 1698 => {
                Error::new(ErrorKind::Denied, format!("MySQL at `{place}` refused the password of `{}`", config.user))
                    .cause(words(refusal))
                    .hint("check `user` and `password` of the connection")
            }
            1130 => Error::new(ErrorKind::Denied, format!("MySQL at `{place}` takes no connection from this machine"))
                .cause(words(refusal)),
            1044 => Error::new(ErrorKind::Denied, format!("`{}` may not use the database of `{place}`", config.user))
                .cause(words(refusal))
                .hint("check `database` of the connection, or let an administrator grant it"),
            _ => server_error(error, config, &format!("cannot connect to MySQL at `{place}`")),
        },
        Failure::Driver(DriverError::NoClientSslFlagFromServer) => {
            Error::new(ErrorKind::Denied, format!("no secure connection to MySQL at `{place}`"))
                .cause("the server does not support TLS")
                .hint("use `sslmode: prefer` or `disable`, or switch TLS on at the server")
        }
        Failure::Io(IoError::Tls(cause)) => untrusted(place, cause),
        // The handshake's own errors come as those of the socket.
        Failure::Io(IoError::Io(cause)) if cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            untrusted(place, cause)
        }
        Failure::Io(cause) => Error::new(ErrorKind::Unavailable, format!("cannot reach MySQL at `{place}`"))
            .cause(cause)
            .hint("check that the server runs, and `host` and `port` of the connection"),
        Failure::Driver(DriverError::UnknownAuthPlugin { name }) => {
            Error::new(ErrorKind::Denied, format!("MySQL at `{place}` and we cannot agree how to log in"))
                .cause(format!("the server asks for `{name}`"))
                .hint("give the user a password of `mysql_native_password` or `caching_sha2_password`")
        }
        other => Error::new(ErrorKind::Unavailable, format!("cannot connect to MySQL at `{place}`")).cause(other),
    }
}

fn untrusted(place: &str, cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Denied, format!("no secure connection to MySQL at `{place}`")).cause(cause).hint(
        "name the authority's certificate as `sslrootcert`, or use `sslmode: require` to encrypt without checking",
    )
}

fn words(refusal: &mysql_async::ServerError) -> String {
    format!("{} [{}]", refusal.message, refusal.code)
}

/// What an error of the server means, said as `doing`: what we could not do.
pub(crate) fn server_error(error: &Failure, config: &MysqlConfig, doing: &str) -> Error {
    let refusal = match error {
        Failure::Server(refusal) => refusal,
        Failure::Io(cause) if is_silence(cause) => {
            return lost(config, doing, cause)
                .hint("see what the server does; where it takes its time, raise `read_timeout`");
        }
        Failure::Io(cause) => return lost(config, doing, cause),
        Failure::Driver(cause @ (DriverError::ConnectionClosed | DriverError::PacketOutOfOrder)) => {
            return lost(config, doing, cause);
        }
        Failure::Driver(DriverError::MixedParams | DriverError::StmtParamsMismatch { .. }) => {
            return Error::new(ErrorKind::Query, doing)
                .cause("it has parameters, which nothing fills in")
                .hint("write values into the SQL; `{{ ds }}` and the like are filled in before the server sees it");
        }
        other => return Error::internal(format!("{doing}: MySQL was not understood")).cause(other),
    };
    let (kind, retryable, hint): (ErrorKind, bool, Option<&str>) = match refusal.code {
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1410 => {
            (ErrorKind::Denied, false, Some("let an administrator grant what is missing"))
        }
        1049 | 1146 | 1051 => (ErrorKind::NotFound, false, None),
        1054 | 1060 | 1356 | 1166 => (ErrorKind::Schema, false, None),
        // Lock wait timeout, deadlock, a table that was altered since the transaction began.
        1205 | 1213 | 1412 => (ErrorKind::Conflict, true, None),
        1969 | 3024 => (ErrorKind::Timeout, true, Some("raise `statement_timeout` of the connection")),
        1317 => (ErrorKind::Canceled, false, None),
        1040 | 1203 | 1226 => (ErrorKind::Unavailable, true, Some("the server has no connection to spare; run again")),
        // Shutdown, killed, network trouble as the server sees it, gone, the server's own patience.
        1053 | 1927 | 1158..=1161 | 2006 | 2013 | 4031 | 1080 | 1152 | 1184 => (ErrorKind::Unavailable, true, None),
        1021 | 1114 | 1030 => (ErrorKind::Storage, false, Some("free some space on the server's disk, then run again")),
        1037 | 1038 | 1041 | 1135 => (ErrorKind::Memory, true, None),
        1690 | 1264 | 1292 | 1366 | 1365 | 1411 | 1406 => (ErrorKind::Data, false, None),
        _ => (ErrorKind::Query, false, None),
    };
    Error::new(kind, doing).cause(words(refusal)).retryable(retryable).maybe_hint(hint.map(str::to_owned))
}

fn lost(config: &MysqlConfig, doing: &str, cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{doing}: the connection to `{}` was lost", config.place)).cause(cause)
}

/// Whether the connection is gone with the error.
pub(crate) fn is_lost(error: &Failure) -> bool {
    match error {
        Failure::Server(refusal) => matches!(refusal.code, 1053 | 1927 | 1158..=1161 | 2006 | 2013 | 4031),
        _ => true,
    }
}

/// The error for a table that is not there, with the one that was meant.
pub(crate) async fn unknown_table(session: &mut Session, table: &TableName) -> Error {
    let error = Error::new(ErrorKind::NotFound, format!("the table `{table}` does not exist"));
    let database = table.database.as_deref().map_or_else(|| "DATABASE()".to_owned(), literal);
    let sql = format!(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = {database} ORDER BY 1 LIMIT 1000"
    );
    let Ok(rows) = session.ask(&sql).await else { return error };
    let names: Vec<String> = rows
        .into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .map(|name| match &table.database {
            Some(database) => format!("{database}.{name}"),
            None => name,
        })
        .collect();
    if names.is_empty() && table.database.is_none() {
        return error.hint("name the `database` of the connection, or write `database.table`");
    }
    error.hint(one_of(&table.to_string(), names.iter().map(String::as_str)))
}
