use super::{ZOO, source};
use crate::conformance::sorted_rows;
use crate::sources::testing::{again, kept, read};
use gristmill_testkit::mariadb;

/// A row of every type that is refused for one value is read from what was kept of it as the server would give it.
#[tokio::test]
async fn a_row_that_was_refused_is_kept_as_the_server_has_it() {
    let database = mariadb::database();
    let columns: Vec<String> = ZOO.iter().enumerate().map(|(n, (of, ..))| format!("c{n} {of}")).collect();
    let values: Vec<&str> = ZOO.iter().map(|(_, value, ..)| *value).collect();
    let nulls: Vec<&str> = ZOO.iter().map(|_| "null").collect();
    database.sql(&format!(
        "set time_zone = '+00:00'; create table zoo(id int, x text, {}); \
         insert into zoo values (1, 'x', {}), (2, 'y', {})",
        columns.join(", "),
        values.join(", "),
        nulls.join(", ")
    ));
    let refused = kept(source(&database, "table: zoo\nschema: {x: int}").as_ref()).await;
    assert_eq!(refused.len(), 2);
    // Bytes are no text; a geometry was asked for as bytes, and has another one.
    let others = ZOO.iter().enumerate().filter(|(_, (_, _, arrow, _))| *arrow != "Binary");
    let texts = others.map(|(n, _)| format!("c{n}: text"));
    for schema in ["x: text".to_owned(), format!("x: text, {}", texts.collect::<Vec<_>>().join(", "))] {
        let keys = format!("table: zoo\nschema: {{{schema}}}");
        let (direct, again) = (read(source(&database, &keys).as_ref()).await.unwrap(), again(&refused, &keys));
        assert_eq!(direct[0].schema(), again.schema());
        assert_eq!(sorted_rows(&direct).unwrap(), sorted_rows(&[again]).unwrap(), "{:?}", refused[0].0);
    }
}

/// What the server has and arrow has no place for is there as text.
#[tokio::test]
async fn dates_that_are_none_are_kept() {
    let database = mariadb::database();
    database.sql(
        "set sql_mode = ''; create table t(id int, d date, m datetime(3), f tinyint(1));
         insert into t values (1, '0000-00-00', '0000-00-00', 2), (2, '2024-00-10', '2024-01-15 10:20:30.5', 1)",
    );
    let refused = kept(source(&database, "table: t").as_ref()).await;
    assert_eq!(refused.len(), 2, "{refused:?}");
    let keys = "table: t\nschema: {d: text, m: text, f: tinyint}";
    let direct = read(source(&database, keys).as_ref()).await.unwrap();
    assert_eq!(sorted_rows(&direct).unwrap(), sorted_rows(&[again(&refused, keys)]).unwrap());
}
