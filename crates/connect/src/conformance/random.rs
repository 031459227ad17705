//! Random sequences of loads, against a table in memory: every target must come to hold the same rows.

use super::must;
use super::retention::SHORT;
use super::sink::{Row, SCOPE, SinkTarget, checkpoint, expect, key, load, open, open_with, owner, stage};
use super::strategies::{Version, expect_history};
use chrono::Datelike;
use gristmill_model::spec::{LoadSpec, OneOrMany, Strategy};
use gristmill_model::{ErrorKind, LoadKey, Result, ResultExt};
use std::future::Future;

const DAYS: [&str; 3] = ["2024-01-14", "2024-01-15", "2024-01-16"];
const NOTES: [Option<&str>; 3] = [Some("x"), Some("y"), None];
/// Loads in a sequence.
const LOADS: u32 = 8;

/// Loads random rows by random strategies, one load after the other, and compares the target with a table in memory after
/// each. The same seed does the same in every target that has the same strategies.
///
/// # Errors
/// The first difference, with the seed and the loads up to it; the first error of the sink.
pub async fn random_loads<T, F>(fresh: impl Fn() -> F, seeds: std::ops::Range<u64>) -> Result<()>
where
    T: SinkTarget,
    F: Future<Output = Result<T>>,
{
    for seed in seeds {
        let target = fresh().await?;
        let mut done = Vec::new();
        let is_history = seed % 2 == 1 && target.strategies().contains(&Strategy::Scd2);
        let outcome = match is_history {
            true => history(&target, Chance(seed), &mut done).await,
            false => table(&target, Chance(seed), &mut done).await,
        };
        outcome.context(|| format!("seed {seed}, after {done:#?}"))?;
    }
    Ok(())
}

/// SplitMix64: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).unwrap_or_default()
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn rows(&mut self, is_unique: bool, days: &[&'static str]) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for _ in 0..self.below(6) {
            let id = i64::try_from(self.below(6)).unwrap_or_default();
            let row = (Some(id), days[self.below(days.len())], NOTES[self.below(NOTES.len())]);
            if !is_unique || !rows.iter().any(|known| known.0 == row.0) {
                rows.push(row);
            }
        }
        rows
    }
}

/// Loads rows; now and then commits them twice, the second time by another process.
async fn commit(target: &dyn SinkTarget, spec: &LoadSpec, key: &LoadKey, rows: &[Row], twice: bool) -> Result<()> {
    let owner = owner("run-random");
    // Every other day forgets what was before it.
    let forgets = key.slot.interval.start.day().is_multiple_of(2);
    let sink = open_with(target, spec.clone(), key, &owner, forgets.then_some(SHORT))?;
    sink.prepare().await?;
    let staged = stage(sink.as_ref(), key, &owner, rows).await?;
    let committed = match sink.commit(&staged, &checkpoint(1)).await {
        Ok(committed) => committed,
        Err(error) => {
            sink.abort(key).await?;
            return Err(error);
        }
    };
    must(!committed.already, "a new key is not already there", || format!("{committed:?}"))?;
    if twice {
        let again = open(target, spec.clone(), key, &owner)?.commit(&staged, &checkpoint(1)).await?;
        must(again.already, "a key is committed once", || format!("{again:?}"))?;
    }
    Ok(())
}

/// The next slot, or the next generation of the one before.
fn next_key(chance: &mut Chance, before: &mut (u32, u32)) -> LoadKey {
    *before = if before.0 > 0 && chance.one_in(3) { (before.0, before.1 + 1) } else { (before.0 + 1, 1) };
    key(before.0, before.1)
}

async fn table(target: &dyn SinkTarget, mut chance: Chance, done: &mut Vec<String>) -> Result<()> {
    let strategies: Vec<Strategy> =
        target.strategies().into_iter().filter(|strategy| *strategy != Strategy::Scd2).collect();
    let (mut held, mut slot): (Vec<Row>, (u32, u32)) = (Vec::new(), (0, 0));
    for number in 0..LOADS {
        // The first load makes the table, without a key: what follows may leave rows of one key.
        let strategy = if number == 0 { Strategy::Append } else { strategies[chance.below(strategies.len())] };
        let is_merge = strategy == Strategy::Merge;
        let delete_missing = is_merge && chance.one_in(2);
        let may_be_scoped = delete_missing || matches!(strategy, Strategy::DeleteInsert | Strategy::PartitionOverwrite);
        let is_scoped = may_be_scoped && chance.one_in(3);
        let mut spec = LoadSpec {
            insert_only: is_merge && chance.one_in(3),
            delete_missing,
            ..load(strategy, is_scoped.then_some(SCOPE))
        };
        if target.is_partitioned() {
            spec.partition_by = OneOrMany(vec!["day".to_owned()]);
        }
        // What replaces a partition is of that partition.
        let is_partition = is_scoped && strategy == Strategy::PartitionOverwrite;
        let rows = chance.rows(is_merge, if is_partition { &DAYS[1..2] } else { &DAYS });
        let key = next_key(&mut chance, &mut slot);
        done.push(format!(
            "{} {} {rows:?} {:?}",
            key.text(),
            strategy.as_str(),
            (&spec.scope, spec.insert_only, delete_missing)
        ));
        commit(target, &spec, &key, &rows, chance.one_in(4)).await?;
        meet(&mut held, &spec, &rows);
        expect(target, "a load does what its strategy says", &held).await?;
    }
    Ok(())
}

/// What a load makes of a table.
fn meet(held: &mut Vec<Row>, spec: &LoadSpec, rows: &[Row]) {
    let same_id = |row: &Row| rows.iter().find(|new| new.0 == row.0);
    let in_scope = |row: &Row| spec.scope.is_some() && row.1 == DAYS[1];
    match spec.strategy {
        Strategy::Append | Strategy::Scd2 => held.extend_from_slice(rows),
        Strategy::Replace | Strategy::TruncateInsert => *held = rows.to_vec(),
        Strategy::DeleteInsert => {
            held.retain(|row| same_id(row).is_none() && !in_scope(row));
            held.extend_from_slice(rows);
        }
        Strategy::PartitionOverwrite => {
            held.retain(|row| !rows.iter().any(|new| new.1 == row.1) && !in_scope(row));
            held.extend_from_slice(rows);
        }
        Strategy::Merge => {
            if spec.delete_missing {
                held.retain(|row| same_id(row).is_some() || (spec.scope.is_some() && !in_scope(row)));
            }
            let new: Vec<Row> = rows.iter().filter(|new| !held.iter().any(|row| row.0 == new.0)).copied().collect();
            if !spec.insert_only {
                held.iter_mut().for_each(|row| *row = same_id(row).copied().unwrap_or(*row));
            }
            held.extend(new);
        }
    }
}

async fn history(target: &dyn SinkTarget, mut chance: Chance, done: &mut Vec<String>) -> Result<()> {
    let mut held: Vec<Version> = Vec::new();
    let mut generations = [0_u32; 32];
    let mut day = 1;
    for _ in 0..2 * LOADS {
        // Mostly on, sometimes the same day again, now and then an earlier one.
        day = match chance.below(6) {
            0 => day,
            1 => 1 + u32::try_from(chance.below(day as usize)).unwrap_or_default(),
            _ => (day + 1).min(28),
        };
        generations[day as usize] += 1;
        let key = key(day, generations[day as usize]);
        let delete_missing = chance.one_in(2);
        let scope = (delete_missing && chance.one_in(3)).then_some(SCOPE);
        let spec = LoadSpec { delete_missing, ..load(Strategy::Scd2, scope) };
        let rows = chance.rows(true, &DAYS[..2]);
        done.push(format!("{} {rows:?} {:?}", key.text(), (&spec.scope, delete_missing)));
        let outcome = commit(target, &spec, &key, &rows, chance.one_in(4)).await;
        match (say(&held, day, &rows, &spec), outcome) {
            (Some(now), Ok(())) => held = now,
            (None, Err(error)) if error.kind() == ErrorKind::Conflict => {}
            (Some(_), Err(error)) => return Err(error),
            (None, outcome) => {
                must(false, "history that goes on is not rewritten", || format!("{outcome:?}"))?;
            }
        }
        expect_history(target, "history is what was said", &held).await?;
    }
    Ok(())
}

/// What history becomes when it is said what holds from `day` on; nothing where it says otherwise itself.
fn say(held: &[Version], day: u32, rows: &[Row], spec: &LoadSpec) -> Option<Vec<Version>> {
    let mut now = held.to_vec();
    let holds = |version: &Version| version.1 <= day && version.2.is_none_or(|to| to > day);
    for row in rows {
        let of_key = |version: &Version| version.0.0 == row.0;
        if now.iter().any(|version| of_key(version) && holds(version) && version.0 == *row) {
            continue;
        }
        if now.iter().any(|version| of_key(version) && (version.1 > day || version.2.is_some_and(|to| to > day))) {
            return None;
        }
        now.retain(|version| !(of_key(version) && version.1 == day));
        if let Some(ended) = now.iter_mut().find(|version| version.0 == *row && version.2 == Some(day)) {
            ended.2 = None;
            continue;
        }
        if let Some(open) = now.iter_mut().find(|version| of_key(version) && version.2.is_none()) {
            open.2 = Some(day);
        }
        now.push((*row, day, None));
    }
    if spec.delete_missing {
        let is_missing = |version: &Version| {
            holds(version)
                && !rows.iter().any(|row| row.0 == version.0.0)
                && (spec.scope.is_none() || version.0.1 == DAYS[1])
        };
        if now.iter().any(|version| is_missing(version) && version.2.is_some()) {
            return None;
        }
        now.retain(|version| !(is_missing(version) && version.1 == day));
        now.iter_mut().filter(|version| is_missing(version)).for_each(|version| version.2 = Some(day));
    }
    Some(now)
}
