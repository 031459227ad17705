//! The exchange: one entry in the target's log, if all files are what they were.

use super::super::FilesSink;
use super::super::commit::{MOST_TRIES, give_way};
use super::super::log::{Decision, Entry, Log};
use super::plan::Small;
use super::sized;
use chrono::Utc;
use gristmill_model::{Checkpoint, Error, ErrorKind, Result, StagedFile};

impl FilesSink {
    /// Decides that `staged` takes the place of `old`; `None` when one of these is not what it was.
    pub(super) async fn commit_compaction(
        &self,
        staged: gristmill_model::Staged,
        old: &[Small],
    ) -> Result<Option<Vec<StagedFile>>> {
        let _lock = self.place.lock().await?;
        for attempt in 0..MOST_TRIES {
            let log = Log::list(&self.place).await?;
            // As before any entry: one that publishes what is gone could never be made true, and would stop every later load.
            self.stop_if_given_up(&log, std::slice::from_ref(&staged)).await?;
            self.check_staged(&staged.files.iter().collect::<Vec<_>>()).await?;
            self.roll_all_forward(&log).await?;
            let present = sized(&self.place).await?;
            if !old.iter().all(|file| present.contains(file)) {
                return Ok(None);
            }
            // What was known of the files is known of them afterwards.
            let before = log.newest_load(&self.place).await?.map(|(_, entry)| entry);
            let (columns, shape) = before.map(|entry| (entry.columns, entry.shape)).unwrap_or_default();
            let entry = Entry {
                decision: Decision::Publish,
                key: self.context.key.clone(),
                owner: self.context.owner.clone(),
                // Rows only move: no strategy is applied.
                strategy: None,
                publish: staged.files.clone(),
                remove: old.iter().map(|file| file.path.clone()).collect(),
                columns,
                shape,
                checkpoint: Checkpoint::default(),
                rows: staged.rows,
                at: Utc::now(),
            };
            if self.decide(&log, &entry, std::slice::from_ref(&staged)).await?.is_some() {
                return Ok(Some(entry.publish));
            }
            give_way(attempt).await;
        }
        Err(Error::new(ErrorKind::Conflict, format!("`{}` is being written by others all the time", self.config.path))
            .retryable(true)
            .hint("run `gristmill compact` again when the others are done"))
    }
}
