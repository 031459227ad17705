//! What each strategy does with new and old rows: the same in every target.

use super::sink::{
    NEW, OLD, Row, SCOPE, SinkTarget, checkpoint, expect, fill, key, load, load_rows, open, owner, seen, stage,
};
use super::{must, same_rows};
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use chrono::NaiveDate;
use gristmill_model::spec::{LoadSpec, Strategy};
use gristmill_model::{Error, ErrorKind, LoadKey, Result};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

pub(super) fn without(rows: &[Row], gone: impl Fn(&Row) -> bool) -> Vec<Row> {
    rows.iter().filter(|row| !gone(row)).copied().collect()
}

/// What a second load leaves of the old rows, and then what it adds, by the strategy's definition. All versions, where
/// there is history.
pub(super) fn after(strategy: Strategy, old: &[Row], new: &[Row]) -> Vec<Row> {
    let mut rows = match strategy {
        Strategy::Append => old.to_vec(),
        Strategy::Replace | Strategy::TruncateInsert => Vec::new(),
        Strategy::DeleteInsert | Strategy::Merge => without(old, |row| new.iter().any(|new| new.0 == row.0)),
        Strategy::PartitionOverwrite => without(old, |row| new.iter().any(|new| new.1 == row.1)),
        Strategy::Scd2 => return old.iter().chain(&without(new, |row| old.contains(row))).copied().collect(),
    };
    rows.extend_from_slice(new);
    rows
}

/// A version of a row, with the days since and until when it holds.
pub(super) type Version = (Row, u32, Option<u32>);

fn history_schema() -> SchemaRef {
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("day", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
        Field::new("valid_from", instant.clone(), true),
        Field::new("valid_to", instant, true),
    ]))
}

/// The table must hold exactly these versions.
pub(super) async fn expect_history(target: &dyn SinkTarget, rule: &str, wanted: &[Version]) -> Result<()> {
    let at = |day: u32| NaiveDate::from_ymd_opt(2024, 1, day).unwrap_or_default();
    let mut texts: Vec<String> = wanted
        .iter()
        .map(|((id, day, note), from, to)| {
            let to = to.map_or_else(|| "∅".to_owned(), |to| format!("{}T00:00:00Z", at(to)));
            let id = id.map_or_else(|| "∅".to_owned(), |id| id.to_string());
            format!("{id}│{day}│{}│{}T00:00:00Z│{to}│", note.unwrap_or("∅"), at(*from))
        })
        .collect();
    texts.sort_unstable();
    same_rows(rule, &texts, &seen(target, &history_schema()).await?)
}

/// Rules of single strategies.
pub(super) async fn suite<T, F>(fresh: &impl Fn() -> F, strategy: Strategy) -> Result<()>
where
    T: SinkTarget,
    F: Future<Output = Result<T>>,
{
    stamps_tell_what_wrote_a_row(&fresh().await?, strategy).await?;
    rivals_meet_in_some_order(&fresh().await?, strategy).await?;
    match strategy {
        Strategy::Merge => {
            an_option_of_merge_does_what_it_says(&fresh().await?).await?;
            what_is_missing_goes_only_within_the_scope(&fresh().await?).await?;
        }
        Strategy::Scd2 => {
            history_is_kept(&fresh().await?).await?;
            what_vanishes_ends_only_where_that_is_asked_for(&fresh().await?).await?;
            an_interval_may_be_loaded_again(&fresh().await?).await?;
            the_past_is_not_rewritten(&fresh().await?).await?;
        }
        _ => return Ok(()),
    }
    a_key_tells_rows_apart(&fresh().await?, strategy).await?;
    a_load_without_a_key_goes_by_the_sources(&fresh().await?, strategy).await
}

pub(super) fn refused<V: std::fmt::Debug>(
    outcome: Result<V>,
    kind: ErrorKind,
    rule: &str,
    words: &[&str],
) -> Result<()> {
    let saw = || format!("{outcome:?}");
    let fits = |error: &Error| {
        let text = error.to_string();
        error.kind() == kind && words.iter().all(|word| text.contains(word))
    };
    must(outcome.as_ref().err().is_some_and(fits), rule, saw)
}

async fn stamps_tell_what_wrote_a_row(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    let stamped = || LoadSpec {
        load_column: true,
        created_column: Some("made".to_owned()),
        updated_column: Some("changed".to_owned()),
        ..load(strategy, None)
    };
    let (first, second) = (key(1, 1), key(15, 1));
    load_rows(target, stamped(), &first, &OLD).await?;
    let made_before = made(target).await?;
    load_rows(target, stamped(), &second, &NEW).await?;
    let now = after(strategy, &OLD, &NEW);
    let kept = now.len() - NEW.len();
    let mut wanted: Vec<String> = now
        .iter()
        .enumerate()
        .map(|(place, (id, _, note))| {
            // Ending a version writes it.
            let ended = strategy == Strategy::Scd2 && *id == NEW[0].0;
            let by = if place < kept && !ended { &first } else { &second };
            format!("{}│{}│{}│", id.unwrap_or_default(), note.unwrap_or("∅"), by.text())
        })
        .collect();
    wanted.sort_unstable();
    let column = |name: &str, kind: DataType| Field::new(name, kind, true);
    let schema = Schema::new(vec![
        column("id", DataType::Int64),
        column("note", DataType::Utf8),
        column(LoadSpec::LOAD_COLUMN, DataType::Utf8),
    ]);
    same_rows("a row knows the load that wrote it last", &wanted, &seen(target, &Arc::new(schema)).await?)?;
    let made_after = made(target).await?;
    if strategy == Strategy::Merge {
        for (id, (before, _)) in &made_before {
            let now = made_after.get(id).map(|(made, _)| made);
            must(now == Some(before), "a row that is merged keeps its time of creation", || format!("{id}: {now:?}"))?;
        }
    }
    for (id, (made, changed)) in made_after {
        must(made > 0 && made <= changed, "a row is created before it is changed", || {
            format!("{id}: {made} {changed}")
        })?;
    }
    Ok(())
}

/// Two loads of the same rows at once: one of them came second, and met what the first one left.
async fn rivals_meet_in_some_order(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    // History has an order of its own: what comes late may be refused.
    if strategy == Strategy::Scd2 {
        return Ok(());
    }
    fill(target, strategy).await?;
    let theirs: [Row; 2] = [(NEW[0].0, "2024-01-15", Some("theirs")), (Some(8), "2024-01-16", None)];
    let (one, other) = ((key(15, 1), owner("run-a")), (key(16, 1), owner("run-b")));
    let first = open(target, load(strategy, None), &one.0, &one.1)?;
    let second = open(target, load(strategy, None), &other.0, &other.1)?;
    let first_staged = stage(first.as_ref(), &one.0, &one.1, &NEW).await?;
    let second_staged = stage(second.as_ref(), &other.0, &other.1, &theirs).await?;
    let (begin, end) = (checkpoint(1), checkpoint(2));
    let (a, b) = futures::join!(first.commit(&first_staged, &begin), second.commit(&second_staged, &end));
    must(!a?.already && !b?.already, "two keys are two loads", String::new)?;
    let rule = "of two rivals, one met what the other left";
    match expect(target, rule, &after(strategy, &after(strategy, &OLD, &NEW), &theirs)).await {
        Ok(()) => Ok(()),
        Err(_) => expect(target, rule, &after(strategy, &after(strategy, &OLD, &theirs), &NEW)).await,
    }
}

/// When each row was created and changed, in microseconds; the first of several with one id.
async fn made(target: &dyn SinkTarget) -> Result<BTreeMap<i64, (i64, i64)>> {
    let mut made = BTreeMap::new();
    for batch in target.rows().await? {
        let numbers = |name: &str| {
            let column = batch.column_by_name(name).ok_or_else(|| Error::internal(format!("no column `{name}`")))?;
            let column = match column.data_type() {
                DataType::Timestamp(_, zone) => cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
                    .and_then(|c| cast(&c, &DataType::Int64)),
                _ => cast(column, &DataType::Int64),
            };
            column.map_err(|error| super::broken("a time is a time", error))
        };
        let (ids, created, changed) = (numbers("id")?, numbers("made")?, numbers("changed")?);
        let value = |column: &arrow::array::ArrayRef, row: usize| column.as_primitive::<Int64Type>().value(row);
        for row in 0..batch.num_rows() {
            made.entry(value(&ids, row)).or_insert((value(&created, row), value(&changed, row)));
        }
    }
    Ok(made)
}

async fn a_key_tells_rows_apart(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    fill(target, strategy).await?;
    let (key, owner) = (key(15, 1), owner("run-a"));
    let twice = [(Some(6), "2024-01-15", Some("a")), NEW[0], (Some(3), "2024-01-16", Some("b")), NEW[0]];
    let sink = open(target, load(strategy, None), &key, &owner)?;
    let staged = stage(sink.as_ref(), &key, &owner, &twice).await?;
    let words = ["3 rows", "id = 3"];
    refused(sink.audit(&staged).await, ErrorKind::Data, "two rows with one key are found before the commit", &words)?;
    let outcome = sink.commit(&staged, &checkpoint(1)).await;
    refused(outcome, ErrorKind::Data, "two rows with one key are refused, naming it", &words)?;
    sink.abort(&key).await?;

    let without = [NEW[1], (None, "2024-01-15", Some("a")), (None, "2024-01-15", Some("b"))];
    let staged = stage(sink.as_ref(), &key, &owner, &without).await?;
    let words = ["2 rows", "`id`"];
    refused(sink.audit(&staged).await, ErrorKind::Data, "rows without a key are found before the commit", &words)?;
    let outcome = sink.commit(&staged, &checkpoint(1)).await;
    refused(outcome, ErrorKind::Data, "rows without a key are refused", &words)?;
    sink.abort(&key).await?;
    expect(target, "a refused load changes nothing", &OLD).await?;
    must(sink.last(&key.slot).await?.is_none(), "a refused load is not in the ledger", String::new)?;
    let staged = stage(sink.as_ref(), &key, &owner, &NEW).await?;
    sink.audit(&staged).await?;
    sink.commit(&staged, &checkpoint(1)).await?;
    expect(target, "mended rows are loaded", &after(strategy, &OLD, &NEW)).await
}

async fn a_load_without_a_key_goes_by_the_sources(target: &dyn SinkTarget, strategy: Strategy) -> Result<()> {
    fill(target, strategy).await?;
    let mut keyless = load(strategy, None);
    keyless.key.0.clear();
    load_rows(target, keyless, &key(15, 1), &NEW).await?;
    expect(target, "the source's primary key is the key by default", &after(strategy, &OLD, &NEW)).await
}

async fn an_option_of_merge_does_what_it_says(target: &dyn SinkTarget) -> Result<()> {
    fill(target, Strategy::Merge).await?;
    let merge = || load(Strategy::Merge, None);
    load_rows(target, LoadSpec { insert_only: true, ..merge() }, &key(14, 1), &NEW).await?;
    let mut now = OLD.to_vec();
    now.extend_from_slice(&NEW[1..]);
    expect(target, "`insert_only` leaves what is there", &now).await?;

    let both = LoadSpec { insert_only: true, delete_missing: true, ..merge() };
    load_rows(target, both, &key(15, 1), &[NEW[0], OLD[0]]).await?;
    expect(target, "`insert_only` and `delete_missing` go together", &[OLD[0], OLD[2]]).await?;

    load_rows(target, LoadSpec { delete_missing: true, ..merge() }, &key(16, 1), &NEW).await?;
    expect(target, "`delete_missing` makes the table the rows", &NEW).await?;
    load_rows(target, LoadSpec { delete_missing: true, ..merge() }, &key(17, 1), &[]).await?;
    expect(target, "nothing at all is missing too", &[]).await
}

async fn what_is_missing_goes_only_within_the_scope(target: &dyn SinkTarget) -> Result<()> {
    fill(target, Strategy::Merge).await?;
    let scoped = || LoadSpec { delete_missing: true, ..load(Strategy::Merge, Some(SCOPE)) };
    load_rows(target, scoped(), &key(15, 1), &NEW).await?;
    let outside = without(&OLD, |row| row.1 == "2024-01-15");
    let mut now = outside.clone();
    now.extend_from_slice(&NEW);
    expect(target, "`delete_missing` keeps to its scope", &now).await?;
    load_rows(target, scoped(), &key(15, 2), &[]).await?;
    expect(target, "a scope may become empty", &outside).await
}

const A: Row = (Some(1), "a", Some("x"));
const A2: Row = (Some(1), "a", None);
const A3: Row = (Some(1), "b", None);
const B: Row = (Some(2), "a", Some("x"));

async fn scd2(target: &dyn SinkTarget, key: &LoadKey, rows: &[Row], delete_missing: bool) -> Result<()> {
    let spec = LoadSpec { delete_missing, ..load(Strategy::Scd2, None) };
    load_rows(target, spec, key, rows).await.map(drop)
}

async fn history_is_kept(target: &dyn SinkTarget) -> Result<()> {
    scd2(target, &key(1, 1), &[A, B], false).await?;
    expect_history(target, "a first load begins every version", &[(A, 1, None), (B, 1, None)]).await?;
    scd2(target, &key(2, 1), &[A, B], false).await?;
    expect_history(target, "what stays the same is left alone", &[(A, 1, None), (B, 1, None)]).await?;
    scd2(target, &key(3, 1), &[A2, B], false).await?;
    let now = [(A, 1, Some(3)), (A2, 3, None), (B, 1, None)];
    expect_history(target, "a value that becomes NULL is a change", &now).await?;
    scd2(target, &key(4, 1), &[A2, B], false).await?;
    expect_history(target, "NULL is the same as NULL", &now).await?;
    scd2(target, &key(5, 1), &[A3], false).await?;
    scd2(target, &key(6, 1), &[A], false).await?;
    let now = [(A, 1, Some(3)), (A2, 3, Some(5)), (A3, 5, Some(6)), (A, 6, None), (B, 1, None)];
    expect_history(target, "a row may become what it was", &now).await
}

async fn what_vanishes_ends_only_where_that_is_asked_for(target: &dyn SinkTarget) -> Result<()> {
    scd2(target, &key(1, 1), &[A, B], true).await?;
    scd2(target, &key(2, 1), &[A], false).await?;
    expect_history(target, "a row that does not come goes on", &[(A, 1, None), (B, 1, None)]).await?;
    scd2(target, &key(3, 1), &[A], true).await?;
    expect_history(target, "`delete_missing` ends what does not come", &[(A, 1, None), (B, 1, Some(3))]).await?;
    scd2(target, &key(4, 1), &[A], true).await?;
    expect_history(target, "what has ended stays ended", &[(A, 1, None), (B, 1, Some(3))]).await?;
    scd2(target, &key(5, 1), &[A, B], true).await?;
    let now = [(A, 1, None), (B, 1, Some(3)), (B, 5, None)];
    expect_history(target, "a row that comes back begins anew", &now).await?;
    let scoped = LoadSpec { delete_missing: true, ..load(Strategy::Scd2, Some("day = 'b'")) };
    load_rows(target, scoped, &key(6, 1), &[]).await?;
    expect_history(target, "`delete_missing` keeps to its scope", &now).await?;
    scd2(target, &key(7, 1), &[], true).await?;
    let now = [(A, 1, Some(7)), (B, 1, Some(3)), (B, 5, Some(7))];
    expect_history(target, "nothing at all ends everything", &now).await
}

async fn an_interval_may_be_loaded_again(target: &dyn SinkTarget) -> Result<()> {
    scd2(target, &key(1, 1), &[A, B], true).await?;
    scd2(target, &key(2, 1), &[A2, B], true).await?;
    let now = [(A, 1, Some(2)), (A2, 2, None), (B, 1, None)];
    scd2(target, &key(2, 2), &[A2, B], true).await?;
    expect_history(target, "the same interval with the same rows changes nothing", &now).await?;
    scd2(target, &key(2, 3), &[A3, B], true).await?;
    let now = [(A, 1, Some(2)), (A3, 2, None), (B, 1, None)];
    expect_history(target, "of two changes in one interval the later one counts", &now).await?;
    scd2(target, &key(2, 4), &[A, B], true).await?;
    expect_history(target, "a change that is taken back never was", &[(A, 1, None), (B, 1, None)]).await?;
    scd2(target, &key(2, 5), &[A], true).await?;
    scd2(target, &key(2, 6), &[A, B], true).await?;
    expect_history(target, "an end that is taken back never was", &[(A, 1, None), (B, 1, None)]).await
}

async fn the_past_is_not_rewritten(target: &dyn SinkTarget) -> Result<()> {
    scd2(target, &key(1, 1), &[A], true).await?;
    scd2(target, &key(5, 1), &[A2, B], true).await?;
    let now = [(A, 1, Some(5)), (A2, 5, None), (B, 5, None)];
    scd2(target, &key(1, 2), &[A], true).await?;
    scd2(target, &key(3, 1), &[A], true).await?;
    expect_history(target, "what agrees with history changes nothing", &now).await?;
    for (rows, words) in [(&[A3][..], "id = 1"), (&[A, B], "id = 2"), (&[], "id = 1")] {
        let outcome = scd2(target, &key(4, 1), rows, true).await;
        refused(outcome, ErrorKind::Conflict, "what disagrees with history is refused", &[words])?;
        open(target, load(Strategy::Scd2, None), &key(4, 1), &owner("run-load"))?.abort(&key(4, 1)).await?;
    }
    expect_history(target, "a refused load changes nothing", &now).await
}
