//! A row as an object of JSON that loses nothing: NULL is `null`, text is text, numbers and flags stand as they are, digit by
//! digit, and bytes that are no text are `{"hex": "00ff"}`.

use super::text::{hex, unhexed};
use crate::json_text::{Walk, unquoted};
use gristmill_model::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::fmt::Write as _;

/// The most bytes of a record that are kept. Of a longer one its beginning is, for people.
const MOST: usize = 64 << 10;

/// A value of a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    /// A number, `true` or `false`, as JSON writes it.
    Plain(Cow<'a, str>),
    Text(Cow<'a, str>),
    /// Bytes that were not a text for whoever kept them.
    Bytes(Cow<'a, [u8]>),
    /// What the database calls text and is not UTF-8.
    Letters(Vec<u8>),
    /// As the server sent it: nobody could read it.
    Lost(Vec<u8>),
}

impl<'a> Value<'a> {
    /// Text if it is one, else bytes.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.into()),
            Err(_) => Self::Bytes(bytes.into()),
        }
    }

    /// A value of one of these words and its bytes.
    fn marked(word: &str, bytes: Vec<u8>) -> Option<Self> {
        Some(match word {
            "hex" => Self::Bytes(bytes.into()),
            "letters" => Self::Letters(bytes),
            "sent" => Self::Lost(bytes),
            _ => return None,
        })
    }
}

/// A record that is written, value by value.
#[derive(Debug, Default)]
pub(crate) struct Record {
    text: String,
}

impl Record {
    pub(crate) fn add(&mut self, column: &str, value: &Value<'_>) {
        // Enough is known of one that is too long.
        if self.text.len() > MOST {
            return;
        }
        self.text.push(if self.text.is_empty() { '{' } else { ',' });
        quote(&mut self.text, column);
        self.text.push(':');
        let mut marked = |word: &str, bytes: &[u8]| {
            let bytes = &bytes[..bytes.len().min(MOST)];
            let _ = write!(self.text, "{{\"{word}\":\"{}\"}}", hex(bytes));
        };
        match value {
            Value::Null => self.text.push_str("null"),
            Value::Plain(text) => self.text.push_str(text),
            Value::Text(text) => quote(&mut self.text, text),
            Value::Bytes(bytes) => marked("hex", bytes),
            Value::Letters(bytes) => marked("letters", bytes),
            Value::Lost(bytes) => marked("sent", bytes),
        }
    }

    /// The record; one that is too long ends anywhere.
    pub(crate) fn finish(self) -> String {
        let mut text = self.text;
        text.push_str(if text.is_empty() { "{}" } else { "}" });
        text.truncate(text.floor_char_boundary(MOST));
        text
    }
}

fn quote(out: &mut String, text: &str) {
    let shown = &text[..text.floor_char_boundary(2 * MOST)];
    // A text can always be written.
    out.push_str(&serde_json::to_string(shown).unwrap_or_default());
}

/// The values of a record, by their columns.
///
/// # Errors
/// [`ErrorKind::Data`] for what is no record of ours.
pub(super) fn values(record: &str) -> Result<Vec<(Cow<'_, str>, Value<'_>)>> {
    let wrong = || Error::new(ErrorKind::Data, "the record of a dead letter is not a row of a database");
    let mut whole = serde_json::Deserializer::from_str(record);
    IgnoredAny::deserialize(&mut whole).and_then(|_| whole.end()).map_err(|error| wrong().cause(error))?;
    entries(record.as_bytes(), |key, text| Some((key, value(text)?))).ok_or_else(wrong)
}

/// The entries of an object in a text that is JSON.
fn entries<'a, T>(object: &'a [u8], entry: impl Fn(Cow<'a, str>, &'a [u8]) -> Option<T>) -> Option<Vec<T>> {
    let mut walk = Walk::new(object);
    walk.space();
    if walk.peek() != Some(b'{') {
        return None;
    }
    let mut all = Vec::new();
    loop {
        walk.step();
        walk.space();
        if walk.peek() == Some(b'}') {
            return Some(all);
        }
        let key = unquoted(walk.value())?;
        walk.space();
        walk.step();
        walk.space();
        all.push(entry(key, walk.value())?);
        walk.space();
        if walk.peek() != Some(b',') {
            return Some(all);
        }
    }
}

fn value(text: &[u8]) -> Option<Value<'_>> {
    Some(match text.first()? {
        b'n' => Value::Null,
        b'"' => Value::Text(unquoted(text)?),
        b'{' => {
            let mut entries = entries(text, |key, inner| Some((key, unquoted(inner)?)))?;
            let (word, inner) = entries.pop().filter(|_| entries.is_empty())?;
            Value::marked(&word, unhexed(&inner)?)?
        }
        b'[' => return None,
        _ => Value::Plain(std::str::from_utf8(text).ok()?.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value<'static>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..20);
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(|number| Value::Plain(number.to_string().into())),
            any::<u64>().prop_map(|number| Value::Plain(number.to_string().into())),
            any::<f64>()
                .prop_filter("JSON has no word for it", |number| number.is_finite())
                .prop_map(|number| Value::Plain(format!("{number:?}").into())),
            any::<bool>().prop_map(|flag| Value::Plain(flag.to_string().into())),
            ".*".prop_map(|text| Value::Text(text.into())),
            "[0-9]{30,60}\\.[0-9]{1,40}".prop_map(|text| Value::Text(text.into())),
            bytes().prop_map(|bytes| Value::Bytes(bytes.into())),
            bytes().prop_map(Value::Letters),
            bytes().prop_map(Value::Lost),
        ]
    }

    proptest! {
        /// Whatever a row holds, its record holds it: the names of its columns too.
        #[test]
        fn a_record_is_read_as_it_was_written(row in prop::collection::vec((".*", any_value()), 0..12)) {
            let mut record = Record::default();
            row.iter().for_each(|(name, value)| record.add(name, value));
            let text = record.finish();
            prop_assert!(serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
            let found = values(&text).unwrap();
            prop_assert_eq!(found.len(), row.len());
            for ((name, value), (found_name, found)) in row.iter().zip(&found) {
                prop_assert_eq!((name.as_str(), value), (found_name.as_ref(), found));
            }
        }

        #[test]
        fn any_text_is_a_record_or_refused_and_never_a_panic(text in ".*", json in "[{}\\[\\]\",:a\\\\ n1]{0,40}") {
            let _ = (values(&text), values(&json));
        }
    }

    #[test]
    fn a_record_that_is_too_long_is_cut_where_it_cannot_be_read_again() {
        for letter in ["x", "ä", "\"", "\u{1F600}"] {
            let mut record = Record::default();
            record.add("a", &Value::Text(letter.repeat(MOST).into()));
            record.add("b", &Value::Bytes(vec![0; 3 * MOST].into()));
            let text = record.finish();
            assert!(text.len() > MOST - 4 && text.len() <= MOST, "{}", text.len());
        }
        assert_eq!(Record::default().finish(), "{}");
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        for text in [
            "",
            "[]",
            "5",
            "{\"a\": [1]}",
            "{\"a\": {}}",
            "{\"a\": {\"hex\": \"0\"}}",
            "{\"a\": {\"hex\": \"zz\"}}",
            "{\"a\": 1} x",
            "{\"a\": {\"b\": \"00\"}}",
        ] {
            assert!(values(text).is_err(), "{text}");
        }
    }
}
