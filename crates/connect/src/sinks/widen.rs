//! What is said about columns that a load adds to a table, or makes wider.

use gristmill_model::did_you_mean;

/// A note for each column that the rows have and the table has not. A new column that is named much like one that the
/// rows lack is most likely misspelt: its values would be missing in the other.
pub(super) fn added<'a>(
    table: &str,
    given: &[&'a str],
    there: &[&'a str],
    same: impl Fn(&str, &str) -> bool,
) -> Vec<String> {
    let lacking: Vec<&str> =
        there.iter().copied().filter(|known| !given.iter().any(|name| same(name, known))).collect();
    let new = given.iter().filter(|name| !there.iter().any(|known| same(name, known)));
    new.map(|name| match did_you_mean(name, lacking.iter().copied()) {
        Some(near) => format!(
            "adds the column `{name}` to `{table}`; the rows have no `{near}`, which will be NULL: is it misspelt?"
        ),
        None => format!("adds the column `{name}` to `{table}`"),
    })
    .collect()
}

/// A note for a column that becomes wider.
pub(super) fn widened(table: &str, column: &str, from: &str, to: &str) -> String {
    format!("widens the column `{column}` of `{table}` from {from} to {to}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_column_is_told_and_one_that_looks_misspelt_is_told_so() {
        let notes = added("t", &["id", "amout", "note"], &["ID", "amount"], |a, b| a.eq_ignore_ascii_case(b));
        assert_eq!(
            notes,
            [
                "adds the column `amout` to `t`; the rows have no `amount`, which will be NULL: is it misspelt?",
                "adds the column `note` to `t`"
            ]
        );
        assert!(added("t", &["id"], &["id", "amount"], |a, b| a == b).is_empty());
    }
}
