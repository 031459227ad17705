//! A whole page: what it says about the next one, and its records by the readers of files.
//!
//! A page is judged before any of it is handed on: cut or repeated ones never get further. Its records are then read by
//! the very reader that reads files of the format, so that types, bad rows and nested values mean the same.

use super::client::{Answer, Api, Call};
use super::link;
use super::paginate::{Facts, Token};
use super::path::JsonPath;
use super::raw::{Raw, Scalar};
use super::records;
use crate::sources::files::formats::{self, FileInput};
use crate::{Rows, Scan};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use gristmill_model::spec::{
    Compression, CsvOptions, ExtractSpec, FileFormat, HttpSpec, JsonOptions, MissingRecords, Paginate, Total,
};
use gristmill_model::{Error, ErrorKind, Result};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LINK};
use serde::de::{Deserialize, IgnoredAny};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use url::Url;

/// A page.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) body: Bytes,
    pub(super) facts: Facts,
    /// The URL that was asked.
    pub(super) url: String,
    /// What messages call it: the request, without the backticks.
    pub(super) name: String,
}

/// How answers are laid out, and where they say what comes next.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) format: FileFormat,
    csv: CsvOptions,
    json: JsonOptions,
    /// The keys that lead to the records.
    records: Vec<String>,
    empty_on: Vec<u16>,
    missing_records: MissingRecords,
    next: Next,
    more: Option<JsonPath>,
    total: Option<Totals>,
    /// Pages are asked for by numbers or positions of ours.
    is_counted: bool,
}

/// Where the next page is told.
#[derive(Debug, Clone)]
enum Next {
    Nowhere,
    Body { path: JsonPath, is_link: bool },
    Header(String),
    LinkHeader,
}

#[derive(Debug, Clone)]
enum Totals {
    Pages(Place),
    Records(Place),
}

#[derive(Debug, Clone)]
enum Place {
    Body(JsonPath),
    Header(String),
}

impl Layout {
    /// # Errors
    /// [`ErrorKind::Config`] for a place in JSON that is none, or a format that pages cannot have.
    pub(super) fn new(extract: &ExtractSpec, http: &HttpSpec) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::Config, message);
        let path = |text: &str| JsonPath::parse(text).map_err(wrong);
        let header = |name: &str| -> Result<String> {
            let name = name.to_owned();
            super::config::headers([(&name, &String::new())]).map_err(wrong)?;
            Ok(name)
        };
        let format = extract.format.unwrap_or(FileFormat::Json);
        let (mut next, mut more, mut total) = (Next::Nowhere, None, None);
        match &http.paginate {
            Some(Paginate::Cursor(cursor)) => {
                next = match (&cursor.path, &cursor.header) {
                    (Some(text), _) => Next::Body { path: path(text)?, is_link: false },
                    (None, Some(name)) => Next::Header(header(name)?),
                    (None, None) => Next::Nowhere,
                };
                more = cursor.more.as_deref().map(path).transpose()?;
            }
            Some(Paginate::NextLink(link)) => next = Next::Body { path: path(&link.path)?, is_link: true },
            Some(Paginate::LinkHeader) => next = Next::LinkHeader,
            Some(Paginate::Page(rule)) => total = rule.total.as_ref(),
            Some(Paginate::Offset(rule)) => total = rule.total.as_ref(),
            None => {}
        }
        let total = match total {
            None => None,
            Some(Total::Pages(text)) => Some(Totals::Pages(Place::Body(path(text)?))),
            Some(Total::Records(text)) => Some(Totals::Records(Place::Body(path(text)?))),
            Some(Total::PagesHeader(name)) => Some(Totals::Pages(Place::Header(header(name)?))),
            Some(Total::RecordsHeader(name)) => Some(Totals::Records(Place::Header(header(name)?))),
        };
        let layout = Self {
            csv: extract.csv.clone().unwrap_or_default(),
            json: extract.json.clone().unwrap_or_default(),
            records: extract
                .json
                .as_ref()
                .and_then(|json| json.records.as_deref())
                .map(|records| records.split('.').map(str::to_owned).collect())
                .unwrap_or_default(),
            empty_on: http.empty_on.clone(),
            missing_records: http.missing_records,
            format,
            next,
            more,
            total,
            is_counted: matches!(http.paginate, Some(Paginate::Page(_) | Paginate::Offset(_))),
        };
        layout.check(extract, http)?;
        Ok(layout)
    }

    fn check(&self, extract: &ExtractSpec, http: &HttpSpec) -> Result<()> {
        let wrong = |message: String, hint: &str| Err(Error::new(ErrorKind::Config, message).hint(hint));
        let format = self.format.as_str();
        match self.format {
            FileFormat::Json => {}
            FileFormat::Csv | FileFormat::Ndjson => {
                let in_body = matches!(self.next, Next::Body { .. })
                    || self.more.is_some()
                    || matches!(self.total, Some(Totals::Pages(Place::Body(_)) | Totals::Records(Place::Body(_))));
                if in_body {
                    return wrong(
                        format!("`paginate` looks into a JSON document, and `format` is {format}"),
                        "use `link_header`, or totals and cursors in headers",
                    );
                }
            }
            _ => return wrong(format!("an API cannot be read as {format}"), "use `format: json`, `ndjson` or `csv`"),
        }
        if self.format == FileFormat::Csv && matches!(http.paginate, Some(Paginate::Page(_) | Paginate::Offset(_))) {
            return wrong(
                "the records of CSV pages are not counted, so `paginate: page` and `offset` cannot tell the last one"
                    .to_owned(),
                "use `link_header`, a cursor in a header, or `format: json`",
            );
        }
        for (given, key, fits) in [
            (extract.csv.is_some(), "csv", self.format == FileFormat::Csv),
            (extract.json.is_some(), "json", self.format == FileFormat::Json),
        ] {
            if given && !fits {
                return wrong(
                    format!("`{key}:` is given, but `format` is {format}"),
                    "leave it out, or change `format`",
                );
            }
        }
        if extract.compression.is_some() {
            return wrong(
                "`compression` is not supported for an API".to_owned(),
                "leave it out: an answer says itself how it is packed",
            );
        }
        Ok(())
    }

    /// What an answer says.
    fn judge(&self, answer: &Answer, what: &str, api: &Api) -> Result<Facts> {
        let status = answer.status.as_u16();
        let refused = self.empty_on.contains(&status) && status != 204;
        let mut facts =
            Facts { nothing: status == 204 || refused, refused, body: hash(&answer.body), ..Facts::default() };
        self.look(answer, &mut facts).map_err(|trouble| trouble.error(answer, what, api))?;
        match &self.total {
            Some(Totals::Pages(Place::Header(name))) => facts.total_pages = count(&answer.headers, name),
            Some(Totals::Records(Place::Header(name))) => facts.total_records = count(&answer.headers, name),
            _ => {}
        }
        if matches!(self.next, Next::LinkHeader | Next::Body { is_link: true, .. })
            && let Some(link) = &mut facts.next
        {
            link.text = follow(&answer.url, &link.text)?;
        }
        Ok(facts)
    }

    fn look(&self, answer: &Answer, facts: &mut Facts) -> Result<(), Trouble> {
        if !facts.nothing {
            match self.format {
                FileFormat::Json => self.look_into(answer, facts)?,
                FileFormat::Ndjson => facts.records = lines(&answer.body)?,
                _ => facts.records = u64::from(!answer.body.is_empty()),
            }
        }
        match &self.next {
            Next::Header(name) => facts.next = token(&answer.headers, name)?,
            Next::LinkHeader => {
                let fields: Vec<String> =
                    answer.headers.get_all(LINK).iter().map(|value| link::ascii(value.as_bytes())).collect();
                facts.next = match link::next(fields.iter().map(String::as_str)) {
                    Ok(target) => target.map(as_text),
                    Err(link::Unreadable) => return Err(Trouble::Header("Link".to_owned())),
                };
            }
            _ => {}
        }
        Ok(())
    }

    fn look_into(&self, answer: &Answer, facts: &mut Facts) -> Result<(), Trouble> {
        let document = Raw::document(without_mark(&answer.body)).map_err(Trouble::Json)?;
        facts.records = match records::each(document, &self.records) {
            Some(records) => {
                if self.is_counted {
                    facts.body = hash(&records.iter().map(|record| record.text()).collect::<Vec<_>>());
                }
                records.len() as u64
            }
            None if self.missing_records == MissingRecords::Empty => 0,
            // It would end the pages in silence.
            None => return Err(Trouble::Nowhere(self.records.join("."))),
        };
        let scalar = |path: &JsonPath| -> Result<_, Trouble> {
            let Some(found) = path.find(document) else { return Ok(Some(Scalar::Null)) };
            found.scalar().map_err(Trouble::Json)
        };
        if let Next::Body { path, is_link } = &self.next {
            facts.next = match scalar(path)? {
                Some(Scalar::Null | Scalar::Bool(false)) => None,
                Some(Scalar::Text(text)) if text.is_empty() => None,
                Some(Scalar::Text(text)) => Some(as_text(text)),
                Some(Scalar::Number(text)) if !is_link => Some(Token { text, is_number: true }),
                _ => return Err(Trouble::Odd(path.to_string(), "no text")),
            };
        }
        if let Some(path) = &self.more {
            facts.more = match scalar(path)? {
                Some(Scalar::Null) => None,
                Some(Scalar::Bool(more)) => Some(more),
                // Taken for `false`, it would end the pages in silence.
                _ => return Err(Trouble::Odd(path.to_string(), "neither true nor false")),
            };
        }
        let number = |place: &Place| match place {
            Place::Body(path) => match scalar(path)? {
                Some(Scalar::Number(text) | Scalar::Text(text)) => Ok(text.trim().parse().ok()),
                _ => Ok(None),
            },
            Place::Header(_) => Ok(None),
        };
        match &self.total {
            Some(Totals::Pages(place)) => facts.total_pages = number(place)?,
            Some(Totals::Records(place)) => facts.total_records = number(place)?,
            None => {}
        }
        Ok(())
    }
}

/// What is wrong with a page.
enum Trouble {
    Json(serde_json::Error),
    /// There is nothing where the records should be.
    Nowhere(String),
    /// What stands at a path is not what it should be.
    Odd(String, &'static str),
    /// A header that leads to the next page cannot be read.
    Header(String),
}

impl Trouble {
    fn error(self, answer: &Answer, what: &str, api: &Api) -> Error {
        match self {
            Self::Header(name) => Error::new(
                ErrorKind::Data,
                format!("{what}: the header `{name}`, which leads to the next page, cannot be read"),
            )
            .hint("look at what the API sends, e.g. with `curl -i`; it would end the pages early"),
            Self::Odd(path, found) => Error::new(
                ErrorKind::Data,
                format!("{what}: there is {found} at `{path}`, which leads to the next page"),
            )
            .hint("look at `paginate`"),
            Self::Nowhere(keys) => {
                let start = api.start(&answer.body);
                Error::new(
                    ErrorKind::Schema,
                    format!("{what}: there is nothing at `{keys}`; the answer begins with `{start}`"),
                )
                .hint("look at `records`; where the API leaves empty lists out, say `missing_records: empty`")
            }
            // A document that ends too early was cut on its way, and may be whole the next time.
            Self::Json(error) if error.is_eof() => {
                Error::new(ErrorKind::Unavailable, format!("{what}: the answer ends in the middle of its JSON"))
                    .cause(error)
            }
            Self::Json(error) => {
                let kind = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no type");
                let kind = api.config.secrets.masked(kind);
                let start = api.start(&answer.body);
                Error::new(
                    ErrorKind::Data,
                    format!("{what}: the answer ({kind}) is not JSON; it begins with `{start}`"),
                )
                .cause(error)
                .hint("look at `path`; say `format: csv` or `ndjson` if that is what it is")
            }
        }
    }
}

/// An absolute URL from a link of a page.
fn follow(from: &Url, link: &str) -> Result<String> {
    let url = from.join(link).map_err(|error| super::request::wrong_link(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(super::request::wrong_link("it is not of the web"));
    }
    Ok(url.into())
}

fn as_text(text: String) -> Token {
    Token { text, is_number: false }
}

fn one(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(|text| text.trim().to_owned())
}

/// A token in a header; one that is no text cannot be sent back.
fn token(headers: &HeaderMap, name: &str) -> Result<Option<Token>, Trouble> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Trouble::Header(name.to_owned()))?.trim();
    Ok(Some(text).filter(|text| !text.is_empty()).map(|text| as_text(text.to_owned())))
}

/// How many lines have something in them. One that was cut off on its way has not come as a whole.
fn lines(body: &[u8]) -> Result<u64, Trouble> {
    let is_blank = |line: &&[u8]| line.iter().all(u8::is_ascii_whitespace);
    let last = body.rsplit(|byte| *byte == b'\n').next().filter(|line| !is_blank(line)).unwrap_or(b"{}");
    let mut deserializer = serde_json::Deserializer::from_slice(without_mark(last));
    if let Err(error) = IgnoredAny::deserialize(&mut deserializer)
        && error.is_eof()
    {
        return Err(Trouble::Json(error));
    }
    Ok(body.split(|byte| *byte == b'\n').filter(|line| !is_blank(line)).count() as u64)
}

fn hash(what: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// `319`, or `0-24/319` as in `Content-Range`.
fn count(headers: &HeaderMap, name: &str) -> Option<u64> {
    let text = one(headers, name)?;
    text.rsplit('/').next()?.trim().parse().ok()
}

/// Some servers begin with the byte order mark.
pub(super) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

impl Page {
    /// Asks for a page and judges it.
    ///
    /// # Errors
    /// A page that cannot be had, or that is not what it should be.
    pub(super) async fn fetch(api: &Api, layout: &Layout, call: &Call) -> Result<Self> {
        let accept = |answer: &Answer| {
            let facts = layout.judge(answer, &call.what, api)?;
            let body = if facts.nothing { Bytes::new() } else { answer.body.clone() };
            Ok(Self { body, facts, url: call.url.to_string(), name: call.what.replace('`', "") })
        };
        api.fetch(call, &layout.empty_on, accept).await
    }

    /// The page as a file.
    async fn input(&self, layout: &Layout) -> Result<FileInput> {
        let failed = |error: object_store::Error| Error::internal("a page cannot be held in memory").cause(error);
        let store = Arc::new(InMemory::new());
        let path = Path::from("page");
        store.put(&path, PutPayload::from_bytes(self.body.clone())).await.map_err(failed)?;
        let meta = store.head(&path).await.map_err(failed)?;
        Ok(FileInput {
            store,
            meta,
            name: self.name.clone(),
            compression: Compression::None,
            csv: layout.csv.clone(),
            json: layout.json.clone(),
            stdin: false,
            piece: None,
        })
    }

    /// The columns of its records.
    ///
    /// # Errors
    /// What is no rows.
    pub(super) async fn infer(&self, layout: &Layout) -> Result<SchemaRef> {
        Ok(formats::reader(layout.format).infer(&self.input(layout).await?).await?.schema)
    }

    /// Its records, as batches of `scan.schema`.
    ///
    /// # Errors
    /// Only what a bug would be.
    pub(super) async fn rows(&self, layout: &Layout, scan: Scan) -> Result<Rows> {
        Ok(formats::reader(layout.format).read(self.input(layout).await?, scan))
    }
}
