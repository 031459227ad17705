//! How long the lists of an ORC file say they are, looked at before orc-rust believes it.
//!
//! The library makes room for the items of a batch of lists before it looks for them. A file that lies about their number,
//! or about the size of a dictionary, would end the process, since memory that cannot be had is no error that could be
//! caught. So the streams of lengths (which are small, and packed: runs of numbers) are added up beforehand, by an upper
//! bound that needs no unpacking. Where a batch of the usual size would be too large, a smaller one is asked for.

use super::super::bytes::Positioned;
use super::tail::{Fields, MAX_FOOTER_BYTES, Value};
use bytes::Bytes;
use orc_rust::compression::{Compression, Decompressor};
use orc_rust::reader::metadata::FileMetadata;
use orc_rust::schema::DataType;
use orc_rust::stripe::StripeMetadata;
use std::collections::HashMap;
use std::io::Read;

/// So many items of lists are made room for at once, at most.
const MOST: u128 = 1 << 26;

/// The most that a stream of lengths may come to, decompressed.
const MAX_STREAM_BYTES: u64 = 1 << 30;

/// The kind of a stream that holds lengths.
const LENGTH: u64 = 2;

/// How many rows a batch may have, up to `wanted`.
///
/// # Errors
/// What the file says that cannot be, in words.
pub(super) fn batch_rows(
    file: &Positioned,
    metadata: &FileMetadata,
    columns: &[&DataType],
    wanted: usize,
) -> Result<usize, String> {
    let mut rows = wanted as u128;
    for stripe in metadata.stripe_metadatas() {
        let stripe = Stripe::read(file, metadata.compression(), stripe)?;
        for column in columns {
            rows = rows.min(stripe.rows(column, 1)?);
        }
    }
    Ok(usize::try_from(rows).unwrap_or(wanted).clamp(1, wanted.max(1)))
}

/// What the lengths of one column come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bound {
    /// None is greater.
    greatest: u128,
    /// All of them together are not more.
    total: u128,
}

impl Bound {
    fn add(&mut self, value: u128, times: u64) {
        self.greatest = self.greatest.max(value);
        self.total = self.total.saturating_add(value.saturating_mul(u128::from(times)));
    }
}

/// The lengths and dictionaries of a stripe.
struct Stripe<'a> {
    file: &'a Positioned,
    compression: Option<Compression>,
    /// By column: where its lengths are.
    lengths: HashMap<u64, (u64, u64)>,
    /// By column: how it is encoded, and the size of its dictionary.
    encodings: Vec<(u64, u64)>,
}

impl<'a> Stripe<'a> {
    fn read(file: &'a Positioned, compression: Option<Compression>, stripe: &StripeMetadata) -> Result<Self, String> {
        let far = || "a stripe of it begins beyond its end".to_owned();
        let data = stripe.index_length().checked_add(stripe.data_length()).ok_or_else(far)?;
        let start = stripe.offset().checked_add(data).ok_or_else(far)?;
        let packed = file.range(start, stripe.footer_length()).map_err(|error| error.to_string())?;
        let footer = unpacked(packed, compression, MAX_FOOTER_BYTES)?;
        let mut read = Self { file, compression, lengths: HashMap::new(), encodings: Vec::new() };
        let mut at = stripe.offset();
        for field in Fields::new(&footer) {
            // Streams, and encodings of columns; the time zone is not made of parts.
            let (number @ 1..=2, Value::Bytes(bytes), _) = field? else { continue };
            let mut parts = [0; 4];
            for part in Fields::new(bytes) {
                if let (number @ 1..=3, Value::Number(value), _) = part? {
                    parts[number as usize] = value;
                }
            }
            let [_, kind, column, length] = parts;
            if number == 2 {
                read.encodings.push((parts[1], parts[2]));
                continue;
            }
            if kind == LENGTH {
                read.lengths.insert(column, (at, length));
            }
            at = at.checked_add(length).ok_or_else(far)?;
        }
        Ok(read)
    }

    /// How many rows of a column may be read at once, where each comes to so many values already.
    fn rows(&self, column: &DataType, per_row: u128) -> Result<u128, String> {
        let index = column.column_index() as u64;
        if self.encodings.get(column.column_index()).is_some_and(|(_, size)| u128::from(*size) > MOST) {
            return Err(format!("the dictionary of its column {index} is said to have more than {MOST} values"));
        }
        let inner: Vec<&DataType> = match column {
            DataType::List { child, .. } => vec![child.as_ref()],
            DataType::Map { key, value, .. } => vec![key.as_ref(), value.as_ref()],
            DataType::Struct { children, .. } => children.iter().map(|child| child.data_type()).collect(),
            DataType::Union { variants, .. } => variants.iter().collect(),
            _ => Vec::new(),
        };
        let (mut rows, mut per_row) = (u128::MAX, per_row);
        if matches!(column, DataType::List { .. } | DataType::Map { .. }) {
            let bound = self.bound(index)?;
            per_row = per_row.saturating_mul(bound.greatest.max(1));
            if bound.total > MOST {
                rows = MOST / per_row;
                if rows == 0 {
                    return Err(format!("a list in its column {index} is said to have more than {MOST} items"));
                }
            }
        }
        for column in inner {
            rows = rows.min(self.rows(column, per_row)?);
        }
        Ok(rows)
    }

    fn bound(&self, column: u64) -> Result<Bound, String> {
        let Some((start, length)) = self.lengths.get(&column) else { return Ok(Bound::default()) };
        let packed = self.file.range(*start, *length).map_err(|error| error.to_string())?;
        let stream = unpacked(packed, self.compression, MAX_STREAM_BYTES)?;
        let kind = usize::try_from(column).ok().and_then(|column| self.encodings.get(column)).map_or(0, |of| of.0);
        // 0 and 1 are the first version of run lengths, 2 and 3 the second.
        let bound = if kind < 2 { first_version(&stream) } else { second_version(&stream) };
        bound.ok_or_else(|| format!("the lengths of its column {column} end in the middle"))
    }
}

fn unpacked(packed: Bytes, compression: Option<Compression>, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = Decompressor::new(packed, compression, Vec::new()).take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most { Err("a part of it is larger than can be read".into()) } else { Ok(bytes) }
}

/// The bytes of a stream of numbers.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip(&mut self, bits: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bits.div_ceil(8)).ok()?..)?;
        Some(())
    }

    /// A number of so many bytes, the greatest first.
    fn plain(&mut self, bytes: u8) -> Option<u128> {
        (0..bytes).try_fold(0_u128, |all, _| Some(all << 8 | u128::from(self.byte()?)))
    }

    fn varint(&mut self) -> Option<u128> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// Runs of numbers, first version: a run with a step, or numbers one by one.
fn first_version(stream: &[u8]) -> Option<Bound> {
    let (mut numbers, mut bound) = (Numbers(stream), Bound::default());
    while let Some(control) = numbers.byte() {
        if let Ok(control @ 0..) = i8::try_from(control) {
            let length = u64::from(control.unsigned_abs()) + 3;
            let step = i8::from_le_bytes([numbers.byte()?]);
            let rise = u128::try_from(step).unwrap_or(0) * u128::from(length - 1);
            bound.add(numbers.varint()?.saturating_add(rise), length);
        } else {
            for _ in 0..256 - u16::from(control) {
                bound.add(numbers.varint()?, 1);
            }
        }
    }
    Some(bound)
}

/// The bits of a packed number, by their code.
fn width(code: u8) -> u64 {
    match code {
        0..=23 => u64::from(code) + 1,
        24..=27 => u64::from(code) * 2 - 22,
        _ => u64::from(code) * 8 - 184,
    }
}

/// The bits that a number of so many bits is packed in.
fn packed_width(bits: u64) -> u64 {
    (0..32).map(width).find(|width| *width >= bits).unwrap_or(64)
}

fn greatest_of(bits: u64) -> u128 {
    (1 << bits.min(127)) - 1
}

/// Runs of numbers, second version: a short run, packed numbers, packed numbers with patches, or differences.
fn second_version(stream: &[u8]) -> Option<Bound> {
    let (mut numbers, mut bound) = (Numbers(stream), Bound::default());
    while let Some(header) = numbers.byte() {
        let code = (header >> 1) & 0x1f;
        if header >> 6 == 0 {
            let value = numbers.plain(((header >> 3) & 7) + 1)?;
            bound.add(value, u64::from(header & 7) + 3);
            continue;
        }
        let length = (u64::from(header & 1) << 8 | u64::from(numbers.byte()?)) + 1;
        match header >> 6 {
            1 => {
                numbers.skip(width(code) * length)?;
                bound.add(greatest_of(width(code)), length);
            }
            2 => {
                let (third, fourth) = (numbers.byte()?, numbers.byte()?);
                let (patch, gap) = (width(third & 0x1f), u64::from(fourth >> 5) + 1);
                let base = numbers.plain((third >> 5) + 1)?;
                numbers.skip(width(code) * length)?;
                numbers.skip(packed_width(patch + gap) * u64::from(fourth & 0x1f))?;
                bound.add(base.saturating_add(greatest_of(width(code) + patch)), length);
            }
            _ => {
                let base = numbers.varint()?;
                let step = numbers.varint()?;
                // Zigzag: odd numbers are negative.
                let (falls, step) = (step & 1 == 1, step.div_ceil(2));
                let packed = if code == 0 { 0 } else { width(code) };
                let further = length.saturating_sub(2);
                numbers.skip(packed * further)?;
                let each = if code == 0 { step } else { greatest_of(packed) };
                let rise = step.saturating_add(each.saturating_mul(u128::from(further)));
                bound.add(if falls { base } else { base.saturating_add(rise) }, length);
            }
        }
    }
    Some(bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The examples of the specification, but for signs.
    #[test]
    fn runs_are_bounded_as_the_specification_writes_them() {
        let of = |bytes: &[u8]| second_version(bytes).map(|bound| (bound.greatest, bound.total)).unwrap();
        assert_eq!(of(&[0x0a, 0x27, 0x10]), (10_000, 50_000));
        let direct = [0x5e, 0x03, 0x5c, 0xa1, 0xab, 0x1e, 0xde, 0xad, 0xbe, 0xef];
        assert_eq!(of(&direct), (65_535, 4 * 65_535));
        let patched = [
            0x8e, 0x13, 0x2b, 0x21, 0x07, 0xd0, 0x1e, 0x00, 0x14, 0x70, 0x28, 0x32, 0x3c, 0x46, 0x50, 0x5a, 0x64, 0x6e,
            0x78, 0x82, 0x8c, 0x96, 0xa0, 0xaa, 0xb4, 0xbe, 0xfc, 0xe8,
        ];
        // Its greatest is 1,000,000, of eight and twelve bits.
        assert_eq!(of(&patched).0, 2_000 + greatest_of(20));
        // The primes up to 29.
        let delta = [0xc6, 0x09, 0x02, 0x02, 0x22, 0x42, 0x42, 0x46];
        assert_eq!(of(&delta).0, 2 + 1 + 8 * 15);
        assert_eq!(first_version(&[0x61, 0x00, 0x07]).unwrap(), Bound { greatest: 7, total: 700 });
        assert_eq!(first_version(&[0xfb, 2, 3, 6, 7, 11]).unwrap(), Bound { greatest: 11, total: 29 });
        assert_eq!((width(24), width(27), width(28), width(31)), (26, 32, 40, 64));
        assert_eq!((packed_width(25), packed_width(33), packed_width(64)), (26, 40, 64));
        assert_eq!(second_version(&[0x5e, 0x03]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (first_version(&bytes), second_version(&bytes));
        }
    }
}
