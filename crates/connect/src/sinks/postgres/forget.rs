//! Old rows of the ledger go, in the transaction of a load of the same series.

use super::PostgresSink;
use super::commit::LEDGER;
use crate::sinks::ledger::{MOST_AT_ONCE, Row, forgotten_keys, limit};
use crate::sources::postgres::connect::Session;
use crate::sources::postgres::names::quoted;
use chrono::{DateTime, Utc};
use gristmill_model::Result;

impl PostgresSink {
    /// Drops what is older than it is to be remembered, once the load at hand has been entered `at` a time with `sequence`. Loads of
    /// one series are loads of one target, which take turns: nobody else has to do with these rows now.
    pub(super) async fn forget_old(
        &self,
        session: &Session,
        schema: &str,
        sequence: u64,
        at: DateTime<Utc>,
    ) -> Result<()> {
        let Some(limit) = self.ledger_retention.and_then(|retention| limit(at, retention)) else { return Ok(()) };
        let ledger = format!("{}.{LEDGER}", quoted(schema));
        let doing = format!("cannot forget old loads in the ledger `{schema}.{LEDGER}`");
        let failed = |error: tokio_postgres::Error| self.refused(&error, schema, &doing);
        let (begin, end) = self.key.slot.series_ends();
        // There is an index on `at` (in ledgers of older versions there is none), and few rows are old.
        let sql = format!(
            "SELECT l.key, l.slot, l.generation, coalesce((l.checkpoint->>'sequence')::int8, 0), l.at FROM {ledger} AS l \
             JOIN (SELECT slot FROM {ledger} WHERE at < $1 AND starts_with(slot, $2) AND right(slot, length($3)) = $3 \
             GROUP BY slot ORDER BY min(at) LIMIT {MOST_AT_ONCE}) AS old ON old.slot = l.slot"
        );
        let mut rows = Vec::new();
        for row in session.query(&sql, &[&limit, &begin, &end]).await.map_err(failed)? {
            let generation: i64 = row.try_get(2).map_err(failed)?;
            let sequence: i64 = row.try_get(3).map_err(failed)?;
            rows.push(Row {
                key: row.try_get(0).map_err(failed)?,
                slot: row.try_get(1).map_err(failed)?,
                generation: u32::try_from(generation).unwrap_or(u32::MAX),
                sequence: u64::try_from(sequence).unwrap_or_default(),
                at: row.try_get(4).map_err(failed)?,
            });
        }
        let gone = forgotten_keys(rows, &self.key, sequence, limit);
        if !gone.is_empty() {
            let sql = format!("DELETE FROM {ledger} WHERE key = ANY($1)");
            session.execute(&sql, &[&gone]).await.map_err(failed)?;
        }
        Ok(())
    }
}
