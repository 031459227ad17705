//! What `cargo xtask check` looks for holds: generated files are up to date, crates depend on those below them only, no
//! tracked file names a machine's path.
//!
//! It is a test so that it shares the build of all tests: as a command of its own, cargo resolves other features for the
//! large dependencies and builds them once more.

use std::process::Command;

#[test]
fn generated_files_dependencies_and_paths_are_in_order() {
    let done = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("check").output().unwrap();
    assert!(
        done.status.success(),
        "{}\n`cargo xtask write` makes generated files anew",
        String::from_utf8_lossy(&done.stderr)
    );
}
