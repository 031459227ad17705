//! A commit that fails at each of its points, one after another.

use super::*;

const OLD: [(i64, &str); 4] = [(1, "1"), (2, "1"), (3, "2"), (4, "3")];
const NEW: [(i64, &str); 4] = [(11, "1"), (12, "2"), (13, "2"), (14, "4")];

fn expected(strategy: Strategy) -> Vec<(i64, &'static str)> {
    let mut rows: Vec<(i64, &str)> = match strategy {
        Strategy::Append => OLD.to_vec(),
        Strategy::PartitionOverwrite => OLD.iter().copied().filter(|row| row.1 == "3").collect(),
        _ => Vec::new(),
    };
    rows.extend(NEW);
    rows
}

async fn seen(target: &Target) -> Vec<String> {
    texts(&read_parquet(&target.place()).await.unwrap(), &["id", "day"])
}

/// Fails at the `nth` point that is passed, and notes all names.
fn failing(nth: usize, names: Arc<Mutex<Vec<String>>>, watch: impl Fn() + Send + Sync + 'static) -> Faults {
    let passed = AtomicUsize::new(0);
    Faults(Some(Arc::new(move |point: Point| {
        watch();
        names.lock().unwrap().push(point.name().to_owned());
        if passed.fetch_add(1, Ordering::SeqCst) == nth {
            return Err(Error::new(ErrorKind::Storage, format!("torn at {}", point.name())));
        }
        Ok(())
    })))
}

async fn filled(target: &Target, strategy: Strategy, partition_by: &[&str]) {
    let context = context(target, rows(&[]).schema(), key(1), owner("run-old"));
    let sink = target.open(load(strategy, partition_by), context).unwrap();
    let staged = stage_all(&sink, &[rows(&OLD[..2]), rows(&OLD[2..])]).await.unwrap();
    sink.commit(&staged, &Checkpoint::default()).await.unwrap();
}

/// Data files by partition folder.
fn files(root: &Path, folder: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() && !name.starts_with(['_', '.']) {
            files(root, &super::super::layout::join(folder, &name), found);
        } else if name.ends_with(".parquet") {
            found.entry(folder.to_owned()).or_default().insert(name);
        }
    }
}

async fn fails_everywhere(fresh: fn() -> Target, strategy: Strategy, partition_by: &[&str]) {
    let mut nth = 0;
    loop {
        let target = fresh();
        filled(&target, strategy, partition_by).await;
        let (old, new) = (texts(&[rows(&OLD)], &["id", "day"]), texts(&[rows(&expected(strategy))], &["id", "day"]));
        assert_eq!(seen(&target).await, old);
        let context = context(&target, rows(&[]).schema(), key(2), owner("run-new"));
        let mut sink = target.open(load(strategy, partition_by), context.clone()).unwrap();
        let staged = stage_all(&sink, &[rows(&NEW[..2]), rows(&NEW[2..])]).await.unwrap();

        let names = Arc::new(Mutex::new(Vec::new()));
        let mut before = BTreeMap::new();
        files(&target.root(), "", &mut before);
        let fresh_names: BTreeSet<String> =
            staged.iter().flat_map(|staged| &staged.files).map(|file| split(&file.path).1.to_owned()).collect();
        // With one exception (several files appended to one folder) a partition is all old or all new to its readers.
        let root = (strategy != Strategy::Append && target.server.is_none()).then(|| target.root());
        let watch = move || {
            let Some(root) = &root else { return };
            let mut now = BTreeMap::new();
            files(root, "", &mut now);
            for (folder, names) in now {
                let of_old = names.iter().filter(|name| !fresh_names.contains(*name)).count();
                assert!(of_old == 0 || of_old == names.len(), "`{folder}` is mixed: {names:?}");
                assert!(of_old == 0 || Some(&names) == before.get(&folder), "`{folder}` is torn: {names:?}");
            }
        };
        sink.faults = failing(nth, names.clone(), watch);
        let result = sink.commit(&staged, &Checkpoint::default()).await;
        let names = names.lock().unwrap().clone();
        if result.is_ok() {
            assert!(names.len() <= nth && nth > 4, "{names:?}");
            assert_eq!(seen(&target).await, new);
            return;
        }
        let point = names.last().unwrap().clone();
        let decided = names.iter().any(|name| name == Point::AfterLog.name());
        let case = format!("{strategy:?} torn at {point} ({nth})");

        // Every other time the owner tries again, else somebody recovers what it left.
        sink.faults = Faults::default();
        if nth % 2 == 0 {
            let committed = sink.commit(&staged, &Checkpoint::default()).await.unwrap();
            assert_eq!((committed.already, committed.rows), (decided, 4), "{case}");
            assert_eq!(seen(&target).await, new, "{case}");
        } else {
            let other =
                target.open(load(strategy, partition_by), LoadContext { key: key(3), ..context.clone() }).unwrap();
            let recovered = other.recover(&|_| true).await.unwrap();
            assert_eq!(seen(&target).await, if decided { new.clone() } else { old.clone() }, "{case}");
            assert_eq!(recovered.undone.is_empty(), decided, "{case}: {recovered:?}");
            if !decided {
                let late = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
                assert_eq!(late.kind(), ErrorKind::Conflict, "{case}: {late:?}");
                assert_eq!(seen(&target).await, old, "{case}");
                // Another run takes the same key up again.
                let again = LoadContext { owner: owner("run-again"), ..context.clone() };
                let again = target.open(load(strategy, partition_by), again).unwrap();
                let staged = stage_all(&again, &[rows(&NEW)]).await.unwrap();
                assert!(!again.commit(&staged, &Checkpoint::default()).await.unwrap().already, "{case}");
            }
            assert_eq!(seen(&target).await, new, "{case}");
        }
        assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new(), "{case}");
        let last = sink.last(&key(2).slot).await.unwrap().unwrap();
        assert_eq!((last.key, last.rows), (key(2), 4), "{case}");
        nth += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_local_append_is_all_or_nothing() {
    fails_everywhere(Target::local, Strategy::Append, &[]).await;
    fails_everywhere(Target::local, Strategy::Append, &["day"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_local_replace_is_all_or_nothing_and_never_mixed() {
    fails_everywhere(Target::local, Strategy::Replace, &[]).await;
    fails_everywhere(Target::local, Strategy::Replace, &["day"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_local_partition_overwrite_is_all_or_nothing_and_never_mixed() {
    fails_everywhere(Target::local, Strategy::PartitionOverwrite, &["day"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_commit_to_s3_is_all_or_nothing() {
    fails_everywhere(Target::s3, Strategy::Append, &[]).await;
    fails_everywhere(Target::s3, Strategy::Replace, &["day"]).await;
    fails_everywhere(Target::s3, Strategy::PartitionOverwrite, &["day"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_commit_of_readable_objects_is_all_or_nothing() {
    fails_everywhere(Target::s3_readable, Strategy::Append, &[]).await;
    fails_everywhere(Target::s3_readable, Strategy::Replace, &[]).await;
    fails_everywhere(Target::s3_readable, Strategy::PartitionOverwrite, &["day"]).await;
    fails_everywhere(Target::s3_without_copies, Strategy::Replace, &["day"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_leaves_the_living_alone() {
    for target in [Target::local(), Target::s3(), Target::s3_readable()] {
        let open = |number: u32, name: &str| {
            let context = context(&target, rows(&[]).schema(), key(number), owner(name));
            target.open(load(Strategy::Append, &[]), context).unwrap()
        };
        // One name begins with the other.
        let (dead, living) = (open(1, "run-1"), open(1, "run-10"));
        stage_all(&dead, &[rows(&[(1, "1")])]).await.unwrap();
        let staged = stage_all(&living, &[rows(&[(2, "1")])]).await.unwrap();
        let recovered = open(2, "run-2").recover(&|owner| owner.0.as_str() == "run-1").await.unwrap();
        assert_eq!((recovered.swept, recovered.undone.len()), (1, 1), "{recovered:?}");
        living.commit(&staged, &Checkpoint::default()).await.unwrap();
        assert_eq!(texts(&read_parquet(&target.place()).await.unwrap(), &["id"]).len(), 1);
        assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_commit_after_an_abort_says_so() {
    for target in [Target::local(), Target::s3(), Target::s3_readable()] {
        let context = context(&target, rows(&[]).schema(), key(1), owner("run"));
        let sink = target.open(load(Strategy::Append, &[]), context).unwrap();
        let staged = stage_all(&sink, &[rows(&[(1, "1")])]).await.unwrap();
        sink.abort(&key(1)).await.unwrap();
        let error = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
        assert!(error.message().contains("was aborted"), "{error:?}");
    }
}
