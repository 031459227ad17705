//! A target that is one file: `path: rates/2024-01-15/rates.json`, `copy orders.csv orders.parquet`.
//!
//! There is nothing beside the file that could be a log: no `_gristmill` folder is left where somebody only wanted a
//! file. It does not need one either, because one file is published by one step, a rename or the completion of one
//! upload, and doing that twice changes nothing. Until then what is staged lies in a hidden folder beside the file
//! (`.rates.json.gristmill/`), or is an upload that is held open, with a note of it below `_gristmill/intents`.
//!
//! The price: the target cannot say which load it holds ([`Sink::last`] knows nothing), so a file can be replaced, not
//! appended to.

use super::commit::{owner_of, staged_loads, sweep};
use super::place::{LoadOf, Place, at, blocking, make_folder, sync_folder};
use super::publish_local::forget_empty;
use super::publish_remote::{check_staged, complete_or_copy, gone};
use super::{FilesSink, layout, readable};
use crate::{Recovered, Rows, Sink, SinkMode, stores};
use async_trait::async_trait;
use chrono::Utc;
use gristmill_model::fault::{self, Point};
use gristmill_model::{
    Checkpoint, Committed, Error, ErrorKind, KeptRows, LoadKey, OwnerId, Result, Slot, Staged, StagedFile, TaskKey,
};
use object_store::ObjectStoreExt;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Loads one file.
#[derive(Debug)]
pub(super) struct SingleFileSink {
    /// Stages; its place is the hidden folder (local disk) or the folder of the file (object stores).
    pub(super) inner: FilesSink,
    /// The file's name, without its folder.
    pub(super) name: String,
}

/// The hidden folder in which a file of that name is staged, relative to the file's own folder.
pub(super) fn hidden_folder(name: &str) -> String {
    format!(".{name}.gristmill")
}

impl SingleFileSink {
    /// The file itself, on local disk.
    fn file(&self) -> Option<PathBuf> {
        match &self.inner.place {
            Place::Local(local) => local.root.parent().map(|folder| folder.join(&self.name)),
            Place::Remote(_) => None,
        }
    }

    fn committed(&self, staged: &[Staged], next: &Checkpoint, already: bool) -> Committed {
        Committed {
            key: self.inner.context.key.clone(),
            rows: staged.iter().map(|part| part.rows).sum(),
            files: 1,
            bytes: staged.iter().map(|part| part.bytes).sum(),
            checkpoint: next.clone(),
            at: Utc::now(),
            already,
        }
    }

    /// Renames the staged file to its name. False: that has been done before.
    async fn publish_local(&self, staged: &StagedFile) -> Result<bool> {
        let (Place::Local(local), Some(file)) = (&self.inner.place, self.file()) else {
            return Err(Error::internal("a file on local disk has no place"));
        };
        let temporary = local.path(staged.handle["temporary"].as_str().unwrap_or_default());
        let staged = staged.clone();
        blocking(move || {
            if !temporary.is_file() {
                // A rename keeps what tells this file from another of the same size.
                return match std::fs::metadata(&file) {
                    Ok(found) if marks(&found) == staged.handle[MARKS] => Ok(false),
                    _ => Err(gone(&staged)),
                };
            }
            if let Some(folder) = file.parent() {
                make_folder(folder)?;
            }
            fault::at(Point::BeforePublish)?;
            std::fs::rename(&temporary, &file).map_err(at(&file))?;
            fault::at(Point::DuringPublish)?;
            file.parent().map_or(Ok(()), sync_folder)?;
            Ok(true)
        })
        .await
    }

    /// Completes the upload, or copies the staged object. False: that has been done before.
    async fn publish_remote(&self, staged: &StagedFile) -> Result<bool> {
        let Place::Remote(remote) = &self.inner.place else {
            return Err(Error::internal("an object has no place"));
        };
        let path = remote.path(&staged.path)?;
        if check_staged(remote, &self.inner.context.key.short(), &[staged]).await.is_ok() {
            fault::at(Point::BeforePublish)?;
            let load = LoadOf { key: self.inner.context.key.clone(), owner: self.inner.context.owner.clone() };
            match complete_or_copy(remote, &load, &path, staged).await {
                Ok(()) => {
                    fault::at(Point::DuringPublish)?;
                    // At once: as long as it is there, this load could be published again, over a later one.
                    readable::remove(remote, std::slice::from_ref(staged)).await?;
                    return Ok(true);
                }
                // Completed by somebody else, or by a try whose answer was lost: the object tells.
                Err(error) => match remote.store.head(&path).await {
                    Ok(meta) if is_published(&meta, staged) => {}
                    _ => return Err(error.context(format!("publishing `{path}`"))),
                },
            }
        }
        match remote.store.head(&path).await {
            Ok(meta) if is_published(&meta, staged) => {
                readable::remove(remote, std::slice::from_ref(staged)).await?;
                Ok(false)
            }
            _ => Err(gone(staged)),
        }
    }

    /// Notes with a staged file how to tell later whether it has been published.
    async fn note(&self, mut staged: Staged) -> Result<Staged> {
        for file in &mut staged.files {
            match &self.inner.place {
                Place::Local(local) => {
                    let temporary = local.path(file.handle["temporary"].as_str().unwrap_or_default());
                    let found = tokio::fs::metadata(&temporary).await.map_err(at(&temporary))?;
                    file.handle[MARKS] = marks(&found);
                }
                Place::Remote(remote) => {
                    let path = remote.path(&file.path)?;
                    file.handle[REPLACES] = match remote.store.head(&path).await {
                        Ok(meta) => version(&meta),
                        Err(object_store::Error::NotFound { .. }) => Value::Null,
                        Err(error) => return Err(stores::error(error, format!("`{path}`"))),
                    };
                }
            }
        }
        Ok(staged)
    }

    /// The folder of what this run has staged for `key`, with a `/` behind it.
    fn share(&self, key: &LoadKey) -> String {
        format!("{}/", layout::load_folder(key, &self.inner.context.owner))
    }

    /// Sweeps what begins with `prefix`, and the hidden folder once it is empty.
    async fn sweep(&self, prefix: &str, published: &[StagedFile]) -> Result<u64> {
        let swept = sweep(&self.inner.place, prefix, published).await?;
        if let Place::Local(local) = &self.inner.place {
            let local = local.clone();
            blocking(move || {
                for folder in [layout::STAGING, layout::HOME, ""] {
                    forget_empty(&local.path(folder))?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(swept)
    }
}

/// What the handle of a staged local file says of it; see [`marks`].
const MARKS: &str = "marks";
/// What the handle of a staged object says of the one it takes the place of; see [`version`].
const REPLACES: &str = "replaces";

/// What tells a file from another one of the same size, and stays when it is renamed.
fn marks(found: &std::fs::Metadata) -> Value {
    let since = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).ok();
    let changed = found.modified().ok().and_then(since).map(|since| since.as_nanos().to_string());
    #[cfg(unix)]
    let number = Some(std::os::unix::fs::MetadataExt::ino(found));
    #[cfg(not(unix))]
    let number: Option<u64> = None;
    json!({"bytes": found.len(), "changed": changed, "number": number})
}

/// What tells an object from another one of the same name and size.
fn version(meta: &object_store::ObjectMeta) -> Value {
    json!({"e_tag": meta.e_tag, "changed": meta.last_modified.to_rfc3339()})
}

/// Whether the object is the one that was staged, not the one that was there before, which may be as large.
fn is_published(meta: &object_store::ObjectMeta, staged: &StagedFile) -> bool {
    let before = staged.handle.get(REPLACES);
    meta.size == staged.bytes && before.is_some_and(|before| *before != version(meta))
}

#[async_trait]
impl Sink for SingleFileSink {
    fn mode(&self) -> SinkMode {
        SinkMode::Single
    }

    async fn prepare(&self) -> Result<()> {
        if let Some(file) = self.file()
            && tokio::fs::metadata(&file).await.is_ok_and(|found| found.is_dir())
        {
            return Err(Error::new(ErrorKind::Conflict, format!("`{}` is a folder, not a file", file.display()))
                .hint(format!("load into the folder with `path: {}/`, or remove it", self.inner.config.path)));
        }
        self.inner.place.probe().await
    }

    async fn stage(&self, task: &TaskKey, rows: Rows) -> Result<Staged> {
        let staged = self.inner.stage_rows(task, rows).await?;
        // No rows make no file by themselves, but whoever named one wants it to be there.
        let staged = if staged.files.is_empty() { self.inner.stage_nothing(task).await? } else { staged };
        self.note(staged).await
    }

    async fn keep(&self, staged: &[Staged]) -> Result<Option<KeptRows>> {
        self.inner.keep_staged(staged).await
    }

    async fn commit(&self, staged: &[Staged], next: &Checkpoint) -> Result<Committed> {
        let files: Vec<&StagedFile> = staged.iter().flat_map(|part| &part.files).collect();
        let [file] = files.as_slice() else {
            return Err(Error::internal(format!("{} files were staged for the one file `{}`", files.len(), self.name)));
        };
        let first = match &self.inner.place {
            Place::Local(_) => self.publish_local(file).await?,
            Place::Remote(_) => self.publish_remote(file).await?,
        };
        fault::at(Point::AfterPublish)?;
        // The file is there whatever becomes of the leftovers; the next load sweeps again.
        if let Err(error) = self.sweep(&self.share(&self.inner.context.key), &[(*file).clone()]).await {
            tracing::warn!(load = %self.inner.context.key, %error, "what the load had staged could not be swept");
        }
        Ok(self.committed(staged, next, !first))
    }

    async fn last(&self, _: &Slot) -> Result<Option<Committed>> {
        Ok(None)
    }

    /// A single file is replaced as a whole, so nothing ever goes on from it.
    async fn checkpoint(&self, _: &Slot) -> Result<Option<Checkpoint>> {
        Ok(None)
    }

    async fn abort(&self, key: &LoadKey) -> Result<()> {
        self.inner.encoders.gone().await;
        self.sweep(&self.share(key), &[]).await.map(drop)
    }

    async fn recover(&self, is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync)) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        if let Place::Remote(remote) = &self.inner.place {
            // The folder may be a target of its own, with uploads that its log has decided to publish: only those of
            // this very file are ours.
            for (note, intent) in remote.intents("").await? {
                if *intent.target.as_ref().unwrap_or(&intent.path) == self.name && is_dead(&intent.load.owner) {
                    remote.abort(&note, &intent).await?;
                    recovered.undone.push(intent.load.key.text());
                    recovered.swept += 1;
                }
            }
            remote.delete(vec![remote.path(layout::PROBE)?]).await?;
            return Ok(recovered);
        }
        for (folder, load) in staged_loads(&self.inner.place).await? {
            if owner_of(&folder, load.as_ref()).is_some_and(|owner| is_dead(&owner)) {
                recovered.undone.extend(load.map(|load| load.key.text()));
                recovered.swept += self.sweep(&format!("{folder}/"), &[]).await?;
            }
        }
        Ok(recovered)
    }
}
