//! Which strategy, how many units, and why. Pure: facts in, a decision out.

use super::blocks::Heap;
use super::thousands;
pub(crate) use crate::units::decide::{Chosen, Decision, count, describe, needs_facts};
use crate::units::decide::{ONE_UNIT, asked, most, target};
use gristmill_model::spec::{UnitStrategy, UnitsSpec};
use gristmill_model::{Error, ErrorKind, Result};

/// A unit of less than so many pages is not worth its statement: 4 MiB at the usual 8 KiB.
const FEWEST_PAGES: u64 = 512;
/// TID range scans are new in PostgreSQL 14; before that, each ctid range would scan the whole table.
const TID_RANGE_SCANS: u32 = 140_000;
/// An index that finds less than this share of a table does so faster than a scan of it, however parallel.
const SELECTIVE: f64 = 0.1;

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Table,
    Partitioned,
    MaterializedView,
    View,
    Foreign,
    /// A query of the user's.
    Query,
    /// Something else that can be selected from: a sequence, or what a relative of PostgreSQL has.
    Other,
}

/// What is known before anything is read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    /// `server_version_num`.
    pub(crate) version: u32,
    pub(crate) relation: Relation,
    /// The tables that hold the rows, where their pages can be read one range at a time; else why not.
    pub(crate) heaps: Result<Vec<Heap>, String>,
    /// Rows to be read, about, as the server's planner estimates them; conditions are taken into account.
    pub(crate) rows: Option<u64>,
    /// Whether there is a condition, and the planner would look it up in an index.
    pub(crate) by_index: bool,
    /// The one column of the primary key.
    pub(crate) key: Option<String>,
    /// Whether rows come from another server, which does not share this one's snapshot.
    pub(crate) foreign: bool,
    /// Whether the server can export a snapshot; else why not.
    pub(crate) snapshot: Result<(), String>,
}

/// Decides.
///
/// # Errors
/// A strategy that what is read cannot have, with the one that it can.
pub(crate) fn decide(facts: &Facts, spec: &UnitsSpec) -> Result<Decision> {
    let one = |why: String| Ok(Decision { chosen: Chosen::One, why });
    let refuse = |message: String, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint.to_owned()));
    let strategy = spec.strategy;
    if matches!(strategy, UnitStrategy::Files | UnitStrategy::ByteRange) {
        let message = format!("`strategy: {}` is for files, and this is a database", strategy.as_str());
        return refuse(message, "use `auto`, `ctid`, `id_range`, `date_range`, `hash`, `predicates` or `none`");
    }
    if strategy == UnitStrategy::None {
        return one("one unit, as `units` says".to_owned());
    }
    if let Err(why) = &facts.snapshot
        && !facts.foreign
    {
        // Units that do not share a picture could lose rows or double them.
        if strategy == UnitStrategy::Auto {
            return one(format!("one unit: {why}"));
        }
        return refuse(
            format!("`strategy: {}` needs a snapshot that units can share, but {why}", strategy.as_str()),
            "use `strategy: none`",
        );
    }
    let rows = facts.rows.unwrap_or(0);
    let units = count(rows, spec);
    match strategy {
        UnitStrategy::None | UnitStrategy::Auto | UnitStrategy::Files | UnitStrategy::ByteRange => {
            auto(facts, spec, rows, units, target(rows, spec))
        }
        UnitStrategy::Ctid => match &facts.heaps {
            _ if facts.version < TID_RANGE_SCANS => refuse(
                "`strategy: ctid` needs PostgreSQL 14 or newer".to_owned(),
                "use `strategy: id_range`; older servers would scan the whole table for each unit",
            ),
            Err(why) => refuse(
                format!("`strategy: ctid` cannot be used: {why}"),
                "use `strategy: id_range`, `date_range`, `hash` or `none`",
            ),
            Ok(_) => Ok(Decision { chosen: Chosen::Ctid { units }, why: "ctid ranges, as `units` says".to_owned() }),
        },
        UnitStrategy::IdRange | UnitStrategy::DateRange | UnitStrategy::Hash | UnitStrategy::Predicates => {
            asked(spec, facts.key.as_deref(), rows)
        }
        UnitStrategy::Pages => refuse(
            "`strategy: pages` is for HTTP APIs".to_owned(),
            "use `strategy: ctid`, `id_range`, `date_range` or `hash`",
        ),
    }
}

fn auto(facts: &Facts, spec: &UnitsSpec, rows: u64, units: u32, target: f64) -> Result<Decision> {
    let one = |why: String| Ok(Decision { chosen: Chosen::One, why: format!("one unit: {why}") });
    if facts.foreign {
        return one("the rows come from another server, which shares no snapshot with this one".to_owned());
    }
    match facts.relation {
        Relation::View => {
            return one("a view has no pages to divide; `units: {strategy: id_range, by: …}` may".to_owned());
        }
        Relation::Query => {
            return one("a query has no pages to divide; `units: {strategy: id_range, by: …}` may".to_owned());
        }
        Relation::Foreign => return one("a foreign table shares no snapshot with this server".to_owned()),
        Relation::Other => return one("it is no table".to_owned()),
        Relation::Table | Relation::Partitioned | Relation::MaterializedView => {}
    }
    // A size that was asked for is honoured, however small the table.
    if spec.target_rows.is_none() && rows < ONE_UNIT {
        return one(format!("fewer than {} rows", thousands(ONE_UNIT)));
    }
    let keys = |reason: &str| match &facts.key {
        Some(column) => Ok(Decision {
            chosen: Chosen::Keys { column: column.clone(), most: most(spec), target, time: false },
            why: format!("ranges of the primary key `{column}`: {reason}"),
        }),
        None => one(format!("{reason}, and there is no primary key of one column")),
    };
    let heaps = match &facts.heaps {
        Ok(heaps) => heaps,
        Err(why) => return keys(why),
    };
    if facts.version < TID_RANGE_SCANS {
        return keys("ctid ranges need PostgreSQL 14 or newer");
    }
    let all: f64 = heaps.iter().map(|heap| heap.rows).sum();
    if facts.by_index && all > 0.0 && (rows as f64) < all * SELECTIVE {
        return one(format!(
            "the condition finds about {} of {} rows by an index",
            thousands(rows),
            thousands(all as u64)
        ));
    }
    let pages: u64 = heaps.iter().map(|heap| heap.pages).sum();
    // Only without a size of the user's: many narrow rows fit a page.
    let by_pages = match spec.target_rows {
        Some(_) => u32::MAX,
        None => u32::try_from(pages.div_ceil(FEWEST_PAGES)).unwrap_or(u32::MAX).max(1),
    };
    let units = units.min(by_pages);
    if units <= 1 {
        return one("its pages are few".to_owned());
    }
    let why = match facts.relation {
        Relation::Partitioned => "ctid ranges of its partitions: each page is read once, whatever the keys",
        _ => "ctid ranges: each page is read once, whatever the keys",
    };
    Ok(Decision { chosen: Chosen::Ctid { units }, why: why.to_owned() })
}
