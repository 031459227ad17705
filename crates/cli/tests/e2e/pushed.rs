//! Conditions that the source decides: shown by `plan`, and never one reader's condition on what others read, too.

use crate::support::Folder;

fn project(steps: &str) -> Folder {
    let folder = Folder::new();
    folder.write(
        "gristmill.yaml",
        "name: pushed\nconnections:\n  db: {type: sqlite, path: a.db}\n  out: {type: files, url: ./out}\n",
    );
    folder.write(
        "pipelines/p.yaml",
        format!("name: p\nsteps:\n  orders: {{extract: {{from: db, table: orders}}}}\n{steps}"),
    );
    let database = rusqlite::Connection::open(folder.path().join("a.db")).unwrap();
    let rows = "create table orders(id integer primary key, region text);
                insert into orders with recursive k(i) as (select 1 union all select i + 1 from k where i < 300)
                  select i, 'r' || (i % 3) from k";
    database.execute_batch(rows).unwrap();
    folder
}

const SMALL: &str = "  small: {sql: \"SELECT * FROM orders WHERE id <= 30 AND region = 'r1'\"}
  load_small: {load: {from: small, to: out, path: small/, format: csv, strategy: replace}}
";
const LARGE: &str = "  large: {sql: \"SELECT * FROM orders WHERE id > 30\"}
  load_large: {load: {from: large, to: out, path: large/, format: csv, strategy: replace}}
";

#[test]
fn the_source_decides_the_condition_of_its_only_reader() {
    let folder = project(SMALL);
    let plan = folder.ok(&["plan", ".", "--date", "2024-01-01"]);
    assert!(plan.contains("filter: id <= 30; filter: region = 'r1'"), "{plan}");
    folder.ok(&["run", ".", "--date", "2024-01-01"]);
    assert_eq!(folder.rows("SELECT count(*), min(id), max(id) FROM 'out/small/*.csv'"), ["10,1,28"]);
    assert_eq!(folder.rows("SELECT id FROM db.orders LIMIT 1").len(), 1);
}

#[test]
fn what_two_actions_read_is_read_whole() {
    let folder = project(&format!("{SMALL}{LARGE}"));
    let plan = folder.ok(&["plan", ".", "--date", "2024-01-01"]);
    assert!(!plan.contains("filter: id"), "{plan}");
    folder.ok(&["run", ".", "--date", "2024-01-01"]);
    assert_eq!(folder.rows("SELECT count(*) FROM 'out/small/*.csv'"), ["10"]);
    assert_eq!(folder.rows("SELECT count(*), min(id) FROM 'out/large/*.csv'"), ["270,31"]);
}

#[test]
fn one_query_that_reads_twice_under_different_conditions_sees_both() {
    let both = "  both: {sql: \"SELECT a.id FROM orders a JOIN orders b ON a.id = b.id + 100 WHERE a.id <= 150 AND b.id > 20\"}
  load_both: {load: {from: both, to: out, path: both/, format: csv, strategy: replace}}
";
    let folder = project(both);
    folder.ok(&["run", ".", "--date", "2024-01-01"]);
    assert_eq!(folder.rows("SELECT count(*), min(id), max(id) FROM 'out/both/*.csv'"), ["30,121,150"]);
}

const TOTAL: &str =
    "  total: {sql: \"SELECT count(*) AS n, max(id) AS last, sum(id) AS total FROM orders WHERE id > 30\"}
  load_total: {load: {from: total, to: out, path: total/, format: csv, strategy: replace}}
";

#[test]
fn the_source_aggregates_for_its_only_reader() {
    let folder = project(TOTAL);
    let plan = folder.ok(&["plan", ".", "--date", "2024-01-01"]);
    assert!(plan.contains("filter: id > 30; aggregates: count(*), max(id), sum(id)"), "{plan}");
    folder.ok(&["run", ".", "--date", "2024-01-01"]);
    assert_eq!(folder.rows("SELECT * FROM 'out/total/*.csv'"), ["270,300,44685"]);
    let both = project(&format!("{TOTAL}{LARGE}"));
    let plan = both.ok(&["plan", ".", "--date", "2024-01-01"]);
    assert!(!plan.contains("aggregates:"), "{plan}");
    both.ok(&["run", ".", "--date", "2024-01-01"]);
    assert_eq!(both.rows("SELECT * FROM 'out/total/*.csv'"), ["270,300,44685"]);
    // One picture: what a query reads twice is read once.
    let twice = TOTAL.replace("FROM orders WHERE id > 30", "FROM orders WHERE id > (SELECT min(id) + 29 FROM orders)");
    let folder = project(&twice);
    let plan = folder.ok(&["plan", ".", "--date", "2024-01-01"]);
    assert!(!plan.contains("aggregates:"), "{plan}");
    folder.ok(&["run", ".", "--date", "2024-01-01"]);
    assert_eq!(folder.rows("SELECT * FROM 'out/total/*.csv'"), ["270,300,44685"]);
}
