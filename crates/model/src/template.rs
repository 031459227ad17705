//! Templates: `{{ ds }}` and its kin, with Airflow's names.

use crate::{Error, ErrorKind, Interval, Result, RunId};
use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What stands for one of many tables.
const TABLE_NAMES: [&str; 2] = ["table", "schema"];

/// The values a template may use.
///
/// `ds`, `ds_nodash`, `ts`, `logical_date`, `data_interval_start`, `data_interval_end`, `prev_ds`,
/// `prev_data_interval_start`, `prev_data_interval_end`, `run_id`, `pipeline`, and the maps `params` and `var`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateContext {
    values: BTreeMap<String, String>,
    params: BTreeMap<String, String>,
    var: BTreeMap<String, String>,
}

impl TemplateContext {
    /// The context of one run.
    #[must_use]
    pub fn new(
        pipeline: &str,
        run: &RunId,
        interval: Interval,
        params: BTreeMap<String, String>,
        var: BTreeMap<String, String>,
    ) -> Self {
        let previous = interval.previous();
        let time = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, false);
        let values = [
            ("ds", interval.date().to_string()),
            ("ds_nodash", interval.date().format("%Y%m%d").to_string()),
            ("ts", time(interval.start)),
            ("logical_date", time(interval.start)),
            ("data_interval_start", time(interval.start)),
            ("data_interval_end", time(interval.end)),
            ("prev_ds", previous.date().to_string()),
            ("prev_data_interval_start", time(previous.start)),
            ("prev_data_interval_end", time(previous.end)),
            ("run_id", run.to_string()),
            ("pipeline", pipeline.to_owned()),
        ];
        Self { values: values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(), params, var }
    }

    /// The plain values (no maps) by name, as a command step gets them in its environment.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The parameters of the run (`--param k=v` over the pipeline's `params:`).
    #[must_use]
    pub fn params(&self) -> &BTreeMap<String, String> {
        &self.params
    }

    /// The same with the names of one table, for the loads of an extract with `tables`.
    #[must_use]
    pub fn with_table(&self, schema: &str, table: &str) -> Self {
        let mut context = self.clone();
        context.values.extend(
            TABLE_NAMES.into_iter().zip([table, schema]).map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        context
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str).chain(["params", "var"])
    }
}

/// Renders one text. Text without `{{`, `{%` or `{#` comes back as it is.
///
/// # Errors
/// A template that does not parse, or a name it does not know.
pub fn render_text(text: &str, context: &TemplateContext) -> Result<String> {
    if !is_template(text) {
        return Ok(text.to_owned());
    }
    let mut environment = minijinja::Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    let mut values: BTreeMap<&str, minijinja::Value> =
        context.values.iter().map(|(name, value)| (name.as_str(), minijinja::Value::from(value.as_str()))).collect();
    let params = context.params.iter().map(|(name, value)| (name.as_str(), typed(value)));
    values.insert("params", minijinja::Value::from_pairs(params));
    values.insert("var", map(&context.var));
    environment.render_str(text, values).map_err(|error| explain(text, &error, context))
}

/// Whether a template asks for the table's name, which is not known before the tables are. A text that is no template, or a
/// broken one, does not.
#[must_use]
pub fn names_a_table(text: &str) -> bool {
    let environment = minijinja::Environment::new();
    is_template(text)
        && environment
            .template_from_str(text)
            .is_ok_and(|template| template.undeclared_variables(false).contains(TABLE_NAMES[0]))
}

/// A parameter's value: a whole number where its text is how that is written, so that `params.n + 1` counts. It renders as
/// the text it was; truth values would not (`True`), so they stay text.
fn typed(text: &str) -> minijinja::Value {
    match text.parse::<i64>() {
        Ok(whole) if whole.to_string() == text => whole.into(),
        _ => text.into(),
    }
}

fn map(values: &BTreeMap<String, String>) -> minijinja::Value {
    minijinja::Value::from_pairs(values.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

fn explain(text: &str, error: &minijinja::Error, context: &TemplateContext) -> Error {
    let detail = error.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let line = error
        .line()
        .filter(|_| text.contains('\n'))
        .map(|line| format!(", line {line} of the text"))
        .unwrap_or_default();
    let base = Error::new(ErrorKind::Config, format!("cannot render the template: {}{detail}{line}", error.kind()));
    if error.kind() != minijinja::ErrorKind::UndefinedError {
        return base.hint("templates use Jinja's syntax, e.g. `{{ ds }}`");
    }
    // The engine does not name what is undefined; find the words of the template that nobody defines.
    let unknown = expressions(text).into_iter().find_map(|word| match word.split_once('.') {
        Some(("params", name)) if !context.params.contains_key(name) => {
            Some((word.clone(), format!("pass `--param {name}=…` or declare it under `params:`")))
        }
        Some(("var", name)) if !context.var.contains_key(name) => {
            Some((word.clone(), crate::one_of(name, context.var.keys().map(String::as_str))))
        }
        Some(_) => None,
        None if TABLE_NAMES.contains(&word.as_str()) => Some((
            word.clone(),
            "it is for `path` and `table` of a load that reads an extract with `tables`".to_owned(),
        )),
        None if !context.names().any(|name| name == word) => {
            Some((word.clone(), crate::one_of(&word, context.names())))
        }
        None => None,
    });
    match unknown {
        Some((word, hint)) => {
            Error::new(ErrorKind::Config, format!("the template uses `{word}`, which is not defined")).hint(hint)
        }
        None => base,
    }
}

/// The first dotted word of each `{{ … }}`.
fn expressions(text: &str) -> Vec<String> {
    text.split("{{")
        .skip(1)
        .filter_map(|rest| rest.split("}}").next())
        .map(|inside| inside.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '.').collect())
        .collect()
}

/// Whether rendering could change this text.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDate;

    fn context() -> TemplateContext {
        let interval = Interval::day(NaiveDate::from_ymd_opt(2024, 3, 1).unwrap());
        let params = BTreeMap::from([("region".to_owned(), "eu".to_owned())]);
        TemplateContext::new("sales", &RunId::from("r1"), interval, params, BTreeMap::new())
    }

    #[test]
    fn parameters_count_and_render_as_they_were_written() {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let params = BTreeMap::from([text("n", "3"), text("code", "007"), text("full", "false")]);
        let context = TemplateContext { params, ..context() };
        let rendered = render_text("{{ params.n + 1 }} {{ params.n }} {{ params.code }} {{ params.full }}", &context);
        assert_eq!(rendered.unwrap(), "4 3 007 false");
    }

    #[test]
    fn airflows_names_are_known() {
        let text = "{{ ds }} {{ ds_nodash }} {{ prev_ds }} {{ data_interval_end }} {{ params.region }} {{ run_id }}";
        assert_eq!(
            render_text(text, &context()).unwrap(),
            "2024-03-01 20240301 2024-02-29 2024-03-02T00:00:00+00:00 eu r1"
        );
    }

    #[test]
    fn a_table_has_a_name_where_one_is_given() {
        for (text, names) in [
            ("raw/{{ table }}", true),
            ("{{ table | upper }}", true),
            ("{% if table == 'x' %}y{% endif %}", true),
            ("{{ ds }}", false),
            ("table", false),
            ("{{ schema }}", false),
            ("{{ table", false),
        ] {
            assert_eq!(names_a_table(text), names, "{text}");
        }
        let context = context().with_table("public", "orders");
        assert_eq!(render_text("{{ schema }}/{{ table }}/{{ ds }}", &context).unwrap(), "public/orders/2024-03-01");
    }

    #[test]
    fn an_unknown_name_is_said_with_the_one_that_was_meant() {
        let error = render_text("{{ dss }}", &context()).unwrap_err();
        assert_eq!(error.message(), "the template uses `dss`, which is not defined");
        assert_eq!(error.hint_text(), Some("did you mean `ds`?"));
        let error = render_text("{{ params.nope }}", &context()).unwrap_err();
        assert!(error.hint_text().unwrap().contains("--param nope="));
    }
}
