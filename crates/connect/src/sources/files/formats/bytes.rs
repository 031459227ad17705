//! A file's bytes: decompressed and in order, or at any position.

use super::FileInput;
use super::decode::{Blame, Bridge};
use async_compression::tokio::bufread::{BzDecoder, GzipDecoder, XzDecoder, ZstdDecoder};
use bytes::Bytes;
use futures::TryStreamExt;
use gristmill_model::spec::Compression;
use gristmill_model::{Error, ErrorKind, Result};
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncSeekExt, BufReader, ReadBuf};
use tokio_util::io::StreamReader;

/// How much is asked of a disk or a decompressor at once.
const READ_BYTES: usize = 1 << 20;

/// XZ headers may ask for a dictionary of 4 GiB; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;

/// How much of standard input is kept for the reading that follows inference.
const STDIN_KEPT: usize = 16 << 20;

/// A file as a stream of decompressed bytes.
pub(crate) type ByteStream = Box<dyn AsyncRead + Send + Unpin>;

/// Why a stream is opened. Standard input can be read once only, so looking keeps what it saw for the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To see the beginning.
    Look,
    /// To read everything.
    Read,
}

/// Opens a file as a stream of decompressed bytes; members that follow each other (gz, bz2, xz, zst) are read as one.
/// Errors of the stream carry an [`Error`] inside; see [`stream_error`].
///
/// # Errors
/// A file that does not exist or may not be read; a compression that text cannot have.
pub(crate) async fn open(input: &FileInput, purpose: Purpose) -> Result<ByteStream> {
    let raw: Box<dyn AsyncBufRead + Send + Unpin> = if input.stdin {
        Box::new(BufReader::with_capacity(READ_BYTES, StdinReader::open(purpose)?))
    } else {
        stored(input).await?
    };
    Ok(match input.compression {
        Compression::None => Box::new(raw),
        Compression::Gzip => {
            let mut decoder = GzipDecoder::new(raw);
            decoder.multiple_members(true);
            Box::new(Decompressed::new(decoder, input))
        }
        Compression::Bzip2 => {
            let mut decoder = BzDecoder::new(raw);
            decoder.multiple_members(true);
            Box::new(Decompressed::new(decoder, input))
        }
        Compression::Xz => {
            let mut decoder = XzDecoder::with_mem_limit(raw, XZ_MEMORY);
            decoder.multiple_members(true);
            Box::new(Decompressed::new(decoder, input))
        }
        Compression::Zstd => {
            let mut decoder = ZstdDecoder::new(raw);
            decoder.multiple_members(true);
            Box::new(Decompressed::new(decoder, input))
        }
        Compression::Snappy | Compression::Lz4 | Compression::Deflate => {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{}` cannot be read as a whole compressed with {}", input.name, input.compression.as_str()),
            )
            .hint("files compressed as a whole may be gzip, bzip2, xz or zstd"));
        }
    })
}

/// The bytes of a file as they are stored: all of them, or the range that is asked for.
async fn stored(input: &FileInput) -> Result<Box<dyn AsyncBufRead + Send + Unpin>> {
    let name = input.name.clone();
    let range = input.byte_range().map(|piece| piece.start..piece.end);
    let wanted = range.clone();
    let got = get(input.store.as_ref(), &input.meta, range, &name).await?;
    let length = got.range.end - got.range.start;
    if wanted.is_some_and(|wanted| wanted != got.range) {
        return Err(changed(&name, "has become shorter"));
    }
    Ok(match got.payload {
        GetResultPayload::File(file, _) => {
            let mut file = tokio::fs::File::from_std(file);
            file.set_max_buf_size(READ_BYTES);
            if got.range.start > 0 {
                let sought = file.seek(SeekFrom::Start(got.range.start)).await;
                sought.map_err(|error| Error::io(&error, format!("`{name}`")))?;
            }
            Box::new(BufReader::with_capacity(READ_BYTES, Counted { inner: file.take(length), left: length, name }))
        }
        GetResultPayload::Stream(stream) => {
            let named = name.clone();
            let stream = stream.map_err(move |error| io::Error::other(store_error(&error, &named)));
            let counted = Counted { inner: StreamReader::new(stream), left: length, name };
            Box::new(BufReader::with_capacity(READ_BYTES, counted))
        }
    })
}

/// Asks a store for a file, as it was when it was looked at.
async fn get(store: &dyn ObjectStore, meta: &ObjectMeta, range: Option<Range<u64>>, name: &str) -> Result<GetResult> {
    let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
    let got = store.get_opts(&meta.location, options).await.map_err(|error| store_error(&error, name))?;
    if differs(meta, &got.meta) {
        return Err(changed(name, "has been changed"));
    }
    Ok(got)
}

/// Reads a range of a file, as it was when it was looked at.
///
/// # Errors
/// [`ErrorKind::Conflict`] when it has been changed since; what the store says.
pub(in crate::sources::files) async fn pinned(
    store: &dyn ObjectStore,
    meta: &ObjectMeta,
    range: Range<u64>,
    name: &str,
) -> Result<Bytes> {
    let length = range.end - range.start;
    let got = get(store, meta, Some(range), name).await?;
    let bytes = got.bytes().await.map_err(|error| store_error(&error, name))?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(changed(name, "has become shorter")) }
}

/// Whether two looks at a file saw different things. An etag is the store's own word; without one, size and time must do.
pub(in crate::sources::files) fn differs(then: &ObjectMeta, now: &ObjectMeta) -> bool {
    // A listing may leave out the quotes that the answer for one object has (Azure), and a web server may call a tag weak.
    let bare = |tag: &str| tag.trim_start_matches("W/").trim_matches('"').to_owned();
    match (&then.e_tag, &now.e_tag) {
        (Some(then_tag), Some(now_tag)) => bare(then_tag) != bare(now_tag) || then.size != now.size,
        // A listing may tell fractions of a second; the answer to a question for one object has none.
        _ => then.size != now.size || then.last_modified.timestamp() != now.last_modified.timestamp(),
    }
}

/// That a file is no longer what it was. Nothing that was read of it is kept; another attempt looks at it anew.
pub(in crate::sources::files) fn changed(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("`{name}` {what} since it was looked at"))
        .hint("run again once nobody writes to it")
}

/// Minds that all bytes come that were promised.
struct Counted<R> {
    inner: R,
    left: u64,
    name: String,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let room = buffer.remaining();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        if read == 0 && room > 0 && self.left > 0 {
            let text = format!("{} bytes are missing at its end", self.left);
            return Poll::Ready(Err(io::Error::other(changed(&self.name, "has become shorter").cause(text))));
        }
        self.left = self.left.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

/// The error of a stream of [`open`], as it was before it had to pass through `io::Error`.
pub(crate) fn stream_error(error: &io::Error, name: &str) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.clone(),
        None => Error::io(error, format!("`{name}`")),
    }
}

/// An error of an object store about a file, classified.
pub(crate) fn store_error(error: &object_store::Error, name: &str) -> Error {
    crate::stores::explain(error, format!("`{name}`"))
}

/// Says, where decompression fails, which file and which compression.
struct Decompressed<R> {
    inner: R,
    name: String,
    compression: Compression,
}

impl<R> Decompressed<R> {
    fn new(inner: R, input: &FileInput) -> Self {
        Self { inner, name: input.name.clone(), compression: input.compression }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Decompressed<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.inner).poll_read(context, buffer));
        Poll::Ready(result.map_err(|error| {
            if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
                return error;
            }
            let torn = error.kind() == io::ErrorKind::UnexpectedEof;
            let told = Error::new(
                ErrorKind::Data,
                format!("`{}` cannot be decompressed as {}", self.name, self.compression.as_str()),
            )
            .cause(if torn { "the file ends in the middle".to_owned() } else { error.to_string() })
            .hint(if torn {
                "was it fully written? write or fetch it again"
            } else {
                "say how it is compressed with `compression:` if its name misleads"
            });
            io::Error::other(told)
        }))
    }
}

/// What a look at standard input has read already, for the reader to come.
static STDIN: Mutex<Stdin> = Mutex::new(Stdin { kept: Vec::new(), taken: false });

struct Stdin {
    kept: Vec<u8>,
    taken: bool,
}

struct StdinReader {
    stdin: tokio::io::Stdin,
    position: usize,
    kept: Bytes,
    purpose: Purpose,
}

impl StdinReader {
    fn open(purpose: Purpose) -> Result<Self> {
        let mut state = STDIN.lock().unwrap_or_else(PoisonError::into_inner);
        if state.taken {
            return Err(Error::new(ErrorKind::Config, "standard input can be read only once")
                .hint("write it to a file first, and extract from the file"));
        }
        let kept = match purpose {
            Purpose::Look => Bytes::copy_from_slice(&state.kept),
            Purpose::Read => {
                state.taken = true;
                std::mem::take(&mut state.kept).into()
            }
        };
        Ok(Self { stdin: tokio::io::stdin(), position: 0, kept, purpose })
    }
}

impl AsyncRead for StdinReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.position < self.kept.len() {
            let end = self.kept.len().min(self.position + buffer.remaining());
            buffer.put_slice(&self.kept[self.position..end]);
            self.position = end;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stdin).poll_read(context, buffer))?;
        if self.purpose == Purpose::Look {
            let mut state = STDIN.lock().unwrap_or_else(PoisonError::into_inner);
            state.kept.extend_from_slice(&buffer.filled()[before..]);
            if state.kept.len() > STDIN_KEPT {
                return Poll::Ready(Err(io::Error::other(Error::new(
                    ErrorKind::Schema,
                    "the columns cannot be told from the first 16 MiB of standard input",
                ))));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A stream of bytes, read by a decode thread.
pub(super) struct SyncBytes {
    bridge: Bridge,
    stream: ByteStream,
    name: String,
}

impl SyncBytes {
    /// Opens a file as [`open`] does.
    ///
    /// # Errors
    /// As [`open`].
    pub(super) fn open(bridge: &Bridge, input: &FileInput, purpose: Purpose) -> Result<Self> {
        Ok(Self { bridge: bridge.clone(), stream: bridge.wait(open(input, purpose))?, name: input.name.clone() })
    }

    /// Reads until `buffer` is full or the stream ends, and says how much was read.
    ///
    /// # Errors
    /// As the stream.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.take(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// As the stream.
    pub(super) fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.bridge.wait(self.stream.read(buffer)).map_err(|error| stream_error(&error, &self.name))
    }
}

impl Read for SyncBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.take(buffer).map_err(|error| self.bridge.blame.trouble(error))
    }
}

/// A file that is read at any position, by a decode thread.
#[derive(Clone)]
pub(super) struct Positioned {
    bridge: Bridge,
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
    length: u64,
    /// What stands, from a position on, in place of the file's own bytes.
    tail: Option<(u64, Bytes)>,
}

impl Positioned {
    /// A file whose format has its index at the end.
    ///
    /// # Errors
    /// Standard input, and files that are compressed as a whole: neither can be read from the end.
    pub(super) fn open(bridge: &Bridge, input: &FileInput) -> Result<Self> {
        needs_positions(input)?;
        Ok(Self {
            bridge: bridge.clone(),
            store: input.store.clone(),
            meta: input.meta.clone(),
            length: input.meta.size,
            tail: None,
        })
    }

    /// The same file with another end.
    pub(super) fn with_tail(mut self, start: u64, tail: Bytes) -> Self {
        self.length = start + tail.len() as u64;
        self.tail = Some((start, tail));
        self
    }

    /// The length of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads a range. A range that reaches beyond the file is refused before anything is allocated.
    ///
    /// # Errors
    /// As said, and what the store says.
    pub(super) fn range(&self, start: u64, length: u64) -> io::Result<Bytes> {
        let end = start.checked_add(length).filter(|end| *end <= self.length).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it refers to bytes {start} to {} but has {}", start.saturating_add(length), self.length),
            )
        })?;
        if length == 0 {
            return Ok(Bytes::new());
        }
        if let Some((from, tail)) = self.tail.as_ref().filter(|(from, _)| end > *from) {
            let own = from.saturating_sub(start);
            let mut joined = self.stored(start, own)?.to_vec();
            let (first, last) = ((start + own - from) as usize, (end - from) as usize);
            joined.extend_from_slice(&tail[first..last]);
            return Ok(joined.into());
        }
        self.stored(start, length)
    }

    fn stored(&self, start: u64, length: u64) -> io::Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let end = start + length;
        self.bridge
            .wait(pinned(self.store.as_ref(), &self.meta, start..end, self.bridge.blame.name()))
            .map_err(|error| self.bridge.blame.trouble(error))
    }

    /// Reads from a position on.
    pub(super) fn reader(&self, position: u64) -> PositionedReader {
        PositionedReader { file: self.clone(), position, ahead: Bytes::new(), ahead_start: 0 }
    }
}

/// Says that a file of a format with its index at the end must be a plain file.
///
/// # Errors
/// Standard input, and files that are compressed as a whole.
pub(super) fn needs_positions(input: &FileInput) -> Result<()> {
    if input.stdin {
        return Err(Error::new(ErrorKind::Config, "standard input cannot be read from its end, as this format needs")
            .hint("write it to a file first, and extract from the file"));
    }
    if input.compression != Compression::None {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "`{}` cannot be read through {} compression: its index is at its end",
                input.name,
                input.compression.as_str()
            ),
        )
        .hint("decompress the file first; the format compresses its columns itself"));
    }
    Ok(())
}

/// A [`Positioned`] file read in order, with a little read ahead.
pub(super) struct PositionedReader {
    file: Positioned,
    position: u64,
    ahead: Bytes,
    ahead_start: u64,
}

impl Read for PositionedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.file.length || buffer.is_empty() {
            return Ok(0);
        }
        let inside = self.position.checked_sub(self.ahead_start).filter(|at| *at < self.ahead.len() as u64);
        let offset = match inside {
            Some(offset) => offset as usize,
            None => {
                let length = (READ_BYTES as u64).min(self.file.length - self.position);
                self.ahead = self.file.range(self.position, length)?;
                self.ahead_start = self.position;
                0
            }
        };
        let read = buffer.len().min(self.ahead.len() - offset);
        buffer[..read].copy_from_slice(&self.ahead[offset..offset + read]);
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for PositionedReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.file.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::other("it refers to bytes before its beginning"))?;
        Ok(self.position)
    }
}

impl orc_rust::reader::ChunkReader for Positioned {
    type T = PositionedReader;

    fn len(&self) -> u64 {
        self.length
    }

    fn get_read(&self, offset_from_start: u64) -> io::Result<Self::T> {
        Ok(self.reader(offset_from_start))
    }

    fn get_bytes(&self, offset_from_start: u64, length: u64) -> io::Result<Bytes> {
        self.range(offset_from_start, length)
    }
}

/// Keeps the first error of the layer below when a library only passes its text on.
pub(super) fn first_bytes(bridge: &Bridge, input: &FileInput, count: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; count];
    let mut stream = SyncBytes::open(bridge, input, Purpose::Look)?;
    let read = stream.fill(&mut buffer)?;
    buffer.truncate(read);
    Ok(buffer)
}

/// What is wrong with a file that is shorter than its format's frame.
pub(super) fn torn(blame: &Blame) -> Error {
    blame.data("the file ends before its footer").hint("was it fully written? write or fetch it again")
}
