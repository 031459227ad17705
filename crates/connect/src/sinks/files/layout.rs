//! Names: where everything below a target lies, and how partition values become folder names.
//!
//! ```text
//! <target>/part-….parquet                    what readers see, or
//! <target>/date=2024-01-15/part-….parquet    … with partitions
//! <target>/_gristmill/log/<n>.json           what was decided, in order (`log.rs`)
//! <target>/_gristmill/staging/<load>-<owner>/…   what is not published yet: local disk, or `readable_staging: true`
//! <target>/_gristmill/intents/<load>-<owner>/…   object stores: notes of uploads that are held open or staged there
//! ```
//!
//! Readers of folders leave out names that begin with `_` or `.`, partition folders like `_year=2024` excepted
//! (`crate::hive`).

use crate::hive::{NULL_TEXT, is_hidden, is_pair, percent_decoded};
/// Whether an overwrite may remove a file of this name.
pub(super) use gristmill_model::spec::is_data_file as is_data;
use gristmill_model::{LoadKey, OwnerId, TaskKey};

/// The folder of everything that is ours.
pub(super) const HOME: &str = "_gristmill";
/// The log, below the target.
pub(super) const LOG: &str = "_gristmill/log";
/// What is staged, below the target: temporary files on local disk, whole objects where they are to be readable.
pub(super) const STAGING: &str = "_gristmill/staging";
/// What names the load and owner of a staging folder.
pub(super) const LOAD_FILE: &str = "load.json";
/// What is written to see whether a target can be written, below the target; object stores only.
pub(super) const PROBE: &str = "_gristmill/probe";
/// Notes of uploads, below the target; object stores only.
pub(super) const INTENTS: &str = "_gristmill/intents";

/// The folder of one owner's share of one load: `<load>-<owner>`.
pub(super) fn load_folder(key: &LoadKey, owner: &OwnerId) -> String {
    format!("{}-{}", key.short(), safe(owner.0.as_str()))
}

/// A name that no other attempt ever uses, neither of this load nor of another.
pub(super) fn file_name(task: &TaskKey, number: u32, extension: &str) -> String {
    // The owner and the attempt are in a hash: names stay short, and two attempts never share one.
    let unique = fnv1a(task.file_stem().as_bytes());
    let short = task.load.short();
    let (generation, partition) = (task.load.generation, task.partition);
    format!("part-{short}-{generation}-{partition:05}-{:08x}-{number:04}.{extension}", unique >> 32)
}

/// Where a staged object lies that is to be `path`, below the target: the `number`th one of its task, in the same partition
/// folder. No other attempt ever uses the name, so that what one takes back late is not the next one's.
pub(super) fn hidden_path(task: &TaskKey, number: u32, path: &str) -> String {
    let (folder, name) = split(path);
    // Readers go by the ending.
    let ending = name.split_once('.').map_or("", |(_, ending)| ending);
    let name = format!("{:05}-{:x}-{number:04}.{ending}", task.partition, task.attempt);
    let home = join(STAGING, &load_folder(&task.load, &task.owner));
    join(&home, &join(folder, &name))
}

/// Whether the object at `path` is staged, and not published, whatever else is.
pub(super) fn is_staged(path: &str) -> bool {
    path.strip_prefix(STAGING).is_some_and(|rest| rest.starts_with('/'))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A text that can stand in a file name: run ids are safe already, others are made so.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

/// `folder/name`, or `name` alone in no folder.
pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The folder part and the name of a relative path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Whether an overwrite may look into a folder of this name: only partition folders (`name=value`) are the target's.
pub(super) fn is_partition_folder(name: &str) -> bool {
    !is_hidden(name) && is_pair(name)
}

/// Whether a path relative to the target is data of the target: a data file in it or in its partition folders.
pub(super) fn is_target_data(path: &str) -> bool {
    let (folder, name) = split(path);
    is_data(name) && (folder.is_empty() || folder.split('/').all(is_partition_folder))
}

/// One level of a partition path: `date=2024-01-15`, `city=a%2Fb`, `x=__HIVE_DEFAULT_PARTITION__` for NULL.
/// (Hive and Spark write the empty text so too; `partition.rs` refuses it, since it would come back as NULL.)
pub(super) fn partition_folder(column: &str, value: Option<&str>) -> String {
    match value {
        Some(value) if !value.is_empty() => format!("{}={}", escape(column), escape(value)),
        _ => format!("{}={NULL_TEXT}", escape(column)),
    }
}

/// Column names and values of a partition path; `None` where a level is not `name=value`.
pub(super) fn partition_values(folder: &str) -> Option<Vec<(String, Option<String>)>> {
    folder
        .split('/')
        .map(|level| {
            let (column, value) = level.split_once('=')?;
            let value = percent_decoded(value);
            Some((percent_decoded(column), (value != NULL_TEXT && !value.is_empty()).then_some(value)))
        })
        .collect()
}

/// Escapes what Hive escapes (`FileUtils.escapePathName`): control characters and `"#%'*/:=?\{[]^` as `%XX`.
fn escape(text: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_control() || "\"#%'*/:=?\\{[]^".contains(c) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{:02X}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_folders_are_escaped_as_hive_does() {
        assert_eq!(partition_folder("date", Some("2024-01-15")), "date=2024-01-15");
        assert_eq!(partition_folder("a/b", Some("x=1:%")), "a%2Fb=x%3D1%3A%25");
        assert_eq!(partition_folder("c", None), "c=__HIVE_DEFAULT_PARTITION__");
        assert_eq!(partition_folder("c", Some("")), "c=__HIVE_DEFAULT_PARTITION__");
        let folder = format!("{}/{}", partition_folder("a/b", Some("x=1:%")), partition_folder("c", None));
        let values = vec![("a/b".to_owned(), Some("x=1:%".to_owned())), ("c".to_owned(), None)];
        assert_eq!(partition_values(&folder), Some(values));
        assert_eq!(partition_values("plain"), None);
    }

    #[test]
    fn only_data_of_the_target_may_be_removed() {
        for path in ["a.parquet", "_year=2024/a.parquet", "day=1/b.csv.gz", "y=1/m=2/c.ndjson.zst", "x.json"] {
            assert!(is_target_data(path), "{path}");
        }
        for path in
            ["_gristmill/log/1.json", "README.md", "other/a.parquet", ".a.parquet", "day=1/_SUCCESS", "day=1/notes.txt"]
        {
            assert!(!is_target_data(path), "{path}");
        }
    }
}
