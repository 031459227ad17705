//! What a unit says: files, or a piece of one, enough to read them in another process.

use crate::sources::files::formats::{Piece, RowGroup};
use crate::sources::files::hive::Pair;
use crate::sources::files::picture::{Picture, SourceFile};
use chrono::{DateTime, Utc};
use gristmill_model::spec::{Compression, FileFormat};
use gristmill_model::{Error, Result, WorkUnit};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use std::ops::Range;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    piece: Option<Piece>,
}

/// A unit of these files.
///
/// # Errors
/// Only what a bug would be.
pub(super) fn unit(ordinal: usize, files: &[SourceFile], picture: &Picture) -> Result<WorkUnit> {
    let payload = Payload { files: files.iter().map(UnitFile::from).collect() };
    let label = match files {
        [only] => match &only.piece {
            None => only.name.clone(),
            Some(Piece::Bytes(range)) => format!("{}, bytes {} to {}", only.name, range.start, range.end),
            Some(Piece::RowGroups { start, end }) => format!("{}, row groups {start} to {}", only.name, end - 1),
        },
        [first, .., last] => format!("{} files, {} … {}", files.len(), first.name, last.name),
        [] => String::new(),
    };
    let bytes: u64 = files.iter().map(|file| bytes(file, picture)).sum();
    Ok(WorkUnit {
        ordinal: u32::try_from(ordinal).map_err(|_| Error::internal("more units than can be counted"))?,
        label,
        payload: serde_json::to_value(payload)
            .map_err(|error| Error::internal("a unit cannot be written").cause(error))?,
        rows: files.iter().map(|file| rows(file, picture)).sum::<Option<u64>>(),
        bytes: (!files.iter().any(|file| file.stdin)).then_some(bytes),
    })
}

/// Whether a unit is a piece of a file.
pub(super) fn is_piece(unit: &WorkUnit) -> bool {
    unit.payload.pointer("/files/0/piece").is_some()
}

/// Where a file stands in the picture.
fn position(file: &SourceFile, picture: &Picture) -> Option<usize> {
    picture.positions.get(&(file.root, file.meta.location.clone())).copied()
}

fn bytes(file: &SourceFile, picture: &Picture) -> u64 {
    match &file.piece {
        None => file.meta.size,
        Some(Piece::Bytes(range)) => range.end - range.start,
        Some(Piece::RowGroups { start, end }) => {
            groups(file, picture, *start..*end).iter().map(|group| group.bytes).sum()
        }
    }
}

fn rows(file: &SourceFile, picture: &Picture) -> Option<u64> {
    let rows = picture.rows.get(position(file, picture)?).copied().flatten()?;
    Some(match &file.piece {
        None => rows,
        Some(Piece::Bytes(range)) => {
            (u128::from(rows) * u128::from(range.end - range.start) / u128::from(file.meta.size.max(1))) as u64
        }
        Some(Piece::RowGroups { start, end }) => {
            groups(file, picture, *start..*end).iter().map(|group| group.rows).sum()
        }
    })
}

fn groups<'a>(file: &SourceFile, picture: &'a Picture, range: Range<usize>) -> &'a [RowGroup] {
    let all = position(file, picture).and_then(|at| picture.row_groups.get(at));
    all.and_then(|all| all.get(range)).unwrap_or_default()
}

/// The files of a unit.
///
/// # Errors
/// A unit that was not made by [`unit`].
pub(in crate::sources::files) fn files(unit: &WorkUnit) -> Result<Vec<SourceFile>> {
    let foreign = || Error::internal(format!("the unit `{}` is not one of files", unit.label));
    let payload: Payload = serde_json::from_value(unit.payload.clone()).map_err(|error| foreign().cause(error))?;
    payload.files.into_iter().map(|file| file.into_file().map_err(|error| foreign().cause(error))).collect()
}

impl From<&SourceFile> for UnitFile {
    fn from(file: &SourceFile) -> Self {
        let SourceFile { root, meta, name, format, compression, hive, stdin, piece } = file.clone();
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
            piece,
        }
    }
}

impl UnitFile {
    fn into_file(self) -> Result<SourceFile, object_store::path::Error> {
        let Self { root, path, name, size, modified, etag, version, format, compression, hive, stdin, piece } = self;
        let meta = ObjectMeta { location: Path::parse(path)?, last_modified: modified, size, e_tag: etag, version };
        Ok(SourceFile { root, meta, name, format, compression, hive, stdin, piece })
    }
}
