//! Files of a load in the folders of the table. Readers go by the log, so they see none of them before the commit.

use super::super::layout::split;
use super::super::output::complete;
use super::super::place::{Place, Remote, at, blocking, make_folder, sync_folder};
use super::super::publish_remote::{gone, is_there};
use super::super::{Faults, place::Local};
use futures::TryStreamExt;
use gristmill_model::fault::Point;
use gristmill_model::{Error, Result, StagedFile};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind as Io;

/// Uploads completed at once.
const AT_ONCE: usize = 8;

/// Puts staged files where the log will say they are. Can be repeated.
///
/// # Errors
/// A place that refuses; a file that is no longer staged.
pub(super) async fn publish(place: &Place, files: &[StagedFile], faults: &Faults) -> Result<()> {
    match place {
        Place::Local(local) => {
            let (local, files, faults) = (local.clone(), files.to_vec(), faults.clone());
            blocking(move || publish_local(&local, &files, &faults)).await
        }
        Place::Remote(remote) => {
            futures::stream::iter(files.iter().map(Ok::<_, Error>))
                .try_for_each_concurrent(AT_ONCE, |file| async move {
                    faults.at(Point::BeforePublish)?;
                    publish_remote(remote, file).await?;
                    faults.at(Point::AfterPublish)
                })
                .await
        }
    }
}

fn publish_local(local: &Local, files: &[StagedFile], faults: &Faults) -> Result<()> {
    let mut folders = BTreeSet::new();
    for file in files {
        let target = local.path(&file.path);
        folders.insert(local.path(split(&file.path).0));
        if fs::metadata(&target).is_ok_and(|found| found.len() == file.bytes) {
            continue;
        }
        let source = local.path(file.handle["temporary"].as_str().unwrap_or_default());
        if !fs::metadata(&source).is_ok_and(|found| found.len() == file.bytes) {
            return Err(gone(file));
        }
        make_folder(&local.path(split(&file.path).0))?;
        faults.at(Point::BeforePublish)?;
        fs::rename(&source, &target).map_err(at(&source))?;
        faults.at(Point::DuringPublish)?;
    }
    folders.iter().try_for_each(|folder| sync_folder(folder))?;
    faults.at(Point::AfterPublish)
}

/// HEAD, complete, HEAD: a completion whose answer was lost is found out.
async fn publish_remote(remote: &Remote, file: &StagedFile) -> Result<()> {
    let path = remote.path(&file.path)?;
    if is_there(remote, &path, file).await? {
        return Ok(());
    }
    match complete(remote.multipart.as_ref(), &path, &file.handle).await {
        Ok(()) => Ok(()),
        Err(_) if is_there(remote, &path, file).await? => Ok(()),
        Err(error) => Err(error.context(format!("publishing `{}`", file.path))),
    }
}

/// Takes files away that the table does not have, or has no more. Those that are gone already are no error.
///
/// # Errors
/// A place that refuses.
pub(super) async fn remove(place: &Place, paths: Vec<String>, faults: &Faults) -> Result<()> {
    faults.at(Point::BeforeDelete)?;
    match place {
        Place::Local(local) => {
            let local = local.clone();
            blocking(move || paths.iter().try_for_each(|path| remove_local(&local, path))).await?;
        }
        Place::Remote(remote) => {
            remote.delete(paths.iter().map(|path| remote.path(path)).collect::<Result<_>>()?).await?;
        }
    }
    faults.at(Point::AfterDelete)
}

fn remove_local(local: &Local, path: &str) -> Result<()> {
    let file = local.path(path);
    match fs::remove_file(&file) {
        Err(error) if error.kind() != Io::NotFound => return Err(at(&file)(error)),
        _ => {}
    }
    // Folders that were made for it go as well, as far as they are empty.
    let mut folder = split(path).0;
    while !folder.is_empty() && fs::remove_dir(local.path(folder)).is_ok() {
        folder = split(folder).0;
    }
    Ok(())
}
