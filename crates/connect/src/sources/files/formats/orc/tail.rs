//! The end of an ORC file, looked at before orc-rust sees it.
//!
//! Two things need it. The types in a footer are a list that refers to itself: a footer that lies has loops, and the
//! library would follow them until the stack ends. And files of Hive 0.11 and 0.12 leave out what later versions made
//! mandatory (the length of the metadata section, the precision of decimals); such a tail is completed, in memory, as
//! the ORC and Arrow projects do.

use bytes::Bytes;
use orc_rust::compression::{Compression, Decompressor};
use orc_rust::reader::metadata::read_metadata;
use std::io::Read;

use super::super::bytes::Positioned;

/// ORC allows 8 MiB.
const MAX_BLOCK_BYTES: u64 = 64 << 20;

/// The most that a footer may come to, decompressed.
pub(super) const MAX_FOOTER_BYTES: u64 = 256 << 20;

/// The deepest nesting of types.
const MAX_DEPTH: usize = 200;

const DECIMAL: u64 = 14;

/// Checks the tail, and completes it where it is of an old kind.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn complete(file: Positioned) -> Result<Positioned, String> {
    let told = |error: std::io::Error| error.to_string();
    let length = file.length();
    let last = file.range(length - 1, 1).map_err(told)?;
    let postscript_length = u64::from(last[0]);
    let postscript_start = (length - 1).checked_sub(postscript_length).ok_or("it is shorter than its postscript")?;
    let postscript = file.range(postscript_start, postscript_length).map_err(told)?;

    let mut footer_length = None;
    let mut metadata_length = None;
    let mut block = 0;
    let mut compression = 0;
    for field in Fields::new(&postscript) {
        match field? {
            (1, Value::Number(value), _) => footer_length = Some(value),
            (2, Value::Number(value), _) => compression = value,
            (3, Value::Number(value), _) => block = value,
            (5, Value::Number(value), _) => metadata_length = Some(value),
            _ => {}
        }
    }
    if block > MAX_BLOCK_BYTES {
        return Err(format!("its compression blocks are said to be of {} MiB", block >> 20));
    }
    let footer_length = footer_length.ok_or("its postscript does not say how long its footer is")?;
    let footer_start = postscript_start.checked_sub(footer_length).ok_or("it is shorter than its footer")?;
    if footer_start < metadata_length.unwrap_or(0) {
        return Err("it is shorter than its metadata".into());
    }
    let packed = file.range(footer_start, footer_length).map_err(told)?;
    let codec = codec(compression, block)?;
    let mut footer = Vec::new();
    Decompressor::new(packed, codec, Vec::new()).take(MAX_FOOTER_BYTES + 1).read_to_end(&mut footer).map_err(told)?;
    if footer.len() as u64 > MAX_FOOTER_BYTES {
        return Err("its footer is larger than can be read".into());
    }

    let completed = check_types(&footer)?;
    if completed.is_none() && metadata_length.is_some() {
        return Ok(file);
    }
    let mut tail = Vec::new();
    match completed {
        Some(footer) => store(&footer, codec.is_some(), &mut tail)?,
        None => tail.extend_from_slice(&file.range(footer_start, footer_length).map_err(told)?),
    }
    let footer_length = tail.len() as u64;
    // The last of equal fields is the one that counts.
    let mut postscript = postscript.to_vec();
    put_number(&mut postscript, 1, footer_length);
    if metadata_length.is_none() {
        put_number(&mut postscript, 5, 0);
    }
    let length = u8::try_from(postscript.len()).map_err(|_| "its postscript is too long")?;
    tail.extend_from_slice(&postscript);
    tail.push(length);
    Ok(file.with_tail(footer_start, tail.into()))
}

/// The library makes its codecs from postscripts only, so it is given one, of a file without anything in it.
fn codec(kind: u64, block: u64) -> Result<Option<Compression>, String> {
    // One type: a struct (12) without fields.
    let mut footer = Vec::new();
    put_bytes(&mut footer, 4, &[1 << 3, 12]);
    put_number(&mut footer, 6, 0);
    let mut file = Vec::new();
    store(&footer, kind != 0, &mut file)?;
    let mut postscript = Vec::new();
    put_number(&mut postscript, 1, file.len() as u64);
    put_number(&mut postscript, 2, kind);
    if block > 0 {
        put_number(&mut postscript, 3, block);
    }
    put_number(&mut postscript, 5, 0);
    file.extend_from_slice(&postscript);
    file.push(u8::try_from(postscript.len()).unwrap_or(u8::MAX));
    let metadata = read_metadata(&mut Bytes::from(file)).map_err(|error| error.to_string())?;
    Ok(metadata.compression())
}

/// Adds a section to a file; where sections are compressed, as a block that is not.
fn store(section: &[u8], compressed: bool, file: &mut Vec<u8>) -> Result<(), String> {
    if compressed {
        let length = u32::try_from(section.len()).ok().filter(|length| *length < 1 << 23);
        let header = (length.ok_or("its footer is too large to be completed")? << 1) | 1;
        file.extend_from_slice(&header.to_le_bytes()[..3]);
    }
    file.extend_from_slice(section);
    Ok(())
}

/// Checks that the types are a tree. The footer with precisions added, if decimals lack them.
fn check_types(footer: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut depths: Vec<Option<usize>> = vec![Some(0)];
    let mut at = 0;
    let mut completed = Vec::new();
    let mut changed = false;
    for field in Fields::new(footer) {
        let (number, value, raw) = field?;
        let (4, Value::Bytes(bytes)) = (number, value) else {
            completed.extend_from_slice(raw);
            continue;
        };
        let depth = depths.get(at).copied().flatten().ok_or("its footer has a type that belongs to none")?;
        if depth > MAX_DEPTH {
            return Err(format!("its types are nested deeper than {MAX_DEPTH} levels"));
        }
        let mut kind = 0;
        let mut precision = 0;
        for field in Fields::new(bytes) {
            match field? {
                (1, Value::Number(value), _) => kind = value,
                (5, Value::Number(value), _) => precision = value,
                (2, Value::Number(child), _) => adopt(&mut depths, at, child, depth)?,
                (2, Value::Bytes(packed), _) => {
                    let mut rest = packed;
                    while !rest.is_empty() {
                        adopt(&mut depths, at, take_number(&mut rest)?, depth)?;
                    }
                }
                _ => {}
            }
        }
        if kind == DECIMAL && precision == 0 {
            // Hive 0.11 and 0.12 mean the greatest precision; the scale is the one that Arrow and ORC take.
            let mut with = bytes.to_vec();
            put_number(&mut with, 5, 38);
            put_number(&mut with, 6, 6);
            put_bytes(&mut completed, 4, &with);
            changed = true;
        } else {
            completed.extend_from_slice(raw);
        }
        at += 1;
    }
    Ok(changed.then_some(completed))
}

/// Types come before their parts, and each is a part of one other.
fn adopt(depths: &mut Vec<Option<usize>>, parent: usize, child: u64, depth: usize) -> Result<(), String> {
    const MAX_TYPES: usize = 1 << 20;
    let child = usize::try_from(child).ok().filter(|child| *child > parent && *child < MAX_TYPES);
    let child = child.ok_or("its types refer to each other in a circle")?;
    if depths.len() <= child {
        depths.resize(child + 1, None);
    }
    match depths[child].replace(depth + 1) {
        None => Ok(()),
        Some(_) => Err("a type of it is part of two others".into()),
    }
}

/// A field's value.
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a protocol buffer: number, value, and the bytes as they stand.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>, &'a [u8]), String> {
        let whole = self.0;
        let tag = take_number(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Number(take_number(&mut self.0)?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = take_number(&mut self.0)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err("its footer is not a protocol buffer".into()),
        };
        Ok((tag >> 3, value, &whole[..whole.len() - self.0.len()]))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let split = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = split.ok_or("its footer ends in the middle")?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>, &'a [u8]), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("its footer ends in the middle")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("its footer has a number of more than ten bytes".into())
}

pub(super) fn put_number(bytes: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(bytes, field << 3);
    put_varint(bytes, value);
}

pub(super) fn put_bytes(bytes: &mut Vec<u8>, field: u64, value: &[u8]) {
    put_varint(bytes, (field << 3) | 2);
    put_varint(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
