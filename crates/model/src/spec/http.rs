//! Requests to an HTTP API: what is asked, how its pages follow each other, and which other answer it is asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How an HTTP API is asked. Connections of type `http` only; `path` and `json: {records: …}` stand beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSpec {
    /// The method; `GET` by default.
    #[serde(default)]
    pub method: HttpMethod,
    /// Parameters behind the `?` of the URL.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Headers of these requests, beside those of the connection.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What is sent as JSON, with `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
    /// How one page leads to the next; by default one answer is all there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paginate: Option<Paginate>,
    /// More pages than this (in one sequence) are an error: a guard against an API that never ends; 100,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pages: Option<u64>,
    /// Statuses that mean that there are no records, such as `404` for a parent without children; by default every one
    /// but success is an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty_on: Vec<u16>,
    /// What an answer without anything where the records should be means.
    #[serde(default)]
    pub missing_records: MissingRecords,
    /// A page that is the same, byte for byte, as one before it is an error, since an API that does not know the page's
    /// parameter answers so. `true` allows it.
    #[serde(default)]
    pub allow_repeated_pages: bool,
    /// How many pages are looked at for columns and types, at most, until 1,000 records were seen; 3 by default. They
    /// are not asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_pages: Option<u32>,
    /// One sequence of requests for each record of another answer: parent → child. `{field}` in `path`, `params`,
    /// `headers` and `body` is that field of the parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<ForEach>,
    /// How the API is asked for what is new only, with `incremental_key`. What comes is looked at all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incremental: Option<super::HttpIncremental>,
}

/// The method of a request that reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// Everything is in the URL.
    #[default]
    #[serde(alias = "get")]
    Get,
    /// With a body.
    #[serde(alias = "post")]
    Post,
}

impl HttpMethod {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// How one page leads to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Paginate {
    /// Pages have numbers.
    Page(PageNumbers),
    /// Pages begin at a record's position.
    Offset(Offsets),
    /// A page holds the token that asks for the next one.
    Cursor(Cursor),
    /// A page's body holds the URL of the next one.
    NextLink(NextLink),
    /// The header `Link` has the URL of the next page, with `rel="next"` (RFC 8288).
    LinkHeader,
}

/// Pages that have numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageNumbers {
    /// The parameter with the number; `page` by default.
    #[serde(default = "page")]
    pub param: String,
    /// The number of the first page; 1 by default.
    #[serde(default = "one")]
    pub start: u64,
    /// The parameter that says how many records a page has, with `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_param: Option<String>,
    /// How many records a page has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Where the parameters stand.
    #[serde(default)]
    pub place: ParamPlace,
    /// Where an answer says how many there are in all. Known counts are read in parallel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Total>,
    /// What the last page is known by where no total is.
    #[serde(default)]
    pub last_page: LastPage,
}

/// Pages that begin at a record's position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Offsets {
    /// The parameter with the position of the first record, from 0; `offset` by default.
    #[serde(default = "offset")]
    pub param: String,
    /// The parameter that says how many records a page has; `limit` by default.
    #[serde(default = "limit")]
    pub limit_param: String,
    /// How many records a page has.
    pub limit: u64,
    /// Where the parameters stand.
    #[serde(default)]
    pub place: ParamPlace,
    /// Where an answer says how many there are in all. Known counts are read in parallel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Total>,
    /// What the last page is known by where no total is.
    #[serde(default)]
    pub last_page: LastPage,
}

/// Where an answer says how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Total {
    /// The number of pages is at this place of the body: `meta.total_pages`.
    Pages(String),
    /// The number of records is at this place of the body.
    Records(String),
    /// The number of pages is in this header.
    PagesHeader(String),
    /// The number of records is in this header; of `0-24/319` it is what follows the last `/`.
    RecordsHeader(String),
}

/// What the last page is known by, where no total is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LastPage {
    /// A page without records comes after it. One request more, and right also where the server returns fewer records
    /// than it was asked for.
    #[default]
    Empty,
    /// It has fewer records than were asked for.
    Short,
}

/// What an answer without anything where the records should be means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissingRecords {
    /// An error: it may be a message of another kind.
    #[default]
    Fail,
    /// That there are none: some APIs leave empty lists out.
    Empty,
}

/// Where a parameter of the pagination stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamPlace {
    /// Behind the `?` of the URL.
    #[default]
    Query,
    /// In the JSON body; dots in the parameter's name lead into objects: `variables.after`.
    Body,
    /// In a header.
    Header,
}

/// A page that holds the token that asks for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Where the token is in the body: `meta.next_cursor`; `data[-1].id` is the `id` of the last record. None, an empty
    /// text or `false` ends the pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The header the token is in, where it is not in the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The parameter that takes the token; `cursor` by default.
    #[serde(default = "cursor")]
    pub param: String,
    /// Where the parameter stands.
    #[serde(default)]
    pub place: ParamPlace,
    /// Where the body says whether there is more: `has_more`. Anything but `true` ends the pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<String>,
}

/// A page whose body holds the URL of the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NextLink {
    /// Where the URL is in the body: `links.next`; it may be relative. None, an empty text or `false` ends the pages.
    pub path: String,
}

/// The answer whose records are the parents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForEach {
    /// The path of the parents, relative to the connection.
    pub path: String,
    /// Where in an answer the parents are: `data.items`; the answer itself by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<String>,
    /// Parent fields that become columns of the children: column → field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub include: BTreeMap<String, String>,
    /// The method; `GET` by default.
    #[serde(default)]
    pub method: HttpMethod,
    /// Parameters behind the `?` of the URL.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Headers of these requests, beside those of the connection.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What is sent as JSON, with `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
    /// What an answer without anything where the parents should be means.
    #[serde(default)]
    pub missing_records: MissingRecords,
    /// How one page of parents leads to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paginate: Option<Paginate>,
}

impl ForEach {
    /// The parents' requests.
    #[must_use]
    pub fn http(&self) -> HttpSpec {
        HttpSpec {
            method: self.method,
            params: self.params.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            paginate: self.paginate.clone(),
            missing_records: self.missing_records,
            ..HttpSpec::default()
        }
    }
}

impl HttpSpec {
    /// What is wrong with it, for people: message and hint.
    #[must_use]
    pub fn mistakes(&self) -> Vec<(String, Option<String>)> {
        let mut wrong = Vec::new();
        let mut complain = |message: String, hint: &str| wrong.push((message, Some(hint.to_owned())));
        asked(self, "http", &mut complain);
        if let Some(parents) = &self.for_each {
            asked(&parents.http(), "for_each", &mut complain);
        }
        for (key, zero) in [("max_pages", self.max_pages == Some(0)), ("sample_pages", self.sample_pages == Some(0))] {
            if zero {
                complain(format!("`{key}` of `http` is 0"), "write a number from 1, or leave it out");
            }
        }
        if let Some(incremental) = &self.incremental {
            if incremental.end_param.is_some() != incremental.end_value.is_some() {
                complain(
                    "`end_param` and `end_value` of `incremental` go together".to_owned(),
                    "say both, such as `end_param: until, end_value: \"{{ data_interval_end }}\"`",
                );
            }
            if incremental.place == ParamPlace::Body && self.method == HttpMethod::Get {
                complain("`place: body` of `incremental` goes with `method: POST`".to_owned(), "say `method: POST`");
            }
        }
        for status in &self.empty_on {
            if !(400..500).contains(status) || [401, 403, 407, 408, 425, 429].contains(status) {
                complain(
                    format!("`empty_on` of `http` names {status}, which never means that there are no records"),
                    "name statuses such as 404 or 410",
                );
            }
        }
        wrong
    }
}

/// What is wrong with a sequence of requests; `key` is where it stands.
fn asked(http: &HttpSpec, key: &str, complain: &mut impl FnMut(String, &str)) {
    if http.body.is_some() && http.method == HttpMethod::Get {
        complain(format!("`body` of `{key}` goes with `method: POST`"), "say `method: POST`, or use `params`");
    }
    let place = match &http.paginate {
        Some(Paginate::Page(page)) => {
            if page.size.is_some() != page.size_param.is_some() {
                complain(
                    format!("`size` and `size_param` of `paginate` in `{key}` go together"),
                    "say both, such as `size_param: per_page, size: 100`",
                );
            }
            if page.size == Some(0) {
                complain(format!("`size` of `paginate` in `{key}` is 0"), "write how many records a page should have");
            }
            if page.last_page == LastPage::Short && page.size.is_none() {
                complain(
                    format!("`last_page: short` of `paginate` in `{key}` needs `size`"),
                    "say how many records a full page has: `size_param: per_page, size: 100`",
                );
            }
            page.place
        }
        Some(Paginate::Offset(offset)) => {
            if offset.limit == 0 {
                complain(format!("`limit` of `paginate` in `{key}` is 0"), "write how many records a page should have");
            }
            if let Some(Total::Pages(_) | Total::PagesHeader(_)) = offset.total {
                complain(
                    format!("`total` of `paginate: offset` in `{key}` counts records, not pages"),
                    "say `total: {records: …}` or `{records_header: …}`",
                );
            }
            offset.place
        }
        Some(Paginate::Cursor(cursor)) => {
            if cursor.path.is_some() == cursor.header.is_some() {
                complain(
                    format!("`paginate: cursor` in `{key}` needs either `path` or `header`"),
                    "say where the next token is: `path: meta.next_cursor`",
                );
            }
            cursor.place
        }
        Some(Paginate::NextLink(_) | Paginate::LinkHeader) | None => ParamPlace::Query,
    };
    if place == ParamPlace::Body && http.method == HttpMethod::Get {
        complain(format!("`place: body` of `paginate` in `{key}` goes with `method: POST`"), "say `method: POST`");
    }
}

fn page() -> String {
    "page".to_owned()
}

fn one() -> u64 {
    1
}

fn offset() -> String {
    "offset".to_owned()
}

fn limit() -> String {
    "limit".to_owned()
}

fn cursor() -> String {
    "cursor".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(yaml: &str) -> HttpSpec {
        crate::yaml::decode(&crate::yaml::parse("p.yaml", yaml).unwrap()).unwrap()
    }

    #[test]
    fn each_way_to_paginate_is_written_in_a_line() {
        let of = |yaml: &str| decode(&format!("paginate: {yaml}")).paginate.unwrap();
        assert_eq!(of("link_header"), Paginate::LinkHeader);
        assert!(matches!(of("{page: {}}"), Paginate::Page(page) if page.param == "page" && page.start == 1));
        assert!(matches!(of("{offset: {limit: 50, total: {records: meta.total}}}"),
            Paginate::Offset(offset) if offset.total == Some(Total::Records("meta.total".to_owned()))));
        assert!(matches!(of("{cursor: {path: next}}"), Paginate::Cursor(cursor) if cursor.param == "cursor"));
        assert!(matches!(of("{next_link: {path: links.next}}"), Paginate::NextLink(_)));
    }

    #[test]
    fn values_of_parameters_keep_their_text() {
        let http =
            decode("{params: {active: true, code: 01, price: 1.50}, method: POST, body: {a: [1, x, {b: null}]}}");
        assert_eq!(http.params.values().map(String::as_str).collect::<Vec<_>>(), ["true", "01", "1.50"]);
        assert_eq!(http.body, Some(serde_json::json!({"a": [1, "x", {"b": null}]})));
    }

    #[test]
    fn keys_that_do_not_go_together_are_told() {
        let count = |yaml: &str| decode(yaml).mistakes().len();
        assert_eq!(count("{method: POST, body: {}, paginate: {cursor: {path: a, place: body}}, empty_on: [404]}"), 0);
        for wrong in [
            "{body: {}}",
            "{paginate: {cursor: {}}}",
            "{paginate: {cursor: {path: a, header: b}}}",
            "{paginate: {cursor: {path: a, place: body}}}",
            "{paginate: {page: {size: 5}}}",
            "{paginate: {page: {last_page: short}}}",
            "{paginate: {offset: {limit: 0}}}",
            "{paginate: {offset: {limit: 5, total: {pages: a}}}}",
            "{max_pages: 0}",
            "{empty_on: [401]}",
            "{empty_on: [500]}",
            "{for_each: {path: a, body: {}}}",
            "{incremental: {start_param: since, end_param: until}}",
            "{incremental: {start_param: since, place: body}}",
        ] {
            assert_eq!(count(wrong), 1, "{wrong}");
        }
    }
}
