//! Delta Lake: the same Parquet files in the same folders, and a log that every reader of Delta tables goes by.
//!
//! ```text
//! stage    as for folders: temporary files (local disk) │ uploads held open (object stores)
//! commit   record `_gristmill/loads/…` (what, whose, which files) ─► files to their places, which nobody reads yet
//!            ─► `_delta_log/<n>.json`, put-if-absent: all of the load or nothing ─► sweep
//!            somebody else has written <n>: look again at what the table is now, and try <n+1>
//! recover  a record that the log does not know: its files and itself go
//! ```
//!
//! The log is read and written by the `deltalake` library (`log.rs`, `entry.rs`), which also checkpoints it. Whether a load
//! may go on after somebody else's version is decided here, by looking again: see [`entry::write`].
//!
//! `types.rs` and `schema.rs` bring columns together, `ledger.rs` remembers loads, `publish.rs` moves files.

mod commit;
mod entry;
mod forget;
mod keyed;
mod ledger;
mod log;
mod protocol;
mod publish;
mod read;
mod recover;
mod schema;
pub(super) mod stats;
mod table;
#[cfg(test)]
mod tests;
mod types;

use super::computed::{Computed, Partitions, grouping, with_computed};
use super::config::Config;
use super::layout;
use super::place::Place;
use super::retention::Retention;
use super::{Faults, FilesSink};
use crate::sinks::rules::Rules;
use crate::stores::Store;
use crate::{Grouping, LoadContext, Recovered, Rows, Sink, SinkMode};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use gristmill_model::spec::{FileFormat, LoadSpec, OneOrMany, PartitionBy, Strategy};
use gristmill_model::{
    Checkpoint, Committed, Error, ErrorKind, KeptRows, LoadKey, OwnerId, Result, Slot, Staged, TaskKey,
};
use keyed::{ByKey, is_by_key};
use ledger::Ledger;
use serde_json::{Value, json};
use std::sync::Arc;
use table::Table;
pub(super) use table::is_table;
use tokio::sync::OnceCell;
use types::Kind;

/// Loads a Delta table.
#[derive(Debug)]
pub(super) struct DeltaSink {
    store: Arc<Store>,
    load: LoadSpec,
    context: LoadContext,
    place: Place,
    /// Where rows wait that are brought together with the table's by their key.
    held: Place,
    faults: Faults,
    /// Made when the table's columns are first asked for.
    ready: OnceCell<Ready>,
}

/// What rows are staged by, once the table is known.
#[derive(Debug)]
struct Ready {
    /// Writes files, and understands partitions and their scope.
    files: FilesSink,
    by_key: Option<ByKey>,
    /// All columns, in order, as they are written.
    written: schema::Written,
    /// The columns that come with the rows, and behind them those that are computed for `partition_by`.
    came: SchemaRef,
    computed: Vec<Computed>,
    /// The same, as they are written.
    stored: SchemaRef,
    retention: Option<Retention>,
    /// Columns that are never NULL in the table.
    filled: Vec<String>,
    /// What the commit changes beside the rows, for people.
    changes: Vec<String>,
}

fn wrong(message: String, hint: &str) -> Error {
    Error::new(ErrorKind::Config, message).hint(hint)
}

impl DeltaSink {
    /// Understands a load. Touches nothing.
    ///
    /// # Errors
    /// A load that a Delta table cannot serve, or a store that can only be read from.
    pub(super) fn new(store: Arc<Store>, load: &LoadSpec, context: LoadContext) -> Result<Self> {
        if !load.key.0.is_empty() && !is_by_key(load.strategy) {
            let message = format!("`key` means nothing to `strategy: {}` of a Delta table", load.strategy.as_str());
            return Err(wrong(message, "remove `key`"));
        }
        if load.csv.is_some() {
            return Err(wrong("`csv` means nothing to `format: delta`".to_owned(), "remove `csv`"));
        }
        if !load.sort_by.0.is_empty() && is_by_key(load.strategy) {
            let message = format!(
                "`sort_by` does not go with `strategy: {}` of a Delta table: old and new rows come into one file",
                load.strategy.as_str()
            );
            return Err(wrong(message, "remove `sort_by`"));
        }
        let mut load = load.clone();
        // A table is a folder, whatever its name ends with.
        load.path = load.path.map(|path| format!("{}/", path.trim_end_matches('/')));
        let place = Place::new(&store, load.path.as_deref().unwrap_or_default())?;
        if load.readable_staging && matches!(place, Place::Remote(_)) {
            let message = "`readable_staging` does not go with `format: delta` in an object store";
            return Err(wrong(message.to_owned(), "remove `readable_staging`, or load files of another format"));
        }
        let held = Place::new(&store, &keyed::held_path(&load))?;
        let (faults, ready) = (Faults::default(), OnceCell::new());
        let sink = Self { store, load, context, place, held, faults, ready };
        // Says what can be said without the table.
        sink.make(&Table::default())?;
        Ok(sink)
    }

    /// Whether the table's columns are those of the load afterwards.
    fn is_new(&self) -> bool {
        self.load.strategy == Strategy::Replace
    }

    /// Whether files of the table may go.
    fn removes(&self) -> bool {
        self.load.strategy != Strategy::Append || self.load.retention.is_some()
    }

    /// Brings the rows' columns together with the table's.
    fn make(&self, table: &Table) -> Result<Ready> {
        // Without columns nothing will be staged: see `LoadContext::schema`.
        let nothing_staged = self.context.schema.fields().is_empty();
        let of =
            if nothing_staged { Partitions::default() } else { Partitions::new(&self.load, &self.context.schema)? };
        // What is computed is a column of the table like any other: from here on they have come with the rows.
        let (came, computed) = (of.schema.unwrap_or_else(|| self.context.schema.clone()), of.computed);
        let mut load = self.load.clone();
        load.partition_by = partition_names(&self.load)?;
        load.retention = None;
        let rows = came.fields();
        let own = rows.len();
        let context = LoadContext { schema: came.clone(), ..self.context.clone() };
        let rules = Rules::new(&load, &context, str::eq_ignore_ascii_case)?;
        let added = if nothing_staged { Vec::new() } else { rules.added_fields() };
        let natural = schema::natural(&Schema::new(rows.iter().cloned().chain(added).collect::<Vec<_>>()))?;
        let met = if self.is_new() { &Table::default() } else { table };
        let written = schema::meet(met, &natural)?;
        if let Some(((name, kind), _)) =
            written[own..].iter().zip(&natural[own..]).find(|(written, own)| written != own)
        {
            let message = format!("`{name}` is {kind} in the Delta table, and what the load writes there is not");
            return Err(Error::new(ErrorKind::Schema, message).hint("choose another name for the column"));
        }
        load.format = Some(FileFormat::Parquet);
        if load.strategy != Strategy::PartitionOverwrite {
            load.strategy = Strategy::Append;
        }
        if table.version.is_some() && !self.is_new() {
            let there = table.partition_columns();
            if load.partition_by.0.is_empty() {
                load.partition_by = OneOrMany(there.to_vec());
            } else if load.partition_by.0 != there {
                let there = match there {
                    [] => "is not partitioned".to_owned(),
                    _ => format!("is partitioned by `{}`", there.join("`, `")),
                };
                let given = load.partition_by.0.join("`, `");
                let message = format!("`partition_by` says `{given}`, and the Delta table {there}");
                return Err(Error::new(ErrorKind::Schema, message)
                    .hint("leave `partition_by` out, or load with `strategy: replace`"));
            }
        }
        let stored = schema::stored(&written[..own]);
        let by_key = is_by_key(self.load.strategy).then(|| ByKey::new(self, &load, met, &written, &stored, rules));
        let by_key = by_key.transpose()?;
        let columns = by_key.as_ref().map_or(&stored, ByKey::whole).clone();
        if by_key.is_some() {
            load = keyed::plain(&load, load.partition_by.0.clone());
        }
        let context = LoadContext { schema: columns, ..self.context.clone() };
        let mut files = FilesSink::new(&self.store, &load, context)?;
        files.config = Arc::new(Config { statistics: true, ..files.config.as_ref().clone() });
        files.faults = self.faults.clone();
        let known = met.columns()?;
        let is_new = |name: &String| !known.iter().any(|column| column.name == *name);
        let partitions: Vec<_> = files.config.partition_by.iter().map(|&at| files.config.schema.field(at)).collect();
        let retention = if nothing_staged { None } else { Retention::new(&self.load, &partitions)? };
        let new = written.iter().filter(|(name, _)| table.version.is_some() && !self.is_new() && is_new(name));
        let changes = new.map(|(name, kind)| format!("adds the column `{name}` ({kind}) to the Delta table")).collect();
        let filled = known.into_iter().filter(|column| !column.nullable).map(|column| column.name).collect();
        Ok(Ready { files, by_key, written, came, computed, stored, retention, filled, changes })
    }

    /// Reads what the table is, once.
    async fn ready(&self) -> Result<&Ready> {
        let make = || async {
            if self.context.schema.fields().is_empty() {
                return Err(Error::internal("a sink without columns was asked to load rows"));
            }
            let table = Table::read(&self.place).await?;
            protocol::check(&table, self.removes())?;
            self.only_a_table(&table).await?;
            let ready = self.make(&table)?;
            entry::metadata(&table, &ready.written, &ready.partition_by(), self.is_new())?;
            Ok(ready)
        };
        self.ready.get_or_try_init(make).await
    }

    /// Readers of a folder that other loads have filled would see the files of both, and not one would see what is meant.
    async fn only_a_table(&self, table: &Table) -> Result<()> {
        if table.version.is_some() || self.place.names(layout::LOG).await?.is_empty() {
            return Ok(());
        }
        let path = self.load.path.as_deref().unwrap_or_default();
        Err(wrong(
            format!("`{path}` holds files of loads that were no Delta table"),
            "load another `path`, or move what is there away",
        ))
    }
}

/// The columns that tell partitions apart, whatever they are computed of.
fn partition_names(load: &LoadSpec) -> Result<OneOrMany> {
    let name = |text: &String| match PartitionBy::parse(text) {
        Ok(by) => Ok(by.name),
        Err((message, hint)) => Err(wrong(message, &hint)),
    };
    Ok(OneOrMany(load.partition_by.0.iter().map(name).collect::<Result<_>>()?))
}

impl Ready {
    fn partition_by(&self) -> Vec<String> {
        let config = &self.files.config;
        config.partition_by.iter().map(|&at| config.schema.field(at).name().clone()).collect()
    }
}

/// What a writer notes of the columns it has written.
fn noted(written: &schema::Written) -> Value {
    let columns: Vec<Value> = written.iter().map(|(name, kind)| json!([name, kind.json()])).collect();
    json!({"columns": columns})
}

/// The columns that a writer has noted.
fn columns_of(payload: &Value) -> Option<schema::Written> {
    let column = |column: &Value| Some((column[0].as_str()?.to_owned(), Kind::parse(&column[1])?));
    payload["columns"].as_array()?.iter().map(column).collect()
}

#[async_trait]
impl Sink for DeltaSink {
    fn mode(&self) -> SinkMode {
        SinkMode::Staged
    }

    async fn prepare(&self) -> Result<()> {
        self.place.probe().await?;
        self.ready().await.map(drop)
    }

    async fn changes(&self) -> Result<Vec<String>> {
        let ready = self.ready().await?;
        let mut changes = ready.changes.clone();
        changes.extend(self.announced(&Table::read(&self.place).await?, ready)?);
        Ok(changes)
    }

    fn grouping(&self, writers: usize) -> Option<Grouping> {
        // What is wrong with them was said when the sink was opened.
        grouping(&Partitions::new(&self.load, &self.context.schema).ok()?.computed, writers)
    }

    async fn stage(&self, task: &TaskKey, rows: Rows) -> Result<Staged> {
        let ready = self.ready().await?;
        let (have, want) = (rows.schema().fields().len(), self.context.schema.fields().len());
        if have != want {
            return Err(Error::internal(format!(
                "rows of {have} columns were handed to a load that was opened for {want}"
            )));
        }
        let (came, computed) = (ready.came.clone(), ready.computed.clone());
        let (stored, filled) = (ready.stored.clone(), ready.filled.clone());
        let cast = rows.map(move |batch| schema::cast(&with_computed(&batch?, &computed, &came)?, &stored, &filled));
        let rows = Rows::new(ready.stored.clone(), cast);
        let mut staged = match &ready.by_key {
            Some(by_key) => by_key.stage(task, rows).await?,
            None => ready.files.stage_rows(task, rows).await?,
        };
        staged.payload = noted(&ready.written);
        Ok(staged)
    }

    async fn audit(&self, staged: &[Staged]) -> Result<()> {
        match &self.ready().await?.by_key {
            Some(by_key) => by_key.audit(staged).await,
            None => Ok(()),
        }
    }

    async fn keep(&self, staged: &[Staged]) -> Result<Option<KeptRows>> {
        let ready = self.ready().await?;
        ready.by_key.as_ref().map_or(&ready.files, ByKey::held).keep_staged(staged).await
    }

    async fn commit(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
        self.commit_staged(staged, next).await
    }

    async fn last(&self, slot: &Slot) -> Result<Option<Committed>> {
        let table = Table::read(&self.place).await?;
        let found = Ledger::list(&self.place, &table).await?.last(slot).await?;
        Ok(found.map(|record| record.committed(true)))
    }

    async fn checkpoint(&self, slot: &Slot) -> Result<Option<Checkpoint>> {
        let table = Table::read(&self.place).await?;
        Ledger::list(&self.place, &table).await?.checkpoint(slot).await
    }

    async fn abort(&self, key: &LoadKey) -> Result<()> {
        if let Some(ready) = self.ready.get() {
            ready.files.encoders.gone().await;
            if let Some(by_key) = &ready.by_key {
                by_key.gone().await;
            }
        }
        self.abort_load(key).await
    }

    async fn recover(&self, is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync)) -> Result<Recovered> {
        self.recover_dead(is_dead).await
    }
}
