//! Which units a table becomes, and why.
//!
//! Row ids are whole numbers in the order in which the rows are stored, so ranges of them read each page once. SQLite
//! keeps no statistics of where they are; but it finds the next row id after a number, or the last before it, at once. So
//! the space of numbers is divided, and what is empty is cut off, until what is left is about dense.

use super::picture::{Picture, share};
use super::units::{Shape, label, look};
use super::{Wanted, What};
use crate::sources::sqlite::database::{Database, quoted};
use crate::units::counting::{Counting, Divided};
use crate::units::decide::{Chosen, Decision, ONE_UNIT, asked, count, describe, most, needs_facts, target};
use crate::units::keys::{KeyKind, Mass, ascending, cuts, slices};
use crate::units::share::{Dialect, Share, Slice};
use crate::units::thousands;
use crate::{Aggregation, Consistency, Pin, ReadPlan, Retry, SourceStats};
use gristmill_model::spec::{UnitStrategy, UnitsSpec, Verify};
use gristmill_model::{Error, ErrorKind, Result, WorkUnit, one_of};
use rusqlite::Connection;

/// So many pieces a part is divided into to look for what is empty.
const PIECES: i128 = 8;
/// At most so many parts: each is two look-ups.
const MOST_PARTS: usize = 2048;
/// How often parts are divided: enough to find a corner of all 64-bit numbers.
const ROUNDS: usize = 24;

/// SQLite's own words for what units are told apart by.
pub(super) struct Sqlite;

impl Dialect for Sqlite {
    fn quoted(&self, name: &str) -> String {
        quoted(name)
    }

    fn literal(&self, value: &str) -> String {
        value.to_owned()
    }

    fn hash(&self, column: &str) -> String {
        // Whatever the value is, it has a whole number; the sign is cut off.
        format!("(coalesce(CAST({} AS INTEGER), 0) & 9223372036854775807)", quoted(column))
    }
}

/// What is known before anything is read.
#[derive(Debug, Clone, PartialEq)]
struct Facts {
    /// The row id's name; or why there is none.
    rowid: Result<&'static str, String>,
    /// Rows to be read, about.
    rows: Option<u64>,
    /// Whether there is a condition that is looked up in an index.
    by_index: bool,
}

/// Decides.
///
/// # Errors
/// A strategy that what is read cannot have, with the one that it can.
fn decide(facts: &Facts, spec: &UnitsSpec) -> Result<Decision> {
    let one = |why: String| Ok(Decision { chosen: Chosen::One, why });
    let refuse = |message: String, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint.to_owned()));
    let rows = facts.rows.unwrap_or(0);
    match spec.strategy {
        UnitStrategy::None => one("one unit, as `units` says".to_owned()),
        UnitStrategy::Ctid | UnitStrategy::DateRange => refuse(
            format!("`strategy: {}` is not supported for SQLite", spec.strategy.as_str()),
            "use `strategy: id_range`, `hash`, `predicates` or `none`",
        ),
        UnitStrategy::IdRange
        | UnitStrategy::Hash
        | UnitStrategy::Predicates
        | UnitStrategy::Files
        | UnitStrategy::ByteRange
        | UnitStrategy::Pages => asked(spec, facts.rowid.as_ref().ok().copied(), rows),
        UnitStrategy::Auto => {
            let rowid = match &facts.rowid {
                Ok(rowid) => *rowid,
                Err(why) => return one(format!("one unit: {why}")),
            };
            // A size that was asked for is honoured, however small the table.
            if spec.target_rows.is_none() && rows < ONE_UNIT {
                return one(format!("one unit: fewer than {} rows", thousands(ONE_UNIT)));
            }
            if facts.by_index {
                return one("one unit: the condition is looked up in an index".to_owned());
            }
            if count(rows, spec) <= 1 {
                return one("one unit: it is small".to_owned());
            }
            let chosen =
                Chosen::Keys { column: rowid.to_owned(), most: most(spec), target: target(rows, spec), time: false };
            Ok(Decision { chosen, why: "ranges of row ids, in whose order the rows are kept".to_owned() })
        }
    }
}

/// Plans the units, and takes the picture that they share.
///
/// # Errors
/// A database that cannot be read, `units` that it cannot have.
pub(super) fn plan(
    wanted: &Wanted,
    stats: SourceStats,
    readers: usize,
    pushed_down: Vec<String>,
    (pushed, limit, aggregation): (Option<String>, Option<u64>, Option<Aggregation>),
) -> Result<ReadPlan> {
    let (database, spec) = (&wanted.database, &wanted.units);
    let is_query = matches!(wanted.what, What::Query(_));
    let mut decision = Decision { chosen: Chosen::One, why: "one read transaction".to_owned() };
    if needs_facts(spec, stats.rows, is_query) {
        let connection = database.open_to_read()?;
        let shape = look(wanted, &connection)?;
        decision = decide(&facts(&shape, &connection, stats.rows), spec)?;
    } else if spec.strategy == UnitStrategy::None {
        decision.why = "one unit, as `units` says".to_owned();
    }
    let strict = spec.verify == Some(Verify::Count);
    let mut counting = Counting::Never;
    let mut slices = vec![(Slice::Whole, stats.rows)];
    let mut picture = None;
    if decision.chosen != Chosen::One || strict {
        let several = decision.chosen != Chosen::One;
        let (connections, why_alone) = share(database, if several { readers } else { 1 })?;
        if let (Some(why), true) = (why_alone, several) {
            if spec.strategy == UnitStrategy::Auto {
                decision = Decision { chosen: Chosen::One, why: format!("one unit: {why}") };
            } else {
                decision.why.push_str(&format!("; one connection reads them all: {why}"));
            }
        }
        if let Some(first) = connections.first() {
            slices = divided(wanted, first, &decision, stats.rows)?;
            let by_number = matches!(decision.chosen, Chosen::Keys { .. });
            let (units, is_aggregated, bytes) = (slices.len(), aggregation.is_some(), size(first));
            counting = Counting::of(spec.verify, Divided { units, by_number, is_aggregated, bytes });
        }
        if slices.len() > 1 || strict {
            picture = Some(Picture::of(database, connections, slices.len(), counting.counts()));
        }
    }
    let whole = label(wanted);
    let bytes_of = |rows: Option<u64>| {
        let (all, bytes) = (stats.rows.filter(|all| *all > 0)?, stats.bytes?);
        u64::try_from(u128::from(bytes) * u128::from(rows?) / u128::from(all)).ok()
    };
    let units = (0..)
        .zip(slices)
        .map(|(ordinal, (slice, rows))| {
            let label = slice.label(&whole);
            let snapshot = picture.as_ref().map(|picture| picture.id.clone());
            let (pushed, aggregation) = (pushed.clone(), aggregation.clone());
            let payload = serde_json::to_value(Share { snapshot, plan: 0, pushed, aggregation, limit, slice })
                .map_err(|error| Error::internal("a work unit cannot be written").cause(error))?;
            Ok(WorkUnit { ordinal, label, payload, rows, bytes: bytes_of(rows) })
        })
        .collect::<Result<Vec<_>>>()?;
    let sample = units.first().map_or("", |unit| unit.label.as_str());
    let why = match &decision.chosen {
        Chosen::One if decision.why == "one read transaction" => decision.why,
        _ => describe(&decision.why, stats.rows, units.len(), sample) + &counting.said(),
    };
    Ok(ReadPlan {
        consistency: if picture.is_some() { Consistency::Snapshot } else { Consistency::SingleRead },
        units,
        why,
        pushed_down,
        retry: Retry::Never,
        pin: picture.map(|picture| Pin::new(picture)),
    })
}

/// The bytes of the database's file.
fn size(connection: &Connection) -> Option<u64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).ok().and_then(|bytes| u64::try_from(bytes).ok())
}

fn facts(shape: &Shape, connection: &Connection, rows: Option<u64>) -> Facts {
    let rowid = match (&shape.table, shape.rowid) {
        (_, Some(rowid)) => Ok(rowid),
        (None, None) => Err("a query has no row ids".to_owned()),
        (Some(table), None) if table.view => Err("a view has no row ids".to_owned()),
        (Some(_), None) => Err("the table has no row ids".to_owned()),
    };
    Facts { rowid, rows, by_index: shape.filter.is_some() && is_looked_up(shape, connection) }
}

/// Whether SQLite reads the rows by an index other than the row id.
fn is_looked_up(shape: &Shape, connection: &Connection) -> bool {
    let sql = format!("EXPLAIN QUERY PLAN {}", shape.select_list("*", &Slice::Whole));
    let Ok(mut statement) = connection.prepare(&sql) else { return false };
    let steps = statement.query_map([], |row| row.get::<_, String>(3));
    steps.is_ok_and(|steps| steps.flatten().any(|step| step.starts_with("SEARCH") && step.contains("INDEX")))
}

/// The units, and about how many rows each has.
fn divided(
    wanted: &Wanted,
    connection: &Connection,
    decision: &Decision,
    rows: Option<u64>,
) -> Result<Vec<(Slice, Option<u64>)>> {
    let shape = look(wanted, connection)?;
    let all = rows.unwrap_or(0) as f64;
    let even = |parts: u32| Some((all / f64::from(parts.max(1))).round() as u64);
    Ok(match &decision.chosen {
        Chosen::One => vec![(Slice::Whole, rows)],
        Chosen::Ctid { .. } => return Err(Error::internal("pages of a SQLite table")),
        Chosen::Hash { column, units } => {
            must_have(&shape, column)?;
            let slice = |part| Slice::Hash { column: column.clone(), part, of: *units };
            (0..*units).map(|part| (slice(part), even(*units))).collect()
        }
        Chosen::Predicates => {
            let predicates = &wanted.units.predicates;
            let parts = u32::try_from(predicates.len() + 1).unwrap_or(u32::MAX);
            (0..=predicates.len())
                .map(|at| {
                    let (take, leave) = (predicates.get(at).cloned(), predicates[..at].to_vec());
                    (Slice::Predicate { take, leave }, even(parts))
                })
                .collect()
        }
        Chosen::Keys { column, most, target, .. } => {
            let is_row_id = must_be_whole_numbers(&shape, column)?;
            // All of about the same size, rather than all but the last.
            let target = target.min(all / f64::from(count(rows.unwrap_or(0), &wanted.units))).max(1.0);
            let parts = dense(&Space { database: &wanted.database, connection, shape: &shape, column })?;
            let width = |(low, high): &(i64, i64)| (i128::from(*high) - i128::from(*low) + 1) as f64;
            let total: f64 = parts.iter().map(width).sum();
            let masses: Vec<Mass> = parts
                .iter()
                .map(|part| {
                    // Up to the number after the last, which is not part of it.
                    let high = (i128::from(part.1) + 1).to_string();
                    Mass::Between(part.0.to_string(), high, all * width(part) / total.max(1.0))
                })
                .collect();
            let cuts = ascending(KeyKind::Integer, cuts(&masses, KeyKind::Integer, target));
            // A number beyond 64 bits would be a real, which is not exact; there is nothing above the one before it.
            let cuts = cuts.into_iter().filter(|cut| cut.edge.value.parse::<i64>().is_ok()).collect();
            let mut found = slices(column, cuts, all, 0.0, target, *most);
            if is_row_id
                && found.len() > 1
                && let Some((Slice::Keys { nulls, .. }, _)) = found.first_mut()
            {
                // A row id is never NULL, and asking for that would cost the range.
                *nulls = false;
            }
            found.into_iter().map(|(slice, rows)| (slice, Some(rows.round() as u64))).collect()
        }
    })
}

fn must_have(shape: &Shape, column: &str) -> Result<()> {
    let names = || shape.table.iter().flat_map(|table| table.columns.iter().map(|column| column.name.as_str()));
    let chosen = || shape.columns.iter().map(|(name, _)| name.as_str());
    let is_there = |known: &str| known.eq_ignore_ascii_case(column);
    if names().any(is_there) || chosen().any(is_there) || shape.rowid == Some(column) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Schema, format!("column `{column}` does not exist"))
        .hint(one_of(column, names().chain(chosen())))
        .context("units"))
}

/// Whether it is the row id, or another column that keeps whole numbers.
///
/// # Errors
/// A column that may keep others: texts are in another order than numbers.
fn must_be_whole_numbers(shape: &Shape, column: &str) -> Result<bool> {
    must_have(shape, column)?;
    let rowid_names = ["rowid", "_rowid_", "oid"];
    let table = shape.table.as_ref().filter(|table| !table.view);
    let found = table.and_then(|table| table.columns.iter().find(|known| known.name.eq_ignore_ascii_case(column)));
    let keys = table.map_or(0, |table| table.columns.iter().filter(|column| column.key > 0).count());
    match found {
        // SQLite: affinity INTEGER makes a number of every text that is one; `INTEGER PRIMARY KEY` is the row id.
        Some(found) if found.declared.to_ascii_uppercase().contains("INT") => {
            Ok(shape.rowid.is_some() && found.key > 0 && keys == 1 && found.declared.eq_ignore_ascii_case("integer"))
        }
        None if shape.rowid.is_some() && rowid_names.iter().any(|name| name.eq_ignore_ascii_case(column)) => Ok(true),
        _ => Err(Error::new(ErrorKind::Config, format!("units cannot go by ranges of `{column}`"))
            .cause("it is no column of a table that keeps whole numbers")
            .hint(format!("use `units: {{strategy: hash, by: {column}}}`, `predicates`, or `strategy: none`"))),
    }
}

/// Where the numbers of a column are looked for.
struct Space<'a> {
    database: &'a Database,
    connection: &'a Connection,
    shape: &'a Shape,
    column: &'a str,
}

impl Space<'_> {
    /// Whether an end is looked up rather than looked for.
    fn is_quick(&self) -> Result<bool> {
        let column = quoted(self.column);
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT min({column}) FROM {} WHERE {column} BETWEEN 1 AND 2",
            self.shape.relation
        );
        let step: rusqlite::Result<String> = self.connection.query_row(&sql, [], |row| row.get(3));
        Ok(step.map_err(|error| self.database.explain(error))?.starts_with("SEARCH"))
    }

    /// The least and the greatest number within bounds.
    fn ends(&self, low: i64, high: i64) -> Result<Option<(i64, i64)>> {
        let column = quoted(self.column);
        let end = |function: &str| {
            let sql = format!(
                "SELECT {function}({column}) FROM {} WHERE {column} BETWEEN {low} AND {high}",
                self.shape.relation
            );
            // A real between two whole numbers is an end too; it is rounded down, which moves a cut, not a row.
            self.connection
                .query_row(&sql, [], |row| row.get::<_, rusqlite::types::Value>(0))
                .map_err(|error| self.database.explain(error))
        };
        let whole = |value| match value {
            rusqlite::types::Value::Integer(number) => Some(number),
            #[expect(clippy::cast_possible_truncation, reason = "saturates")]
            rusqlite::types::Value::Real(number) => Some(number.floor() as i64),
            _ => None,
        };
        Ok(whole(end("min")?).zip(whole(end("max")?)))
    }
}

/// Parts of the numbers, in order, that have rows in them and little that is empty.
fn dense(space: &Space<'_>) -> Result<Vec<(i64, i64)>> {
    let Some(ends) = space.ends(i64::MIN, i64::MAX)? else { return Ok(Vec::new()) };
    let width = |parts: &[(i64, i64)]| -> i128 {
        parts.iter().map(|(low, high)| i128::from(*high) - i128::from(*low) + 1).sum()
    };
    let mut parts = vec![ends];
    for _ in 0..ROUNDS {
        if parts.len() * PIECES as usize > MOST_PARTS || !space.is_quick()? {
            break;
        }
        let mut next = Vec::with_capacity(parts.len() * 2);
        for (low, high) in &parts {
            for (low, high) in pieces(*low, *high) {
                next.extend(space.ends(low, high)?.map(|(least, most)| (least.max(low), most.min(high))));
            }
        }
        // Nothing much was empty: they are dense.
        let done = width(&next) * 10 > width(&parts) * 8;
        parts = next;
        if done {
            break;
        }
    }
    // Those that meet are one again, which is then divided evenly.
    let mut joined: Vec<(i64, i64)> = Vec::with_capacity(parts.len());
    for (low, high) in parts {
        match joined.last_mut() {
            Some(last) if last.1.checked_add(1) == Some(low) => last.1 = high,
            _ => joined.push((low, high)),
        }
    }
    Ok(joined)
}

/// A range of numbers as several that meet.
fn pieces(low: i64, high: i64) -> Vec<(i64, i64)> {
    let (low, high) = (i128::from(low), i128::from(high));
    let span = high - low + 1;
    let pieces = PIECES.min(span);
    (0..pieces)
        .filter_map(|at| {
            let from = low + span * at / pieces;
            let to = low + span * (at + 1) / pieces - 1;
            Some((i64::try_from(from).ok()?, i64::try_from(to).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_of_a_range_meet_and_cover_it(a in any::<i64>(), b in any::<i64>()) {
            let (low, high) = (a.min(b), a.max(b));
            let pieces = pieces(low, high);
            prop_assert_eq!(pieces[0].0, low);
            prop_assert_eq!(pieces[pieces.len() - 1].1, high);
            for pair in pieces.windows(2) {
                prop_assert_eq!(pair[0].1.checked_add(1), Some(pair[1].0));
            }
        }
    }

    #[test]
    fn auto_takes_row_ids_and_says_why_not() {
        let facts = || Facts { rowid: Ok("rowid"), rows: Some(200_000), by_index: false };
        let auto = |facts: Facts| decide(&facts, &UnitsSpec::default()).unwrap();
        assert!(matches!(auto(facts()).chosen, Chosen::Keys { ref column, .. } if column == "rowid"));
        for (facts, why) in [
            (Facts { rowid: Err("a view has no row ids".into()), ..facts() }, "one unit: a view has no row ids"),
            (Facts { rows: Some(10), ..facts() }, "one unit: fewer than 50,000 rows"),
            (Facts { by_index: true, ..facts() }, "one unit: the condition is looked up in an index"),
        ] {
            assert_eq!(auto(facts), Decision { chosen: Chosen::One, why: why.into() });
        }
        for strategy in [UnitStrategy::Ctid, UnitStrategy::DateRange] {
            assert!(decide(&facts(), &UnitsSpec { strategy, ..UnitsSpec::default() }).is_err());
        }
    }
}
