//! What other clients lose, double or show in such a case: pages of odd sizes, links and numbers that are not read, secrets that
//! are sent back, servers that drip.

use super::{connect, fails, plan, read, source};
use crate::Connection;
use gristmill_testkit::scripted::{HttpServer, Received, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn number(received: &Received) -> u64 {
    received.param("page").unwrap_or("1").parse().unwrap()
}

fn records(ids: impl Iterator<Item = u64>) -> String {
    ids.map(|id| format!("{{\"id\":{id}}}")).collect::<Vec<_>>().join(",")
}

fn rows(ids: std::ops::Range<u64>) -> Vec<String> {
    let mut rows: Vec<String> = ids.map(|id| format!("{id}│")).collect();
    rows.sort();
    rows
}

/// Pages of sizes that nobody asked for: page `n` has the records between the edges `n - 1` and `n`.
fn sized(edges: &'static [u64], total: u64) -> HttpServer {
    HttpServer::start(move |received, _| {
        let at = number(received) as usize;
        let ids = match (edges.get(at - 1), edges.get(at)) {
            (Some(from), Some(to)) => *from..*to,
            _ => 0..0,
        };
        Reply::json(format!("{{\"data\":[{}],\"total\":{total}}}", records(ids)))
    })
}

/// The first of 45 records in pages of which one of the first two is odd.
const UNEVEN: [&[u64]; 2] = [&[0, 5, 15, 25, 35, 45], &[0, 20, 25, 30, 35, 40, 45]];

/// A later one is.
const LATE: [&[u64]; 4] =
    [&[0, 10, 20, 25, 35, 45], &[0, 10, 20, 30, 32, 42], &[0, 10, 20, 20, 30, 40], &[0, 10, 20, 40, 45]];

const TOTAL: &str =
    "path: x\njson: {records: data}\nhttp: {paginate: {page: {total: {records: total}}}, sample_pages: 2}";

#[tokio::test]
async fn pages_whose_size_the_server_chooses_are_read_whole_or_refused() {
    // Of one size: in parallel.
    let server = sized(&[0, 10, 20, 30, 40, 45], 45);
    let api = connect(&server.url, "");
    let even = source(&api, TOTAL);
    assert_eq!(plan(even.as_ref(), 2).await.units.len(), 5);
    assert_eq!(read(even.as_ref()).await, rows(0..45));
    // The first is short, or long: one after the other.
    for edges in UNEVEN {
        let server = sized(edges, 45);
        let api = connect(&server.url, "");
        let odd = source(&api, TOTAL);
        let planned = plan(odd.as_ref(), 2).await;
        assert_eq!((planned.units.len(), planned.why.contains("not of one size")), (1, true), "{}", planned.why);
        assert_eq!(read(odd.as_ref()).await, rows(0..45));
    }
    // One that is seen too late to go another way.
    for edges in LATE {
        let server = sized(edges, 45);
        let error = fails(source(&connect(&server.url, ""), TOTAL).as_ref()).await;
        assert!(error.message().contains("records"), "{error}");
        let one = format!("{TOTAL}\nunits: {{strategy: none}}");
        let one = super::try_read(source(&connect(&server.url, ""), &one).as_ref()).await;
        let whole = one.map(|batches| crate::conformance::sorted_rows(&batches).unwrap());
        assert!(whole.as_ref().map_or(true, |read| *read == rows(0..45)), "{edges:?}: {whole:?}");
    }
}

#[tokio::test]
async fn the_last_share_goes_on_where_records_came_meanwhile() {
    let server = HttpServer::start(|received, _| {
        let at = number(received);
        let total = if at > 2 { 57 } else { 45 };
        Reply::json(format!("{{\"data\":[{}],\"total\":{total}}}", records((at - 1) * 10..(at * 10).min(total))))
    });
    assert_eq!(read(source(&connect(&server.url, ""), TOTAL).as_ref()).await, rows(0..57));
}

#[tokio::test]
async fn a_page_that_counts_itself_is_still_a_page_that_repeats() {
    let server = HttpServer::start(|received, _| {
        let at = number(received);
        Reply::json(format!("{{\"page\":{at},\"data\":[{}]}}", records((at.min(3) - 1) * 10..at.min(3) * 10)))
    });
    let text = "path: x\njson: {records: data}\nhttp: {paginate: {page: {}}}";
    let error = fails(source(&connect(&server.url, ""), text).as_ref()).await;
    assert!(error.message().contains("byte for byte"), "{error}");
}

#[tokio::test]
async fn numbers_of_parents_are_sent_as_they_are_written() {
    const BIG: &str = "123456789012345678901234567890";
    let server = HttpServer::start(|received, _| match received.path() {
        "/p" => Reply::json(format!("[{{\"id\":{BIG},\"v\":1.50}},{{\"id\":18446744073709551616,\"v\":2}}]")),
        path => {
            let body: String = received.body.split_whitespace().collect();
            Reply::json(format!(
                "[{{\"said\":\"{path} {} {}\"}}]",
                received.param("v").unwrap(),
                body.replace('"', "'")
            ))
        }
    });
    let text = "path: \"c/{id}\"\nhttp: {method: POST, params: {v: \"{v}\"}, body: {of: \"{id}\"}, for_each: {path: p, include: {id: id}}}";
    let children = source(&connect(&server.url, ""), text);
    assert_eq!(
        read(children.as_ref()).await,
        [
            format!("/c/{BIG} 1.50 {{'of':{BIG}}}│{BIG}│"),
            "/c/18446744073709551616 2 {'of':18446744073709551616}│18446744073709551616│".to_owned(),
        ]
    );
    assert_eq!(children.schema().await.unwrap().field(1).data_type(), &arrow::datatypes::DataType::Decimal128(30, 0));
}

#[tokio::test]
async fn parents_that_are_asked_for_alike_are_one() {
    let server = HttpServer::start(|received, _| match received.path() {
        "/p" => Reply::json("[{\"id\":1},{\"id\":\"1\"},{\"id\":2}]"),
        path => Reply::json(format!("[{{\"said\":\"{path}{}\"}}]", received.body.replace('"', "'"))),
    });
    let children = source(&connect(&server.url, ""), "path: \"c/{id}\"\nhttp: {for_each: {path: p}}");
    assert_eq!(read(children.as_ref()).await, ["/c/1│", "/c/2│"]);
    // In a body, a number is not its text.
    let text = "path: c\nhttp: {method: POST, body: {of: \"{id}\"}, for_each: {path: p}}";
    let children = source(&connect(&server.url, ""), text);
    assert_eq!(read(children.as_ref()).await, ["/c{'of':'1'}│", "/c{'of':1}│", "/c{'of':2}│"]);
}

#[tokio::test]
async fn a_parent_without_a_text_does_not_ask_for_everything() {
    let server = HttpServer::start(|_, _| Reply::json("[{\"id\":\"\"}]"));
    let text = "path: \"p/{id}\"\nhttp: {for_each: {path: p}}";
    let error = fails(source(&connect(&server.url, ""), text).as_ref()).await;
    assert!(error.message().contains("record 1 has no value at `id`"), "{error}");
}

#[tokio::test]
async fn a_token_that_is_a_large_number_goes_back_as_it_came() {
    const BIG: &str = "98765432109876543210987654321";
    let server = HttpServer::start(|received, _| match received.body.contains(BIG) {
        false => Reply::json(format!("{{\"data\":[{{\"id\":0}}],\"next\":{BIG}}}")),
        true => {
            assert!(received.body.contains(&format!(":{BIG}}}")), "a number, not a text: {}", received.body);
            Reply::json("{\"data\":[{\"id\":1}],\"next\":null}")
        }
    });
    let text = "path: x\njson: {records: data}\nhttp: {method: POST, paginate: {cursor: {path: next, param: after, place: body}}}";
    assert_eq!(read(source(&connect(&server.url, ""), text).as_ref()).await, rows(0..2));
}

#[tokio::test]
async fn tokens_that_were_fetched_are_not_shown() {
    let server = HttpServer::start(|received, _| match received.path() {
        "/token" => Reply::json("{\"access_token\":\"fetched/s3cr3t+1\",\"token_type\":\"Bearer\"}"),
        _ => {
            let sent = received.header("authorization").unwrap_or_default().to_owned();
            // A part of what was sent, as servers do that take the name of the scheme off.
            let own = received.header("x-own").unwrap_or_default();
            let own = own.rsplit(' ').next().unwrap_or_default().to_owned();
            Reply::status(422, format!("{{\"you sent\": \"{}\", \"and\": \"{own}\"}}", sent.replace('/', "\\/")))
                .header("Content-Type", &sent)
        }
    });
    let keys = format!(
        "auth: {{oauth2: {{token_url: \"{}/token\", client_id: me, client_secret: other-s3cr3t}}}}",
        server.url
    );
    let text = "path: x\nhttp: {headers: {X-Own: Bearer own-s3cr3t}}";
    let error = fails(source(&connect(&server.url, &keys), text).as_ref()).await;
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("you sent") && !shown.contains("s3cr3t"), "{shown}");
}

#[tokio::test]
async fn headers_that_are_no_ascii_lead_on() {
    let server = HttpServer::start(|received, _| match received.param("after") {
        None => Reply::json("[{\"id\":0}]").header("Link", "</x?after=S\u{e3}o>; title=\"p\u{e1}gina\"; rel=\"next\""),
        // The bytes of the header, whatever they are letters of.
        Some("S%E3o") => Reply::json("[{\"id\":1}]"),
        Some(other) => Reply::status(400, other),
    });
    let api = connect(&server.url, "");
    assert_eq!(read(source(&api, "path: x\nhttp: {paginate: link_header}").as_ref()).await, rows(0..2));
    let server = HttpServer::start(|received, _| match received.param("after") {
        None => Reply::json("[{\"id\":0}]").header("X-Next", "S\u{c3}\u{a3}o"),
        Some("S%C3%A3o") => Reply::json("[{\"id\":1}]").header("X-Next", "S\u{e3}o"),
        Some(other) => Reply::status(400, other),
    });
    let text = "path: x\nhttp: {paginate: {cursor: {header: x-next, param: after}}}";
    let error = fails(source(&connect(&server.url, ""), text).as_ref()).await;
    assert!(error.message().contains("the header `x-next`"), "{error}");
    let server = HttpServer::start(|_, _| Reply::json("[{\"id\":0}]").header("Link", "/x?p=2; rel=\"next\""));
    let error = fails(source(&connect(&server.url, ""), "path: x\nhttp: {paginate: link_header}").as_ref()).await;
    assert!(error.message().contains("the header `Link`"), "{error}");
}

#[tokio::test]
async fn a_server_that_drips_is_asked_again() {
    let server = HttpServer::start(|_, before| match before {
        0 => Reply::json("[{\"id\":0}").dripping(),
        _ => Reply::json("[{\"id\":0}]"),
    });
    let api = connect(&server.url, "request_timeout: 1s");
    assert_eq!(read(source(&api, "path: x").as_ref()).await, rows(0..1));
    assert_eq!(server.received().len(), 2);
    let server = HttpServer::start(|_, _| Reply::json("[").dripping());
    let error = fails(source(&connect(&server.url, "request_timeout: 300ms\nattempts: 1"), "path: x").as_ref()).await;
    assert!(error.is_retryable() && error.message().contains("not answered in full within 300ms"), "{error}");
}

#[tokio::test]
async fn a_link_is_followed_as_it_is_with_what_the_connection_adds() {
    let server = HttpServer::start(|received, _| {
        let said = received.target.clone();
        let next = match received.path() {
            "/x" => "\"/y?page=2\"",
            "/y" => "\"/z?account=other\"",
            "/z" => "\"/moved\"",
            "/moved" => return Reply::status(307, "").header("Location", "/end?at=1"),
            _ => "null",
        };
        Reply::json(format!("{{\"data\":[{{\"said\":\"{said}\"}}],\"next\":{next}}}"))
    });
    let keys = "params: {account: acc1}\nauth: {api_key: {param: key, value: k1}}";
    let text = "path: x\njson: {records: data}\nhttp: {params: {status: open}, paginate: {next_link: {path: next}}}";
    assert_eq!(
        read(source(&connect(&server.url, keys), text).as_ref()).await,
        [
            "/end?at=1&account=acc1&key=k1│",
            "/x?status=open&account=acc1&key=k1│",
            "/y?page=2&account=acc1&key=k1│",
            "/z?account=other&key=k1│",
        ]
    );
}

#[tokio::test]
async fn a_link_that_has_gone_is_not_the_end() {
    let server = HttpServer::start(|received, _| match received.param("p") {
        None => Reply::json("{\"data\":[{\"id\":0}],\"next\":\"/x?p=2\",\"more\":true}"),
        _ => Reply::status(404, "this token has run out"),
    });
    let api = connect(&server.url, "");
    for rule in ["next_link: {path: next}", "cursor: {path: next, param: p, more: more}"] {
        let text = format!("path: x\njson: {{records: data}}\nhttp: {{empty_on: [404], paginate: {{{rule}}}}}");
        let error = fails(source(&api, &text).as_ref()).await;
        assert!(error.message().contains("says that there is another"), "{error}");
    }
    // A token that says nothing about what is behind it.
    let text = "path: x\njson: {records: data}\nhttp: {empty_on: [404], paginate: {cursor: {path: \"data[-1].id\", param: p}}}";
    assert_eq!(read(source(&api, text).as_ref()).await, rows(0..1));
}

#[tokio::test]
async fn an_answer_of_nothing_but_errors_is_not_the_end() {
    let server = HttpServer::start(|received, _| match received.param("after") {
        None => Reply::json("{\"data\":{\"orders\":[{\"id\":0}]},\"next\":\"t\"}"),
        Some(_) => Reply::json("{\"data\":null,\"errors\":[{\"message\":\"too complex\"}]}"),
    });
    let text = "path: x\njson: {records: data.orders}\nhttp: {paginate: {cursor: {path: next, param: after}}}";
    let error = fails(source(&connect(&server.url, ""), text).as_ref()).await;
    assert!(error.message().contains("nothing at `data.orders`") && error.message().contains("too complex"), "{error}");
}

#[tokio::test]
async fn an_error_is_the_status_whatever_its_text_is_packed_in() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = HttpServer::start(move |_, _| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(503, "?").header("Content-Encoding", "br"),
        1 => Reply::status(503, "not gzip").header("Content-Encoding", "gzip"),
        _ => Reply::json("[{\"id\":0}]"),
    });
    assert_eq!(read(source(&connect(&server.url, ""), "path: x").as_ref()).await, rows(0..1));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_line_that_was_cut_is_asked_for_again() {
    let server = HttpServer::start(|_, before| match before {
        0 => Reply::status(200, "{\"id\":0}\n{\"id\":"),
        _ => Reply::status(200, "{\"id\":0}\n{\"id\":1}"),
    });
    let text = "path: x\nformat: ndjson\non_bad_row: drop";
    assert_eq!(read(source(&connect(&server.url, ""), text).as_ref()).await, rows(0..2));
}

#[tokio::test]
async fn no_page_is_kept_for_a_job_that_has_ended() {
    let server = HttpServer::start(|_, _| Reply::json("[{\"id\":0}]"));
    let folder = tempfile::tempdir().unwrap();
    let context = crate::OpenContext { project: folder.path().into(), state: folder.path().into() };
    let keys = gristmill_model::yaml::parse("gristmill.yaml", &format!("url: {}", server.url)).unwrap();
    let kept: Arc<dyn Connection> = crate::sources::http::open(&keys, &context).unwrap();
    for (ends, requests) in [(false, 1), (true, 1), (false, 2)] {
        let source = source(&kept, "path: x");
        source.within("run/load/x");
        assert_eq!(read(source.as_ref()).await, rows(0..1));
        assert_eq!(server.received().len(), requests);
        if ends {
            kept.ended("run/load");
        }
    }
}

#[test]
fn no_time_at_all_is_refused() {
    for key in ["timeout", "request_timeout"] {
        let said = super::try_connect(&format!("url: https://h\n{key}: 0s")).unwrap_err();
        assert!(said.contains(&format!("`{key}` is no time at all")), "{said}");
    }
}
