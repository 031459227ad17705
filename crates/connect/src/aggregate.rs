//! Aggregates that a source may compute before it sends rows: of each share of the rows its own, which the engine adds up.
//!
//! So units stay as they are: none of their statements takes longer than reading its rows would, they see one picture, and one
//! that failed is asked again. Only what is exactly the same here and there is asked for: whole numbers, decimals, dates and
//! times have one order and one sum; texts have as many orders as there are collations, and the sum of floating-point numbers
//! depends on the order they come in.

use crate::extract::unknown_column;
use crate::units::decide::TARGET_ROWS;
use crate::units::thousands;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Schema, SchemaRef};
use gristmill_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Digits that a sum of decimals has more than they have, as DataFusion adds them: enough for ten thousand million rows.
pub(crate) const SUM_DIGITS: u8 = 10;

/// More groups than this of a unit's rows are not worth forming by the source: about as much would come as of the rows.
const MOST_GROUPS: f64 = TARGET_ROWS as f64 / 10.0;

/// Why the aggregation that was last asked about is not the source's, for its plan to say.
#[derive(Debug, Default)]
pub(crate) struct Declined(Mutex<Option<String>>);

impl Declined {
    /// Remembers why; nothing, where there is nothing to say.
    pub(crate) fn note(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// What a plan of the rows says of it, after its other reasons.
    pub(crate) fn said(&self) -> String {
        let why = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        why.as_ref().map_or_else(String::new, |why| format!("; aggregates are computed here: {why}"))
    }
}

/// Why groups by these columns are better formed here: there are too many of them, by how many values statistics know of each
/// column. What they do not know counts for one.
pub(crate) fn too_many_groups(groups: &[String], distinct: &BTreeMap<String, f64>) -> Option<String> {
    let about: f64 = groups.iter().map(|name| distinct.get(name).copied().unwrap_or(1.0).max(1.0)).product();
    (about > MOST_GROUPS).then(|| format!("statistics tell of about {} groups", thousands(about.round() as u64)))
}

/// What is wanted of groups of rows, in place of the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregation {
    /// The columns whose values tell groups apart; without any, all rows are one group, even when there are none.
    pub groups: Vec<String>,
    /// What is wanted of each group.
    pub values: Vec<Aggregate>,
}

/// A value of a group of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// How the values become one.
    pub function: AggregateFunction,
    /// Of which column; none counts rows.
    pub column: Option<String>,
}

/// How values become one. NULLs count for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AggregateFunction {
    /// How many there are.
    Count,
    /// The smallest.
    Min,
    /// The greatest.
    Max,
    /// All of them together. Of 64-bit numbers the lowest 64 bits, as the engine adds them.
    Sum,
}

impl AggregateFunction {
    /// Its name in SQL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Sum => "sum",
        }
    }
}

impl Aggregate {
    /// Of a column, or of rows.
    #[must_use]
    pub fn new(function: AggregateFunction, column: Option<&str>) -> Self {
        Self { function, column: column.map(str::to_owned) }
    }

    /// The type of the value, for a column of type `of`; none where it could be another one elsewhere.
    fn kind(&self, of: Option<&DataType>) -> Option<DataType> {
        match (self.function, of?) {
            (AggregateFunction::Count, _) => Some(DataType::Int64),
            (AggregateFunction::Min | AggregateFunction::Max, kind) => is_ordered(kind).then(|| kind.clone()),
            (AggregateFunction::Sum, kind) if kind.is_signed_integer() => Some(DataType::Int64),
            (AggregateFunction::Sum, kind) if kind.is_unsigned_integer() => Some(DataType::UInt64),
            (AggregateFunction::Sum, DataType::Decimal128(precision, scale)) => {
                let digits = precision.checked_add(SUM_DIGITS)?;
                (digits <= DECIMAL128_MAX_PRECISION).then_some(DataType::Decimal128(digits, *scale))
            }
            (AggregateFunction::Sum, _) => None,
        }
    }
}

impl Aggregation {
    /// The columns of what comes for rows of such columns, groups first; none where the engine could come to other values.
    #[must_use]
    pub fn schema(&self, rows: &Schema) -> Option<SchemaRef> {
        let column = |name: &str| rows.column_with_name(name).map(|(_, field)| field);
        let mut fields = Vec::with_capacity(self.groups.len() + self.values.len());
        for group in &self.groups {
            fields.push(column(group).filter(|field| is_group(field.data_type()))?.clone());
        }
        for value in &self.values {
            let kind = match &value.column {
                Some(name) => value.kind(Some(column(name)?.data_type()))?,
                None => (value.function == AggregateFunction::Count).then_some(DataType::Int64)?,
            };
            fields.push(Field::new(value.to_string(), kind, true));
        }
        let names: BTreeSet<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        (names.len() == fields.len()).then(|| Arc::new(Schema::new(fields)))
    }

    /// The columns that are needed for it, each once.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        let mut columns = self.groups.clone();
        for column in self.values.iter().filter_map(|value| value.column.as_ref()) {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
        columns
    }

    /// Wants one value more, unless it is wanted already. Gives its place among the values.
    pub fn want(&mut self, value: Aggregate) -> usize {
        self.values.iter().position(|known| *known == value).unwrap_or_else(|| {
            self.values.push(value);
            self.values.len() - 1
        })
    }

    /// That rows of columns like these still come to what was planned.
    ///
    /// # Errors
    /// A column that is not there, or of another type than it was when the run began.
    pub(crate) fn check(&self, label: &str, rows: &Schema, planned: &Schema) -> Result<()> {
        let names = || rows.fields().iter().map(|field| field.name().as_str());
        if let Some(gone) = self.columns().iter().find(|column| !names().any(|name| name == *column)) {
            return Err(unknown_column(gone, label, names()));
        }
        let kinds = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        if self.schema(rows).is_some_and(|now| kinds(&now) == kinds(planned)) {
            return Ok(());
        }
        let columns = self.columns().join("`, `");
        let message =
            format!("of the columns `{columns}` of `{label}` one is not of the type that it had when the run began");
        Err(Error::new(ErrorKind::Schema, message).hint("run again"))
    }

    /// The needed columns as the list of a SELECT, which cannot be empty.
    pub(crate) fn list(&self, quoted: impl Fn(&str) -> String) -> String {
        match self.columns().as_slice() {
            [] => "1".to_owned(),
            needed => needed.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "),
        }
    }

    /// The statement that asks for it, given one that selects the needed columns of the rows, how a column's name is written,
    /// and a value.
    pub(crate) fn sql(
        &self,
        rows: &str,
        quoted: impl Fn(&str) -> String,
        value: impl Fn(&Aggregate, Option<&str>) -> String,
    ) -> String {
        let groups: Vec<String> = self.groups.iter().map(|name| quoted(name)).collect();
        let values = self.values.iter().map(|wanted| value(wanted, wanted.column.as_deref().map(&quoted).as_deref()));
        let list: Vec<String> = groups.iter().cloned().chain(values).collect();
        let by = if groups.is_empty() { String::new() } else { format!(" GROUP BY {}", groups.join(", ")) };
        format!("SELECT {} FROM ({rows}) AS _gristmill_rows{by}", list.join(", "))
    }
}

/// Whether values of a type have one order everywhere, without any that is not equal to itself.
fn is_ordered(kind: &DataType) -> bool {
    kind.is_integer() || matches!(kind, DataType::Date32 | DataType::Timestamp(..) | DataType::Decimal128(..))
}

/// Whether equal values of a type are the same values.
fn is_group(kind: &DataType) -> bool {
    kind.is_integer() || matches!(kind, DataType::Date32 | DataType::Boolean)
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.function.as_str(), self.column.as_deref().unwrap_or("*"))
    }
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.values.iter().map(ToString::to_string).collect();
        let by = self.groups.join(", ");
        match (values.is_empty(), self.groups.is_empty()) {
            (_, true) => f.write_str(&values.join(", ")),
            (true, false) => write!(f, "groups of {by}"),
            (false, false) => write!(f, "{} by {by}", values.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AggregateFunction::*;
    use arrow::datatypes::TimeUnit;

    fn rows() -> Schema {
        let column = |name: &str, kind| Field::new(name, kind, true);
        Schema::new(vec![
            column("small", DataType::Int16),
            column("large", DataType::Int64),
            column("day", DataType::Date32),
            column("flag", DataType::Boolean),
            column("price", DataType::Decimal128(10, 2)),
            column("long", DataType::Decimal128(29, 2)),
            column("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
            column("ratio", DataType::Float64),
            column("name", DataType::Utf8),
            column("count(*)", DataType::Int64),
        ])
    }

    fn kind(function: AggregateFunction, column: Option<&str>) -> Option<DataType> {
        let wanted = Aggregation { groups: vec![], values: vec![Aggregate::new(function, column)] };
        wanted.schema(&rows()).map(|schema| schema.field(0).data_type().clone())
    }

    #[test]
    fn only_what_is_the_same_everywhere_is_asked_for() {
        assert_eq!(kind(Count, None), Some(DataType::Int64));
        assert_eq!(kind(Count, Some("name")), Some(DataType::Int64));
        assert_eq!(kind(Sum, None), None);
        assert_eq!(kind(Sum, Some("small")), Some(DataType::Int64));
        assert_eq!(kind(Sum, Some("large")), Some(DataType::Int64));
        assert_eq!(kind(Sum, Some("price")), Some(DataType::Decimal128(20, 2)));
        assert_eq!(kind(Max, Some("price")), Some(DataType::Decimal128(10, 2)));
        assert_eq!(kind(Min, Some("at")), Some(DataType::Timestamp(TimeUnit::Microsecond, None)));
        for (function, column) in
            [(Sum, "long"), (Sum, "day"), (Sum, "ratio"), (Min, "ratio"), (Max, "name"), (Min, "flag"), (Max, "none")]
        {
            assert_eq!(kind(function, Some(column)), None, "{} {column}", function.as_str());
        }
        let by = |groups: &[&str]| {
            let groups = groups.iter().map(|name| (*name).to_owned()).collect();
            Aggregation { groups, values: vec![Aggregate::new(Count, None)] }
        };
        assert!(by(&["small", "day", "flag"]).schema(&rows()).is_some());
        for group in ["name", "ratio", "price", "at", "none", "count(*)"] {
            assert!(by(&[group]).schema(&rows()).is_none(), "{group}");
        }
    }

    #[test]
    fn an_aggregation_reads_like_sql() {
        let mut wanted = Aggregation { groups: vec!["day".into()], values: vec![] };
        assert_eq!(wanted.to_string(), "groups of day");
        assert_eq!(wanted.want(Aggregate::new(Count, None)), 0);
        assert_eq!(wanted.want(Aggregate::new(Sum, Some("small"))), 1);
        assert_eq!(wanted.want(Aggregate::new(Count, None)), 0);
        assert_eq!(wanted.to_string(), "count(*), sum(small) by day");
        assert_eq!(wanted.columns(), ["day", "small"]);
        let sql = wanted.sql(
            "SELECT \"day\", \"small\" FROM t",
            |name| format!("\"{name}\""),
            |value, column| format!("{}({})", value.function.as_str(), column.unwrap_or("*")),
        );
        assert_eq!(
            sql,
            "SELECT \"day\", count(*), sum(\"small\") FROM (SELECT \"day\", \"small\" FROM t) AS _gristmill_rows GROUP BY \"day\""
        );
    }
}
