//! The source: planning units, and reading them.

use super::config::MysqlConfig;
use super::connect::server_error;
use super::pushed;
use super::snapshot::{Lent, SNAPSHOTS, Snapshot, Taken};
use super::split::Splitter;
use super::stream::UnitReader;
use super::units::decide::{Facts, Relation as Kind, decide};
use super::wanted::{Known, Relation, Wanted, unknown_column};
use crate::aggregate::{Declined, too_many_groups};
use crate::source::whole_key;
use crate::units::counting::{Counting, Divided};
use crate::units::decide::{Chosen, Decision, ONE_UNIT, describe, needs_facts};
use crate::units::keys::slices;
use crate::units::share::{Share, Slice};
use crate::{
    Aggregation, Consistency, Filter, Increment, Narrowed, Pin, ReadPlan, ReadRequest, Retry, Rows, Scan, Source,
    SourceStats,
};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::try_unfold;
use gristmill_model::spec::{ExtractSpec, UnitStrategy, Verify};
use gristmill_model::{Error, ErrorKind, Result, WorkUnit};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// A table or a query of a MySQL or MariaDB database.
#[derive(Debug)]
pub struct MysqlSource {
    wanted: Arc<Wanted>,
    /// What the server said, asked once.
    known: OnceCell<Known>,
    splitter: Splitter,
    declined: Declined,
}

/// A unit before it has its number.
struct Draft {
    slice: Slice,
    rows: Option<u64>,
    bytes: Option<u64>,
}

impl MysqlSource {
    /// Checks an extract step without calling the server.
    ///
    /// # Errors
    /// Neither table nor query, or both; options that are for files; `units` that cannot be.
    pub(super) fn new(config: Arc<MysqlConfig>, extract: &ExtractSpec) -> Result<Self> {
        Ok(Self {
            wanted: Arc::new(Wanted::new(config, extract)?),
            known: OnceCell::new(),
            splitter: Splitter::default(),
            declined: Declined::default(),
        })
    }

    async fn known(&self) -> Result<&Known> {
        self.known.get_or_try_init(|| self.wanted.ask()).await
    }

    fn one(known: &Known) -> Vec<Draft> {
        vec![Draft { slice: Slice::Whole, rows: known.stats.rows, bytes: known.stats.bytes }]
    }

    fn facts(&self, known: &Known, picture: Result<(), String>) -> Facts {
        Facts {
            relation: match (&self.wanted.relation, &known.engine) {
                (Relation::Query(_), _) => Kind::Query,
                (Relation::Table(_), None) => Kind::View,
                (Relation::Table(_), Some(engine)) => Kind::Table(engine.clone()),
            },
            rows: known.stats.rows,
            all_rows: known.all_rows,
            by_index: known.by_index,
            key: known.key.clone(),
            picture,
        }
    }

    /// What is to be read, in which picture, and why.
    async fn drafts(&self, known: &Known, want: &ReadRequest) -> Result<(Vec<Draft>, Decision, Option<Taken>)> {
        let one = |why: String| Decision { chosen: Chosen::One, why };
        let (spec, readers) = (&self.wanted.units, want.parallelism);
        if let Some(limit) = want.limit {
            let mut rows = Self::one(known);
            rows.iter_mut().for_each(|draft| draft.rows = draft.rows.map(|rows| rows.min(limit)));
            return Ok((rows, one(format!("one unit: {limit} rows are enough")), None));
        }
        let is_query = matches!(self.wanted.relation, Relation::Query(_));
        let must_count = spec.verify == Some(Verify::Count);
        if !needs_facts(spec, known.stats.rows, is_query) {
            let why = match spec.strategy {
                UnitStrategy::None => "one unit, as `units` says".to_owned(),
                _ if is_query => "one unit: a query has no key".to_owned(),
                _ => "one unit: it is small".to_owned(),
            };
            return Ok((Self::one(known), one(why), None));
        }
        let hopeful = match (&self.wanted.relation, &known.engine) {
            (Relation::Query(_), _) => Err("a query cannot be locked".to_owned()),
            (Relation::Table(_), None) => Err("a view is not locked".to_owned()),
            (Relation::Table(_), Some(_)) => Ok(()),
        };
        let mut decision = decide(&self.facts(known, hopeful.clone()), spec)?;
        if want.aggregation.is_some() && !is_by_number(&decision, known) {
            // Whether ranges of other keys lose a row is seen by counting rows, and none come.
            decision = one("one unit: for aggregates, only ranges of whole numbers are used".to_owned());
        }
        let is_innodb = known.engine.as_ref().is_none_or(|engine| engine.eq_ignore_ascii_case("innodb"));
        if decision.chosen == Chosen::One {
            if !must_count {
                return Ok((Self::one(known), decision, None));
            }
            if !is_innodb {
                return Err(Error::new(ErrorKind::Config, "`verify: count` of `units` cannot be had")
                    .cause("the table's storage engine has no snapshots")
                    .hint("use `verify: none`"));
            }
            return Ok((Self::one(known), decision, Some(Snapshot::alone(&self.wanted).await?)));
        }
        // There will be several units.
        let counted = self.counting(known, &decision, 2, want.aggregation.is_some()).counts();
        let (taken, decision) = match hopeful {
            Ok(()) => match Snapshot::share(&self.wanted, readers, counted).await? {
                Ok(taken) => (taken, decision),
                Err(why) => {
                    let decision = decide(&self.facts(known, Err(why)), spec)?;
                    if decision.chosen == Chosen::One && !must_count {
                        return Ok((Self::one(known), decision, None));
                    }
                    (Snapshot::alone(&self.wanted).await?, decision)
                }
            },
            Err(_) => (Snapshot::alone(&self.wanted).await?, decision),
        };
        let drafts = self.units(known, &taken.snapshot, &decision).await?;
        Ok((drafts, decision, Some(taken)))
    }

    async fn units(&self, known: &Known, snapshot: &Arc<Snapshot>, decision: &Decision) -> Result<Vec<Draft>> {
        let mut lent = Lent::of(snapshot).await?;
        let failed = |error| server_error(&error, &self.wanted.config, "cannot plan");
        let drafts = self.divided(known, lent.session().map_err(failed)?, decision).await?;
        lent.give_back();
        Ok(drafts)
    }

    async fn divided(
        &self,
        known: &Known,
        session: &mut super::connect::Session,
        decision: &Decision,
    ) -> Result<Vec<Draft>> {
        let rows = known.stats.rows;
        let width = known.stats.bytes.zip(rows).map(|(bytes, rows)| bytes as f64 / rows.max(1) as f64);
        let of_rows = |slice: Slice, rows: f64| Draft {
            slice,
            rows: Some(rows.round() as u64),
            bytes: width.map(|width| (rows * width).round() as u64),
        };
        let even = |parts: u32| rows.unwrap_or(0) as f64 / f64::from(parts.max(1));
        Ok(match &decision.chosen {
            Chosen::One => Self::one(known),
            Chosen::Ctid { .. } => return Err(Error::internal("pages of a MySQL table")),
            Chosen::Keys { column, most, target, time } => {
                let key = self.wanted.key(session, column).await?;
                if *time && !key.kind.is_time() {
                    let message = format!("`{column}` of `{}` is no date or timestamp", self.wanted.label());
                    return Err(Error::new(ErrorKind::Config, message)
                        .hint(format!("use `units: {{strategy: id_range, by: {column}}}`")));
                }
                let all = rows.unwrap_or(0) as f64;
                let share = known.all_rows.map_or(1.0, |whole| (all / whole.max(1) as f64).clamp(0.0, 1.0));
                let (cuts, nulls) = self.wanted.cuts(session, &key, all, share, *target).await?;
                let nulls = if all > 0.0 { (nulls / all).min(1.0) } else { 0.0 };
                slices(column, cuts, all, nulls, *target, *most)
                    .into_iter()
                    .map(|(slice, rows)| of_rows(slice, rows))
                    .collect()
            }
            Chosen::Hash { column, units } => {
                let all = self.wanted.described(session).await?;
                let names: Vec<String> = all.iter().map(|known| known.name_str().into_owned()).collect();
                if !names.contains(column) {
                    let names = names.iter().map(String::as_str);
                    return Err(unknown_column(column, &self.wanted.label(), names).context("units"));
                }
                let slice = |part| Slice::Hash { column: column.clone(), part, of: *units };
                (0..*units).map(|part| of_rows(slice(part), even(*units))).collect()
            }
            Chosen::Predicates => {
                let predicates = &self.wanted.units.predicates;
                let slice = |at: usize| Slice::Predicate {
                    take: predicates.get(at).cloned(),
                    leave: predicates[..at].to_vec(),
                };
                let parts = u32::try_from(predicates.len() + 1).unwrap_or(u32::MAX);
                (0..=predicates.len()).map(|at| of_rows(slice(at), even(parts))).collect()
            }
        })
    }

    /// What is wanted, with a condition that was pushed down.
    fn narrowed(&self, pushed: Option<&str>) -> Arc<Wanted> {
        pushed.map_or_else(|| self.wanted.clone(), |condition| Arc::new(self.wanted.and(condition)))
    }

    /// Whether the server counts the rows of a plan of so many units.
    fn counting(&self, known: &Known, decision: &Decision, units: usize, is_aggregated: bool) -> Counting {
        let by_number = is_by_number(decision, known);
        let divided = Divided { units, by_number, is_aggregated, bytes: known.all_bytes };
        Counting::of(self.wanted.units.verify, divided)
    }
}

/// Whether what was decided are ranges of a key of whole numbers, which one order tells apart.
fn is_by_number(decision: &Decision, known: &Known) -> bool {
    let Chosen::Keys { column, .. } = &decision.chosen else { return decision.chosen == Chosen::One };
    known.schema.field_with_name(column).is_ok_and(|field| field.data_type().is_integer())
}

#[async_trait]
impl Source for MysqlSource {
    async fn schema(&self) -> Result<SchemaRef> {
        Ok(self.known().await?.schema.clone())
    }

    async fn narrow(&self, extract: &ExtractSpec, increment: &Increment) -> Result<Narrowed> {
        self.wanted.narrow(extract, increment, self.known().await?).await
    }

    async fn key(&self) -> Result<Vec<String>> {
        Ok(whole_key(self.wanted.primary_key().await?, &self.known().await?.schema))
    }

    async fn plan(&self, want: &ReadRequest) -> Result<ReadPlan> {
        let known = self.known().await?;
        let names = || known.schema.fields().iter().map(|field| field.name().as_str());
        let columns: Vec<&str> = match &want.columns {
            Some(wanted) => {
                if let Some(unknown) = wanted.iter().find(|name| !names().any(|known| known == *name)) {
                    return Err(unknown_column(unknown, &self.wanted.label(), names()));
                }
                wanted.iter().map(String::as_str).collect()
            }
            None => names().collect(),
        };
        let mut pushed_down = vec![format!("columns: {}", columns.join(", "))];
        pushed_down.extend(self.wanted.filter.as_ref().map(|filter| format!("filter: {filter}")));
        let filters: Vec<Filter> = want.filters.iter().filter(|filter| self.can_filter(filter)).cloned().collect();
        pushed_down.extend(filters.iter().map(|filter| format!("filter: {filter}")));
        pushed_down.extend(want.aggregation.as_ref().map(|aggregation| format!("aggregates: {aggregation}")));
        let strict = self.wanted.units.verify == Some(Verify::Count);
        let is_enough = |limit: &u64| !strict && *limit <= ONE_UNIT && filters.len() == want.filters.len();
        let limit = want.limit.filter(is_enough);
        pushed_down.extend(limit.map(|limit| format!("limit: {limit}")));
        let pushed = (!filters.is_empty()).then(|| pushed::sql(&filters, known));
        // With a condition more, the server expects other rows, and may go another way.
        let wanted = self.narrowed(pushed.as_deref());
        let narrowed =
            Self { wanted, known: OnceCell::new(), splitter: Splitter::default(), declined: Declined::default() };
        let (this, known) = match pushed {
            Some(_) => (&narrowed, narrowed.known().await?),
            None => (self, known),
        };

        let (drafts, decision, taken) = this.drafts(known, &ReadRequest { limit, ..want.clone() }).await?;
        let counting = match &taken {
            Some(_) => this.counting(known, &decision, drafts.len(), want.aggregation.is_some()),
            None => Counting::Never,
        };
        let count = counting.counts().then(|| (this.wanted.select_list("COUNT(*)", &Slice::Whole), strict));
        let snapshot = taken.map(|taken| taken.begin_plan(drafts.len(), count));
        let units = (0..)
            .zip(drafts)
            .map(|(ordinal, Draft { slice, rows, bytes })| {
                let label = slice.label(&self.wanted.label());
                let snapshot = snapshot.as_ref().map(|snapshot| snapshot.id.clone());
                let (pushed, aggregation) = (pushed.clone(), want.aggregation.clone());
                let share = Share { snapshot, plan: 0, pushed, aggregation, limit, slice };
                let payload = serde_json::to_value(share)
                    .map_err(|error| Error::internal("a work unit cannot be written").cause(error))?;
                Ok(WorkUnit { ordinal, label, payload, rows, bytes })
            })
            .collect::<Result<Vec<_>>>()?;
        let sample = units.first().map_or("", |unit| unit.label.as_str());
        let mut why = describe(&decision.why, known.stats.rows, units.len(), sample);
        why.push_str(&counting.said());
        if want.aggregation.is_none() {
            why.push_str(&self.declined.said());
        }
        Ok(ReadPlan {
            consistency: if snapshot.is_some() { Consistency::Snapshot } else { Consistency::SingleRead },
            units,
            why,
            pushed_down,
            retry: Retry::BeforeRows,
            pin: snapshot.map(|snapshot| Pin::new(snapshot)),
        })
    }

    fn read(&self, unit: &WorkUnit, scan: &Scan) -> Rows {
        let share = match serde_json::from_value::<Share>(unit.payload.clone()) {
            Ok(share) => share,
            Err(error) => {
                let error = Error::internal(format!("the work unit `{}` is not one of ours", unit.label)).cause(error);
                return Rows::failed(scan.schema.clone(), error);
            }
        };
        let snapshot = share.snapshot.as_deref().and_then(|id| SNAPSHOTS.find(id));
        let place = (unit.ordinal, unit.label.clone());
        let wanted = self.narrowed(share.pushed.as_deref());
        let reader = Box::new(UnitReader::new(wanted, snapshot, share, place, scan.clone()));
        let rows =
            try_unfold(reader, |mut reader| async move { Ok(reader.next().await?.map(|batch| (batch, reader))) });
        Rows::new(scan.schema.clone(), rows)
    }

    fn can_filter(&self, filter: &Filter) -> bool {
        self.known.get().is_some_and(|known| pushed::may(filter, &self.wanted, known))
    }

    fn can_aggregate(&self, aggregation: &Aggregation, filters: &[Filter]) -> bool {
        let spec = &self.wanted.units;
        // Without rows nothing can be counted.
        let is_countless =
            spec.verify != Some(Verify::Count) && matches!(spec.strategy, UnitStrategy::Auto | UnitStrategy::None);
        let known = self.known.get().filter(|_| is_countless);
        let Some(known) = known.filter(|known| pushed::may_aggregate(aggregation, filters, &self.wanted, known)) else {
            return false;
        };
        let too_many = too_many_groups(&aggregation.groups, &known.distinct);
        let may = too_many.is_none();
        self.declined.note(too_many);
        may
    }

    async fn split(&self, unit: &WorkUnit, most: u64) -> Option<(WorkUnit, WorkUnit)> {
        self.splitter.split(&self.wanted, unit, most).await
    }

    async fn stats(&self) -> SourceStats {
        self.known().await.map(|known| known.stats).unwrap_or_default()
    }
}
