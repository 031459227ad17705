//! Dates, times and decimals as SQLite keeps them: texts and numbers. Pure functions, no allocation.
//!
//! What SQLite's own date functions read is read here alike: `YYYY-MM-DD`, with `HH:MM[:SS[.fraction]]` after a space
//! or `T`, with `Z` or an offset after that (the moment is then taken in UTC); whole numbers are unix seconds; reals
//! from 0 to 5373484.5 are julian days, other reals unix seconds (SQLite: the `auto` modifier).

use std::io::Write;

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;
/// Seconds in a day.
pub(crate) const DAY: i64 = 86_400;
/// The unix seconds of the years 0 to 9999, which is all SQLite's date functions know.
const SECONDS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;
/// Unix seconds of julian day 0.
const JULIAN_EPOCH: f64 = 2_440_587.5;
/// From here on a real is unix seconds, not a julian day.
const JULIAN_END: f64 = 5_373_484.5;

/// A moment: unix seconds, and nanoseconds after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) nanos: i64,
}

impl Moment {
    /// In units of which a second has `per_second`; `None` where the moment lies between two or too far away.
    pub(crate) fn in_units(self, per_second: i64) -> Option<i64> {
        let one = NANOS / per_second;
        if self.nanos % one != 0 {
            return None;
        }
        self.seconds.checked_mul(per_second)?.checked_add(self.nanos / one)
    }

    /// Days since 1970-01-01, at midnight only.
    pub(super) fn day(self) -> Option<i32> {
        if self.nanos != 0 || self.seconds.rem_euclid(DAY) != 0 {
            return None;
        }
        i32::try_from(self.seconds.div_euclid(DAY)).ok()
    }

    pub(super) fn from_integer(seconds: i64) -> Option<Self> {
        SECONDS.contains(&seconds).then_some(Self { seconds, nanos: 0 })
    }

    /// A julian day keeps milliseconds and a unix second microseconds: more is not in a real of that size.
    pub(super) fn from_real(value: f64) -> Option<Self> {
        let (scaled, per_second) = if (0.0..JULIAN_END).contains(&value) {
            ((value - JULIAN_EPOCH) * 86_400_000.0, 1_000)
        } else {
            (value * 1e6, 1_000_000)
        };
        if !scaled.is_finite() || scaled.abs() > 3e17 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounded, and within i64 by the line above")]
        let units = scaled.round() as i64;
        let seconds = units.div_euclid(per_second);
        let nanos = units.rem_euclid(per_second) * (NANOS / per_second);
        SECONDS.contains(&seconds).then_some(Self { seconds, nanos })
    }

    pub(crate) fn from_text(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        let day = parse_day(text.get(..10)?)?;
        let midnight = i64::from(day) * DAY;
        let Some((separator, rest)) = text[10..].split_first() else {
            return Some(Self { seconds: midnight, nanos: 0 });
        };
        if !matches!(separator, b' ' | b'T' | b't') {
            return None;
        }
        let (clock, offset) = split_zone(rest)?;
        let (seconds, nanos) = parse_clock(clock)?;
        Some(Self { seconds: midnight + seconds - offset, nanos })
    }
}

/// A clock time in microseconds since midnight.
pub(crate) fn parse_time(text: &[u8]) -> Option<i64> {
    let (seconds, nanos) = parse_clock(text.trim_ascii())?;
    (nanos % 1_000 == 0).then_some(seconds * 1_000_000 + nanos / 1_000)
}

fn number(digits: &[u8]) -> Option<i64> {
    let mut value = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(value)
}

/// Days since 1970-01-01 of `YYYY-MM-DD`, in the proleptic Gregorian calendar.
pub(crate) fn parse_day(text: &[u8]) -> Option<i32> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = text else { return None };
    let (year, month, day) = (number(&[*y0, *y1, *y2, *y3])?, number(&[*m0, *m1])?, number(&[*d0, *d1])?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let longest = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    // Days from civil, by Howard Hinnant (http://howardhinnant.github.io/date_algorithms.html): years begin in March.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - 719_468).ok()
}

/// Seconds and nanoseconds of `HH:MM[:SS[.fraction]]`.
fn parse_clock(text: &[u8]) -> Option<(i64, i64)> {
    let [h0, h1, b':', m0, m1, rest @ ..] = text else { return None };
    let (hour, minute) = (number(&[*h0, *h1])?, number(&[*m0, *m1])?);
    let (second, nanos) = match rest {
        [] => (0, 0),
        [b':', s0, s1] => (number(&[*s0, *s1])?, 0),
        [b':', s0, s1, b'.', fraction @ ..] if !fraction.is_empty() => {
            let (kept, beyond) = fraction.split_at(fraction.len().min(9));
            if beyond.iter().any(|digit| *digit != b'0') {
                return None;
            }
            let missing = u32::try_from(9 - kept.len()).ok()?;
            (number(&[*s0, *s1])?, number(kept)? * 10_i64.pow(missing))
        }
        _ => return None,
    };
    (hour < 24 && minute < 60 && second < 60).then_some((hour * 3600 + minute * 60 + second, nanos))
}

/// The clock time before a zone, and the zone's offset in seconds east of UTC.
fn split_zone(text: &[u8]) -> Option<(&[u8], i64)> {
    if let Some(clock) = text.strip_suffix(b"Z").or_else(|| text.strip_suffix(b"z")) {
        return Some((clock.trim_ascii_end(), 0));
    }
    let Some(at) = text.iter().position(|byte| matches!(byte, b'+' | b'-')) else { return Some((text, 0)) };
    let (hours, minutes) = match &text[at + 1..] {
        [h0, h1, b':', m0, m1] | [h0, h1, m0, m1] => (number(&[*h0, *h1])?, number(&[*m0, *m1])?),
        [h0, h1] => (number(&[*h0, *h1])?, 0),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = hours * 3600 + minutes * 60;
    Some((text[..at].trim_ascii_end(), if text[at] == b'-' { -offset } else { offset }))
}

/// The powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A power of ten that a double holds exactly.
pub(crate) fn exact_power(exponent: i8) -> Option<f64> {
    POWERS.get(usize::try_from(exponent).ok()?).copied()
}

/// How far decimals and doubles are one-to-one: 15 digits.
pub(crate) const EXACT: i128 = 1_000_000_000_000_000;

/// A decimal of `precision` digits, in units of its last.
pub(crate) fn integer_to_decimal(value: i64, precision: u8, scale: i8) -> Option<i128> {
    within(i128::from(value).checked_mul(10_i128.checked_pow(u32::try_from(scale).ok()?)?)?, precision)
}

fn within(unscaled: i128, precision: u8) -> Option<i128> {
    (unscaled.unsigned_abs() < 10_u128.checked_pow(u32::from(precision))?).then_some(unscaled)
}

/// The decimal a real stands for: its shortest text or, where that has more digits than fit, the 15 digits that SQLite
/// itself shows of it. `None` where neither is a decimal of that precision and scale.
pub(crate) fn real_to_decimal(value: f64, precision: u8, scale: i8) -> Option<i128> {
    if !value.is_finite() {
        return None;
    }
    if let Some(power) = exact_power(scale) {
        let units = (value * power).round();
        #[expect(clippy::cast_precision_loss, reason = "10^15 is exact")]
        let exact = EXACT as f64;
        // Both are exact, so the division rounds as reading the decimal's text would: equal means it is that decimal.
        #[expect(clippy::float_cmp, reason = "exactly equal is what is asked")]
        if units.abs() < exact && units / power == value {
            #[expect(clippy::cast_possible_truncation, reason = "within 10^15")]
            return within(units as i128, precision);
        }
    }
    let mut buffer = [0_u8; 40];
    let text = print(&mut buffer, |out| write!(out, "{value:e}"))?;
    text_to_decimal(text, precision, scale).or_else(|| {
        let mut buffer = [0_u8; 40];
        let text = print(&mut buffer, |out| write!(out, "{value:.14e}"))?;
        text_to_decimal(text, precision, scale)
    })
}

fn print(buffer: &mut [u8; 40], write: impl FnOnce(&mut &mut [u8]) -> std::io::Result<()>) -> Option<&[u8]> {
    let size = buffer.len();
    let mut rest = buffer.as_mut_slice();
    write(&mut rest).ok()?;
    let written = size - rest.len();
    Some(&buffer[..written])
}

/// The decimal of a text such as `-12.50` or `1.25e3`; `None` where it is no number or does not fit exactly.
pub(crate) fn text_to_decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let text = text.trim_ascii();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (mantissa, exponent) = match digits.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&digits[..at], std::str::from_utf8(&digits[at + 1..]).ok()?.parse::<i32>().ok()?),
        None => (digits, 0),
    };
    // `value` times ten to the power `shift` is the number, trailing zeros left out so that they never overflow.
    let (mut value, mut shift, mut zeros, mut point, mut any) = (0_i128, exponent, 0_u32, false, false);
    for byte in mantissa {
        match byte {
            b'.' if !point => point = true,
            b'0'..=b'9' => {
                any = true;
                if point {
                    shift = shift.checked_sub(1)?;
                }
                if *byte == b'0' {
                    zeros += 1;
                } else {
                    value = if value == 0 { 0 } else { value.checked_mul(10_i128.checked_pow(zeros)?)? };
                    value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
                    zeros = 0;
                }
            }
            _ => return None,
        }
    }
    if !any {
        return None;
    }
    if value == 0 {
        return Some(0);
    }
    // The zeros that were left out stand after the last digit.
    let shift = shift.checked_add(i32::try_from(zeros).ok()?)?.checked_add(i32::from(scale))?;
    let unscaled = value.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?;
    within(if negative { -unscaled } else { unscaled }, precision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_sqlite_reads_it() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for text in [
            "2024-01-15",
            "2024-02-29 23:59:59",
            "2024-01-15T10:20",
            "1969-12-31 23:59:59.999",
            "0001-01-01",
            "9999-12-31",
            "2024-01-15 10:20:30Z",
            "2024-01-15 10:20:30+02:00",
            "2024-01-15 10:20:30.5-05:30",
            "1900-02-28",
            "2000-02-29",
        ] {
            let wanted: i64 = connection.query_row("SELECT unixepoch(?1)", [text], |row| row.get(0)).unwrap();
            assert_eq!(Moment::from_text(text.as_bytes()).unwrap().seconds, wanted, "{text}");
        }
        for text in [
            "",
            "2024",
            "2024-13-01",
            "2023-02-29",
            "2024-01-00",
            "2024-01-15x",
            "2024-01-15 25:00",
            "2024-01-15 10:60",
            "2024-01-15 10:20:30.",
            "2024-01-15 10:20:30+9",
            "15.01.2024",
            "2024-01-15 ",
            "20240115xx",
            "2024-01-15 1:2",
        ] {
            let moment = Moment::from_text(text.as_bytes());
            // White space around a date is nothing.
            assert_eq!(moment.is_some(), text.trim() == "2024-01-15", "{text}");
        }
    }

    #[test]
    fn numbers_are_unix_seconds_or_julian_days() {
        assert_eq!(Moment::from_real(2_460_324.5).unwrap().day(), Some(19_737));
        assert_eq!(Moment::from_integer(19_737 * DAY).unwrap().day(), Some(19_737));
        assert_eq!(Moment::from_integer(20_240_115).unwrap().day(), None, "a day is not written as one number");
        assert_eq!(Moment::from_real(1_705_312_800.25).unwrap(), Moment { seconds: 1_705_312_800, nanos: 250_000_000 });
        assert_eq!(Moment::from_integer(1_705_312_800_000), None, "milliseconds are not mistaken for seconds");
        assert_eq!(Moment::from_real(f64::NAN), None);
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        let text = |text: &str| text_to_decimal(text.as_bytes(), 10, 2);
        assert_eq!(text("12.5"), Some(1250));
        assert_eq!(text("-0.05"), Some(-5));
        assert_eq!(text("1.250e1"), Some(1250));
        assert_eq!(text("100"), Some(10_000));
        assert_eq!(text("1.00000000000000000000000000000000000000000000"), Some(100));
        assert_eq!(text("99999999.99"), Some(9_999_999_999));
        for wrong in ["100000000", "1.005", "", ".", "-", "1e", "1.2.3", "abc", "1e999999999999", "0x10", "NaN"] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
        assert_eq!(text("0e99"), Some(0));
        assert_eq!(real_to_decimal(12.345_678, 18, 6), Some(12_345_678));
        assert_eq!(real_to_decimal(0.1 + 0.2, 10, 2), Some(30), "as SQLite shows it");
        assert_eq!(real_to_decimal(1.005, 10, 2), None);
        assert_eq!(real_to_decimal(1e300, 38, 2), None);
        assert_eq!(real_to_decimal(1e-300, 38, 2), None);
        assert_eq!(real_to_decimal(123_456_789_012_345.67, 38, 2), Some(12_345_678_901_234_567));
        assert_eq!(integer_to_decimal(i64::MAX, 38, 20), None);
        assert_eq!(integer_to_decimal(-5, 3, 2), Some(-500));
        assert_eq!(integer_to_decimal(10, 3, 2), None);
    }

    proptest::proptest! {
        #[test]
        fn fifteen_digits_survive_the_way_through_a_real(units in -999_999_999_999_999_i64..=999_999_999_999_999, scale in 0_i8..=22) {
            #[expect(clippy::cast_precision_loss, reason = "15 digits are exact")]
            let real = units as f64 / exact_power(scale).unwrap();
            proptest::prop_assert_eq!(real_to_decimal(real, 38, scale), Some(i128::from(units)));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let _ = Moment::from_text(&text);
            let _ = parse_time(&text);
            let _ = text_to_decimal(&text, 38, 10);
        }

        #[test]
        fn no_text_like_a_date_makes_the_readers_panic(text in "[0-9+\\-:. TZe]{0,40}") {
            let _ = Moment::from_text(text.as_bytes());
            let _ = parse_time(text.as_bytes());
            let _ = text_to_decimal(text.as_bytes(), 38, 10);
        }
    }
}
