//! The log forgets what is old, and dies between any two deletions.

use super::super::log::{self, Decision, Entry};
use super::super::place::LoadOf;
use super::*;
use std::time::Duration;

/// So short that all that has been committed before is old.
const SHORT: Duration = Duration::from_micros(1);

fn of_day(day: u32) -> LoadKey {
    let date = chrono::NaiveDate::from_ymd_opt(2024, 1, day).unwrap();
    LoadKey { slot: Slot { interval: Interval::day(date), ..key(1).slot }, generation: 1 }
}

fn open(target: &Target, day: u32, remembers: Option<Duration>) -> FilesSink {
    let context = context(target, rows(&[]).schema(), of_day(day), owner(&format!("run-{day}")));
    target.open(load(Strategy::Append, &[]), LoadContext { ledger_retention: remembers, ..context }).unwrap()
}

async fn append(sink: &FilesSink, day: u32, sequence: u64) {
    let staged = stage_all(sink, &[rows(&[(i64::from(day), "1")])]).await.unwrap();
    let committed = sink.commit(&staged, &Checkpoint { sequence, ..Checkpoint::default() }).await.unwrap();
    assert!(!committed.already);
}

async fn names(target: &Target) -> Vec<String> {
    target.place().names(super::super::layout::LOG).await.unwrap()
}

async fn count(target: &Target) -> usize {
    texts(&read_parquet(&target.place()).await.unwrap(), &["id"]).len()
}

/// Five days, and an entry of a load that was given up.
async fn filled(target: &Target) {
    for day in 1..=5 {
        append(&open(target, day, None), day, u64::from(day)).await;
    }
    let load = LoadOf { key: of_day(9), owner: owner("run-dead") };
    let (log, entry) = (Log::list(&target.place()).await.unwrap(), Entry::abort(&load));
    assert!(log.append(&target.place(), log.next(), &entry).await.unwrap());
    log::mark(&target.place(), log.next(), &entry).await.unwrap();
}

/// Dies at every `step`th point of the removal.
async fn dies_between_any_two(fresh: fn() -> Target, step: usize) {
    let mut nth = 0;
    loop {
        let target = fresh();
        filled(&target).await;
        let mut sink = open(&target, 6, Some(SHORT));
        let passed = Arc::new(AtomicUsize::new(0));
        let counted = passed.clone();
        // Dead is dead: nothing is passed after it.
        sink.faults = Faults(Some(Arc::new(move |point: Point| {
            let is_removal = matches!(point, Point::BeforeSweep | Point::AfterSweep);
            if is_removal && counted.fetch_add(1, Ordering::SeqCst) >= nth {
                return Err(Error::new(ErrorKind::Storage, "dead"));
            }
            Ok(())
        })));
        append(&sink, 6, 6).await;
        let died = passed.load(Ordering::SeqCst) > nth;

        let case = format!("dead at {nth}: {:?}", names(&target).await);
        let log = Log::list(&target.place()).await.unwrap();
        assert_eq!(log.undone(), Vec::<u64>::new(), "{case}");
        assert_eq!(log.next(), 8, "{case}");
        let looking = open(&target, 7, None);
        for day in 1..=6 {
            let last = looking.last(&of_day(day).slot).await.unwrap().map(|last| last.key);
            let is_there = last == Some(of_day(day));
            assert!(if day == 6 { is_there } else { is_there || last.is_none() }, "{case}: {last:?}");
        }
        assert_eq!(looking.checkpoint(&of_day(1).slot).await.unwrap().unwrap().sequence, 6, "{case}");
        looking.prepare().await.unwrap();
        let recovered = looking.recover(&|_| true).await.unwrap();
        assert_eq!(recovered, Recovered::default(), "{case}");
        assert_eq!(count(&target).await, 6, "{case}");

        // The next commit leaves only what is its own.
        append(&open(&target, 7, Some(SHORT)), 7, 7).await;
        let left = names(&target).await;
        assert!(left.len() == 2 && left.iter().all(|name| name.starts_with("0000000008.")), "{case}: {left:?}");
        assert_eq!(count(&target).await, 7, "{case}");
        assert_eq!(target.leftovers().await.unwrap(), Vec::<String>::new(), "{case}");
        if !died {
            assert_eq!(passed.load(Ordering::SeqCst), 24, "six entries and six marks");
            return;
        }
        nth += step;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_while_a_local_log_forgets_leaves_a_log_that_is_right() {
    dies_between_any_two(Target::local, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_while_a_log_on_s3_forgets_leaves_a_log_that_is_right() {
    dies_between_any_two(Target::s3, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pending_is_not_forgotten() {
    for target in [Target::local(), Target::s3()] {
        let place = target.place();
        append(&open(&target, 1, None), 1, 1).await;
        append(&open(&target, 2, None), 2, 2).await;
        // Another run has staged the first load as well, and has not been swept.
        let other = LoadContext {
            owner: owner("run-other"),
            ..context(&target, rows(&[]).schema(), of_day(1), owner("run-1"))
        };
        let other = target.open(load(Strategy::Append, &[]), other).unwrap();
        stage_all(&other, &[rows(&[(1, "1")])]).await.unwrap();
        append(&open(&target, 3, Some(SHORT)), 3, 3).await;
        let looking = open(&target, 4, None);
        assert!(looking.last(&of_day(1).slot).await.unwrap().is_some());
        assert!(looking.last(&of_day(2).slot).await.unwrap().is_none());
        assert!(looking.recover(&|owner| owner.0.as_str() == "run-other").await.unwrap().undone.is_empty());

        // An entry that its owner has not made true is made true by the next commit, and forgotten by the one after.
        let entry =
            Entry { decision: Decision::Publish, ..Entry::abort(&LoadOf { key: of_day(4), owner: owner("run-4") }) };
        let log = Log::list(&place).await.unwrap();
        assert!(log.append(&place, log.next(), &entry).await.unwrap());
        append(&open(&target, 5, Some(SHORT)), 5, 4).await;
        // Of the days 1, 3, 4 and 5.
        assert_eq!(names(&target).await.len(), 8, "{:?}", names(&target).await);
        append(&open(&target, 6, Some(SHORT)), 6, 5).await;
        assert_eq!(names(&target).await.len(), 2, "{:?}", names(&target).await);
        assert_eq!(count(&target).await, 5);
    }
}

#[tokio::test]
async fn a_number_is_not_taken_by_a_listing_that_is_stale() {
    let target = Target::local();
    let place = target.place();
    let entry = Entry::abort(&LoadOf { key: of_day(1), owner: owner("run-1") });
    let stale = Log::list(&place).await.unwrap().aged(Duration::from_hours(7));
    assert!(!stale.append(&place, 1, &entry).await.unwrap());
    assert!(names(&target).await.is_empty());
    assert!(Log::list(&place).await.unwrap().append(&place, 1, &entry).await.unwrap());
}

#[tokio::test]
async fn a_listing_that_shows_more_than_is_left_finds_what_there_is() {
    let target = Target::local();
    filled(&target).await;
    let place = target.place();
    let before = Log::list(&place).await.unwrap();
    append(&open(&target, 6, Some(SHORT)), 6, 6).await;
    assert!(before.last(&place, &of_day(2).slot).await.unwrap().is_none());
    assert!(before.committed(&place, &of_day(2)).await.unwrap().is_none());
    assert!(before.is_done(2) && !before.is_done(7) && Log::list(&place).await.unwrap().is_done(2));
    assert!(log::read(&place, 2).await.unwrap().is_none());
    assert_eq!(log::read(&place, 9).await.unwrap_err().kind(), ErrorKind::Conflict);
}
