//! One error type for all of Gristmill: what kind it is, what happened to which thing, and what to do about it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The result type of every fallible function of Gristmill.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of trouble an [`Error`] is. The kind decides the exit code and whether a retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// A project, pipeline or profile file says something that cannot be.
    Config,
    /// A command was called with words it does not take.
    Usage,
    /// A file, table, connection, step or run that was named does not exist.
    NotFound,
    /// Columns or types are not what the reader, the query or the target expects.
    Schema,
    /// A SQL statement cannot be planned.
    Query,
    /// Bytes or values that cannot be what they claim to be.
    Data,
    /// A data check said no.
    Check,
    /// Credentials or permissions are missing or refused.
    Denied,
    /// A server or file cannot be reached just now; trying again may help.
    Unavailable,
    /// Another run or writer got there first.
    Conflict,
    /// The machine refused: disk full, read-only file system, too many open files.
    Storage,
    /// The memory limit was reached and nothing could be spilled.
    Memory,
    /// A command step ended with a non-zero status.
    Command,
    /// A step took longer than its `timeout`.
    Timeout,
    /// Somebody asked for the work to stop.
    Canceled,
    /// A bug in Gristmill or in a library below it.
    Internal,
}

impl ErrorKind {
    /// The exit code of a command that fails with this kind: 2 could not run, 130 interrupted, 1 everything else.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Config | Self::Usage => 2,
            Self::Canceled => 130,
            _ => 1,
        }
    }
}

/// What went wrong, with which thing, and what to do.
///
/// Messages are lower-case, name the thing in backticks, and have no final full stop. The hint is something that can
/// be pasted or done. `contexts` are the places it passed on the way up, innermost first.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    contexts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(default)]
    retryable: bool,
}

impl Error {
    /// An error of `kind`; only [`ErrorKind::Unavailable`] is retryable unless [`Error::retryable`] says otherwise.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            contexts: Vec::new(),
            cause: None,
            retryable: kind == ErrorKind::Unavailable,
        }))
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds a hint where there is one.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        if hint.is_some() {
            self.0.hint = hint;
        }
        self
    }

    /// Adds the place it passed on its way up, e.g. ``step `orders` ``.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.0.contexts.push(context.into());
        self
    }

    /// Takes out contexts that mean nothing to the reader, e.g. names that were made up on the way.
    #[must_use]
    pub fn without_contexts(mut self, unwanted: impl Fn(&str) -> bool) -> Self {
        self.0.contexts.retain(|context| !unwanted(context));
        self
    }

    /// Adds the words of the library below.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// Says whether trying the same again can help.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// What kind of trouble this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What happened, without context, cause or hint.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The words of the library below, if one was asked.
    #[must_use]
    pub fn cause_text(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The places it passed on its way up, innermost first.
    #[must_use]
    pub fn contexts(&self) -> &[String] {
        &self.0.contexts
    }

    /// Whether trying the same again can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// A bug, said as such.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An operating-system error on `what` (a path in backticks, usually), classified by its code.
    pub fn io(error: &std::io::Error, what: impl fmt::Display) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, hint) = match error.kind() {
            Io::NotFound => (ErrorKind::NotFound, None),
            Io::PermissionDenied => (ErrorKind::Denied, Some("check the owner and mode of the path")),
            Io::ReadOnlyFilesystem => {
                (ErrorKind::Storage, Some("the file system is mounted read-only; choose another place"))
            }
            Io::StorageFull | Io::QuotaExceeded => {
                (ErrorKind::Storage, Some("free some space or choose another disk, then run again"))
            }
            Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::BrokenPipe
            | Io::TimedOut
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::UnexpectedEof => (ErrorKind::Unavailable, None),
            _ => (ErrorKind::Storage, None),
        };
        Self::new(kind, format!("cannot use {what}: {}", lower_first(&error.to_string())))
            .maybe_hint(hint.map(str::to_owned))
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // Leave acronyms (`SSL …`) alone.
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for context in self.0.contexts.iter().rev() {
            write!(f, "{context}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(cause) = &self.0.cause {
            write!(f, ": {cause}")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {}

/// Adds context to any result whose error is an [`Error`].
pub trait ResultExt<T> {
    /// Adds the place the error passed, built only when there is an error.
    ///
    /// # Errors
    /// The same error, with one more context.
    fn context<C: Into<String>>(self, context: impl FnOnce() -> C) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn context<C: Into<String>>(self, context: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| error.context(context()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_from_the_outside_in_and_ends_with_its_hint() {
        let error = Error::new(ErrorKind::NotFound, "table `orders` does not exist")
            .hint("did you mean `order`?")
            .context("connection `sales_db`")
            .context("step `orders`");
        assert_eq!(
            error.to_string(),
            "step `orders`: connection `sales_db`: table `orders` does not exist\n  hint: did you mean `order`?"
        );
    }

    #[test]
    fn an_error_survives_the_way_through_json() {
        let error = Error::new(ErrorKind::Unavailable, "x").cause("y").context("z").hint("h");
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<Error>(&text).unwrap(), error);
    }

    #[test]
    fn only_configuration_and_usage_mean_could_not_run() {
        assert_eq!(ErrorKind::Config.exit_code(), 2);
        assert_eq!(ErrorKind::Usage.exit_code(), 2);
        assert_eq!(ErrorKind::Canceled.exit_code(), 130);
        assert_eq!(ErrorKind::Check.exit_code(), 1);
    }
}
