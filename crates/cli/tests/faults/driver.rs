//! What all campaigns share: waiting for a process, and counting what became of runs.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Child;
use std::time::{Duration, Instant};

/// A run that takes longer hangs.
pub(crate) const LONGEST: Duration = Duration::from_secs(240);

/// Stands for a run that had to be killed because it did not end.
pub(crate) const HANGS: i32 = -1;

/// The row of runs that nothing is done to.
pub(crate) const NONE: &str = "none";

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ended {
    /// Loaded, every row once.
    Whole,
    /// Failed with a clear error, nothing to be seen in the target; run again, every row was there once.
    Refused,
    /// Killed; nothing or everything to be seen; run again, every row was there once.
    Killed,
    /// Killed, and what recovered it, too; then as above.
    KilledTwice,
    /// Loaded whole before the fault could strike.
    TooLate,
    /// Whatever must not be.
    Wrong,
}

const ENDED: [(Ended, &str); 6] = [
    (Ended::Whole, "whole"),
    (Ended::Refused, "refused, then whole"),
    (Ended::Killed, "killed, then whole"),
    (Ended::KilledTwice, "twice, then whole"),
    (Ended::TooLate, "too late"),
    (Ended::Wrong, "WRONG"),
];

/// What a campaign has found.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    counts: BTreeMap<String, BTreeMap<Ended, u64>>,
    wrong: Vec<String>,
}

impl Outcome {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Counts a run.
    pub(crate) fn add(&mut self, row: impl fmt::Display, ended: Ended) {
        *self.counts.entry(row.to_string()).or_default().entry(ended).or_default() += 1;
    }

    /// Keeps what was wrong with a run, and says it at once.
    pub(crate) fn problem(&mut self, problem: String) {
        eprintln!("{problem}");
        self.wrong.push(problem);
    }

    /// Takes over what another has counted.
    pub(crate) fn merge(&mut self, other: Self) {
        for (row, counts) in other.counts {
            let known = self.counts.entry(row).or_default();
            for (ended, count) in counts {
                *known.entry(ended).or_default() += count;
            }
        }
        self.wrong.extend(other.wrong);
    }

    pub(crate) fn wrong(&self) -> usize {
        self.wrong.len()
    }

    fn count(&self, is_meant: impl Fn(&str, Ended) -> bool) -> u64 {
        let all =
            self.counts.iter().flat_map(|(row, counts)| counts.iter().map(move |(ended, count)| (row, ended, count)));
        all.filter(|(row, ended, _)| is_meant(row, **ended)).map(|(_, _, count)| count).sum()
    }

    /// Runs that a fault has struck.
    pub(crate) fn struck(&self) -> u64 {
        self.count(|row, ended| row != NONE && ended != Ended::TooLate)
    }

    /// How often a process was killed.
    pub(crate) fn kills(&self) -> u64 {
        self.count(|_, ended| ended == Ended::Killed) + 2 * self.count(|_, ended| ended == Ended::KilledTwice)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.counts.keys().map(|row| row.chars().count()).max().unwrap_or(0) + 2;
        let shown: Vec<&(Ended, &str)> =
            ENDED.iter().filter(|(ended, _)| self.count(|_, other| other == *ended) > 0).collect();
        write!(f, "{:<width$}", "")?;
        for (_, name) in &shown {
            write!(f, "{name:>21}")?;
        }
        for (row, counts) in &self.counts {
            write!(f, "\n{row:<width$}")?;
            for (ended, _) in &shown {
                write!(f, "{:>21}", counts.get(ended).copied().unwrap_or(0))?;
            }
        }
        let runs = self.count(|_, _| true);
        for wrong in &self.wrong {
            write!(f, "\n\n{wrong}")?;
        }
        let verdict = if self.wrong.is_empty() { "no row lost, none doubled, nothing half visible" } else { "BROKEN" };
        write!(
            f,
            "\n\n{runs} runs, seed {}, {} struck in the middle, {} kills: {verdict}",
            self.seed,
            self.struck(),
            self.kills()
        )
    }
}

/// Waits for the end of a process; its exit code, none where a signal ended it, [`HANGS`] where we had to.
pub(crate) fn wait(child: &mut Child, begin: Instant) -> Result<Option<i32>, String> {
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status.code());
        }
        if begin.elapsed() > LONGEST {
            child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
            return Ok(Some(HANGS));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
