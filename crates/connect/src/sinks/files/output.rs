//! Where encoded bytes go until they are published: a temporary file, or an upload that is held open, or, where staged rows
//! are to be readable, an object where no reader looks.
//!
//! Both are written from a thread that may block. Nothing is visible to a reader of the target, and whatever is dropped
//! before [`Held::keep`] is taken back: the file is removed, the upload aborted.

use super::parquet::io_error;
use super::readable;
use crate::stores;
use gristmill_model::fault::{self, Point};
use gristmill_model::{Error, ErrorKind, Result};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, ObjectStore, ObjectStoreExt, PutPayload};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// What is gathered before the operating system is called; hundreds of files may be open.
const FILE_BUFFER: usize = 128 << 10;
/// Bytes after which the disk is told to begin, so that the final fsync finds little left to do.
const SYNC_EVERY: u64 = 32 << 20;
/// The least part of a multipart upload but the last (S3).
pub(super) const LEAST_PART: usize = 5 << 20;
/// The most parts of a multipart upload (S3).
pub(super) const MOST_PARTS: u64 = 10_000;
/// The size of parts, unless the file might outgrow [`MOST_PARTS`] of them.
const PART: usize = 8 << 20;
/// Parts of one file on their way at once.
const PARTS_IN_FLIGHT: usize = 2;

/// The size of the parts of a file that may become `expected` bytes large: equal for all parts, as some stores insist.
pub(super) fn part_size(expected: u64) -> usize {
    // A tenth of room: files are rolled after they have become too large, not before.
    let needed = expected.saturating_add(expected / 10).div_ceil(MOST_PARTS);
    let needed = usize::try_from(needed).unwrap_or(usize::MAX >> 1);
    needed.max(PART).next_multiple_of(1 << 20)
}

/// Something encoded bytes are written to.
pub(super) trait Output: Write + Send {
    /// Ends it. What was written is durable once [`Held::sync`] has been called, and still not visible.
    fn finish(self: Box<Self>) -> Result<Held>;
}

/// A finished output: taken back when dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct Held {
    /// Bytes written.
    pub(super) bytes: u64,
    /// How the commit finds it.
    pub(super) handle: Value,
    /// A local file that is not synchronised yet; closed once it is.
    file: Mutex<Option<File>>,
    /// The thread that synchronises it meanwhile.
    early: Mutex<EarlySync>,
    guard: Option<Guard>,
}

impl Held {
    /// Waits until the bytes are on the disk.
    pub(super) fn sync(&self) -> Result<()> {
        let Some(file) = self.file.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        // First what the thread has seen: a page that could not be written is reported once, to whoever asks first.
        let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
        early.join().and_then(|()| file.sync_all()).map_err(|error| match &self.guard {
            Some(Guard::File(Some(path))) => Error::io(&error, format!("`{}`", path.display())),
            _ => Error::io(&error, "a staged file"),
        })
    }

    /// From now on it stays until it is committed or aborted.
    pub(super) fn keep(mut self) {
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
    }
}

/// A synchronisation on a thread of its own. Its outcome must be asked for: the operating system tells a failed
/// write-back once per open file, and the last one would find nothing wrong any more.
#[derive(Debug, Default)]
struct EarlySync(Option<std::thread::JoinHandle<std::io::Result<()>>>);

impl EarlySync {
    fn is_at_work(&self) -> bool {
        self.0.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn begin(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> std::io::Result<Self> {
        std::thread::Builder::new().name("gristmill-sync".to_owned()).spawn(work).map(|thread| Self(Some(thread)))
    }

    /// Waits for the end and answers what came of it.
    fn join(self) -> std::io::Result<()> {
        let Some(thread) = self.0 else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread that synchronises a file panicked")))
    }
}

/// Takes back what was written unless it is disarmed.
enum Guard {
    File(Option<PathBuf>),
    Upload(Arc<Upload>),
}

impl Guard {
    fn disarm(mut self) {
        match &mut self {
            Self::File(path) => *path = None,
            Self::Upload(upload) => upload.kept.store(true, Ordering::Relaxed),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Self::File(Some(path)) = self {
            // Nobody is left to tell; whatever remains is swept by its load's key.
            drop(std::fs::remove_file(path));
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// A temporary file.
pub(super) struct FileOutput {
    path: PathBuf,
    handle: Value,
    file: File,
    buffer: Vec<u8>,
    written: u64,
    synced: u64,
    early: EarlySync,
    guard: Option<Guard>,
}

impl FileOutput {
    /// Creates `path`, which must not exist; its folder must.
    pub(super) fn create(path: PathBuf, handle: Value) -> Result<Self> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| Error::io(&error, format!("`{}`", path.display())))?;
        let guard = Some(Guard::File(Some(path.clone())));
        Ok(Self { path, handle, file, buffer: Vec::new(), written: 0, synced: 0, early: EarlySync::default(), guard })
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        fault::tearing(Point::StagedBytes, bytes, |bytes| self.file.write_all(bytes))
            .map_err(|error| std::io::Error::other(Error::io(&error, format!("`{}`", self.path.display()))))?;
        self.written += bytes.len() as u64;
        if self.written - self.synced >= SYNC_EVERY && !self.early.is_at_work() {
            self.synced = self.written;
            let at = |error| std::io::Error::other(Error::io(&error, format!("`{}`", self.path.display())));
            std::mem::take(&mut self.early).join().map_err(at)?;
            // Without a second descriptor or a thread the end is soon enough.
            if let Ok(file) = self.file.try_clone()
                && let Ok(early) = EarlySync::begin(move || file.sync_data())
            {
                self.early = early;
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> std::io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.put(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        result
    }
}

impl Write for FileOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let large = bytes.len() >= FILE_BUFFER / 2;
        // What goes to the file directly must not overtake what waits in the buffer.
        if large || self.buffer.len() + bytes.len() > FILE_BUFFER {
            self.drain()?;
        }
        if large {
            self.put(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // The end of the file is soon enough.
        Ok(())
    }
}

impl Output for FileOutput {
    fn finish(mut self: Box<Self>) -> Result<Held> {
        self.drain().map_err(|error| io_error(&error))?;
        let Self { handle, file, written, early, guard, .. } = *self;
        Ok(Held { bytes: written, handle, file: Mutex::new(Some(file)), early: Mutex::new(early), guard })
    }
}

/// An upload that is held open until the commit.
struct Upload {
    multipart: Arc<dyn MultipartStore>,
    store: Arc<dyn ObjectStore>,
    path: Path,
    id: String,
    /// The note that tells others of it, if there is one.
    intent: Option<Path>,
    /// It is completed where no reader looks, so the object goes with whoever gives it up.
    hidden: bool,
    runtime: Handle,
    kept: AtomicBool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        let (multipart, store) = (self.multipart.clone(), self.store.clone());
        let (path, id, intent) = (self.path.clone(), std::mem::take(&mut self.id), self.intent.take());
        let hidden = self.hidden;
        self.runtime.spawn(async move {
            use object_store::Error::NotFound;
            let is_gone = |done: object_store::Result<()>| matches!(done, Ok(()) | Err(NotFound { .. }));
            let aborted = multipart.abort_multipart(&path, &id).await;
            // One that was completed is no upload any more, but an object.
            let gone = if hidden { is_gone(aborted) && is_gone(store.delete(&path).await) } else { aborted.is_ok() };
            // The note goes only once the upload is gone: as long as it is there, somebody can abort it.
            if gone && let Some(intent) = intent {
                drop(store.delete(&intent).await);
            }
        });
    }
}

/// Writes a held-open multipart upload.
pub(super) struct UploadOutput {
    upload: Arc<Upload>,
    /// Where it is completed as soon as it is whole, relative to the target, if it is.
    hidden: Option<String>,
    buffer: Vec<u8>,
    part_size: usize,
    parts: Vec<PartId>,
    in_flight: VecDeque<JoinHandle<Result<PartId>>>,
    sent: usize,
    written: u64,
}

/// Where an upload is noted, and what is noted, given its id.
pub(super) type Note<'a> = (Path, &'a dyn Fn(&str) -> Value);

/// What an upload needs.
#[derive(Clone)]
pub(super) struct UploadTo {
    pub(super) multipart: Arc<dyn MultipartStore>,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    /// The same, relative to the target, where the upload is completed as soon as it is whole, for the commit to copy.
    pub(super) hidden: Option<String>,
    pub(super) part_size: usize,
    pub(super) runtime: Handle,
}

impl UploadOutput {
    /// Opens an upload. `intent`: where to note it and what to say, given its id, before the first part is sent.
    pub(super) fn create(to: UploadTo, intent: Option<Note<'_>>) -> Result<Self> {
        let UploadTo { multipart, store, path, hidden, part_size, runtime } = to;
        let what = format!("`{path}`");
        let opening = multipart.create_multipart(&path);
        let id = runtime.block_on(opening).map_err(|error| stores::error(error, &what))?;
        let note = intent.map(|(place, note)| (place, note(&id)));
        let upload = Arc::new(Upload {
            multipart,
            store: store.clone(),
            path,
            id,
            intent: note.as_ref().map(|(place, _)| place.clone()),
            hidden: hidden.is_some(),
            runtime: runtime.clone(),
            kept: AtomicBool::new(false),
        });
        if let Some((place, note)) = note {
            fault::at(Point::BeforeIntent)?;
            let body = PutPayload::from(note.to_string());
            runtime.block_on(store.put(&place, body)).map_err(|error| stores::error(error, format!("`{place}`")))?;
            fault::at(Point::AfterIntent)?;
        }
        Ok(Self {
            upload,
            hidden,
            buffer: Vec::new(),
            part_size: part_size.max(LEAST_PART),
            parts: Vec::new(),
            in_flight: VecDeque::new(),
            sent: 0,
            written: 0,
        })
    }

    fn send(&mut self) -> Result<()> {
        if self.sent as u64 >= MOST_PARTS {
            return Err(Error::new(
                ErrorKind::Storage,
                format!(
                    "`{}` has become too large for {MOST_PARTS} parts of {} bytes",
                    self.upload.path, self.part_size
                ),
            )
            .hint("name a smaller `file_size`, or larger parts"));
        }
        let body = PutPayload::from(std::mem::take(&mut self.buffer));
        let (upload, index) = (self.upload.clone(), self.sent);
        self.sent += 1;
        fault::at(Point::StagedBytes)?;
        self.in_flight.push_back(self.upload.runtime.spawn(async move {
            let put = upload.multipart.put_part(&upload.path, &upload.id, index, body).await;
            put.map_err(|error| stores::error(error, format!("`{}`", upload.path)))
        }));
        if self.in_flight.len() > PARTS_IN_FLIGHT { self.wait() } else { Ok(()) }
    }

    /// Waits for the oldest part that is on its way.
    fn wait(&mut self) -> Result<()> {
        if let Some(part) = self.in_flight.pop_front() {
            let part = self.upload.runtime.block_on(part);
            self.parts.push(part.map_err(|error| Error::internal("an upload was torn off").cause(error))??);
        }
        Ok(())
    }
}

impl Write for UploadOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let take = bytes.len().min(self.part_size - self.buffer.len());
        if self.buffer.is_empty() && self.sent > 0 {
            // A file of several parts: what grows by doubling is copied as often. Pages that stay empty cost nothing.
            self.buffer.reserve_exact(self.part_size);
        }
        self.buffer.extend_from_slice(&bytes[..take]);
        self.written += take as u64;
        if self.buffer.len() == self.part_size {
            self.send().map_err(std::io::Error::other)?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // A part cannot be sent before it is full.
        Ok(())
    }
}

impl Output for UploadOutput {
    fn finish(mut self: Box<Self>) -> Result<Held> {
        // An upload needs a part, be it an empty one.
        if !self.buffer.is_empty() || self.sent == 0 {
            self.send()?;
        }
        while !self.in_flight.is_empty() {
            self.wait()?;
        }
        let parts: Vec<String> = self.parts.iter().map(|part| part.content_id.clone()).collect();
        let mut handle = json!({"upload": self.upload.id, "parts": parts});
        if let Some(hidden) = &self.hidden {
            let upload = &self.upload;
            let done = upload.runtime.block_on(complete(upload.multipart.as_ref(), &upload.path, &handle));
            if let Err(error) = done {
                // An answer may have been lost. The name is this attempt's alone.
                let found = upload.runtime.block_on(upload.store.head(&upload.path));
                if !found.is_ok_and(|meta| meta.size == self.written) {
                    return Err(error);
                }
            }
            handle = readable::handle(hidden);
        }
        let guard = Some(Guard::Upload(self.upload.clone()));
        Ok(Held { bytes: self.written, handle, file: Mutex::default(), early: Mutex::default(), guard })
    }
}

impl Drop for UploadOutput {
    fn drop(&mut self) {
        // The abort comes with the last owner of the upload, once no part is on its way any more.
        for part in &self.in_flight {
            part.abort();
        }
    }
}

/// Completes an upload that [`Held::handle`] describes.
pub(super) async fn complete(multipart: &dyn MultipartStore, path: &Path, handle: &Value) -> Result<()> {
    let id = handle["upload"].as_str().unwrap_or_default().to_owned();
    let parts = handle["parts"].as_array().into_iter().flatten();
    let parts = parts.map(|part| PartId { content_id: part.as_str().unwrap_or_default().to_owned() }).collect();
    complete_parts(multipart, path, &id, parts).await
}

/// Completes an upload of these parts.
pub(super) async fn complete_parts(
    multipart: &dyn MultipartStore,
    path: &Path,
    id: &MultipartId,
    parts: Vec<PartId>,
) -> Result<()> {
    let done = multipart.complete_multipart(path, id, parts).await;
    done.map(drop).map_err(|error| stores::error(error, format!("`{path}`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_early_synchronisation_that_fails_fails_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let full = || EarlySync::begin(|| Err(std::io::ErrorKind::StorageFull.into())).unwrap();
        let mut output = Box::new(FileOutput::create(folder.path().join("x"), Value::Null).unwrap());
        output.early = full();
        let held = output.finish().unwrap();
        assert!(held.sync().unwrap_err().to_string().contains("`"));
        let mut output = FileOutput::create(folder.path().join("y"), Value::Null).unwrap();
        output.early = full();
        while output.early.is_at_work() {
            std::thread::yield_now();
        }
        let piece = vec![0; usize::try_from(SYNC_EVERY).unwrap()];
        assert!(output.write_all(&piece).is_err());
    }

    proptest! {
        /// Small and large writes in turn: a large one goes to the file directly and must not overtake what is buffered.
        #[test]
        fn bytes_are_in_the_file_in_the_order_they_came(
            sizes in proptest::collection::vec(prop_oneof![0usize..200, 60_000usize..140_000, 120_000usize..140_000], 0..12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x");
            let mut output = Box::new(FileOutput::create(path.clone(), Value::Null).unwrap());
            let mut expected = Vec::new();
            for (number, size) in sizes.into_iter().enumerate() {
                let bytes = vec![u8::try_from(number).unwrap(); size];
                expected.extend_from_slice(&bytes);
                output.write_all(&bytes).unwrap();
            }
            let held = output.finish().unwrap();
            prop_assert_eq!(held.bytes, expected.len() as u64);
            held.keep();
            prop_assert!(std::fs::read(&path).unwrap() == expected);
        }
    }
}
