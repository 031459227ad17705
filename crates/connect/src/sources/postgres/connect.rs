//! Sessions: connecting, TLS, and what the server's refusals mean.

use super::config::PostgresConfig;
use super::libpq::{Found, look_up};
use super::names::{literal, quoted};
use super::tls::client_config;
use futures::FutureExt;
use gristmill_model::{Error, ErrorKind, Result, one_of};
use std::error::Error as _;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, CopyOutStream, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What every session of ours relies on: one time zone, one way to write values as text.
const SETTINGS: &str = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601'; \
                        SET extra_float_digits = 3; SET bytea_output = 'hex'; SET standard_conforming_strings = on; \
                        SET client_min_messages = warning";

/// How long a reader of a shared snapshot waits for a lock. Its table is locked by the snapshot's holder already, so that
/// only somebody who waits in between can keep it out, for longer than anybody should wait.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(3);

/// What a statement's parameters are filled with.
type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// One connection to a server. Dropping it hangs up at once, so that a reader that stops early does not make the server
/// send the rest of a table.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    line: Line,
    /// How long an answer is waited for; none where what is asked for may take its time, as a commit may.
    patience: Option<Duration>,
}

/// The task that talks to the server; gone when dropped.
#[derive(Debug)]
struct Line {
    task: JoinHandle<()>,
    /// Why it ended: the server's SQLSTATE, if there was one, and the words.
    ended: Arc<OnceLock<(Option<SqlState>, String)>>,
    /// For how long the server was silent, where that is why we ended it.
    silent: OnceLock<Duration>,
}

impl std::ops::Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets a transaction wait for as long as its rows take, in this session or `local` to the transaction. Servers before 17 do not
/// know one of the two settings.
pub(crate) fn without_time_limits(local: bool) -> String {
    format!(
        "SELECT set_config(name, '0', {local}) FROM pg_catalog.pg_settings WHERE setting <> '0' \
         AND name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')"
    )
}

impl Session {
    /// Connects, and sets what our sessions rely on.
    ///
    /// # Errors
    /// One clear error for each way in which it can fail; never with the password in it.
    pub(crate) async fn open(config: &PostgresConfig) -> Result<Self> {
        let mut session = Self::open_to(config, &config.server).await?;
        session.patience = Some(config.connect_timeout);
        let mut settings = SETTINGS.to_owned();
        if let Some(schema) = &config.schema {
            settings.push_str("; SET search_path = ");
            settings.push_str(&quoted(schema));
            settings.push_str(", public");
        }
        session
            .batch_execute(&settings)
            .await
            .map_err(|error| session.told(server_error(&error, config, "cannot set up a session")))?;
        session.patience = None;
        Ok(session)
    }

    /// The same for a session that reads: where the server stays silent for longer than `read_timeout`, the connection is
    /// taken for lost.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn open_to_read(config: &PostgresConfig) -> Result<Self> {
        Ok(Self { patience: Some(config.read_timeout), ..Self::open(config).await? })
    }

    /// Waits for something of the server for as long as the session has patience. Then it hangs up, so that whoever waits
    /// is told that the connection is closed: a server that was stopped keeps its connections, and never answers.
    pub(crate) async fn heard<T>(&self, answer: impl Future<Output = T>) -> T {
        let Some(patience) = self.patience else { return answer.await };
        let mut answer = pin!(answer);
        // Most rows are here already: a timer for each would take longer than the row.
        if let Some(answer) = (&mut answer).now_or_never() {
            return answer;
        }
        if let Ok(answer) = tokio::time::timeout(patience, &mut answer).await {
            return answer;
        }
        let _ = self.line.ended.set((None, format!("the server sent nothing for {patience:?}")));
        let _ = self.line.silent.set(patience);
        self.line.task.abort();
        answer.await
    }

    /// The error of a session, with the silence that ended it where that was it.
    pub(crate) fn told(&self, error: Error) -> Error {
        match self.line.silent.get() {
            Some(limit) => error
                .cause(format!("the server sent nothing for {limit:?}"))
                .hint("see what the server does; where it takes its time, raise `read_timeout`"),
            None => error,
        }
    }

    /// As the driver's, for as long as the session has patience.
    pub(crate) async fn query(&self, sql: &str, values: Values<'_>) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.heard(self.client.query(sql, values)).await
    }

    /// As the driver's, for as long as the session has patience.
    pub(crate) async fn query_one(&self, sql: &str, values: Values<'_>) -> Result<Row, tokio_postgres::Error> {
        self.heard(self.client.query_one(sql, values)).await
    }

    /// As the driver's, for as long as the session has patience.
    pub(crate) async fn query_opt(&self, sql: &str, values: Values<'_>) -> Result<Option<Row>, tokio_postgres::Error> {
        self.heard(self.client.query_opt(sql, values)).await
    }

    /// As the driver's, for as long as the session has patience.
    pub(crate) async fn prepare(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        self.heard(self.client.prepare(sql)).await
    }

    /// As the driver's, for as long as the session has patience.
    pub(crate) async fn batch_execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.heard(self.client.batch_execute(sql)).await
    }

    /// As the driver's, for as long as the session has patience.
    pub(crate) async fn copy_out(&self, sql: &str) -> Result<CopyOutStream, tokio_postgres::Error> {
        self.heard(self.client.copy_out(sql)).await
    }

    async fn open_to(config: &PostgresConfig, server: &Config) -> Result<Self> {
        let mut server = server.clone();
        let mut hint = None;
        if let Some(path) = config.passfile.as_ref().filter(|_| server.get_password().is_none()) {
            match look_up(path, &server).await? {
                Found::Password(password) => {
                    server.password(password);
                    hint = Some(format!("the password is from `{}`", path.display()));
                }
                Found::Ignored(why) => {
                    tracing::warn!("{why}");
                    hint = Some(why);
                }
                Found::Nothing => {}
            }
        }
        // As libpq has it: the time of one host, so that one that is silent leaves the next its own.
        let hosts = u32::try_from(server.get_hosts().len()).unwrap_or(u32::MAX).max(1);
        let patience = config.connect_timeout.saturating_mul(hosts);
        match tokio::time::timeout(patience, Self::dial(config, &server)).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) if error.kind() == ErrorKind::Denied => Err(error.maybe_hint(hint)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("no answer from PostgreSQL at `{}` within {:?}", config.place, config.connect_timeout),
            )
            .hint("check host and port, or raise `connect_timeout`")),
        }
    }

    async fn dial(config: &PostgresConfig, server: &Config) -> Result<Self> {
        let tls = client_config(&config.tls).await?;
        match server.connect(MakeRustlsConnect::new(tls)).await {
            Ok((client, connection)) => {
                let ended = Arc::new(OnceLock::new());
                let reason = ended.clone();
                let task = tokio::spawn(async move {
                    // Whoever waits for an answer is told by the client; whoever comes later asks `ended`.
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a PostgreSQL connection ended");
                        let _ = reason.set((error.code().cloned(), error.to_string()));
                    }
                });
                Ok(Self { client, line: Line { task, ended, silent: OnceLock::new() }, patience: None })
            }
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_DATABASE) => {
                Err(unknown_database(config, server).await)
            }
            Err(error) => Err(connect_error(&error, config)),
        }
    }

    /// Begins a transaction that only reads one picture of the database: that of `snapshot`, or its own. It may be idle
    /// for as long as its reader has to wait, so the server is asked not to end it for that.
    pub(crate) async fn begin_to_read(
        &self,
        config: &PostgresConfig,
        snapshot: Option<&str>,
    ) -> Result<(), tokio_postgres::Error> {
        let mut settings = without_time_limits(false);
        if let Some(limit) = config.statement_timeout {
            // Nothing would be no limit.
            settings.push_str(&format!("; SET statement_timeout = '{}ms'", limit.as_millis().max(1)));
        }
        let mut begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned();
        if let Some(id) = snapshot {
            // Pages are read in their order, so that a reader that was cut off can go on where it was.
            settings.push_str("; SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off");
            // Whoever wants to change the table waits for the snapshot's holder, and a new reader waits behind them: it would
            // wait until the last unit is read, which is itself. (pg_dump's workers lock with NOWAIT for the same reason.)
            settings.push_str(&format!("; SET lock_timeout = '{}s'", LOCK_WAIT.as_secs()));
            begin.push_str(&format!("; SET TRANSACTION SNAPSHOT {}", literal(id)));
        }
        // Two messages, sent one after the other without waiting: in one, they would be one transaction.
        futures::try_join!(self.batch_execute(&settings), self.batch_execute(&begin)).map(|_| ())
    }

    /// Why the server ended the session, if it did and said so.
    pub(crate) fn ended(&self) -> Option<&(Option<SqlState>, String)> {
        self.line.ended.get()
    }

    /// Ends the session in good order without waiting for it.
    pub(crate) fn let_go(self) {
        // Closing takes a moment of somebody's time; without a runtime, dropping hangs up.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.close());
        }
    }

    /// Ends the session in good order: the server is told.
    pub(crate) async fn close(self) {
        let Self { client, mut line, .. } = self;
        drop(client);
        // A server that does not hear is hung up on by the drop.
        let _ = tokio::time::timeout(Duration::from_secs(2), &mut line.task).await;
    }
}

async fn unknown_database(config: &PostgresConfig, server: &Config) -> Error {
    let mut other = server.clone();
    other.dbname("postgres");
    let error = Error::new(
        ErrorKind::NotFound,
        format!("the database `{}` does not exist at `{}`", config.database, config.place),
    );
    let Ok(tls) = client_config(&config.tls).await else { return error };
    let names = async {
        let (client, connection) = other.connect(MakeRustlsConnect::new(tls)).await.ok()?;
        let task = tokio::spawn(connection);
        let rows = client.query("SELECT datname::text FROM pg_database WHERE datallowconn", &[]).await.ok();
        task.abort();
        rows?.iter().map(|row| row.try_get::<_, String>(0).ok()).collect::<Option<Vec<_>>>()
    };
    match names.await {
        Some(names) => error.hint(one_of(&config.database, names.iter().map(String::as_str))),
        None => error,
    }
}

/// Why connecting failed.
fn connect_error(error: &tokio_postgres::Error, config: &PostgresConfig) -> Error {
    let place = &config.place;
    if let Some(refusal) = error.as_db_error() {
        let code = refusal.code();
        return if *code == SqlState::INVALID_PASSWORD {
            Error::new(ErrorKind::Denied, format!("PostgreSQL at `{place}` refused the password of `{}`", config.user))
                .hint("check `user` and `password` of the connection")
        } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
            Error::new(ErrorKind::Denied, format!("PostgreSQL at `{place}` refused `{}`", config.user))
                .cause(refusal.message())
                .hint("check `user`, `sslmode` and `sslcert` of the connection, and pg_hba.conf of the server")
        } else {
            server_error(error, config, &format!("cannot connect to PostgreSQL at `{place}`"))
        };
    }
    let cause = cause_of(error);
    let text = error.to_string();
    if text.starts_with("error performing TLS") {
        let hint = if cause.contains("does not support TLS") {
            "use `sslmode: prefer` or `disable`, or switch TLS on at the server"
        } else {
            "name the authority's certificate as `sslrootcert`, or use `sslmode: require` to encrypt without checking"
        };
        return Error::new(ErrorKind::Denied, format!("no secure connection to PostgreSQL at `{place}`"))
            .cause(cause)
            .hint(hint);
    }
    if text == "invalid configuration" {
        let error = Error::new(ErrorKind::Denied, format!("cannot log in to PostgreSQL at `{place}`"));
        // The driver's own words here are about a missing password, never the password.
        return error.cause(cause).hint("give the connection a `password`");
    }
    if text == "authentication error" {
        let hint = cause.contains("channel binding").then(|| {
            "the server must ask for SCRAM through TLS; or use `channel_binding: prefer`, which does without".to_owned()
        });
        return Error::new(ErrorKind::Denied, format!("PostgreSQL at `{place}` and we cannot agree how to log in"))
            .cause(cause)
            .maybe_hint(hint);
    }
    Error::new(ErrorKind::Unavailable, format!("cannot reach PostgreSQL at `{place}`"))
        .cause(cause)
        .hint("check that the server runs, and `host` and `port` of the connection")
}

fn cause_of(error: &tokio_postgres::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whether the connection is gone, so that nobody knows what the server did with the last statement.
pub(crate) fn is_lost(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        // The server said goodbye: an administrator, a shutdown, a crash.
        Some(refusal) => refusal.code().code().starts_with("57P") || refusal.code().code().starts_with("08"),
        None => error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>()),
    }
}

/// What an error of the server means, said as `doing`: what we could not do.
pub(crate) fn server_error(error: &tokio_postgres::Error, config: &PostgresConfig, doing: &str) -> Error {
    let Some(refusal) = error.as_db_error() else {
        if is_lost(error) {
            return Error::new(
                ErrorKind::Unavailable,
                format!("{doing}: the connection to `{}` was lost", config.place),
            )
            .cause(cause_of(error));
        }
        return Error::internal(format!("{doing}: PostgreSQL was not understood")).cause(cause_of(error));
    };
    let code = refusal.code().code();
    let mut words = refusal.message().to_owned();
    if let Some(detail) = refusal.detail() {
        words = format!("{words} ({detail})");
    }
    let (kind, retryable, hint): (ErrorKind, bool, Option<String>) = match code {
        "42501" => (ErrorKind::Denied, false, Some(format!("let the owner grant it to {}", quoted(&config.user)))),
        "25006" => {
            (ErrorKind::Denied, false, Some("the server or its session is read-only; load elsewhere".to_owned()))
        }
        "28000" | "28P01" => (ErrorKind::Denied, false, None),
        "3D000" | "3F000" | "42P01" => (ErrorKind::NotFound, false, None),
        "42703" | "42804" | "42846" => (ErrorKind::Schema, false, None),
        "40001" | "40P01" | "55P03" => (ErrorKind::Conflict, true, None),
        "57014" if words.contains("statement timeout") => (
            ErrorKind::Timeout,
            true,
            Some(match config.statement_timeout {
                Some(_) => {
                    "raise `statement_timeout` of the connection, or read in smaller units, `target_rows`".to_owned()
                }
                None => format!(
                    "let it take its time: alter role {} set statement_timeout = 0; or read in smaller units, `target_rows`",
                    quoted(&config.user)
                ),
            }),
        ),
        "57014" if words.contains("timeout") => (ErrorKind::Timeout, true, None),
        "57014" => (ErrorKind::Canceled, false, None),
        "53100" => (ErrorKind::Storage, false, Some("free some space on the server's disk, then run again".to_owned())),
        "53200" => (ErrorKind::Memory, true, None),
        "53300" => (ErrorKind::Unavailable, true, Some("the server has no connection to spare; run again".to_owned())),
        _ => match &code[..2.min(code.len())] {
            "08" | "57" | "53" => (ErrorKind::Unavailable, true, None),
            "22" | "23" => (ErrorKind::Data, false, None),
            "42" | "26" | "34" => (ErrorKind::Query, false, None),
            "58" => (ErrorKind::Storage, false, None),
            "54" | "0A" => (ErrorKind::Schema, false, None),
            _ => (ErrorKind::Query, false, None),
        },
    };
    let hint = hint.or_else(|| refusal.hint().map(str::to_owned));
    Error::new(kind, doing).cause(format!("{words} [{code}]")).retryable(retryable).maybe_hint(hint)
}

/// The error for a table that is not there, with the one that was meant.
pub(crate) async fn unknown_table(session: &Session, table: &super::names::TableName) -> Error {
    let error = Error::new(ErrorKind::NotFound, format!("the table `{table}` does not exist"));
    let (sql, schema_named) = match &table.schema {
        Some(schema) => (
            format!(
                "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname = {} ORDER BY 1 LIMIT 1000",
                literal(schema)
            ),
            true,
        ),
        None => (
            "SELECT CASE WHEN n.nspname = ANY (current_schemas(false)) THEN c.relname \
             ELSE n.nspname || '.' || c.relname END::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
             AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1 LIMIT 1000"
                .to_owned(),
            false,
        ),
    };
    let Ok(rows) = session.query(&sql, &[]).await else { return error };
    let names: Vec<String> = rows
        .iter()
        .filter_map(|row| row.try_get::<_, String>(0).ok())
        .filter(|name| !name.starts_with("_gristmill_"))
        .map(|name| match &table.schema {
            Some(schema) if schema_named => format!("{schema}.{name}"),
            _ => name,
        })
        .collect();
    error.hint(one_of(&table.to_string(), names.iter().map(String::as_str)))
}
