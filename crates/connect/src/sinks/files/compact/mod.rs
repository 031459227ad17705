//! Compaction: the many small files of a partition become few, and not a row changes.
//!
//! ```text
//! list ─► plan (pure) ─► each partition: read ─► stage as any load does ─► lock ─► are all files still there?
//!                                                    └──► one log entry: publish the new, remove the old ─► roll forward
//! ```
//!
//! The entry has no strategy, since rows only move. Loads and compactions take their turns by the log; whichever comes
//! second looks again: a load that overwrites lists the files there are then, and a compaction whose files are gone gives up.
//! Whoever dies before the entry leaves staged files that a recovery, a run or the next compaction sweeps, whoever dies
//! behind it leaves an entry that everybody rolls forward.
//!
//! Which files go together is in `groups.rs`, how they are written in `settings.rs`. Sorted ones are merged (`merge.rs`); what needs
//! not be understood is put together as bytes (`splice.rs`); `commit.rs` exchanges the old for the new.

mod commit;
mod groups;
mod merge;
mod plan;
mod settings;
mod splice;

use super::delta::is_table;
use super::layout::join;
use super::place::{Place, at, blocking};
use super::{Faults, FilesSink, config};
use crate::compaction::{Compacted, Compaction};
use crate::sources::files::delimiter_by_name;
use crate::sources::files::formats::{self, FileInput, Marker, Traits};
use crate::stores::{self, Store};
use crate::{LoadContext, OpenContext, Recovered, Rows, Scan};
use arrow::datatypes::{Schema, SchemaRef};
use chrono::Utc;
use futures::{StreamExt, TryStreamExt};
use gristmill_model::spec::{Compression, FileFormat, JsonOptions, LoadSpec, OnFail};
use gristmill_model::{
    CancellationToken, Error, ErrorKind, Interval, LoadKey, OwnerId, Result, RunId, Slot, Staged, StagedFile, TaskKey,
};
use groups::Group;
use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;
use plan::{Kind, Rewrite, Small};
use splice::{Source, Splicer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows that are read at once.
const BATCH_ROWS: usize = 8192;

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
    work.any_sink()?.recover_dead(is_dead).await
}

/// As [`compact`], with faults at the points that are passed.
pub(super) async fn compact_with(
    work: &Work<'_>,
    is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Vec<Compacted>> {
    let want = work.want;
    let target = work.any_sink()?;
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
    for rewrite in plan::plan(&files, target.config.file_size, &want.partitions, |kind| work.can_be_rewritten(kind)) {
        for group in work.groups(&target.place, rewrite).await? {
            if cancel.is_cancelled() {
                return Err(Error::new(ErrorKind::Canceled, "stopped on request"));
            }
            done.push(work.rewrite(&mut number, group).await?);
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
        let kinds: Vec<Kind> = files.iter().filter_map(|file| Kind::of(&file.path)).collect();
        if !kinds.iter().any(|kind| self.can_be_rewritten(kind)) {
            return Err(self.refused(&kinds));
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

    /// Whether such files are written anew: of CSV it must be known whether its first line is a header.
    fn can_be_rewritten(&self, kind: &Kind) -> bool {
        kind.can_be_rewritten() && (kind.format != FileFormat::Csv || settings::dialect(self.want, None).is_some())
    }

    /// Why none of these files is.
    fn refused(&self, kinds: &[Kind]) -> Error {
        let path = &self.want.path;
        if kinds.iter().any(Kind::can_be_rewritten) {
            let message = format!(
                "the files of `{path}` are CSV, and no load of a project says how they are written: whether the first line is a header"
            );
            return Error::new(ErrorKind::Config, message)
                .hint("name the folder as the load does that writes there, `connection:path/`, in its project");
        }
        let what = kinds.first().map_or("of no known format", |kind| kind.format.as_str());
        let compressed = kinds.first().is_some_and(|kind| kind.compression != Compression::None);
        let how = if compressed { ", compressed as a whole" } else { "" };
        Error::new(ErrorKind::Config, format!("the files of `{path}` are {what}{how}, which is not written"))
            .hint("Parquet, Avro, Arrow, CSV and NDJSON files can be compacted, text also in gzip or zstd")
    }

    /// A sink of the target that writes nothing.
    fn any_sink(&self) -> Result<FilesSink> {
        let none = Schema::empty();
        let load = settings::load(self.want, FileFormat::Parquet, &none, &Traits::default());
        let load = LoadSpec { parquet: None, row_group_rows: None, ..load };
        self.sink(&load, &Arc::new(none), "", 0)
    }

    /// The sink of one rewrite: a load of its own into the partition's folder.
    fn sink(&self, load: &LoadSpec, schema: &SchemaRef, partition: &str, number: u32) -> Result<FilesSink> {
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
            ledger_retention: None,
        };
        let mut sink = FilesSink::new(self.store, load, context)?;
        let mut config = config::Config::clone(&sink.config);
        partition.clone_into(&mut config.inside);
        sink.config = Arc::new(config);
        sink.faults = self.faults.clone();
        Ok(sink)
    }

    /// What reads a file of the target.
    async fn input(&self, place: &Place, path: &str, kind: &Kind) -> Result<FileInput> {
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
            compression: kind.compression,
            csv: settings::dialect(self.want, delimiter_by_name(&format!("_.{}", kind.extension))).unwrap_or_default(),
            json: JsonOptions::default(),
            stdin: false,
            piece: None,
        })
    }

    /// Stages the rows of the files anew and exchanges the two.
    async fn rewrite(&self, number: &mut u32, mut group: Group) -> Result<Compacted> {
        let told = Compacted {
            partition: group.rewrite.partition.clone(),
            files_before: group.rewrite.files.len() as u64,
            bytes_before: group.rewrite.files.iter().map(|file| file.bytes).sum(),
            files_after: None,
            bytes_after: None,
            rows: None,
            skipped: None,
        };
        if self.want.dry_run {
            return Ok(told);
        }
        loop {
            *number += 1;
            let sink = self.sink(&group.load(self.want), &group.schema, &group.rewrite.partition, *number)?;
            let key = sink.context.key.clone();
            let unsorted = Arc::new(AtomicBool::new(false));
            match self.exchange(&sink, &group, &unsorted).await {
                Ok(Some(files)) => {
                    return Ok(Compacted {
                        files_after: Some(files.len() as u64),
                        bytes_after: Some(files.iter().map(|file| file.bytes).sum()),
                        rows: Some(files.iter().map(|file| file.rows).sum()),
                        ..told
                    });
                }
                Ok(None) => {
                    sink.abort_load(&key).await?;
                    return Ok(Compacted { skipped: Some("a load has changed it meanwhile".to_owned()), ..told });
                }
                // What was said of the order was not true, and is not said again.
                Err(_) if unsorted.load(Ordering::SeqCst) => {
                    sink.abort_load(&key).await?;
                    group.traits.sorted.clear();
                }
                Err(error) => {
                    // The error that matters is the first one; what stays is swept by whoever looks for the dead.
                    if let Err(left) = sink.abort_load(&key).await {
                        tracing::warn!(error = %left, "what a compaction had staged could not be swept");
                    }
                    let folder = join(&self.want.path, &group.rewrite.partition);
                    return Err(error.context(format!("compacting `{folder}`")));
                }
            }
        }
    }

    async fn exchange(
        &self,
        sink: &FilesSink,
        group: &Group,
        unsorted: &Arc<AtomicBool>,
    ) -> Result<Option<Vec<StagedFile>>> {
        let Rewrite { files, kind, .. } = &group.rewrite;
        let mut inputs = Vec::with_capacity(files.len());
        for file in files {
            match self.input(&sink.place, &file.path, kind).await {
                Ok(input) if input.meta.size == file.bytes => inputs.push(input),
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let task = TaskKey { load: sink.context.key.clone(), owner: self.owner.clone(), partition: 0, attempt: 1 };
        let staged = if group.is_spliced() {
            sink.splice(&task, group, inputs).await
        } else {
            stage(sink, &task, group, inputs, unsorted).await
        };
        match staged {
            // A load has removed a file while it was read, or written another of its name.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            staged => sink.commit_compaction(staged?, files).await,
        }
    }
}

/// Stages the rows of files that keep types.
async fn stage(
    sink: &FilesSink,
    task: &TaskKey,
    group: &Group,
    inputs: Vec<FileInput>,
    unsorted: &Arc<AtomicBool>,
) -> Result<Staged> {
    let schema = &group.schema;
    let scan = Scan { schema: schema.clone(), batch_size: BATCH_ROWS, on_bad_row: OnFail::Fail, rejects: None };
    let reader = formats::reader(group.rewrite.kind.format);
    let rows = if group.traits.sorted.is_empty() {
        let read = futures::stream::iter(inputs).flat_map(move |input| reader.read(input, scan.clone()));
        Rows::new(schema.clone(), read)
    } else {
        let each = inputs.into_iter().map(|input| reader.read(input, scan.clone())).collect();
        merge::merged(each, schema, &group.traits.sorted, unsorted.clone())?
    };
    let staged = sink.stage_rows(task, rows).await?;
    // Files without rows say which columns there are; one is enough.
    if !staged.files.is_empty() {
        return Ok(staged);
    }
    sink.stage_nothing(&TaskKey { attempt: 2, ..task.clone() }).await
}

impl FilesSink {
    /// Stages files that are put together as bytes.
    async fn splice(&self, task: &TaskKey, group: &Group, inputs: Vec<FileInput>) -> Result<Staged> {
        let format = group.rewrite.kind.format;
        let marker: Marker = *uuid::Uuid::new_v4().as_bytes();
        let like = splice::Like {
            header: splice::header(format, &group.head, &marker),
            ending: group.rewrite.kind.ending.clone(),
            folder: self.config.inside.clone(),
            file_size: self.config.file_size,
        };
        let writer = Splicer::new(&self.config.encoding, task.clone(), self.outputs(task), like)?;
        let head = group.head.clone();
        let chunks = futures::stream::iter(inputs)
            .map(move |input| Ok::<_, Error>((input, head.clone())))
            .and_then(move |(input, head)| async move {
                let source = Source::reopen(&input, format, &head).await?;
                Ok(futures::stream::try_unfold(source, move |mut source| async move {
                    Ok::<_, Error>(source.next(&marker).await?.map(|chunk| (chunk, source)))
                }))
            })
            .try_flatten();
        self.stage_by(task, writer, Box::pin(chunks)).await
    }
}
