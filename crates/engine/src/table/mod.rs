//! Views as DataFusion tables.

mod extract;
mod filter;
mod native;
mod piped;

pub(crate) use extract::ExtractTable;
pub(crate) use native::NativeTable;
pub(crate) use piped::PipedTable;
