//! The blocks of container files as bytes, for who puts several files of one schema together: records are neither
//! decompressed nor understood.

use super::super::FileInput;
use super::super::bytes::{self, ByteStream, Purpose, stream_error};
use crate::sources::files::records::Chunk;
use gristmill_model::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::io;
use tokio::io::AsyncReadExt;

const MAGIC: &[u8; 4] = b"Obj\x01";
/// The most that a block, or an entry of the header, may come to.
const MOST_BYTES: u64 = 512 << 20;

/// What stands behind the header and each block.
pub(crate) type Marker = [u8; 16];

/// A container file, block by block.
pub(crate) struct Frames {
    stream: ByteStream,
    name: String,
    /// Magic, schema, codec and whatever else the header says, without the marker behind it.
    header: Vec<u8>,
    marker: Marker,
}

impl Frames {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// A file that cannot be opened, or is no container file.
    pub(crate) async fn open(input: &FileInput) -> Result<Self> {
        let stream = bytes::open(input, Purpose::Read).await?;
        let mut frames = Self { stream, name: input.name.clone(), header: MAGIC.to_vec(), marker: Marker::default() };
        let mut magic = [0; 4];
        frames.fill(&mut magic).await?;
        if magic != *MAGIC {
            return Err(frames.wrong("it does not begin with `Obj`"));
        }
        let mut entries = BTreeMap::new();
        loop {
            let mut count = frames.number().await?;
            if count < 0 {
                // The size of the map's block in bytes; it is read, not skipped.
                frames.number().await?;
                count = count.checked_neg().ok_or_else(|| frames.wrong("its header is broken"))?;
            }
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let key = frames.sized().await?;
                let value = frames.sized().await?;
                entries.insert(key, value);
            }
        }
        let mut marker = Marker::default();
        frames.fill(&mut marker).await?;
        frames.marker = marker;
        // In one order, so that equal headers are equal bytes.
        put_number(&mut frames.header, entries.len() as u64);
        for text in entries.iter().flat_map(|(key, value)| [key, value]) {
            put_number(&mut frames.header, text.len() as u64);
            frames.header.extend_from_slice(text);
        }
        if !entries.is_empty() {
            frames.header.push(0);
        }
        Ok(frames)
    }

    /// The header, without a marker.
    pub(crate) fn header(&self) -> &[u8] {
        &self.header
    }

    /// The next block, with this marker behind it; none at the end.
    ///
    /// # Errors
    /// A file that ends in the middle, or whose markers are not its own.
    pub(crate) async fn next(&mut self, marker: &Marker) -> Result<Option<Chunk>> {
        let first = match self.stream.read_u8().await {
            Ok(first) => first,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(self.io(&error)),
        };
        let records = self.number_from(first).await?;
        let records = u64::try_from(records).map_err(|_| self.wrong("a block of a negative number of records"))?;
        let mut bytes = Vec::new();
        put_number(&mut bytes, records);
        let block = self.sized().await?;
        put_number(&mut bytes, block.len() as u64);
        bytes.extend_from_slice(&block);
        let mut own = Marker::default();
        self.fill(&mut own).await?;
        if own != self.marker {
            return Err(self.wrong("the marker after a block is not the file's: bytes are missing or were changed"));
        }
        bytes.extend_from_slice(marker);
        Ok(Some(Chunk { bytes, records }))
    }

    /// A length, and so many bytes.
    async fn sized(&mut self) -> Result<Vec<u8>> {
        let size = self.number().await?;
        let size = u64::try_from(size).ok().filter(|size| *size <= MOST_BYTES);
        let size = size.ok_or_else(|| self.wrong("a length that cannot be"))?;
        let mut bytes = Vec::new();
        let read = (&mut self.stream).take(size).read_to_end(&mut bytes).await;
        read.map_err(|error| self.io(&error))?;
        if (bytes.len() as u64) < size { Err(self.torn()) } else { Ok(bytes) }
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.stream.read_exact(buffer).await.map(drop).map_err(|error| self.io(&error))
    }

    async fn number(&mut self) -> Result<i64> {
        let first = self.stream.read_u8().await.map_err(|error| self.io(&error))?;
        self.number_from(first).await
    }

    /// A number of seven bits a byte, the sign in the lowest.
    async fn number_from(&mut self, first: u8) -> Result<i64> {
        let mut byte = first;
        let mut number = u64::from(byte & 0x7f);
        let mut shift = 7;
        while byte & 0x80 != 0 {
            if shift > 63 {
                return Err(self.wrong("a number of more than 64 bits"));
            }
            byte = self.stream.read_u8().await.map_err(|error| self.io(&error))?;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
        }
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    fn io(&self, error: &io::Error) -> Error {
        if error.kind() == io::ErrorKind::UnexpectedEof { self.torn() } else { stream_error(error, &self.name) }
    }

    fn torn(&self) -> Error {
        self.wrong("the file ends in the middle; was it fully written?")
    }

    fn wrong(&self, why: &str) -> Error {
        Error::new(ErrorKind::Data, format!("`{}` is no Avro file that can be read: {why}", self.name))
    }
}

/// The other direction; what is counted is never negative.
fn put_number(out: &mut Vec<u8>, number: u64) {
    let mut rest = number << 1;
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or_default());
}
