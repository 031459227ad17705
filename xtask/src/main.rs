//! Chores of the repository: `cargo xtask write` writes the generated files, `cargo xtask check` looks whether they are
//! up to date, whether crates only depend on those below them, and whether a tracked file names a machine's path.

mod check;
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
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("write") => write(&root),
        Some("check") => check::all(&root, &generated()),
        _ => Err(vec!["usage: cargo xtask write|check".to_owned()]),
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
