//! The target table: whether rows fit it, making it, and adding columns to it.

use super::Inner;
use super::convert::{Affinity, Shelf};
use crate::sinks::rules::{VALID_FROM, VALID_TO};
use crate::sources::sqlite::database::{Table, quoted, quoted_list};
use gristmill_model::spec::Strategy;
use gristmill_model::{Error, ErrorKind, Result};
use rusqlite::Connection;

/// Looks whether rows of the load can go into the table that is there, changing nothing.
pub(super) fn check(inner: &Inner, connection: &Connection, table: &Table) -> Result<()> {
    if let Some(scope) = &inner.plan.rules.scope {
        // A scope may speak of a column that this load is about to add; then nothing of it is there to be replaced.
        connection
            .prepare(&format!("SELECT 1 FROM main.{} WHERE (\n{scope}\n)", quoted(&table.name)))
            .map_err(|error| inner.database.explain_sql(connection, error, &table.column_names()).context("scope"))?;
    }
    match fit(inner, table) {
        Err(_) if may_be_made_anew(inner, connection, table)? => Ok(()),
        outcome => outcome,
    }
}

/// Whether the columns fit, as they are or by adding some.
pub(super) fn fit(inner: &Inner, table: &Table) -> Result<()> {
    let schema_error = |message: String| Error::new(ErrorKind::Schema, message);
    let name = &table.name;
    if table.view {
        return Err(schema_error(format!("`{name}` is a view and cannot be loaded"))
            .hint("load into a table of another name, and select from it in the view"));
    }
    if inner.plan.rules.strategy == Strategy::Scd2
        && let Some(missing) = [VALID_FROM, VALID_TO].into_iter().find(|name| find(table, name).is_none())
    {
        return Err(schema_error(format!(
            "`{name}` has no column `{missing}`, so `scd2` cannot tell since when its rows hold"
        ))
        .hint("load into a new table, or add both columns and fill them: `valid_from`, `valid_to` (TIMESTAMPTZ)"));
    }
    for shelf in inner.all_shelves() {
        let Some(column) = find(table, &shelf.name) else { continue };
        if column.generated {
            return Err(schema_error(format!("column `{}` of `{name}` is computed by the database", shelf.name))
                .hint("leave the column out in the step before"));
        }
        if !shelf.fits(&column.declared) {
            let kind = crate::types::type_name(&shelf.kind);
            return Err(schema_error(format!(
                "column `{}` of `{name}` is declared `{}` and does not take `{kind}`",
                shelf.name, column.declared
            ))
            .hint(format!(
                "cast it in the step before, or change the table; a new table would declare `{}`",
                shelf.declaration()
            )));
        }
    }
    let given = |name: &str| inner.all_shelves().any(|shelf| shelf.name.eq_ignore_ascii_case(name));
    let missing = table.columns.iter().find(|column| column.required && !column.generated && !given(&column.name));
    if let Some(column) = missing {
        return Err(schema_error(format!(
            "column `{}` of `{name}` must not be NULL, and the rows have no such column",
            column.name
        ))
        .hint(format!("add `{}` in the step before, or give the column a default", column.name)));
    }
    Ok(())
}

pub(super) fn find<'a>(table: &'a Table, name: &str) -> Option<&'a crate::sources::sqlite::database::Column> {
    table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
}

/// Whether a table that does not fit may be dropped and made anew: all its rows go anyway, and nothing hangs on it.
pub(super) fn may_be_made_anew(inner: &Inner, connection: &Connection, table: &Table) -> Result<bool> {
    if inner.plan.rules.strategy != Strategy::Replace || table.view {
        return Ok(false);
    }
    // Indexes and triggers of its own, foreign keys to or from it, and whatever names it: views, triggers of others.
    let sql = "SELECT count(*) FROM sqlite_master AS other WHERE \
               (other.tbl_name = ?1 COLLATE NOCASE AND other.type IN ('index', 'trigger') AND other.sql IS NOT NULL) \
               OR (other.type IN ('view', 'trigger') AND instr(lower(other.sql), lower(?1)) > 0) \
               OR (other.type = 'table' AND EXISTS (SELECT 1 FROM pragma_foreign_key_list(other.name) AS link \
                   WHERE link.\"table\" = ?1 COLLATE NOCASE OR other.name = ?1 COLLATE NOCASE))";
    let hanging: i64 =
        connection.query_row(sql, [&table.name], |row| row.get(0)).map_err(|error| inner.database.explain(error))?;
    Ok(hanging == 0)
}

/// Makes the table, or brings it to where the rows fit; within the commit's transaction.
pub(super) fn bring_about(inner: &Inner, connection: &Connection) -> Result<Table> {
    let explain = |error| inner.database.explain(error);
    if let Some(table) = inner.table(connection)? {
        match fit(inner, &table) {
            Ok(()) => {
                for shelf in inner.all_shelves().filter(|shelf| find(&table, &shelf.name).is_none()) {
                    let sql = format!(
                        "ALTER TABLE main.{} ADD COLUMN {} {}",
                        quoted(&table.name),
                        quoted(&shelf.name),
                        shelf.declaration()
                    );
                    connection.execute_batch(&sql).map_err(explain)?;
                }
            }
            Err(error) if !may_be_made_anew(inner, connection, &table)? => return Err(error),
            Err(_) => {
                connection.execute_batch(&format!("DROP TABLE main.{}", quoted(&table.name))).map_err(explain)?;
                connection.execute_batch(&create(&table.name, inner)).map_err(explain)?;
            }
        }
    } else {
        connection.execute_batch(&create(new_name(&inner.plan.table)?, inner)).map_err(explain)?;
    }
    inner.table(connection)?.ok_or_else(|| Error::internal(format!("table `{}` was not made", inner.plan.table)))
}

/// The name of a table that is not there yet: without `main.`, and not one that SQLite keeps for itself.
fn new_name(name: &str) -> Result<&str> {
    let bare = match name.split_once('.') {
        Some((schema, rest)) if schema.eq_ignore_ascii_case("main") => rest,
        Some((schema, rest)) => {
            return Err(Error::new(ErrorKind::NotFound, format!("a SQLite database has no schema `{schema}`"))
                .hint(format!("write `table: {rest}`")));
        }
        None => name,
    };
    if bare.to_ascii_lowercase().starts_with("sqlite_") {
        return Err(Error::new(ErrorKind::Config, format!("`{bare}` is a name that is already spoken for"))
            .hint("choose another table name"));
    }
    Ok(bare)
}

fn create(name: &str, inner: &Inner) -> String {
    let key = inner.plan.rules.new_key();
    let is_key = |shelf: &Shelf| key.iter().any(|name| name.eq_ignore_ascii_case(&shelf.name));
    let mut columns: Vec<String> = inner
        .all_shelves()
        .map(|shelf| {
            // SQLite lets NULL into a primary key unless it is told not to.
            let not_null = if is_key(shelf) { " NOT NULL" } else { "" };
            format!("{} {}{not_null}", quoted(&shelf.name), shelf.declaration())
        })
        .collect();
    if !key.is_empty() {
        columns.push(format!("PRIMARY KEY ({})", quoted_list(key.iter().map(String::as_str))));
    }
    format!("CREATE TABLE main.{} ({})", quoted(name), columns.join(", "))
}

/// What the table makes of numbers, for each column of the load; a table or column that is not there yet would be
/// declared as the load wants it.
pub(super) fn affinities(inner: &Inner, table: Option<&Table>) -> Vec<Affinity> {
    inner
        .shelves
        .iter()
        .map(|shelf| match table.and_then(|table| find(table, &shelf.name)) {
            Some(column) => Affinity::of(&column.declared),
            None => Affinity::of(&shelf.declaration()),
        })
        .collect()
}
