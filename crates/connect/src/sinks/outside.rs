//! Rows outside of the `scope` that a load answers for.
//!
//! What a load finds again by its scope alone must lie in it, or the next run for the same scope would leave it there and add it
//! once more ([`Rules::binding_scope`]). So such rows are refused: by the audit, before any load of the run is committed, and by
//! the commit, which asks with the table as it is before old rows are deleted.
//!
//! The rows are asked where they wait, under the names of the table's columns. A scope may also speak of columns that only the
//! table has (computed ones, defaults): then the table is asked when the rows are in. Since all that was in the scope has just
//! been deleted, it holds as many rows of the scope as were added, or some of those are outside.

use super::keyed::{Words, as_texts, shown_key};
use super::rules::Rules;
use gristmill_model::{Error, ErrorKind};

/// At most so many columns of an example are shown.
const SHOWN: usize = 4;

/// A scope that all rows of a load must lie in.
#[derive(Debug, Clone)]
pub(crate) struct Bounds<'a> {
    words: Words,
    scope: &'a str,
    /// The columns of an example that are shown.
    shown: Vec<String>,
    /// Whether it can be told by the rows alone.
    by_rows: bool,
}

impl<'a> Bounds<'a> {
    /// None where rows may lie anywhere. `columns`: of the rows; `others`: what else a scope may name, the table's other columns
    /// and the schema that it is in.
    pub(crate) fn new<'b>(
        rules: &'a Rules,
        words: Words,
        columns: impl Iterator<Item = &'b str>,
        others: impl Iterator<Item = &'b str>,
    ) -> Option<Self> {
        let scope = rules.binding_scope()?;
        let columns: Vec<&str> = columns.collect();
        let is_column = |name: &str| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
        let stamps = &rules.stamps;
        let mut stamps = stamps.load.iter().chain(&stamps.created).chain(&stamps.updated).map(String::as_str);
        let by_rows = !others.filter(|name| !is_column(name)).any(|name| names(scope, name))
            && !stamps.any(|name| names(scope, name));
        let mut shown: Vec<&str> = columns.iter().copied().filter(|name| names(scope, name)).collect();
        if shown.is_empty() {
            shown = columns;
        }
        let shown = shown.into_iter().take(SHOWN).map(str::to_owned).collect();
        Some(Self { words, scope, shown, by_rows })
    }

    /// Whether it can be told by the rows alone, before they are in the table.
    pub(crate) fn are_told_by_rows(&self) -> bool {
        self.by_rows
    }

    /// A query for the number of rows of `from` that are outside. What is NULL is not true of a row, so it is not deleted.
    pub(crate) fn count(&self, from: &str) -> String {
        // What the user wrote stands on a line of its own, so that a comment in it ends there.
        format!("SELECT count(*) FROM {from} WHERE (\n{}\n) IS NOT TRUE", self.scope)
    }

    /// A query for one of them, as texts.
    pub(crate) fn example(&self, from: &str) -> String {
        let names: Vec<String> = self.shown.iter().map(|name| self.words.quoted(name)).collect();
        let (texts, scope) = (as_texts(self.words, &names), self.scope);
        let order: Vec<String> = (1..=names.len()).map(|place| place.to_string()).collect();
        format!("SELECT {texts} FROM {from} WHERE (\n{scope}\n) IS NOT TRUE ORDER BY {} LIMIT 1", order.join(", "))
    }

    /// A query for the number of rows of the table that are in the scope.
    pub(crate) fn count_within(&self, table: &str) -> String {
        format!("SELECT count(*) FROM {table} WHERE (\n{}\n)", self.scope)
    }

    /// What is said when the scope cannot be asked.
    pub(crate) fn does_not_work(&self) -> String {
        format!("the scope `{}` does not work", self.scope)
    }

    /// Refuses `rows` rows that are outside; `example`: what one of them has, where that is known.
    pub(crate) fn refuse(&self, rows: i64, example: &[Option<String>]) -> Error {
        let scope = self.scope;
        let shown = shown_key(&self.shown, example);
        let such_as = match (shown.is_empty(), rows) {
            (true, _) => String::new(),
            (false, 1) => format!(", with {shown}"),
            (false, _) => format!(", such as one with {shown}"),
        };
        let are = if rows == 1 { "1 row is".to_owned() } else { format!("{rows} rows are") };
        Error::new(ErrorKind::Data, format!("{are} outside of the scope `{scope}`{such_as}"))
            .hint("leave such rows out in a `sql` step before the load, or widen `scope`")
    }

    /// Looks whether as many rows are in the scope as were added.
    ///
    /// # Errors
    /// Fewer, so that some of those are outside.
    pub(crate) fn hold(&self, within: i64, added: u64) -> Result<(), Error> {
        let added = i64::try_from(added).unwrap_or(i64::MAX);
        if within >= added { Ok(()) } else { Err(self.refuse(added - within, &[])) }
    }
}

/// Whether a condition names something, as far as its words tell; a word of a text counts as well.
fn names(condition: &str, name: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$';
    if name.chars().all(is_part) {
        return condition.split(|letter| !is_part(letter)).any(|word| word.eq_ignore_ascii_case(name));
    }
    condition.to_lowercase().contains(&name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoadContext, OpenContext};
    use arrow::datatypes::Schema;
    use gristmill_model::spec::LoadSpec;
    use gristmill_model::yaml::{decode, parse};
    use gristmill_model::{Interval, LoadKey, OwnerId, RunId, Slot};
    use std::sync::Arc;

    fn rules_of(load: &str) -> Rules {
        let load = format!("from: rows\nto: db\ntable: t\n{load}\n");
        let load: LoadSpec = decode(&parse("p.yaml", &load).unwrap()).unwrap();
        let interval = Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap());
        let slot = Slot { pipeline: "p".into(), step: "s".into(), interval, target: "db:t".to_owned() };
        let context = LoadContext {
            key: LoadKey { slot, generation: 1 },
            owner: OwnerId(RunId::new("run")),
            schema: Arc::new(Schema::empty()),
            source_key: Vec::new(),
            alone: false,
            open: OpenContext { project: ".".into(), state: ".gristmill".into() },
            ledger_retention: None,
        };
        Rules::new(&load, &context, |a, b| a == b).unwrap()
    }

    #[test]
    fn a_scope_binds_what_is_found_by_it_alone() {
        for (load, binds) in [
            ("strategy: delete+insert\nscope: day = 1", true),
            ("strategy: delete+insert\nkey: id\nscope: day = 1", false),
            ("strategy: delete+insert\nkey: id", false),
            ("strategy: partition_overwrite\npartition_by: id\nscope: day = 1", true),
            ("strategy: merge\nkey: id\ndelete_missing: true\nscope: day = 1", false),
            ("strategy: scd2\nkey: id\ndelete_missing: true\nscope: day = 1", false),
        ] {
            assert_eq!(rules_of(load).binding_scope().is_some(), binds, "{load}");
        }
    }

    #[test]
    fn what_only_the_table_has_is_asked_of_the_table() {
        let rules = rules_of("strategy: delete+insert\nscope: s.t.day = 1 and \"a b\" = 'x' and lower(Region) = 'eu'");
        let told = |columns: &[&'static str], others: &[&'static str]| {
            let bounds = Bounds::new(&rules, Words::Standard, columns.iter().copied(), others.iter().copied()).unwrap();
            (bounds.are_told_by_rows(), bounds.shown.join(","))
        };
        assert_eq!(told(&["id", "day", "A B", "region"], &["id", "da", "on"]), (true, "day,A B,region".into()));
        assert_eq!(told(&["id", "day"], &["region"]), (false, "day".into()));
        assert_eq!(told(&["id", "x1"], &["a b"]), (false, "id,x1".into()));
        assert!(!told(&["id"], &["s"]).0);
    }

    #[test]
    fn what_is_refused_is_counted_and_shown() {
        let rules = rules_of("strategy: delete+insert\nscope: day = 1");
        let bounds = Bounds::new(&rules, Words::Standard, ["id", "day"].into_iter(), [].into_iter()).unwrap();
        let told = |rows: i64, example: &[Option<String>]| bounds.refuse(rows, example).message().to_owned();
        assert_eq!(told(1, &[Some("2".into())]), "1 row is outside of the scope `day = 1`, with day = 2");
        assert_eq!(told(3, &[None]), "3 rows are outside of the scope `day = 1`, such as one with day = NULL");
        assert_eq!(told(3, &[]), "3 rows are outside of the scope `day = 1`");
        assert!(bounds.hold(5, 5).is_ok() && bounds.hold(6, 5).is_ok());
        assert!(bounds.hold(3, 5).unwrap_err().message().starts_with("2 rows are outside"));
    }
}
