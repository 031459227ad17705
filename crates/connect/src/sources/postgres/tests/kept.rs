use super::{ZOO, source};
use crate::conformance::sorted_rows;
use crate::sources::testing::{again, kept, read};
use gristmill_testkit::postgres;

/// Values that arrow has no place for, or whose text is a matter of its own.
const ODD: &[(&str, &str)] = &[
    ("date", "'infinity'"),
    ("date", "'-infinity'"),
    ("date", "'0044-03-15 BC'"),
    ("date", "'5874897-12-31'"),
    ("timestamp", "'-infinity'"),
    ("timestamp", "'294276-12-31 23:59:59.5'"),
    ("timestamptz", "'0044-03-15 12:00Z BC'"),
    ("time", "'24:00'"),
    ("numeric(6,2)", "'NaN'"),
    ("int[]", "'{{1,2},{3,null}}'"),
    ("int[]", "'[2:3]={1,2}'"),
    ("text[]", "array['a b', 'null', 'x\"y\\z', '{', ',', E'\\t']"),
    ("date[]", "array['infinity'::date]"),
    ("real", "'1e-5'"),
    ("real", "'123456.7'"),
    ("real", "'1234567'"),
    ("double precision", "'123456789012345'"),
    ("double precision", "'1234567890123456'"),
    ("double precision", "'0.00012345'"),
    ("double precision", "'1.5e-300'"),
    ("double precision[]", "array[1e15, -0.5, 'NaN'::float8]"),
];

/// A row of every type that is refused for one value is read from what was kept of it as the server would give it.
#[tokio::test]
async fn a_row_that_was_refused_is_kept_as_the_server_has_it() {
    let database = postgres::database();
    database.sql(super::OF_THE_ZOO);
    let columns: Vec<String> = ZOO.iter().enumerate().map(|(n, (of, ..))| format!("c{n} {of}")).collect();
    let values: Vec<&str> = ZOO.iter().map(|(_, value, ..)| *value).collect();
    let nulls: Vec<&str> = ZOO.iter().map(|_| "null").collect();
    database.sql(&format!(
        "create table zoo(id int, x text, {}); insert into zoo values (1, 'x', {}), (2, 'y', {})",
        columns.join(", "),
        values.join(", "),
        nulls.join(", ")
    ));
    let refused = kept(source(&database, "table: zoo\nschema: {x: int}").as_ref()).await;
    assert_eq!(refused.len(), 2);
    // Its blanks are no part of a `char(n)` for whoever casts it to text; they are kept.
    let is_padded = |of: &str| of.starts_with("char(");
    let texts = ZOO.iter().enumerate().filter(|(_, (of, ..))| !is_padded(of)).map(|(n, _)| format!("c{n}: text"));
    for schema in ["x: text".to_owned(), format!("x: text, {}", texts.collect::<Vec<_>>().join(", "))] {
        let keys = format!("table: zoo\nschema: {{{schema}}}");
        let (direct, again) = (read(source(&database, &keys).as_ref()).await.unwrap(), again(&refused, &keys));
        assert_eq!(direct[0].schema(), again.schema());
        assert_eq!(sorted_rows(&direct).unwrap(), sorted_rows(&[again]).unwrap(), "{:?}", refused[0].0);
    }
}

#[tokio::test]
async fn the_text_that_is_kept_is_the_server_s() {
    let database = postgres::database();
    for (of, value) in ODD {
        database.sql(&format!(
            "drop table if exists t; create table t(x text, v {of}); insert into t values ('x', {value})"
        ));
        let refused = kept(source(&database, "table: t\nschema: {x: int}").as_ref()).await;
        let keys = "table: t\nschema: {v: text}";
        let direct = read(source(&database, keys).as_ref()).await.unwrap();
        assert_eq!(sorted_rows(&direct).unwrap(), sorted_rows(&[again(&refused, keys)]).unwrap(), "{of} {value}");
    }
}

/// A column that came as text is what it is when nobody wants it as text any more.
#[tokio::test]
async fn what_came_as_text_is_read_as_its_own_type_again() {
    let database = postgres::database();
    database.sql(
        "create table t(x text, a date, b timestamptz, c float8, d numeric(10,2), e boolean, f uuid, g bytea);
         insert into t values ('x', '2024-02-29', '2024-02-29 10:20:30.5+02', 1e-7, 1.5, true, gen_random_uuid(), '\\x00')",
    );
    let texts = "a: text, b: text, c: text, d: text, e: text, f: text, g: text";
    let refused = kept(source(&database, &format!("table: t\nschema: {{x: int, {texts}}}")).as_ref()).await;
    let keys = "table: t\nschema: {g: text}";
    let direct = read(source(&database, keys).as_ref()).await.unwrap();
    assert_eq!(sorted_rows(&direct).unwrap(), sorted_rows(&[again(&refused, keys)]).unwrap());
    let error = refused[0].1.fields(&crate::sources::testing::extract("table: t")).unwrap_err();
    assert!(error.message().contains("the column `g` cannot be read as `binary`"), "{error}");
}
