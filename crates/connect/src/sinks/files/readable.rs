//! `readable_staging: true` on object stores: what is staged are whole objects below the hidden prefix
//! `_gristmill/staging/`, where they can be looked at, and the commit copies them to their places.
//!
//! The store copies by itself where it can. An object that is larger than what stores copy, and any object in a store that
//! refuses, is read and written again as a multipart upload, which is noted like every other one, so that whoever dies
//! in the middle leaves nothing that recovery does not find.
//!
//! Unlike the completion of an upload, a copy can be made twice. Therefore staged objects are deleted before their log entry is
//! marked as done, and whoever copied so late that it was done already looks whether a later entry has removed the object
//! meanwhile ([`take_back`]).

use super::layout::{INTENTS, STAGING, is_staged, join, load_folder, split};
use super::log::{self, Entry, Log};
use super::output::{complete_parts, part_size};
use super::place::{Intent, LoadOf, Place, Remote};
use super::publish_remote::{gone, is_there};
use crate::stores;
use gristmill_model::fault::{self, Point};
use gristmill_model::{Error, Result, StagedFile};
use object_store::multipart::PartId;
use object_store::path::Path as StorePath;
use object_store::{MultipartId, ObjectStoreExt, PutPayload};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use tokio::sync::Semaphore;

/// What stores copy at once (S3: 5 GiB).
const MOST_COPIED: u64 = 5 << 30;
/// Copies whose bytes go through this process; each holds a part.
static STREAMS: Semaphore = Semaphore::const_new(2);

/// Where the staged object is, in the handle of a file that the commit copies.
const STAGED: &str = "staged";

/// The handle of a file that is staged as the object `path`, relative to the target.
pub(super) fn handle(path: &str) -> Value {
    json!({ STAGED: path })
}

/// The staged object that the commit copies, relative to the target; none where it completes an upload.
pub(super) fn staged_object(file: &StagedFile) -> Option<&str> {
    file.handle.get(STAGED)?.as_str()
}

/// What the note of a staged file is called, without its ending: names of staged objects are those of one load and owner.
pub(super) fn note_of(file: &StagedFile) -> String {
    match staged_object(file) {
        Some(staged) => join(load_of(staged).unwrap_or_default(), split(staged).1),
        None => split(&file.path).1.to_owned(),
    }
}

/// Whether `note`, a name below [`INTENTS`], is one of `notes`.
pub(super) fn is_one_of(note: &str, notes: &BTreeSet<String>) -> bool {
    note.strip_suffix(".json").is_some_and(|name| notes.contains(name) || notes.contains(split(name).1))
}

/// Looks whether the staged objects are there and whole.
pub(super) async fn check(remote: &Remote, files: &[&StagedFile]) -> Result<()> {
    let folders: BTreeSet<&str> = files.iter().filter_map(|file| load_of(staged_object(file)?)).collect();
    let mut found = BTreeMap::new();
    for folder in folders {
        found.extend(remote.list(&join(STAGING, folder)).await?);
    }
    for file in files {
        let Some(staged) = staged_object(file) else { continue };
        if found.get(remote.path(staged)?.as_ref()) != Some(&file.bytes) {
            return Err(gone(file));
        }
    }
    Ok(())
}

/// `<load>-<owner>` of a staged object.
fn load_of(staged: &str) -> Option<&str> {
    staged.strip_prefix(STAGING)?.strip_prefix('/')?.split('/').next()
}

/// Makes the object `path` of the one that is staged: whole at once.
///
/// # Errors
/// A store that refuses; can be repeated, also by somebody else at the same time.
pub(super) async fn copy(remote: &Remote, load: &LoadOf, file: &StagedFile, staged: &str) -> Result<()> {
    let (from, to) = (remote.path(staged)?, remote.path(&file.path)?);
    if file.bytes <= MOST_COPIED && !remote.copies_not.load(Ordering::Relaxed) {
        match remote.store.copy(&from, &to).await {
            Ok(()) => return Ok(()),
            Err(object_store::Error::NotFound { .. }) => return Err(gone(file)),
            Err(error) => {
                tracing::warn!(object = %to, %error, "the store does not copy: what is staged is read and written again");
                remote.copies_not.store(true, Ordering::Relaxed);
            }
        }
    }
    stream(remote, load, file, &from, &to).await
}

/// Reads the staged object and writes it again, part by part.
async fn stream(remote: &Remote, load: &LoadOf, file: &StagedFile, from: &StorePath, to: &StorePath) -> Result<()> {
    if !is_there(remote, from, file).await? {
        return Err(gone(file));
    }
    let _turn = STREAMS.acquire().await.map_err(|error| Error::internal("nobody closes it").cause(error))?;
    let at_place = |error| stores::error(error, format!("`{to}`"));
    let upload = remote.multipart.create_multipart(to).await.map_err(at_place)?;
    let intent = Intent { load: load.clone(), path: file.path.clone(), upload, target: None };
    let name = format!("copy-{}.json", uuid::Uuid::new_v4().simple());
    let note = remote.path(&join(&join(INTENTS, &load_folder(&load.key, &load.owner)), &name))?;
    let noted = remote.store.put(&note, PutPayload::from(json!(intent).to_string())).await;
    let written = match noted {
        Ok(_) => parts(remote, &intent.upload, from, to, file.bytes).await,
        Err(error) => Err(stores::error(error, format!("`{note}`"))),
    };
    // It takes back an upload that has failed; of one that is completed only the note is left. What it cannot take back the
    // sweep of the load finds by the note.
    if let Err(error) = remote.abort(&note, &intent).await {
        tracing::warn!(object = %to, %error, "the note of an upload could not be removed");
    }
    written
}

async fn parts(remote: &Remote, upload: &MultipartId, from: &StorePath, to: &StorePath, bytes: u64) -> Result<()> {
    let size = part_size(bytes) as u64;
    let mut parts: Vec<PartId> = Vec::new();
    // An upload needs a part, be it an empty one.
    for number in 0..bytes.div_ceil(size).max(1) {
        let range = number * size..bytes.min((number + 1) * size);
        let part = if range.is_empty() {
            PutPayload::new()
        } else {
            let read = remote.store.get_range(from, range).await;
            PutPayload::from(read.map_err(|error| stores::error(error, format!("`{from}`")))?)
        };
        let put = remote.multipart.put_part(to, upload, parts.len(), part).await;
        parts.push(put.map_err(|error| stores::error(error, format!("`{to}`")))?);
    }
    fault::at(Point::DuringPublish)?;
    complete_parts(remote.multipart.as_ref(), to, upload, parts).await
}

/// Deletes what was staged for `files`, which are published.
pub(super) async fn remove(remote: &Remote, files: &[StagedFile]) -> Result<()> {
    let staged = files.iter().filter_map(staged_object).map(|staged| remote.path(staged));
    remote.delete(staged.collect::<Result<_>>()?).await
}

/// Removes again what a late copy has made of objects that later entries removed. Nobody is late as long as the entry is not
/// done: no later one is written before that, and those that come now find the object by themselves.
pub(super) async fn take_back(remote: &Remote, number: u64, entry: &Entry) -> Result<()> {
    let place = Place::Remote(remote.clone());
    let log = Log::list(&place).await?;
    if !log.is_done(number) {
        return Ok(());
    }
    let ours: BTreeSet<&str> = entry.publish.iter().map(|file| file.path.as_str()).collect();
    for later in log.after(number) {
        // One that the log has forgotten is a day old at least: nobody is as late as that.
        let Some(later) = log::read(&place, later).await? else { continue };
        let removed = later.remove.iter().filter(|path| ours.contains(path.as_str())).map(|path| remote.path(path));
        remote.delete(removed.collect::<Result<_>>()?).await?;
    }
    Ok(())
}

/// Takes back what attempts that failed have left in the staging folder of a load, so that only `files` are in it.
pub(super) async fn keep_only(remote: &Remote, folder: &str, files: &[StagedFile]) -> Result<()> {
    let kept: BTreeSet<&str> = files.iter().filter_map(staged_object).collect();
    for (note, intent) in remote.intents(&format!("{folder}/")).await? {
        if is_staged(&intent.path) && !kept.contains(intent.path.as_str()) {
            remote.abort(&note, &intent).await?;
        }
    }
    Ok(())
}
