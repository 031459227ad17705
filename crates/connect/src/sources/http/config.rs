//! The keys of an `http` connection.

use super::auth::Auth;
use super::secrets::Secrets;
use crate::wrap::requests::Limit;
use gristmill_model::Duration;
use gristmill_model::yaml::{Diagnostic, Node, decode};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use url::Url;

/// How often a request is tried, the first time included, where nothing else is said.
const ATTEMPTS: u32 = 5;

/// How long a server may be silent, where nothing else is said.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// How long a request may take in all, where nothing else is said: time for the largest answer over a slow line.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(600);

/// The longest wait a server may ask for, where nothing else is said.
const MAX_WAIT: std::time::Duration = std::time::Duration::from_secs(300);

/// A connection to an HTTP API.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpKeys {
    /// Where the API is: `https://api.example.com/v1`. The paths of extracts are below it.
    url: String,
    /// Headers of every request; never sent to another host.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Parameters behind the `?` of every request; never sent to another host, never shown.
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// Who asks: `{bearer: TOKEN}`, `{basic: {user, password}}`, `{api_key: {header or param, value}}` or `{oauth2:
    /// {token_url, client_id, client_secret, scope, params, send: body or basic}}` (client credentials). Never sent to
    /// another host; write `${API_TOKEN}` rather than the word itself.
    #[serde(default)]
    auth: Option<AuthKeys>,
    /// At most so many requests a second, over all extracts; no limit by default.
    #[serde(default)]
    requests_per_second: Option<f64>,
    /// At most so many requests at once, over all extracts; no limit by default, beyond that of the lanes.
    #[serde(default)]
    max_connections: Option<u32>,
    /// How often a request is tried when the connection is lost, the server is silent or answers 408, 425, 429 or 5xx,
    /// or the answer is cut off; 5 by default, the first time included.
    #[serde(default)]
    attempts: Option<u32>,
    /// The longest wait that the server may ask for (`Retry-After`); five minutes by default. Where it asks for more,
    /// the request fails at once.
    #[serde(default)]
    max_wait: Option<Duration>,
    /// How long the server may be silent; thirty seconds by default.
    #[serde(default)]
    timeout: Option<Duration>,
    /// How long a try of a request may take in all, its answer included, though the server is never silent; ten minutes by
    /// default. Then it is tried again.
    #[serde(default)]
    request_timeout: Option<Duration>,
}

/// Who asks.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AuthKeys {
    /// A token, sent as `Authorization: Bearer …`.
    Bearer(String),
    /// User and password, sent as `Authorization: Basic …`.
    Basic(BasicKeys),
    /// A key in a header or behind the `?` of the URL.
    ApiKey(ApiKeyKeys),
    /// OAuth 2.0 client credentials (RFC 6749, 4.4).
    Oauth2(OAuth2Keys),
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BasicKeys {
    /// The user.
    pub(super) user: String,
    /// The password; empty by default.
    #[serde(default)]
    pub(super) password: String,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKeyKeys {
    /// The header that takes the key.
    #[serde(default)]
    pub(super) header: Option<String>,
    /// The parameter that takes the key, where it is no header.
    #[serde(default)]
    pub(super) param: Option<String>,
    /// The key.
    pub(super) value: String,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OAuth2Keys {
    /// Where tokens are given out.
    pub(super) token_url: String,
    /// The client's id.
    pub(super) client_id: String,
    /// The client's secret.
    pub(super) client_secret: String,
    /// What is asked for, words separated by spaces.
    #[serde(default)]
    pub(super) scope: Option<String>,
    /// More fields of the form, such as `audience`.
    #[serde(default)]
    pub(super) params: BTreeMap<String, String>,
    /// How id and secret are sent; `body` by default.
    #[serde(default)]
    pub(super) send: SendClient,
}

/// How the client's id and secret are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SendClient {
    /// In the form, as `client_id` and `client_secret`.
    #[default]
    Body,
    /// As `Authorization: Basic …`.
    Basic,
}

/// A checked configuration.
pub(super) struct Config {
    /// Without a slash at its end.
    pub(super) base: Url,
    pub(super) headers: HeaderMap,
    pub(super) params: Vec<(String, String)>,
    pub(super) auth: Auth,
    pub(super) limit: Limit,
    pub(super) attempts: u32,
    pub(super) max_wait: std::time::Duration,
    pub(super) timeout: std::time::Duration,
    pub(super) request_timeout: std::time::Duration,
    /// What must not be shown.
    pub(super) secrets: Secrets,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// The key it belongs to, what is wrong, what to do.
type Mistake = (&'static str, String, Option<String>);

impl Config {
    /// # Errors
    /// Every mistake with its place.
    pub(super) fn from_node(node: &Node) -> Result<Self, Vec<Diagnostic>> {
        let keys: HttpKeys = decode(node)?;
        Self::from_keys(keys).map_err(|(key, message, hint)| {
            // What is wrong may be a secret: only its place is told.
            vec![node.get(key).unwrap_or(node).diagnostic(message, hint)]
        })
    }

    fn from_keys(keys: HttpKeys) -> Result<Self, Mistake> {
        let base = web_url(&keys.url, "url")?;
        if base.query().is_some() || base.fragment().is_some() {
            let hint = "write what follows the `?` as `params: {name: value}`".to_owned();
            return Err(("url", "the URL of an API ends before the `?`".to_owned(), Some(hint)));
        }
        if keys.requests_per_second.is_some_and(|number| !(number.is_finite() && number > 0.0 && number < 1e6)) {
            let hint = "write how many requests a second there may be, such as `5` or `0.5`".to_owned();
            return Err(("requests_per_second", "`requests_per_second` is no such number".to_owned(), Some(hint)));
        }
        for (key, zero) in
            [("max_connections", keys.max_connections == Some(0)), ("attempts", keys.attempts == Some(0))]
        {
            if zero {
                return Err((key, format!("`{key}` is 0"), Some("write a number from 1, or leave it out".to_owned())));
            }
        }
        for (key, given) in [("timeout", keys.timeout), ("request_timeout", keys.request_timeout)] {
            if given.is_some_and(|given| given.0.is_zero()) {
                return Err((key, format!("`{key}` is no time at all"), Some("write it like `30s`".to_owned())));
            }
        }
        let headers = headers(&keys.headers).map_err(|message| ("headers", message, None))?;
        let mut secrets: Vec<String> = keys.params.values().cloned().collect();
        let hidden = keys.headers.iter().filter(|(name, _)| may_be_secret(name));
        secrets.extend(hidden.flat_map(|(_, value)| secret_parts(value)));
        let auth = Auth::from_keys(keys.auth, &mut secrets).map_err(|(message, hint)| ("auth", message, hint))?;
        Ok(Self {
            base,
            headers,
            params: keys.params.into_iter().collect(),
            auth,
            limit: Limit::new(keys.max_connections, keys.requests_per_second),
            attempts: keys.attempts.unwrap_or(ATTEMPTS),
            max_wait: keys.max_wait.map_or(MAX_WAIT, |wait| wait.0),
            timeout: keys.timeout.map_or(TIMEOUT, |timeout| timeout.0),
            request_timeout: keys.request_timeout.map_or(REQUEST_TIMEOUT, |timeout| timeout.0),
            secrets: Secrets::new(&secrets),
        })
    }

    /// Whether a URL is of the API's own host, so that it may see the credentials.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Adds the connection's own parameters to a URL of the API's own host. What it says already stays: a link that the
    /// server gave is used as it is.
    pub(super) fn complete(&self, url: &mut Url) {
        for (name, value) in &self.params {
            if !url.query_pairs().any(|(key, _)| key == name.as_str()) {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
    }
}

/// A header's value, and its words: a server that quotes `Bearer abc` may quote `abc` alone.
pub(super) fn secret_parts(value: &str) -> Vec<String> {
    let words = value.split(|char: char| char.is_whitespace() || [';', ',', '='].contains(&char));
    // The name of a scheme is no secret, and a short word is in every other text.
    let words = words.filter(|word| word.len() >= 8 && *word != value);
    std::iter::once(value).chain(words).map(str::to_owned).collect()
}

/// Whether a header may hold what nobody is to see.
pub(super) fn may_be_secret(name: &str) -> bool {
    !["accept", "accept-language", "content-type", "user-agent"].contains(&name.to_ascii_lowercase().as_str())
}

/// A URL of the web; it is never shown, since it may hold a secret.
pub(super) fn web_url(text: &str, key: &'static str) -> Result<Url, Mistake> {
    let hint = || Some("write it like `https://api.example.com/v1`".to_owned());
    let url = Url::parse(text).map_err(|error| (key, format!("`{key}` is not a URL: {error}"), hint()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err((key, format!("`{key}` is not an `https://` or `http://` URL"), hint()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let hint = "write `auth: {basic: {user: …, password: …}}`".to_owned();
        return Err((key, format!("`{key}` holds a user or password"), Some(hint)));
    }
    Ok(url)
}

/// Headers as they are sent.
///
/// # Errors
/// A name or a value that no header can have; the value is not shown.
pub(super) fn headers<'a>(given: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let key =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` cannot be the name of a header"))?;
        let mut value =
            HeaderValue::from_str(value).map_err(|_| format!("the header `{name}` has a value that none can have"))?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}
