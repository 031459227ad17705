//! A value of a database's row as what it is, and what becomes of it in a column of another type: the rules, one value at a
//! time. Nothing is rounded but to a float of fewer bits; what does not fit is refused.

use crate::columns::Refusal;
use crate::sources::sqlite::values::{DAY, Moment, parse_day, parse_time, text_to_decimal};
use arrow::datatypes::i256;
use chrono::{DateTime, NaiveDate};
use std::fmt::Write as _;

/// Microseconds in a day.
const DAY_MICROS: i64 = DAY * 1_000_000;

/// A value that is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'a> {
    Bool(bool),
    Bytes(&'a [u8]),
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    /// Days since 1970-01-01.
    Day(i32),
    /// Microseconds since 1970-01-01 00:00, in UTC where there is a zone.
    Micros(i64),
    /// Year, month, day, hour, minute, second, microsecond.
    Date(u16, u8, u8, u8, u8, u8, u32),
    /// Whether it is negative; days, hours, minutes, seconds, microseconds.
    Time(bool, u32, u8, u8, u8, u32),
}

#[cold]
pub(crate) fn misfit(value: &Cell<'_>, kind: &str) -> Refusal {
    format!("{} is not of type `{kind}`", show(value))
}

#[cold]
pub(crate) fn undecimal(value: &Cell<'_>, precision: u8, scale: i8) -> Refusal {
    format!("{} does not fit decimal({precision},{scale})", show(value))
}

/// A value for people, at most a hundred letters of it.
pub(crate) fn show(value: &Cell<'_>) -> String {
    let mut shown = String::new();
    match value {
        Cell::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => shown.push_str(text),
            Err(_) => return format!("a value of {} bytes", bytes.len()),
        },
        other => {
            // Each of the others can be written.
            let _ = write_text(&mut shown, other, 6);
        }
    }
    match shown.char_indices().nth(100) {
        Some((end, _)) => format!("`{}…`", &shown[..end]),
        None => format!("`{shown}`"),
    }
}

/// A whole number; none where it is no number, or has a fraction.
pub(crate) fn integer(value: &Cell<'_>) -> Option<i128> {
    match value {
        Cell::Bool(flag) => Some(i128::from(*flag)),
        Cell::Int(number) => Some(i128::from(*number)),
        Cell::UInt(number) => Some(i128::from(*number)),
        Cell::Bytes(text) => text_to_decimal(text, 38, 0),
        Cell::Float(number) => whole(f64::from(*number)),
        Cell::Double(number) => whole(*number),
        _ => None,
    }
}

fn whole(number: f64) -> Option<i128> {
    #[expect(clippy::cast_possible_truncation, reason = "whole, and far within i128")]
    (number.fract() == 0.0 && number.abs() < 1e30).then_some(number as i128)
}

pub(crate) fn real(value: &Cell<'_>) -> Option<f64> {
    match value {
        Cell::Double(number) => Some(*number),
        // By its shortest text, so that 0.1 stays 0.1.
        Cell::Float(number) => number.to_string().parse().ok(),
        #[expect(clippy::cast_precision_loss, reason = "looked at afterwards")]
        Cell::Int(_) | Cell::UInt(_) => {
            let number = integer(value)?;
            let real = number as f64;
            (whole(real) == Some(number)).then_some(real)
        }
        Cell::Bytes(text) => {
            let text = std::str::from_utf8(text).ok()?.trim();
            let number: f64 = text.parse().ok()?;
            // A number that is too large would become infinity; digits say that it is none.
            (!number.is_infinite() || !text.bytes().any(|byte| byte.is_ascii_digit())).then_some(number)
        }
        _ => None,
    }
}

/// A float of 32 bits, rounded to it.
pub(crate) fn single(value: &Cell<'_>) -> Option<f32> {
    if let Cell::Float(number) = value {
        return Some(*number);
    }
    let number = real(value)?;
    #[expect(clippy::cast_possible_truncation, reason = "rounded to 32 bits, as was asked for")]
    (!number.is_finite() || number.abs() <= f64::from(f32::MAX)).then_some(number as f32)
}

/// True or false: a boolean, 1 or 0, or a word for it.
pub(crate) fn flag(value: &Cell<'_>) -> Option<bool> {
    match integer(value) {
        Some(0) => Some(false),
        Some(1) => Some(true),
        Some(_) => None,
        None => {
            if let Cell::Bytes(text) = value {
                truth(text)
            } else {
                None
            }
        }
    }
}

/// The words for true and false.
pub(crate) fn truth(text: &[u8]) -> Option<bool> {
    let is_one_of = |words: [&[u8]; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is_one_of([b"true", b"t", b"yes"]) => Some(true),
        () if is_one_of([b"false", b"f", b"no"]) => Some(false),
        () => None,
    }
}

pub(crate) fn decimal128(value: &Cell<'_>, precision: u8, scale: i8) -> Option<i128> {
    match value {
        Cell::Bytes(text) => quick_decimal(text, precision, scale).or_else(|| text_to_decimal(text, precision, scale)),
        Cell::Int(_) | Cell::UInt(_) => text_to_decimal(integer(value)?.to_string().as_bytes(), precision, scale),
        Cell::Float(number) => text_to_decimal(format!("{number:e}").as_bytes(), precision, scale),
        Cell::Double(number) => text_to_decimal(format!("{number:e}").as_bytes(), precision, scale),
        _ => None,
    }
}

/// The usual case: at most 18 digits, as many after the point as the column has. None where the long way has to look.
pub(crate) fn quick_decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let scale = usize::try_from(scale).ok()?;
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let (whole, fraction) = match scale {
        0 => (digits, &digits[..0]),
        _ => match digits.split_at_checked(digits.len().checked_sub(scale + 1)?)? {
            (whole, [b'.', fraction @ ..]) => (whole, fraction),
            _ => return None,
        },
    };
    let (mut total, mut is_number) = (0u64, true);
    for byte in whole.iter().chain(fraction) {
        let digit = byte.wrapping_sub(b'0');
        is_number &= digit < 10;
        total = total.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    if !is_number {
        return None;
    }
    if precision < 18 && total >= 10u64.pow(u32::from(precision)) {
        return None;
    }
    Some(if negative { -i128::from(total) } else { i128::from(total) })
}

pub(crate) fn decimal256(value: &Cell<'_>, precision: u8, scale: i8) -> Option<i256> {
    let text = match value {
        Cell::Bytes(text) => std::str::from_utf8(text).ok()?.trim().to_owned(),
        Cell::Int(_) | Cell::UInt(_) => integer(value)?.to_string(),
        // They have fewer digits than that.
        _ => return decimal128(value, precision.min(38), scale).map(i256::from_i128),
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.as_str()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = usize::try_from(scale).ok()?;
    let (kept, beyond) = fraction.split_at_checked(scale).unwrap_or((fraction, ""));
    let is_number =
        !(whole.is_empty() && fraction.is_empty()) && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !is_number || beyond.bytes().any(|byte| byte != b'0') {
        return None;
    }
    let all = format!("{whole}{kept}{}", "0".repeat(scale - kept.len()));
    let all = all.trim_start_matches('0');
    if all.len() > usize::from(precision) {
        return None;
    }
    let units = if all.is_empty() { i256::ZERO } else { i256::from_string(all)? };
    Some(if negative { units.wrapping_neg() } else { units })
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|error| format!("text that is not UTF-8 ({error})"))
}

/// What is no text as one, the way the server writes it; times have so many digits of a second's fraction.
///
/// # Errors
/// Bytes that are not UTF-8.
pub(crate) fn write_text(out: &mut String, value: &Cell<'_>, digits: u8) -> Result<(), Refusal> {
    let written = match value {
        Cell::Bool(flag) => write!(out, "{flag}"),
        Cell::Bytes(bytes) => {
            out.push_str(text(bytes)?);
            Ok(())
        }
        Cell::Int(number) => write!(out, "{number}"),
        Cell::UInt(number) => write!(out, "{number}"),
        Cell::Float(number) => write!(out, "{number}"),
        Cell::Double(number) => write!(out, "{number}"),
        Cell::Day(days) => match NaiveDate::from_epoch_days(*days) {
            Some(day) => write!(out, "{day}"),
            None => write!(out, "{days} days from 1970"),
        },
        Cell::Micros(micros) => match DateTime::from_timestamp_micros(*micros) {
            Some(moment) => write!(out, "{}", moment.format("%Y-%m-%d %H:%M:%S%.6f")),
            None => write!(out, "{micros} microseconds from 1970"),
        },
        Cell::Date(year, month, day, hour, minute, second, micros) => {
            let date = write!(out, "{year:04}-{month:02}-{day:02}");
            if (*hour, *minute, *second, *micros) == (0, 0, 0, 0) {
                date
            } else {
                date.and_then(|()| write!(out, " {hour:02}:{minute:02}:{second:02}.{micros:06}"))
            }
        }
        Cell::Time(negative, days, hours, minutes, seconds, micros) => {
            let sign = if *negative { "-" } else { "" };
            let hours = u64::from(*days) * 24 + u64::from(*hours);
            let plain = write!(out, "{sign}{hours:02}:{minutes:02}:{seconds:02}");
            let fraction = format!("{micros:06}");
            match fraction.get(..usize::from(digits)).filter(|digits| !digits.is_empty()) {
                Some(digits) => plain.and_then(|()| write!(out, ".{digits}")),
                None => plain,
            }
        }
    };
    written.map_err(|_| "a value that cannot be written".to_owned())
}

/// The date `0000-00-00`, and others that the server's `sql_mode` lets in.
#[cold]
fn no_date(value: &Cell<'_>) -> Refusal {
    format!("{} is no date", show(value))
}

/// Days from 1970-01-01; none for what is no date (`chrono` counts the same, and takes thrice as long).
pub(crate) fn day_number(year: u16, month: u8, day: u8) -> Option<i32> {
    const LENGTHS: [u8; 13] = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = *LENGTHS.get(usize::from(month))? + u8::from(leap && month == 2);
    if day == 0 || day > length {
        return None;
    }
    // Years begin in March, so that the day that leap years have more is their last; and 400 before, so that all are positive.
    let years = i32::from(year) + 400 - i32::from(month <= 2);
    let months = (i32::from(month) + 9) % 12;
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (months * 153 + 2) / 5 + i32::from(day) - 1;
    Some(days - 719_468 - 146_097)
}

fn date(value: &Cell<'_>) -> Result<i32, Refusal> {
    let Cell::Date(year, month, day, ..) = value else { return Err(misfit(value, "date")) };
    day_number(*year, *month, *day).ok_or_else(|| no_date(value))
}

/// Days since 1970-01-01.
pub(crate) fn day(value: &Cell<'_>) -> Result<i32, Refusal> {
    match value {
        Cell::Day(days) => Ok(*days),
        Cell::Micros(micros) if micros.rem_euclid(DAY_MICROS) == 0 => {
            i32::try_from(micros.div_euclid(DAY_MICROS)).map_err(|_| misfit(value, "date"))
        }
        Cell::Date(_, _, _, 0, 0, 0, 0) => date(value),
        Cell::Bytes(text) => parse_day(text.trim_ascii()).ok_or_else(|| misfit(value, "date")),
        _ => Err(misfit(value, "date")),
    }
}

/// Since 1970-01-01 00:00, in units of which a second has `per_second`.
pub(crate) fn moment(value: &Cell<'_>, per_second: i64) -> Result<i64, Refusal> {
    let moment = match value {
        Cell::Day(days) => Some(Moment { seconds: i64::from(*days) * DAY, nanos: 0 }),
        Cell::Micros(micros) => {
            Some(Moment { seconds: micros.div_euclid(1_000_000), nanos: micros.rem_euclid(1_000_000) * 1_000 })
        }
        Cell::Date(_, _, _, hour, minute, second, micros) => {
            let seconds = i64::from(*hour) * 3600 + i64::from(*minute) * 60 + i64::from(*second);
            let seconds = i64::from(date(value)?) * 86_400 + seconds;
            Some(Moment { seconds, nanos: i64::from(*micros) * 1_000 })
        }
        Cell::Bytes(text) => Moment::from_text(text),
        _ => None,
    };
    moment.and_then(|moment| moment.in_units(per_second)).ok_or_else(|| misfit(value, "timestamp"))
}

/// Microseconds since midnight.
pub(crate) fn clock(value: &Cell<'_>) -> Result<i64, Refusal> {
    let micros = match value {
        Cell::Time(false, 0, hours, minutes, seconds, micros) if *hours < 24 => Some(
            (i64::from(*hours) * 3600 + i64::from(*minutes) * 60 + i64::from(*seconds)) * 1_000_000
                + i64::from(*micros),
        ),
        Cell::Time(..) => return Err(format!("{} is not within a day", show(value))),
        Cell::Bytes(text) => parse_time(text),
        _ => None,
    };
    micros.ok_or_else(|| misfit(value, "time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> Cell<'_> {
        Cell::Bytes(text.as_bytes())
    }

    proptest! {
        #[test]
        fn the_quick_way_to_a_decimal_is_the_long_one(
            units in -99_999_999_999_999_999i64..=99_999_999_999_999_999,
            scale in 0usize..10,
            precision in 1u8..=38,
        ) {
            let digits = format!("{:0>width$}", units.unsigned_abs(), width = scale + 1);
            let (whole, part) = digits.split_at(digits.len() - scale);
            let point = if scale == 0 { "" } else { "." };
            let text = format!("{}{whole}{point}{part}", if units < 0 { "-" } else { "" });
            let scale = i8::try_from(scale).unwrap();
            let long = text_to_decimal(text.as_bytes(), precision, scale);
            if let Some(quick) = quick_decimal(text.as_bytes(), precision, scale) {
                prop_assert_eq!(Some(quick), long);
            }
            prop_assert_eq!(decimal256(&bytes(&text), precision, scale), long.map(i256::from_i128));
        }

        #[test]
        fn any_bytes_are_a_decimal_or_refused_and_never_a_panic(raw in prop::collection::vec(any::<u8>(), 0..30), scale in 0i8..20) {
            let value = Cell::Bytes(&raw);
            let _ = (decimal128(&value, 38, scale), decimal256(&value, 60, scale), day(&value), clock(&value), integer(&value));
        }

        #[test]
        fn text_that_looks_like_a_decimal_is_read_alike_by_both(text in "-?[0-9]{0,12}\\.?[0-9]{0,12}", scale in 0i8..12) {
            let (a, b) = (decimal128(&bytes(&text), 38, scale), decimal256(&bytes(&text), 38, scale));
            prop_assert_eq!(a.map(i256::from_i128), b, "{}", text);
        }
    }

    #[test]
    fn days_are_counted_as_chrono_does() {
        for year in 0..=10_000 {
            for month in 0..=13 {
                for day in 0..=32 {
                    let known = chrono::NaiveDate::from_ymd_opt(i32::from(year), u32::from(month), u32::from(day));
                    assert_eq!(
                        day_number(year, month, day),
                        known.map(|date| date.to_epoch_days()),
                        "{year}-{month}-{day}"
                    );
                }
            }
        }
    }

    #[test]
    fn times_are_written_as_the_server_does() {
        let shown = |value: Cell<'_>, digits| {
            let mut text = String::new();
            write_text(&mut text, &value, digits).unwrap();
            text
        };
        assert_eq!(shown(Cell::Time(true, 34, 22, 59, 59, 0), 0), "-838:59:59");
        assert_eq!(shown(Cell::Time(false, 0, 1, 2, 3, 40), 6), "01:02:03.000040");
        assert_eq!(shown(Cell::Time(false, 0, 1, 2, 3, 400_000), 1), "01:02:03.4");
    }

    #[test]
    fn a_number_is_never_another_one() {
        assert_eq!(integer(&bytes("1.5")), None);
        assert_eq!(integer(&bytes("2.0")), Some(2));
        assert_eq!((integer(&Cell::Bool(true)), integer(&Cell::Double(0.5))), (Some(1), None));
        assert_eq!((real(&bytes("1e400")), real(&bytes("-9e999"))), (None, None));
        assert_eq!((real(&bytes("Infinity")), real(&bytes("1e3"))), (Some(f64::INFINITY), Some(1000.0)));
        assert_eq!((single(&Cell::Double(1e39)), single(&Cell::Double(0.1))), (None, Some(0.1)));
        assert_eq!(real(&Cell::Int(9_007_199_254_740_993)), None);
        assert_eq!((flag(&bytes("t")), flag(&Cell::Int(2)), flag(&bytes("maybe"))), (Some(true), None, None));
        assert_eq!(decimal128(&Cell::Double(1.005), 10, 2), None);
        assert_eq!(decimal256(&Cell::Bool(true), 40, 2), None);
    }

    #[test]
    fn a_moment_within_a_day_is_no_date() {
        let hour = 3_600_000_000;
        assert_eq!((day(&Cell::Micros(-24 * hour)), day(&Cell::Day(-1))), (Ok(-1), Ok(-1)));
        assert_eq!(day(&Cell::Micros(hour)), Err("`1970-01-01 01:00:00.000000` is not of type `date`".to_owned()));
        assert_eq!(moment(&Cell::Micros(-1), 1_000_000), Ok(-1));
        assert!(moment(&Cell::Micros(-1), 1_000).is_err());
        assert_eq!(moment(&Cell::Day(2), 1), Ok(172_800));
        assert!(moment(&Cell::Micros(i64::MAX), 1_000_000_000).is_err());
        assert!(clock(&Cell::Micros(0)).is_err());
    }

    #[test]
    fn what_is_no_date_is_refused() {
        let date = |y, m, d| day(&Cell::Date(y, m, d, 0, 0, 0, 0));
        assert_eq!(date(1970, 1, 2), Ok(1));
        assert_eq!(date(0, 0, 0), Err("`0000-00-00` is no date".to_owned()));
        assert!(date(2024, 0, 1).is_err() && date(2023, 2, 29).is_err());
        assert!(moment(&Cell::Date(0, 0, 0, 0, 0, 0, 0), 1_000_000).is_err());
        assert!(clock(&Cell::Time(false, 1, 0, 0, 0, 0)).is_err() && clock(&Cell::Time(true, 0, 1, 0, 0, 0)).is_err());
    }
}
