//! Recognising rows that were loaded before.
//!
//! A row is known by a digest of its values, written as text: stable across versions, machines and the order of rows. Only
//! rows that lie at the cursor, or within the lag before it, are ever looked at or remembered; all others cost a comparison
//! of numbers.

use datafusion::arrow::array::types::{
    Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use gristmill_model::spec::Lag;
use gristmill_model::{Cursor, Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// More rows than this are not remembered: they would be kept in the target's ledger with every load.
pub(super) const MOST: usize = 50_000;

/// 32 hexadecimal digits of a SHA-256.
pub(super) fn digest(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(32);
    for byte in Sha256::digest(bytes).iter().take(16) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What was loaded before, and what is to be recognised next time.
#[derive(Debug)]
pub(super) struct Memory {
    /// Rows that were loaded before and have not come again yet.
    expected: BTreeMap<String, u32>,
    /// What their digests are made of.
    expected_columns: Vec<String>,
    /// Only rows up to here can be among them: a number as [`numbers`] makes it, with the type it is of.
    expected_edge: Option<(String, i128)>,
    /// The value that texts among them have.
    expected_value: Option<String>,
    pub(super) lag: Option<Lag>,
    /// Rows at the greatest cursor so far, or within the lag before it: their cursors as numbers, and how often they came.
    /// Rows without a cursor have none.
    remembered: HashMap<String, (Option<i128>, u32)>,
    columns: Vec<String>,
    greatest: Option<i128>,
    kind: Option<DataType>,
    /// The greatest text, where cursors are texts.
    greatest_text: Option<String>,
}

/// Digests and counts, the columns they are of, and the edge.
pub(super) type Seen = (BTreeMap<String, u32>, Vec<String>, Option<String>);

impl Memory {
    pub(super) fn new(expected: BTreeMap<String, u32>, lag: Option<Lag>, since: Option<&Cursor>) -> Self {
        let edge = since.and_then(|since| since.edge.as_deref()).and_then(|edge| {
            let (number, kind) = edge.split_once(' ')?;
            Some((kind.to_owned(), number.parse().ok()?))
        });
        let value = since.and_then(|since| since.value.as_ref()).and_then(|value| value.as_str());
        Self {
            expected,
            expected_columns: since.map(|since| since.columns.clone()).unwrap_or_default(),
            expected_edge: edge,
            expected_value: value.map(str::to_owned),
            lag,
            remembered: HashMap::new(),
            columns: Vec::new(),
            greatest: None,
            kind: None,
            greatest_text: None,
        }
    }

    /// Leaves out the rows that were loaded before, and remembers those that will be read again. `cursor` are the values of
    /// `column`; `next` is the greatest of all, or of those so far.
    pub(super) fn pass(
        &mut self,
        batch: RecordBatch,
        (column, cursor): (&str, &ArrayRef),
        key: &[String],
        next: Option<&serde_json::Value>,
    ) -> Result<RecordBatch> {
        let internal = |error| Error::internal("rows at the cursor cannot be told apart").cause(error);
        let own: Vec<String> = if key.is_empty() {
            batch.schema().fields().iter().map(|field| field.name().clone()).collect()
        } else {
            key.iter().cloned().chain([top(&batch.schema(), column).to_owned()]).collect()
        };
        if self.kind.is_none() {
            check_lag(self.lag, cursor.data_type(), column)?;
            self.kind = Some(cursor.data_type().clone());
            self.columns.clone_from(&own);
        }
        let places = Places::of(cursor, next, column)?;
        if let Places::Texts { next, .. } = &places
            && self.greatest_text != *next
        {
            // Only rows at the very greatest are read again.
            self.remembered.retain(|_, (number, _)| number.is_none());
            self.greatest_text.clone_from(next);
        }
        if let Places::Numbers(numbers) = &places
            && let Some(greatest) = numbers.iter().flatten().max()
            && self.greatest.is_none_or(|known| known < *greatest)
        {
            self.greatest = Some(*greatest);
        }
        let floor = self.greatest.map(|greatest| below(greatest, self.lag, cursor.data_type()));
        let may_be_known = !self.expected.is_empty();
        let edge = match &self.expected_edge {
            Some((kind, edge)) if *kind == cursor.data_type().to_string() => Some(*edge),
            _ => None,
        };
        let expected_columns = self.expected_columns.clone();
        let (mut now, mut before) = (None, None);
        let mut keep = vec![true; batch.num_rows()];
        for (row, keep) in keep.iter_mut().enumerate() {
            let (is_near, is_old, number) = match &places {
                Places::Numbers(numbers) => match numbers[row] {
                    // It is read every time.
                    None => (true, true, None),
                    Some(number) => {
                        let near = floor.is_none_or(|floor| number >= floor);
                        (near, edge.is_none_or(|edge| number <= edge), Some(number))
                    }
                },
                Places::Texts { values, next } => match &values[row] {
                    None => (true, true, None),
                    Some(value) => {
                        let old = self.expected_value.as_ref().is_none_or(|expected| expected == value);
                        (next.as_ref() == Some(value), old, Some(0))
                    }
                },
            };
            if may_be_known && is_old && !self.expected.is_empty() {
                let before = match &before {
                    Some(digester) => digester,
                    None => before.insert(Digester::new(&batch, &expected_columns)?),
                };
                let digest = before.row(row).map_err(internal)?;
                if let Some(count) = self.expected.get_mut(&digest) {
                    *keep = false;
                    *count -= 1;
                    if *count == 0 {
                        self.expected.remove(&digest);
                    }
                }
            }
            if is_near {
                let now = match &now {
                    Some(digester) => digester,
                    None => now.insert(Digester::new(&batch, &own)?),
                };
                self.remembered.entry(now.row(row).map_err(internal)?).or_insert((number, 0)).1 += 1;
            }
        }
        drop((now, before));
        if self.remembered.len() > MOST {
            self.forget(floor);
        }
        if self.remembered.len() > MOST {
            let what = self.lag.map_or("at the cursor itself".to_owned(), |lag| format!("within the lag of {lag}"));
            return Err(Error::new(
                ErrorKind::Config,
                format!("more than {MOST} rows lie {what}, too many to recognise them next time"),
            )
            .hint("load with `strategy: delete+insert` and a `key`, which replaces such rows, or lower `lag`"));
        }
        if keep.iter().all(|keep| *keep) {
            return Ok(batch);
        }
        filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(internal)
    }

    /// Forgets rows that lie too far before the greatest cursor.
    fn forget(&mut self, floor: Option<i128>) {
        if let Some(floor) = floor {
            self.remembered.retain(|_, (number, _)| number.is_none_or(|number| number >= floor));
        }
    }

    /// What is to be recognised next time.
    pub(super) fn seen(&self) -> Seen {
        let floor = match (&self.kind, self.greatest) {
            (Some(kind), Some(greatest)) => Some(below(greatest, self.lag, kind)),
            _ => None,
        };
        let near = |number: &Option<i128>| number.is_none_or(|number| floor.is_none_or(|floor| number >= floor));
        let mut seen: BTreeMap<String, u32> = self
            .remembered
            .iter()
            .filter(|(_, (number, _))| near(number))
            .map(|(digest, (_, count))| (digest.clone(), *count))
            .collect();
        if self.kind.is_none() {
            // Not a row came: what was known stays known.
            seen.clone_from(&self.expected);
            let edge = self.expected_edge.as_ref().map(|(kind, number)| format!("{number} {kind}"));
            return (seen, self.expected_columns.clone(), edge);
        }
        let edge = self.greatest.zip(self.kind.as_ref()).map(|(greatest, kind)| format!("{greatest} {kind}"));
        (seen, self.columns.clone(), edge)
    }
}

/// Where the rows of a batch stand.
enum Places {
    Numbers(Vec<Option<i128>>),
    /// Texts are in the order of the database, which only it knows; what can be told is whether one is the greatest.
    Texts {
        values: Vec<Option<String>>,
        next: Option<String>,
    },
}

impl Places {
    fn of(cursor: &ArrayRef, next: Option<&serde_json::Value>, column: &str) -> Result<Self> {
        if let Some(numbers) = numbers(cursor) {
            return Ok(Self::Numbers(numbers));
        }
        let texts = match cursor.data_type() {
            DataType::Utf8 => cursor.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect(),
            DataType::LargeUtf8 => cursor.as_string::<i64>().iter().map(|text| text.map(str::to_owned)).collect(),
            DataType::Utf8View => cursor.as_string_view().iter().map(|text| text.map(str::to_owned)).collect(),
            other => {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("rows at the cursor cannot be told apart, since `{column}` is {other}"),
                )
                .hint("load with `strategy: delete+insert` and a `key`, or take another `incremental_key`"));
            }
        };
        let next = next.map(|next| next.as_str().map_or_else(|| next.to_string(), str::to_owned));
        Ok(Self::Texts { values: texts, next })
    }
}

/// The column that holds a cursor: itself, or what it is a field of.
pub(super) fn top<'a>(schema: &Schema, column: &'a str) -> &'a str {
    match schema.column_with_name(column) {
        Some(_) => column,
        None => column.split('.').next().unwrap_or(column),
    }
}

/// Values as numbers that compare like them; none for types that are no numbers or times.
pub(super) fn numbers(array: &ArrayRef) -> Option<Vec<Option<i128>>> {
    macro_rules! of {
        ($kind:ty) => {
            array.as_primitive::<$kind>().iter().map(|value| value.map(i128::from)).collect()
        };
    }
    Some(match array.data_type() {
        DataType::Int8 => of!(Int8Type),
        DataType::Int16 => of!(Int16Type),
        DataType::Int32 => of!(Int32Type),
        DataType::Int64 => of!(Int64Type),
        DataType::UInt8 => of!(UInt8Type),
        DataType::UInt16 => of!(UInt16Type),
        DataType::UInt32 => of!(UInt32Type),
        DataType::UInt64 => of!(UInt64Type),
        DataType::Date32 => of!(Date32Type),
        DataType::Date64 => of!(Date64Type),
        DataType::Decimal128(..) => of!(Decimal128Type),
        DataType::Timestamp(TimeUnit::Second, _) => of!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => of!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => of!(TimestampNanosecondType),
        DataType::Float32 => {
            array.as_primitive::<Float32Type>().iter().map(|value| value.map(|value| ordered(value.into()))).collect()
        }
        DataType::Float64 => array.as_primitive::<Float64Type>().iter().map(|value| value.map(ordered)).collect(),
        _ => return None,
    })
}

/// The bits of a float, so that they compare like it.
fn ordered(value: f64) -> i128 {
    let bits = value.to_bits().cast_signed();
    i128::from(if bits < 0 { i64::MIN.wrapping_sub(bits) } else { bits })
}

/// That a lag goes with the type of a cursor.
///
/// # Errors
/// [`ErrorKind::Config`] when it does not.
pub(super) fn check_lag(lag: Option<Lag>, kind: &DataType, column: &str) -> Result<()> {
    let (Some(lag), Some(reason)) = (lag, lag_mismatch(lag, kind)) else { return Ok(()) };
    Err(Error::new(ErrorKind::Config, format!("`lag: {lag}` does not go with `{column}`"))
        .cause(reason)
        .hint("write a duration such as `2h` for times and dates, a whole number for numbers"))
}

/// Why a lag does not go with a type, if it does not.
fn lag_mismatch(lag: Option<Lag>, kind: &DataType) -> Option<&'static str> {
    match (lag?, kind) {
        (Lag::Time(_), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) => None,
        (Lag::Time(_), _) => Some("the column holds no times"),
        (Lag::Number(_), kind) if kind.is_integer() || matches!(kind, DataType::Decimal128(..)) => None,
        (Lag::Number(_), _) => Some("the column holds no whole numbers or decimals"),
    }
}

/// The least number that lies within the lag.
pub(super) fn below(greatest: i128, lag: Option<Lag>, kind: &DataType) -> i128 {
    let lag = match (lag, kind) {
        (None, _) => 0,
        (Some(Lag::Time(lag)), DataType::Date32) => i128::try_from(lag.0.as_millis().div_ceil(86_400_000)).unwrap_or(0),
        (Some(Lag::Time(lag)), kind) => {
            let nanos = i128::try_from(lag.0.as_nanos()).unwrap_or(i128::MAX);
            let per = match kind {
                DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
                DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
                DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
                _ => 1_000_000,
            };
            nanos / per + i128::from(nanos % per > 0)
        }
        (Some(Lag::Number(lag)), DataType::Decimal128(_, scale)) => {
            let unit = 10i128.checked_pow(u32::try_from(*scale).unwrap_or(0)).unwrap_or(i128::MAX);
            i128::from(lag).saturating_mul(unit)
        }
        (Some(Lag::Number(lag)), _) => i128::from(lag),
    };
    greatest.saturating_sub(lag)
}

/// Makes digests of the rows of one batch.
struct Digester<'a> {
    columns: Vec<(&'a str, &'a ArrayRef, ArrayFormatter<'a>)>,
}

impl<'a> Digester<'a> {
    fn new(batch: &'a RecordBatch, columns: &'a [String]) -> Result<Self> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(false);
        let of = |name: &'a String| {
            let array = batch.column_by_name(name).ok_or_else(|| {
                Error::new(
                    ErrorKind::Schema,
                    format!("the column `{name}`, by which rows at the cursor were told apart, is gone"),
                )
                .hint("load everything again with `--full-refresh`")
            })?;
            let formatter = ArrayFormatter::try_new(array.as_ref(), &OPTIONS)
                .map_err(|error| Error::internal(format!("`{name}` cannot be written as text")).cause(error))?;
            Ok((name.as_str(), array, formatter))
        };
        Ok(Self { columns: columns.iter().map(of).collect::<Result<_>>()? })
    }

    /// The digest of one row. Each value goes in with its name and length, so that none can be taken for another's part; a
    /// NULL does not, so that a new column that is empty for old rows changes nothing.
    fn row(&self, row: usize) -> Result<String, datafusion::arrow::error::ArrowError> {
        let mut bytes = Vec::new();
        for (name, array, formatter) in &self.columns {
            if array.is_null(row) {
                continue;
            }
            let value = formatter.value(row).try_to_string()?;
            // A number is the same one when its column has become one of floats, as it may where types are told by values.
            let value =
                if array.data_type().is_floating() { value.strip_suffix(".0").unwrap_or(&value) } else { &value };
            for part in [name.as_bytes(), value.as_bytes()] {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Ok(digest(&bytes))
    }
}
