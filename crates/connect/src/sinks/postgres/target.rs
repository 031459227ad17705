//! What the target is, and whether the rows fit it.

use super::config::Options;
use super::types::{Kind, Outgoing};
use crate::sinks::rules::{Rules, VALID_FROM, VALID_TO};
use crate::sources::postgres::PostgresConfig;
use crate::sources::postgres::connect::{Session, server_error};
use crate::sources::postgres::names::{literal, quoted};
use gristmill_model::spec::Strategy;
use gristmill_model::{Error, ErrorKind, Result, one_of};

/// Where rows are to go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// None where there is no such table yet.
    pub(crate) existing: Option<Existing>,
}

/// A table that is there.
#[derive(Debug, Clone)]
pub(crate) struct Existing {
    oid: u32,
    pub(super) columns: Vec<Column>,
    /// Foreign keys that point here: their name, their table, what they do when a row is deleted, and the table's number.
    inbound: Vec<(String, String, String, String)>,
}

/// A column of the target.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// As the owner declared it: `numeric(10,2)`.
    pub(super) declared: String,
    /// What a value is cast to before it is assigned: without length or precision, so that assigning checks them.
    cast: String,
    pub(super) base: String,
    pub(super) item: Option<String>,
    pub(super) is_enum: bool,
    pub(super) is_domain: bool,
    /// The type modifier: -1 where there is none.
    pub(super) modifier: i32,
    must_be_given: bool,
    pub(super) generated: bool,
    always_identity: bool,
    /// The type that it is given for the rows (`widen.rs`).
    pub(super) becomes: Option<String>,
}

impl Target {
    /// Looks the table up, without its columns.
    async fn place(
        session: &Session,
        config: &PostgresConfig,
        options: &Options,
    ) -> Result<(String, Option<(u32, String)>)> {
        let failed = |error| server_error(&error, config, &format!("cannot look up `{}`", options.table));
        let sql = format!(
            "SELECT n.nspname::text, c.oid, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = to_regclass({})",
            literal(&options.table.sql())
        );
        if let Some(row) = session.query_opt(&sql, &[]).await.map_err(failed)? {
            let kind: (u32, String) = (row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?);
            return Ok((row.try_get(0).map_err(failed)?, Some(kind)));
        }
        let wanted = options.table.schema.as_deref().map_or("current_schema()::text".to_owned(), literal);
        let sql = format!(
            "SELECT (SELECT nspname::text FROM pg_namespace WHERE nspname = {wanted}), \
             ARRAY(SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')"
        );
        let row = session.query_one(&sql, &[]).await.map_err(failed)?;
        match row.try_get::<_, Option<String>>(0).map_err(failed)? {
            Some(schema) => Ok((schema, None)),
            None => {
                let known: Vec<String> = row.try_get(1).map_err(failed)?;
                let schema = options.table.schema.as_deref().unwrap_or("public");
                Err(Error::new(ErrorKind::NotFound, format!("the schema `{schema}` does not exist"))
                    .hint(one_of(schema, known.iter().map(String::as_str))))
            }
        }
    }

    /// The schema of the target, where ledger and staging tables are too.
    ///
    /// # Errors
    /// A schema that does not exist; a server that cannot be asked.
    pub(crate) async fn schema(session: &Session, config: &PostgresConfig, options: &Options) -> Result<String> {
        Ok(Self::place(session, config, options).await?.0)
    }

    /// # Errors
    /// A schema that does not exist; something of that name that is not a table; a server that cannot be asked.
    pub(crate) async fn find(session: &Session, config: &PostgresConfig, options: &Options) -> Result<Self> {
        let (schema, found) = Self::place(session, config, options).await?;
        let name = options.table.name.clone();
        let Some((oid, kind)) = found else { return Ok(Self { schema, name, existing: None }) };
        if !matches!(kind.as_str(), "r" | "p") {
            let what = match kind.as_str() {
                "v" => "a view",
                "m" => "a materialized view",
                "f" => "a foreign table",
                "S" => "a sequence",
                "i" | "I" => "an index",
                _ => "not a table",
            };
            return Err(Error::new(ErrorKind::Schema, format!("`{schema}.{name}` is {what}")).hint("load into a table"));
        }
        let existing = Existing::read(session, config, oid).await?;
        Ok(Self { schema, name, existing: Some(existing) })
    }

    /// In SQL, quoted.
    pub(crate) fn sql(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    /// Statements that make the target fit the rows: a new table, new columns, wider ones.
    pub(crate) fn changes(&self, columns: &[Outgoing], options: &Options) -> Vec<String> {
        let definition = |column: &Outgoing| format!("{} {}", quoted(&column.name), column.kind.sql());
        let all = columns.iter().chain(&options.added);
        match &self.existing {
            None => {
                let mut list: Vec<String> = all.map(definition).collect();
                let key: Vec<String> = options.rules.new_key().iter().map(|name| quoted(name)).collect();
                if !key.is_empty() {
                    list.push(format!("PRIMARY KEY ({})", key.join(", ")));
                }
                vec![format!("CREATE TABLE {} ({})", self.sql(), list.join(", "))]
            }
            Some(existing) => {
                let added = all.filter(|column| existing.column(&column.name).is_none());
                let added = added.map(|column| format!("ADD COLUMN {}", definition(column)));
                let wider = self.widened().map(|(name, _, to)| format!("ALTER COLUMN {} TYPE {to}", quoted(name)));
                let changes: Vec<String> = added.chain(wider).collect();
                if changes.is_empty() {
                    return Vec::new();
                }
                vec![format!("ALTER TABLE {} {}", self.sql(), changes.join(", "))]
            }
        }
    }

    /// The statements that comment on the columns which [`Self::changes`] makes. Columns that are there keep what they have.
    pub(super) fn comments(&self, columns: &[Outgoing]) -> Option<String> {
        let new = columns.iter().filter(|column| !self.has(&column.name));
        let comments = new.filter_map(|column| {
            let comment = literal(column.comment.as_ref()?);
            Some(format!("COMMENT ON COLUMN {}.{} IS {comment}", self.sql(), quoted(&column.name)))
        });
        let comments: Vec<String> = comments.collect();
        (!comments.is_empty()).then(|| comments.join("; "))
    }

    /// Statements that make a table of the session like the target, for rows with these columns to be tried on: types, NOT
    /// NULL and CHECK, without keys. None where there is no target yet.
    pub(crate) fn like(&self, columns: &[Outgoing]) -> Option<Vec<String>> {
        let existing = self.existing.as_ref()?;
        let name = quoted(&self.name);
        let mut statements =
            vec![format!("CREATE TEMP TABLE {name} (LIKE {} INCLUDING CONSTRAINTS) ON COMMIT DROP", self.sql())];
        // What the target gives by itself (defaults, numbers) is not there to be NULL.
        let by_itself = existing.columns.iter().filter(|known| !columns.iter().any(|column| column.name == known.name));
        statements.extend(
            by_itself
                .map(|known| format!("ALTER TABLE pg_temp.{name} ALTER COLUMN {} DROP NOT NULL", quoted(&known.name))),
        );
        let wider = self.widened();
        statements
            .extend(wider.map(|(column, _, to)| {
                format!("ALTER TABLE pg_temp.{name} ALTER COLUMN {} TYPE {to}", quoted(column))
            }));
        Some(statements)
    }

    pub(super) fn column_mut(&mut self, name: &str) -> Option<&mut Column> {
        self.existing.as_mut()?.columns.iter_mut().find(|column| column.name == name)
    }

    /// Whether the target has a column of that name.
    pub(crate) fn has(&self, column: &str) -> bool {
        self.existing.as_ref().is_some_and(|existing| existing.column(column).is_some())
    }

    /// How a staged column (`"c3"`) is written so that it has the type of the target's column.
    pub(crate) fn expression(&self, column: &Outgoing, staged: &str) -> String {
        let cast = match self.existing.as_ref().and_then(|existing| existing.column(&column.name)) {
            Some(known) => known.becomes.clone().unwrap_or_else(|| known.cast.clone()),
            None => column.kind.sql(),
        };
        format!("CAST({staged} AS {cast})")
    }

    /// Whether values of a column can only be compared as texts, since its type has no equality, or one that takes
    /// different values for the same (`citext`).
    pub(crate) fn compares_as_text(&self, column: &Outgoing) -> bool {
        let known = self.existing.as_ref().and_then(|existing| existing.column(&column.name));
        known.is_some_and(|known| !known.is_enum && !has_equality(known.item.as_deref().unwrap_or(&known.base)))
    }

    /// Whether other tables point here, so that deleting and inserting must be one statement.
    pub(crate) fn is_pointed_at(&self) -> bool {
        self.existing.as_ref().is_some_and(|existing| !existing.inbound.is_empty())
    }

    /// The number of the table, where it is there.
    pub(crate) fn oid(&self) -> Option<u32> {
        self.existing.as_ref().map(|existing| existing.oid)
    }

    /// Whether every column of the rows is one of the table, with the type that the rows are encoded in.
    pub(crate) fn has_the_types_of(&self, columns: &[Outgoing]) -> bool {
        let same = |existing: &Existing, column: &Outgoing| {
            let known = existing.column(&column.name);
            // A value that is too great makes its column wider, which the server cannot do while it is copied in.
            known.is_some_and(|known| known.is_encoded_as(&column.kind) && !known.may_overflow(&column.kind))
        };
        self.existing.as_ref().is_some_and(|existing| columns.iter().all(|column| same(existing, column)))
    }

    /// Whether a value must be written over the server's own numbering.
    pub(crate) fn overrides_identity(&self, columns: &[Outgoing]) -> bool {
        self.existing.as_ref().is_some_and(|existing| {
            columns.iter().any(|column| existing.column(&column.name).is_some_and(|known| known.always_identity))
        })
    }

    /// Looks whether the rows fit the table as it is declared.
    ///
    /// # Errors
    /// A type that does not fit, a column that must be given and is not, one that must not be; deleting that would
    /// take rows of other tables along.
    pub(crate) fn check(&self, columns: &[Outgoing], options: &Options) -> Result<()> {
        let Some(existing) = &self.existing else { return Ok(()) };
        let table = format!("{}.{}", self.schema, self.name);
        self.check_strategy(existing, &options.rules)?;
        for column in columns.iter().chain(&options.added) {
            let Some(known) = existing.column(&column.name) else { continue };
            if known.generated {
                let message = format!("the column `{}` of `{table}` is computed by the server", column.name);
                return Err(Error::new(ErrorKind::Schema, message).hint("leave it out of the rows"));
            }
            if !known.takes(&column.kind) && known.becomes.is_none() {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!(
                        "the column `{}` is {} in the rows, and `{}` in `{table}`",
                        column.name, column.arrow, known.declared
                    ),
                )
                .hint(format!("cast it in the step's SQL: cast({} as …)", column.name)));
            }
        }
        let given = |name: &str| columns.iter().chain(&options.added).any(|column| column.name == name);
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
        let table = format!("{}.{}", self.schema, self.name);
        if rules.strategy == Strategy::Scd2
            && let Some(missing) = [VALID_FROM, VALID_TO].into_iter().find(|name| existing.column(name).is_none())
        {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("`{table}` has no column `{missing}`, so `scd2` cannot tell since when its rows hold"),
            )
            .hint("load into a new table, or add both columns and fill them: `valid_from`, `valid_to` (timestamptz)"));
        }
        let own = existing.oid.to_string();
        if rules.strategy == Strategy::TruncateInsert
            && let Some((name, from, ..)) = existing.inbound.iter().find(|(.., oid)| *oid != own)
        {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("`{table}` cannot be truncated: `{from}` points at it (foreign key `{name}`)"),
            )
            .hint("use `strategy: replace`, which keeps the rows that others point at"));
        }
        if rules.deletes()
            && let Some((name, from, ..)) =
                existing.inbound.iter().find(|(_, _, does, _)| matches!(does.as_str(), "c" | "n" | "d"))
        {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("deleting rows of `{table}` would change rows of `{from}` (foreign key `{name}`)"),
            )
            .hint(format!("declare that foreign key `on delete no action`, or load `{table}` with `append`")));
        }
        Ok(())
    }

    /// Looks whether the session's user may do what the load needs.
    ///
    /// # Errors
    /// What is missing, with the grant that gives it.
    pub(crate) async fn check_rights(
        &self,
        session: &Session,
        config: &PostgresConfig,
        columns: &[Outgoing],
        options: &Options,
    ) -> Result<()> {
        let failed = |error| server_error(&error, config, &format!("cannot look up `{}`", self.name));
        let schema = literal(&quoted(&self.schema));
        let sql = format!(
            "SELECT current_setting('transaction_read_only') = 'on', has_schema_privilege(to_regnamespace({schema}), 'usage'), \
             has_schema_privilege(to_regnamespace({schema}), 'create')"
        );
        let row = session.query_one(&sql, &[]).await.map_err(failed)?;
        let flag = |index: usize| row.try_get::<_, bool>(index).map_err(failed);
        if flag(0)? {
            return Err(Error::new(ErrorKind::Denied, format!("the database `{}` is read-only", config.database))
                .hint("load into the primary server, not a standby"));
        }
        let user = quoted(&config.user);
        if !flag(1)? || !flag(2)? {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("`{}` may not create tables in the schema `{}`", config.user, self.schema),
            )
            .hint(format!("let its owner run: grant usage, create on schema {} to {user}", quoted(&self.schema))));
        }
        let Some(existing) = &self.existing else { return Ok(()) };
        let oid = existing.oid;
        let rights = rights(&options.rules);
        let each: Vec<String> = rights.iter().map(|right| format!("has_table_privilege({oid}, '{right}')")).collect();
        let sql = format!(
            "SELECT {}, pg_has_role((SELECT relowner FROM pg_class WHERE oid = {oid}), 'usage')",
            each.join(" AND ")
        );
        let row = session.query_one(&sql, &[]).await.map_err(failed)?;
        let flag = |index: usize| row.try_get::<_, bool>(index).map_err(failed);
        if !flag(0)? {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("`{}` may not change the rows of `{}.{}`", config.user, self.schema, self.name),
            )
            .hint(format!("let its owner run: grant {} on {} to {user}", rights.join(", "), self.sql())));
        }
        if !self.changes(columns, options).is_empty() && !flag(1)? {
            let names = columns.iter().chain(&options.added).map(|column| column.name.as_str());
            let new: Vec<&str> = names.filter(|name| existing.column(name).is_none()).collect();
            let what = match new.is_empty() {
                false => format!("add the new column `{}`", new.join("`, `")),
                true => {
                    let wider: Vec<&str> = self.widened().map(|(name, ..)| name).collect();
                    format!("widen the column `{}`", wider.join("`, `"))
                }
            };
            return Err(Error::new(
                ErrorKind::Denied,
                format!("only the owner of `{}.{}` may {what}", self.schema, self.name),
            )
            .hint(format!("let its owner run: {}", self.changes(columns, options).join("; "))));
        }
        Ok(())
    }
}

impl Existing {
    async fn read(session: &Session, config: &PostgresConfig, oid: u32) -> Result<Self> {
        let failed = |error| server_error(&error, config, "cannot look up the target's columns");
        // `format_type(…, -1)` writes `bpchar` where plain `character` would mean one letter.
        let sql = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), format_type(b.oid, -1), b.typname::text, \
               i.typname::text, b.typtype = 'e', CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END, \
               (a.attnotnull OR t.typnotnull) AND NOT a.atthasdef AND a.attidentity = '' AND t.typdefault IS NULL, \
               a.attgenerated <> '', a.attidentity = 'a', t.typtype = 'd' \
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
             JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END \
             LEFT JOIN pg_type i ON i.oid = b.typelem AND b.typcategory = 'A' \
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let rows = session.query(sql, &[&oid]).await.map_err(failed)?;
        let columns = rows.iter().map(|row| {
            Ok(Column {
                name: row.try_get(0)?,
                declared: row.try_get(1)?,
                cast: row.try_get(2)?,
                base: row.try_get(3)?,
                item: row.try_get(4)?,
                is_enum: row.try_get(5)?,
                modifier: row.try_get(6)?,
                must_be_given: row.try_get(7)?,
                generated: row.try_get(8)?,
                always_identity: row.try_get(9)?,
                is_domain: row.try_get(10)?,
                becomes: None,
            })
        });
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let sql = "SELECT conname::text, conrelid::regclass::text, confdeltype::text, conrelid::oid::text FROM pg_constraint \
                   WHERE contype = 'f' AND confrelid = $1 AND conparentid = 0";
        let rows = session.query(sql, &[&oid]).await.map_err(failed)?;
        let inbound = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)));
        Ok(Self { oid, columns, inbound: inbound.collect::<Result<Vec<_>, _>>().map_err(failed)? })
    }

    /// The names of the columns.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Column {
    /// Whether the binary form of `kind` is that of the column.
    fn is_encoded_as(&self, kind: &Kind) -> bool {
        match (kind, &self.item) {
            (Kind::List(item), Some(known)) => is_encoded_as(item, known) && known != "varchar",
            (Kind::List(_), None) | (_, Some(_)) => false,
            (kind, None) => !self.is_enum && is_encoded_as(kind, &self.base),
        }
    }

    /// Whether values of `kind` can be assigned without losing anything unnoticed: where the server checks each value
    /// (the range of an integer, the length of a varchar, the form of a uuid) it may; where it would round, not.
    pub(super) fn takes(&self, kind: &Kind) -> bool {
        if self.is_enum {
            return *kind == Kind::Text;
        }
        match (kind, &self.item) {
            (Kind::List(item), Some(wanted)) => takes(item, wanted, self.modifier),
            (Kind::Text, Some(item)) => !is_ours(item),
            (_, Some(_)) | (Kind::List(_), None) => false,
            (kind, None) => takes(kind, &self.base, self.modifier),
        }
    }
}

fn is_encoded_as(kind: &Kind, base: &str) -> bool {
    let own = match kind {
        Kind::Bool => "bool",
        Kind::Int2 => "int2",
        Kind::Int4 => "int4",
        Kind::Int8 => "int8",
        Kind::Float4 => "float4",
        Kind::Float8 => "float8",
        Kind::Numeric(..) => "numeric",
        Kind::Text => return matches!(base, "text" | "varchar"),
        Kind::Bytea => "bytea",
        Kind::Date => "date",
        Kind::Time => "time",
        Kind::Timestamp => "timestamp",
        Kind::TimestampTz => "timestamptz",
        Kind::Interval => "interval",
        Kind::Jsonb => "jsonb",
        // Sent as text, or not at all.
        Kind::WideNumeric(..) | Kind::List(_) => return false,
    };
    base == own
}

fn takes(kind: &Kind, base: &str, modifier: i32) -> bool {
    match kind {
        Kind::Bool => base == "bool",
        Kind::Int2 => {
            matches!(base, "int2" | "int4" | "int8" | "float4" | "float8") || numeric_takes(base, modifier, 0)
        }
        Kind::Int4 => matches!(base, "int2" | "int4" | "int8" | "float8") || numeric_takes(base, modifier, 0),
        Kind::Int8 => matches!(base, "int2" | "int4" | "int8") || numeric_takes(base, modifier, 0),
        Kind::Float4 => matches!(base, "float4" | "float8"),
        Kind::Float8 => base == "float8",
        Kind::Numeric(_, scale) | Kind::WideNumeric(_, scale) => {
            numeric_takes(base, modifier, i32::from(*scale))
                || (*scale <= 0 && matches!(base, "int2" | "int4" | "int8"))
        }
        // A numeric without precision is read as text, so that nothing is lost; it goes back the same way.
        Kind::Text => !is_ours(base) || (base == "numeric" && modifier < 4),
        Kind::Bytea => base == "bytea",
        Kind::Date => matches!(base, "date" | "timestamp"),
        Kind::Time => base == "time",
        Kind::Timestamp => base == "timestamp",
        Kind::TimestampTz => base == "timestamptz",
        Kind::Interval => base == "interval",
        Kind::Jsonb => matches!(base, "jsonb" | "json" | "text"),
        Kind::List(_) => false,
    }
}

/// Types that arrow has of its own: text for them is a mistake to be told before, not value by value.
fn is_ours(base: &str) -> bool {
    matches!(
        base,
        "bool"
            | "int2"
            | "int4"
            | "int8"
            | "oid"
            | "float4"
            | "float8"
            | "numeric"
            | "bytea"
            | "date"
            | "time"
            | "timestamp"
            | "timestamptz"
    )
}

/// Whether `=` of a type tells apart what differs: to it, an interval of a day is one of 24 hours.
fn has_equality(base: &str) -> bool {
    let others = [
        "text", "varchar", "bpchar", "char", "name", "uuid", "jsonb", "time", "timetz", "inet", "cidr", "macaddr",
        "macaddr8", "bit", "varbit", "money",
    ];
    is_ours(base) || others.contains(&base)
}

/// The rights on the table that a load needs.
fn rights(rules: &Rules) -> Vec<&'static str> {
    match rules.strategy {
        Strategy::Append => vec!["insert"],
        Strategy::TruncateInsert => vec!["select", "insert", "truncate"],
        Strategy::Merge if !rules.delete_missing => vec!["select", "insert", "update"],
        Strategy::Merge | Strategy::Scd2 => vec!["select", "insert", "update", "delete"],
        Strategy::Replace | Strategy::DeleteInsert | Strategy::PartitionOverwrite => vec!["select", "insert", "delete"],
    }
}

/// Whether a numeric column keeps `scale` digits after the point.
fn numeric_takes(base: &str, modifier: i32, scale: i32) -> bool {
    base == "numeric" && (modifier < 4 || (((modifier - 4) & 0x7ff) ^ 1024) - 1024 >= scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_copied_as_they_are_into_columns_of_their_own_types_only() {
        assert!(is_encoded_as(&Kind::Int4, "int4"));
        assert!(!is_encoded_as(&Kind::Int4, "int8"));
        assert!(is_encoded_as(&Kind::Text, "varchar"));
        assert!(!is_encoded_as(&Kind::Text, "bpchar"));
        assert!(!is_encoded_as(&Kind::Text, "uuid"));
        assert!(!is_encoded_as(&Kind::Date, "timestamp"));
        assert!(!is_encoded_as(&Kind::WideNumeric(60, 2), "numeric"));
    }

    #[test]
    fn a_type_fits_where_nothing_can_be_lost_unnoticed() {
        let numeric = |precision: i32, scale: i32| ((precision << 16) | scale) + 4;
        assert!(takes(&Kind::Numeric(10, 2), "numeric", numeric(12, 2)));
        assert!(takes(&Kind::Numeric(10, 2), "numeric", -1));
        assert!(!takes(&Kind::Numeric(10, 3), "numeric", numeric(12, 2)));
        assert!(!takes(&Kind::Numeric(10, 2), "float8", -1));
        assert!(!takes(&Kind::Float8, "float4", -1));
        assert!(!takes(&Kind::Float8, "int8", -1));
        assert!(!takes(&Kind::Int8, "float8", -1));
        assert!(takes(&Kind::Int8, "int4", -1));
        assert!(!takes(&Kind::Text, "int4", -1));
        assert!(takes(&Kind::Text, "uuid", -1));
        assert!(!takes(&Kind::Timestamp, "timestamptz", -1));
        assert!(!takes(&Kind::Timestamp, "date", -1));
    }
}
