//! What the target is, and whether the rows fit it.

use super::column::Column;
use super::comment;
use super::config::{Options, same_name};
use super::encode::Limits;
use super::session::Server;
use super::types::{Kind, Outgoing};
use crate::sinks::rules::{Rules, VALID_FROM, VALID_TO};
use crate::sources::mysql::MysqlConfig;
use crate::sources::mysql::SYSTEM;
use crate::sources::mysql::connect::{Session, server_error};
use crate::sources::mysql::names::{literal, quoted};
use gristmill_model::spec::Strategy;
use gristmill_model::{Error, ErrorKind, Result, one_of};

/// Where rows are to go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) database: String,
    pub(crate) name: String,
    pub(crate) server: Server,
    /// None where there is no such table yet.
    pub(crate) existing: Option<Existing>,
}

/// A table that is there.
#[derive(Debug, Clone)]
pub(crate) struct Existing {
    pub(super) columns: Vec<Column>,
    /// From it and to it; looked up where rows are going to be deleted.
    pub(crate) foreign_keys: Vec<ForeignKey>,
}

/// A foreign key to the target, or from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignKey {
    name: String,
    /// The table that has it.
    pub(crate) from: (String, String),
    /// The table that it points to.
    pub(crate) to: (String, String),
    /// Its columns, and those they point to.
    pub(crate) columns: Vec<(String, String)>,
    on_delete: String,
}

impl Target {
    /// # Errors
    /// A database that does not exist; something of that name that is not a table, or keeps no transactions; a server that
    /// cannot be asked.
    pub(crate) async fn find(session: &mut Session, config: &MysqlConfig, options: &Options) -> Result<Self> {
        let failed = |error| server_error(&error, config, &format!("cannot look up `{}`", options.table));
        let (database, name) = (options.database().to_owned(), options.table.name.clone());
        let sql = format!(
            "SELECT t.table_type, t.engine, e.transactions FROM information_schema.tables t \
             LEFT JOIN information_schema.engines e ON e.engine = t.engine WHERE t.table_schema = {} AND t.table_name = {}",
            literal(&database),
            literal(&name)
        );
        let found = session.ask(&sql).await.map_err(failed)?.into_iter().next();
        let server = Server::of(session);
        let Some([kind, engine, transactions]) = found.and_then(|row| <[Option<String>; 3]>::try_from(row).ok()) else {
            must_exist(session, config, &database).await?;
            return Ok(Self { database, name, server, existing: None });
        };
        let kind = kind.unwrap_or_default();
        if kind.contains("VIEW") || kind == "SEQUENCE" {
            let what = if kind.contains("VIEW") { "a view" } else { "a sequence" };
            return Err(
                Error::new(ErrorKind::Schema, format!("`{database}.{name}` is {what}")).hint("load into a table")
            );
        }
        if transactions.as_deref() != Some("YES") {
            let engine = engine.unwrap_or_else(|| "an engine that is not there".to_owned());
            return Err(Error::new(
                ErrorKind::Schema,
                format!("`{database}.{name}` is kept by {engine}, which has no transactions: a load that breaks off would leave half of it"),
            )
            .hint(format!("let it be kept by another: alter table {}.{} engine = InnoDB", quoted(&database), quoted(&name))));
        }
        let existing = Existing::read(session, config, &database, &name, options.rules.deletes()).await?;
        Ok(Self { database, name, server, existing: Some(existing) })
    }

    /// In SQL, quoted.
    pub(crate) fn sql(&self) -> String {
        self.beside(&self.name)
    }

    /// Another table of the database, quoted.
    pub(crate) fn beside(&self, table: &str) -> String {
        format!("{}.{}", quoted(&self.database), quoted(table))
    }

    /// The column of the table that a column of the rows goes to.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.existing.as_ref().and_then(|existing| existing.column(name))
    }

    pub(super) fn column_mut(&mut self, name: &str) -> Option<&mut Column> {
        self.existing.as_mut()?.columns.iter_mut().find(|column| same_name(&column.name, name))
    }

    /// The columns that become wider, as ALTER TABLE says it.
    pub(super) fn modified(&self) -> impl Iterator<Item = String> {
        let columns = self.existing.iter().flat_map(|existing| &existing.columns);
        columns.filter_map(|column| Some(format!("MODIFY COLUMN {}", column.anew.as_ref()?)))
    }

    /// The statement that makes the target fit the rows: a new table, new columns, wider ones.
    pub(crate) fn change(&self, columns: &[Outgoing], options: &Options) -> Option<String> {
        let all = columns.iter().chain(&options.added);
        let definition = |column: &Outgoing| {
            let (name, kind) = (quoted(&column.name), column.kind.sql(&self.server));
            format!("{name} {kind} NULL DEFAULT NULL{}", comment::clause(&column.field))
        };
        if self.existing.is_some() {
            let added = all.filter(|column| self.column(&column.name).is_none());
            let added = added.map(|column| format!("ADD COLUMN {}", definition(column)));
            let changes: Vec<String> = added.chain(self.modified()).collect();
            return (!changes.is_empty()).then(|| format!("ALTER TABLE {} {}", self.sql(), changes.join(", ")));
        }
        let key = options.rules.new_key();
        let in_key = |column: &Outgoing| {
            let kind = column.kind.key_sql(&self.server, key.len());
            // Without a default of its own, a `timestamp` would change with its row on some servers.
            let default = if column.kind == Kind::Timestamp { " DEFAULT '1970-01-01 00:00:01'" } else { "" };
            format!("{} {kind} NOT NULL{default}{}", quoted(&column.name), comment::clause(&column.field))
        };
        let mut list: Vec<String> =
            all.map(|column| if key.contains(&column.name) { in_key(column) } else { definition(column) }).collect();
        if !key.is_empty() {
            let key: Vec<String> = key.iter().map(|name| quoted(name)).collect();
            list.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        Some(format!("CREATE TABLE {} ({}) ENGINE = InnoDB ROW_FORMAT = DYNAMIC", self.sql(), list.join(", ")))
    }

    /// What the target takes of the values of a column.
    pub(crate) fn limits(&self, column: &Outgoing) -> Limits {
        match self.column(&column.name) {
            Some(known) => known.limits(&self.server),
            None => Limits {
                takes_null: true,
                fraction: 6,
                last_second: (column.kind == Kind::Timestamp).then(|| self.server.last_timestamp()),
                is_year: false,
            },
        }
    }

    /// Whether rows must go and come without the server looking at foreign keys in between.
    pub(crate) fn is_pointed_at(&self) -> bool {
        self.existing.as_ref().is_some_and(|existing| existing.foreign_keys.iter().any(|key| self.is_to(key)))
    }

    fn is_to(&self, key: &ForeignKey) -> bool {
        key.to == (self.database.clone(), self.name.clone())
    }

    /// Looks whether the rows fit the table as it is declared.
    ///
    /// # Errors
    /// A type that does not fit, a column that must be given and is not, one that must not be; deleting that would
    /// take rows of other tables along.
    pub(crate) fn check(&self, columns: &[Outgoing], options: &Options) -> Result<()> {
        let Some(existing) = &self.existing else { return Ok(()) };
        let table = format!("{}.{}", self.database, self.name);
        self.check_strategy(existing, &options.rules)?;
        for column in columns.iter().chain(&options.added) {
            let Some(known) = existing.column(&column.name) else { continue };
            if known.generated {
                let message = format!("the column `{}` of `{table}` is computed by the server", column.name);
                return Err(Error::new(ErrorKind::Schema, message).hint("leave it out of the rows"));
            }
            if !known.takes(column) && known.becomes.is_none() {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!(
                        "the column `{}` is {} in the rows, and `{}` in `{table}`",
                        column.name,
                        column.field.data_type(),
                        known.declared
                    ),
                )
                .hint(format!("cast it in the step's SQL: cast({} as …)", column.name)));
            }
        }
        let given = |name: &str| columns.iter().chain(&options.added).any(|column| same_name(&column.name, name));
        if let Some(missing) = existing.columns.iter().find(|known| known.must_be_given && !given(&known.name)) {
            let message = format!(
                "the column `{}` of `{table}` cannot be NULL and has no default, and the rows do not have it",
                missing.name
            );
            return Err(Error::new(ErrorKind::Schema, message)
                .hint(one_of(&missing.name, columns.iter().map(|column| column.name.as_str()))));
        }
        Ok(())
    }

    /// Looks whether the strategy can be had with what hangs on the table.
    fn check_strategy(&self, existing: &Existing, rules: &Rules) -> Result<()> {
        let table = format!("{}.{}", self.database, self.name);
        if rules.strategy == Strategy::Scd2 {
            for name in [VALID_FROM, VALID_TO] {
                let Some(column) = existing.column(name) else {
                    return Err(Error::new(
                        ErrorKind::Schema,
                        format!("`{table}` has no column `{name}`, so `scd2` cannot tell since when its rows hold"),
                    )
                    .hint("load into a new table, or add both columns and fill them: `valid_from`, `valid_to` (datetime(6))"));
                };
                if column.is_touched {
                    return Err(Error::new(
                        ErrorKind::Schema,
                        format!("the server changes `{name}` of `{table}` itself whenever a row changes"),
                    )
                    .hint(format!(
                        "declare it without `on update`: alter table {} modify `{name}` datetime(6)",
                        self.sql()
                    )));
                }
            }
        }
        let takes_along =
            |key: &&ForeignKey| self.is_to(key) && !matches!(key.on_delete.as_str(), "NO ACTION" | "RESTRICT");
        if rules.deletes()
            && let Some(key) = existing.foreign_keys.iter().find(takes_along)
        {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "deleting rows of `{table}` would change rows of `{}` (foreign key `{}`)",
                    key.from.1, key.name
                ),
            )
            .retryable(false)
            .hint(format!("declare that foreign key `on delete no action`, or load `{table}` with `append`")));
        }
        Ok(())
    }
}

/// A database that is not there, with the one that was meant.
async fn must_exist(session: &mut Session, config: &MysqlConfig, database: &str) -> Result<()> {
    let failed = |error| server_error(&error, config, &format!("cannot look up the database `{database}`"));
    let rows = session.ask("SELECT schema_name FROM information_schema.schemata").await.map_err(failed)?;
    let names: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    if names.iter().any(|name| same_name(name, database)) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, format!("the database `{database}` does not exist"))
        .hint(one_of(database, names.iter().map(String::as_str))))
}

impl Existing {
    async fn read(
        session: &mut Session,
        config: &MysqlConfig,
        database: &str,
        name: &str,
        deletes: bool,
    ) -> Result<Self> {
        let failed = |error| server_error(&error, config, "cannot look up the target's columns");
        let (schema, table) = (literal(database), literal(name));
        let sql = format!(
            "SELECT {} FROM information_schema.columns WHERE table_schema = {schema} AND table_name = {table} \
             ORDER BY ordinal_position",
            Column::QUESTION
        );
        let columns = session.ask(&sql).await.map_err(failed)?.into_iter().filter_map(Column::read).collect();
        if !deletes {
            // Who points here does not matter then, and to look for it takes a while where there are many tables.
            return Ok(Self { columns, foreign_keys: Vec::new() });
        }
        // Without the server's own tables: MariaDB (10.11) dies now and then when it opens those for this, in
        // `create_tmp_table_for_schema`. `CONCAT` keeps it from taking the one condition on the schema for both views.
        let sql = format!(
            "SELECT k.constraint_schema, k.table_name, k.constraint_name, k.referenced_table_schema, k.referenced_table_name, \
             r.delete_rule, k.column_name, k.referenced_column_name FROM information_schema.key_column_usage k \
             JOIN information_schema.referential_constraints r ON CONCAT(r.constraint_schema, '') = k.constraint_schema \
             AND r.constraint_name = k.constraint_name AND r.table_name = k.table_name \
             WHERE k.table_schema NOT IN {SYSTEM} AND r.constraint_schema NOT IN {SYSTEM} \
             AND ((k.table_schema = {schema} AND k.table_name = {table} AND k.referenced_table_name IS NOT NULL) \
             OR (k.referenced_table_schema = {schema} AND k.referenced_table_name = {table})) \
             ORDER BY 1, 2, 3, k.ordinal_position"
        );
        let mut foreign_keys: Vec<ForeignKey> = Vec::new();
        for row in session.ask(&sql).await.map_err(failed)? {
            let texts: Option<Vec<String>> = row.into_iter().collect();
            let Some(Ok([schema, table, name, to_schema, to_table, on_delete, column, to_column])) =
                texts.map(<[String; 8]>::try_from)
            else {
                continue;
            };
            let (from, to) = ((schema, table), (to_schema, to_table));
            match foreign_keys.last_mut().filter(|last| last.name == name && last.from == from) {
                Some(known) => known.columns.push((column, to_column)),
                None => {
                    let columns = vec![(column, to_column)];
                    foreign_keys.push(ForeignKey { name, from, to, columns, on_delete });
                }
            }
        }
        Ok(Self { columns, foreign_keys })
    }

    /// The names of the columns.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| same_name(&column.name, name))
    }
}

impl ForeignKey {
    /// A query for a row that points to nothing, as things are now: what others have added meanwhile is looked at, too.
    pub(crate) fn dangling(&self) -> String {
        let name = |(database, table): &(String, String)| format!("{}.{}", quoted(database), quoted(table));
        let each = |say: &dyn Fn(&str, &str) -> String| {
            let parts: Vec<String> = self.columns.iter().map(|(own, other)| say(own, other)).collect();
            parts.join(" AND ")
        };
        format!(
            "SELECT 1 FROM {} AS c WHERE {} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {}) LIMIT 1 LOCK IN SHARE MODE",
            name(&self.from),
            each(&|own, _| format!("c.{} IS NOT NULL", quoted(own))),
            name(&self.to),
            each(&|own, other| format!("p.{} = c.{}", quoted(other), quoted(own)))
        )
    }

    /// Says what is wrong with it, where there is such a row.
    pub(crate) fn refuse(&self) -> Error {
        let Self { name, from, to, .. } = self;
        Error::new(
            ErrorKind::Data,
            format!("rows of `{}` would point to nothing in `{}` (foreign key `{name}`)", from.1, to.1),
        )
        .hint("load the table that is pointed to first, and keep the keys that others point to")
    }
}
