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
        "select string_agg(format_type(atttypid, atttypmod), ' ' order by attnum) from pg_attribute \
         where attrelid = 'target'::regclass and attnum > 0 and not attisdropped",
    )
}

#[tokio::test]
async fn a_number_that_no_row_would_fit_becomes_wider_and_keeps_what_it_had() {
    for strategy in ["append", "replace", "merge\nkey: id", "delete+insert\nkey: id", "delete+insert\nscope: price < 9"]
    {
        let database = postgres::database();
        database.sql(
            "create table target(id int primary key, n int default 5, price numeric(4,2) not null, r real, name varchar(9));
             create index by_n on target(n); comment on column target.price is 'kept';
             insert into target values (1, 7, 12.34, 0.5, 'a')",
        );
        let rows = batch(vec![
            ("id", Arc::new(Int32Array::from(vec![2])) as ArrayRef),
            ("n", decimals(&[15], 10, 1)),
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
                "widens the column `n` of `target` from integer to numeric(11,1)",
                "widens the column `price` of `target` from numeric(4,2) to numeric(9,5)",
                "widens the column `r` of `target` from real to double precision",
            ]
        );
        let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows.clone()])).await.unwrap()];
        sink.audit(&staged).await.unwrap();
        assert_eq!(types(&database), "integer integer numeric(4,2) real character varying(9)", "{strategy}");
        sink.commit(&staged, &Checkpoint::default()).await.unwrap();
        let now = "integer numeric(11,1) numeric(9,5) double precision character varying(9)";
        assert_eq!(types(&database), now, "{strategy}");
        let old = if strategy == "replace" { "" } else { "1,7.0,12.34000,0.5,a " };
        assert_eq!(
            database.sql("select string_agg(concat_ws(',', id, n, price, r, name), ' ' order by id) from target"),
            format!("{old}2,1.5,1.23456,0.1,b"),
            "{strategy}"
        );
        assert_eq!(database.sql("select col_description('target'::regclass, 3)"), "kept");
        assert_eq!(open(&database, &yaml, &rows.schema(), 2).unwrap().changes().await.unwrap(), [""; 0]);
    }
}

#[tokio::test]
async fn a_column_whose_values_are_looked_at_becomes_wider_when_one_does_not_fit() {
    let database = postgres::database();
    database.sql("create table target(id int primary key, price numeric(5,2), small smallint)");
    let rows = |id: i64, price: i128, small: i64| {
        batch(vec![("id", bigints(&[id])), ("price", decimals(&[price], 10, 2)), ("small", bigints(&[small]))])
    };
    let was = "integer numeric(5,2) smallint";
    for (generation, (strategy, row, now)) in [
        ("append", rows(1, 99_999, -32_768), was),
        ("merge\nkey: id", rows(2, -99_999, 32_767), was),
        ("merge\nkey: id", rows(3_000_000_000, 1, 1), "bigint numeric(5,2) smallint"),
        ("append", rows(3, 100_000, 40_000), "bigint numeric(10,2) bigint"),
    ]
    .into_iter()
    .enumerate()
    {
        let yaml = format!("table: target\nstrategy: {strategy}");
        let generation = u32::try_from(generation).unwrap() + 1;
        let sink = open(&database, &yaml, &row.schema(), generation).unwrap();
        sink.prepare().await.unwrap();
        assert!(sink.changes().await.unwrap().is_empty());
        let staged = [sink.stage(&task(generation, 0, 1), Rows::from_batches(row.schema(), vec![row])).await.unwrap()];
        sink.audit(&staged).await.unwrap();
        sink.commit(&staged, &Checkpoint::default()).await.unwrap();
        assert_eq!(types(&database), now, "{strategy}");
    }
    assert_eq!(
        database.sql("select string_agg(concat_ws(',', id, price, small), ' ' order by id) from target"),
        "1,999.99,-32768 2,-999.99,32767 3,1000.00,40000 3000000000,0.01,1"
    );
}

#[tokio::test]
async fn what_cannot_become_wider_is_told_before_the_first_row_and_nothing_has_changed() {
    let database = postgres::database();
    database.sql(
        "create domain cents as numeric(4,2); create table target(id int, price numeric(4,2), own cents, word varchar(3));
         create view seen as select price from target; insert into target values (1, 1.5, 2.5, 'abc')",
    );
    let rows = |name: &str| batch(vec![("id", bigints(&[2])), (name, decimals(&[1_234], 9, 3))]);
    for (name, told) in [
        (
            "price",
            "the column `price` of `target` must become numeric(9,3) (it is numeric(4,2)) for the rows, and the view `seen`",
        ),
        ("own", "the column `own` is Decimal128(9, 3) in the rows"),
        ("word", "the column `word` is Decimal128(9, 3) in the rows"),
    ] {
        let rows = rows(name);
        let sink = open(&database, "table: target\nstrategy: append", &rows.schema(), 1).unwrap();
        let error = sink.prepare().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Schema && error.message().contains(told), "{error}");
    }
    // A view that comes after the rows were staged is found by the commit.
    database.sql("drop view seen");
    let row = rows("price");
    let sink = open(&database, "table: target\nstrategy: append", &row.schema(), 1).unwrap();
    sink.prepare().await.unwrap();
    let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(row.schema(), vec![row])).await.unwrap()];
    database.sql("create view seen as select price from target");
    let error = sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
    assert!(error.message().contains("and the view `seen` is made of it"), "{error}");
    assert_eq!(database.sql("select concat_ws(',', id, price, own, word) from target"), "1,1.50,2.50,abc");
    assert_eq!(types(&database), "integer numeric(4,2) cents character varying(3)");
    // Lengths stay, and so do values that are too long for them.
    let long = batch(vec![("word", Arc::new(StringArray::from(vec!["abcd"])) as ArrayRef)]);
    let error = load(&database, "table: target\nstrategy: append", &long, 2).await.unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
    // A load that fails after it has widened a column leaves it as it was.
    database.sql("drop view seen");
    let yaml = "table: target\nstrategy: append\npost_sql: select 1 / 0";
    load(&database, yaml, &rows("price"), 3).await.unwrap_err();
    assert_eq!(types(&database), "integer numeric(4,2) cents character varying(3)");
}

#[tokio::test]
async fn rows_that_may_be_refused_are_tried_on_the_wider_column() {
    let database = postgres::database();
    database.sql("create table target(price numeric(4,2) check (price < 50))");
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
