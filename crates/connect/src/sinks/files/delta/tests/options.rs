//! What a load says beside its strategy: computed partitions, retention, the layout of files; and what is no Delta table.

use super::python::asked;
use super::*;
use arrow::array::TimestampMicrosecondArray;
use gristmill_model::spec::{ParquetOptions, Retention, Statistics};
use gristmill_model::{ByteSize, CancellationToken};
use std::collections::BTreeSet;

const DAY: i64 = 86_400_000_000;

/// `id`s, and as many days after 2024-01-01, in time with a zone.
fn days(days: &[i64]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(days.to_vec()));
    let times = days.iter().map(|day| 1_704_067_200_000_000 + day * DAY + DAY / 3);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
    RecordBatch::try_from_iter([("id", ids), ("at", times)]).unwrap()
}

fn folders(table: &Table) -> BTreeSet<String> {
    let paths = table.paths().unwrap();
    paths.iter().map(|path| super::super::super::layout::split(path).0.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn computed_partitions_are_columns_of_the_table_that_others_read() {
    let lake = Lake(Target::local());
    let by = ["year(at)", "month(at)", "hash(id) % 2"];
    lake.load(load(Strategy::Append, &by), 1, &days(&[0, 1, 40, 400])).await.unwrap();
    assert_eq!(lake.table().await.partition_columns(), ["year", "month", "id_bucket"]);
    let seen = asked(&lake, "select id, year, month from t order by id");
    assert_eq!(seen, ["(0, 2024, 1)", "(1, 2024, 1)", "(40, 2024, 2)", "(400, 2025, 2)"]);
    assert_eq!(asked(&lake, "select id from t where year = 2025"), ["(400,)"]);
    // Its own partitions go, and the scope's, whether rows come there or not.
    let scoped = LoadSpec {
        scope: Some("year = 2024 and month = 1".to_owned()),
        ..load(Strategy::PartitionOverwrite, &["year(at)", "month(at)", "hash(id) % 2"])
    };
    lake.load(scoped, 2, &days(&[2])).await.unwrap();
    assert_eq!(asked(&lake, "select id from t order by id"), ["(2,)", "(40,)", "(400,)"]);
    // A row that changes its partition is in its new one alone.
    let merge = LoadSpec { key: OneOrMany(vec!["id".to_owned()]), ..load(Strategy::Merge, &by) };
    let mut columns = days(&[40, 41]).columns().to_vec();
    columns[1] = days(&[400, 41]).column(1).clone();
    let moved = RecordBatch::try_new(days(&[]).schema(), columns).unwrap();
    lake.load(merge, 3, &moved).await.unwrap();
    let seen = asked(&lake, "select id, year, month from t order by id");
    assert_eq!(seen, ["(2, 2024, 1)", "(40, 2025, 2)", "(41, 2024, 2)", "(400, 2025, 2)"]);
    assert_eq!(lake.leftovers().await.unwrap(), Vec::<String>::new());

    // The names tell, not what they are computed of.
    let error = lake.load(load(Strategy::Append, &["year(at)"]), 4, &days(&[1])).await.unwrap_err();
    assert!(error.message().contains("is partitioned by `year`, `month`, `id_bucket`"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_drops_old_partitions_in_the_version_of_the_load() {
    for lake in [Lake(Target::local()), Lake(Target::s3())] {
        let by = ["date(at) as day"];
        lake.load(load(Strategy::Append, &by), 1, &days(&[0, 3, 7, 14])).await.unwrap();
        let keep = || Some(Retention { keep: "8d".parse().unwrap(), column: None });
        // The interval of the tests ends with 2024-01-15.
        for (generation, strategy, new, left) in [
            (2, Strategy::Append, &[14, 3][..], &["day=2024-01-04", "day=2024-01-08", "day=2024-01-15"][..]),
            (3, Strategy::Merge, &[14][..], &["day=2024-01-08", "day=2024-01-15"][..]),
        ] {
            let key = if strategy == Strategy::Merge { vec!["id".to_owned()] } else { Vec::new() };
            let spec = LoadSpec { retention: keep(), key: OneOrMany(key), ..load(strategy, &by) };
            let owner = owner("run");
            let batch = days(new);
            let context = context(&lake.0, batch.schema(), super::key(generation), owner);
            let told = lake.open(spec.clone(), context).unwrap().changes().await.unwrap();
            assert!(told.iter().any(|told| told.contains("older than 2024-01-08 00:00:00")), "{told:?}");
            lake.load(spec, generation, &batch).await.unwrap();
            assert_eq!(folders(&lake.table().await), left.iter().map(|&name| name.to_owned()).collect());
        }
        let version = lake.table().await.version;
        assert_eq!(version, Some(2), "one version a load");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_that_means_nothing_is_refused() {
    let lake = Lake(Target::local());
    let refused = |strategy: Strategy, by: &[&str]| {
        let retention = Some(Retention { keep: "8d".parse().unwrap(), column: None });
        let spec = LoadSpec { retention, ..load(strategy, by) };
        lake.open(spec, context(&lake.0, days(&[]).schema(), key(1), owner("run"))).unwrap_err().message().to_owned()
    };
    assert!(refused(Strategy::Replace, &["date(at)"]).contains("keeps nothing"));
    assert!(refused(Strategy::TruncateInsert, &["date(at)"]).contains("keeps nothing"));
    assert!(refused(Strategy::Append, &["year(at)"]).contains("holds dates"));
    lake.load(load(Strategy::Append, &["date(at)"]), 1, &days(&[1])).await.unwrap();
    let mut metadata = lake.table().await.metadata.unwrap();
    metadata.configuration.insert("delta.appendOnly".to_owned(), "true".to_owned());
    std::fs::write(entry_path(&lake, 1), json!({"metaData": metadata}).to_string()).unwrap();
    let retention = Some(Retention { keep: "8d".parse().unwrap(), column: None });
    let spec = LoadSpec { retention, ..load(Strategy::Append, &["date(at)"]) };
    let error = lake.load(spec, 2, &days(&[1])).await.unwrap_err();
    assert!(error.message().contains("delta.appendOnly"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_have_the_layout_that_the_load_says_also_when_they_are_written_anew() {
    let lake = Lake(Target::local());
    let parquet = ParquetOptions {
        row_group_size: Some(ByteSize(64 << 10)),
        statistics: Some(Statistics::None),
        page_index: Some(false),
        bloom_filter: OneOrMany(vec!["id".to_owned()]),
        ..ParquetOptions::default()
    };
    let append = LoadSpec {
        parquet: Some(parquet.clone()),
        sort_by: OneOrMany(vec!["id".to_owned()]),
        ..load(Strategy::Append, &[])
    };
    lake.load(append, 1, &rows(&[(1, "a"), (2, "b")])).await.unwrap();
    let merge =
        LoadSpec { parquet: Some(parquet), key: OneOrMany(vec!["id".to_owned()]), ..load(Strategy::Merge, &[]) };
    lake.load(merge.clone(), 2, &rows(&[(2, "c"), (3, "c")])).await.unwrap();
    assert_eq!(asked(&lake, "select id, day from t order by id"), ["(1, 'a')", "(2, 'c')", "(3, 'c')"]);
    let table = lake.table().await;
    let files = table.files().unwrap();
    for file in &files {
        let stats: Value = serde_json::from_str(&file.stats().unwrap()).unwrap();
        assert_eq!((&stats["minValues"], &stats["nullCount"]), (&json!({}), &json!({})), "no statistics, no bounds");
        let bytes = lake.0.place().read(&file.path()).await.unwrap().unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
        let column = reader.metadata().row_group(0).column(0);
        assert!(column.statistics().is_none() && column.bloom_filter_offset().is_some());
        assert_eq!(
            reader.metadata().row_group(0).sorting_columns(),
            None,
            "nobody has sorted what was brought together"
        );
    }
    let sorted = LoadSpec { sort_by: OneOrMany(vec!["id".to_owned()]), ..merge };
    let error = lake.open(sorted, context(&lake.0, rows(&[]).schema(), key(3), owner("run"))).unwrap_err();
    assert!(error.message().contains("`sort_by` does not go with `strategy: merge`"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_and_a_folder_of_files_are_not_taken_for_each_other() {
    for lake in [Lake(Target::local()), Lake(Target::s3())] {
        let batch = rows(&[(1, "a")]);
        let place = |name: &str| format!("{}/{name}", super::super::super::tests::PATH);
        let of = |path: &str, format: FileFormat| {
            let spec = LoadSpec { path: Some(place(path)), format: Some(format), ..load(Strategy::Replace, &[]) };
            let context = context(&lake.0, batch.schema(), key(1), owner("run"));
            super::super::super::open_sink(lake.0.store.clone(), &spec, context).unwrap()
        };
        for (path, first, second, words) in [
            ("table", FileFormat::Delta, FileFormat::Parquet, "is a Delta table"),
            ("folder", FileFormat::Parquet, FileFormat::Delta, "that were no Delta table"),
        ] {
            let sink = of(path, first);
            let rows = Rows::from_batches(batch.schema(), vec![batch.clone()]);
            let staged = vec![sink.stage(&task(&key(1), &owner("run"), 0), rows).await.unwrap()];
            sink.commit(&staged, &Checkpoint::default()).await.unwrap();
            let error = of(path, second).prepare().await.unwrap_err();
            assert!(error.message().contains(words) && error.hint_text().is_some(), "{error:?}");
            of(path, first).prepare().await.unwrap();
        }
        let want = crate::Compaction::of(&place("table"));
        let (open, owner, cancel) = (lake.folders(), owner("run"), CancellationToken::new());
        let compacted = super::super::super::compact(&lake.0.store, &open, &want, &owner, &|_| false, &cancel).await;
        let error = compacted.unwrap_err();
        assert!(error.message().contains("is a Delta table") && error.hint_text().is_some(), "{error:?}");
    }
}
