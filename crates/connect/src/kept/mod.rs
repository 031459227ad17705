//! Rows of databases that a reader refused, kept so that they can be read again without the database.
//!
//! A record is an object of JSON with each value as the server writes it (`record.rs`), beside it stands how its values came
//! ([`Came`]). Both together are the row: each value is made again what it was (`text.rs`) and held to the type that the
//! pipeline gives its column now, by the rules that the reader itself goes by (`rows.rs`).

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod record;
mod rows;
mod text;

pub(crate) use record::{Record, Value};
pub use rows::KeptRows;
pub(crate) use text::{civil, hex};

use crate::declared::{self, wanted_type};
use crate::types::{parse_type, type_name};
use arrow::datatypes::{DataType, Field};
use gristmill_model::spec::ExtractSpec;
use gristmill_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How the rows of one reading of a database came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// The database, for people; and because SQLite's values have types of their own.
    of: Database,
    columns: Vec<Column>,
}

/// Whose rows they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Database {
    Postgres,
    Mysql,
    Sqlite,
}

impl Database {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
            Self::Sqlite => "SQLite",
        }
    }
}

/// A column of rows that were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    name: String,
    /// The type it has where `schema:` gives it none; none where only its values could tell.
    own: Option<String>,
    way: Way,
    #[serde(default, skip_serializing_if = "Holds::is_any")]
    holds: Holds,
}

/// What the texts of a column's values are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    Bool,
    Int,
    Uint,
    /// A float of 32 bits.
    Real,
    Double,
    /// Texts and bytes, and decimals.
    Text,
    /// `\x` and the bytes.
    Hex,
    /// A date that is one.
    Day,
    /// A moment, without a zone or in UTC.
    Moment,
    /// A date of MySQL, with or without a time, which need not be one.
    Date,
    /// A time, which may be negative or longer than a day.
    Clock,
    /// An array, as PostgreSQL writes it.
    List(Box<Way>),
    /// SQLite's: each value says itself what it is.
    Each,
}

/// Which types a kept value can be read as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Holds {
    /// Whatever its rules allow.
    #[default]
    Any,
    /// Text alone: the server was asked for it, or its text is not its value.
    Text,
    /// Anything but text: the server would write it in another way.
    Value,
    /// The type that it came in, or text.
    Itself,
}

impl Holds {
    fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

impl Column {
    /// `own`: the type that it has where `schema:` gives it none.
    pub(crate) fn new(name: &str, own: Option<&DataType>, way: Way, holds: Holds) -> Self {
        let word = |own: &DataType| match own {
            DataType::List(item) => format!("{}[]", type_name(item.data_type())),
            other => type_name(other),
        };
        Self { name: name.to_owned(), own: own.map(word), way, holds }
    }

    /// The type that `schema:` gives it now, or its own; only one that its values can be read as.
    fn kind(&self, of: Database, declared: Option<&str>) -> Result<DataType> {
        let again = "run the pipeline again for that date";
        let own = self.own.as_deref().and_then(own_type);
        let kind = match declared {
            Some(word) if of == Database::Sqlite => sqlite_type(&self.name, word)?,
            Some(word) => wanted_type(&self.name, word, of.name())?,
            None => own.clone().ok_or_else(|| {
                let message = format!("what type the column `{}` has of its own, letters do not tell", self.name);
                Error::new(ErrorKind::Config, message)
                    .hint(format!("declare it: `schema: {{{}: text}}`, or {again}", self.name))
            })?,
        };
        let cannot = |why: &str, hint: String| {
            let message =
                format!("the column `{}` cannot be read as `{}` from its letters: {why}", self.name, type_name(&kind));
            Err(Error::new(ErrorKind::Config, message).hint(hint))
        };
        let is_text = kind == DataType::Utf8;
        match self.holds {
            Holds::Text if !is_text => {
                cannot("only its text was kept", format!("read it as `schema: {{{}: text}}`, or {again}", self.name))
            }
            Holds::Value if is_text => {
                cannot("the server's text of it was not kept", format!("read it as a value, or {again}"))
            }
            Holds::Itself if !is_text && own.as_ref() != Some(&kind) => cannot(
                &format!("it is {}", self.own.as_deref().unwrap_or("of another type")),
                format!("read it as `schema: {{{}: text}}`, and cast it in SQL", self.name),
            ),
            _ => Ok(kind),
        }
    }
}

fn sqlite_type(column: &str, word: &str) -> Result<DataType> {
    let kind = parse_type(word).map_err(|error| error.context(format!("schema of `{column}`")))?;
    if crate::sources::sqlite::can_read(&kind) {
        return Ok(kind);
    }
    Err(Error::new(ErrorKind::Config, format!("column `{column}` cannot be read as `{word}` from SQLite"))
        .hint("read it as `text`, or as a decimal of up to 38 digits"))
}

fn own_type(word: &str) -> Option<DataType> {
    match word.strip_suffix("[]") {
        Some(item) => Some(DataType::List(Arc::new(Field::new_list_field(parse_type(item).ok()?, true)))),
        None => parse_type(word).ok(),
    }
}

impl Came {
    /// None where one of the columns is not one of the database.
    pub(crate) fn new(of: Database, columns: impl IntoIterator<Item = Option<Column>>) -> Option<Self> {
        Some(Self { of, columns: columns.into_iter().collect::<Option<_>>()? })
    }

    /// As it is kept beside a record.
    pub(crate) fn text(&self) -> String {
        // Only names and words are in it.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What stands beside a record.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] for what is nothing of ours.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| {
            Error::new(ErrorKind::Data, "it cannot be told how the values of a dead letter came")
                .cause(error)
                .hint("the letters may be of another version of gristmill; run the pipeline again for that date")
        })
    }

    /// The columns that were kept, with the types that an extract gives them now.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a type that what was kept cannot be read as.
    pub fn fields(&self, extract: &ExtractSpec) -> Result<Vec<Field>> {
        let field = |column: &Column| {
            let declared = extract.schema.iter().find(|(name, _)| self.is_name(name, &column.name));
            let kind = column.kind(self.of, declared.map(|(_, word)| word.as_str()))?;
            let can_be = matches!(kind, DataType::List(_))
                || self.of == Database::Sqlite
                || declared::Values::new(&kind).is_some();
            if !can_be {
                return Err(Error::internal(format!("nothing becomes {kind} here")));
            }
            Ok(Field::new(&column.name, kind, true))
        };
        self.columns.iter().map(field).collect()
    }

    /// Whether a name in a pipeline means a column.
    #[must_use]
    pub fn is_name(&self, said: &str, column: &str) -> bool {
        match self.of {
            Database::Sqlite => said.eq_ignore_ascii_case(column),
            _ => said == column,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(column: Column, of: Database, schema: &str) -> Result<DataType> {
        let came = Came::new(of, [Some(column)]).unwrap();
        let came = Came::parse(&came.text()).unwrap();
        let mut extract = ExtractSpec::new("db".into());
        if !schema.is_empty() {
            extract.schema.insert("a".to_owned(), schema.to_owned());
        }
        came.fields(&extract).map(|fields| fields[0].data_type().clone())
    }

    #[test]
    fn a_column_is_read_as_what_was_kept_of_it_allows() {
        let of = |own: &DataType, way, holds| Column::new("a", Some(own), way, holds);
        let number = || of(&DataType::Int64, Way::Int, Holds::Any);
        assert_eq!(fields(number(), Database::Postgres, "").unwrap(), DataType::Int64);
        assert_eq!(fields(number(), Database::Mysql, "decimal(5,2)").unwrap(), DataType::Decimal128(5, 2));
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Decimal128(4, 1), true)));
        let array = || of(&list, Way::List(Box::new(Way::Text)), Holds::Itself);
        assert_eq!(fields(array(), Database::Postgres, "").unwrap(), list);
        assert_eq!(fields(array(), Database::Postgres, "text").unwrap(), DataType::Utf8);
        let error = fields(array(), Database::Postgres, "int").unwrap_err();
        assert!(error.message().contains("it is decimal(4,1)[]"), "{error}");
        let text = fields(of(&DataType::Binary, Way::Text, Holds::Text), Database::Mysql, "").unwrap_err();
        assert!(text.message().contains("`a` cannot be read as `binary` from its letters: only its text"), "{text}");
        let money = fields(of(&DataType::Utf8, Way::Text, Holds::Value), Database::Postgres, "").unwrap_err();
        assert!(money.message().contains("the server's text of it was not kept"), "{money}");
        let unknown = fields(Column::new("a", None, Way::Each, Holds::Any), Database::Sqlite, "").unwrap_err();
        assert!(unknown.hint_text().unwrap().contains("schema: {a: text}"), "{unknown}");
        let wrong = fields(number(), Database::Sqlite, "decimal(50,2)").unwrap_err();
        assert!(wrong.message().contains("from SQLite"), "{wrong}");
    }
}
