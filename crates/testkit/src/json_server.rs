//! `json-server` from npm, a third party's HTTP API over a document of ours: pages by number (`_page`, `_limit`) and by
//! position (`_start`, `_limit`), totals (`X-Total-Count`), the `Link` header, filters, and children of a parent
//! (`/orders/1/items`).
//!
//! `./test` installs it below `tests/servers`, at the version its lock file says.

use crate::kept::{Kept, installed};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;

/// A running server; ends with the value.
pub struct JsonServer {
    /// `http://127.0.0.1:port`.
    pub url: String,
    _kept: Kept,
}

impl fmt::Debug for JsonServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonServer").field("url", &self.url).finish_non_exhaustive()
    }
}

impl JsonServer {
    /// Serves a JSON object: each of its keys is a path, whose list is what is there.
    ///
    /// # Panics
    /// When the server is not installed or does not start; the message says what to do.
    #[must_use]
    pub fn start(document: &str) -> Self {
        let kept = Kept::start(
            "json-server",
            "/db",
            |folder| std::fs::write(folder.join("db.json"), document),
            |port, folder| {
                let program =
                    installed("node_modules/json-server/lib/cli/bin.js", "npm ci --prefix tests/servers (with node)")?;
                let file = folder.join("db.json").display().to_string();
                let port = port.to_string();
                let program = program.display().to_string();
                let words = ["node", &program, "--host", "127.0.0.1", "--port", &port, "--quiet", &file];
                Ok(words.into_iter().map(str::to_owned).collect())
            },
        );
        Self { url: kept.url.clone(), _kept: kept }
    }

    /// Adds a record to the list at a path.
    ///
    /// # Errors
    /// What the connection says, or the server's answer where it is no success.
    pub fn add(&self, path: &str, record: &str) -> io::Result<()> {
        let host = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host)?;
        let length = record.len();
        write!(
            stream,
            "POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{record}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 201") { Ok(()) } else { Err(io::Error::other(answer)) }
    }
}
