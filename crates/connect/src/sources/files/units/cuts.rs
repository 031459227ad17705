//! Finding places in a text at which records begin.

use crate::sources::files::csv::slices::{self, Following};
use crate::sources::files::csv::survey::Rules;
use crate::sources::files::csv::{self, Dialect};
use crate::sources::files::formats::FileInput;
use crate::sources::files::formats::bytes::{self, Purpose, changed};
use crate::sources::files::picture::{self, SourceFile};
use crate::stores::{Store, StoreKind};
use gristmill_model::spec::{ExtractSpec, FileFormat};
use gristmill_model::{Error, Result};
use object_store::local::LocalFileSystem;
use std::fs::File;
use tokio::io::AsyncReadExt;

/// How much of an object is asked for, to find the end of a line.
const PROBE: u64 = 64 << 10;

/// As much is read of an object at once.
const CHUNK: usize = 256 << 10;

/// A place to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) at: u64,
    /// The lines before it, where they were counted.
    pub(super) lines: Option<u64>,
}

/// Where a file is cut.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// In ascending order, none at the beginning or the end.
    pub(super) cuts: Vec<Cut>,
    /// The columns of the file, for CSV.
    pub(super) columns: Vec<String>,
}

/// Finds the first record at or behind each target; nothing where the file is better read whole.
///
/// # Errors
/// What the store or the disk says.
pub(super) async fn find(roots: &[Store], spec: &ExtractSpec, file: &SourceFile, targets: Vec<u64>) -> Result<Found> {
    let input = picture::input(roots, spec, file)?;
    let mut columns = Vec::new();
    let rules = if file.format == FileFormat::Csv {
        // Without its first record nothing of the file can be read.
        let Some(first) = csv::first_columns(&input).await? else { return Ok(Found::default()) };
        columns = first;
        Rules::csv(&Dialect::new(&input.csv)?)
    } else {
        Rules::lines()
    };
    let local = roots.get(file.root).is_some_and(|root| root.kind() == StoreKind::Local);
    let mut cuts = if local {
        on_disk(&input, targets, rules).await?
    } else if rules.any_line() {
        by_probes(&input, targets).await?
    } else {
        in_stream(&input, targets, rules).await?
    };
    cuts.retain(|cut| cut.at > 0 && cut.at < file.meta.size);
    Ok(Found { cuts, columns })
}

/// Whether a text begins like UTF-16, in which a byte is no character.
fn is_utf16(first: &[u8]) -> bool {
    first.starts_with(&[0xff, 0xfe]) || first.starts_with(&[0xfe, 0xff])
}

/// Walks a local file.
async fn on_disk(input: &FileInput, targets: Vec<u64>, rules: Rules) -> Result<Vec<Cut>> {
    let (location, name, size) = (input.meta.location.clone(), input.name.clone(), input.meta.size);
    let look = move || -> Result<Vec<Cut>> {
        let path = LocalFileSystem::new().path_to_filesystem(&location);
        let path = path.map_err(|error| bytes::store_error(&error, &name))?;
        let io = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => changed(&name, "has become shorter"),
            std::io::ErrorKind::NotFound => changed(&name, "has disappeared"),
            _ => Error::io(&error, format!("`{name}`")),
        };
        let file = File::open(&path).map_err(io)?;
        if is_utf16(&slices::first_bytes(&file).map_err(io)?) {
            return Ok(Vec::new());
        }
        let seen = slices::survey(&file, size, &targets, rules).map_err(io)?;
        Ok(seen.cuts.into_iter().map(|cut| Cut { at: cut.at, lines: Some(cut.lines) }).collect())
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.map_err(|error| Error::internal("looking for places to cut failed").cause(error))?
}

/// Reads an object once through.
async fn in_stream(input: &FileInput, targets: Vec<u64>, rules: Rules) -> Result<Vec<Cut>> {
    let mut stream = bytes::open(input, Purpose::Look).await?;
    let mut following = Following::new(targets, rules);
    let mut buffer = vec![0; CHUNK];
    let mut first = Vec::new();
    loop {
        let read = stream.read(&mut buffer).await.map_err(|error| bytes::stream_error(&error, &input.name))?;
        if read == 0 {
            let cuts = following.finish().cuts;
            return Ok(cuts.into_iter().map(|cut| Cut { at: cut.at, lines: Some(cut.lines) }).collect());
        }
        if first.len() < 2 {
            first.extend_from_slice(&buffer[..read.min(2)]);
            if is_utf16(&first) {
                return Ok(Vec::new());
            }
        }
        following.take(&buffer[..read]);
    }
}

/// Looks for the end of a line near each target: enough where any line break ends a record.
async fn by_probes(input: &FileInput, targets: Vec<u64>) -> Result<Vec<Cut>> {
    let size = input.meta.size;
    let first = bytes::pinned(input.store.as_ref(), &input.meta, 0..size.min(2), &input.name).await?;
    if is_utf16(&first) {
        return Ok(Vec::new());
    }
    let mut cuts: Vec<Cut> = Vec::new();
    for target in targets {
        // The byte before the target tells whether a line begins at it.
        let mut at = target.saturating_sub(1).max(cuts.last().map_or(0, |cut| cut.at));
        let mut length = PROBE;
        while at < size {
            let end = size.min(at + length);
            let bytes = bytes::pinned(input.store.as_ref(), &input.meta, at..end, &input.name).await?;
            if let Some(found) = memchr::memchr(b'\n', &bytes) {
                cuts.push(Cut { at: at + found as u64 + 1, lines: None });
                break;
            }
            at = end;
            length = (length * 2).min(CHUNK as u64 * 64);
        }
    }
    cuts.dedup();
    Ok(cuts)
}
