//! Reading a `.env` file.

use gristmill_model::yaml::Diagnostic;
use std::collections::BTreeMap;

/// Reads `KEY=VALUE` lines.
///
/// Blank lines and lines that begin with `#` are left out, `export ` may stand before a key. A value without quotes
/// ends at ` #` or the end of the line and is trimmed; in single quotes it is taken as it stands; in double quotes
/// `\n`, `\r`, `\t`, `\"`, `\\` and `\$` are understood. A quoted value may go over several lines. Nothing is expanded
/// in a value. Mistakes name places and keys, never values.
pub(super) fn parse(file: &str, text: &str) -> Result<BTreeMap<String, String>, Vec<Diagnostic>> {
    let mut values = BTreeMap::new();
    let mut mistakes = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    while !rest.is_empty() {
        let end = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let this = rest[..end].trim();
        if this.is_empty() || this.starts_with('#') {
            rest = &rest[end..];
            line += 1;
            continue;
        }
        let mut complain = |message: String, hint: &str| {
            let hint = Some(hint.to_owned());
            mistakes.push(Diagnostic { file: file.to_owned(), line, column: 1, message, hint });
        };
        let declared = rest.trim_start();
        let declared = declared
            .strip_prefix("export")
            .filter(|after| after.starts_with([' ', '\t']))
            .map_or(declared, str::trim_start);
        let key_end = declared.find(['=', '\n']).unwrap_or(declared.len());
        let key = declared[..key_end].trim();
        let fine = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !fine || !declared[key_end..].starts_with('=') {
            complain("the line is not `KEY=VALUE`".to_owned(), "a key is letters, digits and underscores");
            rest = &rest[end..];
            line += 1;
            continue;
        }
        let after = declared[key_end + 1..].trim_start_matches([' ', '\t']);
        let (value, consumed) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => match quoted(&after[1..], quote) {
                Some((value, length)) => (value, &after[1 + length..]),
                None => {
                    complain(format!("the quote of `{key}` is never closed"), "close it, or leave the quotes out");
                    break;
                }
            },
            _ => {
                let end = after.find('\n').unwrap_or(after.len());
                let plain = &after[..end];
                let comment =
                    plain.char_indices().find(|(at, c)| *c == '#' && (*at == 0 || plain[..*at].ends_with([' ', '\t'])));
                let value = plain[..comment.map_or(plain.len(), |(at, _)| at)].trim().to_owned();
                (value, &after[end..])
            }
        };
        let tail_end = consumed.find('\n').map_or(consumed.len(), |at| at + 1);
        let tail = consumed[..tail_end].trim();
        if !tail.is_empty() && !tail.starts_with('#') {
            complain(format!("there is text after the closing quote of `{key}`"), "put all of the value in quotes");
        }
        values.insert(key.to_owned(), value);
        let next = &consumed[tail_end..];
        line += rest[..rest.len() - next.len()].matches('\n').count();
        rest = next;
    }
    if mistakes.is_empty() { Ok(values) } else { Err(mistakes) }
}

/// The value up to its closing quote, and how many bytes it took with the quote.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((value, at + 1));
        }
        if c != '\\' || quote == '\'' {
            value.push(c);
            continue;
        }
        match chars.next()?.1 {
            'n' => value.push('\n'),
            'r' => value.push('\r'),
            't' => value.push('\t'),
            known @ ('"' | '\\' | '$') => value.push(known),
            other => {
                value.push('\\');
                value.push(other);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_and_values_are_read_as_shells_and_docker_do() {
        let text = "# a comment\n\nA=1\nexport B = two words  # why\nC='it''s'\nD=\"a\\nb \\\"c\\\" #no\" # yes\nE=\nF=a#b\r\nG=\"two\nlines\"\nexported=x\n";
        let text = text.replace("'it''s'", "'it is $HOME \\n'");
        let values = parse(".env", &text).unwrap();
        let seen: Vec<(&str, &str)> = values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", "it is $HOME \\n"),
                ("D", "a\nb \"c\" #no"),
                ("E", ""),
                ("F", "a#b"),
                ("G", "two\nlines"),
                ("exported", "x"),
            ]
        );
    }

    #[test]
    fn mistakes_name_their_lines_and_no_values() {
        let mistakes = parse(".env", "A=1\nhunter2\nB=\"x\ny\" hunter2\n1C=hunter2\nD='hunter2").unwrap_err();
        let lines: Vec<usize> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [2, 3, 5, 6]);
        assert!(!format!("{mistakes:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn a_double_quoted_value_reads_back(value in "[^\0]*") {
            let written = value.replace('\\', "\\\\").replace('"', "\\\"");
            let values = parse(".env", &format!("KEY=\"{written}\"\nNEXT=1\n")).unwrap();
            prop_assert_eq!(&values["KEY"], &value);
            prop_assert_eq!(&values["NEXT"], "1");
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*(\n[A-Z =#'\"\\\\]*){0,4}") {
            let _ = parse(".env", &text);
        }
    }
}
