//! The product end to end: the real binary, real files, real servers; every number checked by other means.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says aloud what it skips"
)]

mod api;
mod asked;
mod audited;
mod bad_input;
mod checked;
mod commands;
mod contract;
mod dead_letters;
mod delta;
mod feeds;
mod guards;
mod incremental;
mod killed;
mod layout;
mod mysql;
mod once;
mod oracle;
mod pushed;
mod replayed;
mod sales;
mod strategies;
mod support;
mod tables;
mod units;
