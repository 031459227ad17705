//! Columns of a type that the user or the source declares, whatever the values come as: each value is held to the type by
//! the rules of [`crate::cells`], the same for every database.

use crate::cells::{
    Cell, clock, day, decimal128, decimal256, flag, integer, misfit, moment, real, show, single, undecimal, write_text,
};
use crate::columns::{Fixed, Long, Place, Refusal};
use arrow::array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{ArrayRef, BooleanBuilder};
use arrow::datatypes::{DataType, TimeUnit};
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;

/// What the bytes of a column's values are.
pub(crate) trait Cells {
    /// Applies a rule to a value.
    ///
    /// # Errors
    /// Bytes that are no such value; what the rule refuses.
    fn with<T>(&self, bytes: &[u8], rule: impl FnOnce(&Cell<'_>) -> Result<T, Refusal>) -> Result<T, Refusal>;

    /// How many digits of a second's fraction a time is written with.
    fn digits(&self) -> u8 {
        6
    }
}

/// The values of one column, by what they become.
#[derive(Debug)]
pub(crate) enum Values {
    Bool(BooleanBuilder),
    Int8(Fixed<Int8Type>),
    Int16(Fixed<Int16Type>),
    Int32(Fixed<Int32Type>),
    Int64(Fixed<Int64Type>),
    UInt8(Fixed<UInt8Type>),
    UInt16(Fixed<UInt16Type>),
    UInt32(Fixed<UInt32Type>),
    UInt64(Fixed<UInt64Type>),
    Float32(Fixed<Float32Type>),
    Float64(Fixed<Float64Type>),
    Decimal128(Fixed<Decimal128Type>, u8, i8),
    Decimal256(Fixed<Decimal256Type>, u8, i8),
    Text(Long, String),
    Binary(Long),
    Date(Fixed<Date32Type>),
    Time(Fixed<Time64MicrosecondType>),
    Seconds(Fixed<TimestampSecondType>),
    Millis(Fixed<TimestampMillisecondType>),
    Micros(Fixed<TimestampMicrosecondType>),
    Nanos(Fixed<TimestampNanosecondType>),
}

/// The type that `schema:` gives a column of a database.
///
/// # Errors
/// A word that is no type, or a type that nothing here becomes.
pub(crate) fn wanted_type(column: &str, word: &str, database: &str) -> Result<DataType> {
    let kind = crate::types::parse_type(word).map_err(|error| error.context(format!("schema of `{column}`")))?;
    if Values::new(&kind).is_some() {
        return Ok(kind);
    }
    Err(Error::new(ErrorKind::Config, format!("column `{column}` cannot be read as `{word}` from {database}"))
        .hint("read it as `text`, and cast it in SQL"))
}

impl Values {
    /// None where nothing becomes of it.
    pub(crate) fn new(kind: &DataType) -> Option<Self> {
        let of = kind.clone();
        Some(match kind {
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Int8 => Self::Int8(Fixed::new(of)),
            DataType::Int16 => Self::Int16(Fixed::new(of)),
            DataType::Int32 => Self::Int32(Fixed::new(of)),
            DataType::Int64 => Self::Int64(Fixed::new(of)),
            DataType::UInt8 => Self::UInt8(Fixed::new(of)),
            DataType::UInt16 => Self::UInt16(Fixed::new(of)),
            DataType::UInt32 => Self::UInt32(Fixed::new(of)),
            DataType::UInt64 => Self::UInt64(Fixed::new(of)),
            DataType::Float32 => Self::Float32(Fixed::new(of)),
            DataType::Float64 => Self::Float64(Fixed::new(of)),
            DataType::Decimal128(precision, scale) if *scale >= 0 => {
                Self::Decimal128(Fixed::new(of), *precision, *scale)
            }
            DataType::Decimal256(precision, scale) if *scale >= 0 => {
                Self::Decimal256(Fixed::new(of), *precision, *scale)
            }
            DataType::Utf8 => Self::Text(Long::default(), String::new()),
            DataType::Binary => Self::Binary(Long::default()),
            DataType::Date32 => Self::Date(Fixed::new(of)),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(Fixed::new(of)),
            DataType::Timestamp(unit, _) => match unit {
                TimeUnit::Second => Self::Seconds(Fixed::new(of)),
                TimeUnit::Millisecond => Self::Millis(Fixed::new(of)),
                TimeUnit::Microsecond => Self::Micros(Fixed::new(of)),
                TimeUnit::Nanosecond => Self::Nanos(Fixed::new(of)),
            },
            _ => return None,
        })
    }

    /// Takes the values of some rows. A value that cannot be had becomes NULL, and `refuse` is told of it: which of these
    /// rows, and why.
    pub(crate) fn extend(
        &mut self,
        cells: &impl Cells,
        bytes: &[u8],
        places: &[Place],
        refuse: &mut dyn FnMut(usize, Refusal),
    ) {
        /// Values by a rule that takes a cell.
        macro_rules! by {
            ($values:expr, $rule:expr) => {
                $values.extend(bytes, places, refuse, |it| cells.with(it, $rule))
            };
        }
        /// Whole numbers within the range of their type.
        macro_rules! whole {
            ($values:expr, $number:ty, $kind:literal) => {
                by!($values, |cell| {
                    let number = integer(cell).and_then(|number| <$number>::try_from(number).ok());
                    number.ok_or_else(|| misfit(cell, $kind))
                })
            };
        }
        match self {
            Self::Bool(values) => flags(values, cells, bytes, places, refuse),
            Self::Int8(values) => whole!(values, i8, "tinyint"),
            Self::Int16(values) => whole!(values, i16, "smallint"),
            Self::Int32(values) => whole!(values, i32, "int"),
            Self::Int64(values) => whole!(values, i64, "bigint"),
            Self::UInt8(values) => whole!(values, u8, "utinyint"),
            Self::UInt16(values) => whole!(values, u16, "usmallint"),
            Self::UInt32(values) => whole!(values, u32, "uint"),
            Self::UInt64(values) => whole!(values, u64, "ubigint"),
            Self::Float32(values) => by!(values, |cell| single(cell).ok_or_else(|| misfit(cell, "real"))),
            Self::Float64(values) => by!(values, |cell| real(cell).ok_or_else(|| misfit(cell, "double"))),
            Self::Decimal128(values, precision, scale) => by!(values, |cell| {
                decimal128(cell, *precision, *scale).ok_or_else(|| undecimal(cell, *precision, *scale))
            }),
            Self::Decimal256(values, precision, scale) => by!(values, |cell| {
                decimal256(cell, *precision, *scale).ok_or_else(|| undecimal(cell, *precision, *scale))
            }),
            Self::Text(values, text) => values.extend(bytes, places, refuse, |it, into| {
                text.clear();
                cells.with(it, |cell| write_text(text, cell, cells.digits()))?;
                into.extend_from_slice(text.as_bytes());
                Ok(())
            }),
            Self::Binary(values) => values.extend(bytes, places, refuse, |it, into| {
                cells.with(it, |cell| match cell {
                    Cell::Bytes(bytes) => {
                        into.extend_from_slice(bytes);
                        Ok(())
                    }
                    other => Err(misfit(other, "binary")),
                })
            }),
            Self::Date(values) => by!(values, day),
            Self::Time(values) => by!(values, clock),
            Self::Seconds(values) => by!(values, |cell| moment(cell, 1)),
            Self::Millis(values) => by!(values, |cell| moment(cell, 1_000)),
            Self::Micros(values) => by!(values, |cell| moment(cell, 1_000_000)),
            Self::Nanos(values) => by!(values, |cell| moment(cell, 1_000_000_000)),
        }
    }

    /// Takes the column out; so many rows it has.
    ///
    /// # Errors
    /// Only a bug here.
    pub(crate) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        match self {
            Self::Bool(values) => Ok(Arc::new(values.finish())),
            Self::Int8(values) => values.finish(rows),
            Self::Int16(values) => values.finish(rows),
            Self::Int32(values) => values.finish(rows),
            Self::Int64(values) => values.finish(rows),
            Self::UInt8(values) => values.finish(rows),
            Self::UInt16(values) => values.finish(rows),
            Self::UInt32(values) => values.finish(rows),
            Self::UInt64(values) => values.finish(rows),
            Self::Float32(values) => values.finish(rows),
            Self::Float64(values) => values.finish(rows),
            Self::Decimal128(values, ..) => values.finish(rows),
            Self::Decimal256(values, ..) => values.finish(rows),
            Self::Text(values, _) => values.finish_texts(rows),
            Self::Binary(values) => values.finish_bytes(rows),
            Self::Date(values) => values.finish(rows),
            Self::Time(values) => values.finish(rows),
            Self::Seconds(values) => values.finish(rows),
            Self::Millis(values) => values.finish(rows),
            Self::Micros(values) => values.finish(rows),
            Self::Nanos(values) => values.finish(rows),
        }
    }
}

fn flags(
    values: &mut BooleanBuilder,
    cells: &impl Cells,
    bytes: &[u8],
    places: &[Place],
    refuse: &mut dyn FnMut(usize, Refusal),
) {
    let rule = |cell: &Cell<'_>| {
        flag(cell).ok_or_else(|| match integer(cell) {
            Some(_) => format!("{} is neither 0 nor 1 (read it as `tinyint`)", show(cell)),
            None => misfit(cell, "boolean"),
        })
    };
    for (row, place) in places.iter().enumerate() {
        match place.of(bytes).map(|it| cells.with(it, rule)) {
            None => values.append_null(),
            Some(Ok(flag)) => values.append_value(flag),
            Some(Err(refusal)) => {
                values.append_null();
                refuse(row, refusal);
            }
        }
    }
}
