//! A server that is stopped and alive: it keeps its connections, and says nothing.

use super::*;
use gristmill_model::Error;
use gristmill_testkit::postgres::PostgresServer;

/// So long that a busy machine is not taken for a dead one.
const SILENCE: &str = "8s";

fn impatient(database: &TestDatabase, yaml: &str) -> Arc<dyn Source> {
    let keys =
        format!("{{type: postgres, url: \"{}\", read_timeout: {SILENCE}, connect_timeout: {SILENCE}}}", database.url());
    connect(&keys).unwrap().source(&extract(yaml)).unwrap()
}

async fn scan(source: &dyn Source) -> Scan {
    Scan { schema: source.schema().await.unwrap(), batch_size: 500, on_bad_row: OnFail::Fail, rejects: None }
}

fn is_silence(error: &Error) {
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    assert_eq!(error.cause_text(), Some("the server sent nothing for 8s"), "{error}");
    assert!(error.hint_text().unwrap().contains("read_timeout"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_stopped_in_the_middle_of_a_read_is_given_up_and_can_be_read_again() {
    let server = PostgresServer::start().unwrap();
    let database = server.database();
    // Of a function after FROM, the server would gather all rows first.
    let source = impatient(&database, "query: select generate_series(1, 100000000) as n, repeat('x', 1000) as v");
    let scan = scan(source.as_ref()).await;
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    let mut rows = source.read(&plan.units[0], &scan);
    rows.next().await.unwrap().unwrap();
    let suspended = server.suspend().unwrap();
    let error = loop {
        match rows.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the rows ended as if they were all"),
        }
    };
    is_silence(&error);
    // Who asks the stopped server anew is not kept waiting either.
    let asked = impatient(&database, "query: select 1 as n").schema().await.unwrap_err();
    assert_eq!((asked.kind(), asked.is_retryable()), (ErrorKind::Unavailable, true), "{asked}");
    drop(suspended);
    assert_eq!(read(impatient(&database, "query: select 1 as n").as_ref()).await.unwrap()[0].num_rows(), 1);
}

/// Waits until somebody has hung up on the server, who has not noticed.
async fn hung_up(port: u16) {
    let local = format!("0100007F:{port:04X}");
    let is_left = || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        // CLOSE_WAIT.
        sockets.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next() == Some(local.as_str()) && words.nth(1) == Some("08")
        })
    };
    while !is_left() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_unit_goes_on_where_it_was_when_the_server_that_was_stopped_goes_on() {
    let server = PostgresServer::start().unwrap();
    let database = server.database();
    database.sql("create table t as select n, repeat('x', 500) as v from generate_series(1, 120000) n; analyze t");
    let source = impatient(&database, "table: t\nunits: {target_rows: 60000, verify: none}");
    let scan = scan(source.as_ref()).await;
    let plan = source.plan(&ReadRequest { parallelism: 2, ..ReadRequest::default() }).await.unwrap();
    assert!(plan.units.len() > 1, "{}", plan.why);
    let mut seen = Vec::new();
    let mut rows = source.read(&plan.units[0], &scan);
    seen.push(rows.next().await.unwrap().unwrap());
    let suspended = server.suspend().unwrap();
    let rest = async { rows.collect().await };
    let resume = async {
        hung_up(server.port).await;
        drop(suspended);
    };
    let (rest, ()) = tokio::join!(rest, resume);
    seen.extend(rest.unwrap());
    for unit in &plan.units[1..] {
        seen.extend(source.read(unit, &scan).collect().await.unwrap());
    }
    let mut numbers: Vec<i32> = seen
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<arrow::datatypes::Int32Type>().values().to_vec())
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=120_000), "{} rows", numbers.len());
}
