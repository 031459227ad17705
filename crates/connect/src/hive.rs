//! Names of files and folders, as sources read them and sinks write them: both must agree on what a reader sees.

use std::borrow::Cow;

/// What Hive and Spark write for NULL in a folder's name.
pub(crate) const NULL_TEXT: &str = "__HIVE_DEFAULT_PARTITION__";

/// The folder that makes the one around it a Delta table.
pub(crate) const DELTA_LOG: &str = "_delta_log";

/// Whether readers of folders and patterns leave this name out: it begins with `.`, or with `_` unless it is a
/// partition folder (Spark: `InMemoryFileIndex.shouldFilterOutPathName`), so that `_year=2024` is read.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || (name.starts_with('_') && !is_pair(name))
}

/// Whether a folder of this name is one of a partition: `name=value`.
pub(crate) fn is_pair(name: &str) -> bool {
    name.split_once('=').is_some_and(|(column, _)| !column.is_empty())
}

/// Undoes percent-encoding; what is not valid stays as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map_or_else(|_| text.to_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_folder_that_begins_with_an_underscore_is_not_hidden() {
        for name in ["_year=2024", "year=2024", "a.csv", "x=_1"] {
            assert!(!is_hidden(name), "{name}");
        }
        for name in ["_gristmill", "_SUCCESS", ".x=1", ".a.csv", "_"] {
            assert!(is_hidden(name), "{name}");
        }
    }

    #[test]
    fn only_whole_escapes_are_decoded() {
        for (text, plain) in [("a%2Fb", "a/b"), ("%+1", "%+1"), ("100%", "100%"), ("%4", "%4"), ("%FF", "%FF")] {
            assert_eq!(percent_decoded(text), plain);
        }
    }
}
