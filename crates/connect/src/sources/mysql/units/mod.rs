//! Dividing a table or query into units: which strategy, by what facts. What the pieces are is shared with the other
//! databases ([`crate::units`]).

pub(super) mod decide;
pub(super) mod facts;
