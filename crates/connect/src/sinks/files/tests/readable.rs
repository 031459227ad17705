//! What is staged as whole objects: it can be looked at, is copied by the commit, and leaves nothing.

use super::super::place::{LoadOf, Remote};
use super::super::{layout, readable};
use super::*;
use gristmill_model::StagedFile;
use object_store::{ObjectStoreExt, PutPayload};

fn opened(target: &Target, number: u32, by: &str, strategy: Strategy, partition_by: &[&str]) -> FilesSink {
    let context = context(target, rows(&[]).schema(), key(number), owner(by));
    target.open(load(strategy, partition_by), context).unwrap()
}

fn remote(sink: &FilesSink) -> &Remote {
    match &sink.place {
        Place::Remote(remote) => remote,
        Place::Local(_) => panic!("a bucket was asked for"),
    }
}

/// Staged objects with nothing of attempts that came to nothing beside them, and read by the names of the target.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_staged_is_kept_and_recovery_finds_it() {
    let target = Target::s3_readable();
    let sink = opened(&target, 1, "run", Strategy::PartitionOverwrite, &["day"]);
    let staged = stage_all(&sink, &[rows(&[(1, "a"), (2, "b")]), rows(&[(3, "a")])]).await.unwrap();
    // A writer that was given up and whose taking back has not come about.
    let lost = TaskKey { attempt: 7, ..task(&key(1), &owner("run"), 0) };
    let batch = rows(&[(4, "a")]);
    sink.stage(&lost, Rows::from_batches(batch.schema(), vec![batch])).await.unwrap();
    assert_eq!(sink.place.names(STAGING).await.unwrap().len(), 4);
    let kept = sink.keep(&staged).await.unwrap().unwrap();
    assert_eq!(kept.folder, None);
    let below = kept.extract.path.unwrap().0.remove(0);
    let below = below.strip_prefix(&format!("{PATH}/{STAGING}/")).unwrap().to_owned();
    let names = sink.place.names(STAGING).await.unwrap();
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(|name| name.starts_with(&below) && name.contains("/day=")), "{names:?} in {below}");
    // Readers of the target, and compactions, do not see them.
    assert_eq!(sink.place.data_files().await.unwrap(), Vec::<String>::new());
    assert_eq!(opened(&target, 2, "other", Strategy::Append, &[]).recover(&|_| true).await.unwrap().swept, 3);
    assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
    let held = Target::s3();
    let sink = opened(&held, 1, "run", Strategy::Append, &[]);
    let staged = stage_all(&sink, &[rows(&[(1, "a")])]).await.unwrap();
    assert!(sink.keep(&staged).await.unwrap().is_none(), "nobody can read an upload");
}

/// An abort that came half way: the note is there, the object is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_objects_are_gone_is_not_decided() {
    let target = Target::s3_readable();
    let sink = opened(&target, 1, "run", Strategy::Append, &[]);
    let staged = stage_all(&sink, &[rows(&[(1, "a")])]).await.unwrap();
    readable::remove(remote(&sink), &staged[0].files).await.unwrap();
    let error = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
    assert!(error.message().contains("is gone"), "{error:?}");
    assert_eq!(Log::list(&sink.place).await.unwrap().next(), 1);
}

/// Large enough for several parts, and copied by whoever the store lets.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_copied_byte_for_byte_with_and_without_the_help_of_the_store() {
    for target in [Target::s3_readable(), Target::s3_without_copies()] {
        let sink = opened(&target, 1, "run", Strategy::Append, &[]);
        let remote = remote(&sink);
        let load = LoadOf { key: key(1), owner: owner("run") };
        for size in [0_usize, 1, (8 << 20) - 1, 8 << 20, (17 << 20) + 5] {
            let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let path = format!("d=1/{size}.parquet");
            let hidden = layout::hidden_path(&task(&key(1), &owner("run"), 0), 0, &path);
            let from = remote.path(&hidden).unwrap();
            remote.store.put(&from, PutPayload::from(bytes.clone())).await.unwrap();
            let file = StagedFile {
                path: path.clone(),
                partition: "d=1".to_owned(),
                rows: 1,
                bytes: size as u64,
                handle: readable::handle(&hidden),
            };
            readable::check(remote, &[&file]).await.unwrap();
            readable::copy(remote, &load, &file, &hidden).await.unwrap();
            assert!(sink.place.read(&path).await.unwrap().unwrap() == bytes, "{size}");
            readable::remove(remote, std::slice::from_ref(&file)).await.unwrap();
            assert!(readable::check(remote, &[&file]).await.is_err());
            let error = readable::copy(remote, &load, &file, &hidden).await.unwrap_err();
            assert!(error.message().contains("is gone"), "{error:?}");
        }
        assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
    }
}

/// A helper copies an object, sleeps, and wakes when a later load has removed it; in the worst case its copy lands only then,
/// and what it does next fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_comes_too_late_is_taken_back() {
    for fails in [false, true] {
        let target = Arc::new(Target::s3_readable());
        let mut sink = opened(&target, 1, "first", Strategy::Append, &[]);
        let staged = stage_all(&sink, &[rows(&[(1, "a")])]).await.unwrap();
        let path = staged[0].files[0].path.clone();
        let (later, again) = (target.clone(), AtomicUsize::new(0));
        sink.faults = Faults(Some(Arc::new(move |point: Point| {
            if point != Point::AfterPublish || again.fetch_add(1, Ordering::SeqCst) > 0 {
                return Ok(());
            }
            let (later, path) = (later.clone(), path.clone());
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    let bytes = later.place().read(&path).await.unwrap().unwrap();
                    let sink = opened(&later, 2, "second", Strategy::Replace, &[]);
                    let staged = stage_all(&sink, &[rows(&[(2, "b")])]).await.unwrap();
                    sink.commit(&staged, &Checkpoint::default()).await.unwrap();
                    assert_eq!(later.place().read(&path).await.unwrap(), None);
                    let late = remote(&sink).path(&path).unwrap();
                    remote(&sink).store.put(&late, PutPayload::from(bytes)).await.unwrap();
                });
            });
            if fails { Err(Error::internal("made to fail")) } else { Ok(()) }
        })));
        let committed = sink.commit(&staged, &Checkpoint::default()).await;
        assert_eq!(committed.is_err(), fails, "{committed:?}");
        assert_eq!(texts(&read_parquet(&target.place()).await.unwrap(), &["id"]), ["2│"]);
        assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
    }
}
