//! What only SQLite has to say about strategies: what hangs on a table, statements of the user's.

use super::*;
use crate::conformance::random_loads;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_loads_leave_what_a_table_in_memory_holds() {
    random_loads(|| async { Ok(Target::new()) }, 0..16).await.unwrap();
}

fn notes(rows: &[(i64, &str)]) -> RecordBatch {
    let notes: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
    batch(vec![("id", ints(&rows.iter().map(|row| row.0).collect::<Vec<_>>())), ("note", notes)])
}

#[tokio::test]
async fn what_hangs_on_a_table_survives_every_strategy() {
    for (strategy, wanted, told) in [
        ("replace", "1,a,2,7 3,b,6,7", "delete insert"),
        ("truncate+insert", "1,a,2,7 3,b,6,7", "delete insert"),
        ("delete+insert\nkey: id", "1,a,2,7 2,old,4,7 3,b,6,7", "delete insert"),
        ("merge\nkey: id", "1,a,2,7 2,old,4,7 3,b,6,7", "insert update"),
        ("merge\nkey: id\ndelete_missing: true", "1,a,2,7 3,b,6,7", "delete insert update"),
    ] {
        let target = Target::new();
        target
            .sql()
            .execute_batch(
                "CREATE TABLE other (id INTEGER PRIMARY KEY); INSERT INTO other VALUES (7);
                 CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT COLLATE NOCASE, twice INTEGER AS (id * 2) STORED,
                   other_id INTEGER DEFAULT 7 REFERENCES other (id), CHECK (id < 100));
                 CREATE INDEX by_note ON t (note); CREATE VIEW seen AS SELECT id, note FROM t; CREATE TABLE told (what TEXT);
                 INSERT INTO t (id, note) VALUES (1, 'old'), (2, 'old');
                 CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO told VALUES ('insert'); END;
                 CREATE TRIGGER u AFTER UPDATE ON t BEGIN INSERT INTO told VALUES ('update'); END;
                 CREATE TRIGGER d AFTER DELETE ON t BEGIN INSERT INTO told VALUES ('delete'); END;",
            )
            .unwrap();
        let hanging = "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_master WHERE name NOT LIKE '\\_%' ESCAPE '\\' \
                       AND sql IS NOT NULL ORDER BY name)";
        let before = target.ask::<String>(hanging);
        target.load(&format!("table: t\nstrategy: {strategy}"), 1, &notes(&[(1, "a"), (3, "b")])).await.unwrap();
        let all =
            "SELECT group_concat(concat_ws(',', id, note, twice, other_id), ' ') FROM (SELECT * FROM t ORDER BY id)";
        assert_eq!(target.ask::<String>(all), wanted, "{strategy}");
        assert_eq!(target.ask::<String>(hanging), before, "{strategy}");
        let changes = "SELECT group_concat(what, ' ') FROM (SELECT DISTINCT what FROM told ORDER BY what)";
        assert_eq!(target.ask::<String>(changes), told, "{strategy}");
    }
}

#[tokio::test]
async fn a_new_table_gets_the_key_that_the_strategy_keeps() {
    let target = Target::new();
    let key = |table: &str| {
        let sql = format!(
            "SELECT group_concat(name, ' ') FROM (SELECT name FROM pragma_table_info('{table}') WHERE pk > 0 ORDER BY pk)"
        );
        target.ask::<Option<String>>(&sql).unwrap_or_default()
    };
    target.load("table: m\nstrategy: merge\nkey: id", 1, &notes(&[(1, "a"), (2, "b")])).await.unwrap();
    target.load("table: h\nstrategy: scd2\nkey: id", 2, &notes(&[(1, "a")])).await.unwrap();
    target.load("table: r\nstrategy: replace", 3, &notes(&[(1, "a"), (1, "a")])).await.unwrap();
    assert_eq!((key("m"), key("h"), key("r")), ("id".to_owned(), "id valid_from".to_owned(), String::new()));
    // Names are told apart as SQLite does; a column that the rows do not have is kept.
    target.sql().execute_batch("ALTER TABLE m ADD COLUMN kept TEXT; UPDATE m SET kept = 'k'").unwrap();
    let rows = batch(vec![("ID", ints(&[2, 3])), ("Note", Arc::new(StringArray::from(vec!["c", "d"])) as ArrayRef)]);
    target.load("table: m\nstrategy: merge\nkey: ID", 4, &rows).await.unwrap();
    let got = sorted_rows(&[target.read("table: m").await.unwrap()]).unwrap();
    assert_eq!(got, ["1│a│k│", "2│c│k│", "3│d│∅│"]);
    let error = target.load("table: r\nstrategy: scd2\nkey: id", 5, &notes(&[(1, "a")])).await.unwrap_err();
    assert!(error.to_string().contains("has no column `valid_from`"), "{error}");
}

#[tokio::test]
async fn truncate_and_insert_never_makes_the_table_anew() {
    let target = Target::new();
    target.load("table: t\nstrategy: replace", 1, &batch(vec![("a", ints(&[1]))])).await.unwrap();
    let text = batch(vec![("a", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]);
    let error = target.load("table: t\nstrategy: truncate+insert", 2, &text).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
    target.load("table: t\nstrategy: replace", 3, &text).await.unwrap();
}

#[tokio::test]
async fn statements_of_the_load_run_once_and_with_its_rows() {
    let target = Target::new();
    target.sql().execute_batch("CREATE TABLE told (what TEXT)").unwrap();
    let told = || target.ask::<Option<String>>("SELECT group_concat(what, ', ') FROM told").unwrap_or_default();
    let yaml = "table: t\nstrategy: append\npre_sql: insert into told values ('before')\npost_sql: [insert into told select 'after ' || count(*) from t, select * from t]";
    let rows = batch(vec![("a", ints(&[1, 2]))]);
    target.load(yaml, 1, &rows).await.unwrap();
    assert_eq!(told(), "before, after 2");
    assert!(target.load(yaml, 1, &rows).await.unwrap().already);
    assert_eq!(told(), "before, after 2");
    for sql in ["insert into nowhere values (1)", "insert into told values ('x'); commit"] {
        let error =
            target.load(&format!("table: t\nstrategy: append\npost_sql: \"{sql}\""), 2, &rows).await.unwrap_err();
        assert!(error.to_string().contains("post_sql"), "{error}");
    }
    assert_eq!((target.ask::<i64>("SELECT count(*) FROM t"), told()), (2, "before, after 2".to_owned()));
}

#[tokio::test]
async fn a_scope_may_speak_of_what_only_the_table_has() {
    let target = Target::new();
    target
        .sql()
        .execute_batch(
            "CREATE TABLE t (id INTEGER, note TEXT COLLATE NOCASE, tens INTEGER AS (id / 10) STORED, region TEXT DEFAULT 'eu');
             CREATE TABLE bounds (least INTEGER); INSERT INTO bounds VALUES (10);
             INSERT INTO t (id, note) VALUES (1, 'old'), (10, 'old')",
        )
        .unwrap();
    let rows = |ids: &[i64]| notes(&ids.iter().map(|id| (*id, "new")).collect::<Vec<_>>());
    let all = "SELECT group_concat(id || note, ' ') FROM (SELECT * FROM t ORDER BY id)";
    for (scope, fine, now, stray, outside) in [
        ("tens = 1 -- of eu", [10, 11], "1old 10new 11new", [11, 21], "1 row is outside"),
        ("region = 'eu' and t.tens > 0", [12, 13], "1old 12new 13new", [1, 2], "2 rows are outside"),
        ("main.t.id > 12", [14, 15], "1old 12new 14new 15new", [1, 13], "1 row is outside"),
        (
            "t.id >= (select least from bounds) and note = 'NEW'",
            [10, 11],
            "1old 10new 11new",
            [3, 12],
            "1 row is outside of the scope `t.id >= (select least from bounds) and note = 'NEW'`, with id = 3, note = new",
        ),
    ] {
        let load = format!("table: t\nstrategy: delete+insert\nscope: \"{scope}\"");
        target.load(&load, 1, &rows(&fine)).await.unwrap();
        target.sql().execute_batch("DELETE FROM _gristmill_loads").unwrap();
        assert_eq!(target.ask::<String>(all), now, "{scope}");
        let error = target.load(&load, 1, &rows(&stray)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Data && error.to_string().contains(outside), "{scope}: {error}");
        assert_eq!(target.ask::<String>(all), now, "{scope}");
    }
}
