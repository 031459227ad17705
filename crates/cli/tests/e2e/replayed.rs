//! Rows of databases and APIs that a reader refused: a replay reads them from their letters, as what the pipeline says of them
//! now, and asks nobody again.

use crate::strategies::World;
use crate::support::Folder;
use gristmill_testkit::json_server::JsonServer;
use serde_json::{Value, json};

fn list(folder: &Folder) -> Vec<(String, u64)> {
    let said = folder.ok(&["dead-letters", "list", "--output", "json"]);
    let sets: Value = serde_json::from_str(&said).unwrap();
    let set = |set: &Value| (set["step"].as_str().unwrap().to_owned(), set["rows"].as_u64().unwrap());
    sets.as_array().unwrap().iter().map(set).collect()
}

/// The run that left the first letters.
fn run_of(folder: &Folder) -> String {
    let said = folder.ok(&["dead-letters", "list", "--output", "json"]);
    let sets: Value = serde_json::from_str(&said).unwrap();
    sets[0]["run"].as_str().unwrap().to_owned()
}

fn replay(folder: &Folder, more: &[&str]) -> String {
    folder.ok(&[&["dead-letters", "replay"], more].concat())
}

fn records(folder: &Folder) -> Vec<Value> {
    let said = folder.ok(&["dead-letters", "show", "--output", "json"]);
    let letters: Value = serde_json::from_str(&said).unwrap();
    let record = |letter: &Value| serde_json::from_str(letter["record"].as_str().unwrap()).unwrap();
    letters.as_array().unwrap().iter().map(record).collect()
}

/// Loads a table whose column `n` is of this type.
fn steps(world: &World, table: &str, kind: &str, into: &str) {
    world.steps(&format!(
        "  v: {{extract: {{from: shop, table: {table}, on_bad_row: dead_letter, schema: {{n: {kind}}}}}}}\n  \
         c: {{sql: \"SELECT id, big, d, on_day, ts, b, f, nil, CAST(n AS text) AS n FROM v\"}}\n  \
         l: {{load: {{from: c, to: out, table: {into}, strategy: append}}}}\n"
    ));
}

#[test]
fn rows_of_a_database_that_did_not_fit_are_loaded_once_their_column_is_wider() {
    let columns = [
        (
            World::sqlite(),
            "id integer primary key, big integer, d decimal(18,4), on_day date, ts datetime, b blob, f real, nil text, n text",
            "9007199254740993, 12345.6789, '2024-02-29', '2024-02-29 10:20:30.123456', x'00ff', 0.1, null",
        ),
        (
            World::postgres(),
            "id int primary key, big bigint, d numeric(30,10), on_day date, ts timestamptz, b bytea, f float8, nil text, n text",
            "9007199254740993, 12345678901234567890.0123456789, '2024-02-29', '2024-02-29 10:20:30.123456+02', '\\x00ff', 1e-7, null",
        ),
        (
            World::mariadb(),
            "id int primary key, big bigint unsigned, d decimal(30,10), on_day date, ts datetime(6), b varbinary(9), f double, nil text, n text",
            "18446744073709551615, 12345678901234567890.0123456789, '2024-02-29', '2024-02-29 10:20:30.123456', x'00ff', 1e-7, null",
        ),
    ];
    for (world, columns, values) in columns {
        let folder = &world.folder;
        let rows = format!("(1, {values}, '7'), (2, {values}, 'x\"ä'), (3, {values}, '3000000000')");
        for table in ["t", "whole"] {
            world.shop(&format!("create table {table} ({columns}); insert into {table} values {rows}"));
        }
        steps(&world, "t", "int", "t");
        world.ok(15, &[]);
        let count = || world.ask("select cast(count(*) as text) from t");
        assert_eq!((count().as_str(), list(folder)), ("1", vec![("v".to_owned(), 2)]), "{columns}");
        let records = records(folder);
        assert_eq!(records[0]["n"], "x\"ä", "{records:?}");
        assert!(records[0]["big"].is_u64() && records[0]["nil"].is_null(), "{records:?}");
        let run = run_of(folder);
        // Nobody is asked again.
        world.shop("drop table t");
        steps(&world, "t", "bigint", "t");
        replay(folder, &[]);
        assert_eq!(count(), "2", "{columns}");
        assert_eq!(list(folder), [("v".to_owned(), 2), ("v".to_owned(), 1)], "{columns}");
        steps(&world, "t", "text", "t");
        for _ in 0..2 {
            // What was loaded of them is loaded; what was refused again has letters of its own.
            replay(folder, &["--run", &run]);
            assert_eq!(count(), "2", "{columns}");
        }
        replay(folder, &[]);
        assert_eq!(count(), "3", "{columns}");
        assert_eq!(replay(folder, &[]).trim(), "there is nothing to replay");
        // All of it is what reading the table gives.
        steps(&world, "whole", "text", "whole");
        world.ok(16, &[]);
        for (one, other) in [("t", "whole"), ("whole", "t")] {
            let differing =
                format!("select cast(count(*) as text) from (select * from {one} except select * from {other}) x");
            assert_eq!(world.ask(&differing), "0", "{columns}");
        }
    }
}

#[test]
fn what_letters_do_not_hold_is_said_by_name() {
    let world = World::sqlite();
    world.shop("create table t (id integer, n text, more text); insert into t values (1, 'a', 'x'), (2, '2', 'y')");
    let steps = |schema: &str, query: &str| {
        world.steps(&format!(
            "  v: {{extract: {{from: shop, table: t, on_bad_row: dead_letter, schema: {{{schema}}}}}}}\n  \
             c: {{sql: \"{query}\"}}\n  l: {{load: {{from: c, to: out, table: t, strategy: append}}}}\n"
        ));
    };
    steps("n: int", "SELECT id, CAST(n AS text) AS n FROM v");
    world.ok(15, &[]);
    let fails = |what: &str| {
        let said = world.folder.run(&["dead-letters", "replay"]);
        assert!(said.code != Some(0) && said.error().contains(what), "{said}");
        assert_eq!(world.ask("select cast(count(*) as text) from t"), "1", "{said}");
    };
    steps("n: text", "SELECT id, more AS n FROM v");
    fails("the column `more` is not in the dead letters");
    steps("n: text, nn: int", "SELECT id, CAST(n AS text) AS n FROM v");
    fails("the dead letters have no column `nn`");
    let query = "SELECT id, CAST(n AS text) AS n FROM v";
    world.shop(&format!("delete from t; insert into t values (3, '{}', '')", "long".repeat(20_000)));
    steps("n: int", query);
    world.ok(16, &[]);
    steps("n: text", query);
    let said = world.folder.run(&["dead-letters", "replay", "--run", "last"]);
    assert!(said.code != Some(0) && said.error().contains("longer than 64 KiB"), "{said}");
}

#[test]
fn records_of_an_api_are_read_again_without_it_with_what_their_parents_have() {
    let orders = json!([
        {"id": 1, "customerId": 1, "total": 10},
        {"id": 2, "customerId": 1, "total": "much"},
        {"id": 3, "customerId": 2, "total": 12.5, "big": 9_007_199_254_740_991_i64},
    ]);
    let customers = json!([{"id": 1, "name": "a \"b\""}, {"id": 2, "name": null}]);
    let server = JsonServer::start(&json!({"orders": orders, "customers": customers}).to_string());
    let folder = Folder::new();
    folder.write(
        "gristmill.yaml",
        format!(
            "name: shop\nmain: p\nconnections:\n  api: {{type: http, url: \"{}\"}}\n  out: {{type: sqlite, path: out.db}}\n",
            server.url
        ),
    );
    let steps = |kind: &str| {
        folder.write(
            "pipelines/p.yaml",
            format!(
                "name: p\nsteps:\n  v:\n    extract: {{from: api, path: orders, on_bad_row: dead_letter, schema: {{total: {kind}, big: \"decimal(20,0)\"}}, http: {{paginate: {{page: {{param: _page, size_param: _limit, size: 2}}}}}}}}\n  \
                 w:\n    extract: {{from: api, path: \"customers/{{id}}/orders\", on_bad_row: dead_letter, schema: {{total: {kind}, big: \"decimal(20,0)\"}}, http: {{for_each: {{path: customers, include: {{name: name}}}}}}}}\n  \
                 c: {{sql: \"SELECT id, CAST(total AS text) AS total, CAST(big AS text) AS big FROM v\"}}\n  \
                 d: {{sql: \"SELECT id, CAST(total AS text) AS total, name FROM w\"}}\n  \
                 l: {{load: {{from: c, to: out, table: t, strategy: append}}}}\n  m: {{load: {{from: d, to: out, table: u, strategy: append}}}}\n"
            ),
        );
    };
    let rows = |columns: &str, table: &str| {
        let database = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
        let sql = format!("select group_concat({columns}, ' ' order by id) from {table}");
        database.query_row(&sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let (t, u) =
        ("id || ':' || total || ':' || coalesce(big, '-')", "id || ':' || total || ':' || coalesce(name, '-')");
    steps("int");
    folder.ok(&["run", ".", "--date", "2024-01-15"]);
    assert_eq!((rows(t, "t").as_str(), rows(u, "u").as_str()), ("1:10:-", "1:10:a \"b\""));
    assert_eq!(list(&folder), [("v".to_owned(), 2), ("w".to_owned(), 2)]);
    drop(server);
    steps("double");
    for _ in 0..2 {
        replay(&folder, &[]);
        assert_eq!(rows(t, "t"), "1:10:- 3:12.5:9007199254740991");
        assert_eq!(rows(u, "u"), "1:10:a \"b\" 3:12.5:-");
    }
    steps("text");
    for _ in 0..2 {
        replay(&folder, &[]);
        assert_eq!(rows(t, "t"), "1:10:- 2:much:- 3:12.5:9007199254740991");
        assert_eq!(rows(u, "u"), "1:10:a \"b\" 2:much:a \"b\" 3:12.5:-");
    }
}
