//! What is the same for every database when an extract is checked, before its server is called.

use gristmill_model::spec::{ExtractSpec, UnitsSpec};
use gristmill_model::{Error, ErrorKind, Result, one_of};
use std::collections::HashSet;

/// What an extract reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Relation<'a> {
    /// A table, as it is named, and a condition on it.
    Table(&'a str, Option<&'a str>),
    /// A query, without the semicolon at its end.
    Query(&'a str),
}

/// Checks what an extract says to a database (`of`: `a PostgreSQL database`), and how it is divided.
///
/// # Errors
/// Neither table nor query, or both; options that are for files; a column that is listed twice; `units` that cannot be.
pub(crate) fn check<'a>(extract: &'a ExtractSpec, of: &str) -> Result<(Relation<'a>, UnitsSpec)> {
    let wrong = |message: &str, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint));
    for (given, key) in [
        (extract.path.is_some(), "path"),
        (extract.format.is_some(), "format"),
        (extract.compression.is_some(), "compression"),
        (extract.csv.is_some(), "csv"),
        (extract.json.is_some(), "json"),
        (extract.http.is_some(), "http"),
    ] {
        if given {
            let for_what = if key == "http" { "HTTP APIs" } else { "files" };
            let message = format!("`{key}` is for {for_what}; `{}` is {of}", extract.from);
            return wrong(&message, "name a `table` or write a `query`");
        }
    }
    let relation = match (&extract.table, &extract.query) {
        (Some(table), None) => Relation::Table(table, extract.filter.as_deref()),
        (None, Some(_)) if extract.filter.is_some() => {
            return wrong("`where` goes with `table`", "write the condition into the `query`");
        }
        (None, Some(query)) => Relation::Query(query.trim().trim_end_matches(';').trim_end()),
        (Some(_), Some(_)) => return wrong("an extract has either a `table` or a `query`", "remove one of them"),
        (None, None) => return wrong("what to extract is missing", "name a `table` or write a `query`"),
    };
    if let Some(twice) = duplicate(extract.columns.iter().map(String::as_str)) {
        return wrong(&format!("the column `{twice}` is listed twice"), "list it once");
    }
    let units = extract.units.clone().unwrap_or_default();
    match units.mistakes().into_iter().next() {
        Some((message, hint)) => Err(Error::new(ErrorKind::Config, message).maybe_hint(hint)),
        None => Ok((relation, units)),
    }
}

/// The first name that is there twice.
pub(crate) fn duplicate<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// A query whose columns cannot be told apart by name.
pub(crate) fn same_names(name: &str) -> Error {
    Error::new(ErrorKind::Schema, format!("two columns of the query are called `{name}`"))
        .hint("name one of them otherwise, with `as`")
}

/// A column that a table or query has not, with the one that was meant.
pub(crate) fn unknown_column<'a>(name: &str, of: &str, known: impl Iterator<Item = &'a str>) -> Error {
    Error::new(ErrorKind::Schema, format!("`{of}` has no column `{name}`")).hint(one_of(name, known))
}

/// A condition that names a column the table has not: `words` are the server's, which names it as `wrong`.
pub(crate) fn unknown_in_condition(table: &str, words: &str, wrong: &str, columns: &[String]) -> Error {
    // Servers say `table.column` where the user does.
    let wrong = wrong.rsplit('.').next().unwrap_or(wrong);
    Error::new(ErrorKind::Schema, format!("the condition on `{table}` names an unknown column"))
        .cause(words)
        .hint(one_of(wrong, columns.iter().map(String::as_str)))
}

/// A column that is of another type than it was when the run began.
pub(crate) fn changed_type(column: &str, of: &str, is: impl std::fmt::Display, was: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Schema,
        format!("the column `{column}` of `{of}` is {is} now, it was {was} when the run began"),
    )
    .hint("run again")
}
