//! `gristmill compact`: many small files of a target become few.

use super::copy::{folders, surrounding};
use crate::args::CompactArgs;
use crate::compactions::{AtWork, Target, connection_of};
use crate::exit::Outcome;
use crate::place::{Place, What};
use crate::printer::{Printer, Table, number};
use gristmill_connect::{Compacted, Compaction};
use gristmill_model::spec::{LoadSpec, StepBody, Strategy};
use gristmill_model::{ByteSize, CancellationToken, ConnectionName, Error, ErrorKind, OwnerId, Result, RunId};
use gristmill_orchestrator::Project;

/// Compacts a target.
pub(crate) async fn run(args: &CompactArgs, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    let project = surrounding(&args.project.project, args.project.profile.as_deref()).await?;
    let place = Place::parse(&args.target, "target", project.as_deref())?;
    let What::Path(path) = &place.what else {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("`{}` is a table, which has no files to compact", args.target),
        )
        .hint("name a folder of files: `connection:path/`"));
    };
    let connection = connection_of(&place, project.as_deref())?;
    let load = match project.clone().filter(|_| place.made.is_none()) {
        Some(project) => {
            let (connection, path) = (place.connection.clone(), path.clone());
            let found = tokio::task::spawn_blocking(move || load_to(&project, &connection, &path)).await;
            found.map_err(|error| Error::internal("looking for the load ended early").cause(error))?
        }
        None => None,
    };
    let want = Compaction {
        load,
        partitions: args.partition.clone(),
        file_size: args.file_size.map(|size| size.0),
        dry_run: args.dry_run,
        ..Compaction::of(path)
    };
    let done = if args.dry_run {
        let nobody = OwnerId(RunId::from("plan"));
        connection.compact(&want, &nobody, &|_| false, &cancel).await?
    } else {
        let (_, state) = folders(project.as_deref())?;
        let at_work = AtWork::begin(&state, Target::new(&place, project.as_deref()), &cancel).await?;
        let dead = at_work.dead();
        let done = connection.compact(&want, &at_work.owner(), &|owner| dead.contains(owner.0.as_str()), &cancel).await;
        at_work.end(done.is_ok());
        done?
    };
    tell(&args.target, &done, args.dry_run, printer)?;
    printer.document(&done)?;
    Ok(Outcome::Done)
}

/// The load that writes to this folder, if there is one; several must write their files alike.
fn load_to(project: &Project, connection: &ConnectionName, path: &str) -> Option<LoadSpec> {
    let bare = |path: &str| path.trim_start_matches("./").trim_matches('/').to_owned();
    let steps = project.pipelines().iter().filter_map(|draft| project.sample(draft)).flat_map(|spec| spec.steps);
    let mut loads = steps.filter_map(|step| match step.body {
        StepBody::Load(load) if load.to == *connection && load.path.as_deref().map(bare) == Some(bare(path)) => {
            Some(load)
        }
        _ => None,
    });
    let first = loads.next()?;
    let files = |load: &LoadSpec| LoadSpec {
        format: load.format,
        compression: load.compression,
        compression_level: load.compression_level,
        file_size: load.file_size,
        row_group_rows: load.row_group_rows,
        csv: load.csv.clone(),
        parquet: load.parquet.clone(),
        ..LoadSpec::new("any".into(), connection.clone(), Strategy::Append)
    };
    loads.all(|other| files(&other) == files(&first)).then_some(first)
}

fn tell(target: &str, done: &[Compacted], dry_run: bool, printer: &Printer) -> Result<()> {
    if done.is_empty() {
        return printer.line(format!("`{target}` is compact already"));
    }
    let size = |bytes: u64| ByteSize(bytes).to_string();
    let mut table = Table::new(&["partition", "files", "bytes", "files after", "bytes after", "rows"]);
    for part in done {
        let partition = if part.partition.is_empty() { "(all)" } else { part.partition.as_str() };
        let known = |value: Option<u64>, shown: fn(u64) -> String| value.map_or_else(|| "-".to_owned(), shown);
        table.row([
            partition.into(),
            number(part.files_before).into(),
            size(part.bytes_before).into(),
            known(part.files_after, number).into(),
            known(part.bytes_after, |bytes| ByteSize(bytes).to_string()).into(),
            known(part.rows, number).into(),
        ]);
    }
    table.print(printer, "")?;
    for part in done.iter().filter(|part| part.skipped.is_some()) {
        let why = part.skipped.as_deref().unwrap_or_default();
        printer.line(format!("`{}` stayed as it was: {why}", part.partition))?;
    }
    let sum = |of: fn(&Compacted) -> u64| done.iter().map(of).sum::<u64>();
    let before = sum(|part| if part.skipped.is_some() { 0 } else { part.files_before });
    if dry_run {
        return printer.line(format!("{} files would be rewritten; nothing was done", number(before)));
    }
    let after = sum(|part| part.files_after.unwrap_or_default());
    printer.line(format!("{} files became {}", number(before), number(after)))
}
