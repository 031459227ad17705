use super::memory::{MOST, Memory};
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use gristmill_model::spec::Lag;
use gristmill_model::{Cursor, ErrorKind};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

fn rows(ids: &[i64], cursors: &[Option<i64>]) -> RecordBatch {
    let id: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(cursors.to_vec()).with_timezone("UTC"));
    RecordBatch::try_from_iter([("id", id), ("at", at)]).unwrap()
}

impl Memory {
    fn pass_column(&mut self, batch: RecordBatch, column: &str) -> gristmill_model::Result<RecordBatch> {
        let cursor = batch.column_by_name(column).unwrap().clone();
        self.pass(batch, (column, &cursor), &[], None)
    }

    fn pass_all(&mut self, batch: RecordBatch) -> gristmill_model::Result<RecordBatch> {
        self.pass_column(batch, "at")
    }
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    let column = batch.column_by_name("id").unwrap().as_any().downcast_ref::<Int64Array>().unwrap();
    column.values().to_vec()
}

/// What the next run goes on from.
fn cursor(memory: &Memory, value: Value) -> Cursor {
    let (seen, columns, edge) = memory.seen();
    Cursor { column: "at".into(), value: Some(value), seen, columns, edge, lag: memory.lag, ..Cursor::default() }
}

fn again(cursor: &Cursor, lag: Option<Lag>) -> Memory {
    Memory::new(cursor.seen.clone(), lag, Some(cursor))
}

#[test]
fn rows_at_the_cursor_are_left_out_the_next_time_and_new_ones_beside_them_are_not() {
    let mut first = Memory::new(BTreeMap::new(), None, None);
    first.pass_all(rows(&[1, 2, 3], &[Some(10), Some(20), Some(20)])).unwrap();
    let cursor = cursor(&first, Value::from("20"));
    assert_eq!(cursor.seen.len(), 2, "only those at the cursor are kept: {cursor:?}");
    let mut second = again(&cursor, None);
    let kept = second.pass_all(rows(&[3, 4, 2, 5], &[Some(20), Some(20), Some(20), Some(30)])).unwrap();
    assert_eq!(ids(&kept), [4, 5]);
    // The row of 20 that is new is not at the cursor any more.
    assert_eq!(second.seen().0.len(), 1);
}

#[test]
fn equal_rows_are_counted() {
    let mut first = Memory::new(BTreeMap::new(), None, None);
    first.pass_all(rows(&[1, 1], &[Some(10), Some(10)])).unwrap();
    let cursor = cursor(&first, Value::from("10"));
    let mut second = again(&cursor, None);
    let kept = second.pass_all(rows(&[1, 1, 1], &[Some(10); 3])).unwrap();
    assert_eq!(ids(&kept), [1], "a third one is new");
    assert_eq!(second.seen().0.values().copied().collect::<Vec<_>>(), [3]);
}

#[test]
fn a_new_column_that_is_empty_changes_no_digest_and_one_that_is_gone_is_an_error() {
    let mut first = Memory::new(BTreeMap::new(), None, None);
    first.pass_all(rows(&[1], &[Some(10)])).unwrap();
    let cursor = cursor(&first, Value::from("10"));
    let wide = |value: Option<&str>| {
        let batch = rows(&[1], &[Some(10)]);
        let note: ArrayRef = Arc::new(StringArray::from(vec![value]));
        RecordBatch::try_from_iter([("id", batch.column(0).clone()), ("note", note), ("at", batch.column(1).clone())])
            .unwrap()
    };
    assert_eq!(again(&cursor, None).pass_all(wide(None)).unwrap().num_rows(), 0);
    assert_eq!(again(&cursor, None).pass_all(wide(Some("x"))).unwrap().num_rows(), 0);
    let narrow = rows(&[1], &[Some(10)]).project(&[1]).unwrap();
    let error = again(&cursor, None).pass_all(narrow).unwrap_err();
    assert!(error.message().contains("`id`"), "{error}");
}

#[test]
fn nothing_new_keeps_what_was_known() {
    let mut first = Memory::new(BTreeMap::new(), None, None);
    first.pass_all(rows(&[1], &[Some(10)])).unwrap();
    let cursor = cursor(&first, Value::from("10"));
    let (seen, columns, edge) = again(&cursor, None).seen();
    assert_eq!((&seen, &columns, &edge), (&cursor.seen, &cursor.columns, &cursor.edge));
}

#[test]
fn too_many_rows_at_the_cursor_are_an_error_that_says_what_to_do() {
    let mut memory = Memory::new(BTreeMap::new(), None, None);
    let count = i64::try_from(MOST).unwrap() + 1;
    let all: Vec<i64> = (0..count).collect();
    let error = memory.pass_all(rows(&all, &vec![Some(7); all.len()])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("50000"), "{error}");
    // Spread out, they are no trouble.
    let mut memory = Memory::new(BTreeMap::new(), None, None);
    memory.pass_all(rows(&all, &all.iter().map(|at| Some(*at)).collect::<Vec<_>>())).unwrap();
    assert_eq!(memory.seen().0.len(), 1);
}

#[test]
fn a_lag_that_does_not_go_with_the_type_is_an_error() {
    let error = |lag: &str, column: &str| {
        let mut memory = Memory::new(BTreeMap::new(), Some(lag.parse().unwrap()), None);
        memory.pass_column(rows(&[1], &[Some(1)]), column).err().map(|error| error.message().to_owned())
    };
    assert_eq!(error("5", "at").as_deref(), Some("`lag: 5` does not go with `at`"));
    assert_eq!(error("2h", "id").as_deref(), Some("`lag: 2h` does not go with `id`"));
    assert_eq!(error("2h", "at"), None);
    assert_eq!(error("5", "id"), None);
}

proptest! {
    /// However a table grows, late rows within the lag included, each row goes through exactly once.
    #[test]
    fn each_row_goes_through_once(
        steps in prop::collection::vec(prop::collection::vec((0i64..40, prop::bool::weighted(0.05)), 0..30), 1..6),
        lag in 0u64..15,
        batch in 1usize..9,
    ) {
        let lag = (lag > 0).then(|| Lag::Time(gristmill_model::Duration(std::time::Duration::from_micros(lag))));
        let reach = lag.map_or(0, |lag| match lag { Lag::Time(lag) => lag.0.as_micros() as i64, Lag::Number(n) => n as i64 });
        let mut table: Vec<(i64, Option<i64>)> = Vec::new();
        let mut got: Vec<i64> = Vec::new();
        let mut before: Option<Cursor> = None;
        for (round, new) in steps.into_iter().enumerate() {
            let greatest = table.iter().filter_map(|row| row.1).max();
            for (at, null) in new {
                // Rows come late by no more than the lag.
                let at = (at + round as i64 * 10).max(greatest.map_or(0, |greatest| greatest - reach));
                table.push((table.len() as i64, (!null).then_some(at)));
            }
            let floor = before.as_ref().and_then(|cursor| cursor.value.as_ref()?.as_i64()).map(|value| value - reach);
            let read: Vec<(i64, Option<i64>)> = table
                .iter()
                .filter(|(_, at)| at.is_none_or(|at| floor.is_none_or(|floor| at >= floor)))
                .copied()
                .collect();
            let mut memory = match &before {
                Some(cursor) => again(cursor, lag),
                None => Memory::new(BTreeMap::new(), lag, None),
            };
            for part in read.chunks(batch) {
                let (id, at): (Vec<i64>, Vec<Option<i64>>) = part.iter().copied().unzip();
                got.extend(ids(&memory.pass_all(rows(&id, &at)).unwrap()));
            }
            let next = read.iter().filter_map(|row| row.1).max();
            let value = next.map(Value::from).or_else(|| before.as_ref().and_then(|cursor| cursor.value.clone()));
            before = Some(Cursor { value: value.clone(), ..cursor(&memory, Value::Null) });
        }
        got.sort_unstable();
        prop_assert_eq!(got, (0..table.len() as i64).collect::<Vec<_>>());
    }
}
