mod comments;
mod faults;
mod strategies;
mod types;
mod widening;

use super::*;
use crate::conformance::{SinkTarget, scope_suite, sink_suite, sorted_rows};
use crate::{Connection, OpenContext, Scan};
use arrow::array::*;
use arrow::datatypes::*;
use chrono::NaiveDate;
use gristmill_model::spec::{ExtractSpec, OnFail};
use gristmill_model::yaml::{decode, parse};
use gristmill_model::{Interval, RunId};
use gristmill_testkit::mariadb::{self, MariadbServer, TestDatabase};
use std::sync::OnceLock;

struct Table {
    database: TestDatabase,
    folders: tempfile::TempDir,
}

/// A server that takes no LOAD DATA LOCAL, as MySQL 8 does by default.
fn by_inserts() -> TestDatabase {
    static SERVER: OnceLock<MariadbServer> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let server = MariadbServer::start().unwrap();
        server.database().sql("set global local_infile = 0; set global max_allowed_packet = 1048576");
        server
    });
    server.database()
}

fn folders() -> OpenContext {
    OpenContext { project: ".".into(), state: ".gristmill".into() }
}

fn connect(url: &str) -> Arc<dyn Connection> {
    let node = parse("gristmill.yaml", &format!("{{type: mariadb, url: \"{url}\"}}")).unwrap();
    crate::registry::open(&node, &folders()).unwrap()
}

fn key(generation: u32) -> LoadKey {
    let interval = Interval::day(NaiveDate::from_ymd_opt(2024, 1, 15).unwrap());
    let slot = Slot { pipeline: "p".into(), step: "load".into(), interval, target: "db:target".to_owned() };
    LoadKey { slot, generation }
}

fn open_at(url: &str, yaml: &str, schema: &SchemaRef, generation: u32) -> Result<Arc<dyn Sink>> {
    let load: LoadSpec = decode(&parse("p.yaml", &format!("from: rows\nto: db\n{yaml}\n")).unwrap()).unwrap();
    let context = LoadContext {
        key: key(generation),
        owner: OwnerId(RunId::new("run-a")),
        schema: schema.clone(),
        source_key: Vec::new(),
        alone: false,
        open: folders(),
        ledger_retention: None,
    };
    connect(url).sink(&load, context)
}

fn open(database: &TestDatabase, yaml: &str, schema: &SchemaRef, generation: u32) -> Result<Arc<dyn Sink>> {
    open_at(&database.url(), yaml, schema, generation)
}

fn task(generation: u32, partition: u32, attempt: u32) -> TaskKey {
    TaskKey { load: key(generation), owner: OwnerId(RunId::new("run-a")), partition, attempt }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn one(name: &str, array: ArrayRef) -> RecordBatch {
    batch(vec![(name, array)])
}

fn ids(ids: &[i64]) -> RecordBatch {
    one("id", Arc::new(Int64Array::from(ids.to_vec())))
}

/// prepare, stage, commit.
async fn load(database: &TestDatabase, yaml: &str, rows: &RecordBatch, generation: u32) -> Result<Committed> {
    let sink = open(database, yaml, &rows.schema(), generation)?;
    sink.prepare().await?;
    let staged = sink.stage(&task(generation, 0, 1), Rows::from_batches(rows.schema(), vec![rows.clone()])).await?;
    sink.commit(&[staged], &Checkpoint::default()).await
}

async fn read(database: &TestDatabase, yaml: &str) -> Vec<RecordBatch> {
    let extract: ExtractSpec = decode(&parse("p.yaml", &format!("from: db\n{yaml}\n")).unwrap()).unwrap();
    let source = connect(&database.url()).source(&extract).unwrap();
    let schema = source.schema().await.unwrap();
    let scan = Scan { schema, batch_size: 8192, on_bad_row: OnFail::Fail, rejects: None };
    let plan = source.plan(&crate::ReadRequest::default()).await.unwrap();
    source.read(&plan.units[0], &scan).collect().await.unwrap()
}

fn staging_tables(database: &TestDatabase) -> String {
    database.sql(
        "select table_name from information_schema.tables where table_schema = database() \
         and left(table_name, 17) = '_gristmill_stage_'",
    )
}

fn has_table(database: &TestDatabase, name: &str) -> bool {
    let sql = "select count(*) from information_schema.tables where table_schema = database() and table_name";
    database.sql(&format!("{sql} = '{name}'")) == "1"
}

#[async_trait]
impl SinkTarget for Table {
    fn folders(&self) -> OpenContext {
        OpenContext { project: self.folders.path().into(), state: self.folders.path().join(".gristmill") }
    }

    fn strategies(&self) -> Vec<Strategy> {
        Strategy::ALL.to_vec()
    }

    fn sink(&self, mut load: LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
        load.table = Some("target".to_owned());
        connect(&self.database.url()).sink(&load, context)
    }

    async fn rows(&self) -> Result<Vec<RecordBatch>> {
        if !has_table(&self.database, "target") {
            return Ok(Vec::new());
        }
        Ok(read(&self.database, "table: target").await)
    }

    async fn leftovers(&self) -> Result<Vec<String>> {
        Ok(staging_tables(&self.database).lines().map(str::to_owned).collect())
    }
}

#[tokio::test]
async fn a_table_is_a_target_as_the_contract_says() {
    let fresh = async || Ok(Table { database: mariadb::database(), folders: tempfile::tempdir().unwrap() });
    sink_suite::<Table, _>(fresh).await.unwrap();
}

#[tokio::test]
async fn rows_outside_of_the_scope_are_refused_where_they_would_double() {
    let fresh = async || Ok(Table { database: mariadb::database(), folders: tempfile::tempdir().unwrap() });
    scope_suite::<Table, _>(fresh).await.unwrap();
}

#[tokio::test]
async fn a_table_is_a_target_without_load_data() {
    let fresh = async || Ok(Table { database: by_inserts(), folders: tempfile::tempdir().unwrap() });
    sink_suite::<Table, _>(fresh).await.unwrap();
}
