//! What is the same for every database when it reads only what is new: the condition, and earlier moments.

use crate::{Increment, Narrowed};
use chrono::{NaiveDate, NaiveDateTime, TimeDelta};
use gristmill_model::spec::{ExtractSpec, Lag};
use gristmill_model::{Error, ErrorKind};
use serde_json::Value;

/// The extract of the rows from `from` (a condition in SQL; everything when none) up to `next`, the greatest value there is
/// (in SQL, and as it is kept; when none, there is nothing to read). `column` is the cursor in SQL, as `from` has it.
pub(crate) fn narrowed(
    extract: &ExtractSpec,
    increment: &Increment,
    column: &str,
    from: Option<String>,
    next: Option<(String, Value)>,
) -> Narrowed {
    let (to, next) = next.unzip();
    let range = match (from, to) {
        // Not even the row of the cursor is left.
        (_, None) => "1 = 0".to_owned(),
        (None, Some(to)) => format!("{column} <= {to}"),
        (Some(from), Some(to)) => format!("{from} AND {column} <= {to}"),
    };
    let condition = if increment.nulls { format!("({range} OR {column} IS NULL)") } else { format!("({range})") };
    Narrowed { extract: with_condition(extract, &condition), next }
}

/// An extract narrowed by a condition in the database's own SQL.
fn with_condition(extract: &ExtractSpec, condition: &str) -> ExtractSpec {
    let mut narrowed = extract.clone();
    // What the user wrote stands on lines of its own, so that a comment in it ends there.
    if let Some(query) = &extract.query {
        let query = query.trim().trim_end_matches(';');
        narrowed.query = Some(format!("SELECT * FROM (\n{query}\n) AS _gristmill WHERE {condition}"));
    } else {
        narrowed.filter = Some(match &extract.filter {
            Some(filter) => format!("(\n{filter}\n) AND {condition}"),
            None => condition.to_owned(),
        });
    }
    narrowed
}

/// A lag that cannot be taken from what the column holds.
pub(crate) fn wrong_lag(lag: Lag, column: &str, holds: &str) -> Error {
    let hint = match lag {
        Lag::Time(_) => "write a whole number for numbers, nothing for texts",
        Lag::Number(_) => "write a duration such as `2h` for times and dates",
    };
    Error::new(ErrorKind::Config, format!("`lag: {lag}` does not go with `{column}`, which {holds}")).hint(hint)
}

/// An earlier day or moment, written as the one given is.
pub(crate) fn earlier(text: &str, lag: std::time::Duration) -> Option<String> {
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
