//! The two plan nodes of our own.

mod extract;
mod queue;
mod stage;

pub use extract::ExtractExec;
pub(crate) use extract::{Gate, leaf};
pub(crate) use stage::Refusing;
pub use stage::{StageExec, staged_schema};
