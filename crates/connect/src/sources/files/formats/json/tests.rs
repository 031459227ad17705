use super::split::{Item, Splitter};
use proptest::prelude::*;

/// The items of a document cut into chunks of these sizes, and what went wrong.
fn split(text: &[u8], path: Option<&str>, sizes: &[usize]) -> (Vec<String>, Option<String>) {
    let mut items = Vec::new();
    let mut take = |item: Item<'_>| {
        items.push(match item {
            Item::Record(text) => String::from_utf8(text.to_vec()).unwrap(),
            Item::NotARow(what) => format!("<{what}>"),
        });
        Ok(())
    };
    let mut splitter = Splitter::new(path);
    let mut rest = text;
    let mut sizes = sizes.iter().copied().cycle();
    let mut problem = None;
    while !rest.is_empty() && problem.is_none() {
        let (chunk, later) = rest.split_at(sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len()));
        rest = later;
        problem = splitter.push(chunk, &mut take).err();
    }
    let problem = problem.or_else(|| splitter.finish().err());
    (items, problem.map(|problem| format!("{problem:?}")))
}

/// Texts that are JSON, nearly JSON, or neither.
fn document() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"data\"",
        "\"\\u00e9\\\"\"",
        "1",
        "-0.5e3",
        "true",
        "null",
        " ",
        "\n",
        "é",
        "\"é\"",
    ]);
    let soup = prop::collection::vec(token, 0..30).prop_map(|tokens| tokens.concat());
    let valid =
        prop::collection::vec(prop::collection::hash_map("[a-d\"\\\\é]{0,3}", "[\"\\\\{}\\[\\],:é ]{0,6}", 0..4), 0..6)
            .prop_map(|objects| serde_json::to_string_pretty(&objects).unwrap());
    let nested =
        valid.clone().prop_map(|list| format!("{{\"x\": [1, {{}}], \"data\": {{\"a\": {list}}}, \"y\": null}}"));
    prop_oneof![soup, valid, nested]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn records_are_the_same_at_any_chunk_size(
        text in document(),
        sizes in prop::collection::vec(1_usize..9, 1..5),
        path in prop::sample::select(vec![None, Some("data.a"), Some("a")]),
    ) {
        let whole = split(text.as_bytes(), path, &[]);
        prop_assert_eq!(&split(text.as_bytes(), path, &sizes), &whole);
        prop_assert_eq!(&split(text.as_bytes(), path, &[1]), &whole);
    }

    #[test]
    fn one_document_is_valid_exactly_if_serde_json_says_so(text in document()) {
        let ours = split(text.as_bytes(), Some("no.such.path"), &[3]).1.is_none();
        let mut theirs = serde_json::Deserializer::from_str(&text);
        let one = serde::de::Deserialize::deserialize(&mut theirs).map(|_: serde::de::IgnoredAny| ());
        if one.is_ok() && theirs.end().is_ok() {
            prop_assert!(ours, "{text}");
        } else if ours {
            // Objects may follow each other.
            let all: Result<Vec<serde_json::Value>, _> =
                serde_json::Deserializer::from_str(&text).into_iter().collect();
            prop_assert!(all.is_ok_and(|all| all.len() > 1 && all.iter().all(serde_json::Value::is_object)), "{text}");
        }
    }
}

#[test]
fn a_key_that_stands_twice_on_the_path_is_refused() {
    let (items, problem) = split(b"{\"a\": [{}], \"a\": [{}]}", Some("a"), &[]);
    assert_eq!(items, ["{}"]);
    assert!(problem.unwrap().contains("stands twice"));
}

#[test]
fn only_objects_may_follow_each_other() {
    assert!(split(b"[1] [2]", None, &[]).1.is_some());
    assert!(split(b"{} 1", None, &[]).1.is_some());
    assert!(split(b"1 {}", None, &[]).1.is_some());
    assert_eq!(split(b"{}{} {}", None, &[]).0.len(), 3);
}
