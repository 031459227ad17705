//! What must not be shown: some servers answer with what they were sent.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

/// Fetched tokens that are remembered, at most: the latest.
const MOST_FETCHED: usize = 64;

/// A text of fewer letters is in every other word.
const SHORTEST: usize = 4;

/// Texts that are taken out of whatever is shown.
#[derive(Default)]
pub(super) struct Secrets {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// What was configured.
    fixed: Vec<String>,
    /// What was given out meanwhile.
    fetched: VecDeque<String>,
}

impl Secrets {
    pub(super) fn new(texts: &[String]) -> Self {
        let secrets = Self::default();
        texts.iter().for_each(|text| secrets.add(text));
        secrets
    }

    /// One that stays.
    pub(super) fn add(&self, secret: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.fixed.iter().any(|other| other == secret) {
            known.fixed.push(secret.to_owned());
        }
    }

    /// One that was given out, and will be followed by others.
    pub(super) fn add_fetched(&self, secret: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.fetched.iter().any(|other| other == secret) {
            return;
        }
        if known.fetched.len() >= MOST_FETCHED {
            known.fetched.pop_front();
        }
        known.fetched.push_back(secret.to_owned());
    }

    /// A text without them, however they are written in it.
    pub(super) fn masked(&self, text: &str) -> String {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let all = known.fixed.iter().chain(&known.fetched);
        let mut forms: Vec<String> = all.flat_map(|secret| forms(secret)).collect();
        forms.retain(|form| form.len() >= SHORTEST);
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        let mut text = text.to_owned();
        for form in forms {
            if text.contains(&form) {
                text = text.replace(&form, "…");
            }
        }
        text
    }
}

/// A text as it is, as it stands in a URL, in JSON and in HTML.
fn forms(secret: &str) -> Vec<String> {
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let json = serde_json::Value::from(secret).to_string();
    let json = json.trim_matches('"').to_owned();
    let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let mut forms = vec![
        secret.to_owned(),
        form.replace('+', "%20"),
        lower(&form),
        form,
        json.replace('/', "\\/"),
        json,
        html.replace('\'', "&#39;"),
        html,
    ];
    forms.sort();
    forms.dedup();
    forms
}

/// With small letters in its escapes: `%2f`.
fn lower(form: &str) -> String {
    let mut text = String::with_capacity(form.len());
    let mut left = 0;
    for char in form.chars() {
        text.push(if left > 0 { char.to_ascii_lowercase() } else { char });
        left = if char == '%' { 2 } else { left.max(1) - 1 };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_however_it_is_written() {
        let secrets = Secrets::new(&["a/B+c=\"d".to_owned(), "abc".to_owned(), "word".to_owned()]);
        for text in
            ["a/B+c=\"d", "a%2FB%2Bc%3D%22d", "a%2fB%2bc%3d%22d", r#"a/B+c=\"d"#, r#"a\/B+c=\"d"#, "a/B+c=&quot;d"]
        {
            assert_eq!(secrets.masked(&format!("x {text} y")), "x … y", "{text}");
        }
        assert_eq!(secrets.masked("abc word swordfish"), "abc … s…fish", "three letters are in every other word");
        for number in 0..100 {
            secrets.add_fetched(&format!("token-{number:03}"));
        }
        assert_eq!(secrets.masked("token-099 token-010 word"), "… token-010 …");
    }
}
