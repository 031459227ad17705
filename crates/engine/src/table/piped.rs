//! A checked or shared view as a table: its rows come out of a pipe.

use crate::pipe::{Pipe, PipeReader};
use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use std::sync::Arc;

/// The reading end of a pipe. Every scan is a reader of its own and gets every row once.
#[derive(Debug)]
pub(crate) struct PipedTable {
    pub(crate) pipe: Arc<Pipe>,
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
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let reader = Arc::new(self.pipe.reader());
        let streams = (0..self.pipe.lanes())
            .map(|lane| -> Arc<dyn PartitionStream> {
                Arc::new(LaneStream { reader: reader.clone(), lane, schema: self.pipe.schema() })
            })
            .collect();
        Ok(Arc::new(StreamingTableExec::try_new(self.pipe.schema(), streams, projection, None, false, limit)?))
    }
}

#[derive(Debug)]
struct LaneStream {
    reader: Arc<PipeReader>,
    lane: usize,
    schema: SchemaRef,
}

impl PartitionStream for LaneStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        PipeReader::stream(self.reader.clone(), self.lane)
    }
}
