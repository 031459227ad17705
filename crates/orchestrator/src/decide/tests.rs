use super::*;
use crate::dag::{StageGroup, Task};
use gristmill_model::StepName;
use proptest::prelude::*;

/// `L` a group with a load, `T` one table of many, `C` a group of checks only, `c` a command; each with what it needs.
fn plan(tasks: &[(char, &[usize])]) -> RunPlan {
    let mut planned: Vec<Task> = Vec::new();
    for (at, (kind, needs)) in tasks.iter().enumerate() {
        let name = StepName::from(format!("s{at}"));
        let wave = needs.iter().map(|&need| planned[need].wave + usize::from(planned[need].loads)).max().unwrap_or(0);
        let group = StageGroup { actions: vec![name.clone()], views: Vec::new(), shared: Vec::new() };
        planned.push(Task {
            kind: if *kind == 'c' { TaskKind::Command(name) } else { TaskKind::Stage(group) },
            needs: needs.to_vec(),
            commits_after: Vec::new(),
            wave,
            loads: matches!(*kind, 'L' | 'T'),
            alone: *kind == 'T',
        });
    }
    RunPlan { tasks: planned }
}

fn ask(plan: &RunPlan, states: &[TaskState], stop: bool) -> Vec<Action> {
    let policies = vec![Policy { retries: 1, retry_delay: 1000 }; states.len()];
    decide(&Facts { plan, policies: &policies, states, now: 5000, stop, jitter: 0.5, max_active: 9 }).actions
}

const RUNS: TaskState = TaskState::Running { phase: Phase::Work, attempt: 1, interrupted: false };
const ASKED: TaskState = TaskState::Running { phase: Phase::Work, attempt: 1, interrupted: true };
const COMMITS: TaskState = TaskState::Running { phase: Phase::Commit, attempt: 1, interrupted: false };
const STAGED: TaskState = TaskState::Staged { attempt: 1 };
const BROKE: TaskState = TaskState::Broke { phase: Phase::Work, attempt: 1, failures: 1, again: true };
const BROKE_AGAIN: TaskState = TaskState::Broke { phase: Phase::Work, attempt: 2, failures: 2, again: true };
const BROKE_COMMIT: TaskState = TaskState::Broke { phase: Phase::Commit, attempt: 1, failures: 1, again: true };
const HOPELESS: TaskState = TaskState::Broke { phase: Phase::Work, attempt: 1, failures: 1, again: false };
const SLEEPS: TaskState = TaskState::Sleeping { phase: Phase::Work, attempt: 1, failures: 1, until: 9000 };
const AWAKE: TaskState = TaskState::Sleeping { phase: Phase::Work, attempt: 1, failures: 1, until: 5000 };
use TaskState::{Aborting, Canceled, Done, Failed, Interrupted, Skipped, UpstreamFailed, Waiting};

fn start(task: usize, attempt: u32) -> Action {
    Action::Start { task, attempt, failures: attempt - 1 }
}
fn commit(task: usize) -> Action {
    Action::Commit { task, attempt: 1, failures: 0 }
}
fn abort(task: usize, failed: bool) -> Action {
    Action::Abort { task, failed }
}

#[test]
fn each_situation_has_its_next_actions() {
    let two = plan(&[('L', &[]), ('L', &[])]);
    let checked = plan(&[('L', &[]), ('C', &[])]);
    let gated = plan(&[('c', &[]), ('L', &[0]), ('c', &[])]);
    // 0 → load 1 → load 2 (after 1), and load 3 beside them.
    let waves = plan(&[('c', &[]), ('L', &[0]), ('L', &[1]), ('L', &[])]);
    // Two tables of many and a load beside them; a command after the first.
    let tables = plan(&[('T', &[]), ('T', &[]), ('L', &[]), ('c', &[0])]);
    let chained = plan(&[('T', &[]), ('T', &[0])]);
    // Two loads, the second of them committed after the first.
    let mut ordered = two.clone();
    ordered.tasks[1].commits_after.push(0);
    type Case<'a> = (&'a str, &'a RunPlan, &'a [TaskState], bool, &'a [Action]);
    let cases: &[Case<'_>] = &[
        ("all begin that may", &gated, &[Waiting, Waiting, Waiting], false, &[start(0, 1), start(2, 1)]),
        ("needs must be done", &gated, &[RUNS, Waiting, Done], false, &[]),
        ("a skipped need is a done need", &gated, &[Skipped, Waiting, Done], false, &[start(1, 1)]),
        ("a staged load waits for the others", &two, &[STAGED, RUNS], false, &[]),
        ("a staged load waits for checks", &checked, &[STAGED, RUNS], false, &[]),
        ("a staged load waits for a command", &gated, &[Done, STAGED, RUNS], false, &[]),
        ("all staged: all commit", &two, &[STAGED, STAGED], false, &[commit(0), commit(1)]),
        ("both are staged side by side", &ordered, &[Waiting, Waiting], false, &[start(0, 1), start(1, 1)]),
        ("neither commits before both are audited", &ordered, &[STAGED, RUNS], false, &[]),
        ("then the first commits", &ordered, &[STAGED, STAGED], false, &[commit(0)]),
        ("the second waits for its end", &ordered, &[COMMITS, STAGED], false, &[]),
        ("and follows", &ordered, &[Done, STAGED], false, &[commit(1)]),
        (
            "a failed audit of the second throws both away",
            &ordered,
            &[STAGED, BROKE_AGAIN],
            false,
            &[abort(0, false), abort(1, true)],
        ),
        ("a failed commit of the first keeps the second back", &ordered, &[Failed, STAGED], false, &[abort(1, false)]),
        ("and it need not begin", &ordered, &[Failed, Waiting], false, &[Action::UpstreamFail { task: 1, because: 0 }]),
        ("a check that has passed lets go", &checked, &[STAGED, Done], false, &[commit(0)]),
        ("one has committed, the other follows", &two, &[Done, STAGED], false, &[commit(1)]),
        (
            "a step after a load forces the wave before it",
            &waves,
            &[Done, STAGED, Waiting, STAGED],
            false,
            &[commit(1), commit(3)],
        ),
        ("but not before all of that wave is staged", &waves, &[Done, STAGED, Waiting, RUNS], false, &[]),
        (
            "the next wave begins when its need is committed",
            &waves,
            &[Done, Done, Waiting, COMMITS],
            false,
            &[start(2, 1)],
        ),
        ("the next wave commits by itself", &waves, &[Done, Done, STAGED, Done], false, &[commit(2)]),
        (
            "a failed attempt is tried again later",
            &two,
            &[BROKE, RUNS],
            false,
            &[Action::Sleep { task: 0, phase: Phase::Work, attempt: 1, failures: 1, until: 6000 }],
        ),
        ("asleep until its time", &two, &[SLEEPS, RUNS], false, &[]),
        ("then it begins again", &two, &[AWAKE, RUNS], false, &[start(0, 2)]),
        (
            "a failed commit is tried again",
            &two,
            &[BROKE_COMMIT, Done],
            false,
            &[Action::Sleep { task: 0, phase: Phase::Commit, attempt: 1, failures: 1, until: 6000 }],
        ),
        (
            "retries used up: it fails, the staged are thrown away, the running stopped",
            &plan(&[('L', &[]), ('L', &[]), ('L', &[]), ('L', &[0]), ('C', &[])]),
            &[BROKE_AGAIN, STAGED, RUNS, Waiting, BROKE],
            false,
            &[
                abort(0, true),
                abort(1, false),
                Action::Interrupt { task: 2 },
                Action::UpstreamFail { task: 3, because: 0 },
                Action::Fail { task: 4 },
            ],
        ),
        (
            "a hopeless error is not tried again",
            &checked,
            &[Waiting, HOPELESS],
            false,
            &[Action::Cancel { task: 0 }, Action::Fail { task: 1 }],
        ),
        ("a failing run lets commands and commits end", &gated, &[Failed, COMMITS, RUNS], false, &[]),
        ("what is asked to end is asked once", &two, &[Failed, ASKED], false, &[]),
        ("what ended on request is cleaned up", &two, &[Failed, Interrupted], false, &[abort(1, false)]),
        (
            "the end of a chain is told",
            &waves,
            &[Failed, UpstreamFailed, Waiting, Done],
            false,
            &[Action::UpstreamFail { task: 2, because: 1 }],
        ),
        ("what waits for something running waits", &gated, &[RUNS, Waiting, Failed], false, &[]),
        (
            "what waits for something canceled is canceled",
            &waves,
            &[Canceled, Canceled, Waiting, Failed],
            false,
            &[Action::Cancel { task: 2 }],
        ),
        (
            "a stop ends commands too",
            &gated,
            &[RUNS, Waiting, RUNS],
            true,
            &[Action::Interrupt { task: 0 }, Action::Interrupt { task: 2 }],
        ),
        ("a stop throws the staged away", &two, &[STAGED, STAGED], true, &[abort(0, false), abort(1, false)]),
        ("a stop lets commits end", &two, &[COMMITS, Done], true, &[]),
        ("cleaning up is waited for", &two, &[Aborting { failed: true }, Canceled], false, &[]),
        ("one table of many waits for no other", &tables, &[STAGED, RUNS, RUNS, Waiting], false, &[commit(0)]),
        ("but everything else waits for all of them", &tables, &[Done, RUNS, STAGED, Waiting], false, &[start(3, 1)]),
        (
            "a table that fails stops no other",
            &tables,
            &[HOPELESS, STAGED, RUNS, Waiting],
            false,
            &[abort(0, true), commit(1)],
        ),
        ("nor what is at work beside it", &tables, &[Failed, RUNS, STAGED, Waiting], false, &[]),
        (
            "what is not a table is given up when the tables are over",
            &tables,
            &[Failed, Done, STAGED, Waiting],
            false,
            &[abort(2, false), Action::UpstreamFail { task: 3, because: 0 }],
        ),
        (
            "tables end with a run that fails by something else",
            &tables,
            &[STAGED, RUNS, HOPELESS, Waiting],
            false,
            &[abort(0, false), Action::Interrupt { task: 1 }, abort(2, true)],
        ),
        (
            "tables that wait for a failed one are not waited for",
            &chained,
            &[Failed, Waiting],
            false,
            &[Action::UpstreamFail { task: 1, because: 0 }],
        ),
    ];
    for (what, plan, states, stop, wanted) in cases {
        assert_eq!(ask(plan, states, *stop), *wanted, "{what}");
    }
}

#[test]
fn no_more_than_max_active_work_at_once() {
    let plan = plan(&[('L', &[]), ('L', &[]), ('L', &[])]);
    let policies = [Policy { retries: 0, retry_delay: 0 }; 3];
    let facts = Facts {
        plan: &plan,
        policies: &policies,
        states: &[RUNS, Waiting, Waiting],
        now: 0,
        stop: false,
        jitter: 0.0,
        max_active: 2,
    };
    assert_eq!(decide(&facts).actions, [start(1, 1)]);
}

#[test]
fn waits_double_and_are_bounded_and_spread() {
    assert_eq!(backoff(1000, 1, 0.5), 1000);
    assert_eq!(backoff(1000, 1, 0.0), 900);
    assert_eq!(backoff(1000, 4, 0.5), 8000);
    assert_eq!(backoff(300_000, 40, 0.5), 3_600_000);
    assert_eq!(backoff(u64::MAX / 2, 1000, 0.999), backoff(u64::MAX / 2, 1000, 0.999));
    assert_eq!(backoff(0, 9, 0.9), 0);
}

#[test]
fn what_cannot_change_is_not_worth_retrying() {
    assert!(!worth_retrying(&Error::new(ErrorKind::Query, "x")));
    assert!(worth_retrying(&Error::new(ErrorKind::Denied, "x").retryable(true)));
    assert!(!worth_retrying(&Error::new(ErrorKind::Data, "x")));
    assert!(!worth_retrying(&Error::internal("x")));
    assert!(worth_retrying(&Error::new(ErrorKind::Check, "x")));
}

/// Plays a run: whatever is begun ends in one of the ways the script says.
fn play(plan: &RunPlan, retries: u32, script: &[u8], stop_at: Option<usize>) -> (Vec<TaskState>, Vec<Action>) {
    let count = plan.tasks.len();
    let policies = vec![Policy { retries, retry_delay: 1000 }; count];
    let mut states = vec![Waiting; count];
    let mut failures = vec![0u32; count];
    let mut history = Vec::new();
    let mut now = 0u64;
    let mut script = script.iter().cycle();
    for round in 0..10_000 {
        let stop = stop_at.is_some_and(|at| round >= at);
        let decision =
            decide(&Facts { plan, policies: &policies, states: &states, now, stop, jitter: 0.3, max_active: 2 });
        if decision.over {
            return (states, history);
        }
        for &action in &decision.actions {
            history.push(action);
            match action {
                Action::Start { task, attempt, failures: before } => {
                    failures[task] = before;
                    states[task] = TaskState::Running { phase: Phase::Work, attempt, interrupted: false };
                }
                Action::Commit { task, attempt, failures: before } => {
                    failures[task] = before;
                    states[task] = TaskState::Running { phase: Phase::Commit, attempt, interrupted: false };
                }
                Action::Sleep { task, phase, attempt, failures, until } => {
                    states[task] = TaskState::Sleeping { phase, attempt, failures, until };
                }
                Action::Interrupt { task } => {
                    if let TaskState::Running { interrupted, .. } = &mut states[task] {
                        *interrupted = true;
                    }
                }
                Action::Abort { task, failed } => states[task] = Aborting { failed },
                Action::Fail { task } => states[task] = Failed,
                Action::UpstreamFail { task, .. } => states[task] = UpstreamFailed,
                Action::Cancel { task } => states[task] = Canceled,
            }
        }
        if decision.actions.is_empty() {
            // Something must happen by itself: one running thing ends, or time passes.
            let running = states.iter().position(|state| matches!(state, TaskState::Running { .. } | Aborting { .. }));
            match running.map(|task| (task, states[task])) {
                Some((task, Aborting { failed })) => states[task] = if failed { Failed } else { Canceled },
                Some((task, TaskState::Running { interrupted: true, .. })) => states[task] = Interrupted,
                Some((task, TaskState::Running { phase, attempt, .. })) => {
                    failures[task] += 1;
                    states[task] = match (script.next(), phase) {
                        (Some(0), _) => TaskState::Broke { phase, attempt, failures: failures[task], again: true },
                        (Some(1), _) => TaskState::Broke { phase, attempt, failures: failures[task], again: false },
                        (_, Phase::Work) if plan.tasks[task].loads => TaskState::Staged { attempt },
                        _ => Done,
                    };
                }
                _ => now = decision.wake.expect("a run that is not over and does nothing waits for a time"),
            }
        }
    }
    panic!("the run never ends: {states:?}");
}

fn plans() -> impl proptest::strategy::Strategy<Value = RunPlan> {
    proptest::collection::vec((0..4usize, any::<u16>()), 1..8).prop_map(|tasks| {
        let tasks: Vec<(char, Vec<usize>)> = tasks
            .iter()
            .enumerate()
            .map(|(at, (kind, needs))| {
                (['L', 'C', 'c', 'T'][*kind], (0..at).filter(|need| needs >> need & 3 == 3).collect())
            })
            .collect();
        let borrowed: Vec<(char, &[usize])> = tasks.iter().map(|(kind, needs)| (*kind, needs.as_slice())).collect();
        let mut plan = plan(&borrowed);
        // Loads that need a load of the wave before them, at random only for their commit.
        for at in 0..plan.tasks.len() {
            let loads = |task: &Task| task.loads && !task.alone;
            if at % 2 == 0 && loads(&plan.tasks[at]) {
                let (commits_after, needs): (Vec<usize>, Vec<usize>) =
                    plan.tasks[at].needs.iter().copied().partition(|need| loads(&plan.tasks[*need]));
                plan.tasks[at].needs = needs;
                plan.tasks[at].commits_after = commits_after;
            }
        }
        for at in 0..plan.tasks.len() {
            let wave_of = |need: &usize| plan.tasks[*need].wave + usize::from(plan.tasks[*need].loads);
            let of_needs = plan.tasks[at].needs.iter().map(wave_of);
            let of_others = plan.tasks[at].commits_after.iter().map(|other| plan.tasks[*other].wave);
            plan.tasks[at].wave = of_needs.chain(of_others).max().unwrap_or(0);
        }
        plan
    })
}

proptest! {
    #[test]
    fn every_run_ends_and_nothing_is_published_before_its_wave_is_audited(
        plan in plans(),
        retries in 0..3u32,
        script in proptest::collection::vec(0..12u8, 1..30),
        stop_at in proptest::option::of(0..30usize),
    ) {
        let (states, history) = play(&plan, retries, &script, stop_at);
        prop_assert!(states.iter().all(|state| state.is_final()));
        if stop_at.is_none() && !script.contains(&0) && !script.contains(&1) {
            prop_assert!(states.iter().all(|state| *state == Done));
        }
        let at = |wanted: &dyn Fn(&Action) -> bool| history.iter().position(wanted);
        for (task, planned) in plan.tasks.iter().enumerate() {
            let Some(committed) = at(&|action| matches!(action, Action::Commit { task: t, .. } if *t == task)) else {
                // What was staged and not committed has been thrown away.
                let began = at(&|action| matches!(action, Action::Start { task: t, .. } if *t == task));
                if planned.loads && began.is_some() {
                    let aborted = at(&|action| matches!(action, Action::Abort { task: t, .. } if *t == task));
                    prop_assert!(aborted.is_some());
                }
                continue;
            };
            let before = |other: &Task| other.wave <= planned.wave && !planned.alone;
            for (other, others) in plan.tasks.iter().enumerate().filter(|(_, other)| before(other)) {
                let began = at(&|action| matches!(action, Action::Start { task: t, .. } if *t == other));
                prop_assert!(began.is_some_and(|began| began < committed), "{} began late", other);
                let last = history.iter().rposition(|action| matches!(action, Action::Start { task: t, .. } if *t == other));
                prop_assert!(last < Some(committed), "{} began again, wave {}", other, others.wave);
            }
            for other in &planned.commits_after {
                let last = history.iter().rposition(|action| matches!(action, Action::Commit { task: t, .. } if t == other));
                prop_assert!(last.is_some_and(|last| last < committed), "{} is committed before {}", task, other);
            }
        }
    }
    #[test]
    fn a_table_of_many_ends_as_if_it_were_the_only_one(
        count in 1..6usize,
        retries in 0..3u32,
        script in proptest::collection::vec(0..6u8, 1..30),
    ) {
        let plan = plan(&vec![('T', &[][..]); count]);
        let (states, history) = play(&plan, retries, &script, None);
        for (task, state) in states.iter().enumerate() {
            prop_assert!(matches!(state, Done | Failed), "{state:?}");
            let commits = history.iter().any(|action| matches!(action, Action::Commit { task: t, .. } if *t == task));
            prop_assert!(*state == Failed || commits);
        }
    }
}
