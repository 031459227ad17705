//! The keys of a `mysql` connection.

use crate::sources::postgres::{SslMode, as_long_as_it_takes, must_look_at, patience};
use crate::wrap::readers::Readers;
use gristmill_model::yaml::{Diagnostic, Node, decode};
use gristmill_model::{Duration, did_you_mean};
use mysql_async::{Opts, OptsBuilder, SslOpts};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The keys of a `mysql` connection: a `url`, or its parts.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MysqlKeys {
    /// Everything at once: `mysql://user:password@host:3306/database?sslmode=require`. Parts given beside it win.
    #[serde(default)]
    url: Option<String>,
    /// The server's name or address; `localhost` by default.
    #[serde(default)]
    host: Option<String>,
    /// The server's port; 3306 by default.
    #[serde(default)]
    port: Option<u16>,
    /// The server's Unix socket, instead of `host` and `port`.
    #[serde(default)]
    socket: Option<PathBuf>,
    /// Who to be; `root` by default.
    #[serde(default)]
    user: Option<String>,
    /// The password; write `${MYSQL_PASSWORD}` rather than the word itself.
    #[serde(default)]
    password: Option<String>,
    /// The database that tables without one are looked for in.
    #[serde(default)]
    database: Option<String>,
    /// How much TLS: `prefer` by default; none over a Unix socket. `verify-ca` checks the host's name as well.
    #[serde(default)]
    sslmode: Option<SslMode>,
    /// A file with the certificates to trust (PEM), for `verify-full`; the usual public ones by default.
    #[serde(default)]
    sslrootcert: Option<PathBuf>,
    /// How long connecting may take; ten seconds by default.
    #[serde(default)]
    connect_timeout: Option<Duration>,
    /// How long the server may take for one statement, such as reading one unit; what the server says by default.
    #[serde(default)]
    statement_timeout: Option<Duration>,
    /// How long the server may send nothing while it is read from, before it is taken for dead; an hour by default. A query
    /// that takes longer than that for its first row needs more.
    #[serde(default)]
    read_timeout: Option<Duration>,
    /// At most so many connections that read at once, over all extracts; no limit by default. An extract that is divided
    /// into units keeps one connection beyond that, since nobody can join its picture later.
    #[serde(default)]
    max_connections: Option<u32>,
}

/// A checked configuration: where to connect, as whom, how.
#[derive(Clone)]
pub struct MysqlConfig {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(super) socket: Option<PathBuf>,
    pub(crate) user: String,
    password: Option<String>,
    pub(crate) database: Option<String>,
    pub(super) sslmode: SslMode,
    pub(super) sslrootcert: Option<PathBuf>,
    pub(super) connect_timeout: std::time::Duration,
    pub(super) statement_timeout: Option<std::time::Duration>,
    pub(super) read_timeout: std::time::Duration,
    /// `user@host:port/database`: all that may be shown.
    pub(crate) place: String,
    /// Limits how many connections read.
    pub(super) readers: Arc<Readers>,
}

impl fmt::Debug for MysqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlConfig")
            .field("place", &self.place)
            .field("sslmode", &self.sslmode)
            .finish_non_exhaustive()
    }
}

/// The key it belongs to, what is wrong, what to do.
type Mistake = (&'static str, String, Option<String>);

impl MysqlConfig {
    /// Reads the keys of a connection; relative paths start at `project`.
    ///
    /// # Errors
    /// Every mistake with its place: unknown keys, a URL that is none, a value that cannot be.
    pub fn from_node(node: &Node, project: &Path) -> Result<Self, Vec<Diagnostic>> {
        let keys: MysqlKeys = decode(node)?;
        Self::from_keys(keys, project)
            .map_err(|(key, message, hint)| vec![node.get(key).unwrap_or(node).diagnostic(message, hint)])
    }

    fn from_keys(keys: MysqlKeys, project: &Path) -> Result<Self, Mistake> {
        if keys.max_connections == Some(0) {
            let hint = "write how many connections may read at once, or leave it out".to_owned();
            return Err(("max_connections", "`max_connections` is 0".to_owned(), Some(hint)));
        }
        let read_timeout = patience(keys.read_timeout)?;
        let url = keys.url.as_deref().map(Url::parse).transpose()?.unwrap_or_default();
        // Naming a host or a port turns away from the URL's socket, and the other way round.
        let by_host = keys.host.is_some() || keys.port.is_some();
        let socket = keys.socket.or(url.socket.filter(|_| !by_host)).map(|socket| project.join(socket));
        if by_host && socket.is_some() {
            let hint = "keep either `socket`, or `host` and `port`".to_owned();
            return Err(("socket", "`socket` goes without `host` and `port`".to_owned(), Some(hint)));
        }
        // Checking more than was asked for is safe, and the driver knows nothing in between.
        let sslmode = keys.sslmode.or(url.sslmode).map(|mode| match mode {
            SslMode::VerifyCa => SslMode::VerifyFull,
            mode => mode,
        });
        let sslrootcert = keys.sslrootcert.or(url.sslrootcert);
        must_look_at(sslrootcert.as_deref(), sslmode.unwrap_or(SslMode::Prefer))?;
        if socket.is_some() && matches!(sslmode, Some(SslMode::Require | SslMode::VerifyFull)) {
            let hint = "leave `sslmode` out; what goes through a socket does not leave the machine".to_owned();
            return Err(("sslmode", "there is no TLS over a Unix socket".to_owned(), Some(hint)));
        }
        let host = keys.host.or(url.host).unwrap_or_else(|| "localhost".to_owned());
        let port = keys.port.or(url.port).unwrap_or(3306);
        let user = keys.user.or(url.user).unwrap_or_else(|| "root".to_owned());
        let database = keys.database.or(url.database).filter(|name| !name.is_empty());
        let server = socket.as_ref().map_or_else(|| format!("{host}:{port}"), |socket| socket.display().to_string());
        let named = database.as_ref().map_or_else(String::new, |name| format!("/{name}"));
        Ok(Self {
            place: format!("{user}@{server}{named}"),
            host,
            port,
            socket,
            user,
            password: keys.password.or(url.password),
            database,
            sslmode: sslmode.unwrap_or(SslMode::Prefer),
            sslrootcert: sslrootcert.map(|path| project.join(path)),
            connect_timeout: keys
                .connect_timeout
                .map(|duration| duration.0)
                .or(url.connect_timeout)
                .map_or(std::time::Duration::from_secs(10), as_long_as_it_takes),
            statement_timeout: keys.statement_timeout.map(|duration| duration.0),
            read_timeout,
            readers: Arc::new(Readers::new(keys.max_connections)),
        })
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// For the driver. `tls` holds what TLS needs, where it is to be spoken; `database` is where to begin.
    pub(super) fn opts(&self, tls: Option<SslOpts>, database: Option<&str>) -> Opts {
        OptsBuilder::default()
            .ip_or_hostname(&self.host)
            .tcp_port(self.port)
            .socket(self.socket.as_ref().map(|socket| socket.display().to_string()))
            .prefer_socket(false)
            .user(Some(&self.user))
            .pass(self.password.as_deref())
            .db_name(database)
            .ssl_opts(tls)
            // What the protocol allows, rather than what the server takes: a row may be larger than any of its values.
            .max_allowed_packet(Some(1 << 30))
            .wait_timeout(Some(28_800))
            .stmt_cache_size(0)
            // A server that vanished is noticed within minutes, not hours.
            .tcp_keepalive(Some(std::time::Duration::from_secs(60)))
            .into()
    }
}

/// A connection URL, taken apart.
#[derive(Default)]
struct Url {
    host: Option<String>,
    port: Option<u16>,
    socket: Option<PathBuf>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    sslmode: Option<SslMode>,
    sslrootcert: Option<PathBuf>,
    connect_timeout: Option<std::time::Duration>,
}

impl Url {
    fn parse(text: &str) -> Result<Self, Mistake> {
        // The URL itself is never shown: it may hold the password.
        if !["mysql://", "mariadb://"].iter().any(|scheme| text.starts_with(scheme)) {
            let hint = "write it like `mysql://user@host:3306/database`".to_owned();
            return Err(("url", "this is not the URL of a MySQL server".to_owned(), Some(hint)));
        }
        let url = url::Url::parse(text).map_err(|_| {
            let hint = "special characters in user and password are percent-encoded (`@` is `%40`, `/` is `%2F`); or use \
                        the keys `host`, `port`, `user`, `password`, `database`";
            ("url", "the URL cannot be read".to_owned(), Some(hint.to_owned()))
        })?;
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let text_of = |part: &str| Some(decoded(part)).filter(|part| !part.is_empty());
        let mut found = Self {
            host: url.host_str().map(|host| host.trim_matches(['[', ']'])).and_then(text_of),
            port: url.port(),
            user: text_of(url.username()),
            password: url.password().map(decoded),
            database: text_of(url.path().trim_start_matches('/')),
            ..Self::default()
        };
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "sslmode" | "ssl-mode" => found.sslmode = Some(parse_sslmode(&value)?),
                "sslrootcert" | "ssl-ca" => found.sslrootcert = Some(PathBuf::from(value.as_ref())),
                "socket" => found.socket = Some(PathBuf::from(value.as_ref())),
                "connect_timeout" => {
                    let seconds: u64 = value.parse().map_err(|_| {
                        ("url", "`connect_timeout` in the URL is not a number of seconds".to_owned(), None)
                    })?;
                    found.connect_timeout = Some(std::time::Duration::from_secs(seconds));
                }
                // What is no name of an option may be a part of a password with a `?` in it.
                name if !name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-".contains(&byte)) => {
                    let hint = "special characters in user and password are percent-encoded (`?` is `%3F`)";
                    return Err(("url", "an option of the URL cannot be read".to_owned(), Some(hint.to_owned())));
                }
                name => {
                    let known = ["sslmode", "sslrootcert", "socket", "connect_timeout"];
                    let hint = did_you_mean(name, known).map_or_else(
                        || "valid: `sslmode`, `sslrootcert`, `socket`, `connect_timeout`".to_owned(),
                        |near| format!("did you mean `{near}`?"),
                    );
                    return Err(("url", format!("unknown option `{name}` in the URL"), Some(hint)));
                }
            }
        }
        Ok(found)
    }
}

fn parse_sslmode(text: &str) -> Result<SslMode, Mistake> {
    Ok(match text.to_ascii_lowercase().replace('_', "-").as_str() {
        "disable" | "disabled" => SslMode::Disable,
        "prefer" | "preferred" => SslMode::Prefer,
        "require" | "required" => SslMode::Require,
        // Checking more than was asked for is safe; checking less is not.
        "verify-ca" | "verify-full" | "verify-identity" => SslMode::VerifyFull,
        _ => {
            let valid = "valid: `disable`, `prefer`, `require`, `verify-full`".to_owned();
            return Err(("url", format!("unknown `sslmode` `{text}` in the URL"), Some(valid)));
        }
    })
}
