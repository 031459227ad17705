//! Which aggregates are the server's, and what a plan says of the others.

use super::*;
use crate::{Aggregate, AggregateFunction, Aggregation};

fn counted(by: &[&str]) -> Aggregation {
    let groups = by.iter().map(|name| (*name).to_owned()).collect();
    Aggregation { groups, values: vec![Aggregate::new(AggregateFunction::Count, None)] }
}

#[tokio::test]
async fn many_groups_are_not_formed_by_the_server_and_the_plan_says_so() {
    let database = postgres::database();
    database.sql(
        "create table t as select n as id, n % 7 as few, n % 3000 as some from generate_series(1, 20000) n; analyze t;
         create table unknown(id int) with (autovacuum_enabled = off); insert into unknown select generate_series(1, 9000)",
    );
    let source = super::source(&database, "table: t");
    source.schema().await.unwrap();
    for (by, may) in [(&["few"][..], true), (&["some"][..], true), (&["few", "some"][..], false), (&["id"][..], false)]
    {
        assert_eq!(source.can_aggregate(&counted(by), &[]), may, "{by:?}");
    }
    let why = source.plan(&ReadRequest::default()).await.unwrap().why;
    assert!(why.contains("; aggregates are computed here: statistics tell of about 20,000 groups"), "{why}");
    // Of a table that nobody has analyzed, nothing is known.
    let source = super::source(&database, "table: unknown");
    source.schema().await.unwrap();
    assert!(source.can_aggregate(&counted(&["id"]), &[]));
    let why = source.plan(&ReadRequest::default()).await.unwrap().why;
    assert!(!why.contains("aggregates"), "{why}");
}

#[tokio::test]
async fn a_connection_with_a_limit_computes_no_aggregates_and_the_plan_says_so() {
    let database = postgres::database();
    database.sql("create table t as select n as id from generate_series(1, 100) n; analyze t");
    let keys = format!("{{type: postgres, url: \"{}\", max_rows_per_second: 1000000}}", database.local_url());
    let source = connect(&keys).unwrap().source(&extract("table: t")).unwrap();
    source.schema().await.unwrap();
    assert!(!source.can_aggregate(&counted(&[]), &[]));
    let why = source.plan(&ReadRequest::default()).await.unwrap().why;
    assert!(why.ends_with("; aggregates are computed here: the connection's rate is limited"), "{why}");
}
