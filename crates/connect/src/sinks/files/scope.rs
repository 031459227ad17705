//! `scope: "date = '2024-01-15' and region = 'EU'"`: which partitions a load replaces, by new rows or by nothing.

use super::layout::partition_values;
use super::partition::value_text;
use crate::types::type_name;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar, StringArray};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{and, cast, is_null};
use arrow::datatypes::{DataType, Field};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use gristmill_model::{Error, ErrorKind, Result, one_of};
use std::sync::Arc;

/// A conjunction of `column = literal` (or `column is null`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// The condition, as written.
    pub(super) text: String,
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    column: String,
    /// The value as it is written; `None` is NULL.
    value: Option<String>,
    /// The same as a folder's name has it, which does not tell the empty text from NULL.
    in_folder: Option<String>,
}

/// What a scope is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    Partitions,
    Rows,
}

/// One value of a type; none where the type does not have it.
fn typed(value: &str, data_type: &DataType) -> Option<ArrayRef> {
    let data_type = match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    };
    let text: ArrayRef = Arc::new(StringArray::from(vec![value]));
    cast(&text, data_type).ok().filter(|typed| typed.is_valid(0) && !data_type.is_null())
}

/// The canonical text of a partition value found in a path or a condition: `01` of an integer column is `1`. What is not
/// of the column's type stays as it is.
pub(super) fn canonical(value: &str, data_type: &DataType) -> String {
    let text = typed(value, data_type).and_then(|typed| value_text(&typed, 0).ok().flatten());
    text.unwrap_or_else(|| value.to_owned())
}

fn broken(error: arrow::error::ArrowError) -> Error {
    Error::internal("rows cannot be compared with a scope").cause(error)
}

impl Scope {
    /// Understands a condition on `columns`: those that it may be `on`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a condition that is anything else; [`ErrorKind::Schema`] for a column that is not there, or
    /// a value that its type does not have.
    pub(super) fn parse(text: &str, columns: &[&Field], on: On) -> Result<Self> {
        let of = match on {
            On::Partitions => "`partition_by`",
            On::Rows => "the rows",
        };
        let unusable = |kind, why: String| Error::new(kind, format!("the scope `{text}` cannot be used: {why}"));
        let bad = |why: String| {
            let example = columns.first().map_or("column", |field| field.name());
            unusable(ErrorKind::Config, why)
                .hint(format!("write `{example} = '…'`, joined by `and`, on columns of {of}"))
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
                return Err(unusable(ErrorKind::Schema, format!("`{column}` is not a column of {of}"))
                    .hint(one_of(column, valid)));
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
            if let Some(value) = value
                && !field.data_type().is_null()
                && typed(value, field.data_type()).is_none()
            {
                let name = type_name(field.data_type());
                return Err(unusable(
                    ErrorKind::Schema,
                    format!("`{value}` is no value of `{}`, which is {name}", field.name()),
                )
                .hint(example_of(field)));
            }
            let in_folder = value.map(|value| canonical(value, field.data_type())).filter(|value| !value.is_empty());
            terms.push(Term { column: field.name().clone(), value: value.cloned(), in_folder });
            match after {
                [] => break,
                [Token::Word(and), after @ ..] if same(and, "and") => rest = after,
                _ => return Err(bad("only `and` can join conditions".to_owned())),
            }
        }
        Ok(Self { text: text.to_owned(), terms })
    }

    /// Whether a partition, given by its columns and canonical values, is in the scope.
    pub(super) fn holds(&self, values: &[(String, Option<String>)]) -> bool {
        let is = |term: &Term| values.iter().any(|(column, value)| *column == term.column && *value == term.in_folder);
        self.terms.iter().all(is)
    }

    /// Which rows are in the scope. Unlike in folders' names, NULL and the empty text are two values.
    ///
    /// # Errors
    /// Rows that lack a column.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let mut all = BooleanArray::from(vec![true; batch.num_rows()]);
        for term in &self.terms {
            let array = term.array(batch)?;
            let is = match &term.value {
                None => is_null(array).map_err(broken)?,
                Some(value) => match typed(value, array.data_type()) {
                    Some(value) => not_distinct(array, &Scalar::new(value)).map_err(broken)?,
                    None => BooleanArray::from(vec![false; batch.num_rows()]),
                },
            };
            all = and(&all, &is).map_err(broken)?;
        }
        Ok(all)
    }

    /// Refuses rows that are not in the scope, where that alone says what goes.
    ///
    /// # Errors
    /// [`ErrorKind::Data`], naming the values of one of them.
    pub(super) fn check_rows(&self, batch: &RecordBatch) -> Result<()> {
        let Some(row) = self.rows(batch)?.iter().position(|is| is != Some(true)) else { return Ok(()) };
        let options = FormatOptions::new().with_null("NULL");
        let mut shown = Vec::with_capacity(self.terms.len());
        for term in &self.terms {
            let array = ArrayFormatter::try_new(term.array(batch)?.as_ref(), &options).map_err(broken)?;
            shown.push(format!("{} = {}", term.column, array.value(row)));
        }
        let message = format!("rows with `{}` are outside of the scope `{}`", shown.join(", "), self.text);
        Err(Error::new(ErrorKind::Data, message)
            .cause("another load of this scope would not replace them, but add them once more")
            .hint("select only rows of the scope, widen `scope`, or add a `key`"))
    }

    /// Whether a partition folder of ours is in the scope.
    pub(super) fn holds_folder(&self, folder: &str) -> bool {
        partition_values(folder).is_some_and(|values| self.holds(&values))
    }
}

impl Term {
    fn array<'a>(&self, batch: &'a RecordBatch) -> Result<&'a ArrayRef> {
        let column = batch.column_by_name(&self.column);
        column.ok_or_else(|| Error::internal(format!("rows lack `{}`, which a scope is on", self.column)))
    }
}

/// How a value of a column is written.
fn example_of(field: &Field) -> String {
    let value = match field.data_type() {
        DataType::Date32 | DataType::Date64 => "'2024-01-15'",
        DataType::Timestamp(..) => "'2024-01-15 08:30:00'",
        DataType::Boolean => "true",
        other if other.is_numeric() => "7",
        _ => "'…'",
    };
    format!("write e.g. `{} = {value}`", field.name())
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
        Scope::parse(text, &[&day, &month], On::Partitions)
    }

    #[test]
    fn of_rows_null_and_the_empty_text_are_two_values() {
        let region = Field::new("region", DataType::Utf8, true);
        let values: ArrayRef = Arc::new(StringArray::from(vec![None, Some(""), Some("EU")]));
        let batch = RecordBatch::try_from_iter_with_nullable([("region", values, true)]).unwrap();
        for (text, wanted) in [
            ("region is null", [true, false, false]),
            ("region = ''", [false, true, false]),
            ("region = 'EU'", [false, false, true]),
        ] {
            let scope = Scope::parse(text, &[&region], On::Rows).unwrap();
            assert_eq!(scope.rows(&batch).unwrap(), BooleanArray::from(wanted.to_vec()), "{text}");
            // A folder does not tell the first two apart.
            assert_eq!(scope.holds_folder("region=__HIVE_DEFAULT_PARTITION__"), !wanted[2], "{text}");
        }
        let scope = Scope::parse("region = 'EU'", &[&region], On::Rows).unwrap();
        let error = scope.check_rows(&batch).unwrap_err();
        assert_eq!(error.message(), "rows with `region = NULL` are outside of the scope `region = 'EU'`");
        scope.check_rows(&batch.slice(2, 1)).unwrap();
    }

    #[test]
    fn rows_are_compared_in_their_type() {
        let day = Field::new("day", DataType::Date32, true);
        let money = Field::new("money", DataType::Decimal128(9, 2), true);
        let days: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![Some(19_737), Some(19_738), None]));
        let moneys = arrow::array::Decimal128Array::from(vec![Some(150), Some(150), Some(150)]);
        let moneys: ArrayRef = Arc::new(moneys.with_precision_and_scale(9, 2).unwrap());
        let batch = RecordBatch::try_from_iter_with_nullable([("day", days, true), ("money", moneys, true)]).unwrap();
        let scope = Scope::parse("day = '2024-01-15' and money = 1.5", &[&day, &money], On::Rows).unwrap();
        assert_eq!(scope.rows(&batch).unwrap(), BooleanArray::from(vec![true, false, false]));
    }

    #[test]
    fn a_value_that_the_column_cannot_have_is_refused() {
        for (text, why) in [
            ("date = '15/01/2024'", "`15/01/2024` is no value of `date`, which is date"),
            ("month = 'abc'", "`abc` is no value of `month`"),
            ("month = ''", "`` is no value of `month`"),
            ("month = true", "`true` is no value of `month`"),
            ("dat = '2024-01-15'", "`dat` is not a column of `partition_by`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message().contains(why) && error.hint_text().is_some(), "{text}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Schema);
        }
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
            ("date = '2024", "not closed"),
            ("date = now", "`= literal`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message().contains(why), "{text}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }
}
