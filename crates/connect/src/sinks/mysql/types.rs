//! Arrow's types as MySQL's and MariaDB's.
//!
//! | arrow | MySQL, MariaDB |
//! |---|---|
//! | Boolean | boolean (`tinyint(1)`) |
//! | Int8, Int16, Int32, Int64 | tinyint, smallint, int, bigint |
//! | UInt8, UInt16, UInt32, UInt64 | the same, unsigned |
//! | Float16, Float32; Float64 | float; double |
//! | Decimal(p,s) of up to 65 digits | decimal(p,s) |
//! | Utf8, LargeUtf8, Utf8View, Null | longtext, compared by its bytes |
//! | Binary of any kind | longblob |
//! | Date32, Date64 | date |
//! | Time32, Time64 | time(6) |
//! | Timestamp; with a time zone | datetime(6); timestamp(6) |
//! | Duration | time(6) |
//! | List, Struct, Map | json |
//! | Dictionary, RunEndEncoded | as their values |
//!
//! Columns of a key are `varchar` and `varbinary`, since no whole text can be one. What MySQL cannot keep is refused, by
//! column and value (`encode.rs`): NaN and infinities, years but 1 to 9999, a `timestamp` outside of 1970 to 2038, nanoseconds
//! between two microseconds. Minus zero becomes zero. Intervals of months and unions are refused.

use super::session::Server;
use crate::sinks::arrays::can_be_json;
use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use gristmill_model::{Error, ErrorKind, Result};

/// The most digits that a decimal has.
const MOST_DIGITS: u16 = 65;
/// The most of them after the point: MariaDB's; MySQL says no itself beyond 30.
const MOST_SCALE: u16 = 38;
/// Bytes that the columns of a key may have together: InnoDB takes 3,072, and other columns need theirs.
const KEY_BYTES: usize = 2_900;

/// What a column is in the staging table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    /// A whole number of so many bits.
    Whole {
        bits: u8,
        signed: bool,
    },
    Float,
    Double,
    /// Digits, and how many of them after the point.
    Decimal(u16, u16),
    Text,
    /// Bytes; always so many, where that is known.
    Blob(Option<u32>),
    Date,
    Time,
    /// A time that may be negative and longer than a day.
    Interval,
    DateTime,
    Timestamp,
    Json,
}

impl Kind {
    /// The type of the staged column.
    pub(crate) fn staged_sql(&self, server: &Server) -> String {
        match self {
            // Neither is a text to be looked at before the target takes it, nor is a time to be moved between zones.
            Self::Json => Self::Text.sql(server),
            Self::Timestamp => Self::DateTime.sql(server),
            _ => self.sql(server),
        }
    }

    /// The type of a new column of the target.
    pub(crate) fn sql(&self, server: &Server) -> String {
        match self {
            Self::Bool => "tinyint(1)",
            Self::Whole { bits, signed } => return whole(*bits, *signed),
            Self::Float => "float",
            Self::Double => "double",
            Self::Decimal(precision, scale) => return format!("decimal({precision},{scale})"),
            Self::Text => return format!("longtext {}", server.exact_texts()),
            Self::Blob(_) => "longblob",
            Self::Date => "date",
            Self::Time | Self::Interval => "time(6)",
            Self::DateTime => "datetime(6)",
            Self::Timestamp => "timestamp(6)",
            Self::Json => "json",
        }
        .to_owned()
    }

    /// The type of a new column that is one of `columns` of a key.
    pub(crate) fn key_sql(&self, server: &Server, columns: usize) -> String {
        let share = KEY_BYTES / columns.max(1);
        match self {
            Self::Text => format!("varchar({}) {}", (share / 4).min(255), server.exact_texts()),
            Self::Blob(_) => format!("varbinary({})", share.min(767)),
            _ => self.sql(server),
        }
    }
}

/// The type of whole numbers.
pub(crate) fn whole(bits: u8, signed: bool) -> String {
    let name = match bits {
        8 => "tinyint",
        16 => "smallint",
        32 => "int",
        _ => "bigint",
    };
    format!("{name}{}", if signed { "" } else { " unsigned" })
}

/// A column on its way to the server.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) name: String,
    pub(crate) field: FieldRef,
    pub(crate) kind: Kind,
    /// The arrow type that the encoder takes.
    pub(crate) encoded: DataType,
}

impl Outgoing {
    /// # Errors
    /// A type that MySQL has nothing for.
    pub(crate) fn new(field: &FieldRef) -> Result<Self> {
        let (name, arrow) = (field.name(), field.data_type());
        let (kind, encoded) = outgoing(arrow).ok_or_else(|| {
            Error::new(ErrorKind::Schema, format!("the column `{name}` is {arrow}, for which MySQL has no type"))
                .hint(format!("cast it in the step's SQL, e.g. cast({name} as varchar)"))
        })?;
        if let Kind::Decimal(precision, scale) = kind
            && (precision > MOST_DIGITS || scale > MOST_SCALE)
        {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("the column `{name}` is {arrow}, and a decimal of MySQL has at most {MOST_DIGITS} digits"),
            )
            .hint(format!("cast it in the step's SQL, e.g. cast({name} as decimal(38, 10))")));
        }
        Ok(Self { name: name.clone(), field: field.clone(), kind, encoded })
    }

    /// Whether the values are texts of JSON that are made of something else.
    pub(crate) fn is_json(&self) -> bool {
        self.kind == Kind::Json
    }
}

/// A column's name in the staging table: by its place, so that no name can be in the way.
pub(crate) fn staged_name(place: usize) -> String {
    format!("`c{place}`")
}

/// How an arrow type is staged, and the arrow type that the encoder takes it as.
fn outgoing(arrow: &DataType) -> Option<(Kind, DataType)> {
    let micros = TimeUnit::Microsecond;
    let whole = |bits: u8, signed: bool| {
        (Kind::Whole { bits, signed }, if signed { DataType::Int64 } else { DataType::UInt64 })
    };
    let decimal = |precision: u8, scale: i8| match u16::try_from(scale) {
        Ok(scale) => Kind::Decimal(precision.into(), scale),
        // More digits before the point say the same.
        Err(_) => Kind::Decimal(u16::from(precision) + u16::from(scale.unsigned_abs()), 0),
    };
    Some(match arrow {
        DataType::Boolean => (Kind::Bool, DataType::Boolean),
        DataType::Int8 => whole(8, true),
        DataType::Int16 => whole(16, true),
        DataType::Int32 => whole(32, true),
        DataType::Int64 => whole(64, true),
        DataType::UInt8 => whole(8, false),
        DataType::UInt16 => whole(16, false),
        DataType::UInt32 => whole(32, false),
        DataType::UInt64 => whole(64, false),
        DataType::Float16 | DataType::Float32 => (Kind::Float, DataType::Float64),
        DataType::Float64 => (Kind::Double, DataType::Float64),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => {
            (decimal(*precision, *scale), DataType::Decimal128(*precision, *scale))
        }
        DataType::Decimal256(precision, scale) => (decimal(*precision, *scale), arrow.clone()),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (Kind::Text, arrow.clone()),
        DataType::Null => (Kind::Text, DataType::Utf8),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => (Kind::Blob(None), arrow.clone()),
        DataType::FixedSizeBinary(size) => (Kind::Blob(u32::try_from(*size).ok()), DataType::Binary),
        DataType::Date32 | DataType::Date64 => (Kind::Date, DataType::Date32),
        DataType::Time32(_) | DataType::Time64(_) => (Kind::Time, DataType::Time64(micros)),
        DataType::Timestamp(_, None) => (Kind::DateTime, DataType::Timestamp(micros, None)),
        DataType::Timestamp(_, zone) => (Kind::Timestamp, DataType::Timestamp(micros, zone.clone())),
        DataType::Duration(_) => (Kind::Interval, DataType::Duration(micros)),
        DataType::Dictionary(_, values) => outgoing(values)?,
        DataType::RunEndEncoded(_, values) => outgoing(values.data_type())?,
        DataType::Struct(_)
        | DataType::Map(..)
        | DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
            if can_be_json(arrow) =>
        {
            (Kind::Json, DataType::Utf8)
        }
        _ => return None,
    })
}
