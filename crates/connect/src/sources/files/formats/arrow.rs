//! Arrow IPC: files (Feather 2) and streams, told apart by their first bytes.
//!
//! The frame is read here, not by the library: it allocates what a message claims before it looks whether the bytes are
//! there. Each message is checked and only then decoded.

use super::bytes::{Positioned, Purpose, SyncBytes, first_bytes, torn};
use super::decode::{self, Blame, Bridge, Out, distinct_columns};
use super::{FileInput, FileReader, RowCount, Seen};
use crate::{Rows, Scan};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::reader::{FileDecoder, StreamDecoder};
use arrow::ipc::{Block, Message, MessageHeader, root_as_footer, root_as_message};
use async_trait::async_trait;
use gristmill_model::Result;
use std::collections::VecDeque;
use std::sync::Arc;

const MAGIC: &[u8; 6] = b"ARROW1";
const CONTINUATION: [u8; 4] = [0xff; 4];

/// The most that one message may hold, decompressed.
const MAX_MESSAGE_BYTES: u64 = 1 << 30;

/// Schemas and batch headers are kilobytes; this is for tables of a hundred thousand columns.
const MAX_METADATA_BYTES: usize = 256 << 20;

#[derive(Debug)]
pub(super) struct ArrowReader;

#[async_trait]
impl FileReader for ArrowReader {
    async fn infer(&self, input: &FileInput) -> Result<Seen> {
        let input = input.clone();
        decode::call(Blame::new(&input, "Arrow IPC"), move |bridge| {
            let schema = if is_file(bridge, &input)? {
                IpcFile::open(bridge, &input)?.schema
            } else {
                let mut stream = IpcStream::open(bridge, &input, Purpose::Look)?;
                loop {
                    let more = stream.advance()?;
                    if let Some(schema) = stream.decoder.schema() {
                        check_types(&schema, &bridge.blame)?;
                        break schema;
                    }
                    if !more {
                        return Err(bridge.blame.data("it has no schema"));
                    }
                }
            };
            distinct_columns(&schema, &bridge.blame)?;
            Ok(Seen::new(schema, RowCount::Unknown))
        })
        .await
    }

    fn read(&self, input: FileInput, scan: Scan) -> Rows {
        decode::rows(scan, Blame::new(&input, "Arrow IPC"), move |bridge, out| {
            if !input.stdin && is_file(bridge, &input)? {
                return read_file(bridge, &input, out);
            }
            let mut stream = IpcStream::open(bridge, &input, Purpose::Read)?;
            loop {
                let more = stream.advance()?;
                while let Some(batch) = stream.ready.pop_front() {
                    out.send(&batch)?;
                }
                if !more {
                    return Ok(());
                }
            }
        })
    }
}

fn is_file(bridge: &Bridge, input: &FileInput) -> Result<bool> {
    Ok(first_bytes(bridge, input, MAGIC.len())? == MAGIC)
}

/// An IPC file: a footer that says where the messages are.
struct IpcFile {
    file: Positioned,
    schema: SchemaRef,
    decoder: FileDecoder,
    batches: Vec<Block>,
    blame: Blame,
}

fn read_file(bridge: &Bridge, input: &FileInput, out: &mut Out) -> Result<()> {
    let file = IpcFile::open(bridge, input)?;
    for block in &file.batches {
        let buffer = file.block(block)?;
        let batch = file.decoder.read_record_batch(block, &buffer).map_err(|error| file.blame.data(error))?;
        if let Some(batch) = batch {
            out.send(&batch)?;
        }
    }
    Ok(())
}

impl IpcFile {
    fn open(bridge: &Bridge, input: &FileInput) -> Result<Self> {
        let blame = bridge.blame.clone();
        let file = Positioned::open(bridge, input)?;
        // Magic, padding and schema in front; footer, its length and the magic behind.
        const TAIL: u64 = 10;
        if file.length() < 8 + TAIL {
            return Err(torn(&blame));
        }
        let tail = file.range(file.length() - TAIL, TAIL).map_err(|error| blame.data(error))?;
        if tail[4..] != MAGIC[..] {
            return Err(torn(&blame));
        }
        let length = i32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
        let length = u64::try_from(length).map_err(|_| blame.data("its footer has a negative length"))?;
        let start = (file.length() - TAIL).checked_sub(length).ok_or_else(|| torn(&blame))?;
        let footer = file.range(start, length).map_err(|error| blame.data(error))?;
        let footer = root_as_footer(&footer).map_err(|error| blame.data(format!("its footer is broken: {error}")))?;
        let schema = footer.schema().ok_or_else(|| blame.data("its footer has no schema"))?;
        if !schema.endianness().equals_to_target_endianness() {
            return Err(blame.data("it was written in the other byte order"));
        }
        let schema = Arc::new(arrow::ipc::convert::fb_to_schema(schema));
        check_types(&schema, &blame)?;
        let decoder = FileDecoder::new(schema.clone(), footer.version());
        let batches = footer.recordBatches().map(|blocks| blocks.iter().copied().collect()).unwrap_or_default();
        let mut this = Self { file, schema, decoder, batches, blame };
        for block in footer.dictionaries().iter().flatten() {
            let buffer = this.block(block)?;
            this.decoder.read_dictionary(block, &buffer).map_err(|error| this.blame.data(error))?;
        }
        Ok(this)
    }

    /// The bytes of a message, checked.
    fn block(&self, block: &Block) -> Result<Buffer> {
        let blame = &self.blame;
        let sizes =
            (u64::try_from(block.offset()), u64::try_from(block.metaDataLength()), u64::try_from(block.bodyLength()));
        let (Ok(offset), Ok(metadata), Ok(body)) = sizes else {
            return Err(blame.data("its footer refers to a block of negative size"));
        };
        let total = metadata.saturating_add(body);
        if total > MAX_MESSAGE_BYTES {
            return Err(blame.data(too_large(total)));
        }
        let bytes = self.file.range(offset, total).map_err(|error| blame.data(error))?;
        let header = usize::try_from(metadata).unwrap_or(usize::MAX);
        let message = match bytes.get(..4) {
            Some(start) if start == CONTINUATION => bytes.get(8..header),
            _ => bytes.get(4..header),
        };
        let message = message.ok_or_else(|| blame.data("a block is shorter than its header"))?;
        let message = root_as_message(message).map_err(|error| blame.data(error))?;
        check_message(&message, &bytes[header..], blame)?;
        Ok(Buffer::from(bytes))
    }
}

/// An IPC stream: messages one after the other.
struct IpcStream {
    bytes: SyncBytes,
    decoder: StreamDecoder,
    /// Batches that are decoded and not yet taken.
    ready: VecDeque<RecordBatch>,
    blame: Blame,
}

impl IpcStream {
    fn open(bridge: &Bridge, input: &FileInput, purpose: Purpose) -> Result<Self> {
        Ok(Self {
            bytes: SyncBytes::open(bridge, input, purpose)?,
            decoder: StreamDecoder::new(),
            ready: VecDeque::new(),
            blame: bridge.blame.clone(),
        })
    }

    /// Decodes the next message; false at the end of the stream.
    fn advance(&mut self) -> Result<bool> {
        let mut length = [0; 4];
        match self.bytes.fill(&mut length)? {
            4 => {}
            // Some writers leave the end mark out.
            0 => return self.end(),
            _ => return Err(torn_stream(&self.blame)),
        }
        if length == CONTINUATION && self.bytes.fill(&mut length)? < 4 {
            return Err(torn_stream(&self.blame));
        }
        let length = u32::from_le_bytes(length);
        if length == 0 {
            return self.end();
        }
        if length as usize > MAX_METADATA_BYTES {
            return Err(self.blame.data("it does not begin as an Arrow file or stream does"));
        }
        let metadata = self.exactly(u64::from(length))?;
        let message = root_as_message(&metadata).map_err(|error| self.blame.data(error))?;
        let body =
            u64::try_from(message.bodyLength()).map_err(|_| self.blame.data("a message claims a negative size"))?;
        if body > MAX_MESSAGE_BYTES {
            return Err(self.blame.data(too_large(body)));
        }
        let body = self.exactly(body)?;
        check_message(&message, &body, &self.blame)?;
        let mut framed = Vec::with_capacity(8 + metadata.len());
        framed.extend_from_slice(&CONTINUATION);
        framed.extend_from_slice(&length.to_le_bytes());
        framed.extend_from_slice(&metadata);
        self.feed(framed)?;
        self.feed(body)?;
        Ok(true)
    }

    /// The decoder looks at a message without a body only when more bytes follow: the end mark.
    fn end(&mut self) -> Result<bool> {
        let mut mark = CONTINUATION.to_vec();
        mark.extend_from_slice(&[0; 4]);
        self.feed(mark)?;
        if self.decoder.schema().is_none() {
            return Err(self.blame.data("it has no schema"));
        }
        Ok(false)
    }

    fn feed(&mut self, bytes: Vec<u8>) -> Result<()> {
        let mut buffer = Buffer::from_vec(bytes);
        while !buffer.is_empty() {
            self.ready.extend(self.decoder.decode(&mut buffer).map_err(|error| self.blame.data(error))?);
        }
        Ok(())
    }

    /// Reads that many bytes, growing as they come, not as they are claimed.
    fn exactly(&mut self, length: u64) -> Result<Vec<u8>> {
        const STEP: usize = 1 << 20;
        let mut bytes = Vec::new();
        let mut left = length as usize;
        while left > 0 {
            let start = bytes.len();
            let step = left.min(STEP);
            bytes.resize(start + step, 0);
            if self.bytes.fill(&mut bytes[start..])? < step {
                return Err(torn_stream(&self.blame));
            }
            left -= step;
        }
        Ok(bytes)
    }
}

fn torn_stream(blame: &Blame) -> gristmill_model::Error {
    blame.data("it ends in the middle of a message").hint("was it fully written? write or fetch it again")
}

fn too_large(bytes: u64) -> String {
    format!("a message claims {} MiB, more than the {} MiB that can be read", bytes >> 20, MAX_MESSAGE_BYTES >> 20)
}

/// Refuses types that no array can have.
fn check_types(schema: &Schema, blame: &Blame) -> Result<()> {
    for field in schema.flattened_fields() {
        let valid = match field.data_type() {
            DataType::Decimal32(precision, scale) => (1..=9).contains(precision) && scale.unsigned_abs() <= *precision,
            DataType::Decimal64(precision, scale) => (1..=18).contains(precision) && scale.unsigned_abs() <= *precision,
            DataType::Decimal128(precision, scale) => {
                (1..=38).contains(precision) && scale.unsigned_abs() <= *precision
            }
            DataType::Decimal256(precision, scale) => {
                (1..=76).contains(precision) && scale.unsigned_abs() <= *precision
            }
            _ => true,
        };
        if !valid {
            return Err(blame.data(format!("column `{}` has the impossible type {}", field.name(), field.data_type())));
        }
    }
    Ok(())
}

/// Refuses messages that would make the decoder allocate more than their bytes warrant.
fn check_message(message: &Message<'_>, body: &[u8], blame: &Blame) -> Result<()> {
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()),
        _ => None,
    };
    let Some(batch) = batch else {
        return Ok(());
    };
    if batch.length() < 0 {
        return Err(blame.data("a batch of a negative number of rows"));
    }
    let compressed = batch.compression().is_some();
    let mut total: u64 = 0;
    for buffer in batch.buffers().iter().flatten() {
        let sizes = (usize::try_from(buffer.offset()), usize::try_from(buffer.length()));
        let (Ok(start), Ok(length)) = sizes else {
            return Err(blame.data("a column of negative size"));
        };
        let bytes = start.checked_add(length).and_then(|end| body.get(start..end));
        let bytes = bytes.ok_or_else(|| blame.data("a column reaches beyond its message"))?;
        if let (true, Some(prefix)) = (compressed, bytes.first_chunk::<8>()) {
            // -1 says that this buffer was left uncompressed.
            total = total.saturating_add(u64::try_from(i64::from_le_bytes(*prefix)).unwrap_or(0));
        }
    }
    if total > MAX_MESSAGE_BYTES {
        return Err(blame.data(too_large(total)));
    }
    Ok(())
}
