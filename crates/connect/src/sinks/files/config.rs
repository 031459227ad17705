//! What a load to files says, understood: nothing here touches a disk or a server.

use super::computed::{Computed, Partitions};
use super::encoding::encoding;
pub(super) use super::encoding::{Dialect, Encoding, TextCompression};
use super::layout::{join, split};
use super::retention::Retention;
use super::scope::{On, Scope};
use super::shape::Shape;
use super::single::hidden_folder;
use crate::sources::files::common_type;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use gristmill_model::spec::{Compression, FileFormat, LoadSpec, OneOrMany, PartitionBy, Strategy};
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;

/// A file is rolled when it has become about so large, unless `file_size` says otherwise.
const FILE_SIZE: u64 = 256 << 20;
/// A single file is never rolled; its size is only guessed so that an upload's parts suffice (10,000 of 11 MB).
const SINGLE_FILE_SIZE: u64 = 100 << 30;
/// A file smaller than this would be mostly footer.
const LEAST_FILE_SIZE: u64 = 64 << 10;

/// A load to files, understood.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// The folder, or the one file, relative to the connection.
    pub(super) path: String,
    /// The folder below it that all files go to, whatever their rows; for compactions.
    pub(super) inside: String,
    /// The name of the file, where the target is one.
    pub(super) single: Option<String>,
    pub(super) strategy: Strategy,
    /// The columns of the rows as they come.
    pub(super) rows: SchemaRef,
    /// All columns, partition columns among them; those that are computed come last.
    pub(super) schema: SchemaRef,
    /// How the computed ones are made of a batch of `rows`.
    pub(super) computed: Vec<Computed>,
    /// What is stored in the files.
    pub(super) stored: SchemaRef,
    /// Positions of the stored columns in `schema`.
    pub(super) keep: Vec<usize>,
    /// Positions of the partition columns in `schema`, outermost folder first.
    pub(super) partition_by: Vec<usize>,
    pub(super) scope: Option<Scope>,
    pub(super) retention: Option<Retention>,
    pub(super) encoding: Encoding,
    /// What the log notes of the files.
    pub(super) shape: Shape,
    /// Bytes after which a new file is begun.
    pub(super) file_size: u64,
    /// Whether staged files tell about their values (`delta/stats.rs`).
    pub(super) statistics: bool,
    /// Whether what is staged in an object store is to be readable.
    pub(super) readable: bool,
}

pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Rows in plain files cannot be told apart by a key: changing some would mean to read and write again every file there is,
/// and readers of the folder would see old and new versions of a row together.
fn refused(strategy: Strategy) -> Error {
    let (why, hint) = match strategy {
        Strategy::TruncateInsert => ("a folder has nothing that `replace` would not keep", "use `strategy: replace`"),
        _ => (
            "rows in files have no keys to find them by",
            "use `strategy: partition_overwrite` with `partition_by`, or `replace`; or load a table of a database",
        ),
    };
    wrong(format!("files cannot be loaded with `{}`: {why}", strategy.as_str())).hint(hint)
}

impl Config {
    /// Understands `load` for rows of `schema`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for what files cannot do; [`ErrorKind::Schema`] for columns that are not there.
    pub(super) fn new(load: &LoadSpec, schema: &SchemaRef) -> Result<Self> {
        if let Some(table) = &load.table {
            return Err(wrong(format!("a load to files has no `table` (`{table}`)"))
                .hint(format!("write `path: {table}/` instead")));
        }
        let Some(path) = load.path.clone() else {
            return Err(wrong("a load to files needs a `path`").hint("add `path: some_folder/`"));
        };
        if path.contains(['*', '?']) {
            return Err(wrong(format!("the path `{path}` of a load is a pattern")).hint("name one folder, e.g. `out/`"));
        }
        // Nothing will be staged: see `LoadContext::schema`.
        let nothing_staged = schema.fields().is_empty();
        let partitions = if nothing_staged { Partitions::default() } else { Partitions::new(load, schema)? };
        let Partitions { schema: with_computed, positions: partition_by, computed } = partitions;
        let (rows, schema) = (schema.clone(), &with_computed.unwrap_or_else(|| schema.clone()));
        let single = single(&path, load)?;
        match load.strategy {
            Strategy::DeleteInsert | Strategy::Merge | Strategy::Scd2 | Strategy::TruncateInsert => {
                return Err(refused(load.strategy));
            }
            Strategy::PartitionOverwrite if load.partition_by.0.is_empty() => {
                return Err(wrong("`partition_overwrite` needs to know the partitions")
                    .hint("add `partition_by: [column]`, or use `strategy: replace`"));
            }
            _ => {}
        }
        if !load.key.0.is_empty() {
            return Err(wrong(format!("`key` means nothing to `strategy: {}` of files", load.strategy.as_str()))
                .hint("remove `key`"));
        }
        let keep: Vec<usize> = (0..schema.fields().len()).filter(|index| !partition_by.contains(index)).collect();
        if keep.is_empty() && !nothing_staged {
            return Err(Error::new(
                ErrorKind::Schema,
                "every column is in `partition_by`, so nothing is left for the files",
            )
            .hint("leave at least one column out of `partition_by`"));
        }
        for &index in &partition_by {
            let field = schema.field(index);
            if field.name().starts_with('.') {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!(
                        "column `{}` cannot be a folder name: readers leave out what begins with `.`",
                        field.name()
                    ),
                )
                .hint("rename the column in a `sql` step"));
            }
            if !can_be_folder(field.data_type()) {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!("column `{}` of type {} cannot be a folder name", field.name(), field.data_type()),
                )
                .hint("partition by text, numbers, booleans, dates or timestamps"));
            }
        }
        let fields: Vec<Arc<Field>> = keep.iter().map(|&index| schema.fields()[index].clone()).collect();
        let stored = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let scope = match (&load.scope, load.strategy) {
            (None, _) => None,
            (Some(_), Strategy::PartitionOverwrite) if nothing_staged => None,
            (Some(text), Strategy::PartitionOverwrite) => {
                let fields: Vec<&Field> = partition_by.iter().map(|&index| schema.field(index)).collect();
                Some(Scope::parse(text, &fields, On::Partitions)?)
            }
            (Some(_), strategy) => {
                return Err(wrong(format!("`scope` means nothing to `strategy: {}`", strategy.as_str()))
                    .hint("use it with `strategy: partition_overwrite`"));
            }
        };
        let fields: Vec<&Field> = partition_by.iter().map(|&index| schema.field(index)).collect();
        let retention = if nothing_staged { None } else { Retention::new(load, &fields)? };
        let mut named = load_as_named(load, single.as_deref());
        if nothing_staged {
            // An abort or a recovery knows no columns, and so none that these could name.
            named.sort_by = OneOrMany::default();
            if let Some(parquet) = &mut named.parquet {
                (parquet.bloom_filter, parquet.bloom_filter_fpp) = (OneOrMany::default(), None);
            }
        }
        if let Some(name) = &single {
            compressed_as_named(load, &named, name)?;
        }
        let encoding = encoding(&named, &stored)?;
        let entries = load.partition_by.0.iter().filter_map(|text| PartitionBy::parse(text).ok()).collect::<Vec<_>>();
        let shape = if nothing_staged { Shape::default() } else { Shape::new(&encoding, &stored, &entries) };
        let default_size = if single.is_some() { SINGLE_FILE_SIZE } else { FILE_SIZE };
        let file_size = load.file_size.map_or(default_size, |size| size.0);
        if file_size < LEAST_FILE_SIZE {
            return Err(wrong(format!("`file_size` of {file_size} bytes is too small")).hint("use at least `64KB`"));
        }
        Ok(Self {
            path,
            inside: String::new(),
            single,
            strategy: load.strategy,
            rows,
            schema: schema.clone(),
            computed,
            stored,
            keep,
            partition_by,
            scope,
            retention,
            encoding,
            shape,
            file_size,
            statistics: false,
            readable: load.readable_staging,
        })
    }
}

impl Config {
    /// Names and types of the stored columns, where the files keep types, and those that files of `before` have beside them;
    /// of a column that both have, the type that holds the values of both.
    pub(super) fn types_beside(&self, before: &[(String, String)]) -> Vec<(String, String)> {
        // Those of text are guesses, for which there is always a common one.
        let fields = self.encoding.keeps(&self.stored).map(Schema::fields).into_iter().flatten();
        let own = fields.map(|field| {
            let both = known_type(before, field.name()).and_then(|(_, old)| common_type(&old, field.data_type()));
            (field.name().clone(), both.unwrap_or_else(|| field.data_type().clone()).to_string())
        });
        let mut all: Vec<(String, String)> = own.collect();
        let others = before.iter().filter(|(name, _)| self.stored.column_with_name(name).is_none());
        all.extend(others.cloned());
        all
    }

    /// Looks whether files with these columns can be read together with those that were loaded `before`.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] for a column whose types have none in common: the folder could be read no more.
    pub(super) fn check_types(&self, before: &[(String, String)]) -> Result<()> {
        for field in self.encoding.keeps(&self.stored).map(Schema::fields).into_iter().flatten() {
            // What this version does not understand it cannot hold against the load.
            let Some((name, old)) = known_type(before, field.name()) else { continue };
            let new = field.data_type();
            if old.is_null() || new.is_null() || common_type(&old, new).is_some() {
                continue;
            }
            let (old, new) = (crate::types::type_name(&old), crate::types::type_name(new));
            return Err(Error::new(
                ErrorKind::Schema,
                format!("the column `{name}` is {new} in the rows but {old} in the files of `{}`", self.path),
            )
            .hint(format!("cast it in the step before: `cast({name} as …)`, or load with `strategy: replace`")));
        }
        Ok(())
    }

    /// Where the sink is at home: the target's folder, or the hidden one beside a single file.
    pub(super) fn place(&self, local: bool) -> String {
        match &self.single {
            None => self.path.clone(),
            Some(name) => {
                let folder = split(&self.path).0;
                if local { join(folder, &hidden_folder(name)) } else { folder.to_owned() }
            }
        }
    }
}

/// The column of this name, as the log has noted it.
fn known_type<'a>(noted: &'a [(String, String)], name: &str) -> Option<(&'a str, DataType)> {
    let (name, data_type) = noted.iter().find(|(known, _)| known == name)?;
    Some((name.as_str(), data_type.parse().ok()?))
}

/// The name of the one file a path leads to: its ending is that of a format (`out/rates.json`), or `file.csv.gz`.
fn single(path: &str, load: &LoadSpec) -> Result<Option<String>> {
    if !load.makes_one_file() {
        return Ok(None);
    }
    let name = split(path).1;
    if !load.partition_by.0.is_empty() {
        return Err(
            wrong(format!("`{path}` names one file, which cannot be partitioned")).hint("name a folder: `path: out/`")
        );
    }
    if load.strategy != Strategy::Replace {
        return Err(wrong(format!(
            "`{path}` names one file, which can only be replaced, not loaded by `{}`",
            load.strategy.as_str()
        ))
        .hint("use `strategy: replace`, or name a folder: `path: out/`"));
    }
    if load.file_size.is_some() {
        return Err(wrong(format!("`{path}` names one file, so `file_size` means nothing")).hint("remove `file_size`"));
    }
    Ok(Some(name.to_owned()))
}

/// What a file's name says about its format and compression holds where the load says nothing.
fn load_as_named(load: &LoadSpec, name: Option<&str>) -> LoadSpec {
    let mut load = load.clone();
    let Some(name) = name else { return load };
    let (stem, compression) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Some(Compression::Gzip)),
        Some((stem, "zst")) => (stem, Some(Compression::Zstd)),
        Some((stem, "bz2")) => (stem, Some(Compression::Bzip2)),
        Some((stem, "xz")) => (stem, Some(Compression::Xz)),
        _ => (name, None),
    };
    load.format = load.format.or_else(|| FileFormat::from_extension(stem.rsplit_once('.')?.1));
    load.compression = load.compression.or(compression);
    if load.format == Some(FileFormat::Csv) {
        // The delimiter a name stands for, as when such a file is read.
        let delimiter = match stem.rsplit_once('.').map(|(_, ending)| ending) {
            Some("tsv") => Some("\t"),
            Some("tbl" | "psv") => Some("|"),
            _ => None,
        };
        if let Some(delimiter) = delimiter {
            load.csv.get_or_insert_default().delimiter.get_or_insert_with(|| delimiter.to_owned());
        }
    }
    load
}

/// A text file's name says how it is compressed, and readers believe it.
fn compressed_as_named(load: &LoadSpec, named: &LoadSpec, name: &str) -> Result<()> {
    let is_text = matches!(named.format, Some(FileFormat::Csv | FileFormat::Ndjson));
    let Some(given) = load.compression.filter(|_| is_text) else { return Ok(()) };
    let as_named = load_as_named(&LoadSpec { compression: None, ..load.clone() }, Some(name)).compression;
    let as_named = as_named.unwrap_or(Compression::None);
    if given == as_named {
        return Ok(());
    }
    let bare = [".gz", ".zst", ".bz2", ".xz"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let better = match given {
        Compression::Gzip => format!("{bare}.gz"),
        Compression::Zstd => format!("{bare}.zst"),
        _ => bare.to_owned(),
    };
    Err(wrong(format!("`compression: {}` does not go with the name `{name}`", given.as_str()))
        .hint(format!("name the file `{better}`, or leave `compression` out")))
}

fn can_be_folder(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => can_be_folder(values),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean | DataType::Null => true,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _) => true,
        other => other.is_numeric(),
    }
}
