//! What every source must do.

use super::{broken, must, same_rows, sorted_rows};
use crate::{ReadPlan, ReadRequest, Scan, Source};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use gristmill_model::spec::OnFail;
use gristmill_model::{Result, ResultExt, WorkUnit};
use std::sync::Arc;

/// Holds a source to its contract. `open` opens the same source again and again; its rows must not change meanwhile
/// and be small enough to be held in memory a few times. `rows` is how many there are, where the test knows it.
///
/// # Errors
/// The first rule that does not hold, or the first error of the source.
pub async fn source_suite(open: &(dyn Fn() -> Arc<dyn Source> + Send + Sync), rows: Option<usize>) -> Result<()> {
    let source = open();
    let schema = source.schema().await.context(|| "schema")?;
    must(open().schema().await? == schema, "the schema is the same when asked again", || format!("{schema:?}"))?;

    let plan = plan(source.as_ref(), None, 1).await?;
    let all = read_all(source.as_ref(), &plan, &schema).await?;
    let wanted = sorted_rows(&all)?;
    if let Some(rows) = rows {
        must(wanted.len() == rows, "all rows are read", || format!("wanted {rows}, got {}", wanted.len()))?;
    }

    units_are_disjoint_and_complete(open, &schema, &wanted).await?;
    a_unit_reads_the_same_twice(source.as_ref(), &plan, &schema).await?;
    batches_stay_within_their_size(source.as_ref(), &plan, &schema, &wanted).await?;
    projections_are_the_columns_of_the_whole(open, &schema, &all).await?;
    an_unknown_column_is_an_error(source.as_ref(), &schema).await?;
    a_reader_may_stop_early(source.as_ref(), &plan, &schema).await?;
    let again = sorted_rows(&read_all(source.as_ref(), &plan, &schema).await?)?;
    same_rows("the source still works after readers stopped early", &wanted, &again)
}

async fn plan(source: &dyn Source, columns: Option<Vec<String>>, parallelism: usize) -> Result<ReadPlan> {
    let plan = source.plan(&ReadRequest { columns, parallelism, ..ReadRequest::default() }).await.context(|| "plan")?;
    for (index, unit) in plan.units.iter().enumerate() {
        must(unit.ordinal as usize == index, "units are numbered from 0 in order", || format!("{unit:?}"))?;
    }
    must(!plan.why.is_empty(), "a plan says why it has these units", String::new)?;
    Ok(plan)
}

fn scan(schema: &SchemaRef, batch_size: usize) -> Scan {
    Scan { schema: schema.clone(), batch_size, on_bad_row: OnFail::Fail, rejects: None }
}

async fn read_unit(source: &dyn Source, unit: &WorkUnit, schema: &SchemaRef, size: usize) -> Result<Vec<RecordBatch>> {
    let mut rows = source.read(unit, &scan(schema, size));
    must(rows.schema() == *schema, "rows have the schema that was asked for", || format!("{:?}", rows.schema()))?;
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch.context(|| format!("unit {}", unit.label))?;
        must(batch.schema() == *schema, "batches have the schema that was asked for", || {
            format!("wanted {schema:?}, got {:?}", batch.schema())
        })?;
        must(batch.num_rows() <= size, "no batch is larger than the batch size", || batch.num_rows().to_string())?;
        batches.push(batch);
    }
    Ok(batches)
}

async fn read_all(source: &dyn Source, plan: &ReadPlan, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut all = Vec::new();
    for unit in &plan.units {
        all.extend(read_unit(source, unit, schema, 8192).await?);
    }
    Ok(all)
}

async fn units_are_disjoint_and_complete(
    open: &(dyn Fn() -> Arc<dyn Source> + Send + Sync),
    schema: &SchemaRef,
    wanted: &[String],
) -> Result<()> {
    for parallelism in [2, 7] {
        let planner = open();
        let plan = plan(planner.as_ref(), None, parallelism).await?;
        let mut all = Vec::new();
        for unit in &plan.units {
            // Units are plain data: another opening of the source reads what this one planned.
            let text = serde_json::to_string(unit).map_err(|error| broken("units are plain data", error))?;
            let unit: WorkUnit = serde_json::from_str(&text).map_err(|error| broken("units are plain data", error))?;
            all.extend(read_unit(open().as_ref(), &unit, schema, 1000).await?);
        }
        same_rows("units are disjoint and their union is the whole", wanted, &sorted_rows(&all)?)?;
    }
    Ok(())
}

async fn a_unit_reads_the_same_twice(source: &dyn Source, plan: &ReadPlan, schema: &SchemaRef) -> Result<()> {
    for unit in &plan.units {
        let first = sorted_rows(&read_unit(source, unit, schema, 8192).await?)?;
        let second = sorted_rows(&read_unit(source, unit, schema, 100).await?)?;
        same_rows("reading a unit twice gives the same rows", &first, &second)?;
    }
    Ok(())
}

async fn batches_stay_within_their_size(
    source: &dyn Source,
    plan: &ReadPlan,
    schema: &SchemaRef,
    wanted: &[String],
) -> Result<()> {
    let mut all = Vec::new();
    for unit in &plan.units {
        all.extend(read_unit(source, unit, schema, 3).await?);
    }
    same_rows("small batches hold the same rows", wanted, &sorted_rows(&all)?)
}

async fn projections_are_the_columns_of_the_whole(
    open: &(dyn Fn() -> Arc<dyn Source> + Send + Sync),
    schema: &SchemaRef,
    all: &[RecordBatch],
) -> Result<()> {
    let whole = concat_batches(schema, all).map_err(|error| broken("batches are of one schema", error))?;
    let width = schema.fields().len();
    let mut choices: Vec<Vec<usize>> = (0..width).map(|column| vec![column]).collect();
    choices.push((0..width).rev().collect());
    choices.push(Vec::new());
    for choice in choices {
        let wanted = whole.project(&choice).map_err(|error| broken("a projection is possible", error))?;
        let names: Vec<String> = wanted.schema().fields().iter().map(|field| field.name().clone()).collect();
        let source = open();
        let plan = plan(source.as_ref(), Some(names.clone()), 2).await?;
        let got = read_all(source.as_ref(), &plan, &wanted.schema()).await?;
        let rule = format!("the columns {names:?} alone hold the same values");
        same_rows(&rule, &sorted_rows(&[wanted])?, &sorted_rows(&got)?)?;
    }
    Ok(())
}

async fn an_unknown_column_is_an_error(source: &dyn Source, schema: &SchemaRef) -> Result<()> {
    let missing = "no_such_column_anywhere";
    let rule = "an unknown column is an error that names it";
    let names = |error: &gristmill_model::Error| error.to_string().contains(missing);
    let want = ReadRequest { columns: Some(vec![missing.to_owned()]), parallelism: 2, ..ReadRequest::default() };
    if let Err(error) = source.plan(&want).await {
        return must(names(&error), rule, || error.to_string());
    }
    // Planning may leave it to the reader.
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(missing, DataType::Utf8, true)));
    let wider: SchemaRef = Arc::new(Schema::new(fields));
    let plan = plan(source, None, 1).await?;
    for unit in &plan.units {
        match source.read(unit, &scan(&wider, 100)).collect().await {
            Ok(_) => return Err(broken(rule, "neither `plan` nor `read` minded")),
            Err(error) => must(names(&error), rule, || error.to_string())?,
        }
    }
    Ok(())
}

async fn a_reader_may_stop_early(source: &dyn Source, plan: &ReadPlan, schema: &SchemaRef) -> Result<()> {
    for unit in &plan.units {
        drop(source.read(unit, &scan(schema, 2)));
        let mut rows = source.read(unit, &scan(schema, 2));
        let first: Option<ArrayRef> = rows.next().await.transpose()?.and_then(|batch| batch.columns().first().cloned());
        drop((rows, first));
    }
    Ok(())
}
