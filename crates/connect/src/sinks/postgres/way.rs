//! Which way rows take into a table: aside first, or at once to where they will stay.
//!
//! Aside is always right: unlogged staging tables, many writers, and a commit that reads them again. Where nothing is gained
//! by that but a second writing of every row, one writer copies the rows to where they stay:
//!
//! - [`Way::Held`]: into the target itself, in a transaction that only the commit ends. A process that dies takes it with it, so
//!   this is for a load that is published alone.
//! - [`Way::Ready`]: into a table like the target, which takes its place at the commit. For `replace` of a table on which
//!   nothing hangs, and for a target that is not there yet.
//!
//! What a table has that the rows cannot be copied into as they are, or that a new table would not have, sends them aside.

use super::PostgresSink;
use super::target::Target;
use super::types::{Outgoing, staged_name};
use crate::sinks::rules::Rules;
use crate::sinks::staged_table::{Payload, Way};
use crate::sources::postgres::connect::{Session, server_error};
use crate::sources::postgres::names::quoted;
use gristmill_model::spec::Strategy;
use gristmill_model::{LoadKey, OwnerId, Result};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The way of a load, by what it asks for and by what the target is.
fn way(alone: bool, rules: &Rules, table: Table) -> Way {
    // Statements before the rows may change the target; columns of our own are filled by the commit.
    if !rules.pre_sql.is_empty() || !rules.added_fields().is_empty() || rules.is_keyed() {
        return Way::Aside;
    }
    match table {
        Table::Missing { takes_copies: false } | Table::There { takes_copies: false, .. } => Way::Aside,
        Table::Missing { takes_copies: true } => Way::Ready,
        Table::There { is_bare, .. } => match rules.strategy {
            Strategy::Append if alone => Way::Held,
            Strategy::Replace if is_bare => Way::Ready,
            _ => Way::Aside,
        },
    }
}

/// What is to be known of a target for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// It is to be made.
    Missing {
        /// Rows can be copied as they are into a table of another name that will be it. Not where subscribers are told of every
        /// new row of every table: they know no such name.
        takes_copies: bool,
    },
    /// It is there.
    There {
        /// Rows can be copied into it as they are: the columns have their types, none is missing, and COPY does to the table what
        /// INSERT does.
        takes_copies: bool,
        /// A new table made like it is as good as itself.
        is_bare: bool,
    },
}

/// How long a table that somebody reads is waited for; less than it takes the server to look for deadlocks.
const SWAP_WAIT: &str = "900ms";

/// Whether COPY may stand for INSERT: it knows no rules, and no row-level security.
const COPIES: &str = "NOT c.relhasrules AND NOT c.relrowsecurity";

/// Whether nothing hangs on a table that `CREATE TABLE … (LIKE … INCLUDING ALL)` would not give to another: no index, key,
/// trigger, view, policy, partition, sequence, statistics, publication, use of its row type, right, comment of its own (those of
/// columns are given), label or setting.
const BARE: &str = "c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relispartition AND c.reloftype = 0 \
    AND c.relreplident = 'd' AND c.reltablespace = 0 AND c.relacl IS NULL AND c.reloptions IS NULL \
    AND pg_get_userbyid(c.relowner) = current_user \
    AND c.relam = (SELECT oid FROM pg_am WHERE amname = current_setting('default_table_access_method')) \
    AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND (a.attacl IS NOT NULL OR a.attoptions IS NOT NULL)) \
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype NOT IN ('c', 'n')) \
    AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) \
    AND NOT EXISTS (SELECT FROM pg_description d WHERE d.classoid = 'pg_class'::regclass AND d.objoid = c.oid \
      AND d.objsubid = 0) \
    AND NOT EXISTS (SELECT FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = c.oid) \
    AND NOT EXISTS (SELECT FROM pg_publication) \
    AND NOT EXISTS (SELECT FROM pg_default_acl a WHERE a.defaclobjtype = 'r' AND a.defaclrole = c.relowner \
      AND a.defaclnamespace IN (0, c.relnamespace)) \
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid \
      AND d.classid NOT IN ('pg_attrdef'::regclass, 'pg_type'::regclass) \
      AND NOT (d.classid = 'pg_class'::regclass AND d.objid = c.reltoastrelid) \
      AND NOT (d.classid = 'pg_constraint'::regclass AND EXISTS ( \
        SELECT FROM pg_constraint k WHERE k.oid = d.objid AND k.conrelid = c.oid AND k.contype IN ('c', 'n')))) \
    AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_type t ON t.oid IN (c.reltype, (SELECT typarray FROM pg_type WHERE oid = c.reltype)) \
      WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid = t.oid \
      AND NOT (d.classid = 'pg_type'::regclass AND d.deptype = 'i'))";

impl PostgresSink {
    /// The way that this load's rows take, as things are.
    pub(super) async fn way_into(&self, session: &Session, target: &Target) -> Result<Way> {
        if self.tolerates {
            return Ok(Way::Aside);
        }
        let failed = |error| server_error(&error, &self.config, &format!("cannot look up `{}`", self.options.table));
        let table = match target.oid() {
            None => {
                let sql = "SELECT NOT EXISTS (SELECT FROM pg_publication)";
                let unpublished: bool =
                    session.query_one(sql, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
                Table::Missing { takes_copies: unpublished && self.columns.iter().all(|column| column.kind.is_final()) }
            }
            Some(oid) => {
                let sql = format!("SELECT {COPIES}, {BARE} FROM pg_class c WHERE c.oid = $1");
                let row = session.query_one(&sql, &[&oid]).await.map_err(failed)?;
                let flag = |place: usize| row.try_get::<_, bool>(place).map_err(failed);
                Table::There { takes_copies: flag(0)? && target.has_the_types_of(&self.columns), is_bare: flag(1)? }
            }
        };
        Ok(way(self.alone, &self.options.rules, table))
    }

    /// The statement that copies rows in: into the staging table, by its columns or the target's, or into the target.
    pub(super) fn copy_statement(&self, way: Way, payload: &Payload, target: &Target) -> String {
        // A table of this transaction takes rows that are settled at once (FREEZE).
        match way {
            Way::Aside => format!("COPY {} FROM STDIN (FORMAT binary, FREEZE)", payload.sql()),
            Way::Ready => {
                format!("COPY {} ({}) FROM STDIN (FORMAT binary, FREEZE)", payload.sql(), names(&self.columns))
            }
            Way::Held => format!("COPY {} ({}) FROM STDIN (FORMAT binary)", target.sql(), names(&self.columns)),
        }
    }

    /// Lets the ready table take the target's place, within the commit. False where it cannot, and its rows must be inserted:
    /// the target has changed meanwhile, or somebody does not let go of it.
    pub(super) async fn swap_in(&self, session: &Session, target: &Target, ready: &Payload) -> Result<bool> {
        let failed = |error| server_error(&error, &self.config, &format!("loading `{}` failed", self.options.table));
        let name = quoted(&target.name);
        if target.oid().is_some() {
            // Whoever reads waits behind us while we wait for those who read.
            let lock = format!(
                "SAVEPOINT swap; SET LOCAL lock_timeout = '{SWAP_WAIT}'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE; \
                 SET LOCAL lock_timeout = DEFAULT",
                target.sql()
            );
            if let Err(error) = session.batch_execute(&lock).await {
                // No lock in time, or one that waits for us.
                if error.code().is_none_or(|code| !["55P03", "40P01"].contains(&code.code())) {
                    return Err(failed(error));
                }
                session.batch_execute("ROLLBACK TO SAVEPOINT swap").await.map_err(failed)?;
                return Ok(false);
            }
            // Whoever held it may have changed it.
            let target = &self.target(session).await?;
            if self.way_into(session, target).await? != Way::Ready || !self.is_like(session, target, ready).await? {
                // Readers need not wait while rows are deleted and inserted.
                session.batch_execute("ROLLBACK TO SAVEPOINT swap").await.map_err(failed)?;
                return Ok(false);
            }
            session.batch_execute(&format!("DROP TABLE {}", target.sql())).await.map_err(failed)?;
        }
        let table = ready.sql();
        let rename = format!("COMMENT ON TABLE {table} IS NULL; ALTER TABLE {table} RENAME TO {name}");
        session.batch_execute(&rename).await.map_err(failed)?;
        Ok(true)
    }

    /// Staged rows with their columns numbered, for a FROM.
    pub(super) fn rows_of(&self, staged: &Payload) -> String {
        if staged.way != Way::Ready {
            return staged.sql();
        }
        let columns = self.columns.iter().enumerate();
        let columns: Vec<String> =
            columns.map(|(place, column)| format!("{} AS {}", quoted(&column.name), staged_name(place))).collect();
        format!("(SELECT {} FROM {}) AS ready", columns.join(", "), staged.sql())
    }

    /// Whether the ready table has the columns that the target has now, in their order, with their comments.
    async fn is_like(&self, session: &Session, target: &Target, ready: &Payload) -> Result<bool> {
        let columns = "SELECT array_agg(ROW(a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attcollation, \
            pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum))::text ORDER BY a.attnum) \
            FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
            WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid =";
        let checks = "SELECT array_agg(ROW(conname, pg_get_constraintdef(oid))::text ORDER BY conname) FROM pg_constraint \
            WHERE contype = 'c' AND conrelid =";
        let sql = format!(
            "SELECT ({columns} $1::text::regclass) IS NOT DISTINCT FROM ({columns} $2::text::regclass) \
             AND ({checks} $1::text::regclass) IS NOT DISTINCT FROM ({checks} $2::text::regclass)"
        );
        session
            .query_one(&sql, &[&target.sql(), &ready.sql()])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(|error| server_error(&error, &self.config, &format!("cannot look up `{}`", self.options.table)))
    }
}

/// The columns of the rows, as the target names them.
pub(super) fn names(columns: &[Outgoing]) -> String {
    let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
    names.join(", ")
}

/// Transactions that hold rows until their commit; of the connection, since stage and commit have sinks of their own.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<HashMap<String, HeldRows>>);

/// An open transaction with rows in it.
#[derive(Debug)]
struct HeldRows {
    key: LoadKey,
    owner: OwnerId,
    session: Session,
}

impl Held {
    pub(super) fn keep(&self, name: &str, key: &LoadKey, owner: &OwnerId, session: Session) {
        let rows = HeldRows { key: key.clone(), owner: owner.clone(), session };
        // What was held under the name is dropped, and rolled back by that.
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), rows));
    }

    pub(super) fn take(&self, name: &str) -> Option<Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name).map(|rows| rows.session)
    }

    /// Rolls back what is held for a load; hanging up does that.
    pub(super) fn give_up(&self, key: &LoadKey, owner: &OwnerId) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, rows| rows.key != *key || rows.owner != *owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::postgres::tests::rules;

    #[test]
    fn rows_go_where_they_stay_if_nothing_is_lost_by_that() {
        let there = |takes_copies, is_bare| Table::There { takes_copies, is_bare };
        let bare = there(true, true);
        for (load, alone, table, wanted) in [
            ("strategy: append", true, bare, Way::Held),
            ("strategy: append", true, there(true, false), Way::Held),
            ("strategy: append", false, bare, Way::Aside),
            ("strategy: append", true, there(false, true), Way::Aside),
            ("strategy: append", false, Table::Missing { takes_copies: true }, Way::Ready),
            ("strategy: append", false, Table::Missing { takes_copies: false }, Way::Aside),
            ("strategy: append\nload_column: true", true, bare, Way::Aside),
            ("strategy: append\npre_sql: select 1", true, bare, Way::Aside),
            ("strategy: append\npost_sql: select 1", true, bare, Way::Held),
            ("strategy: replace", false, bare, Way::Ready),
            ("strategy: replace", true, there(true, false), Way::Aside),
            ("strategy: replace", true, there(false, true), Way::Aside),
            ("strategy: truncate+insert", true, bare, Way::Aside),
            ("strategy: truncate+insert", true, Table::Missing { takes_copies: true }, Way::Ready),
            ("strategy: merge\nkey: id", true, bare, Way::Aside),
            ("strategy: merge\nkey: id", true, Table::Missing { takes_copies: true }, Way::Aside),
            ("strategy: delete+insert\nkey: id", true, bare, Way::Aside),
        ] {
            assert_eq!(way(alone, &rules(load), table), wanted, "{load}, alone: {alone}, {table:?}");
        }
    }
}
