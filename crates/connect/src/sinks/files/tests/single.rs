//! Targets that are one file: published whole, replaced whole, nothing left beside them.

use super::*;

const FILE: &str = "rates/2024-01-15/rates.json";

fn sink(target: &Target, path: &str, generation: u32, by: &str) -> Result<(Arc<dyn Sink>, LoadKey, OwnerId)> {
    let mut load = load(Strategy::Replace, &[]);
    load.path = Some(path.to_owned());
    load.readable_staging = target.readable;
    load.format = path.ends_with(".json").then_some(FileFormat::Ndjson);
    let (key, owner) = (key(generation), owner(by));
    let schema = rows(&[]).schema();
    let sink = open_sink(target.store.clone(), &load, context(target, schema, key.clone(), owner.clone()))?;
    Ok((sink, key, owner))
}

async fn stage(sink: &Arc<dyn Sink>, key: &LoadKey, owner: &OwnerId, batch: RecordBatch) -> Staged {
    sink.prepare().await.unwrap();
    sink.stage(&task(key, owner, 0), Rows::from_batches(batch.schema(), vec![batch])).await.unwrap()
}

async fn text(target: &Target) -> Option<String> {
    let folder = Place::new(&target.store, "rates/2024-01-15").unwrap();
    folder.read("rates.json").await.unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
}

async fn names(target: &Target) -> Vec<String> {
    Place::new(&target.store, "rates/2024-01-15").unwrap().names("").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_is_replaced_whole_and_leaves_nothing_beside_it() {
    for target in [Target::local(), Target::s3(), Target::s3_readable(), Target::s3_without_copies()] {
        let (first, key, owner) = sink(&target, FILE, 1, "a").unwrap();
        let staged = vec![stage(&first, &key, &owner, rows(&[(1, "x")])).await];
        assert_eq!(text(&target).await, None);
        assert!(!first.commit(&staged, &Checkpoint::default()).await.unwrap().already);
        assert_eq!(text(&target).await.unwrap(), "{\"id\":1,\"day\":\"x\"}\n");
        assert!(first.commit(&staged, &Checkpoint::default()).await.unwrap().already);
        assert_eq!(names(&target).await, ["rates.json"]);

        // Of the same size as the one before, which must not be taken for it.
        let (second, key, owner) = sink(&target, FILE, 2, "b").unwrap();
        let staged = vec![stage(&second, &key, &owner, rows(&[(2, "y")])).await];
        assert_eq!(text(&target).await.unwrap(), "{\"id\":1,\"day\":\"x\"}\n");
        second.commit(&staged, &Checkpoint::default()).await.unwrap();
        assert_eq!(text(&target).await.unwrap(), "{\"id\":2,\"day\":\"y\"}\n");

        let (empty, key, owner) = sink(&target, FILE, 3, "c").unwrap();
        let staged = vec![stage(&empty, &key, &owner, rows(&[])).await];
        empty.commit(&staged, &Checkpoint::default()).await.unwrap();
        assert_eq!(text(&target).await.unwrap(), "");
        assert_eq!(names(&target).await, ["rates.json"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_staged_and_given_up_is_swept() {
    for target in [Target::local(), Target::s3(), Target::s3_readable(), Target::s3_without_copies()] {
        let (sink, key, owner) = sink(&target, FILE, 1, "a").unwrap();
        stage(&sink, &key, &owner, rows(&[(1, "x")])).await;
        assert_eq!(sink.recover(&|_| false).await.unwrap().swept, 0);
        assert_eq!(sink.recover(&|_| true).await.unwrap().swept, 1);
        assert_eq!(names(&target).await, Vec::<String>::new());
        let staged = vec![stage(&sink, &key, &owner, rows(&[(1, "x")])).await];
        sink.abort(&key).await.unwrap();
        assert_eq!(names(&target).await, Vec::<String>::new());
        let error = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
}

#[test]
fn the_name_says_the_format_and_what_one_file_cannot_do_is_refused() {
    let target = Target::local();
    assert!(sink(&target, "a.parquet", 1, "a").unwrap().0.mode() == SinkMode::Single);
    assert!(sink(&target, "a.csv.gz", 1, "a").unwrap().0.mode() == SinkMode::Single);
    assert!(sink(&target, "a/", 1, "a").unwrap().0.mode() == SinkMode::Staged);
    let mut append = load(Strategy::Append, &[]);
    append.path = Some("a.parquet".to_owned());
    let context = context(&target, rows(&[]).schema(), key(1), owner("a"));
    let error = open_sink(target.store.clone(), &append, context).unwrap_err();
    assert!(error.message().contains("can only be replaced"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_is_not_taken_for_what_was_staged() {
    for target in [Target::local(), Target::s3(), Target::s3_readable(), Target::s3_without_copies()] {
        let (first, first_key, by) = sink(&target, FILE, 1, "a").unwrap();
        let staged = vec![stage(&first, &first_key, &by, rows(&[(1, "x")])).await];
        first.commit(&staged, &Checkpoint::default()).await.unwrap();
        // As large as the one before, and gone when it is to be published.
        let (second, second_key, by) = sink(&target, FILE, 2, "b").unwrap();
        let staged = vec![stage(&second, &second_key, &by, rows(&[(2, "y")])).await];
        second.abort(&second_key).await.unwrap();
        let error = second.commit(&staged, &Checkpoint::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        assert_eq!(text(&target).await.unwrap(), "{\"id\":1,\"day\":\"x\"}\n");
        // Another process that does not know how the commit ended learns it.
        let staged = vec![stage(&second, &second_key, &by, rows(&[(2, "y")])).await];
        assert!(!second.commit(&staged, &Checkpoint::default()).await.unwrap().already);
        let (again, ..) = sink(&target, FILE, 2, "b").unwrap();
        assert!(again.commit(&staged, &Checkpoint::default()).await.unwrap().already);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recovering_one_file_leaves_the_uploads_of_the_folder_it_is_in() {
    for target in [Target::s3(), Target::s3_readable()] {
        let (single, key, by) = sink(&target, "lake/rows/x.parquet", 1, "dead").unwrap();
        stage(&single, &key, &by, rows(&[(1, "x")])).await;
        let context = context(&target, rows(&[]).schema(), super::key(2), owner("dead"));
        let folder = target.open(load(Strategy::Append, &[]), context).unwrap();
        let staged = stage_all(&folder, &[rows(&[(2, "y")])]).await.unwrap();
        assert_eq!(single.recover(&|_| true).await.unwrap().swept, 1);
        folder.commit(&staged, &Checkpoint::default()).await.unwrap();
        assert_eq!(read_parquet(&target.place()).await.unwrap().len(), 1);
    }
}
