//! Staging: one writer's rows into a table of its own, or into the target, in one transaction that a broken writer takes with it.

use super::PostgresSink;
use super::target::Target;
use super::types::Encoder;
use crate::Rows;
use crate::sinks::staged_table::{CHUNK, Label, Payload, Way, pieces, table_name};
use crate::sources::postgres::connect::{Session, server_error, without_time_limits};
use crate::sources::postgres::names::{literal, quoted};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use gristmill_model::fault::{self, Point};
use gristmill_model::{Error, Result, Staged, TaskKey};
use std::pin::pin;

impl Payload {
    pub(crate) fn sql(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

impl PostgresSink {
    pub(super) async fn stage_rows(&self, task: &TaskKey, mut rows: Rows) -> Result<Staged> {
        let session = Session::open(&self.config).await?;
        let target = self.target(&session).await?;
        // Asked again: the target may have changed. Where the load was prepared for many writers, this is one of them.
        let way = match self.way.get() {
            Some(Way::Held | Way::Ready) => self.way_into(&session, &target).await?,
            Some(Way::Aside) | None => Way::Aside,
        };
        let payload = Payload { way, ..Payload::aside(&target.schema, table_name(task)) };
        match way {
            Way::Aside => self.create(&session, &payload, task).await?,
            Way::Ready => self.create_like(&session, &payload, task, &target).await?,
            Way::Held => self.hold(&session, &payload).await?,
        }

        let failed =
            |error| server_error(&error, &self.config, &format!("staging rows for `{}` failed", self.options.table));
        let statement = self.copy_statement(way, &payload, &target);
        let mut copy = pin!(session.copy_in::<_, Bytes>(&statement).await.map_err(failed)?);
        let mut encoder = Encoder::new(&self.columns)?;
        let mut buffer = BytesMut::with_capacity(CHUNK + CHUNK / 4);
        let (mut count, mut bytes) = (0u64, 0u64);
        encoder.header(&mut buffer)?;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            count += batch.num_rows() as u64;
            for piece in pieces(&batch) {
                encoder.batch(&piece, &mut buffer)?;
                if buffer.len() >= CHUNK {
                    bytes += buffer.len() as u64;
                    copy.send(buffer.split().freeze()).await.map_err(failed)?;
                }
            }
        }
        encoder.footer(&mut buffer)?;
        bytes += buffer.len() as u64;
        copy.send(buffer.freeze()).await.map_err(failed)?;
        let written = copy.as_mut().finish().await.map_err(failed)?;
        if written != count {
            return Err(Error::internal(format!("PostgreSQL took {written} of {count} rows")));
        }
        fault::at(Point::StagedBytes)?;
        if way == Way::Held {
            self.config.held.keep(&payload.table, &self.key, &self.owner, session);
        } else {
            session.batch_execute("COMMIT").await.map_err(failed)?;
            session.close().await;
        }
        payload.staged(task, count, bytes)
    }

    /// Begins the transaction and makes the staging table in it.
    pub(super) async fn create(&self, session: &Session, payload: &Payload, task: &TaskKey) -> Result<()> {
        let columns: Vec<String> =
            self.columns.iter().enumerate().map(|(place, column)| column.definition(place)).collect();
        // Unlogged: a server that crashes empties it, which the commit notices by the number of rows.
        let made = format!(
            "CREATE UNLOGGED TABLE {} ({}) WITH (autovacuum_enabled = false)",
            payload.sql(),
            columns.join(", ")
        );
        self.begin(session, payload, task, &made).await
    }

    /// As [`Self::create`], a table that can take the target's place: as durable as that, and like it or made as it would be.
    async fn create_like(&self, session: &Session, payload: &Payload, task: &TaskKey, target: &Target) -> Result<()> {
        let ready = Target { name: payload.table.clone(), existing: None, ..target.clone() };
        let made = match target.existing {
            Some(_) => format!("CREATE TABLE {} (LIKE {} INCLUDING ALL)", payload.sql(), target.sql()),
            None => {
                let made = ready.changes(&self.columns, &self.options).into_iter().chain(ready.comments(&self.columns));
                made.collect::<Vec<_>>().join("; ")
            }
        };
        self.begin(session, payload, task, &made).await
    }

    async fn begin(&self, session: &Session, payload: &Payload, task: &TaskKey, made: &str) -> Result<()> {
        let label = Label { key: task.load.clone(), owner: task.owner.clone() }.text()?;
        let table = payload.sql();
        let comment = format!("COMMENT ON TABLE {table} IS {}", literal(&label));
        self.announce(session, payload, &format!("BEGIN; DROP TABLE IF EXISTS {table}; {made}; {comment}")).await
    }

    /// Begins the transaction that holds the rows in the target. However long the audit takes, it is not for the server to end.
    async fn hold(&self, session: &Session, payload: &Payload) -> Result<()> {
        // An attempt that was cut off may have left its own, which this one would wait for.
        self.config.held.give_up(&self.key, &self.owner);
        let sql = format!("BEGIN ISOLATION LEVEL READ COMMITTED; {}", without_time_limits(true));
        self.announce(session, payload, &sql).await
    }

    async fn announce(&self, session: &Session, payload: &Payload, sql: &str) -> Result<()> {
        fault::at(Point::BeforeIntent)?;
        session.batch_execute(sql).await.map_err(|error| {
            self.refused(&error, &payload.schema, &format!("cannot stage rows in the schema `{}`", payload.schema))
        })?;
        fault::at(Point::AfterIntent)
    }
}
