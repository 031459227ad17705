//! The keys of a `files` connection.

use crate::stores::StoreOptions;
use schemars::JsonSchema;
use serde::Deserialize;

/// A connection to files: a folder, or a place in an object store.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FilesConfig {
    /// Where the files are: a folder (relative to the project), `file://…`, `s3://bucket/…`, `gs://bucket/…`,
    /// `az://container/…`, `abfss://container@account.dfs.core.windows.net/…`, or `https://…` (single files only).
    pub(super) url: String,
    /// The server, e.g. `http://localhost:9000`, where it is not the provider's own.
    #[serde(default)]
    endpoint: Option<String>,
    /// S3: the region; `us-east-1` where neither this nor `AWS_REGION` says otherwise.
    #[serde(default)]
    region: Option<String>,
    /// S3: the access key id.
    #[serde(default)]
    access_key_id: Option<String>,
    /// S3: the secret access key.
    #[serde(default)]
    secret_access_key: Option<String>,
    /// S3: the session token of temporary credentials.
    #[serde(default)]
    session_token: Option<String>,
    /// S3: whether the bucket stands in the path of the URL; true by default when `endpoint` is set.
    #[serde(default)]
    path_style: Option<bool>,
    /// Whether a plain `http://` endpoint may be used; true by default when `endpoint` begins with `http://`.
    #[serde(default)]
    allow_http: Option<bool>,
    /// Ask without a signature: for public buckets.
    #[serde(default)]
    anonymous: Option<bool>,
    /// S3: make the bucket when a load finds none; false by default.
    #[serde(default)]
    create_bucket: Option<bool>,
    /// Google: the file with the service account's key.
    #[serde(default)]
    service_account: Option<String>,
    /// Google: the service account's key itself (JSON).
    #[serde(default)]
    service_account_key: Option<String>,
    /// Azure: the storage account.
    #[serde(default)]
    account_name: Option<String>,
    /// Azure: the account's access key.
    #[serde(default)]
    access_key: Option<String>,
    /// Azure: a shared access signature.
    #[serde(default)]
    sas_token: Option<String>,
    /// Azure: the tenant of the client that asks.
    #[serde(default)]
    tenant_id: Option<String>,
    /// Azure: the client (application) that asks.
    #[serde(default)]
    client_id: Option<String>,
    /// Azure: the client's secret.
    #[serde(default)]
    client_secret: Option<String>,
}

impl FilesConfig {
    /// The keys of the store.
    pub(super) fn store_options(&self) -> StoreOptions {
        let Self {
            url: _,
            endpoint,
            region,
            access_key_id,
            secret_access_key,
            session_token,
            path_style,
            allow_http,
            anonymous,
            create_bucket,
            service_account,
            service_account_key,
            account_name,
            access_key,
            sas_token,
            tenant_id,
            client_id,
            client_secret,
        } = self.clone();
        StoreOptions {
            endpoint,
            region,
            access_key_id,
            secret_access_key,
            session_token,
            path_style,
            allow_http,
            anonymous,
            create_bucket,
            service_account,
            service_account_key,
            account_name,
            access_key,
            sas_token,
            tenant_id,
            client_id,
            client_secret,
        }
    }
}
