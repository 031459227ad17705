//! Staging where rows may be refused: each piece of rows is tried on a temporary table like the target before it is staged, and
//! divided where the server says no, until the rows are found that it is about.
//!
//! What is tried is what a commit does with a row by itself: the types of the target, their lengths and ranges, NOT NULL,
//! CHECK. Foreign keys and what is there already are matters of several rows, and stay errors of the whole load; so do two rows
//! with one key, which a piece is only divided for.

use super::MysqlSink;
use super::encode::{Encoder, Form};
use super::session::put;
use super::stage::Begun;
use super::target::Target;
use crate::sinks::staged_table::Payload;
use crate::sinks::tolerant::{self, Failed};
use crate::sources::mysql::connect::{Failure, Session};
use crate::sources::mysql::names::quoted;
use crate::{RefusedRows, Rows};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use chrono::Utc;
use gristmill_model::fault::{self, Point};
use gristmill_model::{Error, ErrorKind, Result, Staged, TaskKey};

/// Holds the piece that is being tried: of the session, gone with it.
const PIECE: &str = "_gristmill_piece";
/// Like the target, and of the session as well.
const SHAPE: &str = "_gristmill_shape";

fn failed(error: Error) -> Failed {
    match error.kind() {
        ErrorKind::Data => Failed::Refused(told(&error)),
        _ => Failed::Broken(error),
    }
}

/// What is wrong with a row: the server's words, or ours, without what to do about it.
fn told(error: &Error) -> String {
    error.cause_text().unwrap_or_else(|| error.message()).to_owned()
}

impl MysqlSink {
    pub(super) async fn stage_tolerantly(&self, task: &TaskKey, rows: Rows, refused: &RefusedRows) -> Result<Staged> {
        let Begun { mut session, target, payload, limits } = self.begin_staging(task).await?;
        let piece = Payload::aside(&payload.schema, PIECE.to_owned());
        self.make_trial(&mut session, &target, &piece).await?;
        self.begin(&mut session).await?;
        let form = if self.takes_lines(&mut session, &piece).await? { Form::Lines } else { Form::Values };
        let encoder = Encoder::new(&self.columns, limits, form);
        let mut trial = Trial {
            sink: self,
            session,
            encoder,
            stage: format!("INSERT INTO {} SELECT * FROM {}", payload.in_backticks(), piece.in_backticks()),
            try_out: self.try_out_of(&target, &piece),
            clear: [target.beside(PIECE)]
                .into_iter()
                .chain(target.existing.is_some().then(|| target.beside(SHAPE)))
                .collect(),
            piece,
        };
        let (count, bytes) = tolerant::stage(&mut trial, rows, refused).await?;
        let mut session = trial.session;
        fault::at(Point::StagedBytes)?;
        session.run("COMMIT").await.map_err(|error| self.staging_failed(&error))?;
        session.close().await;
        payload.staged(task, count, bytes)
    }

    /// The tables that rows are tried on; before the transaction, since some servers make none within one.
    async fn make_trial(&self, session: &mut Session, target: &Target, piece: &Payload) -> Result<()> {
        let mut make = vec![format!(
            "CREATE TEMPORARY TABLE {} ({}) ENGINE = InnoDB ROW_FORMAT = DYNAMIC",
            piece.in_backticks(),
            self.staged_columns(target).join(", ")
        )];
        if target.existing.is_some() {
            make.push(format!("CREATE TEMPORARY TABLE {} LIKE {}", target.beside(SHAPE), target.sql()));
            let wider: Vec<String> = target.modified().collect();
            if !wider.is_empty() {
                make.push(format!("ALTER TABLE {} {}", target.beside(SHAPE), wider.join(", ")));
            }
        }
        for sql in make {
            session.run(&sql).await.map_err(|error| {
                let doing = format!("cannot try rows for `{}`", self.options.table);
                let refused = self.refused(&error, &doing);
                let Failure::Server(server) = &error else { return refused };
                match server.code {
                    1044 => refused.hint(format!(
                        "let an administrator run: grant create temporary tables on {}.* to `{}`; or leave `on_bad_row` out",
                        quoted(self.options.database()),
                        self.config.user
                    )),
                    _ => refused.hint("leave `on_bad_row` out, and look at the rows before with `checks`"),
                }
            })?;
        }
        Ok(())
    }

    /// What makes rows of the piece rows of the target, where there is one.
    fn try_out_of(&self, target: &Target, piece: &Payload) -> Option<String> {
        target.existing.as_ref()?;
        let there = self.values(Utc::now()).into_iter().filter(|(name, _)| target.column(name).is_some());
        let (names, values): (Vec<String>, Vec<String>) = there.map(|(name, value)| (quoted(name), value)).unzip();
        (!names.is_empty()).then(|| {
            let (names, values) = (names.join(", "), values.join(", "));
            format!("INSERT INTO {} ({names}) SELECT {values} FROM {}", target.beside(SHAPE), piece.in_backticks())
        })
    }
}

struct Trial<'a> {
    sink: &'a MysqlSink,
    session: Session,
    encoder: Encoder,
    piece: Payload,
    try_out: Option<String>,
    stage: String,
    /// Tables that are empty before each piece.
    clear: Vec<String>,
}

#[async_trait]
impl tolerant::Trial for Trial<'_> {
    async fn take(&mut self, piece: &RecordBatch) -> Result<u64, Failed> {
        // Before the server hears of it: what breaks off in the middle of a statement breaks its connection.
        let prepared = self.encoder.prepare(piece).map_err(failed)?;
        let mut line = Vec::new();
        for row in 0..prepared.rows() {
            line.clear();
            prepared.write(row, &mut line).map_err(failed)?;
        }
        self.run("SAVEPOINT piece").await?;
        match self.send(piece).await {
            Ok(bytes) => {
                self.clear().await?;
                self.run("RELEASE SAVEPOINT piece").await?;
                Ok(bytes)
            }
            Err(error) => {
                let failed = failed(error);
                if matches!(failed, Failed::Refused(_)) {
                    self.run("ROLLBACK TO SAVEPOINT piece").await?;
                    self.clear().await?;
                }
                Err(failed)
            }
        }
    }
}

impl Trial<'_> {
    async fn send(&mut self, piece: &RecordBatch) -> Result<u64> {
        let rows = Rows::from_batches(piece.schema(), vec![piece.clone()]);
        let (_, bytes) = self.sink.send(&mut self.session, &self.piece, &self.encoder, rows).await?;
        for sql in self.try_out.iter().chain([&self.stage]) {
            put(&mut self.session, sql, |error| self.sink.staging_failed(error)).await?;
        }
        Ok(bytes)
    }

    async fn clear(&mut self) -> Result<(), Failed> {
        for table in self.clear.clone() {
            self.run(&format!("DELETE FROM {table}")).await?;
        }
        Ok(())
    }

    async fn run(&mut self, sql: &str) -> Result<(), Failed> {
        self.session.run(sql).await.map_err(|error| Failed::Broken(self.sink.staging_failed(&error)))
    }
}
