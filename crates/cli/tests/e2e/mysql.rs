//! MariaDB as a source, and as a target, through the real binary: run, copy, sql, conn.

use crate::support::Folder;
use gristmill_testkit::{mariadb, postgres};

const PROJECT: &str = "name: shop
connections:
  shop: {type: mysql, url: \"${SHOP_URL}\"}
  lake: {type: files, url: ./lake}
  lite: {type: sqlite, path: shop.db}
";

const PIPELINE: &str = "name: orders
steps:
  orders:
    extract: {from: shop, table: orders, where: \"day = '{{ ds }}'\"}
    units: {strategy: id_range, target_rows: 1000, verify: count}
  regions:
    extract: {from: shop, query: \"select region, sum(total) as total from orders group by region\"}
  load_orders:
    load: {from: orders, to: lake, path: orders/, format: parquet, strategy: replace}
  load_regions:
    load: {from: regions, to: lite, table: regions, strategy: replace}
";

#[test]
fn rows_come_from_mariadb_through_run_copy_and_sql() {
    let database = mariadb::database();
    database.sql(
        "create table orders(id bigint unsigned primary key, region varchar(20), total decimal(12,2), day date, paid boolean);
         insert into orders select seq, elt(1 + seq % 3, 'north', 'süd', null), seq * 0.25,
           if(seq % 2, '2024-01-15', '2024-01-16'), seq % 5 = 0 from seq_1_to_10000",
    );
    let mut folder = Folder::new();
    folder.set("SHOP_URL", database.url());
    folder.write("gristmill.yaml", PROJECT).write("pipelines/orders.yaml", PIPELINE);
    folder.ok(&["run", ".", "--date", "2024-01-15"]);
    let sums = "count(*), count(region), sum(total), sum(cast(paid as int)), max(id)";
    assert_eq!(folder.rows(&format!("select {sums} from 'lake/orders/'")), ["5000,3334,6250000.00,1000,9999"]);
    assert_eq!(folder.rows("select count(*), sum(total) from lite.regions"), ["3,12501250.00"]);
    assert_eq!(
        folder.rows(&format!("select {sums} from shop.orders where day = '2024-01-16'")),
        ["5000,3333,6251250.00,1000,10000"]
    );
    assert_eq!(folder.rows("select id from shop.orders limit 7").len(), 7);
    for (condition, rows) in [
        ("id <= 10", "10"),
        ("id in (1, 2, 20000)", "2"),
        ("id is null", "0"),
        ("day > '2024-01-15' and id > 9990", "5"),
        ("region is null", "3333"),
        ("paid and id < 11", "2"),
    ] {
        let counted = folder.rows(&format!("select count(*), count(distinct id) from shop.orders where {condition}"));
        assert_eq!(counted, [format!("{rows},{rows}")], "{condition}");
    }
    folder.ok(&["copy", "shop:orders", "all.parquet"]);
    assert_eq!(folder.rows(&format!("select {sums} from 'all.parquet'")), ["10000,6667,12501250.00,2000,10000"]);

    let plan = folder.ok(&["plan", ".", "--date", "2024-01-15"]);
    assert!(plan.contains("ranges of `id`, as `units` says"), "{plan}");
    let test = folder.ok(&["conn", "test", "shop"]);
    assert!(test.contains("MariaDB"), "{test}");
    let found = folder.ok(&["conn", "discover", "shop", "--columns"]);
    assert!(found.contains("orders") && found.contains("decimal(12,2)"), "{found}");

    // And back: into a new table, and into the one that is there.
    folder.ok(&["copy", "all.parquet", "shop:copied"]);
    folder.ok(&["copy", "all.parquet", "shop:orders", "--strategy", "replace"]);
    let sums = "select count(*), sum(total), sum(paid), sum(crc32(region)), max(day) from";
    assert_eq!(database.sql(&format!("{sums} copied")), database.sql(&format!("{sums} orders")));
    assert_eq!(database.sql("select count(*) from orders where paid"), "2000");
}

#[test]
fn what_is_new_is_read_from_the_cursor_on_by_every_kind_of_key() {
    let database = mariadb::database();
    for (kind, first, second, lag) in [
        ("bigint unsigned", "18446744073709551614", "18446744073709551615", ""),
        ("int", "-5", "7", ", lag: 100"),
        ("year", "2023", "2024", ", lag: 1"),
        ("decimal(20,4)", "1.5000", "1.5001", ", lag: 2"),
        ("float", "0.1", "0.3", ""),
        ("double", "1e-9", "1.7e308", ""),
        ("date", "2024-01-10", "2024-01-11", ", lag: 1d"),
        ("datetime(6)", "2024-01-10 10:00:00.000001", "2024-01-10 10:00:00.000002", ", lag: 2h"),
        ("timestamp", "2024-03-31 00:59:59", "2024-03-31 01:00:00", ", lag: 2h"),
        // Equal by the collation, and two values all the same.
        ("varchar(20) collate utf8mb4_general_ci", "B", "b", ""),
        ("text character set latin1", "b", "ä's", ""),
    ] {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let (first, second) = (quote(first), quote(second));
        database.sql(&format!(
            "drop table if exists t; create table t(id int primary key, k {kind}); insert into t values (1, {first}), (2, {first})"
        ));
        let mut folder = Folder::new();
        folder.set("SHOP_URL", database.url());
        folder.write("gristmill.yaml", PROJECT);
        let source = |what: &str| {
            folder.write(
                "pipelines/orders.yaml",
                format!(
                    "name: orders\nsteps:\n  rows: {{extract: {{from: shop, {what}, incremental_key: k{lag}}}}}\n  \
                     ids: {{sql: select id from rows}}\n  \
                     to_lite: {{load: {{from: ids, to: lite, table: t, strategy: append}}}}\n  \
                     to_lake: {{load: {{from: rows, to: lake, path: t/, strategy: append}}}}\n"
                ),
            );
        };
        let run = |more: &[&str]| folder.ok(&[&["run", ".", "--date", "2024-01-15"], more].concat());
        let loaded = || {
            let of = |from: &str| folder.rows(&format!("select id from {from} order by id")).join(" ");
            (of("lite.t"), of("'lake/t/'"))
        };
        source("table: t");
        for _ in 0..2 {
            run(&[]);
            assert_eq!(loaded(), ("1 2".to_owned(), "1 2".to_owned()), "{kind}");
        }
        database.sql(&format!("insert into t values (3, {first}), (4, {second})"));
        for _ in 0..2 {
            run(&[]);
            assert_eq!(loaded(), ("1 2 3 4".to_owned(), "1 2 3 4".to_owned()), "{kind}");
        }
        // A query gives other rows, maybe.
        source("query: \"select * from t -- all of it\"");
        let refused = folder.run(&["run", ".", "--date", "2024-01-15"]);
        assert!(refused.error().contains("is not the one that its cursor was made with"), "{kind}: {refused}");
        run(&["--full-refresh"]);
        run(&[]);
        assert_eq!(loaded().0, "1 2 3 4", "{kind}");
    }
}

#[test]
fn a_column_that_cannot_be_a_cursor_is_refused_by_name() {
    let database = mariadb::database();
    database.sql(
        "create table t(id int primary key, e enum('b', 'a'), raw varbinary(9), d date, k int); set sql_mode = '';
         insert into t values (1, 'a', x'00', '0000-00-00', null)",
    );
    let mut folder = Folder::new();
    folder.set("SHOP_URL", database.url());
    folder.write("gristmill.yaml", PROJECT);
    for (extract, message) in [
        ("incremental_key: e", "`e` is string, which cannot be a cursor"),
        ("incremental_key: raw", "`raw` is var_string, which cannot be a cursor"),
        ("incremental_key: d", "the greatest `d` of `t` is 0000-00-00"),
        ("incremental_key: nope", "`t` has no column `nope`"),
        ("incremental_key: k, columns: [id]", "`t` has no column `k`"),
        ("incremental_key: k, columns: [id, k]", "a row has no `k`"),
    ] {
        folder.write(
            "pipelines/orders.yaml",
            format!("name: orders\nsteps:\n  rows: {{extract: {{from: shop, table: t, {extract}}}}}\n  l: {{load: {{from: rows, to: lite, table: t, strategy: append}}}}\n"),
        );
        let refused = folder.run(&["run", ".", "--date", "2024-01-15"]);
        assert!(refused.code != Some(0) && refused.error().contains(message), "{extract}: {refused}");
    }
    database.sql("update t set k = 5");
    folder.ok(&["run", ".", "--date", "2024-01-15"]);
    // A lag that does not go with the type is known when there is something to take it from.
    let text = std::fs::read_to_string(folder.path().join("pipelines/orders.yaml")).unwrap();
    folder.write("pipelines/orders.yaml", text.replace("incremental_key: k", "incremental_key: k, lag: 2h"));
    let refused = folder.run(&["run", ".", "--date", "2024-01-15"]);
    assert!(refused.error().contains("`lag: 2h` does not go with `k`"), "{refused}");
}

#[test]
fn comments_of_columns_go_along_into_the_tables_that_a_load_makes() {
    let (shop, store) = (mariadb::database(), postgres::database());
    shop.sql(
        "create table orders (id int primary key comment 'it''s the key', region varchar(9) comment 'north, süd', plain int);
         insert into orders values (1, 'north', 1), (2, null, 2)",
    );
    let mut folder = Folder::new();
    folder.set("SHOP_URL", shop.url()).set("STORE_URL", store.local_url());
    folder.write("gristmill.yaml", format!("{PROJECT}  store: {{type: postgres, url: \"${{STORE_URL}}\"}}\n")).write(
        "pipelines/orders.yaml",
        "name: orders
steps:
  orders:
    extract: {from: shop, table: orders}
    checks: [{not_null: id}]
  to_store: {load: {from: orders, to: store, table: orders, strategy: replace}}
  to_merged: {load: {from: orders, to: store, table: merged, strategy: merge, key: id}}
  to_shop: {load: {from: orders, to: shop, table: copied, strategy: append}}
  to_lite: {load: {from: orders, to: lite, table: orders, strategy: replace}}
  to_lake: {load: {from: orders, to: lake, path: orders/, format: parquet, strategy: replace}}
",
    );
    // A second time into what is there.
    for day in ["2024-01-15", "2024-01-16"] {
        folder.ok(&["run", ".", "--date", day]);
        for table in ["orders", "merged"] {
            let comments = format!(
                "select string_agg(coalesce(col_description(attrelid, attnum), '-'), '|' order by attnum) from pg_attribute \
                 where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped"
            );
            assert_eq!(store.sql(&comments), "it's the key|north, süd|-", "{table}, {day}");
        }
        let comments = "select group_concat(column_comment order by ordinal_position separator '|') from \
                        information_schema.columns where table_schema = database() and table_name = 'copied'";
        assert_eq!(shop.sql(comments), "it's the key|north, süd|", "{day}");
    }
    assert_eq!(store.sql("select count(*) from orders"), "2");
    assert_eq!(folder.rows("select count(*), sum(id) from 'lake/orders/'"), ["2,3"]);
    assert_eq!(folder.rows("select count(*), sum(id) from lite.orders"), ["2,3"]);
}
