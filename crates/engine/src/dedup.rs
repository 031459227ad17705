//! Of rows with the same key, only one: a query that the engine does like any other, so it spills.

use datafusion::arrow::datatypes::{DataType, Schema};
use gristmill_model::spec::DedupSpec;
use gristmill_model::{Error, ErrorKind, Result, one_of};

/// The query that keeps one row for each key of the table `from`.
///
/// Rows without a key are not equal to each other, so all of them stay. Where `keep` does not decide, the other columns do,
/// so that the same rows are kept every time.
///
/// # Errors
/// A column that is not there.
pub(crate) fn query(dedup: &DedupSpec, from: &str, schema: &Schema) -> Result<String> {
    let names = || schema.fields().iter().map(|field| field.name().as_str());
    for name in dedup.key.0.iter().chain([&dedup.keep.by]) {
        if !names().any(|known| known == name) {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("`dedup` names the column `{name}`, which does not exist"),
            )
            .hint(one_of(name, names())));
        }
    }
    let key: Vec<String> = dedup.key.0.iter().map(|name| quoted(name)).collect();
    let rest = schema.fields().iter().filter(|field| {
        let name = field.name();
        *name != dedup.keep.by && !dedup.key.0.contains(name) && has_order(field.data_type())
    });
    let direction = if dedup.keep.latest { "DESC" } else { "ASC" };
    let order: Vec<String> = [&dedup.keep.by]
        .into_iter()
        .chain(rest.map(|field| field.name()))
        .map(|name| format!("{} {direction} NULLS LAST", quoted(name)))
        .collect();
    let columns: Vec<String> = names().map(quoted).collect();
    let no_key: Vec<String> = key.iter().map(|column| format!("{column} IS NULL")).collect();
    Ok(format!(
        "SELECT {} FROM (SELECT *, row_number() OVER (PARTITION BY {} ORDER BY {}) AS __place FROM {}) \
         WHERE __place = 1 OR {}",
        columns.join(", "),
        key.join(", "),
        order.join(", "),
        quoted(from),
        no_key.join(" OR ")
    ))
}

fn has_order(kind: &DataType) -> bool {
    !kind.is_nested() && !matches!(kind, DataType::Null)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
