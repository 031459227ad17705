//! tmp
pub(crate) mod formats;
