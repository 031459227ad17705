//! Values of a JSON text as they stand there: a number keeps its digits, however many there are.

use crate::json_text::{Walk, unquoted};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// A value in a text that is JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raw<'a>(&'a [u8]);

/// A value that is neither an object nor a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it stands there.
    Number(String),
    /// A text.
    Text(String),
}

impl Scalar {
    /// For a URL, a header or a column: a text without its quotes.
    pub(super) fn plain(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(text) | Self::Text(text) => text.clone(),
        }
    }
}

impl<'a> Raw<'a> {
    /// The document of a text. All of it is looked at.
    ///
    /// # Errors
    /// A text that is not JSON.
    pub(super) fn document(text: &'a [u8]) -> serde_json::Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        IgnoredAny::deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(Self(text.trim_ascii()))
    }

    /// Its text.
    pub(super) fn text(self) -> &'a [u8] {
        self.0
    }

    /// The items of a list; none for anything else.
    pub(super) fn items(self) -> Option<impl Iterator<Item = Raw<'a>>> {
        let mut walk = self.inside(b'[')?;
        Some(std::iter::from_fn(move || {
            between(&mut walk);
            match walk.peek()? {
                b']' => None,
                _ => Some(Self(walk.value())),
            }
        }))
    }

    /// The value of an object's key; the last of equal keys is the one that counts.
    pub(super) fn get(self, wanted: &str) -> Option<Raw<'a>> {
        let mut walk = self.inside(b'{')?;
        let mut found = None;
        loop {
            between(&mut walk);
            if walk.peek() != Some(b'"') {
                return found;
            }
            let key = walk.value();
            walk.space();
            walk.step();
            walk.space();
            let value = walk.value();
            if unquoted(key).is_some_and(|key| key == wanted) {
                found = Some(Self(value));
            }
        }
    }

    pub(super) fn is_null(self) -> bool {
        self.0 == b"null"
    }

    /// The value, unless it is an object or a list.
    ///
    /// # Errors
    /// A text that is not UTF-8.
    pub(super) fn scalar(self) -> serde_json::Result<Option<Scalar>> {
        Ok(match self.0.first() {
            Some(b'{' | b'[') => None,
            Some(b'"') => Some(Scalar::Text(serde_json::from_slice(self.0)?)),
            Some(b't') => Some(Scalar::Bool(true)),
            Some(b'f') => Some(Scalar::Bool(false)),
            Some(b'n') | None => Some(Scalar::Null),
            Some(_) => Some(Scalar::Number(String::from_utf8_lossy(self.0).into_owned())),
        })
    }

    fn inside(self, bracket: u8) -> Option<Walk<'a>> {
        let mut walk = Walk::new(self.0);
        let is_one = walk.peek() == Some(bracket);
        walk.step();
        is_one.then_some(walk)
    }
}

fn between(walk: &mut Walk<'_>) {
    walk.space();
    if walk.peek() == Some(b',') {
        walk.step();
        walk.space();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// What a value says, walked to its ends.
    fn built(raw: Raw<'_>) -> Value {
        if let Some(items) = raw.items() {
            return items.map(built).collect();
        }
        match raw.scalar().unwrap() {
            Some(Scalar::Null) => Value::Null,
            Some(Scalar::Bool(value)) => value.into(),
            Some(Scalar::Number(text)) => serde_json::from_str(&text).unwrap(),
            Some(Scalar::Text(text)) => text.into(),
            None => {
                let whole: serde_json::Map<String, Value> = serde_json::from_slice(raw.text()).unwrap();
                whole.keys().map(|key| (key.clone(), built(raw.get(key).unwrap()))).collect()
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\\\\\"{}\\[\\],: é\n]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c\"\\\\:]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn walking_a_text_finds_what_it_says(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            prop_assert_eq!(built(Raw::document(text.as_bytes()).unwrap()), value);
        }
    }

    #[test]
    fn numbers_keep_their_digits_and_the_last_of_equal_keys_counts() {
        let raw = Raw::document(b" {\"a\" : 1, \"\\u0061\":12345678901234567890123 ,\"b\":1.50} ").unwrap();
        let number = |key: &str| raw.get(key).unwrap().scalar().unwrap();
        assert_eq!(number("a"), Some(Scalar::Number("12345678901234567890123".to_owned())));
        assert_eq!(number("b"), Some(Scalar::Number("1.50".to_owned())));
        assert!(raw.get("c").is_none() && raw.items().is_none());
        assert_eq!(built(Raw::document(b"[ ]").unwrap()), json!([]));
        for wrong in [&b""[..], b"[1", b"[1] x", b"{\"a\": 01}", b"\"a"] {
            assert!(Raw::document(wrong).is_err(), "{wrong:?}");
        }
    }
}
