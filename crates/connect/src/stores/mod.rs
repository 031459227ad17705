//! Object stores: local disk, S3, Google Cloud Storage, Azure, HTTP.
//!
//! A [`Store`] is one place files live in, opened from the `url` of a connection. Everything above it speaks
//! [`object_store::ObjectStore`]; what differs between the stores is here: how each is opened and authenticated
//! (`open.rs`), what their errors mean ([`error`]), and which of them can hold a multipart upload open for another
//! process ([`Store::multipart`]).

mod bucket;
mod error;
mod folder;
mod local;
mod open;
mod options;
#[cfg(test)]
mod tests;

pub(crate) use bucket::NewBucket;
pub use error::{error, explain, redact};
pub use options::StoreOptions;

use object_store::ObjectStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Which kind of place a [`Store`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// A folder of this machine.
    Local,
    /// Amazon S3, or a server that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage or Data Lake Storage.
    Azure,
    /// A web server: single URLs, no listing.
    Http,
}

impl StoreKind {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local disk",
            Self::S3 => "S3",
            Self::Google => "Google Cloud Storage",
            Self::Azure => "Azure storage",
            Self::Http => "HTTP",
        }
    }
}

/// A place files live in: an object store, and the folder of it that a connection leads to.
#[derive(Clone)]
pub struct Store {
    /// Reads and writes; locations count from the root of the store ([`Store::url`]), not from the folder.
    pub store: Arc<dyn ObjectStore>,
    /// Multipart uploads that can be finished by another process; not on local disk and not over HTTP.
    pub multipart: Option<Arc<dyn MultipartStore>>,
    /// The folder of the store that the connection leads to; everything is below it.
    pub prefix: Path,
    /// The root of the store: `file:///`, `s3://bucket`, `https://host`. Never with a secret in it.
    pub url: url::Url,
    /// The folder on local disk, absolute.
    pub local: Option<PathBuf>,
    /// How to make the bucket, where the connection says that it may be made.
    pub(crate) bucket: Option<NewBucket>,
    kind: StoreKind,
    endpoint: Option<String>,
}

impl Store {
    /// Which kind of place it is.
    #[must_use]
    pub fn kind(&self) -> StoreKind {
        self.kind
    }

    /// Where it leads, for people: `s3://bucket/prefix at http://localhost:9000`. Never with a secret in it.
    #[must_use]
    pub fn describe(&self) -> String {
        let place = match &self.local {
            Some(folder) => folder.display().to_string(),
            None => self.full_name(&self.prefix),
        };
        match &self.endpoint {
            Some(endpoint) => format!("{place} at {endpoint}"),
            None => place,
        }
    }

    /// Whether files can be listed; a web server has no listing.
    #[must_use]
    pub fn can_list(&self) -> bool {
        self.kind != StoreKind::Http
    }

    /// The location of `relative` below the connection's folder. On local disk an absolute path stands for itself, and
    /// `.` and `..` are resolved; elsewhere a leading `/` means the connection's folder.
    ///
    /// # Errors
    /// [`gristmill_model::ErrorKind::Config`] for a path that the store cannot name.
    pub fn locate(&self, relative: &str) -> gristmill_model::Result<Path> {
        let wrong = |error: object_store::path::Error| {
            gristmill_model::Error::new(
                gristmill_model::ErrorKind::Config,
                format!("the path `{relative}` cannot be a file name"),
            )
            .cause(error)
        };
        if let Some(folder) = &self.local {
            return Path::from_absolute_path(local::normal(&folder.join(relative))).map_err(wrong);
        }
        let trimmed = relative.trim_start_matches("./").trim_matches('/');
        if trimmed.is_empty() {
            return Ok(self.prefix.clone());
        }
        let whole =
            if self.prefix.as_ref().is_empty() { trimmed.to_owned() } else { format!("{}/{trimmed}", self.prefix) };
        Path::parse(whole).map_err(wrong)
    }

    /// A location as it reads below the connection's folder: `products/a.parquet`; in full when it is not below it.
    #[must_use]
    pub fn short_name(&self, location: &Path) -> String {
        let parts = location
            .prefix_match(&self.prefix)
            .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
        match parts {
            Some(short) if !short.is_empty() => short,
            _ => self.full_name(location),
        }
    }

    /// A location in full: `s3://bucket/products/a.parquet`, `/data/products/a.parquet`.
    #[must_use]
    pub fn full_name(&self, location: &Path) -> String {
        if self.kind == StoreKind::Local {
            return format!("/{location}");
        }
        format!("{}/{location}", self.url.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.describe()).finish()
    }
}
