mod comments;
mod strategies;
mod ways;
mod widening;

use super::*;
use crate::conformance::{SinkTarget, scope_suite, sink_suite, sorted_rows};
use crate::sinks::testing::losing_proxy;
use crate::{Connection, OpenContext, Scan};
use arrow::array::*;
use arrow::datatypes::*;
use arrow::util::display::array_value_to_string;
use chrono::NaiveDate;
use gristmill_model::spec::{ExtractSpec, OnFail, Strategy};
use gristmill_model::yaml::{decode, parse};
use gristmill_model::{Interval, RunId, Slot};
use gristmill_testkit::postgres::{self, TestDatabase};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

struct Table {
    database: TestDatabase,
    folders: tempfile::TempDir,
}

fn folders() -> OpenContext {
    OpenContext { project: ".".into(), state: ".gristmill".into() }
}

fn connect(url: &str) -> Arc<dyn Connection> {
    let node = parse("gristmill.yaml", &format!("{{type: postgres, url: \"{url}\"}}")).unwrap();
    crate::registry::open(&node, &folders()).unwrap()
}

fn key(generation: u32) -> LoadKey {
    let interval = Interval::day(NaiveDate::from_ymd_opt(2024, 1, 15).unwrap());
    let slot = Slot { pipeline: "p".into(), step: "load".into(), interval, target: "db:target".to_owned() };
    LoadKey { slot, generation }
}

fn context(schema: &SchemaRef, generation: u32) -> LoadContext {
    LoadContext {
        key: key(generation),
        owner: OwnerId(RunId::new("run-a")),
        schema: schema.clone(),
        source_key: Vec::new(),
        alone: false,
        open: folders(),
        ledger_retention: None,
    }
}

/// What a load says, understood.
pub(super) fn rules(yaml: &str) -> super::super::rules::Rules {
    let yaml = format!("from: rows\nto: db\ntable: target\n{yaml}\n");
    let load: LoadSpec = decode(&parse("p.yaml", &yaml).unwrap()).unwrap();
    super::super::rules::Rules::new(&load, &context(&ids(&[]).schema(), 1), |a, b| a == b).unwrap()
}

fn open_at(url: &str, yaml: &str, schema: &SchemaRef, generation: u32) -> Result<Arc<dyn Sink>> {
    let load: LoadSpec = decode(&parse("p.yaml", &format!("from: rows\nto: db\n{yaml}\n")).unwrap()).unwrap();
    connect(url).sink(&load, context(schema, generation))
}

fn open(database: &TestDatabase, yaml: &str, schema: &SchemaRef, generation: u32) -> Result<Arc<dyn Sink>> {
    open_at(&database.local_url(), yaml, schema, generation)
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

/// A session of somebody else.
async fn client(database: &TestDatabase) -> tokio_postgres::Client {
    let config = database.url().parse::<tokio_postgres::Config>().unwrap();
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn read(database: &TestDatabase, yaml: &str) -> Vec<RecordBatch> {
    let extract: ExtractSpec = decode(&parse("p.yaml", &format!("from: db\n{yaml}\n")).unwrap()).unwrap();
    let source = connect(&database.local_url()).source(&extract).unwrap();
    let schema = source.schema().await.unwrap();
    let scan = Scan { schema, batch_size: 8192, on_bad_row: OnFail::Fail, rejects: None };
    let plan = source.plan(&crate::ReadRequest::default()).await.unwrap();
    source.read(&plan.units[0], &scan).collect().await.unwrap()
}

fn staging_tables(database: &TestDatabase) -> String {
    database.sql("select relname from pg_class where relkind = 'r' and relname like '\\_gristmill\\_stage%'")
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
        connect(&self.database.local_url()).sink(&load, context)
    }

    async fn rows(&self) -> Result<Vec<RecordBatch>> {
        if self.database.sql("select to_regclass('target') is null") == "t" {
            return Ok(Vec::new());
        }
        Ok(read(&self.database, "table: target").await)
    }

    async fn leftovers(&self) -> Result<Vec<String>> {
        Ok(staging_tables(&self.database).lines().map(str::to_owned).collect())
    }
}

#[tokio::test]
async fn a_postgres_table_is_a_target_as_the_contract_says() {
    let fresh = async || Ok(Table { database: postgres::database(), folders: tempfile::tempdir().unwrap() });
    sink_suite::<Table, _>(fresh).await.unwrap();
}

#[tokio::test]
async fn rows_outside_of_the_scope_are_refused_where_they_would_double() {
    let fresh = async || Ok(Table { database: postgres::database(), folders: tempfile::tempdir().unwrap() });
    scope_suite::<Table, _>(fresh).await.unwrap();
}

/// An array of every kind that has a PostgreSQL type, and what the server calls and shows it.
fn arrays() -> Vec<(ArrayRef, &'static str, &'static str)> {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
    let texts: DictionaryArray<Int32Type> = ["a"].into_iter().collect();
    let fields = Fields::from(vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Utf8, true)]);
    let record = StructArray::new(
        fields,
        vec![Arc::new(Int64Array::from(vec![Some(1)])), Arc::new(StringArray::from(vec![None::<&str>]))],
        None,
    );
    let nested = ListArray::new(
        Arc::new(Field::new_list_field(record.data_type().clone(), true)),
        arrow::buffer::OffsetBuffer::from_lengths([1]),
        Arc::new(record.clone()),
        None,
    );
    let wide = i256::from_string("123456789012345678901234567890123456789012345678901234567890").unwrap();
    let unsigned = ListArray::from_iter_primitive::<UInt8Type, _, _>([Some(vec![Some(200)])]);
    vec![
        (Arc::new(BooleanArray::from(vec![true])), "boolean", "t"),
        (Arc::new(Int8Array::from(vec![-128])), "smallint", "-128"),
        (Arc::new(Int16Array::from(vec![1])), "smallint", "1"),
        (Arc::new(UInt8Array::from(vec![255])), "smallint", "255"),
        (Arc::new(UInt16Array::from(vec![65535])), "integer", "65535"),
        (Arc::new(UInt32Array::from(vec![u32::MAX])), "bigint", "4294967295"),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), "numeric(20,0)", "18446744073709551615"),
        (Arc::new(Float32Array::from(vec![1.5])), "real", "1.5"),
        (Arc::new(Float64Array::from(vec![f64::NAN])), "double precision", "NaN"),
        (
            Arc::new(Decimal128Array::from(vec![-12345]).with_precision_and_scale(10, 2).unwrap()),
            "numeric(10,2)",
            "-123.45",
        ),
        (
            Arc::new(Decimal64Array::from(vec![1]).with_precision_and_scale(9, 9).unwrap()),
            "numeric(9,9)",
            "0.000000001",
        ),
        (Arc::new(Decimal128Array::from(vec![12]).with_precision_and_scale(5, -2).unwrap()), "numeric(7,0)", "1200"),
        (
            Arc::new(Decimal256Array::from(vec![wide]).with_precision_and_scale(76, 5).unwrap()),
            "numeric(76,5)",
            "1234567890123456789012345678901234567890123456789012345.67890",
        ),
        (Arc::new(StringArray::from(vec!["it's \\ \"日本\""])), "text", "it's \\ \"日本\""),
        (Arc::new(LargeStringArray::from(vec!["x"])), "text", "x"),
        (
            Arc::new(StringViewArray::from(vec!["a view longer than twelve bytes"])),
            "text",
            "a view longer than twelve bytes",
        ),
        (Arc::new(texts), "text", "a"),
        (Arc::new(NullArray::new(1)), "text", ""),
        (Arc::new(BinaryArray::from(vec![b"\x00\xff".as_slice()])), "bytea", "\\x00ff"),
        (Arc::new(BinaryViewArray::from(vec![b"\x01".as_slice()])), "bytea", "\\x01"),
        (Arc::new(FixedSizeBinaryArray::try_from_iter([[7u8; 2]].into_iter()).unwrap()), "bytea", "\\x0707"),
        (Arc::new(Date32Array::from(vec![19737])), "date", "2024-01-15"),
        (Arc::new(Date64Array::from(vec![19737 * 86_400_000])), "date", "2024-01-15"),
        (Arc::new(Time32SecondArray::from(vec![3661])), "time without time zone", "01:01:01"),
        (Arc::new(Time64NanosecondArray::from(vec![1_000_001_000])), "time without time zone", "00:00:01.000001"),
        (Arc::new(TimestampSecondArray::from(vec![0])), "timestamp without time zone", "1970-01-01 00:00:00"),
        (
            Arc::new(TimestampNanosecondArray::from(vec![1_000_001_000])),
            "timestamp without time zone",
            "1970-01-01 00:00:01.000001",
        ),
        (
            Arc::new(TimestampMillisecondArray::from(vec![1]).with_timezone("+02:00")),
            "timestamp with time zone",
            "1970-01-01 00:00:00.001+00",
        ),
        (Arc::new(DurationSecondArray::from(vec![90])), "interval", "00:01:30"),
        (Arc::new(list), "integer[]", "{1,NULL}"),
        (Arc::new(unsigned), "smallint[]", "{200}"),
        (Arc::new(record), "jsonb", "{\"x\": 1, \"y\": null}"),
        (Arc::new(nested), "jsonb", "[{\"x\": 1, \"y\": null}]"),
    ]
}

#[tokio::test]
async fn every_arrow_type_becomes_what_the_table_of_types_says() {
    let database = postgres::database();
    let arrays = arrays();
    let names: Vec<String> = (0..arrays.len()).map(|n| format!("c{n}")).collect();
    let rows = batch(names.iter().map(String::as_str).zip(arrays.iter().map(|(array, ..)| array.clone())).collect());
    load(&database, "table: zoo\nstrategy: append", &rows, 1).await.unwrap();
    for (n, (array, declared, shown)) in arrays.iter().enumerate() {
        let of = database.sql(&format!("select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'zoo'::regclass and attname = 'c{n}'"));
        assert_eq!(of, *declared, "{}", array.data_type());
        let value = database.sql(&format!("set timezone = 'UTC'; select c{n} from zoo"));
        assert_eq!(value, *shown, "{}", array.data_type());
    }
    // A second load finds a table that it fits.
    load(&database, "table: zoo\nstrategy: replace", &rows, 2).await.unwrap();
    assert_eq!(database.sql("select count(*) from zoo"), "1");
}

type Case = (
    Option<i64>,
    Option<String>,
    Option<i128>,
    Option<i64>,
    Option<i32>,
    Option<f64>,
    Option<Vec<u8>>,
    Option<Vec<Option<i32>>>,
);

fn cases() -> impl proptest::strategy::Strategy<Value = Vec<Case>> {
    let text = "[^\\x00]{0,20}";
    let case = (
        prop::option::of(any::<i64>()),
        prop::option::of(text),
        prop::option::of(-(10i128.pow(20))..10i128.pow(20)),
        // Years 1 to 9999, in microseconds.
        prop::option::of(-62_135_596_800_000_000i64..253_402_300_799_999_999),
        prop::option::of(-700_000i32..2_900_000),
        prop::option::of(any::<f64>()),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..30)),
        prop::option::of(prop::collection::vec(prop::option::of(any::<i32>()), 0..5)),
    );
    prop::collection::vec(case, 0..50)
}

#[test]
fn random_rows_come_back_as_they_went() {
    let database = postgres::database();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let generation = std::cell::Cell::new(0);
    proptest!(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() }, |(cases in cases())| {
        generation.set(generation.get() + 1);
        let rows = batch(vec![
            ("i", Arc::new(cases.iter().map(|case| case.0).collect::<Int64Array>()) as ArrayRef),
            ("t", Arc::new(cases.iter().map(|case| case.1.clone()).collect::<StringArray>())),
            ("d", Arc::new(cases.iter().map(|case| case.2).collect::<Decimal128Array>().with_precision_and_scale(21, 7).unwrap())),
            ("ts", Arc::new(cases.iter().map(|case| case.3).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
            ("day", Arc::new(cases.iter().map(|case| case.4).collect::<Date32Array>())),
            ("f", Arc::new(cases.iter().map(|case| case.5).collect::<Float64Array>())),
            ("b", Arc::new(cases.iter().map(|case| case.6.as_deref()).collect::<BinaryArray>())),
            ("l", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(cases.iter().map(|case| case.7.clone())))),
        ]);
        let back = runtime.block_on(async {
            load(&database, "table: t\nstrategy: replace", &rows, generation.get()).await.unwrap();
            read(&database, "table: t").await
        });
        prop_assert_eq!(sorted_rows(&back).unwrap(), sorted_rows(std::slice::from_ref(&rows)).unwrap());
        if let Some(back) = back.first() {
            prop_assert_eq!(back.schema(), rows.schema());
        }
    });
}

#[tokio::test]
async fn what_hangs_on_a_table_survives_a_replace() {
    let database = postgres::database();
    database.sql(
        "create table target(id bigint primary key, note text default 'none', made timestamptz default now());
         create table child(target_id bigint references target(id));
         create view seen as select id from target; create role viewer_role; grant select on target to viewer_role;
         create index by_note on target(note);
         insert into target values (1, 'old'), (2, 'old'); insert into child values (1)",
    );
    load(&database, "table: target\nstrategy: replace", &ids(&[1, 3]), 1).await.unwrap();
    assert_eq!(database.sql("select id || note from target order by 1"), "1none\n3none");
    assert_eq!(database.sql("select count(*) from seen"), "2");
    assert_eq!(database.sql("select has_table_privilege('viewer_role', 'target', 'select')"), "t");
    load(&database, "table: target\nstrategy: delete+insert\nkey: [id]", &ids(&[1, 4]), 2).await.unwrap();
    assert_eq!(database.sql("select id from target order by 1"), "1\n3\n4");
    // A row that the child points at may not go.
    let error = load(&database, "table: target\nstrategy: replace", &ids(&[9]), 3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    assert_eq!(database.sql("select id from target order by 1"), "1\n3\n4");
    // Nor may a load take the child's rows along.
    database.sql("alter table child drop constraint child_target_id_fkey; alter table child add foreign key (target_id) references target(id) on delete cascade");
    let error = load(&database, "table: target\nstrategy: replace", &ids(&[9]), 4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(database.sql("select count(*) from child"), "1");
    database.sql("drop owned by viewer_role; drop role viewer_role");
}

#[tokio::test]
async fn a_reader_with_an_old_picture_sees_the_old_rows_whole() {
    let database = postgres::database();
    load(&database, "table: target\nstrategy: replace", &ids(&[1, 2, 3]), 1).await.unwrap();
    // A table that has a key is never swapped; `ways.rs` has the others.
    database.sql("alter table target add primary key (id)");
    let reader = client(&database).await;
    reader.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    load(&database, "table: target\nstrategy: replace", &ids(&[4]), 2).await.unwrap();
    let rows = reader.query("select id from target", &[]).await.unwrap();
    assert_eq!(rows.len(), 3);
}

#[tokio::test]
async fn null_keys_are_keys_and_partitions_are_values() {
    let database = postgres::database();
    let rows = |ids: Vec<Option<i32>>, days: Vec<Option<&str>>, notes: Vec<&str>| {
        batch(vec![
            ("id", Arc::new(Int32Array::from(ids)) as ArrayRef),
            ("day", Arc::new(StringArray::from(days))),
            ("note", Arc::new(StringArray::from(notes))),
        ])
    };
    let yaml = "table: t\nstrategy: delete+insert\nkey: [id, day]";
    load(
        &database,
        yaml,
        &rows(vec![Some(1), None, None, Some(2)], vec![Some("a"), Some("a"), None, None], vec!["old"; 4]),
        1,
    )
    .await
    .unwrap();
    load(&database, yaml, &rows(vec![None, Some(2), Some(1)], vec![Some("a"), None, Some("b")], vec!["new"; 3]), 2)
        .await
        .unwrap();
    let all = "select concat_ws(',', coalesce(id::text, '-'), coalesce(day, '-'), note) from t order by id, day, note";
    assert_eq!(database.sql(all), "1,a,old\n1,b,new\n2,-,new\n-,a,new\n-,-,old");
    let yaml = "table: t\nstrategy: partition_overwrite\npartition_by: [day]";
    load(&database, yaml, &rows(vec![Some(9)], vec![None], vec!["part"]), 3).await.unwrap();
    assert_eq!(database.sql(all), "1,a,old\n1,b,new\n9,-,part\n-,a,new");
}

#[tokio::test]
async fn new_columns_are_added_and_types_that_lose_are_refused() {
    let database = postgres::database();
    database.sql(
        "create table t(id integer, amount numeric(10,2), ref uuid, small varchar(3), must int not null default 1)",
    );
    let decimal = |value: i128, scale: i8| {
        Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(12, scale).unwrap()) as ArrayRef
    };
    let rows = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![7])) as ArrayRef),
        ("amount", decimal(15, 1)),
        ("ref", Arc::new(StringArray::from(vec!["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]))),
        ("Extra Column", Arc::new(TimestampMicrosecondArray::from(vec![0]))),
    ]);
    load(&database, "table: t\nstrategy: append", &rows, 1).await.unwrap();
    assert_eq!(
        database.sql("select id, amount, ref, must, \"Extra Column\" from t"),
        "7|1.50|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|1|1970-01-01 00:00:00"
    );

    let refuse = async |rows: RecordBatch| load(&database, "table: t\nstrategy: append", &rows, 2).await.unwrap_err();
    let error = refuse(one("amount", Arc::new(Float64Array::from(vec![7.0])))).await;
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert_eq!(error.message(), "the column `amount` is Float64 in the rows, and `numeric(10,2)` in `public.t`");
    let error = refuse(one("id", Arc::new(StringArray::from(vec!["7"])))).await;
    assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
    let error = refuse(one("id", Arc::new(Float64Array::from(vec![7.0])))).await;
    assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
    // What the server checks value by value is refused value by value.
    for rows in
        [one("ref", Arc::new(StringArray::from(vec!["no"]))), one("small", Arc::new(StringArray::from(vec!["four"])))]
    {
        let error = refuse(rows).await;
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    }
    let error = refuse(one("small", Arc::new(StringArray::from(vec!["a\0b"])))).await;
    assert!(error.message().contains("holds a NUL character"), "{error}");
    database.sql("alter table t alter must drop default");
    let error = refuse(ids(&[1])).await;
    assert!(error.message().contains("the column `must` of `public.t` cannot be NULL"), "{error}");
    assert_eq!(database.sql("select count(*) from t"), "1");
    database.sql("create table g(id bigint generated always as identity, twice int generated always as (1) stored)");
    load(&database, "table: g\nstrategy: append", &ids(&[41]), 3).await.unwrap();
    assert_eq!(database.sql("select id from g"), "41");
    let error = load(&database, "table: g\nstrategy: append", &one("twice", Arc::new(Int32Array::from(vec![1]))), 4)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told_before_the_first_row() {
    let database = postgres::database();
    let rows = ids(&[1]);
    let config = |yaml: &str| open(&database, yaml, &rows.schema(), 1).unwrap_err();
    for (yaml, kind, message) in [
        ("strategy: append", ErrorKind::Config, "the table to load is missing"),
        ("table: t\nstrategy: delete+insert", ErrorKind::Config, "`delete+insert` needs to know"),
        ("table: t\nstrategy: partition_overwrite", ErrorKind::Config, "`strategy: partition_overwrite` needs"),
        ("table: t\nstrategy: merge", ErrorKind::Config, "`merge` needs to know"),
        ("table: t\nstrategy: merge\nkey: [id, id]", ErrorKind::Config, "listed twice"),
        ("table: t\nstrategy: merge\nkey: id\nscope: a = 1", ErrorKind::Config, "`delete_missing` looks"),
        ("table: t\nstrategy: append\npost_sql: commit", ErrorKind::Config, "`commit` cannot be used"),
        ("table: t\nstrategy: append\nupdated_column: id", ErrorKind::Schema, "which is what `updated_column` writes"),
        ("table: t\nstrategy: append\nscope: a = 1", ErrorKind::Config, "`scope` does not go with"),
        ("table: t\nstrategy: append\nformat: parquet", ErrorKind::Config, "`format` goes with `path`"),
        ("table: t\nstrategy: delete+insert\nkey: [idd]", ErrorKind::Schema, "the rows have no column `idd`"),
        ("table: _gristmill_loads\nstrategy: append", ErrorKind::Config, "a name of Gristmill's own"),
    ] {
        let error = config(yaml);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message), "{error}");
    }
    let long = "x".repeat(64);
    for name in [long.as_str(), "ctid", ""] {
        let rows = one(name, Arc::new(Int32Array::from(vec![1])));
        assert_eq!(
            open(&database, "table: t\nstrategy: append", &rows.schema(), 1).unwrap_err().kind(),
            ErrorKind::Schema
        );
    }
    let union = Schema::new(vec![Field::new("i", DataType::Interval(IntervalUnit::MonthDayNano), true)]);
    assert_eq!(
        open(&database, "table: t\nstrategy: append", &Arc::new(union), 1).unwrap_err().kind(),
        ErrorKind::Schema
    );

    let prepare = async |yaml: &str| open(&database, yaml, &rows.schema(), 1).unwrap().prepare().await.unwrap_err();
    let error = prepare("table: publc.t\nstrategy: append").await;
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::NotFound, Some("did you mean `public`?")));
    database.sql("create view v as select 1 as id; create table t(id bigint)");
    assert!(prepare("table: v\nstrategy: append").await.message().contains("is a view"));
    let error = prepare("table: t\nstrategy: delete+insert\nscope: di = 1").await;
    assert_eq!(error.kind(), ErrorKind::Schema, "{error}");

    database.sql(
        "do $$ begin create role writer login password 'writer'; exception when duplicate_object then null; end $$",
    );
    let url = format!("postgres://writer:writer@127.0.0.1:{}/{}", database.port, database.name);
    let denied = async |yaml: &str| open_at(&url, yaml, &rows.schema(), 1).unwrap().prepare().await.unwrap_err();
    let error = denied("table: t\nstrategy: append").await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(error.hint_text(), Some("let its owner run: grant usage, create on schema \"public\" to \"writer\""));
    database.sql("grant usage, create on schema public to writer; grant insert on t to writer");
    let error = denied("table: t\nstrategy: replace").await;
    assert_eq!(
        error.hint_text(),
        Some("let its owner run: grant select, insert, delete on \"public\".\"t\" to \"writer\"")
    );
    open_at(&url, "table: t\nstrategy: append", &rows.schema(), 1).unwrap().prepare().await.unwrap();
    let wider = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("more", Arc::new(Int64Array::from(vec![1]))),
    ]);
    let error = open_at(&url, "table: t\nstrategy: append", &wider.schema(), 1).unwrap().prepare().await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("ALTER TABLE \"public\".\"t\" ADD COLUMN \"more\" bigint"), "{error}");
    database.sql(&format!("alter database {} set default_transaction_read_only = on", database.name));
    let error = prepare("table: t\nstrategy: append").await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.message().contains("is read-only"), "{error}");
}

/// Ends every session of ours in the database; true when there was one.
fn terminate(database: &TestDatabase, condition: &str) -> bool {
    database.sql(&format!(
        "select coalesce(bool_or(pg_terminate_backend(pid)), false) from pg_stat_activity \
         where application_name = 'gristmill' and datname = current_database() and {condition}"
    )) == "t"
}

fn terminate_when(database: &TestDatabase, condition: &'static str) -> std::thread::JoinHandle<()> {
    let database = database.clone();
    std::thread::spawn(move || {
        let begin = Instant::now();
        while !terminate(&database, condition) {
            assert!(begin.elapsed() < Duration::from_secs(20), "nothing to end");
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_cut_off_leaves_nothing_and_can_try_again() {
    let database = postgres::database();
    let rows = ids(&[1, 2, 3]);
    let sink = open(&database, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
    let endless = futures::stream::unfold(rows.clone(), |rows| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let large = one("id", Arc::new(Int64Array::from(vec![7; 200_000])));
        Some((Ok(large), rows))
    });
    let killer = terminate_when(&database, "query like 'COPY%'");
    let error = sink.stage(&task(1, 0, 1), Rows::new(rows.schema(), endless)).await.unwrap_err();
    killer.join().unwrap();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    assert_eq!(staging_tables(&database), "");
    let staged = sink.stage(&task(1, 0, 2), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap();
    sink.commit(&[staged], &Checkpoint::default()).await.unwrap();
    assert_eq!(database.sql("select count(*) from target"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_cut_off_before_its_end_publishes_nothing_and_can_be_tried_again() {
    let database = postgres::database();
    // A slow trigger holds the commit's transaction open.
    database.sql(
        "create table target(id bigint); create table slow(seconds float); insert into slow values (30);
         create function wait() returns trigger language plpgsql as 'begin perform pg_sleep(seconds) from slow; return null; end';
         create trigger wait after insert on target execute function wait()",
    );
    let rows = ids(&[1, 2, 3]);
    let sink = open(&database, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
    let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap()];
    let killer = terminate_when(&database, "wait_event = 'PgSleep'");
    let error = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
    killer.join().unwrap();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    assert_eq!(database.sql("select count(*) from target"), "0");
    assert!(sink.last(&key(1).slot).await.unwrap().is_none());
    database.sql("update slow set seconds = 0");
    assert!(!sink.commit(&staged, &Checkpoint::default()).await.unwrap().already);
    assert!(sink.commit(&staged, &Checkpoint::default()).await.unwrap().already);
    assert_eq!(database.sql("select count(*) from target"), "3");
    assert_eq!(staging_tables(&database), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_cut_off_at_its_end_is_asked_for_and_done_once() {
    let database = postgres::database();
    // A deferred trigger runs within COMMIT itself; the second try is not held up.
    database.sql(
        "create table target(id bigint); create sequence tries;
         create function wait() returns trigger language plpgsql as
         'begin if nextval(''tries'') = 1 then perform pg_sleep(30); end if; return null; end';
         create constraint trigger wait after insert on target deferrable initially deferred for each row execute function wait()",
    );
    let rows = ids(&[1, 2, 3]);
    let sink = open(&database, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
    let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap()];
    let killer = terminate_when(&database, "wait_event = 'PgSleep' and query = 'COMMIT'");
    let committed = sink.commit(&staged, &Checkpoint::default()).await.unwrap();
    killer.join().unwrap();
    assert!(!committed.already);
    assert_eq!(database.sql("select count(*) from target"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_in_the_ledger() {
    let database = postgres::database();
    let armed = Arc::new(AtomicBool::new(false));
    let port = losing_proxy(database.port, armed.clone(), b"COMMIT\0");
    let url = database.url().replace(&format!(":{}/", database.port), &format!(":{port}/"));
    let rows = ids(&[1, 2, 3]);
    let sink = open_at(&url, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
    let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap()];
    armed.store(true, Ordering::SeqCst);
    let committed = sink.commit(&staged, &Checkpoint::default()).await.unwrap();
    assert!(!armed.load(Ordering::SeqCst), "the answer was not lost");
    assert_eq!((committed.rows, committed.already), (3, false));
    assert_eq!(database.sql("select count(*) from target"), "3");
    assert_eq!(database.sql("select count(*) from _gristmill_loads"), "1");
    assert_eq!(staging_tables(&database), "");
}

#[tokio::test]
async fn staged_rows_that_a_crash_of_the_server_emptied_are_not_committed_as_none() {
    let database = postgres::database();
    let rows = ids(&[1, 2, 3]);
    let sink = open(&database, "table: target\nstrategy: replace", &rows.schema(), 1).unwrap();
    let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap()];
    database.sql(&format!("truncate {}", staging_tables(&database)));
    let error = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
    assert!(error.message().contains("0 of 3 staged rows"), "{error}");
    assert!(sink.last(&key(1).slot).await.unwrap().is_none());
    database.sql(&format!("drop table {}", staging_tables(&database)));
    let error = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

#[tokio::test]
async fn a_commit_is_durable_where_the_server_may_forget_others() {
    let database = postgres::database();
    database.sql(
        "create table target(id bigint); create table seen(setting text);
         create function note() returns trigger language plpgsql as
         'begin insert into seen values (current_setting(''synchronous_commit'')); return null; end';
         create trigger note after insert on target for each statement execute function note()",
    );
    assert_eq!(database.sql("show synchronous_commit"), "off");
    load(&database, "table: target\nstrategy: append", &ids(&[1]), 1).await.unwrap();
    assert_eq!(database.sql("select setting from seen"), "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn rivals_for_one_key_load_it_once() {
    let database = postgres::database();
    let rows = ids(&[1, 2, 3]);
    // All is staged before any commits: a commit drops what its owner has staged, and no owner stages a load while it commits it.
    let mut attempts = Vec::new();
    for attempt in 1..=4 {
        let sink = open(&database, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
        let staged = sink.stage(&task(1, 0, attempt), Rows::from_batches(rows.schema(), vec![rows.clone()])).await;
        attempts.push((sink, staged.unwrap()));
    }
    let rivals: Vec<_> = attempts
        .into_iter()
        .map(|(sink, staged)| tokio::spawn(async move { sink.commit(&[staged], &Checkpoint::default()).await }))
        .collect();
    let mut fresh = 0;
    for rival in rivals {
        fresh += usize::from(!rival.await.unwrap().unwrap().already);
    }
    assert_eq!(fresh, 1);
    assert_eq!(database.sql("select count(*) from target"), "3");
    assert_eq!(staging_tables(&database), "");
}

#[tokio::test]
async fn a_recovery_sweeps_only_tables_that_say_whose_they_are() {
    let database = postgres::database();
    database.sql("create table _gristmill_stage_mine(a int)");
    let rows = ids(&[1]);
    let sink = open(&database, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
    sink.stage(&task(1, 3, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap();
    let recovered = sink.recover(&|_| true).await.unwrap();
    assert_eq!((recovered.swept, recovered.undone), (1, vec![key(1).text()]));
    assert_eq!(staging_tables(&database), "_gristmill_stage_mine");
}

#[tokio::test]
async fn a_load_into_a_schema_of_its_own_keeps_everything_there() {
    let database = postgres::database();
    database.sql("create schema mart");
    load(&database, "table: mart.\"Daily Sales\"\nstrategy: replace", &ids(&[1]), 1).await.unwrap();
    assert_eq!(database.sql("select string_agg(relname, ',' order by relname) from pg_class where relkind = 'r' and relnamespace = 'mart'::regnamespace"), "Daily Sales,_gristmill_loads");
    let value = read(&database, "table: mart.\"Daily Sales\"").await;
    assert_eq!(array_value_to_string(value[0].column(0), 0).unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_runs_load_of_the_same_key_is_not_taken_for_ones_own() {
    let database = postgres::database();
    let rows = ids(&[1, 2]);
    load(&database, "table: target\nstrategy: append", &rows, 1).await.unwrap();
    assert!(load(&database, "table: target\nstrategy: append", &rows, 1).await.unwrap().already);
    database.sql("update _gristmill_loads set owner = 'another'");
    let error = load(&database, "table: target\nstrategy: append", &rows, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(database.sql("select count(*) from target"), "2");
    assert_eq!(staging_tables(&database), "");
}

#[test]
fn times_between_two_microseconds_are_refused() {
    let array: ArrayRef = Arc::new(arrow::array::TimestampNanosecondArray::from(vec![Some(1_000), None, Some(1_001)]));
    let encode = |array: ArrayRef| {
        let rows = one("t", array);
        let column = super::types::Outgoing::new(&rows.schema().fields()[0]).unwrap();
        let (mut encoder, mut out) = (super::types::Encoder::new(&[column]).unwrap(), bytes::BytesMut::new());
        encoder.header(&mut out).unwrap();
        encoder.batch(&rows, &mut out)
    };
    encode(array.slice(0, 2)).unwrap();
    let error = encode(array).unwrap_err();
    assert!(error.message().contains("(1001 ns)"), "{error}");
}
