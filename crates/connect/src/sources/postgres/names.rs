//! Names and literals in PostgreSQL's SQL.

use crate::table_name::table_parts;
use gristmill_model::{Error, ErrorKind, Result, one_of};
use std::fmt;

/// The longest name PostgreSQL keeps, in bytes; it cuts longer ones off silently.
pub(crate) const LONGEST_NAME: usize = 63;

/// A name in quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a literal (`standard_conforming_strings` is on in every session of ours).
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// PostgreSQL's own words for what units are told apart by.
pub(crate) struct Postgres;

impl crate::units::share::Dialect for Postgres {
    fn quoted(&self, name: &str) -> String {
        quoted(name)
    }

    fn literal(&self, value: &str) -> String {
        literal(value)
    }

    fn hash(&self, column: &str) -> String {
        // The sign is cut off rather than turned: the least number has no positive twin. NULL is hashed as 0.
        format!("(coalesce(hashtext({}::text), 0)::bigint & 2147483647)", quoted(column))
    }
}

/// A hint for an unknown option of a connection URL or a service.
/// A hint for an unknown option of a connection URL or a service.
pub(crate) fn did_you_mean_key(name: &str) -> String {
    let known = ["host", "port", "user", "password", "dbname", "passfile", "sslmode", "sslrootcert", "connect_timeout"];
    let more = ["application_name", "options", "target_session_attrs", "sslcert", "sslkey", "channel_binding"];
    one_of(name, known.into_iter().chain(more))
}

/// A table as a pipeline names it: `table`, `schema.table`, either part in double quotes where it has dots.
///
/// Names are taken as they stand (no folding to lower case).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

impl TableName {
    /// # Errors
    /// More than two parts, an empty part, an open quote, a name that PostgreSQL would cut off.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(ErrorKind::Config, format!("`{text}` is not the name of a table: {what}"))
                .hint("write `table` or `schema.table`, a part with dots in double quotes")
        };
        let parts = table_parts(text, '"').map_err(&wrong)?;
        if parts.iter().any(|part| part.len() > LONGEST_NAME) {
            return Err(wrong("a part is longer than 63 bytes"));
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), None, None) => Ok(Self { schema: None, name }),
            (Some(schema), Some(name), None) => Ok(Self { schema: Some(schema), name }),
            _ => Err(wrong("it has more than two parts")),
        }
    }

    /// The schema, or else `fallback`.
    pub(crate) fn or_schema(mut self, fallback: Option<&str>) -> Self {
        self.schema = self.schema.or_else(|| fallback.map(str::to_owned));
        self
    }

    /// In SQL, quoted.
    pub(crate) fn sql(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&self.name)),
            None => quoted(&self.name),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}
