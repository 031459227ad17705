//! Parquet: footer first, then the columns asked for, row group by row group.

use super::bytes::{needs_positions, torn};
use super::decode::{self, Blame, Bridge, distinct_columns};
use super::{FileInput, FileReader};
use crate::{Rows, Scan};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use gristmill_model::{Error, ErrorKind, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

/// One read gets most footers whole.
const FOOTER_BYTES: usize = 64 << 10;

/// The shortest file: magic, footer length, magic.
const MIN_FILE_BYTES: u64 = 12;

/// What a batch should not be larger than, as far as the footer tells.
const BATCH_BYTES: u64 = 64 << 20;

/// A value larger than this cannot be read within bounded memory.
const MAX_VALUE_BYTES: u64 = 256 << 20;

#[derive(Debug)]
pub(super) struct ParquetReader;

#[async_trait]
impl FileReader for ParquetReader {
    async fn infer(&self, input: &FileInput) -> Result<(SchemaRef, Option<u64>)> {
        let input = input.clone();
        decode::call(Blame::new(&input, "Parquet"), move |bridge| {
            let (_, metadata) = open(bridge, &input)?;
            distinct_columns(metadata.schema(), &bridge.blame)?;
            let rows = metadata.metadata().file_metadata().num_rows();
            Ok((metadata.schema().clone(), u64::try_from(rows).ok()))
        })
        .await
    }

    fn read(&self, input: FileInput, scan: Scan) -> Rows {
        decode::rows(scan, Blame::new(&input, "Parquet"), move |bridge, out| {
            let (reader, metadata) = open(bridge, &input)?;
            let blame = &bridge.blame;
            let roots: Vec<usize> = (metadata.schema().fields().iter().enumerate())
                .filter(|(_, field)| out.scan().schema.field_with_name(field.name()).is_ok())
                .map(|(at, _)| at)
                .collect();
            let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
            let batch_rows = check(metadata.metadata(), &mask, input.meta.size, out.scan().batch_size, blame)?;
            let promised: i64 = metadata.metadata().row_groups().iter().map(|group| group.num_rows()).sum();
            let mut batches = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
                .with_projection(mask)
                .with_batch_size(batch_rows)
                .build()
                .map_err(|error| blame_parquet(blame, &error))?;
            while let Some(batch) = bridge.wait(batches.next()) {
                out.send(&batch.map_err(|error| blame_parquet(blame, &error))?)?;
            }
            if out.rows() != promised.unsigned_abs() {
                return Err(blame.data(format!("its footer promises {promised} rows, its pages hold {}", out.rows())));
            }
            Ok(())
        })
    }
}

fn open(bridge: &Bridge, input: &FileInput) -> Result<(ParquetObjectReader, ArrowReaderMetadata)> {
    needs_positions(input)?;
    if input.meta.size < MIN_FILE_BYTES {
        return Err(torn(&bridge.blame));
    }
    let mut reader = ParquetObjectReader::new(input.store.clone(), input.meta.location.clone())
        .with_file_size(input.meta.size)
        .with_footer_size_hint(FOOTER_BYTES.min(usize::try_from(input.meta.size).unwrap_or(FOOTER_BYTES)));
    let metadata = bridge
        .wait(ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()))
        .map_err(|error| blame_parquet(&bridge.blame, &error))?;
    Ok((reader, metadata))
}

/// Looks for lies that would cost memory, and says how many rows make a batch.
fn check(
    metadata: &ParquetMetaData,
    mask: &ProjectionMask,
    file_bytes: u64,
    batch_size: usize,
    blame: &Blame,
) -> Result<usize> {
    let mut batch_rows = batch_size.max(1) as u64;
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let rows = u64::try_from(group.num_rows())
            .map_err(|_| blame.data(format!("row group {number} claims {} rows", group.num_rows())))?;
        let mut row_bytes = 0;
        for (at, column) in group.columns().iter().enumerate() {
            if !mask.leaf_included(at) {
                continue;
            }
            let path = column.column_path().string();
            let start = column.dictionary_page_offset().filter(|at| *at > 0).unwrap_or(column.data_page_offset());
            let start = start.min(column.data_page_offset());
            let sizes = (u64::try_from(start), u64::try_from(column.compressed_size()));
            let (Ok(start), Ok(length)) = sizes else {
                return Err(
                    blame.data(format!("column `{path}` of row group {number} lies before the file's beginning"))
                );
            };
            if start.saturating_add(length) > file_bytes {
                return Err(blame
                    .data(format!("column `{path}` of row group {number} reaches beyond the end of the file"))
                    .hint("was it fully written? write or fetch it again"));
            }
            let plain = u64::try_from(column.uncompressed_size()).unwrap_or(0);
            let values = u64::try_from(column.num_values()).unwrap_or(0).max(1);
            if plain / values > MAX_VALUE_BYTES {
                return Err(blame.data(format!(
                    "column `{path}` has values of {} MiB, more than the {} MiB that can be read",
                    (plain / values) >> 20,
                    MAX_VALUE_BYTES >> 20
                )));
            }
            row_bytes += plain / rows.max(1);
        }
        batch_rows = batch_rows.min((BATCH_BYTES / row_bytes.max(1)).max(1));
    }
    Ok(usize::try_from(batch_rows).unwrap_or(1))
}

fn blame_parquet(blame: &Blame, error: &ParquetError) -> Error {
    let text = error.to_string();
    if let ParquetError::External(inner) = error {
        if let Some(store) = inner.downcast_ref::<object_store::Error>() {
            return super::bytes::store_error(store, blame.name());
        }
    }
    let lower = text.to_ascii_lowercase();
    if lower.contains("encrypt") || lower.contains("decrypt") {
        return Error::new(ErrorKind::Data, format!("`{}` is encrypted, which Gristmill cannot read", blame.name()))
            .cause(text)
            .hint("decrypt it with the tool that wrote it");
    }
    if matches!(error, ParquetError::EOF(_))
        || lower.contains("corrupt footer")
        || lower.contains("invalid parquet file")
    {
        return blame
            .data(text)
            .hint("if it was a Parquet file once, it ends before its footer; was it fully written?");
    }
    blame.data(text)
}
