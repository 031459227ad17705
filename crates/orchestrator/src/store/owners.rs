//! Who lives: one locked file per run.

use gristmill_model::{Error, Result, RunId};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The lock under which runs are recovered and begun.
const START: &str = "start";

/// The folder of owner locks, `.gristmill/owners/`.
///
/// A run holds an exclusive lock on `<run>.lock` from before it is recorded until it has ended. The operating system
/// gives the lock back when the process dies, however it dies, so a run that the store calls running and whose lock is
/// free is dead. Good for one host; the file system must support locks. All calls block for a moment.
#[derive(Debug, Clone)]
pub struct Owners {
    folder: PathBuf,
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct OwnerLock {
    file: Option<File>,
    path: PathBuf,
    /// Whether the file goes with the lock: a run's does, the starting lock's must stay.
    remove: bool,
}

impl Owners {
    /// The locks below a project's state folder.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("owners") }
    }

    /// Takes the lock of a new run.
    ///
    /// # Errors
    /// A folder that cannot be written, or an id that is taken.
    pub fn hold(&self, run: &RunId) -> Result<OwnerLock> {
        let path = self.path(run);
        let file = self.open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(OwnerLock { file: Some(file), path, remove: true }),
            Err(TryLockError::WouldBlock) => Err(Error::internal(format!("the run id `{run}` is held by another run"))),
            Err(TryLockError::Error(error)) => Err(Error::io(&error, format!("`{}`", path.display()))),
        }
    }

    /// Takes the lock under which runs are recovered and begun, one process at a time; none while another holds it.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn try_start(&self) -> Result<Option<OwnerLock>> {
        let path = self.folder.join(format!("{START}.lock"));
        let file = self.open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(OwnerLock { file: Some(file), path, remove: false })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io(&error, format!("`{}`", path.display()))),
        }
    }

    /// Whether nobody holds the lock of this run.
    ///
    /// # Errors
    /// A lock file that cannot be looked at.
    pub fn is_dead(&self, run: &RunId) -> Result<bool> {
        let path = self.path(run);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(Error::io(&error, format!("`{}`", path.display()))),
        };
        // Shared, so that two who look at once do not take each other for the owner.
        match file.try_lock_shared() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(Error::io(&error, format!("`{}`", path.display()))),
        }
    }

    /// Runs whose lock file is there and held by nobody: they have ended, or their processes died, and what they left is
    /// not cleaned up yet.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn left(&self) -> Result<Vec<RunId>> {
        let complain = |error: std::io::Error| Error::io(&error, format!("`{}`", self.folder.display()));
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(complain)?,
        };
        let mut left = Vec::new();
        for entry in entries {
            let name = entry.map_err(complain)?.file_name();
            let Some(run) = name.to_str().and_then(|name| name.strip_suffix(".lock")) else { continue };
            let run = RunId::from(run);
            if run.as_str() != START && self.is_dead(&run)? {
                left.push(run);
            }
        }
        left.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        Ok(left)
    }

    /// What the owner of a lock has noted in its file; empty where it has not come to that, or where there is no file.
    ///
    /// # Errors
    /// A lock file that cannot be read.
    pub fn noted(&self, run: &RunId) -> Result<String> {
        let path = self.path(run);
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(|error| Error::io(&error, format!("`{}`", path.display()))),
        }
    }

    /// Removes the lock file of a dead run.
    pub fn forget(&self, run: &RunId) {
        // Harmless where it stays: a free lock and no lock mean the same.
        let _ = std::fs::remove_file(self.path(run));
    }

    fn path(&self, run: &RunId) -> PathBuf {
        self.folder.join(format!("{run}.lock"))
    }

    fn open(&self, path: &Path) -> Result<File> {
        std::fs::create_dir_all(&self.folder)
            .map_err(|error| Error::io(&error, format!("`{}`", self.folder.display())))?;
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| Error::io(&error, format!("`{}`", path.display())))
    }
}

impl OwnerLock {
    /// Writes into the lock's file what whoever finds it should know.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn note(&self, text: &str) -> Result<()> {
        let Some(mut file) = self.file.as_ref() else { return Ok(()) };
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|error| Error::io(&error, format!("`{}`", self.path.display())))
    }

    /// Gives the lock back, but leaves its file: there is something to be cleaned up ([`Owners::left`]).
    pub fn leave(mut self) {
        self.remove = false;
    }
}

impl Drop for OwnerLock {
    fn drop(&mut self) {
        if self.remove {
            let _ = std::fs::remove_file(&self.path);
        }
        self.file.take();
    }
}
