//! Where rows go: one folder per connector.

pub mod files;
mod keyed;
pub mod postgres;
mod rival;
mod rules;
pub mod sqlite;
mod widen;
