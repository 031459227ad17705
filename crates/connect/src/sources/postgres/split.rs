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
/// While a range turns out larger than was thought, each part is to be so much larger than the one before.
const GROWTH: u64 = 2;

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

/// How many rows to expect in the rest of a unit, of which a part of `part` rows was taken. Of a range that is open at an end
/// and held that part, statistics may know nothing: so many that the next part, which is to its rest as `most` is to `rows`,
/// grows.
fn rest(rows: u64, part: u64, most: u64, open: bool) -> u64 {
    let left = rows.saturating_sub(part).max(1);
    let shares = rows.div_ceil(most.max(1)).max(1);
    if open { left.max(part.saturating_mul(GROWTH).saturating_mul(shares)) } else { left }
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
                let open = from.is_none() || to.is_none();
                if !open && !is_larger(rows, most.max(part)) {
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
                (one, other, (part, rest(rows, part, most, open)))
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

    /// The key of the row with the number `part` in a range, if it has so many.
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
            let rows = share.slice.select(
                &Postgres,
                &column_sql,
                &wanted.relation_sql(),
                Some(&format!("{column_sql} IS NOT NULL")),
            );
            let before = part.saturating_sub(1);
            let sql =
                format!("SELECT k.{column_sql}::text FROM ({rows}) k ORDER BY k.{column_sql} OFFSET {before} LIMIT 1");
            let found = session.query_opt(&sql, &[]).await.map_err(failed)?;
            found.map(|row| row.try_get(0).map_err(failed)).transpose()?
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
        assert_eq!(rest(1000, 100, 100, false), 900);
        // A range that hides rows, for four connections that take an eighth each time.
        let (mut rows, mut parts) = (40_000, Vec::new());
        for _ in 0..6 {
            let most = rows / 8;
            parts.push(part(most, None));
            rows = rest(rows, parts[parts.len() - 1], most, true);
        }
        assert!(parts.is_sorted() && parts[0] == LEAST_ROWS && parts[5] == 2 * TARGET_ROWS, "{parts:?}");
    }
}
