//! What the writers make of rows: nothing lost, nothing twice, in the right folders, of the right sizes.

use super::super::config::Config;
use super::super::layout::{join, partition_folder};
use super::super::partition::{Splitter, value_text};
use super::super::write::TaskWriter;
use super::*;
use crate::comments::{comment_of, commented};
use arrow::array::{BooleanArray, Date32Array, DictionaryArray, Int32Array};
use arrow::datatypes::Int32Type;
use gristmill_model::ByteSize;
use gristmill_model::spec::{Compression, CsvOptions};
use proptest::prelude::*;

/// Columns of many types, all of one length, with NULLs.
fn any_batch() -> impl Strategy2<Value = RecordBatch> {
    let row = (
        proptest::option::of(-3i32..3),
        proptest::option::of("[a-c/=% é]{1,3}"),
        proptest::option::of(any::<bool>()),
        proptest::option::of(prop_oneof![Just(0i32), Just(19_737), -40_000..40_000i32]),
        any::<i64>(),
    );
    proptest::collection::vec(row, 0..120).prop_map(|rows| {
        let number: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int32Array>());
        let text: ArrayRef = Arc::new(rows.iter().map(|row| row.1.clone()).collect::<StringArray>());
        let coded: ArrayRef = Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<DictionaryArray<Int32Type>>());
        let flag: ArrayRef = Arc::new(rows.iter().map(|row| row.2).collect::<BooleanArray>());
        let day: ArrayRef = Arc::new(rows.iter().map(|row| row.3).collect::<Date32Array>());
        let value: ArrayRef = Arc::new(rows.iter().map(|row| row.4).collect::<Int64Array>());
        let columns =
            [("number", number), ("text", text), ("coded", coded), ("flag", flag), ("day", day), ("value", value)];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    })
}

use proptest::strategy::Strategy as Strategy2;

fn folder_of(batch: &RecordBatch, positions: &[usize], row: usize) -> String {
    positions.iter().fold(String::new(), |folder, &position| {
        let array = batch.column(position);
        let array = match array.data_type() {
            DataType::Dictionary(_, _) => cast(array, &DataType::Utf8).unwrap(),
            _ => array.clone(),
        };
        let value = value_text(&array, row).unwrap();
        join(&folder, &partition_folder(batch.schema().field(position).name(), value.as_deref()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_row_is_in_the_partition_of_its_values(
        batches in proptest::collection::vec(any_batch(), 1..4),
        positions in proptest::sample::subsequence(vec![0usize, 1, 2, 3, 4], 1..4),
    ) {
        let mut splitter = Splitter::new(&batches[0].schema(), &positions).unwrap();
        for batch in &batches {
            let ids = splitter.split(batch).unwrap();
            prop_assert_eq!(ids.len(), batch.num_rows());
            for (row, id) in ids.into_iter().enumerate() {
                prop_assert_eq!(splitter.folder(id), folder_of(batch, &positions, row));
            }
        }
        let folders: BTreeSet<&str> = (0..splitter.len()).map(|id| splitter.folder(u32::try_from(id).unwrap())).collect();
        prop_assert_eq!(folders.len(), splitter.len());
    }

    #[test]
    fn a_partitioned_load_loses_nothing(
        batches in proptest::collection::vec(any_batch(), 1..4),
        positions in proptest::sample::subsequence(vec![0usize, 2, 3, 4], 1..3),
        budget in prop_oneof![Just(1usize), Just(4000), Just(1 << 20)],
    ) {
        let names = ["number", "coded", "flag", "day"];
        let columns: Vec<&str> = positions.iter().map(|&at| if at == 0 { names[0] } else { names[at - 1] }).collect();
        let (wanted, got, _) = write_and_read(&batches, &columns, budget);
        prop_assert_eq!(wanted, got);
    }
}

/// Writes by a writer that may gather `budget` bytes; gives the rows that went in and those that a reader finds, and the number of
/// files.
fn write_and_read(batches: &[RecordBatch], partition_by: &[&str], budget: usize) -> (Vec<String>, Vec<String>, usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let target = Target::local();
    let schema = batches[0].schema();
    let context = context(&target, schema.clone(), key(1), owner("run"));
    let sink = target.open(load(gristmill_model::spec::Strategy::Append, partition_by), context).unwrap();
    let task = task(&key(1), &owner("run"), 0);
    let _entered = runtime.enter();
    let outputs = target.place().outputs(&task, 1 << 20, false, target.folder.path().join("spill"));
    let mut writer = TaskWriter::new(sink.config.clone(), task.clone(), outputs).unwrap();
    writer.gather_at_most(budget);
    for batch in batches {
        writer.write(batch).unwrap();
    }
    let (rows, written) = writer.finish().unwrap();
    assert_eq!(rows, batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>());
    assert_eq!(rows, written.iter().map(|written| written.file.rows).sum::<u64>());
    let mut files = Vec::new();
    for written in written {
        files.push(written.file);
        written.held.keep();
    }
    let count = files.len();
    let staged = Staged { task, rows, bytes: 0, files, payload: serde_json::Value::Null };
    runtime.block_on(sink.commit(&[staged], &Checkpoint::default())).unwrap();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    (texts(batches, &names), texts(&runtime.block_on(read_parquet(&target.place())).unwrap(), &names), count)
}

fn many_partitions(rows: i64, partitions: i64) -> RecordBatch {
    let value: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let part: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row * 7919 % partitions)));
    RecordBatch::try_from_iter([("value", value), ("part", part)]).unwrap()
}

#[test]
fn more_partitions_than_files_can_be_open_make_one_file_each() {
    let batches: Vec<RecordBatch> = (0..4).map(|_| many_partitions(1500, 1400)).collect();
    let (wanted, got, files) = write_and_read(&batches, &["part"], 20_000);
    assert_eq!(wanted, got);
    assert_eq!(files, 1400);
}

async fn files_of(spec: LoadSpec, batches: Vec<RecordBatch>) -> (Target, Vec<gristmill_model::StagedFile>) {
    let target = Target::local();
    let schema = batches[0].schema();
    let sink = target.open(spec, context(&target, schema.clone(), key(1), owner("run"))).unwrap();
    let staged = sink.stage(&task(&key(1), &owner("run"), 0), Rows::from_batches(schema, batches)).await.unwrap();
    let files = staged.files.clone();
    sink.commit(&[staged], &Checkpoint::default()).await.unwrap();
    (target, files)
}

#[tokio::test]
async fn files_are_rolled_at_their_size() {
    let mut spec = load(gristmill_model::spec::Strategy::Append, &[]);
    spec.file_size = Some(ByteSize(64 << 10));
    spec.compression = Some(Compression::None);
    let batches: Vec<RecordBatch> = (0..40).map(|_| many_partitions(20_000, 20_000)).collect();
    let (target, files) = files_of(spec, batches).await;
    assert!(files.len() > 5, "{} files", files.len());
    assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), 800_000);
    for file in files {
        assert_eq!(std::fs::metadata(target.root().join(&file.path)).unwrap().len(), file.bytes);
    }
}

#[tokio::test]
async fn row_groups_have_the_rows_that_were_asked_for() {
    let mut spec = load(gristmill_model::spec::Strategy::Append, &[]);
    spec.row_group_rows = Some(1000);
    let (target, files) = files_of(spec, vec![many_partitions(1700, 5), many_partitions(900, 5)]).await;
    let file = std::fs::File::open(target.root().join(&files[0].path)).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [1000, 1000, 600]);
}

#[tokio::test]
async fn csv_is_written_in_its_dialect() {
    let mut spec = load(gristmill_model::spec::Strategy::Append, &[]);
    spec.format = Some(FileFormat::Csv);
    spec.csv = Some(CsvOptions {
        delimiter: Some("|".to_owned()),
        null_text: Some(OneOrMany(vec!["\\N".to_owned()])),
        ..CsvOptions::default()
    });
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a|b"), None, Some("c")]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let batch = RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("t", texts, true)]).unwrap();
    let (target, files) = files_of(spec.clone(), vec![batch.clone()]).await;
    assert_eq!(std::fs::read_to_string(target.root().join(&files[0].path)).unwrap(), "n|t\n1|\"a|b\"\n2|\\N\n3|c\n");

    spec.compression = Some(Compression::Gzip);
    let (target, files) = files_of(spec, vec![batch]).await;
    assert!(files[0].path.ends_with(".csv.gz"));
    let mut text = String::new();
    let file = std::fs::File::open(target.root().join(&files[0].path)).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).unwrap();
    assert!(text.starts_with("n|t\n"));
}

#[tokio::test]
async fn ndjson_keeps_its_nulls_and_its_compression() {
    let mut spec = load(gristmill_model::spec::Strategy::Append, &[]);
    spec.format = Some(FileFormat::Ndjson);
    spec.compression = Some(Compression::Zstd);
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let batch = RecordBatch::try_from_iter_with_nullable([("t", texts, true)]).unwrap();
    let (target, files) = files_of(spec, vec![batch]).await;
    let file = std::fs::File::open(target.root().join(&files[0].path)).unwrap();
    let text = zstd::stream::decode_all(file).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "{\"t\":\"a\"}\n{\"t\":null}\n");
}

#[tokio::test]
async fn a_replace_without_rows_keeps_the_columns() {
    let mut spec = load(gristmill_model::spec::Strategy::Replace, &[]);
    spec.format = Some(FileFormat::Parquet);
    let target = Target::local();
    let sink = target.open(spec, context(&target, rows(&[]).schema(), key(1), owner("run"))).unwrap();
    sink.commit(&[], &Checkpoint::default()).await.unwrap();
    let files = target.place().data_files().await.unwrap();
    let file = std::fs::File::open(target.root().join(&files[0])).unwrap();
    let schema = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().schema().clone();
    assert_eq!(schema.fields().len(), 2);
}

#[test]
fn parts_are_equal_and_never_more_than_ten_thousand() {
    use super::super::output::{LEAST_PART, MOST_PARTS, part_size};
    for size in [0, 1 << 20, 256 << 20, 80 << 30, 5 << 40u64] {
        let part = part_size(size);
        assert!(part >= LEAST_PART && part as u64 * MOST_PARTS >= size, "{size}: {part}");
    }
}

#[test]
fn a_config_is_checked_before_anything_is_touched() {
    let mut spec = load(gristmill_model::spec::Strategy::Append, &["day"]);
    spec.path = Some("a/*".to_owned());
    assert!(Config::new(&spec, &rows(&[]).schema()).unwrap_err().message().contains("pattern"));
}

#[tokio::test]
async fn computed_columns_become_folders_and_are_not_stored() {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(19_737), Some(19_738), None]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![34, 34, 35]));
    let batch = RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("sold", days, true)]).unwrap();
    let by = ["year(sold)", "day(sold) as d", "hash(id) % 16"];
    let mut spec = load(gristmill_model::spec::Strategy::PartitionOverwrite, &by);
    let (target, _) = files_of(spec.clone(), vec![batch.clone()]).await;
    let files = target.place().data_files().await.unwrap();
    let folders: Vec<&str> = files.iter().map(|path| split(path).0).collect();
    let null = "__HIVE_DEFAULT_PARTITION__";
    let third = format!("year={null}/d={null}/id_bucket=5");
    assert_eq!(folders, ["year=2024/d=15/id_bucket=3", "year=2024/d=16/id_bucket=3", third.as_str()]);
    let found = read_parquet(&target.place()).await.unwrap();
    assert_eq!(texts(&found, &["id", "sold"]), texts(std::slice::from_ref(&batch), &["id", "sold"]));

    // A partition of theirs is replaced, the others stay; and a scope on computed columns takes more.
    let commit = async |spec: LoadSpec, generation: u32, batch: RecordBatch| {
        let context = context(&target, batch.schema(), key(generation), owner("run"));
        let sink = target.open(spec, context).unwrap();
        let staged = stage_all(&sink, &[batch]).await.unwrap();
        sink.commit(&staged, &Checkpoint::default()).await.unwrap();
        target.place().data_files().await.unwrap().len()
    };
    assert_eq!(commit(spec.clone(), 2, batch.slice(0, 1)).await, 3);
    spec.scope = Some("year = 2024".to_owned());
    assert_eq!(commit(spec.clone(), 3, batch.slice(0, 1)).await, 2);
    let sink = target.open(spec, context(&target, batch.schema(), key(4), owner("run"))).unwrap();
    let error = stage_all(&sink, &[batch]).await.unwrap_err();
    assert!(error.message().contains("outside of the scope"), "{error:?}");
}

#[tokio::test]
async fn parquet_files_have_the_layout_that_was_asked_for() {
    use ::parquet::file::metadata::SortingColumn;
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use ::parquet::file::serialized_reader::ReadOptionsBuilder;
    use gristmill_model::spec::{ParquetOptions, Statistics};
    let mut spec = load(gristmill_model::spec::Strategy::Append, &[]);
    spec.sort_by = OneOrMany(vec!["value desc".to_owned()]);
    spec.parquet = Some(ParquetOptions {
        row_group_size: Some(ByteSize(64 << 10)),
        dictionary: Some(false),
        bloom_filter: OneOrMany(vec!["value".to_owned()]),
        bloom_filter_fpp: Some(0.001),
        ..ParquetOptions::default()
    });
    let file_of = async |spec: &LoadSpec| {
        let (target, files) = files_of(spec.clone(), vec![many_partitions(20_000, 7)]).await;
        let file = std::fs::File::open(target.root().join(&files[0].path)).unwrap();
        let options = ReadOptionsBuilder::new().with_page_index().build();
        SerializedFileReader::new_with_options(file, options).unwrap()
    };
    let reader = file_of(&spec).await;
    let metadata = reader.metadata();
    assert!(metadata.num_row_groups() > 3, "{}", metadata.num_row_groups());
    assert!(metadata.column_index().is_some() && metadata.offset_index().is_some());
    for at in 0..metadata.num_row_groups() {
        let group = metadata.row_group(at);
        let order = SortingColumn { column_idx: 0, descending: true, nulls_first: true };
        assert_eq!(group.sorting_columns(), Some(&vec![order]));
        assert!(group.column(0).dictionary_page_offset().is_none());
        assert!(group.column(1).bloom_filter_offset().is_none());
        let row_group = reader.get_row_group(at).unwrap();
        let first = metadata.row_groups()[..at].iter().map(|group| group.num_rows()).sum::<i64>();
        let bytes = group.column(0).bloom_filter_length();
        assert!(bytes.is_some_and(|bytes| bytes < 64 << 10), "{bytes:?}");
        assert!(row_group.get_column_bloom_filter(0).is_none_or(|filter| filter.check(&first)));
    }

    let options = spec.parquet.get_or_insert_default();
    (options.statistics, options.page_index, options.dictionary) = (Some(Statistics::None), Some(false), Some(true));
    let reader = file_of(&spec).await;
    assert!(reader.metadata().offset_index().is_none());
    let column = reader.metadata().row_group(0).column(1);
    assert!(column.statistics().is_none() && column.dictionary_page_offset().is_some());
}

#[test]
fn layouts_that_make_no_sense_are_refused_by_name() {
    use gristmill_model::spec::{ParquetOptions, Statistics};
    let parquet = |change: fn(&mut ParquetOptions)| {
        refuse(|spec| change(spec.parquet.get_or_insert_default())).message().to_owned()
    };
    assert!(
        parquet(|it| it.bloom_filter = OneOrMany(vec!["idd".to_owned()]))
            .contains("`bloom_filter` names a column `idd`")
    );
    assert!(parquet(|it| it.bloom_filter_fpp = Some(0.1)).contains("means nothing without"));
    assert!(parquet(|it| it.row_group_size = Some(ByteSize(10))).contains("too small"));
    let both = |it: &mut ParquetOptions| (it.page_index, it.statistics) = (Some(true), Some(Statistics::RowGroup));
    assert!(parquet(both).contains("`page_index` needs statistics"));
    let error = refuse(|spec| {
        (spec.format, spec.parquet) = (Some(FileFormat::Csv), Some(ParquetOptions::default()));
    });
    assert_eq!(error.message(), "`parquet` means nothing to `format: csv`");
    let error = refuse(|spec| spec.sort_by = OneOrMany(vec!["id".to_owned(), "id desc".to_owned()]));
    assert_eq!(error.message(), "`sort_by` names `id` twice");
    let error = refuse(|spec| {
        spec.partition_by = OneOrMany(vec!["day".to_owned()]);
        spec.sort_by = OneOrMany(vec!["day".to_owned()]);
    });
    assert!(error.message().contains("`sort_by` names a column `day` that is not in the files"), "{error:?}");
}

#[tokio::test]
async fn comments_of_columns_are_no_part_of_the_files() {
    let target = Target::local();
    let rows = rows(&[(1, "a")]);
    let schema = commented(&rows.schema(), &[("id".to_owned(), "a key".to_owned())].into());
    let (key, owner) = (key(1), owner("run-a"));
    let context = context(&target, schema, key.clone(), owner.clone());
    let sink = target.sink(load(gristmill_model::spec::Strategy::Append, &[]), context).unwrap();
    sink.prepare().await.unwrap();
    let staged = sink.stage(&task(&key, &owner, 0), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap();
    sink.commit(&[staged], &Checkpoint::default()).await.unwrap();
    let read = read_parquet(&target.place()).await.unwrap();
    assert_eq!(read[0].num_rows(), 1);
    assert!(read[0].schema().fields().iter().all(|field| comment_of(field).is_none()));
}
