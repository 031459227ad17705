//! Names and literals in MySQL's SQL.

use crate::table_name::table_parts;
use crate::units::share::Dialect;
use gristmill_model::{Error, ErrorKind, Result};
use std::fmt;

/// A name in backticks.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as a literal that means the same in every `sql_mode`: what could be an escape is written as bytes.
pub(crate) fn literal(text: &str) -> String {
    if text.is_ascii() && !text.contains(['\'', '\\', '\0']) {
        format!("'{text}'")
    } else {
        format!("_utf8mb4 {}", hex(text.as_bytes()))
    }
}

/// Bytes as a literal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{digits}'")
}

/// MySQL's own words for what units are told apart by. An edge's value is what people are shown: a number, a text between
/// quotes, or bytes as `x'…'`.
pub(crate) struct Mysql;

impl Dialect for Mysql {
    fn quoted(&self, name: &str) -> String {
        quoted(name)
    }

    fn literal(&self, value: &str) -> String {
        match value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
            Some(text) => literal(text),
            None => value.to_owned(),
        }
    }

    fn hash(&self, column: &str) -> String {
        // As bytes: equal texts of a collation may differ in case, and are different rows for a hash.
        format!("COALESCE(CRC32(CAST({} AS BINARY)), 0)", quoted(column))
    }
}

/// A table as a pipeline names it: `table` or `database.table`, either part in backticks where it has dots.
///
/// Names are taken as they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) database: Option<String>,
    pub(crate) name: String,
}

impl TableName {
    /// # Errors
    /// More than two parts, an empty part, an open quote.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(ErrorKind::Config, format!("`{text}` is not the name of a table: {what}"))
                .hint("write `table` or `database.table`, a part with dots in backticks")
        };
        let parts = table_parts(text, '`').map_err(&wrong)?;
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), None, None) => Ok(Self { database: None, name }),
            (Some(database), Some(name), None) => Ok(Self { database: Some(database), name }),
            _ => Err(wrong("it has more than two parts")),
        }
    }

    /// In SQL, quoted.
    pub(crate) fn sql(&self) -> String {
        match &self.database {
            Some(database) => format!("{}.{}", quoted(database), quoted(&self.name)),
            None => quoted(&self.name),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.database {
            Some(database) => write!(f, "{database}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}
