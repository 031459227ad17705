//! `scope: "date = '2024-01-15' and region = 'EU'"`: which partitions a load replaces, by new rows or by nothing.

use super::layout::partition_values;
use super::partition::value_text;
use arrow::array::{ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use gristmill_model::{Error, ErrorKind, Result, one_of};
use std::sync::Arc;

/// A conjunction of `column = literal` (or `column is null`) on partition columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// The condition, as written.
    pub(super) text: String,
    /// Column and canonical value; `None` is NULL.
    terms: Vec<(String, Option<String>)>,
}

/// The canonical text of a partition value found in a path or a condition: `01` of an integer column is `1`. What is not
/// of the column's type stays as it is.
pub(super) fn canonical(value: &str, data_type: &DataType) -> String {
    let data_type = match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    };
    let text: ArrayRef = Arc::new(StringArray::from(vec![value]));
    cast(&text, data_type)
        .ok()
        .and_then(|typed| value_text(&typed, 0).ok().flatten())
        .unwrap_or_else(|| value.to_owned())
}

impl Scope {
    /// Understands a condition on `columns`, the partition columns.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a condition that is anything else.
    pub(super) fn parse(text: &str, columns: &[&Field]) -> Result<Self> {
        let bad = |why: String| {
            Error::new(ErrorKind::Config, format!("the scope `{text}` cannot be used: {why}")).hint(format!(
                "write `{} = '…'`, joined by `and`, on columns of `partition_by`",
                columns.first().map_or("column", |field| field.name())
            ))
        };
        let words = tokens(text).map_err(bad)?;
        let mut terms = Vec::new();
        let mut rest = words.as_slice();
        loop {
            let [Token::Word(column), after @ ..] = rest else {
                return Err(bad("a column name is expected".to_owned()));
            };
            let Some(field) = columns
                .iter()
                .find(|field| field.name() == column)
                .or_else(|| columns.iter().find(|field| field.name().eq_ignore_ascii_case(column)))
            else {
                let valid = columns.iter().map(|field| field.name().as_str());
                return Err(bad(format!("`{column}` is not a column of `partition_by`")).hint(one_of(column, valid)));
            };
            let (value, after) = match after {
                [Token::Word(is), Token::Word(null), after @ ..] if same(is, "is") && same(null, "null") => {
                    (None, after)
                }
                [Token::Equals, Token::Word(kind), Token::Text(value), after @ ..]
                    if same(kind, "date") || same(kind, "timestamp") =>
                {
                    (Some(value), after)
                }
                [Token::Equals, Token::Text(value), after @ ..] => (Some(value), after),
                [Token::Equals, Token::Word(value), after @ ..] if literal(value) => (Some(value), after),
                _ => return Err(bad(format!("after `{column}`, `= literal` or `is null` is expected"))),
            };
            let value = value.map(|value| canonical(value, field.data_type())).filter(|value| !value.is_empty());
            terms.push((field.name().clone(), value));
            match after {
                [] => break,
                [Token::Word(and), after @ ..] if same(and, "and") => rest = after,
                _ => return Err(bad("only `and` can join conditions".to_owned())),
            }
        }
        Ok(Self { text: text.to_owned(), terms })
    }

    /// The columns it speaks of.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|(column, _)| column.as_str())
    }

    /// Whether a partition, given by its columns and canonical values, is in the scope.
    pub(super) fn holds(&self, values: &[(String, Option<String>)]) -> bool {
        self.terms.iter().all(|term| values.contains(term))
    }

    /// Whether a partition folder of ours is in the scope.
    pub(super) fn holds_folder(&self, folder: &str) -> bool {
        partition_values(folder).is_some_and(|values| self.holds(&values))
    }
}

fn same(word: &str, keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword)
}

fn literal(word: &str) -> bool {
    same(word, "true") || same(word, "false") || word.parse::<f64>().is_ok_and(f64::is_finite)
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Equals,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '=' => tokens.push(Token::Equals),
            '\'' | '"' => {
                let mut value = String::new();
                loop {
                    match chars.next() {
                        Some(next) if next == c && chars.peek() == Some(&c) => {
                            chars.next();
                            value.push(c);
                        }
                        Some(next) if next == c => break,
                        Some(next) => value.push(next),
                        None => return Err("a quote is not closed".to_owned()),
                    }
                }
                tokens.push(if c == '\'' { Token::Text(value) } else { Token::Word(value) });
            }
            c if c.is_alphanumeric() || "_-+.".contains(c) => {
                let mut word = c.to_string();
                while let Some(next) = chars.next_if(|next| next.is_alphanumeric() || "_-+.".contains(*next)) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            other => return Err(format!("`{other}` is not understood")),
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Scope> {
        let day = Field::new("date", DataType::Date32, true);
        let month = Field::new("month", DataType::Int32, true);
        Scope::parse(text, &[&day, &month])
    }

    #[test]
    fn a_scope_is_a_conjunction_of_equalities_on_partition_columns() {
        let scope = parse("date = '2024-01-15' AND month = 01").unwrap();
        assert!(scope.holds_folder("date=2024-01-15/month=1"));
        assert!(!scope.holds_folder("date=2024-01-15/month=2"));
        assert!(parse("date = date '2024-01-15'").unwrap().holds_folder("date=2024-01-15/month=9"));
        assert!(parse("month is null").unwrap().holds_folder("date=2024-01-15/month=__HIVE_DEFAULT_PARTITION__"));
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "a column name"),
            ("date > '2024-01-15'", "is not understood"),
            ("date = '2024-01-15' or month = 1", "only `and`"),
            ("dat = '2024-01-15'", "is not a column"),
            ("date = '2024", "not closed"),
            ("date = now", "`= literal`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message().contains(why), "{text}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }
}
