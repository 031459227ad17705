//! How many units, and what a strategy that the user names makes of them: the same for every database. Pure.

use super::thousands;
use gristmill_model::spec::{UnitStrategy, UnitsSpec, Verify};
use gristmill_model::{Error, ErrorKind, Result};

/// Fewer rows than this are one unit: reading them should take little longer than a further connection with its snapshot.
/// Like the bounds below, a choice that no benchmark has been run for yet.
pub(crate) const ONE_UNIT: u64 = 50_000;
/// About how many rows a unit has (the Dataflow document's figure). Larger units save nothing, since a connection goes
/// from unit to unit without a new transaction; smaller ones make retries cheaper.
pub(crate) const TARGET_ROWS: u64 = 50_000;
/// The most units of a plan. Each is a statement on the server; beyond this they become larger instead.
pub(crate) const MOST_UNITS: u32 = 400;

/// How the units are made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Chosen {
    One,
    /// PostgreSQL only.
    Ctid {
        units: u32,
    },
    /// At most `most` ranges of about `target` rows.
    Keys {
        column: String,
        most: u32,
        target: f64,
        time: bool,
    },
    Hash {
        column: String,
        units: u32,
    },
    Predicates,
}

/// A decision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    pub(crate) chosen: Chosen,
    /// The strategy's name and the reason, for people.
    pub(crate) why: String,
}

/// How many units so many rows make: near the target, up to the cap.
pub(crate) fn count(rows: u64, spec: &UnitsSpec) -> u32 {
    let target = spec.target_rows.unwrap_or(TARGET_ROWS).max(1);
    u32::try_from(rows.div_ceil(target)).unwrap_or(u32::MAX).clamp(1, most(spec))
}

/// The most units there may be.
pub(crate) fn most(spec: &UnitsSpec) -> u32 {
    spec.max.unwrap_or(MOST_UNITS).max(1)
}

/// Whether the server has to be asked more before it can be decided: small tables and queries of which nothing special is
/// wanted are one unit, and no snapshot is exported for them.
pub(crate) fn needs_facts(spec: &UnitsSpec, rows: Option<u64>, is_query: bool) -> bool {
    match spec.strategy {
        _ if spec.verify == Some(Verify::Count) => true,
        UnitStrategy::None => false,
        UnitStrategy::Auto if is_query => false,
        UnitStrategy::Auto => spec.target_rows.is_some() || rows.is_none_or(|rows| rows >= ONE_UNIT),
        _ => true,
    }
}

/// About how many rows a unit should have. When the cap on their number makes units larger, they are cut for the larger
/// size.
pub(crate) fn target(rows: u64, spec: &UnitsSpec) -> f64 {
    let target = spec.target_rows.unwrap_or(TARGET_ROWS).max(1) as f64;
    target.max(rows as f64 / f64::from(count(rows, spec)))
}

/// What a strategy makes that goes by a column or by conditions. `key` is the one column of the primary key.
///
/// # Errors
/// No column to go by; another strategy than one of these.
pub(crate) fn asked(spec: &UnitsSpec, key: Option<&str>, rows: u64) -> Result<Decision> {
    let strategy = spec.strategy;
    let said = |name: &str| format!("{name}, as `units` says");
    let by = || {
        spec.by.clone().or_else(|| key.map(str::to_owned)).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("`strategy: {}` needs the column to go by", strategy.as_str()))
                .cause("there is no primary key of one column")
                .hint("name it: `units: {strategy: …, by: COLUMN}`")
        })
    };
    match strategy {
        UnitStrategy::IdRange | UnitStrategy::DateRange => {
            let (column, time) = (by()?, strategy == UnitStrategy::DateRange);
            let why = said(&format!("ranges of `{column}`"));
            Ok(Decision { chosen: Chosen::Keys { column, most: most(spec), target: target(rows, spec), time }, why })
        }
        UnitStrategy::Hash => {
            let column = by()?;
            let why = said(&format!("the hash of `{column}` (each unit scans everything)"));
            Ok(Decision { chosen: Chosen::Hash { column, units: count(rows, spec) }, why })
        }
        UnitStrategy::Predicates => Ok(Decision { chosen: Chosen::Predicates, why: said("predicates") }),
        UnitStrategy::Files | UnitStrategy::ByteRange => Err(Error::new(
            ErrorKind::Config,
            format!("`strategy: {}` is for files, and this is a database", strategy.as_str()),
        )
        .hint("use `auto`, `id_range`, `hash`, `predicates` or `none`")),
        UnitStrategy::Pages => {
            Err(Error::new(ErrorKind::Config, "`strategy: pages` is for HTTP APIs, and this is a database")
                .hint("use `auto`, `id_range`, `hash`, `predicates` or `none`"))
        }
        UnitStrategy::None | UnitStrategy::Auto | UnitStrategy::Ctid => {
            Err(Error::internal(format!("`strategy: {}` goes by no column", strategy.as_str())))
        }
    }
}

/// The figures of a plan, for `plan` and the log: estimated rows, strategy and reason, units, rows per unit, a sample.
pub(crate) fn describe(why: &str, rows: Option<u64>, units: usize, sample: &str) -> String {
    let rows_text = rows.map_or_else(|| "an unknown number of".to_owned(), |rows| format!("about {}", thousands(rows)));
    if units <= 1 {
        return format!("{rows_text} rows; {why}");
    }
    let each =
        rows.map_or_else(String::new, |rows| format!(" of about {} rows", thousands(rows.div_ceil(units as u64))));
    format!("{rows_text} rows; {why}; {} units{each}, such as `{sample}`", thousands(units as u64))
}
