//! Moments as texts have them: read, and moved without writing them in another way.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use std::time::Duration;

/// The moment that a text means: ISO 8601 as databases and APIs write it, to the day, minute, second or less, or RFC 2822.
/// Without a zone it is UTC.
#[must_use]
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    const ZONED: [&str; 2] = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z"];
    const PLAIN: [&str; 4] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let text = text.trim();
    let is_iso = text.len() >= 10 && text.as_bytes()[..4].iter().all(u8::is_ascii_digit) && text.as_bytes()[4] == b'-';
    if !is_iso {
        return DateTime::parse_from_rfc2822(text).ok().map(|moment| moment.to_utc());
    }
    if text.len() == 10 {
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        return Some(day.and_hms_opt(0, 0, 0)?.and_utc());
    }
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Some(moment.to_utc());
    }
    let plain = text.strip_suffix(['Z', 'z']).or_else(|| text.strip_suffix(" UTC")).unwrap_or(text);
    let plain = PLAIN.iter().find_map(|format| NaiveDateTime::parse_from_str(plain, format).ok());
    let zoned = || ZONED.iter().find_map(|format| DateTime::parse_from_str(text, format).ok());
    plain.map(|moment| moment.and_utc()).or_else(|| zoned().map(|moment| moment.to_utc()))
}

/// An earlier day or moment, written as the one given is.
pub(crate) fn earlier(text: &str, lag: Duration) -> Option<String> {
    let lag = TimeDelta::from_std(lag).ok()?;
    let day = NaiveDate::parse_from_str(text.get(..10)?, "%Y-%m-%d").ok()?;
    let rest = &text[10..];
    let Some(divider) = rest.chars().next() else {
        let days = lag.num_days() + i64::from(lag > TimeDelta::days(lag.num_days()));
        return Some(day.checked_sub_signed(TimeDelta::days(days))?.format("%Y-%m-%d").to_string());
    };
    if !matches!(divider, ' ' | 'T') {
        return None;
    }
    let clock = &rest[1..];
    let end = clock.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(end);
    let digits = clock.split_once('.').map(|(_, digits)| digits.len());
    let has_seconds = clock.matches(':').count() == 2;
    let full = if has_seconds { clock.to_owned() } else { format!("{clock}:00") };
    let moment = NaiveDateTime::parse_from_str(&format!("{day} {full}"), "%Y-%m-%d %H:%M:%S%.f").ok()?;
    let moment = moment.checked_sub_signed(lag)?;
    let shown = match (digits, has_seconds) {
        (Some(digits), _) => {
            let nanos = moment.format("%9f").to_string();
            format!("{}.{}", moment.format("%H:%M:%S"), nanos.get(..digits.min(9))?)
        }
        (None, true) => moment.format("%H:%M:%S").to_string(),
        (None, false) => moment.format("%H:%M").to_string(),
    };
    Some(format!("{}{divider}{shown}{zone}", moment.format("%Y-%m-%d")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_moment_is_written_as_the_one_given() {
        let hour = Duration::from_secs(3600);
        for (given, wanted) in [
            ("2024-01-01", Some("2023-12-31")),
            ("2024-01-01 00:30:00", Some("2023-12-31 23:30:00")),
            ("2024-01-01T00:30:00Z", Some("2023-12-31T23:30:00Z")),
            ("2024-01-01T00:30:00.120+02:00", Some("2023-12-31T23:30:00.120+02:00")),
            ("2024-01-01 10:15", Some("2024-01-01 09:15")),
            ("1704067200", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(earlier(given, hour).as_deref(), wanted, "{given}");
        }
    }

    #[test]
    fn a_moment_is_read_however_it_is_written() {
        let moment = |text: &str| parse(text).map(|moment| moment.to_rfc3339());
        for text in [
            "2024-01-15T10:00:00Z",
            "2024-01-15T10:00Z",
            "2024-01-15 10:00:00.000",
            "2024-01-15T12:00:00.000+0200",
            "2024-01-15 12:00:00+02",
            "2024-01-15T05:00:00-05:00",
            "2024-01-15 10:00:00 UTC",
            "Mon, 15 Jan 2024 10:00:00 GMT",
        ] {
            assert_eq!(moment(text).as_deref(), Some("2024-01-15T10:00:00+00:00"), "{text}");
        }
        assert_eq!(moment("2024-01-15").as_deref(), Some("2024-01-15T00:00:00+00:00"));
        for text in ["", "2024", "20240115", "2024-13-01", "2024-01-15T", "yesterday", "1705312800", "2024-é1-15"] {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,40}", tail in "[-0-9T:Z+. é]{0,30}") {
            for text in [text.clone(), format!("2024-01-15{tail}"), tail] {
                let _ = parse(&text);
                let _ = earlier(&text, Duration::from_secs(7200));
            }
        }

        #[test]
        fn what_is_written_earlier_is_that_much_earlier(seconds in 0i64..4_000_000_000, lag in 0u64..1_000_000) {
            let moment = DateTime::from_timestamp(seconds, 0).unwrap();
            let text = moment.format("%Y-%m-%dT%H:%M:%SZ").to_string();
            let moved = parse(&earlier(&text, Duration::from_secs(lag)).unwrap()).unwrap();
            proptest::prop_assert_eq!((moment - moved).num_seconds(), i64::try_from(lag).unwrap());
        }
    }
}
