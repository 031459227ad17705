//! What goes wrong on the way, by a server of our own: storms, cuts, circles, redirects, tokens.

use super::{connect, extract, fails, plan, read, source};
use crate::{Increment, NewRows, RejectSink, Scan};
use futures::TryStreamExt;
use gristmill_model::ErrorKind;
use gristmill_model::spec::OnFail;
use gristmill_testkit::scripted::{HttpServer, Received, Reply};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const PAGES: u64 = 6;
const SIZE: u64 = 10;

fn page(number: u64) -> Reply {
    let from = (number - 1) * SIZE;
    let rows: Vec<String> =
        if number > PAGES { vec![] } else { (from..from + SIZE).map(|id| format!("{{\"id\":{id}}}")).collect() };
    Reply::json(format!("{{\"data\":[{}],\"pages\":{PAGES}}}", rows.join(",")))
}

fn number(received: &Received) -> u64 {
    received.param("page").unwrap().parse().unwrap()
}

const PAGED: &str = "path: x\njson: {records: data}\nhttp: {paginate: {page: {}}}";
const COUNTED: &str =
    "path: x\njson: {records: data}\nhttp: {paginate: {page: {total: {pages: pages}}}, sample_pages: 1}";

/// The rows of a whole reading.
fn all() -> Vec<String> {
    let mut rows: Vec<String> = (0..PAGES * SIZE).map(|id| format!("{id}│")).collect();
    rows.sort();
    rows
}

/// Each page fails so many times, each time in another way.
fn storm(times: usize) -> HttpServer {
    let failed: Mutex<HashMap<u64, usize>> = Mutex::default();
    HttpServer::start(move |received, _| {
        let number = number(received);
        let mut failed = failed.lock().unwrap();
        let count = failed.entry(number).or_default();
        *count += 1;
        if *count > times {
            return page(number);
        }
        let good = page(number);
        let length = good.body.len();
        match (number as usize + *count) % 6 {
            0 => Reply::status(429, "slow down").header("Retry-After", "0"),
            1 => Reply::status(500, "oops"),
            2 => Reply::status(503, "soon").header("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
            3 => Reply::hang_up(),
            // Shorter than its length says, and whole but cut in its JSON.
            4 => good.cut(length / 2),
            _ => Reply { body: good.body[..length / 2].to_vec(), ..good },
        }
    })
}

#[tokio::test]
async fn a_storm_of_errors_neither_loses_nor_doubles_a_record() {
    for text in [PAGED, COUNTED] {
        let server = storm(2);
        let source = source(&connect(&server.url, ""), text);
        assert_eq!(read(source.as_ref()).await, all());
    }
}

#[tokio::test]
async fn a_storm_that_does_not_end_is_an_error_after_the_attempts() {
    let server = HttpServer::start(|_, _| Reply::status(502, "<html>bad gateway"));
    let source = source(&connect(&server.url, "attempts: 3"), PAGED);
    let error = fails(source.as_ref()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        error.to_string(),
        "tried 3 times: `GET /x` (page 1) was answered with 502 Bad Gateway: <html>bad gateway"
    );
    assert!(error.is_retryable(), "the step may be tried again");
    assert_eq!(server.received().len(), 3);
}

#[tokio::test]
async fn a_page_that_failed_is_asked_again_and_not_those_before_it() {
    let server = HttpServer::start(|received, before| match (number(received), before) {
        (4, 3) => Reply::status(500, ""),
        (number, _) => page(number),
    });
    let source = source(&connect(&server.url, ""), PAGED);
    assert_eq!(read(source.as_ref()).await, all());
    let asked: Vec<u64> = server.received().iter().map(number).collect();
    assert_eq!(asked, [1, 2, 3, 4, 4, 5, 6, 7], "pages that were looked at are not asked for again");
}

#[tokio::test]
async fn a_cut_answer_is_never_half_read() {
    let server = HttpServer::start(|received, _| match number(received) {
        number @ 1..=3 => page(number),
        number => {
            let reply = page(number);
            Reply { body: reply.body[..reply.body.len() - 3].to_vec(), ..reply }
        }
    });
    let source = source(&connect(&server.url, "attempts: 2"), PAGED);
    let schema = source.schema().await.unwrap();
    let scan = Scan { schema, batch_size: 1000, on_bad_row: OnFail::Fail, rejects: None };
    let unit = plan(source.as_ref(), 1).await.units.remove(0);
    let mut rows = source.read(&unit, &scan);
    let mut seen = 0;
    let error = loop {
        match rows.try_next().await {
            Ok(Some(batch)) => seen += batch.num_rows(),
            Ok(None) => panic!("it must fail"),
            Err(error) => break error,
        }
    };
    assert_eq!(seen as u64, 3 * SIZE);
    assert!(error.to_string().contains("ends in the middle of its JSON"), "{error}");
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_told_and_not_waited() {
    let server = HttpServer::start(|_, _| Reply::status(429, "").header("Retry-After", "7200"));
    let source = source(&connect(&server.url, "max_wait: 1m"), PAGED);
    let error = fails(source.as_ref()).await;
    assert!(error.to_string().starts_with("the server asks to wait 7200 seconds: "), "{error}");
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn what_stays_wrong_is_said_at_once_with_the_start_of_the_answer_and_no_secret() {
    let server = HttpServer::start(|received, _| {
        let sent = received.header("authorization").unwrap_or_default();
        Reply::status(422, format!("unknown   parameter for {sent} and {}\n{}", received.target, "x".repeat(500)))
    });
    let keys = "auth: {bearer: s3cr3t-token}\nparams: {account: acc-4711}";
    let source = source(&connect(&server.url, keys), PAGED);
    let error = fails(source.as_ref()).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(
        text.starts_with(
            "`GET /x` (page 1) was answered with 422 Unprocessable Entity: unknown parameter for Bearer …"
        ),
        "{text}"
    );
    assert!(!text.contains("s3cr3t") && !text.contains("4711") && text.len() < 700, "{text}");
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_shown() {
    let server =
        HttpServer::start(|_, _| Reply::status(200, "<html>Please log in</html>").header("Content-Type", "text/html"));
    let error = fails(source(&connect(&server.url, ""), PAGED).as_ref()).await;
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(
        error.message().contains("(text/html) is not JSON; it begins with `<html>Please log in</html>`"),
        "{error}"
    );
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn an_api_that_repeats_a_page_is_refused() {
    for text in [PAGED, COUNTED] {
        let server = HttpServer::start(|_, _| page(1));
        let error = fails(source(&connect(&server.url, ""), text).as_ref()).await;
        assert!(error.message().contains("byte for byte"), "{error}");
    }
    // One that goes round in a circle, too.
    let server = HttpServer::start(|received, before| {
        let next = if received.param("cursor") == Some("a") { "b" } else { "a" };
        Reply::json(format!("{{\"data\":[{{\"id\":{before}}}],\"next\":\"{next}\"}}"))
    });
    let text = "path: x\njson: {records: data}\nhttp: {paginate: {cursor: {path: next}}}";
    let error = fails(source(&connect(&server.url, ""), text).as_ref()).await;
    assert!(error.message().contains("leads back"), "{error}");
}

/// Pages that name the next one in every way there is.
fn chained(base: &Arc<Mutex<String>>, received: &Received) -> Reply {
    let at: u64 = match received.param("after") {
        Some(after) => after.parse().unwrap(),
        None => serde_json::from_str::<serde_json::Value>(&received.body)
            .ok()
            .and_then(|body| body["variables"]["after"].as_u64())
            .unwrap_or(0),
    };
    let rows: Vec<String> = (at..at + SIZE).map(|id| format!("{{\"id\":{id}}}")).collect();
    let more = at + SIZE < PAGES * SIZE;
    let next = if more { (at + SIZE).to_string() } else { "null".to_owned() };
    let link = if more { format!("\"{}x?after={}\"", base.lock().unwrap(), at + SIZE) } else { "\"\"".to_owned() };
    let reply = Reply::json(format!(
        "{{\"data\":[{}],\"meta\":{{\"next\":{next},\"more\":{more},\"link\":{link}}}}}",
        rows.join(",")
    ));
    if more { reply.header("X-Next", &(at + SIZE).to_string()) } else { reply }
}

#[tokio::test]
async fn tokens_and_links_are_followed_wherever_they_stand() {
    for http in [
        "{paginate: {cursor: {path: meta.next, param: after}}}",
        "{paginate: {cursor: {path: meta.next, param: after, more: meta.more}}}",
        "{paginate: {cursor: {header: x-next, param: after}}}",
        "{paginate: {next_link: {path: meta.link}}}",
        "{method: POST, body: {query: \"{ x }\"}, paginate: {cursor: {path: meta.next, param: variables.after, place: body}}}",
    ] {
        for base in ["/", ""] {
            let base = Arc::new(Mutex::new(base.to_owned()));
            let server = HttpServer::start(move |received, _| chained(&base, received));
            let text = format!("path: x\njson: {{records: data}}\nhttp: {http}");
            assert_eq!(read(source(&connect(&server.url, ""), &text).as_ref()).await, all(), "{http}");
            assert_eq!(server.received().len() as u64, PAGES, "{http}");
        }
    }
}

#[tokio::test]
async fn a_flag_that_is_no_boolean_does_not_end_the_pages() {
    let server = HttpServer::start(|_, _| Reply::json("{\"data\":[{\"id\":1}],\"next\":2,\"more\":1}"));
    let text = "path: x\njson: {records: data}\nhttp: {paginate: {cursor: {path: next, param: after, more: more}}}";
    let error = fails(source(&connect(&server.url, ""), text).as_ref()).await;
    assert!(error.message().contains("neither true nor false at `more`"), "{error}");
}

#[tokio::test]
async fn a_cursor_in_a_body_or_header_goes_with_links_as_well() {
    let links = Arc::new(Mutex::new(String::new()));
    let base = links.clone();
    let server = HttpServer::start(move |received, _| {
        let of_header = received.header("x-since").map(str::to_owned);
        let body: serde_json::Value = serde_json::from_str(&received.body).unwrap_or_default();
        let since = of_header.or_else(|| body["since"].as_str().map(str::to_owned)).unwrap_or_default();
        let second = received.param("p").is_some();
        // Without the cursor, there are older records.
        let id = if since == "5" { 6 + u64::from(second) } else { 1 };
        let next = if second { "null".to_owned() } else { format!("\"{}/x?p=2\"", base.lock().unwrap()) };
        Reply::json(format!("{{\"data\":[{{\"id\":\"{id}\"}}],\"next\":{next}}}"))
    });
    links.lock().unwrap().clone_from(&server.url);
    for (method, place, name) in
        [("POST", "body", "since"), ("GET", "header", "x-since"), ("POST", "header", "x-since")]
    {
        let text = format!(
            "path: x\nincremental_key: id\njson: {{records: data}}\nhttp: {{method: {method}, paginate: {{next_link: {{path: next}}}}, \
             incremental: {{start_param: {name}, place: {place}}}}}"
        );
        let api = connect(&server.url, "");
        let increment = Increment { column: "id".to_owned(), since: Some("5".into()), ..Increment::default() };
        let narrowed = source(&api, &text).narrow(&extract(&text), &increment).await.unwrap();
        let NewRows::Source(new) = narrowed.rows else { panic!("a source of its own") };
        assert_eq!(read(new.as_ref()).await, ["6│", "7│"], "{method}, {place}");
    }
}

#[tokio::test]
async fn the_last_record_can_be_the_token() {
    let server = HttpServer::start(|received, _| {
        let at: u64 = received.param("since").map_or(0, |since| since.parse::<u64>().unwrap() + 1);
        let rows: Vec<String> = (at..(at + 7).min(PAGES * SIZE)).map(|id| format!("{{\"id\":{id}}}")).collect();
        Reply::json(format!("[{}]", rows.join(",")))
    });
    let text = "path: x\nhttp: {paginate: {cursor: {path: \"[-1].id\", param: since}}}";
    assert_eq!(read(source(&connect(&server.url, ""), text).as_ref()).await, all());
}

/// Credentials as they came, all in one text.
fn credentials(received: &Received) -> String {
    let header = |name| received.header(name).unwrap_or("-").to_owned();
    format!("{} {} {}", header("authorization"), header("x-api-key"), received.param("key").unwrap_or("-"))
}

#[tokio::test]
async fn credentials_go_to_the_api_and_to_no_other_host() {
    let other = Arc::new(HttpServer::start(|_, _| Reply::json("{\"data\":[{\"id\":2}],\"next\":null}")));
    for (keys, sent) in [
        ("auth: {bearer: abcd}", "Bearer abcd - -"),
        ("auth: {basic: {user: u, password: p}}", "Basic dTpw - -"),
        ("auth: {api_key: {header: X-API-Key, value: abcd}}", "- abcd -"),
        ("auth: {api_key: {param: key, value: abcd}}", "- - abcd"),
        ("headers: {X-API-Key: abcd}", "- abcd -"),
        ("params: {key: abcd}", "- - abcd"),
    ] {
        for by_redirect in [false, true] {
            let target = other.url.clone();
            let server = HttpServer::start(move |received, _| match received.path() {
                "/x" => Reply::json(format!(
                    "{{\"data\":[{{\"id\":1}}],\"next\":\"{}\"}}",
                    if by_redirect { "/moved?p=2" } else { target.as_str() }
                )),
                _ => Reply::status(302, "").header("Location", &format!("{target}/y")),
            });
            let text = "path: x\njson: {records: data}\nhttp: {paginate: {next_link: {path: next}}, headers: {X-Api-Key: own}}";
            let text = if keys.contains("X-API-Key") {
                text.replace(", headers: {X-Api-Key: own}", "")
            } else {
                text.to_owned()
            };
            let expected = if keys.contains("X-API-Key") { sent.to_owned() } else { sent.replacen(" - ", " own ", 1) };
            let before = other.received().len();
            assert_eq!(read(source(&connect(&server.url, keys), &text).as_ref()).await, ["1│", "2│"], "{keys}");
            assert_eq!(credentials(&server.received()[0]), expected, "{keys}");
            let seen = other.received()[before..].to_vec();
            assert_eq!(seen.iter().map(credentials).collect::<Vec<_>>(), ["- - -"], "{keys}");
        }
    }
}

#[tokio::test]
async fn another_host_that_wants_credentials_is_told_so() {
    let other = HttpServer::start(|_, _| Reply::status(401, "who are you?"));
    let target = other.url.clone();
    let server = HttpServer::start(move |_, _| Reply::status(307, "").header("Location", &target));
    let error = fails(source(&connect(&server.url, "auth: {bearer: abcd}"), PAGED).as_ref()).await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.hint_text().unwrap().contains("another host"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let server = HttpServer::start(|received, _| match received.path() {
        "/x" => Reply::status(301, "").header("Location", &format!("/y?page={}", number(received))),
        "/y" => page(number(received)),
        _ => Reply::status(302, "").header("Location", "/round"),
    });
    assert_eq!(read(source(&connect(&server.url, ""), PAGED).as_ref()).await, all());
    let error = fails(source(&connect(&server.url, ""), "path: round").as_ref()).await;
    assert!(error.message().contains("redirected more than 10 times"), "{error}");
    let error = fails(source(&connect(&server.url, ""), "path: round\nhttp: {method: POST}").as_ref()).await;
    assert!(error.hint_text().unwrap().ends_with("/round` instead"), "{error}");
}

#[tokio::test]
async fn a_token_is_fetched_once_and_again_when_it_is_refused_or_has_run_out() {
    for (send, lives) in [("body", 3600), ("basic", 0)] {
        let given = AtomicUsize::new(0);
        let server = HttpServer::start(move |received, _| {
            if received.path() == "/token" {
                let count = given.fetch_add(1, Ordering::Relaxed) + 1;
                return Reply::json(format!(
                    "{{\"access_token\":\"t{count}\",\"token_type\":\"Bearer\",\"expires_in\":{lives}}}"
                ));
            }
            // The first token is refused from the fourth page on.
            match (received.header("authorization"), number(received)) {
                (Some("Bearer t1"), 4..) => Reply::status(401, "expired"),
                (Some(_), number) => page(number),
                (None, _) => Reply::status(401, "who?"),
            }
        });
        let keys = format!(
            "max_connections: 1\nauth: {{oauth2: {{token_url: \"{}/token\", client_id: me, client_secret: s3cr3t, scope: read all, params: {{audience: x}}, send: {send}}}}}",
            server.url
        );
        assert_eq!(read(source(&connect(&server.url, &keys), PAGED).as_ref()).await, all());
        let received = server.received();
        let tokens: Vec<&Received> = received.iter().filter(|received| received.path() == "/token").collect();
        assert_eq!(tokens.len(), if lives == 0 { 7 } else { 2 });
        let first = tokens[0];
        let (body, header) = match send {
            "body" => {
                ("grant_type=client_credentials&scope=read+all&audience=x&client_id=me&client_secret=s3cr3t", None)
            }
            _ => ("grant_type=client_credentials&scope=read+all&audience=x", Some("Basic bWU6czNjcjN0")),
        };
        assert_eq!((first.body.as_str(), first.header("authorization")), (body, header));
    }
}

#[tokio::test]
async fn a_token_that_is_not_given_is_an_error_without_the_secret() {
    let server = HttpServer::start(|received, _| Reply::status(400, format!("invalid_client {}", received.body)));
    let keys = format!(
        "auth: {{oauth2: {{token_url: \"{}/token?x=hidden\", client_id: me, client_secret: s3cr3t}}}}",
        server.url
    );
    let error = fails(source(&connect(&server.url, &keys), PAGED).as_ref()).await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(!error.to_string().contains("s3cr3t") && !error.to_string().contains("hidden"), "{error}");
    // A resource that refuses every token is asked twice, not for ever.
    let server = HttpServer::start(|received, _| match received.path() {
        "/token" => Reply::json("{\"access_token\":\"t\"}"),
        _ => Reply::status(401, "no"),
    });
    let keys =
        format!("auth: {{oauth2: {{token_url: \"{}/token\", client_id: me, client_secret: s3cr3t}}}}", server.url);
    assert_eq!(fails(source(&connect(&server.url, &keys), PAGED).as_ref()).await.kind(), ErrorKind::Denied);
    assert_eq!(server.received().len(), 4);
}

#[tokio::test]
async fn no_more_are_asked_at_once_than_the_connection_allows() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (here, top) = (now.clone(), most.clone());
    let server = HttpServer::start(move |received, _| {
        let count = here.fetch_add(1, Ordering::SeqCst) + 1;
        top.fetch_max(count, Ordering::SeqCst);
        // Long enough for others to come in, were they let.
        std::thread::sleep(std::time::Duration::from_millis(20));
        here.fetch_sub(1, Ordering::SeqCst);
        page(number(received))
    });
    let source = source(&connect(&server.url, "max_connections: 2"), COUNTED);
    let schema = source.schema().await.unwrap();
    let scan = Scan { schema, batch_size: 1000, on_bad_row: OnFail::Fail, rejects: None };
    let units = plan(source.as_ref(), 6).await.units;
    let lanes = units.iter().map(|unit| source.read(unit, &scan).collect());
    let rows: usize = futures::future::try_join_all(lanes).await.unwrap().iter().flatten().map(|b| b.num_rows()).sum();
    assert_eq!(rows as u64, PAGES * SIZE);
    assert!(most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn parents_without_children_may_answer_that_they_have_none() {
    let server = HttpServer::start(|received, _| match received.path() {
        "/p" => Reply::json("[{\"id\":1},{\"id\":2,\"n\":\"old\"},{\"id\":2,\"n\":\"new\"},{\"id\":\"a/b\"}]"),
        "/p/1/c" => Reply::status(404, "no children"),
        "/p/2/c" => Reply::json("[{\"x\":1}]"),
        "/p/a%2Fb/c" => Reply::json("[{\"x\":2}]"),
        other => Reply::status(400, other),
    });
    let text = |more: &str| format!("path: \"p/{{id}}/c\"\nhttp: {{for_each: {{path: p, include: {{p: id}}}}{more}}}");
    let error = fails(source(&connect(&server.url, ""), &text("")).as_ref()).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let rows = read(source(&connect(&server.url, ""), &text(", empty_on: [404]")).as_ref()).await;
    assert_eq!(rows, ["1│2│", "2│a/b│"], "a parent that is there twice is asked once");
    let named = text(", empty_on: [404]").replace("{p: id}", "{n: n}");
    let rows = read(source(&connect(&server.url, ""), &named).as_ref()).await;
    assert_eq!(rows, ["1│old│", "2│∅│"], "also when it is not the same in everything");
}

#[tokio::test]
async fn lines_and_tables_are_read_too() {
    let server = HttpServer::start(|received, _| match (received.path(), received.param("p")) {
        ("/lines", None) => Reply::status(200, "{\"id\":1}\n{\"id\":2}\n").header("Link", "</lines?p=2>; rel=\"next\""),
        ("/lines", _) => Reply::status(200, "{\"id\":3}"),
        _ => Reply::status(200, "id;name\n1;a\n2;b\n"),
    });
    let api = connect(&server.url, "");
    let lines = source(&api, "path: lines\nformat: ndjson\nhttp: {paginate: link_header}");
    assert_eq!(read(lines.as_ref()).await, ["1│", "2│", "3│"]);
    let table = source(&api, "path: table\nformat: csv\ncsv: {delimiter: \";\"}");
    assert_eq!(read(table.as_ref()).await, ["1│a│", "2│b│"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said() {
    let api = connect("http://127.0.0.1:1", "attempts: 1");
    let error = fails(source(&api, PAGED).as_ref()).await;
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_field_that_comes_later_is_told_of_or_refused_and_never_read_past_in_silence() {
    let server = HttpServer::start(|received, _| match number(received) {
        number @ 1..=3 => page(number),
        4 => Reply::json("{\"data\":[{\"id\":30,\"note\":null},{\"id\":31,\"refund\":{\"by\":1},\"note\":\"x\"}]}"),
        _ => page(PAGES + 1),
    });
    let api = connect(&server.url, "");
    let told = Arc::new(Mutex::new(Vec::new()));
    let reads = async |yaml: &str| {
        told.lock().unwrap().clear();
        let source = source(&api, yaml);
        let notes = told.clone();
        let rejects = RejectSink::none().noting_fields(move |field| {
            notes.lock().unwrap().push(field.to_owned());
            Ok(())
        });
        let schema = source.schema().await?;
        let scan = Scan { schema, batch_size: 1000, on_bad_row: OnFail::Fail, rejects: Some(rejects) };
        let unit = plan(source.as_ref(), 1).await.units.remove(0);
        let rows: usize = source.read(&unit, &scan).collect().await?.iter().map(|batch| batch.num_rows()).sum();
        Ok::<_, gristmill_model::Error>((rows, told.lock().unwrap().join(" ")))
    };
    assert_eq!(reads(PAGED).await.unwrap(), (32, "note refund".to_owned()));
    for more in ["schema: {note: text, refund: text}", "columns: [id]"] {
        assert_eq!(reads(&format!("{PAGED}\n{more}")).await.unwrap(), (32, String::new()), "{more}");
    }
    let looked = PAGED.replace("paginate", "sample_pages: 4, paginate");
    assert_eq!(source(&api, &looked).schema().await.unwrap().fields().len(), 3);
    assert_eq!(reads(&looked).await.unwrap().0, 32);
    let error = reads(&format!("{PAGED}\nschema_contract: freeze")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.to_string().contains("record 2: a record has the field `note`"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_silent_is_asked_again() {
    let (heard, hears) = std::sync::mpsc::channel();
    let hears = Mutex::new(hears);
    let server = HttpServer::start(move |received, before| {
        // The first request is not answered before the second has come, or the test is over.
        match before {
            0 => drop(hears.lock().unwrap().recv()),
            _ => drop(heard.send(())),
        }
        page(number(received))
    });
    let text = "path: \"x?page=1\"\njson: {records: data}";
    assert_eq!(read(source(&connect(&server.url, "timeout: 300ms"), text).as_ref()).await.len() as u64, SIZE);
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn a_limit_that_a_server_words_in_its_own_way_is_kept() {
    let server = HttpServer::start(|received, before| match before {
        0 => Reply::status(403, "limited").header("X-RateLimit-Remaining", "0").header("X-RateLimit-Reset", "1"),
        _ => page(number(received)),
    });
    assert_eq!(read(source(&connect(&server.url, ""), PAGED).as_ref()).await, all());
}

#[tokio::test]
async fn more_pages_than_there_may_be_are_refused_before_they_are_read() {
    let server = HttpServer::start(|received, _| page(number(received)));
    let text = COUNTED.replace("sample_pages: 1", "sample_pages: 1, max_pages: 5");
    let error = fails(source(&connect(&server.url, ""), &text).as_ref()).await;
    assert!(error.message().ends_with("there are 6 pages, more than 5"), "{error}");
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn an_answer_of_another_kind_does_not_end_the_pages_in_silence() {
    let server = HttpServer::start(|received, _| match number(received) {
        number @ 1..=4 => page(number),
        _ => Reply::json("{\"message\":\"come back tomorrow\"}"),
    });
    let api = connect(&server.url, "");
    let error = fails(source(&api, PAGED).as_ref()).await;
    assert!(error.message().contains("nothing at `data`; the answer begins with `{\"message\":\"come"), "{error}");
    let lenient = PAGED.replace("paginate", "missing_records: empty, paginate");
    assert_eq!(read(source(&api, &lenient).as_ref()).await.len() as u64, 4 * SIZE);
}
