//! From a rendered pipeline file to a [`PipelineSpec`]: what each step is, and everything that is wrong.
//!
//! Every step, and every check of it, is decoded by itself, so that a mistake in one of them hides nothing in the
//! others. Of a step with mistakes, only what is certain is complained about further: that something is missing may be
//! because it was written wrong.

mod rules;
#[cfg(test)]
mod tests;

use super::check::CheckFile;
use super::pipeline::{
    CheckStep, CommandFile, CommandSpec, PipelineFile, PipelineSpec, Place, SqlFile, SqlSpec, Step, StepBody, StepFile,
};
use super::{Check, ExtractSpec};
use crate::yaml::{Diagnostic, Node, Value, decode_partly};
use crate::{PipelineName, StepKind, StepName, one_of};
use rules::{check_extract, check_increment, check_target};

/// The keys that say what a step is.
const KINDS: [&str; 7] = ["extract", "sql", "generate", "load", "check", "wait_for", "command"];

impl PipelineSpec {
    /// Understands a rendered pipeline file. `connections` are the names the project knows; `defaults` fill what the
    /// file leaves open.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn from_node(node: &Node, connections: &[&str], defaults: &super::Defaults) -> Result<Self, Vec<Diagnostic>> {
        match Self::from_node_partly(node, connections, defaults) {
            (Some(spec), mistakes) if mistakes.is_empty() => Ok(spec),
            (_, mistakes) => Err(mistakes),
        }
    }

    /// As [`PipelineSpec::from_node`], but hands back the steps that can be understood beside everything that is wrong,
    /// so that those can be looked at further. Nothing at all when the file has no steps.
    pub fn from_node_partly(
        node: &Node,
        connections: &[&str],
        defaults: &super::Defaults,
    ) -> (Option<Self>, Vec<Diagnostic>) {
        let mut frame = node.clone();
        let entries = match &mut frame.value {
            Value::Map(entries) => entries.iter_mut().find(|entry| entry.key.text() == Some("steps")),
            _ => None,
        };
        // The steps are decoded one by one below.
        let steps = match entries.map(|entry| &mut entry.value.value) {
            Some(Value::Map(steps)) => std::mem::take(steps),
            _ => Vec::new(),
        };
        let (file, mut mistakes) = decode_partly::<PipelineFile>(&frame);
        let Some(file) = file else { return (None, mistakes) };
        if steps.is_empty() {
            let hint = Some("add at least one step under `steps:`".to_owned());
            mistakes.push(node.diagnostic("the pipeline has no steps", hint));
            return (None, mistakes);
        }
        let stem = node.file.rsplit('/').next().unwrap_or_default().split('.').next().unwrap_or_default();
        let name = file.name.clone().unwrap_or_else(|| PipelineName::from(stem));
        let known = Known {
            steps: steps.iter().filter_map(|entry| Some((entry.key.text()?, &entry.value))).collect(),
            connections,
        };
        let mut understood = Vec::new();
        for entry in &steps {
            let Some(step_name) = entry.key.text() else { continue };
            let reader = StepReader {
                name: step_name,
                place: Place { file: node.file.to_string(), line: entry.key.line, column: entry.key.column },
                node: &entry.value,
                known: &known,
                mistakes: Vec::new(),
            };
            let (step, found) = reader.read(&file, defaults);
            understood.extend(step);
            mistakes.extend(found);
        }
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        let spec = Self { name, file: node.file.to_string(), description: file.description, steps: understood };
        (Some(spec), mistakes)
    }
}

/// The names a step may use.
struct Known<'a> {
    steps: Vec<(&'a str, &'a Node)>,
    connections: &'a [&'a str],
}

/// Reads one step.
struct StepReader<'a> {
    name: &'a str,
    place: Place,
    node: &'a Node,
    known: &'a Known<'a>,
    mistakes: Vec<Diagnostic>,
}

impl StepReader<'_> {
    fn read(mut self, file: &PipelineFile, defaults: &super::Defaults) -> (Option<Step>, Vec<Diagnostic>) {
        self.check_name();
        let mut frame = self.node.clone();
        // The checks are decoded one by one below; an entry that is no list is left for the decoder to refuse.
        let listed = matches!(frame.get("checks").map(|checks| &checks.value), Some(Value::List(_)));
        let checks = if listed { frame.take("checks") } else { None };
        let checks = match checks {
            Some(Node { value: Value::List(items), .. }) => items,
            _ => Vec::new(),
        };
        let (step, found) = decode_partly::<StepFile>(&frame);
        let is_readable = found.is_empty();
        self.mistakes.extend(found);
        let step = step.unwrap_or_default();
        let body = self.body(&step, is_readable, !checks.is_empty());
        let checks = self.checks(&checks);
        let kind = body.as_ref().map(StepBody::kind);
        if self.node.get("checks").is_some() && matches!(kind, Some(StepKind::WaitFor | StepKind::Command)) {
            self.complain(format!("`{}` has no rows, so it cannot have `checks`", self.name), None);
        }
        if step.max_rejects.is_some() && matches!(kind, Some(StepKind::WaitFor | StepKind::Command)) {
            self.complain(format!("`{}` has no rows, so it cannot have `max_rejects`", self.name), None);
        }
        if let (Some(_), Some(kind)) = (step.cache, kind.filter(|kind| kind.is_action())) {
            self.complain(format!("`cache` is for views, and `{}` is a {} step", self.name, kind.as_str()), None);
        }
        if step.units.is_some() && kind.is_some_and(|kind| kind != StepKind::Extract) {
            self.complain(format!("`units` goes with `extract`, and `{}` has none", self.name), None);
        }
        self.references(&step);
        let (fine, name) = (self.mistakes.is_empty(), StepName::from(self.name));
        let step = body.filter(|_| fine).map(|body| Step {
            name,
            after: step.after.0.iter().map(|name| StepName::from(name.as_str())).collect(),
            checks,
            cache: step.cache,
            retries: step.retries.or(file.retries).unwrap_or(defaults.retries),
            retry_delay: step.retry_delay.or(file.retry_delay).unwrap_or(defaults.retry_delay),
            timeout: step.timeout.or(file.timeout).or(defaults.timeout),
            max_rejects: step.max_rejects.or(file.max_rejects).or(defaults.max_rejects),
            description: step.description.clone(),
            place: self.place.clone(),
            body,
        });
        (step, self.mistakes)
    }

    fn complain(&mut self, message: String, hint: Option<String>) {
        self.mistakes.push(self.place.diagnostic(message, hint));
    }

    /// Whether something below the key `key` was written wrong.
    fn is_broken(&self, key: &str) -> bool {
        let node = self.node.get(key);
        node.is_some_and(|node| self.mistakes.iter().any(|mistake| node.holds(mistake)))
    }

    fn check_name(&mut self) {
        let fine = self.name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && self.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !fine {
            let hint = "use lower-case letters, digits and underscores: a step's name is its table name in SQL";
            self.complain(format!("`{}` cannot be a step name", self.name), Some(hint.to_owned()));
        }
    }

    fn body(&mut self, step: &StepFile, is_readable: bool, has_checks: bool) -> Option<StepBody> {
        let kinds = "one of `extract`, `sql`, `generate`, `load`, `check`, `wait_for`, `command`";
        let given: Vec<&str> = KINDS.into_iter().filter(|kind| self.node.get(kind).is_some()).collect();
        let kind = match given.as_slice() {
            [] => {
                // A key that nobody knows has been complained about, and may have been meant to say it.
                if is_readable {
                    self.complain(format!("the step does nothing; it needs {kinds}"), None);
                }
                return None;
            }
            [kind] => *kind,
            several => {
                let given: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
                self.complain(format!("the step is {} at once; a step is only {kinds}", given.join(" and ")), None);
                return None;
            }
        };
        let is_broken = self.is_broken(kind);
        let mut wrong: Vec<(String, Option<String>)> = Vec::new();
        let mut complain = |message: String, hint: Option<String>| wrong.push((message, hint));
        let body = if let Some(extract) = &step.extract {
            check_extract(extract, &mut complain);
            check_increment(extract, &mut complain);
            if extract.units.is_some() {
                complain("`units` stands beside `extract`, not in it".to_owned(), None);
            }
            for (message, hint) in step.units.iter().flat_map(super::UnitsSpec::mistakes) {
                complain(message, hint);
            }
            Some(StepBody::Extract(ExtractSpec { units: step.units.clone(), ..extract.clone() }))
        } else if let Some(SqlFile(sql)) = &step.sql {
            if sql.file.is_none() && sql.text.trim().is_empty() {
                complain("the query is empty".to_owned(), None);
            }
            Some(StepBody::Sql(SqlSpec { text: sql.text.clone(), file: sql.file.clone() }))
        } else if let Some(generate) = &step.generate {
            if generate.table.is_some() != generate.columns.is_empty() {
                complain("`generate` needs either `table` or `columns`".to_owned(), None);
            }
            Some(StepBody::Generate(generate.clone()))
        } else if let Some(load) = &step.load {
            let from = load.from.as_str();
            let is_of_many = self.extracts(from, "tables");
            check_target(load, is_of_many, &mut complain);
            for (message, hint) in load.mistakes(is_of_many || self.extracts(from, "table")) {
                complain(message, hint);
            }
            // Not among the mistakes of every load: a full refresh makes such a load of one that goes by its key.
            if !load.key.0.is_empty() && !load.strategy.goes_by_key() {
                let message = format!("`key` means nothing to `strategy: {}`", load.strategy.as_str());
                complain(message, Some("leave it out, or use `merge`, `delete+insert` or `scd2`".to_owned()));
            }
            Some(StepBody::Load(load.clone()))
        } else if let Some(from) = &step.check {
            if !has_checks {
                complain("a `check` step needs `checks`".to_owned(), None);
            }
            Some(StepBody::Check(CheckStep { from: from.clone() }))
        } else if let Some(wait_for) = &step.wait_for {
            Some(StepBody::WaitFor(wait_for.clone()))
        } else if let Some(CommandFile(command)) = &step.command {
            Some(StepBody::Command(CommandSpec { run: command.run.clone(), env: command.env.clone() }))
        } else {
            // `sql:` with nothing after it decodes to nothing.
            if !is_broken {
                complain(format!("`{kind}` is empty"), None);
            }
            None
        };
        if !is_broken {
            wrong.into_iter().for_each(|(message, hint)| self.complain(message, hint));
        }
        body
    }

    /// Whether the step `name` extracts what `key` names: `table`, one as it is, which may have a primary key, or `tables`.
    fn extracts(&self, name: &str, key: &str) -> bool {
        let step = self.known.steps.iter().find(|(known, _)| *known == name);
        step.and_then(|(_, node)| node.get("extract")).is_some_and(|extract| extract.get(key).is_some())
    }

    fn checks(&mut self, items: &[Node]) -> Vec<Check> {
        let mut checks: Vec<Check> = Vec::new();
        for item in items {
            let (check, found) = decode_partly::<CheckFile>(item);
            self.mistakes.extend(found.iter().cloned());
            let Some(check) = check.filter(|_| found.is_empty()) else { continue };
            match check.understand() {
                Ok(check) if checks.iter().any(|other| other.name == check.name) => {
                    self.mistakes.push(item.diagnostic(
                        format!("two checks of `{}` are named `{}`", self.name, check.name),
                        Some("give one of them a `name:`".to_owned()),
                    ));
                }
                Ok(check) => {
                    if let Some(other) = check.kind.reads() {
                        self.names_step(other, Some(item));
                    }
                    checks.push(check);
                }
                Err(message) => self.mistakes.push(item.diagnostic(message, None)),
            }
        }
        checks
    }

    /// The steps and connections that are named; read off the tree, so that another mistake beside them hides nothing.
    fn references(&mut self, step: &StepFile) {
        for name in &step.after.0 {
            self.names_step(name, self.node.get("after"));
        }
        let load = self.node.get("load");
        let read = load.and_then(|load| load.get("from")).or_else(|| self.node.get("check"));
        if let Some((node, from)) = read.and_then(|node| Some((node, node.text()?))) {
            self.names_step(from, Some(node));
            let source = self.known.steps.iter().find(|(name, _)| *name == from);
            let actions = ["load", "check", "wait_for", "command"];
            if source.is_some_and(|(_, source)| actions.iter().any(|kind| source.get(kind).is_some())) {
                self.mistakes.push(node.diagnostic(
                    format!("step `{}` reads `{from}`, which has no rows", self.name),
                    Some("name an extract, sql or generate step".to_owned()),
                ));
            }
        }
        let extract = self.node.get("extract");
        let connection =
            extract.and_then(|extract| extract.get("from")).into_iter().chain(load.and_then(|load| load.get("to")));
        for node in connection {
            let Some(name) = node.text() else { continue };
            if !self.known.connections.contains(&name) {
                self.mistakes.push(node.diagnostic(
                    format!("step `{}` names the connection `{name}`, which does not exist", self.name),
                    Some(one_of(name, self.known.connections.iter().copied())),
                ));
            }
        }
    }

    fn names_step(&mut self, other: &str, place: Option<&Node>) {
        if self.known.steps.iter().any(|(name, _)| *name == other) {
            return;
        }
        let message = format!("step `{}` names the step `{other}`, which does not exist", self.name);
        let hint =
            Some(one_of(other, self.known.steps.iter().map(|(name, _)| *name).filter(|name| *name != self.name)));
        self.mistakes.push(match place {
            Some(node) => node.diagnostic(message, hint),
            None => self.place.diagnostic(message, hint),
        });
    }
}
