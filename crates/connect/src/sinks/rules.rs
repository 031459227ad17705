//! What a load step says about a table, understood alike for every database.

use crate::LoadContext;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use chrono::{DateTime, Utc};
use gristmill_model::spec::{LoadSpec, Strategy};
use gristmill_model::{Checkpoint, Error, ErrorKind, LoadKey, Result, one_of};
use std::sync::Arc;

/// When a version begins to hold; a column of tables that are loaded by `scd2`.
pub(crate) const VALID_FROM: &str = "valid_from";
/// When a version ceases to hold; NULL for what is current.
pub(crate) const VALID_TO: &str = "valid_to";

/// A load of a table, as far as it can be understood without the database.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rules {
    pub(crate) strategy: Strategy,
    /// The columns whose values say which old rows are meant: the key, or what the table is partitioned by. None where the
    /// strategy, or a scope alone, says what goes.
    pub(crate) match_on: Vec<String>,
    /// A condition on the table: what the load answers for.
    pub(crate) scope: Option<String>,
    pub(crate) insert_only: bool,
    pub(crate) delete_missing: bool,
    /// Statements before anything else, and after the rows.
    pub(crate) pre_sql: Vec<String>,
    pub(crate) post_sql: Vec<String>,
    pub(crate) stamps: Stamps,
    /// From when on the rows hold, for `scd2`: the start of the load's interval.
    pub(crate) holds_from: DateTime<Utc>,
}

/// Columns that Gristmill fills itself, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stamps {
    /// The load that wrote the row last.
    pub(crate) load: Option<String>,
    /// When the row was first written.
    pub(crate) created: Option<String>,
    /// When the row was last written.
    pub(crate) updated: Option<String>,
}

impl Stamps {
    pub(crate) fn new(load: &LoadSpec) -> Self {
        Self {
            load: load.load_column.then(|| LoadSpec::LOAD_COLUMN.to_owned()),
            created: load.created_column.clone(),
            updated: load.updated_column.clone(),
        }
    }

    /// The columns, as they are made where they are missing.
    pub(crate) fn fields(&self) -> Vec<FieldRef> {
        let load = self.load.iter().map(|name| Arc::new(Field::new(name, DataType::Utf8, true)));
        load.chain(self.created.iter().chain(&self.updated).map(|name| instant(name))).collect()
    }

    /// A stamp must not be a column of the rows, nor two stamps one column. `same`: how names are compared.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`].
    pub(crate) fn check(&self, names: &[&str], same: impl Fn(&str, &str) -> bool) -> Result<()> {
        let given = [("load_column", &self.load), ("created_column", &self.created), ("updated_column", &self.updated)];
        let given: Vec<(&str, &str)> =
            given.into_iter().filter_map(|(key, name)| Some((key, name.as_deref()?))).collect();
        for (place, (key, name)) in given.iter().enumerate() {
            if names.iter().any(|known| same(known, name)) {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!("the rows have a column `{name}`, which is what `{key}` writes"),
                )
                .hint("name one of the two otherwise"));
            }
            if let Some((other, _)) = given[..place].iter().find(|(_, other)| same(other, name)) {
                let message = format!("`{other}` and `{key}` name the same column `{name}`");
                return Err(Error::new(ErrorKind::Config, message).hint("give each a column of its own"));
            }
        }
        Ok(())
    }
}

fn instant(name: &str) -> FieldRef {
    Arc::new(Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))), true))
}

impl Rules {
    /// # Errors
    /// A strategy without what it needs; columns that are not there, or there twice.
    pub(crate) fn new(load: &LoadSpec, context: &LoadContext, same: impl Fn(&str, &str) -> bool) -> Result<Self> {
        if let Some((message, hint)) = load.mistakes(true).into_iter().next() {
            return Err(Error::new(ErrorKind::Config, message).maybe_hint(hint));
        }
        let strategy = load.strategy;
        let own_key = || if load.key.0.is_empty() { context.source_key.clone() } else { load.key.0.clone() };
        let match_on = match strategy {
            Strategy::Append | Strategy::Replace | Strategy::TruncateInsert => Vec::new(),
            // With a scope and no key of its own, the scope alone says what goes.
            Strategy::DeleteInsert if load.key.0.is_empty() && load.scope.is_some() => Vec::new(),
            Strategy::DeleteInsert | Strategy::Merge | Strategy::Scd2 => own_key(),
            Strategy::PartitionOverwrite => load.partition_by.0.clone(),
        };
        let rules = Self {
            strategy,
            match_on,
            scope: load.scope.clone(),
            insert_only: load.insert_only,
            delete_missing: load.delete_missing,
            pre_sql: statements(&load.pre_sql.0, "pre_sql")?,
            post_sql: statements(&load.post_sql.0, "post_sql")?,
            stamps: Stamps::new(load),
            holds_from: context.key.slot.interval.start,
        };
        // Without columns nothing will be staged: see `LoadContext::schema`.
        if !context.schema.fields().is_empty() {
            rules.check_columns(context, same)?;
        }
        Ok(rules)
    }

    /// Whether a load takes the place of rows that an earlier answer for its slot has appended, and by which column they are
    /// found. What is incremental (its checkpoint has a sequence) adds only what is new, however often it runs.
    pub(crate) fn replaces_its_own(&self, key: &LoadKey, next: &Checkpoint) -> Option<&str> {
        let is_again = self.strategy == Strategy::Append && key.generation > 1 && next.sequence == 0;
        self.stamps.load.as_deref().filter(|_| is_again)
    }

    /// The scope, where every row of the load must lie in it: where the load's old rows are found by it alone, so that a row
    /// outside of it would be there twice after the next run, or where one would take its whole partition along.
    pub(crate) fn binding_scope(&self) -> Option<&str> {
        let binds = match self.strategy {
            Strategy::DeleteInsert => self.match_on.is_empty(),
            Strategy::PartitionOverwrite => true,
            // What goes by a key meets its old row wherever that is.
            _ => false,
        };
        self.scope.as_deref().filter(|_| binds)
    }

    /// Whether new rows meet old ones by their key, one by one.
    pub(crate) fn is_keyed(&self) -> bool {
        matches!(self.strategy, Strategy::Merge | Strategy::Scd2)
    }

    /// Whether rows of the table may be deleted.
    pub(crate) fn deletes(&self) -> bool {
        match self.strategy {
            Strategy::Append => false,
            Strategy::Merge => self.delete_missing,
            _ => true,
        }
    }

    /// The columns that the table has beside those of the rows.
    pub(crate) fn added_fields(&self) -> Vec<FieldRef> {
        let history = if self.strategy == Strategy::Scd2 { &[VALID_FROM, VALID_TO][..] } else { &[] };
        history.iter().map(|name| instant(name)).chain(self.stamps.fields()).collect()
    }

    /// The primary key that a new table gets: what the strategy keeps unique, and nothing that it might not.
    pub(crate) fn new_key(&self) -> Vec<String> {
        match self.strategy {
            Strategy::Merge => self.match_on.clone(),
            Strategy::Scd2 => self.match_on.iter().map(String::as_str).chain([VALID_FROM]).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    fn check_columns(&self, context: &LoadContext, same: impl Fn(&str, &str) -> bool) -> Result<()> {
        let names: Vec<&str> = context.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let goes_by_key = self.strategy == Strategy::DeleteInsert && self.scope.is_none();
        if self.match_on.is_empty() && (goes_by_key || self.is_keyed()) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{}` needs to know which rows are the same", self.strategy.as_str()),
            )
            .cause("the rows come from nothing that has a primary key")
            .hint("list the columns: `key: [id]`"));
        }
        if let Some(unknown) = self.match_on.iter().find(|name| !names.iter().any(|known| known == *name)) {
            return Err(Error::new(ErrorKind::Schema, format!("the rows have no column `{unknown}`"))
                .hint(one_of(unknown, names.iter().copied())));
        }
        if let Some(twice) = self.match_on.iter().enumerate().find(|(at, name)| self.match_on[..*at].contains(name)) {
            let message = format!("the column `{}` is listed twice as what rows are told apart by", twice.1);
            return Err(Error::new(ErrorKind::Config, message).hint("list it once"));
        }
        if self.strategy == Strategy::Scd2
            && let Some(taken) = names.iter().find(|name| same(name, VALID_FROM) || same(name, VALID_TO))
        {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("the rows have a column `{taken}`, which `scd2` writes"),
            )
            .hint("give it another name in the step before"));
        }
        let stamps = self.stamps.fields();
        if self.strategy == Strategy::Scd2
            && let Some(taken) =
                stamps.iter().find(|field| [VALID_FROM, VALID_TO].iter().any(|own| same(field.name(), own)))
        {
            let message = format!("`{}` is a column that `scd2` writes itself", taken.name());
            return Err(Error::new(ErrorKind::Config, message).hint("choose another name"));
        }
        self.stamps.check(&names, same)
    }
}

/// Tables of Gristmill's own are not to be loaded: a ledger that is replaced forgets every load. Without regard to case, as most
/// databases compare names.
///
/// # Errors
/// A `name` that begins as those do; `table` is how it was written.
pub(crate) fn refuse_own_name(name: &str, table: impl std::fmt::Display) -> Result<()> {
    if !name.to_ascii_lowercase().starts_with("_gristmill_") {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, format!("`{table}` is a name of Gristmill's own")).hint("choose another table"))
}

/// The keys of a load's earlier generations, the last ten thousand of them: its rows are found by them also where the ledger
/// has forgotten the loads.
pub(crate) fn earlier_keys(key: &LoadKey) -> Vec<String> {
    let first = key.generation.saturating_sub(10_000).max(1);
    (first..key.generation).map(|generation| LoadKey { slot: key.slot.clone(), generation }.text()).collect()
}

/// An earlier load has appended rows that do not say so: adding the new ones would double them.
pub(crate) fn refuse_to_double(key: &LoadKey) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the rows that `{}` has appended before cannot be told from others", key.slot.text()),
    )
    .cause(format!("they were loaded without `load_column`, or `{}` was changed since", LoadSpec::LOAD_COLUMN))
    .retryable(false)
    .hint("delete them by hand and run again, or leave `--full-refresh` out")
}

/// Statements of the user's, each one alone and without a `;` behind it.
///
/// # Errors
/// One that would end the transaction of the commit: rows and ledger would no longer go together.
fn statements(given: &[String], key: &str) -> Result<Vec<String>> {
    let mut statements = Vec::with_capacity(given.len());
    for text in given {
        let statement = text.trim().trim_end_matches(';').trim_end();
        let words: Vec<String> = words(statement).take(2).collect();
        let first = words.first().map(String::as_str).unwrap_or_default();
        if first.is_empty() {
            return Err(Error::new(ErrorKind::Config, format!("a statement of `{key}` is empty")).hint("leave it out"));
        }
        let ends =
            matches!(first, "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release")
                || (first == "prepare" && words.get(1).is_some_and(|word| word == "transaction"));
        if ends {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{first}` cannot be used in `{key}`: it runs in the transaction of the load"),
            )
            .hint("leave it out; all statements are committed with the rows, or not at all"));
        }
        statements.push(statement.to_owned());
    }
    Ok(statements)
}

/// The first words of a statement, in lower case.
pub(crate) fn first_words(sql: &str, most: usize) -> Vec<String> {
    words(sql).take(most).collect()
}

/// The words of a statement, in lower case; comments are none.
fn words(sql: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = sql;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '_' && c != '-' && c != '/');
            if let Some(comment) = rest.strip_prefix("--") {
                rest = comment.split_once('\n').map_or("", |(_, after)| after);
            } else if let Some(comment) = rest.strip_prefix("/*") {
                rest = comment.split_once("*/").map_or("", |(_, after)| after);
            } else if rest.starts_with(['-', '/']) {
                rest = &rest[1..];
            } else {
                break;
            }
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        (!word.is_empty()).then(|| word.to_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_would_end_the_transaction_are_refused() {
        let check = |text: &str| statements(&[text.to_owned()], "pre_sql");
        assert_eq!(check(" update t set a = 1 ;\n").unwrap(), ["update t set a = 1"]);
        for fine in
            ["delete from commits", "prepare p as select 1", "-- commit\nselect 1", "with a as (select 1) select 1"]
        {
            check(fine).unwrap();
        }
        for wrong in [
            "COMMIT",
            "/* all is well */ commit",
            "-- now\n  rollback to x",
            "begin",
            ";commit",
            "end transaction",
            "prepare transaction 'x'",
        ] {
            let error = check(wrong).unwrap_err();
            assert!(error.message().contains("transaction of the load"), "{error}");
        }
        assert!(check(" ; ").unwrap_err().message().contains("is empty"));
    }
}
