//! Where rows go: one folder per connector.
