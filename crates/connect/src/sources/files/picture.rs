//! What a source looks at once: which files there are, and what columns they have.

use super::csv::delimiter_by_name;
use super::formats::{self, FileInput, Piece, RowGroup, Seen};
use super::{compress, hive, list, schema};
use crate::stores::{Store, StoreKind};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use gristmill_model::spec::{Compression, ExtractSpec, FileFormat, SchemaContract};
use gristmill_model::{Error, ErrorKind, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// Files that are looked at together.
const TOGETHER: usize = 16;

/// A file of a source.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    /// Which of the source's stores it is in.
    pub(super) root: usize,
    /// Path, size, time and etag.
    pub(super) meta: ObjectMeta,
    /// What messages call it.
    pub(super) name: String,
    /// Its format.
    pub(super) format: FileFormat,
    /// How it is compressed as a whole.
    pub(super) compression: Compression,
    /// The keys and values of its path.
    pub(super) hive: Vec<hive::Pair>,
    /// Standard input instead of a file.
    pub(super) stdin: bool,
    /// Only a piece of it.
    pub(super) piece: Option<Piece>,
}

/// What a path of an extract asks for.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// Standard input.
    Stdin,
    /// What a pattern means in one of the source's stores.
    Files { root: usize, pattern: String },
}

/// What is known once the files have been looked at.
#[derive(Debug)]
pub(super) struct Picture {
    /// The files.
    pub(super) files: Vec<SourceFile>,
    /// Where each of them stands among the files.
    pub(super) positions: HashMap<(usize, Path), usize>,
    /// What each of them is like by itself.
    pub(super) schemas: Vec<SchemaRef>,
    /// How many rows each has, about.
    pub(super) rows: Vec<Option<u64>>,
    /// The row groups of each, for Parquet.
    pub(super) row_groups: Vec<Vec<RowGroup>>,
    /// The columns that stand in the files.
    pub(super) columns: SchemaRef,
    /// The columns that stand in the paths.
    pub(super) hive: Vec<Field>,
    /// What the source gives: all of them, hive columns last; or what `columns:` says.
    pub(super) schema: SchemaRef,
}

/// The format that a name stands for, compression endings left aside.
pub(super) fn format_by_name(name: &str) -> Option<FileFormat> {
    let (stem, _) = compress::split_name(name);
    let file = stem.rsplit('/').next().unwrap_or(stem);
    FileFormat::from_extension(file.rsplit_once('.')?.1)
}

/// Whether files of this format are text, whose types are guesses.
pub(super) fn is_text(format: FileFormat) -> bool {
    matches!(format, FileFormat::Csv | FileFormat::Ndjson | FileFormat::Json)
}

/// What a path is that means no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// A mistake.
    Refused,
    /// One whose files have been loaded, and taken away.
    Emptied,
}

/// Lists the files of a source and tells their formats.
///
/// # Errors
/// [`ErrorKind::NotFound`] for a path that means nothing, where that is refused; [`ErrorKind::Config`] for formats that cannot be told; what the
/// store says.
pub(super) async fn files(
    roots: &[Store],
    wanted: &[Wanted],
    spec: &ExtractSpec,
    absent: Absent,
) -> Result<Vec<SourceFile>> {
    let mut files: Vec<SourceFile> = Vec::new();
    for want in wanted {
        match want {
            Wanted::Stdin => files.push(stdin(spec)?),
            Wanted::Files { root, pattern } => {
                let Some(store) = roots.get(*root) else { continue };
                let listed = match list::find(store, pattern).await {
                    Err(error) if absent == Absent::Emptied && error.kind() == ErrorKind::NotFound => continue,
                    listed => listed?,
                };
                add(store, *root, listed, pattern, spec, &mut files)?;
            }
        }
    }
    // The same file may be meant by two patterns.
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert((file.root, file.meta.location.clone(), file.stdin)));
    Ok(files)
}

/// Tells how files are compressed.
///
/// # Errors
/// [`ErrorKind::Config`] for formats that differ; what the store says.
pub(super) async fn opened(roots: &[Store], spec: &ExtractSpec, files: Vec<SourceFile>) -> Result<Vec<SourceFile>> {
    let Some(first) = files.first() else { return Ok(files) };
    if let Some(other) = files.iter().find(|file| file.format != first.format) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("`{}` is {} but `{}` is {}", first.name, first.format.as_str(), other.name, other.format.as_str()),
        )
        .hint("say which are meant with `format:`, or with a path like `folder/*.parquet`"));
    }
    for (given, key, format) in
        [(spec.csv.is_some(), "csv", FileFormat::Csv), (spec.json.is_some(), "json", FileFormat::Json)]
    {
        let fits = first.format == format || (key == "json" && first.format == FileFormat::Ndjson);
        if given && !fits {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{key}:` is given, but `{}` is {}", first.name, first.format.as_str()),
            )
            .hint(format!("remove `{key}:`, or say `format: {key}`")));
        }
    }
    let looks: Vec<_> = files.into_iter().map(|file| looked_at(roots, spec, file)).collect();
    stream::iter(looks).buffered(TOGETHER).try_collect().await
}

/// Standard input as a file.
fn stdin(spec: &ExtractSpec) -> Result<SourceFile> {
    let streaming = [FileFormat::Csv, FileFormat::Ndjson, FileFormat::Json, FileFormat::Arrow];
    let Some(format) = spec.format.filter(|format| streaming.contains(format)) else {
        let message = match spec.format {
            Some(format) => format!("{} cannot be read from standard input", format.as_str()),
            None => "the format of standard input cannot be told".to_owned(),
        };
        return Err(Error::new(ErrorKind::Config, message)
            .hint("say one that can be read in one go: `format: csv`, `ndjson`, `json` or `arrow`"));
    };
    Ok(SourceFile {
        root: 0,
        meta: ObjectMeta {
            location: Path::default(),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: 0,
            e_tag: None,
            version: None,
        },
        name: "stdin".to_owned(),
        format,
        compression: spec.compression.unwrap_or(Compression::None),
        hive: Vec::new(),
        stdin: true,
        piece: None,
    })
}

/// Whether a file that was only found may be of the format that was asked for. Text has many endings, and JSON lines are
/// often called `.json`.
fn may_be(format: FileFormat, name: &str) -> bool {
    match format_by_name(name) {
        None => !matches!(name.rsplit_once('.'), Some((_, "md" | "crc" | "html" | "py" | "sql" | "yaml" | "yml"))),
        Some(told) => {
            let text = [FileFormat::Json, FileFormat::Ndjson];
            told == format
                || (text.contains(&told) && text.contains(&format))
                || name.ends_with(".txt") && is_text(format)
        }
    }
}

fn add(
    store: &Store,
    root: usize,
    listed: Vec<list::Listed>,
    pattern: &str,
    spec: &ExtractSpec,
    files: &mut Vec<SourceFile>,
) -> Result<()> {
    let before = files.len();
    let mut left_out = Vec::new();
    for list::Listed { meta, named } in listed {
        // A web address has no folder that its files would be known by.
        let short = root == 0 && store.kind() != StoreKind::Http;
        let name = if short { store.short_name(&meta.location) } else { store.full_name(&meta.location) };
        let format = match spec.format {
            Some(format) if named || may_be(format, &name) => Some(format),
            Some(_) => None,
            None => format_by_name(&name),
        };
        let Some(format) = format else {
            if named && spec.format.is_none() {
                let formats = FileFormat::ALL.map(|format| format!("`{}`", format.as_str())).join(", ");
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("the format of `{name}` cannot be told from its name"),
                )
                .hint(format!("say it with `format:`; valid: {formats}")));
            }
            left_out.push(name);
            continue;
        };
        let path = match meta.location.prefix_match(&store.prefix) {
            Some(parts) => parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"),
            None => meta.location.to_string(),
        };
        let compression = spec.compression.unwrap_or_else(|| compress::split_name(&name).1);
        let hive = hive::pairs(&path);
        files.push(SourceFile { root, hive, meta, name, format, compression, stdin: false, piece: None });
    }
    if files.len() == before {
        let what = spec.format.map_or("a known format".to_owned(), |format| format!("the format {}", format.as_str()));
        let shown: Vec<String> = left_out.iter().take(5).map(|name| format!("`{name}`")).collect();
        return Err(Error::new(ErrorKind::NotFound, format!("no file of `{pattern}` has {what}"))
            .hint(format!("say the right one with `format:`; there is {}", shown.join(", "))));
    }
    Ok(())
}

/// Tells the compression of text by its first bytes, whatever its name says.
async fn looked_at(roots: &[Store], spec: &ExtractSpec, mut file: SourceFile) -> Result<SourceFile> {
    if spec.compression.is_some() || !is_text(file.format) {
        return Ok(file);
    }
    let first = if file.stdin {
        let input = input(roots, spec, &SourceFile { compression: Compression::None, ..file.clone() })?;
        let stream = formats::bytes::open(&input, formats::bytes::Purpose::Look).await?;
        let mut first = Vec::new();
        let read = stream.take(compress::MAGIC_BYTES).read_to_end(&mut first).await;
        read.map_err(|error| formats::bytes::stream_error(&error, &file.name))?;
        first
    } else {
        let Some(store) = roots.get(file.root) else { return Ok(file) };
        let end = file.meta.size.min(compress::MAGIC_BYTES);
        match end {
            0 => Vec::new(),
            _ => match store.store.get_range(&file.meta.location, 0..end).await {
                Ok(bytes) => bytes.to_vec(),
                // A web server without ranges; the name must do.
                Err(object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. }) => {
                    return Ok(file);
                }
                Err(error) => return Err(super::connection::store_error(error, &file.name)),
            },
        }
    };
    file.compression = compress::by_magic(&first);
    Ok(file)
}

/// A file as its reader wants it.
pub(super) fn input(roots: &[Store], spec: &ExtractSpec, file: &SourceFile) -> Result<FileInput> {
    let store =
        roots.get(file.root).ok_or_else(|| Error::internal(format!("the store of `{}` is unknown", file.name)))?;
    let mut csv = spec.csv.clone().unwrap_or_default();
    if csv.delimiter.is_none() {
        csv.delimiter = delimiter_by_name(compress::split_name(&file.name).0).map(str::to_owned);
    }
    Ok(FileInput {
        store: store.store.clone(),
        meta: file.meta.clone(),
        name: file.name.clone(),
        compression: file.compression,
        csv,
        json: spec.json.clone().unwrap_or_default(),
        stdin: file.stdin,
        piece: file.piece.clone(),
    })
}

/// Looks at the columns of all files and makes one schema of them. `known` are columns that were loaded before.
///
/// # Errors
/// A file that cannot be read, or that does not go with the others.
pub(super) async fn look(
    roots: &[Store],
    spec: &ExtractSpec,
    overrides: &BTreeMap<String, DataType>,
    files: Vec<SourceFile>,
    known: Option<&SchemaRef>,
) -> Result<Picture> {
    // Collected first: a closure over borrowed files inside the stream would not be general enough for `Send`.
    let looks: Vec<_> = files.iter().map(|file| infer(roots, spec, file)).collect();
    let seen: Vec<Seen> = stream::iter(looks).buffered(TOGETHER).try_collect().await?;
    let rows =
        files.iter().zip(&seen).map(|(file, seen)| seen.rows.estimate(file.meta.size, file.compression)).collect();
    let (schemas, row_groups): (Vec<_>, Vec<_>) = seen.into_iter().map(|seen| (seen.schema, seen.row_groups)).unzip();
    let format = files.first().map_or(FileFormat::Csv, |file| file.format);
    let text = is_text(format);

    let mut hive = hive::columns(files.iter().map(|file| file.hive.as_slice()));
    for field in &mut hive {
        if let Some(before) = known.and_then(|known| known.field_with_name(field.name()).ok()) {
            *field = schema::widened(before, field)?;
        }
        if let Some(data_type) = overrides.get(field.name()) {
            *field = Field::new(field.name(), data_type.clone(), true);
        }
        let without = files.iter().find(|file| !file.hive.iter().any(|(key, _)| key == field.name()));
        if let (SchemaContract::Freeze, Some(file)) = (spec.schema_contract, without) {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("the path of `{}` has no column `{}`", file.name, field.name()),
            )
            .hint("move the file to where it belongs, or say `schema_contract: evolve`"));
        }
    }
    let in_path = |name: &str| hive.iter().any(|field| field.name() == name);

    let named: Vec<(&str, SchemaRef)> =
        files.iter().map(|file| file.name.as_str()).zip(schemas.iter().cloned()).collect();
    let mut unified = schema::unify(&named, spec.schema_contract, text)?;
    if let Some(known) = known {
        let known: Vec<_> = known.fields().iter().filter(|field| !in_path(field.name())).cloned().collect();
        let both = [("what was loaded before", Arc::new(Schema::new(known))), ("the new files", Arc::new(unified))];
        unified = schema::unify(&both, SchemaContract::Evolve, text)?;
    }
    let open = matches!(format, FileFormat::Ndjson | FileFormat::Json);
    // The value in the path wins over a column of the same name, as in Spark and DuckDB.
    let own: Vec<_> = unified.fields().iter().filter(|field| !in_path(field.name())).cloned().collect();
    let declared =
        overrides.iter().filter(|(name, _)| !in_path(name)).map(|(name, t)| (name.clone(), t.clone())).collect();
    if own.is_empty() && text && (!open || overrides.is_empty()) {
        let file = files.first().map_or("", |file| &file.name);
        if open {
            return Err(Error::new(
                ErrorKind::Data,
                format!("`{file}` holds no records, so there are no columns to read"),
            )
            .hint("declare the columns, e.g. `schema: {id: bigint, name: text}`, or read another file"));
        }
        return Err(Error::new(ErrorKind::Data, format!("`{file}` is empty: there are no columns to read"))
            .hint("write at least a header, or read another file"));
    }
    let columns = schema::declared(&Schema::new(own), &declared, open)?;
    let all: Vec<_> = columns.fields().iter().cloned().chain(hive.iter().cloned().map(Arc::new)).collect();
    let all = Schema::new(all);
    let schema = if spec.columns.is_empty() { all } else { schema::only(&all, &spec.columns)? };
    let positions = files.iter().enumerate().map(|(at, file)| ((file.root, file.meta.location.clone()), at)).collect();
    Ok(Picture {
        files,
        positions,
        schemas,
        rows,
        row_groups,
        columns: Arc::new(columns),
        hive,
        schema: Arc::new(schema),
    })
}

async fn infer(roots: &[Store], spec: &ExtractSpec, file: &SourceFile) -> Result<Seen> {
    let input = input(roots, spec, file)?;
    guarded(&file.name, formats::reader(file.format).infer(&input)).await
}

/// Turns a panic of whatever decodes `file` into an error.
pub(super) async fn guarded<T>(file: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(panicked(file)))
}

/// That a library gave up on a file.
pub(super) fn panicked(file: &str) -> Error {
    Error::new(ErrorKind::Data, format!("`{file}` cannot be read: its bytes made the reader fail"))
        .hint("the file is most likely damaged; write or fetch it again")
}
