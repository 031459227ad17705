//! The `deltalake` package of Python reads what we write, writes to our tables, checkpoints and cleans them.

use super::*;
use arrow::array::{BooleanArray, Date32Array, Decimal128Array, ListArray, StructArray, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use gristmill_testkit::delta::python;

/// The rows of a table as Python reads them, by SQL.
pub(super) fn asked(lake: &Lake, sql: &str) -> Vec<String> {
    let script = format!(
        "from deltalake import DeltaTable, QueryBuilder\n\
         table = DeltaTable({:?})\n\
         for batch in QueryBuilder().register('t', table).execute({sql:?}):\n    \
             columns = [column.to_pylist() for column in batch.columns]\n    \
             print('\\n'.join(map(str, zip(*columns))))\n",
        shown(&lake.0.root())
    );
    python(&script).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

pub(super) fn everything() -> RecordBatch {
    let zoned = TimestampMicrosecondArray::from(vec![Some(1_705_307_400_123_456), None]).with_timezone("Asia/Tokyo");
    let plain = TimestampMicrosecondArray::from(vec![Some(1_705_307_400_123_456), None]);
    let decimals = Decimal128Array::from(vec![Some(-12_345), None]).with_precision_and_scale(38, 2).unwrap();
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
    let inner = Arc::new(Field::new("a", DataType::Utf8, true));
    let structs = StructArray::from(vec![(inner, Arc::new(StringArray::from(vec![Some("x"), None])) as ArrayRef)]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("tiny", Arc::new(arrow::array::Int8Array::from(vec![Some(-8), None]))),
        ("small", Arc::new(arrow::array::UInt8Array::from(vec![Some(255), None]))),
        ("huge", Arc::new(arrow::array::UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("real", Arc::new(arrow::array::Float64Array::from(vec![Some(1.5), None]))),
        ("dec", Arc::new(decimals)),
        ("day", Arc::new(Date32Array::from(vec![Some(19_737), None]))),
        ("zoned", Arc::new(zoned)),
        ("plain", Arc::new(plain)),
        ("text", Arc::new(StringArray::from(vec![Some("日本"), None]))),
        ("bytes", Arc::new(arrow::array::BinaryArray::from(vec![Some(b"\x00\xff".as_ref()), None]))),
        ("list", Arc::new(lists)),
        ("inside", Arc::new(structs)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_read_by_others_as_it_was_written() {
    let lake = Lake(Target::local());
    lake.load(load(Strategy::Append, &[]), 1, &everything()).await.unwrap();
    let columns = "b, tiny, small, cast(huge as varchar), real, cast(dec as varchar), cast(day as varchar), \
                   cast(zoned as varchar), cast(plain as varchar), text, bytes, list, inside";
    let rows = asked(&lake, &format!("select {columns} from t order by b"));
    assert_eq!(
        rows[0],
        "(True, -8, 255, '18446744073709551615', 1.5, '-123.45', '2024-01-15', '2024-01-15T08:30:00.123456Z', \
         '2024-01-15T08:30:00.123456', '日本', b'\\x00\\xff', [1, None], {'a': 'x'})"
    );
    assert!(rows[1].starts_with("(None, None, None"), "{rows:?}");
    // Statistics are used: what they rule out is not there, what they do not is.
    assert_eq!(asked(&lake, "select text from t where zoned > '2024-01-15T08:30:00.123455Z'"), ["('日本',)"]);
    assert_eq!(asked(&lake, "select text from t where small > 254 and day = '2024-01-15'"), ["('日本',)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_partition_values_are_read_by_others_as_they_were_written() {
    let lake = Lake(Target::local());
    let days = ["2024-01-15", "a/b", "100%", "x=1 y", "é日本", "q'\"?#&+"];
    let mut ids: Vec<(i64, &str)> = (1..).zip(days).collect();
    lake.load(load(Strategy::Append, &["day"]), 1, &rows(&ids)).await.unwrap();
    let nothing: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
    let last: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let null = RecordBatch::try_from_iter_with_nullable([("id", last, true), ("day", nothing, true)]).unwrap();
    lake.load(load(Strategy::Append, &["day"]), 2, &null).await.unwrap();
    let seen = asked(&lake, "select id, day from t order by id");
    let wanted = "[(1,'2024-01-15'),(2,'a/b'),(3,'100%'),(4,'x=1 y'),(5,'é日本'),(6,'q\\'\"?#&+'),(7,None)]";
    assert_eq!(format!("[{}]", seen.join(",")).replace(", ", ","), wanted);
    // Each is replaced by its own value.
    ids.iter_mut().for_each(|(id, _)| *id += 100);
    lake.load(load(Strategy::PartitionOverwrite, &["day"]), 3, &rows(&ids)).await.unwrap();
    assert_eq!(asked(&lake, "select count(*), sum(id) from t"), ["(7, 628)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_others_write_to_and_clean_keeps_what_we_know_of_it() {
    let lake = Lake(Target::local());
    let root = shown(&lake.0.root());
    lake.load(load(Strategy::Append, &["day"]), 1, &rows(&[(1, "a"), (2, "b")])).await.unwrap();
    // Another program appends, checkpoints, and throws every old entry of the log away.
    let _printed = python(&format!(
        "from deltalake import DeltaTable, write_deltalake\n\
         from arro3.core import Table, Array, DataType\n\
         ids = Array([3, 4], type=DataType.int64())\n\
         days = Array(['b', 'c'], type=DataType.string())\n\
         write_deltalake({root:?}, Table.from_pydict({{'id': ids, 'day': days}}), mode='append')\n\
         table = DeltaTable({root:?})\n\
         assert table.version() == 1, table.version()\n\
         assert len(table.history()) == 2\n\
         table.alter.set_table_properties({{'delta.logRetentionDuration': 'interval 0 days'}})\n\
         table.create_checkpoint()\n\
         table.cleanup_metadata()\n"
    ));
    std::fs::remove_file(entry_path(&lake, 0)).unwrap_or_default();
    let sink =
        lake.open(load(Strategy::Append, &[]), context(&lake.0, rows(&[]).schema(), key(1), owner("run"))).unwrap();
    let last = sink.last(&key(1).slot).await.unwrap().unwrap();
    assert_eq!((last.key, last.rows, last.files), (key(1), 2, 2), "the load is known though its entry is gone");
    assert!(sink.commit(&[], &Checkpoint::default()).await.unwrap().already);
    assert_eq!(sink.checkpoint(&key(1).slot).await.unwrap(), Some(Checkpoint::default()));
    lake.load(load(Strategy::PartitionOverwrite, &["day"]), 2, &rows(&[(5, "b")])).await.unwrap();
    assert_eq!(asked(&lake, "select id, day from t order by id"), ["(1, 'a')", "(4, 'c')", "(5, 'b')"]);
    lake.load(load(Strategy::Replace, &[]), 3, &rows(&[(6, "d")])).await.unwrap();
    assert_eq!(asked(&lake, "select id, day from t"), ["(6, 'd')"]);
    // Loads of ours and of others at once: each comes in.
    let written = tokio::task::spawn_blocking({
        let root = root.clone();
        move || {
            python(&format!(
                "from deltalake import write_deltalake\n\
                 from arro3.core import Table, Array, DataType\n\
                 for at in range(5):\n    \
                     ids = Array([at], type=DataType.int64())\n    \
                     days = Array(['p'], type=DataType.string())\n    \
                     write_deltalake({root:?}, Table.from_pydict({{'id': ids, 'day': days}}), mode='append')\n"
            ))
        }
    });
    for generation in 4..9 {
        lake.load(load(Strategy::Append, &[]), generation, &rows(&[(i64::from(generation), "o")])).await.unwrap();
    }
    written.await.unwrap();
    let counted = asked(&lake, "select day, count(*) from t group by day order by day");
    assert_eq!(counted, ["('d', 1)", "('o', 5)", "('p', 5)"]);
}
