//! HTTP APIs: `type: http`.
//!
//! ```text
//!   path + http: {…} ─► request ─► client ─────────► answer ─► page: facts ─► paginate: what comes next
//!                         ▲        auth, limit,                  │
//!      parents (for_each) ┘        retry, redirects              └─► the readers of files ─► arrow batches
//! ```
//!
//! The first pages are looked at for columns and kept (`source`); pages whose number is known, and parents, become units
//! that are read in parallel (`units`). What comes after a page is decided by a pure function of what it says
//! (`paginate`), which refuses what would lose records, double them or never end. A page is read only when it is whole
//! and judged, so that trying a request again can never double a record; what is worth another try is told in one place
//! (`faults`).
//!
//! Credentials, headers and parameters of the connection go to its own host and to no other, whatever a link or redirect
//! says, and messages show neither a query nor an answer's echo of a secret.

mod auth;
mod body;
mod client;
mod config;
mod faults;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod increment;
mod kept;
mod link;
mod page;
mod paginate;
mod parents;
mod path;
mod raw;
mod records;
mod request;
mod secrets;
mod source;
mod template;
#[cfg(test)]
mod tests;
mod units;

use crate::registry::Connector;
use crate::{Connection, ConnectionInfo, Discovered, LoadContext, OpenContext, Sink, Source};
use async_trait::async_trait;
use client::{Answer, Api, Call};
use config::Config;
use gristmill_model::spec::{ExtractSpec, HttpMethod, LoadSpec};
use gristmill_model::yaml::{Diagnostic, Node};
use gristmill_model::{Error, ErrorKind, Result};
use reqwest::header::{HeaderMap, SERVER};
use source::HttpSource;
use std::sync::Arc;

/// The entry of the registry.
#[must_use]
pub fn connector() -> Connector {
    Connector {
        name: "http",
        about: "an HTTP API, read page by page",
        schema: || schemars::schema_for!(config::HttpKeys),
        open,
    }
}

fn open(node: &Node, context: &OpenContext) -> Result<Arc<dyn Connection>, Vec<Diagnostic>> {
    Ok(Arc::new(HttpConnection { api: Arc::new(Api::new(Config::from_node(node)?, &context.state)) }))
}

/// An HTTP API.
#[derive(Debug)]
struct HttpConnection {
    api: Arc<Api>,
}

#[async_trait]
impl Connection for HttpConnection {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn describe(&self) -> String {
        client::shown(&self.api.config.base)
    }

    async fn test(&self) -> Result<ConnectionInfo> {
        let call = Call {
            method: HttpMethod::Get,
            url: self.api.config.base.clone(),
            headers: HeaderMap::new(),
            body: None,
            what: format!("`GET {}`", self.describe()),
        };
        // Many an API has nothing at its root; that it answers so is enough.
        let seen = |answer: &Answer| {
            let server = answer.headers.get(SERVER).and_then(|value| value.to_str().ok()).unwrap_or("an HTTP server");
            Ok(ConnectionInfo {
                server: server.to_owned(),
                details: vec![("url".to_owned(), self.describe()), ("status".to_owned(), answer.status.to_string())],
            })
        };
        self.api.fetch(&call, &[400, 404, 405, 410], seen).await
    }

    async fn discover(&self) -> Result<Vec<Discovered>> {
        Err(Error::new(
            ErrorKind::Config,
            format!("`{}` cannot be listed: an API has no list of its paths", self.describe()),
        )
        .hint("name what is asked for with `path:` of an extract"))
    }

    fn ended(&self, whole: &str) {
        self.api.shelf.ended(whole);
    }

    fn source(&self, extract: &ExtractSpec) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(HttpSource::open(self.api.clone(), extract)?))
    }

    fn sink(&self, load: &LoadSpec, _: LoadContext) -> Result<Arc<dyn Sink>> {
        Err(Error::new(ErrorKind::Config, format!("`{}` is an HTTP API, which can only be read", load.to.as_str()))
            .hint("load to files or to a database"))
    }
}
