//! What a load step may say about a table of MySQL or MariaDB.

use super::types::Outgoing;
use crate::LoadContext;
use crate::sinks::rules::{Rules, first_words, refuse_own_name};
use crate::sources::mysql::MysqlConfig;
use crate::sources::mysql::names::TableName;
use arrow::datatypes::FieldRef;
use gristmill_model::spec::LoadSpec;
use gristmill_model::{Error, ErrorKind, Result};

/// Letters that MySQL gives a name.
const LONGEST_NAME: usize = 64;
/// Letters of a load's key that the ledger keeps.
const LONGEST_KEY: usize = 700;
/// What ends a transaction as it begins ("Statements That Cause an Implicit Commit" in the manuals of both).
const COMMITTING: [&str; 21] = [
    "alter",
    "analyze",
    "cache",
    "change",
    "check",
    "create",
    "drop",
    "flush",
    "grant",
    "install",
    "lock",
    "optimize",
    "purge",
    "rename",
    "repair",
    "reset",
    "revoke",
    "stop",
    "truncate",
    "uninstall",
    "unlock",
];

/// A load step, checked as far as that goes without the server.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) table: TableName,
    pub(crate) rules: Rules,
    /// The columns that the target has beside those of the rows.
    pub(crate) added: Vec<Outgoing>,
}

/// Whether two names of columns are the same, as MySQL compares them.
pub(crate) fn same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || one.to_lowercase() == other.to_lowercase()
}

impl Options {
    /// # Errors
    /// As [`Rules::new`]; a path, columns that no table can have, statements that would commit too early.
    pub(crate) fn new(config: &MysqlConfig, load: &LoadSpec, context: &LoadContext) -> Result<Self> {
        let wrong = |message: String, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint));
        if load.path.is_some() {
            return wrong(
                format!("`path` is for files; `{}` is a MySQL database", load.to),
                "remove it, and name a `table`",
            );
        }
        let Some(table) = &load.table else {
            return wrong("the table to load is missing".to_owned(), "name it: `table: my_table`");
        };
        let mut table = TableName::parse(table)?;
        table.database = table.database.or_else(|| config.database.clone());
        if table.database.is_none() {
            return wrong(
                format!("`{table}` is in no database"),
                "name the `database` of the connection, or write `database.table`",
            );
        }
        refuse_own_name(&table.name, &table)?;
        if context.key.text().chars().count() > LONGEST_KEY {
            return wrong(
                format!("the load `{}` has too long a name for the ledger", context.key),
                "give pipeline, step, connection or table a shorter name",
            );
        }
        let rules = Rules::new(load, context, same_name)?;
        for (key, statements) in [("pre_sql", &rules.pre_sql), ("post_sql", &rules.post_sql)] {
            statements.iter().try_for_each(|statement| refuse_to_commit(statement, key))?;
        }
        let added = rules.added_fields();
        // Nothing will be staged: see `LoadContext::schema`.
        if !context.schema.fields().is_empty() {
            check_columns(context.schema.fields().iter().chain(&added))?;
        }
        let added = added.iter().map(Outgoing::new).collect::<Result<Vec<_>>>()?;
        Ok(Self { table, rules, added })
    }

    /// The database of the table, of its ledger and of what is staged for it.
    pub(crate) fn database(&self) -> &str {
        self.table.database.as_deref().unwrap_or_default()
    }
}

/// A statement that commits would part the rows from the ledger.
fn refuse_to_commit(statement: &str, key: &str) -> Result<()> {
    let words = first_words(statement, 3);
    let word = |place: usize| words.get(place).map(String::as_str).unwrap_or_default();
    let is_temporary = matches!(word(0), "create" | "drop") && words.iter().any(|word| word == "temporary");
    let of_session =
        word(0) == "set" && words.iter().any(|word| matches!(word.as_str(), "autocommit" | "password" | "transaction"));
    if (COMMITTING.contains(&word(0)) && !is_temporary) || of_session || word(0) == "xa" {
        return Err(Error::new(
            ErrorKind::Config,
            format!("`{}` cannot be used in `{key}`: MySQL commits when it sees it, before the rows are in", word(0)),
        )
        .hint("make tables by hand or in a `command` step before; `create temporary table` is fine"));
    }
    Ok(())
}

fn check_columns<'a>(fields: impl Iterator<Item = &'a FieldRef>) -> Result<()> {
    let schema_error = |message: String, hint: &str| Err(Error::new(ErrorKind::Schema, message).hint(hint));
    let mut seen: Vec<&str> = Vec::new();
    for field in fields {
        let name = field.name();
        if name.is_empty() || name.contains('\0') || name.ends_with(' ') {
            return schema_error(format!("`{name}` cannot be the name of a column"), "name it with `as`");
        }
        if name.chars().any(|letter| letter > '\u{ffff}') {
            return schema_error(
                format!("MySQL has no name with the letters of `{name}`"),
                "give it another name with `as`",
            );
        }
        if name.chars().count() > LONGEST_NAME {
            return schema_error(
                format!("the column name `{name}` is too long: MySQL takes {LONGEST_NAME} letters"),
                "give it a shorter name with `as`",
            );
        }
        if let Some(other) = seen.iter().find(|other| same_name(other, name)) {
            return schema_error(
                format!("two columns are called `{other}` and `{name}`, which is the same to MySQL"),
                "name one of them otherwise with `as`",
            );
        }
        seen.push(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_commit_are_refused() {
        for fine in [
            "insert into t values (1)",
            "create temporary table x (a int)",
            "drop temporary table if exists x",
            "set @a = 1",
            "update creates set drop_it = 1",
        ] {
            refuse_to_commit(fine, "pre_sql").unwrap();
        }
        for wrong in [
            "CREATE TABLE x (a int)",
            "/* so */ alter table t add b int",
            "truncate t",
            "set autocommit = 1",
            "set session autocommit=1",
            "lock tables t write",
            "analyze table t",
            "drop table t",
        ] {
            let error = refuse_to_commit(wrong, "pre_sql").unwrap_err();
            assert!(error.message().contains("MySQL commits"), "{error}");
        }
    }
}
