//! Paths on local disk, made absolute without asking the disk: a folder need not exist yet.

use std::path::{Component, Path, PathBuf};

/// Resolves `.` and `..` by name. A `..` above the root stays at the root, as everywhere in Unix.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// `path` as an absolute one: relative to `project`, which may itself be relative to the working directory.
pub(super) fn absolute(project: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let joined = project.join(path);
    // An empty project means the working directory; `absolute` refuses an empty path.
    let joined = if joined.as_os_str().is_empty() { PathBuf::from(".") } else { joined };
    Ok(normal(&std::path::absolute(joined)?))
}
