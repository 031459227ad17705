//! Columns that become wider.

use super::*;

fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
}

fn bigints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn types(database: &TestDatabase) -> String {
    database.sql(
        "select group_concat(column_type order by ordinal_position separator ' ') from information_schema.columns \
         where table_schema = database() and table_name = 'target'",
    )
}

#[tokio::test]
async fn a_number_that_no_row_would_fit_becomes_wider_and_keeps_what_it_had() {
    for strategy in ["append", "replace", "merge\nkey: id", "delete+insert\nkey: id", "delete+insert\nscope: price < 9"]
    {
        let database = mariadb::database();
        database.sql(
            "create table target(id int auto_increment primary key, `n` int not null default 5 comment 'it''s, `n`', price decimal(4,2),
               r float, name varchar(9), key by_n (n));
             create view seen as select price from target; insert into target values (1, 7, 12.34, 0.5, 'a')",
        );
        let rows = batch(vec![
            ("id", Arc::new(Int32Array::from(vec![2])) as ArrayRef),
            ("N", decimals(&[15], 10, 1)),
            ("price", decimals(&[123_456], 9, 5)),
            ("r", Arc::new(Float64Array::from(vec![0.1]))),
            ("name", Arc::new(StringArray::from(vec!["b"]))),
        ]);
        let yaml = format!("table: target\nstrategy: {strategy}");
        let sink = open(&database, &yaml, &rows.schema(), 1).unwrap();
        sink.prepare().await.unwrap();
        assert_eq!(
            sink.changes().await.unwrap(),
            [
                "widens the column `n` of `target` from int(11) to decimal(11,1)",
                "widens the column `price` of `target` from decimal(4,2) to decimal(9,5)",
                "widens the column `r` of `target` from float to double",
            ]
        );
        let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows.clone()])).await.unwrap()];
        sink.audit(&staged).await.unwrap();
        assert_eq!(types(&database), "int(11) int(11) decimal(4,2) float varchar(9)", "{strategy}");
        sink.commit(&staged, &Checkpoint::default()).await.unwrap();
        assert_eq!(types(&database), "int(11) decimal(11,1) decimal(9,5) double varchar(9)", "{strategy}");
        let old = if strategy == "replace" { "" } else { "1,7.0,12.34000,0.5,a " };
        assert_eq!(
            database.sql(
                "select group_concat(id, ',', n, ',', price, ',', r, ',', name order by id separator ' ') from target"
            ),
            format!("{old}2,1.5,1.23456,0.1,b"),
            "{strategy}"
        );
        let said = database.sql("show create table target");
        assert!(said.contains("`n` decimal(11,1) NOT NULL DEFAULT 5.0 COMMENT 'it''s, `n`'"), "{said}");
        assert!(sink.commit(&staged, &Checkpoint::default()).await.unwrap().already);
    }
}

#[tokio::test]
async fn a_column_whose_values_are_looked_at_becomes_wider_when_one_does_not_fit() {
    let database = mariadb::database();
    database.sql("create table target(id int primary key, price decimal(5,2), small smallint unsigned)");
    let rows = |id: i64, price: i128, small: u32| {
        let small = Arc::new(UInt32Array::from(vec![small]));
        batch(vec![("id", bigints(&[id])), ("price", decimals(&[price], 10, 2)), ("small", small)])
    };
    let was = "int(11) decimal(5,2) smallint(5) unsigned";
    for (generation, (strategy, row, now)) in [
        ("append", rows(1, 99_999, 0), was),
        ("merge\nkey: id", rows(2, -99_999, 65_535), was),
        ("merge\nkey: id", rows(3_000_000_000, 1, 1), "bigint(20) decimal(5,2) smallint(5) unsigned"),
        ("append", rows(3, -100_000, 65_536), "bigint(20) decimal(10,2) int(10) unsigned"),
    ]
    .into_iter()
    .enumerate()
    {
        let yaml = format!("table: target\nstrategy: {strategy}");
        load(&database, &yaml, &row, u32::try_from(generation).unwrap() + 1).await.unwrap();
        assert_eq!(types(&database), now, "{strategy}");
    }
    assert_eq!(
        database.sql("select group_concat(id, ',', price, ',', small order by id separator ' ') from target"),
        "1,999.99,0 2,-999.99,65535 3,-1000.00,65536 3000000000,0.01,1"
    );
}

#[tokio::test]
async fn rows_that_may_be_refused_are_tried_on_the_wider_column() {
    let database = mariadb::database();
    database.sql("create table target(price decimal(4,2) check (price < 50))");
    let rows = one("price", decimals(&[1_234, 60_000], 9, 3));
    let sink = open(&database, "table: target\nstrategy: append\non_bad_row: drop", &rows.schema(), 1).unwrap();
    sink.prepare().await.unwrap();
    let refused = crate::RefusedRows::new(|rows, _| {
        assert_eq!(rows.num_rows(), 1);
        Ok(())
    });
    let given = Rows::from_batches(rows.schema(), vec![rows]).refusing(Some(refused));
    let staged = [sink.stage(&task(1, 0, 1), given).await.unwrap()];
    sink.commit(&staged, &Checkpoint::default()).await.unwrap();
    assert_eq!(database.sql("select price from target"), "1.234");
}
