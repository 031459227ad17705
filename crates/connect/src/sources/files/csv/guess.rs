//! What type a column of text may be, from a sample of its values.
//!
//! A guess must not lose anything: whole numbers with leading zeros (`01234`) or beyond 64 bits stay text, and so does a
//! column that mixes kinds, but for whole numbers among floats and dates among timestamps.

use super::column::truth;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, TimeUnit};
use chrono::Utc;

/// What the values of a column have in common so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Guess {
    /// Nothing but NULL.
    #[default]
    Unknown,
    Int,
    Float,
    /// `NaN`, `inf`: floats among floats, words among words.
    Special,
    Boolean,
    Date,
    /// With digits beyond the microsecond; with a time zone.
    Timestamp {
        nanos: bool,
        zone: bool,
    },
    Text,
}

impl Guess {
    /// Takes one more value into account.
    pub(super) fn add(&mut self, text: &str) {
        if *self != Self::Text {
            *self = join(*self, of(text));
        }
    }

    /// The type; Null when there was no value.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Unknown => DataType::Null,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Boolean => DataType::Boolean,
            Self::Date => DataType::Date32,
            Self::Timestamp { nanos, zone } => DataType::Timestamp(
                if nanos { TimeUnit::Nanosecond } else { TimeUnit::Microsecond },
                zone.then(|| "UTC".into()),
            ),
            Self::Special | Self::Text => DataType::Utf8,
        }
    }
}

fn join(a: Guess, b: Guess) -> Guess {
    use Guess::*;
    match (a, b) {
        (Unknown, other) | (other, Unknown) => other,
        (a, b) if a == b => a,
        (Int | Float | Special, Int | Float | Special) => Float,
        (Date, Timestamp { nanos, zone: false }) | (Timestamp { nanos, zone: false }, Date) => {
            Timestamp { nanos, zone: false }
        }
        (Timestamp { nanos: a, zone: x }, Timestamp { nanos: b, zone: y }) if x == y => {
            Timestamp { nanos: a || b, zone: x }
        }
        _ => Text,
    }
}

fn of(text: &str) -> Guess {
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(b'0'..=b'9' | b'-' | b'+' | b'.') => number(text).or_else(|| moment(text)).unwrap_or(Guess::Text),
        Some(b't' | b'T' | b'f' | b'F') if truth(text).is_some() => Guess::Boolean,
        Some(b'n' | b'N' | b'i' | b'I') if ["nan", "inf"].iter().any(|word| text.eq_ignore_ascii_case(word)) => {
            Guess::Special
        }
        _ => Guess::Text,
    }
}

fn number(text: &str) -> Option<Guess> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned.eq_ignore_ascii_case("inf") {
        return Some(Guess::Special);
    }
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = |whole: &str| whole.len() > 1 && whole.starts_with('0');
    if digits(unsigned) {
        // A plus is an ornament of phone numbers rather than of numbers.
        let plain = !text.starts_with('+') && !zeros(unsigned) && text.parse::<i64>().is_ok();
        return Some(if plain { Guess::Int } else { Guess::Text });
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let good = (digits(whole) || whole.is_empty() && digits(fraction))
        && (fraction.is_empty() || digits(fraction))
        && exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e)))
        && (exponent.is_some() || mantissa.contains('.'));
    // 17 digits are what a double needs to be written so that it reads back (and what our own writer writes); whoever
    // wrote more, zeros at either end not counted, most likely wants to keep them.
    let is_digit = |byte: &u8| (b'1'..=b'9').contains(byte);
    let digits = || whole.bytes().chain(fraction.bytes());
    let first = digits().position(|byte| is_digit(&byte)).unwrap_or_default();
    let end = digits().enumerate().filter(|(_, byte)| is_digit(byte)).last().map_or(0, |(at, _)| at + 1);
    let exact = end.saturating_sub(first) <= 17;
    good.then_some(if exact && !zeros(whole) { Guess::Float } else { Guess::Text })
}

fn moment(text: &str) -> Option<Guess> {
    let bytes = text.as_bytes();
    let dashes = bytes.len() >= 10 && bytes[4] == b'-' && bytes[7] == b'-';
    if !dashes || string_to_datetime(&Utc, text).is_err() {
        return None;
    }
    if bytes.len() == 10 {
        return Some(Guess::Date);
    }
    let rest = text.get(10..)?;
    let zone = rest.contains(['+', '-', 'z', 'Z']) || rest.get(1..)?.contains(|c: char| c.is_ascii_alphabetic());
    let fraction = rest.split_once('.').map_or(0, |(_, after)| after.bytes().take_while(u8::is_ascii_digit).count());
    Some(Guess::Timestamp { nanos: fraction > 6, zone })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(values: &[&str]) -> DataType {
        let mut guess = Guess::default();
        values.iter().for_each(|value| guess.add(value));
        guess.data_type()
    }

    #[test]
    fn a_guess_never_loses_anything() {
        let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        for (values, expected) in [
            (&["1", "-2"][..], DataType::Int64),
            (&["1", "2.5", "1e3", "NaN", "-inf"], DataType::Float64),
            (&["01234"], DataType::Utf8),
            (&["12345678901234567890"], DataType::Utf8),
            (&["+49"], DataType::Utf8),
            (&["0.1", "0"], DataType::Float64),
            (&["123456789.123456789123"], DataType::Utf8),
            (&["0.30000000000000004", "-0.00012345678901234567", "100000000000000000000.0"], DataType::Float64),
            (&["true", "FALSE"], DataType::Boolean),
            (&["true", "1"], DataType::Utf8),
            (&["2024-01-15"], DataType::Date32),
            (&["2024-01-15", "2024-01-15 10:00:00"], micros(None)),
            (&["2024-01-15T10:00:00Z", "2024-01-15T10:00:00+02:00"], micros(Some("UTC"))),
            (&["2024-01-15T10:00:00.1234567"], DataType::Timestamp(TimeUnit::Nanosecond, None)),
            (&["2024-01-15T10:00:00Z", "2024-01-15"], DataType::Utf8),
            (&["2024-02-30"], DataType::Utf8),
            (&["nan"], DataType::Utf8),
            (&["1.2.3", "1-2"], DataType::Utf8),
            (&["-", "."], DataType::Utf8),
            (&[], DataType::Null),
        ] {
            assert_eq!(guessed(values), expected, "{values:?}");
        }
    }
}
