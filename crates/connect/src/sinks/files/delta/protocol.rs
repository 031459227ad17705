//! Which tables may be written to: what a table asks of its writers is honoured, or the load is refused.
//!
//! The library has such a list as well. Without its own engine of SQL it refuses every table that could have rules for
//! values, though it has none; here is looked whether there is one.

use super::table::Table;
use gristmill_model::{Error, ErrorKind, Result};
use serde_json::Value;

/// The newest protocol that this version knows.
const MOST_READER: u32 = 3;
const MOST_WRITER: u32 = 7;
/// The feature of timestamps without a time zone.
pub(super) const NTZ: &str = "timestampNtz";
/// Features that ask nothing of a load, or only what is looked for in [`check`]. A file with a deletion vector is only ever
/// removed as a whole.
const KNOWN: [&str; 11] = [
    "appendOnly",
    "invariants",
    "checkConstraints",
    "changeDataFeed",
    "generatedColumns",
    "columnMapping",
    "identityColumns",
    "deletionVectors",
    "domainMetadata",
    "vacuumProtocolCheck",
    NTZ,
];

fn refused(why: &str, hint: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the Delta table cannot be loaded: {why}")).hint(hint)
}

/// Looks whether a table can be loaded. `removes`: files of it may go.
///
/// # Errors
/// [`ErrorKind::Config`], naming what it asks of its writers.
pub(super) fn check(table: &Table, removes: bool) -> Result<()> {
    let Some(metadata) = &table.metadata else { return Ok(()) };
    let protocol = &table.protocol;
    if protocol.min_reader_version > MOST_READER || protocol.min_writer_version > MOST_WRITER {
        let why = format!(
            "its protocol is newer (reader {}, writer {}) than what this version knows",
            protocol.min_reader_version, protocol.min_writer_version
        );
        return Err(refused(&why, "load another `path`"));
    }
    let features = protocol.reader_features.iter().chain(&protocol.writer_features).flatten();
    let mut unknown: Vec<&str> = features.map(String::as_str).filter(|feature| !KNOWN.contains(feature)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    if !unknown.is_empty() {
        let why = format!("it has features that this version does not write: `{}`", unknown.join("`, `"));
        return Err(refused(&why, "drop the features, or load another `path`"));
    }
    let setting = |name: &str| metadata.configuration.get(name).map(String::as_str);
    let is_on = |name: &str| setting(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if removes && is_on("delta.appendOnly") {
        return Err(refused(
            "it only takes new rows (`delta.appendOnly`)",
            "use `strategy: append`, without `retention`",
        ));
    }
    if setting("delta.columnMapping.mode").is_some_and(|mode| mode != "none") {
        return Err(refused(
            "its columns have other names in the files (`delta.columnMapping.mode`)",
            "load another `path`",
        ));
    }
    if metadata.configuration.keys().any(|key| key.starts_with("delta.constraints.")) {
        let hint = "drop them and check the rows in the pipeline (`checks:`)";
        return Err(refused("it has constraints, which only an engine of SQL can check", hint));
    }
    if let Some(days) = setting("delta.setTransactionRetentionDuration") {
        let why = format!("it forgets which loads it holds (`delta.setTransactionRetentionDuration` is `{days}`)");
        return Err(refused(&why, "unset it: a load could come twice"));
    }
    let schema: Value = serde_json::from_str(&metadata.schema_string).unwrap_or_default();
    if let Some(found) = ruled(&schema) {
        let why = format!("a column has `{found}`, which only an engine of SQL can fill or check");
        return Err(refused(&why, "load another `path`"));
    }
    Ok(())
}

/// A rule that a column of a schema has for the values that come.
fn ruled(schema: &Value) -> Option<String> {
    match schema {
        Value::Object(map) => {
            let rules = ["delta.invariants", "delta.generationExpression"];
            let is_rule = |key: &&String| rules.contains(&key.as_str()) || key.starts_with("delta.identity.");
            map.keys().find(is_rule).cloned().or_else(|| map.values().find_map(ruled))
        }
        Value::Array(items) => items.iter().find_map(ruled),
        _ => None,
    }
}

/// Whether timestamps without a time zone may be written to a table.
pub(super) fn has_ntz(table: &Table) -> bool {
    table.protocol.writer_features.iter().flatten().any(|feature| feature == NTZ)
}

#[cfg(test)]
mod tests {
    use super::super::table::{Metadata, Protocol};
    use super::*;
    use serde_json::json;

    fn table(change: impl FnOnce(&mut Metadata, &mut Protocol)) -> Table {
        let mut metadata = Metadata {
            id: "1".to_owned(),
            name: None,
            description: None,
            format: json!({"provider": "parquet", "options": {}}),
            schema_string: json!({"type": "struct", "fields": []}).to_string(),
            partition_columns: Vec::new(),
            created_time: None,
            configuration: [].into(),
        };
        let mut protocol = Protocol { min_reader_version: 1, min_writer_version: 2, ..Protocol::default() };
        change(&mut metadata, &mut protocol);
        Table { version: Some(0), protocol, metadata: Some(metadata), ..Table::default() }
    }

    fn with(key: &str, value: &str) -> Table {
        table(|metadata, _| drop(metadata.configuration.insert(key.to_owned(), value.to_owned())))
    }

    fn features(names: &[&str]) -> Table {
        table(|_, protocol| {
            (protocol.min_reader_version, protocol.min_writer_version) = (3, 7);
            protocol.writer_features = Some(names.iter().map(|&name| name.to_owned()).collect());
        })
    }

    #[test]
    fn a_table_that_asks_for_nothing_we_lack_is_loaded() {
        for table in [
            Table::default(),
            table(|_, _| ()),
            with("delta.enableChangeDataFeed", "true"),
            with("delta.columnMapping.mode", "none"),
            features(&["appendOnly", NTZ, "deletionVectors"]),
        ] {
            check(&table, true).unwrap();
        }
        check(&with("delta.appendOnly", "true"), false).unwrap();
        assert!(has_ntz(&features(&[NTZ])) && !has_ntz(&table(|_, _| ())));
    }

    #[test]
    fn what_we_cannot_honour_is_refused_by_name() {
        let field = |key: &str| json!({"fields": [{"name": "a", "type": "long", "metadata": {key: 1}}]}).to_string();
        for (table, word) in [
            (table(|_, protocol| protocol.min_writer_version = 8), "writer 8"),
            (features(&["rowTracking", "icebergCompatV2"]), "`icebergCompatV2`, `rowTracking`"),
            (with("delta.appendOnly", "true"), "delta.appendOnly"),
            (with("delta.columnMapping.mode", "name"), "columnMapping"),
            (with("delta.constraints.positive", "a > 0"), "constraints"),
            (with("delta.setTransactionRetentionDuration", "interval 1 days"), "forgets"),
            (table(|metadata, _| metadata.schema_string = field("delta.identity.start")), "delta.identity.start"),
            (table(|metadata, _| metadata.schema_string = field("delta.invariants")), "delta.invariants"),
        ] {
            let error = check(&table, true).unwrap_err();
            assert!(error.message().contains(word) && error.hint_text().is_some(), "{error:?}");
        }
    }
}
