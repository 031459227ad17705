//! Where dead letters are, and when they go.

use super::Shelf;
use gristmill_model::spec::{DeadLettersSpec, path_safe};
use gristmill_model::{Error, Interval, Result, RunId, StepName};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How the files' names end, and those of files that are not finished.
pub(super) const ENDING: &str = ".parquet";
const PARTIAL: &str = ".tmp";

/// The state folder that letters are in: of their own where they are copies of what a connection has, so that nobody takes
/// letters that were written before for copies of some that are gone.
#[must_use]
pub fn home(state: &Path, spec: Option<&DeadLettersSpec>) -> PathBuf {
    match spec {
        Some(spec) if spec.to.is_some() => state.join("copies"),
        _ => state.to_owned(),
    }
}

/// The folder of all letters.
pub(super) fn root(state: &Path) -> PathBuf {
    state.join("dead_letters")
}

/// Whose letters: those of a pipeline's interval, under a profile. Two profiles of a project know nothing of each other.
#[derive(Debug, Clone)]
pub(crate) struct Drawer {
    folder: PathBuf,
    shelf: Option<Shelf>,
}

impl Drawer {
    pub(crate) fn new(state: &Path, pipeline: &str, profile: Option<&str>, interval: &Interval) -> Self {
        // The name of a pipeline has no `@`.
        let of_profile = profile.map(|profile| format!("@{}", path_safe(profile))).unwrap_or_default();
        let interval = interval.to_string().replace([':', '/'], "-");
        Self { folder: root(state).join(format!("{pipeline}{of_profile}")).join(interval), shelf: None }
    }

    /// The same, where letters are kept on a shelf.
    pub(crate) fn on(self, shelf: Option<Shelf>) -> Self {
        Self { shelf, ..self }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a job's letters while it is written, and when it is finished.
    pub(super) fn files(&self, run: &RunId, job: &str, attempt: u32) -> (PathBuf, PathBuf) {
        let name = format!("{run}-{job}-{attempt}{ENDING}");
        (self.folder.join(format!("{name}{PARTIAL}")), self.folder.join(name))
    }

    /// Removes the letters of a load that is thrown away.
    pub(crate) async fn throw_away(&self, run: &RunId, load: &StepName) {
        let (run, load) = (run.clone(), load.clone());
        self.remove(move |of, job| of == run.as_str() && job == load.as_str()).await;
    }

    /// Removes the letters of earlier runs of a load that has just been committed, and of their replays: all of its rows
    /// have been read anew.
    pub(crate) async fn supersede(&self, run: &RunId, load: &StepName) {
        let (run, load) = (run.clone(), load.clone());
        self.remove(move |of, job| {
            let job = StepName::from(job);
            of != run.as_str() && (job == load || job.replay().is_some_and(|(replayed, _)| replayed == load))
        })
        .await;
    }

    /// Removes the files whose run and job are meant. What cannot be removed stays and is said in the log: the load is
    /// done whatever becomes of it.
    async fn remove(&self, meant: impl Fn(&str, &str) -> bool + Send + Sync + 'static) {
        let (folder, meant) = (self.folder.clone(), Arc::new(meant));
        if let Some(shelf) = &self.shelf {
            let is_meant = |name: &str| parts(name).is_some_and(|(run, job)| meant(run, job));
            if let Err(error) = shelf.remove(&folder, &is_meant).await {
                tracing::warn!("dead letters could not be removed: {error}");
            }
        }
        let work = move || {
            let Ok(entries) = std::fs::read_dir(&folder) else { return };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if parts(&name).is_some_and(|(run, job)| meant(run, job))
                    && let Err(error) = std::fs::remove_file(entry.path())
                {
                    tracing::warn!("the dead letters `{}` could not be removed: {error}", entry.path().display());
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::warn!("dead letters could not be removed: {error}");
        }
    }
}

/// Run and job of a file's name.
pub(super) fn parts(name: &str) -> Option<(&str, &str)> {
    let stem = name.strip_suffix(PARTIAL).unwrap_or(name).strip_suffix(ENDING)?;
    // Ids of runs have no `-`; the name of a step for one of many tables may have one.
    let (run, rest) = stem.split_once('-')?;
    let (job, attempt) = rest.rsplit_once('-')?;
    (!attempt.is_empty() && attempt.bytes().all(|byte| byte.is_ascii_digit())).then_some((run, job))
}

/// Every finished file below the folder of all letters, by its path below it.
pub(super) fn all(state: &Path) -> Result<Vec<String>> {
    let root = root(state);
    let mut found = Vec::new();
    for pipeline in entries(&root)? {
        for interval in entries(&pipeline)? {
            found.extend(entries(&interval)?.into_iter().filter(|path| path.to_string_lossy().ends_with(ENDING)));
        }
    }
    found.sort();
    let below = |path: PathBuf| path.strip_prefix(&root).map(|path| path.to_string_lossy().into_owned()).ok();
    Ok(found.into_iter().filter_map(below).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let complain = |error: std::io::Error| Error::io(&error, format!("the folder `{}`", folder.display()));
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    std::fs::read_dir(folder).map_err(complain)?.map(|entry| Ok(entry.map_err(complain)?.path())).collect()
}
