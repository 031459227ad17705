//! Gristmill's outside world: how rows come in and go out.
//!
//! ```text
//!   Connection ──source(extract)──► Source ──plan──► WorkUnits ──read──► Rows (arrow batches)
//!       │                                                                   │
//!       └───────sink(load)───────► Sink  ◄──────────stage────────────────────┘
//!                                   └── commit │ abort │ recover
//! ```
//!
//! Arrow batches are the only row format between a [`Source`] and a [`Sink`]. DataFusion is not here: a connector knows
//! how to read and write, never how to compute. Every connector is in one explicit list, [`registry`], and calls the
//! conformance suite of its contract, [`conformance`].

mod aggregate;
mod cells;
mod columns;
mod comments;
mod compaction;
pub mod conformance;
mod connection;
mod cursors;
mod declared;
mod extract;
mod filter;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod hive;
mod increment;
mod json_text;
pub mod kept;
pub mod memory;
pub mod moment;
mod picture;
mod refused;
pub mod registry;
mod rows;
mod sink;
pub mod sinks;
mod source;
pub mod sources;
pub mod stores;
mod table_name;
pub mod types;
mod units;
mod wrap;

pub use aggregate::{Aggregate, AggregateFunction, Aggregation};
pub use comments::{with_comments_of, without_comments};
pub use compaction::{Compacted, Compaction};
pub use connection::{Connection, ConnectionInfo, Discovered, OpenContext};
pub use filter::{Comparison, Filter, Literal, Test};
pub use refused::RefusedRows;
pub use rows::{BoxRows, Rows};
pub use sink::{Grouping, LoadContext, Recovered, Sink, SinkMode};
pub use source::{
    Again, Consistency, Increment, Narrowed, NativeFile, NativeScan, NewRows, Next, Pin, ReadPlan, ReadRequest, Reject,
    RejectSink, Retry, Scan, Source, SourceStats, Whence,
};
