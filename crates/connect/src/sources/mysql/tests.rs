mod kept;
mod silence;
mod split;
mod units;

use super::*;
use crate::comments::comment_of;
use crate::conformance::{sorted_rows, source_suite};
use crate::sources::testing::{connect, extract, first_row, read, read_with};
use crate::{ReadRequest, RejectSink, Scan};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::util::display::array_value_to_string;
use futures::StreamExt;
use gristmill_model::spec::OnFail;
use gristmill_model::{ErrorKind, Result};
use gristmill_testkit::mariadb::{self, MariadbServer, PASSWORD, TestDatabase, USER};
use std::sync::Mutex;
use std::time::{Duration, Instant};

fn connection(database: &TestDatabase) -> Arc<dyn Connection> {
    connect(&format!("{{type: mysql, url: \"{}\"}}", database.url())).unwrap()
}

fn source(database: &TestDatabase, yaml: &str) -> Arc<dyn Source> {
    connection(database).source(&extract(yaml)).unwrap()
}

#[tokio::test]
async fn a_mysql_table_is_a_source_as_the_contract_says() {
    let database = mariadb::database();
    database.sql(
        "create table orders(id bigint primary key, total decimal(10,2), status text, at timestamp(3) null, photo blob);
         insert into orders select seq, seq * 1.25, if(seq % 7 = 0, null, concat('ok ', seq)),
         '2024-01-15 00:00:00' + interval seq second, if(seq % 5 = 0, null, x'00ff') from seq_1_to_2000;
         create view few as select id, status from orders where id <= 100",
    );
    let connection = connection(&database);
    let open = || connection.source(&extract("table: orders")).unwrap();
    source_suite(&open, Some(2000)).await.unwrap();
    for units in ["{target_rows: 300}", "{strategy: hash, by: id, target_rows: 700}", "{strategy: none}"] {
        let open = || connection.source(&extract(&format!("table: orders\nunits: {units}"))).unwrap();
        source_suite(&open, Some(2000)).await.unwrap();
    }
    let open =
        || connection.source(&extract("query: select id, status from orders where id <= 100 -- some\n")).unwrap();
    source_suite(&open, Some(100)).await.unwrap();
    let open = || connection.source(&extract("table: few\nunits: {strategy: id_range, by: id, max: 3}")).unwrap();
    source_suite(&open, Some(100)).await.unwrap();
    database.sql("create table nothing(a int, b text)");
    let open = || connection.source(&extract("table: nothing")).unwrap();
    source_suite(&open, Some(0)).await.unwrap();
}

#[tokio::test]
async fn columns_of_tables_come_with_their_comments() {
    let database = mariadb::database();
    database.sql(
        "create table t (id int comment 'it''s a \\\\ key', `No te` text comment 'two\nlines, 日本', plain text comment '');
         insert into t values (1, 'a', 'b')",
    );
    for (yaml, wanted) in [
        ("table: t", &[("id", Some("it's a \\ key")), ("No te", Some("two\nlines, 日本")), ("plain", None)][..]),
        ("table: t\ncolumns: [plain, id]\nschema: {id: text}", &[("plain", None), ("id", Some("it's a \\ key"))]),
        ("query: select id from t", &[("id", None)]),
    ] {
        let source = source(&database, yaml);
        let schema = source.schema().await.unwrap();
        let fields = schema.fields().iter().map(|field| (field.name().as_str(), comment_of(field)));
        assert_eq!(fields.collect::<Vec<_>>(), wanted, "{yaml}");
        assert_eq!(read(source.as_ref()).await.unwrap()[0].num_rows(), 1, "{yaml}");
    }
}

/// column, value in SQL, arrow type, value as shown
const ZOO: &[(&str, &str, &str, &str)] = &[
    ("boolean", "true", "Boolean", "true"),
    ("tinyint(1)", "0", "Boolean", "false"),
    ("tinyint", "-128", "Int8", "-128"),
    ("tinyint unsigned", "255", "UInt8", "255"),
    ("tinyint(1) unsigned", "7", "UInt8", "7"),
    ("smallint", "-32768", "Int16", "-32768"),
    ("smallint unsigned", "65535", "UInt16", "65535"),
    ("mediumint", "-8388608", "Int32", "-8388608"),
    ("mediumint unsigned", "16777215", "UInt32", "16777215"),
    ("int", "2147483647", "Int32", "2147483647"),
    ("int unsigned zerofill", "4294967295", "UInt32", "4294967295"),
    ("bigint", "-9223372036854775808", "Int64", "-9223372036854775808"),
    ("bigint unsigned", "18446744073709551615", "UInt64", "18446744073709551615"),
    ("bit", "b'1'", "Boolean", "true"),
    ("bit(10)", "b'1000000001'", "UInt64", "513"),
    ("bit(64)", "x'ffffffffffffffff'", "UInt64", "18446744073709551615"),
    ("year", "2155", "Int16", "2155"),
    ("year", "0", "Int16", "0"),
    ("float", "0.1", "Float32", "0.1"),
    ("float", "16777216", "Float32", "16777216.0"),
    ("double", "-0.1", "Float64", "-0.1"),
    ("double", "1.7976931348623157e308", "Float64", "1.7976931348623157e308"),
    ("decimal(10,2)", "-12345678.90", "Decimal128(10, 2)", "-12345678.90"),
    ("decimal(10,2) unsigned", "0.05", "Decimal128(10, 2)", "0.05"),
    ("decimal(5)", "-99999", "Decimal128(5, 0)", "-99999"),
    ("decimal(4,4)", "-0.0001", "Decimal128(4, 4)", "-0.0001"),
    (
        "decimal(38,38)",
        "0.00000000000000000000000000000000000001",
        "Decimal128(38, 38)",
        "0.00000000000000000000000000000000000001",
    ),
    (
        "decimal(38)",
        "99999999999999999999999999999999999999",
        "Decimal128(38, 0)",
        "99999999999999999999999999999999999999",
    ),
    (
        "decimal(65,30)",
        "-12345678901234567890123456789012345.012345678901234567890123456789",
        "Decimal256(65, 30)",
        "-12345678901234567890123456789012345.012345678901234567890123456789",
    ),
    ("char(4)", "'ab'", "Utf8", "ab"),
    ("varchar(20)", "'naïve 日本 🙂'", "Utf8", "naïve 日本 🙂"),
    ("varchar(20) character set latin1", "'naïve'", "Utf8", "naïve"),
    ("varchar(20) character set ucs2", "'日本'", "Utf8", "日本"),
    ("varchar(20) character set utf8mb4 collate utf8mb4_bin", "'Ab'", "Utf8", "Ab"),
    ("tinytext", "''", "Utf8", ""),
    ("longtext", "'long'", "Utf8", "long"),
    ("binary(4)", "x'00ff'", "Binary", "00ff0000"),
    ("varbinary(10)", "x'00ff10'", "Binary", "00ff10"),
    ("longblob", "x''", "Binary", ""),
    ("date", "'2024-02-29'", "Date32", "2024-02-29"),
    ("date", "'1000-01-01'", "Date32", "1000-01-01"),
    ("date", "'9999-12-31'", "Date32", "9999-12-31"),
    ("datetime", "'2024-01-15 12:34:56'", "Timestamp(µs)", "2024-01-15T12:34:56"),
    ("datetime(6)", "'2024-01-15 12:34:56.789012'", "Timestamp(µs)", "2024-01-15T12:34:56.789012"),
    ("timestamp(6) null", "'2024-01-15 12:34:56.789012'", "Timestamp(µs, \"UTC\")", "2024-01-15T12:34:56.789012Z"),
    ("time", "'-838:59:59'", "Utf8", "-838:59:59"),
    ("time(3)", "'12:34:56.789'", "Utf8", "12:34:56.789"),
    ("time(6)", "0", "Utf8", "00:00:00.000000"),
    ("enum('so so','fine')", "'so so'", "Utf8", "so so"),
    ("set('a','b','c')", "'a,c'", "Utf8", "a,c"),
    ("json", "'{\"a\": [1,  2]}'", "Utf8", "{\"a\": [1,  2]}"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "Utf8", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("inet6", "'2001:db8::ff00:42:8329'", "Utf8", "2001:db8::ff00:42:8329"),
    ("inet4", "'10.0.0.1'", "Utf8", "10.0.0.1"),
    ("point", "point(1,2)", "Binary", "0101000000000000000000f03f0000000000000040"),
    ("geometry", "st_geomfromtext('POINT(1 2)', 4326)", "Binary", "0101000000000000000000f03f0000000000000040"),
];

#[tokio::test]
async fn every_type_is_read_as_what_it_is() {
    let database = mariadb::database();
    let columns: Vec<String> = ZOO.iter().enumerate().map(|(n, (of, ..))| format!("c{n} {of}")).collect();
    let values: Vec<String> = ZOO.iter().map(|(_, value, ..)| (*value).to_owned()).collect();
    let nulls: Vec<&str> = ZOO.iter().map(|_| "null").collect();
    database.sql(&format!(
        "set time_zone = '+00:00'; create table zoo({}); insert into zoo values ({}); insert into zoo values ({})",
        columns.join(", "),
        values.join(", "),
        nulls.join(", ")
    ));
    let source = source(&database, "table: zoo");
    let schema = source.schema().await.unwrap();
    let batch = &read(source.as_ref()).await.unwrap()[0];
    assert_eq!(batch.num_rows(), 2);
    for (n, (of, _, arrow, shown)) in ZOO.iter().enumerate() {
        assert_eq!(schema.field(n).data_type().to_string(), *arrow, "{of}");
        let column = batch.column(n);
        assert_eq!(array_value_to_string(column, 0).unwrap(), *shown, "{of}");
        assert!(column.is_null(1), "{of}");
    }
}

#[tokio::test]
async fn what_a_query_computes_has_the_types_of_the_server() {
    let database = mariadb::database();
    database.sql("create table t(d decimal(10,2), n int unsigned); insert into t values (1.5, 2), (2.25, 3)");
    let source = source(
        &database,
        "query: select sum(d) as total, avg(n) as mean, count(*) as rows_, max(n) as most, null as nothing, 'a' as a, 1.50 as x from t",
    );
    let types: Vec<String> =
        source.schema().await.unwrap().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(
        types,
        ["Decimal128(32, 2)", "Decimal128(14, 4)", "Int64", "UInt32", "Utf8", "Utf8", "Decimal128(3, 2)"]
    );
    assert_eq!(first_row(source.as_ref()).await, ["3.75", "2.5000", "2", "3", "", "a", "1.50"]);
}

#[tokio::test]
async fn a_value_that_arrow_has_no_place_for_is_a_bad_row_and_never_another_value() {
    let database = mariadb::database();
    for (of, bad, other, text) in [
        ("date", "'0000-00-00'", "text", "0000-00-00"),
        ("date", "'2024-00-15'", "text", "2024-00-15"),
        ("datetime", "'0000-00-00'", "text", "0000-00-00 00:00:00"),
        ("timestamp null", "'0000-00-00'", "text", "0000-00-00 00:00:00"),
        ("tinyint(1)", "2", "tinyint", "2"),
        ("tinyint(1)", "-1", "int", "-1"),
    ] {
        database.sql(&format!(
            "drop table if exists t; create table t(id int, v {of});
             insert into t values (1, null), (2, {bad}), (3, null)"
        ));
        let source = source(&database, "table: t");
        let error = read(source.as_ref()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{of}: {error}");
        assert!(error.message().contains("column `v`"), "{error}");

        let rejects = Arc::new(Mutex::new(Vec::new()));
        let seen = rejects.clone();
        let sink = RejectSink::new(move |reject| seen.lock().unwrap().push(reject));
        let batches = read_with(source.as_ref(), OnFail::DeadLetter, Some(sink)).await.unwrap();
        assert_eq!(sorted_rows(&batches).unwrap(), ["1│∅│", "3│∅│"], "{of}");
        let rejects = rejects.lock().unwrap().clone();
        assert_eq!(rejects.len(), 1, "{of}");
        assert!(rejects[0].record.contains("\"id\":2,"), "{of}: {:?}", rejects[0]);

        let read_so = super::tests::source(&database, &format!("table: t\nschema: {{v: {other}}}\nwhere: id = 2"));
        assert_eq!(first_row(read_so.as_ref()).await, ["2", text], "{of}");
    }
}

#[tokio::test]
async fn a_type_that_is_declared_is_filled_or_the_row_is_bad() {
    let database = mariadb::database();
    database.sql(
        "create table t(at time(6), word varchar(20), price decimal(10,3), real_ double, n bigint unsigned, day datetime, \
         flag bit(1), f float);
         insert into t values ('12:34:56.5', '12.50', 1.250, 0.1, 7, '2024-01-15', b'1', 0.1),
                              ('-01:00:00', 'x', 1.255, 0.3, 18446744073709551615, '2024-01-15 01:00', b'0', 0.1)",
    );
    for (column, word, shown, bad) in [
        ("at", "time", "12:34:56.500", "`-01:00:00.000000` is not within a day"),
        ("word", "\"decimal(10,2)\"", "12.50", "`x` does not fit decimal(10,2)"),
        ("price", "\"decimal(10,2)\"", "1.25", "`1.255` does not fit decimal(10,2)"),
        ("n", "int", "7", "`18446744073709551615` is not of type `int`"),
        ("day", "date", "2024-01-15", "`2024-01-15 01:00:00.000000` is not of type `date`"),
    ] {
        let yaml = |condition: &str| {
            format!("query: select {column} from t where price {condition} 1.25\nschema: {{{column}: {word}}}")
        };
        assert_eq!(first_row(source(&database, &yaml("=")).as_ref()).await, [shown], "{column}");
        let error = read(source(&database, &yaml(">")).as_ref()).await.unwrap_err();
        assert!(error.message().contains(bad), "{column}: {error}");
    }
    for (column, word, shown) in [
        ("price", "text", "1.250"),
        ("real_", "text", "0.1"),
        ("real_", "\"decimal(10,2)\"", "0.10"),
        ("f", "double", "0.1"),
        ("flag", "int", "1"),
        ("n", "\"decimal(40,2)\"", "7.00"),
        ("day", "timestamptz", "2024-01-15T00:00:00Z"),
        ("day", "text", "2024-01-15 00:00:00"),
    ] {
        let yaml = format!("query: select {column} from t where price = 1.25\nschema: {{{column}: {word}}}");
        assert_eq!(first_row(source(&database, &yaml).as_ref()).await, [shown], "{column} as {word}");
    }
    let error = connection(&database).source(&extract("table: t\nschema: {n: \"null\"}")).unwrap_err();
    assert!(error.message().contains("cannot be read as `null` from MySQL"), "{error}");
}

#[tokio::test]
async fn columns_conditions_names_and_other_databases() {
    let (database, other) = (mariadb::database(), mariadb::database());
    database.sql(
        "create table `odd ``name``.x`(`a b` int, `order` varchar(10), c int); insert into `odd ``name``.x` values (1, 'x''', 2), (3, 'y', 4)",
    );
    let odd = source(&database, "table: \"`odd ``name``.x`\"\ncolumns: [order, \"a b\"]\nwhere: \"c = 2 -- note\"");
    assert_eq!(first_row(odd.as_ref()).await, ["x'", "1"]);
    let elsewhere = source(&other, &format!("table: \"{}.`odd ``name``.x`\"\nwhere: \"`order` = 'y'\"", database.name));
    assert_eq!(first_row(elsewhere.as_ref()).await, ["3", "y", "4"]);
    // A colon, a question mark and a comment in a text mean nothing.
    let odd = source(&database, "query: \"select ':a ? -- /* ' as t, 1 as n /* ? */\"");
    assert_eq!(first_row(odd.as_ref()).await, [":a ? -- /* ", "1"]);
}

#[tokio::test]
async fn large_values_make_small_batches() {
    let database = mariadb::database();
    database.sql("create table t(n int, v longtext); insert into t select seq, repeat('x', 5000000) from seq_1_to_12");
    let batches = read(source(&database, "table: t").as_ref()).await.unwrap();
    assert!(batches.len() > 1);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 12);
    assert!(
        batches.iter().all(|batch| batch.column(1).as_string::<i32>().iter().all(|v| v.unwrap().len() == 5_000_000))
    );
}

/// More than a frame of the protocol holds.
#[tokio::test]
async fn a_row_of_many_frames_is_one_row() {
    let database = mariadb::database();
    database.sql(
        "create table t(n int, a longtext, b longtext, c longtext, d longtext);
         insert into t select seq, repeat('a', 9000000), repeat('b', 9000000), repeat('c', 9000000), seq from seq_1_to_3",
    );
    let batches = read(source(&database, "table: t").as_ref()).await.unwrap();
    let mut seen = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            for (column, letter) in (1..4).zip("abc".chars()) {
                let text = batch.column(column).as_string::<i32>().value(row);
                assert!(text.len() == 9_000_000 && text.chars().all(|one| one == letter));
            }
            seen.push(batch.column(4).as_string::<i32>().value(row).to_owned());
        }
    }
    seen.sort();
    assert_eq!(seen, ["1", "2", "3"]);
}

/// A long result that nobody could hold.
const ENDLESS: &str = "query: select seq as n, repeat('x', 1000) as v from seq_1_to_100000000";

async fn begin_endless(database: &TestDatabase) -> crate::Rows {
    let source = source(database, ENDLESS);
    let scan = Scan { schema: source.schema().await.unwrap(), batch_size: 10, on_bad_row: OnFail::Fail, rejects: None };
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    let mut rows = source.read(&plan.units[0], &scan);
    assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), 10);
    rows
}

fn connections(database: &TestDatabase) -> String {
    database.sql(&format!(
        "select count(*) from information_schema.processlist where db = '{}' and user = '{USER}'",
        database.name
    ))
}

async fn until_nobody_is_connected(database: &TestDatabase) {
    let begin = Instant::now();
    while connections(database) != "0" {
        assert!(begin.elapsed() < Duration::from_secs(20), "connections are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_reader_that_stops_early_hangs_up() {
    let database = mariadb::database();
    drop(begin_endless(&database).await);
    until_nobody_is_connected(&database).await;
}

#[tokio::test]
async fn a_reader_whose_server_goes_away_says_that_it_can_be_tried_again() {
    let database = mariadb::database();
    let mut rows = begin_endless(&database).await;
    let ids = database.sql(&format!(
        "select id from information_schema.processlist where db = '{}' and user = '{USER}'",
        database.name
    ));
    for id in ids.lines() {
        database.sql(&format!("kill connection {id}"));
    }
    let error = loop {
        match rows.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the rows ended as if they were all"),
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_a_timeout() {
    let database = mariadb::database();
    let yaml = format!("{{type: mysql, url: \"{}\", statement_timeout: 1s}}", database.url());
    let slow =
        connect(&yaml).unwrap().source(&extract("query: select sleep(20) as s, benchmark(2000000000, md5('a')) as b"));
    let error = read(slow.unwrap().as_ref()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

async fn refusal(yaml: &str) -> gristmill_model::Error {
    let connection = connect(yaml).unwrap();
    let error = connection.test().await.unwrap_err();
    let all = format!("{error} {error:?} {connection:?} {}", connection.describe());
    assert!(!all.contains("s3cr3t") && !all.contains(PASSWORD), "{all}");
    error
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_one_clear_error_each() {
    let database = mariadb::database();
    let port = database.port;
    let parts = |user: &str, password: &str, database: &str, more: &str| {
        format!(
            "{{type: mariadb, host: 127.0.0.1, port: {port}, user: {user}, password: {password}, database: {database}{more}}}"
        )
    };
    let wrong = refusal(&parts(USER, "s3cr3t", &database.name, "")).await;
    assert_eq!(wrong.kind(), ErrorKind::Denied);
    let place = format!("{USER}@127.0.0.1:{port}/{}", database.name);
    assert_eq!(wrong.message(), format!("MySQL at `{place}` refused the password of `{USER}`"));
    let missing = refusal(&parts(USER, PASSWORD, &format!("{}x", database.name), "")).await;
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    assert_eq!(missing.hint_text(), Some(format!("did you mean `{}`?", database.name).as_str()));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = closed.local_addr().unwrap().port();
    let silent = format!("{{type: mysql, host: 127.0.0.1, port: {nobody}, connect_timeout: 300ms}}");
    let silence = refusal(&silent).await;
    assert!(silence.message().contains("no answer from MySQL"), "{silence}");
    drop(closed);
    let gone = refusal(&silent).await;
    assert_eq!((gone.kind(), gone.is_retryable()), (ErrorKind::Unavailable, true), "{gone}");
    let bare = refusal(&parts(USER, PASSWORD, &database.name, ", sslmode: require")).await;
    assert!(bare.message().contains("no secure connection"), "{bare}");
    for (yaml, message) in [
        ("{type: mysql, url: \"postgres://a\"}", "this is not the URL of a MySQL server"),
        ("{type: mysql, url: \"mysql://a/b?sslmod=require\"}", "unknown option `sslmod` in the URL"),
        ("{type: mysql, url: \"mysql://u:1?s3cr3t@a/b\"}", "an option of the URL cannot be read"),
        ("{type: mysql, sslmode: require, sslrootcert: a.pem}", "`sslrootcert` is only looked at with"),
        ("{type: mysql, max_connections: 0}", "`max_connections` is 0"),
        ("{type: mysql, socket: /tmp/s, port: 1}", "`socket` goes without `host` and `port`"),
        ("{type: mysql, hots: a}", "unknown key `hots`"),
    ] {
        let mistakes = connect(yaml).unwrap_err();
        assert!(mistakes[0].message.contains(message), "{yaml}: {mistakes:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_one_clear_error_each() {
    let database = mariadb::database();
    database.sql(&format!(
        "create table orders(id int, total int); create table secret(a int);
         create user if not exists 'limited'@'%' identified by 'limited';
         grant select on {}.orders to 'limited'@'%'",
        database.name
    ));
    let fails = async |yaml: &str| source(&database, yaml).schema().await.unwrap_err();
    let error = fails("table: ordres").await;
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::NotFound, Some("did you mean `orders`?")), "{error}");
    let error = fails("table: orders\ncolumns: [idd]").await;
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Schema, Some("did you mean `id`?")), "{error}");
    let error = fails("table: orders\nwhere: totl > 1").await;
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Schema, Some("did you mean `total`?")), "{error}");
    let error = fails("query: selec 1").await;
    assert_eq!(error.kind(), ErrorKind::Query, "{error}");
    let error = fails("query: select id, id from orders").await;
    assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
    let error = fails("query: select id from orders where id = ?").await;
    assert!(error.to_string().contains("parameters"), "{error}");
    let limited = format!(
        "{{type: mysql, host: 127.0.0.1, port: {}, user: limited, password: limited, database: {}}}",
        database.port, database.name
    );
    let limited = connect(&limited).unwrap();
    let error = limited.source(&extract("table: secret")).unwrap().schema().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.message().contains("`limited` may not read `secret`"), "{error}");
    let error = connection(&database).source(&extract("table: orders\npath: x")).unwrap_err();
    assert!(error.message().contains("`path` is for files"), "{error}");
    // What is out of the range of its type is the server's error.
    let out = source(&database, "query: select cast(18446744073709551615 as unsigned) + 1 as n from (select 1) x");
    let error = match out.schema().await {
        Ok(_) => read(out.as_ref()).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
}

#[tokio::test]
async fn tls_is_spoken_as_sslmode_says() {
    let server = MariadbServer::start_with_tls().unwrap();
    let database = server.database();
    let yaml = |host: &str, more: &str| {
        format!(
            "{{type: mysql, host: {host}, port: {}, user: {USER}, password: {PASSWORD}, database: {}{more}}}",
            database.port, database.name
        )
    };
    let tls = async |yaml: String| {
        let info = connect(&yaml).unwrap().test().await.unwrap();
        assert!(info.server.starts_with("MariaDB "), "{info:?}");
        info.details.iter().find(|(name, _)| name == "tls").unwrap().1.clone()
    };
    let authority = format!(", sslrootcert: {}", server.authority().display());
    assert_eq!(tls(yaml("localhost", "")).await, "yes");
    assert_eq!(tls(yaml("127.0.0.1", ", sslmode: disable")).await, "no");
    assert_eq!(tls(yaml("127.0.0.1", ", sslmode: require")).await, "yes");
    assert_eq!(tls(yaml("localhost", &format!(", sslmode: verify-full{authority}"))).await, "yes");
    let stranger = refusal(&yaml("localhost", ", sslmode: verify-full")).await;
    assert_eq!(stranger.kind(), ErrorKind::Denied, "{stranger}");
    let other_name = refusal(&yaml("127.0.0.1", &format!(", sslmode: verify-full{authority}"))).await;
    assert_eq!(other_name.kind(), ErrorKind::Denied, "{other_name}");
    let socket = format!("{{type: mysql, socket: {}, database: {}}}", database.socket.display(), database.name);
    assert_eq!(tls(socket.clone()).await, "no");

    // So do the connections that read.
    let cipher = async |yaml: &str| {
        let query = "query: \"select variable_value as v from information_schema.session_status where variable_name = 'Ssl_cipher'\"";
        first_row(connect(yaml).unwrap().source(&extract(query)).unwrap().as_ref()).await.concat()
    };
    for open in [&socket, &yaml("127.0.0.1", ", sslmode: disable")] {
        assert_eq!(cipher(open).await, "", "{open}");
    }
    let checked = format!(", sslmode: verify-full{authority}");
    for sealed in [yaml("localhost", ""), yaml("127.0.0.1", ", sslmode: require"), yaml("localhost", &checked)] {
        assert_ne!(cipher(&sealed).await, "", "{sealed}");
    }
    database
        .sql("create table big(n int, v longtext); insert into big select seq, repeat('x', 3000000) from seq_1_to_5");
    let source = connect(&yaml("localhost", &checked)).unwrap().source(&extract("table: big")).unwrap();
    let rows: usize = read(source.as_ref()).await.unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 5);
}

#[tokio::test]
async fn test_and_discover_say_what_is_there() {
    let database = mariadb::database();
    database.sql(
        "create table orders(id int unsigned, line int, total decimal(10,2), primary key(id, line));
         insert into orders select seq, 1, seq from seq_1_to_1000; analyze table orders;
         create view cheap as select id from orders where total < 10",
    );
    let info = connection(&database).test().await.unwrap();
    assert!(info.server.starts_with("MariaDB 1"), "{info:?}");
    assert!(info.details.contains(&("tables".to_owned(), "1".to_owned())), "{info:?}");
    let found = connection(&database).discover().await.unwrap();
    let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["cheap", "orders"]);
    assert_eq!((found[0].rows, found[0].columns.len()), (None, 1));
    assert_eq!(found[1].key, ["id", "line"]);
    assert!(found[1].rows.is_some_and(|rows| (900..1100).contains(&rows)) && found[1].bytes > Some(0), "{found:?}");
    assert_eq!(found[1].columns[2], ("total".to_owned(), "decimal(10,2)".to_owned()));
    let tables = connection(&database).tables().await.unwrap();
    let found: Vec<(bool, bool)> =
        tables.iter().filter(|table| table.is_own).map(|t| (t.is_view, t.key.len() == 2)).collect();
    assert_eq!(found, [(true, false), (false, true)]);
}
