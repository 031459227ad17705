//! Units against the real server: disjoint, complete, in one picture, whatever happens to the connections.

use super::*;
use crate::{Consistency, ReadPlan};
use gristmill_model::WorkUnit;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use tokio::task::JoinSet;

pub(super) async fn plan(source: &dyn Source) -> ReadPlan {
    source.plan(&ReadRequest { parallelism: 4, ..ReadRequest::default() }).await.unwrap()
}

async fn scan(source: &dyn Source) -> Scan {
    Scan { schema: source.schema().await.unwrap(), batch_size: 500, on_bad_row: OnFail::Fail, rejects: None }
}

pub(super) async fn unit_rows(source: &dyn Source, unit: &WorkUnit) -> Result<Vec<String>> {
    let batches = source.read(unit, &scan(source).await).collect().await?;
    sorted_rows(&batches)
}

/// The rows of all units, four at a time.
pub(super) async fn all_rows(source: &Arc<dyn Source>, plan: &ReadPlan) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for units in plan.units.chunks(4) {
        let mut set = JoinSet::new();
        for unit in units {
            let (source, unit) = (source.clone(), unit.clone());
            set.spawn(async move { unit_rows(source.as_ref(), &unit).await });
        }
        while let Some(unit) = set.join_next().await {
            rows.extend(unit.unwrap()?);
        }
    }
    rows.sort_unstable();
    Ok(rows)
}

/// The rows of the table as one unit reads them.
pub(super) async fn whole(database: &TestDatabase, yaml: &str) -> Vec<String> {
    let source = source(database, &format!("{yaml}\nunits: {{strategy: none}}"));
    let plan = plan(source.as_ref()).await;
    assert_eq!(plan.units.len(), 1);
    all_rows(&source, &plan).await.unwrap()
}

#[tokio::test]
async fn a_large_table_is_read_in_ranges_of_its_key_in_one_picture() {
    let database = mariadb::database();
    database.sql(
        "create table big(id int, line tinyint, v text, primary key(id, line));
         insert into big select seq div 2, seq % 2, repeat('x', 100) from seq_1_to_200000; analyze table big",
    );
    let source = source(&database, "table: big");
    let plan = plan(source.as_ref()).await;
    assert_eq!(plan.consistency, Consistency::Snapshot);
    assert!(plan.why.contains("ranges of the key `id`, in whose order the rows are kept"), "{}", plan.why);
    assert!((3..=6).contains(&plan.units.len()), "{}", plan.why);
    assert!(plan.why.ends_with("the database counts the rows, too"), "{}", plan.why);
    // What happens after the plan is not seen, whichever unit is read when.
    let first = unit_rows(source.as_ref(), &plan.units[0]).await.unwrap();
    database.sql("delete from big where id % 2 = 0; update big set v = 'new'; insert into big values (-5, 0, 'new')");
    let mut all = first;
    for unit in &plan.units[1..] {
        let rows = unit_rows(source.as_ref(), unit).await.unwrap();
        assert!((5_000..100_000).contains(&rows.len()), "{}: {}", unit.label, rows.len());
        all.extend(rows);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 200_000);
    assert!(all.iter().all(|row| row.ends_with(&format!("{}│", "x".repeat(100)))));
    drop(plan);
    let fresh = super::units::plan(source.as_ref()).await;
    assert_eq!(all_rows(&source, &fresh).await.unwrap().len(), 100_001);
}

#[tokio::test]
async fn readers_go_from_unit_to_unit_and_everything_is_hung_up_in_the_end() {
    let database = mariadb::database();
    database.sql("create table t(n int primary key); insert into t select seq from seq_1_to_20000; analyze table t");
    let source = source(&database, "table: t\nunits: {target_rows: 500, verify: none}");
    let plan = plan(source.as_ref()).await;
    assert!((35..=50).contains(&plan.units.len()), "{}", plan.why);
    assert_eq!(connections(&database), "4");
    for unit in &plan.units[..20] {
        unit_rows(source.as_ref(), unit).await.unwrap();
    }
    assert_eq!(connections(&database), "4");
    drop(plan);
    until_nobody_is_connected(&database).await;
}

#[tokio::test]
async fn writers_never_come_between_the_readers_pictures() {
    let database = mariadb::database();
    // Each transaction moves one from a key at one end to one at the other: the sum is the same in every picture.
    database.sql(
        "create table t(id int primary key, v int); insert into t select seq, 100 from seq_1_to_4000; analyze table t;
         create table stop(a int)",
    );
    let writer = std::thread::spawn({
        let database = database.clone();
        move || {
            database.sql(
                "delimiter //
                 create procedure churn() begin
                   repeat start transaction; update t set v = v - 1 where id = 1; update t set v = v + 1 where id = 4000; commit;
                   until (select count(*) from stop) > 0 end repeat;
                 end//
                 delimiter ;
                 call churn()",
            );
        }
    });
    let sums: i64 = 4000 * 100;
    for _ in 0..15 {
        let source = source(&database, "table: t\nunits: {target_rows: 500, verify: none}");
        let plan = plan(source.as_ref()).await;
        assert_eq!(plan.consistency, Consistency::Snapshot);
        assert!(plan.units.len() > 3, "{}", plan.why);
        let rows = all_rows(&source, &plan).await.unwrap();
        let sum: i64 = rows.iter().map(|row| row.split('│').nth(1).unwrap().parse::<i64>().unwrap()).sum();
        assert_eq!(sum, sums);
    }
    database.sql("insert into stop values (1)");
    writer.join().unwrap();
}

#[tokio::test]
async fn what_cannot_share_a_picture_is_read_by_one_connection_and_says_why() {
    let database = mariadb::database();
    database.sql(&format!(
        "create table t(id int primary key, kind int); insert into t select seq, seq % 3 from seq_1_to_60000;
         create table old(id int primary key) engine=MyISAM; insert into old select seq from seq_1_to_60000;
         create table keyless(id int, key(id)); insert into keyless select seq from seq_1_to_60000;
         analyze table t, old, keyless; create view v as select * from t;
         create user if not exists 'nolock'@'%' identified by 'nolock'; grant select on {}.* to 'nolock'@'%'",
        database.name
    ));
    for (yaml, units, why) in [
        ("table: v", 1, "one unit: a view has no key"),
        ("query: select * from t", 1, "one unit: a query has no key"),
        ("table: old", 1, "one unit: the storage engine MyISAM has no snapshots"),
        ("table: keyless", 1, "one unit: there is no primary key"),
        (
            "table: keyless\nunits: {strategy: id_range, by: id, target_rows: 20000}",
            3,
            "ranges of `id`, as `units` says",
        ),
        ("table: t\nunits: {strategy: hash, target_rows: 20000}", 3, "the hash of `id`"),
        ("table: t\nunits: {strategy: predicates, predicates: [kind = 1, kind = 2]}", 3, "predicates, as `units` says"),
        (
            "table: v\nunits: {strategy: id_range, by: id, max: 3, target_rows: 1}",
            3,
            "one connection reads them all: a view is not locked",
        ),
        ("query: select * from t\nunits: {strategy: id_range, by: id}", 1, "a query cannot be locked"),
    ] {
        let source = source(&database, yaml);
        let plan = plan(source.as_ref()).await;
        assert!(plan.why.contains(why), "{yaml}: {}", plan.why);
        assert!(plan.units.len().abs_diff(units) <= usize::from(units > 1), "{yaml}: {}", plan.why);
        assert_eq!(all_rows(&source, &plan).await.unwrap().len(), 60_000, "{yaml}");
    }
    for yaml in ["table: old\nunits: {strategy: id_range}", "table: t\nunits: {strategy: ctid}"] {
        let error = source(&database, yaml).plan(&ReadRequest::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    let limited = format!(
        "{{type: mysql, host: 127.0.0.1, port: {}, user: nolock, password: nolock, database: {}}}",
        database.port, database.name
    );
    let limited = connect(&limited).unwrap();
    let alone = limited.source(&extract("table: t")).unwrap();
    let plan = plan(alone.as_ref()).await;
    assert!(plan.why.contains("one unit: `nolock` has not the privilege LOCK TABLES"), "{}", plan.why);
    let alone = limited.source(&extract("table: t\nunits: {strategy: id_range, target_rows: 20000}")).unwrap();
    let plan = super::units::plan(alone.as_ref()).await;
    assert!(plan.why.contains("one connection reads them all: `nolock` has not"), "{}", plan.why);
    assert_eq!(all_rows(&alone, &plan).await.unwrap().len(), 60_000);
}

#[tokio::test]
async fn a_writer_that_does_not_end_makes_it_one_connection() {
    let database = mariadb::database();
    database.sql("create table t(id int primary key); insert into t select seq from seq_1_to_60000; analyze table t");
    let config = connect(&format!("{{type: mysql, url: \"{}\"}}", database.url())).unwrap();
    let writer = config.source(&extract("query: select 1 as a")).unwrap();
    drop(writer);
    let mut held = mysql_async::Conn::from_url(database.url().replace("%20", " ")).await.unwrap();
    use mysql_async::prelude::Queryable;
    held.query_drop("start transaction").await.unwrap();
    held.query_drop("insert into t values (-1)").await.unwrap();
    let source = source(&database, "table: t");
    let plan = plan(source.as_ref()).await;
    assert!(
        plan.why.contains("one unit: a transaction that writes to it did not end within 2 seconds"),
        "{}",
        plan.why
    );
    assert_eq!(all_rows(&source, &plan).await.unwrap().len(), 60_000);
    held.disconnect().await.unwrap();
}

/// Columns whose keys are divided, and values for them.
pub(super) fn keys(runner: &mut proptest::test_runner::TestRunner, rows: usize) -> Vec<(&'static str, Vec<String>)> {
    let mut many = |of: BoxedStrategy<String>| -> Vec<String> {
        let common = of.new_tree(runner).unwrap().current();
        (0..rows)
            .map(|_| {
                let kind = (0u32..10).new_tree(runner).unwrap().current();
                match kind {
                    0 => "null".to_owned(),
                    1 | 2 => common.clone(),
                    _ => of.new_tree(runner).unwrap().current(),
                }
            })
            .collect()
    };
    let signed = prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -3i64..3];
    let unsigned = prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), 0u64..5];
    let day = "(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])";
    let moment = "(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|2[0-8]) (0[0-9]|1[0-9]):[0-5][0-9]:[0-5][0-9]\\.[0-9]{6}";
    vec![
        ("bigint", many(signed.prop_map(|n| n.to_string()).boxed())),
        ("bigint unsigned", many(unsigned.prop_map(|n| n.to_string()).boxed())),
        ("tinyint", many(any::<i8>().prop_map(|n| n.to_string()).boxed())),
        ("decimal(30,8)", many("-?[0-9]{1,12}(\\.[0-9]{1,8})?".prop_map(String::from).boxed())),
        ("double", many((-1e6f64..1e6).prop_map(|n| format!("{n:?}")).boxed())),
        ("float", many((-1e6f32..1e6).prop_map(|n| format!("{n:?}")).boxed())),
        ("date", many(prop_oneof![9 => day, 1 => "0000-00-00"].prop_map(|d| format!("'{d}'")).boxed())),
        ("datetime(6)", many(moment.prop_map(|d| format!("'{d}'")).boxed())),
        (
            "timestamp null",
            many(
                "(19[89]|20[0-2])[0-9]-(0[1-9]|1[0-2])-[0-2]8 0[0-9]:[0-5][0-9]:00"
                    .prop_map(|d| format!("'{d}'"))
                    .boxed(),
            ),
        ),
        ("year", many((1901u32..2155).prop_map(|n| n.to_string()).boxed())),
        ("time", many("-?[0-7]?[0-9]{2}:[0-5][0-9]:[0-5][0-9]".prop_map(|d| format!("'{d}'")).boxed())),
        (
            "varchar(20)",
            many("[ a-dA-D'\"\\\\äöÜß日]{0,6}".prop_map(|t| format!("_utf8mb4 x'{}'", hex(t.as_bytes()))).boxed()),
        ),
        ("varchar(20) collate utf8mb4_bin", many("[ a-cA-C]{0,4}".prop_map(|t| format!("'{t}'")).boxed())),
        ("varchar(20) character set latin1", many("[a-dé ]{0,4}".prop_map(|t| format!("'{t}'")).boxed())),
        (
            "varbinary(20)",
            many(prop::collection::vec(any::<u8>(), 0..5).prop_map(|b| format!("x'{}'", hex(&b))).boxed()),
        ),
        (
            "uuid",
            many("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(|t| format!("'{t}'")).boxed()),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn units_are_disjoint_and_complete_whatever_the_keys() {
    let database = mariadb::database();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for rows in [700, 60] {
        for (of, values) in keys(&mut runner, rows) {
            let list: Vec<String> = values.iter().enumerate().map(|(n, value)| format!("({n}, {value})")).collect();
            database.sql(&format!(
                "drop table if exists t; create table t(n int primary key, k {of}, key(k)); insert into t values {};
                 create or replace view v as select * from t; analyze table t",
                list.join(", ")
            ));
            let schema = if of == "date" { "\nschema: {k: text}" } else { "" };
            let wanted = whole(&database, &format!("table: t{schema}")).await;
            assert_eq!(wanted.len(), rows);
            for units in [
                "id_range, by: k, target_rows: 50",
                "id_range, by: k, target_rows: 3, max: 7",
                "hash, by: k, target_rows: 30",
            ] {
                let source =
                    source(&database, &format!("table: t{schema}\nunits: {{strategy: {units}, verify: count}}"));
                let plan = plan(source.as_ref()).await;
                assert!(rows < 700 || plan.units.len() > 1, "{of}: {}", plan.why);
                let nulls = plan.units.iter().filter(|unit| unit.label.contains("null")).count();
                assert!(units.starts_with("hash") || plan.units.len() == 1 || nulls == 1, "{of}: {:?}", plan.units);
                assert_eq!(all_rows(&source, &plan).await.unwrap(), wanted, "{of}, {units}: {:?}", plan.units);
            }
            let view =
                format!("table: v{schema}\nunits: {{strategy: id_range, by: k, target_rows: 50, verify: count}}");
            let source = source(&database, &view);
            match source.plan(&ReadRequest { parallelism: 4, ..ReadRequest::default() }).await {
                Ok(plan) => assert_eq!(all_rows(&source, &plan).await.unwrap(), wanted, "{of} in a view"),
                Err(error) => assert!(error.to_string().contains("no index begins with it"), "{of}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn skewed_keys_make_units_of_about_the_same_size() {
    let database = mariadb::database();
    database.sql(
        "create table t(id bigint unsigned primary key, v int);
         insert into t select 1000000 + seq, 1 from seq_1_to_50000; insert into t values (1, 1), (18446744073709551615, 1);
         insert into t select 9000000000000000000 + seq * 1000003, 1 from seq_1_to_20000; analyze table t",
    );
    let source = source(&database, "table: t\nunits: {target_rows: 5000}");
    let plan = plan(source.as_ref()).await;
    let mut sizes = Vec::new();
    let mut all = 0;
    for unit in &plan.units {
        let rows = unit_rows(source.as_ref(), unit).await.unwrap().len();
        all += rows;
        sizes.push(rows);
    }
    assert_eq!(all, 70_002);
    assert!(sizes.len() >= 9 && sizes.iter().all(|rows| *rows < 15_000), "{sizes:?}: {:?}", plan.why);
}

#[tokio::test]
async fn other_readers_take_the_units_of_one_that_is_lost_until_there_is_none() {
    let database = mariadb::database();
    database.sql("create table t(n int primary key); insert into t select seq from seq_1_to_20000; analyze table t");
    let source = source(&database, "table: t\nunits: {target_rows: 2000, verify: none}");
    let plan = plan(source.as_ref()).await;
    let processes = || {
        let sql = format!(
            "select id from information_schema.processlist where db = '{}' and user = '{USER}' order by id",
            database.name
        );
        database.sql(&sql).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let ids = processes();
    assert_eq!(ids.len(), 4);
    for id in &ids[..3] {
        database.sql(&format!("kill connection {id}"));
    }
    assert_eq!(all_rows(&source, &plan).await.unwrap().len(), 20_000);
    // Once all has been read, one is enough; it may be gone already.
    let _ = database.try_sql(&format!("kill connection {}", ids[3]));
    let error = unit_rows(source.as_ref(), &plan.units[0]).await.unwrap_err();
    assert!(error.message().contains("that saw the picture of all units were lost"), "{error}");
}

#[tokio::test]
async fn a_reader_that_stops_early_serves_the_next_unit() {
    let database = mariadb::database();
    database.sql(
        "create table t(n int primary key, v text); insert into t select seq, repeat('x', 2000) from seq_1_to_60000; analyze table t",
    );
    let source = source(&database, "table: t\nunits: {target_rows: 20000, verify: none}");
    let plan = source.plan(&ReadRequest { parallelism: 1, ..ReadRequest::default() }).await.unwrap();
    assert!(plan.units.len() >= 2, "{}", plan.why);
    for unit in &plan.units {
        let mut rows = source.read(unit, &scan(source.as_ref()).await);
        rows.next().await.unwrap().unwrap();
    }
    let mut all = 0;
    for unit in &plan.units {
        all += unit_rows(source.as_ref(), unit).await.unwrap().len();
    }
    assert_eq!(all, 60_000);
}

#[tokio::test]
async fn two_extracts_with_one_connection_each_do_not_wait_for_each_other() {
    let database = mariadb::database();
    database.sql(
        "create table a(n int primary key); insert into a select seq from seq_1_to_5000;
         create table b(n int primary key); insert into b select seq from seq_1_to_5000; analyze table a, b",
    );
    let connection = connect(&format!("{{type: mysql, url: \"{}\", max_connections: 1}}", database.url())).unwrap();
    let of =
        |table: &str| connection.source(&extract(&format!("table: {table}\nunits: {{target_rows: 500}}"))).unwrap();
    let (a, b) = (of("a"), of("b"));
    let (plan_a, plan_b) = (plan(a.as_ref()).await, plan(b.as_ref()).await);
    let (rows_a, rows_b) = tokio::join!(all_rows(&a, &plan_a), all_rows(&b, &plan_b));
    assert_eq!((rows_a.unwrap().len(), rows_b.unwrap().len()), (5000, 5000));
}
