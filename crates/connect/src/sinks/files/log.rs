//! The target log: what was decided, in order.
//!
//! `_gristmill/log/<n>.json` is written only where there is none yet, so that of two rivals one has `n` and the other
//! must look again. Writing it *is* the commit: whatever it lists will be published, by this process or the next one
//! (`commit.rs`). When that is done, a mark `<n>.<load>.<slot>.done` says so; its name tells whose entry it is, so that
//! a listing answers most questions and old entries need not be read.
//!
//! Old entries may be forgotten (`forget.rs`): first the entry goes, then its mark, since an entry without a mark is one that
//! has to be made true. So a mark alone, or a number that is passed over, stands for an entry that was done; and whoever
//! reads an entry that a listing has shown may find it gone, which means the same.

use super::place::{LoadOf, Place, log_path};
use super::shape::Shape;
use chrono::{DateTime, Utc};
use gristmill_model::spec::Strategy;
use gristmill_model::{Checkpoint, Committed, Error, ErrorKind, LoadKey, OwnerId, Result, Slot, StagedFile};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What an entry decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Decision {
    /// The load is committed.
    Publish,
    /// The load of this owner is given up: a commit of it that comes late must stop.
    Abort,
}

/// One entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) decision: Decision,
    pub(super) key: LoadKey,
    pub(super) owner: OwnerId,
    #[serde(default)]
    pub(super) strategy: Option<Strategy>,
    /// Files to publish.
    #[serde(default)]
    pub(super) publish: Vec<StagedFile>,
    /// Files to remove, relative to the target.
    #[serde(default)]
    pub(super) remove: Vec<String>,
    /// Names and types of the stored columns, where the files keep types: those of this load, and those that earlier files of
    /// the target have beside them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) columns: Vec<(String, String)>,
    /// What the files of the target have in common beside that.
    #[serde(default, skip_serializing_if = "Shape::is_unknown")]
    pub(super) shape: Shape,
    #[serde(default)]
    pub(super) checkpoint: Checkpoint,
    #[serde(default)]
    pub(super) rows: u64,
    pub(super) at: DateTime<Utc>,
}

impl Entry {
    pub(super) fn abort(load: &LoadOf) -> Self {
        Self {
            decision: Decision::Abort,
            key: load.key.clone(),
            owner: load.owner.clone(),
            strategy: None,
            publish: Vec::new(),
            remove: Vec::new(),
            columns: Vec::new(),
            shape: Shape::default(),
            checkpoint: Checkpoint::default(),
            rows: 0,
            at: Utc::now(),
        }
    }

    pub(super) fn committed(&self, already: bool) -> Committed {
        Committed {
            key: self.key.clone(),
            rows: self.rows,
            files: self.publish.len() as u64,
            bytes: self.publish.iter().fold(0, |all, file| all.saturating_add(file.bytes)),
            checkpoint: self.checkpoint.clone(),
            at: self.at,
            already,
        }
    }
}

/// What a mark's name tells of an entry that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    load: String,
    slot: String,
    decision: Decision,
}

fn slot_short(slot: &Slot) -> String {
    LoadKey { slot: slot.clone(), generation: 0 }.short()
}

fn entry_name(number: u64) -> String {
    format!("{number:010}.json")
}

impl Mark {
    fn name(&self, number: u64) -> String {
        let decision = match self.decision {
            Decision::Publish => "done",
            Decision::Abort => "aborted",
        };
        format!("{number:010}.{}.{}.{decision}", self.load, self.slot)
    }
}

/// How old a listing may be when the next number is taken by it. Nothing that is younger than a day is forgotten, so until then a
/// number that was taken meanwhile still is.
const FRESH: Duration = Duration::from_hours(6);

/// A listing of the log.
#[derive(Debug)]
pub(super) struct Log {
    /// Entries by number; with a mark where they are done. Of what has a mark, the entry may be gone.
    entries: BTreeMap<u64, Option<Mark>>,
    /// When it was listed, by two clocks: one stands still while the machine sleeps, the other may be set.
    listed: (Instant, DateTime<Utc>),
}

/// An entry that is done, as far as a listing tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) number: u64,
    /// The short name of its load.
    pub(super) load: String,
    /// Where the entry is, unless it is gone and its mark is left.
    pub(super) entry: String,
    /// Where its mark is.
    pub(super) mark: String,
}

impl Log {
    /// Lists the log of `place`.
    pub(super) async fn list(place: &Place) -> Result<Self> {
        let listed = (Instant::now(), Utc::now());
        let mut log = Self { entries: BTreeMap::new(), listed };
        for name in place.names(super::layout::LOG).await? {
            let mut words = name.split('.');
            let Some(number) = words.next().and_then(|number| number.parse::<u64>().ok()) else { continue };
            match (words.next(), words.next(), words.next()) {
                (Some("json"), None, None) => drop(log.entries.entry(number).or_default()),
                (Some(load), Some(slot), Some(word @ ("done" | "aborted"))) => {
                    let decision = if word == "done" { Decision::Publish } else { Decision::Abort };
                    let mark = Mark { load: load.to_owned(), slot: slot.to_owned(), decision };
                    log.entries.insert(number, Some(mark));
                }
                _ => {}
            }
        }
        Ok(log)
    }

    /// The number of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.entries.last_key_value().map_or(1, |(number, _)| number + 1)
    }

    /// Entries that are not done, in order.
    pub(super) fn undone(&self) -> Vec<u64> {
        self.entries.iter().filter(|(_, mark)| mark.is_none()).map(|(number, _)| *number).collect()
    }

    /// Whether an entry has been made true. One that is gone was, or it would not have been forgotten.
    pub(super) fn is_done(&self, number: u64) -> bool {
        self.entries.get(&number).map_or(number < self.next(), Option::is_some)
    }

    /// Entries that are done, in order.
    pub(super) fn done(&self) -> Vec<Done> {
        let marks = self.entries.iter().filter_map(|(&number, mark)| Some((number, mark.as_ref()?)));
        let done = marks.map(|(number, mark)| Done {
            number,
            load: mark.load.clone(),
            entry: log_path(&entry_name(number)),
            mark: log_path(&mark.name(number)),
        });
        done.collect()
    }

    /// A listing that is so much older.
    #[cfg(test)]
    pub(super) fn aged(mut self, by: Duration) -> Self {
        self.listed.1 -= by;
        self
    }

    /// Writes entry `number`, unless there is one. False: somebody else was first, or may have been: what a stale listing shows as
    /// free may have been taken, done and forgotten while this process was stopped.
    pub(super) async fn append(&self, place: &Place, number: u64, entry: &Entry) -> Result<bool> {
        let passed = Utc::now().signed_duration_since(self.listed.1).to_std().unwrap_or_default();
        if self.listed.0.elapsed().max(passed) > FRESH {
            return Ok(false);
        }
        let bytes =
            serde_json::to_vec(entry).map_err(|error| Error::internal("a log entry is no JSON").cause(error))?;
        place.put_if_absent(&log_path(&entry_name(number)), bytes).await
    }

    /// The numbers of later entries.
    pub(super) fn after(&self, number: u64) -> Vec<u64> {
        self.entries.range(number.saturating_add(1)..).map(|(number, _)| *number).collect()
    }

    /// The entry that committed `key`.
    pub(super) async fn committed(&self, place: &Place, key: &LoadKey) -> Result<Option<(u64, Entry)>> {
        let short = key.short();
        let could = |mark: &Mark| mark.decision == Decision::Publish && mark.load == short;
        self.newest(place, could, |entry| entry.decision == Decision::Publish && entry.key == *key).await
    }

    /// The entry that gave up `load`.
    pub(super) async fn aborted(&self, place: &Place, load: &LoadOf) -> Result<Option<(u64, Entry)>> {
        let short = load.key.short();
        let could = |mark: &Mark| mark.decision == Decision::Abort && mark.load == short;
        let is =
            |entry: &Entry| entry.decision == Decision::Abort && entry.key == load.key && entry.owner == load.owner;
        self.newest(place, could, is).await
    }

    /// The newest entry that committed a load of `slot`.
    pub(super) async fn last(&self, place: &Place, slot: &Slot) -> Result<Option<(u64, Entry)>> {
        let short = slot_short(slot);
        let could = |mark: &Mark| mark.decision == Decision::Publish && mark.slot == short;
        self.newest(place, could, |entry| entry.decision == Decision::Publish && entry.key.slot == *slot).await
    }

    /// The newest checkpoint of a series of loads, as [`crate::Sink::checkpoint`]. Entries are in the order of their commits.
    pub(super) async fn checkpoint(&self, place: &Place, slot: &Slot) -> Result<Option<Checkpoint>> {
        let could = |mark: &Mark| mark.decision == Decision::Publish;
        let is_of_series = |entry: &Entry| entry.decision == Decision::Publish && entry.key.slot.is_of_series(slot);
        let is = |entry: &Entry| entry.checkpoint.sequence > 0 && is_of_series(entry);
        let found = match self.newest(place, could, is).await? {
            Some(found) => Some(found),
            None => self.newest(place, could, is_of_series).await?,
        };
        Ok(found.map(|(_, entry)| entry.checkpoint))
    }

    /// The newest entry that committed a load of any slot.
    pub(super) async fn newest_load(&self, place: &Place) -> Result<Option<(u64, Entry)>> {
        let could = |mark: &Mark| mark.decision == Decision::Publish;
        self.newest(place, could, |entry| entry.decision == Decision::Publish).await
    }

    async fn newest(
        &self,
        place: &Place,
        could: impl Fn(&Mark) -> bool,
        is: impl Fn(&Entry) -> bool,
    ) -> Result<Option<(u64, Entry)>> {
        for (&number, mark) in self.entries.iter().rev() {
            if mark.as_ref().is_none_or(&could)
                && let Some(entry) = read(place, number).await?
                && is(&entry)
            {
                return Ok(Some((number, entry)));
            }
        }
        Ok(None)
    }
}

/// Reads an entry; none where it has been forgotten since it was listed.
pub(super) async fn read(place: &Place, number: u64) -> Result<Option<Entry>> {
    let path = log_path(&entry_name(number));
    let Some(bytes) = place.read(&path).await? else {
        // The newest entry is never forgotten.
        if Log::list(place).await?.is_done(number) {
            return Ok(None);
        }
        return Err(Error::new(ErrorKind::Conflict, format!("`{path}` has vanished from the target"))
            .hint("was the target replaced by something else than Gristmill?"));
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::new(ErrorKind::Data, format!("`{path}` cannot be understood")).cause(error))
}

/// Marks entry `number` as done.
pub(super) async fn mark(place: &Place, number: u64, entry: &Entry) -> Result<()> {
    let mark = Mark { load: entry.key.short(), slot: slot_short(&entry.key.slot), decision: entry.decision };
    place.put_if_absent(&log_path(&mark.name(number)), b"{}".to_vec()).await.map(drop)
}
