//! The two kinds of place a target can be: a folder of this machine, or a prefix of an object store.
//!
//! What both can do is here, with paths relative to the target. What they do differently has its own file:
//! `publish_local.rs` (renames and exchanges of folders) and `publish_remote.rs` (completing uploads).

use super::layout::{INTENTS, LOAD_FILE, LOG, PROBE, STAGING, hidden_path, is_staged, join, load_folder, split};
use super::output::{FileOutput, Output, UploadOutput, UploadTo, part_size};
use super::write::Outputs;
use crate::stores::{self, NewBucket, Store};
use futures::{StreamExt, TryStreamExt};
use gristmill_model::fault::{self, Point};
use gristmill_model::{Error, ErrorKind, LoadKey, OwnerId, Result, TaskKey};
use object_store::multipart::MultipartStore;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind as Io, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::runtime::Handle;

/// Where a target is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Local(Local),
    Remote(Remote),
}

/// A folder of this machine.
#[derive(Debug, Clone)]
pub(super) struct Local {
    /// The target, absolute.
    pub(super) root: PathBuf,
}

/// A prefix of an object store.
#[derive(Clone)]
pub(super) struct Remote {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) multipart: Arc<dyn MultipartStore>,
    /// How to make its bucket, where that is wanted.
    pub(super) bucket: Option<NewBucket>,
    /// The target.
    pub(super) root: StorePath,
    /// How it is called, for people.
    pub(super) name: String,
    /// It has refused to copy an object: it is not asked again.
    pub(super) copies_not: Arc<AtomicBool>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.name).finish()
    }
}

/// Whose staging folder or upload something is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct LoadOf {
    pub(super) key: LoadKey,
    pub(super) owner: OwnerId,
}

/// A note of an open upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Intent {
    #[serde(flatten)]
    pub(super) load: LoadOf,
    /// Where the object will be, relative to the target: below [`STAGING`] where the commit is to copy it.
    pub(super) path: String,
    /// The upload's id.
    pub(super) upload: String,
    /// Where the commit copies it, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<String>,
}

/// Runs what may block where it may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("a blocking task was torn off").cause(error))?
}

pub(super) fn at(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::io(&error, format!("`{}`", path.display()))
}

/// Synchronises a folder, so that names in it survive a power cut.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems cannot synchronise folders; they have nothing to lose there.
        Err(error) if matches!(error.kind(), Io::InvalidInput | Io::Unsupported) => Ok(()),
        other => other.map_err(at(folder)),
    }
}

/// Does what waits for the disk in several threads: a journal commits many changes at the price of one.
///
/// # Errors
/// The first error of each thread, in the order of the items; what came after it in its thread was not begun.
pub(super) fn side_by_side<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    const AT_ONCE: usize = 8;
    if items.len() < 2 {
        return items.iter().try_for_each(work);
    }
    let work = &work;
    std::thread::scope(|scope| {
        let size = items.len().div_ceil(AT_ONCE);
        let threads: Vec<_> =
            items.chunks(size).map(|chunk| scope.spawn(move || chunk.iter().try_for_each(work))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::internal("a thread that waits for the disk panicked")))
        })
    })
}

/// `.` and `..` resolved by their words alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

impl Place {
    /// The place of `path` in `store`.
    ///
    /// # Errors
    /// A store that cannot be written to.
    pub(super) fn new(store: &Store, path: &str) -> Result<Self> {
        if let Some(folder) = &store.local {
            return Ok(Self::Local(Local { root: normal(&folder.join(path)) }));
        }
        let Some(multipart) = store.multipart.clone() else {
            return Err(Error::new(ErrorKind::Config, format!("`{}` can only be read from", store.describe()))
                .hint("load to a folder, or to s3://, gs:// or az://"));
        };
        let root = store.locate(path)?;
        let name = store.full_name(&root);
        let bucket = store.bucket.clone();
        let copies_not = Arc::default();
        Ok(Self::Remote(Remote { store: store.store.clone(), multipart, bucket, root, name, copies_not }))
    }

    /// The names directly below `folder`; none where it is not there. On object stores: all objects below it.
    pub(super) async fn names(&self, folder: &str) -> Result<Vec<String>> {
        match self {
            Self::Local(local) => {
                let folder = local.path(folder);
                blocking(move || {
                    let mut names: Vec<String> = entries(&folder)?.into_iter().map(|(name, _)| name).collect();
                    names.sort();
                    Ok(names)
                })
                .await
            }
            Self::Remote(remote) => {
                let prefix = format!("{}/", remote.path(folder)?);
                let mut names: Vec<String> = remote
                    .list(folder)
                    .await?
                    .into_iter()
                    .filter_map(|(path, _)| path.strip_prefix(&prefix).map(str::to_owned))
                    .collect();
                names.sort();
                Ok(names)
            }
        }
    }

    /// Whether one of the [`Place::names`] below `folder` is such; not all of them are listed to find one.
    pub(super) async fn has_name(&self, folder: &str, is: impl Fn(&str) -> bool) -> Result<bool> {
        let Self::Remote(remote) = self else { return Ok(self.names(folder).await?.iter().any(|name| is(name))) };
        let path = remote.path(folder)?;
        let prefix = format!("{path}/");
        let mut listed = remote.store.list(Some(&path));
        while let Some(found) = listed.try_next().await.map_err(|error| stores::error(error, format!("`{path}`")))? {
            if found.location.as_ref().strip_prefix(&prefix).is_some_and(&is) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads a small file; `None` where it is not there.
    pub(super) async fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Local(local) => {
                let path = local.path(path);
                blocking(move || match fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == Io::NotFound => Ok(None),
                    Err(error) => Err(at(&path)(error)),
                })
                .await
            }
            Self::Remote(remote) => {
                let what = remote.path(path)?;
                let bytes = match remote.store.get(&what).await {
                    Ok(found) => found.bytes().await,
                    Err(error) => Err(error),
                };
                match bytes {
                    Ok(bytes) => Ok(Some(bytes.to_vec())),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(stores::error(error, format!("`{what}`"))),
                }
            }
        }
    }

    /// Writes a small file that must not exist, durably. False: it exists, and is whole.
    pub(super) async fn put_if_absent(&self, path: &str, bytes: Vec<u8>) -> Result<bool> {
        match self {
            Self::Local(local) => {
                let path = local.path(path);
                blocking(move || put_if_absent(&path, &bytes)).await
            }
            Self::Remote(remote) => {
                let what = remote.path(path)?;
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                match remote.store.put_opts(&what, PutPayload::from(bytes), options).await {
                    Ok(_) => Ok(true),
                    Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                        Ok(false)
                    }
                    Err(error) => Err(stores::error(error, format!("`{what}`"))),
                }
            }
        }
    }

    /// The data files of the target, relative to it, sorted: in its root and in its partition folders.
    pub(super) async fn data_files(&self) -> Result<Vec<String>> {
        let mut files = match self {
            Self::Local(local) => {
                let root = local.root.clone();
                blocking(move || {
                    let mut files = Vec::new();
                    walk(&root, "", &mut files)?;
                    Ok(files)
                })
                .await?
            }
            Self::Remote(remote) => {
                let whole = remote.list("").await?;
                let prefix = if remote.root.as_ref().is_empty() { String::new() } else { format!("{}/", remote.root) };
                let relative = whole.iter().filter_map(|(path, _)| path.strip_prefix(&prefix));
                relative.filter(|path| super::layout::is_target_data(path)).map(str::to_owned).collect()
            }
        };
        files.sort();
        Ok(files)
    }

    /// Takes the only right to change the target, where the place has such a thing: a file lock on local disk. It is
    /// given back on drop, or by the operating system when the process ends.
    pub(super) async fn lock(&self) -> Result<Option<File>> {
        match self {
            Self::Local(local) => {
                let local = local.clone();
                blocking(move || {
                    let path = local.path("_gristmill/lock");
                    make_folder(&local.path("_gristmill"))?;
                    let file =
                        File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
                    match file.lock() {
                        // Network file systems may have no locks; the log's put-if-absent still holds there.
                        Err(error) if error.kind() == Io::Unsupported => Ok(None),
                        other => other.map(|()| Some(file)).map_err(at(&path)),
                    }
                })
                .await
            }
            Self::Remote(_) => Ok(None),
        }
    }

    /// Whether anything of ours has ever been here.
    pub(super) async fn exists(&self) -> Result<bool> {
        match self {
            Self::Local(local) => {
                let home = local.path("_gristmill");
                blocking(move || home.try_exists().map_err(at(&home))).await
            }
            Self::Remote(_) => Ok(true),
        }
    }

    /// Looks whether the place can be written to. Leaves nothing.
    pub(super) async fn probe(&self) -> Result<()> {
        match self {
            Self::Local(local) => {
                let local = local.clone();
                blocking(move || local.probe()).await
            }
            Self::Remote(remote) => {
                // A write of a hidden name that is taken back: what a missing right or bucket would refuse. One name for
                // all: should nobody be left to take it back, the next one does.
                let name = remote.path(PROBE)?;
                let what = format!("`{}`", remote.name);
                if let Some(bucket) = &remote.bucket {
                    bucket.create_unless_there().await?;
                }
                let put = remote.store.put(&name, PutPayload::from_static(b"{}")).await;
                put.map_err(|error| stores::error(error, &what))?;
                fault::at(Point::DuringProbe)?;
                remote.delete(vec![name]).await
            }
        }
    }

    /// Makes outputs for `task`. Called from within the runtime.
    pub(super) fn outputs(&self, task: &TaskKey, file_size: u64, readable: bool, spill: PathBuf) -> Box<dyn Outputs> {
        match self {
            Self::Local(local) => Box::new(LocalOutputs { local: local.clone(), task: task.clone(), made: false }),
            Self::Remote(remote) => Box::new(RemoteOutputs {
                remote: remote.clone(),
                task: task.clone(),
                part_size: part_size(file_size),
                readable,
                opened: 0,
                runtime: Handle::current(),
                spill,
            }),
        }
    }
}

impl Local {
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        if relative.is_empty() { self.root.clone() } else { self.root.join(relative) }
    }

    fn probe(&self) -> Result<()> {
        let mut folder = self.root.as_path();
        loop {
            match fs::metadata(folder) {
                Ok(found) if found.is_dir() => break,
                Ok(_) => {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!(
                            "the target `{}` cannot be a folder: `{}` is a file",
                            self.root.display(),
                            folder.display()
                        ),
                    )
                    .hint("choose another `path`"));
                }
                Err(error) if error.kind() == Io::NotFound => match folder.parent() {
                    Some(parent) => folder = parent,
                    None => return Err(at(folder)(error)),
                },
                Err(error) => return Err(at(folder)(error)),
            }
        }
        // A file without a name leaves nothing behind, not even when this process dies right now.
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{Mode, OFlags, open};
            if open(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).is_ok() {
                return Ok(());
            }
        }
        let probe = folder.join(format!(".gristmill-probe-{}", uuid::Uuid::new_v4().simple()));
        let refused = |error: std::io::Error| {
            let target = format!("the target `{}`", self.root.display());
            match error.kind() {
                Io::PermissionDenied => {
                    Error::new(ErrorKind::Denied, format!("{target} is not writable: `{}` refuses", folder.display()))
                        .hint("check the owner and mode of the folder, or choose another `path`")
                }
                // The folder above is there, and yet nothing can be made in it: `/proc`, an automounter.
                Io::NotFound => Error::new(
                    ErrorKind::Storage,
                    format!("{target} cannot be made: `{}` takes no new files", folder.display()),
                )
                .hint("choose another `path`, or another `url` of the connection"),
                _ => Error::io(&error, target),
            }
        };
        File::options().write(true).create_new(true).open(&probe).map_err(refused)?;
        fs::remove_file(&probe).map_err(refused)
    }
}

impl Remote {
    pub(super) fn path(&self, relative: &str) -> Result<StorePath> {
        let whole = join(self.root.as_ref(), relative);
        StorePath::parse(whole.trim_matches('/')).map_err(|error| {
            Error::new(ErrorKind::Config, format!("`{relative}` cannot be the name of an object")).cause(error)
        })
    }

    /// All objects below `folder`: whole path and size.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        let prefix = self.path(folder)?;
        let listed = self.store.list(Some(&prefix)).map_ok(|meta| (meta.location.to_string(), meta.size));
        listed.try_collect().await.map_err(|error| stores::error(error, format!("`{}`", self.name)))
    }

    /// Deletes objects; those that are gone already are no error.
    pub(super) async fn delete(&self, paths: Vec<StorePath>) -> Result<()> {
        futures::stream::iter(paths.into_iter().map(Ok::<_, Error>))
            .try_for_each_concurrent(8, |path| async move {
                match self.store.delete(&path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => fault::at(Point::AfterDelete),
                    Err(error) => Err(stores::error(error, format!("`{path}`"))),
                }
            })
            .await
    }

    /// The open uploads whose notes begin with `prefix` (below [`INTENTS`]), with the places of the notes.
    pub(super) async fn intents(&self, prefix: &str) -> Result<Vec<(StorePath, Intent)>> {
        let folder = format!("{}/", self.path(INTENTS)?);
        let notes: Vec<StorePath> = self
            .list(INTENTS)
            .await?
            .into_iter()
            .filter(|(path, _)| path.strip_prefix(&folder).is_some_and(|name| name.starts_with(prefix)))
            .map(|(path, _)| listed(&path))
            .collect::<Result<_>>()?;
        let read = futures::stream::iter(notes.into_iter().map(|path| async move {
            let bytes = match self.store.get(&path).await {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            match bytes {
                Ok(bytes) => {
                    let intent = serde_json::from_slice(&bytes).map_err(|error| {
                        Error::new(ErrorKind::Data, format!("`{path}` is not a note of an upload")).cause(error)
                    })?;
                    Ok(Some((path, intent)))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(stores::error(error, format!("`{path}`"))),
            }
        }));
        let found: Vec<Option<(StorePath, Intent)>> = read.buffered(8).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Aborts an upload, or deletes the staged object that has become of it, and deletes its note.
    pub(super) async fn abort(&self, note: &StorePath, intent: &Intent) -> Result<()> {
        let path = self.path(&intent.path)?;
        match self.multipart.abort_multipart(&path, &intent.upload).await {
            // An upload that is gone (completed, aborted, expired) is what is wanted.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(stores::error(error, format!("`{path}`"))),
        }
        // Another object may be published, and is never deleted.
        if is_staged(&intent.path) {
            self.delete(vec![path]).await?;
        }
        self.delete(vec![note.clone()]).await
    }
}

/// A path as a listing gives it. It is encoded as the store wants it: encoding it again would make another name.
pub(super) fn listed(path: &str) -> Result<StorePath> {
    StorePath::parse(path).map_err(|error| Error::internal(format!("`{path}` was listed and is no path")).cause(error))
}

/// Creates a folder and those above it, durably.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folder(parent)?;
        match fs::create_dir(folder) {
            Ok(()) => sync_folder(parent),
            Err(error) if error.kind() == Io::AlreadyExists => Ok(()),
            Err(error) => Err(at(folder)(error)),
        }
    } else {
        Ok(())
    }
}

/// The names below a folder, and whether each is a folder; none where it is not there.
pub(super) fn entries(folder: &Path) -> Result<Vec<(String, bool)>> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if matches!(error.kind(), Io::NotFound | Io::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(at(folder)(error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        let entry = entry.map_err(at(folder))?;
        let is_folder = entry.file_type().map_err(at(folder))?.is_dir();
        names.push((entry.file_name().to_string_lossy().into_owned(), is_folder));
    }
    Ok(names)
}

fn walk(folder: &Path, relative: &str, files: &mut Vec<String>) -> Result<()> {
    for (name, is_folder) in entries(folder)? {
        let path = join(relative, &name);
        if !is_folder && super::layout::is_data(&name) {
            files.push(path);
        } else if is_folder && super::layout::is_partition_folder(&name) {
            walk(&folder.join(&name), &path, files)?;
        }
    }
    Ok(())
}

/// A hard link is made only where there is no name yet, and the file it names is whole by then.
fn put_if_absent(path: &Path, bytes: &[u8]) -> Result<bool> {
    let folder = path.parent().unwrap_or(path);
    make_folder(folder)?;
    let temporary = folder.join(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).open(&temporary)?;
        fault::tearing(Point::LogBytes, bytes, |bytes| file.write_all(bytes))?;
        file.sync_all()?;
        match fs::hard_link(&temporary, path) {
            // No hard links here.
            Err(error) if error.kind() == Io::Unsupported || error.raw_os_error() == Some(1) => {
                take_name(&temporary, path, bytes)
            }
            other => other,
        }
    })();
    // The name may be left by a crash; it is hidden and swept with the folder.
    drop(fs::remove_file(&temporary));
    match written {
        Ok(()) => sync_folder(folder).map(|()| true),
        Err(error) if error.kind() == Io::AlreadyExists => Ok(false),
        Err(error) => Err(at(path)(error)),
    }
}

/// Renames a whole file to a name that must be free. Where the file system cannot do that either, the name itself is made
/// and the bytes written to it: as exclusive, but whoever is killed meanwhile leaves half of them.
fn take_name(temporary: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let taken = renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE).map_err(std::io::Error::from);
    match taken {
        Err(error) if matches!(error.kind(), Io::InvalidInput | Io::Unsupported) => {
            let mut file = File::options().write(true).create_new(true).open(path)?;
            file.write_all(bytes)?;
            file.sync_all()
        }
        other => other,
    }
}

/// Makes temporary files below the target.
struct LocalOutputs {
    local: Local,
    task: TaskKey,
    made: bool,
}

impl Outputs for LocalOutputs {
    fn open(&mut self, path: &str) -> Result<Box<dyn Output>> {
        let staging = join(STAGING, &load_folder(&self.task.load, &self.task.owner));
        let folder = self.local.path(&staging);
        if !self.made {
            make_folder(&folder)?;
            fault::at(Point::BeforeIntent)?;
            let load = LoadOf { key: self.task.load.clone(), owner: self.task.owner.clone() };
            put_if_absent(&folder.join(LOAD_FILE), json!(load).to_string().as_bytes())?;
            self.made = true;
            fault::at(Point::AfterIntent)?;
        }
        let temporary = join(&staging, &format!("{}.tmp", split(path).1));
        let handle = json!({"temporary": temporary});
        Ok(Box::new(FileOutput::create(self.local.path(&temporary), handle)?))
    }

    fn part_size(&self) -> Option<u64> {
        None
    }

    fn spill_folder(&self) -> PathBuf {
        self.local.path(&join(STAGING, &load_folder(&self.task.load, &self.task.owner)))
    }
}

/// Opens uploads below the target.
struct RemoteOutputs {
    remote: Remote,
    task: TaskKey,
    part_size: usize,
    /// Whether uploads are completed where no reader looks, for the commit to copy.
    readable: bool,
    opened: u32,
    runtime: Handle,
    spill: PathBuf,
}

impl Outputs for RemoteOutputs {
    fn open(&mut self, path: &str) -> Result<Box<dyn Output>> {
        let load = LoadOf { key: self.task.load.clone(), owner: self.task.owner.clone() };
        let folder = join(INTENTS, &load_folder(&load.key, &load.owner));
        let hidden = self.readable.then(|| hidden_path(&self.task, self.opened, path));
        self.opened += 1;
        let target = hidden.is_some().then(|| path.to_owned());
        let path = hidden.as_deref().unwrap_or(path);
        let note = self.remote.path(&join(&folder, &format!("{}.json", split(path).1)))?;
        let say = |upload: &str| {
            let (load, path, upload) = (load.clone(), path.to_owned(), upload.to_owned());
            json!(Intent { load, path, upload, target: target.clone() })
        };
        let to = UploadTo {
            multipart: self.remote.multipart.clone(),
            store: self.remote.store.clone(),
            path: self.remote.path(path)?,
            hidden: hidden.clone(),
            part_size: self.part_size,
            runtime: self.runtime.clone(),
        };
        Ok(Box::new(UploadOutput::create(to, Some((note, &say)))?))
    }

    fn part_size(&self) -> Option<u64> {
        Some(self.part_size as u64)
    }

    fn spill_folder(&self) -> PathBuf {
        self.spill.clone()
    }
}

/// Where the log is, for whoever names its files.
pub(super) fn log_path(name: &str) -> String {
    join(LOG, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_not_taken_again_with_or_without_hard_links() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, path) = (folder.path().join("t"), folder.path().join("1.json"));
        fs::write(&temporary, "one").unwrap();
        take_name(&temporary, &path, b"one").unwrap();
        fs::write(&temporary, "two").unwrap();
        assert_eq!(take_name(&temporary, &path, b"two").unwrap_err().kind(), Io::AlreadyExists);
        assert!(!put_if_absent(&path, b"three").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }
}
