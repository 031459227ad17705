//! `gristmill copy`: an extract and a load in one line, run by the same driver as every pipeline.

use super::run::conclude;
use crate::args::CopyArgs;
use crate::exit::Outcome;
use crate::place::{Place, What};
use crate::printer::Printer;
use crate::progress::Progress;
use crate::{context, local_engine};
use chrono::{SubsecRound, TimeDelta, Utc};
use gristmill_connect::{OpenContext, registry};
use gristmill_model::spec::{CsvOptions, ExtractSpec, FileFormat, LoadSpec, OneOrMany, Strategy};
use gristmill_model::yaml::{Node, parse, to_error};
use gristmill_model::{ByteSize, CancellationToken, ConnectionName, Error, ErrorKind, Interval, Result, one_of};
use gristmill_orchestrator::{Driver, DriverOptions, ONE_LINE, Project, RunRequest};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Copies.
pub(crate) async fn run(args: CopyArgs, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    let project = surrounding(&args.project.project, args.project.profile.as_deref()).await?;
    let source = Place::parse(&args.source, "source", project.as_deref())?;
    let target = Place::parse(&args.target, "target", project.as_deref())?.named_by_url();
    if target.path().as_deref() == Some("-") {
        return Err(Error::new(ErrorKind::Usage, "standard output cannot be loaded exactly once")
            .hint("print rows with `gristmill sql … --format csv`"));
    }
    let extract = extract(&args, &source);
    let view = if args.query.is_some() { "answer" } else { "src" };
    let load = load(&Target { place: &target, from: view, format: args.to_format }, &args)?;
    let mut steps = serde_json::Map::new();
    steps.insert("src".to_owned(), serde_json::json!({"extract": extract}));
    if let Some(query) = &args.query {
        steps.insert("answer".to_owned(), serde_json::json!({"sql": query}));
    }
    execute(
        Job {
            project,
            places: vec![source, target.clone()],
            steps,
            load,
            target,
            given: args.strategy,
            memory: args.memory,
        },
        printer,
        cancel,
    )
    .await
}

/// Where rows go, and from which view.
pub(super) struct Target<'a> {
    pub(super) place: &'a Place,
    pub(super) from: &'a str,
    pub(super) format: Option<FileFormat>,
}

/// A pipeline of one load, as `copy` and `generate` make it.
pub(super) struct Job {
    /// The project around it, for its connections.
    pub(super) project: Option<Arc<Project>>,
    /// The places whose connections it needs.
    pub(super) places: Vec<Place>,
    /// Its views.
    pub(super) steps: serde_json::Map<String, serde_json::Value>,
    /// Its load.
    pub(super) load: LoadSpec,
    /// Where the load goes.
    pub(super) target: Place,
    /// The strategy that was given.
    pub(super) given: Option<Strategy>,
    /// A limit on memory.
    pub(super) memory: Option<ByteSize>,
}

/// Runs the job by the one driver.
pub(super) async fn execute(job: Job, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    let Job { project, places, steps, load, target, given, memory } = job;
    let mut connections: BTreeMap<ConnectionName, Node> =
        project.as_ref().map(|project| project.connections.clone()).unwrap_or_default();
    for place in &places {
        place.add_to(&mut connections);
    }
    let (root, state) = folders(project.as_deref())?;
    if given.is_none()
        && exists(&target, &connections, &OpenContext { project: root.clone(), state: state.clone() }).await?
    {
        return Err(Error::new(ErrorKind::Usage, format!("the target `{}` is there already", shown(&target)))
            .hint("say how new rows meet old ones: `--strategy replace` or `--strategy append`"));
    }
    let made = made_up(root, state, connections, steps, &load)?;
    let store = context::open_state(&made).await?;
    let options = context::engine_options(&made, memory);
    let runner = local_engine::runner(options)?;
    let progress = Progress::new(printer);
    // Every copy is a slot of its own: a second one is meant as a second one, not as a retry of the first.
    // As exact as the store keeps it, so that a recovery finds the same slot.
    let start = Utc::now().trunc_subsecs(6);
    let request = RunRequest {
        pipeline: ONE_LINE.into(),
        interval: Interval { start, end: start + TimeDelta::seconds(1) },
        params: BTreeMap::new(),
        selection: None,
        full_refresh: false,
        replay: None,
    };
    let options = DriverOptions { cancel, ..DriverOptions::default() };
    let report = Driver::new(made, store, runner, progress.events(), options).run(&request).await;
    progress.finish();
    let mut report = report?;
    report.error = report.error.map(own_flags);
    for step in &mut report.steps {
        step.error = step.error.take().map(own_flags);
    }
    conclude(printer, &[report], false)
}

/// A project of one pipeline of one load.
pub(super) fn made_up(
    root: PathBuf,
    state: PathBuf,
    connections: BTreeMap<ConnectionName, Node>,
    mut steps: serde_json::Map<String, serde_json::Value>,
    load: &LoadSpec,
) -> Result<Arc<Project>> {
    steps.insert("copy".to_owned(), serde_json::json!({"load": load}));
    let text = serde_json::json!({"name": ONE_LINE, "steps": steps}).to_string();
    let pipeline = parse("<command line>", &text).map_err(|mistakes| to_error(&mistakes))?;
    Project::in_memory(root, state, connections, pipeline).map(Arc::new)
}

/// The project around the command, if there is one: `copy` works without, but a broken one must be said.
pub(super) async fn surrounding(path: &Path, profile: Option<&str>) -> Result<Option<Arc<Project>>> {
    let whole = std::path::absolute(path).map_err(|error| Error::io(&error, format!("`{}`", path.display())))?;
    let inside = whole.ancestors().any(|folder| folder.join("gristmill.yaml").is_file());
    if inside || profile.is_some() || path != Path::new(".") {
        return context::load(path, profile).await.map(Some);
    }
    Ok(None)
}

/// Root and state folder: the project's, or the current folder and the user's own state folder.
pub(crate) fn folders(project: Option<&Project>) -> Result<(PathBuf, PathBuf)> {
    if let Some(project) = project {
        return Ok((project.root.clone(), project.state.clone()));
    }
    let root = std::env::current_dir().map_err(|error| Error::io(&error, "the current folder"))?;
    let state = std::env::var_os("XDG_STATE_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("gristmill");
    Ok((root, state))
}

/// Readers speak of the keys of a pipeline file; on this command line they are flags.
fn own_flags(error: Error) -> Error {
    let Some(hint) = error.hint_text() else { return error };
    let mut said = hint.to_owned();
    for what in ["dead_letter", "drop", "warn"] {
        said = said.replace(&format!("`on_bad_row: {what}`"), &format!("`--on-bad-row {what}`"));
    }
    said = said.replace("`on_bad_row`", "`--on-bad-row`").replace("`format:`", "`--from-format`");
    for (key, flag) in [("`format: ", "`--from-format "), ("`schema: {", "`--type ")] {
        while let Some(at) = said.find(key) {
            let inside = said[at + key.len()..].find('`').map_or(said.len(), |end| at + key.len() + end);
            let value = said[at + key.len()..inside].trim_end_matches('}').replace(": ", "=");
            said.replace_range(at..inside, &format!("{flag}{value}"));
        }
    }
    error.hint(said)
}

fn shown(place: &Place) -> String {
    match &place.what {
        What::Table(table) => format!("{}:{table}", place.connection),
        What::Path(path) => match place.made.as_ref().and_then(|node| node.get("url")).and_then(Node::text) {
            Some(url) => format!("{}/{path}", url.trim_end_matches('/')),
            None => format!("{}:{path}", place.connection),
        },
    }
}

/// Whether something is at the target: whatever can be extracted from it.
async fn exists(target: &Place, connections: &BTreeMap<ConnectionName, Node>, open: &OpenContext) -> Result<bool> {
    let Some(node) = connections.get(&target.connection) else {
        let names = connections.keys().map(ConnectionName::as_str);
        return Err(Error::new(ErrorKind::Usage, format!("the connection `{}` does not exist", target.connection))
            .hint(one_of(target.connection.as_str(), names)));
    };
    let connection = registry::open(node, open).map_err(|mistakes| to_error(&mistakes))?;
    let look = ExtractSpec { format: None, ..plain_extract(target) };
    match connection.source(&look)?.schema().await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        // Something is there that is not what its name says, or the place cannot be asked.
        Err(error) if matches!(error.kind(), ErrorKind::Data | ErrorKind::Schema) => Ok(true),
        Err(error) => Err(error),
    }
}

pub(super) fn plain_extract(place: &Place) -> ExtractSpec {
    ExtractSpec {
        table: place.table(),
        path: place.path().map(|path| OneOrMany(vec![path])),
        ..ExtractSpec::new(place.connection.clone())
    }
}

fn extract(args: &CopyArgs, source: &Place) -> ExtractSpec {
    let csv = (args.delimiter.is_some() || args.no_header).then(|| CsvOptions {
        delimiter: args.delimiter.clone(),
        header: args.no_header.then_some(false),
        ..CsvOptions::default()
    });
    ExtractSpec {
        columns: args.columns.clone(),
        format: args.from_format,
        csv,
        schema: args.types.iter().cloned().collect(),
        on_bad_row: args.on_bad_row.unwrap_or_default(),
        ..plain_extract(source)
    }
}

fn load(target: &Target<'_>, args: &CopyArgs) -> Result<LoadSpec> {
    let mut load = plain_load(target, args.strategy)?;
    load.key = OneOrMany(args.key.clone());
    load.partition_by = OneOrMany(args.partition_by.clone());
    load.compression = args.compression.or(load.compression);
    load.compression_level = args.compression_level;
    load.file_size = args.file_size;
    load.row_group_rows = args.row_group_rows;
    Ok(load)
}

/// A load of everything to a place; what its name tells is taken from there.
pub(super) fn plain_load(target: &Target<'_>, strategy: Option<Strategy>) -> Result<LoadSpec> {
    let (told, compression) = target.place.told();
    let format = match (&target.place.what, target.format.or(told)) {
        (What::Table(_), None) => None,
        (What::Table(table), Some(format)) => {
            return Err(Error::new(ErrorKind::Usage, format!("the table `{table}` has no file format"))
                .hint(format!("leave `--to-format {}` away", format.as_str())));
        }
        (What::Path(_), format) => Some(format.unwrap_or(FileFormat::Parquet)),
    };
    let strategy = strategy.unwrap_or(Strategy::Replace);
    Ok(LoadSpec {
        table: target.place.table(),
        path: target.place.path(),
        format,
        compression,
        ..LoadSpec::new(target.from.into(), target.place.connection.clone(), strategy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_flags_of_the_command_line() {
        let said = |hint: &str| {
            let error = own_flags(Error::new(ErrorKind::Data, "x").hint(hint));
            error.hint_text().map(str::to_owned).unwrap_or_default()
        };
        assert_eq!(
            said("correct the file, or say `on_bad_row: dead_letter` to go on"),
            "correct the file, or say `--on-bad-row dead_letter` to go on"
        );
        assert_eq!(said("read it as text (`schema: {column: text}`)"), "read it as text (`--type column=text`)");
        assert_eq!(
            said("say it with `format:`; or `format: json`"),
            "say it with `--from-format`; or `--from-format json`"
        );
    }
}
