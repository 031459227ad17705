//! Data checks, as written and as understood.

use super::shapes::{OneOrMany, short_or_full, short_or_full_schema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// What happens when a row or a check is bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFail {
    /// The run fails; nothing is published.
    #[default]
    Fail,
    /// The report says so; the row goes on.
    Warn,
    /// The row is left out and counted.
    Drop,
    /// The row is kept aside as a dead letter, with the reason, and counted.
    DeadLetter,
}

impl OnFail {
    /// The word used in files and on screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Warn => "warn",
            Self::Drop => "drop",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// A value to compare a column with. A text is read as the column's type, so `2020-01-01` works for a timestamp; the
/// text `now` is the moment the run began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Literal {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// One check: what it looks at, what it is called, and what happens when it does not pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The name it has in reports; unique in its step.
    pub name: String,
    /// What happens when it does not pass.
    pub on_fail: OnFail,
    /// What it looks at.
    pub kind: CheckKind,
}

/// What a check looks at. NULL passes every row check but `not_null`, as in SQL constraints and Great Expectations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Row check: none of the columns is NULL.
    NotNull {
        /// The columns.
        columns: Vec<String>,
    },
    /// Set check: no two rows have the same values in all of the columns; rows with a NULL among them are left out.
    Unique {
        /// The columns, taken together.
        columns: Vec<String>,
    },
    /// Row check: the value lies between two bounds.
    Between {
        /// The column.
        column: String,
        /// The lower bound.
        min: Option<Literal>,
        /// The upper bound.
        max: Option<Literal>,
        /// Whether the lower bound itself is refused.
        strict_min: bool,
        /// Whether the upper bound itself is refused.
        strict_max: bool,
    },
    /// Row check: the value is one of a list.
    InSet {
        /// The column.
        column: String,
        /// The list.
        values: Vec<Literal>,
    },
    /// Row check: the text matches a regular expression somewhere (anchor it with `^` and `$` for all of it).
    Matches {
        /// The column.
        column: String,
        /// The expression, in the syntax of Rust's `regex` crate.
        pattern: String,
    },
    /// Row check: the value occurs in a column of another step.
    Relationships {
        /// The column.
        column: String,
        /// The other step.
        to_step: String,
        /// Its column.
        to_column: String,
    },
    /// Set check: the number of rows lies between two bounds, both allowed.
    RowCount {
        /// At least so many.
        min: Option<u64>,
        /// At most so many.
        max: Option<u64>,
    },
}

impl CheckKind {
    /// Whether it judges one row at a time, so that bad rows can be told from good ones.
    #[must_use]
    pub fn is_row_check(&self) -> bool {
        !matches!(self, Self::Unique { .. } | Self::RowCount { .. })
    }

    /// The step whose rows it needs beside those it judges.
    #[must_use]
    pub fn reads(&self) -> Option<&str> {
        match self {
            Self::Relationships { to_step, .. } => Some(to_step),
            _ => None,
        }
    }

    /// As people read it: `between(total)`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::NotNull { columns } => format!("not_null({})", columns.join(", ")),
            Self::Unique { columns } => format!("unique({})", columns.join(", ")),
            Self::Between { column, .. } => format!("between({column})"),
            Self::InSet { column, .. } => format!("in_set({column})"),
            Self::Matches { column, .. } => format!("matches({column})"),
            Self::Relationships { column, to_step, to_column } => {
                format!("relationships({column} → {to_step}.{to_column})")
            }
            Self::RowCount { .. } => "row_count".to_owned(),
        }
    }
}

/// A check as it stands in a pipeline file: one key, the kind of check.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckFile {
    /// None of the columns is NULL: `not_null: order_id`.
    NotNull(ColumnsFile),
    /// No two rows agree in all of the columns: `unique: [a, b]`.
    Unique(ColumnsFile),
    /// The value lies between bounds: `between: {column: total, min: 0, strict_min: true}`.
    Between(BetweenFile),
    /// The value is one of a list: `in_set: {column: status, values: [a, b]}`.
    InSet(InSetFile),
    /// The text matches a regular expression: `matches: {column: email, pattern: "@"}`.
    Matches(MatchesFile),
    /// The value occurs in another step: `relationships: {column: product_id, to: products.product_id}`.
    Relationships(RelationshipsFile),
    /// The number of rows lies between bounds: `row_count: {min: 1}`.
    RowCount(RowCountFile),
}

/// One column, a list of columns, or a mapping with options.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnsFile(ColumnsFull);

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ColumnsFull {
    /// The column or columns.
    #[serde(alias = "column")]
    columns: OneOrMany,
    /// The name in reports.
    #[serde(default)]
    name: Option<String>,
    /// What happens when it does not pass.
    #[serde(default)]
    on_fail: OnFail,
}

impl<'de> Deserialize<'de> for ColumnsFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let short = |columns| ColumnsFull { columns, name: None, on_fail: OnFail::Fail };
        short_or_full(deserializer, short, "a column, a list of columns, or a mapping").map(Self)
    }
}

impl JsonSchema for ColumnsFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ColumnsCheck".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        short_or_full_schema::<ColumnsFull>(generator)
    }
}

/// Options of `between`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BetweenFile {
    /// The column.
    column: String,
    /// The lower bound.
    #[serde(default)]
    min: Option<Literal>,
    /// The upper bound; `now` is the moment the run began.
    #[serde(default)]
    max: Option<Literal>,
    /// Refuse the lower bound itself.
    #[serde(default)]
    strict_min: bool,
    /// Refuse the upper bound itself.
    #[serde(default)]
    strict_max: bool,
    /// The name in reports.
    #[serde(default)]
    name: Option<String>,
    /// What happens when it does not pass.
    #[serde(default)]
    on_fail: OnFail,
}

/// Options of `in_set`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InSetFile {
    /// The column.
    column: String,
    /// The values it may have.
    values: Vec<Literal>,
    /// The name in reports.
    #[serde(default)]
    name: Option<String>,
    /// What happens when it does not pass.
    #[serde(default)]
    on_fail: OnFail,
}

/// Options of `matches`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchesFile {
    /// The column.
    column: String,
    /// The regular expression.
    pattern: String,
    /// The name in reports.
    #[serde(default)]
    name: Option<String>,
    /// What happens when it does not pass.
    #[serde(default)]
    on_fail: OnFail,
}

/// Options of `relationships`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelationshipsFile {
    /// The column.
    column: String,
    /// Where the value must occur: `step.column`.
    to: String,
    /// The name in reports.
    #[serde(default)]
    name: Option<String>,
    /// What happens when it does not pass.
    #[serde(default)]
    on_fail: OnFail,
}

/// Options of `row_count`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowCountFile {
    /// At least so many rows.
    #[serde(default)]
    min: Option<u64>,
    /// At most so many rows.
    #[serde(default)]
    max: Option<u64>,
    /// The name in reports.
    #[serde(default)]
    name: Option<String>,
    /// What happens when it does not pass.
    #[serde(default)]
    on_fail: OnFail,
}

impl CheckFile {
    /// Understands a check, or says what is wrong with it.
    pub(crate) fn understand(self) -> Result<Check, String> {
        let (kind, name, on_fail) = match self {
            Self::NotNull(ColumnsFile(check)) => {
                (CheckKind::NotNull { columns: check.columns.0 }, check.name, check.on_fail)
            }
            Self::Unique(ColumnsFile(check)) => {
                (CheckKind::Unique { columns: check.columns.0 }, check.name, check.on_fail)
            }
            Self::Between(check) => {
                if check.min.is_none() && check.max.is_none() {
                    return Err("`between` needs `min`, `max` or both".to_owned());
                }
                let BetweenFile { column, min, max, strict_min, strict_max, name, on_fail } = check;
                (CheckKind::Between { column, min, max, strict_min, strict_max }, name, on_fail)
            }
            Self::InSet(check) => {
                if check.values.is_empty() {
                    return Err("`in_set` needs at least one value".to_owned());
                }
                (CheckKind::InSet { column: check.column, values: check.values }, check.name, check.on_fail)
            }
            Self::Matches(check) => {
                (CheckKind::Matches { column: check.column, pattern: check.pattern }, check.name, check.on_fail)
            }
            Self::Relationships(check) => {
                let Some((step, column)) = check.to.split_once('.') else {
                    return Err(format!(
                        "`to: {}` must name a step and its column, like `products.product_id`",
                        check.to
                    ));
                };
                let kind = CheckKind::Relationships {
                    column: check.column,
                    to_step: step.to_owned(),
                    to_column: column.to_owned(),
                };
                (kind, check.name, check.on_fail)
            }
            Self::RowCount(check) => {
                if check.min.is_none() && check.max.is_none() {
                    return Err("`row_count` needs `min`, `max` or both".to_owned());
                }
                (CheckKind::RowCount { min: check.min, max: check.max }, check.name, check.on_fail)
            }
        };
        if let CheckKind::NotNull { columns } | CheckKind::Unique { columns } = &kind
            && columns.is_empty()
        {
            return Err(format!("`{}` needs at least one column", kind.describe().trim_end_matches("()")));
        }
        if !kind.is_row_check() && matches!(on_fail, OnFail::Drop | OnFail::DeadLetter) {
            return Err(format!(
                "`{}` judges all rows together, so `on_fail` can be `fail` or `warn`, not `{}`",
                kind.describe(),
                on_fail.as_str()
            ));
        }
        Ok(Check { name: name.unwrap_or_else(|| kind.describe()), on_fail, kind })
    }
}
