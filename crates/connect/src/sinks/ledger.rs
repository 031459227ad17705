//! What a ledger may forget (`defaults: {ledger: {retention: 400d}}`).
//!
//! Every load that was committed leaves an entry: a row of `_gristmill_loads`, an object of the log of files. Who reads
//! them asks for the newest load of a slot, for the newest checkpoint of a series (the slots that differ in their interval
//! only), or whether a key is there. [`forgotten`] decides from facts alone which entries can go, so that the first two
//! are answered as before as long as a series is alive, and no slot is ever answered with an older generation than it has.
//!
//! A slot that is forgotten as a whole is as one that was never loaded. That is what retention means; the store of
//! runs still knows its generations.

use chrono::{DateTime, TimeDelta, Utc};
use gristmill_model::{LoadKey, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many entries one commit looks at, at most: a ledger that was never cleared is cleared by and by.
pub(crate) const MOST_AT_ONCE: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A load, which slots and series are answered with.
    Load,
    /// Files: a compaction. Nobody asks for its slot; but its entry says the types of the target's columns.
    Compaction,
    /// Files: a load that was given up, in case its owner is alive after all.
    GivenUp,
    /// What must not be forgotten yet: it is not done, or something that was staged for it is still there.
    Pending,
}

/// An entry, as far as its age matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its place in the order of commits.
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    pub(crate) slot: String,
    /// The slot without its interval.
    pub(crate) series: String,
    pub(crate) generation: u32,
    /// Of its checkpoint; 0 where there is none.
    pub(crate) sequence: u64,
    pub(crate) at: DateTime<Utc>,
}

impl Known {
    /// The entry of a load.
    pub(crate) fn load(number: u64, key: &LoadKey, sequence: u64, at: DateTime<Utc>) -> Self {
        let (slot, series) = (key.slot.text(), series(&key.slot));
        Self { number, kind: Kind::Load, slot, series, generation: key.generation, sequence, at }
    }
}

/// The name of a slot's series. No name has a line break in it.
pub(crate) fn series(slot: &Slot) -> String {
    format!("{}\n{}\n{}", slot.pipeline, slot.step, slot.target)
}

/// What is older than this may be forgotten by a commit that happens `now`; nothing where the calendar does not reach so far.
pub(crate) fn limit(now: DateTime<Utc>, retention: Duration) -> Option<DateTime<Utc>> {
    now.checked_sub_signed(TimeDelta::from_std(retention).ok()?)
}

/// The numbers of the entries that can go. `known` may be a part of the ledger, if it has the entry that was committed last and
/// all entries of the slots it tells of, down to the oldest: what it does not tell of is newer, or of another series, and
/// would only let more go.
///
/// What stays:
/// - what is not older than `limit`, and what is pending;
/// - the greatest number (numbers must go on growing), and the newest entry that published something;
/// - of a series, the newest load, the newest one with a cursor, and the one with the greatest sequence;
/// - of a slot, everything that came after something that stays: the slot would be answered with that otherwise.
pub(crate) fn forgotten(known: &[Known], limit: DateTime<Utc>) -> BTreeSet<u64> {
    let mut stays: BTreeSet<u64> = BTreeSet::new();
    stays.extend(known.iter().filter(|one| one.at >= limit || one.kind == Kind::Pending).map(|one| one.number));
    stays.extend(known.iter().map(|one| one.number).max());
    let published = known.iter().filter(|one| matches!(one.kind, Kind::Load | Kind::Compaction));
    stays.extend(published.map(|one| one.number).max());
    let mut all: BTreeMap<&str, Vec<&Known>> = BTreeMap::new();
    let mut slots: BTreeMap<&str, Vec<&Known>> = BTreeMap::new();
    for one in known {
        // What is pending may not be a load, and stands for none.
        if one.kind == Kind::Load {
            all.entry(&one.series).or_default().push(one);
        }
        if matches!(one.kind, Kind::Load | Kind::Pending) {
            slots.entry(&one.slot).or_default().push(one);
        }
    }
    for of_series in all.values() {
        let with_cursor = || of_series.iter().filter(|one| one.sequence > 0);
        stays.extend(of_series.iter().map(|one| one.number).max());
        stays.extend(with_cursor().map(|one| one.number).max());
        stays.extend(with_cursor().max_by_key(|one| (one.sequence, one.number)).map(|one| one.number));
    }
    for of_slot in slots.values() {
        // What stays may hold back more, until nothing changes.
        loop {
            let staying = || of_slot.iter().filter(|one| stays.contains(&one.number));
            let Some(number) = staying().map(|one| one.number).min() else { break };
            let generation = staying().map(|one| one.generation).min().unwrap_or_default();
            let held: Vec<u64> = of_slot
                .iter()
                .filter(|one| one.number > number || one.generation > generation)
                .map(|one| one.number)
                .filter(|number| !stays.contains(number))
                .collect();
            if held.is_empty() {
                break;
            }
            stays.extend(held);
        }
    }
    known.iter().map(|one| one.number).filter(|number| !stays.contains(number)).collect()
}

/// A row of a database's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) slot: String,
    pub(crate) generation: u32,
    pub(crate) sequence: u64,
    pub(crate) at: DateTime<Utc>,
}

/// Which rows of a database's ledger a commit asks for: those whose slot (or key) lies between these two texts, the second one
/// excluded. All of a series do, and few others.
pub(crate) fn range(slot: &Slot) -> (String, String) {
    let (begin, _) = slot.series_ends();
    // It ends with `/`, and `0` is the next character.
    let behind = format!("{}0", begin.trim_end_matches('/'));
    (begin, behind)
}

/// The keys of the rows that the commit of `own` can drop. `rows` are those of [`range`], or at least all rows of the slots
/// that have one older than `limit`; rows of other series among them are left alone.
pub(crate) fn forgotten_keys(rows: Vec<Row>, own: &LoadKey, sequence: u64, limit: DateTime<Utc>) -> Vec<String> {
    let text = own.text();
    let mut rows: Vec<Row> =
        rows.into_iter().filter(|row| row.key != text && own.slot.is_text_of_series(&row.slot)).collect();
    rows.sort_by_key(|row| row.at);
    let series = series(&own.slot);
    let known = (0..).zip(&rows).map(|(number, row)| Known {
        number,
        kind: Kind::Load,
        slot: row.slot.clone(),
        series: series.clone(),
        generation: row.generation,
        sequence: row.sequence,
        at: row.at,
    });
    // Nothing is newer than the load at hand, whatever the clock says.
    let own = Known::load(u64::MAX, own, sequence, DateTime::<Utc>::MAX_UTC);
    let known: Vec<Known> = known.chain([own]).collect();
    let gone = forgotten(&known, limit);
    (0..).zip(rows).filter(|(number, _)| gone.contains(number)).map(|(_, row)| row.key).collect()
}

#[cfg(test)]
mod tests;
