//! MySQL and MariaDB: `type: mysql`, or `type: mariadb`.
//!
//! ```text
//!   config ─► connect ─► Session ─► read: wanted + units ─► plan: shares of one picture
//!                                     snapshot: connections that all began while the table was locked
//!                                     stream: SELECT …, by the binary protocol, one unit, with retries
//!                                       decode: arrow builders, by types
//! ```
//!
//! Large InnoDB tables are divided into ranges of their key that are read in parallel, all in one picture (`snapshot`).
//! By which rule, and how many, is decided by pure functions over what the server knows (`units`, and what all databases
//! share in `units` of this crate). [`types`] has the table of types and what happens to values that arrow has no place for.
//!
//! The sink is `sinks/mysql`.

mod cells;
mod columns;
mod config;
pub(crate) mod connect;
mod decode;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod increment;
mod kept;
pub(crate) mod names;
mod pushed;
mod read;
mod snapshot;
mod split;
mod stream;
pub mod types;
mod units;
mod wanted;
mod wire;

#[cfg(test)]
mod tests;

pub use config::{MysqlConfig, MysqlKeys};
pub use read::MysqlSource;

use crate::cursors::candidates;
use crate::registry::Connector;
use crate::sinks::mysql::MysqlSink;
use crate::{Connection, ConnectionInfo, Discovered, LoadContext, OpenContext, Sink, Source};
use async_trait::async_trait;
use connect::{Session, server_error};
use gristmill_model::Result;
use gristmill_model::spec::{ExtractSpec, FoundTable, LoadSpec};
use gristmill_model::yaml::{Diagnostic, Node};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The entries of the registry: the same connector by both names.
#[must_use]
pub fn connectors() -> [Connector; 2] {
    let connector = |name, about| Connector { name, about, schema: || schemars::schema_for!(MysqlKeys), open };
    [connector("mysql", "a MySQL or MariaDB database"), connector("mariadb", "another name of `mysql`")]
}

fn open(node: &Node, context: &OpenContext) -> Result<Arc<dyn Connection>, Vec<Diagnostic>> {
    Ok(Arc::new(MysqlConnection::new(MysqlConfig::from_node(node, &context.project)?)))
}

/// A MySQL or MariaDB database.
#[derive(Debug)]
pub struct MysqlConnection {
    config: Arc<MysqlConfig>,
}

impl MysqlConnection {
    /// A connection to the database of `config`; nothing is called yet.
    #[must_use]
    pub fn new(config: MysqlConfig) -> Self {
        Self { config: Arc::new(config) }
    }
}

/// At most this many tables are listed.
const MOST_TABLES: u32 = 5000;
/// The databases that every server has.
pub(crate) const SYSTEM: &str = "('information_schema', 'mysql', 'performance_schema', 'sys')";

#[async_trait]
impl Connection for MysqlConnection {
    fn kind(&self) -> &'static str {
        "mysql"
    }

    fn describe(&self) -> String {
        format!("mysql://{}", self.config.place)
    }

    async fn test(&self) -> Result<ConnectionInfo> {
        let mut session = Session::open_to_ask(&self.config).await?;
        let failed = |error| server_error(&error, &self.config, "cannot ask the server");
        let sql = format!(
            "SELECT COALESCE(DATABASE(), ''), CURRENT_USER(), @@read_only, (SELECT COUNT(*) FROM information_schema.tables \
             WHERE table_type = 'BASE TABLE' AND table_schema = COALESCE(DATABASE(), table_schema) \
             AND table_schema NOT IN {SYSTEM})"
        );
        let rows = session.ask(&sql).await.map_err(failed)?;
        let cipher = session.ask("SHOW STATUS LIKE 'Ssl_cipher'").await.map_err(failed)?;
        let version = session.version.clone();
        let server = if session.is_mariadb { format!("MariaDB {version}") } else { format!("MySQL {version}") };
        session.close().await;
        let mut values = rows.into_iter().flatten().map(Option::unwrap_or_default);
        let mut next = || values.next().unwrap_or_default();
        let (database, user, read_only, tables) = (next(), next(), next(), next());
        let is_encrypted = cipher
            .iter()
            .any(|row| row.get(1).is_some_and(|name| name.as_deref().is_some_and(|name| !name.is_empty())));
        let mut details = vec![
            ("database".to_owned(), if database.is_empty() { "none".to_owned() } else { database }),
            ("user".to_owned(), user),
            ("tls".to_owned(), if is_encrypted { "yes" } else { "no" }.to_owned()),
            ("tables".to_owned(), tables),
        ];
        if read_only == "1" {
            details.push(("mode".to_owned(), "read-only".to_owned()));
        }
        Ok(ConnectionInfo { server, details })
    }

    async fn discover(&self) -> Result<Vec<Discovered>> {
        let here = match self.config.database {
            Some(_) => "table_schema = DATABASE()".to_owned(),
            None => format!("table_schema NOT IN {SYSTEM}"),
        };
        let (listed, _) = self.list(&here, &format!("LIMIT {MOST_TABLES}")).await?;
        let found = listed.into_iter().map(|table| Discovered {
            name: match self.config.database {
                Some(_) => plain(&table.name),
                None => table.reference(),
            },
            cursors: candidates(&table.columns, &table.key),
            rows: table.rows,
            bytes: table.bytes,
            key: table.key,
            columns: table.columns,
        });
        Ok(found.collect())
    }

    async fn tables(&self) -> Result<Vec<FoundTable>> {
        let (listed, own) = self.list(&format!("table_schema NOT IN {SYSTEM}"), "").await?;
        let found = listed.into_iter().map(|table| FoundTable {
            reference: table.reference(),
            is_own: own.as_ref() == Some(&table.schema),
            is_view: table.is_view,
            schema: Some(table.schema),
            name: table.name,
            key: table.key,
            columns: table.columns.into_iter().map(|(column, _)| column).collect(),
        });
        Ok(found.collect())
    }

    fn source(&self, extract: &ExtractSpec) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(MysqlSource::new(self.config.clone(), extract)?))
    }

    fn sink(&self, load: &LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(MysqlSink::new(self.config.clone(), load, context)?))
    }
}

/// A table or view of a server.
struct Listed {
    schema: String,
    name: String,
    rows: Option<u64>,
    bytes: Option<u64>,
    is_view: bool,
    key: Vec<String>,
    columns: Vec<(String, String)>,
}

impl Listed {
    /// As an extract names it from anywhere.
    fn reference(&self) -> String {
        format!("{}.{}", plain(&self.schema), plain(&self.name))
    }
}

/// A part of a table's name, in backticks where it needs them.
fn plain(name: &str) -> String {
    if name.contains(['.', '`']) { names::quoted(name) } else { name.to_owned() }
}

impl MysqlConnection {
    /// The tables and views for which `here` holds, and the database that a name without one means.
    async fn list(&self, here: &str, limit: &str) -> Result<(Vec<Listed>, Option<String>)> {
        let mut session = Session::open_to_ask(&self.config).await?;
        let failed = |error| server_error(&error, &self.config, "cannot list the tables");
        let sql = format!(
            "SELECT table_schema, table_name, IF(table_type LIKE '%VIEW', NULL, table_rows), \
             IF(table_type LIKE '%VIEW', NULL, data_length), table_type LIKE '%VIEW' \
             FROM information_schema.tables WHERE {here} AND table_type <> 'SEQUENCE' ORDER BY 1, 2 {limit}"
        );
        let tables = session.ask(&sql).await.map_err(failed)?;
        let sql = format!(
            "SELECT table_schema, table_name, column_name, column_type FROM information_schema.columns WHERE {here} \
             ORDER BY ordinal_position"
        );
        let columns = session.ask(&sql).await.map_err(failed)?;
        let sql = format!(
            "SELECT table_schema, table_name, column_name, '' FROM information_schema.statistics WHERE {here} \
             AND index_name = 'PRIMARY' ORDER BY seq_in_index"
        );
        let keys = session.ask(&sql).await.map_err(failed)?;
        let own = session.value("SELECT DATABASE()").await.map_err(failed)?;
        session.close().await;
        let mut columns = by_table(columns);
        let mut keys = by_table(keys);
        let found = tables.into_iter().filter_map(|row| {
            let [schema, name, rows, bytes, is_view] = <[Option<String>; 5]>::try_from(row).ok()?;
            let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
            let place = (schema?, name?);
            let key = keys.remove(&place).unwrap_or_default().into_iter().map(|(column, _)| column).collect();
            let columns = columns.remove(&place).unwrap_or_default();
            let (schema, name) = place;
            let is_view = is_view.as_deref() == Some("1");
            Some(Listed { schema, name, rows: number(rows), bytes: number(bytes), is_view, key, columns })
        });
        Ok((found.collect(), own))
    }
}

/// Columns of tables, by database and table.
fn by_table(rows: Vec<connect::TextRow>) -> BTreeMap<(String, String), Vec<(String, String)>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        if let Ok([Some(schema), Some(table), Some(column), Some(kind)]) = <[Option<String>; 4]>::try_from(row) {
            found.entry((schema, table)).or_default().push((column, kind));
        }
    }
    found
}
