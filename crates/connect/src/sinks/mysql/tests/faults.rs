//! What goes wrong at the server, and rivals.

use super::*;
use crate::sinks::testing::losing_proxy;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Ends our sessions of the database for which `condition` holds, once there is one. Within a trigger they have another user.
fn kill_when(database: &TestDatabase, condition: &'static str) -> std::thread::JoinHandle<()> {
    let database = database.clone();
    std::thread::spawn(move || {
        let begin = Instant::now();
        loop {
            let found = database.sql(&format!(
                "select id from information_schema.processlist where id <> connection_id() and db = database() and {condition}"
            ));
            if !found.is_empty() {
                return found.lines().for_each(|id| drop(database.try_sql(&format!("kill {id}"))));
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "nothing to end");
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_cut_off_leaves_nothing_and_can_try_again() {
    for database in [mariadb::database(), by_inserts()] {
        let rows = ids(&[1, 2, 3]);
        let sink = open(&database, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
        let endless = futures::stream::unfold(rows.clone(), |rows| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok(one("id", Arc::new(Int64Array::from(vec![7; 200_000])))), rows))
        });
        let killer = kill_when(&database, "(info like 'LOAD DATA%' or info like 'INSERT%')");
        let error = sink.stage(&task(1, 0, 1), Rows::new(rows.schema(), endless)).await.unwrap_err();
        killer.join().unwrap();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
        let staged = sink.stage(&task(1, 0, 2), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap();
        sink.commit(&[staged], &Checkpoint::default()).await.unwrap();
        assert_eq!(database.sql("select count(*) from target"), "3");
        assert_eq!(staging_tables(&database), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_cut_off_before_its_end_publishes_nothing_and_can_be_tried_again() {
    let database = mariadb::database();
    // A slow trigger holds the commit's transaction open.
    database.sql(
        "create table target(id bigint); create table slow(seconds float); insert into slow values (60);
         create trigger wait after insert on target for each row set @waited = (select sleep(seconds) from slow)",
    );
    let rows = ids(&[1, 2, 3]);
    let sink = open(&database, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
    let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap()];
    let killer = kill_when(&database, "state = 'User sleep'");
    let error = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
    killer.join().unwrap();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    assert_eq!(database.sql("select count(*) from target"), "0");
    assert!(sink.last(&key(1).slot).await.unwrap().is_none());
    database.sql("update slow set seconds = 0");
    assert!(!sink.commit(&staged, &Checkpoint::default()).await.unwrap().already);
    assert!(sink.commit(&staged, &Checkpoint::default()).await.unwrap().already);
    assert_eq!(database.sql("select count(*) from target"), "3");
    assert_eq!(staging_tables(&database), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_in_the_ledger() {
    let database = mariadb::database();
    let armed = Arc::new(AtomicBool::new(false));
    let port = losing_proxy(database.port, armed.clone(), b"\x03COMMIT");
    let url = database.url().replace(&format!(":{}/", database.port), &format!(":{port}/"));
    let rows = ids(&[1, 2, 3]);
    let sink =
        open_at(&format!("{url}?sslmode=disable"), "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
    let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap()];
    armed.store(true, Ordering::SeqCst);
    let committed = sink.commit(&staged, &Checkpoint::default()).await.unwrap();
    assert!(!armed.load(Ordering::SeqCst), "the answer was not lost");
    assert_eq!((committed.rows, committed.already), (3, false));
    assert_eq!(database.sql("select count(*) from target"), "3");
    assert_eq!(database.sql("select count(*) from _gristmill_loads"), "1");
    assert_eq!(staging_tables(&database), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_that_others_hold_and_deadlocks_are_tried_again() {
    let database = by_inserts();
    database.sql("set global innodb_lock_wait_timeout = 1");
    let merge = "table: target\nstrategy: merge\nkey: id";
    load(&database, merge, &ids(&[1, 2]), 1).await.unwrap();
    database.sql("alter table target add v int; create table told(what text)");
    // Another holds the row for longer than one try waits; it begins when the load is there.
    let other = database.clone();
    let holder = std::thread::spawn(move || {
        other.sql(
            "begin; update target set v = 1 where id = 1; insert into told values ('held'); select sleep(2.5); commit",
        )
    });
    let begin = Instant::now();
    let held = "select count(*) from information_schema.processlist where db = database() and state = 'User sleep'";
    while database.sql(held) == "0" {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    load(&database, "table: target\nstrategy: replace", &ids(&[5]), 2).await.unwrap();
    holder.join().unwrap();
    assert_eq!(database.sql("select group_concat(id) from target"), "5");
    assert_eq!(database.sql("select what from told"), "held");
    // A deadlock is the server's word that somebody must try again: the trigger says it once.
    database.sql(
        "create table once(n int) engine = MyISAM; insert into once values (1);
delimiter //
create trigger knot before insert on target for each row begin
  if (select n from once) = 1 then
    update once set n = 0;
    signal sqlstate '40001' set mysql_errno = 1213, message_text = 'Deadlock found';
  end if;
end//
delimiter ;",
    );
    load(&database, "table: target\nstrategy: append", &ids(&[6]), 3).await.unwrap();
    assert_eq!(database.sql("select group_concat(id order by id) from target"), "5,6");
    assert_eq!(database.sql("select n from once"), "0");
    assert_eq!(staging_tables(&database), "");
}

#[tokio::test]
async fn staged_rows_that_are_gone_are_not_committed_as_none() {
    let database = mariadb::database();
    let rows = ids(&[1, 2, 3]);
    let sink = open(&database, "table: target\nstrategy: replace", &rows.schema(), 1).unwrap();
    let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap()];
    database.sql(&format!("delete from {} limit 2", staging_tables(&database)));
    let error = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
    assert!(error.message().contains("1 of 3 staged rows"), "{error}");
    assert!(sink.last(&key(1).slot).await.unwrap().is_none());
    database.sql(&format!("drop table {}", staging_tables(&database)));
    let error = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(database.sql("select count(*) from target"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn rivals_for_one_key_load_it_once() {
    let database = mariadb::database();
    let rows = ids(&[1, 2, 3]);
    // All is staged before any commits: a commit drops what its owner has staged, and no owner stages a load while it commits it.
    let mut attempts = Vec::new();
    for attempt in 1..=4 {
        let sink = open(&database, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
        let staged = sink.stage(&task(1, 0, attempt), Rows::from_batches(rows.schema(), vec![rows.clone()])).await;
        attempts.push((sink, staged.unwrap()));
    }
    let rivals: Vec<_> = attempts
        .into_iter()
        .map(|(sink, staged)| tokio::spawn(async move { sink.commit(&[staged], &Checkpoint::default()).await }))
        .collect();
    let mut fresh = 0;
    for rival in rivals {
        fresh += usize::from(!rival.await.unwrap().unwrap().already);
    }
    assert_eq!(fresh, 1);
    assert_eq!(database.sql("select count(*) from target"), "3");
    assert_eq!(staging_tables(&database), "");
}

#[tokio::test]
async fn another_runs_load_of_the_same_key_is_not_taken_for_ones_own() {
    let database = mariadb::database();
    let rows = ids(&[1, 2]);
    load(&database, "table: target\nstrategy: append", &rows, 1).await.unwrap();
    assert!(load(&database, "table: target\nstrategy: append", &rows, 1).await.unwrap().already);
    database.sql("update _gristmill_loads set owner = 'another'");
    let error = load(&database, "table: target\nstrategy: append", &rows, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(database.sql("select count(*) from target"), "2");
    assert_eq!(staging_tables(&database), "");
}

#[tokio::test]
async fn a_recovery_sweeps_only_tables_that_say_whose_they_are() {
    let database = mariadb::database();
    database.sql("create table _gristmill_stage_mine(a int)");
    let rows = ids(&[1]);
    let sink = open(&database, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
    sink.stage(&task(1, 3, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap();
    let recovered = sink.recover(&|_| true).await.unwrap();
    assert_eq!((recovered.swept, recovered.undone), (1, vec![key(1).text()]));
    assert_eq!(staging_tables(&database), "_gristmill_stage_mine");
}

#[tokio::test]
async fn a_reader_with_an_old_picture_sees_the_old_rows_whole() {
    let database = mariadb::database();
    load(&database, "table: target\nstrategy: replace", &ids(&[1, 2, 3]), 1).await.unwrap();
    let opts = mysql_async::Opts::from_url(&database.url()).unwrap();
    let mut reader = mysql_async::Conn::new(opts).await.unwrap();
    reader.query_drop("start transaction with consistent snapshot").await.unwrap();
    load(&database, "table: target\nstrategy: replace", &ids(&[4]), 2).await.unwrap();
    let rows: Vec<u64> = reader.query("select id from target").await.unwrap();
    assert_eq!(rows, [1, 2, 3]);
    reader.disconnect().await.unwrap();
}

#[tokio::test]
async fn a_load_into_another_database_keeps_everything_there() {
    let (here, there) = (mariadb::database(), mariadb::database());
    let yaml = format!("table: {}.`Daily Sales`\nstrategy: replace", there.name);
    load(&here, &yaml, &ids(&[1]), 1).await.unwrap();
    assert_eq!(there.sql("show tables"), "Daily Sales\n_gristmill_loads");
    assert_eq!(here.sql("show tables"), "");
}
