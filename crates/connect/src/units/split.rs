//! Dividing a unit that is about to be read into a first part and the rest. Pure.
//!
//! **Invariant:** whatever the sizes are believed to be, the two parts are disjoint and together they are the whole.

use super::decide::TARGET_ROWS;
use super::share::{Edge, Share, Slice};
use gristmill_model::WorkUnit;

/// Parts of fewer rows are not worth their statement, unless units of that size were asked for.
const LEAST_ROWS: u64 = TARGET_ROWS / 4;
/// While a range turns out larger than was thought, each part is to be so much larger than the one before.
const GROWTH: u64 = 2;

/// How a range of keys is to be divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The rows of the first part.
    pub(crate) part: u64,
    /// Those to expect in the rest.
    pub(crate) rest: u64,
}

impl Wish {
    /// For a unit of about `rows`, of which a reader should have `most`; none where it is read as it is.
    pub(crate) fn of(slice: &Slice, rows: u64, most: u64, target: Option<u64>) -> Option<Self> {
        let Slice::Keys { from, to, .. } = slice else { return None };
        let part = part(most, target);
        // Statistics know the ranges between known keys; those at the ends take what nobody has seen.
        let open = from.is_none() || to.is_none();
        let is_worth_it = open || is_larger(rows, most.max(part));
        is_worth_it.then(|| Self { part, rest: rest(rows, part, most, open) })
    }
}

/// How many rows a part should have: what was asked for, within what is worth it.
pub(crate) fn part(most: u64, target: Option<u64>) -> u64 {
    let least = target.map_or(LEAST_ROWS, |target| (target / 4).clamp(1, LEAST_ROWS));
    let target = target.unwrap_or(TARGET_ROWS).max(1);
    most.clamp(least, target.saturating_mul(2).max(least))
}

/// How many rows to expect in the rest of a unit, of which a part of `part` rows was taken. Of a range that is open at an end
/// and held that part, statistics may know nothing: so many that the next part, which is to its rest as `most` is to `rows`,
/// grows.
fn rest(rows: u64, part: u64, most: u64, open: bool) -> u64 {
    let left = rows.saturating_sub(part).max(1);
    let shares = rows.div_ceil(most.max(1)).max(1);
    if open { left.max(part.saturating_mul(GROWTH).saturating_mul(shares)) } else { left }
}

/// Whether a unit of about `rows` is large enough that a rest of it is worth a statement of its own.
pub(crate) fn is_larger(rows: u64, part: u64) -> bool {
    rows > part.saturating_add(part / 2)
}

/// A range of keys up to a value, which is in it, and the rest. The value is one that the server has found in the range: it
/// lies between its ends by the server's own order.
pub(crate) fn keys(slice: &Slice, value: String) -> Option<(Slice, Slice)> {
    let Slice::Keys { column, from, to, nulls } = slice else { return None };
    let edge = Edge { value, after: true };
    Some((
        Slice::Keys { column: column.clone(), from: from.clone(), to: Some(edge.clone()), nulls: *nulls },
        Slice::Keys { column: column.clone(), from: Some(edge), to: to.clone(), nulls: false },
    ))
}

/// The two parts of a unit, each with its rows, as units. They have the unit's own number: whoever keeps the book of the plan
/// gives the second one a number of its own.
pub(crate) fn units(
    unit: &WorkUnit,
    share: &Share,
    whole: &str,
    parts: [(Slice, u64); 2],
) -> Option<(WorkUnit, WorkUnit)> {
    let all = unit.rows?.max(1);
    let unit_of = |(slice, rows): (Slice, u64)| {
        let bytes = unit.bytes.map(|bytes| (bytes as f64 * rows as f64 / all as f64) as u64);
        let label = slice.label(whole);
        let payload = serde_json::to_value(Share { slice, ..share.clone() }).ok()?;
        Some(WorkUnit { ordinal: unit.ordinal, label, payload, rows: Some(rows), bytes })
    };
    let [first, rest] = parts;
    Some((unit_of(first)?, unit_of(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_large_as_is_asked_for_within_what_is_worth_it() {
        assert_eq!(part(30_000, None), 30_000);
        assert_eq!(part(10, None), LEAST_ROWS);
        assert_eq!(part(10_000_000, None), 100_000);
        assert_eq!(part(10, Some(1000)), 250);
        assert_eq!(part(10_000, Some(1000)), 2000);
        assert_eq!(part(0, Some(1)), 1);
        assert!(is_larger(16, 10) && !is_larger(15, 10));
        assert_eq!(rest(1000, 100, 100, false), 900);
        // A range that hides rows, for four connections that take an eighth each time.
        let (mut rows, mut parts) = (40_000, Vec::new());
        for _ in 0..6 {
            let most = rows / 8;
            parts.push(part(most, None));
            rows = rest(rows, parts[parts.len() - 1], most, true);
        }
        assert!(parts.is_sorted() && parts[0] == LEAST_ROWS && parts[5] == 2 * TARGET_ROWS, "{parts:?}");
    }
}
