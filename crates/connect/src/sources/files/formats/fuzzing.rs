//! The readers of formats as functions of bytes; see [`crate::fuzzing`].

pub(crate) use super::json::fuzzing::json_split;
use super::{FileInput, reader, settle};
use crate::Scan;
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
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let build = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok();
    if let Some(runtime) = RUNTIME.get_or_init(build) {
        let _ = runtime.block_on(whole(format, compression, bytes.to_vec()));
    }
}

async fn whole(format: FileFormat, compression: Compression, bytes: Vec<u8>) -> Result<()> {
    let (store, path) = (Arc::new(InMemory::new()), Path::from("x"));
    let internal = |error: object_store::Error| gristmill_model::Error::internal("no file in memory").cause(error);
    store.put(&path, PutPayload::from(bytes)).await.map_err(internal)?;
    let meta = store.head(&path).await.map_err(internal)?;
    let input = FileInput {
        store,
        meta,
        name: "x".to_owned(),
        compression,
        csv: CsvOptions::default(),
        json: JsonOptions::default(),
        stdin: false,
        piece: None,
    };
    let schema = settle(&reader(format).infer(&input).await?.schema);
    let scan = Scan { schema, batch_size: 1_000, on_bad_row: OnFail::Drop, rejects: None };
    reader(format).read(input, scan).collect().await.map(drop)
}

/// Small files of the formats that are no text.
#[cfg(test)]
pub(crate) fn binary_seeds() -> Vec<Vec<u8>> {
    super::tests::seeds()
}
