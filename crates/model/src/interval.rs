//! The half-open span of time a run is for.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The half-open span `[start, end)` a run is for; `start` is the logical date (Airflow: "data interval").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interval {
    /// The first instant that belongs to the interval; the logical date.
    pub start: DateTime<Utc>,
    /// The first instant that no longer belongs to it.
    pub end: DateTime<Utc>,
}

impl Interval {
    /// The day that starts at midnight UTC of `date`.
    #[must_use]
    pub fn day(date: NaiveDate) -> Self {
        let start = date.and_time(chrono::NaiveTime::MIN).and_utc();
        Self { start, end: start + TimeDelta::days(1) }
    }

    /// The logical date, as a date.
    #[must_use]
    pub fn date(&self) -> NaiveDate {
        self.start.date_naive()
    }

    /// The interval of the same length that ends where this one starts.
    #[must_use]
    pub fn previous(&self) -> Self {
        let length = self.end - self.start;
        Self { start: self.start - length, end: self.start }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::day(self.date()) {
            write!(f, "{}", self.date())
        } else {
            write!(f, "{}/{}", self.start.to_rfc3339(), self.end.to_rfc3339())
        }
    }
}
