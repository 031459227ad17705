//! Dividing files into work units: a big file is a unit, small ones share one.

use super::hive::Pair;
use super::picture::{Picture, SourceFile};
use chrono::{DateTime, Utc};
use gristmill_model::spec::{Compression, FileFormat};
use gristmill_model::{ByteSize, Error, Result, WorkUnit};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

/// Small files share a unit up to this size …
const UNIT_BYTES: u64 = 32 << 20;

/// … and this number.
const UNIT_FILES: usize = 1_000;

/// What a unit says about its files: enough to read them in another process, and to see whether they have changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Payload {
    files: Vec<UnitFile>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct UnitFile {
    root: usize,
    path: String,
    name: String,
    size: u64,
    modified: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    format: FileFormat,
    compression: Compression,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hive: Vec<Pair>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stdin: bool,
}

/// The units of a picture, in the order of its files.
///
/// # Errors
/// Only what a bug would be.
pub(super) fn divide(picture: &Picture) -> Result<Vec<WorkUnit>> {
    let mut units: Vec<WorkUnit> = Vec::new();
    let mut start = 0;
    while start < picture.files.len() {
        let mut end = start + 1;
        let mut bytes = picture.files[start].meta.size;
        while end < picture.files.len()
            && end - start < UNIT_FILES
            && bytes + picture.files[end].meta.size <= UNIT_BYTES
        {
            bytes += picture.files[end].meta.size;
            end += 1;
        }
        let files = &picture.files[start..end];
        let payload = Payload { files: files.iter().map(UnitFile::from).collect() };
        let label = match files {
            [only] => only.name.clone(),
            [first, .., last] => format!("{} files, {} … {}", files.len(), first.name, last.name),
            [] => String::new(),
        };
        units.push(WorkUnit {
            ordinal: u32::try_from(units.len()).map_err(|_| Error::internal("more units than can be counted"))?,
            label,
            payload: serde_json::to_value(payload)
                .map_err(|error| Error::internal("a unit cannot be written").cause(error))?,
            rows: picture.rows[start..end].iter().copied().sum::<Option<u64>>(),
            bytes: (!files.iter().any(|file| file.stdin)).then_some(bytes),
        });
        start = end;
    }
    Ok(units)
}

/// Why these units.
pub(super) fn why(picture: &Picture, units: usize) -> String {
    if picture.files.iter().any(|file| file.stdin) {
        return "standard input, from beginning to end".to_owned();
    }
    let (files, bytes) = (picture.files.len(), picture.files.iter().map(|file| file.meta.size).sum());
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let shared = if units < files { ", small files together" } else { "" };
    format!("{} of {} in {}{shared}", count(files, "file"), ByteSize(bytes), count(units, "unit"))
}

/// The files of a unit.
///
/// # Errors
/// A unit that was not made by [`divide`].
pub(super) fn files(unit: &WorkUnit) -> Result<Vec<SourceFile>> {
    let foreign = || Error::internal(format!("the unit `{}` is not one of files", unit.label));
    let payload: Payload = serde_json::from_value(unit.payload.clone()).map_err(|error| foreign().cause(error))?;
    payload.files.into_iter().map(|file| file.into_file().map_err(|error| foreign().cause(error))).collect()
}

impl From<&SourceFile> for UnitFile {
    fn from(file: &SourceFile) -> Self {
        let SourceFile { root, meta, name, format, compression, hive, stdin } = file.clone();
        let ObjectMeta { location, last_modified, size, e_tag, version } = meta;
        Self {
            root,
            path: location.to_string(),
            name,
            size,
            modified: last_modified,
            etag: e_tag,
            version,
            format,
            compression,
            hive,
            stdin,
        }
    }
}

impl UnitFile {
    fn into_file(self) -> Result<SourceFile, object_store::path::Error> {
        let Self { root, path, name, size, modified, etag, version, format, compression, hive, stdin } = self;
        let meta = ObjectMeta { location: Path::parse(path)?, last_modified: modified, size, e_tag: etag, version };
        Ok(SourceFile { root, meta, name, format, compression, hive, stdin })
    }
}
