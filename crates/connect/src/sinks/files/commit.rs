//! The commit: one entry in the target log, then whatever it takes to make it true.
//!
//! ```text
//! lock (local disk) → list the log ── key is there ──► roll it forward, say `already`
//!                        │        └── given up by recovery ──► stop
//!                        ▼
//!        roll forward what is not done → check what was staged → list what goes
//!                        ▼
//!        write entry n+1 where there is none ── somebody was first ──► list the log again
//!                        ▼  (committed)
//!        publish, remove, mark as done, sweep
//! ```

use super::config::Config;
use super::layout::{INTENTS, LOAD_FILE, STAGING, join, load_folder, partition_values, split};
use super::log::{self, Decision, Entry, Log};
use super::place::{LoadOf, Local, Place, at, blocking, entries};
use super::scope::canonical;
use super::{FilesSink, publish_local, publish_remote, retention};
use crate::sinks::rival::{stop_if_of_another, stop_unless_next};
use chrono::Utc;
use gristmill_model::fault::{self, Point};
use gristmill_model::spec::Strategy;
use gristmill_model::{
    Checkpoint, Committed, Error, ErrorKind, LoadKey, OwnerId, Result, Slot, Staged, StagedFile, TaskKey,
};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// Rivals that were first so often in a row are not rivals but something broken.
pub(super) const MOST_TRIES: u32 = 200;

/// Lets a rival who was first come to the end: longer after each of a few tries.
pub(super) async fn give_way(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(u64::from(attempt % 20) * 5)).await;
}

impl FilesSink {
    pub(super) async fn commit_staged(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
        let key = &self.context.key;
        if let Some(other) = staged.iter().find(|staged| staged.task.load != *key) {
            return Err(Error::internal(format!("`{}` was handed to the commit of `{key}`", other.task.load)));
        }
        let _lock = self.place.lock().await?;
        let mut publish: Option<Vec<StagedFile>> = None;
        for attempt in 0..MOST_TRIES {
            let log = Log::list(&self.place).await?;
            if let Some((number, entry)) = log.committed(&self.place, key).await? {
                self.roll_forward(&log, number, &entry).await?;
                self.sweep_quietly(&entry, staged).await;
                let ours = entry.owner == self.context.owner;
                stop_if_of_another(&entry.key, &entry.owner, &self.context.owner, staged)?;
                // An entry of ours that was not there at first is what this call wrote: its answer was lost.
                return Ok(entry.committed(!ours || attempt == 0));
            }
            self.stop_if_given_up(&log, staged).await?;
            if next.sequence > 0 {
                stop_unless_next(key, next, log.checkpoint(&self.place, &key.slot).await?.as_ref())?;
            }
            self.roll_all_forward(&log).await?;
            let before = self.beside(&log).await?;
            if publish.is_none() {
                let files: Vec<&StagedFile> = staged.iter().flat_map(|staged| &staged.files).collect();
                self.check_staged(&files).await?;
                let mut files: Vec<StagedFile> = files.into_iter().cloned().collect();
                files.extend(self.file_without_rows(&files).await?);
                publish = Some(files);
            }
            let files = publish.clone().unwrap_or_default();
            let entry = Entry {
                decision: Decision::Publish,
                key: key.clone(),
                owner: self.context.owner.clone(),
                strategy: Some(self.config.strategy),
                remove: self.removed_by(&files).await?,
                publish: files,
                columns: self.config.types_beside(before.as_ref().map_or(&[], |entry| &entry.columns)),
                shape: self.config.shape.clone(),
                checkpoint: next.clone(),
                rows: staged.iter().map(|staged| staged.rows).sum(),
                at: Utc::now(),
            };
            if let Some(number) = self.decide(&log, &entry, staged).await? {
                self.forget_quietly(&log, number, &entry).await;
                return Ok(entry.committed(false));
            }
            // A rival was first; the next round helps it.
            give_way(attempt).await;
        }
        Err(Error::new(ErrorKind::Conflict, format!("`{}` is being written by others all the time", self.config.path))
            .retryable(true)
            .hint("run the load again when the others are done"))
    }

    /// The newest load whose files stay beside those of this one: none where this one replaces them.
    ///
    /// # Errors
    /// Files that could not be read together, or whose partitions would not be found again.
    pub(super) async fn beside(&self, log: &Log) -> Result<Option<Entry>> {
        if self.config.strategy == Strategy::Replace {
            return Ok(None);
        }
        let Some((_, before)) = log.newest_load(&self.place).await? else { return Ok(None) };
        let shape = self.config.shape.check(&before, &self.config.path);
        match shape.and_then(|()| self.config.check_types(&before.columns)) {
            Ok(()) => Ok(Some(before)),
            // Somebody has emptied the folder: nothing is there that could differ.
            Err(_) if log.undone().is_empty() && self.place.data_files().await?.is_empty() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an entry to the log and makes it true; answers its number, or none where a rival has taken that.
    pub(super) async fn decide(&self, log: &Log, entry: &Entry, staged: &[Staged]) -> Result<Option<u64>> {
        self.faults.at(Point::BeforeLog)?;
        let number = log.next();
        if !log.append(&self.place, number, entry).await? {
            return Ok(None);
        }
        self.faults.at(Point::AfterLog)?;
        self.roll_forward(log, number, entry).await?;
        self.sweep_quietly(entry, staged).await;
        Ok(Some(number))
    }

    /// The files that go when `publish` comes: those it takes the place of, and those of old partitions.
    async fn removed_by(&self, publish: &[StagedFile]) -> Result<Vec<String>> {
        let mut files = removals(&self.place, &self.config, publish).await?;
        let end = self.context.key.slot.interval.end;
        let expired = retention::expired(&self.place, &self.config, publish, end).await?;
        let known: BTreeSet<String> = files.iter().cloned().collect();
        files.extend(expired.into_iter().filter(|path| !known.contains(path)));
        Ok(files)
    }

    pub(super) async fn stop_if_given_up(&self, log: &Log, staged: &[Staged]) -> Result<()> {
        let owners: BTreeSet<&str> =
            staged.iter().map(|staged| staged.task.owner.0.as_str()).chain([self.context.owner.0.as_str()]).collect();
        for owner in owners {
            let owner = gristmill_model::OwnerId(gristmill_model::RunId::new(owner));
            let load = LoadOf { key: self.context.key.clone(), owner };
            if log.aborted(&self.place, &load).await?.is_some() {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("the load `{}` was given up by a recovery, which took its run for dead", load.key),
                )
                .hint("run the load again"));
            }
        }
        Ok(())
    }

    /// Finishes whatever has been decided and is not done.
    pub(super) async fn roll_all_forward(&self, log: &Log) -> Result<Vec<Entry>> {
        let mut finished = Vec::new();
        for number in log.undone() {
            let Some(entry) = log::read(&self.place, number).await? else { continue };
            self.roll_forward(log, number, &entry).await?;
            if entry.decision == Decision::Publish {
                finished.push(entry);
            }
        }
        Ok(finished)
    }

    /// Makes an entry true and marks it as done.
    pub(super) async fn roll_forward(&self, log: &Log, number: u64, entry: &Entry) -> Result<()> {
        if log.is_done(number) {
            return Ok(());
        }
        if entry.decision == Decision::Publish {
            match &self.place {
                Place::Local(local) => {
                    let (local, entry, faults) = (local.clone(), entry.clone(), self.faults.clone());
                    blocking(move || publish_local::publish(&local, number, &entry, &faults)).await?;
                }
                Place::Remote(remote) => publish_remote::publish(remote, number, entry, &self.faults).await?,
            }
            self.faults.at(Point::BeforeMark)?;
        }
        log::mark(&self.place, number, entry).await?;
        self.faults.at(Point::AfterMark)
    }

    /// Checks that what was staged is still there: an abort may have come between.
    pub(super) async fn check_staged(&self, files: &[&StagedFile]) -> Result<()> {
        match &self.place {
            Place::Local(local) => {
                let local = local.clone();
                let files: Vec<StagedFile> = files.iter().copied().cloned().collect();
                blocking(move || {
                    let whole = |file: &StagedFile| {
                        let temporary = file.handle["temporary"].as_str().unwrap_or_default();
                        fs::metadata(local.path(temporary)).is_ok_and(|found| found.len() == file.bytes)
                    };
                    files.iter().find(|file| !whole(file)).map_or(Ok(()), |file| Err(publish_remote::gone(file)))
                })
                .await
            }
            Place::Remote(remote) => publish_remote::check_staged(remote, &self.context.key.short(), files).await,
        }
    }

    /// A replaced target without rows keeps its columns, where the format can say them.
    async fn file_without_rows(&self, files: &[StagedFile]) -> Result<Option<StagedFile>> {
        let wanted = self.config.strategy == Strategy::Replace && self.config.partition_by.is_empty();
        if !wanted || !files.is_empty() || !self.config.encoding.says_columns() {
            return Ok(None);
        }
        let task = TaskKey {
            load: self.context.key.clone(),
            owner: self.context.owner.clone(),
            partition: 0,
            // No writer has this number, and no earlier try of this commit.
            attempt: uuid::Uuid::new_v4().as_fields().0 | (1 << 31),
        };
        let staged = self.stage_nothing(&task).await?;
        Ok(staged.files.into_iter().next())
    }

    /// Sweeps what a committed load has left: failed attempts, empty folders, notes. The load is committed whatever
    /// becomes of it, and the next recovery sweeps again.
    pub(super) async fn sweep_quietly(&self, entry: &Entry, staged: &[Staged]) {
        // Only of those who have a part in it: others may be staging the same load, from another checkout.
        let owners = staged.iter().map(|staged| &staged.task.owner).chain([&self.context.owner, &entry.owner]);
        let folders: BTreeSet<String> = owners.map(|owner| load_folder(&entry.key, owner)).collect();
        for folder in folders {
            if let Err(error) = sweep(&self.place, &format!("{folder}/"), &entry.publish).await {
                tracing::warn!(load = %entry.key, %error, "what the load had staged could not be swept");
            }
        }
        if let Err(error) = self.sweep_done().await {
            tracing::warn!(%error, "what earlier loads have left could not be swept");
        }
    }

    /// Sweeps what loads have left whose own sweeping failed, though they are committed and done: nobody else would, since
    /// their runs have succeeded.
    async fn sweep_done(&self) -> Result<()> {
        let staged = staged_loads(&self.place).await?;
        if staged.is_empty() {
            return Ok(());
        }
        let log = Log::list(&self.place).await?;
        for (folder, load) in staged {
            let Some(load) = load else { continue };
            let committed = log.committed(&self.place, &load.key).await?;
            if let Some((number, entry)) = committed.filter(|(_, entry)| entry.owner == load.owner)
                && log.is_done(number)
            {
                sweep(&self.place, &format!("{folder}/"), &entry.publish).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn last_of(&self, slot: &Slot) -> Result<Option<Committed>> {
        let found = Log::list(&self.place).await?.last(&self.place, slot).await?;
        Ok(found.map(|(_, entry)| entry.committed(true)))
    }

    pub(super) async fn last_checkpoint(&self, slot: &Slot) -> Result<Option<Checkpoint>> {
        Log::list(&self.place).await?.checkpoint(&self.place, slot).await
    }

    pub(super) async fn abort_load(&self, key: &LoadKey) -> Result<()> {
        if !self.place.exists().await? {
            return Ok(());
        }
        let _lock = self.place.lock().await?;
        let log = Log::list(&self.place).await?;
        let published = match log.committed(&self.place, key).await? {
            Some((number, entry)) => {
                self.roll_forward(&log, number, &entry).await?;
                entry.publish
            }
            None => Vec::new(),
        };
        // Another owner may be at work on the same load; recovery sweeps what is left of the dead.
        sweep(&self.place, &format!("{}/", load_folder(key, &self.context.owner)), &published).await.map(drop)
    }
}

/// Removes what loads have left in staging folders whose name, with a `/` behind it, begins with `prefix`:
/// `<load>-<owner>/` is one owner's share of a load. Counts files and uploads.
pub(super) async fn sweep(place: &Place, prefix: &str, published: &[StagedFile]) -> Result<u64> {
    fault::at(Point::BeforeSweep)?;
    let swept = match place {
        Place::Local(local) => {
            let (local, prefix) = (local.clone(), prefix.to_owned());
            blocking(move || sweep_local(&local, &prefix)).await
        }
        Place::Remote(remote) => publish_remote::sweep(remote, prefix, published).await,
    };
    fault::at(Point::AfterSweep)?;
    swept
}

fn sweep_local(local: &Local, prefix: &str) -> Result<u64> {
    let staging = local.path(STAGING);
    let mut swept = 0;
    for (name, is_folder) in entries(&staging)? {
        if is_folder && format!("{name}/").starts_with(prefix) {
            let folder = staging.join(&name);
            swept += entries(&folder)?.iter().filter(|(name, _)| name != LOAD_FILE).count() as u64;
            // A writer that is just giving up may remove its files at the same time.
            for _ in 0..5 {
                match fs::remove_dir_all(&folder) {
                    Ok(()) => break,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                    Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                    Err(error) => return Err(at(&folder)(error)),
                }
            }
        }
    }
    Ok(swept)
}

/// The files that a load takes the place of.
async fn removals(place: &Place, config: &Config, publish: &[StagedFile]) -> Result<Vec<String>> {
    match config.strategy {
        // All but `append` are refused when the load is opened.
        Strategy::Append | Strategy::DeleteInsert | Strategy::TruncateInsert | Strategy::Merge | Strategy::Scd2 => {
            Ok(Vec::new())
        }
        Strategy::Replace => place.data_files().await,
        Strategy::PartitionOverwrite => {
            if publish.is_empty() && config.scope.is_none() {
                return Ok(Vec::new());
            }
            let ours: BTreeSet<Vec<(String, Option<String>)>> =
                publish.iter().filter_map(|file| partition_values(&file.partition)).collect();
            let files = place.data_files().await?;
            Ok(files
                .into_iter()
                .filter(|path| {
                    canonical_partition(config, split(path).0).is_some_and(|values| {
                        ours.contains(&values) || config.scope.as_ref().is_some_and(|scope| scope.holds(&values))
                    })
                })
                .collect())
        }
    }
}

/// The values of a partition folder, whoever wrote it: `month=01` is our `month=1`. `None` where its columns are others.
fn canonical_partition(config: &Config, folder: &str) -> Option<Vec<(String, Option<String>)>> {
    let values = partition_values(folder)?;
    if values.len() != config.partition_by.len() {
        return None;
    }
    values
        .into_iter()
        .zip(&config.partition_by)
        .map(|((column, value), &index)| {
            let field = config.schema.field(index);
            (column == *field.name()).then(|| (column, value.map(|value| canonical(&value, field.data_type()))))
        })
        .collect()
}

/// Whose a staging folder is. Without its note (a crash came first) the folder's name still tells the owner.
pub(super) fn owner_of(folder: &str, load: Option<&LoadOf>) -> Option<OwnerId> {
    let named = || folder.get(17..).map(|owner| OwnerId(gristmill_model::RunId::new(owner)));
    load.map(|load| load.owner.clone()).or_else(named)
}

/// The folder names of all loads that have something staged, and whose they are.
pub(super) async fn staged_loads(place: &Place) -> Result<Vec<(String, Option<LoadOf>)>> {
    let mut loads = Vec::new();
    match place {
        Place::Local(_) => {
            for name in place.names(STAGING).await? {
                if name.starts_with("publish-") {
                    continue;
                }
                let bytes = place.read(&join(&join(STAGING, &name), LOAD_FILE)).await?;
                loads.push((name, bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())));
            }
        }
        Place::Remote(remote) => {
            let names = place.names(INTENTS).await?;
            let folders: BTreeSet<&str> = names.iter().filter_map(|name| name.split('/').next()).collect();
            for folder in folders {
                let first = names.iter().find(|name| name.starts_with(&format!("{folder}/")));
                let Some(first) = first else { continue };
                let intents = remote.intents(first).await?;
                loads.push((folder.to_owned(), intents.into_iter().next().map(|(_, intent)| intent.load)));
            }
        }
    }
    Ok(loads)
}
