//! Columns that say which load a row is of and when it was written.
//!
//! A row of a file is never changed, so it is created and last written at once: when it was staged.

use super::FilesSink;
use crate::Rows;
use crate::sinks::rules::Stamps;
use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Schema, SchemaRef};
use chrono::Utc;
use futures::StreamExt;
use gristmill_model::spec::LoadSpec;
use gristmill_model::{Error, Result};
use std::sync::Arc;

/// The columns of the rows and the stamps behind them.
///
/// # Errors
/// A stamp that is a column of the rows.
pub(super) fn stamped_schema(load: &LoadSpec, schema: &SchemaRef) -> Result<SchemaRef> {
    let stamps = Stamps::new(load);
    // Nothing will be staged: see `LoadContext::schema`.
    if schema.fields().is_empty() || stamps == Stamps::default() {
        return Ok(schema.clone());
    }
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    stamps.check(&names, |a, b| a == b)?;
    let fields: Vec<_> = schema.fields().iter().cloned().chain(stamps.fields()).collect();
    Ok(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

impl FilesSink {
    /// The rows with their stamps.
    pub(super) fn stamped(&self, rows: Rows) -> Rows {
        if self.stamps == Stamps::default() {
            return rows;
        }
        let (schema, stamps, load) = (self.config.rows.clone(), self.stamps.clone(), self.context.key.text());
        let now = Utc::now().timestamp_micros();
        let (of_batch, count) = (schema.clone(), stamps.created.iter().chain(&stamps.updated).count());
        let stamped = rows.map(move |batch| {
            let batch = batch?;
            let mut columns = batch.columns().to_vec();
            if stamps.load.is_some() {
                columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&load, batch.num_rows()))));
            }
            let times = TimestampMicrosecondArray::from_value(now, batch.num_rows()).with_timezone("UTC");
            columns.extend(std::iter::repeat_n(Arc::new(times) as ArrayRef, count));
            RecordBatch::try_new(of_batch.clone(), columns)
                .map_err(|error| Error::internal("rows cannot be stamped").cause(error))
        });
        Rows::new(schema, stamped)
    }
}
