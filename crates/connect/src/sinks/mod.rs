//! Where rows go: one folder per connector.

pub mod postgres;
