//! Units that are divided as they are claimed, and what their aggregates are.

use super::units::{all_rows, keys, plan, unit_rows, whole};
use super::*;
use gristmill_model::WorkUnit;

#[tokio::test]
async fn many_groups_are_not_formed_by_the_server_and_the_plan_says_so() {
    let database = mariadb::database();
    database.sql(
        "create table t(id int primary key, few int, key(few)); insert into t select seq, seq % 7 from seq_1_to_20000;
         analyze table t",
    );
    let source = source(&database, "table: t");
    source.schema().await.unwrap();
    let by = |column: &str| crate::Aggregation {
        groups: vec![column.to_owned()],
        values: vec![crate::Aggregate::new(crate::AggregateFunction::Count, None)],
    };
    assert!(source.can_aggregate(&by("few"), &[]) && !source.can_aggregate(&by("id"), &[]));
    let why = source.plan(&ReadRequest::default()).await.unwrap().why;
    assert!(why.contains("; aggregates are computed here: statistics tell of about "), "{why}");
}

/// Divides units until nothing is to be divided any more, or enough.
async fn divided(source: &dyn Source, mut units: Vec<WorkUnit>, seed: usize) -> Vec<WorkUnit> {
    for round in 0..16 {
        let at = (seed * 31 + round * 17) % units.len();
        let most = units[at].rows.unwrap_or(0) * (round as u64 % 4) / 5;
        if let Some((first, rest)) = source.split(&units[at], most).await {
            units[at] = first;
            units.push(rest);
        }
    }
    units
}

#[tokio::test(flavor = "multi_thread")]
async fn however_units_are_divided_every_row_is_read_once() {
    let database = mariadb::database();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut parts = 0;
    for (at, (of, values)) in keys(&mut runner, 300).into_iter().enumerate() {
        let list: Vec<String> = values.iter().enumerate().map(|(n, value)| format!("({n}, {value})")).collect();
        database.sql(&format!(
            "drop table if exists t; create table t(n int primary key, k {of}, key(k)); insert into t values {}",
            list.join(", ")
        ));
        if at % 2 == 0 {
            database.sql("analyze table t");
        }
        let schema = if of == "date" { "\nschema: {k: text}" } else { "" };
        let wanted = whole(&database, &format!("table: t{schema}")).await;
        for units in
            ["id_range, by: k, target_rows: 40", "id_range, by: k, target_rows: 200", "hash, by: k, target_rows: 50"]
        {
            let source = source(&database, &format!("table: t{schema}\nunits: {{strategy: {units}, verify: count}}"));
            let mut plan = plan(source.as_ref()).await;
            let planned = plan.units.len();
            plan.units = divided(source.as_ref(), plan.units, at).await;
            let ordinals: std::collections::BTreeSet<u32> = plan.units.iter().map(|unit| unit.ordinal).collect();
            assert_eq!(ordinals.len(), plan.units.len());
            assert!(!units.starts_with("hash") || plan.units.len() == planned);
            parts += plan.units.len() - planned;
            // What the server counts is compared, too, once the last of all parts has been read.
            let rows = all_rows(&source, &plan).await.unwrap_or_else(|error| panic!("{of}: {units}: {error:?}"));
            assert_eq!(rows, wanted, "{of}: {units}");
        }
    }
    assert!(parts > 50, "only {parts} parts");
}

#[tokio::test]
async fn a_range_that_is_open_is_divided_by_the_index_of_its_key() {
    let database = mariadb::database();
    database.sql(
        "create table t(id int primary key, v int); insert into t select seq, seq from seq_1_to_30000; analyze table t",
    );
    let source = source(&database, "table: t\nunits: {strategy: id_range, by: id, target_rows: 10000}");
    let plan = plan(source.as_ref()).await;
    let mut last = plan.units.iter().find(|unit| unit.payload["slice"]["keys"]["to"].is_null()).unwrap().clone();
    let planned = unit_rows(source.as_ref(), &last).await.unwrap().len();
    let mut sizes = Vec::new();
    while let Some((first, rest)) = source.split(&last, 1000).await {
        sizes.push(unit_rows(source.as_ref(), &first).await.unwrap().len());
        last = rest;
    }
    sizes.push(unit_rows(source.as_ref(), &last).await.unwrap().len());
    assert!(planned > 5000 && sizes.len() > 1, "{planned} rows as {sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), planned);
    drop(plan);
    // Without an index, looking would cost what reading costs.
    database.sql("create table u(id int, v int); insert into u select * from t; analyze table u");
    let source = super::source(&database, "table: u\nunits: {strategy: id_range, by: id, target_rows: 10000}");
    let plan = super::units::plan(source.as_ref()).await;
    for unit in &plan.units {
        assert!(source.split(unit, 1).await.is_none(), "{}", unit.label);
    }
}
