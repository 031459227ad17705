//! Data checks: row checks as expressions in the plan; set checks as one more reader of the pipe, or, where the column is
//! of whole numbers, while rows pass.

mod numbers;
mod row;
mod sample;
mod set;

pub(crate) use numbers::UniqueNumbers;
pub(crate) use row::{Judge, flag_rows};
pub(crate) use sample::key_columns;
pub(crate) use set::{Unique, unique_plan};

use gristmill_model::CheckReport;
use gristmill_model::spec::{Check, CheckKind};
use sample::Sample;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many offending values a report shows.
const SAMPLES: usize = 5;

/// What one check has found so far.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) check: Check,
    unexpected: AtomicU64,
    samples: Mutex<Vec<Sample>>,
}

impl Tally {
    pub(crate) fn new(check: Check) -> Self {
        Self { check, unexpected: AtomicU64::new(0), samples: Mutex::default() }
    }

    pub(super) fn count(&self, unexpected: u64, samples: impl IntoIterator<Item = Sample>) {
        self.unexpected.fetch_add(unexpected, Ordering::Relaxed);
        if let Ok(mut kept) = self.samples.lock() {
            let room = SAMPLES.saturating_sub(kept.len());
            kept.extend(samples.into_iter().take(room));
        }
    }

    fn wants_samples(&self) -> bool {
        self.samples.lock().is_ok_and(|samples| samples.len() < SAMPLES)
    }

    /// The verdict, once all of `seen` rows have been looked at, `passed_on` of which went on.
    pub(crate) fn report(&self, seen: u64, passed_on: u64) -> CheckReport {
        let unexpected = self.unexpected.load(Ordering::Relaxed);
        let samples = self.samples.lock().map(|samples| samples.clone()).unwrap_or_default();
        let (passed, observed) = match &self.check.kind {
            CheckKind::RowCount { min, max } => {
                let passed = min.is_none_or(|min| passed_on >= min) && max.is_none_or(|max| passed_on <= max);
                let wanted = match (min, max) {
                    (Some(min), Some(max)) => format!("{} to {}", thousands(*min), thousands(*max)),
                    (Some(min), None) => format!("at least {}", thousands(*min)),
                    (None, Some(max)) => format!("at most {}", thousands(*max)),
                    (None, None) => "any number".to_owned(),
                };
                (passed, format!("{} rows, wanted {wanted}", thousands(passed_on)))
            }
            kind => {
                let what = match (kind, unexpected) {
                    (CheckKind::Unique { .. }, 1) => "value more than once",
                    (CheckKind::Unique { .. }, _) => "values more than once",
                    (_, 1) => "bad row",
                    _ => "bad rows",
                };
                let told: Vec<&str> = samples.iter().map(|sample| sample.text.as_str()).collect();
                let shown = if told.is_empty() { String::new() } else { format!(", e.g. {}", told.join(", ")) };
                let text = format!("{} {what} among {} rows{shown}", thousands(unexpected), thousands(seen));
                (unexpected == 0, text)
            }
        };
        let unexpected =
            if matches!(self.check.kind, CheckKind::RowCount { .. }) { u64::from(!passed) } else { unexpected };
        CheckReport {
            name: self.check.name.clone(),
            passed,
            on_fail: self.check.on_fail,
            rows: seen,
            unexpected,
            observed,
            sample: samples.into_iter().map(|sample| sample.row).collect(),
        }
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_model::spec::OnFail;

    #[test]
    fn a_row_count_is_judged_by_the_rows_that_go_on() {
        let kind = CheckKind::RowCount { min: Some(10), max: None };
        let tally = Tally::new(Check { name: "row_count".to_owned(), on_fail: OnFail::Fail, kind });
        assert!(!tally.report(12, 9).passed);
        assert!(tally.report(12, 10).passed);
        assert_eq!(tally.report(12, 9).observed, "9 rows, wanted at least 10");
    }

    #[test]
    fn numbers_are_grouped_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
