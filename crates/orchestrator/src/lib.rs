//! Gristmill's orchestrator: when and what to run.
//!
//! ```text
//!   files ──project──► Project ──render──► PipelineSpec ──dag──► RunPlan (tasks: stage groups, commands, waits)
//!                                                                   │
//!       Store (runs, loads, owners) ◄──── drive ◄── decide (pure) ──┘
//!                                           │
//!                                       JobRunner (stage, commit, abort, recover)
//! ```
//!
//! It knows steps, keys and reports, never rows: neither arrow nor DataFusion is below it. There is one driver, and
//! every command that runs a pipeline uses it. What is decided is decided in [`decide`] and [`dag`], which do no I/O
//! and know no clock.

pub mod dag;
pub mod decide;
pub mod drive;
pub mod project;
mod report;
pub mod store;

pub use drive::{Driver, DriverOptions, ONE_LINE, RunRequest, Spreading};
pub use project::Project;
pub use report::{RunReport, RunState};
pub use store::{SqliteStore, Store};
