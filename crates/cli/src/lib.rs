//! Batch data work in one library and one binary: extract, transform with SQL, check, load exactly once.
//!
//! The binary `gristmill` is a thin layer over this crate; what it does with YAML files can be done from code with the
//! same engine. This crate only re-exports the parts:
//!
//! - [`model`]: what a pipeline says, what an error is, what a run reports;
//! - [`connect`]: sources and sinks, and the contracts to write your own;
//! - [`engine`]: executes stage groups on DataFusion;
//! - [`orchestrator`]: which step runs when, and the store of runs;
//! - [`datafusion`] and [`arrow`], the versions that fit.
//!
//! # Quick start
//!
//! A pipeline built in code (or [`model::yaml::parse`]d from text), checked without touching anything outside:
//!
//! ```
//! use gristmill::model::spec::{Defaults, PipelineSpec};
//! use gristmill::model::yaml;
//!
//! let text = "
//! steps:
//!   orders: {extract: {from: lake, path: orders/}}
//!   totals:
//!     sql: SELECT customer, sum(total) AS total FROM orders GROUP BY customer
//!     checks: [{not_null: customer}]
//!   load_totals: {load: {from: totals, to: lake, path: totals/, strategy: replace}}
//! ";
//! let node = yaml::parse("totals.yaml", text).expect("YAML");
//! let pipeline = PipelineSpec::from_node(&node, &["lake"], &Defaults::default()).expect("a pipeline");
//! assert_eq!(pipeline.name.as_str(), "totals");
//! assert_eq!(pipeline.steps.len(), 3);
//! ```

pub use arrow;
pub use datafusion;
pub use gristmill_connect as connect;
pub use gristmill_engine as engine;
pub use gristmill_model as model;
pub use gristmill_orchestrator as orchestrator;

mod args;
mod commands;
mod compactions;
mod context;
mod exit;
#[cfg(debug_assertions)]
mod faults;
mod interrupt;
mod local_engine;
mod logs;
mod place;
mod printer;
mod progress;
mod report;
mod rows;

#[doc(hidden)]
pub mod command_line;
