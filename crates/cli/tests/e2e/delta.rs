//! Delta tables by the real binary, and what the Python package `deltalake` reads of them.

use crate::strategies::World;
use gristmill_testkit::delta::python;

fn sales(world: &World) {
    world.shop(
        "create table sales (id integer primary key, customer integer, sold text);
         with recursive n(i) as (select 0 union all select i + 1 from n where i < 4999)
         insert into sales select i, (i * 7919) % 300, datetime('2023-12-30', '+' || (i * 3) || ' minutes') from n;",
    );
}

/// The rows of a table below `lake` as Python reads them.
fn asked(world: &World, table: &str, sql: &str) -> Vec<String> {
    let path = world.folder.path().join("lake").join(table);
    let said = python(&format!(
        "from deltalake import DeltaTable, QueryBuilder\n\
         table = DeltaTable({:?})\n\
         print('version', table.version())\n\
         for batch in QueryBuilder().register('t', table).execute({sql:?}):\n    \
             columns = [column.to_pylist() for column in batch.columns]\n    \
             print('\\n'.join(','.join(map(str, row)) for row in zip(*columns)))\n",
        path.display().to_string()
    ));
    said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn each_strategy_is_one_version_that_others_read() {
    let world = World::sqlite();
    sales(&world);
    let steps = |rows: &str| {
        world.steps(&format!(
            "  sales: {{extract: {{from: shop, table: sales}}}}
  some: {{sql: \"select id, customer, cast(sold as timestamptz) as sold from sales where {rows}\"}}
  added: {{load: {{from: some, to: lake, path: added/, format: delta, strategy: append}}}}
  swapped: {{load: {{from: some, to: lake, path: swapped/, format: delta, strategy: replace}}}}
  filled: {{load: {{from: some, to: lake, path: filled/, format: delta, strategy: truncate+insert}}}}
  parts:
    load:
      from: some
      to: lake
      path: parts/
      format: delta
      strategy: partition_overwrite
      partition_by: [year(sold), month(sold), hash(customer) % 4]
      sort_by: [customer desc, id]
      parquet: {{bloom_filter: [customer]}}
  deleted: {{load: {{from: some, to: lake, path: deleted/, format: delta, strategy: delete+insert, key: [customer]}}}}
  merged: {{load: {{from: sales, to: lake, path: merged/, format: delta, strategy: merge}}}}
  kept: {{load: {{from: sales, to: lake, path: kept/, format: delta, strategy: scd2}}}}
"
        ));
    };
    let all = ["added", "swapped", "filled", "parts", "deleted", "merged", "kept"];
    steps("true");
    world.ok(1, &[]);
    for table in all {
        let seen = asked(&world, table, "select count(*), count(distinct id), sum(customer) from t");
        assert_eq!(seen[0], "version 0", "{table}");
        assert!(seen[1].starts_with("5000,5000,"), "{table}: {seen:?}");
    }
    let by = "select year, month, count(*), max(customer_bucket) from t group by year, month order by year";
    assert_eq!(asked(&world, "parts", by), ["version 0", "2023,12,960,3", "2024,1,4040,3"]);

    // Another day brings other rows.
    world.shop("update sales set customer = customer + 1000 where id < 10; delete from sales where id >= 4990;");
    steps("id < 20");
    world.ok(2, &[]);
    for (table, rows) in [
        ("added", "5020,5000"),
        ("swapped", "20,20"),
        ("filled", "20,20"),
        ("merged", "5000,5000"),
        ("kept", "5010,5000"),
    ] {
        let seen = asked(&world, table, "select count(*), count(distinct id) from t");
        assert_eq!(seen, ["version 1", rows], "{table}");
    }
    // All four buckets of December have new rows, and no other partition.
    assert_eq!(asked(&world, "parts", by), ["version 1", "2023,12,20,3", "2024,1,4040,3"]);
    let changed = "select count(*) from t where customer >= 1000";
    assert_eq!(asked(&world, "merged", changed), ["version 1", "10"]);
    assert_eq!(asked(&world, "kept", &format!("{changed} and valid_to is null")), ["version 1", "10"]);
    assert_eq!(asked(&world, "kept", "select count(*) from t where valid_to is not null"), ["version 1", "10"]);

    // A finished day again: what would double is skipped, the rest comes out the same.
    let said = world.ok(2, &[]);
    assert!(said.contains("skipped"), "{said}");
    for (table, rows) in [("added", "5020,5000"), ("swapped", "20,20"), ("merged", "5000,5000"), ("kept", "5010,5000")]
    {
        assert_eq!(asked(&world, table, "select count(*), count(distinct id) from t")[1], rows, "{table}");
    }
}

#[test]
fn a_first_load_complains_of_nothing_and_what_is_piped_has_no_colours() {
    let world = World::sqlite();
    world.shop("create table orders(id integer primary key); insert into orders values (1)");
    for (table, more) in [("quiet", &["-q"][..]), ("plain", &[]), ("verbose", &["-v"])] {
        world.steps(&format!(
            "  orders: {{extract: {{from: shop, table: orders}}}}
  l: {{load: {{from: orders, to: lake, path: {table}/, format: delta, strategy: append}}}}\n"
        ));
        let said = world.run(1, more);
        assert_eq!(said.code, Some(0), "{said}");
        assert!(!said.err.contains("ERROR") && !said.err.contains('\u{1b}'), "{said}");
        assert!(!more.contains(&"-q") || said.err.is_empty(), "{said}");
        assert_eq!(asked(&world, table, "select id from t"), ["version 0", "1"]);
    }
}

#[test]
fn a_scope_alone_does_not_double_rows_outside_of_it() {
    let world = World::sqlite();
    world.shop("create table orders(id integer primary key, v integer); insert into orders values (1, 5), (2, 6)");
    let steps = |load: &str| {
        world.steps(&format!(
            "  orders: {{extract: {{from: shop, table: orders}}}}
  l: {{load: {{from: orders, to: lake, path: t/, format: delta, strategy: delete+insert, {load}}}}}\n"
        ));
    };
    for (load, said) in [
        ("scope: \"v = 5\"", "rows with `v = 6` are outside of the scope `v = 5`"),
        ("scope: \"v = 'abc'\"", "`abc` is no value of `v`, which is bigint"),
    ] {
        steps(load);
        let answer = world.run(1, &[]);
        assert_eq!(answer.code, Some(1), "{answer}");
        assert!(answer.error().contains(said), "{answer}");
        assert!(!world.folder.path().join("lake/t/_delta_log").exists());
    }
    steps("scope: \"v = 5\", key: [id]");
    for day in [1, 2] {
        world.ok(day, &[]);
        assert_eq!(asked(&world, "t", "select id, v from t order by id")[1..], ["1,5", "2,6"]);
    }
}

#[test]
fn what_a_failed_check_kept_back_can_be_looked_at_and_no_version_is_made() {
    let world = World::sqlite();
    world.shop("create table orders(id integer primary key, total integer); insert into orders values (1, 5), (2, -5)");
    world.steps(
        "  orders: {extract: {from: shop, table: orders}, checks: [{between: {column: total, min: 0}}]}
  parts: {load: {from: orders, to: lake, path: parts/, format: delta, strategy: append, partition_by: [id]}}
  merged: {load: {from: orders, to: lake, path: merged/, format: delta, strategy: merge}}\n",
    );
    let said = world.run(1, &[]);
    assert_eq!(said.code, Some(1), "{said}");
    for step in ["parts", "merged"] {
        let query = "select id, total from staged order by id";
        let rows = world.folder.ok(&["sql", "--staged", &format!("last.{step}"), query, "--format", "csv"]);
        assert_eq!(rows.lines().skip(1).collect::<Vec<_>>(), ["1,5", "2,-5"], "{step}");
    }
    assert!(!world.folder.path().join("lake/parts/_delta_log").exists());
    world.shop("update orders set total = 6 where id = 2");
    world.ok(1, &[]);
    for table in ["parts", "merged"] {
        assert_eq!(asked(&world, table, "select sum(total) from t"), ["version 0", "11"], "{table}");
    }
}

#[test]
fn what_goes_by_files_alone_keeps_off_a_table() {
    let world = World::sqlite();
    world.shop("create table orders(id integer primary key); insert into orders values (1)");
    let steps = |format: &str| {
        world.steps(&format!(
            "  orders: {{extract: {{from: shop, table: orders}}}}
  l: {{load: {{from: orders, to: lake, path: t/, format: {format}, strategy: replace}}}}\n"
        ));
    };
    steps("delta");
    world.ok(1, &[]);
    for args in [&["compact", "lake:t/"][..], &["sql", "select * from 'lake/t/'"][..]] {
        let said = world.folder.run(args);
        assert_ne!(said.code, Some(0), "{said}");
        assert!(said.error().contains("Delta table"), "{said}");
    }
    steps("parquet");
    let said = world.run(2, &[]);
    assert!(said.error().contains("add `format: delta`"), "{said}");
    assert_eq!(asked(&world, "t", "select id from t"), ["version 0", "1"]);
}
