mod aggregates;
mod kept;
mod silence;
mod tls;
mod units;

use super::*;
use crate::comments::comment_of;
use crate::conformance::{sorted_rows, source_suite};
use crate::sources::testing::{connect, extract, first_row, read, read_with};
use crate::{ReadRequest, RejectSink, Scan};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use futures::StreamExt;
use gristmill_model::spec::OnFail;
use gristmill_model::yaml::parse;
use gristmill_model::{ErrorKind, Result};
use gristmill_testkit::postgres::{self, PASSWORD, TestDatabase, USER};
use std::io::{Read, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

fn connection(database: &TestDatabase) -> Arc<dyn Connection> {
    connect(&format!("{{type: postgres, url: \"{}\"}}", database.local_url())).unwrap()
}

fn source(database: &TestDatabase, yaml: &str) -> Arc<dyn Source> {
    connection(database).source(&extract(yaml)).unwrap()
}

#[tokio::test]
async fn a_postgres_table_is_a_source_as_the_contract_says() {
    let database = postgres::database();
    database.sql(
        "create table orders(id bigint primary key, total numeric(10,2), status text, at timestamptz, tags text[]);
         insert into orders select n, n * 1.25, case when n % 7 = 0 then null else 'ok ' || n end,
         timestamptz '2024-01-15 00:00Z' + n * interval '1 second', array['a', null, n::text] from generate_series(1, 5000) n",
    );
    let connection = connection(&database);
    let open = || connection.source(&extract("table: orders")).unwrap();
    source_suite(&open, Some(5000)).await.unwrap();
    let open =
        || connection.source(&extract("query: select id, status from orders where id <= 100 -- some\n")).unwrap();
    source_suite(&open, Some(100)).await.unwrap();
    database.sql("create table nothing(a int, b text)");
    let open = || connection.source(&extract("table: nothing")).unwrap();
    source_suite(&open, Some(0)).await.unwrap();
}

#[tokio::test]
async fn columns_of_tables_and_views_come_with_their_comments() {
    let database = postgres::database();
    database.sql(
        "create table t (gone int, id int, \"No te\" text, plain text); insert into t values (0, 1, 'a', 'b');
         comment on column t.gone is 'gone'; comment on column t.id is 'it''s a \\ key';
         comment on column t.\"No te\" is 'two\nlines'; comment on table t is 'all'; alter table t drop gone;
         create view v as select id from t; comment on column v.id is 'seen'",
    );
    for (yaml, wanted) in [
        ("table: t", &[("id", Some("it's a \\ key")), ("No te", Some("two\nlines")), ("plain", None)][..]),
        (
            "table: public.t\ncolumns: [plain, id]\nschema: {id: text}",
            &[("plain", None), ("id", Some("it's a \\ key"))],
        ),
        ("table: v", &[("id", Some("seen"))]),
        ("query: select id from t", &[("id", None)]),
    ] {
        let source = source(&database, yaml);
        let schema = source.schema().await.unwrap();
        let fields = schema.fields().iter().map(|field| (field.name().as_str(), comment_of(field)));
        assert_eq!(fields.collect::<Vec<_>>(), wanted, "{yaml}");
        assert_eq!(read(source.as_ref()).await.unwrap()[0].num_rows(), 1, "{yaml}");
    }
}

/// The types in it that are our own.
const OF_THE_ZOO: &str = "create type mood as enum ('so so', 'fine'); create type pair as (a int, b text);
     create domain positive as int check (value > 0); create extension citext; create extension hstore;
     create domain exact as numeric(6,2); create domain several as int[]; create domain words as citext";

/// column, type, value in SQL, arrow type, value as shown
const ZOO: &[(&str, &str, &str, &str)] = &[
    ("boolean", "true", "Boolean", "true"),
    ("smallint", "-32768", "Int16", "-32768"),
    ("integer", "2147483647", "Int32", "2147483647"),
    ("bigint", "-9223372036854775808", "Int64", "-9223372036854775808"),
    ("oid", "4294967295", "Int64", "4294967295"),
    ("real", "'1.5'", "Float32", "1.5"),
    ("double precision", "'-0.1'", "Float64", "-0.1"),
    ("double precision", "'NaN'", "Float64", "NaN"),
    ("double precision", "'-Infinity'", "Float64", "-inf"),
    ("text", "'naïve 日本'", "Utf8", "naïve 日本"),
    ("varchar(10)", "'ab'", "Utf8", "ab"),
    ("char(4)", "'ab'", "Utf8", "ab  "),
    ("name", "'ab'", "Utf8", "ab"),
    ("\"char\"", "'x'", "Utf8", "x"),
    ("mood", "'so so'", "Utf8", "so so"),
    ("mood[]", "array['so so', null]::mood[]", "List(Utf8)", "[so so, ]"),
    ("bytea", "'\\x00ff10'", "Binary", "00ff10"),
    ("date", "'2024-02-29'", "Date32", "2024-02-29"),
    ("date", "'0001-01-01'", "Date32", "0001-01-01"),
    ("time", "'23:59:59.999999'", "Time64(µs)", "23:59:59.999999"),
    ("timestamp", "'2024-01-15 12:34:56.789012'", "Timestamp(µs)", "2024-01-15T12:34:56.789012"),
    ("timestamptz", "'2024-01-15 12:00:00+02'", "Timestamp(µs, \"UTC\")", "2024-01-15T10:00:00Z"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "Utf8", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json", "'{\"a\": [1,  2]}'", "Utf8", "{\"a\": [1,  2]}"),
    ("jsonb", "'{\"a\": [1,  2]}'", "Utf8", "{\"a\": [1, 2]}"),
    ("numeric(10,2)", "'-12345678.90'", "Decimal128(10, 2)", "-12345678.90"),
    ("numeric(10,2)", "'0'", "Decimal128(10, 2)", "0.00"),
    ("numeric(4,4)", "'-0.0001'", "Decimal128(4, 4)", "-0.0001"),
    (
        "numeric(38,38)",
        "'0.00000000000000000000000000000000000001'",
        "Decimal128(38, 38)",
        "0.00000000000000000000000000000000000001",
    ),
    (
        "numeric(38)",
        "'99999999999999999999999999999999999999'",
        "Decimal128(38, 0)",
        "99999999999999999999999999999999999999",
    ),
    (
        "numeric(38,1)",
        "'-9999999999999999999999999999999999999.9'",
        "Decimal128(38, 1)",
        "-9999999999999999999999999999999999999.9",
    ),
    ("numeric(5,-2)", "'1234567'", "Decimal128(7, 0)", "1234600"),
    (
        "numeric(76,10)",
        "'123456789012345678901234567890123456789012345678901234567890123456.0123456789'",
        "Decimal256(76, 10)",
        "123456789012345678901234567890123456789012345678901234567890123456.0123456789",
    ),
    ("numeric(1000,2)", "'1e100'", "Utf8", ""),
    ("numeric", "'-0.00001234000'", "Utf8", "-0.00001234000"),
    ("numeric", "'100000000.5'", "Utf8", "100000000.5"),
    ("numeric", "'NaN'", "Utf8", "NaN"),
    ("numeric", "'-Infinity'", "Utf8", "-Infinity"),
    ("interval", "'1 year 2 days 03:04:05'", "Utf8", "P1Y2DT3H4M5S"),
    ("timetz", "'12:00:00+02'", "Utf8", "12:00:00+02"),
    ("inet", "'10.0.0.1/8'", "Utf8", "10.0.0.1/8"),
    ("int4range", "'[1,5)'", "Utf8", "[1,5)"),
    ("point", "'(1,2)'", "Utf8", "(1,2)"),
    ("bit(3)", "B'101'", "Utf8", "101"),
    ("xml", "'<a/>'", "Utf8", "<a/>"),
    ("pair", "row(1, 'x')", "Utf8", "(1,x)"),
    ("positive", "7", "Int32", "7"),
    ("int[]", "array[1, null, 3]", "List(Int32)", "[1, , 3]"),
    ("int[]", "'{}'", "List(Int32)", "[]"),
    ("text[]", "array['a', '', null]", "List(Utf8)", "[a, , ]"),
    ("numeric(6,2)[]", "array[1.5, -2]", "List(Decimal128(6, 2))", "[1.50, -2.00]"),
    (
        "timestamptz[]",
        "array['2024-01-15 00:00Z'::timestamptz]",
        "List(Timestamp(µs, \"UTC\"))",
        "[2024-01-15T00:00:00Z]",
    ),
    ("inet[]", "array['10.0.0.1'::inet]", "Utf8", "{10.0.0.1}"),
    ("tid", "'(0,1)'", "Utf8", "(0,1)"),
    ("money", "'1.50'", "Utf8", "$1.50"),
    ("citext", "'Ab Ä'", "Utf8", "Ab Ä"),
    ("citext[]", "array['Ab'::citext, null]", "List(Utf8)", "[Ab, ]"),
    ("hstore", "'a=>1, b=>NULL'", "Utf8", "\"a\"=>\"1\", \"b\"=>NULL"),
    ("varbit", "B'10110'", "Utf8", "10110"),
    ("cidr", "'10.1.0.0/16'", "Utf8", "10.1.0.0/16"),
    ("macaddr", "'08:00:2b:01:02:03'", "Utf8", "08:00:2b:01:02:03"),
    ("timetz", "'23:59:59.5-11:30'", "Utf8", "23:59:59.5-11:30"),
    ("interval", "'-1 mons +2 days -03:00:00.000001'", "Utf8", "P-1M2DT-3H-0.000001S"),
    ("tstzrange", "'[2024-01-01 00:00Z,)'", "Utf8", "[\"2024-01-01 00:00:00+00\",)"),
    ("int4multirange", "'{[1,3),[5,7)}'", "Utf8", "{[1,3),[5,7)}"),
    ("tsvector", "'a fat cat'", "Utf8", "'a' 'cat' 'fat'"),
    ("pg_lsn", "'16/B374D848'", "Utf8", "16/B374D848"),
    ("box", "'(1,2),(3,4)'", "Utf8", "(3,4),(1,2)"),
    ("jsonpath", "'$.a'", "Utf8", "$.\"a\""),
    ("jsonb[]", "array['{\"a\": 1}'::jsonb, null]", "List(Utf8)", "[{\"a\": 1}, ]"),
    (
        "uuid[]",
        "array['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, null]",
        "List(Utf8)",
        "[a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11, ]",
    ),
    ("bytea[]", "array['\\x00ff'::bytea, null]", "List(Binary)", "[00ff, ]"),
    ("boolean[]", "array[true, null, false]", "List(Boolean)", "[true, , false]"),
    ("date[]", "array['2024-02-29'::date, null]", "List(Date32)", "[2024-02-29, ]"),
    ("numeric[]", "array['NaN'::numeric, null, 1.50]", "List(Utf8)", "[NaN, , 1.50]"),
    ("numeric(40,3)[]", "array[1.5::numeric, null]", "List(Decimal256(40, 3))", "[1.500, ]"),
    ("positive[]", "array[7, null]::positive[]", "List(Int32)", "[7, ]"),
    ("pair[]", "array[row(1, 'x')::pair, null]", "Utf8", "{\"(1,x)\",NULL}"),
    ("exact", "1.25", "Decimal128(6, 2)", "1.25"),
    ("several", "array[1, null]", "List(Int32)", "[1, ]"),
    ("words", "'Ab'", "Utf8", "Ab"),
    (
        "numeric(38,0)",
        "'-99999999999999999999999999999999999999'",
        "Decimal128(38, 0)",
        "-99999999999999999999999999999999999999",
    ),
    (
        "numeric(38,10)",
        "'9999999999999999999999999999.9999999999'",
        "Decimal128(38, 10)",
        "9999999999999999999999999999.9999999999",
    ),
    ("numeric(20,0)", "'10000000000000000'", "Decimal128(20, 0)", "10000000000000000"),
    ("numeric(15,2)", "'100000000'", "Decimal128(15, 2)", "100000000.00"),
    ("numeric(15,2)", "'-0.01'", "Decimal128(15, 2)", "-0.01"),
];

#[tokio::test]
async fn every_type_is_read_as_what_it_is() {
    let database = postgres::database();
    database.sql(OF_THE_ZOO);
    let columns: Vec<String> = ZOO.iter().enumerate().map(|(n, (of, ..))| format!("c{n} {of}")).collect();
    let values: Vec<String> = ZOO.iter().map(|(_, value, ..)| (*value).to_owned()).collect();
    let nulls: Vec<&str> = ZOO.iter().map(|_| "null").collect();
    database.sql(&format!(
        "create table zoo({}); insert into zoo values ({}); insert into zoo values ({})",
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
        if !shown.is_empty() {
            assert_eq!(array_value_to_string(column, 0).unwrap(), *shown, "{of}");
        }
        assert!(column.is_null(1), "{of}");
        // The server's own text of the value agrees, where the type is read as text.
        if schema.field(n).data_type() == &DataType::Utf8 && !of.starts_with("char(") {
            let text = database.sql(&format!("set intervalstyle = iso_8601; select c{n}::text from zoo limit 1"));
            assert_eq!(column.as_string::<i32>().value(0), text, "{of}");
        }
    }
}

#[tokio::test]
async fn a_value_that_arrow_has_no_place_for_is_a_bad_row_and_never_another_value() {
    let database = postgres::database();
    for (of, bad) in [
        ("date", "'infinity'"),
        ("timestamp", "'-infinity'"),
        ("timestamptz", "'infinity'"),
        ("timestamp", "'294276-12-31 23:59:59'"),
        ("numeric(10,2)", "'NaN'"),
        ("numeric(50,2)", "'NaN'"),
        ("numeric(10,2)[]", "array['NaN'::numeric]"),
        ("timestamptz", "'-infinity'"),
        ("time", "'24:00'"),
        ("int[]", "'{{1,2},{3,4}}'"),
        ("date[]", "array['infinity'::date]"),
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

        let as_text = super::tests::source(&database, "table: t\nschema: {v: text}");
        let batches = read(as_text.as_ref()).await.unwrap();
        assert_eq!(
            batches[0].column(1).as_string::<i32>().value(1),
            database.sql("select v::text from t where id = 2")
        );
    }
}

#[tokio::test]
async fn a_numeric_without_precision_becomes_the_decimal_that_is_declared_or_a_bad_row() {
    let database = postgres::database();
    database.sql("create table t(a numeric); insert into t values (12.5), (-0.0001), (99999999), (null)");
    let decimals = source(&database, "table: t\nschema: {a: \"decimal(20,4)\"}");
    let batch = &read(decimals.as_ref()).await.unwrap()[0];
    assert_eq!(batch.column(0).data_type(), &DataType::Decimal128(20, 4));
    assert_eq!(sorted_rows(std::slice::from_ref(batch)).unwrap(), ["-0.0001│", "12.5000│", "99999999.0000│", "∅│"]);
    let error = read(source(&database, "table: t\nschema: {a: \"decimal(20,3)\"}").as_ref()).await.unwrap_err();
    assert!(error.message().contains("`-0.0001` has more than 3 digits after the point"), "{error}");
    let error = read(source(&database, "table: t\nschema: {a: \"decimal(8,4)\"}").as_ref()).await.unwrap_err();
    assert!(error.message().contains("`99999999` does not fit decimal(8,4)"), "{error}");
    let casted = source(&database, "query: select a * 2 as b from t where a = 12.5\nschema: {b: \"double\"}");
    assert_eq!(first_row(casted.as_ref()).await, ["25.0"]);
}

#[tokio::test]
async fn a_value_that_does_not_fit_its_declared_type_is_a_bad_row_and_never_rounded() {
    let database = postgres::database();
    // The column's type; a value that fits, and how it is shown; one that does not; the declared type.
    for (of, good, shown, bad, word) in [
        ("numeric", "2.0", "2", "1.5", "int"),
        ("numeric(12,2)", "-7.00", "-7", "2147483648", "int"),
        ("double precision", "3", "3", "2.5", "bigint"),
        ("double precision", "0.1", "0.10", "1.005", "\"decimal(10,2)\""),
        ("real", "0.1", "0.1", "1e30", "\"decimal(4,1)\""),
        ("bigint", "32767", "32767", "32768", "smallint"),
        ("bigint", "9007199254740992", "9007199254740992.0", "9007199254740993", "double"),
        ("bigint", "255", "255", "-1", "utinyint"),
        ("int", "1", "true", "2", "boolean"),
        ("double precision", "1.5", "1.5", "1e39", "real"),
        ("numeric", "'Infinity'", "inf", "1e309", "double"),
        ("text", "' 12 '", "12", "'12a'", "int"),
        ("text", "'t'", "true", "'perhaps'", "boolean"),
        ("text", "'2024-02-29'", "2024-02-29", "'2023-02-29'", "date"),
        ("text", "'12.5'", "12.50", "'12.505'", "\"decimal(60,2)\""),
        ("jsonb", "'5'", "5", "'\"5\"'", "int"),
        ("timestamp", "'2024-01-15'", "2024-01-15", "'2024-01-15 00:00:01'", "date"),
        ("timestamptz", "'2024-01-15 02:00+02'", "2024-01-15T00:00:00", "'infinity'", "timestamp"),
        ("timestamp", "'2024-01-15 00:00:01'", "2024-01-15T00:00:01", "'2024-01-15 00:00:00.5'", "timestamp_s"),
        ("date", "'-infinity'", "", "'2024-01-15'", "time"),
        ("date", "'2024-01-15'", "2024-01-15T00:00:00Z", "'infinity'", "timestamptz"),
        ("money", "12.5", "12.50", "123.45", "\"decimal(4,2)\""),
        ("exact", "2", "2", "2.5", "bigint"),
        ("timetz", "'10:00+00'", "", "'10:00+02'", "time"),
    ] {
        database.sql(&format!(
            "drop table if exists t; drop domain if exists exact; create domain exact as numeric(6,2);
             create table t(id int, v {of}); insert into t values (1, {good}), (2, null), (3, {bad})"
        ));
        let source = source(&database, &format!("table: t\nschema: {{v: {word}}}"));
        let error = read(source.as_ref()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{of} as {word}: {error}");
        assert!(error.message().contains("column `v`"), "{error}");

        let rejects = Arc::new(Mutex::new(Vec::new()));
        let seen = rejects.clone();
        let sink = RejectSink::new(move |reject| seen.lock().unwrap().push(reject));
        let batches = read_with(source.as_ref(), OnFail::DeadLetter, Some(sink)).await.unwrap();
        let refused: Vec<String> = rejects.lock().unwrap().iter().map(|reject| reject.record.clone()).collect();
        let rows = sorted_rows(&batches).unwrap();
        if shown.is_empty() {
            // Nothing of this type becomes the other.
            assert_eq!((rows, refused.len()), (vec!["2│∅│".to_owned()], 2), "{of} as {word}");
        } else {
            assert_eq!(rows, [format!("1│{shown}│"), "2│∅│".to_owned()], "{of} as {word}");
            assert!(refused.len() == 1 && refused[0].contains("\"id\":3,"), "{of} as {word}: {refused:?}");
        }
    }
    // What no value can ever become is said before anything is read.
    database.sql("create table bits(v bit(3)); insert into bits values (B'101')");
    let error = source(&database, "table: bits\nschema: {v: int}").schema().await.unwrap_err();
    assert_eq!(error.message(), "column `v` is bit, which cannot be read as `int`");
}

#[tokio::test]
async fn conditions_and_aggregates_of_a_declared_column_are_not_the_servers() {
    let database = postgres::database();
    database.sql("create table t(id int, v text); insert into t values (1, '9'), (2, '10'), (3, '010')");
    let source = source(&database, "table: t\nschema: {v: int}");
    source.schema().await.unwrap();
    let greater = crate::Test::Is(crate::Comparison::Greater, crate::Literal::Integer(9));
    let filter = |column: &str| crate::Filter { column: column.to_owned(), test: greater.clone() };
    assert!(source.can_filter(&filter("id")) && !source.can_filter(&filter("v")));
    let max = |column: &str| crate::Aggregation {
        groups: Vec::new(),
        values: vec![crate::Aggregate::new(crate::AggregateFunction::Max, Some(column))],
    };
    assert!(source.can_aggregate(&max("id"), &[]) && !source.can_aggregate(&max("v"), &[]));
    let want = ReadRequest { filters: vec![filter("v")], ..ReadRequest::default() };
    let plan = source.plan(&want).await.unwrap();
    assert_eq!(plan.pushed_down, ["columns: id, v"]);
    let batches = read(source.as_ref()).await.unwrap();
    assert_eq!(sorted_rows(&batches).unwrap(), ["1│9│", "2│10│", "3│10│"]);
}

#[tokio::test]
async fn random_numerics_are_read_digit_by_digit() {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    let database = postgres::database();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let digits = ("[1-9][0-9]{0,30}", 0usize..25, any::<bool>());
    let texts: Vec<String> = (0..2000)
        .map(|_| {
            let (digits, shift, negative) = digits.new_tree(&mut runner).unwrap().current();
            let padded = format!("{digits:0>width$}", width = shift + 1);
            let (whole, part) = padded.split_at(padded.len() - shift);
            let point = if part.is_empty() { "" } else { "." };
            format!("{}{whole}{point}{part}", if negative { "-" } else { "" })
        })
        .collect();
    let rows: Vec<String> = texts.iter().enumerate().map(|(n, text)| format!("({n}, {text}, {text})")).collect();
    database
        .sql(&format!("create table t(n int, a numeric, b numeric(60,25)); insert into t values {}", rows.join(",")));
    let batches = read(source(&database, "query: select * from t order by n").as_ref()).await.unwrap();
    let mut index = 0;
    for batch in &batches {
        let (free, fixed) = (batch.column(1).as_string::<i32>(), batch.column(2));
        for row in 0..batch.num_rows() {
            assert_eq!(free.value(row), texts[index]);
            let shown = array_value_to_string(fixed, row).unwrap();
            let (whole, part) = texts[index].split_once('.').unwrap_or((&texts[index], ""));
            assert_eq!(shown, format!("{whole}.{part:0<25}"));
            index += 1;
        }
    }
    assert_eq!(index, 2000);
}

#[tokio::test]
async fn columns_and_conditions_are_done_by_the_server() {
    let database = postgres::database();
    database.sql(
        "create schema shop; create table shop.\"Order.Items\"(\"Id\" int, \"a\"\"b\" text, c int);
         insert into shop.\"Order.Items\" select n, 'x', n % 2 from generate_series(1, 10) n; analyze",
    );
    let source = source(&database, "table: shop.\"Order.Items\"\ncolumns: ['a\"b', Id]\nwhere: c = 1 -- odd");
    let batches = read(source.as_ref()).await.unwrap();
    assert_eq!(batches[0].num_rows(), 5);
    let names: Vec<String> = batches[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["a\"b", "Id"]);
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    assert_eq!(plan.pushed_down, ["columns: a\"b, Id", "filter: c = 1 -- odd"]);
    assert_eq!(plan.units[0].rows, Some(5));
}

#[tokio::test]
async fn large_values_make_small_batches() {
    let database = postgres::database();
    database.sql("create table t as select n, repeat('x', 5000000) as v from generate_series(1, 12) n");
    let batches = read(source(&database, "table: t").as_ref()).await.unwrap();
    assert!(batches.len() > 1);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 12);
    assert!(
        batches.iter().all(|batch| batch.column(1).as_string::<i32>().iter().all(|v| v.unwrap().len() == 5_000_000))
    );
}

#[tokio::test]
async fn a_reader_that_stops_early_hangs_up() {
    let database = postgres::database();
    let source = source(&database, "query: select n, repeat('x', 1000) as v from generate_series(1, 100000000) n");
    let scan = Scan { schema: source.schema().await.unwrap(), batch_size: 10, on_bad_row: OnFail::Fail, rejects: None };
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    let mut rows = source.read(&plan.units[0], &scan);
    assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), 10);
    drop(rows);
    let begin = Instant::now();
    while database.sql(
        "select count(*) from pg_stat_activity where application_name = 'gristmill' and datname = current_database()",
    ) != "0"
    {
        assert!(begin.elapsed() < Duration::from_secs(10), "the server still sends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_reader_whose_server_goes_away_says_that_it_can_be_tried_again() {
    let database = postgres::database();
    let source = source(&database, "query: select n, repeat('x', 1000) as v from generate_series(1, 100000000) n");
    let scan = Scan { schema: source.schema().await.unwrap(), batch_size: 10, on_bad_row: OnFail::Fail, rejects: None };
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    let mut rows = source.read(&plan.units[0], &scan);
    rows.next().await.unwrap().unwrap();
    database.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'gristmill' and datname = current_database()");
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

async fn refusal(yaml: &str) -> gristmill_model::Error {
    let connection = connect(yaml).unwrap();
    let error = connection.test().await.unwrap_err();
    let all = format!("{error} {error:?} {connection:?} {}", connection.describe());
    assert!(!all.contains("s3cr3t") && !all.contains(PASSWORD), "{all}");
    error
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_one_clear_error_each() {
    let port = postgres::server().port;
    let parts = |user: &str, password: &str, database: &str, more: &str| {
        format!(
            "{{type: postgres, host: 127.0.0.1, port: {port}, user: {user}, password: {password}, database: {database}{more}}}"
        )
    };
    let wrong = refusal(&parts(USER, "s3cr3t", "postgres", "")).await;
    assert_eq!(wrong.kind(), ErrorKind::Denied);
    assert_eq!(
        wrong.message(),
        format!("PostgreSQL at `{USER}@127.0.0.1:{port}/postgres` refused the password of `{USER}`")
    );
    let nobody = refusal(&parts("nobody", "s3cr3t", "postgres", "")).await;
    assert_eq!(nobody.kind(), ErrorKind::Denied);
    let missing = refusal(&parts(USER, &format!("\"{PASSWORD}\""), "postgre", "")).await;
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(missing.hint_text(), Some("did you mean `postgres`?"));
    let plain = refusal(&parts(USER, &format!("\"{PASSWORD}\""), "postgres", ", sslmode: require")).await;
    assert_eq!(plain.kind(), ErrorKind::Denied);
    assert!(plain.cause_text().unwrap().contains("does not support TLS"), "{plain}");
    let no_password =
        refusal(&format!("{{type: postgres, host: 127.0.0.1, port: {port}, user: {USER}, database: postgres}}")).await;
    assert_eq!(no_password.kind(), ErrorKind::Denied);
    assert_eq!(no_password.hint_text(), Some("give the connection a `password`"));

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let down = refusal(&format!("{{type: postgres, url: \"postgres://u:s3cr3t@127.0.0.1:{closed}/d\"}}")).await;
    assert_eq!((down.kind(), down.is_retryable()), (ErrorKind::Unavailable, true));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let slow =
        refusal(&format!("{{type: postgres, url: \"postgres://u:s3cr3t@{address}/d\", connect_timeout: 300ms}}")).await;
    assert_eq!(slow.kind(), ErrorKind::Unavailable);
    assert!(slow.message().contains("no answer"), "{slow}");
}

#[tokio::test]
async fn a_peer_that_is_no_postgres_is_an_error_and_not_a_panic() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let error =
        refusal(&format!("{{type: postgres, url: \"postgres://u:s3cr3t@{address}/d\", sslmode: disable}}")).await;
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal), "{error:?}");
}

#[test]
fn wrong_keys_are_told_with_their_place_and_without_the_password() {
    for (yaml, message) in [
        ("{type: postgres, hots: x}", "unknown key `hots`"),
        ("{type: postgres, url: \"mysql://u:s3cr3t@h/d\"}", "this is not the URL of a PostgreSQL server"),
        ("{type: postgres, url: \"postgres://u:s3cr3t@h:port/d\"}", "the URL cannot be read"),
        ("{type: postgres, url: \"postgres://u:s3cr3t@h/d?sslmod=require\"}", "unknown option `sslmod` in the URL"),
        ("{type: postgres, url: \"postgres://u:s3cr3t@h/d?sslmode=yes\"}", "unknown `sslmode` `yes` in the URL"),
        ("{type: postgres, sslmode: verify}", "unknown value `verify`"),
        ("{type: postgres, url: \"postgres://u:p?s3cr3t@h/d\"}", "an option of the URL cannot be read"),
        (
            "{type: postgres, sslrootcert: a.pem}",
            "`sslrootcert` is only looked at with `sslmode: verify-full` or `verify-ca`",
        ),
        (
            "{type: postgres, url: \"postgres://h/d?sslmode=require&sslrootcert=a.pem\"}",
            "`sslrootcert` is only looked at with `sslmode: verify-full` or `verify-ca`",
        ),
        ("{type: postgres, sslmode: verify-ca}", "`sslmode: verify-ca` needs `sslrootcert`"),
        ("{type: postgres, sslcert: a.pem}", "`sslcert` goes with `sslkey`"),
        ("{type: postgres, url: \"postgres://h/d?sslkey=a.pem\"}", "`sslkey` goes with `sslcert`"),
        (
            "{type: postgres, sslmode: disable, sslcert: a.pem, sslkey: a.key}",
            "`sslcert` is of no use with `sslmode: disable`",
        ),
        (
            "{type: postgres, sslmode: disable, channel_binding: require}",
            "`channel_binding` is of no use with `sslmode: disable`",
        ),
        (
            "{type: postgres, url: \"postgres://h/d?channel_binding=always\"}",
            "unknown `channel_binding` `always` in the URL",
        ),
        ("{type: postgres, read_timeout: 0s}", "`read_timeout` is 0"),
        (
            "{type: postgres, url: \"postgres:///d?hostaddr=10.0.0.5\"}",
            "`hostaddr` is given without the host that it belongs to",
        ),
        ("{type: postgres, port: 70000}", "expected a whole number that is not negative, found `70000`"),
    ] {
        let mistakes = connect(yaml).unwrap_err();
        assert_eq!(mistakes[0].message, message);
        assert!(mistakes.iter().all(|mistake| !mistake.to_string().contains("s3cr3t")), "{mistakes:?}");
    }
}

#[test]
fn parts_win_over_the_url() {
    let keys = "{type: postgres, url: \"postgresql://u:p%40w@h:6000/d?sslmode=verify-full&application_name=me\", host: other, user: me}";
    assert_eq!(connect(keys).unwrap().describe(), "postgres://me@other:6000/d");
    assert_eq!(connect("{type: postgres}").unwrap().describe(), "postgres://postgres@localhost:5432/postgres");
    assert_eq!(
        connect("{type: postgres, host: /tmp/x, port: 6000}").unwrap().describe(),
        "postgres://postgres@/tmp/x:6000/postgres"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_told_with_what_was_meant() {
    let database = postgres::database();
    database.sql(
        "create table orders(order_id int, total int); create table secret(a int);
        do $$ begin create role reader login password 'reader'; exception when duplicate_object then null; end $$;",
    );
    let ask = async |yaml: &str| super::tests::source(&database, yaml).schema().await.unwrap_err();
    let table = ask("table: ordes").await;
    assert_eq!((table.kind(), table.hint_text()), (ErrorKind::NotFound, Some("did you mean `orders`?")), "{table}");
    let schema = ask("table: publik.orders").await;
    assert_eq!(schema.kind(), ErrorKind::NotFound, "{schema}");
    let column = ask("table: orders\ncolumns: [order_i]").await;
    assert_eq!((column.kind(), column.hint_text()), (ErrorKind::Schema, Some("did you mean `order_id`?")), "{column}");
    let typed = ask("table: orders\nschema: {totl: text}").await;
    assert_eq!(typed.hint_text(), Some("did you mean `total`?"));
    let condition = ask("table: orders\nwhere: totall > 0").await;
    assert_eq!(
        (condition.kind(), condition.hint_text()),
        (ErrorKind::Schema, Some("did you mean `total`?")),
        "{condition}"
    );
    let query = ask("query: selct 1").await;
    assert_eq!(query.kind(), ErrorKind::Query, "{query}");
    let twice = ask("query: select 1 as a, 2 as a").await;
    assert!(twice.message().contains("are called `a`"), "{twice}");

    let reader = format!(
        "{{type: postgres, host: 127.0.0.1, port: {}, user: reader, password: reader, database: {}}}",
        database.port, database.name
    );
    let denied = connect(&reader).unwrap().source(&extract("table: secret")).unwrap().schema().await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{denied}");
    assert!(denied.hint_text().unwrap().contains("grant select on \"secret\" to \"reader\""), "{denied}");

    let connection = connection(&database);
    for (yaml, message) in [
        ("path: x.csv", "`path` is for files"),
        ("where: a = 1", "what to extract is missing"),
        ("table: a\nquery: select 1", "either a `table` or a `query`"),
        ("query: select 1\nwhere: a = 1", "`where` goes with `table`"),
        ("table: a.b.c", "is not the name of a table"),
        ("table: a\ncolumns: [x, x]", "listed twice"),
    ] {
        let error = connection.source(&extract(yaml)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(message), "{error}");
    }
}

#[tokio::test]
async fn a_connection_tells_what_is_there() {
    let database = postgres::database();
    database.sql("create schema other; create table orders(b text, id bigint, primary key (id, b)); create table other.things(a numeric(5,1));
        create view v as select 1 as one; create table _gristmill_loads(a int); insert into orders values ('x', 1);
        create table parted(day date, updated timestamptz) partition by range (day);
        create table p1 partition of parted for values from ('2024-01-01') to ('2024-02-01');
        create table p2 partition of parted for values from ('2024-02-01') to ('2024-03-01');
        insert into parted values ('2024-01-05'), ('2024-02-05'); analyze");
    let connection = connection(&database);
    let info = connection.test().await.unwrap();
    assert!(info.server.starts_with("PostgreSQL 1"), "{info:?}");
    assert!(info.details.contains(&("tables".to_owned(), "3".to_owned())), "{info:?}");
    let found = connection.discover().await.unwrap();
    let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["other.things", "orders", "parted", "v"]);
    assert!(found[2].rows == Some(2) && found[2].bytes >= Some(16384), "{:?}", found[2]);
    assert_eq!(found[2].cursors, ["updated", "day"]);
    assert_eq!(found[1].key, ["id", "b"]);
    assert_eq!(found[1].rows, Some(1));
    assert_eq!(found[1].columns[1], ("id".to_owned(), "bigint".to_owned()));
    assert_eq!(found[0].columns[0], ("a".to_owned(), "numeric(5,1)".to_owned()));
    let tables = connection.tables().await.unwrap();
    let told: Vec<_> = tables.iter().map(|table| (table.reference.as_str(), table.is_own, table.is_view)).collect();
    assert_eq!(
        told,
        [
            ("other.things", false, false),
            ("public.orders", true, false),
            ("public.parted", true, false),
            ("public.v", true, true)
        ]
    );
}

#[tokio::test]
async fn passwords_and_servers_may_stand_in_libpqs_files() {
    use std::os::unix::fs::PermissionsExt;
    let database = postgres::database();
    let folder = tempfile::tempdir().unwrap();
    let (passfile, services) = (folder.path().join("pass"), folder.path().join("services"));
    let write = |password: &str, mode: u32| {
        std::fs::write(&passfile, format!("127.0.0.1:{}:*:{USER}:{password}\n", database.port)).unwrap();
        std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::write(
        &services,
        format!(
            "[shop]\nhost=127.0.0.1\nport={}\nuser={USER}\ndbname={}\noptions=-c work_mem=5MB\n[odd]\nhost=a\nsslcrl=x\n",
            database.port, database.name
        ),
    )
    .unwrap();
    let places = libpq::Places { passfile: Some(passfile.clone()), services: vec![services] };
    let open = |yaml: &str| {
        let node = parse("gristmill.yaml", yaml).unwrap();
        PostgresConfig::from_node_and(&node, folder.path(), &places).map(PostgresConnection::new)
    };
    let parts = format!("{{host: 127.0.0.1, port: {}, user: {USER}, database: {}}}", database.port, database.name);
    let relative = parts.replace('}', ", passfile: pass}");
    write(PASSWORD, 0o600);
    for yaml in ["{service: shop}", &parts, &relative] {
        let info = open(yaml).unwrap().test().await.unwrap();
        assert!(info.details.contains(&("database".to_owned(), database.name.clone())), "{info:?}");
    }
    let session = Session::open(&open("{service: shop}").unwrap().config).await.unwrap();
    assert_eq!(session.query_one("show work_mem", &[]).await.unwrap().get::<_, String>(0), "5MB");
    // What stands beside the service wins.
    let other = open("{service: shop, database: nothing_of_that_name}").unwrap().test().await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::NotFound, "{other}");
    write(PASSWORD, 0o640);
    let ignored = open("{service: shop}").unwrap().test().await.unwrap_err();
    assert_eq!(ignored.kind(), ErrorKind::Denied);
    assert!(ignored.hint_text().unwrap().contains("chmod 0600"), "{ignored:?}");
    write("wr0ng", 0o600);
    let refused = open("{service: shop}").unwrap().test().await.unwrap_err();
    assert!(refused.hint_text().unwrap().contains("the password is from"), "{refused:?}");
    assert!(!format!("{refused:?}").contains("wr0ng"));
    for (yaml, message) in [
        ("{service: shap}", "there is no service `shap`"),
        ("{service: odd}", "the option `sslcrl`"),
        ("{service: shop, url: \"postgres://u@h/d\"}", "not both"),
    ] {
        let mistakes = open(yaml).unwrap_err();
        assert!(mistakes[0].message.contains(message), "{mistakes:?}");
    }
}

#[tokio::test]
async fn a_statement_that_takes_longer_than_the_server_allows_says_what_to_set() {
    let database = postgres::database();
    database.sql(&format!(
        "create table t as select n from generate_series(1, 100) n; alter database {} set statement_timeout = '200ms'",
        database.name
    ));
    let source = source(&database, "query: select n, pg_sleep(0.05)::text as s from t");
    let error = read(source.as_ref()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.hint_text().unwrap().contains("set statement_timeout = 0"), "{error:?}");
    // The connection's own limit, which the server's does not outlast; and one that is long enough.
    let limited = |limit: &str| {
        let yaml = format!("{{type: postgres, url: \"{}\", statement_timeout: {limit}}}", database.local_url());
        connect(&yaml).unwrap().source(&extract("query: select n, pg_sleep(0.05)::text as s from t")).unwrap()
    };
    let error = read(limited("100ms").as_ref()).await.unwrap_err();
    assert!(error.hint_text().unwrap().starts_with("raise `statement_timeout` of the connection"), "{error:?}");
    assert_eq!(read(limited("1h").as_ref()).await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 100);
}

#[tokio::test]
async fn conditions_that_the_server_answers_alike_are_pushed_down_and_limits_too() {
    use crate::{Comparison, Filter, Literal, Test};
    let database = postgres::database();
    database.sql(
        "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         create table t(id int, day date, ok boolean, name text, folded text collate ci, code varchar(9), padded char(5), big numeric);
         insert into t select n, date '2024-01-01' + n, n % 2 = 0, 'n' || n % 5, 'F' || n % 5, 'c', 'p', n from generate_series(1, 3000) n;
         insert into t values (null), (null); analyze t",
    );
    let source = source(
        &database,
        "table: t\nwhere: id is null or id > 0 -- all\nschema: {code: int}\nunits: {target_rows: 500}",
    );
    source.schema().await.unwrap();
    let is =
        |column: &str, comparison, literal| Filter { column: column.to_owned(), test: Test::Is(comparison, literal) };
    let text = |text: &str| Literal::Text(text.to_owned());
    for refused in [
        is("folded", Comparison::Equal, text("f1")),
        is("code", Comparison::Equal, Literal::Integer(1)),
        is("padded", Comparison::Equal, text("p")),
        is("big", Comparison::Equal, Literal::Integer(1)),
        is("name", Comparison::Less, text("n2")),
        is("nothing", Comparison::Equal, Literal::Integer(1)),
    ] {
        assert!(!source.can_filter(&refused), "{refused}");
    }
    let read = async |filters: Vec<Filter>, limit: Option<u64>| {
        let want =
            ReadRequest { columns: Some(vec!["id".into()]), filters, limit, parallelism: 2, ..ReadRequest::default() };
        let plan = source.plan(&want).await.unwrap();
        let schema = Arc::new(source.schema().await.unwrap().project(&[0]).unwrap());
        let scan = Scan { schema, batch_size: 1000, on_bad_row: OnFail::Fail, rejects: None };
        let mut rows = 0;
        for unit in &plan.units {
            rows += source.read(unit, &scan).collect().await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>();
        }
        (rows, plan)
    };
    for (filter, rows) in [
        (is("id", Comparison::LessOrEqual, Literal::Integer(1200)), 1200),
        (is("id", Comparison::Greater, Literal::Integer(i64::MAX)), 0),
        (is("day", Comparison::Greater, Literal::Date(19_723 + 2990)), 10),
        (is("ok", Comparison::Equal, Literal::Boolean(true)), 1500),
        (is("name", Comparison::Equal, text("n3")), 600),
        (Filter { column: "name".into(), test: Test::OneOf(vec![text("n3"), text("N4"), text("o'k")]) }, 600),
        (Filter { column: "id".into(), test: Test::Null }, 2),
        (Filter { column: "id".into(), test: Test::NotNull }, 3000),
    ] {
        assert!(source.can_filter(&filter), "{filter}");
        let (read, plan) = read(vec![filter.clone()], None).await;
        assert_eq!(read, rows, "{filter}: {}", plan.why);
        assert!(plan.pushed_down.contains(&format!("filter: {filter}")), "{:?}", plan.pushed_down);
    }
    let (rows, plan) = read(Vec::new(), Some(7)).await;
    assert_eq!((rows, plan.units.len()), (7, 1), "{}", plan.why);
    assert!(plan.pushed_down.contains(&"limit: 7".to_owned()));
    assert_eq!(read(Vec::new(), None).await.0, 3002);
}
