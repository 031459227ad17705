//! Rows that were refused, as they are kept: each value as the server's own text of it.

use super::types::{Column, Form};
use super::wire::row::Raw;
use crate::cells::{Cell, write_text};
use crate::columns::{Place, Refusal};
use crate::declared::Cells;
use crate::kept::{self, Came, Database, Record, Value, Way};
use std::fmt::Write as _;

/// How rows of these columns come, which the server sends like that.
pub(super) fn came(columns: &[Column], raw: &[Raw]) -> Option<Came> {
    let column = |(column, raw): (&Column, &Raw)| {
        let own = column.own.as_ref()?;
        Some(kept::Column::new(&column.name, Some(own), way(*raw, column.form), column.holds()))
    };
    Came::new(Database::Mysql, columns.iter().zip(raw).map(column))
}

fn way(raw: Raw, form: Form) -> Way {
    match raw {
        Raw::Int8 | Raw::Int16 | Raw::Int32 | Raw::Int64 => Way::Int,
        Raw::UInt8 | Raw::UInt16 | Raw::UInt32 | Raw::UInt64 => Way::Uint,
        Raw::Float => Way::Real,
        Raw::Double => Way::Double,
        Raw::Date => Way::Date,
        Raw::Time => Way::Clock,
        Raw::Bytes if form == Form::Bits => Way::Uint,
        Raw::Bytes | Raw::Null => Way::Text,
    }
}

/// A row of columns: the name of each, how it is sent, and the place of its value among the bytes.
pub(super) fn record<'a>(columns: impl Iterator<Item = (&'a str, (Raw, Form), Place)>, bytes: &[u8]) -> String {
    let mut record = Record::default();
    for (name, how, place) in columns {
        let Some(sent) = place.of(bytes) else {
            record.add(name, &Value::Null);
            continue;
        };
        let is_bytes = how.0 == Raw::Bytes && how.1 != Form::Bits;
        match text(how, sent) {
            _ if is_bytes => record.add(name, &Value::of(sent)),
            Err(_) => record.add(name, &Value::Lost(sent.to_vec())),
            Ok(text) if matches!(way(how.0, how.1), Way::Int | Way::Uint) => {
                record.add(name, &Value::Plain(text.into()));
            }
            Ok(text) => record.add(name, &Value::Text(text.into())),
        }
    }
    record.finish()
}

/// The server's own text of a value that is none.
///
/// # Errors
/// Bytes that are no such value.
fn text(how: (Raw, Form), bytes: &[u8]) -> Result<String, Refusal> {
    how.with(bytes, |cell| {
        let mut text = String::new();
        let Cell::Date(year, month, day, hour, minute, second, micros) = cell else {
            write_text(&mut text, cell, how.digits())?;
            return Ok(text);
        };
        let _ = write!(text, "{year:04}-{month:02}-{day:02}");
        let digits = match how.1 {
            Form::Moment(digits) => digits,
            _ if (*hour, *minute, *second, *micros) == (0, 0, 0, 0) => return Ok(text),
            _ => 0,
        };
        let _ = write!(text, " {hour:02}:{minute:02}:{second:02}");
        let fraction = format!("{micros:06}");
        // No digit is lost that there is.
        let wanted = fraction.trim_end_matches('0').len().max(usize::from(digits.min(6)));
        if wanted > 0 {
            let _ = write!(text, ".{}", &fraction[..wanted]);
        }
        Ok(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is kept of a value is read as the value itself.
        #[test]
        fn a_value_is_the_same_out_of_its_text(
            long: i64, double: f64, year in 0u16..10_000, parts: [u8; 5], micros in 0u32..1_000_000, days in 0u32..35,
            digits in 0u8..=6, bits in prop::collection::vec(any::<u8>(), 1..=8),
        ) {
            let [month, day, hour, minute, second] = [parts[0] % 13, parts[1] % 32, parts[2] % 24, parts[3] % 60, parts[4] % 60];
            let [a, b] = year.to_le_bytes();
            let date = [&[a, b, month, day, hour, minute, second][..], &micros.to_le_bytes()].concat();
            let clock = [&[parts[0] % 2][..], &days.to_le_bytes(), &[hour, minute, second], &micros.to_le_bytes()].concat();
            let short = (long as i8).to_le_bytes().to_vec();
            for (raw, form, sent) in [
                (Raw::Int8, Form::Plain, short.clone()),
                (Raw::UInt8, Form::Plain, short),
                (Raw::Int64, Form::Plain, long.to_le_bytes().to_vec()),
                (Raw::UInt64, Form::Plain, long.to_le_bytes().to_vec()),
                (Raw::Float, Form::Plain, f32::from_bits(long as u32).to_le_bytes().to_vec()),
                (Raw::Double, Form::Plain, double.to_le_bytes().to_vec()),
                (Raw::Date, Form::Plain, date[..4].to_vec()),
                (Raw::Date, Form::Moment(digits), date[..4].to_vec()),
                (Raw::Date, Form::Moment(digits), date),
                (Raw::Time, Form::Time(6), clock),
                (Raw::Bytes, Form::Bits, bits),
            ] {
                let text = text((raw, form), &sent).unwrap();
                let again = way(raw, form).with(text.as_bytes(), |cell| Ok(format!("{cell:?}")));
                let itself = (raw, form).with(&sent, |cell| Ok(format!("{cell:?}")));
                prop_assert_eq!(again, itself, "{:?}: {}", raw, text);
            }
        }
    }

    #[test]
    fn a_date_is_written_as_the_server_writes_it() {
        let of = |form, sent: &[u8]| text((Raw::Date, form), sent).unwrap();
        assert_eq!(of(Form::Plain, &[]), "0000-00-00");
        assert_eq!(of(Form::Moment(0), &[]), "0000-00-00 00:00:00");
        assert_eq!(of(Form::Moment(3), &[0xe8, 7, 2, 29]), "2024-02-29 00:00:00.000");
        assert_eq!(of(Form::Moment(0), &[0xe8, 7, 2, 29, 1, 2, 3]), "2024-02-29 01:02:03");
    }
}
