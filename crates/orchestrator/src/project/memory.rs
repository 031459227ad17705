//! A project without files.

use super::{Draft, Project};
use gristmill_model::spec::{Defaults, ProjectSpec};
use gristmill_model::yaml::Node;
use gristmill_model::{ConnectionName, PipelineName, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

impl Project {
    /// A project of one pipeline that stands in no file: what `gristmill copy` and embedding programs run.
    ///
    /// `pipeline` is the tree of a pipeline file; connections are taken as they are, secrets already put in.
    ///
    /// # Errors
    /// None today; the pipeline's own mistakes are told by [`Project::render`], as for any other.
    pub fn in_memory(
        root: PathBuf,
        state: PathBuf,
        connections: BTreeMap<ConnectionName, Node>,
        pipeline: Node,
    ) -> Result<Self> {
        let name = PipelineName::from(pipeline.get("name").and_then(Node::text).unwrap_or("pipeline"));
        let spec = ProjectSpec {
            name: name.to_string(),
            main: Some(name.clone()),
            connections: connections.clone(),
            profiles: Vec::new(),
            profile: None,
            defaults: Defaults::default(),
            vars: BTreeMap::new(),
        };
        let draft = Draft {
            name: name.clone(),
            file: pipeline.file.to_string(),
            description: None,
            params: BTreeMap::new(),
            node: Ok(pipeline),
        };
        Ok(Self {
            root,
            spec,
            connections,
            state,
            dotenv: BTreeMap::new(),
            drafts: vec![draft],
            made: true,
            chosen: Some(name),
            main_place: None,
        })
    }
}
