//! What cannot be is refused before anything is asked.

use super::{connect, extract, try_connect};
use gristmill_model::ErrorKind;

#[test]
fn keys_of_a_connection_are_checked_and_never_shown() {
    for (keys, says) in [
        ("url: api", "`url` is not a URL"),
        ("url: ftp://h", "not an `https://`"),
        ("url: https://me:s3cr3t@h", "holds a user or password"),
        ("url: https://h?key=s3cr3t", "ends before the `?`"),
        ("url: https://h\nurll: x", "unknown key `urll`"),
        ("url: https://h\nattempts: 0", "`attempts` is 0"),
        ("url: https://h\nmax_connections: 0", "`max_connections` is 0"),
        ("url: https://h\nrequests_per_second: 0", "`requests_per_second` is no such number"),
        ("url: https://h\nrequests_per_second: .nan", "number"),
        ("url: https://h\nheaders: {\"a b\": s3cr3t}", "`a b` cannot be the name of a header"),
        ("url: https://h\nheaders: {a: \"s3cr3t\\n\"}", "the header `a` has a value that none can have"),
        ("url: https://h\nauth: {bearer: \"s3cr3t\\n\"}", "`auth` holds characters"),
        ("url: https://h\nauth: {api_key: {value: s3cr3t}}", "needs either `header` or `param`"),
        ("url: https://h\nauth: {bearer: a, basic: {user: b}}", "exactly one key"),
        ("url: https://h\nauth: {oauth2: {client_id: a, client_secret: s3cr3t}}", "`token_url` is missing"),
        ("url: https://h\nauth: {digest: x}", "unknown value `digest`"),
    ] {
        let said = try_connect(keys).map(|_| ()).unwrap_err();
        assert!(said.contains(says), "{keys}: {said}");
        assert!(!said.contains("s3cr3t"), "{said}");
    }
    let api = connect("https://h/v1/", "auth: {bearer: s3cr3t}");
    assert_eq!(api.describe(), "https://h/v1/");
    assert!(!format!("{api:?}").contains("s3cr3t"));
}

#[test]
fn extracts_that_an_api_cannot_serve_are_refused() {
    let api = connect("https://h/v1", "");
    for (yaml, says) in [
        ("table: t", "`table:` is for databases"),
        ("path: [a, b]", "one `path`"),
        ("path: https://other/x", "not below the connection's `url`"),
        ("path: https://h/v10/x", "not below the connection's `url`"),
        ("path: \"a/{id}\"", "has no parent"),
        ("path: a\nformat: parquet", "cannot be read as parquet"),
        ("path: a\nformat: csv\nhttp: {paginate: {page: {}}}", "are not counted"),
        ("path: a\nformat: ndjson\nhttp: {paginate: {cursor: {path: x}}}", "looks into a JSON document"),
        ("path: a\nformat: csv\njson: {records: x}", "`json:` is given"),
        ("path: a\ncompression: gzip", "`compression` is not supported"),
        ("path: a\nhttp: {paginate: {next_link: {path: a..b}}}", "is not a place in JSON"),
        ("path: a\nhttp: {headers: {\"a b\": x}}", "cannot be the name of a header"),
        ("path: a\nhttp: {for_each: {path: p}}", "nothing is taken from it"),
        ("path: a\nunits: {strategy: ctid}", "`strategy: ctid`"),
        ("path: a\nunits: {verify: count}", "`verify`"),
        ("path: \"a/{id}\"\nhttp: {for_each: {path: p}}\nunits: {target_rows: 5}", "`target_rows`"),
        ("path: a\nschema: {x: integr}", "unknown type"),
    ] {
        let error = api.source(&extract(yaml)).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains(says), "{yaml}: {error}");
    }
    for fine in
        ["path: https://h/v1/x", "path: ''", "path: /x?a=b", "path: .\nhttp: {method: POST, body: {query: \"{x}\"}}"]
    {
        api.source(&extract(fine)).unwrap_or_else(|error| panic!("{fine}: {error}"));
    }
}

#[test]
fn files_are_not_asked_as_an_api_is() {
    let node = gristmill_model::yaml::parse("gristmill.yaml", "{type: files, url: .}").unwrap();
    let context = crate::OpenContext { project: ".".into(), state: ".".into() };
    let files = crate::registry::open(&node, &context).unwrap();
    let error = files.source(&extract("path: a.csv\nhttp: {method: POST}")).unwrap_err();
    assert!(error.message().contains("`http:` is for HTTP APIs"), "{error}");
}
