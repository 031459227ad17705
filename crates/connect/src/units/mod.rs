//! Dividing tables and queries of databases into units: what is the same for all of them. Pure.
//!
//! ```text
//!   facts (each database asks its own) ─► decide: how many, by what
//!                                           └─► keys: cuts from what is known about the keys
//!   share: a unit's payload, and its SQL in the dialect of the database
//! ```
//!
//! **Invariant:** units are disjoint and their union is the whole. For keys, cuts are in the database's own order, the
//! first range is open below and takes the NULLs (or they get a unit of their own), the last is open above. For
//! `predicates` a row belongs to the first that holds, or to the rest.

pub(crate) mod decide;
pub(crate) mod keys;
pub(crate) mod share;

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
