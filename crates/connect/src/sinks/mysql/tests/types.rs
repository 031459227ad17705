//! Values: all types there and back, what is refused, what a table may be declared as.

use super::*;
use proptest::prelude::{ProptestConfig, Strategy as _, any, prop, prop_assert_eq, proptest};

/// An array of every kind that has a MySQL type, and what MariaDB calls and shows it.
fn arrays() -> Vec<(ArrayRef, &'static str, &'static str)> {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
    let texts: DictionaryArray<Int32Type> = ["a"].into_iter().collect();
    let fields = Fields::from(vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Utf8, true)]);
    let record = StructArray::new(
        fields,
        vec![Arc::new(Int64Array::from(vec![Some(1)])), Arc::new(StringArray::from(vec![None::<&str>]))],
        None,
    );
    let wide = i256::from_string("12345678901234567890123456789012345678901234567890123456789012345").unwrap();
    vec![
        (Arc::new(BooleanArray::from(vec![true])), "tinyint(1)", "1"),
        (Arc::new(Int8Array::from(vec![-128])), "tinyint(4)", "-128"),
        (Arc::new(Int16Array::from(vec![1])), "smallint(6)", "1"),
        (Arc::new(Int32Array::from(vec![i32::MIN])), "int(11)", "-2147483648"),
        (Arc::new(Int64Array::from(vec![i64::MIN])), "bigint(20)", "-9223372036854775808"),
        (Arc::new(UInt8Array::from(vec![255])), "tinyint(3) unsigned", "255"),
        (Arc::new(UInt16Array::from(vec![65535])), "smallint(5) unsigned", "65535"),
        (Arc::new(UInt32Array::from(vec![u32::MAX])), "int(10) unsigned", "4294967295"),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), "bigint(20) unsigned", "18446744073709551615"),
        (Arc::new(Float32Array::from(vec![1.5])), "float", "1.5"),
        (Arc::new(Float64Array::from(vec![-0.1])), "double", "-0.1"),
        (
            Arc::new(Decimal128Array::from(vec![-12345]).with_precision_and_scale(10, 2).unwrap()),
            "decimal(10,2)",
            "-123.45",
        ),
        (
            Arc::new(Decimal64Array::from(vec![1]).with_precision_and_scale(9, 9).unwrap()),
            "decimal(9,9)",
            "0.000000001",
        ),
        (Arc::new(Decimal128Array::from(vec![12]).with_precision_and_scale(5, -2).unwrap()), "decimal(7,0)", "1200"),
        (
            Arc::new(Decimal256Array::from(vec![wide]).with_precision_and_scale(65, 5).unwrap()),
            "decimal(65,5)",
            "123456789012345678901234567890123456789012345678901234567890.12345",
        ),
        (Arc::new(StringArray::from(vec!["it's \\ \"日本\" 🙂\t\n\0\\N"])), "longtext", "it's \\ \"日本\" 🙂\t\n\0\\N"),
        (Arc::new(LargeStringArray::from(vec!["x  "])), "longtext", "x  "),
        (
            Arc::new(StringViewArray::from(vec!["a view longer than twelve bytes"])),
            "longtext",
            "a view longer than twelve bytes",
        ),
        (Arc::new(texts), "longtext", "a"),
        (Arc::new(NullArray::new(1)), "longtext", "NULL"),
        (Arc::new(BinaryArray::from(vec![b"\x00\xff\t\\\n'".as_slice()])), "longblob", "00FF095C0A27"),
        (Arc::new(BinaryViewArray::from(vec![b"\x01".as_slice()])), "longblob", "01"),
        (Arc::new(FixedSizeBinaryArray::try_from_iter([[7u8; 2]].into_iter()).unwrap()), "longblob", "0707"),
        (Arc::new(Date32Array::from(vec![19737])), "date", "2024-01-15"),
        (Arc::new(Date64Array::from(vec![19737 * 86_400_000])), "date", "2024-01-15"),
        (Arc::new(Time32SecondArray::from(vec![3661])), "time(6)", "01:01:01.000000"),
        (Arc::new(Time64NanosecondArray::from(vec![1_000_001_000])), "time(6)", "00:00:01.000001"),
        (Arc::new(TimestampSecondArray::from(vec![0])), "datetime(6)", "1970-01-01 00:00:00.000000"),
        (
            Arc::new(TimestampNanosecondArray::from(vec![-6_200_000_000_000_001_000])),
            "datetime(6)",
            "1773-07-12 17:46:39.999999",
        ),
        (
            Arc::new(TimestampMillisecondArray::from(vec![1_001]).with_timezone("+02:00")),
            "timestamp(6)",
            "1970-01-01 00:00:01.001000",
        ),
        (Arc::new(DurationSecondArray::from(vec![-3_000_000])), "time(6)", "-833:20:00.000000"),
        (Arc::new(list), "longtext", "[1,null]"),
        (Arc::new(record), "longtext", "{\"x\":1,\"y\":null}"),
    ]
}

#[tokio::test]
async fn every_arrow_type_becomes_what_the_table_of_types_says() {
    for database in [mariadb::database(), by_inserts()] {
        let arrays = arrays();
        let names: Vec<String> = (0..arrays.len()).map(|n| format!("c{n}")).collect();
        let rows =
            batch(names.iter().map(String::as_str).zip(arrays.iter().map(|(array, ..)| array.clone())).collect());
        load(&database, "table: zoo\nstrategy: append", &rows, 1).await.unwrap();
        for (n, (array, declared, shown)) in arrays.iter().enumerate() {
            let of = database.sql(&format!(
                "select column_type from information_schema.columns where table_schema = database() and table_name = 'zoo' and column_name = 'c{n}'"
            ));
            assert_eq!(of, *declared, "{}", array.data_type());
            let shows = if *declared == "longblob" { format!("hex(c{n})") } else { format!("c{n}") };
            let value = database.sql(&format!("set time_zone = '+00:00'; select {shows} from zoo"));
            assert_eq!(value, *shown, "{}", array.data_type());
        }
        // A second load finds a table that it fits.
        load(&database, "table: zoo\nstrategy: replace", &rows, 2).await.unwrap();
        assert_eq!(database.sql("select count(*) from zoo"), "1");
    }
}

type Case = (
    Option<i64>,
    Option<String>,
    Option<i128>,
    (Option<i64>, Option<i64>),
    Option<i32>,
    (Option<f64>, Option<f32>),
    Option<Vec<u8>>,
    (Option<u64>, Option<bool>),
);

fn cases() -> impl proptest::strategy::Strategy<Value = Vec<Case>> {
    // There is no minus zero: it comes back as zero, which it equals.
    let real = || any::<f64>().prop_filter("finite", |real| real.is_finite()).prop_map(|real| real + 0.0);
    let small = || any::<f32>().prop_filter("finite", |real| real.is_finite()).prop_map(|real| real + 0.0);
    let case = (
        prop::option::of(any::<i64>()),
        prop::option::of("\\PC{0,20}|[\\x00-\\x7f]{0,10}"),
        prop::option::of(-(10i128.pow(20))..10i128.pow(20)),
        (
            // Years 1 to 9999, and what a `timestamp` holds, in microseconds.
            prop::option::of(-62_135_596_800_000_000i64..253_402_300_799_999_999),
            prop::option::of(1_000_000i64..2_147_483_647_999_999),
        ),
        prop::option::of(-700_000i32..2_900_000),
        (prop::option::of(real()), prop::option::of(small())),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..30)),
        (prop::option::of(any::<u64>()), prop::option::of(any::<bool>())),
    );
    prop::collection::vec(case, 0..50)
}

#[test]
fn random_rows_come_back_as_they_went() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for database in [mariadb::database(), by_inserts()] {
        let generation = std::cell::Cell::new(0);
        proptest!(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() }, |(cases in cases())| {
            generation.set(generation.get() + 1);
            let rows = batch(vec![
                ("i", Arc::new(cases.iter().map(|case| case.0).collect::<Int64Array>()) as ArrayRef),
                ("t", Arc::new(cases.iter().map(|case| case.1.clone()).collect::<StringArray>())),
                ("d", Arc::new(cases.iter().map(|case| case.2).collect::<Decimal128Array>().with_precision_and_scale(21, 7).unwrap())),
                ("ts", Arc::new(cases.iter().map(|case| case.3.0).collect::<TimestampMicrosecondArray>())),
                ("tz", Arc::new(cases.iter().map(|case| case.3.1).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
                ("day", Arc::new(cases.iter().map(|case| case.4).collect::<Date32Array>())),
                ("f", Arc::new(cases.iter().map(|case| case.5.0).collect::<Float64Array>())),
                ("g", Arc::new(cases.iter().map(|case| case.5.1).collect::<Float32Array>())),
                ("b", Arc::new(cases.iter().map(|case| case.6.as_deref()).collect::<BinaryArray>())),
                ("u", Arc::new(cases.iter().map(|case| case.7.0).collect::<UInt64Array>())),
                ("o", Arc::new(cases.iter().map(|case| case.7.1).collect::<BooleanArray>())),
            ]);
            let back = runtime.block_on(async {
                load(&database, "table: t\nstrategy: replace", &rows, generation.get()).await.unwrap();
                read(&database, "table: t").await
            });
            prop_assert_eq!(sorted_rows(&back).unwrap(), sorted_rows(std::slice::from_ref(&rows)).unwrap());
            if let Some(back) = back.first() {
                prop_assert_eq!(back.schema(), rows.schema());
            }
        });
    }
}

#[tokio::test]
async fn what_mysql_cannot_keep_is_refused_by_column_and_value() {
    let moment = |micros: i64| Arc::new(TimestampMicrosecondArray::from(vec![0, micros])) as ArrayRef;
    let zoned = |micros: i64| {
        Arc::new(TimestampMicrosecondArray::from(vec![1_000_000, micros]).with_timezone("UTC")) as ArrayRef
    };
    for database in [mariadb::database(), by_inserts()] {
        for (array, words) in [
            (Arc::new(Float64Array::from(vec![1.0, f64::NAN])) as ArrayRef, "`NaN` in the column `c` is no number"),
            (Arc::new(Float32Array::from(vec![f32::NEG_INFINITY])), "`-inf` in the column `c` is no number"),
            (Arc::new(Date32Array::from(vec![2_932_897])), "is not of the years 1 to 9999"),
            (moment(-62_135_596_800_000_001), "is not of the years 1 to 9999"),
            (zoned(2_147_483_648_000_000), "`2038-01-19 03:14:08` in the column `c` is beyond"),
            (zoned(0), "`1970-01-01 00:00:00` in the column `c` is beyond"),
            (Arc::new(DurationSecondArray::from(vec![3_020_400])), "`839:00:00` in the column `c` is longer"),
            (Arc::new(TimestampNanosecondArray::from(vec![1_001])), "lies between two microseconds (1001 ns)"),
        ] {
            let error = load(&database, "table: t\nstrategy: append", &one("c", array), 1).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{error}");
            assert!(error.message().contains(words), "{error}");
        }
        // Where the table has room, they are taken.
        database.sql("create table wide(c datetime(6))");
        load(&database, "table: wide\nstrategy: append", &one("c", zoned(4_000_000_000_000_000)), 1).await.unwrap();
        assert_eq!(database.sql("select max(c) from wide"), "2096-10-02 07:06:40.000000");
    }
    let database = mariadb::database();
    for kind in [DataType::Decimal256(76, 5), DataType::Interval(IntervalUnit::MonthDayNano)] {
        let schema = Arc::new(Schema::new(vec![Field::new("i", kind, true)]));
        let error = open(&database, "table: t\nstrategy: append", &schema, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
    }
}

#[tokio::test]
async fn new_columns_are_added_and_types_that_lose_are_refused() {
    let database = mariadb::database();
    database.sql(
        "create table t(id integer, amount decimal(10,2), ref uuid, small varchar(3), must int not null default 1,
           at datetime, made year, kind enum('a', 'b'), latin varchar(9) character set latin1, bytes binary(4),
           number int not null auto_increment primary key)",
    );
    let decimal = |value: i128, scale: i8| {
        Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(12, scale).unwrap()) as ArrayRef
    };
    let text = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let rows = batch(vec![
        ("ID", Arc::new(Int64Array::from(vec![7])) as ArrayRef),
        ("amount", decimal(15, 1)),
        ("ref", text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ("Extra Column", Arc::new(TimestampMicrosecondArray::from(vec![0]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_000_000]))),
        ("made", Arc::new(Int16Array::from(vec![1999]))),
        ("kind", text("b")),
        ("latin", text("süß")),
        ("number", Arc::new(Int32Array::from(vec![0]))),
    ]);
    load(&database, "table: t\nstrategy: append", &rows, 1).await.unwrap();
    assert_eq!(
        database.sql("select id, amount, ref, must, `Extra Column`, at, made, kind, latin, number from t"),
        "7\t1.50\ta0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\t1\t1970-01-01 00:00:00.000000\t1970-01-01 00:00:01\t1999\tb\tsüß\t0"
    );

    let refuse = async |rows: RecordBatch| load(&database, "table: t\nstrategy: append", &rows, 2).await.unwrap_err();
    for (name, array, told) in [
        ("amount", Arc::new(Float64Array::from(vec![7.0])) as ArrayRef, "is Float64 in the rows, and `decimal(10,2)`"),
        ("id", text("7"), "is Utf8 in the rows, and `int(11)`"),
        ("id", Arc::new(Float64Array::from(vec![7.0])) as ArrayRef, "is Float64 in the rows"),
        ("bytes", Arc::new(BinaryArray::from(vec![b"ab".as_slice()])), "is Binary in the rows, and `binary(4)`"),
    ] {
        let error = refuse(one(name, array)).await;
        assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
        assert!(error.message().contains(told), "{error}");
    }
    // What is looked at value by value is refused value by value; nothing is rounded, cut or made up.
    for (name, array) in [
        ("ref", text("no")),
        ("small", text("four")),
        ("small", text("abc  ")),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000]))),
        ("made", Arc::new(Int16Array::from(vec![24]))),
        ("kind", text("c")),
        ("latin", text("日本")),
        ("number", Arc::new(Int32Array::from(vec![None]))),
    ] {
        let error = refuse(one(name, array)).await;
        assert_eq!(error.kind(), ErrorKind::Data, "{name}: {error}");
    }
    database.sql("alter table t alter must drop default");
    let error = refuse(ids(&[1])).await;
    assert!(error.message().contains("the column `must` of"), "{error}");
    assert_eq!(database.sql("select count(*) from t"), "1");
    database.sql("create table g(id bigint auto_increment primary key, twice int as (1) stored)");
    load(&database, "table: g\nstrategy: append", &ids(&[41]), 3).await.unwrap();
    assert_eq!(database.sql("select id from g"), "41");
    let rows = one("twice", Arc::new(Int32Array::from(vec![1])));
    let error = load(&database, "table: g\nstrategy: append", &rows, 4).await.unwrap_err();
    assert!(error.message().contains("is computed by the server"), "{error}");
}

#[tokio::test]
async fn large_rows_go_through_however_they_are_sent() {
    let text = |size: usize| Arc::new(StringArray::from(vec!["x".repeat(size), "y".repeat(size / 2)])) as ArrayRef;
    let database = mariadb::database();
    load(&database, "table: t\nstrategy: append", &one("c", text(20 << 20)), 1).await.unwrap();
    assert_eq!(database.sql("select max(length(c)), count(*) from t"), "20971520\t2");
    let database = by_inserts();
    load(&database, "table: t\nstrategy: append", &one("c", text(900_000)), 1).await.unwrap();
    assert_eq!(database.sql("select max(length(c)), count(*) from t"), "900000\t2");
    let error = load(&database, "table: t\nstrategy: append", &one("c", text(1 << 20)), 2).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("max_allowed_packet"), "{error}");
}
