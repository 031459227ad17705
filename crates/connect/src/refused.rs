//! Where rows go that a target refuses.

use arrow::array::RecordBatch;
use gristmill_model::Result;
use std::fmt;
use std::sync::Arc;

type Receive = dyn Fn(&RecordBatch, &[String]) -> Result<()> + Send + Sync;

/// Takes the rows that a target refuses, each with what the target says. Cheap to clone; may wait for a disk.
#[derive(Clone)]
pub struct RefusedRows(Arc<Receive>);

impl RefusedRows {
    /// Sends them to `receive`: rows, and as many reasons.
    pub fn new(receive: impl Fn(&RecordBatch, &[String]) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }

    /// Sends some.
    ///
    /// # Errors
    /// What keeps them from being kept; the load must not go on then.
    pub fn send(&self, rows: &RecordBatch, reasons: &[String]) -> Result<()> {
        (self.0)(rows, reasons)
    }
}

impl fmt::Debug for RefusedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefusedRows")
    }
}
