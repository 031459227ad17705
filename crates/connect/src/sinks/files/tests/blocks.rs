//! The block writer.

use super::*;
use arrow::array::{BinaryViewArray, Int32Array};
use proptest::prelude::*;

fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
    RecordBatch::try_from_iter([("number", numbers)]).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn blocks_are_cut_and_gathered_into_row_groups(sizes in proptest::collection::vec(0i64..400, 1..12), rows in 1usize..300) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.parquet");
        let options = BlockOptions { row_group_rows: Some(rows), ..BlockOptions::default() };
        let total: i64 = sizes.iter().sum();
        let stats = runtime.block_on(async {
            let mut writer = BlockWriter::to_file(&path, options).unwrap();
            let mut at = 0;
            for size in &sizes {
                writer.write(numbers(at..at + size)).await.unwrap();
                at += size;
            }
            writer.finish().await.unwrap()
        });
        prop_assert_eq!(stats.rows, u64::try_from(total).unwrap());
        let (last, whole) = stats.row_groups.split_last().map_or((0, &[][..]), |(last, whole)| (*last, whole));
        prop_assert!(whole.iter().all(|group| *group == rows as u64));
        prop_assert!(last <= rows as u64);
        prop_assert_eq!(stats.bytes, std::fs::metadata(&path).unwrap().len());
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&path).unwrap()).unwrap().build().unwrap();
        let read: Vec<i64> = reader
            .flat_map(|batch| batch.unwrap().column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec())
            .collect();
        prop_assert_eq!(read, (0..total).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn row_groups_are_bounded_by_bytes_too() {
    let folder = tempfile::tempdir().unwrap();
    let options = BlockOptions { row_group_bytes: 8000, ..BlockOptions::default() };
    let mut writer = BlockWriter::to_file(folder.path().join("a.parquet"), options).unwrap();
    writer.write(numbers(0..2500)).await.unwrap();
    assert_eq!(writer.finish().await.unwrap().row_groups, [1000, 1000, 500]);
    // Long values count as long as they are, also where rows only point to them.
    let value = vec![b'x'; 1984];
    let views: ArrayRef = Arc::new(BinaryViewArray::from_iter_values(std::iter::repeat_n(&value, 10)));
    let mut writer = BlockWriter::to_file(folder.path().join("b.parquet"), options).unwrap();
    writer.write(RecordBatch::try_from_iter([("value", views)]).unwrap()).await.unwrap();
    assert_eq!(writer.finish().await.unwrap().row_groups, [4, 4, 2]);
}

#[tokio::test]
async fn a_differing_block_is_an_error_that_names_column_and_types_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = BlockWriter::to_file(folder.path().join("a.parquet"), BlockOptions::default()).unwrap();
    writer.write(numbers(0..5)).await.unwrap();
    let other: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let error = writer.write(RecordBatch::try_from_iter([("number", other.clone())]).unwrap()).await.unwrap_err();
    assert_eq!(error.message(), "a block differs from the first one: column `number` is Int32 instead of Int64");
    assert!(names(folder.path()).is_empty());
    assert!(writer.write(numbers(0..5)).await.is_err());
    assert!(writer.finish().await.is_err());

    let mut writer = BlockWriter::to_file(folder.path().join("a.parquet"), BlockOptions::default()).unwrap();
    writer.write(numbers(0..5)).await.unwrap();
    let error = writer.write(RecordBatch::try_from_iter([("name", other)]).unwrap()).await.unwrap_err();
    assert!(error.message().contains("column 1 is `name` instead of `number`"), "{error:?}");
}

#[tokio::test]
async fn statistics_come_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let options = BlockOptions { row_group_rows: Some(2), ..BlockOptions::default() };
    let mut writer = BlockWriter::to_file(folder.path().join("a.parquet"), options).unwrap();
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("m"), None, Some("b"), Some("z"), None]));
    writer.write(RecordBatch::try_from_iter_with_nullable([("text", texts, true)]).unwrap()).await.unwrap();
    let stats = writer.finish().await.unwrap();
    let column = &stats.columns[0];
    assert_eq!((column.min.as_deref(), column.max.as_deref(), column.nulls), (Some("b"), Some("z"), Some(2)));
    assert!(stats.compressed > 0 && stats.uncompressed > 0);
    assert_eq!(names(folder.path()), ["a.parquet"]);
}

#[tokio::test]
async fn a_dropped_writer_and_one_without_blocks_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = BlockWriter::to_file(folder.path().join("a.parquet"), BlockOptions::default()).unwrap();
    writer.write(numbers(0..200_000)).await.unwrap();
    drop(writer);
    let empty = BlockWriter::to_file(folder.path().join("b.parquet"), BlockOptions::default()).unwrap();
    assert!(empty.finish().await.unwrap_err().message().contains("no block"));
    for _ in 0..100 {
        if names(folder.path()).is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{:?}", names(folder.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_appears_whole_or_not_at_all() {
    let target = Target::s3();
    let server = target.server.as_ref().unwrap();
    // Random numbers do not compress: several parts.
    let block = |seed: u64| {
        let mut state = seed;
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..700_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            i64::from_le_bytes(state.to_le_bytes())
        })));
        RecordBatch::try_from_iter([("number", numbers)]).unwrap()
    };
    let options = BlockOptions { row_group_rows: Some(500_000), ..BlockOptions::default() };
    let mut writer = BlockWriter::to_store(&target.store, "a/b.parquet", options).unwrap();
    for seed in 0..5 {
        writer.write(block(seed)).await.unwrap();
    }
    let path = server.bucket("bucket").join("prefix/a/b.parquet");
    assert!(!path.exists());
    let stats = writer.finish().await.unwrap();
    assert!(stats.bytes > 20 << 20, "{} bytes", stats.bytes);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), stats.bytes);
    assert_eq!(
        ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&path).unwrap())
            .unwrap()
            .metadata()
            .file_metadata()
            .num_rows(),
        3_500_000
    );

    let mut torn = BlockWriter::to_store(&target.store, "a/c.parquet", options).unwrap();
    torn.write(block(1)).await.unwrap();
    torn.write(block(2)).await.unwrap();
    drop(torn);
    for _ in 0..200 {
        if server.open_uploads().unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{:?}", server.open_uploads().unwrap());
}
