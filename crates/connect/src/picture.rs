//! Readers that share one picture of a database which nobody can join later.
//!
//! PostgreSQL gives a picture a name, so that connections can be opened into it for as long as it is held. MySQL and
//! SQLite do not: what is to see the picture must be there when it is taken. So a plan keeps its readers, and units take
//! turns on them. A unit that another opening of the source reads finds them by the picture's name, within this process.

use gristmill_model::{Error, ErrorKind};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;

fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can leave them half done.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The readers of a picture.
#[derive(Debug)]
pub(crate) struct Pool<R> {
    state: Mutex<State<R>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<R> {
    idle: Vec<R>,
    /// Those that are lent out, too.
    alive: usize,
}

impl<R> Pool<R> {
    pub(crate) fn new(readers: Vec<R>) -> Self {
        let alive = readers.len();
        Self { state: Mutex::new(State { idle: readers, alive }), changed: Notify::new() }
    }

    /// Waits for a reader; none when all of them are lost.
    pub(crate) async fn take(&self) -> Option<R> {
        loop {
            // Before looking, so that what happens after the look is not missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = open(&self.state);
                if let Some(reader) = state.idle.pop() {
                    return Some(reader);
                }
                if state.alive == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// A reader that is idle just now.
    pub(crate) fn take_idle(&self) -> Option<R> {
        open(&self.state).idle.pop()
    }

    /// Gives a reader back for the next unit.
    pub(crate) fn give_back(&self, reader: R) {
        open(&self.state).idle.push(reader);
        self.changed.notify_waiters();
    }

    /// A reader that was taken is gone.
    pub(crate) fn lose(&self) {
        open(&self.state).alive -= 1;
        self.changed.notify_waiters();
    }

    /// Takes out the idle readers that may go.
    pub(crate) fn dismiss(&self, may_go: impl Fn(&R) -> bool) -> Vec<R> {
        let mut state = open(&self.state);
        let (gone, kept): (Vec<R>, Vec<R>) = std::mem::take(&mut state.idle).into_iter().partition(may_go);
        state.idle = kept;
        state.alive -= gone.len();
        gone
    }
}

/// The pictures of this process, by name.
#[derive(Debug)]
pub(crate) struct Register<T>(Mutex<BTreeMap<String, Weak<T>>>);

impl<T> Register<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(crate) fn add(&self, name: &str, picture: &Arc<T>) {
        let mut known = open(&self.0);
        known.retain(|_, picture| picture.strong_count() > 0);
        known.insert(name.to_owned(), Arc::downgrade(picture));
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<T>> {
        open(&self.0).get(name).and_then(Weak::upgrade)
    }
}

/// What has been read of a plan.
#[derive(Debug)]
pub(crate) struct Tally(Mutex<Read>);

#[derive(Debug)]
struct Read {
    units: usize,
    /// Of the units that have been read.
    rows: BTreeMap<u32, u64>,
}

impl Tally {
    pub(crate) fn new(units: usize) -> Self {
        Self(Mutex::new(Read { units, rows: BTreeMap::new() }))
    }

    pub(crate) fn units(&self) -> usize {
        open(&self.0).units
    }

    /// A unit was divided: there is one more, of this number.
    pub(crate) fn add(&self) -> Option<u32> {
        let mut read = open(&self.0);
        let ordinal = u32::try_from(read.units).ok()?;
        read.units += 1;
        Some(ordinal)
    }

    /// A unit has been read to its end; all rows, when it was the last of the plan.
    pub(crate) fn end(&self, ordinal: u32, rows: u64) -> Option<u64> {
        let mut read = open(&self.0);
        read.rows.insert(ordinal, rows);
        (read.rows.len() >= read.units).then(|| read.rows.values().sum())
    }
}

/// The error for a picture that is gone, or that another process holds.
pub(crate) fn lost(of: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the connections to `{of}` that saw the picture of all units were lost"))
        .hint("run again; another process cannot read units of a picture that this one holds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readers_are_waited_for_until_the_last_is_lost() {
        let pool = Arc::new(Pool::new(vec![1, 2]));
        let (one, two) = (pool.take().await.unwrap(), pool.take().await.unwrap());
        assert_eq!(one + two, 3);
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { (pool.take().await, pool.take().await) }
        });
        pool.give_back(one);
        pool.lose();
        tokio::task::yield_now().await;
        pool.lose();
        assert_eq!(waiting.await.unwrap(), (Some(one), None));
    }

    #[test]
    fn a_plan_is_read_when_each_of_its_units_was() {
        let tally = Tally::new(2);
        assert_eq!(tally.end(0, 5), None);
        assert_eq!(tally.end(0, 6), None);
        assert_eq!(tally.end(1, 1), Some(7));
        assert_eq!(tally.add(), Some(2));
        assert_eq!(tally.end(1, 1), None);
        assert_eq!(tally.end(2, 3), Some(10));
    }
}
