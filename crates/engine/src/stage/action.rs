//! One action of a group, planned: which key a load goes by, which generation it is, what its target gets.

use super::{Action, Pass, PlannedLoad};
use crate::dead_letters::DeadLetters;
use crate::error::from_datafusion;
use crate::exec::StageExec;
use crate::meter::Meter;
use crate::resolve::{Origin, Resolver, bare};
use crate::session::Engine;
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::logical_expr::cast;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::DataFrame;
use gristmill_connect::{LoadContext, Sink, SinkMode, with_comments_of};
use gristmill_model::spec::{DedupSpec, LoadSpec, OnFail, OneOrMany, Step, StepBody, Strategy};
use gristmill_model::{Error, ErrorKind, JobSpec, LoadKey, OwnerId, Result, ResultExt, StepName};
use std::sync::Arc;

pub(super) async fn plan_action(
    engine: &Arc<Engine>,
    job: &JobSpec,
    step: &Step,
    pass: Pass,
    resolver: &mut Resolver,
    letters: &Arc<DeadLetters>,
) -> Result<Action> {
    let meter = Meter::new(step.name.clone());
    let from = match &step.body {
        StepBody::Load(load) => &load.from,
        StepBody::Check(check) => &check.from,
        _ => return Err(Error::internal(format!("step `{}` stages nothing", step.name))),
    };
    resolver.view(from.as_str()).await?;
    // Checks on the action itself look at the rows just before they are staged.
    let table = if step.checks.is_empty() {
        from.clone()
    } else {
        let name = StepName::from(format!("__checked_{}", step.name));
        resolver.pipe(&name, from.as_str(), step, Meter::new(step.name.clone())).await?;
        name
    };
    let StepBody::Load(load) = &step.body else { return Ok(Action { step: step.clone(), meter, load: None }) };
    let key = job.loads.iter().find(|(name, _)| *name == step.name).map(|(_, key)| key.clone());
    let key = key.ok_or_else(|| Error::internal(format!("load `{}` has no key", step.name)))?;
    let source_key = source_key(load, resolver).await?;
    let table = one_row_a_key(step, load, &source_key, table, resolver).await?;
    let frame = resolver.session.table(bare(table.as_str())).await.map_err(from_datafusion)?;
    let frame = plain_types(frame)?;
    let input = frame.create_physical_plan().await.map_err(from_datafusion)?;
    let schema = input.schema();
    if schema.fields().is_empty() {
        return Err(Error::new(ErrorKind::Schema, format!("the rows of `{from}` have no columns"))
            .hint("select at least one column"));
    }
    // A table that the load makes is described as the one that it reads as it is.
    let schema = match origin(load, resolver) {
        Some(Origin::Extract(table)) => with_comments_of(&schema, &table.described),
        _ => schema,
    };
    let sink = open_sink(engine, job, load, &key, schema.clone(), source_key.clone())?;
    // Only who is going to load may ask the ledger and try whether the target can be written.
    let (free, held) = match pass {
        Pass::Explain => (None, false),
        _ => free_generation(job, step, load, &key, sink.as_ref()).await?,
    };
    let (key, sink) = match free {
        Some(free) => {
            let sink = open_sink(engine, job, load, &free, schema.clone(), source_key.clone())?;
            (free, sink)
        }
        None => (key, sink),
    };
    if load.on_bad_row != OnFail::Fail && !sink.tells_refused_rows() {
        let message = format!("`{}` cannot tell which rows it refuses, so `on_bad_row` must be `fail`", load.to);
        return Err(
            Error::new(ErrorKind::Config, message).hint("leave it out, and look at the rows before with `checks`")
        );
    }
    if pass != Pass::Explain {
        sink.prepare().await?;
    }
    let notes = if held { Vec::new() } else { sink.changes().await? };
    let input: Arc<dyn ExecutionPlan> = match sink.mode() {
        SinkMode::Single if input.output_partitioning().partition_count() > 1 => {
            Arc::new(CoalescePartitionsExec::new(input))
        }
        _ => input,
    };
    let input = super::group::grouped(input, sink.as_ref())?;
    let input = super::sort::sorted(input, load)?;
    let owner = OwnerId(job.run.clone());
    let plan = Arc::new(
        StageExec::new(input, sink.clone(), key.clone(), owner, pass.attempt(job.attempt), meter.clone())
            .collecting(engine.options.collect)
            .refusing(crate::rejects::refusing(load.on_bad_row, letters, &meter)),
    );
    Ok(Action {
        step: step.clone(),
        meter,
        load: Some(PlannedLoad { key, schema, sink, plan, source_key, held, notes }),
    })
}

/// The primary key of the table that a load reads as it is, where the load goes by it: a load that names its own key, or
/// needs none, has none of the source's.
async fn source_key(load: &LoadSpec, resolver: &Resolver) -> Result<Vec<String>> {
    let goes_by_it = match load.strategy {
        Strategy::DeleteInsert => load.scope.is_none(),
        Strategy::Merge | Strategy::Scd2 => true,
        Strategy::Append | Strategy::Replace | Strategy::TruncateInsert | Strategy::PartitionOverwrite => false,
    };
    if !goes_by_it || !load.key.0.is_empty() {
        return Ok(Vec::new());
    }
    match origin(load, resolver) {
        Some(Origin::Extract(table)) => table.source.key().await,
        _ => Ok(Vec::new()),
    }
}

/// Where the rows come from that a load reads as they are.
fn origin<'a>(load: &LoadSpec, resolver: &'a Resolver) -> Option<&'a Origin> {
    resolver.views.iter().find(|view| view.step == load.from).map(|view| &view.origin)
}

/// Where a load says which of several rows with one key counts: a table of only those, or else the one that is given.
async fn one_row_a_key(
    step: &Step,
    load: &LoadSpec,
    source_key: &[String],
    table: StepName,
    resolver: &Resolver,
) -> Result<StepName> {
    let Some(keep) = &load.dedup else { return Ok(table) };
    let key = if load.key.0.is_empty() { source_key.to_vec() } else { load.key.0.clone() };
    if key.is_empty() {
        // The sink says that a key is missing.
        return Ok(table);
    }
    let all = resolver.session.table(bare(table.as_str())).await.map_err(from_datafusion)?;
    let dedup = DedupSpec { key: OneOrMany(key), keep: keep.clone() };
    let query = crate::dedup::query(&dedup, table.as_str(), all.schema().as_arrow())?;
    let name = StepName::from(format!("__latest_{}", step.name));
    let view = resolver.session.sql(&query).await.map_err(from_datafusion)?.into_view();
    resolver.session.register_table(bare(name.as_str()), view).map_err(from_datafusion)?;
    Ok(name)
}

/// The store counts generations, but the target's ledger is what counts: where it already holds this one and nobody
/// is resuming it (the store was lost), the load takes the next free one. An append keeps whichever is there (another
/// profile may have loaded the same target), so that its commit finds it done: adding the rows once more would double
/// them. Also answers whether the target held the load before this run began.
async fn free_generation(
    job: &JobSpec,
    step: &Step,
    load: &LoadSpec,
    key: &LoadKey,
    sink: &dyn Sink,
) -> Result<(Option<LoadKey>, bool)> {
    let Some(last) = sink.last(&key.slot).await? else { return Ok((None, false)) };
    // An incremental load adds only what is new: a further generation doubles nothing.
    let is_incremental = job.cursors.iter().any(|(name, _)| *name == step.name);
    let takes_its_place = job.full_refresh && load.knows_its_rows();
    let append = load.strategy == Strategy::Append && !is_incremental && !takes_its_place;
    if job.resumed.contains(&step.name) && !append {
        return Ok((None, last.key.generation == key.generation));
    }
    if job.full_refresh && append {
        // A new generation of an append would stand beside the old one: every row twice.
        return Err(Error::new(
            ErrorKind::Config,
            format!("`{}` already holds these rows, and `append` cannot replace them", key.slot.target),
        )
        .hint("leave `--full-refresh` out, or use `strategy: delete+insert`, `partition_overwrite` or `replace`"));
    }
    if append {
        return Ok(((last.key != *key).then_some(last.key), true));
    }
    if last.key.generation < key.generation {
        return Ok((None, false));
    }
    Ok((Some(LoadKey { slot: key.slot.clone(), generation: last.key.generation + 1 }), false))
}

/// Whether a load is the only one of its pipeline, and nothing but rows and checks is waited for before it is committed: what a
/// target holds until then must be held neither for hours nor against a command that wants the table.
fn is_alone(job: &JobSpec) -> bool {
    let mut loads = 0;
    for step in &job.pipeline.steps {
        match &step.body {
            StepBody::Load(_) => loads += 1,
            StepBody::Command(_) | StepBody::WaitFor(_) => return false,
            StepBody::Extract(_) | StepBody::Sql(_) | StepBody::Generate(_) | StepBody::Check(_) => {}
        }
    }
    loads == 1
}

/// Opens the sink of a load.
pub(crate) fn open_sink(
    engine: &Engine,
    job: &JobSpec,
    load: &LoadSpec,
    key: &LoadKey,
    schema: SchemaRef,
    source_key: Vec<String>,
) -> Result<Arc<dyn Sink>> {
    let context = LoadContext {
        key: key.clone(),
        owner: OwnerId(job.run.clone()),
        schema,
        source_key,
        alone: is_alone(job),
        open: engine.open_context(),
        ledger_retention: engine.ledger_retention(),
    };
    let sink = engine.connection(&load.to)?.sink(load, context);
    sink.context(|| format!("connection `{}`", load.to))
}

/// Targets get the common types: views and dictionaries are ways to compute, not to store.
fn plain_types(frame: DataFrame) -> Result<DataFrame> {
    let schema = frame.schema().clone();
    let mut changed = false;
    let mut columns = Vec::new();
    for (qualifier, field) in schema.iter() {
        let column = datafusion::logical_expr::Expr::Column(datafusion::common::Column::new(
            qualifier.cloned(),
            field.name().as_str(),
        ));
        let plain = plain_type(field.data_type());
        if plain == *field.data_type() {
            columns.push(column);
        } else {
            changed = true;
            columns.push(cast(column, plain).alias(field.name()));
        }
    }
    if changed { frame.select(columns).map_err(from_datafusion) } else { Ok(frame) }
}

pub(crate) fn plain_type(data_type: &DataType) -> DataType {
    let inner = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        DataType::List(field) | DataType::ListView(field) => DataType::List(inner(field)),
        DataType::LargeList(field) | DataType::LargeListView(field) => DataType::LargeList(inner(field)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        other => other.clone(),
    }
}
