//! The keys of a SQLite connection.

use schemars::JsonSchema;
use serde::Deserialize;

/// `{type: sqlite, path: data/sales.db}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file, relative to the project.
    pub path: String,
}
