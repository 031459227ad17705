//! Stage: rows in, one manifest row out.

use crate::error::{from_datafusion, to_datafusion};
use crate::meter::{Meter, bytes_of};
use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::StreamExt;
use gristmill_connect::{RefusedRows, Rows, Sink};
use gristmill_model::fault::{self, Point};
use gristmill_model::{Error, LoadKey, OwnerId, TaskKey};
use std::fmt;
use std::sync::Arc;

/// The schema of what Stage yields: one row per partition, the serialized [`gristmill_model::Staged`].
#[must_use]
pub fn staged_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("staged", DataType::Utf8, false)]))
}

/// Makes, for a partition, what its refused rows are sent to.
pub(crate) type Refusing = dyn Fn(u32) -> RefusedRows + Send + Sync;

/// Hands the rows of each partition to the sink. Unary, keeps partitioning; publishes nothing.
pub struct StageExec {
    input: Arc<dyn ExecutionPlan>,
    sink: Arc<dyn Sink>,
    key: LoadKey,
    owner: OwnerId,
    attempt: u32,
    meter: Arc<Meter>,
    /// Read everything into memory first, as programs do that do not stream; only there to be compared with.
    collect: bool,
    /// Where rows go that the target refuses, for each partition.
    refusing: Option<Arc<Refusing>>,
    properties: Arc<PlanProperties>,
}

impl StageExec {
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        sink: Arc<dyn Sink>,
        key: LoadKey,
        owner: OwnerId,
        attempt: u32,
        meter: Arc<Meter>,
    ) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(staged_schema()),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        Self { input, sink, key, owner, attempt, meter, collect: false, refusing: None, properties }
    }

    /// Goes on without rows that the target refuses.
    pub(crate) fn refusing(mut self, refusing: Option<Arc<Refusing>>) -> Self {
        self.refusing = refusing;
        self
    }

    /// Whether all rows are read into memory before any is staged.
    pub(crate) fn collecting(mut self, collect: bool) -> Self {
        self.collect = collect;
        self
    }
}

impl fmt::Debug for StageExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageExec").field("key", &self.key).field("sink", &self.sink).finish_non_exhaustive()
    }
}

impl DisplayAs for StageExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StageExec: target={}", self.key.slot.target)
    }
}

impl ExecutionPlan for StageExec {
    fn name(&self) -> &'static str {
        "StageExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| DataFusionError::Internal("Stage needs its input".to_owned()))?;
        let stage =
            Self::new(input, self.sink.clone(), self.key.clone(), self.owner.clone(), self.attempt, self.meter.clone());
        Ok(Arc::new(stage.collecting(self.collect).refusing(self.refusing.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let sink = self.sink.clone();
        let meter = self.meter.clone();
        let task = TaskKey {
            load: self.key.clone(),
            owner: self.owner.clone(),
            partition: u32::try_from(partition).unwrap_or(u32::MAX),
            attempt: self.attempt,
        };
        let schema = input.schema();
        meter.touch();
        let counted = meter.clone();
        let rows = Rows::new(
            schema,
            input.map(move |batch| -> Result<RecordBatch, Error> {
                let batch = batch.map_err(from_datafusion)?;
                counted.add(batch.num_rows(), bytes_of(&batch));
                fault::at(Point::DuringStage)?;
                Ok(batch)
            }),
        );
        let collect = self.collect;
        let refused = self.refusing.as_ref().map(|refusing| refusing(task.partition));
        let manifest = async move {
            let rows = if collect {
                let schema = rows.schema();
                Rows::from_batches(schema, rows.collect().await.map_err(to_datafusion)?)
            } else {
                rows
            };
            let rows = rows.refusing(refused);
            fault::at(Point::BeforeStage).map_err(to_datafusion)?;
            let staged = sink.stage(&task, rows).await.map_err(to_datafusion)?;
            fault::at(Point::AfterStage).map_err(to_datafusion)?;
            meter.touch();
            let text = serde_json::to_string(&staged)
                .map_err(|error| to_datafusion(Error::internal(format!("a manifest cannot be encoded: {error}"))))?;
            Ok(RecordBatch::try_new(staged_schema(), vec![Arc::new(StringArray::from(vec![text]))])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(staged_schema(), futures::stream::once(manifest))))
    }
}
