//! Loads that would make a folder nobody can read, or hold rows twice: other partitions, another format, other columns of CSV
//! without a header, types that were other ones some loads ago.

use super::compact::{all, compacted, crumbs, seen};
use super::*;
use arrow::array::Int32Array;
use gristmill_model::spec::CsvOptions;
use serde_json::Value;

/// Loads rows as a run does.
async fn loaded(target: &Target, spec: &LoadSpec, generation: u32, batch: &RecordBatch) -> Result<Committed> {
    let context = context(target, batch.schema(), key(generation), owner("run"));
    let sink = target.open(spec.clone(), context)?;
    sink.prepare().await?;
    let staged = stage_all(&sink, std::slice::from_ref(batch)).await?;
    sink.commit(&staged, &Checkpoint::default()).await
}

/// Loads what must be refused, and leaves nothing of it.
async fn refused(target: &Target, spec: &LoadSpec, batch: &RecordBatch) -> Error {
    let error = loaded(target, spec, 99, batch).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("strategy: replace"), "{error:?}");
    assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
    error
}

/// Makes entry `number` of the log what an older version would have written.
fn without_notes(target: &Target, number: u64) {
    let path = target.root().join(format!("_gristmill/log/{number:010}.json"));
    let mut entry: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(entry.as_object_mut().unwrap().remove("shape").is_some());
    std::fs::write(&path, entry.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_changed_by_a_replace_alone() {
    let days = || rows(&[(1, "1"), (2, "2")]);
    for target in [Target::local(), Target::s3()] {
        for (at, (first, second, said)) in [
            ((Strategy::PartitionOverwrite, &["day"][..]), &["day", "id"][..], "are partitioned by `day`"),
            ((Strategy::Append, &[][..]), &["day"][..], "are not partitioned"),
            ((Strategy::Replace, &[][..]), &["day"][..], "are not partitioned"),
            ((Strategy::Append, &["hash(id) % 2"][..]), &["hash(id) % 4"][..], "are partitioned by `hash(id) % 2`"),
            ((Strategy::Append, &["hash(id) % 2"][..]), &["hash(day) % 2 as id_bucket"][..], "by `hash(id) % 2`"),
        ]
        .into_iter()
        .enumerate()
        {
            let at = u32::try_from(at).unwrap() * 4;
            let batch = RecordBatch::try_from_iter([
                ("id", days().column(0).clone()),
                ("day", days().column(1).clone()),
                ("more", days().column(0).clone()),
            ])
            .unwrap();
            // A target that others have filled otherwise is begun anew.
            loaded(&target, &load(Strategy::Replace, first.1), at + 1, &batch).await.unwrap();
            loaded(&target, &load(first.0, first.1), at + 2, &batch).await.unwrap();
            for strategy in [Strategy::Append, Strategy::PartitionOverwrite] {
                let error = refused(&target, &load(strategy, second), &batch).await;
                assert_eq!(error.kind(), ErrorKind::Schema);
                assert!(error.message().starts_with("`partition_by` says `"), "{error:?}");
                assert!(error.message().contains(said), "{error:?}");
            }
            if !first.1.is_empty() {
                let error = refused(&target, &load(Strategy::Append, &[]), &batch).await;
                assert!(error.message().starts_with("the load has no `partition_by`"), "{error:?}");
            }
            // Written in another way it is the same.
            let same: Vec<String> = first.1.iter().map(|entry| entry.replace(" % ", "%")).collect();
            let same: Vec<&str> = same.iter().map(String::as_str).collect();
            loaded(&target, &load(first.0, &same), at + 3, &batch).await.unwrap();
            loaded(&target, &load(Strategy::Replace, second), at + 4, &batch).await.unwrap();
            assert_eq!(seen(&target).await, texts(&[days()], &["id", "day"]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_was_prepared_before_a_rivals_looks_again_at_its_commit() {
    let target = Target::s3();
    let open = |generation: u32, by: &[&str]| {
        let context = context(&target, rows(&[]).schema(), key(generation), owner(&format!("run-{generation}")));
        target.open(load(Strategy::Append, by), context).unwrap()
    };
    let (one, other) = (open(1, &["day"]), open(2, &[]));
    one.prepare().await.unwrap();
    other.prepare().await.unwrap();
    let theirs = stage_all(&other, &[rows(&[(2, "2")])]).await.unwrap();
    let ours = stage_all(&one, &[rows(&[(1, "1")])]).await.unwrap();
    one.commit(&ours, &Checkpoint::default()).await.unwrap();
    let error = other.commit(&theirs, &Checkpoint::default()).await.unwrap_err();
    assert!(error.message().contains("are partitioned by `day`"), "{error:?}");
    other.abort(&key(2)).await.unwrap();
    assert_eq!(seen(&target).await, texts(&[rows(&[(1, "1")])], &["id", "day"]));
    assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn of_a_load_of_an_older_version_its_files_tell() {
    let target = Target::local();
    let batch = rows(&[(1, "1"), (2, "2")]);
    loaded(&target, &load(Strategy::Append, &["hash(id) % 2"]), 1, &batch).await.unwrap();
    without_notes(&target, 1);
    let error = refused(&target, &load(Strategy::Append, &["day"]), &batch).await;
    assert!(error.message().contains("`partition_by` says `day`, and the files of `"), "{error:?}");
    assert!(error.message().ends_with("are partitioned by `id_bucket`"), "{error:?}");
    let csv = LoadSpec { format: Some(FileFormat::Csv), ..load(Strategy::Append, &["hash(id) % 2"]) };
    let error = refused(&target, &csv, &batch).await;
    assert!(error.message().contains("format `csv`, and those of `"), "{error:?}");
    // What buckets were computed of, and how many there were, is not in their names.
    loaded(&target, &load(Strategy::Append, &["hash(id) % 4"]), 2, &batch).await.unwrap();
    refused(&target, &load(Strategy::Append, &["hash(id) % 2"]), &batch).await;

    // A load without rows has no files that could tell.
    let target = Target::local();
    loaded(&target, &load(Strategy::Append, &[]), 1, &rows(&[])).await.unwrap();
    without_notes(&target, 1);
    loaded(&target, &load(Strategy::Append, &["day"]), 2, &batch).await.unwrap();
}

#[tokio::test]
async fn an_empty_folder_takes_anything() {
    for target in [Target::local(), Target::s3()] {
        loaded(&target, &load(Strategy::Append, &["day"]), 1, &rows(&[])).await.unwrap();
        loaded(&target, &load(Strategy::Append, &[]), 2, &rows(&[(1, "1")])).await.unwrap();
        let error = refused(&target, &load(Strategy::Append, &["day"]), &rows(&[(1, "1")])).await;
        assert!(error.message().contains("are not partitioned"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_format_is_changed_by_a_replace_alone() {
    let batch = rows(&[(1, "1"), (2, "2")]);
    let of = |strategy, format| LoadSpec { format: Some(format), ..load(strategy, &["day"]) };
    let target = Target::local();
    loaded(&target, &load(Strategy::Append, &["day"]), 1, &batch).await.unwrap();
    for strategy in [Strategy::Append, Strategy::PartitionOverwrite] {
        for format in [FileFormat::Csv, FileFormat::Ndjson, FileFormat::Avro, FileFormat::Arrow] {
            let error = refused(&target, &of(strategy, format), &batch).await;
            assert_eq!(error.kind(), ErrorKind::Config);
            let said =
                format!("the load writes files of format `{}`, and those of `{PATH}` are `parquet`", format.as_str());
            assert_eq!(error.message(), said);
        }
    }
    loaded(&target, &of(Strategy::Append, FileFormat::Parquet), 2, &batch).await.unwrap();
    loaded(&target, &of(Strategy::Replace, FileFormat::Ndjson), 3, &batch).await.unwrap();
    // How text is compressed the names tell.
    let packed = LoadSpec {
        compression: Some(gristmill_model::spec::Compression::Gzip),
        ..of(Strategy::Append, FileFormat::Ndjson)
    };
    loaded(&target, &packed, 4, &batch).await.unwrap();
    assert!(refused(&target, &load(Strategy::Append, &["day"]), &batch).await.message().ends_with("are `ndjson`"));
}

#[tokio::test]
async fn csv_without_a_header_keeps_its_columns_in_their_order() {
    let csv = |options: CsvOptions| LoadSpec {
        format: Some(FileFormat::Csv),
        csv: Some(options),
        ..load(Strategy::Append, &[])
    };
    let bare = || CsvOptions { header: Some(false), ..CsvOptions::default() };
    let two = rows(&[(1, "1")]);
    let turned = two.project(&[1, 0]).unwrap();
    let fewer = two.project(&[0]).unwrap();
    let target = Target::local();
    loaded(&target, &csv(bare()), 1, &two).await.unwrap();
    for other in [&turned, &fewer] {
        let error = refused(&target, &csv(bare()), other).await;
        assert_eq!(error.kind(), ErrorKind::Schema);
        assert!(error.message().ends_with("which have no header, hold `id`, `day`"), "{error:?}");
    }
    loaded(&target, &csv(bare()), 2, &two).await.unwrap();
    for (options, said) in [
        (CsvOptions::default(), "`header: true`, and the files of"),
        (CsvOptions { delimiter: Some("\\t".to_owned()), ..bare() }, "`delimiter: \\t`, and the files of"),
        (CsvOptions { quote: Some("'".to_owned()), ..bare() }, "`quote: '`, and the files of"),
        (CsvOptions { escape: Some("|".to_owned()), ..bare() }, "`escape: |`, and the files of"),
    ] {
        let error = refused(&target, &csv(options), &two).await;
        assert!(error.message().contains(said), "{error:?}");
    }
    let replace = LoadSpec { strategy: Strategy::Replace, ..csv(bare()) };
    loaded(&target, &replace, 3, &turned).await.unwrap();
    loaded(&target, &csv(bare()), 4, &turned).await.unwrap();

    // A header says which column is which.
    let target = Target::local();
    for (generation, batch) in [(1, &two), (2, &turned), (3, &fewer)] {
        loaded(&target, &csv(CsvOptions::default()), generation, batch).await.unwrap();
    }
}

fn one(name: &str, array: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef, true),
        (name, array, true),
    ])
    .unwrap()
}

#[tokio::test]
async fn types_are_remembered_of_columns_that_a_load_lacks() {
    let numbers = || one("v", Arc::new(Int64Array::from(vec![1])));
    let texts = || one("v", Arc::new(StringArray::from(vec!["x"])));
    let without = || one("w", Arc::new(Int64Array::from(vec![1])));
    let append = || load(Strategy::Append, &[]);
    for format in [FileFormat::Parquet, FileFormat::Avro, FileFormat::Arrow] {
        let append = || LoadSpec { format: Some(format), ..append() };
        let target = Target::local();
        loaded(&target, &append(), 1, &numbers()).await.unwrap();
        loaded(&target, &append(), 2, &without()).await.unwrap();
        let error = refused(&target, &append(), &texts()).await;
        assert!(error.message().contains("`v` is text in the rows but bigint in the files"), "{error:?}");
        // The wider of two is what is remembered.
        let narrow = one("v", Arc::new(Int32Array::from(vec![1])));
        loaded(&target, &append(), 3, &narrow).await.unwrap();
        let entry = Log::list(&target.place()).await.unwrap().newest_load(&target.place()).await.unwrap().unwrap().1;
        let noted = |name: &str| entry.columns.iter().find(|column| column.0 == name).map(|column| column.1.as_str());
        assert_eq!((noted("v"), noted("w")), (Some("Int64"), Some("Int64")), "{format:?}");
        let replace = LoadSpec { strategy: Strategy::Replace, ..append() };
        loaded(&target, &replace, 4, &texts()).await.unwrap();
        let error = refused(&target, &append(), &numbers()).await;
        assert!(error.message().contains("`v` is bigint in the rows but text in the files"), "{error:?}");
    }
}

#[tokio::test]
async fn a_compaction_keeps_what_was_noted() {
    let target = Target::local();
    let spec = load(Strategy::Append, &["hash(id) % 2"]);
    crumbs(&target, &spec, &[rows(&[(1, "1")]), rows(&[(1, "2")]), rows(&[(1, "3")])], 1).await;
    assert_eq!(compacted(&target, &all()).await.len(), 1);
    let batch = one("day", Arc::new(Int64Array::from(vec![1])));
    let error = refused(&target, &spec, &batch).await;
    assert!(error.message().contains("`day` is bigint in the rows but text in the files"), "{error:?}");
    let error = refused(&target, &load(Strategy::Append, &["hash(id) % 4"]), &rows(&[(1, "1")])).await;
    assert!(error.message().contains("are partitioned by `hash(id) % 2`"), "{error:?}");
}
