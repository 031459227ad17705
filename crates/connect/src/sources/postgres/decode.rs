//! Fields of a binary COPY straight into arrow builders: no allocation a row.

use super::copy::Span;
use super::numeric::Numeric;
use super::types::{Column, Kind};
use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanArray, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder,
    Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, ListArray, NullBufferBuilder,
    RecordBatch, RecordBatchOptions, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, Field, SchemaRef};
use gristmill_model::{Error, Result};
use std::sync::Arc;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL begins to count.
const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// A batch is closed when its variable-length values reach this many bytes: large values must not make large batches.
const BATCH_BYTES: usize = 16 << 20;

/// Why a value cannot be had; the row is refused.
pub(super) type Refusal = String;

/// Builds batches of rows.
#[derive(Debug)]
pub(crate) struct Decoder {
    schema: SchemaRef,
    columns: Vec<(String, Values)>,
    rows: usize,
    bytes: usize,
    batch_size: usize,
    /// Rows of this batch with a value that cannot be had, and why.
    refused: Vec<(usize, String)>,
}

/// A row that was refused: as text, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) record: String,
    pub(crate) why: String,
}

impl Decoder {
    pub(crate) fn new(columns: &[Column], schema: SchemaRef, batch_size: usize) -> Self {
        let columns = columns.iter().map(|column| (column.name.clone(), Values::new(&column.kind))).collect();
        Self { schema, columns, rows: 0, bytes: 0, batch_size: batch_size.max(1), refused: Vec::new() }
    }

    /// Takes one row.
    pub(crate) fn push(&mut self, bytes: &[u8], spans: &[Span]) {
        for ((name, values), span) in self.columns.iter_mut().zip(spans) {
            match span {
                None => values.null(),
                Some((from, to)) => {
                    if let Err(refusal) = values.push(&bytes[*from..*to]) {
                        values.null();
                        self.refused.push((self.rows, format!("column `{name}`: {refusal}")));
                    }
                }
            }
        }
        self.bytes += bytes.len();
        self.rows += 1;
    }

    /// Whether the batch has reached its size.
    pub(crate) fn is_full(&self) -> bool {
        self.rows >= self.batch_size || self.bytes >= BATCH_BYTES
    }

    /// Whether there is nothing in the batch.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Closes the batch: the good rows, and those that were refused.
    ///
    /// # Errors
    /// Only a bug here.
    pub(crate) fn finish(&mut self) -> Result<(RecordBatch, Vec<Refused>)> {
        let internal = |error| Error::internal("rows from PostgreSQL do not make a batch").cause(error);
        let arrays = self.columns.iter_mut().map(|(_, values)| values.finish(self.rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(internal)?;
        self.rows = 0;
        self.bytes = 0;
        if self.refused.is_empty() {
            return Ok((batch, Vec::new()));
        }
        let mut keep = vec![true; batch.num_rows()];
        let mut refused: Vec<Refused> = Vec::new();
        let mut last = None;
        for (row, why) in self.refused.drain(..) {
            keep[row] = false;
            match refused.last_mut() {
                Some(refused) if last == Some(row) => refused.why = format!("{}; {why}", refused.why),
                _ => refused.push(Refused { record: crate::rows::record(&batch, row), why }),
            }
            last = Some(row);
        }
        let good = filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(internal)?;
        Ok((good, refused))
    }
}

/// The builder of one column, by how its values come.
#[derive(Debug)]
enum Values {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Oid(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Text(StringBuilder),
    Jsonb(StringBuilder),
    Uuid(StringBuilder),
    NumericText(StringBuilder, String),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Decimal128(Decimal128Builder, u8, i8),
    Decimal256(Decimal256Builder, u8, i8),
    List(Box<List>),
}

#[derive(Debug)]
struct List {
    items: Values,
    kind: Kind,
    length: usize,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Values {
    fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
            Kind::Int2 => Self::Int2(Int16Builder::new()),
            Kind::Int4 => Self::Int4(Int32Builder::new()),
            Kind::Int8 => Self::Int8(Int64Builder::new()),
            Kind::Oid => Self::Oid(Int64Builder::new()),
            Kind::Float4 => Self::Float4(Float32Builder::new()),
            Kind::Float8 => Self::Float8(Float64Builder::new()),
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Jsonb => Self::Jsonb(StringBuilder::new()),
            Kind::Uuid => Self::Uuid(StringBuilder::new()),
            Kind::NumericText => Self::NumericText(StringBuilder::new(), String::new()),
            Kind::Bytea => Self::Bytea(BinaryBuilder::new()),
            Kind::Date => Self::Date(Date32Builder::new()),
            Kind::Time => Self::Time(Time64MicrosecondBuilder::new()),
            Kind::Timestamp | Kind::TimestampTz => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(kind.arrow()))
            }
            Kind::Decimal(precision, scale) if *precision <= DECIMAL128_MAX_PRECISION => {
                Self::Decimal128(Decimal128Builder::new().with_data_type(kind.arrow()), *precision, *scale)
            }
            Kind::Decimal(precision, scale) => {
                Self::Decimal256(Decimal256Builder::new().with_data_type(kind.arrow()), *precision, *scale)
            }
            Kind::List(item) => Self::List(Box::new(List {
                items: Self::new(item),
                kind: (**item).clone(),
                length: 0,
                ends: vec![0],
                nulls: NullBufferBuilder::new(0),
            })),
        }
    }

    fn null(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_null(),
            Self::Int2(builder) => builder.append_null(),
            Self::Int4(builder) => builder.append_null(),
            Self::Int8(builder) | Self::Oid(builder) => builder.append_null(),
            Self::Float4(builder) => builder.append_null(),
            Self::Float8(builder) => builder.append_null(),
            Self::Text(builder) | Self::Jsonb(builder) | Self::Uuid(builder) | Self::NumericText(builder, _) => {
                builder.append_null();
            }
            Self::Bytea(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
            Self::Decimal128(builder, ..) => builder.append_null(),
            Self::Decimal256(builder, ..) => builder.append_null(),
            Self::List(list) => {
                // Items of a refused array may be there already; a NULL list may have some.
                list.ends.push(i32::try_from(list.length).unwrap_or(i32::MAX));
                list.nulls.append_null();
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Bool(builder) => match bytes {
                [flag] => builder.append_value(*flag != 0),
                _ => return Err(misshapen("boolean", bytes)),
            },
            Self::Int2(builder) => builder.append_value(i16::from_be_bytes(fixed(bytes, "smallint")?)),
            Self::Int4(builder) => builder.append_value(i32::from_be_bytes(fixed(bytes, "integer")?)),
            Self::Int8(builder) => builder.append_value(i64::from_be_bytes(fixed(bytes, "bigint")?)),
            Self::Oid(builder) => builder.append_value(i64::from(u32::from_be_bytes(fixed(bytes, "oid")?))),
            Self::Float4(builder) => builder.append_value(f32::from_be_bytes(fixed(bytes, "real")?)),
            Self::Float8(builder) => builder.append_value(f64::from_be_bytes(fixed(bytes, "double precision")?)),
            Self::Text(builder) => builder.append_value(text(bytes)?),
            Self::Jsonb(builder) => match bytes.split_first() {
                Some((1, json)) => builder.append_value(text(json)?),
                _ => return Err("jsonb of a version that is not known".to_owned()),
            },
            Self::Uuid(builder) => {
                let id = uuid::Uuid::from_bytes(fixed(bytes, "uuid")?);
                let mut buffer = uuid::Uuid::encode_buffer();
                builder.append_value(id.hyphenated().encode_lower(&mut buffer));
            }
            Self::NumericText(builder, buffer) => {
                buffer.clear();
                Numeric::parse(bytes)?.write(buffer)?;
                builder.append_value(buffer);
            }
            Self::Bytea(builder) => builder.append_value(bytes),
            Self::Date(builder) => builder.append_value(date(i32::from_be_bytes(fixed(bytes, "date")?))?),
            Self::Time(builder) => match i64::from_be_bytes(fixed(bytes, "time")?) {
                micros @ 0..86_400_000_000 => builder.append_value(micros),
                _ => return Err("the time 24:00:00 is not within a day".to_owned()),
            },
            Self::Timestamp(builder) => {
                builder.append_value(timestamp(i64::from_be_bytes(fixed(bytes, "timestamp")?))?);
            }
            Self::Decimal128(builder, precision, scale) => {
                builder.append_value(Numeric::parse(bytes)?.to_i128(*precision, *scale)?);
            }
            Self::Decimal256(builder, precision, scale) => {
                builder.append_value(Numeric::parse(bytes)?.to_i256(*precision, *scale)?);
            }
            Self::List(list) => return list.push(bytes),
        }
        Ok(())
    }

    /// Takes the column out. The next batch will be about as large, so its builder gets that much room at once: growing
    /// step by step would copy it a dozen times, into memory that is new each time.
    fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        /// The most bytes of text that are set aside before they have come.
        const ROOM: usize = 1 << 20;
        let text = |builder: &mut StringBuilder| -> ArrayRef {
            let array = builder.finish();
            *builder = StringBuilder::with_capacity(rows, array.values().len().min(ROOM));
            Arc::new(array)
        };
        macro_rules! finished {
            ($builder:expr, $kind:ty) => {{
                let array = $builder.finish();
                let of = array.data_type().clone();
                *$builder = <$kind>::with_capacity(rows).with_data_type(of);
                Arc::new(array)
            }};
        }
        Ok(match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int2(builder) => finished!(builder, Int16Builder),
            Self::Int4(builder) => finished!(builder, Int32Builder),
            Self::Int8(builder) | Self::Oid(builder) => finished!(builder, Int64Builder),
            Self::Float4(builder) => finished!(builder, Float32Builder),
            Self::Float8(builder) => finished!(builder, Float64Builder),
            Self::Text(builder) | Self::Jsonb(builder) | Self::Uuid(builder) | Self::NumericText(builder, _) => {
                text(builder)
            }
            Self::Bytea(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => finished!(builder, Date32Builder),
            Self::Time(builder) => finished!(builder, Time64MicrosecondBuilder),
            Self::Timestamp(builder) => finished!(builder, TimestampMicrosecondBuilder),
            Self::Decimal128(builder, ..) => finished!(builder, Decimal128Builder),
            Self::Decimal256(builder, ..) => finished!(builder, Decimal256Builder),
            Self::List(list) => {
                let items = list.items.finish(list.length)?;
                let ends = std::mem::replace(&mut list.ends, vec![0]);
                list.length = 0;
                if ends.len() != rows + 1 || items.len() > i32::MAX as usize {
                    return Err(Error::internal("the ends of arrays do not match their rows"));
                }
                let field = Arc::new(Field::new_list_field(list.kind.arrow(), true));
                let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                let array = ListArray::try_new(field, offsets, items, list.nulls.finish());
                Arc::new(array.map_err(|error| Error::internal("arrays do not make a list").cause(error))?)
            }
        })
    }
}

impl List {
    /// An array: dimensions, whether there are NULLs, the items' type, then length and first index of each dimension,
    /// then the items (array_send).
    fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let torn = || "an array that is torn".to_owned();
        let mut rest = bytes;
        let mut word = || -> Result<i32, Refusal> {
            let (word, after) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
            rest = after;
            Ok(i32::from_be_bytes(*word))
        };
        let dimensions = word()?;
        let (_, _) = (word()?, word()?);
        let count = match dimensions {
            0 => 0,
            1 => {
                let count = word()?;
                word()?;
                count
            }
            _ => return Err(format!("an array of {dimensions} dimensions (read it as text)")),
        };
        for _ in 0..count {
            let (length, after) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
            rest = after;
            self.length += 1;
            match usize::try_from(i32::from_be_bytes(*length)) {
                Err(_) => self.items.null(),
                Ok(length) => {
                    let Some((item, after)) = rest.split_at_checked(length) else {
                        self.items.null();
                        return Err(torn());
                    };
                    rest = after;
                    if let Err(refusal) = self.items.push(item) {
                        self.items.null();
                        return Err(refusal);
                    }
                }
            }
        }
        self.ends.push(i32::try_from(self.length).map_err(|_| "too many items".to_owned())?);
        self.nulls.append_non_null();
        Ok(())
    }
}

fn fixed<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N], Refusal> {
    bytes.try_into().map_err(|_| misshapen(what, bytes))
}

#[cold]
pub(super) fn misshapen(what: &str, bytes: &[u8]) -> Refusal {
    format!("a {what} of {} bytes", bytes.len())
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|error| format!("text that is not UTF-8 ({error})"))
}

fn date(days: i32) -> Result<i32, Refusal> {
    match days {
        i32::MAX => Err("the date `infinity`".to_owned()),
        i32::MIN => Err("the date `-infinity`".to_owned()),
        days => days.checked_add(EPOCH_DAYS).ok_or_else(|| "a date too far away".to_owned()),
    }
}

fn timestamp(micros: i64) -> Result<i64, Refusal> {
    match micros {
        i64::MAX => Err("the timestamp `infinity`".to_owned()),
        i64::MIN => Err("the timestamp `-infinity`".to_owned()),
        micros => micros.checked_add(EPOCH_MICROS).ok_or_else(|| "a timestamp too far away".to_owned()),
    }
}
