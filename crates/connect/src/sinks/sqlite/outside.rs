//! Rows outside of the scope that a load answers for: asked in a temporary table with columns like the target's.

use super::commit::each_row;
use super::keyed::texts;
use super::{Inner, target};
use crate::sinks::keyed::Words;
use crate::sinks::outside::Bounds;
use crate::sources::sqlite::database::{Table, quoted};
use gristmill_model::{Result, Staged};
use rusqlite::{Connection, OptionalExtension};

/// The new rows; of the connection alone, gone with it.
const ROWS: &str = "_gristmill_rows";

fn bounds<'a>(inner: &'a Inner, table: Option<&Table>) -> Option<Bounds<'a>> {
    let columns = inner.shelves.iter().map(|shelf| shelf.name.as_str());
    let there = table.map(Table::column_names).unwrap_or_default();
    let others = there.iter().map(String::as_str).chain(["main"]);
    Bounds::new(&inner.plan.rules, Words::Standard, columns, others)
}

/// Looks for rows outside of the scope before any load of the run is committed.
pub(super) fn audit(inner: &Inner, staged: &[Staged]) -> Result<()> {
    let rules = &inner.plan.rules;
    if rules.binding_scope().is_none() || staged.iter().all(|staged| staged.rows == 0) {
        return Ok(());
    }
    let connection = match inner.database.exists() {
        true => inner.database.open_to_read()?,
        false => Connection::open_in_memory().map_err(|error| inner.database.explain(error))?,
    };
    let table = inner.table(&connection)?;
    // Statements before the rows may make the table: the commit sees it.
    if table.is_none() && !rules.pre_sql.is_empty() {
        return Ok(());
    }
    check_rows(inner, &connection, table.as_ref(), staged)
}

/// Looks for staged rows outside of the scope, where that can be told by the rows alone.
pub(super) fn check_rows(
    inner: &Inner,
    connection: &Connection,
    table: Option<&Table>,
    staged: &[Staged],
) -> Result<()> {
    let Some(bounds) = bounds(inner, table).filter(Bounds::are_told_by_rows) else { return Ok(()) };
    let explain = |error| inner.database.explain(error);
    let (rows, declared) = (format!("temp.{}", quoted(ROWS)), declared(inner, connection, table));
    let sql = format!("DROP TABLE IF EXISTS {rows}; CREATE TABLE {rows} ({})", declared.join(", "));
    connection.execute_batch(&sql).map_err(explain)?;
    let marks = vec!["?"; inner.shelves.len()].join(", ");
    let mut insert = connection.prepare(&format!("INSERT INTO {rows} VALUES ({marks})")).map_err(explain)?;
    let columns: Vec<usize> = (0..inner.shelves.len()).collect();
    let not_there = Table { name: String::new(), view: false, rowid: None, columns: Vec::new() };
    each_row(inner, table.unwrap_or(&not_there), staged, &columns, &mut insert)?;
    drop(insert);
    let names: Vec<String> = inner.shelves.iter().map(|shelf| shelf.name.clone()).collect();
    let failed = |error| inner.database.explain_sql(connection, error, &names).context("scope");
    // Called like the table, since a scope may say so.
    let named = table.map_or(inner.plan.table.as_str(), |table| table.name.as_str());
    let from = format!("{rows} AS {}", quoted(named));
    let outside: i64 = connection.query_row(&bounds.count(&from), [], |row| row.get(0)).map_err(failed)?;
    if outside > 0 {
        let example = connection.query_row(&bounds.example(&from), [], |row| texts(row, 0)).optional();
        return Err(bounds.refuse(outside, &example.map_err(failed)?.unwrap_or_default()));
    }
    connection.execute_batch(&format!("DROP TABLE {rows}")).map_err(explain)
}

/// Looks for them in the table, where only that can tell. `added`: how many rows are in it now.
pub(super) fn check_table(inner: &Inner, connection: &Connection, table: &Table, added: u64) -> Result<()> {
    let Some(bounds) = bounds(inner, Some(table)).filter(|bounds| !bounds.are_told_by_rows()) else { return Ok(()) };
    let sql = bounds.count_within(&format!("main.{}", quoted(&table.name)));
    let within = connection
        .query_row(&sql, [], |row| row.get(0))
        .map_err(|error| inner.database.explain_sql(connection, error, &table.column_names()).context("scope"))?;
    bounds.hold(within, added)
}

/// The columns of the rows as the table declares them, or would: with its affinities and collations, by which values compare.
fn declared(inner: &Inner, connection: &Connection, table: Option<&Table>) -> Vec<String> {
    let declare = |shelf: &super::Shelf| {
        let name = quoted(&shelf.name);
        let known = table.and_then(|table| Some((table, target::find(table, &shelf.name)?)));
        let Some((table, column)) = known else { return format!("{name} {}", shelf.declaration()) };
        let metadata = connection.column_metadata(Some("main"), table.name.as_str(), column.name.as_str());
        let collation = metadata.ok().and_then(|(_, collation, ..)| collation.and_then(|name| name.to_str().ok()));
        format!("{name} {} COLLATE {}", column.declared, quoted(collation.unwrap_or("BINARY")))
    };
    inner.shelves.iter().map(declare).collect()
}
