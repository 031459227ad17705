//! A MariaDB server that ends connections, crashes, has no room, or lets others be in the way, at each step of a load.

use super::cells::{Kind, cell};
use super::place::Yard;
use super::process::{Running, run};
use super::{Bed, NEW, OLD};
use crate::driver::{Ended, Outcome};
use gristmill_testkit::mariadb::{MariadbServer, TestDatabase};
use gristmill_testkit::postgres::PostgresServer;
use std::sync::OnceLock;

/// Where a run is stopped while its server is struck.
const POINTS: &[&str] = &[
    "after intent",
    "during stage",
    "staged bytes",
    "after stage",
    "before commit",
    "before ledger write",
    "during ledger write",
    "after delete",
    "after insert",
    "after ledger write",
];

/// A server that only this test lets crash.
fn alone() -> &'static MariadbServer {
    static SERVER: OnceLock<MariadbServer> = OnceLock::new();
    SERVER.get_or_init(|| MariadbServer::start().unwrap())
}

#[test]
fn a_load_whose_server_ends_its_sessions_or_crashes_is_whole_or_refused() {
    let server = PostgresServer::start().unwrap();
    let mut outcome = Outcome::new(0);
    for cell in [
        cell(Kind::Mariadb, "append", ""),
        cell(Kind::Mariadb, "delete+insert", ", key: [id]"),
        cell(Kind::Mariadb, "merge", ", key: [id]"),
    ] {
        let bed = Bed::of(Yard::with(cell, &server, alone));
        for point in POINTS.iter().filter(|point| bed.trace.iter().any(|passed| passed == *point)) {
            for crash in [false, true] {
                let row = if crash { "MariaDB crashes" } else { "MariaDB ends our sessions" };
                let ended = strike(&bed, point, crash).unwrap_or_else(|problem| {
                    outcome.problem(format!("{cell}: {row} {point}: {problem}"));
                    Ended::Wrong
                });
                outcome.add(row, ended);
            }
        }
    }
    eprintln!("{outcome}");
    assert_eq!(outcome.wrong(), 0, "{outcome}");
}

fn end_sessions(database: &TestDatabase) {
    let ours = "select id from information_schema.processlist where user = 'gristmill' and db = database()";
    for id in database.sql(ours).lines() {
        // It may have ended by itself.
        let _ = database.try_sql(&format!("kill {id}"));
    }
}

fn strike(bed: &Bed<'_>, point: &str, crash: bool) -> Result<Ended, String> {
    let yard = bed.yard.copied();
    let database = yard.maria.as_ref().ok_or("no database")?;
    let mut running = Running::begin(yard.folder.command(&NEW), &format!("{point}:1=stop"))?;
    if !running.until_stopped()? {
        return Err(format!("it was never there\n{}", running.end()?.text));
    }
    match crash {
        true => alone().restart()?,
        false => end_sessions(database),
    }
    running.go_on()?;
    let ran = running.end()?;
    let ended = match ran.code {
        Some(0) => {
            bed.is_new(&yard.rows()?).map_err(|problem| format!("{problem}\n{}", ran.text))?;
            Ended::Whole
        }
        _ => {
            ran.must_be_refused(&["staged rows", "was lost", "are gone"])?;
            bed.is_old_or_new(&yard.rows()?).map_err(|problem| format!("{problem}\n{}", ran.text))?;
            Ended::Refused
        }
    };
    let last = run(&yard.folder, &NEW, "")?;
    last.must_be_done("the run after all").map_err(|problem| format!("{problem}\nafter\n{}", ran.text))?;
    bed.is_new(&yard.rows()?).map_err(|problem| format!("{problem}\n{}\nthen\n{}", ran.text, last.text))?;
    match yard.leftovers(0) {
        left if left.is_empty() => Ok(ended),
        left => Err(format!("left behind: {left:#?}")),
    }
}

#[test]
fn a_server_without_room_fails_the_load_and_leaves_the_old_rows() {
    let server = PostgresServer::start().unwrap();
    let yard = Yard::new(cell(Kind::Mariadb, "replace", ""), &server);
    run(&yard.folder, &OLD, "").unwrap().must_be_done("the first run").unwrap();
    let old = yard.rows().unwrap();
    // What InnoDB says when a tablespace cannot grow: the table is full.
    let maria = yard.maria.as_ref().unwrap();
    maria.sql(
        "create trigger full before insert on t for each row \
         signal sqlstate 'HY000' set mysql_errno = 1114, message_text = 'The table ''t'' is full'",
    );
    let ran = run(&yard.folder, &NEW, "").unwrap();
    ran.must_be_refused(&["is full"]).unwrap();
    assert_eq!(yard.rows().unwrap(), old);
    assert_eq!(yard.leftovers(0), Vec::<String>::new());
    maria.sql("drop trigger full");
    run(&yard.folder, &NEW, "").unwrap().must_be_done("the run with room").unwrap();
    assert_ne!(yard.rows().unwrap(), old);
}
