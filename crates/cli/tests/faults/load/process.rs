//! The binary as a process that is stopped, goes on, or is killed.

use crate::driver::{HANGS, LONGEST, wait};
use crate::support::Folder;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A process that runs.
pub(crate) struct Running {
    child: Child,
    log: File,
    begin: Instant,
}

/// How a process ended, and what it said.
pub(crate) struct Ran {
    /// None: by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Ran {
    pub(crate) fn is_killed(&self) -> bool {
        self.code.is_none()
    }

    pub(crate) fn must_be_done(&self, what: &str) -> Result<(), String> {
        match self.code {
            Some(0) => Ok(()),
            code => Err(format!("{what} ended with {code:?}\n{}", self.text)),
        }
    }

    /// It failed, and said why: nothing panicked, nothing was not understood.
    pub(crate) fn must_be_refused(&self, because: &[&str]) -> Result<(), String> {
        let unclear = ["panicked", "internal", "not understood"].iter().any(|word| self.text.contains(word));
        if self.code == Some(1) && !unclear && because.iter().any(|word| self.text.contains(word)) {
            return Ok(());
        }
        Err(format!("it ended with {:?}, not with a clear error\n{}", self.code, self.text))
    }
}

fn words(error: std::io::Error) -> String {
    error.to_string()
}

impl Running {
    /// Starts a command with a plan of what goes wrong, perhaps an empty one.
    pub(crate) fn begin(mut command: Command, plan: &str) -> Result<Self, String> {
        let log = tempfile::tempfile().map_err(words)?;
        if !plan.is_empty() {
            command.env("GRISTMILL_FAULTS", plan);
        }
        command.stdout(log.try_clone().map_err(words)?).stderr(log.try_clone().map_err(words)?);
        Ok(Self { child: command.spawn().map_err(words)?, log, begin: Instant::now() })
    }

    /// Kills it once it has run for so long.
    pub(crate) fn kill_after(&mut self, moment: Duration) -> Result<(), String> {
        while self.begin.elapsed() < moment && self.child.try_wait().map_err(words)?.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // It may have ended just now.
        let _ended = self.child.kill();
        Ok(())
    }

    /// Waits until a plan has stopped it; false where it has ended without.
    pub(crate) fn until_stopped(&mut self) -> Result<bool, String> {
        let stat = format!("/proc/{}/stat", self.child.id());
        while self.begin.elapsed() < LONGEST && self.child.try_wait().map_err(words)?.is_none() {
            let state = std::fs::read_to_string(&stat).unwrap_or_default();
            // `pid (name) state …`
            if state.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(false)
    }

    /// Lets a stopped process go on.
    pub(crate) fn go_on(&self) -> Result<(), String> {
        kill_process(Pid::from_child(&self.child), Signal::CONT).map_err(|error| error.to_string())
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Result<Ran, String> {
        let code = wait(&mut self.child, self.begin)?;
        let mut text = String::new();
        self.log.rewind().map_err(words)?;
        self.log.read_to_string(&mut text).map_err(words)?;
        if code == Some(HANGS) {
            return Err(format!("it hangs\n{text}"));
        }
        Ok(Ran { code, text })
    }
}

/// Runs the binary to its end, with a plan that may be empty.
pub(crate) fn run(folder: &Folder, words: &[&str], plan: &str) -> Result<Ran, String> {
    Running::begin(folder.command(words), plan)?.end()
}
