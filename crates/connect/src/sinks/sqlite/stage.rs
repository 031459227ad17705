//! Side files: rows that wait for the commit, as Arrow IPC files below the state folder.
//!
//! ```text
//! <state>/staging/sqlite/<load>-<owner>-<partition>-<attempt>.arrow      complete: written, fsynced, renamed
//!                                                            .arrow.tmp  being written, or left by a crash
//! ```
//!
//! The name says whose it is, so that an abort finds a load's files and a recovery a dead owner's, without opening any.

use super::convert::Affinity;
use super::shape::Shape;
use super::{Inner, target};
use crate::{RefusedRows, Rows};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use futures::StreamExt;
use gristmill_model::fault::{self, Point};
use gristmill_model::spec::{ExtractSpec, FileFormat, OneOrMany};
use gristmill_model::{Error, ErrorKind, KeptRows, OwnerId, Result, ResultExt, RunId, Staged, TaskKey};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The ending of a complete side file.
const DONE: &str = ".arrow";
/// The ending of one that is being written.
const TEMPORARY: &str = ".arrow.tmp";
/// Batches that may wait for the writer.
const WAITING: usize = 2;

/// What is sent to the writing thread. Without the end, what was written is thrown away.
enum Message {
    Batch(RecordBatch),
    End,
}

/// Whose a side file is, told by its name.
pub(super) struct Name {
    pub(super) load: String,
    pub(super) owner: OwnerId,
}

impl Name {
    /// Reads `<load>-<owner>-<partition>-<attempt>`; an owner may have dashes in it.
    fn parse(file: &str) -> Option<Self> {
        let stem = file.strip_suffix(DONE).or_else(|| file.strip_suffix(TEMPORARY))?;
        let (load, rest) = stem.split_once('-')?;
        let (rest, _attempt) = rest.rsplit_once('-')?;
        let (owner, _partition) = rest.rsplit_once('-')?;
        Some(Self { load: load.to_owned(), owner: OwnerId(RunId::new(owner)) })
    }
}

/// Writes rows to a side file.
pub(super) async fn stage(inner: Arc<Inner>, task: TaskKey, mut rows: Rows) -> Result<Staged> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let name = task.file_stem();
    let refused = rows.refused().cloned();
    let writer = super::blocking(move || write(&inner, &name, receiver, refused));
    let feed = async move {
        while let Some(batch) = rows.next().await {
            // A writer that stopped says itself why.
            if sender.send(Message::Batch(batch?)).await.is_err() {
                return Ok(());
            }
        }
        let _ = sender.send(Message::End).await;
        Ok::<(), Error>(())
    };
    let (fed, written) = futures::join!(feed, writer);
    fed?;
    let (file, rows, bytes) = written?.ok_or_else(|| Error::internal("a side file was left unfinished"))?;
    Ok(Staged { task, rows, bytes, files: Vec::new(), payload: serde_json::json!({ "file": file }) })
}

/// Writes until the end was sent; `None`, and no file, when the sender went away before.
fn write(
    inner: &Inner,
    name: &str,
    mut receiver: mpsc::Receiver<Message>,
    refused: Option<RefusedRows>,
) -> Result<Option<(String, u64, u64)>> {
    let staging = inner.staging();
    let folder = |error: std::io::Error| Error::io(&error, format!("the staging folder `{}`", staging.display()));
    std::fs::create_dir_all(&staging).map_err(folder)?;
    let (file, temporary) = (format!("{name}{DONE}"), staging.join(format!("{name}{TEMPORARY}")));
    match write_to(inner, &temporary, &mut receiver, refused) {
        Ok(Some((rows, bytes))) => {
            let renamed =
                std::fs::rename(&temporary, staging.join(&file)).and_then(|()| File::open(&staging)?.sync_all());
            renamed.map_err(|error| Error::io(&error, format!("`{}`", temporary.display())))?;
            Ok(Some((file, rows, bytes)))
        }
        unfinished => {
            // What cannot be removed now is found by its name.
            let _ = std::fs::remove_file(&temporary);
            unfinished.map(|_| None)
        }
    }
}

fn write_to(
    inner: &Inner,
    path: &Path,
    receiver: &mut mpsc::Receiver<Message>,
    refused: Option<RefusedRows>,
) -> Result<Option<(u64, u64)>> {
    let broken = |error: arrow::error::ArrowError| match error {
        arrow::error::ArrowError::IoError(_, error) => Error::io(&error, format!("`{}`", path.display())),
        other => Error::internal(format!("`{}` cannot be written", path.display())).cause(other),
    };
    // What the table makes of numbers decides which can be kept; a table made meanwhile is looked at again on commit.
    let table = if inner.database.exists() { inner.table(&inner.database.open_to_read()?)? } else { None };
    let affinities = target::affinities(inner, table.as_ref());
    let schema = side_schema(inner);
    let shape = refused.map(|refused| Shape::new(inner, table.as_ref(), refused)).transpose()?;
    fault::at(Point::BeforeIntent)?;
    let file = File::create(path).map_err(|error| Error::io(&error, format!("`{}`", path.display())))?;
    fault::at(Point::AfterIntent)?;
    let mut writer = FileWriter::try_new(BufWriter::with_capacity(1 << 18, file), &schema).map_err(broken)?;
    let mut rows = 0_u64;
    loop {
        let batch = match receiver.blocking_recv() {
            Some(Message::Batch(batch)) => batch,
            Some(Message::End) => break,
            None => return Ok(None),
        };
        if batch.num_columns() != inner.shelves.len() {
            return Err(Error::internal(format!(
                "a batch has {} columns of {}",
                batch.num_columns(),
                inner.shelves.len()
            )));
        }
        let kept = match &shape {
            Some(shape) => shape.sift(&batch, &schema),
            None => put(inner, &batch, &affinities, &schema).map(|kept| vec![kept]),
        };
        for kept in kept.context(|| format!("rows for `{}`", inner.plan.table))? {
            writer.write(&kept).map_err(broken)?;
            rows += kept.num_rows() as u64;
        }
        fault::at(Point::StagedBytes)?;
    }
    writer.write_metadata("gristmill.load", inner.context.key.text());
    writer.finish().map_err(broken)?;
    let io = |error: std::io::Error| Error::io(&error, format!("`{}`", path.display()));
    let file = writer.into_inner().map_err(broken)?.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    Ok(Some((rows, file.metadata().map_err(io)?.len())))
}

/// Rows as they are kept in a side file.
///
/// # Errors
/// A value that SQLite cannot keep.
pub(super) fn put(
    inner: &Inner,
    batch: &RecordBatch,
    affinities: &[Affinity],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let shelves = inner.shelves.iter().zip(affinities).zip(batch.columns());
    let columns: Vec<ArrayRef> =
        shelves.map(|((shelf, into), column)| shelf.put(column, *into)).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|error| Error::internal("rows do not fit their side file").cause(error))
}

fn side_schema(inner: &Inner) -> SchemaRef {
    let fields = inner.shelves.iter().map(|shelf| Field::new(&shelf.name, shelf.kind.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The side file of `staged`.
pub(super) fn path_of(staging: &Path, staged: &Staged) -> Result<PathBuf> {
    let file = staged.payload.get("file").and_then(|file| file.as_str());
    let file = file.filter(|file| Name::parse(file).is_some() && !file.contains(['/', '\\']));
    let file = file.ok_or_else(|| Error::internal("what was staged names no side file").cause(&staged.payload))?;
    Ok(staging.join(file))
}

/// How the side files of a load can be read.
pub(super) fn keep(staging: &Path, staged: &[Staged]) -> Result<Option<KeptRows>> {
    let name = |staged: &Staged| {
        let path = path_of(staging, staged)?;
        Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
    };
    let files: Vec<String> = staged.iter().map(name).collect::<Result<_>>()?;
    if files.is_empty() {
        return Ok(None);
    }
    let extract = ExtractSpec {
        path: Some(OneOrMany(files)),
        format: Some(FileFormat::Arrow),
        ..ExtractSpec::new("staged".into())
    };
    Ok(Some(KeptRows { folder: Some(staging.display().to_string()), extract }))
}

/// Opens a complete side file.
pub(super) fn open(inner: &Inner, staged: &Staged) -> Result<FileReader<BufReader<File>>> {
    let path = path_of(&inner.staging(), staged)?;
    let shown = path.display();
    let lost = || format!("run the step again: the rows staged in `{shown}` are gone");
    let file = File::open(&path).map_err(|error| Error::io(&error, format!("`{shown}`")).hint(lost()))?;
    let reader = FileReader::try_new_buffered(file, None).map_err(|error| {
        Error::new(ErrorKind::Data, format!("the side file `{shown}` is damaged")).cause(error).hint(lost())
    })?;
    let key = inner.context.key.text();
    if reader.custom_metadata().get("gristmill.load") != Some(&key) {
        return Err(Error::internal(format!("the side file `{shown}` is not of the load `{key}`")));
    }
    if reader.schema() != side_schema(inner) {
        return Err(Error::new(ErrorKind::Schema, format!("the side file `{shown}` has other columns than the load"))
            .hint("run the step again"));
    }
    Ok(reader)
}

/// Removes the side files of a load that is committed.
pub(super) fn remove_staged(staging: &Path, staged: &[Staged]) {
    for path in staged.iter().filter_map(|staged| path_of(staging, staged).ok()) {
        // A kill is all that can be planned here: what stays behind is found by its name.
        let _ = fault::at(Point::BeforeSweep);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a side file of a committed load could not be removed");
        }
    }
}

/// Every owner that has side files here.
pub(super) fn owners(staging: &Path) -> Result<HashSet<OwnerId>> {
    Ok(list(staging)?.into_iter().map(|(_, name)| name.owner).collect())
}

/// Removes side files, and counts them.
pub(super) fn sweep(staging: &Path, which: impl Fn(&Name) -> bool) -> Result<u64> {
    let mut swept = 0;
    for (path, _) in list(staging)?.into_iter().filter(|(_, name)| which(name)) {
        match std::fs::remove_file(&path) {
            Ok(()) => swept += 1,
            // Somebody else swept it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&error, format!("the side file `{}`", path.display()))),
        }
    }
    Ok(swept)
}

fn list(staging: &Path) -> Result<Vec<(PathBuf, Name)>> {
    let failed = |error: std::io::Error| Error::io(&error, format!("the staging folder `{}`", staging.display()));
    let entries = match std::fs::read_dir(staging) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let Some(name) = entry.file_name().to_str().and_then(Name::parse) {
            found.push((entry.path(), name));
        }
    }
    Ok(found)
}
