//! From what a pipeline says to the request of one page.

use super::client::Call;
use super::config::{self, Config};
use super::paginate::{Asked, Token};
use super::path::JsonPath;
use bytes::Bytes;
use gristmill_model::spec::{HttpMethod, HttpSpec, Paginate, ParamPlace};
use gristmill_model::{Error, ErrorKind, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::collections::BTreeMap;
use url::Url;

/// What stays as it is in a value that becomes a part of a path (RFC 3986: unreserved).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The fields of a parent, by the texts that name them.
pub(super) type Fields = BTreeMap<String, Value>;

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
        if let (Some(body), true) = (&self.body, self.filled) {
            fields_of(body, &mut fields).map_err(|message| Error::new(ErrorKind::Config, message))?;
        }
        fields.sort();
        fields.dedup();
        Ok(fields)
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
            header(&mut headers, name, &template.fill(fields, false))?;
        }
        let mut body = self.body.clone();
        if let (Some(body), true) = (&mut body, self.filled) {
            fill(body, fields);
        }
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
                let body = body.unwrap_or(Value::Object(serde_json::Map::new()));
                Some(Bytes::from(body.to_string()))
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
        body: &mut Option<Value>,
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
        // The connection's own parameters are the last word, and a fixed one.
        pairs.retain(|(key, _)| !config.params.iter().any(|(name, _)| name == key));
        pairs.extend(config.params.iter().cloned());
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
fn place(place: ParamPlace, name: &str, token: Token, headers: &mut HeaderMap, body: &mut Option<Value>) -> Result<()> {
    match place {
        ParamPlace::Query => Ok(()),
        ParamPlace::Header => header(headers, name, &token.text),
        ParamPlace::Body => {
            let value = match token.text.parse::<i64>() {
                Ok(number) if token.is_number => Value::from(number),
                _ => Value::from(token.text),
            };
            put(body.get_or_insert_with(|| Value::Object(serde_json::Map::new())), name, value)
        }
    }
}

fn header(headers: &mut HeaderMap, name: &str, value: &str) -> Result<()> {
    let wrong = || Error::new(ErrorKind::Config, format!("the header `{name}` has a value that none can have"));
    let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    headers.insert(key, HeaderValue::from_str(value).map_err(|_| wrong())?);
    Ok(())
}

/// Puts a value into an object, below the objects that the dots of `name` lead through.
fn put(body: &mut Value, name: &str, value: Value) -> Result<()> {
    let mut place = body;
    for key in name.split('.') {
        if place.is_null() {
            *place = Value::Object(serde_json::Map::new());
        }
        let Value::Object(map) = place else {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{name}` leads into something in `body` that is no object"),
            ));
        };
        place = map.entry(key).or_insert(Value::Null);
    }
    *place = value;
    Ok(())
}

/// Fills the texts of a body; a text that is nothing but a field becomes the field's value, whatever its type.
fn fill(body: &mut Value, fields: &Fields) {
    match body {
        Value::String(text) => {
            let Ok(template) = Template::parse(text, true) else { return };
            match template.pieces.as_slice() {
                [Piece::Field(field)] => *body = fields.get(field).cloned().unwrap_or(Value::Null),
                _ => *text = template.fill(fields, false),
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, fields)),
        Value::Object(map) => map.values_mut().for_each(|value| fill(value, fields)),
        _ => {}
    }
}

fn fields_of(body: &Value, fields: &mut Vec<String>) -> Result<(), String> {
    match body {
        Value::String(text) => fields.extend(Template::parse(text, true)?.fields().map(str::to_owned)),
        Value::Array(items) => items.iter().try_for_each(|item| fields_of(item, fields))?,
        Value::Object(map) => map.values().try_for_each(|value| fields_of(value, fields))?,
        _ => {}
    }
    Ok(())
}

/// A text with fields of a parent in it: `orders/{id}/items`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

impl Template {
    /// Braces with a place in JSON between them, without spaces, are fields; all others are what they are.
    ///
    /// # Errors
    /// A field that is no place in JSON.
    fn parse(text: &str, filled: bool) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('{').filter(|_| filled) {
            let (before, after) = rest.split_at(start);
            plain.push_str(before);
            let end = after.find('}');
            let inner = end.map_or("", |end| &after[1..end]);
            let is_field = !inner.is_empty()
                && inner.chars().all(|char| char.is_alphanumeric() || "_-.[]'\"$".contains(char))
                && !inner.starts_with('-');
            if let (Some(end), true) = (end, is_field) {
                JsonPath::parse(inner)?;
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Field(inner.to_owned()));
                rest = &after[end + 1..];
            } else {
                plain.push('{');
                rest = &after[1..];
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self { pieces })
    }

    fn fields(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Field(field) => Some(field.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The text; `encoded` where fields become parts of a path.
    fn fill(&self, fields: &Fields, encoded: bool) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Field(field) => {
                    let value = fields.get(field).map(plain_text).unwrap_or_default();
                    if encoded {
                        // A dot alone would be a folder.
                        let value = utf8_percent_encode(&value, UNRESERVED).to_string();
                        text.push_str(&if matches!(value.as_str(), "." | "..") {
                            value.replace('.', "%2E")
                        } else {
                            value
                        });
                    } else {
                        text.push_str(&value);
                    }
                }
            }
        }
        text
    }
}

/// A scalar as a text.
pub(super) fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_braces_around_a_place_and_nothing_else() {
        let fields = |text: &str| Template::parse(text, true).unwrap().fields().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(fields("orders/{id}/items/{meta.no}"), ["id", "meta.no"]);
        assert_eq!(fields("query { orders(first: 10) { id } }"), Vec::<String>::new());
        assert_eq!(fields("{{id}"), ["id"]);
        assert_eq!(fields("{}{"), Vec::<String>::new());
        assert!(Template::parse("{a..b}", true).is_err());
        assert_eq!(Template::parse("{id}", false).unwrap().fields().count(), 0);
    }

    #[test]
    fn a_field_is_encoded_in_a_path_and_keeps_its_type_in_a_body() {
        let fields = Fields::from([
            ("id".to_owned(), json!("a/../b c")),
            ("n".to_owned(), json!(7)),
            ("d".to_owned(), json!("..")),
        ]);
        let template = Template::parse("x/{id}/{n}/{d}", true).unwrap();
        assert_eq!(template.fill(&fields, true), "x/a%2F..%2Fb%20c/7/%2E%2E");
        let mut body = json!({"id": "{n}", "text": "no {n}", "list": ["{id}"], "gone": "{x}"});
        fill(&mut body, &fields);
        assert_eq!(body, json!({"id": 7, "text": "no 7", "list": ["a/../b c"], "gone": null}));
    }

    #[test]
    fn a_value_is_put_where_the_dots_lead() {
        let mut body = json!({"query": "q", "variables": {"first": 10}});
        put(&mut body, "variables.after", json!("t")).unwrap();
        put(&mut body, "a.b", json!(1)).unwrap();
        assert_eq!(body, json!({"query": "q", "variables": {"first": 10, "after": "t"}, "a": {"b": 1}}));
        assert!(put(&mut body, "query.x", json!(1)).is_err());
    }
}
