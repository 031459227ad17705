//! Local disk, with reads into memory of the reader's own thread.
//!
//! The library's store allocates what it reads on a thread of the blocking pool, and whoever decodes it frees it on another one.
//! The allocator leaves such blocks to their owner, which sleeps: of a gigabyte read in pieces of 16 MB, a gigabyte stayed resident.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// All of the local disk.
#[derive(Debug, Default)]
pub(super) struct Folder(LocalFileSystem);

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads `ranges` into `buffers`, which are as long.
fn fill(path: &std::path::Path, ranges: &[Range<u64>], mut buffers: Vec<Vec<u8>>) -> io::Result<Vec<Bytes>> {
    let file = File::open(path)?;
    for (range, buffer) in ranges.iter().zip(&mut buffers) {
        file.read_exact_at(buffer, range.start)?;
    }
    Ok(buffers.into_iter().map(Bytes::from).collect())
}

#[async_trait]
impl ObjectStore for Folder {
    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let lengths = ranges.iter().map(|range| usize::try_from(range.end.checked_sub(range.start)?).ok());
        let Some(lengths) = lengths.collect::<Option<Vec<usize>>>() else {
            return self.0.get_ranges(location, ranges).await;
        };
        let (path, wanted) = (self.0.path_to_filesystem(location)?, ranges.to_vec());
        let buffers = lengths.into_iter().map(|length| vec![0; length]).collect();
        match tokio::task::spawn_blocking(move || fill(&path, &wanted, buffers)).await {
            Ok(Ok(read)) => Ok(read),
            // What is wrong with it, in the library's words.
            _ => self.0.get_ranges(location, ranges).await,
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ranges_are_read_as_the_library_reads_them_and_errors_are_its_own() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), b"0123456789").unwrap();
        let at = |name: &str| Path::from_absolute_path(folder.path().join(name)).unwrap();
        let (ours, theirs) = (Folder::default(), LocalFileSystem::new());
        let cases: [&[(u64, u64)]; 5] = [&[], &[(0, 10)], &[(2, 2), (9, 10), (0, 3)], &[(8, 12)], &[(20, 21)]];
        for case in cases {
            let ranges: Vec<Range<u64>> = case.iter().map(|(start, end)| *start..*end).collect();
            let read = ours.get_ranges(&at("a"), &ranges).await.map_err(|error| error.to_string());
            assert_eq!(
                read,
                theirs.get_ranges(&at("a"), &ranges).await.map_err(|error| error.to_string()),
                "{ranges:?}"
            );
        }
        let absent = ours.get_ranges(&at("b"), std::slice::from_ref(&(0..1))).await.unwrap_err();
        assert!(matches!(absent, object_store::Error::NotFound { .. }), "{absent}");
    }
}
