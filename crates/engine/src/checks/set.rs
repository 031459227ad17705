//! Set checks: `unique` reads the view once more, as one more reader of its pipe.

use super::row::{resolve, shown};
use super::sample::Sample;
use super::{SAMPLES, Tally};
use crate::error::from_datafusion;
use crate::resolve::bare;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionContext, col};
use futures::TryStreamExt;
use gristmill_model::Result;
use std::sync::Arc;

/// A uniqueness check, planned.
#[derive(Debug, Clone)]
pub(crate) struct Unique {
    pub(crate) tally: Arc<Tally>,
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    columns: Vec<String>,
}

/// Plans `unique(columns)` over a view: the values that occur more than once. It spills under a memory limit.
pub(crate) async fn unique_plan(
    session: &SessionContext,
    view: &str,
    columns: &[String],
    tally: Arc<Tally>,
) -> Result<Unique> {
    let mut frame = session.table(bare(view)).await.map_err(from_datafusion)?;
    let mut keys: Vec<Expr> = Vec::new();
    for column in columns {
        let (key, _) = resolve(frame.schema(), column)?;
        frame = frame.filter(key.clone().is_not_null()).map_err(from_datafusion)?;
        keys.push(key);
    }
    let plan = frame
        .aggregate(keys, vec![count(lit(1)).alias("__times")])
        .and_then(|frame| frame.filter(col("__times").gt(lit(1))))
        .map_err(from_datafusion)?;
    let plan = plan.create_physical_plan().await.map_err(from_datafusion)?;
    Ok(Unique { tally, plan, columns: columns.to_vec() })
}

impl Unique {
    /// Counts the values of one partition that occur more than once.
    pub(crate) async fn run(&self, session: &SessionContext, partition: usize) -> Result<()> {
        let mut stream = self.plan.execute(partition, session.task_ctx()).map_err(from_datafusion)?;
        while let Some(batch) = stream.try_next().await.map_err(from_datafusion)? {
            let keys = batch.num_columns().saturating_sub(1);
            let samples = (0..batch.num_rows().min(SAMPLES)).map(|row| {
                let values = (0..keys).map(|column| shown(batch.column(column), row)).collect();
                Sample::of_values(&self.columns, values)
            });
            self.tally.count(batch.num_rows() as u64, samples);
        }
        Ok(())
    }
}
