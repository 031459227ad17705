//! Which strategy, how many units, and why. Pure: facts in, a decision out.

use crate::units::decide::{Chosen, Decision, ONE_UNIT, asked, count, most, target};
use crate::units::thousands;
use gristmill_model::spec::{UnitStrategy, UnitsSpec};
use gristmill_model::{Error, ErrorKind, Result};

/// An index that finds less than this share of a table is read by one connection: it is little.
const SELECTIVE: f64 = 0.1;

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Relation {
    /// With its storage engine.
    Table(String),
    View,
    Query,
}

/// What is known before anything is read.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Facts {
    pub(in super::super) relation: Relation,
    /// Rows to be read, about.
    pub(in super::super) rows: Option<u64>,
    /// Rows of the whole table, about.
    pub(in super::super) all_rows: Option<u64>,
    /// Whether there is a condition that is looked up in an index.
    pub(in super::super) by_index: bool,
    /// The first column of the index that the rows are kept in.
    pub(in super::super) key: Option<String>,
    /// Whether several connections can see one picture; else why not.
    pub(in super::super) picture: Result<(), String>,
}

/// Decides.
///
/// # Errors
/// A strategy that what is read cannot have, with the one that it can.
pub(in super::super) fn decide(facts: &Facts, spec: &UnitsSpec) -> Result<Decision> {
    let one = |why: String| Ok(Decision { chosen: Chosen::One, why });
    let strategy = spec.strategy;
    match strategy {
        UnitStrategy::None => return one("one unit, as `units` says".to_owned()),
        UnitStrategy::Ctid => {
            return Err(Error::new(
                ErrorKind::Config,
                "`strategy: ctid` is for PostgreSQL: MySQL tells no pages apart",
            )
            .hint("use `strategy: id_range`, `date_range`, `hash`, `predicates` or `none`"));
        }
        _ => {}
    }
    if let Relation::Table(engine) = &facts.relation
        && !engine.eq_ignore_ascii_case("innodb")
    {
        // Each statement sees another moment of it; units could lose rows or double them.
        if strategy == UnitStrategy::Auto {
            return one(format!("one unit: the storage engine {engine} has no snapshots"));
        }
        let message =
            format!("`strategy: {}` needs a snapshot, which the storage engine {engine} has not", strategy.as_str());
        return Err(Error::new(ErrorKind::Config, message).hint("use `strategy: none`"));
    }
    let rows = facts.rows.unwrap_or(0);
    if strategy != UnitStrategy::Auto {
        let mut decision = asked(spec, facts.key.as_deref(), rows)?;
        if let Err(why) = &facts.picture {
            decision.why.push_str(&format!("; one connection reads them all: {why}"));
        }
        return Ok(decision);
    }
    let one = |why: &str| one(format!("one unit: {why}"));
    match facts.relation {
        Relation::View => return one("a view has no key; `units: {strategy: id_range, by: …}` may divide it"),
        Relation::Query => return one("a query has no key; `units: {strategy: id_range, by: …}` may divide it"),
        Relation::Table(_) => {}
    }
    // A size that was asked for is honoured, however small the table.
    if spec.target_rows.is_none() && rows < ONE_UNIT {
        return one(&format!("fewer than {} rows", thousands(ONE_UNIT)));
    }
    let all = facts.all_rows.unwrap_or(rows);
    if facts.by_index && all > 0 && (rows as f64) < all as f64 * SELECTIVE {
        let (found, all) = (thousands(rows), thousands(all));
        return one(&format!("the condition finds about {found} of {all} rows by an index"));
    }
    let Some(column) = &facts.key else {
        return one("there is no primary key; `units: {strategy: id_range, by: …}` may go by another index");
    };
    if let Err(why) = &facts.picture {
        return one(why);
    }
    if count(rows, spec) <= 1 {
        return one("it is small");
    }
    Ok(Decision {
        chosen: Chosen::Keys { column: column.clone(), most: most(spec), target: target(rows, spec), time: false },
        why: format!("ranges of the key `{column}`, in whose order the rows are kept"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            relation: Relation::Table("InnoDB".into()),
            rows: Some(6_001_215),
            all_rows: Some(6_001_215),
            by_index: false,
            key: Some("id".into()),
            picture: Ok(()),
        }
    }

    #[test]
    fn auto_takes_what_is_right_for_what_is_read_and_says_why() {
        let auto = |facts: &Facts| decide(facts, &UnitsSpec::default()).unwrap();
        let keys = auto(&facts());
        assert!(matches!(keys.chosen, Chosen::Keys { ref column, .. } if column == "id"), "{keys:?}");
        for (facts, why) in [
            (Facts { rows: Some(49_999), ..facts() }, "one unit: fewer than 50,000 rows"),
            (Facts { relation: Relation::View, ..facts() }, "one unit: a view"),
            (Facts { relation: Relation::Query, ..facts() }, "one unit: a query"),
            (Facts { relation: Relation::Table("MyISAM".into()), ..facts() }, "one unit: the storage engine MyISAM"),
            (Facts { key: None, ..facts() }, "one unit: there is no primary key"),
            (Facts { picture: Err("no privilege".into()), ..facts() }, "one unit: no privilege"),
            (Facts { rows: Some(60_000), by_index: true, ..facts() }, "one unit: the condition finds about 60,000 of"),
        ] {
            let decision = auto(&facts);
            assert!(decision.chosen == Chosen::One && decision.why.starts_with(why), "{decision:?}");
        }
    }

    #[test]
    fn a_strategy_that_is_asked_for_is_taken_with_one_connection_or_refused() {
        let ask = |strategy, facts: &Facts| decide(facts, &UnitsSpec { strategy, ..UnitsSpec::default() });
        let alone = Facts { picture: Err("a view cannot be locked".into()), ..facts() };
        let decision = ask(UnitStrategy::IdRange, &alone).unwrap();
        assert!(decision.why.ends_with("; one connection reads them all: a view cannot be locked"), "{decision:?}");
        let aria = Facts { relation: Relation::Table("Aria".into()), ..facts() };
        assert!(ask(UnitStrategy::Hash, &aria).is_err());
        assert_eq!(ask(UnitStrategy::None, &aria).unwrap().chosen, Chosen::One);
        assert!(ask(UnitStrategy::Ctid, &facts()).unwrap_err().message().contains("PostgreSQL"));
        assert!(ask(UnitStrategy::IdRange, &Facts { key: None, ..facts() }).is_err());
    }
}
