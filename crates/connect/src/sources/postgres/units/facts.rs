//! Asking the server what units are decided by: tables and their pages, the key, its distribution.
//!
//! Values come as texts and are sorted as what they are: a bare `ORDER BY v` beside `v::text` would sort the texts, so
//! the names are qualified throughout.

use super::blocks::Heap;
use super::decide::{Facts, Relation as Kind};
use super::keys::{Cut, KeyKind, Marker};
use super::share::Edge;
use crate::sources::postgres::connect::{Session, server_error};
use crate::sources::postgres::names::{TableName, literal, quoted};
use crate::sources::postgres::wanted::{Known, Relation, Wanted, unknown_column};
use gristmill_model::{Error, ErrorKind, Result};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Kind as TypeKind;

/// More tables than this below one name are not read one by one.
const MOST_HEAPS: usize = 2000;
/// Pages that are sampled where there are no statistics.
const SAMPLED_PAGES: u64 = 1000;

impl Wanted {
    fn failed(&self, error: &tokio_postgres::Error) -> Error {
        server_error(error, &self.config, &format!("cannot plan how to read `{}`", self.label()))
    }

    /// What is known before anything is read, as the transaction of `session` sees it.
    pub(in super::super) async fn facts(
        &self,
        session: &Session,
        known: &Known,
        snapshot: Result<(), String>,
    ) -> Result<Facts> {
        let failed = |error| self.failed(&error);
        let Relation::Table(table) = &self.relation else {
            let sql = "SELECT current_setting('server_version_num')::int4";
            let row = session.query_one(sql, &[]).await.map_err(failed)?;
            let version: i32 = row.try_get(0).map_err(failed)?;
            return Ok(Facts {
                version: u32::try_from(version).unwrap_or(0),
                relation: Kind::Query,
                heaps: Err("a query has no pages".to_owned()),
                rows: known.stats.rows,
                by_index: known.by_index,
                key: None,
                foreign: known.foreign,
                snapshot,
            });
        };
        let sql = format!(
            "SELECT current_setting('server_version_num')::int4, c.relkind::text, \
               (SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
                WHERE i.indrelid = c.oid AND i.indisprimary AND i.indnkeyatts = 1) \
             FROM (SELECT {}::regclass::oid AS oid) named LEFT JOIN pg_class c USING (oid)",
            literal(&table.sql())
        );
        let row = session.query_one(&sql, &[]).await.map_err(failed)?;
        let version: i32 = row.try_get(0).map_err(failed)?;
        let relation = match row.try_get::<_, Option<String>>(1).map_err(failed)?.as_deref() {
            Some("r") => Kind::Table,
            Some("p") => Kind::Partitioned,
            Some("m") => Kind::MaterializedView,
            Some("v") => Kind::View,
            Some("f") => Kind::Foreign,
            _ => Kind::Other,
        };
        let heaps = match relation {
            Kind::Table | Kind::Partitioned | Kind::MaterializedView => {
                self.heaps(session, table, relation).await.map_err(failed)?
            }
            Kind::View => Err("a view has no pages".to_owned()),
            Kind::Foreign => Err("the pages of a foreign table are elsewhere".to_owned()),
            Kind::Query | Kind::Other => Err("it is no table".to_owned()),
        };
        Ok(Facts {
            version: u32::try_from(version).unwrap_or(0),
            relation,
            heaps,
            rows: known.stats.rows,
            by_index: known.by_index,
            key: row.try_get(2).map_err(failed)?,
            foreign: known.foreign || relation == Kind::Foreign,
            snapshot,
        })
    }

    /// The tables below a name that hold rows, or why their pages cannot be read range by range.
    async fn heaps(
        &self,
        session: &Session,
        table: &TableName,
        kind: Kind,
    ) -> Result<Result<Vec<Heap>, String>, tokio_postgres::Error> {
        let root = format!("{}::regclass", literal(&table.sql()));
        // The server's own list for partitions: it knows which are being detached. Old inheritance has none.
        let tree = match kind {
            Kind::Partitioned => format!("SELECT relid::oid AS oid FROM pg_partition_tree({root})"),
            _ => format!(
                "WITH RECURSIVE tree(oid) AS (SELECT {root}::oid UNION \
                 SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid) SELECT oid FROM tree"
            ),
        };
        let sql = format!(
            "SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text, coalesce(am.amname = 'heap', false), \
               has_table_privilege(c.oid, 'select'), c.relrowsecurity, \
               pg_relation_size(c.oid) / current_setting('block_size')::int8, \
               c.reltuples::float8, c.relpages::int8, c.oid = {root}::oid \
             FROM ({tree}) t JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_am am ON am.oid = c.relam WHERE c.relkind <> 'p' ORDER BY c.oid LIMIT {}",
            MOST_HEAPS + 1
        );
        let rows = session.query(&sql, &[]).await?;
        if rows.len() > MOST_HEAPS {
            return Ok(Err(format!("it has more than {MOST_HEAPS} partitions")));
        }
        let alone = rows.len() == 1 && kind != Kind::Partitioned;
        let mut heaps = Vec::with_capacity(rows.len());
        for row in &rows {
            let (name, relkind): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            if relkind == "f" {
                return Ok(Err(format!("{name} is a foreign table")));
            }
            if !row.try_get::<_, bool>(2)? {
                return Ok(Err(format!("{name} has a storage of its own")));
            }
            // Named as the extract names it, the server judges rights and policies as usual. By its own name, a child is
            // judged by its own; then both must say the same.
            if !alone && !row.try_get::<_, bool>(3)? {
                return Ok(Err(format!("{name} may not be read by itself")));
            }
            if !alone && row.try_get::<_, bool>(4)? {
                return Ok(Err(format!("{name} has row security")));
            }
            let pages: i64 = row.try_get(5)?;
            let (tuples, seen): (f64, i64) = (row.try_get(6)?, row.try_get(7)?);
            let pages = u64::try_from(pages).unwrap_or(0);
            // As the planner does it: the density of the last time the table was analyzed, over the pages of now.
            let rows = if tuples >= 0.0 && seen > 0 { tuples / seen as f64 * pages as f64 } else { pages as f64 };
            heaps.push(Heap { relation: (!alone).then_some(name), pages, rows });
        }
        if kind == Kind::Partitioned {
            let sql = format!("SELECT relrowsecurity FROM pg_class WHERE oid = {root}::oid");
            if session.query_one(&sql, &[]).await?.try_get::<_, bool>(0)? {
                return Ok(Err("it has row security".to_owned()));
            }
            if heaps.is_empty() {
                return Ok(Err("it has no partitions".to_owned()));
            }
        }
        Ok(Ok(heaps))
    }

    /// The key that units go by: its kind, and its type and collation in SQL.
    ///
    /// # Errors
    /// A column that is not there.
    pub(in super::super) async fn key(&self, session: &Session, column: &str) -> Result<Key> {
        let failed = |error| self.failed(&error);
        let relation = self.relation_sql();
        let statement = session.prepare(&format!("SELECT * FROM {relation}")).await.map_err(failed)?;
        let names = || statement.columns().iter().map(|known| known.name());
        let Some(at) = names().position(|known| known == column) else {
            return Err(unknown_column(column, &self.label(), names()).context("units"));
        };
        let mut of = statement.columns()[at].type_();
        while let TypeKind::Domain(base) = of.kind() {
            of = base;
        }
        let oid = of.oid();
        let sql = format!(
            "SELECT format_type({oid}, NULL), CASE WHEN (SELECT typcollation FROM pg_type WHERE oid = {oid}) <> 0 \
             THEN pg_collation_for((SELECT {} FROM {relation} LIMIT 0)) END",
            quoted(column)
        );
        let row = session.query_one(&sql, &[]).await.map_err(failed)?;
        let name: String = row.try_get(0).map_err(failed)?;
        let collation: Option<String> = row.try_get(1).map_err(failed)?;
        Ok(Key {
            column: column.to_owned(),
            kind: KeyKind::of(&name),
            name,
            collate: collation.map_or_else(String::new, |collation| format!(" COLLATE {collation}")),
        })
    }

    /// Where the keys are, in their order, and the share of rows without one: from the planner's statistics, else from a
    /// sample of the table's pages, else from the least and the greatest.
    pub(in super::super) async fn distribution(
        &self,
        session: &Session,
        key: &Key,
        facts: &Facts,
    ) -> Result<(Vec<Marker>, f64)> {
        if let Relation::Table(table) = &self.relation {
            // Statistics are of all rows; a condition may leave quite other ones.
            if self.filter.is_none()
                && let Some(found) = self.statistics(session, table, key).await?
            {
                return Ok(found);
            }
            let is_heap = matches!(facts.relation, Kind::Table | Kind::Partitioned | Kind::MaterializedView);
            if let Some(heaps) = facts.heaps.as_ref().ok().filter(|_| is_heap) {
                let pages: u64 = heaps.iter().map(|heap| heap.pages).sum();
                return self.sample(session, key, pages).await;
            }
        }
        self.extremes(session, key).await
    }

    async fn statistics(&self, session: &Session, table: &TableName, key: &Key) -> Result<Option<(Vec<Marker>, f64)>> {
        let failed = |error| self.failed(&error);
        let of = format!(
            "FROM pg_catalog.pg_stats s JOIN pg_catalog.pg_class c ON c.oid = {}::regclass \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = s.schemaname \
             WHERE s.tablename = c.relname AND s.attname = {} \
             AND (s.histogram_bounds IS NOT NULL OR s.most_common_vals IS NOT NULL) ORDER BY s.inherited DESC LIMIT 1",
            literal(&table.sql()),
            literal(&key.column)
        );
        let nulls = session.query_opt(&format!("SELECT s.null_frac::float8 {of}"), &[]).await.map_err(failed)?;
        let Some(nulls) = nulls else { return Ok(None) };
        let sql = format!(
            "WITH s AS (SELECT s.histogram_bounds::text::{name}[] AS bounds, s.most_common_vals::text::{name}[] AS common, \
               s.most_common_freqs AS shares {of}) \
             SELECT known.v::text, share FROM (SELECT unnest(bounds) AS v, NULL::float8 AS share FROM s \
               UNION ALL SELECT unnest(common), unnest(shares)::float8 FROM s) known ORDER BY known.v{collate}, share NULLS FIRST",
            name = key.name,
            collate = key.collate
        );
        let rows = session.query(&sql, &[]).await.map_err(|error| self.unordered(&error, key))?;
        let markers = rows
            .iter()
            .map(|row| Ok(Marker { value: row.try_get(0)?, share: row.try_get(1)? }))
            .collect::<Result<Vec<_>, tokio_postgres::Error>>()
            .map_err(failed)?;
        Ok(Some((markers, nulls.try_get(0).map_err(failed)?)))
    }

    async fn sample(&self, session: &Session, key: &Key, pages: u64) -> Result<(Vec<Marker>, f64)> {
        let percent = (SAMPLED_PAGES as f64 * 100.0 / pages.max(1) as f64).min(100.0);
        let filter = self.filter.as_ref().map_or_else(String::new, |filter| format!(" WHERE (\n{filter}\n)"));
        let column = quoted(&key.column);
        let sql = format!(
            "WITH sampled AS (SELECT {column} AS v FROM {} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1){filter}), \
               bounds AS (SELECT unnest(percentile_disc(ARRAY(SELECT n / 100.0::float8 FROM generate_series(0, 100) n)) \
                 WITHIN GROUP (ORDER BY v{collate})) AS v FROM sampled) \
             SELECT bounds.v::text, (SELECT coalesce(avg((v IS NULL)::int4), 0)::float8 FROM sampled) FROM bounds \
             WHERE bounds.v IS NOT NULL ORDER BY bounds.v{collate}",
            self.relation_sql(),
            collate = key.collate
        );
        let rows = session.query(&sql, &[]).await.map_err(|error| self.unordered(&error, key))?;
        self.markers(&rows)
    }

    async fn extremes(&self, session: &Session, key: &Key) -> Result<(Vec<Marker>, f64)> {
        if key.kind == KeyKind::Other {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{}` cannot be divided by ranges of `{}`", self.label(), key.column),
            )
            .cause(format!(
                "there are no statistics about it, and nothing can be computed between two values of {}",
                key.name
            ))
            .hint(format!("use `units: {{strategy: hash, by: {}}}`, or `strategy: none`", key.column)));
        }
        let column = quoted(&key.column);
        let filter = self.filter.as_ref().map_or_else(String::new, |filter| format!(" AND (\n{filter}\n)"));
        // By order rather than by min and max: UUIDs have neither before PostgreSQL 18.
        let end = |direction: &str| {
            format!(
                "(SELECT {column} AS v FROM {} WHERE {column} IS NOT NULL{filter} ORDER BY 1 {direction} LIMIT 1)",
                self.relation_sql()
            )
        };
        let sql = format!(
            "SELECT ends.v::text, 0::float8 FROM ({} UNION ALL {}) ends ORDER BY ends.v",
            end("ASC"),
            end("DESC")
        );
        let rows = session.query(&sql, &[]).await.map_err(|error| self.unordered(&error, key))?;
        self.markers(&rows)
    }

    fn markers(&self, rows: &[tokio_postgres::Row]) -> Result<(Vec<Marker>, f64)> {
        let mut nulls = 0.0;
        let mut markers = Vec::with_capacity(rows.len());
        for row in rows {
            let value = row.try_get(0).map_err(|error| self.failed(&error))?;
            nulls = row.try_get(1).map_err(|error| self.failed(&error))?;
            markers.push(Marker { value, share: None });
        }
        Ok((markers, nulls))
    }

    fn unordered(&self, error: &tokio_postgres::Error, key: &Key) -> Error {
        if error.code() == Some(&SqlState::UNDEFINED_FUNCTION) {
            return Error::new(ErrorKind::Config, format!("values of `{}` ({}) have no order", key.column, key.name))
                .hint("go by another column, or use `strategy: hash`");
        }
        self.failed(error)
    }

    /// The cuts as the server orders them, each once.
    pub(in super::super) async fn sorted(&self, session: &Session, key: &Key, cuts: Vec<Cut>) -> Result<Vec<Cut>> {
        if cuts.is_empty() {
            return Ok(cuts);
        }
        let list = |of: &dyn Fn(&Cut) -> String| cuts.iter().map(of).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT cuts.v::text, after, sum(share)::float8 FROM unnest(ARRAY[{}]::{}[], ARRAY[{}]::bool[], ARRAY[{}]::float8[]) \
             AS cuts(v, after, share) GROUP BY cuts.v, after ORDER BY cuts.v{collate}, after",
            list(&|cut| literal(&cut.edge.value)),
            key.name,
            list(&|cut| cut.edge.after.to_string()),
            list(&|cut| format!("{:e}", cut.rows)),
            collate = key.collate
        );
        let rows = session.query(&sql, &[]).await.map_err(|error| self.unordered(&error, key))?;
        rows.iter()
            .map(|row| {
                let edge = Edge { value: row.try_get(0)?, after: row.try_get(1)? };
                Ok(Cut { edge, rows: row.try_get(2)? })
            })
            .collect::<Result<Vec<_>, tokio_postgres::Error>>()
            .map_err(|error| self.failed(&error))
    }
}

/// A column that units go by.
#[derive(Debug, Clone)]
pub(in super::super) struct Key {
    pub(in super::super) column: String,
    pub(in super::super) kind: KeyKind,
    /// Its type in SQL, that of a domain's values.
    pub(in super::super) name: String,
    /// ` COLLATE …`, or nothing.
    collate: String,
}
