//! What becomes of rows that lie outside of the `scope` that their load answers for.
//!
//! Where the scope is what old rows are found by, such a row would be there twice after the next run, or take its whole partition
//! along: it is refused. Where rows are found by their key, it is a row like any other, however often it is loaded.

use super::sink::{
    NEW, OLD, Row, SCOPE, SinkTarget, checkpoint, expect, fill, key, load, load_rows, open, owner, stage,
};
use super::strategies::{after, refused, without};
use super::{broken, must};
use gristmill_model::spec::{LoadSpec, Strategy};
use gristmill_model::{Error, ErrorKind, Result};
use std::future::Future;

/// Rows of which one lies outside of the scope.
const STRAY: [Row; 3] = [NEW[0], (Some(8), "2024-01-16", Some("stray")), NEW[2]];

/// Holds a sink to what loads promise of rows outside of their scope, for each of its strategies that takes one. `fresh` makes a
/// new, empty target each time.
///
/// # Errors
/// The first rule that does not hold, or the first error of the sink.
pub async fn scope_suite<T, F>(fresh: impl Fn() -> F) -> Result<()>
where
    T: SinkTarget,
    F: Future<Output = Result<T>>,
{
    for strategy in fresh().await?.strategies() {
        let at = |error: Error| error.context(format!("strategy `{}`", strategy.as_str()));
        match strategy {
            Strategy::DeleteInsert => {
                a_stray_row_is_refused(&fresh().await?, strategy, false).await.map_err(at)?;
                a_stray_row_is_refused(&fresh().await?, strategy, true).await.map_err(at)?;
                what_a_scope_says_nothing_of_is_outside(&fresh().await?).await.map_err(at)?;
                a_stray_row_goes_by_its_key(&fresh().await?, strategy).await.map_err(at)?;
            }
            Strategy::PartitionOverwrite => {
                a_stray_row_is_refused(&fresh().await?, strategy, false).await.map_err(at)?;
                a_stray_row_is_refused(&fresh().await?, strategy, true).await.map_err(at)?;
            }
            Strategy::Merge | Strategy::Scd2 => {
                a_stray_row_goes_by_its_key(&fresh().await?, strategy).await.map_err(at)?;
            }
            Strategy::Append | Strategy::Replace | Strategy::TruncateInsert => {}
        }
    }
    Ok(())
}

/// A load whose old rows are found by its scope.
fn scoped(strategy: Strategy, scope: &str) -> LoadSpec {
    let mut spec = load(strategy, Some(scope));
    spec.key.0.clear();
    spec
}

/// Stages rows of which some lie outside, and sees them refused wherever that is told first; nothing may be loaded.
async fn expect_refused(target: &dyn SinkTarget, spec: LoadSpec, rows: &[Row], words: &[&str]) -> Result<()> {
    let (key, owner) = (key(15, 1), owner("run-stray"));
    let scope = spec.scope.clone().unwrap_or_default();
    let words: Vec<&str> = ["outside of the scope", scope.as_str()].into_iter().chain(words.iter().copied()).collect();
    let sink = open(target, spec, &key, &owner)?;
    sink.prepare().await?;
    match stage(sink.as_ref(), &key, &owner, rows).await {
        Ok(staged) => {
            let rule = "rows outside of the scope are found before the commit";
            refused(sink.audit(&staged).await, ErrorKind::Data, rule, &words)?;
            let outcome = sink.commit(&staged, &checkpoint(1)).await;
            refused(outcome, ErrorKind::Data, "rows outside of the scope are refused by the commit as well", &words)?;
        }
        // Some targets sort rows into their partitions as they come, and know no single row afterwards.
        Err(error) => {
            let outcome: Result<()> = Err(error);
            refused(outcome, ErrorKind::Data, "rows outside of the scope are refused", &words[..2])?;
        }
    }
    sink.abort(&key).await?;
    must(sink.last(&key.slot).await?.is_none(), "a refused load is not in the ledger", String::new)
}

async fn a_stray_row_is_refused(target: &dyn SinkTarget, strategy: Strategy, is_there: bool) -> Result<()> {
    let old: &[Row] = if is_there { &OLD } else { &[] };
    if is_there {
        fill(target, strategy).await?;
    }
    expect_refused(target, scoped(strategy, SCOPE), &STRAY, &[]).await?;
    expect(target, "a refused load changes nothing", old).await?;

    let mut now = without(old, |row| row.1 == NEW[0].1);
    now.extend_from_slice(&NEW);
    for generation in 1..3 {
        let (key, owner) = (key(15, generation), owner("run-kept"));
        let sink = open(target, scoped(strategy, SCOPE), &key, &owner)?;
        sink.prepare().await?;
        let staged = stage(sink.as_ref(), &key, &owner, &NEW).await?;
        sink.audit(&staged).await?;
        sink.commit(&staged, &checkpoint(1)).await?;
        expect(target, "rows of the scope take the place of its rows, however often", &now).await?;
    }
    Ok(())
}

async fn what_a_scope_says_nothing_of_is_outside(target: &dyn SinkTarget) -> Result<()> {
    fill(target, Strategy::DeleteInsert).await?;
    // Of a row without a note it is neither true nor false: it would not be deleted.
    expect_refused(target, scoped(Strategy::DeleteInsert, "note = 'new'"), &NEW, &[]).await?;
    expect(target, "a refused load changes nothing", &OLD).await
}

async fn a_stray_row_goes_by_its_key(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    fill(target, strategy).await?;
    let rows = [NEW[0], NEW[1], (Some(5), "2024-01-16", Some("stray")), (Some(8), "2024-01-17", None)];
    let now = match strategy {
        Strategy::Scd2 => after(strategy, &OLD, &rows),
        Strategy::DeleteInsert | Strategy::Merge => {
            let mut now = vec![OLD[0], OLD[1]];
            now.extend_from_slice(&rows);
            now
        }
        _ => return Err(broken("the suite asks this of what goes by a key", strategy.as_str())),
    };
    let spec = || LoadSpec { delete_missing: strategy != Strategy::DeleteInsert, ..load(strategy, Some(SCOPE)) };
    for generation in 1..3 {
        load_rows(target, spec(), &key(15, generation), &rows).await?;
        expect(target, "a row outside of the scope is there once, however often it is loaded", &now).await?;
    }
    Ok(())
}
