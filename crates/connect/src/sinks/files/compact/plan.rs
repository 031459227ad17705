//! Which files are rewritten together: decided by their names and sizes alone.

use super::super::layout::{partition_values, split};
use crate::sources::files::split_name;
use gristmill_model::spec::{Compression, FileFormat};
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
    pub(super) kind: Kind,
    pub(super) files: Vec<Small>,
}

/// What a file is, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) format: FileFormat,
    /// How it is compressed as a whole.
    pub(super) compression: Compression,
    /// What the name ends with, compression left aside: readers tell a CSV file's delimiter by it.
    pub(super) extension: String,
    /// What the name of a file in its place ends with.
    pub(super) ending: String,
}

impl Kind {
    /// The kind of a data file.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (stem, compression) = split_name(split(path).1);
        let extension = stem.rsplit_once('.')?.1;
        let format = FileFormat::from_extension(extension)?;
        let ending = match format {
            FileFormat::Csv | FileFormat::Ndjson => split(path).1.get(stem.len() - extension.len()..)?,
            typed => typed.as_str(),
        };
        Some(Self { format, compression, extension: extension.to_ascii_lowercase(), ending: ending.to_owned() })
    }

    /// Whether such files are put together as bytes, without being understood.
    pub(super) fn is_spliced(&self) -> bool {
        matches!(self.format, FileFormat::Csv | FileFormat::Ndjson | FileFormat::Avro)
    }

    /// Whether such files are written anew. Text is, where we write it so compressed.
    pub(super) fn can_be_rewritten(&self) -> bool {
        match self.format {
            FileFormat::Parquet | FileFormat::Avro | FileFormat::Arrow => self.compression == Compression::None,
            FileFormat::Csv | FileFormat::Ndjson => {
                matches!(self.compression, Compression::None | Compression::Gzip | Compression::Zstd)
            }
            FileFormat::Json | FileFormat::Orc | FileFormat::Delta => false,
        }
    }
}

/// What is to be rewritten, so that files come near `file_size`: in each partition the files that are smaller than three
/// quarters of it, where there are two of one format. A file that comes out is rarely smaller, but for the last one, so a
/// target that is compact stays as it is.
pub(super) fn plan(
    files: &[Small],
    file_size: u64,
    partitions: &[String],
    can_be: impl Fn(&Kind) -> bool,
) -> Vec<Rewrite> {
    let mut groups: BTreeMap<(String, String), Rewrite> = BTreeMap::new();
    for file in files {
        let partition = split(&file.path).0;
        let Some(kind) = Kind::of(&file.path).filter(&can_be) else { continue };
        if file.bytes >= file_size / 4 * 3 || !is_wanted(partition, partitions) {
            continue;
        }
        let group = groups.entry((partition.to_owned(), kind.ending.clone())).or_insert_with(|| Rewrite {
            partition: partition.to_owned(),
            kind,
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
            let rewrites =
                plan(&files, 100, &partitions, |kind| kind.can_be_rewritten() && kind.format != FileFormat::Csv);
            rewrites.iter().map(|rewrite| format!("{} {}", rewrite.partition, rewrite.files.len())).collect()
        };
        assert_eq!(told(&[]), [" 2", "y=1/m=1 2", "y=2/m=1 2"]);
        assert_eq!(told(&["m=1"]), ["y=1/m=1 2", "y=2/m=1 2"]);
        assert_eq!(told(&["y=2/m=1/", "y=3"]), ["y=2/m=1 2"]);
        assert!(told(&["z=1"]).is_empty());
    }

    #[test]
    fn a_name_tells_format_compression_and_what_the_next_name_ends_with() {
        let told = |path: &str| {
            Kind::of(path).map(|kind| (kind.format, kind.compression, kind.ending.clone(), kind.can_be_rewritten()))
        };
        let is = |format, compression, ending: &str, can| Some((format, compression, ending.to_owned(), can));
        assert_eq!(told("p=1/a.b.tsv.gz"), is(FileFormat::Csv, Compression::Gzip, "tsv.gz", true));
        assert_eq!(told("a.jsonl"), is(FileFormat::Ndjson, Compression::None, "jsonl", true));
        assert_eq!(told("a.csv.bz2"), is(FileFormat::Csv, Compression::Bzip2, "csv.bz2", false));
        assert_eq!(told("a.feather"), is(FileFormat::Arrow, Compression::None, "arrow", true));
        assert_eq!(told("a.parquet.gz"), is(FileFormat::Parquet, Compression::Gzip, "parquet", false));
        assert_eq!(told("a.json").map(|told| told.3), Some(false));
        assert_eq!(told("README"), None);
    }

    proptest! {
        #[test]
        fn no_file_is_rewritten_twice_and_what_is_large_stays(
            sizes in proptest::collection::vec((0usize..3, 0u64..200), 0..40),
            file_size in 1u64..200,
        ) {
            let files: Vec<Small> =
                sizes.iter().enumerate().map(|(at, (folder, bytes))| small(&format!("p={folder}/{at}.parquet"), *bytes)).collect();
            let rewrites = plan(&files, file_size, &[], Kind::can_be_rewritten);
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
