//! How many connections may read from one server at once.

use gristmill_model::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits how many connections read from a server at once.
#[derive(Debug)]
pub(crate) struct Readers {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Readers {
    /// At most so many; any number when none.
    pub(crate) fn new(most: Option<u32>) -> Self {
        let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))), waiting: AtomicUsize::new(0) }
    }

    /// Waits for a place; it is free again when dropped.
    pub(crate) async fn place(&self) -> gristmill_model::Result<OwnedSemaphorePermit> {
        let _waiting = Waiting::new(&self.waiting);
        let place = self.places.clone().acquire_owned().await;
        place.map_err(|error| Error::internal("the places of readers are closed").cause(error))
    }

    /// A place, if one is free just now.
    pub(crate) fn place_now(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Whether somebody waits for a place, so that an idle connection is better closed than kept.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Counts somebody who waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
