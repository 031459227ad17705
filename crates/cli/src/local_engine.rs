//! The one door to the engine: everything else of the command line knows plans, reports and rows, not how they are made.

use gristmill_connect::Rows;
use gristmill_model::spec::PipelineSpec;
use gristmill_model::yaml::Node;
use gristmill_model::{ByteSize, ConnectionName, Error, JobRunner, Result, StepName, TemplateContext};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What the engine needs to know.
#[derive(Clone)]
pub(crate) struct Options {
    /// The project's folder.
    pub(crate) project_root: PathBuf,
    /// Where state lives.
    pub(crate) state_dir: PathBuf,
    /// Connections with their secrets.
    pub(crate) connections: BTreeMap<ConnectionName, Node>,
    /// A limit on memory.
    pub(crate) memory: Option<ByteSize>,
    /// How many partitions are worked on at once.
    pub(crate) parallelism: Option<usize>,
    /// Collect everything before anything is written, for `run --compare`.
    pub(crate) collect: bool,
}

/// A runner in this process.
pub(crate) fn runner(options: Options) -> Result<Arc<dyn JobRunner>> {
    let _ = (options.project_root, options.state_dir, options.connections, options.parallelism, options.collect);
    Err(Error::internal("the engine is not linked into this build"))
}

/// What a physical plan looks like: for people, and as data.
#[derive(Debug, Clone)]
pub(crate) struct Explained {
    /// Lines for people: per action its views, units and why, estimated rows, physical plan.
    pub(crate) text: String,
    /// The same as a JSON value.
    pub(crate) value: serde_json::Value,
}

/// Plans actions without doing them.
pub(crate) async fn explain(
    options: Options,
    _pipeline: &PipelineSpec,
    _context: &TemplateContext,
    _actions: &[StepName],
) -> Result<Explained> {
    runner(options).map(|_| Explained { text: String::new(), value: serde_json::Value::Null })
}

/// Answers a query over the views of a pipeline.
pub(crate) async fn query(
    options: Options,
    _pipeline: &PipelineSpec,
    _context: &TemplateContext,
    _text: &str,
) -> Result<Rows> {
    runner(options).and_then(|_| Err(Error::internal("unreachable without an engine")))
}

/// What is wrong with a generator's rules, without making a row.
pub(crate) fn generator_problem(_generate: &gristmill_model::spec::GenerateSpec) -> Option<Error> {
    None
}

/// Made-up rows as a stream.
pub(crate) fn generated(_generate: &gristmill_model::spec::GenerateSpec) -> Result<Rows> {
    Err(Error::internal("the generator is not linked into this build"))
}

/// How much memory a run may use when nothing else is said, in bytes.
pub(crate) fn memory_limit() -> u64 {
    // The total of the machine until the engine's own decision is linked in.
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.lines().next()?.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes * 1024)
}
