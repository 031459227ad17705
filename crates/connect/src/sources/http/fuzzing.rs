//! What an API says as a function of bytes; see [`crate::fuzzing`].

use super::path::JsonPath;
use super::{link, records};

/// The header `Link`, line by line.
pub(crate) fn link(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = link::next(text.lines());
}

/// A place, up to the first line break, in the document behind it; and how many records there are.
pub(crate) fn page(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (place, document) = bytes.split_at(end);
    for place in [String::from_utf8_lossy(place).as_ref(), "data[-1].id", "meta.next"] {
        let Ok(path) = JsonPath::parse(place) else { continue };
        assert_eq!(JsonPath::parse(&path.to_string()).map(|again| again.to_string()), Ok(path.to_string()));
        let _ = path.find(document);
    }
    for keys in [vec![], vec!["data".to_owned()], vec!["data".to_owned(), "items".to_owned()]] {
        let count = records::count(document, &keys);
        if let Ok(whole) = serde_json::from_slice::<serde_json::Value>(document) {
            let mut found = Vec::new();
            if records::each(&whole, &keys, &mut found).is_ok() {
                assert_eq!(count.ok().flatten(), Some(found.len() as u64), "{keys:?}");
            }
        }
    }
}
