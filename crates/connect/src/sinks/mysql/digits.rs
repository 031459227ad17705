//! Numbers, days and times as digits.

use std::io::Write;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// 0001-01-01 and the day after 9999-12-31, as days since 1970.
const DAYS: std::ops::Range<i64> = -719_162..2_932_897;

pub(super) fn push_unsigned(out: &mut Vec<u8>, mut number: u64) {
    let (mut digits, mut at) = ([0_u8; 20], 20);
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

pub(super) fn push_signed(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    push_unsigned(out, number.unsigned_abs());
}

/// At least `width` digits.
fn push_padded(out: &mut Vec<u8>, number: u64, width: usize) {
    let mut power = 10_u64;
    for _ in 1..width {
        if number < power {
            out.push(b'0');
        }
        power = power.saturating_mul(10);
    }
    push_unsigned(out, number);
}

/// A decimal with `scale` digits after the point.
pub(super) fn push_decimal(out: &mut Vec<u8>, units: i128, scale: i8) {
    if units < 0 {
        out.push(b'-');
    }
    let begin = out.len();
    push_wide(out, units.unsigned_abs());
    place_point(out, begin, scale);
}

fn push_wide(out: &mut Vec<u8>, number: u128) {
    const PART: u128 = 10_000_000_000_000_000_000;
    match u64::try_from(number) {
        Ok(number) => push_unsigned(out, number),
        Err(_) => {
            push_wide(out, number / PART);
            push_padded(out, u64::try_from(number % PART).unwrap_or_default(), 19);
        }
    }
}

/// Moves the point into the digits from `begin` on, or zeros behind them.
fn place_point(out: &mut Vec<u8>, begin: usize, scale: i8) {
    let Ok(scale) = usize::try_from(scale) else {
        out.extend(std::iter::repeat_n(b'0', usize::from(scale.unsigned_abs())));
        return;
    };
    if scale == 0 {
        return;
    }
    let digits = out.len() - begin;
    if digits <= scale {
        out.splice(begin..begin, std::iter::repeat_n(b'0', scale + 1 - digits));
    }
    out.insert(out.len() - scale, b'.');
}

/// A number that is finite, with as many digits as tell it from all others.
pub(super) fn push_float(out: &mut Vec<u8>, number: f64) {
    // A vector takes everything.
    let _ = write!(out, "{number:e}");
}

/// `YYYY-MM-DD`; false outside of the years that MySQL knows.
pub(super) fn push_date(out: &mut Vec<u8>, day: i64) -> bool {
    if !DAYS.contains(&day) {
        return false;
    }
    // Days from 0000-03-01 on, in eras of 400 years (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, early) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    push_padded(out, (year + era * 400 + early).unsigned_abs(), 4);
    out.push(b'-');
    push_padded(out, month.unsigned_abs(), 2);
    out.push(b'-');
    push_padded(out, date.unsigned_abs(), 2);
    true
}

/// `HH:MM:SS.ffffff`, or without the fraction where there is none.
pub(super) fn push_clock(out: &mut Vec<u8>, micros: u64) {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    push_padded(out, seconds / 3600, 2);
    out.push(b':');
    push_padded(out, seconds / 60 % 60, 2);
    out.push(b':');
    push_padded(out, seconds % 60, 2);
    if fraction > 0 {
        out.push(b'.');
        push_padded(out, fraction, 6);
    }
}

/// `YYYY-MM-DD HH:MM:SS.ffffff`; false outside of the years that MySQL knows.
pub(super) fn push_moment(out: &mut Vec<u8>, micros: i64) -> bool {
    let known = push_date(out, micros.div_euclid(DAY));
    if known {
        out.push(b' ');
        push_clock(out, micros.rem_euclid(DAY).unsigned_abs());
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Decimal128Array;
    use proptest::prelude::*;

    fn said(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"x".to_vec();
        push(&mut out);
        String::from_utf8(out).unwrap().split_off(1)
    }

    #[test]
    fn the_ends_are_written_as_they_are() {
        assert_eq!(said(|out| push_signed(out, i64::MIN)), i64::MIN.to_string());
        assert_eq!(said(|out| push_unsigned(out, u64::MAX)), u64::MAX.to_string());
        assert_eq!(said(|out| push_decimal(out, i128::MIN, 0)), i128::MIN.to_string());
        assert_eq!(said(|out| push_decimal(out, -5, 3)), "-0.005");
        assert_eq!(said(|out| push_decimal(out, 12, -2)), "1200");
        assert_eq!(said(|out| push_clock(out, 3_020_399_999_999)), "838:59:59.999999");
        assert!(!push_date(&mut Vec::new(), -719_163) && !push_date(&mut Vec::new(), 2_932_897));
        assert_eq!(said(|out| assert!(push_date(out, -719_162))), "0001-01-01");
        assert_eq!(said(|out| assert!(push_date(out, 2_932_896))), "9999-12-31");
    }

    proptest! {
        #[test]
        fn digits_say_what_others_say(number: i64, wide: i128, scale in 0i8..38, real: f64) {
            prop_assert_eq!(said(|out| push_signed(out, number)), number.to_string());
            let wide = wide % 10_i128.pow(38);
            let decimal = Decimal128Array::from(vec![wide]).with_precision_and_scale(38, scale).unwrap();
            prop_assert_eq!(said(|out| push_decimal(out, wide, scale)), decimal.value_as_string(0));
            if real.is_finite() {
                let back: f64 = said(|out| push_float(out, real)).parse().unwrap();
                prop_assert_eq!(back.to_bits(), real.to_bits());
            }
        }

        #[test]
        fn days_and_moments_are_those_of_the_calendar(micros in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let moment = chrono::DateTime::from_timestamp_micros(micros).unwrap();
            let format = if micros % 1_000_000 == 0 { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%d %H:%M:%S%.6f" };
            prop_assert_eq!(said(|out| assert!(push_moment(out, micros))), moment.format(format).to_string());
        }
    }
}
