//! Reading only what is new: the condition, and how far it goes.
//!
//! SQLite compares what is stored, so the cursor is kept as it is stored: numbers as numbers, times mostly as texts, which
//! are in order as long as all of a column are written alike.

use super::Wanted;
use super::database::quoted;
use super::units::{look, no_such_column};
use crate::source::with_condition;
use crate::units::share::Slice;
use crate::{Increment, Narrowed};
use chrono::{NaiveDate, NaiveDateTime, TimeDelta};
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
    let sql = format!("SELECT max({column}) FROM ({whole}) WHERE {condition}");
    let next = connection.query_row(&sql, [], |row| {
        Ok(match row.get_ref(0)? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(number) => Ok(Some(Value::from(number))),
            ValueRef::Real(number) => Ok(Some(Value::from(number))),
            ValueRef::Text(text) => Ok(Some(Value::from(String::from_utf8_lossy(text)))),
            ValueRef::Blob(_) => Err(()),
        })
    });
    let next = next.map_err(|error| wanted.database.explain_sql(&connection, error, &names))?;
    let next = next.map_err(|()| {
        Error::new(ErrorKind::Config, format!("`{name}` holds blobs, which cannot be a cursor"))
            .hint("take a column of numbers, times or texts as `incremental_key`")
    })?;
    if next.as_ref().is_some_and(Value::is_null) {
        return Err(Error::new(ErrorKind::Data, format!("the greatest `{name}` is infinite"))
            .cause("nothing could ever come after it")
            .hint("leave such rows out with `where`"));
    }
    let range = match (from, &next) {
        // Not even the row of the cursor is left.
        (_, None) => "false".to_owned(),
        (from, Some(next)) => {
            let to = format!("{column} <= {}", literal(next));
            from.map_or(to.clone(), |from| format!("{from} AND {to}"))
        }
    };
    let condition = if increment.nulls { format!("({range} OR {column} IS NULL)") } else { format!("({range})") };
    Ok(Narrowed { extract: with_condition(extract, &condition), next })
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
        (Some(Lag::Time(lag)), Value::String(text)) => Value::from(earlier(text, lag.0).ok_or_else(wrong)?),
        _ => return Err(wrong()),
    })
}

/// An earlier day or moment, written as the one given is.
fn earlier(text: &str, lag: std::time::Duration) -> Option<String> {
    let lag = TimeDelta::from_std(lag).ok()?;
    let day = NaiveDate::parse_from_str(text.get(..10)?, "%Y-%m-%d").ok()?;
    let rest = &text[10..];
    let Some(divider) = rest.chars().next() else {
        let days = lag.num_days() + i64::from(lag > TimeDelta::days(lag.num_days()));
        return Some(day.checked_sub_signed(TimeDelta::days(days))?.format("%Y-%m-%d").to_string());
    };
    if !matches!(divider, ' ' | 'T') {
        return None;
    }
    let clock = &rest[1..];
    let end = clock.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(end);
    let digits = clock.split_once('.').map(|(_, digits)| digits.len());
    let has_seconds = clock.matches(':').count() == 2;
    let full = if has_seconds { clock.to_owned() } else { format!("{clock}:00") };
    let moment = NaiveDateTime::parse_from_str(&format!("{day} {full}"), "%Y-%m-%d %H:%M:%S%.f").ok()?;
    let moment = moment.checked_sub_signed(lag)?;
    let shown = match (digits, has_seconds) {
        (Some(digits), _) => {
            let nanos = moment.format("%9f").to_string();
            format!("{}.{}", moment.format("%H:%M:%S"), nanos.get(..digits.min(9))?)
        }
        (None, true) => moment.format("%H:%M:%S").to_string(),
        (None, false) => moment.format("%H:%M").to_string(),
    };
    Some(format!("{}{divider}{shown}{zone}", moment.format("%Y-%m-%d")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_moment_is_written_as_the_one_given() {
        let hour = std::time::Duration::from_secs(3600);
        for (given, wanted) in [
            ("2024-01-01", Some("2023-12-31")),
            ("2024-01-01 00:30:00", Some("2023-12-31 23:30:00")),
            ("2024-01-01T00:30:00Z", Some("2023-12-31T23:30:00Z")),
            ("2024-01-01T00:30:00.120+02:00", Some("2023-12-31T23:30:00.120+02:00")),
            ("2024-01-01 10:15", Some("2024-01-01 09:15")),
            ("1704067200", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(earlier(given, hour).as_deref(), wanted, "{given}");
        }
    }
}
