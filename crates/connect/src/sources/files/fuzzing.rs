//! The readers of files as functions of bytes; see [`crate::fuzzing`].

pub(crate) use super::csv::fuzzing::{cuts, records as csv_records};
#[cfg(test)]
pub(crate) use super::formats::fuzzing::binary_seeds;
pub(crate) use super::formats::fuzzing::{file, json_split, packed, parts};
