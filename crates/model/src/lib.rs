//! Gristmill's vocabulary, as plain data.
//!
//! Every other crate speaks in these words: what a project and a pipeline file say ([`spec`]), what a piece of work is
//! ([`WorkUnit`], [`Staged`], [`LoadKey`], [`Checkpoint`]), what a run tells while it goes on ([`RunEvent`]) and at its
//! end ([`JobReport`]), and what an error is ([`Error`]).
//!
//! There is no I/O here, and no arrow or DataFusion: the orchestrator depends on this crate alone, so a row can never
//! reach it.

mod duration;
mod error;
pub mod fault;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod interval;
mod key;
mod replay;
mod run;
mod size;
pub mod spec;
mod suggest;
mod template;
mod unit;
pub mod yaml;

pub use duration::Duration;
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use ids::{ConnectionName, PipelineName, RunId, StepName};
pub use interval::{FIRST_DATE, Interval, LAST_DATE};
pub use key::{Checkpoint, Committed, Cursor, LoadKey, OwnerId, Slot, Staged, StagedFile, TaskKey};
pub use replay::{Letters, Origin, RefusedBy};
pub use run::{
    CheckReport, EventSink, FileSummary, JobPhase, JobReport, JobRunner, JobSpec, KeptLoad, KeptRows, LoadReport,
    RunEvent, StagedLoad, StepKind, StepReport, StepState,
};
pub use size::ByteSize;
pub use suggest::{did_you_mean, one_of};
pub use template::{TemplateContext, names_a_table, render_text};
pub use tokio_util::sync::CancellationToken;
pub use unit::WorkUnit;
