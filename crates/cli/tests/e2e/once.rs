//! That rows are loaded once: appends, profiles that share a target, loads of one run, dead letters.

use crate::support::{Folder, Said};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DAY: &str = "2024-01-15";

fn project(loads: &str) -> Folder {
    let folder = Folder::new();
    folder.write(
        "gristmill.yaml",
        "name: once\nmain: p\nconnections:\n  in: {type: files, url: ./in}\n  lake: {type: files, url: ./lake}\n  db: {type: sqlite, path: out.db}\nprofiles:\n  other: {connections: {in: {type: files, url: ./in}}}\n",
    );
    folder.write("in/a.csv", "id,name\n1,a\n2,b\n3,c\n");
    folder.write("pipelines/p.yaml", format!("name: p\nsteps:\n  v: {{extract: {{from: in, path: a.csv}}}}\n{loads}"));
    folder
}

fn run(folder: &Folder, more: &[&str]) -> Said {
    folder.run(&[&["run", ".", "--date", DAY], more].concat())
}

fn count(folder: &Folder, table: &str) -> i64 {
    let database = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
    database.query_row(&format!("select count(*) from {table}"), [], |row| row.get(0)).unwrap()
}

const APPENDS: &str = "  l1: {load: {from: v, to: db, table: t, strategy: append}}\n  l2: {load: {from: v, to: lake, path: t/, strategy: append}}\n";

#[test]
fn a_refused_full_refresh_does_not_double_an_append_by_the_next_run() {
    let folder = project(APPENDS);
    assert_eq!(run(&folder, &[]).code, Some(0));
    let refused = run(&folder, &["--full-refresh"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.error().contains("`append` cannot replace them"), "{refused}");
    let again = run(&folder, &[]);
    assert!(again.code == Some(0) && again.out.contains("is loaded already"), "{again}");
    assert_eq!((count(&folder, "t"), folder.rows("select count(*) from 'lake/t/'")), (3, vec!["3".to_owned()]));
    // Where the store is lost the target's ledger knows, and the refusal leaves a generation behind.
    std::fs::remove_dir_all(folder.path().join(".gristmill")).unwrap();
    let refused = run(&folder, &["--full-refresh"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert_eq!(run(&folder, &[]).code, Some(0));
    assert_eq!((count(&folder, "t"), folder.rows("select count(*) from 'lake/t/'")), (3, vec!["3".to_owned()]));
}

#[test]
fn an_append_is_not_doubled_by_a_profile_that_shares_the_target() {
    let folder = project(APPENDS);
    assert_eq!(run(&folder, &[]).code, Some(0));
    for _ in 0..2 {
        let other = run(&folder, &["--profile", "other"]);
        assert_eq!(other.code, Some(0), "{other}");
        assert_eq!((count(&folder, "t"), folder.rows("select count(*) from 'lake/t/'")), (3, vec!["3".to_owned()]));
    }
    let again = run(&folder, &[]);
    assert!(again.code == Some(0) && again.out.contains("is loaded already"), "{again}");
    assert_eq!(count(&folder, "t"), 3);
}

#[test]
fn old_loads_are_forgotten_by_targets_and_known_to_the_history_of_runs() {
    let folder = project(APPENDS);
    let file = std::fs::read_to_string(folder.path().join("gristmill.yaml")).unwrap();
    folder.write("gristmill.yaml", file + "defaults: {ledger: {retention: 30d}}\n");
    let load = |date: &str| folder.ok(&["run", ".", "--date", date]);
    let both = |rows: i64| {
        assert_eq!(
            (count(&folder, "t"), folder.rows("select count(*) from 'lake/t/'")),
            (rows, vec![rows.to_string()])
        );
    };
    let log = folder.path().join("lake/t/_gristmill/log");
    let known = || (count(&folder, "_gristmill_loads"), std::fs::read_dir(&log).unwrap().count());
    load(DAY);
    load("2024-01-16");
    assert_eq!(known(), (2, 4), "nothing is old");

    // As if the first had been committed long ago.
    let long_ago = "2020-01-01T00:00:00.000000Z";
    let database = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
    let sql = "update _gristmill_loads set committed_at = ?1 where slot like '%/2024-01-15/%'";
    assert_eq!(database.execute(sql, [long_ago]).unwrap(), 1);
    let first = log.join("0000000001.json");
    let mut entry: serde_json::Value = serde_json::from_slice(&std::fs::read(&first).unwrap()).unwrap();
    entry["at"] = long_ago.into();
    std::fs::write(&first, entry.to_string()).unwrap();

    load("2024-01-17");
    assert_eq!(known(), (2, 4), "the first is forgotten");
    both(9);
    assert!(load(DAY).contains("is loaded already"));
    assert_eq!(folder.ok(&["recover"]).trim(), "nothing to recover");
    both(9);
    // What the docs warn of: with the history gone, nobody knows of the first.
    std::fs::remove_dir_all(folder.path().join(".gristmill")).unwrap();
    load("2024-01-16");
    both(9);
    load(DAY);
    both(12);
}

#[test]
fn a_run_killed_between_its_two_commits_is_published_whole_by_recover() {
    let folder = project(
        "  l1: {load: {from: v, to: lake, path: t/, strategy: replace}}\n  l2: {load: {from: v, to: db, table: t, strategy: replace}}\n",
    );
    assert_eq!(run(&folder, &[]).code, Some(0));
    folder.write("in/a.csv", "id,name\n1,a\n2,b\n3,c\n4,d\n5,e\n");
    let mut holder = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
    let held = holder.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let mut child =
        folder.command(&["run", ".", "--date", DAY]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log = folder.path().join("lake/t/_gristmill/log");
    let entries = || std::fs::read_dir(&log).map(Iterator::count).unwrap_or_default();
    let (before, began) = (entries(), Instant::now());
    while entries() == before && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // The log decides; the file follows.
    let published = || folder.rows("select count(*) from 'lake/t/'") == ["5"];
    while !published() && began.elapsed() < Duration::from_secs(30) {}
    assert!(child.try_wait().unwrap().is_none(), "it waits for the database");
    Command::new("kill").args(["-KILL", &child.id().to_string()]).status().unwrap();
    child.wait().unwrap();
    drop(held);
    assert_eq!((count(&folder, "t"), folder.rows("select count(*) from 'lake/t/'")), (3, vec!["5".to_owned()]));
    let said = folder.ok(&["recover"]);
    assert!(said.contains("was about to be published, and is now: 5 rows"), "{said}");
    assert_eq!((count(&folder, "t"), folder.rows("select count(*) from 'lake/t/'")), (5, vec!["5".to_owned()]));
    let shown = folder.ok(&["show", "last"]);
    for load in ["l1", "l2"] {
        let line = shown.lines().find(|line| line.trim_start().starts_with(load)).unwrap();
        assert!(line.contains("success"), "{shown}");
    }
    assert_eq!(folder.ok(&["recover"]).trim(), "nothing to recover");
}

#[test]
fn dead_letters_of_a_failed_run_go_with_it_and_of_a_run_before_with_the_next() {
    let folder = project(
        "  c:\n    sql: SELECT *, CAST(NULL AS int) AS nothing FROM v\n    checks: [{not_null: {column: name, on_fail: dead_letter}}]\n  l1: {load: {from: c, to: lake, path: t/, strategy: replace}}\n  l2:\n    load: {from: v, to: db, table: t, strategy: replace}\n    checks: [{row_count: {max: 4}}]\n",
    );
    folder.write("in/a.csv", "id,name\n1,a\n2,\n3,c\n4,d\n5,e\n");
    let letters = || {
        let folder_of = folder.path().join(format!(".gristmill/dead_letters/p/{DAY}"));
        std::fs::read_dir(folder_of).map(Iterator::count).unwrap_or_default()
    };
    assert_eq!(run(&folder, &[]).code, Some(1));
    assert_eq!(letters(), 0);
    folder.write("in/a.csv", "id,name\n1,a\n2,\n3,c\n");
    for _ in 0..2 {
        assert_eq!(run(&folder, &[]).code, Some(0));
        assert_eq!(letters(), 1);
    }
    let rows = folder.rows(&format!("select \"load\", record from '.gristmill/dead_letters/p/{DAY}/'"));
    assert_eq!(rows, [format!(r#"p/l1/{DAY}/lake:t/#2,"{{""id"":2,""name"":null,""nothing"":null}}""#)]);
}

#[test]
fn a_table_that_one_load_reads_twice_is_read_once_unless_that_is_not_wanted() {
    for (cache, once) in [("", true), (", cache: true", true), (", cache: false", false)] {
        let folder = project(&format!(
            "  a: {{extract: {{from: db, table: s}}{cache}}}\n  j: {{sql: \"SELECT x.n FROM a AS x JOIN a AS y ON x.n = y.n\"}}\n  l: {{load: {{from: j, to: lake, path: j/, strategy: replace}}}}\n",
        ));
        let database = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
        database.execute_batch("create table s (n integer); insert into s values (1), (2), (3)").unwrap();
        let planned = folder.ok(&["plan", ".", "--date", DAY]);
        let line = planned.lines().find(|line| line.starts_with("a (extract)")).unwrap();
        assert_eq!(line.contains("[computed once]"), once, "{planned}");
        let report: serde_json::Value =
            serde_json::from_str(&folder.ok(&["run", ".", "--date", DAY, "--output", "json"])).unwrap();
        let read = report["steps"].as_array().unwrap().iter().find(|step| step["step"] == "a").unwrap();
        assert_eq!(read["rows_out"], if once { 3 } else { 6 }, "{report}");
        assert_eq!(folder.rows("select count(*) from 'lake/j/'"), ["3"]);
    }
}
