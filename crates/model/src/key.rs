//! What a load is known by, and what it leaves behind while it is on its way.

use crate::spec::Lag;
use crate::{Interval, PipelineName, RunId, StepName};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The place a load's answer belongs to: one answer per slot is current at any time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The load step.
    pub step: StepName,
    /// The interval the run is for.
    pub interval: Interval,
    /// The target as the pipeline names it: `connection:table` or `connection:path`.
    pub target: String,
}

/// Slot and generation: what makes a load the same load after a retry or a crash.
///
/// Retry and recovery keep the generation; running a finished slot again takes the next one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LoadKey {
    /// The slot.
    pub slot: Slot,
    /// Which answer for the slot, from 1.
    pub generation: u32,
}

impl LoadKey {
    /// The key as one line of text, e.g. `sales/load_lake/2024-01-15/lake:enriched_orders#1`. Unique per key, stable
    /// across versions: it is the primary key of every ledger.
    #[must_use]
    pub fn text(&self) -> String {
        let Slot { pipeline, step, interval, target } = &self.slot;
        format!("{pipeline}/{step}/{interval}/{target}#{}", self.generation)
    }

    /// A short name made of the key, safe in file and table names (16 hex digits of its FNV-1a hash).
    #[must_use]
    pub fn short(&self) -> String {
        format!("{:016x}", fnv1a(self.text().as_bytes()))
    }
}

impl Slot {
    /// The slot as one line of text: a key without its generation.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { pipeline, step, interval, target } = self;
        format!("{pipeline}/{step}/{interval}/{target}")
    }

    /// Whether `other` is a slot of the same load for any interval: the slots that one series of checkpoints runs through.
    #[must_use]
    pub fn is_of_series(&self, other: &Self) -> bool {
        self.pipeline == other.pipeline && self.step == other.step && self.target == other.target
    }

    /// What the text of each slot of the series begins and ends with. Texts of other slots may do so too.
    #[must_use]
    pub fn series_ends(&self) -> (String, String) {
        (format!("{}/{}/", self.pipeline, self.step), format!("/{}", self.target))
    }

    /// As [`Slot::is_of_series`], of a slot as [`Slot::text`] writes it.
    #[must_use]
    pub fn is_text_of_series(&self, text: &str) -> bool {
        let (begin, end) = self.series_ends();
        let interval = text.strip_prefix(&begin).and_then(|rest| rest.strip_suffix(&end));
        interval.is_some_and(|interval| match interval.split_once('/') {
            None => interval.parse::<chrono::NaiveDate>().is_ok(),
            Some((from, to)) => DateTime::parse_from_rfc3339(from).is_ok() && DateTime::parse_from_rfc3339(to).is_ok(),
        })
    }
}

impl fmt::Display for LoadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// FNV-1a, 64 bits: stable, tiny, good enough to name things (never to prove identity: the full key does that).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Whoever stages and commits: a run. Recovery touches only what belongs to owners known to be dead.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OwnerId(pub RunId);

/// One writer's share of a load: names everything it stages, so that no two attempts ever write the same object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    /// The load.
    pub load: LoadKey,
    /// Who does it.
    pub owner: OwnerId,
    /// Which of the load's parallel writers, from 0.
    pub partition: u32,
    /// Which attempt of this writer, from 1.
    pub attempt: u32,
}

impl TaskKey {
    /// A file-name-safe text, unique per attempt: `<load>-<owner>-<partition>-<attempt>`.
    #[must_use]
    pub fn file_stem(&self) -> String {
        format!("{}-{}-{:05}-{}", self.load.short(), self.owner.0, self.partition, self.attempt)
    }
}

/// One file that was staged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Where it will be, relative to the target's root.
    pub path: String,
    /// The hive partition directory it belongs to (`date=2024-01-15`), empty when the target is not partitioned.
    pub partition: String,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// How the sink finds it until it is published: a temporary path, or upload id and parts.
    pub handle: serde_json::Value,
}

/// What one writer has staged: plain data, so that any process can commit or abort it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The writer.
    pub task: TaskKey,
    /// Rows staged.
    pub rows: u64,
    /// Bytes staged.
    pub bytes: u64,
    /// Files staged; empty for databases.
    pub files: Vec<StagedFile>,
    /// What else the sink needs to commit it: a staging table, a side file. Holds no secret.
    pub payload: serde_json::Value,
}

/// How far the incremental extracts below a load have come; written in the same commit as the data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Per extract step: the cursor up to which everything has been loaded.
    #[serde(default)]
    pub cursors: BTreeMap<String, Cursor>,
    /// Which checkpoint of its series this is, from 1; 0 where there is none. A load goes on from the newest one, and its
    /// commit is refused when another has come in between: both would have read the same rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
}

/// How far one incremental extract has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// A digest of what was read: table or query, and condition. Rows of something else would be missed.
    pub of: String,
    /// The column.
    pub column: String,
    /// The greatest value that was read, as the source writes it; none while there was no row with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    /// Rows that the next extract is going to read again, because they lie at the cursor or within the lag before it: the
    /// digest of each, and how often it occurred. For loads that append.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seen: BTreeMap<String, u32>,
    /// The greatest cursor among the rows that were read, as a whole number and the type it is of: rows beyond it cannot
    /// have been seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
    /// The columns that the digests are made of, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Names and types of the columns that were read, for `schema_contract: freeze`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schema: Vec<(String, String)>,
    /// How far before the cursor `seen` reaches; nothing but the cursor itself when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
    /// The files that have been loaded, by name, and what tells whether one has changed: its size, and its etag or time.
    /// For extracts of files, which have no value that grows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A load as its target knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The load.
    pub key: LoadKey,
    /// Rows that were loaded.
    pub rows: u64,
    /// Files that were published; 0 for databases.
    pub files: u64,
    /// Bytes that were published; 0 where the target cannot tell.
    pub bytes: u64,
    /// The checkpoint that was written with it.
    pub checkpoint: Checkpoint,
    /// When the target says it happened.
    pub at: DateTime<Utc>,
    /// Whether the target already held this key, so that nothing was done.
    pub already: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_slot_and_generation() {
        let slot = Slot {
            pipeline: "sales".into(),
            step: "load".into(),
            interval: Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap()),
            target: "lake:out".into(),
        };
        let first = LoadKey { slot: slot.clone(), generation: 1 };
        let second = LoadKey { slot, generation: 2 };
        assert_eq!(first.text(), "sales/load/2024-01-15/lake:out#1");
        assert_ne!(first.short(), second.short());
    }

    #[test]
    fn a_series_is_one_load_for_any_interval() {
        let day = |day| Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, day).unwrap());
        let slot = |target: &str, interval| Slot {
            pipeline: "sales".into(),
            step: "load".into(),
            interval,
            target: target.into(),
        };
        let (one, other) = (slot("lake:out", day(15)), slot("lake:out", day(16)));
        assert!(one.is_of_series(&other) && one.is_text_of_series(&other.text()));
        let hours = Interval { start: day(15).start, end: day(15).start + chrono::TimeDelta::hours(1) };
        assert!(one.is_text_of_series(&slot("lake:out", hours).text()));
        // Ends like it, and is another.
        assert!(!one.is_text_of_series(&slot("other:x/lake:out", day(15)).text()));
        assert!(!one.is_text_of_series("sales/load/lake:out"));
    }
}
