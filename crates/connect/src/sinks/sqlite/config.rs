//! What a load says, understood for a SQLite table.

use crate::LoadContext;
use gristmill_model::spec::{LoadSpec, Strategy};
use gristmill_model::{Error, ErrorKind, Result, one_of};

/// What is done to the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The table, as the load names it.
    pub(super) table: String,
    /// How new rows meet old ones.
    pub(super) strategy: Strategy,
    /// The columns whose new values say which old rows go: the key, or what the table is partitioned by.
    pub(super) matching: Vec<String>,
    /// A condition on the table; the rows it holds for go, even without new ones.
    pub(super) scope: Option<String>,
}

impl Plan {
    pub(super) fn new(load: &LoadSpec, context: &LoadContext) -> Result<Self> {
        let config = |message: String| Error::new(ErrorKind::Config, message);
        let Some(table) = load.table.clone().filter(|table| !table.trim().is_empty()) else {
            return Err(config("a SQLite database is loaded into a `table`".to_owned()).hint("write `table: orders`"));
        };
        for (key, given) in [
            ("path", load.path.is_some()),
            ("format", load.format.is_some()),
            ("compression", load.compression.is_some()),
            ("compression_level", load.compression_level.is_some()),
            ("file_size", load.file_size.is_some()),
            ("row_group_rows", load.row_group_rows.is_some()),
            ("csv", load.csv.is_some()),
        ] {
            if given {
                return Err(
                    config(format!("`{key}` is for files, not for a SQLite table")).hint(format!("remove `{key}`"))
                );
            }
        }
        let (strategy, scope) = (load.strategy, load.scope.clone());
        let matching = match strategy {
            Strategy::Append | Strategy::Replace => Vec::new(),
            // With a scope and no key of its own, the scope alone says what goes.
            Strategy::DeleteInsert if load.key.0.is_empty() && scope.is_some() => Vec::new(),
            Strategy::DeleteInsert if load.key.0.is_empty() => context.source_key.clone(),
            Strategy::DeleteInsert => load.key.0.clone(),
            Strategy::PartitionOverwrite => load.partition_by.0.clone(),
        };
        if matching.is_empty() && scope.is_none() {
            match strategy {
                Strategy::Append | Strategy::Replace => {}
                Strategy::DeleteInsert => {
                    return Err(config(
                        "`strategy: delete+insert` needs `key` or `scope` to know what to delete".to_owned(),
                    )
                    .hint("e.g. `key: [date]`"));
                }
                Strategy::PartitionOverwrite => {
                    return Err(config("`strategy: partition_overwrite` needs `partition_by`".to_owned())
                        .hint("e.g. `partition_by: [date]`"));
                }
            }
        }
        let fields = context.schema.fields();
        // Without columns nothing will be staged: see `LoadContext::schema`.
        for column in matching.iter().filter(|_| !fields.is_empty()) {
            if !fields.iter().any(|field| field.name() == column) {
                return Err(Error::new(ErrorKind::Schema, format!("the rows have no column `{column}`"))
                    .hint(one_of(column, fields.iter().map(|field| field.name().as_str()))));
            }
        }
        for (index, field) in fields.iter().enumerate() {
            if fields.iter().take(index).any(|other| other.name().eq_ignore_ascii_case(field.name())) {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!("the rows have the column `{}` twice", field.name()),
                )
                .hint("SQLite does not tell upper from lower case in column names; rename one of them"));
            }
        }
        Ok(Self { table, strategy, matching, scope })
    }
}
