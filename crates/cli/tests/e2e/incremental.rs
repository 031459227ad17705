//! Incremental extracts: what is new, once, from SQLite and PostgreSQL into every kind of target.

use crate::support::{Folder, Said};
use gristmill_testkit::postgres;

const DAY: &str = "2024-01-15";
const TO_BOTH: &str = "  to_db: {load: {from: orders, to: out, table: orders, strategy: append}}\n  to_lake: {load: {from: orders, to: lake, path: orders/, strategy: append}}\n";

/// A project that reads `orders` from a SQLite database by `options`.
fn project(options: &str, loads: &str) -> Folder {
    let folder = Folder::new();
    folder.write(
        "gristmill.yaml",
        "name: grow\nmain: p\nconnections:\n  shop: {type: sqlite, path: shop.db, max_rows_per_second: 1000000}\n  out: {type: sqlite, path: out.db}\n  lake: {type: files, url: ./lake}\n",
    );
    change(&folder, "create table orders(id integer primary key, at datetime, note text)");
    write(&folder, options, loads);
    folder
}

fn write(folder: &Folder, options: &str, loads: &str) {
    folder.write(
        "pipelines/p.yaml",
        format!("name: p\nsteps:\n  orders: {{extract: {{from: shop, table: orders, {options}}}}}\n{loads}"),
    );
}

fn change(folder: &Folder, sql: &str) {
    rusqlite::Connection::open(folder.path().join("shop.db")).unwrap().execute_batch(sql).unwrap();
}

fn add(folder: &Folder, rows: &[(i64, Option<&str>)]) {
    for (id, at) in rows {
        let at = at.map_or("null".to_owned(), |at| format!("'2024-01-{at}'"));
        change(folder, &format!("insert into orders values ({id}, {at}, 'n{id}')"));
    }
}

fn run(folder: &Folder, more: &[&str]) -> Said {
    folder.run(&[&["run", ".", "--date", DAY], more].concat())
}

#[track_caller]
fn succeed(folder: &Folder, more: &[&str]) -> String {
    let said = run(folder, more);
    assert_eq!(said.code, Some(0), "{said}");
    said.out
}

fn ids(folder: &Folder) -> String {
    let database = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
    let sql = "select coalesce(group_concat(id, ' '), '') from (select id from orders order by id)";
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn lake_ids(folder: &Folder) -> String {
    folder.rows("select id from 'lake/orders/' order by id").join(" ")
}

#[test]
fn each_row_is_loaded_once_however_often_and_for_whichever_day_it_runs() {
    let folder = project("incremental_key: at", TO_BOTH);
    add(&folder, &[(1, Some("10 10:00:00")), (2, Some("11 10:00:00")), (3, Some("11 10:00:00"))]);
    let said = succeed(&folder, &[]);
    assert!(said.contains("at from the beginning to 2024-01-11 10:00:00"), "{said}");
    assert_eq!((ids(&folder), lake_ids(&folder)), ("1 2 3".to_owned(), "1 2 3".to_owned()));

    // Nothing new.
    let said = succeed(&folder, &[]);
    assert!(said.contains("2 rows were loaded before and left out"), "{said}");
    assert_eq!(ids(&folder), "1 2 3");

    // One at the very cursor, one after it; for a later day, and then for an earlier one.
    add(&folder, &[(4, Some("11 10:00:00")), (5, Some("12 00:00:00"))]);
    folder.ok(&["run", ".", "--date", "2024-01-20"]);
    assert_eq!((ids(&folder), lake_ids(&folder)), ("1 2 3 4 5".to_owned(), "1 2 3 4 5".to_owned()));
    add(&folder, &[(6, Some("13 00:00:00"))]);
    folder.ok(&["run", ".", "--date", "2024-01-02"]);
    assert_eq!((ids(&folder), lake_ids(&folder)), ("1 2 3 4 5 6".to_owned(), "1 2 3 4 5 6".to_owned()));

    // The cursor is in the target: the store may be lost, and a step be renamed.
    std::fs::remove_dir_all(folder.path().join(".gristmill")).unwrap();
    succeed(&folder, &[]);
    assert_eq!(ids(&folder), "1 2 3 4 5 6");
    let renamed = std::fs::read_to_string(folder.path().join("pipelines/p.yaml")).unwrap();
    let renamed =
        renamed.replace("  orders: {extract", "  sales: {extract").replace("from: orders, to", "from: sales, to");
    folder.write("pipelines/p.yaml", renamed);
    add(&folder, &[(7, Some("14 00:00:00"))]);
    succeed(&folder, &[]);
    assert_eq!((ids(&folder), lake_ids(&folder)), ("1 2 3 4 5 6 7".to_owned(), "1 2 3 4 5 6 7".to_owned()));
}

#[test]
fn rows_that_come_late_within_the_lag_are_loaded_and_none_is_doubled() {
    let folder = project("incremental_key: at, lag: 2h", TO_BOTH);
    add(&folder, &[(1, Some("10 08:00:00")), (2, Some("10 09:30:00")), (3, Some("10 10:00:00"))]);
    succeed(&folder, &[]);
    add(&folder, &[(4, Some("10 08:30:00")), (5, Some("10 10:00:00")), (6, Some("10 07:00:00"))]);
    succeed(&folder, &[]);
    assert_eq!((ids(&folder), lake_ids(&folder)), ("1 2 3 4 5".to_owned(), "1 2 3 4 5".to_owned()), "6 came too late");
    // A longer lag reaches only as far back as rows can be recognised; from the next run on, all the way.
    write(&folder, "incremental_key: at, lag: 10h", TO_BOTH);
    succeed(&folder, &[]);
    assert_eq!(ids(&folder), "1 2 3 4 5");
    // Only the columns that are asked for are loaded; rows are recognised by all of them all the same.
    let loads = "  some: {sql: \"select id from orders where note <> 'n9'\"}\n  to_db: {load: {from: some, to: out, table: ids, strategy: append}}\n";
    write(&folder, "incremental_key: at, lag: 2h", loads);
    succeed(&folder, &[]);
    add(&folder, &[(8, Some("10 09:45:00")), (9, Some("10 09:45:00"))]);
    succeed(&folder, &[]);
    let database = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
    let count: i64 = database.query_row("select count(*) from ids", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 7);
}

#[test]
fn rows_that_change_take_the_place_of_what_they_were() {
    let loads = "  to_db: {load: {from: orders, to: out, table: orders, strategy: delete+insert, key: [id]}}\n";
    let folder = project("incremental_key: at", loads);
    add(&folder, &[(1, Some("10 10:00:00")), (2, Some("11 10:00:00"))]);
    succeed(&folder, &[]);
    change(&folder, "update orders set at = '2024-01-12 00:00:00', note = 'new' where id = 1");
    let said = succeed(&folder, &[]);
    assert!(said.contains("at from 2024-01-11 10:00:00 to 2024-01-12 00:00:00"), "{said}");
    let database = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
    let notes: String = database
        .query_row("select group_concat(id || note, ' ') from (select * from orders order by id)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(notes, "1new 2n2");
}

#[test]
fn a_full_refresh_loads_everything_again_in_place_of_what_is_there() {
    let folder = project("incremental_key: at", TO_BOTH);
    add(&folder, &[(1, Some("10 10:00:00")), (2, Some("11 10:00:00"))]);
    succeed(&folder, &[]);
    change(&folder, "delete from orders where id = 1");
    add(&folder, &[(3, Some("09 00:00:00"))]);
    succeed(&folder, &["--full-refresh"]);
    assert_eq!((ids(&folder), lake_ids(&folder)), ("2 3".to_owned(), "2 3".to_owned()));
    add(&folder, &[(4, Some("12 00:00:00"))]);
    succeed(&folder, &[]);
    assert_eq!((ids(&folder), lake_ids(&folder)), ("2 3 4".to_owned(), "2 3 4".to_owned()));
}

#[test]
fn rows_without_a_cursor_are_refused_read_every_time_or_never() {
    let folder = project("incremental_key: at", TO_BOTH);
    add(&folder, &[(1, Some("10 10:00:00")), (2, None)]);
    let refused = run(&folder, &[]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.error().contains("a row has no `at`"), "{refused}");
    write(&folder, "incremental_key: at, on_cursor_missing: include", TO_BOTH);
    for _ in 0..2 {
        succeed(&folder, &[]);
        assert_eq!((ids(&folder), lake_ids(&folder)), ("1 2".to_owned(), "1 2".to_owned()));
    }
    write(&folder, "incremental_key: at, on_cursor_missing: exclude", TO_BOTH);
    add(&folder, &[(3, None), (4, Some("12 00:00:00"))]);
    succeed(&folder, &[]);
    assert_eq!(ids(&folder), "1 2 4");
}

#[test]
fn what_would_lose_rows_is_refused() {
    let folder = project("incremental_key: at", TO_BOTH);
    add(&folder, &[(1, Some("10 10:00:00"))]);
    succeed(&folder, &[]);
    // Another condition: older rows that it lets through would be missed.
    write(&folder, "incremental_key: at, where: \"id > 0\"", TO_BOTH);
    let refused = run(&folder, &[]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.error().contains("is not the one that its cursor was made with"), "{refused}");
    write(&folder, "incremental_key: id", TO_BOTH);
    assert!(run(&folder, &[]).error().contains("the `incremental_key` of `orders` is not the one"));
    // Strategies that drop what earlier runs have loaded.
    for load in ["strategy: replace", "strategy: delete+insert, scope: \"id = 1\""] {
        write(
            &folder,
            "incremental_key: at",
            &format!("  l: {{load: {{from: orders, to: out, table: orders, {load}}}}}\n"),
        );
        let refused = folder.run(&["validate"]);
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(refused.out.contains("gets only what is new of `orders`"), "{refused}");
    }
    for (options, message) in [
        ("lag: 2h", "`lag` goes with `incremental_key`"),
        ("incremental_key: at, lag: soon", "`soon` is not a lag"),
        ("incremental_key: nope", "`nope`"),
        ("incremental_key: at, lag: 5", "`lag: 5` does not go with `at`"),
    ] {
        write(&folder, options, "  l: {load: {from: orders, to: out, table: other, strategy: append}}\n");
        let refused = run(&folder, &[]);
        assert!(refused.code != Some(0) && refused.error().contains(message), "{options}: {refused}");
    }
    // A load that joins later begins elsewhere.
    write(
        &folder,
        "incremental_key: at",
        &format!("{TO_BOTH}  third: {{load: {{from: orders, to: out, table: third, strategy: append}}}}\n"),
    );
    let refused = run(&folder, &[]);
    assert!(refused.error().contains("have not come equally far"), "{refused}");
    assert_eq!(ids(&folder), "1");
}

#[test]
fn columns_that_change_are_followed_or_refused() {
    let folder = project("incremental_key: at", TO_BOTH);
    add(&folder, &[(1, Some("10 10:00:00"))]);
    succeed(&folder, &[]);
    // Followed: the targets get the column, too.
    change(&folder, "alter table orders add column price real; insert into orders values (2, '2024-01-11', 'n2', 1.5)");
    succeed(&folder, &[]);
    assert_eq!(folder.rows("select id, price from 'lake/orders/' order by id"), ["1,", "2,1.5"]);
    write(&folder, "incremental_key: at, schema_contract: freeze", TO_BOTH);
    succeed(&folder, &[]);
    change(&folder, "alter table orders add column tax real");
    let refused = run(&folder, &[]);
    assert!(refused.code == Some(1) && refused.error().contains("the column `tax` (double) is new"), "{refused}");
    change(&folder, "alter table orders drop column tax; alter table orders drop column price");
    assert!(run(&folder, &[]).error().contains("the column `price` is gone"));
    change(&folder, "alter table orders add column price text");
    assert!(run(&folder, &[]).error().contains("the column `price` is text now, it was double"));
    assert_eq!(ids(&folder), "1 2");
    write(&folder, "schema_contract: freeze", TO_BOTH);
    assert!(folder.run(&["validate"]).out.contains("goes with `incremental_key`"));
}

#[test]
fn of_rows_with_one_key_the_latest_is_kept() {
    let loads = "  to_db: {load: {from: orders, to: out, table: orders, strategy: append}}\n";
    let folder = project("dedup: {key: note, keep: latest by at}", loads);
    change(
        &folder,
        "insert into orders values (1, '2024-01-10', 'a'), (2, '2024-01-11', 'a'), (3, null, 'a'), (4, null, 'b'), \
         (5, '2024-01-01', null), (6, '2024-01-02', null), (7, '2024-01-11', 'a')",
    );
    succeed(&folder, &[]);
    // Of two equally late ones the one with the greater id; rows without a key are not each other's.
    assert_eq!(ids(&folder), "4 5 6 7");
    let folder = project("dedup: {key: note, keep: earliest by at}", loads);
    change(&folder, "insert into orders values (1, '2024-01-10', 'a'), (2, '2024-01-11', 'a'), (3, null, 'a')");
    succeed(&folder, &[]);
    assert_eq!(ids(&folder), "1");
    let loads = loads.replace("append", "replace");
    write(&folder, "dedup: {key: nope, keep: latest by at}", &loads);
    assert!(run(&folder, &[]).error().contains("`dedup` names the column `nope`"));
    write(&folder, "dedup: {key: note, keep: last}", &loads);
    assert!(run(&folder, &[]).error().contains("latest by"));
}

#[test]
fn postgresql_is_read_from_the_cursor_on_by_every_kind_of_key() {
    let database = postgres::database();
    for (kind, first, second, lag) in [
        ("bigint", "9223372036854775806", "9223372036854775807", ""),
        ("integer", "-5", "7", ", lag: 100"),
        ("numeric(20,4)", "1.5000", "1.5001", ", lag: 2"),
        ("date", "2024-01-10", "2024-01-11", ", lag: 1d"),
        ("timestamp", "2024-01-10 10:00:00.000001", "2024-01-10 10:00:00.000002", ", lag: 2h"),
        ("timestamptz", "2024-03-31 00:59:59+00", "2024-03-31 01:00:00+00", ", lag: 2h"),
        ("text", "b", "ä", ""),
    ] {
        database.sql("drop table if exists t cascade; drop schema if exists out cascade; create schema out");
        database.sql(&format!("create table t(id int, k {kind}); insert into t values (1, '{first}'), (2, '{first}')"));
        let mut folder = Folder::new();
        folder.set("PG", database.local_url());
        folder.write(
            "gristmill.yaml",
            "name: grow\nmain: p\nconnections:\n  db: {type: postgres, url: \"${PG}\"}\n  lake: {type: files, url: ./lake}\n",
        );
        let source = |what: &str| {
            folder.write(
                "pipelines/p.yaml",
                format!(
                    "name: p\nsteps:\n  rows: {{extract: {{from: db, {what}, incremental_key: k{lag}}}}}\n  \
                     to_db: {{load: {{from: rows, to: db, table: out.t, strategy: append}}}}\n  \
                     to_lake: {{load: {{from: rows, to: lake, path: t/, strategy: append}}}}\n"
                ),
            );
        };
        source("table: t");
        for _ in 0..2 {
            succeed(&folder, &[]);
        }
        database.sql(&format!("insert into t values (3, '{first}'), (4, '{second}')"));
        for _ in 0..2 {
            succeed(&folder, &[]);
            let loaded = database.sql("select string_agg(id::text, ' ' order by id) from out.t");
            assert_eq!(loaded.trim(), "1 2 3 4", "{kind}");
            assert_eq!(folder.rows("select id from 'lake/t/' order by id").join(" "), "1 2 3 4", "{kind}");
        }
        // A query, from where the table is done: refused, since it may give other rows.
        source("query: \"select * from t -- all of it\"");
        assert!(run(&folder, &[]).error().contains("is not the one that its cursor was made with"), "{kind}");
        succeed(&folder, &["--full-refresh"]);
        succeed(&folder, &[]);
        assert_eq!(database.sql("select count(*) from out.t").trim(), "4", "{kind}");
    }
}

#[test]
fn a_key_that_cannot_be_a_cursor_is_refused_by_name() {
    let database = postgres::database();
    database.sql(
        "create table t(id uuid, b boolean, at timestamptz); insert into t values (gen_random_uuid(), true, 'infinity')",
    );
    let mut folder = Folder::new();
    folder.set("PG", database.local_url());
    folder.write(
        "gristmill.yaml",
        "name: grow\nmain: p\nconnections:\n  db: {type: postgres, url: \"${PG}\"}\n  out: {type: sqlite, path: out.db}\n  lake: {type: files, url: ./lake}\n",
    );
    folder.write("lake/a.csv", "id\n1\n");
    for (extract, message) in [
        ("from: db, table: t, incremental_key: id", "`id` is uuid, which has no greatest value"),
        ("from: db, table: t, incremental_key: b", "`b` is boolean, which has no greatest value"),
        ("from: db, table: t, incremental_key: at", "the greatest `at` of `t` is infinity"),
        ("from: db, table: t, incremental_key: nope", "`t` has no column `nope`"),
        ("from: db, table: t, columns: [id], incremental_key: at", "`t` has no column `at`"),
        ("from: lake, path: a.csv, incremental_key: id", "`incremental_key: id` is not for files"),
    ] {
        folder.write(
            "pipelines/p.yaml",
            format!("name: p\nsteps:\n  rows: {{extract: {{{extract}}}}}\n  l: {{load: {{from: rows, to: out, table: t, strategy: append}}}}\n"),
        );
        let refused = run(&folder, &[]);
        assert!(refused.code != Some(0) && refused.error().contains(message), "{extract}: {refused}");
    }
}

#[test]
fn a_text_among_numbers_is_no_cursor() {
    let loads = "  to_db: {load: {from: orders, to: out, table: orders, strategy: append}}\n";
    let folder = project("incremental_key: seq, on_bad_row: drop", loads);
    change(&folder, "alter table orders add seq integer; insert into orders(id, seq) values (1, 1), (2, 'n/a')");
    let refused = run(&folder, &[]);
    let told = "`seq` holds the text `n/a` among numbers";
    assert!(refused.code == Some(1) && refused.error().contains(told), "{refused}");
    change(&folder, "update orders set seq = 2 where id = 2");
    succeed(&folder, &[]);
    // It would have been the cursor, and nothing would have been greater.
    change(&folder, "insert into orders(id, seq) values (3, 'n/a')");
    assert!(run(&folder, &[]).error().contains(told));
    change(&folder, "update orders set seq = 3 where id = 3; insert into orders(id, seq) values (4, 4)");
    succeed(&folder, &[]);
    assert_eq!(ids(&folder), "1 2 3 4");
}
