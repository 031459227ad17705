//! Being kind to the other side: how many ask it at once, how fast, and when it asked for a pause.
//!
//! One limit serves a whole connection, so all extracts and lanes share it.

use gristmill_model::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// Limits who may ask when.
#[derive(Debug)]
pub(crate) struct Limit {
    places: Arc<Semaphore>,
    /// The time between two requests.
    interval: Option<Duration>,
    pace: Mutex<Pace>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// When the next request may begin, by its turn.
    next: Option<Instant>,
    /// Nobody begins before; the other side said so.
    not_before: Option<Instant>,
}

impl Pace {
    /// Takes the next turn: when it is.
    fn take(&mut self, now: Instant, interval: Duration) -> Instant {
        let at = self.next.map_or(now, |next| next.max(now));
        self.next = Some(at + interval);
        at
    }
}

impl Limit {
    /// At most `most` at once (no limit where none) and so many a second.
    pub(crate) fn new(most: Option<u32>, per_second: Option<f64>) -> Self {
        let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            interval: per_second.and_then(|number| Duration::try_from_secs_f64(1.0 / number).ok()),
            pace: Mutex::new(Pace::default()),
        }
    }

    /// Waits until it is this caller's turn; the place is free again when dropped.
    ///
    /// # Errors
    /// Only what a bug would be.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(|error| Error::internal("the places of requests are closed").cause(error))?;
        if let Some(interval) = self.interval {
            let at = self.lock().take(Instant::now(), interval);
            sleep_until(at).await;
        }
        // Somebody may be told to pause while this one waits.
        loop {
            let Some(until) = self.paused_until() else { return Ok(place) };
            sleep_until(until).await;
        }
    }

    /// Nobody begins for so long.
    pub(crate) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut pace = self.lock();
        pace.not_before = Some(pace.not_before.map_or(until, |before| before.max(until)));
    }

    fn paused_until(&self) -> Option<Instant> {
        let now = Instant::now();
        self.lock().not_before.filter(|until| *until > now)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_apart_by_the_interval_and_idle_time_is_not_saved_up() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::default();
        let turns: Vec<Duration> = (0..3).map(|_| pace.take(start, second) - start).collect();
        assert_eq!(turns, [Duration::ZERO, second, 2 * second]);
        let later = start + 10 * second;
        assert_eq!(pace.take(later, second), later);
        assert_eq!(pace.take(later, second), later + second);
    }

    #[tokio::test]
    async fn a_place_is_given_back() {
        let limit = Limit::new(Some(1), None);
        let first = limit.turn().await.unwrap();
        assert_eq!(limit.places.available_permits(), 0);
        drop(first);
        limit.pause(Duration::from_millis(1));
        drop(limit.turn().await.unwrap());
    }
}
