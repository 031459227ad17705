//! Where rows go: one folder per connector.

pub mod files;
pub mod sqlite;
