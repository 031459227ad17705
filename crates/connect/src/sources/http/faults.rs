//! Which troubles go away by themselves, told in one place: connection lost, timeouts, cut answers, 429 and 5xx do.

use chrono::{DateTime, Utc};
use gristmill_model::{Error, ErrorKind};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::error::Error as _;
use std::time::Duration;

/// What a status that is no success means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) kind: ErrorKind,
    pub(super) is_transient: bool,
    pub(super) hint: Option<&'static str>,
}

/// What a status means that is neither success nor a redirect.
pub(super) fn of_status(status: u16) -> Meaning {
    let (kind, is_transient, hint) = match status {
        401 => (ErrorKind::Denied, false, Some("look at `auth` of the connection")),
        403 => {
            (ErrorKind::Denied, false, Some("these credentials may not ask for that; look at `auth` of the connection"))
        }
        404 | 410 => (ErrorKind::NotFound, false, Some("look at `path` and at the connection's `url`")),
        407 => (ErrorKind::Denied, false, Some("a proxy on the way wants credentials")),
        // Request timeout, too early, too many requests.
        408 | 425 | 429 => (ErrorKind::Unavailable, true, None),
        // Not implemented, and an HTTP version that is not spoken, stay so.
        501 | 505 => (ErrorKind::Unavailable, false, None),
        500..=599 => (ErrorKind::Unavailable, true, None),
        _ => (
            ErrorKind::Config,
            false,
            Some("the API refuses the request itself; look at `params`, `headers` and `body`"),
        ),
    };
    Meaning { kind, is_transient, hint }
}

/// An answer that did not come, or not whole. `what` is the request, for people.
pub(super) fn of_transport(error: reqwest::Error, what: &str) -> Error {
    // The URL may hold secrets behind its `?`.
    let error = error.without_url();
    let mut causes = Vec::new();
    let mut inner = error.source();
    while let Some(cause) = inner {
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        inner = cause.source();
    }
    let cause = if causes.is_empty() { error.to_string() } else { causes.join(": ") };
    if error.is_builder() {
        return Error::new(ErrorKind::Config, format!("{what} cannot be asked")).cause(cause);
    }
    if cause.contains("certificate") {
        return Error::new(ErrorKind::Denied, format!("{what}: the server's certificate is not trusted"))
            .cause(cause)
            .hint("look at the host name in `url`, and whether the machine trusts the server's authority");
    }
    let message = if error.is_timeout() {
        format!("{what} was not answered in time")
    } else if error.is_connect() {
        format!("{what}: the server cannot be reached")
    } else {
        format!("{what}: the answer was cut off")
    };
    Error::new(ErrorKind::Unavailable, message).cause(cause)
}

/// Whether the server refuses only for now, whatever the status says: some answer 403 where 429 is meant.
pub(super) fn is_limited(status: u16, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let spent = ["x-ratelimit-remaining", "ratelimit-remaining"].iter().any(|name| text(name) == Some("0"));
    status == 429 || (status == 403 && (headers.contains_key(RETRY_AFTER) || spent))
}

/// How long the server asks to wait: `Retry-After`, or where requests are limited the end of the window as it is widely
/// told: `X-RateLimit-Reset` or `RateLimit-Reset`, in seconds from now or as a Unix time.
pub(super) fn told_to_wait(status: u16, headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let told = text(RETRY_AFTER.as_str()).and_then(|value| retry_after(value, now));
    told.or_else(|| {
        let reset = text("x-ratelimit-reset").or_else(|| text("ratelimit-reset"))?;
        let seconds: u64 = reset.trim().parse().ok().filter(|_| is_limited(status, headers))?;
        // Nobody is asked to wait thirty years.
        let is_time = seconds >= 1_000_000_000;
        let since = if is_time { u64::try_from(now.timestamp()).unwrap_or(0) } else { 0 };
        Some(Duration::from_secs(seconds.saturating_sub(since)))
    })
}

/// How long a `Retry-After` asks to wait: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::MAX);
    }
    let date = DateTime::parse_from_rfc2822(value).ok()?;
    Some((date.with_timezone(&Utc) - now).to_std().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_transient_or_not() {
        let transient = |status| of_status(status).is_transient;
        assert!([408, 425, 429, 500, 502, 503, 504, 520, 599].into_iter().all(transient));
        assert!(![400, 401, 403, 404, 405, 409, 410, 415, 422, 451, 501, 505, 600].into_iter().any(transient));
        assert_eq!(of_status(403).kind, ErrorKind::Denied);
        assert_eq!(of_status(404).kind, ErrorKind::NotFound);
        assert_eq!(of_status(422).kind, ErrorKind::Config);
    }

    #[test]
    fn limits_are_told_in_more_than_one_way() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (status, pairs, limited, told) in [
            (429, &[("retry-after", "7"), ("x-ratelimit-reset", "9")][..], true, seconds(7)),
            (429, &[("x-ratelimit-reset", "1700000030")], true, seconds(30)),
            (429, &[("ratelimit-reset", "12")], true, seconds(12)),
            (403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1699999999")], true, seconds(0)),
            (403, &[("retry-after", "60")], true, seconds(60)),
            (403, &[("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "1700000030")], false, None),
            (503, &[("x-ratelimit-reset", "1700000030")], false, None),
            (429, &[], true, None),
        ] {
            let headers = headers(pairs);
            assert_eq!(
                (is_limited(status, &headers), told_to_wait(status, &headers, now)),
                (limited, told),
                "{status} {pairs:?}"
            );
        }
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("1994-11-06T08:49:07Z").unwrap().with_timezone(&Utc);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(retry_after("120", now), seconds(120));
        assert_eq!(retry_after(" 0 ", now), seconds(0));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), seconds(30));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:00 GMT", now), seconds(0));
        assert_eq!(retry_after("99999999999999999999999", now), Some(Duration::MAX));
        for wrong in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after(wrong, now), None, "{wrong}");
        }
    }
}
