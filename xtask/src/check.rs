//! `cargo xtask check`: what must hold for the repository as a whole.

use crate::Generated;
use regex::Regex;
use std::path::Path;
use std::process::Command;

/// Who may import whom (see the picture in ARCHITECTURE.md); nothing else.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("gristmill-model", &[]),
    ("gristmill-connect", &["gristmill-model"]),
    ("gristmill-engine", &["gristmill-model", "gristmill-connect"]),
    ("gristmill-orchestrator", &["gristmill-model"]),
    ("gristmill", &["gristmill-model", "gristmill-connect", "gristmill-engine", "gristmill-orchestrator"]),
    ("gristmill-testkit", &[]),
    ("xtask", &["gristmill"]),
];

/// Crates that only tests may use.
const ONLY_FOR_TESTS: &[&str] = &["gristmill-testkit"];

/// What a crate must not have below it, and why.
const KEPT_OUT: &[(&str, &[&str], &str)] = &[
    (
        "gristmill-model",
        &["arrow", "datafusion", "=tokio", "object_store", "sqlx"],
        "the model is plain data without I/O",
    ),
    ("gristmill-connect", &["datafusion"], "a connector reads and writes, it never computes"),
    ("gristmill-orchestrator", &["arrow", "datafusion", "parquet"], "a row never reaches the orchestrator"),
];

/// Every check.
pub(crate) fn all(root: &Path, generated: &[Generated]) -> Result<(), Vec<String>> {
    let mut complaints = up_to_date(root, generated);
    match packages(root) {
        Ok(packages) => complaints.extend(direction(&packages)),
        Err(complaint) => complaints.push(complaint),
    }
    match machine_paths(root) {
        Ok(found) => complaints.extend(found),
        Err(complaint) => complaints.push(complaint),
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

fn up_to_date(root: &Path, generated: &[Generated]) -> Vec<String> {
    generated
        .iter()
        .filter(|file| std::fs::read_to_string(root.join(file.path)).ok().as_deref() != Some(file.text.as_str()))
        .map(|file| format!("{} is not up to date; run `cargo xtask write`", file.path))
        .collect()
}

/// A crate of the workspace and what it depends on: name, and whether only its tests do.
#[derive(Debug)]
struct Package {
    name: String,
    dependencies: Vec<(String, bool)>,
}

fn packages(root: &Path) -> Result<Vec<Package>, String> {
    let text =
        output(Command::new("cargo").args(["metadata", "--no-deps", "--format-version", "1", "--offline"]), root)?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("cannot read cargo's metadata: {error}"))?;
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    Ok(metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|package| Package {
            name: name(package),
            dependencies: package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|dependency| (name(dependency), dependency["kind"] == "dev"))
                .collect(),
        })
        .collect())
}

fn direction(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == package.name) else {
            complaints.push(format!(
                "the crate `{}` has no place in the picture; add it to xtask/src/check.rs",
                package.name
            ));
            continue;
        };
        for (dependency, for_tests) in &package.dependencies {
            let ours = MAY_IMPORT.iter().any(|(name, _)| name == dependency);
            let test_crate = ONLY_FOR_TESTS.contains(&dependency.as_str());
            if test_crate && !for_tests {
                complaints.push(format!("`{}` imports `{dependency}`, which is for tests only", package.name));
            } else if ours && !test_crate && !allowed.contains(&dependency.as_str()) {
                complaints.push(format!("`{}` must not import `{dependency}`: it is not below it", package.name));
            }
            let kept_out = KEPT_OUT
                .iter()
                .find(|(name, out, _)| *name == package.name && out.iter().any(|out| is_of(dependency, out)));
            if let (Some((_, _, why)), false) = (kept_out, for_tests) {
                complaints.push(format!("`{}` must not import `{dependency}`: {why}", package.name));
            }
        }
    }
    complaints
}

/// Whether a crate is `family` or a part of it: `arrow-array` is of `arrow`. `=tokio` is that crate alone: the model has
/// the cancellation token of `tokio-util`, which does no I/O.
fn is_of(name: &str, family: &str) -> bool {
    if let Some(alone) = family.strip_prefix('=') {
        return name == alone;
    }
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

/// Tracked files that name a path of somebody's machine.
fn machine_paths(root: &Path) -> Result<Vec<String>, String> {
    // Put together at run time, so that this file does not find itself.
    let folders = ["root", "home", "Users", "work", "farm"].join("|");
    let pattern =
        Regex::new(&format!(r"(^|[^A-Za-z0-9._~$}}-])/({folders})/[A-Za-z.]")).map_err(|error| error.to_string())?;
    let files = output(Command::new("git").args(["ls-files", "-z"]), root)?;
    let mut complaints = Vec::new();
    for file in files.split('\0').filter(|file| !file.is_empty()) {
        // What is not text cannot be read by a person either.
        let Ok(text) = std::fs::read_to_string(root.join(file)) else { continue };
        for (at, line) in text.lines().enumerate().filter(|(_, line)| pattern.is_match(line)) {
            complaints.push(format!("{file}:{}: names a path of a machine: {}", at + 1, line.trim()));
        }
    }
    Ok(complaints)
}

fn output(command: &mut Command, root: &Path) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.current_dir(root).output().map_err(|error| format!("cannot run {shown}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{shown} did not answer with text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, bool)]) -> Package {
        let dependencies = dependencies.iter().map(|(name, dev)| ((*name).to_owned(), *dev)).collect();
        Package { name: name.to_owned(), dependencies }
    }

    #[test]
    fn a_crate_may_import_only_what_is_below_it() {
        let fine =
            package("gristmill-engine", &[("gristmill-connect", false), ("gristmill-testkit", true), ("arrow", false)]);
        assert!(direction(&[fine]).is_empty());
        let upwards = package("gristmill-connect", &[("gristmill-engine", false)]);
        assert_eq!(direction(&[upwards]).len(), 1);
        let rows = package("gristmill-orchestrator", &[("arrow", false)]);
        assert!(direction(&[rows])[0].contains("a row never reaches"), "the reason is said");
        let parts = package("gristmill-orchestrator", &[("arrow-array", false), ("arrowhead", false)]);
        assert_eq!(direction(&[parts]).len(), 1, "parts of what is kept out are kept out too");
        let sideways = package("gristmill-orchestrator", &[("gristmill-connect", false)]);
        assert_eq!(direction(&[sideways]).len(), 1);
        let kit = package("gristmill-model", &[("gristmill-testkit", false)]);
        assert!(direction(&[kit])[0].contains("for tests only"));
        let unknown = package("gristmill-new", &[]);
        assert!(direction(&[unknown])[0].contains("no place in the picture"));
    }
}
