//! How much memory the process may use, and how much it does.

use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit as PoolLimit, MemoryPool, MemoryReservation};
use gristmill_model::ByteSize;
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The share of the machine (or cgroup) that is used when nothing else is said.
const DEFAULT_SHARE: f64 = 0.7;

/// The share of the limit that goes to DataFusion's pool, after [`FIXED`]. The rest is for what it does not account for:
/// encoders, multipart buffers, channels, tables while they double, the allocator's slack.
const POOL_SHARE: f64 = 0.65;
/// What a process needs whatever it does, in bytes: the program, decoders, open files. Of a small limit a third.
const FIXED: u64 = 192 << 20;

/// A limit on the process's resident memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The limit, in bytes.
    pub total: u64,
    /// The part of it that DataFusion's operators may use, in bytes.
    pub pool: u64,
}

impl MemoryLimit {
    /// The given limit, or a share of what the machine or cgroup has.
    #[must_use]
    pub fn decide(wanted: Option<ByteSize>) -> Self {
        let total = wanted.map_or_else(|| share(available(), DEFAULT_SHARE), |size| size.0);
        Self { total, pool: share(total - FIXED.min(total / 3), POOL_SHARE) }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of bytes"
)]
fn share(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}

/// What the machine has, or the cgroup allows, whichever is less; 4 GiB where neither can be read.
fn available() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    });
    let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    match (machine, cgroup) {
        (Some(machine), Some(cgroup)) => machine.min(cgroup),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => 4 << 30,
    }
}

/// The resident set of this process, in bytes; `None` where the system does not tell.
#[must_use]
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The largest resident set this process has had, in bytes; `None` where the system does not tell.
#[must_use]
pub fn peak_resident() -> Option<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// How often the resident set is looked at while a job runs.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Whether the process uses more than it should: whoever can do with less, should, from now on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pressure(Arc<AtomicBool>);

impl Pressure {
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Looks at the resident set until the task is dropped. `limit` is in bytes.
    pub(crate) fn watch(&self, limit: u64) -> Watch {
        let pressure = self.clone();
        Watch(tokio::spawn(async move {
            let mut tick = tokio::time::interval(LOOK_EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                // One small read of a file that is not on a disk.
                pressure.0.store(resident().is_some_and(|bytes| bytes > limit), Ordering::Relaxed);
            }
        }))
    }

    /// Lets whoever has more to bring wait a little, so that others can finish with what is there.
    pub(crate) async fn ease(&self) {
        if self.is_on() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Stops looking when dropped.
pub(crate) struct Watch(tokio::task::JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The memory of DataFusion's operators.
///
/// DataFusion's fair pool divides by all operators that may spill, idle ones too, so that with many of them each spills
/// or fails while most of the memory is free; its greedy pool lets one that spills take what another, which cannot,
/// needs. Here those that can spill share what is there until three quarters of it are taken, or the process is over
/// its limit; from then on each keeps at most a small share. The last quarter is for those that cannot spill.
///
/// To be refused is a request to spill. An operator that asks again at once, without having given anything back, has
/// nothing left to spill (its table keeps its room, or it is about to hand its rows on): it gets what it needs.
#[derive(Debug)]
pub(crate) struct SpillFirstPool {
    size: usize,
    used: AtomicUsize,
    pressure: Pressure,
    /// The operators whose last request was refused.
    refused: Mutex<HashSet<usize>>,
}

impl SpillFirstPool {
    /// A pool of `size` bytes.
    pub(crate) fn new(size: usize, pressure: Pressure) -> Self {
        Self { size, used: AtomicUsize::new(0), pressure, refused: Mutex::default() }
    }

    /// What an operator that can spill may hold, whatever the others hold.
    fn small_share(&self) -> usize {
        self.size / 32
    }

    fn refused(&self) -> MutexGuard<'_, HashSet<usize>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_grow(&self, can_spill: bool, held: usize, used: usize, additional: usize) -> bool {
        let used = used.saturating_add(additional);
        if used > self.size {
            return false;
        }
        let is_scarce = used > self.size / 4 * 3 || self.pressure.is_on();
        // Who holds nothing has nothing to spill.
        !can_spill || !is_scarce || held == 0 || held.saturating_add(additional) <= self.small_share()
    }
}

impl fmt::Display for SpillFirstPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", ByteSize(self.reserved() as u64), ByteSize(self.size as u64))
    }
}

impl MemoryPool for SpillFirstPool {
    fn name(&self) -> &'static str {
        "spill first"
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.refused().remove(&consumer.id());
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.refused().remove(&reservation.consumer().id());
        self.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        let (consumer, held) = (reservation.consumer(), reservation.size());
        let can_spill = consumer.can_spill() && !self.refused().remove(&consumer.id());
        let grown = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            self.may_grow(can_spill, held, used, additional).then_some(used.saturating_add(additional))
        });
        if grown.is_err() && can_spill {
            self.refused().insert(consumer.id());
        }
        grown.map(drop).map_err(|used| {
            let (wanted, held) = (ByteSize(additional as u64), ByteSize(held as u64));
            let (used, size) = (ByteSize(used as u64), ByteSize(self.size as u64));
            let name = consumer.name();
            DataFusionError::ResourcesExhausted(format!(
                "`{name}` needs {wanted} more than its {held}, and {used} of {size} are taken"
            ))
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> PoolLimit {
        PoolLimit::Finite(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_can_spill_make_room_for_those_that_cannot() {
        let pool = SpillFirstPool::new(3200, Pressure::default());
        let cases = [
            // Can it spill, what does it hold, what is taken, how much more; may it?
            ("free memory is for whoever comes", true, 0, 0, 2400, true),
            ("the last quarter is not for spillers", true, 1000, 2000, 500, false),
            ("but for the others", false, 1000, 2000, 1200, true),
            ("a small share is for everyone", true, 20, 3000, 80, true),
            ("who holds nothing has nothing to spill", true, 0, 3000, 150, true),
            ("and no more than that", true, 50, 3000, 100, false),
            ("what is not there nobody gets", false, 0, 3000, 201, false),
        ];
        for (name, can_spill, held, used, more, expected) in cases {
            assert_eq!(pool.may_grow(can_spill, held, used, more), expected, "{name}");
        }
        let pressed = SpillFirstPool::new(3200, Pressure(Arc::new(AtomicBool::new(true))));
        assert!(!pressed.may_grow(true, 1, 0, 200), "the process is over its limit");
        assert!(pressed.may_grow(false, 1, 0, 200));
    }

    #[test]
    fn who_is_refused_and_asks_again_without_giving_anything_back_gets_it() {
        let pool = Arc::new(SpillFirstPool::new(3200, Pressure::default()));
        let shared: Arc<dyn MemoryPool> = pool.clone();
        let operator = MemoryConsumer::new("sort").with_can_spill(true).register(&shared);
        operator.try_grow(2000).unwrap();
        assert!(operator.try_grow(500).is_err(), "asked to spill");
        operator.shrink(1900);
        operator.try_grow(1900).unwrap();
        assert!(operator.try_grow(500).is_err(), "it had made room, so it is asked once more");
        operator.try_grow(500).unwrap();
        assert!(operator.try_grow(1000).is_err() && operator.try_grow(1000).is_err(), "what is not there nobody gets");
        drop(operator);
        assert_eq!((pool.reserved(), pool.refused().len()), (0, 0));
    }

    #[test]
    fn a_given_limit_is_kept_and_the_default_is_a_share_of_the_machine() {
        assert_eq!(MemoryLimit::decide(Some(ByteSize(1 << 30))).total, 1 << 30);
        let default = MemoryLimit::decide(None);
        assert!(default.total > 0 && default.pool < default.total);
    }

    #[test]
    fn the_resident_set_is_known_and_never_above_its_peak() {
        assert!(resident().unwrap() <= peak_resident().unwrap());
    }
}
