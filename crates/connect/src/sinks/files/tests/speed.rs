//! How fast the writers are: `cargo test --release -p gristmill-connect --lib encoding_speed -- --ignored --nocapture`.

use super::*;
use arrow::array::{Date32Array, Decimal128Array, Int32Array, StringViewArray};
use gristmill_model::spec::Strategy;
use std::time::Instant;

/// Rows like TPC-H's lineitem: sixteen columns, seven years of dates.
fn lineitem(first: i64, rows: i64) -> RecordBatch {
    let mut state = u64::try_from(first).unwrap() * 2 + 1;
    let mut random = |most: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(state >> 33).unwrap() % most
    };
    let decimal = |values: Vec<i64>| -> ArrayRef {
        let values = values.into_iter().map(i128::from);
        Arc::new(Decimal128Array::from_iter_values(values).with_precision_and_scale(15, 2).unwrap())
    };
    let words = ["carefully", "final", "deposits", "haggle", "regular", "quickly", "ironic", "requests", "sleep"];
    let mut column = |most: i64| (0..rows).map(|_| random(most)).collect::<Vec<_>>();
    let day: Vec<i32> = column(2525).into_iter().map(|day| 8036 + i32::try_from(day).unwrap()).collect();
    let dates = |shift: i32| -> ArrayRef { Arc::new(Date32Array::from_iter_values(day.iter().map(|day| day + shift))) };
    let texts = |values: Vec<i64>, of: &[&str]| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(values.iter().map(|at| of[usize::try_from(*at).unwrap()])))
    };
    let numbers = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let comment: StringViewArray = (column(900_000_000))
        .into_iter()
        .map(|at| Some((0..4).map(|word| words[(at / 9i64.pow(word) % 9) as usize]).collect::<Vec<_>>().join(" ")))
        .collect();
    let year: ArrayRef = Arc::new(Int32Array::from_iter_values(day.iter().map(|day| 1992 + (day - 8036) / 365)));
    let month: ArrayRef = Arc::new(Int32Array::from_iter_values(day.iter().map(|day| 1 + (day - 8036) % 365 / 31)));
    RecordBatch::try_from_iter([
        ("orderkey", numbers((first..first + rows).map(|row| row / 4).collect())),
        ("partkey", numbers(column(200_000))),
        ("suppkey", numbers(column(10_000))),
        ("linenumber", numbers(column(7))),
        ("quantity", decimal(column(5000))),
        ("extendedprice", decimal(column(9_000_000))),
        ("discount", decimal(column(11))),
        ("tax", decimal(column(9))),
        ("returnflag", texts(column(3), &["A", "N", "R"])),
        ("linestatus", texts(column(2), &["F", "O"])),
        ("shipdate", dates(0)),
        ("commitdate", dates(30)),
        ("receiptdate", dates(12)),
        ("shipinstruct", texts(column(4), &["COLLECT COD", "DELIVER IN PERSON", "NONE", "TAKE BACK RETURN"])),
        ("shipmode", texts(column(3), &["AIR", "MAIL", "TRUCK"])),
        ("comment", Arc::new(comment)),
        ("year", year),
        ("month", month),
    ])
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for release builds"]
async fn encoding_speed() {
    let pool: Vec<RecordBatch> = (0..128).map(|at| lineitem(at * 8192, 8192)).collect();
    for (name, partition_by, writers) in [
        ("plain, one writer", &[][..], 1u32),
        ("plain, two writers", &[][..], 2),
        ("84 partitions, one writer", &["year", "month"][..], 1),
        ("84 partitions, two writers", &["year", "month"][..], 2),
    ] {
        let target = Target::local();
        let schema = pool[0].schema();
        let context = context(&target, schema.clone(), key(1), owner("run"));
        let sink = target.open(load(Strategy::Append, partition_by), context).unwrap();
        let start = Instant::now();
        let share = 732 / writers as usize;
        let staged = futures::future::join_all((0..writers).map(|writer| {
            let (sink, pool, schema) = (&sink, pool.clone(), schema.clone());
            async move {
                let batches = futures::stream::iter((0..share).map(move |at| Ok(pool[at % pool.len()].clone())));
                sink.stage(&task(&key(1), &owner("run"), writer), Rows::new(schema, batches)).await.unwrap()
            }
        }))
        .await;
        let encoded = start.elapsed();
        let committed = sink.commit(&staged, &Checkpoint::default()).await.unwrap();
        println!(
            "{name}: {} rows, {} files, {} MB in {:.2} s, commit {:.0} ms, peak resident set so far {}",
            committed.rows,
            committed.files,
            committed.bytes >> 20,
            encoded.as_secs_f64(),
            (start.elapsed() - encoded).as_secs_f64() * 1e3,
            peak(),
        );
    }
}

fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("unknown").to_owned()
}
