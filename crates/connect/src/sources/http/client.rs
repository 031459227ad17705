//! Sending a request until it is answered: politely, with credentials for the API's own host only, and again where the
//! trouble may go away by itself.

use super::config::Config;
use super::faults;
use super::kept::Shelf;
use crate::wrap::retry;
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use gristmill_model::spec::HttpMethod;
use gristmill_model::{Error, ErrorKind, Result};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode};
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use tokio::sync::OnceCell;
use url::Url;

/// Redirects that are followed, at most.
const MAX_REDIRECTS: usize = 10;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Letters of an answer that an error shows.
const SHOWN: usize = 300;

/// A request, but for what the connection adds to it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: HttpMethod,
    pub(super) url: Url,
    /// For the API's own host only.
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    /// What messages call it; no secret in it.
    pub(super) what: String,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Where it came from in the end.
    pub(super) url: Url,
}

/// An API, and how it is asked.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) config: Config,
    /// Pages for further attempts.
    pub(super) shelf: Shelf,
    client: OnceCell<reqwest::Client>,
}

/// One try that failed.
struct Failure {
    error: Error,
    /// How long the server asked to wait.
    told: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, told: None }
    }
}

impl Api {
    /// `state` is the folder for what is kept meanwhile.
    pub(super) fn new(config: Config, state: &Path) -> Self {
        Self { config, shelf: Shelf::new(state), client: OnceCell::new() }
    }

    /// Sends a request until `accept` takes its answer, or trying again cannot help. `empty_on` are statuses that
    /// `accept` understands beside success.
    ///
    /// # Errors
    /// What the last try met.
    pub(super) async fn fetch<T>(
        &self,
        call: &Call,
        empty_on: &[u16],
        accept: impl Fn(&Answer) -> Result<T> + Send + Sync,
    ) -> Result<T> {
        let mut attempt = 1;
        let mut is_renewed = false;
        loop {
            let failure = match self.timed(call, empty_on, &mut is_renewed).await {
                Ok(Some(answer)) => match accept(&answer) {
                    Ok(value) => return Ok(value),
                    Err(error) => error.into(),
                },
                // The token was refused, and is fetched anew.
                Ok(None) => continue,
                Err(failure) => failure,
            };
            let Failure { error, told } = failure;
            if let Some(told) = told.filter(|told| *told > self.config.max_wait && error.is_retryable()) {
                let asked = told.as_secs();
                return Err(error
                    .context(format!("the server asks to wait {asked} seconds"))
                    .hint("run again later; `max_wait` of the connection says how long a request may wait"));
            }
            let tries = (attempt, self.config.attempts);
            let Some(wait) = retry::wait_as_told(&error, tries, retry::random(), told) else {
                return Err(if attempt > 1 { error.context(format!("tried {attempt} times")) } else { error });
            };
            if told.is_some() {
                self.config.limit.pause(wait);
            }
            tracing::warn!(attempt, ?wait, "{} is asked again: {error}", call.what);
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// One try, and no longer than it may take: a server that sends a byte now and then is never silent.
    async fn timed(&self, call: &Call, empty_on: &[u16], is_renewed: &mut bool) -> Result<Option<Answer>, Failure> {
        let _place = self.config.limit.turn().await?;
        let most = self.config.request_timeout;
        match tokio::time::timeout(most, self.once(call, empty_on, is_renewed)).await {
            Ok(answered) => answered,
            Err(_) => {
                let most = gristmill_model::Duration(most);
                let message = format!("{} was not answered in full within {most}", call.what);
                let hint =
                    "ask for smaller pages, or say with `request_timeout` of the connection how long one may take";
                Err(Error::new(ErrorKind::Unavailable, message).hint(hint).into())
            }
        }
    }

    /// One try; none when a token was refused for the first time.
    async fn once(&self, call: &Call, empty_on: &[u16], is_renewed: &mut bool) -> Result<Option<Answer>, Failure> {
        let client = self.client().await?;
        let (mut url, mut method, mut body) = (call.url.clone(), call.method, call.body.clone());
        for _ in 0..=MAX_REDIRECTS {
            let is_own = self.config.is_own(&url);
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            let mut target = url.clone();
            if is_own {
                for (name, value) in self.config.headers.iter().chain(&call.headers) {
                    headers.insert(name.clone(), value.clone());
                }
                self.config.complete(&mut target);
                self.config.auth.sign(client, &self.config.secrets, &mut target, &mut headers).await?;
            } else if let Some(kind) = call.headers.get(reqwest::header::CONTENT_TYPE) {
                headers.insert(reqwest::header::CONTENT_TYPE, kind.clone());
            }
            let sent = match method {
                HttpMethod::Get => Method::GET,
                HttpMethod::Post => Method::POST,
            };
            let mut request = client.request(sent, target).headers(headers.clone());
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(|error| faults::of_transport(error, &call.what))?;
            let status = response.status();
            if let Some(next) = redirect(&response, &url, &call.what)? {
                match (status, method) {
                    (StatusCode::SEE_OTHER, _) => (method, body) = (HttpMethod::Get, None),
                    // Whether the method is to be kept is not clear; a client that guesses asks something else.
                    (StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND, HttpMethod::Post) => {
                        return Err(Error::new(ErrorKind::Config, format!("{} was redirected", call.what))
                            .hint(format!("ask `{}` instead", self.config.secrets.masked(&shown(&next))))
                            .into());
                    }
                    _ => {}
                }
                url = next;
                continue;
            }
            if status == StatusCode::UNAUTHORIZED && is_own && !*is_renewed && self.config.auth.forget(&headers).await {
                *is_renewed = true;
                return Ok(None);
            }
            let told = faults::told_to_wait(status.as_u16(), response.headers(), chrono::Utc::now());
            if status.is_success() || empty_on.contains(&status.as_u16()) {
                return Ok(Some(self.whole(response, url, &call.what).await?));
            }
            // The status is what counts; a text that cannot be had does not change it.
            let headers = response.headers().clone();
            let answer = match self.whole(response, url.clone(), &call.what).await {
                Ok(answer) => answer,
                Err(_) => Answer { status, headers, body: Bytes::new(), url },
            };
            return Err(Failure { error: self.refused(&answer, is_own, &call.what), told });
        }
        let message = format!("{} was redirected more than {MAX_REDIRECTS} times", call.what);
        Err(Error::new(ErrorKind::Config, message).into())
    }

    /// Reads an answer to its end.
    async fn whole(&self, mut response: Response, url: Url, what: &str) -> Result<Answer> {
        // Pages are held in memory, several of them where lanes work side by side.
        let most = crate::memory::share(32, 16 << 20, 256 << 20);
        let too_large = || {
            Error::new(
                ErrorKind::Data,
                format!("{what}: the answer is larger than the {} MiB that are read", most >> 20),
            )
            .hint("ask for smaller pages, or give the process more memory (`--memory`)")
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| faults::of_transport(error, what))? {
            if body.len() + chunk.len() > most {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let mut body = body.freeze();
        let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("identity");
        match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => {}
            "gzip" | "x-gzip" if body.is_empty() => {}
            "gzip" | "x-gzip" => {
                let packed = body;
                let unpacked = tokio::task::spawn_blocking(move || {
                    let mut plain = Vec::new();
                    let read = MultiGzDecoder::new(packed.as_ref()).take(most as u64 + 1).read_to_end(&mut plain);
                    read.map(|_| plain)
                });
                let unpacked = unpacked.await.map_err(|error| Error::internal("unpacking ended early").cause(error))?;
                let plain = unpacked.map_err(|error| {
                    Error::new(ErrorKind::Unavailable, format!("{what}: the answer cannot be unpacked")).cause(error)
                })?;
                if plain.len() > most {
                    return Err(too_large());
                }
                body = plain.into();
            }
            other => {
                return Err(Error::new(
                    ErrorKind::Data,
                    format!("{what}: the answer has the unknown encoding `{other}`"),
                ));
            }
        }
        Ok(Answer { status, headers, body, url })
    }

    /// The error of a status that is no success.
    fn refused(&self, answer: &Answer, is_own: bool, what: &str) -> Error {
        let mut meaning = faults::of_status(answer.status.as_u16());
        if faults::is_limited(answer.status.as_u16(), &answer.headers) {
            meaning = faults::of_status(429);
        }
        let mut message = format!("{what} was answered with {}", answer.status);
        let start = self.start(&answer.body);
        if !start.is_empty() {
            message.push_str(&format!(": {start}"));
        }
        let hint = match (meaning.kind, is_own) {
            (ErrorKind::Denied, false) => Some(format!(
                "`{}` is another host than the connection's, so it is not sent the connection's credentials",
                answer.url.host_str().unwrap_or_default()
            )),
            _ => meaning.hint.map(str::to_owned),
        };
        Error::new(meaning.kind, message).retryable(meaning.is_transient).maybe_hint(hint)
    }

    /// The start of an answer, for people: one line, without what must not be shown.
    pub(super) fn start(&self, body: &[u8]) -> String {
        // A secret may stand across the end of what is shown.
        let text = self.config.secrets.masked(&String::from_utf8_lossy(&body[..body.len().min(64 << 10)]));
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.retain(|char| !char.is_control());
        match line.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }

    async fn client(&self) -> Result<&reqwest::Client> {
        let build = || async {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(self.config.timeout)
                .user_agent(concat!("gristmill/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| Error::internal("the HTTP client cannot be made").cause(error.without_url()))
        };
        self.client.get_or_try_init(build).await
    }
}

/// Where an answer leads on to.
fn redirect(response: &Response, from: &Url, what: &str) -> Result<Option<Url>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = location.and_then(|location| from.join(location).ok());
    match next.filter(|next| matches!(next.scheme(), "http" | "https") && next.has_host()) {
        Some(next) => Ok(Some(next)),
        None => Err(Error::new(ErrorKind::Data, format!("{what} was redirected to nowhere"))),
    }
}

/// A URL without what may be secret in it.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}
