//! The commit: one entry in the table's log.

use super::super::commit::{MOST_TRIES, give_way, staged_loads, sweep};
use super::super::layout::{load_folder, partition_folder};
use super::super::place::{LoadOf, Local, Place, blocking, make_folder};
use super::super::scope::canonical;
use super::entry::{self, Entry, add};
use super::ledger::{Ledger, Name, Record, given_up};
use super::table::{Table, partition_of};
use super::{DeltaSink, Ready, columns_of, log, protocol, publish, schema};
use crate::sinks::rival::{stop_if_of_another, stop_unless_next};
use chrono::Utc;
use deltalake_core::kernel::{Action, LogicalFileView, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use gristmill_model::fault::Point;
use gristmill_model::spec::Strategy;
use gristmill_model::{Checkpoint, Committed, Error, ErrorKind, LoadKey, OwnerId, Result, Staged, StagedFile};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};

impl DeltaSink {
    pub(super) async fn commit_staged(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
        let key = &self.context.key;
        if let Some(other) = staged.iter().find(|staged| staged.task.load != *key) {
            return Err(Error::internal(format!("`{}` was handed to the commit of `{key}`", other.task.load)));
        }
        let _lock = self.place.lock().await?;
        let mut noted: Option<(Name, Record)> = None;
        for attempt in 0..MOST_TRIES {
            let table = Table::read(&self.place).await?;
            let ledger = Ledger::list(&self.place, &table).await?;
            if let Some(found) = ledger.committed(key).await? {
                self.sweep_quietly(staged).await;
                stop_if_of_another(&found.key, &found.owner, &self.context.owner, staged)?;
                // A commit of ours that was not there at first is what this call wrote: its answer was lost.
                return Ok(found.committed(found.owner != self.context.owner || attempt == 0));
            }
            self.stop_if_given_up(&table, staged).await?;
            if next.sequence > 0 {
                stop_unless_next(key, next, ledger.checkpoint(&key.slot).await?.as_ref())?;
            }
            protocol::check(&table, self.removes())?;
            let ready = self.ready().await?;
            let columns = self.written(&table, ready, staged)?;
            let change = self.change(&table, ready, &columns, staged).await?;
            let mut record = self.record(staged, &change.files, next);
            let name = match noted.take() {
                // Noted by an earlier try.
                Some((name, known)) if known.paths == record.paths => {
                    record = known;
                    name
                }
                _ => {
                    let name = Name::new(&record);
                    self.note(&name, &record).await?;
                    name
                }
            };
            publish::publish(&self.place, &change.files, &self.faults).await?;
            ledger.mark_newest(&key.slot).await?;
            let entry = self.entry(&table, ready, &columns, &change, &record, &name)?;
            self.faults.at(Point::BeforeLog)?;
            if self.write(&table, entry).await? {
                self.faults.at(Point::AfterLog)?;
                self.sweep_quietly(staged).await;
                self.forget_quietly(&record, &name).await;
                return Ok(record.committed(false));
            }
            // A rival was first; the table is something else now.
            noted = Some((name, record));
            give_way(attempt).await;
        }
        Err(busy(self.load.path.as_deref().unwrap_or_default()))
    }

    /// What the load makes of the table.
    async fn change(
        &self,
        table: &Table,
        ready: &Ready,
        columns: &schema::Written,
        staged: &[Staged],
    ) -> Result<Change> {
        let mut change = match &ready.by_key {
            Some(by_key) => self.change_by_key(table, ready, by_key, staged).await?,
            None => {
                let files: Vec<StagedFile> = staged.iter().flat_map(|staged| &staged.files).cloned().collect();
                let removed = self.removed(table, ready, columns, &files)?;
                Change { files, removed }
            }
        };
        let gone: BTreeSet<String> = change.removed.iter().map(|file| file.path().into_owned()).collect();
        let expired = self.expired(table, ready, &change.files)?.into_iter().map(|(file, _)| file);
        change.removed.extend(expired.filter(|file| !gone.contains(&*file.path())));
        Ok(change)
    }

    /// The files of partitions that `retention` drops, and which those are. Partitions of `files` stay.
    fn expired(&self, table: &Table, ready: &Ready, files: &[StagedFile]) -> Result<Vec<(LogicalFileView, Partition)>> {
        let Some(retention) = &ready.retention else { return Ok(Vec::new()) };
        let end = self.context.key.slot.interval.end;
        let partition = |values: &HashMap<String, Option<String>>| partition(ready, &ready.written, values);
        let ours: BTreeSet<Partition> = files.iter().map(|file| partition(&add(file, 0).partition_values)).collect();
        let all = table.files()?.into_iter().map(|file| {
            let of = partition(&file.partition_values_map());
            (file, of)
        });
        Ok(all.filter(|(_, of)| !ours.contains(of) && retention.drops(of, end)).collect())
    }

    /// What the next commit would drop, for people.
    pub(super) fn announced(&self, table: &Table, ready: &Ready) -> Result<Option<String>> {
        let Some(retention) = &ready.retention else { return Ok(None) };
        let folder = |of: Partition| {
            let folders = of.iter().map(|(column, value)| partition_folder(column, value.as_deref()));
            folders.collect::<Vec<_>>().join("/")
        };
        let folders = self.expired(table, ready, &[])?.into_iter().map(|(_, of)| folder(of)).collect();
        let path = self.load.path.as_deref().unwrap_or_default();
        Ok(retention.told(&folders, path, self.context.key.slot.interval.end))
    }

    fn record(&self, staged: &[Staged], files: &[StagedFile], next: &Checkpoint) -> Record {
        Record {
            key: self.context.key.clone(),
            owner: self.context.owner.clone(),
            strategy: self.load.strategy,
            rows: staged.iter().map(|staged| staged.rows).sum(),
            bytes: files.iter().fold(0, |all, file| all.saturating_add(file.bytes)),
            paths: files.iter().map(|file| file.path.clone()).collect(),
            checkpoint: next.clone(),
            at: Utc::now(),
        }
    }

    /// Writes the version after `table`'s; false: somebody else did.
    pub(super) async fn write(&self, table: &Table, entry: Entry) -> Result<bool> {
        let log = match &table.state {
            Some((log, _)) => log.clone(),
            None => {
                if let Place::Local(Local { root }) = &self.place {
                    let root = root.clone();
                    blocking(move || make_folder(&root)).await?;
                }
                let made = log::open(&self.place).await?;
                made.ok_or_else(|| Error::internal("a folder that was made is not there"))?
            }
        };
        entry::write(table, log, entry).await
    }

    /// Writes down what is about to be committed.
    async fn note(&self, name: &Name, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).map_err(|error| Error::internal("a record is no JSON").cause(error))?;
        self.faults.at(Point::BeforeLedger)?;
        self.place.put_if_absent(&name.path(), bytes).await?;
        self.faults.at(Point::AfterLedger)
    }

    async fn stop_if_given_up(&self, table: &Table, staged: &[Staged]) -> Result<()> {
        // On local disk a lock holds a late commit off, and nothing is given up in the log.
        if matches!(self.place, Place::Local(_)) {
            return Ok(());
        }
        let key = &self.context.key;
        let owners: HashSet<&OwnerId> =
            staged.iter().map(|staged| &staged.task.owner).chain([&self.context.owner]).collect();
        for owner in owners {
            if table.transaction(&given_up(key, owner)).await?.is_some() {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("the load `{key}` was given up by a recovery, which took its run for dead"),
                )
                .hint("run the load again"));
            }
        }
        Ok(())
    }

    /// The columns of the staged files, if the table can still take them.
    fn written(&self, table: &Table, ready: &Ready, staged: &[Staged]) -> Result<schema::Written> {
        let mut noted = staged.iter().filter_map(|staged| columns_of(&staged.payload));
        let columns = noted.next().unwrap_or_else(|| ready.written.clone());
        let as_now = self.is_new() || schema::meet(table, &columns)? == columns;
        let partitions = ready.partition_by();
        let parts_as_now = self.is_new() || table.version.is_none() || table.partition_columns() == partitions;
        if as_now && parts_as_now && noted.all(|other| other == columns) {
            return Ok(columns);
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "the columns of the Delta table have changed while the rows were being staged",
        )
        .retryable(true)
        .hint("run the load again"))
    }

    /// The entry of a load.
    fn entry(
        &self,
        table: &Table,
        ready: &Ready,
        columns: &schema::Written,
        change: &Change,
        record: &Record,
        name: &Name,
    ) -> Result<Entry> {
        let now = record.at.timestamp_millis();
        let partition_by = ready.partition_by();
        let mut actions = entry::metadata(table, columns, &partition_by, self.is_new())?;
        actions.extend(table.removals(&change.removed)?.into_iter().map(Action::Remove));
        actions.extend(change.files.iter().map(|file| Action::Add(add(file, now))));
        let operation = match &ready.by_key {
            Some(by_key) if by_key.is_merge() => by_key.operation(),
            _ => DeltaOperation::Write {
                mode: if self.removes() { SaveMode::Overwrite } else { SaveMode::Append },
                partition_by: Some(partition_by),
                predicate: self.load.scope.clone(),
            },
        };
        let metrics = json!({
            "numFiles": change.files.len().to_string(),
            "numRemovedFiles": change.removed.len().to_string(),
            "numOutputRows": record.rows.to_string(),
            "numOutputBytes": record.bytes.to_string(),
        });
        let mut info = of_load(&record.key, &record.owner);
        info.push(("isBlindAppend".to_owned(), json!(!self.removes())));
        info.push(("operationMetrics".to_owned(), metrics));
        let transaction = Transaction::new_with_last_update(name.app_id(), name.version(), Some(now));
        Ok(Entry { actions, operation, info, transaction })
    }

    /// The files that the load takes the place of.
    fn removed(
        &self,
        table: &Table,
        ready: &Ready,
        columns: &schema::Written,
        files: &[StagedFile],
    ) -> Result<Vec<LogicalFileView>> {
        match self.load.strategy {
            Strategy::Replace | Strategy::TruncateInsert => table.files(),
            Strategy::PartitionOverwrite => {
                let partition = |values: &HashMap<String, Option<String>>| partition(ready, columns, values);
                let ours: BTreeSet<_> = files.iter().map(|file| partition(&add(file, 0).partition_values)).collect();
                let scope = ready.files.config.scope.as_ref();
                let goes = |file: &LogicalFileView| {
                    let values = partition(&file.partition_values_map());
                    ours.contains(&values) || scope.is_some_and(|scope| scope.holds(&values))
                };
                Ok(table.files()?.into_iter().filter(goes).collect())
            }
            // By key: see `keyed`.
            _ => Ok(Vec::new()),
        }
    }

    /// Sweeps what a committed load has left. It is committed whatever becomes of that, and the next commit sweeps again.
    async fn sweep_quietly(&self, staged: &[Staged]) {
        if let Err(error) = self.sweep_done(staged).await {
            tracing::warn!(load = %self.context.key, %error, "what loads had staged could not be swept");
        }
    }

    async fn sweep_done(&self, staged: &[Staged]) -> Result<()> {
        let table = Table::read(&self.place).await?;
        let ledger = Ledger::list(&self.place, &table).await?;
        let key = &self.context.key;
        ledger.mark_newest(&key.slot).await?;
        self.discard_all(&ledger, |record| record.key == *key && record.owner == self.context.owner).await?;
        // Only of those who have a part in it: others may be staging the same load, from another checkout.
        let owners = staged.iter().map(|staged| &staged.task.owner).chain([&self.context.owner]);
        let folders: BTreeSet<String> = owners.map(|owner| load_folder(key, owner)).collect();
        let published = ledger.committed(key).await?.map(|record| record.paths).unwrap_or_default();
        for folder in &folders {
            self.sweep_load(folder, &published).await?;
        }
        // Loads whose own sweeping failed: nobody else would, since their runs have succeeded.
        for (folder, load) in self.all_staged().await? {
            let Some(load) = load.filter(|_| !folders.contains(&folder)) else { continue };
            if let Some(record) = ledger.committed(&load.key).await?.filter(|record| record.owner == load.owner) {
                self.sweep_load(&folder, &record.paths).await?;
            }
        }
        Ok(())
    }

    /// What has been staged, wherever it waits.
    pub(super) async fn all_staged(&self) -> Result<Vec<(String, Option<LoadOf>)>> {
        let mut staged = staged_loads(&self.place).await?;
        for (folder, load) in staged_loads(&self.held).await? {
            if !staged.iter().any(|(known, _)| *known == folder) {
                staged.push((folder, load));
            }
        }
        Ok(staged)
    }

    /// Takes away what is left in the folders of a load, but for files that were published. Counts files and uploads.
    pub(super) async fn sweep_load(&self, folder: &str, published: &[String]) -> Result<u64> {
        let folder = format!("{folder}/");
        let held = self.sweep_held(&self.held, &folder).await?;
        Ok(held + sweep(&self.place, &folder, &as_files(published)).await?)
    }
}

/// A partition by its columns and their values.
type Partition = Vec<(String, Option<String>)>;

/// Which partition a file with these values is of, each value written in one way.
fn partition(ready: &Ready, columns: &schema::Written, values: &HashMap<String, Option<String>>) -> Partition {
    let canonical = |column: &str, value: &str| {
        let kind = columns.iter().find(|(name, _)| name == column);
        kind.map_or_else(|| value.to_owned(), |(_, kind)| canonical(value, &kind.arrow()))
    };
    partition_of(values, &ready.partition_by(), canonical)
}

/// Files as a sweep wants to know of them: it goes by their paths.
pub(super) fn as_files(paths: &[String]) -> Vec<StagedFile> {
    let file = |path: &String| StagedFile {
        path: path.clone(),
        partition: String::new(),
        rows: 0,
        bytes: 0,
        handle: Value::Null,
    };
    paths.iter().map(file).collect()
}

/// The error of a table that others are always first to write to.
pub(super) fn busy(path: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("`{path}` is being written by others all the time"))
        .retryable(true)
        .hint("run the load again when the others are done")
}

/// What a load makes of a table.
pub(super) struct Change {
    /// Files that come into it.
    pub(super) files: Vec<StagedFile>,
    /// Files that go.
    pub(super) removed: Vec<LogicalFileView>,
}

/// What `commitInfo` tells of a load.
fn of_load(key: &LoadKey, owner: &OwnerId) -> Vec<(String, Value)> {
    vec![
        ("clientVersion".to_owned(), json!(concat!("gristmill/", env!("CARGO_PKG_VERSION")))),
        ("userMetadata".to_owned(), json!(key.text())),
        ("gristmill".to_owned(), json!({"owner": owner})),
    ]
}

/// An entry that gives a load up.
pub(super) fn gives_up(key: &LoadKey, owner: &OwnerId) -> Entry {
    let now = Utc::now().timestamp_millis();
    let transaction = Transaction::new_with_last_update(given_up(key, owner), i64::from(key.generation), Some(now));
    let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
    Entry { actions: Vec::new(), operation, info: of_load(key, owner), transaction }
}
