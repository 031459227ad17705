//! Staging: one writer's rows into a table of its own, in one transaction that a broken writer takes with it.

use super::PostgresSink;
use super::target::Target;
use super::types::Encoder;
use crate::Rows;
use crate::sources::postgres::connect::{Session, server_error};
use crate::sources::postgres::names::{literal, quoted};
use arrow::array::RecordBatch;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use gristmill_model::fault::{self, Point};
use gristmill_model::{Error, LoadKey, OwnerId, Result, Staged, TaskKey};
use serde::{Deserialize, Serialize};
use std::pin::pin;

/// What every staging table's name begins with.
pub(crate) const PREFIX: &str = "_gristmill_stage_";
/// Rows are sent in pieces of about this many bytes.
const CHUNK: usize = 1 << 20;
/// At most so many rows are encoded at once.
const CHUNK_ROWS: usize = 8192;

/// What a staging table says about itself, as its comment: names are too short for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Label {
    /// The load.
    pub(crate) key: LoadKey,
    /// Who staged it.
    pub(crate) owner: OwnerId,
}

/// What [`Staged::payload`] holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Payload {
    /// The schema of the staging table.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) table: String,
}

impl Payload {
    pub(crate) fn of(staged: &Staged) -> Result<Self> {
        let payload: Self = serde_json::from_value(staged.payload.clone())
            .map_err(|error| Error::internal("what was staged is not of this sink").cause(error))?;
        if payload.table.starts_with(PREFIX) {
            return Ok(payload);
        }
        Err(Error::internal(format!("`{}` is not a staging table", payload.table)))
    }

    pub(crate) fn sql(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// `_gristmill_stage_<load>_<partition>_<attempt>_<owner>`, numbers in hex: at most 60 bytes.
pub(crate) fn table_name(task: &TaskKey) -> String {
    // FNV-1a of the owner, folded to 24 bits; the comment says who it really is.
    let hash = task
        .owner
        .0
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let owner = (hash >> 24) ^ (hash & 0x00ff_ffff);
    format!("{PREFIX}{}_{:x}_{:x}_{owner:06x}", task.load.short(), task.partition, task.attempt)
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
        let payload = serde_json::to_value(payload)
            .map_err(|error| Error::internal("a payload cannot be written").cause(error))?;
        Ok(Staged { task: task.clone(), rows: count, bytes, files: Vec::new(), payload })
    }

    /// Begins the transaction and makes the staging table in it.
    pub(super) async fn create(&self, session: &Session, payload: &Payload, task: &TaskKey) -> Result<()> {
        let label = Label { key: task.load.clone(), owner: task.owner.clone() };
        let label =
            serde_json::to_string(&label).map_err(|error| Error::internal("a label cannot be written").cause(error))?;
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

/// A batch in pieces that are small in rows and in bytes.
pub(super) fn pieces(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + '_ {
    let rows = batch.num_rows();
    let row_bytes = batch.get_array_memory_size() / rows.max(1);
    // Sliced batches report the memory of the whole, which only makes the pieces smaller.
    let step = (4 * CHUNK / row_bytes.max(1)).clamp(16, CHUNK_ROWS);
    (0..rows).step_by(step).map(move |from| batch.slice(from, step.min(rows - from)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDate;
    use gristmill_model::{Interval, RunId, Slot};

    #[test]
    fn the_longest_name_of_a_staging_table_is_not_cut_off() {
        let day = Interval::day(NaiveDate::from_ymd_opt(2024, 1, 15).unwrap());
        let slot = Slot { pipeline: "p".into(), step: "s".into(), interval: day, target: "t:t".to_owned() };
        let task = TaskKey {
            load: LoadKey { slot, generation: u32::MAX },
            owner: OwnerId(RunId::new("019a0000-0000-7000-8000-000000000000")),
            partition: u32::MAX,
            attempt: u32::MAX,
        };
        assert!(table_name(&task).len() <= 63, "{}", table_name(&task));
    }
}
