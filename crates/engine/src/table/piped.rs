//! A checked or shared view as a table: its rows come out of a pipe.

use crate::expect::row_width;
use crate::pipe::{Pipe, PipeReader};
use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source::{DataSource, DataSourceExec};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};
use futures::TryStreamExt;
use std::fmt;
use std::sync::Arc;

/// The reading end of a pipe. Every scan is a reader of its own and gets every row once.
#[derive(Debug)]
pub(crate) struct PipedTable {
    pipe: Arc<Pipe>,
    /// What is to be expected, by the planner's estimate of what fills the pipe.
    expected: Statistics,
}

impl PipedTable {
    /// The reading end of `pipe`, which `producer` fills.
    pub(crate) fn new(pipe: Arc<Pipe>, producer: &dyn ExecutionPlan) -> Self {
        let estimate = StatisticsContext::new().compute(producer, &StatisticsArgs::new());
        let schema = pipe.schema();
        let expected = match estimate {
            Ok(found) => {
                // Checks may leave rows out, so nothing is exact. Their flags come after the view's own columns.
                let mut expected = found.as_ref().clone().to_inexact();
                expected.column_statistics.truncate(schema.fields().len());
                expected
            }
            Err(_) => Statistics::new_unknown(&schema),
        };
        tracing::debug!(view = pipe.name(), rows = ?expected.num_rows, "expected rows");
        Self { pipe, expected }
    }
}

#[async_trait]
impl TableProvider for PipedTable {
    fn schema(&self) -> SchemaRef {
        self.pipe.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.pipe.schema().project(columns)?),
            None => self.pipe.schema(),
        };
        let reader = Arc::new(self.pipe.reader());
        let columns = projection.cloned();
        Ok(DataSourceExec::from_data_source(Lanes {
            name: self.pipe.name().to_owned(),
            lanes: self.pipe.lanes(),
            reader,
            columns,
            schema,
            expected: self.expected.clone().project(projection),
        }))
    }
}

/// The lanes of a pipe as DataFusion's own leaf node. Unlike its streaming table, this leaf tells how many rows to expect,
/// by which joins choose the side to keep in memory.
#[derive(Debug)]
struct Lanes {
    name: String,
    lanes: usize,
    reader: Arc<PipeReader>,
    columns: Option<Vec<usize>>,
    schema: SchemaRef,
    expected: Statistics,
}

impl DataSource for Lanes {
    fn open(&self, partition: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let rows = PipeReader::stream(self.reader.clone(), partition);
        let Some(columns) = self.columns.clone() else { return Ok(rows) };
        let rows = rows.and_then(move |batch| std::future::ready(batch.project(&columns).map_err(Into::into)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows)))
    }

    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "view={}, lanes={}, projection=[{}]", self.name, self.lanes, columns.join(", "))
    }

    fn output_partitioning(&self) -> Partitioning {
        Partitioning::UnknownPartitioning(self.lanes)
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        EquivalenceProperties::new(self.schema.clone())
    }

    fn partition_statistics(&self, partition: Option<usize>) -> DfResult<Arc<Statistics>> {
        let share = if partition.is_some() { self.lanes.max(1) } else { 1 };
        let rows = self.expected.num_rows.map(|rows| rows / share);
        let width = row_width(&self.schema);
        Ok(Arc::new(Statistics {
            num_rows: rows,
            total_byte_size: rows.map(|rows| rows.saturating_mul(width)),
            column_statistics: self.expected.column_statistics.clone(),
        }))
    }

    fn with_fetch(&self, _: Option<usize>) -> Option<Arc<dyn DataSource>> {
        None
    }

    fn fetch(&self) -> Option<usize> {
        None
    }

    fn try_swapping_with_projection(&self, _: &ProjectionExprs) -> DfResult<Option<Arc<dyn DataSource>>> {
        Ok(None)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
}
