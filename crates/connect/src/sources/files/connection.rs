//! A connection to files.

use super::config::FilesConfig;
use super::formats::{self, FileInput};
use super::source::FilesSource;
use super::{compress, csv, hive, list, picture};
use crate::registry::Connector;
use crate::stores::{self, Store, StoreKind, StoreOptions};
use crate::types::type_name;
use crate::{
    Compacted, Compaction, Connection, ConnectionInfo, Discovered, LoadContext, OpenContext, Recovered, Sink, Source,
};
use async_trait::async_trait;
use futures::TryStreamExt;
use gristmill_model::spec::{CsvOptions, ExtractSpec, FileFormat, JsonOptions, LoadSpec, OneOrMany};
use gristmill_model::yaml::{Diagnostic, Node, decode};
use gristmill_model::{CancellationToken, Error, ErrorKind, OwnerId, Result};
use object_store::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Files that are listed to find out what there is, at most.
const MOST_LISTED: usize = 200_000;

/// Folders and files that are shown, at most.
const MOST_SHOWN: usize = 2_000;

/// Folders and files whose columns are looked at; the others are listed without.
const MOST_OPENED: usize = 200;

/// The connector, for the registry.
pub(crate) fn connector() -> Connector {
    Connector {
        name: "files",
        about: "Files in a folder, on S3, Google Cloud Storage, Azure or the web: Parquet, CSV, NDJSON, JSON, Avro, ORC, Arrow",
        schema: || schemars::schema_for!(FilesConfig),
        open: |node, context| Ok(Arc::new(open(node, context)?)),
    }
}

fn open(node: &Node, context: &OpenContext) -> Result<FilesConnection, Vec<Diagnostic>> {
    let config: FilesConfig = decode(node)?;
    FilesConnection::open(&config.url, config.store_options(), context).map_err(|error| {
        let place = node.get("url").unwrap_or(node);
        let message = match error.cause_text() {
            Some(cause) => format!("{}: {cause}", error.message()),
            None => error.message().to_owned(),
        };
        vec![place.diagnostic(message, error.hint_text().map(str::to_owned))]
    })
}

/// Opens a path or URL that no connection leads to, as `copy` and `sql` are given them: relative to the project, with
/// credentials from the environment. Of `extract`, everything but the connection and the path counts.
///
/// # Errors
/// [`ErrorKind::Config`] for a path or keys that cannot be.
pub fn open_path(path: &str, extract: &ExtractSpec, context: &OpenContext) -> Result<Arc<dyn Source>> {
    let extract = ExtractSpec { path: Some(OneOrMany(vec![path.to_owned()])), ..extract.clone() };
    FilesConnection::open(".", StoreOptions::default(), context)?.source(&extract)
}

/// A connection to files.
#[derive(Debug)]
pub struct FilesConnection {
    store: Store,
    options: StoreOptions,
    context: OpenContext,
}

impl FilesConnection {
    /// Opens a connection to the place that `url` leads to. Touches nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a URL or keys that cannot be.
    pub fn open(url: &str, options: StoreOptions, context: &OpenContext) -> Result<Self> {
        let store = Store::open(url, &options, context)?;
        Ok(Self { store, options, context: context.clone() })
    }

    /// The place it leads to.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
}

#[async_trait]
impl Connection for FilesConnection {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn test(&self) -> Result<ConnectionInfo> {
        let what = format!("`{}`", self.store.describe());
        let found = match self.store.kind() {
            StoreKind::Local => {
                let folder = self.store.local.clone().unwrap_or_default();
                match tokio::fs::metadata(&folder).await {
                    Ok(meta) if meta.is_dir() => {
                        // A folder that may not be read says so only when it is.
                        let _entries = tokio::fs::read_dir(&folder).await.map_err(|error| Error::io(&error, &what))?;
                        "a folder"
                    }
                    Ok(_) => "a single file",
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        "not there yet; the first load makes it"
                    }
                    Err(error) => return Err(Error::io(&error, &what)),
                }
            }
            StoreKind::Http => match list::head(&self.store, &self.store.prefix).await? {
                Some(_) => "a single file",
                None => "the server answers; files are named by each extract",
            },
            _ => {
                let first = list::below(&self.store, &self.store.prefix).try_next().await?;
                if first.is_some() { "objects" } else { "nothing yet" }
            }
        };
        Ok(ConnectionInfo {
            server: self.store.kind().as_str().to_owned(),
            details: vec![("place".to_owned(), self.store.describe()), ("found".to_owned(), found.to_owned())],
        })
    }

    async fn discover(&self) -> Result<Vec<Discovered>> {
        if !self.store.can_list() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{}` cannot be listed: a web server has no listing", self.store.describe()),
            )
            .hint("name the files yourself, under `path:` of an extract"));
        }
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        let mut files = list::below(&self.store, &self.store.prefix);
        let mut count = 0;
        while let Some(meta) = files.try_next().await? {
            count += 1;
            if count > MOST_LISTED {
                break;
            }
            add(&self.store, &mut groups, meta);
        }
        let mut found = Vec::new();
        for (index, (name, group)) in groups.into_iter().take(MOST_SHOWN).enumerate() {
            found.push(self.look(name, group, index < MOST_OPENED).await);
        }
        Ok(found)
    }

    fn files(&self) -> Option<Arc<Store>> {
        Some(Arc::new(self.store.clone()))
    }

    fn source(&self, extract: &ExtractSpec) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(FilesSource::open(&self.store, &self.options, &self.context, extract)?))
    }

    fn sink(&self, load: &LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
        crate::sinks::files::open_sink(Arc::new(self.store.clone()), load, context)
    }

    async fn compact(
        &self,
        want: &Compaction,
        owner: &OwnerId,
        is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Vec<Compacted>> {
        crate::sinks::files::compact(&Arc::new(self.store.clone()), &self.context, want, owner, is_dead, cancel).await
    }

    async fn recover_compactions(
        &self,
        path: &str,
        is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync),
    ) -> Result<Recovered> {
        crate::sinks::files::recover_compactions(&Arc::new(self.store.clone()), &self.context, path, is_dead).await
    }
}

/// Files that are most likely one table: a folder, hive folders below it folded.
struct Group {
    bytes: u64,
    files: u64,
    format: FileFormat,
    first: ObjectMeta,
    hive: Vec<hive::Pair>,
}

fn add(store: &Store, groups: &mut BTreeMap<String, Group>, meta: ObjectMeta) {
    let name = store.short_name(&meta.location);
    if name.split('/').any(crate::hive::is_hidden) {
        return;
    }
    let Some(format) = picture::format_by_name(&name) else { return };
    // A file that lies at the top is a table of its own; in a folder it is a part of one.
    let mut folder: String = name
        .rsplit_once('/')
        .map(|(folders, _)| folders.split('/').take_while(|part| hive::pair(part).is_none()))
        .map(|parts| parts.map(|part| format!("{part}/")).collect())
        .unwrap_or_default();
    if folder.is_empty() {
        folder = if hive::pairs(&name).is_empty() { name.clone() } else { "./".to_owned() };
    }
    let hive = hive::pairs(&name);
    match groups.get_mut(&folder) {
        // Files of another format beside them cannot be of the same table.
        Some(group) if group.format != format => {
            groups.insert(name, Group { bytes: meta.size, files: 1, format, first: meta, hive });
        }
        Some(group) => {
            group.bytes += meta.size;
            group.files += 1;
        }
        None => {
            groups.insert(folder, Group { bytes: meta.size, files: 1, format, first: meta, hive });
        }
    }
}

impl FilesConnection {
    /// The columns of a group, as its first file tells them; none when it cannot be read.
    async fn look(&self, name: String, group: Group, open: bool) -> Discovered {
        let mut discovered = Discovered {
            name,
            rows: None,
            bytes: Some(group.bytes),
            key: Vec::new(),
            columns: Vec::new(),
            cursors: Vec::new(),
        };
        if !open {
            return discovered;
        }
        let file = self.store.short_name(&group.first.location);
        let (stem, compression) = compress::split_name(&file);
        let input = FileInput {
            store: self.store.store.clone(),
            csv: CsvOptions { delimiter: csv::delimiter_by_name(stem).map(str::to_owned), ..CsvOptions::default() },
            json: JsonOptions::default(),
            meta: group.first,
            name: file.clone(),
            compression,
            stdin: false,
            piece: None,
        };
        match picture::guarded(&file, formats::reader(group.format).infer(&input)).await {
            Ok(formats::Seen { schema, rows, .. }) => {
                discovered.rows = rows.exact().filter(|_| group.files == 1);
                let columns = schema.fields().iter().map(|field| (field.name().clone(), type_name(field.data_type())));
                discovered.columns = columns.collect();
                for field in hive::columns(std::iter::once(group.hive.as_slice())) {
                    discovered.columns.retain(|(name, _)| name != field.name());
                    discovered.columns.push((field.name().clone(), type_name(field.data_type())));
                }
            }
            Err(error) => tracing::debug!(file, %error, "the columns of a file cannot be told"),
        }
        discovered
    }
}

/// What a store says about a file while it is read.
pub(super) fn store_error(error: object_store::Error, name: &str) -> Error {
    stores::error(error, format!("`{name}`"))
}
