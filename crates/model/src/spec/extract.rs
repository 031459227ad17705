//! Where a view's rows come from.

use super::check::OnFail;
use super::shapes::OneOrMany;
use crate::{ConnectionName, Duration};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A view on a source: a table or query of a database, files, or what an HTTP API answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtractSpec {
    /// The connection to read from.
    pub from: ConnectionName,
    /// A table, `table` or `schema.table`. Databases only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Many tables, each as if it had a step of its own: a pattern or a list of them, `public.*`, `order_*`, `sales.orders`.
    /// `*` stands for any letters, `?` for one, what is in quotes for itself. Patterns take tables; a view is taken where it
    /// is named in full. What loads them names the table in its target: `path: "raw/{{ table }}"`. Databases only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<OneOrMany>,
    /// Of `tables`, not these: a pattern or a list of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<OneOrMany>,
    /// A query in the database's own SQL. Databases only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Files: a path, a folder (ends with `/`), a glob, or a list of them, relative to the connection. An HTTP API: the
    /// path that is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<OneOrMany>,
    /// Only rows for which this holds, in the database's own SQL. With `table` only.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Only these columns, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// The format of the files; by default told by their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FileFormat>,
    /// How the files are compressed; by default told by their names and first bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<super::Compression>,
    /// The dialect of CSV files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvOptions>,
    /// How JSON files, or the answers of an HTTP API, are laid out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<JsonOptions>,
    /// How an HTTP API is asked: method, parameters, pages, parents. Connections of type `http` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<super::HttpSpec>>,
    /// Types that override the inferred ones, by column: `{amount: "decimal(10,2)", day: date}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schema: BTreeMap<String, String>,
    /// What happens when files, or pages of an HTTP API, differ in their columns or types, or an incremental extract from
    /// what it was before.
    #[serde(default)]
    pub schema_contract: SchemaContract,
    /// What happens to a row that cannot be read: a ragged CSV line, an invalid JSON line, a value that is not of its type.
    #[serde(default)]
    pub on_bad_row: OnFail,
    /// Read only what is new: rows whose value in this column is not less than the greatest one that was loaded. The
    /// cursor is kept in the target, written in the same commit as the rows. A column of a table, a query or an API (there
    /// also a field within one: `meta.updated_at`); for files `file_modified`: those that are new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incremental_key: Option<String>,
    /// Read again so much before the cursor, for rows that come late: a duration (`2h`) for times and dates, a number for
    /// numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
    /// What happens to rows without a value in `incremental_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_cursor_missing: Option<OnCursorMissing>,
    /// Of rows with the same key, only the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<DedupSpec>,
    /// How it is divided into units; the connector's own choice when none. In a pipeline file it stands beside
    /// `extract`, as `units`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub units: Option<super::UnitsSpec>,
}

impl ExtractSpec {
    /// An extract of a connection that says nothing else yet.
    #[must_use]
    pub fn new(from: ConnectionName) -> Self {
        Self {
            from,
            table: None,
            tables: None,
            exclude: None,
            query: None,
            path: None,
            filter: None,
            columns: Vec::new(),
            format: None,
            compression: None,
            csv: None,
            json: None,
            http: None,
            schema: BTreeMap::new(),
            schema_contract: SchemaContract::default(),
            on_bad_row: OnFail::default(),
            incremental_key: None,
            lag: None,
            on_cursor_missing: None,
            dedup: None,
            units: None,
        }
    }
}

/// What happens to rows whose cursor is NULL (dlt's words).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnCursorMissing {
    /// The extract fails.
    #[default]
    Raise,
    /// They are read every time.
    Include,
    /// They are never read.
    Exclude,
}

/// Which of several rows with one key is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupSpec {
    /// The columns that tell rows apart.
    pub key: OneOrMany,
    /// `latest by COLUMN` or `earliest by COLUMN`. Rows without a value in it lose against those that have one; of equal
    /// ones, the one whose other columns are greater (or less) is kept, so that the choice is the same every time.
    pub keep: Keep,
}

/// Which row is kept: `latest by updated_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The greatest value, not the least one.
    pub latest: bool,
    /// The column.
    pub by: String,
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            [which @ ("latest" | "earliest"), "by", by] => {
                Ok(Self { latest: *which == "latest", by: (*by).to_owned() })
            }
            _ => Err(format!("`{text}` does not say which row is kept; write it like `latest by updated_at`")),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", if self.latest { "latest" } else { "earliest" }, self.by)
    }
}

/// How far before the cursor an incremental extract reads again: a duration, or a number for numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// Of columns that are times or dates.
    Time(Duration),
    /// Of columns that are numbers.
    Number(u64),
}

impl Lag {
    /// The lesser of two, where they can be compared; none otherwise.
    #[must_use]
    pub fn lesser(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Time(one), Self::Time(other)) => Some(Self::Time(one.min(other))),
            (Self::Number(one), Self::Number(other)) => Some(Self::Number(one.min(other))),
            _ => None,
        }
    }
}

impl FromStr for Lag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(number) = text.trim().parse() {
            return Ok(Self::Number(number));
        }
        let complain = |_| format!("`{text}` is not a lag; write a duration like `2h`, or a whole number for numbers");
        text.parse().map(Self::Time).map_err(complain)
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(duration) => duration.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Read from and written as one text.
macro_rules! as_text {
    ($kind:ty, $name:literal, $about:literal) => {
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $kind {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"description": $about, "type": ["string", "integer"]})
            }
        }
    };
}

as_text!(Lag, "Lag", "A duration such as `2h`, or a whole number");
as_text!(Keep, "Keep", "`latest by COLUMN` or `earliest by COLUMN`");

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// Comma- or otherwise separated values.
    Csv,
    /// One JSON object a line.
    #[serde(alias = "jsonl")]
    Ndjson,
    /// A JSON array of objects, one object, or objects at a path inside a document.
    Json,
    /// Apache Avro object container files.
    Avro,
    /// Apache ORC.
    Orc,
    /// Arrow IPC files or streams (Feather 2).
    #[serde(alias = "feather", alias = "ipc")]
    Arrow,
    /// Delta Lake: Parquet files and a log of what the table is. Only written.
    Delta,
}

impl FileFormat {
    /// Every format that files are read in, for lists of valid values.
    pub const ALL: [Self; 7] = [Self::Parquet, Self::Csv, Self::Ndjson, Self::Json, Self::Avro, Self::Orc, Self::Arrow];

    /// The word used in files and as an extension.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Json => "json",
            Self::Avro => "avro",
            Self::Orc => "orc",
            Self::Arrow => "arrow",
            Self::Delta => "delta",
        }
    }

    /// The format a file name's extension stands for, compression endings stripped beforehand.
    #[must_use]
    pub fn from_extension(extension: &str) -> Option<Self> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "parquet" | "pq" | "parq" => Self::Parquet,
            "csv" | "tsv" | "tbl" | "txt" | "psv" => Self::Csv,
            "ndjson" | "jsonl" => Self::Ndjson,
            "json" => Self::Json,
            "avro" => Self::Avro,
            "orc" => Self::Orc,
            "arrow" | "arrows" | "feather" | "ipc" => Self::Arrow,
            _ => return None,
        })
    }
}

/// The dialect of CSV files, read or written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvOptions {
    /// The character between fields; `,` by default (a tab for `.tsv`, `|` for `.tbl` and `.psv`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// The character around fields that hold a delimiter, quote or newline; `"` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<String>,
    /// The character before a quote inside quotes; by default the quote is doubled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escape: Option<String>,
    /// Whether the first line names the columns; true by default. Without it they are `column_1`, `column_2`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// Texts that mean NULL; the empty field by default. A text in quotes is never NULL.
    #[serde(default, rename = "null", skip_serializing_if = "Option::is_none")]
    pub null_text: Option<OneOrMany>,
    /// The text's encoding by its WHATWG name, e.g. `windows-1252`; UTF-8 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Lines that begin with this character are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// How JSON files are laid out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonOptions {
    /// Where in a document the records are, e.g. `data.items`; the document itself by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<String>,
}

/// What happens when files, or a file and an earlier run, differ in their columns or types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchemaContract {
    /// New columns are added, missing ones are NULL, types are widened where nothing is lost.
    #[default]
    Evolve,
    /// Any difference is an error that names the column.
    Freeze,
    /// Rows that do not fit are left out and counted: those with a value in a new column, and those whose value is not of
    /// the type that the column had. Against what an incremental extract has read before.
    DiscardRow,
    /// Values that do not fit are left out: new columns are not read, and what is not of the type that the column had
    /// becomes NULL. Against what an incremental extract has read before.
    DiscardValue,
}

impl SchemaContract {
    /// The word used in files and on screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evolve => "evolve",
            Self::Freeze => "freeze",
            Self::DiscardRow => "discard_row",
            Self::DiscardValue => "discard_value",
        }
    }

    /// Whether rows or values are left out that do not fit.
    #[must_use]
    pub fn discards(self) -> bool {
        matches!(self, Self::DiscardRow | Self::DiscardValue)
    }
}

/// Made-up rows, the same for the same seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateSpec {
    /// How many rows.
    pub rows: u64,
    /// The seed; the same seed makes the same rows on every machine.
    #[serde(default)]
    pub seed: u64,
    /// A ready-made table; or declare `columns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<GenerateTable>,
    /// Columns and how each is made, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnRule>,
}

/// A ready-made table of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GenerateTable {
    /// People: id, name, email, address, date of birth, …
    People,
    /// Transactions: id, account, amount, currency, merchant, time, …
    Transactions,
}

/// How one column of a declared table is made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnRule {
    /// The column's name. Its values depend on it, on the seed and on the row, not on where the column stands.
    pub name: String,
    /// What is made; see the reference of `generate`.
    pub kind: String,
    /// The least value, for numbers, dates and timestamps; the first, for `sequence` and `pattern`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<super::Literal>,
    /// The greatest value. A `sequence` starts over after it; a day means its end where a `timestamp` is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<super::Literal>,
    /// The values to choose from, for `choice`; the one value, for `constant`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<super::Literal>,
    /// How often each of `values` is chosen, relative to the others; all the same by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f64>,
    /// The share of NULLs, 0 to 1.
    #[serde(default)]
    pub nulls: f64,
    /// Digits in all, for `decimal`; 12 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<u8>,
    /// Digits after the point, for `decimal`; 2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<i8>,
    /// Text with `{}` for the row number (from `min`, or 1), for `pattern`; `{:06}` fills it up with zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}
