//! Where rows come from: one folder per connector.

pub mod postgres;
