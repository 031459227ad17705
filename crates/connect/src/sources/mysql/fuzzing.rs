//! Rows of a MySQL server as a function of bytes; see [`crate::fuzzing`].

use super::decode::Decoder;
use super::types::{Column, Form};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use mysql_async::Value;
use std::sync::Arc;

/// A value of every shape that the bytes can be taken for, in a column of every type.
pub(crate) fn values(bytes: &[u8]) {
    let number = |at: usize| bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_le_bytes);
    let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
    let (first, second) = (number(0), number(8));
    let values = [
        Value::NULL,
        Value::Bytes(bytes.to_vec()),
        Value::Int(first.cast_signed()),
        Value::UInt(first),
        Value::Float(f32::from_bits(first as u32)),
        Value::Double(f64::from_bits(first)),
        Value::Date(first as u16, byte(2), byte(3), byte(4), byte(5), byte(6), second as u32),
        Value::Time(byte(7) & 1 == 1, second as u32, byte(2), byte(3), byte(4), first as u32),
    ];
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
        for form in [Form::Plain, Form::Bits, Form::Time(byte(1) % 7)] {
            let columns = [Column::of("x", kind.clone(), form)];
            let schema = Arc::new(Schema::new(vec![Field::new("x", kind.clone(), true)]));
            let Ok(mut decoder) = Decoder::new(&columns, schema, 100) else { continue };
            for value in &values {
                decoder.push(vec![value.clone()]);
            }
            assert!(decoder.finish().is_ok(), "values of {kind} do not make a batch");
        }
    }
}
