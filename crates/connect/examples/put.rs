//! Files to an S3-like store, as they are: multipart uploads in parts of 8 MiB, two in flight for each of two files at a time,
//! as our own writers do it. `put ENDPOINT BUCKET KEY SECRET FOLDER`; `bench/run load_s3` compares a load with it.

use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use std::path::PathBuf;
use tokio::io::AsyncReadExt;

const PART: usize = 8 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, bucket, key, secret, folder] = words.as_slice() else {
        return Err("put ENDPOINT BUCKET KEY SECRET FOLDER".into());
    };
    let store = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(bucket)
        .with_access_key_id(key)
        .with_secret_access_key(secret)
        .build()?;
    let files =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let files = files.into_iter().filter(|path| path.is_file());
    futures::stream::iter(files.map(|file| put(&store, file))).buffer_unordered(2).try_collect::<Vec<()>>().await?;
    Ok(())
}

async fn put(store: &dyn ObjectStore, file: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut upload =
        WriteMultipart::new_with_chunk_size(store.put_multipart(&Path::from(format!("raw/{name}"))).await?, PART);
    let mut file = tokio::fs::File::open(&file).await?;
    let mut part = vec![0; PART];
    loop {
        let read = file.read(&mut part).await?;
        if read == 0 {
            break;
        }
        upload.wait_for_capacity(2).await?;
        upload.write(&part[..read]);
    }
    upload.finish().await?;
    Ok(())
}
