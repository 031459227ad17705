//! Compaction: not a row changes, whatever happens and whoever else is at work.

use super::super::compact::{Work, compact_with};
use super::*;
use crate::{Compacted, Compaction};
use gristmill_model::CancellationToken;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use std::sync::atomic::AtomicU32;

pub(super) fn all() -> Compaction {
    Compaction::of(PATH)
}

pub(super) async fn compacted_by(
    target: &Target,
    want: &Compaction,
    name: &str,
    faults: Faults,
) -> Result<Vec<Compacted>> {
    let (open, owner) = (folders(target.folder.path()), owner(name));
    let work = Work { store: &target.store, open: &open, want, owner: &owner, faults };
    // Whoever compacted before is dead.
    let is_dead = |owner: &OwnerId| owner.0.as_str().starts_with("compact") && owner.0.as_str() != name;
    compact_with(&work, &is_dead, &CancellationToken::new()).await
}

pub(super) async fn compacted(target: &Target, want: &Compaction) -> Vec<Compacted> {
    compacted_by(target, want, "compact-last", Faults::default()).await.unwrap()
}

/// Many loads, each of few rows.
pub(super) async fn crumbs(target: &Target, spec: &LoadSpec, batches: &[RecordBatch], first: u32) {
    for (at, batch) in batches.iter().enumerate() {
        let context = context(target, batch.schema(), key(first + u32::try_from(at).unwrap()), owner("run"));
        let sink = target.open(spec.clone(), context).unwrap();
        let staged = stage_all(&sink, std::slice::from_ref(batch)).await.unwrap();
        sink.commit(&staged, &Checkpoint::default()).await.unwrap();
    }
}

pub(super) async fn seen(target: &Target) -> Vec<String> {
    texts(&read_parquet(&target.place()).await.unwrap(), &["id", "day"])
}

const CRUMBS: [&[(i64, &str)]; 4] =
    [&[(1, "1"), (2, "2")], &[(3, "1"), (4, "1")], &[(5, "2"), (6, "3")], &[(7, "1"), (1, "1")]];

fn batches() -> Vec<RecordBatch> {
    CRUMBS.map(rows).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_files_become_few_and_the_rows_stay() {
    for target in [Target::local(), Target::s3()] {
        crumbs(&target, &load(Strategy::Append, &["day"]), &batches(), 1).await;
        let before = seen(&target).await;
        let files = target.place().data_files().await.unwrap();
        assert_eq!(files.len(), 6);

        let told = compacted(&target, &Compaction { dry_run: true, ..all() }).await;
        assert_eq!(
            told.iter().map(|part| (part.files_before, part.files_after)).collect::<Vec<_>>(),
            [(3, None), (2, None)]
        );
        assert_eq!(target.place().data_files().await.unwrap(), files, "only told");

        let one = Compaction { partitions: vec!["day=2".to_owned()], ..all() };
        let done = compacted(&target, &one).await;
        assert_eq!((done.len(), done[0].rows, done[0].files_after), (1, Some(2), Some(1)));
        assert_eq!(target.place().data_files().await.unwrap().len(), 5);

        let done = compacted_by(&target, &all(), "compact-3", Faults::default()).await.unwrap();
        let part = (done[0].partition.as_str(), done[0].files_before, done[0].files_after, done[0].rows);
        assert_eq!((done.len(), part), (1, ("day=1", 3, Some(1), Some(5))));
        assert_eq!(target.place().data_files().await.unwrap().len(), 3);
        assert_eq!(seen(&target).await, before);
        assert!(compacted(&target, &all()).await.is_empty(), "it is compact");
        assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());

        // Loads go on as before: what they know of themselves is still there.
        let sink = target
            .open(load(Strategy::Append, &["day"]), context(&target, rows(&[]).schema(), key(4), owner("run")))
            .unwrap();
        assert_eq!(sink.last(&key(4).slot).await.unwrap().unwrap().key, key(4));
        let nowhere = Compaction { partitions: vec!["day=9".to_owned()], ..all() };
        let other = compacted_by(&target, &nowhere, "c", Faults::default()).await;
        assert_eq!(other.unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[tokio::test]
async fn large_files_and_those_of_others_stay_as_they_are() {
    let target = Target::local();
    crumbs(&target, &load(Strategy::Append, &[]), &batches(), 1).await;
    std::fs::write(target.root().join("notes.txt"), "mine").unwrap();
    let wide: ArrayRef = Arc::new(Int64Array::from_iter_values(
        (0..40_000).map(|at: i64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed())),
    ));
    let days: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n("9", 40_000)));
    let large = RecordBatch::try_from_iter([("id", wide), ("day", days)]).unwrap();
    crumbs(&target, &load(Strategy::Append, &[]), &[large], 9).await;
    let before = seen(&target).await;
    let kept: Vec<String> = target.place().data_files().await.unwrap();
    let done = compacted(&target, &Compaction { file_size: Some(128 << 10), ..all() }).await;
    assert_eq!((done.len(), done[0].files_before, done[0].files_after), (1, 4, Some(1)));
    let now = target.place().data_files().await.unwrap();
    assert_eq!((now.len(), now.iter().filter(|path| kept.contains(path)).count()), (2, 1));
    assert_eq!(std::fs::read_to_string(target.root().join("notes.txt")).unwrap(), "mine");
    assert_eq!(seen(&target).await, before);
}

#[tokio::test]
async fn files_with_other_columns_or_of_text_are_not_mixed() {
    let target = Target::local();
    let extra = |id: i64| {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![id]));
        RecordBatch::try_from_iter([("id", ids.clone()), ("more", ids)]).unwrap()
    };
    let spec = load(Strategy::Append, &[]);
    crumbs(&target, &spec, &batches(), 1).await;
    crumbs(&target, &spec, &[extra(1), extra(2)], 5).await;
    let done = compacted(&target, &all()).await;
    assert_eq!(done.iter().map(|part| part.rows.unwrap()).collect::<Vec<_>>(), [8, 2]);

    let target = Target::local();
    std::fs::create_dir_all(target.root()).unwrap();
    std::fs::write(target.root().join("a.json"), "[]").unwrap();
    let error = compacted_by(&target, &all(), "c", Faults::default()).await.unwrap_err();
    assert!(error.message().contains("are json, which is not written"), "{error:?}");
    let empty = Target::local();
    assert_eq!(compacted_by(&empty, &all(), "c", Faults::default()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn files_without_rows_leave_one_that_says_the_columns() {
    let target = Target::local();
    let empty = rows(&[]);
    for number in 1..3 {
        let sink = target
            .open(load(Strategy::Append, &[]), context(&target, empty.schema(), key(number), owner("run")))
            .unwrap();
        let staged = sink.stage_nothing(&task(&key(number), &owner("run"), 0)).await.unwrap();
        sink.commit(&[staged], &Checkpoint::default()).await.unwrap();
    }
    assert_eq!(compacted(&target, &all()).await[0].files_after, Some(1));
    assert_eq!(target.place().data_files().await.unwrap().len(), 1);
}

/// Dies at the `nth` point that is passed: nothing works from there on.
fn dying(nth: usize, passed: Arc<AtomicUsize>, watch: impl Fn() + Send + Sync + 'static) -> Faults {
    Faults(Some(Arc::new(move |point: Point| {
        watch();
        if passed.fetch_add(1, Ordering::SeqCst) >= nth {
            return Err(Error::new(ErrorKind::Storage, format!("dead at {}", point.name())));
        }
        Ok(())
    })))
}

/// What a reader finds just now, on a thread and runtime of its own.
fn reading(place: &Place) -> Vec<String> {
    let place = place.clone();
    let read = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        texts(&runtime.block_on(read_parquet(&place)).unwrap(), &["id", "day"])
    };
    std::thread::spawn(read).join().unwrap()
}

async fn dies_everywhere(fresh: fn() -> Target, partition_by: &[&str]) {
    for nth in 0.. {
        let target = fresh();
        let spec = load(Strategy::Append, partition_by);
        crumbs(&target, &spec, &batches(), 1).await;
        let before = seen(&target).await;
        let (passed, place) = (Arc::new(AtomicUsize::new(0)), target.place());
        let (rows_before, local) = (before.clone(), target.server.is_none());
        // On local disk a reader finds each row once at every moment.
        let watch = move || assert!(!local || reading(&place) == rows_before);
        let done = compacted_by(&target, &all(), "compact-1", dying(nth, passed.clone(), watch)).await;
        if passed.load(Ordering::SeqCst) <= nth {
            assert!(done.is_ok() && nth > 8, "{nth}");
            break;
        }
        if local {
            assert_eq!(seen(&target).await, before, "dead at {nth}");
        }
        // Whoever comes next puts it in order: another compaction, or a load.
        if nth % 2 == 0 {
            compacted(&target, &all()).await;
            assert_eq!(seen(&target).await, before, "dead at {nth}, compacted");
        } else {
            crumbs(&target, &spec, &[rows(&[(99, "1")])], 9).await;
            let mut more = before.clone();
            more.extend(texts(&[rows(&[(99, "1")])], &["id", "day"]));
            more.sort();
            assert_eq!(seen(&target).await, more, "dead at {nth}, loaded");
            compacted(&target, &all()).await;
            assert_eq!(seen(&target).await, more, "dead at {nth}, loaded and compacted");
        }
        assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new(), "dead at {nth}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_that_dies_anywhere_neither_loses_nor_doubles() {
    dies_everywhere(Target::local, &["day"]).await;
    dies_everywhere(Target::local, &[]).await;
    dies_everywhere(Target::s3, &["day"]).await;
}

#[tokio::test]
async fn what_is_gone_before_the_log_knows_of_it_is_not_decided() {
    let target = Target::local();
    crumbs(&target, &load(Strategy::Append, &["day"]), &batches(), 1).await;
    let before = seen(&target).await;
    let staging = target.root().join("_gristmill").join("staging");
    let faults = Faults(Some(Arc::new(move |point: Point| {
        if point == Point::AfterStage {
            std::fs::remove_dir_all(&staging).unwrap();
        }
        Ok(())
    })));
    let error = compacted_by(&target, &all(), "compact-1", faults).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(seen(&target).await, before);
    // Nothing was decided that later loads would have to make true.
    crumbs(&target, &load(Strategy::PartitionOverwrite, &["day"]), &[rows(&[(50, "1")])], 20).await;
    assert!(seen(&target).await.iter().any(|row| row.contains("50")), "{:?}", seen(&target).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_replaces_meanwhile_wins() {
    for target in [Target::local(), Target::s3()] {
        let target = Arc::new(target);
        let spec = load(Strategy::PartitionOverwrite, &["day"]);
        crumbs(&target, &load(Strategy::Append, &["day"]), &batches(), 1).await;
        let (rival, times) = (target.clone(), AtomicU32::new(0));
        let faults = Faults(Some(Arc::new(move |point: Point| {
            // Once the first partition is staged, day 1 is replaced.
            if point == Point::AfterStage && times.fetch_add(1, Ordering::SeqCst) == 0 {
                let (rival, spec) = (rival.clone(), spec.clone());
                let replace = move || {
                    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
                    runtime.block_on(crumbs(&rival, &spec, &[rows(&[(50, "1")])], 20));
                };
                std::thread::spawn(replace).join().unwrap();
            }
            Ok(())
        })));
        let done = compacted_by(&target, &all(), "compact-1", faults).await.unwrap();
        let skipped: Vec<bool> = done.iter().map(|part| part.skipped.is_some()).collect();
        assert_eq!(skipped, [true, false], "{done:?}");
        assert_eq!(seen(&target).await, texts(&[rows(&[(2, "2"), (5, "2"), (6, "3"), (50, "1")])], &["id", "day"]));
        assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactions_and_loads_side_by_side_lose_nothing() {
    for target in [Target::local(), Target::s3()] {
        let target = &target;
        let spec = load(Strategy::Append, &["day"]);
        crumbs(target, &spec, &batches(), 1).await;
        let mut before = seen(target).await;
        let loads = (10..16u32).map(|number| crumbs_of(target, &spec, number));
        let compactions = (0..3).map(|number| async move {
            let name = format!("run-{number}");
            compacted_by(target, &all(), &name, Faults::default()).await.unwrap();
        });
        tokio::join!(futures::future::join_all(loads), futures::future::join_all(compactions));
        for number in 10..16 {
            before.extend(texts(&[rows(&[(number, "1")])], &["id", "day"]));
        }
        before.sort();
        assert_eq!(seen(target).await, before);
    }
}

async fn crumbs_of(target: &Target, spec: &LoadSpec, number: u32) {
    crumbs(target, spec, &[rows(&[(i64::from(number), "1")])], number).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_rows_come_out_as_they_went_in(
        loads in proptest::collection::vec(proptest::collection::vec((any::<i64>(), 0u8..4), 0..30), 1..6),
        format in proptest::sample::select(vec![FileFormat::Parquet, FileFormat::Avro, FileFormat::Arrow]),
        partitioned in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let target = Target::local();
        let spec = LoadSpec { format: Some(format), ..load(Strategy::Append, if partitioned { &["day"] } else { &[] }) };
        let batches: Vec<RecordBatch> = loads
            .iter()
            .map(|load| {
                let ids: ArrayRef = Arc::new(load.iter().map(|row| row.0).collect::<Int64Array>());
                let days: ArrayRef = Arc::new(StringArray::from_iter_values(load.iter().map(|row| row.1.to_string())));
                RecordBatch::try_from_iter([("id", ids), ("day", days)]).unwrap()
            })
            .collect();
        runtime.block_on(crumbs(&target, &spec, &batches, 1));
        let count = |files: &[String]| files.iter().map(|path| split(path).0.to_owned()).collect::<BTreeSet<_>>().len();
        let folders = count(&runtime.block_on(target.place().data_files()).unwrap());
        if folders > 0 {
            runtime.block_on(compacted(&target, &all()));
            let files = runtime.block_on(target.place().data_files()).unwrap();
            prop_assert_eq!(files.len(), folders, "one small file a partition");
            let mut found = super::typed::shown(&runtime.block_on(super::typed::read_back(&target)));
            let mut wanted: Vec<String> = loads.iter().flatten().map(|row| format!("{}|{}", row.0, row.1)).collect();
            found.sort();
            wanted.sort();
            prop_assert_eq!(found, wanted);
        }
    }
}
