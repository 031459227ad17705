//! How a source is divided into work units.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a source is divided into work units, which are read in parallel: tables and queries of databases, files, and pages
/// and parents of HTTP APIs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitsSpec {
    /// How; `auto` by default.
    #[serde(default)]
    pub strategy: UnitStrategy,
    /// The column whose values tell units apart, for `id_range`, `date_range` and `hash`; the primary key by default,
    /// where it is one column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How many rows a unit should have, about; 50,000 by default for databases. Files are divided by their size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_rows: Option<u64>,
    /// At most so many units; 400 by default. Units grow when that is too few for `target_rows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// One unit each, for `predicates`: conditions in the database's own SQL. A row goes to the first that holds, and
    /// to one more unit when none does, so that every row is read once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predicates: Vec<String>,
    /// Whether the rows that were read are compared with the number of rows that the source counts in the same
    /// snapshot. By default they are for tables that are divided into units, except where numbers alone tell the units
    /// apart (pages, whole numbers) and a second scan is not cheap (above 512 MiB); `gristmill plan` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
}

/// A way to divide a source into units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnitStrategy {
    /// Chosen by what is read and how large it is; `gristmill plan` says what and why.
    #[default]
    Auto,
    /// Ranges of a PostgreSQL table's pages: no key is needed, and each unit reads only its own.
    Ctid,
    /// Ranges of a key: whole numbers, decimals, text, UUIDs.
    IdRange,
    /// Ranges of a date or timestamp, at midnight where they are long enough.
    DateRange,
    /// By the hash of a column. Every unit scans the whole table.
    Hash,
    /// By conditions of your own.
    Predicates,
    /// Whole files; small ones share a unit.
    Files,
    /// Big CSV and NDJSON files in pieces, cut between records; Parquet files between row groups. Small files share a unit.
    ByteRange,
    /// Ranges of an HTTP API's pages, or of its parents.
    Pages,
    /// One unit.
    None,
}

impl UnitStrategy {
    /// The word used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ctid => "ctid",
            Self::IdRange => "id_range",
            Self::DateRange => "date_range",
            Self::Hash => "hash",
            Self::Predicates => "predicates",
            Self::Files => "files",
            Self::ByteRange => "byte_range",
            Self::Pages => "pages",
            Self::None => "none",
        }
    }
}

/// Whether the number of rows is reconciled after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// The source counts its rows while they are read; a difference is an error.
    Count,
    /// Nothing is counted.
    None,
}

impl UnitsSpec {
    /// What is wrong with it, for people: message and hint.
    #[must_use]
    pub fn mistakes(&self) -> Vec<(String, Option<String>)> {
        let mut wrong = Vec::new();
        let mut complain = |message: &str, hint: &str| wrong.push((message.to_owned(), Some(hint.to_owned())));
        let strategy = self.strategy.as_str();
        if self.target_rows == Some(0) {
            complain("`target_rows` of `units` is 0", "write how many rows a unit should have, such as `50000`");
        }
        if self.max == Some(0) {
            complain("`max` of `units` is 0", "write how many units there may be at most, or `strategy: none` for one");
        }
        if matches!(self.strategy, UnitStrategy::None | UnitStrategy::Predicates) {
            for (key, given) in [("target_rows", self.target_rows.is_some()), ("max", self.max.is_some())] {
                if given {
                    complain(
                        &format!("`{key}` of `units` does not go with `strategy: {strategy}`"),
                        &format!("leave `{key}` out"),
                    );
                }
            }
        }
        if self.by.is_some()
            && !matches!(self.strategy, UnitStrategy::IdRange | UnitStrategy::DateRange | UnitStrategy::Hash)
        {
            complain(
                &format!("`by` of `units` does not go with `strategy: {strategy}`"),
                "use `strategy: id_range`, `date_range` or `hash`, or leave `by` out",
            );
        }
        match (self.strategy == UnitStrategy::Predicates, self.predicates.is_empty()) {
            (true, true) => complain(
                "`strategy: predicates` of `units` needs `predicates`",
                "list conditions: `predicates: [\"region = 'north'\", \"region = 'south'\"]`",
            ),
            (false, false) => complain(
                &format!("`predicates` of `units` does not go with `strategy: {strategy}`"),
                "use `strategy: predicates`",
            ),
            _ => {}
        }
        if self.predicates.iter().any(|predicate| predicate.trim().is_empty()) {
            complain("a condition in `predicates` of `units` is empty", "write it, or leave it out");
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(yaml: &str) -> Vec<String> {
        let node = crate::yaml::parse("p.yaml", yaml).unwrap();
        let units: UnitsSpec = crate::yaml::decode(&node).unwrap();
        units.mistakes().into_iter().map(|(message, _)| message).collect()
    }

    #[test]
    fn keys_that_do_not_go_together_are_told() {
        assert!(mistakes("{strategy: id_range, by: id, target_rows: 10, max: 3, verify: none}").is_empty());
        assert!(mistakes("{strategy: predicates, predicates: [a = 1]}").is_empty());
        assert_eq!(mistakes("{target_rows: 0, max: 0}").len(), 2);
        assert_eq!(mistakes("{by: id}"), ["`by` of `units` does not go with `strategy: auto`"]);
        assert_eq!(mistakes("{strategy: predicates}").len(), 1);
        assert_eq!(mistakes("{predicates: [a]}").len(), 1);
        assert_eq!(mistakes("{strategy: none, max: 3}"), ["`max` of `units` does not go with `strategy: none`"]);
    }

    #[test]
    fn a_strategy_that_is_not_built_is_refused_by_name() {
        let node = crate::yaml::parse("p.yaml", "{strategy: native}").unwrap();
        let mistakes = crate::yaml::decode::<UnitsSpec>(&node).unwrap_err();
        assert!(mistakes[0].message.contains("`native`"), "{mistakes:?}");
    }
}
