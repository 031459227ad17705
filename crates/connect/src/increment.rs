//! What is the same for every database when it reads only what is new: the condition, and lags that cannot be.

use crate::{Increment, Narrowed};
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
    Narrowed::by_condition(with_condition(extract, &condition), next)
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
