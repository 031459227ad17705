//! Where a view's rows come from.

use super::check::OnFail;
use super::shapes::OneOrMany;
use crate::ConnectionName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A view on a source: a table or query of a database, or files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtractSpec {
    /// The connection to read from.
    pub from: ConnectionName,
    /// A table, `table` or `schema.table`. Databases only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// A query in the database's own SQL. Databases only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Files: a path, a folder (ends with `/`), a glob, or a list of them, relative to the connection. Files only.
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
    /// How JSON files are laid out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<JsonOptions>,
    /// Types that override the inferred ones, by column: `{amount: "decimal(10,2)", day: date}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schema: BTreeMap<String, String>,
    /// What happens when files differ in their columns or types.
    #[serde(default)]
    pub schema_contract: SchemaContract,
    /// What happens to a row that cannot be read: a ragged CSV line, an invalid JSON line, a value that is not of its type.
    #[serde(default)]
    pub on_bad_row: OnFail,
    /// How it is divided into units; the connector's own choice when none. In a pipeline file it stands beside
    /// `extract`, as `units`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub units: Option<super::UnitsSpec>,
}

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
}

impl FileFormat {
    /// Every format, for lists of valid values.
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
