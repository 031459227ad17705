//! Reading: a thread steps through the statement and fills typed builders; batches leave through a bounded channel.

use super::kept;
use super::picture::{Lent, Picture};
use super::units::{Shape, look, no_such_column};
use super::values::{Moment, integer_to_decimal, parse_time, real_to_decimal, text_to_decimal};
use super::{Wanted, What};
use crate::cells::truth;
use crate::units::share::Slice;
use crate::{Aggregation, Reject, RejectSink, Rows, Scan};
use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanArray, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float64Builder, Int64Builder, NullArray, PrimitiveArray, RecordBatch, RecordBatchOptions, StringBuilder,
};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{
    DataType, SchemaRef, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use futures::StreamExt;
use gristmill_model::spec::OnFail;
use gristmill_model::{Error, ErrorKind, Result};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use std::fmt::Write;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Batches that may wait for whoever computes with them; more would only cost memory.
const WAITING: usize = 2;

/// A batch is also full when its texts and blobs have so many bytes.
const BATCH_BYTES: usize = 16 << 20;

/// After so many steps of its virtual machine SQLite asks whether anybody still wants the rows: about a millisecond.
const STEPS: i32 = 100_000;

/// What the thread sends: batches, and at the end a word, so that a thread that died is not taken for an end.
enum Message {
    Batch(RecordBatch),
    End,
}

/// A unit to be read.
pub(super) struct Unit {
    pub(super) wanted: Arc<Wanted>,
    /// The picture it is part of; none when it is one of its own.
    pub(super) picture: Option<Arc<Picture>>,
    pub(super) slice: Slice,
    /// This of its rows, in place of them.
    pub(super) aggregation: Option<Aggregation>,
    pub(super) ordinal: u32,
    pub(super) label: String,
}

/// Starts reading when the rows are first asked for.
pub(super) fn start(unit: Unit, scan: Scan) -> Rows {
    let schema = scan.schema.clone();
    let stream = futures::stream::once(async move {
        let (sender, receiver) = mpsc::channel(WAITING);
        let shared = match &unit.picture {
            None => Ok(None),
            Some(picture) => Lent::of(picture).await.map(Some),
        };
        let begun = shared.and_then(|shared| {
            let thread = std::thread::Builder::new().name("gristmill-sqlite".to_owned());
            let spawned = thread.spawn(move || {
                let context = |error: Error| error.context(format!("reading `{}`", unit.label));
                let outcome = read_unit(&unit, shared, &scan, &sender).map_err(context);
                // Nobody listening is how a reader stops early.
                let _ = sender.blocking_send(outcome.map(|()| Message::End));
            });
            spawned.map(|_| ()).map_err(|error| Error::io(&error, "a thread to read SQLite"))
        });
        let failed = begun.err().map(Err);
        futures::stream::iter(failed).chain(receive(receiver))
    })
    .flatten();
    Rows::new(schema, stream)
}

fn receive(receiver: mpsc::Receiver<Result<Message>>) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Ok(Message::Batch(batch))) => Some((Ok(batch), Some(receiver))),
            Some(Ok(Message::End)) => None,
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(Error::internal("the thread that reads SQLite stopped")), None)),
        }
    })
}

/// Reads a unit, on a connection of its picture or on one of its own.
fn read_unit(unit: &Unit, shared: Option<Lent>, scan: &Scan, sender: &mpsc::Sender<Result<Message>>) -> Result<()> {
    let (Some(lent), Some(picture)) = (shared, &unit.picture) else {
        let connection = unit.wanted.database.open_to_read()?;
        connection.execute_batch("BEGIN").map_err(|error| unit.wanted.database.explain(error))?;
        return read(unit, &connection, scan, sender).map(|_| ());
    };
    let connection = lent.connection()?;
    match read(unit, connection, scan, sender)? {
        Some(rows) => picture.end_unit(&unit.wanted, connection, unit.ordinal, rows),
        None => Ok(()),
    }
}

/// Gives the number of rows that were read; none when nobody wanted the rest.
fn read(
    unit: &Unit,
    connection: &Connection,
    scan: &Scan,
    sender: &mpsc::Sender<Result<Message>>,
) -> Result<Option<u64>> {
    let wanted = unit.wanted.as_ref();
    let database = &wanted.database;
    let listener = sender.clone();
    connection.progress_handler(STEPS, Some(move || listener.is_closed()));
    // What `look` sees and what is read are one picture.
    let shape = look(wanted, connection)?;
    let names = shape.names();
    let columns = match &unit.aggregation {
        Some(aggregation) => aggregation.columns(),
        None => scan.schema.fields().iter().map(|field| field.name().clone()).collect(),
    };
    if let Some(unknown) = columns.iter().find(|column| !names.contains(column)) {
        return Err(no_such_column(&names, unknown));
    }
    let mut sql = match &unit.aggregation {
        Some(aggregation) => super::aggregate::sql(aggregation, &shape, &unit.slice),
        None => shape.select(columns.iter().map(String::as_str), &unit.slice),
    };
    if let Some(limit) = wanted.limit {
        let _ = write!(sql, " LIMIT {limit}");
    }
    let explain = |error| database.explain_sql(connection, error, &names);
    let mut statement = connection.prepare(&sql).map_err(explain)?;
    let rowid = shape.rowid.filter(|_| unit.aggregation.is_none());
    let mut filling = Filling::new(wanted, &shape, rowid, scan)?;
    let mut rows = statement.raw_query();
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(_) if sender.is_closed() => return Ok(None),
            Err(error) => return Err(explain(error)),
        };
        filling.take(row)?;
        if filling.is_full()
            && let Some(batch) = filling.finish()?
            && sender.blocking_send(Ok(Message::Batch(batch))).is_err()
        {
            return Ok(None);
        }
    }
    let rows = filling.taken;
    if let Some(batch) = filling.finish()? {
        let _ = sender.blocking_send(Ok(Message::Batch(batch)));
    }
    Ok(Some(rows))
}

/// A batch on its way.
struct Filling<'a> {
    scan: &'a Scan,
    rejects: Option<RejectSink>,
    columns: Vec<Builder>,
    /// Where the row id stands in the result, and the place's name.
    rowid: Option<usize>,
    place: String,
    /// Rows taken so far, over all batches.
    taken: u64,
    /// Rows in this batch, refused ones included.
    rows: usize,
    /// Bytes of texts and blobs in this batch.
    bytes: usize,
    /// Refused rows of this batch.
    refused: Vec<usize>,
}

impl<'a> Filling<'a> {
    fn new(wanted: &Wanted, shape: &Shape, rowid: Option<&str>, scan: &'a Scan) -> Result<Self> {
        let fields = scan.schema.fields();
        let columns =
            fields.iter().map(|field| Builder::new(field.data_type(), scan.batch_size)).collect::<Result<Vec<_>>>()?;
        let place = match &wanted.what {
            What::Table { name, .. } => name.clone(),
            What::Query(_) => "query".to_owned(),
        };
        let rowid = rowid.map(|_| fields.len());
        let came = kept::came(wanted, shape, &scan.schema);
        let rejects = scan.rejects.clone().map(|rejects| rejects.of_rows(came.as_ref()));
        Ok(Self { scan, rejects, columns, rowid, place, taken: 0, rows: 0, bytes: 0, refused: Vec::new() })
    }

    fn is_full(&self) -> bool {
        self.rows >= self.scan.batch_size.max(1) || self.bytes >= BATCH_BYTES
    }

    /// Takes a row over.
    fn take(&mut self, row: &rusqlite::Row<'_>) -> Result<()> {
        self.taken += 1;
        let mut wrong = None;
        for (index, column) in self.columns.iter_mut().enumerate() {
            let value = row.get_ref(index).map_err(|error| Error::internal("a value cannot be read").cause(error))?;
            if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = value {
                self.bytes += bytes.len();
            }
            if !column.append(value) && wrong.is_none() {
                wrong = Some(index);
            }
        }
        if let Some(index) = wrong {
            self.refuse(row, index)?;
        }
        self.rows += 1;
        Ok(())
    }

    /// A value did not fit (and a NULL stands in its place): the read fails, or the row is left out.
    fn refuse(&mut self, row: &rusqlite::Row<'_>, index: usize) -> Result<()> {
        let field = self.scan.schema.field(index);
        let value = row.get_ref(index).map_or_else(|_| "?".to_owned(), |value| show(value, 80));
        let place = match self.rowid.and_then(|rowid| row.get::<_, i64>(rowid).ok()) {
            Some(rowid) => format!("{}: rowid {rowid}", self.place),
            None => format!("{}: row {}", self.place, self.taken),
        };
        let kind = crate::types::type_name(field.data_type());
        let message = format!("column `{}`: {value} is not of type `{kind}`", field.name());
        if self.scan.on_bad_row == OnFail::Fail {
            return Err(Error::new(ErrorKind::Data, message).context(place).hint(format!(
                "read the column as another type, `schema: {{{}: text}}`, or leave such rows out with `on_bad_row: drop`",
                field.name()
            )));
        }
        if let Some(rejects) = &self.rejects {
            rejects.send(Reject { record: kept::record(row, &self.scan.schema), error: message, place });
        }
        self.refused.push(self.rows);
        Ok(())
    }

    /// The batch, if there is a row in it.
    fn finish(&mut self) -> Result<Option<RecordBatch>> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if rows == 0 {
            return Ok(None);
        }
        let columns = self.columns.iter_mut().map(|column| column.finish(rows)).collect::<Result<Vec<_>>>()?;
        let batch = batch(&self.scan.schema, columns, rows)?;
        let refused = std::mem::take(&mut self.refused);
        if refused.is_empty() {
            return Ok(Some(batch));
        }
        let mut keep = vec![true; rows];
        for row in refused {
            keep[row] = false;
        }
        let kept = filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(arrow_failed)?;
        Ok((kept.num_rows() > 0).then_some(kept))
    }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(arrow_failed)
}

fn arrow_failed(error: arrow::error::ArrowError) -> Error {
    Error::internal("rows of SQLite cannot be put into a batch").cause(error)
}

/// A value for a message, at most about `limit` bytes of it.
pub(super) fn show(value: ValueRef<'_>, limit: usize) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(value) => format!("`{value}`"),
        ValueRef::Real(value) => format!("`{value:?}`"),
        ValueRef::Text(bytes) => {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]);
            let more = if bytes.len() > limit { "…" } else { "" };
            format!("`{}{more}`", shown.escape_debug())
        }
        ValueRef::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
    }
}

/// Whether values can be read as `kind`.
pub(crate) fn can_read(kind: &DataType) -> bool {
    Builder::new(kind, 0).is_ok()
}

/// A column on its way: SQLite's value to arrow's.
pub(super) enum Builder {
    /// Whole numbers within a range; narrower ones are cast at the end, when nothing can be lost.
    Integer {
        values: Int64Builder,
        least: i64,
        most: i64,
        kind: DataType,
    },
    Real(Float64Builder),
    /// Rounded to the nearest of 32 bits, since that is what was asked for.
    Real32(Float64Builder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Boolean(BooleanBuilder),
    Date(Date32Builder),
    Timestamp {
        values: Int64Builder,
        per_second: i64,
        kind: DataType,
    },
    Time(Int64Builder),
    Decimal {
        values: Decimal128Builder,
        precision: u8,
        scale: i8,
    },
    Nothing,
}

impl Builder {
    pub(super) fn new(kind: &DataType, rows: usize) -> Result<Self> {
        let integer = |least: i64, most: i64| Self::Integer {
            values: Int64Builder::with_capacity(rows),
            least,
            most,
            kind: kind.clone(),
        };
        Ok(match kind {
            DataType::Int8 => integer(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => integer(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => integer(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => integer(i64::MIN, i64::MAX),
            DataType::UInt8 => integer(0, u8::MAX.into()),
            DataType::UInt16 => integer(0, u16::MAX.into()),
            DataType::UInt32 => integer(0, u32::MAX.into()),
            DataType::UInt64 => integer(0, i64::MAX),
            DataType::Float64 => Self::Real(Float64Builder::with_capacity(rows)),
            DataType::Float32 => Self::Real32(Float64Builder::with_capacity(rows)),
            DataType::Utf8 => Self::Text(StringBuilder::with_capacity(rows, rows * 8)),
            DataType::Binary => Self::Binary(BinaryBuilder::with_capacity(rows, rows * 8)),
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Date32 => Self::Date(Date32Builder::with_capacity(rows)),
            DataType::Timestamp(unit, _) => Self::Timestamp {
                values: Int64Builder::with_capacity(rows),
                per_second: match unit {
                    TimeUnit::Second => 1,
                    TimeUnit::Millisecond => 1_000,
                    TimeUnit::Microsecond => 1_000_000,
                    TimeUnit::Nanosecond => 1_000_000_000,
                },
                kind: kind.clone(),
            },
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(Int64Builder::with_capacity(rows)),
            DataType::Decimal128(precision, scale) if *scale >= 0 => Self::Decimal {
                values: Decimal128Builder::with_capacity(rows).with_data_type(kind.clone()),
                precision: *precision,
                scale: *scale,
            },
            DataType::Null => Self::Nothing,
            other => {
                let message = format!("a column of SQLite cannot be read as `{}`", crate::types::type_name(other));
                return Err(Error::new(ErrorKind::Schema, message).hint("read it as `text`"));
            }
        })
    }

    /// Adds a value; NULL, and false, where it does not fit.
    #[inline]
    pub(super) fn append(&mut self, value: ValueRef<'_>) -> bool {
        let null = matches!(value, ValueRef::Null);
        match self {
            Self::Integer { values, least, most, .. } => {
                let number = to_integer(value).filter(|number| (*least..=*most).contains(number));
                values.append_option(number);
                null || number.is_some()
            }
            Self::Real(values) => {
                let number = to_real(value);
                values.append_option(number);
                null || number.is_some()
            }
            Self::Real32(values) => {
                let fits = |number: &f64| !number.is_finite() || number.abs() <= f64::from(f32::MAX);
                let number = to_real(value).filter(fits);
                values.append_option(number);
                null || number.is_some()
            }
            Self::Text(values) => append_text(values, value),
            Self::Binary(values) => match value {
                ValueRef::Blob(bytes) | ValueRef::Text(bytes) => {
                    values.append_value(bytes);
                    true
                }
                _ => {
                    values.append_null();
                    null
                }
            },
            Self::Boolean(values) => {
                let truth = to_boolean(value);
                values.append_option(truth);
                null || truth.is_some()
            }
            Self::Date(values) => {
                let day = match value {
                    ValueRef::Text(text) if text.len() == 10 => super::values::parse_day(text),
                    other => to_moment(other).and_then(Moment::day),
                };
                values.append_option(day);
                null || day.is_some()
            }
            Self::Timestamp { values, per_second, .. } => {
                let moment = to_moment(value).and_then(|moment| moment.in_units(*per_second));
                values.append_option(moment);
                null || moment.is_some()
            }
            Self::Time(values) => {
                let time = match value {
                    ValueRef::Text(text) => parse_time(text),
                    _ => None,
                };
                values.append_option(time);
                null || time.is_some()
            }
            Self::Decimal { values, precision, scale } => {
                let decimal = match value {
                    ValueRef::Integer(number) => integer_to_decimal(number, *precision, *scale),
                    ValueRef::Real(number) => real_to_decimal(number, *precision, *scale),
                    ValueRef::Text(text) => text_to_decimal(text, *precision, *scale),
                    _ => None,
                };
                values.append_option(decimal);
                null || decimal.is_some()
            }
            Self::Nothing => null,
        }
    }

    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        Ok(match self {
            Self::Integer { values, kind: DataType::Int64, .. } => Arc::new(values.finish()),
            Self::Integer { values, kind, .. } => cast(&values.finish(), kind).map_err(arrow_failed)?,
            Self::Real(values) => Arc::new(values.finish()),
            Self::Real32(values) => cast(&values.finish(), &DataType::Float32).map_err(arrow_failed)?,
            Self::Text(values) => Arc::new(values.finish()),
            Self::Binary(values) => Arc::new(values.finish()),
            Self::Boolean(values) => Arc::new(values.finish()),
            Self::Date(values) => Arc::new(values.finish()),
            Self::Timestamp { values, kind, .. } => match kind {
                DataType::Timestamp(TimeUnit::Second, _) => same_bits::<TimestampSecondType>(values, kind)?,
                DataType::Timestamp(TimeUnit::Millisecond, _) => same_bits::<TimestampMillisecondType>(values, kind)?,
                DataType::Timestamp(TimeUnit::Nanosecond, _) => same_bits::<TimestampNanosecondType>(values, kind)?,
                _ => same_bits::<TimestampMicrosecondType>(values, kind)?,
            },
            Self::Time(values) => same_bits::<Time64MicrosecondType>(values, &DataType::Time64(TimeUnit::Microsecond))?,
            Self::Decimal { values, .. } => Arc::new(values.finish()),
            Self::Nothing => Arc::new(NullArray::new(rows)),
        })
    }
}

/// The numbers as another type of the same 64 bits.
fn same_bits<T: ArrowPrimitiveType<Native = i64>>(values: &mut Int64Builder, kind: &DataType) -> Result<ArrayRef> {
    let (_, numbers, nulls) = values.finish().into_parts();
    let array = PrimitiveArray::<T>::try_new(numbers, nulls).map_err(arrow_failed)?.with_data_type(kind.clone());
    Ok(Arc::new(array))
}

fn utf8(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[inline]
fn to_integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(number) => Some(number),
        // 2^63 is the first whole real that is too large; below it every whole real is a whole number.
        #[expect(clippy::cast_possible_truncation, reason = "whole, and within i64")]
        ValueRef::Real(number) if number.fract() == 0.0 && number.abs() < 9_223_372_036_854_775_808.0 => {
            Some(number as i64)
        }
        ValueRef::Text(text) => utf8(text)?.trim().parse().ok(),
        _ => None,
    }
}

#[inline]
fn to_real(value: ValueRef<'_>) -> Option<f64> {
    match value {
        ValueRef::Real(number) => Some(number),
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "looked at in i128")]
        ValueRef::Integer(number) => {
            let real = number as f64;
            (real as i128 == i128::from(number)).then_some(real)
        }
        ValueRef::Text(text) => {
            let text = utf8(text)?.trim();
            // A number beyond all doubles is none of them; only the word is infinity.
            let is_number = text.contains(|char: char| char.is_ascii_digit());
            text.parse().ok().filter(|real: &f64| real.is_finite() || !is_number)
        }
        _ => None,
    }
}

fn to_boolean(value: ValueRef<'_>) -> Option<bool> {
    match value {
        ValueRef::Integer(0) => Some(false),
        ValueRef::Integer(1) => Some(true),
        ValueRef::Text(text) => match text {
            b"0" => Some(false),
            b"1" => Some(true),
            _ => truth(text),
        },
        _ => None,
    }
}

fn to_moment(value: ValueRef<'_>) -> Option<Moment> {
    match value {
        ValueRef::Integer(number) => Moment::from_integer(number),
        ValueRef::Real(number) => Moment::from_real(number),
        ValueRef::Text(text) => Moment::from_text(text),
        _ => None,
    }
}

/// Numbers become their text; bytes that are not UTF-8 do not fit.
fn append_text(values: &mut StringBuilder, value: ValueRef<'_>) -> bool {
    let text = match value {
        ValueRef::Text(bytes) => utf8(bytes),
        ValueRef::Integer(number) => {
            let _ = write!(values, "{number}");
            Some("")
        }
        ValueRef::Real(number) => {
            let _ = write!(values, "{number:?}");
            Some("")
        }
        ValueRef::Null | ValueRef::Blob(_) => None,
    };
    match text {
        Some(text) => values.append_value(text),
        None => values.append_null(),
    }
    text.is_some() || matches!(value, ValueRef::Null)
}
