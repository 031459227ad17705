//! Reading one unit: one binary COPY, tried again where that can help.

use super::aggregate;
use super::connect::{Session, server_error};
use super::copy::Frames;
use super::decode::{Decoder, Refused};
use super::kept;
use super::snapshot::{Reader, Snapshot};
use super::types::Column;
use super::units::share::Share;
use super::wanted::Wanted;
use crate::Scan;
use crate::wrap::retry;
use arrow::array::RecordBatch;
use futures::StreamExt;
use gristmill_model::{Error, ErrorKind, Result, ResultExt};
use std::pin::Pin;
use std::sync::Arc;
use tokio_postgres::CopyOutStream;
use tokio_postgres::error::SqlState;

/// A unit that is being read.
pub(super) struct UnitReader {
    pub(super) wanted: Arc<Wanted>,
    /// The snapshot of the unit, where this process holds it.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) share: Share,
    pub(super) ordinal: u32,
    pub(super) label: String,
    pub(super) scan: Scan,
    copying: Option<Copying>,
    /// Which attempt this is, from 1.
    attempt: u32,
    /// Rows that were handed on or refused; a further attempt leaves them out.
    settled: u64,
    /// The snapshot, or the table, is not to be had: trying this unit again cannot help, beginning anew can.
    is_orphaned: bool,
}

impl UnitReader {
    pub(super) fn new(
        wanted: Arc<Wanted>,
        snapshot: Option<Arc<Snapshot>>,
        share: Share,
        (ordinal, label): (u32, String),
        scan: Scan,
    ) -> Self {
        Self {
            wanted,
            snapshot,
            share,
            ordinal,
            label,
            scan,
            copying: None,
            attempt: 1,
            settled: 0,
            is_orphaned: false,
        }
    }

    /// The next batch; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match self.step().await {
                Ok(Some(batch)) => return Ok(Some(batch)),
                Ok(None) => return self.end().await.map(|()| None),
                Err(error) => self.before_next(error).await?,
            }
        }
    }

    async fn step(&mut self) -> Result<Option<RecordBatch>> {
        if self.copying.is_none() {
            self.copying = Some(self.begin().await?);
        }
        let Some(copying) = &mut self.copying else { return Err(Error::internal("a COPY that is not there")) };
        loop {
            let Some((batch, refused)) = copying.next_batch(&self.wanted, &self.label).await? else { return Ok(None) };
            for Refused { record, why } in refused {
                self.scan.refuse(&self.label, record, why)?;
            }
            self.settled = copying.seen;
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
    }

    /// Opens a session that sees the unit's picture, and starts the COPY.
    async fn begin(&mut self) -> Result<Copying> {
        let opened = open_reader(&self.wanted, self.snapshot.as_ref(), self.share.snapshot.as_deref()).await;
        let (reader, known) = opened.map_err(|no| {
            self.is_orphaned |= no.is_orphaned;
            no.error
        })?;
        let known = known.as_deref().or_else(|| self.snapshot.as_ref().map(|snapshot| snapshot.columns.as_slice()));
        let (columns, rows) = match &self.share.aggregation {
            Some(aggregation) => {
                aggregate::select(aggregation, &self.wanted, known.unwrap_or_default(), &self.scan, &self.share.slice)?
            }
            None => {
                let columns = self.wanted.choose(known.unwrap_or_default(), &self.scan.schema)?;
                let rows = self.wanted.select(&columns, &self.share.slice);
                (columns, rows)
            }
        };
        let came = kept::came(&columns);
        self.scan.rejects = self.scan.rejects.take().map(|rejects| rejects.of_rows(came.as_ref()));
        let limit = self.share.limit.map_or_else(String::new, |limit| format!(" LIMIT {limit}"));
        let sql = format!("COPY ({rows}{limit}) TO STDOUT (FORMAT binary)");
        let stream = match reader.session.copy_out(&sql).await {
            Ok(stream) => Box::pin(stream),
            Err(error) if self.share.snapshot.is_some() && error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                self.is_orphaned = true;
                return Err(locked_out(&self.wanted.label(), &error));
            }
            Err(error) => return Err(self.wanted.cannot_read(&reader.session, &error).await),
        };
        if let Some(snapshot) = &self.snapshot {
            snapshot.begin_unit(self.share.plan);
        }
        Ok(Copying {
            frames: Frames::new(columns.len()),
            decoder: Decoder::new(&columns, self.scan.schema.clone(), self.scan.batch_size)?,
            stream,
            reader,
            ended: false,
            seen: 0,
            skip: self.settled,
        })
    }

    /// Waits for the next attempt.
    ///
    /// # Errors
    /// The one given, where another attempt cannot help.
    async fn before_next(&mut self, error: Error) -> Result<()> {
        self.copying = None;
        // Half a unit may be with others already. It can be completed where its rows come in the same order again.
        let may_go_on = self.settled == 0
            || (self.share.snapshot.is_some()
                && self.share.slice.is_ordered()
                && self.wanted.filter.is_none()
                && self.share.aggregation.is_none());
        let Some(wait) = retry::wait_before_next(&error, self.attempt, retry::random()) else { return Err(error) };
        if self.is_orphaned || !may_go_on {
            return Err(error);
        }
        if let Some(snapshot) = self.snapshot.as_ref().filter(|snapshot| snapshot.is_lost()) {
            return Err(snapshot.lost().context(error.message().to_owned()));
        }
        tracing::warn!(
            attempt = self.attempt,
            wait = ?wait,
            rows = self.settled,
            "reading `{}` failed and is tried again: {error}",
            self.label
        );
        self.attempt += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        let Some(copying) = self.copying.take() else { return Ok(()) };
        let rows = copying.seen;
        match &self.snapshot {
            Some(snapshot) => {
                snapshot.keep(copying.reader);
                snapshot.end_unit(self.share.plan, self.ordinal, rows, &self.wanted.label()).await
            }
            None => {
                copying.reader.session.close().await;
                Ok(())
            }
        }
    }
}

/// A COPY that is going on.
struct Copying {
    frames: Frames,
    decoder: Decoder,
    stream: Pin<Box<CopyOutStream>>,
    reader: Reader,
    ended: bool,
    /// Rows that came, those left out included.
    seen: u64,
    /// Rows to be left out: an earlier attempt handed them on.
    skip: u64,
}

impl Copying {
    async fn next_batch(&mut self, wanted: &Wanted, label: &str) -> Result<Option<(RecordBatch, Vec<Refused>)>> {
        while !self.decoder.is_full() {
            if let Some((bytes, spans)) = self.frames.next_row().context(|| format!("reading `{label}`"))? {
                self.seen += 1;
                if self.seen > self.skip {
                    self.decoder.push(bytes, spans)?;
                }
            } else if self.ended {
                break;
            } else {
                match self.reader.session.heard(self.stream.next()).await {
                    Some(Ok(chunk)) => self.frames.push(chunk),
                    Some(Err(error)) => {
                        let error = server_error(&error, &wanted.config, &format!("reading `{label}` failed"));
                        return Err(self.reader.session.told(error));
                    }
                    None => {
                        self.frames.finish().context(|| format!("reading `{label}`"))?;
                        self.ended = true;
                    }
                }
            }
        }
        if self.decoder.is_empty() { Ok(None) } else { self.decoder.finish().map(Some) }
    }
}

/// Why there is no reader.
pub(super) struct NoReader {
    pub(super) error: Error,
    /// The snapshot cannot be imported any more.
    is_orphaned: bool,
}

impl From<Error> for NoReader {
    fn from(error: Error) -> Self {
        Self { error, is_orphaned: false }
    }
}

/// A connection that sees the picture `id`, or one of its own: one that is idle, or a new one. A snapshot of ours comes with
/// its columns; otherwise the server is asked for them within the transaction.
pub(super) async fn open_reader(
    wanted: &Wanted,
    snapshot: Option<&Arc<Snapshot>>,
    id: Option<&str>,
) -> Result<(Reader, Option<Vec<Column>>), NoReader> {
    if let Some(reader) = snapshot.and_then(|snapshot| snapshot.idle_reader()) {
        return Ok((reader, None));
    }
    let place = wanted.config.readers.place().await?;
    let session = Session::open_to_read(&wanted.config).await?;
    if let Err(error) = session.begin_to_read(&wanted.config, id).await {
        // Invalid identifier, does not exist (from 17 on), or its holder is not running any more.
        let refused = error.code().is_some_and(|code| matches!(code.code(), "22023" | "42704" | "55000"));
        if id.is_none() || !refused {
            return Err(server_error(&error, &wanted.config, "cannot begin to read").into());
        }
        let error = match snapshot {
            Some(snapshot) => snapshot.lost(),
            None => super::snapshot::lost(&wanted.config, None),
        };
        return Err(NoReader { error, is_orphaned: true });
    }
    let known = if snapshot.is_some() { None } else { Some(wanted.describe(&session).await?) };
    Ok((Reader { session, _place: place }, known))
}

/// The error for a reader that somebody who waits to change the table keeps out.
fn locked_out(label: &str, error: &tokio_postgres::Error) -> Error {
    let words = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
    Error::new(
        ErrorKind::Conflict,
        format!("somebody waits to change `{label}` while it is read, and further readers have to wait behind them"),
    )
    .cause(words)
    .retryable(true)
    .hint("run again; keep ALTER TABLE, VACUUM FULL and their like away from a table while it is read")
}
