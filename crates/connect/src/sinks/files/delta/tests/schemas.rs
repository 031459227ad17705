//! Columns that change, and tables that were not made by us.

use super::*;
use arrow::array::{Int32Array, TimestampMicrosecondArray};
use std::fs;

fn one(name: &str, array: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([(name, array, true)]).unwrap()
}

fn names(table: &Table) -> Vec<String> {
    let columns = table.columns().unwrap().into_iter();
    columns.map(|column| format!("{} {}", column.name, column.kind.unwrap())).collect()
}

#[tokio::test]
async fn columns_are_added_and_narrower_values_take_the_tables_type() {
    let lake = Lake(Target::local());
    let append = || load(Strategy::Append, &[]);
    lake.load(append(), 1, &one("n", Arc::new(Int64Array::from(vec![1])))).await.unwrap();
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![2]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let batch = RecordBatch::try_from_iter([("t", text), ("n", narrow)]).unwrap();
    let sink = lake.open(append(), context(&lake.0, batch.schema(), key(2), owner("run"))).unwrap();
    sink.prepare().await.unwrap();
    assert_eq!(sink.changes().await.unwrap(), ["adds the column `t` (string) to the Delta table"]);
    lake.load(append(), 2, &batch).await.unwrap();
    let table = lake.table().await;
    assert_eq!(names(&table), ["n long", "t string"]);
    for batch in read(&lake.0.place()).await.unwrap() {
        assert_eq!(batch.column_by_name("n").unwrap().data_type(), &DataType::Int64, "one type in all files");
    }

    let error = lake.load(append(), 3, &one("n", Arc::new(StringArray::from(vec!["x"])))).await.unwrap_err();
    assert_eq!(error.message(), "the column `n` is string in the rows but long in the Delta table");
    let error = lake.load(append(), 3, &one("N", Arc::new(Int64Array::from(vec![1])))).await.unwrap_err();
    assert_eq!(error.message(), "the column `N` is called `n` in the Delta table");
    let error = lake.load(load(Strategy::Append, &["n"]), 3, &batch).await.unwrap_err();
    assert_eq!(error.message(), "`partition_by` says `n`, and the Delta table is not partitioned");

    // `truncate+insert` keeps the columns, `replace` does not.
    lake.load(load(Strategy::TruncateInsert, &[]), 3, &one("n", Arc::new(Int64Array::from(vec![7])))).await.unwrap();
    assert_eq!(names(&lake.table().await), ["n long", "t string"]);
    lake.load(load(Strategy::Replace, &[]), 4, &one("n", Arc::new(StringArray::from(vec!["x"])))).await.unwrap();
    assert_eq!(names(&lake.table().await), ["n string"]);
    assert_eq!(sorted_rows(&read(&lake.0.place()).await.unwrap()).unwrap(), ["x│"]);
}

#[tokio::test]
async fn names_and_types_that_delta_lacks_are_refused_by_name() {
    let lake = Lake(Target::local());
    let append = || load(Strategy::Append, &[]);
    for (batch, words) in [
        (one("a b", Arc::new(Int64Array::from(vec![1]))), "`a b` cannot be a column"),
        (one("t", Arc::new(arrow::array::Time64MicrosecondArray::from(vec![1]))), "has no type in a Delta table"),
        (one("x", Arc::new(arrow::array::NullArray::new(1))), "has no type in a Delta table"),
    ] {
        let error = lake.load(append(), 1, &batch).await.unwrap_err();
        assert!(error.message().contains(words) && error.hint_text().is_some(), "{error:?}");
    }
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let twice = RecordBatch::try_from_iter([("id", number.clone()), ("ID", number)]).unwrap();
    assert!(lake.load(append(), 1, &twice).await.unwrap_err().message().contains("are one name"));
    assert_eq!(lake.table().await.version, None);
}

#[tokio::test]
async fn timestamps_without_a_zone_need_a_table_that_knows_them() {
    let lake = Lake(Target::local());
    let times = |name: &str| one(name, Arc::new(TimestampMicrosecondArray::from(vec![1])));
    lake.load(load(Strategy::Append, &[]), 1, &times("t")).await.unwrap();
    let table = lake.table().await;
    assert_eq!((names(&table), table.protocol.min_reader_version), (vec!["t timestamp_ntz".to_owned()], 3));

    let lake = Lake(Target::local());
    lake.load(load(Strategy::Append, &[]), 1, &one("n", Arc::new(Int64Array::from(vec![1])))).await.unwrap();
    for strategy in [Strategy::Append, Strategy::Replace] {
        let error = lake.load(load(strategy, &[]), 2, &times("t")).await.unwrap_err();
        assert!(error.message().contains("timestampNtz"), "{error:?}");
    }
}

#[tokio::test]
async fn a_table_that_asks_too_much_is_left_alone() {
    let lake = Lake(Target::local());
    let one = one("n", Arc::new(Int64Array::from(vec![1])));
    lake.load(load(Strategy::Append, &[]), 1, &one).await.unwrap();
    let table = lake.table().await;
    let mut metadata = table.metadata.unwrap();
    metadata.configuration.insert("delta.appendOnly".to_owned(), "true".to_owned());
    fs::write(entry_path(&lake, 1), json!({"metaData": metadata}).to_string()).unwrap();
    let error = lake.load(load(Strategy::Replace, &[]), 2, &one).await.unwrap_err();
    assert!(error.message().contains("delta.appendOnly"), "{error:?}");
    lake.load(load(Strategy::Append, &[]), 2, &one).await.unwrap();
    fs::write(entry_path(&lake, 4), "{}").unwrap();
    let error = lake.load(load(Strategy::Append, &[]), 3, &one).await.unwrap_err();
    assert_eq!((error.kind(), error.hint_text().is_some()), (ErrorKind::Data, true), "a log with a gap: {error:?}");
}
