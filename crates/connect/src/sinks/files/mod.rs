//! Files: Parquet, CSV, NDJSON, Avro and Arrow IPC in a folder or on an object store, partitioned the Hive way.
//!
//! ```text
//! stage    rows ─channel─► encoder thread ─► temporary files (local disk) │ uploads held open (object stores), or,
//!          with `readable_staging`, objects below a hidden prefix, which the commit copies
//! commit   target log: put-if-absent `_gristmill/log/<n>.json` = decided ─► publish ─► remove ─► mark as done
//! recover  undone entries are finished; staged loads of dead owners are given up in the log, then swept
//! ```
//!
//! `config.rs` understands the load, `write.rs` turns rows into files (`partition.rs` splits them, `parquet.rs` and
//! `encode.rs` encode them, `output.rs` takes the bytes), `commit.rs` decides and `publish_local.rs` and
//! `publish_remote.rs` (`readable.rs` where it copies) make it true. [`BlockWriter`] writes single Parquet files from blocks, for whoever has rows of
//! their own.
//!
//! `format: delta` (folder `delta`) goes another way from the commit on: the table's own log decides.
//!
//! What a concurrent reader sees: on local disk a partition (with `replace`, the whole target) changes at once, files
//! that are appended appear one by one; on object stores each file appears whole, and during an overwrite there is a
//! short moment of old and new together.

mod blocks;
mod commit;
mod compact;
mod computed;
mod config;
mod csv;
mod delta;
mod encode;
mod encoding;
mod finite;
mod forget;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keep;
mod layout;
mod log;
mod output;
mod parquet;
mod parquet_layout;
mod partition;
mod place;
mod publish_local;
mod publish_remote;
mod readable;
mod recover;
mod retention;
mod scope;
mod shape;
mod single;
mod spill;
mod stage;
mod stamp;
#[cfg(test)]
mod tests;
mod typed;
mod write;

pub use blocks::{BlockOptions, BlockStats, BlockWriter, ColumnStats};
pub use compact::{compact, recover_compactions};

use crate::comments::without_comments;
use crate::hive::DELTA_LOG;
use crate::sinks::rules::Stamps;
use crate::stores::Store;
use crate::{Grouping, LoadContext, Recovered, Rows, Sink, SinkMode};
use async_trait::async_trait;
use config::Config;
use gristmill_model::fault::{self, Point};
use gristmill_model::spec::{FileFormat, LoadSpec, Strategy};
use gristmill_model::{
    Checkpoint, Committed, Error, ErrorKind, KeptRows, LoadKey, OwnerId, Result, Slot, Staged, TaskKey,
};
use place::Place;
use std::fmt;
use std::sync::Arc;

/// Opens a sink that loads files into `load.path` of `store`, or the one file it names. Touches nothing.
///
/// # Errors
/// A load that files cannot serve (a table, `delete+insert`, `merge`, a format that is only read, columns that are not there), or
/// a store that can only be read from.
pub fn open_sink(store: Arc<Store>, load: &LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
    let context = LoadContext { schema: without_comments(&context.schema), ..context };
    if !context.schema.fields().is_empty() {
        not_within(load.path.as_deref().unwrap_or_default())?;
    }
    if load.format == Some(FileFormat::Delta) {
        return Ok(Arc::new(delta::DeltaSink::new(store, load, context)?));
    }
    let sink = FilesSink::new(&store, load, context)?;
    match sink.config.single.clone() {
        Some(name) => Ok(Arc::new(single::SingleFileSink { inner: sink, name })),
        None => Ok(Arc::new(sink)),
    }
}

/// Refuses a path into what Gristmill or a Delta table keeps beside its files: no reader looks there, and sweeps do.
fn not_within(path: &str) -> Result<()> {
    match path.split('/').find(|name| [layout::HOME, DELTA_LOG].contains(name)) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::Config,
            format!("the path `{path}` leads into `{name}`, which is not for rows: nobody would find them there"),
        )
        .hint("name another folder, e.g. `path: out/`")),
    }
}

/// Loads files.
#[derive(Debug)]
struct FilesSink {
    place: Place,
    config: Arc<Config>,
    context: LoadContext,
    stamps: Stamps,
    faults: Faults,
    encoders: Encoders,
}

/// How long an abort waits for an encoder's thread to notice that nobody wants its file any more.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(5);

/// The encoders at work: each holds a share. An abort waits for them, or they would write behind its back.
#[derive(Debug, Default)]
struct Encoders(Arc<tokio::sync::RwLock<()>>);

impl Encoders {
    async fn share(&self) -> tokio::sync::OwnedRwLockReadGuard<()> {
        self.0.clone().read_owned().await
    }

    /// Waits until none is at work. One that hangs (a disk that does not answer) is not waited for; its load is swept
    /// by the next recovery.
    async fn gone(&self) {
        drop(tokio::time::timeout(LAST_WORDS, self.0.write()).await);
    }
}

impl FilesSink {
    fn new(store: &Store, load: &LoadSpec, context: LoadContext) -> Result<Self> {
        let config = Config::new(load, &stamp::stamped_schema(load, &context.schema)?)?;
        let place = Place::new(store, &config.place(store.local.is_some()))?;
        let stamps = Stamps::new(load);
        let (faults, encoders) = (Faults::default(), Encoders::default());
        Ok(Self { place, config: Arc::new(config), context, stamps, faults, encoders })
    }
}

/// What this one sink does at the points it passes, beside what is planned for the whole process: for tests that look into
/// it. Nothing in production.
#[derive(Clone, Default)]
struct Faults(Option<FaultPoint>);

/// Called with each point that is passed.
type FaultPoint = Arc<dyn Fn(Point) -> Result<()> + Send + Sync>;

impl Faults {
    fn at(&self, point: Point) -> Result<()> {
        fault::at(point)?;
        match &self.0 {
            None => Ok(()),
            Some(fault) => fault(point),
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faults")
    }
}

#[async_trait]
impl Sink for FilesSink {
    fn mode(&self) -> SinkMode {
        SinkMode::Staged
    }

    async fn prepare(&self) -> Result<()> {
        self.place.probe().await?;
        if delta::is_table(&self.place).await? {
            let message = format!("`{}` is a Delta table, whose readers would never see other files", self.config.path);
            return Err(Error::new(ErrorKind::Config, message).hint("add `format: delta`, or load another `path`"));
        }
        if self.config.strategy == Strategy::Replace {
            return Ok(());
        }
        let log = log::Log::list(&self.place).await?;
        self.beside(&log).await.map(drop)
    }

    async fn changes(&self) -> Result<Vec<String>> {
        retention::announced(&self.place, &self.config, self.context.key.slot.interval.end).await
    }

    fn grouping(&self, writers: usize) -> Option<Grouping> {
        computed::grouping(&self.config.computed, writers)
    }

    async fn stage(&self, task: &TaskKey, rows: Rows) -> Result<Staged> {
        self.stage_rows(task, rows).await
    }

    async fn keep(&self, staged: &[Staged]) -> Result<Option<KeptRows>> {
        self.keep_staged(staged).await
    }

    async fn commit(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
        self.commit_staged(staged, next).await
    }

    async fn last(&self, slot: &Slot) -> Result<Option<Committed>> {
        self.last_of(slot).await
    }

    async fn checkpoint(&self, slot: &Slot) -> Result<Option<Checkpoint>> {
        self.last_checkpoint(slot).await
    }

    async fn abort(&self, key: &LoadKey) -> Result<()> {
        self.encoders.gone().await;
        self.abort_load(key).await
    }

    async fn recover(&self, is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync)) -> Result<Recovered> {
        self.recover_dead(is_dead).await
    }
}
