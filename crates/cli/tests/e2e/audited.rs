//! Write, audit, publish: no load of a run is published before everything of it has passed.

use crate::strategies::World;
use crate::support::{Folder, Said, walk};
use gristmill_testkit::s3::{ACCESS_KEY, S3Server, SECRET_KEY};

/// Products and orders, loaded one after the other; `more` is said of the orders.
fn shop(more: &str, steps: &str) -> Folder {
    let folder = Folder::new();
    folder.write(
        "gristmill.yaml",
        "name: shop\nmain: p\nconnections:\n  in: {type: files, url: ./in}\n  lake: {type: files, url: ./lake}\n  warehouse: {type: sqlite, path: warehouse.db}\n",
    );
    folder.write("in/products.csv", "product_id,name\n1,tea\n2,milk\n");
    folder.write("in/orders.csv", "order_id,product_id,total\n7,1,12\n8,2,-5\n9,2,-6\n");
    folder.write(
        "pipelines/p.yaml",
        format!(
            "name: p\nsteps:
  products: {{extract: {{from: in, path: products.csv}}}}
  orders: {{extract: {{from: in, path: orders.csv}}{more}}}
  load_products: {{load: {{from: products, to: warehouse, table: products, strategy: replace}}}}
  load_orders: {{load: {{from: orders, to: lake, path: orders/, strategy: replace, format: csv}}, after: [load_products]}}
{steps}"
        ),
    );
    folder
}

fn run(folder: &Folder) -> Said {
    folder.run(&["run", ".", "--date", "2024-01-15"])
}

#[track_caller]
fn untouched(folder: &Folder, said: &Said) {
    assert_eq!(said.code, Some(1), "{said}");
    assert!(folder.visible("lake").is_empty(), "{said}");
    assert!(!folder.path().join("warehouse.db").exists(), "{said}");
}

const CHECKS: &str = ", checks: [{unique: order_id}, {between: {column: total, min: 0}}]";

#[test]
fn a_failing_check_leaves_the_loads_before_it_untouched_and_says_which_rows() {
    let folder = shop(CHECKS, "");
    let said = run(&folder);
    untouched(&folder, &said);
    assert!(said.error().contains("2 bad rows among 3 rows, e.g. -5 (order_id=8), -6 (order_id=9)"), "{said}");
    let shown: serde_json::Value = serde_json::from_str(&folder.ok(&["show", "last", "--output", "json"])).unwrap();
    let report = |step: &str| {
        let steps = shown["steps"].as_array().unwrap().iter();
        steps.map(|step| &step["report"]).find(|report| report["step"] == step).unwrap().clone()
    };
    assert_eq!(report("orders")["checks"][1]["sample"][0], serde_json::json!({"order_id": "8", "total": "-5"}));
    assert_eq!(report("load_products")["state"], "canceled");
    // Mended, both are there.
    folder.write("in/orders.csv", "order_id,product_id,total\n7,1,12\n");
    let said = run(&folder);
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(folder.rows("SELECT count(*) FROM warehouse.products"), ["2"]);
    assert_eq!(folder.rows("SELECT total FROM 'lake/orders/'"), ["12"]);
}

#[test]
fn a_row_is_told_by_the_key_of_the_load_or_of_its_table() {
    let folder = shop("", "");
    folder.write(
        "pipelines/p.yaml",
        "name: p\nsteps:
  orders: {extract: {from: in, path: orders.csv}, checks: [{not_null: missing}, {between: {column: total, min: 0}}]}
  load_orders: {load: {from: orders, to: warehouse, table: orders, strategy: merge, key: [order_id, product_id]}}\n",
    );
    folder.write("in/orders.csv", "order_id,product_id,total,missing\n7,1,12,a\n8,2,-5,\n");
    let said = run(&folder);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.error().contains("1 bad row among 2 rows, e.g. order_id=8, product_id=2"), "{said}");
    assert!(said.error().contains("e.g. -5 (order_id=8, product_id=2)"), "{said}");
}

#[test]
fn a_check_of_its_own_and_a_command_hold_every_load_back() {
    let check = shop("", "  enough: {check: orders, checks: [{row_count: {min: 100}}]}\n");
    let said = run(&check);
    untouched(&check, &said);
    let command = shop("", "  look: {command: \"exit 3\"}\n");
    let said = run(&command);
    untouched(&command, &said);
    assert!(said.error().contains("the command of `look` ended with status 3"), "{said}");
}

#[test]
fn a_warning_holds_nothing_back() {
    let folder = shop(", checks: [{between: {column: total, min: 0, on_fail: warn}}]", "");
    let said = run(&folder);
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(folder.rows("SELECT count(*) FROM 'lake/orders/'"), ["3"]);
}

/// What comes after a load may look at what it has published, so it cannot hold it back.
#[test]
fn what_reads_what_a_load_wrote_is_a_later_phase() {
    let steps = "  there: {after: [load_products], extract: {from: warehouse, table: products}}
  again: {check: there, checks: [{row_count: {min: 100}}]}\n";
    let folder = shop("", steps);
    let said = run(&folder);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.error().contains("2 rows, wanted at least 100"), "{said}");
    assert_eq!(folder.rows("SELECT count(*) FROM warehouse.products"), ["2"]);
    let plan = folder.ok(&["plan", ".", "--date", "2024-01-15"]);
    assert!(plan.contains("stage load_orders, committed after 1"), "{plan}");
}

/// What `sql --staged last.STEP` answers.
#[track_caller]
fn staged(folder: &Folder, step: &str, query: &str) -> Vec<String> {
    let said = folder.ok(&["sql", "--staged", &format!("last.{step}"), query, "--format", "csv"]);
    said.lines().skip(1).map(str::to_owned).collect()
}

fn not_staged(folder: &Folder, step: &str) -> String {
    let said = folder.run(&["sql", "--staged", &format!("last.{step}"), "SELECT * FROM staged"]);
    assert_ne!(said.code, Some(0), "{said}");
    said.error()
}

/// One view, loaded into a folder, a file and a database.
fn three_targets() -> Folder {
    let folder = shop("", "");
    folder.write(
        "pipelines/p.yaml",
        "name: p\nsteps:
  orders: {extract: {from: in, path: orders.csv}, checks: [{between: {column: total, min: 0}}]}
  parted: {load: {from: orders, to: lake, path: parted/, format: parquet, partition_by: [product_id], strategy: partition_overwrite}}
  one: {load: {from: orders, to: lake, path: one.csv, strategy: replace, csv: {delimiter: \";\"}}}
  table: {load: {from: orders, to: warehouse, table: orders, strategy: merge, key: [order_id]}}\n",
    );
    folder
}

#[test]
fn what_a_failed_check_kept_back_can_be_looked_at_until_the_next_run() {
    let folder = three_targets();
    let said = run(&folder);
    untouched(&folder, &said);
    assert!(
        said.out.contains("gristmill sql --staged ") && said.out.contains(".parted \"SELECT * FROM staged\""),
        "{said}"
    );
    for step in ["parted", "one", "table"] {
        let rows = staged(&folder, step, "SELECT order_id, product_id, total FROM staged ORDER BY order_id");
        assert_eq!(rows, ["7,1,12", "8,2,-5", "9,2,-6"], "{step}");
    }
    let joined = staged(
        &folder,
        "table",
        "SELECT total FROM staged JOIN 'in/products.csv' USING (product_id) WHERE name = 'tea'",
    );
    assert_eq!(joined, ["12"]);
    // Nobody else sees them, and the target is as free as ever.
    assert!(folder.visible("lake").is_empty());
    folder.write("in/orders.csv", "order_id,product_id,total\n7,1,12\n");
    let said = run(&folder);
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(folder.rows("SELECT count(*) FROM warehouse.orders"), ["1"]);
    assert_eq!(folder.rows("SELECT total FROM 'lake/parted/'"), ["12"]);
    nothing_is_left(&folder);
    let error = not_staged(&folder, "parted");
    assert!(error.contains("was published") && error.contains("in its target"), "{error}");
}

/// Nothing of any load is left beside the targets.
#[track_caller]
fn nothing_is_left(folder: &Folder) {
    let below = |path: &str| {
        let entries = std::fs::read_dir(folder.path().join(path)).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name() != "start.lock").count()
    };
    assert_eq!(below("lake/parted/_gristmill/staging"), 0);
    assert!(!folder.path().join("lake/.one.csv.gristmill").exists());
    assert_eq!(below(".gristmill/staging/sqlite"), 0);
    assert_eq!(below(".gristmill/owners"), 0);
}

#[test]
fn what_is_kept_goes_with_a_recovery_and_with_a_retry() {
    let folder = three_targets();
    run(&folder);
    assert_eq!(staged(&folder, "one", "SELECT count(*) FROM staged"), ["3"]);
    folder.ok(&["recover"]);
    nothing_is_left(&folder);
    let error = not_staged(&folder, "one");
    assert!(error.contains("nothing is kept of what `one` of run") && error.contains("gristmill recover"), "{error}");
    // Of several attempts only the last one's rows are there.
    let text = std::fs::read_to_string(folder.path().join("pipelines/p.yaml")).unwrap();
    folder.write("pipelines/p.yaml", text.replace("name: p\n", "name: p\nretries: 2\nretry_delay: 1ms\n"));
    let said = run(&folder);
    assert!(said.out.contains("3 attempts"), "{said}");
    for step in ["parted", "one", "table"] {
        assert_eq!(staged(&folder, step, "SELECT count(*) FROM staged"), ["3"], "{step}");
    }
    folder.ok(&["recover"]);
    nothing_is_left(&folder);
}

#[test]
fn loads_whose_own_rows_were_fine_are_kept_beside_the_one_that_failed() {
    let folder = shop(CHECKS, "");
    let text = std::fs::read_to_string(folder.path().join("pipelines/p.yaml")).unwrap();
    // The products are staged long before the orders have failed for the last time.
    let text = text.replace("after: [load_products]}", "after: [load_products], retries: 1, retry_delay: 2s}");
    folder.write("pipelines/p.yaml", text);
    let said = run(&folder);
    untouched(&folder, &said);
    assert!(said.out.contains(".load_products \"SELECT * FROM staged\""), "{said}");
    assert_eq!(staged(&folder, "load_products", "SELECT name FROM staged ORDER BY name"), ["milk", "tea"], "{said}");
    assert_eq!(staged(&folder, "load_orders", "SELECT count(*) FROM staged"), ["3"], "{said}");
    folder.ok(&["recover"]);
    nothing_is_left(&folder);
    for step in ["load_products", "load_orders"] {
        assert!(not_staged(&folder, step).contains("nothing is kept"), "{step}");
    }
}

#[test]
fn what_is_kept_goes_when_the_pipeline_has_other_targets_since() {
    let folder = three_targets();
    run(&folder);
    assert_eq!(staged(&folder, "one", "SELECT count(*) FROM staged"), ["3"]);
    folder.write("in/orders.csv", "order_id,product_id,total\n7,1,12\n");
    folder.write(
        "pipelines/p.yaml",
        "name: p\nsteps:
  orders: {extract: {from: in, path: orders.csv}}
  parted: {load: {from: orders, to: lake, path: elsewhere/, format: parquet, strategy: replace}}
  table: {load: {from: orders, to: warehouse, table: other, strategy: replace}}\n",
    );
    let said = run(&folder);
    assert_eq!(said.code, Some(0), "{said}");
    nothing_is_left(&folder);
    assert_eq!(folder.rows("SELECT total FROM 'lake/elsewhere/'"), ["12"]);
    assert_eq!(folder.ok(&["recover"]), "nothing to recover\n");
}

#[test]
fn what_is_not_staged_is_one_error_that_says_why() {
    let folder = shop(CHECKS, "");
    let error = not_staged(&folder, "x");
    assert!(error.contains("there are no runs yet"), "{error}");
    run(&folder);
    let error = not_staged(&folder, "orders");
    assert!(error.contains("`orders` is of kind `extract`, and only loads stage rows"), "{error}");
    let error = not_staged(&folder, "load_order");
    assert!(error.contains("has no step `load_order`") && error.contains("load_orders"), "{error}");
    let said = folder.run(&["sql", "--staged", "last", "SELECT 1"]);
    assert_eq!(said.code, Some(2), "{said}");
    assert!(said.error().contains("names no step"), "{said}");
}

#[test]
fn staging_tables_and_side_files_can_be_looked_at_by_the_names_of_the_target() {
    for world in World::each() {
        let folder = &world.folder;
        folder.write("lake/a.csv", "id,name\n1,a\n2,b\n1,c\n");
        let load = "{from: v, to: out, table: t, strategy: merge, key: [id]}";
        world.steps(&format!("  v: {{extract: {{from: lake, path: a.csv}}}}\n  l: {{load: {load}}}\n"));
        let said = run(folder);
        assert_eq!(said.code, Some(1), "{said}");
        let double =
            "SELECT name FROM staged WHERE id IN (SELECT id FROM staged GROUP BY id HAVING count(*) > 1) ORDER BY name";
        assert_eq!(staged(folder, "l", double), ["a", "c"], "{said}");
        folder.write("lake/a.csv", "id,name\n1,a\n2,b\n");
        let said = run(folder);
        assert_eq!(said.code, Some(0), "{said}");
        assert!(not_staged(folder, "l").contains("was published"));
    }
}

/// Names below a folder of a bucket that begin with `_gristmill/` and are not of the log.
fn staged_files(bucket: &std::path::Path) -> Vec<String> {
    fn below(folder: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => below(&path, found),
                path => found.push(path.display().to_string()),
            }
        }
    }
    let mut found = Vec::new();
    below(bucket, &mut found);
    found.retain(|path| path.contains("/_gristmill/") && !path.contains("/_gristmill/log/"));
    found
}

#[test]
fn staged_objects_can_be_looked_at_where_the_load_asks_for_it() {
    for server in [S3Server::start(&["lake"]).unwrap(), S3Server::without_copies(&["lake"]).unwrap()] {
        let folder = shop("", "");
        let lake = format!(
            "{{type: files, url: \"s3://lake/x\", endpoint: \"{}\", access_key_id: {ACCESS_KEY}, secret_access_key: {SECRET_KEY}}}",
            server.endpoint
        );
        let project = std::fs::read_to_string(folder.path().join("gristmill.yaml")).unwrap();
        folder.write("gristmill.yaml", project.replace("{type: files, url: ./lake}", &lake));
        folder.write(
            "pipelines/p.yaml",
            "name: p\nretries: 1\nretry_delay: 1ms\nsteps:
  orders: {extract: {from: in, path: orders.csv}, checks: [{between: {column: total, min: 0}}]}
  parted: {load: {from: orders, to: lake, path: parted/, partition_by: [product_id], strategy: partition_overwrite, readable_staging: true}}
  one: {load: {from: orders, to: lake, path: one.csv, strategy: replace, csv: {delimiter: \";\"}, readable_staging: true}}
  held: {load: {from: orders, to: lake, path: held/, strategy: replace}}\n",
        );
        let said = run(&folder);
        assert_eq!(said.code, Some(1), "{said}");
        assert!(said.out.contains(".parted \"SELECT * FROM staged\"") && !said.out.contains(".held \""), "{said}");
        for step in ["parted", "one"] {
            let rows = staged(&folder, step, "SELECT order_id, product_id, total FROM staged ORDER BY order_id");
            assert_eq!(rows, ["7,1,12", "8,2,-5", "9,2,-6"], "{step}");
        }
        assert!(not_staged(&folder, "held").contains("nothing is kept"));
        let mut seen = Vec::new();
        walk(&server.bucket("lake"), &mut seen);
        assert!(seen.is_empty(), "no reader sees any of it: {seen:?}");
        folder.ok(&["recover"]);
        assert_eq!(staged_files(&server.bucket("lake")), Vec::<String>::new());
        // Kept again, and thrown away by the run that is good.
        assert_eq!(run(&folder).code, Some(1));
        assert_eq!(staged(&folder, "one", "SELECT count(*) FROM staged"), ["3"]);
        folder.write("in/orders.csv", "order_id,product_id,total\n7,1,12\n");
        let said = run(&folder);
        assert_eq!(said.code, Some(0), "{said}");
        // Nobody told the query that one of them has another delimiter.
        for (path, column, row) in
            [("parted/", "order_id", "7"), ("one.csv", "*", "7;1;12"), ("held/", "order_id", "7")]
        {
            assert_eq!(folder.rows(&format!("SELECT {column} FROM 'lake:{path}'")), [row], "{path}");
        }
        assert_eq!(staged_files(&server.bucket("lake")), Vec::<String>::new());
        assert_eq!(server.open_uploads().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn an_append_that_a_transaction_would_hold_can_be_looked_at_where_the_load_asks_for_it() {
    let world = World::postgres();
    let folder = &world.folder;
    let steps = |more: &str| {
        let load = format!("{{from: v, to: out, table: t, strategy: append{more}}}");
        let check = "checks: [{not_null: name}]";
        world.steps(&format!("  v: {{extract: {{from: lake, path: a.csv}}, {check}}}\n  l: {{load: {load}}}\n"));
    };
    folder.write("lake/a.csv", "id,name\n1,a\n");
    steps("");
    assert_eq!(run(folder).code, Some(0));
    folder.write("lake/a.csv", "id,name\n2,b\n3,\n");
    let next = || folder.run(&["run", ".", "--date", "2024-01-16"]);
    assert_eq!(next().code, Some(1));
    assert!(not_staged(folder, "l").contains("nothing is kept"));
    steps(", readable_staging: true");
    let said = next();
    assert_eq!(said.code, Some(1), "{said}");
    assert_eq!(staged(folder, "l", "SELECT id FROM staged ORDER BY id"), ["2", "3"], "{said}");
    folder.write("lake/a.csv", "id,name\n2,b\n");
    let said = next();
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(world.ask("select string_agg(name, ' ' order by id) from t"), "a b");
}
