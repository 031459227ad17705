//! The source: planning units, and reading them.

use super::aggregate;
use super::config::PostgresConfig;
use super::names::Postgres;
use super::pushed;
use super::snapshot::Snapshot;
use super::split::Splitter;
use super::stream::UnitReader;
use super::units::blocks::pack;
use super::units::decide::{Chosen, Decision, Facts, Relation as Kind, decide, describe, needs_facts};
use super::units::keys::{cuts, masses, slices};
use super::units::share::{Share, Slice};
use super::wanted::{Known, Relation, Wanted, unknown_column};
use crate::aggregate::{Declined, too_many_groups};
use crate::source::whole_key;
use crate::units::counting::{Counting, Divided};
use crate::units::decide::ONE_UNIT;
use crate::{
    Aggregation, Consistency, Filter, Increment, Narrowed, Pin, ReadPlan, ReadRequest, Retry, Rows, Scan, Source,
    SourceStats,
};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::try_unfold;
use gristmill_model::spec::{ExtractSpec, UnitStrategy, Verify};
use gristmill_model::{Error, ErrorKind, Result, WorkUnit};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::OnceCell;

/// A page of a heap; it is another size only where somebody compiled the server so.
pub(super) const PAGE: u64 = 8192;

/// A table or a query of a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresSource {
    wanted: Arc<Wanted>,
    /// What the server said, asked once.
    known: OnceCell<Known>,
    /// The snapshot of the plans that are still held, so that all of them see the same picture.
    snapshot: Mutex<Weak<Snapshot>>,
    splitter: Splitter,
    declined: Declined,
}

/// A unit before it has its number.
struct Draft {
    slice: Slice,
    rows: Option<u64>,
    bytes: Option<u64>,
}

impl PostgresSource {
    /// Checks an extract step without calling the server.
    ///
    /// # Errors
    /// Neither table nor query, or both; options that are for files; `units` that cannot be.
    pub(crate) fn new(config: Arc<PostgresConfig>, extract: &ExtractSpec) -> Result<Self> {
        Ok(Self {
            wanted: Arc::new(Wanted::new(config, extract)?),
            known: OnceCell::new(),
            snapshot: Mutex::default(),
            splitter: Splitter::default(),
            declined: Declined::default(),
        })
    }

    async fn known(&self) -> Result<&Known> {
        self.known.get_or_try_init(|| self.wanted.ask()).await
    }

    /// What is wanted, with a condition that was pushed down.
    fn narrowed(&self, pushed: Option<&str>) -> Arc<Wanted> {
        pushed.map_or_else(|| self.wanted.clone(), |condition| Arc::new(self.wanted.and(condition)))
    }

    /// The snapshot that a plan of this source still holds.
    fn held(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// A snapshot for a new plan: the one that is held, or a new one; or why there is none.
    async fn snapshot(&self, known: &Known) -> Result<Result<Arc<Snapshot>, String>> {
        if let Some(snapshot) = self.held() {
            // Units of another picture would not go with those that were planned.
            return if snapshot.is_lost() { Err(snapshot.lost()) } else { Ok(Ok(snapshot)) };
        }
        let snapshot = match Snapshot::export(&self.wanted).await? {
            Ok(snapshot) => snapshot,
            Err(why) => return Ok(Err(why)),
        };
        // The table is locked from here on; it may have been altered before.
        self.wanted.choose(&snapshot.columns, &known.schema)?;
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&snapshot);
        Ok(Ok(snapshot))
    }

    fn one(&self, known: &Known) -> Vec<Draft> {
        vec![Draft { slice: Slice::Whole, rows: known.stats.rows, bytes: known.stats.bytes }]
    }

    async fn drafts(
        &self,
        wanted: &Wanted,
        decision: &Decision,
        facts: &Facts,
        known: &Known,
        snapshot: &Snapshot,
    ) -> Result<Vec<Draft>> {
        let rows = known.stats.rows;
        let width = known.stats.bytes.zip(rows).map_or(0.0, |(bytes, rows)| bytes as f64 / rows.max(1) as f64);
        let of_rows = |slice: Slice, rows: f64| Draft {
            slice,
            rows: Some(rows.round() as u64),
            bytes: Some((rows * width).round() as u64),
        };
        let even = |parts: u32| rows.unwrap_or(0) as f64 / f64::from(parts.max(1));
        Ok(match &decision.chosen {
            Chosen::One => self.one(known),
            Chosen::Ctid { units } => {
                let heaps = facts.heaps.as_ref().map_err(|why| Error::internal(format!("no pages: {why}")))?;
                let all: f64 = heaps.iter().map(|heap| heap.rows).sum();
                // A condition leaves a part of each page's rows.
                let kept = rows.map_or(1.0, |rows| if all > 0.0 { rows as f64 / all } else { 1.0 });
                pack(heaps, *units)
                    .into_iter()
                    .map(|share| Draft {
                        slice: Slice::Blocks(share.blocks),
                        rows: Some((share.rows * kept).round() as u64),
                        bytes: Some(share.pages.saturating_mul(PAGE)),
                    })
                    .collect()
            }
            Chosen::Keys { column, most, target, time } => {
                let key = wanted.key(&snapshot.holder, column).await?;
                if *time && !key.kind.is_time() {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!("`{column}` of `{}` is no date or timestamp", self.wanted.label()),
                    )
                    .hint(format!("use `units: {{strategy: id_range, by: {column}}}`")));
                }
                let (markers, nulls) = wanted.distribution(&snapshot.holder, &key, facts).await?;
                let all = rows.unwrap_or(0) as f64;
                let proposed = cuts(&masses(&markers, all, nulls), key.kind, *target);
                let sorted = wanted.sorted(&snapshot.holder, &key, proposed).await?;
                slices(column, sorted, all, nulls, *target, *most)
                    .into_iter()
                    .map(|(slice, rows)| of_rows(slice, rows))
                    .collect()
            }
            Chosen::Hash { column, units } => {
                // Only to see whether there is such a column.
                wanted.key(&snapshot.holder, column).await?;
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

    /// Whether the server counts the rows while the units are read.
    ///
    /// # Errors
    /// When it must, and cannot.
    fn counting(
        wanted: &Wanted,
        facts: &Facts,
        decision: &Decision,
        units: usize,
        aggregated: bool,
    ) -> Result<Counting> {
        let bytes = facts.heaps.as_ref().ok().map(|heaps| {
            let pages: u64 = heaps.iter().map(|heap| heap.pages).sum();
            pages.saturating_mul(PAGE)
        });
        let by_number = matches!(decision.chosen, Chosen::Ctid { .. });
        let counting =
            Counting::of(wanted.units.verify, Divided { units, by_number, is_aggregated: aggregated, bytes });
        match counting {
            // Rows from another server may change between two looks.
            Counting::Must if facts.foreign => {
                Err(uncountable("its rows come from another server, which shares no snapshot with this one"))
            }
            Counting::Does if facts.foreign => Ok(Counting::Not("they come from another server")),
            counting => Ok(counting),
        }
    }
}

fn uncountable(why: &str) -> Error {
    Error::new(ErrorKind::Config, "`verify: count` of `units` cannot be had").cause(why).hint("use `verify: none`")
}

#[async_trait]
impl Source for PostgresSource {
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
        let mut known = self.known().await?;
        let columns: Vec<&str> = match &want.columns {
            Some(wanted) => {
                let names = || known.schema.fields().iter().map(|field| field.name().as_str());
                if let Some(unknown) = wanted.iter().find(|name| !names().any(|known| known == *name)) {
                    return Err(unknown_column(unknown, &self.wanted.label(), names()));
                }
                wanted.iter().map(String::as_str).collect()
            }
            None => known.schema.fields().iter().map(|field| field.name().as_str()).collect(),
        };
        let mut pushed_down = vec![format!("columns: {}", columns.join(", "))];
        pushed_down.extend(self.wanted.filter.as_ref().map(|filter| format!("filter: {filter}")));
        let filters: Vec<Filter> = want.filters.iter().filter(|filter| self.can_filter(filter)).cloned().collect();
        pushed_down.extend(filters.iter().map(|filter| format!("filter: {filter}")));
        pushed_down.extend(want.aggregation.as_ref().map(|aggregation| format!("aggregates: {aggregation}")));
        let pushed = (!filters.is_empty()).then(|| pushed::sql(&filters));
        let wanted = &self.narrowed(pushed.as_deref());
        let narrowed;
        if pushed.is_some() {
            // With a condition more, the server expects other rows, and may go another way.
            narrowed = Known { schema: known.schema.clone(), ..wanted.ask().await? };
            known = &narrowed;
        }

        let spec = &self.wanted.units;
        let is_query = matches!(self.wanted.relation, Relation::Query(_));
        let is_alone = self.held().is_none() && spec.verify != Some(Verify::Count);
        let limit = want.limit.filter(|limit| is_alone && *limit <= ONE_UNIT && filters.len() == want.filters.len());
        let mut said = String::new();
        let (drafts, why, snapshot, tally) = if let Some(limit) = limit {
            pushed_down.push(format!("limit: {limit}"));
            let mut one = self.one(known);
            one.iter_mut().for_each(|draft| draft.rows = draft.rows.map(|rows| rows.min(limit)));
            (one, format!("one unit: {limit} rows are enough"), None, None)
        } else if self.held().is_none() && !needs_facts(spec, known.stats.rows, is_query) {
            let why = match spec.strategy {
                UnitStrategy::None => "one unit, as `units` says".to_owned(),
                _ if is_query => "one unit: a query has no pages to divide".to_owned(),
                _ => "one unit: it is small".to_owned(),
            };
            (self.one(known), why, None, None)
        } else {
            match self.snapshot(known).await? {
                Ok(snapshot) => {
                    let facts = wanted.facts(&snapshot.holder, known, Ok(())).await?;
                    let mut decision = decide(&facts, spec)?;
                    if want.aggregation.is_some() && matches!(decision.chosen, Chosen::Keys { .. }) {
                        // Whether ranges of keys lose a row is seen by counting rows, and none come.
                        let why = "one unit: ranges of keys are not used for aggregates".to_owned();
                        decision = Decision { chosen: Chosen::One, why };
                    }
                    let drafts = self.drafts(wanted, &decision, &facts, known, &snapshot).await?;
                    let counting = Self::counting(wanted, &facts, &decision, drafts.len(), want.aggregation.is_some())?;
                    let tally = counting.counts().then(|| {
                        let relation = wanted.relation_sql();
                        let sql = Slice::Whole.select(&Postgres, "count(*)", &relation, wanted.filter.as_deref());
                        (sql, counting == Counting::Must)
                    });
                    // One unit alone is one statement; it needs no picture to share, unless another plan or whoever
                    // counts shares it.
                    let is_shared = drafts.len() > 1 || tally.is_some() || Arc::strong_count(&snapshot) > 1;
                    let why = decision.why;
                    said = counting.said();
                    (drafts, why, is_shared.then_some(snapshot), tally)
                }
                Err(why) if spec.verify == Some(Verify::Count) => return Err(uncountable(&why)),
                Err(why) => {
                    let facts = Facts {
                        version: 0,
                        relation: Kind::Other,
                        heaps: Err(why.clone()),
                        rows: known.stats.rows,
                        by_index: false,
                        key: None,
                        foreign: false,
                        snapshot: Err(why),
                    };
                    (self.one(known), decide(&facts, spec)?.why, None, None)
                }
            }
        };
        let is_ordered = drafts.iter().all(|draft| draft.slice.is_ordered());
        let goes_on = is_ordered && wanted.filter.is_none() && want.aggregation.is_none();
        let id = snapshot.as_ref().map(|snapshot| (snapshot.id.clone(), snapshot.begin_plan(drafts.len(), tally)));
        let units = (0..)
            .zip(drafts)
            .map(|(ordinal, Draft { slice, rows, bytes })| {
                let label = slice.label(&self.wanted.label());
                let (snapshot, plan) = id.clone().map_or((None, 0), |(id, plan)| (Some(id), plan));
                let (pushed, aggregation) = (pushed.clone(), want.aggregation.clone());
                let payload = serde_json::to_value(Share { snapshot, plan, pushed, aggregation, limit, slice })
                    .map_err(|error| Error::internal("a work unit cannot be written").cause(error))?;
                Ok(WorkUnit { ordinal, label, payload, rows, bytes })
            })
            .collect::<Result<Vec<_>>>()?;
        let sample = units.first().map_or("", |unit| unit.label.as_str());
        let mut why = describe(&why, known.stats.rows, units.len(), sample);
        why.push_str(&said);
        if want.aggregation.is_none() {
            why.push_str(&self.declined.said());
        }
        Ok(ReadPlan {
            consistency: match &snapshot {
                _ if units.len() == 1 && snapshot.is_none() => Consistency::SingleRead,
                Some(_) if !known.foreign => Consistency::Snapshot,
                _ => Consistency::PerUnit,
            },
            units,
            why,
            pushed_down,
            retry: match snapshot.is_some() && goes_on {
                true => Retry::GoesOn,
                false => Retry::BeforeRows,
            },
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
        // Another process may have planned it; then the snapshot is imported by its name alone.
        let snapshot = self.held().filter(|held| share.snapshot.as_ref() == Some(&held.id));
        let place = (unit.ordinal, unit.label.clone());
        let wanted = self.narrowed(share.pushed.as_deref());
        let reader = Box::new(UnitReader::new(wanted, snapshot, share, place, scan.clone()));
        let rows =
            try_unfold(reader, |mut reader| async move { Ok(reader.next().await?.map(|batch| (batch, reader))) });
        Rows::new(scan.schema.clone(), rows)
    }

    fn can_filter(&self, filter: &Filter) -> bool {
        let column = self.known.get().and_then(|known| known.comparable.get(&filter.column));
        column.is_some_and(|column| pushed::may(filter, *column))
    }

    fn can_aggregate(&self, aggregation: &Aggregation, filters: &[Filter]) -> bool {
        let spec = &self.wanted.units;
        // Without rows nothing can be counted, and only pages are told apart without doubt.
        let is_countless = !matches!(spec.verify, Some(Verify::Count))
            && matches!(spec.strategy, UnitStrategy::Auto | UnitStrategy::Ctid | UnitStrategy::None);
        let known = self.known.get().filter(|_| is_countless && filters.iter().all(|filter| self.can_filter(filter)));
        let Some(known) = known.filter(|known| aggregate::may(aggregation, filters, &self.wanted, known)) else {
            return false;
        };
        let too_many = too_many_groups(&aggregation.groups, &known.distinct);
        let may = too_many.is_none();
        self.declined.note(too_many);
        may
    }

    async fn split(&self, unit: &WorkUnit, most: u64) -> Option<(WorkUnit, WorkUnit)> {
        let held = self.held();
        self.splitter.split(&self.wanted, held.as_ref(), unit, most).await
    }

    async fn stats(&self) -> SourceStats {
        self.known().await.map(|known| known.stats).unwrap_or_default()
    }
}
