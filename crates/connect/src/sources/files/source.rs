//! Reading files.

use super::formats::bytes::{changed, differs};
use super::picture::{self, Absent, Picture, SourceFile, Wanted};
use super::{csv, formats, hive, increment, list, native, units};
use crate::stores::{Store, StoreKind, StoreOptions};
use crate::types::parse_type;
use crate::{
    Consistency, Increment, Narrowed, NativeScan, NewRows, Next, OpenContext, ReadPlan, ReadRequest, Retry, Rows, Scan,
    Source, SourceStats,
};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use gristmill_model::spec::{ExtractSpec, FileFormat, OnFail};
use gristmill_model::{Error, ErrorKind, Result, WorkUnit};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Files that are asked after at once.
const LOOKS_AT_ONCE: usize = 32;

/// Files of one format, as one table.
pub(super) struct FilesSource {
    inner: Arc<Inner>,
    /// What was seen when it was first looked for.
    picture: OnceCell<Arc<Picture>>,
}

/// What reading needs.
struct Inner {
    /// The connection's store, then those of full URLs.
    roots: Vec<Store>,
    wanted: Vec<Wanted>,
    spec: ExtractSpec,
    overrides: BTreeMap<String, DataType>,
    /// Of an increment: the files that are new, and the columns that were loaded before.
    new: Option<(Vec<SourceFile>, Option<SchemaRef>)>,
}

impl std::fmt::Debug for FilesSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilesSource").field("store", &self.inner.roots.first()).finish_non_exhaustive()
    }
}

impl FilesSource {
    /// Opens what an extract asks for; touches nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for keys that files have not, a dialect or a type that cannot be.
    pub(super) fn open(
        store: &Store,
        options: &StoreOptions,
        context: &OpenContext,
        spec: &ExtractSpec,
    ) -> Result<Self> {
        for (given, key) in
            [(spec.table.is_some(), "table"), (spec.query.is_some(), "query"), (spec.filter.is_some(), "where")]
        {
            if given {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("`{key}:` is for databases, and `{}` holds files", spec.from.as_str()),
                )
                .hint("name a file, folder or pattern with `path:`, and filter in a `sql` step"));
            }
        }
        if spec.http.is_some() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`http:` is for HTTP APIs, and `{}` holds files", spec.from.as_str()),
            )
            .hint("make it a connection of `type: http`, or leave `http:` out"));
        }
        if spec.format == Some(FileFormat::Delta) {
            return Err(Error::new(ErrorKind::Config, "Delta tables are only written, not read yet".to_owned()).hint(
                "a pattern such as `folder/**/*.parquet` reads all of its files: old ones of replaced rows among them",
            ));
        }
        csv::Dialect::new(&spec.csv.clone().unwrap_or_default())?;
        units::supported(spec)?;
        let mut overrides = BTreeMap::new();
        for (column, text) in &spec.schema {
            let data_type = parse_type(text).map_err(|error| {
                let message = format!("`schema:` gives `{column}` the unknown type `{text}`");
                Error::new(ErrorKind::Config, message).hint(error.hint_text().unwrap_or_default())
            })?;
            overrides.insert(column.clone(), data_type);
        }
        let mut roots = vec![store.clone()];
        let mut wanted = Vec::new();
        let everything = vec![String::new()];
        let paths = spec.path.as_ref().map_or(&everything, |paths| &paths.0);
        for path in paths {
            wanted.push(want(path, &mut roots, options, context)?);
        }
        if wanted.len() > 1 && wanted.iter().any(|want| matches!(want, Wanted::Stdin)) {
            return Err(Error::new(ErrorKind::Config, "standard input cannot be read together with files"));
        }
        let inner = Inner { roots, wanted, spec: spec.clone(), overrides, new: None };
        Ok(Self { inner: Arc::new(inner), picture: OnceCell::new() })
    }

    async fn picture(&self) -> Result<&Arc<Picture>> {
        self.picture
            .get_or_try_init(|| async {
                let Inner { roots, wanted, spec, overrides, new } = self.inner.as_ref();
                let (files, known) = match new {
                    Some((files, known)) => (files.clone(), known.as_ref()),
                    None => (picture::files(roots, wanted, spec, Absent::Refused).await?, None),
                };
                let files = picture::opened(roots, spec, files).await?;
                Ok(Arc::new(picture::look(roots, spec, overrides, files, known).await?))
            })
            .await
    }

    /// What tells whether a file has changed. A copy of a local file has an etag of its own, whatever is in it.
    fn stamp(&self, file: &SourceFile) -> String {
        let is_local = self.inner.roots.get(file.root).is_some_and(|root| root.kind() == StoreKind::Local);
        match &file.meta.e_tag {
            Some(etag) if !is_local => format!("{} {etag}", file.meta.size),
            _ => format!("{} {}", file.meta.size, file.meta.last_modified.timestamp_micros()),
        }
    }
}

/// Understands one path; a full URL gets a store of its own.
fn want(path: &str, roots: &mut Vec<Store>, options: &StoreOptions, context: &OpenContext) -> Result<Wanted> {
    if path == "-" || path == "stdin" {
        return Ok(Wanted::Stdin);
    }
    let Some((scheme, rest)) = path.split_once("://") else {
        if roots[0].kind() == StoreKind::Http && path.contains('?') {
            // What stands behind the `?` of a web address is sent with the request (a signature, say) and never shown.
            let folder = roots[0].full_name(&roots[0].prefix);
            let whole = format!("{}/{}", folder.trim_end_matches('/'), path.trim_start_matches('/'));
            roots.push(Store::open(&whole, options, context)?);
            return Ok(Wanted::Files { root: roots.len() - 1, pattern: String::new() });
        }
        return Ok(Wanted::Files { root: 0, pattern: path.to_owned() });
    };
    if scheme == "http" || scheme == "https" {
        roots.push(Store::open(path, options, context)?);
        return Ok(Wanted::Files { root: roots.len() - 1, pattern: String::new() });
    }
    // Only the place is a URL; what follows may be a pattern, which a URL would spoil.
    let (host, pattern) = rest.split_once('/').unwrap_or((rest, ""));
    let place = format!("{scheme}://{host}");
    let (place, pattern) =
        if scheme == "file" { ("file:///".to_owned(), format!("/{pattern}")) } else { (place, pattern.to_owned()) };
    let root = Store::open(&place, options, context)?;
    // The connection's own store, written out in full, keeps its name and its hive columns.
    if roots[0].url == root.url && roots[0].kind() == root.kind() {
        if roots[0].kind() == StoreKind::Local {
            return Ok(Wanted::Files { root: 0, pattern });
        }
        let prefix = format!("{}/", roots[0].prefix);
        if roots[0].prefix.as_ref().is_empty() {
            return Ok(Wanted::Files { root: 0, pattern });
        }
        if let Some(below) = pattern.strip_prefix(&prefix) {
            return Ok(Wanted::Files { root: 0, pattern: below.to_owned() });
        }
    }
    roots.push(root);
    Ok(Wanted::Files { root: roots.len() - 1, pattern })
}

#[async_trait]
impl Source for FilesSource {
    async fn schema(&self) -> Result<SchemaRef> {
        Ok(self.picture().await?.schema.clone())
    }

    async fn narrow(&self, _: &ExtractSpec, increment: &Increment) -> Result<Narrowed> {
        let wrong = |message: String, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint));
        let name = &increment.column;
        if name != increment::KEY {
            return wrong(
                format!("`incremental_key: {name}` is not for files, whose rows nobody could look for"),
                "new files are read with `incremental_key: file_modified`; of their rows, choose in a `sql` step",
            );
        }
        if increment.lag.is_some() {
            return wrong(
                "`lag` is not for files: a file that comes late is found, whatever its time".to_owned(),
                "leave it out",
            );
        }
        let Inner { roots, wanted, spec, overrides, .. } = self.inner.as_ref();
        if wanted.iter().any(|want| matches!(want, Wanted::Stdin)) {
            return wrong("standard input has no files that could be new".to_owned(), "leave `incremental_key` out");
        }
        // A folder that is emptied once its files are loaded is a common one.
        let absent = if increment.files.is_empty() { Absent::Refused } else { Absent::Emptied };
        let mut files = picture::files(roots, wanted, spec, absent).await?;
        let there: Vec<increment::There> =
            files.iter().map(|file| increment::There { name: file.name.clone(), stamp: self.stamp(file) }).collect();
        let decided = increment::decide(&increment.files, &there, increment.adds)?;
        let read: std::collections::BTreeSet<usize> = decided.read.into_iter().collect();
        let mut place = 0;
        files.retain(|_| {
            place += 1;
            read.contains(&(place - 1))
        });
        let inner = Inner {
            roots: roots.clone(),
            wanted: wanted.clone(),
            spec: spec.clone(),
            overrides: overrides.clone(),
            new: Some((files, increment.schema())),
        };
        let source = Self { inner: Arc::new(inner), picture: OnceCell::new() };
        let next = Next::Files { loaded: decided.loaded, about: decided.about };
        Ok(Narrowed { rows: NewRows::Source(Arc::new(source)), next })
    }

    async fn plan(&self, want: &ReadRequest) -> Result<ReadPlan> {
        let picture = self.picture().await?;
        let Inner { roots, spec, .. } = self.inner.as_ref();
        for column in want.columns.iter().flatten() {
            picture
                .schema
                .field_with_name(column)
                .map_err(|_| Error::new(ErrorKind::Schema, format!("the files have no column `{column}`")))?;
        }
        let units::Divided { units, why } = units::divide(roots, spec, picture, want.parallelism).await?;
        let stdin = picture.files.iter().any(|file| file.stdin);
        Ok(ReadPlan {
            why,
            units,
            consistency: if stdin { Consistency::SingleRead } else { Consistency::Snapshot },
            pushed_down: want.columns.iter().map(|_| "columns".to_owned()).collect(),
            retry: Retry::Never,
            pin: None,
        })
    }

    fn read(&self, unit: &WorkUnit, scan: &Scan) -> Rows {
        let picture = self.picture.get();
        let is_whole = picture.is_some_and(|picture| picture.schema.fields().len() == scan.schema.fields().len());
        let is_whole = is_whole && self.inner.spec.columns.is_empty();
        let in_path = picture.map(|picture| picture.hive.iter().map(|field| field.name().clone()).collect());
        let scan = scan.clone().heeding_fields(is_whole, self.inner.spec.schema_contract, in_path.unwrap_or_default());
        match units::files(unit) {
            Ok(files) => self.inner.clone().read(files, scan),
            Err(error) => Rows::failed(scan.schema.clone(), error),
        }
    }

    async fn stats(&self) -> SourceStats {
        let Ok(picture) = self.picture().await else { return SourceStats::default() };
        if picture.files.iter().any(|file| file.stdin) {
            return SourceStats::default();
        }
        SourceStats {
            rows: picture.rows.iter().copied().sum::<Option<u64>>(),
            bytes: Some(picture.files.iter().map(|file| file.meta.size).sum()),
        }
    }

    async fn native(&self) -> Result<Option<NativeScan>> {
        let picture = self.picture().await?;
        let Inner { roots, spec, .. } = self.inner.as_ref();
        native::scan(&roots[0], spec, picture).await
    }

    async fn unchanged(&self) -> Result<()> {
        let Some(picture) = self.picture.get() else { return Ok(()) };
        let looks = stream::iter(picture.files.clone()).map(|file| {
            let inner = self.inner.clone();
            async move { inner.unchanged(&file).await }
        });
        looks.buffer_unordered(LOOKS_AT_ONCE).try_collect().await
    }

    async fn diagnose(&self) -> Option<Error> {
        let picture = match self.picture().await {
            Ok(picture) => picture,
            Err(error) => return Some(error),
        };
        if picture.files.iter().any(|file| file.stdin) {
            return None;
        }
        let scan = Scan { schema: picture.schema.clone(), batch_size: 8_192, on_bad_row: OnFail::Fail, rejects: None };
        let mut rows = self.inner.clone().read(picture.files.clone(), scan);
        while let Some(batch) = rows.next().await {
            if let Err(error) = batch {
                return Some(error);
            }
        }
        None
    }
}

impl Inner {
    /// Reads files one after the other.
    fn read(self: Arc<Self>, files: Vec<SourceFile>, scan: Scan) -> Rows {
        let schema = scan.schema.clone();
        let batches = stream::iter(files).then(move |file| self.clone().open(file, scan.clone())).try_flatten();
        Rows::new(schema, batches)
    }

    /// Opens one file: its own columns from its reader, the path's columns beside them.
    async fn open(self: Arc<Self>, file: SourceFile, scan: Scan) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let in_path = |name: &str| file.hive.iter().any(|(key, _)| key == name);
        let own: Vec<_> = scan.schema.fields().iter().filter(|field| !in_path(field.name())).cloned().collect();
        let own_scan = Scan { schema: Arc::new(Schema::new(own)), ..scan.clone() };
        let input = picture::input(&self.roots, &self.spec, &file)?;
        let rows = formats::reader(file.format).read(input, own_scan);
        let name = file.name.clone();
        let rows = AssertUnwindSafe(rows)
            .catch_unwind()
            .map(move |batch| batch.unwrap_or_else(|_| Err(picture::panicked(&name))));
        let assembled = {
            let (inner, file) = (self.clone(), Arc::new(file.clone()));
            rows.then(move |batch| {
                let (inner, file, schema) = (inner.clone(), file.clone(), scan.schema.clone());
                async move {
                    match batch {
                        Ok(batch) => assemble(batch, &schema, &file),
                        Err(error) => Err(inner.blamed(&file, error).await),
                    }
                }
            })
        };
        // Local files can be written in place while they are read; an object of a store is replaced as a whole.
        let local = self.roots.get(file.root).is_some_and(|root| root.kind() == StoreKind::Local);
        let check = stream::once(async move { if local { self.unchanged(&file).await } else { Ok(()) } })
            .filter_map(|result| async move { result.err().map(Err) });
        Ok(assembled.chain(check).boxed())
    }

    /// Whether a file is still the one that was planned.
    async fn unchanged(&self, file: &SourceFile) -> Result<()> {
        if file.stdin {
            return Ok(());
        }
        let Some(store) = self.roots.get(file.root) else {
            return Err(Error::internal(format!("the store of `{}` is unknown", file.name)));
        };
        match list::head(store, &file.meta.location).await? {
            None => Err(changed(&file.name, "has disappeared")),
            Some(now) if differs(&file.meta, &now) => Err(changed(&file.name, "has been changed")),
            Some(_) => Ok(()),
        }
    }

    /// What is wrong with a file that cannot be read. If it is not what was planned any more, then that is what is wrong:
    /// a text that ends in the middle, for one, comes of it.
    async fn blamed(&self, file: &SourceFile, error: Error) -> Error {
        match self.unchanged(file).await {
            Err(changed) if changed.kind() == ErrorKind::Conflict => changed.cause(error.to_string()),
            _ => error,
        }
    }
}

/// Puts the columns of the path between those of the file, in the order of the scan.
fn assemble(batch: RecordBatch, schema: &SchemaRef, file: &SourceFile) -> Result<RecordBatch> {
    if file.hive.is_empty() && batch.num_columns() == schema.fields().len() {
        return Ok(batch);
    }
    let rows = batch.num_rows();
    let columns = schema.fields().iter().map(|field| match file.hive.iter().find(|(key, _)| key == field.name()) {
        Some((_, value)) => hive::array(field, value.as_deref(), rows, &file.name),
        None => batch.column_by_name(field.name()).cloned().ok_or_else(|| {
            Error::internal(format!("the reader of `{}` left out the column `{}`", file.name, field.name()))
        }),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_>>()?, &options)
        .map_err(|error| Error::internal(format!("the rows of `{}` do not fit their schema", file.name)).cause(error))
}
