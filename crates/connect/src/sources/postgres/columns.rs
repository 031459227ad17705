//! One column's values, straight into arrow's buffers: many rows of one column at a time, so that what a column needs is
//! decided once and not for every value, and texts are looked at together.

use super::numeric::Numeric;
use super::types::Kind;
use crate::columns::{Fixed, Long, Place, Refusal, no_array, whole};
use crate::declared;
use arrow::array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{Array, ArrayRef, BooleanBuilder, ListArray, NullBufferBuilder};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, Field};
use gristmill_model::{Error, Result};
use std::sync::Arc;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL begins to count.
pub(super) const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The values of one column, by how they come.
#[derive(Debug)]
pub(super) enum Values {
    Bool(BooleanBuilder),
    Int2(Fixed<Int16Type>),
    Int4(Fixed<Int32Type>),
    Int8(Fixed<Int64Type>),
    Oid(Fixed<Int64Type>),
    Float4(Fixed<Float32Type>),
    Float8(Fixed<Float64Type>),
    Text(Long),
    Jsonb(Long),
    Uuid(Long),
    NumericText(Long, String),
    Bytea(Long),
    Date(Fixed<Date32Type>),
    Time(Fixed<Time64MicrosecondType>),
    Timestamp(Fixed<TimestampMicrosecondType>),
    Decimal128(Fixed<Decimal128Type>, u8, i8),
    Decimal256(Fixed<Decimal256Type>, u8, i8),
    List(Box<List>),
    /// Of another type than the values come in.
    Declared(Box<(Kind, declared::Values)>),
}

impl Values {
    /// # Errors
    /// A type that nothing becomes, which planning has looked at.
    pub(super) fn new(kind: &Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
            Kind::Int2 => Self::Int2(Fixed::new(kind.arrow())),
            Kind::Int4 => Self::Int4(Fixed::new(kind.arrow())),
            Kind::Int8 => Self::Int8(Fixed::new(kind.arrow())),
            Kind::Oid => Self::Oid(Fixed::new(kind.arrow())),
            Kind::Float4 => Self::Float4(Fixed::new(kind.arrow())),
            Kind::Float8 => Self::Float8(Fixed::new(kind.arrow())),
            Kind::Text => Self::Text(Long::default()),
            Kind::Jsonb => Self::Jsonb(Long::default()),
            Kind::Uuid => Self::Uuid(Long::default()),
            Kind::NumericText => Self::NumericText(Long::default(), String::new()),
            Kind::Bytea => Self::Bytea(Long::default()),
            Kind::Date => Self::Date(Fixed::new(kind.arrow())),
            Kind::Time => Self::Time(Fixed::new(kind.arrow())),
            Kind::Timestamp | Kind::TimestampTz => Self::Timestamp(Fixed::new(kind.arrow())),
            Kind::Decimal(precision, scale) if *precision <= DECIMAL128_MAX_PRECISION => {
                Self::Decimal128(Fixed::new(kind.arrow()), *precision, *scale)
            }
            Kind::Decimal(precision, scale) => Self::Decimal256(Fixed::new(kind.arrow()), *precision, *scale),
            Kind::List(item) => Self::List(Box::new(List {
                items: Self::new(item)?,
                kind: (**item).clone(),
                length: 0,
                ends: vec![0],
                nulls: NullBufferBuilder::new(0),
            })),
            Kind::Declared(own, wanted) => {
                let values = declared::Values::new(wanted)
                    .ok_or_else(|| Error::internal(format!("nothing becomes {wanted} here")))?;
                Self::Declared(Box::new(((**own).clone(), values)))
            }
        })
    }

    /// Takes the values of some rows. A value that cannot be had becomes NULL, and `refuse` is told of it: which of these
    /// rows, and why.
    pub(super) fn extend(&mut self, bytes: &[u8], places: &[Place], refuse: &mut dyn FnMut(usize, Refusal)) {
        match self {
            Self::Bool(values) => {
                for (row, place) in places.iter().enumerate() {
                    match place.of(bytes) {
                        None => values.append_null(),
                        Some([flag]) => values.append_value(*flag != 0),
                        Some(other) => {
                            values.append_null();
                            refuse(row, misshapen("boolean", other));
                        }
                    }
                }
            }
            Self::Int2(values) => {
                values.extend(bytes, places, refuse, |it| Ok(i16::from_be_bytes(fixed(it, "smallint")?)))
            }
            Self::Int4(values) => {
                values.extend(bytes, places, refuse, |it| Ok(i32::from_be_bytes(fixed(it, "integer")?)))
            }
            Self::Int8(values) => {
                values.extend(bytes, places, refuse, |it| Ok(i64::from_be_bytes(fixed(it, "bigint")?)))
            }
            Self::Oid(values) => {
                values.extend(bytes, places, refuse, |it| Ok(i64::from(u32::from_be_bytes(fixed(it, "oid")?))));
            }
            Self::Float4(values) => {
                values.extend(bytes, places, refuse, |it| Ok(f32::from_be_bytes(fixed(it, "real")?)))
            }
            Self::Float8(values) => {
                values.extend(bytes, places, refuse, |it| Ok(f64::from_be_bytes(fixed(it, "double precision")?)));
            }
            Self::Date(values) => values.extend(bytes, places, refuse, date),
            Self::Time(values) => values.extend(bytes, places, refuse, time),
            Self::Timestamp(values) => values.extend(bytes, places, refuse, timestamp),
            Self::Decimal128(values, precision, scale) => {
                values.extend(bytes, places, refuse, |it| Numeric::parse(it)?.to_i128(*precision, *scale));
            }
            Self::Decimal256(values, precision, scale) => {
                values.extend(bytes, places, refuse, |it| Numeric::parse(it)?.to_i256(*precision, *scale));
            }
            Self::Text(values) => values.extend_texts(bytes, places, refuse, whole),
            Self::Jsonb(values) => values.extend_texts(bytes, places, refuse, json),
            Self::Uuid(values) => values.extend(bytes, places, refuse, |it, into| {
                let id = uuid::Uuid::from_bytes(fixed(it, "uuid")?);
                let mut buffer = uuid::Uuid::encode_buffer();
                into.extend_from_slice(id.hyphenated().encode_lower(&mut buffer).as_bytes());
                Ok(())
            }),
            Self::NumericText(values, text) => values.extend(bytes, places, refuse, |it, into| {
                text.clear();
                Numeric::parse(it)?.write(text)?;
                into.extend_from_slice(text.as_bytes());
                Ok(())
            }),
            Self::Bytea(values) => values.extend(bytes, places, refuse, |it, into| {
                into.extend_from_slice(it);
                Ok(())
            }),
            Self::List(list) => {
                for (row, place) in places.iter().enumerate() {
                    match place.of(bytes) {
                        None => list.null(),
                        Some(array) => {
                            if let Err(refusal) = list.push(array) {
                                list.null();
                                refuse(row, refusal);
                            }
                        }
                    }
                }
            }
            Self::Declared(declared) => {
                let (own, values) = &mut **declared;
                values.extend(own, bytes, places, refuse);
            }
        }
    }

    /// Takes the column out. The next batch will be about as large, so it gets that much room at once: growing step by step
    /// would copy it a dozen times, into memory that is new each time.
    ///
    /// # Errors
    /// Only a bug here.
    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        Ok(match self {
            Self::Bool(values) => Arc::new(values.finish()),
            Self::Int2(values) => values.finish(rows)?,
            Self::Int4(values) => values.finish(rows)?,
            Self::Int8(values) | Self::Oid(values) => values.finish(rows)?,
            Self::Float4(values) => values.finish(rows)?,
            Self::Float8(values) => values.finish(rows)?,
            Self::Date(values) => values.finish(rows)?,
            Self::Time(values) => values.finish(rows)?,
            Self::Timestamp(values) => values.finish(rows)?,
            Self::Decimal128(values, ..) => values.finish(rows)?,
            Self::Decimal256(values, ..) => values.finish(rows)?,
            Self::Text(values) | Self::Jsonb(values) | Self::Uuid(values) | Self::NumericText(values, _) => {
                values.finish_texts(rows)?
            }
            Self::Bytea(values) => values.finish_bytes(rows)?,
            Self::List(list) => list.finish(rows)?,
            Self::Declared(declared) => declared.1.finish(rows)?,
        })
    }
}

/// Arrays.
#[derive(Debug)]
pub(super) struct List {
    items: Values,
    kind: Kind,
    length: usize,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl List {
    /// Ends a row without an array. Items of a refused one may be there already; a NULL list may have some.
    fn null(&mut self) {
        self.ends.push(i32::try_from(self.length).unwrap_or(i32::MAX));
        self.nulls.append_null();
    }

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
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                self.item(&[], Place::null())?;
                continue;
            };
            let Some((item, after)) = rest.split_at_checked(length) else {
                self.item(&[], Place::null())?;
                return Err(torn());
            };
            rest = after;
            let place = Place::new(0, length).map_err(|error| error.to_string())?;
            self.item(item, place)?;
        }
        self.ends.push(i32::try_from(self.length).map_err(|_| "too many items".to_owned())?);
        self.nulls.append_non_null();
        Ok(())
    }

    fn item(&mut self, bytes: &[u8], place: Place) -> Result<(), Refusal> {
        let mut refused = None;
        self.items.extend(bytes, &[place], &mut |_, why| refused = Some(why));
        refused.map_or(Ok(()), Err)
    }

    fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        let items = self.items.finish(self.length)?;
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        self.length = 0;
        if ends.len() != rows + 1 || items.len() > i32::MAX as usize {
            return Err(Error::internal("the ends of arrays do not match their rows"));
        }
        let field = Arc::new(Field::new_list_field(self.kind.arrow(), true));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        Ok(Arc::new(ListArray::try_new(field, offsets, items, self.nulls.finish()).map_err(no_array)?))
    }
}

pub(super) fn fixed<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N], Refusal> {
    bytes.try_into().map_err(|_| misshapen(what, bytes))
}

#[cold]
pub(super) fn misshapen(what: &str, bytes: &[u8]) -> Refusal {
    format!("a {what} of {} bytes", bytes.len())
}

pub(super) fn json(bytes: &[u8]) -> Result<&[u8], Refusal> {
    match bytes.split_first() {
        Some((1, json)) => Ok(json),
        _ => Err("jsonb of a version that is not known".to_owned()),
    }
}

pub(super) fn date(bytes: &[u8]) -> Result<i32, Refusal> {
    match i32::from_be_bytes(fixed(bytes, "date")?) {
        i32::MAX => Err("the date `infinity`".to_owned()),
        i32::MIN => Err("the date `-infinity`".to_owned()),
        days => days.checked_add(EPOCH_DAYS).ok_or_else(|| "a date too far away".to_owned()),
    }
}

pub(super) fn time(bytes: &[u8]) -> Result<i64, Refusal> {
    match i64::from_be_bytes(fixed(bytes, "time")?) {
        micros @ 0..86_400_000_000 => Ok(micros),
        _ => Err("the time 24:00:00 is not within a day".to_owned()),
    }
}

pub(super) fn timestamp(bytes: &[u8]) -> Result<i64, Refusal> {
    match i64::from_be_bytes(fixed(bytes, "timestamp")?) {
        i64::MAX => Err("the timestamp `infinity`".to_owned()),
        i64::MIN => Err("the timestamp `-infinity`".to_owned()),
        micros => micros.checked_add(EPOCH_MICROS).ok_or_else(|| "a timestamp too far away".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_array_of_any_bytes_is_a_row_or_a_refusal(arrays in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let mut column = Values::new(&Kind::List(Box::new(Kind::Int4))).unwrap();
            for bytes in &arrays {
                column.extend(bytes, &[Place::new(0, bytes.len()).unwrap()], &mut |_, _| {});
            }
            prop_assert_eq!(column.finish(arrays.len()).unwrap().len(), arrays.len());
        }
    }
}
