//! Dividing a unit that is about to be read, as for PostgreSQL: the server finds by the key's index which key so many rows of
//! the range come before, since only it knows what there is where its estimates were wrong.

use super::connect::{Failure, server_error};
use super::names::{Mysql, quoted};
use super::snapshot::{Lent, SNAPSHOTS, Snapshot};
use super::units::facts::Key;
use super::wanted::{Relation, Wanted};
use crate::units::keys::KeyKind;
use crate::units::share::{Share, Slice};
use crate::units::split::{Wish, keys, units};
use gristmill_model::{Result, WorkUnit};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// What is known about dividing one source's units.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The key that units go by.
    key: OnceCell<Key>,
}

impl Splitter {
    /// The first part of a unit and the rest, as [`crate::Source::split`] says.
    pub(super) async fn split(&self, wanted: &Wanted, unit: &WorkUnit, most: u64) -> Option<(WorkUnit, WorkUnit)> {
        let share: Share = serde_json::from_value(unit.payload.clone()).ok()?;
        let snapshot = SNAPSHOTS.find(share.snapshot.as_deref()?)?;
        let wish = Wish::of(&share.slice, unit.rows?, most, wanted.units.target_rows)?;
        let value = match self.find(wanted, &snapshot, &share, wish.part).await {
            Ok(found) => found?,
            Err(error) => {
                // It is read as it is; whatever is wrong will show there, and be tried again.
                tracing::debug!("`{}` is not divided: {error}", unit.label);
                return None;
            }
        };
        let (first, rest) = keys(&share.slice, value)?;
        let (first, rest) = units(unit, &share, &wanted.label(), [(first, wish.part), (rest, wish.rest)])?;
        // From here on the plan has one unit more.
        Some((first, WorkUnit { ordinal: snapshot.add_unit()?, ..rest }))
    }

    /// The key of the row with the number `part` in a range, if it has so many.
    async fn find(
        &self,
        wanted: &Wanted,
        snapshot: &Arc<Snapshot>,
        share: &Share,
        part: u64,
    ) -> Result<Option<String>> {
        let filter = wanted.filter.as_ref().or(share.pushed.as_ref());
        let (Slice::Keys { column, .. }, Relation::Table(_), None) = (&share.slice, &wanted.relation, filter) else {
            return Ok(None);
        };
        // Whoever is to read the unit has none yet, so that one is idle; if not, it is worth no wait.
        let Some(mut lent) = Lent::idle(snapshot) else { return Ok(None) };
        let failed =
            |error: Failure| server_error(&error, &wanted.config, "cannot look where a range is to be divided");
        let session = lent.session().map_err(failed)?;
        let key = self.key.get_or_try_init(|| async move { wanted.key(session, column).await }).await?;
        let found = match &key.index {
            None => None,
            // Its text has six digits, and may lie outside of the range it was found in.
            Some(_) if key.kind == KeyKind::Float => None,
            Some(index) => {
                let column = quoted(column);
                let relation = format!("{} FORCE INDEX ({})", wanted.relation_sql(), quoted(index));
                let is_there = format!("{column} IS NOT NULL");
                let rows = share.slice.select(&Mysql, &key.value(), &relation, Some(&is_there));
                let before = part.saturating_sub(1);
                let sql = format!("{rows} ORDER BY {column} LIMIT 1 OFFSET {before}");
                let session = lent.session().map_err(failed)?;
                session.value(&sql).await.map_err(failed)?
            }
        };
        lent.give_back();
        // What is no date can be kept, but not compared with.
        Ok(found.filter(|value| !(key.kind.is_time() && value.starts_with("0000"))).map(|value| key.shown(&value)))
    }
}
