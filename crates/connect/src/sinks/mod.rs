//! Where rows go: one folder per connector.

mod arrays;
pub mod files;
mod keyed;
mod ledger;
pub mod mysql;
mod outside;
pub mod postgres;
mod rival;
mod rules;
pub mod sqlite;
mod staged_table;
#[cfg(test)]
mod testing;
mod tolerant;
mod widen;
