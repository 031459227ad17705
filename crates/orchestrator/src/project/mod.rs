//! Loading a project from its files: `gristmill.yaml`, `.env`, `pipelines/*.yaml`, SQL files and secrets.

mod env;
mod load;
mod memory;
mod render;
mod secrets;
mod validate;

use gristmill_model::spec::ProjectSpec;
use gristmill_model::yaml::{Diagnostic, Node};
use gristmill_model::{ConnectionName, Error, ErrorKind, PipelineName, Result, one_of};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A project: what its files say under one profile, secrets put in.
///
/// [`Project::load`], [`Project::render`] and [`Project::validate`] read files and block while they do; in async code
/// call them before the work begins or inside `spawn_blocking`. `Debug` shows names only, never the value of a
/// connection.
#[derive(Clone)]
pub struct Project {
    /// Its folder, absolute; relative paths start here.
    pub root: PathBuf,
    /// What `gristmill.yaml` says. Connections are as written there, secrets not yet put in.
    pub spec: ProjectSpec,
    /// Connections by name, under the chosen profile, **with secrets**: hand them to connectors, never to a log.
    pub connections: BTreeMap<ConnectionName, Node>,
    /// Where state lives: `.gristmill/` in the project's folder.
    pub state: PathBuf,
    /// What `.env` adds to the environment; the real environment goes first.
    pub(crate) dotenv: BTreeMap<String, String>,
    /// The pipeline files, in the order of their paths.
    pub(crate) drafts: Vec<Draft>,
    /// Made for one command: its pipeline is not in any file, and another command makes another one of that name.
    pub(crate) made: bool,
    /// The pipeline whose file was named when the project was loaded.
    pub(crate) chosen: Option<PipelineName>,
    /// Where `main:` stands.
    pub(crate) main_place: Option<Node>,
}

/// A pipeline file that has been read but not rendered.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The pipeline's name.
    pub name: PipelineName,
    /// Its file, relative to the project.
    pub file: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its parameters and their defaults.
    pub params: BTreeMap<String, String>,
    /// Its tree, or why it could not be read.
    pub(crate) node: Result<Node, Vec<Diagnostic>>,
}

impl fmt::Debug for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Project")
            .field("root", &self.root)
            .field("name", &self.spec.name)
            .field("profile", &self.spec.profile)
            .field("connections", &self.connections.keys().map(ConnectionName::as_str).collect::<Vec<_>>())
            .field("pipelines", &self.drafts.iter().map(|draft| draft.name.as_str()).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Project {
    /// Every pipeline of the project, in the order of their files.
    #[must_use]
    pub fn pipelines(&self) -> &[Draft] {
        &self.drafts
    }

    /// The pipeline of that name.
    ///
    /// # Errors
    /// No pipeline of that name, with the one that was meant; a file that is not YAML, with every mistake in it.
    pub fn pipeline(&self, name: &str) -> Result<&Draft> {
        let Some(draft) = self.drafts.iter().find(|draft| draft.name.as_str() == name) else {
            let names = self.drafts.iter().map(|draft| draft.name.as_str());
            return Err(
                Error::new(ErrorKind::Usage, format!("the pipeline `{name}` does not exist")).hint(one_of(name, names))
            );
        };
        match &draft.node {
            Ok(_) => Ok(draft),
            Err(mistakes) => Err(gristmill_model::yaml::to_error(mistakes)),
        }
    }

    /// The pipeline that runs when none is named: the one whose file the project was loaded by, the one that `main:`
    /// names, or the only one.
    ///
    /// # Errors
    /// No pipelines at all, or several and none of them chosen.
    pub fn main(&self) -> Result<&Draft> {
        if let Some(name) = self.chosen.as_ref().or(self.spec.main.as_ref()) {
            return self.pipeline(name.as_str());
        }
        match self.drafts.as_slice() {
            [] => Err(Error::new(ErrorKind::Config, format!("the project `{}` has no pipelines", self.spec.name))
                .hint("add one as `pipelines/NAME.yaml`")),
            [only] => self.pipeline(only.name.as_str()),
            several => {
                let names: Vec<String> = several.iter().map(|draft| format!("`{}`", draft.name)).collect();
                Err(Error::new(
                    ErrorKind::Usage,
                    format!("the project `{}` has several pipelines: {}", self.spec.name, names.join(", ")),
                )
                .hint(format!(
                    "choose one, e.g. `--pipeline {}`, or name it in `gristmill.yaml` as `main:`",
                    several[0].name
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests;
