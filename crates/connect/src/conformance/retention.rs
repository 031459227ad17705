//! What a target that remembers loads for some time still knows, and what it has forgotten.

use super::must;
use super::sink::{NEW, OLD, Row, SinkTarget, checkpoint, expect, key, load, open, open_with, owner, stage};
use gristmill_model::spec::{LoadSpec, Strategy};
use gristmill_model::{Checkpoint, Committed, Error, LoadKey, Result, Slot};
use std::future::Future;
use std::time::Duration;

/// So short that all that has been committed before is old.
pub(super) const SHORT: Duration = Duration::from_micros(1);
/// So long that nothing is.
const LONG: Duration = Duration::from_hours(24);

/// # Errors
/// The first rule that does not hold.
pub(super) async fn suite<T, F>(fresh: &impl Fn() -> F, strategy: Strategy) -> Result<()>
where
    T: SinkTarget,
    F: Future<Output = Result<T>>,
{
    old_loads_are_forgotten_and_cursors_are_not(&fresh().await?, strategy).await?;
    let target = fresh().await?;
    // Only a database finds the rows of a load again.
    if strategy == Strategy::Append && !target.is_partitioned() {
        rows_of_a_forgotten_load_are_replaced(&target).await?;
    }
    Ok(())
}

async fn commit(
    target: &dyn SinkTarget,
    spec: &LoadSpec,
    key: &LoadKey,
    rows: &[Row],
    sequence: u64,
    remembers: Option<Duration>,
) -> Result<Committed> {
    let owner = owner("run-load");
    let sink = open_with(target, spec.clone(), key, &owner, remembers)?;
    sink.prepare().await?;
    let staged = stage(sink.as_ref(), key, &owner, rows).await?;
    let next = Checkpoint { sequence, ..checkpoint(1) };
    let committed = sink.commit(&staged, &next).await?;
    must(!committed.already, "a new key is not already there", || format!("{committed:?}"))?;
    // Whoever asks again, with or without retention, finds it.
    let again = open_with(target, spec.clone(), key, &owner, remembers)?.commit(&staged, &next).await?;
    must(again.already, "a load that has just been committed is not committed again", || format!("{again:?}"))?;
    Ok(committed)
}

async fn old_loads_are_forgotten_and_cursors_are_not(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    let spec = load(strategy, None);
    let looking = open(target, spec.clone(), &key(1, 1), &owner("run-look"))?;
    let last = async |slot: Slot| Ok::<_, Error>(looking.last(&slot).await?.map(|last| last.key.generation));
    let cursor = async || Ok::<_, Error>(looking.checkpoint(&key(1, 1).slot).await?.map(|newest| newest.sequence));
    let expect_loads = async |rule: &str, wanted: [Option<u32>; 4]| {
        let mut found = [None; 4];
        for (day, found) in (1..).zip(&mut found) {
            *found = last(key(day, 1).slot).await?;
        }
        must(found == wanted, rule, || format!("{found:?} instead of {wanted:?}"))
    };
    let mut elsewhere = key(1, 1);
    elsewhere.slot.step = "other_load".into();
    commit(target, &spec, &elsewhere, &NEW[..1], 0, None).await?;
    commit(target, &spec, &key(1, 1), &NEW[..1], 1, None).await?;
    commit(target, &spec, &key(2, 1), &NEW[..1], 2, None).await?;
    commit(target, &spec, &key(2, 2), &NEW[..1], 3, Some(LONG)).await?;
    expect_loads("what is young is remembered", [Some(1), Some(2), None, None]).await?;

    commit(target, &spec, &key(3, 1), &NEW[..1], 0, Some(SHORT)).await?;
    expect_loads("the load with the newest cursor is remembered", [None, Some(2), Some(1), None]).await?;
    must(cursor().await? == Some(3), "the newest cursor is remembered", String::new)?;
    let other = last(elsewhere.slot.clone()).await?;
    must(other == Some(1), "the newest load of another series is remembered", || format!("{other:?}"))?;

    commit(target, &spec, &key(4, 1), &NEW[..1], 4, Some(SHORT)).await?;
    expect_loads("the newest load is remembered, and old ones are not", [None, None, None, Some(1)]).await?;
    must(cursor().await? == Some(4), "the newest cursor is remembered", String::new)?;
    let swept = looking.recover(&|_| true).await?;
    must(swept.finished.is_empty() && swept.undone.is_empty(), "nothing is done anew", || format!("{swept:?}"))?;

    // The store of runs counts on; history of `scd2` does not go back.
    let before = if strategy == Strategy::Scd2 { key(4, 2) } else { key(1, 2) };
    commit(target, &spec, &before, &[], 5, Some(SHORT)).await?;
    let again = last(before.slot.clone()).await?;
    must(again == Some(2), "a slot that was forgotten is loaded again", || format!("{again:?}"))
}

async fn rows_of_a_forgotten_load_are_replaced(target: &dyn SinkTarget) -> Result<()> {
    let spec = LoadSpec { load_column: true, ..load(Strategy::Append, None) };
    commit(target, &spec, &key(1, 1), &OLD, 0, None).await?;
    commit(target, &spec, &key(2, 1), &NEW[..1], 0, Some(SHORT)).await?;
    let forgotten = open(target, spec.clone(), &key(1, 2), &owner("run-look"))?.last(&key(1, 1).slot).await?;
    must(forgotten.is_none(), "an old load is forgotten", || format!("{forgotten:?}"))?;
    commit(target, &spec, &key(1, 2), &NEW[1..], 0, Some(SHORT)).await?;
    expect(target, "a load takes the place of its earlier rows, though the ledger has forgotten them", &NEW).await
}
