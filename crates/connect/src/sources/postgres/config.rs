//! The keys of a `postgres` connection.

use super::libpq::{self, Places};
use super::names::did_you_mean_key;
use super::tls::{ChannelBinding, SslMode, Tls, TlsKeys};
use crate::sinks::postgres::way::Held;
use crate::wrap::readers::Readers;
use gristmill_model::Duration;
use gristmill_model::yaml::{Diagnostic, Node, decode};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres::config::{Host, SslMode as Negotiation};

/// The keys of a `postgres` connection: a `url` or a `service`, or their parts.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresKeys {
    /// Everything at once: `postgres://user:password@host:5432/database?sslmode=require`. Parts given beside it win.
    #[serde(default)]
    url: Option<String>,
    /// A service of libpq's service file (`PGSERVICEFILE`, or `~/.pg_service.conf`; then `pg_service.conf` in
    /// `PGSYSCONFDIR`). Parts given beside it win.
    #[serde(default)]
    service: Option<String>,
    /// The server's name or address, or the folder of its Unix socket; `localhost` by default.
    #[serde(default)]
    host: Option<String>,
    /// The server's port; 5432 by default.
    #[serde(default)]
    port: Option<u16>,
    /// Who to be; `postgres` by default.
    #[serde(default)]
    user: Option<String>,
    /// The password; write `${POSTGRES_PASSWORD}` rather than the word itself. Where there is none, `passfile` is asked.
    #[serde(default)]
    password: Option<String>,
    /// libpq's file of passwords, which only its owner may read (mode 0600); by default the file named by `PGPASSFILE`, or
    /// `~/.pgpass`.
    #[serde(default)]
    passfile: Option<PathBuf>,
    /// The database; named like the user by default.
    #[serde(default)]
    database: Option<String>,
    /// How much TLS: `prefer` by default.
    #[serde(default)]
    sslmode: Option<SslMode>,
    /// A file with the certificates to trust (PEM), for `verify-full` and `verify-ca`; `verify-full` takes the usual public
    /// ones by default.
    #[serde(default)]
    sslrootcert: Option<PathBuf>,
    /// A file with our own certificate (PEM), for servers that ask for one.
    #[serde(default)]
    sslcert: Option<PathBuf>,
    /// The key of `sslcert` (PEM), a file that only its owner may read.
    #[serde(default)]
    sslkey: Option<PathBuf>,
    /// Whether the password is bound to the TLS it is sent through; `prefer` by default.
    #[serde(default)]
    channel_binding: Option<ChannelBinding>,
    /// How long connecting may take, to each host; ten seconds by default, an hour for 0.
    #[serde(default)]
    connect_timeout: Option<Duration>,
    /// How long the server may take for one statement of a read, such as one unit; what the server says by default.
    #[serde(default)]
    statement_timeout: Option<Duration>,
    /// How long the server may send nothing while it is read from, before it is taken for dead; an hour by default. A query
    /// that takes longer than that for its first row needs more.
    #[serde(default)]
    read_timeout: Option<Duration>,
    /// The schema of tables that name none; by default the first one of the server's `search_path` that has them.
    #[serde(default)]
    schema: Option<String>,
    /// At most so many connections that read at once, over all extracts; no limit by default. A snapshot that several
    /// units share is held by one more connection for each extract.
    #[serde(default)]
    max_connections: Option<u32>,
}

/// A checked configuration: where to connect, as whom, how.
#[derive(Clone)]
pub struct PostgresConfig {
    /// Host, port, user, password, database.
    pub(crate) server: tokio_postgres::Config,
    pub(crate) tls: Tls,
    /// Where a password is looked for when there is none.
    pub(crate) passfile: Option<PathBuf>,
    pub(crate) connect_timeout: std::time::Duration,
    /// Of sessions that read.
    pub(crate) statement_timeout: Option<std::time::Duration>,
    pub(crate) read_timeout: std::time::Duration,
    pub(crate) schema: Option<String>,
    /// `user@host:port/database`: all that may be shown.
    pub(crate) place: String,
    pub(crate) user: String,
    pub(crate) database: String,
    /// Limits how many connections read.
    pub(crate) readers: Arc<Readers>,
    /// Transactions of loads, which their commits end.
    pub(crate) held: Arc<Held>,
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("place", &self.place)
            .field("sslmode", &self.tls.mode)
            .finish_non_exhaustive()
    }
}

impl PostgresConfig {
    /// Reads the keys of a connection; relative paths start at `project`.
    ///
    /// # Errors
    /// Every mistake with its place: unknown keys, a URL that is none, a value that cannot be.
    pub fn from_node(node: &Node, project: &Path) -> Result<Self, Vec<Diagnostic>> {
        Self::from_node_and(node, project, &Places::of_environment())
    }

    /// As [`Self::from_node`], with libpq's files where `places` says.
    pub(super) fn from_node_and(node: &Node, project: &Path, places: &Places) -> Result<Self, Vec<Diagnostic>> {
        let keys: PostgresKeys = decode(node)?;
        Self::from_keys(keys, project, places)
            .map_err(|(key, message, hint)| vec![node.get(key).unwrap_or(node).diagnostic(message, hint)])
    }

    fn from_keys(keys: PostgresKeys, project: &Path, places: &Places) -> Result<Self, Mistake> {
        if keys.max_connections == Some(0) {
            let hint = "write how many connections may read at once, or leave it out".to_owned();
            return Err(("max_connections", "`max_connections` is 0".to_owned(), Some(hint)));
        }
        let read_timeout = patience(keys.read_timeout)?;
        let mut tls = TlsKeys {
            mode: keys.sslmode,
            roots: keys.sslrootcert,
            certificate: keys.sslcert,
            key: keys.sslkey,
            binding: keys.channel_binding,
        };
        let mut connect_timeout = keys.connect_timeout.map(|duration| duration.0);
        let base = match (&keys.url, &keys.service) {
            (Some(_), Some(_)) => {
                let hint = "leave one of them out; parts such as `database` may stand beside either".to_owned();
                return Err(("service", "a connection has a `url` or a `service`, not both".to_owned(), Some(hint)));
            }
            (Some(url), None) => Some(Url::parse(url)?),
            (None, Some(name)) => Some(Url::of_service(name, places)?),
            (None, None) => None,
        };
        let mut passfile = keys.passfile.map(|path| project.join(path));
        let mut server = match base {
            Some(url) => {
                passfile = passfile.or(url.passfile);
                tls = tls.or(url.tls);
                connect_timeout = connect_timeout.or(url.connect_timeout);
                url.server
            }
            None => tokio_postgres::Config::new(),
        };
        if keys.host.is_none() && server.get_hosts().is_empty() && !server.get_hostaddrs().is_empty() {
            let hint = "write `postgres://host/database?hostaddr=…`, or the address as the host".to_owned();
            return Err(("url", "`hostaddr` is given without the host that it belongs to".to_owned(), Some(hint)));
        }
        // Parts win over the URL; a `Config` adds hosts and ports to those it has, so they begin anew.
        if keys.host.is_some() || keys.port.is_some() || server.get_hosts().is_empty() {
            let mut parts = tokio_postgres::Config::new();
            match (&keys.host, server.get_hosts()) {
                (Some(host), _) => {
                    parts.host(host);
                }
                (None, []) => {
                    parts.host("localhost");
                }
                (None, hosts) => {
                    for host in hosts {
                        match host {
                            Host::Tcp(name) => parts.host(name),
                            #[cfg(unix)]
                            Host::Unix(folder) => parts.host_path(folder),
                        };
                    }
                }
            }
            match (keys.port, server.get_ports()) {
                (Some(port), _) => {
                    parts.port(port);
                }
                (None, ports) => {
                    for port in ports {
                        parts.port(*port);
                    }
                }
            }
            if let Some(user) = server.get_user() {
                parts.user(user);
            }
            if let Some(password) = server.get_password() {
                parts.password(password);
            }
            if let Some(database) = server.get_dbname() {
                parts.dbname(database);
            }
            if let Some(options) = server.get_options() {
                parts.options(options);
            }
            if let Some(name) = server.get_application_name() {
                parts.application_name(name);
            }
            if keys.host.is_none() {
                for address in server.get_hostaddrs() {
                    parts.hostaddr(*address);
                }
            }
            parts.target_session_attrs(server.get_target_session_attrs());
            server = parts;
        }
        if let Some(user) = &keys.user {
            server.user(user);
        }
        if let Some(password) = &keys.password {
            server.password(password);
        }
        if let Some(database) = &keys.database {
            server.dbname(database);
        }
        let user = server.get_user().unwrap_or("postgres").to_owned();
        let database = server.get_dbname().unwrap_or(&user).to_owned();
        server.user(&user).dbname(&database);
        let (tls, binding) = tls.checked(project)?;
        server.channel_binding(binding.driver()).ssl_mode(match tls.mode {
            SslMode::Disable => Negotiation::Disable,
            SslMode::Prefer => Negotiation::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Negotiation::Require,
        });
        let connect_timeout = connect_timeout.map_or(std::time::Duration::from_secs(10), as_long_as_it_takes);
        server.connect_timeout(connect_timeout);
        // A server that vanished is noticed within about two minutes, not two hours.
        server.keepalives_idle(std::time::Duration::from_secs(60));
        server.keepalives_interval(std::time::Duration::from_secs(10)).keepalives_retries(6);
        if server.get_application_name().is_none() {
            server.application_name("gristmill");
        }
        let place = place(&server, &user, &database);
        Ok(Self {
            tls,
            passfile: passfile.or_else(|| places.passfile.clone()),
            schema: keys.schema,
            server,
            connect_timeout,
            statement_timeout: keys.statement_timeout.map(|duration| duration.0),
            read_timeout,
            place,
            user,
            database,
            readers: Arc::new(Readers::new(keys.max_connections)),
            held: Arc::default(),
        })
    }
}

/// The key it belongs to, what is wrong, what to do.
pub(super) type Mistake = (&'static str, String, Option<String>);

/// How long the silence of a server is borne that is read from.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(3600);

/// How long connecting may take: 0 is libpq's word for as long as it takes, but nobody waits for ever.
pub(crate) fn as_long_as_it_takes(connect_timeout: std::time::Duration) -> std::time::Duration {
    if connect_timeout.is_zero() { SILENCE } else { connect_timeout }
}

/// How long the silence of a server is borne, where the connection may say it.
///
/// # Errors
/// Not at all.
pub(crate) fn patience(read_timeout: Option<Duration>) -> Result<std::time::Duration, Mistake> {
    match read_timeout {
        None => Ok(SILENCE),
        Some(limit) if limit.0.is_zero() => {
            let hint = "write how long the server may be silent, such as `10m`, or leave it out".to_owned();
            Err(("read_timeout", "`read_timeout` is 0".to_owned(), Some(hint)))
        }
        Some(limit) => Ok(limit.0),
    }
}

/// A connection URL or a service, its TLS options taken out: the driver knows fewer of them than libpq does.
struct Url {
    server: tokio_postgres::Config,
    passfile: Option<PathBuf>,
    tls: TlsKeys,
    connect_timeout: Option<std::time::Duration>,
}

impl Url {
    fn parse(url: &str) -> Result<Self, Mistake> {
        // The URL itself is never shown: it may hold the password.
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            let hint = "write it like `postgres://user@host:5432/database`".to_owned();
            return Err(("url", "this is not the URL of a PostgreSQL server".to_owned(), Some(hint)));
        }
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut tls, mut connect_timeout, mut passfile) = (TlsKeys::default(), None, None);
        let mut rest = Vec::new();
        let decoded = |value: &str| percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                name if tls.take(name, &decoded(value), "URL")? => {}
                "passfile" => passfile = Some(PathBuf::from(decoded(value))),
                "connect_timeout" => connect_timeout = Some(parse_timeout("url", value)?),
                "application_name"
                | "options"
                | "target_session_attrs"
                | "dbname"
                | "user"
                | "password"
                | "host"
                | "port"
                | "hostaddr" => rest.push(pair),
                // What is no name of an option may be a part of a password with a `?` in it.
                name if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') => {
                    let hint = "special characters in user and password are percent-encoded (`?` is `%3F`)";
                    return Err(("url", "an option of the URL cannot be read".to_owned(), Some(hint.to_owned())));
                }
                _ => {
                    let message = format!("unknown option `{name}` in the URL");
                    return Err(("url", message, Some(did_you_mean_key(name))));
                }
            }
        }
        let plain = if rest.is_empty() { address.to_owned() } else { format!("{address}?{}", rest.join("&")) };
        let server = plain.parse::<tokio_postgres::Config>().map_err(|_| {
            let hint = "special characters in user and password are percent-encoded (`@` is `%40`, `/` is `%2F`); or use \
                        the keys `host`, `port`, `user`, `password`, `database`";
            ("url", "the URL cannot be read".to_owned(), Some(hint.to_owned()))
        })?;
        Ok(Self { server, passfile, tls, connect_timeout })
    }

    fn of_service(name: &str, places: &Places) -> Result<Self, Mistake> {
        let wrong = |message: String, hint: Option<String>| ("service", message, hint);
        let options = libpq::service(places, name).map_err(|(message, hint)| wrong(message, hint))?;
        let (mut tls, mut connect_timeout, mut passfile) = (TlsKeys::default(), None, None);
        let mut plain = String::new();
        for (key, value) in options {
            match key.as_str() {
                key if tls.take(key, &value, "service").map_err(|(_, message, hint)| wrong(message, hint))? => {}
                "passfile" => passfile = Some(PathBuf::from(value)),
                "connect_timeout" => connect_timeout = Some(parse_timeout("service", &value)?),
                "host"
                | "port"
                | "dbname"
                | "user"
                | "password"
                | "application_name"
                | "options"
                | "target_session_attrs" => {
                    let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                    plain.push_str(&format!("{key}='{value}' "));
                }
                _ => {
                    let message = format!("the service `{name}` has the option `{key}`, which is not known here");
                    return Err(wrong(message, Some(did_you_mean_key(&key))));
                }
            }
        }
        // What is wrong is not shown: it may be the password.
        let server = plain
            .parse::<tokio_postgres::Config>()
            .map_err(|_| wrong(format!("the options of the service `{name}` cannot be read"), None))?;
        Ok(Self { server, passfile, tls, connect_timeout })
    }
}

fn parse_timeout(key: &'static str, text: &str) -> Result<std::time::Duration, Mistake> {
    let seconds = text.parse().map_err(|_| (key, "`connect_timeout` is not a number of seconds".to_owned(), None))?;
    Ok(std::time::Duration::from_secs(seconds))
}

fn place(server: &tokio_postgres::Config, user: &str, database: &str) -> String {
    let ports = server.get_ports();
    let hosts: Vec<String> = server
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                #[cfg(unix)]
                Host::Unix(folder) => format!("{}:{port}", folder.display()),
            }
        })
        .collect();
    format!("{user}@{}/{database}", hosts.join(","))
}
