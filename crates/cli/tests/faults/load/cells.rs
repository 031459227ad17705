//! What is loaded where, and how: a line for each target and strategy.

use std::fmt;

/// What is loaded into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Files of this format in a local folder.
    Folder(&'static str),
    /// One local file.
    File(&'static str),
    /// A table of a SQLite database.
    Sqlite,
    /// A table of a PostgreSQL database.
    Postgres,
    /// A table of a MariaDB database.
    Mariadb,
    /// Files of this format below a prefix of an S3-like store.
    S3Folder(&'static str),
    /// One object.
    S3File(&'static str),
    /// A folder and a SQLite table, by two loads of one run.
    Both,
}

impl Kind {
    pub(crate) fn is_s3(self) -> bool {
        matches!(self, Self::S3Folder(_) | Self::S3File(_))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(format) => write!(f, "folder of {format}"),
            Self::File(format) => write!(f, "one {format} file"),
            Self::Sqlite => f.write_str("SQLite"),
            Self::Postgres => f.write_str("PostgreSQL"),
            Self::Mariadb => f.write_str("MariaDB"),
            Self::S3Folder(format) => write!(f, "S3, {format}"),
            Self::S3File(format) => write!(f, "S3, one {format} object"),
            Self::Both => f.write_str("folder and SQLite"),
        }
    }
}

/// A target and the way it is loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) strategy: &'static str,
    /// More of the load's keys.
    pub(crate) options: &'static str,
    /// The columns of a table that come out the same whenever it is loaded.
    pub(crate) columns: &'static str,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = if self.options.contains("partition_by") && self.strategy != "partition_overwrite" {
            ", in parts"
        } else {
            ""
        };
        let staging = match (self.options.contains("readable_staging"), self.copies()) {
            (false, _) => "",
            (true, true) => ", readable staging",
            (true, false) => ", readable staging without copies",
        };
        write!(f, "{}: {}{parts}{staging}", self.kind, self.strategy)
    }
}

impl Cell {
    /// Whether the store copies objects; one with which what is staged is readable does not.
    pub(crate) fn copies(&self) -> bool {
        self.kind != Kind::S3Folder("csv") || !self.options.contains("readable_staging")
    }
}

/// A cell as most are.
pub(crate) const fn cell(kind: Kind, strategy: &'static str, options: &'static str) -> Cell {
    Cell { kind, strategy, options, columns: "id, day, v" }
}

const BY_DAY: &str = ", partition_by: [day]";
const BY_ID: &str = ", key: [id]";

/// With all the versions that there were.
const fn versions(kind: Kind) -> Cell {
    Cell { columns: "id, day, v, valid_from, (valid_to is null)", ..cell(kind, "scd2", BY_ID) }
}

/// What is struck is no load but `gristmill compact` of what three loads have appended.
const COMPACTION: &str = "compaction";

impl Cell {
    pub(crate) fn is_compaction(&self) -> bool {
        self.strategy == COMPACTION
    }

    /// What is struck.
    pub(crate) fn words(&self) -> &'static [&'static str] {
        if self.is_compaction() { &super::COMPACT } else { &super::NEW }
    }
}

/// All of them.
pub(crate) const CELLS: &[Cell] = &[
    cell(Kind::Folder("parquet"), "append", ""),
    cell(Kind::Folder("parquet"), "append", BY_DAY),
    cell(Kind::Folder("parquet"), "replace", ""),
    cell(Kind::Folder("parquet"), "replace", BY_DAY),
    cell(Kind::Folder("parquet"), "partition_overwrite", BY_DAY),
    cell(Kind::Folder("csv"), "append", ""),
    cell(Kind::Folder("csv"), "replace", ""),
    cell(Kind::Folder("csv"), "partition_overwrite", BY_DAY),
    cell(Kind::Folder("ndjson"), "append", ""),
    cell(Kind::Folder("ndjson"), "replace", BY_DAY),
    cell(Kind::Folder("ndjson"), "partition_overwrite", BY_DAY),
    cell(Kind::Folder("avro"), "append", BY_DAY),
    cell(Kind::Folder("avro"), "replace", ""),
    cell(Kind::Folder("arrow"), "append", ""),
    cell(Kind::Folder("arrow"), "partition_overwrite", BY_DAY),
    cell(Kind::Folder("parquet"), COMPACTION, ""),
    cell(Kind::Folder("parquet"), COMPACTION, BY_DAY),
    cell(Kind::Folder("avro"), COMPACTION, BY_DAY),
    cell(Kind::Folder("arrow"), COMPACTION, ""),
    cell(Kind::Folder("csv"), COMPACTION, BY_DAY),
    cell(Kind::Folder("ndjson"), COMPACTION, ""),
    cell(Kind::Folder("delta"), "append", ""),
    cell(Kind::Folder("delta"), "replace", ""),
    cell(Kind::Folder("delta"), "truncate+insert", BY_DAY),
    cell(Kind::Folder("delta"), "partition_overwrite", BY_DAY),
    cell(Kind::Folder("delta"), "delete+insert", BY_ID),
    cell(Kind::Folder("delta"), "merge", BY_ID),
    cell(Kind::Folder("delta"), "scd2", BY_ID),
    cell(Kind::File("parquet"), "replace", ""),
    cell(Kind::File("csv"), "replace", ""),
    cell(Kind::Sqlite, "append", ""),
    cell(Kind::Sqlite, "replace", ""),
    cell(Kind::Sqlite, "delete+insert", BY_ID),
    cell(Kind::Sqlite, "partition_overwrite", BY_DAY),
    cell(Kind::Sqlite, "truncate+insert", ""),
    cell(Kind::Sqlite, "merge", BY_ID),
    versions(Kind::Sqlite),
    cell(Kind::Postgres, "append", ""),
    cell(Kind::Postgres, "replace", ""),
    cell(Kind::Postgres, "delete+insert", BY_ID),
    cell(Kind::Postgres, "partition_overwrite", BY_DAY),
    cell(Kind::Postgres, "truncate+insert", ""),
    cell(Kind::Postgres, "merge", BY_ID),
    versions(Kind::Postgres),
    cell(Kind::Mariadb, "append", ""),
    cell(Kind::Mariadb, "replace", ""),
    cell(Kind::Mariadb, "delete+insert", BY_ID),
    cell(Kind::Mariadb, "partition_overwrite", BY_DAY),
    cell(Kind::Mariadb, "truncate+insert", ""),
    cell(Kind::Mariadb, "merge", BY_ID),
    versions(Kind::Mariadb),
    cell(Kind::S3Folder("parquet"), "append", ""),
    cell(Kind::S3Folder("parquet"), "replace", BY_DAY),
    cell(Kind::S3Folder("ndjson"), "partition_overwrite", BY_DAY),
    cell(Kind::S3Folder("avro"), "replace", ""),
    cell(Kind::S3Folder("parquet"), COMPACTION, ""),
    cell(Kind::S3Folder("parquet"), COMPACTION, BY_DAY),
    cell(Kind::S3Folder("csv"), COMPACTION, BY_DAY),
    cell(Kind::S3Folder("delta"), "append", ""),
    cell(Kind::S3Folder("delta"), "partition_overwrite", BY_DAY),
    cell(Kind::S3Folder("delta"), "merge", BY_ID),
    cell(Kind::S3Folder("parquet"), "partition_overwrite", ", partition_by: [day], readable_staging: true"),
    cell(Kind::S3Folder("csv"), "replace", ", partition_by: [day], readable_staging: true"),
    cell(Kind::S3File("csv"), "replace", ""),
    cell(Kind::S3File("csv"), "replace", ", readable_staging: true"),
    cell(Kind::Both, "replace", ""),
];
