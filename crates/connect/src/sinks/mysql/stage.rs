//! Staging: one writer's rows into a table of its own, in one transaction that a broken writer takes with it.

use super::MysqlSink;
use super::encode::{Encoder, Form, Limits};
use super::session::{changed_rows, open, refuse_warnings};
use super::target::Target;
use super::types::{Outgoing, staged_name};
use crate::Rows;
use crate::sinks::staged_table::{CHUNK, Label, Payload, pieces, table_name};
use crate::sources::mysql::connect::{Failure, Session};
use crate::sources::mysql::names::quoted;
use bytes::Bytes;
use futures::StreamExt;
use gristmill_model::fault::{self, Point};
use gristmill_model::{Error, ErrorKind, Result, Staged, TaskKey};
use mysql_async::prelude::Queryable;
use tokio::sync::mpsc;

/// Letters that a table's comment may have.
const LONGEST_COMMENT: usize = 2_048;
/// What a packet holds beside the statement.
const ENVELOPE: usize = 1_024;
/// Lines are sent in packets of so many bytes: any server takes those (`max_allowed_packet`), however long a row is.
const PACKET: usize = 1 << 19;

/// A writer that can send rows.
pub(super) struct Begun {
    pub(super) session: Session,
    pub(super) target: Target,
    /// Where the rows go.
    pub(super) payload: Payload,
    /// What the target takes, column by column.
    pub(super) limits: Vec<Limits>,
}

impl Payload {
    pub(super) fn in_backticks(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// A text between quotes, where nothing else is allowed; as our `sql_mode` reads it.
fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

async fn send_in_packets(sender: &mpsc::Sender<Bytes>, lines: Vec<u8>) -> Result<()> {
    let mut lines = Bytes::from(lines);
    while !lines.is_empty() {
        let packet = lines.split_to(lines.len().min(PACKET));
        let gone = |_| Error::new(ErrorKind::Unavailable, "the server has stopped to read rows");
        sender.send(packet).await.map_err(gone)?;
    }
    Ok(())
}

impl MysqlSink {
    pub(super) async fn stage_rows(&self, task: &TaskKey, rows: Rows) -> Result<Staged> {
        let Begun { mut session, payload, limits, .. } = self.begin_staging(task).await?;
        self.begin(&mut session).await?;
        let form = if self.takes_lines(&mut session, &payload).await? { Form::Lines } else { Form::Values };
        let encoder = Encoder::new(&self.columns, limits, form);
        let (count, bytes) = self.send(&mut session, &payload, &encoder, rows).await?;
        fault::at(Point::StagedBytes)?;
        session.run("COMMIT").await.map_err(|error| self.staging_failed(&error))?;
        session.close().await;
        payload.staged(task, count, bytes)
    }

    /// Looks the target up and makes the staging table.
    pub(super) async fn begin_staging(&self, task: &TaskKey) -> Result<Begun> {
        let mut session = open(&self.config).await?;
        let target = self.target(&mut session).await?;
        let payload = Payload::aside(&target.database, table_name(task));
        let columns = self.staged_columns(&target);
        fault::at(Point::BeforeIntent)?;
        let label = Label { key: task.load.clone(), owner: task.owner.clone() };
        self.create_labelled(&mut session, &payload, &label, &columns).await?;
        fault::at(Point::AfterIntent)?;

        let limits = self.columns.iter().map(|column| self.limits(&target, column)).collect();
        Ok(Begun { session, target, payload, limits })
    }

    /// Begins the transaction that rows are staged in.
    pub(super) async fn begin(&self, session: &mut Session) -> Result<()> {
        // What nobody else sees needs no checks; MariaDB writes an empty table in bulk then.
        let begin = "SET SESSION unique_checks = 0, foreign_key_checks = 0";
        session.run(begin).await.map_err(|error| self.staging_failed(&error))?;
        session.run("BEGIN").await.map_err(|error| self.staging_failed(&error))
    }

    /// Sends rows into a table; answers with their number and bytes.
    pub(super) async fn send(
        &self,
        session: &mut Session,
        to: &Payload,
        encoder: &Encoder,
        rows: Rows,
    ) -> Result<(u64, u64)> {
        match encoder.form() {
            Form::Lines => self.send_lines(session, to, encoder, rows).await,
            Form::Values => self.send_values(session, to, encoder, rows).await,
        }
    }

    /// The columns that rows are staged in.
    pub(super) fn staged_columns(&self, target: &Target) -> Vec<String> {
        let columns = self.columns.iter().enumerate();
        columns
            .map(|(place, column)| format!("{} {} NULL", staged_name(place), column.kind.staged_sql(&target.server)))
            .collect()
    }

    /// What a column takes. The keys of `merge` and `scd2` are looked at by the audit, all together.
    fn limits(&self, target: &Target, column: &Outgoing) -> Limits {
        let rules = &self.options.rules;
        let limits = target.limits(column);
        let is_key = rules.is_keyed() && rules.match_on.contains(&column.name);
        Limits { takes_null: limits.takes_null || is_key, ..limits }
    }

    /// Makes a table that says whose it is; one of that name goes.
    pub(super) async fn create_labelled(
        &self,
        session: &mut Session,
        payload: &Payload,
        label: &Label,
        definitions: &[String],
    ) -> Result<()> {
        let text = label.text()?;
        if text.chars().count() > LONGEST_COMMENT {
            return Err(Error::new(ErrorKind::Config, format!("the load `{}` has too long a name", label.key))
                .hint("give pipeline, step, connection or table a shorter name"));
        }
        let table = payload.in_backticks();
        let doing = format!("cannot stage rows in the database `{}`", payload.schema);
        let refused = |error: Failure| self.refused(&error, &doing);
        session.run(&format!("DROP TABLE IF EXISTS {table}")).await.map_err(refused)?;
        let sql = format!(
            "CREATE TABLE {table} ({}) ENGINE = InnoDB ROW_FORMAT = DYNAMIC COMMENT = {}",
            definitions.join(", "),
            quoted_text(&text)
        );
        session.run(&sql).await.map_err(refused)
    }

    pub(super) fn staging_failed(&self, error: &Failure) -> Error {
        self.named(self.refused(error, &format!("staging rows for `{}` failed", self.options.table)))
    }

    /// Puts the names of columns in place of those that the staging table has for them.
    fn named(&self, error: Error) -> Error {
        let Some(words) = error.cause_text().map(str::to_owned) else { return error };
        let columns = self.columns.iter().enumerate().rev();
        let named = columns.fold(words, |words, (place, column)| {
            let (quotes, name) = (format!("'c{place}'"), format!("`{}`", column.name));
            let full = format!(".`c{place}`");
            words.replace(&quotes, &name).replace(&full, &format!(".{name}"))
        });
        error.cause(named)
    }

    fn load_data(payload: &Payload) -> String {
        format!("LOAD DATA LOCAL INFILE 'rows' INTO TABLE {} CHARACTER SET binary", payload.in_backticks())
    }

    /// Whether the server, and what is between it and us, takes rows as lines.
    pub(super) async fn takes_lines(&self, session: &mut Session, payload: &Payload) -> Result<bool> {
        let failed = |error: Failure| self.staging_failed(&error);
        let conn = session.conn().map_err(failed)?;
        conn.set_infile_handler(async { Ok(futures::stream::empty().boxed()) });
        match conn.query_drop(Self::load_data(payload)).await {
            Ok(()) => Ok(true),
            Err(Failure::Server(refusal)) => {
                tracing::debug!(%refusal, "LOAD DATA LOCAL is refused; INSERTs it is");
                Ok(false)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// One LOAD DATA for all rows.
    async fn send_lines(
        &self,
        session: &mut Session,
        payload: &Payload,
        encoder: &Encoder,
        mut rows: Rows,
    ) -> Result<(u64, u64)> {
        let failed = |error: Failure| self.staging_failed(&error);
        let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
        let stream = futures::stream::poll_fn(move |context| receiver.poll_recv(context)).map(Ok);
        session.conn().map_err(failed)?.set_infile_handler(async move { Ok(stream.boxed()) });
        let feed = async move {
            let (mut count, mut bytes) = (0_u64, 0_u64);
            let mut buffer: Vec<u8> = Vec::with_capacity(CHUNK + CHUNK / 4);
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                count += batch.num_rows() as u64;
                for piece in pieces(&batch) {
                    let piece = encoder.prepare(&piece)?;
                    for row in 0..piece.rows() {
                        piece.write(row, &mut buffer)?;
                        if buffer.len() >= CHUNK {
                            bytes += buffer.len() as u64;
                            let full = std::mem::replace(&mut buffer, Vec::with_capacity(CHUNK + CHUNK / 4));
                            send_in_packets(&sender, full).await?;
                        }
                    }
                }
            }
            bytes += buffer.len() as u64;
            send_in_packets(&sender, buffer).await?;
            drop(sender);
            Ok((count, bytes))
        };
        let load = async { session.conn().map_err(failed)?.query_drop(Self::load_data(payload)).await.map_err(failed) };
        // Whoever fails first ends the other: the statement goes with its connection.
        let ((count, bytes), ()) = tokio::try_join!(feed, load)?;
        let written = changed_rows(session).map_err(failed)?;
        refuse_warnings(session, |error| self.staging_failed(error)).await.map_err(|error| self.named(error))?;
        self.must_be_all(written, count)?;
        Ok((count, bytes))
    }

    /// INSERTs of many rows each.
    async fn send_values(
        &self,
        session: &mut Session,
        payload: &Payload,
        encoder: &Encoder,
        mut rows: Rows,
    ) -> Result<(u64, u64)> {
        let packet = session.value("SELECT @@max_allowed_packet").await.map_err(|error| self.staging_failed(&error))?;
        let packet = packet.and_then(|size| size.parse().ok()).unwrap_or(CHUNK).saturating_sub(ENVELOPE);
        let begin = format!("INSERT INTO {} VALUES ", payload.in_backticks()).into_bytes();
        let most = CHUNK.min(packet / 2);
        let mut statement = begin.clone();
        let (mut count, mut bytes, mut written) = (0_u64, 0_u64, 0_u64);
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            for piece in pieces(&batch) {
                let piece = encoder.prepare(&piece)?;
                for row in 0..piece.rows() {
                    let whole = statement.len();
                    if whole > begin.len() {
                        statement.push(b',');
                    }
                    piece.write(row, &mut statement)?;
                    let size = statement.len() - whole;
                    if begin.len() + size > packet {
                        return Err(Error::new(
                            ErrorKind::Data,
                            format!(
                                "a row for `{}` is {size} bytes long, and the server takes {packet} at once",
                                self.options.table
                            ),
                        )
                        .hint("raise `max_allowed_packet` of the server, or switch on its `local_infile`"));
                    }
                    count += 1;
                    bytes += size as u64;
                    // What is there already goes first, where both are too much.
                    if statement.len() > packet && whole > begin.len() {
                        written += self.insert(session, &statement[..whole]).await?;
                        statement.drain(begin.len()..=whole);
                    }
                    if statement.len() >= most {
                        written += self.insert(session, &statement).await?;
                        statement.truncate(begin.len());
                    }
                }
            }
        }
        if statement.len() > begin.len() {
            written += self.insert(session, &statement).await?;
        }
        self.must_be_all(written, count)?;
        Ok((count, bytes))
    }

    async fn insert(&self, session: &mut Session, statement: &[u8]) -> Result<u64> {
        let failed = |error: Failure| self.staging_failed(&error);
        session.conn().map_err(failed)?.query_drop(statement).await.map_err(failed)?;
        let written = changed_rows(session).map_err(failed)?;
        refuse_warnings(session, |error| self.staging_failed(error)).await.map_err(|error| self.named(error))?;
        Ok(written)
    }

    fn must_be_all(&self, written: u64, count: u64) -> Result<()> {
        if written == count {
            return Ok(());
        }
        Err(Error::internal(format!("the server took {written} of {count} rows for `{}`", self.options.table)))
    }
}
