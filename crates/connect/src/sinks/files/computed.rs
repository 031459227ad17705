//! Partition columns that are computed: `year(ts)`, `date(ts)`, `hash(customer_id) % 16`.
//!
//! They become folders and are not stored in the files; the column they are computed of is. Times with a zone are taken in
//! UTC, so that a row's partition does not depend on who loads it. Buckets are Iceberg's: 32-bit Murmur3 of the bytes that
//! its specification names ("Appendix B: 32-bit Hash Requirements"), without its sign, modulo the number of buckets.

use super::config::wrong;
use crate::Grouping;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::{CastOptions, DatePart, cast_with_options, date_part};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use gristmill_model::spec::{LoadSpec, PartitionBy, PartitionTransform};
use gristmill_model::{Error, ErrorKind, Result, one_of};
use std::sync::Arc;

/// A partition column that the rows do not have.
#[derive(Debug, Clone)]
pub(super) struct Computed {
    /// The column it is computed of.
    position: usize,
    transform: PartitionTransform,
}

/// How rows are partitioned.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    /// The columns of the rows, and behind them the computed ones.
    pub(super) schema: Option<SchemaRef>,
    /// Positions of the partition columns in it, outermost folder first.
    pub(super) positions: Vec<usize>,
    pub(super) computed: Vec<Computed>,
}

impl Partitions {
    /// What `load` says of rows of `schema`.
    ///
    /// # Errors
    /// Entries that cannot be understood; columns that are not there or of the wrong type; names that are there already.
    pub(super) fn new(load: &LoadSpec, schema: &SchemaRef) -> Result<Self> {
        let mut fields = schema.fields().to_vec();
        let (mut positions, mut computed) = (Vec::new(), Vec::new());
        for text in &load.partition_by.0 {
            let by = PartitionBy::parse(text).map_err(|(message, hint)| wrong(message).hint(hint))?;
            let Some((position, field)) = schema.column_with_name(&by.column) else {
                let valid = schema.fields().iter().map(|field| field.name().as_str());
                let name = &by.column;
                let message = format!("`partition_by` names a column `{name}` that is not there");
                return Err(Error::new(ErrorKind::Schema, message).hint(one_of(name, valid)));
            };
            let position = match by.transform {
                None => position,
                Some(transform) => {
                    if fields.iter().any(|field| *field.name() == by.name) {
                        return Err(Error::new(
                            ErrorKind::Schema,
                            format!("`partition_by: {text}` would make a second column `{}`", by.name),
                        )
                        .hint(format!("give it another name: `{text} as {}_{}`", by.column, by.name)));
                    }
                    fields.push(Arc::new(field_of(transform, field, &by.name)?));
                    computed.push(Computed { position, transform });
                    fields.len() - 1
                }
            };
            if positions.contains(&position) {
                return Err(wrong(format!("`partition_by` names `{}` twice", by.name)).hint("name it once"));
            }
            positions.push(position);
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        Ok(Self { schema: Some(schema), positions, computed })
    }
}

/// Tells which rows are of one bucket, for `writers` who would each make a file of their own in every one of very many
/// buckets; none where there are so few that some writers would get much more than others.
pub(super) fn grouping(computed: &[Computed], writers: usize) -> Option<Grouping> {
    let buckets = computed.iter().filter_map(|computed| match computed.transform {
        PartitionTransform::Bucket(count) => Some((computed.clone(), i64::from(count))),
        _ => None,
    });
    let buckets: Vec<(Computed, i64)> = buckets.collect();
    let all = buckets.iter().fold(1, |all: i64, (_, count)| all.saturating_mul(*count));
    let wanted = BUCKETS_A_WRITER.saturating_mul(i64::try_from(writers).unwrap_or(i64::MAX));
    (writers > 1 && all >= wanted).then(|| Arc::new(move |batch: &RecordBatch| number(batch, &buckets)) as Grouping)
}

/// From so many buckets for each writer on rows are spread over the writers by their bucket.
const BUCKETS_A_WRITER: i64 = 8;

/// One number for the buckets of each row.
fn number(batch: &RecordBatch, buckets: &[(Computed, i64)]) -> Result<ArrayRef> {
    let mut numbers = vec![0_i64; batch.num_rows()];
    for (computed, count) in buckets {
        let column = compute(batch.column(computed.position), computed.transform).map_err(|error| {
            let name = batch.schema_ref().field(computed.position).name();
            Error::new(ErrorKind::Data, format!("the buckets of `{name}` cannot be computed")).cause(error)
        })?;
        for (number, bucket) in numbers.iter_mut().zip(column.as_primitive::<Int32Type>()) {
            *number = number.wrapping_mul(count + 1).wrapping_add(bucket.map_or(*count, i64::from));
        }
    }
    Ok(Arc::new(Int64Array::from(numbers)))
}

/// The computed column, unless the type does not allow it.
fn field_of(transform: PartitionTransform, of: &Field, name: &str) -> Result<Field> {
    let data_type = match of.data_type() {
        DataType::Dictionary(_, values) => values,
        other => other,
    };
    let (fits, makes, hint) = match transform {
        PartitionTransform::Bucket(_) => (can_be_hashed(data_type), DataType::Int32, "text"),
        PartitionTransform::Hour => (matches!(data_type, DataType::Timestamp(..)), DataType::Int32, "timestamp"),
        PartitionTransform::Date => (is_time(data_type), DataType::Date32, "timestamp"),
        PartitionTransform::Year | PartitionTransform::Month | PartitionTransform::Day => {
            (is_time(data_type), DataType::Int32, "timestamp")
        }
    };
    if !fits {
        return Err(Error::new(
            ErrorKind::Schema,
            format!("`partition_by` cannot compute `{name}` of column `{}` of type {data_type}", of.name()),
        )
        .hint(format!("cast it in a `sql` step: `cast({} as {hint})`", of.name())));
    }
    Ok(Field::new(name, makes, of.is_nullable()))
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
}

/// Floats have values that are equal and have other bytes; Iceberg refuses them as well, and booleans for having two.
fn can_be_hashed(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => true,
        DataType::Time32(_) | DataType::Time64(_) | DataType::Decimal128(..) | DataType::Decimal256(..) => true,
        other => other.is_integer() || is_time(other),
    }
}

/// The batch with its computed columns.
///
/// # Errors
/// Values that the type of the specification does not hold: whole numbers beyond 64 bits with a sign.
pub(super) fn with_computed(batch: &RecordBatch, computed: &[Computed], schema: &SchemaRef) -> Result<RecordBatch> {
    if computed.is_empty() {
        return Ok(batch.clone());
    }
    let mut columns = batch.columns().to_vec();
    for (computed, field) in computed.iter().zip(&schema.fields()[batch.num_columns()..]) {
        let column = compute(batch.column(computed.position), computed.transform).map_err(|error| {
            Error::new(ErrorKind::Data, format!("the partition column `{}` cannot be computed", field.name()))
                .cause(error)
        })?;
        columns.push(column);
    }
    RecordBatch::try_new(schema.clone(), columns)
        .map_err(|error| Error::internal("a partition column has another type").cause(error))
}

fn compute(column: &ArrayRef, transform: PartitionTransform) -> Result<ArrayRef, arrow::error::ArrowError> {
    let to = |column: &ArrayRef, to: &DataType| {
        cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() })
    };
    let column = match column.data_type() {
        DataType::Dictionary(_, values) => to(column, values)?,
        _ => column.clone(),
    };
    let column = match column.data_type() {
        DataType::Timestamp(unit, Some(_)) => to(&column, &DataType::Timestamp(*unit, Some("+00:00".into())))?,
        _ => column,
    };
    let count = match transform {
        PartitionTransform::Year => return date_part(&column, DatePart::Year),
        PartitionTransform::Month => return date_part(&column, DatePart::Month),
        PartitionTransform::Day => return date_part(&column, DatePart::Day),
        PartitionTransform::Hour => return date_part(&column, DatePart::Hour),
        PartitionTransform::Date => return to(&column, &DataType::Date32),
        PartitionTransform::Bucket(count) => count,
    };
    let bucket = |hash: u32| i32::try_from((hash & 0x7fff_ffff) % count).unwrap_or_default();
    let whole = |numbers: &ArrayRef| -> ArrayRef {
        let numbers = numbers.as_primitive::<Int64Type>();
        Arc::new(numbers.iter().map(|number| Some(bucket(murmur3(&number?.to_le_bytes())))).collect::<Int32Array>())
    };
    Ok(match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = to(&column, &DataType::LargeUtf8)?;
            let texts = texts.as_string::<i64>().iter();
            Arc::new(texts.map(|text| Some(bucket(murmur3(text?.as_bytes())))).collect::<Int32Array>())
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let bytes = to(&column, &DataType::LargeBinary)?;
            let bytes = bytes.as_binary::<i64>().iter();
            Arc::new(bytes.map(|bytes| Some(bucket(murmur3(bytes?)))).collect::<Int32Array>())
        }
        DataType::Decimal128(..) => {
            let values = column.as_primitive::<Decimal128Type>().iter();
            Arc::new(values.map(|value| Some(bucket(murmur3(least(&value?.to_be_bytes()))))).collect::<Int32Array>())
        }
        DataType::Decimal256(..) => {
            let values = column.as_primitive::<Decimal256Type>().iter();
            Arc::new(values.map(|value| Some(bucket(murmur3(least(&value?.to_be_bytes()))))).collect::<Int32Array>())
        }
        // Microseconds, whatever they are kept in.
        DataType::Timestamp(..) => {
            let zone = Some("+00:00".into());
            let times = to(&column, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
            let times: ArrayRef =
                Arc::new(times.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>());
            whole(&times)
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            whole(&to(&to(&column, &DataType::Time64(TimeUnit::Microsecond))?, &DataType::Int64)?)
        }
        DataType::Date32 | DataType::Date64 => {
            whole(&to(&to(&to(&column, &DataType::Date32)?, &DataType::Int32)?, &DataType::Int64)?)
        }
        _ => whole(&to(&column, &DataType::Int64)?),
    })
}

/// The fewest bytes that hold a number of two's complement, as the specification wants decimals.
fn least(bytes: &[u8]) -> &[u8] {
    let mut bytes = bytes;
    while let [first, rest @ ..] = bytes
        && let Some(second) = rest.first()
        && ((*first == 0 && second & 0x80 == 0) || (*first == 0xff && second & 0x80 != 0))
    {
        bytes = rest;
    }
    bytes
}

/// Murmur3, 32 bits, seed 0.
fn murmur3(bytes: &[u8]) -> u32 {
    let mix = |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (words, tail) = bytes.as_chunks::<4>();
    let hash = words.iter().fold(0u32, |hash, word| {
        (hash ^ mix(u32::from_le_bytes(*word))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let last = tail.iter().rev().fold(0u32, |last, byte| (last << 8) | u32::from(*byte));
    // The specification of the hash counts to 32 bits.
    let length = u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or_default();
    let mut hash = hash ^ mix(last) ^ length;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BinaryArray, Date32Array, Decimal128Array, DictionaryArray, Int64Array, StringArray, Time64MicrosecondArray,
        TimestampMillisecondArray,
    };
    use arrow::datatypes::{Int32Type, IntervalUnit};
    use gristmill_model::spec::{OneOrMany, Strategy};
    use proptest::prelude::*;

    /// The bucket of a hash that the specification of Iceberg names.
    fn of(hash: i32, count: i32) -> i32 {
        (hash & i32::MAX) % count
    }

    fn buckets(column: ArrayRef, count: u32) -> Vec<Option<i32>> {
        let computed = compute(&column, PartitionTransform::Bucket(count)).unwrap();
        computed.as_primitive::<Int32Type>().iter().collect()
    }

    #[test]
    fn buckets_are_those_of_the_specification_of_iceberg() {
        let count = 1_000_000;
        // 2017-11-16 and 22:31:08 of it, as in "Appendix B".
        let day = 17_486;
        let moment = (i64::from(day) * 86_400 + 81_068) * 1000;
        let money = Decimal128Array::from(vec![1420]).with_precision_and_scale(9, 2).unwrap();
        let columns: Vec<(ArrayRef, i32)> = vec![
            (Arc::new(Int64Array::from(vec![34])), 2_017_239_379),
            (Arc::new(Int32Array::from(vec![34])), 2_017_239_379),
            (Arc::new(money), -500_754_589),
            (Arc::new(Date32Array::from(vec![day])), -653_330_422),
            (Arc::new(Time64MicrosecondArray::from(vec![81_068_000_000])), -662_762_989),
            (Arc::new(TimestampMillisecondArray::from(vec![moment])), -2_047_944_441),
            (Arc::new(TimestampMillisecondArray::from(vec![moment]).with_timezone("Asia/Tokyo")), -2_047_944_441),
            (Arc::new(StringArray::from(vec!["iceberg"])), 1_210_000_089),
            (Arc::new(DictionaryArray::<Int32Type>::from_iter(["iceberg"])), 1_210_000_089),
            (Arc::new(BinaryArray::from(vec![b"\x00\x01\x02\x03".as_slice()])), -188_683_207),
        ];
        for (column, hash) in columns {
            let data_type = column.data_type().clone();
            assert_eq!(buckets(column, count), [Some(of(hash, 1_000_000))], "{data_type}");
        }
        assert_eq!(buckets(Arc::new(Int64Array::from(vec![None, Some(34)])), 16), [None, Some(of(2_017_239_379, 16))]);
    }

    #[test]
    fn times_with_a_zone_are_taken_in_utc() {
        // 2024-01-01 00:30 in Berlin is still 2023 elsewhere.
        let column: ArrayRef =
            Arc::new(TimestampMillisecondArray::from(vec![1_704_065_400_000]).with_timezone("Europe/Berlin"));
        let part = |transform| compute(&column, transform).unwrap().as_primitive::<Int32Type>().value(0);
        let parts =
            [PartitionTransform::Year, PartitionTransform::Month, PartitionTransform::Day, PartitionTransform::Hour];
        assert_eq!(parts.map(part), [2023, 12, 31, 23]);
        let date = compute(&column, PartitionTransform::Date).unwrap();
        assert_eq!(date.as_primitive::<arrow::datatypes::Date32Type>().value(0), 19_722);
    }

    fn partitions(by: &str, data_type: DataType) -> Result<Partitions> {
        let schema =
            Arc::new(Schema::new(vec![Field::new("x", data_type, true), Field::new("year", DataType::Int32, true)]));
        let mut load = LoadSpec::new("a".into(), "b".into(), Strategy::Append);
        load.partition_by = OneOrMany(by.split(';').map(str::to_owned).collect());
        Partitions::new(&load, &schema)
    }

    #[test]
    fn what_cannot_be_computed_is_refused_by_name() {
        for (by, data_type) in [
            ("hash(x) % 4", DataType::Float64),
            ("hash(x) % 4", DataType::Boolean),
            ("month(x)", DataType::Utf8),
            ("hour(x)", DataType::Date32),
            ("date(x)", DataType::Interval(IntervalUnit::DayTime)),
        ] {
            let error = partitions(by, data_type).unwrap_err();
            assert!(
                error.message().contains("column `x`") && error.hint_text().unwrap().contains("cast(x as"),
                "{error:?}"
            );
        }
        let error = partitions("year(x)", DataType::Date32).unwrap_err();
        assert_eq!(error.hint_text(), Some("give it another name: `year(x) as x_year`"));
        let twice = partitions("month(x) as m;day(x) as m", DataType::Date32).unwrap_err();
        assert!(twice.message().contains("a second column `m`"), "{twice:?}");
        assert_eq!(partitions("month(y)", DataType::Date32).unwrap_err().kind(), ErrorKind::Schema);
    }

    proptest! {
        #[test]
        fn every_value_has_one_bucket_whatever_it_is_kept_in(values in proptest::collection::vec(any::<Option<i32>>(), 1..50), count in 1u32..2000) {
            let narrow: ArrayRef = Arc::new(Int32Array::from(values.clone()));
            let wide: ArrayRef = Arc::new(values.iter().map(|value| value.map(i64::from)).collect::<Int64Array>());
            let found = buckets(narrow, count);
            prop_assert_eq!(&found, &buckets(wide, count));
            for (value, bucket) in values.iter().zip(found) {
                prop_assert_eq!(value.is_some(), bucket.is_some());
                prop_assert!(bucket.is_none_or(|bucket| (0..i64::from(count)).contains(&i64::from(bucket))));
            }
        }

        #[test]
        fn decimals_are_hashed_by_their_fewest_bytes(value in any::<i128>()) {
            let bytes = value.to_be_bytes();
            let few = least(&bytes);
            let fill = if value < 0 { 0xff } else { 0 };
            let mut whole = vec![fill; 16 - few.len()];
            whole.extend_from_slice(few);
            prop_assert_eq!(whole, bytes.to_vec());
            prop_assert!(few.len() == 1 || i128::from(few[0].cast_signed()) != -i128::from(u8::from(few[1] & 0x80 != 0)));
        }
    }
}
