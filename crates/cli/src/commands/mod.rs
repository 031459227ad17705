//! One file per command.

mod compact;
mod compare;
mod completions;
mod conn;
mod copy;
mod dead_letters;
mod doctor;
mod generate;
mod init;
mod plan;
mod recover;
mod run;
mod runs;
mod show;
mod sql;
mod staged;
mod validate;

pub(crate) use copy::folders;

use crate::args::Command;
use crate::exit::Outcome;
use crate::printer::Printer;
use gristmill_model::{CancellationToken, Error, ErrorKind, Result};
use tokio::task::JoinHandle;

/// Does what the command line says.
pub(crate) async fn dispatch(command: Command, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    // What stages and commits hears the request to stop itself, and cleans up; everything else just ends.
    let looking = match command {
        Command::Run(args) => return run::run(args, printer, cancel).await,
        Command::Copy(args) => return copy::run(args, printer, cancel).await,
        Command::Generate(args) => return generate::run(args, printer, cancel).await,
        Command::Compact(args) => return compact::run(&args, printer, cancel).await,
        Command::Recover(args) => return recover::run(&args, printer, cancel).await,
        Command::DeadLetters(args) => return dead_letters::run(&args, printer, cancel).await,
        looking => looking,
    };
    // A task of its own: an operator that computes for a minute without a pause must not keep the request from being heard.
    let printer = printer.clone();
    let work = tokio::spawn(async move { look(looking, &printer).await });
    or_canceled(work, &cancel).await
}

/// The answer of a task, unless somebody asks for a stop before it is there.
async fn or_canceled<T>(mut work: JoinHandle<Result<T>>, cancel: &CancellationToken) -> Result<T> {
    tokio::select! {
        ended = &mut work => ended.map_err(|error| Error::internal("the command ended early").cause(error))?,
        () = cancel.cancelled() => {
            work.abort();
            Err(Error::new(ErrorKind::Canceled, "stopped on request"))
        }
    }
}

async fn look(command: Command, printer: &Printer) -> Result<Outcome> {
    match command {
        Command::Init(args) => init::run(&args, printer),
        Command::Validate(args) => validate::run(&args, printer).await,
        Command::Plan(args) => plan::run(&args, printer).await,
        Command::Runs(args) => runs::run(&args, printer).await,
        Command::Show(args) => show::run(&args, printer).await,
        Command::Sql(args) => sql::run(args, printer).await,
        Command::Conn(args) => conn::run(&args, printer).await,
        Command::Doctor(args) => doctor::run(&args, printer).await,
        Command::Completions(args) => completions::run(&args, printer),
        Command::Run(_)
        | Command::Copy(_)
        | Command::Compact(_)
        | Command::Generate(_)
        | Command::Recover(_)
        | Command::DeadLetters(_) => Err(Error::internal("a command that works was taken for one that looks")),
    }
}
