//! Views as DataFusion tables.

mod aggregate;
mod extract;
mod filter;
mod native;
mod piped;

pub(crate) use aggregate::PushAggregates;
pub(crate) use extract::ExtractTable;
pub(crate) use native::NativeTable;
pub(crate) use piped::PipedTable;
