//! The bytes of a value in the binary protocol as what they are.

use super::types::Form;
use super::wire::row::Raw;
use crate::cells::Cell;
use crate::columns::Refusal;
use crate::declared::Cells;

impl Cells for (Raw, Form) {
    fn with<T>(&self, bytes: &[u8], rule: impl FnOnce(&Cell<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let (raw, form) = *self;
        rule(&cell_of(raw, form, bytes)?)
    }

    fn digits(&self) -> u8 {
        if let Form::Time(digits) = self.1 { digits } else { 6 }
    }
}

/// # Errors
/// Bytes that are no such value.
fn cell_of(raw: Raw, form: Form, bytes: &[u8]) -> Result<Cell<'_>, Refusal> {
    Ok(match raw {
        Raw::Int8 => Cell::Int(i8::from_le_bytes(fixed(bytes)?).into()),
        Raw::UInt8 => Cell::UInt(u8::from_le_bytes(fixed(bytes)?).into()),
        Raw::Int16 => Cell::Int(i16::from_le_bytes(fixed(bytes)?).into()),
        Raw::UInt16 => Cell::UInt(u16::from_le_bytes(fixed(bytes)?).into()),
        Raw::Int32 => Cell::Int(i32::from_le_bytes(fixed(bytes)?).into()),
        Raw::UInt32 => Cell::UInt(u32::from_le_bytes(fixed(bytes)?).into()),
        Raw::Int64 => Cell::Int(i64::from_le_bytes(fixed(bytes)?)),
        Raw::UInt64 => Cell::UInt(u64::from_le_bytes(fixed(bytes)?)),
        Raw::Float => Cell::Float(f32::from_le_bytes(fixed(bytes)?)),
        Raw::Double => Cell::Double(f64::from_le_bytes(fixed(bytes)?)),
        Raw::Date => {
            let [y, z, month, day, hour, minute, second, micros @ ..] = zeros_after::<11>(bytes, &[0, 4, 7, 11])?;
            Cell::Date(u16::from_le_bytes([y, z]), month, day, hour, minute, second, u32::from_le_bytes(micros))
        }
        Raw::Time => {
            let [sign, a, b, c, d, hours, minutes, seconds, micros @ ..] = zeros_after::<12>(bytes, &[0, 8, 12])?;
            let days = u32::from_le_bytes([a, b, c, d]);
            Cell::Time(sign == 1, days, hours, minutes, seconds, u32::from_le_bytes(micros))
        }
        Raw::Bytes if form == Form::Bits => Cell::UInt(bits(bytes)),
        Raw::Bytes | Raw::Null => Cell::Bytes(bytes),
    })
}

pub(super) fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Refusal> {
    bytes.try_into().map_err(|_| misshapen(bytes))
}

#[cold]
fn misshapen(bytes: &[u8]) -> Refusal {
    format!("a value of {} bytes, which its type never has", bytes.len())
}

/// The parts of a date or a time, whose zeros at the end do not come.
fn zeros_after<const N: usize>(bytes: &[u8], lengths: &[usize]) -> Result<[u8; N], Refusal> {
    let mut parts = [0; N];
    match parts.get_mut(..bytes.len()) {
        Some(begin) if lengths.contains(&bytes.len()) => begin.copy_from_slice(bytes),
        _ => return Err(misshapen(bytes)),
    }
    Ok(parts)
}

/// A bit field as the number it is; they have 64 bits at most.
fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}
