//! A function of one's own, in a query and in a pipeline built in code. See `docs/guides/library.md`.

use gristmill::arrow::array::{AsArray, RecordBatch, StringArray};
use gristmill::arrow::datatypes::DataType;
use gristmill::arrow::util::pretty::pretty_format_batches;
use gristmill::datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use gristmill::engine::{EngineOptions, LocalRunner, Session};
use gristmill::model::{EventSink, Interval, yaml};
use gristmill::orchestrator::{Driver, DriverOptions, Project, RunRequest, RunState, SqliteStore};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

const PIPELINE: &str = "
name: greetings
steps:
  greetings:
    sql: SELECT name, shout('hello ' || name) AS greeting FROM (VALUES ('Ada'), ('Grace')) AS people(name)
    checks: [{not_null: greeting}, {unique: name}]
  load_greetings: {load: {from: greetings, to: lake, path: greetings/, strategy: replace}}
";

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let greetings = run(&std::env::temp_dir().join("gristmill-own-function")).await?;
    Ok(writeln!(std::io::stdout(), "{}", pretty_format_batches(&greetings)?)?)
}

/// `SHOUT!`
fn shout(arguments: &[ColumnarValue]) -> gristmill::datafusion::error::Result<ColumnarValue> {
    let texts = ColumnarValue::values_to_arrays(arguments)?;
    let loud = texts[0].as_string::<i32>().iter().map(|text| text.map(|text| text.to_uppercase() + "!"));
    Ok(ColumnarValue::Array(Arc::new(loud.collect::<StringArray>())))
}

/// Runs the pipeline, which loads a folder of Parquet files, and queries that folder.
pub(crate) async fn run(folder: &Path) -> Result<Vec<RecordBatch>, Box<dyn Error>> {
    let text = |text: &str| yaml::parse("own_function.rs", text).map_err(|mistakes| yaml::to_error(&mistakes));
    let options = EngineOptions {
        project_root: folder.into(),
        state_dir: folder.join("state"),
        connections: BTreeMap::from([("lake".into(), text("{type: files, url: ./lake}")?)]),
        functions: vec![create_udf(
            "shout",
            vec![DataType::Utf8],
            DataType::Utf8,
            Volatility::Immutable,
            Arc::new(shout),
        )],
        ..EngineOptions::default()
    };
    let store = Arc::new(SqliteStore::open(&options.state_dir).await?);
    let connections = options.connections.clone();
    let project = Project::in_memory(folder.into(), options.state_dir.clone(), connections, text(PIPELINE)?)?;
    let runner = LocalRunner::new(options)?;
    let session = Session::new(runner.engine());

    let driver = Driver::new(Arc::new(project), store, runner, EventSink::none(), DriverOptions::default());
    let report = driver.run(&RunRequest::new("greetings", Interval::day("2024-01-15".parse()?))).await?;
    if report.state != RunState::Success {
        return Err(format!("{report:?}").into());
    }
    let query = "SELECT name, greeting, shout(name) AS again FROM 'lake/greetings/' ORDER BY name";
    Ok(session.sql(query).await?.collect().await?)
}
