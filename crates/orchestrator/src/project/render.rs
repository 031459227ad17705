//! Rendering.
use super::Project;
use gristmill_model::spec::PipelineSpec;
use gristmill_model::yaml::Diagnostic;
use gristmill_model::{Error, Interval, Result, RunId, TemplateContext};
use std::collections::BTreeMap;
use std::path::Path;

impl Project {
    /// Loads.
    ///
    /// # Errors
    /// Any.
    pub fn load(path: &Path, profile: Option<&str>) -> Result<Self> {
        let _ = (path, profile);
        Err(Error::internal("not there yet"))
    }
    /// Renders.
    ///
    /// # Errors
    /// Any.
    pub fn render(
        &self,
        pipeline: &str,
        run: &RunId,
        interval: Interval,
        params: &BTreeMap<String, String>,
    ) -> Result<(PipelineSpec, TemplateContext)> {
        let _ = (pipeline, run, interval, params);
        Err(Error::internal("not there yet"))
    }
    /// Validates.
    #[must_use]
    pub fn validate(&self) -> Vec<Diagnostic> {
        Vec::new()
    }
}
