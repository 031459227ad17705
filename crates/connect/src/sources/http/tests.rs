//! The connector against `json-server`, a third party's API, and against a server of our own for what goes wrong.

mod faults;
mod lost;
mod pages;
mod refused;

use crate::conformance::sorted_rows;
use crate::{Connection, OpenContext, ReadPlan, ReadRequest, Scan, Source};
use arrow::array::RecordBatch;
use gristmill_model::spec::{ExtractSpec, OnFail};
use gristmill_model::yaml::{decode, parse};
use gristmill_model::{Error, Result};
use std::sync::Arc;

fn try_connect(keys: &str) -> Result<Arc<dyn Connection>, String> {
    let context = OpenContext { project: ".".into(), state: ".".into() };
    super::open(&parse("gristmill.yaml", keys).unwrap(), &context)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn connect(url: &str, keys: &str) -> Arc<dyn Connection> {
    try_connect(&format!("url: {url}\n{keys}")).unwrap()
}

fn extract(yaml: &str) -> ExtractSpec {
    decode(&parse("pipeline.yaml", &format!("from: api\n{yaml}")).unwrap()).unwrap()
}

fn source(connection: &Arc<dyn Connection>, yaml: &str) -> Arc<dyn Source> {
    connection.source(&extract(yaml)).unwrap()
}

async fn plan(source: &dyn Source, parallelism: usize) -> ReadPlan {
    source.plan(&ReadRequest { parallelism, ..ReadRequest::default() }).await.unwrap()
}

/// Plans and reads everything, one unit after the other.
async fn try_read(source: &dyn Source) -> Result<Vec<RecordBatch>, Error> {
    let schema = source.schema().await?;
    let scan = Scan { schema, batch_size: 1000, on_bad_row: OnFail::Fail, rejects: None };
    let mut all = Vec::new();
    for unit in source.plan(&ReadRequest { parallelism: 2, ..ReadRequest::default() }).await?.units {
        all.extend(source.read(&unit, &scan).collect().await?);
    }
    Ok(all)
}

async fn read(source: &dyn Source) -> Vec<String> {
    sorted_rows(&try_read(source).await.unwrap()).unwrap()
}

async fn fails(source: &dyn Source) -> Error {
    try_read(source).await.unwrap_err()
}
