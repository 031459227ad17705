//! Conditions of queries over a table that SQLite decides, too.
//!
//! SQLite keeps a type with each value: a text in a column of whole numbers is one that could not be understood as a number
//! when it came, and reading it may still understand it, or must complain. So a condition on whole numbers lets everything
//! pass that is none. Only a row id is always a whole number. Text is compared for equality alone, which every collation of
//! SQLite's says yes to at least as often as equal bytes do, and only where numbers are kept as text.

use super::database::{Table, quoted};
use super::types::{declared, keeps_text};
use crate::{Filter, Literal, Test};
use arrow::datatypes::DataType;
use std::collections::BTreeMap;

/// What a column can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparable {
    /// The row id.
    Key,
    Integers,
    /// For equality alone.
    Texts,
    /// Whether there is a value, nothing else.
    Presence,
}

pub(super) type Columns = BTreeMap<String, Comparable>;

/// The columns of a table that conditions may be on; `is_retyped` are those that the extract gives another type.
pub(super) fn comparable(table: &Table, is_retyped: impl Fn(&str) -> bool) -> Columns {
    if table.view {
        return Columns::new();
    }
    let keys = table.columns.iter().filter(|column| column.key > 0).count();
    let columns = table.columns.iter().filter(|column| !is_retyped(&column.name)).map(|column| {
        let kind = declared(&column.declared);
        let is_rowid = keys == 1 && column.key == 1 && table.rowid.is_some();
        let comparable = match kind {
            _ if is_rowid && column.declared.trim().eq_ignore_ascii_case("integer") => Comparable::Key,
            Some(DataType::Int64) => Comparable::Integers,
            Some(DataType::Utf8) if keeps_text(&column.declared) => Comparable::Texts,
            _ => Comparable::Presence,
        };
        (column.name.clone(), comparable)
    });
    columns.collect()
}

/// Whether SQLite may decide a condition.
pub(super) fn may(filter: &Filter, columns: &Columns) -> bool {
    let Some(column) = columns.get(&filter.column) else { return false };
    filter.literals().iter().all(|literal| match (column, literal) {
        (Comparable::Key | Comparable::Integers, Literal::Integer(_)) => true,
        (Comparable::Texts, Literal::Text(text)) => filter.is_equality() && !text.contains('\0'),
        _ => false,
    })
}

/// Conditions in SQL.
pub(super) fn sql(filters: &[Filter], columns: &Columns) -> String {
    let value = |value: &Literal| match value {
        // The least number cannot be written as one: its digits without the sign are too many.
        Literal::Integer(i64::MIN) => "(-9223372036854775807 - 1)".to_owned(),
        other => other.to_string(),
    };
    let all: Vec<String> = filters
        .iter()
        .map(|filter| {
            let column = quoted(&filter.column);
            let condition = filter.sql(&column, value);
            let is_presence = matches!(filter.test, Test::Null | Test::NotNull);
            match columns.get(&filter.column) {
                Some(Comparable::Integers) if !is_presence => {
                    format!("({condition} OR typeof({column}) NOT IN ('integer', 'null'))")
                }
                _ => condition,
            }
        })
        .collect();
    all.join(" AND ")
}
