//! The one door to the engine: everything else of the command line knows plans, reports and rows, not how they are made.

use datafusion::error::DataFusionError;
use futures::StreamExt;
use gristmill_connect::Rows;
use gristmill_connect::sources::generate;
use gristmill_engine::{Engine, EngineOptions, Letter, LetterSet, LocalRunner, MemoryLimit, PlanReport, Session};
use gristmill_model::spec::{DeadLettersSpec, GenerateSpec, LedgerSpec, LoadSpec, PipelineSpec, StepBody};
use gristmill_model::yaml::Node;
use gristmill_model::{
    ByteSize, ConnectionName, Error, Interval, JobPhase, JobRunner, JobSpec, LoadKey, Result, RunId, Slot, StepKind,
    StepName, TemplateContext,
};
use gristmill_orchestrator::Project;
use gristmill_orchestrator::dag::{Dag, StageGroup};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

/// Rows of a batch of made-up rows.
const GENERATED_BATCH: usize = 8192;

/// What the engine needs to know.
#[derive(Clone)]
pub(crate) struct Options {
    /// The project's folder.
    pub(crate) project_root: PathBuf,
    /// Where state lives.
    pub(crate) state_dir: PathBuf,
    /// The profile that the connections are of.
    pub(crate) profile: Option<String>,
    /// Where dead letters are kept, if not in the state folder.
    pub(crate) dead_letters: Option<DeadLettersSpec>,
    /// How long targets remember loads.
    pub(crate) ledger: Option<LedgerSpec>,
    /// Connections with their secrets.
    pub(crate) connections: BTreeMap<ConnectionName, Node>,
    /// A limit on memory.
    pub(crate) memory: Option<ByteSize>,
    /// How many partitions are worked on at once.
    pub(crate) parallelism: Option<usize>,
    /// Collect everything before anything is written, for `run --compare`.
    pub(crate) collect: bool,
}

impl From<Options> for EngineOptions {
    fn from(options: Options) -> Self {
        let Options {
            project_root,
            state_dir,
            profile,
            dead_letters,
            ledger,
            connections,
            memory,
            parallelism,
            collect,
        } = options;
        Self {
            project_root,
            state_dir,
            profile,
            dead_letters,
            ledger,
            connections,
            memory,
            parallelism,
            collect,
            ..Self::default()
        }
    }
}

/// A runner in this process.
pub(crate) fn runner(options: Options) -> Result<Arc<dyn JobRunner>> {
    Ok(LocalRunner::new(options.into())?)
}

/// What a physical plan looks like: for people, and as data.
#[derive(Debug, Clone)]
pub(crate) struct Explained {
    /// Lines for people: per action its views, units and why, estimated rows, physical plan.
    pub(crate) text: String,
    /// The same as a JSON value.
    pub(crate) value: serde_json::Value,
    /// What is wrong with the first table of many that cannot be planned; the others are.
    pub(crate) error: Option<Error>,
}

/// Plans stage groups without doing them.
pub(crate) async fn explain(
    options: Options,
    pipeline: &PipelineSpec,
    context: &TemplateContext,
    interval: Interval,
    dag: &Dag,
    groups: &[&StageGroup],
) -> Result<Explained> {
    let engine = Engine::new(options.into())?;
    let mut text = String::new();
    let mut reports = Vec::new();
    let mut first = None;
    for group in groups {
        let loads = group.actions.iter().filter_map(|name| match &pipeline.step(name.as_str())?.body {
            StepBody::Load(load) => Some((name.clone(), key(pipeline, name, load, interval))),
            _ => None,
        });
        let cursors = |name: &StepName| {
            let extracts = dag.cursors(pipeline, name.as_str());
            let loads = dag.kind(name.as_str()) == Some(StepKind::Load) && !extracts.is_empty();
            loads.then(|| (name.clone(), extracts))
        };
        let job = JobSpec {
            run: RunId::from("plan"),
            pipeline: pipeline.clone(),
            steps: group.actions.clone(),
            shared: group.shared.clone(),
            loads: loads.collect(),
            resumed: Vec::new(),
            interval,
            context: context.clone(),
            attempt: 1,
            phase: JobPhase::Stage,
            full_refresh: false,
            cursors: group.actions.iter().filter_map(cursors).collect(),
        };
        let is_alone = group.actions.iter().all(|name| name.family().is_some());
        let report = match engine.explain(&job).await {
            Ok(report) => report,
            Err(error) if is_alone => {
                let names: Vec<&str> = group.actions.iter().map(StepName::as_str).collect();
                let _ = writeln!(text, "{}: cannot be planned: {}", names.join(", "), error.message());
                first.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        describe(&mut text, &report);
        reports.push(report);
    }
    let value = serde_json::to_value(&reports)
        .map_err(|error| Error::internal("a plan cannot be written as JSON").cause(error))?;
    Ok(Explained { text, value, error: first })
}

fn key(pipeline: &PipelineSpec, step: &StepName, load: &LoadSpec, interval: Interval) -> LoadKey {
    let of = load.table.as_ref().or(load.path.as_ref()).map_or("", String::as_str);
    let target = format!("{}:{of}", load.to);
    LoadKey { slot: Slot { pipeline: pipeline.name.clone(), step: step.clone(), interval, target }, generation: 1 }
}

/// The plan of a group, for people. Writing to a string cannot fail.
fn describe(text: &mut String, report: &PlanReport) {
    for view in &report.views {
        let rows = view.rows.map_or_else(String::new, |rows| format!(", about {} rows", crate::printer::number(rows)));
        let piped = if view.piped { " [computed once]" } else { "" };
        let _ = writeln!(text, "{} ({}){piped}: {}{rows}", view.step, view.kind.as_str(), view.why);
        if let Some(sample) = &view.sample {
            let _ = writeln!(text, "  units: {}, e.g. {sample}", view.units);
        }
        if !view.pushed_down.is_empty() {
            let _ = writeln!(text, "  pushed down: {}", view.pushed_down.join("; "));
        }
        if let Some(consistency) = &view.consistency {
            let _ = writeln!(text, "  picture: {consistency}");
        }
        if let Some(retry) = &view.retry {
            let _ = writeln!(text, "  when it fails in passing: {retry}");
        }
    }
    for action in &report.actions {
        let target = action.target.as_ref().map_or_else(String::new, |target| format!(" → {target}"));
        let strategy = action.strategy.as_ref().map_or_else(String::new, |strategy| format!(", {strategy}"));
        let _ = writeln!(text, "\n{}{target}{strategy}", action.step);
        for change in &action.changes {
            let _ = writeln!(text, "  {change}");
        }
        for line in action.physical.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
}

/// Answers a query over the views of a pipeline.
pub(crate) async fn query(options: Options, pipeline: &PipelineSpec, text: &str) -> Result<Rows> {
    let engine = Engine::new(options.into())?;
    let session = Arc::new(Session::new(&engine));
    let names = session.unknown_tables(text)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    session.register_views(pipeline, &names).await?;
    let frame = session.sql(text).await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let stream = match frame.execute_stream().await {
        Ok(stream) => stream,
        Err(error) => return Err(session.explain(error).await),
    };
    // The session's memory pool lives as long as its rows are read.
    // A decoder may panic on bytes that are not what they claim to be.
    let caught = AssertUnwindSafe(stream).catch_unwind().map(|batch| {
        let panicked = |_| Err(DataFusionError::Internal("the query's reader gave up on its bytes".to_owned()));
        batch.unwrap_or_else(panicked)
    });
    let rows = caught.then(move |batch| {
        let session = session.clone();
        async move {
            match batch {
                Ok(batch) => Ok(batch),
                Err(error) => Err(session.explain(error).await),
            }
        }
    });
    Ok(Rows::new(schema, rows))
}

/// All sets of dead letters, and what is wrong with files that cannot be read.
pub(crate) async fn letter_sets(options: Options) -> Result<(Vec<LetterSet>, Vec<Error>)> {
    let state = gristmill_engine::letters_home(&options.state_dir, options.dead_letters.as_ref());
    if options.dead_letters.is_some() {
        Engine::new(options.into())?.copy_letters().await?;
    }
    blocking(move || gristmill_engine::letter_sets(&state)).await
}

/// Removes dead letters that are older than they are to be kept; answers how many files of them.
pub(crate) async fn expire_letters(options: Options) -> Result<usize> {
    Engine::new(options.into())?.expire_letters(chrono::Utc::now()).await
}

/// The first letters of a set.
pub(crate) async fn letters(project: &Project, set: &LetterSet, most: usize) -> Result<Vec<Letter>> {
    let spec = project.spec.defaults.dead_letters.as_ref();
    let (state, set) = (gristmill_engine::letters_home(&project.state, spec), set.clone());
    blocking(move || gristmill_engine::letters(&state, &set, most)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("the reader of dead letters ended early").cause(error))?
}

/// What is wrong with a generator's rules, without making a row.
pub(crate) fn generator_problem(spec: &GenerateSpec) -> Option<Error> {
    generate::problems(spec).into_iter().next()
}

/// Made-up rows as a stream.
pub(crate) fn generated(spec: &GenerateSpec) -> Result<Rows> {
    let blocks = generate::generate(spec, GENERATED_BATCH)?;
    Ok(Rows::new(blocks.schema(), futures::stream::iter(blocks)))
}

/// How much memory a run may use when nothing else is said, in bytes.
pub(crate) fn memory_limit() -> u64 {
    MemoryLimit::decide(None).total
}
