//! Parquet, Avro, ORC and Arrow.

use super::*;
use ::arrow::datatypes::{Fields, Int32Type};
use ::arrow::ipc::CompressionType;
use ::arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression as PageCompression, ZstdLevel};
use ::parquet::file::properties::WriterProperties;

/// Batches of every shape that all formats have.
pub(super) fn batch() -> impl Strategy<Value = RecordBatch> {
    let row = (
        any::<Option<i64>>(),
        prop::option::of(any::<f64>().prop_filter("finite", |number| number.is_finite())),
        any::<Option<bool>>(),
        any::<Option<String>>(),
        prop::option::of(prop::collection::vec(any::<Option<i64>>(), 0..4)),
        any::<Option<i64>>(),
    );
    prop::collection::vec(row, 1..40).prop_map(|rows| {
        let list: ListArray = ListArray::from_iter_primitive::<Int64Type, _, _>(rows.iter().map(|row| row.4.clone()));
        let inner = Fields::from(vec![Field::new("x", DataType::Int64, true)]);
        let nested = StructArray::new(
            inner,
            vec![Arc::new(rows.iter().map(|row| row.5).collect::<Int64Array>()) as ArrayRef],
            None,
        );
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("whole", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>())),
            ("number", Arc::new(rows.iter().map(|row| row.1).collect::<Float64Array>())),
            ("truth", Arc::new(rows.iter().map(|row| row.2).collect::<BooleanArray>())),
            ("text", Arc::new(rows.iter().map(|row| row.3.clone()).collect::<StringArray>())),
            ("list", Arc::new(list)),
            ("nested", Arc::new(nested)),
        ];
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), *name != "nested"))
            .collect();
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    })
}

fn sample(rows: i64) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]);
    let names: StringArray = (0..rows).map(|row| Some(format!("name {row}"))).collect();
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from_iter_values(0..rows)), Arc::new(names)])
        .unwrap()
}

fn as_parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder()
        .set_compression(PageCompression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(7))
        .build();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn as_avro(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow_avro::writer::AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner()
}

fn as_orc(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = orc_rust::ArrowWriterBuilder::new(&mut bytes, batch.schema()).try_build().unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn as_arrow_file(batch: &RecordBatch, compression: Option<CompressionType>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut writer = FileWriter::try_new_with_options(&mut bytes, &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn as_arrow_stream(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

/// Small files of every format.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>((0..9).map(|row| Some(vec![Some(row); 77])));
    let names: StringArray = (0..9).map(|row| Some(["a", "b"][row % 2])).collect();
    let columns = [("lists", Arc::new(lists) as ArrayRef), ("name", Arc::new(names) as ArrayRef)];
    let nested = RecordBatch::try_from_iter(columns).unwrap();
    let mut all = every_format(&sample(9));
    all.extend(every_format(&nested));
    let mut seeds: Vec<Vec<u8>> = all.into_iter().map(|(_, bytes)| bytes).collect();
    // The library writes no lists.
    seeds.extend([as_orc(&sample(9)), orc::crafted::lists(2)]);
    seeds
}

fn every_format(batch: &RecordBatch) -> Vec<(FileFormat, Vec<u8>)> {
    vec![
        (FileFormat::Parquet, as_parquet(batch)),
        (FileFormat::Avro, as_avro(batch)),
        (FileFormat::Arrow, as_arrow_file(batch, None)),
        (FileFormat::Arrow, as_arrow_file(batch, Some(CompressionType::LZ4_FRAME))),
        (FileFormat::Arrow, as_arrow_file(batch, Some(CompressionType::ZSTD))),
        (FileFormat::Arrow, as_arrow_stream(batch)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(24)))]

    #[test]
    fn rows_read_back_equal_from_every_format(batch in batch()) {
        for (format, bytes) in every_format(&batch) {
            let read = block_on(async {
                let input = file("x", bytes).await;
                let mut scan = scan(batch.schema());
                scan.batch_size = 10;
                reader(format).read(input, scan).collect().await.unwrap()
            });
            prop_assert!(read.iter().all(|batch| batch.num_rows() <= 10));
            prop_assert_eq!(concat_batches(&batch.schema(), &read).unwrap(), batch.clone(), "{:?}", format);
        }
    }

    #[test]
    fn a_changed_byte_is_an_error_or_other_rows(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let batch = sample(30);
        let mut all = every_format(&batch);
        all.push((FileFormat::Orc, as_orc(&batch)));
        for (format, mut bytes) in all {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = block_on(async { whole_or_error(format, bytes).await });
        }
    }
}

async fn whole_or_error(format: FileFormat, bytes: Vec<u8>) -> Result<usize> {
    let input = file("x", bytes).await;
    let schema = reader(format).infer(&input).await?.schema;
    let batches = reader(format).read(input, scan(schema)).collect().await?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

#[tokio::test]
async fn columns_are_taken_by_name_widened_and_filled() {
    let batch = sample(20);
    let schema = Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("extra", DataType::Float64, true),
        Field::new("id", DataType::Utf8, true),
    ]));
    let mut all = every_format(&batch);
    all.push((FileFormat::Orc, as_orc(&batch)));
    for (format, bytes) in all {
        let input = file("x", bytes).await;
        let batches = reader(format).read(input.clone(), scan(schema.clone())).collect().await.unwrap();
        let read = concat_batches(&schema, &batches).unwrap();
        assert_eq!(column(&read, "id").as_string::<i32>().value(7), "7", "{format:?}");
        assert_eq!(column(&read, "name").as_string::<i32>().value(7), "name 7", "{format:?}");
        assert_eq!(column(&read, "extra").null_count(), 20, "{format:?}");
        let none = reader(format).read(input, scan(Arc::new(Schema::empty()))).collect().await.unwrap();
        assert_eq!(none.iter().map(RecordBatch::num_rows).sum::<usize>(), 20, "{format:?}");
    }
}

#[tokio::test]
async fn a_value_that_does_not_fit_names_its_column_or_is_left_out() {
    let schema = Arc::new(Schema::new(vec![Field::new("name", DataType::Int32, true)]));
    let names = StringArray::from(vec![Some("1"), Some("two"), None, Some("4")]);
    let from = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true)]));
    let batch = RecordBatch::try_new(from, vec![Arc::new(names)]).unwrap();
    for (format, bytes) in every_format(&batch) {
        let input = file("x", bytes).await;
        let error = reader(format).read(input.clone(), scan(schema.clone())).collect().await.unwrap_err();
        assert!(error.message().starts_with("`x`: column `name` cannot be read as Int32"), "{error}");
        let (scan, rejects) = tolerant(schema.clone(), OnFail::DeadLetter);
        let batches = reader(format).read(input, scan).collect().await.unwrap();
        let read = concat_batches(&schema, &batches).unwrap();
        let values: Vec<Option<i32>> = column(&read, "name").as_primitive::<Int32Type>().iter().collect();
        assert_eq!(values, [Some(1), None, Some(4)]);
        let rejects = rejects.lock().unwrap();
        assert_eq!((rejects[0].place.as_str(), rejects[0].record.as_str()), ("x:2", "name: two"));
    }
}

#[tokio::test]
async fn a_torn_file_is_an_error_wherever_it_was_torn() {
    let batch = sample(200);
    let mut all = every_format(&batch);
    all.push((FileFormat::Orc, as_orc(&batch)));
    for (format, bytes) in all {
        for part in 0..40 {
            let end = bytes.len() * part / 40;
            let torn = whole_or_error(format, bytes[..end].to_vec()).await;
            match torn {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Data, "{format:?} at {end}: {error}"),
                // A stream may end without its end mark, after any message.
                Ok(rows) => assert!(format == FileFormat::Arrow && rows % 200 == 0, "{format:?} at {end}: {rows} rows"),
            }
        }
    }
}

#[tokio::test]
async fn a_file_of_the_wrong_kind_is_said_to_be_so() {
    for (format, name) in [
        (FileFormat::Parquet, "a readable Parquet file"),
        (FileFormat::Avro, "a readable Avro file"),
        (FileFormat::Orc, "a readable ORC file"),
        (FileFormat::Arrow, "a readable Arrow IPC file"),
    ] {
        let error = whole_or_error(format, b"id,name\n1,one\n2,two\n3,three\n".to_vec()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains(name), "{error}");
    }
}

#[tokio::test]
async fn an_encrypted_footer_is_said_to_be_one() {
    let mut bytes = as_parquet(&sample(3));
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(b"PARE");
    let error = whole_or_error(FileFormat::Parquet, bytes).await.unwrap_err();
    assert_eq!(error.message(), "`x` is encrypted, which Gristmill cannot read");
}

/// An Avro file of one block with these bytes.
fn avro_of(schema: &str, count: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"Obj\x01\x02\x16avro.schema".to_vec();
    let length = schema.len() as u64 * 2;
    bytes.extend([(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
    bytes.extend_from_slice(schema.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&[7; 16]);
    bytes.extend([count * 2, data.len() as u8 * 2]);
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&[7; 16]);
    bytes
}

const AVRO_SCHEMA: &str =
    r#"{"type": "record", "name": "a.row", "fields": [{"name": "id", "type": ["null", {"type": "long"}]}]}"#;

#[tokio::test]
async fn an_avro_block_holds_its_records_and_nothing_else() {
    assert_eq!(whole_or_error(FileFormat::Avro, avro_of(AVRO_SCHEMA, 2, &[2, 4, 0])).await.unwrap(), 2);
    for (count, data) in [(2, &[2, 4, 0, 0][..]), (3, &[2, 4, 0]), (0, &[2, 4]), (2, &[2, 4, 6])] {
        let error = whole_or_error(FileFormat::Avro, avro_of(AVRO_SCHEMA, count, data)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    }
    let itself = r#"{"type": "record", "name": "row", "fields": [{"name": "next", "type": ["null", "row"]}]}        "#;
    let error = whole_or_error(FileFormat::Avro, avro_of(itself, 1, &[0])).await.unwrap_err();
    assert!(error.to_string().contains("contains itself"), "{error}");
}

#[tokio::test]
async fn avro_is_read_whatever_its_codec() {
    use arrow_avro::compression::CompressionCodec;
    use arrow_avro::writer::{WriterBuilder, format::AvroOcfFormat};
    let batch = sample(500);
    for codec in [CompressionCodec::Deflate, CompressionCodec::Snappy, CompressionCodec::ZStandard] {
        let mut writer = WriterBuilder::new(batch.schema().as_ref().clone())
            .with_compression(Some(codec))
            .build::<_, AvroOcfFormat>(Vec::new())
            .unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        assert_eq!(whole_or_error(FileFormat::Avro, writer.into_inner()).await.unwrap(), 500, "{codec:?}");
    }
}

#[tokio::test]
async fn an_orc_file_whose_types_go_in_circles_is_refused() {
    let mut bytes = as_orc(&sample(3));
    // The root struct (kind 12) with its two columns, 1 and 2.
    let root = b"\x08\x0c\x12\x02\x01\x02";
    let at = bytes.windows(root.len()).rposition(|window| window == root).expect("an uncompressed footer");
    bytes[at + 5] = 0;
    let error = whole_or_error(FileFormat::Orc, bytes).await.unwrap_err();
    assert!(error.to_string().contains("circle"), "{error}");
}

#[tokio::test]
async fn an_orc_file_that_lies_about_the_lengths_of_its_lists_is_refused_before_room_is_made_for_them() {
    assert_eq!(whole_or_error(FileFormat::Orc, orc::crafted::lists(2)).await.unwrap(), 3);
    for length in [1 << 27, 1 << 40, u64::MAX] {
        let error = whole_or_error(FileFormat::Orc, orc::crafted::lists(length)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Data && error.to_string().contains("more than 67108864 items"), "{error}");
    }
    // So many that a batch has fewer rows than asked for; the items are not there.
    assert!(whole_or_error(FileFormat::Orc, orc::crafted::lists(1 << 25)).await.is_err());
}

#[tokio::test]
async fn files_with_their_index_at_the_end_are_not_read_through_compression() {
    let mut input = file("x.parquet.gz", as_parquet(&sample(3))).await;
    input.compression = Compression::Gzip;
    let error = reader(FileFormat::Parquet).infer(&input).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
