//! Dividing a table or query into units.
//!
//! ```text
//!   facts (edge: asks the server) ──► decide (pure): which strategy, how many, why
//!                                       ├─► blocks (pure): pages of heaps, packed into ctid ranges
//!                                       └─► keys (crate::units, pure): cuts from the planner's statistics
//!   share (crate::units): a unit's payload, and its SQL
//! ```
//!
//! **Invariant:** units are disjoint and their union is the whole. For `ctid` they tile the pages, the last range of each
//! table open above. For keys, cuts are sorted by the server itself (its order, its collation), the first range is open
//! below and takes the NULLs (or they get a unit of their own), the last is open above. For `predicates` a row belongs to
//! the first that holds, or to the rest.

pub(super) mod blocks;
pub(super) mod decide;
pub(super) mod facts;
pub(super) mod split;
pub(super) use crate::units::{keys, share, thousands};

#[cfg(test)]
mod tests;
