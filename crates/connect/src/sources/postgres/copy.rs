//! The frames of COPY's binary format: header, rows of fields, trailer (PostgreSQL manual, COPY, "Binary Format").

use bytes::{Bytes, BytesMut};
use gristmill_model::{Error, ErrorKind, Result};

/// The first bytes of every binary COPY.
pub(crate) const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Where a field lies in its row; `None` is NULL.
pub(crate) type Span = Option<(usize, usize)>;

/// Cuts chunks of a binary COPY into rows, however the chunks lie.
///
/// The server sends a row a chunk, so that a row is usually read where it lies in the network's buffer.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: Bytes,
    at: usize,
    columns: usize,
    begun: bool,
    ended: bool,
    spans: Vec<Span>,
}

impl Frames {
    pub(crate) fn new(columns: usize) -> Self {
        Self { columns, spans: Vec::with_capacity(columns), ..Self::default() }
    }

    /// Takes the next chunk.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.at == self.buffer.len() {
            self.buffer = chunk;
        } else {
            let rest = std::mem::take(&mut self.buffer).slice(self.at..);
            let mut joined = rest.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
            joined.extend_from_slice(&chunk);
            self.buffer = joined.freeze();
        }
        self.at = 0;
    }

    /// The next whole row, if there is one: its bytes, and where the fields lie in them.
    ///
    /// # Errors
    /// Bytes that are not this format.
    pub(crate) fn next_row(&mut self) -> Result<Option<(&[u8], &[Span])>> {
        if !self.begun && !self.read_header()? {
            return Ok(None);
        }
        let rest = &self.buffer[self.at..];
        if self.ended {
            return if rest.is_empty() { Ok(None) } else { Err(garbled("bytes after the end")) };
        }
        let Some(count) = rest.first_chunk::<2>() else { return Ok(None) };
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            self.ended = true;
            self.at += 2;
            return if rest.len() == 2 { Ok(None) } else { Err(garbled("bytes after the end")) };
        }
        if usize::try_from(count) != Ok(self.columns) {
            return Err(garbled(&format!("a row of {count} fields where {} were expected", self.columns)));
        }
        self.spans.clear();
        let mut at = 2;
        for _ in 0..self.columns {
            let Some(length) = rest.get(at..).and_then(|bytes| bytes.first_chunk::<4>()) else { return Ok(None) };
            at += 4;
            match i32::from_be_bytes(*length) {
                -1 => self.spans.push(None),
                length => {
                    let length = usize::try_from(length).map_err(|_| garbled("a field of negative length"))?;
                    if rest.len() - at < length {
                        return Ok(None);
                    }
                    self.spans.push(Some((at, at + length)));
                    at += length;
                }
            }
        }
        self.at += at;
        Ok(Some((&self.buffer[self.at - at..self.at], &self.spans)))
    }

    /// # Errors
    /// A stream that stopped before its trailer.
    pub(crate) fn finish(&self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "the rows from PostgreSQL stopped in the middle"))
    }

    fn read_header(&mut self) -> Result<bool> {
        let bytes = &self.buffer[self.at..];
        let known = bytes.len().min(SIGNATURE.len());
        if bytes[..known] != SIGNATURE[..known] {
            return Err(garbled("no signature"));
        }
        let Some([flags, extension]) = bytes.get(11..19).map(|bytes| {
            let (a, b) = bytes.split_at(4);
            [a, b].map(|word| word.iter().fold(0u32, |number, byte| (number << 8) | u32::from(*byte)))
        }) else {
            return Ok(false);
        };
        if flags & 0xffff_0000 != 0 {
            return Err(garbled("flags that are not known"));
        }
        let length = 19usize.saturating_add(extension as usize);
        if bytes.len() < length {
            return Ok(false);
        }
        self.at += length;
        self.begun = true;
        Ok(true)
    }
}

fn garbled(what: &str) -> Error {
    Error::new(ErrorKind::Data, format!("what PostgreSQL sent is not a binary COPY: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A binary COPY as the server would send it.
    fn stream(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0; 8]);
        for row in rows {
            bytes.extend((row.len() as i16).to_be_bytes());
            for field in row {
                match field {
                    None => bytes.extend((-1i32).to_be_bytes()),
                    Some(value) => {
                        bytes.extend((value.len() as i32).to_be_bytes());
                        bytes.extend(value);
                    }
                }
            }
        }
        bytes.extend((-1i16).to_be_bytes());
        bytes
    }

    fn read(chunks: &[Bytes], columns: usize) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
        let mut frames = Frames::new(columns);
        let mut rows = Vec::new();
        for chunk in chunks {
            frames.push(chunk.clone());
            while let Some((bytes, spans)) = frames.next_row()? {
                rows.push(spans.iter().map(|span| span.map(|(from, to)| bytes[from..to].to_vec())).collect());
            }
        }
        frames.finish()?;
        Ok(rows)
    }

    proptest! {
        #[test]
        fn rows_are_the_same_however_the_stream_is_cut(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 3), 0..8),
            sizes in prop::collection::vec(1usize..40, 1..6),
        ) {
            let whole = Bytes::from(stream(&rows));
            let mut chunks = Vec::new();
            let mut at = 0;
            for size in sizes.iter().cycle() {
                if at == whole.len() { break; }
                let to = (at + size).min(whole.len());
                chunks.push(whole.slice(at..to));
                at = to;
            }
            prop_assert_eq!(read(&chunks, 3).unwrap(), rows);
        }

        #[test]
        fn a_torn_stream_is_an_error_and_never_a_short_table(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 2), 1..5),
            cut in 0.0f64..1.0,
        ) {
            let whole = Bytes::from(stream(&rows));
            let torn = whole.slice(..((whole.len() as f64) * cut) as usize);
            prop_assert!(read(&[torn], 2).is_err());
        }

        #[test]
        fn any_bytes_are_an_error_or_rows_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut all = SIGNATURE.to_vec();
            all.extend([0; 8]);
            all.extend(bytes);
            let _ = read(&[Bytes::from(all)], 2);
        }
    }

    #[test]
    fn a_wrong_number_of_fields_is_an_error() {
        let error = read(&[Bytes::from(stream(&[vec![None, None]]))], 3).unwrap_err();
        assert!(error.message().contains("a row of 2 fields where 3 were expected"), "{error}");
    }
}
