//! Which files are read together and which in pieces. Pure: facts in, shares out.

use crate::sources::files::formats::RowGroup;
use gristmill_model::spec::{UnitStrategy, UnitsSpec};
use gristmill_model::{Error, ErrorKind, Result};
use std::ops::Range;

/// A unit is no smaller than this for its size alone, so that opening it costs little beside reading it …
const SMALLEST: u64 = 8 << 20;
/// … and no larger than this where files can be cut.
const LARGEST: u64 = 256 << 20;
/// Small files share a unit up to this size …
const SHARED: u64 = 32 << 20;
/// … and this number.
const SHARED_FILES: usize = 1_000;
/// `auto` cuts no file that is smaller.
pub(in crate::sources::files) const CUT_FROM: u64 = 16 << 20;
/// About how many units each reader gets: enough that none waits long for the last of another.
const UNITS_PER_LANE: u64 = 4;
/// The most units of a plan, unless `max` says otherwise.
const MOST_UNITS: u32 = 400;

/// What is known of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fact {
    pub(super) name: String,
    pub(super) size: u64,
    /// Rows, about.
    pub(super) rows: Option<u64>,
    pub(super) cuttable: Cuttable,
}

/// Whether a file can be read in pieces.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cuttable {
    /// Not, for this reason.
    No(&'static str),
    /// Between any two records.
    Anywhere,
    /// Between any two records, for a price that is paid only where it is asked for.
    AtACost(&'static str),
    /// Between these.
    RowGroups(Vec<RowGroup>),
}

/// A part of the plan: one unit, or the pieces of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Share {
    /// These files, as one unit.
    Files(Range<usize>),
    /// A text, cut at the first record at or behind each target.
    Bytes { file: usize, targets: Vec<u64> },
    /// A Parquet file, each range of its row groups a unit.
    RowGroups { file: usize, groups: Vec<Range<usize>> },
}

impl Share {
    fn units(&self) -> usize {
        match self {
            Self::Files(_) => 1,
            Self::Bytes { targets, .. } => targets.len() + 1,
            Self::RowGroups { groups, .. } => groups.len(),
        }
    }
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) shares: Vec<Share>,
    /// What one might wonder about.
    pub(super) note: Option<String>,
}

/// Decides.
///
/// # Errors
/// `byte_range` for files of which none can be cut.
pub(super) fn decide(facts: &[Fact], spec: &UnitsSpec, lanes: usize) -> Result<Decision> {
    if spec.strategy == UnitStrategy::None {
        let shares = if facts.is_empty() { Vec::new() } else { vec![Share::Files(0..facts.len())] };
        return Ok(Decision { shares, note: None });
    }
    let reason = |fact: &Fact| match fact.cuttable {
        Cuttable::No(why) => Some(why),
        _ => None,
    };
    if spec.strategy == UnitStrategy::ByteRange
        && let Some(first) = facts.first()
        && facts.iter().all(|fact| reason(fact).is_some())
    {
        let why = reason(first).unwrap_or_default();
        return Err(Error::new(
            ErrorKind::Config,
            format!("`strategy: byte_range` cannot cut `{}`: {why}", first.name),
        )
        .hint("use `strategy: files`, or `auto`"));
    }
    let lanes = lanes.max(1) as u64;
    let total: u64 = facts.iter().map(|fact| fact.size).sum();
    let rows = facts.iter().map(|fact| fact.rows).sum::<Option<u64>>();
    let most = spec.max.unwrap_or(MOST_UNITS).max(1);
    let mut unit_bytes = match (spec.target_rows, rows) {
        (Some(target), Some(rows)) => {
            u64::try_from(u128::from(total) * u128::from(target) / u128::from(rows.max(1))).unwrap_or(u64::MAX).max(1)
        }
        _ => (total / (lanes * UNITS_PER_LANE)).clamp(SMALLEST, LARGEST),
    };
    let by_rows = spec.target_rows.is_some() && rows.is_some();
    let mut shared_files = if by_rows { usize::MAX } else { SHARED_FILES };
    // Cutting serves readers side by side; where files are many, whole ones keep them busy.
    let cut_from = match spec.strategy {
        UnitStrategy::ByteRange => 0,
        UnitStrategy::Files => u64::MAX,
        _ if by_rows => 0,
        _ if lanes == 1 && spec.max.is_none() => u64::MAX,
        _ => CUT_FROM.max(total / (lanes * 2)),
    };
    let costly = spec.strategy == UnitStrategy::ByteRange;
    let mut shares = share(facts, unit_bytes, shared_files, cut_from, costly, by_rows);
    while shares.iter().map(Share::units).sum::<usize>() > most as usize {
        (unit_bytes, shared_files) = (unit_bytes.saturating_mul(2), shared_files.saturating_mul(2));
        shares = share(facts, unit_bytes, shared_files, cut_from, costly, by_rows);
        if unit_bytes == u64::MAX && shared_files == usize::MAX {
            break;
        }
    }
    Ok(Decision { note: note(facts, spec, rows, unit_bytes, cut_from), shares })
}

/// What one might wonder about: a row count that cannot be told, a big file that is not cut.
fn note(facts: &[Fact], spec: &UnitsSpec, rows: Option<u64>, unit_bytes: u64, cut_from: u64) -> Option<String> {
    if spec.target_rows.is_some() && rows.is_none() {
        return Some(
            "how many rows there are cannot be told before they are read, so `target_rows` does not count".to_owned(),
        );
    }
    let whole = facts.iter().find_map(|fact| match fact.cuttable {
        Cuttable::No(why) if fact.size > unit_bytes && cut_from < fact.size => Some((fact, why, "")),
        Cuttable::AtACost(why) if fact.size > cut_from && spec.strategy != UnitStrategy::ByteRange => {
            Some((fact, why, " (`strategy: byte_range` does it)"))
        }
        _ => None,
    });
    whole.map(|(fact, why, hint)| format!("`{}` is not cut: {why}{hint}", fact.name))
}

fn share(
    facts: &[Fact],
    unit_bytes: u64,
    shared_files: usize,
    cut_from: u64,
    costly: bool,
    by_rows: bool,
) -> Vec<Share> {
    let shared = if by_rows { unit_bytes } else { unit_bytes.max(SHARED) };
    let mut shares = Vec::new();
    let mut start = 0;
    while let Some(fact) = facts.get(start) {
        if let Some(pieces) = pieces(start, fact, unit_bytes, cut_from, costly) {
            shares.push(pieces);
            start += 1;
            continue;
        }
        let mut end = start + 1;
        let mut bytes = fact.size;
        while let Some(next) = facts.get(end)
            && end - start < shared_files
            && bytes.saturating_add(next.size) <= shared
            && pieces(end, next, unit_bytes, cut_from, costly).is_none()
        {
            bytes += next.size;
            end += 1;
        }
        shares.push(Share::Files(start..end));
        start = end;
    }
    shares
}

/// The pieces of a file, if it is to be cut.
fn pieces(file: usize, fact: &Fact, unit_bytes: u64, cut_from: u64, costly: bool) -> Option<Share> {
    if fact.size < cut_from || fact.size <= unit_bytes {
        return None;
    }
    match &fact.cuttable {
        Cuttable::No(_) => None,
        Cuttable::AtACost(_) if !costly => None,
        Cuttable::Anywhere | Cuttable::AtACost(_) => {
            let count = fact.size.div_ceil(unit_bytes);
            let target = |index: u64| (u128::from(fact.size) * u128::from(index) / u128::from(count)) as u64;
            let mut targets: Vec<u64> = (1..count).map(target).filter(|target| *target > 0).collect();
            targets.dedup();
            (!targets.is_empty()).then_some(Share::Bytes { file, targets })
        }
        Cuttable::RowGroups(groups) => {
            // The footer and what else stands between the groups is shared among them.
            let sum: u64 = groups.iter().map(|group| group.bytes).sum();
            let scaled = |bytes: u64| u128::from(bytes) * u128::from(fact.size) / u128::from(sum.max(1));
            let mut ranges: Vec<Range<usize>> = Vec::new();
            let mut bytes = 0;
            for (index, group) in groups.iter().enumerate() {
                bytes += group.bytes;
                match ranges.last_mut() {
                    Some(range) if scaled(bytes) <= u128::from(unit_bytes) => range.end = index + 1,
                    _ => {
                        ranges.push(index..index + 1);
                        bytes = group.bytes;
                    }
                }
            }
            (ranges.len() > 1).then_some(Share::RowGroups { file, groups: ranges })
        }
    }
}
