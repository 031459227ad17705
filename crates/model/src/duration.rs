//! Durations as people write them: `5m`, `1h30m`, `500ms`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A span of time, written as numbers with units (`ms`, `s`, `m`, `h`, `d`), e.g. `1h30m`; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(pub std::time::Duration);

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let complain = || format!("`{text}` is not a duration; write it like `30s`, `5m`, `1h30m` or `2d`");
        let trimmed = text.trim();
        if let Ok(seconds) = trimmed.parse::<u64>() {
            return Ok(Self(std::time::Duration::from_secs(seconds)));
        }
        let mut total = 0u64;
        let mut rest = trimmed;
        if rest.is_empty() {
            return Err(complain());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(complain)?;
            let number: u64 = rest[..digits].parse().map_err(|_| complain())?;
            rest = rest[digits..].trim_start();
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let millis = match &rest[..letters] {
                "ms" | "millisecond" | "milliseconds" => 1,
                "s" | "sec" | "second" | "seconds" => 1_000,
                "m" | "min" | "minute" | "minutes" => 60_000,
                "h" | "hour" | "hours" => 3_600_000,
                "d" | "day" | "days" => 86_400_000,
                _ => return Err(complain()),
            };
            total = number.checked_mul(millis).and_then(|part| total.checked_add(part)).ok_or_else(complain)?;
            rest = rest[letters..].trim_start();
        }
        Ok(Self(std::time::Duration::from_millis(total)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A duration: a number of seconds, or numbers with units ms, s, m, h, d, e.g. `1h30m`."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in
            [("5m", 300_000), ("90", 90_000), ("1h30m", 5_400_000), ("2 days", 172_800_000), ("500ms", 500)]
        {
            assert_eq!(text.parse::<Duration>().unwrap().0.as_millis(), millis, "{text}");
        }
        for text in ["", "m", "5x", "-1s", "99999999999999999999d", "18446744073709551615d"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back_as_written(millis in 0u64..10_000_000_000) {
            let duration = Duration(std::time::Duration::from_millis(millis));
            prop_assert_eq!(duration.to_string().parse::<Duration>().unwrap(), duration);
        }
    }
}
