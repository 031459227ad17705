//! The records of a JSON page, by the rules of the reader of JSON files: keys lead through objects, lists on the way are
//! passed through, what stands at the end is a list of records or one record.

use gristmill_model::{Error, ErrorKind, Result};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// How many records there are at `keys`; none where the keys lead nowhere. The whole document is validated.
///
/// # Errors
/// A text that is not JSON.
pub(super) fn count(json: &[u8], keys: &[String]) -> serde_json::Result<Option<u64>> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let count = Count { keys, listed: false }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(count)
}

/// The records at `keys` of a document that is in memory.
///
/// # Errors
/// What is no record, or keys that lead nowhere.
pub(super) fn each<'v>(document: &'v Value, keys: &[String], found: &mut Vec<&'v Value>) -> Result<()> {
    match (document, keys.split_first()) {
        (Value::Array(items), Some(_)) => items.iter().try_for_each(|item| each(item, keys, found)),
        (Value::Object(map), Some((key, rest))) => match map.get(key) {
            Some(value) => each(value, rest, found),
            None => {
                let known: Vec<String> = map.keys().take(12).map(|key| format!("`{key}`")).collect();
                Err(Error::new(ErrorKind::Schema, format!("there is nothing at `{key}`"))
                    .hint(format!("there are {}", known.join(", "))))
            }
        },
        (Value::Array(items), None) => {
            found.extend(items);
            Ok(())
        }
        (Value::Object(_), None) => {
            found.push(document);
            Ok(())
        }
        (Value::Null, _) => Ok(()),
        _ => Err(Error::new(ErrorKind::Schema, "there are no records where records are expected")),
    }
}

#[derive(Clone, Copy)]
struct Count<'a> {
    keys: &'a [String],
    /// It is an item of the list of records.
    listed: bool,
}

impl Count<'_> {
    /// A scalar counts where a record should be: the reader says what is wrong with it.
    fn scalar(self) -> Option<u64> {
        self.keys.is_empty().then_some(1)
    }
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Option<u64>, D::Error> {
        if self.listed && self.keys.is_empty() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Some(1));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = Option<u64>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Option<u64>, E> {
        Ok(Some(0))
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Option<u64>, E> {
        Ok(self.scalar())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Option<u64>, E> {
        Ok(self.scalar())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Option<u64>, E> {
        Ok(self.scalar())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Option<u64>, E> {
        Ok(self.scalar())
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Option<u64>, E> {
        Ok(self.scalar())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Option<u64>, A::Error> {
        // An empty list on the way has no records; one of things that lead nowhere is another matter.
        let (mut count, mut is_empty) = (None, true);
        while let Some(inside) = items.next_element_seed(Count { listed: true, ..self })? {
            is_empty = false;
            count = inside.map_or(count, |inside| Some(count.unwrap_or(0) + inside));
        }
        Ok(if is_empty { Some(0) } else { count })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Option<u64>, A::Error> {
        let Some((wanted, rest)) = self.keys.split_first() else {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Some(1));
        };
        let mut count = None;
        while let Some(key) = entries.next_key::<Cow<'de, str>>()? {
            if key == wanted.as_str() {
                count = entries.next_value_seed(Count { keys: rest, listed: false })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        text.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn records_are_counted_where_the_keys_lead() {
        for (json, path, expected) in [
            ("[]", "", Some(0)),
            ("[{}, {\"a\": [1]}, 3]", "", Some(3)),
            ("{\"a\": 1}", "", Some(1)),
            ("{\"data\": {\"items\": [{}, {}]}}", "data.items", Some(2)),
            ("{\"data\": [{\"items\": [{}]}, {\"items\": [{}, {}]}]}", "data.items", Some(3)),
            ("{\"data\": null}", "data", Some(0)),
            ("{\"data\": {}}", "data", Some(1)),
            ("{\"other\": [1]}", "data", None),
            ("{\"data\": []}", "data.items", Some(0)),
            ("{\"data\": [{}]}", "data.items", None),
            ("{\"data\": null}", "data.items", Some(0)),
            ("{\"data\": 5}", "data.items", None),
            ("{\"data\": 5}", "data", Some(1)),
        ] {
            let count = count(json.as_bytes(), &keys(path)).unwrap();
            assert_eq!(count, expected, "{json} {path}");
            let document: Value = serde_json::from_str(json).unwrap();
            let mut found = Vec::new();
            if each(&document, &keys(path), &mut found).is_ok() {
                assert_eq!(Some(found.len() as u64), expected, "{json} {path}");
            }
        }
        assert!(count(b"[{\"a\": 1", &[]).unwrap_err().is_eof());
        assert!(count(b"<html>", &[]).unwrap_err().is_syntax());
    }
}
