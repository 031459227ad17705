//! The public conformance suites: what every [`Source`](crate::Source) and every [`Sink`](crate::Sink) must do.
//!
//! An implementation calls [`source_suite`] and [`sink_suite`] from its tests. A suite answers with the first rule that
//! is broken instead of panicking, so that it is ordinary library code: `source_suite(&open).await.unwrap()`.

mod random;
mod retention;
mod scope;
mod sink;
mod source;
mod strategies;

pub use random::random_loads;
pub use scope::scope_suite;
pub use sink::{SinkTarget, sink_suite};
pub use source::source_suite;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use gristmill_model::{Error, Result};

/// The rows of `batches` as texts, one a row, sorted: equal for equal sets of rows, whatever their order and batches.
///
/// # Errors
/// A type that arrow cannot show.
pub fn sorted_rows(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let cannot = |error| Error::internal("cannot show a row").cause(error);
    let options = FormatOptions::default().with_null("∅");
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(cannot)?;
        for row in 0..batch.num_rows() {
            let mut text = String::new();
            for column in &columns {
                text.push_str(&column.value(row).try_to_string().map_err(cannot)?);
                text.push('│');
            }
            rows.push(text);
        }
    }
    rows.sort_unstable();
    Ok(rows)
}

/// An error that names the rule which does not hold.
fn broken(rule: &str, saw: impl std::fmt::Display) -> Error {
    Error::internal(format!("conformance: {rule}: {saw}"))
}

/// Says which rule is broken unless it holds.
fn must(holds: bool, rule: &str, saw: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(broken(rule, saw())) }
}

/// Says which rows differ, if any.
fn same_rows(rule: &str, wanted: &[String], got: &[String]) -> Result<()> {
    must(wanted == got, rule, || {
        let first = wanted.iter().zip(got).find(|(a, b)| a != b);
        let near = first.map_or_else(String::new, |(a, b)| format!("; first difference: wanted `{a}`, got `{b}`"));
        format!("wanted {} rows, got {}{near}", wanted.len(), got.len())
    })
}
