//! Old entries of the log go, after the commit of a load and under the same lock.
//!
//! An entry goes before its mark, and the disk has forgotten the one before the other goes: an entry without a mark would be
//! made true once more. Whoever dies between the two leaves a mark that stands for nothing; the next commit sweeps it.

use super::FilesSink;
use super::commit::staged_loads;
use super::log::{self, Decision, Done, Entry, Log};
use super::place::{Local, Place, Remote, at, blocking, sync_folder};
use crate::sinks::ledger::{self, Kind, Known, MOST_AT_ONCE};
use futures::{StreamExt, TryStreamExt};
use gristmill_model::Result;
use gristmill_model::fault::Point;
use std::collections::BTreeSet;
use std::fs;

/// Entries read, and objects deleted, at once.
const AT_ONCE: usize = 8;

impl FilesSink {
    /// Drops what is older than the log is to remember, once entry `number` is done. The load is committed whatever becomes of it,
    /// and the next one tries again.
    pub(super) async fn forget_quietly(&self, log: &Log, number: u64, entry: &Entry) {
        if let Err(error) = self.forget_old(log, number, entry).await {
            tracing::warn!(load = %entry.key, %error, "old loads could not be dropped from the log");
        }
    }

    async fn forget_old(&self, log: &Log, number: u64, own: &Entry) -> Result<()> {
        let limit = self.context.ledger_retention.and_then(|retention| ledger::limit(own.at, retention));
        let Some(limit) = limit else { return Ok(()) };
        // What was not done when the log was listed may be older than what is looked at, and others may be at work on it still. It
        // is done by the next commit.
        if !log.undone().is_empty() {
            return Ok(());
        }
        let done = log.done();
        let mut known = vec![Known::load(number, &own.key, own.checkpoint.sequence, own.at)];
        let staged: BTreeSet<String> = staged_loads(&self.place).await?.into_iter().map(|(folder, _)| folder).collect();
        // Marks whose entries are gone.
        let mut left: BTreeSet<u64> = BTreeSet::new();
        'old: for some in done.chunks(AT_ONCE) {
            let numbers: Vec<u64> = some.iter().map(|done| done.number).collect();
            let reading = numbers.into_iter().map(|number| log::read(&self.place, number));
            let read: Vec<Option<Entry>> = futures::stream::iter(reading).buffered(AT_ONCE).try_collect().await?;
            for (done, entry) in some.iter().zip(read) {
                let Some(entry) = entry else {
                    left.insert(done.number);
                    continue;
                };
                known.push(fact(done, &entry, &staged));
                // Entries are in the order of their commits, so the others are young as well. One of the future is a clock's.
                let is_young = entry.at >= limit && entry.at <= own.at;
                if is_young || known.len() > MOST_AT_ONCE {
                    break 'old;
                }
            }
        }
        let gone = ledger::forgotten(&known, limit);
        let gone = done.into_iter().filter(|done| gone.contains(&done.number) || left.contains(&done.number));
        let (entries, marks): (Vec<String>, Vec<String>) = gone.map(|done| (done.entry, done.mark)).unzip();
        self.remove(entries).await?;
        self.remove(marks).await
    }

    /// Removes objects of the log, durably; what is gone already is no error.
    async fn remove(&self, paths: Vec<String>) -> Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        match &self.place {
            Place::Local(local) => {
                let (local, faults) = (local.clone(), self.faults.clone());
                blocking(move || {
                    for path in &paths {
                        faults.at(Point::BeforeSweep)?;
                        remove_local(&local, path)?;
                        faults.at(Point::AfterSweep)?;
                    }
                    sync_folder(&local.path(super::layout::LOG))
                })
                .await
            }
            Place::Remote(remote) => {
                let removing = paths.into_iter().map(|path| self.remove_remote(remote, path));
                futures::stream::iter(removing).buffer_unordered(AT_ONCE).try_collect().await
            }
        }
    }

    async fn remove_remote(&self, remote: &Remote, path: String) -> Result<()> {
        self.faults.at(Point::BeforeSweep)?;
        remote.delete(vec![remote.path(&path)?]).await?;
        self.faults.at(Point::AfterSweep)
    }
}

fn remove_local(local: &Local, path: &str) -> Result<()> {
    let path = local.path(path);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(&path)(error)),
        _ => Ok(()),
    }
}

/// An entry that is done, as far as its age matters. `staged`: the folders of what is staged, which begin with a load's name.
fn fact(done: &Done, entry: &Entry, staged: &BTreeSet<String>) -> Known {
    let load = format!("{}-", done.load);
    let kind = match entry.decision {
        // Whoever sweeps it asks what became of the load.
        _ if staged.range(load.clone()..).next().is_some_and(|folder| folder.starts_with(&load)) => Kind::Pending,
        Decision::Abort => Kind::GivenUp,
        Decision::Publish if entry.strategy.is_none() => Kind::Compaction,
        Decision::Publish => Kind::Load,
    };
    Known { kind, ..Known::load(done.number, &entry.key, entry.checkpoint.sequence, entry.at) }
}
