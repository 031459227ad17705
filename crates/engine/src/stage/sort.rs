//! `sort_by`: each writer's rows in order, so that every file of it is.

use crate::error::from_datafusion;
use datafusion::arrow::compute::SortOptions;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use gristmill_model::spec::{LoadSpec, SortBy};
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;

/// The rows of `input`, those of each partition sorted as `load` says. The sort is DataFusion's: it keeps to the memory of
/// the process and goes to disk beyond.
///
/// # Errors
/// A column that is not there, or an order that cannot be understood.
pub(super) fn sorted(input: Arc<dyn ExecutionPlan>, load: &LoadSpec) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = input.schema();
    let mut order = Vec::with_capacity(load.sort_by.0.len());
    for text in &load.sort_by.0 {
        let by = SortBy::parse(text).map_err(|(message, hint)| Error::new(ErrorKind::Config, message).hint(hint))?;
        let column = Column::new_with_schema(&by.column, &schema).map_err(from_datafusion)?;
        let options = SortOptions { descending: by.descending, nulls_first: by.nulls_first };
        order.push(PhysicalSortExpr::new(Arc::new(column), options));
    }
    match LexOrdering::new(order) {
        None => Ok(input),
        Some(order) => Ok(Arc::new(SortExec::new(order, input).with_preserve_partitioning(true))),
    }
}
