//! What a declared type means, and what undeclared values look like.
//!
//! SQLite keeps a type with each value, not with the column; the declared type is a promise that the reader holds the
//! values to ([`super::read`]).
//!
//! | declared | arrow |
//! |---|---|
//! | `INTEGER`, `BIGINT`, … (every name with `INT` in it) | int64 |
//! | `REAL`, `DOUBLE`, `FLOAT`; `NUMERIC` and `DECIMAL` without digits | float64 |
//! | `DECIMAL(p,s)`, `NUMERIC(p,s)` up to 38 digits | decimal128(p,s) |
//! | `TEXT`, `VARCHAR`, `CHAR`, `CLOB`, `STRING`, `JSON`, `UUID`, `ENUM` | utf8 |
//! | `BLOB`, `BINARY`, `VARBINARY`, `BYTEA` | binary |
//! | `BOOLEAN` | boolean |
//! | `DATE` | date32 |
//! | `DATETIME`, `TIMESTAMP` | timestamp(us) |
//! | `TIMESTAMPTZ`, `TIMESTAMP WITH TIME ZONE` | timestamp(us, UTC) |
//! | `TIME` | time64(us) |
//! | nothing (an expression, a column without a type), or another word | as the first 1,000 values are |

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, TimeUnit};
use rusqlite::types::ValueRef;
use std::sync::Arc;

/// The arrow type a declared type stands for; `None` where the values must be looked at.
pub(crate) fn declared(name: &str) -> Option<DataType> {
    let name = name.trim().to_ascii_uppercase();
    let (words, digits) = match name.split_once('(') {
        Some((words, rest)) => (words.trim(), Some(rest.split(')').next().unwrap_or_default())),
        None => (name.as_str(), None),
    };
    let after = name.split_once(')').map_or("", |(_, after)| after.trim());
    let first = words.split_whitespace().next().unwrap_or_default();
    let zoned = first == "TIMESTAMPTZ" || words.contains("WITH TIME ZONE") || after.starts_with("WITH TIME ZONE");
    Some(match first {
        "" | "ANY" => return None,
        "BOOLEAN" | "BOOL" => DataType::Boolean,
        "DATE" => DataType::Date32,
        "TIME" => DataType::Time64(TimeUnit::Microsecond),
        "DATETIME" | "TIMESTAMP" | "TIMESTAMPTZ" if zoned => {
            DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
        }
        "DATETIME" | "TIMESTAMP" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "DECIMAL" | "NUMERIC" | "NUMBER" | "DEC" => decimal(digits).unwrap_or(DataType::Float64),
        // SQLite's own rules of affinity, in their order (https://sqlite.org/datatype3.html, section 3.1).
        _ if words.contains("INT") => DataType::Int64,
        _ if ["CHAR", "CLOB", "TEXT"].iter().any(|part| words.contains(part)) => DataType::Utf8,
        "STRING" | "JSON" | "UUID" | "ENUM" | "XML" => DataType::Utf8,
        _ if ["BLOB", "BINARY", "BYTEA"].iter().any(|part| words.contains(part)) => DataType::Binary,
        _ if ["REAL", "FLOA", "DOUB"].iter().any(|part| words.contains(part)) => DataType::Float64,
        _ => return None,
    })
}

fn decimal(digits: Option<&str>) -> Option<DataType> {
    let mut parts = digits?.split(',').map(str::trim);
    let precision: u8 = parts.next()?.parse().ok()?;
    let scale: i8 = parts.next().map_or(Some(0), |scale| scale.parse().ok())?;
    let fits =
        (1..=DECIMAL128_MAX_PRECISION).contains(&precision) && scale >= 0 && i16::from(scale) <= i16::from(precision);
    fits.then_some(DataType::Decimal128(precision, scale))
}

/// Whether SQLite itself keeps numbers as text in a column of this declared type.
pub(crate) fn keeps_text(declared: &str) -> bool {
    let name = declared.to_ascii_uppercase();
    !name.contains("INT") && ["CHAR", "CLOB", "TEXT"].iter().any(|part| name.contains(part))
}

/// Which kinds of values a column without a declared type has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    integers: bool,
    reals: bool,
    texts: bool,
    blobs: bool,
}

impl Seen {
    pub(super) fn note(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => {}
            ValueRef::Integer(_) => self.integers = true,
            ValueRef::Real(_) => self.reals = true,
            ValueRef::Text(_) => self.texts = true,
            ValueRef::Blob(_) => self.blobs = true,
        }
    }

    /// The narrowest type that holds all that was seen; text where nothing was.
    pub(super) fn kind(self) -> DataType {
        match self {
            Self { blobs: true, .. } => DataType::Binary,
            Self { texts: true, .. } => DataType::Utf8,
            Self { reals: true, .. } => DataType::Float64,
            Self { integers: true, .. } => DataType::Int64,
            _ => DataType::Utf8,
        }
    }
}
