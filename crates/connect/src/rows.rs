//! A stream of arrow batches that knows its schema.

use crate::RefusedRows;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
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
