//! Arrow values as SQLite keeps them; see the table in [`super`].

use crate::sources::sqlite::types::{declared, keeps_text};
use crate::sources::sqlite::values::{DAY, EXACT, exact_power, real_to_decimal};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Field, Float64Type, Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType,
};
use gristmill_model::{Error, ErrorKind, Result};
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use std::sync::Arc;

/// Microseconds in a second.
const MICROS: i64 = 1_000_000;
/// Days of the years 0 to 9999.
const DAYS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;

/// How a column is kept in a side file and in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shelf {
    /// The column.
    pub(super) name: String,
    /// The arrow type it is brought to: one of a handful.
    pub(super) kind: DataType,
    /// The type it was.
    given: DataType,
}

impl Shelf {
    pub(super) fn new(field: &Field) -> Result<Self> {
        let kind = shelf_kind(field.data_type()).ok_or_else(|| {
            let name = crate::types::type_name(field.data_type());
            Error::new(
                ErrorKind::Schema,
                format!("column `{}` of type `{name}` cannot be kept in SQLite", field.name()),
            )
            .hint(match field.data_type() {
                DataType::Decimal256(..) | DataType::Decimal128(..) => {
                    "cast it to a decimal of up to 38 digits, or to text"
                }
                _ => "take the values out of it, or cast it to text, in the step before",
            })
        })?;
        Ok(Self { name: field.name().clone(), kind, given: field.data_type().clone() })
    }

    /// The declared type of a new column; our source reads it back as [`Shelf::kind`].
    pub(super) fn declaration(&self) -> String {
        match &self.kind {
            DataType::Int64 | DataType::UInt64 => "INTEGER".to_owned(),
            DataType::Float64 => "REAL".to_owned(),
            DataType::Binary => "BLOB".to_owned(),
            DataType::Boolean => "BOOLEAN".to_owned(),
            DataType::Date32 => "DATE".to_owned(),
            DataType::Time64(_) => "TIME".to_owned(),
            DataType::Timestamp(_, None) => "TIMESTAMP".to_owned(),
            DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ".to_owned(),
            DataType::Decimal128(precision, scale) => format!("DECIMAL({precision},{scale})"),
            _ => "TEXT".to_owned(),
        }
    }

    /// Whether the values may go into a column that declares `existing`.
    pub(super) fn fits(&self, existing: &str) -> bool {
        let Some(there) = declared(existing) else { return true };
        match (&self.kind, &there) {
            (DataType::Int64 | DataType::UInt64, DataType::Int64 | DataType::Float64) => true,
            // 19 digits before the point hold every integer.
            (DataType::Int64 | DataType::UInt64, DataType::Decimal128(precision, scale)) => {
                i16::from(*precision) - i16::from(*scale) >= 19
            }
            (DataType::Decimal128(precision, scale), DataType::Decimal128(other, others)) => {
                scale <= others && i16::from(*precision) - i16::from(*scale) <= i16::from(*other) - i16::from(*others)
            }
            (DataType::Decimal128(_, scale), DataType::Int64) => *scale == 0,
            (DataType::Decimal128(..), DataType::Float64 | DataType::Utf8) => true,
            // ISO texts are what they would be kept as anyway.
            (DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(..), DataType::Utf8) => true,
            (DataType::Date32, DataType::Timestamp(_, None)) => true,
            (DataType::Null, _) => true,
            (kind, there) => kind == there,
        }
    }

    /// Brings an array to the shelf's type, and refuses what SQLite cannot keep as it is.
    pub(super) fn put(&self, array: &ArrayRef, into: Affinity) -> Result<ArrayRef> {
        if let DataType::Timestamp(TimeUnit::Nanosecond, _) = self.given {
            let between =
                array.as_primitive::<TimestampNanosecondType>().iter().flatten().find(|nanos| nanos % 1_000 != 0);
            if let Some(nanos) = between {
                return Err(self.refuse(format!("{nanos} ns lies between two microseconds")).hint(format!(
                    "SQLite keeps microseconds; write `date_trunc('microsecond', {})` in the step before",
                    self.name
                )));
            }
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let array = cast_with_options(array, &self.kind, &options)
            .map_err(|error| self.refuse("a value lies beyond what SQLite can keep").cause(error))?;
        let column = Kept::new(&array, into);
        if column.may_refuse() {
            for row in 0..array.len() {
                column.value(row).map_err(|why| self.explain(&why))?;
            }
        }
        Ok(array)
    }

    /// An array of the shelf's type, ready to be written.
    pub(super) fn kept(array: &ArrayRef, into: Affinity) -> Kept {
        Kept::new(array, into)
    }

    fn refuse(&self, why: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Data, format!("column `{}`: {why}", self.name))
    }

    pub(super) fn explain(&self, why: &Refused) -> Error {
        let Self { name, .. } = self;
        match why {
            Refused::NotANumber => self
                .refuse("SQLite cannot keep NaN (it would become NULL)")
                .hint(format!("write `nullif({name}, 'NaN'::double)` or filter such rows in the step before")),
            Refused::TooLarge(value) => self
                .refuse(format!("`{value}` is larger than SQLite's integers (2^63 - 1)"))
                .hint(format!("write `cast({name} as varchar)` in the step before")),
            Refused::Inexact(value) => {
                self.refuse(format!("`{value}` has more digits than a number of SQLite keeps exactly")).hint(format!(
                    "round it in the step before, `round({name}, 2)`, or keep it as text: `cast({name} as varchar)`"
                ))
            }
            Refused::Year(value) => self
                .refuse(format!("{value} lies outside of the years 0 to 9999"))
                .hint(format!("filter such rows, or write `cast({name} as bigint)` in the step before")),
        }
    }
}

/// The handful of types everything is brought to; `None` for what SQLite has no place for.
fn shelf_kind(given: &DataType) -> Option<DataType> {
    Some(match given {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => DataType::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::UInt64,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Boolean => DataType::Boolean,
        DataType::Date32 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(TimeUnit::Microsecond) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
            if *scale >= 0 && i16::from(*scale) <= i16::from(*precision) =>
        {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Dictionary(_, values) => shelf_kind(values)?,
        DataType::Null => DataType::Null,
        _ => return None,
    })
}

/// Why a value cannot be kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Refused {
    NotANumber,
    TooLarge(u64),
    Inexact(String),
    Year(String),
}

/// A column of a side file on its way into a table.
pub(super) enum Kept {
    Integer(Int64Array, Affinity),
    Unsigned(UInt64Array),
    Real(Float64Array),
    Text(StringArray),
    Binary(BinaryArray),
    Boolean(BooleanArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray, bool),
    Decimal { values: Decimal128Array, precision: u8, scale: i8, into: Affinity },
    Nothing,
}

impl Kept {
    fn new(array: &ArrayRef, into: Affinity) -> Self {
        match array.data_type() {
            DataType::Int64 => Self::Integer(array.as_primitive::<Int64Type>().clone(), into),
            DataType::UInt64 => Self::Unsigned(array.as_primitive().clone()),
            DataType::Float64 => Self::Real(array.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            DataType::Binary => Self::Binary(array.as_binary::<i32>().clone()),
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::Date32 => Self::Date(array.as_primitive().clone()),
            DataType::Time64(_) => Self::Time(array.as_primitive::<Time64MicrosecondType>().clone()),
            DataType::Timestamp(_, zone) => {
                Self::Timestamp(array.as_primitive::<TimestampMicrosecondType>().clone(), zone.is_some())
            }
            DataType::Decimal128(precision, scale) => {
                Self::Decimal { values: array.as_primitive().clone(), precision: *precision, scale: *scale, into }
            }
            _ => Self::Nothing,
        }
    }

    fn may_refuse(&self) -> bool {
        match self {
            Self::Unsigned(_) | Self::Real(_) | Self::Date(_) | Self::Timestamp(..) => true,
            Self::Integer(_, into) => *into == Affinity::Real,
            // 15 digits are always exact, as text any number is.
            Self::Decimal { precision, scale, into, .. } => *into != Affinity::Text && (*precision > 15 || *scale > 22),
            _ => false,
        }
    }

    /// The value of a row as SQLite gets it.
    pub(super) fn value(&self, row: usize) -> Result<Cell<'_>, Refused> {
        macro_rules! or_null {
            ($values:expr) => {
                if $values.is_null(row) {
                    return Ok(Cell(ToSqlOutput::Borrowed(ValueRef::Null)));
                }
            };
        }
        let borrowed = |value| Cell(ToSqlOutput::Borrowed(value));
        let text = |text: String| Cell(ToSqlOutput::Owned(Value::Text(text)));
        Ok(match self {
            Self::Integer(values, into) => {
                or_null!(values);
                let value = values.value(row);
                if *into == Affinity::Real && !is_exact(value) {
                    return Err(Refused::Inexact(value.to_string()));
                }
                borrowed(ValueRef::Integer(value))
            }
            Self::Unsigned(values) => {
                or_null!(values);
                let value = values.value(row);
                borrowed(ValueRef::Integer(i64::try_from(value).map_err(|_| Refused::TooLarge(value))?))
            }
            Self::Real(values) => {
                or_null!(values);
                let value = values.value(row);
                if value.is_nan() {
                    return Err(Refused::NotANumber);
                }
                borrowed(ValueRef::Real(value))
            }
            Self::Text(values) => {
                or_null!(values);
                borrowed(ValueRef::Text(values.value(row).as_bytes()))
            }
            Self::Binary(values) => {
                or_null!(values);
                borrowed(ValueRef::Blob(values.value(row)))
            }
            Self::Boolean(values) => {
                or_null!(values);
                borrowed(ValueRef::Integer(values.value(row).into()))
            }
            Self::Date(values) => {
                or_null!(values);
                let day = i64::from(values.value(row));
                text(date_text(day).ok_or_else(|| Refused::Year(format!("day {day} since 1970-01-01")))?)
            }
            Self::Time(values) => {
                or_null!(values);
                text(clock_text(values.value(row)))
            }
            Self::Timestamp(values, zoned) => {
                or_null!(values);
                let micros = values.value(row);
                let day = date_text(micros.div_euclid(DAY * MICROS))
                    .ok_or_else(|| Refused::Year(format!("{micros} microseconds since 1970-01-01")))?;
                let zone = if *zoned { "+00:00" } else { "" };
                text(format!("{day} {}{zone}", clock_text(micros.rem_euclid(DAY * MICROS))))
            }
            Self::Decimal { values, precision, scale, into } => {
                or_null!(values);
                if *into == Affinity::Text {
                    return Ok(text(values.value_as_string(row)));
                }
                let units = values.value(row);
                decimal(units, *precision, *scale)
                    .filter(|number| match number {
                        ValueRef::Integer(whole) => *into != Affinity::Real || is_exact(*whole),
                        _ => true,
                    })
                    .map(borrowed)
                    .ok_or_else(|| Refused::Inexact(values.value_as_string(row)))?
            }
            Self::Nothing => borrowed(ValueRef::Null),
        })
    }
}

/// A value on its way into a statement.
pub(super) struct Cell<'a>(ToSqlOutput<'a>);

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match &self.0 {
            ToSqlOutput::Owned(Value::Text(text)) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            other => other.clone(),
        })
    }
}

/// `YYYY-MM-DD`; `None` outside of the years that SQLite knows.
fn date_text(day: i64) -> Option<String> {
    if !DAYS.contains(&day) {
        return None;
    }
    let date = chrono::NaiveDate::from_num_days_from_ce_opt(i32::try_from(day + 719_163).ok()?)?;
    Some(date.format("%Y-%m-%d").to_string())
}

/// `HH:MM:SS`, with six more digits where they are not zero, so that texts sort as times do.
fn clock_text(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(MICROS), micros.rem_euclid(MICROS));
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 {
        format!("{hour:02}:{minute:02}:{second:02}")
    } else {
        format!("{hour:02}:{minute:02}:{second:02}.{fraction:06}")
    }
}

/// A number that our source reads back as exactly this decimal; `None` where there is none.
fn decimal(units: i128, precision: u8, scale: i8) -> Option<ValueRef<'static>> {
    if let (Some(power), true) = (exact_power(scale), units.abs() < EXACT) {
        #[expect(clippy::cast_precision_loss, reason = "15 digits are exact")]
        return Some(ValueRef::Real(units as f64 / power));
    }
    // Whole numbers are kept as integers, all 64 bits of them.
    let one = 10_i128.checked_pow(u32::try_from(scale).ok()?)?;
    if units % one == 0
        && let Ok(whole) = i64::try_from(units / one)
    {
        return Some(ValueRef::Integer(whole));
    }
    let real: f64 = Decimal128Array::from_value(units, 1)
        .with_precision_and_scale(precision, scale)
        .ok()?
        .value_as_string(0)
        .parse()
        .ok()?;
    (real_to_decimal(real, precision, scale) == Some(units)).then_some(ValueRef::Real(real))
}

/// Whether a real can hold the number.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "looked at in i128")]
fn is_exact(number: i64) -> bool {
    (number as f64) as i128 == i128::from(number)
}

/// What a column of SQLite makes of numbers (https://sqlite.org/datatype3.html, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    /// They become texts.
    Text,
    /// They become reals.
    Real,
    /// They stay what they are.
    Free,
}

impl Affinity {
    pub(super) fn of(existing: &str) -> Self {
        let name = existing.to_ascii_uppercase();
        if keeps_text(existing) {
            Self::Text
        } else if !name.contains("INT")
            && !name.contains("BLOB")
            && ["REAL", "FLOA", "DOUB"].iter().any(|part| name.contains(part))
        {
            Self::Real
        } else {
            Self::Free
        }
    }
}
