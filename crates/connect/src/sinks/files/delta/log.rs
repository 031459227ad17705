//! The table's log by way of the `deltalake` library, over stores of ours.
//!
//! The library gets the store that the connection has opened; it opens none itself. On local disk what it writes is
//! synchronised, file and folder ([`Durable`]): its own store leaves that to the operating system, and a commit that was
//! told of would be gone after a power cut.

use super::super::place::{Local, Place, blocking, sync_folder};
use crate::stores;
use async_trait::async_trait;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::TransactionError;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use gristmill_model::{Error, ErrorKind, Result};
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

type StoreResult<T> = object_store::Result<T>;

/// What the library calls the table: all its paths are relative to the store it is given.
const NAME: &str = "memory:///";

/// The log of the table at `place`; none where not even its folder is there.
///
/// # Errors
/// A folder that cannot be opened.
pub(super) async fn open(place: &Place) -> Result<Option<LogStoreRef>> {
    let store: Arc<dyn ObjectStore> = match place {
        Place::Local(local) => {
            let of = local.clone();
            let opened = blocking(move || Durable::open(&of)).await?;
            match opened {
                Some(durable) => Arc::new(durable),
                None => return Ok(None),
            }
        }
        Place::Remote(remote) => Arc::new(PrefixStore::new(remote.store.clone(), remote.root.clone())),
    };
    let name = Url::parse(NAME).map_err(|error| Error::internal("a table has no name").cause(error))?;
    Ok(Some(default_logstore(store.clone(), store, &name, &StorageConfig::default())))
}

/// An error of the library's in our words.
pub(super) fn explain(error: &DeltaTableError, what: &str) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(at) = cause {
        if let Some(store) = at.downcast_ref::<object_store::Error>() {
            return match store {
                // A cleaning of old entries may have come between.
                object_store::Error::NotFound { path, .. } => {
                    Error::new(ErrorKind::Conflict, format!("`{path}` has vanished from the Delta table"))
                        .retryable(true)
                }
                other => stores::explain(other, what),
            };
        }
        cause = at.source();
    }
    let text = error.to_string();
    if text.to_ascii_lowercase().contains("unsupported") {
        return Error::new(ErrorKind::Config, format!("{what} asks for what this version cannot do"))
            .cause(text)
            .hint("drop the table feature it names, or load another `path`");
    }
    Error::new(ErrorKind::Data, format!("{what} cannot be understood"))
        .cause(text)
        .hint("was `_delta_log` cleaned by hand? Restore it, or load another `path`")
}

/// Whether a commit was refused since somebody else's came first.
pub(super) fn is_late(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction { source: TransactionError::MaxCommitAttempts(_) }
            | DeltaTableError::Transaction { source: TransactionError::VersionAlreadyExists(_) }
    )
}

/// A folder of this machine whose files survive a power cut once they are written.
#[derive(Debug)]
struct Durable {
    inner: LocalFileSystem,
    local: Local,
}

impl Durable {
    fn open(local: &Local) -> Result<Option<Self>> {
        if !local.root.is_dir() {
            return Ok(None);
        }
        let inner = LocalFileSystem::new_with_prefix(&local.root)
            .map_err(|error| stores::error(error, format!("`{}`", local.root.display())))?;
        Ok(Some(Self { inner, local: local.clone() }))
    }
}

impl fmt::Display for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.local.root.display())
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic { store: "folder", source: Box::new(error) }
}

/// Synchronises a file and the folder that names it.
async fn sync(path: PathBuf) -> StoreResult<()> {
    let synced = blocking(move || {
        File::open(&path).and_then(|file| file.sync_all()).map_err(super::super::place::at(&path))?;
        sync_folder(path.parent().unwrap_or(Path::new("/")))
    });
    synced.await.map_err(failed)
}

#[async_trait]
impl ObjectStore for Durable {
    async fn put_opts(&self, at: &StorePath, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        if options.mode == PutMode::Create {
            let bytes: Vec<u8> = payload.iter().flat_map(|part| part.iter().copied()).collect();
            return match Place::Local(self.local.clone()).put_if_absent(at.as_ref(), bytes).await {
                Ok(true) => Ok(PutResult { e_tag: None, version: None }),
                Ok(false) => Err(object_store::Error::AlreadyExists {
                    path: at.to_string(),
                    source: "somebody else was first".into(),
                }),
                Err(error) => Err(failed(error)),
            };
        }
        let put = self.inner.put_opts(at, payload, options).await?;
        sync(self.inner.path_to_filesystem(at)?).await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        at: &StorePath,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        let (inner, path) = (self.inner.put_multipart_opts(at, options).await?, self.inner.path_to_filesystem(at)?);
        Ok(Box::new(DurableUpload { inner, path }))
    }

    async fn get_opts(&self, at: &StorePath, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(at, options).await
    }

    async fn get_ranges(&self, at: &StorePath, ranges: &[Range<u64>]) -> StoreResult<Vec<bytes::Bytes>> {
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<StorePath>>,
    ) -> BoxStream<'static, StoreResult<StorePath>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&StorePath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        sorted(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&StorePath>,
        offset: &StorePath,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        sorted(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&StorePath>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &StorePath, to: &StorePath, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await?;
        sync(self.inner.path_to_filesystem(to)?).await
    }
}

/// The library takes the names of everything that is no `file:` to come in order, as object stores list them.
fn sorted(listed: BoxStream<'static, StoreResult<ObjectMeta>>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
    let sorted = async move {
        let mut found: Vec<ObjectMeta> = listed.try_collect().await?;
        found.sort_unstable_by(|one, other| one.location.cmp(&other.location));
        Ok::<_, object_store::Error>(futures::stream::iter(found.into_iter().map(Ok)))
    };
    futures::stream::once(sorted).try_flatten().boxed()
}

#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let put = self.inner.complete().await?;
        sync(self.path.clone()).await?;
        Ok(put)
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.inner.abort().await
    }
}
