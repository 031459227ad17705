//! Rows of a MySQL server as a function of bytes; see [`crate::fuzzing`].

use super::decode::Decoder;
use super::types::{Column, Form};
use super::wire::row::Raw;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::sync::Arc;

/// Packets of any kind, and a value of every shape that the bytes can be taken for in a column of every type.
pub(crate) fn values(bytes: &[u8]) {
    super::wire::packets(bytes);
    let byte = bytes.get(1).copied().unwrap_or_default();
    let raws = [
        Raw::Null,
        Raw::Int8,
        Raw::UInt8,
        Raw::Int16,
        Raw::UInt16,
        Raw::Int32,
        Raw::UInt32,
        Raw::Int64,
        Raw::UInt64,
        Raw::Float,
        Raw::Double,
        Raw::Date,
        Raw::Time,
        Raw::Bytes,
    ];
    // No value is NULL; a text's length stands before it.
    let plain = [&[0, 0], bytes].concat();
    let text = [&[0, 0, bytes.len().min(250) as u8], &bytes[..bytes.len().min(250)]].concat();
    let kinds = [
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(20, 4),
        DataType::Decimal256(65, 30),
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
    ];
    for kind in kinds {
        for form in [Form::Plain, Form::Bits, Form::Time(byte % 7)] {
            let columns = [Column::of("x", kind.clone(), form)];
            let schema = Arc::new(Schema::new(vec![Field::new("x", kind.clone(), true)]));
            for raw in raws {
                let Ok(mut decoder) = Decoder::new(&columns, vec![raw], schema.clone(), 100) else { continue };
                let row = if raw == Raw::Bytes { &text } else { &plain };
                if decoder.place(row, 0..row.len()).is_some() {
                    decoder.decode(row);
                    assert!(decoder.finish().is_ok(), "values of {kind} do not make a batch");
                }
            }
        }
    }
}
