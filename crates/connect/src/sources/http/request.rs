//! From what a pipeline says to the request of one page.

use super::body::{Body, fields_of};
use super::client::Call;
use super::config::{self, Config};
use super::paginate::{Asked, Token};
use super::raw::Scalar;
use super::template::Template;
use bytes::Bytes;
use gristmill_model::spec::{HttpMethod, HttpSpec, Paginate, ParamPlace};
use gristmill_model::{Error, ErrorKind, Result};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::collections::BTreeMap;
use url::Url;

/// The fields of a parent, by the texts that name them.
pub(super) type Fields = BTreeMap<String, Scalar>;

/// Requests of one kind: everything but the page.
#[derive(Debug, Clone)]
pub(super) struct Request {
    method: HttpMethod,
    path: Template,
    params: Vec<(String, Template)>,
    headers: Vec<(String, Template)>,
    body: Option<Value>,
    /// Whether `{field}` stands for a field of a parent.
    filled: bool,
    paginate: Option<Paginate>,
    /// What else is sent; links of the server have it already.
    pub(super) extra: Vec<Extra>,
    /// What messages call it: the path as it is written.
    pub(super) name: String,
}

/// A value that is sent beside those the pipeline says.
#[derive(Debug, Clone)]
pub(super) struct Extra {
    pub(super) place: ParamPlace,
    pub(super) name: String,
    pub(super) token: Token,
}

impl Request {
    /// `filled` says that there are parents, whose fields `{…}` stands for.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a path of another host, a header that cannot be, a field that is no path in JSON.
    pub(super) fn new(path: &str, http: &HttpSpec, config: &Config, filled: bool) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::Config, message);
        let path = if path.contains("://") {
            let url = Url::parse(path).map_err(|_| wrong(format!("`path: {}` is not a URL", cut_query(path))))?;
            let base = config.base.as_str().trim_end_matches('/');
            let rest = path.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
            match rest.filter(|_| config.is_own(&url)) {
                Some(rest) => rest,
                None => {
                    return Err(wrong(format!("`path: {}` is not below the connection's `url`", cut_query(path)))
                        .hint("write the path below it; another API is another connection"));
                }
            }
        } else {
            path
        };
        if !filled && let Some(field) = Template::parse(path, true).map_err(wrong)?.fields().next() {
            return Err(wrong(format!("`{{{field}}}` in `path` has no parent to take it from"))
                .hint("name the parents with `http: {for_each: {path: …}}`"));
        }
        config::headers(&http.headers).map_err(wrong)?;
        for (name, value) in &http.headers {
            // What is filled in is another text for each parent.
            let is_fixed = Template::parse(value, filled).is_ok_and(|text| text.fields().next().is_none());
            if is_fixed && config::may_be_secret(name) {
                config::secret_parts(value).iter().for_each(|part| config.secrets.add(part));
            }
        }
        let templates = |given: &BTreeMap<String, String>| {
            let parse =
                |(name, text): (&String, &String)| Ok((name.clone(), Template::parse(text, filled).map_err(wrong)?));
            given.iter().map(parse).collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            method: http.method,
            path: Template::parse(path.trim_start_matches('/'), filled).map_err(wrong)?,
            params: templates(&http.params)?,
            headers: templates(&http.headers)?,
            body: http.body.clone(),
            filled,
            paginate: http.paginate.clone(),
            extra: Vec::new(),
            name: cut_query(path).to_owned(),
        })
    }

    /// The fields of a parent that are needed.
    ///
    /// # Errors
    /// A field of the body that is no path in JSON.
    pub(super) fn fields(&self) -> Result<Vec<String>> {
        let mut fields: Vec<String> = self.path.fields().map(str::to_owned).collect();
        for (_, template) in self.params.iter().chain(&self.headers) {
            fields.extend(template.fields().map(str::to_owned));
        }
        fields.extend(self.fields_of_body()?);
        fields.sort();
        fields.dedup();
        Ok(fields)
    }

    /// Those of them that stand in the body.
    ///
    /// # Errors
    /// A field that is no path in JSON.
    pub(super) fn fields_of_body(&self) -> Result<Vec<String>> {
        let mut fields = Vec::new();
        if let (Some(body), true) = (&self.body, self.filled) {
            fields_of(body, &mut fields).map_err(|message| Error::new(ErrorKind::Config, message))?;
        }
        Ok(fields)
    }

    /// Whether the path is made of this field, so that a parent without a text in it would ask for something else.
    pub(super) fn is_in_path(&self, field: &str) -> bool {
        self.path.fields().any(|other| other == field)
    }

    /// The request of a page.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a URL, header or body that cannot be.
    pub(super) fn call(&self, config: &Config, asked: &Asked, parent: Option<&Fields>) -> Result<Call> {
        let none = Fields::new();
        let fields = parent.unwrap_or(&none);
        let mut headers = HeaderMap::new();
        for (name, template) in &self.headers {
            let value = template.fill(fields, false);
            if config::may_be_secret(name) && template.fields().next().is_some() {
                config::secret_parts(&value).iter().for_each(|part| config.secrets.add_fetched(part));
            }
            header(&mut headers, name, &value)?;
        }
        let mut body = self.body.as_ref().map(|body| Body::new(body, self.filled.then_some(fields)));
        let url = if let Asked::Link(link) = asked {
            // A link has the parameters of the query in it, and nothing of the rest.
            for extra in self.extra.iter().filter(|extra| extra.place != ParamPlace::Query) {
                place(extra.place, &extra.name, extra.token.clone(), &mut headers, &mut body)?;
            }
            Url::parse(link).map_err(|error| wrong_link(&error.to_string()))?
        } else {
            self.url(config, fields, asked, &mut headers, &mut body)?
        };
        let body = match (self.method, body) {
            (HttpMethod::Get, _) => None,
            (HttpMethod::Post, body) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Some(Bytes::from(body.unwrap_or_else(Body::empty).to_string()))
            }
        };
        Ok(Call { method: self.method, url, headers, body, what: self.what(asked, fields) })
    }

    fn url(
        &self,
        config: &Config,
        fields: &Fields,
        asked: &Asked,
        headers: &mut HeaderMap,
        body: &mut Option<Body>,
    ) -> Result<Url> {
        let path = self.path.fill(fields, true);
        let base = config.base.as_str().trim_end_matches('/');
        let text = match path.as_str() {
            "" | "." | "./" => config.base.as_str().to_owned(),
            path if path.starts_with('?') => format!("{base}{path}"),
            path => format!("{base}/{path}"),
        };
        let mut url = Url::parse(&text).map_err(|error| {
            Error::new(ErrorKind::Config, format!("`path: {}` makes no URL", self.name)).cause(error)
        })?;
        // A field with dots in it must not lead out of the API.
        if !config.is_own(&url) || !url.path().starts_with(config.base.path().trim_end_matches('/')) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`path: {}` leads out of the connection's `url`", self.name),
            )
            .hint("write a path below it; another API is another connection"));
        }
        let mut pairs: Vec<(String, String)> =
            url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        pairs.extend(self.params.iter().map(|(name, template)| (name.clone(), template.fill(fields, false))));
        let extra = self.extra.iter().map(|extra| (extra.place, extra.name.clone(), extra.token.clone()));
        for (at, name, token) in extra.chain(self.page(asked)) {
            if at == ParamPlace::Query {
                pairs.retain(|(key, _)| *key != name);
                pairs.push((name, token.text));
            } else {
                place(at, &name, token, headers, body)?;
            }
        }
        // The connection's own parameters are the last word; they are added to whatever is sent to its host.
        pairs.retain(|(key, _)| !config.params.iter().any(|(name, _)| name == key));
        url.set_query(None);
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        Ok(url)
    }

    /// What asks for a page: where, under which name, and the value.
    fn page(&self, asked: &Asked) -> Vec<(ParamPlace, String, Token)> {
        let number = |number: u64| Token { text: number.to_string(), is_number: true };
        let mut params = Vec::new();
        match (&self.paginate, asked) {
            (Some(Paginate::Page(page)), Asked::Page(at)) => {
                params.push((page.place, page.param.clone(), number(*at)));
                if let (Some(param), Some(size)) = (&page.size_param, page.size) {
                    params.push((page.place, param.clone(), number(size)));
                }
            }
            (Some(Paginate::Offset(offset)), Asked::Offset(at)) => {
                params.push((offset.place, offset.param.clone(), number(*at)));
                params.push((offset.place, offset.limit_param.clone(), number(offset.limit)));
            }
            (Some(Paginate::Cursor(cursor)), Asked::Cursor(token)) => {
                params.push((cursor.place, cursor.param.clone(), token.clone()));
            }
            _ => {}
        }
        params
    }

    /// What messages call the request of a page; no value that came from elsewhere but fields of the path.
    fn what(&self, asked: &Asked, fields: &Fields) -> String {
        let path = self.path.fill(fields, true);
        let path = cut_query(&path);
        let page = match asked {
            Asked::Page(number) => format!(" (page {number})"),
            Asked::Offset(at) => format!(" (from record {at})"),
            Asked::Cursor(_) | Asked::Link(_) => " (a further page)".to_owned(),
            Asked::First => String::new(),
        };
        format!("`{} /{path}`{page}", self.method.as_str())
    }
}

/// That a link of the server leads nowhere.
pub(super) fn wrong_link(why: &str) -> Error {
    Error::new(ErrorKind::Data, "the link to the next page cannot be followed").cause(why)
}

fn cut_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// Puts a value into the headers or the body.
fn place(place: ParamPlace, name: &str, token: Token, headers: &mut HeaderMap, body: &mut Option<Body>) -> Result<()> {
    match place {
        ParamPlace::Query => Ok(()),
        ParamPlace::Header => header(headers, name, &token.text),
        ParamPlace::Body => body.get_or_insert_with(Body::empty).put(name, Body::from(&token)),
    }
}

fn header(headers: &mut HeaderMap, name: &str, value: &str) -> Result<()> {
    let wrong = || Error::new(ErrorKind::Config, format!("the header `{name}` has a value that none can have"));
    let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    headers.insert(key, HeaderValue::from_str(value).map_err(|_| wrong())?);
    Ok(())
}
