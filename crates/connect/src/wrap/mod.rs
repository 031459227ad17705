//! What wraps a connector, whichever it is.

pub(crate) mod limit;
pub(crate) mod retry;
