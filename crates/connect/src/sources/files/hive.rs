//! Columns that stand in the path: `sales/date=2024-01-15/region=EU/part-0.parquet`.
//!
//! A value is text until all files are known; then a column whose every value is a whole number is `int64` (so `01` is
//! 1, as in Spark and DuckDB), whose every value is a date is `date`, and anything else is text.

use crate::hive::{NULL_TEXT, percent_decoded};
use arrow::array::{ArrayRef, StringArray, UInt32Array};
use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Field};
use gristmill_model::{Error, ErrorKind, Result};

/// One key and its value; `None` is NULL.
pub(super) type Pair = (String, Option<String>);

/// The keys and values in the directories of a path (its last part is the file).
pub(super) fn pairs(path: &str) -> Vec<Pair> {
    let Some((folders, _)) = path.rsplit_once('/') else { return Vec::new() };
    folders.split('/').filter_map(pair).collect()
}

/// A directory's name as key and value.
pub(super) fn pair(folder: &str) -> Option<Pair> {
    let (key, value) = folder.split_once('=')?;
    if key.is_empty() {
        return None;
    }
    let value = percent_decoded(value);
    Some((percent_decoded(key), (value != NULL_TEXT).then_some(value)))
}

/// The columns of all files, in the order they are first met, with the types that hold all values.
pub(super) fn columns<'a>(files: impl Iterator<Item = &'a [Pair]>) -> Vec<Field> {
    let mut seen: Vec<(String, Kind)> = Vec::new();
    for pairs in files {
        for (key, value) in pairs {
            let kind = value.as_deref().map_or(Kind::Unknown, Kind::of);
            match seen.iter_mut().find(|(name, _)| name == key) {
                Some((_, old)) => *old = old.join(kind),
                None => seen.push((key.clone(), kind)),
            }
        }
    }
    seen.into_iter().map(|(name, kind)| Field::new(name, kind.data_type(), true)).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Int,
    Date,
    Text,
}

impl Kind {
    fn of(text: &str) -> Self {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<i64>().is_ok() {
            Self::Int
        } else if text.len() == 10 && chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok() {
            Self::Date
        } else {
            Self::Text
        }
    }

    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, kind) | (kind, Self::Unknown) => kind,
            (a, b) if a == b => a,
            _ => Self::Text,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Int => DataType::Int64,
            Self::Date => DataType::Date32,
            Self::Unknown | Self::Text => DataType::Utf8,
        }
    }
}

/// A column of `rows` times the same value.
///
/// # Errors
/// [`ErrorKind::Data`] when the value is not of the column's type.
pub(crate) fn array(field: &Field, value: Option<&str>, rows: usize, file: &str) -> Result<ArrayRef> {
    let text = StringArray::from(vec![value]);
    let wrong = |error: arrow::error::ArrowError| {
        Error::new(
            ErrorKind::Data,
            format!(
                "the path of `{file}` says `{}={}`, which is not of type {}",
                field.name(),
                value.unwrap_or(NULL_TEXT),
                crate::types::type_name(field.data_type())
            ),
        )
        .hint(format!("declare it as text: `schema: {{{}: text}}`", field.name()))
        .cause(error)
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let one = arrow::compute::cast_with_options(&text, field.data_type(), &strict).map_err(wrong)?;
    arrow::compute::take(&one, &UInt32Array::from(vec![0; rows]), None)
        .map_err(|error| Error::internal("a value could not be repeated").cause(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    #[test]
    fn directories_with_an_equals_sign_are_columns() {
        let found = pairs("a/date=2024-01-15/city=S%C3%A3o%20Paulo/x=1=2/=y/part.csv");
        let expected = [("date", "2024-01-15"), ("city", "São Paulo"), ("x", "1=2")];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), Some(value.to_owned()))));
        assert_eq!(pairs("a=1"), vec![], "the last part is the file");
        assert_eq!(pairs("a=__HIVE_DEFAULT_PARTITION__/x"), vec![("a".to_owned(), None)]);
        assert_eq!(percent_decoded("50%"), "50%");
        assert_eq!(percent_decoded("%ff"), "%ff", "not UTF-8 stays as it is");
    }

    #[test]
    fn a_type_holds_all_values() {
        let files = [pairs("m=01/d=2024-01-15/t=1/n=__HIVE_DEFAULT_PARTITION__/x"), pairs("m=12/d=2024-02-30/t=a/x")];
        let types: Vec<_> = columns(files.iter().map(Vec::as_slice)).iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types, [DataType::Int64, DataType::Utf8, DataType::Utf8, DataType::Utf8]);
    }

    #[test]
    fn a_value_becomes_a_column_of_its_type() {
        let field = Field::new("m", DataType::Int64, true);
        let column = array(&field, Some("01"), 3, "x").unwrap();
        assert_eq!(column.as_primitive::<Int64Type>().values(), &[1, 1, 1]);
        assert_eq!(array(&field, None, 2, "x").unwrap().null_count(), 2);
        assert_eq!(array(&field, Some("a"), 1, "x").unwrap_err().kind(), ErrorKind::Data);
    }
}
