//! What only MySQL has to say about strategies: what hangs on a table, how texts compare, statements of the user's.

use super::*;
use crate::conformance::random_loads;

#[tokio::test]
async fn random_loads_leave_what_a_table_in_memory_holds() {
    let fresh = async || Ok(Table { database: mariadb::database(), folders: tempfile::tempdir().unwrap() });
    random_loads::<Table, _>(fresh, 0..4).await.unwrap();
}

fn notes(rows: &[(i64, &str)]) -> RecordBatch {
    batch(vec![
        ("id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))) as ArrayRef),
        ("note", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
    ])
}

#[tokio::test]
async fn what_hangs_on_a_table_survives_every_strategy() {
    let database = mariadb::database();
    database.sql(
        "create table other(id bigint primary key); insert into other values (7);
         create table target(id bigint primary key comment 'kept', note varchar(20) collate utf8mb4_general_ci,
           twice bigint as (id * 2) stored, other_id bigint default 7, made timestamp default current_timestamp,
           check (id < 100), foreign key (other_id) references other(id)) comment 'kept too';
         create index by_note on target(note); create view seen as select id, note from target;
         create user if not exists hanging_reader; grant select on target to hanging_reader;
         create table told(what text);
         create trigger i after insert on target for each row insert into told values ('INSERT');
         create trigger u after update on target for each row insert into told values ('UPDATE');
         create trigger d after delete on target for each row insert into told values ('DELETE');
         insert into target(id, note) values (1, 'old'), (2, 'old')",
    );
    let hanging = "show create table target; show triggers; show grants for hanging_reader";
    let before = database.sql(hanging);
    let all = "select group_concat(concat_ws(',', id, note, twice, other_id) order by id separator ' ') from target";
    for (generation, (strategy, wanted, told)) in [
        ("replace", "1,a,2,7 3,b,6,7", "DELETE INSERT"),
        ("truncate+insert", "1,a,2,7 3,b,6,7", "DELETE INSERT"),
        ("delete+insert\nkey: id", "1,a,2,7 2,old,4,7 3,b,6,7", "DELETE INSERT"),
        ("merge\nkey: id", "1,a,2,7 2,old,4,7 3,b,6,7", "INSERT UPDATE"),
        ("merge\nkey: id\ndelete_missing: true", "1,a,2,7 3,b,6,7", "DELETE INSERT UPDATE"),
    ]
    .into_iter()
    .enumerate()
    {
        database.sql("delete from target; insert into target(id, note) values (1, 'old'), (2, 'old'); truncate told");
        let yaml = format!("table: target\nstrategy: {strategy}");
        let generation = u32::try_from(generation).unwrap() + 1;
        load(&database, &yaml, &notes(&[(1, "a"), (3, "b")]), generation).await.unwrap();
        assert_eq!(database.sql(all), wanted, "{strategy}");
        assert_eq!(database.sql(hanging), before, "{strategy}");
        assert_eq!(
            database.sql("select count(*) from seen"),
            database.sql("select count(*) from target"),
            "{strategy}"
        );
        assert_eq!(
            database.sql("select group_concat(distinct what order by what separator ' ') from told"),
            told,
            "{strategy}"
        );
    }
}

#[tokio::test]
async fn rows_that_others_point_at_may_go_and_come_again() {
    let database = mariadb::database();
    database.sql(
        "create table target(id bigint primary key, note text default 'none', parent bigint, foreign key (parent) references target(id));
         create table child(target_id bigint, constraint to_target foreign key (target_id) references target(id));
         insert into target(id, note) values (1, 'old'), (2, 'old'); insert into child values (1)",
    );
    load(&database, "table: target\nstrategy: replace", &ids(&[1, 3]), 1).await.unwrap();
    assert_eq!(database.sql("select concat(id, note) from target order by 1"), "1none\n3none");
    load(&database, "table: target\nstrategy: delete+insert\nkey: [id]", &ids(&[1, 4]), 2).await.unwrap();
    assert_eq!(database.sql("select id from target order by 1"), "1\n3\n4");
    // A row that the child points at may not go; nor may one point to nothing itself.
    let lost = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("parent", Arc::new(Int64Array::from(vec![5]))),
    ]);
    for (rows, told) in [(ids(&[9]), "rows of `child` would point to nothing"), (lost, "rows of `target` would")] {
        let error = load(&database, "table: target\nstrategy: replace", &rows, 3).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert!(error.message().contains(told), "{error}");
        assert_eq!(database.sql("select id from target order by 1"), "1\n3\n4");
    }
    // Nor may a load take the child's rows along.
    database.sql("alter table child drop foreign key to_target; alter table child add foreign key (target_id) references target(id) on delete cascade");
    let error = load(&database, "table: target\nstrategy: replace", &ids(&[9]), 4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(database.sql("select count(*) from child"), "1");
}

#[tokio::test]
async fn a_merge_leaves_rows_alone_that_stay_the_same_and_sees_what_a_collation_does_not() {
    let database = mariadb::database();
    load(&database, "table: t\nstrategy: merge\nkey: id", &notes(&[(1, "a"), (2, "b")]), 1).await.unwrap();
    let key = |table: &str| {
        database.sql(&format!(
            "select group_concat(column_name order by seq_in_index) from information_schema.statistics \
             where table_schema = database() and table_name = '{table}' and index_name = 'PRIMARY'"
        ))
    };
    assert_eq!(key("t"), "id");
    database.sql(
        "alter table t add column kept text; update t set kept = 'k'; create table told(what text);
         create trigger u after update on t for each row insert into told values (new.note);
         alter table t modify note varchar(9) character set latin1 collate latin1_swedish_ci",
    );
    load(&database, "table: t\nstrategy: merge\nkey: id", &notes(&[(1, "a"), (2, "B")]), 2).await.unwrap();
    assert_eq!(database.sql("select group_concat(what) from told"), "B");
    load(&database, "table: t\nstrategy: merge\nkey: id", &notes(&[(1, "a "), (2, "B")]), 3).await.unwrap();
    assert_eq!(database.sql("select concat(id, note, '.', kept) from t order by id"), "1a .k\n2B.k");
    load(&database, "table: h\nstrategy: scd2\nkey: [id, note]", &notes(&[(1, "a"), (1, "A")]), 4).await.unwrap();
    assert_eq!(key("h"), "id,note,valid_from");
    assert_eq!(database.sql("select count(*) from h"), "2");
    // Keys are the same where the column says so, and found before the run commits anything.
    database.sql("create table ci(note varchar(20) collate utf8mb4_general_ci primary key)");
    let rows = one("note", Arc::new(StringArray::from(vec!["a", "A"])));
    let sink = open(&database, "table: ci\nstrategy: merge\nkey: note", &rows.schema(), 5).unwrap();
    let staged = [sink.stage(&task(5, 0, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap()];
    let error = sink.audit(&staged).await.unwrap_err();
    assert!(error.message().contains("2 rows have the same key"), "{error}");
}

#[tokio::test]
async fn null_keys_are_keys_and_partitions_are_values() {
    let database = mariadb::database();
    let rows = |ids: Vec<Option<i32>>, days: Vec<Option<&str>>, notes: Vec<&str>| {
        batch(vec![
            ("id", Arc::new(Int32Array::from(ids)) as ArrayRef),
            ("day", Arc::new(StringArray::from(days))),
            ("note", Arc::new(StringArray::from(notes))),
        ])
    };
    let yaml = "table: t\nstrategy: delete+insert\nkey: [id, day]";
    let old = rows(vec![Some(1), None, None, Some(2)], vec![Some("a"), Some("a"), None, None], vec!["old"; 4]);
    load(&database, yaml, &old, 1).await.unwrap();
    let new = rows(vec![None, Some(2), Some(1)], vec![Some("a"), None, Some("b")], vec!["new"; 3]);
    load(&database, yaml, &new, 2).await.unwrap();
    let all = "select concat_ws(',', coalesce(id, '-'), coalesce(day, '-'), note) from t order by id is null, id, day is null, day";
    assert_eq!(database.sql(all), "1,a,old\n1,b,new\n2,-,new\n-,a,new\n-,-,old");
    let yaml = "table: t\nstrategy: partition_overwrite\npartition_by: [day]";
    load(&database, yaml, &rows(vec![Some(9)], vec![None], vec!["part"]), 3).await.unwrap();
    assert_eq!(database.sql(all), "1,a,old\n1,b,new\n9,-,part\n-,a,new");
}

#[tokio::test]
async fn statements_of_the_load_run_once_and_with_its_rows() {
    let database = mariadb::database();
    database.sql("create table told(what text); create procedure parting() commit");
    let yaml = "table: t\nstrategy: append\npre_sql: insert into told values ('before')\npost_sql:\n  - insert into told select concat('after ', count(*)) from t;\n  - select * from t";
    let told = "select group_concat(what separator ', ') from told";
    let rows = ids(&[1, 2]);
    load(&database, yaml, &rows, 1).await.unwrap();
    assert_eq!(database.sql(told), "before, after 2");
    assert!(load(&database, yaml, &rows, 1).await.unwrap().already);
    assert_eq!(database.sql(told), "before, after 2");
    for (sql, kind) in [
        ("post_sql: insert into nowhere values (1)", ErrorKind::NotFound),
        ("pre_sql: call parting()", ErrorKind::Query),
        ("post_sql: insert into told values ('x'); commit", ErrorKind::Query),
    ] {
        let error = load(&database, &format!("table: t\nstrategy: append\n{sql}"), &rows, 2).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("_sql` of `"), "{error}");
    }
    let error = load(&database, "table: t\nstrategy: append\npre_sql: create table x(a int)", &rows, 2).await;
    assert!(error.unwrap_err().message().contains("MySQL commits when it sees it"));
    assert_eq!((database.sql("select count(*) from t"), database.sql(told)), ("2".into(), "before, after 2".into()));
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told_before_the_first_row() {
    let database = mariadb::database();
    let rows = ids(&[1]);
    for (yaml, kind, message) in [
        ("strategy: append", ErrorKind::Config, "the table to load is missing"),
        ("table: t\nstrategy: delete+insert", ErrorKind::Config, "`delete+insert` needs to know"),
        ("table: t\nstrategy: append\npost_sql: commit", ErrorKind::Config, "`commit` cannot be used"),
        ("table: t\nstrategy: append\nupdated_column: ID", ErrorKind::Schema, "which is what `updated_column` writes"),
        ("table: t\nstrategy: append\nformat: parquet", ErrorKind::Config, "`format` goes with `path`"),
        ("table: t\nstrategy: delete+insert\nkey: [idd]", ErrorKind::Schema, "the rows have no column `idd`"),
        ("table: _gristmill_loads\nstrategy: append", ErrorKind::Config, "a name of Gristmill's own"),
        ("table: x.`_Gristmill_LOADS`\nstrategy: append", ErrorKind::Config, "a name of Gristmill's own"),
    ] {
        let error = open(&database, yaml, &rows.schema(), 1).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message), "{error}");
    }
    let twice = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("ID", Arc::new(Int64Array::from(vec![1]))),
    ]);
    let error = open(&database, "table: t\nstrategy: append", &twice.schema(), 1).unwrap_err();
    assert!(error.message().contains("the same to MySQL"), "{error}");

    let prepare = async |yaml: &str| open(&database, yaml, &rows.schema(), 1).unwrap().prepare().await.unwrap_err();
    let error = prepare("table: msql.t\nstrategy: append").await;
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::NotFound, Some("did you mean `mysql`?")));
    database.sql(
        "create view v as select 1 as id; create table t(id bigint); create table m(id bigint) engine = MyISAM;
         create table touched(id bigint, valid_from timestamp(6) on update current_timestamp(6), valid_to datetime(6))",
    );
    for (yaml, told) in [
        ("table: v\nstrategy: append", "is a view"),
        ("table: m\nstrategy: append", "is kept by MyISAM, which has no transactions"),
        ("table: t\nstrategy: scd2\nkey: id", "has no column `valid_from`"),
        ("table: touched\nstrategy: scd2\nkey: id", "the server changes `valid_from`"),
        ("table: t\nstrategy: delete+insert\nscope: di = 1", "the scope `di = 1` does not work"),
    ] {
        let error = prepare(yaml).await;
        assert!(error.message().contains(told), "{error}");
    }
    database.sql(&format!(
        "create or replace user writer identified by 'writer'; grant create, insert on {0}.* to writer",
        database.name
    ));
    let url = format!("mysql://writer:writer@127.0.0.1:{}/{}", database.port, database.name);
    let as_writer = async |yaml: &str| open_at(&url, yaml, &rows.schema(), 1).unwrap().prepare().await;
    let error = as_writer("table: t\nstrategy: replace").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let grant = format!(
        "grant select, insert, update, delete, create, alter, drop, index on `{}`.* to `writer`",
        database.name
    );
    assert!(error.hint_text().unwrap().contains(&grant), "{error}");
    database.sql(&format!("grant select, delete, drop on {}.* to writer", database.name));
    as_writer("table: t\nstrategy: replace").await.unwrap();
}

#[tokio::test]
async fn a_scope_may_speak_of_what_only_the_table_has() {
    let database = mariadb::database();
    database.sql(
        "create table target(id bigint, note varchar(9) collate utf8mb4_general_ci, tens bigint as (id div 10) stored,
           region varchar(2) default 'eu');
         create table bounds(least bigint); insert into bounds values (10);
         insert into target(id, note) values (1, 'old'), (10, 'old')",
    );
    let rows = |ids: &[i64]| notes(&ids.iter().map(|id| (*id, "new")).collect::<Vec<_>>());
    let all = "select group_concat(id, note order by id separator ' ') from target";
    let qualified = format!("{}.target.id > 12", database.name);
    for (scope, fine, now, stray, outside) in [
        ("tens = 1 -- of eu", [10, 11], "1old 10new 11new", [11, 21], "1 row is outside"),
        ("region = 'eu' and target.tens > 0", [12, 13], "1old 12new 13new", [1, 2], "2 rows are outside"),
        (qualified.as_str(), [14, 15], "1old 12new 14new 15new", [1, 13], "1 row is outside"),
        (
            "target.id >= (select least from bounds) and note = 'NEW'",
            [10, 11],
            "1old 10new 11new",
            [3, 12],
            "1 row is outside of the scope `target.id >= (select least from bounds) and note = 'NEW'`, with id = 3, note = new",
        ),
    ] {
        let yaml = format!("table: target\nstrategy: delete+insert\nscope: \"{scope}\"");
        load(&database, &yaml, &rows(&fine), 1).await.unwrap();
        database.sql("delete from _gristmill_loads");
        assert_eq!(database.sql(all), now, "{scope}");
        let error = load(&database, &yaml, &rows(&stray), 1).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Data && error.message().contains(outside), "{scope}: {error}");
        assert_eq!(database.sql(all), now, "{scope}");
    }
}

#[tokio::test]
async fn statements_before_the_rows_find_the_table_as_the_rows_need_it() {
    let database = mariadb::database();
    // It is made before the transaction, which all statements are in.
    let yaml = "table: target\nstrategy: append\npre_sql: insert into target(id) values (7)";
    load(&database, yaml, &ids(&[1]), 1).await.unwrap();
    let yaml = "table: target\nstrategy: append\npre_sql: update target set note = 'was there'";
    load(&database, yaml, &notes(&[(2, "b")]), 2).await.unwrap();
    let all = "select group_concat(id, note order by id) from target";
    assert_eq!(database.sql(all), "1was there,2b,7was there");
    // One that fails takes all rows with it.
    let yaml = "table: target\nstrategy: append\npre_sql: [delete from target, delete from nowhere]";
    let error = load(&database, yaml, &notes(&[(3, "c")]), 3).await.unwrap_err();
    assert!(error.to_string().contains("`pre_sql` of `"), "{error}");
    assert_eq!(database.sql(all), "1was there,2b,7was there");
}
