//! The frame of a container file, checked block by block before arrow's decoder sees it.
//!
//! The decoder takes a file that ends inside a block for one that ends, does not compare sync markers, decompresses
//! without bound, and never comes back from a block with more bytes than its records take. So blocks are read,
//! decompressed within bounds and walked here; what passes is handed on uncompressed.

use super::super::decode::Blame;
use super::walk::Schema;
use std::io::{self, Read};

/// The most that a block may come to, decompressed.
const MAX_BLOCK_BYTES: u64 = 512 << 20;

/// The most that the header may come to.
const MAX_HEADER_BYTES: u64 = 64 << 20;

const MAGIC: &[u8; 4] = b"Obj\x01";

const TORN: &str = "the file ends in the middle; was it fully written?";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstd,
}

/// A container file as its own bytes, checked and uncompressed.
pub(super) struct Blocks<R> {
    inner: R,
    blame: Blame,
    codec: Codec,
    schema: Schema,
    sync: [u8; 16],
    /// What was made and not yet read.
    ready: Vec<u8>,
    taken: usize,
}

impl<R: Read> Blocks<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn open(mut inner: R, blame: Blame) -> Result<Self, String> {
        let mut magic = [0; 4];
        if fill(&mut inner, &mut magic)? < 4 || magic != *MAGIC {
            return Err("it does not begin with `Obj`".into());
        }
        let mut header = MAGIC.to_vec();
        let mut codec = Codec::Null;
        let mut schema = None;
        let mut size = 0;
        loop {
            let mut entries = need(number(&mut inner)?)?;
            if entries < 0 {
                // The size of the map's block in bytes; it is read, not skipped.
                need(number(&mut inner)?)?;
                entries = entries.checked_neg().ok_or("its header is broken")?;
            }
            if entries == 0 {
                break;
            }
            for _ in 0..entries {
                let key = text(&mut inner, &mut size)?;
                let value = text(&mut inner, &mut size)?;
                if key == b"avro.codec" {
                    codec = match value.as_slice() {
                        b"null" | b"" => Codec::Null,
                        b"deflate" => Codec::Deflate,
                        b"snappy" => Codec::Snappy,
                        b"zstandard" => Codec::Zstd,
                        other => return Err(format!("it is compressed with `{}`", String::from_utf8_lossy(other))),
                    };
                    continue;
                }
                if key == b"avro.schema" {
                    schema = Some(Schema::parse(&value)?);
                }
                put_number(&mut header, 1);
                put_text(&mut header, &key);
                put_text(&mut header, &value);
            }
        }
        header.push(0);
        let mut sync = [0; 16];
        if fill(&mut inner, &mut sync)? < 16 {
            return Err(TORN.into());
        }
        header.extend_from_slice(&sync);
        let schema = schema.ok_or("its header has no schema")?;
        Ok(Self { inner, blame, codec, schema, sync, ready: header, taken: 0 })
    }

    /// Makes the next block ready; nothing is ready after the last.
    fn advance(&mut self) -> Result<(), String> {
        self.ready.clear();
        self.taken = 0;
        while self.ready.is_empty() {
            let Some(count) = number(&mut self.inner)? else { return Ok(()) };
            let count = u64::try_from(count).map_err(|_| "a block of a negative number of records")?;
            let size = need(number(&mut self.inner)?)?;
            let size = u64::try_from(size).map_err(|_| "a block of negative size")?;
            if size > MAX_BLOCK_BYTES {
                return Err(too_large(size));
            }
            let mut packed = Vec::new();
            (&mut self.inner).take(size).read_to_end(&mut packed).map_err(|error| error.to_string())?;
            let mut sync = [0; 16];
            if (packed.len() as u64) < size || fill(&mut self.inner, &mut sync)? < 16 {
                return Err(TORN.into());
            }
            if sync != self.sync {
                return Err("the marker after a block is not the file's: bytes are missing or were changed".into());
            }
            let block = unpack(self.codec, packed)?;
            self.schema.walk(&block, count)?;
            if count == 0 {
                continue;
            }
            put_number(&mut self.ready, i64::try_from(count).unwrap_or(i64::MAX));
            put_number(&mut self.ready, block.len() as i64);
            self.ready.extend_from_slice(&block);
            self.ready.extend_from_slice(&self.sync);
        }
        Ok(())
    }
}

impl<R: Read> Read for Blocks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() && !buffer.is_empty() {
            self.advance().map_err(|problem| {
                let error = self.blame.data(problem);
                self.blame.trouble(error)
            })?;
        }
        let read = buffer.len().min(self.ready.len() - self.taken);
        buffer[..read].copy_from_slice(&self.ready[self.taken..self.taken + read]);
        self.taken += read;
        Ok(read)
    }
}

fn unpack(codec: Codec, packed: Vec<u8>) -> Result<Vec<u8>, String> {
    let mut block = Vec::new();
    match codec {
        Codec::Null => return Ok(packed),
        Codec::Deflate => {
            let read = flate2::read::DeflateDecoder::new(packed.as_slice()).take(MAX_BLOCK_BYTES + 1);
            { read }.read_to_end(&mut block).map_err(|error| format!("a block cannot be inflated: {error}"))?;
        }
        Codec::Zstd => {
            let told = |error: io::Error| format!("a block cannot be decompressed: {error}");
            let read = zstd::Decoder::new(packed.as_slice()).map_err(told)?.take(MAX_BLOCK_BYTES + 1);
            { read }.read_to_end(&mut block).map_err(told)?;
        }
        Codec::Snappy => {
            let told = |error: snap::Error| format!("a block cannot be decompressed: {error}");
            let (data, checksum) = packed.split_last_chunk::<4>().ok_or("a block without its checksum")?;
            let length = snap::raw::decompress_len(data).map_err(told)? as u64;
            if length > MAX_BLOCK_BYTES {
                return Err(too_large(length));
            }
            block = snap::raw::Decoder::new().decompress_vec(data).map_err(told)?;
            let mut crc = flate2::Crc::new();
            crc.update(&block);
            if crc.sum() != u32::from_be_bytes(*checksum) {
                return Err("the checksum of a block is not the one of its bytes".into());
            }
        }
    }
    if block.len() as u64 > MAX_BLOCK_BYTES {
        return Err(too_large(block.len() as u64));
    }
    Ok(block)
}

fn too_large(bytes: u64) -> String {
    format!("a block of {} MiB, more than the {} MiB that can be read", bytes >> 20, MAX_BLOCK_BYTES >> 20)
}

fn need(number: Option<i64>) -> Result<i64, String> {
    number.ok_or_else(|| TORN.to_owned())
}

/// A zig-zag number; `None` where the bytes end before it.
fn number(bytes: &mut impl Read) -> Result<Option<i64>, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        if fill(bytes, &mut byte)? == 0 {
            return if shift == 0 { Ok(None) } else { Err(TORN.into()) };
        }
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(Some(((value >> 1) as i64) ^ -((value & 1) as i64)));
        }
    }
    Err("a number of more than ten bytes".into())
}

fn text(bytes: &mut impl Read, size: &mut u64) -> Result<Vec<u8>, String> {
    let length = u64::try_from(need(number(bytes)?)?).map_err(|_| "a text of negative length in its header")?;
    *size = size.saturating_add(length).saturating_add(1);
    if *size > MAX_HEADER_BYTES {
        return Err("its header is larger than can be read".into());
    }
    let mut text = Vec::new();
    bytes.take(length).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if (text.len() as u64) < length { Err(TORN.into()) } else { Ok(text) }
}

fn fill(bytes: &mut impl Read, buffer: &mut [u8]) -> Result<usize, String> {
    let mut filled = 0;
    while filled < buffer.len() {
        match bytes.read(&mut buffer[filled..]).map_err(|error| error.to_string())? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn put_number(bytes: &mut Vec<u8>, value: i64) {
    let mut value = ((value << 1) ^ (value >> 63)) as u64;
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    put_number(bytes, text.len() as i64);
    bytes.extend_from_slice(text);
}
