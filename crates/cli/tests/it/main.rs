//! The command line, as its users see it: the real binary, whole outputs, exit codes.
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        reason = "helpers of tests are outside of test functions, and a panic is their answer"
    )
)]

mod commands;
mod docs;
mod empty;
mod init;
mod library;
mod support;
mod usage;
mod validate;
