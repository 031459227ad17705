//! Asking for what is new: a parameter with the cursor in it.
//!
//! The cursor is the greatest value among the records that were read. An upper bound that is fixed by our clock would be
//! wrong where the API has another one, and few APIs can be asked for their greatest value. So a record that gets a value
//! below the cursor while, or after, pages are read is only found within `lag`. What the API gives beside what it was asked
//! for (older records, since its parameter counts days, say) is left out by whoever reads.

use super::paginate::Token;
use super::request::Extra;
use crate::{Increment, Next, moment};
use gristmill_model::spec::{HttpIncremental, HttpSpec, Lag, TimeFormat};
use gristmill_model::{Error, ErrorKind, Result};
use serde_json::Value;

/// What is sent beside everything else, and where the next increment begins.
///
/// # Errors
/// [`ErrorKind::Config`] for a lag or format that does not go with the cursor.
pub(super) fn narrow(http: &HttpSpec, increment: &Increment) -> Result<(Vec<Extra>, Next)> {
    let Some(spec) = &http.incremental else {
        return Ok((Vec::new(), Next::Greatest { initial: None, end: None }));
    };
    let start = match &increment.since {
        Some(since) => Some(written(spec, &lower(&increment.column, since, increment.lag)?, &increment.column)?),
        None => spec.initial_value.as_deref().map(|text| as_said(spec, text)),
    };
    let end = spec.end_value.as_deref().map(|text| as_said(spec, text));
    let mut extra = Vec::new();
    for (name, token) in [(Some(&spec.start_param), start), (spec.end_param.as_ref(), end)] {
        if let (Some(name), Some(token)) = (name, token) {
            extra.push(Extra { place: spec.place, name: name.clone(), token });
        }
    }
    Ok((extra, Next::Greatest { initial: spec.initial_value.clone(), end: spec.end_value.clone() }))
}

/// The least value that is asked for, as the records have it.
fn lower(column: &str, since: &Value, lag: Option<Lag>) -> Result<Value> {
    let wrong = |lag: Lag| {
        Error::new(ErrorKind::Config, format!("`lag: {lag}` does not go with `{column}`, which holds {since}"))
            .hint("write a duration such as `2h` for times, a whole number for whole numbers")
    };
    let minus = |number: i64, lag: u64| number.saturating_sub(i64::try_from(lag).unwrap_or(i64::MAX));
    Ok(match (lag, since) {
        (None, since) => since.clone(),
        (Some(Lag::Number(by)), Value::Number(number)) => {
            Value::from(minus(number.as_i64().ok_or_else(|| wrong(Lag::Number(by)))?, by))
        }
        (Some(Lag::Number(by)), Value::String(text)) => {
            Value::from(minus(text.parse().map_err(|_| wrong(Lag::Number(by)))?, by).to_string())
        }
        (Some(Lag::Time(by)), Value::String(text)) => {
            let earlier = moment::earlier(text, by.0).or_else(|| {
                let by = chrono::TimeDelta::from_std(by.0).ok()?;
                Some(moment::parse(text)?.checked_sub_signed(by)?.to_rfc2822())
            });
            Value::from(earlier.ok_or_else(|| wrong(Lag::Time(by)))?)
        }
        (Some(lag), _) => return Err(wrong(lag)),
    })
}

/// A value as it is sent.
fn written(spec: &HttpIncremental, value: &Value, column: &str) -> Result<Token> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let plain = |value: &Value| Token { text: text(value), is_number: value.is_number() };
    let Some(format) = &spec.format else { return Ok(plain(value)) };
    let moment = value.as_str().and_then(moment::parse).ok_or_else(|| {
        Error::new(ErrorKind::Config, format!("`format: {format}` is for times, and `{column}` holds {value}"))
            .hint("leave `format` out: the value is sent as the records have it")
    })?;
    Ok(of(format, moment))
}

/// A value that stands in the pipeline file; what is no time is sent as it stands there.
fn as_said(spec: &HttpIncremental, text: &str) -> Token {
    match (&spec.format, moment::parse(text)) {
        (Some(format), Some(moment)) => of(format, moment),
        _ => Token { text: text.to_owned(), is_number: text.parse::<i64>().is_ok() },
    }
}

fn of(format: &TimeFormat, moment: chrono::DateTime<chrono::Utc>) -> Token {
    Token { text: format.write(moment), is_number: format.is_number() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_model::yaml::{decode, parse};
    use serde_json::json;

    fn asked(yaml: &str, since: Option<Value>, lag: Option<&str>) -> Result<String> {
        let http: HttpSpec = decode(&parse("p.yaml", &format!("incremental: {yaml}")).unwrap()).unwrap();
        let lag = lag.map(|lag| lag.parse().unwrap());
        let increment = Increment { column: "at".into(), since, lag, ..Increment::default() };
        let (extra, _) = narrow(&http, &increment)?;
        Ok(extra.iter().map(|extra| format!("{}={}", extra.name, extra.token.text)).collect::<Vec<_>>().join("&"))
    }

    #[test]
    fn the_cursor_is_sent_less_the_lag_as_the_records_have_it_or_as_the_format_says() {
        let at = || Some(json!("2024-01-15T10:00:00+02:00"));
        for (yaml, since, lag, wanted) in [
            ("{start_param: s}", None, None, ""),
            ("{start_param: s, initial_value: 2024-01-01}", None, Some("2h"), "s=2024-01-01"),
            ("{start_param: s, initial_value: 2024-01-01, format: unix}", None, None, "s=1704067200"),
            ("{start_param: s, initial_value: 0, format: unix}", None, None, "s=0"),
            ("{start_param: s, initial_value: 2024-01-01}", at(), None, "s=2024-01-15T10:00:00+02:00"),
            ("{start_param: s}", at(), Some("2h"), "s=2024-01-15T08:00:00+02:00"),
            ("{start_param: s, format: date}", at(), Some("9h"), "s=2024-01-14"),
            ("{start_param: s, format: unix_ms}", at(), None, "s=1705305600000"),
            ("{start_param: s, end_param: u, end_value: 2024-02-01}", Some(json!(7)), Some("3"), "s=4&u=2024-02-01"),
            ("{start_param: s}", Some(json!("0100")), Some("3"), "s=97"),
            ("{start_param: s}", Some(json!("evt_9")), None, "s=evt_9"),
        ] {
            assert_eq!(asked(yaml, since, lag).unwrap(), wanted, "{yaml}");
        }
        for (yaml, since, lag) in [
            ("{start_param: s}", json!("evt_9"), Some("2h")),
            ("{start_param: s}", json!(7), Some("2h")),
            ("{start_param: s}", json!("2024-01-15"), Some("3")),
            ("{start_param: s, format: iso}", json!(7), None),
        ] {
            assert_eq!(asked(yaml, Some(since), lag).unwrap_err().kind(), ErrorKind::Config, "{yaml}");
        }
    }
}
