//! Compactions that are at work, and those that were cut short.
//!
//! Each holds a lock below `<state>/compactions/`, as runs do below `<state>/owners/`; they are no runs, which the store would
//! know. The lock's file says of what they were, so that whoever comes next can look there. Looking who is dead and taking a
//! lock happen under the lock of the folder: somebody who has made his file, and not locked it yet, would be taken for dead.

use crate::commands::folders;
use crate::context;
use crate::place::{Place, What};
use gristmill_connect::{Connection, OpenContext, Recovered, registry};
use gristmill_model::yaml::to_error;
use gristmill_model::{CancellationToken, Error, ErrorKind, OwnerId, Result, RunId};
use gristmill_orchestrator::Project;
use gristmill_orchestrator::store::{OwnerLock, Owners};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a compaction was of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// `connection:path`, where the connection may be a URL or a folder.
    place: String,
    /// Whether the connection was made for the command.
    made: bool,
    profile: Option<String>,
}

impl Target {
    /// The target of a compaction of `place`.
    pub(crate) fn new(place: &Place, project: Option<&Project>) -> Self {
        let named = place.clone().named_by_url();
        Self {
            place: format!("{}:{}", named.connection, named.path().unwrap_or_default()),
            made: place.made.is_some(),
            profile: profile(project),
        }
    }

    /// Opens it again.
    fn open(&self, project: Option<&Project>) -> Result<(Arc<dyn Connection>, String)> {
        let place =
            if self.made { Place::of_slot(&self.place, None)? } else { Place::parse(&self.place, "target", project)? };
        let What::Path(path) = &place.what else {
            return Err(Error::new(ErrorKind::Config, format!("`{}` is a table now", self.place)));
        };
        Ok((connection_of(&place, project)?, path.clone()))
    }
}

/// The profile under which the connections of a project are what they are.
fn profile(project: Option<&Project>) -> Option<String> {
    project.and_then(|project| project.spec.profile.clone())
}

/// Opens the connection of a place: one of the project, or one that was made for it.
pub(crate) fn connection_of(place: &Place, project: Option<&Project>) -> Result<Arc<dyn Connection>> {
    match (&place.made, project) {
        (None, Some(project)) => context::connection(project, place.connection.as_str()),
        (None, None) => Err(Error::internal("a connection without a project")),
        (Some(made), _) => {
            let (root, state) = folders(project)?;
            registry::open(made, &OpenContext { project: root, state }).map_err(|mistakes| to_error(&mistakes))
        }
    }
}

/// One that was cut short.
struct Left {
    id: RunId,
    /// Of what; none where it had not begun.
    target: Option<Target>,
}

/// The lock of a compaction at work, and who is dead.
pub(crate) struct AtWork {
    owners: Owners,
    id: RunId,
    lock: OwnerLock,
    left: Vec<Left>,
    target: Target,
}

impl AtWork {
    /// Begins one.
    ///
    /// # Errors
    /// A state folder that cannot be written; a stop on request.
    pub(crate) async fn begin(state: &Path, target: Target, cancel: &CancellationToken) -> Result<Self> {
        let owners = Owners::new(&state.join("compactions"));
        let note = serde_json::to_string(&target).map_err(|error| Error::internal("no JSON").cause(error))?;
        let id = RunId::from(format!("compact-{}-{}", chrono::Utc::now().timestamp_micros(), std::process::id()));
        let (looking, locked) = (owners.clone(), id.clone());
        let (left, lock) = alone(&owners, cancel, move || {
            let left = left(&looking)?;
            let lock = looking.hold(&locked)?;
            lock.note(&note)?;
            Ok((left, lock))
        })
        .await?;
        Ok(Self { owners, id, lock, left, target })
    }

    /// Who it is.
    pub(crate) fn owner(&self) -> OwnerId {
        OwnerId(self.id.clone())
    }

    /// Who was cut short before it began.
    pub(crate) fn dead(&self) -> BTreeSet<String> {
        ids(&self.left)
    }

    /// It has ended. What has failed may have left something, for whoever comes next.
    pub(crate) fn end(self, well: bool) {
        if !well {
            self.lock.leave();
            return;
        }
        for left in self.left.iter().filter(|left| left.target.as_ref().is_none_or(|target| *target == self.target)) {
            self.owners.forget(&left.id);
        }
    }
}

fn ids(left: &[Left]) -> BTreeSet<String> {
    left.iter().map(|left| left.id.as_str().to_owned()).collect()
}

/// Does what no two processes may do at once.
async fn alone<T: Send + 'static>(
    owners: &Owners,
    cancel: &CancellationToken,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let lock = loop {
        let owners = owners.clone();
        if let Some(lock) = blocking(move || owners.try_start()).await? {
            break lock;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            () = cancel.cancelled() => return Err(Error::new(ErrorKind::Canceled, "stopped on request")),
        }
    };
    blocking(move || {
        let _lock = lock;
        work()
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal("a lock ended early").cause(error))?
}

/// Whoever was cut short. Under the lock of the folder.
fn left(owners: &Owners) -> Result<Vec<Left>> {
    let mut all = Vec::new();
    for id in owners.left()? {
        let note = owners.noted(&id)?;
        // Who died before it was noted had done nothing else.
        let target = serde_json::from_str(&note).ok();
        all.push(Left { id, target });
    }
    Ok(all)
}

/// Finishes or sweeps what compactions have left that were cut short, those of other profiles excepted; what was done, in words.
///
/// # Errors
/// A state folder that cannot be read. A target that cannot be reached just now is a note.
pub(crate) async fn recover(project: Option<&Project>, cancel: &CancellationToken) -> Result<Vec<String>> {
    let (_, state) = folders(project)?;
    let folder = state.join("compactions");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let owners = Owners::new(&folder);
    let looking = owners.clone();
    let left = alone(&owners, cancel, move || left(&looking)).await?;
    let dead = ids(&left);
    let mut notes = Vec::new();
    for Left { id, target } in left {
        let Some(target) = target else {
            owners.forget(&id);
            continue;
        };
        if target.profile != profile(project) {
            continue;
        }
        let looked = match target.open(project) {
            Ok((connection, path)) => {
                connection.recover_compactions(&path, &|owner| dead.contains(owner.0.as_str())).await
            }
            Err(error) => Err(error),
        };
        match looked {
            Ok(done) => {
                owners.forget(&id);
                notes.extend(told(&target.place, &done));
            }
            Err(error) => notes.push(format!(
                "what a compaction of `{}` left cannot be looked at: {error}; `gristmill recover` tries again",
                target.place
            )),
        }
    }
    Ok(notes)
}

/// What was found of it; nothing where it had left nothing.
fn told(place: &str, done: &Recovered) -> Option<String> {
    let what = match (done.finished.is_empty(), done.swept) {
        (true, 0) if done.undone.is_empty() => return None,
        (true, swept) => format!("it is undone, and what it had staged is swept ({swept})"),
        (false, 0) => "what it had decided is done".to_owned(),
        (false, swept) => format!("what it had decided is done, and what it had staged is swept ({swept})"),
    };
    Some(format!("a compaction of `{place}` was cut short: {what}"))
}
