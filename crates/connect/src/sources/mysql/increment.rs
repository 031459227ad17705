//! Reading only what is new: the condition, and how far it goes.
//!
//! A bound must compare exactly as the column does: a text beside a number would be compared as floats, and texts by the
//! column's collation, for which different texts are equal. So numbers stand as numbers, times as typed literals, and texts
//! are compared by their bytes.

use super::connect::Session;
use super::names::{Mysql, literal, quoted};
use super::wanted::{Known, Wanted, unknown_column};
use crate::increment::{narrowed, wrong_lag};
use crate::moment::earlier;
use crate::units::share::Slice;
use crate::{Increment, Narrowed};
use gristmill_model::spec::{ExtractSpec, Lag};
use gristmill_model::{Error, ErrorKind, Result};
use mysql_async::consts::{ColumnFlags, ColumnType};
use serde_json::Value;

/// The number of the character set of bytes.
const BINARY: u16 = 63;

/// What a cursor is, as far as its bounds are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Decimal,
    /// Of 32 bits: its text says less than it holds, so it is compared as one of 64.
    Float,
    Double,
    Date,
    /// With a time zone (`timestamp`, kept in UTC) or without.
    Moment,
    Text,
}

impl Kind {
    /// None for what has no order that we and the server share.
    fn of(column: &mysql_async::Column) -> Option<Self> {
        use ColumnType::*;
        if column.flags().intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG) {
            return None;
        }
        Some(match column.column_type() {
            MYSQL_TYPE_TINY | MYSQL_TYPE_SHORT | MYSQL_TYPE_INT24 | MYSQL_TYPE_LONG | MYSQL_TYPE_LONGLONG
            | MYSQL_TYPE_YEAR => Self::Whole,
            MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => Self::Decimal,
            MYSQL_TYPE_FLOAT => Self::Float,
            MYSQL_TYPE_DOUBLE => Self::Double,
            MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE => Self::Date,
            MYSQL_TYPE_DATETIME | MYSQL_TYPE_DATETIME2 | MYSQL_TYPE_TIMESTAMP | MYSQL_TYPE_TIMESTAMP2 => Self::Moment,
            MYSQL_TYPE_STRING | MYSQL_TYPE_VAR_STRING | MYSQL_TYPE_VARCHAR if column.character_set() != BINARY => {
                Self::Text
            }
            MYSQL_TYPE_BLOB | MYSQL_TYPE_TINY_BLOB | MYSQL_TYPE_MEDIUM_BLOB | MYSQL_TYPE_LONG_BLOB
                if column.character_set() != BINARY =>
            {
                Self::Text
            }
            _ => return None,
        })
    }

    /// What is compared.
    fn compared(self, name: &str) -> String {
        let name = quoted(name);
        match self {
            Self::Float => format!("({name} + 0e0)"),
            Self::Text => format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY)"),
            _ => name,
        }
    }

    /// The greatest value as a text that [`Self::bound`] takes.
    fn greatest(self, name: &str) -> String {
        let max = format!("MAX({})", self.compared(name));
        if self == Self::Text { format!("CONVERT({max} USING utf8mb4)") } else { max }
    }

    /// A value that was kept, in SQL; none for what is no value of this kind.
    fn bound(self, value: &str) -> Option<String> {
        let is_number = value.parse::<f64>().is_ok_and(f64::is_finite);
        Some(match self {
            Self::Whole | Self::Decimal if is_number && !value.contains(['e', 'E']) => value.to_owned(),
            Self::Float | Self::Double if is_number => {
                if value.contains(['e', 'E']) {
                    value.to_owned()
                } else {
                    format!("{value}e0")
                }
            }
            Self::Date => format!("DATE{}", literal(value)),
            Self::Moment => format!("TIMESTAMP{}", literal(value)),
            Self::Text => format!("CAST({} AS BINARY)", literal(value)),
            _ => return None,
        })
    }

    /// The least value that is read, in SQL; none where everything is.
    fn lower(self, column: &str, holds: &str, since: &str, lag: Option<Lag>) -> Result<Option<String>> {
        let changed = || {
            Error::new(ErrorKind::Config, format!("the cursor `{since}` is not of `{column}`, which {holds}"))
                .hint("load everything again with `--full-refresh`")
        };
        let since_sql = self.bound(since).ok_or_else(changed)?;
        Ok(match (lag, self) {
            (None, _) => Some(since_sql),
            (Some(Lag::Time(lag)), Self::Date | Self::Moment) => match earlier(since, lag.0) {
                // Years have four digits there.
                Some(text) if text.len() == since.len() && !text.starts_with("0000") => self.bound(&text),
                _ if since.get(..10).is_some_and(|day| day.parse::<chrono::NaiveDate>().is_ok()) => None,
                _ => return Err(changed()),
            },
            (Some(Lag::Number(lag)), Self::Whole) => {
                let since: i128 = since.parse().map_err(|_| changed())?;
                Some((since - i128::from(lag)).to_string())
            }
            (Some(Lag::Number(lag)), Self::Decimal) => Some(format!("({since_sql} - {lag})")),
            (Some(lag), _) => return Err(wrong_lag(lag, column, holds)),
        })
    }
}

impl Wanted {
    /// Fixes the upper bound, and narrows the extract to the rows between it and the cursor.
    pub(super) async fn narrow(&self, extract: &ExtractSpec, increment: &Increment, known: &Known) -> Result<Narrowed> {
        let name = &increment.column;
        let names = || known.schema.fields().iter().map(|field| field.name().as_str());
        if !names().any(|known| known == name) {
            return Err(unknown_column(name, &self.label(), names()).context("incremental_key"));
        }
        let mut session = Session::open_to_ask(&self.config).await?;
        let columns = self.described(&mut session).await?;
        let column = columns.iter().find(|column| column.name_str() == name.as_str());
        let column = column.ok_or_else(|| Error::internal(format!("`{name}` was there a moment ago")))?;
        let holds = format!("is {}", type_name(column.column_type()));
        let kind = Kind::of(column).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("`{name}` {holds}, which cannot be a cursor"))
                .hint("take a number, a time, a date or a text as `incremental_key`")
        })?;
        let compared = kind.compared(name);
        let from = match &increment.since {
            None => None,
            Some(since) => {
                let since = since.as_str().map_or_else(|| since.to_string(), str::to_owned);
                kind.lower(name, &holds, &since, increment.lag)?.map(|bound| format!("{compared} >= {bound}"))
            }
        };
        let filter = match (&self.filter, &from) {
            (Some(filter), Some(from)) => Some(format!("(\n{filter}\n) AND {from}")),
            (filter, from) => filter.clone().or_else(|| from.clone()),
        };
        let max = Slice::Whole.select(&Mysql, &kind.greatest(name), &self.relation_sql(), filter.as_deref());
        let next = match session.value(&max).await {
            Ok(next) => next,
            Err(error) => return Err(self.cannot_read(&mut session, &error).await),
        };
        session.close().await;
        let next = match next {
            None => None,
            Some(next) => {
                // A date that is none is less than every other one, and no bound can be made of it.
                let bound = kind.bound(&next).filter(|_| !next.starts_with("0000-"));
                let bound = bound.ok_or_else(|| {
                    Error::new(ErrorKind::Data, format!("the greatest `{name}` of `{}` is {next}", self.label()))
                        .cause("it cannot be compared with")
                        .hint("leave such rows out with `where`")
                })?;
                Some((bound, Value::String(next)))
            }
        };
        Ok(narrowed(extract, increment, &compared, from, next))
    }
}

/// A type in MySQL's words: `MYSQL_TYPE_VAR_STRING` is `var_string`.
fn type_name(of: ColumnType) -> String {
    format!("{of:?}").trim_start_matches("MYSQL_TYPE_").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lower(kind: Kind, since: &str, lag: &str) -> Result<Option<String>> {
        let lag = (!lag.is_empty()).then(|| lag.parse().unwrap());
        kind.lower("k", "is some", since, lag)
    }

    #[test]
    fn a_bound_is_written_so_that_it_compares_as_the_column_does() {
        for (kind, since, lag, wanted) in [
            (Kind::Whole, "18446744073709551615", "", "18446744073709551615"),
            (Kind::Whole, "-9223372036854775808", "10", "-9223372036854775818"),
            (Kind::Decimal, "1.5000", "2", "(1.5000 - 2)"),
            (Kind::Float, "3.140000104904175", "", "3.140000104904175e0"),
            (Kind::Double, "1e300", "", "1e300"),
            (Kind::Date, "2024-03-01", "36h", "DATE'2024-02-28'"),
            (Kind::Moment, "2024-03-31 00:30:00.000001", "2h", "TIMESTAMP'2024-03-30 22:30:00.000001'"),
            (Kind::Text, "O'Neil", "", "CAST(_utf8mb4 x'4f274e65696c' AS BINARY)"),
        ] {
            assert_eq!(lower(kind, since, lag).unwrap().as_deref(), Some(wanted));
        }
        // Before the first year there is nothing.
        assert_eq!(lower(Kind::Date, "0001-01-02", "9d").unwrap(), None);
    }

    #[test]
    fn what_is_no_value_of_the_column_is_refused() {
        for (kind, since, lag) in [
            (Kind::Whole, "a", ""),
            (Kind::Whole, "1e3", ""),
            (Kind::Double, "inf", ""),
            (Kind::Whole, "1", "2h"),
            (Kind::Date, "2024-01-01", "2"),
            (Kind::Text, "a", "2"),
            (Kind::Double, "1.5", "2"),
            (Kind::Moment, "yesterday", "2h"),
        ] {
            assert!(lower(kind, since, lag).is_err(), "{kind:?} {since} {lag}");
        }
    }
}
