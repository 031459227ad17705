//! Dividing what is asked into units: ranges of pages, or of parents.

use super::paginate::Share;
use super::request::Fields;
use gristmill_model::spec::{UnitStrategy, UnitsSpec};
use gristmill_model::{Error, ErrorKind, Result, WorkUnit};
use serde::{Deserialize, Serialize};

/// Units of a plan, at most, where nothing else is said: as for databases.
const MOST_UNITS: u32 = 400;

/// Units for each lane, so that a slow one does not hold the others up at the end.
const UNITS_A_LANE: u64 = 4;

/// What a unit says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Said {
    /// How many columns there are, where all of them are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) whole: Option<usize>,
    pub(super) requests: Payload,
}

/// What a unit says about its requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Payload {
    /// One sequence, from its first page to its last.
    Sequence {},
    /// Pages `from` to `to` (exclusive), from 0.
    Pages {
        from: u64,
        to: u64,
        open: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first: Option<u64>,
        /// Records of a full page, where they are counted by the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
    /// One sequence for each of these parents.
    Parents { parents: Vec<Fields> },
}

/// A unit to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    pub(super) label: String,
    pub(super) requests: Payload,
    /// Rows, about; 0 where nobody knows.
    pub(super) rows: u64,
}

/// Refuses what units of an API have not.
///
/// # Errors
/// [`ErrorKind::Config`], naming it.
pub(super) fn check(spec: &UnitsSpec) -> Result<()> {
    let wrong = |message: String, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint));
    if !matches!(spec.strategy, UnitStrategy::Auto | UnitStrategy::Pages | UnitStrategy::None) {
        return wrong(
            format!("`strategy: {}` of `units` is not for an API", spec.strategy.as_str()),
            "use `strategy: pages`, or `none` for one unit",
        );
    }
    if spec.verify.is_some() {
        return wrong(
            "`verify` of `units` is not for an API".to_owned(),
            "leave it out: an API has nothing to count with",
        );
    }
    Ok(())
}

/// The lengths of so many ranges that `count` things are divided into.
fn lengths(count: u64, per_unit: Option<u64>, lanes: usize, spec: &UnitsSpec) -> Vec<u64> {
    let most = u64::from(spec.max.unwrap_or(MOST_UNITS).max(1));
    let wanted = match per_unit {
        Some(per_unit) => count.div_ceil(per_unit.max(1)),
        None => (lanes.max(1) as u64).saturating_mul(UNITS_A_LANE),
    };
    let units = wanted.min(most).min(count).max(1);
    (0..units).map(|unit| count * (unit + 1) / units - count * unit / units).collect()
}

/// What the first page says about all.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    /// How many records it has.
    pub(super) records: u64,
    /// Its hash, where no other page may be like it.
    pub(super) hash: Option<u64>,
    /// All pages were counted by its size.
    pub(super) is_measure: bool,
}

/// The units of so many pages.
pub(super) fn of_pages(count: u64, first: First, lanes: usize, spec: &UnitsSpec) -> Vec<Draft> {
    let size = first.records;
    let per_unit = spec.target_rows.filter(|_| size > 0).map(|rows| rows.div_ceil(size));
    let mut from = 0;
    lengths(count, per_unit, lanes, spec)
        .into_iter()
        .map(|length| {
            let to = from + length;
            let payload = Payload::Pages {
                from,
                to,
                open: to == count,
                first: first.hash.filter(|_| from > 0),
                size: first.is_measure.then_some(size),
            };
            let label = if length == 1 { format!("page {to}") } else { format!("pages {} to {to}", from + 1) };
            from = to;
            Draft { label, requests: payload, rows: length.saturating_mul(size) }
        })
        .collect()
}

/// The units of these parents.
pub(super) fn of_parents(parents: &[Fields], lanes: usize, spec: &UnitsSpec) -> Vec<Draft> {
    let mut from = 0;
    let mut units = Vec::new();
    for length in lengths(parents.len() as u64, None, lanes, spec) {
        let to = parents.len().min(from + usize::try_from(length).unwrap_or(usize::MAX));
        let some = parents.get(from..to).unwrap_or_default().to_vec();
        let label = match length {
            0 => "no parents".to_owned(),
            1 => format!("parent {to}"),
            _ => format!("parents {} to {to}", from + 1),
        };
        from = to;
        units.push(Draft { label, requests: Payload::Parents { parents: some }, rows: length });
    }
    units
}

/// One sequence of requests: its share of the pages, and its parent.
pub(super) type One = (Option<Share>, Option<Fields>);

/// The sequences of a unit, and how many columns there are where all of them are wanted.
///
/// # Errors
/// A unit that is not one of an API.
pub(super) fn sequences(unit: &WorkUnit) -> Result<(Vec<One>, Option<usize>)> {
    let said: Said = serde_json::from_value(unit.payload.clone())
        .map_err(|error| Error::internal(format!("the unit `{}` is not one of an API", unit.label)).cause(error))?;
    let sequences = match said.requests {
        Payload::Sequence {} => vec![(None, None)],
        Payload::Pages { from, to, open, first, size } => {
            vec![(Some(Share { pages: from..to, open, first, size }), None)]
        }
        Payload::Parents { parents } => parents.into_iter().map(|parent| (None, Some(parent))).collect(),
    };
    Ok((sequences, said.whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_the_whole_and_differ_by_one_at_most(
            count in 0_u64..5_000, per_unit in prop::option::of(0_u64..60), lanes in 0_usize..20, max in prop::option::of(1_u32..50),
        ) {
            let spec = UnitsSpec { max, ..UnitsSpec::default() };
            let lengths = lengths(count, per_unit, lanes, &spec);
            prop_assert_eq!(lengths.iter().sum::<u64>(), count);
            prop_assert!(!lengths.is_empty() && lengths.len() as u64 <= u64::from(max.unwrap_or(MOST_UNITS)));
            let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
            prop_assert!(most - least <= 1);
        }
    }

    #[test]
    fn only_the_last_range_of_pages_is_open_and_all_but_the_first_know_the_first_page() {
        let first = First { records: 50, hash: Some(7), is_measure: false };
        let units = of_pages(10, first, 1, &UnitsSpec { target_rows: Some(200), ..UnitsSpec::default() });
        let payloads: Vec<&Payload> = units.iter().map(|unit| &unit.requests).collect();
        assert_eq!(
            payloads,
            [
                &Payload::Pages { from: 0, to: 3, open: false, first: None, size: None },
                &Payload::Pages { from: 3, to: 6, open: false, first: Some(7), size: None },
                &Payload::Pages { from: 6, to: 10, open: true, first: Some(7), size: None },
            ]
        );
        assert_eq!(
            units.iter().map(|unit| unit.label.as_str()).collect::<Vec<_>>(),
            ["pages 1 to 3", "pages 4 to 6", "pages 7 to 10"]
        );
    }

    #[test]
    fn strategies_of_databases_are_refused() {
        let error = check(&UnitsSpec { strategy: UnitStrategy::Ctid, ..UnitsSpec::default() }).unwrap_err();
        assert!(error.message().contains("`strategy: ctid`"));
    }
}
