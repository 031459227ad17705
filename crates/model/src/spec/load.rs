//! Where a view's rows go, and how.

use super::extract::{CsvOptions, FileFormat};
use super::shapes::OneOrMany;
use crate::{ByteSize, ConnectionName, StepName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A load: one view's rows to one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadSpec {
    /// The step whose rows are loaded.
    pub from: StepName,
    /// The connection to write to.
    pub to: ConnectionName,
    /// The table, `table` or `schema.table`. Databases only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The folder, relative to the connection. Files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How new rows meet old ones.
    pub strategy: Strategy,
    /// The columns that tell rows apart, for `delete+insert`.
    #[serde(default)]
    pub key: OneOrMany,
    /// What is replaced, as a condition on the target (`date = '{{ ds }}'`): by new rows, or by nothing. For
    /// `delete+insert` and `partition_overwrite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The format of the files; Parquet by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FileFormat>,
    /// The columns whose values become folders (`date=2024-01-15/`).
    #[serde(default)]
    pub partition_by: OneOrMany,
    /// How the files are compressed; zstd for Parquet, none for text by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// The level of compression: 1 to 22 for zstd (1 by default), 0 to 9 for gzip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<u32>,
    /// Start a new file when one has become about so large; 256 MB by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_size: Option<ByteSize>,
    /// Rows in a Parquet row group; by default bounded by bytes alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_group_rows: Option<u64>,
    /// The dialect of CSV files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvOptions>,
}

/// How new rows meet old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// Add the new rows.
    #[serde(rename = "append")]
    Append,
    /// The new rows take the place of all old ones, at once; readers see the old ones until then.
    #[serde(rename = "replace")]
    Replace,
    /// Delete the old rows whose key occurs among the new ones, then insert.
    #[serde(rename = "delete+insert")]
    DeleteInsert,
    /// Replace the partitions that occur among the new rows; without new rows, replace nothing (Spark: "dynamic").
    #[serde(rename = "partition_overwrite")]
    PartitionOverwrite,
}

impl Strategy {
    /// The word used in files and on screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Replace => "replace",
            Self::DeleteInsert => "delete+insert",
            Self::PartitionOverwrite => "partition_overwrite",
        }
    }
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// Snappy (Parquet and Avro).
    Snappy,
    /// Gzip.
    #[serde(alias = "gz")]
    Gzip,
    /// Zstandard.
    #[serde(alias = "zst")]
    Zstd,
    /// Bzip2 (reading text only).
    #[serde(alias = "bz2")]
    Bzip2,
    /// XZ (reading text only).
    Xz,
    /// LZ4 (Parquet and Arrow).
    Lz4,
}

impl Compression {
    /// The word used in files and on screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Snappy => "snappy",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
        }
    }
}
