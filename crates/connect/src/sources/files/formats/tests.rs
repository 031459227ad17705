use super::*;
use crate::{Reject, RejectSink};
use ::arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use ::arrow::compute::concat_batches;
use ::arrow::datatypes::{Field, Float64Type, Int64Type, TimeUnit};
use gristmill_model::ErrorKind;
use gristmill_model::spec::OnFail;
use object_store::PutPayload;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, path::Path};
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

mod binary;
mod conformance;
mod text;

/// Small files of every format that is no text.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    binary::seeds()
}

/// A file in memory.
async fn file(name: &str, bytes: impl Into<PutPayload>) -> FileInput {
    let store = Arc::new(InMemory::new());
    let path = Path::from(name);
    store.put(&path, bytes.into()).await.unwrap();
    let meta = store.head(&path).await.unwrap();
    FileInput {
        store,
        meta,
        name: name.to_owned(),
        compression: Compression::None,
        csv: CsvOptions::default(),
        json: JsonOptions::default(),
        stdin: false,
        piece: None,
    }
}

fn scan(schema: SchemaRef) -> Scan {
    Scan { schema, batch_size: 1000, on_bad_row: OnFail::Fail, rejects: None }
}

/// A scan that keeps what it leaves out.
fn tolerant(schema: SchemaRef, on_bad_row: OnFail) -> (Scan, Arc<Mutex<Vec<Reject>>>) {
    let rejects = Arc::new(Mutex::new(Vec::new()));
    let kept = rejects.clone();
    let sink = RejectSink::new(move |reject| kept.lock().unwrap().push(reject));
    (Scan { schema, batch_size: 1000, on_bad_row, rejects: Some(sink) }, rejects)
}

/// Infers and reads a file whole.
async fn whole(format: FileFormat, input: &FileInput) -> Result<RecordBatch> {
    let Seen { schema, rows, .. } = reader(format).infer(input).await?;
    let promised = rows.exact();
    let batches = reader(format).read(input.clone(), scan(settle(&schema))).collect().await?;
    let whole = concat_batches(&settle(&schema), &batches).unwrap();
    if let Some(promised) = promised {
        assert_eq!(promised, whole.num_rows() as u64, "{}", input.name);
    }
    Ok(whole)
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name} in {:?}", batch.schema()))
}

/// How many cases a property test tries; `GRISTMILL_CASES` multiplies them.
fn cases(usual: u32) -> u32 {
    usual * std::env::var("GRISTMILL_CASES").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}
