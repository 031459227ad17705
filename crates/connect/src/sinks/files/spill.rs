//! Rows of very many partitions, clustered on disk: dealt out by partition to a few dozen files that are written and read in
//! sequence, so that each bucket has few enough partitions to be written at once.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use gristmill_model::{Error, Result};
use std::collections::hash_map::{Entry, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};
use std::path::PathBuf;

/// Buckets: a hundred thousand partitions become a few thousand in each.
const BUCKETS: u32 = 32;

/// Rows being clustered.
pub(super) struct Spill {
    folder: PathBuf,
    schema: SchemaRef,
    buckets: HashMap<u32, Writing>,
}

struct Writing {
    writer: StreamWriter<BufWriter<File>>,
    /// The partitions of each batch, in the order of its rows.
    partitions: Vec<Vec<Run>>,
}

/// Rows of one partition that lie together: the partition, and how many.
pub(super) type Run = (u32, usize);

fn spill_error(error: arrow::error::ArrowError) -> Error {
    match error {
        arrow::error::ArrowError::IoError(_, error) => Error::io(&error, "a spill file"),
        other => Error::internal("rows cannot be clustered on disk").cause(other),
    }
}

impl Spill {
    /// Files go to `folder`, without a name: they vanish with the process.
    pub(super) fn new(folder: PathBuf, schema: SchemaRef) -> Self {
        Self { folder, schema, buckets: HashMap::new() }
    }

    fn create(&self, bucket: u32) -> Result<Writing> {
        let at = |error: &std::io::Error| Error::io(error, format!("`{}`", self.folder.display()));
        std::fs::create_dir_all(&self.folder).map_err(|error| at(&error))?;
        let path = self.folder.join(format!("spill-{}-{bucket}.arrow", uuid::Uuid::new_v4().simple()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(|error| at(&error))?;
        std::fs::remove_file(&path).map_err(|error| at(&error))?;
        let options =
            IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap_or_default();
        let writer = StreamWriter::try_new_with_options(BufWriter::new(file), &self.schema, options);
        Ok(Writing { writer: writer.map_err(spill_error)?, partitions: Vec::new() })
    }

    /// Where the rows of a partition go. Partitions are numbered as they come, so that all buckets get as many.
    pub(super) fn bucket_of(partition: u32) -> u32 {
        partition % BUCKETS
    }

    /// Sets rows of a bucket aside.
    ///
    /// # Errors
    /// A disk that refuses.
    pub(super) fn write(&mut self, bucket: u32, partitions: Vec<Run>, rows: &RecordBatch) -> Result<()> {
        if !self.buckets.contains_key(&bucket) {
            let created = self.create(bucket)?;
            self.buckets.insert(bucket, created);
        }
        if let Entry::Occupied(mut entry) = self.buckets.entry(bucket) {
            let writing = entry.get_mut();
            writing.writer.write(rows).map_err(spill_error)?;
            writing.partitions.push(partitions);
        }
        Ok(())
    }

    /// The buckets, to be read one after another.
    ///
    /// # Errors
    /// A disk that refuses.
    pub(super) fn finish(self) -> Result<Vec<Bucket>> {
        let finished = self.buckets.into_values().map(|mut writing| {
            writing.writer.finish().map_err(spill_error)?;
            let buffered = writing.writer.into_inner().map_err(spill_error)?;
            let mut file = buffered.into_inner().map_err(|error| Error::io(error.error(), "a spill file"))?;
            file.rewind().map_err(|error| Error::io(&error, "a spill file"))?;
            let reader = StreamReader::try_new(BufReader::new(file), None).map_err(spill_error)?;
            Ok(Bucket { reader, partitions: writing.partitions.into_iter() })
        });
        finished.collect()
    }
}

/// Rows of a few partitions.
pub(super) struct Bucket {
    reader: StreamReader<BufReader<File>>,
    partitions: std::vec::IntoIter<Vec<Run>>,
}

impl Bucket {
    /// The next rows and their partitions.
    ///
    /// # Errors
    /// A disk that refuses.
    pub(super) fn next(&mut self) -> Result<Option<(RecordBatch, Vec<Run>)>> {
        match (self.reader.next(), self.partitions.next()) {
            (None, None) => Ok(None),
            (Some(rows), Some(partitions)) => Ok(Some((rows.map_err(spill_error)?, partitions))),
            _ => Err(Error::internal("a spill file has lost rows")),
        }
    }
}
