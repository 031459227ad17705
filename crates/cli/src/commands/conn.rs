//! `gristmill conn`: list, test and look into the project's connections.

use crate::args::{ConnArgs, ConnCommand, ConnDiscoverArgs, ConnListArgs, ConnTestArgs};
use crate::context;
use crate::exit::{self, Outcome};
use crate::printer::{Cell, Printer, Table, Tone, number, time};
use gristmill_model::{ByteSize, Error, Result};
use gristmill_orchestrator::Project;
use std::time::Instant;

/// Does one of the commands.
pub(crate) async fn run(args: &ConnArgs, printer: &Printer) -> Result<Outcome> {
    match &args.command {
        ConnCommand::List(args) => list(args, printer).await,
        ConnCommand::Test(args) => test(args, printer).await,
        ConnCommand::Discover(args) => discover(args, printer).await,
    }
}

async fn list(args: &ConnListArgs, printer: &Printer) -> Result<Outcome> {
    let project = context::load(&args.project.project, args.project.profile.as_deref()).await?;
    let mut table = Table::new(&["connection", "type", "leads to"]);
    let mut document = Vec::new();
    for name in project.connections.keys() {
        let connection = context::connection(&project, name.as_str())?;
        let leads_to = connection.describe();
        document.push(serde_json::json!({"name": name, "type": connection.kind(), "leads_to": leads_to}));
        table.row([name.as_str().into(), connection.kind().into(), leads_to.into()]);
    }
    if table.is_empty() {
        printer.note("the project has no connections");
    } else {
        table.print(printer, "")?;
    }
    printer.document(&document)?;
    Ok(Outcome::Done)
}

/// What testing one connection gave.
pub(super) struct Tested {
    pub(super) kind: &'static str,
    pub(super) millis: u64,
    pub(super) result: Result<gristmill_connect::ConnectionInfo>,
}

/// Tests one connection.
pub(super) async fn test_one(project: &Project, name: &str) -> Result<Tested> {
    let connection = context::connection(project, name)?;
    let begun = Instant::now();
    let result = connection.test().await.map_err(|error| error.context(format!("connection `{name}`")));
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Tested { kind: connection.kind(), millis, result })
}

async fn test(args: &ConnTestArgs, printer: &Printer) -> Result<Outcome> {
    let project = context::load(&args.project.project, args.project.profile.as_deref()).await?;
    let names: Vec<String> = match &args.name {
        Some(name) => vec![name.clone()],
        None => project.connections.keys().map(ToString::to_string).collect(),
    };
    let mut worst = Outcome::Done;
    let mut document = Vec::new();
    for name in names {
        let tested = test_one(&project, &name).await?;
        match &tested.result {
            Ok(info) => {
                let good = printer.paint(Tone::Good, "ok");
                printer.line(format!("{good} {name}: {} ({})", info.server, time(tested.millis)))?;
                for (key, value) in &info.details {
                    printer.line(format!("   {key}: {value}"))?;
                }
                let details: serde_json::Map<_, _> =
                    info.details.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
                document.push(serde_json::json!({
                    "name": name, "ok": true, "server": info.server, "details": details, "millis": tested.millis,
                }));
            }
            Err(error) => {
                worst = Outcome::Ended(exit::code_of(error));
                document.push(serde_json::json!({"name": name, "ok": false, "error": error, "millis": tested.millis}));
                printer.error(error);
            }
        }
    }
    printer.document(&document)?;
    Ok(worst)
}

/// At most so many of a table's columns are proposed as `incremental_key` in the table; all of them in the document.
const CURSORS: usize = 3;

async fn discover(args: &ConnDiscoverArgs, printer: &Printer) -> Result<Outcome> {
    let project = context::load(&args.project.project, args.project.profile.as_deref()).await?;
    let connection = context::connection(&project, &args.name)?;
    let found =
        connection.discover().await.map_err(|error: Error| error.context(format!("connection `{}`", args.name)))?;
    let mut table = Table::new(&["name", "rows>", "bytes>", "key", "columns>", "may be a cursor"]);
    for one in &found {
        table.row([
            one.name.as_str().into(),
            one.rows.map(number).unwrap_or_default().into(),
            one.bytes.map(|bytes| ByteSize(bytes).to_string()).unwrap_or_default().into(),
            one.key.join(", ").into(),
            if one.columns.is_empty() { Cell::default() } else { one.columns.len().to_string().into() },
            one.cursors.iter().take(CURSORS).map(String::as_str).collect::<Vec<_>>().join(", ").into(),
        ]);
    }
    if table.is_empty() {
        printer.note(format!("nothing to extract from `{}`", args.name));
    } else if args.columns {
        for one in &found {
            printer.line(printer.paint(Tone::Strong, &one.name))?;
            for (column, of) in &one.columns {
                printer.line(format!("  {column} {}", printer.paint(Tone::Dim, of)))?;
            }
        }
    } else {
        table.print(printer, "")?;
    }
    let document: Vec<_> = found
        .iter()
        .map(|one| {
            let columns: Vec<_> =
                one.columns.iter().map(|(name, of)| serde_json::json!({"name": name, "type": of})).collect();
            serde_json::json!({
                "name": one.name, "rows": one.rows, "bytes": one.bytes, "key": one.key, "columns": columns,
                "cursors": one.cursors,
            })
        })
        .collect();
    printer.document(&document)?;
    Ok(Outcome::Done)
}
