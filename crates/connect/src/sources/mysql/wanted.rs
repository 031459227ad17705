//! What an extract wants, and asking the server about it.

use super::config::MysqlConfig;
use super::connect::{Failure, Session, server_error, unknown_table};
use super::names::{Mysql, TableName, literal};
use super::types::Column;
use crate::SourceStats;
use crate::comments::commented;
use crate::declared::wanted_type;
use crate::extract::{self, changed_type, check, duplicate, same_names, unknown_in_condition};
use crate::units::share::Slice;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use gristmill_model::spec::{ExtractSpec, UnitsSpec};
use gristmill_model::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) use crate::extract::unknown_column;

/// A checked extract step.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) config: Arc<MysqlConfig>,
    pub(super) relation: Relation,
    pub(super) filter: Option<String>,
    /// Only these, in this order; all when empty.
    columns: Vec<String>,
    /// Types that `schema:` gives to columns.
    types: BTreeMap<String, DataType>,
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
    /// Rows of the whole table, about.
    pub(super) all_rows: Option<u64>,
    /// Bytes of the whole table's rows.
    pub(super) all_bytes: Option<u64>,
    /// Whether the condition is looked up in an index.
    pub(super) by_index: bool,
    /// `InnoDB`; none for what is no base table.
    pub(super) engine: Option<String>,
    /// The first column of the index that the rows are kept in.
    pub(super) key: Option<String>,
    /// About how many values columns have that an index begins with.
    pub(super) distinct: BTreeMap<String, f64>,
}

impl Wanted {
    /// Checks an extract step without calling the server.
    ///
    /// # Errors
    /// Neither table nor query, or both; options that are for files; types that cannot be.
    pub(super) fn new(config: Arc<MysqlConfig>, extract: &ExtractSpec) -> Result<Self> {
        let (relation, units) = check(extract, "a MySQL database")?;
        let (relation, filter) = match relation {
            extract::Relation::Table(table, filter) => {
                (Relation::Table(TableName::parse(table)?), filter.map(str::to_owned))
            }
            extract::Relation::Query(query) => (Relation::Query(query.to_owned()), None),
        };
        let typed = |(column, word): (&String, &String)| Ok((column.clone(), wanted_type(column, word, "MySQL")?));
        Ok(Self {
            config,
            relation,
            filter,
            columns: extract.columns.clone(),
            types: extract.schema.iter().map(typed).collect::<Result<_>>()?,
            units,
        })
    }

    pub(super) fn label(&self) -> String {
        match &self.relation {
            Relation::Table(table) => table.to_string(),
            Relation::Query(_) => "query".to_owned(),
        }
    }

    /// What stands after FROM. What the user wrote stands on lines of its own, so that a comment in it ends there.
    pub(super) fn relation_sql(&self) -> String {
        match &self.relation {
            Relation::Table(table) => table.sql(),
            Relation::Query(query) => format!("(\n{query}\n) AS _gristmill"),
        }
    }

    /// The SELECT of some of the rows.
    pub(super) fn select(&self, columns: &[Column], slice: &Slice) -> String {
        let list = columns.iter().map(Column::sql).collect::<Vec<_>>().join(", ");
        // A SELECT of nothing there is not.
        self.select_list(if list.is_empty() { "1" } else { &list }, slice)
    }

    /// The SELECT of a list in SQL.
    pub(super) fn select_list(&self, list: &str, slice: &Slice) -> String {
        slice.select(&Mysql, list, &self.relation_sql(), self.filter.as_deref())
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

    /// The columns as the server describes them.
    pub(super) async fn described(&self, session: &mut Session) -> Result<Vec<mysql_async::Column>> {
        let sql = Slice::Whole.select(&Mysql, "*", &self.relation_sql(), self.filter.as_deref());
        let columns = match session.describe(&sql).await {
            Ok((columns, 0)) => columns,
            Ok(_) => {
                return Err(Error::new(ErrorKind::Query, format!("cannot read `{}`", self.label()))
                    .cause("it has parameters (`?`), which nothing fills in")
                    .hint("write values into the SQL"));
            }
            Err(error) => return Err(self.cannot_read(session, &error).await),
        };
        Ok(columns)
    }

    /// Asks the server for the columns, as they are chosen and typed.
    pub(super) async fn describe(&self, session: &mut Session) -> Result<Vec<Column>> {
        let all = self.described(session).await?;
        let names: Vec<String> = all.iter().map(|column| column.name_str().into_owned()).collect();
        let known = || names.iter().map(String::as_str);
        if let Some(twice) = duplicate(known()) {
            return Err(same_names(twice));
        }
        if let Some(unknown) = self.types.keys().find(|name| !names.contains(name)) {
            return Err(unknown_column(unknown, &self.label(), known()));
        }
        let column = |at: usize| Column::new(&all[at], self.types.get(&names[at]));
        if self.columns.is_empty() {
            return Ok((0..all.len()).map(column).collect());
        }
        self.columns
            .iter()
            .map(|wanted| match names.iter().position(|known| known == wanted) {
                Some(at) => Ok(column(at)),
                None => Err(unknown_column(wanted, &self.label(), known())),
            })
            .collect()
    }

    /// The error for a table or query that the server refuses.
    pub(super) async fn cannot_read(&self, session: &mut Session, error: &Failure) -> Error {
        let user = &self.config.user;
        if let (Relation::Table(table), Failure::Server(refusal)) = (&self.relation, error) {
            match refusal.code {
                1046 => {
                    return Error::new(ErrorKind::Config, format!("the table `{table}` is in no database"))
                        .hint("name the `database` of the connection, or write `database.table`");
                }
                1146 | 1049 => return unknown_table(session, table).await,
                1142 | 1143 => {
                    return Error::new(ErrorKind::Denied, format!("`{user}` may not read `{table}`"))
                        .cause(&refusal.message)
                        .hint(format!(
                            "let an administrator run: grant select on {} to {}",
                            table.sql(),
                            literal(user)
                        ));
                }
                1054 => {
                    let sql = format!("SHOW COLUMNS FROM {}", table.sql());
                    let columns: Vec<String> = session
                        .ask(&sql)
                        .await
                        .unwrap_or_default()
                        .into_iter()
                        .filter_map(|row| row.into_iter().next().flatten())
                        .collect();
                    let wrong = refusal.message.split('\'').nth(1).unwrap_or_default();
                    return unknown_in_condition(&table.to_string(), &refusal.message, wrong, &columns);
                }
                _ => {}
            }
        }
        server_error(error, &self.config, &format!("cannot read `{}`", self.label()))
    }

    fn failed(&self, error: &Failure) -> Error {
        server_error(error, &self.config, &format!("cannot plan how to read `{}`", self.label()))
    }

    /// The condition that finds this table in the information schema.
    pub(super) fn in_schema(&self) -> Option<String> {
        let Relation::Table(table) = &self.relation else { return None };
        let database = table.database.as_deref().map_or_else(|| "DATABASE()".to_owned(), literal);
        Some(format!("table_schema = {database} AND table_name = {}", literal(&table.name)))
    }

    /// Columns, and what the server's statistics say of rows and bytes.
    pub(super) async fn ask(&self) -> Result<Known> {
        let mut session = Session::open_to_ask(&self.config).await?;
        let columns = self.describe(&mut session).await?;
        let mut known = Known {
            schema: schema_of(&columns),
            columns: columns.clone(),
            stats: SourceStats::default(),
            all_rows: None,
            all_bytes: None,
            by_index: false,
            engine: None,
            key: None,
            distinct: BTreeMap::new(),
        };
        if let Some(place) = self.in_schema() {
            let sql = format!(
                "SELECT engine, table_rows, data_length, table_type FROM information_schema.tables WHERE {place}"
            );
            let rows = session.ask(&sql).await.map_err(|error| self.failed(&error))?;
            let row = rows.into_iter().next().and_then(|row| <[Option<String>; 4]>::try_from(row).ok());
            if let Some([engine, rows, bytes, kind]) = row {
                let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
                let is_table = kind.is_some_and(|kind| matches!(kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED"));
                known.engine = engine.filter(|_| is_table);
                known.all_rows = number(rows);
                known.all_bytes = number(bytes);
            }
            let sql = format!(
                "SELECT column_name FROM information_schema.statistics WHERE {place} AND seq_in_index = 1 AND non_unique = 0 \
                 AND nullable <> 'YES' AND sub_part IS NULL ORDER BY index_name <> 'PRIMARY' LIMIT 1"
            );
            known.key = session.value(&sql).await.map_err(|error| self.failed(&error))?;
            let sql = format!(
                "SELECT column_name, MAX(cardinality) FROM information_schema.statistics WHERE {place} \
                 AND seq_in_index = 1 GROUP BY column_name"
            );
            let rows = session.ask(&sql).await.map_err(|error| self.failed(&error))?;
            known.distinct = rows
                .into_iter()
                .filter_map(|row| <[Option<String>; 2]>::try_from(row).ok())
                .filter_map(|[column, values]| Some((column?, values?.parse().ok()?)))
                .collect();
            let sql = format!("SELECT column_name, column_comment FROM information_schema.columns WHERE {place}");
            // Rows can be read without.
            let rows = session.ask(&sql).await.unwrap_or_default();
            let comments = rows
                .into_iter()
                .filter_map(|row| <[Option<String>; 2]>::try_from(row).ok())
                .filter_map(|[column, comment]| Some((column?, comment?)));
            known.schema = commented(&known.schema, &comments.collect());
        }
        let sql = format!("EXPLAIN {}", self.select(&columns, &Slice::Whole));
        let plan = match session.ask_named(&sql).await {
            Ok(plan) => plan,
            // Who may read a view may not be allowed to see how it is made.
            Err(Failure::Server(refusal)) if refusal.code == 1345 => Vec::new(),
            Err(error) => return Err(self.cannot_read(&mut session, &error).await),
        };
        session.close().await;
        known.stats = SourceStats { rows: known.all_rows, bytes: known.all_bytes };
        if self.filter.is_some() || known.all_rows.is_none() {
            // One table alone is estimated well enough; of several, nobody knows.
            let [step] = plan.as_slice() else {
                known.stats = SourceStats::default();
                return Ok(known);
            };
            let text = |name: &str| step.get(name).and_then(Option::as_deref);
            let share = text("filtered").and_then(|text| text.parse::<f64>().ok()).map_or(1.0, |share| share / 100.0);
            let rows = text("rows").and_then(|text| text.parse::<f64>().ok()).map(|rows| (rows * share).round() as u64);
            known.by_index = self.filter.is_some()
                && matches!(text("type"), Some("range" | "ref" | "const" | "eq_ref" | "index_merge" | "ref_or_null"));
            let width = known.all_bytes.zip(known.all_rows).map(|(bytes, all)| bytes / all.max(1));
            known.stats = SourceStats { rows, bytes: rows.zip(width).map(|(rows, width)| rows.saturating_mul(width)) };
        }
        Ok(known)
    }

    /// The columns of the table's primary key, in its order; none for views and queries, and where a part of a column
    /// is what counts.
    pub(super) async fn primary_key(&self) -> Result<Vec<String>> {
        let Some(place) = self.in_schema() else { return Ok(Vec::new()) };
        let mut session = Session::open_to_ask(&self.config).await?;
        let sql = format!(
            "SELECT column_name, sub_part FROM information_schema.statistics WHERE {place} AND index_name = 'PRIMARY' \
             ORDER BY seq_in_index"
        );
        let rows = session.ask(&sql).await.map_err(|error| self.failed(&error))?;
        session.close().await;
        let column = |row: Vec<Option<String>>| match <[Option<String>; 2]>::try_from(row) {
            Ok([Some(column), None]) => Some(column),
            _ => None,
        };
        Ok(rows.into_iter().map(column).collect::<Option<Vec<String>>>().unwrap_or_default())
    }

    /// The columns of `wanted` among those that the server has now.
    ///
    /// # Errors
    /// A column that is not there, or of another type than it was when the run began.
    pub(super) fn choose(&self, known: &[Column], wanted: &Schema) -> Result<Vec<Column>> {
        wanted
            .fields()
            .iter()
            .map(|field| {
                let Some(column) = known.iter().find(|column| column.name == *field.name()) else {
                    let names = known.iter().map(|column| column.name.as_str());
                    return Err(unknown_column(field.name(), &self.label(), names));
                };
                if column.kind == *field.data_type() {
                    return Ok(column.clone());
                }
                Err(changed_type(field.name(), &self.label(), &column.kind, field.data_type()))
            })
            .collect()
    }
}

pub(super) fn schema_of(columns: &[Column]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|column| Field::new(&column.name, column.kind.clone(), true)).collect();
    Arc::new(Schema::new(fields))
}
