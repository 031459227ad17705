//! The one explicit list of connectors.

use crate::wrap::limit::{LimitedConnection, take_limit};
use crate::{Connection, OpenContext};
use gristmill_model::one_of;
use gristmill_model::yaml::{Diagnostic, Node};
use std::sync::Arc;

/// Opens a connection from its keys (without `type`), secrets already put in.
pub type OpenConnection = fn(&Node, &OpenContext) -> Result<Arc<dyn Connection>, Vec<Diagnostic>>;

/// A connector: its name, its keys, and how it is opened.
#[derive(Debug, Clone, Copy)]
pub struct Connector {
    /// The `type:` of a connection.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// The JSON schema of its keys (without `type`).
    pub schema: fn() -> schemars::Schema,
    /// Opens a connection from its keys (without `type`), secrets already put in. Touches nothing outside.
    pub open: OpenConnection,
}

/// Every connector there is.
#[must_use]
pub fn connectors() -> Vec<Connector> {
    let [mysql, mariadb] = crate::sources::mysql::connectors();
    let (files, http) = (crate::sources::files::connector(), crate::sources::http::connector());
    vec![files, http, mysql, mariadb, crate::sources::postgres::connector(), crate::sources::sqlite::connector()]
}

/// The JSON schema of the keys that a connection of every type takes.
#[must_use]
pub fn common_schema() -> schemars::Schema {
    schemars::schema_for!(crate::wrap::limit::LimitKeys)
}

/// Opens a connection of the project.
///
/// # Errors
/// An unknown or missing `type`, unknown or missing keys; all of them, each with its place.
pub fn open(node: &Node, context: &OpenContext) -> Result<Arc<dyn Connection>, Vec<Diagnostic>> {
    let connectors = connectors();
    let names = || connectors.iter().map(|connector| connector.name);
    let mut keys = node.clone();
    let Some(kind) = keys.take("type") else {
        return Err(vec![node.diagnostic("the key `type` is missing", Some(one_of("", names())))]);
    };
    let wanted = kind.text().unwrap_or_default();
    match connectors.iter().find(|connector| connector.name == wanted) {
        Some(connector) => {
            let limit = take_limit(&mut keys);
            let opened = (connector.open)(&keys, context);
            match (limit, opened) {
                (Ok(None), opened) => opened,
                (Ok(Some(pace)), Ok(inner)) => Ok(Arc::new(LimitedConnection { inner, pace })),
                (Ok(Some(_)), Err(mistakes)) | (Err(mistakes), Ok(_)) => Err(mistakes),
                (Err(mut mistakes), Err(others)) => {
                    mistakes.extend(others);
                    Err(mistakes)
                }
            }
        }
        None => {
            Err(vec![kind.diagnostic(format!("unknown connection type `{wanted}`"), Some(one_of(wanted, names())))])
        }
    }
}
