//! The same answers whether the source aggregates or we do, on real servers.

use super::AggregatedTable;
use crate::{Engine, EngineOptions, Session, from_datafusion};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::tree_node::TreeNode;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use gristmill_model::spec::{Defaults, PipelineSpec};
use gristmill_model::yaml::parse;
use gristmill_testkit::{mariadb, postgres};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::sync::Arc;

/// A database with a table `t`, behind a step of that name.
struct World {
    engine: Arc<Engine>,
    pipeline: PipelineSpec,
    sql: Box<dyn Fn(&str)>,
    /// What keeps its rows on pages enough for units.
    filler: &'static str,
    analyze: &'static str,
    _folder: tempfile::TempDir,
}

fn world(connection: &str, sql: Box<dyn Fn(&str)>, filler: &'static str, analyze: &'static str) -> World {
    let folder = tempfile::tempdir().unwrap();
    let connection = parse("gristmill.yaml", connection).unwrap();
    let options = EngineOptions {
        project_root: folder.path().to_owned(),
        state_dir: folder.path().join(".gristmill"),
        connections: [("db".into(), connection)].into(),
        parallelism: Some(2),
        ..EngineOptions::default()
    };
    let steps = "name: p\nsteps:\n  t:\n    extract: {from: db, table: t}\n    units: {target_rows: 20}\n  whole:\n    extract: {from: db, table: t}\n    units: {verify: count}\n";
    let pipeline = PipelineSpec::from_node(&parse("p.yaml", steps).unwrap(), &["db"], &Defaults::default()).unwrap();
    World { engine: Engine::new(options).unwrap(), pipeline, sql, filler, analyze, _folder: folder }
}

fn on_postgres() -> World {
    let database = postgres::database();
    let connection = format!("{{type: postgres, url: \"{}\"}}", database.local_url());
    let run = move |sql: &str| {
        database.sql(sql);
    };
    world(&connection, Box::new(run), "text default repeat('x', 1500)", "analyze t")
}

fn on_mariadb() -> World {
    let database = mariadb::database();
    let connection = format!("{{type: mysql, url: \"{}\"}}", database.url());
    let run = move |sql: &str| {
        database.sql(sql);
    };
    world(&connection, Box::new(run), "text", "analyze table t")
}

fn on_sqlite() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let connection = format!("{{type: sqlite, path: \"{}\"}}", path.display());
    let run = move |sql: &str| {
        let _kept = &folder;
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    };
    world(&connection, Box::new(run), "text", "select 1")
}

impl World {
    fn create(&self, rows: &[String]) {
        let columns = "id int primary key, small smallint, n int, large bigint, price decimal(12,2), day date, at timestamp null, flag boolean, name varchar(9)";
        let named = "id, small, n, large, price, day, at, flag, name";
        (self.sql)(&format!("drop table if exists t; create table t({columns}, filler {})", self.filler));
        for rows in rows.chunks(50) {
            (self.sql)(&format!("insert into t({named}) values {}", rows.join(", ")));
        }
        (self.sql)(self.analyze);
    }

    /// The answer, and whether the source gave values in place of rows.
    async fn ask(&self, query: &str, may_push: bool) -> gristmill_model::Result<(String, bool)> {
        let session = Session::new(&self.engine);
        if !may_push {
            session.context().remove_optimizer_rule("push_aggregates_to_sources");
        }
        session.register_views(&self.pipeline, &["t", "whole"]).await?;
        let frame = session.sql(query).await?;
        let optimized = frame.clone().into_optimized_plan().map_err(from_datafusion)?;
        let is_pushed = optimized.exists(|node| {
            let LogicalPlan::TableScan(scan) = node else { return Ok(false) };
            Ok(source_as_provider(&scan.source)?.is::<AggregatedTable>())
        });
        let rows = frame.collect().await.map_err(from_datafusion)?;
        Ok((lines(&rows), is_pushed.map_err(from_datafusion)?))
    }
}

/// In one order.
fn lines(rows: &[RecordBatch]) -> String {
    if rows.iter().all(|batch| batch.num_rows() == 0) {
        return String::new();
    }
    let text = pretty_format_batches(rows).unwrap().to_string();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('+')).collect();
    if let [_, rows @ ..] = lines.as_mut_slice() {
        rows.sort_unstable();
    }
    lines.iter().map(|line| line.replace(' ', "")).collect::<Vec<_>>().join("\n")
}

fn value<T: std::fmt::Display + std::fmt::Debug + 'static>(
    of: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<String> {
    prop_oneof![1 => Just("null".to_owned()), 6 => of.prop_map(|value| value.to_string())].boxed()
}

/// The values of a row, from the second column on.
fn row() -> impl Strategy<Value = String> {
    let large = prop_oneof![4 => 0i64..4, 1 => any::<i64>(), 1 => Just(i64::MAX), 1 => Just(i64::MIN + 1)];
    let price = prop_oneof![3 => -500i64..500, 1 => -999_999_999_999i64..=999_999_999_999];
    (
        value(-2i16..3),
        value(prop_oneof![4 => 0i32..9, 1 => any::<i32>()]),
        value(large),
        value(price.prop_map(|cents| {
            format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100)
        })),
        value((1u32..13, 1u32..4).prop_map(|(month, day)| format!("'2024-{month:02}-{day:02}'"))),
        value((1u32..13, 0u32..24).prop_map(|(month, hour)| format!("'2024-{month:02}-07 {hour:02}:30:00'"))),
        value(any::<bool>()),
        value("'[ab]{1,2}'".prop_map(|text| text)),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| [a, b, c, d, e, f, g, h].join(", "))
}

fn query() -> impl Strategy<Value = String> {
    let numbers = vec![
        "count(*)",
        "count(n)",
        "min(small)",
        "max(n)",
        "min(large)",
        "max(large)",
        "sum(small)",
        "sum(n)",
        "sum(large)",
        "min(id)",
    ];
    let more =
        ["count(day)", "count(name)", "sum(price)", "min(price)", "max(price)", "min(day)", "max(day)", "max(at)"];
    let all = numbers.iter().copied().chain(more).collect::<Vec<_>>();
    let values = prop_oneof![prop::sample::subsequence(all, 1..7), prop::sample::subsequence(numbers, 1..6)];
    let groups = prop::sample::select(vec!["", "", "small", "n", "flag", "day", "small, flag", "day, small"]);
    let conditions = prop::sample::select(vec![
        "",
        "",
        "",
        "WHERE id <= 30",
        "WHERE id < 0",
        "WHERE n > 3",
        "WHERE flag",
        "WHERE day >= DATE '2024-06-01'",
        "WHERE name = 'a'",
        "WHERE n IS NOT NULL AND large < 100",
        "WHERE small IN (1, 2)",
        "WHERE n > 3 OR flag",
    ]);
    let shapes = prop::sample::select(vec![
        "SELECT {values} FROM t {where} {by}",
        "SELECT {values} FROM (SELECT * FROM t {where}) AS sub {by}",
        "SELECT count(*) FROM (SELECT {values} FROM t {where} {by}) AS counted",
        "SELECT {values} FROM t {where} {by} HAVING count(*) > 1",
    ]);
    (values, groups, conditions, shapes).prop_map(|(values, groups, conditions, shape)| {
        let by = if groups.is_empty() { String::new() } else { format!("GROUP BY {groups}") };
        let groups = groups.split(", ").filter(|group| !group.is_empty());
        let values = groups.chain(values).collect::<Vec<_>>().join(", ");
        shape.replace("{values}", &values).replace("{where}", conditions).replace("{by}", &by)
    })
}

async fn answers_alike(world: World) {
    let mut runner = TestRunner::deterministic();
    let mut pushed = 0;
    for size in [0usize, 1, 3, 120, 60] {
        let rows: Vec<String> =
            (0..size).map(|id| format!("({id}, {})", row().new_tree(&mut runner).unwrap().current())).collect();
        world.create(&rows);
        for _ in 0..12 {
            let query = query().new_tree(&mut runner).unwrap().current();
            let (ours, was_pushed) = world.ask(&query, false).await.unwrap();
            assert!(!was_pushed, "{query}");
            let (theirs, was_pushed) =
                world.ask(&query, true).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
            assert_eq!(theirs, ours, "{size} rows: {query}");
            pushed += usize::from(was_pushed);
        }
    }
    assert!(pushed > 0, "nothing was pushed down");
}

#[tokio::test]
async fn postgres_aggregates_as_we_do() {
    answers_alike(on_postgres()).await;
}

#[tokio::test]
async fn mariadb_aggregates_as_we_do() {
    answers_alike(on_mariadb()).await;
}

#[tokio::test]
async fn sqlite_aggregates_as_we_do() {
    answers_alike(on_sqlite()).await;
}

#[tokio::test]
async fn what_a_source_may_answer_otherwise_stays_here() {
    let world = on_postgres();
    world.create(&["(1, 1, 1, 1, 1, '2024-01-01', null, true, 'a')".to_owned()]);
    for (query, pushed) in [
        ("SELECT count(*) FROM t", true),
        ("SELECT count(1), count(2) FROM t", true),
        ("SELECT flag FROM t GROUP BY flag", true),
        ("SELECT DISTINCT day FROM t", true),
        ("SELECT sum(large), sum(price) FROM t", true),
        ("SELECT s.d, max(s.m) FROM (SELECT day AS d, n AS m FROM t) s GROUP BY s.d", true),
        ("SELECT count(*) FROM whole", false),
        ("SELECT min(name) FROM t", false),
        ("SELECT name, count(*) FROM t GROUP BY name", false),
        ("SELECT avg(n) FROM t", false),
        ("SELECT count(DISTINCT n), count(*) FROM t", false),
        ("SELECT count(*) FILTER (WHERE n > 1) FROM t", false),
        ("SELECT sum(n + 1) FROM t", false),
        ("SELECT count(*) FROM t WHERE n + 1 > 2", false),
        ("SELECT count(*) FROM t WHERE name > 'a'", false),
        ("SELECT day, count(*) FROM t GROUP BY ROLLUP(day)", false),
        ("SELECT count(*) FROM (SELECT * FROM t LIMIT 5)", false),
    ] {
        assert_eq!(world.ask(query, true).await.unwrap().1, pushed, "{query}");
    }
}

#[tokio::test]
async fn a_value_that_reading_would_refuse_is_refused_here_too() {
    for (world, kind, odd) in [
        (on_postgres(), "date", "'infinity'"),
        (on_postgres(), "timestamp", "'-infinity'"),
        (on_postgres(), "timestamptz", "'294276-01-01'"),
        (on_postgres(), "numeric(9,2)", "'NaN'"),
        (on_sqlite(), "int", "'x'"),
        (on_sqlite(), "int", "1.5"),
    ] {
        (world.sql)(&format!("create table t(n int, k {kind})"));
        (world.sql)("insert into t values (1, null), (2, null)");
        let functions =
            if kind == "int" || kind.starts_with("numeric") { "count max min sum" } else { "count max min" };
        for bad in [false, true] {
            if bad {
                (world.sql)(&format!("insert into t values (3, {odd})"));
            }
            for function in functions.split(' ') {
                let query = format!("SELECT {function}(k) FROM t");
                let error = world.ask(&query, true).await.err();
                assert_eq!(error.is_some(), bad, "{kind}, {query}: {error:?}");
                assert_eq!(world.ask(&query, false).await.is_err(), bad);
            }
            if bad && kind == "date" {
                assert!(world.ask("SELECT count(*) FROM t WHERE k > DATE '2024-01-01'", true).await.is_err());
                assert!(world.ask("SELECT k, count(*) FROM t GROUP BY k", true).await.is_err());
            }
            assert!(world.ask("SELECT count(*) FROM t", true).await.unwrap().1);
        }
    }
}
