//! What only PostgreSQL has to say about strategies: what hangs on a table, types without equality, statements of the user's.

use super::*;
use crate::conformance::random_loads;

#[tokio::test]
async fn random_loads_leave_what_a_table_in_memory_holds() {
    let fresh = async || Ok(Table { database: postgres::database(), folders: tempfile::tempdir().unwrap() });
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
    let database = postgres::database();
    database.sql(
        "create table other(id bigint primary key); insert into other values (7);
         create table target(id bigint primary key, note text, twice bigint generated always as (id * 2) stored,
           other_id bigint default 7 references other(id), made timestamptz default now(), check (id < 100));
         comment on table target is 'kept'; comment on column target.note is 'kept too';
         create index by_note on target(note); create view seen as select id, note from target;
         create role hanging_reader; grant select on target to hanging_reader; grant insert (note) on target to hanging_reader;
         create table told(what text);
         create function tell() returns trigger language plpgsql as
           'begin insert into told values (tg_op); return coalesce(new, old); end';
         create trigger tell after insert or update or delete on target for each row execute function tell();
         alter table target enable row level security; create policy all_of_it on target using (true);
         insert into target(id, note) values (1, 'old'), (2, 'old')",
    );
    let hanging = "select concat_ws(' ', obj_description('target'::regclass), col_description('target'::regclass, 2),
         (select count(*) from pg_index where indrelid = 'target'::regclass),
         (select count(*) from pg_constraint where conrelid = 'target'::regclass),
         (select count(*) from pg_trigger where tgrelid = 'target'::regclass and not tgisinternal),
         (select count(*) from pg_attrdef where adrelid = 'target'::regclass),
         (select count(*) from pg_policy where polrelid = 'target'::regclass),
         (select relacl::text || relrowsecurity from pg_class where oid = 'target'::regclass),
         has_column_privilege('hanging_reader', 'target', 'note', 'insert'), 'target'::regclass::oid)";
    let before = database.sql(hanging);
    let all = "select string_agg(concat_ws(',', id, note, twice, other_id), ' ' order by id) from target";
    for (generation, (strategy, wanted, told)) in [
        ("replace", "1,a,2,7 3,b,6,7", "DELETE INSERT"),
        ("truncate+insert", "1,a,2,7 3,b,6,7", "INSERT"),
        ("delete+insert\nkey: id", "1,a,2,7 2,old,4,7 3,b,6,7", "DELETE INSERT"),
        ("merge\nkey: id", "1,a,2,7 2,old,4,7 3,b,6,7", "INSERT UPDATE"),
        ("merge\nkey: id\ndelete_missing: true", "1,a,2,7 3,b,6,7", "DELETE INSERT UPDATE"),
    ]
    .into_iter()
    .enumerate()
    {
        database.sql("truncate target; insert into target(id, note) values (1, 'old'), (2, 'old'); truncate told");
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
        assert_eq!(database.sql("select string_agg(distinct what, ' ' order by what) from told"), told, "{strategy}");
    }
    database.sql("drop owned by hanging_reader; drop role hanging_reader");
}

#[tokio::test]
async fn a_merge_leaves_rows_alone_that_stay_the_same() {
    let database = postgres::database();
    load(&database, "table: t\nstrategy: merge\nkey: id", &notes(&[(1, "a"), (2, "b")]), 1).await.unwrap();
    let key = "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 't'::regclass and contype = 'p'";
    assert_eq!(database.sql(key), "PRIMARY KEY (id)");
    let before = database.sql("select xmin from t where id = 1");
    load(&database, "table: t\nstrategy: merge\nkey: id", &notes(&[(1, "a"), (2, "c")]), 2).await.unwrap();
    assert_eq!(database.sql("select xmin from t where id = 1"), before);
    assert_eq!(database.sql("select note from t where id = 2"), "c");
    // A column of the table that the rows do not have is kept.
    database.sql("alter table t add column kept text; update t set kept = 'k'");
    load(&database, "table: t\nstrategy: merge\nkey: id", &notes(&[(2, "d")]), 3).await.unwrap();
    assert_eq!(database.sql("select note || kept from t where id = 2"), "dk");
    load(&database, "table: h\nstrategy: scd2\nkey: id", &notes(&[(1, "a")]), 4).await.unwrap();
    assert_eq!(database.sql(&key.replace("'t'", "'h'")), "PRIMARY KEY (id, valid_from)");
}

#[tokio::test]
async fn types_without_an_equality_are_compared_all_the_same() {
    let database = postgres::database();
    database.sql("create table t(id int primary key, doc json, place point, tags text[], kind bpchar(3))");
    let rows = |doc: &str, place: &str| {
        batch(vec![
            ("id", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
            ("doc", Arc::new(StringArray::from(vec![doc]))),
            ("place", Arc::new(StringArray::from(vec![place]))),
            ("tags", Arc::new(StringArray::from(vec!["{a,b}"]))),
            ("kind", Arc::new(StringArray::from(vec!["x"]))),
        ])
    };
    let yaml = "table: t\nstrategy: merge\nkey: id";
    load(&database, yaml, &rows("{\"a\": 1}", "(1,2)"), 1).await.unwrap();
    let before = database.sql("select xmin from t");
    load(&database, yaml, &rows("{\"a\": 1}", "(1,2)"), 2).await.unwrap();
    assert_eq!(database.sql("select xmin from t"), before, "nothing has changed");
    load(&database, yaml, &rows("{\"a\": 2}", "(1,3)"), 3).await.unwrap();
    assert_eq!(database.sql("select doc->>'a' || place::text from t"), "2(1,3)");
}

#[tokio::test]
async fn what_cannot_be_truncated_or_kept_as_history_is_told_before() {
    let database = postgres::database();
    database.sql(
        "create table target(id bigint primary key, note text); create table child(t bigint references target(id));
         create table own(id bigint primary key, note text, parent bigint references own(id))",
    );
    let prepare = async |yaml: &str| {
        let rows = notes(&[(1, "a")]);
        open(&database, yaml, &rows.schema(), 1).unwrap().prepare().await
    };
    let error = prepare("table: target\nstrategy: truncate+insert").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error.message().contains("`child` points at it") && error.hint_text().unwrap().contains("replace"),
        "{error}"
    );
    load(&database, "table: own\nstrategy: truncate+insert", &notes(&[(1, "a")]), 1).await.unwrap();
    load(&database, "table: own\nstrategy: truncate+insert", &notes(&[(1, "b")]), 2).await.unwrap();
    assert_eq!(database.sql("select note from own"), "b");
    let error = prepare("table: target\nstrategy: scd2\nkey: id").await.unwrap_err();
    assert!(error.message().contains("has no column `valid_from`"), "{error}");
    // A merge that deletes nothing does not mind who points at the table.
    database.sql("drop table child; create table child(t bigint references target(id) on delete cascade)");
    prepare("table: target\nstrategy: merge\nkey: id").await.unwrap();
    let error = prepare("table: target\nstrategy: merge\nkey: id\ndelete_missing: true").await.unwrap_err();
    assert!(error.message().contains("would change rows of `child`"), "{error}");
}

#[tokio::test]
async fn statements_of_the_load_run_once_and_with_its_rows() {
    let database = postgres::database();
    database.sql("create table told(what text)");
    let yaml = "table: t\nstrategy: append\npre_sql: insert into told values ('before')\npost_sql:\n  - insert into told select 'after ' || count(*) from t;\n  - analyze t";
    let told = "select string_agg(what, ', ') from told";
    let rows = ids(&[1, 2]);
    let sink = open(&database, yaml, &rows.schema(), 1).unwrap();
    let staged = [sink.stage(&task(1, 0, 1), Rows::from_batches(rows.schema(), vec![rows.clone()])).await.unwrap()];
    assert_eq!(database.sql(told), "");
    sink.commit(&staged, &Checkpoint::default()).await.unwrap();
    assert_eq!(database.sql(told), "before, after 2");
    assert!(sink.commit(&staged, &Checkpoint::default()).await.unwrap().already);
    assert_eq!(database.sql(told), "before, after 2");

    for (sql, kind) in [
        ("insert into nowhere values (1)", ErrorKind::NotFound),
        ("insert into told values ('x'); commit", ErrorKind::Query),
    ] {
        let yaml = format!("table: t\nstrategy: append\npost_sql: \"{sql}\"");
        let error = load(&database, &yaml, &rows, 2).await.unwrap_err();
        assert!(error.to_string().contains("`post_sql` of `t` failed"), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert_eq!(
        (database.sql("select count(*) from t"), database.sql(told)),
        ("2".to_owned(), "before, after 2".to_owned())
    );
    // What the table needs may be made before.
    let yaml = "table: made\nstrategy: append\npre_sql: create table if not exists made(id bigint check (id > 0))";
    load(&database, yaml, &rows, 3).await.unwrap();
    assert_eq!(database.sql("select count(*) from pg_constraint where conrelid = 'made'::regclass"), "1");
}

#[tokio::test]
async fn a_scope_may_speak_of_what_only_the_table_has() {
    let database = postgres::database();
    database.sql(
        "create table target(id bigint, note text, tens bigint generated always as (id / 10) stored, region text default 'eu');
         create table bounds(least bigint); insert into bounds values (10);
         insert into target(id, note) values (1, 'old'), (10, 'old')",
    );
    let rows = |ids: &[i64]| notes(&ids.iter().map(|id| (*id, "new")).collect::<Vec<_>>());
    let all = "select string_agg(id || note, ' ' order by id) from target";
    for (scope, fine, now, stray, outside) in [
        ("tens = 1 -- of eu", [10, 11], "1old 10new 11new", [11, 21], "1 row is outside"),
        ("region = 'eu' and target.tens > 0", [12, 13], "1old 12new 13new", [1, 2], "2 rows are outside"),
        ("region = 'us'", [0; 2], "1old 12new 13new", [14, 15], "2 rows are outside"),
        ("public.target.id > 12", [14, 15], "1old 12new 14new 15new", [1, 13], "1 row is outside"),
        (
            "target.id >= (select least from bounds)",
            [10, 11],
            "1old 10new 11new",
            [3, 12],
            "1 row is outside of the scope `target.id >= (select least from bounds)`, with id = 3",
        ),
    ] {
        let yaml = format!("table: target\nstrategy: delete+insert\nscope: \"{scope}\"");
        if fine != [0; 2] {
            load(&database, &yaml, &rows(&fine), 1).await.unwrap();
            database.sql("delete from _gristmill_loads");
        }
        assert_eq!(database.sql(all), now, "{scope}");
        let error = load(&database, &yaml, &rows(&stray), 1).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Data && error.message().contains(outside), "{scope}: {error}");
        assert_eq!(database.sql(all), now, "{scope}");
    }
}
