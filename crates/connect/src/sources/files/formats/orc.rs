//! ORC, through orc-rust.

#[cfg(test)]
pub(super) mod crafted;
mod lengths;
mod tail;

use super::bytes::{Positioned, torn};
use super::decode::{self, Blame, Bridge, distinct_columns};
use super::{FileInput, FileReader, RowCount, Seen};
use crate::{Rows, Scan};
use async_trait::async_trait;
use gristmill_model::Result;
use orc_rust::arrow_reader::ArrowReaderBuilder;
use orc_rust::projection::ProjectionMask;
use orc_rust::schema::DataType;

#[derive(Debug)]
pub(super) struct OrcReader;

#[async_trait]
impl FileReader for OrcReader {
    async fn infer(&self, input: &FileInput) -> Result<Seen> {
        let input = input.clone();
        decode::call(Blame::new(&input, "ORC"), move |bridge| {
            let (_, builder) = open(bridge, &input)?;
            let schema = builder.schema();
            distinct_columns(&schema, &bridge.blame)?;
            Ok(Seen::new(schema, RowCount::Exact(builder.file_metadata().number_of_rows())))
        })
        .await
    }

    fn read(&self, input: FileInput, scan: Scan) -> Rows {
        decode::rows(scan, Blame::new(&input, "ORC"), move |bridge, out| {
            let (file, builder) = open(bridge, &input)?;
            let blame = &bridge.blame;
            let promised = builder.file_metadata().number_of_rows();
            let root = builder.file_metadata().root_data_type();
            let mut names: Vec<&str> = (root.children().iter())
                .map(|column| column.name())
                .filter(|name| out.scan().schema.field_with_name(name).is_ok())
                .collect();
            if names.is_empty() {
                // Rows are counted by a column; without one the decoder makes none.
                names.extend(root.children().first().map(|column| column.name()));
            }
            let mask = ProjectionMask::named_roots(root, &names);
            let wanted: Vec<&DataType> = (root.children().iter())
                .filter(|column| names.contains(&column.name()))
                .map(|column| column.data_type())
                .collect();
            let batch_rows = batch_rows(builder.file_metadata(), out.scan().batch_size);
            let batch_rows = lengths::batch_rows(&file, builder.file_metadata(), &wanted, batch_rows)
                .map_err(|error| blame.data(error))?;
            let batches = builder.with_projection(mask).with_batch_size(batch_rows).build();
            for batch in batches {
                out.send(&batch.map_err(|error| blame.data(error))?)?;
            }
            if out.rows() != promised {
                return Err(blame.data(format!("its footer promises {promised} rows, its stripes hold {}", out.rows())));
            }
            Ok(())
        })
    }
}

fn open(bridge: &Bridge, input: &FileInput) -> Result<(Positioned, ArrowReaderBuilder<Positioned>)> {
    let file = Positioned::open(bridge, input)?;
    if file.length() < 4 {
        return Err(torn(&bridge.blame));
    }
    let blamed = |cause: String| {
        bridge.blame.data(cause).hint("if it was an ORC file once, it ends before its footer; was it fully written?")
    };
    let file = tail::complete(file).map_err(blamed)?;
    let builder = ArrowReaderBuilder::try_new(file.clone()).map_err(|error| blamed(error.to_string()))?;
    Ok((file, builder))
}

/// Fewer rows than asked for where stripes say that rows are large.
fn batch_rows(metadata: &orc_rust::reader::metadata::FileMetadata, batch_size: usize) -> usize {
    /// What a batch should not be larger than, as far as the stripes tell.
    const BATCH_BYTES: u64 = 32 << 20;
    metadata.stripe_metadatas().iter().fold(batch_size.max(1), |rows, stripe| {
        let row_bytes = stripe.data_length() / stripe.number_of_rows().max(1);
        rows.min(usize::try_from(BATCH_BYTES / row_bytes.max(1)).unwrap_or(usize::MAX).max(1))
    })
}
