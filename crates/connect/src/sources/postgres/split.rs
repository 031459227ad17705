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
use crate::units::split::{Wish, is_larger, keys, part, units};
use gristmill_model::{Result, WorkUnit};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Parts of fewer pages are not worth their statement, unless units of that size were asked for.
const LEAST_PAGES: u64 = 256;

/// What is known about dividing one source's units.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// Whether the key that units go by has an index in its own order.
    indexed: OnceCell<bool>,
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
            Slice::Keys { .. } => {
                let wish = Wish::of(&share.slice, rows, most, target)?;
                let value = match self.find(wanted, snapshot?, &share, wish.part).await {
                    Ok(found) => found?,
                    Err(error) => {
                        // It is read as it is; whatever is wrong will show there, and be tried again.
                        tracing::debug!("`{}` is not divided: {error}", unit.label);
                        return None;
                    }
                };
                let (one, other) = keys(&share.slice, value)?;
                (one, other, (wish.part, wish.rest))
            }
            _ => return None,
        };
        let (first, rest) = units(unit, &share, &wanted.label(), [(first, sizes.0), (rest, sizes.1)])?;
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
