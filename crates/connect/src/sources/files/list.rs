//! Which files a path means.
//!
//! A path is a file, a folder (everything below it), or a pattern: `*` and `?` within a name, `**` for any folders,
//! `[a-z]` and `{a,b}`. Names that begin with `_` or `.` are left out, as Spark and Hive do (they hold logs, checksums
//! and files on their way), unless the path itself says such a name; hive folders (`_key=value`) are not left out.

use crate::hive::{DELTA_LOG, is_hidden};
use crate::stores::{self, Store};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use gristmill_model::{Error, ErrorKind, Result, did_you_mean};
use object_store::path::{Path, PathPart};
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use std::collections::BTreeMap;

/// More alternatives in braces than this are a mistake.
const MOST_ALTERNATIVES: usize = 1_000;

/// More names than this are not shown.
const MOST_NAMES: usize = 8;

/// A file that a path means.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// What the store knows about it.
    pub(super) meta: ObjectMeta,
    /// Whether the path said its name; otherwise it was found in a folder, where other things may lie as well.
    pub(super) named: bool,
}

/// The files that `pattern` means, in the order of their names.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there are none, with what is near; [`ErrorKind::Config`] for a pattern that cannot be,
/// or that needs a listing where there is none; what the store says.
pub(super) async fn find(store: &Store, pattern: &str) -> Result<Vec<Listed>> {
    let mut found: BTreeMap<Path, Listed> = BTreeMap::new();
    if !store.can_list() {
        // A `?` or `*` is an ordinary character of a web address.
        if pattern.ends_with('/') || pattern.contains('*') {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{pattern}`: a web server has no listing, so a folder or pattern cannot be read"),
            )
            .hint("name each file, as a list under `path:`"));
        }
        let location = store.locate(pattern)?;
        let meta = head(store, &location).await?.ok_or_else(|| missing(&store.full_name(&location)))?;
        return Ok(vec![Listed { meta, named: true }]);
    }
    for alternative in alternatives(pattern)? {
        if !is_pattern(&alternative) {
            plain(store, &alternative, &mut found).await?;
            continue;
        }
        let (base, parts) = split(&alternative);
        let parts: Vec<Part> = parts.into_iter().map(Part::new).collect::<Result<_>>()?;
        expand(store, store.locate(&base)?, &parts, alternative.ends_with('/'), &mut found).await?;
        if found.is_empty() {
            // A name that only looks like a pattern.
            plain(store, &alternative, &mut found).await?;
        }
    }
    if found.is_empty() {
        return Err(nothing(store, pattern).await);
    }
    Ok(found.into_values().collect())
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("the file `{what}` does not exist"))
}

/// The file, or the files of the folder, of that very name.
async fn plain(store: &Store, path: &str, found: &mut BTreeMap<Path, Listed>) -> Result<()> {
    let location = store.locate(path)?;
    if !path.ends_with('/')
        && !path.is_empty()
        && !location.as_ref().is_empty()
        && let Some(meta) = head(store, &location).await?
    {
        found.insert(meta.location.clone(), Listed { meta, named: true });
        return Ok(());
    }
    folder(store, &location, found).await
}

/// Everything below a folder.
async fn folder(store: &Store, location: &Path, found: &mut BTreeMap<Path, Listed>) -> Result<()> {
    let mut files = below(store, location);
    while let Some(meta) = files.try_next().await? {
        let hidden = match meta.location.prefix_match(location) {
            Some(mut parts) => parts.find(|part| is_hidden(part.as_ref())),
            None => continue,
        };
        if hidden.as_ref().is_some_and(|part| part.as_ref() == DELTA_LOG) {
            return Err(delta(&store.full_name(location)));
        }
        let hidden = hidden.is_some();
        // A key that is the folder itself is how some tools mark an empty folder.
        if hidden || meta.location == *location {
            continue;
        }
        found.entry(meta.location.clone()).or_insert(Listed { meta, named: false });
    }
    Ok(())
}

/// Its folder keeps the files of replaced rows, which only the log tells from the others.
fn delta(folder: &str) -> Error {
    let folder = folder.trim_end_matches('/');
    Error::new(
        ErrorKind::Config,
        format!("`{folder}` is, or holds, a Delta table, and those are only written, not read yet"),
    )
    .hint("a pattern such as `folder/**/*.parquet` reads all of its files: old ones of replaced rows among them")
}

/// All objects below a location, hidden ones too; none where there is nothing.
pub(super) fn below<'a>(store: &'a Store, location: &'a Path) -> BoxStream<'a, Result<ObjectMeta>> {
    store
        .store
        .list(Some(location))
        .filter_map(move |result| async move {
            match result {
                Err(object_store::Error::NotFound { .. }) => None,
                other => Some(other.map_err(|error| stores::error(error, format!("`{}`", store.full_name(location))))),
            }
        })
        .boxed()
}

/// What the store knows about a file; `None` when there is none.
pub(super) async fn head(store: &Store, location: &Path) -> Result<Option<ObjectMeta>> {
    head_in(store.store.as_ref(), location, &store.full_name(location)).await
}

/// As [`head`], for a store alone.
pub(super) async fn head_in(store: &dyn ObjectStore, location: &Path, name: &str) -> Result<Option<ObjectMeta>> {
    let error = match store.head(location).await {
        Ok(meta) => return Ok(Some(meta)),
        Err(error) => error,
    };
    if matches!(error, object_store::Error::NotFound { .. }) {
        return Ok(None);
    }
    let words = error.to_string();
    // Some web servers, and addresses that are signed for GET only, refuse HEAD.
    if ["403", "405", "501"].iter().any(|status| words.contains(&format!("status code: {status}")))
        && let Ok(answer) = store.get_opts(location, GetOptions::default()).await
    {
        return Ok(Some(answer.meta));
    }
    Err(stores::error(error, format!("`{name}`")))
}

fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// The texts that braces stand for.
fn alternatives(pattern: &str) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let mut open = vec![pattern.to_owned()];
    while let Some(text) = open.pop() {
        match braces(&text) {
            Some((start, end)) => {
                for choice in choices(&text[start + 1..end]).into_iter().rev() {
                    open.push(format!("{}{choice}{}", &text[..start], &text[end + 1..]));
                }
            }
            None => done.push(text),
        }
        if open.len() + done.len() > MOST_ALTERNATIVES {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the braces of `{pattern}` stand for more than {MOST_ALTERNATIVES} paths"),
            )
            .hint("use `*`, or a folder"));
        }
    }
    Ok(done)
}

/// The first braces that hold a comma; others are ordinary characters.
fn braces(text: &str) -> Option<(usize, usize)> {
    for (start, _) in text.match_indices('{') {
        let mut depth = 0;
        for (index, character) in text[start..].char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let end = start + index;
                if choices(&text[start + 1..end]).len() > 1 {
                    return Some((start, end));
                }
                break;
            }
        }
    }
    None
}

/// Splits at the commas that are not inside further braces.
fn choices(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut all) = (0, 0, Vec::new());
    for (index, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    all.push(&text[start..]);
    all
}

/// The folders before the first part with a pattern, and the parts from there on.
fn split(pattern: &str) -> (String, Vec<&str>) {
    let trimmed = pattern.trim_end_matches('/');
    let parts: Vec<&str> = trimmed.split('/').collect();
    let first = parts.iter().position(|part| is_pattern(part)).unwrap_or(parts.len());
    let mut base = parts[..first].join("/");
    if trimmed.starts_with('/') && base.is_empty() {
        base.push('/');
    }
    (base, parts[first..].iter().copied().filter(|part| !part.is_empty() && *part != ".").collect())
}

/// One part of a pattern.
enum Part {
    /// Any folders, none included.
    Deep,
    /// A name.
    Name { pattern: glob::Pattern, hidden: bool },
}

const MATCHING: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

impl Part {
    fn new(text: &str) -> Result<Self> {
        if text == "**" {
            return Ok(Self::Deep);
        }
        let pattern = glob::Pattern::new(text).map_err(|error| {
            Error::new(ErrorKind::Config, format!("`{text}` is not a pattern: {}", error.msg))
                .hint("`*` and `?` stand for characters of a name, `**` between slashes for any folders")
        })?;
        Ok(Self::Name { pattern, hidden: text.starts_with(['_', '.']) })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Deep => !is_hidden(name),
            Self::Name { pattern, hidden } => pattern.matches_with(name, MATCHING) && (*hidden || !is_hidden(name)),
        }
    }
}

/// Whether the parts of a name match those of a pattern.
fn matches(parts: &[Part], names: &[&str]) -> bool {
    match (parts, names) {
        ([], []) => true,
        ([Part::Deep], [_, ..]) => names.iter().all(|name| !is_hidden(name)),
        ([Part::Deep, rest @ ..], _) => {
            matches(rest, names)
                || names.split_first().is_some_and(|(name, more)| !is_hidden(name) && matches(parts, more))
        }
        ([part, rest @ ..], [name, more @ ..]) => part.matches(name) && matches(rest, more),
        _ => false,
    }
}

/// Follows a pattern one folder at a time, so that nothing is listed that cannot match; from `**` on everything is.
async fn expand(
    store: &Store,
    base: Path,
    parts: &[Part],
    folders: bool,
    found: &mut BTreeMap<Path, Listed>,
) -> Result<()> {
    let mut open = vec![(base, parts)];
    let mut matched_folders = Vec::new();
    let before = found.len();
    while let Some((base, parts)) = open.pop() {
        let Some((first, rest)) = parts.split_first() else { continue };
        if matches!(first, Part::Deep) {
            let mut files = below(store, &base);
            while let Some(meta) = files.try_next().await? {
                let Some(names) = meta.location.prefix_match(&base) else { continue };
                let names: Vec<PathPart<'_>> = names.collect();
                let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
                if matches(parts, &names) {
                    found.entry(meta.location.clone()).or_insert(Listed { meta: meta.clone(), named: true });
                }
            }
            continue;
        }
        let level = match store.store.list_with_delimiter(Some(&base)).await {
            Err(object_store::Error::NotFound { .. }) => continue,
            other => other.map_err(|error| stores::error(error, format!("`{}`", store.full_name(&base))))?,
        };
        for folder in level.common_prefixes {
            if folder.filename().is_some_and(|name| first.matches(name)) {
                if rest.is_empty() { matched_folders.push(folder) } else { open.push((folder, rest)) }
            }
        }
        if rest.is_empty() && !folders {
            for meta in level.objects {
                if meta.location.filename().is_some_and(|name| first.matches(name)) {
                    found.entry(meta.location.clone()).or_insert(Listed { meta, named: true });
                }
            }
        }
    }
    // `date=2024-*` means what is in these folders, unless there are files of such names.
    if found.len() == before {
        for location in matched_folders {
            folder(store, &location, found).await?;
        }
    }
    Ok(())
}

/// That nothing matches, with what is near.
async fn nothing(store: &Store, pattern: &str) -> Error {
    let what = if is_pattern(pattern) { "no file matches" } else { "there is no file" };
    let error = Error::new(ErrorKind::NotFound, format!("{what} `{pattern}` in `{}`", store.describe()));
    let hint = near(store, pattern).await;
    error.maybe_hint(hint)
}

/// What there is where the path still led somewhere.
async fn near(store: &Store, pattern: &str) -> Option<String> {
    let parts: Vec<&str> =
        pattern.trim_end_matches('/').split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let absolute = if pattern.starts_with('/') { "/" } else { "" };
    for known in (0..=parts.len()).rev() {
        let base = format!("{absolute}{}", parts[..known].join("/"));
        if is_pattern(&base) {
            continue;
        }
        let location = store.locate(&base).ok()?;
        let Ok(level) = store.store.list_with_delimiter(Some(&location)).await else { continue };
        let files = level.objects.iter().filter_map(|meta| meta.location.filename()).map(str::to_owned);
        let folders =
            level.common_prefixes.iter().filter_map(|folder| folder.filename()).map(|name| format!("{name}/"));
        let names: Vec<String> = folders.chain(files).filter(|name| !is_hidden(name)).collect();
        if names.is_empty() {
            continue;
        }
        let place = if base.is_empty() { String::new() } else { format!("{}/", base.trim_end_matches('/')) };
        let wrong = parts.get(known).copied().unwrap_or_default();
        let mut bare = names.iter().map(|name| name.trim_end_matches('/'));
        if !wrong.is_empty() && bare.clone().any(|name| name == wrong) {
            return Some(format!("`{place}{wrong}` is there, but empty"));
        }
        let bare = bare.by_ref();
        if let Some(meant) = did_you_mean(wrong, bare).filter(|_| !wrong.is_empty() && !is_pattern(wrong)) {
            if meant == wrong {
                return Some(format!("the folder `{place}{wrong}` holds no files"));
            }
            let rest = parts.get(known + 1..).unwrap_or_default();
            let rest: String = rest.iter().map(|part| format!("/{part}")).collect();
            return Some(format!("did you mean `{place}{meant}{rest}`?"));
        }
        let shown: Vec<String> = names.iter().take(MOST_NAMES).map(|name| format!("`{name}`")).collect();
        let more =
            names.len().checked_sub(MOST_NAMES + 1).map_or(String::new(), |more| format!(" and {} more", more + 1));
        let place = if place.is_empty() { store.describe() } else { place };
        return Some(format!("`{place}` holds {}{more}", shown.join(", ")));
    }
    Some(format!("`{}` is empty or does not exist", store.describe()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_each_of_their_choices() {
        assert_eq!(alternatives("a/{b,c{d,e}}/*.csv").unwrap(), ["a/b/*.csv", "a/cd/*.csv", "a/ce/*.csv"]);
        assert_eq!(alternatives("{a,b}{1,2}").unwrap(), ["a1", "a2", "b1", "b2"]);
        for text in ["a{b}c", "a{b", "a}b", "{}", "{{a}}"] {
            assert_eq!(alternatives(text).unwrap(), [text]);
        }
        let many = "{0,1,2,3,4,5,6,7,8,9}".repeat(4);
        assert_eq!(alternatives(&many).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn a_pattern_matches_part_by_part() {
        let check = |pattern: &str, name: &str| {
            let (_, parts) = split(pattern);
            let parts: Vec<Part> = parts.into_iter().map(|part| Part::new(part).unwrap()).collect();
            matches(&parts, &name.split('/').collect::<Vec<_>>())
        };
        for (pattern, name, expected) in [
            ("**/*.csv", "a.csv", true),
            ("**/*.csv", "x/y/a.csv", true),
            ("**/*.csv", "x/_y/a.csv", false),
            ("**/*.csv", "x/.a.csv", false),
            ("**", "x/y/a.csv", true),
            ("*/**/z/*", "x/z/a", true),
            ("*.csv", "x/a.csv", false),
            ("[ab]?.csv", "a1.csv", true),
            ("[!ab]?.csv", "a1.csv", false),
            ("_*.csv", "_a.csv", true),
            ("*.csv", "_a.csv", false),
            ("*/x", "_k=1/x", true),
        ] {
            assert_eq!(check(pattern, name), expected, "{pattern} {name}");
        }
        assert!(Part::new("a**b").is_err());
        assert_eq!(split("/a/b*/c"), ("/a".to_owned(), vec!["b*", "c"]));
        assert_eq!(split("/*.csv"), ("/".to_owned(), vec!["*.csv"]));
    }
}
