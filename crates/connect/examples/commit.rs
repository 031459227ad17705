//! How long a commit of many staged files takes on local disk, and how long the recovery of one that was killed half way.
//!
//! ```text
//! commit [FILES [FOLDERS [KILLED]]]     10000 files in 100 folders, and 1000 of a killed commit, by default
//! ```
//!
//! The second is killed for real: this program starts itself, waits until half of the files have their names, and ends it.

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use gristmill_connect::sources::files::FilesConnection;
use gristmill_connect::stores::StoreOptions;
use gristmill_connect::{Connection, LoadContext, OpenContext, Rows, Sink};
use gristmill_model::spec::{LoadSpec, OneOrMany, Strategy};
use gristmill_model::{Checkpoint, Interval, LoadKey, OwnerId, RunId, Slot, Staged, TaskKey};
use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;

type Answer<T> = Result<T, Box<dyn Error>>;

fn key() -> LoadKey {
    let slot = Slot {
        pipeline: "bench".into(),
        step: "load".into(),
        interval: Interval::day(chrono::NaiveDate::default()),
        target: "lake:rows".to_owned(),
    };
    LoadKey { slot, generation: 1 }
}

fn owner() -> OwnerId {
    OwnerId(RunId::from("bench"))
}

/// One row for each folder: a writer makes a file in each of them.
fn batch(folders: usize) -> Answer<RecordBatch> {
    let column = |numbers: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(numbers)) };
    let numbers: Vec<i64> = (0..i64::try_from(folders)?).collect();
    Ok(RecordBatch::try_from_iter([("id", column(numbers.clone())), ("folder", column(numbers))])?)
}

fn sink(root: &Path, folders: usize) -> Answer<Arc<dyn Sink>> {
    let open = OpenContext { project: root.to_owned(), state: root.join("state") };
    let mut load = LoadSpec::new("rows".into(), "lake".into(), Strategy::PartitionOverwrite);
    load.path = Some("rows".to_owned());
    load.partition_by = OneOrMany(vec!["folder".to_owned()]);
    let context = LoadContext {
        key: key(),
        owner: owner(),
        schema: batch(folders)?.schema(),
        source_key: Vec::new(),
        alone: true,
        open: open.clone(),
        ledger_retention: None,
    };
    Ok(FilesConnection::open("lake", StoreOptions::default(), &open)?.sink(&load, context)?)
}

async fn stage(sink: &dyn Sink, files: usize, folders: usize) -> Answer<Vec<Staged>> {
    let mut staged = Vec::new();
    for partition in 0..files / folders {
        let task = TaskKey { load: key(), owner: owner(), partition: u32::try_from(partition)?, attempt: 1 };
        let rows = batch(folders)?;
        staged.push(sink.stage(&task, Rows::from_batches(rows.schema(), vec![rows])).await?);
    }
    Ok(staged)
}

/// Files that a reader sees.
fn published(root: &Path) -> usize {
    let folders = std::fs::read_dir(root.join("lake/rows")).into_iter().flatten().flatten();
    let folders = folders.filter(|folder| folder.file_name().to_string_lossy().contains('='));
    folders.map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().count()).sum()
}

#[expect(clippy::print_stdout, reason = "an example has no printer")]
fn told(what: &str, goal: &str, mut times: Vec<Duration>) {
    times.sort();
    let seconds: Vec<String> = times.iter().map(|time| format!("{:.3}", time.as_secs_f64())).collect();
    let median = seconds.get(seconds.len() / 2).map_or("-", String::as_str);
    println!("{what}: median {median} s of {} ({goal})", seconds.join(" "));
}

async fn killed(root: &Path, files: usize, folders: usize) -> Answer<Option<Duration>> {
    let program = std::env::current_exe()?;
    let arguments = ["child".as_ref(), root.as_os_str()];
    let mut child = Command::new(program)
        .args(arguments)
        .args([files.to_string(), folders.to_string()])
        .stdin(Stdio::null())
        .spawn()?;
    while published(root) < files / 2 && child.try_wait()?.is_none() {
        std::thread::yield_now();
    }
    child.kill()?;
    child.wait()?;
    let seen = published(root);
    let sink = sink(root, folders)?;
    let begun = Instant::now();
    sink.recover(&|_| true).await?;
    let time = begun.elapsed();
    if published(root) != files {
        return Err(format!("{} of {files} files are there after the recovery", published(root)).into());
    }
    // Where it was done before it could be killed there is nothing to measure.
    Ok((seen < files).then_some(time))
}

#[tokio::main]
async fn main() -> Answer<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [child, root, files, folders] = arguments.as_slice()
        && child == "child"
    {
        let (root, files, folders) = (Path::new(root), files.parse()?, folders.parse()?);
        let sink = sink(root, folders)?;
        let staged = stage(sink.as_ref(), files, folders).await?;
        sink.commit(&staged, &Checkpoint::default()).await?;
        return Ok(());
    }
    let number = |at: usize, default: usize| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let (files, folders, torn) = (number(0, 10_000)?, number(1, 100)?, number(2, 1000)?);
    let folder = std::env::current_dir()?.join(format!("commit-bench-{}", std::process::id()));
    let (mut commits, mut recoveries) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let root = folder.join(format!("commit-{round}"));
        std::fs::create_dir_all(&root)?;
        let sink = sink(&root, folders)?;
        let staged = stage(sink.as_ref(), files, folders).await?;
        let begun = Instant::now();
        sink.commit(&staged, &Checkpoint::default()).await?;
        commits.push(begun.elapsed());
        let root = folder.join(format!("killed-{round}"));
        std::fs::create_dir_all(&root)?;
        recoveries.extend(killed(&root, torn, folders).await?);
    }
    std::fs::remove_dir_all(&folder)?;
    told(&format!("commit of {files} files in {folders} folders"), "goal: under 2 s", commits);
    told(&format!("recovery of a killed commit of {torn} files"), "goal: under 1 s", recoveries);
    Ok(())
}
