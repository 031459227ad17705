//! What the tests of several databases do alike.

use crate::{Connection, OpenContext, ReadRequest, RejectSink, Scan, Source};
use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use gristmill_model::Result;
use gristmill_model::spec::{ExtractSpec, OnFail};
use gristmill_model::yaml::{Diagnostic, decode, parse};
use std::sync::Arc;

/// The connection of these keys.
pub(super) fn connect(yaml: &str) -> Result<Arc<dyn Connection>, Vec<Diagnostic>> {
    let context = OpenContext { project: ".".into(), state: ".gristmill".into() };
    crate::registry::open(&parse("gristmill.yaml", yaml).unwrap(), &context)
}

/// An extract of these keys, `from` left out.
pub(super) fn extract(yaml: &str) -> ExtractSpec {
    decode(&parse("p.yaml", &format!("from: db\n{yaml}\n")).unwrap()).unwrap()
}

/// All rows, unit after unit.
pub(super) async fn read_with(
    source: &dyn Source,
    on_bad_row: OnFail,
    rejects: Option<RejectSink>,
) -> Result<Vec<RecordBatch>> {
    let scan = Scan { schema: source.schema().await?, batch_size: 1000, on_bad_row, rejects };
    let plan = source.plan(&ReadRequest { parallelism: 4, ..ReadRequest::default() }).await?;
    let mut batches = Vec::new();
    for unit in &plan.units {
        batches.extend(source.read(unit, &scan).collect().await?);
    }
    Ok(batches)
}

/// All rows; a bad one is an error.
pub(super) async fn read(source: &dyn Source) -> Result<Vec<RecordBatch>> {
    read_with(source, OnFail::Fail, None).await
}

/// The first row's values as texts.
pub(super) async fn first_row(source: &dyn Source) -> Vec<String> {
    let batches = read(source).await.unwrap();
    batches[0].columns().iter().map(|column| array_value_to_string(column, 0).unwrap()).collect()
}
