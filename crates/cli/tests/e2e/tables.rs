//! Many tables in one pipeline: each is loaded by itself, from PostgreSQL, MariaDB and SQLite.

use crate::support::{Folder, Said};
use gristmill_testkit::{mariadb, postgres};

const CONNECTIONS: &str = "name: many
main: p
connections:
  db: {type: postgres, url: \"${PG}\"}
  lake: {type: files, url: ./lake}
  lite: {type: sqlite, path: lite.db}
";

fn write(folder: &Folder, extract: &str, loads: &str) {
    folder.write("pipelines/p.yaml", format!("name: p\nsteps:\n  all:\n    extract: {{from: db, {extract}}}\n{loads}"));
}

fn run(folder: &Folder, more: &[&str]) -> Said {
    folder.run(&[&["run", ".", "--date", "2024-01-15"], more].concat())
}

#[track_caller]
fn succeed(folder: &Folder) -> String {
    let said = run(folder, &[]);
    assert_eq!(said.code, Some(0), "{said}");
    said.out
}

/// The folders below `lake/raw`, sorted.
fn folders(folder: &Folder) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder.path().join("lake/raw"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn each_table_of_a_schema_is_loaded_by_itself() {
    let database = postgres::database();
    database.sql(
        "create schema shop; create schema copy;
         create table shop.orders(id int primary key, total numeric(10,2));
         create table shop.\"Order Items\"(\"Order Id\" int, line int, primary key (\"Order Id\", line));
         create table shop.\"a.b/c\"(id int primary key);
         create table shop.tmp_load(id int);
         create view shop.recent as select * from shop.orders;
         insert into shop.orders select i, i from generate_series(1, 100) i;
         insert into shop.\"Order Items\" select i, 1 from generate_series(1, 50) i;
         insert into shop.\"a.b/c\" values (7)",
    );
    let mut folder = Folder::new();
    folder.set("PG", database.local_url());
    folder.write("gristmill.yaml", CONNECTIONS);
    let loads = "    checks: [{row_count: {min: 1}}]
  to_lake: {load: {from: all, to: lake, path: \"raw/{{ schema }}.{{ table }}/\", strategy: replace}}
  to_copy:
    load: {from: all, to: db, table: 'copy.\"{{ table }}\"', strategy: delete+insert}
    checks: [{unique: [\"Order Id\", line], on_fail: warn}]
  done: {command: \"echo done >> done\", after: [to_lake, to_copy]}
";
    // That check is about one table, so it cannot be made for all of them.
    let without = loads.replace("\n    checks: [{unique: [\"Order Id\", line], on_fail: warn}]", "");
    write(&folder, "tables: \"shop.*\", exclude: \"shop.tmp_*\"", &without);
    let plan = folder.ok(&["plan", ".", "--date", "2024-01-15"]);
    for part in ["to_lake[shop.orders]", "to_copy[shop.Order%20Items] → db:copy.\"Order Items\"", "all[shop.a%2Eb%2Fc]"]
    {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    assert!(!plan.contains("tmp_load") && !plan.contains("recent"), "{plan}");
    let said = succeed(&folder);
    assert!(said.contains("to_lake[shop.orders]") && said.contains("1 passed"), "{said}");
    assert_eq!(folders(&folder), ["shop.Order%20Items", "shop.a.b%2Fc", "shop.orders"]);
    assert_eq!(folder.rows("select count(*), sum(total) from 'lake/raw/shop.orders/'"), ["100,5050.00"]);
    let copied = "select (select count(*) from copy.orders), (select count(*) from copy.\"Order Items\"), (select id from copy.\"a.b/c\")";
    assert_eq!(database.sql(copied).trim(), "100|50|7");

    // One is new, one is gone, rows have changed: each by its own key, and the others as they were.
    database.sql(
        "create table shop.people(name text primary key); insert into shop.people values ('Ada');
         drop table shop.\"a.b/c\";
         update shop.orders set total = 0 where id = 1; insert into shop.orders values (101, 1)",
    );
    let said = succeed(&folder);
    assert!(!said.contains("a%2Eb"), "{said}");
    assert_eq!(folders(&folder).last().unwrap(), "shop.people");
    assert_eq!(
        database.sql("select count(*), sum(total) from copy.orders").trim(),
        "101|5050.00",
        "delete+insert by its primary key"
    );
    assert_eq!(database.sql(copied).trim(), "101|50|7", "what was loaded of a table that is gone stays");
    assert_eq!(std::fs::read_to_string(folder.path().join("done")).unwrap(), "done\ndone\n");

    // Each has a slot of its own, and one of them can be run alone.
    let only = run(&folder, &["--step", "to_copy[shop.people]"]);
    assert!(only.code == Some(0) && !only.out.contains("orders"), "{only}");
    assert!(folder.ok(&["recover"]).contains("nothing to recover"));
}

#[test]
fn a_table_that_cannot_be_read_is_named_and_harms_no_other() {
    let database = postgres::database();
    database.sql(
        "do $$ begin create role lister login password 'lister'; exception when duplicate_object then null; end $$;
         create table a(id int primary key); create table secret(id int); create table z(id int); create table hidden(id int);
         insert into a values (1); insert into z values (1), (2); grant select on a, z to lister",
    );
    let mut folder = Folder::new();
    let url = format!("postgres://lister:lister@127.0.0.1:{}/{}", database.port, database.name);
    folder.set("PG", url);
    folder.write("gristmill.yaml", CONNECTIONS);
    let loads = "  load: {load: {from: all, to: lite, table: \"{{ table }}\", strategy: replace}}
  single: {extract: {from: db, table: a}}
  own: {load: {from: single, to: lite, table: own, strategy: replace}}
";
    write(&folder, "tables: \"*\"", loads);
    let plan = folder.run(&["plan", ".", "--date", "2024-01-15"]);
    assert_eq!(plan.code, Some(1), "{plan}");
    assert!(plan.out.contains("load[public.z]") && plan.error().contains("`lister` may not read"), "{plan}");
    let said = run(&folder, &[]);
    assert_eq!(said.code, Some(1), "{said}");
    // Each of them that fails is named, with its reason.
    for table in ["secret", "hidden"] {
        let message = format!("`lister` may not read `public.{table}`");
        assert!(said.out.contains(&message) || said.error().contains(&message), "{said}");
    }
    assert!(said.error().contains("[public."), "{said}");
    assert_eq!(folder.rows("select (select count(*) from lite.a) as a, (select count(*) from lite.z) as z"), ["1,2"]);
    // What is none of the tables is published with all of them, or not at all.
    assert!(folder.run(&["sql", "select * from lite.own"]).code != Some(0));

    database.sql("grant select on secret, hidden to lister");
    succeed(&folder);
    assert_eq!(folder.rows("select count(*) from lite.secret"), ["0"]);
    assert_eq!(folder.rows("select count(*) from lite.own"), ["1"]);
}

#[test]
fn each_table_has_a_cursor_of_its_own() {
    let database = postgres::database();
    database.sql(
        "create table a(id int primary key, at timestamp); create table b(id int primary key, at timestamp);
         create table c(id int primary key);
         insert into a values (1, '2024-01-10'); insert into b values (1, '2024-02-10'); insert into c values (1)",
    );
    let mut folder = Folder::new();
    folder.set("PG", database.local_url());
    folder.write("gristmill.yaml", CONNECTIONS);
    let loads = "  load: {load: {from: all, to: lite, table: \"{{ table }}\", strategy: append}}\n";
    write(&folder, "tables: [\"*\"], incremental_key: at", loads);
    let counts = "select (select count(*) from lite.a) as a, (select count(*) from lite.b) as b, (select count(*) from lite.c) as c";
    for _ in 0..2 {
        succeed(&folder);
        // `c` has no such column: it is read whole, and takes the place of what was loaded.
        assert_eq!(folder.rows(counts), ["1,1,1"]);
    }
    database.sql(
        "insert into a values (2, '2024-01-11'); insert into b values (2, '2024-02-09'), (3, '2024-02-10');
         insert into c values (2)",
    );
    folder.ok(&["run", ".", "--date", "2024-01-16"]);
    // The second of `b` came too late for its cursor, though not for that of `a`.
    assert_eq!(folder.rows(counts), ["2,2,2"]);
    let said = folder.ok(&["run", ".", "--date", "2024-01-16", "--full-refresh"]);
    assert_eq!(folder.rows(counts), ["2,3,2"], "{said}");

    // One that gets the column later would be read from its beginning: what it has loaded would be there twice.
    database
        .sql("alter table c add at timestamp; update c set at = '2024-01-12'; insert into a values (3, '2024-03-01')");
    let said = run(&folder, &[]);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.error().contains("has loaded `lite:c` without a cursor until now"), "{said}");
    assert_eq!(folder.rows(counts), ["3,3,2"]);
    folder.ok(&["run", ".", "--date", "2024-01-15", "--full-refresh", "--step", "load[public.c]"]);
    database.sql("insert into c values (3, '2024-01-13')");
    succeed(&folder);
    assert_eq!(folder.rows(counts), ["3,3,3"]);
}

#[test]
fn many_tables_come_from_sqlite_and_mariadb_as_well() {
    let mariadb = mariadb::database();
    mariadb.sql("create table orders(id int primary key); insert into orders values (1), (2); create table `odd name`(id int); create view v as select 1 as one");
    let mut folder = Folder::new();
    folder.set("MY", mariadb.url());
    folder.write(
        "gristmill.yaml",
        "name: many\nmain: p\nconnections:\n  my: {type: mysql, url: \"${MY}\", max_rows_per_second: 100000}\n  old: {type: sqlite, path: old.db}\n  lite: {type: sqlite, path: lite.db}\n  lake: {type: files, url: ./lake}\n",
    );
    rusqlite::Connection::open(folder.path().join("old.db"))
        .unwrap()
        .execute_batch(
            "create table Orders(id integer primary key); insert into Orders values (1), (2), (3); create table \"x y\"(a); insert into \"x y\" values (1);
             create table tmp(a); create view v as select 1 as one",
        )
        .unwrap();
    folder.write(
        "pipelines/p.yaml",
        "name: p\nsteps:\n  mine: {extract: {from: my, tables: \"*\"}}\n  olds: {extract: {from: old, tables: [\"*\", v], exclude: [tmp]}}\n  \
         load_mine: {load: {from: mine, to: lite, table: \"my_{{ table }}\", strategy: replace}}\n  \
         load_olds: {load: {from: olds, to: lake, path: \"raw/{{ table }}\", strategy: replace}}\n",
    );
    folder.ok(&["run", ".", "--date", "2024-01-15"]);
    assert_eq!(folder.rows("select count(*) from lite.my_orders"), ["2"]);
    assert_eq!(folder.rows("select count(*) from lite.\"my_odd name\""), ["0"]);
    assert_eq!(folders(&folder), ["Orders", "v", "x%20y"]);
    assert_eq!(folder.rows("select count(*) from 'lake/raw/Orders/'"), ["3"]);
    // Names that differ by case are one table in the target.
    mariadb.sql("create table `Orders`(id int)");
    let refused = folder.run(&["run", ".", "--date", "2024-01-15"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.error().contains("would both be loaded into `lite:my_"), "{refused}");
}

#[test]
fn what_cannot_be_said_of_many_tables_is_refused() {
    let database = postgres::database();
    database.sql("create schema one; create schema two; create table one.t(id int); create table two.t(id int)");
    let mut folder = Folder::new();
    folder.set("PG", database.local_url());
    folder.write("gristmill.yaml", CONNECTIONS);
    let load = "  load: {load: {from: all, to: lake, path: \"raw/{{ table }}/\", strategy: replace}}\n";
    for (extract, loads, message) in [
        ("tables: \"none.*\"", load, "no table matches `none.*`"),
        ("tables: \"*.t\"", load, "the tables `one.t` and `two.t` would both be loaded into `lake:raw/t/`"),
        (
            "tables: \"one.*\"",
            "  load: {load: {from: all, to: lake, path: raw/, strategy: replace}}\n",
            "every table of `all` would be loaded into `raw/`",
        ),
        ("table: one.t", load, "the template uses `table`, which is not defined"),
        (
            "tables: \"one.*\"",
            "  q: {sql: 'select * from \"all\"'}\n  load: {load: {from: q, to: lake, path: a/, strategy: replace}}\n",
            "which stands for many tables",
        ),
        ("tables: \"one.*\", columns: [id]", load, "`columns` is for one table"),
        ("tables: \"one.*\", where: \"nope = 1\"", load, "unknown column"),
    ] {
        write(&folder, extract, loads);
        let refused = run(&folder, &[]);
        assert!(refused.code != Some(0) && refused.error().contains(message), "{extract} {loads}: {refused}");
    }
    folder.write(
        "pipelines/p.yaml",
        format!("name: p\nsteps:\n  all: {{extract: {{from: lake, tables: \"*\"}}}}\n{load}"),
    );
    let refused = run(&folder, &[]);
    assert!(refused.error().contains("`tables` is for databases"), "{refused}");
}

#[test]
fn a_run_that_cannot_ask_for_its_tables_is_a_failed_run() {
    let folder = Folder::new();
    folder.write(
        "gristmill.yaml",
        "name: many\nmain: p\nconnections:\n  db: {type: sqlite, path: none/here.db}\n  lake: {type: files, url: ./lake}\n",
    );
    folder.write(
        "pipelines/p.yaml",
        "name: p\nsteps:\n  all: {extract: {from: db, tables: \"*\"}}\n  load: {load: {from: all, to: lake, path: \"{{ table }}/\", strategy: replace}}\n",
    );
    let said = folder.run(&["run", ".", "--date", "2024-01-15"]);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.error().contains("none/here.db"), "{said}");
    let shown = folder.ok(&["show", "last"]);
    assert!(shown.contains("failed") && shown.contains("none/here.db") && shown.contains("upstream_failed"), "{shown}");
    assert!(folder.ok(&["runs"]).contains("failed"));
    // Once it can be asked, the run goes its way.
    std::fs::create_dir(folder.path().join("none")).unwrap();
    let database = rusqlite::Connection::open(folder.path().join("none/here.db")).unwrap();
    database.execute_batch("create table t(n int); insert into t values (1)").unwrap();
    folder.ok(&["run", ".", "--date", "2024-01-15"]);
    assert_eq!(folder.rows("select count(*) from 'lake/t/'"), ["1"]);
}
