//! The header `Link` (RFC 8288): `<https://host/orders?page=2>; rel="next", <…>; rel="last"`.

use std::fmt::Write;

/// A field that speaks of a next link and cannot be read: to leave it out would end the pages early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The target of the first link whose relation is `next`; the field may be given several times.
///
/// # Errors
/// None is there, and a field that names one is not understood.
pub(super) fn next<'a>(fields: impl IntoIterator<Item = &'a str>) -> Result<Option<String>, Unreadable> {
    let mut is_lost = false;
    for field in fields {
        let (links, is_whole) = links(field);
        if let Some(link) = links.into_iter().find(Link::is_next) {
            return Ok(Some(link.target));
        }
        is_lost |= !is_whole && field.to_ascii_lowercase().contains("next");
    }
    if is_lost { Err(Unreadable) } else { Ok(None) }
}

/// A field as it came, with bytes that are no ASCII as a URL has them.
pub(super) fn ascii(field: &[u8]) -> String {
    field.iter().fold(String::with_capacity(field.len()), |mut text, byte| {
        if byte.is_ascii() {
            text.push(char::from(*byte));
        } else {
            // Writing a text into memory cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Link {
    target: String,
    /// The relation types, lower-case; only the first `rel` counts (RFC 8288, 3.3).
    rel: Option<String>,
}

impl Link {
    fn is_next(&self) -> bool {
        self.rel.as_ref().is_some_and(|rel| rel.split_ascii_whitespace().any(|rel| rel == "next"))
    }
}

/// Every link of a field, and whether that is all there is: what is no link is stepped over.
fn links(field: &str) -> (Vec<Link>, bool) {
    let mut links = Vec::new();
    let mut rest = field;
    let mut is_whole = true;
    while let Some(start) = rest.find('<') {
        // Between two links there is nothing but commas and spaces.
        is_whole &= is_between(&rest[..start]);
        let Some((target, after)) = rest[start + 1..].split_once('>') else { return (links, false) };
        let (rel, after) = parameters(after);
        links.push(Link { target: target.trim().to_owned(), rel });
        rest = after;
    }
    (links, is_whole && is_between(rest))
}

fn is_between(text: &str) -> bool {
    text.chars().all(|char| char == ',' || char.is_whitespace())
}

/// The `rel` among the parameters of a link, and what follows the link.
fn parameters(mut rest: &str) -> (Option<String>, &str) {
    let mut rel = None;
    loop {
        rest = rest.trim_start();
        let Some(parameter) = rest.strip_prefix(';') else {
            // The next link begins behind a comma.
            return (rel, rest.strip_prefix(',').unwrap_or(rest));
        };
        let parameter = parameter.trim_start();
        let end = parameter.find(['=', ';', ',']).unwrap_or(parameter.len());
        let name = parameter[..end].trim();
        rest = &parameter[end..];
        let mut value = String::new();
        if let Some(given) = rest.strip_prefix('=') {
            (value, rest) = self::value(given.trim_start());
        }
        if rel.is_none() && name.eq_ignore_ascii_case("rel") {
            rel = Some(value.to_ascii_lowercase());
        }
    }
}

/// A token or a quoted text, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, char) in quoted.char_indices() {
        match char {
            _ if escaped => {
                value.push(char);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(char),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        for (field, expected) in [
            (r#"<https://a/x?page=1>; rel="first", <https://a/x?page=3>; rel="next""#, Some("https://a/x?page=3")),
            (r#"<https://a/x?page=3>; rel=next"#, Some("https://a/x?page=3")),
            (r#"<b?a=1,2;3>; title="a, b; rel=\"next\""; rel="prev next last""#, Some("b?a=1,2;3")),
            (r#"</x>;REL="Next""#, Some("/x")),
            (r#"</x>; rel="prev"; rel="next""#, None),
            (r#"</x>; title="rel=next""#, None),
            (r#"</x>, </y>;rel=next"#, Some("/y")),
            (r#"</x>; rel, </y> ; rel = next ; x"#, Some("/y")),
            (r#"</x>; rel="nextish""#, None),
            ("", None),
            ("<", None),
            ("</x", None),
            (r#"</x>; rel="next"#, Some("/x")),
        ] {
            assert_eq!(next([field]), Ok(expected.map(str::to_owned)), "{field}");
        }
        assert_eq!(next([r#"</a>; rel="prev""#, r#"</b>; rel="next""#]), Ok(Some("/b".to_owned())));
    }

    #[test]
    fn a_field_that_speaks_of_a_next_link_and_cannot_be_read_is_not_the_end() {
        for broken in ["</x?page=2; rel=next", "https://a/x?page=2; rel=\"next\"", "</x>; rel=prev, /y; rel=Next"] {
            assert_eq!(next([broken]), Err(Unreadable), "{broken}");
        }
        assert_eq!(next(["/y; rel=next", "</x>; rel=next"]), Ok(Some("/x".to_owned())));
    }

    #[test]
    fn bytes_that_are_no_ascii_are_those_of_a_url() {
        let field = [&b"</x?after=S\xe3o\xc3\xa9>; title=\"\xff\"; rel=\"next\""[..]].concat();
        let field = ascii(&field);
        assert_eq!(next([field.as_str()]), Ok(Some("/x?after=S%E3o%C3%A9".to_owned())));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_hang(field in "[<>;,=\" \\\\a-zé]{0,60}") {
            let _ = next([field.as_str()]);
        }

        #[test]
        fn what_was_written_is_read(
            targets in prop::collection::vec(("[a-z/?=&,;]{0,12}", "[a-z ]{0,8}", "[ -~&&[^\"\\\\]]{0,8}"), 1..5),
        ) {
            let field: Vec<String> = targets
                .iter()
                .map(|(target, rel, title)| format!("<{target}>; title=\"{title}\"; rel=\"{rel}\""))
                .collect();
            let (read, is_whole) = links(&field.join(", "));
            prop_assert!(is_whole);
            let written: Vec<Link> = targets
                .iter()
                .map(|(target, rel, _)| Link { target: target.clone(), rel: Some(rel.clone()) })
                .collect();
            prop_assert_eq!(read, written);
        }
    }
}
