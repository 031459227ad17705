//! Aggregates that the server computes, of each unit's rows.
//!
//! A value that arrow has no place for (NaN, infinity, a time too far away) is greater than all others, or smaller: whoever
//! asks for the greatest and the smallest of such a column too sees it, and it is refused as it is when rows are read.

use super::names::quoted;
use super::pushed::Comparable;
use super::types::{Column, Kind};
use super::units::share::Slice;
use super::wanted::{Known, Wanted, schema_of};
use crate::aggregate::SUM_DIGITS;
use crate::{Aggregate, AggregateFunction, Aggregation, Filter, Scan};
use arrow::datatypes::DECIMAL128_MAX_PRECISION;
use gristmill_model::Result;

/// Whether the server's values are ours. A column that is cast on its way is another one here than there.
pub(super) fn may(aggregation: &Aggregation, filters: &[Filter], wanted: &Wanted, known: &Known) -> bool {
    let column = |name: &str| {
        let column = known.columns.iter().find(|column| column.name == name);
        column.filter(|column| column.cast.is_none() && !wanted.is_retyped(name))
    };
    let is_seen = |name: &str| {
        let wanted = |function| aggregation.values.contains(&Aggregate::new(function, Some(name)));
        wanted(AggregateFunction::Min) && wanted(AggregateFunction::Max)
    };
    let is_sound = |name: &str| {
        column(name).is_some_and(|column| match column.kind {
            Kind::Bool | Kind::Int2 | Kind::Int4 | Kind::Int8 => true,
            Kind::Float4 | Kind::Float8 | Kind::Uuid | Kind::Bytea => true,
            // A server that does not know what its texts mean may have some that are none.
            Kind::Text => known.comparable.get(name) == Some(&Comparable::Texts),
            Kind::Date | Kind::Timestamp | Kind::TimestampTz => is_seen(name),
            Kind::Decimal(precision, _) => precision <= DECIMAL128_MAX_PRECISION && is_seen(name),
            Kind::Oid | Kind::Jsonb | Kind::NumericText | Kind::List(_) | Kind::Time | Kind::Declared(..) => false,
        })
    };
    aggregation.groups.iter().all(|name| column(name).is_some())
        && aggregation.values.iter().filter_map(|value| value.column.as_deref()).all(is_sound)
        && filters.iter().all(|filter| is_sound(&filter.column))
        && aggregation.schema(&known.schema).is_some()
}

/// What comes of an aggregation of one unit, and the statement for it. `columns` are those that the server has now.
///
/// # Errors
/// A column that is not there, or of another type than it was when the run began.
pub(super) fn select(
    aggregation: &Aggregation,
    wanted: &Wanted,
    columns: &[Column],
    scan: &Scan,
    slice: &Slice,
) -> Result<(Vec<Column>, String)> {
    let (rows, planned) = (schema_of(columns), &scan.schema);
    aggregation.check(&wanted.label(), &rows, planned)?;
    let kind_of = |name: &str| columns.iter().find(|column| column.name == name).map(|column| column.kind.clone());
    let values =
        aggregation.values.iter().map(|value| match (value.function, value.column.as_deref().and_then(kind_of)) {
            (AggregateFunction::Sum, Some(Kind::Decimal(precision, scale))) => {
                Kind::Decimal(precision.saturating_add(SUM_DIGITS), scale)
            }
            (AggregateFunction::Min | AggregateFunction::Max, Some(kind)) => kind,
            _ => Kind::Int8,
        });
    let groups = aggregation.groups.iter().filter_map(|name| kind_of(name));
    let given = groups.chain(values).zip(planned.fields()).map(|(kind, field)| Column::plain(field.name(), kind));
    let given = given.collect();
    let rows = wanted.select_list(&aggregation.list(quoted), slice);
    let is_long = |name: &str| columns.iter().any(|column| column.name == name && column.kind == Kind::Int8);
    let sql = aggregation.sql(&rows, quoted, |value, column| match (value.function, &value.column) {
        // The server has more digits for the sum of such numbers; ours are the lowest 64 bits.
        (AggregateFunction::Sum, Some(name)) if is_long(name) => {
            let (sum, all, half) = (format!("sum({})", quoted(name)), "18446744073709551616", "9223372036854775808");
            format!("(mod(mod({sum} + {half}, {all}) + {all}, {all}) - {half})::bigint")
        }
        (function, _) => format!("{}({})", function.as_str(), column.unwrap_or("*")),
    });
    Ok((given, sql))
}
