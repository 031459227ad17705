//! `gristmill completions`: a completion script for a shell.

use crate::args::{Cli, CompletionsArgs};
use crate::exit::Outcome;
use crate::printer::Printer;
use clap::CommandFactory;
use gristmill_model::Result;

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs, printer: &Printer) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gristmill", &mut script);
    printer.raw(&script)?;
    Ok(Outcome::Done)
}
