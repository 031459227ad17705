//! The `gristmill` command.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Queries allocate and free small vectors all the time, on many threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    gristmill::command_line::run()
}
