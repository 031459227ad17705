//! A temporary MariaDB server: one per test process, one fresh database per test.
//!
//! The server is made by `mariadb-install-db` in a temporary folder, on its own port and socket. On TCP, [`USER`] has a
//! password; on the socket, `root` has none. As the PostgreSQL server of these tests it cannot outlive the test process:
//! a small shell holds it and reads a pipe whose other end only this process has.

use crate::postgres::make_certificates;
use crate::suspended::{Suspended, children};
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The user of the temporary server on TCP, with all privileges.
pub const USER: &str = "gristmill";
/// Its password.
pub const PASSWORD: &str = "correct horse";

const INSTALL: &str = "install it: apt-get install mariadb-server-core mariadb-client-core";

/// Holds the server: starts it, waits until the pipe on standard input ends, stops it, removes its folder. A line in the pipe
/// lets it crash, and starts it again.
const KEEPER: &str = r#"
trap '' INT HUP
server="$1"; folder="$2"; shift 2
begin() {
  "$server" "$@" >>"$folder/log" 2>&1 </dev/null &
  pid=$!
}
begin "$@"
while read -r line; do
  kill -KILL "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
  begin "$@"
  : >"$folder/begun-again"
done
kill -KILL "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
cd /
rm -rf "$folder"
"#;

/// A running server.
#[derive(Debug)]
pub struct MariadbServer {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its Unix socket; `root` needs no password there.
    pub socket: PathBuf,
    folder: PathBuf,
    databases: AtomicU32,
    // Dropping it (or the end of the process) closes the pipe, which stops the server.
    keeper: Child,
}

/// A fresh database on a [`MariadbServer`].
#[derive(Clone)]
pub struct TestDatabase {
    /// Its name.
    pub name: String,
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The server's Unix socket.
    pub socket: PathBuf,
}

/// The server of this test process, started when first asked for.
///
/// # Panics
/// When MariaDB is not installed or does not start; the message says what to do.
#[expect(clippy::panic, reason = "a test that needs the server fails aloud without it")]
pub fn server() -> &'static MariadbServer {
    static SERVER: OnceLock<MariadbServer> = OnceLock::new();
    SERVER.get_or_init(|| match MariadbServer::start() {
        Ok(server) => server,
        Err(problem) => panic!("cannot start a MariaDB server for the tests: {problem}"),
    })
}

/// A fresh, empty database on the server of this test process.
///
/// # Panics
/// As [`server`].
#[must_use]
pub fn database() -> TestDatabase {
    server().database()
}

impl MariadbServer {
    /// Starts a server of its own.
    ///
    /// # Errors
    /// What is missing or went wrong, for people.
    pub fn start() -> Result<Self, String> {
        Self::start_as(false)
    }

    /// Starts a server of its own that speaks TLS, too. Its certificate is for `localhost` alone, and signed by the
    /// authority of [`MariadbServer::authority`].
    ///
    /// # Errors
    /// What is missing or went wrong, for people.
    pub fn start_with_tls() -> Result<Self, String> {
        Self::start_as(true)
    }

    /// The certificate of the authority, for a server that was started with TLS.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("authority.crt")
    }

    fn start_as(with_tls: bool) -> Result<Self, String> {
        let server = program("mariadbd").ok_or_else(|| format!("no `mariadbd` on PATH; {INSTALL}"))?;
        let mut problem = String::new();
        // The port is free when it is chosen; somebody may still take it before the server does.
        for _ in 0..3 {
            match Self::start_once(&server, with_tls) {
                Ok(server) => return Ok(server),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    fn start_once(program: &Path, with_tls: bool) -> Result<Self, String> {
        let say = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let folder =
            tempfile::Builder::new().prefix("gristmill-mariadb-").tempdir().map_err(say("temporary folder"))?;
        let root = folder.path();
        let data = root.join("data");
        let user = account()?;
        let mut install = Command::new("mariadb-install-db");
        install.current_dir(root).args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
        install.arg(format!("--datadir={}", data.display())).args(user.as_ref().map(|user| format!("--user={user}")));
        let made = install.output().map_err(|error| format!("mariadb-install-db: {error}; {INSTALL}"))?;
        if !made.status.success() {
            let words = [made.stdout, made.stderr].concat();
            return Err(format!("mariadb-install-db failed: {}", String::from_utf8_lossy(&words)));
        }
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(say("free port"))?.port();
        let socket = root.join("socket");
        let mut keeper = Command::new("/bin/sh");
        keeper.arg("-c").arg(KEEPER).arg("sh").arg(program).arg(root).arg("--no-defaults");
        keeper.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", socket.display()));
        keeper.arg(format!("--port={port}")).args([
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            // What is committed outlives a crash of the server, if not one of the machine.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            "--innodb-doublewrite=0",
            "--innodb-buffer-pool-size=128M",
            "--max-connections=300",
            "--character-set-server=utf8mb4",
            "--sql-mode=",
        ]);
        keeper.args(user.as_ref().map(|user| format!("--user={user}")));
        if with_tls {
            make_certificates(root)?;
            for (option, file) in [("ca", "authority.crt"), ("cert", "server.crt"), ("key", "server.key")] {
                keeper.arg(format!("--ssl-{option}={}", root.join(file).display()));
            }
        }
        // A group of its own: what interrupts the tests must not kill the shell before it has cleaned up.
        keeper.current_dir(root).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let keeper = keeper.spawn().map_err(say("sh"))?;
        let log = root.join("log");
        let folder = folder.keep();
        let server = Self { port, socket, folder, databases: AtomicU32::new(0), keeper };
        server
            .wait_until_ready()
            .map_err(|problem| format!("{problem}; its log:\n{}", std::fs::read_to_string(&log).unwrap_or_default()))?;
        let users = format!("grant all on *.* to '{USER}'@'%' identified by '{PASSWORD}' with grant option");
        let made = client(&server.socket, "mysql", &users).map_err(say("mariadb"))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
        Ok(server)
    }

    /// Lets the server crash, and starts it again. Answers when it takes connections.
    ///
    /// # Errors
    /// A keeper that is gone, a server that does not come back.
    pub fn restart(&self) -> Result<(), String> {
        let mark = self.folder.join("begun-again");
        // It is not there the first time.
        let _ = std::fs::remove_file(&mark);
        let mut pipe = self.keeper.stdin.as_ref().ok_or("no pipe to the keeper")?;
        io::Write::write_all(&mut pipe, b"again\n").map_err(|error| error.to_string())?;
        let begin = Instant::now();
        while !mark.exists() {
            if begin.elapsed() > Duration::from_secs(60) {
                return Err("the server was not started again".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.wait_until_ready()
    }

    /// Stops the server where it is, until what is given back is dropped.
    ///
    /// # Errors
    /// A server that is not there.
    pub fn suspend(&self) -> Result<Suspended, String> {
        // The keeper itself must go on, to end the server when these tests end.
        let server = children(&self.keeper.id().to_string())?;
        Suspended::of(server.first().ok_or("the keeper has no server")?)
    }

    fn named(&self, name: &str) -> TestDatabase {
        TestDatabase { name: name.to_owned(), port: self.port, socket: self.socket.clone() }
    }

    /// A database with all tables, and their rows, that are in another one.
    ///
    /// # Errors
    /// The words of the client.
    pub fn copy(&self, of: &TestDatabase) -> Result<TestDatabase, String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        of.try_sql(&format!("create database {name}"))?;
        for table in of.try_sql("show tables")?.lines() {
            of.try_sql(&format!(
                "create table {name}.`{table}` like `{table}`; insert into {name}.`{table}` select * from `{table}`"
            ))?;
        }
        Ok(self.named(&name))
    }

    /// Removes a database.
    ///
    /// # Errors
    /// The words of the client.
    pub fn drop(&self, database: &TestDatabase) -> Result<(), String> {
        self.named("mysql").try_sql(&format!("drop database {}", database.name)).map(|_| ())
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            match client(&self.socket, "mysql", "select 1") {
                Ok(answer) if answer.status.success() => return Ok(()),
                Ok(_) if begin.elapsed() < Duration::from_secs(60) => std::thread::sleep(Duration::from_millis(50)),
                Ok(answer) => return Err(String::from_utf8_lossy(&answer.stderr).into_owned()),
                Err(error) => return Err(format!("mariadb: {error}; {INSTALL}")),
            }
        }
    }

    /// A fresh, empty database.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn database(&self) -> TestDatabase {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.named("mysql").sql(&format!("create database {name}"));
        self.named(&name)
    }
}

impl TestDatabase {
    /// Where it is, as a URL with user and password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mysql://{USER}:{}@127.0.0.1:{}/{}", PASSWORD.replace(' ', "%20"), self.port, self.name)
    }

    /// Runs SQL through the server's own client, as `root`; gives its rows without heads, tabs between the columns and
    /// without the last newline.
    ///
    /// # Panics
    /// When a statement fails.
    #[expect(clippy::panic, reason = "a test whose set-up fails has failed")]
    pub fn sql(&self, sql: &str) -> String {
        match self.try_sql(sql) {
            Ok(output) => output,
            Err(problem) => panic!("mariadb on `{}` failed: {problem}\n{sql}", self.name),
        }
    }

    /// As [`TestDatabase::sql`], for statements that may fail.
    ///
    /// # Errors
    /// The words of the client.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        let output = client(&self.socket, &self.name, sql).map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

impl fmt::Debug for TestDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestDatabase({} on port {})", self.name, self.port)
    }
}

fn client(socket: &Path, database: &str, sql: &str) -> io::Result<Output> {
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "--batch", "--skip-column-names", "--raw", "--default-character-set=utf8mb4"]);
    command.args(["--user=root", "--binary-mode", "--max-allowed-packet=1G"]);
    command.arg(format!("--socket={}", socket.display())).arg(database);
    // The script goes through a file: an argument may be too short for it.
    let mut script = tempfile::tempfile()?;
    io::Write::write_all(&mut script, sql.as_bytes())?;
    io::Seek::rewind(&mut script)?;
    command.stdin(script).output()
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/libexec".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.exists())
}

/// The user to run as, where it must be said: MariaDB asks for that when it is `root`.
fn account() -> Result<Option<&'static str>, String> {
    let output = Command::new("id").arg("-u").output().map_err(|error| format!("id: {error}"))?;
    Ok((output.stdout.trim_ascii() == b"0").then_some("root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_comes_back_with_what_was_committed() {
        let server = MariadbServer::start().unwrap();
        let database = server.database();
        database.sql("create table t(a int) engine = InnoDB; insert into t values (1), (2)");
        let copy = server.copy(&database).unwrap();
        server.restart().unwrap();
        assert_eq!(
            (database.sql("select sum(a) from t"), copy.sql("select count(*) from t")),
            ("3".into(), "2".into())
        );
        server.drop(&copy).unwrap();
        assert_eq!(database.sql(&format!("show databases like '{}'", copy.name)), "");
    }

    #[test]
    fn a_fresh_database_answers_and_everything_goes_when_the_pipe_ends() {
        let server = MariadbServer::start().unwrap();
        let database = server.database();
        assert_eq!(database.sql("create table t(a int); insert into t values (1), (2); select sum(a) from t"), "3");
        let (port, folder) = (server.port, server.folder.clone());
        drop((database, server));
        let begin = Instant::now();
        while folder.exists() && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!folder.exists());
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
}
