//! What the machine may do to a load: a disk that is full, a clock that jumps.

use super::cells::{Cell, Kind, cell};
use super::place::Yard;
use super::process::{Running, run};
use super::{Bed, NEW, OLD, RECOVER};
use crate::chance::Chance;
use gristmill_testkit::postgres::PostgresServer;
use std::fmt::Write;
use std::process::Command;

/// Rows of a load that does not fit, and the size of its text.
const MANY: usize = 40_000;
/// The most a file may have: less than what is staged for the many rows, or than the table they come to.
const STAGED_IS_TOO_LARGE: u64 = 1 << 20;
const TABLE_IS_TOO_LARGE: u64 = 5 << 20;

/// The command with files of so many bytes at most: a write beyond them fails, as on a full disk.
fn confined(command: &Command, bytes: u64) -> Command {
    let mut confined = Command::new("sh");
    // Who ignores the signal gets an error instead; that is handed down.
    confined
        .args(["-c", "trap '' XFSZ; limit=$1; shift; exec prlimit --fsize=$limit -- \"$@\"", "sh"])
        .arg(bytes.to_string());
    confined.arg(command.get_program()).args(command.get_args());
    confined.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        confined.current_dir(folder);
    }
    confined
}

#[test]
fn a_disk_that_is_full_fails_the_load_and_leaves_the_old_rows() {
    let server = PostgresServer::start().unwrap();
    for (cell, bytes) in [
        (cell(Kind::Folder("parquet"), "append", ""), STAGED_IS_TOO_LARGE),
        (cell(Kind::Folder("csv"), "replace", ""), STAGED_IS_TOO_LARGE),
        (cell(Kind::File("ndjson"), "replace", ""), STAGED_IS_TOO_LARGE),
        (cell(Kind::Sqlite, "append", ""), STAGED_IS_TOO_LARGE),
        (cell(Kind::Sqlite, "append", ""), TABLE_IS_TOO_LARGE),
    ] {
        let yard = Yard::new(cell, &server);
        run(&yard.folder, &OLD, "").unwrap().must_be_done("the first run").unwrap();
        let old = yard.rows().unwrap();
        for (name, remainder) in [("a", 0), ("b", 1)] {
            let mut text = "id,day,v\n".to_owned();
            let mut chance = Chance::new(1, remainder as u64);
            for id in (0..MANY).filter(|id| id % 2 == remainder) {
                write!(text, "{id},2024-01-0{},", 1 + id % 9).unwrap();
                (0..8).for_each(|_| write!(text, "{:016x}", chance.number(0, u64::MAX)).unwrap());
                text.push('\n');
            }
            yard.folder.write(&format!("in/2024-01-02/{name}.csv"), text);
        }
        let ran = Running::begin(confined(&yard.folder.command(&NEW), bytes), "").unwrap().end().unwrap();
        ran.must_be_refused(&["cannot", "full", "too large"]).map_err(|problem| format!("{cell}: {problem}")).unwrap();
        eprintln!("{cell}, at most {bytes} bytes: {}", ran.text.trim().lines().last().unwrap_or_default());
        assert_eq!(yard.rows().unwrap(), old, "{cell}");
        assert_eq!(yard.leftovers(0), Vec::<String>::new(), "{cell}");
        run(&yard.folder, &NEW, "").unwrap().must_be_done("the run with room").unwrap();
        let rows: usize = yard.rows().unwrap().values().map(Vec::len).sum();
        let before: usize = if cell.strategy == "append" { old.values().map(Vec::len).sum() } else { 0 };
        assert_eq!(rows, before + MANY, "{cell}");
    }
}

/// The library that makes processes see another time, where it is installed.
fn faketime() -> Option<String> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu", ""];
    let paths = places.iter().map(|place| format!("/usr/lib/{place}/faketime/libfaketimeMT.so.1"));
    paths.map(|path| path.replace("//", "/")).find(|path| std::path::Path::new(path).exists())
}

#[test]
fn a_clock_that_jumps_loses_and_doubles_nothing() {
    let library = faketime().ok_or("a clock that jumps needs libfaketime: apt-get install faketime").unwrap();
    let server = PostgresServer::start().unwrap();
    let cells: [Cell; 5] = [
        cell(Kind::Folder("parquet"), "append", ""),
        cell(Kind::File("csv"), "replace", ""),
        cell(Kind::Sqlite, "delete+insert", ", key: [id]"),
        cell(Kind::Postgres, "append", ""),
        cell(Kind::Mariadb, "merge", ", key: [id]"),
    ];
    for cell in cells {
        let bed = Bed::new(cell, &server);
        for point in ["after stage", "after log entry", "during publish", "during ledger write", "after ledger write"] {
            if !bed.trace.iter().any(|passed| passed == point) {
                continue;
            }
            let yard = bed.yard.copied();
            let at = |offset: &str, words: &[&str], plan: &str| {
                let mut command = yard.folder.command(words);
                command.env("LD_PRELOAD", &library).env("FAKETIME", offset).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
                Running::begin(command, plan).unwrap().end().unwrap()
            };
            // A day before all that has happened, then a year ahead, then a month back.
            assert!(at("-1d", &NEW, &format!("{point}:1=kill")).is_killed(), "{cell}, {point}");
            let recovered = at("+365d", &RECOVER, "");
            recovered.must_be_done("the recovery").unwrap();
            bed.is_old_or_new(&yard.rows().unwrap()).map_err(|problem| format!("{cell}, {point}: {problem}")).unwrap();
            at("-30d", &NEW, "").must_be_done("the run after all").unwrap();
            bed.is_new(&yard.rows().unwrap()).map_err(|problem| format!("{cell}, {point}: {problem}")).unwrap();
            assert_eq!(yard.leftovers(0), Vec::<String>::new(), "{cell}, {point}");
        }
    }
}
