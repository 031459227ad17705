//! YAML with positions: text → [`Node`] → any serde type, with every mistake found at once, each with file and line.

mod decode;
mod node;

pub use decode::{decode, decode_partly};
pub use node::{Entry, Node, Value, parse};

use serde::{Deserialize, Serialize};
use std::fmt;

/// One mistake in a file: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file, relative to the project.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, hint } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        if let Some(hint) = hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Turns mistakes into one configuration error that lists them all.
#[must_use]
pub fn to_error(diagnostics: &[Diagnostic]) -> crate::Error {
    let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    crate::Error::new(crate::ErrorKind::Config, lines.join("\n"))
}
