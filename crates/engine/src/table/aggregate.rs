//! Aggregates over an extract that its source computes, a value for each unit, and DataFusion adds up.
//!
//! ```text
//!   count(*), max(price) by day            coalesce(sum("count(*)"), 0), max("max(price)") by day
//!     └─ where region = 7          ─►        └─ units, each: count(*), max(price) by day where region = 7
//!         └─ the rows of units
//! ```
//!
//! Everything between the aggregation and the extract must be what the source can do as well: columns, and conditions that
//! it decides as we do. An extract whose rows are looked at on their way (cursors, contracts, bad rows that are left out) is
//! read as it is; so is a pipe, which is no extract.

#[cfg(test)]
mod tests;

use super::ExtractTable;
use super::filter::to_filter;
use crate::error::to_datafusion;
use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result as DfResult;
use datafusion::functions::expr_fn::coalesce;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::expr_fn::{max, min, sum};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate as Plan, Cast, Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableType};
use datafusion::logical_expr::{cast, lit};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use gristmill_connect::{Aggregate, AggregateFunction, Aggregation, Filter};
use gristmill_model::{Error, ErrorKind};
use std::sync::Arc;

/// The rule. It comes after DataFusion's own, which have brought conditions down to the extract by then.
#[derive(Debug)]
pub(crate) struct PushAggregates;

impl OptimizerRule for PushAggregates {
    fn name(&self) -> &'static str {
        "push_aggregates_to_sources"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        match Pushed::of(aggregate) {
            Some(pushed) => Ok(Transformed::yes(pushed.plan(aggregate)?)),
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// What is below an aggregation, where that is an extract, columns and conditions.
struct Below<'a> {
    scan: &'a TableScan,
    /// What each column is, in columns of the scan.
    columns: Vec<Expr>,
    conditions: Vec<Expr>,
}

impl<'a> Below<'a> {
    fn of(plan: &'a LogicalPlan) -> Option<Self> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
                let fields = scan.projected_schema.iter();
                let columns = fields.map(|(_, field)| Expr::Column(Column::new_unqualified(field.name().as_str())));
                let columns: Vec<Expr> = columns.collect();
                let below = Self { scan, columns, conditions: Vec::new() };
                let unqualified = |condition: &Expr| {
                    let named = condition.clone().transform(|part| {
                        Ok(match part {
                            Expr::Column(column) => {
                                Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
                            }
                            other => Transformed::no(other),
                        })
                    });
                    named.ok().map(|named| named.data)
                };
                let conditions = scan.filters.iter().map(unqualified).collect::<Option<_>>()?;
                Some(Self { conditions, ..below })
            }
            LogicalPlan::SubqueryAlias(alias) => Self::of(&alias.input),
            LogicalPlan::Projection(projection) => {
                let below = Self::of(&projection.input)?;
                let schema = projection.input.schema();
                let columns = projection.expr.iter().map(|expression| below.resolve(expression, schema));
                Some(Self { columns: columns.collect::<Option<_>>()?, ..below })
            }
            LogicalPlan::Filter(filter) => {
                let mut below = Self::of(&filter.input)?;
                for condition in split_conjunction(&filter.predicate) {
                    let condition = below.resolve(condition, filter.input.schema())?;
                    if !below.conditions.contains(&condition) {
                        below.conditions.push(condition);
                    }
                }
                Some(below)
            }
            _ => None,
        }
    }

    /// An expression over the columns here, in columns of the scan.
    fn resolve(&self, expression: &Expr, schema: &DFSchema) -> Option<Expr> {
        let resolved = expression.clone().unalias_nested().data.transform(|part| {
            Ok(match part {
                Expr::Column(column) => {
                    let at = schema.index_of_column(&column)?;
                    let known = self.columns.get(at).cloned();
                    Transformed::yes(known.ok_or_else(|| to_datafusion(Error::internal("a column without a place")))?)
                }
                other => Transformed::no(other),
            })
        });
        resolved.ok().map(|resolved| resolved.data)
    }
}

/// An aggregation that a source takes over.
struct Pushed<'a> {
    scan: &'a TableScan,
    aggregation: Aggregation,
    filters: Vec<Filter>,
    schema: SchemaRef,
    /// Where each value of the plan stands among those of the aggregation.
    places: Vec<usize>,
}

impl<'a> Pushed<'a> {
    /// The decision: none where a source could come to another answer, or be asked what it does not know.
    fn of(plan: &'a Plan) -> Option<Self> {
        let below = Below::of(&plan.input)?;
        let provider = source_as_provider(&below.scan.source).ok()?;
        let table = provider.downcast_ref::<ExtractTable>().filter(|table| table.gives_rows_as_they_are())?;
        let column = |expression: &Expr| match below.resolve(expression, plan.input.schema())? {
            Expr::Column(column) => Some(column.name),
            _ => None,
        };
        let groups = plan.group_expr.iter().map(column).collect::<Option<Vec<_>>>()?;
        let mut aggregation = Aggregation { groups, values: Vec::new() };
        let mut places = Vec::with_capacity(plan.aggr_expr.len());
        for expression in &plan.aggr_expr {
            let value = aggregate(expression, |argument| below.resolve(argument, plan.input.schema()))?;
            places.push(aggregation.want(value));
        }
        let visible = aggregation.schema(&table.schema)?;
        let values = plan.schema.fields().iter().skip(aggregation.groups.len());
        for (place, field) in places.iter().zip(values) {
            if visible.field(aggregation.groups.len() + place).data_type() != field.data_type() {
                return None;
            }
        }
        let filters: Vec<Filter> = below.conditions.iter().map(to_filter).collect::<Option<_>>()?;
        let filtered = filters.iter().map(|filter| filter.column.clone());
        let valued = aggregation.values.iter().filter_map(|value| value.column.clone());
        let looked_at: Vec<String> = valued.chain(filtered).collect();
        for name in looked_at {
            // What must not be passed over when rows are read is an extreme; so it is seen here as well.
            let (_, field) = table.schema.column_with_name(&name)?;
            if has_refused_extremes(field.data_type()) {
                aggregation.want(Aggregate::new(AggregateFunction::Min, Some(&name)));
                aggregation.want(Aggregate::new(AggregateFunction::Max, Some(&name)));
            }
        }
        let schema = aggregation.schema(&table.schema)?;
        if !table.source.can_aggregate(&aggregation, &filters) {
            return None;
        }
        Some(Self { scan: below.scan, aggregation, filters, schema, places })
    }

    /// The plan that adds up what comes, with the columns that `instead` has.
    fn plan(self, instead: &Plan) -> DfResult<LogicalPlan> {
        let name = self.scan.table_name.clone();
        let base = source_as_provider(&self.scan.source)?;
        let groups = self.aggregation.groups.len();
        let column = |at: usize| Expr::Column(Column::new(Some(name.clone()), self.schema.field(at).name()));
        let mut wanted = self.places.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let own = |place: usize| format!("__value_{place}");
        let added = wanted.iter().map(|place| {
            let part = column(groups + place);
            let whole = match self.aggregation.values[*place].function {
                AggregateFunction::Count | AggregateFunction::Sum => sum(part),
                AggregateFunction::Min => min(part),
                AggregateFunction::Max => max(part),
            };
            whole.alias(own(*place))
        });
        let added: Vec<Expr> = added.collect();
        let shown = instead.schema.iter().enumerate().map(|(at, (qualifier, field))| {
            let value = match at.checked_sub(groups) {
                None => column(at),
                Some(at) => {
                    let place = self.places[at];
                    let value = Expr::Column(Column::new_unqualified(own(place)));
                    match self.aggregation.values[place].function {
                        // Nobody gave a row: there are none.
                        AggregateFunction::Count => coalesce(vec![value, lit(0i64)]),
                        // Each adding up makes room for more digits.
                        AggregateFunction::Sum => cast(value, field.data_type().clone()),
                        AggregateFunction::Min | AggregateFunction::Max => value,
                    }
                }
            };
            value.alias_qualified(qualifier.cloned(), field.name())
        });
        let shown: Vec<Expr> = shown.collect();
        let by: Vec<Expr> = (0..groups).map(column).collect();
        let Self { aggregation, filters, schema, .. } = self;
        let table = AggregatedTable { base, aggregation, filters, schema: schema.clone() };
        LogicalPlanBuilder::scan(name.clone(), provider_as_source(Arc::new(table)), None)?
            .aggregate(by, added)?
            .project(shown)?
            .build()
    }
}

/// Whether a source may have values of the type that it refuses, all of them greater or smaller than the others.
fn has_refused_extremes(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Timestamp(..) | DataType::Decimal128(..))
}

/// A value that is plain enough; `resolve` says what an argument is in columns of the scan.
fn aggregate(expression: &Expr, resolve: impl Fn(&Expr) -> Option<Expr>) -> Option<Aggregate> {
    let expression = expression.clone().unalias_nested().data;
    let Expr::AggregateFunction(call) = &expression else { return None };
    let params = &call.params;
    if params.distinct || params.filter.is_some() || !params.order_by.is_empty() || params.null_treatment.is_some() {
        return None;
    }
    let [argument] = params.args.as_slice() else { return None };
    // The functions themselves, not their names: a program may bring others that are called the same.
    let function = [
        (count_udaf(), AggregateFunction::Count),
        (min_udaf(), AggregateFunction::Min),
        (max_udaf(), AggregateFunction::Max),
        (sum_udaf(), AggregateFunction::Sum),
    ];
    let (_, function) = function.into_iter().find(|(known, _)| *known == call.func)?;
    match (function, resolve(argument)?) {
        (AggregateFunction::Count, Expr::Literal(value, _)) if !value.is_null() => Some(Aggregate::new(function, None)),
        (_, Expr::Column(column)) => Some(Aggregate::new(function, Some(&column.name))),
        // A sum of small numbers is one of large ones.
        (AggregateFunction::Sum, Expr::Cast(Cast { expr, field }))
            if matches!(field.data_type(), DataType::Int64 | DataType::UInt64) =>
        {
            match *expr {
                Expr::Column(column) => Some(Aggregate::new(function, Some(&column.name))),
                _ => None,
            }
        }
        _ => None,
    }
}

/// An extract whose source aggregates the rows of each unit.
#[derive(Debug)]
struct AggregatedTable {
    /// The extract.
    base: Arc<dyn TableProvider>,
    aggregation: Aggregation,
    filters: Vec<Filter>,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for AggregatedTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(table) = self.base.downcast_ref::<ExtractTable>() else {
            return Err(to_datafusion(Error::new(ErrorKind::Internal, "an aggregation of what is no extract")));
        };
        let rows = table.aggregate(state, self.aggregation.clone(), self.filters.clone(), self.schema.clone()).await?;
        // All values are read, also those that are only there to be seen.
        let Some(projection) = projection else { return Ok(rows) };
        let column = |at: &usize| {
            let name = self.schema.field(*at).name();
            let column: Arc<dyn datafusion::physical_expr::PhysicalExpr> = Arc::new(PhysicalColumn::new(name, *at));
            (column, name.clone())
        };
        Ok(Arc::new(ProjectionExec::try_new(projection.iter().map(column).collect::<Vec<_>>(), rows)?))
    }
}
