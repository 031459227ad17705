//! Rows as bytes that are equal for equal values, and back: what the scratch database compares and keeps.

use crate::sinks::rules::{Rules, VALID_FROM, VALID_TO};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use gristmill_model::spec::Strategy;
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;

/// A row of the table, as the scratch database keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) key: Vec<u8>,
    pub(super) values: Vec<u8>,
    /// Columns that the load does not have; none in new rows.
    pub(super) others: Option<Vec<u8>>,
    pub(super) from: Option<i64>,
    pub(super) to: Option<i64>,
    pub(super) load: Option<String>,
    pub(super) created: Option<i64>,
    pub(super) updated: Option<i64>,
}

/// Some columns of the table.
#[derive(Debug)]
struct Part {
    /// Their places in the table.
    at: Vec<usize>,
    converter: Option<RowConverter>,
}

impl Part {
    fn new(at: Vec<usize>, schema: &SchemaRef) -> Result<Self> {
        let fields: Vec<SortField> =
            at.iter().map(|&at| SortField::new(schema.field(at).data_type().clone())).collect();
        let converter = (!at.is_empty()).then(|| RowConverter::new(fields)).transpose().map_err(|error| {
            Error::new(ErrorKind::Schema, "a column of the Delta table has a type that cannot be compared").cause(error)
        })?;
        Ok(Self { at, converter })
    }

    fn encode(&self, columns: &[ArrayRef]) -> Result<Option<Rows>> {
        let Some(converter) = &self.converter else { return Ok(None) };
        converter.convert_columns(columns).map(Some).map_err(broken)
    }

    fn decode(&self, rows: &[&[u8]]) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        converter.convert_rows(rows.iter().map(|row| parser.parse(row))).map_err(broken)
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("rows cannot be brought together").cause(error)
}

fn bytes(rows: Option<&Rows>, at: usize) -> Vec<u8> {
    rows.map_or_else(Vec::new, |rows| rows.row(at).as_ref().to_vec())
}

/// The columns of the table, by what they are to the load.
#[derive(Debug)]
pub(super) struct Codec {
    schema: SchemaRef,
    key: Part,
    values: Part,
    others: Part,
    from: Option<usize>,
    to: Option<usize>,
    load: Option<usize>,
    created: Option<usize>,
    updated: Option<usize>,
    key_names: Vec<String>,
}

impl Codec {
    /// `schema`: all columns of the table, as the load leaves it; `own`: those that come with the rows.
    pub(super) fn new(schema: &SchemaRef, own: &SchemaRef, rules: &Rules) -> Result<Self> {
        let place = |name: &str| schema.index_of(name).map_err(broken);
        let stamp = |name: &Option<String>| name.as_deref().map(place).transpose();
        let history = |name: &str| if rules.strategy == Strategy::Scd2 { place(name).map(Some) } else { Ok(None) };
        let key = rules.match_on.iter().map(|name| place(name)).collect::<Result<Vec<_>>>()?;
        let all = own.fields().iter().map(|field| place(field.name())).collect::<Result<Vec<_>>>()?;
        let values: Vec<usize> = all.into_iter().filter(|at| !key.contains(at)).collect();
        let (from, to) = (history(VALID_FROM)?, history(VALID_TO)?);
        let stamps = &rules.stamps;
        let (load, created, updated) = (stamp(&stamps.load)?, stamp(&stamps.created)?, stamp(&stamps.updated)?);
        let ours: Vec<usize> = [from, to, load, created, updated].into_iter().flatten().collect();
        let is_other = |at: &usize| !key.contains(at) && !values.contains(at) && !ours.contains(at);
        let others = (0..schema.fields().len()).filter(is_other).collect();
        Ok(Self {
            key: Part::new(key, schema)?,
            values: Part::new(values, schema)?,
            others: Part::new(others, schema)?,
            schema: schema.clone(),
            from,
            to,
            load,
            created,
            updated,
            key_names: rules.match_on.clone(),
        })
    }

    fn columns(&self, part: &Part, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |at: &usize| {
            let name = self.schema.field(*at).name();
            batch.column_by_name(name).cloned().ok_or_else(|| Error::internal(format!("rows lack `{name}`")))
        };
        part.at.iter().map(column).collect()
    }

    /// The key of each row.
    pub(super) fn keys(&self, batch: &RecordBatch) -> Result<Option<Rows>> {
        self.key.encode(&self.columns(&self.key, batch)?)
    }

    /// In how many rows each column of the key is NULL.
    pub(super) fn nulls(&self, batch: &RecordBatch) -> Result<Vec<usize>> {
        Ok(self.columns(&self.key, batch)?.iter().map(|column| column.logical_null_count()).collect())
    }

    /// New rows, as they were staged.
    pub(super) fn new_rows(&self, batch: &RecordBatch) -> Result<Vec<Kept>> {
        let keys = self.keys(batch)?;
        let values = self.values.encode(&self.columns(&self.values, batch)?)?;
        let row = |at| Kept { key: bytes(keys.as_ref(), at), values: bytes(values.as_ref(), at), ..Kept::default() };
        Ok((0..batch.num_rows()).map(row).collect())
    }

    /// Rows of the table.
    pub(super) fn old_rows(&self, batch: &RecordBatch) -> Result<Vec<Kept>> {
        let others = self.others.encode(&self.columns(&self.others, batch)?)?;
        let time = |place: Option<usize>, at: usize| {
            let times = batch.column(place?).as_primitive_opt::<TimestampMicrosecondType>()?;
            times.is_valid(at).then(|| times.value(at))
        };
        let load = |at: usize| {
            let texts = batch.column(self.load?).as_string_opt::<i32>()?;
            texts.is_valid(at).then(|| texts.value(at).to_owned())
        };
        let rows = self.new_rows(batch)?.into_iter().enumerate().map(|(at, row)| Kept {
            others: others.as_ref().map(|others| others.row(at).as_ref().to_vec()),
            from: time(self.from, at),
            to: time(self.to, at),
            load: load(at),
            created: time(self.created, at),
            updated: time(self.updated, at),
            ..row
        });
        Ok(rows.collect())
    }

    /// Rows as the table has them.
    pub(super) fn batch(&self, rows: &[Kept]) -> Result<RecordBatch> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        let mut put = |part: &Part, arrays: Vec<ArrayRef>| {
            part.at.iter().zip(arrays).for_each(|(&at, array)| columns[at] = Some(array));
        };
        put(&self.key, self.key.decode(&rows.iter().map(|row| row.key.as_slice()).collect::<Vec<_>>())?);
        put(&self.values, self.values.decode(&rows.iter().map(|row| row.values.as_slice()).collect::<Vec<_>>())?);
        // What a new row does not tell is NULL.
        let nothing = self.nothing()?;
        let others = rows.iter().map(|row| row.others.as_deref().unwrap_or(&nothing));
        put(&self.others, self.others.decode(&others.collect::<Vec<_>>())?);
        let times = |place: Option<usize>, of: fn(&Kept) -> Option<i64>| -> Option<(usize, ArrayRef)> {
            let array: TimestampMicrosecondArray = rows.iter().map(of).collect();
            Some((place?, Arc::new(array.with_timezone("UTC"))))
        };
        let load: StringArray = rows.iter().map(|row| row.load.as_deref()).collect();
        let ours = [
            times(self.from, |row| row.from),
            times(self.to, |row| row.to),
            times(self.created, |row| row.created),
            times(self.updated, |row| row.updated),
            self.load.map(|at| (at, Arc::new(load) as ArrayRef)),
        ];
        ours.into_iter().flatten().for_each(|(at, array)| columns[at] = Some(array));
        let columns: Option<Vec<ArrayRef>> = columns.into_iter().collect();
        let columns = columns.ok_or_else(|| Error::internal("a column of the table was forgotten"))?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(broken)
    }

    fn nothing(&self) -> Result<Vec<u8>> {
        let null = |at: &usize| {
            let data_type: &DataType = self.schema.field(*at).data_type();
            arrow::array::new_null_array(data_type, 1)
        };
        let nulls: Vec<ArrayRef> = self.others.at.iter().map(null).collect();
        Ok(bytes(self.others.encode(&nulls)?.as_ref(), 0))
    }

    /// A key's values, for people.
    pub(super) fn shown(&self, key: &[u8]) -> Result<Vec<Option<String>>> {
        let options = FormatOptions::default();
        let show = |array: ArrayRef| -> Result<Option<String>> {
            let text = ArrayFormatter::try_new(array.as_ref(), &options).map_err(broken)?.value(0).to_string();
            Ok(array.is_valid(0).then_some(text))
        };
        self.key.decode(&[key])?.into_iter().map(show).collect()
    }

    /// The columns of the key.
    pub(super) fn key_names(&self) -> &[String] {
        &self.key_names
    }
}
