//! The contract, the protocol under faults, and what the writers do with any rows.

use super::layout::{INTENTS, STAGING, is_target_data, partition_values, split};
use super::log::Log;
use super::place::Place;
use super::*;
use crate::conformance::{SinkTarget, random_loads, scope_suite, sink_suite, sorted_rows};
use crate::stores::StoreOptions;
use crate::{OpenContext, Rows};
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use gristmill_model::spec::{FileFormat, OneOrMany, Strategy};
use gristmill_model::{Error, ErrorKind, Interval, RunId};
use gristmill_testkit::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use gristmill_testkit::scripted::{HttpServer, Reply};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

mod blocks;
mod compact;
mod compact_kept;
mod faults;
mod forget;
mod readable;
mod rivals;
mod shape;
mod single;
mod speed;
mod typed;
mod writing;

/// A target of its own: a folder, or a bucket of a server of its own.
pub(super) struct Target {
    pub(super) folder: tempfile::TempDir,
    pub(super) store: Arc<Store>,
    server: Option<S3Server>,
    /// `readable_staging`.
    readable: bool,
}

pub(super) const PATH: &str = "lake/rows";

fn s3_options() -> StoreOptions {
    StoreOptions {
        access_key_id: Some(ACCESS_KEY.to_owned()),
        secret_access_key: Some(SECRET_KEY.to_owned()),
        ..StoreOptions::default()
    }
}

impl Target {
    pub(super) fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let context = folders(folder.path());
        let store = Arc::new(Store::open("./data", &StoreOptions::default(), &context).unwrap());
        Self { folder, store, server: None, readable: false }
    }

    pub(super) fn s3() -> Self {
        Self::on(S3Server::start(&["bucket"]).unwrap())
    }

    fn on(server: S3Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions { endpoint: Some(server.endpoint.clone()), ..s3_options() };
        let store = Store::open("s3://bucket/prefix", &options, &folders(folder.path())).unwrap();
        Self { folder, store: Arc::new(store), server: Some(server), readable: false }
    }

    /// A bucket in which what is staged can be read.
    pub(super) fn s3_readable() -> Self {
        Self { readable: true, ..Self::s3() }
    }

    /// The same in a store that does not copy.
    pub(super) fn s3_without_copies() -> Self {
        Self { readable: true, ..Self::on(S3Server::without_copies(&["bucket"]).unwrap()) }
    }

    pub(super) fn place(&self) -> Place {
        Place::new(&self.store, PATH).unwrap()
    }

    pub(super) fn open(&self, mut load: LoadSpec, context: LoadContext) -> Result<FilesSink> {
        load.path = Some(PATH.to_owned());
        load.readable_staging = self.readable;
        FilesSink::new(&self.store, &load, context)
    }

    pub(super) fn open_uploads(&self) -> Vec<String> {
        self.server.as_ref().map(|server| server.open_uploads().unwrap()).unwrap_or_default()
    }

    pub(super) fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("data").join(PATH)
    }
}

fn folders(folder: &Path) -> OpenContext {
    OpenContext { project: folder.to_owned(), state: folder.join(".gristmill") }
}

#[async_trait]
impl SinkTarget for Target {
    fn folders(&self) -> OpenContext {
        folders(self.folder.path())
    }

    fn strategies(&self) -> Vec<Strategy> {
        vec![Strategy::Append, Strategy::Replace, Strategy::PartitionOverwrite]
    }

    fn sink(&self, mut load: LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
        load.path = Some(PATH.to_owned());
        load.readable_staging = self.readable;
        open_sink(self.store.clone(), &load, context)
    }

    fn is_partitioned(&self) -> bool {
        true
    }

    async fn rows(&self) -> Result<Vec<RecordBatch>> {
        read_parquet(&self.place()).await
    }

    async fn leftovers(&self) -> Result<Vec<String>> {
        let place = self.place();
        let Some(server) = &self.server else {
            let mut left = place.names(STAGING).await?;
            let beside = std::fs::read_dir(self.root().parent().unwrap()).into_iter().flatten();
            left.extend(beside.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|n| n != "rows"));
            return Ok(left);
        };
        let mut left = place.names(INTENTS).await?;
        left.extend(place.names(STAGING).await?);
        left.extend(server.open_uploads().unwrap());
        Ok(left)
    }
}

/// All rows as a reader of the folder sees them, partition values as text columns.
pub(super) async fn read_parquet(place: &Place) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    for path in place.data_files().await? {
        assert!(is_target_data(&path));
        let Some(bytes) = place.read(&path).await? else { continue };
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            let mut fields: Vec<Arc<Field>> = batch.schema().fields().to_vec();
            let mut columns = batch.columns().to_vec();
            for (name, value) in partition_values(split(&path).0).into_iter().flatten() {
                fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
                columns.push(Arc::new(StringArray::from(vec![value; batch.num_rows()])));
            }
            if batch.num_rows() > 0 {
                batches.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap());
            }
        }
    }
    Ok(batches)
}

pub(super) fn load(strategy: Strategy, partition_by: &[&str]) -> LoadSpec {
    LoadSpec {
        path: Some(PATH.to_owned()),
        partition_by: OneOrMany(partition_by.iter().map(|&name| name.to_owned()).collect()),
        ..LoadSpec::new("rows".into(), "lake".into(), strategy)
    }
}

pub(super) fn key(generation: u32) -> LoadKey {
    let date = chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap();
    let slot = Slot {
        pipeline: "tests".into(),
        step: "load".into(),
        interval: Interval::day(date),
        target: "lake:rows".to_owned(),
    };
    LoadKey { slot, generation }
}

pub(super) fn owner(name: &str) -> OwnerId {
    OwnerId(RunId::new(name))
}

pub(super) fn context(target: &Target, schema: SchemaRef, key: LoadKey, owner: OwnerId) -> LoadContext {
    let open = folders(target.folder.path());
    LoadContext { key, owner, schema, source_key: Vec::new(), alone: false, open, ledger_retention: None }
}

pub(super) fn task(key: &LoadKey, owner: &OwnerId, partition: u32) -> TaskKey {
    TaskKey { load: key.clone(), owner: owner.clone(), partition, attempt: 1 }
}

/// `id`s and their `day`s.
pub(super) fn rows(rows: &[(i64, &str)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let days: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
    RecordBatch::try_from_iter([("id", ids), ("day", days)]).unwrap()
}

/// Stages each batch by a writer of its own.
pub(super) async fn stage_all(sink: &FilesSink, batches: &[RecordBatch]) -> Result<Vec<Staged>> {
    let mut staged = Vec::new();
    for (at, batch) in batches.iter().enumerate() {
        let task = task(&sink.context.key, &sink.context.owner, u32::try_from(at).unwrap());
        staged.push(sink.stage(&task, Rows::from_batches(batch.schema(), vec![batch.clone()])).await?);
    }
    Ok(staged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_files_are_a_sink() {
    sink_suite(|| async { Ok(Target::local()) }).await.unwrap();
    scope_suite(|| async { Ok(Target::local()) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_loads_leave_what_a_table_in_memory_holds() {
    random_loads(|| async { Ok(Target::local()) }, 0..8).await.unwrap();
    random_loads(|| async { Ok(Target::s3()) }, 0..2).await.unwrap();
    random_loads(|| async { Ok(Target::s3_readable()) }, 2..4).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_objects_are_a_sink() {
    sink_suite(|| async { Ok(Target::s3()) }).await.unwrap();
    sink_suite(|| async { Ok(Target::s3_readable()) }).await.unwrap();
}

fn refuse(change: impl FnOnce(&mut LoadSpec)) -> Error {
    let target = Target::local();
    let mut spec = load(Strategy::Append, &[]);
    change(&mut spec);
    let schema = rows(&[]).schema();
    FilesSink::new(&target.store, &spec, context(&target, schema, key(1), owner("run"))).unwrap_err()
}

#[test]
fn what_files_cannot_do_is_refused_with_a_way_out() {
    let error = refuse(|spec| spec.strategy = Strategy::DeleteInsert);
    assert!(error.message().contains("delete+insert") && error.hint_text().unwrap().contains("partition_overwrite"));
    for strategy in [Strategy::Merge, Strategy::Scd2] {
        let error = refuse(|spec| spec.strategy = strategy);
        assert!(error.message().contains(strategy.as_str()) && error.hint_text().unwrap().contains("a database"));
    }
    let error = refuse(|spec| spec.strategy = Strategy::TruncateInsert);
    assert_eq!(error.hint_text(), Some("use `strategy: replace`"));
    let error = refuse(|spec| spec.created_column = Some("id".to_owned()));
    assert!(error.message().contains("`created_column`"), "{error:?}");
    let error = refuse(|spec| spec.partition_by = OneOrMany(vec!["dai".to_owned()]));
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Schema, Some("did you mean `day`?")));
    let error = refuse(|spec| spec.partition_by = OneOrMany(vec!["day".to_owned(), "id".to_owned()]));
    assert!(error.message().contains("nothing is left"), "{error:?}");
    let error = refuse(|spec| spec.strategy = Strategy::PartitionOverwrite);
    assert!(error.message().contains("needs to know the partitions"), "{error:?}");
    let error = refuse(|spec| spec.scope = Some("day = '1'".to_owned()));
    assert!(error.message().contains("means nothing"), "{error:?}");
    let error = refuse(|spec| spec.format = Some(FileFormat::Orc));
    assert!(error.message().contains("can be read, not written"), "{error:?}");
    let error = refuse(|spec| {
        (spec.path, spec.strategy) = (Some("x.csv".to_owned()), Strategy::Replace);
        spec.compression = Some(gristmill_model::spec::Compression::Gzip);
    });
    assert_eq!(error.hint_text(), Some("name the file `x.csv.gz`, or leave `compression` out"));
    let error = refuse(|spec| spec.table = Some("t".to_owned()));
    assert_eq!(error.kind(), ErrorKind::Config);
    let error = refuse(|spec| spec.compression_level = Some(99));
    assert!(error.hint_text().unwrap().contains("1 to 22"), "{error:?}");
}

#[test]
fn a_path_into_what_is_not_for_rows_is_refused_and_a_hidden_one_is_not() {
    let target = Target::local();
    for (path, format, is_refused) in [
        ("_gristmill/", FileFormat::Parquet, true),
        ("out/_gristmill/log/", FileFormat::Csv, true),
        ("out/_gristmill", FileFormat::Delta, true),
        ("table/_delta_log/", FileFormat::Parquet, true),
        ("_raw/.x/out/", FileFormat::Parquet, false),
        ("_prisma_migrations/", FileFormat::Delta, false),
        ("my_gristmill/", FileFormat::Parquet, false),
    ] {
        let spec = LoadSpec {
            path: Some(path.to_owned()),
            format: Some(format),
            ..LoadSpec::new("rows".into(), "lake".into(), Strategy::Append)
        };
        let opened = open_sink(target.store.clone(), &spec, context(&target, rows(&[]).schema(), key(1), owner("run")));
        assert_eq!(opened.is_err(), is_refused, "{path}");
        if let Err(error) = opened {
            assert!(error.message().contains("which is not for rows") && error.hint_text().is_some(), "{error:?}");
        }
        // What older versions have begun there is recovered all the same.
        let nothing = Arc::new(Schema::empty());
        open_sink(target.store.clone(), &spec, context(&target, nothing, key(1), owner("run"))).unwrap();
    }
}

#[tokio::test]
async fn a_web_server_is_only_read_from() {
    let target = Target::local();
    let store = Store::open("https://example.org/x", &StoreOptions::default(), &folders(target.folder.path())).unwrap();
    let context = context(&target, rows(&[]).schema(), key(1), owner("run"));
    let error = open_sink(Arc::new(store), &load(Strategy::Append, &[]), context).unwrap_err();
    assert!(error.message().contains("only be read"), "{error:?}");
}

#[tokio::test]
async fn prepare_refuses_a_target_that_is_a_file_and_leaves_nothing_behind() {
    let target = Target::local();
    let context = context(&target, rows(&[]).schema(), key(1), owner("run"));
    let sink = target.open(load(Strategy::Append, &[]), context).unwrap();
    sink.prepare().await.unwrap();
    assert_eq!(std::fs::read_dir(target.folder.path()).unwrap().count(), 0);
    std::fs::create_dir_all(target.root().parent().unwrap()).unwrap();
    std::fs::write(target.root(), "a file").unwrap();
    assert!(sink.prepare().await.unwrap_err().message().contains("is a file"));
}

#[tokio::test]
async fn rows_outside_of_the_scope_are_refused() {
    let target = Target::local();
    let mut spec = load(Strategy::PartitionOverwrite, &["day"]);
    spec.scope = Some("day = '1'".to_owned());
    let sink = target.open(spec, context(&target, rows(&[]).schema(), key(1), owner("run"))).unwrap();
    let error = stage_all(&sink, &[rows(&[(1, "1"), (2, "2")])]).await.unwrap_err();
    assert!(error.message().contains("`day=2` are outside of the scope"), "{error:?}");
}

#[tokio::test]
async fn an_overwrite_leaves_what_is_not_data_of_the_target() {
    let target = Target::local();
    for path in ["README.md", "other/a.parquet", "day=1/notes.txt", "day=2/x.parquet"] {
        let path = target.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "theirs").unwrap();
    }
    let sink = target
        .open(load(Strategy::Replace, &["day"]), context(&target, rows(&[]).schema(), key(1), owner("run")))
        .unwrap();
    let staged = stage_all(&sink, &[rows(&[(1, "1"), (2, "3")])]).await.unwrap();
    sink.commit(&staged, &Checkpoint::default()).await.unwrap();
    for path in ["README.md", "other/a.parquet", "day=1/notes.txt"] {
        assert!(target.root().join(path).exists(), "{path}");
    }
    assert!(!target.root().join("day=2").exists());
    assert_eq!(read_parquet(&target.place()).await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[tokio::test]
async fn a_partition_that_others_wrote_differently_is_the_same_partition() {
    let target = Target::local();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let months: ArrayRef = Arc::new(Int64Array::from(vec![1, 1]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("month", months)]).unwrap();
    let old = target.root().join("month=01/theirs.parquet");
    std::fs::create_dir_all(old.parent().unwrap()).unwrap();
    std::fs::write(&old, "old").unwrap();
    let spec = load(Strategy::PartitionOverwrite, &["month"]);
    let sink = target.open(spec, context(&target, batch.schema(), key(1), owner("run"))).unwrap();
    let staged = stage_all(&sink, &[batch]).await.unwrap();
    sink.commit(&staged, &Checkpoint::default()).await.unwrap();
    assert!(!old.exists());
    assert!(target.root().join("month=1").exists());
}

#[tokio::test]
async fn many_rivals_of_one_target_all_get_their_turn() {
    for target in [Target::local(), Target::s3(), Target::s3_readable()] {
        let target = &target;
        let loads = (1..=6u32).map(|number| async move {
            let name = format!("run-{number}");
            let context = context(target, rows(&[]).schema(), key(number), owner(&name));
            let sink = target.open(load(Strategy::Append, &[]), context).unwrap();
            let staged = stage_all(&sink, &[rows(&[(i64::from(number), "1")])]).await.unwrap();
            sink.commit(&staged, &Checkpoint::default()).await.unwrap();
        });
        futures::future::join_all(loads).await;
        let rows = read_parquet(&target.place()).await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 6);
        assert_eq!(Log::list(&target.place()).await.unwrap().next(), 7);
    }
}

/// The rows of batches as text, sorted: what two readers must agree on.
pub(super) fn texts(batches: &[RecordBatch], names: &[&str]) -> Vec<String> {
    let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batches: Vec<RecordBatch> = batches
        .iter()
        .map(|batch| {
            let column = |name: &&str| cast(batch.column_by_name(name).unwrap(), &DataType::Utf8).unwrap();
            RecordBatch::try_new(schema.clone(), names.iter().map(column).collect()).unwrap()
        })
        .collect();
    sorted_rows(&batches).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_go_when_they_are_old_and_get_no_rows() {
    for target in [Target::local(), Target::s3()] {
        // The interval ends with 2024-01-15: what is from before the 13th is old.
        let mut spec = load(Strategy::Append, &["day"]);
        let old = ["2024-01-11", "2024-01-12", "2024-01-13", "someday"].map(|day| (1, day));
        let open = |spec: &LoadSpec, number: u32| {
            target.open(spec.clone(), context(&target, rows(&[]).schema(), key(number), owner("run"))).unwrap()
        };
        let sink = open(&spec, 1);
        let staged = stage_all(&sink, &[rows(&old)]).await.unwrap();
        sink.commit(&staged, &Checkpoint::default()).await.unwrap();
        let keep = "3d".parse().unwrap();
        spec.retention = Some(gristmill_model::spec::Retention { keep, column: Some("day".to_owned()) });
        let sink = open(&spec, 2);
        let told = sink.changes().await.unwrap();
        assert_eq!(
            told,
            ["drops 2 partitions of `lake/rows`, older than 2024-01-13 00:00:00: `day=2024-01-11` to `day=2024-01-12`"]
        );
        let staged = stage_all(&sink, &[rows(&[(2, "2024-01-11"), (3, "2024-01-15")])]).await.unwrap();
        sink.commit(&staged, &Checkpoint::default()).await.unwrap();
        let found = texts(&read_parquet(&target.place()).await.unwrap(), &["id", "day"]);
        let left = [(1, "2024-01-11"), (2, "2024-01-11"), (1, "2024-01-13"), (3, "2024-01-15"), (1, "someday")];
        assert_eq!(found, texts(&[rows(&left)], &["id", "day"]));
        // Without new rows, too.
        let sink = open(&spec, 3);
        sink.commit(&[], &Checkpoint::default()).await.unwrap();
        let found = texts(&read_parquet(&target.place()).await.unwrap(), &["id", "day"]);
        assert_eq!(found, texts(&[rows(&left[2..])], &["id", "day"]));
        assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
    }
    let error = refuse(|spec| {
        let keep = "3d".parse().unwrap();
        spec.retention = Some(gristmill_model::spec::Retention { keep, column: None });
    });
    assert!(error.message().contains("needs a partition column that holds dates"), "{error:?}");
}

#[tokio::test]
async fn a_bucket_is_made_for_a_load_where_that_is_wanted() {
    for create_bucket in [None, Some(true)] {
        // The other server makes folders as objects come, so that a bucket is never missed there.
        let server = HttpServer::start(|received, _| match received.method.as_str() {
            "HEAD" => Reply::status(404, ""),
            _ => Reply::status(200, "").header("ETag", "\"1\""),
        });
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions { endpoint: Some(server.url.clone()), create_bucket, ..s3_options() };
        let store = Arc::new(Store::open("s3://bucket/some", &options, &folders(folder.path())).unwrap());
        // How the probe itself ends is not asked: this server deletes nothing.
        drop(Place::new(&store, "rows").unwrap().probe().await);
        let made = server.received().iter().any(|asked| asked.method == "PUT" && asked.path() == "/bucket/");
        assert_eq!(made, create_bucket == Some(true), "{:?}", server.received());
    }
}
