//! Conditions that a source may decide before it sends rows: one column, one comparison, plain values.
//!
//! The engine decides them again, so that a source may take as few of them as it likes. What it takes must not lose a row
//! that the engine would keep: its own comparison, as it sees the values, has to be the same or say yes more often.

use chrono::{DateTime, Datelike, NaiveDate};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A condition on one column. A row for which it is not true, or not known, is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The column, as the source's schema names it.
    pub column: String,
    /// What must hold for its value.
    pub test: Test,
}

/// What must hold for a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// It compares so with a value.
    Is(Comparison, Literal),
    /// It is one of these; there is at least one.
    OneOf(Vec<Literal>),
    /// There is none.
    Null,
    /// There is one.
    NotNull,
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// Smaller.
    Less,
    /// Smaller, or the same.
    LessOrEqual,
    /// Greater.
    Greater,
    /// Greater, or the same.
    GreaterOrEqual,
}

/// A plain value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Literal {
    /// A whole number.
    Integer(i64),
    /// True or false.
    Boolean(bool),
    /// Days since 1970-01-01.
    Date(i32),
    /// Text.
    Text(String),
}

impl Comparison {
    /// The sign in SQL.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// The sign when the sides are swapped.
    #[must_use]
    pub fn swapped(self) -> Self {
        match self {
            Self::Equal | Self::NotEqual => self,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }
}

impl Filter {
    /// The values that the column is compared with.
    #[must_use]
    pub fn literals(&self) -> &[Literal] {
        match &self.test {
            Test::Is(_, literal) => std::slice::from_ref(literal),
            Test::OneOf(literals) => literals,
            Test::Null | Test::NotNull => &[],
        }
    }

    /// Whether it holds for equal values alone, whatever their order.
    #[must_use]
    pub fn is_equality(&self) -> bool {
        matches!(self.test, Test::Is(Comparison::Equal, _) | Test::OneOf(_))
    }

    /// In SQL, given how the source writes the column's name and a value.
    pub(crate) fn sql(&self, column: &str, literal: impl Fn(&Literal) -> String) -> String {
        match &self.test {
            Test::Is(comparison, value) => format!("{column} {} {}", comparison.sign(), literal(value)),
            Test::OneOf(values) => {
                format!("{column} IN ({})", values.iter().map(literal).collect::<Vec<_>>().join(", "))
            }
            Test::Null => format!("{column} IS NULL"),
            Test::NotNull => format!("{column} IS NOT NULL"),
        }
    }
}

impl Literal {
    /// A date as every database reads it; none outside of the years 1 to 9999.
    pub(crate) fn date(days: i32) -> Option<NaiveDate> {
        let date = DateTime::from_timestamp(i64::from(days) * 86_400, 0)?.date_naive();
        (1..=9999).contains(&date.year()).then_some(date)
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(truth) => write!(f, "{truth}"),
            Self::Date(days) => match Self::date(*days) {
                Some(date) => write!(f, "'{date}'"),
                None => write!(f, "day {days}"),
            },
            Self::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sql(&self.column, ToString::to_string))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_read_like_sql() {
        let shown = |test: Test| Filter { column: "c".to_owned(), test }.to_string();
        assert_eq!(shown(Test::Is(Comparison::GreaterOrEqual, Literal::Integer(-5))), "c >= -5");
        assert_eq!(shown(Test::Is(Comparison::Less, Literal::Date(19_723))), "c < '2024-01-01'");
        assert_eq!(
            shown(Test::OneOf(vec![Literal::Text("o'k".into()), Literal::Boolean(true)])),
            "c IN ('o''k', true)"
        );
        assert_eq!(shown(Test::Null), "c IS NULL");
        assert_eq!(Literal::date(i32::MAX), None);
        assert_eq!(Literal::date(-719_162).unwrap().to_string(), "0001-01-01");
        assert_eq!(Literal::date(-719_163), None);
    }
}
