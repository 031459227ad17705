//! A source of files as a whole, on a local folder.

use super::FilesConnection;
use crate::stores::StoreOptions;
use crate::types::type_name;
use crate::{Connection, Consistency, OpenContext, ReadRequest, Reject, RejectSink, Scan, Source, registry};
use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use gristmill_model::spec::{ExtractSpec, FileFormat, OnFail};
use gristmill_model::yaml::{decode, parse};
use gristmill_model::{Error, ErrorKind, WorkUnit};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

mod faults;
mod many;

/// A folder with files in it.
pub(super) struct Lake(TempDir);

impl Lake {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let lake = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, text)| lake.write(name, text.as_bytes()));
        lake
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn parquet(&self, name: &str, batch: &RecordBatch) {
        self.parquet_with(name, batch, None);
    }

    pub(super) fn parquet_with(
        &self,
        name: &str,
        batch: &RecordBatch,
        properties: Option<parquet::file::properties::WriterProperties>,
    ) {
        let mut bytes = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), properties).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        self.write(name, &bytes);
    }

    fn connection(&self) -> FilesConnection {
        let context = OpenContext { project: self.0.path().to_owned(), state: self.0.path().join(".gristmill") };
        FilesConnection::open(".", StoreOptions::default(), &context).unwrap()
    }

    /// Opens an extract, given as YAML without `from`.
    pub(super) fn source(&self, yaml: &str) -> Result<Arc<dyn Source>, Error> {
        let node = parse("p.yaml", &format!("from: lake\n{yaml}")).unwrap();
        let spec: ExtractSpec = decode(&node).unwrap();
        self.connection().source(&spec)
    }

    pub(super) async fn read(&self, yaml: &str) -> Result<Table, Error> {
        let source = self.source(yaml)?;
        let schema = source.schema().await?;
        all(&source, schema, OnFail::Fail).await
    }
}

/// What was read, as text.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<String>,
    types: Vec<String>,
    pub(super) rows: Vec<Vec<Option<String>>>,
    pub(super) rejects: Vec<Reject>,
}

impl Table {
    /// The rows, NULL as `-`, in one text each, sorted.
    pub(super) fn lines(&self) -> Vec<String> {
        let cell = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
        self.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(" ")).collect()
    }
}

/// Reads all units.
pub(super) async fn all(source: &Arc<dyn Source>, schema: SchemaRef, on_bad_row: OnFail) -> Result<Table, Error> {
    let plan = source.plan(&ReadRequest::default()).await?;
    units(source, &plan.units, schema, on_bad_row).await
}

pub(super) async fn units(
    source: &Arc<dyn Source>,
    units: &[WorkUnit],
    schema: SchemaRef,
    on_bad_row: OnFail,
) -> Result<Table, Error> {
    let rejects: Arc<Mutex<Vec<Reject>>> = Arc::default();
    let kept = rejects.clone();
    let sink = RejectSink::new(move |reject| kept.lock().unwrap().push(reject));
    let scan = Scan { schema: schema.clone(), batch_size: 2, on_bad_row, rejects: Some(sink) };
    let mut rows = Vec::new();
    for unit in units {
        for batch in source.read(unit, &scan).collect().await? {
            assert_eq!(batch.schema(), schema, "a batch has the schema asked for");
            for row in 0..batch.num_rows() {
                let cell = |column: &Arc<dyn Array>| {
                    let text = arrow::compute::cast(column, &DataType::Utf8).unwrap();
                    (!column.is_null(row)).then(|| text.as_string::<i32>().value(row).to_owned())
                };
                rows.push(batch.columns().iter().map(cell).collect());
            }
        }
    }
    let rejects = std::mem::take(&mut *rejects.lock().unwrap());
    let (columns, types) =
        schema.fields().iter().map(|field| (field.name().clone(), type_name(field.data_type()))).unzip();
    Ok(Table { columns, types, rows, rejects })
}

pub(super) fn batch(columns: &[(&str, Arc<dyn Array>)]) -> RecordBatch {
    RecordBatch::try_from_iter(columns.iter().map(|(name, array)| (*name, array.clone()))).unwrap()
}

pub(super) fn ints(values: &[i64]) -> Arc<dyn Array> {
    Arc::new(Int64Array::from(values.to_vec()))
}

#[tokio::test]
async fn the_folder_of_a_delta_table_is_not_read_as_if_all_its_files_were_its_rows() {
    let lake = Lake::new(&[("orders/_delta_log/00000000000000000000.json", "{}")]);
    lake.parquet("orders/day=1/old.parquet", &RecordBatch::new_empty(Arc::new(Schema::empty())));
    let id: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![1]));
    lake.parquet("orders/day=2/new.parquet", &RecordBatch::try_from_iter([("id", id)]).unwrap());
    for path in ["orders", "orders/", "orde*", "."] {
        let error = lake.read(&format!("path: {path}")).await.unwrap_err();
        assert!(error.message().contains("Delta table"), "{path}: {error:?}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("**/*.parquet")), "{path}: {error:?}");
    }
    let error = lake.read("path: orders/\nformat: delta").await.unwrap_err();
    assert!(error.message().contains("only written"), "{error:?}");
    assert_eq!(lake.read("path: orders/day=2/new.parquet").await.unwrap().rows.len(), 1, "a file is a file");
    assert_eq!(lake.read("path: orders/**/n*.parquet").await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn a_file_a_folder_a_pattern_and_a_list_are_read() {
    let lake = Lake::new(&[
        ("in/a.csv", "x\n1\n"),
        ("in/b.csv", "x\n2\n"),
        ("in/deep/er/c.csv", "x\n3\n"),
        ("in/_gristmill/log.csv", "x\n8\n"),
        ("in/.hidden.csv", "x\n9\n"),
        ("in/_SUCCESS", ""),
        ("in/README.md", "no data"),
    ]);
    for (path, expected) in [
        ("in/a.csv", &["1"][..]),
        ("./in/a.csv", &["1"]),
        ("in/", &["1", "2", "3"]),
        ("in", &["1", "2", "3"]),
        ("in/*.csv", &["1", "2"]),
        ("in/?.csv", &["1", "2"]),
        ("in/[b-z].csv", &["2"]),
        ("in/{a,deep/er/c}.csv", &["1", "3"]),
        ("in/**/*.csv", &["1", "2", "3"]),
        ("**/c.csv", &["3"]),
        ("in/d*", &["3"]),
        ("in/*/", &["3"]),
        ("in/.h*.csv", &["9"]),
        ("[in/b.csv, in/a.csv, in/*.csv]", &["2", "1"]),
    ] {
        let yaml = if path.starts_with("[in/b") { format!("path: {path}") } else { format!("path: \"{path}\"") };
        assert_eq!(lake.read(&yaml).await.unwrap().lines(), expected, "{path}");
    }
    let absolute = format!("path: \"{}/in/a.csv\"", lake.0.path().display());
    assert_eq!(lake.read(&absolute).await.unwrap().lines(), ["1"]);
    let url = format!("path: \"file://{}/in/?.csv\"", lake.0.path().display());
    assert_eq!(lake.read(&url).await.unwrap().lines(), ["1", "2"]);
}

#[tokio::test]
async fn a_path_is_opened_without_a_connection() {
    let lake = Lake::new(&[("in/a.csv", "x\n1\n")]);
    let context = OpenContext { project: lake.0.path().to_owned(), state: lake.0.path().join(".gristmill") };
    let spec: ExtractSpec = decode(&parse("p", "from: x").unwrap()).unwrap();
    for path in ["in/a.csv".to_owned(), format!("{}/in/*.csv", lake.0.path().display())] {
        let source = super::open_path(&path, &spec, &context).unwrap();
        let schema = source.schema().await.unwrap();
        assert_eq!(all(&source, schema, OnFail::Fail).await.unwrap().lines(), ["1"]);
    }
}

#[tokio::test]
async fn a_path_that_means_nothing_is_not_found_and_says_what_is_near() {
    let lake = Lake::new(&[("rates/2024-01-15/a.json", "[]"), ("orders.csv", "x\n1\n")]);
    for (path, message, hint) in [
        ("order.csv", "there is no file `order.csv`", "did you mean `orders.csv`?"),
        (
            "rate/2024-01-15/*.json",
            "no file matches `rate/2024-01-15/*.json`",
            "did you mean `rates/2024-01-15/*.json`?",
        ),
        ("rates/2024-01-15/*.csv", "no file matches `rates/2024-01-15/*.csv`", "`rates/2024-01-15/` holds `a.json`"),
        ("zzz/", "there is no file `zzz/`", "holds `rates/`, `orders.csv`"),
    ] {
        let error = lake.read(&format!("path: \"{path}\"")).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.message().starts_with(message), "{error}");
        assert!(error.hint_text().unwrap().contains(hint), "{path}: {error}");
    }
}

#[tokio::test]
async fn formats_are_told_by_name_or_said() {
    let lake = Lake::new(&[
        ("mixed/a.csv", "x\n1\n"),
        ("mixed/b.ndjson", "{\"x\": 2}\n"),
        ("plain/part-0000", "x\n3\n"),
        ("odd.data", "x|y\n4|5\n"),
        ("t.tsv", "x\ty\n6\t7\n"),
        ("lines.json", "{\"x\": 8}\n"),
    ]);
    let error = lake.read("path: mixed/").await.err().unwrap();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Config, "`mixed/a.csv` is csv but `mixed/b.ndjson` is ndjson")
    );
    assert_eq!(lake.read("path: mixed/\nformat: csv").await.unwrap().lines(), ["1"]);
    assert_eq!(lake.read("path: mixed/\nformat: ndjson").await.unwrap().lines(), ["2"]);
    assert_eq!(lake.read("path: plain/\nformat: csv").await.unwrap().lines(), ["3"]);
    assert_eq!(lake.read("path: plain/").await.err().unwrap().kind(), ErrorKind::NotFound);
    let error = lake.read("path: odd.data").await.err().unwrap();
    assert!(error.message().contains("cannot be told"), "{error}");
    assert_eq!(lake.read("path: odd.data\nformat: csv\ncsv: {delimiter: \"|\"}").await.unwrap().lines(), ["4 5"]);
    assert_eq!(lake.read("path: t.tsv").await.unwrap().lines(), ["6 7"], "a tab for .tsv");
    assert_eq!(lake.read("path: lines.json\nformat: ndjson").await.unwrap().lines(), ["8"]);
    let error = lake.read("path: mixed/b.ndjson\ncsv: {delimiter: \"|\"}").await.err().unwrap();
    assert!(error.message().starts_with("`csv:` is given, but"), "{error}");
}

#[tokio::test]
async fn compression_is_told_by_the_first_bytes_whatever_the_name_says() {
    use async_compression::tokio::write::{BzEncoder, GzipEncoder, XzEncoder, ZstdEncoder};
    use tokio::io::AsyncWriteExt;
    let text = b"x\n1\n2\n";
    let lake = Lake::new(&[("plain.csv.gz", "x\n1\n2\n")]);
    macro_rules! write {
        ($encoder:ident, $($name:expr),*) => {
            let mut encoder = $encoder::new(Vec::new());
            encoder.write_all(text).await.unwrap();
            encoder.shutdown().await.unwrap();
            let bytes = encoder.into_inner();
            $(lake.write($name, &bytes);)*
        };
    }
    write!(GzipEncoder, "a.csv.gz", "hidden.csv");
    write!(BzEncoder, "a.csv.bz2");
    write!(XzEncoder, "a.csv.xz");
    write!(ZstdEncoder, "a.csv.zst");
    for name in ["a.csv.gz", "hidden.csv", "a.csv.bz2", "a.csv.xz", "a.csv.zst", "plain.csv.gz"] {
        assert_eq!(lake.read(&format!("path: {name}")).await.unwrap().lines(), ["1", "2"], "{name}");
    }
    let torn = std::fs::read(lake.0.path().join("a.csv.gz")).unwrap();
    lake.write("torn.csv.gz", &torn[..torn.len() - 9]);
    let error = lake.read("path: torn.csv.gz").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    assert!(error.to_string().contains("torn.csv.gz"), "{error}");
}

#[tokio::test]
async fn hive_columns_come_last_typed_and_win() {
    let lake = Lake::new(&[
        ("t/day=2024-01-15/month=01/city=S%C3%A3o%20Paulo/a.csv", "x,month\n1,77\n"),
        ("t/day=__HIVE_DEFAULT_PARTITION__/month=12/city=Rome/a.csv", "x,month\n2,77\n"),
    ]);
    let table = lake.read("path: t/").await.unwrap();
    assert_eq!(table.columns, ["x", "day", "month", "city"]);
    assert_eq!(table.types, ["bigint", "date", "bigint", "text"]);
    assert_eq!(table.lines(), ["1 2024-01-15 1 São Paulo", "2 - 12 Rome"]);
    let typed = lake.read("path: t/\nschema: {month: text, x: double}").await.unwrap();
    assert_eq!(typed.lines(), ["1.0 2024-01-15 01 São Paulo", "2.0 - 12 Rome"]);
    let chosen = lake.read("path: t/\ncolumns: [month, x]").await.unwrap();
    assert_eq!(chosen.lines(), ["1 1", "12 2"]);
    let one = lake.read("path: \"t/day=2024-*\"").await.unwrap();
    assert_eq!(one.lines(), ["1 2024-01-15 1 São Paulo"]);
    let error = lake.read("path: t/\nschema: {day: bigint}").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    assert!(error.hint_text().unwrap().contains("schema: {day: text}"));
}

#[tokio::test]
async fn a_scan_may_ask_for_any_columns_in_any_order_and_for_none() {
    let lake = Lake::new(&[("t/k=7/a.csv", "a,b\n1,x\n2,y\n"), ("n/k=7/a.ndjson", "{\"a\":1}\n{\"a\":2}\n")]);
    lake.parquet("p/k=7/a.parquet", &batch(&[("a", ints(&[1, 2])), ("b", ints(&[3, 4]))]));
    for path in ["t/", "n/", "p/"] {
        let source = lake.source(&format!("path: {path}")).unwrap();
        let whole = source.schema().await.unwrap();
        for (names, expected) in [(&["k", "a"][..], ["7 1", "7 2"]), (&["k"], ["7", "7"]), (&[], ["", ""])] {
            let fields: Vec<_> = names.iter().map(|name| whole.field_with_name(name).unwrap().clone()).collect();
            let table = all(&source, Arc::new(Schema::new(fields)), OnFail::Fail).await.unwrap();
            assert_eq!(table.lines(), expected, "{path} {names:?}");
        }
    }
}

#[tokio::test]
async fn files_that_differ_are_unified_or_refused() {
    let lake = Lake::new(&[
        ("t/a.csv", "id,amount,seen\n1,1,\n"),
        ("t/b.csv", "amount,id,extra,seen\n2.5,2,x,2024-01-15\n"),
        ("u/a.csv", "id\n1\n"),
        ("u/b.csv", "id\nabc\n"),
    ]);
    let table = lake.read("path: t/").await.unwrap();
    assert_eq!(
        (table.columns.join(" "), table.types.join(" ")),
        ("id amount seen extra".into(), "bigint double date text".into())
    );
    assert_eq!(table.lines(), ["1 1.0 - -", "2 2.5 2024-01-15 x"]);
    let error = lake.read("path: t/\nschema_contract: freeze").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.message().contains("t/a.csv") && error.message().contains("t/b.csv"), "{error}");
    assert_eq!(lake.read("path: u/").await.unwrap().lines(), ["1", "abc"], "text falls back on text");

    lake.parquet("p/a.parquet", &batch(&[("id", ints(&[1]))]));
    lake.parquet(
        "p/b.parquet",
        &batch(&[("id", Arc::new(arrow::array::Float64Array::from(vec![2.5]))), ("n", ints(&[7]))]),
    );
    assert_eq!(lake.read("path: p/").await.unwrap().lines(), ["1.0 -", "2.5 7"]);
    lake.parquet("p/c.parquet", &batch(&[("id", Arc::new(StringArray::from(vec!["x"])))]));
    let error = lake.read("path: p/").await.err().unwrap();
    assert_eq!(
        error.message(),
        "the column `id` is double in `p/b.parquet` but text in `p/c.parquet`, and no type holds both"
    );
}

#[tokio::test]
async fn declared_types_win_over_told_ones() {
    let lake = Lake::new(&[("a.csv", "id,price,at\n01,1.005,2024-01-15\n"), ("a.ndjson", "{\"id\": 1}\n")]);
    let yaml = "path: a.csv\nschema: {id: int, price: \"decimal(10,2)\", at: timestamp}";
    let table = lake.read(yaml).await.unwrap();
    assert_eq!(table.types, ["int", "decimal(10,2)", "timestamp"]);
    assert_eq!(table.lines(), ["1 1.01 2024-01-15T00:00:00"]);
    let error = lake.source("path: a.csv\nschema: {id: intt}").err().unwrap();
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Config, Some("did you mean `int`?")));
    let error = lake.read("path: a.csv\nschema: {idd: int}").await.err().unwrap();
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Schema, Some("did you mean `id`?")));
    let error = lake.read("path: a.csv\ncolumns: [pricee]").await.err().unwrap();
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Schema, Some("did you mean `price`?")));
    let table = lake.read("path: a.ndjson\nschema: {rare: date}").await.unwrap();
    assert_eq!(table.lines(), ["1 -"], "a column that JSON may have");
}

#[tokio::test]
async fn bad_rows_follow_on_bad_row() {
    let lake = Lake::new(&[("t/a.csv", "x,y\n1,2\n3\n"), ("t/b.csv", "x,y\n5,6\n")]);
    let error = lake.read("path: t/").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.message().starts_with("`t/a.csv:3`: 1 field where"), "{error}");
    let source = lake.source("path: t/\non_bad_row: dead_letter").unwrap();
    let table = all(&source, source.schema().await.unwrap(), OnFail::DeadLetter).await.unwrap();
    assert_eq!(table.lines(), ["1 2", "5 6"]);
    let expected = Reject {
        record: "3".to_owned(),
        error: "1 field where the header or first row has 2".to_owned(),
        place: "t/a.csv:3".to_owned(),
    };
    assert_eq!(table.rejects, [expected]);
}

#[tokio::test]
async fn small_files_share_a_unit_and_big_ones_have_their_own() {
    let lake = Lake::new(&[]);
    for index in 0..5 {
        lake.write(&format!("s/{index}.csv"), format!("x\n{index}\n").as_bytes());
    }
    let source = lake.source("path: s/").unwrap();
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    assert_eq!(plan.units.len(), 1);
    assert_eq!(plan.units[0].label, "5 files, s/0.csv … s/4.csv");
    assert_eq!(plan.why, "5 files of 20 B in 1 unit, small files together");
    assert_eq!((plan.consistency, plan.units[0].bytes), (Consistency::Snapshot, Some(20)));
    assert_eq!(source.stats().await.bytes, Some(20));

    let line = "0123456789".repeat(100) + "\n";
    for index in 0..3 {
        lake.write(&format!("b/{index}.csv"), format!("x\n{}", line.repeat(20 << 10)).as_bytes());
    }
    let source = lake.source("path: b/").unwrap();
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    let labels: Vec<&str> = plan.units.iter().map(|unit| unit.label.as_str()).collect();
    assert_eq!(labels, ["b/0.csv", "b/1.csv", "b/2.csv"]);
}

#[tokio::test]
async fn a_unit_is_read_by_another_process_as_well() {
    let lake = Lake::new(&[("k=1/a.csv", "x\n1\n"), ("k=2/a.csv", "x\n2\n")]);
    let source = lake.source("path: \"*/a.csv\"").unwrap();
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    let text = serde_json::to_string(&plan.units).unwrap();
    let sent: Vec<WorkUnit> = serde_json::from_str(&text).unwrap();
    let other = lake.source("path: \"*/a.csv\"").unwrap();
    let table = units(&other, &sent, source.schema().await.unwrap(), OnFail::Fail).await.unwrap();
    assert_eq!(table.lines(), ["1 1", "2 2"]);
}

#[tokio::test]
async fn a_file_that_changes_after_the_plan_is_an_error() {
    let lake = Lake::new(&[("a.csv", "x\n1\n"), ("b.csv", "x\n1\n")]);
    for (name, change) in [("a.csv", Some("x\n1\n2\n")), ("b.csv", None)] {
        let source = lake.source(&format!("path: {name}")).unwrap();
        let schema = source.schema().await.unwrap();
        let plan = source.plan(&ReadRequest::default()).await.unwrap();
        match change {
            Some(text) => lake.write(name, text.as_bytes()),
            None => std::fs::remove_file(lake.0.path().join(name)).unwrap(),
        }
        let error = units(&source, &plan.units, schema, OnFail::Fail).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.message().contains(name) && error.message().contains("since it was looked at"), "{error}");
    }
}

#[tokio::test]
async fn an_empty_file_has_no_columns_unless_others_have() {
    let lake = Lake::new(&[("e/a.csv", ""), ("m/a.csv", ""), ("m/b.csv", "x\n1\n"), ("h.csv", "x\n")]);
    let error = lake.read("path: e/").await.err().unwrap();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Data, "`e/a.csv` is empty: there are no columns to read"));
    assert_eq!(lake.read("path: m/").await.unwrap().lines(), ["1"]);
    assert!(lake.read("path: h.csv").await.unwrap().lines().is_empty());
}

#[tokio::test]
async fn the_engine_may_scan_what_it_reads_as_we_do() {
    let lake = Lake::new(&[
        ("plain.csv", "a,b\n1,x\n"),
        ("quoted.csv", "a,b\n1,\"x\ny\"\n"),
        ("open.csv", "a,b\n1,\"x\n"),
        ("hive/k=1/a.csv", "a\n1\n"),
        ("hive/k=__HIVE_DEFAULT_PARTITION__/a.csv", "a\n2\n"),
        ("swapped/a.csv", "a,b\n1,2\n"),
        ("swapped/b.csv", "b,a\n1,2\n"),
        ("a.ndjson", "{\"a\": 1}\n"),
        ("text.ndjson", "{\"a\": \"x\"}\n"),
        ("a.json", "[{\"a\": 1}]"),
    ]);
    lake.write("utf16.csv", &[0xff, 0xfe, b'a', 0, b'\n', 0, b'1', 0]);
    lake.parquet("p/k=1/a.parquet", &batch(&[("a", ints(&[1])), ("b", ints(&[2]))]));
    for (yaml, expected) in [
        ("path: plain.csv", Some(true)),
        ("path: quoted.csv", Some(false)),
        ("path: open.csv", None),
        ("path: utf16.csv", None),
        ("path: hive/", Some(true)),
        ("path: swapped/", None),
        ("path: plain.csv\non_bad_row: drop", None),
        ("path: plain.csv\ncsv: {comment: \"#\"}", None),
        ("path: plain.csv\ncsv: {encoding: windows-1252}", None),
        ("path: plain.csv\ncsv: {null: [NA, \"\"]}", Some(true)),
        ("path: plain.csv\nschema: {a: \"decimal(10,2)\"}", Some(true)),
        ("path: plain.csv\nschema: {a: double}", Some(true)),
        ("path: plain.csv\ncolumns: [b]", None),
        ("path: a.json", None),
        ("path: a.ndjson", None),
        ("path: text.ndjson", None),
        ("path: p/", Some(false)),
        ("path: p/\ncolumns: [b, k]", Some(false)),
        ("path: p/\ncolumns: [k, b]", None),
        ("path: p/\nschema: {a: double}", None),
    ] {
        let source = lake.source(yaml).unwrap();
        let native = source.native().await.unwrap();
        assert_eq!(native.as_ref().map(|native| native.splittable), expected, "{yaml}");
        if let Some(native) = native {
            assert_eq!(native.schema, source.schema().await.unwrap(), "{yaml}");
            assert_eq!(native.store_url.as_str(), "file:///");
            assert_eq!(native.csv.is_some(), native.format == FileFormat::Csv);
        }
    }
    let native = lake.source("path: hive/").unwrap().native().await.unwrap().unwrap();
    assert_eq!(native.partition_columns[0].name(), "k");
    let values: Vec<_> = native.files.iter().map(|file| file.partition_values[0].as_deref()).collect();
    assert_eq!(values, [Some("1"), None]);
    let csv = native.csv.unwrap();
    assert_eq!((csv.delimiter.as_deref(), csv.quote.as_deref(), csv.header), (Some(","), Some("\""), Some(true)));
}

#[tokio::test]
async fn a_diagnosis_finds_the_first_bad_row() {
    let lake = Lake::new(&[("a.csv", "x,y\n1,2\n3,4,5\n"), ("good.csv", "x\n1\n")]);
    let found = lake.source("path: a.csv").unwrap().diagnose().await.unwrap();
    assert!(found.message().starts_with("`a.csv:3`: 3 fields"), "{found}");
    assert!(lake.source("path: good.csv").unwrap().diagnose().await.is_none());
}

#[tokio::test]
async fn keys_of_databases_and_standard_input_without_a_format_are_refused() {
    let lake = Lake::new(&[]);
    for yaml in ["table: t", "query: select 1", "path: a\nwhere: x > 1", "path: a\ncsv: {delimiter: ab}"] {
        assert_eq!(lake.source(yaml).err().unwrap().kind(), ErrorKind::Config, "{yaml}");
    }
    for yaml in ["path: \"-\"", "path: stdin\nformat: parquet"] {
        let error = lake.read(yaml).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains("standard input"), "{error}");
    }
}

#[tokio::test]
async fn a_folder_is_discovered_with_its_columns() {
    let lake = Lake::new(&[
        ("orders/day=2024-01-15/a.csv", "id,total\n1,2.5\n"),
        ("orders/day=2024-01-16/a.csv", "id,total\n1,2.5\n"),
        ("top.csv", "x\n1\n"),
        ("_gristmill/x.csv", "x\n1\n"),
        ("broken.parquet", "nonsense"),
    ]);
    let found = lake.connection().discover().await.unwrap();
    let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["broken.parquet", "orders/", "top.csv"]);
    let columns: Vec<String> = found[1].columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
    assert_eq!(columns, ["id bigint", "total double", "day date"]);
    assert_eq!(found[1].bytes, Some(30));
    assert!(found[0].columns.is_empty(), "what cannot be read is listed all the same");
}

#[tokio::test]
async fn a_connection_opens_from_its_keys_and_answers() {
    let lake = Lake::new(&[("a.csv", "x\n1\n")]);
    let context = OpenContext { project: lake.0.path().to_owned(), state: lake.0.path().to_owned() };
    let open = |text: &str| registry::open(&parse("gristmill.yaml", text).unwrap(), &context);
    let connection = open("type: files\nurl: .\n").unwrap();
    assert_eq!((connection.kind(), Path::new(&connection.describe())), ("files", lake.0.path()));
    let info = connection.test().await.unwrap();
    assert_eq!((info.server.as_str(), info.details[1].1.as_str()), ("local disk", "a folder"));
    assert!(open("type: files\nurl: nowhere\n").unwrap().test().await.unwrap().details[1].1.contains("not there yet"));
    let mistakes = open("type: files\nurl: .\nregoin: x\n").err().unwrap();
    assert_eq!((mistakes[0].line, mistakes[0].hint.as_deref()), (3, Some("did you mean `region`?")));
    let mistakes = open("type: files\nurl: ftp://x/y\n").err().unwrap();
    assert_eq!(mistakes[0].line, 2);
    assert!(mistakes[0].message.contains("ftp://"), "{mistakes:?}");
}

/// A web server with one file, which answers GET and HEAD.
async fn web(body: &'static str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0u8; 8192];
                let read = socket.read(&mut buffer).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                let found = request.split(' ').nth(1).is_some_and(|path| path.starts_with("/d/a.csv?sig=hush"));
                let (status, body) = if found { ("200 OK", body) } else { ("404 Not Found", "") };
                let sent = if request.starts_with("HEAD") { "" } else { body };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = socket.write_all(format!("{head}{sent}").as_bytes()).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_web_address_is_one_file_and_its_signature_stays_secret() {
    let lake = Lake::new(&[]);
    let port = web("x\n100001\n100002\n").await;
    let yaml = format!("path: \"http://127.0.0.1:{port}/d/a.csv?sig=hush\"");
    let source = lake.source(&yaml).unwrap();
    let schema = source.schema().await.unwrap();
    assert_eq!(all(&source, schema, OnFail::Fail).await.unwrap().lines(), ["100001", "100002"]);
    assert!(source.native().await.unwrap().is_none());
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    assert!(!serde_json::to_string(&plan.units).unwrap().contains("hush"));
    // Parquet is read in pieces, which this server does not give.
    let error = lake.read(&format!("{yaml}\nformat: parquet")).await.err().unwrap();
    assert!(error.message().contains("/d/a.csv` gives whole files only"), "{error:?}");
    assert!(error.hint_text().unwrap().contains("fetch it first"), "{error:?}");
    let error = lake.read(&yaml.replace("a.csv", "b.csv")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(!error.to_string().contains("hush"), "{error}");
    let context = OpenContext { project: lake.0.path().to_owned(), state: lake.0.path().to_owned() };
    let site = FilesConnection::open(&format!("http://127.0.0.1:{port}/d"), StoreOptions::default(), &context).unwrap();
    // The same below a connection: the query goes with the request.
    let signed = |path: &str| {
        let spec: ExtractSpec = decode(&parse("p", &format!("from: site\npath: \"{path}\"")).unwrap()).unwrap();
        site.source(&spec).unwrap()
    };
    let schema = signed("a.csv?sig=hush").schema().await.unwrap();
    assert_eq!(schema.field(0).name(), "x");
    let error = signed("b.csv?sig=hush").schema().await.unwrap_err();
    assert!(!error.to_string().contains("hush"), "{error}");
    assert!(site.discover().await.unwrap_err().message().contains("no listing"));
    let spec: ExtractSpec = decode(&parse("p", "from: site\npath: \"*.csv\"").unwrap()).unwrap();
    let error = site.source(&spec).unwrap().schema().await.unwrap_err();
    assert!(error.message().contains("no listing"), "{error}");
}

#[tokio::test]
async fn quoted_text_is_never_null_but_what_is_quoted_of_other_types_may_be() {
    let lake = Lake::new(&[("a.csv", "n,t\n1,\"\"\n\"\",\n3,\"x\"\n"), ("n.csv", "n\n1\n\"\"\n")]);
    let table = lake.read("path: a.csv").await.unwrap();
    assert_eq!(table.types, ["bigint", "text"]);
    assert_eq!(table.lines(), ["1 ", "- -", "3 x"]);
    let named = lake.read("path: a.csv\ncsv: {null: [x, \"\"]}").await.unwrap();
    assert_eq!(named.lines(), ["1 ", "- -", "3 x"]);
    // The engine's scan cannot tell them apart, so it is not asked where it would matter.
    for (yaml, native) in [("path: a.csv", false), ("path: n.csv", true), ("path: a.csv\ncsv: {null: x}", false)] {
        assert_eq!(lake.source(yaml).unwrap().native().await.unwrap().is_some(), native, "{yaml}");
    }
}

#[tokio::test]
async fn files_that_change_while_the_engine_reads_them_are_told() {
    let lake = Lake::new(&[]);
    lake.parquet("p/a.parquet", &batch(&[("a", ints(&[1]))]));
    let source = lake.source("path: p/").unwrap();
    source.unchanged().await.unwrap();
    assert!(source.native().await.unwrap().is_some());
    source.unchanged().await.unwrap();
    lake.parquet("p/a.parquet", &batch(&[("a", ints(&[1, 2, 3]))]));
    let error = source.unchanged().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("a.parquet` has been changed"), "{error}");
}

#[tokio::test]
async fn parquet_files_that_the_engine_would_misread_are_read_by_us() {
    let Some(folder) = gristmill_testkit::conformance_dir("files") else { return };
    let lake = Lake::new(&[]);
    let take = |name: &str| lake.write("x.parquet", &std::fs::read(folder.join(name)).unwrap());
    for (name, rows) in [
        ("parquet-testing/data/repeated_no_annotation.parquet", 6),
        ("parquet-testing/data/dict-page-offset-zero.parquet", 39),
        ("arrow-testing/data/parquet/fuzzing/clusterfuzz-testcase-minimized-parquet-arrow-fuzz-5382863341289472", 5120),
    ] {
        take(name);
        let source = lake.source("path: x.parquet").unwrap();
        let schema = source.schema().await.unwrap();
        assert!(schema.metadata().is_empty());
        assert!(source.native().await.unwrap().is_none(), "{name}");
        let plan = source.plan(&ReadRequest::default()).await.unwrap();
        let scan = Scan { schema, batch_size: 1024, on_bad_row: OnFail::Fail, rejects: None };
        let batches = source.read(&plan.units[0], &scan).collect().await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows, "{name}");
    }
}

#[tokio::test]
async fn documents_without_records_have_the_columns_that_are_declared() {
    let lake = Lake::new(&[("a.json", "[]")]);
    let error = lake.read("path: a.json").await.err().unwrap();
    assert!(error.message().contains("holds no records"), "{error}");
    assert!(!error.to_string().contains("header"), "{error}");
    let declared = lake.read("path: a.json\nschema: {id: bigint}").await.unwrap();
    assert_eq!((declared.columns, declared.rows.len()), (vec!["id".to_owned()], 0));
}
