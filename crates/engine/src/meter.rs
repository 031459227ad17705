//! Counting rows and bytes per step, and telling about it while it goes on.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::DataType;
use gristmill_connect::Reject;
use gristmill_model::{EventSink, RunEvent, StepName};
use std::collections::BTreeMap;
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
    /// The first rows that were left out with a warning.
    warned: Mutex<Vec<String>>,
    /// Fields that no column holds, and how many records had each.
    beyond: Mutex<BTreeMap<String, u64>>,
}

/// So many warnings of a step are said one by one.
const WARNINGS: usize = 3;

/// So many fields of a step that no column holds are counted one by one.
const FIELDS: usize = 100;

/// So many of them are named.
const NAMED: usize = 10;

/// The bytes that the rows of a batch take: of a slice only its own part, not the buffers it lies in.
pub(crate) fn bytes_of(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| bytes_of_array(column)).sum()
}

fn bytes_of_array(array: &dyn Array) -> usize {
    // The lower half of a view is the length of its value; up to twelve bytes stand in the view itself.
    let viewed = |views: &[u128]| -> usize {
        let beside = views.iter().map(|view| (view & 0xffff_ffff) as usize).filter(|length| *length > 12);
        views.len() * 16 + beside.sum::<usize>()
    };
    match array.data_type() {
        DataType::Utf8View => viewed(array.as_string_view().views()),
        DataType::BinaryView => viewed(array.as_binary_view().views()),
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    }
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
            warned: Mutex::default(),
            beyond: Mutex::default(),
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

    /// Counts a row that is left out, and says the first few of them aloud.
    pub(crate) fn warn(&self, reject: &Reject) {
        self.reject(1);
        let Ok(mut warned) = self.warned.lock() else { return };
        if warned.len() < WARNINGS {
            tracing::warn!("step `{}` leaves out `{}`: {}", self.step, reject.place, reject.error);
            warned.push(format!("`{}`: {}", reject.place, reject.error));
        }
    }

    /// What the report says about rows that were left out with a warning, since they `did` something wrong.
    pub(crate) fn warning(&self, did: &str) -> Option<String> {
        let warned = self.warned.lock().ok()?;
        let (rows, first) = (self.rejects(), warned.first()?);
        Some(match rows {
            1 => format!("1 row {did} and was left out: {first}"),
            _ => format!("{rows} rows {did} and were left out, e.g. {}", warned.join("; ")),
        })
    }

    /// Counts a record with a field that no column holds, and says aloud that there is such a field.
    pub(crate) fn field_beyond(&self, field: &str) {
        let Ok(mut beyond) = self.beyond.lock() else { return };
        if let Some(records) = beyond.get_mut(field) {
            *records += 1;
        } else if beyond.len() < FIELDS {
            tracing::warn!("step `{}` has no column for the field `{field}`, which is not loaded", self.step);
            beyond.insert(field.to_owned(), 1);
        }
    }

    /// What the report says about fields that no column holds.
    pub(crate) fn beyond(&self) -> Option<String> {
        let beyond = self.beyond.lock().ok().filter(|beyond| !beyond.is_empty())?;
        let records = |count: u64| format!("{count} record{}", if count == 1 { "" } else { "s" });
        let named: Vec<String> =
            beyond.iter().take(NAMED).map(|(field, count)| format!("`{field}` ({})", records(*count))).collect();
        let more = match beyond.len().saturating_sub(NAMED) {
            0 => String::new(),
            more if beyond.len() < FIELDS => format!(" and {more} more"),
            _ => " and many more".to_owned(),
        };
        Some(format!(
            "not loaded, since no record looked at for columns had them: {}{more}; declare them in `schema:` to load them",
            named.join(", ")
        ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray, StringViewArray};

    #[test]
    fn the_bytes_of_slices_add_up_to_those_of_the_whole() {
        let texts: Vec<String> = (0..1000).map(|row| format!("{row} and some more text")).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from_iter_values(0..1000))),
            ("t", Arc::new(StringArray::from_iter_values(&texts))),
            ("v", Arc::new(StringViewArray::from_iter_values(&texts))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let whole = bytes_of(&batch);
        let parts: usize = (0..100).map(|part| bytes_of(&batch.slice(part * 10, 10))).sum();
        assert!(parts >= whole && parts < whole + whole / 10, "{parts} for {whole}");
        assert!((60_000..100_000).contains(&whole), "{whole}");
    }

    #[test]
    fn a_warning_names_the_first_rows_and_counts_all() {
        let meter = Meter::new("v".into());
        for line in 2..12 {
            meter.warn(&Reject {
                record: String::new(),
                error: "no number".to_owned(),
                place: format!("a.csv:{line}"),
            });
        }
        let said = meter.warning("could not be read").unwrap();
        assert_eq!(
            said,
            "10 rows could not be read and were left out, e.g. `a.csv:2`: no number; `a.csv:3`: no number; `a.csv:4`: no number"
        );
    }

    #[test]
    fn fields_without_a_column_are_counted_and_named() {
        let meter = Meter::new("v".into());
        assert_eq!(meter.beyond(), None);
        for field in ["b", "a.x", "b"] {
            meter.field_beyond(field);
        }
        let said = meter.beyond().unwrap();
        assert!(said.contains("`a.x` (1 record), `b` (2 records); declare them"), "{said}");
        for field in 0..200 {
            meter.field_beyond(&format!("c{field}"));
        }
        assert!(meter.beyond().unwrap().contains(" and many more;"));
    }
}
