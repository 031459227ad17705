//! Records of old loads are dropped; whoever dies meanwhile loses nothing of the table.

use super::super::ledger::LOADS;
use super::*;
use gristmill_model::Interval;
use gristmill_model::fault::Point;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// So short that all that has been committed before is old.
const SHORT: Duration = Duration::from_micros(1);

fn of_day(day: u32) -> LoadKey {
    let date = chrono::NaiveDate::from_ymd_opt(2024, 1, day).unwrap();
    LoadKey { slot: Slot { interval: Interval::day(date), ..key(1).slot }, generation: 1 }
}

fn open(lake: &Lake, day: u32, remembers: Option<Duration>) -> DeltaSink {
    let context = context(&lake.0, rows(&[]).schema(), of_day(day), owner(&format!("run-{day}")));
    lake.open(load(Strategy::Append, &[]), LoadContext { ledger_retention: remembers, ..context }).unwrap()
}

async fn stage(sink: &DeltaSink, day: u32) -> Vec<Staged> {
    sink.prepare().await.unwrap();
    let (batch, task) = (rows(&[(i64::from(day), "1")]), task(&sink.context.key, &sink.context.owner, 0));
    vec![sink.stage(&task, Rows::from_batches(batch.schema(), vec![batch])).await.unwrap()]
}

async fn append(sink: &DeltaSink, day: u32) {
    let staged = stage(sink, day).await;
    let next = Checkpoint { sequence: u64::from(day), ..Checkpoint::default() };
    assert!(!sink.commit(&staged, &next).await.unwrap().already);
}

async fn names(lake: &Lake) -> Vec<String> {
    lake.0.place().names(LOADS).await.unwrap()
}

async fn count(lake: &Lake) -> usize {
    sorted_rows(&read(&lake.0.place()).await.unwrap()).unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_while_records_are_dropped_leaves_a_table_that_is_right() {
    for fresh in [Target::local as fn() -> Target, Target::s3] {
        for nth in 0.. {
            let lake = Lake(fresh());
            for day in 1..=3 {
                append(&open(&lake, day, None), day).await;
            }
            // Loaded twice: its first record has a mark.
            let mut twice = open(&lake, 3, None);
            twice.context.key.generation = 2;
            let staged = stage(&twice, 3).await;
            twice.commit(&staged, &Checkpoint::default()).await.unwrap();

            let mut sink = open(&lake, 4, Some(SHORT));
            let staged = stage(&sink, 4).await;
            let (passed, is_done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (counted, logged) = (passed.clone(), is_done.clone());
            // Dead is dead: nothing is passed after it.
            sink.faults = Faults(Some(Arc::new(move |point: Point| {
                if point == Point::AfterLog {
                    logged.store(1, Ordering::SeqCst);
                }
                let is_removal = matches!(point, Point::BeforeDelete | Point::AfterDelete);
                if is_removal && logged.load(Ordering::SeqCst) == 1 && counted.fetch_add(1, Ordering::SeqCst) >= nth {
                    return Err(Error::internal("dead"));
                }
                Ok(())
            })));
            let next = Checkpoint { sequence: 4, ..Checkpoint::default() };
            assert!(!sink.commit(&staged, &next).await.unwrap().already);

            let case = format!("dead at {nth}: {:?}", names(&lake).await);
            let looking = open(&lake, 5, None);
            assert_eq!(looking.recover(&|_| true).await.unwrap(), Recovered::default(), "{case}");
            assert_eq!(count(&lake).await, 5, "{case}");
            assert_eq!(looking.last(&of_day(4).slot).await.unwrap().unwrap().key, of_day(4), "{case}");
            assert_eq!(looking.checkpoint(&of_day(1).slot).await.unwrap().unwrap().sequence, 4, "{case}");
            for day in 1..=3 {
                let last = looking.last(&of_day(day).slot).await.unwrap().map(|last| last.key.generation);
                assert!(last.is_none() || last == Some(if day == 3 { 2 } else { 1 }), "{case}: {last:?}");
            }

            // The next commit leaves only what is its own.
            append(&open(&lake, 5, Some(SHORT)), 5).await;
            let left = names(&lake).await;
            assert!(left.len() <= 2 && left.iter().any(|name| name.contains(".1.5.")), "{case}: {left:?}");
            assert_eq!((count(&lake).await, lake.leftovers().await.unwrap()), (6, Vec::<String>::new()), "{case}");
            if passed.load(Ordering::SeqCst) <= nth {
                assert_eq!(nth, 4, "before and after the records, before and after their marks");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_has_something_staged_is_remembered() {
    for target in [Target::local(), Target::s3()] {
        let lake = Lake(target);
        append(&open(&lake, 1, None), 1).await;
        append(&open(&lake, 2, None), 2).await;
        // Another run has staged the first load as well, and has not been swept.
        let mut other = open(&lake, 1, None);
        other.context.owner = owner("run-other");
        stage(&other, 1).await;
        append(&open(&lake, 3, Some(SHORT)), 3).await;
        let looking = open(&lake, 4, None);
        assert!(looking.last(&of_day(1).slot).await.unwrap().is_some());
        assert!(looking.last(&of_day(2).slot).await.unwrap().is_none());
        assert!(looking.recover(&|owner| owner.0.as_str() == "run-other").await.unwrap().undone.is_empty());
        assert_eq!(count(&lake).await, 3);
    }
}
