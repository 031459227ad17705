//! The records of a JSON page, by the rules of the reader of JSON files: keys lead through objects, lists on the way are
//! passed through, what stands at the end is a list of records or one record.

use super::raw::Raw;

/// Lists within lists on the way, at most.
const DEEPEST: usize = 100;

/// What stands where records are expected at `keys`, item by item; none where the keys lead nowhere. That `null` stands at
/// their end is no records. On the way to it, it is nothing: an answer that says `{"data": null, "errors": …}` has not
/// come to an end.
pub(super) fn each<'a>(document: Raw<'a>, keys: &[String]) -> Option<Vec<Raw<'a>>> {
    let mut found = Vec::new();
    below(document, keys, 0, &mut found).then_some(found)
}

/// Whether the keys lead somewhere; `lists` is how many there were on the way.
fn below<'a>(value: Raw<'a>, keys: &[String], lists: usize, found: &mut Vec<Raw<'a>>) -> bool {
    let Some((key, rest)) = keys.split_first() else {
        match value.items() {
            Some(items) => found.extend(items),
            None if value.is_null() => {}
            // A scalar counts where a record should be: the reader says what is wrong with it.
            None => found.push(value),
        }
        return true;
    };
    if let Some(items) = value.items() {
        // An empty list on the way has no records; one of things that lead nowhere is another matter.
        let (mut leads, mut is_empty) = (false, true);
        for item in items {
            is_empty = false;
            leads |= lists < DEEPEST && below(item, keys, lists + 1, found);
        }
        return leads || is_empty;
    }
    match value.get(key) {
        Some(inner) => below(inner, rest, lists, found),
        None => lists > 0 && value.is_null(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(json: &str, path: &str) -> Option<usize> {
        let keys: Vec<String> = path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
        each(Raw::document(json.as_bytes()).unwrap(), &keys).map(|found| found.len())
    }

    #[test]
    fn records_are_found_where_the_keys_lead() {
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
            ("{\"data\": [{\"items\": null}, null]}", "data.items", Some(0)),
            ("{\"data\": null}", "data.items", None),
            ("{\"data\": 5}", "data.items", None),
            ("{\"data\": 5}", "data", Some(1)),
        ] {
            assert_eq!(count(json, path), expected, "{json} {path}");
        }
    }

    #[test]
    fn lists_as_deep_as_can_be_do_not_end_the_process() {
        let depth = 100_000;
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(count(&text, "data.items"), None);
    }
}
