//! What to do next: a pure function of where the tasks of a run stand. No clock, no randomness, no I/O.
//!
//! The rules:
//! - A task begins when everything it needs is done (a load: committed).
//! - Nothing is committed before every task of its wave, and of the waves before, has been staged and audited, commands
//!   and waits done. Wave 0 is everything that need not see what a load has published, so usually the whole run.
//! - A load that comes *after* a load whose rows it cannot see is staged beside it and only committed after it. Everything
//!   else after a load (a view, a command, a check, a load that reads where the first one wrote) needs that load
//!   committed: the commit of wave 0 is then forced before the step begins, and the step belongs to wave 1. What wave 0
//!   has published stays when wave 1 fails.
//! - An attempt that fails is tried again after `retry_delay`, doubled for each further attempt, with jitter; a commit
//!   too, since committing twice is a no-op.
//! - A run fails as soon as a task has failed for good: nothing new begins and nothing is committed any more, jobs that
//!   stage are stopped (nothing could become of their rows), staged loads are thrown away. A command that runs already
//!   goes on to its end, and so does a commit: stopping in the middle helps nobody.
//! - One table of many ([`Task::alone`](crate::dag::Task)) is committed as soon as it is staged and audited itself. Where it
//!   fails for good, the other tables go on, and so does what they wait for; everything else waits for all tables, so it is
//!   not committed, and ends as in any failed run once the tables have.
//! - When a run is to stop (Ctrl-C), commands are stopped too.

use crate::dag::{RunPlan, TaskKind};
use gristmill_model::{Error, ErrorKind};

/// What an attempt is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Staging and auditing, running a command, waiting.
    Work,
    /// Publishing what was staged.
    Commit,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Not begun.
    Waiting,
    /// Being worked on.
    Running {
        /// At what.
        phase: Phase,
        /// Which attempt, from 1; commits count on.
        attempt: u32,
        /// It has been asked to end.
        interrupted: bool,
    },
    /// An attempt has failed, and nothing has been decided about it yet.
    Broke {
        /// At what.
        phase: Phase,
        /// Which attempt, from 1.
        attempt: u32,
        /// Attempts at this phase that have failed, this one included.
        failures: u32,
        /// Whether another attempt could end differently.
        again: bool,
    },
    /// It waits for its next attempt.
    Sleeping {
        /// At what.
        phase: Phase,
        /// The attempt that failed.
        attempt: u32,
        /// Attempts at this phase that have failed.
        failures: u32,
        /// When to try again, in milliseconds of the clock `now` is read from.
        until: u64,
    },
    /// It ended because it was asked to.
    Interrupted,
    /// Its loads are staged and audited.
    Staged {
        /// The attempt that staged them.
        attempt: u32,
    },
    /// What it staged is being thrown away.
    Aborting {
        /// Because it failed itself, not because the run did.
        failed: bool,
    },
    /// Done; its loads are committed.
    Done,
    /// Not done on purpose.
    Skipped,
    /// Failed for good.
    Failed,
    /// Not begun, because a task it needs failed.
    UpstreamFailed,
    /// Not done, or done in vain, because the run failed or was stopped.
    Canceled,
}

impl TaskState {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Skipped | Self::Failed | Self::UpstreamFailed | Self::Canceled)
    }
}

/// How often a task is tried, and how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Attempts after the first.
    pub retries: u32,
    /// Milliseconds before the second attempt.
    pub retry_delay: u64,
}

/// What a decision is made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The tasks.
    pub plan: &'a RunPlan,
    /// Per task.
    pub policies: &'a [Policy],
    /// Per task.
    pub states: &'a [TaskState],
    /// Milliseconds of any clock that only goes forward.
    pub now: u64,
    /// The run is to stop.
    pub stop: bool,
    /// A number in `[0, 1)`: spreads retries, so that a hundred runs do not come back at the same moment.
    pub jitter: f64,
    /// At most so many tasks work at once (commits are not counted).
    pub max_active: usize,
}

/// What to do with one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Begin an attempt at its work.
    Start {
        /// The task.
        task: usize,
        /// Which attempt, from 1.
        attempt: u32,
        /// Failed attempts at it so far.
        failures: u32,
    },
    /// Begin an attempt at committing what it staged.
    Commit {
        /// The task.
        task: usize,
        /// Which attempt, from 1.
        attempt: u32,
        /// Failed attempts at it so far.
        failures: u32,
    },
    /// Try again later.
    Sleep {
        /// The task.
        task: usize,
        /// At what.
        phase: Phase,
        /// The attempt that failed.
        attempt: u32,
        /// Attempts at this phase that have failed.
        failures: u32,
        /// When to try again.
        until: u64,
    },
    /// Ask what runs to end.
    Interrupt {
        /// The task.
        task: usize,
    },
    /// Throw away what it staged; afterwards it has failed or is canceled.
    Abort {
        /// The task.
        task: usize,
        /// It failed itself.
        failed: bool,
    },
    /// It has failed for good.
    Fail {
        /// The task.
        task: usize,
    },
    /// It cannot begin, because a task it needs failed.
    UpstreamFail {
        /// The task.
        task: usize,
        /// The task that failed.
        because: usize,
    },
    /// It is not going to begin.
    Cancel {
        /// The task.
        task: usize,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Actions, in this order; at most one per task.
    pub actions: Vec<Action>,
    /// Look again at this time, even if nothing happens.
    pub wake: Option<u64>,
    /// Every task has come to its end.
    pub over: bool,
}

/// Decides what to do next.
#[must_use]
pub fn decide(facts: &Facts<'_>) -> Decision {
    let tasks = 0..facts.states.len();
    let is_alone = |task: &usize| facts.plan.tasks[*task].alone;
    let failing = facts.stop || tasks.clone().any(|task| !is_alone(&task) && fails(facts, task));
    let some_table_fails = tasks.clone().any(|task| is_alone(&task) && fails(facts, task));
    let tables_are_over = || tasks.clone().filter(is_alone).all(|task| facts.states[task].is_final());
    let actions = if failing || (some_table_fails && tables_are_over()) {
        wind_down(facts)
    } else {
        let actions = go_on(facts);
        // Tables that wait for what waits for a failed one.
        let is_stuck = actions.is_empty() && some_table_fails && !facts.states.iter().any(|state| is_under_way(*state));
        if is_stuck { wind_down(facts) } else { actions }
    };
    let sleeping =
        facts.states.iter().enumerate().filter(|(task, _)| !actions.iter().any(|action| task_of(*action) == *task));
    let decided = actions.iter().filter_map(|action| match action {
        Action::Sleep { until, .. } => Some(*until),
        _ => None,
    });
    let wake = sleeping
        .filter_map(|(_, state)| match state {
            TaskState::Sleeping { until, .. } if *until > facts.now => Some(*until),
            _ => None,
        })
        .chain(decided)
        .min();
    let over = actions.is_empty() && facts.states.iter().all(|state| state.is_final());
    Decision { actions, wake, over }
}

/// Whether an error may go away by itself. What a file says, what a query means and who may do what does not change
/// between two attempts, nor does a bug; everything else may: a file comes late, a check passes when all rows have
/// arrived.
#[must_use]
pub fn worth_retrying(error: &Error) -> bool {
    error.is_retryable()
        || !matches!(
            error.kind(),
            ErrorKind::Config
                | ErrorKind::Usage
                | ErrorKind::Schema
                | ErrorKind::Query
                | ErrorKind::Data
                | ErrorKind::Internal
                | ErrorKind::Denied
                | ErrorKind::Canceled
        )
}

/// Milliseconds to wait after so many failures: the delay, doubled for each further one, at most an hour (or the delay
/// itself, where that is longer), ten per cent more or less by jitter.
#[must_use]
pub fn backoff(retry_delay: u64, failures: u32, jitter: f64) -> u64 {
    const HOUR: u64 = 3_600_000;
    let doubled = retry_delay.saturating_mul(1u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX));
    let bounded = doubled.min(HOUR.max(retry_delay));
    let spread = bounded / 5;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a fraction of a wait, and the fraction lies in [0, 1)"
    )]
    let offset = (spread as f64 * jitter.clamp(0.0, 1.0)) as u64;
    bounded - bounded / 10 + offset
}

fn task_of(action: Action) -> usize {
    match action {
        Action::Start { task, .. }
        | Action::Commit { task, .. }
        | Action::Sleep { task, .. }
        | Action::Interrupt { task }
        | Action::Abort { task, .. }
        | Action::Fail { task }
        | Action::UpstreamFail { task, .. }
        | Action::Cancel { task } => task,
    }
}

/// Whether a task has failed for good, or is about to.
fn fails(facts: &Facts<'_>, task: usize) -> bool {
    match facts.states[task] {
        TaskState::Failed
        | TaskState::UpstreamFailed
        | TaskState::Canceled
        | TaskState::Interrupted
        | TaskState::Aborting { .. } => true,
        TaskState::Broke { failures, again, .. } => !again || failures > facts.policies[task].retries,
        _ => false,
    }
}

/// Whether something will come of a task by itself.
fn is_under_way(state: TaskState) -> bool {
    matches!(state, TaskState::Running { .. } | TaskState::Sleeping { .. } | TaskState::Aborting { .. })
}

fn go_on(facts: &Facts<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    let working = |state: &&TaskState| matches!(state, TaskState::Running { phase: Phase::Work, .. });
    let mut room = facts.max_active.max(1).saturating_sub(facts.states.iter().filter(working).count());
    for (task, state) in facts.states.iter().enumerate() {
        let planned = &facts.plan.tasks[task];
        match *state {
            // One table of many: the others do not.
            TaskState::Broke { .. } if fails(facts, task) => actions.push(match planned.loads {
                true => Action::Abort { task, failed: true },
                false => Action::Fail { task },
            }),
            TaskState::Broke { phase, attempt, failures, .. } => {
                let wait = backoff(facts.policies[task].retry_delay, failures, facts.jitter);
                actions.push(Action::Sleep { task, phase, attempt, failures, until: facts.now.saturating_add(wait) });
            }
            TaskState::Sleeping { phase: Phase::Work, attempt, failures, until } if until <= facts.now && room > 0 => {
                room -= 1;
                actions.push(Action::Start { task, attempt: attempt + 1, failures });
            }
            TaskState::Sleeping { phase: Phase::Commit, attempt, failures, until } if until <= facts.now => {
                actions.push(Action::Commit { task, attempt: attempt + 1, failures });
            }
            TaskState::Waiting if room > 0 && ready(facts, task) => {
                room -= 1;
                actions.push(Action::Start { task, attempt: 1, failures: 0 });
            }
            TaskState::Staged { attempt }
                if planned.commits_after.iter().all(|other| is_done(facts, *other))
                    && (planned.alone || audited(facts, planned.wave)) =>
            {
                actions.push(Action::Commit { task, attempt, failures: 0 });
            }
            _ => {}
        }
    }
    actions
}

fn ready(facts: &Facts<'_>, task: usize) -> bool {
    facts.plan.tasks[task].needs.iter().all(|need| is_done(facts, *need))
}

fn is_done(facts: &Facts<'_>, task: usize) -> bool {
    matches!(facts.states[task], TaskState::Done | TaskState::Skipped)
}

/// Whether every task up to a wave has been staged and audited.
fn audited(facts: &Facts<'_>, wave: usize) -> bool {
    facts.plan.tasks.iter().zip(facts.states).filter(|(task, _)| task.wave <= wave).all(|(_, state)| {
        matches!(
            state,
            TaskState::Staged { .. }
                | TaskState::Done
                | TaskState::Skipped
                | TaskState::Running { phase: Phase::Commit, .. }
                | TaskState::Broke { phase: Phase::Commit, .. }
                | TaskState::Sleeping { phase: Phase::Commit, .. }
        )
    })
}

fn wind_down(facts: &Facts<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    for (task, state) in facts.states.iter().enumerate() {
        let planned = &facts.plan.tasks[task];
        let give_up = |failed: bool| match (planned.loads, failed) {
            (true, _) => Action::Abort { task, failed },
            (false, true) => Action::Fail { task },
            (false, false) => Action::Cancel { task },
        };
        match *state {
            TaskState::Running { phase: Phase::Work, interrupted: false, .. }
                if facts.stop || !matches!(planned.kind, TaskKind::Command(_)) =>
            {
                actions.push(Action::Interrupt { task });
            }
            TaskState::Broke { .. } | TaskState::Sleeping { .. } => actions.push(give_up(true)),
            TaskState::Interrupted | TaskState::Staged { .. } => actions.push(give_up(false)),
            TaskState::Waiting => {
                let failed = |need: &usize| {
                    matches!(
                        facts.states[*need],
                        TaskState::Failed | TaskState::UpstreamFailed | TaskState::Aborting { failed: true }
                    ) || fails(facts, *need) && matches!(facts.states[*need], TaskState::Broke { .. })
                };
                // A task that still runs may fail yet: what waits for it is told when it is known.
                let open = |need: &usize| !facts.states[*need].is_final();
                let mut before = planned.needs.iter().chain(&planned.commits_after);
                match before.clone().find(|need| failed(need)) {
                    Some(&because) => actions.push(Action::UpstreamFail { task, because }),
                    None if before.any(open) => {}
                    None => actions.push(Action::Cancel { task }),
                }
            }
            _ => {}
        }
    }
    actions
}

#[cfg(test)]
mod tests;
