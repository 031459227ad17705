//! The other commands on real data: copy between all kinds of places, sql over every format, a fresh project.

use crate::support::Folder;
use gristmill_testkit::postgres;
use std::io::Write;
use std::process::Stdio;

const PROJECT: &str = "name: shop
connections:
  lite: {type: sqlite, path: shop.db}
  pg: {type: postgres, url: \"${PG_URL}\"}
  here: {type: files, url: .}
";

/// Ten thousand rows with text that is awkward in every format, and NULLs.
fn rows() -> String {
    let mut csv = "id,name,amount,day\n".to_owned();
    for id in 1..=10_000 {
        let name = match id % 4 {
            0 => String::new(),
            1 => format!("\"comma, quote \"\" and\nnew line {id}\""),
            2 => format!("Zoë {id}"),
            _ => format!("plain {id}"),
        };
        csv += &format!("{id},{name},{}.{:02},2024-01-{:02}\n", id % 97, id % 100, id % 28 + 1);
    }
    csv
}

const SUM: &str = "count(*), count(name), sum(length(name)), sum(amount), max(day)";

#[test]
fn rows_travel_from_csv_through_every_kind_of_place_unchanged() {
    let database = postgres::database();
    let mut folder = Folder::new();
    folder.set("PG_URL", database.local_url());
    folder.write("gristmill.yaml", PROJECT).write("in.csv", rows());
    folder.ok(&["copy", "in.csv", "lake/"]);
    folder.ok(&["copy", "lake/", "lite:orders"]);
    folder.ok(&["copy", "lite:orders", "pg:orders"]);
    folder.ok(&["copy", "pg:orders", "out.ndjson"]);
    assert!(folder.path().join("out.ndjson").is_file());
    let first = folder.rows(&format!("select {SUM} from 'in.csv'"));
    assert!(first[0].starts_with("10000,7500,"), "{first:?}");
    for place in ["'lake/'", "pg.orders", "lite.orders"] {
        assert_eq!(folder.rows(&format!("select {SUM} from {place}")), first, "{place}");
    }
    let back = folder.rows(&format!("select {} from 'out.ndjson'", SUM.replace("amount", "round(amount, 2)")));
    assert_eq!(back[0].split(',').take(3).collect::<Vec<_>>(), first[0].split(',').take(3).collect::<Vec<_>>());
    assert_eq!(database.sql("select count(*), count(name) from orders"), "10000|7500");

    // A target that is there is not written over by chance.
    for target in ["lake/", "lite:orders", "pg:orders", "out.ndjson"] {
        let said = folder.run(&["copy", "in.csv", target]);
        assert_eq!(said.code, Some(2), "{said}");
        let error = said.error();
        assert!(error.contains("is there already") && error.contains("--strategy replace"), "{error}");
    }
    folder.ok(&["copy", "in.csv", "lite:orders", "--strategy", "append"]);
    assert_eq!(folder.rows("select count(*) from lite.orders"), ["20000"]);
    folder.ok(&["copy", "in.csv", "lite:orders", "--strategy", "replace"]);
    assert_eq!(folder.rows("select count(*) from lite.orders"), ["10000"]);
}

#[test]
fn copy_reads_standard_input() {
    let folder = Folder::new();
    let mut command = folder.command(&["copy", "-", "out/", "--from-format", "csv"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rows().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(folder.rows("select count(*), count(distinct id) from 'out/'"), ["10000,10000"]);
}

#[test]
fn sql_answers_over_every_format() {
    let folder = Folder::new();
    folder.write("in.csv", rows());
    let first = folder.rows(&format!("select {SUM} from 'in.csv'"));
    for name in ["a.parquet", "b.csv", "c.csv.gz", "d.csv.zst", "e.ndjson.gz"] {
        folder.ok(&["copy", "in.csv", name]);
        let sum = folder.rows(&format!("select {SUM} from '{name}'"));
        assert_eq!(
            sum[0].split(',').take(3).collect::<Vec<_>>(),
            first[0].split(',').take(3).collect::<Vec<_>>(),
            "{name}"
        );
    }
    folder.write("f.json", "[{\"id\": 1, \"name\": \"x\"}, {\"id\": 2, \"name\": null}]");
    assert_eq!(folder.rows("select id, name from 'f.json' order by id"), ["1,x", "2,"]);
    assert_eq!(folder.rows("select 1 + 1 as two"), ["2"]);
}

#[test]
fn a_fresh_project_works_right_away() {
    let folder = Folder::new();
    folder.ok(&["init", "x"]);
    let said = folder.run(&["run", "x", "--date", "2024-01-15"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(!said.err.contains("WARN") && !said.err.contains("error"), "{said}");
    for word in ["orders for 2024-01-15", "load_orders", "load_totals", "success in", "3 passed"] {
        assert!(said.out.contains(word), "{word}: {said}");
    }
    let in_x = |args: &[&str]| folder.ok(&[args, &["--project", "x"]].concat());
    let totals = in_x(&["sql", "select sum(orders) from warehouse.daily_totals", "--format", "csv"]);
    let rows = folder.rows("select count(*) from 'x/lake/orders/'");
    assert_eq!(totals.lines().nth(1), Some(rows[0].as_str()));
    let plan = folder.ok(&["plan", "x"]);
    assert!(plan.contains("raw_orders") && plan.contains("load_totals"), "{plan}");
    assert!(in_x(&["runs"]).contains("success"));
    assert!(in_x(&["show", "last"]).contains("load_orders"));
    assert!(in_x(&["conn", "test"]).contains("warehouse"));
    let tables = in_x(&["conn", "discover", "warehouse"]);
    assert!(tables.contains("daily_totals") && !tables.contains("_gristmill"), "{tables}");
    in_x(&["doctor"]);
    assert!(in_x(&["recover"]).contains("nothing to recover"));
}

#[test]
fn generate_makes_the_same_rows_for_the_same_seed() {
    let folder = Folder::new();
    let help = folder.ok(&["generate", "--help"]);
    assert!(help.contains("--seed"), "{help}");
    for name in ["one.parquet", "two.parquet"] {
        folder.ok(&["generate", "people", "--to", name, "--rows", "1000", "--seed", "7"]);
    }
    let read = |name: &str| folder.rows(&format!("select * from '{name}'"));
    assert_eq!(read("one.parquet"), read("two.parquet"));
    assert_eq!(read("one.parquet").len(), 1000);
}
