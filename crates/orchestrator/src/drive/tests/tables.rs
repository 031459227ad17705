//! Many tables: each is loaded by itself.

use super::*;

const MANY: &str = "
  all: {extract: {from: db, tables: \"*\"}}
  raw: {load: {from: all, to: db, table: \"raw_{{ table }}\", strategy: replace}}
";

fn with_tables(yard: &Yard, names: &[&str]) {
    let table = |name: &&str| FoundTable {
        schema: None,
        name: (*name).to_owned(),
        reference: (*name).to_owned(),
        is_own: true,
        is_view: false,
        key: Vec::new(),
        columns: Vec::new(),
    };
    *yard.fake.tables.lock().unwrap() = names.iter().map(table).collect();
}

fn ledger(yard: &Yard) -> Vec<String> {
    yard.fake.ledger.lock().unwrap().iter().cloned().collect()
}

#[tokio::test]
async fn a_table_that_fails_leaves_the_others_to_be_loaded() {
    let more = "  other: {extract: {from: db, table: o}}\n  own: {load: {from: other, to: db, table: own, strategy: replace}}\n  done: {command: touch done, after: [raw]}\n";
    let yard = Yard::new(&[("p", &format!("{MANY}{more}"))]);
    with_tables(&yard, &["a", "b", "c"]);
    yard.fake.says("stage raw[b]", &[Does::Fails(ErrorKind::Denied)]);
    let report = yard.run("p").await;
    assert_eq!(report.state, RunState::Failed);
    let mut ends = ends(&report);
    ends.sort();
    // What is not one of the tables waits for all of them.
    let wanted = ["done=upstream_failed", "own=canceled", "raw[a]=success", "raw[b]=failed", "raw[c]=success"];
    assert_eq!(ends, wanted, "{report:?}");
    assert_eq!(ledger(&yard), ["p/raw[a]/2024-01-15/db:raw_a#1", "p/raw[c]/2024-01-15/db:raw_c#1"]);
    // Once more: the one that failed goes on with its generation, one is new, one is gone.
    with_tables(&yard, &["b", "c", "d"]);
    assert!(yard.run("p").await.succeeded());
    let now = ledger(&yard);
    assert!(now.contains(&"p/raw[b]/2024-01-15/db:raw_b#1".to_owned()), "{now:?}");
    assert!(now.contains(&"p/raw[d]/2024-01-15/db:raw_d#1".to_owned()), "{now:?}");
    assert!(now.contains(&"p/raw[c]/2024-01-15/db:raw_c#2".to_owned()), "{now:?}");
}

#[tokio::test]
async fn tables_are_asked_for_where_they_are_needed_and_again_where_that_may_help() {
    let more = "  other: {extract: {from: db, table: o}}\n  own: {load: {from: other, to: db, table: own, strategy: replace}}\n";
    let yard = Yard::new(&[("p", &format!("retries: 1\nretry_delay: 10ms\nsteps:{MANY}{more}"))]);
    with_tables(&yard, &["a"]);
    let select = |step: &str| RunRequest { selection: Some(step.into()), ..request("p") };
    let driver = yard.driver().await;
    driver.run(&select("own")).await.unwrap();
    assert_eq!(yard.fake.log(), ["stage own", "commit own"]);
    yard.fake.says("tables all", &[Does::Fails(ErrorKind::Unavailable)]);
    assert!(driver.run(&select("raw[a]")).await.unwrap().succeeded());
    assert_eq!(yard.fake.log()[2..], ["tables all", "tables all", "stage raw[a]", "commit raw[a]"]);
    yard.fake.says("tables all", &[Does::Fails(ErrorKind::Denied)]);
    // For good: a failed run that is told like any other, and takes no loads.
    let failed = driver.run(&select("raw")).await.unwrap();
    assert_eq!(failed.state, RunState::Failed);
    assert_eq!(failed.error.as_ref().unwrap().kind(), ErrorKind::Denied);
    assert_eq!(ends(&failed), ["raw=upstream_failed"]);
    let record = crate::store::find_run(&yard.store().await, failed.run.as_str()).await.unwrap();
    assert_eq!((record.state, record.report), (RunState::Failed, Some(failed)));
    assert!(driver.run(&select("raw")).await.unwrap().succeeded());
}

#[tokio::test]
async fn what_a_dead_run_left_of_one_table_is_published() {
    let yard = Yard::new(&[("p", MANY)]);
    with_tables(&yard, &["a", "b"]);
    yard.fake.says("commit raw[b]", &[Does::Hangs]);
    let dead = dies(&yard).await;
    // The table is gone meanwhile: its load is finished all the same.
    with_tables(&yard, &["a"]);
    let told = yard.driver().await.recover(false).await.unwrap();
    assert_eq!(told.dead, [dead]);
    assert!(ledger(&yard).contains(&"p/raw[b]/2024-01-15/db:raw_b#1".to_owned()), "{told:?}");
}

#[tokio::test]
async fn whoever_waits_for_the_step_waits_for_all_of_its_tables() {
    let waits = "\n  first: {wait_for: {pipeline: p, step: raw}}\n  done: {command: touch done, after: [first]}\n";
    let yard = Yard::new(&[("p", MANY), ("q", waits)]);
    with_tables(&yard, &["a", "b"]);
    yard.fake.says("stage raw[b]", &[Does::Fails(ErrorKind::Denied)]);
    assert!(!yard.run("p").await.succeeded());
    let runs = |yard: &Yard| yard.fake.log().iter().filter(|line| line.as_str() == "tables all").count();
    assert_eq!(runs(&yard), 1);
    // It has not succeeded, so it is run first; then it has.
    assert!(yard.run("q").await.succeeded());
    assert_eq!(runs(&yard), 2);
    assert!(yard.run("q").await.succeeded());
    assert_eq!(runs(&yard), 2);
}
