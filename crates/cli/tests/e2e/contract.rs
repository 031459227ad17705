//! `schema_contract: discard_row | discard_value`, against what an incremental extract has read before.

use crate::support::{Folder, Said};
use gristmill_testkit::postgres;

const LOADS: &str = "  to_db: {load: {from: orders, to: out, table: orders, strategy: append}}
  to_lake: {load: {from: orders, to: lake, path: orders/, strategy: append}}
";

fn write(folder: &Folder, options: &str) {
    folder.write(
        "pipelines/p.yaml",
        format!(
            "name: p\nsteps:\n  orders: {{extract: {{from: db, table: orders, incremental_key: at{options}}}}}\n{LOADS}"
        ),
    );
}

fn run(folder: &Folder) -> Said {
    folder.run(&["run", ".", "--date", "2024-01-15"])
}

#[track_caller]
fn succeed(folder: &Folder) -> String {
    let said = run(folder);
    assert_eq!(said.code, Some(0), "{said}");
    said.out
}

/// A project on a PostgreSQL table with one row.
fn project(database: &postgres::TestDatabase, options: &str) -> Folder {
    database.sql(
        "drop table if exists orders; create table orders(id int, at date, price numeric(10,2));
         insert into orders values (1, '2024-01-01', 1.5)",
    );
    let mut folder = Folder::new();
    folder.set("PG", database.local_url());
    folder.write(
        "gristmill.yaml",
        "name: held\nmain: p\nconnections:\n  db: {type: postgres, url: \"${PG}\"}\n  out: {type: sqlite, path: out.db}\n  lake: {type: files, url: ./lake}\n",
    );
    write(&folder, options);
    succeed(&folder);
    folder
}

#[track_caller]
fn holds(folder: &Folder, wanted: &[&str]) {
    for from in ["out.orders", "'lake/orders/'"] {
        assert_eq!(folder.rows(&format!("select id, price from {from} order by id")), wanted, "{from}");
        let columns = folder.rows(&format!("select * from {from} limit 1"));
        assert_eq!(columns[0].split(',').count(), 3, "{from}: {columns:?}");
    }
}

#[test]
fn values_in_new_columns_and_of_new_types_are_left_out() {
    let database = postgres::database();
    let folder = project(&database, ", schema_contract: discard_value");
    database.sql(
        "alter table orders add column tax int; alter table orders alter column price type text;
         insert into orders values (2, '2024-01-02', '2.50', 1), (3, '2024-01-03', 'much', null), (4, '2024-01-04', '4.999', 1)",
    );
    let said = succeed(&folder);
    assert!(said.contains("`tax` new and left out, `price` of another type; 2 values discarded"), "{said}");
    holds(&folder, &["1,1.50", "2,2.50", "3,", "4,"]);
    // What was known stays what is known; and the row at the cursor is not doubled.
    succeed(&folder);
    holds(&folder, &["1,1.50", "2,2.50", "3,", "4,"]);
    // A full refresh takes the columns as they are.
    folder.ok(&["run", ".", "--date", "2024-01-15", "--full-refresh"]);
    assert_eq!(folder.rows("select price from out.orders where id = 3"), ["much"]);
}

#[test]
fn rows_with_values_in_new_columns_or_of_new_types_are_left_out() {
    let database = postgres::database();
    let folder = project(&database, ", schema_contract: discard_row");
    database.sql(
        "alter table orders add column tax int; alter table orders alter column price type text;
         insert into orders values (2, '2024-01-02', '2.50', 1), (3, '2024-01-03', 'much', null), (4, '2024-01-04', '4.00', null), (5, '2024-01-04', null, null)",
    );
    let said = succeed(&folder);
    assert!(said.contains("2 rows discarded"), "{said}");
    holds(&folder, &["1,1.50", "4,4.00", "5,"]);
    succeed(&folder);
    holds(&folder, &["1,1.50", "4,4.00", "5,"]);
    write(&folder, ", schema_contract: drop_row");
    assert!(run(&folder).error().contains("drop_row"));
}
