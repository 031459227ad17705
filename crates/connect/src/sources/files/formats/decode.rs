//! Decoding at arm's length: on a thread of its own, where a panic of a library is an error and nothing blocks the
//! runtime.
//!
//! ```text
//!   async side                          decode thread
//!   Rows ◄── bounded channel ◄── Out ◄── work ──► Bridge (block_on) ──► object store
//! ```
//!
//! The libraries that decode files are synchronous and some of them panic on bytes that are not what they claim to be.
//! A thread per file gives them a deep stack and a place where unwinding stops.

use super::FileInput;
use super::adapt::Adapter;
use crate::{Rows, Scan};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::StreamExt;
use gristmill_model::{Error, ErrorKind, Result};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Deep enough for every schema whose nesting a library follows by recursion; only touched pages cost memory.
const STACK_BYTES: usize = 64 << 20;

/// Batches that wait for their reader: one being used, one ready.
const BATCHES_AHEAD: usize = 2;

/// More rows than this in one batch of a file is a lie: nothing holds them.
const MAX_BATCH_ROWS: usize = 1 << 31;

/// Whom to blame: the file and the format that every error names, and the trouble that a library only passed on.
#[derive(Clone)]
pub(super) struct Blame(Arc<BlameInner>);

struct BlameInner {
    name: String,
    format: &'static str,
    trouble: Mutex<Option<Error>>,
}

impl Blame {
    /// `format` is its name in a sentence, e.g. `Parquet`.
    pub(super) fn new(input: &FileInput, format: &'static str) -> Self {
        Self(Arc::new(BlameInner { name: input.name.clone(), format, trouble: Mutex::new(None) }))
    }

    /// The file, for messages.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// The bytes are not what they claim to be, unless the store or the disk was at fault ([`Blame::trouble`]).
    pub(super) fn data(&self, cause: impl fmt::Display) -> Error {
        if let Some(error) = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return error;
        }
        let cause = cause.to_string();
        let cause = cause.strip_prefix("Parquet error: ").unwrap_or(&cause);
        Error::new(ErrorKind::Data, format!("`{}` is not a readable {} file", self.0.name, self.0.format)).cause(cause)
    }

    /// Remembers an error of the layer below a library, which would only pass its text on.
    pub(super) fn trouble(&self, error: Error) -> std::io::Error {
        let told = std::io::Error::other(error.to_string());
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        told
    }
}

/// The decode thread's way to the async world.
#[derive(Clone)]
pub(super) struct Bridge {
    handle: Handle,
    pub(super) blame: Blame,
}

impl Bridge {
    /// Waits for a future; only ever called on a decode thread.
    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }
}

/// Where the decode thread puts its batches.
pub(super) struct Out {
    sender: mpsc::Sender<Result<RecordBatch>>,
    scan: Scan,
    blame: Blame,
    adapter: Option<Adapter>,
    rows: u64,
}

impl Out {
    /// What was asked for.
    pub(super) fn scan(&self) -> &Scan {
        &self.scan
    }

    /// Says how many rows of the file stand before those that are sent.
    pub(super) fn begin_at(&mut self, rows: u64) {
        self.rows = rows;
    }

    /// How many rows of the file were sent.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Sends a batch of the file's own schema, brought to the schema asked for, in batches of the size asked for.
    ///
    /// # Errors
    /// A value that cannot be brought to its type; [`ErrorKind::Canceled`] when nobody reads any more.
    pub(super) fn send(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() > MAX_BATCH_ROWS {
            return Err(self.blame.data(format!("a batch claims to have {} rows", batch.num_rows())));
        }
        let size = self.scan.batch_size.max(1);
        let mut start = 0;
        while start < batch.num_rows() {
            let part = batch.slice(start, size.min(batch.num_rows() - start));
            let adapter = match &mut self.adapter {
                Some(adapter) if *adapter.from() == part.schema() => adapter,
                slot => slot.insert(Adapter::new(part.schema(), &self.scan, self.blame.clone())?),
            };
            let adapted = adapter.adapt(&part, self.rows)?;
            self.rows += part.num_rows() as u64;
            start += part.num_rows();
            if adapted.num_rows() > 0 {
                self.send_as_is(adapted)?;
            }
        }
        Ok(())
    }

    /// Sends a batch that already has the schema asked for.
    pub(super) fn send_as_is(&self, batch: RecordBatch) -> Result<()> {
        self.sender
            .blocking_send(Ok(batch))
            .map_err(|_| Error::new(ErrorKind::Canceled, "nobody reads these rows any more"))
    }
}

/// Runs `work` on a decode thread; what it puts into [`Out`] comes out of the stream. Nothing happens before the
/// stream is polled.
pub(super) fn rows(
    scan: Scan,
    blame: Blame,
    work: impl FnOnce(&Bridge, &mut Out) -> Result<()> + Send + 'static,
) -> Rows {
    let schema: SchemaRef = scan.schema.clone();
    let start = async move {
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let bridge = Bridge { handle: Handle::current(), blame: blame.clone() };
        let errors = sender.clone();
        let spawned = spawn(move || {
            let mut out = Out { sender, scan, blame: blame.clone(), adapter: None, rows: 0 };
            if let Err(error) = guard(&blame, || work(&bridge, &mut out)) {
                // A reader that has gone needs no error.
                let _ = out.sender.blocking_send(Err(error));
            }
        });
        if let Err(error) = spawned {
            let _ = errors.send(Err(error)).await;
        }
        drop(errors);
        futures::stream::unfold(
            receiver,
            |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) },
        )
    };
    Rows::new(schema, futures::stream::once(start).flatten())
}

/// Runs `work` on a decode thread and waits for its answer.
pub(super) async fn call<T: Send + 'static>(
    blame: Blame,
    work: impl FnOnce(&Bridge) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    let bridge = Bridge { handle: Handle::current(), blame: blame.clone() };
    spawn(move || {
        // Whoever asked may have gone.
        let _ = sender.send(guard(&blame, || work(&bridge)));
    })?;
    receiver.await.map_err(|_| Error::internal("a decode thread ended without an answer"))?
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name("gristmill-decode".into())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map(drop)
        .map_err(|error| Error::io(&error, "a thread to decode a file"))
}

/// Turns a panic of a library into an error that names the file.
fn guard<T>(blame: &Blame, work: impl FnOnce() -> Result<T>) -> Result<T> {
    quiet_panics();
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    result.unwrap_or_else(|payload| Err(blame.data(panic_text(payload.as_ref()))))
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Silences the message of panics within the libraries that decode files, on any thread: for an engine whose own scan
/// uses them, and which makes errors of their panics.
pub fn quiet_decoders() {
    ANYWHERE.store(true, Ordering::Relaxed);
    quiet_panics();
}

/// Whether [`quiet_decoders`] was called.
static ANYWHERE: AtomicBool = AtomicBool::new(false);

/// Whether a place is in a library that decodes files.
fn in_decoder(file: &str) -> bool {
    ["/parquet-", "/arrow-", "/datafusion-datasource"].iter().any(|library| file.contains(library))
}

/// A library's panic on bad bytes is reported as an error; the default message on standard error would be noise. Only
/// decode threads are silenced, and what [`quiet_decoders`] says; the hook in place is asked for all others.
fn quiet_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
            if QUIET.get() || (ANYWHERE.load(Ordering::Relaxed) && in_decoder(&place)) {
                tracing::debug!(place, "a decoder panicked");
                PLACE.set(place);
            } else {
                previous(info);
            }
        }));
    });
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no reason given".into());
    let text: String = text.lines().next().unwrap_or_default().chars().take(300).collect();
    // The file name of the library is enough to find the place; the path before it is the machine's.
    let place = PLACE.take();
    let place = place.rsplit_once("/src/").map_or(place.as_str(), |(before, file)| {
        let start = before.rfind('/').map_or(0, |at| at + 1);
        &place[start..before.len() + "/src/".len() + file.len()]
    });
    format!("the decoder gave up on its bytes ({text}, at {place})")
}

/// A schema without columns named twice: rows are addressed by name.
pub(super) fn distinct_columns(schema: &Schema, blame: &Blame) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for field in schema.fields() {
        if !seen.insert(field.name()) {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("`{}` has two columns named `{}`", blame.name(), field.name()),
            )
            .hint("write the file again with a name of its own for each column"));
        }
    }
    Ok(())
}
