//! MariaDB as a source, through the real binary: run, copy, sql, conn.

use crate::support::Folder;
use gristmill_testkit::mariadb;

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
    folder.ok(&["copy", "shop:orders", "all.parquet"]);
    assert_eq!(folder.rows(&format!("select {sums} from 'all.parquet'")), ["10000,6667,12501250.00,2000,10000"]);

    let plan = folder.ok(&["plan", ".", "--date", "2024-01-15"]);
    assert!(plan.contains("ranges of `id`, as `units` says"), "{plan}");
    let test = folder.ok(&["conn", "test", "shop"]);
    assert!(test.contains("MariaDB"), "{test}");
    let found = folder.ok(&["conn", "discover", "shop", "--columns"]);
    assert!(found.contains("orders") && found.contains("decimal(12,2)"), "{found}");

    let said = folder.run(&["copy", "all.parquet", "shop:orders", "--strategy", "append"]);
    assert_ne!(said.code, Some(0), "{said}");
    assert!(said.error().contains("is a MySQL database, which cannot be loaded yet"), "{said}");
    assert_eq!(database.sql("select count(*) from orders"), "10000");
}
