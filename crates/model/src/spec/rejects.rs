//! How many rows may be refused before a run fails of it: `100`, or `1%`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A limit on refused rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxRejects {
    /// So many rows.
    Rows(u64),
    /// So many of a million rows.
    Share(u32),
}

/// Millionths in a percent.
const PERCENT: u32 = 10_000;

impl MaxRejects {
    /// Whether `rejects` of `rows` are more than the limit allows. `rows` counts the refused ones, too.
    #[must_use]
    pub fn is_exceeded(self, rejects: u64, rows: u64) -> bool {
        match self {
            Self::Rows(most) => rejects > most,
            // Without an overflow, however many rows there are.
            Self::Share(most) => u128::from(rejects) * 1_000_000 > u128::from(rows) * u128::from(most),
        }
    }

    /// Whether so many refused rows are too many however many rows are still to come.
    #[must_use]
    pub fn is_exceeded_anyway(self, rejects: u64) -> bool {
        matches!(self, Self::Rows(most) if rejects > most)
    }
}

impl FromStr for MaxRejects {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let complain = || {
            format!(
                "`{text}` is no limit of rejects; write a number of rows like `100`, or a share like `1%` or `0.05%`"
            )
        };
        let Some(percent) = text.trim().strip_suffix('%') else {
            return text.trim().parse().map(Self::Rows).map_err(|_| complain());
        };
        let (whole, part) = percent.trim().split_once('.').unwrap_or((percent.trim(), ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(part) || part.len() > 4 {
            return Err(complain());
        }
        let whole: u32 = whole.parse().map_err(|_| complain())?;
        let part: u32 = format!("{part:0<4}").parse().map_err(|_| complain())?;
        let share = whole.checked_mul(PERCENT).and_then(|whole| whole.checked_add(part));
        share.filter(|share| *share <= 100 * PERCENT).map(Self::Share).ok_or_else(complain)
    }
}

impl fmt::Display for MaxRejects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "{rows}"),
            Self::Share(share) => {
                let part = format!("{:04}", share % PERCENT);
                let part = part.trim_end_matches('0');
                let dot = if part.is_empty() { "" } else { "." };
                write!(f, "{}{dot}{part}%", share / PERCENT)
            }
        }
    }
}

impl Serialize for MaxRejects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MaxRejects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for MaxRejects {
    fn schema_name() -> Cow<'static, str> {
        "MaxRejects".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of rows, `100`, or a share of them, `1%`.",
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,4})?%?$"}],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_limit_is_a_number_of_rows_or_a_share() {
        for (text, limit) in [
            ("0", MaxRejects::Rows(0)),
            ("100", MaxRejects::Rows(100)),
            ("1%", MaxRejects::Share(10_000)),
            ("0.05 %", MaxRejects::Share(500)),
            ("100%", MaxRejects::Share(1_000_000)),
        ] {
            assert_eq!(text.parse(), Ok(limit), "{text}");
        }
        for text in ["", "%", "-1", "101%", "1.00001%", "1e2", "1.5", "one", ".5%"] {
            assert!(text.parse::<MaxRejects>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_of_all_rows_the_refused_ones_too() {
        let percent = MaxRejects::Share(10_000);
        assert!(!percent.is_exceeded(1, 100) && percent.is_exceeded(2, 100) && percent.is_exceeded(1, 99));
        assert!(!percent.is_exceeded(0, 0) && percent.is_exceeded(u64::MAX, u64::MAX));
        assert!(MaxRejects::Rows(0).is_exceeded_anyway(1) && !percent.is_exceeded_anyway(1));
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read(share in 0u32..=1_000_000, rows in any::<u64>()) {
            for limit in [MaxRejects::Share(share), MaxRejects::Rows(rows)] {
                prop_assert_eq!(limit.to_string().parse(), Ok(limit));
            }
        }
    }
}
