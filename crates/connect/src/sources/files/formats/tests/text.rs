//! NDJSON and JSON.

use super::*;

async fn ndjson(text: &str) -> Result<RecordBatch> {
    whole(FileFormat::Ndjson, &file("x.ndjson", text.as_bytes().to_vec()).await).await
}

async fn json(text: &str, records: Option<&str>) -> Result<RecordBatch> {
    let mut input = file("x.json", text.as_bytes().to_vec()).await;
    input.json.records = records.map(str::to_owned);
    whole(FileFormat::Json, &input).await
}

fn integers(batch: &RecordBatch, name: &str) -> Vec<Option<i64>> {
    column(batch, name).as_primitive::<Int64Type>().iter().collect()
}

fn texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    column(batch, name).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

#[tokio::test]
async fn columns_of_ndjson_widen_and_nest() {
    let batch = ndjson(concat!(
        "\u{feff}{\"a\": 1, \"b\": 1, \"c\": \"x\", \"d\": {\"e\": [1, 2]}, \"day\": \"2024-01-15\"}\r\n",
        "\n",
        "{\"b\": 2.5, \"c\": 7, \"d\": {\"e\": [], \"f\": true}, \"g\": null}\n",
        "{\"a\": 3, \"c\": {\"deep\":  [1]}, \"d\": null}",
    ))
    .await
    .unwrap();
    assert_eq!(integers(&batch, "a"), [Some(1), None, Some(3)]);
    assert_eq!(column(&batch, "b").as_primitive::<Float64Type>().values()[..2], [1.0, 2.5]);
    let c = [Some("x".into()), Some("7".into()), Some("{\"deep\":  [1]}".into())];
    assert_eq!(texts(&batch, "c"), c);
    assert_eq!(column(&batch, "day").data_type(), &DataType::Utf8);
    assert_eq!(column(&batch, "g").data_type(), &DataType::Utf8);
    let d = column(&batch, "d").as_struct();
    assert!(matches!(d.column_by_name("e").unwrap().data_type(), DataType::List(_)));
    assert_eq!(d.column_by_name("f").unwrap().data_type(), &DataType::Boolean);
}

#[tokio::test]
async fn whole_numbers_beyond_64_bits_keep_their_digits() {
    let wide = |batch: &RecordBatch| {
        let values = ::arrow::compute::cast(column(batch, "a"), &DataType::Utf8).unwrap();
        values.as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    let batch = ndjson("{\"a\": 12345678901234567890}\n{\"a\": 12345678901234567891}\n{\"a\": 1}").await.unwrap();
    assert_eq!(column(&batch, "a").data_type(), &DataType::Decimal128(20, 0));
    assert_eq!(wide(&batch), ["12345678901234567890", "12345678901234567891", "1"]);
    let batch = ndjson("{\"a\": -123456789012345678901234}\n{\"a\": 1}").await.unwrap();
    assert_eq!(wide(&batch), ["-123456789012345678901234", "1"]);
    // Floats are floats, however they are written.
    for text in ["{\"a\": 1e20}", "{\"a\": 0.12345678901234567890}", "{\"a\": 1.5}\n{\"a\": 12345678901234567890}"] {
        let batch = ndjson(text).await.unwrap();
        assert_eq!(column(&batch, "a").data_type(), &DataType::Float64, "{text}");
    }
}

#[tokio::test]
async fn the_last_of_equal_keys_counts() {
    let batch = ndjson("{\"a\": \"x\", \"a\": 1}\n{\"a\": 2, \"b\": 1, \"a\": 3}").await.unwrap();
    assert_eq!(integers(&batch, "a"), [Some(1), Some(3)]);
    let batch = json("[{\"a\": 2, \"a\": null}, {\"a\": 1}]", None).await.unwrap();
    assert_eq!(integers(&batch, "a"), [None, Some(1)]);
}

#[tokio::test]
async fn a_fraction_is_never_cut_off() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let input = file("x.ndjson", b"{\"a\": 1}\n{\"a\": 2.0}\n{\"a\": 2.5}\n".to_vec()).await;
    let error = reader(FileFormat::Ndjson).read(input, scan(schema)).collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert_eq!(error.message(), "`x.ndjson:3` cannot be read: column `a`: 2.5 is not a whole number");
}

#[tokio::test]
async fn a_bad_line_is_named_or_left_out() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ]));
    let text = concat!(
        "{\"a\": 1}\n",
        "{\"a\": 2\n",
        "[3]\n",
        "\n",
        "{\"a\": \"many\"}\n",
        "{\"a\": 6, \"at\": \"2024-01-15T10:00:00\"} trailing\n",
        "{\"a\": 7, \"at\": \"yesterday\"}\n",
        "{\"a\": 8, \"at\": \"2024-01-15T10:00:00\"}\n",
    );
    let mut bytes = text.as_bytes().to_vec();
    bytes.extend_from_slice(b"{\"a\": 9, \"b\": \"\xff\"}\n");
    let input = file("x.ndjson", bytes).await;
    let error = reader(FileFormat::Ndjson).read(input.clone(), scan(schema.clone())).collect().await.unwrap_err();
    assert!(error.message().starts_with("`x.ndjson:2` cannot be read: the line ends inside a"), "{error}");
    for on_bad_row in [OnFail::Drop, OnFail::DeadLetter, OnFail::Warn] {
        let (scan, rejects) = tolerant(schema.clone(), on_bad_row);
        let batches = reader(FileFormat::Ndjson).read(input.clone(), scan).collect().await.unwrap();
        let batch = concat_batches(&schema, &batches).unwrap();
        assert_eq!(integers(&batch, "a"), [Some(1), Some(8)]);
        let rejects = rejects.lock().unwrap();
        let mut places: Vec<&str> = rejects.iter().map(|reject| reject.place.as_str()).collect();
        places.sort_unstable();
        assert_eq!(places, ["x.ndjson:2", "x.ndjson:3", "x.ndjson:5", "x.ndjson:6", "x.ndjson:7", "x.ndjson:9"]);
        let many = rejects.iter().find(|reject| reject.place == "x.ndjson:5").unwrap();
        assert_eq!(many.record, "{\"a\": \"many\"}");
        assert!(many.error.starts_with("column `a`: "), "{}", many.error);
    }
}

#[tokio::test]
async fn a_file_of_bad_records_alone_has_no_rows() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let input = file("x.ndjson", b"{\"a\": \"many\"}\n{\"a\": \"more\"}\n".to_vec()).await;
    let (scan, rejects) = tolerant(schema, OnFail::DeadLetter);
    let batches = reader(FileFormat::Ndjson).read(input, scan).collect().await.unwrap();
    assert_eq!((batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rejects.lock().unwrap().len()), (0, 2));
}

#[tokio::test]
async fn a_document_in_an_ndjson_file_is_told_so() {
    let error = ndjson("[{\"a\": 1}]").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert_eq!(error.hint_text(), Some("for a JSON document say `format: json`"));
}

#[tokio::test]
async fn empty_text_files_are_no_rows_as_lines_and_no_document() {
    assert_eq!(ndjson("").await.unwrap().num_rows(), 0);
    assert_eq!(ndjson("\n \n").await.unwrap().num_rows(), 0);
    assert_eq!(json("[]", None).await.unwrap().num_rows(), 0);
    assert_eq!(json("", None).await.unwrap_err().kind(), ErrorKind::Data);
}

#[tokio::test]
async fn every_layout_of_a_document_gives_its_objects() {
    for (text, path) in [
        ("[{\"a\": 1}, {\"a\": 2}]", None),
        ("\u{feff} {\"a\": 1}{\"a\": 2}\n", None),
        ("{\"a\": 1}\n\n{\"a\": 2}", None),
        ("{\"data\": {\"count\": 2, \"items\": [{\"a\": 1}, {\"a\": 2}]}, \"more\": [{}]}", Some("data.items")),
        ("{\"data\": [{\"items\": {\"a\": 1}}, {\"other\": 5}, {\"it\\u0065ms\": [{\"a\": 2}]}]}", Some("data.items")),
        ("{\"items\": [{\"a\": 1}]} {\"items\": [{\"a\": 2}]}", Some("items")),
    ] {
        let batch = json(text, path).await.unwrap();
        assert_eq!(integers(&batch, "a"), [Some(1), Some(2)], "{text}");
    }
}

#[tokio::test]
async fn documents_without_rows_say_what_is_there_instead() {
    let error = json("{\"meta\": {}, \"rows\": []}", Some("data.items")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.hint_text().unwrap().contains("`meta`, `rows`"), "{error}");
    let error = json("[1, 2]", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.message().contains("found a number where an object was expected"), "{error}");
    let error = json("[1, 2", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let error = json("[{\"a\": 1},]", None).await.unwrap_err();
    assert_eq!(error.to_string(), "`x.json` is not a readable JSON file: line 1, byte 11: expected a value, found `]`");
}

#[tokio::test]
async fn odd_elements_of_a_document_are_left_out_where_asked() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let input = file("x.json", b"[{\"a\": 1}, 2, [3], {\"a\": 4}]".to_vec()).await;
    let (scan, rejects) = tolerant(schema.clone(), OnFail::Drop);
    let batches = reader(FileFormat::Json).read(input, scan).collect().await.unwrap();
    assert_eq!(integers(&concat_batches(&schema, &batches).unwrap(), "a"), [Some(1), Some(4)]);
    let places: Vec<String> = rejects.lock().unwrap().iter().map(|reject| reject.place.clone()).collect();
    assert_eq!(places, ["x.json: record 2", "x.json: record 3"]);
}

#[tokio::test]
async fn deep_nesting_overflows_no_stack() {
    for depth in [200, 5_000, 100_000] {
        let line = format!("{{\"a\": {}1{}}}\n", "[".repeat(depth), "]".repeat(depth));
        let batch = ndjson(&line).await;
        // What is deeper than any table is kept as text, or refused; it never ends the process.
        if let Err(error) = batch {
            assert_eq!(error.kind(), ErrorKind::Data);
        }
        let open = format!("{{\"a\": {}", "[".repeat(depth));
        assert_eq!(ndjson(&open).await.unwrap_err().kind(), ErrorKind::Data);
        assert_eq!(json(&"[".repeat(depth), None).await.unwrap_err().kind(), ErrorKind::Data);
        let unread = format!("{{\"b\": 1, \"a\": {}{}}}\n", "{\"x\":[".repeat(depth), "]}".repeat(depth));
        let schema = Arc::new(Schema::new(vec![Field::new("b", DataType::Int64, true)]));
        let input = file("x.ndjson", unread.into_bytes()).await;
        let batches = reader(FileFormat::Ndjson).read(input, scan(schema)).collect().await.unwrap();
        assert_eq!(integers(&batches[0], "b"), [Some(1)]);
    }
}

#[tokio::test]
async fn columns_may_be_asked_for_that_are_not_there() {
    let schema =
        Arc::new(Schema::new(vec![Field::new("z", DataType::Utf8, true), Field::new("a", DataType::Int64, true)]));
    let input = file("x.ndjson", b"{\"a\": 1, \"b\": 2}\n".to_vec()).await;
    let batches = reader(FileFormat::Ndjson).read(input.clone(), scan(schema)).collect().await.unwrap();
    assert_eq!((texts(&batches[0], "z"), integers(&batches[0], "a")), (vec![None], vec![Some(1)]));
    let none = reader(FileFormat::Ndjson).read(input, scan(Arc::new(Schema::empty()))).collect().await.unwrap();
    assert_eq!(none[0].num_rows(), 1);
}

#[tokio::test]
async fn compressed_text_is_read_member_after_member() {
    use async_compression::tokio::bufread::{BzEncoder, GzipEncoder, XzEncoder, ZstdEncoder};
    use tokio::io::AsyncReadExt;
    async fn pack(compression: Compression, text: &'static [u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        match compression {
            Compression::Gzip => GzipEncoder::new(text).read_to_end(&mut packed).await,
            Compression::Bzip2 => BzEncoder::new(text).read_to_end(&mut packed).await,
            Compression::Xz => XzEncoder::new(text).read_to_end(&mut packed).await,
            _ => ZstdEncoder::new(text).read_to_end(&mut packed).await,
        }
        .unwrap();
        packed
    }
    for compression in [Compression::Gzip, Compression::Bzip2, Compression::Xz, Compression::Zstd] {
        let mut bytes = pack(compression, b"{\"a\": 1}\n{\"a\"").await;
        bytes.extend(pack(compression, b": 2}\n").await);
        let mut input = file("x.ndjson.z", bytes.clone()).await;
        input.compression = compression;
        let batch = whole(FileFormat::Ndjson, &input).await.unwrap();
        assert_eq!(integers(&batch, "a"), [Some(1), Some(2)], "{compression:?}");
        let mut torn = file("x.ndjson.z", bytes[..bytes.len() - 3].to_vec()).await;
        torn.compression = compression;
        let schema = batch.schema();
        let error = reader(FileFormat::Ndjson).read(torn, scan(schema)).collect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert!(error.message().starts_with("`x.ndjson.z` cannot be decompressed as "), "{error}");
        let mut plain = file("x.ndjson.z", b"{\"a\": 1}\n".to_vec()).await;
        plain.compression = compression;
        assert_eq!(whole(FileFormat::Ndjson, &plain).await.unwrap_err().kind(), ErrorKind::Data);
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_not_found() {
    for format in [
        FileFormat::Ndjson,
        FileFormat::Json,
        FileFormat::Parquet,
        FileFormat::Avro,
        FileFormat::Orc,
        FileFormat::Arrow,
    ] {
        let mut input = file("x", vec![b'x'; 100]).await;
        input.store = Arc::new(InMemory::new());
        let error = reader(format).infer(&input).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{format:?}: {error}");
    }
}

/// JSON values, texts and keys with everything that needs escaping.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[\"\\\\{}\\[\\],: a]{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::hash_map(any::<String>(), inner, 0..5)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

fn object() -> impl Strategy<Value = serde_json::Value> {
    prop::collection::hash_map("[a-d\"\\\\é]{0,3}", value(), 0..6)
        .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(64)))]

    #[test]
    fn rows_written_as_ndjson_read_back_equal(batch in super::binary::batch()) {
        let mut bytes = Vec::new();
        let mut writer = ::arrow::json::LineDelimitedWriter::new(&mut bytes);
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let read = block_on(async {
            let input = file("x.ndjson", bytes).await;
            reader(FileFormat::Ndjson).read(input, scan(batch.schema())).collect().await.unwrap()
        });
        prop_assert_eq!(concat_batches(&batch.schema(), &read).unwrap(), batch);
    }

    #[test]
    fn whatever_is_an_object_is_a_row(objects in prop::collection::vec(object(), 1..20), array in any::<bool>()) {
        let (format, text) = if array {
            (FileFormat::Json, serde_json::to_string(&objects).unwrap())
        } else {
            (FileFormat::Ndjson, objects.iter().map(|object| format!("{object}\n")).collect())
        };
        let read = block_on(async { whole(format, &file("x", text.into_bytes()).await).await }).unwrap();
        prop_assert_eq!(read.num_rows(), objects.len());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for format in [FileFormat::Json, FileFormat::Ndjson, FileFormat::Avro, FileFormat::Arrow, FileFormat::Orc] {
            let _ = block_on(async { whole(format, &file("x", bytes.clone()).await).await });
        }
    }
}
