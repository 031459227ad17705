//! What the errors of the stores mean, decided in one place.

use gristmill_model::{Error, ErrorKind};
use object_store::Error as StoreError;
use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error as StdError;
use std::fmt;

/// An error of a store about `what` (an object, folder or bucket, in backticks), as one of ours.
///
/// Missing things are [`ErrorKind::NotFound`]; refused credentials and rights [`ErrorKind::Denied`]; servers that do
/// not answer, answer with 5xx or time out [`ErrorKind::Unavailable`] (and so worth another try); an object that
/// changed or is already there [`ErrorKind::Conflict`]; the rest [`ErrorKind::Storage`].
#[must_use]
pub fn error(error: StoreError, what: impl fmt::Display) -> Error {
    explain(&error, what)
}

/// As [`error`], for an error that somebody else holds on to.
#[must_use]
pub fn explain(error: &StoreError, what: impl fmt::Display) -> Error {
    if let Some(io) = find::<std::io::Error>(error)
        && find::<HttpError>(error).is_none()
        && io.raw_os_error().is_some()
    {
        return match io.kind() {
            std::io::ErrorKind::NotFound => missing(what),
            _ => Error::io(io, what),
        };
    }
    let words = words(error);
    // A refusal to name the bucket or key is the same for all stores that speak S3.
    if words.contains("NoSuchBucket") {
        return Error::new(ErrorKind::NotFound, format!("cannot use {what}: the bucket does not exist"))
            .hint("create the bucket, or correct `url` and `endpoint` of the connection");
    }
    if words.contains("SignatureDoesNotMatch") || words.contains("InvalidAccessKeyId") {
        return denied(what).cause(answer(&words));
    }
    if words.contains("Range request not supported") {
        let message =
            format!("the server of {what} gives whole files only, and files of this format are read in pieces");
        return Error::new(ErrorKind::Storage, message)
            .hint("fetch it first, e.g. `curl -O URL`, and read the local file");
    }
    match error {
        StoreError::NotFound { .. } => missing(what),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => denied(what).cause(answer(&words)),
        StoreError::AlreadyExists { .. } => Error::new(ErrorKind::Conflict, format!("{what} is already there")),
        StoreError::Precondition { .. } | StoreError::NotModified { .. } => {
            Error::new(ErrorKind::Conflict, format!("{what} has been changed meanwhile"))
        }
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
            Error::new(ErrorKind::Storage, format!("the store cannot do this with {what}")).cause(answer(&words))
        }
        StoreError::JoinError { .. } => {
            Error::internal(format!("a task of the store failed over {what}")).cause(answer(&words))
        }
        _ => by_transport(error, &what, words),
    }
}

fn missing(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, format!("{what} does not exist"))
}

/// The server's own code and message, out of the XML that S3 and its kin answer with; else all there is.
fn answer(words: &str) -> String {
    let part =
        |tag: &str| words.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once("</")).map(|it| it.0);
    match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => words.to_owned(),
    }
}

fn denied(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Denied, format!("access to {what} was refused"))
        .hint("check the credentials of the connection and what they are allowed to do")
}

fn by_transport(error: &StoreError, what: &impl fmt::Display, words: String) -> Error {
    // The address that cloud machines get their credentials from; elsewhere nobody answers there.
    if words.contains("169.254.169.254") || words.contains("metadata.google.internal") {
        return Error::new(ErrorKind::Denied, format!("there are no credentials for {what}"))
            .hint("give them in the connection or the environment, or say `anonymous: true` for a public bucket")
            .cause(answer(&words));
    }
    let unavailable =
        || Error::new(ErrorKind::Unavailable, format!("cannot reach the server of {what}")).cause(innermost(error));
    if let Some(http) = find::<HttpError>(error) {
        return match http.kind() {
            HttpErrorKind::Connect | HttpErrorKind::Timeout | HttpErrorKind::Interrupted | HttpErrorKind::Request => {
                unavailable().hint("check the address in the connection and that the server runs")
            }
            _ => unavailable(),
        };
    }
    match status(&words) {
        Some(401 | 403) => denied(what).cause(answer(&words)),
        Some(408 | 429 | 500..=599) => {
            Error::new(ErrorKind::Unavailable, format!("the server of {what} is in trouble")).cause(answer(&words))
        }
        Some(301 | 302 | 307) | None if words.contains("redirect") => {
            Error::new(ErrorKind::Storage, format!("{what} is elsewhere"))
                .hint("check `region` and `endpoint` of the connection")
                .cause(answer(&words))
        }
        _ => Error::new(ErrorKind::Storage, format!("cannot use {what}")).cause(answer(&words)),
    }
}

/// The HTTP status in the words of an error; the type that holds it is private to the library.
fn status(words: &str) -> Option<u16> {
    let after = words.split("status code: ").nth(1)?;
    after.get(..3)?.parse().ok()
}

/// The first error of that type in the chain of sources.
fn find<E: StdError + 'static>(error: &StoreError) -> Option<&E> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<E>() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

/// The first cause: what the operating system or the server said, without the layers above it.
fn innermost(error: &StoreError) -> String {
    let mut last: &(dyn StdError + 'static) = error;
    while let Some(deeper) = last.source() {
        last = deeper;
    }
    redact(&last.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What the library says, in one line without secrets: the innermost words, which name the server's answer.
fn words(error: &StoreError) -> String {
    let mut all = error.to_string();
    let mut next = error.source();
    while let Some(current) = next {
        let text = current.to_string();
        if !all.contains(&text) {
            all = format!("{all}: {text}");
        }
        next = current.source();
    }
    let mut line = redact(&all.split_whitespace().collect::<Vec<_>>().join(" "));
    if let Some((cut, _)) = line.char_indices().nth(600) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// Takes what may be secret out of every URL in a text: user and password, and the query, where signatures stand.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ')' | '(' | '<' | '>'))
            .unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
        // A `@` in the path is no secret; one in the authority stands behind user and password.
        let url = match url[..authority].rfind('@') {
            // `abfss://container@account…` has a container there, which is no secret.
            Some(at) if !out.ends_with("abfss://") && !out.ends_with("abfs://") => {
                out.push_str("…@");
                &url[at + 1..]
            }
            _ => url,
        };
        match url.find('?') {
            Some(query) => {
                out.push_str(&url[..query]);
                out.push_str("?…");
            }
            None => out.push_str(url),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}
