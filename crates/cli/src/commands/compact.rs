//! `gristmill compact`: many small files of a target become few.

use super::copy::{folders, surrounding};
use crate::args::CompactArgs;
use crate::context;
use crate::exit::Outcome;
use crate::place::{Place, What};
use crate::printer::{Printer, Table, number};
use gristmill_connect::{Compacted, Compaction, Connection, OpenContext, registry};
use gristmill_model::yaml::to_error;
use gristmill_model::{ByteSize, CancellationToken, Error, ErrorKind, OwnerId, Result, RunId};
use gristmill_orchestrator::Project;
use gristmill_orchestrator::store::Owners;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

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
    let connection = open(&place, project.as_deref())?;
    let want = Compaction {
        path: path.clone(),
        partitions: args.partition.clone(),
        file_size: args.file_size.map(|size| size.0),
        dry_run: args.dry_run,
    };
    let (_, state) = folders(project.as_deref())?;
    let done = if args.dry_run {
        let nobody = OwnerId(RunId::from("plan"));
        connection.compact(&want, &nobody, &|_| false, &cancel).await?
    } else {
        // However it is written: what a killed compaction of the folder has left is found by this.
        let target = format!("{} {}", connection.describe(), path.trim_matches('/'));
        as_owner(&state, &target, connection.as_ref(), &want, &cancel).await?
    };
    tell(&args.target, &done, args.dry_run, printer)?;
    printer.document(&done)?;
    Ok(Outcome::Done)
}

fn open(place: &Place, project: Option<&Project>) -> Result<Arc<dyn Connection>> {
    match (&place.made, project) {
        (None, Some(project)) => context::connection(project, place.connection.as_str()),
        (None, None) => Err(Error::internal("a connection without a project")),
        (Some(made), _) => {
            let (root, state) = folders(project)?;
            registry::open(made, &OpenContext { project: root, state }).map_err(|mistakes| to_error(&mistakes))
        }
    }
}

/// Compacts under a lock that tells the next compaction of this target whether this one lives. The locks have a folder of
/// their own: they are no runs, which the store would know.
async fn as_owner(
    state: &Path,
    target: &str,
    connection: &dyn Connection,
    want: &Compaction,
    cancel: &CancellationToken,
) -> Result<Vec<Compacted>> {
    let owners = Owners::new(&state.join("compactions"));
    let hash = target
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let prefix = format!("compact-{hash:016x}-");
    let id = RunId::from(format!("{prefix}{}-{}", chrono::Utc::now().timestamp_micros(), std::process::id()));
    let (looking, locked) = (owners.clone(), id.clone());
    let (dead, lock) = tokio::task::spawn_blocking(move || {
        let left = looking.left()?.into_iter().filter(|run| run.as_str().starts_with(&prefix));
        let dead: BTreeSet<String> = left.map(|run| run.as_str().to_owned()).collect();
        Ok::<_, Error>((dead, looking.hold(&locked)?))
    })
    .await
    .map_err(|error| Error::internal("taking a lock ended early").cause(error))??;
    let done = connection.compact(want, &OwnerId(id), &|owner| dead.contains(owner.0.as_str()), cancel).await;
    if done.is_ok() {
        for run in &dead {
            owners.forget(&RunId::from(run.as_str()));
        }
    }
    drop(lock);
    done
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
