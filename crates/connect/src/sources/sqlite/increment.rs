//! Reading only what is new: the condition, and how far it goes.
//!
//! SQLite compares what is stored, so the cursor is kept as it is stored: numbers as numbers, times mostly as texts, which
//! are in order as long as all of a column are written alike.

use super::Wanted;
use super::database::quoted;
use super::units::{look, no_such_column};
use crate::increment::narrowed;
use crate::units::share::Slice;
use crate::{Increment, Narrowed, moment};
use gristmill_model::spec::{ExtractSpec, Lag};
use gristmill_model::{Error, ErrorKind, Result};
use rusqlite::types::ValueRef;
use serde_json::Value;

/// Fixes the upper bound, and narrows the extract to the rows between it and the cursor.
pub(super) fn narrow(wanted: &Wanted, extract: &ExtractSpec, increment: &Increment) -> Result<Narrowed> {
    let name = &increment.column;
    let connection = wanted.database.open_to_read()?;
    let shape = look(wanted, &connection)?;
    let names = shape.names();
    if !names.contains(name) {
        return Err(no_such_column(&names, name).context("incremental_key"));
    }
    let column = quoted(name);
    let from = match &increment.since {
        Some(since) => Some(format!("{column} >= {}", literal(&lower(name, since, increment.lag)?))),
        None => None,
    };
    // The shape's FROM may have a WHERE of its own.
    let condition = from.as_deref().unwrap_or("true");
    let whole = shape.select_list("*", &Slice::Whole);
    // Of values of all kinds, numbers come first and blobs last: a single text among numbers would be the greatest for ever.
    let sql = format!("SELECT max({column}), typeof(min({column})) FROM ({whole}) WHERE {condition}");
    let (next, least) = connection
        .query_row(&sql, [], |row| {
            let least: String = row.get(1)?;
            let next = match row.get_ref(0)? {
                ValueRef::Null => Ok(None),
                ValueRef::Integer(number) => Ok(Some(Value::from(number))),
                ValueRef::Real(number) => Ok(Some(Value::from(number))),
                ValueRef::Text(text) => Ok(Some(Value::from(String::from_utf8_lossy(text)))),
                ValueRef::Blob(_) => Err(()),
            };
            Ok((next, least))
        })
        .map_err(|error| wanted.database.explain_sql(&connection, error, &names))?;
    let next = next.map_err(|()| {
        Error::new(ErrorKind::Config, format!("`{name}` holds blobs, which cannot be a cursor"))
            .hint("take a column of numbers, times or texts as `incremental_key`")
    })?;
    if next.as_ref().is_some_and(Value::is_null) {
        return Err(Error::new(ErrorKind::Data, format!("the greatest `{name}` is infinite"))
            .cause("nothing could ever come after it")
            .hint("leave such rows out with `where`"));
    }
    if let Some(Value::String(text)) = &next
        && (least != "text" || increment.since.as_ref().is_some_and(|since| !since.is_string()))
    {
        return Err(Error::new(ErrorKind::Data, format!("`{name}` holds the text `{text}` among numbers"))
            .cause("texts are greater than all numbers, so that no later number would ever be read")
            .hint(format!("mend the row, or leave it out with `where: typeof({name}) <> 'text'`")));
    }
    let next = next.map(|next| (literal(&next), next));
    Ok(narrowed(extract, increment, &column, from, next))
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

/// The least value that is read.
fn lower(column: &str, since: &Value, lag: Option<Lag>) -> Result<Value> {
    let wrong = || {
        let lag = lag.map(|lag| lag.to_string()).unwrap_or_default();
        Error::new(ErrorKind::Config, format!("`lag: {lag}` does not go with `{column}`, which holds {since}")).hint(
            "write a duration such as `2h` for texts like `2024-01-15 10:00:00`, a whole number for whole numbers",
        )
    };
    Ok(match (lag, since) {
        (None, since) => since.clone(),
        (Some(Lag::Number(lag)), Value::Number(number)) => {
            let number = number.as_i64().ok_or_else(wrong)?;
            Value::from(number.saturating_sub(i64::try_from(lag).unwrap_or(i64::MAX)))
        }
        // Whole numbers in a column of times are unix seconds.
        (Some(Lag::Time(lag)), Value::Number(number)) => {
            let number = number.as_i64().ok_or_else(wrong)?;
            Value::from(number.saturating_sub(i64::try_from(lag.0.as_secs()).unwrap_or(i64::MAX)))
        }
        (Some(Lag::Time(lag)), Value::String(text)) => Value::from(moment::earlier(text, lag.0).ok_or_else(wrong)?),
        _ => return Err(wrong()),
    })
}
