//! Aggregates that SQLite computes, of each unit's rows.
//!
//! A value that is no whole number may stand in a column of whole numbers; whoever reads the rows is told. So is whoever wants
//! an aggregate of them: where there is such a value, it comes in place of the aggregate, and is refused.

use super::database::quoted;
use super::pushed::{Columns, Comparable};
use super::units::Shape;
use crate::units::share::Slice;
use crate::{Aggregate, AggregateFunction, Aggregation, Filter, Test};

/// Whether SQLite's values are ours. Rows can always be counted; otherwise only what is a whole number for certain, or can be
/// looked at.
pub(super) fn may(aggregation: &Aggregation, filters: &[Filter], columns: &Columns) -> bool {
    let is_number = |name: &String| matches!(columns.get(name), Some(Comparable::Key | Comparable::Integers));
    let is_exact = |filter: &Filter| match columns.get(&filter.column) {
        Some(Comparable::Key) => true,
        Some(_) => matches!(filter.test, Test::Null | Test::NotNull),
        None => false,
    };
    aggregation.groups.iter().all(is_number)
        && aggregation.values.iter().filter_map(|value| value.column.as_ref()).all(is_number)
        && filters.iter().all(|filter| is_exact(filter) && super::pushed::may(filter, columns))
}

/// The statement.
pub(super) fn sql(aggregation: &Aggregation, shape: &Shape, slice: &Slice) -> String {
    aggregation.sql(&shape.select_list(&aggregation.list(quoted), slice), quoted, |value, column| match column {
        None => "count(*)".to_owned(),
        Some(column) => {
            let odd = format!("typeof({column}) NOT IN ('integer', 'null')");
            let first = format!("min(CASE WHEN {odd} THEN quote({column}) END)");
            format!("CASE WHEN max({odd}) THEN {first} ELSE {} END", of(value, column))
        }
    })
}

fn of(value: &Aggregate, column: &str) -> String {
    if value.function != AggregateFunction::Sum {
        return format!("{}({column})", value.function.as_str());
    }
    // A sum of 64 bits that goes beyond them is an error of SQLite's; ours are the lowest 64. So the halves are added up by
    // themselves.
    let (high, low) = (format!("sum({column} >> 32)"), format!("sum({column} & 4294967295)"));
    format!("((({high} + ({low} >> 32)) << 32) | ({low} & 4294967295))")
}
