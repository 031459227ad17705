//! Where rows come from: one folder per connector.

pub mod generate;
pub mod files;
