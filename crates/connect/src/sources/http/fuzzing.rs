//! What an API says as a function of bytes; see [`crate::fuzzing`].

use super::path::JsonPath;
use super::raw::Raw;
use super::{faults, link, records};
use reqwest::header::{HeaderMap, HeaderValue};

/// The header `Link`, line by line.
pub(crate) fn link(bytes: &[u8]) {
    let text = link::ascii(bytes);
    assert!(text.is_ascii());
    let _ = link::next(text.lines());
    let now = chrono::DateTime::UNIX_EPOCH;
    for name in ["retry-after", "x-ratelimit-reset"] {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(bytes) {
            headers.insert(name, value);
        }
        let _ = faults::told_to_wait(429, &headers, now);
    }
}

/// A place, up to the first line break, in the document behind it; and how many records there are.
pub(crate) fn page(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (place, document) = bytes.split_at(end);
    let whole = Raw::document(document).ok();
    let value = serde_json::from_slice::<serde_json::Value>(document).ok();
    assert!(value.is_none() || whole.is_some(), "what is JSON is refused");
    for place in [String::from_utf8_lossy(place).as_ref(), "data[-1].id", "meta.next"] {
        let Ok(path) = JsonPath::parse(place) else { continue };
        assert_eq!(JsonPath::parse(&path.to_string()).map(|again| again.to_string()), Ok(path.to_string()));
        if let Some(found) = whole.and_then(|whole| path.find(whole)) {
            // What was cut out of a document is a document.
            assert!(Raw::document(found.text()).is_ok_and(|again| again == found), "{path}");
            let _ = found.scalar();
        }
    }
    let Some(whole) = whole else { return };
    for keys in [vec![], vec!["data".to_owned()], vec!["data".to_owned(), "items".to_owned()]] {
        for record in records::each(whole, &keys).unwrap_or_default() {
            assert!(Raw::document(record.text()).is_ok(), "{keys:?}");
        }
    }
    // What stands at a key is what serde finds there, which takes the last of equal ones, too.
    if let (Some(serde_json::Value::Object(map)), true) = (&value, document.len() < 10_000) {
        for (key, value) in map {
            let found = whole.get(key).and_then(|raw| serde_json::from_slice::<serde_json::Value>(raw.text()).ok());
            assert_eq!(found.as_ref(), Some(value), "{key}");
        }
    }
}
