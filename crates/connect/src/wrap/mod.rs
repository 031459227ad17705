//! What wraps a connector, whichever it is.

pub(crate) mod limit;
pub(crate) mod readers;
pub(crate) mod requests;
pub(crate) mod retry;
mod turns;
