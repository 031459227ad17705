//! What every sink must do.

use super::strategies::{self, after, without};
use super::{broken, must, retention, same_rows, sorted_rows};
use crate::{LoadContext, OpenContext, Rows, Sink, SinkMode};
use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::NaiveDate;
use gristmill_model::spec::{LoadSpec, OneOrMany, Strategy};
use gristmill_model::{
    Checkpoint, Committed, Cursor, Error, ErrorKind, Interval, LoadKey, OwnerId, Result, RunId, Slot, Staged, TaskKey,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A fresh, empty target of the kind of sink under test: a new table of a new database, a new folder.
#[async_trait]
pub trait SinkTarget: Send + Sync {
    /// Folders of a project of its own; the state folder need not exist yet.
    fn folders(&self) -> OpenContext;

    /// The strategies that this kind of sink has.
    fn strategies(&self) -> Vec<Strategy>;

    /// Whether rows of one target can only be partitioned all alike (files), so that loads that meet are all given
    /// `partition_by`; tables take it with `partition_overwrite` only.
    fn is_partitioned(&self) -> bool {
        false
    }

    /// Opens a sink on this target. `load` lacks `table` and `path` (and `format`, …), which are the target's to fill
    /// in. The columns are `id: int64`, `day: utf8` and `note: utf8`.
    ///
    /// # Errors
    /// What `Connection::sink` says.
    fn sink(&self, load: LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>>;

    /// All rows that a reader of the target sees now, none where the target is not there yet; columns in any order.
    ///
    /// # Errors
    /// A target that cannot be read.
    async fn rows(&self) -> Result<Vec<RecordBatch>>;

    /// Names of everything that is staged now: side files, staging tables, temporary objects, open uploads.
    ///
    /// # Errors
    /// A target that cannot be asked.
    async fn leftovers(&self) -> Result<Vec<String>>;
}

/// Holds a sink to its contract. `fresh` makes a new, empty target each time.
///
/// # Errors
/// The first rule that does not hold, or the first error of the sink.
pub async fn sink_suite<T, F>(fresh: impl Fn() -> F) -> Result<()>
where
    T: SinkTarget,
    F: Future<Output = Result<T>>,
{
    let strategies = fresh().await?.strategies();
    for strategy in &strategies {
        let at = |error: Error| error.context(format!("strategy `{}`", strategy.as_str()));
        nothing_is_visible_before_the_commit(&fresh().await?, *strategy).await.map_err(at)?;
        an_abort_leaves_nothing(&fresh().await?, *strategy).await.map_err(at)?;
        a_failed_attempt_is_not_loaded(&fresh().await?, *strategy).await.map_err(at)?;
        only_what_the_dead_left_is_swept(&fresh().await?, *strategy).await.map_err(at)?;
        what_was_staged_is_plain_data(&fresh().await?, *strategy).await.map_err(at)?;
        last_is_the_newest_generation(&fresh().await?, *strategy).await.map_err(at)?;
        two_loads_serialise(&fresh().await?, *strategy).await.map_err(at)?;
        the_strategy_does_what_it_says(&fresh().await?, *strategy).await.map_err(at)?;
        // Only these go on from a checkpoint.
        if matches!(strategy, Strategy::Append | Strategy::DeleteInsert | Strategy::Merge | Strategy::Scd2) {
            checkpoints_follow_each_other(&fresh().await?, *strategy).await.map_err(at)?;
        }
        if matches!(strategy, Strategy::DeleteInsert | Strategy::PartitionOverwrite) {
            a_scope_is_replaced_even_by_nothing(&fresh().await?, *strategy).await.map_err(at)?;
        }
        strategies::suite(&fresh, *strategy).await.map_err(at)?;
        retention::suite(&fresh, *strategy).await.map_err(at)?;
    }
    Ok(())
}

/// A row of the suite's table; without an `id` only where a rule is about that.
pub(super) type Row = (Option<i64>, &'static str, Option<&'static str>);

pub(super) const OLD: [Row; 5] = [
    (Some(1), "2024-01-14", Some("old")),
    (Some(2), "2024-01-14", None),
    (Some(3), "2024-01-15", Some("old")),
    (Some(4), "2024-01-15", Some("it's \"old\"; -- 日本")),
    (Some(5), "2024-01-16", Some("old")),
];
pub(super) const NEW: [Row; 3] =
    [(Some(3), "2024-01-15", Some("new")), (Some(6), "2024-01-15", None), (Some(7), "2024-01-15", Some("new"))];
pub(super) const SCOPE: &str = "day = '2024-01-15'";

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("day", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
    ]))
}

fn batch(rows: &[Row]) -> Result<RecordBatch> {
    let ids: Int64Array = rows.iter().map(|row| row.0).collect();
    let days = StringArray::from_iter_values(rows.iter().map(|row| row.1));
    let notes: StringArray = rows.iter().map(|row| row.2).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(days), Arc::new(notes)])
        .map_err(|error| broken("the suite's rows", error))
}

fn rows_of(rows: &[Row]) -> Result<Rows> {
    // One row a batch, so that sinks meet more than one batch.
    let batches = rows.chunks(1).map(batch).collect::<Result<Vec<_>>>()?;
    Ok(Rows::from_batches(schema(), batches))
}

pub(super) fn load(strategy: Strategy, scope: Option<&str>) -> LoadSpec {
    let keyed = matches!(strategy, Strategy::DeleteInsert | Strategy::Merge | Strategy::Scd2);
    let by = |named: bool, column: &str| OneOrMany(if named { vec![column.to_owned()] } else { Vec::new() });
    LoadSpec {
        key: by(keyed, "id"),
        partition_by: by(strategy == Strategy::PartitionOverwrite, "day"),
        scope: scope.map(str::to_owned),
        ..LoadSpec::new("rows".into(), "target".into(), strategy)
    }
}

pub(super) fn key(day: u32, generation: u32) -> LoadKey {
    let date = NaiveDate::from_ymd_opt(2024, 1, day).unwrap_or_default();
    let slot = Slot {
        pipeline: "suite".into(),
        step: "load".into(),
        interval: Interval::day(date),
        target: "target:rows".to_owned(),
    };
    LoadKey { slot, generation }
}

pub(super) fn owner(name: &str) -> OwnerId {
    OwnerId(RunId::new(name))
}

pub(super) fn checkpoint(cursor: i64) -> Checkpoint {
    let cursor = Cursor { column: "id".to_owned(), value: Some(serde_json::json!(cursor)), ..Cursor::default() };
    Checkpoint { cursors: [("rows".to_owned(), cursor)].into(), sequence: 0 }
}

pub(super) fn open(target: &dyn SinkTarget, load: LoadSpec, key: &LoadKey, owner: &OwnerId) -> Result<Arc<dyn Sink>> {
    open_with(target, load, key, owner, None)
}

/// As [`open`], of a target that remembers loads for some time.
pub(super) fn open_with(
    target: &dyn SinkTarget,
    load: LoadSpec,
    key: &LoadKey,
    owner: &OwnerId,
    ledger_retention: Option<Duration>,
) -> Result<Arc<dyn Sink>> {
    let context = LoadContext {
        key: key.clone(),
        owner: owner.clone(),
        schema: schema(),
        source_key: vec!["id".to_owned()],
        alone: false,
        open: target.folders(),
        ledger_retention,
    };
    target.sink(load, context)
}

fn task(key: &LoadKey, owner: &OwnerId, partition: u32, attempt: u32) -> TaskKey {
    TaskKey { load: key.clone(), owner: owner.clone(), partition, attempt }
}

/// Stages `rows`, by two writers where the sink takes two.
pub(super) async fn stage(sink: &dyn Sink, key: &LoadKey, owner: &OwnerId, rows: &[Row]) -> Result<Vec<Staged>> {
    let (first, second) = match sink.mode() {
        SinkMode::Staged => rows.split_at(rows.len() / 2),
        SinkMode::Single => (rows, &rows[..0]),
    };
    let mut staged = vec![sink.stage(&task(key, owner, 0, 1), rows_of(first)?).await?];
    if sink.mode() == SinkMode::Staged {
        staged.push(sink.stage(&task(key, owner, 1, 1), rows_of(second)?).await?);
    }
    let counted: u64 = staged.iter().map(|staged| staged.rows).sum();
    must(counted == rows.len() as u64, "staged rows are counted", || format!("{counted} of {}", rows.len()))?;
    Ok(staged)
}

pub(super) async fn load_rows(
    target: &dyn SinkTarget,
    load: LoadSpec,
    key: &LoadKey,
    rows: &[Row],
) -> Result<Committed> {
    let owner = owner("run-load");
    let sink = open(target, load, key, &owner)?;
    sink.prepare().await?;
    let staged = stage(sink.as_ref(), key, &owner, rows).await?;
    let committed = sink.commit(&staged, &checkpoint(i64::from(key.generation))).await?;
    must(!committed.already, "a new key is not already there", || format!("{committed:?}"))?;
    must(committed.key == *key, "a commit answers with its key", || format!("{committed:?}"))?;
    must(committed.rows == rows.len() as u64, "a commit counts its rows", || format!("{committed:?}"))?;
    Ok(committed)
}

pub(super) async fn expect(target: &dyn SinkTarget, rule: &str, wanted: &[Row]) -> Result<()> {
    let wanted = if wanted.is_empty() { Vec::new() } else { sorted_rows(&[batch(wanted)?])? };
    same_rows(rule, &wanted, &seen(target, &schema()).await?)
}

/// The rows of the target as texts, with the columns and types of `schema`.
pub(super) async fn seen(target: &dyn SinkTarget, schema: &SchemaRef) -> Result<Vec<String>> {
    let mut got = Vec::new();
    for seen in target.rows().await? {
        let columns = schema
            .fields()
            .iter()
            .map(|field| {
                let column = seen
                    .column_by_name(field.name())
                    .ok_or_else(|| broken("no column is lost", format!("`{}` is", field.name())))?;
                cast(column, field.data_type()).map_err(|error| broken("values keep their meaning", error))
            })
            .collect::<Result<Vec<_>>>()?;
        got.push(RecordBatch::try_new(schema.clone(), columns).map_err(|error| broken("columns are whole", error))?);
    }
    sorted_rows(&got)
}

async fn expect_no_leftovers(target: &dyn SinkTarget, rule: &str) -> Result<()> {
    // A writer that was dropped in the middle may need a moment to notice.
    let mut left = target.leftovers().await?;
    for _ in 0..100 {
        if left.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        left = target.leftovers().await?;
    }
    Err(broken(rule, format!("{left:?} remain")))
}

/// Puts the old rows there, by a load of another slot.
pub(super) async fn fill(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    load_rows(target, load(strategy, None), &key(1, 1), &OLD).await?;
    expect(target, "a first load fills the target", &OLD).await
}

/// The checkpoint of a load is found by the loads of other intervals, and one that was read from an older one is refused.
async fn checkpoints_follow_each_other(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    let owner = owner("run-a");
    let at = |sequence: u64| Checkpoint { sequence, ..checkpoint(i64::try_from(sequence).unwrap_or_default()) };
    let newest = |found: Option<Checkpoint>, wanted: Option<&Checkpoint>| {
        must(found.as_ref() == wanted, "the newest checkpoint is found", || format!("{found:?} instead of {wanted:?}"))
    };
    let first = open(target, load(strategy, None), &key(15, 1), &owner)?;
    newest(first.checkpoint(&key(15, 1).slot).await?, None)?;
    first.prepare().await?;
    let staged = stage(first.as_ref(), &key(15, 1), &owner, &OLD).await?;
    first.commit(&staged, &at(1)).await?;

    // Two that go on from it, for an earlier and a later day.
    let (early, late) = (key(14, 1), key(16, 1));
    let one = open(target, load(strategy, None), &late, &owner)?;
    let other = open(target, load(strategy, None), &early, &owner)?;
    newest(other.checkpoint(&early.slot).await?, Some(&at(1)))?;
    let staged_one = stage(one.as_ref(), &late, &owner, &NEW).await?;
    let staged_other = stage(other.as_ref(), &early, &owner, &NEW).await?;
    one.commit(&staged_one, &at(2)).await?;
    let refused = other.commit(&staged_other, &at(2)).await.err();
    must(
        refused.as_ref().is_some_and(|error| error.kind() == ErrorKind::Conflict),
        "a checkpoint that does not follow the newest one is refused",
        || format!("{refused:?}"),
    )?;
    expect(target, "a refused commit publishes nothing", &after(strategy, &OLD, &NEW)).await?;
    other.abort(&early).await?;

    // Loads of another step have cursors of their own, and those without a cursor change nothing.
    let mut elsewhere = key(15, 1).slot;
    elsewhere.step = "other_load".into();
    newest(one.checkpoint(&elsewhere).await?, None)?;
    let plain = key(17, 1);
    let without = open(target, load(strategy, None), &plain, &owner)?;
    let staged = stage(without.as_ref(), &plain, &owner, &NEW[..1]).await?;
    without.commit(&staged, &Checkpoint::default()).await?;
    newest(without.checkpoint(&plain.slot).await?, Some(&at(2)))?;

    // A series of loads without a cursor is told from one that has not begun.
    let alone = LoadKey { slot: Slot { step: "without".into(), ..key(18, 1).slot }, generation: 1 };
    let without = open(target, load(strategy, None), &alone, &owner)?;
    newest(without.checkpoint(&alone.slot).await?, None)?;
    let staged = stage(without.as_ref(), &alone, &owner, &NEW[..1]).await?;
    without.commit(&staged, &Checkpoint::default()).await?;
    newest(without.checkpoint(&alone.slot).await?, Some(&Checkpoint::default()))
}

async fn nothing_is_visible_before_the_commit(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    let (key, owner) = (key(15, 1), owner("run-a"));
    let sink = open(target, load(strategy, None), &key, &owner)?;
    sink.prepare().await?;
    expect(target, "`prepare` shows nothing", &[]).await?;
    let staged = stage(sink.as_ref(), &key, &owner, &OLD).await?;
    expect(target, "staged rows are not visible", &[]).await?;
    must(sink.last(&key.slot).await?.is_none(), "a staged load is not the last load", || "it is".to_owned())?;

    let first = sink.commit(&staged, &checkpoint(7)).await?;
    must(!first.already && first.rows == 5, "a commit counts its rows", || format!("{first:?}"))?;
    expect(target, "a commit publishes every row", &OLD).await?;

    let again = sink.commit(&staged, &checkpoint(7)).await?;
    must(again.already, "a key that is already there is said to be", || format!("{again:?}"))?;
    must(again.rows == first.rows, "a second commit knows the first one's rows", || format!("{again:?}"))?;
    expect(target, "committing a key twice changes nothing", &OLD).await?;

    // Another process that does not know how the commit ended asks again, with nothing or all in hand.
    let other = open(target, load(strategy, None), &key, &owner)?;
    must(other.commit(&staged, &checkpoint(7)).await?.already, "another process learns the outcome", String::new)?;
    other.abort(&key).await?;
    expect(target, "aborting a committed key changes nothing", &OLD).await?;
    let last = other.last(&key.slot).await?;
    must(last.is_some_and(|last| last.key == key), "a committed key stays in the ledger after abort", String::new)?;
    expect_no_leftovers(target, "a committed load leaves nothing staged").await
}

async fn an_abort_leaves_nothing(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    fill(target, strategy).await?;
    let (key, owner) = (key(15, 1), owner("run-a"));
    let sink = open(target, load(strategy, None), &key, &owner)?;
    stage(sink.as_ref(), &key, &owner, &NEW).await?;
    sink.abort(&key).await?;
    expect(target, "an abort leaves the old rows alone", &OLD).await?;
    expect_no_leftovers(target, "an abort leaves nothing staged").await?;
    sink.abort(&key).await?;
    must(sink.last(&key.slot).await?.is_none(), "an aborted load is not the last load", String::new)?;
    // The same key can be staged again.
    let staged = stage(sink.as_ref(), &key, &owner, &NEW).await?;
    sink.commit(&staged, &checkpoint(1)).await?;
    expect(target, "an aborted key can be loaded after all", &after(strategy, &OLD, &NEW)).await
}

async fn a_failed_attempt_is_not_loaded(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    let (key, owner) = (key(15, 1), owner("run-a"));
    let sink = open(target, load(strategy, None), &key, &owner)?;
    let torn = vec![Ok(batch(&OLD[..2])?), Err(Error::internal("torn by the suite"))];
    let failed = sink.stage(&task(&key, &owner, 0, 1), Rows::new(schema(), futures::stream::iter(torn))).await;
    match failed {
        Ok(staged) => return Err(broken("an error of the rows fails the stage", format!("{staged:?}"))),
        Err(error) => {
            must(error.to_string().contains("torn by the suite"), "the rows' error is the stage's", || {
                error.to_string()
            })?;
        }
    }
    // A writer that is dropped in the middle: rows, then silence.
    let endless = futures::StreamExt::chain(
        futures::stream::iter(vec![Ok(batch(&OLD[..2])?)]),
        futures::stream::pending::<Result<RecordBatch>>(),
    );
    let second = task(&key, &owner, 0, 2);
    let dropped = sink.stage(&second, Rows::new(schema(), endless));
    if tokio::time::timeout(Duration::from_millis(200), dropped).await.is_ok() {
        return Err(broken("a stage waits for the end of its rows", "it did not"));
    }
    let staged = vec![sink.stage(&task(&key, &owner, 0, 3), rows_of(&OLD)?).await?];
    sink.commit(&staged, &checkpoint(1)).await?;
    expect(target, "only the attempt that was committed is loaded", &OLD).await?;
    sink.abort(&key).await?;
    expect(target, "sweeping failed attempts leaves committed rows", &OLD).await?;
    expect_no_leftovers(target, "what failed attempts left is found by the load's key").await
}

async fn only_what_the_dead_left_is_swept(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    let (a_key, a, b) = (key(15, 1), owner("run-a"), owner("run-b"));
    let alive = open(target, load(strategy, None), &a_key, &a)?;
    let staged = stage(alive.as_ref(), &a_key, &a, &OLD).await?;
    drop(alive);

    let b_key = key(16, 1);
    let other = open(target, load(strategy, None), &b_key, &b)?;
    let recovered = other.recover(&|_| false).await?;
    must(recovered.swept == 0, "nothing of a living owner is swept", || format!("{recovered:?}"))?;
    let survivor = open(target, load(strategy, None), &a_key, &a)?;
    survivor.commit(&staged, &checkpoint(1)).await?;
    expect(target, "a load that outlived a recovery is whole", &OLD).await?;
    other.recover(&|owner| *owner == a).await?;
    expect(target, "recovery leaves what was committed", &OLD).await?;

    let next = key(15, 2);
    let dying = open(target, load(strategy, None), &next, &a)?;
    stage(dying.as_ref(), &next, &a, &NEW).await?;
    drop(dying);
    let recovered = other.recover(&|owner| *owner == a).await?;
    must(recovered.swept > 0, "what a dead owner staged is swept and counted", || format!("{recovered:?}"))?;
    expect(target, "what a dead owner staged never shows", &OLD).await?;
    expect_no_leftovers(target, "recovery leaves nothing of the dead").await?;
    let again = other.recover(&|owner| *owner == a).await?;
    must(again.swept == 0, "recovery is finished once it is finished", || format!("{again:?}"))
}

async fn what_was_staged_is_plain_data(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    let (key, owner) = (key(15, 1), owner("run-a"));
    let staging = open(target, load(strategy, None), &key, &owner)?;
    let staged = stage(staging.as_ref(), &key, &owner, &OLD).await?;
    drop(staging);
    let text = serde_json::to_string(&staged).map_err(|error| broken("`Staged` is plain data", error))?;
    let staged: Vec<Staged> = serde_json::from_str(&text).map_err(|error| broken("`Staged` is plain data", error))?;
    let committing = open(target, load(strategy, None), &key, &owner)?;
    committing.commit(&staged, &checkpoint(1)).await?;
    expect(target, "another process commits what this one staged", &OLD).await
}

async fn last_is_the_newest_generation(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    let looking = open(target, load(strategy, None), &key(15, 1), &owner("run-a"))?;
    must(looking.last(&key(15, 1).slot).await?.is_none(), "a fresh target knows no load", String::new)?;
    for generation in [1, 2, 10] {
        let key = key(15, generation);
        load_rows(target, load(strategy, None), &key, &NEW).await?;
        let last = looking.last(&key.slot).await?.ok_or_else(|| broken("a load can be asked for", "none"))?;
        must(last.key == key, "the last load is the newest generation", || format!("{last:?}"))?;
        must(last.rows == 3, "the last load knows its rows", || format!("{last:?}"))?;
        let wanted = checkpoint(i64::from(generation));
        must(last.checkpoint == wanted, "the checkpoint is kept with the load", || format!("{last:?}"))?;
    }
    must(looking.last(&key(16, 1).slot).await?.is_none(), "another slot knows nothing of it", String::new)?;
    if strategy != Strategy::Append {
        expect(target, "a new generation applies the strategy again", &NEW).await?;
    }
    Ok(())
}

async fn two_loads_serialise(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    let (left, right) = ((key(15, 1), owner("run-a")), (key(16, 1), owner("run-b")));
    let (left_rows, right_rows) = ([OLD[0], OLD[1]], [OLD[2], OLD[3], OLD[4]]);
    let first = open(target, load(strategy, None), &left.0, &left.1)?;
    let second = open(target, load(strategy, None), &right.0, &right.1)?;
    let first_staged = stage(first.as_ref(), &left.0, &left.1, &left_rows).await?;
    let second_staged = stage(second.as_ref(), &right.0, &right.1, &right_rows).await?;
    let (one, two) = (checkpoint(1), checkpoint(2));
    let (first_done, second_done) =
        futures::join!(first.commit(&first_staged, &one), second.commit(&second_staged, &two));
    must(!first_done?.already && !second_done?.already, "two keys are two loads", String::new)?;
    for key in [&left.0, &right.0] {
        must(first.last(&key.slot).await?.is_some(), "neither of two rivals is lost", || key.text())?;
    }
    if !matches!(strategy, Strategy::Replace | Strategy::TruncateInsert) {
        return expect(target, "neither of two rivals loses rows", &OLD).await;
    }
    // One of them came last, whole.
    match expect(target, "the later of two rivals is whole", &left_rows).await {
        Ok(()) => Ok(()),
        Err(_) => expect(target, "the later of two rivals is whole", &right_rows).await,
    }
}

async fn the_strategy_does_what_it_says(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    fill(target, strategy).await?;
    load_rows(target, load(strategy, None), &key(15, 1), &NEW).await?;
    let now = after(strategy, &OLD, &NEW);
    expect(target, "a second load meets the old rows as its strategy says", &now).await?;
    load_rows(target, load(strategy, None), &key(16, 1), &[]).await?;
    let now = after(strategy, &now, &[]);
    expect(target, "an empty load does what its strategy says", &now).await?;
    // No writer at all: a plan without units.
    let (key, owner) = (key(17, 1), owner("run-none"));
    let sink = open(target, load(strategy, None), &key, &owner)?;
    let committed = sink.commit(&[], &checkpoint(1)).await?;
    must(committed.rows == 0 && !committed.already, "a load without writers is a load", || format!("{committed:?}"))?;
    expect(target, "a load without writers is an empty load", &after(strategy, &now, &[])).await
}

async fn a_scope_is_replaced_even_by_nothing(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    fill(target, strategy).await?;
    load_rows(target, load(strategy, Some(SCOPE)), &key(15, 1), &NEW).await?;
    let outside = without(&OLD, |row| row.1 == "2024-01-15");
    let mut now = outside.clone();
    now.extend_from_slice(&NEW);
    expect(target, "a scope is replaced by the new rows", &now).await?;
    load_rows(target, load(strategy, Some(SCOPE)), &key(15, 2), &[]).await?;
    expect(target, "a scope is replaced by nothing", &outside).await
}
