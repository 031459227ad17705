//! Avro and Arrow IPC: what is written is what our reader finds, and what the Avro specification says.

use super::*;
use crate::sources::files::FilesConnection;
use crate::{Connection, ReadRequest, Scan};
use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int8Array, ListArray,
    MapBuilder, StringBuilder, StructArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Fields, Int32Type, Int64Type};
use gristmill_model::spec::{Compression, ExtractSpec, OnFail};
use gristmill_model::yaml::{decode, parse};
use proptest::prelude::{Just, ProptestConfig, any, prop_assert_eq, prop_oneof, proptest};
use std::io::Read;

/// Writes the batches as one load, by one writer.
async fn written(spec: LoadSpec, batches: Vec<RecordBatch>) -> Result<Target> {
    let target = Target::local();
    let schema = batches[0].schema();
    let sink = target.open(spec, context(&target, schema.clone(), key(1), owner("run")))?;
    let staged = sink.stage(&task(&key(1), &owner("run"), 0), Rows::from_batches(schema, batches)).await?;
    sink.commit(&[staged], &Checkpoint::default()).await?;
    Ok(target)
}

/// The rows that the source of files finds.
pub(super) async fn read_back(target: &Target) -> RecordBatch {
    read_as(target, "").await
}

/// With more keys of the extract.
pub(super) async fn read_as(target: &Target, more: &str) -> RecordBatch {
    let connection = FilesConnection::open("./data", StoreOptions::default(), &folders(target.folder.path())).unwrap();
    let node = parse("p.yaml", &format!("from: lake\npath: {PATH}/\n{more}")).unwrap();
    let spec: ExtractSpec = decode(&node).unwrap();
    let source = connection.source(&spec).unwrap();
    let schema = source.schema().await.unwrap();
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    let mut batches = Vec::new();
    for unit in &plan.units {
        let scan = Scan { schema: schema.clone(), batch_size: 1000, on_bad_row: OnFail::Fail, rejects: None };
        let mut rows = source.read(unit, &scan);
        while let Some(batch) = futures::StreamExt::next(&mut rows).await {
            batches.push(batch.unwrap());
        }
    }
    concat_batches(&schema, &batches).unwrap()
}

fn typed(format: FileFormat, compression: Option<Compression>) -> LoadSpec {
    LoadSpec { format: Some(format), compression, ..load(Strategy::Append, &[]) }
}

/// Columns of most types, all nullable.
fn many_types(rows: usize) -> RecordBatch {
    let at = |row: usize| i64::try_from(row).unwrap();
    let some = |row: usize| row % 5 != 3;
    let words: Vec<Option<String>> = (0..rows).map(|row| some(row).then(|| format!("w{}", row % 7))).collect();
    let words: Vec<Option<&str>> = words.iter().map(Option::as_deref).collect();
    let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for (row, word) in words.iter().enumerate() {
        maps.keys().append_value("k");
        maps.values().append_option(*word);
        maps.append(some(row)).unwrap();
    }
    let numbers: ArrayRef = Arc::new((0..rows).map(|row| some(row).then_some(at(row))).collect::<Int64Array>());
    let text: ArrayRef = Arc::new(StringArray::from(words.clone()));
    let pair = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
    let valid = arrow::buffer::NullBuffer::from((0..rows).map(some).collect::<Vec<bool>>());
    let pairs = StructArray::new(pair, vec![numbers.clone(), text.clone()], Some(valid));
    let lists = (0..rows).map(|row| some(row).then(|| vec![Some(at(row)), None]));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("number", numbers),
        ("small", Arc::new((0..rows).map(|row| some(row).then_some(-3i8)).collect::<Int8Array>())),
        ("unsigned", Arc::new((0..rows).map(|row| some(row).then_some(u32::MAX)).collect::<UInt32Array>())),
        ("float", Arc::new((0..rows).map(|row| some(row).then_some(0.5)).collect::<Float64Array>())),
        ("flag", Arc::new((0..rows).map(|row| some(row).then_some(row % 2 == 0)).collect::<BooleanArray>())),
        ("text", text),
        ("word", Arc::new(words.iter().copied().collect::<DictionaryArray<Int32Type>>())),
        ("bytes", Arc::new((0..rows).map(|row| some(row).then_some(b"\x00\xff")).collect::<BinaryArray>())),
        ("day", Arc::new((0..rows).map(|row| some(row).then_some(19_737)).collect::<Date32Array>())),
        (
            "moment",
            Arc::new(
                (0..rows)
                    .map(|row| some(row).then_some(at(row)))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
        ),
        (
            "money",
            Arc::new(
                (0..rows)
                    .map(|row| some(row).then_some(-12_345))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(20, 2)
                    .unwrap(),
            ),
        ),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
        ("pair", Arc::new(pairs)),
        ("map", Arc::new(maps.finish())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

/// Each value as text; nested ones as arrow shows them.
pub(super) fn shown(batch: &RecordBatch) -> Vec<String> {
    let options = arrow::util::display::FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
        .collect();
    let row = |row: usize| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
    (0..batch.num_rows()).map(row).collect()
}

#[tokio::test]
async fn avro_and_arrow_files_hold_what_was_written() {
    use Compression::{Deflate, Lz4, None as Plain, Snappy, Zstd};
    let batches = vec![many_types(100), many_types(0), many_types(2300)];
    let whole = shown(&concat_batches(&batches[0].schema(), &batches).unwrap());
    for (format, codecs) in
        [(FileFormat::Avro, [Plain, Deflate, Snappy, Zstd].as_slice()), (FileFormat::Arrow, &[Plain, Lz4, Zstd])]
    {
        for codec in codecs {
            let target = written(typed(format, Some(*codec)), batches.clone()).await.unwrap();
            let files = target.place().data_files().await.unwrap();
            assert!(files.len() == 1 && files[0].ends_with(&format!(".{}", format.as_str())), "{files:?}");
            let found = read_back(&target).await;
            assert_eq!(shown(&found), whole, "{format:?} {codec:?}");
        }
    }
}

#[tokio::test]
async fn partitions_of_typed_files_are_read_back_as_well() {
    for format in [FileFormat::Avro, FileFormat::Arrow] {
        let spec = LoadSpec { format: Some(format), ..load(Strategy::PartitionOverwrite, &["day"]) };
        let target = written(spec, vec![rows(&[(1, "2"), (2, "3")]), rows(&[(3, "2")])]).await.unwrap();
        let found = read_back(&target).await;
        let mut found = shown(&found);
        found.sort();
        assert_eq!(found, ["1|2", "2|3", "3|2"]);
    }
}

#[tokio::test]
async fn a_replace_without_rows_keeps_the_columns_of_typed_files() {
    for format in [FileFormat::Avro, FileFormat::Arrow] {
        let target = Target::local();
        let spec = LoadSpec { format: Some(format), ..load(Strategy::Replace, &[]) };
        let sink = target.open(spec, context(&target, rows(&[]).schema(), key(1), owner("run"))).unwrap();
        sink.commit(&[], &Checkpoint::default()).await.unwrap();
        assert_eq!(read_back(&target).await.schema().fields().len(), 2);
    }
}

fn refused(format: FileFormat, name: &str, data_type: DataType) -> Error {
    let target = Target::local();
    let schema = Arc::new(Schema::new(vec![Field::new(name, data_type, true)]));
    let error = target.open(typed(format, None), context(&target, schema, key(1), owner("run"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.message().contains(&format!("column `{name}` cannot be written")), "{error:?}");
    error
}

#[test]
fn what_a_format_has_no_type_for_is_refused_by_name() {
    use arrow::datatypes::{IntervalUnit, TimeUnit};
    let item = |data_type| Arc::new(Field::new("item", data_type, true));
    for data_type in [
        DataType::UInt64,
        DataType::Null,
        DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Duration(TimeUnit::Second),
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Decimal128(5, -2),
        DataType::List(item(DataType::UInt64)),
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::UInt64)),
    ] {
        assert!(refused(FileFormat::Avro, "x", data_type).hint_text().unwrap().contains("cast"));
    }
    assert_eq!(refused(FileFormat::Avro, "a b", DataType::Int32).hint_text(), Some("rename it in a `sql` step"));
    let nested = DataType::Struct(Fields::from(vec![Field::new("ä", DataType::Int32, true)]));
    assert!(refused(FileFormat::Avro, "x", nested).message().contains("`ä`"));
}

#[test]
fn codecs_and_options_that_a_format_does_not_have_are_refused() {
    for (format, change, said) in [
        (FileFormat::Avro, Compression::Gzip, "Avro files cannot be compressed with `gzip`"),
        (FileFormat::Arrow, Compression::Snappy, "Arrow files cannot be compressed with `snappy`"),
        (FileFormat::Parquet, Compression::Deflate, "Parquet files cannot be compressed with `deflate`"),
        (FileFormat::Csv, Compression::Deflate, "text files are not written with `compression: deflate`"),
    ] {
        let error = refuse(|spec| (spec.format, spec.compression) = (Some(format), Some(change)));
        assert_eq!(error.message(), said);
    }
    let error = refuse(|spec| (spec.format, spec.compression_level) = (Some(FileFormat::Avro), Some(3)));
    assert!(error.message().contains("has no levels"), "{error:?}");
    let error = refuse(|spec| (spec.format, spec.row_group_rows) = (Some(FileFormat::Arrow), Some(3)));
    assert!(error.message().contains("`row_group_rows` means nothing"), "{error:?}");
}

type Record = (Option<i64>, Option<String>);

/// A reader of container files by the words of the specification: header, blocks, and records of one nullable long and one
/// nullable text.
struct Container<'a>(&'a [u8]);

impl Container<'_> {
    fn long(&mut self) -> i64 {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = self.0[0];
            self.0 = &self.0[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return i64::try_from(value >> 1).unwrap() ^ -i64::try_from(value & 1).unwrap();
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken.to_vec()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let count = usize::try_from(self.long()).unwrap();
        self.take(count)
    }

    fn records(mut self) -> (BTreeMap<String, String>, Vec<Record>) {
        assert_eq!(self.take(4), b"Obj\x01");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let mut header = BTreeMap::new();
        loop {
            let entries = self.long();
            if entries == 0 {
                break;
            }
            for _ in 0..entries {
                header.insert(text(self.bytes()), text(self.bytes()));
            }
        }
        let sync = self.take(16);
        let mut records = Vec::new();
        while !self.0.is_empty() {
            let count = self.long();
            let packed = self.bytes();
            assert_eq!(self.take(16), sync);
            let mut block = Vec::new();
            match header["avro.codec"].as_str() {
                "deflate" => {
                    let mut unpacked = flate2::read::DeflateDecoder::new(packed.as_slice());
                    unpacked.read_to_end(&mut block).unwrap();
                }
                "zstandard" => block = zstd::stream::decode_all(packed.as_slice()).unwrap(),
                "snappy" => block = snap::raw::Decoder::new().decompress_vec(&packed[..packed.len() - 4]).unwrap(),
                other => panic!("{other}"),
            }
            let mut block = Container(&block);
            for _ in 0..count {
                // Unions of NULL and a value: the number of the branch, then the value.
                let number = (block.long() == 1).then(|| block.long());
                let word = (block.long() == 1).then(|| text(block.bytes()));
                records.push((number, word));
            }
            assert!(block.0.is_empty());
        }
        (header, records)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn avro_files_are_as_the_specification_says(
        records in proptest::collection::vec((any::<Option<i64>>(), any::<Option<String>>()), 1..60),
        cut in 0usize..60,
        codec in prop_oneof![Just(Compression::Deflate), Just(Compression::Snappy), Just(Compression::Zstd)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let number: ArrayRef = Arc::new(records.iter().map(|record| record.0).collect::<Int64Array>());
        let word: ArrayRef = Arc::new(records.iter().map(|record| record.1.clone()).collect::<StringArray>());
        let batch = RecordBatch::try_from_iter_with_nullable([("number", number, true), ("word", word, true)]).unwrap();
        let cut = cut.min(batch.num_rows());
        let pieces = vec![batch.slice(0, cut), batch.slice(cut, batch.num_rows() - cut)];
        let target = runtime.block_on(written(typed(FileFormat::Avro, Some(codec)), pieces)).unwrap();
        let files = runtime.block_on(target.place().data_files()).unwrap();
        let bytes = std::fs::read(target.root().join(&files[0])).unwrap();
        let (header, found) = Container(&bytes).records();
        let schema: serde_json::Value = serde_json::from_str(&header["avro.schema"]).unwrap();
        prop_assert_eq!(&schema["fields"][0]["type"], &serde_json::json!(["null", "long"]));
        prop_assert_eq!(&schema["fields"][1]["name"], "word");
        prop_assert_eq!(found, records);
    }
}
