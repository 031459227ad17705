//! `merge` and `scd2`, and the statements a load brings along, within the transaction of the commit.

use super::Inner;
use super::commit::each_row;
use crate::sinks::keyed::{
    Keyed, KeyedColumn, KeyedStep, Words, doubled_key, nulls_in_key, refuse_doubled, refuse_null, refuse_past,
};
use crate::sinks::rules::{earlier_keys, refuse_to_double};
use crate::sources::sqlite::database::{LEDGER, Table, quoted, quoted_list};
use chrono::{DateTime, Timelike, Utc};
use gristmill_model::{Checkpoint, Committed, Result, Staged};
use rusqlite::{Connection, OptionalExtension, Row};

/// The new rows; of the connection alone, gone with it.
const NEW: &str = "_gristmill_new";

/// A text in SQL.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A time in SQL, as a column of such times keeps it (`convert.rs`).
pub(super) fn instant(at: DateTime<Utc>) -> String {
    let fraction = if at.nanosecond() / 1_000 == 0 { "" } else { "%.6f" };
    literal(&at.format(&format!("%Y-%m-%d %H:%M:%S{fraction}+00:00")).to_string())
}

/// Runs the user's own statements, each alone.
pub(super) fn run_sql(inner: &Inner, connection: &Connection, statements: &[String], key: &str) -> Result<()> {
    for sql in statements {
        let run = || -> rusqlite::Result<()> {
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        run().map_err(|error| inner.database.explain_sql(connection, error, &[]).context(key.to_owned()))?;
    }
    Ok(())
}

/// Deletes the rows that an earlier answer for the slot has appended, where this one takes their place.
pub(super) fn drop_earlier(inner: &Inner, connection: &Connection, table: &Table, next: &Checkpoint) -> Result<()> {
    let key = &inner.context.key;
    let Some(column) = inner.plan.rules.replaces_its_own(key, next) else { return Ok(()) };
    let explain = |error| inner.database.explain(error);
    let earlier = format!("FROM main.{} WHERE slot = ?1 AND generation < ?2", quoted(LEDGER));
    let own = (key.slot.text(), key.generation);
    let keys: Vec<String> = earlier_keys(key).iter().map(|key| literal(key)).collect();
    let sql = format!("DELETE FROM main.{} WHERE {} IN ({})", quoted(&table.name), quoted(column), keys.join(", "));
    let gone = connection.execute(&sql, []).map_err(explain)?;
    // Rows that nobody can tell may be among those that are left.
    let sql = format!(
        "SELECT EXISTS (SELECT 1 {earlier} AND rows > 0) AND EXISTS (SELECT 1 FROM main.{})",
        quoted(&table.name)
    );
    let may_double: bool = connection.query_row(&sql, (&own.0, own.1), |row| row.get(0)).map_err(explain)?;
    if gone == 0 && may_double { Err(refuse_to_double(key)) } else { Ok(()) }
}

/// Looks for keys that the commit would refuse, without the database: in a table of its own like the one there would be.
pub(super) fn audit(inner: &Inner, staged: &[Staged]) -> Result<()> {
    if !inner.plan.rules.is_keyed() || staged.iter().all(|staged| staged.rows == 0) {
        return Ok(());
    }
    let explain = |error| inner.database.explain(error);
    let scratch = Connection::open_in_memory().map_err(explain)?;
    let key = inner.plan.rules.match_on.iter();
    let columns: Vec<usize> =
        key.filter_map(|name| inner.shelves.iter().position(|shelf| shelf.name == *name)).collect();
    let declared: Vec<String> = columns
        .iter()
        .map(|place| format!("{} {}", quoted(&inner.shelves[*place].name), inner.shelves[*place].declaration()))
        .collect();
    let sql = format!("CREATE TABLE temp.{} ({})", quoted(NEW), declared.join(", "));
    scratch.execute_batch(&sql).map_err(explain)?;
    let marks = vec!["?"; columns.len()].join(", ");
    let sql = format!("INSERT INTO temp.{} VALUES ({marks})", quoted(NEW));
    let mut insert = scratch.prepare(&sql).map_err(explain)?;
    // Nobody knows yet what the table makes of numbers; two that are the same stay the same.
    let table = Table { name: String::new(), view: false, rowid: None, columns: Vec::new() };
    each_row(inner, &table, staged, &columns, &mut insert)?;
    check_keys(inner, &scratch)
}

fn check_keys(inner: &Inner, connection: &Connection) -> Result<()> {
    let explain = |error| inner.database.explain(error);
    let (rules, new) = (&inner.plan.rules, format!("temp.{}", quoted(NEW)));
    for (column, sql) in nulls_in_key(Words::Standard, &rules.match_on, &new) {
        let rows: i64 = connection.query_row(&sql, [], |row| row.get(0)).map_err(explain)?;
        if rows > 0 {
            return Err(refuse_null(rules, &column, rows));
        }
    }
    let found = connection
        .query_row(&doubled_key(Words::Standard, &rules.match_on, &new), [], |row| Ok((row.get(0)?, texts(row, 1)?)));
    match found.optional().map_err(explain)? {
        None => Ok(()),
        Some((rows, values)) => Err(refuse_doubled(rules, &values, rows)),
    }
}

/// The columns of a row from `first` on.
pub(super) fn texts(row: &Row<'_>, first: usize) -> rusqlite::Result<Vec<Option<String>>> {
    (first..row.as_ref().column_count()).map(|place| row.get(place)).collect()
}

/// Brings the staged rows and the table together; answers with the number of rows staged.
pub(super) fn publish(
    inner: &Inner,
    connection: &Connection,
    table: &Table,
    staged: &[Staged],
    committed: &Committed,
) -> Result<u64> {
    let explain = |error| inner.database.explain(error);
    let new = format!("temp.{}", quoted(NEW));
    let names: Vec<&str> = inner.shelves.iter().map(|shelf| shelf.name.as_str()).collect();
    let (list, key) = (quoted_list(names.iter().copied()), &inner.plan.rules.match_on);
    // Made from the target, the columns have its affinities: a value compares equal as it will be stored.
    connection
        .execute_batch(&format!(
            "DROP TABLE IF EXISTS {new}; CREATE TABLE {new} AS SELECT {list} FROM main.{} LIMIT 0",
            quoted(&table.name)
        ))
        .map_err(explain)?;
    let marks = vec!["?"; names.len()].join(", ");
    let mut insert = connection.prepare(&format!("INSERT INTO {new} VALUES ({marks})")).map_err(explain)?;
    let columns: Vec<usize> = (0..names.len()).collect();
    let rows = each_row(inner, table, staged, &columns, &mut insert)?;
    check_keys(inner, connection)?;
    let index = format!(
        "CREATE UNIQUE INDEX temp.{} ON {} ({})",
        quoted("_gristmill_new_key"),
        quoted(NEW),
        quoted_list(key.iter().map(String::as_str))
    );
    connection.execute_batch(&index).map_err(explain)?;
    for step in keyed(inner, table, &new, committed).steps() {
        match step {
            KeyedStep::Do(sql) => {
                connection
                    .execute(&sql, [])
                    .map_err(|error| inner.database.explain_sql(connection, error, &table.column_names()))?;
            }
            KeyedStep::Refuse(sql) => {
                let found = connection.query_row(&sql, [], |row| texts(row, 0)).optional().map_err(explain)?;
                if let Some(values) = found {
                    return Err(refuse_past(&inner.plan.rules, &values));
                }
            }
        }
    }
    drop(insert);
    connection.execute_batch(&format!("DROP TABLE {new}")).map_err(explain)?;
    Ok(rows)
}

fn keyed<'a>(inner: &'a Inner, table: &Table, new: &str, committed: &Committed) -> Keyed<'a> {
    let rules = &inner.plan.rules;
    let columns = inner.shelves.iter().map(|shelf| KeyedColumn { name: shelf.name.clone(), as_text: false });
    Keyed {
        words: Words::Standard,
        rules,
        table: format!("main.{}", quoted(&table.name)),
        new: new.to_owned(),
        columns: columns.collect(),
        load: literal(&committed.key.text()),
        now: instant(committed.at),
        holds_from: instant(rules.holds_from),
        overriding: "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_a_column_of_times_keeps_it() {
        let at = |text: &str| instant(text.parse().unwrap());
        assert_eq!(at("2024-01-15T00:00:00Z"), "'2024-01-15 00:00:00+00:00'");
        assert_eq!(at("2024-01-15T10:20:30.123456Z"), "'2024-01-15 10:20:30.123456+00:00'");
    }
}
