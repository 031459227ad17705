//! Dividing a unit that is about to be read.
//!
//! Ranges of pages are divided by arithmetic. Of ranges of a key nobody knows where their rows are: statistics may be old, and
//! the range open above takes whatever came since. Where the key has an index, the server finds the key that so many rows
//! come before, and the range is cut there. A range without an index, a hash and a condition are read as they are: each part
//! would scan what the whole scans.

use super::connect::server_error;
use super::names::{Postgres, literal, quoted};
use super::read::PAGE;
use super::snapshot::Snapshot;
use super::stream::open_reader;
use super::units::share::{Share, Slice};
use super::units::split;
use super::wanted::{Relation, Wanted};
use crate::units::decide::TARGET_ROWS;
use gristmill_model::{Result, WorkUnit};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Parts of fewer rows, or pages, are not worth their statement, unless units of that size were asked for.
const LEAST_ROWS: u64 = TARGET_ROWS / 4;
const LEAST_PAGES: u64 = 256;
/// After a range of keys turned out larger than was thought, so many parts' worth are taken to be left: the next ones grow.
const MORE: u64 = 8;

/// What is known about dividing one source's units.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// Whether the key that units go by has an index in its own order.
    indexed: OnceCell<bool>,
}

/// How many rows a part should have: what was asked for, within what is worth it.
fn part(most: u64, target: Option<u64>) -> u64 {
    let least = target.map_or(LEAST_ROWS, |target| (target / 4).clamp(1, LEAST_ROWS));
    let target = target.unwrap_or(TARGET_ROWS).max(1);
    most.clamp(least, target.saturating_mul(2).max(least))
}

/// Whether a unit of about `rows` is large enough that a rest of it is worth a statement of its own.
fn is_larger(rows: u64, part: u64) -> bool {
    rows > part.saturating_add(part / 2)
}

impl Splitter {
    /// The first part of a unit and the rest, as [`crate::Source::split`] says.
    pub(super) async fn split(
        &self,
        wanted: &Arc<Wanted>,
        snapshot: Option<&Arc<Snapshot>>,
        unit: &WorkUnit,
        most: u64,
    ) -> Option<(WorkUnit, WorkUnit)> {
        let share: Share = serde_json::from_value(unit.payload.clone()).ok()?;
        let rows = unit.rows?;
        let target = wanted.units.target_rows;
        let (first, rest, sizes) = match &share.slice {
            Slice::Blocks(blocks) => {
                // Pages cannot hide many rows: a range of the planned size is no larger.
                let part = most.max(part(most, target));
                let pages = unit.bytes? / PAGE;
                let least = if target.is_some() { 1 } else { LEAST_PAGES };
                let first = u64::try_from(u128::from(pages) * u128::from(part) / u128::from(rows.max(1))).ok()?;
                let first = first.max(least);
                if !is_larger(rows, part) || !is_larger(pages, first) {
                    return None;
                }
                let (one, other) = split::blocks(blocks, pages, first)?;
                (one, other, (part, rows - part))
            }
            Slice::Keys { from, to, .. } => {
                let part = part(most, target);
                // Statistics know the ranges between known keys; those at the ends take what nobody has seen.
                if !is_larger(rows, most.max(part)) && from.is_some() && to.is_some() {
                    return None;
                }
                let value = match self.find(wanted, snapshot?, &share, part).await {
                    Ok(found) => found?,
                    Err(error) => {
                        // It is read as it is; whatever is wrong will show there, and be tried again.
                        tracing::debug!("`{}` is not divided: {error}", unit.label);
                        return None;
                    }
                };
                let (one, other) = split::keys(&share.slice, value)?;
                let left = if is_larger(rows, part) { rows - part } else { part.saturating_mul(MORE) };
                (one, other, (part, left))
            }
            _ => return None,
        };
        let label = wanted.label();
        let unit_of = |ordinal: u32, slice: Slice, of: u64| {
            let bytes = unit.bytes.map(|bytes| (bytes as f64 * of as f64 / rows.max(1) as f64) as u64);
            let label = slice.label(&label);
            let payload = serde_json::to_value(Share { slice, ..share.clone() }).ok()?;
            Some(WorkUnit { ordinal, label, payload, rows: Some(of), bytes })
        };
        let first = unit_of(unit.ordinal, first, sizes.0)?;
        let rest = unit_of(unit.ordinal, rest, sizes.1)?;
        // From here on the plan has one unit more.
        let ordinal = snapshot.and_then(|snapshot| snapshot.add_unit(share.plan)).unwrap_or(unit.ordinal);
        Some((first, WorkUnit { ordinal, ..rest }))
    }

    /// The key of the row with the number `part` in a range, if the range is larger than that by half.
    async fn find(
        &self,
        wanted: &Arc<Wanted>,
        snapshot: &Arc<Snapshot>,
        share: &Share,
        part: u64,
    ) -> Result<Option<String>> {
        let filter = wanted.filter.as_ref().or(share.pushed.as_ref());
        let (Slice::Keys { column, .. }, Relation::Table(table), None) = (&share.slice, &wanted.relation, filter)
        else {
            return Ok(None);
        };
        let failed = |error| server_error(&error, &wanted.config, "cannot look where a range is to be divided");
        let (reader, _) =
            open_reader(wanted, Some(snapshot), share.snapshot.as_deref()).await.map_err(|no| no.error)?;
        let session = &reader.session;
        let column_sql = quoted(column);
        let indexed = self.indexed.get_or_try_init(|| async {
            let sql = format!(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
                   JOIN pg_catalog.pg_am am ON am.oid = c.relam JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid \
                   AND a.attnum = i.indkey[0] WHERE i.indrelid = {}::regclass AND a.attname = {} AND am.amname = 'btree' \
                   AND i.indisvalid AND i.indpred IS NULL AND i.indcollation[0] = a.attcollation)",
                literal(&table.sql()),
                literal(column)
            );
            session.query_one(&sql, &[]).await.map_err(failed)?.try_get::<_, bool>(0).map_err(failed)
        });
        let value = if *indexed.await? {
            let enough = part.saturating_add(part / 2).saturating_add(1);
            let rows = share.slice.select(
                &Postgres,
                &column_sql,
                &wanted.relation_sql(),
                Some(&format!("{column_sql} IS NOT NULL")),
            );
            let sql = format!(
                "SELECT v FROM (SELECT k.{column_sql}::text AS v, row_number() OVER (ORDER BY k.{column_sql}) AS place \
                 FROM ({rows}) k ORDER BY k.{column_sql} LIMIT {enough}) counted WHERE place IN ({part}, {enough}) ORDER BY place"
            );
            let found = session.query(&sql, &[]).await.map_err(failed)?;
            match found.as_slice() {
                [at, _] => Some(at.try_get(0).map_err(failed)?),
                _ => None,
            }
        } else {
            None
        };
        snapshot.keep(reader);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_large_as_is_asked_for_within_what_is_worth_it() {
        assert_eq!(part(30_000, None), 30_000);
        assert_eq!(part(10, None), LEAST_ROWS);
        assert_eq!(part(10_000_000, None), 100_000);
        assert_eq!(part(10, Some(1000)), 250);
        assert_eq!(part(10_000, Some(1000)), 2000);
        assert_eq!(part(0, Some(1)), 1);
        assert!(is_larger(16, 10) && !is_larger(15, 10));
    }
}
