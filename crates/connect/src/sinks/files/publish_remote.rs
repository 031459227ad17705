//! Publishing on object stores: uploads that were held open are completed (or staged objects copied), then old objects are
//! deleted.
//!
//! Every object appears whole. Between the first completed upload and the last deleted object a reader may see new
//! and old ones together: a plain prefix of an object store has no moment at which many names change at once.

use super::Faults;
use super::log::{Entry, Log};
use super::output::complete;
use super::place::{LoadOf, Place, Remote, listed};
use super::readable;
use crate::stores;
use futures::{StreamExt, TryStreamExt};
use gristmill_model::fault::Point;
use gristmill_model::{Error, ErrorKind, Result, StagedFile};
use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Uploads completed at once.
const AT_ONCE: usize = 8;

/// Makes what `entry` says true: its objects are in, those it removes are gone.
///
/// # Errors
/// A store that refuses; can be repeated, also by somebody else at the same time.
pub(super) async fn publish(remote: &Remote, number: u64, entry: &Entry, faults: &Faults) -> Result<()> {
    let load = &LoadOf { key: entry.key.clone(), owner: entry.owner.clone() };
    // What has begun is brought to its end, whatever becomes of its neighbours: a copy that is dropped half way may have opened
    // an upload that nobody has noted yet.
    let first_error: &Mutex<Option<Error>> = &Mutex::default();
    futures::stream::iter(entry.publish.iter())
        .for_each_concurrent(AT_ONCE, |file| async move {
            let failed = || first_error.lock().unwrap_or_else(PoisonError::into_inner);
            if failed().is_some() {
                return;
            }
            let one = async {
                faults.at(Point::BeforePublish)?;
                publish_file(remote, number, load, file).await?;
                faults.at(Point::AfterPublish)
            };
            if let Err(error) = one.await {
                failed().get_or_insert(error);
            }
        })
        .await;
    // Also where some have failed: nobody asks again once the entry is done.
    if entry.publish.iter().any(|file| readable::staged_object(file).is_some()) {
        readable::take_back(remote, number, entry).await?;
    }
    if let Some(error) = first_error.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    faults.at(Point::BeforeDelete)?;
    let gone = entry.remove.iter().map(|path| remote.path(path)).collect::<Result<Vec<_>>>()?;
    remote.delete(gone).await?;
    faults.at(Point::AfterDelete)?;
    readable::remove(remote, &entry.publish).await
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

/// HEAD, complete (or copy), HEAD: a completion whose answer was lost, or that another process made, is found out.
async fn publish_file(remote: &Remote, number: u64, load: &LoadOf, file: &StagedFile) -> Result<()> {
    let path = remote.path(&file.path)?;
    if is_there(remote, &path, file).await? {
        return Ok(());
    }
    let Err(error) = complete_or_copy(remote, load, &path, file).await else {
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

/// Makes the object of a staged file: whole at once, either way.
pub(super) async fn complete_or_copy(
    remote: &Remote,
    load: &LoadOf,
    path: &StorePath,
    file: &StagedFile,
) -> Result<()> {
    match readable::staged_object(file) {
        None => complete(remote.multipart.as_ref(), path, &file.handle).await,
        Some(staged) => readable::copy(remote, load, file, staged).await,
    }
}

/// Checks that the uploads to be published are still open, as far as their notes tell, and staged objects still there.
pub(super) async fn check_staged(remote: &Remote, load: &str, files: &[&StagedFile]) -> Result<()> {
    let names = Place::Remote(remote.clone()).names(super::layout::INTENTS).await?;
    let prefix = format!("{load}-");
    let notes = names.iter().filter(|name| name.starts_with(&prefix)).filter_map(|name| name.strip_suffix(".json"));
    let notes: BTreeSet<&str> = notes.flat_map(|name| [name, super::layout::split(name).1]).collect();
    match files.iter().find(|file| !notes.contains(readable::note_of(file).as_str())) {
        None => readable::check(remote, files).await,
        Some(file) => Err(gone(file)),
    }
}

/// The error of a commit whose staged files are gone.
pub(super) fn gone(file: &StagedFile) -> Error {
    Error::new(ErrorKind::Conflict, format!("what was staged for `{}` is gone: the load was aborted", file.path))
        .hint("run the load again")
}

/// Sweeps the uploads of a load, given the first part of its folder name. Those of `published` files are completed (staged
/// objects copied and deleted): only their notes go. Gives back how many uploads were aborted.
pub(super) async fn sweep(remote: &Remote, prefix: &str, published: &[StagedFile]) -> Result<u64> {
    let done: BTreeSet<String> = published.iter().map(readable::note_of).collect();
    let folder = remote.path(super::layout::INTENTS)?;
    let names = Place::Remote(remote.clone()).names(super::layout::INTENTS).await?;
    let (completed, open): (Vec<&String>, Vec<&String>) =
        names.iter().filter(|name| name.starts_with(prefix)).partition(|name| readable::is_one_of(name, &done));
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
