//! Staging where rows may be refused: each piece of rows is tried on a table like the target before it is staged, and
//! divided where the server says no, until the rows are found that it is about.
//!
//! What is tried is what a commit does with a row by itself: the casts to the target's types, their lengths and ranges, NOT
//! NULL, CHECK. Keys and foreign keys are matters of several rows, and stay errors of the whole load.

use super::PostgresSink;
use super::target::Target;
use super::types::{Encoder, staged_name};
use crate::sinks::staged_table::{Payload, table_name};
use crate::sinks::tolerant::{self, Failed};
use crate::sources::postgres::connect::{Session, server_error};
use crate::sources::postgres::names::quoted;
use crate::{RefusedRows, Rows};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use gristmill_model::fault::{self, Point};
use gristmill_model::{Error, ErrorKind, Result, Staged, TaskKey};
use std::pin::pin;

/// The piece that is being tried: of the session, gone with it.
const PIECE: &str = "pg_temp._gristmill_piece";

impl PostgresSink {
    pub(super) async fn stage_tolerantly(&self, task: &TaskKey, rows: Rows, refused: &RefusedRows) -> Result<Staged> {
        let session = Session::open(&self.config).await?;
        let target = self.target(&session).await?;
        let payload = Payload::aside(&target.schema, table_name(task));
        self.create(&session, &payload, task).await?;
        let mut trial = Trial::new(self, &session, &target, &payload).await?;
        let (count, bytes) = tolerant::stage(&mut trial, rows, refused).await?;
        fault::at(Point::StagedBytes)?;
        session.batch_execute("COMMIT").await.map_err(|error| trial.failed(&error))?;
        session.close().await;
        payload.staged(task, count, bytes)
    }
}

struct Trial<'a> {
    sink: &'a PostgresSink,
    session: &'a Session,
    /// What makes rows of the piece rows of the target, where there is one; stages them; and empties what they were tried on.
    statements: String,
}

impl<'a> Trial<'a> {
    async fn new(
        sink: &'a PostgresSink,
        session: &'a Session,
        target: &Target,
        staging: &Payload,
    ) -> Result<Trial<'a>> {
        let columns = sink.columns.iter().enumerate();
        let definitions: Vec<String> = columns.map(|(place, column)| column.definition(place)).collect();
        let mut make = vec![format!("CREATE TEMP TABLE _gristmill_piece ({}) ON COMMIT DROP", definitions.join(", "))];
        let mut statements = vec![format!("INSERT INTO {} SELECT * FROM {PIECE}", staging.sql())];
        let mut emptied = PIECE.to_owned();
        if let Some(like) = target.like(&sink.columns) {
            make.extend(like);
            // Called like the target, so that the server's words name what people know.
            let shape = format!("pg_temp.{}", quoted(&target.name));
            let there = sink.columns.iter().enumerate().filter(|(_, column)| target.has(&column.name));
            let (names, values): (Vec<String>, Vec<String>) = there
                .map(|(place, column)| (quoted(&column.name), target.expression(column, &staged_name(place))))
                .unzip();
            if !names.is_empty() {
                let (names, values) = (names.join(", "), values.join(", "));
                statements.insert(0, format!("INSERT INTO {shape} ({names}) SELECT {values} FROM {PIECE}"));
                emptied = format!("{emptied}, {shape}");
            }
        }
        statements.push(format!("TRUNCATE {emptied}; RELEASE SAVEPOINT piece"));
        session.batch_execute(&make.join("; ")).await.map_err(|error| {
            sink.refused(&error, &target.schema, &format!("cannot try rows for `{}`", sink.options.table))
        })?;
        Ok(Self { sink, session, statements: statements.join("; ") })
    }

    async fn send(&self, bytes: Bytes) -> Result<(), tokio_postgres::Error> {
        self.session.batch_execute("SAVEPOINT piece").await?;
        let copy = self.session.copy_in::<_, Bytes>(&format!("COPY {PIECE} FROM STDIN (FORMAT binary)")).await?;
        let mut copy = pin!(copy);
        copy.send(bytes).await?;
        copy.as_mut().finish().await?;
        self.session.batch_execute(&self.statements).await
    }

    fn failed(&self, error: &tokio_postgres::Error) -> Error {
        server_error(error, &self.sink.config, &format!("staging rows for `{}` failed", self.sink.options.table))
    }
}

#[async_trait]
impl tolerant::Trial for Trial<'_> {
    async fn take(&mut self, piece: &RecordBatch) -> Result<u64, Failed> {
        let mut encoder = Encoder::new(&self.sink.columns).map_err(Failed::Broken)?;
        let mut buffer = BytesMut::new();
        encoder.header(&mut buffer).map_err(Failed::Broken)?;
        encoder.batch(piece, &mut buffer).map_err(|error| match error.kind() {
            ErrorKind::Data => Failed::Refused(told(&error)),
            _ => Failed::Broken(error),
        })?;
        encoder.footer(&mut buffer).map_err(Failed::Broken)?;
        let bytes = buffer.len() as u64;
        match self.send(buffer.freeze()).await {
            Ok(()) => Ok(bytes),
            Err(error) => {
                let refusal = error.as_db_error().filter(|refusal| {
                    let code = refusal.code().code();
                    code.starts_with("22") || matches!(code, "23502" | "23514")
                });
                let Some(refusal) = refusal else { return Err(Failed::Broken(self.failed(&error))) };
                let undone = self.session.batch_execute("ROLLBACK TO SAVEPOINT piece; RELEASE SAVEPOINT piece").await;
                undone.map_err(|error| Failed::Broken(self.failed(&error)))?;
                Err(Failed::Refused(refusal.message().to_owned()))
            }
        }
    }
}

/// What is wrong with a value, without what to do about it.
fn told(error: &Error) -> String {
    error.message().to_owned()
}
