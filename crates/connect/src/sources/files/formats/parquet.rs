//! Parquet: footer first, then the columns asked for, row group by row group.

mod footer;
mod traits;

pub(crate) use traits::{Traits, traits};

use super::bytes::{needs_positions, pinned, torn};
use super::decode::{self, Blame, Bridge, distinct_columns};
use super::{FileInput, FileReader, Piece, RowCount, RowGroup, Seen};
use crate::{Rows, Scan};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use gristmill_model::{Error, ErrorKind, Result};
use object_store::{OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, coalesce_ranges};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataReader, ParquetStatisticsPolicy,
    RowGroupMetaData,
};
use parquet::schema::types::Type;
use std::ops::Range;
use std::sync::Arc;

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
    async fn infer(&self, input: &FileInput) -> Result<Seen> {
        let input = input.clone();
        decode::call(Blame::new(&input, "Parquet"), move |bridge| {
            let Opened { metadata, as_written, .. } = open(bridge, &input)?;
            distinct_columns(metadata.schema(), &bridge.blame)?;
            // Whoever reads the rows may be the engine's own scan, which believes what it is told.
            check(metadata.metadata(), &ProjectionMask::all(), input.meta.size, usize::MAX, &bridge.blame)?;
            let rows = u64::try_from(metadata.metadata().file_metadata().num_rows());
            let row_groups = metadata.metadata().row_groups().iter().map(|group| {
                let bytes = group.columns().iter().map(|column| column.compressed_size().unsigned_abs()).sum();
                RowGroup { rows: group.num_rows().unsigned_abs(), bytes }
            });
            let row_groups = row_groups.collect();
            let mut schema = metadata.schema().as_ref().clone();
            let mut columns = metadata.metadata().row_groups().iter().flat_map(|group| group.columns());
            let no_index = columns.any(|column| has_false_index(column, input.meta.size));
            if !as_written || no_index || has_bare_repetition(metadata.parquet_schema().root_schema()) {
                schema.metadata.insert(OURS_ONLY.to_owned(), String::new());
            }
            Ok(Seen { schema: Arc::new(schema), rows: rows.map_or(RowCount::Unknown, RowCount::Exact), row_groups })
        })
        .await
    }

    fn read(&self, input: FileInput, scan: Scan) -> Rows {
        decode::rows(scan, Blame::new(&input, "Parquet"), move |bridge, out| {
            let Opened { reader, metadata, .. } = open(bridge, &input)?;
            let blame = &bridge.blame;
            let roots: Vec<usize> = (metadata.schema().fields().iter().enumerate())
                .filter(|(_, field)| out.scan().schema.field_with_name(field.name()).is_ok())
                .map(|(at, _)| at)
                .collect();
            let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
            let batch_rows = check(metadata.metadata(), &mask, input.meta.size, out.scan().batch_size, blame)?;
            let all = metadata.metadata().row_groups();
            let groups = match input.piece {
                Some(Piece::RowGroups { start, end }) => start..end,
                Some(Piece::Bytes(_)) | None => 0..all.len(),
            };
            let (Some(before), Some(chosen)) = (all.get(..groups.start), all.get(groups.clone())) else {
                return Err(blame.data(format!("it has no row groups {} to {}", groups.start, groups.end)));
            };
            let count = |groups: &[RowGroupMetaData]| groups.iter().map(|group| group.num_rows().unsigned_abs()).sum();
            let (first_row, promised): (u64, u64) = (count(before), count(chosen));
            out.begin_at(first_row);
            let mut batches = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
                .with_projection(mask)
                .with_row_groups(groups.collect())
                .with_batch_size(batch_rows)
                .build()
                .map_err(|error| blame_parquet(blame, &error))?;
            while let Some(batch) = bridge.wait(batches.next()) {
                out.send(&batch.map_err(|error| blame_parquet(blame, &error))?)?;
            }
            let rows = out.rows() - first_row;
            if rows != promised {
                return Err(blame.data(format!("its footer promises {promised} rows, its pages hold {rows}")));
            }
            Ok(())
        })
    }
}

/// A file in a store, as the decoder wants it. Ranges that reach beyond the file are refused before anything is
/// allocated, and what the store says is kept as an error of its own.
struct StoredFile {
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
    length: u64,
    blame: Blame,
}

impl StoredFile {
    fn inside(&self, range: &Range<u64>) -> Result<(), ParquetError> {
        if range.start <= range.end && range.end <= self.length {
            return Ok(());
        }
        Err(ParquetError::EOF(format!("it refers to bytes {} to {} but has {}", range.start, range.end, self.length)))
    }

    async fn pinned(&self, range: Range<u64>) -> Result<Bytes, ParquetError> {
        let bytes = pinned(self.store.as_ref(), &self.meta, range, self.blame.name()).await;
        bytes.map_err(|error| ParquetError::External(Box::new(self.blame.trouble(error))))
    }
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            self.inside(&range)?;
            self.pinned(range).await
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            ranges.iter().try_for_each(|range| self.inside(range))?;
            coalesce_ranges(&ranges, |range| self.pinned(range), OBJECT_STORE_COALESCE_DEFAULT).await
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let length = self.length;
            let prefetch = FOOTER_BYTES.min(usize::try_from(length).unwrap_or(FOOTER_BYTES));
            let reader =
                ParquetMetaDataReader::new().with_arrow_reader_options(options).with_prefetch_hint(Some(prefetch));
            Ok(Arc::new(reader.load_and_finish(self, length).await?))
        }
        .boxed()
    }
}

/// Marks the schema of a file that only our reader reads right: see [`has_bare_repetition`] and [`Opened::as_written`].
pub(in crate::sources::files) const OURS_ONLY: &str = "gristmill.ours_only";

/// Whether the page index, the bloom filter or the column itself is said to be where no bytes are. Our reader asks for
/// none of these; the engine's scan does, and fails.
fn has_false_index(column: &ColumnChunkMetaData, file_bytes: u64) -> bool {
    let outside = |offset: Option<i64>, length: Option<i32>| match (offset, length) {
        (Some(offset), Some(length)) => match (u64::try_from(offset), u64::try_from(length)) {
            (Ok(offset), Ok(length)) => offset.saturating_add(length) > file_bytes || offset >= file_bytes,
            _ => true,
        },
        _ => false,
    };
    outside(column.offset_index_offset(), column.offset_index_length())
        || outside(column.column_index_offset(), column.column_index_length())
        || column.bloom_filter_offset().is_some_and(|at| u64::try_from(at).is_ok_and(|at| at >= file_bytes))
        || column.compressed_size() == 0
}

/// Whether a column repeats that is in no LIST or MAP (`repeated` alone makes a list, says the format's LogicalTypes.md):
/// the engine's scan finds no rows in such a file, and says nothing.
fn has_bare_repetition(root: &Type) -> bool {
    fn below(node: &Type, in_collection: bool) -> bool {
        let info = node.get_basic_info();
        if info.has_repetition() && info.repetition() == Repetition::REPEATED && !in_collection {
            return true;
        }
        if node.is_primitive() {
            return false;
        }
        let collection =
            matches!(info.converted_type(), ConvertedType::LIST | ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE)
                || matches!(info.logical_type_ref(), Some(LogicalType::List | LogicalType::Map));
        node.get_fields().iter().any(|field| below(field, collection))
    }
    root.get_fields().iter().any(|field| below(field, false))
}

/// A file whose footer is understood.
struct Opened {
    reader: StoredFile,
    metadata: ArrowReaderMetadata,
    /// Whether the footer was good as it stood in the file.
    as_written: bool,
}

fn open(bridge: &Bridge, input: &FileInput) -> Result<Opened> {
    needs_positions(input)?;
    if input.meta.size < MIN_FILE_BYTES {
        return Err(torn(&bridge.blame));
    }
    let mut reader = StoredFile {
        store: input.store.clone(),
        meta: input.meta.clone(),
        length: input.meta.size,
        blame: bridge.blame.clone(),
    };
    // Statistics are for those who prune; what is wrong in them is no reason to refuse the rows.
    let options = ArrowReaderOptions::new()
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let mut as_written = true;
    let metadata = match bridge.wait(ArrowReaderMetadata::load_async(&mut reader, options.clone())) {
        Ok(metadata) => metadata,
        Err(error) => {
            as_written = false;
            let second = bridge.wait(load_repaired(&mut reader, options.clone()));
            second.ok_or_else(|| blame_parquet(&bridge.blame, &error))?
        }
    };
    let before = metadata.metadata().clone();
    let metadata = corrected(metadata, options).map_err(|error| blame_parquet(&bridge.blame, &error))?;
    as_written &= Arc::ptr_eq(&before, metadata.metadata());
    Ok(Opened { reader, metadata, as_written })
}

/// Another try with a footer from which was left out what nobody needs for the rows.
async fn load_repaired(reader: &mut StoredFile, options: ArrowReaderOptions) -> Option<ArrowReaderMetadata> {
    let end = reader.length - 8;
    let tail = reader.get_bytes(end..reader.length).await.ok()?;
    let (length, magic) = tail.split_first_chunk::<4>()?;
    if magic != b"PAR1" {
        return None;
    }
    let start = end.checked_sub(u64::from(u32::from_le_bytes(*length)))?;
    let footer = footer::repaired(&reader.get_bytes(start..end).await.ok()?)?;
    let metadata =
        ParquetMetaDataReader::decode_metadata_with_options(&footer, Some(options.metadata_options())).ok()?;
    ArrowReaderMetadata::try_new(Arc::new(metadata), options).ok()
}

/// Old writers left the row count of the whole file zero, or wrote zero where there is no dictionary page. The row
/// groups and the data pages know better, and the decoder believes what it is told.
fn corrected(metadata: ArrowReaderMetadata, options: ArrowReaderOptions) -> Result<ArrowReaderMetadata, ParquetError> {
    let whole = metadata.metadata();
    let file = whole.file_metadata();
    let rows = whole.row_groups().iter().fold(0_i64, |sum, group| sum.saturating_add(group.num_rows()));
    let misplaced = |column: &ColumnChunkMetaData| column.dictionary_page_offset().is_some_and(|at| at <= 0);
    if rows == file.num_rows() && !whole.row_groups().iter().flat_map(|group| group.columns()).any(misplaced) {
        return Ok(metadata);
    }
    let file = FileMetaData::new(
        file.version(),
        rows,
        file.created_by().map(str::to_owned),
        file.key_value_metadata().cloned(),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let mut groups = Vec::with_capacity(whole.row_groups().len());
    for group in whole.row_groups() {
        let mut columns = group.columns().to_vec();
        for column in columns.iter_mut().filter(|column| misplaced(column)) {
            *column = column.clone().into_builder().set_dictionary_page_offset(None).build()?;
        }
        groups.push(group.clone().into_builder().set_column_metadata(columns).build()?);
    }
    ArrowReaderMetadata::try_new(Arc::new(ParquetMetaData::new(file, groups)), options)
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
    let lower = text.to_ascii_lowercase();
    // What the store said comes before what the decoder made of it.
    if matches!(error, ParquetError::External(_)) {
        return blame.data(text);
    }
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
