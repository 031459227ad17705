//! tmp
use std::sync::Arc;
/// tmp
pub fn open_path(_path: &str, _extract: &gristmill_model::spec::ExtractSpec, _context: &crate::OpenContext) -> gristmill_model::Result<Arc<dyn crate::Source>> { Err(gristmill_model::Error::internal("tmp")) }
