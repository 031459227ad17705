//! Reading a table or a query: one unit, one binary COPY, in one read-only transaction.

use super::config::PostgresConfig;
use super::connect::{Session, server_error, unknown_table};
use super::copy::Frames;
use super::decode::{Decoder, Refused};
use super::names::{TableName, quoted};
use super::types::Column;
use crate::{Consistency, ReadPlan, ReadRequest, Reject, RejectSink, Rows, Scan, Source, SourceStats};
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::try_unfold;
use gristmill_model::spec::{ExtractSpec, OnFail, SchemaContract};
use gristmill_model::{Checkpoint, Error, ErrorKind, Result, ResultExt, WorkUnit, one_of};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio_postgres::CopyOutStream;
use tokio_postgres::error::SqlState;

/// A table or a query of a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresSource {
    config: Arc<PostgresConfig>,
    relation: Relation,
    filter: Option<String>,
    /// Only these, in this order; all when empty.
    columns: Vec<String>,
    /// Types that `schema:` gives to columns.
    types: BTreeMap<String, String>,
    /// What the server said, asked once.
    known: OnceCell<(SchemaRef, SourceStats)>,
}

/// What is read.
#[derive(Debug, Clone)]
enum Relation {
    Table(TableName),
    Query(String),
}

/// What a unit's payload says. Ranges of a table (`ctid`) under a shared snapshot will be further kinds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "read")]
enum Share {
    /// All of it.
    Whole,
}

impl PostgresSource {
    /// Checks an extract step without calling the server.
    ///
    /// # Errors
    /// Neither table nor query, or both; options that are for files.
    pub(crate) fn new(config: Arc<PostgresConfig>, extract: &ExtractSpec) -> Result<Self> {
        let wrong = |message: &str, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint));
        for (given, key) in [
            (extract.path.is_some(), "path"),
            (extract.format.is_some(), "format"),
            (extract.compression.is_some(), "compression"),
            (extract.csv.is_some(), "csv"),
            (extract.json.is_some(), "json"),
            (extract.schema_contract != SchemaContract::Evolve, "schema_contract"),
        ] {
            if given {
                let message = format!("`{key}` is for files; `{}` is a PostgreSQL database", extract.from);
                return wrong(&message, "name a `table` or write a `query`");
            }
        }
        let relation = match (&extract.table, &extract.query) {
            (Some(table), None) => Relation::Table(TableName::parse(table)?.or_schema(config.schema.as_deref())),
            (None, Some(query)) => Relation::Query(query.trim().trim_end_matches(';').trim_end().to_owned()),
            (Some(_), Some(_)) => return wrong("an extract has either a `table` or a `query`", "remove one of them"),
            (None, None) => return wrong("what to extract is missing", "name a `table` or write a `query`"),
        };
        if extract.filter.is_some() && matches!(relation, Relation::Query(_)) {
            return wrong("`where` goes with `table`", "write the condition into the `query`");
        }
        if let Some(twice) = duplicate(extract.columns.iter().map(String::as_str)) {
            return wrong(&format!("the column `{twice}` is listed twice"), "list it once");
        }
        Ok(Self {
            config,
            relation,
            filter: extract.filter.clone(),
            columns: extract.columns.clone(),
            types: extract.schema.clone(),
            known: OnceCell::new(),
        })
    }

    fn label(&self) -> String {
        match &self.relation {
            Relation::Table(table) => table.to_string(),
            Relation::Query(_) => "query".to_owned(),
        }
    }

    /// `FROM … WHERE …`. What the user wrote stands on lines of its own, so that a comment in it ends there.
    fn relation_sql(&self) -> String {
        match (&self.relation, &self.filter) {
            (Relation::Table(table), None) => format!("FROM {}", table.sql()),
            (Relation::Table(table), Some(filter)) => format!("FROM {} WHERE (\n{filter}\n)", table.sql()),
            (Relation::Query(query), _) => format!("FROM (\n{query}\n) AS _gristmill"),
        }
    }

    /// Asks the server for the columns, as they are chosen and cast.
    async fn describe(&self, session: &Session) -> Result<Vec<Column>> {
        let statement = match session.prepare(&format!("SELECT * {}", self.relation_sql())).await {
            Ok(statement) => statement,
            Err(error) => return Err(self.cannot_read(session, &error).await),
        };
        let all = statement.columns();
        let names = || all.iter().map(|column| column.name());
        if let Some(twice) = duplicate(names()) {
            return Err(Error::new(ErrorKind::Schema, format!("two columns of the query are called `{twice}`"))
                .hint("name one of them otherwise, with `as`"));
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

    /// The error for a table or query that the server refuses.
    async fn cannot_read(&self, session: &Session, error: &tokio_postgres::Error) -> Error {
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
                let wrong = wrong.rsplit('.').next().unwrap_or(wrong);
                return Error::new(ErrorKind::Schema, format!("the condition on `{table}` names an unknown column"))
                    .cause(&words)
                    .hint(one_of(wrong, columns.iter().map(String::as_str)));
            }
        }
        server_error(error, &self.config, &format!("cannot read `{}`", self.label()))
    }

    /// Columns, and the planner's guess of rows and bytes: right for whole tables, the best there is for conditions and
    /// queries. Explaining also asks for the right to read, which describing does not.
    async fn ask(&self) -> Result<(SchemaRef, SourceStats)> {
        let session = Session::open(&self.config).await?;
        let columns = self.describe(&session).await?;
        let sql = format!("EXPLAIN (FORMAT JSON) {}", self.select(&columns));
        let rows = match session.query(&sql, &[]).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.cannot_read(&session, &error).await),
        };
        let plan: Option<serde_json::Value> = rows.first().and_then(|row| {
            let text = row.try_get::<_, RawText>(0).ok()?;
            serde_json::from_str(&text.0).ok()
        });
        session.close().await;
        let number = |key: &str| plan.as_ref()?.pointer(&format!("/0/Plan/{key}"))?.as_u64();
        let rows = number("Plan Rows");
        let bytes = rows.zip(number("Plan Width")).map(|(rows, width)| rows.saturating_mul(width));
        Ok((schema_of(&columns), SourceStats { rows, bytes }))
    }

    async fn known(&self) -> Result<&(SchemaRef, SourceStats)> {
        self.known.get_or_try_init(|| self.ask()).await
    }

    /// The columns of `wanted`, as the server has them now.
    async fn chosen(&self, session: &Session, wanted: &Schema) -> Result<Vec<Column>> {
        let mut known = self.describe(session).await?;
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
                Err(Error::new(
                    ErrorKind::Schema,
                    format!(
                        "the column `{}` of `{}` is {} now, it was {} when the run began",
                        field.name(),
                        self.label(),
                        column.kind.arrow(),
                        field.data_type()
                    ),
                )
                .hint("run again"))
            })
            .collect()
    }

    fn select(&self, columns: &[Column]) -> String {
        let list: Vec<String> = columns
            .iter()
            .map(|Column { name, cast, .. }| match cast {
                Some(cast) => format!("CAST({} AS {cast})", quoted(name)),
                None => quoted(name),
            })
            .collect();
        format!("SELECT {} {}", list.join(", "), self.relation_sql())
    }

    /// Opens a session, pins one picture of the database, and starts the COPY.
    async fn start(&self, scan: &Scan) -> Result<Reading> {
        let session = Session::open(&self.config).await?;
        let failed = |error: &tokio_postgres::Error| server_error(error, &self.config, "cannot begin to read");
        session
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(|error| failed(&error))?;
        let columns = self.chosen(&session, &scan.schema).await?;
        let stream =
            match session.copy_out(&format!("COPY ({}) TO STDOUT (FORMAT binary)", self.select(&columns))).await {
                Ok(stream) => Box::pin(stream),
                Err(error) => return Err(self.cannot_read(&session, &error).await),
            };
        Ok(Reading {
            frames: Frames::new(columns.len()),
            decoder: Decoder::new(&columns, scan.schema.clone(), scan.batch_size),
            label: self.label(),
            config: self.config.clone(),
            on_bad_row: scan.on_bad_row,
            rejects: scan.rejects.clone(),
            stream,
            session,
            ended: false,
            seen: 0,
        })
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn schema(&self) -> Result<SchemaRef> {
        Ok(self.known().await?.0.clone())
    }

    async fn plan(&self, _: Option<&Checkpoint>, want: &ReadRequest) -> Result<ReadPlan> {
        let schema = self.schema().await?;
        let columns: Vec<&str> = match &want.columns {
            Some(wanted) => {
                let names = || schema.fields().iter().map(|field| field.name().as_str());
                if let Some(unknown) = wanted.iter().find(|name| !names().any(|known| known == *name)) {
                    return Err(unknown_column(unknown, &self.label(), names()));
                }
                wanted.iter().map(String::as_str).collect()
            }
            None => schema.fields().iter().map(|field| field.name().as_str()).collect(),
        };
        let stats = self.stats().await;
        let payload = serde_json::to_value(Share::Whole)
            .map_err(|error| Error::internal("a work unit cannot be written").cause(error))?;
        let mut pushed_down = vec![format!("columns: {}", columns.join(", "))];
        pushed_down.extend(self.filter.as_ref().map(|filter| format!("filter: {filter}")));
        let unit = WorkUnit { ordinal: 0, label: self.label(), payload, rows: stats.rows, bytes: stats.bytes };
        Ok(ReadPlan {
            units: vec![unit],
            consistency: Consistency::SingleRead,
            why: "one binary COPY in one read-only transaction".to_owned(),
            pushed_down,
            next: None,
        })
    }

    fn read(&self, unit: &WorkUnit, scan: &Scan) -> Rows {
        if let Err(error) = serde_json::from_value::<Share>(unit.payload.clone()) {
            let error = Error::internal(format!("the work unit `{}` is not one of ours", unit.label)).cause(error);
            return Rows::failed(scan.schema.clone(), error);
        }
        // The stream outlives `self`, so it gets a source of its own; nothing of it is asked again.
        let source = Self {
            config: self.config.clone(),
            relation: self.relation.clone(),
            filter: self.filter.clone(),
            columns: self.columns.clone(),
            types: self.types.clone(),
            known: OnceCell::new(),
        };
        let begin = State::Begin(Box::new(source), scan.clone());
        Rows::new(scan.schema.clone(), try_unfold(begin, State::next))
    }

    async fn stats(&self) -> SourceStats {
        self.known().await.map(|known| known.1).unwrap_or_default()
    }
}

/// Where a reader stands.
enum State {
    Begin(Box<PostgresSource>, Scan),
    Reading(Box<Reading>),
}

impl State {
    async fn next(self) -> Result<Option<(RecordBatch, Self)>> {
        let mut reading = match self {
            Self::Begin(source, scan) => Box::new(source.start(&scan).await?),
            Self::Reading(reading) => reading,
        };
        match reading.next().await? {
            Some(batch) => Ok(Some((batch, Self::Reading(reading)))),
            None => {
                reading.session.close().await;
                Ok(None)
            }
        }
    }
}

/// A COPY that is going on.
struct Reading {
    frames: Frames,
    decoder: Decoder,
    label: String,
    config: Arc<PostgresConfig>,
    on_bad_row: OnFail,
    rejects: Option<RejectSink>,
    stream: Pin<Box<CopyOutStream>>,
    session: Session,
    ended: bool,
    seen: u64,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let label = self.label.clone();
        loop {
            while !self.decoder.is_full() {
                if let Some((bytes, spans)) = self.frames.next_row().context(|| format!("reading `{label}`"))? {
                    self.decoder.push(bytes, spans);
                    self.seen += 1;
                } else if self.ended {
                    break;
                } else {
                    match self.stream.next().await {
                        Some(Ok(chunk)) => self.frames.push(chunk),
                        Some(Err(error)) => {
                            return Err(server_error(&error, &self.config, &format!("reading `{label}` failed")));
                        }
                        None => {
                            self.frames.finish().context(|| format!("reading `{label}`"))?;
                            self.ended = true;
                        }
                    }
                }
            }
            if self.decoder.is_empty() {
                return Ok(None);
            }
            let (batch, refused) = self.decoder.finish()?;
            for refused in refused {
                self.refuse(refused)?;
            }
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
    }

    fn refuse(&self, Refused { record, why }: Refused) -> Result<()> {
        if self.on_bad_row == OnFail::Fail {
            return Err(Error::new(ErrorKind::Data, format!("a row of `{}` cannot be read: {why}", self.label))
                .hint("read the column as text (`schema: {column: text}`), leave such rows out with `where`, or set `on_bad_row`"));
        }
        if let Some(rejects) = &self.rejects {
            rejects.send(Reject { record, error: why, place: self.label.clone() });
        }
        Ok(())
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

fn schema_of(columns: &[Column]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect();
    Arc::new(Schema::new(fields))
}

fn unknown_column<'a>(name: &str, of: &str, known: impl Iterator<Item = &'a str>) -> Error {
    Error::new(ErrorKind::Schema, format!("`{of}` has no column `{name}`")).hint(one_of(name, known))
}

fn duplicate<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

async fn columns_of(session: &Session, table: &TableName) -> Option<Vec<String>> {
    let statement = session.prepare(&format!("SELECT * FROM {}", table.sql())).await.ok()?;
    Some(statement.columns().iter().map(|column| column.name().to_owned()).collect())
}
