//! A folder of one's own for spill files, and the end of those that killed processes have left.
//!
//! Each process has `spill/<id>/` and holds the lock of `spill/<id>.lock`, which the operating system gives back however
//! it ends. A folder whose lock is free belongs to nobody any more.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// The folder for spill files of this process; goes when it is dropped, or with the next process.
#[derive(Debug)]
pub(crate) struct SpillFolder {
    path: PathBuf,
    _lock: File,
}

impl SpillFolder {
    /// Makes the folder below `spill`, and removes those of dead processes. Blocks on the disk.
    pub(crate) fn new(spill: &Path) -> io::Result<Self> {
        fs::create_dir_all(spill)?;
        sweep(spill);
        let id = uuid::Uuid::new_v4().simple().to_string();
        let path = spill.join(&id);
        // The lock before the folder: whoever sees the folder must find the lock taken.
        let lock = OpenOptions::new().create_new(true).write(true).open(lock_of(&path))?;
        lock.lock()?;
        fs::create_dir(&path)?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        // Only when it is empty: a query that outlives its engine may still spill.
        if fs::remove_dir(&self.path).is_ok() {
            drop(fs::remove_file(lock_of(&self.path)));
        }
    }
}

fn lock_of(folder: &Path) -> PathBuf {
    folder.with_extension("lock")
}

/// Removes the folders of dead processes. What cannot be removed is left to the next one.
fn sweep(spill: &Path) {
    let Ok(entries) = fs::read_dir(spill) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some() || !path.is_dir() {
            continue;
        }
        let lock = File::open(lock_of(&path));
        let dead = match &lock {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if dead && fs::remove_dir_all(&path).is_ok() {
            drop(fs::remove_file(lock_of(&path)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_goes_and_what_lives_stays() {
        let folder = tempfile::tempdir().unwrap();
        let alive = SpillFolder::new(folder.path()).unwrap();
        fs::write(alive.path().join("rows"), "x").unwrap();
        for (name, locked) in [("dead", true), ("datafusion-x", false)] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("rows"), "x").unwrap();
            if locked {
                fs::write(folder.path().join("dead.lock"), "").unwrap();
            }
        }
        let next = SpillFolder::new(folder.path()).unwrap();
        let names = || {
            let mut names: Vec<PathBuf> =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names
        };
        let mut left =
            vec![alive.path().to_owned(), lock_of(alive.path()), next.path().to_owned(), lock_of(next.path())];
        left.sort();
        assert_eq!(names(), left);
        drop(next);
        assert_eq!(names().len(), 2, "an empty one goes at once");
    }
}
