//! Arrow's types as PostgreSQL's.
//!
//! | arrow | PostgreSQL |
//! |---|---|
//! | Boolean | boolean |
//! | Int8, Int16, UInt8 | smallint |
//! | Int32, UInt16 | integer |
//! | Int64, UInt32 | bigint |
//! | UInt64 | numeric(20,0) |
//! | Float16, Float32; Float64 | real; double precision |
//! | Decimal(p,s) of any width | numeric(p,s) |
//! | Utf8, LargeUtf8, Utf8View, Null | text |
//! | Binary of any kind | bytea |
//! | Date32, Date64 | date |
//! | Time32, Time64 | time |
//! | Timestamp; with a time zone | timestamp; timestamptz |
//! | Duration | interval |
//! | List (of any kind) of these | an array |
//! | Struct, Map, and lists of lists and of them | jsonb |
//! | Dictionary, RunEndEncoded | as their values |
//!
//! PostgreSQL has no finer time than microseconds: nanoseconds between two of them are refused. Intervals of months and unions are refused.

use crate::comments::comment_of;
use crate::sinks::arrays::{between_microseconds, can_be_json, json};
use crate::sources::postgres::names::quoted;
use arrow::array::{Array, ArrayRef, RecordBatch, make_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use gristmill_model::{Error, ErrorKind, Result};
use pgpq::encoders::{EncoderBuilder, LargeStringEncoderBuilder, StringEncoderBuilder};
use pgpq::pg_schema::PostgresType;
use std::collections::HashMap;
use std::sync::Arc;

/// What a column is in the staging table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric(u8, i8),
    /// A decimal of more than 38 digits: staged as text, made a number by the server.
    WideNumeric(u8, i8),
    Text,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Jsonb,
    List(Box<Kind>),
}

impl Kind {
    /// The type of the staged column.
    fn staged_sql(&self) -> String {
        match self {
            Self::WideNumeric(..) => "text".to_owned(),
            Self::Numeric(..) => "numeric".to_owned(),
            Self::List(item) => format!("{}[]", item.staged_sql()),
            _ => self.sql(),
        }
    }

    /// Whether values are sent as what they are in the target.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::WideNumeric(..) => false,
            Self::List(item) => item.is_final(),
            _ => true,
        }
    }

    /// The type of a new column of the target.
    pub(crate) fn sql(&self) -> String {
        match self {
            Self::Bool => "boolean",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Float4 => "real",
            Self::Float8 => "double precision",
            Self::Text => "text",
            Self::Bytea => "bytea",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamptz",
            Self::Interval => "interval",
            Self::Jsonb => "jsonb",
            Self::Numeric(precision, scale) | Self::WideNumeric(precision, scale) => {
                // A scale below zero came with PostgreSQL 15; more digits before the point say the same.
                let (precision, scale) = if *scale < 0 {
                    (u16::from(*precision) + u16::from(scale.unsigned_abs()), 0)
                } else {
                    (u16::from(*precision), *scale)
                };
                return format!("numeric({precision},{scale})");
            }
            Self::List(item) => return format!("{}[]", item.sql()),
        }
        .to_owned()
    }
}

/// A column on its way to the server.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) name: String,
    pub(crate) arrow: DataType,
    pub(crate) kind: Kind,
    /// What a new column of the target is commented with.
    pub(super) comment: Option<String>,
    change: Change,
}

/// What is done to an array before it is encoded.
#[derive(Debug, Clone)]
enum Change {
    Nothing,
    Cast(DataType),
    Json(FieldRef),
}

impl Outgoing {
    /// # Errors
    /// A type that PostgreSQL has nothing for.
    pub(crate) fn new(field: &FieldRef) -> Result<Self> {
        let name = field.name().clone();
        let arrow = field.data_type().clone();
        let (kind, wanted) = outgoing(&arrow).ok_or_else(|| {
            Error::new(ErrorKind::Schema, format!("the column `{name}` is {arrow}, for which PostgreSQL has no type"))
                .hint(format!("cast it in the step's SQL, e.g. cast({name} as varchar)"))
        })?;
        let change = match &kind {
            Kind::Jsonb => Change::Json(field.clone()),
            _ if wanted == arrow => Change::Nothing,
            _ => Change::Cast(wanted),
        };
        // No text of the server can have a NUL in it.
        let comment = comment_of(field).map(|comment| comment.replace('\0', ""));
        Ok(Self { name, arrow, kind, comment, change })
    }

    /// `"c3" numeric`: the staging table names columns by their place, so that no name can be in the way.
    pub(crate) fn definition(&self, place: usize) -> String {
        format!("{} {}", staged_name(place), self.kind.staged_sql())
    }

    /// The type of the array that is encoded.
    fn encoded(&self) -> DataType {
        match &self.change {
            Change::Nothing => self.arrow.clone(),
            Change::Cast(to) => to.clone(),
            Change::Json(_) => DataType::Utf8,
        }
    }
}

/// A column's name in the staging table.
pub(crate) fn staged_name(place: usize) -> String {
    quoted(&format!("c{place}"))
}

/// How an arrow type is staged, and the arrow type that the encoder takes it as.
fn outgoing(arrow: &DataType) -> Option<(Kind, DataType)> {
    let micros = TimeUnit::Microsecond;
    Some(match arrow {
        DataType::Boolean => (Kind::Bool, DataType::Boolean),
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => (Kind::Int2, DataType::Int16),
        DataType::UInt16 | DataType::Int32 => (Kind::Int4, DataType::Int32),
        DataType::UInt32 | DataType::Int64 => (Kind::Int8, DataType::Int64),
        DataType::UInt64 => (Kind::Numeric(20, 0), DataType::Decimal128(20, 0)),
        DataType::Float16 | DataType::Float32 => (Kind::Float4, DataType::Float32),
        DataType::Float64 => (Kind::Float8, DataType::Float64),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => (Kind::Numeric(*precision, *scale), arrow.clone()),
        DataType::Decimal256(precision, scale) => (Kind::WideNumeric(*precision, *scale), DataType::Utf8),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (Kind::Text, arrow.clone()),
        DataType::Null => (Kind::Text, DataType::Utf8),
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => (Kind::Bytea, arrow.clone()),
        DataType::BinaryView => (Kind::Bytea, DataType::Binary),
        DataType::Date32 | DataType::Date64 => (Kind::Date, DataType::Date32),
        DataType::Time32(_) | DataType::Time64(_) => (Kind::Time, DataType::Time64(micros)),
        DataType::Timestamp(_, None) => (Kind::Timestamp, DataType::Timestamp(micros, None)),
        DataType::Timestamp(_, zone) => (Kind::TimestampTz, DataType::Timestamp(micros, zone.clone())),
        DataType::Duration(_) => (Kind::Interval, DataType::Duration(micros)),
        DataType::Dictionary(_, values) => outgoing(values)?,
        DataType::RunEndEncoded(_, values) => outgoing(values.data_type())?,
        DataType::Struct(_) | DataType::Map(..) if can_be_json(arrow) => (Kind::Jsonb, DataType::Utf8),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => match outgoing(item.data_type())? {
            (Kind::List(_) | Kind::Jsonb, _) if can_be_json(arrow) => (Kind::Jsonb, DataType::Utf8),
            (Kind::List(_) | Kind::Jsonb | Kind::Interval, _) => return None,
            (kind, encoded) => {
                (Kind::List(Box::new(kind)), DataType::List(Arc::new(Field::new_list_field(encoded, true))))
            }
        },
        _ => return None,
    })
}

/// Turns batches into rows of binary COPY.
#[derive(Debug)]
pub(crate) struct Encoder {
    columns: Vec<Outgoing>,
    schema: SchemaRef,
    inner: pgpq::ArrowToPostgresBinaryEncoder,
}

impl Encoder {
    /// # Errors
    /// Only a bug here: every type was looked at before.
    pub(crate) fn new(columns: &[Outgoing]) -> Result<Self> {
        let internal = |error: pgpq::error::ErrorKind| Error::internal("rows cannot be encoded").cause(error);
        let mut fields = Vec::with_capacity(columns.len());
        let mut builders = HashMap::with_capacity(columns.len());
        for (place, column) in columns.iter().enumerate() {
            let field = Arc::new(Field::new(format!("c{place}"), column.encoded(), true));
            let builder = match (&column.kind, field.data_type()) {
                (Kind::Jsonb, DataType::LargeUtf8) => EncoderBuilder::LargeString(
                    LargeStringEncoderBuilder::new_with_output(field.clone(), PostgresType::Jsonb).map_err(internal)?,
                ),
                (Kind::Jsonb, _) => EncoderBuilder::String(
                    StringEncoderBuilder::new_with_output(field.clone(), PostgresType::Jsonb).map_err(internal)?,
                ),
                _ => EncoderBuilder::try_new(field.clone()).map_err(internal)?,
            };
            builders.insert(field.name().clone(), builder);
            fields.push(field);
        }
        let schema = Arc::new(Schema::new(fields));
        let inner = pgpq::ArrowToPostgresBinaryEncoder::try_new_with_encoders(&schema, &builders).map_err(internal)?;
        Ok(Self { columns: columns.to_vec(), schema, inner })
    }

    pub(crate) fn header(&mut self, out: &mut bytes::BytesMut) -> Result<()> {
        self.inner.write_header(out).map_err(|error| Error::internal("rows cannot be encoded").cause(error))
    }

    pub(crate) fn footer(&mut self, out: &mut bytes::BytesMut) -> Result<()> {
        self.inner.write_footer(out).map_err(|error| Error::internal("rows cannot be encoded").cause(error))
    }

    /// # Errors
    /// A value that PostgreSQL cannot hold; the column is named.
    pub(crate) fn batch(&mut self, batch: &RecordBatch, out: &mut bytes::BytesMut) -> Result<()> {
        if batch.num_columns() != self.columns.len() {
            return Err(Error::internal("a batch has other columns than its schema"));
        }
        let arrays = self.columns.iter().zip(batch.columns()).map(|(column, array)| change(column, array));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let batch = RecordBatch::try_new(self.schema.clone(), arrays)
            .map_err(|error| Error::internal("rows cannot be encoded").cause(error))?;
        self.inner
            .write_batch(&batch, out)
            .map_err(|error| Error::new(ErrorKind::Data, "a value does not fit PostgreSQL").cause(error))
    }
}

fn change(column: &Outgoing, array: &ArrayRef) -> Result<ArrayRef> {
    let unfit = |cause: String| {
        Error::new(ErrorKind::Data, format!("a value of the column `{}` does not fit PostgreSQL", column.name))
            .cause(cause)
    };
    if let Some(nanos) = between_microseconds(array) {
        return Err(Error::new(
            ErrorKind::Data,
            format!("a value of the column `{}` lies between two microseconds ({nanos} ns)", column.name),
        )
        .hint(format!(
            "PostgreSQL keeps microseconds; write `date_trunc('microsecond', {})` in the step before",
            column.name
        )));
    }
    let changed = match &column.change {
        Change::Nothing => array.clone(),
        Change::Cast(to) => {
            // Not `safe`: a value that does not fit is an error, never a NULL.
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(array, to, &options).map_err(|error| unfit(error.to_string()))?
        }
        Change::Json(field) => json(field, array).map_err(|error| unfit(error.to_string()))?,
    };
    if has_nul(&changed) {
        return Err(Error::new(
            ErrorKind::Data,
            format!("a text of the column `{}` holds a NUL character, which PostgreSQL cannot store", column.name),
        )
        .hint(format!("remove it in the step's SQL: replace({0}, chr(0), '')", column.name)));
    }
    // What the producer called the items of a list is of no importance to the encoder, but to the batch.
    if changed.data_type() != &column.encoded() {
        let data = changed.to_data().into_builder().data_type(column.encoded());
        return Ok(make_array(data.build().map_err(|error| unfit(error.to_string()))?));
    }
    Ok(changed)
}

/// Whether a text has a NUL character in it. The server would say so too, but only after the last row.
fn has_nul(array: &ArrayRef) -> bool {
    use arrow::array::AsArray;
    fn within<O: arrow::array::OffsetSizeTrait>(array: &arrow::array::GenericStringArray<O>) -> bool {
        let offsets = array.value_offsets();
        let (Some(from), Some(to)) = (offsets.first(), offsets.last()) else { return false };
        // The bytes of a NULL count for nothing, but they are rarely there: look at the whole first.
        array.value_data()[from.as_usize()..to.as_usize()].contains(&0)
            && array.iter().flatten().any(|text| text.as_bytes().contains(&0))
    }
    match array.data_type() {
        DataType::Utf8 => within(array.as_string::<i32>()),
        DataType::LargeUtf8 => within(array.as_string::<i64>()),
        DataType::Utf8View => array.as_string_view().iter().flatten().any(|text| text.as_bytes().contains(&0)),
        DataType::List(_) => has_nul(array.as_list::<i32>().values()),
        _ => false,
    }
}
