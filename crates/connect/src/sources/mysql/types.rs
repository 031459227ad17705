//! MySQL's and MariaDB's types as arrow's.
//!
//! | MySQL, MariaDB | arrow |
//! |---|---|
//! | tinyint(1), boolean; bit(1) | Boolean |
//! | tinyint, smallint, mediumint and int, bigint | Int8, Int16, Int32, Int64; UInt8 … UInt64 when unsigned |
//! | bit(2) to bit(64) | UInt64 |
//! | year | Int16 |
//! | float, double | Float32, Float64 |
//! | decimal(p,s), p up to 38; up to 65 | Decimal128(p,s); Decimal256(p,s) |
//! | char, varchar, text, enum, set, json, uuid, inet6 | Utf8, whatever their character set |
//! | binary, varbinary, blob | Binary |
//! | date | Date32 |
//! | datetime; timestamp | Timestamp(µs); Timestamp(µs, UTC) |
//! | time | Utf8: it may be negative and have more than 24 hours |
//! | geometry and its kinds | Binary: WKB, as `ST_AsWKB` gives it, without the SRID |
//!
//! Nothing is rounded. What arrow has no place for (the date `0000-00-00` and others that are none, a tinyint(1) other
//! than 0 and 1) is a bad row, and follows `on_bad_row`; `schema: {column: text}` or `{column: tinyint}` reads it. A type
//! that `schema:` gives is filled where that changes nothing (`time` from times within a day, a decimal from text); a
//! value that does not fit is a bad row too.

use super::names::quoted;
use crate::kept::Holds;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, TimeUnit};
use mysql_async::consts::{ColumnFlags, ColumnType};

/// The number of the character set of bytes.
const BINARY: u16 = 63;

/// How values come, where their form alone does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As what they are.
    Plain,
    /// Bytes of a number, the highest first.
    Bits,
    /// A time with so many digits of a second's fraction.
    Time(u8),
    /// A date and a time with so many.
    Moment(u8),
}

/// What is asked of the server in place of the column itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Column,
    /// Its text, for values that the protocol has no place for either.
    Text,
    Wkb,
    Wkt,
}

/// A column of a table or query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// What it becomes.
    pub(super) kind: DataType,
    pub(super) form: Form,
    /// What it becomes where `schema:` gives it no type; none for what is no column of the server.
    pub(super) own: Option<DataType>,
    ask: Ask,
}

impl Column {
    /// What a column of the server becomes; `wanted` is the type that `schema:` gives it.
    pub(super) fn new(server: &mysql_async::Column, wanted: Option<&DataType>) -> Self {
        let of = server.column_type();
        let (own, form) = own_type(server);
        let kind = wanted.unwrap_or(&own).clone();
        let as_text = kind == DataType::Utf8;
        let ask = match of {
            ColumnType::MYSQL_TYPE_GEOMETRY if as_text => Ask::Wkt,
            ColumnType::MYSQL_TYPE_GEOMETRY => Ask::Wkb,
            _ if as_text && is_date(of) => Ask::Text,
            _ => Ask::Column,
        };
        Self { name: server.name_str().into_owned(), kind, form, own: Some(own), ask }
    }

    /// What a server computed: a value of a type, as it comes.
    pub(super) fn plain(name: &str, kind: DataType) -> Self {
        Self { name: name.to_owned(), kind, form: Form::Plain, own: None, ask: Ask::Column }
    }

    /// A column of a type, as if a server had it.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(name: &str, kind: DataType, form: Form) -> Self {
        Self { name: name.to_owned(), kind, form, own: None, ask: Ask::Column }
    }

    /// Which types a row that was kept can be read as.
    pub(super) fn holds(&self) -> Holds {
        match self.ask {
            Ask::Wkt => Holds::Text,
            Ask::Wkb => Holds::Value,
            Ask::Column | Ask::Text => Holds::Any,
        }
    }

    /// What to select.
    pub(super) fn sql(&self) -> String {
        let name = quoted(&self.name);
        match self.ask {
            Ask::Column => name,
            Ask::Text => format!("CAST({name} AS CHAR)"),
            Ask::Wkb => format!("ST_AsWKB({name})"),
            Ask::Wkt => format!("ST_AsText({name})"),
        }
    }
}

fn is_date(of: ColumnType) -> bool {
    use ColumnType::*;
    matches!(
        of,
        MYSQL_TYPE_DATE
            | MYSQL_TYPE_NEWDATE
            | MYSQL_TYPE_DATETIME
            | MYSQL_TYPE_DATETIME2
            | MYSQL_TYPE_TIMESTAMP
            | MYSQL_TYPE_TIMESTAMP2
    )
}

fn own_type(server: &mysql_async::Column) -> (DataType, Form) {
    let (flags, length) = (server.flags(), server.column_length());
    let unsigned = flags.contains(ColumnFlags::UNSIGNED_FLAG);
    let whole = |signed: DataType, other: DataType| (if unsigned { other } else { signed }, Form::Plain);
    let micros = |zone: Option<&str>| {
        let kind = DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        (kind, Form::Moment(server.decimals().min(6)))
    };
    use ColumnType::*;
    match server.column_type() {
        MYSQL_TYPE_TINY if length == 1 && !unsigned => (DataType::Boolean, Form::Plain),
        MYSQL_TYPE_TINY => whole(DataType::Int8, DataType::UInt8),
        MYSQL_TYPE_SHORT => whole(DataType::Int16, DataType::UInt16),
        MYSQL_TYPE_INT24 | MYSQL_TYPE_LONG => whole(DataType::Int32, DataType::UInt32),
        MYSQL_TYPE_LONGLONG => whole(DataType::Int64, DataType::UInt64),
        MYSQL_TYPE_YEAR => (DataType::Int16, Form::Plain),
        MYSQL_TYPE_BIT if length == 1 => (DataType::Boolean, Form::Bits),
        MYSQL_TYPE_BIT => (DataType::UInt64, Form::Bits),
        MYSQL_TYPE_FLOAT => (DataType::Float32, Form::Plain),
        MYSQL_TYPE_DOUBLE => (DataType::Float64, Form::Plain),
        MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => (decimal(length, server.decimals(), unsigned), Form::Plain),
        MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE => (DataType::Date32, Form::Plain),
        MYSQL_TYPE_DATETIME | MYSQL_TYPE_DATETIME2 => micros(None),
        MYSQL_TYPE_TIMESTAMP | MYSQL_TYPE_TIMESTAMP2 => micros(Some("UTC")),
        MYSQL_TYPE_TIME | MYSQL_TYPE_TIME2 => (DataType::Utf8, Form::Time(server.decimals().min(6))),
        MYSQL_TYPE_GEOMETRY => (DataType::Binary, Form::Plain),
        MYSQL_TYPE_JSON | MYSQL_TYPE_ENUM | MYSQL_TYPE_SET | MYSQL_TYPE_NULL => (DataType::Utf8, Form::Plain),
        _ if flags.intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG) => (DataType::Utf8, Form::Plain),
        // A NULL that a subquery gives has no letters, and no character set either.
        _ if server.character_set() == BINARY && length > 0 => (DataType::Binary, Form::Plain),
        _ => (DataType::Utf8, Form::Plain),
    }
}

/// The decimal of a column that is shown with so many letters (my_decimal.h: `my_decimal_precision_to_length`).
fn decimal(length: u32, scale: u8, unsigned: bool) -> DataType {
    let precision = i64::from(length) - i64::from(scale > 0) - i64::from(!unsigned);
    let precision = precision.max(i64::from(scale)).max(1);
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if precision <= DECIMAL128_MAX_PRECISION => DataType::Decimal128(precision, scale),
        (Ok(precision), Ok(scale)) if precision <= DECIMAL256_MAX_PRECISION => DataType::Decimal256(precision, scale),
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_keeps_its_precision_and_scale() {
        assert_eq!(decimal(12, 2, false), DataType::Decimal128(10, 2));
        assert_eq!(decimal(11, 2, true), DataType::Decimal128(10, 2));
        assert_eq!(decimal(11, 0, false), DataType::Decimal128(10, 0));
        assert_eq!(decimal(67, 30, false), DataType::Decimal256(65, 30));
        assert_eq!(decimal(40, 38, false), DataType::Decimal128(38, 38));
        assert_eq!(decimal(0, 0, false), DataType::Decimal128(1, 0));
        assert_eq!(decimal(200, 2, false), DataType::Utf8);
    }
}
