//! What Gristmill's tests share: temporary servers, fault plans, third-party cases, snapshot filters.

pub mod datasette;
pub mod delta;
pub mod http;
pub mod json_server;
mod kept;
pub mod mariadb;
pub mod postgres;
pub mod s3;
pub mod scripted;
pub mod suspended;

use std::path::PathBuf;

/// The folder of third-party cases of that name, or `None`, said aloud, where the cases are absent.
///
/// They live beside the repository (`../shared/conformance`), or where `GRISTMILL_CONFORMANCE` says; they are data of
/// other projects and never copied in.
#[must_use]
#[expect(clippy::print_stderr, reason = "a skipped test must be said aloud")]
pub fn conformance_dir(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRISTMILL_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"), PathBuf::from);
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: third-party cases `{name}` are absent (looked in {})", folder.display());
    None
}
