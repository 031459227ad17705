//! Rows that were refused, as they are kept: the server's own text of each value, out of the binary format. Another type may
//! be given to a column later, text among them, and then there is no server to ask.

use super::columns::{EPOCH_DAYS, fixed};
use super::types::{Column, Kind, base, kind_of};
use crate::cells::Cell;
use crate::columns::{Place, Refusal};
use crate::declared::Cells;
use crate::kept::{self, Came, Database, Holds, Record, Value, Way, civil, hex};
use arrow::datatypes::DataType;
use std::fmt::Write as _;
use tokio_postgres::types::Type;

/// How rows of these columns come.
pub(super) fn came(columns: &[Column]) -> Option<Came> {
    Came::new(Database::Postgres, columns.iter().map(|column| column.kept.clone()))
}

/// How the values of a column come that is read as `kind`.
pub(super) fn column(name: &str, server: &Type, modifier: i32, kind: &Kind, cast: Option<&str>) -> kept::Column {
    let own = kind_of(server, modifier);
    let is_text = cast == Some("text");
    let holds = match (&own, base(server)) {
        (_, of) if matches!(*of, Type::BIT | Type::VARBIT) => Holds::Text,
        (_, of) if *of == Type::MONEY && !is_text => Holds::Value,
        (_, of) if *of == Type::MONEY => Holds::Text,
        (Some(Kind::List(_) | Kind::Bytea), _) if is_text => Holds::Text,
        (Some(Kind::List(_) | Kind::Bytea | Kind::Uuid), _) => Holds::Itself,
        _ => Holds::Any,
    };
    let way = if is_text { Way::Text } else { way(kind.sent()) };
    kept::Column::new(name, Some(&own.map_or(DataType::Utf8, |own| own.arrow())), way, holds)
}

fn way(kind: &Kind) -> Way {
    match kind {
        Kind::Bool => Way::Bool,
        Kind::Int2 | Kind::Int4 | Kind::Int8 => Way::Int,
        Kind::Oid => Way::Uint,
        Kind::Float4 => Way::Real,
        Kind::Float8 => Way::Double,
        Kind::Text | Kind::Jsonb | Kind::Uuid | Kind::Decimal(..) | Kind::NumericText => Way::Text,
        Kind::Bytea => Way::Hex,
        Kind::Date => Way::Day,
        Kind::Time => Way::Clock,
        Kind::Timestamp | Kind::TimestampTz => Way::Moment,
        Kind::List(item) => Way::List(Box::new(way(item))),
        Kind::Declared(own, _) => way(own),
    }
}

/// A row of these columns, each with the place of its value among the bytes.
pub(super) fn record<'a>(columns: impl Iterator<Item = (&'a str, &'a Kind, Place)>, bytes: &[u8]) -> String {
    let mut record = Record::default();
    for (name, kind, place) in columns {
        let Some(sent) = place.of(bytes) else {
            record.add(name, &Value::Null);
            continue;
        };
        let mut text = String::new();
        let value = match write(&mut text, kind.sent(), sent, false) {
            Err(_) => Value::Lost(sent.to_vec()),
            Ok(()) if matches!(kind.sent(), Kind::Bool | Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid) => {
                Value::Plain(text.into())
            }
            Ok(()) => Value::Text(text.into()),
        };
        record.add(name, &value);
    }
    record.finish()
}

/// Writes a value as the server does; `is_item`: within an array, where flags are letters.
///
/// # Errors
/// Bytes that are no such value.
fn write(out: &mut String, kind: &Kind, bytes: &[u8], is_item: bool) -> Result<(), Refusal> {
    let word = match kind {
        Kind::Bytea => {
            let _ = write!(out, "\\x{}", hex(bytes));
            return Ok(());
        }
        Kind::List(item) => return array(out, item, bytes),
        Kind::Date => infinite(i32::from_be_bytes(fixed(bytes, "date")?), i32::MIN, i32::MAX),
        Kind::Timestamp | Kind::TimestampTz => {
            infinite(i64::from_be_bytes(fixed(bytes, "timestamp")?), i64::MIN, i64::MAX)
        }
        // The end of a day, which is none of its moments.
        Kind::Time => (i64::from_be_bytes(fixed(bytes, "time")?) == 86_400_000_000).then_some("24:00:00"),
        _ => None,
    };
    if let Some(word) = word {
        out.push_str(word);
        return Ok(());
    }
    if matches!(kind, Kind::Timestamp | Kind::TimestampTz) {
        // Counted from 2000 on, since the last of them would not fit otherwise.
        let micros = i64::from_be_bytes(fixed(bytes, "timestamp")?);
        let is_before = date(out, micros.div_euclid(86_400_000_000) + i64::from(EPOCH_DAYS));
        out.push(' ');
        clock(out, micros.rem_euclid(86_400_000_000));
        out.push_str(if *kind == Kind::TimestampTz { "+00" } else { "" });
        out.push_str(is_before);
        return Ok(());
    }
    kind.with(bytes, |cell| {
        match cell {
            Cell::Bool(flag) if is_item => out.push(if *flag { 't' } else { 'f' }),
            Cell::Float(number) => float(out, &format!("{number:e}"), 6),
            Cell::Double(number) => float(out, &format!("{number:e}"), 15),
            Cell::Day(days) => {
                let is_before = date(out, i64::from(*days));
                out.push_str(is_before);
            }
            Cell::Time(_, _, hours, minutes, seconds, micros) => {
                let seconds = i64::from(*hours) * 3600 + i64::from(*minutes) * 60 + i64::from(*seconds);
                clock(out, seconds * 1_000_000 + i64::from(*micros));
            }
            other => crate::cells::write_text(out, other, 6)?,
        }
        Ok(())
    })
}

fn infinite<T: PartialEq>(value: T, least: T, most: T) -> Option<&'static str> {
    match () {
        () if value == least => Some("-infinity"),
        () if value == most => Some("infinity"),
        () => None,
    }
}

/// Writes a date; gives what stands at the end of one before the year 1.
fn date(out: &mut String, days: i64) -> &'static str {
    let (year, month, day) = civil(days);
    let shown = if year > 0 { year } else { 1 - year };
    let _ = write!(out, "{shown:04}-{month:02}-{day:02}");
    if year > 0 { "" } else { " BC" }
}

fn clock(out: &mut String, micros: i64) {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if micros > 0 {
        let digits = format!(".{micros:06}");
        out.push_str(digits.trim_end_matches('0'));
    }
}

/// A float from its shortest digits (`-1.5e-7`), with an exponent from 10 to the power `most` on and below a ten thousandth
/// (ryu in PostgreSQL's `src/common`: `to_chars`).
fn float(out: &mut String, shortest: &str, most: i32) {
    let (digits, exponent) = match shortest {
        "inf" => return out.push_str("Infinity"),
        "-inf" => return out.push_str("-Infinity"),
        "NaN" => return out.push_str("NaN"),
        number => number.split_once('e').unwrap_or((number, "0")),
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..most).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs());
        return;
    }
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let digits = digits.replace('.', "");
    out.push_str(sign);
    match usize::try_from(exponent) {
        Ok(whole) if digits.len() <= whole + 1 => {
            let _ = write!(out, "{digits:0<width$}", width = whole + 1);
        }
        Ok(whole) => {
            let _ = write!(out, "{}.{}", &digits[..=whole], &digits[whole + 1..]);
        }
        Err(_) => {
            let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
            let _ = write!(out, "0.{zeros}{digits}");
        }
    }
}

/// Writes an array of any dimensions (array_out).
fn array(out: &mut String, item: &Kind, bytes: &[u8]) -> Result<(), Refusal> {
    let torn = || "an array that is torn".to_owned();
    let mut rest = bytes;
    let mut word = || -> Result<i32, Refusal> {
        let (word, after) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
        rest = after;
        Ok(i32::from_be_bytes(*word))
    };
    let count = usize::try_from(word()?).ok().filter(|count| *count <= 6).ok_or_else(torn)?;
    let (_, _) = (word()?, word()?);
    let mut sizes = Vec::with_capacity(count);
    for _ in 0..count {
        // One of nothing has no dimensions.
        let size = usize::try_from(word()?).ok().filter(|size| *size > 0).ok_or_else(torn)?;
        sizes.push((size, i64::from(word()?)));
    }
    if sizes.iter().any(|(_, first)| *first != 1) {
        for (size, first) in &sizes {
            let _ = write!(out, "[{first}:{}]", first - 1 + i64::try_from(*size).map_err(|_| torn())?);
        }
        out.push('=');
    }
    let sizes: Vec<usize> = sizes.into_iter().map(|(size, _)| size).collect();
    if sizes.is_empty() {
        out.push_str("{}");
        return Ok(());
    }
    dimension(out, item, &sizes, &mut rest)
}

fn dimension(out: &mut String, item: &Kind, sizes: &[usize], rest: &mut &[u8]) -> Result<(), Refusal> {
    let torn = || "an array that is torn".to_owned();
    let Some((size, inner)) = sizes.split_first() else {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            *rest = after;
            out.push_str("NULL");
            return Ok(());
        };
        let (bytes, after) = after.split_at_checked(length).ok_or_else(torn)?;
        *rest = after;
        let mut text = String::new();
        write(&mut text, item, bytes, true)?;
        quote(out, &text);
        return Ok(());
    };
    out.push('{');
    for at in 0..*size {
        if at > 0 {
            out.push(',');
        }
        dimension(out, item, inner, rest)?;
    }
    out.push('}');
    Ok(())
}

/// An item is quoted where it could be taken for something else.
fn quote(out: &mut String, text: &str) {
    let is_special = |letter: char| matches!(letter, '"' | '\\' | '{' | '}' | ',' | ' ' | '\t'..='\r');
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(is_special) {
        return out.push_str(text);
    }
    out.push('"');
    for letter in text.chars() {
        if matches!(letter, '"' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the text of a value, read again, is; and what the value itself is.
    fn both(kind: &Kind, bytes: &[u8]) -> (String, Result<String, Refusal>, Result<String, Refusal>) {
        let mut text = String::new();
        write(&mut text, kind, bytes, false).unwrap();
        let again = way(kind).with(text.as_bytes(), |cell| Ok(format!("{cell:?}")));
        (text, again, kind.with(bytes, |cell| Ok(format!("{cell:?}"))))
    }

    proptest! {
        /// What is kept of a value is read as the value itself.
        #[test]
        fn a_value_is_the_same_out_of_its_text(
            long: i64, double: f64, day in -2_000_000..2_000_000_000i32, micros in -200_000_000_000_000_000..9_000_000_000_000_000_000i64,
            of_day in 0..86_400_000_000i64, bytes in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let word = (long >> 32) as i32;
            for (kind, sent) in [
                (Kind::Int2, (word as i16).to_be_bytes().to_vec()),
                (Kind::Int4, word.to_be_bytes().to_vec()),
                (Kind::Int8, long.to_be_bytes().to_vec()),
                (Kind::Oid, word.to_be_bytes().to_vec()),
                (Kind::Float4, f32::from_bits(word as u32).to_be_bytes().to_vec()),
                (Kind::Float8, double.to_be_bytes().to_vec()),
                (Kind::Date, day.to_be_bytes().to_vec()),
                (Kind::Time, of_day.to_be_bytes().to_vec()),
                (Kind::Timestamp, micros.to_be_bytes().to_vec()),
                (Kind::TimestampTz, micros.to_be_bytes().to_vec()),
                (Kind::Bool, vec![1]),
                (Kind::Bytea, bytes.clone()),
            ] {
                let (text, again, itself) = both(&kind, &sent);
                prop_assert_eq!(again, itself, "{:?}: {}", kind, text);
            }
        }

        #[test]
        fn any_bytes_are_a_value_or_lost_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            for kind in [Kind::Date, Kind::Timestamp, Kind::Time, Kind::Jsonb, Kind::NumericText, Kind::Float4, Kind::List(Box::new(Kind::Int4)), Kind::List(Box::new(Kind::Text))] {
                let _ = write(&mut String::new(), &kind, &bytes, false);
            }
        }
    }

    #[test]
    fn floats_are_written_as_the_server_writes_them() {
        let of = |number: f64, most| {
            let mut text = String::new();
            float(&mut text, &format!("{number:e}"), most);
            text
        };
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (1.5, "1.5"),
            (-1200.0, "-1200"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456_789_012_345.6, "123456789012345.6"),
            (1e15, "1e+15"),
            (1.5e-300, "1.5e-300"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(of(number, 15), text);
        }
        assert_eq!((of(1e5, 6).as_str(), of(1e6, 6).as_str()), ("100000", "1e+06"));
    }
}
