//! Records to batches: by the rules that the database's own reader goes by.

use super::record::{self, Value};
use super::text::items;
use super::{Came, Database, Way};
use crate::Scan;
use crate::columns::{Place, Refusal, no_array};
use crate::declared;
use crate::sources::sqlite::KeptColumn;
use arrow::array::{ArrayRef, BooleanArray, ListArray, NullBufferBuilder, RecordBatch, RecordBatchOptions};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;

/// Reads kept rows again.
pub struct KeptRows {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Where rows go that do not fit still.
    scan: Scan,
    /// Which of the rows are good.
    good: Vec<bool>,
}

/// A column of the batch.
struct Column {
    name: String,
    values: Values,
}

enum Values {
    /// Of PostgreSQL or MySQL, and what its texts are.
    One(Way, declared::Values),
    List(Box<List>),
    Sqlite(KeptColumn),
}

impl std::fmt::Debug for KeptRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptRows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl KeptRows {
    /// `scan.schema` says which columns, and of which types: those of [`Came::fields`].
    ///
    /// # Errors
    /// [`ErrorKind::Data`] for a column that was not kept.
    pub fn new(came: &Came, scan: &Scan) -> Result<Self> {
        let column = |field: &FieldRef| {
            let Some(kept) = came.columns.iter().find(|kept| kept.name == *field.name()) else {
                let message = format!("the column `{}` is not in the dead letters", field.name());
                return Err(Error::new(ErrorKind::Data, message)
                    .cause("only columns that the pipeline asked for when the rows were refused were read")
                    .hint("leave it out, or run the pipeline again for that date"));
            };
            let values = match (came.of, &kept.way, field.data_type()) {
                (Database::Sqlite, _, kind) => Values::Sqlite(KeptColumn::new(kind)?),
                (_, Way::List(way), DataType::List(item)) => Values::List(Box::new(List::new(way, item)?)),
                // The text that was kept is the one that the server would give.
                (_, _, kind @ DataType::Utf8) => Values::One(Way::Text, values_of(kind)?),
                (_, way, kind) => Values::One(way.clone(), values_of(kind)?),
            };
            Ok(Column { name: field.name().clone(), values })
        };
        let columns = scan.schema.fields().iter().map(column).collect::<Result<_>>()?;
        let mut scan = scan.clone();
        scan.rejects = scan.rejects.map(|rejects| rejects.of_rows(Some(came)));
        Ok(Self { schema: scan.schema.clone(), columns, scan, good: Vec::new() })
    }

    /// Takes a record; one that does not fit still is refused again. `place`: where it stood.
    ///
    /// # Errors
    /// What is no record of ours; a row that does not fit, where that fails the load.
    pub fn push(&mut self, record: &str, place: &str) -> Result<()> {
        let values = record::values(record)?;
        let is_there = |column: &&Column| values.iter().any(|(key, _)| *key == column.name);
        if let Some(column) = self.columns.iter().find(|column| !is_there(column)) {
            let message = format!("the record of a dead letter has no column `{}`", column.name);
            return Err(Error::new(ErrorKind::Data, message).hint("run the pipeline again for that date"));
        }
        let mut refused: Vec<String> = Vec::new();
        for Column { name, values: column } in &mut self.columns {
            let Some((_, value)) = values.iter().find(|(key, _)| key == name) else { continue };
            column.take(value, &mut |why| refused.push(format!("column `{name}`: {why}")));
        }
        self.good.push(refused.is_empty());
        if !refused.is_empty() {
            self.scan.refuse(place, record.to_owned(), refused.join("; "))?;
        }
        Ok(())
    }

    /// The good rows of those that were taken.
    ///
    /// # Errors
    /// Only a bug here.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let internal = |error| Error::internal("kept rows do not make a batch").cause(error);
        let good = std::mem::take(&mut self.good);
        let arrays: Vec<ArrayRef> =
            self.columns.iter_mut().map(|column| column.values.finish(good.len())).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(good.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(internal)?;
        filter_record_batch(&batch, &BooleanArray::from(good)).map_err(internal)
    }
}

fn values_of(kind: &DataType) -> Result<declared::Values> {
    declared::Values::new(kind).ok_or_else(|| Error::internal(format!("nothing becomes {kind} here")))
}

impl Values {
    fn take(&mut self, value: &Value<'_>, refuse: &mut dyn FnMut(Refusal)) {
        match (self, value) {
            (Self::Sqlite(column), value) => {
                if let Err(why) = column.take(value) {
                    refuse(why);
                }
            }
            (Self::One(way, values), value) => match bytes_of(value) {
                Ok(bytes) => one(values, way, bytes, refuse),
                Err(why) => {
                    one(values, way, None, refuse);
                    refuse(why);
                }
            },
            (Self::List(list), value) => {
                let items = bytes_of(value).and_then(|bytes| {
                    let text = bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| "no array".to_owned()));
                    text.transpose()?.map(items).transpose()
                });
                match items {
                    Ok(items) => list.take(items.as_deref(), refuse),
                    Err(why) => {
                        list.take(None, refuse);
                        refuse(why);
                    }
                }
            }
        }
    }

    fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        match self {
            Self::One(_, values) => values.finish(rows),
            Self::List(list) => list.finish(rows),
            Self::Sqlite(column) => column.finish(rows),
        }
    }
}

/// The bytes of a value; none of NULL.
fn bytes_of<'a>(value: &'a Value<'_>) -> Result<Option<&'a [u8]>, Refusal> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Plain(text) | Value::Text(text) => text.as_bytes(),
        Value::Bytes(bytes) => bytes,
        Value::Letters(bytes) => bytes,
        Value::Lost(_) => {
            return Err("a value that could not be kept (run the pipeline again for that date)".to_owned());
        }
    }))
}

fn one(values: &mut declared::Values, way: &Way, bytes: Option<&[u8]>, refuse: &mut dyn FnMut(Refusal)) {
    let place = match bytes.map(|bytes| Place::new(0, bytes.len())) {
        Some(Ok(place)) => place,
        _ => Place::null(),
    };
    values.extend(way, bytes.unwrap_or_default(), &[place], &mut |_, why| refuse(why));
}

/// Arrays of PostgreSQL.
struct List {
    field: FieldRef,
    way: Way,
    items: declared::Values,
    length: usize,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl List {
    fn new(way: &Way, field: &FieldRef) -> Result<Self> {
        let way = if *field.data_type() == DataType::Utf8 { Way::Text } else { way.clone() };
        let items = values_of(field.data_type())?;
        Ok(Self { field: field.clone(), way, items, length: 0, ends: vec![0], nulls: NullBufferBuilder::new(0) })
    }

    fn take(&mut self, items: Option<&[Option<String>]>, refuse: &mut dyn FnMut(Refusal)) {
        for item in items.unwrap_or_default() {
            one(&mut self.items, &self.way, item.as_deref().map(str::as_bytes), refuse);
            self.length += 1;
        }
        self.ends.push(i32::try_from(self.length).unwrap_or(i32::MAX));
        self.nulls.append(items.is_some());
    }

    fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        let items = self.items.finish(self.length)?;
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        let ends = std::mem::replace(&mut self.ends, ends);
        self.length = 0;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        Ok(Arc::new(ListArray::try_new(self.field.clone(), offsets, items, self.nulls.finish()).map_err(no_array)?))
    }
}
