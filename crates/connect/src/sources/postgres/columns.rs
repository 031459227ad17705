//! One column's values, straight into arrow's buffers: many rows of one column at a time, so that what a column needs is
//! decided once and not for every value, and texts are looked at together.

use super::numeric::Numeric;
use super::types::Kind;
use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanBuilder, ListArray, NullBufferBuilder, PrimitiveArray, StringArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field};
use arrow::error::ArrowError;
use gristmill_model::{Error, Result};
use std::sync::Arc;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL begins to count.
const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The most bytes of text that are set aside before they have come.
const ROOM: usize = 1 << 20;

/// Why a value cannot be had; the row is refused.
pub(super) type Refusal = String;

/// Where a value lies among the bytes of some rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    from: u32,
    /// [`NULL`] where there is no value.
    length: u32,
}

/// No value is as long as this: the server's end at 1 GB.
const NULL: u32 = u32::MAX;

impl Place {
    pub(super) fn new(from: usize, to: usize) -> Result<Self> {
        let too_long = |_| Error::internal("a row of more than 4 GB");
        let length = u32::try_from(to - from).map_err(too_long)?;
        Ok(Self { from: u32::try_from(from).map_err(too_long)?, length })
    }

    pub(super) fn null() -> Self {
        Self { from: 0, length: NULL }
    }

    fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        if self.length == NULL {
            return None;
        }
        bytes.get(self.from as usize..self.from as usize + self.length as usize)
    }
}

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
}

impl Values {
    pub(super) fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
            Kind::Int2 => Self::Int2(Fixed::new(kind)),
            Kind::Int4 => Self::Int4(Fixed::new(kind)),
            Kind::Int8 => Self::Int8(Fixed::new(kind)),
            Kind::Oid => Self::Oid(Fixed::new(kind)),
            Kind::Float4 => Self::Float4(Fixed::new(kind)),
            Kind::Float8 => Self::Float8(Fixed::new(kind)),
            Kind::Text => Self::Text(Long::default()),
            Kind::Jsonb => Self::Jsonb(Long::default()),
            Kind::Uuid => Self::Uuid(Long::default()),
            Kind::NumericText => Self::NumericText(Long::default(), String::new()),
            Kind::Bytea => Self::Bytea(Long::default()),
            Kind::Date => Self::Date(Fixed::new(kind)),
            Kind::Time => Self::Time(Fixed::new(kind)),
            Kind::Timestamp | Kind::TimestampTz => Self::Timestamp(Fixed::new(kind)),
            Kind::Decimal(precision, scale) if *precision <= DECIMAL128_MAX_PRECISION => {
                Self::Decimal128(Fixed::new(kind), *precision, *scale)
            }
            Kind::Decimal(precision, scale) => Self::Decimal256(Fixed::new(kind), *precision, *scale),
            Kind::List(item) => Self::List(Box::new(List {
                items: Self::new(item),
                kind: (**item).clone(),
                length: 0,
                ends: vec![0],
                nulls: NullBufferBuilder::new(0),
            })),
        }
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
            Self::Date(values) => {
                values.extend(bytes, places, refuse, |it| date(i32::from_be_bytes(fixed(it, "date")?)));
            }
            Self::Time(values) => values.extend(bytes, places, refuse, time),
            Self::Timestamp(values) => {
                values.extend(bytes, places, refuse, |it| timestamp(i64::from_be_bytes(fixed(it, "timestamp")?)));
            }
            Self::Decimal128(values, precision, scale) => {
                values.extend(bytes, places, refuse, |it| Numeric::parse(it)?.to_i128(*precision, *scale));
            }
            Self::Decimal256(values, precision, scale) => {
                values.extend(bytes, places, refuse, |it| Numeric::parse(it)?.to_i256(*precision, *scale));
            }
            Self::Text(values) => values.extend_texts(bytes, places, refuse, whole),
            Self::Jsonb(values) => values.extend_texts(bytes, places, refuse, |it| match it.split_first() {
                Some((1, json)) => Ok(json),
                _ => Err("jsonb of a version that is not known".to_owned()),
            }),
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
                let (ends, bytes, nulls) = values.finish(rows);
                Arc::new(StringArray::try_new(ends, bytes, nulls).map_err(no_array)?)
            }
            Self::Bytea(values) => {
                let (ends, bytes, nulls) = values.finish(rows);
                Arc::new(BinaryArray::try_new(ends, bytes, nulls).map_err(no_array)?)
            }
            Self::List(list) => list.finish(rows)?,
        })
    }
}

fn no_array(error: ArrowError) -> Error {
    Error::internal("values from PostgreSQL do not make a column").cause(error)
}

/// Values of one width.
#[derive(Debug)]
pub(super) struct Fixed<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
    of: DataType,
}

impl<T: ArrowPrimitiveType> Fixed<T> {
    fn new(kind: &Kind) -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0), of: kind.arrow() }
    }

    fn extend(
        &mut self,
        bytes: &[u8],
        places: &[Place],
        refuse: &mut dyn FnMut(usize, Refusal),
        decode: impl Fn(&[u8]) -> Result<T::Native, Refusal>,
    ) {
        for (row, place) in places.iter().enumerate() {
            match place.of(bytes).map(&decode) {
                Some(Ok(value)) => {
                    self.values.push(value);
                    self.nulls.append_non_null();
                    continue;
                }
                Some(Err(refusal)) => refuse(row, refusal),
                None => {}
            }
            self.values.push(T::Native::default());
            self.nulls.append_null();
        }
    }

    fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(rows));
        let array = PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), self.nulls.finish());
        Ok(Arc::new(array.map_err(no_array)?.with_data_type(self.of.clone())))
    }
}

/// Values of any length, one after the other.
#[derive(Debug)]
pub(super) struct Long {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Default for Long {
    fn default() -> Self {
        Self { bytes: Vec::new(), ends: vec![0], nulls: NullBufferBuilder::new(0) }
    }
}

impl Long {
    fn extend(
        &mut self,
        bytes: &[u8],
        places: &[Place],
        refuse: &mut dyn FnMut(usize, Refusal),
        mut write: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), Refusal>,
    ) {
        for (row, place) in places.iter().enumerate() {
            let before = self.bytes.len();
            let is_there = match place.of(bytes).map(|value| write(value, &mut self.bytes)) {
                None => false,
                Some(Ok(())) => true,
                Some(Err(refusal)) => {
                    refuse(row, refusal);
                    self.bytes.truncate(before);
                    false
                }
            };
            self.end(row, before, is_there, refuse);
        }
    }

    /// Ends a value.
    fn end(&mut self, row: usize, before: usize, mut is_there: bool, refuse: &mut dyn FnMut(usize, Refusal)) {
        let end = i32::try_from(self.bytes.len()).unwrap_or_else(|_| {
            refuse(row, "a value too long to stand with those before it".to_owned());
            self.bytes.truncate(before);
            is_there = false;
            i32::MAX
        });
        self.ends.push(end);
        self.nulls.append(is_there);
    }

    /// Texts: `text` gives back the part of a value that is one. They are looked at together once they stand one after the
    /// other; where not all of them are plain, each by itself.
    fn extend_texts(
        &mut self,
        bytes: &[u8],
        places: &[Place],
        refuse: &mut dyn FnMut(usize, Refusal),
        text: impl Fn(&[u8]) -> Result<&[u8], Refusal>,
    ) {
        let (rows, before) = (self.nulls.len(), self.bytes.len());
        let mut is_clean = true;
        self.extend(bytes, places, &mut |_, _| is_clean = false, |value, into| {
            into.extend_from_slice(text(value)?);
            Ok(())
        });
        if is_clean && self.bytes[before..].is_ascii() {
            return;
        }
        self.bytes.truncate(before);
        self.ends.truncate(rows + 1);
        self.nulls.truncate(rows);
        self.extend(bytes, places, refuse, |value, into| {
            let value = text(value)?;
            std::str::from_utf8(value).map_err(|error| format!("text that is not UTF-8 ({error})"))?;
            into.extend_from_slice(value);
            Ok(())
        });
    }

    fn finish(&mut self, rows: usize) -> (OffsetBuffer<i32>, Buffer, Option<NullBuffer>) {
        let room = self.bytes.len().min(ROOM);
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(room));
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        let ends = std::mem::replace(&mut self.ends, ends);
        (OffsetBuffer::new(ScalarBuffer::from(ends)), Buffer::from_vec(bytes), self.nulls.finish())
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

fn fixed<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N], Refusal> {
    bytes.try_into().map_err(|_| misshapen(what, bytes))
}

#[cold]
pub(super) fn misshapen(what: &str, bytes: &[u8]) -> Refusal {
    format!("a {what} of {} bytes", bytes.len())
}

fn whole(bytes: &[u8]) -> Result<&[u8], Refusal> {
    Ok(bytes)
}

fn date(days: i32) -> Result<i32, Refusal> {
    match days {
        i32::MAX => Err("the date `infinity`".to_owned()),
        i32::MIN => Err("the date `-infinity`".to_owned()),
        days => days.checked_add(EPOCH_DAYS).ok_or_else(|| "a date too far away".to_owned()),
    }
}

fn time(bytes: &[u8]) -> Result<i64, Refusal> {
    match i64::from_be_bytes(fixed(bytes, "time")?) {
        micros @ 0..86_400_000_000 => Ok(micros),
        _ => Err("the time 24:00:00 is not within a day".to_owned()),
    }
}

fn timestamp(micros: i64) -> Result<i64, Refusal> {
    match micros {
        i64::MAX => Err("the timestamp `infinity`".to_owned()),
        i64::MIN => Err("the timestamp `-infinity`".to_owned()),
        micros => micros.checked_add(EPOCH_MICROS).ok_or_else(|| "a timestamp too far away".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop_oneof![
            Just(None),
            "[a-z]{0,6}".prop_map(|text| Some(text.into_bytes())),
            "\\PC{0,4}".prop_map(|text| Some(text.into_bytes())),
            prop::collection::vec(any::<u8>(), 0..4).prop_map(Some),
        ]
    }

    proptest! {
        /// Texts that are looked at together are the same, and the same are refused, as if each was looked at by itself:
        /// a letter must not be made of the end of one value and the beginning of the next.
        #[test]
        fn texts_are_the_same_however_many_come_at_once(values in prop::collection::vec(value(), 0..40), at_once in 1usize..12) {
            let mut column = Values::new(&Kind::Text);
            let mut refused = Vec::new();
            for (number, some) in values.chunks(at_once).enumerate() {
                let mut bytes = Vec::new();
                let mut places = Vec::new();
                for value in some {
                    places.push(value.as_ref().map_or_else(Place::null, |value| {
                        let from = bytes.len();
                        bytes.extend_from_slice(value);
                        Place::new(from, bytes.len()).unwrap()
                    }));
                }
                column.extend(&bytes, &places, &mut |row, _| refused.push(number * at_once + row));
            }
            let array = column.finish(values.len()).unwrap();
            let found: Vec<Option<&str>> = array.as_string::<i32>().iter().collect();
            let texts: Vec<Option<Option<&str>>> =
                values.iter().map(|value| value.as_ref().map(|bytes| std::str::from_utf8(bytes).ok())).collect();
            prop_assert_eq!(found, texts.iter().map(|text| text.flatten()).collect::<Vec<_>>());
            let wrong: Vec<usize> = (0..texts.len()).filter(|row| texts[*row] == Some(None)).collect();
            prop_assert_eq!(refused, wrong);
        }

        #[test]
        fn an_array_of_any_bytes_is_a_row_or_a_refusal(arrays in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let mut column = Values::new(&Kind::List(Box::new(Kind::Int4)));
            for bytes in &arrays {
                column.extend(bytes, &[Place::new(0, bytes.len()).unwrap()], &mut |_, _| {});
            }
            prop_assert_eq!(column.finish(arrays.len()).unwrap().len(), arrays.len());
        }
    }
}
