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
        Self { start, end: start.checked_add_signed(TimeDelta::days(1)).unwrap_or(DateTime::<Utc>::MAX_UTC) }
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
        let start = self.start.checked_sub_signed(length).unwrap_or(DateTime::<Utc>::MIN_UTC);
        Self { start, end: self.start }
    }
}

/// The first date runs may be for. Years of four digits are what every target and every template can write.
pub const FIRST_DATE: NaiveDate = match NaiveDate::from_ymd_opt(1, 1, 1) {
    Some(date) => date,
    None => NaiveDate::MIN,
};

/// The last date runs may be for: its interval ends in a year of four digits, too.
pub const LAST_DATE: NaiveDate = match NaiveDate::from_ymd_opt(9999, 12, 30) {
    Some(date) => date,
    None => NaiveDate::MAX,
};

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::day(self.date()) {
            write!(f, "{}", self.date())
        } else {
            write!(f, "{}/{}", self.start.to_rfc3339(), self.end.to_rfc3339())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_date_is_too_far_away() {
        for date in [NaiveDate::MIN, NaiveDate::MAX, FIRST_DATE, LAST_DATE] {
            let day = Interval::day(date);
            assert!(day.previous().start <= day.start && day.start <= day.end);
            assert!(!day.to_string().is_empty());
        }
    }

    #[test]
    fn the_last_interval_can_be_written_and_read_back() {
        let end = Interval::day(LAST_DATE).end.to_rfc3339();
        assert_eq!(DateTime::parse_from_rfc3339(&end).unwrap(), Interval::day(LAST_DATE).end);
    }
}
