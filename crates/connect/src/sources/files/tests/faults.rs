//! Files that change, and stores that fail, while they are read: every row comes once, or none and an error that names
//! the file.

use super::*;
use futures::StreamExt;
use gristmill_testkit::http::{Fault, FaultyProxy, Passing};
use gristmill_testkit::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use object_store::ObjectStoreExt;

/// A bucket, and a way to it that can be made to fail.
struct Bucket {
    server: S3Server,
    proxy: Option<FaultyProxy>,
}

impl Bucket {
    fn new() -> Self {
        Self { server: S3Server::start(&["bucket"]).unwrap(), proxy: None }
    }

    fn through(&mut self, tell: impl FnMut(&Passing) -> Option<Fault> + Send + 'static) {
        self.proxy = Some(FaultyProxy::start(&self.server.endpoint, tell).unwrap());
    }

    fn open(&self, endpoint: &str) -> FilesConnection {
        let context = OpenContext { project: "/".into(), state: "/nowhere".into() };
        let options = StoreOptions {
            endpoint: Some(endpoint.to_owned()),
            access_key_id: Some(ACCESS_KEY.to_owned()),
            secret_access_key: Some(SECRET_KEY.to_owned()),
            ..StoreOptions::default()
        };
        FilesConnection::open("s3://bucket", options, &context).unwrap()
    }

    async fn put(&self, name: &str, bytes: Vec<u8>) {
        let connection = self.open(&self.server.endpoint);
        connection.store().store.put(&name.into(), bytes.into()).await.unwrap();
    }

    async fn delete(&self, name: &str) {
        self.open(&self.server.endpoint).store().store.delete(&name.into()).await.unwrap();
    }

    fn source(&self, yaml: &str) -> Arc<dyn Source> {
        let node = parse("p.yaml", &format!("from: lake\n{yaml}")).unwrap();
        let spec: ExtractSpec = decode(&node).unwrap();
        let endpoint = self.proxy.as_ref().map_or(&self.server.endpoint, |proxy| &proxy.endpoint);
        self.open(endpoint).source(&spec).unwrap()
    }
}

/// Fails every second answer that holds bytes of a file.
fn every_second(fault: Fault) -> impl FnMut(&Passing) -> Option<Fault> {
    let mut count = 0;
    move |passing| {
        let reads = passing.method == "GET" && passing.path.contains("/data.");
        count += usize::from(reads);
        (reads && count % 2 == 1).then_some(fault)
    }
}

fn csv(rows: usize) -> String {
    let mut text = "k,v\n".to_owned();
    (0..rows).for_each(|row| text.push_str(&format!("{row},\"some text,\nin two lines\"\n")));
    text
}

fn ndjson(rows: usize) -> String {
    (0..rows).map(|row| format!("{{\"k\": {row}, \"v\": \"some text that takes its place\"}}\n")).collect()
}

fn parquet(rows: i64) -> Vec<u8> {
    let lake = Lake::new(&[]);
    let groups = parquet::file::properties::WriterProperties::builder();
    let groups = groups.set_max_row_group_row_count(Some(1_000)).set_dictionary_enabled(false).build();
    lake.parquet_with("t", &batch(&[("k", ints(&(0..rows).collect::<Vec<_>>()))]), Some(groups));
    std::fs::read(lake.0.path().join("t")).unwrap()
}

const ROWS: usize = 5_000;

/// Every format that is read in a way of its own, whole and in pieces.
const READS: [(&str, &str); 6] = [
    ("csv", ""),
    ("csv", "units: {strategy: byte_range, target_rows: 2000}"),
    ("ndjson", ""),
    ("ndjson", "units: {strategy: byte_range, target_rows: 2000}"),
    ("parquet", "units: {strategy: files}"),
    ("parquet", "units: {target_rows: 2000}"),
];

fn contents(format: &str) -> Vec<u8> {
    match format {
        "csv" => csv(ROWS).into_bytes(),
        "ndjson" => ndjson(ROWS).into_bytes(),
        _ => parquet(ROWS as i64),
    }
}

fn numbers(table: &Table) -> Vec<usize> {
    table.rows.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect()
}

async fn read(source: &Arc<dyn Source>) -> Result<Table, Error> {
    let schema = source.schema().await?;
    all(source, schema, OnFail::Fail).await
}

#[tokio::test]
async fn a_store_that_fails_now_and_then_costs_no_row_and_doubles_none() {
    let mut bucket = Bucket::new();
    for format in ["csv", "ndjson", "parquet"] {
        bucket.put(&format!("data.{format}"), contents(format)).await;
    }
    let (text, all) = (&READS[..1], &READS[..]);
    let faults = [
        (Fault::Hangup, text),
        (Fault::Status(500), text),
        (Fault::Status(503), &READS[4..5]),
        (Fault::Cut(700), all),
        (Fault::Trickle(20_000), text),
    ];
    for (fault, reads) in faults {
        for (format, units) in reads {
            bucket.through(every_second(fault));
            let table = read(&bucket.source(&format!("path: data.{format}\n{units}"))).await;
            let table = table.unwrap_or_else(|error| panic!("{fault:?} {format} {units}: {error:?}"));
            assert_eq!(numbers(&table), (0..ROWS).collect::<Vec<_>>(), "{fault:?} {format} {units}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_too_short_is_refused() {
    let mut bucket = Bucket::new();
    for (format, units) in READS {
        bucket.put(&format!("data.{format}"), contents(format)).await;
        let source = bucket.source(&format!("path: data.{format}\n{units}"));
        let (schema, plan) = (source.schema().await.unwrap(), source.plan(&ReadRequest::default()).await.unwrap());
        bucket.through(|passing| (passing.method == "GET").then_some(Fault::Shorten(900)));
        let again = bucket.source(&format!("path: data.{format}\n{units}"));
        let error = units_of(&again, &plan.units, schema).await.err().unwrap();
        assert!(error.message().contains(&format!("data.{format}")), "{format} {units}: {error:?}");
        assert_ne!(error.kind(), ErrorKind::Data, "{format} {units}: {error:?}");
        bucket.proxy = None;
    }
}

async fn units_of(source: &Arc<dyn Source>, planned: &[WorkUnit], schema: SchemaRef) -> Result<Table, Error> {
    units(source, planned, schema, OnFail::Fail).await
}

#[tokio::test]
async fn an_object_that_is_replaced_or_removed_after_the_plan_is_a_conflict() {
    let bucket = Bucket::new();
    for (format, units) in READS {
        for replaced in [true, false] {
            let name = format!("data.{format}");
            let bytes = contents(format);
            bucket.put(&name, bytes.clone()).await;
            let source = bucket.source(&format!("path: {name}\n{units}"));
            let plan = source.plan(&ReadRequest::default()).await.unwrap();
            if replaced {
                // Of the same length, so that only its tag tells.
                bucket.put(&name, bytes.into_iter().map(|byte| if byte == b'1' { b'2' } else { byte }).collect()).await;
            } else {
                bucket.delete(&name).await;
            }
            let error = units_of(&source, &plan.units, source.schema().await.unwrap()).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{format} {units} {replaced}: {error:?}");
            let what = if replaced { "has been changed" } else { "has disappeared" };
            assert_eq!(error.message(), format!("`{name}` {what} since it was looked at"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn an_object_that_is_replaced_while_it_is_read_is_a_conflict() {
    let mut bucket = Bucket::new();
    let rows = 200_000;
    bucket.put("data.csv", csv(rows).into_bytes()).await;
    let mut first = true;
    // Not the look at its beginning, but the reading is cut off, far behind what the reader takes ahead.
    let cut = move |passing: &Passing| {
        let reads = passing.method == "GET" && passing.range.is_none() && passing.path.contains("/data.");
        (reads && !std::mem::take(&mut first)).then_some(Fault::Cut(6 << 20))
    };
    bucket.through(cut);
    let source = bucket.source("path: data.csv");
    let schema = source.schema().await.unwrap();
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    let scan = Scan { schema, batch_size: 10, on_bad_row: OnFail::Fail, rejects: None };
    let mut stream = source.read(&plan.units[0], &scan);
    stream.next().await.unwrap().unwrap();
    bucket.put("data.csv", csv(rows).replace("some", "SOME").into_bytes()).await;
    let mut error = None;
    while let Some(batch) = stream.next().await {
        if let Err(found) = batch {
            error = Some(found);
            break;
        }
    }
    let error = error.unwrap();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Conflict, "`data.csv` has been changed since it was looked at")
    );
}

#[tokio::test]
async fn a_store_that_stays_broken_is_an_error_that_names_the_file() {
    let mut bucket = Bucket::new();
    bucket.put("data.ndjson", contents("ndjson")).await;
    bucket.through(|passing| {
        passing.path.contains("/data.").then_some(Fault::Cut(0)).filter(|_| passing.method == "GET")
    });
    let error = read(&bucket.source("path: data.ndjson")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.is_retryable() && error.message().contains("data.ndjson"), "{error:?}");
}

/// What may happen to a file on disk.
#[derive(Debug, Clone, Copy)]
enum Change {
    Grow,
    Shrink,
    Replace,
    Remove,
}

fn change(path: &Path, change: Change) {
    let bytes = std::fs::read(path).unwrap();
    match change {
        Change::Grow => std::fs::write(path, [&bytes[..], &bytes[..]].concat()).unwrap(),
        Change::Shrink => {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(bytes.len() as u64 / 2 + 3).unwrap();
        }
        Change::Replace => {
            let other = path.with_extension("other");
            std::fs::write(&other, bytes).unwrap();
            std::fs::rename(other, path).unwrap();
        }
        Change::Remove => std::fs::remove_file(path).unwrap(),
    }
}

#[tokio::test]
async fn a_file_that_changes_between_plan_and_reading_is_a_conflict() {
    for (format, units) in READS.into_iter().chain([("json", "")]) {
        for kind in [Change::Grow, Change::Shrink, Change::Replace, Change::Remove] {
            let lake = Lake::new(&[]);
            let name = format!("data.{format}");
            let document = || format!("[{}]", ndjson(10).trim().replace('\n', ","));
            lake.write(&name, &if format == "json" { document().into_bytes() } else { contents(format) });
            let source = lake.source(&format!("path: {name}\n{units}")).unwrap();
            let schema = source.schema().await.unwrap();
            let plan = source.plan(&ReadRequest::default()).await.unwrap();
            change(&lake.0.path().join(&name), kind);
            let error = units_of(&source, &plan.units, schema).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{format} {units} {kind:?}: {error:?}");
            assert!(error.message().contains(&format!("`{name}` has")), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_a_conflict() {
    let rows = 200_000;
    for (format, text) in [("csv", csv(rows)), ("ndjson", ndjson(rows))] {
        for kind in [Change::Grow, Change::Shrink, Change::Replace, Change::Remove] {
            for units in ["", "units: {strategy: byte_range, max: 2, target_rows: 150000}"] {
                let lake = Lake::new(&[]);
                let name = format!("data.{format}");
                lake.write(&name, text.as_bytes());
                let yaml = format!("path: {name}\non_bad_row: drop\n{units}");
                let source = lake.source(&yaml).unwrap();
                let schema = source.schema().await.unwrap();
                let plan = source.plan(&ReadRequest::default()).await.unwrap();
                let scan = Scan { schema, batch_size: 10, on_bad_row: OnFail::Drop, rejects: None };
                let mut stream = source.read(plan.units.last().unwrap(), &scan);
                stream.next().await.unwrap().unwrap();
                change(&lake.0.path().join(&name), kind);
                let mut last = Ok(());
                while let Some(batch) = stream.next().await {
                    last = batch.map(drop);
                }
                let error = last.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Conflict, "{format} {units} {kind:?}: {error:?}");
                assert!(error.message().contains(&format!("`{name}` has")), "{error:?}");
            }
        }
    }
}
