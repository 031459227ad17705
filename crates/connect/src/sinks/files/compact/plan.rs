//! Which files are rewritten together: decided by their names and sizes alone.

use super::super::layout::{partition_values, split};
use gristmill_model::spec::FileFormat;
use std::collections::BTreeMap;

/// A data file of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Small {
    /// Relative to the target.
    pub(super) path: String,
    pub(super) bytes: u64,
}

/// Files of one partition and format that are to become few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rewrite {
    pub(super) partition: String,
    pub(super) format: FileFormat,
    pub(super) files: Vec<Small>,
}

/// The format of a file, by its name. Files that are compressed as a whole have none that is rewritten.
pub(super) fn format_of(path: &str) -> Option<FileFormat> {
    FileFormat::from_extension(split(path).1.rsplit_once('.')?.1)
}

/// Whether a format keeps types, so that rows come back from it as they went in. Text would be guessed at.
pub(super) fn can_be_rewritten(format: FileFormat) -> bool {
    matches!(format, FileFormat::Parquet | FileFormat::Avro | FileFormat::Arrow)
}

/// What is to be rewritten, so that files come near `file_size`: in each partition the files that are smaller than three
/// quarters of it, where there are two of one format. A file that comes out is rarely smaller, but for the last one, so a
/// target that is compact stays as it is.
pub(super) fn plan(files: &[Small], file_size: u64, partitions: &[String]) -> Vec<Rewrite> {
    let mut groups: BTreeMap<(String, &'static str), Rewrite> = BTreeMap::new();
    for file in files {
        let partition = split(&file.path).0;
        let Some(format) = format_of(&file.path).filter(|format| can_be_rewritten(*format)) else { continue };
        if file.bytes >= file_size / 4 * 3 || !is_wanted(partition, partitions) {
            continue;
        }
        let group = groups.entry((partition.to_owned(), format.as_str())).or_insert_with(|| Rewrite {
            partition: partition.to_owned(),
            format,
            files: Vec::new(),
        });
        group.files.push(file.clone());
    }
    groups.into_values().filter(|group| group.files.len() > 1).collect()
}

/// Whether a partition is one of those that are named: by all of its columns or by some.
pub(super) fn is_wanted(partition: &str, partitions: &[String]) -> bool {
    let Some(values) = partition_values(partition) else { return partitions.is_empty() };
    partitions.is_empty()
        || partitions.iter().any(|wanted| {
            partition_values(wanted.trim_matches('/'))
                .is_some_and(|wanted| wanted.iter().all(|value| values.contains(value)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small(path: &str, bytes: u64) -> Small {
        Small { path: path.to_owned(), bytes }
    }

    #[test]
    fn small_files_of_one_partition_and_format_are_rewritten_together() {
        let files = [
            small("a.parquet", 10),
            small("b.parquet", 80),
            small("c.parquet", 20),
            small("d.avro", 1),
            small("e.csv", 1),
            small("f.csv", 1),
            small("y=1/m=1/g.parquet", 1),
            small("y=1/m=1/h.parquet", 1),
            small("y=1/m=2/i.parquet", 1),
            small("y=2/m=1/j.avro", 1),
            small("y=2/m=1/k.avro", 1),
        ];
        let told = |partitions: &[&str]| -> Vec<String> {
            let partitions: Vec<String> = partitions.iter().map(|&name| name.to_owned()).collect();
            let rewrites = plan(&files, 100, &partitions);
            rewrites.iter().map(|rewrite| format!("{} {}", rewrite.partition, rewrite.files.len())).collect()
        };
        assert_eq!(told(&[]), [" 2", "y=1/m=1 2", "y=2/m=1 2"]);
        assert_eq!(told(&["m=1"]), ["y=1/m=1 2", "y=2/m=1 2"]);
        assert_eq!(told(&["y=2/m=1/", "y=3"]), ["y=2/m=1 2"]);
        assert!(told(&["z=1"]).is_empty());
    }

    proptest! {
        #[test]
        fn no_file_is_rewritten_twice_and_what_is_large_stays(
            sizes in proptest::collection::vec((0usize..3, 0u64..200), 0..40),
            file_size in 1u64..200,
        ) {
            let files: Vec<Small> =
                sizes.iter().enumerate().map(|(at, (folder, bytes))| small(&format!("p={folder}/{at}.parquet"), *bytes)).collect();
            let rewrites = plan(&files, file_size, &[]);
            let mut chosen: Vec<&Small> = rewrites.iter().flat_map(|rewrite| &rewrite.files).collect();
            for rewrite in &rewrites {
                prop_assert!(rewrite.files.len() > 1);
                prop_assert!(rewrite.files.iter().all(|file| split(&file.path).0 == rewrite.partition));
            }
            prop_assert!(chosen.iter().all(|file| file.bytes < file_size / 4 * 3));
            let count = chosen.len();
            chosen.sort_by(|one, other| one.path.cmp(&other.path));
            chosen.dedup();
            prop_assert_eq!(chosen.len(), count);
            // What is left alone is large, or the only small one of its partition.
            for folder in 0..3 {
                let left = files.iter().filter(|file| split(&file.path).0 == format!("p={folder}") && !chosen.contains(file));
                prop_assert!(left.filter(|file| file.bytes < file_size / 4 * 3).count() <= 1);
            }
        }
    }
}
