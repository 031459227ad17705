//! The keys of a store, beside its URL.

use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;

/// How a store is reached and who asks. What is not said is looked up in the environment, under the names that the
/// store's own tools use (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreOptions {
    /// The server, e.g. `http://localhost:9000`, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// S3: the region; `us-east-1` where neither this nor `AWS_REGION` says otherwise.
    pub region: Option<String>,
    /// S3: the access key id.
    pub access_key_id: Option<String>,
    /// S3: the secret access key.
    pub secret_access_key: Option<String>,
    /// S3: the session token of temporary credentials.
    pub session_token: Option<String>,
    /// S3: whether the bucket stands in the path of the URL (`https://server/bucket/…`) and not in front of the host.
    /// True by default when `endpoint` is set.
    pub path_style: Option<bool>,
    /// Whether a plain `http://` endpoint may be used; true by default when `endpoint` begins with `http://`.
    pub allow_http: Option<bool>,
    /// Ask without a signature: for public buckets.
    pub anonymous: Option<bool>,
    /// S3: make the bucket when a load finds none.
    pub create_bucket: Option<bool>,
    /// Google: the file with the service account's key.
    pub service_account: Option<String>,
    /// Google: the service account's key itself (JSON).
    pub service_account_key: Option<String>,
    /// Azure: the storage account.
    pub account_name: Option<String>,
    /// Azure: the account's access key.
    pub access_key: Option<String>,
    /// Azure: a shared access signature.
    pub sas_token: Option<String>,
    /// Azure: the tenant of the client that asks.
    pub tenant_id: Option<String>,
    /// Azure: the client (application) that asks.
    pub client_id: Option<String>,
    /// Azure: the client's secret.
    pub client_secret: Option<String>,
}

impl fmt::Debug for StoreOptions {
    /// Only what is no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("endpoint", &self.endpoint.as_deref().map(super::redact))
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .field("allow_http", &self.allow_http)
            .field("anonymous", &self.anonymous)
            .field("create_bucket", &self.create_bucket)
            .field("account_name", &self.account_name)
            .finish_non_exhaustive()
    }
}
