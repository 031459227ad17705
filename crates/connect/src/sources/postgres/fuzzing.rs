//! What a PostgreSQL server and the files of libpq say as functions of bytes; see [`crate::fuzzing`].

use super::copy::Frames;
#[cfg(test)]
pub(crate) use super::copy::SIGNATURE;
use super::decode::Decoder;
use super::libpq;
use super::types::{Column, Kind};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use std::sync::Arc;

/// A COPY of a row of every kind, in chunks of the size that the first byte says.
pub(crate) fn copy(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let kinds = [
        Kind::Bool,
        Kind::Int2,
        Kind::Int4,
        Kind::Int8,
        Kind::Oid,
        Kind::Float4,
        Kind::Float8,
        Kind::Text,
        Kind::Jsonb,
        Kind::Bytea,
        Kind::Date,
        Kind::Time,
        Kind::Timestamp,
        Kind::TimestampTz,
        Kind::Uuid,
        Kind::Decimal(20, 4),
        Kind::Decimal(60, 10),
        Kind::NumericText,
        Kind::List(Box::new(Kind::Int4)),
        Kind::List(Box::new(Kind::NumericText)),
        Kind::Declared(Box::new(Kind::NumericText), DataType::Int32),
        Kind::Declared(Box::new(Kind::Text), DataType::Decimal256(60, 10)),
        Kind::Declared(Box::new(Kind::Jsonb), DataType::Boolean),
        Kind::Declared(Box::new(Kind::Timestamp), DataType::Date32),
        Kind::Declared(Box::new(Kind::Date), DataType::Timestamp(TimeUnit::Nanosecond, None)),
        Kind::Declared(Box::new(Kind::Time), DataType::Utf8),
        Kind::Declared(Box::new(Kind::Uuid), DataType::Binary),
        Kind::Declared(Box::new(Kind::Float4), DataType::Float64),
    ];
    // All of a row is of the kind that its place says: each kind gets every value.
    for kind in kinds {
        let columns: Vec<Column> = ["a", "b"].map(|name| Column::plain(name, kind.clone())).into();
        let fields: Vec<Field> = columns.iter().map(|column| Field::new(&column.name, kind.arrow(), true)).collect();
        let Ok(mut decoder) = Decoder::new(&columns, Arc::new(Schema::new(fields)), 100) else { continue };
        let mut frames = Frames::new(columns.len());
        'all: for chunk in bytes.chunks(usize::from(*size) + 1) {
            frames.push(Bytes::copy_from_slice(chunk));
            loop {
                match frames.next_row() {
                    Ok(Some((row, spans))) => assert!(decoder.push(row, spans).is_ok(), "a row is too long"),
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
        }
        let _ = frames.finish();
        assert!(decoder.push(bytes, &[Some((0, bytes.len())), None]).is_ok(), "a row is too long");
        assert!(decoder.finish().is_ok(), "values of {kind:?} do not make a batch");
    }
}

/// A password file and a service file.
pub(crate) fn files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = libpq::password(&text, "localhost", 5432, "shop", "etl");
    let _ = libpq::sections(&text);
}
