//! Many small files, and the contract for files in units.

use super::*;
use crate::conformance::source_suite;

#[tokio::test]
async fn many_small_files_are_few_units_and_a_short_plan() {
    const FILES: usize = 1_100;
    let lake = Lake::new(&[]);
    let one = batch(&[("k", ints(&[7]))]);
    lake.parquet("t", &one);
    let bytes = std::fs::read(lake.0.path().join("t")).unwrap();
    for index in 0..FILES {
        lake.write(&format!("csv/{index}.csv"), format!("k,v\n{index},x\n").as_bytes());
        lake.write(&format!("ndjson/day={}/{index}.ndjson", index % 5), format!("{{\"k\": {index}}}\n").as_bytes());
        lake.write(&format!("parquet/{index}.parquet"), &bytes);
    }
    for format in ["csv", "ndjson", "parquet"] {
        let started = std::time::Instant::now();
        let source = lake.source(&format!("path: {format}/\nunits: {{strategy: files}}")).unwrap();
        let plan = source.plan(&ReadRequest { parallelism: 2, ..ReadRequest::default() }).await.unwrap();
        assert_eq!(plan.units.len(), 2, "{format}");
        assert!(plan.why.starts_with("1100 files of ") && plan.why.contains("small files together"), "{}", plan.why);
        assert!(plan.why.len() < 200 && plan.units.iter().all(|unit| unit.label.len() < 100));
        let planned = started.elapsed();
        let table = all(&source, source.schema().await.unwrap(), OnFail::Fail).await.unwrap();
        assert_eq!(table.rows.len(), FILES, "{format}");
        if std::env::var_os("GRISTMILL_SHOW").is_some() {
            println!("{format}: {FILES} files planned in {planned:?}, read in {:?}", started.elapsed() - planned);
        }
    }
}

#[tokio::test]
async fn files_in_units_keep_the_contract() {
    let rows = 200;
    let lake = Lake::new(&[]);
    let csv = (0..rows).map(|row| format!("{row},\"a\n{row}\",{}.5\n", row % 7)).collect::<String>();
    lake.write("a.csv", format!("k,t,n\n{csv}").as_bytes());
    let lines = (0..rows).map(|row| format!("{{\"k\": {row}, \"t\": \"x{row}\"}}\n")).collect::<String>();
    lake.write("p/day=1/a.ndjson", lines.as_bytes());
    lake.write("p/day=2/a.ndjson", lines.as_bytes());
    let groups = parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(30)).build();
    lake.parquet_with("a.parquet", &batch(&[("k", ints(&(0..rows).collect::<Vec<_>>()))]), Some(groups));
    for (yaml, rows) in [
        ("path: a.csv\nunits: {strategy: byte_range, target_rows: 30}", 200),
        ("path: p/\nunits: {target_rows: 70}", 400),
        ("path: p/\nunits: {strategy: files, max: 1}", 400),
        ("path: a.parquet\nunits: {target_rows: 60}", 200),
        ("path: a.csv\nunits: {strategy: none}", 200),
    ] {
        let open = || lake.source(yaml).unwrap();
        source_suite(&open, Some(rows)).await.unwrap_or_else(|error| panic!("{yaml}: {error:?}"));
    }
}
