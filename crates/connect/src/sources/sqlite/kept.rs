//! Rows that were refused, as they are kept: each value says itself whether it is a number, a text or a blob.

use super::Wanted;
use super::read::{Builder, show};
use super::units::Shape;
use crate::columns::Refusal;
use crate::kept::{Came, Column, Database, Holds, Record, Value, Way};
use crate::types::type_name;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use gristmill_model::Result;
use rusqlite::types::ValueRef;

/// How rows of these columns come.
pub(super) fn came(wanted: &Wanted, shape: &Shape, schema: &SchemaRef) -> Option<Came> {
    let column = |name: &str, kind: &DataType| {
        let is_retyped = wanted.overrides.keys().any(|key| key.eq_ignore_ascii_case(name));
        let own = match shape.columns.iter().find(|(known, _)| known == name) {
            Some((_, declared)) if is_retyped => declared.as_ref(),
            Some(_) => Some(kind),
            None => return None,
        };
        Some(Column::new(name, own, Way::Each, Holds::Any))
    };
    Came::new(Database::Sqlite, schema.fields().iter().map(|field| column(field.name(), field.data_type())))
}

/// A row, value by value.
pub(super) fn record(row: &rusqlite::Row<'_>, schema: &SchemaRef) -> String {
    let mut record = Record::default();
    for (index, field) in schema.fields().iter().enumerate() {
        let value = row.get_ref(index).map_or(Value::Lost(Vec::new()), value);
        record.add(field.name(), &value);
    }
    record.finish()
}

fn value(value: ValueRef<'_>) -> Value<'_> {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Plain(number.to_string().into()),
        // JSON has no word for infinity, but numbers that are as large.
        ValueRef::Real(number) if number.is_infinite() => {
            Value::Plain(if number > 0.0 { "9e999" } else { "-9e999" }.into())
        }
        ValueRef::Real(number) => Value::Plain(format!("{number:?}").into()),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.into()),
            Err(_) => Value::Letters(bytes.to_vec()),
        },
        ValueRef::Blob(bytes) => Value::Bytes(bytes.into()),
    }
}

/// What was kept as SQLite had it; none for what nobody could read.
fn back<'a>(value: &'a Value<'_>) -> Option<ValueRef<'a>> {
    Some(match value {
        Value::Null => ValueRef::Null,
        Value::Plain(text) => match text.parse() {
            Ok(number) => ValueRef::Integer(number),
            Err(_) => ValueRef::Real(text.parse().ok()?),
        },
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
        Value::Letters(bytes) => ValueRef::Text(bytes),
        Value::Bytes(bytes) => ValueRef::Blob(bytes),
        Value::Lost(_) => return None,
    })
}

/// A column of kept rows.
pub(crate) struct KeptColumn {
    values: Builder,
    kind: DataType,
}

impl KeptColumn {
    /// # Errors
    /// A type that a column of SQLite cannot be read as.
    pub(crate) fn new(kind: &DataType) -> Result<Self> {
        Ok(Self { values: Builder::new(kind, 0)?, kind: kind.clone() })
    }

    /// Adds a value; NULL where it does not fit.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn take(&mut self, value: &Value<'_>) -> Result<(), Refusal> {
        let Some(value) = back(value) else {
            self.values.append(ValueRef::Null);
            return Err("a value that could not be kept (run the pipeline again for that date)".to_owned());
        };
        if self.values.append(value) {
            return Ok(());
        }
        Err(format!("{} is not of type `{}`", show(value, 80), type_name(&self.kind)))
    }

    /// Takes the column out; so many rows it has.
    ///
    /// # Errors
    /// Only a bug here.
    pub(crate) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        self.values.finish(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_is_kept_as_it_is(
            integer: i64,
            real in any::<f64>().prop_filter("SQLite has none", |number| !number.is_nan()),
            bytes in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let all = [
                ValueRef::Null,
                ValueRef::Integer(integer),
                ValueRef::Real(real),
                ValueRef::Real(f64::INFINITY),
                ValueRef::Text(&bytes),
                ValueRef::Blob(&bytes),
            ];
            for one in all {
                let kept = value(one);
                let back = back(&kept).unwrap();
                prop_assert_eq!(back, one);
                if let (ValueRef::Real(back), ValueRef::Real(one)) = (back, one) {
                    prop_assert_eq!(back.to_bits(), one.to_bits());
                }
            }
        }
    }
}
