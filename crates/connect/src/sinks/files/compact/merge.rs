//! Files that are sorted become one stream that is: of the next rows of all, the least one.

use super::BATCH_ROWS;
use crate::Rows;
use arrow::array::RecordBatch;
use arrow::compute::{SortOptions, interleave_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows as Keys, SortField};
use futures::StreamExt;
use gristmill_model::spec::SortBy;
use gristmill_model::{Error, ErrorKind, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The rows of `inputs`, each sorted `by` these columns, in that order. Where one of them is not sorted though it should be,
/// the stream ends with an error and `unsorted` is set.
///
/// # Errors
/// A column that is not there, or has no order.
pub(super) fn merged(inputs: Vec<Rows>, schema: &SchemaRef, by: &[SortBy], unsorted: Arc<AtomicBool>) -> Result<Rows> {
    let mut columns = Vec::with_capacity(by.len());
    let mut fields = Vec::with_capacity(by.len());
    for by in by {
        let at = schema.index_of(&by.column).map_err(wrong)?;
        let options = SortOptions { descending: by.descending, nulls_first: by.nulls_first };
        columns.push(at);
        fields.push(SortField::new_with_options(schema.field(at).data_type().clone(), options));
    }
    let merge = Merge {
        heads: inputs.iter().map(|_| None).collect(),
        inputs,
        converter: RowConverter::new(fields).map_err(wrong)?,
        columns,
        next: BinaryHeap::new(),
        batches: Vec::new(),
        picked: Vec::new(),
        begun: false,
        unsorted,
    };
    let batches =
        futures::stream::try_unfold(
            merge,
            |mut merge| async move { Ok(merge.batch().await?.map(|batch| (batch, merge))) },
        );
    Ok(Rows::new(schema.clone(), batches))
}

fn wrong(error: ArrowError) -> Error {
    Error::new(ErrorKind::Data, "sorted files cannot be merged").cause(error)
}

struct Merge {
    inputs: Vec<Rows>,
    converter: RowConverter,
    /// Where the columns of the order stand.
    columns: Vec<usize>,
    /// Where each input is; none once it is at its end.
    heads: Vec<Option<Head>>,
    /// The next row of each input, the least first.
    next: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    /// The batches that rows are picked of.
    batches: Vec<RecordBatch>,
    /// Batch and row, in the order in which they go out.
    picked: Vec<(usize, usize)>,
    begun: bool,
    unsorted: Arc<AtomicBool>,
}

/// The next row of an input.
struct Head {
    batch: usize,
    row: usize,
    keys: Keys,
}

impl Merge {
    async fn batch(&mut self) -> Result<Option<RecordBatch>> {
        if !self.begun {
            self.begun = true;
            for input in 0..self.inputs.len() {
                self.advance(input, None).await?;
            }
        }
        while self.picked.len() < BATCH_ROWS {
            let Some(Reverse((key, input))) = self.next.pop() else { break };
            if let Some(head) = &self.heads[input] {
                self.picked.push((head.batch, head.row));
            }
            self.advance(input, Some(&key)).await?;
        }
        if self.picked.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let batch = interleave_record_batch(&batches, &self.picked).map_err(wrong)?;
        self.picked.clear();
        // Only what rows are still to be picked of stays.
        let mut kept = Vec::with_capacity(self.heads.len());
        for head in self.heads.iter_mut().flatten() {
            kept.push(self.batches[head.batch].clone());
            head.batch = kept.len() - 1;
        }
        self.batches = kept;
        Ok(Some(batch))
    }

    /// Goes on to the next row of an input, which comes behind `last`.
    async fn advance(&mut self, input: usize, last: Option<&[u8]>) -> Result<()> {
        let head = match self.heads[input].take() {
            Some(head) if head.row + 1 < head.keys.num_rows() => Some(Head { row: head.row + 1, ..head }),
            _ => self.load(input).await?,
        };
        let Some(head) = head else { return Ok(()) };
        let key = head.keys.row(head.row).as_ref().to_vec();
        if last.is_some_and(|last| *last > *key) {
            self.unsorted.store(true, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Data, "a file is not sorted as its footer says"));
        }
        self.next.push(Reverse((key, input)));
        self.heads[input] = Some(head);
        Ok(())
    }

    /// The next batch of an input that has rows.
    async fn load(&mut self, input: usize) -> Result<Option<Head>> {
        while let Some(batch) = self.inputs[input].next().await {
            let batch = batch?;
            if batch.num_rows() > 0 {
                let columns: Vec<_> = self.columns.iter().map(|at| batch.column(*at).clone()).collect();
                let keys = self.converter.convert_columns(&columns).map_err(wrong)?;
                self.batches.push(batch);
                return Ok(Some(Head { batch: self.batches.len() - 1, row: 0, keys }));
            }
        }
        Ok(None)
    }
}
