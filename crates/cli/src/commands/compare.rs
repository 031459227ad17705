//! `gristmill run --compare`: the same run twice, streaming and collecting everything first, each in a process of its
//! own, so that neither inherits the other's memory.

use crate::args::RunArgs;
use crate::exit::{self, Outcome};
use crate::printer::{Cell, Printer, Table, time};
use gristmill_model::{ByteSize, CancellationToken, Error, ErrorKind, Result};
use gristmill_orchestrator::RunReport;
use serde::Serialize;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long a run may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(30);

/// What one of the two runs took.
#[derive(Debug, Serialize)]
struct Measured {
    way: &'static str,
    millis: u64,
    peak_memory: Option<u64>,
    rows_loaded: u64,
    succeeded: bool,
}

/// Runs both and prints them side by side.
pub(crate) async fn run(args: &RunArgs, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    if args.from.is_some() {
        return Err(Error::new(ErrorKind::Usage, "`--compare` compares one date").hint("give `--date` instead"));
    }
    let mut measured = Vec::new();
    for (way, collect) in [("streaming", false), ("collecting", true)] {
        printer.note(format!("{way} …"));
        let report = child(args, collect, &cancel).await?;
        if let Some(error) = &report.error {
            printer.error(&error.clone().context(format!("the {way} run")));
            return Ok(Outcome::Ended(exit::code_of(error)));
        }
        let loads = report.steps.iter().filter(|step| step.kind == gristmill_model::StepKind::Load);
        measured.push(Measured {
            way,
            millis: report.millis,
            peak_memory: report.peak_memory,
            rows_loaded: loads.filter_map(|step| step.rows_out.or(step.rows_in)).sum(),
            succeeded: report.succeeded(),
        });
    }
    let mut table = Table::new(&["way", "time>", "peak memory>", "rows loaded>"]);
    for one in &measured {
        table.row([
            one.way.into(),
            time(one.millis).into(),
            one.peak_memory.map(|peak| ByteSize(peak).to_string()).unwrap_or_default().into(),
            Cell::from(crate::printer::number(one.rows_loaded)),
        ]);
    }
    table.print(printer, "")?;
    printer.document(&measured)?;
    if let [streaming, collecting] = measured.as_slice()
        && streaming.rows_loaded != collecting.rows_loaded
    {
        // An append is loaded by the first of the two and skipped by the second.
        printer.error(
            &Error::new(
                ErrorKind::Conflict,
                format!(
                    "the two runs did not do the same: one loaded {} rows, the other {}",
                    crate::printer::number(streaming.rows_loaded),
                    crate::printer::number(collecting.rows_loaded)
                ),
            )
            .hint("compare a pipeline whose loads replace what is there (`replace`, `delete+insert`, `partition_overwrite`)"),
        );
        return Ok(Outcome::Ended(exit::FAILED));
    }
    let all = measured.iter().all(|one| one.succeeded);
    Ok(if all { Outcome::Done } else { Outcome::Ended(exit::FAILED) })
}

/// Asks a process to end as Ctrl-C does.
fn interrupt(id: Option<u32>) {
    #[cfg(unix)]
    if let Some(id) = id.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::INT);
    }
    #[cfg(not(unix))]
    let _ = id;
}

/// One run in a process of its own; its report comes back as JSON.
async fn child(args: &RunArgs, collect: bool, cancel: &CancellationToken) -> Result<RunReport> {
    let own = std::env::current_exe().map_err(|error| Error::io(&error, "the path of this program"))?;
    let mut command = Command::new(own);
    command.args(["run", "--output", "json", "--quiet"]).arg(&args.pipeline.path);
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            command.arg(format!("--{name}={value}"));
        }
    };
    option("pipeline", args.pipeline.pipeline.clone());
    option("profile", args.pipeline.profile.clone());
    option("date", args.date.map(|date| date.to_string()));
    option("step", args.step.clone());
    option("memory", args.memory.map(|memory| memory.0.to_string()));
    for (key, value) in &args.pipeline.params {
        option("param", Some(format!("{key}={value}")));
    }
    command.args(args.full_refresh.then_some("--full-refresh")).args(collect.then_some("--collect"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // A second request to stop quits at once: the terminal must not send one beside ours.
    #[cfg(unix)]
    command.process_group(0);
    let child = command.spawn().map_err(|error| Error::io(&error, "a second process"))?;
    let id = child.id();
    let output = child.wait_with_output();
    let mut output = std::pin::pin!(output);
    let output = tokio::select! {
        output = &mut output => output.map_err(|error| Error::io(&error, "a second process"))?,
        () = cancel.cancelled() => {
            // It may be in the middle of a commit: it is asked to end, and killed only when it does not.
            interrupt(id);
            let _ = tokio::time::timeout(GRACE, &mut output).await;
            return Err(Error::new(ErrorKind::Canceled, "stopped on request"));
        }
    };
    serde_json::from_slice(&output.stdout).map_err(|_| {
        // It could not even begin: what it said about that is on its standard error.
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let kind = if output.status.code() == Some(2) { ErrorKind::Config } else { ErrorKind::Internal };
        Error::new(kind, said.trim_start_matches("error: ").to_owned())
    })
}
