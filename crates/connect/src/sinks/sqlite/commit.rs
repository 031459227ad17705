//! The commit: one transaction with the ledger row, the table and the rows.

use super::convert::{Affinity, Kept, Shelf};
use super::{Inner, keyed, ledger_row, outside, stage, target};
use crate::sinks::ledger::{Row, forgotten_keys, limit, range};
use crate::sinks::rival::{stop_if_of_another, stop_unless_next};
use crate::sources::sqlite::database::{LEDGER, Table, quoted, quoted_list};
use arrow::array::RecordBatch;
use chrono::{DateTime, SubsecRound, Utc};
use gristmill_model::fault::{self, Point};
use gristmill_model::spec::Strategy;
use gristmill_model::{Checkpoint, Committed, Error, ErrorKind, OwnerId, Result, RunId, Slot, Staged};
use rusqlite::{Connection, Statement, TransactionBehavior};

/// The new rows' keys while old rows are looked for; of the connection alone, gone with it.
const KEYS: &str = "_gristmill_keys";

/// Publishes what was staged, or finds that it has been.
pub(super) fn commit(inner: &Inner, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
    let explain = |error| inner.database.explain(error);
    let mut connection = inner.database.open_or_create()?;
    // FULL is the default, and what a commit is worth; foreign keys are looked at as a whole before the end, since
    // rows that are replaced must not take the rows that point to them along.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF").map_err(explain)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(explain)?;
    let key = &inner.context.key;
    if let Some(already) = ledger_row(&transaction, "key", &key.text(), &key.slot).map_err(explain)? {
        let entered = owner(&transaction, &key.text()).map_err(explain)?;
        if let Some(entered) = entered.map(|entered| OwnerId(RunId::new(entered))) {
            stop_if_of_another(key, &entered, &inner.context.owner, staged)?;
        }
        return Ok(already);
    }
    stop_unless_next(key, next, newest_checkpoint(&transaction, &key.slot).map_err(explain)?.as_ref())?;
    let rows: u64 = staged.iter().map(|staged| staged.rows).sum();
    let committed = Committed {
        key: key.clone(),
        rows,
        files: 0,
        bytes: 0,
        checkpoint: next.clone(),
        // As the ledger keeps it.
        at: Utc::now().trunc_subsecs(6),
        already: false,
    };
    fault::at(Point::BeforeLedger)?;
    // First, so that a rival of the same key fails before it has done anything.
    insert_into_ledger(&transaction, &committed, &inner.context.owner).map_err(explain)?;
    fault::at(Point::DuringLedger)?;
    let before = dangling(inner, &transaction)?;
    keyed::run_sql(inner, &transaction, &inner.plan.rules.pre_sql, "pre_sql")?;
    let table = target::bring_about(inner, &transaction)?;
    outside::check_rows(inner, &transaction, Some(&table), staged)?;
    fault::at(Point::BeforeDelete)?;
    let inserted = match inner.plan.rules.is_keyed() {
        true => keyed::publish(inner, &transaction, &table, staged, &committed)?,
        false => {
            keyed::drop_earlier(inner, &transaction, &table, next)?;
            delete_old(inner, &transaction, &table, staged)?;
            fault::at(Point::AfterDelete)?;
            insert_new(inner, &transaction, &table, staged, &committed)?
        }
    };
    outside::check_table(inner, &transaction, &table, inserted)?;
    fault::at(Point::AfterInsert)?;
    keyed::run_sql(inner, &transaction, &inner.plan.rules.post_sql, "post_sql")?;
    if inserted != rows {
        return Err(Error::internal(format!("{rows} rows were staged and {inserted} found in the side files")));
    }
    if dangling(inner, &transaction)? > before {
        return Err(Error::new(
            ErrorKind::Data,
            format!("rows that point to `{}`, or from it, would point to nothing", table.name),
        )
        .hint("load the table that is pointed to first, and keep the keys that others point to"));
    }
    forget_old(inner, &transaction, &committed).map_err(explain)?;
    transaction.commit().map_err(explain)?;
    fault::at(Point::AfterLedger)?;
    Ok(committed)
}

/// The newest checkpoint of a series of loads, as [`crate::Sink::checkpoint`].
pub(super) fn newest_checkpoint(connection: &Connection, slot: &Slot) -> rusqlite::Result<Option<Checkpoint>> {
    let known: bool =
        connection.query_row("SELECT count(*) FROM sqlite_master WHERE name = ?1", [LEDGER], |row| row.get(0))?;
    if !known {
        return Ok(None);
    }
    let (begin, end) = slot.series_ends();
    let sql = format!(
        "SELECT rowid, slot FROM main.{} WHERE substr(slot, 1, length(?1)) = ?1 AND substr(slot, -length(?2)) = ?2 \
         ORDER BY json_extract(checkpoint, '$.sequence') DESC NULLS LAST",
        quoted(LEDGER)
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([&begin, &end])?;
    while let Some(row) = rows.next()? {
        let (rowid, text): (i64, String) = (row.get(0)?, row.get(1)?);
        if slot.is_text_of_series(&text) {
            let sql = format!("SELECT checkpoint FROM main.{} WHERE rowid = ?1", quoted(LEDGER));
            let checkpoint: String = connection.query_row(&sql, [rowid], |row| row.get(0))?;
            return serde_json::from_str(&checkpoint).map(Some).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
            });
        }
    }
    Ok(None)
}

/// Whether the ledger says whose each load is; those that were made before it did are widened by the next load.
fn has_owners(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) > 0 FROM pragma_table_info(?1, 'main') WHERE name = 'owner'";
    connection.query_row(sql, [LEDGER], |row| row.get(0))
}

/// Whose a load is, if the ledger says.
fn owner(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    if !has_owners(connection)? {
        return Ok(None);
    }
    connection.query_row(&format!("SELECT owner FROM main.{} WHERE key = ?1", quoted(LEDGER)), [key], |row| row.get(0))
}

fn insert_into_ledger(connection: &Connection, committed: &Committed, owner: &OwnerId) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS main.{} (key TEXT PRIMARY KEY NOT NULL, slot TEXT NOT NULL, generation INTEGER NOT NULL, \
         rows INTEGER NOT NULL, checkpoint TEXT NOT NULL, committed_at TEXT NOT NULL, owner TEXT)",
        quoted(LEDGER)
    ))?;
    if !has_owners(connection)? {
        connection.execute_batch(&format!("ALTER TABLE main.{} ADD COLUMN owner TEXT", quoted(LEDGER)))?;
    }
    let checkpoint = serde_json::to_string(&committed.checkpoint)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let sql = format!(
        "INSERT INTO main.{} (key, slot, generation, rows, checkpoint, committed_at, owner) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        quoted(LEDGER)
    );
    let rows = i64::try_from(committed.rows).unwrap_or(i64::MAX);
    let key = &committed.key;
    let at = time(committed.at);
    connection.execute(&sql, (key.text(), key.slot.text(), key.generation, rows, checkpoint, at, owner.0.as_str()))?;
    Ok(())
}

/// Drops what the ledger is to remember no longer, once the load at hand has been entered.
fn forget_old(inner: &Inner, connection: &Connection, committed: &Committed) -> rusqlite::Result<()> {
    let limit = inner.context.ledger_retention.and_then(|retention| limit(committed.at, retention));
    let Some(limit) = limit else { return Ok(()) };
    let ledger = quoted(LEDGER);
    // Keys begin with their slots, and have an index.
    let (begin, behind) = range(&committed.key.slot);
    let ours = format!("FROM main.{ledger} WHERE key >= ?1 AND key < ?2");
    let sql = format!("SELECT EXISTS (SELECT 1 {ours} AND committed_at < ?3)");
    let is_any_old: bool = connection.query_row(&sql, (&begin, &behind, time(limit)), |row| row.get(0))?;
    if !is_any_old {
        return Ok(());
    }
    let sql = format!("SELECT key, slot, generation, json_extract(checkpoint, '$.sequence'), committed_at {ours}");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map((&begin, &behind), |row| {
        let at: String = row.get(4)?;
        Ok(Row {
            key: row.get(0)?,
            slot: row.get(1)?,
            generation: row.get(2)?,
            sequence: row
                .get::<_, Option<i64>>(3)?
                .and_then(|sequence| u64::try_from(sequence).ok())
                .unwrap_or_default(),
            at: at.parse().map_err(|error: chrono::ParseError| {
                rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, error.into())
            })?,
        })
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<Row>>>()?;
    let mut delete = connection.prepare(&format!("DELETE FROM main.{ledger} WHERE key = ?1"))?;
    for key in forgotten_keys(rows, &committed.key, committed.checkpoint.sequence, limit) {
        delete.execute([key])?;
    }
    Ok(())
}

/// A time as the ledger keeps it, which sorts as text.
fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// How many rows of tables tied to the target by foreign keys point to nothing. Asked before and after, so that what
/// was broken before is not this load's fault; costs nothing where there are no foreign keys.
fn dangling(inner: &Inner, connection: &Connection) -> Result<i64> {
    let Some(table) = inner.table(connection)? else { return Ok(0) };
    let sql = "SELECT DISTINCT child.name FROM sqlite_master AS child, pragma_foreign_key_list(child.name) AS link \
               WHERE child.type = 'table' AND (link.\"table\" = ?1 COLLATE NOCASE OR child.name = ?1 COLLATE NOCASE)";
    let explain = |error| inner.database.explain(error);
    let mut statement = connection.prepare(sql).map_err(explain)?;
    let children = statement.query_map([&table.name], |row| row.get::<_, String>(0)).map_err(explain)?;
    let mut count = 0;
    for child in children {
        let child = child.map_err(explain)?;
        let found: i64 = connection
            .query_row("SELECT count(*) FROM pragma_foreign_key_check(?1)", [child], |row| row.get(0))
            .map_err(explain)?;
        count += found;
    }
    Ok(count)
}

/// Deletes the rows that the strategy says are to go.
fn delete_old(inner: &Inner, connection: &Connection, table: &Table, staged: &[Staged]) -> Result<()> {
    let explain = |error| inner.database.explain(error);
    let name = quoted(&table.name);
    if matches!(inner.plan.rules.strategy, Strategy::Replace | Strategy::TruncateInsert) {
        connection.execute(&format!("DELETE FROM main.{name}"), []).map_err(explain)?;
        return Ok(());
    }
    if let Some(scope) = &inner.plan.rules.scope {
        connection
            .execute(&format!("DELETE FROM main.{name} WHERE (\n{scope}\n)"), [])
            .map_err(|error| inner.database.explain_sql(connection, error, &table.column_names()).context("scope"))?;
    }
    if inner.plan.rules.match_on.is_empty() || staged.iter().all(|staged| staged.rows == 0) {
        return Ok(());
    }
    collect_keys(inner, connection, table, staged)?;
    let keys = format!("temp.{}", quoted(KEYS));
    // `IS` finds NULLs too: a load that is repeated must not double the rows whose key is NULL. The target's column
    // stands first, so that its collation counts.
    let join = inner.plan.rules.match_on.iter().map(|column| {
        let column = quoted(column);
        format!("main.{name}.{column} IS new.{column}")
    });
    let join = join.collect::<Vec<_>>().join(" AND ");
    let sql = match table.rowid {
        // As a join the planner may start from the few new keys where the target has an index on them.
        Some(rowid) => format!(
            "DELETE FROM main.{name} WHERE {rowid} IN (SELECT main.{name}.{rowid} FROM {keys} AS new JOIN main.{name} ON {join})"
        ),
        None => format!("DELETE FROM main.{name} WHERE EXISTS (SELECT 1 FROM {keys} AS new WHERE {join})"),
    };
    connection.execute(&sql, []).map_err(explain)?;
    connection.execute_batch(&format!("DROP TABLE {keys}")).map_err(explain)?;
    Ok(())
}

/// Puts the distinct keys of the new rows into a temporary table whose columns are those of the target.
fn collect_keys(inner: &Inner, connection: &Connection, table: &Table, staged: &[Staged]) -> Result<()> {
    let explain = |error| inner.database.explain(error);
    let matching: Vec<&str> = inner.plan.rules.match_on.iter().map(String::as_str).collect();
    let list = quoted_list(matching.iter().copied());
    let keys = format!("temp.{}", quoted(KEYS));
    // Made from the target, the columns have its affinities: a value compares equal as it will be stored.
    connection
        .execute_batch(&format!(
            "DROP TABLE IF EXISTS {keys}; CREATE TABLE {keys} AS SELECT {list} FROM main.{} LIMIT 0; \
             CREATE UNIQUE INDEX temp.{} ON {} ({list})",
            quoted(&table.name),
            quoted("_gristmill_keys_index"),
            quoted(KEYS),
        ))
        .map_err(explain)?;
    // To a unique index all NULLs differ; looking first keeps them single.
    let values = (1..=matching.len()).map(|index| format!("?{index}")).collect::<Vec<_>>().join(", ");
    let known = matching.iter().enumerate().map(|(index, column)| format!("{} IS ?{}", quoted(column), index + 1));
    let known = known.collect::<Vec<_>>().join(" AND ");
    let sql =
        format!("INSERT OR IGNORE INTO {keys} SELECT {values} WHERE NOT EXISTS (SELECT 1 FROM {keys} WHERE {known})");
    let mut insert = connection.prepare(&sql).map_err(explain)?;
    let columns: Vec<usize> =
        matching.iter().filter_map(|name| inner.shelves.iter().position(|shelf| shelf.name == *name)).collect();
    each_row(inner, table, staged, &columns, &mut insert)?;
    Ok(())
}

/// Inserts the new rows.
fn insert_new(
    inner: &Inner,
    connection: &Connection,
    table: &Table,
    staged: &[Staged],
    committed: &Committed,
) -> Result<u64> {
    let sql = insert_statement(inner, table, committed.at);
    let mut insert = connection.prepare(&sql).map_err(|error| inner.database.explain(error))?;
    let columns: Vec<usize> = (0..inner.shelves.len()).collect();
    each_row(inner, table, staged, &columns, &mut insert)
}

/// The statement that inserts one row, whose values are its parameters, at a time.
pub(super) fn insert_statement(inner: &Inner, table: &Table, at: DateTime<Utc>) -> String {
    let stamps = &inner.plan.rules.stamps;
    let now = keyed::instant(at);
    let load = stamps.load.iter().map(|name| (name, keyed::literal(&inner.context.key.text())));
    let stamps: Vec<(&String, String)> =
        load.chain(stamps.created.iter().chain(&stamps.updated).map(|name| (name, now.clone()))).collect();
    let names = inner.shelves.iter().map(|shelf| &shelf.name).chain(stamps.iter().map(|(name, _)| *name));
    let list = quoted_list(names.map(String::as_str));
    let marks = vec!["?"; inner.shelves.len()];
    let values: Vec<&str> = marks.into_iter().chain(stamps.iter().map(|(_, value)| value.as_str())).collect();
    format!("INSERT INTO main.{} ({list}) VALUES ({})", quoted(&table.name), values.join(", "))
}

/// Executes a statement for each new row, with the values of some columns; answers how many rows there were.
pub(super) fn each_row(
    inner: &Inner,
    table: &Table,
    staged: &[Staged],
    columns: &[usize],
    statement: &mut Statement<'_>,
) -> Result<u64> {
    let affinities = target::affinities(inner, Some(table));
    let mut rows = 0;
    for staged in staged {
        for batch in stage::open(inner, staged)? {
            let batch = batch.map_err(|error| {
                Error::new(ErrorKind::Data, "a side file is damaged").cause(error).hint("run the step again")
            })?;
            rows += batch.num_rows() as u64;
            execute_batch(inner, &batch, &affinities, columns, statement)?;
        }
    }
    Ok(rows)
}

fn execute_batch(
    inner: &Inner,
    batch: &RecordBatch,
    affinities: &[Affinity],
    columns: &[usize],
    statement: &mut Statement<'_>,
) -> Result<()> {
    let kept: Vec<(usize, Kept)> =
        columns.iter().map(|index| (*index, Shelf::kept(batch.column(*index), affinities[*index]))).collect();
    for row in 0..batch.num_rows() {
        for (place, (index, column)) in kept.iter().enumerate() {
            let value = column.value(row).map_err(|why| inner.shelves[*index].explain(&why))?;
            statement.raw_bind_parameter(place + 1, value).map_err(|error| inner.database.explain(error))?;
        }
        statement.raw_execute().map_err(|error| inner.database.explain(error))?;
    }
    Ok(())
}
