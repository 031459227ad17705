//! Where the log goes: to standard error as far as `-v` asks for it, and, once a project is known, to its
//! `.gristmill/logs/<day>.log` in full.

use crate::printer::may_colour;
use chrono::Utc;
use gristmill_model::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::OnceLock;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// The project's log file; what is logged before a project is known goes to standard error alone.
static FILE: OnceLock<File> = OnceLock::new();

/// Starts logging. `GRISTMILL_LOG` (in the syntax of `RUST_LOG`) overrides `-v`.
pub(crate) fn begin(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "warn,gristmill=info,gristmill_connect=info,gristmill_engine=info,gristmill_orchestrator=info",
        _ => "info,gristmill=trace,gristmill_connect=trace,gristmill_engine=trace,gristmill_orchestrator=trace",
    };
    let filter = EnvFilter::try_from_env("GRISTMILL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // Whoever reads a pipe or a file wants no colours.
    let colour = may_colour() && io::stderr().is_terminal();
    let screen = fmt::layer().with_ansi(colour).with_writer(io::stderr).with_target(verbose > 1).with_filter(filter);
    // Prefixes: `gristmill` covers every crate of ours. Libraries log statements and headers at debug: not those.
    let kept = Targets::new().with_default(tracing::Level::WARN).with_target("gristmill", tracing::Level::DEBUG);
    let file = fmt::layer().with_ansi(false).with_writer(ProjectFile).with_filter(kept);
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(screen).with(file).try_init();
}

/// From now on the log is also kept in the project's state folder.
///
/// # Errors
/// A state folder that cannot be written.
pub(crate) fn keep_in(state: &Path) -> Result<()> {
    let folder = state.join("logs");
    std::fs::create_dir_all(&folder).map_err(|error| Error::io(&error, format!("`{}`", folder.display())))?;
    let path = folder.join(format!("{}.log", Utc::now().date_naive()));
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| Error::io(&error, format!("`{}`", path.display())))?;
    let _ = FILE.set(file);
    Ok(())
}

/// Writes each line with one call into the file opened for appending, so that runs side by side do not tear lines.
#[derive(Debug, Clone, Copy)]
struct ProjectFile;

impl<'a> MakeWriter<'a> for ProjectFile {
    type Writer = Box<dyn io::Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        match FILE.get() {
            Some(file) => Box::new(file),
            None => Box::new(io::sink()),
        }
    }
}
