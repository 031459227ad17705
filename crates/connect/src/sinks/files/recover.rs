//! Recovery: what a dead owner had decided is finished, what it had only staged is given up and swept.
//!
//! A load is given up by an entry in the log, before anything of it is removed: should its owner be alive after all,
//! its commit finds the entry and stops.

use super::commit::{owner_of, staged_loads, sweep};
use super::layout::{LOG, PROBE, STAGING};
use super::log::{self, Entry, Log};
use super::place::{LoadOf, Place, at, blocking, entries};
use super::{FilesSink, publish_local};
use crate::Recovered;
use gristmill_model::fault::Point;
use gristmill_model::{Error, ErrorKind, OwnerId, Result};
use std::fs;

impl FilesSink {
    pub(super) async fn recover_dead(&self, is_dead: &(dyn Fn(&OwnerId) -> bool + Send + Sync)) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        if !self.place.exists().await? {
            return Ok(recovered);
        }
        let _lock = self.place.lock().await?;
        let log = Log::list(&self.place).await?;
        for number in log.undone() {
            let Some(entry) = log::read(&self.place, number).await? else { continue };
            // Under the lock of local disk nobody is at work on it; elsewhere its owner may be, and needs no help.
            if matches!(self.place, Place::Local(_)) || is_dead(&entry.owner) {
                self.roll_forward(&log, number, &entry).await?;
                recovered.finished.push(entry.key.text());
            }
        }
        for (folder, load) in staged_loads(&self.place).await? {
            if !owner_of(&folder, load.as_ref()).is_some_and(|owner| is_dead(&owner)) {
                continue;
            }
            let published = match &load {
                Some(load) => self.give_up(load, &mut recovered).await?,
                None => Vec::new(),
            };
            self.faults.at(Point::BeforeSweep)?;
            recovered.swept += sweep(&self.place, &format!("{folder}/"), &published).await?;
        }
        match &self.place {
            Place::Local(local) => {
                let local = local.clone();
                let undone = Log::list(&self.place).await?.undone();
                blocking(move || sweep_crumbs(&local, &undone)).await?;
            }
            Place::Remote(remote) => remote.delete(vec![remote.path(PROBE)?]).await?,
        }
        Ok(recovered)
    }

    /// Writes that `load` is given up, unless it is committed. Gives back what it has published.
    async fn give_up(&self, load: &LoadOf, recovered: &mut Recovered) -> Result<Vec<gristmill_model::StagedFile>> {
        for _ in 0..100 {
            let log = Log::list(&self.place).await?;
            if let Some((number, entry)) = log.committed(&self.place, &load.key).await? {
                self.roll_forward(&log, number, &entry).await?;
                return Ok(entry.publish);
            }
            if log.aborted(&self.place, load).await?.is_some() {
                return Ok(Vec::new());
            }
            self.roll_all_forward(&log).await?;
            let entry = Entry::abort(load);
            self.faults.at(Point::BeforeGiveUp)?;
            let number = log.next();
            if log.append(&self.place, number, &entry).await? {
                log::mark(&self.place, number, &entry).await?;
                recovered.undone.push(load.key.text());
                return Ok(Vec::new());
            }
        }
        Err(Error::new(ErrorKind::Conflict, format!("`{}` is being written by others all the time", self.config.path))
            .retryable(true)
            .hint("run `gristmill recover` again when the others are done"))
    }
}

/// Removes what a crash between two steps has left: halves of log entries, folders of entries that are done.
fn sweep_crumbs(local: &super::place::Local, undone: &[u64]) -> Result<()> {
    let log = local.path(LOG);
    for (name, is_folder) in entries(&log)? {
        if !is_folder && name.starts_with('.') {
            let path = log.join(name);
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    let staging = local.path(STAGING);
    for (name, _) in entries(&staging)? {
        let number = name.strip_prefix("publish-").and_then(|number| number.parse::<u64>().ok());
        if number.is_some_and(|number| !undone.contains(&number)) {
            let path = staging.join(name);
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
    }
    publish_local::forget_empty(&staging)
}
