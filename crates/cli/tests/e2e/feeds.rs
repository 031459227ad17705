//! Incremental extracts of what only grows by itself: an HTTP API, and a folder that files come into.

use crate::support::{Folder, Said};
use gristmill_testkit::json_server::JsonServer;
use gristmill_testkit::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use gristmill_testkit::scripted::{HttpServer, Received, Reply};
use serde_json::json;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const DAY: &str = "2024-01-15";

/// A project that loads `new` from `extract` into a table and a folder.
fn project(source: &str, extract: &str) -> Folder {
    let folder = Folder::new();
    folder.write(
        "gristmill.yaml",
        format!(
            "name: grow\nmain: p\nconnections:\n  from: {source}\n  out: {{type: sqlite, path: out.db}}\n  lake: {{type: files, url: ./lake}}\n"
        ),
    );
    append(&folder, extract);
    folder
}

fn append(folder: &Folder, extract: &str) {
    loads(
        folder,
        extract,
        "  ids: {sql: \"select id from new\"}\n  to_db: {load: {from: ids, to: out, table: t, strategy: append}}\n  to_lake: {load: {from: new, to: lake, path: t/, strategy: append}}\n",
    );
}

fn loads(folder: &Folder, extract: &str, loads: &str) {
    folder
        .write("pipelines/p.yaml", format!("name: p\nsteps:\n  new: {{extract: {{from: from, {extract}}}}}\n{loads}"));
}

fn run(folder: &Folder, more: &[&str]) -> Said {
    folder.run(&[&["run", ".", "--date", DAY], more].concat())
}

#[track_caller]
fn succeed(folder: &Folder) -> String {
    let said = run(folder, &[]);
    assert_eq!(said.code, Some(0), "{said}");
    said.out
}

/// What is loaded, of both targets, which must agree.
#[track_caller]
fn ids(folder: &Folder) -> String {
    let database = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
    let sql = "select coalesce(group_concat(id, ' '), '') from (select id from t order by id)";
    let ids: String = database.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(folder.rows("select id from 'lake/t/' order by id").join(" "), ids);
    ids
}

fn order(id: u32, at: &str) -> serde_json::Value {
    json!({"id": id, "meta": {"at": format!("2024-01-10T{at}Z")}, "at": format!("2024-01-10T{at}Z")})
}

const ASKED: &str = "path: orders, incremental_key: at, lag: 2h, http: {incremental: {start_param: at_gte}, paginate: {page: {param: _page, size_param: _limit, size: 2}}}";

#[test]
fn an_api_is_asked_for_what_is_new_and_each_record_is_loaded_once() {
    let orders = json!([order(1, "08:00:00"), order(2, "09:30:00"), order(3, "10:00:00")]);
    let server = JsonServer::start(&json!({"orders": orders}).to_string());
    let add = |id, at| server.add("orders", &order(id, at).to_string()).unwrap();
    let folder = project(&format!("{{type: http, url: {}}}", server.url), ASKED);
    let said = succeed(&folder);
    assert!(said.contains("at from the beginning to 2024-01-10T10:00:00Z"), "{said}");
    let said = succeed(&folder);
    assert!(said.contains("3 rows were loaded before and left out"), "{said}");
    assert_eq!(ids(&folder), "1 2 3");
    // Late within the lag, at the very cursor, and too late.
    add(4, "08:30:00");
    add(5, "10:00:00");
    add(6, "07:00:00");
    folder.ok(&["run", ".", "--date", "2024-01-20"]);
    assert_eq!(ids(&folder), "1 2 3 4 5");
    // Only the late ones come, and the cursor stays where it is; the store may be lost meanwhile.
    std::fs::remove_dir_all(folder.path().join(".gristmill")).unwrap();
    add(7, "09:59:59");
    add(8, "11:00:00");
    succeed(&folder);
    succeed(&folder);
    assert_eq!(ids(&folder), "1 2 3 4 5 7 8");
    // Another path or parameter may give older records, which would be missed.
    append(&folder, &ASKED.replace("http: {", "http: {params: {id_gte: 1}, "));
    let refused = run(&folder, &[]);
    assert!(
        refused.code == Some(2) && refused.error().contains("is not the one that its cursor was made with"),
        "{refused}"
    );
    // Another page size gives the same.
    append(&folder, &ASKED.replace("size: 2", "size: 3"));
    succeed(&folder);
    assert_eq!(ids(&folder), "1 2 3 4 5 7 8");
    append(&folder, &ASKED.replace("incremental_key: at", "incremental_key: meta.at"));
    assert!(run(&folder, &[]).error().contains("the `incremental_key` of `new` is not the one"));
    assert_eq!(run(&folder, &["--full-refresh"]).code, Some(0));
    succeed(&folder);
    assert_eq!(ids(&folder), "1 2 3 4 5 6 7 8");
}

/// Answers pages of two records that are not older than `since`, whose clock only knows days.
fn by_days(records: &Arc<Mutex<Vec<serde_json::Value>>>) -> HttpServer {
    let records = records.clone();
    HttpServer::start(move |received, before| {
        // Every third request fails in its own way.
        match before % 6 {
            2 => return Reply::status(503, "soon").header("Retry-After", "0"),
            5 => return Reply::hang_up(),
            _ => {}
        }
        let since = received.param("since").unwrap_or_default().to_owned();
        let page: usize = received.param("page").unwrap().parse().unwrap();
        let all: Vec<serde_json::Value> = records.lock().unwrap().clone();
        let wanted = all.into_iter().filter(|record| record["at"].as_str().unwrap()[..10] >= *since);
        let some: Vec<serde_json::Value> = wanted.skip((page - 1) * 2).take(2).collect();
        Reply::json(serde_json::Value::from(some).to_string())
    })
}

#[test]
fn an_api_that_gives_more_than_it_was_asked_for_or_nothing_at_all_loads_what_is_new() {
    let records: Arc<Mutex<Vec<serde_json::Value>>> =
        Arc::new(Mutex::new(vec![order(1, "08:00:00"), json!({"id": 2, "at": "2024-01-11T09:00:00Z", "price": 5})]));
    let server = by_days(&records);
    let folder = project(
        &format!("{{type: http, url: {}}}", server.url),
        "path: orders, incremental_key: at, http: {incremental: {start_param: since, initial_value: 2024-01-10, format: date}, paginate: {page: {}}}",
    );
    succeed(&folder);
    let sent = |received: &Received| received.param("since").unwrap_or_default().to_owned();
    assert!(server.received().iter().all(|received| sent(received) == "2024-01-10"));
    // The API answers with the whole day: the record before the cursor, which was loaded, is not loaded again.
    records.lock().unwrap().extend([
        json!({"id": 3, "at": "2024-01-11T08:00:00Z"}),
        json!({"id": 4, "at": "2024-01-11T10:00:00Z", "price": 2.5}),
    ]);
    let said = succeed(&folder);
    assert!(said.contains("1 row came that was not asked for"), "{said}");
    assert_eq!(ids(&folder), "1 2 4");
    assert_eq!(folder.rows("select id, price from 'lake/t/' where price is not null order by id"), ["2,5.0", "4,2.5"]);
    // Nothing at all: the columns are those that were loaded before.
    records.lock().unwrap().clear();
    let said = succeed(&folder);
    assert!(said.contains("at from 2024-01-11T10:00:00Z to 2024-01-11T10:00:00Z"), "{said}");
    records.lock().unwrap().push(json!({"id": 5, "at": "2024-01-12T00:00:00Z"}));
    succeed(&folder);
    assert_eq!(ids(&folder), "1 2 4 5");
    // Without a time that could be compared, nothing is loaded.
    records.lock().unwrap().push(json!({"id": 6, "at": "2024-01-12 at noon"}));
    assert!(run(&folder, &[]).error().contains("`2024-01-12 at noon`"));
    assert_eq!(ids(&folder), "1 2 4 5");
}

fn touch(folder: &Folder, path: &str, hours_ago: u64) {
    let file = std::fs::File::options().write(true).open(folder.path().join(path)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(hours_ago * 3600)).unwrap();
}

const FILES: &str = "path: \"in/*.csv\", incremental_key: file_modified";

#[test]
fn each_file_is_loaded_once_whenever_it_comes_and_whatever_its_time() {
    let folder = project("{type: files, url: .}", FILES);
    let first = run(&folder, &[]);
    assert!(first.code == Some(1) && first.error().contains("no file matches"), "{first}");
    folder.write("in/b.csv", "id,note\n1,x\n2,y\n").write("in/c.csv", "id,note\n3,z\n");
    let said = succeed(&folder);
    assert!(said.contains("2 new files of 2"), "{said}");
    let said = succeed(&folder);
    assert!(said.contains("no new files of 2"), "{said}");
    assert_eq!(ids(&folder), "1 2 3");
    // Older than all of them, with a name before theirs and a column that is empty.
    folder.write("in/a.csv", "id,note\n4,\n");
    touch(&folder, "in/a.csv", 1000);
    folder.ok(&["run", ".", "--date", "2024-01-02"]);
    assert_eq!(ids(&folder), "1 2 3 4");
    // The record is in the target: neither the store nor the step's name matters. A folder may be emptied.
    std::fs::remove_dir_all(folder.path().join(".gristmill")).unwrap();
    std::fs::remove_dir_all(folder.path().join("in")).unwrap();
    let said = succeed(&folder);
    assert!(said.contains("no new files of 0"), "{said}");
    folder.write("in/d.csv", "id,note\n5,w\n");
    succeed(&folder);
    assert_eq!(ids(&folder), "1 2 3 4 5");
    // What has changed cannot be added.
    folder.write("in/d.csv", "id,note\n5,w\n6,v\n");
    let refused = run(&folder, &[]);
    assert!(
        refused.code == Some(1) && refused.error().contains("`in/d.csv` has changed since it was loaded"),
        "{refused}"
    );
    assert_eq!(ids(&folder), "1 2 3 4 5");
    assert_eq!(run(&folder, &["--full-refresh"]).code, Some(0));
    assert_eq!(ids(&folder), "5 6");
    for (extract, message) in [
        ("path: \"in/*.csv\", incremental_key: id", "`incremental_key: id` is not for files"),
        ("path: \"in/*.csv\", incremental_key: file_modified, lag: 2h", "`lag` is not for files"),
    ] {
        append(&folder, extract);
        let refused = run(&folder, &["--full-refresh"]);
        assert!(refused.code != Some(0) && refused.error().contains(message), "{extract}: {refused}");
    }
}

#[test]
fn one_folder_of_several_may_be_emptied() {
    let extract = "path: [\"a/*.csv\", \"b/*.csv\"], incremental_key: file_modified";
    let folder = project("{type: files, url: .}", extract);
    folder.write("a/1.csv", "id,note\n1,x\n").write("b/1.csv", "id,note\n2,y\n");
    succeed(&folder);
    std::fs::remove_dir_all(folder.path().join("a")).unwrap();
    folder.write("b/2.csv", "id,note\n3,z\n");
    let said = succeed(&folder);
    assert!(said.contains("1 new file of 2"), "{said}");
    assert_eq!(ids(&folder), "1 2 3");
}

#[test]
fn files_that_change_are_read_again_where_their_rows_replace_what_they_were() {
    let folder = project("{type: files, url: .}", FILES);
    loads(&folder, FILES, "  to_db: {load: {from: new, to: out, table: t, strategy: delete+insert, key: [id]}}\n");
    folder.write("in/a.csv", "id,note\n1,x\n2,y\n").write("in/b.csv", "id,note\n3,z\n");
    succeed(&folder);
    folder.write("in/a.csv", "id,note\n1,new\n2,y\n4,v\n");
    let said = succeed(&folder);
    assert!(said.contains("no new files of 2; 1 changed file read again"), "{said}");
    let database = rusqlite::Connection::open(folder.path().join("out.db")).unwrap();
    let sql = "select group_concat(id || note, ' ') from (select * from t order by id)";
    let rows: String = database.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, "1new 2y 3z 4v");
}

#[test]
fn objects_of_a_bucket_are_loaded_once_each() {
    let server = S3Server::start(&["landing"]).unwrap();
    let source = format!(
        "{{type: files, url: \"s3://landing/in\", endpoint: \"{}\", region: us-east-1, access_key_id: {ACCESS_KEY}, secret_access_key: {SECRET_KEY}}}",
        server.endpoint
    );
    let folder = project(&source, "path: \"day=*/*.ndjson\", incremental_key: file_modified");
    let put = |file: &str, text: &str| {
        folder.write("one.ndjson", text);
        folder.ok(&["copy", "one.ndjson", &format!("from:{file}"), "--strategy", "replace"]);
    };
    put("day=2024-01-01/a.ndjson", "{\"id\":1}\n");
    put("day=2024-01-02/b.ndjson", "{\"id\":2}\n");
    for _ in 0..2 {
        succeed(&folder);
        assert_eq!(ids(&folder), "1 2");
    }
    put("day=2024-01-01/c.ndjson", "{\"id\":3, \"more\": true}\n");
    succeed(&folder);
    assert_eq!(ids(&folder), "1 2 3");
    put("day=2024-01-02/b.ndjson", "{\"id\":9}\n");
    assert!(run(&folder, &[]).error().contains("`day=2024-01-02/b.ndjson` has changed"));
    assert_eq!(ids(&folder), "1 2 3");
}

#[test]
fn a_run_that_is_killed_once_its_target_has_decided_loads_no_file_twice() {
    let folder = project("{type: files, url: .}", FILES);
    folder.write("in/0.csv", "id,note\n0,x\n");
    succeed(&folder);
    let log = folder.path().join("lake/t/_gristmill/log");
    let entries = || std::fs::read_dir(&log).unwrap().count();
    for file in 1..6 {
        folder.write(&format!("in/{file}.csv"), format!("id,note\n{file},x\n"));
        let before = entries();
        let args = ["run", ".", "--date", DAY];
        let mut child = folder.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() && entries() == before {
            std::thread::yield_now();
        }
        let _ended = child.kill();
        child.wait().unwrap();
        succeed(&folder);
        let wanted: Vec<String> = (0..=file).map(|id| id.to_string()).collect();
        assert_eq!(ids(&folder), wanted.join(" "));
    }
}

#[test]
fn a_field_that_was_not_among_those_looked_at_is_told_of_whatever_the_source() {
    let rows = |from: u32, to: u32| {
        let row = |id| if id == 2400 { format!("{{\"id\":{id},\"late\":1}}") } else { format!("{{\"id\":{id}}}") };
        (from..to).map(row).collect::<Vec<_>>()
    };
    let server = HttpServer::start(move |received, _| {
        let page: u32 = received.param("page").unwrap().parse().unwrap();
        let some = if page > 5 { Vec::new() } else { rows((page - 1) * 500, page * 500) };
        Reply::json(format!("[{}]", some.join(",")))
    });
    let api = format!("{{type: http, url: {}}}", server.url);
    // So many that the last one is not looked at for columns.
    let many: Vec<String> = (0..400_000).map(|id| format!("{{\"id\":{id}}}")).collect();
    let many = format!("{}\n{{\"id\":7,\"late\":1}}\n", many.join("\n"));
    for (source, extract, count) in [
        (api.as_str(), "path: x, http: {paginate: {page: {}}}", "2500"),
        ("{type: files, url: .}", "path: many.ndjson", "400001"),
    ] {
        let folder = project(source, extract);
        folder.write("many.ndjson", &many);
        let said = succeed(&folder);
        assert!(said.contains("`late` (1 record)"), "{said}");
        assert_eq!(folder.rows("select count(*) from 'lake/t/'"), [count]);
        append(&folder, &format!("{extract}, schema: {{late: int}}, schema_contract: freeze"));
        folder.ok(&["run", ".", "--date", "2024-01-16"]);
        append(&folder, &format!("{extract}, schema_contract: freeze"));
        let refused = folder.run(&["run", ".", "--date", "2024-01-17"]);
        assert!(refused.error().contains("a record has the field `late`"), "{refused}");
    }
}

#[test]
fn a_record_with_a_field_that_was_not_among_those_looked_at_is_left_out_where_that_is_said() {
    let server = HttpServer::start(|received, _| {
        let page: u32 = received.param("page").unwrap().parse().unwrap();
        let row = |id| match id {
            41 => "{\"id\":41,\"late\":1}".to_owned(),
            42 => "{\"id\":42,\"late\":null}".to_owned(),
            id => format!("{{\"id\":{id}}}"),
        };
        let rows: Vec<String> = if page > 5 { Vec::new() } else { ((page - 1) * 10..page * 10).map(row).collect() };
        Reply::json(format!("[{}]", rows.join(",")))
    });
    let api = format!("{{type: http, url: {}}}", server.url);
    let paged = "path: x, incremental_key: id, http: {sample_pages: 1, paginate: {page: {}}}, schema_contract: ";
    let folder = project(&api, &format!("{paged}discard_row"));
    let said = succeed(&folder);
    assert!(said.contains("`late` (1 record)"), "{said}");
    assert_eq!(folder.rows("select count(*), sum(id) from 'lake/t/'"), [format!("49,{}", 49 * 50 / 2 - 41)]);
    let folder = project(&api, &format!("{paged}discard_value"));
    succeed(&folder);
    assert_eq!(folder.rows("select count(*) from 'lake/t/'"), ["50"]);
    // Of the columns of a later file as well, which it is known to have: a row is left out for a value, not for an empty place.
    let folder = project(
        "{type: files, url: ./in}",
        "path: \"*.csv\", incremental_key: file_modified, schema_contract: discard_row",
    );
    folder.write("in/1.csv", "id\n1\n2\n");
    succeed(&folder);
    folder.write("in/2.csv", "id,late\n3,x\n4,\n");
    succeed(&folder);
    assert_eq!(folder.rows("select id from 'lake/t/' order by id"), ["1", "2", "4"]);
    for _ in 0..2 {
        succeed(&folder);
        assert_eq!(folder.rows("select count(*) from 'lake/t/'"), ["3"]);
    }
}

/// What each request asked for, and how many rows were loaded in the end.
fn retried(
    attempts: u32,
    paginate: &str,
    answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
) -> (String, Said) {
    let server = HttpServer::start(answer);
    let folder = project(&format!("{{type: http, url: {}, attempts: 1}}", server.url), "path: x");
    folder.write(
        "pipelines/p.yaml",
        format!(
            "name: p\nretries: {attempts}\nretry_delay: 10ms\nsteps:\n  new: {{extract: {{from: from, path: x, json: {{records: rows}}, http: {{sample_pages: 1, paginate: {paginate}}}}}}}\n  to_db: {{load: {{from: new, to: out, table: t, strategy: append}}}}\n"
        ),
    );
    let said = run(&folder, &[]);
    let asked = server.received();
    let asked = asked.iter().map(|received| received.param("p").unwrap_or("-").to_owned());
    (asked.collect::<Vec<_>>().join(" "), said)
}

#[test]
fn another_attempt_of_a_run_goes_on_with_the_page_that_failed() {
    let failed = Mutex::new(0);
    let (asked, said) = retried(1, "{page: {param: p}}", move |received, _| {
        let page: u32 = received.param("p").unwrap().parse().unwrap();
        let mut failed = failed.lock().unwrap();
        if page == 4 && *failed == 0 {
            *failed += 1;
            return Reply::status(500, "not now");
        }
        let rows: Vec<String> = (0..2).map(|row| format!("{{\"id\":{}}}", page * 2 + row)).collect();
        Reply::json(format!("{{\"rows\":[{}]}}", if page > 5 { String::new() } else { rows.join(",") }))
    });
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(asked, "1 2 3 4 4 5 6");
    assert!(said.out.contains("10"), "{said}");
}

#[test]
fn an_attempt_whose_token_has_run_out_is_followed_by_one_from_the_first_page() {
    let expired = Mutex::new(0);
    let (asked, said) = retried(2, "{cursor: {path: next, param: p}}", move |received, _| {
        let at: u32 = received.param("p").unwrap_or("0").parse().unwrap();
        let mut expired = expired.lock().unwrap();
        if at == 2 && *expired < 2 {
            *expired += 1;
            return if *expired == 1 { Reply::status(500, "not now") } else { Reply::status(400, "token expired") };
        }
        let next = if at == 3 { "null".to_owned() } else { (at + 1).to_string() };
        Reply::json(format!("{{\"rows\":[{{\"id\":{at}}}],\"next\":{next}}}"))
    });
    assert_eq!(said.code, Some(0), "{said}");
    assert_eq!(asked, "- 1 2 2 - 1 2 3");
}
