//! What a load says, understood for a SQLite table.

use super::convert::Shelf;
use crate::LoadContext;
use crate::sinks::rules::{Rules, refuse_own_name};
use gristmill_model::spec::LoadSpec;
use gristmill_model::{Error, ErrorKind, Result};

/// What is done to the table.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The table, as the load names it.
    pub(super) table: String,
    pub(super) rules: Rules,
    /// The columns that the table has beside those of the rows.
    pub(super) added: Vec<Shelf>,
}

impl Plan {
    pub(super) fn new(load: &LoadSpec, context: &LoadContext) -> Result<Self> {
        let config = |message: String| Error::new(ErrorKind::Config, message);
        let Some(table) = load.table.clone().filter(|table| !table.trim().is_empty()) else {
            return Err(config("a SQLite database is loaded into a `table`".to_owned()).hint("write `table: orders`"));
        };
        if load.path.is_some() {
            return Err(config("`path` is for files, not for a SQLite table".to_owned()).hint("remove `path`"));
        }
        refuse_own_name(bare(&table), &table)?;
        let rules = Rules::new(load, context, |a, b| a.eq_ignore_ascii_case(b))?;
        let fields = context.schema.fields();
        for (index, field) in fields.iter().enumerate() {
            if fields.iter().take(index).any(|other| other.name().eq_ignore_ascii_case(field.name())) {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!("the rows have the column `{}` twice", field.name()),
                )
                .hint("SQLite does not tell upper from lower case in column names; rename one of them"));
            }
        }
        let added = rules.added_fields().iter().map(|field| Shelf::new(field)).collect::<Result<Vec<_>>>()?;
        Ok(Self { table, rules, added })
    }
}

/// A table's name without `main.` and quotes. Names of SQLite's tables are taken as they stand, but one that looks like a
/// table of ours in quotes is meant to be that.
fn bare(table: &str) -> &str {
    fn unquoted(part: &str) -> &str {
        part.trim().trim_matches(['"', '`', '\'', '[', ']'])
    }
    match table.split_once('.') {
        Some((schema, rest)) if unquoted(schema).eq_ignore_ascii_case("main") => unquoted(rest),
        _ => unquoted(table),
    }
}
