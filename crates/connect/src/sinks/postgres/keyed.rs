//! `merge` and `scd2`, and the statements a load brings along, within the transaction of the commit.

use super::PostgresSink;
use super::commit::LEDGER;
use super::target::Target;
use super::types::staged_name;
use crate::sinks::keyed::{
    Keyed, KeyedColumn, KeyedStep, Words, doubled_key, nulls_in_key, refuse_doubled, refuse_null, refuse_past,
};
use crate::sinks::rules::{earlier_keys, refuse_to_double};
use crate::sinks::staged_table::{PREFIX, Payload};
use crate::sources::postgres::connect::{Session, server_error};
use crate::sources::postgres::names::{literal, quoted};
use chrono::SecondsFormat;
use gristmill_model::{Checkpoint, Result, Staged};
use tokio_postgres::Row;

impl PostgresSink {
    /// Runs the user's own statements. Each is sent alone: the server refuses several in one.
    pub(super) async fn run_sql(&self, session: &Session, statements: &[String], key: &str) -> Result<()> {
        for statement in statements {
            session.execute(statement, &[]).await.map_err(|error| {
                server_error(&error, &self.config, &format!("`{key}` of `{}` failed", self.options.table))
            })?;
        }
        Ok(())
    }

    /// Deletes the rows that an earlier answer for the slot has appended, where this one takes their place.
    pub(super) async fn drop_earlier(&self, session: &Session, target: &Target, next: &Checkpoint) -> Result<()> {
        let Some(column) = self.options.rules.replaces_its_own(&self.key, next) else { return Ok(()) };
        let earlier = format!(
            "FROM {}.{LEDGER} WHERE slot = {} AND generation < {}",
            quoted(&target.schema),
            literal(&self.key.slot.text()),
            self.key.generation
        );
        let doing = format!("loading `{}` failed", self.options.table);
        let failed = |error: tokio_postgres::Error| self.refused(&error, &target.schema, &doing);
        let keys: Vec<String> = earlier_keys(&self.key).iter().map(|key| literal(key)).collect();
        let sql = format!("DELETE FROM {} WHERE {} IN ({})", target.sql(), quoted(column), keys.join(", "));
        let gone = session.execute(&sql, &[]).await.map_err(failed)?;
        // Rows that nobody can tell may be among those that are left.
        let sql = format!(
            "SELECT EXISTS (SELECT 1 {earlier} AND rows > 0) AND EXISTS (SELECT 1 FROM {} LIMIT 1)",
            target.sql()
        );
        let may_double = session.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
        if gone == 0 && may_double { Err(refuse_to_double(&self.key)) } else { Ok(()) }
    }

    /// The staged rows as the target's: a query whose columns have its names and types.
    pub(super) fn as_of_target(&self, target: &Target, tables: &[Payload]) -> String {
        let value = |place: usize| if tables.is_empty() { "NULL".to_owned() } else { staged_name(place) };
        let columns = self.columns.iter().enumerate();
        let columns: Vec<String> = columns
            .map(|(place, column)| format!("{} AS {}", target.expression(column, &value(place)), quoted(&column.name)))
            .collect();
        let columns = columns.join(", ");
        if tables.is_empty() {
            return format!("SELECT {columns} WHERE false");
        }
        let all: Vec<String> = tables.iter().map(|table| format!("SELECT * FROM {}", self.rows_of(table))).collect();
        format!("SELECT {columns} FROM ({}) AS staged", all.join(" UNION ALL "))
    }

    /// Looks for keys that the commit would refuse.
    pub(super) async fn audit_keys(&self, staged: &[Staged]) -> Result<()> {
        if !self.options.rules.is_keyed() || staged.iter().all(|staged| staged.rows == 0) {
            return Ok(());
        }
        let tables = staged.iter().map(Payload::of).collect::<Result<Vec<_>>>()?;
        let session = Session::open(&self.config).await?;
        let target = self.target_of(&session, &tables).await?;
        let rows = self.as_of_target(&target, &tables);
        self.check_keys(&session, &format!("({rows})")).await?;
        session.close().await;
        Ok(())
    }

    async fn check_keys(&self, session: &Session, new: &str) -> Result<()> {
        let rules = &self.options.rules;
        for (column, sql) in nulls_in_key(Words::Standard, &rules.match_on, new) {
            let found = session.query_one(&sql, &[]).await.and_then(|row| row.try_get::<_, i64>(0));
            let rows = found.map_err(|error| self.keys_failed(&error))?;
            if rows > 0 {
                return Err(refuse_null(rules, &column, rows));
            }
        }
        let sql = doubled_key(Words::Standard, &rules.match_on, new);
        match session.query_opt(&sql, &[]).await.map_err(|error| self.keys_failed(&error))? {
            None => Ok(()),
            Some(row) => {
                let rows = row.try_get(0).map_err(|error| self.keys_failed(&error))?;
                Err(refuse_doubled(rules, &self.texts(&row, 1)?, rows))
            }
        }
    }

    fn keys_failed(&self, error: &tokio_postgres::Error) -> gristmill_model::Error {
        server_error(error, &self.config, &format!("cannot look at the keys for `{}`", self.options.table))
    }

    /// The columns of a row from `first` on.
    pub(super) fn texts(&self, row: &Row, first: usize) -> Result<Vec<Option<String>>> {
        let values = (first..row.len()).map(|place| row.try_get(place).map_err(|error| self.keys_failed(&error)));
        values.collect()
    }

    /// Brings the staged rows and the table together; answers with the number of rows staged.
    pub(super) async fn publish_keyed(&self, session: &Session, target: &Target, tables: &[Payload]) -> Result<u64> {
        let doing = format!("loading `{}` failed", self.options.table);
        let failed = |error: tokio_postgres::Error| self.refused(&error, &target.schema, &doing);
        let table = target.sql();
        // Nobody else writes between one statement and the next; readers go on.
        session.batch_execute(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")).await.map_err(failed)?;
        let new = format!("{}.{}", quoted(&target.schema), quoted(&format!("{PREFIX}{}_new", self.key.short())));
        let rows = self.as_of_target(target, tables);
        // Made and dropped within the transaction: nobody ever sees it.
        let sql = format!("CREATE UNLOGGED TABLE {new} WITH (autovacuum_enabled = false) AS {rows}");
        let rows = session.execute(&sql, &[]).await.map_err(failed)?;
        self.check_keys(session, &new).await?;
        session.batch_execute(&format!("ANALYZE {new}")).await.map_err(failed)?;
        for step in self.keyed(target, table, &new).steps() {
            match step {
                KeyedStep::Do(sql) => session.batch_execute(&sql).await.map_err(failed)?,
                KeyedStep::Refuse(sql) => {
                    if let Some(row) = session.query_opt(&sql, &[]).await.map_err(failed)? {
                        return Err(refuse_past(&self.options.rules, &self.texts(&row, 0)?));
                    }
                }
            }
        }
        session.batch_execute(&format!("DROP TABLE {new}")).await.map_err(failed)?;
        Ok(rows)
    }

    fn keyed(&self, target: &Target, table: String, new: &str) -> Keyed<'_> {
        let rules = &self.options.rules;
        let column = |column: &super::types::Outgoing| KeyedColumn {
            name: column.name.clone(),
            as_text: target.compares_as_text(column),
        };
        Keyed {
            words: Words::Standard,
            rules,
            table,
            new: new.to_owned(),
            columns: self.columns.iter().map(column).collect(),
            load: literal(&self.key.text()),
            now: "now()".to_owned(),
            holds_from: format!(
                "timestamptz {}",
                literal(&rules.holds_from.to_rfc3339_opts(SecondsFormat::Micros, true))
            ),
            overriding: if target.overrides_identity(&self.columns) { " OVERRIDING SYSTEM VALUE" } else { "" },
        }
    }
}
