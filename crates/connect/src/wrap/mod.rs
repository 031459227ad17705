//! What wraps a connector, whichever it is.

pub(crate) mod retry;
