//! Where rows go: one folder per connector.

pub mod files;
pub mod postgres;
mod rival;
pub mod sqlite;
mod widen;
