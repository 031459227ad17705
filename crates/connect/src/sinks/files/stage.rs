//! Staging: rows come in on the runtime, are encoded on a thread of their own, and wait for the commit.

use super::FilesSink;
use super::write::{Outputs, TaskWriter, Written};
use crate::Rows;
use arrow::array::RecordBatch;
use futures::{Stream, StreamExt};
use gristmill_model::fault::Point;
use gristmill_model::{Error, ErrorKind, Result, Staged, TaskKey};
use serde_json::Value;
use tokio::sync::mpsc;

/// Batches that wait for the encoder: one being made, one in hand.
const WAITING: usize = 2;

/// What the encoder's thread is told.
enum Message<T> {
    Write(T),
    /// Everything has come. A channel that closes without it means: give up.
    End,
}

/// Makes files of what comes, on a thread that may block.
pub(super) trait Stager: Send + 'static {
    /// What comes.
    type Item: Send + 'static;

    /// Takes more in.
    ///
    /// # Errors
    /// An output that refuses, values that cannot be encoded.
    fn write(&mut self, item: &Self::Item) -> Result<()>;

    /// Ends all files and waits until they are on the disk. Gives back the rows and the files.
    ///
    /// # Errors
    /// As [`Stager::write`].
    fn finish(self) -> Result<(u64, Vec<Written>)>;
}

impl Stager for TaskWriter {
    type Item = RecordBatch;

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        Self::write(self, batch)
    }

    fn finish(self) -> Result<(u64, Vec<Written>)> {
        Self::finish(self)
    }
}

impl FilesSink {
    pub(super) async fn stage_rows(&self, task: &TaskKey, rows: Rows) -> Result<Staged> {
        let rows = self.stamped(rows);
        let schema = rows.schema();
        if schema.fields() != self.config.rows.fields() {
            return Err(Error::internal(format!(
                "rows of {} columns were handed to a load that was opened for {}",
                schema.fields().len(),
                self.config.rows.fields().len()
            )));
        }
        self.stage_by(task, self.writer(task)?, rows).await
    }

    /// Stages what comes, by this writer.
    pub(super) async fn stage_by<W: Stager>(
        &self,
        task: &TaskKey,
        writer: W,
        mut items: impl Stream<Item = Result<W::Item>> + Send + Unpin,
    ) -> Result<Staged> {
        let (send, mut receive) = mpsc::channel(WAITING);
        let share = self.encoders.share().await;
        let encoder = tokio::task::spawn_blocking(move || {
            // Held until the writer is gone, with what it takes back.
            let _share = share;
            let mut writer = writer;
            while let Some(message) = receive.blocking_recv() {
                match message {
                    Message::Write(item) => writer.write(&item)?,
                    Message::End => return writer.finish(),
                }
            }
            // Dropping the writer takes back what it has written.
            Err(Error::new(ErrorKind::Canceled, "the load was stopped"))
        });
        let mut failed = None;
        while let Some(item) = items.next().await {
            match item {
                Ok(item) => {
                    // A closed channel means that the encoder has failed; it tells why when it is joined.
                    if send.send(Message::Write(item)).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if failed.is_none() {
            drop(send.send(Message::End).await);
        }
        drop(send);
        let encoded = encoder.await;
        if let Some(error) = failed {
            return Err(error);
        }
        let (rows, written) = encoded.map_err(|error| Error::internal("an encoder panicked").cause(error))??;
        self.faults.at(Point::AfterStage)?;
        Ok(keep(task, rows, written))
    }

    /// Stages one file without rows.
    pub(super) async fn stage_nothing(&self, task: &TaskKey) -> Result<Staged> {
        let mut writer = self.writer(task)?;
        let (rows, written) = super::place::blocking(move || {
            writer.write_nothing()?;
            writer.finish()
        })
        .await?;
        Ok(keep(task, rows, written))
    }

    fn writer(&self, task: &TaskKey) -> Result<TaskWriter> {
        TaskWriter::new(self.config.clone(), task.clone(), self.outputs(task))
    }

    /// Where a writer's files go.
    pub(super) fn outputs(&self, task: &TaskKey) -> Box<dyn Outputs> {
        let spill = self.context.open.state.join("spill");
        self.place.outputs(task, self.config.file_size, self.config.readable, spill)
    }
}

/// From here on the files wait for the commit, or for an abort.
fn keep(task: &TaskKey, rows: u64, written: Vec<Written>) -> Staged {
    let mut files = Vec::with_capacity(written.len());
    for Written { file, held } in written {
        held.keep();
        files.push(file);
    }
    let bytes = files.iter().map(|file| file.bytes).sum();
    Staged { task: task.clone(), rows, bytes, files, payload: Value::Null }
}
