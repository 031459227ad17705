//! The campaign: a table, a run, a fault in the middle of it, and what was loaded.

use crate::chance::Chance;
use crate::driver::{Ended, HANGS, LONGEST, Outcome, wait};
use crate::fault::{FAULTS, Fault, Moment, strike};
use crate::shape::{Shape, change};
use crate::support::Folder;
use gristmill_testkit::postgres::{PostgresServer, TestDatabase};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const RUN: [&str; 4] = ["run", ".", "--date", "2024-01-01"];
/// Rows in a second, so that a run has a middle, however small its table.
const PACE: u64 = 9000;

/// Extracts so many tables, each with a fault of its own.
pub(crate) fn extract(runs: u64, seed: u64) -> Outcome {
    let server = PostgresServer::start().unwrap();
    let mut outcome = Outcome::new(seed);
    for run in 0..runs {
        let mut chance = Chance::new(seed, run);
        let fault = FAULTS[usize::try_from(run).unwrap() % FAULTS.len()];
        let began = Instant::now();
        let attempt = Attempt::new(&server, fault, &mut chance);
        let ended = attempt.ended(&mut chance).unwrap_or_else(|problem| {
            outcome.problem(format!("run {run}: {fault}: {problem}\n{}\n{}", attempt.shape, attempt.moment()));
            Ended::Wrong
        });
        eprintln!("run {run}: {fault}: {ended:?} after {:.1} s ({})", began.elapsed().as_secs_f64(), attempt.moment());
        outcome.add(fault, ended);
    }
    outcome
}

/// One run and its fault.
struct Attempt<'a> {
    server: &'a PostgresServer,
    database: TestDatabase,
    shape: Shape,
    fault: Fault,
    moment: Moment,
    /// Whether somebody changes rows all the time.
    changes: bool,
    folder: Folder,
}

/// What a process said.
struct Said {
    code: Option<i32>,
    text: String,
    struck: bool,
}

impl<'a> Attempt<'a> {
    fn new(server: &'a PostgresServer, fault: Fault, chance: &mut Chance) -> Self {
        let shape = Shape::random(chance);
        let database = server.database();
        database.sql(&shape.create());
        let units = shape.rows / shape.target;
        let folder = Folder::new();
        folder.write(
            "gristmill.yaml",
            format!(
                "name: faults\ndefaults: {{parallelism: {}}}\nconnections:\n  server: {{type: postgres, url: \"{}\", \
                 max_rows_per_second: {PACE}}}\n  out: {{type: files, url: ./out}}\n",
                shape.parallelism,
                database.local_url()
            ),
        );
        folder.write("pipelines/p.yaml", shape.pipeline());
        let changes = match fault {
            Fault::Changes | Fault::VacuumFull => true,
            // A server that goes away is no place for a writer.
            Fault::Restart | Fault::Crash | Fault::Alter => false,
            _ => chance.is(1, 3),
        };
        let moment = Moment::random(chance, fault, units, shape.target);
        Self { server, database, fault, moment, changes, folder, shape }
    }

    fn moment(&self) -> String {
        format!("{:?}{}", self.moment, if self.changes { ", rows changing" } else { "" })
    }

    /// Runs, strikes, and looks what was loaded.
    fn ended(&self, chance: &mut Chance) -> Result<Ended, String> {
        let said = self.run(chance)?;
        let visible = self.loaded();
        match said.code {
            Some(0) => {
                self.look(&said)?;
                let late = !said.struck && self.fault != Fault::None;
                Ok(if late { Ended::TooLate } else { Ended::Whole })
            }
            None if self.fault == Fault::Kill => {
                if visible.is_some() {
                    self.look(&said)?;
                }
                self.again()?;
                Ok(Ended::Killed)
            }
            Some(1) => {
                if visible.is_some() {
                    return Err(format!("it failed, and rows are visible\n{}", said.text));
                }
                let errors = said.text.matches("error: ").count();
                let unclear = ["panicked", "internal", "not understood"].iter().any(|word| said.text.contains(word));
                if errors == 0 || unclear {
                    return Err(format!("it failed without a clear error\n{}", said.text));
                }
                self.again()?;
                Ok(Ended::Refused)
            }
            _ => Err(format!("it ended with {:?}\n{}", said.code, said.text)),
        }
    }

    /// Runs once more, undisturbed.
    fn again(&self) -> Result<(), String> {
        let said = self.folder.run(&RUN);
        if said.code != Some(0) {
            return Err(format!("run again, it failed: {said}"));
        }
        self.look(&Said { code: said.code, text: said.to_string(), struck: false })
    }

    /// A run with the fault in the middle.
    fn run(&self, chance: &mut Chance) -> Result<Said, String> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if self.changes {
                scope.spawn(|| {
                    for number in 1.. {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        // While a table is rewritten, or a server restarts, some are refused: all of it, or nothing.
                        if self.database.try_sql(&change("t", number)).is_err() {
                            break;
                        }
                    }
                });
            }
            let mut log = tempfile::tempfile().map_err(|error| error.to_string())?;
            let both = || log.try_clone().map_err(|error| error.to_string());
            let mut command = self.folder.command(&RUN);
            let child = command.stdout(both()?).stderr(both()?).spawn().map_err(|error| error.to_string());
            let outcome = child.and_then(|mut child| self.strike(&mut child, chance));
            done.store(true, Ordering::Relaxed);
            let (code, struck) = outcome?;
            let mut text = String::new();
            std::io::Seek::rewind(&mut log).map_err(|error| error.to_string())?;
            std::io::Read::read_to_string(&mut log, &mut text).map_err(|error| error.to_string())?;
            if code == Some(HANGS) {
                return Err(format!("it hangs\n{text}"));
            }
            Ok(Said { code, text, struck })
        })
    }

    /// Waits for the moment, strikes, waits for the end; the exit code, and whether there was something to strike.
    fn strike(&self, child: &mut Child, chance: &mut Chance) -> Result<(Option<i32>, bool), String> {
        let begin = Instant::now();
        let words = |error: std::io::Error| error.to_string();
        if self.fault == Fault::None || self.fault == Fault::Changes {
            return Ok((wait(child, begin)?, self.fault == Fault::Changes));
        }
        let sql = format!("{} select 'now';", self.moment.wait());
        let mut waiting = self.database.psql(&sql).map_err(words)?;
        let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(words)?;
        let come = loop {
            if let Some(status) = waiting.try_wait().map_err(words)? {
                break status.success();
            }
            if child.try_wait().map_err(words)?.is_some() || begin.elapsed() > LONGEST {
                waiting.kill().map_err(words)?;
                waiting.wait().map_err(words)?;
                break false;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if !come {
            return Ok((wait(child, begin)?, false));
        }
        let mut beside = None;
        match self.fault {
            Fault::Restart => self.server.restart("fast")?,
            Fault::Crash => self.server.restart("immediate")?,
            Fault::Kill => child.kill().map_err(words)?,
            fault => {
                let sql = strike(fault, chance).ok_or("nothing to strike with")?;
                let mut striking = self.database.psql(&sql).map_err(words)?;
                // What changes the table waits until it is not read any more.
                beside = Some(striking.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(words)?);
            }
        }
        let code = wait(child, begin)?;
        if let Some(mut striking) = beside {
            let status = striking.wait().map_err(words)?;
            if !status.success() {
                return Err("the fault itself failed".to_owned());
            }
        }
        Ok((code, true))
    }

    /// The lines of what is visible in the target; none when it is empty.
    fn loaded(&self) -> Option<(String, String)> {
        let files = self.folder.visible("out");
        if files.is_empty() {
            return None;
        }
        let mut header = String::new();
        let mut rows = String::new();
        for (_, bytes) in files {
            let text = String::from_utf8(bytes).unwrap();
            let (first, rest) = text.split_once('\n').unwrap();
            first.clone_into(&mut header);
            rows.push_str(rest);
        }
        Some((header, rows))
    }

    /// Compares what was loaded with what the table was after as many changes as the loaded row 0 tells of: whole rows, and
    /// how often each is there. The server compares.
    fn look(&self, said: &Said) -> Result<(), String> {
        let (header, rows) = self.loaded().ok_or_else(|| format!("nothing was loaded\n{}", said.text))?;
        if !["n,k,v,w", "n,k,v", "n,k,v,w,x"].contains(&header.as_str()) {
            return Err(format!("the columns {header} were loaded"));
        }
        let ask = |sql: &str| self.database.try_sql(sql);
        ask(&format!(
            "drop table if exists loaded, expected; create table expected as table base; create index on expected(n); \
             create table loaded as select {header} from expected limit 0; copy loaded from stdin (format csv);\n{rows}\\.\n"
        ))?;
        let told = ask("select v from loaded where n = 0")?;
        let changes: u64 = told.parse().map_err(|_| format!("the row 0 says `{told}`"))?;
        for number in 1..=changes {
            ask(&change("expected", number))?;
        }
        let differing = ask(&format!(
            "select 'doubled or strange' as what, * from (select {header} from loaded except all select {header} from expected) a \
             union all select 'lost', * from (select {header} from expected except all select {header} from loaded) b limit 5"
        ))?;
        if differing.is_empty() {
            return Ok(());
        }
        let counts = ask("select (select count(*) from loaded), (select count(*) from expected)")?;
        Err(format!("rows loaded|expected {counts}; some that differ:\n{differing}\n{}", said.text))
    }
}
