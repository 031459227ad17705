//! What our layer costs: the same query through a whole load and on bare DataFusion, both into a sink that only counts.
//!
//! `overhead bare FILE` or `overhead gristmill FILE`, FILE a Parquet file of TPC-H lineitem. One binary for both halves,
//! so that they differ in the layer and in nothing else; `bench/run overhead` compares them.

use async_trait::async_trait;
use chrono::{NaiveDate, Utc};
use datafusion::physical_plan::execute_stream_partitioned;
use datafusion::prelude::ParquetReadOptions;
use futures::TryStreamExt;
use gristmill_connect::{Connection, ConnectionInfo, Discovered, LoadContext, Recovered, Rows, Sink, SinkMode, Source};
use gristmill_engine::{Engine, EngineOptions, LocalRunner, Session, from_datafusion};
use gristmill_model::spec::{Defaults, ExtractSpec, LoadSpec, PipelineSpec};
use gristmill_model::yaml::{Node, parse, to_error};
use gristmill_model::{
    CancellationToken, Checkpoint, Committed, ConnectionName, Error, ErrorKind, EventSink, Interval, JobPhase,
    JobRunner, JobSpec, LoadKey, OwnerId, Result, RunId, Slot, Staged, StepName, TaskKey, TemplateContext,
};
use std::path::Path;
use std::sync::Arc;

const QUERY: &str = "SELECT l_orderkey, l_partkey, l_extendedprice * (1 - l_discount) AS price, l_shipdate, l_comment \
                     FROM lineitem WHERE l_quantity < 40";

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare", file] => bare(Path::new(file)).await,
        ["gristmill", file] => gristmill(Path::new(file)).await,
        _ => Err(Error::new(ErrorKind::Usage, "two words are needed").hint("overhead bare|gristmill FILE")),
    };
    match done {
        Ok(rows) => {
            say(&format!("{rows} rows"));
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("error: {error}"));
            std::process::ExitCode::from(error.kind().exit_code())
        }
    }
}

#[expect(clippy::print_stdout, reason = "an example has no printer")]
fn say(text: &str) {
    println!("{text}");
}

/// The query on DataFusion alone: the engine's session settings, every partition on a task of its own.
async fn bare(file: &Path) -> Result<u64> {
    let engine = Engine::new(EngineOptions::default())?;
    let session = Session::new(&engine);
    let context = session.context();
    let path = file.to_string_lossy();
    context.register_parquet("lineitem", &*path, ParquetReadOptions::default()).await.map_err(from_datafusion)?;
    let plan =
        context.sql(QUERY).await.map_err(from_datafusion)?.create_physical_plan().await.map_err(from_datafusion)?;
    let partitions = execute_stream_partitioned(plan, context.task_ctx()).map_err(from_datafusion)?;
    let tasks = partitions.into_iter().map(|rows| {
        tokio::spawn(
            rows.map_err(from_datafusion).try_fold(0, |sum, batch| async move { Ok(sum + batch.num_rows() as u64) }),
        )
    });
    let mut sum = 0;
    for counted in futures::future::join_all(tasks).await {
        sum += counted.map_err(|error| Error::internal("a partition died").cause(error))??;
    }
    Ok(sum)
}

/// The same query as a job: extract, SQL, a row check, stage, commit.
async fn gristmill(file: &Path) -> Result<u64> {
    let file = file.canonicalize().map_err(|error| Error::io(&error, format!("`{}`", file.display())))?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let state = std::env::temp_dir().join(format!("gristmill-overhead-{}", std::process::id()));
    let mistakes = |mistakes: Vec<_>| to_error(&mistakes);
    let files: Node =
        parse("overhead", &format!("{{type: files, url: {:?}}}", folder.display().to_string())).map_err(mistakes)?;
    let runner = LocalRunner::new(EngineOptions {
        project_root: folder.to_owned(),
        state_dir: state.clone(),
        connections: [(ConnectionName::from("tpch"), files)].into(),
        ..EngineOptions::default()
    })?;
    runner.engine().add_connection(ConnectionName::from("nowhere"), Arc::new(Nowhere))?;

    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = format!(
        "name: overhead\n\
         steps:\n\
         \x20 lineitem: {{extract: {{from: tpch, path: {name:?}}}}}\n\
         \x20 priced:\n\
         \x20   sql: {QUERY:?}\n\
         \x20   checks: [{{not_null: l_orderkey}}]\n\
         \x20 load: {{load: {{from: priced, to: nowhere, table: nothing, strategy: append}}}}\n"
    );
    let node = parse("overhead.yaml", &text).map_err(mistakes)?;
    let pipeline = PipelineSpec::from_node(&node, &["tpch", "nowhere"], &Defaults::default()).map_err(mistakes)?;
    let interval = Interval::day(NaiveDate::from_ymd_opt(2024, 1, 1).unwrap_or_default());
    let run = RunId::from("overhead");
    let load = StepName::from("load");
    let slot =
        Slot { pipeline: pipeline.name.clone(), step: load.clone(), interval, target: "nowhere:nothing".to_owned() };
    let context = TemplateContext::new("overhead", &run, interval, Default::default(), Default::default());
    let mut job = JobSpec {
        run,
        pipeline,
        steps: vec![load.clone()],
        shared: vec![],
        loads: vec![(load, LoadKey { slot, generation: 1 })],
        resumed: vec![],
        interval,
        context,
        attempt: 1,
        phase: JobPhase::Stage,
        full_refresh: false,
        cursors: Vec::new(),
    };
    let staged = runner.run(job.clone(), EventSink::none(), CancellationToken::new()).await;
    if let Some(error) = staged.error {
        return Err(error);
    }
    job.phase = JobPhase::Commit { staged: staged.staged };
    let committed = runner.run(job, EventSink::none(), CancellationToken::new()).await;
    let removed = tokio::fs::remove_dir_all(&state).await;
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Error::io(&error, format!("`{}`", state.display())));
    }
    match committed.error {
        Some(error) => Err(error),
        None => Ok(committed.committed.iter().map(|(_, load)| load.rows).sum()),
    }
}

/// A target that counts rows and throws them away.
#[derive(Debug)]
struct Nowhere;

#[derive(Debug)]
struct Counter {
    key: LoadKey,
}

#[async_trait]
impl Connection for Nowhere {
    fn kind(&self) -> &'static str {
        "nowhere"
    }

    fn describe(&self) -> String {
        "nowhere".to_owned()
    }

    async fn test(&self) -> Result<ConnectionInfo> {
        Ok(ConnectionInfo { server: "nowhere".to_owned(), details: vec![] })
    }

    async fn discover(&self) -> Result<Vec<Discovered>> {
        Ok(vec![])
    }

    fn source(&self, _: &ExtractSpec) -> Result<Arc<dyn Source>> {
        Err(Error::new(ErrorKind::Config, "nothing comes from nowhere").hint("extract from another connection"))
    }

    fn sink(&self, _: &LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(Counter { key: context.key }))
    }
}

#[async_trait]
impl Sink for Counter {
    fn mode(&self) -> SinkMode {
        SinkMode::Staged
    }

    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    async fn stage(&self, task: &TaskKey, rows: Rows) -> Result<Staged> {
        let counted = rows.try_fold(0, |sum, batch| async move { Ok(sum + batch.num_rows() as u64) }).await?;
        Ok(Staged { task: task.clone(), rows: counted, bytes: 0, files: vec![], payload: serde_json::Value::Null })
    }

    async fn commit(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
        Ok(Committed {
            key: self.key.clone(),
            rows: staged.iter().map(|one| one.rows).sum(),
            files: 0,
            bytes: 0,
            checkpoint: next.clone(),
            at: Utc::now(),
            already: false,
        })
    }

    async fn last(&self, _: &Slot) -> Result<Option<Committed>> {
        Ok(None)
    }

    async fn checkpoint(&self, _: &Slot) -> Result<Option<Checkpoint>> {
        Ok(None)
    }

    async fn abort(&self, _: &LoadKey) -> Result<()> {
        Ok(())
    }

    async fn recover(&self, _: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync)) -> Result<Recovered> {
        Ok(Recovered::default())
    }
}
