//! A pipeline file: its steps, as written ([`PipelineFile`]) and as understood ([`PipelineSpec`]).

use super::shapes::{OneOrMany, short_or_full, short_or_full_schema};
use super::{Check, CheckFile, ExtractSpec, GenerateSpec, LoadSpec, MaxRejects};
use crate::yaml::Diagnostic;
use crate::{ConnectionName, Duration, PipelineName, StepKind, StepName};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// A pipeline, understood: names are known, every step is exactly one thing, nothing is left to default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineSpec {
    /// Its name.
    pub name: PipelineName,
    /// The file it was read from, relative to the project.
    pub file: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its steps, in the order of the file.
    pub steps: Vec<Step>,
}

/// One step, understood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its name; for a view, also the table name.
    pub name: StepName,
    /// What it does.
    pub body: StepBody,
    /// Steps that must have ended well before, beside those whose rows it reads.
    pub after: Vec<StepName>,
    /// What must hold for its rows.
    pub checks: Vec<Check>,
    /// Whether its rows are computed once for all who read them. By default they are where several actions read them;
    /// `Some(true)`: also where one action reads them several times; `Some(false)`: never.
    pub cache: Option<bool>,
    /// How often it is tried again.
    pub retries: u32,
    /// How long to wait before the first retry; doubled for each further one.
    pub retry_delay: Duration,
    /// The longest one attempt may take.
    pub timeout: Option<Duration>,
    /// How many of its rows may be refused: by its reader, by its checks, by its target. Beyond it the run fails, and no
    /// target is touched.
    #[serde(default)]
    pub max_rejects: Option<MaxRejects>,
    /// What it is for.
    pub description: Option<String>,
    /// Where it stands in its file.
    pub place: Place,
}

impl Step {
    /// A step of no file, with nothing but what it does.
    #[must_use]
    pub fn new(name: StepName, body: StepBody) -> Self {
        Self {
            name,
            body,
            after: Vec::new(),
            checks: Vec::new(),
            cache: None,
            retries: 0,
            retry_delay: Duration::default(),
            timeout: None,
            max_rejects: None,
            description: None,
            place: Place::default(),
        }
    }
}

/// Where something stands in a pipeline file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, relative to the project.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl Place {
    /// A mistake at this place.
    #[must_use]
    pub fn diagnostic(&self, message: impl Into<String>, hint: Option<String>) -> Diagnostic {
        Diagnostic { file: self.file.clone(), line: self.line, column: self.column, message: message.into(), hint }
    }
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepBody {
    /// A view on a source.
    Extract(ExtractSpec),
    /// A view computed by a query.
    Sql(SqlSpec),
    /// A view of made-up rows.
    Generate(GenerateSpec),
    /// Rows to a target.
    Load(LoadSpec),
    /// Checks without a load.
    Check(CheckStep),
    /// Waiting for another pipeline's step.
    WaitFor(WaitForSpec),
    /// A command of the operating system.
    Command(CommandSpec),
}

impl StepBody {
    /// What kind of step this is.
    #[must_use]
    pub fn kind(&self) -> StepKind {
        match self {
            Self::Extract(_) => StepKind::Extract,
            Self::Sql(_) => StepKind::Sql,
            Self::Generate(_) => StepKind::Generate,
            Self::Load(_) => StepKind::Load,
            Self::Check(_) => StepKind::Check,
            Self::WaitFor(_) => StepKind::WaitFor,
            Self::Command(_) => StepKind::Command,
        }
    }

    /// The connection it touches.
    #[must_use]
    pub fn connection(&self) -> Option<&ConnectionName> {
        match self {
            Self::Extract(extract) => Some(&extract.from),
            Self::Load(load) => Some(&load.to),
            _ => None,
        }
    }
}

/// A query: the text itself, or the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlSpec {
    /// The text; empty until a `file` has been read.
    pub text: String,
    /// The file, relative to the pipeline file.
    pub file: Option<String>,
}

/// The step whose rows are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStep {
    /// The step.
    pub from: StepName,
}

/// Waiting for a step of another pipeline of the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitForSpec {
    /// The other pipeline.
    pub pipeline: PipelineName,
    /// Its step; by default all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepName>,
    /// The logical date of its run, for something that is made once (`2024-01-01`); by default the same as this run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<chrono::NaiveDate>,
    /// How long to wait at most; one hour by default.
    #[serde(default = "an_hour")]
    pub timeout: Duration,
    /// How long to wait between two looks; five seconds by default.
    #[serde(default = "five_seconds")]
    pub poke_interval: Duration,
}

fn an_hour() -> Duration {
    Duration(std::time::Duration::from_secs(3600))
}

fn five_seconds() -> Duration {
    Duration(std::time::Duration::from_secs(5))
}

/// A command, run by `sh -c` in the project's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// The command line.
    pub run: String,
    /// Variables added to its environment.
    pub env: BTreeMap<String, String>,
}

/// A pipeline file, as written.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "A Gristmill pipeline")]
pub struct PipelineFile {
    /// Its name; by default the file's.
    #[serde(default)]
    pub name: Option<PipelineName>,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// Parameters and their defaults, for `{{ params.x }}` and `--param x=…`.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// How often a step is tried again.
    #[serde(default)]
    pub retries: Option<u32>,
    /// How long to wait before the first retry.
    #[serde(default)]
    pub retry_delay: Option<Duration>,
    /// The longest one attempt of a step may take.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// How many rows of a step may be refused (`100`, or `1%` of them) before the run fails.
    #[serde(default)]
    pub max_rejects: Option<MaxRejects>,
    /// The steps, by name.
    pub steps: BTreeMap<String, StepFile>,
}

/// A step, as written: one of `extract`, `sql`, `generate`, `load`, `check`, `wait_for`, `command`, and what goes with it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepFile {
    /// A view on a source.
    #[serde(default)]
    pub(super) extract: Option<ExtractSpec>,
    /// How the source of an `extract` is divided into units, which are read in parallel.
    #[serde(default)]
    pub(super) units: Option<super::UnitsSpec>,
    /// A view computed by a query over other steps.
    #[serde(default)]
    pub(super) sql: Option<SqlFile>,
    /// A view of made-up rows.
    #[serde(default)]
    pub(super) generate: Option<GenerateSpec>,
    /// Rows to a target.
    #[serde(default)]
    pub(super) load: Option<LoadSpec>,
    /// The step whose rows are checked, without a load.
    #[serde(default)]
    pub(super) check: Option<StepName>,
    /// Waiting for another pipeline.
    #[serde(default)]
    pub(super) wait_for: Option<WaitForSpec>,
    /// A command of the operating system.
    #[serde(default)]
    pub(super) command: Option<CommandFile>,
    /// Steps that must have ended well before.
    #[serde(default)]
    pub(super) after: OneOrMany,
    /// What must hold for its rows.
    #[serde(default)]
    pub(super) checks: Vec<CheckFile>,
    /// `false`: read or compute its rows anew for each action that needs them. `true`: once, even where a single action
    /// reads them several times. By default: once where several actions need them.
    #[serde(default)]
    pub(super) cache: Option<bool>,
    /// How often it is tried again.
    #[serde(default)]
    pub(super) retries: Option<u32>,
    /// How long to wait before the first retry.
    #[serde(default)]
    pub(super) retry_delay: Option<Duration>,
    /// The longest one attempt may take.
    #[serde(default)]
    pub(super) timeout: Option<Duration>,
    /// How many of its rows may be refused, by its reader, its checks or its target: `100`, or `1%` of them. Beyond it the run
    /// fails and no target is touched. No limit by default.
    #[serde(default)]
    pub(super) max_rejects: Option<MaxRejects>,
    /// What it is for.
    #[serde(default)]
    pub(super) description: Option<String>,
}

/// A query: its text, or `{file: name.sql}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SqlFile(pub(super) SqlFull);

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlFull {
    /// The file, relative to the pipeline file.
    #[serde(default)]
    pub(super) file: Option<String>,
    #[serde(skip)]
    pub(super) text: String,
}

impl<'de> Deserialize<'de> for SqlFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let short = |words: OneOrMany| SqlFull { file: None, text: words.0.concat() };
        short_or_full(deserializer, short, "a query or `{file: …}`").map(Self)
    }
}

impl JsonSchema for SqlFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sql".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        short_or_full_schema::<SqlFull>(generator)
    }
}

/// A command: its text, or `{run: …, env: {…}}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CommandFile(pub(super) CommandFull);

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandFull {
    /// The command line.
    pub(super) run: String,
    /// Variables added to its environment.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for CommandFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let short = |words: OneOrMany| CommandFull { run: words.0.join(" "), env: BTreeMap::new() };
        short_or_full(deserializer, short, "a command line or `{run: …, env: {…}}`").map(Self)
    }
}

impl JsonSchema for CommandFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Command".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        short_or_full_schema::<CommandFull>(generator)
    }
}

impl PipelineSpec {
    /// The step of that name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name.as_str() == name)
    }
}
