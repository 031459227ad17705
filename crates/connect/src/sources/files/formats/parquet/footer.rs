//! Footers that the decoder refuses and others read: what nobody needs for the rows is left out.
//!
//! Some writers use numbers of column fields that the format gave another meaning later, and some type annotations are
//! impossible for the bytes they stand on. Both are dropped here, and writers' notes with them, in memory, once the footer as it stands was refused.

/// The deepest nesting in a footer; the format itself needs eight.
const MAX_DEPTH: usize = 32;

/// Which structure is being copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    SchemaElement,
    RowGroup,
    ColumnChunk,
    ColumnMetaData,
    Other,
}

const I32: u8 = 5;
const I64: u8 = 6;
const STRUCT: u8 = 12;

/// The footer without what may be left out; `None` if it is no footer at all.
pub(super) fn repaired(footer: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(footer.len());
    Copier { rest: footer }.structure(Kind::File, &[], &mut Numbers::default(), &mut out, 0)?;
    Some(out)
}

/// The numbers of a schema element that its annotation is judged by.
#[derive(Debug, Default)]
struct Numbers([Option<i64>; 16]);

impl Numbers {
    /// Whether a decimal of that many digits fits into that many bytes (`fixed_len_byte_array` is type 7, the
    /// annotation `decimal` is number 5).
    fn impossible_decimal(&self) -> bool {
        let [_, kind, bytes, _, _, _, annotation, _, digits, ..] = self.0;
        let (Some(7), Some(bytes), Some(5), Some(digits)) = (kind, bytes, annotation, digits) else { return false };
        let most = ((8 * bytes - 1) as f64 * 2_f64.log10()).floor();
        digits as f64 > most
    }
}

struct Copier<'a> {
    rest: &'a [u8],
}

impl<'a> Copier<'a> {
    fn structure(
        &mut self,
        kind: Kind,
        drop: &[i64],
        numbers: &mut Numbers,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (mut id, mut written) = (0_i64, 0_i64);
        loop {
            let header = self.byte()?;
            if header == 0 {
                out.push(0);
                return Some(());
            }
            let wire = header & 0x0f;
            id = match header >> 4 {
                0 => unzigzag(self.varint()?),
                delta => id.checked_add(i64::from(delta))?,
            };
            let fits = match (kind, id) {
                // Notes of writers; some are not even text.
                (Kind::File, 5) => false,
                (Kind::ColumnMetaData, 14) => wire == I64,
                (Kind::ColumnMetaData, 15) => wire == I32,
                (Kind::ColumnMetaData, 16 | 17) => wire == STRUCT,
                _ => !drop.contains(&id),
            };
            let inner = match (kind, id) {
                (Kind::File, 2) => Kind::SchemaElement,
                (Kind::File, 4) => Kind::RowGroup,
                (Kind::RowGroup, 1) => Kind::ColumnChunk,
                (Kind::ColumnChunk, 3) => Kind::ColumnMetaData,
                _ => Kind::Other,
            };
            let mut value = Vec::new();
            let number = self.value(wire, inner, &mut value, depth)?;
            if let Some(slot) = usize::try_from(id).ok().and_then(|id| numbers.0.get_mut(id)) {
                *slot = number;
            }
            if !fits {
                continue;
            }
            match id - written {
                delta @ 1..=15 => out.push((delta as u8) << 4 | wire),
                _ => {
                    out.push(wire);
                    put_varint(out, ((id << 1) ^ (id >> 63)) as u64);
                }
            }
            written = id;
            out.extend_from_slice(&value);
        }
    }

    /// Copies a value; its number, if it is one.
    fn value(&mut self, wire: u8, kind: Kind, out: &mut Vec<u8>, depth: usize) -> Option<Option<i64>> {
        match wire {
            1 | 2 => {}
            3 => out.push(self.byte()?),
            4..=6 => {
                let value = self.varint()?;
                put_varint(out, value);
                return Some(Some(unzigzag(value)));
            }
            7 => out.extend_from_slice(self.take(8)?),
            8 => {
                let length = self.varint()?;
                put_varint(out, length);
                out.extend_from_slice(self.take(usize::try_from(length).ok()?)?);
            }
            9 | 10 => {
                let header = self.byte()?;
                out.push(header);
                let mut size = u64::from(header >> 4);
                if size == 15 {
                    size = self.varint()?;
                    put_varint(out, size);
                }
                for _ in 0..size {
                    self.element(header & 0x0f, kind, out, depth)?;
                }
            }
            11 => {
                let size = self.varint()?;
                put_varint(out, size);
                let kinds = if size > 0 { self.byte()? } else { return Some(None) };
                out.push(kinds);
                for _ in 0..size {
                    self.element(kinds >> 4, kind, out, depth)?;
                    self.element(kinds & 0x0f, kind, out, depth)?;
                }
            }
            STRUCT => {
                let from = self.rest;
                let (start, mut numbers) = (out.len(), Numbers::default());
                self.structure(kind, &[], &mut numbers, out, depth + 1)?;
                if kind == Kind::SchemaElement && numbers.impossible_decimal() {
                    out.truncate(start);
                    self.rest = from;
                    // The annotation, its scale and precision, and its newer form.
                    self.structure(kind, &[6, 7, 8, 10], &mut numbers, out, depth + 1)?;
                }
            }
            _ => return None,
        }
        Some(None)
    }

    /// In lists and maps a truth is a byte of its own, and every value takes at least one.
    fn element(&mut self, wire: u8, kind: Kind, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        if wire == 1 || wire == 2 {
            out.push(self.byte()?);
            return Some(());
        }
        if depth > MAX_DEPTH {
            return None;
        }
        self.value(wire, kind, out, depth + 1).map(drop)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
