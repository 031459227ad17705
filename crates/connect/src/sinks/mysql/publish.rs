//! Old rows out, new rows in: within the transaction of the commit.

use super::MysqlSink;
use super::keyed::New;
use super::ledger::instant;
use super::session::put;
use super::target::Target;
use super::types::staged_name;
use crate::sinks::staged_table::Payload;
use crate::sources::mysql::connect::{Failure, Session};
use crate::sources::mysql::names::{literal, quoted};
use chrono::{DateTime, Utc};
use gristmill_model::Result;
use gristmill_model::fault::{self, Point};
use gristmill_model::spec::Strategy;

impl MysqlSink {
    /// Deletes what the strategy says and inserts what was staged; answers with the number of rows inserted.
    pub(super) async fn publish(
        &self,
        session: &mut Session,
        target: &Target,
        tables: &[Payload],
        new: Option<&New>,
        at: DateTime<Utc>,
    ) -> Result<u64> {
        if let (true, Some(new)) = (self.options.rules.is_keyed(), new) {
            return self.publish_keyed(session, target, new, at).await;
        }
        let doing = self.doing();
        let failed = |error: Failure| self.refused(&error, &doing);
        self.check_rows_in_scope(session, target, tables).await?;
        let deletes = self.deletes(target, new);
        // Rows that others point at may go and come again. The server would look at each as it goes; we look at all of them
        // when they are there.
        let looks_later = target.is_pointed_at() && !deletes.is_empty();
        if looks_later {
            session.run("SET SESSION foreign_key_checks = 0").await.map_err(failed)?;
        }
        for delete in &deletes {
            fault::at(Point::BeforeDelete)?;
            session.run(delete).await.map_err(failed)?;
            fault::at(Point::AfterDelete)?;
        }
        let columns = self.values(at).into_iter().map(|(name, value)| (quoted(name), value));
        let (names, values): (Vec<String>, Vec<String>) = columns.unzip();
        let (names, values) = (names.join(", "), values.join(", "));
        let mut inserted = 0;
        for table in tables {
            let sql = format!("INSERT INTO {} ({names}) SELECT {values} FROM {}", target.sql(), table.in_backticks());
            inserted += put(session, &sql, |error| self.refused(error, &doing)).await?;
        }
        if looks_later {
            session.run("SET SESSION foreign_key_checks = 1").await.map_err(failed)?;
            let keys = target.existing.as_ref().map(|existing| existing.foreign_keys.as_slice());
            for key in keys.unwrap_or_default() {
                if session.value(&key.dangling()).await.map_err(failed)?.is_some() {
                    return Err(key.refuse());
                }
            }
        }
        self.check_table_in_scope(session, target, inserted).await?;
        Ok(inserted)
    }

    /// Columns of the target and what a new row of a staging table has for them: its own, and the stamps of the load.
    pub(super) fn values(&self, at: DateTime<Utc>) -> Vec<(&str, String)> {
        let own = self.columns.iter().enumerate().map(|(place, column)| (column.name.as_str(), staged_name(place)));
        let stamps = &self.options.rules.stamps;
        let load = stamps.load.iter().map(|name| (name.as_str(), literal(&self.key.text())));
        let times = stamps.created.iter().chain(&stamps.updated).map(|name| (name.as_str(), instant(at)));
        own.chain(load).chain(times).collect()
    }

    /// The statements that delete old rows; `new` has the new keys.
    fn deletes(&self, target: &Target, new: Option<&New>) -> Vec<String> {
        let (rules, table) = (&self.options.rules, target.sql());
        if matches!(rules.strategy, Strategy::Replace | Strategy::TruncateInsert) {
            return vec![format!("DELETE FROM {table}")];
        }
        // What the user wrote stands on a line of its own, so that a comment in it ends there.
        let scope = rules.scope.as_ref().map(|scope| format!("DELETE FROM {table} WHERE (\n{scope}\n)"));
        let of_keys =
            new.map(|new| format!("DELETE o FROM {table} AS o JOIN {} AS n ON {}", new.table, self.same_keys()));
        scope.into_iter().chain(of_keys).collect()
    }
}
