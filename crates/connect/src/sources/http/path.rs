//! Places in a JSON document: `meta.next_cursor`, `data[-1].id`, `['a key'].x`; a leading `$.` is allowed.
//!
//! One value is looked for, without building the document in memory.

use super::raw::Raw;
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
    pub(super) fn find<'a>(&self, document: Raw<'a>) -> Option<Raw<'a>> {
        self.steps.iter().try_fold(document, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::At(at) => value.items()?.nth(usize::try_from(*at).ok()?),
            Step::FromEnd(back) => {
                let items: Vec<_> = value.items()?.collect();
                items.len().checked_sub(usize::try_from(*back).ok()?).and_then(|at| items.get(at).copied())
            }
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(path: &str, json: &str) -> Option<String> {
        let found = JsonPath::parse(path).unwrap().find(Raw::document(json.as_bytes()).unwrap());
        found.map(|raw| String::from_utf8(raw.text().to_vec()).unwrap())
    }

    #[test]
    fn a_path_leads_through_objects_and_lists() {
        let json = r#"{"meta": {"next": "a"}, "data": [{"id": 1}, {"id": "z"}], "a key": {"x.y": null}, "n": 1.50}"#;
        for (path, found) in [
            ("meta.next", "\"a\""),
            ("$.meta.next", "\"a\""),
            ("data[-1].id", "\"z\""),
            ("data[0].id", "1"),
            ("$['a key']['x.y']", "null"),
            ("n", "1.50"),
            ("data[1]", r#"{"id": "z"}"#),
        ] {
            assert_eq!(find(path, json).as_deref(), Some(found), "{path}");
        }
        for nowhere in ["nothing", "meta.next.further", "data[7].id", "data[-3].id", "data.id", "n[0]"] {
            assert_eq!(find(nowhere, json), None, "{nowhere}");
        }
        assert_eq!(find("[-1].id", r#"[{"id": 5}]"#).as_deref(), Some("5"));
        assert_eq!(find("[-1].id", "[]"), None);
        assert_eq!(find("a", r#"{"a": 12345678901234567890123}"#).as_deref(), Some("12345678901234567890123"));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in
            ["", "$", ".a", "a.", "a..b", "a[", "a[]", "a[x]", "a[-0]", "a['b]", "a]b", "a['b'c", "$a", "a[1", "a[+1]"]
        {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// Where the path leads in a value that is in memory.
    fn value<'v>(path: &JsonPath, mut value: &'v serde_json::Value) -> Option<&'v serde_json::Value> {
        for step in &path.steps {
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
                if let Ok(document) = Raw::document(text.as_bytes()) {
                    let _ = path.find(document);
                }
                prop_assert_eq!(JsonPath::parse(&path.to_string()), Ok(path));
            }
        }

        #[test]
        fn walking_a_text_finds_what_walking_the_value_finds(found in json(), steps in prop::collection::vec(step(), 1..4)) {
            let path = JsonPath { steps };
            let text = found.to_string();
            let walked = path.find(Raw::document(text.as_bytes()).unwrap()).map(|raw| raw.text().to_vec());
            prop_assert_eq!(walked, value(&path, &found).map(|value| value.to_string().into_bytes()));
        }
    }
}
