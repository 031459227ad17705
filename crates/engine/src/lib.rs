//! Gristmill's engine: executes the actions of one job.
//!
//! A job is a *stage group*: the loads and checks that share views. The engine turns each view into a DataFusion table,
//! plans one physical plan per action, and runs them in one pass:
//!
//! ```text
//!   work units ─► Extract ─► … SQL … ─► pipe (checked or shared view) ─┬─► … SQL … ─► Stage ─► Staged
//!                                         │ row checks, counts         └─► … SQL … ─► Stage ─► Staged
//!                                         └─► dead letters
//! ```
//!
//! There are two plan nodes of our own, [`exec::ExtractExec`] and [`exec::StageExec`]. The engine never walks the DAG
//! and never decides when something runs; only [`LocalRunner`] calls a sink's `commit`.

mod checks;
mod dead_letters;
mod dedup;
mod error;
pub mod exec;
mod expect;
mod explain;
mod increment;
mod memory;
mod meter;
mod pipe;
mod rejects;
mod resolve;
mod rowwise;
mod runner;
mod session;
mod spill;
mod stage;
mod table;

pub use dead_letters::{Letter, LetterLoad, LetterSet, home as letters_home, letter_sets, letters};
pub use error::{from_datafusion, to_datafusion};
pub use explain::{ActionPlan, PlanReport, ViewPlan};
pub use memory::{MemoryLimit, peak_resident, resident};
pub use runner::LocalRunner;
pub use session::{Engine, EngineOptions, Session};
