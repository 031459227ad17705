//! A small client of the MySQL protocol, for connections that read units.
//!
//! The driver makes a value of its own, most often an allocation, of every field of every row, and lets nobody at the bytes
//! they come in; that was a third of the time of an extract. Here rows stay in the buffer they were received in, and
//! [`Decoder`] takes their values from there column by column. How packets are laid out that are not rows, and how
//! passwords are scrambled, is the driver's own library's. Everything that does not read rows in bulk stays with the driver.

mod frames;
mod login;
pub(super) mod row;
#[cfg(test)]
mod tests;

use super::connect::{Failure, TextRow, silence};
use super::decode::Decoder;
use frames::{Frames, Torn};
use mysql_async::{Column, DriverError, IoError, ServerError};
use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{ErrPacket, StmtPacket};
use mysql_common::proto::MyDeserialize;
use std::io;
use std::ops::Range;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const QUIT: u8 = 0x01;
const QUERY: u8 = 0x03;
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;
const CLOSE: u8 = 0x19;

/// What bytes go through: a socket, or TLS over one.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// One connection.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    frames: Frames,
    state: State,
    /// What both sides can.
    can: CapabilityFlags,
    /// The server's number of it.
    pub(super) id: u32,
    /// How long the server may send nothing while it is waited for.
    patience: Duration,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// Rows of a statement are still to come.
    Rows,
    /// In the middle of something; who finds this did not wait for its end, and nobody knows what comes next.
    Unsure,
}

/// What became of asking for rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// The batch is full.
    Full,
    /// More is to be received first.
    Wanting,
    /// All rows have come.
    End,
}

/// A statement that the server knows.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: u32,
    pub(super) columns: Vec<Column>,
    pub(super) parameters: u16,
}

/// A packet that is none of those that may come here.
fn unexpected(payload: &[u8]) -> Failure {
    let payload = payload.iter().copied().take(64).collect();
    Failure::Driver(DriverError::UnexpectedPacket { payload })
}

impl From<Torn> for Failure {
    fn from(torn: Torn) -> Self {
        Self::Driver(match torn {
            Torn::OutOfOrder => DriverError::PacketOutOfOrder,
            Torn::TooLarge => DriverError::PacketTooLarge,
        })
    }
}

fn parse<'a, T: MyDeserialize<'a>>(payload: &'a [u8], context: T::Ctx) -> Result<T, Failure> {
    ParseBuf(payload).parse(context).map_err(|_| unexpected(payload))
}

/// The server's refusal, as the driver says it.
fn refusal(payload: &[u8], can: CapabilityFlags) -> Failure {
    match parse::<ErrPacket<'_>>(payload, can) {
        Ok(ErrPacket::Error(error)) => Failure::Server(ServerError {
            code: error.error_code(),
            message: error.message_str().into_owned(),
            state: error.sql_state_ref().map_or_else(|| "HY000".to_owned(), |state| state.as_str().into_owned()),
        }),
        Ok(ErrPacket::Progress(_)) => unexpected(payload),
        Err(error) => error,
    }
}

/// Whether a packet ends columns or rows. A text of 16 MB begins with the same byte.
fn is_end(payload: &[u8]) -> bool {
    payload.first() == Some(&0xFE) && payload.len() < 9
}

/// The texts of a row of the text protocol.
fn texts(mut rest: &[u8]) -> Option<TextRow> {
    let mut row = Vec::new();
    while let Some(first) = rest.first() {
        if *first == 0xFB {
            row.push(None);
            rest = &rest[1..];
            continue;
        }
        let (before, length) = row::length(rest)?;
        let (text, after) = rest.get(before..)?.split_at_checked(length)?;
        row.push(Some(String::from_utf8_lossy(text).into_owned()));
        rest = after;
    }
    Some(row)
}

impl Wire {
    /// Receives some more.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn fill(&mut self) -> Result<(), Failure> {
        // Nothing is lost when nobody waits for its end: what came is in the buffer, or not received.
        let read = self.stream.read_buf(self.frames.room());
        let Ok(read) = tokio::time::timeout(self.patience, read).await else {
            self.state = State::Unsure;
            return Err(silence(self.patience));
        };
        match read {
            Ok(0) => {
                self.state = State::Unsure;
                let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed");
                Err(Failure::Io(IoError::Io(closed)))
            }
            Ok(_) => Ok(()),
            Err(error) => {
                self.state = State::Unsure;
                Err(Failure::Io(IoError::Io(error)))
            }
        }
    }

    async fn packet(&mut self) -> Result<Range<usize>, Failure> {
        loop {
            if let Some(place) = self.frames.next()? {
                return Ok(place);
            }
            self.fill().await?;
        }
    }

    /// The next packet; the server's refusal is an error, and the end of the statement.
    async fn answer(&mut self) -> Result<Range<usize>, Failure> {
        let place = self.packet().await?;
        let payload = &self.frames.bytes()[place.clone()];
        if payload.first() == Some(&0xFF) {
            let refusal = refusal(payload, self.can);
            self.state = State::Idle;
            return Err(refusal);
        }
        Ok(place)
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let framed = self.frames.framed(payload);
        let sent = async {
            self.stream.write_all(&framed).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| Failure::Io(IoError::Io(error)))
    }

    /// Begins a statement, after what is left of the one before was read.
    async fn command(&mut self, command: u8, body: &[u8]) -> Result<(), Failure> {
        match self.state {
            State::Idle => {}
            State::Rows => while self.row_or_end().await?.is_some() {},
            State::Unsure => return Err(Failure::Driver(DriverError::ConnectionClosed)),
        }
        self.state = State::Unsure;
        self.frames.restart();
        self.send(&[&[command], body].concat()).await
    }

    /// The next row as it is; none after the last.
    async fn row_or_end(&mut self) -> Result<Option<Range<usize>>, Failure> {
        let place = self.answer().await?;
        if is_end(&self.frames.bytes()[place.clone()]) {
            self.state = State::Idle;
            return Ok(None);
        }
        Ok(Some(place))
    }

    /// So many columns, and what ends them.
    async fn columns(&mut self, count: usize) -> Result<Vec<Column>, Failure> {
        let mut columns = Vec::new();
        for _ in 0..count {
            let place = self.answer().await?;
            columns.push(parse(&self.frames.bytes()[place], ())?);
        }
        if count > 0 {
            let place = self.answer().await?;
            let end = &self.frames.bytes()[place];
            if !is_end(end) {
                return Err(unexpected(end));
            }
        }
        Ok(columns)
    }

    /// How a statement is answered: with the columns of rows that follow, or with none.
    async fn result(&mut self) -> Result<Vec<Column>, Failure> {
        let place = self.answer().await?;
        let payload = &self.frames.bytes()[place];
        if payload.first() == Some(&0) {
            self.state = State::Idle;
            return Ok(Vec::new());
        }
        let count = row::length(payload).map(|(_, count)| count).filter(|count| (1..=0xFFFF).contains(count));
        let count = count.ok_or_else(|| unexpected(payload))?;
        let columns = self.columns(count).await?;
        self.state = State::Rows;
        Ok(columns)
    }

    /// Runs a statement. What it gives as rows is texts, under the names of their columns.
    pub(super) async fn query(&mut self, sql: &str) -> Result<(Vec<String>, Vec<TextRow>), Failure> {
        self.command(QUERY, sql.as_bytes()).await?;
        let names = self.result().await?.iter().map(|column| column.name_str().into_owned()).collect();
        let mut rows = Vec::new();
        if self.state == State::Rows {
            while let Some(place) = self.row_or_end().await? {
                let payload = &self.frames.bytes()[place];
                rows.push(texts(payload).ok_or_else(|| unexpected(payload))?);
            }
        }
        Ok((names, rows))
    }

    /// Has the server look at a statement.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<Prepared, Failure> {
        self.command(PREPARE, sql.as_bytes()).await?;
        let place = self.answer().await?;
        let said: StmtPacket = parse(&self.frames.bytes()[place], ())?;
        self.columns(usize::from(said.num_params())).await?;
        let columns = self.columns(usize::from(said.num_columns())).await?;
        self.state = State::Idle;
        Ok(Prepared { id: said.statement_id(), columns, parameters: said.num_params() })
    }

    /// Runs a prepared statement without parameters; gives the columns of its rows, which [`Self::rows`] reads.
    pub(super) async fn execute(&mut self, id: u32) -> Result<Vec<Column>, Failure> {
        // No cursor; once.
        let body = [&id.to_le_bytes()[..], &[0], &1u32.to_le_bytes()].concat();
        self.command(EXECUTE, &body).await?;
        self.result().await
    }

    /// Takes the rows that have come, until the batch is full.
    pub(super) fn rows(&mut self, into: &mut Decoder) -> Result<Came, Failure> {
        if self.state != State::Rows {
            return if self.state == State::Idle {
                Ok(Came::End)
            } else {
                Err(Failure::Driver(DriverError::ConnectionClosed))
            };
        }
        let came = loop {
            if into.is_full() {
                break Came::Full;
            }
            let Some(place) = self.frames.next()? else { break Came::Wanting };
            let payload = &self.frames.bytes()[place.clone()];
            match payload.first() {
                Some(0) => into.place(self.frames.bytes(), place).ok_or_else(|| unexpected(payload))?,
                Some(0xFE) if is_end(payload) => {
                    self.state = State::Idle;
                    break Came::End;
                }
                Some(0xFF) => {
                    let refusal = refusal(payload, self.can);
                    self.state = State::Idle;
                    return Err(refusal);
                }
                _ => return Err(unexpected(payload)),
            }
        };
        into.decode(self.frames.bytes());
        Ok(came)
    }

    /// Has the server forget a statement; it does not answer.
    pub(super) async fn forget(&mut self, id: u32) -> Result<(), Failure> {
        self.command(CLOSE, &id.to_le_bytes()).await?;
        self.state = State::Idle;
        Ok(())
    }

    /// Ends the session in good order: the server is told.
    pub(super) async fn quit(mut self) -> Result<(), Failure> {
        self.command(QUIT, &[]).await?;
        self.stream.shutdown().await.map_err(|error| Failure::Io(IoError::Io(error)))
    }
}

/// Bytes as packets, and each of them as whatever may come in one; see [`crate::fuzzing`].
#[cfg(any(test, fuzzing))]
pub(super) fn packets(bytes: &[u8]) {
    let mut frames = Frames::default();
    frames.room().extend_from_slice(bytes);
    let look = |payload: &[u8]| {
        let _ = (texts(payload), refusal(payload, CapabilityFlags::CLIENT_PROTOCOL_41), row::length(payload));
        let _ = parse::<Column>(payload, ()).map(|column| row::Raw::of(&column));
        let _ = parse::<StmtPacket>(payload, ());
        let _ = parse::<mysql_common::packets::AuthSwitchRequest<'_>>(payload, ());
    };
    look(bytes);
    while let Ok(Some(place)) = frames.next() {
        look(&frames.bytes()[place]);
    }
}
