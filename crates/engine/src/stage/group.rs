//! Rows that belong together come to one writer, where the sink asks for it ([`Sink::grouping`]).

use crate::error::{from_datafusion, to_datafusion};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use gristmill_connect::{Grouping, Sink};
use gristmill_model::Result;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The rows of `input`, spread over as many partitions as it has, as `sink` wants them.
pub(super) fn grouped(input: Arc<dyn ExecutionPlan>, sink: &dyn Sink) -> Result<Arc<dyn ExecutionPlan>> {
    let writers = input.output_partitioning().partition_count();
    let Some(grouping) = sink.grouping(writers) else { return Ok(input) };
    let by = Partitioning::Hash(vec![Arc::new(Group(grouping))], writers);
    Ok(Arc::new(RepartitionExec::try_new(input, by).map_err(from_datafusion)?))
}

/// The number of a row's group.
struct Group(Grouping);

impl PhysicalExpr for Group {
    fn data_type(&self, _: &Schema) -> DataFusionResult<DataType> {
        Ok(DataType::Int64)
    }

    fn nullable(&self, _: &Schema) -> DataFusionResult<bool> {
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DataFusionResult<ColumnarValue> {
        (self.0)(batch).map(ColumnarValue::Array).map_err(to_datafusion)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn PhysicalExpr>>) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("partition")
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Group")
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("partition of the target")
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Group {}

impl Hash for Group {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::hash(Arc::as_ptr(&self.0), state);
    }
}
