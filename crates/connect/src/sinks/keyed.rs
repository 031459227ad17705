//! `merge` and `scd2` as SQL: which statements bring the new rows and the table together.
//!
//! The new rows are in a table of their own whose columns are named as the target's, with one row for each key and no NULL
//! in it (the sink has looked). What is said here is said in the words that PostgreSQL and SQLite share, or in MySQL's
//! ([`Words`]), so that all do the same; whoever executes the statements does so in order, in one transaction.
//!
//! # `scd2`
//! A load says what holds from a moment on, the start of its interval. For a key among the new rows:
//!
//! | the table says for that moment | is done |
//! |---|---|
//! | the same values | nothing |
//! | other values, which began earlier | that version ends, a new one begins |
//! | other values, which began at the very moment | that version is taken back (an earlier try of the same interval), and then as above |
//! | nothing | a version begins; one with the same values that ended at the very moment goes on instead |
//!
//! A key that does not come keeps its version; with `delete_missing` the version ends. History that goes on beyond the moment
//! (a later interval was loaded) is never rewritten: what agrees with it changes nothing, what does not is an error.

use super::rules::{Rules, Stamps, VALID_FROM, VALID_TO};
use gristmill_model::spec::Strategy;
use gristmill_model::{Error, ErrorKind};

/// How a database says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// As PostgreSQL and SQLite do.
    Standard,
    /// As MySQL and MariaDB do.
    Mysql,
}

impl Words {
    /// A name.
    pub(crate) fn quoted(self, name: &str) -> String {
        match self {
            Self::Standard => format!("\"{}\"", name.replace('"', "\"\"")),
            Self::Mysql => format!("`{}`", name.replace('`', "``")),
        }
    }

    /// A value as a text for people.
    fn text(self, value: &str) -> String {
        match self {
            Self::Standard => format!("CAST({value} AS text)"),
            Self::Mysql => format!("CAST({value} AS char)"),
        }
    }

    /// A value as something that is the same only if it is written the same.
    fn as_written(self, value: &str) -> String {
        match self {
            Self::Standard => self.text(value),
            // As bytes: equal texts of a collation may differ in case, or in the spaces at their end.
            Self::Mysql => format!("CAST({value} AS binary)"),
        }
    }

    /// Whether two values differ; NULL is the same as NULL.
    fn differ(self, one: &str, other: &str) -> String {
        match self {
            Self::Standard => format!("{one} IS DISTINCT FROM {other}"),
            Self::Mysql => format!("NOT ({one} <=> {other})"),
        }
    }

    /// Deletes rows of a table, called `alias` in the condition.
    fn delete(self, table: &str, alias: &str, condition: &str) -> String {
        match self {
            Self::Standard => format!("DELETE FROM {table} AS {alias} WHERE {condition}"),
            Self::Mysql => format!("DELETE {alias} FROM {table} AS {alias} WHERE {condition}"),
        }
    }
}

/// New rows and a table, by their names in SQL.
#[derive(Debug, Clone)]
pub(crate) struct Keyed<'a> {
    pub(crate) words: Words,
    pub(crate) rules: &'a Rules,
    /// The table that is loaded, quoted.
    pub(crate) table: String,
    /// The table of the new rows, quoted.
    pub(crate) new: String,
    /// The columns of the rows.
    pub(crate) columns: Vec<KeyedColumn>,
    /// The key of the load, as a literal.
    pub(crate) load: String,
    /// The time of the commit, as an expression.
    pub(crate) now: String,
    /// The moment from which on the rows hold, as an expression.
    pub(crate) holds_from: String,
    /// What is said between INSERT's columns and its rows.
    pub(crate) overriding: &'static str,
}

/// A column of the rows.
#[derive(Debug, Clone)]
pub(crate) struct KeyedColumn {
    pub(crate) name: String,
    /// Its values can only be compared as texts (PostgreSQL: `json`, `point`), or as bytes (MySQL: texts).
    pub(crate) as_text: bool,
}

/// What is done to the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyedStep {
    /// A query that finds the keys of rows that stand in the way: the load fails if there is one.
    Refuse(String),
    /// A statement.
    Do(String),
}

/// A query for the number of rows of `from` without a value in a key column, and the first such column's place.
pub(crate) fn nulls_in_key(words: Words, key: &[String], from: &str) -> Vec<(String, String)> {
    let count = |column: &String| {
        let name = words.quoted(column);
        (column.clone(), format!("SELECT count(*) FROM {from} AS n WHERE {name} IS NULL"))
    };
    key.iter().map(count).collect()
}

/// A query for the least key, as texts, that more than one row of `from` has, and how many do.
pub(crate) fn doubled_key(words: Words, key: &[String], from: &str) -> String {
    let names: Vec<String> = key.iter().map(|column| words.quoted(column)).collect();
    let (texts, names) = (as_texts(words, &names), names.join(", "));
    format!("SELECT count(*), {texts} FROM {from} AS n GROUP BY {names} HAVING count(*) > 1 ORDER BY {names} LIMIT 1")
}

pub(crate) fn as_texts(words: Words, names: &[String]) -> String {
    names.iter().map(|name| words.text(name)).collect::<Vec<_>>().join(", ")
}

/// A key and its values, for people: `id = 7, day = 2024-01-15`.
pub(crate) fn shown_key(key: &[String], values: &[Option<String>]) -> String {
    let pairs = key.iter().zip(values);
    let pairs = pairs.map(|(name, value)| format!("{name} = {}", value.as_deref().unwrap_or("NULL")));
    pairs.collect::<Vec<_>>().join(", ")
}

/// Rows whose key has a NULL in it cannot be told apart.
pub(crate) fn refuse_null(rules: &Rules, column: &str, rows: i64) -> Error {
    let rows = if rows == 1 { "a row has".to_owned() } else { format!("{rows} rows have") };
    let message = format!("{rows} no `{column}`, which `{}` tells rows apart by", rules.strategy.as_str());
    Error::new(ErrorKind::Data, message)
        .hint(format!("leave such rows out in the step before (`where {column} is not null`), or choose another `key`"))
}

/// Rows with the same key: nobody has said which one counts.
pub(crate) fn refuse_doubled(rules: &Rules, values: &[Option<String>], rows: i64) -> Error {
    let (key, strategy) = (shown_key(&rules.match_on, values), rules.strategy.as_str());
    Error::new(ErrorKind::Data, format!("{rows} rows have the same key ({key}), and `{strategy}` takes one"))
        .hint("say which one counts: `dedup: latest by updated_at`, or add a column to `key`")
}

/// History goes on beyond the moment that the load speaks of.
pub(crate) fn refuse_past(rules: &Rules, values: &[Option<String>]) -> Error {
    let (key, from) = (shown_key(&rules.match_on, values), rules.holds_from.format("%Y-%m-%d %H:%M:%S UTC"));
    Error::new(
        ErrorKind::Conflict,
        format!("the history of the row with {key} goes on after {from}, and the load says otherwise for that time"),
    )
    .retryable(false)
    .hint("load intervals in their order; to change the past, empty the table and load it from that interval on")
}

impl Keyed<'_> {
    /// What is to be done, in order.
    pub(crate) fn steps(&self) -> Vec<KeyedStep> {
        match self.rules.strategy {
            Strategy::Scd2 => self.history(),
            _ => self.merge().into_iter().map(KeyedStep::Do).collect(),
        }
    }

    fn quoted(&self, name: &str) -> String {
        self.words.quoted(name)
    }

    fn is_key(&self, column: &KeyedColumn) -> bool {
        self.rules.match_on.contains(&column.name)
    }

    /// Whether a row of `o` and one of `n` have the same key.
    fn same_key(&self) -> String {
        let key = self.rules.match_on.iter().map(|name| self.quoted(name));
        key.map(|name| format!("o.{name} = n.{name}")).collect::<Vec<_>>().join(" AND ")
    }

    /// Whether a row of `o` and one of `n` differ in a column that is not of the key.
    fn differs(&self) -> Option<String> {
        let (words, values) = (self.words, self.columns.iter().filter(|column| !self.is_key(column)));
        let each = values.map(|column| {
            let name = self.quoted(&column.name);
            match column.as_text {
                true => words.differ(&words.as_written(&format!("o.{name}")), &words.as_written(&format!("n.{name}"))),
                false => words.differ(&format!("o.{name}"), &format!("n.{name}")),
            }
        });
        let each: Vec<String> = each.collect();
        (!each.is_empty()).then(|| format!("({})", each.join(" OR ")))
    }

    /// As [`Self::differs`], turned around.
    fn same_values(&self) -> String {
        self.differs().map_or_else(|| "1 = 1".to_owned(), |differs| format!("NOT {differs}"))
    }

    fn in_scope(&self) -> String {
        // What the user wrote stands on a line of its own, so that a comment in it ends there.
        self.rules.scope.as_ref().map_or_else(String::new, |scope| format!("(\n{scope}\n) AND "))
    }

    /// What is written into stamps of rows that change, as it stands behind other assignments.
    fn restamped(&self) -> String {
        let Stamps { load, updated, .. } = &self.rules.stamps;
        let load = load.iter().map(|name| format!(", {} = {}", self.quoted(name), self.load));
        load.chain(updated.iter().map(|name| format!(", {} = {}", self.quoted(name), self.now))).collect()
    }

    /// Inserts the new rows for which `condition` (with its `WHERE`) holds.
    pub(crate) fn insert(&self, condition: &str) -> String {
        let Stamps { load, created, updated } = &self.rules.stamps;
        let (mut names, mut values): (Vec<String>, Vec<String>) = self
            .columns
            .iter()
            .map(|column| (self.quoted(&column.name), format!("n.{}", self.quoted(&column.name))))
            .unzip();
        let mut add = |name: &str, value: &str| {
            names.push(self.quoted(name));
            values.push(value.to_owned());
        };
        if self.rules.strategy == Strategy::Scd2 {
            add(VALID_FROM, &self.holds_from);
            add(VALID_TO, "NULL");
        }
        load.iter().for_each(|name| add(name, &self.load));
        created.iter().chain(updated).for_each(|name| add(name, &self.now));
        format!(
            "INSERT INTO {} ({}){} SELECT {} FROM {} AS n{condition}",
            self.table,
            names.join(", "),
            self.overriding,
            values.join(", "),
            self.new
        )
    }

    fn merge(&self) -> Vec<String> {
        let Self { table, new, .. } = self;
        let same = self.same_key();
        let mut statements = Vec::new();
        if self.rules.delete_missing {
            let gone = format!("{}NOT EXISTS (SELECT 1 FROM {new} AS n WHERE {same})", self.in_scope());
            statements.push(self.words.delete(table, "o", &gone));
        }
        if let Some(differs) = self.differs().filter(|_| !self.rules.insert_only) {
            let values =
                self.columns.iter().filter(|column| !self.is_key(column)).map(|column| self.quoted(&column.name));
            // A row that stays the same is not written: nothing that hangs on the table is told of a change.
            let restamped = self.restamped();
            statements.push(match self.words {
                Words::Standard => {
                    let set: Vec<String> = values.map(|name| format!("{name} = n.{name}")).collect();
                    let set = set.join(", ");
                    format!("UPDATE {table} AS o SET {set}{restamped} FROM {new} AS n WHERE {same} AND {differs}")
                }
                Words::Mysql => {
                    let set: Vec<String> = values.map(|name| format!("o.{name} = n.{name}")).collect();
                    let set = set.join(", ");
                    format!("UPDATE {table} AS o JOIN {new} AS n ON {same} SET {set}{restamped} WHERE {differs}")
                }
            });
        }
        statements.push(self.insert(&format!(" WHERE NOT EXISTS (SELECT 1 FROM {table} AS o WHERE {same})")));
        statements
    }

    fn history(&self) -> Vec<KeyedStep> {
        let Self { table, new, holds_from: at, .. } = self;
        let (same_key, same_values, scope) = (self.same_key(), self.same_values(), self.in_scope());
        let (from, to) = (self.quoted(VALID_FROM), self.quoted(VALID_TO));
        // Spoken of the table's row as `o`.
        let holds = format!("o.{from} <= {at} AND (o.{to} IS NULL OR o.{to} > {at})");
        let goes_on = format!("(o.{from} > {at} OR o.{to} > {at})");
        let has_new = |condition: &str| format!("EXISTS (SELECT 1 FROM {new} AS n WHERE {same_key}{condition})");
        let is_known = format!("EXISTS (SELECT 1 FROM {table} AS o WHERE {same_key} AND {holds} AND {same_values})");
        let key = |of: &str| {
            let names: Vec<String> =
                self.rules.match_on.iter().map(|name| format!("{of}.{}", self.quoted(name))).collect();
            format!("{} FROM", as_texts(self.words, &names))
        };
        let order =
            |of: &str| format!("ORDER BY {of}.{} LIMIT 1", self.quoted(self.rules.match_on.first().map_or("", |n| n)));
        let restamped = self.restamped();
        let mut steps = vec![KeyedStep::Refuse(format!(
            "SELECT {} {new} AS n WHERE EXISTS (SELECT 1 FROM {table} AS o WHERE {same_key} AND {goes_on}) AND NOT {is_known} {}",
            key("n"),
            order("n")
        ))];
        if self.rules.delete_missing {
            steps.push(KeyedStep::Refuse(format!(
                "SELECT {} {table} AS o WHERE {scope}o.{from} <= {at} AND o.{to} > {at} AND NOT {} {}",
                key("o"),
                has_new(""),
                order("o")
            )));
            let gone = format!("{scope}o.{to} IS NULL AND NOT {}", has_new(""));
            steps.push(KeyedStep::Do(self.words.delete(table, "o", &format!("{gone} AND o.{from} = {at}"))));
            steps.push(KeyedStep::Do(format!(
                "UPDATE {table} AS o SET {to} = {at}{restamped} WHERE {gone} AND o.{from} < {at}"
            )));
        }
        let dos = [
            // What the table knows already is done with.
            self.words.delete(new, "n", &is_known),
            self.words.delete(table, "o", &format!("o.{from} = {at} AND {}", has_new(""))),
            format!(
                "UPDATE {table} AS o SET {to} = NULL{restamped} WHERE o.{to} = {at} AND {}",
                has_new(&format!(" AND {same_values}"))
            ),
            self.words.delete(new, "n", &is_known),
            format!("UPDATE {table} AS o SET {to} = {at}{restamped} WHERE o.{to} IS NULL AND {}", has_new("")),
            self.insert(""),
        ];
        steps.extend(dos.into_iter().map(KeyedStep::Do));
        steps
    }
}
