//! Which loads a table holds.
//!
//! The table's own log says so: the commit of a load has an application transaction under the name of its slot, which other
//! writers keep in their checkpoints for ever. Its number is the load's generation and, behind it, which of the records it
//! is. What else is to be known of a load (its rows, its checkpoint, which may be large) is in that record beside the table,
//! written before the commit. Other writers clean old entries of the log away, and what stood only in their `commitInfo`
//! would be gone with them.
//!
//! The log tells of the newest load of each slot. Those before it have a mark beside their record, which is there before the
//! next one is committed. A record with neither is of a load that was not committed: it also tells which files came into the
//! table's folders for it.

use super::super::layout::join;
use super::super::place::Place;
use super::table::Table;
use crate::sinks::ledger::{Kind, Known, forgotten};
use chrono::{DateTime, Utc};
use gristmill_model::spec::Strategy;
use gristmill_model::{Checkpoint, Committed, Error, ErrorKind, LoadKey, OwnerId, Result, Slot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The records, below the table.
pub(super) const LOADS: &str = "_gristmill/loads";

/// What is to be known of a load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) key: LoadKey,
    pub(super) owner: OwnerId,
    pub(super) strategy: Strategy,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// The files of the load, relative to the table.
    pub(super) paths: Vec<String>,
    #[serde(default)]
    pub(super) checkpoint: Checkpoint,
    pub(super) at: DateTime<Utc>,
}

impl Record {
    pub(super) fn committed(&self, already: bool) -> Committed {
        Committed {
            key: self.key.clone(),
            rows: self.rows,
            files: self.paths.len() as u64,
            bytes: self.bytes,
            checkpoint: self.checkpoint.clone(),
            at: self.at,
            already,
        }
    }
}

/// The name of a record: most questions are answered by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    series: String,
    slot: String,
    generation: u32,
    sequence: u64,
    /// When it was about to be committed, in microseconds since 1970.
    at: i64,
    unique: String,
}

fn short(slot: &Slot) -> String {
    LoadKey { slot: slot.clone(), generation: 0 }.short()
}

/// The same for all slots of a series.
fn short_series(slot: &Slot) -> String {
    let interval = gristmill_model::Interval::day(chrono::NaiveDate::default());
    short(&Slot { interval, ..slot.clone() })
}

impl Name {
    /// A name that no other attempt to commit has.
    pub(super) fn new(record: &Record) -> Self {
        let key = &record.key;
        Self {
            series: short_series(&key.slot),
            slot: short(&key.slot),
            generation: key.generation,
            sequence: record.checkpoint.sequence,
            at: record.at.timestamp_micros(),
            unique: uuid::Uuid::new_v4().simple().to_string(),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let words: Vec<&str> = name.split('.').collect();
        let [series, slot, generation, sequence, at, unique, "json"] = words.as_slice() else { return None };
        Some(Self {
            series: (*series).to_owned(),
            slot: (*slot).to_owned(),
            generation: generation.parse().ok()?,
            sequence: sequence.parse().ok()?,
            at: at.parse().ok()?,
            unique: (*unique).to_owned(),
        })
    }

    pub(super) fn path(&self) -> String {
        let Self { series, slot, generation, sequence, at, unique } = self;
        join(LOADS, &format!("{series}.{slot}.{generation}.{sequence}.{at}.{unique}.json"))
    }

    /// Whether it is of that load.
    pub(super) fn is_of(&self, key: &LoadKey) -> bool {
        self.generation == key.generation && self.slot == short(&key.slot)
    }

    /// Where it is marked that the load was committed.
    fn mark(&self) -> String {
        self.path().replace(".json", ".done")
    }

    /// The application that the log knows the slot by.
    pub(super) fn app_id(&self) -> String {
        format!("gristmill:{}", self.slot)
    }

    /// How far the slot has come with this load.
    pub(super) fn version(&self) -> i64 {
        let record = self.unique.get(..8).and_then(|first| u32::from_str_radix(first, 16).ok()).unwrap_or_default();
        (i64::from(self.generation) << 32) | i64::from(record)
    }
}

/// The load of that key and owner, as the log says that it was given up.
pub(super) fn given_up(key: &LoadKey, owner: &OwnerId) -> String {
    format!("gristmill:given-up:{}:{}", key.short(), owner.0.as_str())
}

/// The records of a table.
pub(super) struct Ledger<'a> {
    place: &'a Place,
    table: &'a Table,
    names: Vec<Name>,
    marked: BTreeSet<String>,
}

impl<'a> Ledger<'a> {
    pub(super) async fn list(place: &'a Place, table: &'a Table) -> Result<Self> {
        let found = place.names(LOADS).await?;
        let names = found.iter().filter_map(|name| Name::parse(name)).collect();
        let marked = found.iter().filter(|name| name.ends_with(".done")).map(|name| join(LOADS, name)).collect();
        Ok(Self { place, table, names, marked })
    }

    /// Whether the load of a record was committed.
    async fn has(&self, name: &Name) -> Result<bool> {
        let newest = self.table.transaction(&name.app_id()).await?;
        // A slot that the log does not know was never loaded: this is another table in the same folder.
        Ok(newest.is_some_and(|newest| newest == name.version() || self.marked.contains(&name.mark())))
    }

    /// Records of loads that were not committed: not yet, or never.
    pub(super) async fn undecided(&self) -> Result<Vec<&Name>> {
        let mut undecided = Vec::new();
        for name in &self.names {
            let is_known = self.marked.contains(&name.mark()) && self.table.version.is_some();
            if !is_known && !self.has(name).await? {
                undecided.push(name);
            }
        }
        Ok(undecided)
    }

    /// Marks a load of the log as committed.
    pub(super) async fn mark(&self, name: &Name) -> Result<()> {
        self.place.put_if_absent(&name.mark(), b"{}".to_vec()).await.map(drop)
    }

    /// Marks what the log says of the slot: once it is committed anew, the log does not say it any more.
    pub(super) async fn mark_newest(&self, slot: &Slot) -> Result<()> {
        let slot = short(slot);
        for name in self.names.iter().filter(|name| name.slot == slot && !self.marked.contains(&name.mark())) {
            if self.has(name).await? {
                self.mark(name).await?;
            }
        }
        Ok(())
    }

    /// Reads a record; none where it is gone.
    pub(super) async fn read(&self, name: &Name) -> Result<Option<Record>> {
        let path = name.path();
        let Some(bytes) = self.place.read(&path).await? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::new(ErrorKind::Data, format!("`{path}` cannot be understood")).cause(error))
    }

    async fn first(&self, mut names: Vec<&Name>, is: impl Fn(&Record) -> bool) -> Result<Option<Record>> {
        // The newest first, by whatever counts.
        names.sort_by_key(|name| std::cmp::Reverse((name.sequence, name.generation)));
        for name in names {
            if self.has(name).await?
                && let Some(record) = self.read(name).await?.filter(&is)
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The record of a load that is committed.
    pub(super) async fn committed(&self, key: &LoadKey) -> Result<Option<Record>> {
        let slot = short(&key.slot);
        let is = |name: &&Name| name.slot == slot && name.generation == key.generation;
        self.first(self.names.iter().filter(is).collect(), |record| record.key == *key).await
    }

    /// The newest load of a slot.
    pub(super) async fn last(&self, slot: &Slot) -> Result<Option<Record>> {
        let wanted = short(slot);
        let mut of_slot: Vec<&Name> = self.names.iter().filter(|name| name.slot == wanted).collect();
        of_slot.sort_by_key(|name| std::cmp::Reverse(name.generation));
        for name in of_slot {
            if self.has(name).await?
                && let Some(record) = self.read(name).await?.filter(|record| record.key.slot == *slot)
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The newest checkpoint of a series of loads, as [`crate::Sink::checkpoint`].
    pub(super) async fn checkpoint(&self, slot: &Slot) -> Result<Option<Checkpoint>> {
        let series = short_series(slot);
        let names = self.names.iter().filter(|name| name.series == series).collect();
        let found = self.first(names, |record| record.key.slot.is_of_series(slot)).await?;
        Ok(found.map(|record| record.checkpoint))
    }

    /// Which records the commit of `own` can drop, the oldest first, and which marks: those of these records, and of records that are
    /// gone already. Whoever sweeps what is left of a `pending` load asks what became of it.
    pub(super) async fn forgotten(
        &self,
        own: &Name,
        limit: DateTime<Utc>,
        pending: &[LoadKey],
    ) -> Result<(Vec<String>, Vec<String>)> {
        let mut done: Vec<&Name> = Vec::new();
        for name in self.names.iter().filter(|name| name.series == own.series && *name != own) {
            // Each question to the log reads it. Marks that an earlier table in this folder has left do no harm here.
            if self.marked.contains(&name.mark()) || self.has(name).await? {
                done.push(name);
            }
        }
        done.sort_by_key(|name| (name.at, name.sequence, name.generation));
        // Nothing is newer than the load at hand, whatever the clock says.
        done.push(own);
        let fact = |(number, name): (u64, &&Name)| Known {
            number,
            kind: if pending.iter().any(|load| name.is_of(load)) { Kind::Pending } else { Kind::Load },
            slot: name.slot.clone(),
            series: name.series.clone(),
            generation: name.generation,
            sequence: name.sequence,
            at: DateTime::from_timestamp_micros(name.at).unwrap_or(limit),
        };
        let known: Vec<Known> = (0..).zip(&done).map(fact).collect();
        let gone = forgotten(&known, limit);
        let gone: Vec<&Name> =
            (0..).zip(done).filter(|(number, _)| gone.contains(number)).map(|(_, name)| name).collect();
        let is_listed: BTreeSet<String> = self.names.iter().map(Name::mark).collect();
        let left = self.marked.iter().filter(|mark| !is_listed.contains(*mark)).cloned();
        let marks = gone.iter().map(|name| name.mark()).filter(|mark| self.marked.contains(mark));
        Ok((gone.iter().map(|name| name.path()).collect(), marks.chain(left).collect()))
    }
}
