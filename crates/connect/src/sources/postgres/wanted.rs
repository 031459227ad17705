//! What an extract wants, and asking the server about it.

use super::config::PostgresConfig;
use super::connect::{Session, server_error, unknown_table};
use super::names::{Postgres, TableName, literal, quoted};
use super::pushed::{self, Comparable};
use super::types::Column;
use super::units::share::Slice;
use crate::SourceStats;
use crate::comments::commented;
use crate::extract::{self, changed_type, check, duplicate, same_names, unknown_in_condition};
use arrow::datatypes::{Field, Schema, SchemaRef};
use gristmill_model::spec::{ExtractSpec, UnitsSpec};
use gristmill_model::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::error::SqlState;

pub(super) use crate::extract::unknown_column;

/// A checked extract step.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) config: Arc<PostgresConfig>,
    pub(super) relation: Relation,
    pub(super) filter: Option<String>,
    /// Only these, in this order; all when empty.
    columns: Vec<String>,
    /// Types that `schema:` gives to columns.
    types: BTreeMap<String, String>,
    pub(super) units: UnitsSpec,
}

/// What is read.
#[derive(Debug, Clone)]
pub(super) enum Relation {
    Table(TableName),
    Query(String),
}

/// What the server said when it was first asked.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) schema: SchemaRef,
    pub(super) columns: Vec<Column>,
    pub(super) stats: SourceStats,
    /// Whether there is a condition, and the planner would look it up in an index.
    pub(super) by_index: bool,
    /// Whether rows come from another server.
    pub(super) foreign: bool,
    /// The columns that conditions may be on.
    pub(super) comparable: BTreeMap<String, Comparable>,
    /// About how many values columns have, where statistics know.
    pub(super) distinct: BTreeMap<String, f64>,
}

impl Wanted {
    /// Checks an extract step without calling the server.
    ///
    /// # Errors
    /// Neither table nor query, or both; options that are for files.
    pub(crate) fn new(config: Arc<PostgresConfig>, extract: &ExtractSpec) -> Result<Self> {
        let (relation, units) = check(extract, "a PostgreSQL database")?;
        let (relation, filter) = match relation {
            extract::Relation::Table(table, filter) => (
                Relation::Table(TableName::parse(table)?.or_schema(config.schema.as_deref())),
                filter.map(str::to_owned),
            ),
            extract::Relation::Query(query) => (Relation::Query(query.to_owned()), None),
        };
        Ok(Self { config, relation, filter, columns: extract.columns.clone(), types: extract.schema.clone(), units })
    }

    /// The same with one more condition.
    pub(super) fn and(&self, condition: &str) -> Self {
        let filter = match &self.filter {
            // What the user wrote may end with a comment.
            Some(own) => format!("(\n{own}\n) AND {condition}"),
            None => condition.to_owned(),
        };
        Self { filter: Some(filter), ..self.clone() }
    }

    /// Whether `schema:` gives a column another type.
    pub(super) fn is_retyped(&self, column: &str) -> bool {
        self.types.contains_key(column)
    }

    pub(super) fn label(&self) -> String {
        match &self.relation {
            Relation::Table(table) => table.to_string(),
            Relation::Query(_) => "query".to_owned(),
        }
    }

    /// What stands after FROM: the table, or the query as a subquery. What the user wrote stands on lines of its own, so
    /// that a comment in it ends there.
    pub(super) fn relation_sql(&self) -> String {
        match &self.relation {
            Relation::Table(table) => table.sql(),
            Relation::Query(query) => format!("(\n{query}\n) AS _gristmill"),
        }
    }

    /// The SELECT of some of the rows.
    pub(super) fn select(&self, columns: &[Column], slice: &Slice) -> String {
        let list: Vec<String> = columns
            .iter()
            .map(|Column { name, cast, .. }| match cast {
                Some(cast) => format!("CAST({} AS {cast})", quoted(name)),
                None => quoted(name),
            })
            .collect();
        self.select_list(&list.join(", "), slice)
    }

    /// The SELECT of a list in SQL.
    pub(super) fn select_list(&self, list: &str, slice: &Slice) -> String {
        slice.select(&Postgres, list, &self.relation_sql(), self.filter.as_deref())
    }

    /// Asks the server for the columns, as they are chosen and cast.
    pub(super) async fn describe(&self, session: &Session) -> Result<Vec<Column>> {
        let statement = match session
            .prepare(&Slice::Whole.select(&Postgres, "*", &self.relation_sql(), self.filter.as_deref()))
            .await
        {
            Ok(statement) => statement,
            Err(error) => return Err(self.cannot_read(session, &error).await),
        };
        let all = statement.columns();
        let names = || all.iter().map(|column| column.name());
        if let Some(twice) = duplicate(names()) {
            return Err(same_names(twice));
        }
        if let Some(unknown) = self.types.keys().find(|name| !names().any(|known| known == *name)) {
            return Err(unknown_column(unknown, &self.label(), names()));
        }
        let column = |column: &tokio_postgres::Column| {
            let wanted = self.types.get(column.name()).map(String::as_str);
            Column::new(column.name(), column.type_(), column.type_modifier(), wanted)
        };
        if self.columns.is_empty() {
            return all.iter().map(column).collect();
        }
        self.columns
            .iter()
            .map(|wanted| match all.iter().find(|known| known.name() == wanted) {
                Some(known) => column(known),
                None => Err(unknown_column(wanted, &self.label(), names())),
            })
            .collect()
    }

    /// The columns of the table's primary key, in its order; none for views and queries.
    pub(super) async fn primary_key(&self) -> Result<Vec<String>> {
        let Relation::Table(table) = &self.relation else { return Ok(Vec::new()) };
        let session = Session::open_to_read(&self.config).await?;
        let sql = format!(
            "SELECT ARRAY(SELECT a.attname::text FROM pg_index i CROSS JOIN LATERAL \
               unnest(i.indkey) WITH ORDINALITY k(num, place) \
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num \
               WHERE i.indrelid = to_regclass({}) AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place)",
            literal(&table.sql())
        );
        let failed = |error| server_error(&error, &self.config, &format!("cannot look up the key of `{table}`"));
        let key = session.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
        session.close().await;
        Ok(key)
    }

    /// The error for a table or query that the server refuses.
    pub(super) async fn cannot_read(&self, session: &Session, error: &tokio_postgres::Error) -> Error {
        let code = error.code();
        if let Relation::Table(table) = &self.relation {
            if code == Some(&SqlState::UNDEFINED_TABLE) || code == Some(&SqlState::INVALID_SCHEMA_NAME) {
                return unknown_table(session, table).await;
            }
            if code == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                let user = quoted(&self.config.user);
                return Error::new(ErrorKind::Denied, format!("`{}` may not read `{table}`", self.config.user))
                    .hint(format!("let its owner run: grant select on {} to {user}", table.sql()));
            }
            if code == Some(&SqlState::UNDEFINED_COLUMN)
                && let Some(columns) = columns_of(session, table).await
            {
                let words = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
                // The server names the column in quotes, or as `table.column`.
                let wrong = words.split('"').nth(1).or_else(|| words.split_whitespace().nth(1)).unwrap_or_default();
                return unknown_in_condition(&table.to_string(), &words, wrong, &columns);
            }
        }
        session.told(server_error(error, &self.config, &format!("cannot read `{}`", self.label())))
    }

    /// Columns, and the planner's guess of rows and bytes: right for whole tables, the best there is for conditions and
    /// queries. Explaining also asks for the right to read, which describing does not.
    pub(super) async fn ask(&self) -> Result<Known> {
        let session = Session::open_to_read(&self.config).await?;
        let columns = self.describe(&session).await?;
        let sql = format!("EXPLAIN (FORMAT JSON) {}", self.select(&columns, &Slice::Whole));
        let rows = match session.query(&sql, &[]).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.cannot_read(&session, &error).await),
        };
        let plan: Option<serde_json::Value> = rows.first().and_then(|row| {
            let text = row.try_get::<_, RawText>(0).ok()?;
            serde_json::from_str(&text.0).ok()
        });
        let comparable = pushed::comparable(self, &session).await;
        let distinct = self.distinct(&session).await;
        let comments = self.comments(&session).await;
        session.close().await;
        let number = |key: &str| plan.as_ref()?.pointer(&format!("/0/Plan/{key}"))?.as_u64();
        let rows = number("Plan Rows");
        let bytes = rows.zip(number("Plan Width")).map(|(rows, width)| rows.saturating_mul(width));
        let mut nodes = Vec::new();
        if let Some(plan) = &plan {
            node_types(plan, &mut nodes);
        }
        let any = |of: &str| nodes.iter().any(|node| node.contains(of));
        Ok(Known {
            schema: commented(&schema_of(&columns), &comments),
            stats: SourceStats { rows, bytes },
            by_index: self.filter.is_some() && (any("Index") || any("Bitmap")) && !any("Seq Scan"),
            foreign: any("Foreign Scan"),
            comparable,
            distinct,
            columns,
        })
    }

    /// About how many values the columns of a table have. Nothing is an error: it is only a guess.
    async fn distinct(&self, session: &Session) -> BTreeMap<String, f64> {
        let Relation::Table(table) = &self.relation else { return BTreeMap::new() };
        // Below zero, it is a share of the rows.
        let sql = format!(
            "SELECT s.attname::text, max(CASE WHEN s.n_distinct < 0 THEN -s.n_distinct * greatest(c.reltuples, 0) \
               ELSE s.n_distinct END)::float8 \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               JOIN pg_catalog.pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname \
             WHERE c.oid = to_regclass({}) GROUP BY 1",
            literal(&table.sql())
        );
        let rows = session.query(&sql, &[]).await.unwrap_or_default();
        rows.iter().filter_map(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?))).collect()
    }

    /// The comments of a table's or view's columns. Nothing is an error: rows can be read without.
    async fn comments(&self, session: &Session) -> BTreeMap<String, String> {
        let Relation::Table(table) = &self.relation else { return BTreeMap::new() };
        let sql = format!(
            "SELECT a.attname::text, d.description FROM pg_catalog.pg_description d \
               JOIN pg_catalog.pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid \
             WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = to_regclass({}) AND d.objsubid > 0",
            literal(&table.sql())
        );
        let rows = session.query(&sql, &[]).await.unwrap_or_default();
        rows.iter().filter_map(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?))).collect()
    }

    /// The columns of `wanted` among those that the server has now.
    ///
    /// # Errors
    /// A column that is not there, or of another type than it was when the run began.
    pub(super) fn choose(&self, known: &[Column], wanted: &Schema) -> Result<Vec<Column>> {
        let mut known = known.to_vec();
        wanted
            .fields()
            .iter()
            .map(|field| {
                let Some(at) = known.iter().position(|column| column.name == *field.name()) else {
                    let names = known.iter().map(|column| column.name.as_str());
                    return Err(unknown_column(field.name(), &self.label(), names));
                };
                let column = known.swap_remove(at);
                if column.kind.arrow() == *field.data_type() {
                    return Ok(column);
                }
                Err(changed_type(field.name(), &self.label(), column.kind.arrow(), field.data_type()))
            })
            .collect()
    }
}

/// The types of all nodes of a plan.
fn node_types<'a>(plan: &'a serde_json::Value, found: &mut Vec<&'a str>) {
    match plan {
        serde_json::Value::Array(items) => items.iter().for_each(|item| node_types(item, found)),
        serde_json::Value::Object(entries) => {
            found.extend(entries.get("Node Type").and_then(|kind| kind.as_str()));
            entries
                .values()
                .filter(|value| value.is_array() || value.is_object())
                .for_each(|value| node_types(value, found));
        }
        _ => {}
    }
}

/// A column that is read as the bytes the server sent; EXPLAIN answers in `json`.
struct RawText(String);

impl<'a> tokio_postgres::types::FromSql<'a> for RawText {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(std::str::from_utf8(raw)?.to_owned()))
    }

    fn accepts(_: &tokio_postgres::types::Type) -> bool {
        true
    }
}

pub(super) fn schema_of(columns: &[Column]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect();
    Arc::new(Schema::new(fields))
}

async fn columns_of(session: &Session, table: &TableName) -> Option<Vec<String>> {
    let statement = session.prepare(&format!("SELECT * FROM {}", table.sql())).await.ok()?;
    Some(statement.columns().iter().map(|column| column.name().to_owned()).collect())
}
