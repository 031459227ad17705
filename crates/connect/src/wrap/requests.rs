//! Being kind to the other side: how many ask it at once, how fast, and when it asked for a pause.
//!
//! One limit serves a whole connection, so all extracts and lanes share it.

use super::readers::Readers;
use super::turns::Turns;
use gristmill_model::Result;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

/// Limits who may ask when.
#[derive(Debug)]
pub(crate) struct Limit {
    places: Readers,
    /// The time between two requests.
    interval: Option<Duration>,
    turns: Turns,
    /// Nobody begins before; the other side said so.
    not_before: Mutex<Option<Instant>>,
}

impl Limit {
    /// At most `most` at once (no limit where none) and so many a second.
    pub(crate) fn new(most: Option<u32>, per_second: Option<f64>) -> Self {
        Self {
            places: Readers::new(most),
            interval: per_second.and_then(|number| Duration::try_from_secs_f64(1.0 / number).ok()),
            turns: Turns::default(),
            not_before: Mutex::default(),
        }
    }

    /// Waits until it is this caller's turn; the place is free again when dropped.
    ///
    /// # Errors
    /// Only what a bug would be.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        let place = self.places.place().await?;
        if let Some(interval) = self.interval {
            sleep_until(self.turns.take(Instant::now(), interval)).await;
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
        let mut not_before = self.lock();
        *not_before = Some(not_before.map_or(until, |before| before.max(until)));
    }

    fn paused_until(&self) -> Option<Instant> {
        let now = Instant::now();
        self.lock().filter(|until| *until > now)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.not_before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_given_back() {
        let limit = Limit::new(Some(1), None);
        let first = limit.turn().await.unwrap();
        assert!(limit.places.place_now().is_none());
        drop(first);
        limit.pause(Duration::from_millis(1));
        drop(limit.turn().await.unwrap());
    }
}
