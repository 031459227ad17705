//! Which files are new: a pure function of what was loaded and what there is.
//!
//! What was loaded is a record of files, not the greatest time among them: a file that comes late, with a time that is
//! equal or older, is as new as any other. A file is known by its name within the connection, and has changed when its size
//! is another, or its etag, or where there is none (local disks) its time.

use gristmill_model::{Error, ErrorKind, Result};
use std::collections::BTreeMap;

/// What `incremental_key` says for files.
pub(super) const KEY: &str = "file_modified";

/// More files are not remembered: the record is kept in the target's ledger with every load.
const MOST: usize = 50_000;

/// A file there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct There {
    pub(super) name: String,
    /// What tells whether it has changed.
    pub(super) stamp: String,
}

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decided {
    /// The places of the new and changed files among those there are.
    pub(super) read: Vec<usize>,
    /// All that will have been loaded.
    pub(super) loaded: BTreeMap<String, String>,
    /// What will be read, for people.
    pub(super) about: String,
}

/// Decides what is read. `adds` says that a load adds the rows to those it has.
///
/// # Errors
/// [`ErrorKind::Data`] for a file that has changed where its rows would be doubled; [`ErrorKind::Config`] for more files
/// than can be remembered.
pub(super) fn decide(before: &BTreeMap<String, String>, there: &[There], adds: bool) -> Result<Decided> {
    let (mut read, mut changed) = (Vec::new(), Vec::new());
    for (place, file) in there.iter().enumerate() {
        match before.get(&file.name) {
            Some(stamp) if *stamp == file.stamp => continue,
            Some(_) => changed.push(file.name.as_str()),
            None => {}
        }
        read.push(place);
    }
    if adds && let Some(first) = changed.first() {
        let others = match changed.len() {
            1 => String::new(),
            2 => " (and another file)".to_owned(),
            more => format!(" (and {} other files)", more - 1),
        };
        return Err(Error::new(ErrorKind::Data, format!("`{first}`{others} has changed since it was loaded"))
            .cause("the load adds rows to those it has, so what the file had before would be doubled")
            .hint(
                "write what is new to new files; or load with `strategy: delete+insert` and a `key`, which reads changed \
                 files again; or load everything again with `--full-refresh`",
            ));
    }
    let mut loaded = before.clone();
    loaded.extend(there.iter().map(|file| (file.name.clone(), file.stamp.clone())));
    let mut forgotten = 0;
    if loaded.len() > MOST {
        // Those that are gone cannot be read again, unless they come back.
        let known = loaded.len();
        loaded = there.iter().map(|file| (file.name.clone(), file.stamp.clone())).collect();
        forgotten = known - loaded.len();
    }
    if loaded.len() > MOST {
        return Err(Error::new(
            ErrorKind::Config,
            format!("there are {} files, more than the {MOST} that can be remembered", loaded.len()),
        )
        .hint("name fewer with `path`, such as those of a day (`path: \"{{ ds }}/\"`), or move loaded files away"));
    }
    let count = |count: usize, what: &str| match count {
        0 => format!("no {what} files"),
        1 => format!("1 {what} file"),
        more => format!("{more} {what} files"),
    };
    let mut about = format!("{} of {}", count(read.len() - changed.len(), "new"), there.len());
    if !changed.is_empty() {
        about.push_str(&format!("; {} read again", count(changed.len(), "changed")));
    }
    if forgotten > 0 {
        about.push_str(&format!("; {forgotten} that are not there any more were forgotten"));
    }
    Ok(Decided { read, loaded, about })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there(files: &[(&str, &str)]) -> Vec<There> {
        files.iter().map(|(name, stamp)| There { name: (*name).to_owned(), stamp: (*stamp).to_owned() }).collect()
    }

    #[test]
    fn new_files_are_read_whatever_their_time_and_changed_ones_only_where_they_replace() {
        let first = decide(&BTreeMap::new(), &there(&[("b", "5"), ("c", "7")]), true).unwrap();
        assert_eq!((first.read.as_slice(), first.about.as_str()), (&[0, 1][..], "2 new files of 2"));
        let late = decide(&first.loaded, &there(&[("a", "1"), ("b", "5"), ("c", "7")]), true).unwrap();
        assert_eq!((late.read.as_slice(), late.about.as_str()), (&[0][..], "1 new file of 3"));
        let none = decide(&late.loaded, &[], true).unwrap();
        assert_eq!((none.about.as_str(), &none.loaded), ("no new files of 0", &late.loaded), "a file may come back");
        let changed = there(&[("a", "1"), ("b", "6")]);
        let error = decide(&late.loaded, &changed, true).unwrap_err();
        assert!(error.message().starts_with("`b` has changed"), "{error}");
        let again = decide(&late.loaded, &changed, false).unwrap();
        assert_eq!(
            (again.read.as_slice(), again.about.as_str()),
            (&[1][..], "no new files of 2; 1 changed file read again")
        );
    }

    #[test]
    fn files_that_are_gone_are_forgotten_only_where_there_are_too_many() {
        let many: BTreeMap<String, String> = (0..MOST).map(|at| (format!("old{at}"), "1".to_owned())).collect();
        let decided = decide(&many, &there(&[("new", "1")]), true).unwrap();
        assert_eq!(decided.loaded.len(), 1);
        assert!(decided.about.contains("50000 that are not there any more were forgotten"), "{}", decided.about);
        let all: Vec<There> = (0..=MOST).map(|at| There { name: at.to_string(), stamp: String::new() }).collect();
        assert_eq!(decide(&BTreeMap::new(), &all, true).unwrap_err().kind(), ErrorKind::Config);
    }

    proptest! {
        /// However files come, go and come back, each is read once.
        #[test]
        fn each_file_is_read_once(rounds in prop::collection::vec(prop::collection::btree_set(0u8..40, 0..20), 1..8)) {
            let (mut before, mut read) = (BTreeMap::new(), Vec::new());
            for round in &rounds {
                let there: Vec<There> =
                    round.iter().map(|file| There { name: file.to_string(), stamp: "1".to_owned() }).collect();
                let decided = decide(&before, &there, true).unwrap();
                read.extend(decided.read.iter().map(|place| there[*place].name.clone()));
                before = decided.loaded;
            }
            let mut all: Vec<String> = rounds.iter().flatten().map(u8::to_string).collect();
            all.sort();
            all.dedup();
            read.sort();
            prop_assert_eq!(read, all);
        }
    }
}
