//! What a compaction keeps: the settings that files were written with, and text to the byte.

use super::compact::{all, compacted, compacted_by, crumbs, seen};
use super::typed::{read_as, shown};
use super::*;
use crate::Compaction;
use ::parquet::basic::Compression as Codec;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use gristmill_model::spec::{Compression, CsvOptions, ParquetOptions, Statistics};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

async fn footer(target: &Target) -> ParquetMetaData {
    let files = target.place().data_files().await.unwrap();
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = target.place().read(&files[0]).await.unwrap().unwrap();
    ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(bytes)).unwrap()
}

fn particular() -> LoadSpec {
    LoadSpec {
        compression: Some(Compression::Snappy),
        sort_by: OneOrMany(vec!["id desc".to_owned()]),
        parquet: Some(ParquetOptions {
            dictionary: Some(false),
            statistics: Some(Statistics::RowGroup),
            page_index: Some(false),
            bloom_filter: OneOrMany(vec!["id".to_owned()]),
            ..ParquetOptions::default()
        }),
        ..load(Strategy::Append, &[])
    }
}

/// Rows that come sorted as [`particular`] says.
fn sorted() -> Vec<RecordBatch> {
    vec![rows(&[(9, "1"), (5, "2"), (-3, "1")]), rows(&[(8, "1"), (5, "1")]), rows(&[(100, "4")])]
}

#[tokio::test]
async fn parquet_files_keep_their_settings_and_their_order() {
    let target = Target::local();
    crumbs(&target, &particular(), &sorted(), 1).await;
    let before = seen(&target).await;
    compacted(&target, &all()).await;
    let file = footer(&target).await;
    let group = file.row_group(0);
    for chunk in group.columns() {
        let told = (chunk.compression(), chunk.dictionary_page_offset(), chunk.column_index_offset());
        assert_eq!(told, (Codec::SNAPPY, None, None));
        assert_eq!((chunk.statistics().is_some(), chunk.offset_index_offset()), (true, None));
    }
    let filters: Vec<bool> = group.columns().iter().map(|chunk| chunk.bloom_filter_offset().is_some()).collect();
    assert_eq!(filters, [true, false]);
    let order = &group.sorting_columns().unwrap()[0];
    assert_eq!((order.column_idx, order.descending, order.nulls_first), (0, true, true));
    let found = read_parquet(&target.place()).await.unwrap();
    let ids = found[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap();
    assert_eq!(ids.values().to_vec(), [100, 9, 8, 5, 5, -3]);
    assert_eq!(seen(&target).await, before);
}

#[tokio::test]
async fn what_the_load_says_goes_before_what_the_files_have() {
    let target = Target::local();
    crumbs(&target, &particular(), &sorted(), 1).await;
    let like = LoadSpec {
        compression: Some(Compression::Gzip),
        row_group_rows: Some(4),
        parquet: Some(ParquetOptions {
            bloom_filter: OneOrMany(vec!["day".to_owned(), "no more".to_owned()]),
            ..ParquetOptions::default()
        }),
        ..load(Strategy::Append, &[])
    };
    compacted(&target, &Compaction { load: Some(like), ..all() }).await;
    let file = footer(&target).await;
    assert_eq!(file.row_groups().iter().map(|group| group.num_rows()).collect::<Vec<_>>(), [4, 2]);
    let chunks = file.row_group(0).columns();
    assert!(chunks.iter().all(|chunk| matches!(chunk.compression(), Codec::GZIP(_))));
    assert!(chunks.iter().all(|chunk| chunk.column_index_offset().is_some()));
    assert_eq!((chunks[0].bloom_filter_offset(), chunks[1].bloom_filter_offset().is_some()), (None, true));
    // The order is that of the rows.
    assert!(file.row_group(0).sorting_columns().is_some());
    // As the file has it, where nobody says more: row groups that are smaller than they need be.
    crumbs(&target, &particular(), &[rows(&[(1, "1")])], 9).await;
    compacted_by(&target, &all(), "compact-2", Faults::default()).await.unwrap();
    let file = footer(&target).await;
    assert_eq!(file.row_groups().iter().map(|group| group.num_rows()).collect::<Vec<_>>(), [4, 3]);
    assert!(matches!(file.row_group(0).column(0).compression(), Codec::GZIP(_)), "as the largest has it");
}

#[tokio::test]
async fn files_that_are_not_sorted_as_they_say_are_compacted_and_say_it_no_more() {
    let target = Target::local();
    crumbs(&target, &particular(), &[rows(&[(1, "1"), (7, "1")]), rows(&[(3, "1")])], 1).await;
    let before = seen(&target).await;
    assert_eq!(compacted(&target, &all()).await[0].rows, Some(3));
    assert_eq!(footer(&target).await.row_group(0).sorting_columns(), None);
    assert_eq!(seen(&target).await, before);
    assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn sorted_files_are_not_mixed_with_others() {
    let target = Target::local();
    crumbs(&target, &particular(), &sorted(), 1).await;
    let plain = LoadSpec { sort_by: OneOrMany::default(), ..particular() };
    crumbs(&target, &plain, &[rows(&[(1, "1"), (7, "1")]), rows(&[(3, "1")])], 9).await;
    let before = seen(&target).await;
    let done = compacted(&target, &all()).await;
    let mut counts: Vec<_> = done.iter().map(|part| part.rows.unwrap()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [3, 6]);
    assert_eq!(seen(&target).await, before);
}

#[tokio::test]
async fn an_abort_that_knows_no_columns_does_not_miss_those_that_a_load_names() {
    let target = Target::local();
    let none = Arc::new(Schema::empty());
    let sink = target.open(particular(), context(&target, sorted()[0].schema(), key(1), owner("run"))).unwrap();
    stage_all(&sink, &sorted()).await.unwrap();
    assert_eq!(target.leftovers().await.unwrap().len(), 1);
    let sweeping = target.open(particular(), context(&target, none, key(1), owner("run"))).unwrap();
    sweeping.abort(&key(1)).await.unwrap();
    assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
}

fn text_load(format: FileFormat, compression: Option<Compression>, csv: Option<CsvOptions>) -> LoadSpec {
    LoadSpec { format: Some(format), compression, csv, ..load(Strategy::Append, &[]) }
}

async fn texts_of(target: &Target) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in target.place().data_files().await.unwrap() {
        let bytes = target.place().read(&path).await.unwrap().unwrap();
        found.push((path, String::from_utf8_lossy(&bytes).into_owned()));
    }
    found
}

#[tokio::test]
async fn csv_is_put_together_byte_by_byte_under_one_header() {
    let target = Target::local();
    std::fs::create_dir_all(target.root()).unwrap();
    let write = |name: &str, text: &str| std::fs::write(target.root().join(name), text).unwrap();
    write("a.csv", "id,t\r\n1,  x\r\n007,\"a\nb\"");
    write("b.csv", "\u{feff}id,t\n\n1.50,\"\"\n");
    write("c.csv", "id,t\n");
    write("other.csv", "t,id\nx,1\n");
    write("broken.csv.gz", "id,t\n1,1\n");
    write("empty.csv", "");
    // Nobody knows whether the first line is a header.
    let error = compacted_by(&target, &all(), "c", Faults::default()).await.unwrap_err();
    assert!(error.message().contains("whether the first line is a header"), "{error:?}");
    let told = Compaction { load: Some(text_load(FileFormat::Csv, None, None)), ..all() };
    let done = compacted(&target, &told).await;
    assert_eq!((done.len(), done[0].files_before, done[0].rows), (1, 3, Some(3)));
    let found = texts_of(&target).await;
    assert_eq!(found.len(), 4, "{found:?}");
    let whole = found.iter().find(|(path, _)| path.starts_with("part-") && path.ends_with(".csv")).unwrap();
    assert_eq!(whole.1, "id,t\n1,  x\r\n007,\"a\nb\"\n1.50,\"\"\n");
    assert!(compacted(&target, &told).await.is_empty(), "it is compact");
    write("d.csv", "id,t\n1,\"x");
    let error = compacted_by(&target, &told, "c", Faults::default()).await.unwrap_err();
    assert!(error.to_string().contains("d.csv") && error.to_string().contains("never closed"), "{error}");
}

#[tokio::test]
async fn an_ending_that_tells_the_delimiter_stays() {
    let target = Target::local();
    std::fs::create_dir_all(target.root()).unwrap();
    for (name, id) in [("a.tsv", 1), ("b.tsv", 2)] {
        std::fs::write(target.root().join(name), format!("id\tt\n{id}\t\"a\tb\"\n")).unwrap();
    }
    compacted(&target, &Compaction { load: Some(text_load(FileFormat::Csv, None, None)), ..all() }).await;
    let found = texts_of(&target).await;
    assert!(found.len() == 1 && found[0].0.ends_with(".tsv"), "{found:?}");
    assert_eq!(found[0].1, "id\tt\n1\t\"a\tb\"\n2\t\"a\tb\"\n");
}

#[tokio::test]
async fn text_files_are_rolled_at_the_size_that_was_asked_for() {
    let target = Target::local();
    let long = "x".repeat(3000);
    let batch = rows(&(0..14).map(|id| (id, long.as_str())).collect::<Vec<_>>());
    let spec = text_load(FileFormat::Ndjson, None, None);
    crumbs(&target, &spec, &vec![batch; 6], 1).await;
    let done = compacted(&target, &Compaction { file_size: Some(64 << 10), ..all() }).await;
    assert_eq!((done[0].files_before, done[0].rows), (6, Some(84)));
    assert!(done[0].files_after.unwrap() > 1, "{done:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// NULL, the empty text, and texts that look like NULL, like a header or like the dialect stay what they are.
    #[test]
    fn any_text_comes_out_as_it_went_in(
        loads in proptest::collection::vec(
            proptest::collection::vec((any::<i64>(), proptest::option::of("[ab\"';|\\\\,\r\n\tN{}]{0,6}|id|day|é")), 0..12),
            1..6,
        ),
        format in proptest::sample::select(vec![FileFormat::Csv, FileFormat::Ndjson]),
        compression in proptest::sample::select(vec![None, Some(Compression::Gzip), Some(Compression::Zstd)]),
        delimiter in proptest::sample::select(vec![None, Some("|"), Some("\t")]),
        quote in proptest::sample::select(vec![None, Some("'")]),
        escape in proptest::sample::select(vec![None, Some("\\")]),
        header in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let target = Target::local();
        let text = |text: Option<&str>| text.map(str::to_owned);
        let csv = (format == FileFormat::Csv).then(|| CsvOptions {
            delimiter: text(delimiter),
            quote: text(quote),
            escape: text(escape),
            header: Some(header),
            null_text: Some(OneOrMany(vec!["N".to_owned()])),
            ..CsvOptions::default()
        });
        let spec = text_load(format, compression, csv.clone());
        let batches: Vec<RecordBatch> = loads
            .iter()
            .map(|load| {
                let ids: ArrayRef = Arc::new(load.iter().map(|row| row.0).collect::<Int64Array>());
                let days: ArrayRef = Arc::new(load.iter().map(|row| row.1.as_deref()).collect::<StringArray>());
                RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("day", days, true)]).unwrap()
            })
            .collect();
        runtime.block_on(crumbs(&target, &spec, &batches, 1));
        let files = runtime.block_on(target.place().data_files()).unwrap();
        if !files.is_empty() {
            let names = if header { ["id", "day"] } else { ["column_1", "column_2"] };
            let names = if format == FileFormat::Csv { names } else { ["id", "day"] };
            let options = csv.map(|csv| format!("csv: {}\n", serde_json::to_string(&csv).unwrap())).unwrap_or_default();
            let more = format!("{options}schema: {{{}: bigint, {}: text}}\n", names[0], names[1]);
            let before = shown(&runtime.block_on(read_as(&target, &more)));
            runtime.block_on(compacted(&target, &Compaction { load: Some(spec), ..all() }));
            let now = runtime.block_on(target.place().data_files()).unwrap();
            prop_assert_eq!(now.len(), 1);
            let mut found = shown(&runtime.block_on(read_as(&target, &more)));
            let mut wanted: Vec<String> = batches.iter().flat_map(shown).collect();
            prop_assert_eq!(before.len(), wanted.len());
            found.sort();
            wanted.sort();
            prop_assert_eq!(found, wanted);
        }
    }
}
