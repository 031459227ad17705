//! Units against the real server: disjoint, complete, in one picture, whatever happens to the connections.

use super::*;
use gristmill_model::WorkUnit;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use tokio::task::JoinSet;

async fn plan(source: &dyn Source) -> crate::ReadPlan {
    source.plan(&ReadRequest { columns: None, parallelism: 4, ..ReadRequest::default() }).await.unwrap()
}

async fn scan(source: &dyn Source) -> Scan {
    Scan { schema: source.schema().await.unwrap(), batch_size: 500, on_bad_row: OnFail::Fail, rejects: None }
}

async fn unit_rows(source: &dyn Source, unit: &WorkUnit) -> Result<Vec<String>> {
    let batches = source.read(unit, &scan(source).await).collect().await?;
    sorted_rows(&batches)
}

/// The rows of all units, four at a time.
async fn all_rows(source: &Arc<dyn Source>, plan: &crate::ReadPlan) -> Result<Vec<String>> {
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
async fn whole(database: &TestDatabase, yaml: &str) -> Vec<String> {
    let source = source(database, &format!("{yaml}\nunits: {{strategy: none}}"));
    let plan = plan(source.as_ref()).await;
    assert_eq!(plan.units.len(), 1);
    all_rows(&source, &plan).await.unwrap()
}

fn extract_with(database: &TestDatabase, yaml: &str) -> Arc<dyn Source> {
    source(database, yaml)
}

#[tokio::test]
async fn a_large_table_is_read_in_ctid_ranges_of_one_snapshot() {
    let database = postgres::database();
    database.sql(
        "create table big(id int, v text); insert into big select n, repeat('x', 100) from generate_series(1, 120000) n; analyze big",
    );
    let source = extract_with(&database, "table: big");
    let plan = plan(source.as_ref()).await;
    assert_eq!(plan.units.len(), 3);
    assert_eq!(plan.consistency, crate::Consistency::Snapshot);
    assert!(plan.why.contains("ctid ranges") && plan.why.contains("120,000 rows; "), "{}", plan.why);
    assert!(plan.why.contains("3 units of about 40,000 rows, such as `big blocks 0 to "), "{}", plan.why);
    assert!(plan.why.ends_with("the database counts the rows, too"), "{}", plan.why);
    let estimates: Vec<u64> = plan.units.iter().map(|unit| unit.rows.unwrap()).collect();
    assert!(estimates.iter().all(|rows| (39_000..41_000).contains(rows)), "{estimates:?}");
    // What happens after the plan is not seen, whichever unit is read when.
    let first = unit_rows(source.as_ref(), &plan.units[0]).await.unwrap();
    database.sql("delete from big where id % 2 = 0; update big set v = 'new'; insert into big values (0, 'new')");
    let rest = unit_rows(source.as_ref(), &plan.units[1]).await.unwrap();
    let last = unit_rows(source.as_ref(), &plan.units[2]).await.unwrap();
    let mut all: Vec<String> = [first, rest, last].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 120_000);
    assert!(all.iter().all(|row| row.ends_with(&format!("{}│", "x".repeat(100)))));
    // The next plan shares the picture as long as the first is held, and sees the present afterwards.
    let second = super::units::plan(source.as_ref()).await;
    assert_eq!(second.units[0].payload["snapshot"], plan.units[0].payload["snapshot"]);
    drop((plan, second));
    let fresh = super::units::plan(source.as_ref()).await;
    assert_eq!(all_rows(&source, &fresh).await.unwrap().len(), 60_001);
}

#[tokio::test]
async fn each_unit_reads_only_its_own_pages() {
    let database = postgres::database();
    database.sql("create table t as select n, repeat('x', 200) as v from generate_series(1, 60000) n; analyze t");
    let source = extract_with(&database, "table: t");
    let plan = plan(source.as_ref()).await;
    let share: crate::sources::postgres::units::share::Share =
        serde_json::from_value(plan.units[1].payload.clone()).unwrap();
    let sql = share.slice.select(&crate::sources::postgres::names::Postgres, "*", "t", None);
    assert!(database.sql(&format!("explain {sql}")).contains("Tid Range Scan"), "{sql}");
}

#[tokio::test]
async fn readers_go_from_unit_to_unit_and_everything_is_hung_up_in_the_end() {
    let database = postgres::database();
    database.sql("create table t as select n from generate_series(1, 20000) n; analyze t");
    let source = extract_with(&database, "table: t\nunits: {target_rows: 500, verify: none}");
    let plan = plan(source.as_ref()).await;
    assert_eq!(plan.units.len(), 40);
    let mut pids = std::collections::BTreeSet::new();
    let readers = "select string_agg(pid::text, ' ') from pg_stat_activity where datname = current_database() and application_name = 'gristmill'";
    for unit in &plan.units[..20] {
        unit_rows(source.as_ref(), unit).await.unwrap();
        pids.insert(database.sql(readers));
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
    drop(plan);
    nobody_is_left(&database).await;
}

/// Waits until every connection of ours is hung up, which other tasks do meanwhile.
async fn nobody_is_left(database: &TestDatabase) {
    let begin = Instant::now();
    let left = "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'gristmill%'";
    while database.sql(left) != "0" {
        assert!(begin.elapsed() < Duration::from_secs(10), "connections are left");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test]
async fn partitions_are_read_by_their_own_pages_and_old_inheritance_too() {
    let database = postgres::database();
    database.sql(
        "create table p(id int, day date, v text) partition by range (day);
         create table p1 partition of p for values from ('2024-01-01') to ('2024-02-01');
         create table p2(v text, extra int, day date, id int); alter table p2 drop column extra;
         alter table p attach partition p2 for values from ('2024-02-01') to ('2024-03-01');
         create table p3 partition of p default partition by list (id);
         create table p3a partition of p3 default;
         create table p4 partition of p for values from ('2025-01-01') to ('2025-02-01');
         insert into p select n, date '2024-01-01' + n % 100, 'v' || n from generate_series(1, 30000) n; analyze p;
         create table parent(a int); create table child(b text) inherits (parent);
         insert into parent select n from generate_series(1, 3000) n;
         insert into child select n, 'x' from generate_series(1, 5000) n; analyze parent; analyze child",
    );
    for (table, rows) in [("p", 30_000), ("parent", 8000)] {
        let source = extract_with(&database, &format!("table: {table}\nunits: {{target_rows: 1000}}"));
        let plan = plan(source.as_ref()).await;
        assert!(plan.why.contains("ctid ranges"), "{}", plan.why);
        assert!(plan.units.len() > 3, "{}", plan.why);
        let rows_read = all_rows(&source, &plan).await.unwrap();
        assert_eq!(rows_read.len(), rows);
        assert_eq!(rows_read, whole(&database, &format!("table: {table}")).await);
    }
}

#[tokio::test]
async fn what_has_no_pages_is_one_unit_and_says_so() {
    let database = postgres::database();
    database.sql(
        "create table t as select n as id from generate_series(1, 60000) n; create view v as select * from t;
         create materialized view m as select * from t; analyze",
    );
    for (yaml, units, why) in [
        ("table: v", 1, "one unit: a view has no pages"),
        ("query: select * from t", 1, "one unit: a query has no pages"),
        ("table: m\nunits: {target_rows: 10000}", 6, "ctid ranges"),
        ("table: v\nunits: {strategy: id_range, by: id, target_rows: 30000}", 2, "ranges of `id`, as `units` says"),
        ("query: select * from t\nunits: {strategy: id_range, by: id, target_rows: 20000}", 3, "ranges of `id`"),
        ("query: select * from t\nunits: {strategy: hash, by: id, target_rows: 20000}", 3, "the hash of `id`"),
    ] {
        let source = extract_with(&database, yaml);
        let plan = plan(source.as_ref()).await;
        assert!(plan.why.contains(why), "{yaml}: {}", plan.why);
        assert_eq!(plan.units.len(), units, "{yaml}: {}", plan.why);
        assert_eq!(all_rows(&source, &plan).await.unwrap().len(), 60_000, "{yaml}");
    }
}

/// Columns whose keys are divided, and values for them.
fn keys(runner: &mut proptest::test_runner::TestRunner, rows: usize) -> Vec<(&'static str, Vec<String>)> {
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
    let quote = |text: String| format!("'{}'", text.replace('\'', "''"));
    let edges = prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -3i64..3];
    vec![
        ("bigint", many(edges.prop_map(move |n| quote(n.to_string())).boxed())),
        ("smallint", many(any::<i16>().prop_map(move |n| quote(n.to_string())).boxed())),
        (
            "numeric",
            many(
                prop_oneof![
                    8 => ("-?[0-9]{1,12}(\\.[0-9]{1,8})?").prop_map(String::from),
                    1 => Just("NaN".to_owned()),
                    1 => Just("Infinity".to_owned()),
                    1 => "[1-9][0-9]{45}".prop_map(String::from),
                ]
                .prop_map(quote)
                .boxed(),
            ),
        ),
        (
            "double precision",
            many(prop_oneof![any::<f64>().prop_map(|n| n.to_string()), Just("NaN".to_owned())].prop_map(quote).boxed()),
        ),
        (
            "date",
            many(
                prop_oneof![
                    8 => (-200_000i32..200_000).prop_map(|days| format!("(date '2000-01-01' + {days})")),
                    1 => Just("'infinity'".to_owned()),
                    1 => Just("'-infinity'".to_owned()),
                ]
                .boxed(),
            ),
        ),
        (
            // Around the hours that are missing or come twice in Paris.
            "timestamptz",
            many(
                prop_oneof![
                    8 => (0i64..20_000_000).prop_map(|s| format!("(timestamptz '2024-03-01 00:00Z' + {s} * interval '1.000001 second')")),
                    1 => Just("'infinity'".to_owned()),
                    1 => Just("'4714-11-24 00:00:00+00 BC'".to_owned()),
                ]
                .boxed(),
            ),
        ),
        ("timestamp", many((0i64..9_000_000).prop_map(|s| format!("(timestamp '2024-01-01' + {s} * interval '1 second')")).boxed())),
        ("text", many("[ -~äÖß日]{0,6}".prop_map(quote).boxed())),
        ("text collate \"C\"", many("[A-Za-z' ]{0,5}".prop_map(quote).boxed())),
        ("uuid", many(any::<u128>().prop_map(move |n| quote(uuid::Uuid::from_u128(n).to_string())).boxed())),
        ("positive", many((1i32..1000).prop_map(|n| n.to_string()).boxed())),
        ("mood", many(prop_oneof![Just("fine".to_owned()), Just("so so".to_owned())].prop_map(move |m: String| quote(m)).boxed())),
    ]
}

#[tokio::test]
async fn key_ranges_hashes_and_pages_of_random_tables_are_disjoint_and_complete() {
    let database = postgres::database();
    database.sql("create type mood as enum ('so so', 'fine'); create domain positive as int check (value > 0)");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for (round, size) in [0usize, 1, 37, 900].into_iter().enumerate() {
        for (at, (of, values)) in keys(&mut runner, size).into_iter().enumerate() {
            let table = format!("r{round}_{at}");
            database.sql(&format!("create table {table}(n int, k {of})"));
            if !values.is_empty() {
                let rows: Vec<String> = values.iter().enumerate().map(|(n, value)| format!("({n}, {value})")).collect();
                database.sql(&format!("insert into {table} values {}", rows.join(",")));
            }
            // With statistics, and without.
            if at % 3 != 0 {
                database.sql(&format!("analyze {table}"));
            }
            // All numbers of the rows are different, so that a row that is doubled or lost shows.
            let yaml = format!("table: {table}\ncolumns: [n]");
            let wanted = whole(&database, &yaml).await;
            assert_eq!(wanted.len(), size);
            for units in [
                "strategy: id_range, by: k, target_rows: 40",
                "strategy: id_range, by: k, target_rows: 100, max: 3",
                "strategy: hash, by: k, target_rows: 200",
                "strategy: ctid, target_rows: 60",
                "strategy: predicates, predicates: [k is null, n % 3 = 0 -- a note, n > 10]",
            ] {
                let units = units.replace("n % 3 = 0 -- a note", "\"n % 3 = 0 -- a note\"");
                let source = extract_with(&database, &format!("{yaml}\nunits: {{{units}, verify: count}}"));
                let plan = plan(source.as_ref()).await;
                let most = if units.contains("max: 3") { 3 } else { 400 };
                assert!(plan.units.len() <= most, "{of}: {units}: {}", plan.why);
                let rows = all_rows(&source, &plan).await;
                let rows = rows.unwrap_or_else(|error| panic!("{of}: {units}: {} {error:?}", plan.why));
                assert_eq!(rows, wanted, "{of}: {units}: {}", plan.why);
            }
        }
    }
}

#[tokio::test]
async fn ranges_follow_the_distribution_of_a_skewed_key() {
    let database = postgres::database();
    // Nearly all ids are small, a few are huge; a fifth of the rows have the same.
    database.sql(
        "create table t as select case when n % 5 = 0 then 7 when n % 1000 = 1 then n::bigint * 1000000000000 else n end as id
         from generate_series(1, 50000) n; analyze t",
    );
    let source = extract_with(&database, "table: t\nunits: {strategy: id_range, by: id, target_rows: 2500}");
    let plan = plan(source.as_ref()).await;
    let mut sizes = Vec::new();
    for unit in &plan.units {
        sizes.push(unit_rows(source.as_ref(), unit).await.unwrap().len());
    }
    assert_eq!(sizes.iter().sum::<usize>(), 50_000);
    // The common value is a unit alone; no other is much larger than was asked for.
    assert_eq!(sizes.iter().filter(|size| **size > 4000).count(), 1, "{sizes:?}");
    assert!(sizes.len() >= 12, "{sizes:?}");
}

#[tokio::test]
async fn days_with_23_and_25_hours_are_read_once() {
    let database = postgres::database();
    database.sql(
        "create table t as select timestamptz '2024-03-30 00:00 Europe/Paris' + n * interval '10 minutes' as at, n
         from generate_series(1, 31000) n; analyze t; set timezone = 'Europe/Paris'",
    );
    let source = extract_with(&database, "table: t\nunits: {strategy: date_range, by: at, target_rows: 1000}");
    let plan = plan(source.as_ref()).await;
    assert!(plan.units.len() > 20, "{}", plan.why);
    assert!(plan.units[1].label.contains("00:00:00+00"), "{}", plan.units[1].label);
    assert_eq!(all_rows(&source, &plan).await.unwrap(), whole(&database, "table: t").await);
    let number = extract_with(&database, "table: t\nunits: {strategy: date_range, by: n, target_rows: 1000}");
    let error = number.plan(&ReadRequest::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("is no date or timestamp"), "{error}");
}

#[tokio::test]
async fn an_index_that_finds_few_rows_is_not_turned_into_scans() {
    let database = postgres::database();
    database.sql(
        "create table t as select n as id, n % 10 as k, repeat('x', 50) as v from generate_series(1, 300000) n;
         create index on t(id); analyze t",
    );
    let source = extract_with(&database, "table: t\nwhere: id <= 20000\nunits: {target_rows: 5000}");
    let read = plan(source.as_ref()).await;
    assert!(read.why.contains("by an index"), "{}", read.why);
    assert_eq!(all_rows(&source, &read).await.unwrap().len(), 20_000);
    let source = extract_with(&database, "table: t\nwhere: k < 5");
    let read = plan(source.as_ref()).await;
    assert!(read.units.len() > 1, "{}", read.why);
    assert_eq!(all_rows(&source, &read).await.unwrap().len(), 150_000);
}

#[tokio::test]
async fn a_unit_that_is_cut_off_goes_on_where_it_was() {
    let database = postgres::database();
    database.sql("create table t as select n, repeat('x', 1000) as v from generate_series(1, 60000) n; analyze t");
    let source = extract_with(&database, "table: t\nunits: {target_rows: 30000}");
    let plan = plan(source.as_ref()).await;
    assert_eq!(plan.units.len(), 2);
    let scan = scan(source.as_ref()).await;
    let mut seen = Vec::new();
    for unit in &plan.units {
        let mut rows = source.read(unit, &scan);
        seen.push(rows.next().await.unwrap().unwrap());
        database.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'gristmill' and datname = current_database()");
        while let Some(batch) = rows.next().await {
            seen.push(batch.unwrap());
        }
    }
    let mut numbers: Vec<i32> = seen
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<arrow::datatypes::Int32Type>().values().to_vec())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=60_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_that_cannot_import_the_snapshot_says_what_to_set() {
    let database = postgres::database();
    database.sql("create table t as select n from generate_series(1, 6000) n; analyze t");
    let source = extract_with(&database, "table: t\nunits: {target_rows: 1000}");
    let plan = plan(source.as_ref()).await;
    database.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'gristmill snapshot' and datname = current_database()");
    let error = unit_rows(source.as_ref(), &plan.units[0]).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    assert!(error.to_string().contains("that held the snapshot of all units was lost"), "{error}");
    // Another scan of the same source must not get another picture beside the units that are planned.
    let again = source.plan(&ReadRequest::default()).await.unwrap_err();
    assert!(again.hint_text().unwrap().contains("run again"), "{again:?}");
    drop(plan);
    assert_eq!(super::units::plan(source.as_ref()).await.units.len(), 6);
}

#[test]
fn a_lost_holder_names_the_setting_that_ended_it() {
    let config = match PostgresConfig::from_node(&parse("c", "{user: etl}").unwrap(), std::path::Path::new(".")) {
        Ok(config) => config,
        Err(mistakes) => panic!("{mistakes:?}"),
    };
    let code = |code: &str| Some((Some(tokio_postgres::error::SqlState::from_code(code)), "terminated".to_owned()));
    let hint = |ended| super::super::snapshot::lost(&config, ended).hint_text().unwrap().to_owned();
    assert_eq!(
        hint(code("25P03")),
        "let the holder wait: alter role \"etl\" set idle_in_transaction_session_timeout = 0"
    );
    assert!(hint(code("25P04")).contains("transaction_timeout = 0"));
    assert!(hint(code("57P01")).contains("run again"));
    assert!(hint(None).contains("idle_in_transaction_session_timeout"));
}

#[tokio::test]
async fn the_holder_outlives_a_timeout_for_idle_transactions() {
    let database = postgres::database();
    database.sql(&format!(
        "create table t as select n from generate_series(1, 3000) n; analyze t;
         alter database {} set idle_in_transaction_session_timeout = '300ms'",
        database.name
    ));
    let source = extract_with(&database, "table: t\nunits: {target_rows: 1000}");
    let plan = plan(source.as_ref()).await;
    let first = unit_rows(source.as_ref(), &plan.units[0]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    let more = unit_rows(source.as_ref(), &plan.units[1]).await.unwrap().len();
    let last = unit_rows(source.as_ref(), &plan.units[2]).await.unwrap().len();
    assert_eq!(first.len() + more + last, 3000);
}

#[tokio::test]
async fn a_wrong_number_of_rows_is_an_error_that_says_which_way() {
    let database = postgres::database();
    database.sql("create table t as select n from generate_series(1, 3000) n; analyze t");
    let source = extract_with(&database, "table: t\nunits: {target_rows: 1000}");
    let mut plan = plan(source.as_ref()).await;
    // A unit that was planned wrong: it leaves pages out.
    plan.units[1].payload["slice"] = serde_json::json!({"blocks": [{"from": 100000, "to": null}]});
    let error = all_rows(&source, &plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.message().contains("but the server counts 3,000 in the same snapshot: rows were lost"), "{error}");
    let unverified = extract_with(&database, "table: t\nunits: {target_rows: 1000, verify: none}");
    let plan = super::units::plan(unverified.as_ref()).await;
    assert!(!plan.why.contains("counts"), "{}", plan.why);
}

#[tokio::test]
async fn what_is_one_unit_is_counted_when_that_is_asked_for() {
    let database = postgres::database();
    database.sql("create table t as select n from generate_series(1, 3000) n; analyze t");
    for yaml in ["table: t\nunits: {verify: count}", "query: select * from t\nunits: {strategy: none, verify: count}"] {
        let source = extract_with(&database, yaml);
        let plan = plan(source.as_ref()).await;
        assert_eq!(plan.units.len(), 1);
        assert!(plan.why.ends_with("the database counts the rows, too"), "{}", plan.why);
        assert_eq!(all_rows(&source, &plan).await.unwrap().len(), 3000);
    }
}

#[tokio::test]
async fn a_count_that_the_server_cuts_short_costs_no_unit_its_snapshot() {
    let database = postgres::database();
    database.sql("create table t as select n from generate_series(1, 3000) n; analyze t");
    // Counting takes the condition's time for every row; reading a unit only for its own.
    let slow = "table: t\nwhere: n > 0 and pg_sleep(0.0005) is not null\nunits: {target_rows: 100, strategy: ctid";
    database.sql(&format!("alter database {} set statement_timeout = '1200ms'", database.name));
    let source = extract_with(&database, &format!("{slow}}}"));
    let plan = plan(source.as_ref()).await;
    assert!(plan.units.len() > 5, "{}", plan.why);
    let all = all_rows(&source, &plan).await.unwrap();
    assert_eq!(all.len(), 3000);
    let strict = extract_with(&database, &format!("{slow}, verify: count}}"));
    let plan = super::units::plan(strict.as_ref()).await;
    let error = all_rows(&strict, &plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn no_more_connections_read_than_may() {
    let database = postgres::database();
    database.sql("create table t as select n, repeat('x', 2000) as v from generate_series(1, 20000) n; analyze t");
    let connection =
        connect(&format!("{{type: postgres, url: \"{}\", max_connections: 2}}", database.local_url())).unwrap();
    let source = connection.source(&extract("table: t\nunits: {target_rows: 1000}")).unwrap();
    let plan = plan(source.as_ref()).await;
    let mut set = JoinSet::new();
    for unit in &plan.units {
        let (source, unit) = (source.clone(), unit.clone());
        set.spawn(async move { unit_rows(source.as_ref(), &unit).await.map(|rows| rows.len()) });
    }
    let mut most = 0;
    let mut rows = 0;
    while let Some(unit) = set.join_next().await {
        rows += unit.unwrap().unwrap();
        let now: usize = database
            .sql("select count(*) from pg_stat_activity where application_name = 'gristmill' and datname = current_database()")
            .parse()
            .unwrap();
        most = most.max(now);
    }
    assert_eq!(rows, 20_000);
    assert!((1..=2).contains(&most), "{most} connections");
    assert!(connect("{type: postgres, max_connections: 0}").is_err());
}

#[tokio::test]
async fn a_table_that_was_altered_after_it_was_looked_at_is_not_read_as_it_was() {
    let database = postgres::database();
    database.sql("create table t as select n::bigint as a from generate_series(1, 3000) n; analyze t");
    let source = extract_with(&database, "table: t\nunits: {target_rows: 1000}");
    source.schema().await.unwrap();
    database.sql("alter table t alter a type timestamptz using now()");
    let error = source.plan(&ReadRequest::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
    // While a plan is held, the table stays as it is.
    let source = extract_with(&database, "table: t\nunits: {target_rows: 1000}");
    let held = plan(source.as_ref()).await;
    let refused = database.try_sql("set lock_timeout = '200ms'; alter table t add b int");
    assert!(refused.unwrap_err().contains("lock timeout"));
    assert_eq!(all_rows(&source, &held).await.unwrap().len(), 3000);
}

#[tokio::test]
async fn units_that_cannot_be_are_refused() {
    let database = postgres::database();
    database.sql("create table t(a json, b int); create view v as select 'x' as name");
    for (yaml, message) in [
        ("table: t\nunits: {strategy: id_range}", "needs the column to go by"),
        ("table: t\nunits: {strategy: id_range, by: c}", "no column `c`"),
        ("table: t\nunits: {strategy: id_range, by: a}", "have no order"),
        ("table: v\nunits: {strategy: id_range, by: name}", "cannot be divided by ranges of `name`"),
        ("table: v\nunits: {strategy: ctid}", "a view has no pages"),
        ("table: t\nunits: {strategy: predicates, predicates: [\"c = 1\"]}", "c"),
    ] {
        let source = extract_with(&database, yaml);
        let error = match source.plan(&ReadRequest::default()).await {
            Err(error) => error,
            Ok(plan) => all_rows(&source, &plan).await.unwrap_err(),
        };
        assert!(error.message().contains(message), "{yaml}: {error}");
    }
    let connection = connection(&database);
    assert!(connection.source(&extract("table: t\nunits: {by: a}")).is_err());
}

#[tokio::test]
async fn divided_tables_are_sources_as_the_contract_says() {
    let database = postgres::database();
    database.sql("create table t as select n as id, 'v' || n as v from generate_series(1, 3000) n; analyze t");
    let connection = connection(&database);
    for units in
        ["target_rows: 700", "strategy: id_range, by: id, target_rows: 700", "strategy: hash, by: v, target_rows: 900"]
    {
        let open = || connection.source(&extract(&format!("table: t\nunits: {{{units}}}"))).unwrap();
        source_suite(&open, Some(3000)).await.unwrap();
    }
}

/// Divides units at random until nothing is to be divided any more, or enough.
async fn divided(source: &dyn Source, mut units: Vec<WorkUnit>, seed: usize) -> Vec<WorkUnit> {
    for round in 0..16 {
        let at = (seed * 31 + round * 17) % units.len();
        let most = units[at].rows.unwrap_or(0) * (round as u64 % 4) / 5;
        if let Some((first, rest)) = source.split(&units[at], most).await {
            units[at] = first;
            units.push(rest);
        }
    }
    units
}

#[tokio::test]
async fn however_units_are_divided_every_row_is_read_once() {
    let database = postgres::database();
    database.sql("create type mood as enum ('so so', 'fine'); create domain positive as int check (value > 0)");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let size = 300;
    let mut parts = 0;
    for (at, (of, values)) in keys(&mut runner, size).into_iter().enumerate() {
        let table = format!("d{at}");
        let rows: Vec<String> = values.iter().enumerate().map(|(n, value)| format!("({n}, {value})")).collect();
        database.sql(&format!(
            "create table {table}(n int, k {of}); insert into {table} values {}; create index on {table}(k)",
            rows.join(",")
        ));
        if at % 2 == 0 {
            database.sql(&format!("analyze {table}"));
        }
        for units in [
            "strategy: ctid, target_rows: 60",
            "strategy: id_range, by: k, target_rows: 40",
            "strategy: hash, by: k, target_rows: 200",
        ] {
            let yaml = format!("table: {table}\ncolumns: [n]");
            let source = extract_with(&database, &format!("{yaml}\nunits: {{{units}, verify: count}}"));
            let mut plan = plan(source.as_ref()).await;
            let planned = plan.units.len();
            plan.units = divided(source.as_ref(), plan.units, at).await;
            let ordinals: std::collections::BTreeSet<u32> = plan.units.iter().map(|unit| unit.ordinal).collect();
            assert_eq!(ordinals.len(), plan.units.len());
            assert!(!units.contains("hash") || plan.units.len() == planned);
            parts += plan.units.len() - planned;
            // What the server counts is compared, too, once the last of all parts has been read.
            let rows = all_rows(&source, &plan).await.unwrap_or_else(|error| panic!("{of}: {units}: {error:?}"));
            assert_eq!(rows, whole(&database, &yaml).await, "{of}: {units}");
        }
    }
    assert!(parts > 50, "only {parts} parts");
}

#[tokio::test]
async fn a_range_that_is_larger_than_statistics_say_is_divided_by_the_index() {
    let database = postgres::database();
    // Statistics are of the first thousand; all that came since is in the last range.
    database.sql(
        "create table t(id int primary key, v int) with (autovacuum_enabled = off);
         insert into t select n, n from generate_series(1, 1000) n; analyze t;
         insert into t select n, n from generate_series(1001, 30000) n",
    );
    let source = extract_with(&database, "table: t\nunits: {strategy: id_range, by: id, target_rows: 1000}");
    let plan = plan(source.as_ref()).await;
    let mut last = plan.units.iter().find(|unit| unit.payload["slice"]["keys"]["to"].is_null()).unwrap().clone();
    let planned = unit_rows(source.as_ref(), &last).await.unwrap().len();
    let mut sizes = Vec::new();
    while let Some((first, rest)) = source.split(&last, 1000).await {
        sizes.push(unit_rows(source.as_ref(), &first).await.unwrap().len());
        last = rest;
    }
    sizes.push(unit_rows(source.as_ref(), &last).await.unwrap().len());
    assert!(planned > 25_000 && sizes.len() > 10, "{planned} rows as {sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), planned);
    assert!(sizes.iter().all(|size| *size <= 3000), "{sizes:?}");
    // Without an index, looking would cost what reading costs.
    drop(plan);
    nobody_is_left(&database).await;
    database.sql("alter table t drop constraint t_pkey");
    let source = extract_with(&database, "table: t\nunits: {strategy: id_range, by: id, target_rows: 1000}");
    let plan = super::units::plan(source.as_ref()).await;
    for unit in &plan.units {
        assert!(source.split(unit, 1).await.is_none(), "{}", unit.label);
    }
}

#[tokio::test]
async fn a_reader_behind_somebody_who_waits_to_change_the_table_says_so_and_does_not_wait_for_ever() {
    let database = postgres::database();
    database.sql("create table t as select n from generate_series(1, 3000) n; analyze t");
    let source = extract_with(&database, "table: t\nunits: {target_rows: 1000}");
    let held = plan(source.as_ref()).await;
    let mut altering = database.psql("alter table t add b int").unwrap().spawn().unwrap();
    let begin = Instant::now();
    while database.sql("select count(*) from pg_locks where not granted and relation = 't'::regclass") == "0" {
        assert!(begin.elapsed() < Duration::from_secs(20), "nobody waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = unit_rows(source.as_ref(), &held.units[0]).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Conflict, true), "{error}");
    assert!(error.message().contains("somebody waits to change `t`"), "{error}");
    drop(held);
    // The snapshot's holder is hung up on meanwhile.
    let ended = tokio::task::spawn_blocking(move || altering.wait().unwrap().success());
    assert!(ended.await.unwrap());
}
