//! Making the bucket of a connection that says `create_bucket: true`.
//!
//! The library of the stores cannot; but it signs URLs, and a signed PUT of the bucket's own is all that is needed.

use super::{StoreOptions, error::redact};
use gristmill_model::{Error, ErrorKind, Result};
use object_store::path::Path;
use object_store::signer::Signer;
use reqwest::StatusCode;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long the signature holds, and the answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bucket that may be made.
#[derive(Clone)]
pub(crate) struct NewBucket {
    signer: Arc<dyn Signer>,
    name: String,
    region: String,
}

impl fmt::Debug for NewBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewBucket").field("name", &self.name).field("region", &self.region).finish_non_exhaustive()
    }
}

impl NewBucket {
    /// The bucket `name` of what `signer` speaks to, if the connection wants it made.
    pub(super) fn of(
        options: &StoreOptions,
        signer: Arc<dyn Signer>,
        name: &str,
        region: Option<String>,
    ) -> Option<Self> {
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        (options.create_bucket == Some(true)).then(|| Self { signer, name: name.to_owned(), region })
    }

    /// Makes the bucket where the server says that there is none.
    ///
    /// # Errors
    /// A server that cannot be reached, or that refuses.
    pub(crate) async fn create_unless_there(&self) -> Result<()> {
        // Whoever may not ask has a bucket that somebody else made.
        if self.ask(reqwest::Method::HEAD, String::new()).await? == StatusCode::NOT_FOUND {
            self.create().await
        } else {
            Ok(())
        }
    }

    async fn create(&self) -> Result<()> {
        // In the oldest region, and only there, a bucket is made without a word about where.
        let body = match self.region.as_str() {
            "us-east-1" => String::new(),
            region => format!(
                "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 <LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
            ),
        };
        let status = self.ask(reqwest::Method::PUT, body).await?;
        match status.as_u16() {
            // Somebody else has just made it: whether it can be used the next request tells.
            200..=299 | 409 => Ok(()),
            401 | 403 => Err(Error::new(
                ErrorKind::Denied,
                format!("the bucket `{}` may not be made with these credentials", self.name),
            )
            .hint("create the bucket yourself, or give the right `s3:CreateBucket`")),
            _ => Err(self.failed(format!("the server answered {status}"))),
        }
    }

    async fn ask(&self, method: reqwest::Method, body: String) -> Result<StatusCode> {
        let url = self.signer.signed_url(method.clone(), &Path::default(), PATIENCE).await;
        let url = url.map_err(|error| self.failed(error.to_string()))?;
        let client = reqwest::Client::builder().timeout(PATIENCE).build();
        let client = client.map_err(|error| self.failed(error.without_url().to_string()))?;
        let answer = client.request(method, url).body(body).send().await;
        Ok(answer.map_err(|error| self.failed(error.without_url().to_string()))?.status())
    }

    fn failed(&self, cause: String) -> Error {
        // A signed URL stands in the library's words.
        Error::new(ErrorKind::Storage, format!("the bucket `{}` cannot be made", self.name)).cause(redact(&cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenContext;
    use crate::stores::Store;
    use gristmill_testkit::s3::{ACCESS_KEY, S3Server, SECRET_KEY};

    #[tokio::test]
    async fn a_bucket_is_made_once_and_only_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let context = OpenContext { project: folder.path().to_owned(), state: folder.path().to_owned() };
        let server = S3Server::start(&["other"]).unwrap();
        for region in [None, Some("eu-central-1".to_owned())] {
            let url = format!("s3://new-{}/below/", region.as_deref().unwrap_or("first"));
            let options = StoreOptions {
                endpoint: Some(server.endpoint.clone()),
                access_key_id: Some(ACCESS_KEY.to_owned()),
                secret_access_key: Some(SECRET_KEY.to_owned()),
                create_bucket: Some(true),
                region,
                ..StoreOptions::default()
            };
            let bucket = Store::open(&url, &options, &context).unwrap().bucket.unwrap();
            assert_eq!(bucket.ask(reqwest::Method::HEAD, String::new()).await.unwrap(), StatusCode::NOT_FOUND);
            for _ in 0..2 {
                bucket.create_unless_there().await.unwrap();
                assert!(bucket.ask(reqwest::Method::HEAD, String::new()).await.unwrap().is_success());
            }
        }
        let options = StoreOptions { create_bucket: Some(true), ..StoreOptions::default() };
        let error = Store::open("./data", &options, &context).unwrap_err();
        assert!(error.message().contains("`create_bucket` is for `s3://`"), "{error:?}");
    }
}
