//! Files of the table as rows of the table: columns they lack, and those that only their partition tells, are put in.

use super::super::place::Place;
use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use deltalake_core::kernel::LogicalFileView;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use gristmill_model::{Error, ErrorKind, Result};
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Rows that are looked at together.
const ROWS: usize = 8192;

/// A stream of rows.
pub(super) type Batches = BoxStream<'static, Result<RecordBatch>>;

/// The rows of a file of the table, in columns of `schema`.
///
/// # Errors
/// A file that is somewhere else, whose rows are deleted one by one, or that cannot be read.
pub(super) async fn of_table(place: &Place, file: &LogicalFileView, schema: &SchemaRef) -> Result<Batches> {
    let path = file.path().into_owned();
    let refused = |why: &str, hint: &str| {
        let message = format!("`{path}` of the Delta table cannot be written anew: {why}");
        Err(Error::new(ErrorKind::Config, message).hint(hint))
    };
    if path.contains("://") || path.starts_with('/') {
        return refused("it lies outside of the table's folder", "copy the table, or load another `path`");
    }
    if file.deletion_vector_descriptor().is_some() {
        return refused(
            "rows of it are deleted by a deletion vector",
            "let the program that did so rewrite the table (`REORG TABLE … APPLY (PURGE)`)",
        );
    }
    let (schema, values) = (schema.clone(), file.partition_values_map());
    let name = path.clone();
    let rows = open(place, &path).await?;
    Ok(rows.map(move |batch| fit(&batch?, &schema, &values, &name)).boxed())
}

/// The rows of a Parquet file, as they are in it.
///
/// # Errors
/// A file that cannot be read.
pub(super) async fn open(place: &Place, path: &str) -> Result<Batches> {
    match place {
        Place::Local(local) => {
            let whole = local.path(path);
            let file = tokio::fs::File::open(&whole).await.map_err(super::super::place::at(&whole))?;
            stream(file, path).await
        }
        Place::Remote(remote) => {
            let whole = remote.path(path)?;
            let meta = remote.store.head(&whole).await;
            let meta = meta.map_err(|error| crate::stores::error(error, format!("`{whole}`")))?;
            stream(Stored { store: remote.store.clone(), path: whole, length: meta.size }, path).await
        }
    }
}

async fn stream(reader: impl AsyncFileReader + Unpin + 'static, path: &str) -> Result<Batches> {
    let path = path.to_owned();
    let bad = move |error: ParquetError| {
        Error::new(ErrorKind::Data, format!("`{path}` of the Delta table cannot be read")).cause(error)
    };
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(&bad)?;
    let rows = builder.with_batch_size(ROWS).build().map_err(&bad)?;
    Ok(rows.map_err(bad).boxed())
}

/// An object, as the decoder wants it.
struct Stored {
    store: Arc<dyn ObjectStore>,
    path: StorePath,
    length: u64,
}

fn outside(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for Stored {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { self.store.get_range(&self.path, range).await.map_err(outside) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(outside) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let length = self.length;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, length).await?))
        }
        .boxed()
    }
}

/// Rows of a file as rows of the table.
fn fit(
    batch: &RecordBatch,
    schema: &SchemaRef,
    values: &HashMap<String, Option<String>>,
    path: &str,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let column = |name: &String| -> Option<ArrayRef> {
        if let Some(value) = values.get(name) {
            // Delta takes the empty text for NULL.
            let value = value.as_deref().filter(|value| !value.is_empty());
            return Some(Arc::new(StringArray::from(vec![value; rows])));
        }
        batch.column_by_name(name).cloned()
    };
    let columns = schema.fields().iter().map(|field| match column(field.name()) {
        None => Ok(new_null_array(field.data_type(), rows)),
        Some(array) => cast_with_options(&array, field.data_type(), &options).map_err(|error| {
            let message = format!("`{}` in `{path}` is not what the Delta table says", field.name());
            Error::new(ErrorKind::Data, message).cause(error)
        }),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(|error| Error::internal("rows do not fit").cause(error))
}
