//! One column's values, straight into arrow's buffers: many rows of one column at a time. What usually comes for a type has
//! a way of its own; everything else goes by the rules for values of any type.

use super::cells::fixed;
use super::types::Form;
use super::wire::row::Raw;
use crate::cells::{Cell, day, day_number, decimal128, quick_decimal, undecimal};
use crate::columns::{Place, Refusal, whole};
use crate::declared::{Cells, Values};

/// Takes the values of some rows, which come as `how` says. A value that cannot be had becomes NULL, and `refuse` is told
/// of it: which of these rows, and why.
pub(super) fn extend(
    values: &mut Values,
    how: (Raw, Form),
    bytes: &[u8],
    places: &[Place],
    refuse: &mut dyn FnMut(usize, Refusal),
) {
    /// Whole numbers that come as such.
    macro_rules! plain {
        ($values:expr, $number:ty) => {
            $values.extend(bytes, places, refuse, |it| Ok(<$number>::from_le_bytes(fixed(it)?)))
        };
    }
    let (raw, form) = how;
    let is_text = raw == Raw::Bytes && form != Form::Bits;
    match (values, raw) {
        (Values::Int8(values), Raw::Int8) => plain!(values, i8),
        (Values::Int16(values), Raw::Int16) => plain!(values, i16),
        (Values::Int32(values), Raw::Int32) => plain!(values, i32),
        (Values::Int64(values), Raw::Int64) => plain!(values, i64),
        (Values::UInt8(values), Raw::UInt8) => plain!(values, u8),
        (Values::UInt16(values), Raw::UInt16) => plain!(values, u16),
        (Values::UInt32(values), Raw::UInt32) => plain!(values, u32),
        (Values::UInt64(values), Raw::UInt64) => plain!(values, u64),
        (Values::Decimal128(values, precision, scale), _) if is_text => {
            let (precision, scale) = (*precision, *scale);
            values.extend(bytes, places, refuse, |it| match quick_decimal(it, precision, scale) {
                Some(units) => Ok(units),
                None => decimal128(&Cell::Bytes(it), precision, scale)
                    .ok_or_else(|| undecimal(&Cell::Bytes(it), precision, scale)),
            });
        }
        (Values::Text(values, _), _) if is_text => values.extend_texts(bytes, places, refuse, whole),
        (Values::Date(values), Raw::Date) => values.extend(bytes, places, refuse, |it| {
            // The time is midnight, and does not come.
            let quick = match it {
                [a, b, month, day] => day_number(u16::from_le_bytes([*a, *b]), *month, *day),
                _ => None,
            };
            match quick {
                Some(day) => Ok(day),
                None => how.with(it, day),
            }
        }),
        (values, _) => values.extend(&how, bytes, places, refuse),
    }
}
