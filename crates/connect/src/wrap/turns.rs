//! Turns that are taken one after the other, each as long as it costs.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// When the next turn is.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<Option<Instant>>);

impl Turns {
    /// Takes the next turn: when it begins. Those after it wait until it would have passed; time in which nobody took one is
    /// not saved up.
    pub(crate) fn take(&self, now: Instant, cost: Duration) -> Instant {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free.map_or(now, |free| free.max(now));
        *free = Some(start.checked_add(cost).unwrap_or(start));
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_apart_by_their_cost_and_idle_time_is_not_saved_up() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let turns = Turns::default();
        let taken: Vec<Duration> = (0..3).map(|_| turns.take(start, second) - start).collect();
        assert_eq!(taken, [Duration::ZERO, second, 2 * second]);
        let later = start + 10 * second;
        assert_eq!(turns.take(later, second), later);
        assert_eq!(turns.take(later, second), later + second);
    }
}
