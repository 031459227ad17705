//! Several processes at one target: who lives is left alone, and rivals end well in some order.

use super::cells::{Cell, Kind, cell};
use super::place::{Rows, Yard};
use super::process::{Running, run};
use super::{COMPACT, NEW, OLD, RECOVER, THIRD};
use crate::chance::Chance;
use gristmill_testkit::postgres::PostgresServer;

const CELLS: &[Cell] = &[
    cell(Kind::Folder("parquet"), "append", ""),
    cell(Kind::Folder("csv"), "partition_overwrite", ", partition_by: [day]"),
    cell(Kind::Sqlite, "delete+insert", ", key: [id]"),
    cell(Kind::Postgres, "delete+insert", ", key: [id]"),
    cell(Kind::Mariadb, "delete+insert", ", key: [id]"),
    cell(Kind::S3Folder("parquet"), "append", ""),
    cell(Kind::S3Folder("ndjson"), "replace", ""),
    cell(Kind::S3Folder("parquet"), "replace", ", readable_staging: true"),
    cell(Kind::S3File("csv"), "replace", ", readable_staging: true"),
];

/// What is there after these runs, one after the other.
fn after(bed: &Yard<'_>, runs: &[&[&str]]) -> Rows {
    let yard = bed.copied();
    for words in runs {
        run(&yard.folder, words, "").unwrap().must_be_done("a run").unwrap();
    }
    yard.rows().unwrap()
}

fn begun(cell: Cell, server: &PostgresServer) -> Yard<'_> {
    let yard = Yard::new(cell, server);
    run(&yard.folder, &OLD, "").unwrap().must_be_done("the first run").unwrap();
    yard
}

#[test]
fn a_run_that_lives_is_left_alone_by_recoveries_and_by_runs_of_other_dates() {
    let server = PostgresServer::start().unwrap();
    // A process that is stopped while one of its threads reads a SQLite database keeps everybody from writing to it.
    for cell in CELLS.iter().filter(|cell| cell.kind != Kind::Sqlite) {
        let bed = begun(*cell, &server);
        let expected = after(&bed, &[&THIRD, &NEW]);
        for point in ["after stage", "after intent", "after audit"] {
            let yard = bed.copied();
            let mut living = Running::begin(yard.folder.command(&NEW), &format!("{point}:1=stop")).unwrap();
            assert!(living.until_stopped().unwrap(), "{cell}: {}", living.end().unwrap().text);
            let recovered = run(&yard.folder, &RECOVER, "").unwrap();
            assert_eq!(recovered.text.trim(), "nothing to recover", "{cell}, stopped {point}");
            let same = run(&yard.folder, &NEW, "").unwrap();
            same.must_be_refused(&["is going on"]).unwrap();
            run(&yard.folder, &THIRD, "").unwrap().must_be_done("a run of another date").unwrap();
            living.go_on().unwrap();
            living.end().unwrap().must_be_done("the run that was stopped").unwrap();
            assert_eq!(yard.rows().unwrap(), expected, "{cell}, stopped {point}");
            assert_eq!(yard.leftovers(0), Vec::<String>::new(), "{cell}, stopped {point}");
        }
    }
}

#[test]
fn two_dates_that_are_loaded_at_once_end_as_one_after_the_other() {
    let server = PostgresServer::start().unwrap();
    for (number, cell) in CELLS.iter().enumerate() {
        let bed = begun(*cell, &server);
        let either = [after(&bed, &[&NEW, &THIRD]), after(&bed, &[&THIRD, &NEW])];
        for round in 0..3 {
            let mut chance = Chance::new(round, number as u64);
            let yard = bed.copied();
            // One of them is held up somewhere, so that they meet at another place each time.
            let plan = format!("any:{}=delay {}", chance.number(1, 60), chance.number(5, 60));
            let one = Running::begin(yard.folder.command(&NEW), &plan).unwrap();
            let other = Running::begin(yard.folder.command(&THIRD), "").unwrap();
            for running in [one, other] {
                let ran = running.end().unwrap();
                ran.must_be_done(&format!("{cell}, {plan}: one of two")).unwrap();
            }
            let rows = yard.rows().unwrap();
            assert!(either.contains(&rows), "{cell}, {plan}: {rows:?}");
            assert_eq!(yard.leftovers(0), Vec::<String>::new(), "{cell}, {plan}");
        }
    }
}

#[test]
fn one_load_that_two_checkouts_do_at_once_is_done_once() {
    let server = PostgresServer::start().unwrap();
    for (number, cell) in CELLS.iter().enumerate() {
        let bed = begun(*cell, &server);
        let expected = after(&bed, &[&NEW]);
        for round in 0..3 {
            let mut chance = Chance::new(round, 100 + number as u64);
            let yard = bed.copied();
            let rival = yard.checkout();
            let plan = format!("any:{}=delay {}", chance.number(1, 60), chance.number(5, 60));
            let one = Running::begin(yard.folder.command(&NEW), &plan).unwrap();
            let other = Running::begin(rival.command(&NEW), "").unwrap();
            let ended = [one.end().unwrap(), other.end().unwrap()];
            // Whoever comes second is told that its rows are not those that are there, or takes its turn.
            assert!(ended.iter().any(|ran| ran.code == Some(0)), "{cell}, {plan}: {}", ended[0].text);
            for ran in ended.iter().filter(|ran| ran.code != Some(0)) {
                ran.must_be_refused(&["was committed by the run"]).unwrap();
            }
            assert_eq!(yard.rows().unwrap(), expected, "{cell}, {plan}: {}\n{}", ended[0].text, ended[1].text);
            assert_eq!(yard.leftovers(0), Vec::<String>::new(), "{cell}, {plan}");
        }
    }
}

#[test]
fn a_compaction_that_lives_is_left_alone_by_recoveries_runs_and_compactions() {
    let server = PostgresServer::start().unwrap();
    for cell in CELLS.iter().filter(|cell| cell.strategy == "append") {
        let bed = begun(*cell, &server);
        run(&bed.folder, &NEW, "").unwrap().must_be_done("the second run").unwrap();
        let expected = after(&bed, &[&THIRD]);
        for point in ["after intent", "after stage", "before log entry"] {
            let yard = bed.copied();
            let mut living = Running::begin(yard.folder.command(&COMPACT), &format!("{point}:1=stop")).unwrap();
            assert!(living.until_stopped().unwrap(), "{cell}: {}", living.end().unwrap().text);
            let holds_the_lock = point == "before log entry" && matches!(cell.kind, Kind::Folder(_));
            if !holds_the_lock {
                let recovered = run(&yard.folder, &RECOVER, "").unwrap();
                assert_eq!(recovered.text.trim(), "nothing to recover", "{cell}, stopped {point}");
                run(&yard.folder, &COMPACT, "").unwrap().must_be_done("another compaction").unwrap();
                run(&yard.folder, &THIRD, "").unwrap().must_be_done("a run").unwrap();
            }
            living.go_on().unwrap();
            // It finds its files gone, and says so.
            living.end().unwrap().must_be_done("the compaction that was stopped").unwrap();
            run(&yard.folder, &THIRD, "").unwrap().must_be_done("a run").unwrap();
            run(&yard.folder, &COMPACT, "").unwrap().must_be_done("a last compaction").unwrap();
            assert_eq!(yard.rows().unwrap(), expected, "{cell}, stopped {point}");
            assert!(yard.is_compact(), "{cell}, stopped {point}");
            assert_eq!(yard.leftovers(0), Vec::<String>::new(), "{cell}, stopped {point}");
        }
    }
}

#[test]
fn compactions_and_recoveries_that_begin_at_once_end_well() {
    let server = PostgresServer::start().unwrap();
    for cell in CELLS.iter().filter(|cell| cell.strategy == "append") {
        let bed = begun(*cell, &server);
        run(&bed.folder, &NEW, "").unwrap().must_be_done("the second run").unwrap();
        let expected = bed.rows().unwrap();
        for round in 0..3 {
            let yard = bed.copied();
            // One that was killed, for all of them to find.
            let killed =
                run(&yard.folder, &COMPACT, ["after stage:1=kill", "after log entry:1=kill", ""][round]).unwrap();
            assert_eq!(killed.is_killed(), round < 2, "{cell}: {}", killed.text);
            let words: [&[&str]; 5] = [&COMPACT, &RECOVER, &COMPACT, &RECOVER, &COMPACT];
            let begun = words.map(|words| Running::begin(yard.folder.command(words), "").unwrap());
            for running in begun {
                running.end().unwrap().must_be_done(&format!("{cell}: one of five")).unwrap();
            }
            assert_eq!(yard.rows().unwrap(), expected, "{cell}");
            assert!(yard.is_compact(), "{cell}");
            assert_eq!(yard.leftovers(0), Vec::<String>::new(), "{cell}");
        }
    }
}
