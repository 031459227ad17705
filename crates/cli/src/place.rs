//! What `SRC`, `DST` and a table in `sql` may be: a path, a URL, `connection:table`, or `-` for standard input.
//!
//! A path or URL outside of the project's connections gets a connection of its own, which lives as long as the command.

use gristmill_model::spec::{Compression, FileFormat};
use gristmill_model::yaml::{Node, parse, to_error};
use gristmill_model::{ConnectionName, Error, ErrorKind, Result, one_of};
use gristmill_orchestrator::Project;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Something that rows come from or go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The connection; one of the project, or made for this place.
    pub(crate) connection: ConnectionName,
    /// The tree of a connection that was made for this place.
    pub(crate) made: Option<Node>,
    /// What of it.
    pub(crate) what: What,
}

/// A table or files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A table of a database.
    Table(String),
    /// A path below a folder, bucket or server.
    Path(String),
}

impl Place {
    /// Understands what was written. `made` is the name of the connection to make, where one is needed.
    ///
    /// # Errors
    /// A connection that does not exist, a URL of a database, nothing at all.
    pub(crate) fn parse(text: &str, made: &str, project: Option<&Project>) -> Result<Self> {
        let files = |url: &str, path: String| -> Result<Self> {
            Ok(Self { connection: made.into(), made: Some(files_connection(url)?), what: What::Path(path) })
        };
        if text.trim().is_empty() {
            return Err(Error::new(ErrorKind::Usage, "an empty text is no place")
                .hint("name a path, a URL or `connection:table`"));
        }
        if text == "-" {
            return files(".", "-".to_owned());
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            if matches!(scheme, "postgres" | "postgresql" | "mysql" | "sqlite") {
                // A password must not stand in shell histories and process lists.
                return Err(Error::new(ErrorKind::Usage, format!("a `{scheme}://` URL does not name a table"))
                    .hint("make it a connection of the project, and write `connection:table`"));
            }
            if scheme == "file" {
                return local(Path::new(rest), files);
            }
            if let Some(place) = below_a_connection(text, project) {
                return Ok(place);
            }
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            return files(
                &format!("{scheme}://{host}"),
                if path.is_empty() { "./".to_owned() } else { path.to_owned() },
            );
        }
        if let Some((name, rest)) = text.split_once(':')
            && !name.contains(['/', '\\'])
            && !Path::new(text).exists()
        {
            let known = project.map(|project| &project.connections);
            if let Some(node) = known.and_then(|known| known.get(name)) {
                let has_paths = matches!(node.get("type").and_then(Node::text), Some("files" | "http"));
                let what = if has_paths { What::Path(rest.to_owned()) } else { What::Table(rest.to_owned()) };
                return Ok(Self { connection: name.into(), made: None, what });
            }
            let names = known.into_iter().flatten().map(|(name, _)| name.as_str());
            return Err(Error::new(
                ErrorKind::Usage,
                format!("`{text}` names the connection `{name}`, which does not exist"),
            )
            .hint(match known {
                Some(known) if !known.is_empty() => one_of(name, names),
                _ => "run it in a project that has this connection, or give `--project`".to_owned(),
            }));
        }
        local(Path::new(text), files)
    }

    /// The place, with a connection that was made for it named by its URL: then the slot of a load says where the rows
    /// went, and [`Place::of_slot`] finds it again.
    #[must_use]
    pub(crate) fn named_by_url(mut self) -> Self {
        if let Some(url) = self.made.as_ref().and_then(|node| node.get("url")).and_then(Node::text) {
            self.connection = without_user(url).into();
        }
        self
    }

    /// The place of a load's slot, `connection:table` or `connection:path`, where `connection` may be a URL or folder.
    ///
    /// # Errors
    /// A text that no load of `copy` has written.
    pub(crate) fn of_slot(target: &str, project: Option<&Project>) -> Result<Self> {
        let scheme = target.find("://").map_or(0, |at| at + 3);
        let Some(at) = target[scheme..].find(':').map(|at| at + scheme) else {
            return Err(Error::internal(format!("the slot `{target}` names no place")));
        };
        let (connection, path) = (&target[..at], &target[at + 1..]);
        if project.is_some_and(|project| project.connections.contains_key(connection)) {
            return Self::parse(target, connection, project);
        }
        let made = Some(files_connection(connection)?);
        Ok(Self { connection: connection.into(), made, what: What::Path(path.to_owned()) })
    }

    /// The table, for an extract or a load.
    pub(crate) fn table(&self) -> Option<String> {
        match &self.what {
            What::Table(table) => Some(table.clone()),
            What::Path(_) => None,
        }
    }

    /// The path, for an extract or a load.
    pub(crate) fn path(&self) -> Option<String> {
        match &self.what {
            What::Path(path) => Some(path.clone()),
            What::Table(_) => None,
        }
    }

    /// The format its name tells, and the compression, if the name says one.
    pub(crate) fn told(&self) -> (Option<FileFormat>, Option<Compression>) {
        match &self.what {
            What::Path(path) => told_by_name(path),
            What::Table(_) => (None, None),
        }
    }

    /// Adds the connection that was made for this place.
    pub(crate) fn add_to(&self, connections: &mut BTreeMap<ConnectionName, Node>) {
        if let Some(node) = &self.made {
            connections.insert(self.connection.clone(), node.clone());
        }
    }
}

/// A URL below one of the project's connections, with the keys and rights that one has; the closest one.
fn below_a_connection(text: &str, project: Option<&Project>) -> Option<Place> {
    let connections = project.into_iter().flat_map(|project| &project.connections);
    let below = connections.filter_map(|(name, node)| {
        if node.get("type").and_then(Node::text) != Some("files") {
            return None;
        }
        let url = node.get("url").and_then(Node::text)?.trim_end_matches('/');
        let rest =
            text.strip_prefix(url).filter(|rest| url.contains("://") && (rest.is_empty() || rest.starts_with('/')));
        Some((url.len(), name, rest?.trim_start_matches('/')))
    });
    let (_, name, rest) = below.max_by_key(|(length, ..)| *length)?;
    let path = if rest.is_empty() { "./" } else { rest };
    Some(Place { connection: name.clone(), made: None, what: What::Path(path.to_owned()) })
}

/// A URL without the user and password it may hold.
fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            path.map_or_else(|| format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}"))
        }
        None => url.to_owned(),
    }
}

/// `orders.csv.gz` is CSV in gzip; a folder tells nothing.
fn told_by_name(path: &str) -> (Option<FileFormat>, Option<Compression>) {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((stem, extension)) = name.rsplit_once('.') else { return (None, None) };
    let compression = match extension.to_ascii_lowercase().as_str() {
        "gz" => Compression::Gzip,
        "zst" => Compression::Zstd,
        "bz2" => Compression::Bzip2,
        "xz" => Compression::Xz,
        other => return (FileFormat::from_extension(other), None),
    };
    let format = stem.rsplit_once('.').and_then(|(_, extension)| FileFormat::from_extension(extension));
    (format, Some(compression))
}

/// A connection to the folder of a local path, and the rest of it.
fn local(path: &Path, files: impl Fn(&str, String) -> Result<Place>) -> Result<Place> {
    let folder_meant = path.as_os_str().to_string_lossy().ends_with('/') || path.is_dir() || path.extension().is_none();
    let whole = std::path::absolute(path).map_err(|error| Error::io(&error, format!("`{}`", path.display())))?;
    let mut folder = PathBuf::new();
    let mut rest: Vec<String> = Vec::new();
    for component in whole.components() {
        let text = component.as_os_str().to_string_lossy();
        if !rest.is_empty() || text.contains(['*', '?', '[', '{']) {
            rest.push(text.into_owned());
        } else if component == Component::ParentDir {
            folder.pop();
        } else {
            folder.push(component);
        }
    }
    if rest.is_empty() {
        let last = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        folder.pop();
        rest.push(last.unwrap_or_else(|| ".".to_owned()));
    }
    let mut below = rest.join("/");
    if folder_meant && !below.contains(['*', '?', '[', '{']) {
        below.push('/');
    }
    files(&folder.to_string_lossy(), below)
}

fn files_connection(url: &str) -> Result<Node> {
    // JSON is YAML, and needs no thought about quotes.
    let text = serde_json::json!({"type": "files", "url": url}).to_string();
    parse("<command line>", &text).map_err(|mistakes| to_error(&mistakes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_and_url(text: &str) -> (String, String) {
        let place = Place::parse(text, "src", None).unwrap();
        let url = place.made.as_ref().and_then(|node| node.get("url")).and_then(Node::text).unwrap_or_default();
        (url.to_owned(), place.path().unwrap())
    }

    #[test]
    fn a_local_path_is_a_folder_and_the_rest() {
        assert_eq!(path_and_url("/data/in/orders.csv"), ("/data/in".to_owned(), "orders.csv".to_owned()));
        assert_eq!(path_and_url("/data/../in/orders/"), ("/in".to_owned(), "orders/".to_owned()));
        assert_eq!(path_and_url("/data/2024-*/part.csv"), ("/data".to_owned(), "2024-*/part.csv".to_owned()));
    }

    #[test]
    fn a_url_is_a_bucket_or_server_and_a_path() {
        assert_eq!(path_and_url("s3://lake/a/b.parquet"), ("s3://lake".to_owned(), "a/b.parquet".to_owned()));
        assert_eq!(path_and_url("https://x.org/a.csv"), ("https://x.org".to_owned(), "a.csv".to_owned()));
    }

    #[test]
    fn a_database_url_is_refused_with_the_way_to_do_it() {
        let error = Place::parse("postgres://me:secret@db/x", "src", None).unwrap_err();
        assert!(error.hint_text().unwrap().contains("connection:table"), "{error}");
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn an_unknown_connection_is_said() {
        let error = Place::parse("sales_db:orders", "src", None).unwrap_err();
        assert!(error.message().contains("`sales_db`"), "{error}");
    }

    #[test]
    fn a_path_with_a_colon_is_a_path() {
        let (url, path) = path_and_url("./a:b.parquet");
        assert_eq!((path.as_str(), url.is_empty()), ("a:b.parquet", false));
    }

    #[test]
    fn a_slot_leads_back_to_its_place() {
        for text in ["/data/out/orders.parquet", "/data/out/orders/", "s3://lake/a/b.parquet"] {
            let place = Place::parse(text, "target", None).unwrap().named_by_url();
            let slot = format!("{}:{}", place.connection, place.path().unwrap());
            assert_eq!(Place::of_slot(&slot, None).unwrap(), place, "{text}");
        }
        assert_eq!(without_user("https://me:secret@x.org/a@b"), "https://x.org/a@b");
    }

    #[test]
    fn names_tell_format_and_compression() {
        assert_eq!(told_by_name("a/orders.csv.gz"), (Some(FileFormat::Csv), Some(Compression::Gzip)));
        assert_eq!(told_by_name("a/orders.parquet"), (Some(FileFormat::Parquet), None));
        assert_eq!(told_by_name("a/orders/"), (None, None));
    }
}
