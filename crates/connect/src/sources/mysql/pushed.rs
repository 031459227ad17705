//! What the server does of a query over an extract: conditions, and aggregates of each unit's rows.
//!
//! Only where its answer is certainly ours: whole numbers and dates have one order, whatever the collation and the SQL mode.
//! A date that is none (`0000-00-00`) is refused when it is read; since it need not be the smallest one, dates are not
//! aggregated.

use super::names::quoted;
use super::types::{Column, Form};
use super::wanted::{Known, Wanted, schema_of};
use crate::units::share::Slice;
use crate::{Aggregate, AggregateFunction, Aggregation, Filter, Literal, Scan, Test};
use arrow::datatypes::DataType;
use gristmill_model::Result;

/// A column as the server has it: one that `schema:` gives another type is another one here than there.
fn column<'a>(name: &str, wanted: &Wanted, known: &'a Known) -> Option<&'a Column> {
    known.columns.iter().find(|column| column.name == name && !wanted.is_retyped(name))
}

fn is_number(column: &Column) -> bool {
    column.kind.is_integer() && column.form == Form::Plain
}

/// Whether the server may decide a condition.
pub(super) fn may(filter: &Filter, wanted: &Wanted, known: &Known) -> bool {
    let Some(column) = column(&filter.column, wanted, known) else { return false };
    let is_date = column.kind == DataType::Date32;
    let is_comparable = |literal: &Literal| match literal {
        Literal::Integer(_) => is_number(column),
        Literal::Date(days) => is_date && Literal::date(*days).is_some(),
        Literal::Boolean(_) | Literal::Text(_) => false,
    };
    match &filter.test {
        // `IS NULL` holds for some dates that are none, too.
        Test::Null | Test::NotNull => !is_dated(&column.kind),
        _ => filter.literals().iter().all(is_comparable),
    }
}

fn is_dated(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Timestamp(..))
}

/// Conditions in SQL.
pub(super) fn sql(filters: &[Filter], known: &Known) -> String {
    let value = |literal: &Literal| match literal {
        Literal::Date(days) => {
            Literal::date(*days).map_or_else(|| literal.to_string(), |date| format!("DATE '{date}'"))
        }
        other => other.to_string(),
    };
    let column = |name: &str| {
        let may_be_year = known.columns.iter().any(|column| column.name == name && column.kind == DataType::Int16);
        // The server takes 5 for 2005 beside a year, unless that is made a number first.
        if may_be_year { format!("({} + 0)", quoted(name)) } else { quoted(name) }
    };
    let all: Vec<String> = filters.iter().map(|filter| filter.sql(&column(&filter.column), value)).collect();
    all.join(" AND ")
}

/// Whether the server's values of an aggregation are ours.
pub(super) fn may_aggregate(aggregation: &Aggregation, filters: &[Filter], wanted: &Wanted, known: &Known) -> bool {
    let is_sound = |value: &Aggregate| {
        let Some(name) = &value.column else { return true };
        column(name, wanted, known).is_some_and(|column| match value.function {
            AggregateFunction::Count => is_number(column) || is_plain(&column.kind),
            _ => is_number(column) || matches!(column.kind, DataType::Decimal128(..)),
        })
    };
    let is_group = |name: &String| column(name, wanted, known).is_some_and(is_number);
    let is_exact = |filter: &Filter| {
        may(filter, wanted, known)
            && column(&filter.column, wanted, known).is_some_and(|column| !is_dated(&column.kind))
    };
    aggregation.groups.iter().all(is_group) && aggregation.values.iter().all(is_sound) && filters.iter().all(is_exact)
}

/// Whether there is no value of the type that reading refuses.
fn is_plain(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Binary
    )
}

/// What comes of an aggregation of one unit, and the statement for it. `columns` are those that the server has now.
///
/// # Errors
/// A column that is not there, or of another type than it was when the run began.
pub(super) fn aggregate(
    aggregation: &Aggregation,
    wanted: &Wanted,
    columns: &[Column],
    scan: &Scan,
    slice: &Slice,
) -> Result<(Vec<Column>, String)> {
    aggregation.check(&wanted.label(), &schema_of(columns), &scan.schema)?;
    let rows = wanted.select_list(&aggregation.list(quoted), slice);
    let sql = aggregation.sql(&rows, quoted, |value, column| {
        let plain = format!("{}({})", value.function.as_str(), column.unwrap_or("*"));
        let of = columns.iter().find(|column| value.column.as_ref() == Some(&column.name)).map(|column| &column.kind);
        // The server has more digits for a sum of whole numbers; ours are the lowest 64 bits.
        let (all, half) = ("18446744073709551616", "9223372036854775808");
        match (value.function, of) {
            (AggregateFunction::Sum, Some(kind)) if kind.is_unsigned_integer() => {
                format!("CAST(MOD({plain}, {all}) AS UNSIGNED)")
            }
            (AggregateFunction::Sum, Some(kind)) if kind.is_signed_integer() => {
                format!("CAST(MOD(MOD({plain} + {half}, {all}) + {all}, {all}) - {half} AS SIGNED)")
            }
            _ => plain,
        }
    });
    let columns = scan.schema.fields().iter().map(|field| Column::plain(field.name(), field.data_type().clone()));
    Ok((columns.collect(), sql))
}
