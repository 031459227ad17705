//! Fault campaigns: the real binary, real servers, something going wrong in the middle, and every row counted.
//!
//! The ordinary test command runs a few seeds. `cargo xtask faults extract|load --runs N [--seed S]` runs as many as are
//! wanted (it sets `GRISTMILL_FAULTS_RUNS` and `GRISTMILL_FAULTS_SEED`) and shows the table. With `GRISTMILL_FAULTS_ONLY` a
//! campaign of loads is about those targets whose name has it in it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking; a campaign shows what it has found"
)]

mod campaign;
mod chance;
mod driver;
mod fault;
mod load;
mod replay;
mod shape;
#[path = "../e2e/support.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod support;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn no_row_of_an_extract_is_lost_or_doubled_whatever_happens_to_server_and_process() {
    let runs = number("GRISTMILL_FAULTS_RUNS").unwrap_or(5);
    let seed = number("GRISTMILL_FAULTS_SEED").unwrap_or(1);
    let outcome = campaign::extract(runs, seed);
    eprintln!("{outcome}");
    assert_eq!(outcome.wrong(), 0, "{outcome}");
    assert!(outcome.struck() > 0, "no fault struck a run that was in the middle\n{outcome}");
}

#[test]
fn no_row_of_a_load_is_lost_or_doubled_wherever_it_is_killed() {
    let runs = number("GRISTMILL_FAULTS_RUNS").unwrap_or(load::cells() * load::ORDINARY);
    let seed = number("GRISTMILL_FAULTS_SEED").unwrap_or(1);
    let found = load::campaign(runs, seed);
    eprintln!("{}\n\n{}", found.points, found.cells);
    assert_eq!(found.cells.wrong(), 0, "{}", found.cells);
    assert!(found.cells.kills() > 0, "no load was killed in the middle\n{}", found.cells);
}
