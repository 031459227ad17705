mod strategies;

use super::*;
use crate::conformance::{SinkTarget, scope_suite, sink_suite, sorted_rows};
use crate::sources::sqlite::{SqliteConfig, SqliteConnection};
use crate::{Connection as _, OpenContext, ReadRequest, Scan};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use gristmill_model::spec::{ExtractSpec, OnFail, Strategy};
use gristmill_model::{Interval, RunId, yaml};
use proptest::prelude::{ProptestConfig, Strategy as _, any, prop_compose, proptest};
use tempfile::TempDir;

/// A project whose database `w.db` has the target table `rows`.
struct Target {
    folder: TempDir,
}

impl Target {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn connection(&self) -> SqliteConnection {
        SqliteConnection::new(&SqliteConfig { path: "w.db".into() }, &self.folders())
    }

    fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("w.db")).unwrap()
    }

    fn ask<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.sql().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    async fn read(&self, text: &str) -> Result<RecordBatch> {
        let extract: ExtractSpec = yaml::decode(&yaml::parse("p", &format!("from: db\n{text}")).unwrap()).unwrap();
        let source = self.connection().source(&extract)?;
        let schema = source.schema().await?;
        let plan = source.plan(&ReadRequest::default()).await?;
        let scan = Scan { schema: schema.clone(), batch_size: 1000, on_bad_row: OnFail::Fail, rejects: None };
        let batches = source.read(&plan.units[0], &scan).collect().await?;
        Ok(arrow::compute::concat_batches(&schema, &batches).unwrap())
    }

    fn open(&self, load: &str, generation: u32, batch: &RecordBatch) -> Result<Arc<dyn Sink>> {
        let load: LoadSpec = yaml::decode(&yaml::parse("p", &format!("from: x\nto: db\n{load}")).unwrap()).unwrap();
        let context = LoadContext {
            key: key(generation),
            owner: OwnerId(RunId::new("run-1")),
            schema: batch.schema(),
            source_key: Vec::new(),
            alone: false,
            open: self.folders(),
            ledger_retention: None,
        };
        self.connection().sink(&load, context)
    }

    async fn load(&self, load: &str, generation: u32, batch: &RecordBatch) -> Result<Committed> {
        let sink = self.open(load, generation, batch)?;
        sink.prepare().await?;
        let task = TaskKey { load: key(generation), owner: OwnerId(RunId::new("run-1")), partition: 0, attempt: 1 };
        let staged = sink.stage(&task, Rows::from_batches(batch.schema(), vec![batch.clone()])).await?;
        sink.commit(&[staged], &Checkpoint::default()).await
    }
}

fn key(generation: u32) -> LoadKey {
    let interval = Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap());
    LoadKey { slot: Slot { pipeline: "p".into(), step: "s".into(), interval, target: "db:rows".into() }, generation }
}

#[async_trait]
impl SinkTarget for Target {
    fn folders(&self) -> OpenContext {
        OpenContext { project: self.folder.path().to_owned(), state: self.folder.path().join(".gristmill") }
    }

    fn strategies(&self) -> Vec<Strategy> {
        Strategy::ALL.to_vec()
    }

    fn sink(&self, mut load: LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
        load.table = Some("rows".into());
        self.connection().sink(&load, context)
    }

    async fn rows(&self) -> Result<Vec<RecordBatch>> {
        match self.read("table: rows").await {
            Ok(batch) => Ok(vec![batch]),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn leftovers(&self) -> Result<Vec<String>> {
        let Ok(entries) = std::fs::read_dir(self.folders().state.join("staging/sqlite")) else { return Ok(Vec::new()) };
        Ok(entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect())
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sink_passes_the_suite() {
    sink_suite(|| async { Ok(Target::new()) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_outside_of_the_scope_are_refused_where_they_would_double() {
    scope_suite(|| async { Ok(Target::new()) }).await.unwrap();
}

#[tokio::test]
async fn tables_of_our_own_are_not_loaded_however_they_are_written() {
    let target = Target::new();
    target.load("table: t\nstrategy: append", 1, &batch(vec![("a", ints(&[1]))])).await.unwrap();
    for table in [
        "_gristmill_loads",
        "_GRISTMILL_Loads",
        "main._gristmill_loads",
        "Main.\"_gristmill_loads\"",
        "[_gristmill_new]",
    ] {
        let load = format!("table: '{table}'\nstrategy: replace");
        let error = target.open(&load, 2, &batch(vec![("a", ints(&[1]))])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains("is a name of Gristmill's own"), "{error}");
    }
    assert_eq!(target.ask::<i64>("SELECT count(*) FROM _gristmill_loads"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sink_passes_the_suite_on_a_database_in_wal_mode() {
    let fresh = || async {
        let target = Target::new();
        target.sql().execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE other (a)").unwrap();
        Ok(target)
    };
    sink_suite(fresh).await.unwrap();
}

#[tokio::test]
async fn the_journal_mode_of_the_database_is_kept() {
    let target = Target::new();
    target.sql().execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE other (a)").unwrap();
    target.load("table: t\nstrategy: append", 1, &batch(vec![("a", ints(&[1]))])).await.unwrap();
    assert_eq!(target.ask::<String>("PRAGMA journal_mode"), "wal");
}

#[tokio::test]
async fn decimals_are_exact_and_plain_sql_can_sum_them() {
    let target = Target::new();
    let rows = batch(vec![("revenue", decimals(&[123_456_789_123_456, 1, -5_000_000, 10_000_000], 18, 6))]);
    target.load("table: t\nstrategy: append", 1, &rows).await.unwrap();
    assert_eq!(target.ask::<String>("SELECT type FROM pragma_table_info('t')"), "DECIMAL(18,6)");
    assert!((target.ask::<f64>("SELECT sum(revenue) FROM t") - 123_456_794.123_457).abs() < 1e-6);
    assert_eq!(target.ask::<i64>("SELECT count(*) FROM t WHERE revenue > 9"), 2);
    assert_eq!(target.read("table: t").await.unwrap(), rows);
}

#[tokio::test]
async fn a_decimal_no_number_of_sqlite_holds_is_refused_unless_kept_as_text() {
    let target = Target::new();
    let wide = 12_345_678_901_234_567_890_123_i128;
    let rows = batch(vec![("amount", decimals(&[wide], 38, 10))]);
    let error = target.load("table: t\nstrategy: append", 1, &rows).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("column `amount`: `1234567890123.4567890123` has more digits"), "{error}");
    assert!(error.hint_text().unwrap().contains("cast(amount as varchar)"));
    assert!(!target.folder.path().join("w.db").exists(), "it is refused before the database is touched");

    target.sql().execute_batch("CREATE TABLE t (amount TEXT)").unwrap();
    target.load("table: t\nstrategy: append", 1, &rows).await.unwrap();
    assert_eq!(target.ask::<String>("SELECT amount FROM t"), "1234567890123.4567890123");
    assert_eq!(target.read("table: t\nschema: {amount: 'decimal(38,10)'}").await.unwrap(), rows);
}

#[tokio::test]
async fn what_sqlite_would_change_silently_is_refused_with_a_way_out() {
    let target = Target::new();
    let nanos = |value: i64| Arc::new(TimestampNanosecondArray::from(vec![value])) as ArrayRef;
    for (array, words) in [
        (Arc::new(Float64Array::from(vec![1.0, f64::NAN])) as ArrayRef, "NaN"),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), "18446744073709551615"),
        (Arc::new(Date32Array::from(vec![3_000_000])), "years 0 to 9999"),
        (Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX])), "years 0 to 9999"),
        (nanos(1_001), "between two microseconds"),
    ] {
        let error = target.load("table: t\nstrategy: append", 1, &batch(vec![("c", array)])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert!(error.to_string().contains(words) && error.to_string().contains("column `c`"), "{error}");
        assert!(error.hint_text().is_some(), "{error}");
    }
    assert!(target.leftovers().await.unwrap().is_empty());
    let infinite: ArrayRef = Arc::new(Float64Array::from(vec![f64::INFINITY, f64::NEG_INFINITY, -0.0]));
    let rows = batch(vec![("c", infinite), ("at", Arc::new(TimestampNanosecondArray::from(vec![1_000, 2_000, 0])))]);
    target.load("table: t\nstrategy: append", 1, &rows).await.unwrap();
    let got = sorted_rows(&[target.read("table: t").await.unwrap()]).unwrap();
    let wanted = ["-inf│1970-01-01T00:00:00.000002│", "0.0│1970-01-01T00:00:00│", "inf│1970-01-01T00:00:00.000001│"];
    assert_eq!(got, wanted);

    target.sql().execute_batch("CREATE TABLE r (n REAL)").unwrap();
    let big = batch(vec![("n", ints(&[(1 << 53) + 1]))]);
    let error = target.load("table: r\nstrategy: append", 2, &big).await.unwrap_err();
    assert!(error.to_string().contains("9007199254740993"), "{error}");

    let nested = Field::new("item", DataType::Int32, true);
    let list = arrow::array::new_null_array(&DataType::List(Arc::new(nested)), 1);
    let error = target.open("table: t\nstrategy: append", 3, &batch(vec![("l", list)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
}

#[tokio::test]
async fn new_columns_are_added_and_columns_that_do_not_fit_are_named() {
    let target = Target::new();
    target.load("table: t\nstrategy: append", 1, &batch(vec![("a", ints(&[1]))])).await.unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    target.load("table: t\nstrategy: append", 2, &batch(vec![("b", text.clone()), ("A", ints(&[2]))])).await.unwrap();
    assert_eq!(sorted_rows(&[target.read("table: t").await.unwrap()]).unwrap(), ["1│∅│", "2│x│"]);

    let error = target.load("table: t\nstrategy: append", 3, &batch(vec![("a", text)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.to_string().contains("column `a` of `t` is declared `INTEGER` and does not take `text`"), "{error}");

    target
        .sql()
        .execute_batch("CREATE TABLE strict (a INTEGER, must TEXT NOT NULL); CREATE VIEW v AS SELECT 1 AS a")
        .unwrap();
    let error = target.load("table: strict\nstrategy: append", 3, &batch(vec![("a", ints(&[1]))])).await.unwrap_err();
    assert!(error.to_string().contains("column `must` of `strict` must not be NULL"), "{error}");
    let error = target.load("table: v\nstrategy: append", 3, &batch(vec![("a", ints(&[1]))])).await.unwrap_err();
    assert!(error.to_string().contains("is a view"), "{error}");
    let error = target.load("table: other.t\nstrategy: append", 3, &batch(vec![("a", ints(&[1]))])).await.unwrap_err();
    assert!(error.to_string().contains("has no schema `other`"), "{error}");
    let error = target
        .load("table: t\nstrategy: delete+insert\nscope: dayy = 1", 3, &batch(vec![("a", ints(&[1]))]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("column `dayy` does not exist"), "{error}");
    let error =
        target.open("table: t\nstrategy: delete+insert\nkey: [aa]", 3, &batch(vec![("a", ints(&[1]))])).unwrap_err();
    assert!(error.to_string().contains("no column `aa`"), "{error}");
}

#[tokio::test]
async fn replace_keeps_what_hangs_on_the_table_and_else_may_make_it_anew() {
    let target = Target::new();
    target
        .sql()
        .execute_batch(
            "CREATE TABLE t (a INTEGER CHECK (a < 100), note TEXT DEFAULT 'none'); CREATE INDEX by_a ON t (a);
             CREATE VIEW v AS SELECT a FROM t; INSERT INTO t VALUES (1, 'old');",
        )
        .unwrap();
    let load = "table: t\nstrategy: replace";
    target.load(load, 1, &batch(vec![("a", ints(&[5, 6]))])).await.unwrap();
    assert_eq!(target.ask::<i64>("SELECT sum(a) FROM v"), 11);
    assert_eq!(target.ask::<String>("SELECT max(note) FROM t"), "none");
    assert_eq!(target.ask::<i64>("SELECT count(*) FROM sqlite_master WHERE name = 'by_a'"), 1);

    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let error = target.load(load, 2, &batch(vec![("a", text.clone())])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    target.sql().execute_batch("DROP VIEW v; DROP INDEX by_a").unwrap();
    target.load(load, 2, &batch(vec![("a", text)])).await.unwrap();
    assert_eq!(target.ask::<String>("SELECT a FROM t"), "x");
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_publishes_nothing() {
    let target = Target::new();
    target.sql().execute_batch("CREATE TABLE t (a INTEGER UNIQUE); INSERT INTO t VALUES (1)").unwrap();
    let rows = batch(vec![("a", ints(&[2, 3, 1]))]);
    let error = target.load("table: t\nstrategy: append", 1, &rows).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("UNIQUE constraint failed: t.a"), "{error}");
    assert_eq!(target.ask::<i64>("SELECT count(*) FROM t"), 1);
    assert_eq!(target.ask::<i64>("SELECT count(*) FROM sqlite_master WHERE name = '_gristmill_loads'"), 0);
    let sink = target.open("table: t\nstrategy: append", 1, &rows).unwrap();
    assert_eq!(sink.last(&key(1).slot).await.unwrap(), None);
    assert_eq!(target.leftovers().await.unwrap().len(), 1, "the staged rows wait for another try");
    sink.abort(&key(1)).await.unwrap();
    assert!(target.leftovers().await.unwrap().is_empty());
}

#[tokio::test]
async fn rows_that_others_point_to_are_replaced_but_never_lost() {
    let target = Target::new();
    target
        .sql()
        .execute_batch(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT);
             CREATE TABLE child (p INTEGER REFERENCES parent (id) ON DELETE CASCADE);
             INSERT INTO parent VALUES (1, 'old'), (2, 'old'); INSERT INTO child VALUES (1);",
        )
        .unwrap();
    let names = |count: usize| Arc::new(StringArray::from(vec!["new"; count])) as ArrayRef;
    let load = "table: parent\nstrategy: replace";
    target.load(load, 1, &batch(vec![("id", ints(&[1, 3])), ("name", names(2))])).await.unwrap();
    assert_eq!(target.ask::<i64>("SELECT count(*) FROM child"), 1, "a replaced row does not cascade");
    let error = target.load(load, 2, &batch(vec![("id", ints(&[3])), ("name", names(1))])).await.unwrap_err();
    assert!(error.to_string().contains("point to nothing"), "{error}");
    assert_eq!(target.ask::<i64>("SELECT count(*) FROM parent"), 2);
}

#[tokio::test]
async fn several_key_columns_and_null_keys_are_replaced_not_doubled() {
    let rows = |a: Vec<Option<i64>>, b: Vec<Option<&str>>, v: Vec<i64>| {
        batch(vec![
            ("a", Arc::new(Int64Array::from(a)) as ArrayRef),
            ("b", Arc::new(StringArray::from(b))),
            ("v", ints(&v)),
        ])
    };
    let load = "table: t\nstrategy: delete+insert\nkey: [a, b]";
    for without_rowid in [false, true] {
        let target = Target::new();
        if without_rowid {
            target
                .sql()
                .execute_batch("CREATE TABLE t (a INTEGER, b TEXT, v INTEGER PRIMARY KEY) WITHOUT ROWID")
                .unwrap();
        }
        let first =
            rows(vec![Some(1), Some(1), None, None], vec![Some("x"), Some("y"), Some("x"), None], vec![1, 2, 3, 4]);
        target.load(load, 1, &first).await.unwrap();
        let second =
            rows(vec![Some(1), None, None, None], vec![Some("x"), None, None, Some("z")], vec![10, 11, 12, 13]);
        target.load(load, 2, &second).await.unwrap();
        let got = sorted_rows(&[target.read("table: t").await.unwrap()]).unwrap();
        assert_eq!(got, ["1│x│10│", "1│y│2│", "∅│x│3│", "∅│z│13│", "∅│∅│11│", "∅│∅│12│"]);
    }
}

#[tokio::test]
async fn a_target_that_cannot_be_written_is_said_before_rows_are_read() {
    let target = Target::new();
    let rows = batch(vec![("a", ints(&[1]))]);
    let at = |path: &str| {
        let connection = SqliteConnection::new(&SqliteConfig { path: path.into() }, &target.folders());
        let load = yaml::decode(&yaml::parse("p", "from: x\nto: db\ntable: t\nstrategy: append").unwrap()).unwrap();
        let owner = OwnerId(RunId::new("run-1"));
        let context = LoadContext {
            key: key(1),
            owner,
            schema: rows.schema(),
            source_key: Vec::new(),
            alone: false,
            open: target.folders(),
            ledger_retention: None,
        };
        connection.sink(&load, context).unwrap()
    };
    // A folder that is not there yet is made by the commit.
    at("no/such/w.db").prepare().await.unwrap();
    assert!(!target.folder.path().join("no").exists());
    std::fs::write(target.folder.path().join("text.db"), "not a database, but long enough to look like one …").unwrap();
    assert_eq!(at("text.db").prepare().await.unwrap_err().kind(), ErrorKind::Data);
    let error = at("text.db/w.db").prepare().await.unwrap_err();
    assert!(error.message().contains("is not a folder"), "{error}");
    assert_eq!(at("").prepare().await.unwrap_err().kind(), ErrorKind::NotFound);
    at("new.db").prepare().await.unwrap();
    assert!(!target.folder.path().join("new.db").exists());

    // A rival that holds the database: try again later, nothing is lost.
    target.sql().execute_batch("CREATE TABLE t (a INTEGER)").unwrap();
    let rival = target.sql();
    rival.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = target.load("table: t\nstrategy: append", 1, &rows).await.unwrap_err();
    assert!(error.is_retryable() && error.kind() == ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_torn_side_file_is_found_out() {
    let target = Target::new();
    let rows = batch(vec![("a", ints(&[1, 2, 3]))]);
    let sink = target.open("table: t\nstrategy: append", 1, &rows).unwrap();
    let task = TaskKey { load: key(1), owner: OwnerId(RunId::new("run-1")), partition: 0, attempt: 1 };
    let staged = sink.stage(&task, Rows::from_batches(rows.schema(), vec![rows.clone()])).await.unwrap();
    let path = target.folders().state.join("staging/sqlite").join(staged.payload["file"].as_str().unwrap());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = sink.commit(std::slice::from_ref(&staged), &Checkpoint::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = sink.commit(&[staged], &Checkpoint::default()).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("run the step again"), "{error}");
    assert_eq!(target.ask::<i64>("SELECT count(*) FROM sqlite_master"), 0);
}

prop_compose! {
    fn any_rows()(rows in proptest::collection::vec((
        proptest::option::of(any::<i64>()),
        proptest::option::of(any::<f64>().prop_filter("NaN is refused", |real| !real.is_nan()).prop_map(|real| real + 0.0)),
        proptest::option::of(any::<String>()),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        proptest::option::of(any::<bool>()),
        proptest::option::of(-719_528..=2_932_896_i32),
        proptest::option::of(-62_167_219_200_000_000..=253_402_300_799_999_999_i64),
        proptest::option::of(-999_999_999_999_999..=999_999_999_999_999_i64),
        (proptest::option::of(any::<i32>()), proptest::option::of(any::<f32>().prop_filter("NaN", |real| !real.is_nan()).prop_map(|real| real + 0.0))),
    ), 0..50)) -> RecordBatch {
        macro_rules! column {
            ($array:ty, $place:tt) => {
                Arc::new(rows.iter().map(|row| row.$place.clone()).collect::<$array>()) as ArrayRef
            };
        }
        let decimals: Decimal128Array = rows.iter().map(|row| row.7.map(i128::from)).collect();
        let zoned: TimestampMicrosecondArray = rows.iter().map(|row| row.6).collect();
        let blobs: BinaryArray = rows.iter().map(|row| row.3.as_deref()).collect();
        let small: Int32Array = rows.iter().map(|row| row.8.0).collect();
        let single: Float32Array = rows.iter().map(|row| row.8.1).collect();
        batch(vec![
            ("i", column!(Int64Array, 0)),
            ("f", column!(Float64Array, 1)),
            ("a \"text\"", column!(StringArray, 2)),
            ("b", Arc::new(blobs)),
            ("t", column!(BooleanArray, 4)),
            ("d", column!(Date32Array, 5)),
            ("at", column!(TimestampMicrosecondArray, 6)),
            ("zoned", Arc::new(zoned.with_timezone("UTC"))),
            ("m", Arc::new(decimals.clone().with_precision_and_scale(18, 6).unwrap())),
            ("n", Arc::new(decimals.with_precision_and_scale(38, 20).unwrap())),
            ("select", Arc::new(small)),
            ("s", Arc::new(single)),
        ])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn random_rows_are_read_back_as_they_were_written(rows in any_rows()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let target = Target::new();
            target.load("table: t\nstrategy: replace", 1, &rows).await.unwrap();
            let got = target.read("table: t").await.unwrap();
            for (index, field) in rows.schema().fields().iter().enumerate() {
                let (wanted, got) = (rows.column(index), got.column(index));
                // Narrow numbers come back wide; everything else as it was.
                let wanted = match field.data_type() {
                    DataType::Int32 => arrow::compute::cast(wanted, &DataType::Int64).unwrap(),
                    DataType::Float32 => arrow::compute::cast(wanted, &DataType::Float64).unwrap(),
                    _ => wanted.clone(),
                };
                assert_eq!(&wanted, got, "{}", field.name());
            }
        });
    }
}

#[tokio::test]
async fn another_runs_load_of_the_same_key_is_not_taken_for_ones_own() {
    let target = Target::new();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    // A ledger that an older version has made says nothing of owners.
    target
        .sql()
        .execute_batch(
            "CREATE TABLE _gristmill_loads (key TEXT PRIMARY KEY NOT NULL, slot TEXT NOT NULL, generation INTEGER NOT \
             NULL, rows INTEGER NOT NULL, checkpoint TEXT NOT NULL, committed_at TEXT NOT NULL)",
        )
        .unwrap();
    let load = "table: rows\nstrategy: append";
    target.load(load, 1, &batch).await.unwrap();
    assert!(target.load(load, 1, &batch).await.unwrap().already);
    target.sql().execute_batch("UPDATE _gristmill_loads SET owner = 'run-2'").unwrap();
    let error = target.load(load, 1, &batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("`run-2`"), "{error}");
    assert_eq!(target.ask::<i64>("SELECT count(*) FROM rows"), 2);
}

#[tokio::test]
async fn columns_that_a_load_adds_are_told() {
    let target = Target::new();
    target.sql().execute_batch("CREATE TABLE rows (id INTEGER, amount REAL)").unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("ID", ids.clone()), ("amout", ids)]).unwrap();
    let sink = target.open("table: rows\nstrategy: append", 1, &batch).unwrap();
    sink.prepare().await.unwrap();
    let notes = sink.changes().await.unwrap();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains("`amout`") && notes[0].contains("no `amount`"), "{notes:?}");
}
