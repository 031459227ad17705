//! A source that is read unit by unit, as a table.

use super::filter::to_filter;
use crate::error::to_datafusion;
use crate::exec::{ExtractExec, Gate, leaf};
use crate::increment::{Contract, Progress};
use crate::meter::Meter;
use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use gristmill_connect::{Aggregation, Filter, ReadPlan, ReadRequest, RejectSink, Scan, Source, SourceStats};
use gristmill_model::ConnectionName;
use gristmill_model::spec::OnFail;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A source behind the Extract node.
#[derive(Debug)]
pub(crate) struct ExtractTable {
    pub(crate) connection: ConnectionName,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) schema: SchemaRef,
    /// The columns as the source describes them, with their comments.
    pub(crate) described: SchemaRef,
    pub(crate) on_bad_row: OnFail,
    pub(crate) rejects: Option<RejectSink>,
    pub(crate) parallelism: usize,
    pub(crate) meter: Arc<Meter>,
    /// Of an incremental extract: what is left out and remembered.
    pub(crate) progress: Option<Arc<Progress>>,
    /// What is left out of its rows, because earlier ones had it not.
    pub(crate) contract: Option<Arc<Contract>>,
    /// The plan of the last scan, for `plan` and the log.
    pub(crate) planned: Mutex<Option<ReadPlan>>,
    /// How many scans were asked for. Each would be a reading of its own, at a moment of its own.
    pub(crate) scans: AtomicUsize,
}

#[async_trait]
impl TableProvider for ExtractTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// The source may leave rows out, and everything is decided again here: a source need not be exact.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        // An incremental extract must see all rows: those it passes over would not be looked at again.
        let can = |filter: &&Expr| {
            self.progress.is_none()
                && self.contract.is_none()
                && to_filter(filter).is_some_and(|filter| self.source.can_filter(&filter))
        };
        let pushed = |filter: &&Expr| match can(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        let (mut indices, mut more) = (projection.cloned(), None);
        if let Some(progress) = &self.progress {
            let needed = progress.needs(&self.schema).map_err(to_datafusion)?;
            if let Some(wanted) = &mut indices {
                let asked = wanted.len();
                wanted.extend(needed.into_iter().filter(|index| !projection.is_some_and(|all| all.contains(index))));
                more = (wanted.len() > asked).then_some(asked);
            }
        }
        let gated = match &indices {
            Some(indices) => Arc::new(self.schema.project(indices)?),
            None => self.schema.clone(),
        };
        let schema = match &self.contract {
            Some(contract) => contract.reads(&gated).map_err(to_datafusion)?,
            None => gated.clone(),
        };
        let is_gated = self.progress.is_some() || self.contract.is_some();
        let gate = is_gated.then(|| Gate {
            progress: self.progress.clone(),
            contract: self.contract.clone(),
            schema: gated,
            asked: more,
        });
        let is_part = indices.is_some() || self.contract.is_some();
        let columns = is_part.then(|| schema.fields().iter().map(|field| field.name().clone()).collect());
        let may_push = self.progress.is_none() && self.contract.is_none();
        let pushed = filters.iter().filter_map(to_filter).filter(|filter| may_push && self.source.can_filter(filter));
        let want = ReadRequest {
            columns,
            filters: pushed.collect(),
            // Of rows that are still to be looked at, or may be refused, nobody knows how many are enough.
            limit: limit
                .filter(|_| may_push && filters.is_empty() && self.on_bad_row == OnFail::Fail)
                .map(|limit| limit as u64),
            ..self.request()
        };
        let stats = self.source.stats().await;
        if let Some(rows) = stats.rows {
            self.meter.expect(rows);
        }
        self.reading(state, &want, schema, stats, gate).await
    }
}

impl ExtractTable {
    /// Whether all rows go on, as they come. Otherwise each is to be looked at.
    pub(crate) fn gives_rows_as_they_are(&self) -> bool {
        self.progress.is_none() && self.contract.is_none() && self.on_bad_row == OnFail::Fail
    }

    /// Reads an aggregation of each unit's rows for which all of `filters` hold, which come as `schema`. It is a scan like
    /// any other: whoever scans twice reads two moments.
    pub(crate) async fn aggregate(
        &self,
        state: &dyn Session,
        aggregation: Aggregation,
        filters: Vec<Filter>,
        schema: SchemaRef,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        let columns = Some(aggregation.columns());
        let want = ReadRequest { columns, filters, aggregation: Some(aggregation), ..self.request() };
        // How many groups there are, nobody knows.
        self.reading(state, &want, schema, SourceStats::default(), None).await
    }

    fn request(&self) -> ReadRequest {
        ReadRequest { parallelism: self.parallelism, ..ReadRequest::default() }
    }

    /// The node that reads what is wanted.
    async fn reading(
        &self,
        state: &dyn Session,
        want: &ReadRequest,
        schema: SchemaRef,
        stats: SourceStats,
        gate: Option<Gate>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let mut plan = self.source.plan(want).await.map_err(to_datafusion)?;
        tracing::info!(
            step = %self.meter.step,
            units = plan.units.len(),
            estimated_rows = ?stats.rows,
            sample = plan.units.first().map(|unit| unit.label.as_str()),
            "{}",
            plan.why
        );
        let leaf = leaf(&plan.units, self.parallelism)?;
        // The node holds it, so that it is let go when nobody can read any more; this table lives as long as its session.
        let pin = plan.pin.take();
        if let Ok(mut planned) = self.planned.lock() {
            *planned = Some(plan);
        }
        let scan = Scan {
            schema,
            batch_size: state.config().batch_size(),
            on_bad_row: self.on_bad_row,
            rejects: self.rejects.clone(),
        };
        Ok(Arc::new(ExtractExec::new(
            leaf,
            self.connection.clone(),
            self.source.clone(),
            scan,
            stats,
            self.meter.clone(),
            pin,
            gate,
        )?))
    }
}
