//! Letters in a connection of the project (`defaults: {dead_letters: {to: CONNECTION}}`). That is where they are; the state folder
//! has only those that are being written, and copies of those that are being read ([`super::home`]).

use super::place::{ENDING, all, parts, root};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use gristmill_connect::Connection;
use gristmill_connect::stores::{self, Store};
use gristmill_model::spec::DeadLettersSpec;
use gristmill_model::{Duration, Error, ErrorKind, Result};
use object_store::buffered::BufWriter;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

/// Removes letters of runs that began longer ago than they are kept. Answers how many files of them.
pub(crate) async fn expire(
    state: &Path,
    shelf: Option<&Shelf>,
    retention: Duration,
    now: DateTime<Utc>,
) -> Result<usize> {
    let is_old = |name: &str| began(name).is_some_and(|began| is_expired(began, retention, now));
    let whole = state.to_owned();
    let known = tokio::task::spawn_blocking(move || all(&whole)).await;
    let known = known.map_err(|error| Error::internal(format!("the reader of dead letters ended: {error}")))??;
    let mut gone: BTreeSet<String> = known.into_iter().filter(|name| is_old(name)).collect();
    for name in &gone {
        let path = root(state).join(name);
        let removed = tokio::fs::remove_file(&path).await;
        removed.map_err(|error| Error::io(&error, format!("the dead letters `{}`", path.display())))?;
    }
    if let Some(shelf) = shelf {
        // What the state folder has are copies of these.
        gone = shelf.names("").await?.into_iter().filter(|name| is_old(name)).collect();
        for name in &gone {
            shelf.delete(name).await?;
        }
    }
    Ok(gone.len())
}

/// When the run of a file of letters began, which the run's id tells.
fn began(name: &str) -> Option<DateTime<Utc>> {
    let (run, _) = parts(name.rsplit('/').next()?)?;
    let (seconds, nanos) = uuid::Uuid::parse_str(run).ok()?.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

/// A clock that was set back has made nothing old.
fn is_expired(began: DateTime<Utc>, retention: Duration, now: DateTime<Utc>) -> bool {
    (now - began).to_std().is_ok_and(|age| age > retention.0)
}

/// The folder of a connection that letters are in, with the folder of the state that has their copies.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    store: Arc<Store>,
    folder: String,
    copies: PathBuf,
}

impl Shelf {
    /// The shelf that `spec` names. Touches nothing.
    ///
    /// # Errors
    /// A connection that is not of files, or that can only be read from.
    pub(crate) fn new(spec: &DeadLettersSpec, connection: &dyn Connection, state: &Path) -> Result<Self> {
        let store = connection.files().filter(|store| store.can_list()).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("dead letters cannot be kept in {}", connection.describe()))
                .hint("name a connection of type `files`: a folder, s3://, gs:// or az://")
        })?;
        Ok(Self { store, folder: spec.path.trim_matches('/').to_owned(), copies: root(state) })
    }

    fn place(&self, below: &str) -> Result<StorePath> {
        let parts = [self.folder.as_str(), below];
        let whole: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        self.store.locate(&whole.join("/"))
    }

    /// Puts a finished file on the shelf, durably: under the name that it would have in the state folder. Answers where it
    /// is, for people.
    pub(super) async fn put(&self, written: &Path, named: &Path) -> Result<PathBuf> {
        let below = named.strip_prefix(&self.copies).map_err(|_| Error::internal("letters are in another folder"))?;
        let place = self.place(&below.to_string_lossy().replace('\\', "/"))?;
        let name = self.store.full_name(&place);
        let complain = |error: std::io::Error| Error::io(&error, format!("the dead letters `{name}`"));
        let mut from = tokio::fs::File::open(written).await.map_err(complain)?;
        let mut to = BufWriter::new(self.store.store.clone(), place);
        tokio::io::copy(&mut from, &mut to).await.map_err(complain)?;
        to.shutdown().await.map_err(complain)?;
        if self.store.local.is_some() {
            // The library leaves it to the system when bytes and names come to the disk; the load is committed after this.
            let path = PathBuf::from(&name);
            tokio::task::spawn_blocking(move || {
                File::open(&path)?.sync_all()?;
                path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
            })
            .await
            .map_err(|error| Error::internal(format!("dead letters ended: {error}")))?
            .map_err(complain)?;
        }
        Ok(PathBuf::from(&name))
    }

    /// The paths of all files of letters below `folder`, itself below the folder of all letters.
    async fn names(&self, folder: &str) -> Result<BTreeSet<String>> {
        let (whole, below) = (self.place("")?, self.place(folder)?);
        let listed = self.store.store.list(Some(&below)).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|error| stores::error(error, format!("`{}`", self.store.full_name(&below))))?;
        let names = listed.into_iter().filter_map(|meta| {
            let parts: Vec<String> = meta.location.prefix_match(&whole)?.map(|part| part.as_ref().to_owned()).collect();
            let name = parts.join("/");
            (parts.len() == 3 && name.ends_with(ENDING)).then_some(name)
        });
        Ok(names.collect())
    }

    /// Removes the files of a folder whose names are meant.
    pub(super) async fn remove(&self, folder: &Path, meant: &(dyn Fn(&str) -> bool + Send + Sync)) -> Result<()> {
        let below = folder.strip_prefix(&self.copies).unwrap_or(folder).to_string_lossy().replace('\\', "/");
        for name in self.names(&below).await? {
            if meant(name.rsplit('/').next().unwrap_or(&name)) {
                self.delete(&name).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let place = self.place(name)?;
        match self.store.store.delete(&place).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(stores::error(error, format!("`{}`", self.store.full_name(&place)))),
        }
    }

    /// Makes the copies those of what is there. A file never changes under its name.
    ///
    /// # Errors
    /// A store that cannot be read; a disk that is full.
    pub(crate) async fn copy_all(&self) -> Result<()> {
        let there = self.names("").await?;
        let state = self.copies.parent().unwrap_or(&self.copies).to_owned();
        let known = tokio::task::spawn_blocking(move || all(&state));
        let known =
            known.await.map_err(|error| Error::internal(format!("the reader of dead letters ended: {error}")))??;
        let known: BTreeSet<String> = known.into_iter().collect();
        for gone in known.difference(&there) {
            let path = self.copies.join(gone);
            tokio::fs::remove_file(&path).await.map_err(|error| Error::io(&error, format!("`{}`", path.display())))?;
        }
        for new in there.difference(&known) {
            self.copy(new).await?;
        }
        Ok(())
    }

    async fn copy(&self, name: &str) -> Result<()> {
        let (place, path) = (self.place(name)?, self.copies.join(name));
        let shown = self.store.full_name(&place);
        let failed = |error| stores::error(error, format!("the dead letters `{shown}`"));
        let found = match self.store.store.get(&place).await {
            Ok(found) => found,
            // A run that has just been committed has taken their place.
            Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let complain = |error: std::io::Error| Error::io(&error, format!("`{}`", path.display()));
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(complain)?;
        }
        // Whoever copies the same file meanwhile has a name of its own.
        let temporary = path.with_extension(format!("{}.copy", uuid::Uuid::now_v7().simple()));
        let mut file = tokio::fs::File::create(&temporary).await.map_err(complain)?;
        let mut bytes = found.into_stream();
        while let Some(piece) = bytes.try_next().await.map_err(failed)? {
            file.write_all(&piece).await.map_err(complain)?;
        }
        file.flush().await.map_err(complain)?;
        tokio::fs::rename(&temporary, &path).await.map_err(complain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn the_age_of_letters_is_that_of_their_run() {
        let now = Utc::now();
        let name = format!("p/2024-01-15/{}-load-1.parquet", uuid::Uuid::now_v7().simple());
        let began = began(&name).unwrap();
        assert!((now - began).abs() < TimeDelta::minutes(1));
        let kept = |age: TimeDelta| !is_expired(now - age, Duration(std::time::Duration::from_secs(3600)), now);
        assert!(kept(TimeDelta::minutes(59)) && !kept(TimeDelta::minutes(61)) && kept(TimeDelta::hours(-9)));
        assert_eq!(super::began("p/2024-01-15/r1-load-1.parquet"), None, "a run of another making is kept");
    }
}
