//! A unit's payload: which rows it takes, and how that is said in SQL.

use super::thousands;
use crate::Aggregation;
use serde::{Deserialize, Serialize};

/// How a database says what units are told apart by.
pub(crate) trait Dialect {
    /// A column's name in quotes.
    fn quoted(&self, name: &str) -> String;

    /// An [`Edge`]'s value as a literal.
    fn literal(&self, value: &str) -> String;

    /// An expression: the hash of a column, a whole number from 0 on, also where the column is NULL.
    fn hash(&self, column: &str) -> String;
}

/// What a unit's payload says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// The exported snapshot it is read in; none when the unit is a picture of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot: Option<String>,
    /// Which plan of that snapshot's it belongs to.
    #[serde(default)]
    pub(crate) plan: u32,
    /// A condition beside that of the extract, in SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pushed: Option<String>,
    /// This of its rows, in place of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) aggregation: Option<Aggregation>,
    /// So many rows are enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
    pub(crate) slice: Slice,
}

/// Which rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Slice {
    /// All of them.
    Whole,
    /// Ranges of pages, of one table or of several. PostgreSQL only.
    Blocks(Vec<Blocks>),
    /// A range of a key.
    Keys {
        column: String,
        /// Open below when none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Edge>,
        /// Open above when none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Edge>,
        /// Whether rows without a key are in it, too.
        nulls: bool,
    },
    /// Rows without a key.
    NoKey { column: String },
    /// Rows whose key's hash leaves `part` when divided by `of`.
    Hash { column: String, part: u32, of: u32 },
    /// Rows for which `take` holds (all when none) and none of `leave` does.
    Predicate {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        take: Option<String>,
        leave: Vec<String>,
    },
}

/// Pages `from` up to, not including, `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blocks {
    /// The name in SQL of a leaf table; none for the relation of the extract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relation: Option<String>,
    pub(crate) from: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<u64>,
}

/// A place between keys: just before `value`, or just after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edge {
    /// As [`Dialect::literal`] takes it.
    pub(crate) value: String,
    pub(crate) after: bool,
}

impl Blocks {
    fn condition(&self) -> Option<String> {
        // A whole table is said by its pages, too: otherwise the server might read an index instead, in its order.
        let is_part = self.from > 0 || self.to.is_some();
        let from = (self.from > 0 || !is_part).then(|| format!("ctid >= '({},0)'", self.from));
        let to = self.to.map(|to| format!("ctid < '({to},0)'"));
        match (from, to) {
            (Some(from), Some(to)) => Some(format!("{from} AND {to}")),
            (from, to) => from.or(to),
        }
    }

    fn label(&self, whole: &str) -> String {
        let of = self.relation.as_deref().unwrap_or(whole);
        match (self.from, self.to) {
            (0, None) => of.to_owned(),
            (from, None) => format!("{of} from block {}", thousands(from)),
            (from, Some(to)) => format!("{of} blocks {} to {}", thousands(from), thousands(to - 1)),
        }
    }
}

impl Slice {
    /// The SELECT of these rows. `relation` is what the extract names, in SQL with its alias; `filter` its condition.
    ///
    /// What the user wrote stands on lines of its own, so that a comment in it ends there.
    pub(crate) fn select(&self, dialect: &dyn Dialect, columns: &str, relation: &str, filter: Option<&str>) -> String {
        let one = |relation: &str, condition: Option<String>| {
            let filter = filter.map(|filter| format!("(\n{filter}\n)"));
            let all: Vec<String> = filter.into_iter().chain(condition).collect();
            let condition = if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) };
            format!("SELECT {columns} FROM {relation}{condition}")
        };
        match self {
            Self::Blocks(blocks) => {
                let pieces: Vec<String> = blocks
                    .iter()
                    .map(|blocks| {
                        let only = blocks.relation.as_ref().map(|leaf| format!("ONLY {leaf}"));
                        one(only.as_deref().unwrap_or(relation), blocks.condition())
                    })
                    .collect();
                pieces.join(" UNION ALL ")
            }
            other => one(relation, other.condition(dialect)),
        }
    }

    fn condition(&self, dialect: &dyn Dialect) -> Option<String> {
        match self {
            Self::Whole | Self::Blocks(_) => None,
            Self::Keys { column, from, to, nulls } => {
                let column = dialect.quoted(column);
                let from = from.as_ref().map(|Edge { value, after }| {
                    format!("{column} {} {}", if *after { ">" } else { ">=" }, dialect.literal(value))
                });
                let to = to.as_ref().map(|Edge { value, after }| {
                    format!("{column} {} {}", if *after { "<=" } else { "<" }, dialect.literal(value))
                });
                let range = match (from, to) {
                    (Some(from), Some(to)) => Some(format!("{from} AND {to}")),
                    (from, to) => from.or(to),
                };
                match (range, nulls) {
                    (Some(range), true) => Some(format!("({range} OR {column} IS NULL)")),
                    (Some(range), false) => Some(range),
                    (None, true) => None,
                    (None, false) => Some(format!("{column} IS NOT NULL")),
                }
            }
            Self::NoKey { column } => Some(format!("{} IS NULL", dialect.quoted(column))),
            Self::Hash { column, part, of } => Some(format!("{} % {of} = {part}", dialect.hash(column))),
            Self::Predicate { take, leave } => {
                let take = take.iter().map(|predicate| format!("((\n{predicate}\n) IS TRUE)"));
                let leave = leave.iter().map(|predicate| format!("((\n{predicate}\n) IS NOT TRUE)"));
                let all: Vec<String> = take.chain(leave).collect();
                (!all.is_empty()).then(|| all.join(" AND "))
            }
        }
    }

    /// Whether the rows come in the same order each time they are read from one snapshot, so that a reader that was cut
    /// off can go on where it was: pages are read in their order (parallel workers and synchronized scans are off).
    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self, Self::Blocks(_))
    }

    /// For people. `whole` is the name of what the extract reads.
    pub(crate) fn label(&self, whole: &str) -> String {
        match self {
            Self::Whole => whole.to_owned(),
            Self::Blocks(blocks) => match blocks.as_slice() {
                [] => whole.to_owned(),
                [one] => one.label(whole),
                [first, .., last] => {
                    format!("{} … {} ({} tables)", first.label(whole), last.label(whole), blocks.len())
                }
            },
            Self::Keys { column, from, to, nulls } => {
                let or_null = if *nulls { " or null" } else { "" };
                match (from, to) {
                    (None, None) => format!("{whole} by {column}"),
                    (None, Some(to)) => {
                        let sign = if to.after { "<=" } else { "<" };
                        format!("{whole} {column} {sign} {}{or_null}", short(&to.value))
                    }
                    (Some(from), None) => {
                        let sign = if from.after { ">" } else { ">=" };
                        format!("{whole} {column} {sign} {}", short(&from.value))
                    }
                    (Some(from), Some(to)) => {
                        let (open, close) = (if from.after { "(" } else { "[" }, if to.after { "]" } else { ")" });
                        format!("{whole} {column} in {open}{}, {}{close}", short(&from.value), short(&to.value))
                    }
                }
            }
            Self::NoKey { column } => format!("{whole} {column} is null"),
            Self::Hash { column, part, of } => format!("{whole} hash of {column} {} of {of}", part + 1),
            Self::Predicate { take: Some(take), .. } => format!("{whole} where {}", short(take)),
            Self::Predicate { take: None, .. } => format!("{whole} where none of the predicates holds"),
        }
    }
}

/// The beginning of a long value.
fn short(value: &str) -> String {
    const MOST: usize = 60;
    match value.char_indices().nth(MOST) {
        None => value.to_owned(),
        Some((end, _)) => format!("{}…", &value[..end]),
    }
}
