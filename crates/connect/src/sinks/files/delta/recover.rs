//! Abort and recovery: what was staged, or came into the table's folders, for a load that was not committed goes.
//!
//! Nothing has to be finished: a commit is one entry of the log. On object stores, where no lock holds a late commit off, the
//! load is given up in the log first; should its owner be alive after all, its commit finds that and stops. (A table that
//! has no version yet cannot say so: there, what stops a late commit is that its uploads are gone.)

use super::super::commit::{MOST_TRIES, give_way, owner_of};
use super::super::layout::{PROBE, load_folder};
use super::super::place::{Local, Place, at, blocking, entries};
use super::commit::{busy, gives_up};
use super::ledger::{LOADS, Ledger, Record, given_up};
use super::table::{LOG, Table};
use super::{DeltaSink, publish};
use crate::Recovered;
use gristmill_model::fault::Point;
use gristmill_model::{LoadKey, OwnerId, Result};
use std::collections::BTreeSet;
use std::fs;

impl DeltaSink {
    pub(super) async fn abort_load(&self, key: &LoadKey) -> Result<()> {
        if !self.place.exists().await? {
            return Ok(());
        }
        let _lock = self.place.lock().await?;
        let table = Table::read(&self.place).await?;
        let ledger = Ledger::list(&self.place, &table).await?;
        self.discard_all(&ledger, |record| record.key == *key && record.owner == self.context.owner).await?;
        let published = ledger.committed(key).await?.map(|record| record.paths).unwrap_or_default();
        // Another owner may be at work on the same load; recovery sweeps what is left of the dead.
        self.sweep_load(&load_folder(key, &self.context.owner), &published).await.map(drop)
    }

    pub(super) async fn recover_dead(&self, is_dead: &(dyn Fn(&OwnerId) -> bool + Send + Sync)) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        if !self.place.exists().await? {
            return Ok(recovered);
        }
        let _lock = self.place.lock().await?;
        for (key, owner) in self.dead_loads(is_dead).await? {
            if self.give_up(&key, &owner).await? {
                recovered.undone.push(key.text());
            }
        }
        let table = Table::read(&self.place).await?;
        let ledger = Ledger::list(&self.place, &table).await?;
        recovered.swept += self.discard_all(&ledger, |record| is_dead(&record.owner)).await?;
        for (folder, load) in self.all_staged().await? {
            if !owner_of(&folder, load.as_ref()).is_some_and(|owner| is_dead(&owner)) {
                continue;
            }
            let committed = match &load {
                Some(load) => ledger.committed(&load.key).await?,
                None => None,
            };
            let published = committed.map(|record| record.paths).unwrap_or_default();
            recovered.swept += self.sweep_load(&folder, &published).await?;
        }
        match &self.place {
            Place::Local(local) => {
                let local = local.clone();
                blocking(move || sweep_crumbs(&local)).await?;
            }
            Place::Remote(remote) => remote.delete(vec![remote.path(PROBE)?]).await?,
        }
        Ok(recovered)
    }

    /// The loads of dead owners that have something staged or published and are not committed.
    async fn dead_loads(&self, is_dead: &(dyn Fn(&OwnerId) -> bool + Send + Sync)) -> Result<Vec<(LoadKey, OwnerId)>> {
        let table = Table::read(&self.place).await?;
        let ledger = Ledger::list(&self.place, &table).await?;
        let mut found = Vec::new();
        for name in ledger.undecided().await? {
            found.extend(ledger.read(name).await?.map(|record| (record.key, record.owner)));
        }
        found.extend(
            self.all_staged().await?.into_iter().filter_map(|(_, load)| load).map(|load| (load.key, load.owner)),
        );
        let mut dead: Vec<(LoadKey, OwnerId)> = Vec::new();
        for load in found.into_iter().filter(|(_, owner)| is_dead(owner)) {
            if !dead.contains(&load) && ledger.committed(&load.0).await?.is_none() {
                dead.push(load);
            }
        }
        Ok(dead)
    }

    /// Sees to it that a load is not committed any more. False: it has been, meanwhile.
    async fn give_up(&self, key: &LoadKey, owner: &OwnerId) -> Result<bool> {
        // The lock of local disk is held; whoever comes later finds nothing of what was staged.
        if matches!(self.place, Place::Local(_)) {
            self.faults.at(Point::BeforeGiveUp)?;
            return Ok(true);
        }
        for attempt in 0..MOST_TRIES {
            let table = Table::read(&self.place).await?;
            if Ledger::list(&self.place, &table).await?.committed(key).await?.is_some() {
                return Ok(false);
            }
            if table.version.is_none() || table.transaction(&given_up(key, owner)).await?.is_some() {
                return Ok(true);
            }
            self.faults.at(Point::BeforeGiveUp)?;
            if self.write(&table, gives_up(key, owner)).await? {
                return Ok(true);
            }
            give_way(attempt).await;
        }
        Err(busy(self.load.path.as_deref().unwrap_or_default()))
    }

    /// Takes away the files of loads that were not committed, then the records that told of them. Counts the files.
    pub(super) async fn discard_all(&self, ledger: &Ledger<'_>, goes: impl Fn(&Record) -> bool) -> Result<u64> {
        let mut gone = 0;
        let mut kept: Option<BTreeSet<String>> = None;
        for name in ledger.undecided().await? {
            let Some(record) = ledger.read(name).await?.filter(&goes) else { continue };
            // Another try of the same commit may have brought them in; time travel needs them even when they are replaced.
            let of_load = ledger.committed(&record.key).await?.map(|record| record.paths).unwrap_or_default();
            let in_table = match &kept {
                Some(kept) => kept,
                None => &*kept.insert(Table::read(&self.place).await?.paths()?),
            };
            let is_ours = |path: &String| !in_table.contains(path) && !of_load.contains(path);
            let paths: Vec<String> = record.paths.into_iter().filter(is_ours).collect();
            gone += paths.len() as u64;
            publish::remove(&self.place, paths, &self.faults).await?;
            publish::remove(&self.place, vec![name.path()], &self.faults).await?;
        }
        Ok(gone)
    }
}

/// Removes what a crash in the middle of writing has left: halves of log entries and of records.
fn sweep_crumbs(local: &Local) -> Result<()> {
    for folder in [LOG, LOADS] {
        let folder = local.path(folder);
        for (name, is_folder) in entries(&folder)? {
            let unique = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
            let is_ours =
                unique.is_some_and(|name| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
            if is_ours && !is_folder {
                let path = folder.join(name);
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
    }
    Ok(())
}
