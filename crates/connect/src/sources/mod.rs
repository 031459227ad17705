//! Where rows come from: one folder per connector.

pub(crate) mod files;
