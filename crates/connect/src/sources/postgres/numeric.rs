//! Numerics of the binary format as decimals, exactly, or as the server's own text.

use super::columns::misshapen;
use crate::columns::Refusal;
use arrow::datatypes::i256;

/// Powers of ten, from 10⁰ to 10³⁸.
const POWERS: [i128; 39] = {
    let mut powers = [1; 39];
    let mut index = 1;
    while index < powers.len() {
        powers[index] = powers[index - 1] * 10;
        index += 1;
    }
    powers
};

/// A numeric as the server sends it: sign, digits of base 10,000, the power of the first, digits shown after the point
/// (numeric_send).
#[derive(Debug, Clone, Copy)]
pub(super) struct Numeric<'a> {
    digits: &'a [u8],
    weight: i32,
    negative: bool,
    shown: u16,
    special: Option<&'static str>,
}

impl<'a> Numeric<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let Some((head, digits)) = bytes.split_first_chunk::<8>() else { return Err(misshapen("numeric", bytes)) };
        let [a, b, c, d, e, f, g, h] = *head;
        let count = u16::from_be_bytes([a, b]);
        let special = match u16::from_be_bytes([e, f]) {
            0x0000 | 0x4000 => None,
            0xc000 => Some("NaN"),
            0xd000 => Some("Infinity"),
            0xf000 => Some("-Infinity"),
            _ => return Err("a numeric of unknown sign".to_owned()),
        };
        if digits.len() != usize::from(count) * 2 {
            return Err(misshapen("numeric", bytes));
        }
        Ok(Self {
            digits,
            weight: i32::from(i16::from_be_bytes([c, d])),
            negative: e == 0x40,
            shown: u16::from_be_bytes([g, h]),
            special,
        })
    }

    fn groups(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.digits.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
    }

    /// The digits as a whole number of units of the scale. `times` multiplies by a power of ten, `plus` adds.
    fn scaled<T: Copy>(
        &self,
        scale: i8,
        zero: T,
        times: impl Fn(T, u32) -> Option<T>,
        plus: impl Fn(T, u32) -> Option<T>,
    ) -> Result<T, Refusal> {
        if let Some(special) = self.special {
            return Err(format!("{special} is not a decimal"));
        }
        let large = || format!("`{}` has too many digits for the decimal", self.shown_text());
        let mut total = zero;
        // The power of ten of the last digit taken, in units of the scale.
        let mut power = 0i32;
        for (index, group) in self.groups().enumerate() {
            power = 4 * (self.weight - index as i32) + i32::from(scale);
            if power >= 0 {
                total = times(total, 4).and_then(|total| plus(total, group)).ok_or_else(large)?;
                continue;
            }
            // This group lies across the end of the scale, or beyond it.
            let beyond = power.unsigned_abs();
            let (kept, lost) = match 10u32.checked_pow(beyond) {
                Some(unit) if beyond < 4 => (group / unit, group % unit),
                _ => (0, group),
            };
            if lost != 0 {
                return Err(format!("`{}` has more than {scale} digits after the point", self.shown_text()));
            }
            if beyond < 4 {
                total = times(total, 4 - beyond).and_then(|total| plus(total, kept)).ok_or_else(large)?;
            }
            power = 0;
        }
        if power > 0 && !self.digits.is_empty() {
            total = times(total, power.unsigned_abs()).ok_or_else(large)?;
        }
        Ok(total)
    }

    /// The usual case of [`Numeric::to_i128`], without a loop over powers: up to 32 digits sent, none of them lost. None
    /// where the long way has to look.
    fn to_i128_quickly(self, precision: u8, scale: i8) -> Option<i128> {
        if self.special.is_some() || self.digits.len() > 16 {
            return None;
        }
        let (head, tail) = self.digits.split_at(self.digits.len().min(8));
        // Four groups of four digits fit 64 bits, which are much faster to multiply and divide.
        let fold = |digits: &[u8]| {
            digits
                .chunks_exact(2)
                .fold(0u64, |total, pair| total * 10_000 + (u64::from(pair[0]) << 8 | u64::from(pair[1])))
        };
        let small = fold(head);
        let groups = i32::try_from(self.digits.len() / 2).ok()?;
        let power = 4 * (self.weight - groups + 1) + i32::from(scale);
        if tail.is_empty() && (-4..0).contains(&power) {
            let unit = 10u64.pow(power.unsigned_abs());
            return if small % unit == 0 { self.signed(i128::from(small / unit), precision) } else { None };
        }
        let mut total = i128::from(small);
        if !tail.is_empty() {
            total = total * *POWERS.get(tail.len() * 2)? + i128::from(fold(tail));
        }
        if total == 0 {
            return Some(0);
        }
        let total = match usize::try_from(power) {
            Ok(power) => total.checked_mul(*POWERS.get(power)?)?,
            Err(_) => {
                let unit = *POWERS.get(usize::try_from(power.unsigned_abs()).ok()?)?;
                if total % unit != 0 {
                    return None;
                }
                total / unit
            }
        };
        self.signed(total, precision)
    }

    /// The total with its sign, if it has no more digits than the precision.
    fn signed(&self, total: i128, precision: u8) -> Option<i128> {
        // Precisions end at 38, and so do the powers.
        if total >= *POWERS.get(usize::from(precision))? {
            return None;
        }
        Some(if self.negative { -total } else { total })
    }

    pub(super) fn to_i128(self, precision: u8, scale: i8) -> Result<i128, Refusal> {
        if let Some(value) = self.to_i128_quickly(precision, scale) {
            return Ok(value);
        }
        let total = self.scaled(
            scale,
            0i128,
            |total, power| total.checked_mul(10i128.checked_pow(power)?),
            |total, group| total.checked_add(i128::from(group)),
        )?;
        match 10i128.checked_pow(u32::from(precision)) {
            Some(limit) if total < limit => Ok(if self.negative { -total } else { total }),
            _ => Err(format!("`{}` does not fit decimal({precision},{scale})", self.shown_text())),
        }
    }

    pub(super) fn to_i256(self, precision: u8, scale: i8) -> Result<i256, Refusal> {
        let ten = i256::from_i128(10);
        let total = self.scaled(
            scale,
            i256::ZERO,
            |total, power| if total == i256::ZERO { Some(total) } else { total.checked_mul(ten.checked_pow(power)?) },
            |total, group| total.checked_add(i256::from_i128(i128::from(group))),
        )?;
        match ten.checked_pow(u32::from(precision)) {
            Some(limit) if total < limit => Ok(if self.negative { total.wrapping_neg() } else { total }),
            _ => Err(format!("`{}` does not fit decimal({precision},{scale})", self.shown_text())),
        }
    }

    fn shown_text(&self) -> String {
        let mut text = String::new();
        // A value in an error is for people; a hundred letters of it are enough.
        let _ = self.write(&mut text);
        if text.len() > 100 {
            text.truncate(100);
            text.push('…');
        }
        text
    }

    /// The number as the server's own text of it (numeric_out): as many digits after the point as are shown.
    pub(super) fn write(&self, out: &mut String) -> Result<(), Refusal> {
        use std::fmt::Write as _;
        let failed = |_| "a numeric that cannot be written".to_owned();
        if let Some(special) = self.special {
            out.push_str(special);
            return Ok(());
        }
        if self.negative {
            out.push('-');
        }
        let group = |index: i32| {
            let from = usize::try_from(index).ok().map(|index| index * 2);
            let pair = from.and_then(|from| self.digits.get(from..from + 2));
            pair.map_or(0, |pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        };
        if self.weight < 0 {
            out.push('0');
        }
        for index in 0..=self.weight {
            if index == 0 { write!(out, "{}", group(0)) } else { write!(out, "{:04}", group(index)) }
                .map_err(failed)?;
        }
        if self.shown > 0 {
            out.push('.');
            let end = out.len() + usize::from(self.shown);
            let mut index = self.weight + 1;
            while out.len() < end {
                write!(out, "{:04}", group(index)).map_err(failed)?;
                index += 1;
            }
            out.truncate(end);
        }
        Ok(())
    }
}
