//! The bytes of a CSV file as UTF-8, in a buffer that a record fits in.

use crate::sources::files::formats::FileInput;
use crate::sources::files::formats::bytes::{self, ByteStream, Purpose};
use encoding_rs::{Decoder, DecoderResult, Encoding};
use gristmill_model::Result;
use tokio::io::AsyncReadExt;

/// How much is read at once, at least.
const CHUNK: usize = 256 << 10;

/// Stands for what cannot be decoded: it is in no UTF-8 text, so the row it stands in is refused as not being text.
const NOT_TEXT: u8 = 0xff;

/// A file as UTF-8 text.
pub(super) struct Text {
    stream: ByteStream,
    name: String,
    decoder: Option<Decoder>,
    raw: Vec<u8>,
    buffer: Vec<u8>,
    at: usize,
    /// Nothing more comes after what is in the buffer.
    last: bool,
    begun: bool,
}

impl Text {
    /// Opens a file. `encoding` is what it is written in, if not UTF-8; a byte order mark has the last word.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub(super) async fn open(input: &FileInput, encoding: Option<&'static Encoding>, purpose: Purpose) -> Result<Self> {
        Ok(Self {
            stream: bytes::open(input, purpose).await?,
            name: input.name.clone(),
            decoder: encoding.map(Encoding::new_decoder),
            raw: Vec::new(),
            buffer: Vec::new(),
            at: 0,
            last: false,
            // Only a file begins with a mark, not a piece of one.
            begun: input.byte_range().is_some_and(|piece| piece.start > 0),
        })
    }

    /// What has been read and not yet been used, and whether nothing comes after it.
    pub(super) fn rest(&self) -> (&[u8], bool) {
        (&self.buffer[self.at..], self.last)
    }

    /// Lets go of the first bytes of [`Text::rest`].
    pub(super) fn advance(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.buffer.len());
    }

    /// Reads more: as much again as there is, so that a long record is not looked at too often.
    ///
    /// # Errors
    /// What the store, the disk or the decompressor says.
    pub(super) async fn more(&mut self) -> Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let want = CHUNK.max(self.buffer.len());
        if !self.begun {
            self.begin().await?;
        }
        let target = self.buffer.len() + want;
        while self.buffer.len() < target && !self.last {
            self.read(want).await?;
        }
        Ok(())
    }

    /// Lets go of everything up to the next line break.
    ///
    /// # Errors
    /// As [`Text::more`].
    pub(super) async fn skip_line(&mut self) -> Result<()> {
        loop {
            let (rest, last) = self.rest();
            let found = memchr::memchr(b'\n', rest);
            let bytes = found.map_or(rest.len(), |length| length + 1);
            self.advance(bytes);
            if found.is_some() || last {
                return Ok(());
            }
            self.more().await?;
        }
    }

    /// Looks for a byte order mark.
    async fn begin(&mut self) -> Result<()> {
        self.begun = true;
        if self.decoder.is_some() {
            // The decoder looks itself.
            return Ok(());
        }
        while self.buffer.len() < 3 && !self.last {
            self.read(CHUNK).await?;
        }
        match Encoding::for_bom(&self.buffer) {
            Some((encoding, length)) if encoding == encoding_rs::UTF_8 => self.at = length,
            Some((encoding, _)) => {
                let read = std::mem::take(&mut self.buffer);
                self.decoder = Some(encoding.new_decoder());
                self.decode(&read, self.last);
            }
            None => {}
        }
        Ok(())
    }

    async fn read(&mut self, want: usize) -> Result<()> {
        let mut raw = std::mem::take(&mut self.raw);
        if self.decoder.is_none() {
            let before = self.buffer.len();
            self.buffer.resize(before + want, 0);
            let read = self.stream.read(&mut self.buffer[before..]).await;
            let read = read.map_err(|error| bytes::stream_error(&error, &self.name))?;
            self.buffer.truncate(before + read);
            self.last = read == 0;
        } else {
            raw.resize(want, 0);
            let read = self.stream.read(&mut raw).await.map_err(|error| bytes::stream_error(&error, &self.name))?;
            self.last = read == 0;
            self.decode(&raw[..read], read == 0);
        }
        self.raw = raw;
        Ok(())
    }

    fn decode(&mut self, mut from: &[u8], last: bool) {
        let Some(decoder) = &mut self.decoder else { return };
        loop {
            let before = self.buffer.len();
            let room = decoder.max_utf8_buffer_length_without_replacement(from.len()).unwrap_or(from.len() * 4 + 16);
            self.buffer.resize(before + room, 0);
            let (result, read, written) =
                decoder.decode_to_utf8_without_replacement(from, &mut self.buffer[before..], last);
            self.buffer.truncate(before + written);
            from = &from[read..];
            match result {
                DecoderResult::InputEmpty => return,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => self.buffer.push(NOT_TEXT),
            }
        }
    }
}
