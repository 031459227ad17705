//! What is there to read, about how much, and the one unit that reads it.

use super::database::{Table, quoted, quoted_list};
use super::types::{Seen, declared};
use super::{Known, Share, Wanted, What, pushed};
use crate::{Consistency, Filter, ReadPlan, ReadRequest, SourceStats};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use gristmill_model::{Error, ErrorKind, Result, WorkUnit, one_of};
use rusqlite::Connection;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows that are looked at to type a column that declares nothing.
const SAMPLE: usize = 1000;

/// How long counting rows may take. Then an estimate has to do: a plan must not cost what the read costs.
const COUNTING: Duration = Duration::from_millis(50);

/// What the database says is there now.
pub(super) struct Shape {
    /// The FROM clause, with WHERE.
    pub(super) from: String,
    /// The name of the row id, for messages.
    pub(super) rowid: Option<&'static str>,
    /// Columns and what they declare, in the order of the extract.
    pub(super) columns: Vec<(String, Option<DataType>)>,
    /// The table, if it is one.
    table: Option<Table>,
}

impl Shape {
    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The statement that reads some of the columns, with the row id after them where there is one.
    pub(super) fn select<'a>(&self, columns: impl IntoIterator<Item = &'a str>) -> String {
        let list = quoted_list(columns);
        let list = match self.rowid {
            Some(rowid) if list.is_empty() => rowid.to_owned(),
            Some(rowid) => format!("{list}, {rowid}"),
            None if list.is_empty() => "1".to_owned(),
            None => list,
        };
        format!("SELECT {list} FROM {}", self.from)
    }
}

/// Looks at the database: the table or query, its columns, and whether the condition can be understood.
pub(super) fn look(wanted: &Wanted, connection: &Connection) -> Result<Shape> {
    let database = &wanted.database;
    let explain = |error| database.explain(error);
    let (from, filter, table) = match &wanted.what {
        What::Table { name, filter } => {
            let table = Table::look_up(connection, name)
                .map_err(explain)?
                .ok_or_else(|| database.no_such_table(connection, name))?;
            (format!("main.{}", quoted(&table.name)), filter.as_deref(), Some(table))
        }
        What::Query(query) => (format!("(\n{query}\n)"), None, None),
    };
    // A query is prepared as it stands, since a subquery would give columns of the same name new names.
    let statement = match &wanted.what {
        What::Table { .. } => connection.prepare(&format!("SELECT * FROM {from}")),
        What::Query(query) => connection.prepare(query),
    };
    let statement = statement.map_err(|error| database.explain_sql(connection, error, &[]))?;
    if statement.column_count() == 0 || !statement.readonly() {
        return Err(Error::new(ErrorKind::Query, "the query gives no rows").hint("write one `select` statement"));
    }
    let all: Vec<(String, Option<DataType>)> = statement
        .columns()
        .iter()
        .map(|column| (column.name().to_owned(), column.decl_type().and_then(declared)))
        .collect();
    drop(statement);
    for (index, (name, _)) in all.iter().enumerate() {
        if all[..index].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(Error::new(ErrorKind::Schema, format!("the query gives the column `{name}` twice"))
                .hint(format!("rename one of them: `select …, x.{name} as other_{name}`")));
        }
    }
    let names: Vec<String> = all.iter().map(|(name, _)| name.clone()).collect();
    for name in wanted.overrides.keys() {
        find(&names, name).map_err(|error| error.context("schema"))?;
    }
    let columns = if wanted.columns.is_empty() {
        all
    } else {
        let mut chosen: Vec<(String, Option<DataType>)> = Vec::new();
        for name in &wanted.columns {
            let column = all[find(&names, name)?].clone();
            if chosen.iter().any(|(other, _)| *other == column.0) {
                return Err(Error::new(ErrorKind::Config, format!("`columns` names `{name}` twice"))
                    .hint("name each column once"));
            }
            chosen.push(column);
        }
        chosen
    };
    let from = match filter {
        Some(filter) => format!("{from} WHERE (\n{filter}\n)"),
        None => from,
    };
    connection
        .prepare(&format!("SELECT 1 FROM {from}"))
        .map_err(|error| database.explain_sql(connection, error, &names))?;
    Ok(Shape { from, rowid: table.as_ref().and_then(|table| table.rowid), columns, table })
}

/// Where a column stands; names that differ in case alone are the same, as in SQLite.
fn find(names: &[String], wanted: &str) -> Result<usize> {
    names.iter().position(|name| name.eq_ignore_ascii_case(wanted)).ok_or_else(|| no_such_column(names, wanted))
}

pub(super) fn no_such_column(names: &[String], wanted: &str) -> Error {
    Error::new(ErrorKind::Schema, format!("column `{wanted}` does not exist"))
        .hint(one_of(wanted, names.iter().map(String::as_str)))
}

/// The columns and types of the rows: overridden, else declared, else as a sample shows.
pub(super) fn known(wanted: &Wanted) -> Result<Known> {
    let connection = wanted.database.open_to_read()?;
    let shape = look(wanted, &connection)?;
    let override_of = |name: &str| {
        wanted.overrides.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, kind)| kind.clone())
    };
    let mut kinds: Vec<Option<DataType>> =
        shape.columns.iter().map(|(name, declared)| override_of(name).or_else(|| declared.clone())).collect();
    if kinds.iter().any(Option::is_none) {
        let unknown: Vec<usize> = (0..kinds.len()).filter(|index| kinds[*index].is_none()).collect();
        let seen = sample(wanted, &connection, &shape, &unknown)?;
        for (index, seen) in unknown.into_iter().zip(seen) {
            kinds[index] = Some(seen.kind());
        }
    }
    let fields = shape
        .columns
        .iter()
        .zip(kinds)
        .map(|((name, _), kind)| Field::new(name, kind.unwrap_or(DataType::Utf8), true))
        .collect::<Vec<_>>();
    let is_retyped = |name: &str| override_of(name).is_some();
    let comparable = shape.table.as_ref().map(|table| pushed::comparable(table, is_retyped)).unwrap_or_default();
    Ok(Known { schema: Arc::new(Schema::new(fields)), comparable })
}

fn sample(wanted: &Wanted, connection: &Connection, shape: &Shape, columns: &[usize]) -> Result<Vec<Seen>> {
    let names = columns.iter().map(|index| shape.columns[*index].0.as_str());
    let sql = format!("SELECT {} FROM {} LIMIT {SAMPLE}", quoted_list(names), shape.from);
    let explain = |error| wanted.database.explain_sql(connection, error, &shape.names());
    let mut seen = vec![Seen::default(); columns.len()];
    let mut statement = connection.prepare(&sql).map_err(explain)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(explain)? {
        for (index, seen) in seen.iter_mut().enumerate() {
            seen.note(row.get_ref(index).map_err(explain)?);
        }
    }
    Ok(seen)
}

/// About how many rows and bytes of arrow memory. Counted exactly where that is quick.
pub(super) fn stats(wanted: &Wanted, schema: &SchemaRef) -> SourceStats {
    let Ok(connection) = wanted.database.open_to_read() else { return SourceStats::default() };
    let Ok(shape) = look(wanted, &connection) else { return SourceStats::default() };
    let rows = count(&connection, &shape.from)
        .or_else(|| shape.table.as_ref().and_then(|table| table.estimated_rows(&connection)));
    let width: u64 = schema.fields().iter().map(|field| width(field.data_type())).sum();
    SourceStats { rows, bytes: rows.map(|rows| rows.saturating_mul(width)) }
}

/// Counts rows, unless it takes longer than [`COUNTING`].
fn count(connection: &Connection, from: &str) -> Option<u64> {
    let end = Instant::now() + COUNTING;
    connection.progress_handler(10_000, Some(move || Instant::now() > end));
    let rows: rusqlite::Result<i64> =
        connection.query_row(&format!("SELECT count(*) FROM {from}"), [], |row| row.get(0));
    connection.progress_handler(0, None::<fn() -> bool>);
    u64::try_from(rows.ok()?).ok()
}

/// Bytes of a value in arrow memory, about.
fn width(kind: &DataType) -> u64 {
    kind.primitive_width().map_or_else(
        || if matches!(kind, DataType::Boolean) { 1 } else { 20 },
        |width| u64::try_from(width).unwrap_or(8),
    )
}

/// One unit, since one transaction is one picture.
pub(super) fn plan(wanted: &Wanted, known: &Known, want: &ReadRequest, stats: SourceStats) -> Result<ReadPlan> {
    let names: Vec<String> = known.schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut pushed_down = Vec::new();
    if let Some(columns) = &want.columns {
        if let Some(unknown) = columns.iter().find(|column| !names.contains(column)) {
            return Err(no_such_column(&names, unknown));
        }
        if columns.len() < names.len() {
            pushed_down.push(format!("columns: {}", columns.join(", ")));
        }
    }
    let label = match &wanted.what {
        What::Table { name, filter } => {
            pushed_down.extend(filter.as_ref().map(|filter| format!("filter: {filter}")));
            name.clone()
        }
        What::Query(_) => "query".to_owned(),
    };
    let may = |filter: &&Filter| pushed::may(filter, &known.comparable);
    let filters: Vec<Filter> = want.filters.iter().filter(may).cloned().collect();
    pushed_down.extend(filters.iter().map(|filter| format!("filter: {filter}")));
    let share = Share {
        pushed: (!filters.is_empty()).then(|| pushed::sql(&filters, &known.comparable)),
        limit: want.limit.filter(|_| filters.len() == want.filters.len()),
    };
    pushed_down.extend(share.limit.map(|limit| format!("limit: {limit}")));
    let payload = serde_json::to_value((share != Share::default()).then_some(share))
        .map_err(|error| Error::internal("a work unit cannot be written").cause(error))?;
    let unit = WorkUnit { ordinal: 0, label, payload, rows: stats.rows, bytes: stats.bytes };
    Ok(ReadPlan {
        units: vec![unit],
        consistency: Consistency::SingleRead,
        why: "one read transaction".to_owned(),
        pushed_down,
        next: None,
        pin: None,
    })
}
