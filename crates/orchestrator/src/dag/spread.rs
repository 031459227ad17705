//! Many tables: in place of an extract with `tables`, and of every load and check that reads it, one step for each table.
//! Pure; which tables there are is asked before (`drive/tables.rs`).
//!
//! Each table's load has a slot, a generation and a cursor of its own, since slots are told apart by step and target. A step
//! of one table is named after both: `load_raw[public.orders]`.

use gristmill_model::spec::{
    CheckKind, ExtractSpec, FoundTable, LoadSpec, PipelineSpec, Step, StepBody, Strategy, path_safe,
};
use gristmill_model::yaml::Diagnostic;
use gristmill_model::{
    ConnectionName, Error, ErrorKind, Result, ResultExt, Slot, StepName, TemplateContext, render_text,
};
use std::collections::BTreeMap;

/// The tables of each extract that stands for many.
pub type Found = [(StepName, Vec<FoundTable>)];

/// The extracts of a pipeline that stand for many tables.
pub fn many(spec: &PipelineSpec) -> impl Iterator<Item = &Step> {
    spec.steps.iter().filter(|step| is_many(step))
}

fn is_many(step: &Step) -> bool {
    matches!(&step.body, StepBody::Extract(extract) if extract.tables.is_some())
}

/// What an action reads.
fn source_of(body: &StepBody) -> Option<&StepName> {
    match body {
        StepBody::Load(load) => Some(&load.from),
        StepBody::Check(check) => Some(&check.from),
        _ => None,
    }
}

/// Puts one step for each table in place of each step that stands for many. `folds` says of a connection whether names of
/// its tables differ in more than upper and lower case.
///
/// # Errors
/// Two tables with the same target; a template that cannot be rendered.
pub fn spread(
    spec: PipelineSpec,
    found: &Found,
    context: &TemplateContext,
    folds: &dyn Fn(&ConnectionName) -> bool,
) -> Result<PipelineSpec> {
    let tables_of = |name: &StepName| found.iter().find(|(step, _)| step == name).map(|(_, tables)| tables.as_slice());
    // What each written step has become, for those that come after it.
    let mut members: BTreeMap<StepName, Vec<StepName>> = BTreeMap::new();
    let extracts: BTreeMap<StepName, ExtractSpec> = many(&spec)
        .filter_map(|step| match &step.body {
            StepBody::Extract(extract) => Some((step.name.clone(), extract.clone())),
            _ => None,
        })
        .collect();
    let mut steps = Vec::new();
    for step in spec.steps {
        let origin = if is_many(&step) { Some(&step.name) } else { source_of(&step.body) };
        let Some((extract, tables)) = origin.and_then(|origin| Some((extracts.get(origin)?, tables_of(origin)?)))
        else {
            steps.push(step);
            continue;
        };
        let names = tables.iter().map(|table| step.name.member(&table.label())).collect();
        members.insert(step.name.clone(), names);
        let mut targets: BTreeMap<String, &FoundTable> = BTreeMap::new();
        for table in tables {
            let member = member(&step, extract, table, context).context(|| format!("step `{}`", step.name))?;
            if let StepBody::Load(load) = &member.body {
                let target = super::target(load);
                let key = if folds(&load.to) { target.to_lowercase() } else { target.clone() };
                if let Some(other) = targets.insert(key, table) {
                    return Err(same_target(&step, &target, other, table));
                }
            }
            steps.push(member);
        }
    }
    for step in &mut steps {
        step.after = step
            .after
            .iter()
            .flat_map(|name| members.get(name).cloned().unwrap_or_else(|| vec![name.clone()]))
            .collect();
    }
    Ok(PipelineSpec { steps, ..spec })
}

fn same_target(step: &Step, target: &str, one: &FoundTable, other: &FoundTable) -> Error {
    let (one, other) = (one.label(), other.label());
    Error::new(ErrorKind::Config, format!("the tables `{one}` and `{other}` would both be loaded into `{target}`"))
        .hint("name more of the table in the target, e.g. `{{ schema }}_{{ table }}`, or leave one out with `exclude`")
        .context(format!("step `{}`", step.name))
}

/// The step of one table.
fn member(step: &Step, extract: &ExtractSpec, table: &FoundTable, context: &TemplateContext) -> Result<Step> {
    let name = step.name.member(&table.label());
    let grows = extract.incremental_key.as_ref().is_some_and(|column| table.columns.contains(column));
    let body = match &step.body {
        StepBody::Extract(extract) => StepBody::Extract(one_table(extract, table, grows)),
        StepBody::Load(load) => {
            let mut load = load.clone();
            load.from = load.from.member(&table.label());
            // A table's name is one part of a path, whatever is in it.
            let in_path = context.with_table(&path_safe(table.schema_name()), &path_safe(&table.name));
            let in_name = context.with_table(table.schema_name(), &table.name);
            let render = |text: Option<String>, context: &TemplateContext| {
                text.map(|text| render_text(&text, context)).transpose()
            };
            (load.path, load.table) = (render(load.path, &in_path)?, render(load.table, &in_name)?);
            if extract.incremental_key.is_some() && !grows {
                // Nothing tells its new rows from the old ones, so it is read whole and takes the place of what was loaded.
                (load.strategy, load.key.0) = (Strategy::Replace, Vec::new());
            }
            if load.strategy == Strategy::DeleteInsert && load.key.0.is_empty() && load.scope.is_none() {
                // Where it has none, the target refuses this load, and no other.
                load.key.0.clone_from(&table.key);
            }
            StepBody::Load(load)
        }
        StepBody::Check(check) => {
            let mut check = check.clone();
            check.from = check.from.member(&table.label());
            StepBody::Check(check)
        }
        other => other.clone(),
    };
    Ok(Step { name, body, ..step.clone() })
}

fn one_table(extract: &ExtractSpec, table: &FoundTable, grows: bool) -> ExtractSpec {
    let mut one = ExtractSpec { table: Some(table.reference.clone()), tables: None, exclude: None, ..extract.clone() };
    if !grows {
        (one.incremental_key, one.lag, one.on_cursor_missing) = (None, None, None);
        one.schema_contract = gristmill_model::spec::SchemaContract::Evolve;
    }
    one
}

/// The load of one table as it was, for whoever finishes what a dead run left: the tables there were are told by the slots
/// of their loads. `decided` is the load that was about to be published.
pub(crate) fn left_behind(spec: &PipelineSpec, slot: &Slot, decided: Option<&LoadSpec>) -> Option<Step> {
    let (written, label) = slot.step.family()?;
    let step = spec.step(written)?;
    let StepBody::Load(load) = &step.body else { return None };
    if !many(spec).any(|extract| extract.name == load.from) {
        return None;
    }
    let place = slot.target.strip_prefix(load.to.as_str())?.strip_prefix(':')?.to_owned();
    let mut one = load.clone();
    one.from = load.from.member(label);
    (one.table, one.path) = if load.table.is_some() { (Some(place), None) } else { (None, Some(place)) };
    if let Some(decided) = decided {
        // These two were told by the table, too.
        (one.strategy, one.key) = (decided.strategy, decided.key.clone());
    }
    Some(Step { name: slot.step.clone(), body: StepBody::Load(one), ..step.clone() })
}

/// What cannot be said of many tables.
pub(super) fn mistakes(spec: &PipelineSpec) -> Vec<Diagnostic> {
    let mut mistakes = Vec::new();
    let is_of_many = |name: &str| many(spec).any(|extract| extract.name.as_str() == name);
    for step in &spec.steps {
        let own = is_many(step) || source_of(&step.body).is_some_and(|from| is_of_many(from.as_str()));
        for check in &step.checks {
            let CheckKind::Relationships { .. } = &check.kind else { continue };
            if own || check.kind.reads().is_some_and(is_of_many) {
                mistakes.push(step.place.diagnostic(
                    format!("the check `{}` of `{}` relates many tables", check.name, step.name),
                    Some("extract the tables that it is about in steps of their own".to_owned()),
                ));
            }
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_model::spec::Defaults;
    use gristmill_model::yaml::parse;
    use gristmill_model::{Interval, RunId};

    fn table(schema: &str, name: &str, columns: &[&str]) -> FoundTable {
        FoundTable {
            schema: Some(schema.to_owned()),
            name: name.to_owned(),
            reference: format!("{schema}.\"{name}\""),
            is_own: true,
            is_view: false,
            key: vec!["id".to_owned()],
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        }
    }

    fn spec(extract: &str, load: &str) -> PipelineSpec {
        let text = format!(
            "steps:\n  all: {{extract: {{from: db, {extract}}}}}\n  out: {{load: {{from: all, to: lake, {load}}}}}\n  \
             look: {{check: all, checks: [{{row_count: {{min: 1}}}}]}}\n  done: {{command: ls, after: [out, look]}}\n"
        );
        PipelineSpec::from_node(&parse("p.yaml", &text).unwrap(), &["db", "lake"], &Defaults::default()).unwrap()
    }

    fn spread_of(spec: PipelineSpec, tables: Vec<FoundTable>, folds: bool) -> Result<PipelineSpec> {
        let day = Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap());
        let context = TemplateContext::new("p", &RunId::from("r"), day, BTreeMap::new(), BTreeMap::new());
        spread(spec, &[("all".into(), tables)], &context, &|_| folds)
    }

    fn load<'a>(spec: &'a PipelineSpec, name: &str) -> &'a LoadSpec {
        let StepBody::Load(load) = &spec.step(name).unwrap().body else { panic!("a load") };
        load
    }

    #[test]
    fn each_table_has_steps_of_its_own() {
        let written = spec("tables: \"*\"", "path: \"{{ ds }}/{{ schema }}/{{ table }}/\", strategy: replace");
        let spread = spread_of(written, vec![table("public", "a", &[]), table("public", "b/c d", &[])], false).unwrap();
        let names: Vec<&str> = spread.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "all[public.a]",
                "all[public.b%2Fc%20d]",
                "out[public.a]",
                "out[public.b%2Fc%20d]",
                "look[public.a]",
                "look[public.b%2Fc%20d]",
                "done"
            ]
        );
        let out = load(&spread, "out[public.b%2Fc%20d]");
        assert_eq!(out.path.as_deref(), Some("2024-01-15/public/b%2Fc%20d/"));
        assert_eq!(out.from.as_str(), "all[public.b%2Fc%20d]");
        let StepBody::Extract(extract) = &spread.steps[1].body else { panic!("an extract") };
        assert_eq!((extract.table.as_deref(), &extract.tables), (Some("public.\"b/c d\""), &None));
        let after: Vec<&str> = spread.steps[6].after.iter().map(StepName::as_str).collect();
        assert_eq!(after, [names[2], names[3], names[4], names[5]]);
        let dag = super::super::Dag::new(&spread).unwrap();
        let plan = dag.plan(None).unwrap();
        let alone: Vec<bool> = plan.tasks.iter().map(|task| task.alone).collect();
        assert_eq!(alone, [true, true, false]);
        // A step as it is written stands for all of its tables.
        assert_eq!(dag.plan(Some(&"out".into())).unwrap().tasks.len(), 2);
        assert_eq!(dag.plan(Some(&"out[public.a]".into())).unwrap().tasks.len(), 1);
    }

    #[test]
    fn only_tables_that_have_the_column_are_incremental() {
        let written =
            spec("tables: \"*\", incremental_key: at, lag: 2h", "table: \"raw.{{ table }}\", strategy: delete+insert");
        let spread = spread_of(written, vec![table("s", "a", &["id", "at"]), table("s", "b", &["id"])], false).unwrap();
        let (grows, whole) = (load(&spread, "out[s.a]"), load(&spread, "out[s.b]"));
        assert_eq!((grows.strategy, grows.key.0.as_slice()), (Strategy::DeleteInsert, &["id".to_owned()][..]));
        assert_eq!((whole.strategy, whole.key.0.len()), (Strategy::Replace, 0));
        let dag = super::super::Dag::new(&spread).unwrap();
        assert_eq!(dag.cursors(&spread, "out[s.a]").len(), 1);
        assert!(dag.cursors(&spread, "out[s.b]").is_empty());
    }

    #[test]
    fn two_tables_never_have_one_target() {
        let written = || spec("tables: \"*\"", "table: \"raw.{{ table }}\", strategy: replace");
        let same = vec![table("a", "t", &[]), table("b", "t", &[])];
        let error = spread_of(written(), same, false).unwrap_err();
        assert_eq!(error.message(), "the tables `a.t` and `b.t` would both be loaded into `lake:raw.t`");
        let cases = || vec![table("a", "t", &[]), table("a", "T", &[])];
        assert!(spread_of(written(), cases(), false).is_ok());
        assert!(spread_of(written(), cases(), true).is_err());
    }

    #[test]
    fn a_load_that_was_left_behind_is_known_by_its_slot() {
        let written = spec("tables: \"*\"", "path: \"raw/{{ table }}\", strategy: append");
        let day = Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap());
        let slot = |step: &str, target: &str| Slot {
            pipeline: "p".into(),
            step: step.into(),
            interval: day,
            target: target.to_owned(),
        };
        let spread = spread_of(written.clone(), vec![table("public", "a", &[])], false).unwrap();
        let decided = load(&spread, "out[public.a]");
        let left = left_behind(&written, &slot("out[public.a]", "lake:raw/a"), Some(decided)).unwrap();
        assert_eq!(left.body, StepBody::Load(decided.clone()));
        assert!(left_behind(&written, &slot("other[public.a]", "lake:raw/a"), None).is_none());
        assert!(left_behind(&written, &slot("out[public.a]", "db:raw/a"), None).is_none());
        assert!(left_behind(&written, &slot("out", "lake:raw/a"), None).is_none());
    }
}
