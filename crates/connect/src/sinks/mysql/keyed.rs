//! Rows and table brought together by a key: `merge` and `scd2`, and what old rows go because of new ones.
//!
//! The new rows, or their keys, come into a table of ours with columns like the target's: so they compare as they will there,
//! and can be looked up. It is made and filled before the transaction of the load, since making a table ends one.

use super::MysqlSink;
use super::column::Column;
use super::ledger::{LEDGER, instant};
use super::session::{changed_rows, open, put};
use super::target::Target;
use super::types::{Outgoing, staged_name};
use crate::sinks::keyed::{
    Keyed, KeyedColumn, KeyedStep, Words, doubled_key, nulls_in_key, refuse_doubled, refuse_null, refuse_past,
};
use crate::sinks::rules::{earlier_keys, refuse_to_double};
use crate::sinks::staged_table::{Label, Payload, table_name};
use crate::sources::mysql::connect::{Failure, Session};
use crate::sources::mysql::names::{literal, quoted};
use chrono::{DateTime, Utc};
use gristmill_model::{Checkpoint, Error, ErrorKind, Result, Staged, TaskKey};

/// A table of ours with new rows, or with their keys.
#[derive(Debug, Clone)]
pub(super) struct New {
    pub(super) table: String,
    rows: u64,
}

impl MysqlSink {
    /// Columns of the rows by which old rows are found, with their places.
    fn matched(&self) -> impl Iterator<Item = (usize, &Outgoing)> {
        let columns = self.columns.iter().enumerate();
        columns.filter(|(_, column)| self.options.rules.match_on.contains(&column.name))
    }

    /// Does what must be done with staged rows before the transaction of the load; outside of every transaction.
    pub(super) async fn prepare_rows(
        &self,
        session: &mut Session,
        target: &Target,
        tables: &[Payload],
    ) -> Result<Option<New>> {
        self.must_be_there(session, tables).await?;
        let rules = &self.options.rules;
        if rules.is_keyed() {
            let columns: Vec<_> = self.columns.iter().enumerate().collect();
            let new = self.gather(session, target, tables, &columns, "").await?;
            self.check_keys(session, &new.table).await?;
            return Ok(Some(new));
        }
        if rules.match_on.is_empty() || tables.is_empty() {
            return Ok(None);
        }
        let columns: Vec<_> = self.matched().collect();
        Ok(Some(self.gather(session, target, tables, &columns, "DISTINCT ").await?))
    }

    pub(super) async fn must_be_there(&self, session: &mut Session, tables: &[Payload]) -> Result<()> {
        for Payload { schema, table, .. } in tables {
            let sql = format!(
                "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = {} AND table_name = {}",
                literal(schema),
                literal(table)
            );
            let found = session.value(&sql).await.map_err(|error| self.asked(&error, &self.doing()))?;
            if found.as_deref() != Some("1") {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("the rows staged in `{table}` for `{}` are gone", self.options.table),
                )
                .hint("another process swept them; run again"));
            }
        }
        Ok(())
    }

    /// Staged rows in a table whose columns are like the target's.
    async fn gather(
        &self,
        session: &mut Session,
        target: &Target,
        tables: &[Payload],
        columns: &[(usize, &Outgoing)],
        distinct: &str,
    ) -> Result<New> {
        let known = |column: &Outgoing| {
            target.column(&column.name).ok_or_else(|| Error::internal(format!("no column `{}`", column.name)))
        };
        let mut definitions = Vec::with_capacity(columns.len() + 1);
        for (_, column) in columns {
            definitions.push(known(column)?.definition());
        }
        let key: Option<Vec<String>> =
            self.matched().filter_map(|(_, column)| target.column(&column.name)).map(|known| known.indexed()).collect();
        // MySQL takes sixteen columns into an index.
        if let Some(key) = key.filter(|key| !key.is_empty() && key.len() <= 16) {
            definitions.push(format!("KEY by_key ({})", key.join(", ")));
        }
        // A writer of its own, after all that stage.
        let task = TaskKey { load: self.key.clone(), owner: self.owner.clone(), partition: u32::MAX, attempt: 0 };
        let label = Label { key: task.load.clone(), owner: task.owner.clone() };
        let payload = Payload::aside(&target.database, table_name(&task));
        self.create_labelled(session, &payload, &label, &definitions).await?;
        let table = payload.in_backticks();
        let mut rows = 0;
        let names: Vec<String> = columns
            .iter()
            .filter_map(|(_, column)| target.column(&column.name))
            .map(|known| quoted(&known.name))
            .collect();
        let staged: Vec<String> = columns.iter().map(|(place, _)| staged_name(*place)).collect();
        for from in tables {
            let (names, staged, from) = (names.join(", "), staged.join(", "), from.in_backticks());
            let sql = format!("INSERT INTO {table} ({names}) SELECT {distinct}{staged} FROM {from}");
            rows += put(session, &sql, |error| self.refused(error, &self.doing())).await?;
        }
        session.run(&format!("ANALYZE TABLE {table}")).await.map_err(|error| self.asked(&error, &self.doing()))?;
        Ok(New { table, rows })
    }

    /// Looks for keys that the commit would refuse.
    pub(super) async fn audit_keys(&self, staged: &[Staged]) -> Result<()> {
        if !self.options.rules.is_keyed() || staged.iter().all(|staged| staged.rows == 0) {
            return Ok(());
        }
        let tables = staged.iter().map(Payload::of).collect::<Result<Vec<_>>>()?;
        let mut session = open(&self.config).await?;
        let target = self.target(&mut session).await?;
        let value = |place: usize, column: &Outgoing| {
            let staged = staged_name(place);
            target.column(&column.name).map_or_else(|| staged.clone(), |known| known.comparable(&staged))
        };
        let columns: Vec<String> = self
            .matched()
            .map(|(place, column)| format!("{} AS {}", value(place, column), quoted(&column.name)))
            .collect();
        let columns = columns.join(", ");
        let all: Vec<String> =
            tables.iter().map(|table| format!("SELECT {columns} FROM {}", table.in_backticks())).collect();
        self.check_keys(&mut session, &format!("({})", all.join(" UNION ALL "))).await?;
        session.close().await;
        Ok(())
    }

    async fn check_keys(&self, session: &mut Session, new: &str) -> Result<()> {
        let rules = &self.options.rules;
        let doing = format!("cannot look at the keys for `{}`", self.options.table);
        let failed = |error: Failure| self.refused(&error, &doing);
        for (column, sql) in nulls_in_key(Words::Mysql, &rules.match_on, new) {
            let found = session.value(&sql).await.map_err(failed)?;
            let rows = found.and_then(|rows| rows.parse().ok()).unwrap_or(0);
            if rows > 0 {
                return Err(refuse_null(rules, &column, rows));
            }
        }
        let sql = doubled_key(Words::Mysql, &rules.match_on, new);
        match session.ask(&sql).await.map_err(failed)?.into_iter().next() {
            None => Ok(()),
            Some(row) => {
                let rows = row.first().cloned().flatten().and_then(|rows| rows.parse().ok()).unwrap_or(2);
                Err(refuse_doubled(rules, row.get(1..).unwrap_or_default(), rows))
            }
        }
    }

    /// Deletes the rows that an earlier answer for the slot has appended, where this one takes their place.
    pub(super) async fn drop_earlier(&self, session: &mut Session, target: &Target, next: &Checkpoint) -> Result<()> {
        let Some(column) = self.options.rules.replaces_its_own(&self.key, next) else { return Ok(()) };
        let earlier = format!(
            "FROM {} WHERE slot = {} AND generation < {}",
            target.beside(LEDGER),
            literal(&self.key.slot.text()),
            self.key.generation
        );
        let doing = self.doing();
        let failed = |error: Failure| self.refused(&error, &doing);
        let keys: Vec<String> = earlier_keys(&self.key).iter().map(|key| literal(key)).collect();
        let sql = format!("DELETE FROM {} WHERE {} IN ({})", target.sql(), quoted(column), keys.join(", "));
        session.run(&sql).await.map_err(failed)?;
        let gone = changed_rows(session).map_err(failed)?;
        // Rows that nobody can tell may be among those that are left.
        let sql = format!(
            "SELECT EXISTS (SELECT 1 {earlier} AND `rows` > 0) AND EXISTS (SELECT 1 FROM {} LIMIT 1)",
            target.sql()
        );
        let may_double = session.value(&sql).await.map_err(failed)?.as_deref() == Some("1");
        if gone == 0 && may_double { Err(refuse_to_double(&self.key)) } else { Ok(()) }
    }

    /// Brings the new rows and the table together; answers with the number of rows staged.
    pub(super) async fn publish_keyed(
        &self,
        session: &mut Session,
        target: &Target,
        new: &New,
        at: DateTime<Utc>,
    ) -> Result<u64> {
        let doing = self.doing();
        for step in self.keyed(target, new, at).steps() {
            match step {
                KeyedStep::Do(sql) => drop(put(session, &sql, |error| self.refused(error, &doing)).await?),
                KeyedStep::Refuse(sql) => {
                    let found = session.ask(&sql).await.map_err(|error| self.refused(&error, &doing))?;
                    if let Some(values) = found.into_iter().next() {
                        return Err(refuse_past(&self.options.rules, &values));
                    }
                }
            }
        }
        Ok(new.rows)
    }

    fn keyed(&self, target: &Target, new: &New, at: DateTime<Utc>) -> Keyed<'_> {
        let rules = &self.options.rules;
        let column = |column: &Outgoing| KeyedColumn {
            name: column.name.clone(),
            as_text: target.column(&column.name).is_some_and(Column::compares_loosely),
        };
        Keyed {
            words: Words::Mysql,
            rules,
            table: target.sql(),
            new: new.table.clone(),
            columns: self.columns.iter().map(column).collect(),
            load: literal(&self.key.text()),
            now: instant(at),
            holds_from: instant(rules.holds_from),
            overriding: "",
        }
    }

    /// How old rows and the new keys are the same; NULL is a key as others are.
    pub(super) fn same_keys(&self) -> String {
        let each = self.options.rules.match_on.iter().map(|name| format!("o.{0} <=> n.{0}", quoted(name)));
        each.collect::<Vec<_>>().join(" AND ")
    }
}
