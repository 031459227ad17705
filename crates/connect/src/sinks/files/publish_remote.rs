//! Publishing on object stores: uploads that were held open are completed, then old objects are deleted.
//!
//! Every object appears whole. Between the first completed upload and the last deleted object a reader may see new
//! and old ones together: a plain prefix of an object store has no moment at which many names change at once.

use super::Faults;
use super::log::{Entry, Log};
use super::output::complete;
use super::place::{Place, Remote, listed};
use crate::stores;
use futures::{StreamExt, TryStreamExt};
use gristmill_model::fault::Point;
use gristmill_model::{Error, ErrorKind, Result, StagedFile};
use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;

/// Uploads completed at once.
const AT_ONCE: usize = 8;

/// Makes what `entry` says true: its objects are in, those it removes are gone.
///
/// # Errors
/// A store that refuses; can be repeated, also by somebody else at the same time.
pub(super) async fn publish(remote: &Remote, number: u64, entry: &Entry, faults: &Faults) -> Result<()> {
    futures::stream::iter(entry.publish.iter().map(Ok::<_, Error>))
        .try_for_each_concurrent(AT_ONCE, |file| async move {
            faults.at(Point::BeforePublish)?;
            publish_file(remote, number, file).await?;
            faults.at(Point::AfterPublish)
        })
        .await?;
    faults.at(Point::BeforeDelete)?;
    let gone = entry.remove.iter().map(|path| remote.path(path)).collect::<Result<Vec<_>>>()?;
    remote.delete(gone).await?;
    faults.at(Point::AfterDelete)
}

/// Whether an object is there, as large as it was written.
pub(super) async fn is_there(remote: &Remote, path: &StorePath, file: &StagedFile) -> Result<bool> {
    match remote.store.head(path).await {
        Ok(meta) if meta.size == file.bytes => Ok(true),
        Ok(meta) => Err(Error::new(
            ErrorKind::Conflict,
            format!("`{path}` has {} bytes where {} were written", meta.size, file.bytes),
        )
        .hint("something else writes below this target; give each its own `path`")),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(stores::error(error, format!("`{path}`"))),
    }
}

/// HEAD, complete, HEAD: a completion whose answer was lost, or that another process made, is found out.
async fn publish_file(remote: &Remote, number: u64, file: &StagedFile) -> Result<()> {
    let path = remote.path(&file.path)?;
    if is_there(remote, &path, file).await? {
        return Ok(());
    }
    let Err(error) = complete(remote.multipart.as_ref(), &path, &file.handle).await else {
        return Ok(());
    };
    if is_there(remote, &path, file).await? {
        return Ok(());
    }
    // Another process may have published this entry, and a later one may have removed the object since.
    if Log::list(&Place::Remote(remote.clone())).await?.is_done(number) {
        return Ok(());
    }
    Err(error.context(format!("publishing `{}`", file.path)))
}

/// Checks that the uploads to be published are still open, as far as their notes tell.
pub(super) async fn check_staged(remote: &Remote, load: &str, files: &[&StagedFile]) -> Result<()> {
    let names = Place::Remote(remote.clone()).names(super::layout::INTENTS).await?;
    let prefix = format!("{load}-");
    let notes: std::collections::BTreeSet<&str> = names
        .iter()
        .filter(|name| name.starts_with(&prefix))
        .filter_map(|name| super::layout::split(name).1.strip_suffix(".json"))
        .collect();
    match files.iter().find(|file| !notes.contains(super::layout::split(&file.path).1)) {
        None => Ok(()),
        Some(file) => Err(gone(file)),
    }
}

/// The error of a commit whose staged files are gone.
pub(super) fn gone(file: &StagedFile) -> Error {
    Error::new(ErrorKind::Conflict, format!("what was staged for `{}` is gone: the load was aborted", file.path))
        .hint("run the load again")
}

/// Sweeps the uploads of a load, given the first part of its folder name. Those of `published` files are completed:
/// only their notes go. Gives back how many uploads were aborted.
pub(super) async fn sweep(remote: &Remote, prefix: &str, published: &[StagedFile]) -> Result<u64> {
    let done: std::collections::BTreeSet<&str> =
        published.iter().map(|file| super::layout::split(&file.path).1).collect();
    let folder = remote.path(super::layout::INTENTS)?;
    let names = Place::Remote(remote.clone()).names(super::layout::INTENTS).await?;
    let (completed, open): (Vec<&String>, Vec<&String>) = names
        .iter()
        .filter(|name| name.starts_with(prefix))
        .partition(|name| super::layout::split(name).1.strip_suffix(".json").is_some_and(|name| done.contains(name)));
    let notes = completed.into_iter().map(|name| listed(&format!("{folder}/{name}"))).collect::<Result<_>>()?;
    remote.delete(notes).await?;
    if open.is_empty() {
        return Ok(0);
    }
    let open = remote.intents(prefix).await?;
    let swept = open.len() as u64;
    futures::stream::iter(open)
        .map(|(note, intent)| async move { remote.abort(&note, &intent).await })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(swept)
}
