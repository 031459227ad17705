//! SQLite databases: a connection with both halves, and the source.
//!
//! A view, a query or a small table is read by one unit, on a thread of its own, in one read transaction; a large table by
//! ranges of its row ids (`divide`), on connections whose read transactions see the same (`picture`). What they give is one
//! picture of the database, whatever other programs write meanwhile. The file is opened for reading only. Which
//! arrow type a column gets is told by its declared type (`types.rs`); a value that is not of that type is an error
//! naming column, value and row, or a reject.
//!
//! The sink is in [`crate::sinks::sqlite`].

mod aggregate;
mod config;
pub(crate) mod database;
mod divide;
mod increment;
mod kept;
mod picture;
mod pushed;
mod read;
pub(crate) mod types;
mod units;
pub(crate) mod values;

#[cfg(test)]
mod tests;

pub use config::SqliteConfig;
pub(crate) use kept::KeptColumn;
pub(crate) use read::can_read;

use crate::cursors::candidates;
use crate::extract::{Relation, check};
use crate::registry::Connector;
use crate::sinks::sqlite::SqliteSink;
use crate::source::whole_key;
use crate::units::share::Share;
use crate::{
    Aggregation, Connection, ConnectionInfo, Discovered, Filter, Increment, LoadContext, Narrowed, OpenContext,
    ReadPlan, ReadRequest, Rows, Scan, Sink, Source, SourceStats,
};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use database::{Database, Table, list_tables};
use gristmill_model::spec::{ExtractSpec, FoundTable, LoadSpec, UnitStrategy, UnitsSpec, Verify};
use gristmill_model::yaml::{Diagnostic, Node, decode};
use gristmill_model::{Error, ErrorKind, Result, WorkUnit};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// At most so many tables are listed.
const LISTED: usize = 2000;

/// The connector, for the registry.
#[must_use]
pub fn connector() -> Connector {
    Connector {
        name: "sqlite",
        about: "a SQLite database file",
        schema: || schemars::schema_for!(SqliteConfig),
        open: |node, context| open(node, context).map(|connection| Arc::new(connection) as Arc<dyn Connection>),
    }
}

fn open(node: &Node, context: &OpenContext) -> Result<SqliteConnection, Vec<Diagnostic>> {
    let config: SqliteConfig = decode(node)?;
    if config.path.trim().is_empty() {
        let place = node.get("path").unwrap_or(node);
        return Err(vec![
            place.diagnostic("`path` is empty", Some("name the database file: `path: data/sales.db`".into())),
        ]);
    }
    Ok(SqliteConnection::new(&config, context))
}

/// A SQLite database of the project.
#[derive(Debug, Clone)]
pub struct SqliteConnection {
    database: Database,
}

impl SqliteConnection {
    /// A connection to the file of `config`; nothing is opened yet.
    #[must_use]
    pub fn new(config: &SqliteConfig, context: &OpenContext) -> Self {
        Self { database: Database { path: context.project.join(&config.path), shown: config.path.clone() } }
    }
}

/// Runs `work` where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("the work on a SQLite database stopped").cause(error))?
}

#[async_trait]
impl Connection for SqliteConnection {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn describe(&self) -> String {
        self.database.shown.clone()
    }

    async fn test(&self) -> Result<ConnectionInfo> {
        let database = self.database.clone();
        blocking(move || {
            if !database.exists() {
                database.must_have_a_folder()?;
            }
            let connection = database.open_to_read()?;
            let tables = list_tables(&connection).map_err(|error| database.explain(error))?;
            let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0));
            let mode = ask("PRAGMA journal_mode").map_err(|error| database.explain(error))?;
            Ok(ConnectionInfo {
                server: format!("SQLite {}", rusqlite::version()),
                details: vec![
                    ("path".to_owned(), database.path.display().to_string()),
                    ("journal mode".to_owned(), mode),
                    ("tables".to_owned(), tables.len().to_string()),
                ],
            })
        })
        .await
    }

    async fn discover(&self) -> Result<Vec<Discovered>> {
        let database = self.database.clone();
        blocking(move || {
            let connection = database.open_to_read()?;
            let tables = list_tables(&connection).map_err(|error| database.explain(error))?;
            let sizes = database::sizes(&database, &connection);
            let mut found = Vec::new();
            for listed in tables.into_iter().take(LISTED) {
                let Some(table) = Table::look_up(&connection, &listed.name).map_err(|error| database.explain(error))?
                else {
                    continue;
                };
                let columns = table
                    .columns
                    .iter()
                    .map(|column| {
                        let kind = types::declared(&column.declared);
                        let words =
                            kind.map_or_else(|| "as its values".to_owned(), |kind| crate::types::type_name(&kind));
                        (column.name.clone(), words)
                    })
                    .collect::<Vec<_>>();
                let key = table.key();
                found.push(Discovered {
                    rows: table.estimated_rows(&connection),
                    bytes: sizes.get(&table.name).copied().filter(|_| !table.view),
                    cursors: candidates(&columns, &key),
                    key,
                    columns,
                    name: table.name,
                });
            }
            Ok(found)
        })
        .await
    }

    async fn tables(&self) -> Result<Vec<FoundTable>> {
        let database = self.database.clone();
        blocking(move || {
            let connection = database.open_to_read()?;
            let explain = |error| database.explain(error);
            let mut found = Vec::new();
            for listed in list_tables(&connection).map_err(explain)? {
                let Some(table) = Table::look_up(&connection, &listed.name).map_err(explain)? else { continue };
                found.push(FoundTable {
                    schema: None,
                    reference: table.name.clone(),
                    is_own: true,
                    is_view: table.view,
                    key: table.key(),
                    columns: table.column_names(),
                    name: table.name,
                });
            }
            Ok(found)
        })
        .await
    }

    fn source(&self, extract: &ExtractSpec) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(SqliteSource::new(self.database.clone(), extract)?))
    }

    fn sink(&self, load: &LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(SqliteSink::new(self.database.clone(), load, context)?))
    }
}

/// What is read: a table (or view), or a query, and how.
#[derive(Debug, Clone)]
struct Wanted {
    database: Database,
    what: What,
    /// Only these columns, in this order; all when empty.
    columns: Vec<String>,
    /// Types that override the declared ones, by column.
    overrides: BTreeMap<String, DataType>,
    units: UnitsSpec,
    /// So many rows are enough.
    limit: Option<u64>,
}

/// What the database said when it was first looked at.
#[derive(Debug, Clone)]
struct Known {
    schema: SchemaRef,
    /// The columns that conditions may be on.
    comparable: pushed::Columns,
}

impl Wanted {
    /// The same with a condition beside its own, and so many rows at most.
    fn with(&self, pushed: Option<&str>, limit: Option<u64>) -> Self {
        let mut wanted = self.clone();
        wanted.limit = limit;
        if limit.is_some() {
            // One unit that stops early; what it leaves out is not to be counted.
            wanted.units = UnitsSpec { strategy: UnitStrategy::None, verify: None, ..wanted.units };
        }
        if let (What::Table { filter, .. }, Some(pushed)) = (&mut wanted.what, pushed) {
            *filter = Some(match filter.as_ref() {
                // What the user wrote may end with a comment.
                Some(own) => format!("(\n{own}\n) AND {pushed}"),
                None => pushed.to_owned(),
            });
        }
        wanted
    }
}

#[derive(Debug, Clone)]
enum What {
    Table { name: String, filter: Option<String> },
    Query(String),
}

/// A table, view or query of a SQLite database.
#[derive(Debug)]
pub struct SqliteSource {
    wanted: Arc<Wanted>,
    known: OnceCell<Known>,
    stats: OnceCell<SourceStats>,
}

impl SqliteSource {
    fn new(database: Database, extract: &ExtractSpec) -> Result<Self> {
        let config = |message: &str| Error::new(ErrorKind::Config, message.to_owned());
        let (relation, units) = check(extract, "a SQLite database")?;
        let what = match relation {
            Relation::Table(name, filter) => What::Table { name: name.to_owned(), filter: filter.map(str::to_owned) },
            Relation::Query(query) => What::Query(query.to_owned()),
        };
        let mut overrides = BTreeMap::new();
        for (column, name) in &extract.schema {
            let kind =
                crate::types::parse_type(name).map_err(|error| error.context(format!("schema of `{column}`")))?;
            if !read::can_read(&kind) {
                return Err(config(&format!("column `{column}` cannot be read as `{name}` from SQLite"))
                    .hint("read it as `text`, or as a decimal of up to 38 digits"));
            }
            overrides.insert(column.clone(), kind);
        }
        let wanted = Wanted { database, what, columns: extract.columns.clone(), overrides, units, limit: None };
        Ok(Self { wanted: Arc::new(wanted), known: OnceCell::new(), stats: OnceCell::new() })
    }

    async fn known(&self) -> Result<&Known> {
        let wanted = self.wanted.clone();
        self.known.get_or_try_init(|| blocking(move || units::known(&wanted))).await
    }
}

#[async_trait]
impl Source for SqliteSource {
    async fn schema(&self) -> Result<SchemaRef> {
        Ok(self.known().await?.schema.clone())
    }

    async fn narrow(&self, extract: &ExtractSpec, increment: &Increment) -> Result<Narrowed> {
        let (wanted, extract, increment) = (self.wanted.clone(), extract.clone(), increment.clone());
        blocking(move || increment::narrow(&wanted, &extract, &increment)).await
    }

    async fn key(&self) -> Result<Vec<String>> {
        let What::Table { name, .. } = &self.wanted.what else { return Ok(Vec::new()) };
        let (database, name) = (self.wanted.database.clone(), name.clone());
        let table = blocking(move || {
            let connection = database.open_to_read()?;
            Table::look_up(&connection, &name).map_err(|error| database.explain(error))
        });
        let key = table.await?.map(|table| table.key()).unwrap_or_default();
        Ok(whole_key(key, &self.known().await?.schema))
    }

    async fn plan(&self, want: &ReadRequest) -> Result<ReadPlan> {
        let known = self.known().await?;
        let (pushed_down, pushed, limit) = units::pushed_down(&self.wanted, known, want)?;
        let (wanted, stats, readers) = (self.wanted.clone(), self.stats().await, want.parallelism);
        let aggregation = want.aggregation.clone();
        blocking(move || {
            let narrowed = wanted.with(pushed.as_deref(), limit);
            let mut plan = divide::plan(&narrowed, stats, readers, pushed_down, (pushed, limit, aggregation))?;
            if limit.is_some() && wanted.units.strategy != UnitStrategy::None {
                plan.why = "one read transaction".to_owned();
            }
            Ok(plan)
        })
        .await
    }

    fn read(&self, unit: &WorkUnit, scan: &Scan) -> Rows {
        let share = match serde_json::from_value::<Share>(unit.payload.clone()) {
            Ok(share) => share,
            Err(error) => {
                let error = Error::internal(format!("the work unit `{}` is not one of ours", unit.label)).cause(error);
                return Rows::failed(scan.schema.clone(), error);
            }
        };
        let picture = match share.snapshot.as_deref().map(|id| picture::PICTURES.find(id)) {
            None => None,
            Some(Some(picture)) => Some(picture),
            Some(None) => {
                return Rows::failed(scan.schema.clone(), crate::picture::lost(&self.wanted.database.shown));
            }
        };
        let wanted = Arc::new(self.wanted.with(share.pushed.as_deref(), share.limit));
        let (ordinal, label) = (unit.ordinal, unit.label.clone());
        let (slice, aggregation) = (share.slice, share.aggregation);
        read::start(read::Unit { wanted, picture, slice, aggregation, ordinal, label }, scan.clone())
    }

    fn can_filter(&self, filter: &Filter) -> bool {
        self.known.get().is_some_and(|known| pushed::may(filter, &known.comparable))
    }

    fn can_aggregate(&self, aggregation: &Aggregation, filters: &[Filter]) -> bool {
        let spec = &self.wanted.units;
        // Without rows nothing can be counted.
        let is_countless = spec.verify != Some(Verify::Count)
            && matches!(spec.strategy, UnitStrategy::Auto | UnitStrategy::IdRange | UnitStrategy::None);
        let known = self.known.get().filter(|_| is_countless);
        known.is_some_and(|known| aggregate::may(aggregation, filters, &known.comparable))
    }

    async fn stats(&self) -> SourceStats {
        let Ok(schema) = self.schema().await else { return SourceStats::default() };
        let wanted = self.wanted.clone();
        let count = || async move { blocking(move || Ok(units::stats(&wanted, &schema))).await.unwrap_or_default() };
        *self.stats.get_or_init(count).await
    }
}
