//! The command line, as its users see it: the real binary, whole outputs, exit codes.

mod docs;
mod empty;
mod init;
mod support;
mod usage;
mod validate;
