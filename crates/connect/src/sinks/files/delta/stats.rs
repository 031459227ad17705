//! What an `add` says about the values of its file, so that readers can leave it out: from the footer that was written.
//!
//! Only bounds that every reader takes alike: none of floats (NaN is no number to Parquet and the greatest one to Spark),
//! and none of decimals (JSON has no exact ones).

use arrow::datatypes::{DataType, Schema};
use chrono::{DateTime, Datelike};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

/// A bound, comparable with others of its column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Number(i64),
    Text(String),
}

/// The statistics of a file of `schema`, as JSON.
pub(in super::super) fn of_file(groups: &[RowGroupMetaData], schema: &Schema) -> String {
    let rows: i64 = groups.iter().map(RowGroupMetaData::num_rows).sum();
    let (mut least, mut most, mut nulls) = (Map::new(), Map::new(), Map::new());
    for field in schema.fields().iter().filter(|field| !field.data_type().is_nested()) {
        let chunks: Vec<&ColumnChunkMetaData> = groups
            .iter()
            .filter_map(|group| {
                group.columns().iter().find(|chunk| chunk.column_path().parts() == [field.name().as_str()])
            })
            .collect();
        let count = |chunk: &&ColumnChunkMetaData| chunk.statistics().and_then(Statistics::null_count_opt);
        let Some(counts) = chunks.iter().map(count).collect::<Option<Vec<u64>>>() else { continue };
        nulls.insert(field.name().clone(), json!(counts.iter().sum::<u64>()));
        let bounds =
            |(chunk, nulls): (&&ColumnChunkMetaData, &u64)| match bounds(chunk.statistics()?, field.data_type()) {
                // Nothing but NULL has no bounds, and none are missing.
                None if i64::try_from(*nulls).is_ok_and(|nulls| nulls == chunk.num_values()) => Some(None),
                found => found.map(Some),
            };
        let Some(bounds) = chunks.iter().zip(&counts).map(bounds).collect::<Option<Vec<_>>>() else { continue };
        let (mins, maxes): (Vec<Bound>, Vec<Bound>) = bounds.into_iter().flatten().unzip();
        let shown = |bound: Option<Bound>| bound.and_then(|bound| value(bound, field.data_type()));
        if let (Some(min), Some(max)) = (shown(mins.into_iter().min()), shown(maxes.into_iter().max())) {
            least.insert(field.name().clone(), min);
            most.insert(field.name().clone(), max);
        }
    }
    json!({"numRecords": rows, "minValues": least, "maxValues": most, "nullCount": nulls}).to_string()
}

fn bounds(statistics: &Statistics, data_type: &DataType) -> Option<(Bound, Bound)> {
    match (statistics, data_type) {
        (Statistics::Int32(values), DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Date32) => {
            let bound = |value: &i32| Bound::Number(i64::from(*value));
            Some((bound(values.min_opt()?), bound(values.max_opt()?)))
        }
        (Statistics::Int64(values), DataType::Int64 | DataType::Timestamp(..)) => {
            Some((Bound::Number(*values.min_opt()?), Bound::Number(*values.max_opt()?)))
        }
        (Statistics::ByteArray(values), DataType::Utf8) => {
            let bound = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(|text| Bound::Text(text.to_owned()));
            Some((bound(values.min_opt()?.data())?, bound(values.max_opt()?.data())?))
        }
        _ => None,
    }
}

/// A bound as the log writes it.
fn value(bound: Bound, data_type: &DataType) -> Option<Value> {
    let number = match bound {
        Bound::Text(text) => return Some(json!(text)),
        Bound::Number(number) => number,
    };
    let form = match data_type {
        DataType::Date32 => "%Y-%m-%d",
        DataType::Timestamp(_, Some(_)) => "%Y-%m-%dT%H:%M:%S%.6fZ",
        DataType::Timestamp(_, None) => "%Y-%m-%dT%H:%M:%S%.6f",
        _ => return Some(json!(number)),
    };
    let micros = if *data_type == DataType::Date32 { number.checked_mul(86_400_000_000)? } else { number };
    let time = DateTime::from_timestamp_micros(micros)?;
    (1..=9999).contains(&time.year()).then(|| json!(time.format(form).to_string()))
}
