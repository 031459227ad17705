//! What databases ask of arrow's arrays before they are sent.

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use arrow::datatypes::{DurationNanosecondType, Time64NanosecondType, TimestampNanosecondType};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use std::sync::Arc;

/// Whether JSON has a word for values of the type.
pub(crate) fn can_be_json(arrow: &DataType) -> bool {
    let field = Arc::new(Field::new("column", arrow.clone(), true));
    let empty = arrow::array::new_empty_array(arrow);
    make_encoder(&field, &empty, &EncoderOptions::default()).is_ok()
}

/// Values as texts of JSON.
pub(crate) fn json(field: &FieldRef, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, array, &options)?;
    let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 64);
    let mut buffer = Vec::new();
    for row in 0..array.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        buffer.clear();
        encoder.encode(row, &mut buffer);
        texts.append_value(std::str::from_utf8(&buffer).map_err(|error| ArrowError::JsonError(error.to_string()))?);
    }
    Ok(Arc::new(texts.finish()))
}

/// A time that a database of microseconds would have to round, within lists too.
pub(crate) fn between_microseconds(array: &ArrayRef) -> Option<i64> {
    let between = |nanos: &i64| nanos % 1_000 != 0;
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array.as_primitive::<TimestampNanosecondType>().iter().flatten().find(between)
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            array.as_primitive::<Time64NanosecondType>().iter().flatten().find(between)
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            array.as_primitive::<DurationNanosecondType>().iter().flatten().find(between)
        }
        DataType::List(_) => between_microseconds(array.as_list::<i32>().values()),
        _ => None,
    }
}
