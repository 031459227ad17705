//! How a Parquet file is laid out inside, as far as its footer tells: for who writes its rows anew.

use super::super::FileInput;
use super::super::decode::{self, Blame};
use super::{MIN_FILE_BYTES, StoredFile, needs_positions};
use gristmill_model::Result;
use gristmill_model::spec::{Compression, OneOrMany, ParquetOptions, SortBy, Statistics};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Compression as Codec, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

/// What a footer tells of the settings that a file was written with.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Traits {
    /// Whether there are rows: without, nothing else is told.
    pub(crate) rows: bool,
    /// The codec, where we write it. Its level is in no footer.
    pub(crate) compression: Option<Compression>,
    /// Dictionaries, statistics, indexes and filters. How often a filter may be wrong is in no footer.
    pub(crate) options: ParquetOptions,
    /// The rows of the largest row group, where there is more than one.
    pub(crate) row_group_rows: Option<u64>,
    /// The order that the rows are said to have.
    pub(crate) sorted: Vec<SortBy>,
}

/// The traits of a file; none where its footer can be read only with corrections.
///
/// # Errors
/// A file that cannot be opened.
pub(crate) async fn traits(input: &FileInput) -> Result<Traits> {
    let input = input.clone();
    decode::call(Blame::new(&input, "Parquet"), move |bridge| {
        needs_positions(&input)?;
        if input.meta.size < MIN_FILE_BYTES {
            return Ok(Traits::default());
        }
        let mut reader = StoredFile {
            store: input.store.clone(),
            meta: input.meta.clone(),
            length: input.meta.size,
            blame: bridge.blame.clone(),
        };
        let read = bridge.wait(ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()));
        Ok(read.map_or_else(|_| Traits::default(), |metadata| of(metadata.metadata())))
    })
    .await
}

fn of(file: &ParquetMetaData) -> Traits {
    let groups = file.row_groups();
    let chunks = || groups.iter().flat_map(RowGroupMetaData::columns);
    if chunks().next().is_none() || groups.iter().all(|group| group.num_rows() == 0) {
        return Traits::default();
    }
    let any = |has: fn(&ColumnChunkMetaData) -> bool| chunks().any(has);
    // Truth values never have one.
    let may_have_dictionary = any(|chunk| chunk.column_type() != Type::BOOLEAN);
    let no_dictionary = may_have_dictionary && !any(|chunk| chunk.dictionary_page_offset().is_some());
    let statistics = if any(|chunk| chunk.column_index_offset().is_some()) {
        Statistics::Page
    } else if any(|chunk| chunk.statistics().is_some()) {
        Statistics::RowGroup
    } else {
        Statistics::None
    };
    let no_page_index = !any(|chunk| chunk.offset_index_offset().is_some());
    let mut bloom_filter = Vec::new();
    for chunk in chunks().filter(|chunk| chunk.bloom_filter_offset().is_some()) {
        if let [name] = chunk.column_path().parts()
            && !bloom_filter.contains(name)
        {
            bloom_filter.push(name.clone());
        }
    }
    let options = ParquetOptions {
        dictionary: no_dictionary.then_some(false),
        statistics: (statistics != Statistics::default()).then_some(statistics),
        page_index: no_page_index.then_some(false),
        bloom_filter: OneOrMany(bloom_filter),
        ..ParquetOptions::default()
    };
    let largest = groups.iter().map(|group| group.num_rows().unsigned_abs()).max();
    let order = groups.first().map(order).unwrap_or_default();
    let agree = groups.iter().all(|group| self::order(group) == order);
    Traits {
        rows: true,
        compression: chunks().find_map(|chunk| compression(chunk.compression())),
        options,
        row_group_rows: largest.filter(|_| groups.len() > 1),
        sorted: if agree { order } else { Vec::new() },
    }
}

fn compression(codec: Codec) -> Option<Compression> {
    match codec {
        Codec::UNCOMPRESSED => Some(Compression::None),
        Codec::SNAPPY => Some(Compression::Snappy),
        Codec::GZIP(_) => Some(Compression::Gzip),
        Codec::ZSTD(_) => Some(Compression::Zstd),
        Codec::LZ4_RAW | Codec::LZ4 => Some(Compression::Lz4),
        _ => None,
    }
}

/// What a row group says of its order, as far as it is one of whole columns.
fn order(group: &RowGroupMetaData) -> Vec<SortBy> {
    let mut order = Vec::new();
    for by in group.sorting_columns().into_iter().flatten() {
        let column = usize::try_from(by.column_idx).ok().and_then(|at| group.columns().get(at));
        let Some([name]) = column.map(|column| column.column_path().parts()) else { break };
        order.push(SortBy { column: name.clone(), descending: by.descending, nulls_first: by.nulls_first });
    }
    order
}
