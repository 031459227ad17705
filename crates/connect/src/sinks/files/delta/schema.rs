//! The columns of a load, and of the table it is for: what rows are written as, and what the table has afterwards.

use super::protocol::has_ntz;
use super::table::{Column, Table};
use super::types::{Kind, field_json};
use crate::types::type_name;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use gristmill_model::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::sync::Arc;

/// Characters that a column's name cannot have unless names are mapped (Delta: `DeltaColumnMapping`, Spark: Parquet names).
const ODD: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// Names and types of columns as they are written.
pub(super) type Written = Vec<(String, Kind)>;

fn wrong(message: String, hint: impl Into<String>) -> Error {
    Error::new(ErrorKind::Schema, message).hint(hint)
}

/// The columns of rows, as Delta has them.
///
/// # Errors
/// [`ErrorKind::Schema`]: a type or a name that Delta does not have.
pub(super) fn natural(schema: &Schema) -> Result<Written> {
    let mut columns: Written = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let name = field.name();
        let Some(kind) = Kind::of(field.data_type()) else {
            let message =
                format!("column `{name}` of type {} has no type in a Delta table", type_name(field.data_type()));
            return Err(wrong(message, format!("cast it in a `sql` step, e.g. `cast({name} as varchar)`")));
        };
        let names = std::iter::once(name.as_str()).chain(kind.names());
        if let Some(odd) = names.into_iter().find(|name| name.is_empty() || name.contains(ODD)) {
            let message = format!("`{odd}` cannot be a column of a Delta table");
            return Err(wrong(message, "give it a name without spaces and without any of `,;{}()=` in a `sql` step"));
        }
        if let Some((other, _)) = columns.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)) {
            let message = format!("`{other}` and `{name}` are one name in a Delta table");
            return Err(wrong(message, "rename one of them in a `sql` step"));
        }
        columns.push((name.clone(), kind));
    }
    Ok(columns)
}

/// What `rows` are written as, so that `table` can take them; what it lacks is added to it.
///
/// # Errors
/// [`ErrorKind::Schema`]: a column whose values the table's column cannot take.
pub(super) fn meet(table: &Table, rows: &Written) -> Result<Written> {
    let known = table.columns()?;
    if let Some(missing) =
        known.iter().find(|column| !column.nullable && !rows.iter().any(|(name, _)| *name == column.name))
    {
        let message = format!("the rows lack the column `{}`, which is never NULL in the Delta table", missing.name);
        return Err(wrong(message, "add it in a `sql` step"));
    }
    rows.iter().map(|(name, kind)| Ok((name.clone(), met(table, &known, name, kind)?))).collect()
}

fn met(table: &Table, known: &[Column], name: &str, kind: &Kind) -> Result<Kind> {
    let Some(column) = known.iter().find(|column| column.name.eq_ignore_ascii_case(name)) else {
        if kind.needs_ntz() && table.version.is_some() && !has_ntz(table) {
            let message = format!(
                "the new column `{name}` is a timestamp without a time zone, which the Delta table does not have \
                 (its feature `timestampNtz`)"
            );
            return Err(wrong(message, format!("say its zone in a `sql` step: `{name} at time zone 'UTC'`")));
        }
        return Ok(kind.clone());
    };
    if column.name != name {
        let message = format!("the column `{name}` is called `{}` in the Delta table", column.name);
        return Err(wrong(message, format!("rename it in a `sql` step: `{name} as \"{}\"`", column.name)));
    }
    match &column.kind {
        Some(wide) if wide.holds(kind) => Ok(wide.clone()),
        wide => {
            let there =
                wide.as_ref().map_or_else(|| "of a type that this version does not know".to_owned(), Kind::to_string);
            let message = format!("the column `{name}` is {kind} in the rows but {there} in the Delta table");
            Err(wrong(
                message,
                format!("cast it in the step before: `cast({name} as …)`, or load with `strategy: replace`"),
            ))
        }
    }
}

/// The arrow schema in which rows are written.
pub(super) fn stored(columns: &[(String, Kind)]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(name, kind.arrow(), true)).collect();
    Arc::new(Schema::new(fields))
}

/// Rows as they are written. `filled`: columns that are never NULL.
///
/// # Errors
/// [`ErrorKind::Data`]: a value that the type does not have; a NULL where there can be none.
pub(super) fn cast(batch: &RecordBatch, schema: &SchemaRef, filled: &[String]) -> Result<RecordBatch> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |(array, field): (&ArrayRef, &Arc<Field>)| {
        if array.logical_null_count() > 0 && filled.contains(field.name()) {
            let message = format!("column `{}` holds NULL, and the Delta table has none there", field.name());
            return Err(Error::new(ErrorKind::Data, message).hint("leave those rows out: `checks: [{not_null: …}]`"));
        }
        cast_with_options(array, field.data_type(), &options).map_err(|error| {
            let message = format!("column `{}` holds a value that a Delta table cannot hold", field.name());
            Error::new(ErrorKind::Data, message).cause(error)
        })
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(cast).collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(|error| Error::internal("rows cannot be cast").cause(error))
}

/// The schema of a table that has these columns and no others.
pub(super) fn schema_of(columns: &[(String, Kind)]) -> Value {
    let fields: Vec<Value> = columns.iter().map(|(name, kind)| field_json(name, kind)).collect();
    json!({"type": "struct", "fields": fields})
}

/// The schema of a table with the columns that it lacks behind its own, which stay as they are; none if it lacks none.
pub(super) fn widened(table: &Table, columns: &[(String, Kind)]) -> Result<Option<Value>> {
    let known = table.columns()?;
    let lacking: Vec<Value> = columns
        .iter()
        .filter(|(name, _)| !known.iter().any(|column| column.name == *name))
        .map(|(name, kind)| field_json(name, kind))
        .collect();
    let Some(metadata) = table.metadata.as_ref().filter(|_| !lacking.is_empty()) else { return Ok(None) };
    let mut schema: Value = serde_json::from_str(&metadata.schema_string)
        .map_err(|error| Error::internal("a schema was understood and is no JSON").cause(error))?;
    if let Some(fields) = schema["fields"].as_array_mut() {
        fields.extend(lacking);
    }
    Ok(Some(schema))
}
