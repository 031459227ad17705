//! Who asks: what is added to a request to the API's own host.

use super::config::{AuthKeys, OAuth2Keys, SendClient, web_url};
use super::faults;
use super::secrets::Secrets;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gristmill_model::{Error, ErrorKind, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use url::Url;

/// A token is renewed so long before it runs out, or after nine tenths of its life where that is shorter.
const BEFORE_END: Duration = Duration::from_secs(30);

/// Who asks.
pub(super) enum Auth {
    /// Nobody in particular.
    None,
    /// Always the same header.
    Header(HeaderName, HeaderValue),
    /// Always the same parameter.
    Param(String, String),
    /// A token that is fetched.
    OAuth2(Box<OAuth2>),
}

/// OAuth 2.0 client credentials.
pub(super) struct OAuth2 {
    token_url: Url,
    form: Vec<(String, String)>,
    header: Option<HeaderValue>,
    token: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    value: String,
    /// When it is to be renewed.
    until: Option<Instant>,
}

/// What a token endpoint answers (RFC 6749, 5.1).
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

/// The largest answer of a token endpoint.
const MOST_BYTES: usize = 1 << 20;

/// What is wrong with the keys, and what to do.
type Mistake = (String, Option<String>);

impl Auth {
    /// Adds what must not be shown to `secrets`.
    pub(super) fn from_keys(keys: Option<AuthKeys>, secrets: &mut Vec<String>) -> Result<Self, Mistake> {
        let sensitive = |text: &str| {
            let mut value = HeaderValue::from_str(text)
                .map_err(|_| ("`auth` holds characters that no header can have".to_owned(), None))?;
            value.set_sensitive(true);
            Ok::<_, Mistake>(value)
        };
        Ok(match keys {
            None => Self::None,
            Some(AuthKeys::Bearer(token)) => {
                secrets.push(token.clone());
                Self::Header(AUTHORIZATION, sensitive(&format!("Bearer {token}"))?)
            }
            Some(AuthKeys::Basic(keys)) => {
                let encoded = STANDARD.encode(format!("{}:{}", keys.user, keys.password));
                secrets.extend([keys.password, encoded.clone()]);
                Self::Header(AUTHORIZATION, sensitive(&format!("Basic {encoded}"))?)
            }
            Some(AuthKeys::ApiKey(keys)) => {
                secrets.push(keys.value.clone());
                match (keys.header, keys.param) {
                    (Some(header), None) => {
                        let name = HeaderName::from_bytes(header.as_bytes())
                            .map_err(|_| (format!("`{header}` cannot be the name of a header"), None))?;
                        Self::Header(name, sensitive(&keys.value)?)
                    }
                    (None, Some(param)) => Self::Param(param, keys.value),
                    _ => {
                        let hint = "say where the key is sent: `api_key: {header: X-API-Key, value: …}`".to_owned();
                        return Err(("`api_key` needs either `header` or `param`".to_owned(), Some(hint)));
                    }
                }
            }
            Some(AuthKeys::Oauth2(keys)) => Self::OAuth2(Box::new(OAuth2::from_keys(keys, secrets)?)),
        })
    }

    /// Adds the credentials to a request; a token that is fetched for it is one more secret.
    ///
    /// # Errors
    /// A token that cannot be had.
    pub(super) async fn sign(
        &self,
        client: &reqwest::Client,
        secrets: &Secrets,
        url: &mut Url,
        headers: &mut HeaderMap,
    ) -> Result<()> {
        match self {
            Self::None => {}
            Self::Header(name, value) => {
                headers.insert(name.clone(), value.clone());
            }
            Self::Param(name, value) => {
                // A link that came from the server may have it already.
                if !url.query_pairs().any(|(key, _)| key == name.as_str()) {
                    url.query_pairs_mut().append_pair(name, value);
                }
            }
            Self::OAuth2(oauth2) => {
                let token = oauth2.token(client, secrets).await?;
                let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                    Error::new(ErrorKind::Data, "the token that was given out cannot be sent in a header")
                })?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        Ok(())
    }

    /// Forgets the token that these headers carried, so that the next request fetches another; false where there is none
    /// to forget.
    pub(super) async fn forget(&self, refused: &HeaderMap) -> bool {
        let Self::OAuth2(oauth2) = self else { return false };
        let mut token = oauth2.token.lock().await;
        let sent = refused.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        // Another reader may have renewed it already.
        if token.as_ref().is_some_and(|token| sent == Some(format!("Bearer {}", token.value).as_bytes())) {
            *token = None;
        }
        true
    }
}

impl OAuth2 {
    fn from_keys(keys: OAuth2Keys, secrets: &mut Vec<String>) -> Result<Self, Mistake> {
        let token_url = web_url(&keys.token_url, "token_url").map_err(|(_, message, hint)| (message, hint))?;
        secrets.push(keys.client_secret.clone());
        secrets.extend(keys.params.values().cloned());
        let mut form = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
        form.extend(keys.scope.map(|scope| ("scope".to_owned(), scope)));
        form.extend(keys.params);
        let mut header = None;
        match keys.send {
            SendClient::Body => {
                form.push(("client_id".to_owned(), keys.client_id));
                form.push(("client_secret".to_owned(), keys.client_secret));
            }
            SendClient::Basic => {
                // Both are form-encoded first (RFC 6749, 2.3.1).
                let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let both = format!("{}:{}", encoded(&keys.client_id), encoded(&keys.client_secret));
                let both = STANDARD.encode(both);
                secrets.push(both.clone());
                let mut value = HeaderValue::from_str(&format!("Basic {both}"))
                    .map_err(|_| ("the client's id or secret cannot be sent".to_owned(), None))?;
                value.set_sensitive(true);
                header = Some(value);
            }
        }
        Ok(Self { token_url, form, header, token: Mutex::new(None) })
    }

    /// The token; one reader fetches it and all others wait for that one.
    async fn token(&self, client: &reqwest::Client, secrets: &Secrets) -> Result<String> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|token| token.until.is_none_or(|until| Instant::now() < until)) {
            return Ok(token.value.clone());
        }
        let fetched = self.fetch(client).await?;
        let value = fetched.value.clone();
        secrets.add_fetched(&value);
        *token = Some(fetched);
        Ok(value)
    }

    async fn fetch(&self, client: &reqwest::Client) -> Result<Token> {
        let mut shown = self.token_url.clone();
        shown.set_query(None);
        let what = format!("the token of `{shown}`");
        let body: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.form).finish();
        let mut request = client
            .post(self.token_url.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(reqwest::header::ACCEPT, "application/json")
            .body(body);
        if let Some(header) = &self.header {
            request = request.header(AUTHORIZATION, header.clone());
        }
        let mut response = request.send().await.map_err(|error| faults::of_transport(error, &what))?;
        let status = response.status();
        if !status.is_success() {
            let meaning = faults::of_status(status.as_u16());
            // 400 is what a token endpoint answers to a wrong secret (RFC 6749, 5.2).
            let kind = if meaning.is_transient { meaning.kind } else { ErrorKind::Denied };
            return Err(Error::new(kind, format!("{what} was refused: {status}"))
                .retryable(meaning.is_transient)
                .hint("look at `client_id`, `client_secret` and `scope` of `auth: {oauth2: …}`"));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| faults::of_transport(error, &what))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MOST_BYTES {
                return Err(Error::new(ErrorKind::Data, format!("{what} cannot be read: the answer has no end")));
            }
        }
        // What it answered is not shown: it may be a token.
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| {
            Error::new(ErrorKind::Data, format!("{what} cannot be read: the answer has no `access_token`"))
        })?;
        if answer.token_type.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(Error::new(ErrorKind::Config, format!("{what} is not of the type `bearer`")));
        }
        // Some servers write the number as a text.
        let seconds = answer.expires_in.as_ref().and_then(|value| match value {
            serde_json::Value::Number(number) => number.as_f64(),
            serde_json::Value::String(text) => text.parse().ok(),
            _ => None,
        });
        let lifetime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let until = lifetime
            .and_then(|life| Instant::now().checked_add(life.mul_f64(0.9).max(life.saturating_sub(BEFORE_END))));
        Ok(Token { value: answer.access_token, until })
    }
}
