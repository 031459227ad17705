//! What a load step may say about a PostgreSQL table.

use crate::LoadContext;
use crate::sources::postgres::PostgresConfig;
use crate::sources::postgres::names::{LONGEST_NAME, TableName};
use gristmill_model::spec::{LoadSpec, Strategy};
use gristmill_model::{Error, ErrorKind, Result, one_of};
use std::collections::HashSet;

/// Names that PostgreSQL gives to every row itself.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// A load step, checked as far as that goes without the server.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) table: TableName,
    pub(crate) strategy: Strategy,
    /// Rows of the target with the same values in these columns are deleted; none for `append` and `replace`.
    pub(crate) match_on: Vec<String>,
    /// Rows of the target for which this holds are deleted.
    pub(crate) scope: Option<String>,
}

impl Options {
    /// # Errors
    /// A key that this kind of target does not have, a strategy without what it needs, columns that no table can have.
    pub(crate) fn new(config: &PostgresConfig, load: &LoadSpec, context: &LoadContext) -> Result<Self> {
        let wrong = |message: String, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint));
        for (given, key) in [
            (load.path.is_some(), "path"),
            (load.format.is_some(), "format"),
            (load.compression.is_some(), "compression"),
            (load.compression_level.is_some(), "compression_level"),
            (load.file_size.is_some(), "file_size"),
            (load.row_group_rows.is_some(), "row_group_rows"),
            (load.csv.is_some(), "csv"),
        ] {
            if given {
                return wrong(
                    format!("`{key}` is for files; `{}` is a PostgreSQL database", load.to),
                    "remove it, and name a `table`",
                );
            }
        }
        let Some(table) = &load.table else {
            return wrong("the table to load is missing".to_owned(), "name it: `table: my_table`");
        };
        let table = TableName::parse(table)?.or_schema(config.schema.as_deref());
        if table.name.starts_with("_gristmill_") {
            return wrong(format!("`{table}` is a name of Gristmill's own"), "choose another table");
        }
        let strategy = load.strategy;
        if load.scope.is_some() && matches!(strategy, Strategy::Append | Strategy::Replace) {
            return wrong(
                format!("`scope` does not go with the strategy `{}`", strategy.as_str()),
                "use it with `delete+insert` or `partition_overwrite`",
            );
        }
        let match_on = match strategy {
            Strategy::Append | Strategy::Replace => Vec::new(),
            Strategy::DeleteInsert if load.key.0.is_empty() => context.source_key.clone(),
            Strategy::DeleteInsert => load.key.0.clone(),
            Strategy::PartitionOverwrite => load.partition_by.0.clone(),
        };
        if match_on.is_empty() && load.scope.is_none() {
            match strategy {
                Strategy::DeleteInsert => {
                    return wrong(
                        "`delete+insert` needs to know which rows are the same".to_owned(),
                        "list the columns: `key: [id]`, or declare a `scope`",
                    );
                }
                Strategy::PartitionOverwrite => {
                    return wrong(
                        "`partition_overwrite` needs to know what a partition is".to_owned(),
                        "list the columns: `partition_by: [date]`, or declare a `scope`",
                    );
                }
                Strategy::Append | Strategy::Replace => {}
            }
        }
        Self::check_columns(context, &match_on)?;
        Ok(Self { table, strategy, match_on, scope: load.scope.clone() })
    }

    fn check_columns(context: &LoadContext, match_on: &[String]) -> Result<()> {
        let schema_error = |message: String, hint: &str| Err(Error::new(ErrorKind::Schema, message).hint(hint));
        let fields = context.schema.fields();
        // Nothing will be staged: see `LoadContext::schema`.
        if fields.is_empty() {
            return Ok(());
        }
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
                return schema_error(
                    format!("two columns are called `{name}`"),
                    "name one of them otherwise with `as`",
                );
            }
        }
        let known = || fields.iter().map(|field| field.name().as_str());
        if let Some(unknown) = match_on.iter().find(|name| !known().any(|known| known == *name)) {
            return Err(Error::new(ErrorKind::Schema, format!("the rows have no column `{unknown}`"))
                .hint(one_of(unknown, known())));
        }
        Ok(())
    }
}
