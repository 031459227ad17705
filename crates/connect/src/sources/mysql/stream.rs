//! Reading one unit: one statement, tried again where that can help.

use super::connect::{Failure, Session, server_error};
use super::decode::{Decoder, Refused};
use super::kept;
use super::pushed;
use super::snapshot::{Lent, Snapshot};
use super::wanted::Wanted;
use super::wire::row::Raw;
use super::wire::{Came, Wire};
use crate::Scan;
use crate::picture;
use crate::units::share::Share;
use crate::wrap::retry;
use arrow::array::RecordBatch;
use gristmill_model::{Error, Result};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// A unit that is being read.
pub(super) struct UnitReader {
    wanted: Arc<Wanted>,
    /// The picture of the unit, where it is part of one.
    snapshot: Option<Arc<Snapshot>>,
    share: Share,
    ordinal: u32,
    label: String,
    scan: Scan,
    reading: Option<Reading>,
    /// Which attempt this is, from 1.
    attempt: u32,
    /// Rows were handed on or refused: another attempt would double them.
    settled: bool,
}

/// A connection that reads a unit.
enum Line {
    /// Of the snapshot, to be given back.
    Shared(Lent),
    /// Of its own, with its place among the readers.
    Own(Session, #[expect(dead_code, reason = "held only to be dropped")] OwnedSemaphorePermit),
}

impl Line {
    fn session(&mut self) -> Result<&mut Session, Failure> {
        match self {
            Self::Shared(lent) => lent.session(),
            Self::Own(session, _) => Ok(session),
        }
    }
}

/// A statement whose rows come.
struct Reading {
    line: Line,
    /// The server's number of it.
    statement: u32,
    decoder: Decoder,
    ended: bool,
    rows: u64,
}

impl Reading {
    /// Reads rows until the batch is full, or there are no more.
    async fn gather(&mut self) -> Result<(), Failure> {
        let wire = self.line.session()?.wire()?;
        while !self.ended {
            match wire.rows(&mut self.decoder)? {
                Came::Full => break,
                Came::Wanting => wire.fill().await?,
                Came::End => self.ended = true,
            }
        }
        Ok(())
    }
}

impl UnitReader {
    pub(super) fn new(
        wanted: Arc<Wanted>,
        snapshot: Option<Arc<Snapshot>>,
        share: Share,
        (ordinal, label): (u32, String),
        scan: Scan,
    ) -> Self {
        Self { wanted, snapshot, share, ordinal, label, scan, reading: None, attempt: 1, settled: false }
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
        if self.reading.is_none() {
            self.begin().await?;
        }
        let Some(reading) = &mut self.reading else { return Err(Error::internal("a statement that is not there")) };
        loop {
            if let Err(error) = reading.gather().await {
                let doing = format!("reading `{}` failed", self.label);
                return Err(server_error(&error, &self.wanted.config, &doing));
            }
            reading.rows += reading.decoder.rows();
            if reading.decoder.is_empty() {
                return Ok(None);
            }
            let (batch, refused) = reading.decoder.finish()?;
            for Refused { record, why } in refused {
                self.scan.refuse(&self.label, record, why)?;
                self.settled = true;
            }
            if batch.num_rows() > 0 {
                self.settled = true;
                return Ok(Some(batch));
            }
        }
    }

    /// Takes a connection that sees the unit's picture, and sends the statement.
    async fn begin(&mut self) -> Result<()> {
        let (mut line, known) = match (&self.snapshot, &self.share.snapshot) {
            (Some(snapshot), _) => {
                // Trying the unit again cannot help then; beginning anew can.
                (Line::Shared(Lent::of(snapshot).await.map_err(|error| error.retryable(false))?), None)
            }
            (None, Some(_)) => return Err(picture::lost(&self.wanted.config.place).retryable(false)),
            (None, None) => {
                let place = self.wanted.config.readers.place().await?;
                let mut session = Session::open_reader(&self.wanted.config).await?;
                let known = self.wanted.describe(&mut session).await?;
                (Line::Own(session, place), Some(known))
            }
        };
        let begun = self.send(&mut line, known.as_deref()).await;
        match begun {
            Ok((statement, decoder, came)) => {
                self.scan.rejects = self.scan.rejects.take().map(|rejects| rejects.of_rows(came.as_ref()));
                if let Some(snapshot) = &self.snapshot {
                    snapshot.begin_unit();
                }
                self.reading = Some(Reading { line, statement, decoder, ended: false, rows: 0 });
                Ok(())
            }
            Err(error) => {
                put_away(line);
                Err(error)
            }
        }
    }

    async fn send(
        &self,
        line: &mut Line,
        known: Option<&[super::types::Column]>,
    ) -> Result<(u32, Decoder, Option<crate::kept::Came>)> {
        let known = known.or_else(|| self.snapshot.as_ref().map(|snapshot| snapshot.columns.as_slice()));
        let (known, scan) = (known.unwrap_or_default(), &self.scan);
        let (columns, mut sql) = match &self.share.aggregation {
            Some(aggregation) => pushed::aggregate(aggregation, &self.wanted, known, scan, &self.share.slice)?,
            None => {
                let columns = self.wanted.choose(known, &scan.schema)?;
                let sql = self.wanted.select(&columns, &self.share.slice);
                (columns, sql)
            }
        };
        if let Some(limit) = self.share.limit {
            sql.push_str(&format!(" LIMIT {limit}"));
        }
        let failed = |error: Failure| server_error(&error, &self.wanted.config, "cannot send a statement");
        let session = line.session().map_err(failed)?;
        match sent(session.wire().map_err(failed)?, &sql).await {
            Ok((statement, raw)) => {
                let came = kept::came(&columns, &raw);
                Ok((statement, Decoder::new(&columns, raw, scan.schema.clone(), scan.batch_size)?, came))
            }
            Err(error) => Err(self.wanted.cannot_read(session, &error).await),
        }
    }

    /// Waits for the next attempt.
    ///
    /// # Errors
    /// The one given, where another attempt cannot help.
    async fn before_next(&mut self, error: Error) -> Result<()> {
        if let Some(reading) = self.reading.take() {
            put_away(reading.line);
        }
        // Half a unit may be with others already, and its rows may come in another order.
        let wait = retry::wait_before_next(&error, self.attempt, retry::random()).filter(|_| !self.settled);
        let Some(wait) = wait else { return Err(error) };
        tracing::warn!(
            attempt = self.attempt,
            wait = ?wait,
            "reading `{}` failed and is tried again: {error}",
            self.label
        );
        self.attempt += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        let Some(Reading { mut line, statement, rows, .. }) = self.reading.take() else { return Ok(()) };
        if let Ok(wire) = line.session().and_then(Session::wire) {
            // If that fails, the next statement will, too.
            let _ = wire.forget(statement).await;
        }
        match (line, &self.snapshot) {
            (Line::Shared(lent), Some(snapshot)) => {
                lent.give_back();
                snapshot.end_unit(self.ordinal, rows).await
            }
            (Line::Own(session, _), _) => {
                session.close().await;
                Ok(())
            }
            (Line::Shared(_), None) => Err(Error::internal("a reader without its snapshot")),
        }
    }
}

/// Sends a statement: its number, and how the columns of its rows come. Numbers come as such in the binary protocol, which
/// prepared statements have; texts of them would be rounded.
async fn sent(wire: &mut Wire, sql: &str) -> Result<(u32, Vec<Raw>), Failure> {
    let statement = wire.prepare(sql).await?.id;
    let columns = wire.execute(statement).await?;
    Ok((statement, columns.iter().map(Raw::of).collect()))
}

/// Puts a connection away whose statement failed, which need not have ended the connection. One of its own is hung up on.
fn put_away(line: Line) {
    if let Line::Shared(lent) = line {
        lent.look_after();
    }
}
