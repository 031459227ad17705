//! The process's memory limit, as far as connectors have to keep it: writers gather rows, encoders hold row groups, and
//! none of that is in the engine's pool.
//!
//! It is the process that has a limit, not a job or a connection, so this is one number for all.

use std::sync::atomic::{AtomicU64, Ordering};

/// No limit has been told.
const UNKNOWN: u64 = u64::MAX;

static LIMIT: AtomicU64 = AtomicU64::new(UNKNOWN);

/// Tells every connector of the process what the process may use, in bytes of resident memory. The last word counts.
pub fn set_process_limit(bytes: u64) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// The `part`th part of the process's limit, at least `least` and at most `most`; `most` where there is no limit. In
/// bytes.
pub(crate) fn share(part: u64, least: usize, most: usize) -> usize {
    let share = LIMIT.load(Ordering::Relaxed) / part.max(1);
    usize::try_from(share).unwrap_or(usize::MAX).clamp(least, most)
}
