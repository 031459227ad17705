//! examples/sales on every profile: embedded, PostgreSQL, S3.

use crate::oracle::{self, Answer, Inputs, Metrics, Order};
use crate::support::{Folder, copy, repository};
use gristmill_testkit::{postgres, s3};
use std::path::Path;
use std::sync::OnceLock;

const DAY: &str = "2024-01-15";

/// The example with its source data made and 2024-01-15 run, on the embedded profile. Copies of it run on.
fn seeded() -> &'static Folder {
    static SEEDED: OnceLock<Folder> = OnceLock::new();
    SEEDED.get_or_init(|| {
        let folder = Folder::new();
        copy(&repository().join("examples/sales"), folder.path());
        folder.ok(&["run", ".", "--date", DAY]);
        folder
    })
}

/// A project that goes on from [`seeded`], in a folder of its own.
pub(crate) fn project() -> Folder {
    let folder = Folder::new();
    copy(seeded().path(), folder.path());
    folder
}

fn database(path: &Path) -> rusqlite::Connection {
    // Not read-only: what a killed writer has left in its journal is rolled back by the next one who opens.
    rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap()
}

fn orders(database: &rusqlite::Connection, date: &str) -> Vec<Order> {
    let mut query = database
        .prepare(
            "select order_id, customer_id, product_id, currency, total, status, created_at from orders where date = ?",
        )
        .unwrap();
    let rows = query.query_map([date], |row| {
        Ok(Order {
            id: row.get(0)?,
            customer: row.get(1)?,
            product: row.get(2)?,
            currency: row.get(3)?,
            total: (row.get::<_, f64>(4)? * 100.0).round() as i64,
            status: row.get(5)?,
            created_at: row.get(6)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn inputs(orders: Vec<Order>, lake: &Path, date: &str) -> Inputs {
    Inputs {
        orders,
        products: oracle::lookup(&lake.join("products"), "product_id", "category", "product_name"),
        customers: oracle::lookup(&lake.join("customers"), "customer_id", "region", "customer_name"),
        rates: oracle::rates(&lake.join("exchange_rates").join(date)),
    }
}

/// What a day's run must answer, from the project's own raw data.
pub(crate) fn expected(folder: &Folder, date: &str) -> Answer {
    let orders = orders(&database(&folder.path().join("data/sales.db")), date);
    inputs(orders, &folder.path().join("lake"), date).answer()
}

/// The warehouse's figures of a day. SQLite keeps decimals as floats, which at this size hold them exactly enough.
pub(crate) fn metrics(warehouse: &Path, date: &str) -> Metrics {
    let database = database(warehouse);
    let mut query = database
        .prepare(
            "select category, region, revenue, order_count, unique_customers, avg_order_value
             from daily_sales_metrics where date = ?",
        )
        .unwrap();
    let millionths = |value: f64| (value * 1e6).round() as i128;
    let mut found = Metrics::new();
    let rows = query.query_map([date], |row| {
        Ok(((row.get(0)?, row.get(1)?), (millionths(row.get(2)?), row.get(3)?, row.get(4)?, millionths(row.get(5)?))))
    });
    for row in rows.unwrap() {
        let (key, values) = row.unwrap();
        assert!(found.insert(key, values).is_none(), "a group is there twice");
    }
    found
}

fn same(actual: &oracle::Enriched, expected: &oracle::Enriched) {
    assert_eq!(actual.len(), expected.len(), "rows in the lake");
    for (id, row) in expected {
        assert_eq!(actual.get(id), Some(row), "order {id}");
    }
}

/// That lake and warehouse of an embedded project hold exactly what they must for a day.
pub(crate) fn check_day(folder: &Folder, date: &str) {
    let expected = expected(folder, date);
    same(
        &oracle::enriched(&folder.path().join("lake/enriched_orders").join(format!("date={date}"))),
        &expected.enriched,
    );
    assert_eq!(metrics(&folder.path().join("data/warehouse.db"), date), expected.metrics);
}

#[test]
fn every_day_has_at_least_thirty_thousand_raw_orders_with_dirt_among_them() {
    let database = database(&seeded().path().join("data/sales.db"));
    let mut query = database.prepare("select date, count(*) from orders group by date order by date").unwrap();
    let days: Vec<(String, i64)> =
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let names: Vec<String> = (1..=30).map(|day| format!("2024-01-{day:02}")).collect();
    assert_eq!(days.iter().map(|(day, _)| day.clone()).collect::<Vec<_>>(), names);
    assert!(days.iter().all(|(_, count)| *count >= 30_000), "{days:?}");
    let count = |what: &str| database.query_row(what, [], |row| row.get::<_, i64>(0)).unwrap();
    for dirt in [
        "select count(*) - count(distinct order_id) from orders",
        "select count(*) from orders where total <= 0",
        "select count(*) from orders where status not in ('completed', 'shipped')",
        "select count(*) from orders where product_id > 500",
        "select count(*) from orders where currency = 'XAU'",
    ] {
        assert!(count(dirt) > 100, "{dirt}");
    }
}

#[test]
fn the_day_is_right_to_the_last_digit_and_running_it_again_changes_nothing() {
    let folder = project();
    let expected = expected(&folder, DAY);
    check_day(&folder, DAY);
    let enriched = format!("select * from 'lake/enriched_orders/' where date = '{DAY}' order by order_id");
    let (lake, figures) = (folder.rows(&enriched), metrics(&folder.path().join("data/warehouse.db"), DAY));
    let by_sql = "select * from warehouse.daily_sales_metrics order by 1, 2, 3";
    let told = folder.rows(by_sql);
    assert_eq!(told.len(), expected.metrics.len());

    let report: serde_json::Value =
        serde_json::from_str(&folder.ok(&["run", ".", "--date", DAY, "--output", "json"])).unwrap();
    let step =
        |name: &str| report["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap().clone();
    assert_eq!(step("cleaned")["rows_out"], expected.cleaned);
    assert_eq!(step("cleaned")["rejects"], expected.orphans);
    assert_eq!(step("enriched")["rejects"], expected.without_rate);
    assert_eq!(step("load_lake")["rows_out"], expected.enriched.len());
    assert_eq!(step("load_warehouse")["rows_out"], expected.metrics.len());
    assert!(expected.orphans > 0 && expected.without_rate > 0);

    assert_eq!(folder.rows(by_sql), told);
    assert_eq!(metrics(&folder.path().join("data/warehouse.db"), DAY), figures);
    assert_eq!(lake.len(), expected.enriched.len());
    assert!(folder.rows(&enriched) == lake, "the second run left other rows");

    // Another date leaves the first alone, to the name of its files.
    let before = folder.visible(&format!("lake/enriched_orders/date={DAY}"));
    folder.ok(&["run", ".", "--date", "2024-01-16"]);
    assert!(folder.visible(&format!("lake/enriched_orders/date={DAY}")) == before);
    assert_eq!(metrics(&folder.path().join("data/warehouse.db"), DAY), figures);
    check_day(&folder, "2024-01-16");
}

#[test]
fn the_same_job_with_postgresql_as_both_databases() {
    let (source, warehouse) = (postgres::database(), postgres::database());
    let mut folder = project();
    folder.set("SALES_DB_URL", source.local_url()).set("WAREHOUSE_URL", warehouse.local_url());
    let run = ["run", ".", "--profile", "postgres", "--date", DAY];
    folder.ok(&run);
    // The seed is the same on every profile.
    let expected = expected(&folder, DAY);
    let raw = "select count(*), sum(total), sum(order_id), max(created_at) from orders";
    let lite = database(&folder.path().join("data/sales.db"));
    let (count, total, ids): (i64, f64, i64) = lite
        .query_row("select count(*), sum(total), sum(order_id) from orders", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert!(
        source.sql(raw).starts_with(&format!("{count}|{total:.2}|{ids}|")),
        "{} {count} {total} {ids}",
        source.sql(raw)
    );
    let check = || {
        let partition = folder.path().join("lake/enriched_orders").join(format!("date={DAY}"));
        same(&oracle::enriched(&partition), &expected.enriched);
        let rows = warehouse.sql(&format!(
            "select category, region, revenue, order_count, unique_customers, avg_order_value
             from daily_sales_metrics where date = '{DAY}'"
        ));
        let found: Metrics = rows
            .lines()
            .map(|line| {
                let parts: Vec<&str> = line.split('|').collect();
                let number = |index: usize| parts[index].parse::<i64>().unwrap();
                let key = (parts[0].to_owned(), parts[1].to_owned());
                (key, (oracle::scaled(parts[2], 6), number(3), number(4), oracle::scaled(parts[5], 6)))
            })
            .collect();
        assert_eq!(rows.lines().count(), found.len());
        assert_eq!(found, expected.metrics);
    };
    check();
    folder.ok(&run);
    check();
}

#[test]
fn the_same_job_with_the_lake_on_s3() {
    let server = s3::S3Server::start(&["lake"]).unwrap();
    let mut folder = project();
    folder
        .set("LAKE_URL", "s3://lake/sales")
        .set("LAKE_ENDPOINT", server.endpoint.clone())
        .set("AWS_REGION", "us-east-1")
        .set("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
        .set("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY);
    std::fs::remove_dir_all(folder.path().join("lake")).unwrap();
    let lake = server.bucket("lake").join("sales");
    let run = ["run", ".", "--profile", "s3", "--date", DAY];
    for _ in 0..2 {
        folder.ok(&run);
        let orders = orders(&database(&folder.path().join("data/sales.db")), DAY);
        let expected = inputs(orders, &lake, DAY).answer();
        same(&oracle::enriched(&lake.join("enriched_orders").join(format!("date={DAY}"))), &expected.enriched);
        assert_eq!(metrics(&folder.path().join("data/warehouse.db"), DAY), expected.metrics);
    }
    assert!(server.open_uploads().unwrap().is_empty(), "uploads are left open");
    assert!(!folder.path().join("lake").exists(), "the local lake is another profile's");
    let counted =
        folder.ok(&["sql", "select count(*) from 'lake:enriched_orders/'", "--profile", "s3", "--format", "csv"]);
    assert!(counted.lines().nth(1).unwrap().parse::<usize>().unwrap() > 20_000, "{counted}");
}
