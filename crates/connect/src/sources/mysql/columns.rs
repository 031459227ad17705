//! One column's values, straight into arrow's buffers: many rows of one column at a time. What usually comes for a type has
//! a way of its own; everything else goes by the rules of [`Cell`].

use super::cells::{
    Cell, clock, day, day_number, decimal128, decimal256, fixed, integer, misfit, moment, quick_decimal, real, show,
    undecimal, write_text,
};
use super::types::Form;
use super::wire::row::Raw;
use crate::columns::{Fixed, Long, Place, Refusal, whole};
use arrow::array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{ArrayRef, BooleanBuilder};
use arrow::datatypes::{DataType, TimeUnit};
use gristmill_model::Result;
use std::sync::Arc;

/// The values of one column, by what they become.
#[derive(Debug)]
pub(super) enum Values {
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

impl Values {
    /// None where nothing becomes of it.
    pub(super) fn new(kind: &DataType) -> Option<Self> {
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
    pub(super) fn extend(
        &mut self,
        (raw, form): (Raw, Form),
        bytes: &[u8],
        places: &[Place],
        refuse: &mut dyn FnMut(usize, Refusal),
    ) {
        /// Values by a rule that takes a cell.
        macro_rules! by {
            ($values:expr, $rule:expr) => {
                $values.extend(bytes, places, refuse, |it| $rule(Cell::of(raw, form, it)?))
            };
        }
        /// Whole numbers within the range of their type, which come as such for the most part.
        macro_rules! whole {
            ($values:expr, $number:ty, $usual:path, $kind:literal) => {
                if raw == $usual {
                    $values.extend(bytes, places, refuse, |it| Ok(<$number>::from_le_bytes(fixed(it)?)))
                } else {
                    by!($values, |cell| {
                        let number = integer(&cell).and_then(|number| <$number>::try_from(number).ok());
                        number.ok_or_else(|| misfit(&cell, $kind))
                    })
                }
            };
        }
        let is_text = raw == Raw::Bytes && form != Form::Bits;
        match self {
            Self::Bool(values) => flags(values, (raw, form), bytes, places, refuse),
            Self::Int8(values) => whole!(values, i8, Raw::Int8, "tinyint"),
            Self::Int16(values) => whole!(values, i16, Raw::Int16, "smallint"),
            Self::Int32(values) => whole!(values, i32, Raw::Int32, "int"),
            Self::Int64(values) => whole!(values, i64, Raw::Int64, "bigint"),
            Self::UInt8(values) => whole!(values, u8, Raw::UInt8, "utinyint"),
            Self::UInt16(values) => whole!(values, u16, Raw::UInt16, "usmallint"),
            Self::UInt32(values) => whole!(values, u32, Raw::UInt32, "uint"),
            Self::UInt64(values) => whole!(values, u64, Raw::UInt64, "ubigint"),
            Self::Float32(values) => by!(values, single),
            Self::Float64(values) => by!(values, |cell| real(&cell).ok_or_else(|| misfit(&cell, "double"))),
            Self::Decimal128(values, precision, scale) => {
                let (precision, scale) = (*precision, *scale);
                let slow = |cell: Cell<'_>| {
                    decimal128(&cell, precision, scale).ok_or_else(|| undecimal(&cell, precision, scale))
                };
                if is_text {
                    values.extend(bytes, places, refuse, |it| match quick_decimal(it, precision, scale) {
                        Some(units) => Ok(units),
                        None => slow(Cell::Bytes(it)),
                    });
                } else {
                    by!(values, slow);
                }
            }
            Self::Decimal256(values, precision, scale) => by!(values, |cell| {
                decimal256(&cell, *precision, *scale).ok_or_else(|| undecimal(&cell, *precision, *scale))
            }),
            Self::Text(values, _) if is_text => values.extend_texts(bytes, places, refuse, whole),
            Self::Text(values, text) => values.extend(bytes, places, refuse, |it, into| {
                text.clear();
                write_text(text, &Cell::of(raw, form, it)?, form)?;
                into.extend_from_slice(text.as_bytes());
                Ok(())
            }),
            Self::Binary(values) => values.extend(bytes, places, refuse, |it, into| match Cell::of(raw, form, it)? {
                Cell::Bytes(bytes) => {
                    into.extend_from_slice(bytes);
                    Ok(())
                }
                other => Err(misfit(&other, "binary")),
            }),
            Self::Date(values) if raw == Raw::Date => values.extend(bytes, places, refuse, |it| {
                // The time is midnight, and does not come.
                let quick = match it {
                    [a, b, month, day] => day_number(u16::from_le_bytes([*a, *b]), *month, *day),
                    _ => None,
                };
                match quick {
                    Some(day) => Ok(day),
                    None => day(&Cell::of(raw, form, it)?),
                }
            }),
            Self::Date(values) => by!(values, |cell| day(&cell)),
            Self::Time(values) => by!(values, |cell| clock(&cell)),
            Self::Seconds(values) => by!(values, |cell| moment(&cell, 1)),
            Self::Millis(values) => by!(values, |cell| moment(&cell, 1_000)),
            Self::Micros(values) => by!(values, |cell| moment(&cell, 1_000_000)),
            Self::Nanos(values) => by!(values, |cell| moment(&cell, 1_000_000_000)),
        }
    }

    /// Takes the column out; so many rows it has.
    ///
    /// # Errors
    /// Only a bug here.
    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
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
    (raw, form): (Raw, Form),
    bytes: &[u8],
    places: &[Place],
    refuse: &mut dyn FnMut(usize, Refusal),
) {
    for (row, place) in places.iter().enumerate() {
        let flag = place.of(bytes).map(|it| {
            let cell = Cell::of(raw, form, it)?;
            match integer(&cell) {
                Some(0) => Ok(false),
                Some(1) => Ok(true),
                _ => Err(format!("{} is neither 0 nor 1 (read it as `tinyint`)", show(&cell))),
            }
        });
        match flag {
            None => values.append_null(),
            Some(Ok(flag)) => values.append_value(flag),
            Some(Err(refusal)) => {
                values.append_null();
                refuse(row, refusal);
            }
        }
    }
}

fn single(cell: Cell<'_>) -> Result<f32, Refusal> {
    if let Cell::Float(number) = cell {
        return Ok(number);
    }
    let number = real(&cell).ok_or_else(|| misfit(&cell, "real"))?;
    if number.is_finite() && number.abs() > f64::from(f32::MAX) {
        return Err(misfit(&cell, "real"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounded to 32 bits, as was asked for")]
    Ok(number as f32)
}
