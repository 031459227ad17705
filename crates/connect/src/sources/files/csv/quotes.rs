//! A fast look at the quotes of a local file, before the engine's scan may have it.
//!
//! The engine cuts big CSV files at any line break and never says that a quote was not closed. So a file is looked
//! through first: without a line break in quotes it can be cut at any; with some, but all quotes closed, it can be read
//! from beginning to end.

use super::slices::{Surveyed, survey};
use super::survey::{Rules, State};
use std::fs::File;
use std::io;
use std::path::Path;

/// What the quotes of a file are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources::files) struct Quotes {
    /// There are some.
    pub(in crate::sources::files) any: bool,
    /// Nothing stands between some of them: the empty text, which is not NULL.
    pub(in crate::sources::files) empty: bool,
    /// A line break stands between some of them.
    pub(in crate::sources::files) broken: bool,
    /// The last one does not close.
    pub(in crate::sources::files) open: bool,
}

/// Files are looked through in slices of this size, side by side.
const SLICE: u64 = 8 << 20;

/// Looks through a file; blocks.
///
/// # Errors
/// What the disk says.
pub(in crate::sources::files) fn scan(path: &Path, rules: Rules) -> io::Result<Quotes> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let targets: Vec<u64> = (1..size.div_ceil(SLICE)).map(|index| index * SLICE).collect();
    Ok(of(&survey(&file, size, &targets, rules.only_quotes())?))
}

fn of(seen: &Surveyed) -> Quotes {
    Quotes {
        any: seen.facts.quoted,
        empty: seen.facts.empty || (seen.state == State::Closing && seen.bare),
        broken: seen.facts.broken,
        open: matches!(seen.state, State::Inside | State::Escaped),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::Dialect;
    use super::super::slices::Following;
    use super::*;
    use gristmill_model::spec::CsvOptions;

    #[test]
    fn quotes_are_followed_to_their_end() {
        let none = Quotes { any: false, empty: false, broken: false, open: false };
        let closed = Quotes { any: true, ..none };
        let empty = Quotes { empty: true, ..closed };
        let broken = Quotes { broken: true, ..closed };
        let open = Quotes { open: true, ..closed };
        for (text, escape, expected) in [
            ("a,b\nc\n", None, none),
            ("a,\"b\nc\"\n", None, broken),
            ("a,\"b\rc\"\n", None, broken),
            ("a,\"b c\"\n", None, closed),
            ("a,\"b\nc\n", None, Quotes { broken: true, ..open }),
            ("a,\"\"\n\"x\"", None, empty),
            ("a,\"\"", None, empty),
            ("a,\"\"\"\"\n", None, closed),
            ("a,\"\"\"\"\n\"\",1", None, empty),
            ("a,\"b\"\"", None, open),
            ("a,\"b\"\"\"", None, closed),
            ("a,5\"\n1,2\n", None, none),
            ("\"a\\\"\n", Some("\\"), Quotes { broken: true, ..open }),
            ("\"a\\\"\"\n", Some("\\"), closed),
            ("\"a\" \"\n", None, closed),
            ("\u{feff}\"a\nb\"\n", None, broken),
        ] {
            let options = CsvOptions { escape: escape.map(str::to_owned), ..CsvOptions::default() };
            let rules = Rules::csv(&Dialect::new(&options).unwrap());
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("t"), text).unwrap();
            assert_eq!(scan(&folder.path().join("t"), rules).unwrap(), expected, "{text:?}");
            // One byte at a time, so that every state meets the end of a chunk.
            let mut slowly = Following::new(Vec::new(), rules);
            text.as_bytes().chunks(1).for_each(|byte| slowly.take(byte));
            assert_eq!(of(&slowly.finish()), expected, "{text:?} slowly");
        }
    }
}
