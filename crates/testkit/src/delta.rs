//! The `deltalake` package of Python, which reads and writes Delta tables without any of our code.
//!
//! `./test` installs it below `tests/servers`, at the versions of its `requirements.txt`.

use crate::kept::installed;
use std::process::Command;

/// Runs a script of Python that may `import deltalake`; gives back what it prints.
///
/// # Panics
/// When Python or the package is not installed, or the script fails; the message says why.
#[must_use]
#[expect(clippy::panic, reason = "a test that needs the package fails aloud without it")]
pub fn python(script: &str) -> String {
    let install = "python3 -m venv tests/servers/.venv && \
                   tests/servers/.venv/bin/python -m pip install -r tests/servers/requirements.txt";
    let program = match installed(".venv/bin/python", install) {
        Ok(program) => program,
        Err(problem) => panic!("{problem}"),
    };
    match Command::new(program).args(["-c", script]).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => panic!("{}\nin\n{script}\n({install})", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("python cannot be run: {error}"),
    }
}
