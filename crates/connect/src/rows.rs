//! A stream of arrow batches that knows its schema.

use crate::RefusedRows;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::stream::{BoxStream, Stream, StreamExt};
use gristmill_model::{Error, Result};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The stream inside [`Rows`].
pub type BoxRows = BoxStream<'static, Result<RecordBatch>>;

/// A stream of arrow batches, all of one schema.
pub struct Rows {
    schema: SchemaRef,
    stream: BoxRows,
    refused: Option<RefusedRows>,
}

impl Rows {
    /// Wraps a stream; every batch must have `schema`.
    pub fn new(schema: SchemaRef, stream: impl Stream<Item = Result<RecordBatch>> + Send + 'static) -> Self {
        Self { schema, stream: stream.boxed(), refused: None }
    }

    /// The same rows, of which a target may refuse some: it sends them there and goes on with the others.
    #[must_use]
    pub fn refusing(self, refused: Option<RefusedRows>) -> Self {
        Self { refused, ..self }
    }

    /// Where a target sends rows that it refuses; `None`: one of them fails the load.
    #[must_use]
    pub fn refused(&self) -> Option<&RefusedRows> {
        self.refused.as_ref()
    }

    /// Rows that are already there.
    #[must_use]
    pub fn from_batches(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self::new(schema, futures::stream::iter(batches.into_iter().map(Ok)))
    }

    /// A stream that fails at once.
    #[must_use]
    pub fn failed(schema: SchemaRef, error: Error) -> Self {
        Self::new(schema, futures::stream::once(async move { Err(error) }))
    }

    /// The schema of every batch.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Reads everything into memory; for tests and small lookups only.
    ///
    /// # Errors
    /// The first error of the stream.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.stream.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

impl Stream for Rows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(context)
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// A row as text; what could not be read is missing in it.
pub(crate) fn record(batch: &RecordBatch, row: usize) -> String {
    const MOST: usize = 64 << 10;
    let options = FormatOptions::default().with_null("null");
    let mut text = String::from("{");
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if text.len() > 1 {
            text.push_str(", ");
        }
        text.push_str(field.name());
        text.push_str(": ");
        if let Ok(formatter) = ArrayFormatter::try_new(column.as_ref(), &options) {
            text.push_str(&formatter.value(row).try_to_string().unwrap_or_default());
        }
        if text.len() > MOST {
            let end = (0..=MOST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            break;
        }
    }
    text.push('}');
    text
}
