//! `cargo xtask faults`: a campaign is a test of the command line's crate, which has the binary and a temporary server;
//! here it is only called, with as many runs as are wanted.

use std::path::Path;
use std::process::Command;

pub(crate) const USAGE: &str = "cargo xtask faults extract|load --runs N [--seed S]";

/// The campaigns, and a part of the name of the test that each one is.
const CAMPAIGNS: [(&str, &str); 2] = [("extract", "no_row_of_an_extract"), ("load", "no_row_of_a_load")];

/// Runs the campaign that the arguments name.
///
/// # Errors
/// Arguments that are none; a campaign in which a row was lost or doubled.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), Vec<String>> {
    let (test, runs, seed) = understand(arguments).ok_or_else(|| vec![format!("usage: {USAGE}")])?;
    let mut command = Command::new("cargo");
    command.current_dir(root).args([
        "test",
        "--quiet",
        "-p",
        "gristmill",
        "--test",
        "faults",
        "--",
        "--nocapture",
        test,
    ]);
    command.env("GRISTMILL_FAULTS_RUNS", runs.to_string()).env("GRISTMILL_FAULTS_SEED", seed.to_string());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(vec![format!("the campaign failed; see it again with `--seed {seed}`")]),
        Err(error) => Err(vec![format!("cannot run cargo: {error}")]),
    }
}

/// Which test, how many runs, and the seed.
fn understand(arguments: &[String]) -> Option<(&'static str, u64, u64)> {
    let (campaign, mut options) = arguments.split_first()?;
    let (_, test) = CAMPAIGNS.iter().find(|(name, _)| name == campaign)?;
    let (mut runs, mut seed) = (None, 1);
    while let [name, value, rest @ ..] = options {
        let number = value.parse().ok()?;
        match name.as_str() {
            "--runs" => runs = Some(number),
            "--seed" => seed = number,
            _ => return None,
        }
        options = rest;
    }
    let runs = runs.filter(|runs| *runs > 0)?;
    options.is_empty().then_some((*test, runs, seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_campaign_with_its_runs_and_perhaps_a_seed() {
        let of = |text: &str| understand(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of("extract --runs 50"), Some(("no_row_of_an_extract", 50, 1)));
        assert_eq!(of("load --seed 7 --runs 3"), Some(("no_row_of_a_load", 3, 7)));
        for wrong in ["", "extract", "extract --runs", "extract --runs 0", "load --runs 3 4", "lunch --runs 3"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
