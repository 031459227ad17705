//! From a pipeline file to what runs: templates, SQL files, parameters.

use super::load::relative;
use super::{Draft, Project};
use chrono::NaiveDate;
use gristmill_model::spec::{PipelineSpec, StepBody};
use gristmill_model::yaml::{Diagnostic, Entry, Node, Value, to_error};
use gristmill_model::{
    ConnectionName, Error, ErrorKind, Interval, Result, RunId, StepName, TemplateContext, did_you_mean, names_a_table,
    one_of, render_text,
};
use std::collections::BTreeMap;
use std::path::Path;

impl Project {
    /// Renders a pipeline for one run: parameters over the file's defaults, templates in every scalar below `steps:`,
    /// SQL files read and rendered. Reads files and blocks meanwhile.
    ///
    /// # Errors
    /// No such pipeline, a parameter it does not have, and everything wrong in the file, each with its place.
    pub fn render(
        &self,
        pipeline: &str,
        run: &RunId,
        interval: Interval,
        params: &BTreeMap<String, String>,
    ) -> Result<(PipelineSpec, TemplateContext)> {
        let draft = self.pipeline(pipeline)?;
        let mut merged = draft.params.clone();
        for (name, value) in params {
            if !draft.params.contains_key(name) {
                let hint = if draft.params.is_empty() {
                    format!("declare it in `{}` under `params:`", draft.file)
                } else {
                    one_of(name, draft.params.keys().map(String::as_str))
                };
                let message = format!("the pipeline `{pipeline}` has no parameter `{name}`");
                return Err(Error::new(ErrorKind::Usage, message).hint(hint));
            }
            merged.insert(name.clone(), value.clone());
        }
        let context = TemplateContext::new(draft.name.as_str(), run, interval, merged, self.spec.vars.clone());
        match self.render_partly(draft, &context) {
            (Some(spec), mistakes) if mistakes.is_empty() => Ok((spec, context)),
            (_, mistakes) => Err(to_error(&mistakes)),
        }
    }

    /// The steps of a pipeline that can be understood, rendered for a sample day with the default parameters; what is
    /// wrong with the others is told by [`Project::validate`]. Reads SQL files and blocks meanwhile.
    #[must_use]
    pub fn sample(&self, draft: &Draft) -> Option<PipelineSpec> {
        self.render_partly(draft, &self.sample_context(draft)).0
    }

    pub(super) fn sample_context(&self, draft: &Draft) -> TemplateContext {
        let day = Interval::day(NaiveDate::from_ymd_opt(2024, 1, 1).unwrap_or_default());
        let vars = self.spec.vars.clone();
        TemplateContext::new(draft.name.as_str(), &RunId::from("sample"), day, draft.params.clone(), vars)
    }

    /// Renders what can be rendered: the steps without mistakes, and everything that is wrong with the others.
    pub(super) fn render_partly(
        &self,
        draft: &Draft,
        context: &TemplateContext,
    ) -> (Option<PipelineSpec>, Vec<Diagnostic>) {
        let mut node = match &draft.node {
            Ok(node) => node.clone(),
            Err(mistakes) => return (None, mistakes.clone()),
        };
        let mut mistakes = Vec::new();
        let of_many = loads_of_many(&node);
        if let Value::Map(entries) = &mut node.value {
            for entry in entries.iter_mut().filter(|entry| entry.key.text() == Some("steps")) {
                let set_aside = set_aside(&mut entry.value, &of_many, context, &mut mistakes);
                entry.value.render(context, &mut mistakes);
                put_back(&mut entry.value, set_aside);
            }
        }
        let connections: Vec<&str> = self.spec.connections.keys().map(ConnectionName::as_str).collect();
        let (spec, found) = PipelineSpec::from_node_partly(&node, &connections, &self.spec.defaults);
        let written = |step: &StepName| node.get("steps").and_then(|steps| steps.get(step.as_str()));
        let spec = spec.map(|mut spec| {
            // A step whose template failed still has the template's text where its value should be.
            spec.steps.retain(|step| {
                written(&step.name).is_none_or(|node| !mistakes.iter().any(|mistake| node.holds(mistake)))
            });
            spec
        });
        // A scalar whose template failed may look wrong to its reader too; that is said once.
        let places: Vec<(usize, usize)> = mistakes.iter().map(|known| (known.line, known.column)).collect();
        mistakes.extend(found.into_iter().filter(|new| !places.contains(&(new.line, new.column))));
        let Some(mut spec) = spec else { return (None, mistakes) };
        spec.steps.retain_mut(|step| {
            let StepBody::Sql(sql) = &mut step.body else { return true };
            let Some(file) = sql.file.clone() else { return true };
            match self.sql_file(draft, &file, context) {
                Ok(text) => {
                    sql.text = text;
                    true
                }
                Err((message, hint)) => {
                    let written = written(&step.name).and_then(|step| step.get("sql")).and_then(|sql| sql.get("file"));
                    mistakes.push(match written {
                        Some(written) => written.diagnostic(message, hint),
                        None => step.place.diagnostic(message, hint),
                    });
                    false
                }
            }
        });
        (Some(spec), mistakes)
    }

    fn sql_file(
        &self,
        draft: &Draft,
        file: &str,
        context: &TemplateContext,
    ) -> Result<String, (String, Option<String>)> {
        let beside = self.root.join(&draft.file);
        let path = beside.parent().unwrap_or(&self.root).join(file);
        let shown = relative(&self.root, &path);
        let text = std::fs::read(&path).map_err(|error| {
            if error.kind() != std::io::ErrorKind::NotFound {
                return (format!("the SQL file `{shown}` cannot be read: {error}"), None);
            }
            let files = sql_files_beside(&path);
            let wanted = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let hint = match did_you_mean(&wanted, files.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{}`?", with_file_name(file, near)),
                None => "the path is relative to the pipeline file".to_owned(),
            };
            (format!("the SQL file `{shown}` does not exist"), Some(hint))
        })?;
        let text = String::from_utf8(text).map_err(|_| (format!("the SQL file `{shown}` is not UTF-8 text"), None))?;
        if text.trim().is_empty() {
            return Err((format!("the SQL file `{shown}` is empty"), None));
        }
        render_text(&text, context)
            .map_err(|error| (format!("in `{shown}`: {}", error.message()), error.hint_text().map(str::to_owned)))
    }
}

/// The loads that stand for many, one for each table of the extract they read.
fn loads_of_many(node: &Node) -> Vec<String> {
    let steps = node.get("steps").map_or(&[][..], Node::entries);
    let of_many = |name: &str| {
        let step = steps.iter().find(|entry| entry.key.text() == Some(name));
        step.and_then(|entry| entry.value.get("extract")).is_some_and(|extract| extract.get("tables").is_some())
    };
    let loads = steps.iter().filter(|entry| {
        let from = entry.value.get("load").and_then(|load| load.get("from")).and_then(Node::text);
        from.is_some_and(of_many)
    });
    loads.filter_map(|entry| entry.key.text().map(str::to_owned)).collect()
}

/// Takes the targets that name a table out of their loads: they are rendered when the tables are known. They are tried with
/// a table now, so that a mistake in them is found like any other.
fn set_aside(
    steps: &mut Node,
    loads: &[String],
    context: &TemplateContext,
    mistakes: &mut Vec<Diagnostic>,
) -> Vec<(String, Entry)> {
    let sample = context.with_table("schema", "table");
    let mut found = Vec::new();
    let Value::Map(steps) = &mut steps.value else { return found };
    for step in steps {
        let Some(name) = step.key.text().filter(|name| loads.iter().any(|load| load == name)).map(str::to_owned) else {
            continue;
        };
        let Value::Map(keys) = &mut step.value.value else { continue };
        let Some(load) = keys.iter_mut().find(|entry| entry.key.text() == Some("load")) else { continue };
        let Value::Map(keys) = &mut load.value.value else { continue };
        let is_target = |entry: &Entry| {
            matches!(entry.key.text(), Some("path" | "table")) && entry.value.text().is_some_and(names_a_table)
        };
        while let Some(at) = keys.iter().position(is_target) {
            let entry = keys.remove(at);
            entry.value.clone().render(&sample, mistakes);
            found.push((name.clone(), entry));
        }
    }
    found
}

fn put_back(steps: &mut Node, set_aside: Vec<(String, Entry)>) {
    let Value::Map(steps) = &mut steps.value else { return };
    for (name, entry) in set_aside {
        let step = steps.iter_mut().find(|step| step.key.text() == Some(name.as_str()));
        let Some(Value::Map(keys)) = step.map(|step| &mut step.value.value) else { continue };
        let load = keys.iter_mut().find(|entry| entry.key.text() == Some("load"));
        if let Some(Value::Map(keys)) = load.map(|load| &mut load.value.value) {
            keys.push(entry);
        }
    }
}

fn sql_files_beside(path: &Path) -> Vec<String> {
    let Some(entries) = path.parent().and_then(|folder| std::fs::read_dir(folder).ok()) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.to_ascii_lowercase().ends_with(".sql"))
        .collect();
    names.sort();
    names
}

/// `file` with another last part, as it would be written in the pipeline file.
fn with_file_name(file: &str, name: &str) -> String {
    match file.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}"),
        None => name.to_owned(),
    }
}

/// The names of the steps of a pipeline file, without rendering it.
pub(super) fn step_names(node: &Node) -> Vec<&str> {
    node.get("steps").map_or(&[][..], Node::entries).iter().filter_map(|entry| entry.key.text()).collect()
}
