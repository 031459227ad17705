//! Rows that targets refuse, and whether a step has refused more rows than it may.

use crate::checks::thousands;
use crate::dead_letters::DeadLetters;
use crate::exec::Refusing;
use crate::meter::Meter;
use gristmill_connect::{RefusedRows, Reject};
use gristmill_model::spec::{MaxRejects, OnFail};
use gristmill_model::{Error, ErrorKind, RefusedBy, StepName};
use std::sync::Arc;

/// What a step with a limit has refused so far.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) step: StepName,
    pub(crate) limit: MaxRejects,
    pub(crate) rejects: u64,
    /// All rows, the refused ones too.
    pub(crate) rows: u64,
    /// A few of them, and why.
    pub(crate) samples: Vec<String>,
}

impl Refused {
    /// The error where it is too much; `over`: no more rows will come.
    pub(crate) fn error(&self, over: bool) -> Option<Error> {
        let Self { step, limit, rejects, rows, samples } = self;
        let exceeded = if over { limit.is_exceeded(*rejects, *rows) } else { limit.is_exceeded_anyway(*rejects) };
        if !exceeded {
            return None;
        }
        let of = if over {
            format!("{} of {} rows", thousands(*rejects), thousands(*rows))
        } else {
            format!("{} {}", thousands(*rejects), if *rejects == 1 { "row" } else { "rows" })
        };
        let examples = if samples.is_empty() { String::new() } else { format!(", e.g. {}", samples.join("; ")) };
        let were = if *rejects == 1 { "was" } else { "were" };
        let message = format!("{of} {were} refused, and `max_rejects: {limit}` allows no more{examples}");
        Some(
            Error::new(ErrorKind::Check, message)
                .hint("nothing was published; mend the rows, or raise `max_rejects` of the step")
                .context(format!("step `{step}`")),
        )
    }
}

/// What becomes of the rows that a load's target refuses; nothing where one of them fails the load.
pub(crate) fn refusing(on_bad_row: OnFail, letters: &Arc<DeadLetters>, meter: &Arc<Meter>) -> Option<Arc<Refusing>> {
    if on_bad_row == OnFail::Fail {
        return None;
    }
    let (letters, meter) = (letters.clone(), meter.clone());
    Some(Arc::new(move |partition| {
        let (letters, meter, unit) = (letters.clone(), meter.clone(), format!("writer {partition}"));
        RefusedRows::new(move |rows, reasons| {
            match on_bad_row {
                OnFail::DeadLetter => letters.rows(&meter.step, RefusedBy::Target, &unit, rows, reasons)?,
                OnFail::Warn => {
                    for why in reasons {
                        let (record, place) = (String::new(), unit.clone());
                        meter.warn(&Reject { record, error: why.clone(), place });
                    }
                    return Ok(());
                }
                OnFail::Drop | OnFail::Fail => {}
            }
            meter.reject(rows.num_rows());
            Ok(())
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_judged_when_all_rows_have_been_seen() {
        let refused = |limit: &str, rejects, rows| Refused {
            step: "v".into(),
            limit: limit.parse().unwrap(),
            rejects,
            rows,
            samples: vec!["a.csv:3: no".to_owned()],
        };
        assert_eq!(refused("10%", 5, 5).error(false), None);
        assert_eq!(refused("10%", 1, 10).error(true), None);
        assert_eq!(refused("2", 2, 3).error(false), None);
        let error = refused("2", 3, 3).error(false).unwrap();
        assert_eq!(error.message(), "3 rows were refused, and `max_rejects: 2` allows no more, e.g. a.csv:3: no");
        assert!(refused("10%", 2, 10).error(true).unwrap().message().starts_with("2 of 10 rows were refused"));
    }
}
