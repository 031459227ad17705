//! Columns of a database's rows, straight into arrow's buffers: many rows of one column at a time, so that what a column needs
//! is decided once and not for every value, and texts are looked at together.

use arrow::array::{ArrayRef, BinaryArray, NullBufferBuilder, PrimitiveArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType};
use arrow::error::ArrowError;
use gristmill_model::{Error, Result};
use std::sync::Arc;

/// The most bytes of text that are set aside before they have come.
const ROOM: usize = 1 << 20;

/// Why a value cannot be had; the row is refused.
pub(crate) type Refusal = String;

/// Where a value lies among the bytes of some rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    from: u32,
    /// [`NULL`] where there is no value.
    length: u32,
}

/// No value is as long as this: servers' end at 1 GB.
const NULL: u32 = u32::MAX;

impl Place {
    /// From here to there.
    ///
    /// # Errors
    /// A place beyond 4 GB, which no row has.
    pub(crate) fn new(from: usize, to: usize) -> Result<Self> {
        let too_long = |_| Error::internal("a row of more than 4 GB");
        let length = u32::try_from(to - from).map_err(too_long)?;
        Ok(Self { from: u32::try_from(from).map_err(too_long)?, length })
    }

    /// From here to there, both below 4 GB.
    pub(crate) fn near(from: usize, to: usize) -> Self {
        Self { from: from as u32, length: (to - from) as u32 }
    }

    /// Nowhere: a NULL.
    pub(crate) fn null() -> Self {
        Self { from: 0, length: NULL }
    }

    /// The value, where there is one.
    pub(crate) fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        if self.length == NULL {
            return None;
        }
        bytes.get(self.from as usize..self.from as usize + self.length as usize)
    }
}

/// Values of one width.
#[derive(Debug)]
pub(crate) struct Fixed<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
    of: DataType,
    /// Of the rows that are taken, those without a value.
    holes: Vec<usize>,
}

impl<T: ArrowPrimitiveType> Fixed<T> {
    /// Values that make an array of this type.
    pub(crate) fn new(of: DataType) -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0), of, holes: Vec::new() }
    }

    /// Takes a column's values of some rows. `refuse` is told which rows have none that can be had.
    pub(crate) fn extend(
        &mut self,
        bytes: &[u8],
        places: &[Place],
        refuse: &mut dyn FnMut(usize, Refusal),
        decode: impl Fn(&[u8]) -> Result<T::Native, Refusal>,
    ) {
        let holes = &mut self.holes;
        self.values.extend(places.iter().enumerate().map(|(row, place)| match place.of(bytes).map(&decode) {
            Some(Ok(value)) => value,
            other => {
                if let Some(Err(refusal)) = other {
                    refuse(row, refusal);
                }
                holes.push(row);
                T::Native::default()
            }
        }));
        let mut done = 0;
        for hole in self.holes.drain(..) {
            self.nulls.append_n_non_nulls(hole - done);
            self.nulls.append_null();
            done = hole + 1;
        }
        self.nulls.append_n_non_nulls(places.len() - done);
    }

    /// Takes the column out, and sets as much room aside for the next one.
    ///
    /// # Errors
    /// Only a bug here.
    pub(crate) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(rows));
        let array = PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), self.nulls.finish());
        Ok(Arc::new(array.map_err(no_array)?.with_data_type(self.of.clone())))
    }
}

/// Values of any length, one after the other.
#[derive(Debug)]
pub(crate) struct Long {
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
    /// Takes a column's values of some rows, as `write` writes them.
    pub(crate) fn extend(
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
    pub(crate) fn extend_texts(
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

    /// Takes the column out as texts.
    ///
    /// # Errors
    /// Only a bug here.
    pub(crate) fn finish_texts(&mut self, rows: usize) -> Result<ArrayRef> {
        let (ends, bytes, nulls) = self.finish(rows);
        Ok(Arc::new(StringArray::try_new(ends, bytes, nulls).map_err(no_array)?))
    }

    /// Takes the column out as bytes.
    ///
    /// # Errors
    /// Only a bug here.
    pub(crate) fn finish_bytes(&mut self, rows: usize) -> Result<ArrayRef> {
        let (ends, bytes, nulls) = self.finish(rows);
        Ok(Arc::new(BinaryArray::try_new(ends, bytes, nulls).map_err(no_array)?))
    }
}

/// Values that do not make an array: a bug here.
pub(crate) fn no_array(error: ArrowError) -> Error {
    Error::internal("values of a database do not make a column").cause(error)
}

/// The whole value is the text.
///
/// # Errors
/// Never.
pub(crate) fn whole(bytes: &[u8]) -> Result<&[u8], Refusal> {
    Ok(bytes)
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
            let mut column = Long::default();
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
                column.extend_texts(&bytes, &places, &mut |row, _| refused.push(number * at_once + row), whole);
            }
            let array = column.finish_texts(values.len()).unwrap();
            let found: Vec<Option<&str>> = array.as_string::<i32>().iter().collect();
            let texts: Vec<Option<Option<&str>>> =
                values.iter().map(|value| value.as_ref().map(|bytes| std::str::from_utf8(bytes).ok())).collect();
            prop_assert_eq!(found, texts.iter().map(|text| text.flatten()).collect::<Vec<_>>());
            let wrong: Vec<usize> = (0..texts.len()).filter(|row| texts[*row] == Some(None)).collect();
            prop_assert_eq!(refused, wrong);
        }
    }
}
