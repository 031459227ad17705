//! The comment of a new column, as its definition says it.

use crate::comments::comment_of;
use arrow::datatypes::Field;

/// Letters that a column's comment may have.
const MOST: usize = 1024;

/// ` COMMENT '…'`; nothing for a column without a comment.
///
/// Only a text in quotes may stand there, so this is for the sessions of loads: in their `sql_mode` a backslash escapes.
pub(super) fn clause(field: &Field) -> String {
    comment_of(field).map(|comment| format!(" COMMENT {}", text(comment))).unwrap_or_default()
}

fn text(comment: &str) -> String {
    let mut text = String::with_capacity(comment.len() + 2);
    text.push('\'');
    for letter in comment.chars().filter(|letter| *letter != '\0').take(MOST) {
        match letter {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            // The servers keep comments in their old `utf8`, which ends there.
            '\u{10000}'.. => text.push(char::REPLACEMENT_CHARACTER),
            _ => text.push(letter),
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the server makes of a text in quotes; what comes after its end.
    fn read(sql: &str) -> (String, &str) {
        let mut letters = sql.strip_prefix('\'').unwrap().char_indices();
        let (mut text, rest) = (String::new(), &sql[1..]);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => text.push(letters.next().unwrap().1),
                '\'' if rest[at + 1..].starts_with('\'') => text.push(letters.next().unwrap().1),
                '\'' => return (text, &rest[at + 1..]),
                _ => text.push(letter),
            }
        }
        panic!("`{sql}` has no end")
    }

    proptest! {
        #[test]
        fn a_comment_is_read_as_it_was_and_ends_where_it_ends(comment in "['\\\\\n a;`\"\u{0}-\u{ff}\u{1f600}]{0,40}") {
            let wanted: String = comment
                .chars()
                .filter(|letter| *letter != '\0')
                .map(|letter| if letter > '\u{ffff}' { '\u{fffd}' } else { letter })
                .collect();
            let sql = text(&comment);
            prop_assert_eq!(read(&sql), (wanted, ""));
        }
    }

    #[test]
    fn a_long_comment_is_cut_between_two_letters() {
        let sql = text(&"ä'".repeat(1000));
        assert_eq!(read(&sql), ("ä'".repeat(512), ""));
    }
}
