//! `delete+insert`, `merge` and `scd2`: the files that hold rows of those keys are written anew, and take the place of the
//! old ones in the same entry of the log as everything else.
//!
//! ```text
//! stage    rows ─► files that nobody publishes (`_gristmill/keyed`)
//! commit   new rows ─► scratch database ◄─ rows of the table that they may meet (bounds, Bloom filter, scope)
//!            ─► what the strategy makes of them ─► new files: rows of the scratch database, and untouched ones of files
//!               that lose or change a row ─► one entry; after a rival's, all of it again
//! ```

mod codec;
mod scratch;
mod sieve;

use super::super::commit::sweep;
use super::super::output::complete;
use super::super::place::{Place, blocking};
use super::super::publish_remote::{gone, is_there};
use super::super::scope::{On, Scope};
use super::super::{FilesSink, config::Config};
use super::commit::Change;
use super::read::{self, Batches};
use super::table::Table;
use super::types::{Kind, Plain};
use super::{DeltaSink, Ready, schema};
use crate::sinks::rules::Rules;
use crate::{LoadContext, Rows};
use arrow::array::RecordBatch;
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{Field, SchemaRef};
use chrono::Utc;
use codec::Codec;
use deltalake_core::kernel::LogicalFileView;
use deltalake_core::protocol::DeltaOperation;
use futures::{StreamExt, TryStreamExt};
use gristmill_model::spec::{LoadSpec, OneOrMany, Strategy};
use gristmill_model::{Error, ErrorKind, Result, Staged, StagedFile, TaskKey};
use object_store::ObjectStoreExt;
use scratch::Scratch;
use sieve::{Seen, Sieve, may_meet};
use std::sync::Arc;

/// Where rows wait that are not published as they are, below the table.
const HELD: &str = "_gristmill/keyed";

/// What a load by key needs beside the rest.
#[derive(Debug)]
pub(super) struct ByKey {
    rules: Rules,
    /// Stages the new rows.
    held: FilesSink,
    /// All columns of the table, as the load leaves it.
    whole: SchemaRef,
    scope: Option<Scope>,
    /// Columns of the key whose bounds can be compared.
    bounded: Vec<String>,
}

/// Whether rows go by their key.
pub(super) fn is_by_key(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::DeleteInsert | Strategy::Merge | Strategy::Scd2)
}

/// The path of [`HELD`].
pub(super) fn held_path(load: &LoadSpec) -> String {
    format!("{}{HELD}/", load.path.as_deref().unwrap_or_default())
}

/// A load that writes whole files of given columns, without rules of its own.
pub(super) fn plain(load: &LoadSpec, partition_by: Vec<String>) -> LoadSpec {
    LoadSpec {
        strategy: Strategy::Append,
        partition_by: OneOrMany(partition_by),
        key: OneOrMany(Vec::new()),
        scope: None,
        load_column: false,
        created_column: None,
        updated_column: None,
        retention: None,
        ..load.clone()
    }
}

/// All columns of the table, as a load that writes `written` leaves it.
///
/// # Errors
/// A column of a type that this version does not know.
fn whole(table: &Table, written: &schema::Written) -> Result<SchemaRef> {
    let mut all: schema::Written = Vec::new();
    for column in table.columns()? {
        let kind = column.kind.ok_or_else(|| {
            let message =
                format!("the column `{}` of the Delta table is of a type that this version does not know", column.name);
            Error::new(ErrorKind::Schema, message).hint("use `strategy: append`, or load another `path`")
        })?;
        all.push((column.name, kind));
    }
    let new = written.iter().filter(|(name, _)| !all.iter().any(|(known, _)| known == name));
    let new: Vec<(String, Kind)> = new.cloned().collect();
    all.extend(new);
    Ok(schema::stored(&all))
}

impl ByKey {
    /// `stored`: the columns that come with the rows.
    pub(super) fn new(
        sink: &DeltaSink,
        load: &LoadSpec,
        table: &Table,
        written: &schema::Written,
        stored: &SchemaRef,
        rules: Rules,
    ) -> Result<Self> {
        let whole = whole(table, written)?;
        let fields: Vec<&Field> = stored.fields().iter().map(AsRef::as_ref).collect();
        let scope = load.scope.as_ref().filter(|_| !fields.is_empty());
        let scope = scope.map(|text| Scope::parse(text, &fields, On::Rows));
        let mut held = plain(load, Vec::new());
        held.path = Some(held_path(load));
        // Nobody but the commit reads these files.
        held.parquet = None;
        let context = LoadContext { schema: stored.clone(), ..sink.context.clone() };
        let mut held = FilesSink::new(&sink.store, &held, context)?;
        held.config = Arc::new(Config { statistics: true, ..held.config.as_ref().clone() });
        held.faults = sink.faults.clone();
        let partitions = table.partition_columns();
        let is_bounded = |name: &&String| {
            let kind = written.iter().find(|(known, _)| known == *name).map(|(_, kind)| kind);
            let kinds = [Plain::Byte, Plain::Short, Plain::Integer, Plain::Long, Plain::String, Plain::Date];
            !partitions.contains(name) && kinds.iter().any(|plain| kind == Some(&Kind::Plain(*plain)))
        };
        let bounded = rules.match_on.iter().filter(is_bounded).cloned().collect();
        Ok(Self { held, whole, scope: scope.transpose()?, bounded, rules })
    }

    /// The columns that the rewritten files have.
    pub(super) fn whole(&self) -> &SchemaRef {
        &self.whole
    }

    /// What stages the new rows.
    pub(super) fn held(&self) -> &FilesSink {
        &self.held
    }

    /// Whether each row is looked up by its key.
    pub(super) fn is_merge(&self) -> bool {
        self.rules.is_keyed()
    }

    /// What the log calls the load.
    pub(super) fn operation(&self) -> DeltaOperation {
        let same = self.rules.match_on.iter().map(|name| format!("target.{name} = source.{name}"));
        DeltaOperation::Merge {
            predicate: None,
            merge_predicate: Some(same.collect::<Vec<_>>().join(" AND ")),
            matched_predicates: Vec::new(),
            not_matched_predicates: Vec::new(),
            not_matched_by_source_predicates: Vec::new(),
        }
    }

    /// Waits until no encoder is at work.
    pub(super) async fn gone(&self) {
        self.held.encoders.gone().await;
    }

    /// Stages new rows where the commit can read them.
    ///
    /// # Errors
    /// Rows outside of a scope that alone says what goes: the next load of the same would not take them away, and so double
    /// them. Where they have a key, they are found by that.
    pub(super) async fn stage(&self, task: &TaskKey, rows: Rows) -> Result<Staged> {
        let rows = match self.scope.clone().filter(|_| self.rules.binding_scope().is_some()) {
            None => rows,
            Some(scope) => Rows::new(
                rows.schema(),
                rows.map(move |batch| {
                    let batch = batch?;
                    scope.check_rows(&batch)?;
                    Ok(batch)
                }),
            ),
        };
        let staged = self.held.stage_rows(task, rows).await?;
        if let Place::Remote(remote) = &self.held.place {
            for file in &staged.files {
                let path = remote.path(&file.path)?;
                if let Err(error) = complete(remote.multipart.as_ref(), &path, &file.handle).await
                    && !is_there(remote, &path, file).await?
                {
                    return Err(error);
                }
            }
        }
        Ok(staged)
    }

    async fn staged_rows(&self, file: &StagedFile) -> Result<Batches> {
        let path = match &self.held.place {
            Place::Local(_) => file.handle["temporary"].as_str().unwrap_or_default(),
            Place::Remote(_) => file.path.as_str(),
        };
        let opened = read::open(&self.held.place, path).await;
        opened.map_err(|error| if error.kind() == ErrorKind::NotFound { gone(file) } else { error })
    }

    /// Whether all of the scope goes.
    fn deletes_scope(&self) -> bool {
        self.rules.strategy == Strategy::DeleteInsert && self.scope.is_some()
    }

    fn sieve(&self, staged: &[Staged]) -> Sieve {
        Sieve {
            seen: Seen::new(staged.iter().map(|staged| staged.rows).sum()),
            scope: self.scope.clone(),
            by_key: !self.rules.match_on.is_empty(),
            by_absence: self.rules.delete_missing || self.deletes_scope(),
        }
    }

    /// The new rows in a scratch database, and what they tell rows of the table apart by.
    async fn gather(&self, staged: &[Staged]) -> Result<(Scratch, Sieve)> {
        let own = self.held.config.schema.clone();
        let codec = Arc::new(Codec::new(&self.whole, &own, &self.rules)?);
        let (folder, rules) = (self.held.context.open.state.join("spill"), self.rules.clone());
        let mut sieve = self.sieve(staged);
        let mut scratch = blocking(move || Scratch::new(&folder, codec, rules)).await?;
        for file in staged.iter().flat_map(|staged| &staged.files) {
            let mut rows = self.staged_rows(file).await?;
            while let Some(batch) = rows.try_next().await? {
                (scratch, sieve) = blocking(move || {
                    scratch.add_new(&batch)?.iter().for_each(|key| sieve.seen.add(key));
                    Ok((scratch, sieve))
                })
                .await?;
            }
        }
        Ok((scratch, sieve))
    }

    /// Looks at the keys of all that was staged.
    pub(super) async fn audit(&self, staged: &[Staged]) -> Result<()> {
        if !self.rules.is_keyed() || staged.iter().all(|staged| staged.rows == 0) {
            return Ok(());
        }
        let (scratch, _) = self.gather(staged).await?;
        blocking(move || scratch.check_keys()).await
    }
}

impl DeltaSink {
    /// What a load by key makes of the table: files that are written now, and those that they take the place of.
    pub(super) async fn change_by_key(
        &self,
        table: &Table,
        ready: &Ready,
        by_key: &ByKey,
        staged: &[Staged],
    ) -> Result<Change> {
        if whole(table, &ready.written)? != by_key.whole {
            return Err(Error::new(
                ErrorKind::Conflict,
                "the columns of the Delta table have changed while the rows were being staged",
            )
            .retryable(true)
            .hint("run the load again"));
        }
        let (mut scratch, sieve) = by_key.gather(staged).await?;
        let sieve = Arc::new(sieve);
        let codec = scratch.codec();
        let candidates = self.candidates(table, by_key, &sieve, staged)?;
        for (number, file) in (0_i64..).zip(&candidates) {
            let mut rows = read::of_table(&self.place, file, &by_key.whole).await?;
            while let Some(batch) = rows.try_next().await? {
                let (sieve, codec) = (sieve.clone(), codec.clone());
                scratch = blocking(move || {
                    let (concerns, scoped) = sieve.sort(&codec, &batch)?;
                    scratch.add_old(number, &batch, &concerns, &scoped)?;
                    Ok(scratch)
                })
                .await?;
            }
        }
        let (load, now) = (self.context.key.text(), Utc::now());
        let (scratch, touched) = blocking(move || {
            scratch.check_keys()?;
            scratch.run(&load, now)?;
            let touched = scratch.touched()?;
            Ok((scratch, touched))
        })
        .await?;
        let removed: Vec<LogicalFileView> =
            (0_i64..).zip(candidates).filter(|(number, _)| touched.contains(number)).map(|(_, file)| file).collect();
        let kept = removed.iter().map(|file| {
            let (place, file, schema) = (self.place.clone(), file.clone(), by_key.whole.clone());
            async move { read::of_table(&place, &file, &schema).await }
        });
        let kept: Vec<_> = kept.collect();
        let kept = futures::stream::iter(kept).then(|open| open).try_flatten();
        let untouched = kept.and_then(move |batch| {
            let (sieve, codec) = (sieve.clone(), codec.clone());
            blocking(move || untouched(&sieve, &codec, &batch))
        });
        let rows = untouched.chain(written(scratch)).try_filter(|batch| std::future::ready(batch.num_rows() > 0));
        let task = TaskKey {
            load: self.context.key.clone(),
            owner: self.context.owner.clone(),
            partition: 0,
            // No writer has this number, and no earlier try of this commit.
            attempt: uuid::Uuid::new_v4().as_fields().0 | (1 << 31),
        };
        let staged = ready.files.stage_rows(&task, Rows::new(by_key.whole.clone(), rows)).await?;
        Ok(Change { files: staged.files, removed })
    }

    /// The files that may hold rows which the load has to do with.
    fn candidates(
        &self,
        table: &Table,
        by_key: &ByKey,
        sieve: &Sieve,
        staged: &[Staged],
    ) -> Result<Vec<LogicalFileView>> {
        let all = table.files()?;
        if sieve.by_absence {
            return Ok(all);
        }
        let new: Vec<&StagedFile> =
            staged.iter().flat_map(|staged| &staged.files).filter(|file| file.rows > 0).collect();
        let bounded: Vec<&str> = by_key.bounded.iter().map(String::as_str).collect();
        let may = |file: &LogicalFileView| !new.is_empty() && may_meet(file.stats().as_deref(), &new, &bounded);
        Ok(all.into_iter().filter(may).collect())
    }

    /// Takes away what was staged in a folder for a commit by key. Counts files.
    pub(super) async fn sweep_held(&self, held: &Place, folder: &str) -> Result<u64> {
        if let Place::Remote(remote) = held {
            // Completed at once: there is no upload left that could be aborted.
            for (_, intent) in remote.intents(folder).await? {
                let path = remote.path(&intent.path)?;
                match remote.store.delete(&path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(crate::stores::error(error, format!("`{path}`"))),
                }
            }
        }
        sweep(held, folder, &[]).await
    }
}

/// The rows of a file that the load has nothing to do with.
fn untouched(sieve: &Sieve, codec: &Codec, batch: &RecordBatch) -> Result<RecordBatch> {
    let cut = |error| Error::internal("rows cannot be cut").cause(error);
    let (concerns, _) = sieve.sort(codec, batch)?;
    filter_record_batch(batch, &not(&concerns).map_err(cut)?).map_err(cut)
}

/// The rows that the scratch database holds for the table.
fn written(scratch: Scratch) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::try_unfold((scratch, 0), |(scratch, last)| {
        blocking(move || Ok(scratch.next(last)?.map(|(last, batch)| (batch, (scratch, last)))))
    })
}
