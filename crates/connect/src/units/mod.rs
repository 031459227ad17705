//! Dividing tables and queries of databases into units: what is the same for all of them. Pure.
//!
//! ```text
//!   facts (each database asks its own) ─► decide: how many, by what
//!                                           └─► keys: cuts from what is known about the keys
//!   share: a unit's payload, and its SQL in the dialect of the database
//!   split: a unit that is about to be read, divided
//!   counting: whether the rows that came are counted
//! ```
//!
//! **Invariant:** units are disjoint and their union is the whole. For keys, cuts are in the database's own order, the
//! first range is open below and takes the NULLs (or they get a unit of their own), the last is open above. For
//! `predicates` a row belongs to the first that holds, or to the rest.

pub(crate) mod counting;
pub(crate) mod decide;
pub(crate) mod keys;
pub(crate) mod share;
pub(crate) mod split;

use gristmill_model::{Error, ErrorKind};

/// A number with commas, for people.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The error for rows that were lost or doubled.
pub(crate) fn miscounted(label: &str, units: usize, read: u64, counted: u64) -> Error {
    let what = if read < counted { "lost" } else { "doubled" };
    Error::new(
        ErrorKind::Data,
        format!(
            "the {units} units of `{label}` gave {} rows, but the server counts {} in the same snapshot: rows were {what}",
            thousands(read),
            thousands(counted)
        ),
    )
    .hint("read it with `units: {strategy: none}`, and report this")
}
