//! Names that must mean the same to sink and readers, and runs that have the same load.

use super::*;

fn opened(target: &Target, by: &str, spec: LoadSpec, schema: SchemaRef) -> FilesSink {
    target.open(spec, context(target, schema, key(1), owner(by))).unwrap()
}

fn years(ids: &[i64], years: &[i64]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    let years: ArrayRef = Arc::new(Int64Array::from(years.to_vec()));
    RecordBatch::try_from_iter([("id", ids), ("_year", years)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_column_that_begins_with_an_underscore_is_replaced_as_it_is_read() {
    for (strategy, left) in [(Strategy::Replace, 1), (Strategy::PartitionOverwrite, 2)] {
        let target = Target::local();
        for (generation, batch) in [(1, years(&[1, 2], &[2024, 2023])), (2, years(&[3], &[2024]))] {
            let context = context(&target, batch.schema(), key(generation), owner("run"));
            let sink = target.open(load(strategy, &["_year"]), context).unwrap();
            let staged = stage_all(&sink, &[batch]).await.unwrap();
            sink.commit(&staged, &Checkpoint::default()).await.unwrap();
        }
        let seen = texts(&read_parquet(&target.place()).await.unwrap(), &["id", "_year"]);
        assert_eq!(seen.len(), left, "{strategy:?}: {seen:?}");
    }
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("id", ids.clone()), (".x", ids)]).unwrap();
    let target = Target::local();
    let context = context(&target, batch.schema(), key(1), owner("run"));
    let error = target.open(load(Strategy::Replace, &[".x"]), context).unwrap_err();
    assert!(error.message().contains("readers leave out"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_value_that_reads_back_as_null_is_refused() {
    for value in ["", "__HIVE_DEFAULT_PARTITION__"] {
        let target = Target::local();
        let batch = rows(&[(1, "a"), (2, value)]);
        let sink = opened(&target, "run", load(Strategy::Replace, &["day"]), batch.schema());
        let error = stage_all(&sink, &[batch]).await.unwrap_err();
        assert!(error.message().contains("partition column `day` holds the"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_leaves_what_another_run_has_staged_under_the_same_key() {
    for target in [Target::local(), Target::s3(), Target::s3_readable()] {
        let mine = opened(&target, "a", load(Strategy::Append, &[]), rows(&[]).schema());
        let theirs = opened(&target, "b", load(Strategy::Append, &[]), rows(&[]).schema());
        let staged = stage_all(&theirs, &[rows(&[(1, "x")])]).await.unwrap();
        stage_all(&mine, &[rows(&[(2, "y")])]).await.unwrap();
        mine.abort(&key(1)).await.unwrap();
        assert!(!theirs.commit(&staged, &Checkpoint::default()).await.unwrap().already);
        assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_load_another_run_has_committed_is_told_that_its_rows_are_not_in() {
    for target in [Target::local(), Target::s3(), Target::s3_readable()] {
        let mine = opened(&target, "a", load(Strategy::Append, &[]), rows(&[]).schema());
        let theirs = opened(&target, "b", load(Strategy::Append, &[]), rows(&[]).schema());
        let my_rows = stage_all(&mine, &[rows(&[(2, "y")])]).await.unwrap();
        let their_rows = stage_all(&theirs, &[rows(&[(1, "x")])]).await.unwrap();
        theirs.commit(&their_rows, &Checkpoint::default()).await.unwrap();
        let error = mine.commit(&my_rows, &Checkpoint::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.message().contains("committed by the run `b`"), "{error:?}");
        // Whoever finishes what another has staged takes part in it.
        assert!(mine.commit(&their_rows, &Checkpoint::default()).await.unwrap().already);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_uploads_below_a_prefix_with_a_space_are_found_and_swept() {
    for target in [Target::s3(), Target::s3_readable(), Target::s3_without_copies()] {
        let mut spec = load(Strategy::Append, &[]);
        spec.path = Some("a b/c%20d".to_owned());
        spec.readable_staging = target.readable;
        let staged = async |number: u32| {
            let context = context(&target, rows(&[]).schema(), key(number), owner("run"));
            let sink = FilesSink::new(&target.store, &spec, context).unwrap();
            let staged = stage_all(&sink, &[rows(&[(1, "x")])]).await.unwrap();
            (sink, staged)
        };
        let open = || target.server.as_ref().unwrap().open_uploads().unwrap().len();
        let (sink, _) = staged(1).await;
        assert_eq!(open(), usize::from(!target.readable));
        assert_eq!(sink.recover(&|_| true).await.unwrap().swept, 1);
        let (sink, staged) = staged(2).await;
        sink.commit(&staged, &Checkpoint::default()).await.unwrap();
        assert_eq!(texts(&read_parquet(&sink.place).await.unwrap(), &["id"]), ["1│"]);
        assert_eq!(open(), 0);
        for folder in [INTENTS, STAGING] {
            assert_eq!(sink.place.names(folder).await.unwrap(), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn rows_that_would_make_the_folder_unreadable_are_refused_before_any_is_read() {
    let target = Target::local();
    let sink = opened(&target, "run", load(Strategy::Append, &[]), rows(&[]).schema());
    let staged = stage_all(&sink, &[rows(&[(1, "x")])]).await.unwrap();
    sink.commit(&staged, &Checkpoint::default()).await.unwrap();
    let schema = |id: DataType, more: &str| {
        let day = Field::new("day", DataType::Utf8View, true);
        Arc::new(Schema::new(vec![Field::new("id", id, true), day, Field::new(more, DataType::Float64, true)]))
    };
    let again = |strategy: Strategy, schema: SchemaRef| {
        target.open(load(strategy, &[]), context(&target, schema, key(2), owner("run"))).unwrap()
    };
    again(Strategy::Append, schema(DataType::Int32, "more")).prepare().await.unwrap();
    again(Strategy::Append, schema(DataType::Float64, "more")).prepare().await.unwrap();
    again(Strategy::Replace, schema(DataType::Utf8, "more")).prepare().await.unwrap();
    let error = again(Strategy::Append, schema(DataType::Utf8, "more")).prepare().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert_eq!(error.message(), "the column `id` is text in the rows but bigint in the files of `lake/rows`");
}

#[test]
fn a_map_whose_keys_are_no_texts_is_refused_as_json_by_name() {
    let target = Target::local();
    let entries = vec![Field::new("keys", DataType::Int32, false), Field::new("values", DataType::Int32, true)];
    let entries = Field::new("entries", DataType::Struct(entries.into()), false);
    let map = Field::new("m", DataType::Map(Arc::new(entries), false), true);
    let mut spec = load(Strategy::Append, &[]);
    spec.format = Some(FileFormat::Ndjson);
    let schema = Arc::new(Schema::new(vec![map]));
    let error = target.open(spec, context(&target, schema, key(1), owner("run"))).unwrap_err();
    assert!(error.message().starts_with("column `m` of type"), "{error:?}");
}
