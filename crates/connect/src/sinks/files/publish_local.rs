//! Publishing on local disk: whole partitions by one rename.
//!
//! The new files of a partition are gathered in a hidden folder, which then takes the partition's place: by a plain
//! rename where there is nothing yet, by an exchange of the two names (`RENAME_EXCHANGE`) where old files are replaced.
//! `replace` does the same with the folder of the whole target; `_gristmill` is reachable at every moment, because the
//! new folder holds a symbolic link to it until the two are exchanged as well. Where an exchange is not possible (the
//! file system has none, files of others lie among ours, an append to a partition), files are renamed one by one, all
//! new ones before any old one goes.
//!
//! Every step can be repeated after a crash: a file is looked for in each place it may have come to.

use super::Faults;
use super::layout::{HOME, STAGING, join, split};
use super::log::Entry;
use super::place::{Local, at, entries, make_folder, side_by_side, sync_folder};
use gristmill_model::fault::Point;
use gristmill_model::spec::Strategy;
use gristmill_model::{Error, ErrorKind, Result, StagedFile};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};

/// Swaps two names at once. False: this file system cannot.
fn exchange(one: &Path, other: &Path) -> Result<bool> {
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(error) => {
            let error = std::io::Error::from(error);
            match error.kind() {
                // No such call, not on this file system, a mount point, no right to the folder above.
                Io::InvalidInput | Io::Unsupported | Io::CrossesDevices | Io::ResourceBusy | Io::PermissionDenied => {
                    Ok(false)
                }
                _ => Err(at(one)(error)),
            }
        }
    }
}

/// One entry being published.
struct Publishing<'a> {
    local: &'a Local,
    faults: &'a Faults,
    /// Hidden folder in which partitions are prepared.
    work: PathBuf,
    /// Hidden folder beside the target, which takes its place.
    sibling: Option<PathBuf>,
    /// A compaction: what is not replaced goes along, so that its folder can change at once as well.
    keeps: bool,
}

/// New and old files of one partition.
#[derive(Default)]
struct Partition<'a> {
    new: Vec<&'a StagedFile>,
    old: BTreeSet<&'a str>,
}

/// Makes what `entry` says true: its files are in, those it removes are gone. Only under the target's lock.
///
/// # Errors
/// A disk that refuses; can be repeated.
pub(super) fn publish(local: &Local, number: u64, entry: &Entry, faults: &Faults) -> Result<()> {
    let root = fs::canonicalize(&local.root).map_err(at(&local.root))?;
    let local = &Local { root };
    let sibling = local.root.parent().zip(local.root.file_name()).map(|(parent, name)| {
        parent.join(format!(".{}.gristmill-{number}-{}", name.to_string_lossy(), entry.key.short()))
    });
    let work = local.path(&format!("{STAGING}/publish-{number}"));
    let keeps = entry.strategy.is_none();
    let publishing = Publishing { local, faults, work, sibling, keeps };
    publishing.finish_exchange()?;
    let mut partitions: BTreeMap<&str, Partition> = BTreeMap::new();
    for file in &entry.publish {
        partitions.entry(split(&file.path).0).or_default().new.push(file);
    }
    for path in &entry.remove {
        partitions.entry(split(path).0).or_default().old.insert(path);
    }
    let missing = entry.publish.iter().any(|file| !local.path(&file.path).exists());
    // One file without a predecessor appears at once by its own rename.
    let at_once = entry.publish.len() + entry.remove.len() > 1;
    if (entry.strategy == Some(Strategy::Replace) || publishing.keeps) && missing && at_once {
        publishing.exchange_target(entry)?;
    }
    let partitions: Vec<(&str, Partition)> = partitions.into_iter().collect();
    each(&partitions, |folder, partition| {
        publishing.publish_partition(folder, partition)?;
        faults.at(Point::AfterPublish)
    })?;
    faults.at(Point::BeforeDelete)?;
    each(&partitions, |folder, partition| publishing.remove_old(folder, partition))?;
    publishing.clean()
}

/// Partitions from which on they are worked on side by side: each waits for the disk a few times. Fewer keep their order.
const MANY_PARTITIONS: usize = 16;

fn each(partitions: &[(&str, Partition<'_>)], work: impl Fn(&str, &Partition<'_>) -> Result<()> + Sync) -> Result<()> {
    // The root of a target without partitions may change under the others, never beside them.
    if partitions.len() < MANY_PARTITIONS || partitions.iter().any(|(folder, _)| folder.is_empty()) {
        return partitions.iter().try_for_each(|(folder, partition)| work(folder, partition));
    }
    side_by_side(partitions, |(folder, partition)| work(folder, partition))
}

/// Synchronises a folder, unless another thread has just removed it, and synchronises the one above.
fn sync_if_there(folder: &Path) -> Result<()> {
    match sync_folder(folder) {
        Err(_) if !folder.exists() => Ok(()),
        other => other,
    }
}

impl Publishing<'_> {
    /// Where a file to publish is now, unless it is published.
    fn source(&self, file: &StagedFile) -> Result<PathBuf> {
        let temporary = file.handle["temporary"].as_str().map(|path| self.local.path(path));
        let prepared = Some(self.work.join(&file.path));
        let beside = self.sibling.as_ref().map(|sibling| sibling.join(&file.path));
        [temporary, prepared, beside].into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
            Error::new(ErrorKind::Conflict, format!("the staged file of `{}` has vanished", file.path))
                .hint("was `_gristmill/staging` cleaned by hand? Run the load again with `gristmill clear`")
        })
    }

    /// Gathers files in `folder` (their partition's, or its stand-in) under their own names.
    fn gather(&self, files: &[&StagedFile], folder: &Path) -> Result<()> {
        make_folder(folder)?;
        for file in files {
            let target = folder.join(split(&file.path).1);
            if !target.exists() {
                let source = self.source(file)?;
                self.faults.at(Point::BeforePublish)?;
                fs::rename(&source, &target).map_err(at(&source))?;
                self.faults.at(Point::DuringPublish)?;
            }
        }
        sync_folder(folder)
    }

    fn publish_partition(&self, folder: &str, partition: &Partition) -> Result<()> {
        let target = self.local.path(folder);
        let new: Vec<&StagedFile> =
            partition.new.iter().copied().filter(|file| !self.local.path(&file.path).exists()).collect();
        if new.is_empty() {
            return Ok(());
        }
        let present = entries(&target)?;
        let all_old =
            present.iter().all(|(name, is_folder)| !is_folder && partition.old.contains(join(folder, name).as_str()));
        let goes_along = self.keeps && present.iter().all(|(_, is_folder)| !is_folder);
        if folder.is_empty() || !(all_old || goes_along) || (new.len() == 1 && present.is_empty()) {
            return self.gather(&new, &target);
        }
        let prepared = self.work.join(folder);
        self.gather(&new, &prepared)?;
        let kept = present.iter().map(|(name, _)| name.as_str());
        let kept: Vec<&str> = kept.filter(|name| !partition.old.contains(join(folder, name).as_str())).collect();
        if !take_along(&kept, &target, &prepared)? {
            return self.gather(&new, &target);
        }
        self.faults.at(Point::DuringPublish)?;
        let above = target.parent().unwrap_or(&target);
        make_folder(above)?;
        let taken = if let Ok(old) = fs::metadata(&target) {
            fs::set_permissions(&prepared, old.permissions()).map_err(at(&prepared))?;
            exchange(&prepared, &target)?
        } else {
            fs::rename(&prepared, &target).is_ok()
        };
        if !taken {
            return self.gather(&new, &target);
        }
        sync_folder(above)?;
        self.faults.at(Point::DuringPublish)
    }

    fn remove_old(&self, folder: &str, partition: &Partition) -> Result<()> {
        let target = self.local.path(folder);
        let present = entries(&target)?;
        if present.is_empty() {
            return Ok(());
        }
        let old = |name: &str| partition.old.contains(join(folder, name).as_str());
        if !folder.is_empty() && present.iter().all(|(name, is_folder)| !is_folder && old(name)) {
            // Nothing new comes here: the whole partition goes at once.
            let gone = self.work.join(format!("gone/{folder}"));
            make_folder(gone.parent().unwrap_or(&gone))?;
            if fs::rename(&target, &gone).is_ok() {
                self.faults.at(Point::AfterDelete)?;
                let above = target.parent().unwrap_or(&target);
                sync_if_there(above)?;
                return self.prune(above);
            }
        }
        for (name, is_folder) in present {
            if !is_folder && old(&name) {
                let path = target.join(&name);
                fs::remove_file(&path).map_err(at(&path))?;
                self.faults.at(Point::AfterDelete)?;
            }
        }
        sync_folder(&target)
    }

    /// Removes partition folders above a removed one that have become empty.
    fn prune(&self, folder: &Path) -> Result<()> {
        let mut folder = folder;
        while folder != self.local.root && entries(folder)?.is_empty() {
            // Somebody may have put something there just now: then it stays.
            if fs::remove_dir(folder).is_err() {
                break;
            }
            let Some(above) = folder.parent() else { break };
            sync_if_there(above)?;
            folder = above;
        }
        Ok(())
    }

    /// Prepares a whole new target beside the old one and exchanges the two, if nothing but what is to be removed lies
    /// in the old one and the place allows it.
    fn exchange_target(&self, entry: &Entry) -> Result<()> {
        let Some(sibling) = &self.sibling else { return Ok(()) };
        let remove: BTreeSet<&str> = entry.remove.iter().map(String::as_str).collect();
        let mut kept = Vec::new();
        if !only(&self.local.root, "", &remove)? {
            let present = entries(&self.local.root)?;
            if !self.keeps || present.iter().any(|(name, is_folder)| *is_folder && name != HOME) {
                return Ok(());
            }
            kept = present.into_iter().map(|(name, _)| name).collect();
            kept.retain(|name| name != HOME && !remove.contains(name.as_str()));
        }
        match fs::create_dir(sibling) {
            Ok(()) => {}
            Err(error) if error.kind() == Io::AlreadyExists => {}
            // No right to the folder above: one by one, then.
            Err(_) => return Ok(()),
        }
        let old = fs::metadata(&self.local.root).map_err(at(&self.local.root))?;
        fs::set_permissions(sibling, old.permissions()).map_err(at(sibling))?;
        let mut folders: BTreeMap<&str, Vec<&StagedFile>> = BTreeMap::new();
        for file in &entry.publish {
            folders.entry(split(&file.path).0).or_default().push(file);
        }
        for (folder, files) in &folders {
            self.gather(files, &sibling.join(folder))?;
        }
        let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
        if !take_along(&kept, &self.local.root, sibling)? {
            return Ok(());
        }
        let link = sibling.join(HOME);
        let name = sibling.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match std::os::unix::fs::symlink(format!("../{name}/{HOME}"), &link) {
            Err(error) if error.kind() != Io::AlreadyExists => return Ok(()),
            _ => sync_folder(sibling)?,
        }
        self.faults.at(Point::DuringPublish)?;
        if exchange(sibling, &self.local.root)? {
            sync_folder(sibling.parent().unwrap_or(sibling))?;
            self.faults.at(Point::DuringPublish)?;
            self.finish_exchange()?;
        }
        Ok(())
    }

    /// After the target has been exchanged: `_gristmill` follows.
    fn finish_exchange(&self) -> Result<()> {
        let link = self.local.path(HOME);
        let is_link = fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink());
        if !is_link {
            return Ok(());
        }
        let real = fs::canonicalize(&link).map_err(at(&link))?;
        // What could exchange two folders can exchange these.
        if !exchange(&link, &real)? {
            return Err(Error::new(ErrorKind::Storage, format!("`{}` cannot be put in its place", link.display()))
                .hint("check the rights of the folder, then run `gristmill recover`"));
        }
        sync_folder(&self.local.root)?;
        sync_folder(real.parent().unwrap_or(&real))?;
        self.faults.at(Point::DuringPublish)
    }

    /// Removes what was exchanged out.
    fn clean(&self) -> Result<()> {
        for folder in [Some(&self.work), self.sibling.as_ref()].into_iter().flatten() {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != Io::NotFound => return Err(at(folder)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Gives files of one folder a second name in another. False: this file system cannot.
fn take_along(names: &[&str], from: &Path, to: &Path) -> Result<bool> {
    for name in names {
        match fs::hard_link(from.join(name), to.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == Io::AlreadyExists => {}
            // No hard links here, or not to what is of others.
            Err(error) if matches!(error.kind(), Io::Unsupported | Io::PermissionDenied | Io::CrossesDevices) => {
                return Ok(false);
            }
            Err(error) => return Err(at(&from.join(name))(error)),
        }
    }
    if !names.is_empty() {
        sync_folder(to)?;
    }
    Ok(true)
}

/// Whether nothing but `files` (and our own folder) lies in a folder.
fn only(folder: &Path, relative: &str, files: &BTreeSet<&str>) -> Result<bool> {
    for (name, is_folder) in entries(folder)? {
        let path = join(relative, &name);
        let fine = match (is_folder, relative.is_empty() && name == HOME) {
            (_, true) => true,
            (true, _) => only(&folder.join(&name), &path, files)?,
            (false, _) => files.contains(path.as_str()),
        };
        if !fine {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes a folder if it is empty.
pub(super) fn forget_empty(folder: &Path) -> Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if !matches!(error.kind(), Io::NotFound | Io::DirectoryNotEmpty) => Err(at(folder)(error)),
        _ => Ok(()),
    }
}
