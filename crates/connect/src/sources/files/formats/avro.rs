//! Avro object container files.

use super::bytes::{Purpose, SyncBytes};
use super::decode::{self, Blame, Bridge, Out, distinct_columns};
use super::{FileInput, FileReader};
use crate::{Rows, Scan};
use arrow::datatypes::SchemaRef;
use arrow_avro::reader::{Reader, ReaderBuilder};
use async_trait::async_trait;
use gristmill_model::Result;
use std::io::{BufReader, Read};

/// How much is given to the decoder at once.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct AvroReader;

#[async_trait]
impl FileReader for AvroReader {
    async fn infer(&self, input: &FileInput) -> Result<(SchemaRef, Option<u64>)> {
        let input = input.clone();
        decode::call(Blame::new(&input, "Avro"), move |bridge| {
            let schema = open(bridge, &input, Purpose::Look, 1)?.schema();
            distinct_columns(&schema, &bridge.blame)?;
            Ok((schema, None))
        })
        .await
    }

    fn read(&self, input: FileInput, scan: Scan) -> Rows {
        decode::rows(scan, Blame::new(&input, "Avro"), move |bridge, out| read(bridge, &input, out))
    }
}

fn read(bridge: &Bridge, input: &FileInput, out: &mut Out) -> Result<()> {
    let batches = open(bridge, input, Purpose::Read, out.scan().batch_size.max(1))?;
    for batch in batches {
        out.send(&batch.map_err(|error| bridge.blame.data(error))?)?;
    }
    Ok(())
}

type Framed = BufReader<Frame<SyncBytes>>;

fn open(bridge: &Bridge, input: &FileInput, purpose: Purpose, batch_size: usize) -> Result<Reader<Framed>> {
    let bytes = SyncBytes::open(bridge, input, purpose)?;
    let framed = BufReader::with_capacity(READ_BYTES, Frame::new(bytes, bridge.blame.clone()));
    ReaderBuilder::new().with_batch_size(batch_size).build(framed).map_err(|error| bridge.blame.data(error))
}

/// Watches the frame of a container file pass by: a file that ends inside a block, or whose sync markers differ, is an
/// error. The decoder below would take it for the end of the file and lose rows in silence.
struct Frame<R> {
    inner: R,
    blame: Blame,
    state: State,
    number: Number,
    sync: [u8; 16],
}

/// Where in the frame the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Magic(usize),
    MetaCount,
    MetaBytes,
    MetaLength { entries: u64, key: bool },
    MetaText { left: u64, entries: u64, key: bool },
    HeaderSync(usize),
    Count,
    Size,
    Data(u64),
    Sync(usize),
}

/// A zig-zag number of variable length, as far as it was read.
#[derive(Debug, Default, Clone, Copy)]
struct Number {
    value: u64,
    shift: u32,
}

impl Number {
    /// Takes a byte; the number once it is complete.
    fn push(&mut self, byte: u8) -> Result<Option<i64>, &'static str> {
        if self.shift > 63 {
            return Err("a number of more than ten bytes");
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        let raw = std::mem::take(self).value;
        Ok(Some(((raw >> 1) as i64) ^ -((raw & 1) as i64)))
    }
}

impl<R: Read> Frame<R> {
    fn new(inner: R, blame: Blame) -> Self {
        Self { inner, blame, state: State::Magic(0), number: Number::default(), sync: [0; 16] }
    }

    fn watch(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        const MAGIC: &[u8; 4] = b"Obj\x01";
        while let Some((&byte, rest)) = bytes.split_first() {
            // Long stretches are skipped whole, all else goes byte by byte.
            if let State::Data(left) | State::MetaText { left, .. } = &mut self.state {
                let skip = (*left).min(bytes.len() as u64);
                *left -= skip;
                bytes = &bytes[skip as usize..];
                self.state = match self.state {
                    State::Data(0) => State::Sync(0),
                    State::MetaText { left: 0, entries, key: true } => State::MetaLength { entries, key: false },
                    State::MetaText { left: 0, entries, key: false } if entries > 1 => {
                        State::MetaLength { entries: entries - 1, key: true }
                    }
                    State::MetaText { left: 0, .. } => State::MetaCount,
                    other => other,
                };
                continue;
            }
            bytes = rest;
            self.state = match self.state {
                State::Magic(at) if byte != MAGIC[at] => return Err("it does not begin with `Obj`"),
                State::Magic(3) => State::MetaCount,
                State::Magic(at) => State::Magic(at + 1),
                State::MetaCount => match self.number.push(byte)? {
                    None => State::MetaCount,
                    Some(0) => State::HeaderSync(0),
                    Some(count) if count > 0 => State::MetaLength { entries: count.unsigned_abs(), key: true },
                    // A negative count is followed by the size of the block in bytes; keep the count in `sync`.
                    Some(count) => {
                        self.sync[..8].copy_from_slice(&count.unsigned_abs().to_le_bytes());
                        State::MetaBytes
                    }
                },
                State::MetaBytes => match self.number.push(byte)? {
                    None => State::MetaBytes,
                    Some(_) => {
                        let mut entries = [0; 8];
                        entries.copy_from_slice(&self.sync[..8]);
                        State::MetaLength { entries: u64::from_le_bytes(entries), key: true }
                    }
                },
                State::MetaLength { entries, key } => match self.number.push(byte)? {
                    None => State::MetaLength { entries, key },
                    Some(length) => {
                        let left = u64::try_from(length).map_err(|_| "a text of negative length in its header")?;
                        match (left, key) {
                            (0, true) => State::MetaLength { entries, key: false },
                            (0, false) if entries > 1 => State::MetaLength { entries: entries - 1, key: true },
                            (0, false) => State::MetaCount,
                            _ => State::MetaText { left, entries, key },
                        }
                    }
                },
                State::HeaderSync(at) => {
                    self.sync[at] = byte;
                    if at == 15 { State::Count } else { State::HeaderSync(at + 1) }
                }
                State::Count => match self.number.push(byte)? {
                    None => State::Count,
                    Some(count) if count < 0 => return Err("a block of a negative number of records"),
                    Some(_) => State::Size,
                },
                State::Size => match self.number.push(byte)? {
                    None => State::Size,
                    Some(0) => State::Sync(0),
                    Some(size) => State::Data(u64::try_from(size).map_err(|_| "a block of negative size")?),
                },
                State::Sync(at) if byte != self.sync[at] => {
                    return Err(
                        "the marker after a block is not the one of the file: bytes are missing or were changed",
                    );
                }
                State::Sync(15) => State::Count,
                State::Sync(at) => State::Sync(at + 1),
                State::Data(_) | State::MetaText { .. } => self.state,
            };
        }
        Ok(())
    }
}

impl<R: Read> Read for Frame<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let problem = if read == 0 && !buffer.is_empty() {
            match self.state {
                State::Count if self.number.shift == 0 => Ok(()),
                _ => Err("the file ends in the middle; was it fully written?"),
            }
        } else {
            self.watch(&buffer[..read])
        };
        match problem {
            Ok(()) => Ok(read),
            Err(problem) => Err(self.blame.trouble(self.blame.data(problem))),
        }
    }
}
