//! Loads that are killed at every point they pass, and at moments nobody has named; what readers see then, after a
//! recovery (killed itself, sometimes), and after the next run. What is there in the end is compared, row by row, with
//! what an undisturbed run leaves.

mod cells;
mod delta;
mod disk;
mod mariadb;
mod place;
pub(crate) mod process;
mod rivals;
mod server;
mod store;

use crate::chance::Chance;
use crate::driver::{Ended, Outcome};
use cells::{CELLS, Cell, Kind};
use gristmill_testkit::postgres::PostgresServer;
use place::{Rows, Yard};
use process::{Running, run};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Cases of each target and strategy in the ordinary tests.
pub(crate) const ORDINARY: u64 = 5;
/// Workers: a run waits for disks and servers half of its time.
const WORKERS: usize = 2;

const OLD: [&str; 4] = ["run", ".", "--date", "2024-01-01"];
const NEW: [&str; 4] = ["run", ".", "--date", "2024-01-02"];
const THIRD: [&str; 4] = ["run", ".", "--date", "2024-01-03"];
const COMPACT: [&str; 2] = ["compact", "out:t/"];
const OTHER: [&str; 6] = ["run", ".", "--pipeline", "other", "--date", "2024-01-02"];
const RECOVER: [&str; 1] = ["recover"];

/// How many cells there are.
pub(crate) fn cells() -> u64 {
    CELLS.len() as u64
}

/// What a campaign of loads has found.
pub(crate) struct Found {
    pub(crate) cells: Outcome,
    /// The same by where the process was struck.
    pub(crate) points: Outcome,
}

/// Does so many cases, spread over all cells.
pub(crate) fn campaign(runs: u64, seed: u64) -> Found {
    let server = PostgresServer::start().unwrap();
    let next = AtomicUsize::new(0);
    let only = std::env::var("GRISTMILL_FAULTS_ONLY").unwrap_or_default();
    let work = || {
        let mut found = Found { cells: Outcome::new(seed), points: Outcome::new(seed) };
        while let Some(cell) = CELLS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let index = CELLS.iter().position(|other| std::ptr::eq(other, cell)).unwrap() as u64;
            let cases = runs / cells() + u64::from(index < runs % cells());
            if cases > 0 && cell.to_string().contains(&only) {
                Bed::new(*cell, &server).cases(seed, index, cases, &mut found);
            }
        }
        found
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        let mut found = Found { cells: Outcome::new(seed), points: Outcome::new(seed) };
        for worker in workers {
            let part = worker.join().unwrap();
            found.cells.merge(part.cells);
            found.points.merge(part.points);
        }
        found
    })
}

/// A cell with what its cases are compared with.
struct Bed<'a> {
    yard: Yard<'a>,
    old: Rows,
    new: Rows,
    /// The points that an undisturbed run passes, in order.
    trace: Vec<String>,
    took: Duration,
}

/// Where and how a process is struck.
#[derive(Debug, Clone)]
enum Strike {
    /// At this pass of a point.
    Point { point: String, pass: u64, action: &'static str },
    /// After so long.
    Moment(Duration),
}

impl Strike {
    fn row(&self) -> String {
        match self {
            Self::Point { point, .. } => point.clone(),
            Self::Moment(_) => "at a random moment".to_owned(),
        }
    }
}

/// How a killed run is recovered.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// `gristmill recover`.
    Recover,
    /// The same again: the run, or the compaction.
    Next,
    /// A run of another pipeline of the project.
    Other,
}

impl Way {
    fn words(self, cell: &Cell) -> &'static [&'static str] {
        match self {
            Self::Recover => &RECOVER,
            Self::Next => cell.words(),
            Self::Other => &OTHER,
        }
    }
}

impl<'a> Bed<'a> {
    fn new(cell: Cell, server: &'a PostgresServer) -> Self {
        Self::of(Yard::new(cell, server))
    }

    fn of(yard: Yard<'a>) -> Self {
        let cell = yard.cell;
        run(&yard.folder, &OLD, "").unwrap().must_be_done("the first run").unwrap();
        if cell.is_compaction() {
            run(&yard.folder, &NEW, "").unwrap().must_be_done("the second run").unwrap();
            run(&yard.folder, &THIRD, "").unwrap().must_be_done("the third run").unwrap();
            assert!(!yard.is_compact(), "{cell}");
        }
        let old = yard.rows().unwrap();
        let copy = yard.copied();
        let trace = copy.folder.path().join("trace");
        let mut command = copy.folder.command(cell.words());
        let begin = Instant::now();
        let output = command.env("GRISTMILL_FAULTS_TRACE", &trace).output().unwrap();
        let took = begin.elapsed();
        assert!(output.status.success(), "{cell}: {output:?}");
        let new = copy.rows().unwrap();
        assert!(!old.is_empty() && (new == old) == cell.is_compaction(), "{cell}: {old:?}, then {new:?}");
        assert!(!cell.is_compaction() || copy.is_compact(), "{cell}");
        assert_eq!(copy.leftovers(0), Vec::<String>::new(), "{cell}");
        let trace = std::fs::read_to_string(trace).unwrap().lines().map(str::to_owned).collect();
        Self { yard, old, new, trace, took }
    }

    fn cases(&self, seed: u64, cell: u64, cases: u64, found: &mut Found) {
        for case in 0..cases {
            let mut chance = Chance::new(seed, cell * 1_000_003 + case);
            let begin = Instant::now();
            let strike = self.strike(case, &mut chance);
            let mut told = String::new();
            let ended = self.case(&strike, &mut chance, &mut told).unwrap_or_else(|problem| {
                let place = format!("{}, case {case} of seed {seed}: {strike:?}{told}", self.yard.cell);
                found.cells.problem(format!("{place}: {problem}"));
                Ended::Wrong
            });
            let took = begin.elapsed().as_secs_f64();
            eprintln!("{}, case {case}: {strike:?}{told}: {ended:?} after {took:.1} s", self.yard.cell);
            found.cells.add(self.yard.cell, ended);
            found.points.add(strike.row(), ended);
        }
    }

    /// One in five strikes at a moment nobody has named; the others choose a point, and then one of its passes.
    fn strike(&self, case: u64, chance: &mut Chance) -> Strike {
        if case % 5 == 4 {
            let most = u64::try_from(self.took.as_millis()).unwrap().max(1);
            return Strike::Moment(Duration::from_millis(chance.number(0, most)));
        }
        let points: Vec<&str> = self.trace.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
        let point = chance.one(&points);
        let passes = self.trace.iter().filter(|passed| *passed == point).count() as u64;
        let action = match chance.number(0, 10) {
            // A sweep that fails is no failure of the load; the next load of the target sweeps again.
            0 if !point.contains("sweep") => "fail",
            1 | 2 => "tear",
            _ => "kill",
        };
        Strike::Point { point: point.to_owned(), pass: chance.number(1, passes + 1), action }
    }

    fn case(&self, strike: &Strike, chance: &mut Chance, told: &mut String) -> Result<Ended, String> {
        let yard = self.yard.copied();
        let (folder, words) = (&yard.folder, yard.cell.words());
        let struck = match strike {
            Strike::Point { point, pass, action } => run(folder, words, &format!("{point}:{pass}={action}"))?,
            Strike::Moment(moment) => {
                let mut running = Running::begin(folder.command(words), "")?;
                running.kill_after(*moment)?;
                running.end()?
            }
        };
        let rows = yard.rows()?;
        let mut ended = match struck.code {
            Some(0) => {
                self.is_new(&rows)?;
                if matches!(strike, Strike::Point { action: "fail", .. }) { Ended::Whole } else { Ended::TooLate }
            }
            Some(1) => {
                struck.must_be_refused(&["made to fail"])?;
                self.is_old_or_new(&rows)?;
                Ended::Refused
            }
            None => {
                self.is_half_done(&rows)?;
                Ended::Killed
            }
            code => return Err(format!("it ended with {code:?}\n{}", struck.text)),
        };
        let mut said = struck.text.clone();
        if struck.is_killed() {
            said += &self.recover(&yard, chance, told, &mut ended)?;
        }
        if !told.contains("Next") && ended != Ended::TooLate {
            let last = run(folder, words, "")?;
            last.must_be_done("the run after all").map_err(|problem| format!("{problem}\nafter\n{said}"))?;
            self.is_new(&yard.rows()?).map_err(|problem| format!("{problem}\nafter\n{said}\n{}", last.text))?;
        }
        if yard.cell.is_compaction() && !yard.is_compact() {
            return Err(format!("it is not compact after all\nafter\n{said}"));
        }
        if chance.is(1, 4) {
            let nothing = run(folder, &RECOVER, "")?;
            if nothing.text.trim() != "nothing to recover" {
                return Err(format!("a recovery after all has found something\n{}\nafter\n{said}", nothing.text));
            }
        }
        // A writer that dies between the opening of an upload and the note of it leaves one that has no bytes; there are two.
        let kills = usize::from(struck.is_killed()) + usize::from(ended == Ended::KilledTwice);
        let unnoted = if self.yard.cell.kind.is_s3() { 2 * kills } else { 0 };
        match yard.leftovers(unnoted) {
            left if left.is_empty() => Ok(ended),
            left => Err(format!("left behind: {left:#?}\nafter\n{said}")),
        }
    }

    /// Recovers what a killed run has left, one way or another, half of the time at the second try; what was said.
    fn recover(
        &self,
        yard: &Yard<'_>,
        chance: &mut Chance,
        told: &mut String,
        ended: &mut Ended,
    ) -> Result<String, String> {
        let way = chance.one(&[Way::Recover, Way::Recover, Way::Next, Way::Other]);
        *told = format!(", then {way:?}");
        let mut said = String::new();
        if chance.is(1, 2) {
            let plan = format!("any:{}=kill", chance.number(1, 30));
            let recovering = run(&yard.folder, way.words(&self.yard.cell), &plan)?;
            *told += &format!(" ({plan})");
            if recovering.is_killed() {
                *ended = Ended::KilledTwice;
                self.is_half_done(&yard.rows()?)?;
            } else {
                recovering.must_be_done("the recovery")?;
            }
            said += &recovering.text;
        }
        let recovered = run(&yard.folder, way.words(&self.yard.cell), "")?;
        said += &recovered.text;
        recovered.must_be_done("the recovery").map_err(|problem| format!("{problem}\nafter\n{said}"))?;
        let rows = yard.rows()?;
        let fine = if matches!(way, Way::Next) { self.is_new(&rows) } else { self.is_old_or_new(&rows) };
        fine.map_err(|problem| format!("{problem}\nafter\n{said}"))?;
        Ok(said)
    }

    fn is_new(&self, rows: &Rows) -> Result<(), String> {
        if *rows == self.new {
            Ok(())
        } else {
            Err(format!("not what an undisturbed run leaves: {}", self.differing(rows)))
        }
    }

    /// All of the old rows, or all of the new.
    fn is_old_or_new(&self, rows: &Rows) -> Result<(), String> {
        if *rows == self.old || *rows == self.new {
            return Ok(());
        }
        Err(format!("neither the old rows nor the new: {}", self.differing(rows)))
    }

    /// What a reader may see while nobody has recovered what was decided.
    fn is_half_done(&self, rows: &Rows) -> Result<(), String> {
        let is_either = |part: &str| {
            let rows = rows.get(part);
            rows == self.old.get(part) || rows == self.new.get(part)
        };
        let parts: BTreeSet<&str> =
            [&self.old, &self.new, rows].into_iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
        let appends = self.yard.cell.strategy == "append";
        let fine = match self.yard.cell.kind {
            // One entry of the log is the commit.
            Kind::Folder("delta") | Kind::S3Folder("delta") => *rows == self.old || *rows == self.new,
            // Each partition, or table, whole.
            Kind::Both => parts.iter().all(|part| is_either(part)),
            Kind::Folder(_) if !appends && self.yard.cell.strategy == "partition_overwrite" => {
                parts.iter().all(|part| is_either(part))
            }
            // New files come one by one, old ones go one by one, in this order.
            Kind::Folder(_) if appends => holds(rows, &self.old) && holds(&self.new, rows),
            Kind::S3Folder(_) => (holds(rows, &self.old) || holds(rows, &self.new)) && holds(&self.sum(), rows),
            _ => *rows == self.old || *rows == self.new,
        };
        if fine { Ok(()) } else { Err(format!("a reader sees what must not be seen: {}", self.differing(rows))) }
    }

    /// Old rows and new ones together.
    fn sum(&self) -> Rows {
        let mut sum = self.old.clone();
        for (part, rows) in &self.new {
            sum.entry(part.clone()).or_default().extend(rows.iter().cloned());
        }
        sum
    }

    fn differing(&self, rows: &Rows) -> String {
        let counts = |rows: &Rows| rows.iter().map(|(part, rows)| format!("{part}:{}", rows.len())).collect::<Vec<_>>();
        let part = |other: &Rows| {
            let lacks = other.iter().flat_map(|(part, lines)| lines.iter().map(move |line| (part, line)));
            let lacks = lacks.filter(|(part, line)| !rows.get(*part).is_some_and(|rows| rows.contains(line)));
            lacks.take(3).map(|(part, line)| format!("{part} {line}")).collect::<Vec<_>>()
        };
        format!(
            "{:?}, old {:?}, new {:?}; of the old it lacks {:?}, of the new {:?}",
            counts(rows),
            counts(&self.old),
            counts(&self.new),
            part(&self.old),
            part(&self.new)
        )
    }
}

/// Whether all rows of `part` are among those of `whole`, as often as they are there.
fn holds(whole: &Rows, part: &Rows) -> bool {
    part.iter().all(|(name, rows)| {
        let mut left: BTreeMap<&str, i64> = BTreeMap::new();
        for row in whole.get(name).into_iter().flatten() {
            *left.entry(row).or_default() += 1;
        }
        rows.iter().all(|row| {
            let count = left.entry(row).or_default();
            *count -= 1;
            *count >= 0
        })
    })
}
