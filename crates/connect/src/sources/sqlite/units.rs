//! What is there to read, and about how much.

use super::database::{Table, quoted, quoted_list};
use super::divide::Sqlite;
use super::types::{Seen, declared};
use super::{Known, Wanted, What, pushed};
use crate::units::share::Slice;
use crate::{Filter, ReadRequest, SourceStats};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use gristmill_model::{Error, ErrorKind, Result, one_of};
use rusqlite::Connection;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows that are looked at to type a column that declares nothing.
const SAMPLE: usize = 1000;

/// How long counting rows may take. Then an estimate has to do: a plan must not cost what the read costs.
const COUNTING: Duration = Duration::from_millis(50);

/// What the database says is there now.
pub(super) struct Shape {
    /// What stands after FROM, without the condition.
    pub(super) relation: String,
    /// The condition on it.
    pub(super) filter: Option<String>,
    /// The name of the row id, for messages.
    pub(super) rowid: Option<&'static str>,
    /// Columns and what they declare, in the order of the extract.
    pub(super) columns: Vec<(String, Option<DataType>)>,
    /// The table, if it is one.
    pub(super) table: Option<Table>,
}

impl Shape {
    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The statement that reads some of the columns of some of the rows, with the row id after them where there is one.
    pub(super) fn select<'a>(&self, columns: impl IntoIterator<Item = &'a str>, slice: &Slice) -> String {
        let list = quoted_list(columns);
        let list = match self.rowid {
            Some(rowid) if list.is_empty() => rowid.to_owned(),
            Some(rowid) => format!("{list}, {rowid}"),
            None if list.is_empty() => "1".to_owned(),
            None => list,
        };
        self.select_list(&list, slice)
    }

    /// As [`Shape::select`], with a list in SQL.
    pub(super) fn select_list(&self, list: &str, slice: &Slice) -> String {
        slice.select(&Sqlite, list, &self.relation, self.filter.as_deref())
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
    let rowid = table.as_ref().and_then(|table| table.rowid);
    let shape = Shape { relation: from, filter: filter.map(str::to_owned), rowid, columns, table };
    connection
        .prepare(&shape.select_list("1", &Slice::Whole))
        .map_err(|error| database.explain_sql(connection, error, &names))?;
    Ok(shape)
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
    let sql = format!("{} LIMIT {SAMPLE}", shape.select_list(&quoted_list(names), &Slice::Whole));
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
    let rows = count(&connection, &shape.select_list("count(*)", &Slice::Whole))
        .or_else(|| shape.table.as_ref().and_then(|table| table.estimated_rows(&connection)));
    let width: u64 = schema.fields().iter().map(|field| width(field.data_type())).sum();
    SourceStats { rows, bytes: rows.map(|rows| rows.saturating_mul(width)) }
}

/// Counts rows, unless it takes longer than [`COUNTING`].
fn count(connection: &Connection, sql: &str) -> Option<u64> {
    let end = Instant::now() + COUNTING;
    connection.progress_handler(10_000, Some(move || Instant::now() > end));
    let rows: rusqlite::Result<i64> = connection.query_row(sql, [], |row| row.get(0));
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

/// The name of what is read, for labels.
pub(super) fn label(wanted: &Wanted) -> String {
    match &wanted.what {
        What::Table { name, .. } => name.clone(),
        What::Query(_) => "query".to_owned(),
    }
}

/// What the database itself does: for people, as a condition in SQL, and as a number of rows that are enough.
type PushedDown = (Vec<String>, Option<String>, Option<u64>);

/// What the database itself does.
///
/// # Errors
/// A column that is not there.
pub(super) fn pushed_down(wanted: &Wanted, known: &Known, want: &ReadRequest) -> Result<PushedDown> {
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
    if let What::Table { filter: Some(filter), .. } = &wanted.what {
        pushed_down.push(format!("filter: {filter}"));
    }
    let may = |filter: &&Filter| pushed::may(filter, &known.comparable);
    let filters: Vec<Filter> = want.filters.iter().filter(may).cloned().collect();
    pushed_down.extend(filters.iter().map(|filter| format!("filter: {filter}")));
    let pushed = (!filters.is_empty()).then(|| pushed::sql(&filters, &known.comparable));
    pushed_down.extend(want.aggregation.as_ref().map(|aggregation| format!("aggregates: {aggregation}")));
    let limit = want.limit.filter(|_| filters.len() == want.filters.len());
    pushed_down.extend(limit.map(|limit| format!("limit: {limit}")));
    Ok((pushed_down, pushed, limit))
}
