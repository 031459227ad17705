//! The way from words to a command and from its result to an exit code. For the binary and for `xtask`, not a public
//! interface.

use crate::args::Cli;
use crate::printer::{Printer, is_closed_output};
use crate::{commands, exit, interrupt, logs};
use clap::{CommandFactory, Parser};
use gristmill_model::Error;
use std::process::ExitCode;

/// The most files that are asked for; some systems take no more, however high their limit is said to be.
const MOST_FILES: u64 = 65_536;

/// Takes the system's leave to open many files at once, as databases do: shells allow 1,024, which writers of many partitions
/// and readers of many files need. What is not given is done without.
fn open_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(MOST_FILES).min(MOST_FILES);
    if limit.current.is_some_and(|now| now < most) {
        limit.current = Some(most);
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Reads the command line, does what it says, and answers with the exit code. Wrong words end the process with 2 and
/// `--help` with 0, as clap does it.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if error.use_stderr() && wants_json() {
                let text = error.render().to_string();
                let said = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
                Printer::json_only().failure(&Error::new(gristmill_model::ErrorKind::Usage, said));
            }
            error.exit();
        }
    };
    let printer = Printer::new(&cli.global);
    open_many_files();
    logs::begin(cli.global.verbose);
    #[cfg(debug_assertions)]
    if let Err(error) = crate::faults::install() {
        printer.error(&error);
        return ExitCode::from(exit::code_of(&error));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            printer.error(&Error::io(&error, "threads for the work"));
            return ExitCode::from(exit::FAILED);
        }
    };
    let result = runtime.block_on(async {
        let cancel = interrupt::listen(&printer);
        commands::dispatch(cli.command, &printer, cancel).await
    });
    // Threads that still read from a slow server must not keep the process alive.
    runtime.shutdown_background();
    match result {
        Ok(outcome) => outcome.code(),
        Err(error) if is_closed_output(&error) => ExitCode::from(exit::DONE),
        Err(error) => {
            printer.failure(&error);
            printer.error(&error);
            ExitCode::from(exit::code_of(&error))
        }
    }
}

/// Whether words that clap did not take ask for JSON all the same.
fn wants_json() -> bool {
    let words: Vec<String> = std::env::args().collect();
    words.iter().any(|word| word == "--output=json")
        || words.windows(2).any(|two| two[0] == "--output" && two[1] == "json")
}

/// The command line as clap knows it, for the generated reference.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}
