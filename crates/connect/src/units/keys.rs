//! Cuts between keys, from what the database knows about their distribution. Pure.
//!
//! The planner's statistics say where the rows are: most common values with their shares, and histogram bounds with the
//! same number of rows between any two. A common value that fills a unit alone gets one; a bucket with more rows than a
//! unit should have is divided evenly, where values of the type can be computed (numbers, dates, timestamps, UUIDs).
//!
//! Whether the cuts are in order is for the server to say, not for this module: it sorts them by its own rules before
//! they become units. So a slip here makes a unit too large or too small, never a row lost.

use super::share::{Edge, Slice};
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta};
use std::cmp::Ordering;

/// What kind of values a key has; how they are computed and rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Integer,
    Numeric,
    Float,
    Date,
    /// With time zone or without.
    Timestamp {
        zoned: bool,
    },
    Uuid,
    /// Whatever else has an order: text, enums, network addresses.
    Other,
}

impl KeyKind {
    /// By the name of the type, as `format_type` gives it without modifier.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "smallint" | "integer" | "bigint" | "oid" => Self::Integer,
            "numeric" => Self::Numeric,
            "real" | "double precision" => Self::Float,
            "date" => Self::Date,
            "timestamp without time zone" => Self::Timestamp { zoned: false },
            "timestamp with time zone" => Self::Timestamp { zoned: true },
            "uuid" => Self::Uuid,
            _ => Self::Other,
        }
    }

    /// Whether ranges of it are ranges of time.
    pub(crate) fn is_time(self) -> bool {
        matches!(self, Self::Date | Self::Timestamp { .. })
    }
}

/// Where rows are, in the order of their keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mass {
    /// About so many rows have this key.
    At(String, f64),
    /// About so many rows have a key between the two.
    Between(String, String, f64),
}

/// A value that the statistics name, in the server's order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Marker {
    pub(crate) value: String,
    /// The share of all rows with this very value, for a common one; none for a bound of the histogram.
    pub(crate) share: Option<f64>,
}

/// Lays out where the rows are. `rows` are all of them, `nulls` the share without a key.
pub(crate) fn masses(markers: &[Marker], rows: f64, nulls: f64) -> Vec<Mass> {
    let common: f64 = markers.iter().filter_map(|marker| marker.share).sum();
    let buckets = markers.iter().filter(|marker| marker.share.is_none()).count().saturating_sub(1);
    let in_bucket = if buckets == 0 { 0.0 } else { rows * (1.0 - nulls - common).max(0.0) / buckets as f64 };
    let bounds: Vec<usize> = (0..markers.len()).filter(|index| markers[*index].share.is_none()).collect();
    let mut masses = Vec::new();
    for (index, marker) in markers.iter().enumerate() {
        if let Some(share) = marker.share {
            masses.push(Mass::At(marker.value.clone(), share * rows));
        }
        let Some(next) = markers.get(index + 1) else { continue };
        // The bucket around this gap, and the number of gaps that common values have cut it into.
        let bucket = bounds.windows(2).find(|pair| pair[0] <= index && index < pair[1]);
        let Some([low, high]) = bucket else { continue };
        let gaps = high - low;
        if marker.value != next.value {
            masses.push(Mass::Between(marker.value.clone(), next.value.clone(), in_bucket / gaps as f64));
        }
    }
    masses
}

/// Cuts in ascending order, each once, for a kind whose values can be computed. One that is not above the one before it is
/// left out, which makes a unit larger and loses nothing.
pub(crate) fn ascending(kind: KeyKind, cuts: Vec<Cut>) -> Vec<Cut> {
    let mut kept: Vec<Cut> = Vec::with_capacity(cuts.len());
    let mut pending = 0.0;
    for cut in cuts {
        pending += cut.rows;
        let is_above = kept.last().is_none_or(|last| match order(kind, &last.edge.value, &cut.edge.value) {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => !last.edge.after && cut.edge.after,
            Some(Ordering::Greater) | None => false,
        });
        if is_above {
            kept.push(Cut { rows: pending, ..cut });
            pending = 0.0;
        }
    }
    kept
}

/// How two values of a kind that can be computed lie to each other; none when one of them cannot be read.
fn order(kind: KeyKind, a: &str, b: &str) -> Option<Ordering> {
    match kind {
        KeyKind::Integer => Some(a.parse::<i128>().ok()?.cmp(&b.parse().ok()?)),
        KeyKind::Numeric => {
            let scale = fraction_digits(a).max(fraction_digits(b));
            Some(unscaled(a, scale)?.cmp(&unscaled(b, scale)?))
        }
        KeyKind::Float => a.parse::<f64>().ok()?.partial_cmp(&b.parse().ok()?),
        KeyKind::Date => Some(parse_date(a)?.cmp(&parse_date(b)?)),
        KeyKind::Timestamp { .. } => Some(parse_timestamp(a)?.cmp(&parse_timestamp(b)?)),
        KeyKind::Uuid => Some(a.parse::<uuid::Uuid>().ok()?.cmp(&b.parse().ok()?)),
        KeyKind::Other => None,
    }
}

/// A cut, and about how many rows lie between it and the one before.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cut {
    pub(crate) edge: Edge,
    pub(crate) rows: f64,
}

/// Cuts so that about `target` rows lie between any two.
pub(crate) fn cuts(masses: &[Mass], kind: KeyKind, target: f64) -> Vec<Cut> {
    let target = target.max(1.0);
    // A rest this small goes along with its neighbour rather than becoming a unit.
    let crumb = target * 0.25;
    let mut found = Vec::new();
    let mut gathered = 0.0;
    let mut cut = |value: &str, after: bool, rows: f64| {
        found.push(Cut { edge: Edge { value: value.to_owned(), after }, rows });
    };
    for (index, mass) in masses.iter().enumerate() {
        let is_last = index + 1 == masses.len();
        match mass {
            Mass::At(value, rows) => {
                if gathered > crumb && gathered + rows > target + crumb {
                    cut(value, false, gathered);
                    gathered = 0.0;
                }
                gathered += rows;
                if gathered >= target - crumb && !is_last {
                    cut(value, true, gathered);
                    gathered = 0.0;
                }
            }
            Mass::Between(low, high, rows) => {
                let mut left = *rows;
                let parts = ((gathered + left) / target).round();
                if parts >= 2.0 {
                    // The places inside at which a unit is full.
                    let wanted: Vec<f64> = (1..parts as u64)
                        .map(|part| (target * part as f64 - gathered) / rows)
                        .filter(|place| *place > 0.0 && *place < 1.0)
                        .collect();
                    let inside = between(kind, low, high, &wanted);
                    let mut passed = 0.0;
                    let mut before = None;
                    for (value, place) in inside.into_iter().zip(&wanted) {
                        // Places that lie close together may be at the same value.
                        if before.as_ref() != Some(&value) {
                            cut(&value, false, gathered + (place - passed) * rows);
                            gathered = 0.0;
                            passed = *place;
                            before = Some(value);
                        }
                    }
                    left = (1.0 - passed) * rows;
                }
                gathered += left;
                if gathered >= target - crumb && !is_last {
                    cut(high, false, gathered);
                    gathered = 0.0;
                }
            }
        }
    }
    match kind {
        KeyKind::Timestamp { zoned } => rounded(found, zoned),
        _ => found,
    }
}

/// Cuts of time at round times, as far as they lie apart. One whose time cannot be read (`infinity`) stays.
fn rounded(cuts: Vec<Cut>, zoned: bool) -> Vec<Cut> {
    let times: Vec<Option<i64>> =
        cuts.iter().map(|cut| parse_timestamp(&cut.edge.value).map(|time| time.and_utc().timestamp_micros())).collect();
    let known: Vec<i64> = times.iter().copied().flatten().collect();
    let (Some(first), Some(last)) = (known.first(), known.last()) else { return cuts };
    let width = last.saturating_sub(*first) / i64::try_from(known.len()).unwrap_or(i64::MAX).max(2).saturating_sub(1);
    let mut rounded: Vec<Cut> = Vec::with_capacity(cuts.len());
    for (cut, time) in cuts.into_iter().zip(times) {
        // Just around a common value, a cut stays where it is.
        let edge = match time.filter(|_| !cut.edge.after).and_then(|time| show_timestamp(floor_to(time, width), zoned))
        {
            Some(value) => Edge { value, after: false },
            None => cut.edge,
        };
        match rounded.last_mut() {
            Some(last) if last.edge == edge => last.rows += cut.rows,
            _ => rounded.push(Cut { edge, rows: cut.rows }),
        }
    }
    rounded
}

/// Values at these places between two others, 0 the one and 1 the other; as many as there are places, or none where
/// values of the kind cannot be computed.
pub(crate) fn between(kind: KeyKind, low: &str, high: &str, places: &[f64]) -> Vec<String> {
    /// 2⁵², the precision at which places are taken.
    const FINE: f64 = 4_503_599_627_370_496.0;
    let whole = |low: i128, high: i128| -> Option<Vec<i128>> {
        let span = high.checked_sub(low)?;
        if span <= places.len() as i128 {
            return None;
        }
        let (coarse, rest) = (span / FINE as i128, span % FINE as i128);
        places
            .iter()
            .map(|place| {
                let fine = (place * FINE) as i128;
                let step = coarse.checked_mul(fine)?.checked_add(rest.checked_mul(fine)? / FINE as i128)?;
                // Never the lower bound itself: the rows below would be none.
                low.checked_add(step.max(1))
            })
            .collect()
    };
    let found: Option<Vec<String>> = match kind {
        KeyKind::Integer => low
            .parse()
            .ok()
            .zip(high.parse().ok())
            .and_then(|(low, high)| whole(low, high))
            .map(|values| values.iter().map(i128::to_string).collect()),
        KeyKind::Numeric => {
            let scale = 3 + fraction_digits(low).max(fraction_digits(high));
            unscaled(low, scale)
                .zip(unscaled(high, scale))
                .and_then(|(low, high)| whole(low, high))
                .map(|values| values.iter().map(|value| scaled(*value, scale)).collect())
        }
        KeyKind::Float => match (low.parse::<f64>(), high.parse::<f64>()) {
            (Ok(low), Ok(high)) if low.is_finite() && high.is_finite() && (high - low).is_finite() => {
                Some(places.iter().map(|place| (low + (high - low) * place).to_string()).collect())
            }
            _ => None,
        },
        KeyKind::Uuid => match (low.parse::<uuid::Uuid>(), high.parse::<uuid::Uuid>()) {
            // Half the range of a UUID fits an i128; the last bit is not missed.
            (Ok(low), Ok(high)) => whole((low.as_u128() >> 1) as i128, (high.as_u128() >> 1) as i128).map(|values| {
                values.iter().map(|value| uuid::Uuid::from_u128((*value as u128) << 1).to_string()).collect()
            }),
            _ => None,
        },
        KeyKind::Date => match (parse_date(low), parse_date(high)) {
            (Some(low), Some(high)) => whole(0, i128::from((high - low).num_days())).map(|days| {
                days.iter()
                    .filter_map(|day| low.checked_add_signed(TimeDelta::days(i64::try_from(*day).ok()?)))
                    .map(|day| day.to_string())
                    .collect()
            }),
            _ => None,
        },
        KeyKind::Timestamp { zoned } => match (parse_timestamp(low), parse_timestamp(high)) {
            (Some(low), Some(high)) => {
                let (low, high) = (low.and_utc().timestamp_micros(), high.and_utc().timestamp_micros());
                whole(i128::from(low), i128::from(high)).map(|values| {
                    values.iter().filter_map(|micros| show_timestamp(i64::try_from(*micros).ok()?, zoned)).collect()
                })
            }
            _ => None,
        },
        KeyKind::Other => None,
    };
    found.filter(|found| found.len() == places.len()).unwrap_or_default()
}

/// Rounds a time down to a day, hour, minute or second, whichever a range of this width has several of. UTC: a day of a
/// time zone with summer time is 23 or 25 hours, which makes a range longer or shorter, nothing else.
fn floor_to(micros: i64, width: i64) -> i64 {
    const SECOND: i64 = 1_000_000;
    let steps = [86_400 * SECOND, 3600 * SECOND, 60 * SECOND, SECOND];
    let step = steps.into_iter().find(|step| width >= *step).unwrap_or(1);
    micros - micros.rem_euclid(step)
}

fn parse_date(text: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()
}

fn parse_timestamp(text: &str) -> Option<NaiveDateTime> {
    let plain = text.strip_suffix("+00").unwrap_or(text);
    NaiveDateTime::parse_from_str(plain, "%Y-%m-%d %H:%M:%S%.f").ok()
}

fn show_timestamp(micros: i64, zoned: bool) -> Option<String> {
    let time = DateTime::from_timestamp_micros(micros)?;
    let text =
        time.format(if time.timestamp_subsec_micros() == 0 { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%d %H:%M:%S%.6f" });
    Some(format!("{text}{}", if zoned { "+00" } else { "" }))
}

fn fraction_digits(text: &str) -> usize {
    text.split_once('.').map_or(0, |(_, fraction)| fraction.len())
}

/// A decimal as a whole number of units of the scale; none when it is too large, NaN or infinite.
fn unscaled(text: &str, scale: usize) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let zeros = scale.checked_sub(fraction.len())?;
    format!("{whole}{fraction}{}", "0".repeat(zeros)).parse().ok()
}

fn scaled(value: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if value < 0 { "-" } else { "" })
}

/// Leaves out cuts so that there are at most `most` of them, evenly; what lay between goes to the next.
pub(crate) fn thin(cuts: Vec<Cut>, most: usize) -> Vec<Cut> {
    if cuts.len() <= most {
        return cuts;
    }
    let all = cuts.len();
    let mut kept: Vec<Cut> = Vec::with_capacity(most);
    let mut pending = 0.0;
    for (index, cut) in cuts.into_iter().enumerate() {
        pending += cut.rows;
        // The last of each of `most + 1` shares of the ranges, but that of the last share.
        if (index + 1) * (most + 1) / (all + 1) > kept.len() && kept.len() < most {
            kept.push(Cut { rows: pending, ..cut });
            pending = 0.0;
        }
    }
    kept
}

/// At most `most` units from cuts that the server has sorted: what each takes, and about how many rows.
pub(crate) fn slices(column: &str, cuts: Vec<Cut>, rows: f64, nulls: f64, target: f64, most: u32) -> Vec<(Slice, f64)> {
    let no_key = rows * nulls;
    // Many NULLs are a unit; a few go with the first, so that they cost no query of their own.
    let apart = no_key > target * 0.5 && most > 1;
    let cuts = thin(cuts, (most.max(1) - 1 - u32::from(apart)) as usize);
    let mut slices = Vec::with_capacity(cuts.len() + 2);
    let mut from: Option<Edge> = None;
    let mut left = rows - no_key;
    for cut in &cuts {
        let nulls = from.is_none() && !apart;
        let slice = Slice::Keys { column: column.to_owned(), from, to: Some(cut.edge.clone()), nulls };
        slices.push((slice, cut.rows + if nulls { no_key } else { 0.0 }));
        from = Some(cut.edge.clone());
        left -= cut.rows;
    }
    let nulls = from.is_none() && !apart;
    let slice = Slice::Keys { column: column.to_owned(), from, to: None, nulls };
    slices.push((slice, left.max(0.0) + if nulls { no_key } else { 0.0 }));
    if apart {
        slices.push((Slice::NoKey { column: column.to_owned() }, no_key));
    }
    slices
}
