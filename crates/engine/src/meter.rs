//! Counting rows and bytes per step, and telling about it while it goes on.

use gristmill_model::{EventSink, RunEvent, StepName};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The counters of one step. Cheap to share between tasks.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) step: StepName,
    rows: AtomicU64,
    bytes: AtomicU64,
    rejects: AtomicU64,
    expected: AtomicU64,
    started: Mutex<Option<Instant>>,
    ended: Mutex<Option<Instant>>,
    told: AtomicU64,
}

impl Meter {
    pub(crate) fn new(step: StepName) -> Arc<Self> {
        Arc::new(Self {
            step,
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            rejects: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            started: Mutex::new(None),
            ended: Mutex::new(None),
            told: AtomicU64::new(0),
        })
    }

    pub(crate) fn add(&self, rows: usize, bytes: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.touch();
    }

    /// Takes over a count that was kept elsewhere.
    pub(crate) fn settle(&self, rows: Option<u64>) {
        if let Some(rows) = rows {
            self.rows.store(rows, Ordering::Relaxed);
            self.touch();
        }
    }

    pub(crate) fn reject(&self, rows: usize) {
        self.rejects.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn expect(&self, rows: u64) {
        self.expected.fetch_add(rows, Ordering::Relaxed);
    }

    /// Expected rows, where somebody could tell.
    pub(crate) fn expected(&self) -> Option<u64> {
        let rows = self.expected.load(Ordering::Relaxed);
        (rows > 0).then_some(rows)
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn rejects(&self) -> u64 {
        self.rejects.load(Ordering::Relaxed)
    }

    /// Milliseconds between the first and the last sign of life.
    pub(crate) fn millis(&self) -> u64 {
        let started = self.started.lock().ok().and_then(|started| *started);
        let ended = self.ended.lock().ok().and_then(|ended| *ended);
        match (started, ended) {
            (Some(started), Some(ended)) => u64::try_from((ended - started).as_millis()).unwrap_or(u64::MAX),
            _ => 0,
        }
    }

    pub(crate) fn touch(&self) {
        let now = Instant::now();
        if let Ok(mut started) = self.started.lock() {
            started.get_or_insert(now);
        }
        if let Ok(mut ended) = self.ended.lock() {
            *ended = Some(now);
        }
    }

    /// Tells how far the step has come, if it has come further since the last time.
    pub(crate) fn tell(&self, events: &EventSink) {
        let rows = self.rows();
        if self.told.swap(rows, Ordering::Relaxed) != rows {
            events.send(RunEvent::Progress {
                step: self.step.clone(),
                rows,
                bytes: self.bytes(),
                total_rows: self.expected(),
            });
        }
    }
}
