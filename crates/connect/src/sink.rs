//! The sink contract: stage (repeatable), commit (idempotent), abort, recover.

use crate::{OpenContext, Rows};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use gristmill_model::{Checkpoint, Committed, KeptRows, LoadKey, OwnerId, Result, Slot, Staged, TaskKey};
use std::fmt;
use std::sync::Arc;

/// What a sink is opened for.
#[derive(Debug, Clone)]
pub struct LoadContext {
    /// The load.
    pub key: LoadKey,
    /// Who does it.
    pub owner: OwnerId,
    /// The columns and types of the rows, and comments for new columns of the target ([`crate::with_comments_of`]): the rows
    /// themselves come without. None at all where nothing will be staged: the sink is opened to abort or
    /// recover, and has nothing to say about columns then.
    pub schema: SchemaRef,
    /// The primary key of the source, where it is known; what `key:` defaults to.
    pub source_key: Vec<String>,
    /// Whether no other load of the run is published with this one. Then it may be written into a transaction that the commit
    /// ends: if the process dies before, nothing else has been published either.
    pub alone: bool,
    /// Folders of the project.
    pub open: OpenContext,
    /// How long the target remembers loads of this kind; for ever where there is none. Whoever commits drops what is older, but for
    /// what [`Sink::last`] and [`Sink::checkpoint`] have to answer.
    pub ledger_retention: Option<std::time::Duration>,
}

/// Something rows are written to.
///
/// Nothing that `stage` does is visible to a reader of the target. `commit` publishes all of it or nothing (DESIGN.md
/// names what each kind of target can promise to a concurrent reader), together with the checkpoint, and doing it
/// twice is a no-op. Only the runner calls `commit`.
#[async_trait]
pub trait Sink: fmt::Debug + Send + Sync {
    /// Whether many writers may stage at once.
    fn mode(&self) -> SinkMode;

    /// Looks whether the rows can be loaded at all, before any is read: the target is writable, the columns fit, the
    /// strategy works here. Creates nothing that a reader can see.
    ///
    /// # Errors
    /// A column or type that does not fit, a target that is read-only or not there.
    async fn prepare(&self) -> Result<()>;

    /// What the commit will change in the target beside its rows, for people: ``adds the column `x` to `orders` ``. Asked
    /// after [`Sink::prepare`].
    ///
    /// # Errors
    /// A target that cannot be asked.
    async fn changes(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Whether it can tell which rows the target would refuse, and go on without them ([`Rows::refused`]): values that do not
    /// fit a column, NULLs where none may be, rows that break a CHECK.
    fn tells_refused_rows(&self) -> bool {
        false
    }

    /// Which rows should come to the same one of `writers` writers, where it is worth sorting them out. None where anybody may
    /// stage any row.
    fn grouping(&self, writers: usize) -> Option<Grouping> {
        let _ = writers;
        None
    }

    /// Writes one writer's rows aside. An attempt that fails leaves nothing but what `abort` finds by its load key. Where
    /// `rows` say where refused ones go ([`Rows::refused`]), those are sent there, and are not among the rows that are staged.
    ///
    /// # Errors
    /// The first error of `rows`, or of the target.
    async fn stage(&self, task: &TaskKey, rows: Rows) -> Result<Staged>;

    /// Looks at what all writers have staged together, as far as a commit would refuse it (two rows with one key, say):
    /// asked before any load of the run is committed. Changes nothing; the commit looks again.
    ///
    /// # Errors
    /// What the commit would refuse, naming an example.
    async fn audit(&self, staged: &[Staged]) -> Result<()> {
        let _ = staged;
        Ok(())
    }

    /// Makes what was staged readable, where a check has failed and it is not going to be published: it stays where no reader
    /// of the target looks, until `abort` or a recovery throws it away. None where it cannot be read.
    ///
    /// # Errors
    /// A target that cannot be asked.
    async fn keep(&self, staged: &[Staged]) -> Result<Option<KeptRows>> {
        let _ = staged;
        Ok(None)
    }

    /// Publishes what was staged, and the checkpoint, under the load's key. A key that is already there is a no-op.
    ///
    /// # Errors
    /// A target that refuses; nothing is published then, or [`Sink::recover`] can finish it.
    async fn commit(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed>;

    /// The newest load of a slot, as the target knows it.
    ///
    /// # Errors
    /// A target that cannot be asked.
    async fn last(&self, slot: &Slot) -> Result<Option<Committed>>;

    /// The newest checkpoint of the loads that differ from `slot` in their interval at most: the one with the greatest
    /// [`Checkpoint::sequence`]. The default one where all of them were without a cursor; none where there are no loads.
    ///
    /// [`Sink::commit`] looks at it, too: a `next` with a sequence is only committed right after the one before it.
    ///
    /// # Errors
    /// A target that cannot be asked.
    async fn checkpoint(&self, slot: &Slot) -> Result<Option<Checkpoint>>;

    /// Throws away what `key` has staged, committed loads excepted.
    ///
    /// # Errors
    /// A target that cannot be asked.
    async fn abort(&self, key: &LoadKey) -> Result<()>;

    /// Finishes what a dead owner had begun to publish, and throws away what it had only staged. Owners for which
    /// `is_dead` says no are left alone. (`for<'a>` is written out since `async_trait` would tie an elided lifetime to
    /// the call, and no owner found on the way lives that long.)
    ///
    /// # Errors
    /// A target that cannot be asked.
    async fn recover(&self, is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync)) -> Result<Recovered>;
}

/// Numbers the rows of a batch: an array as long as the batch is, with equal values for rows that belong together.
pub type Grouping = Arc<dyn Fn(&RecordBatch) -> Result<ArrayRef> + Send + Sync>;

/// How a load reaches the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkMode {
    /// Many writers stage, one commit publishes.
    Staged,
    /// One writer only.
    Single,
}

/// What [`Sink::recover`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Loads that were finished.
    pub finished: Vec<String>,
    /// Loads that were undone.
    pub undone: Vec<String>,
    /// Staged things that were swept away.
    pub swept: u64,
}
