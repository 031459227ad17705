//! From an HTTP API of a third party to files and a table, by the real binary.

use crate::support::{Folder, walk};
use gristmill_testkit::json_server::JsonServer;
use serde_json::json;

const DAY: &str = "2024-01-15";
const TOKEN: &str = "t0ken-that-nobody-may-see";

fn server() -> JsonServer {
    let customers: Vec<_> = (1..=6).map(|id| json!({"id": id, "name": format!("name {id}")})).collect();
    let orders: Vec<_> = (1..=95)
        .map(|id| {
            let day = if id % 5 == 0 { "2024-01-14" } else { DAY };
            json!({"id": id, "customerId": id % 5 + 1, "date": day, "total": f64::from(id) * 0.25, "ship": {"city": format!("c{}", id % 3)}})
        })
        .collect();
    JsonServer::start(&json!({"customers": customers, "orders": orders}).to_string())
}

fn project(server: &JsonServer) -> Folder {
    let mut folder = Folder::new();
    folder.set("API_TOKEN", TOKEN);
    folder.write(
        "gristmill.yaml",
        format!(
            "name: shop\nmain: p\nconnections:\n  api:\n    type: http\n    url: {}\n    auth: {{bearer: \"${{API_TOKEN}}\"}}\n    max_connections: 2\n    requests_per_second: 500\n  lake: {{type: files, url: ./lake}}\n  db: {{type: sqlite, path: out.db}}\n",
            server.url
        ),
    );
    folder.write(
        "pipelines/p.yaml",
        r#"
name: p
steps:
  orders:
    extract:
      from: api
      path: orders
      schema: {total: "decimal(10,2)"}
      http:
        params: {date: "{{ ds }}"}
        paginate: {page: {param: _page, size_param: _limit, size: 20, total: {records_header: X-Total-Count}}}
    checks: [{unique: id}, {row_count: {min: 70, max: 80}}]
  by_customer:
    extract:
      from: api
      path: "customers/{id}/orders"
      http: {for_each: {path: customers, include: {customer: name}}}
  cities: {sql: "SELECT ship['city'] AS city, count(*) AS orders, sum(total) AS total FROM orders GROUP BY 1"}
  load_orders: {load: {from: orders, to: lake, path: orders/, strategy: replace}}
  load_by_customer: {load: {from: by_customer, to: lake, path: by_customer/, strategy: replace}}
  load_cities: {load: {from: cities, to: db, table: cities, strategy: replace}}
"#,
    );
    folder
}

#[test]
fn an_api_is_loaded_twice_with_the_same_rows_and_no_secret_is_kept() {
    let server = server();
    let folder = project(&server);
    let planned = folder.ok(&["plan", ".", "--date", DAY]);
    assert!(planned.contains("4 pages, as the first of them says"), "{planned}");
    let of = |query: &str| folder.rows(query);
    let mut seen = Vec::new();
    for _ in 0..2 {
        folder.ok(&["run", ".", "--date", DAY]);
        seen.push([
            of("select count(*), count(distinct id), sum(total) from 'lake/orders/'"),
            of("select count(*), count(distinct id), count(distinct customer) from 'lake/by_customer/'"),
            of("select * from db.cities order by city"),
        ]);
    }
    assert_eq!(seen[0], seen[1]);
    // 95 orders but those of every fifth id; their sum is a quarter of (1 + … + 95) − 5 (1 + … + 19).
    assert_eq!(seen[0][0], ["76,76,902.50"]);
    assert_eq!(seen[0][1], ["95,95,5"]);
    assert_eq!(seen[0][2].len(), 3);
    let mut kept = Vec::new();
    for below in [".gristmill", "lake", "lake/orders/_gristmill"] {
        everything(&folder.path().join(below), &mut kept);
    }
    assert!(kept.len() > 3);
    for file in kept {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()), "{} holds the token", file.display());
    }
}

fn everything(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    walk(folder, found);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            everything(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

#[test]
fn an_api_is_copied_and_looked_at_in_one_line() {
    let server = server();
    let folder = project(&server);
    folder.ok(&["copy", "api:customers", "customers.csv"]);
    assert_eq!(folder.rows("select count(*), min(name) from 'customers.csv'"), ["6,name 1"]);
    let tested = folder.ok(&["conn", "test", "api"]);
    assert!(tested.contains("200 OK"), "{tested}");
    let refused = folder.run(&["copy", "customers.csv", "api:customers", "--strategy", "replace"]);
    assert!(refused.code != Some(0) && refused.error().contains("can only be read"), "{refused}");
    let said = folder.run(&["copy", "api:nowhere", "x.csv"]);
    assert!(said.error().contains("404 Not Found"), "{said}");
    assert!(!folder.path().join("x.csv").exists());
}
