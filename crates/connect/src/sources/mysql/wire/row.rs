//! Where the values of a row of the binary protocol lie.
//!
//! A row is a zero byte, a bit for each column that is NULL (from the third bit on), and the values of the others one after
//! the other, without their types: those the server told before the first row.

use mysql_async::Column;
use mysql_async::consts::{ColumnFlags, ColumnType};
use std::ops::Range;

/// How a column's values come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Raw {
    Null,
    Int8,
    UInt8,
    Int16,
    UInt16,
    Int32,
    UInt32,
    Int64,
    UInt64,
    Float,
    Double,
    /// Year, month, day, hour, minute, second, microsecond, without the zeros at its end.
    Date,
    /// Sign, days, hours, minutes, seconds, microseconds, without the zeros at its end.
    Time,
    Bytes,
}

impl Raw {
    pub(crate) fn of(column: &Column) -> Self {
        use ColumnType::*;
        let whole = |signed, other| if column.flags().contains(ColumnFlags::UNSIGNED_FLAG) { other } else { signed };
        match column.column_type() {
            MYSQL_TYPE_NULL => Self::Null,
            MYSQL_TYPE_TINY => whole(Self::Int8, Self::UInt8),
            MYSQL_TYPE_SHORT | MYSQL_TYPE_YEAR => whole(Self::Int16, Self::UInt16),
            MYSQL_TYPE_INT24 | MYSQL_TYPE_LONG => whole(Self::Int32, Self::UInt32),
            MYSQL_TYPE_LONGLONG => whole(Self::Int64, Self::UInt64),
            MYSQL_TYPE_FLOAT => Self::Float,
            MYSQL_TYPE_DOUBLE => Self::Double,
            MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE | MYSQL_TYPE_DATETIME | MYSQL_TYPE_TIMESTAMP => Self::Date,
            MYSQL_TYPE_TIME => Self::Time,
            _ => Self::Bytes,
        }
    }

    /// How many bytes a value has; none where its length stands before it. Dates and times, too, have theirs in one byte.
    fn width(self) -> Option<usize> {
        Some(match self {
            Self::Null => 0,
            Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float => 4,
            Self::Int64 | Self::UInt64 | Self::Double => 8,
            Self::Date | Self::Time | Self::Bytes => return None,
        })
    }
}

/// How many bytes say a length, and the length (the protocol's `int<lenenc>`). None for a NULL, too.
pub(super) fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let long = |size: usize| {
        let mut number = [0; 8];
        number[..size].copy_from_slice(bytes.get(1..=size)?);
        Some((1 + size, usize::try_from(u64::from_le_bytes(number)).ok()?))
    };
    match *bytes.first()? {
        short @ ..=0xFA => Some((1, usize::from(short))),
        0xFC => long(2),
        0xFD => long(3),
        0xFE => long(8),
        0xFB | 0xFF => None,
    }
}

/// How the columns of a row come.
#[derive(Debug)]
pub(crate) struct Layout {
    widths: Vec<Option<usize>>,
    /// Which columns are always NULL.
    never: Vec<usize>,
}

impl Layout {
    pub(crate) fn new(columns: &[Raw]) -> Self {
        let never = (0..columns.len()).filter(|at| columns[*at] == Raw::Null).collect();
        Self { widths: columns.iter().map(|raw| raw.width()).collect(), never }
    }

    /// Finds the values of a row; `each` is told the column and where its value lies in `row`, NULLs without a place. None
    /// for a row that is torn.
    #[inline]
    pub(crate) fn walk(&self, row: &[u8], mut each: impl FnMut(usize, Option<Range<usize>>)) -> Option<()> {
        let nulls = row.get(1..1 + (self.widths.len() + 9) / 8)?;
        let has_nulls = !self.never.is_empty() || nulls.iter().any(|bits| *bits != 0);
        let mut at = 1 + nulls.len();
        for (index, width) in self.widths.iter().enumerate() {
            if has_nulls && (nulls[(index + 2) / 8] >> ((index + 2) % 8) & 1 == 1 || self.never.contains(&index)) {
                each(index, None);
                continue;
            }
            let (from, length) = match width {
                Some(width) => (at, *width),
                None => match row.get(at) {
                    Some(length @ ..=0xFA) => (at + 1, usize::from(*length)),
                    _ => {
                        let (before, length) = length(row.get(at..)?)?;
                        (at + before, length)
                    }
                },
            };
            at = from.checked_add(length).filter(|end| *end <= row.len())?;
            each(index, Some(from..at));
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [Raw; 5] = [Raw::Int8, Raw::Int32, Raw::Double, Raw::Date, Raw::Bytes];

    proptest! {
        #[test]
        fn every_value_of_a_row_is_found_where_it_is(
            cells in prop::collection::vec((0usize..5, prop::option::of(prop::collection::vec(any::<u8>(), 0..300))), 0..20),
        ) {
            let mut nulls = vec![0u8; (cells.len() + 9) / 8];
            let (mut values, mut wanted, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
            for (index, (kind, value)) in cells.iter().enumerate() {
                let kind = KINDS[*kind];
                kinds.push(kind);
                let Some(value) = value else {
                    nulls[(index + 2) / 8] |= 1 << ((index + 2) % 8);
                    wanted.push(None);
                    continue;
                };
                let mut value = value.clone();
                match kind {
                    Raw::Int8 => value.resize(1, 0),
                    Raw::Int32 => value.resize(4, 0),
                    Raw::Double => value.resize(8, 0),
                    Raw::Date => {
                        value.truncate(11);
                        values.push(value.len() as u8);
                    }
                    _ if value.len() < 0xFB => values.push(value.len() as u8),
                    _ => {
                        values.push(0xFC);
                        values.extend((value.len() as u16).to_le_bytes());
                    }
                }
                values.extend(&value);
                wanted.push(Some(value));
            }
            let row = [&[0u8][..], &nulls, &values].concat();
            let layout = Layout::new(&kinds);
            let mut found = Vec::new();
            layout.walk(&row, |index, place| {
                assert_eq!(index, found.len());
                found.push(place.map(|place| row[place].to_vec()));
            }).unwrap();
            prop_assert_eq!(found, wanted);
            for end in 0..row.len() {
                let _ = layout.walk(&row[..end], |_, place| assert!(place.is_none_or(|place| place.end <= end)));
            }
        }

        #[test]
        fn any_bytes_are_a_row_or_torn_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), kinds in prop::collection::vec(0usize..5, 0..20)) {
            let kinds: Vec<Raw> = kinds.into_iter().map(|kind| KINDS[kind]).collect();
            let _ = Layout::new(&kinds).walk(&bytes, |_, place| assert!(place.is_none_or(|place| place.end <= bytes.len())));
        }
    }
}
