//! Work units: independently readable shares of a source.

use serde::{Deserialize, Serialize};

/// An independently readable share of a source. Only the source that planned it understands `payload`.
///
/// Units of one plan are disjoint and their union is the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkUnit {
    /// Position in the plan, from 0.
    pub ordinal: u32,
    /// What it is, for people: a file name, a key range.
    pub label: String,
    /// What the source needs to read it. Holds no secret.
    pub payload: serde_json::Value,
    /// Estimated rows, where the source can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Estimated bytes to be read, where the source can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}
