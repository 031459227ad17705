//! Where rows come from: one folder per connector.

pub mod files;
pub mod generate;
pub mod http;
pub mod mysql;
pub mod postgres;
pub mod sqlite;

#[cfg(test)]
mod testing;
