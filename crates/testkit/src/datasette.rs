//! Datasette from PyPI, a third party's HTTP API over a SQLite database of ours: pages by a token (`next`), by a link in
//! the body (`next_url`) and by the `Link` header, as JSON, NDJSON and CSV.
//!
//! `./test` installs it below `tests/servers`, at the versions of its `requirements.txt`.

use crate::kept::{Kept, installed};
use std::fmt;
use std::path::Path;

/// A running server; ends with the value.
pub struct Datasette {
    /// `http://127.0.0.1:port`; a table is at `/db/TABLE.json`.
    pub url: String,
    _kept: Kept,
}

impl fmt::Debug for Datasette {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datasette").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Datasette {
    /// Serves a copy of a SQLite database, as `db`.
    ///
    /// # Panics
    /// When the server is not installed or does not start; the message says what to do.
    #[must_use]
    pub fn start(database: &Path) -> Self {
        let kept = Kept::start(
            "datasette",
            "/-/versions.json",
            |folder| std::fs::copy(database, folder.join("db.db")).map(drop),
            |port, folder| {
                let install = "python3 -m venv tests/servers/.venv && \
                               tests/servers/.venv/bin/pip install -r tests/servers/requirements.txt";
                let program = installed(".venv/bin/datasette", install)?.display().to_string();
                let file = folder.join("db.db").display().to_string();
                let port = port.to_string();
                let words = [&program, "serve", &file, "--host", "127.0.0.1", "--port", &port];
                Ok(words.into_iter().map(str::to_owned).collect())
            },
        );
        Self { url: kept.url.clone(), _kept: kept }
    }
}
