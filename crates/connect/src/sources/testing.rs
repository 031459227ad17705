//! What the tests of several databases do alike.

use crate::kept::{Came, KeptRows};
use crate::{Again, Connection, OpenContext, ReadRequest, RejectSink, Scan, Source};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::util::display::array_value_to_string;
use gristmill_model::Result;
use gristmill_model::spec::{ExtractSpec, OnFail};
use gristmill_model::yaml::{Diagnostic, decode, parse};
use std::sync::{Arc, Mutex};

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

/// The rows that a reader refuses, as they are kept.
pub(super) async fn kept(source: &dyn Source) -> Vec<(String, Came)> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let seen = kept.clone();
    let sink = RejectSink::telling(move |reject, whence| {
        let Some(Again::Row(came)) = whence.again.as_deref() else { panic!("{reject:?} cannot be read again") };
        seen.lock().unwrap().push((reject.record, Came::parse(came).unwrap()));
    });
    read_with(source, OnFail::DeadLetter, Some(sink)).await.unwrap();
    let kept = kept.lock().unwrap();
    kept.clone()
}

/// What kept rows are by an extract of these keys.
pub(super) fn again(kept: &[(String, Came)], yaml: &str) -> RecordBatch {
    let came = &kept[0].1;
    let schema = Arc::new(Schema::new(came.fields(&extract(yaml)).unwrap()));
    let scan = Scan { schema, batch_size: 1000, on_bad_row: OnFail::Fail, rejects: None };
    let mut rows = KeptRows::new(came, &scan).unwrap();
    for (record, _) in kept {
        rows.push(record, "a letter").unwrap_or_else(|error| panic!("{record}: {error}"));
    }
    rows.finish().unwrap()
}
