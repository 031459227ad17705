//! Finding and reading a project's files.

use super::secrets::{Variables, resolve};
use super::{Draft, Project, env};
use gristmill_model::spec::{Defaults, ProjectSpec};
use gristmill_model::yaml::{Diagnostic, Node, parse, to_error};
use gristmill_model::{Error, ErrorKind, PipelineName, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The file that makes a folder a project.
const PROJECT_FILE: &str = "gristmill.yaml";

impl Project {
    /// Loads the project at or above `path` under a profile. Reads files and blocks meanwhile.
    ///
    /// `path` is a folder or a pipeline file. The project is the nearest folder at or above it with a
    /// `gristmill.yaml`; a pipeline file outside of any project gets an empty project in its own folder. A pipeline
    /// file need not be in `pipelines/`; the one named here is what [`Project::main`] answers.
    ///
    /// Pipeline files that are not YAML do not keep the others from running: [`Project::pipeline`] and
    /// [`Project::validate`] say what is wrong with them.
    ///
    /// # Errors
    /// A path that does not exist, no project there, everything wrong in `gristmill.yaml` and `.env`, every variable
    /// and secret file that is missing; each mistake with file, line and column.
    pub fn load(path: &Path, profile: Option<&str>) -> Result<Self> {
        Self::load_with(path, profile, &|name| std::env::var(name).ok())
    }

    /// As [`Project::load`], with another environment than the process's.
    ///
    /// # Errors
    /// As [`Project::load`].
    pub fn load_with(path: &Path, profile: Option<&str>, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        match Self::load_partly(path, profile, environment)? {
            (project, mistakes) if mistakes.is_empty() => Ok(project),
            (_, mistakes) => Err(to_error(&mistakes)),
        }
    }

    /// As [`Project::load`], for whoever wants to see every mistake at once: variables and secret files that are missing,
    /// and what is wrong in `.env`, come beside the project instead of in its place, so that the pipelines can be looked
    /// at too. It is not fit to run.
    ///
    /// # Errors
    /// A path that does not exist, no project there, everything wrong in `gristmill.yaml`.
    pub fn load_to_validate(path: &Path, profile: Option<&str>) -> Result<(Self, Vec<Diagnostic>)> {
        Self::load_partly(path, profile, &|name| std::env::var(name).ok())
    }

    fn load_partly(
        path: &Path,
        profile: Option<&str>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Diagnostic>)> {
        let Place { root, pipeline, is_project } = find(path)?;
        let text = if is_project { Some(read(&root.join(PROJECT_FILE))?) } else { None };
        let mut mistakes: Vec<Diagnostic> = Vec::new();
        let dotenv_path = root.join(".env");
        let dotenv = if dotenv_path.is_file() {
            env::parse(".env", &read(&dotenv_path)?).unwrap_or_else(|found| {
                mistakes.extend(found);
                BTreeMap::new()
            })
        } else {
            BTreeMap::new()
        };
        let (spec, main_place) = match text {
            Some(text) => {
                let node = parse(PROJECT_FILE, &text);
                let main_place = node.as_ref().ok().and_then(|node| node.get("main").cloned());
                match node.and_then(|node| ProjectSpec::from_node(&node, profile)) {
                    Ok(spec) => (spec, main_place),
                    Err(found) => {
                        mistakes.extend(found);
                        return Err(to_error(&mistakes));
                    }
                }
            }
            None => (empty(&root, profile)?, None),
        };
        let mut connections = spec.connections.clone();
        let variables = Variables {
            get: &|name| environment(name).or_else(|| dotenv.get(name).cloned()),
            names: dotenv.keys().map(String::as_str).collect(),
            root: &root,
        };
        for connection in connections.values_mut() {
            resolve(connection, &variables, &mut mistakes);
        }
        mistakes.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        let mut files = pipeline_files(&root)?;
        if let Some(pipeline) = &pipeline
            && !files.contains(pipeline)
        {
            files.push(pipeline.clone());
        }
        let mut drafts = Vec::with_capacity(files.len());
        for file in &files {
            drafts.push(draft(&root, file)?);
        }
        let chosen = pipeline
            .and_then(|pipeline| files.iter().position(|file| *file == pipeline))
            .map(|position| drafts[position].name.clone());
        refuse_double_names(&mut drafts);
        let state = root.join(".gristmill");
        let made = false;
        Ok((Self { root, spec, connections, state, dotenv, drafts, made, chosen, main_place }, mistakes))
    }
}

/// Where a project is.
struct Place {
    root: PathBuf,
    /// The pipeline file that was named.
    pipeline: Option<PathBuf>,
    is_project: bool,
}

fn find(path: &Path) -> Result<Place> {
    let shown = path.display();
    let full = match std::fs::canonicalize(path) {
        Ok(full) => full,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::new(ErrorKind::Usage, format!("`{shown}` does not exist"))
                .hint("name a project's folder or a pipeline file; `gristmill init NAME` makes a new project"));
        }
        Err(error) => return Err(Error::io(&error, format!("`{shown}`"))),
    };
    if full.is_dir() {
        return match above(&full) {
            Some(root) => Ok(Place { root, pipeline: None, is_project: true }),
            None => Err(Error::new(
                ErrorKind::Config,
                format!("there is no `{PROJECT_FILE}` in `{shown}` or in a folder above it"),
            )
            .hint("name a project's folder or a pipeline file; `gristmill init NAME` makes a new project")),
        };
    }
    let folder = full.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    if full.file_name().is_some_and(|name| name == PROJECT_FILE) {
        return Ok(Place { root: folder, pipeline: None, is_project: true });
    }
    if !is_yaml(&full) {
        return Err(Error::new(ErrorKind::Usage, format!("`{shown}` is not a pipeline file"))
            .hint("a pipeline file ends with `.yaml` or `.yml`"));
    }
    match above(&folder) {
        Some(root) => Ok(Place { root, pipeline: Some(full), is_project: true }),
        None => Ok(Place { root: folder, pipeline: Some(full), is_project: false }),
    }
}

fn above(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find(|folder| folder.join(PROJECT_FILE).is_file()).map(Path::to_path_buf)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn empty(root: &Path, profile: Option<&str>) -> Result<ProjectSpec> {
    if let Some(profile) = profile {
        return Err(Error::new(ErrorKind::Usage, format!("the profile `{profile}` does not exist"))
            .hint(format!("the pipeline file is outside of any project, and profiles are in `{PROJECT_FILE}`")));
    }
    let name = root.file_name().map_or_else(|| "project".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(ProjectSpec {
        name,
        main: None,
        connections: BTreeMap::new(),
        profiles: Vec::new(),
        profile: None,
        defaults: Defaults::default(),
        vars: BTreeMap::new(),
    })
}

fn pipeline_files(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("pipelines");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(&error, "`pipelines/`")),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::io(&error, "`pipelines/`"))?.path();
        if is_yaml(&path) && path.is_file() {
            files.push(std::fs::canonicalize(&path).map_err(|error| Error::io(&error, "`pipelines/`"))?);
        }
    }
    files.sort();
    Ok(files)
}

fn draft(root: &Path, file: &Path) -> Result<Draft> {
    let shown = relative(root, file);
    let text = match std::fs::read(file) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text"),
        Err(error) => return Err(Error::io(&error, format!("`{shown}`"))),
    };
    let node = match &text {
        Ok(text) => parse(&shown, text),
        Err(message) => Err(vec![Diagnostic {
            file: shown.clone(),
            line: 1,
            column: 1,
            message: (*message).to_owned(),
            hint: None,
        }]),
    };
    let stem = shown.rsplit('/').next().unwrap_or_default().split('.').next().unwrap_or_default();
    let text_of = |key: &str| node.as_ref().ok().and_then(|node| node.get(key)).and_then(Node::text).map(str::to_owned);
    let name = PipelineName::from(text_of("name").unwrap_or_else(|| stem.to_owned()));
    let description = text_of("description");
    let params = node.as_ref().ok().and_then(|node| node.get("params")).map_or(&[][..], Node::entries);
    let params = params
        .iter()
        .filter_map(|entry| Some((entry.key.text()?.to_owned(), entry.value.text().unwrap_or_default().to_owned())))
        .collect();
    // Names become parts of load keys and of paths.
    let fine = !name.as_str().is_empty()
        && name.as_str().chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && !name.as_str().starts_with('.');
    let node = node.and_then(|node| {
        if fine {
            return Ok(node);
        }
        let hint = Some("use letters, digits, `_`, `-` and `.`".to_owned());
        let place = node.get("name").unwrap_or(&node);
        Err(vec![place.diagnostic(format!("`{name}` cannot be a pipeline name"), hint)])
    });
    Ok(Draft { name, file: shown, description, params, node })
}

/// Two pipelines of one name would share their slots, so neither of them may run.
fn refuse_double_names(drafts: &mut [Draft]) {
    let names: Vec<(PipelineName, String)> =
        drafts.iter().map(|draft| (draft.name.clone(), draft.file.clone())).collect();
    for (position, draft) in drafts.iter_mut().enumerate() {
        let other = names.iter().enumerate().find(|(other, (name, _))| *other != position && *name == draft.name);
        if let (Some((_, (_, other))), Ok(node)) = (other, &draft.node) {
            let place = node.get("name").unwrap_or(node);
            let message = format!("the pipeline name `{}` is taken by `{other}` too", draft.name);
            draft.node = Err(vec![place.diagnostic(message, Some("give one of them another `name:`".to_owned()))]);
        }
    }
}

/// A path below the root, with `/` between its parts on every system.
pub(super) fn relative(root: &Path, file: &Path) -> String {
    let parts: Vec<String> = file
        .strip_prefix(root)
        .unwrap_or(file)
        .components()
        .filter(|part| !matches!(part, Component::CurDir))
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    parts.join("/")
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(&error, format!("`{}`", path.display())))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::new(ErrorKind::Config, format!("`{}` is not UTF-8 text", path.display())))
}
