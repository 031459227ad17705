//! A server program of others that cannot outlive the test process: a small shell holds it and reads a pipe whose other
//! end only this process has.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Holds the server: starts it, waits until the pipe on standard input ends, stops it, removes its folder.
const KEEPER: &str = r#"
trap '' INT HUP
folder=$1
shift
"$@" >"$folder/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill "$server" 2>/dev/null
wait "$server" 2>/dev/null
cd /
rm -rf "$folder"
"#;

/// A running server; ends with the value.
pub(crate) struct Kept {
    /// `http://127.0.0.1:port`.
    pub(crate) url: String,
    keeper: Child,
}

impl Kept {
    /// Starts a program with a port of its own and a folder that `prepare` fills, and waits until `path` is answered.
    ///
    /// # Panics
    /// When the server is not installed or does not start; the message says what to do.
    #[expect(clippy::panic, reason = "a test that needs the server fails aloud without it")]
    pub(crate) fn start(
        name: &str,
        path: &str,
        prepare: impl Fn(&Path) -> io::Result<()>,
        command: impl Fn(u16, &Path) -> Result<Vec<String>, String>,
    ) -> Self {
        let mut problem = String::new();
        // The port is free when it is chosen; somebody may still take it before the server does.
        for _ in 0..3 {
            match Self::start_once(name, path, &prepare, &command) {
                Ok(kept) => return kept,
                Err(error) => problem = error,
            }
        }
        panic!("cannot start {name} for the tests: {problem}");
    }

    fn start_once(
        name: &str,
        path: &str,
        prepare: &impl Fn(&Path) -> io::Result<()>,
        command: &impl Fn(u16, &Path) -> Result<Vec<String>, String>,
    ) -> Result<Self, String> {
        let say = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let prefix = format!("gristmill-{name}-");
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().map_err(say("temporary folder"))?;
        prepare(folder.path()).map_err(say("what it serves"))?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(say("free port"))?;
        let words = command(free.port(), folder.path())?;
        let mut keeper = Command::new("/bin/sh");
        keeper.arg("-c").arg(KEEPER).arg("sh").arg(folder.path()).args(words);
        // A group of its own: what interrupts the tests must not kill the shell before it has cleaned up.
        keeper.current_dir(folder.path()).process_group(0);
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = keeper.spawn().map_err(say("sh"))?;
        let kept = Self { url: format!("http://127.0.0.1:{}", free.port()), keeper };
        let log = folder.path().join("log");
        let begin = Instant::now();
        while !answers(free.port(), path) {
            if begin.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("it does not answer; its log:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // From here on the keeper removes the folder.
        let _ = folder.keep();
        Ok(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // The keeper ends once the server has.
        let _ = self.keeper.wait();
    }
}

/// A program that `./test` installs below `tests/servers`.
///
/// # Errors
/// That it is not installed, and what to do.
pub(crate) fn installed(path: &str, install: &str) -> Result<PathBuf, String> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/servers").join(path);
    if program.is_file() { Ok(program) } else { Err(format!("it is not installed; `./test` does that, or: {install}")) }
}

/// Whether something answers with success.
fn answers(port: u16, path: &str) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
