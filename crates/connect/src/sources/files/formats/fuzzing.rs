//! The readers of formats as functions of bytes; see [`crate::fuzzing`].

use super::avro::{Frames, Marker};
pub(crate) use super::json::fuzzing::json_split;
use super::{FileInput, reader, settle};
use crate::Scan;
use crate::sources::files::records::{Chunk, Records};
use gristmill_model::Result;
use gristmill_model::spec::{Compression, CsvOptions, FileFormat, JsonOptions, OnFail};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Runtime;

/// Looks at a file and reads it whole.
pub(crate) fn file(format: FileFormat, bytes: &[u8]) {
    packed_as(format, Compression::None, bytes);
}

/// A file of JSON lines, packed in each way there is.
pub(crate) fn packed(bytes: &[u8]) {
    for compression in [Compression::Gzip, Compression::Bzip2, Compression::Xz, Compression::Zstd] {
        packed_as(FileFormat::Ndjson, compression, bytes);
    }
}

fn packed_as(format: FileFormat, compression: Compression, bytes: &[u8]) {
    block_on(async {
        let _ = whole(format, compression, bytes.to_vec()).await;
    });
}

fn block_on(work: impl Future<Output = ()>) {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let build = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok();
    if let Some(runtime) = RUNTIME.get_or_init(build) {
        runtime.block_on(work);
    }
}

async fn whole(format: FileFormat, compression: Compression, bytes: Vec<u8>) -> Result<()> {
    let input = input(compression, bytes).await?;
    let schema = settle(&reader(format).infer(&input).await?.schema);
    let scan = Scan { schema, batch_size: 1_000, on_bad_row: OnFail::Drop, rejects: None };
    reader(format).read(input, scan).collect().await.map(drop)
}

/// Takes files apart as who writes them anew does, puts the parts together, and takes that apart again.
pub(crate) fn parts(bytes: &[u8]) {
    for format in [FileFormat::Csv, FileFormat::Ndjson, FileFormat::Avro] {
        block_on(async {
            let Ok((head, first)) = apart(format, bytes.to_vec()).await else { return };
            let chunks = first.iter().flat_map(|chunk| &chunk.bytes).copied();
            let marker: &[u8] = if format == FileFormat::Avro { &MARKER } else { &[] };
            let written: Vec<u8> = head.iter().chain(marker).copied().chain(chunks).collect();
            let again = apart(format, written).await;
            assert!(again.is_ok_and(|again| again == (head, first)), "{format:?}: other records when they are written");
        });
    }
}

const MARKER: Marker = *b"sixteen bytes...";

/// What a file begins with, and its records in pieces.
async fn apart(format: FileFormat, bytes: Vec<u8>) -> Result<(Vec<u8>, Vec<Chunk>)> {
    let input = input(Compression::None, bytes).await?;
    let mut found = Vec::new();
    if format == FileFormat::Avro {
        let mut frames = Frames::open(&input).await?;
        while let Some(chunk) = frames.next(&MARKER).await? {
            found.push(chunk);
        }
        return Ok((frames.header().to_vec(), found));
    }
    let mut records = Records::open(&input, format).await?;
    let head = records.head().await?;
    while let Some(chunk) = records.next().await? {
        found.push(chunk);
    }
    Ok((head.header, found))
}

async fn input(compression: Compression, bytes: Vec<u8>) -> Result<FileInput> {
    let (store, path) = (Arc::new(InMemory::new()), Path::from("x"));
    let internal = |error: object_store::Error| gristmill_model::Error::internal("no file in memory").cause(error);
    store.put(&path, PutPayload::from(bytes)).await.map_err(internal)?;
    let meta = store.head(&path).await.map_err(internal)?;
    Ok(FileInput {
        store,
        meta,
        name: "x".to_owned(),
        compression,
        csv: CsvOptions::default(),
        json: JsonOptions::default(),
        stdin: false,
        piece: None,
    })
}

/// Small files of the formats that are no text.
#[cfg(test)]
pub(crate) fn binary_seeds() -> Vec<Vec<u8>> {
    super::tests::seeds()
}
