//! What can be put together without being understood: the records of text files, and the blocks of Avro files, follow each
//! other in one file as they are, under one header.

use super::super::config::{Encoding, TextCompression};
use super::super::encode::Codec;
use super::super::layout::{file_name, join};
use super::super::place::side_by_side;
use super::super::stage::Stager;
use super::super::typed::Typed;
use super::super::write::{Outputs, Written};
use crate::sources::files::formats::{FileInput, Frames, Marker};
use crate::sources::files::records::{Chunk, Head, Records};
use gristmill_model::spec::FileFormat;
use gristmill_model::{Error, ErrorKind, Result, StagedFile, TaskKey};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes what comes, one file after another.
pub(super) struct Splicer {
    task: TaskKey,
    outputs: Box<dyn Outputs>,
    /// What each file begins with.
    header: Vec<u8>,
    compression: TextCompression,
    /// The partition's folder.
    folder: String,
    /// The ending of the files' names.
    ending: String,
    file_size: u64,
    number: u32,
    rows: u64,
    open: Option<Open>,
    written: Vec<Written>,
}

struct Open {
    path: String,
    rows: u64,
    codec: Codec,
    bytes: Arc<AtomicU64>,
}

/// What the files are like.
pub(super) struct Like {
    pub(super) header: Vec<u8>,
    pub(super) ending: String,
    pub(super) folder: String,
    pub(super) file_size: u64,
}

impl Splicer {
    /// A writer for `task`.
    ///
    /// # Errors
    /// An encoding that is not of text.
    pub(super) fn new(encoding: &Encoding, task: TaskKey, outputs: Box<dyn Outputs>, like: Like) -> Result<Self> {
        let compression = match encoding {
            Encoding::Csv { compression, .. } | Encoding::Ndjson { compression } => *compression,
            // Blocks are compressed, not files.
            Encoding::Typed { typed: Typed::Avro(_), .. } => TextCompression::None,
            _ => return Err(Error::internal("such files cannot be put together as bytes")),
        };
        let Like { header, ending, folder, file_size } = like;
        Ok(Self {
            task,
            outputs,
            header,
            compression,
            folder,
            ending,
            file_size,
            number: 0,
            rows: 0,
            open: None,
            written: Vec::new(),
        })
    }

    /// The file that records go to.
    fn file(&mut self) -> Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let path = join(&self.folder, &file_name(&self.task, self.number, &self.ending));
                self.number += 1;
                let (mut codec, bytes) = Codec::new(self.outputs.open(&path)?, self.compression)?;
                put(&mut codec, &self.header)?;
                Open { path, rows: 0, codec, bytes }
            }
        };
        Ok(self.open.insert(open))
    }

    fn end(&mut self) -> Result<()> {
        let Some(Open { path, rows, codec, .. }) = self.open.take() else { return Ok(()) };
        let held = codec.finish()?;
        let file =
            StagedFile { path, partition: self.folder.clone(), rows, bytes: held.bytes, handle: held.handle.clone() };
        self.written.push(Written { file, held });
        Ok(())
    }
}

fn put(codec: &mut Codec, bytes: &[u8]) -> Result<()> {
    codec.write_all(bytes).map_err(|error| super::super::parquet::io_error(&error))
}

impl Stager for Splicer {
    type Item = Chunk;

    fn write(&mut self, chunk: &Chunk) -> Result<()> {
        let file_size = self.file_size;
        let file = self.file()?;
        put(&mut file.codec, &chunk.bytes)?;
        file.rows += chunk.records;
        let full = file.bytes.load(Ordering::Relaxed) >= file_size;
        self.rows += chunk.records;
        if full { self.end() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<(u64, Vec<Written>)> {
        if self.written.is_empty() {
            // Files without records say which columns there are; one is enough.
            self.file()?;
        }
        self.end()?;
        side_by_side(&self.written, |written| written.held.sync())?;
        Ok((self.rows, self.written))
    }
}

/// A file that is read as bytes.
pub(super) enum Source {
    Text(Records),
    Avro(Frames),
}

impl Source {
    /// Opens a file, and tells what it begins with.
    ///
    /// # Errors
    /// A file that cannot be opened, or is not what its name says.
    pub(super) async fn open(input: &FileInput, format: FileFormat) -> Result<(Self, Head)> {
        if format == FileFormat::Avro {
            let frames = Frames::open(input).await?;
            let head = Head { header: frames.header().to_vec(), fields: 0 };
            return Ok((Self::Avro(frames), head));
        }
        let mut records = Records::open(input, format).await?;
        let head = records.head().await?;
        Ok((Self::Text(records), head))
    }

    /// The same, of a file that begins with `head`.
    ///
    /// # Errors
    /// As [`Source::open`]; [`ErrorKind::NotFound`] of a file that has become another.
    pub(super) async fn reopen(input: &FileInput, format: FileFormat, head: &Head) -> Result<Self> {
        let (source, now) = Self::open(input, format).await?;
        if now == *head {
            return Ok(source);
        }
        Err(Error::new(ErrorKind::NotFound, format!("`{}` has been written anew", input.name)))
    }

    /// What comes next; none at the end.
    ///
    /// # Errors
    /// A file that is broken, a store that refuses.
    pub(super) async fn next(&mut self, marker: &Marker) -> Result<Option<Chunk>> {
        match self {
            Self::Text(records) => records.next().await,
            Self::Avro(frames) => frames.next(marker).await,
        }
    }
}

/// The header of the files that come out.
pub(super) fn header(format: FileFormat, head: &Head, marker: &Marker) -> Vec<u8> {
    let mut header = head.header.clone();
    if format == FileFormat::Avro {
        header.extend_from_slice(marker);
    }
    header
}
