//! Places in a JSON document: `meta.next_cursor`, `data[-1].id`, `['a key'].x`; a leading `$.` is allowed.
//!
//! One value is looked for, without building the document in memory: serde walks it once, and everything beside the path
//! is skipped (and validated).

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A place in a JSON document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    /// The item at this position of a list.
    At(u64),
    /// The item so far from the end; 1 is the last.
    FromEnd(u64),
}

/// What stands at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A text.
    Text(String),
    /// A number, as it may be sent back.
    Number(String),
    /// A whole number of so many digits that some of them were lost.
    Inexact,
    /// An object or a list.
    Nested,
}

impl JsonPath {
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut first = rest.len() == text.len();
        while !rest.is_empty() {
            rest = if let Some(inner) = rest.strip_prefix('[') {
                let (step, rest) = in_brackets(inner).ok_or_else(|| broken(text))?;
                steps.push(step);
                rest
            } else {
                let key = match rest.strip_prefix('.') {
                    Some(key) if !first => key,
                    None if first => rest,
                    _ => return Err(broken(text)),
                };
                let end = key.find(['.', '[']).unwrap_or(key.len());
                if end == 0 || key[..end].contains([']', '"', '\'']) {
                    return Err(broken(text));
                }
                steps.push(Step::Key(key[..end].to_owned()));
                &key[end..]
            };
            first = false;
        }
        if steps.is_empty() { Err(broken(text)) } else { Ok(Self { steps }) }
    }

    /// The value at this place of a document; none where there is nothing.
    ///
    /// # Errors
    /// A text that is not JSON.
    pub(super) fn find(&self, json: &[u8]) -> serde_json::Result<Option<Found>> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let found = Walk(&self.steps).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(found)
    }

    /// The value at this place of a value that is in memory.
    pub(super) fn value<'v>(&self, mut value: &'v serde_json::Value) -> Option<&'v serde_json::Value> {
        for step in &self.steps {
            value = match step {
                Step::Key(key) => value.get(key)?,
                Step::At(at) => value.get(usize::try_from(*at).ok()?)?,
                Step::FromEnd(back) => {
                    let items = value.as_array()?;
                    items.get(items.len().checked_sub(usize::try_from(*back).ok()?)?)?
                }
            };
        }
        Some(value)
    }
}

fn broken(text: &str) -> String {
    format!("`{text}` is not a place in JSON; write it like `meta.next`, `data[-1].id` or `['a key'].x`")
}

fn in_brackets(inner: &str) -> Option<(Step, &str)> {
    if let Some(quote) = inner.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        let (key, rest) = inner[1..].split_once(quote)?;
        return Some((Step::Key(key.to_owned()), rest.strip_prefix(']')?));
    }
    let (number, rest) = inner.split_once(']')?;
    let digits = |text: &str| {
        if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<u64>().ok() } else { None }
    };
    let step = match number.strip_prefix('-') {
        Some(back) => Step::FromEnd(digits(back).filter(|back| *back > 0)?),
        None => Step::At(digits(number)?),
    };
    Some((step, rest))
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps.iter().enumerate() {
            match step {
                Step::Key(key) if key.is_empty() || key.contains(['.', '[', ']', '"', '\'', '$']) => {
                    let quote = if key.contains('\'') { '"' } else { '\'' };
                    write!(f, "[{quote}{key}{quote}]")?;
                }
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::At(at) => write!(f, "[{at}]")?,
                Step::FromEnd(back) => write!(f, "[-{back}]")?,
            }
        }
        Ok(())
    }
}

/// Walks to where the steps lead.
#[derive(Clone, Copy)]
struct Walk<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<Found>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Found>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Walk<'_> {
    /// A scalar: what is looked for, or a place where no path leads on.
    fn here(self, found: Found) -> Option<Found> {
        self.0.is_empty().then_some(found)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<Found>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Option<Found>, E> {
        Ok(self.here(Found::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<Found>, E> {
        Ok(self.here(Found::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<Found>, E> {
        Ok(self.here(Found::Number(value.to_string())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<Found>, E> {
        Ok(self.here(Found::Number(value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<Found>, E> {
        // The parser makes a float of a whole number beyond 64 bits.
        let whole = value.fract() == 0.0 && value.abs() >= 9e15;
        Ok(self.here(if whole { Found::Inexact } else { Found::Number(value.to_string()) }))
    }

    fn visit_str<E>(self, value: &str) -> Result<Option<Found>, E> {
        Ok(self.here(Found::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<Found>, A::Error> {
        let mut found = None;
        match self.0.split_first() {
            Some((Step::At(wanted), rest)) => {
                let mut at = 0;
                loop {
                    if at == *wanted {
                        match items.next_element_seed(Walk(rest))? {
                            Some(value) => found = value,
                            None => break,
                        }
                    } else if items.next_element::<IgnoredAny>()?.is_none() {
                        break;
                    }
                    at += 1;
                }
            }
            Some((Step::FromEnd(back), rest)) => {
                let mut last = std::collections::VecDeque::new();
                while let Some(value) = items.next_element_seed(Walk(rest))? {
                    last.push_back(value);
                    if last.len() as u64 > *back {
                        last.pop_front();
                    }
                }
                if last.len() as u64 == *back {
                    found = last.pop_front().flatten();
                }
            }
            other => {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                found = other.is_none().then_some(Found::Nested);
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Option<Found>, A::Error> {
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(self.0.is_empty().then_some(Found::Nested));
        };
        let mut found = None;
        while let Some(key) = entries.next_key::<Cow<'de, str>>()? {
            // The last of equal keys is the one that counts.
            if key == wanted.as_str() {
                found = entries.next_value_seed(Walk(rest))?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(path: &str, json: &str) -> Option<Found> {
        JsonPath::parse(path).unwrap().find(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_path_leads_through_objects_and_lists() {
        let text = |text: &str| Some(Found::Text(text.to_owned()));
        let json = r#"{"meta": {"next": "a"}, "data": [{"id": 1}, {"id": "z"}], "a key": {"x.y": null}, "n": 1.50}"#;
        assert_eq!(find("meta.next", json), text("a"));
        assert_eq!(find("$.meta.next", json), text("a"));
        assert_eq!(find("data[-1].id", json), text("z"));
        assert_eq!(find("data[0].id", json), Some(Found::Number("1".to_owned())));
        assert_eq!(find("$['a key']['x.y']", json), Some(Found::Null));
        assert_eq!(find("n", json), Some(Found::Number("1.5".to_owned())));
        assert_eq!(find("data", json), Some(Found::Nested));
        for nowhere in ["nothing", "meta.next.further", "data[7].id", "data[-3].id", "data.id", "n[0]"] {
            assert_eq!(find(nowhere, json), None, "{nowhere}");
        }
        assert_eq!(find("[-1].id", r#"[{"id": 5}]"#), Some(Found::Number("5".to_owned())));
        assert_eq!(find("[-1].id", "[]"), None);
        assert_eq!(find("a", r#"{"a": 12345678901234567890123}"#), Some(Found::Inexact));
        assert_eq!(find("a", r#"{"a": 18446744073709551615}"#), Some(Found::Number("18446744073709551615".to_owned())));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in
            ["", "$", ".a", "a.", "a..b", "a[", "a[]", "a[x]", "a[-0]", "a['b]", "a]b", "a['b'c", "$a", "a[1", "a[+1]"]
        {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_json_is_an_error_also_beside_the_path() {
        let path = JsonPath::parse("a").unwrap();
        assert!(path.find(br#"{"a": 1, "b": [}"#).is_err());
        assert!(path.find(br#"{"a": 1"#).unwrap_err().is_eof());
        assert!(path.find(br#"{"a": 1} x"#).is_err());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            "[a-z.'\\[\\] ]{0,4}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map("[a-c.' ]{0,2}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            "[a-c.' ]{0,2}".prop_map(Step::Key),
            (0_u64..4).prop_map(Step::At),
            (1_u64..4).prop_map(Step::FromEnd),
        ]
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\PC]{0,20}", path in "[a-z$.\\[\\]'\"0-9-]{0,12}") {
            let _ = JsonPath::parse(&text);
            if let Ok(path) = JsonPath::parse(&path) {
                let _ = path.find(text.as_bytes());
                prop_assert_eq!(JsonPath::parse(&path.to_string()), Ok(path));
            }
        }

        #[test]
        fn walking_a_text_finds_what_walking_the_value_finds(value in json(), steps in prop::collection::vec(step(), 1..4)) {
            let path = JsonPath { steps };
            let found = path.find(value.to_string().as_bytes()).unwrap();
            let expected = path.value(&value).map(|value| match value {
                serde_json::Value::Null => Found::Null,
                serde_json::Value::Bool(bool) => Found::Bool(*bool),
                serde_json::Value::Number(number) => Found::Number(number.to_string()),
                serde_json::Value::String(text) => Found::Text(text.clone()),
                _ => Found::Nested,
            });
            prop_assert_eq!(found, expected);
        }
    }
}
