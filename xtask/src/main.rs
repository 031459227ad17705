//! Chores of the repository: `cargo xtask write` writes the generated files, `cargo xtask check` looks whether they are
//! up to date, whether crates only depend on those below them, and whether a tracked file names a machine's path.
//! `cargo xtask faults extract --runs N [--seed S]` runs a fault campaign.

mod check;
mod faults;
mod reference;
mod schema;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A file that is made from the code.
struct Generated {
    /// Where it is, relative to the repository.
    path: &'static str,
    /// What must be in it.
    text: String,
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("write") => write(&root),
        Some("check") => check::all(&root, &generated()),
        Some("faults") => faults::run(&root, &arguments[1..]),
        _ => Err(vec![format!("usage: cargo xtask write|check, or {}", faults::USAGE)]),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaints) => {
            complaints.iter().for_each(|complaint| say(complaint));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a developer's tool talks to the developer")]
fn say(line: &str) {
    eprintln!("{line}");
}

fn generated() -> Vec<Generated> {
    vec![
        Generated { path: "docs/reference/gristmill.schema.json", text: schema::project() },
        Generated { path: "docs/reference/pipeline.schema.json", text: schema::pipeline() },
        Generated { path: "docs/reference/cli.md", text: reference::command_line() },
        Generated { path: "docs/reference/connectors.md", text: reference::connectors() },
        Generated { path: "docs/reference/generators.md", text: reference::generators() },
    ]
}

fn write(root: &Path) -> Result<(), Vec<String>> {
    let mut complaints = Vec::new();
    for file in generated() {
        let path: PathBuf = root.join(file.path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = made.and_then(|()| std::fs::write(&path, &file.text)) {
            complaints.push(format!("cannot write {}: {error}", file.path));
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}
