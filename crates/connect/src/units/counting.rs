//! Whether the rows that the units of a plan give are compared with what the database counts in the same picture. Pure.

use gristmill_model::spec::Verify;

/// Up to this size counting takes a small part of what sending the rows takes, out of pages that are in memory anyway. From
/// here on it costs what a second reading does.
const COUNTED_BYTES: u64 = 512 << 20;

/// Whether the rows of a plan are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// The user wants it; without it the read fails.
    Must,
    /// Nobody has said otherwise.
    Does,
    /// Why not, for people.
    Not(&'static str),
    /// There is nothing to compare, or nobody wants to know.
    Never,
}

/// What is known of a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Divided {
    pub(crate) units: usize,
    /// Whether numbers alone tell the units apart (pages, ranges of whole numbers), and not the order of some type.
    pub(crate) by_number: bool,
    pub(crate) is_aggregated: bool,
    /// How much would be read to count.
    pub(crate) bytes: Option<u64>,
}

impl Counting {
    /// The rule: what is divided is counted, but where numbers alone tell units apart and counting would cost a second
    /// reading, and where nobody knows what it would cost.
    pub(crate) fn of(verify: Option<Verify>, divided: Divided) -> Self {
        match (verify, divided.bytes) {
            (Some(Verify::Count), _) => Self::Must,
            (Some(Verify::None), _) => Self::Never,
            (None, _) if divided.units <= 1 => Self::Never,
            (None, _) if divided.is_aggregated => {
                Self::Not("no rows come; `verify: count` reads them all, and does the rest here")
            }
            (None, None) => Self::Not("what that would cost is not known; `verify: count` does it all the same"),
            (None, Some(bytes)) if divided.by_number && bytes > COUNTED_BYTES => {
                Self::Not("that would read more than 512 MiB once more; `verify: count` does it all the same")
            }
            (None, Some(_)) => Self::Does,
        }
    }

    /// Whether rows are counted.
    pub(crate) fn counts(self) -> bool {
        matches!(self, Self::Must | Self::Does)
    }

    /// What a plan says of it, after its other reasons.
    pub(crate) fn said(self) -> String {
        match self {
            Self::Must | Self::Does => "; the database counts the rows, too".to_owned(),
            Self::Not(why) => format!("; the rows are not counted: {why}"),
            Self::Never => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_divided_is_counted_where_that_is_cheap_or_the_units_are_in_doubt() {
        let (small, large) = (Some(1 << 20), Some(1 << 30));
        let of = |verify, units, by_number, bytes| {
            Counting::of(verify, Divided { units, by_number, is_aggregated: false, bytes })
        };
        assert_eq!(of(None, 2, true, small), Counting::Does);
        assert_eq!(of(None, 2, false, large), Counting::Does);
        assert!(matches!(of(None, 2, true, large), Counting::Not(_)));
        assert!(matches!(of(None, 2, false, None), Counting::Not(_)));
        assert_eq!(of(None, 1, false, small), Counting::Never);
        assert_eq!(of(Some(Verify::None), 2, false, small), Counting::Never);
        assert_eq!(of(Some(Verify::Count), 1, true, None), Counting::Must);
        let sums = Divided { units: 2, by_number: true, is_aggregated: true, bytes: small };
        assert!(Counting::of(None, sums).said().starts_with("; the rows are not counted: no rows come"));
    }
}
