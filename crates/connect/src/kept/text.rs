//! The text of a value, made again what it was.

use super::Way;
use crate::cells::Cell;
use crate::columns::Refusal;
use crate::declared::Cells;
use std::fmt::Write as _;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes of hexadecimal digits.
pub(super) fn unhexed(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
        _ => None,
    };
    pairs.map(byte).collect()
}

fn digit(letter: u8) -> Option<u8> {
    u8::try_from(char::from(letter).to_digit(16)?).ok()
}

/// Year (0 is the one before 1), month and day of a number of days since 1970-01-01, however far away
/// (Howard Hinnant: <http://howardhinnant.github.io/date_algorithms.html>; years begin in March).
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// The number of days of a date; none for what is no date.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(-6_000_000..=6_000_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let of_era = shifted.rem_euclid(400);
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = shifted.div_euclid(400) * 146_097 + of_era - 719_468;
    (civil(days) == (year, month, day)).then_some(days)
}

impl Cells for Way {
    fn with<T>(&self, bytes: &[u8], rule: impl FnOnce(&Cell<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        if *self == Self::Hex
            && let Some(inner) = bytes.strip_prefix(b"\\x").and_then(|inner| std::str::from_utf8(inner).ok())
            && let Some(inner) = unhexed(inner)
        {
            return rule(&Cell::Bytes(&inner));
        }
        // What is not of its kind (a date that is infinite) is its text.
        let text = std::str::from_utf8(bytes).ok();
        rule(&text.and_then(|text| self.cell(text)).unwrap_or(Cell::Bytes(bytes)))
    }
}

impl Way {
    fn cell(&self, text: &str) -> Option<Cell<'static>> {
        match self {
            Self::Bool => Some(Cell::Bool(match text {
                "true" | "t" => true,
                "false" | "f" => false,
                _ => return None,
            })),
            Self::Int => text.parse().ok().map(Cell::Int),
            Self::Uint => text.parse().ok().map(Cell::UInt),
            Self::Real => text.parse().ok().map(Cell::Float),
            Self::Double => text.parse().ok().map(Cell::Double),
            Self::Day => day(text),
            Self::Moment => moment(text),
            Self::Date => date(text),
            Self::Clock => clock(text),
            Self::Text | Self::Hex | Self::List(_) | Self::Each => None,
        }
    }
}

/// `2024-01-15`, `0044-03-15 BC`.
fn day(text: &str) -> Option<Cell<'static>> {
    let (text, is_before) = before_christ(text);
    i32::try_from(date_of(text, is_before)?).ok().map(Cell::Day)
}

/// `2024-01-15 10:20:30.5`, and `+00` and ` BC` where they belong.
fn moment(text: &str) -> Option<Cell<'static>> {
    let (text, is_before) = before_christ(text);
    let (date, time) = text.split_once(' ')?;
    let (hours, minutes, seconds, micros) = time_of(time.strip_suffix("+00").unwrap_or(time))?;
    let of_day = (hours * 3600 + minutes * 60 + seconds) * SECOND + micros;
    date_of(date, is_before)?.checked_mul(DAY)?.checked_add(of_day).map(Cell::Micros)
}

fn before_christ(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

fn date_of(text: &str, is_before: bool) -> Option<i64> {
    let mut parts = text.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let year = if is_before { 1 - year } else { year };
    if parts.next().is_some() { None } else { days(year, month, day) }
}

/// `2024-01-15`, `0000-00-00 00:00:00.000`.
fn date(text: &str) -> Option<Cell<'static>> {
    let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
    let mut parts = date.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (hours, minutes, seconds, micros) = time_of(time)?;
    if parts.next().is_some() {
        return None;
    }
    let small = |number: i64| u8::try_from(number).ok();
    Some(Cell::Date(
        u16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(hours)?,
        small(minutes)?,
        small(seconds)?,
        u32::try_from(micros).ok()?,
    ))
}

/// `-838:59:59`, `01:02:03.4`.
fn clock(text: &str) -> Option<Cell<'static>> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (hours, minutes, seconds, micros) = time_of(text)?;
    let small = |number: i64| u8::try_from(number).ok();
    let days = u32::try_from(hours / 24).ok()?;
    Some(Cell::Time(
        is_negative,
        days,
        small(hours % 24)?,
        small(minutes)?,
        small(seconds)?,
        u32::try_from(micros).ok()?,
    ))
}

/// Hours, minutes, seconds, microseconds.
fn time_of(text: &str) -> Option<(i64, i64, i64, i64)> {
    let (text, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = text.split(':').map(number);
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let micros =
        number(fraction).filter(|_| fraction.len() <= 6)? * 10_i64.pow(6 - u32::try_from(fraction.len()).ok()?);
    if parts.next().is_some() { None } else { Some((hours, minutes, seconds, micros)) }
}

fn number(digits: &str) -> Option<i64> {
    let is_number = digits.len() < 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// The items of an array, as PostgreSQL writes it; those that are NULL without a text.
///
/// # Errors
/// An array of more dimensions than one; what is no array.
pub(super) fn items(text: &str) -> Result<Vec<Option<String>>, Refusal> {
    let torn = || "an array that is torn".to_owned();
    // Where it does not begin with its first index: `[2:3]={a,b}`.
    let bounds = if text.starts_with('[') { text.split_once('=').map_or("", |(bounds, _)| bounds) } else { "" };
    let inner = text.strip_prefix(bounds).map(|rest| if bounds.is_empty() { rest } else { &rest[1..] });
    let inner = inner.and_then(|rest| rest.strip_prefix('{')?.strip_suffix('}')).ok_or_else(torn)?;
    let dimensions = inner.bytes().take_while(|byte| *byte == b'{').count() + 1;
    if dimensions > 1 {
        return Err(format!("an array of {dimensions} dimensions (read it as text)"));
    }
    if inner.is_empty() {
        return Ok(Vec::new());
    }
    let (mut items, mut item, mut letters) = (Vec::new(), String::new(), inner.chars());
    let (mut is_quoted, mut was_quoted) = (false, false);
    let mut end = |item: &mut String, was_quoted: bool| {
        let item = std::mem::take(item);
        items.push((was_quoted || item != "NULL").then_some(item));
    };
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => item.push(letters.next().ok_or_else(torn)?),
            '"' => (is_quoted, was_quoted) = (!is_quoted, true),
            ',' if !is_quoted => end(&mut item, std::mem::take(&mut was_quoted)),
            other => item.push(other),
        }
    }
    end(&mut item, was_quoted);
    if is_quoted { Err(torn()) } else { Ok(items) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn days_become_dates_and_days_again(day in -2_000_000_000i64..2_000_000_000) {
            let (year, month, of_month) = civil(day);
            prop_assert_eq!(days(year, month, of_month), Some(day));
            if let Some(known) = i32::try_from(day).ok().and_then(chrono::NaiveDate::from_epoch_days) {
                use chrono::Datelike;
                prop_assert_eq!((year, month, of_month), (known.year().into(), known.month().into(), known.day().into()));
            }
        }

        #[test]
        fn bytes_become_digits_and_bytes_again(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            prop_assert_eq!(unhexed(&hex(&bytes)), Some(bytes));
        }

        #[test]
        fn any_text_is_a_value_or_a_text_and_never_a_panic(text in "\\PC{0,20}", like in "[-0-9:. +BC{}\\[\\]=,\"\\\\x]{0,30}") {
            for way in [Way::Bool, Way::Int, Way::Real, Way::Hex, Way::Day, Way::Moment, Way::Date, Way::Clock] {
                for text in [&text, &like] {
                    let _ = way.with(text.as_bytes(), |_| Ok(()));
                }
            }
            let _ = (items(&text), items(&like));
        }
    }

    fn cell(way: &Way, text: &str) -> String {
        way.with(text.as_bytes(), |cell| Ok(format!("{cell:?}"))).unwrap()
    }

    #[test]
    fn a_text_becomes_what_it_was() {
        for (way, text, wanted) in [
            (Way::Bool, "false", "Bool(false)"),
            (Way::Int, "-9223372036854775808", "Int(-9223372036854775808)"),
            (Way::Uint, "18446744073709551615", "UInt(18446744073709551615)"),
            (Way::Double, "-Infinity", "Double(-inf)"),
            (Way::Real, "1e-05", "Float(1e-5)"),
            (Way::Hex, "\\x00ff", "Bytes([0, 255])"),
            (Way::Day, "0001-01-01 BC", "Day(-719528)"),
            (Way::Moment, "1970-01-02 00:00:00.5+00", "Micros(86400500000)"),
            (Way::Date, "0000-00-00", "Date(0, 0, 0, 0, 0, 0, 0)"),
            (Way::Date, "2024-02-30 10:20:30.120", "Date(2024, 2, 30, 10, 20, 30, 120000)"),
            (Way::Clock, "-838:59:59", "Time(true, 34, 22, 59, 59, 0)"),
        ] {
            assert_eq!(cell(&way, text), wanted, "{text}");
        }
        assert_eq!(cell(&Way::Day, "infinity"), format!("{:?}", Cell::Bytes(b"infinity")));
        assert_eq!(cell(&Way::Day, "2023-02-29"), format!("{:?}", Cell::Bytes(b"2023-02-29")));
    }

    #[test]
    fn an_array_is_its_items() {
        let of = |text: &str| {
            items(text)
                .map(|items| items.iter().map(|item| item.clone().unwrap_or("∅".into())).collect::<Vec<_>>().join("|"))
        };
        assert_eq!(of("{}").unwrap(), "");
        assert_eq!(of("{1,NULL,\"NULL\",\"\",\"a\\\"b\\\\\",\"x,{y}\"}").unwrap(), "1|∅|NULL||a\"b\\|x,{y}");
        assert_eq!(of("[0:1]={a,b=c}").unwrap(), "a|b=c");
        assert_eq!(of("{{1,2},{3,4}}"), Err("an array of 2 dimensions (read it as text)".to_owned()));
        assert!(of("1,2").is_err() && of("{\"a}").is_err() && of("").is_err());
    }
}
