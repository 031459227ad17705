//! What a load step may say about a PostgreSQL table.

use super::types::Outgoing;
use crate::LoadContext;
use crate::sinks::rules::{Rules, refuse_own_name};
use crate::sources::postgres::PostgresConfig;
use crate::sources::postgres::names::{LONGEST_NAME, TableName};
use arrow::datatypes::FieldRef;
use gristmill_model::spec::LoadSpec;
use gristmill_model::{Error, ErrorKind, Result};
use std::collections::HashSet;

/// Names that PostgreSQL gives to every row itself.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// A load step, checked as far as that goes without the server.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) table: TableName,
    pub(crate) rules: Rules,
    /// The columns that the target has beside those of the rows.
    pub(crate) added: Vec<Outgoing>,
}

impl Options {
    /// # Errors
    /// As [`Rules::new`]; a path, columns that no table can have.
    pub(crate) fn new(config: &PostgresConfig, load: &LoadSpec, context: &LoadContext) -> Result<Self> {
        let wrong = |message: String, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint));
        if load.path.is_some() {
            return wrong(
                format!("`path` is for files; `{}` is a PostgreSQL database", load.to),
                "remove it, and name a `table`",
            );
        }
        let Some(table) = &load.table else {
            return wrong("the table to load is missing".to_owned(), "name it: `table: my_table`");
        };
        let table = TableName::parse(table)?.or_schema(config.schema.as_deref());
        refuse_own_name(&table.name, &table)?;
        let rules = Rules::new(load, context, |a, b| a == b)?;
        let added = rules.added_fields();
        // Nothing will be staged: see `LoadContext::schema`.
        if !context.schema.fields().is_empty() {
            check_columns(context.schema.fields().iter().chain(&added))?;
        }
        let added = added.iter().map(Outgoing::new).collect::<Result<Vec<_>>>()?;
        Ok(Self { table, rules, added })
    }
}

fn check_columns<'a>(fields: impl Iterator<Item = &'a FieldRef>) -> Result<()> {
    let schema_error = |message: String, hint: &str| Err(Error::new(ErrorKind::Schema, message).hint(hint));
    let mut seen = HashSet::new();
    for field in fields {
        let name = field.name();
        if name.is_empty() || name.contains('\0') {
            return schema_error(format!("`{name}` cannot be the name of a column"), "name it with `as`");
        }
        if name.len() > LONGEST_NAME {
            return schema_error(
                format!("the column name `{name}` is too long: PostgreSQL keeps {LONGEST_NAME} bytes of it"),
                "give it a shorter name with `as`",
            );
        }
        if SYSTEM_COLUMNS.contains(&name.as_str()) {
            return schema_error(
                format!("PostgreSQL keeps the column name `{name}` to itself"),
                "give it another name with `as`",
            );
        }
        if !seen.insert(name) {
            return schema_error(format!("two columns are called `{name}`"), "name one of them otherwise with `as`");
        }
    }
    Ok(())
}
