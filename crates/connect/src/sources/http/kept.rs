//! Pages that were read, for another attempt of the same run.
//!
//! What an attempt has staged is thrown away when it fails, so the next one needs all rows again; but it need not ask for
//! them. Whole pages are kept on disk, in a file without a name that is gone with the process. They are of use within one
//! run only: another run wants what the API says then.
//!
//! Keeping is a kindness to the API and no more: whatever goes wrong with the file, pages are asked for.

use super::client::Call;
use super::page::Page;
use super::paginate::Facts;
use bytes::Bytes;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More than this is not kept.
const MOST_BYTES: u64 = 1 << 30;

/// Jobs whose pages are kept, at most, by one connection, though nobody says that they have ended.
const MOST_JOBS: usize = 32;

/// What makes a request the same request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Bytes>,
}

impl From<&Call> for Key {
    fn from(call: &Call) -> Self {
        let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
            (name.as_str().to_owned(), value.as_bytes().to_vec())
        };
        let mut headers: Vec<_> = call.headers.iter().map(header).collect();
        headers.sort_unstable();
        Self { url: call.url.to_string(), headers, body: call.body.clone() }
    }
}

/// The pages of each job.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
    jobs: Mutex<HashMap<String, Arc<Kept>>>,
}

/// The pages of one job.
#[derive(Debug)]
struct Kept {
    folder: PathBuf,
    attempts: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    length: u64,
    pages: HashMap<Key, Place>,
    is_over: bool,
}

/// Where a page lies, and what was seen of it.
#[derive(Debug, Clone)]
struct Place {
    attempt: u64,
    at: u64,
    length: usize,
    facts: Facts,
    url: String,
    name: String,
}

/// The pages of one job, as one attempt of it sees them.
#[derive(Debug)]
pub(super) struct Attempt {
    kept: Arc<Kept>,
    number: u64,
}

impl Shelf {
    pub(super) fn new(state: &Path) -> Self {
        Self { folder: state.join("spool"), jobs: Mutex::default() }
    }

    /// Another attempt of a job.
    pub(super) fn attempt(&self, job: &str) -> Attempt {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.len() >= MOST_JOBS && !jobs.contains_key(job) {
            jobs.clear();
        }
        let new = || Kept { folder: self.folder.clone(), attempts: AtomicU64::new(0), state: Mutex::default() };
        let kept = jobs.entry(job.to_owned()).or_insert_with(|| Arc::new(new())).clone();
        let number = kept.attempts.fetch_add(1, Ordering::Relaxed);
        Attempt { kept, number }
    }

    /// There will be no further attempt of the jobs within `whole`: their files go with whoever still reads them.
    pub(super) fn ended(&self, whole: &str) {
        let is_within =
            |job: &str| job.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).retain(|job, _| !is_within(job));
    }
}

impl Kept {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// A page that was read before, and whether an earlier attempt has read it.
    pub(super) async fn find(&self, key: &Key) -> Option<(Page, bool)> {
        let (place, file) = {
            let state = self.kept.state();
            (state.pages.get(key)?.clone(), state.file.clone()?)
        };
        let (at, length) = (place.at, place.length);
        let read = tokio::task::spawn_blocking(move || {
            let mut body = vec![0; length];
            file.read_exact_at(&mut body, at).map(|()| body)
        });
        let body = read.await.ok()?.ok()?;
        let page = Page { body: body.into(), facts: place.facts, url: place.url, name: place.name };
        Some((page, place.attempt < self.number))
    }

    /// Keeps a page.
    pub(super) async fn keep(&self, key: Key, page: &Page) {
        let length = page.body.len() as u64;
        let (at, file) = {
            let mut state = self.kept.state();
            state.is_over |= state.length.saturating_add(length) > MOST_BYTES;
            if state.is_over {
                return;
            }
            let at = state.length;
            state.length += length;
            (at, state.file.clone())
        };
        let (body, folder) = (page.body.clone(), self.kept.folder.clone());
        let write = tokio::task::spawn_blocking(move || {
            let file = file.map_or_else(|| nameless(&folder), Ok)?;
            file.write_all_at(&body, at).map(|()| file)
        });
        let written = write.await.map_err(io::Error::other).and_then(|written| written);
        let mut state = self.kept.state();
        match written {
            Ok(file) => {
                // Two pages may have come at once, each with a file of its own; only one of these stays.
                let kept = state.file.get_or_insert_with(|| file.clone());
                if Arc::ptr_eq(kept, &file) {
                    let (facts, url, name) = (page.facts.clone(), page.url.clone(), page.name.clone());
                    let length = page.body.len();
                    state.pages.insert(key, Place { attempt: self.number, at, length, facts, url, name });
                }
            }
            Err(error) => {
                tracing::debug!(%error, "pages are not kept");
                state.is_over = true;
            }
        }
    }

    /// Throws all pages away: what comes after them cannot be had any more.
    pub(super) fn forget(&self) {
        self.kept.state().pages.clear();
    }
}

/// A file that nobody else can find.
fn nameless(folder: &Path) -> io::Result<Arc<File>> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    std::fs::create_dir_all(folder)?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("pages-{}-{count}", std::process::id()));
    // What a process of the same number has left.
    let _ = std::fs::remove_file(&path);
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(Arc::new(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { body: Bytes::from(text.to_owned()), facts: Facts::default(), url: "u".into(), name: "n".into() }
    }

    fn key(url: &str, header: &str) -> Key {
        Key { url: url.into(), headers: vec![("x".into(), header.into())], body: None }
    }

    #[tokio::test]
    async fn pages_are_found_by_the_next_attempt_of_the_same_job_and_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path());
        let first = shelf.attempt("run/a");
        assert!(first.find(&key("1", "")).await.is_none());
        let pages: Vec<Page> = (0..20).map(|number| page(&"x".repeat(number))).collect();
        first.keep(key("0", ""), &pages[0]).await;
        let keep = pages.iter().enumerate().map(|(at, page)| first.keep(key(&at.to_string(), ""), page));
        futures::future::join_all(keep).await;
        assert_eq!(std::fs::read_dir(folder.path().join("spool")).unwrap().count(), 0);
        let second = shelf.attempt("run/a");
        for (at, page) in pages.iter().enumerate() {
            let (found, is_earlier) = second.find(&key(&at.to_string(), "")).await.unwrap();
            assert!(found.body == page.body && is_earlier, "{at}");
        }
        assert!(!first.find(&key("1", "")).await.unwrap().1);
        assert!(second.find(&key("1", "other")).await.is_none(), "another header is another request");
        assert!(shelf.attempt("other/a").find(&key("1", "")).await.is_none());
        second.forget();
        assert!(second.find(&key("1", "")).await.is_none());
    }

    #[tokio::test]
    async fn pages_of_a_job_that_has_ended_are_gone_and_those_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path());
        for job in ["run/a/x", "run/a/y", "run/ab/x", "run2/a/x"] {
            shelf.attempt(job).keep(key("1", ""), &page("x")).await;
        }
        shelf.ended("run/a");
        for (job, stays) in [("run/a/x", false), ("run/a/y", false), ("run/ab/x", true), ("run2/a/x", true)] {
            assert_eq!(shelf.attempt(job).find(&key("1", "")).await.is_some(), stays, "{job}");
        }
        shelf.ended("run/ab/x");
        assert!(shelf.attempt("run/ab/x").find(&key("1", "")).await.is_none());
    }

    #[tokio::test]
    async fn where_nothing_can_be_kept_nothing_is_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("spool"), "a file").unwrap();
        let attempt = Shelf::new(folder.path()).attempt("run/a");
        attempt.keep(key("1", ""), &page("x")).await;
        assert!(attempt.find(&key("1", "")).await.is_none());
    }
}
