//! Loads by key: which files are written anew, what they keep, and how they get along with other writers.

use super::python::{asked, everything};
use super::*;
use arrow::array::Float64Array;
use gristmill_testkit::delta::python;
use std::collections::BTreeSet;

fn by(strategy: Strategy, key: &str) -> LoadSpec {
    LoadSpec { key: OneOrMany(vec![key.to_owned()]), ..load(strategy, &[]) }
}

async fn paths(lake: &Lake) -> BTreeSet<String> {
    lake.table().await.paths().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_files_that_lose_or_change_a_row_are_written_anew_and_keep_what_the_load_does_not_tell() {
    for lake in [Lake(Target::local()), Lake(Target::s3())] {
        let with_note = |from: i64| {
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 3));
            let days: ArrayRef = Arc::new(StringArray::from(vec!["a"; 3]));
            let notes: ArrayRef = Arc::new(StringArray::from(vec!["kept"; 3]));
            RecordBatch::try_from_iter([("id", ids), ("day", days), ("note", notes)]).unwrap()
        };
        for (generation, from) in [(1, 1), (2, 11), (3, 21)] {
            lake.load(load(Strategy::Append, &[]), generation, &with_note(from)).await.unwrap();
        }
        let before = paths(&lake).await;
        lake.load(by(Strategy::Merge, "id"), 4, &rows(&[(12, "b"), (13, "a"), (14, "b")])).await.unwrap();
        let after = paths(&lake).await;
        assert_eq!((before.difference(&after).count(), after.difference(&before).count()), (1, 1));
        let held = sorted_rows(&read(&lake.0.place()).await.unwrap()).unwrap();
        assert_eq!(held.len(), 10);
        for row in ["11│a│kept│", "12│b│kept│", "13│a│kept│", "14│b│∅│"] {
            assert!(held.contains(&row.to_owned()), "{row}: {held:?}");
        }
        // Nothing that changes: nothing is written.
        lake.load(by(Strategy::Merge, "id"), 5, &rows(&[(12, "b"), (21, "a")])).await.unwrap();
        assert_eq!(paths(&lake).await, after);
        lake.load(by(Strategy::DeleteInsert, "day"), 6, &rows(&[(99, "b")])).await.unwrap();
        let held = sorted_rows(&read(&lake.0.place()).await.unwrap()).unwrap();
        assert_eq!((held.len(), held.iter().filter(|row| row.contains("│b│")).count()), (9, 1));
        assert_eq!(lake.leftovers().await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_the_same_after_it_was_written_anew() {
    let lake = Lake(Target::local());
    lake.load(load(Strategy::Append, &[]), 1, &everything()).await.unwrap();
    let others = "b, tiny, small, cast(huge as varchar), cast(dec as varchar), cast(day as varchar), \
                  cast(zoned as varchar), cast(plain as varchar), bytes, list, inside";
    let others = format!("select {others} from t order by b");
    let before = asked(&lake, &others);
    let mut columns = everything().slice(0, 1).columns().to_vec();
    let at = everything().schema().index_of("real").unwrap();
    columns[at] = Arc::new(Float64Array::from(vec![2.5]));
    let changed = RecordBatch::try_new(everything().schema(), columns).unwrap();
    lake.load(by(Strategy::Merge, "text"), 2, &changed).await.unwrap();
    assert_eq!(asked(&lake, &others), before);
    assert_eq!(asked(&lake, "select real from t order by b"), ["(2.5,)", "(None,)"]);
}

/// `id`s, and texts that may be NULL.
fn texts(rows: &[(i64, Option<&str>)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let texts: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>());
    RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("r", texts, true)]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_outside_of_a_scope_that_alone_says_what_goes_are_refused_before_anything_is_published() {
    for lake in [Lake(Target::local()), Lake(Target::s3())] {
        lake.load(load(Strategy::Append, &[]), 1, &rows(&[(1, "a"), (2, "b")])).await.unwrap();
        let scoped = |key: &[&str]| LoadSpec {
            scope: Some("day = 'a'".to_owned()),
            key: OneOrMany(key.iter().map(|&name| name.to_owned()).collect()),
            ..load(Strategy::DeleteInsert, &[])
        };
        let error = lake.load(scoped(&[]), 2, &rows(&[(3, "a"), (2, "b")])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert_eq!(error.message(), "rows with `day = b` are outside of the scope `day = 'a'`");
        assert!(error.hint_text().unwrap().contains("add a `key`"), "{error:?}");
        assert_eq!(lake.table().await.version, Some(0));
        lake.load(scoped(&[]), 3, &rows(&[(3, "a")])).await.unwrap();
        // By their key they are found again, so that they do not come twice.
        for generation in [4, 5] {
            lake.load(scoped(&["id"]), generation, &rows(&[(4, "a"), (2, "b"), (5, "c")])).await.unwrap();
            let held = sorted_rows(&read(&lake.0.place()).await.unwrap()).unwrap();
            assert_eq!(held, ["2│b│", "4│a│", "5│c│"]);
        }
        // So they are where `delete_missing` only looks there.
        let merge = LoadSpec { strategy: Strategy::Merge, delete_missing: true, ..scoped(&["id"]) };
        for generation in [6, 7] {
            lake.load(merge.clone(), generation, &rows(&[(6, "a"), (5, "d")])).await.unwrap();
            let held = sorted_rows(&read(&lake.0.place()).await.unwrap()).unwrap();
            assert_eq!(held, ["2│b│", "5│d│", "6│a│"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_of_rows_tells_null_from_the_empty_text() {
    let lake = Lake(Target::local());
    let all = texts(&[(1, None), (2, Some("")), (3, Some("x"))]);
    lake.load(load(Strategy::Append, &[]), 1, &all).await.unwrap();
    let scoped = |scope: &str| LoadSpec { scope: Some(scope.to_owned()), ..load(Strategy::DeleteInsert, &[]) };
    lake.load(scoped("r is null"), 2, &texts(&[(4, None)])).await.unwrap();
    let held = || async { sorted_rows(&read(&lake.0.place()).await.unwrap()).unwrap() };
    assert_eq!(held().await, ["2││", "3│x│", "4│∅│"]);
    let error = lake.load(scoped("r is null"), 3, &texts(&[(4, Some(""))])).await.unwrap_err();
    assert!(error.message().contains("outside of the scope"), "{error:?}");
    lake.load(scoped("r = ''"), 4, &texts(&[(5, Some(""))])).await.unwrap();
    assert_eq!(held().await, ["3│x│", "4│∅│", "5││"]);
    for (scope, said) in
        [("id = 'abc'", "`abc` is no value of `id`, which is bigint"), ("no = 1", "`no` is not a column of the rows")]
    {
        let error = lake.open(scoped(scope), context(&lake.0, all.schema(), key(5), owner("run"))).unwrap_err();
        assert!(error.message().contains(said) && error.kind() == ErrorKind::Schema, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merges_and_appends_of_others_all_come_in() {
    let lake = Lake(Target::local());
    let root = shown(&lake.0.root());
    lake.load(load(Strategy::Append, &["day"]), 1, &rows(&[(1, "a"), (2, "b")])).await.unwrap();
    let theirs = tokio::task::spawn_blocking({
        let root = root.clone();
        move || {
            python(&format!(
                "from deltalake import write_deltalake\n\
                 from deltalake.exceptions import CommitFailedError\n\
                 from arro3.core import Table, Array, DataType\n\
                 at = 0\n\
                 while at < 6:\n    \
                     ids = Array([100 + at], type=DataType.int64())\n    \
                     days = Array(['theirs'], type=DataType.string())\n    \
                     try:\n        \
                         write_deltalake({root:?}, Table.from_pydict({{'id': ids, 'day': days}}), mode='append')\n        \
                         at += 1\n    \
                     except CommitFailedError as error:\n        \
                         # A version of ours came between, which it does not go on after by itself.\n        \
                         assert 'concurrent transaction' in str(error), error\n"
            ))
        }
    });
    for generation in 2..8 {
        let day = format!("day {generation}");
        lake.load(by(Strategy::Merge, "id"), generation, &rows(&[(1, &day), (i64::from(generation), "b")]))
            .await
            .unwrap();
    }
    theirs.await.unwrap();
    assert_eq!(asked(&lake, "select day from t where id = 1"), ["('day 7',)"]);
    assert_eq!(asked(&lake, "select count(*), count(distinct id) from t"), ["(13, 13)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_see_what_a_load_was_and_how_far_its_slot_has_come() {
    let lake = Lake(Target::local());
    let root = shown(&lake.0.root());
    lake.load(load(Strategy::Append, &[]), 1, &rows(&[(1, "a")])).await.unwrap();
    let _printed = python(&format!(
        "from deltalake import DeltaTable\n\
         DeltaTable({root:?}).alter.set_table_properties({{'delta.checkpointInterval': '3'}})\n"
    ));
    for generation in 2..8 {
        lake.load(by(Strategy::Merge, "id"), generation, &rows(&[(1, "b"), (i64::from(generation), "a")]))
            .await
            .unwrap();
    }
    let app = format!("gristmill:{}", gristmill_model::LoadKey { generation: 0, ..key(7) }.short());
    let printed = python(&format!(
        "from deltalake import DeltaTable\n\
         table = DeltaTable({root:?})\n\
         print(table.transaction_version({app:?}) >> 32)\n\
         newest = table.history()[0]\n\
         print(newest['operation'], newest['userMetadata'])\n"
    ));
    assert_eq!(printed.lines().collect::<Vec<_>>(), ["7", &format!("MERGE {}", key(7).text())]);
    assert!(lake.0.root().join(LOG).join("_last_checkpoint").is_file(), "the log has a checkpoint");
    let sink =
        lake.open(load(Strategy::Append, &[]), context(&lake.0, rows(&[]).schema(), key(4), owner("run"))).unwrap();
    assert!(sink.commit(&[], &Checkpoint::default()).await.unwrap().already, "an older load is known as well");
    assert_eq!(sink.last(&key(1).slot).await.unwrap().unwrap().key, key(7));
    assert_eq!(asked(&lake, "select count(*) from t"), ["(7,)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_whose_name_others_escape_in_another_way_is_not_taken_out_under_a_name_the_log_does_not_have() {
    let lake = Lake(Target::local());
    lake.load(load(Strategy::Append, &[]), 1, &rows(&[(1, "a")])).await.unwrap();
    let first = paths(&lake).await.into_iter().next().unwrap();
    std::fs::copy(lake.0.root().join(first), lake.0.root().join("é.parquet")).unwrap();
    let size = std::fs::metadata(lake.0.root().join("é.parquet")).unwrap().len();
    let add = json!({"add": {
        "path": "é.parquet", "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": true,
    }});
    std::fs::write(entry_path(&lake, 1), add.to_string()).unwrap();
    let error = lake.load(load(Strategy::Replace, &[]), 2, &rows(&[(2, "a")])).await.unwrap_err();
    assert!(error.message().contains("é.parquet") && error.hint_text().is_some(), "{error:?}");
    lake.load(load(Strategy::Append, &[]), 2, &rows(&[(2, "a")])).await.unwrap();
    assert_eq!(asked(&lake, "select count(*) from t"), ["(3,)"]);
}
