//! What was kept of a row as a function of bytes; see [`crate::fuzzing`].

use super::record::{Record, Value};
use super::{Came, Column, Database, Holds, KeptRows, Way};
use crate::{RejectSink, Scan};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use gristmill_model::spec::OnFail;
use std::sync::Arc;

/// What stands beside a record, a record, and a value of every kind that a text can be taken for in a column of every type.
pub(crate) fn row(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = Came::parse(&text);
    let mut record = Record::default();
    record.add("a", &Value::of(bytes));
    let record = record.finish();
    let ways = [
        Way::Bool,
        Way::Int,
        Way::Uint,
        Way::Real,
        Way::Double,
        Way::Text,
        Way::Hex,
        Way::Day,
        Way::Moment,
        Way::Date,
        Way::Clock,
        Way::List(Box::new(Way::Moment)),
        Way::Each,
    ];
    let plain = [
        DataType::Boolean,
        DataType::Int16,
        DataType::UInt64,
        DataType::Float32,
        DataType::Decimal128(20, 4),
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
    ];
    for way in ways {
        let of = if way == Way::Each { Database::Sqlite } else { Database::Postgres };
        let Some(came) = Came::new(of, [Some(Column::new("a", None, way, Holds::Any))]) else { continue };
        for kind in &plain {
            let list = DataType::List(Arc::new(Field::new_list_field(kind.clone(), true)));
            for kind in [kind.clone(), list] {
                let schema = Arc::new(Schema::new(vec![Field::new("a", kind.clone(), true)]));
                let rejects = Some(RejectSink::none());
                let scan = Scan { schema, batch_size: 10, on_bad_row: OnFail::Drop, rejects };
                let Ok(mut rows) = KeptRows::new(&came, &scan) else { continue };
                let _ = (rows.push(&text, ""), rows.push(&record, ""));
                assert!(rows.finish().is_ok(), "values of {kind} do not make a batch");
            }
        }
    }
}
