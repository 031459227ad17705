//! Asking an HTTP API for what is new only.

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::str::FromStr;

/// How an API is asked for what is new only (dlt's words).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpIncremental {
    /// The parameter that takes the cursor: the API answers with records from there on. It may give older ones, too; they
    /// are left out.
    pub start_param: String,
    /// What it takes while there is no cursor; nothing is sent by default. Records before it are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_value: Option<String>,
    /// The parameter that takes `end_value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_param: Option<String>,
    /// Where to stop, such as `{{ data_interval_end }}`. Records at and after it are left out, and come in a later run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_value: Option<String>,
    /// How a time is written: `iso`, `date`, `unix`, `unix_ms`, or a pattern such as `%d/%m/%Y`; by default as the records
    /// have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TimeFormat>,
    /// Where the parameters stand.
    #[serde(default)]
    pub place: super::ParamPlace,
}

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum TimeFormat {
    /// RFC 3339 in UTC: `2024-01-15T10:00:00Z`.
    Iso,
    /// The day in UTC: `2024-01-15`.
    Date,
    /// Seconds since 1970.
    Unix,
    /// Milliseconds since 1970.
    UnixMillis,
    /// As strftime has it, in UTC: `%d/%m/%Y %H:%M`.
    Pattern(String),
}

impl TimeFormat {
    /// The moment in this format, down to what it can say: never later than the moment itself.
    #[must_use]
    pub fn write(&self, moment: DateTime<Utc>) -> String {
        match self {
            Self::Iso => moment.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            Self::Date => moment.format("%Y-%m-%d").to_string(),
            Self::Unix => moment.timestamp().to_string(),
            Self::UnixMillis => moment.timestamp_millis().to_string(),
            Self::Pattern(pattern) => {
                let mut text = String::new();
                // A pattern that cannot be written was refused when it was read.
                let _ = write!(text, "{}", moment.format(pattern));
                text
            }
        }
    }

    /// Whether what is written is a number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Unix | Self::UnixMillis)
    }
}

impl FromStr for TimeFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "iso" => Self::Iso,
            "date" => Self::Date,
            "unix" => Self::Unix,
            "unix_ms" => Self::UnixMillis,
            pattern if pattern.contains('%') => {
                let mut known = String::new();
                let is_wrong = StrftimeItems::new(pattern).any(|item| item == Item::Error)
                    || write!(known, "{}", DateTime::<Utc>::UNIX_EPOCH.format(pattern)).is_err();
                if is_wrong {
                    return Err(format!("`{pattern}` is not a pattern for times; write it like `%Y-%m-%d %H:%M`"));
                }
                Self::Pattern(pattern.to_owned())
            }
            other => {
                return Err(format!(
                    "`{other}` is not a format of times; valid: `iso`, `date`, `unix`, `unix_ms`, or a pattern like `%d/%m/%Y`"
                ));
            }
        })
    }
}

impl TryFrom<String> for TimeFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iso => "iso",
            Self::Date => "date",
            Self::Unix => "unix",
            Self::UnixMillis => "unix_ms",
            Self::Pattern(pattern) => pattern,
        })
    }
}

impl From<TimeFormat> for String {
    fn from(format: TimeFormat) -> Self {
        format.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_each_format_and_never_later_than_it_is() {
        let moment = DateTime::parse_from_rfc3339("2024-03-05T01:30:00.999+02:00").unwrap().to_utc();
        for (format, text) in [
            ("iso", "2024-03-04T23:30:00.999Z"),
            ("date", "2024-03-04"),
            ("unix", "1709595000"),
            ("unix_ms", "1709595000999"),
            ("%d/%m/%Y %H:%M", "04/03/2024 23:30"),
        ] {
            let read: TimeFormat = format.parse().unwrap();
            assert_eq!((read.write(moment).as_str(), read.to_string().as_str()), (text, format));
        }
        for wrong in ["", "epoch", "%", "%Q", "%Y-%"] {
            assert!(wrong.parse::<TimeFormat>().is_err(), "{wrong}");
        }
    }
}
