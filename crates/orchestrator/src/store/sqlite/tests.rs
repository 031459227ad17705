use super::*;
use crate::store::{Owners, suite};
use std::collections::BTreeMap;

#[tokio::test]
async fn the_sqlite_store_keeps_the_contract() {
    let folders = std::sync::Mutex::new(Vec::new());
    suite::run(async || {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        folders.lock().unwrap().push(folder);
        store
    })
    .await;
}

fn run(id: &str) -> NewRun {
    NewRun {
        id: RunId::from(id),
        pipeline: "p".into(),
        profile: None,
        interval: Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 1).unwrap()),
        params: BTreeMap::new(),
        started: Utc::now(),
        steps: Vec::new(),
        loads: Vec::new(),
    }
}

#[tokio::test]
async fn what_was_written_is_there_when_the_store_is_opened_again_and_two_may_hold_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = SqliteStore::open(folder.path()).await.unwrap();
    let second = SqliteStore::open(folder.path()).await.unwrap();
    first.begin(&run("r1")).await.unwrap();
    assert_eq!(second.begin(&run("r2")).await.unwrap_err().kind(), ErrorKind::Conflict);
    first.close().await;
    second.close().await;
    let third = SqliteStore::open(folder.path()).await.unwrap();
    assert!(third.run(&RunId::from("r1")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_that_is_no_store_and_a_later_store_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store.db"), "not a database, but long enough to have a header ".repeat(9))
        .unwrap();
    let error = SqliteStore::open(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    sqlx::query("INSERT INTO migrations VALUES (99, '')").execute(&store.writer).await.unwrap();
    store.close().await;
    let error = SqliteStore::open(folder.path()).await.unwrap_err();
    assert!(error.message().contains("later version"), "{error}");
}

#[test]
fn a_run_is_dead_when_its_lock_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let owners = Owners::new(folder.path());
    let run = RunId::from("r1");
    assert!(owners.is_dead(&run).unwrap(), "no lock was ever taken");
    let lock = owners.hold(&run).unwrap();
    assert!(!owners.is_dead(&run).unwrap());
    assert!(owners.hold(&run).is_err());
    drop(lock);
    assert!(owners.is_dead(&run).unwrap());
    let start = owners.try_start().unwrap();
    assert!(start.is_some() && owners.try_start().unwrap().is_none());
    drop(start);
    assert!(owners.try_start().unwrap().is_some());
}

/// Not a test: what [`a_killed_process_leaves_a_run_that_is_known_to_be_dead`] starts as a process of its own.
#[tokio::test]
#[ignore = "started by another test"]
async fn a_process_that_holds_a_run() {
    let Some(folder) = std::env::var_os("GRISTMILL_TEST_HOLD").map(PathBuf::from) else { return };
    let store = SqliteStore::open(&folder).await.unwrap();
    let _lock = Owners::new(&folder).hold(&RunId::from("r1")).unwrap();
    store.begin(&run("r1")).await.unwrap();
    std::fs::write(folder.join("ready"), "").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_process_leaves_a_run_that_is_known_to_be_dead() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::sqlite::tests::a_process_that_holds_a_run", "--ignored"])
        .env("GRISTMILL_TEST_HOLD", folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..1000 {
        if folder.path().join("ready").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let owners = Owners::new(folder.path());
    let first = RunId::from("r1");
    assert!(!owners.is_dead(&first).unwrap(), "it lives");
    assert_eq!(store.begin(&run("r2")).await.unwrap_err().kind(), ErrorKind::Conflict);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(owners.is_dead(&first).unwrap(), "it was killed");
    assert!(store.crashed(&first, Utc::now()).await.unwrap());
    store.begin(&run("r2")).await.unwrap();
}
