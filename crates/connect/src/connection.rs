//! A connection: one outside system, from which sources and sinks are opened.

use crate::{Compacted, Compaction, LoadContext, Recovered, Sink, Source};
use async_trait::async_trait;
use gristmill_model::spec::{ExtractSpec, FoundTable, LoadSpec};
use gristmill_model::{CancellationToken, Error, ErrorKind, OwnerId, Result};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What every connector gets to know about the project it serves.
#[derive(Debug, Clone)]
pub struct OpenContext {
    /// The project's folder; relative paths start here.
    pub project: PathBuf,
    /// Where state lives (`.gristmill/` by default); side files of sinks go below it.
    pub state: PathBuf,
}

/// One outside system, opened from a connection of the project.
///
/// Opening it is cheap and touches nothing; servers are called when a source or sink is used.
#[async_trait]
pub trait Connection: fmt::Debug + Send + Sync {
    /// The connector's name: `sqlite`, `postgres`, `files`.
    fn kind(&self) -> &'static str;

    /// Where it leads, for people; never with a secret in it.
    fn describe(&self) -> String;

    /// Looks whether the system answers and the credentials work.
    ///
    /// # Errors
    /// What is wrong, with a hint: unreachable, refused, not there.
    async fn test(&self) -> Result<ConnectionInfo>;

    /// Lists what can be extracted: tables, or files grouped by folder. At most a few thousand.
    ///
    /// # Errors
    /// When the system cannot be asked.
    async fn discover(&self) -> Result<Vec<Discovered>>;

    /// Every table and view there is, for extracts of many (`tables: "public.*"`).
    ///
    /// # Errors
    /// A connection without tables; a system that cannot be asked.
    async fn tables(&self) -> Result<Vec<FoundTable>> {
        Err(Error::new(ErrorKind::Config, format!("`tables` is for databases, and `{}` has none", self.describe()))
            .hint("name a `path`: a folder or a pattern of files is one extract already"))
    }

    /// Says that jobs have ended, for good or ill, and will not be tried again: all whose name ([`Source::within`]) is `whole`
    /// or begins with it and a slash. What was kept for further attempts can go.
    fn ended(&self, whole: &str) {
        let _ = whole;
    }

    /// The place its files are in, where it is one of files.
    fn files(&self) -> Option<Arc<crate::stores::Store>> {
        None
    }

    /// Opens a source for an extract step. Checks what the spec says without calling the system.
    ///
    /// # Errors
    /// A spec that this connector cannot serve (`table` on a folder, `path` on a database).
    fn source(&self, extract: &ExtractSpec) -> Result<Arc<dyn Source>>;

    /// Opens a sink for a load step. Checks what the spec says without calling the system.
    ///
    /// # Errors
    /// A spec that this connector cannot serve.
    fn sink(&self, load: &LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>>;

    /// Rewrites many small files of a target into few; the rows stay. `owner` does it, `is_dead` says which earlier ones died, to
    /// sweep what they left; `cancel` is heard between two partitions.
    ///
    /// # Errors
    /// A connection without files; a target that has none; a store that refuses.
    async fn compact(
        &self,
        want: &Compaction,
        owner: &OwnerId,
        is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Vec<Compacted>> {
        let _ = (want, owner, is_dead, cancel);
        Err(Error::new(ErrorKind::Config, format!("`{}` has no files that could be compacted", self.describe()))
            .hint("name a folder of a connection of type `files`"))
    }

    /// Finishes what compactions of the folder `path` had decided, and sweeps what they had only staged, where `is_dead` says so
    /// of their owner.
    ///
    /// # Errors
    /// A store that refuses.
    async fn recover_compactions(
        &self,
        path: &str,
        is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync),
    ) -> Result<Recovered> {
        let _ = (path, is_dead);
        Ok(Recovered::default())
    }
}

/// What [`Connection::test`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Name and version of the server, or the store's kind.
    pub server: String,
    /// More to know: database name, user, number of tables.
    pub details: Vec<(String, String)>,
}

/// Something a connection can extract from.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovered {
    /// The table, or the folder or file.
    pub name: String,
    /// Estimated rows, where they can be told.
    pub rows: Option<u64>,
    /// Bytes on disk, where they can be told.
    pub bytes: Option<u64>,
    /// The columns of the primary key.
    pub key: Vec<String>,
    /// Columns and their types, in order.
    pub columns: Vec<(String, String)>,
    /// Columns that may do as `incremental_key`, the likeliest first.
    pub cursors: Vec<String>,
}
