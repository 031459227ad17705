//! Servers that are stopped and alive: their sockets stay open, and nobody answers.

use std::process::Command;

/// Processes that a signal has stopped; they go on when it is dropped.
#[derive(Debug)]
pub struct Suspended {
    processes: Vec<String>,
}

impl Suspended {
    /// Stops a process and all that it has started.
    ///
    /// # Errors
    /// The words of `ps` or `kill`.
    pub(crate) fn of(process: &str) -> Result<Self, String> {
        let mut suspended = Self { processes: Vec::new() };
        let mut next = vec![process.to_owned()];
        // Who is stopped starts nobody any more, so that nobody is missed.
        while !next.is_empty() {
            signal("-STOP", &next)?;
            let children = next.iter().map(|process| children(process)).collect::<Result<Vec<_>, _>>()?;
            suspended.processes.append(&mut next);
            next = children.concat();
        }
        Ok(suspended)
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        // One that is gone needs no signal.
        let _ = signal("-CONT", &self.processes);
    }
}

/// The processes that a process has started.
///
/// # Errors
/// The words of `ps`.
pub(crate) fn children(process: &str) -> Result<Vec<String>, String> {
    let all = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().map_err(|error| format!("ps: {error}"))?;
    let all = String::from_utf8_lossy(&all.stdout).into_owned();
    let pairs = all.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
    Ok(pairs.filter(|(_, parent)| parent.trim() == process).map(|(child, _)| child.to_owned()).collect())
}

fn signal(name: &str, processes: &[String]) -> Result<(), String> {
    let sent = Command::new("kill").arg(name).args(processes).output().map_err(|error| format!("kill: {error}"))?;
    if sent.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&sent.stderr).into_owned()) }
}
