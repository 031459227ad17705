//! Names of tables as pipelines write them, whichever database they are in.

/// The parts of `table` or `schema.table`; a part with dots stands between quotes, where a quote is written twice.
///
/// # Errors
/// What is wrong, for people: an open quote, an empty part, a NUL.
pub(crate) fn table_parts(text: &str, quote: char) -> Result<Vec<String>, &'static str> {
    let mut parts: Vec<String> = Vec::new();
    let (mut part, mut inside) = (String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter == quote && inside && letters.peek() == Some(&quote) => {
                letters.next();
                part.push(quote);
            }
            _ if letter == quote => inside = !inside,
            '.' if !inside => parts.push(std::mem::take(&mut part)),
            '\0' => return Err("it holds a NUL"),
            _ => part.push(letter),
        }
    }
    parts.push(part);
    if inside {
        return Err("a quote is open");
    }
    if parts.iter().any(String::is_empty) {
        return Err("a part is empty");
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart_at_dots_outside_of_quotes() {
        let parts = |text: &str, quote: char| table_parts(text, quote).map(|parts| parts.join("|"));
        assert_eq!(parts("t", '"').as_deref(), Ok("t"));
        assert_eq!(parts("s.\"a.\"\"b\"", '"').as_deref(), Ok("s|a.\"b"));
        assert_eq!(parts("s.`a.``b`", '`').as_deref(), Ok("s|a.`b"));
        assert_eq!(parts("\"a", '"'), Err("a quote is open"));
        assert_eq!(parts("s.", '"'), Err("a part is empty"));
        assert_eq!(parts("", '`'), Err("a part is empty"));
        assert_eq!(parts("a\0", '"'), Err("it holds a NUL"));
    }
}
