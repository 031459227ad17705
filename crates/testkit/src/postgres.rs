//! A temporary PostgreSQL server: one per test process, one fresh database per test.
//!
//! The server is made by `initdb` in a temporary folder, on its own port, with a password on TCP (so that a wrong one
//! can be tested) and none on its socket. It cannot outlive the test process, not even a killed one: a small shell
//! holds the server and reads a pipe whose other end only this process has; when the pipe ends, the shell stops the
//! server and removes the folder.

use crate::suspended::Suspended;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The superuser of the temporary server.
pub const USER: &str = "gristmill";
/// Its password, on TCP.
pub const PASSWORD: &str = "correct horse";

/// The user whom a server with TLS knows by a certificate ([`PostgresServer::client_certificate`]) and by nothing else.
pub const CERTIFIED: &str = "certified";

/// Holds the server: starts it, waits until the pipe on standard input ends, stops it, removes its folder.
const KEEPER: &str = r#"
trap '' INT HUP
"$1/postgres" -D "$2/data" >"$2/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
# A server that was restarted meanwhile is another process.
server=$(head -n 1 "$2/data/postmaster.pid" 2>/dev/null || echo "$server")
kill -CONT "$server" 2>/dev/null
kill -QUIT "$server" 2>/dev/null
wait "$server" 2>/dev/null
while kill -QUIT "$server" 2>/dev/null; do sleep 0.02; done
cd /
rm -rf "$2"
"#;

/// A running server.
#[derive(Debug)]
pub struct PostgresServer {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The folder of its Unix socket; no password is asked there.
    pub socket: PathBuf,
    programs: PathBuf,
    databases: AtomicU32,
    // Dropping it (or the end of the process) closes the pipe, which stops the server.
    _keeper: Child,
}

/// A fresh database on a [`PostgresServer`].
#[derive(Clone)]
pub struct TestDatabase {
    /// Its name.
    pub name: String,
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The folder of the server's Unix socket.
    pub socket: PathBuf,
    programs: PathBuf,
}

/// The server of this test process, started when first asked for.
///
/// # Panics
/// When PostgreSQL is not installed or does not start; the message says what to do.
#[expect(clippy::panic, reason = "a test that needs the server fails aloud without it")]
pub fn server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(|| match PostgresServer::start() {
        Ok(server) => server,
        Err(problem) => panic!("cannot start a PostgreSQL server for the tests: {problem}"),
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

impl PostgresServer {
    /// Starts a server of its own.
    ///
    /// # Errors
    /// What is missing or went wrong, for people.
    pub fn start() -> Result<Self, String> {
        Self::start_as(false)
    }

    /// Starts a server of its own that speaks TLS, too. Its certificate is for `localhost` alone, and signed by the
    /// authority of [`PostgresServer::authority`].
    ///
    /// # Errors
    /// What is missing or went wrong, for people.
    pub fn start_with_tls() -> Result<Self, String> {
        Self::start_as(true)
    }

    /// The certificate of the authority, for a server that was started with TLS.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.socket.join("authority.crt")
    }

    /// A certificate of [`CERTIFIED`] and its key, for a server that was started with TLS.
    #[must_use]
    pub fn client_certificate(&self) -> (PathBuf, PathBuf) {
        (self.socket.join("client.crt"), self.socket.join("client.key"))
    }

    fn start_as(with_tls: bool) -> Result<Self, String> {
        let programs = find_programs()
            .ok_or("no `initdb` under /usr/lib/postgresql/*/bin or on PATH; install it: apt-get install postgresql")?;
        let mut problem = String::new();
        // The port is free when it is chosen; somebody may still take it before the server does.
        for _ in 0..3 {
            match Self::start_once(&programs, with_tls) {
                Ok(server) => return Ok(server),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    fn start_once(programs: &Path, with_tls: bool) -> Result<Self, String> {
        let say = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let folder =
            tempfile::Builder::new().prefix("gristmill-postgres-").tempdir().map_err(say("temporary folder"))?;
        let account = Account::for_server()?;
        account.give(folder.path())?;
        let root = folder.path();
        let data = root.join("data");
        let secret = root.join("password");
        std::fs::write(&secret, PASSWORD).map_err(say("password file"))?;
        account.give(&secret)?;

        let mut initdb = account.command(&programs.join("initdb"));
        initdb.current_dir(root).arg("-D").arg(&data).args(["-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256"]).arg("--pwfile").arg(&secret);
        let made = initdb.output().map_err(say("initdb"))?;
        if !made.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)));
        }

        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(say("free port"))?.port();
        let tls = match with_tls {
            true => {
                make_certificates(root)?;
                let (certificate, key) = (root.join("server.crt"), root.join("server.key"));
                account.give(&key)?;
                let file = data.join("pg_hba.conf");
                let rules = std::fs::read_to_string(&file).map_err(say("pg_hba.conf"))?;
                let rules = format!("hostssl all {CERTIFIED} 127.0.0.1/32 cert\n{rules}");
                std::fs::write(&file, rules).map_err(say("pg_hba.conf"))?;
                format!(
                    "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\nssl_ca_file = '{}'\n",
                    certificate.display(),
                    key.display(),
                    root.join("authority.crt").display()
                )
            }
            false => String::new(),
        };
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nfsync = off\n\
             synchronous_commit = off\nfull_page_writes = off\nshared_buffers = 64MB\nmax_connections = 200\n\
             max_prepared_transactions = 0\nlog_min_messages = warning\n",
            root.display()
        );
        let file = data.join("postgresql.conf");
        let old = std::fs::read_to_string(&file).map_err(say("postgresql.conf"))?;
        std::fs::write(&file, old + &settings + &tls).map_err(say("postgresql.conf"))?;

        let mut keeper = account.command(Path::new("/bin/sh"));
        keeper.arg("-c").arg(KEEPER).arg("sh").arg(programs).arg(root);
        // A group of its own: what interrupts the tests must not kill the shell before it has cleaned up.
        keeper.current_dir(root).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let keeper = keeper.spawn().map_err(say("sh"))?;
        let server = Self {
            port,
            socket: root.to_path_buf(),
            programs: programs.to_path_buf(),
            databases: AtomicU32::new(0),
            _keeper: keeper,
        };
        let log = root.join("log");
        server
            .wait_until_ready()
            .map_err(|problem| format!("{problem}; its log:\n{}", std::fs::read_to_string(&log).unwrap_or_default()))?;
        // From here on the keeper removes the folder.
        let _ = folder.keep();
        Ok(server)
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let asked = psql(&self.programs, &self.socket, self.port, "postgres", "select 1");
            match asked {
                Ok(answer) if answer.status.success() => return Ok(()),
                Ok(_) if begin.elapsed() < Duration::from_secs(30) => std::thread::sleep(Duration::from_millis(50)),
                Ok(answer) => return Err(String::from_utf8_lossy(&answer.stderr).into_owned()),
                Err(error) => return Err(format!("psql: {error}; install it: apt-get install postgresql-client")),
            }
        }
    }

    /// Restarts the server, as `pg_ctl restart` does with `mode`: `smart`, `fast` or `immediate` (a crash). Answers when
    /// it takes connections again.
    ///
    /// # Errors
    /// The words of `pg_ctl`.
    pub fn restart(&self, mode: &str) -> Result<(), String> {
        let folder = &self.socket;
        let mut restart = Account::for_server()?.command(&self.programs.join("pg_ctl"));
        restart.current_dir(folder).args(["restart", "-w", "-s", "-m", mode, "-D"]).arg(folder.join("data"));
        // What the server writes must not go to our pipe: it would never end.
        let output = restart.arg("-l").arg(folder.join("log")).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("pg_ctl: {error}"))?;
        if !output.status.success() {
            return Err(format!("pg_ctl restart -m {mode}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        self.wait_until_ready()
    }

    /// Stops the server's processes where they are, until what is given back is dropped.
    ///
    /// # Errors
    /// A server that is not there.
    pub fn suspend(&self) -> Result<Suspended, String> {
        let file =
            std::fs::read_to_string(self.socket.join("data/postmaster.pid")).map_err(|error| error.to_string())?;
        Suspended::of(file.lines().next().ok_or("an empty postmaster.pid")?)
    }

    fn named(&self, name: &str) -> TestDatabase {
        TestDatabase {
            name: name.to_owned(),
            port: self.port,
            socket: self.socket.clone(),
            programs: self.programs.clone(),
        }
    }

    /// A fresh, empty database.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn database(&self) -> TestDatabase {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.named("postgres").sql(&format!("create database {name} template template0"));
        self.named(&name)
    }

    /// A database with everything that is in another one, whose sessions are ended.
    ///
    /// # Errors
    /// The words of `psql`.
    pub fn copy(&self, of: &TestDatabase) -> Result<TestDatabase, String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let end = format!("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{}'", of.name);
        self.named("postgres").try_sql(&format!("{end}; create database {name} template {}", of.name))?;
        Ok(self.named(&name))
    }

    /// Removes a database, whoever is using it.
    ///
    /// # Errors
    /// The words of `psql`.
    pub fn drop(&self, database: &TestDatabase) -> Result<(), String> {
        let drop = format!("drop database {} with (force)", database.name);
        self.named("postgres").try_sql(&drop).map(|_| ())
    }
}

impl TestDatabase {
    /// Where it is, as a URL with user and password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{}", PASSWORD.replace(' ', "%20"), self.port, self.name)
    }

    /// Where it is by its Unix socket, where no password is asked: hashing one takes a while in a debug build.
    #[must_use]
    pub fn local_url(&self) -> String {
        let folder = self.socket.display().to_string().replace('/', "%2F");
        format!("postgres://{USER}@{folder}:{}/{}", self.port, self.name)
    }

    /// Runs SQL through `psql`, as the superuser; gives its unaligned output without the last newline.
    ///
    /// # Panics
    /// When a statement fails.
    #[expect(clippy::panic, reason = "a test whose set-up fails has failed")]
    pub fn sql(&self, sql: &str) -> String {
        match self.try_sql(sql) {
            Ok(output) => output,
            Err(problem) => panic!("psql on `{}` failed: {problem}\n{sql}", self.name),
        }
    }

    /// `psql` that runs SQL as the superuser, to be started beside the test.
    ///
    /// # Errors
    /// No room for a temporary file.
    pub fn psql(&self, sql: &str) -> io::Result<Command> {
        psql_command(&self.programs, &self.socket, self.port, &self.name, sql)
    }

    /// As [`TestDatabase::sql`], for statements that may fail.
    ///
    /// # Errors
    /// The words of `psql`.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        let output =
            psql(&self.programs, &self.socket, self.port, &self.name, sql).map_err(|error| error.to_string())?;
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

fn psql(programs: &Path, socket: &Path, port: u16, database: &str, sql: &str) -> io::Result<Output> {
    psql_command(programs, socket, port, database, sql)?.output()
}

fn psql_command(programs: &Path, socket: &Path, port: u16, database: &str, sql: &str) -> io::Result<Command> {
    let mut command = Command::new(programs.join("psql"));
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", database, "-h"]).arg(socket);
    // The script goes through a file: an argument may be too short for it.
    let mut script = tempfile::tempfile()?;
    io::Write::write_all(&mut script, sql.as_bytes())?;
    io::Seek::rewind(&mut script)?;
    command.args(["-p", &port.to_string(), "-f", "-"]).stdin(script);
    Ok(command)
}

/// Makes an authority and a certificate for `localhost` that it has signed: `authority.crt`, `server.crt`, `server.key`.
pub(crate) fn make_certificates(folder: &Path) -> Result<(), String> {
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n").map_err(|error| error.to_string())?;
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for command in [
        format!("req -x509 {key} -keyout authority.key -out authority.crt -days 3650 -subj /CN=authority"),
        format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"),
        format!("req {key} -keyout client.key -out client.csr -subj /CN={CERTIFIED}"),
        "x509 -req -in client.csr -CA authority.crt -CAkey authority.key -CAcreateserial -out client.crt -days 3650 \
         -extfile names"
            .to_owned(),
        "x509 -req -in server.csr -CA authority.crt -CAkey authority.key -CAcreateserial -out server.crt -days 3650 \
         -extfile names"
            .to_owned(),
    ] {
        let made = Command::new("openssl")
            .args(command.split_whitespace())
            .current_dir(folder)
            .output()
            .map_err(|error| format!("openssl: {error}; install it: apt-get install openssl"))?;
        if !made.status.success() {
            return Err(format!("openssl {command}: {}", String::from_utf8_lossy(&made.stderr)));
        }
    }
    Ok(())
}

/// The newest installed server's programs.
fn find_programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, programs)| programs.join("initdb").exists())
        .collect();
    versions.sort();
    if let Some((_, programs)) = versions.pop() {
        return Some(programs);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|folder| folder.join("initdb").exists())
}

/// Who the server runs as: PostgreSQL refuses to be root.
enum Account {
    Same,
    /// The `postgres` system user, by its numeric ids.
    Other(u32, u32),
}

impl Account {
    fn for_server() -> Result<Self, String> {
        if id(&["-u"])? != 0 {
            return Ok(Self::Same);
        }
        let missing =
            |_| "tests that run as root need the system user `postgres`: apt-get install postgresql".to_owned();
        Ok(Self::Other(id(&["-u", "postgres"]).map_err(missing)?, id(&["-g", "postgres"]).map_err(missing)?))
    }

    fn give(&self, path: &Path) -> Result<(), String> {
        match self {
            Self::Same => Ok(()),
            Self::Other(user, group) => std::os::unix::fs::chown(path, Some(*user), Some(*group))
                .map_err(|error| format!("cannot give {} to `postgres`: {error}", path.display())),
        }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Self::Other(user, group) = self {
            command.uid(*user).gid(*group);
        }
        command
    }
}

fn id(arguments: &[&str]) -> Result<u32, String> {
    let output = Command::new("id").args(arguments).output().map_err(|error| format!("id: {error}"))?;
    String::from_utf8_lossy(&output.stdout).trim().parse().map_err(|_| "id: no such user".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_database_answers_and_a_wrong_password_is_refused() {
        let database = database();
        assert_eq!(database.sql("create table t(a int); insert into t values (1), (2); select sum(a) from t"), "3");
        let mut psql = Command::new(server().programs.join("psql"));
        psql.env("PGPASSWORD", "wrong").args(["-d", &database.url().replace(":correct%20horse", ""), "-c", "select 1"]);
        let output = psql.output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("password authentication failed"), "{output:?}");
    }

    #[test]
    fn the_server_and_its_folder_go_when_the_pipe_ends() {
        let server = PostgresServer::start().unwrap();
        let database = server.database();
        for mode in ["fast", "immediate"] {
            database.sql("create table if not exists t(a int)");
            server.restart(mode).unwrap();
            assert_eq!(database.sql("select count(*) from t"), "0");
        }
        let (port, folder) = (server.port, server.socket.clone());
        drop(server);
        let begin = Instant::now();
        while folder.exists() && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!folder.exists());
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
}
