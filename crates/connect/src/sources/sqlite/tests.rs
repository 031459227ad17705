use super::*;
use crate::conformance::{sorted_rows, source_suite};
use crate::{Reject, RejectSink, registry};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimeUnit};
use futures::StreamExt;
use gristmill_model::spec::OnFail;
use gristmill_model::yaml;
use std::path::Path;
use std::sync::Mutex;

/// A project folder with a database made by `sql`.
fn project(sql: &str) -> (tempfile::TempDir, Arc<dyn Connection>) {
    let folder = tempfile::tempdir().unwrap();
    rusqlite::Connection::open(folder.path().join("a.db")).unwrap().execute_batch(sql).unwrap();
    let connection = connect(folder.path(), "a.db");
    (folder, connection)
}

fn connect(folder: &Path, path: &str) -> Arc<dyn Connection> {
    let context = OpenContext { project: folder.to_owned(), state: folder.join(".gristmill") };
    let node = yaml::parse("gristmill.yaml", &format!("{{type: sqlite, path: '{path}'}}")).unwrap();
    registry::open(&node, &context).unwrap()
}

fn extract(text: &str) -> ExtractSpec {
    yaml::decode(&yaml::parse("p.yaml", &format!("from: db\n{text}")).unwrap()).unwrap()
}

async fn read(connection: &Arc<dyn Connection>, text: &str) -> Result<RecordBatch> {
    read_with(connection, text, OnFail::Fail, None).await
}

async fn read_with(
    connection: &Arc<dyn Connection>,
    text: &str,
    on_bad_row: OnFail,
    rejects: Option<RejectSink>,
) -> Result<RecordBatch> {
    let source = connection.source(&extract(text))?;
    let schema = source.schema().await?;
    let plan = source.plan(&ReadRequest::default()).await?;
    let scan = Scan { schema: schema.clone(), batch_size: 100, on_bad_row, rejects };
    let batches = source.read(&plan.units[0], &scan).collect().await?;
    Ok(arrow::compute::concat_batches(&schema, &batches).unwrap())
}

const EVERYTHING: &str = "
    CREATE TABLE orders (id INTEGER PRIMARY KEY, total DECIMAL(10,2), price REAL, name VARCHAR(20), raw BLOB, paid BOOLEAN,
        day DATE, at TIMESTAMP, zoned TIMESTAMPTZ, clock TIME, \"odd \"\"name\" TEXT, loose);
    INSERT INTO orders VALUES
        (1, 12.5, 1.5, 'Ann', x'00ff', 1, '2024-01-15', '2024-01-15 10:20:30', '2024-01-15T10:20:30+02:00', '10:20', 'q', 1),
        (2, '1234567.89', 2, 'Bö', x'', 0, 1705276800, 1705314030, '2024-01-15 10:20:30.5Z', '10:20:30.000001', NULL, 2.5),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (4, 7, 1e300, '', x'01', 'true', 2460324.5, '2024-01-15T10:20:30.123456', 0, '23:59:59', 'it''s', 'text');
    CREATE VIEW small AS SELECT id, total FROM orders WHERE id < 3;
    CREATE TABLE empty (a INTEGER, b TEXT);
    CREATE TABLE keyed (k TEXT PRIMARY KEY, v INTEGER) WITHOUT ROWID;
    INSERT INTO keyed VALUES ('a', 1), ('b', 2);";

#[tokio::test]
async fn every_kind_of_table_passes_the_suite() {
    let (_folder, connection) = project(EVERYTHING);
    let many = "query: 'with recursive n(i) as (select 1 union all select i + 1 from n where i < 2500) select i, i * 0.5 as half from n'";
    for (text, rows) in [
        ("table: orders", 4),
        ("table: orders\nwhere: id < 3\ncolumns: [name, ID]", 2),
        ("table: small", 2),
        ("table: empty", 0),
        ("table: keyed", 2),
        ("table: main.orders", 4),
        ("query: select id, upper(name) as u, total from orders;", 4),
        (many, 2500),
    ] {
        let open = || connection.source(&extract(text)).unwrap();
        source_suite(&open, Some(rows)).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[tokio::test]
async fn declared_types_become_arrow_types_and_values_stay_exact() {
    let (_folder, connection) = project(EVERYTHING);
    let batch = read(&connection, "table: orders").await.unwrap();
    let kinds: Vec<DataType> = batch.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from));
    let wanted = [
        DataType::Int64,
        DataType::Decimal128(10, 2),
        DataType::Float64,
        DataType::Utf8,
        DataType::Binary,
        DataType::Boolean,
        DataType::Date32,
        micros(None),
        micros(Some("UTC")),
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Utf8,
        DataType::Utf8,
    ];
    assert_eq!(kinds, wanted);
    let rows = sorted_rows(&[batch]).unwrap();
    assert_eq!(rows[0], "1│12.50│1.5│Ann│00ff│true│2024-01-15│2024-01-15T10:20:30│2024-01-15T08:20:30Z│10:20:00│q│1│");
    assert_eq!(
        rows[1],
        "2│1234567.89│2.0│Bö││false│2024-01-15│2024-01-15T10:20:30│2024-01-15T10:20:30.500Z│10:20:30.000001│∅│2.5│"
    );
    assert_eq!(rows[2], "3│∅│∅│∅│∅│∅│∅│∅│∅│∅│∅│∅│");
    assert_eq!(
        rows[3],
        "4│7.00│1e300││01│true│2024-01-15│2024-01-15T10:20:30.123456│1970-01-01T00:00:00Z│23:59:59│it's│text│"
    );
}

#[tokio::test]
async fn a_value_that_does_not_fit_names_column_value_and_row() {
    let (_folder, connection) = project(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, d DATE); INSERT INTO t VALUES (7, 1, '2024-01-15'), (9, 'abc', 'never');",
    );
    let error = read(&connection, "table: t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let text = error.to_string();
    assert!(text.contains("column `n`: `abc` is not of type `bigint`"), "{text}");
    assert!(text.contains("rowid 9") && text.contains("schema: {n: text}"), "{text}");

    let seen = Arc::new(Mutex::new(Vec::<Reject>::new()));
    let to = seen.clone();
    let rejects = RejectSink::new(move |reject| to.lock().unwrap().push(reject));
    let batch = read_with(&connection, "table: t", OnFail::DeadLetter, Some(rejects)).await.unwrap();
    assert_eq!(batch.num_rows(), 1);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].record, r#"{"id":9,"n":"abc","d":"never"}"#);
    assert_eq!(seen[0].place, "t: rowid 9");

    let batch = read(&connection, "table: t\nschema: {n: text, d: text}").await.unwrap();
    assert_eq!(sorted_rows(&[batch]).unwrap(), ["7│1│2024-01-15│", "9│abc│never│"]);
}

#[tokio::test]
async fn types_can_be_overridden_by_name() {
    let (_folder, connection) = project(
        "CREATE TABLE t (a TEXT, b INTEGER, c REAL); INSERT INTO t VALUES ('12.345', 255, 0.1), ('-1', 0, 1e6);",
    );
    let batch =
        read(&connection, "table: t\nschema: {a: 'decimal(10,3)', b: uint8, C: 'decimal(20,10)'}").await.unwrap();
    assert_eq!(batch.column(0).as_primitive::<Decimal128Type>().value(0), 12_345);
    assert_eq!(batch.column(1).data_type(), &DataType::UInt8);
    assert_eq!(batch.column(2).as_primitive::<Decimal128Type>().value(0), 1_000_000_000);
    let error = read(&connection, "table: t\nschema: {b: tinyint}").await.unwrap_err();
    assert!(error.to_string().contains("`255` is not of type `tinyint`"), "{error}");
    let error = read(&connection, "table: t\nschema: {zz: text}").await.unwrap_err();
    assert_eq!(error.hint_text(), Some("valid: `a`, `b`, `c`"));
    let error = connection.source(&extract("table: t\nschema: {a: intt}")).unwrap_err();
    assert!(error.hint_text().unwrap().starts_with("did you mean"), "{error}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_gets_the_nearest_that_does() {
    let (_folder, connection) = project(EVERYTHING);
    for (text, kind, hint) in [
        ("table: order", ErrorKind::NotFound, "did you mean `orders`?"),
        ("query: select * from ordres", ErrorKind::NotFound, "did you mean `orders`?"),
        ("table: orders\ncolumns: [totall]", ErrorKind::Schema, "did you mean `total`?"),
        ("table: orders\nwhere: totl > 1", ErrorKind::Schema, "did you mean `total`?"),
        ("table: orders\nwhere: '\"totl\" > 1'", ErrorKind::Schema, "did you mean `total`?"),
        ("query: select id, 1 as id from orders", ErrorKind::Schema, "rename one of them"),
        ("query: delete from orders", ErrorKind::Query, "write one `select` statement"),
    ] {
        let error = read(&connection, text).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{text}: {error}");
        assert!(error.to_string().contains(hint), "{text}: {error}");
    }
    for text in ["query: select from", "table: orders\nwhere: 'a b c'", "query: select 1; select 2"] {
        let error = read(&connection, text).await.unwrap_err();
        assert!(!error.to_string().is_empty() && error.kind() != ErrorKind::Internal, "{text}: {error:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_missing_or_no_database_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.db"), "this is a text, long enough to be looked at as a page header …")
        .unwrap();
    std::fs::create_dir(folder.path().join("folder.db")).unwrap();
    for (path, kind, words) in [
        ("missing.db", ErrorKind::NotFound, "`missing.db` does not exist"),
        ("no/where.db", ErrorKind::NotFound, "the folder of the database `no/where.db` does not exist"),
        ("text.db", ErrorKind::Data, "`text.db` is not a SQLite database"),
        ("folder.db", ErrorKind::NotFound, "is a folder"),
    ] {
        let error = connect(folder.path(), path).test().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint_text().is_some(), "{error}");
    }
    assert!(!folder.path().join("missing.db").exists(), "looking for a database does not make one");
}

#[tokio::test]
async fn a_locked_database_can_be_tried_again() {
    let (folder, connection) = project(EVERYTHING);
    let other = rusqlite::Connection::open(folder.path().join("a.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = read(&connection, "table: orders").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(read(&connection, "table: orders").await.unwrap().num_rows(), 4);
}

#[tokio::test]
async fn one_read_is_one_picture_whatever_others_write() {
    let (folder, connection) = project(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (a INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i FROM n;",
    );
    let source = connection.source(&extract("table: t")).unwrap();
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    assert_eq!(plan.units.len(), 1);
    assert_eq!(plan.units[0].rows, Some(5000));
    let scan = Scan { schema: source.schema().await.unwrap(), batch_size: 10, on_bad_row: OnFail::Fail, rejects: None };
    let mut rows = source.read(&plan.units[0], &scan);
    let mut sum: i64 = rows.next().await.unwrap().unwrap().column(0).as_primitive::<Int64Type>().iter().flatten().sum();
    rusqlite::Connection::open(folder.path().join("a.db")).unwrap().execute_batch("UPDATE t SET a = 0").unwrap();
    while let Some(batch) = rows.next().await {
        sum += batch.unwrap().column(0).as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
    }
    assert_eq!(sum, 5000 * 5001 / 2);
}

#[tokio::test]
async fn a_statement_nobody_waits_for_is_stopped() {
    let (folder, _) = project(EVERYTHING);
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n where i < 0";
    let wanted = Wanted {
        database: Database { path: folder.path().join("a.db"), shown: "a.db".into() },
        what: What::Query(endless.to_owned()),
        columns: Vec::new(),
        overrides: [("i".to_owned(), DataType::Int64)].into(),
        units: UnitsSpec::default(),
        limit: None,
    };
    let schema =
        Arc::new(arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new("i", DataType::Int64, true)]));
    let wanted = Arc::new(wanted);
    let scan = Scan { schema, batch_size: 10, on_bad_row: OnFail::Fail, rejects: None };
    let mut rows = read::start(
        read::Unit {
            wanted: wanted.clone(),
            picture: None,
            slice: crate::units::share::Slice::Whole,
            aggregation: None,
            ordinal: 0,
            label: "query".into(),
        },
        scan,
    );
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), rows.next()).await.is_err());
    drop(rows);
    for _ in 0..100 {
        if Arc::strong_count(&wanted) == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the thread still reads");
}

#[tokio::test]
async fn tables_and_views_are_discovered_with_keys_and_rows() {
    let (_folder, connection) = project(EVERYTHING);
    let found = connection.discover().await.unwrap();
    let names: Vec<&str> = found.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["empty", "keyed", "orders", "small"]);
    assert_eq!(found[1].key, ["k"]);
    assert_eq!(found[2].rows, Some(4));
    assert!(found[2].bytes.is_some_and(|bytes| bytes >= 512), "{:?}", found[2]);
    let tables = connection.tables().await.unwrap();
    assert_eq!(tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(found[2].columns[1], ("total".to_owned(), "decimal(10,2)".to_owned()));
    let info = connection.test().await.unwrap();
    assert!(info.server.starts_with("SQLite 3."));
    assert_eq!(connection.describe(), "a.db");
}

#[test]
fn keys_of_a_connection_are_checked() {
    let context = OpenContext { project: ".".into(), state: ".".into() };
    for (text, words) in [
        ("{type: sqlite}", "path"),
        ("{type: sqlite, paht: a}", "did you mean `path`?"),
        ("{type: sqlite, path: ''}", "`path` is empty"),
        ("{type: sqlit, path: a}", "did you mean `sqlite`?"),
    ] {
        let mistakes = registry::open(&yaml::parse("g.yaml", text).unwrap(), &context).unwrap_err();
        assert!(yaml::to_error(&mistakes).to_string().contains(words), "{text}: {mistakes:?}");
    }
}

#[test]
fn keys_for_files_are_refused() {
    let (_folder, connection) = project(EVERYTHING);
    for text in [
        "path: x",
        "table: t\nformat: csv",
        "query: q\nwhere: x",
        "table: t\nquery: q",
        "table: t\ncsv: {delimiter: ','}",
    ] {
        let error = connection.source(&extract(text)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        assert!(error.hint_text().is_some(), "{text}");
    }
}

#[tokio::test]
#[ignore = "a measurement: cargo test --release -p gristmill-connect -- --ignored --nocapture rows_a_second"]
async fn rows_a_second() {
    let (_folder, connection) = project(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, customer INTEGER, total REAL, status TEXT, day DATE);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000)
         INSERT INTO t SELECT i, i % 1000, i * 0.25, 'completed', '2024-01-15' FROM n;",
    );
    let source = connection.source(&extract("table: t")).unwrap();
    let schema = source.schema().await.unwrap();
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    let scan = Scan { schema, batch_size: 8192, on_bad_row: OnFail::Fail, rejects: None };
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let mut rows = source.read(&plan.units[0], &scan);
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            count += batch.unwrap().num_rows();
        }
        println!("{:.2} M rows/s", count as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
}

async fn plan_of(source: &dyn Source) -> ReadPlan {
    source.plan(&ReadRequest { parallelism: 4, ..ReadRequest::default() }).await.unwrap()
}

async fn rows_of(source: &dyn Source, units: &[WorkUnit]) -> Result<Vec<String>> {
    let scan = Scan { schema: source.schema().await?, batch_size: 500, on_bad_row: OnFail::Fail, rejects: None };
    let read = units.iter().map(|unit| source.read(unit, &scan).collect());
    let batches: Vec<RecordBatch> = futures::future::try_join_all(read).await?.into_iter().flatten().collect();
    sorted_rows(&batches)
}

const MANY: &str = "CREATE TABLE big (id INTEGER PRIMARY KEY, v TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) INSERT INTO big SELECT i, 'v' || i FROM n;
    CREATE INDEX by_v ON big (v); CREATE VIEW v AS SELECT * FROM big;
    CREATE TABLE keyed (k TEXT PRIMARY KEY, n INT) WITHOUT ROWID; INSERT INTO keyed SELECT v, id FROM big;";

#[tokio::test]
async fn a_large_table_is_read_in_ranges_of_row_ids_in_one_picture() {
    for mode in ["WAL", "DELETE"] {
        let (folder, connection) = project(&format!("PRAGMA journal_mode = {mode}; {MANY}"));
        let source = connection.source(&extract("table: big")).unwrap();
        let plan = plan_of(source.as_ref()).await;
        assert_eq!(plan.consistency, crate::Consistency::Snapshot);
        assert_eq!(
            plan.why,
            "about 60,000 rows; ranges of row ids, in whose order the rows are kept; 2 units of about 30,000 rows, such as `big rowid < 30001`; the database counts the rows, too"
        );
        let mut rows = rows_of(source.as_ref(), &plan.units[..1]).await.unwrap();
        assert_eq!(rows.len(), 30_000);
        if mode == "WAL" {
            // What happens after the plan is not seen.
            let writer = rusqlite::Connection::open(folder.path().join("a.db")).unwrap();
            writer.execute_batch("DELETE FROM big WHERE id % 2 = 0; UPDATE big SET v = 'new'").unwrap();
        }
        rows.extend(rows_of(source.as_ref(), &plan.units[1..]).await.unwrap());
        assert_eq!(rows.len(), 60_000);
        assert!(!rows.iter().any(|row| row.contains("new")));
        let open = || connection.source(&extract("table: big\nwhere: id < 3000\nunits: {target_rows: 500}")).unwrap();
        source_suite(&open, None).await.unwrap();
    }
}

#[tokio::test]
async fn rows_that_units_lose_are_told_of_though_nobody_asked_to_count() {
    let (_folder, connection) = project(MANY);
    let source = connection.source(&extract("table: big\nunits: {target_rows: 20000}")).unwrap();
    let mut plan = plan_of(source.as_ref()).await;
    let last = plan.units.last_mut().unwrap();
    let from = &mut last.payload["slice"]["keys"]["from"]["value"];
    *from = (from.as_str().unwrap().parse::<i64>().unwrap() + 1).to_string().into();
    let error = rows_of(source.as_ref(), &plan.units).await.unwrap_err();
    assert!(error.message().contains("but the server counts 60,000 in the same snapshot: rows were lost"), "{error}");
    let unverified = connection.source(&extract("table: big\nunits: {target_rows: 20000, verify: none}")).unwrap();
    assert!(!plan_of(unverified.as_ref()).await.why.contains("count"));
}

#[tokio::test]
async fn each_unit_of_row_ids_reads_only_its_own_pages() {
    let (folder, connection) = project(MANY);
    let source = connection.source(&extract("table: big\nunits: {target_rows: 20000}")).unwrap();
    let plan = plan_of(source.as_ref()).await;
    let file = rusqlite::Connection::open(folder.path().join("a.db")).unwrap();
    for unit in &plan.units {
        let share: Share = serde_json::from_value(unit.payload.clone()).unwrap();
        let sql = format!("EXPLAIN QUERY PLAN {}", share.slice.select(&divide::Sqlite, "*", "big", None));
        let step: String = file.query_row(&sql, [], |row| row.get(3)).unwrap();
        assert!(step.starts_with("SEARCH big USING INTEGER PRIMARY KEY"), "{sql}: {step}");
    }
}

#[tokio::test]
async fn what_has_no_row_ids_is_one_unit_and_says_so() {
    let (_folder, connection) = project(MANY);
    for (text, units, why) in [
        ("table: v", 1, "one unit: a view has no row ids"),
        ("table: keyed", 1, "one unit: the table has no row ids"),
        ("query: select * from big", 1, "one read transaction"),
        ("table: big\nwhere: v >= 'v'", 1, "one unit: the condition is looked up in an index"),
        ("table: big\nunits: {strategy: none}", 1, "one unit, as `units` says"),
        ("table: keyed\nunits: {strategy: id_range, by: n, target_rows: 20000}", 3, "ranges of `n`, as `units` says"),
        ("table: v\nunits: {strategy: hash, by: id, target_rows: 20000}", 3, "the hash of `id`"),
        ("table: v\nunits: {strategy: predicates, predicates: [id < 7, v > 'v5'], verify: count}", 3, "predicates"),
    ] {
        let source = connection.source(&extract(text)).unwrap();
        let plan = plan_of(source.as_ref()).await;
        assert!(plan.why.contains(why), "{text}: {}", plan.why);
        assert_eq!(plan.units.len(), units, "{text}: {}", plan.why);
        assert_eq!(rows_of(source.as_ref(), &plan.units).await.unwrap().len(), 60_000, "{text}");
    }
    for (text, message) in [
        ("table: big\nunits: {strategy: ctid}", "`strategy: ctid` is not supported for SQLite"),
        ("table: big\nunits: {strategy: id_range, by: v}", "units cannot go by ranges of `v`"),
        ("table: v\nunits: {strategy: id_range, by: id}", "units cannot go by ranges of `id`"),
        ("table: big\nunits: {strategy: hash, by: idd}", "column `idd` does not exist"),
    ] {
        let source = connection.source(&extract(text)).unwrap();
        let error = source.plan(&ReadRequest::default()).await.unwrap_err();
        assert_eq!(error.message(), message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_the_same_however_often_somebody_writes() {
    let (folder, connection) = project(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) INSERT INTO t SELECT i, 100 FROM n",
    );
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (path, stop) = (folder.path().join("a.db"), stop.clone());
        move || {
            let file = rusqlite::Connection::open(path).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                file.execute_batch(
                    "BEGIN; UPDATE t SET v = v - 1 WHERE id = 1; UPDATE t SET v = v + 1 WHERE id = 4000; COMMIT",
                )
                .unwrap();
                std::thread::yield_now();
            }
        }
    });
    for _ in 0..20 {
        let source = connection.source(&extract("table: t\nunits: {target_rows: 500}")).unwrap();
        let plan = plan_of(source.as_ref()).await;
        let rows = rows_of(source.as_ref(), &plan.units).await.unwrap();
        let sum: i64 = rows.iter().map(|row| row.split('│').nth(1).unwrap().parse::<i64>().unwrap()).sum();
        assert_eq!(sum, 400_000, "{}", plan.why);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
}

#[tokio::test]
async fn units_are_disjoint_and_complete_whatever_the_numbers() {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let ids =
        prop::collection::btree_set(prop_oneof![any::<i64>(), -50i64..500, Just(i64::MIN), Just(i64::MAX)], 1..300);
    let loose = prop_oneof![
        4 => any::<i64>().prop_map(|n| n.to_string()),
        4 => (-20i64..20).prop_map(|n| n.to_string()),
        1 => Just("NULL".to_owned()),
        1 => (-1e3f64..1e20).prop_map(|n| format!("{n:?}")),
        1 => Just("'text'".to_owned()),
    ];
    for _ in 0..25 {
        let ids = ids.new_tree(&mut runner).unwrap().current();
        let mut sql =
            "CREATE TABLE t (id INTEGER PRIMARY KEY, k INT, plain INT); CREATE INDEX i ON t (k); BEGIN;".to_owned();
        for id in &ids {
            let k = loose.new_tree(&mut runner).unwrap().current();
            sql.push_str(&format!("INSERT INTO t VALUES ({id}, {k}, {k});"));
        }
        sql.push_str("COMMIT");
        let (_folder, connection) = project(&sql);
        let schema = "schema: {k: text, plain: text}\ncolumns: [id, plain]";
        let whole = connection.source(&extract(&format!("table: t\n{schema}\nunits: {{strategy: none}}"))).unwrap();
        let wanted = rows_of(whole.as_ref(), &plan_of(whole.as_ref()).await.units).await.unwrap();
        for units in [
            "{target_rows: 20}",
            "{strategy: id_range, by: k, target_rows: 20, verify: count}",
            "{strategy: id_range, by: plain, target_rows: 7, max: 5}",
            "{strategy: hash, by: k, target_rows: 50}",
        ] {
            let source = connection.source(&extract(&format!("table: t\n{schema}\nunits: {units}"))).unwrap();
            let plan = plan_of(source.as_ref()).await;
            assert_eq!(rows_of(source.as_ref(), &plan.units).await.unwrap(), wanted, "{units}: {:?}", plan.units);
        }
    }
}

#[tokio::test]
async fn conditions_that_sqlite_answers_alike_are_pushed_down_and_what_is_no_number_still_passes() {
    use crate::{Comparison, Filter, Literal, Test};
    let folder = tempfile::tempdir().unwrap();
    let database = rusqlite::Connection::open(folder.path().join("d.db")).unwrap();
    database
        .execute_batch(
            "create table t(id integer primary key, n int, name text collate nocase, day date, loose);
             insert into t with recursive k(i) as (select 1 union all select i + 1 from k where i < 1000)
               select i, i % 100, case when i % 3 = 0 then 'Abc' else 'abc' end, '2024-01-01', i from k;
             update t set n = null where id > 990;
             -- A number behind a space that SQLite does not know as one.
             update t set n = char(160) || '7' where id = 990;",
        )
        .unwrap();
    let context = crate::OpenContext { project: folder.path().into(), state: folder.path().into() };
    let node = gristmill_model::yaml::parse("c", "{type: sqlite, path: d.db}").unwrap();
    let connection = crate::registry::open(&node, &context).unwrap();
    let spec = gristmill_model::yaml::parse("p", "{from: db, table: t, where: \"id > 0 -- all\"}").unwrap();
    let source = connection.source(&gristmill_model::yaml::decode(&spec).unwrap()).unwrap();
    let schema = source.schema().await.unwrap();
    let is =
        |column: &str, comparison, literal| Filter { column: column.to_owned(), test: Test::Is(comparison, literal) };
    let text = |text: &str| Literal::Text(text.to_owned());
    for refused in [
        is("name", Comparison::NotEqual, text("abc")),
        is("name", Comparison::Less, text("abc")),
        is("day", Comparison::Equal, Literal::Date(19_723)),
        is("loose", Comparison::Equal, Literal::Integer(1)),
        is("nothing", Comparison::Equal, Literal::Integer(1)),
    ] {
        assert!(!source.can_filter(&refused), "{refused}");
    }
    let read = async |filters: Vec<Filter>, limit: Option<u64>| {
        let want = crate::ReadRequest { filters, limit, parallelism: 2, ..crate::ReadRequest::default() };
        let plan = source.plan(&want).await.unwrap();
        let on_bad_row = gristmill_model::spec::OnFail::Fail;
        let scan = crate::Scan { schema: schema.clone(), batch_size: 100, on_bad_row, rejects: None };
        let batches = source.read(&plan.units[0], &scan).collect().await.unwrap();
        (batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), plan.pushed_down)
    };
    for (filter, rows) in [
        (is("id", Comparison::LessOrEqual, Literal::Integer(12)), 12),
        (is("id", Comparison::Greater, Literal::Integer(i64::MIN)), 1000),
        // The text that is a 7 for us is read in any case.
        (is("n", Comparison::Equal, Literal::Integer(7)), 11),
        (is("n", Comparison::Greater, Literal::Integer(1000)), 1),
        // Both cases: more than equal bytes are, never fewer.
        (is("name", Comparison::Equal, text("abc")), 1000),
        (Filter { column: "name".into(), test: Test::OneOf(vec![text("x"), text("o'k")]) }, 0),
        (Filter { column: "n".into(), test: Test::Null }, 10),
        (Filter { column: "n".into(), test: Test::NotNull }, 990),
        (Filter { column: "day".into(), test: Test::NotNull }, 1000),
    ] {
        assert!(source.can_filter(&filter), "{filter}");
        let (read, pushed_down) = read(vec![filter.clone()], None).await;
        assert_eq!(read, rows, "{filter}");
        assert!(pushed_down.contains(&format!("filter: {filter}")), "{pushed_down:?}");
    }
    assert_eq!(read(Vec::new(), Some(7)).await.0, 7);
    assert_eq!(read(Vec::new(), None).await.0, 1000);
}
