//! `gristmill plan`: what a run would do: steps and what they wait for, tasks, units and why, physical plans.

use crate::args::PlanArgs;
use crate::exit::Outcome;
use crate::printer::{Printer, Table, Tone};
use crate::{context, local_engine};
use gristmill_model::spec::{PipelineSpec, StepBody};
use gristmill_model::yaml::to_error;
use gristmill_model::{
    CancellationToken, Error, ErrorKind, EventSink, Interval, Result, RunId, StepKind, StepName, TemplateContext,
};
use gristmill_orchestrator::dag::{Dag, RunPlan, StageGroup, TaskKind, many};
use gristmill_orchestrator::{Project, Spreading};
use std::collections::BTreeSet;

/// Plans.
pub(crate) async fn run(args: &PlanArgs, printer: &Printer) -> Result<Outcome> {
    let project = context::load(&args.pipeline.path, args.pipeline.profile.as_deref()).await?;
    let name = context::pipeline(&project, args.pipeline.pipeline.as_deref())?;
    let interval = context::interval(args.date, printer)?;
    let params = context::params(&args.pipeline.params);
    let (rendering, of) = (project.clone(), name.clone());
    let (pipeline, templates) =
        tokio::task::spawn_blocking(move || rendering.render(of.as_str(), &RunId::from("plan"), interval, &params))
            .await
            .map_err(|error| Error::internal("rendering the pipeline ended early").cause(error))??;
    let selection = args.step.as_deref().map(StepName::from);
    let options = context::engine_options(&project, None);
    let pipeline = spread(&project, options.clone(), pipeline, &templates, interval, selection.as_ref()).await?;
    let dag = Dag::new(&pipeline).map_err(|mistakes| to_error(&mistakes))?.knowing(&project.connections);
    let plan = dag.plan(selection.as_ref())?;
    let groups: Vec<&StageGroup> = plan
        .tasks
        .iter()
        .filter_map(|task| match &task.kind {
            TaskKind::Stage(group) => Some(group),
            _ => None,
        })
        .collect();
    if !printer.json() {
        printer.line(printer.paint(Tone::Strong, format!("{name} for {interval}")))?;
        graph(&pipeline, &dag).print(printer, "  ")?;
        printer.line("")?;
        tasks(printer, &plan)?;
    }
    // The graph is worth seeing even where a source cannot be asked.
    let explained = local_engine::explain(options, &pipeline, &templates, interval, &dag, &groups)
        .await
        .map_err(|error| not_there_yet(error, &pipeline))?;
    printer.line("")?;
    printer.line(explained.text.trim_end())?;
    if let Some(error) = explained.error {
        // One table of many; the others have been shown.
        return Err(error);
    }
    printer.document(&serde_json::json!({
        "pipeline": name,
        "interval": interval,
        "steps": dag.order().iter().map(|step| serde_json::json!({
            "step": step,
            "kind": dag.kind(step.as_str()),
            "reads": dag.reads(step.as_str()),
            "after": dag.after(step.as_str()),
        })).collect::<Vec<_>>(),
        "tasks": plan.tasks.iter().map(|task| serde_json::json!({
            "actions": task.actions(),
            "needs": task.needs,
            "commits_after": task.commits_after,
            "wave": task.wave,
        })).collect::<Vec<_>>(),
        "actions": explained.value,
    }))?;
    Ok(Outcome::Done)
}

/// The pipeline with one step for each table where it is about many.
async fn spread(
    project: &Project,
    options: local_engine::Options,
    pipeline: PipelineSpec,
    templates: &TemplateContext,
    interval: Interval,
    selection: Option<&StepName>,
) -> Result<PipelineSpec> {
    if many(&pipeline).next().is_none() {
        return Ok(pipeline);
    }
    let runner = local_engine::runner(options)?;
    let spreading = Spreading {
        project,
        runner: runner.as_ref(),
        run: &RunId::from("plan"),
        interval,
        context: templates,
        selection,
    };
    spreading.spread(pipeline, &EventSink::none(), &CancellationToken::new()).await
}

/// A pipeline that waits for others may read what only they make; that is no mistake, but there is nothing to plan on.
fn not_there_yet(error: Error, pipeline: &PipelineSpec) -> Error {
    let awaited: BTreeSet<&str> = pipeline
        .steps
        .iter()
        .filter_map(|step| match &step.body {
            StepBody::WaitFor(wait) => Some(wait.pipeline.as_str()),
            _ => None,
        })
        .collect();
    if error.kind() != ErrorKind::NotFound || awaited.is_empty() {
        return error;
    }
    let names: Vec<String> = awaited.iter().map(|name| format!("`{name}`")).collect();
    let old = error.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
    let hint = format!(
        "{old}what this pipeline waits for may not have run yet ({}): `gristmill run` runs it first",
        names.join(", ")
    );
    error.hint(hint)
}

/// Every step, what it is, what it reads and what it waits for.
fn graph(pipeline: &PipelineSpec, dag: &Dag) -> Table {
    let mut table = Table::new(&["step", "kind", "what", "reads", "after", "checks>"]);
    let names = |steps: Vec<&StepName>| steps.into_iter().map(StepName::as_str).collect::<Vec<_>>().join(", ");
    for name in dag.order() {
        let Some(step) = pipeline.step(name.as_str()) else { continue };
        let checks = if step.checks.is_empty() { String::new() } else { step.checks.len().to_string() };
        table.row([
            name.as_str().into(),
            dag.kind(name.as_str()).map_or("", StepKind::as_str).into(),
            what(&step.body).into(),
            names(dag.reads(name.as_str())).into(),
            names(dag.after(name.as_str())).into(),
            checks.into(),
        ]);
    }
    table
}

/// The other end of a step, in a few words.
fn what(body: &StepBody) -> String {
    match body {
        StepBody::Extract(extract) => {
            let of = match (&extract.table, &extract.path) {
                (Some(table), _) => table.clone(),
                (None, Some(path)) => path.0.join(", "),
                (None, None) => "query".to_owned(),
            };
            let filter = extract.filter.as_ref().map(|filter| format!(" where {filter}")).unwrap_or_default();
            format!("{}:{of}{filter}", extract.from)
        }
        StepBody::Sql(sql) => sql.file.clone().unwrap_or_default(),
        StepBody::Generate(generate) => format!("{} rows", crate::printer::number(generate.rows)),
        StepBody::Load(load) => {
            let of = load.table.as_ref().or(load.path.as_ref()).map_or("", String::as_str);
            format!("{}:{of} {}", load.to, load.strategy.as_str())
        }
        StepBody::Check(_) => String::new(),
        StepBody::WaitFor(wait) => {
            let step = wait.step.as_ref().map(|step| format!(".{step}")).unwrap_or_default();
            let date = wait.date.map(|date| format!(" for {date}")).unwrap_or_default();
            format!("{}{step}{date}", wait.pipeline)
        }
        StepBody::Command(command) => command.run.lines().next().unwrap_or_default().to_owned(),
    }
}

/// What is done together, and in which order.
fn tasks(printer: &Printer, plan: &RunPlan) -> Result<()> {
    for (at, task) in plan.tasks.iter().enumerate() {
        let mut line = format!("{}. ", at + 1);
        match &task.kind {
            TaskKind::Stage(group) => {
                let actions: Vec<&str> = group.actions.iter().map(StepName::as_str).collect();
                line.push_str(&format!("stage {}", actions.join(", ")));
                if !group.shared.is_empty() {
                    let shared: Vec<&str> = group.shared.iter().map(StepName::as_str).collect();
                    line.push_str(&format!(" in one pass (shared: {})", shared.join(", ")));
                }
            }
            TaskKind::Command(step) => line.push_str(&format!("run the command {step}")),
            TaskKind::WaitFor(step) => line.push_str(&format!("wait for {step}")),
        }
        if !task.needs.is_empty() {
            let needs: Vec<String> = task.needs.iter().map(|need| (need + 1).to_string()).collect();
            line.push_str(&format!(", after {}", needs.join(", ")));
        }
        if !task.commits_after.is_empty() {
            let others: Vec<String> = task.commits_after.iter().map(|other| (other + 1).to_string()).collect();
            line.push_str(&format!(", committed after {}", others.join(", ")));
        }
        printer.line(line)?;
    }
    Ok(())
}
