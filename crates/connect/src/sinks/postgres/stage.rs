//! Staging: one writer's rows into a table of its own, in one transaction that a broken writer takes with it.

use super::PostgresSink;
use super::target::Target;
use super::types::Encoder;
use crate::Rows;
use crate::sinks::staged_table::{CHUNK, Label, Payload, pieces, table_name};
use crate::sources::postgres::connect::{Session, server_error};
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
        let schema = Target::schema(&session, &self.config, &self.options).await?;
        let payload = Payload { schema, table: table_name(task) };
        self.create(&session, &payload, task).await?;

        let failed =
            |error| server_error(&error, &self.config, &format!("staging rows for `{}` failed", self.options.table));
        // The table is of this transaction, so its rows can be written as settled at once (FREEZE).
        let statement = format!("COPY {} FROM STDIN (FORMAT binary, FREEZE)", payload.sql());
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
        session.batch_execute("COMMIT").await.map_err(failed)?;
        session.close().await;
        payload.staged(task, count, bytes)
    }

    /// Begins the transaction and makes the staging table in it.
    pub(super) async fn create(&self, session: &Session, payload: &Payload, task: &TaskKey) -> Result<()> {
        let label = Label { key: task.load.clone(), owner: task.owner.clone() }.text()?;
        let columns: Vec<String> =
            self.columns.iter().enumerate().map(|(place, column)| column.definition(place)).collect();
        let table = payload.sql();
        // Unlogged: a server that crashes empties it, which the commit notices by the number of rows.
        let sql = format!(
            "BEGIN; DROP TABLE IF EXISTS {table}; CREATE UNLOGGED TABLE {table} ({}) WITH (autovacuum_enabled = false); \
             COMMENT ON TABLE {table} IS {}",
            columns.join(", "),
            literal(&label)
        );
        fault::at(Point::BeforeIntent)?;
        session.batch_execute(&sql).await.map_err(|error| {
            self.refused(&error, &payload.schema, &format!("cannot stage rows in the schema `{}`", payload.schema))
        })?;
        fault::at(Point::AfterIntent)
    }
}
