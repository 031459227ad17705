//! Views as tables of a session: what a query may name is registered when it is first named.

use crate::checks::{Judge, Tally, Unique, UniqueNumbers, flag_rows, unique_plan};
use crate::dead_letters::DeadLetters;
use crate::error::{from_datafusion, in_step};
use crate::increment::{Increments, Progress};
use crate::meter::Meter;
use crate::pipe::Pipe;
use crate::rowwise;
use crate::session::Engine;
use crate::table::{ExtractTable, NativeTable, PipedTable};
use chrono::{DateTime, Utc};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, TableReference};
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::{Expr, cast};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::future::BoxFuture;
use gristmill_connect::{NewRows, RejectSink, Source, sources, without_comments};
use gristmill_model::spec::{CheckKind, ExtractSpec, OnFail, OneOrMany, PipelineSpec, Step, StepBody};
use gristmill_model::{ConnectionName, Error, ErrorKind, JobSpec, Result, ResultExt, StepKind, StepName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The part of the pool that one pipe may hold, and its bounds in bytes.
const PIPE_SHARE: u64 = 8;
const PIPE_LEAST: u64 = 8 << 20;
const PIPE_MOST: u64 = 256 << 20;
/// The part of the pool that the bitmap of one uniqueness check may hold.
const UNIQUE_SHARE: u64 = 8;

/// Registers views in a session, each once, and keeps what is needed to run and report them.
pub(crate) struct Resolver {
    engine: Arc<Engine>,
    pub(crate) session: SessionContext,
    steps: BTreeMap<StepName, Step>,
    shared: Vec<StepName>,
    /// Checks are planned for jobs; interactive queries look at the rows as they are.
    with_checks: bool,
    now: DateTime<Utc>,
    dead_letters: Option<Arc<DeadLetters>>,
    /// What sources are told that they are read for.
    job: Option<String>,
    /// Where incremental extracts go on. Interactive queries read everything.
    increments: Arc<Increments>,
    /// The pipes that rows of a replay come through.
    replayed: BTreeSet<String>,
    pub(crate) views: Vec<View>,
    pub(crate) pipes: Vec<PipeJob>,
}

/// A view that has been registered.
pub(crate) struct View {
    pub(crate) step: StepName,
    pub(crate) kind: StepKind,
    pub(crate) meter: Arc<Meter>,
    pub(crate) origin: Origin,
}

/// Where a view's rows come from.
pub(crate) enum Origin {
    Native(Arc<NativeTable>),
    Extract(Arc<ExtractTable>),
    Query,
}

/// A pipe and what fills it.
pub(crate) struct PipeJob {
    pub(crate) step: StepName,
    pub(crate) pipe: Arc<Pipe>,
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) judge: Arc<Judge>,
    pub(crate) tallies: Vec<Arc<Tally>>,
    pub(crate) uniques: Vec<Unique>,
    /// Uniqueness that is looked at while rows pass.
    pub(crate) numbers: Vec<Arc<UniqueNumbers>>,
    /// Rows that came in, good and bad; the good ones are in `out`.
    pub(crate) seen: Arc<Meter>,
    pub(crate) out: Arc<Meter>,
    /// Rows that went on.
    pub(crate) passed: Arc<AtomicU64>,
}

impl PipeJob {
    /// Whether the rows are looked at even when nobody reads them.
    pub(crate) fn must_finish(&self) -> bool {
        !self.tallies.is_empty()
    }

    /// Rows that went on so far.
    pub(crate) fn out_rows(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Resolver {
    /// For the views of one job.
    pub(crate) fn for_job(
        engine: Arc<Engine>,
        session: SessionContext,
        job: &JobSpec,
        shared: &[StepName],
        dead_letters: Arc<DeadLetters>,
        increments: Arc<Increments>,
    ) -> Self {
        Self {
            increments,
            job: Some(crate::stage::name_of(job)),
            shared: shared.to_vec(),
            with_checks: true,
            dead_letters: Some(dead_letters),
            ..Self::for_queries(engine, session, &job.pipeline)
        }
    }

    /// For interactive queries: no checks, nothing shared.
    pub(crate) fn for_queries(engine: Arc<Engine>, session: SessionContext, pipeline: &PipelineSpec) -> Self {
        Self {
            steps: pipeline.steps.iter().map(|step| (step.name.clone(), step.clone())).collect(),
            ..Self::for_files(engine, session)
        }
    }

    /// For queries over files alone.
    pub(crate) fn for_files(engine: Arc<Engine>, session: SessionContext) -> Self {
        Self {
            engine,
            session,
            steps: BTreeMap::new(),
            shared: Vec::new(),
            with_checks: false,
            now: Utc::now(),
            dead_letters: None,
            job: None,
            increments: Arc::default(),
            replayed: BTreeSet::new(),
            views: Vec::new(),
            pipes: Vec::new(),
        }
    }

    /// Registers a step's view and everything it reads.
    pub(crate) fn view<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.session.table_exist(bare(name)).map_err(from_datafusion)? {
                return Ok(());
            }
            let Some(step) = self.steps.get(name).cloned() else { return Ok(()) };
            self.register(&step).await.map_err(|error| in_step(error, name))
        })
    }

    async fn register(&mut self, step: &Step) -> Result<()> {
        let meter = Meter::new(step.name.clone());
        let is_shared = self.with_checks && self.shared.contains(&step.name);
        let is_checked = self.with_checks && !step.checks.is_empty();
        let mut piped = is_shared || is_checked;
        // A piped view's own rows are read under a hidden name; the step's name is the reading end of the pipe.
        let mut own = if piped { format!("__rows_{}", step.name) } else { step.name.to_string() };
        let origin = match &step.body {
            StepBody::Extract(extract) if extract.tables.is_some() => {
                return Err(Error::new(ErrorKind::Config, format!("`{}` stands for many tables", step.name))
                    .hint(format!("name one of them: `{}.TABLE` in a query, or an extract of its own", extract.from)));
            }
            StepBody::Extract(extract) => {
                let connection = self.engine.connection(&extract.from)?;
                let mut source = connection.source(extract)?;
                let progress = self.increments.get(&step.name).cloned();
                if let Some(progress) = &progress {
                    let narrowed = progress.narrow(source.as_ref(), extract).await;
                    source = match narrowed.context(|| format!("connection `{}`", extract.from))? {
                        NewRows::Extract(narrowed) => connection.source(&narrowed)?,
                        NewRows::Source(narrowed) => narrowed,
                    };
                }
                if let Some(job) = &self.job {
                    source.within(&format!("{job}/{}", step.name));
                }
                let opened = self.open(&extract.from, source, extract.on_bad_row, &meter, progress.clone()).await;
                let (origin, schema) = opened.context(|| format!("connection `{}`", extract.from))?;
                if let Origin::Native(table) = &origin
                    && table.is_cheap_to_read_again()
                    && !is_checked
                    && extract.dedup.is_none()
                    && step.cache != Some(true)
                {
                    (piped, own) = (false, step.name.to_string());
                }
                match &extract.dedup {
                    None => self.add(&own, &origin, &schema)?,
                    Some(dedup) => {
                        let all = format!("__all_{}", step.name);
                        self.add(&all, &origin, &schema)?;
                        let frame = self.session.sql(&crate::dedup::query(dedup, &all, &schema)?).await;
                        let view = frame.map_err(from_datafusion)?.into_view();
                        self.session.register_table(bare(&own), view).map_err(from_datafusion)?;
                    }
                }
                origin
            }
            StepBody::Generate(generate) => {
                let source: Arc<dyn Source> = Arc::new(sources::generate::GenerateSource::new(generate)?);
                let name = ConnectionName::from("generator");
                let (origin, schema) = self.open(&name, source, OnFail::Fail, &meter, None).await?;
                self.add(&own, &origin, &schema)?;
                origin
            }
            StepBody::Sql(sql) => {
                let frame = self.query(&sql.text).await?;
                rowwise::carries(frame.logical_plan(), &self.replayed)?;
                self.session.register_table(bare(&own), frame.into_view()).map_err(from_datafusion)?;
                Origin::Query
            }
            _ => return Err(Error::internal(format!("`{}` is not a view", step.name))),
        };
        let kind = step.body.kind();
        self.views.push(View { step: step.name.clone(), kind, meter: meter.clone(), origin });
        if piped {
            self.pipe(&step.name, &own, step, meter).await?;
        }
        Ok(())
    }

    /// Sources that this job would read more than once, each time seeing another moment, unless they are shared.
    pub(crate) fn read_again(&self) -> Vec<StepName> {
        let is_read_again = |view: &&View| {
            matches!(&view.origin, Origin::Extract(table) if table.scans.load(Ordering::Relaxed) > 1)
                // A cursor has one place to go on from.
                && (self.increments.get(&view.step).is_some()
                    || self.steps.get(&view.step).is_some_and(|step| step.cache != Some(false)))
                && !self.shared.contains(&view.step)
        };
        self.views.iter().filter(is_read_again).map(|view| view.step.clone()).collect()
    }

    /// Registers the reading end of a pipe under `name`; its producer reads the table `own` and judges its rows by the
    /// checks of `step`.
    pub(crate) async fn pipe(&mut self, name: &StepName, own: &str, step: &Step, out: Arc<Meter>) -> Result<()> {
        for check in &step.checks {
            if let Some(other) = check.kind.reads() {
                self.view(other).await?;
            }
        }
        let frame = self.session.table(bare(own)).await.map_err(from_datafusion)?;
        if rowwise::carries(frame.logical_plan(), &self.replayed)? {
            self.replayed.insert(name.to_string());
        }
        let columns = frame.schema().fields().len();
        let tallies: Vec<Arc<Tally>> = step.checks.iter().map(|check| Arc::new(Tally::new(check.clone()))).collect();
        let flagged = flag_rows(&self.session, frame, &tallies, self.now).await?;
        let plan = flagged.create_physical_plan().await.map_err(from_datafusion)?;
        let schema: SchemaRef = Arc::new(Schema::new(plan.schema().fields()[..columns].to_vec()));
        let lanes = plan.output_partitioning().partition_count();
        let limit = (self.engine.limit.pool / PIPE_SHARE).clamp(PIPE_LEAST, PIPE_MOST);
        let (pressure, spill_dir) = (self.engine.pressure.clone(), self.engine.spill_dir());
        let pipe = Pipe::new(name.as_str(), schema, lanes, limit, pressure, self.engine.runtime(), spill_dir);
        self.session
            .register_table(bare(name.as_str()), Arc::new(PipedTable::new(pipe.clone(), plan.as_ref())))
            .map_err(from_datafusion)?;
        let (mut uniques, mut numbers) = (Vec::new(), Vec::new());
        for tally in &tallies {
            if let CheckKind::Unique { columns } = &tally.check.kind {
                if let Some(passing) = self.unique_numbers(&pipe, columns, tally) {
                    numbers.push(Arc::new(passing));
                    continue;
                }
                uniques.push(unique_plan(&self.session, name.as_str(), columns, tally.clone()).await?);
            }
        }
        let keys = if tallies.is_empty() { Vec::new() } else { self.key_columns(step).await };
        self.pipes.push(PipeJob {
            step: step.name.clone(),
            judge: Arc::new(Judge::new(columns, &tallies, keys)),
            pipe,
            plan,
            tallies,
            uniques,
            numbers,
            seen: Meter::new(step.name.clone()),
            out,
            passed: Arc::default(),
        });
        Ok(())
    }

    /// The columns that tell the rows of a view apart, for people: as the pipeline says, or else as its table does. Where
    /// neither does, or the table cannot be asked now, rows are told without.
    async fn key_columns(&self, step: &Step) -> Vec<String> {
        let said = crate::checks::key_columns(step, &self.steps);
        if !said.is_empty() {
            return said;
        }
        match self.views.iter().find(|view| view.step == step.name).map(|view| &view.origin) {
            Some(Origin::Extract(table)) => table.source.key().await.unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// A uniqueness check of one column of whole numbers, which needs no plan of its own.
    fn unique_numbers(&self, pipe: &Pipe, columns: &[String], tally: &Arc<Tally>) -> Option<UniqueNumbers> {
        let [column] = columns else { return None };
        let schema = pipe.schema();
        let (position, field) = schema.column_with_name(column)?;
        let limit = usize::try_from(self.engine.limit.pool / UNIQUE_SHARE).unwrap_or(usize::MAX);
        let (runtime, spill_dir) = (self.engine.runtime(), self.engine.spill_dir());
        UniqueNumbers::new(position, field.data_type(), tally.clone(), pipe.lanes(), limit, runtime, spill_dir)
    }

    /// Plans a query over steps of the pipeline.
    async fn query(&mut self, text: &str) -> Result<DataFrame> {
        let names = {
            let state = self.session.state();
            let dialect = state.config_options().sql_parser.dialect;
            let statement = state.sql_to_statement(text, &dialect).map_err(from_datafusion)?;
            state.resolve_table_references(&statement).map_err(from_datafusion)?
        };
        for name in names {
            if name.schema().is_none() {
                self.view(name.table()).await?;
            }
        }
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = self.session.sql_with_options(text, options).await.map_err(from_datafusion)?;
        distinct_columns(&frame)?;
        Ok(frame)
    }

    /// Opens a source as a table: the engine's own scan where the source offers files, units otherwise.
    async fn open(
        &self,
        connection: &ConnectionName,
        source: Arc<dyn Source>,
        on_bad_row: OnFail,
        meter: &Arc<Meter>,
        progress: Option<Arc<Progress>>,
    ) -> Result<(Origin, SchemaRef)> {
        let described = source.schema().await?;
        let mut schema = without_comments(&described);
        let contract = progress.as_ref().map(|progress| progress.columns(&schema)).transpose()?.flatten();
        if let Some(contract) = &contract {
            schema = contract.schema().clone();
        }
        let gate = progress.filter(|progress| progress.looks_at_rows());
        // The engine's own scan would pass the cursor and the contract by.
        if gate.is_none()
            && contract.is_none()
            && let Some(scan) = source.native().await?
        {
            return Ok((Origin::Native(Arc::new(NativeTable::new(scan, source, meter.clone()))), schema));
        }
        let counted = meter.clone();
        let rejects = match (on_bad_row, &self.dead_letters) {
            (OnFail::Fail, _) => RejectSink::none(),
            (OnFail::DeadLetter, Some(letters)) => letters.sink(meter.step.clone(), &schema, move || counted.reject(1)),
            (OnFail::Warn, _) => RejectSink::new(move |reject| counted.warn(&reject)),
            _ => RejectSink::new(move |_| counted.reject(1)),
        };
        let (counted, left_out) = (meter.clone(), meter.clone());
        let rejects = rejects.noting_fields(move |field| {
            counted.field_beyond(field);
            Ok(())
        });
        let rejects = rejects.counting_left_out(move || left_out.reject(1));
        let table = Arc::new(ExtractTable {
            connection: connection.clone(),
            source,
            schema: schema.clone(),
            described,
            on_bad_row,
            rejects: Some(rejects),
            parallelism: self.engine.parallelism,
            meter: meter.clone(),
            progress: gate,
            contract,
            planned: std::sync::Mutex::new(None),
            scans: AtomicUsize::new(0),
        });
        Ok((Origin::Extract(table), schema))
    }

    /// Registers an opened source under `name`, with the types of `schema`.
    fn add(&self, name: &str, origin: &Origin, schema: &Schema) -> Result<()> {
        let table: Arc<dyn TableProvider> = match origin {
            Origin::Native(table) => table.clone(),
            Origin::Extract(table) => table.clone(),
            Origin::Query => return Err(Error::internal("a query is not a source")),
        };
        if table.schema().fields() == schema.fields() {
            self.session.register_table(bare(name), table).map_err(from_datafusion)?;
            return Ok(());
        }
        // What is read with a digit more is rounded to what was asked for.
        let frame = self.session.read_table(table).map_err(from_datafusion)?;
        let columns = schema.fields().iter().map(|field| {
            let column = Expr::Column(Column::new_unqualified(field.name().as_str()));
            cast(column, field.data_type().clone()).alias(field.name())
        });
        let view = frame.select(columns.collect::<Vec<_>>()).map_err(from_datafusion)?.into_view();
        self.session.register_table(bare(name), view).map_err(from_datafusion)?;
        Ok(())
    }

    /// Registers a file, folder, glob or URL under its own name.
    pub(crate) async fn file(&mut self, path: &str) -> Result<()> {
        // A connection of its own: the folder of the project, the root of the machine, or the URL up to the last slash.
        let (url, rest) = if path.contains("://") {
            // A signature behind the `?` may have slashes of its own.
            let end = path.find('?').unwrap_or(path.len());
            path[..end].rfind('/').map_or((path, ""), |slash| (&path[..slash], &path[slash + 1..]))
        } else if let Some(rest) = path.strip_prefix('/') {
            ("/", rest)
        } else {
            (".", path)
        };
        let keys = serde_json::json!({"type": "files", "url": url}).to_string();
        let node = gristmill_model::yaml::parse("<query>", &keys);
        let connection = node
            .and_then(|node| gristmill_connect::registry::open(&node, &self.engine.open_context()))
            .map_err(|mistakes| gristmill_model::yaml::to_error(&mistakes))?;
        let source = connection.source(&extract_of(rest))?;
        // The name is shown; a signature in it is not.
        let shown = StepName::from(gristmill_connect::stores::redact(path));
        let meter = Meter::new(shown.clone());
        let (origin, schema) = self.open(&ConnectionName::from("files"), source, OnFail::Fail, &meter, None).await?;
        self.add(path, &origin, &schema)?;
        self.views.push(View { step: shown, kind: StepKind::Extract, meter, origin });
        Ok(())
    }
}

/// An extract of one path, everything else by default.
fn extract_of(path: &str) -> ExtractSpec {
    ExtractSpec {
        path: Some(OneOrMany(vec![path.to_owned()])),
        on_bad_row: OnFail::Fail,
        ..ExtractSpec::new(ConnectionName::from("files"))
    }
}

/// A table name as it stands: no case folding, no splitting at dots.
pub(crate) fn bare(name: &str) -> TableReference {
    TableReference::bare(name.to_owned())
}

/// A view's columns must have different names: they become columns of files and tables.
fn distinct_columns(frame: &DataFrame) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for field in frame.schema().fields() {
        if !seen.insert(field.name()) {
            return Err(Error::new(
                ErrorKind::Query,
                format!("the query returns two columns named `{}`", field.name()),
            )
            .hint("give one of them another name with `AS`, or name the columns instead of `*`"));
        }
    }
    Ok(())
}
