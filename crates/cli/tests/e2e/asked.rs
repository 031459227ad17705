//! What commands say and do when they are stopped, killed or asked for something that cannot be.

use crate::support::{Folder, Said, walk};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn signal(child: &Child, name: &str) {
    Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
}

/// The processor time a process has used, in hundredths of a second (proc(5), fields 14 and 15).
fn processor_time(child: &Child) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Starts a command, asks it to stop once it is at work, and gives its exit code; none if it did not hear.
fn stopped(folder: &Folder, args: &[&str]) -> Option<i32> {
    let mut child = folder.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while processor_time(&child) < 50 && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(child.try_wait().unwrap().is_none(), "it is at work");
    let asked = Instant::now();
    signal(&child, "-INT");
    while child.try_wait().unwrap().is_none() && asked.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap().code()
}

#[test]
fn control_c_ends_a_query_and_a_generator_at_once() {
    let folder = Folder::new();
    let query = "select sum(a.value * b.value % 7) from generate_series(1, 3000000) a, generate_series(1, 3000000) b";
    for args in [&["sql", query][..], &["generate", "people", "-n", "2000M"]] {
        assert_eq!(stopped(&folder, args), Some(130), "{args:?}");
    }
}

#[test]
fn what_a_killed_copy_left_is_swept_by_recover_and_not_by_the_next_copy() {
    let folder = Folder::new();
    folder.write("a.csv", "id\n1\n2\n");
    let mut child = folder
        .command(&["copy", "-", "out/", "--from-format", "ndjson"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut rows = child.stdin.take().unwrap();
    let text = "{\"id\": 1, \"text\": \"some text that is here for its length alone\"}\n".repeat(60_000);
    rows.write_all(text.as_bytes()).unwrap();
    let staging = folder.path().join("out/_gristmill/staging");
    let staged = || {
        let mut found = Vec::new();
        for load in std::fs::read_dir(&staging).into_iter().flatten().flatten() {
            walk(&load.path(), &mut found);
        }
        !found.is_empty() || std::fs::read_dir(&staging).is_ok_and(|mut entries| entries.next().is_some())
    };
    let began = Instant::now();
    while !staged() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(staged(), "rows are staged");
    signal(&child, "-KILL");
    child.wait().unwrap();
    drop(rows);
    let other = folder.run(&["copy", "a.csv", "other/"]);
    assert!(other.code == Some(0) && !other.err.contains("had died"), "{other}");
    assert!(staged(), "the other copy left it alone");
    let said = folder.ok(&["recover"]);
    assert!(said.contains("had died"), "{said}");
    assert!(!staged(), "{said}");
    assert_eq!(folder.ok(&["recover"]).trim(), "nothing to recover");
}

const PROJECT: &str =
    "name: asked\nmain: p\nconnections:\n  in: {type: files, url: ./in}\n  lake: {type: files, url: ./lake}\n";

fn project(steps: &str) -> Folder {
    let folder = Folder::new();
    folder.write("gristmill.yaml", PROJECT).write("in/a.csv", "id\n1\n2\nx\n");
    folder.write("pipelines/p.yaml", format!("name: p\nsteps:\n{steps}"));
    folder
}

fn load(strategy: &str) -> String {
    format!(
        "  v: {{extract: {{from: in, path: a.csv}}}}\n  l: {{load: {{from: v, to: lake, path: t/, strategy: {strategy}}}}}\n"
    )
}

#[test]
fn compare_refuses_to_compare_what_was_done_once_only() {
    let said = project(&load("replace")).run(&["run", ".", "--date", "2024-01-15", "--compare"]);
    assert!(said.code == Some(0) && said.out.contains("collecting"), "{said}");
    let said = project(&load("append")).run(&["run", ".", "--date", "2024-01-15", "--compare"]);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.error().contains("one loaded 3 rows, the other 0"), "{said}");
}

#[test]
fn a_failure_is_a_json_document_too() {
    let folder = Folder::new();
    let kind = |said: &Said| {
        let document: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        document["error"]["kind"].as_str().unwrap().to_owned()
    };
    let said = folder.run(&["run", ".", "--output", "json"]);
    assert_eq!((said.code, kind(&said).as_str()), (Some(2), "config"), "{said}");
    let said = folder.run(&["run", "--nonsense", "--output", "json"]);
    assert_eq!((said.code, kind(&said).as_str()), (Some(2), "usage"), "{said}");
    let said = folder.run(&["sql", "select * from nowhere", "--output", "json"]);
    assert_eq!((said.code, kind(&said).as_str()), (Some(1), "not_found"), "{said}");
}

#[test]
fn a_row_that_is_left_out_with_a_warning_is_named() {
    let folder = project(
        "  v: {extract: {from: in, path: a.csv, schema: {id: bigint}, on_bad_row: warn}}\n  l: {load: {from: v, to: lake, path: t/, strategy: replace}}\n",
    );
    let said = folder.run(&["run", ".", "--date", "2024-01-15"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(said.out.contains("1 row could not be read and was left out: `a.csv:4`"), "{said}");
    assert!(said.err.contains("a.csv:4"), "{said}");
}

#[test]
fn dates_that_are_not_run_are_said() {
    let folder = project("  c: {command: 'test {{ ds }} != 2024-01-02'}\n");
    let said = folder.run(&["run", ".", "--from", "2024-01-01", "--to", "2024-01-05"]);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(
        said.err.contains("not run, since 2024-01-02 did not succeed: 2024-01-03 to 2024-01-05 (3 dates)"),
        "{said}"
    );
}

#[test]
fn a_list_of_columns_is_a_file_of_columns() {
    let folder = Folder::new();
    folder.write("columns.yaml", "- {name: n, kind: sequence}\n");
    folder.write("bad.yaml", "- {name: n, kind: nonsense}\n");
    let said = folder.run(&["generate", "columns.yaml", "-n", "2"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(said.out.lines().count(), 3, "{said}");
    let said = folder.run(&["generate", "bad.yaml"]);
    assert!(said.code == Some(2) && said.error().contains("`bad.yaml`"), "{said}");
}

#[test]
fn a_table_of_an_unknown_connection_is_said_with_the_one_that_was_meant() {
    let said = project(&load("replace")).run(&["sql", "select * from lakes.t"]);
    assert!(said.code == Some(2) && said.error().contains("did you mean `lake`"), "{said}");
}

#[test]
fn the_hint_of_a_set_check_names_what_it_can_do() {
    let folder = project(
        "  v:\n    extract: {from: in, path: a.csv}\n    checks: [{row_count: {min: 9}}]\n  l: {load: {from: v, to: lake, path: t/, strategy: replace}}\n",
    );
    let error = folder.run(&["run", ".", "--date", "2024-01-15"]).error();
    assert!(error.contains("`on_fail: warn`") && !error.contains("dead_letter"), "{error}");
}

#[test]
fn a_query_whose_groups_do_not_fit_into_the_memory_goes_to_disk_and_is_right() {
    let folder = Folder::new();
    // A million groups of some hundred bytes each, in a pool of 41 MB.
    let query = "select count(*), sum(n) from (select concat('a text that takes its room ', value % 1000000) as k, count(*) as n
        from generate_series(1, 1500000) group by k)";
    let said = folder.run(&["sql", "--memory", "96MB", "--format", "csv", query]);
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(said.out.lines().last(), Some("1000000,1500000"), "{said}");
}
