//! Whether and when a unit is tried again.
//!
//! Which errors are transient is told in one place per system, where the error is made ([`Error::is_retryable`]). What
//! is decided here is whether trying the *unit* again can help, and how long to wait: exponential backoff with full
//! jitter, so that readers that were thrown out together do not come back together.

use gristmill_model::{Error, ErrorKind};
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// How often a unit is tried, the first time included. A server that restarts is back within the waits of these.
pub(crate) const ATTEMPTS: u32 = 5;
/// The longest wait before the second attempt; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait there is.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long to wait before attempt `attempt + 1`; none when it is not worth it. `random` is from 0 to 1.
pub(crate) fn wait_before_next(error: &Error, attempt: u32, random: f64) -> Option<Duration> {
    // A statement that was too slow for the server's limit will be too slow again.
    if !error.is_retryable() || error.kind() == ErrorKind::Timeout || attempt >= ATTEMPTS {
        return None;
    }
    Some(backoff(attempt, random))
}

/// How long to wait before attempt `attempt + 1`, of `attempts` in all, where the other side may have `told` how long;
/// none when it is not worth it.
pub(crate) fn wait_as_told(
    error: &Error,
    (attempt, attempts): (u32, u32),
    random: f64,
    told: Option<Duration>,
) -> Option<Duration> {
    if !error.is_retryable() || attempt >= attempts {
        return None;
    }
    // Readers that were told the same must not come back together; and `now` is no time for a server in trouble.
    let usual = backoff(attempt, random);
    Some(told.map_or(usual, |told| (told + FIRST_WAIT.mul_f64(random.clamp(0.0, 1.0))).max(usual)))
}

/// How long to wait after attempt `attempt`, from 1; `random` is from 0 to 1.
pub(crate) fn backoff(attempt: u32, random: f64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let longest = doubled.min(LONGEST_WAIT);
    // Half of it is certain: a wait of nothing would hit a server that is just going down.
    longest.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

/// A number from 0 to 1, another one each time.
pub(crate) fn random() -> f64 {
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_go_away_by_itself_is_tried_again_and_not_for_ever() {
        let lost = Error::new(ErrorKind::Unavailable, "lost");
        let waits: Vec<_> = (1..=ATTEMPTS).map(|attempt| wait_before_next(&lost, attempt, 1.0)).collect();
        let millis = |wait: u64| Some(Duration::from_millis(wait));
        assert_eq!(waits, [millis(250), millis(500), millis(1000), millis(2000), None]);
        assert_eq!(wait_before_next(&lost, 1, 0.0), millis(125));
        assert_eq!(wait_before_next(&Error::new(ErrorKind::Denied, "no"), 1, 0.5), None);
        assert_eq!(wait_before_next(&Error::new(ErrorKind::Timeout, "slow").retryable(true), 1, 0.5), None);
        assert!(wait_before_next(&Error::new(ErrorKind::Conflict, "locked").retryable(true), 1, 0.5).is_some());
    }

    #[test]
    fn a_wait_that_was_told_is_kept() {
        let error = Error::new(ErrorKind::Unavailable, "slow down");
        let second = Duration::from_secs(1);
        assert_eq!(wait_as_told(&error, (1, 2), 0.0, Some(second)), Some(second));
        assert_eq!(wait_as_told(&error, (1, 2), 1.0, Some(second)), Some(Duration::from_millis(1250)));
        assert_eq!(wait_as_told(&error, (1, 2), 0.0, None), Some(Duration::from_millis(125)));
        assert_eq!(wait_as_told(&error, (4, 5), 0.0, Some(Duration::ZERO)), Some(Duration::from_secs(1)));
        assert_eq!(wait_as_told(&error, (2, 2), 0.0, Some(second)), None);
        assert_eq!(wait_as_told(&error.retryable(false), (1, 2), 0.0, Some(second)), None);
    }

    #[test]
    fn waits_differ() {
        let some: std::collections::HashSet<u64> = (0..50).map(|_| random().to_bits()).collect();
        assert!(some.len() > 10);
        assert!((0..50).map(|_| random()).all(|number| (0.0..=1.0).contains(&number)));
    }
}
