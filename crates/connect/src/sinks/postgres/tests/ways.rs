//! Rows that are written where they stay: in the target, or in a table that takes its place.

use super::*;
use crate::sinks::staged_table::{Payload, Way};

fn sink_of(database: &TestDatabase, yaml: &str, schema: &SchemaRef, generation: u32) -> Arc<dyn Sink> {
    let load: LoadSpec = decode(&parse("p.yaml", &format!("from: rows\nto: db\n{yaml}\n")).unwrap()).unwrap();
    let context = LoadContext { alone: true, ..context(schema, generation) };
    connect(&database.local_url()).sink(&load, context).unwrap()
}

async fn staged(sink: &dyn Sink, rows: &RecordBatch, generation: u32) -> Staged {
    sink.prepare().await.unwrap();
    let rows = Rows::from_batches(rows.schema(), vec![rows.clone()]);
    sink.stage(&task(generation, 0, 1), rows).await.unwrap()
}

fn way(staged: &Staged) -> Way {
    Payload::of(staged).unwrap().way
}

fn all_ids(database: &TestDatabase) -> String {
    database.sql("select coalesce(string_agg(id::text, ',' order by id), '') from target")
}

fn oid(database: &TestDatabase) -> String {
    database.sql("select 'target'::regclass::oid")
}

const APPEND: &str = "table: target\nstrategy: append";
const REPLACE: &str = "table: target\nstrategy: replace";

#[tokio::test]
async fn a_load_that_is_alone_is_appended_to_the_table_itself_and_seen_at_its_commit() {
    let database = postgres::database();
    database.sql("create table target (other text default 'x', id bigint primary key)");
    let rows = ids(&[1, 2]);
    let sink = sink_of(&database, APPEND, &rows.schema(), 1);
    let first = staged(sink.as_ref(), &rows, 1).await;
    assert_eq!(way(&first), Way::Held);
    assert_eq!(sink.mode(), SinkMode::Single);
    assert_eq!(all_ids(&database), "");
    assert_eq!(staging_tables(&database), "");
    let committed = sink.commit(std::slice::from_ref(&first), &Checkpoint::default()).await.unwrap();
    assert_eq!((committed.rows, committed.already), (2, false));
    assert_eq!(all_ids(&database), "1,2");
    assert_eq!(database.sql("select distinct other from target"), "x");
    // Once more, as a recovery would: the ledger knows it.
    assert!(sink.commit(&[first], &Checkpoint::default()).await.unwrap().already);
    // The same load by a rival, who has staged it, too.
    let rival = sink_of(&database, APPEND, &rows.schema(), 1);
    let again = staged(rival.as_ref(), &ids(&[3]), 1).await;
    assert!(rival.commit(&[again], &Checkpoint::default()).await.unwrap().already);
    assert_eq!(all_ids(&database), "1,2");
}

#[tokio::test]
async fn what_is_held_is_gone_with_its_transaction() {
    let database = postgres::database();
    database.sql("create table target (id bigint)");
    let rows = ids(&[1, 2]);
    // Thrown away.
    let sink = sink_of(&database, APPEND, &rows.schema(), 1);
    let thrown = staged(sink.as_ref(), &rows, 1).await;
    sink.abort(&key(1)).await.unwrap();
    let error = sink.commit(&[thrown], &Checkpoint::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("are gone"), "{error}");
    // Ended by the server between the last row and the commit.
    let lost = staged(sink.as_ref(), &rows, 1).await;
    database.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'",
    );
    assert!(sink.commit(std::slice::from_ref(&lost), &Checkpoint::default()).await.is_err());
    let error = sink.commit(&[lost], &Checkpoint::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(all_ids(&database), "");
    // A commit in another process knows nothing of the transaction.
    let held = staged(sink.as_ref(), &rows, 1).await;
    let other = sink_of(&database, APPEND, &rows.schema(), 1);
    let error = other.commit(std::slice::from_ref(&held), &Checkpoint::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(sink.commit(&[held], &Checkpoint::default()).await.unwrap().rows, 2);
    assert_eq!(all_ids(&database), "1,2");
}

#[tokio::test]
async fn a_table_on_which_nothing_hangs_is_replaced_by_another_whole() {
    let database = postgres::database();
    database.sql("create table target (id bigint not null default 7 check (id > 0), n numeric(10,2)); insert into target values (1, 0)");
    let before = oid(&database);
    let rows = ids(&[5, 6]);
    let sink = sink_of(&database, REPLACE, &rows.schema(), 1);
    let ready = staged(sink.as_ref(), &rows, 1).await;
    assert_eq!(way(&ready), Way::Ready);
    assert_eq!(all_ids(&database), "1");
    sink.commit(&[ready], &Checkpoint::default()).await.unwrap();
    assert_eq!(all_ids(&database), "5,6");
    assert_ne!(oid(&database), before);
    assert_eq!(staging_tables(&database), "");
    assert_eq!(database.sql("select obj_description('target'::regclass) is null"), "t");
    assert_eq!(database.sql("select relpersistence from pg_class where oid = 'target'::regclass"), "p");
    assert_eq!(database.sql("insert into target (n) values (1.239) returning id || ' ' || n"), "7 1.24");
    assert_eq!(
        database.sql("select count(*) from pg_constraint where conrelid = 'target'::regclass and contype = 'c'"),
        "1"
    );
    // Nothing at all is a replacement, too.
    let none = sink_of(&database, REPLACE, &rows.schema(), 2);
    let nothing = staged(none.as_ref(), &rows.slice(0, 0), 2).await;
    none.commit(&[nothing], &Checkpoint::default()).await.unwrap();
    assert_eq!(all_ids(&database), "");
}

#[tokio::test]
async fn a_table_that_somebody_reads_or_has_changed_is_not_swapped_but_filled() {
    let database = postgres::database();
    database.sql("create table target (id bigint); insert into target values (1)");
    let before = oid(&database);
    let rows = ids(&[5]);
    // A reader that does not end.
    let sink = sink_of(&database, REPLACE, &rows.schema(), 1);
    let ready = staged(sink.as_ref(), &rows, 1).await;
    let reader = client(&database).await;
    reader.batch_execute("begin isolation level repeatable read; select * from target").await.unwrap();
    sink.commit(&[ready], &Checkpoint::default()).await.unwrap();
    let seen: i64 = reader.query_one("select id from target", &[]).await.unwrap().get(0);
    assert_eq!(seen, 1);
    reader.batch_execute("commit").await.unwrap();
    assert_eq!((all_ids(&database).as_str(), oid(&database)), ("5", before.clone()));
    assert_eq!(staging_tables(&database), "");
    // A column, and a view, that came while the rows were staged.
    for (generation, change) in
        [(2, "alter table target add more text default 'm'"), (3, "create view looks as select * from target")]
    {
        let rows = ids(&[i64::from(generation) * 10]);
        let sink = sink_of(&database, REPLACE, &rows.schema(), generation);
        let ready = staged(sink.as_ref(), &rows, generation).await;
        assert_eq!(way(&ready), Way::Ready);
        database.sql(change);
        sink.commit(&[ready], &Checkpoint::default()).await.unwrap();
        assert_eq!((all_ids(&database), oid(&database)), ((generation * 10).to_string(), before.clone()));
    }
    assert_eq!(database.sql("select more from looks"), "m");
}

#[tokio::test]
async fn a_reader_whose_picture_is_older_than_the_swap_sees_old_or_new_rows_never_none() {
    let database = postgres::database();
    database.sql("create table target (id bigint); create table other (); insert into target values (1)");
    let reader = client(&database).await;
    reader.batch_execute("begin isolation level repeatable read; select * from other").await.unwrap();
    let rows = ids(&[5]);
    let sink = sink_of(&database, REPLACE, &rows.schema(), 1);
    let ready = staged(sink.as_ref(), &rows, 1).await;
    sink.commit(&[ready], &Checkpoint::default()).await.unwrap();
    let seen: Vec<i64> =
        reader.query("select id from target", &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, [5]);
}

#[tokio::test]
async fn comments_of_columns_are_those_of_the_table_whose_place_is_taken() {
    const COMMENT: &str = "select col_description('target'::regclass, 1)";
    let database = postgres::database();
    database.sql("create table target (id bigint); comment on column target.id is 'mine'");
    let rows = ids(&[5]);
    let before = oid(&database);
    let sink = sink_of(&database, REPLACE, &rows.schema(), 1);
    let ready = staged(sink.as_ref(), &rows, 1).await;
    assert_eq!(way(&ready), Way::Ready);
    sink.commit(&[ready], &Checkpoint::default()).await.unwrap();
    assert_eq!((all_ids(&database).as_str(), database.sql(COMMENT).as_str()), ("5", "mine"));
    let swapped = oid(&database);
    assert_ne!(swapped, before);
    // One that comes while the rows are staged.
    let sink = sink_of(&database, REPLACE, &rows.schema(), 2);
    let ready = staged(sink.as_ref(), &rows, 2).await;
    database.sql("comment on column target.id is 'newer'");
    sink.commit(&[ready], &Checkpoint::default()).await.unwrap();
    assert_eq!((oid(&database), database.sql(COMMENT)), (swapped, "newer".to_owned()));
}

#[tokio::test]
async fn what_a_new_table_would_not_have_keeps_the_old_one() {
    let rows = ids(&[5]);
    for hangs in [
        "create index on target (id)",
        "alter table target add primary key (id)",
        "create view looks as select * from target",
        "create function f(t target) returns bigint language sql as 'select t.id'",
        "create table uses (t target[])",
        "create table points (id bigint references target); alter table points drop constraint points_id_fkey; \
         alter table target add constraint k foreign key (id) references keys (id)",
        "grant select on target to public",
        "grant select (id) on target to public",
        "comment on table target is 'mine'",
        "alter table target set (fillfactor = 50)",
        "alter table target replica identity full",
        "create statistics s on id, (id + 1) from target",
        "create table child () inherits (target)",
        "alter table target inherit parent",
        "alter table target add serial_id serial",
        "alter table target add identity_id int generated by default as identity",
        "create publication every for all tables with (publish = 'insert')",
        "create rule r as on delete to target do nothing",
        "alter table target enable row level security",
        "create trigger t before truncate on target execute function suppress()",
        "alter table target set unlogged",
    ] {
        let database = postgres::database();
        database.sql(
            "create table target (id bigint); create table keys (id bigint primary key); create table parent (id bigint); \
             create function suppress() returns trigger language plpgsql as 'begin return null; end'; \
             insert into keys values (5)",
        );
        if hangs.contains("points") {
            database.sql("alter table target add constraint k foreign key (id) references keys (id)");
        } else {
            database.sql(hangs);
        }
        let sink = sink_of(&database, REPLACE, &rows.schema(), 1);
        sink.prepare().await.unwrap();
        assert_eq!(sink.mode(), SinkMode::Staged, "{hangs}");
        let before = oid(&database);
        let aside = staged(sink.as_ref(), &rows, 1).await;
        sink.commit(&[aside], &Checkpoint::default()).await.unwrap();
        assert_eq!((all_ids(&database).as_str(), oid(&database)), ("5", before), "{hangs}");
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_is_filled_before_it_has_its_name() {
    let database = postgres::database();
    let rows = ids(&[1]);
    let sink = sink_of(&database, APPEND, &rows.schema(), 1);
    let ready = staged(sink.as_ref(), &rows, 1).await;
    assert_eq!(way(&ready), Way::Ready);
    assert_eq!(database.sql("select to_regclass('target') is null"), "t");
    sink.commit(&[ready], &Checkpoint::default()).await.unwrap();
    assert_eq!(all_ids(&database), "1");
    // Somebody makes it meanwhile: the rows are added to what is there.
    let database = postgres::database();
    let sink = sink_of(&database, APPEND, &rows.schema(), 1);
    let ready = staged(sink.as_ref(), &rows, 1).await;
    database.sql("create table target (id bigint); insert into target values (9)");
    sink.commit(&[ready], &Checkpoint::default()).await.unwrap();
    assert_eq!(all_ids(&database), "1,9");
    assert_eq!(staging_tables(&database), "");
}

#[tokio::test]
async fn values_that_the_table_refuses_are_told_before_the_commit() {
    let database = postgres::database();
    database.sql("create table target (id bigint primary key check (id < 100)); insert into target values (1)");
    for refused in [1, 100] {
        let rows = ids(&[refused]);
        let sink = sink_of(&database, APPEND, &rows.schema(), 1);
        sink.prepare().await.unwrap();
        let error = sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows])).await.unwrap_err();
        assert!(error.to_string().contains("target"), "{error}");
    }
    assert_eq!(all_ids(&database), "1");
}
