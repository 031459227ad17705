//! What most commands begin with: the project, the pipeline, the date, the store.

use crate::printer::Printer;
use crate::{local_engine, logs};
use chrono::{Days, NaiveDate, Utc};
use gristmill_connect::{Connection, OpenContext, registry};
use gristmill_model::yaml::{Diagnostic, to_error};
use gristmill_model::{ByteSize, ConnectionName, Error, ErrorKind, Interval, Result, one_of};
use gristmill_orchestrator::{Project, SqliteStore};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Loads the project that `path` is in. Files are read on a thread of their own.
pub(crate) async fn load(path: &Path, profile: Option<&str>) -> Result<Arc<Project>> {
    let (path, profile) = (path.to_owned(), profile.map(str::to_owned));
    tokio::task::spawn_blocking(move || Project::load(&path, profile.as_deref()))
        .await
        .map_err(|error| Error::internal("loading the project ended early").cause(error))?
        .map(Arc::new)
}

/// Loads a project that may have mistakes, and says which.
pub(crate) async fn load_to_validate(path: &Path, profile: Option<&str>) -> Result<(Arc<Project>, Vec<Diagnostic>)> {
    let (path, profile) = (path.to_owned(), profile.map(str::to_owned));
    let loaded = tokio::task::spawn_blocking(move || Project::load_to_validate(&path, profile.as_deref()))
        .await
        .map_err(|error| Error::internal("loading the project ended early").cause(error))?;
    loaded.map(|(project, mistakes)| (Arc::new(project), mistakes))
}

/// Opens the project's store and begins its log file; both make the state folder.
pub(crate) async fn open_state(project: &Project) -> Result<Arc<SqliteStore>> {
    logs::keep_in(&project.state)?;
    Ok(Arc::new(SqliteStore::open(&project.state).await?))
}

/// The project's store, for looking at: none where nothing has run yet, so that looking makes no folder.
pub(crate) async fn existing_store(project: &Project) -> Result<Option<Arc<SqliteStore>>> {
    if !project.state.is_dir() {
        return Ok(None);
    }
    Ok(Some(Arc::new(SqliteStore::open_to_look(&project.state).await?)))
}

/// The pipeline that is meant: the named one, or the project's main one.
pub(crate) fn pipeline(project: &Project, named: Option<&str>) -> Result<gristmill_model::PipelineName> {
    let draft = match named {
        Some(name) => project.pipeline(name)?,
        None => project.main()?,
    };
    Ok(draft.name.clone())
}

/// The interval of the given date, or of yesterday, which is said aloud.
pub(crate) fn interval(date: Option<NaiveDate>, printer: &Printer) -> Result<Interval> {
    if let Some(date) = date {
        return Ok(Interval::day(date));
    }
    let yesterday = Utc::now()
        .date_naive()
        .checked_sub_days(Days::new(1))
        .ok_or_else(|| Error::new(ErrorKind::Usage, "the clock has no yesterday").hint("give a `--date`"))?;
    printer.note(format!("no --date given: taking yesterday, {yesterday} (UTC)"));
    Ok(Interval::day(yesterday))
}

/// Parameters as a map; the last one of a name counts.
pub(crate) fn params(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}

/// What connectors get to know about the project.
pub(crate) fn open_context(project: &Project) -> OpenContext {
    OpenContext { project: project.root.clone(), state: project.state.clone() }
}

/// Opens one connection of the project.
pub(crate) fn connection(project: &Project, name: &str) -> Result<Arc<dyn Connection>> {
    let Some(node) = project.connections.get(&ConnectionName::from(name)) else {
        let names = project.connections.keys().map(ConnectionName::as_str);
        return Err(
            Error::new(ErrorKind::Usage, format!("the connection `{name}` does not exist")).hint(one_of(name, names))
        );
    };
    registry::open(node, &open_context(project)).map_err(|mistakes| to_error(&mistakes))
}

/// What the engine needs to know about the project.
pub(crate) fn engine_options(project: &Project, memory: Option<ByteSize>) -> local_engine::Options {
    local_engine::Options {
        project_root: project.root.clone(),
        state_dir: project.state.clone(),
        profile: project.spec.profile.clone(),
        dead_letters: project.spec.defaults.dead_letters.clone(),
        ledger: project.spec.defaults.ledger,
        connections: project.connections.clone(),
        memory: memory.or(project.spec.defaults.memory),
        parallelism: project.spec.defaults.parallelism,
        collect: false,
    }
}
