//! The one door into DataFusion's session.

use crate::dead_letters;
use crate::error::from_datafusion;
use crate::memory::{MemoryLimit, Pressure, SpillFirstPool};
use crate::resolve::{Origin, Resolver};
use crate::spill::SpillFolder;
use crate::table::PushAggregates;
use chrono::{DateTime, Utc};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use gristmill_connect::{Connection, OpenContext, Source, registry};
use gristmill_model::spec::{DeadLettersSpec, LedgerSpec, PipelineSpec};
use gristmill_model::yaml::Node;
use gristmill_model::{ByteSize, ConnectionName, Error, ErrorKind, Letters, Result, one_of};
use std::collections::BTreeMap;
use std::io::ErrorKind as ErrorOf;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The part of the pool that a join's smaller side may take, by estimate, to be collected into one table; its most, in
/// bytes; and the bytes of a row where only rows are known.
const COLLECTED_SHARE: u64 = 16;
const COLLECTED_MOST: usize = 32 << 20;
const COLLECTED_ROW: usize = 64;

/// What an engine needs to know.
#[derive(Clone, Default)]
pub struct EngineOptions {
    /// The project's folder: relative paths start here.
    pub project_root: PathBuf,
    /// Where state lives: staging, spill files, dead letters.
    pub state_dir: PathBuf,
    /// The profile of the project that the connections are of; its dead letters are kept apart.
    pub profile: Option<String>,
    /// Where dead letters are kept, if not in the state folder.
    pub dead_letters: Option<DeadLettersSpec>,
    /// How long targets remember loads; for ever by default, and never less than [`LedgerSpec::LEAST`].
    pub ledger: Option<LedgerSpec>,
    /// The project's connections, secrets put in.
    pub connections: BTreeMap<ConnectionName, Node>,
    /// A limit on resident memory; by default a share of the machine.
    pub memory: Option<ByteSize>,
    /// How many partitions are worked on at once; by default the number of cores.
    pub parallelism: Option<usize>,
    /// Read every load's rows into memory before they are staged. Only there to be compared with streaming.
    pub collect: bool,
    /// Functions of the user's own, callable from every query.
    pub functions: Vec<ScalarUDF>,
    /// Aggregate functions of the user's own.
    pub aggregates: Vec<AggregateUDF>,
}

impl std::fmt::Debug for EngineOptions {
    /// Leaves the connections' keys out: they hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineOptions")
            .field("project_root", &self.project_root)
            .field("state_dir", &self.state_dir)
            .field("profile", &self.profile)
            .field("connections", &self.connections.keys().collect::<Vec<_>>())
            .field("memory", &self.memory)
            .field("parallelism", &self.parallelism)
            .finish_non_exhaustive()
    }
}

/// What all jobs of a process share: the memory pool, opened connections, the user's functions.
pub struct Engine {
    pub(crate) options: EngineOptions,
    pub(crate) limit: MemoryLimit,
    pub(crate) parallelism: usize,
    pub(crate) pressure: Pressure,
    runtime: Arc<RuntimeEnv>,
    connections: Mutex<BTreeMap<ConnectionName, Arc<dyn Connection>>>,
    /// After the runtime, whose files are in it.
    spill: Option<SpillFolder>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine with its memory pool. Makes the folder for spill files where the project has state; may block on it.
    ///
    /// # Errors
    /// A disk that is full. A state folder that must not be written is none: then the system's temporary folder is used.
    pub fn new(options: EngineOptions) -> Result<Arc<Self>> {
        let limit = MemoryLimit::decide(options.memory);
        gristmill_connect::memory::set_process_limit(limit.total);
        let pool = usize::try_from(limit.pool).unwrap_or(usize::MAX);
        let pressure = Pressure::default();
        let shown = NonZeroUsize::new(3).unwrap_or(NonZeroUsize::MIN);
        // A query outside of any project leaves nothing behind, so it spills to the system's temporary folder.
        let spill = if options.state_dir.is_dir() {
            match SpillFolder::new(&options.state_dir.join("spill")) {
                Ok(spill) => Some(spill),
                // Somebody else's project can be looked at all the same.
                Err(error) if matches!(error.kind(), ErrorOf::PermissionDenied | ErrorOf::ReadOnlyFilesystem) => None,
                Err(error) => {
                    return Err(Error::io(&error, format!("the folder `{}/spill`", options.state_dir.display())));
                }
            }
        } else {
            None
        };
        let mode = match &spill {
            Some(spill) => DiskManagerMode::Directories(vec![spill.path().to_owned()]),
            None => DiskManagerMode::OsTmpDirectory,
        };
        let disk = DiskManagerBuilder::default().with_mode(mode);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(TrackConsumersPool::new(SpillFirstPool::new(pool, pressure.clone()), shown)))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(from_datafusion)?;
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let parallelism = options.parallelism.unwrap_or(cores).max(1);
        Ok(Arc::new(Self { options, limit, parallelism, pressure, runtime, connections: Mutex::default(), spill }))
    }

    /// A fresh session. Hash joins keep their build side in memory and cannot spill; `hash_joins: false` plans
    /// sort-merge joins instead.
    pub(crate) fn session(&self, hash_joins: bool) -> SessionContext {
        let mut config = SessionConfig::new()
            .with_target_partitions(self.parallelism)
            .with_information_schema(true)
            .with_collect_statistics(true);
        let options = config.options_mut();
        options.optimizer.prefer_hash_join = hash_joins;
        // One table for all lanes, made of the whole smaller side, saves sending the larger side's rows to lanes by hash,
        // which copies them all.
        let collected = usize::try_from(self.limit.pool / COLLECTED_SHARE).unwrap_or(usize::MAX).min(COLLECTED_MOST);
        options.optimizer.hash_join_single_partition_threshold = collected;
        options.optimizer.hash_join_single_partition_threshold_rows = collected / COLLECTED_ROW;
        // A filter nothing is known about is taken to keep half of the rows, not a fifth: a side that was believed small
        // and is not costs far more memory than one that was believed large.
        options.optimizer.default_filter_selectivity = 50;
        options.execution.parquet.pushdown_filters = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(self.runtime.clone())
            .with_default_features()
            .build();
        let session = SessionContext::new_with_state(state);
        session.add_optimizer_rule(Arc::new(PushAggregates));
        for function in &self.options.functions {
            session.register_udf(function.clone());
        }
        for function in &self.options.aggregates {
            session.register_udaf(function.clone());
        }
        session
    }

    pub(crate) fn runtime(&self) -> &RuntimeEnv {
        &self.runtime
    }

    pub(crate) fn spill_dir(&self) -> PathBuf {
        self.spill.as_ref().map_or_else(std::env::temp_dir, |spill| spill.path().to_owned())
    }

    /// The folders every connector gets to know.
    #[must_use]
    pub fn open_context(&self) -> OpenContext {
        OpenContext { project: self.options.project_root.clone(), state: self.options.state_dir.clone() }
    }

    /// Makes a connection of the program's own known under a name, in place of the project's, if it has one of that name.
    ///
    /// # Errors
    /// When another thread died while it opened a connection.
    pub fn add_connection(&self, name: ConnectionName, connection: Arc<dyn Connection>) -> Result<()> {
        let mut opened =
            self.connections.lock().map_err(|_| Error::internal("the list of connections is not usable"))?;
        opened.insert(name, connection);
        Ok(())
    }

    /// Where dead letters are kept, if not in the state folder.
    pub(crate) fn shelf(&self) -> Result<Option<dead_letters::Shelf>> {
        let Some(spec) = &self.options.dead_letters else { return Ok(None) };
        let Some(to) = &spec.to else { return Ok(None) };
        let connection = self.connection(to)?;
        dead_letters::Shelf::new(spec, connection.as_ref(), &self.letters_home()).map(Some)
    }

    /// How long targets remember loads.
    pub(crate) fn ledger_retention(&self) -> Option<std::time::Duration> {
        let retention = self.options.ledger?.retention?;
        Some(retention.max(LedgerSpec::LEAST).0)
    }

    pub(crate) fn letters_home(&self) -> PathBuf {
        dead_letters::home(&self.options.state_dir, self.options.dead_letters.as_ref())
    }

    /// Copies dead letters that are kept in a connection to the state folder, to be looked at there.
    ///
    /// # Errors
    /// A connection that is no place for them, or cannot be read.
    pub async fn copy_letters(&self) -> Result<()> {
        match self.shelf()? {
            Some(shelf) => shelf.copy_all().await,
            None => Ok(()),
        }
    }

    /// Removes dead letters that are older than they are to be kept. Answers how many files of them.
    ///
    /// # Errors
    /// A folder or connection that cannot be read or written.
    pub async fn expire_letters(&self, now: DateTime<Utc>) -> Result<usize> {
        let Some(retention) = self.options.dead_letters.as_ref().and_then(|spec| spec.retention) else { return Ok(0) };
        dead_letters::expire(&self.letters_home(), self.shelf()?.as_ref(), retention, now).await
    }

    /// The connection of that name, opened on first use.
    ///
    /// # Errors
    /// A name the project does not know, or keys its connector does not take.
    pub fn connection(&self, name: &ConnectionName) -> Result<Arc<dyn Connection>> {
        let mut opened =
            self.connections.lock().map_err(|_| Error::internal("the list of connections is not usable"))?;
        if let Some(connection) = opened.get(name) {
            return Ok(connection.clone());
        }
        // Each is for one replay, which asks for it once.
        if let Some(letters) = Letters::of(name) {
            return Ok(dead_letters::connection(self, letters));
        }
        let Some(node) = self.options.connections.get(name) else {
            let known = self.options.connections.keys().map(ConnectionName::as_str);
            return Err(Error::new(ErrorKind::Config, format!("connection `{name}` does not exist"))
                .hint(one_of(name.as_str(), known)));
        };
        let connection = registry::open(node, &self.open_context())
            .map_err(|mistakes| gristmill_model::yaml::to_error(&mistakes).context(format!("connection `{name}`")))?;
        opened.insert(name.clone(), connection.clone());
        Ok(connection)
    }

    /// Says to the connections that a job will not be tried again.
    pub(crate) fn ended(&self, job: &str) {
        let opened = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        opened.values().for_each(|connection| connection.ended(job));
    }
}

/// A session for interactive queries and for programs: DataFusion's DataFrames over the project's views and any file.
pub struct Session {
    engine: Arc<Engine>,
    context: SessionContext,
    /// The sources whose files DataFusion reads itself; asked when that fails.
    sources: Mutex<Vec<Arc<dyn Source>>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Session {
    /// An empty session.
    #[must_use]
    pub fn new(engine: &Arc<Engine>) -> Self {
        Self { engine: engine.clone(), context: engine.session(true), sources: Mutex::default() }
    }

    /// Makes the views of a pipeline known as tables, under their step names. Only what a query names is opened.
    ///
    /// # Errors
    /// As a run of these steps: a missing table or file, a query that cannot be planned.
    pub async fn register_views(&self, pipeline: &PipelineSpec, names: &[&str]) -> Result<()> {
        let mut resolver = Resolver::for_queries(self.engine.clone(), self.context.clone(), pipeline);
        for name in names {
            resolver.view(name).await?;
        }
        self.remember(&resolver);
        Ok(())
    }

    fn remember(&self, resolver: &Resolver) {
        if let Ok(mut sources) = self.sources.lock() {
            sources.extend(resolver.views.iter().filter_map(|view| match &view.origin {
                Origin::Native(table) => Some(table.source.clone()),
                _ => None,
            }));
        }
    }

    /// What is wrong with a file, and where, for an error that a query of this session ended with: DataFusion's own scan
    /// says only that something is wrong, so the file is read once more.
    pub async fn explain(&self, error: DataFusionError) -> Error {
        let error = from_datafusion(error);
        if !matches!(error.kind(), ErrorKind::Data | ErrorKind::Internal) {
            return error;
        }
        let sources = self.sources.lock().map(|sources| sources.clone()).unwrap_or_default();
        for source in sources {
            if let Some(found) = source.diagnose().await {
                return found;
            }
        }
        error
    }

    /// Plans a query. A table name that looks like a file (`'data/x.parquet'`) is read as one; `'-'` is standard input.
    ///
    /// # Errors
    /// SQL that cannot be parsed or planned; anything that is not a query; files that cannot be read.
    pub async fn sql(&self, text: &str) -> Result<DataFrame> {
        self.register_files(text).await?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(true);
        self.context.sql_with_options(text, options).await.map_err(from_datafusion)
    }

    /// The names a query reads that are not tables of this session yet.
    ///
    /// # Errors
    /// SQL that cannot be parsed.
    pub fn unknown_tables(&self, text: &str) -> Result<Vec<String>> {
        let state = self.context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let statement = state.sql_to_statement(text, &dialect).map_err(from_datafusion)?;
        let references = state.resolve_table_references(&statement).map_err(from_datafusion)?;
        let mut names = Vec::new();
        for reference in references {
            if reference.schema().is_none() && !self.context.table_exist(reference.clone()).map_err(from_datafusion)? {
                names.push(reference.table().to_owned());
            }
        }
        Ok(names)
    }

    async fn register_files(&self, text: &str) -> Result<()> {
        for name in self.unknown_tables(text)? {
            let like_a_file = name == "-" || name.contains(['/', '.', '*']) || name == "stdin";
            if like_a_file {
                let mut resolver = Resolver::for_files(self.engine.clone(), self.context.clone());
                resolver.file(&name).await?;
                self.remember(&resolver);
            }
        }
        Ok(())
    }

    /// DataFusion's own session, for everything it can do.
    #[must_use]
    pub fn context(&self) -> &SessionContext {
        &self.context
    }
}
