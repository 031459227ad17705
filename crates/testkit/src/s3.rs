//! An S3 server for tests: `s3s` and `s3s-fs` over a folder, signatures checked, on a free port of 127.0.0.1.
//!
//! What `s3s-fs` lacks for honest tests is put in front of it:
//! - a conditional put (`If-None-Match: *`) looks and then writes; here such puts wait for each other, so that of two
//!   rivals one is refused, as on S3;
//! - an upload that is not there (completed, aborted, never begun) answers `NoSuchUpload`, as S3 does, not
//!   `AccessDenied`;
//! - completing, aborting and deleting go on when the client hangs up, instead of stopping half-way;
//! - deleting an object that somebody else has just deleted is no error;
//! - a copy appears whole, instead of growing under its readers.
//!
//! Its side files have an object's whole key in their names, so that uploads of keys beyond some 120 bytes are answered with
//! `InternalError`: the file system takes no longer names.
//!
//! Still unlike S3: parts live beside the buckets as hidden files, a listing reads folders without a snapshot, and there
//! are no versions, lifecycles or access rules.
//!
//! In kill tests and benchmarks the server must be a process of its own: `cargo run -p gristmill-testkit --bin s3-server
//! -- DIR PORT KEY SECRET [BUCKET…]`.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use s3s_fs::FileSystem;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};

/// The access key of a server started by [`S3Server::start`].
pub const ACCESS_KEY: &str = "test-access-key";
/// Its secret.
pub const SECRET_KEY: &str = "test-secret-key";

/// A server of this process, on its own thread; ends with the value.
pub struct S3Server {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for S3Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Server").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl S3Server {
    /// Starts a server with these buckets, over a temporary folder.
    ///
    /// # Errors
    /// No port or folder to be had.
    pub fn start(buckets: &[&str]) -> io::Result<Self> {
        Self::begin(buckets, true)
    }

    /// A server that refuses to copy objects, as some stores do.
    ///
    /// # Errors
    /// No port or folder to be had.
    pub fn without_copies(buckets: &[&str]) -> io::Result<Self> {
        Self::begin(buckets, false)
    }

    fn begin(buckets: &[&str], copies: bool) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        for bucket in buckets {
            std::fs::create_dir(folder.path().join(bucket))?;
        }
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let root = folder.path().to_owned();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    _ = serve_as(listener, &root, ACCESS_KEY, SECRET_KEY, copies) => {}
                    _ = stopped => {}
                }
            });
            // Connections that are kept alive must not hold the end of the test.
            runtime.shutdown_background();
        });
        Ok(Self { endpoint, folder, stop: Some(stop), thread: Some(thread) })
    }

    /// The folder of a bucket: its objects are files in it.
    #[must_use]
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The ids of uploads that are neither completed nor aborted.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn open_uploads(&self) -> io::Result<Vec<String>> {
        let mut open = Vec::new();
        for entry in std::fs::read_dir(self.folder.path())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_prefix(".upload-").and_then(|name| name.strip_suffix(".json")) {
                open.push(id.to_owned());
            }
        }
        open.sort();
        Ok(open)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The server may have ended already.
            let _ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Serves `folder` (its subfolders are the buckets) until the process ends.
///
/// # Errors
/// A folder that is not there, a listener that fails.
pub async fn serve(listener: TcpListener, folder: &Path, key: &str, secret: &str) -> io::Result<()> {
    serve_as(listener, folder, key, secret, true).await
}

async fn serve_as(listener: TcpListener, folder: &Path, key: &str, secret: &str, copies: bool) -> io::Result<()> {
    let files = FileSystem::new(folder).map_err(|error| io::Error::other(format!("{error:?}")))?;
    let mut builder = S3ServiceBuilder::new(Honest { files: Arc::new(files), exclusive: Arc::default(), copies });
    builder.set_auth(SimpleAuth::from_single(key, secret));
    let service = builder.build();
    let server = Builder::new(TokioExecutor::new());
    loop {
        let (socket, _) = listener.accept().await?;
        // Otherwise an answer in two pieces waits for the client's acknowledgement, which takes its time.
        drop(socket.set_nodelay(true));
        let connection = server.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
        // A client that hangs up is no trouble of the server's.
        tokio::spawn(async move { drop(connection.await) });
    }
}

/// `s3s-fs`, corrected where tests would be fooled.
struct Honest {
    files: Arc<FileSystem>,
    exclusive: Arc<Mutex<()>>,
    /// Whether it copies objects.
    copies: bool,
}

impl Honest {
    /// Does `work` to its end, alone among those that are done this way, whether or not the client still listens.
    async fn to_the_end<T, F>(&self, work: impl FnOnce(Arc<FileSystem>) -> F) -> S3Result<T>
    where
        T: Send + 'static,
        F: Future<Output = S3Result<T>> + Send + 'static,
    {
        let (exclusive, work) = (self.exclusive.clone(), work(self.files.clone()));
        let done = tokio::spawn(async move {
            let _exclusive = exclusive.lock().await;
            work.await
        });
        done.await.unwrap_or_else(|_| Err(S3Error::new(S3ErrorCode::InternalError)))
    }
}

/// `s3s-fs` refuses an upload it does not know as if somebody else's.
fn unknown_upload(error: S3Error) -> S3Error {
    if *error.code() == S3ErrorCode::AccessDenied {
        S3Error::with_message(S3ErrorCode::NoSuchUpload, "The specified upload does not exist")
    } else {
        error
    }
}

#[async_trait::async_trait]
impl S3 for Honest {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let conditional = request.input.if_none_match.is_some() || request.input.if_match.is_some();
        let _exclusive = if conditional { Some(self.exclusive.lock().await) } else { None };
        self.files.put_object(request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.to_the_end(|files| async move { files.complete_multipart_upload(request).await.map_err(unknown_upload) })
            .await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.to_the_end(|files| async move { files.abort_multipart_upload(request).await.map_err(unknown_upload) })
            .await
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.files.upload_part(request).await.map_err(unknown_upload)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.to_the_end(|files| async move { files.delete_object(request).await }).await
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.files.create_bucket(request).await
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.files.create_multipart_upload(request).await
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        if !self.copies {
            return Err(S3Error::with_message(S3ErrorCode::MethodNotAllowed, "objects are not copied here"));
        }
        let CopySource::Bucket { bucket, key, .. } = request.input.copy_source.clone() else {
            return Err(S3Error::new(S3ErrorCode::NotImplemented));
        };
        self.to_the_end(|files| async move {
            let (to_bucket, to_key) = (request.input.bucket.clone(), request.input.key.clone());
            let request = request.map_input(drop);
            let wrong = |error| S3Error::with_message(S3ErrorCode::InvalidRequest, format!("{error}"));
            let get = GetObjectInput::builder().bucket(bucket.into()).key(key.into()).build().map_err(wrong)?;
            let found = files.get_object(request.clone().map_input(|()| get)).await?.output;
            let put = PutObjectInput::builder().bucket(to_bucket).key(to_key).body(found.body);
            let put = put.content_length(found.content_length).build().map_err(wrong)?;
            let done = files.put_object(request.map_input(|()| put)).await?.output;
            let copied = CopyObjectResult { e_tag: done.e_tag, ..CopyObjectResult::default() };
            Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(copied), ..CopyObjectOutput::default() }))
        })
        .await
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.files.delete_bucket(request).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.files.delete_objects(request).await
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.files.get_bucket_location(request).await
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.files.get_object(request).await
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.files.head_object(request).await
    }

    async fn list_buckets(&self, request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        self.files.list_buckets(request).await
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        self.files.list_objects(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.files.list_objects_v2(request).await
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.files.list_parts(request).await
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.files.upload_part_copy(request).await
    }
}
