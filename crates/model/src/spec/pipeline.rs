//! A pipeline file: its steps, as written ([`PipelineFile`]) and as understood ([`PipelineSpec`]).

use super::shapes::{OneOrMany, short_or_full, short_or_full_schema};
use super::{Check, CheckFile, ExtractSpec, GenerateSpec, LoadSpec, Strategy};
use crate::yaml::{Diagnostic, Node, decode};
use crate::{ConnectionName, Duration, PipelineName, StepKind, StepName, one_of};
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
    /// Whether its rows are kept when several actions read them; true by default.
    pub cache: bool,
    /// How often it is tried again.
    pub retries: u32,
    /// How long to wait before the first retry; doubled for each further one.
    pub retry_delay: Duration,
    /// The longest one attempt may take.
    pub timeout: Option<Duration>,
    /// What it is for.
    pub description: Option<String>,
    /// Where it stands in its file.
    pub place: Place,
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
    /// The steps, by name.
    pub steps: BTreeMap<String, StepFile>,
}

/// A step, as written: one of `extract`, `sql`, `generate`, `load`, `check`, `wait_for`, `command`, and what goes with it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepFile {
    /// A view on a source.
    #[serde(default)]
    extract: Option<ExtractSpec>,
    /// A view computed by a query over other steps.
    #[serde(default)]
    sql: Option<SqlFile>,
    /// A view of made-up rows.
    #[serde(default)]
    generate: Option<GenerateSpec>,
    /// Rows to a target.
    #[serde(default)]
    load: Option<LoadSpec>,
    /// The step whose rows are checked, without a load.
    #[serde(default)]
    check: Option<StepName>,
    /// Waiting for another pipeline.
    #[serde(default)]
    wait_for: Option<WaitForSpec>,
    /// A command of the operating system.
    #[serde(default)]
    command: Option<CommandFile>,
    /// Steps that must have ended well before.
    #[serde(default)]
    after: OneOrMany,
    /// What must hold for its rows.
    #[serde(default)]
    checks: Vec<CheckFile>,
    /// `false`: read or compute its rows anew for each action that needs them.
    #[serde(default)]
    cache: Option<bool>,
    /// How often it is tried again.
    #[serde(default)]
    retries: Option<u32>,
    /// How long to wait before the first retry.
    #[serde(default)]
    retry_delay: Option<Duration>,
    /// The longest one attempt may take.
    #[serde(default)]
    timeout: Option<Duration>,
    /// What it is for.
    #[serde(default)]
    description: Option<String>,
}

/// A query: its text, or `{file: name.sql}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SqlFile(SqlFull);

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SqlFull {
    /// The file, relative to the pipeline file.
    #[serde(default)]
    file: Option<String>,
    #[serde(skip)]
    text: String,
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
pub(super) struct CommandFile(CommandFull);

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CommandFull {
    /// The command line.
    run: String,
    /// Variables added to its environment.
    #[serde(default)]
    env: BTreeMap<String, String>,
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
    /// Understands a rendered pipeline file. `connections` are the names the project knows; `defaults` fill what the
    /// file leaves open.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn from_node(node: &Node, connections: &[&str], defaults: &super::Defaults) -> Result<Self, Vec<Diagnostic>> {
        let file: PipelineFile = decode(node)?;
        let stem = node.file.rsplit('/').next().unwrap_or_default().split('.').next().unwrap_or_default();
        let name = file.name.clone().unwrap_or_else(|| PipelineName::from(stem));
        let mut mistakes = Vec::new();
        let mut steps = Vec::new();
        let no_entries = Vec::new();
        let entries = node.get("steps").map_or(no_entries.as_slice(), Node::entries);
        let names: Vec<&str> = entries.iter().filter_map(|entry| entry.key.text()).collect();
        if names.is_empty() {
            let hint = Some("add at least one step under `steps:`".to_owned());
            mistakes.push(node.diagnostic("the pipeline has no steps", hint));
        }
        for entry in entries {
            let Some((step_name, step)) =
                entry.key.text().and_then(|name| file.steps.get(name).map(|step| (name, step)))
            else {
                continue;
            };
            let place = Place { file: node.file.to_string(), line: entry.key.line, column: entry.key.column };
            let mut complain = |message: String, hint: Option<String>| mistakes.push(place.diagnostic(message, hint));
            check_name(step_name, &mut complain);
            let Some(body) = body(step, &mut complain) else { continue };
            let mut checks: Vec<Check> = Vec::new();
            for check in &step.checks {
                match check.clone().understand() {
                    Ok(check) if checks.iter().any(|other| other.name == check.name) => {
                        complain(
                            format!("two checks of `{step_name}` are named `{}`", check.name),
                            Some("give one of them a `name:`".to_owned()),
                        );
                    }
                    Ok(check) => checks.push(check),
                    Err(message) => complain(message, None),
                }
            }
            if !checks.is_empty() && matches!(body.kind(), StepKind::WaitFor | StepKind::Command) {
                complain(format!("`{step_name}` has no rows, so it cannot have `checks`"), None);
            }
            if step.cache.is_some() && body.kind().is_action() {
                complain(format!("`cache` is for views, and `{step_name}` is a {} step", body.kind().as_str()), None);
            }
            let referenced = step.after.0.iter().map(String::as_str).chain(match &body {
                StepBody::Load(load) => Some(load.from.as_str()),
                StepBody::Check(check) => Some(check.from.as_str()),
                _ => None,
            });
            for other in referenced.chain(checks.iter().filter_map(|check| check.kind.reads())) {
                if !names.contains(&other) {
                    complain(
                        format!("step `{step_name}` names the step `{other}`, which does not exist"),
                        Some(one_of(other, names.iter().copied())),
                    );
                }
            }
            if let StepBody::Load(LoadSpec { from, .. }) | StepBody::Check(CheckStep { from }) = &body
                && file.steps.get(from.as_str()).is_some_and(|other| {
                    other.load.is_some() || other.check.is_some() || other.wait_for.is_some() || other.command.is_some()
                })
            {
                complain(
                    format!("step `{step_name}` reads `{from}`, which has no rows"),
                    Some("name an extract, sql or generate step".to_owned()),
                );
            }
            if let Some(connection) = body.connection()
                && !connections.contains(&connection.as_str())
            {
                complain(
                    format!("step `{step_name}` names the connection `{connection}`, which does not exist"),
                    Some(one_of(connection.as_str(), connections.iter().copied())),
                );
            }
            steps.push(Step {
                name: StepName::from(step_name),
                after: step.after.0.iter().map(|name| StepName::from(name.as_str())).collect(),
                checks,
                cache: step.cache.unwrap_or(true),
                retries: step.retries.or(file.retries).unwrap_or(defaults.retries),
                retry_delay: step.retry_delay.or(file.retry_delay).unwrap_or(defaults.retry_delay),
                timeout: step.timeout.or(file.timeout).or(defaults.timeout),
                description: step.description.clone(),
                place: place.clone(),
                body,
            });
        }
        if mistakes.is_empty() {
            Ok(Self { name, file: node.file.to_string(), description: file.description, steps })
        } else {
            Err(mistakes)
        }
    }

    /// The step of that name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name.as_str() == name)
    }
}

fn check_name(name: &str, complain: &mut impl FnMut(String, Option<String>)) {
    let fine = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !fine {
        complain(
            format!("`{name}` cannot be a step name"),
            Some("use lower-case letters, digits and underscores: a step's name is its table name in SQL".to_owned()),
        );
    }
}

fn body(step: &StepFile, complain: &mut impl FnMut(String, Option<String>)) -> Option<StepBody> {
    let mut bodies: Vec<(&str, StepBody)> = Vec::new();
    if let Some(extract) = &step.extract {
        check_extract(extract, complain);
        bodies.push(("extract", StepBody::Extract(extract.clone())));
    }
    if let Some(SqlFile(sql)) = &step.sql {
        if sql.file.is_none() && sql.text.trim().is_empty() {
            complain("the query is empty".to_owned(), None);
        }
        bodies.push(("sql", StepBody::Sql(SqlSpec { text: sql.text.clone(), file: sql.file.clone() })));
    }
    if let Some(generate) = &step.generate {
        if generate.table.is_some() != generate.columns.is_empty() {
            complain("`generate` needs either `table` or `columns`".to_owned(), None);
        }
        bodies.push(("generate", StepBody::Generate(generate.clone())));
    }
    if let Some(load) = &step.load {
        check_load(load, complain);
        bodies.push(("load", StepBody::Load(load.clone())));
    }
    if let Some(from) = &step.check {
        if step.checks.is_empty() {
            complain("a `check` step needs `checks`".to_owned(), None);
        }
        bodies.push(("check", StepBody::Check(CheckStep { from: from.clone() })));
    }
    if let Some(wait_for) = &step.wait_for {
        bodies.push(("wait_for", StepBody::WaitFor(wait_for.clone())));
    }
    if let Some(CommandFile(command)) = &step.command {
        bodies.push(("command", StepBody::Command(CommandSpec { run: command.run.clone(), env: command.env.clone() })));
    }
    let kinds = "one of `extract`, `sql`, `generate`, `load`, `check`, `wait_for`, `command`";
    match bodies.len() {
        0 => {
            complain(format!("the step does nothing; it needs {kinds}"), None);
            None
        }
        1 => bodies.pop().map(|(_, body)| body),
        _ => {
            let given: Vec<String> = bodies.iter().map(|(name, _)| format!("`{name}`")).collect();
            complain(format!("the step is {} at once; a step is only {kinds}", given.join(" and ")), None);
            None
        }
    }
}

fn check_extract(extract: &ExtractSpec, complain: &mut impl FnMut(String, Option<String>)) {
    let given = [extract.table.is_some(), extract.query.is_some(), extract.path.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        complain("`extract` needs exactly one of `table`, `query` and `path`".to_owned(), None);
    }
    if extract.filter.is_some() && extract.table.is_none() {
        complain(
            "`where` goes with `table`".to_owned(),
            Some("put the condition into the query, or into a sql step".to_owned()),
        );
    }
    if extract.path.is_none() {
        let file_only = [
            ("format", extract.format.is_some()),
            ("compression", extract.compression.is_some()),
            ("csv", extract.csv.is_some()),
            ("json", extract.json.is_some()),
        ];
        for (key, _) in file_only.iter().filter(|(_, given)| *given) {
            complain(format!("`{key}` goes with `path`"), None);
        }
    }
}

fn check_load(load: &LoadSpec, complain: &mut impl FnMut(String, Option<String>)) {
    if load.table.is_some() == load.path.is_some() {
        complain("`load` needs either `table` (for a database) or `path` (for files)".to_owned(), None);
    }
    match load.strategy {
        Strategy::DeleteInsert if load.key.0.is_empty() && load.scope.is_none() => complain(
            "`strategy: delete+insert` needs `key` or `scope` to know what to delete".to_owned(),
            Some("e.g. `key: [date]`".to_owned()),
        ),
        Strategy::PartitionOverwrite if load.partition_by.0.is_empty() => complain(
            "`strategy: partition_overwrite` needs `partition_by`".to_owned(),
            Some("e.g. `partition_by: [date]`".to_owned()),
        ),
        _ => {}
    }
    if load.table.is_some() {
        let file_only = [
            ("format", load.format.is_some()),
            ("compression", load.compression.is_some()),
            ("compression_level", load.compression_level.is_some()),
            ("file_size", load.file_size.is_some()),
            ("row_group_rows", load.row_group_rows.is_some()),
            ("csv", load.csv.is_some()),
            ("partition_by", !load.partition_by.0.is_empty() && load.strategy != Strategy::PartitionOverwrite),
        ];
        for (key, _) in file_only.iter().filter(|(_, given)| *given) {
            complain(format!("`{key}` goes with `path`, not with `table`"), None);
        }
    }
    if load.scope.is_some() && !matches!(load.strategy, Strategy::DeleteInsert | Strategy::PartitionOverwrite) {
        complain(format!("`scope` does not go with `strategy: {}`", load.strategy.as_str()), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Defaults;
    use crate::yaml::parse;

    fn understand(text: &str) -> Result<PipelineSpec, Vec<Diagnostic>> {
        PipelineSpec::from_node(&parse("pipelines/p.yaml", text).unwrap(), &["db", "lake"], &Defaults::default())
    }

    #[test]
    fn a_pipeline_is_named_by_its_file_and_keeps_its_steps_in_order() {
        let spec = understand(
            "steps:\n  z: {extract: {from: db, table: t}}\n  a:\n    load: {from: z, to: lake, path: out/, strategy: replace}\n",
        )
        .unwrap();
        assert_eq!(spec.name.as_str(), "p");
        let names: Vec<&str> = spec.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["z", "a"]);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let mistakes = understand(
            "steps:\n  Orders: {extract: {from: dbb, table: t, query: q}}\n  out:\n    load: {from: order, to: lake, table: t, strategy: delete+insert}\n  both: {sql: select 1, command: ls}\n",
        )
        .unwrap_err();
        let text: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let text = text.join("\n");
        for part in [
            "`Orders` cannot be a step name",
            "exactly one of `table`, `query` and `path`",
            "connection `dbb`, which does not exist\n  hint: did you mean `db`?",
            "step `order`, which does not exist",
            "needs `key` or `scope`",
            "`sql` and `command` at once",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn checks_are_written_short_or_in_full() {
        let spec = understand(
            "steps:\n  a:\n    extract: {from: db, table: t}\n    checks:\n      - not_null: id\n      - unique: [id, day]\n      - between: {column: total, min: 0, strict_min: true, on_fail: dead_letter}\n      - row_count: {min: 1}\n",
        )
        .unwrap();
        let names: Vec<&str> = spec.steps[0].checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["not_null(id)", "unique(id, day)", "between(total)", "row_count"]);
    }

    #[test]
    fn a_set_check_cannot_send_rows_away() {
        let mistakes = understand(
            "steps:\n  a:\n    extract: {from: db, table: t}\n    checks:\n      - unique: {column: id, on_fail: dead_letter}\n",
        )
        .unwrap_err();
        assert!(mistakes[0].message.contains("judges all rows together"), "{mistakes:?}");
    }

    #[test]
    fn a_key_that_nothing_honours_yet_is_refused_by_name() {
        let mistakes = understand("schedule: '@daily'\nsteps:\n  a: {sql: select 1}\n").unwrap_err();
        assert_eq!(mistakes[0].message, "unknown key `schedule`");
    }
}
