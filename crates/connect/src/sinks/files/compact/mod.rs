//! Compaction: the many small files of a partition become few, and not a row changes.
//!
//! ```text
//! list ─► plan (pure) ─► each partition: read ─► stage as any load does ─► lock ─► are all files still there?
//!                                                    └──► one log entry: publish the new, remove the old ─► roll forward
//! ```
//!
//! The entry has no strategy, since rows only move. Loads and compactions take their turns by the log; whichever comes
//! second looks again: a load that overwrites lists the files there are then, and a compaction whose files are gone gives up.
//! Whoever dies before the entry leaves staged files that the next compaction sweeps, whoever dies behind it leaves an
//! entry that everybody rolls forward.

mod plan;

use super::delta::is_table;
use super::layout::join;
use super::log::{self, Decision, Entry, Log};
use super::place::{Place, at, blocking};
use super::{Faults, FilesSink, config};
use crate::compaction::{Compacted, Compaction};
use crate::sources::files::formats::{self, FileInput};
use crate::stores::{self, Store};
use crate::{LoadContext, OpenContext, Recovered, Rows, Scan};
use arrow::datatypes::{Schema, SchemaRef};
use chrono::Utc;
use futures::{StreamExt, TryStreamExt};
use gristmill_model::fault::Point;
use gristmill_model::spec::{Compression, CsvOptions, FileFormat, JsonOptions, LoadSpec, OnFail, Strategy};
use gristmill_model::{
    ByteSize, CancellationToken, Checkpoint, Error, ErrorKind, Interval, LoadKey, OwnerId, Result, RunId, Slot,
    StagedFile, TaskKey,
};
use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;
use plan::{Rewrite, Small};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Files whose columns are looked at side by side.
const AT_ONCE: usize = 8;
/// Rows that are read at once.
const BATCH_ROWS: usize = 8192;
/// Rivals that were first so often in a row are not rivals but something broken.
const MOST_TRIES: u32 = 200;

/// Compacts what `want` names. `is_dead` says which earlier compactions died, to sweep what they left.
///
/// # Errors
/// A target without files, or with none that keep their types; a store that refuses. Partitions that were done stay done.
pub async fn compact(
    store: &Arc<Store>,
    open: &OpenContext,
    want: &Compaction,
    owner: &OwnerId,
    is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Vec<Compacted>> {
    compact_with(&Work { store, open, want, owner, faults: Faults::default() }, is_dead, cancel).await
}

/// Finishes what compactions of `path` had decided, and sweeps what they had only staged, where `is_dead` says so of their owner.
///
/// # Errors
/// A store that refuses.
pub async fn recover_compactions(
    store: &Arc<Store>,
    open: &OpenContext,
    path: &str,
    is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync),
) -> Result<Recovered> {
    let want = Compaction::of(path);
    let nobody = OwnerId(RunId::from("recovery"));
    let work = Work { store, open, want: &want, owner: &nobody, faults: Faults::default() };
    work.sink(FileFormat::Parquet, &Arc::new(Schema::empty()), "", 0)?.recover_dead(is_dead).await
}

/// As [`compact`], with faults at the points that are passed.
pub(super) async fn compact_with(
    work: &Work<'_>,
    is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Vec<Compacted>> {
    let want = work.want;
    let none = Arc::new(Schema::empty());
    let target = work.sink(FileFormat::Parquet, &none, "", 0)?;
    if target.config.single.is_some() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("`{}` names one file; there is nothing to compact", want.path),
        )
        .hint("name the folder of a target, e.g. `lake:orders/`"));
    }
    if is_table(&target.place).await? {
        return Err(Error::new(
            ErrorKind::Config,
            format!("`{}` is a Delta table, which only its own log can make compact", want.path),
        )
        .hint("use `OPTIMIZE` of Spark, or `DeltaTable(...).optimize.compact()` of the Python package `deltalake`"));
    }
    if !want.dry_run {
        target.recover_dead(is_dead).await?;
    }
    let files = sized(&target.place).await?;
    work.look(&files)?;
    let mut done = Vec::new();
    let mut number = 0;
    for rewrite in plan::plan(&files, target.config.file_size, &want.partitions) {
        for (schema, rewrite) in work.by_schema(&target.place, rewrite).await? {
            if cancel.is_cancelled() {
                return Err(Error::new(ErrorKind::Canceled, "stopped on request"));
            }
            number += 1;
            done.push(work.rewrite(number, &schema, rewrite).await?);
        }
    }
    Ok(done)
}

/// One compaction.
pub(super) struct Work<'a> {
    pub(super) store: &'a Arc<Store>,
    pub(super) open: &'a OpenContext,
    pub(super) want: &'a Compaction,
    pub(super) owner: &'a OwnerId,
    pub(super) faults: Faults,
}

/// The data files with their sizes.
async fn sized(place: &Place) -> Result<Vec<Small>> {
    let paths = place.data_files().await?;
    match place {
        Place::Local(local) => {
            let local = local.clone();
            blocking(move || {
                let sized = paths.into_iter().filter_map(|path| match std::fs::metadata(local.path(&path)) {
                    Ok(found) => Some(Ok(Small { path, bytes: found.len() })),
                    // Removed just now, by a load.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                    Err(error) => Some(Err(at(&local.path(&path))(error))),
                });
                sized.collect()
            })
            .await
        }
        Place::Remote(remote) => {
            let root = remote.root.as_ref();
            let prefix = if root.is_empty() { String::new() } else { format!("{root}/") };
            let listed: BTreeMap<String, u64> = remote.list("").await?.into_iter().collect();
            let size = |path: &String| listed.get(&format!("{prefix}{path}")).copied();
            Ok(paths.into_iter().filter_map(|path| size(&path).map(|bytes| Small { path, bytes })).collect())
        }
    }
}

impl Work<'_> {
    /// Complains about a target that has nothing to compact, and about partitions that are not there.
    fn look(&self, files: &[Small]) -> Result<()> {
        let path = &self.want.path;
        if files.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("there are no data files in `{path}`"))
                .hint("name the folder that a load writes to"));
        }
        let formats: Vec<FileFormat> = files.iter().filter_map(|file| plan::format_of(&file.path)).collect();
        if !formats.iter().any(|format| plan::can_be_rewritten(*format)) {
            let format = formats.first().map_or("of no known format", |format| format.as_str());
            return Err(Error::new(
                ErrorKind::Config,
                format!("the files of `{path}` are {format}, which keeps no types"),
            )
            .hint("Parquet, Avro and Arrow files can be compacted; load others anew with `strategy: replace`"));
        }
        let folders = || files.iter().map(|file| super::layout::split(&file.path).0);
        for wanted in &self.want.partitions {
            if !folders().any(|folder| !folder.is_empty() && plan::is_wanted(folder, std::slice::from_ref(wanted))) {
                let mut known: Vec<&str> = folders().collect();
                known.dedup();
                return Err(Error::new(ErrorKind::Usage, format!("`{path}` has no partition `{wanted}`"))
                    .hint(gristmill_model::one_of(wanted, known)));
            }
        }
        Ok(())
    }

    /// The sink of one rewrite: a load of its own into the partition's folder.
    fn sink(&self, format: FileFormat, schema: &SchemaRef, partition: &str, number: u32) -> Result<FilesSink> {
        let mut load = LoadSpec::new("compact".into(), "target".into(), Strategy::Append);
        load.path = Some(self.want.path.clone());
        load.format = Some(format);
        load.file_size = self.want.file_size.map(ByteSize);
        let slot = Slot {
            pipeline: "compact".into(),
            step: self.owner.0.as_str().into(),
            interval: Interval::day(Utc::now().date_naive()),
            target: self.want.path.clone(),
        };
        let context = LoadContext {
            key: LoadKey { slot, generation: number },
            owner: self.owner.clone(),
            schema: schema.clone(),
            source_key: Vec::new(),
            alone: true,
            open: self.open.clone(),
        };
        let mut sink = FilesSink::new(self.store, &load, context)?;
        let mut config = config::Config::clone(&sink.config);
        partition.clone_into(&mut config.inside);
        sink.config = Arc::new(config);
        sink.faults = self.faults.clone();
        Ok(sink)
    }

    /// What reads a file of the target.
    async fn input(&self, place: &Place, path: &str) -> Result<FileInput> {
        let location = match place {
            Place::Local(local) => StorePath::from_absolute_path(local.path(path))
                .map_err(|error| Error::internal(format!("`{path}` was listed and is no path")).cause(error))?,
            Place::Remote(remote) => super::place::listed(remote.path(path)?.as_ref())?,
        };
        let head = self.store.store.head(&location).await;
        Ok(FileInput {
            store: self.store.store.clone(),
            meta: head.map_err(|error| stores::error(error, format!("`{path}`")))?,
            name: join(self.want.path.trim_end_matches('/'), path),
            compression: Compression::None,
            csv: CsvOptions::default(),
            json: JsonOptions::default(),
            stdin: false,
            piece: None,
        })
    }

    async fn columns(&self, place: &Place, path: &str, format: FileFormat) -> Result<SchemaRef> {
        let input = self.input(place, path).await?;
        Ok(formats::reader(format).infer(&input).await?.schema)
    }

    /// Files that have the same columns, at least two: others stay as they are, or their columns would change.
    async fn by_schema(&self, place: &Place, rewrite: Rewrite) -> Result<Vec<(SchemaRef, Rewrite)>> {
        let Rewrite { partition, format, files } = rewrite;
        let seen: Vec<Option<(Small, SchemaRef)>> = futures::stream::iter(files)
            .map(|file| async move {
                match self.columns(place, &file.path, format).await {
                    Ok(schema) => Ok(Some((file, schema))),
                    // Removed since it was listed, by a load or another compaction.
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut groups: Vec<(SchemaRef, Rewrite)> = Vec::new();
        for (file, schema) in seen.into_iter().flatten() {
            match groups.iter_mut().find(|(other, _)| other.fields() == schema.fields()) {
                Some((_, group)) => group.files.push(file),
                None => groups.push((schema, Rewrite { partition: partition.clone(), format, files: vec![file] })),
            }
        }
        Ok(groups.into_iter().filter(|(_, group)| group.files.len() > 1).collect())
    }

    /// Stages the rows of the files anew and exchanges the two.
    async fn rewrite(&self, number: u32, schema: &SchemaRef, rewrite: Rewrite) -> Result<Compacted> {
        let told = Compacted {
            partition: rewrite.partition.clone(),
            files_before: rewrite.files.len() as u64,
            bytes_before: rewrite.files.iter().map(|file| file.bytes).sum(),
            files_after: None,
            bytes_after: None,
            rows: None,
            skipped: None,
        };
        if self.want.dry_run {
            return Ok(told);
        }
        let sink = self.sink(rewrite.format, schema, &rewrite.partition, number)?;
        let key = sink.context.key.clone();
        let done = self.exchange(&sink, schema, &rewrite).await;
        match done {
            Ok(Some(files)) => Ok(Compacted {
                files_after: Some(files.len() as u64),
                bytes_after: Some(files.iter().map(|file| file.bytes).sum()),
                rows: Some(files.iter().map(|file| file.rows).sum()),
                ..told
            }),
            Ok(None) => {
                sink.abort_load(&key).await?;
                Ok(Compacted { skipped: Some("a load has changed it meanwhile".to_owned()), ..told })
            }
            Err(error) => {
                // The error that matters is the first one; what stays is swept by the next compaction.
                if let Err(left) = sink.abort_load(&key).await {
                    tracing::warn!(error = %left, "what a compaction had staged could not be swept");
                }
                Err(error.context(format!("compacting `{}`", join(&self.want.path, &rewrite.partition))))
            }
        }
    }

    async fn exchange(
        &self,
        sink: &FilesSink,
        schema: &SchemaRef,
        rewrite: &Rewrite,
    ) -> Result<Option<Vec<StagedFile>>> {
        let mut inputs = Vec::with_capacity(rewrite.files.len());
        for file in &rewrite.files {
            match self.input(&sink.place, &file.path).await {
                Ok(input) if input.meta.size == file.bytes => inputs.push(input),
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let scan = Scan { schema: schema.clone(), batch_size: BATCH_ROWS, on_bad_row: OnFail::Fail, rejects: None };
        let format = rewrite.format;
        let rows =
            futures::stream::iter(inputs).flat_map(move |input| formats::reader(format).read(input, scan.clone()));
        let task = TaskKey { load: sink.context.key.clone(), owner: self.owner.clone(), partition: 0, attempt: 1 };
        let staged = match sink.stage_rows(&task, Rows::new(schema.clone(), rows)).await {
            // A load has removed a file while it was read.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            staged => staged?,
        };
        // Files without rows say which columns there are; one is enough.
        let staged =
            if staged.files.is_empty() { sink.stage_nothing(&TaskKey { attempt: 2, ..task }).await? } else { staged };
        sink.commit_compaction(staged, &rewrite.files).await
    }
}

impl FilesSink {
    /// Decides that `staged` takes the place of `old`; `None` when one of these is not what it was.
    async fn commit_compaction(
        &self,
        staged: gristmill_model::Staged,
        old: &[Small],
    ) -> Result<Option<Vec<StagedFile>>> {
        let _lock = self.place.lock().await?;
        for _ in 0..MOST_TRIES {
            let log = Log::list(&self.place).await?;
            // As before any entry: one that publishes what is gone could never be made true, and would stop every later load.
            self.stop_if_given_up(&log, std::slice::from_ref(&staged)).await?;
            self.check_staged(&staged.files.iter().collect::<Vec<_>>()).await?;
            self.roll_all_forward(&log).await?;
            let present = sized(&self.place).await?;
            if !old.iter().all(|file| present.contains(file)) {
                return Ok(None);
            }
            let before = log.newest_load(&self.place).await?;
            let entry = Entry {
                decision: Decision::Publish,
                key: self.context.key.clone(),
                owner: self.context.owner.clone(),
                // Rows only move: no strategy is applied.
                strategy: None,
                publish: staged.files.clone(),
                remove: old.iter().map(|file| file.path.clone()).collect(),
                columns: before.map(|(_, entry)| entry.columns).unwrap_or_default(),
                checkpoint: Checkpoint::default(),
                rows: staged.rows,
                at: Utc::now(),
            };
            self.faults.at(Point::BeforeLog)?;
            let number = log.next();
            if log::append(&self.place, number, &entry).await? {
                self.faults.at(Point::AfterLog)?;
                self.roll_forward(&log, number, &entry).await?;
                self.sweep_quietly(&entry, std::slice::from_ref(&staged)).await;
                return Ok(Some(entry.publish));
            }
        }
        Err(Error::new(ErrorKind::Conflict, format!("`{}` is being written by others all the time", self.config.path))
            .retryable(true)
            .hint("run `gristmill compact` again when the others are done"))
    }
}
