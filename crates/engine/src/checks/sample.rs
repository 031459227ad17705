//! Which rows broke a check: a few of them, told by the columns that tell rows apart.

use super::row::shown;
use datafusion::arrow::array::{Array, RecordBatch};
use gristmill_model::StepName;
use gristmill_model::spec::{CheckKind, Step, StepBody};
use std::collections::BTreeMap;

/// One row that broke a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// For people: `-5 (order_id=7)`.
    pub(super) text: String,
    /// The columns that tell it apart, and the one that was looked at; none is NULL.
    pub(super) row: BTreeMap<String, Option<String>>,
}

impl Sample {
    /// Values that occur more than once, of the columns that must not.
    pub(super) fn of_values(columns: &[String], values: Vec<Option<String>>) -> Self {
        let text = values.iter().flatten().cloned().collect::<Vec<_>>().join("/");
        Self { text, row: columns.iter().cloned().zip(values).collect() }
    }

    /// A row that broke a check; `keys` tell it apart, as far as the rows have these columns. None where there is nothing
    /// to tell.
    pub(super) fn of_row(kind: &CheckKind, keys: &[String], rows: &RecordBatch, row: usize) -> Option<Self> {
        let looked_at: &[String] = match kind {
            CheckKind::Between { column, .. }
            | CheckKind::InSet { column, .. }
            | CheckKind::Matches { column, .. }
            | CheckKind::Relationships { column, .. } => std::slice::from_ref(column),
            // What is wrong with them is that they have no value.
            CheckKind::NotNull { .. } | CheckKind::Unique { .. } | CheckKind::RowCount { .. } => &[],
        };
        let value = |column: &String| {
            let values = rows.column_by_name(column)?;
            let value = if values.is_null(row) { None } else { Some(shown(values, row)?) };
            Some((column.clone(), value))
        };
        let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
        let told: Vec<(String, Option<String>)> = looked_at.iter().filter_map(value).collect();
        let known: Vec<(String, Option<String>)> =
            keys.iter().filter(|key| !looked_at.contains(key)).filter_map(value).collect();
        let of_key: Vec<String> = known.iter().map(|(name, value)| format!("{name}={}", word(value))).collect();
        let text = match (told.first(), of_key.is_empty()) {
            (Some((_, value)), true) => word(value),
            (Some((_, value)), false) => format!("{} ({})", word(value), of_key.join(", ")),
            (None, true) => return None,
            (None, false) => of_key.join(", "),
        };
        Some(Self { text, row: told.into_iter().chain(known).collect() })
    }
}

/// The columns that tell the rows of a view apart, as far as the pipeline says: those that its checks want to be unique, or
/// that the loads of it go by.
pub(crate) fn key_columns(step: &Step, steps: &BTreeMap<StepName, Step>) -> Vec<String> {
    let unique = step.checks.iter().find_map(|check| match &check.kind {
        CheckKind::Unique { columns } => Some(columns.clone()),
        _ => None,
    });
    let of_itself = || match &step.body {
        StepBody::Extract(extract) => extract.dedup.as_ref().map(|dedup| dedup.key.0.clone()),
        _ => None,
    };
    let of_load = || {
        let key = |other: &Step| match &other.body {
            StepBody::Load(load) if load.from == step.name || other.name == step.name => Some(load.key.0.clone()),
            _ => None,
        };
        steps.values().filter_map(key).find(|key| !key.is_empty())
    };
    unique.or_else(of_itself).or_else(of_load).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    fn told(kind: &CheckKind, keys: &[&str], row: usize) -> Option<String> {
        let ids = Arc::new(Int64Array::from(vec![Some(7), None]));
        let names = Arc::new(StringArray::from(vec!["a", "b"]));
        let rows = RecordBatch::try_from_iter([("id", ids as _), ("name", names as _)]).unwrap();
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        Sample::of_row(kind, &keys, &rows, row).map(|sample| sample.text)
    }

    #[test]
    fn a_row_is_told_by_its_value_and_its_key() {
        let on_name = CheckKind::Matches { column: "name".to_owned(), pattern: "x".to_owned() };
        assert_eq!(told(&on_name, &["id"], 0).as_deref(), Some("a (id=7)"));
        assert_eq!(told(&on_name, &["id", "gone"], 1).as_deref(), Some("b (id=NULL)"));
        assert_eq!(told(&on_name, &[], 0).as_deref(), Some("a"));
        assert_eq!(told(&on_name, &["name"], 0).as_deref(), Some("a"), "the key itself is said once");
        let no_null = CheckKind::NotNull { columns: vec!["id".to_owned()] };
        assert_eq!(told(&no_null, &["name"], 1).as_deref(), Some("name=b"));
        assert_eq!(told(&no_null, &[], 1), None);
    }
}
