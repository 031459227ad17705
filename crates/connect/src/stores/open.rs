//! Opening a store from its URL. Nothing outside is touched.

use super::folder::Folder;
use super::{NewBucket, Store, StoreKind, StoreOptions, local, redact};
use crate::OpenContext;
use gristmill_model::{Error, ErrorKind, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// What a URL may begin with, for messages.
const SCHEMES: &str = "valid: a folder, `file://`, `s3://`, `gs://`, `az://`, `abfss://`, `https://`";

impl Store {
    /// Opens the store that `url` leads to: a folder (relative to the project), or a URL that begins with `file://`,
    /// `s3://bucket`, `gs://bucket`, `az://container`, `abfss://container@account.dfs.core.windows.net` or `https://host`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a URL or keys that cannot be.
    pub fn open(url: &str, options: &StoreOptions, context: &OpenContext) -> Result<Self> {
        if options.create_bucket == Some(true) && !["s3://", "s3a://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(config(format!("`create_bucket` is for `s3://`, not for `{}`", redact(url)))
                .hint("remove it; make the bucket or container by the tools of its provider"));
        }
        let Some((scheme, _)) = url.split_once("://") else {
            return folder(&PathBuf::from(url), context);
        };
        let parsed = Url::parse(url).map_err(|error| config(format!("`{}` is not a URL", redact(url))).cause(error))?;
        let scheme = scheme.to_ascii_lowercase();
        // `abfss://container@account…` has a container there, a web address what the server asks for.
        let named = !parsed.username().is_empty() && !matches!(scheme.as_str(), "http" | "https" | "abfs" | "abfss");
        if named || (parsed.password().is_some() && !matches!(scheme.as_str(), "http" | "https")) {
            // Not even redacted is it repeated: where the key ends and the bucket begins is anybody's guess.
            return Err(config(format!("the `{scheme}://` URL has something before an `@`, which may be a secret"))
                .hint(
                    "give credentials as keys of the connection, e.g. `access_key_id: ${KEY}`, or by the environment",
                ));
        }
        match scheme.as_str() {
            "file" => {
                let path = parsed.to_file_path().map_err(|()| {
                    config(format!("`{url}` is not a local path"))
                        .hint("write it with three slashes: `file:///data/lake`, or as a plain path")
                })?;
                folder(&path, context)
            }
            "s3" | "s3a" => s3(&parsed, options),
            "gs" | "gcs" => google(&parsed, options),
            "az" | "abfs" | "abfss" | "azure" => azure(&parsed, options),
            "http" | "https" => http(&parsed, options),
            other => Err(config(format!("`{}` begins with the unknown `{other}://`", redact(url))).hint(SCHEMES)),
        }
    }
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn folder(path: &std::path::Path, context: &OpenContext) -> Result<Store> {
    let what = format!("`{}`", path.display());
    let folder = local::absolute(&context.project, path).map_err(|error| Error::io(&error, &what))?;
    let prefix = Path::from_absolute_path(&folder)
        .map_err(|error| config(format!("{what} cannot be the folder of a connection")).cause(error))?;
    let url = Url::parse("file:///").map_err(|error| Error::internal("`file:///` is a URL").cause(error))?;
    Ok(Store {
        store: Arc::new(Folder::default()),
        multipart: None,
        prefix,
        url,
        local: Some(folder),
        bucket: None,
        kind: StoreKind::Local,
        endpoint: None,
    })
}

/// Short enough that a server which is not there is an error soon, long enough for a restart or a busy moment.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 6,
        retry_timeout: Duration::from_secs(20),
    }
}

/// The request timeout covers the body too. A stream that is cut by it goes on where it stood, so it need not be long
/// enough for a whole file; but an answer to one request must fit in it on a slow line.
fn client(allow_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(Duration::from_secs(120))
}

fn allow_http(options: &StoreOptions) -> Result<bool> {
    let plain = options.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if plain && options.allow_http == Some(false) {
        return Err(config("the endpoint begins with `http://`, which `allow_http: false` forbids".to_owned())
            .hint("use an `https://` endpoint, or say `allow_http: true`"));
    }
    Ok(options.allow_http.unwrap_or(plain))
}

/// The endpoint, looked at: a typing mistake here would only show as an unreachable server.
fn endpoint(options: &StoreOptions) -> Result<Option<Url>> {
    let Some(text) = &options.endpoint else { return Ok(None) };
    let parsed = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    parsed.map(Some).ok_or_else(|| {
        config(format!("the endpoint `{}` is not an address", redact(text)))
            .hint("write it like `http://localhost:9000`")
    })
}

fn bucket<'a>(url: &'a Url, what: &str) -> Result<&'a str> {
    url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| {
        config(format!("`{url}` names no {what}")).hint(format!("write it like `{}://{what}/folder`", url.scheme()))
    })
}

/// The folder in the URL, and the URL of the store's root.
fn split(url: &Url) -> Result<(Path, Url)> {
    let prefix = Path::from_url_path(url.path()).map_err(|error| {
        config(format!("`{}` has a path that no object can have", redact(url.as_str()))).cause(error)
    })?;
    let mut root = url.clone();
    root.set_query(None);
    root.set_fragment(None);
    root.set_path("");
    Ok((prefix, root))
}

fn refused(url: &Url) -> impl Fn(object_store::Error) -> Error {
    let url = redact(url.as_str());
    move |error| config(format!("the connection to `{url}` cannot be set up")).cause(redact(&error.to_string()))
}

fn s3(url: &Url, options: &StoreOptions) -> Result<Store> {
    let bucket = bucket(url, "bucket")?;
    let (prefix, root) = split(url)?;
    let server = endpoint(options)?;
    if options.access_key_id.is_some() != options.secret_access_key.is_some() {
        return Err(config(
            "`access_key_id` and `secret_access_key` belong together; one of them is missing".to_owned(),
        ));
    }
    let environment = AmazonS3Builder::from_env();
    // Credentials are taken whole from one place: a session token of the environment spoils the keys of the connection.
    let mut builder = if options.access_key_id.is_some() {
        let mut builder = AmazonS3Builder::new();
        for key in [
            AmazonS3ConfigKey::Region,
            AmazonS3ConfigKey::DefaultRegion,
            AmazonS3ConfigKey::Endpoint,
            AmazonS3ConfigKey::S3Endpoint,
        ] {
            if let Some(value) = environment.get_config_value(&key) {
                builder = builder.with_config(key, value);
            }
        }
        builder
    } else {
        environment
    };
    builder = builder.with_bucket_name(bucket).with_retry(retries());
    for (key, value) in [
        (AmazonS3ConfigKey::AccessKeyId, &options.access_key_id),
        (AmazonS3ConfigKey::SecretAccessKey, &options.secret_access_key),
        (AmazonS3ConfigKey::Token, &options.session_token),
        (AmazonS3ConfigKey::Region, &options.region),
    ] {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none() {
        let region = builder.get_config_value(&AmazonS3ConfigKey::DefaultRegion);
        builder = builder.with_region(region.unwrap_or_else(|| "us-east-1".to_owned()));
    }
    let path_style = options.path_style.unwrap_or(server.is_some());
    if let Some(server) = &server {
        let mut address = server.clone();
        if !path_style {
            // The library wants the bucket in the endpoint then.
            let host = format!("{bucket}.{}", server.host_str().unwrap_or_default());
            address.set_host(Some(&host)).map_err(|error| config(format!("`{host}` is not a host")).cause(error))?;
        }
        let address = address.as_str().trim_end_matches('/').to_owned();
        // Both names, because the environment's S3 endpoint would win over the plain one.
        builder = builder
            .with_config(AmazonS3ConfigKey::S3Endpoint, address.clone())
            .with_config(AmazonS3ConfigKey::Endpoint, address);
    }
    if server.is_some() || options.path_style.is_some() {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    if options.anonymous == Some(true) {
        builder = builder.with_skip_signature(true);
    }
    let from_environment = builder
        .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let plain = from_environment.as_deref().is_some_and(|address| address.starts_with("http://"));
    let allow = allow_http(options)? || (plain && options.allow_http.is_none());
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let store = Arc::new(builder.with_client_options(client(allow)).build().map_err(refused(url))?);
    let made = NewBucket::of(options, store.clone(), bucket, region);
    Ok(Store {
        store: store.clone(),
        multipart: Some(store),
        prefix,
        url: root,
        local: None,
        bucket: made,
        kind: StoreKind::S3,
        endpoint: from_environment.map(|address| redact(&address)),
    })
}

fn google(url: &Url, options: &StoreOptions) -> Result<Store> {
    let bucket = bucket(url, "bucket")?;
    let (prefix, root) = split(url)?;
    let server = endpoint(options)?;
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retries());
    if let Some(path) = &options.service_account {
        builder = builder.with_service_account_path(path);
    }
    if let Some(key) = &options.service_account_key {
        builder = builder.with_service_account_key(key);
    }
    if let Some(server) = &server {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, server.as_str().trim_end_matches('/'));
    }
    if options.anonymous == Some(true) {
        builder = builder.with_skip_signature(true);
    }
    let store = builder.with_client_options(client(allow_http(options)?)).build().map_err(refused(url))?;
    let store = Arc::new(store);
    Ok(Store {
        store: store.clone(),
        multipart: Some(store),
        prefix,
        url: root,
        local: None,
        bucket: None,
        kind: StoreKind::Google,
        endpoint: server.map(|server| redact(server.as_str())),
    })
}

fn azure(url: &Url, options: &StoreOptions) -> Result<Store> {
    bucket(url, "container")?;
    let (prefix, root) = split(url)?;
    let server = endpoint(options)?;
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retries());
    for (key, value) in [
        (AzureConfigKey::AccountName, &options.account_name),
        (AzureConfigKey::AccessKey, &options.access_key),
        (AzureConfigKey::SasKey, &options.sas_token),
        (AzureConfigKey::AuthorityId, &options.tenant_id),
        (AzureConfigKey::ClientId, &options.client_id),
        (AzureConfigKey::ClientSecret, &options.client_secret),
    ] {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(server) = &server {
        builder = builder.with_endpoint(server.as_str().trim_end_matches('/').to_owned());
    }
    if options.anonymous == Some(true) {
        builder = builder.with_skip_signature(true);
    }
    let store = builder.with_client_options(client(allow_http(options)?)).build().map_err(|error| {
        let error = refused(url)(error);
        error.hint("an `az://container` needs `account_name` (or AZURE_STORAGE_ACCOUNT_NAME) beside the credentials")
    })?;
    let store = Arc::new(store);
    Ok(Store {
        store: store.clone(),
        multipart: Some(store),
        prefix,
        url: root,
        local: None,
        bucket: None,
        kind: StoreKind::Azure,
        endpoint: server.map(|server| redact(server.as_str())),
    })
}

fn http(url: &Url, options: &StoreOptions) -> Result<Store> {
    // User, password and query are sent with every request but kept out of everything that is shown.
    let (prefix, mut root) = split(url)?;
    let wrong = |()| config(format!("`{}` is not a web address", redact(url.as_str())));
    let mut base = url.clone();
    base.set_path("");
    base.set_fragment(None);
    root.set_username("").map_err(wrong)?;
    root.set_password(None).map_err(wrong)?;
    let allow = options.allow_http.unwrap_or(url.scheme() == "http");
    if url.scheme() == "http" && !allow {
        return Err(config(format!("`{root}` begins with `http://`, which `allow_http: false` forbids")));
    }
    let store = HttpBuilder::new()
        .with_url(base.as_str())
        .with_retry(retries())
        .with_client_options(client(allow))
        .build()
        .map_err(refused(url))?;
    Ok(Store {
        store: Arc::new(store),
        multipart: None,
        prefix,
        url: root,
        local: None,
        bucket: None,
        kind: StoreKind::Http,
        endpoint: None,
    })
}
