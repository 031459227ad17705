//! Extract: unit rows in, the units' rows out.

use super::queue::UnitQueue;
use crate::error::{from_datafusion, in_step, to_datafusion};
use crate::expect::row_width;
use crate::increment::{Contract, Progress};
use crate::meter::{Meter, bytes_of};
use datafusion::arrow::array::{Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::TryStreamExt;
use futures::stream::try_unfold;
use gristmill_connect::{Pin, Scan, Source, SourceStats};
use gristmill_model::{ConnectionName, Error, WorkUnit};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The schema of the leaf: one row per unit, the unit as JSON.
pub(crate) fn units_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("unit", DataType::Utf8, false)]))
}

/// The in-memory leaf: `lanes` partitions that share the units, the largest first, each to the lane with the least work.
///
/// It has to be DataFusion's own in-memory source: a cluster narrows that one per task, and would read any other
/// multi-partition leaf in full in every task.
pub(crate) fn leaf(units: &[WorkUnit], lanes: usize) -> DfResult<Arc<dyn ExecutionPlan>> {
    let lanes = lanes.clamp(1, units.len().max(1));
    let mut order: Vec<&WorkUnit> = units.iter().collect();
    let weight = |unit: &WorkUnit| unit.bytes.or(unit.rows).unwrap_or(1).max(1);
    order.sort_by_key(|unit| std::cmp::Reverse(weight(unit)));
    let mut shares: Vec<(u64, Vec<&WorkUnit>)> = vec![(0, Vec::new()); lanes];
    for unit in order {
        if let Some(share) = shares.iter_mut().min_by_key(|share| share.0) {
            share.0 = share.0.saturating_add(weight(unit));
            share.1.push(unit);
        }
    }
    let schema = units_schema();
    let mut partitions = Vec::with_capacity(lanes);
    for (_, mut share) in shares {
        share.sort_by_key(|unit| unit.ordinal);
        let texts: Vec<String> = share
            .into_iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()
            .map_err(|error| to_datafusion(Error::internal(format!("a work unit cannot be encoded: {error}"))))?;
        partitions.push(vec![RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(texts))])?]);
    }
    let source: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&partitions, schema, None)?;
    Ok(source)
}

/// What rows of an incremental extract go through.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// None where nothing of a row says whether it is new, as of files.
    pub(crate) progress: Option<Arc<Progress>>,
    /// What is left out of them first.
    pub(crate) contract: Option<Arc<Contract>>,
    /// Of the rows that are left.
    pub(crate) schema: SchemaRef,
    /// Only so many columns, the first ones, were asked for; the others are for the gate alone.
    pub(crate) asked: Option<usize>,
}

impl Gate {
    /// Counts the rows that do not fit their contract as rejects.
    fn pass(&self, mut batch: RecordBatch, meter: &Meter) -> DfResult<RecordBatch> {
        if let Some(contract) = &self.contract {
            let (fitted, dropped) = contract.apply(&batch, &self.schema).map_err(to_datafusion)?;
            meter.reject(dropped);
            batch = fitted;
        }
        if let Some(progress) = &self.progress {
            batch = progress.pass(batch).map_err(to_datafusion)?;
        }
        match self.asked {
            Some(asked) => Ok(batch.project(&(0..asked).collect::<Vec<_>>())?),
            None => Ok(batch),
        }
    }
}

/// Reads the units that come in as rows. Unary, keeps partitioning: a partition reads units one after the other, so it
/// never holds more than one of them open. Partitions of one node that have read their own units help each other: which of
/// them gives which rows is not fixed, but all of them together give each row once.
#[derive(Debug)]
pub struct ExtractExec {
    input: Arc<dyn ExecutionPlan>,
    connection: ConnectionName,
    source: Arc<dyn Source>,
    scan: Scan,
    stats: SourceStats,
    meter: Arc<Meter>,
    /// Keeps the picture alive that the units are read from.
    pin: Option<Pin>,
    gate: Option<Gate>,
    /// Of the rows that come out.
    schema: SchemaRef,
    queues: Arc<Mutex<Queues>>,
    properties: Arc<PlanProperties>,
}

/// The queues of a node: one for each time that it was executed as a whole.
#[derive(Debug, Default)]
struct Queues {
    /// How often each partition was executed.
    executed: Vec<usize>,
    queues: Vec<Arc<UnitQueue>>,
}

impl Queues {
    /// The queue that a partition shares with the others; another one when it is executed once more.
    fn next(&mut self, partition: usize, partitions: usize) -> Arc<UnitQueue> {
        self.executed.resize(partitions.max(partition + 1), 0);
        let round = self.executed[partition];
        self.executed[partition] += 1;
        while self.queues.len() <= round {
            self.queues.push(UnitQueue::new(partitions));
        }
        self.queues[round].clone()
    }
}

/// One partition at work.
struct Lane {
    number: usize,
    /// The units of its own, until they are in the queue.
    units: Option<SendableRecordBatchStream>,
    queue: Arc<UnitQueue>,
    source: Arc<dyn Source>,
    scan: Scan,
    meter: Arc<Meter>,
    /// The stream may outlive the node.
    _pin: Option<Pin>,
}

impl Lane {
    /// The unit to be read next; none when there is nothing left for this lane.
    async fn next(&mut self) -> DfResult<Option<WorkUnit>> {
        if let Some(mut units) = self.units.take() {
            while let Some(batch) = units.try_next().await? {
                self.queue.add(self.number, decode_units(&batch).map_err(to_datafusion)?);
            }
        }
        let Some(mut claim) = self.queue.claim(self.number).await else { return Ok(None) };
        if let Some(most) = claim.most()
            && let Some((first, rest)) = self.source.split(claim.unit(), most).await
        {
            tracing::debug!(step = %self.meter.step, "`{}` is divided: `{}`, `{}`", claim.unit().label, first.label, rest.label);
            claim.divide(first, rest);
        }
        Ok(Some(claim.settle()))
    }

    fn read(&self, unit: &WorkUnit) -> impl futures::Stream<Item = DfResult<RecordBatch>> + Send + use<> {
        let (label, step) = (unit.label.clone(), self.meter.step.clone());
        let rejects = self.scan.rejects.clone().map(|rejects| rejects.of_unit(&unit.label));
        let scan = Scan { rejects, ..self.scan.clone() };
        self.source.read(unit, &scan).map_err(move |error| {
            // The label is a file's name, mostly, which the error has named too.
            let named = error.message().contains(&label);
            let error = if named { error } else { error.context(format!("reading {label}")) };
            to_datafusion(in_step(error, step.as_str()))
        })
    }
}

impl ExtractExec {
    #[expect(clippy::too_many_arguments, reason = "the parts of a node, each of another type")]
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        connection: ConnectionName,
        source: Arc<dyn Source>,
        scan: Scan,
        stats: SourceStats,
        meter: Arc<Meter>,
        pin: Option<Pin>,
        gate: Option<Gate>,
    ) -> DfResult<Self> {
        let schema = match &gate {
            Some(Gate { schema, asked: Some(asked), .. }) => {
                Arc::new(schema.project(&(0..*asked).collect::<Vec<_>>())?)
            }
            Some(Gate { schema, asked: None, .. }) => schema.clone(),
            None => scan.schema.clone(),
        };
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        let queues = Arc::default();
        Ok(Self { input, connection, source, scan, stats, meter, pin, gate, schema, queues, properties })
    }
}

impl DisplayAs for ExtractExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "ExtractExec: connection={}, columns=[{}]", self.connection, columns.join(", "))
    }
}

impl ExecutionPlan for ExtractExec {
    fn name(&self) -> &'static str {
        "ExtractExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// Unit rows are few; spreading them over more partitions would open more connections than asked for.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
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
        let input = children.pop().ok_or_else(|| DataFusionError::Internal("Extract needs its input".to_owned()))?;
        Ok(Arc::new(Self::new(
            input,
            self.connection.clone(),
            self.source.clone(),
            self.scan.clone(),
            self.stats,
            self.meter.clone(),
            self.pin.clone(),
            self.gate.clone(),
        )?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let units = self.input.execute(partition, context)?;
        let partitions = self.input.output_partitioning().partition_count();
        // Nothing that is done under the lock can leave it half done.
        let queue = self.queues.lock().unwrap_or_else(PoisonError::into_inner).next(partition, partitions);
        let meter = self.meter.clone();
        meter.touch();
        let gate = self.gate.clone();
        let counted = meter.clone();
        let lane = Lane {
            number: partition,
            units: Some(units),
            queue,
            source: self.source.clone(),
            scan: self.scan.clone(),
            meter: meter.clone(),
            _pin: self.pin.clone(),
        };
        let rows = try_unfold(lane, |mut lane| async move {
            let Some(unit) = lane.next().await? else { return Ok::<_, DataFusionError>(None) };
            Ok(Some((lane.read(&unit), lane)))
        })
        .try_flatten()
        .inspect_ok(move |batch: &RecordBatch| meter.add(batch.num_rows(), bytes_of(batch)));
        let Some(gate) = gate else {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows)));
        };
        let rows = rows.and_then(move |batch| {
            let passed = gate
                .pass(batch, &counted)
                .map_err(|error| to_datafusion(in_step(from_datafusion(error), counted.step.as_str())));
            futures::future::ready(passed)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        let estimate = |value: Option<u64>| {
            value.and_then(|value| usize::try_from(value).ok()).map_or(Precision::Absent, Precision::Inexact)
        };
        Ok(Arc::new(Statistics {
            // Files tell their size, not their rows; joins choose their sides by rows.
            num_rows: estimate(
                self.stats.rows.or(self.stats.bytes.map(|bytes| bytes / row_width(&self.schema) as u64)),
            ),
            total_byte_size: estimate(self.stats.bytes),
            column_statistics: vec![ColumnStatistics::new_unknown(); self.schema.fields().len()],
        }))
    }
}

fn decode_units(batch: &RecordBatch) -> gristmill_model::Result<Vec<WorkUnit>> {
    let column = batch.column(0).as_any().downcast_ref::<StringArray>();
    let column = column.ok_or_else(|| Error::internal("a unit row is not text"))?;
    (0..column.len())
        .map(|row| {
            serde_json::from_str(column.value(row))
                .map_err(|error| Error::internal(format!("a work unit cannot be decoded: {error}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;
    use futures::StreamExt;

    #[tokio::test]
    async fn every_unit_lands_in_exactly_one_lane() {
        let units: Vec<WorkUnit> = (0..7)
            .map(|ordinal| WorkUnit {
                ordinal,
                label: format!("u{ordinal}"),
                payload: serde_json::Value::Null,
                rows: None,
                bytes: Some(u64::from(ordinal) * 10),
            })
            .collect();
        let plan = leaf(&units, 3).map_err(from_datafusion).unwrap();
        assert_eq!(plan.output_partitioning().partition_count(), 3);
        let context = SessionContext::new().task_ctx();
        let mut seen = Vec::new();
        for lane in 0..3 {
            let batches: Vec<RecordBatch> = plan.execute(lane, context.clone()).unwrap().try_collect().await.unwrap();
            for batch in &batches {
                seen.extend(decode_units(batch).unwrap().into_iter().map(|unit| unit.ordinal));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
    }

    /// Whole numbers from one up to another; divides every unit.
    #[derive(Debug)]
    struct Numbers;

    fn numbers(ordinal: u32, from: i64, to: i64) -> WorkUnit {
        WorkUnit {
            ordinal,
            label: format!("{from} to {to}"),
            payload: serde_json::json!([from, to]),
            rows: Some((to - from).unsigned_abs()),
            bytes: None,
        }
    }

    fn bounds(unit: &WorkUnit) -> (i64, i64) {
        (unit.payload[0].as_i64().unwrap(), unit.payload[1].as_i64().unwrap())
    }

    #[async_trait::async_trait]
    impl Source for Numbers {
        async fn schema(&self) -> gristmill_model::Result<SchemaRef> {
            Ok(Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])))
        }

        async fn plan(
            &self,
            _: &gristmill_connect::ReadRequest,
        ) -> gristmill_model::Result<gristmill_connect::ReadPlan> {
            Err(Error::internal("planned by the test"))
        }

        fn read(&self, unit: &WorkUnit, scan: &Scan) -> gristmill_connect::Rows {
            let (from, to) = bounds(unit);
            let schema = scan.schema.clone();
            let batches = (from..to).collect::<Vec<_>>();
            let batches = batches.chunks(scan.batch_size).map(|rows| {
                let column = datafusion::arrow::array::Int64Array::from(rows.to_vec());
                Ok(RecordBatch::try_new(schema.clone(), vec![Arc::new(column)]).unwrap())
            });
            // Others get their turn, as they do while a server is waited for.
            let batches = futures::stream::iter(batches.collect::<Vec<_>>()).then(|batch| async {
                tokio::task::yield_now().await;
                batch
            });
            gristmill_connect::Rows::new(schema.clone(), batches)
        }

        async fn split(&self, unit: &WorkUnit, most: u64) -> Option<(WorkUnit, WorkUnit)> {
            tokio::task::yield_now().await;
            let (from, to) = bounds(unit);
            let at = from + i64::try_from(most).ok()?.max(5);
            (at < to).then(|| (numbers(unit.ordinal, from, at), numbers(unit.ordinal, at, to)))
        }
    }

    #[tokio::test]
    async fn lanes_that_help_each_other_give_every_row_once_each_time_the_plan_is_executed() {
        use datafusion::arrow::array::AsArray;
        let source = Arc::new(Numbers);
        let units = [numbers(0, 0, 3), numbers(1, 3, 1000), numbers(2, 1000, 1001), numbers(3, 1001, 1010)];
        let schema = source.schema().await.unwrap();
        let on_bad_row = gristmill_model::spec::OnFail::Fail;
        let scan = Scan { schema, batch_size: 7, on_bad_row, rejects: None };
        let meter = Meter::new("numbers".into());
        let leaf = leaf(&units, 3).map_err(from_datafusion).unwrap();
        let name = ConnectionName::from("test");
        let plan =
            Arc::new(ExtractExec::new(leaf, name, source, scan, SourceStats::default(), meter, None, None).unwrap());
        let context = SessionContext::new().task_ctx();
        for round in 0..3 {
            let lanes = (0..3).map(|lane| plan.execute(lane, context.clone()).unwrap());
            let lanes = lanes.map(|rows| tokio::spawn(rows.try_collect::<Vec<RecordBatch>>()));
            let mut seen = Vec::new();
            let mut busy = 0;
            for lane in lanes.collect::<Vec<_>>() {
                let batches = lane.await.unwrap().unwrap();
                busy += usize::from(batches.len() > 10);
                for batch in batches {
                    let column = batch.column(0).as_primitive::<datafusion::arrow::datatypes::Int64Type>();
                    seen.extend(column.values().iter().copied());
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..1010).collect::<Vec<_>>(), "round {round}");
            assert!(busy >= 2, "the large unit was read by one lane alone");
        }
    }
}
