//! What is asked of a compaction, and what it tells. Plain data; files do it (`sinks/files/compact`).

use gristmill_model::spec::LoadSpec;
use serde::Serialize;

/// Rewriting the many small files of a target into few.
#[derive(Debug, Clone, PartialEq)]
pub struct Compaction {
    /// The folder, relative to the connection.
    pub path: String,
    /// Only these partitions: `date=2024-01-15`, or `year=2024/month=1`; all when none is named.
    pub partitions: Vec<String>,
    /// How large files are to become, in bytes; as loads make them by default.
    pub file_size: Option<u64>,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// The load that writes to the folder, where it is known: files are written anew as it would write them.
    pub load: Option<LoadSpec>,
}

impl Compaction {
    /// Of everything in a folder, as a load would write it by default.
    #[must_use]
    pub fn of(path: &str) -> Self {
        Self { path: path.to_owned(), partitions: Vec::new(), file_size: None, dry_run: false, load: None }
    }
}

/// What became of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// The partition's folder below the target; empty where the target has none.
    pub partition: String,
    /// Small files that were rewritten (or, only told, would be).
    pub files_before: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// Files in their place; unknown where it is only told.
    pub files_after: Option<u64>,
    /// Bytes of these.
    pub bytes_after: Option<u64>,
    /// Rows in them.
    pub rows: Option<u64>,
    /// Why the partition stayed as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}
