//! A database server that ends connections, or crashes, at each step of a load.

use super::cells::{Cell, Kind, cell};
use super::process::{Running, run};
use super::{Bed, NEW};
use crate::driver::{Ended, Outcome};
use gristmill_testkit::postgres::PostgresServer;

const CELLS: &[Cell] = &[cell(Kind::Postgres, "append", ""), cell(Kind::Postgres, "delete+insert", ", key: [id]")];

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

#[test]
fn a_load_whose_server_ends_its_sessions_or_crashes_is_whole_or_refused() {
    let server = PostgresServer::start().unwrap();
    let mut outcome = Outcome::new(0);
    for cell in CELLS {
        let bed = Bed::new(*cell, &server);
        for point in POINTS.iter().filter(|point| bed.trace.iter().any(|passed| passed == *point)) {
            for crash in [false, true] {
                let row = if crash { "PostgreSQL crashes" } else { "PostgreSQL ends our sessions" };
                let ended = strike(&bed, &server, point, crash).unwrap_or_else(|problem| {
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

fn strike(bed: &Bed<'_>, server: &PostgresServer, point: &str, crash: bool) -> Result<Ended, String> {
    let yard = bed.yard.copied();
    let database = yard.database.as_ref().ok_or("no database")?;
    let mut running = Running::begin(yard.folder.command(&NEW), &format!("{point}:1=stop"))?;
    if !running.until_stopped()? {
        return Err(format!("it was never there\n{}", running.end()?.text));
    }
    match crash {
        // What was staged is in unlogged tables, which are empty afterwards.
        true => server.restart("immediate")?,
        false => drop(database.try_sql(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity \
             where application_name like 'gristmill%' and datname = current_database()",
        )?),
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
