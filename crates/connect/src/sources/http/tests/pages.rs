//! Every way through pages that `json-server` and Datasette have, and parents with their children.

use super::{connect, fails, plan, read, source};
use crate::conformance::source_suite;
use crate::{Connection, Source};
use arrow::datatypes::DataType;
use gristmill_testkit::datasette::Datasette;
use gristmill_testkit::json_server::JsonServer;
use serde_json::json;
use std::sync::{Arc, OnceLock};

const ORDERS: u64 = 137;

/// One server for all tests of this file.
fn server() -> &'static JsonServer {
    static SERVER: OnceLock<JsonServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let customers: Vec<_> =
            (1..=12).map(|id| json!({"id": id, "name": format!("name {id}"), "tier": id % 3})).collect();
        // The last two customers have no orders.
        let orders: Vec<_> = (1..=ORDERS)
            .map(|id| {
                json!({
                    "id": id,
                    "customerId": id % 10 + 1,
                    "status": if id % 4 == 0 { "open" } else { "done" },
                    "total": id as f64 * 1.25,
                    "address": {"city": format!("city {}", id % 7), "zip": format!("{id:05}")},
                    "tags": ["a", format!("t{}", id % 3)],
                })
            })
            .collect();
        JsonServer::start(&json!({"customers": customers, "orders": orders, "nothing": []}).to_string())
    })
}

fn api() -> Arc<dyn Connection> {
    connect(&server().url, "")
}

/// Every rule that `json-server` can be asked by.
const RULES: [&str; 6] = [
    "link_header",
    "{page: {param: _page, size_param: _limit, size: 20}}",
    "{page: {param: _page, size_param: _limit, size: 20, last_page: short}}",
    "{page: {param: _page, size_param: _limit, size: 20, total: {records_header: X-Total-Count}}}",
    "{offset: {param: _start, limit_param: _limit, limit: 20}}",
    "{offset: {param: _start, limit_param: _limit, limit: 20, total: {records_header: X-Total-Count}}}",
];

fn orders(rule: &str) -> String {
    let params = if rule == "link_header" { ", params: {_page: 1, _limit: 20}" } else { "" };
    format!("path: orders\nhttp: {{paginate: {rule}{params}}}")
}

#[tokio::test]
async fn every_rule_reads_every_record_once() {
    let whole = read(source(&api(), "path: /orders").as_ref()).await;
    assert_eq!(whole.len() as u64, ORDERS);
    for rule in RULES {
        assert_eq!(read(source(&api(), &orders(rule)).as_ref()).await, whole, "{rule}");
    }
}

#[tokio::test]
async fn the_source_keeps_its_contract() {
    for rule in [RULES[0], RULES[3], RULES[4]] {
        let open = || -> Arc<dyn Source> { source(&api(), &orders(rule)) };
        source_suite(&open, Some(ORDERS as usize)).await.unwrap_or_else(|error| panic!("{rule}: {error}"));
    }
    let children = CHILDREN.replace("size: 5", "size: 20");
    let open = || -> Arc<dyn Source> { source(&api(), &children) };
    source_suite(&open, Some(ORDERS as usize)).await.unwrap();
}

#[tokio::test]
async fn known_pages_become_units_and_unknown_ones_do_not() {
    let known = source(&api(), &orders(RULES[3]));
    let planned = plan(known.as_ref(), 2).await;
    assert_eq!(planned.units.len(), 7, "{}", planned.why);
    assert_eq!(planned.units[6].label, "`orders`, page 7");
    assert_eq!(known.stats().await.rows, Some(ORDERS));
    let text = orders(RULES[5]) + "\nunits: {strategy: pages, target_rows: 50}";
    let planned = plan(source(&api(), &text).as_ref(), 8).await;
    assert_eq!(
        planned.units.iter().map(|unit| unit.label.as_str()).collect::<Vec<_>>(),
        ["`orders`, pages 1 to 2", "`orders`, pages 3 to 4", "`orders`, pages 5 to 7"]
    );
    let one = orders(RULES[5]) + "\nunits: {strategy: none}";
    assert_eq!(plan(source(&api(), &one).as_ref(), 8).await.units.len(), 1);
    assert_eq!(plan(source(&api(), &orders("link_header")).as_ref(), 8).await.units.len(), 1);
    let unknown = source(&api(), &(orders("link_header") + "\nunits: {strategy: pages}"));
    assert!(fails(unknown.as_ref()).await.message().contains("whose number is known"));
}

#[tokio::test]
async fn records_are_read_as_those_of_a_json_file() {
    let text = "path: orders\ncolumns: [id, total, address, tags]\nschema: {total: \"decimal(10,2)\"}\nhttp: {params: {id: 8}}";
    let source = source(&api(), text);
    assert_eq!(read(source.as_ref()).await, ["8│10.00│{city: city 1, zip: 00008}│[a, t2]│"]);
    let schema = source.schema().await.unwrap();
    assert!(
        matches!(schema.field_with_name("address").unwrap().data_type(), DataType::Struct(fields) if fields.len() == 2)
    );
}

#[tokio::test]
async fn parameters_choose_records() {
    let open =
        source(&api(), "path: orders\nhttp: {params: {status: open, _page: 1, _limit: 10}, paginate: link_header}");
    assert_eq!(read(open.as_ref()).await.len(), 34);
    let path = source(&api(), "path: \"orders?status=open\"");
    assert_eq!(read(path.as_ref()).await.len(), 34);
}

const CHILDREN: &str = "
path: customers/{id}/orders
http:
  paginate: {page: {param: _page, size_param: _limit, size: 5}}
  for_each:
    path: customers
    include: {customer: name, tier: tier}
    paginate: {page: {param: _page, size_param: _limit, size: 5}}
";

#[tokio::test]
async fn children_are_read_in_parallel_and_carry_fields_of_their_parents() {
    let source = source(&api(), CHILDREN);
    let planned = plan(source.as_ref(), 2).await;
    assert_eq!((planned.units.len(), planned.why.as_str()), (8, "12 parents, a sequence of requests for each"));
    let schema = source.schema().await.unwrap();
    assert_eq!(schema.field_with_name("tier").unwrap().data_type(), &DataType::Int64);
    let rows = read(source.as_ref()).await;
    assert_eq!(rows.len() as u64, ORDERS);
    assert!(rows.contains(&"{city: city 1, zip: 00008}│9│8│open│[a, t2]│10.0│name 9│0│".to_owned()), "{rows:?}");
}

#[tokio::test]
async fn children_may_be_asked_by_a_parameter() {
    let text = "
path: orders
columns: [id, who]
http:
  params: {customerId: \"{id}\"}
  for_each: {path: customers, params: {tier: 2}, include: {who: name}}
";
    // Customers 2, 5, 8 and 11; the last one has no orders.
    let rows = read(source(&api(), text).as_ref()).await;
    assert_eq!(rows.len(), (1..=ORDERS).filter(|id| [2, 5, 8].contains(&(id % 10 + 1))).count());
    assert!(rows.contains(&"1│name 2│".to_owned()), "{rows:?}");
}

#[tokio::test]
async fn an_api_without_records_needs_its_columns_declared() {
    let error = fails(source(&api(), "path: nothing").as_ref()).await;
    assert!(error.message().contains("gave no records"), "{error}");
    assert!(read(source(&api(), "path: nothing\nschema: {id: bigint}").as_ref()).await.is_empty());
    let error = fails(source(&api(), "path: nowhere").as_ref()).await;
    assert_eq!(error.kind(), gristmill_model::ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_connection_says_who_answers() {
    let info = api().test().await.unwrap();
    assert_eq!(info.details[1], ("status".to_owned(), "200 OK".to_owned()));
    assert!(api().discover().await.unwrap_err().message().contains("no list"));
}

/// A database behind Datasette; one server for all tests of this file.
fn datasette() -> &'static Datasette {
    static SERVER: OnceLock<Datasette> = OnceLock::new();
    SERVER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("db.db");
        let database = rusqlite::Connection::open(&file).unwrap();
        database
            .execute_batch("create table orders (id integer primary key, city text, total real, big integer)")
            .unwrap();
        for id in 1..=ORDERS {
            let row = (id, (id % 7 > 0).then(|| format!("city {}", id % 7)), id as f64 * 1.25, i64::MAX - id as i64);
            database.execute("insert into orders values (?, ?, ?, ?)", row).unwrap();
        }
        database.close().unwrap();
        Datasette::start(&file)
    })
}

#[tokio::test]
async fn tokens_and_links_of_datasette_lead_through_every_record_once() {
    let api = connect(&datasette().url, "");
    let array = |format: &str, more: &str| {
        format!(
            "path: db/orders.json\nformat: {format}\nhttp: {{params: {{_shape: array, _size: 20{more}}}, paginate: link_header}}"
        )
    };
    let objects = |rule: &str| {
        format!(
            "path: db/orders.json\njson: {{records: rows}}\nhttp: {{params: {{_shape: objects, _size: 20}}, paginate: {rule}}}"
        )
    };
    let whole = read(source(&api, &array("json", "")).as_ref()).await;
    assert_eq!(whole.len() as u64, ORDERS);
    assert!(whole.contains(&format!("7│∅│8.75│{}│", i64::MAX - 7)), "{whole:?}");
    for text in [
        array("ndjson", ", _nl: on"),
        objects("{cursor: {path: next, param: _next}}"),
        objects("{next_link: {path: next_url}}"),
        "path: db/orders.csv\nformat: csv\nhttp: {params: {_stream: on}}".to_owned(),
    ] {
        assert_eq!(read(source(&api, &text).as_ref()).await, whole, "{text}");
    }
    let open = || -> Arc<dyn Source> { source(&api, &objects("{cursor: {path: next, param: _next}}")) };
    source_suite(&open, Some(ORDERS as usize)).await.unwrap();
}
