//! PostgreSQL: `type: postgres`.
//!
//! ```text
//!   config ─► connect ─► Session ─┬─► read: wanted + units ─► plan: shares of one exported snapshot
//!                                 │     stream: COPY (SELECT …) TO STDOUT (FORMAT binary), one unit, with retries
//!                                 │       copy: frames ─► decode: gathered rows ─► columns, by types
//!                                 └─► the sink (crate::sinks::postgres)
//! ```
//!
//! Large tables are divided into units that are read in parallel, all in the picture of one exported snapshot
//! (`snapshot`); by which rule, and how many, is decided by pure functions over what the server knows (`units`). A few
//! connections go from unit to unit within their transactions. [`types`] has the table of types and what happens to
//! values that arrow has no place for.

mod aggregate;
mod cells;
mod columns;
mod config;
pub(crate) mod connect;
mod copy;
mod decode;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod increment;
mod kept;
mod libpq;
pub(crate) mod names;
mod numeric;
mod pushed;
mod read;
mod snapshot;
mod split;
mod stream;
pub(crate) mod tls;
pub mod types;
mod units;
mod wanted;

#[cfg(test)]
mod tests;

pub use config::{PostgresConfig, PostgresKeys};
pub(crate) use config::{as_long_as_it_takes, patience};
pub use read::PostgresSource;
pub use tls::{ChannelBinding, SslMode};
pub(crate) use tls::{Tls, must_look_at};

use crate::cursors::candidates;
use crate::registry::Connector;
use crate::sinks::postgres::PostgresSink;
use crate::{Connection, ConnectionInfo, Discovered, LoadContext, OpenContext, Sink, Source};
use async_trait::async_trait;
use connect::{Session, server_error};
use gristmill_model::Result;
use gristmill_model::spec::{ExtractSpec, FoundTable, LoadSpec};
use gristmill_model::yaml::{Diagnostic, Node};
use names::quoted;
use std::sync::Arc;

/// The entry of the registry.
#[must_use]
pub fn connector() -> Connector {
    Connector { name: "postgres", about: "a PostgreSQL database", schema: || schemars::schema_for!(PostgresKeys), open }
}

fn open(node: &Node, context: &OpenContext) -> Result<Arc<dyn Connection>, Vec<Diagnostic>> {
    Ok(Arc::new(PostgresConnection::new(PostgresConfig::from_node(node, &context.project)?)))
}

/// A PostgreSQL database.
#[derive(Debug)]
pub struct PostgresConnection {
    config: Arc<PostgresConfig>,
}

impl PostgresConnection {
    /// A connection to the database of `config`; nothing is called yet.
    #[must_use]
    pub fn new(config: PostgresConfig) -> Self {
        Self { config: Arc::new(config) }
    }
}

/// At most this many tables are listed.
const MOST_TABLES: u32 = 5000;

#[async_trait]
impl Connection for PostgresConnection {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn describe(&self) -> String {
        format!("postgres://{}", self.config.place)
    }

    async fn test(&self) -> Result<ConnectionInfo> {
        let session = Session::open_to_read(&self.config).await?;
        let sql = "SELECT current_setting('server_version'), current_database()::text, current_user::text, \
                   coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false), pg_is_in_recovery(), \
                   (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^pg_' \
                    AND n.nspname <> 'information_schema' AND c.relname NOT LIKE '\\_gristmill\\_%')";
        let failed = |error| server_error(&error, &self.config, "cannot ask the server");
        let row = session.query_one(sql, &[]).await.map_err(failed)?;
        let text = |index: usize| row.try_get::<_, String>(index).map_err(failed);
        let flag = |index: usize| row.try_get::<_, bool>(index).map_err(failed);
        let mut details = vec![
            ("database".to_owned(), text(1)?),
            ("user".to_owned(), text(2)?),
            ("tls".to_owned(), if flag(3)? { "yes" } else { "no" }.to_owned()),
            ("tables".to_owned(), row.try_get::<_, i64>(5).map_err(failed)?.to_string()),
        ];
        if flag(4)? {
            details.push(("mode".to_owned(), "read-only standby".to_owned()));
        }
        let server = format!("PostgreSQL {}", text(0)?);
        session.close().await;
        Ok(ConnectionInfo { server, details })
    }

    async fn discover(&self) -> Result<Vec<Discovered>> {
        let listed = self.list(&format!("LIMIT {MOST_TABLES}")).await?;
        let found = listed.into_iter().map(|table| Discovered {
            name: if table.is_visible { plain(&table.name) } else { table.reference() },
            cursors: candidates(&table.columns, &table.key),
            rows: table.rows,
            bytes: table.bytes,
            key: table.key,
            columns: table.columns,
        });
        Ok(found.collect())
    }

    async fn tables(&self) -> Result<Vec<FoundTable>> {
        let own = self.config.schema.as_deref();
        let found = self.list("").await?.into_iter().map(|table| FoundTable {
            reference: table.reference(),
            is_own: own.map_or(table.is_visible, |own| own == table.schema),
            is_view: table.is_view,
            schema: Some(table.schema),
            name: table.name,
            key: table.key,
            columns: table.columns.into_iter().map(|(column, _)| column).collect(),
        });
        Ok(found.collect())
    }

    fn source(&self, extract: &ExtractSpec) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(PostgresSource::new(self.config.clone(), extract)?))
    }

    fn sink(&self, load: &LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(PostgresSink::new(self.config.clone(), load, context)?))
    }
}

/// A table or view of a database.
struct Listed {
    schema: String,
    name: String,
    /// A name without a schema means it.
    is_visible: bool,
    is_view: bool,
    rows: Option<u64>,
    bytes: Option<u64>,
    key: Vec<String>,
    columns: Vec<(String, String)>,
}

impl Listed {
    /// As an extract names it from anywhere.
    fn reference(&self) -> String {
        format!("{}.{}", plain(&self.schema), plain(&self.name))
    }
}

/// A part of a table's name, in quotes where it needs them.
fn plain(name: &str) -> String {
    if name.contains(['.', '"']) { quoted(name) } else { name.to_owned() }
}

impl PostgresConnection {
    /// The tables and views that this user may find, those that are Gristmill's own and partitions left out.
    async fn list(&self, limit: &str) -> Result<Vec<Listed>> {
        let session = Session::open_to_read(&self.config).await?;
        let sql = format!(
            "SELECT n.nspname::text, c.relname::text, pg_table_is_visible(c.oid), \
               CASE WHEN c.relkind = 'p' THEN parts.rows WHEN c.reltuples >= 0 AND c.relkind <> 'v' THEN c.reltuples::bigint END, \
               CASE WHEN c.relkind = 'p' THEN parts.bytes WHEN c.relkind IN ('r', 'm') THEN pg_table_size(c.oid) END, \
               ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 \
                     AND NOT a.attisdropped ORDER BY a.attnum), \
               ARRAY(SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = c.oid \
                     AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum), \
               ARRAY(SELECT a.attname::text FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k(num, place) \
                     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num \
                     WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place), \
               c.relkind IN ('v', 'm') \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN LATERAL ( \
               WITH RECURSIVE tree(oid) AS (SELECT c.oid WHERE c.relkind = 'p' UNION ALL \
                 SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid) \
               SELECT CASE WHEN min(leaf.reltuples) >= 0 THEN sum(leaf.reltuples)::bigint END AS rows, \
                 sum(pg_table_size(leaf.oid))::bigint AS bytes \
               FROM tree JOIN pg_class leaf ON leaf.oid = tree.oid WHERE leaf.relkind = 'r') parts ON c.relkind = 'p' \
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname !~ '^pg_' \
               AND n.nspname <> 'information_schema' AND c.relname NOT LIKE '\\_gristmill\\_%' \
               AND has_schema_privilege(n.oid, 'usage') ORDER BY 1, 2 {limit}"
        );
        let failed = |error| server_error(&error, &self.config, "cannot list the tables");
        let rows = session.query(&sql, &[]).await.map_err(failed)?;
        let found = rows.iter().map(|row| {
            let number = |index: usize| row.try_get::<_, Option<i64>>(index);
            let (columns, types): (Vec<String>, Vec<String>) = (row.try_get(5)?, row.try_get(6)?);
            Ok(Listed {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
                is_visible: row.try_get(2)?,
                is_view: row.try_get(8)?,
                rows: number(3)?.and_then(|rows| u64::try_from(rows).ok()),
                bytes: number(4)?.and_then(|bytes| u64::try_from(bytes).ok()),
                key: row.try_get(7)?,
                columns: columns.into_iter().zip(types).collect(),
            })
        });
        let found = found.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        session.close().await;
        Ok(found)
    }
}
