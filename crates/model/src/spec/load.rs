//! Where a view's rows go, and how.

use super::check::OnFail;
use super::extract::{CsvOptions, FileFormat, Keep};
use super::layout::{ParquetOptions, Retention, SortBy};
use super::partition::PartitionBy;
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
    /// The columns that tell rows apart, for `delete+insert`, `merge` and `scd2`; by default the primary key of the table
    /// that is extracted.
    #[serde(default)]
    pub key: OneOrMany,
    /// The part of the target that the load answers for, as a condition on it (`date = '{{ ds }}'`). `delete+insert` and
    /// `partition_overwrite` replace it, by new rows or by nothing; `delete_missing` of `merge` and `scd2` keeps to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// `merge`: rows that are there stay as they are, only new ones are added.
    #[serde(default, skip_serializing_if = "is_false")]
    pub insert_only: bool,
    /// `merge` and `scd2`: what is in the target (within `scope`) and not among the rows is gone: `merge` deletes it, `scd2`
    /// ends its version. Without it, nothing is said about keys that do not come.
    #[serde(default, skip_serializing_if = "is_false")]
    pub delete_missing: bool,
    /// `merge` and `scd2`: which of several rows with the same key counts (`latest by updated_at`). Without it, such rows
    /// are an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<Keep>,
    /// What happens to a row that the target would refuse: a value that does not fit its column, NULL where none may be, a
    /// CHECK that it breaks. PostgreSQL, SQLite, MySQL and MariaDB.
    #[serde(default, skip_serializing_if = "is_fail")]
    pub on_bad_row: OnFail,
    /// Statements in the target's SQL, run in the transaction of the commit before anything else. Databases only.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub pre_sql: OneOrMany,
    /// Statements in the target's SQL, run in the transaction of the commit after the rows are in. Databases only.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub post_sql: OneOrMany,
    /// Adds the column `_gristmill_load`: the key of the load that wrote the row last. By it a full refresh of an `append`
    /// finds the rows whose place it takes (databases).
    #[serde(default, skip_serializing_if = "is_false")]
    pub load_column: bool,
    /// Adds a column of this name: when the row was first written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_column: Option<String>,
    /// Adds a column of this name: when the row was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_column: Option<String>,
    /// The format of the files; Parquet by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FileFormat>,
    /// What becomes folders: the values of a column (`date=2024-01-15/`), or what is computed of one, `year(created_at)`,
    /// `month`, `day`, `hour`, `date`, `hash(customer_id) % 16`, with `as name` behind it if need be.
    #[serde(default)]
    pub partition_by: OneOrMany,
    /// How the files are compressed; by default zstd for Parquet, deflate for Avro, lz4 for Arrow, not at all for text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// The level of compression: 1 to 22 for zstd (1 by default), 0 to 9 for gzip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<u32>,
    /// Start a new file when one has become about so large; 256 MB by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_size: Option<ByteSize>,
    /// What is staged can be looked at after a failed check (`gristmill sql --staged`) wherever it could not be otherwise. Object
    /// stores: it lies as whole objects below the hidden prefix `_gristmill/staging/`, and the commit copies them; without it,
    /// uploads are held open until the commit, and nothing is written twice. PostgreSQL: an `append` goes to a staging table
    /// first. Elsewhere it always can.
    #[serde(default, skip_serializing_if = "is_false")]
    pub readable_staging: bool,
    /// Rows in a Parquet row group; by default bounded by bytes alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_group_rows: Option<u64>,
    /// The dialect of CSV files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvOptions>,
    /// The layout of Parquet files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parquet: Option<ParquetOptions>,
    /// The order of the rows within each file: columns, each with `desc` and `nulls first` or `nulls last` behind it if need
    /// be. Files only.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub sort_by: OneOrMany,
    /// Partitions that are older are dropped, in the commit of the load. Files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_fail(on_bad_row: &OnFail) -> bool {
    *on_bad_row == OnFail::Fail
}

fn is_empty(texts: &OneOrMany) -> bool {
    texts.0.is_empty()
}

/// Whether a file of this name is data, so that readers of its folder take it for that, and an overwrite may remove it: a known
/// ending, not hidden. `.txt` may hold CSV, but is as often a note that somebody left.
#[must_use]
pub fn is_data_file(name: &str) -> bool {
    if name.starts_with(['_', '.']) {
        return false;
    }
    let bare = [".gz", ".zst", ".bz2", ".xz", ".lz4", ".snappy"].iter().find_map(|end| name.strip_suffix(end));
    let extension = bare.unwrap_or(name).rsplit_once('.').map_or("", |(_, extension)| extension);
    extension != "txt" && FileFormat::from_extension(extension).is_some()
}

impl LoadSpec {
    /// The name of the column that says which load a row is of.
    pub const LOAD_COLUMN: &'static str = "_gristmill_load";

    /// A load that says nothing but this.
    #[must_use]
    pub fn new(from: StepName, to: ConnectionName, strategy: Strategy) -> Self {
        Self {
            from,
            to,
            table: None,
            path: None,
            strategy,
            key: OneOrMany::default(),
            scope: None,
            insert_only: false,
            delete_missing: false,
            dedup: None,
            on_bad_row: OnFail::Fail,
            pre_sql: OneOrMany::default(),
            post_sql: OneOrMany::default(),
            load_column: false,
            created_column: None,
            updated_column: None,
            format: None,
            partition_by: OneOrMany::default(),
            compression: None,
            compression_level: None,
            file_size: None,
            readable_staging: false,
            row_group_rows: None,
            csv: None,
            parquet: None,
            sort_by: OneOrMany::default(),
            retention: None,
        }
    }

    /// Whether it makes one file of a name of its own, and no folder of files.
    #[must_use]
    pub fn makes_one_file(&self) -> bool {
        self.path.as_deref().is_some_and(|path| is_data_file(path.rsplit('/').next().unwrap_or_default()))
    }

    /// Whether rows that it has appended can be told from others, so that a full refresh can take their place.
    #[must_use]
    pub fn knows_its_rows(&self) -> bool {
        self.load_column && self.table.is_some()
    }

    /// What is wrong with it that can be told without the target, each with a hint. `may_have_key`: the rows come straight
    /// from a table, which may have a primary key.
    #[must_use]
    pub fn mistakes(&self, may_have_key: bool) -> Vec<(String, Option<String>)> {
        let mut mistakes = Vec::new();
        let mut complain = |message: String, hint: &str| mistakes.push((message, Some(hint.to_owned())));
        if self.table.is_some() == self.path.is_some() {
            let name = "name one of the two";
            complain("`load` needs either `table` (for a database) or `path` (for files)".to_owned(), name);
        }
        let has_no_key = self.key.0.is_empty() && !may_have_key;
        match self.strategy {
            Strategy::DeleteInsert if has_no_key && self.scope.is_none() => complain(
                "`strategy: delete+insert` needs `key` or `scope` to know what to delete".to_owned(),
                "e.g. `key: [date]`",
            ),
            Strategy::Merge | Strategy::Scd2 if has_no_key => complain(
                format!("`strategy: {}` needs a `key` to know which rows are the same", self.strategy.as_str()),
                "e.g. `key: [id]`; only rows that come straight from a table have its primary key by default",
            ),
            Strategy::PartitionOverwrite if self.partition_by.0.is_empty() => complain(
                "`strategy: partition_overwrite` needs `partition_by`".to_owned(),
                "e.g. `partition_by: [date]`",
            ),
            _ => {}
        }
        for text in &self.partition_by.0 {
            match PartitionBy::parse(text) {
                Err((message, hint)) => complain(message, &hint),
                Ok(by) if by.transform.is_some() && self.table.is_some() => {
                    complain(format!("`partition_by: {text}` goes with `path`, not with `table`"), "name a column");
                }
                Ok(_) => {}
            }
        }
        for text in &self.sort_by.0 {
            if let Err((message, hint)) = SortBy::parse(text) {
                complain(message, &hint);
            }
        }
        self.misplaced(&mut complain);
        mistakes
    }

    /// Keys that go with other targets or strategies.
    fn misplaced(&self, complain: &mut impl FnMut(String, &str)) {
        let file_only = [
            ("format", self.format.is_some()),
            ("compression", self.compression.is_some()),
            ("compression_level", self.compression_level.is_some()),
            ("file_size", self.file_size.is_some()),
            ("row_group_rows", self.row_group_rows.is_some()),
            ("csv", self.csv.is_some()),
            ("parquet", self.parquet.is_some()),
            ("sort_by", !self.sort_by.0.is_empty()),
            ("retention", self.retention.is_some()),
            ("partition_by", !self.partition_by.0.is_empty() && self.strategy != Strategy::PartitionOverwrite),
        ];
        for (key, _) in file_only.iter().filter(|(_, given)| self.table.is_some() && *given) {
            complain(format!("`{key}` goes with `path`, not with `table`"), "leave it out");
        }
        let table_only = [
            ("pre_sql", !self.pre_sql.0.is_empty()),
            ("post_sql", !self.post_sql.0.is_empty()),
            ("on_bad_row", self.on_bad_row != OnFail::Fail),
        ];
        for (key, _) in table_only.iter().filter(|(_, given)| self.path.is_some() && *given) {
            complain(format!("`{key}` goes with `table`, not with `path`"), "leave it out");
        }
        let strategy = self.strategy.as_str();
        let keyed = matches!(self.strategy, Strategy::Merge | Strategy::Scd2);
        if self.insert_only && self.strategy != Strategy::Merge {
            complain(format!("`insert_only` does not go with `strategy: {strategy}`"), "it is for `merge`");
        }
        for (key, given) in [("delete_missing", self.delete_missing), ("dedup", self.dedup.is_some())] {
            if given && !keyed {
                complain(format!("`{key}` does not go with `strategy: {strategy}`"), "it is for `merge` and `scd2`");
            }
        }
        if self.scope.is_some() {
            match self.strategy {
                Strategy::DeleteInsert | Strategy::PartitionOverwrite => {}
                Strategy::Merge | Strategy::Scd2 if self.delete_missing => {}
                Strategy::Merge | Strategy::Scd2 => complain(
                    format!("`scope` of `strategy: {strategy}` says where `delete_missing` looks, and that is not set"),
                    "add `delete_missing: true`, or leave `scope` out",
                ),
                _ => complain(
                    format!("`scope` does not go with `strategy: {strategy}`"),
                    "it is for `delete+insert` and `partition_overwrite`, and for `delete_missing`",
                ),
            }
        }
    }
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
    /// Empty the table and fill it, in one transaction: as `replace`, but in PostgreSQL by TRUNCATE, which is quick, gives
    /// the space back at once and lets readers wait meanwhile; the table is never made anew. Databases and Delta tables.
    #[serde(rename = "truncate+insert")]
    TruncateInsert,
    /// Delete the old rows whose key occurs among the new ones, then insert.
    #[serde(rename = "delete+insert")]
    DeleteInsert,
    /// Rows whose key is there take its place, column by column; the others are added. Databases and Delta
    /// tables.
    #[serde(rename = "merge")]
    Merge,
    /// Keep history: a row that changes ends its version (`valid_to`) and begins another (`valid_from`), both at the start
    /// of the interval; `valid_to` of what is current is NULL. Databases and Delta tables.
    #[serde(rename = "scd2")]
    Scd2,
    /// Replace the partitions that occur among the new rows; without new rows, replace nothing (Spark: "dynamic").
    #[serde(rename = "partition_overwrite")]
    PartitionOverwrite,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 7] = [
        Self::Append,
        Self::Replace,
        Self::TruncateInsert,
        Self::DeleteInsert,
        Self::Merge,
        Self::Scd2,
        Self::PartitionOverwrite,
    ];

    /// Whether a key says which rows are meant.
    #[must_use]
    pub fn goes_by_key(self) -> bool {
        matches!(self, Self::DeleteInsert | Self::Merge | Self::Scd2)
    }

    /// The word used in files and on screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Replace => "replace",
            Self::TruncateInsert => "truncate+insert",
            Self::DeleteInsert => "delete+insert",
            Self::Merge => "merge",
            Self::Scd2 => "scd2",
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
    /// Deflate (Avro).
    Deflate,
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
            Self::Deflate => "deflate",
        }
    }
}
