//! Reading an API: a look at its first pages, units, and rows page by page.

use super::client::{Api, Call};
use super::increment;
use super::kept::{Attempt, Key};
use super::page::{Layout, Page};
use super::paginate::{self, Asked, Refused, Sequence};
use super::parents::Wanted;
use super::request::{Extra, Fields, Request};
use super::units::{self, Draft, One, Payload, Said};
use crate::sources::files::schema;
use crate::types::parse_type;
use crate::{Consistency, Increment, Narrowed, NewRows, ReadPlan, ReadRequest, Retry, Rows, Scan, Source, SourceStats};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use gristmill_model::spec::{ExtractSpec, ForEach, HttpSpec, SchemaContract, UnitStrategy, UnitsSpec};
use gristmill_model::{Error, ErrorKind, Result, WorkUnit};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::OnceCell;

/// Pages that are looked at, at most, where nothing else is said …
const SAMPLE_PAGES: u32 = 3;

/// … and records, after which no further page is.
const SAMPLE_RECORDS: u64 = 1_000;

/// Parents that are asked for a sample, at most: many may have no children.
const SAMPLE_PARENTS: usize = 20;

/// What an API answers, as one table.
pub(super) struct HttpSource {
    inner: Arc<Inner>,
}

/// What reading needs.
struct Inner {
    api: Arc<Api>,
    spec: ExtractSpec,
    http: HttpSpec,
    request: Request,
    layout: Layout,
    parents: Option<Parents>,
    overrides: BTreeMap<String, DataType>,
    /// The columns that were loaded before, of an increment: new records may be few, or none.
    known: Option<SchemaRef>,
    picture: OnceCell<Picture>,
    /// What earlier attempts of the run have read.
    kept: OnceLock<Attempt>,
    /// Some of it was used.
    is_resumed: AtomicBool,
}

/// How parents are asked for.
struct Parents {
    http: HttpSpec,
    request: Request,
    layout: Layout,
    wanted: Wanted,
}

/// What was seen when it was first looked at.
#[derive(Debug)]
struct Picture {
    /// What the source gives.
    schema: SchemaRef,
    /// The pages that were looked at; they are not asked for again.
    pages: HashMap<Key, Arc<Page>>,
    /// The first page of all, unless there are parents.
    first: Option<Arc<Page>>,
    /// How many records the first pages have, unless there are parents.
    sizes: Vec<u64>,
    parents: Vec<Fields>,
}

impl std::fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSource").field("request", &self.inner.request.name).finish_non_exhaustive()
    }
}

impl HttpSource {
    /// Opens what an extract asks for; calls nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for keys that an API has not, paths, types and places in JSON that cannot be.
    pub(super) fn open(api: Arc<Api>, spec: &ExtractSpec) -> Result<Self> {
        Self::with(api, spec, Vec::new(), None)
    }

    fn with(api: Arc<Api>, spec: &ExtractSpec, extra: Vec<Extra>, known: Option<SchemaRef>) -> Result<Self> {
        let wrong = |message: String, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint));
        for (given, key) in
            [(spec.table.is_some(), "table"), (spec.query.is_some(), "query"), (spec.filter.is_some(), "where")]
        {
            if given {
                return wrong(
                    format!("`{key}:` is for databases, and `{}` is an HTTP API", spec.from.as_str()),
                    "name what is asked for with `path:`, and filter with `http: {params: …}` or in a `sql` step",
                );
            }
        }
        let path = match spec.path.as_ref().map(|paths| paths.0.as_slice()) {
            Some([path]) => path,
            None | Some([]) => "",
            Some(_) => return wrong("an API is asked for one `path`".to_owned(), "make a step of each path"),
        };
        if let Some(units) = &spec.units {
            units::check(units)?;
        }
        let mut overrides = BTreeMap::new();
        for (column, text) in &spec.schema {
            let data_type = parse_type(text).map_err(|error| {
                let message = format!("`schema:` gives `{column}` the unknown type `{text}`");
                Error::new(ErrorKind::Config, message).hint(error.hint_text().unwrap_or_default())
            })?;
            overrides.insert(column.clone(), data_type);
        }
        let http = spec.http.as_deref().cloned().unwrap_or_default();
        // A library that builds a spec by hand has not been through the reader of pipeline files.
        if let Some((message, hint)) = http.mistakes().into_iter().next() {
            return Err(Error::new(ErrorKind::Config, message).maybe_hint(hint));
        }
        if http.for_each.is_some() && spec.units.as_ref().is_some_and(|units| units.target_rows.is_some()) {
            return wrong(
                "`target_rows` of `units` is not for children of parents".to_owned(),
                "leave it out: nobody knows how many rows a parent has; `max` says how many units there may be",
            );
        }
        let mut request = Request::new(path, &http, &api.config, http.for_each.is_some())?;
        request.extra = extra;
        let layout = Layout::new(spec, &http)?;
        let parents = http.for_each.as_ref().map(|parents| Parents::new(parents, spec, &request, &api)).transpose()?;
        let (picture, kept, is_resumed) = (OnceCell::new(), OnceLock::new(), AtomicBool::new(false));
        let inner = Inner {
            api,
            spec: spec.clone(),
            http,
            request,
            layout,
            parents,
            overrides,
            known,
            picture,
            kept,
            is_resumed,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Parents {
    fn new(parents: &ForEach, spec: &ExtractSpec, child: &Request, api: &Api) -> Result<Self> {
        let http = parents.http();
        let request = Request::new(&parents.path, &http, &api.config, false)?;
        // Parents are JSON, whatever their children are.
        let own = ExtractSpec {
            format: None,
            csv: None,
            compression: None,
            json: parents.records.clone().map(|records| gristmill_model::spec::JsonOptions { records: Some(records) }),
            ..spec.clone()
        };
        let layout = Layout::new(&own, &http)?;
        Ok(Self { wanted: Wanted::new(parents, child)?, http, request, layout })
    }
}

#[async_trait]
impl Source for HttpSource {
    async fn schema(&self) -> Result<SchemaRef> {
        Ok(self.inner.picture().await?.schema.clone())
    }

    async fn narrow(&self, extract: &ExtractSpec, increment: &Increment) -> Result<Narrowed> {
        let (extra, next) = increment::narrow(&self.inner.http, increment)?;
        let source = Self::with(self.inner.api.clone(), extract, extra, increment.schema())?;
        Ok(Narrowed { rows: NewRows::Source(Arc::new(source)), next })
    }

    fn within(&self, job: &str) {
        // A source is opened for one job.
        let _ = self.inner.kept.set(self.inner.api.shelf.attempt(job));
    }

    async fn plan(&self, want: &ReadRequest) -> Result<ReadPlan> {
        let inner = &self.inner;
        let picture = inner.picture().await?;
        if let Some(columns) = &want.columns {
            schema::only(&picture.schema, columns)?;
        }
        // Where some columns are left out anyway, a field more is left out as well.
        let wanted = want.columns.as_ref().map_or(picture.schema.fields().len(), Vec::len);
        let whole =
            Some(wanted).filter(|wanted| *wanted == picture.schema.fields().len() && inner.spec.columns.is_empty());
        let spec = inner.spec.units.clone().unwrap_or_default();
        let (drafts, why) = inner.divide(picture, &spec, want.parallelism)?;
        let mut plan_units = Vec::with_capacity(drafts.len());
        for (ordinal, Draft { label, requests, rows }) in drafts.into_iter().enumerate() {
            plan_units.push(WorkUnit {
                ordinal: u32::try_from(ordinal).map_err(|_| Error::internal("more units than can be counted"))?,
                label,
                payload: serde_json::to_value(Said { whole, requests })
                    .map_err(|error| Error::internal("a unit cannot be written").cause(error))?,
                rows: Some(rows).filter(|rows| *rows > 0),
                bytes: None,
            });
        }
        let is_one_answer = inner.http.paginate.is_none() && inner.parents.is_none();
        Ok(ReadPlan {
            units: plan_units,
            consistency: if is_one_answer { Consistency::SingleRead } else { Consistency::PerUnit },
            why,
            pushed_down: Vec::new(),
            retry: Retry::Requests,
            pin: None,
        })
    }

    fn read(&self, unit: &WorkUnit, scan: &Scan) -> Rows {
        let (sequences, whole) = match units::sequences(unit) {
            Ok(said) => said,
            Err(error) => return Rows::failed(scan.schema.clone(), error),
        };
        let own: Vec<_> =
            scan.schema.fields().iter().filter(|field| !self.inner.is_parents(field.name())).cloned().collect();
        let own = Scan { schema: Arc::new(Schema::new(own)), ..scan.clone() };
        let is_whole = whole == Some(scan.schema.fields().len());
        let reader = Reader {
            inner: self.inner.clone(),
            schema: scan.schema.clone(),
            scan: own.heeding_fields(is_whole, self.inner.spec.schema_contract, Vec::new()),
            waiting: sequences.into(),
            current: None,
            rows: None,
        };
        let batches = futures::stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|batch| (batch, reader)))
        });
        Rows::new(scan.schema.clone(), batches)
    }

    async fn stats(&self) -> SourceStats {
        let first = self.inner.picture.get().and_then(|picture| picture.first.as_ref());
        let rows = first.and_then(|page| match (page.facts.total_records, page.facts.total_pages) {
            (Some(records), _) => Some(records),
            (None, Some(pages)) => Some(pages.saturating_mul(page.facts.records)),
            (None, None) if self.inner.http.paginate.is_none() => Some(page.facts.records),
            _ => None,
        });
        SourceStats { rows, bytes: None }
    }
}

impl Inner {
    fn is_parents(&self, column: &str) -> bool {
        self.parents.as_ref().is_some_and(|parents| parents.wanted.is_column(column))
    }

    async fn picture(&self) -> Result<&Picture> {
        self.picture.get_or_try_init(|| self.look()).await
    }

    /// Asks for the parents and the first pages, and makes one schema of what they have.
    async fn look(&self) -> Result<Picture> {
        let parents = match &self.parents {
            Some(parents) => parents.all(self).await?,
            None => Vec::new(),
        };
        let mut sample = Sample { most: self.http.sample_pages.unwrap_or(SAMPLE_PAGES), ..Sample::default() };
        if self.parents.is_none() {
            sample.take(self, None).await?;
        }
        for parent in parents.iter().take(SAMPLE_PARENTS) {
            if sample.enough() {
                break;
            }
            sample.take(self, Some(parent)).await?;
        }
        let mut named = Vec::new();
        for page in sample.order.iter().filter(|page| page.facts.records > 0) {
            named.push((page.name.as_str(), page.infer(&self.layout).await?));
        }
        let mut unified = schema::unify(&named, self.spec.schema_contract, true)?;
        if let Some(known) = &self.known {
            let known: Vec<_> = known.fields().iter().filter(|field| !self.is_parents(field.name())).cloned().collect();
            let both = [
                ("what was loaded before", Arc::new(Schema::new(known))),
                (self.request.name.as_str(), Arc::new(unified)),
            ];
            unified = schema::unify(&both, SchemaContract::Evolve, true)?;
        }
        let own: BTreeMap<String, DataType> = self
            .overrides
            .iter()
            .filter(|(name, _)| !self.is_parents(name))
            .map(|(name, data_type)| (name.clone(), data_type.clone()))
            .collect();
        if unified.fields().is_empty() && own.is_empty() {
            let what = if self.parents.is_some() && parents.is_empty() { "there are no parents" } else { "no records" };
            return Err(Error::new(
                ErrorKind::Data,
                format!("`{}` gave {what}, so there are no columns to read", self.request.name),
            )
            .hint("declare the columns, e.g. `schema: {id: bigint, name: text}`"));
        }
        let columns = schema::declared(&unified, &own, true)?;
        let mut fields: Vec<_> = columns.fields().iter().cloned().collect();
        if let Some(wanted) = self.parents.as_ref().map(|parents| &parents.wanted) {
            for field in wanted.columns(&parents, &columns)? {
                let declared = self.overrides.get(field.name()).cloned();
                let data_type = declared.unwrap_or_else(|| field.data_type().clone());
                fields.push(Arc::new(field.with_data_type(data_type)));
            }
        }
        let all = Schema::new(fields);
        let schema = if self.spec.columns.is_empty() { all } else { schema::only(&all, &self.spec.columns)? };
        let first = sample.order.first().filter(|_| self.parents.is_none()).cloned();
        let sizes = first.iter().flat_map(|_| &sample.order).map(|page| page.facts.records).collect();
        Ok(Picture { schema: Arc::new(schema), pages: sample.pages, first, sizes, parents })
    }

    /// Units with their labels and rows, and why these.
    fn divide(&self, picture: &Picture, spec: &UnitsSpec, lanes: usize) -> Result<(Vec<Draft>, String)> {
        let name = &self.request.name;
        let one = || vec![Draft { label: format!("`{name}`"), requests: Payload::Sequence {}, rows: 0 }];
        if self.parents.is_some() {
            let count = picture.parents.len();
            let why = format!("{count} parents, a sequence of requests for each");
            if spec.strategy == UnitStrategy::None {
                let requests = Payload::Parents { parents: picture.parents.clone() };
                let all = Draft { label: format!("`{name}`, all parents"), requests, rows: count as u64 };
                return Ok((vec![all], format!("{why}; one unit, as `units` says")));
            }
            let mut drafts = units::of_parents(&picture.parents, lanes, spec);
            drafts.iter_mut().for_each(|draft| draft.label = format!("`{name}`, {}", draft.label));
            return Ok((drafts, why));
        }
        if spec.strategy == UnitStrategy::None {
            return Ok((one(), "one unit, as `units` says".to_owned()));
        }
        let counted = match (&self.http.paginate, &picture.first) {
            (Some(rule), Some(first)) => {
                paginate::count(rule, &first.facts).map_err(|why| refused(why, &first.name))?
            }
            _ => None,
        };
        match (counted, &picture.first) {
            (Some(count), Some(first)) if count > 1 => {
                let most = self.http.max_pages.unwrap_or(paginate::MAX_PAGES);
                if count > most {
                    let why = format!("there are {count} pages, more than {most}");
                    let hint = "if that is right, say how many there may be with `max_pages`".to_owned();
                    return Err(refused(Refused { why, hint }, &first.name));
                }
                let records = first.facts.records;
                let hash = Some(first.facts.body).filter(|_| records > 0 && !self.http.allow_repeated_pages);
                let is_measure =
                    self.http.paginate.as_ref().is_some_and(|rule| paginate::is_counted_by_first(rule, &first.facts));
                let total = first.facts.total_records.unwrap_or(u64::MAX);
                if is_measure && !paginate::is_even(&picture.sizes, total) {
                    return Ok((one(), "one unit: pages that are not of one size cannot be counted".to_owned()));
                }
                let first = units::First { records, hash, is_measure };
                let mut drafts = units::of_pages(count, first, lanes, spec);
                drafts.iter_mut().for_each(|draft| draft.label = format!("`{name}`, {}", draft.label));
                Ok((drafts, format!("{count} pages, as the first of them says")))
            }
            (Some(_), _) => Ok((one(), "one page, as it says itself".to_owned())),
            (None, _) if *spec != UnitsSpec::default() => Err(Error::new(
                ErrorKind::Config,
                "`units` needs pages whose number is known",
            )
            .hint(
                "say where it is told: `paginate: {page: {total: {pages: meta.total_pages}}}`; or leave `units` out",
            )),
            (None, _) if self.http.paginate.is_some() => {
                Ok((one(), "one unit: each page is known by the one before it".to_owned()))
            }
            (None, _) => Ok((one(), "one request".to_owned())),
        }
    }

    /// A page: one that was looked at, or a fresh one.
    async fn page(&self, asked: &Asked, parent: Option<&Fields>) -> Result<Arc<Page>> {
        let call = self.request.call(&self.api.config, asked, parent)?;
        if let Some(page) = self.picture.get().and_then(|picture| picture.pages.get(&Key::from(&call))) {
            return Ok(page.clone());
        }
        Ok(Arc::new(self.fetch(&self.layout, &call).await?))
    }

    /// A page that an earlier attempt of the run has read, or what the API says now.
    async fn fetch(&self, layout: &Layout, call: &Call) -> Result<Page> {
        let Some(kept) = self.kept.get() else { return Page::fetch(&self.api, layout, call).await };
        let key = Key::from(call);
        if let Some((page, is_earlier)) = kept.find(&key).await {
            if is_earlier && !self.is_resumed.swap(true, Ordering::Relaxed) {
                tracing::info!("{}: pages that an earlier attempt has read are not asked for again", call.what);
            }
            return Ok(page);
        }
        match Page::fetch(&self.api, layout, call).await {
            Ok(page) => {
                kept.keep(key, &page).await;
                Ok(page)
            }
            // A token may have run out meanwhile: the next attempt begins with the first page.
            Err(error) if !error.is_retryable() && self.is_resumed.load(Ordering::Relaxed) => {
                kept.forget();
                Err(error.retryable(true).context("going on behind pages that an earlier attempt has read"))
            }
            Err(error) => Err(error),
        }
    }
}

impl Parents {
    /// All parents, page by page.
    async fn all(&self, inner: &Inner) -> Result<Vec<Fields>> {
        let mut sequence = Sequence::new(&self.http, None);
        let mut next = sequence.first();
        let (mut seen, mut all) = (HashSet::new(), Vec::new());
        while let Some(asked) = next {
            let call = self.request.call(&inner.api.config, &asked, None)?;
            let page = inner.fetch(&self.layout, &call).await?;
            next = sequence.next(&asked, &page.url, &page.facts).map_err(|why| refused(why, &page.name))?;
            if page.facts.records > 0 {
                self.wanted.take(super::page::without_mark(&page.body), &call.what, &mut seen, &mut all)?;
            }
        }
        Ok(all)
    }
}

/// Pages that were looked at.
#[derive(Default)]
struct Sample {
    most: u32,
    records: u64,
    pages: HashMap<Key, Arc<Page>>,
    order: Vec<Arc<Page>>,
}

impl Sample {
    fn enough(&self) -> bool {
        self.records >= SAMPLE_RECORDS || (self.records > 0 && self.order.len() as u64 >= u64::from(self.most))
    }

    /// Takes the first pages of a sequence.
    async fn take(&mut self, inner: &Inner, parent: Option<&Fields>) -> Result<()> {
        let mut sequence = Sequence::new(&inner.http, None);
        let mut next = sequence.first();
        let mut taken = 0;
        while let Some(asked) = next.take().filter(|_| taken < inner.http.sample_pages.unwrap_or(SAMPLE_PAGES)) {
            let call = inner.request.call(&inner.api.config, &asked, parent)?;
            let page = Arc::new(inner.fetch(&inner.layout, &call).await?);
            let further = sequence.next(&asked, &page.url, &page.facts).map_err(|why| refused(why, &page.name))?;
            self.records += page.facts.records;
            self.pages.insert(Key::from(&call), page.clone());
            self.order.push(page);
            taken += 1;
            if !self.enough() {
                next = further;
            }
        }
        Ok(())
    }
}

/// That a sequence of pages cannot go on after a page.
fn refused(Refused { why, hint }: Refused, page: &str) -> Error {
    Error::new(ErrorKind::Data, format!("`{page}`: {why}")).hint(hint)
}

/// A unit that is being read.
struct Reader {
    inner: Arc<Inner>,
    schema: SchemaRef,
    /// What is asked of the page's reader: without the columns of the parents.
    scan: Scan,
    waiting: VecDeque<One>,
    current: Option<Current>,
    rows: Option<Rows>,
}

/// A sequence that is being read.
struct Current {
    parent: Option<Fields>,
    sequence: Sequence,
    next: Option<Asked>,
}

impl Reader {
    /// The next batch; none at the end.
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = &mut self.rows {
                match rows.next().await {
                    Some(batch) => return self.assemble(batch?).map(Some),
                    None => self.rows = None,
                }
            }
            let Some(current) = &mut self.current else {
                let Some((share, parent)) = self.waiting.pop_front() else { return Ok(None) };
                let sequence = Sequence::new(&self.inner.http, share);
                let next = sequence.first();
                self.current = Some(Current { parent, sequence, next });
                continue;
            };
            let Some(asked) = current.next.take() else {
                self.current = None;
                continue;
            };
            let page = self.inner.page(&asked, current.parent.as_ref()).await?;
            // Judged before any of it is handed on: a page that repeats another is never read.
            current.next =
                current.sequence.next(&asked, &page.url, &page.facts).map_err(|why| refused(why, &page.name))?;
            if page.facts.records > 0 {
                let mut scan = self.scan.clone();
                // A record alone does not tell what its parent has.
                let parent = self.inner.parents.as_ref().zip(current.parent.as_ref());
                let beside = parent.map_or_else(|| "{}".to_owned(), |(parents, parent)| parents.wanted.beside(parent));
                scan.rejects = scan.rejects.map(|rejects| rejects.beside(&beside));
                self.rows = Some(page.rows(&self.inner.layout, scan).await?);
            }
        }
    }

    fn assemble(&self, batch: RecordBatch) -> Result<RecordBatch> {
        match (&self.inner.parents, self.current.as_ref().and_then(|current| current.parent.as_ref())) {
            (Some(parents), Some(parent)) => parents.wanted.assemble(&batch, &self.schema, parent),
            _ => Ok(batch),
        }
    }
}
