//! How a command ends: the exit code of an error's class.

use gristmill_model::Error;
use std::process::ExitCode;

/// Done.
pub(crate) const DONE: u8 = 0;
/// The work failed, or a check said no.
pub(crate) const FAILED: u8 = 1;
/// The work could not begin: configuration or usage. clap's own errors end with it too.
pub(crate) const COULD_NOT_RUN: u8 = 2;
/// Somebody stopped it (128 + SIGINT, as shells count).
pub(crate) const INTERRUPTED: u8 = 130;

/// How a command ended when it did not return an error: most are [`Outcome::Done`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything asked for was done.
    Done,
    /// It has said itself what went wrong; this is the code to end with.
    Ended(u8),
}

impl Outcome {
    /// The process's exit code.
    pub(crate) fn code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::from(DONE),
            Self::Ended(code) => ExitCode::from(code),
        }
    }
}

/// The exit code of an error.
pub(crate) fn code_of(error: &Error) -> u8 {
    error.kind().exit_code()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_model::ErrorKind;

    #[test]
    fn every_class_of_error_has_its_code() {
        let code = |kind| code_of(&Error::new(kind, "x"));
        assert_eq!(code(ErrorKind::Config), COULD_NOT_RUN);
        assert_eq!(code(ErrorKind::Usage), COULD_NOT_RUN);
        assert_eq!(code(ErrorKind::Check), FAILED);
        assert_eq!(code(ErrorKind::Canceled), INTERRUPTED);
    }
}
