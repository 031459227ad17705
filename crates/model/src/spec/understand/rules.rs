//! Keys of a step that must agree with each other.

use crate::spec::tables;
use crate::spec::{ExtractSpec, LoadSpec, SchemaContract};

/// What an extract reads, and the keys that go with it.
pub(super) fn check_extract(extract: &ExtractSpec, complain: &mut impl FnMut(String, Option<String>)) {
    let given = [extract.table.is_some(), extract.tables.is_some(), extract.query.is_some(), extract.path.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        complain("`extract` needs exactly one of `table`, `tables`, `query` and `path`".to_owned(), None);
    }
    check_tables(extract, complain);
    if extract.filter.is_some() && extract.table.is_none() && extract.tables.is_none() {
        complain(
            "`where` goes with `table` and `tables`".to_owned(),
            Some("put the condition into the query, or into a sql step".to_owned()),
        );
    }
    if extract.path.is_none() {
        let file_only = [
            ("format", extract.format.is_some()),
            ("compression", extract.compression.is_some()),
            ("csv", extract.csv.is_some()),
            ("json", extract.json.is_some()),
            ("http", extract.http.is_some()),
        ];
        for (key, _) in file_only.iter().filter(|(_, given)| *given) {
            complain(format!("`{key}` goes with `path`"), None);
        }
    }
    for (message, hint) in extract.http.iter().flat_map(|http| http.mistakes()) {
        complain(message, hint);
    }
}

/// What an extract of many tables may say.
fn check_tables(extract: &ExtractSpec, complain: &mut impl FnMut(String, Option<String>)) {
    for patterns in [&extract.tables, &extract.exclude].into_iter().flatten() {
        for mistake in tables::mistakes(patterns) {
            complain(mistake, Some("write e.g. `public.*`, `order_*` or `sales.orders`".to_owned()));
        }
    }
    if extract.tables.is_none() {
        if extract.exclude.is_some() {
            complain("`exclude` goes with `tables`".to_owned(), None);
        }
        return;
    }
    let of_one = [
        ("columns", !extract.columns.is_empty()),
        ("schema", !extract.schema.is_empty()),
        ("dedup", extract.dedup.is_some()),
    ];
    for (key, _) in of_one.iter().filter(|(_, given)| *given) {
        complain(
            format!("`{key}` is for one table, and `tables` are many"),
            Some("extract that table in a step of its own, and leave it out here with `exclude`".to_owned()),
        );
    }
}

/// The keys that go with a cursor.
pub(super) fn check_increment(extract: &ExtractSpec, complain: &mut impl FnMut(String, Option<String>)) {
    if extract.incremental_key.is_none() {
        let of_api = extract.http.as_ref().is_some_and(|http| http.incremental.is_some());
        for (key, given) in [
            ("lag", extract.lag.is_some()),
            ("on_cursor_missing", extract.on_cursor_missing.is_some()),
            ("incremental", of_api),
        ] {
            if given {
                complain(
                    format!("`{key}` goes with `incremental_key`"),
                    Some("name the column whose values only grow: `incremental_key: updated_at`".to_owned()),
                );
            }
        }
    }
    let contract = extract.schema_contract;
    if contract != SchemaContract::Evolve
        && (extract.path.is_none() || contract.discards())
        && extract.incremental_key.is_none()
    {
        let of = if contract.discards() { "" } else { " of a table or query" };
        complain(
            format!("`schema_contract: {}`{of} goes with `incremental_key`", contract.as_str()),
            Some("without a cursor nothing is kept that the columns could be compared with".to_owned()),
        );
    }
    if let Some(dedup) = &extract.dedup
        && dedup.key.0.is_empty()
    {
        complain("`dedup` needs a `key`".to_owned(), Some("e.g. `key: [id]`".to_owned()));
    }
}

/// `is_of_many`: the load stands for many, one for each table.
pub(super) fn check_target(load: &LoadSpec, is_of_many: bool, complain: &mut impl FnMut(String, Option<String>)) {
    let target = load.table.as_ref().or(load.path.as_ref());
    if let Some(target) = target.filter(|target| is_of_many && !crate::names_a_table(target)) {
        let example = if load.table.is_some() { "table: \"raw.{{ table }}\"" } else { "path: \"raw/{{ table }}/\"" };
        complain(
            format!("every table of `{}` would be loaded into `{target}`", load.from),
            Some(format!("name the table in the target, e.g. `{example}`")),
        );
    }
}
