//! Plans of what goes wrong, for tests: only in builds with debug assertions, and only where the environment says so.
//!
//! `GRISTMILL_FAULTS="after log entry:2=kill; before publish=delay 50"`: rules, divided by `;`. A rule is the name of a
//! point ([`Point`]), or `any`; perhaps which of its passes is meant (without that: each); and what happens there:
//!
//! | word | what happens |
//! |---|---|
//! | `kill` | the process gets a SIGKILL, from itself |
//! | `tear` | half of the bytes that are about to be written are, then as `kill`; where none are written, as `kill` |
//! | `stop` | it gets a SIGSTOP, and goes on where it was when somebody sends SIGCONT |
//! | `fail` | an error that trying again does not help |
//! | `delay N` | nothing for so many milliseconds |
//!
//! `GRISTMILL_FAULTS_TRACE=FILE` has each point that is passed added to a file, a line each.

use gristmill_model::fault::{self, Plan, Point};
use gristmill_model::{Error, ErrorKind, Result};
use rustix::process::{Signal, getpid, kill_process};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Lets the plan of the environment hold, if there is one.
///
/// # Errors
/// A plan that is none.
pub(crate) fn install() -> Result<()> {
    let (rules, trace) = (std::env::var("GRISTMILL_FAULTS"), std::env::var_os("GRISTMILL_FAULTS_TRACE"));
    if rules.is_err() && trace.is_none() {
        return Ok(());
    }
    let rules = understand(&rules.unwrap_or_default())?;
    let trace = match trace {
        Some(path) => {
            let file = File::options().create(true).append(true).open(&path);
            Some(file.map_err(|error| Error::io(&error, format!("`{}`", path.display())))?)
        }
        None => None,
    };
    fault::install(Box::new(Planned { rules, trace, passed: Mutex::default() }));
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Tear,
    Stop,
    Fail,
    Delay(u64),
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    /// None means any.
    point: Option<Point>,
    /// Which pass, from 1; 0 means each.
    pass: u64,
    action: Action,
}

struct Planned {
    rules: Vec<Rule>,
    trace: Option<File>,
    passed: Mutex<BTreeMap<Option<Point>, u64>>,
}

impl Planned {
    /// What is to happen at this pass.
    fn pass(&self, point: Point) -> Option<Action> {
        if let Some(mut trace) = self.trace.as_ref() {
            // One write a line: several threads may pass points at once.
            drop(trace.write_all(format!("{}\n", point.name()).as_bytes()));
        }
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = |key| {
            let count = passed.entry(key).or_insert(0);
            *count += 1;
            *count
        };
        let (this, any) = (count(Some(point)), count(None));
        let is_meant = |rule: &&Rule| {
            let pass = if rule.point.is_none() { any } else { this };
            rule.point.is_none_or(|meant| meant == point) && (rule.pass == 0 || rule.pass == pass)
        };
        self.rules.iter().find(is_meant).map(|rule| rule.action)
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process(getpid(), signal) {
            tracing::error!(%error, "a fault that was planned cannot be done");
        }
    }

    /// Does what can be done without knowing what the point is for; true where bytes are to be torn.
    fn act(&self, point: Point) -> Result<bool> {
        match self.pass(point) {
            None => {}
            Some(Action::Kill) => self.kill(),
            Some(Action::Tear) => return Ok(true),
            Some(Action::Stop) => self.signal(Signal::STOP),
            Some(Action::Fail) => {
                let message = format!("made to fail {}", point.name());
                return Err(
                    Error::new(ErrorKind::Storage, message).hint("take `GRISTMILL_FAULTS` out of the environment")
                );
            }
            Some(Action::Delay(millis)) => std::thread::sleep(Duration::from_millis(millis)),
        }
        Ok(false)
    }
}

impl Plan for Planned {
    fn at(&self, point: Point) -> Result<()> {
        if self.act(point)? {
            self.kill();
        }
        Ok(())
    }

    fn tears(&self, point: Point) -> Result<bool> {
        self.act(point)
    }

    fn kill(&self) -> ! {
        self.signal(Signal::KILL);
        // The signal may come a moment later than the call returns; nothing must happen meanwhile.
        loop {
            std::thread::park();
        }
    }
}

fn understand(text: &str) -> Result<Vec<Rule>> {
    text.split(';').map(str::trim).filter(|rule| !rule.is_empty()).map(rule).collect()
}

fn rule(text: &str) -> Result<Rule> {
    let bad = |why: &str| {
        Error::new(ErrorKind::Usage, format!("the rule `{text}` of `GRISTMILL_FAULTS` is not understood: {why}"))
            .hint("e.g. `after log entry:2=kill`")
    };
    let (point, action) = text.split_once('=').ok_or_else(|| bad("it has no `=`"))?;
    let (name, pass) = match point.split_once(':') {
        Some((name, pass)) => (name, pass.trim().parse().map_err(|_| bad("the pass is no number"))?),
        None => (point, 0),
    };
    let point = match name.trim() {
        "any" => None,
        name => {
            let known = Point::ALL.iter().find(|point| point.name() == name);
            Some(*known.ok_or_else(|| bad("there is no such point"))?)
        }
    };
    let action = match action.trim().split_once(' ').unwrap_or((action.trim(), "")) {
        ("kill", "") => Action::Kill,
        ("tear", "") => Action::Tear,
        ("stop", "") => Action::Stop,
        ("fail", "") => Action::Fail,
        ("delay", millis) => Action::Delay(millis.parse().map_err(|_| bad("the delay is no number"))?),
        _ => return Err(bad("there is no such action")),
    };
    Ok(Rule { point, pass, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(text: &str) -> Planned {
        Planned { rules: understand(text).unwrap(), trace: None, passed: Mutex::default() }
    }

    #[test]
    fn a_rule_means_one_pass_of_one_point_or_all() {
        let plan = planned("after log entry:2=fail; before publish=delay 0; any:5=tear");
        assert_eq!(plan.at(Point::AfterLog), Ok(()));
        assert_eq!(plan.at(Point::AfterLog).unwrap_err().message(), "made to fail after log entry");
        assert_eq!(plan.at(Point::AfterLog), Ok(()));
        assert_eq!(plan.tears(Point::BeforePublish), Ok(false));
        assert_eq!(plan.tears(Point::AfterMark), Ok(true), "the fifth of all");
        assert_eq!(plan.tears(Point::AfterMark), Ok(false));
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_reason() {
        for (text, why) in [
            ("after log entry", "no `=`"),
            ("after log entry:x=kill", "the pass"),
            ("after lunch=kill", "no such point"),
            ("any=explode", "no such action"),
            ("any=delay long", "the delay"),
            ("any=kill now", "no such action"),
        ] {
            let error = understand(text).unwrap_err();
            assert!(error.message().contains(why), "{error:?}");
        }
        assert_eq!(understand(" ; ").unwrap(), []);
    }
}
