//! Rows of the binary protocol into arrow builders.
//!
//! The driver hands values over one by one: numbers and times as they are, decimals and texts as bytes. Each goes into
//! its column's builder at once and is gone; nothing is kept but the batch.

use super::types::{Column, Form};
use crate::sources::sqlite::values::{Moment, parse_day, parse_time, text_to_decimal};
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder,
    Float32Builder, Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder, RecordBatch,
    RecordBatchOptions, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
    TimestampMillisecondBuilder, TimestampNanosecondBuilder, TimestampSecondBuilder, UInt8Builder, UInt16Builder,
    UInt32Builder, UInt64Builder,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, i256};
use chrono::NaiveDate;
use gristmill_model::{Error, Result};
use mysql_async::Value;
use std::fmt::Write as _;
use std::sync::Arc;

/// A batch is closed when its variable-length values reach this many bytes: large values must not make large batches.
const BATCH_BYTES: usize = 16 << 20;

/// Why a value cannot be had; the row is refused.
type Refusal = String;

/// Builds batches of rows.
#[derive(Debug)]
pub(super) struct Decoder {
    schema: SchemaRef,
    columns: Vec<Building>,
    rows: usize,
    bytes: usize,
    batch_size: usize,
    /// Rows of this batch with a value that cannot be had, and why.
    refused: Vec<(usize, String)>,
}

#[derive(Debug)]
struct Building {
    name: String,
    form: Form,
    values: Values,
}

/// A row that was refused: as text, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) record: String,
    pub(super) why: String,
}

/// Whether values can be read as `kind`.
pub(super) fn can_fill(kind: &DataType) -> bool {
    Values::new(kind).is_some()
}

impl Decoder {
    /// # Errors
    /// A type that nothing becomes; planning has looked at that.
    pub(super) fn new(columns: &[Column], schema: SchemaRef, batch_size: usize) -> Result<Self> {
        let columns = columns
            .iter()
            .map(|column| {
                let values = Values::new(&column.kind)
                    .ok_or_else(|| Error::internal(format!("nothing becomes {} here", column.kind)))?;
                Ok(Building { name: column.name.clone(), form: column.form, values })
            })
            .collect::<Result<_>>()?;
        Ok(Self { schema, columns, rows: 0, bytes: 0, batch_size: batch_size.max(1), refused: Vec::new() })
    }

    /// Takes one row. It may have more values than there are columns: a SELECT has one at least.
    pub(super) fn push(&mut self, row: Vec<Value>) {
        for (column, value) in self.columns.iter_mut().zip(row) {
            if let Value::Bytes(bytes) = &value {
                self.bytes += bytes.len();
            }
            let value = match (column.form, value) {
                (Form::Bits, Value::Bytes(bytes)) => bits(&bytes),
                (_, value) => value,
            };
            if let Err(refusal) = column.values.push(value, column.form) {
                column.values.null();
                self.refused.push((self.rows, format!("column `{}`: {refusal}", column.name)));
            }
        }
        self.rows += 1;
    }

    /// Whether the batch has reached its size.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= self.batch_size || self.bytes >= BATCH_BYTES
    }

    /// Whether there is nothing in the batch.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Closes the batch: the good rows, and those that were refused.
    ///
    /// # Errors
    /// Only a bug here.
    pub(super) fn finish(&mut self) -> Result<(RecordBatch, Vec<Refused>)> {
        let internal = |error| Error::internal("rows from MySQL do not make a batch").cause(error);
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(|column| column.values.finish()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(internal)?;
        self.rows = 0;
        self.bytes = 0;
        if self.refused.is_empty() {
            return Ok((batch, Vec::new()));
        }
        let mut keep = vec![true; batch.num_rows()];
        let mut refused: Vec<Refused> = Vec::new();
        let mut last = None;
        for (row, why) in self.refused.drain(..) {
            keep[row] = false;
            match refused.last_mut() {
                Some(refused) if last == Some(row) => refused.why = format!("{}; {why}", refused.why),
                _ => refused.push(Refused { record: crate::rows::record(&batch, row), why }),
            }
            last = Some(row);
        }
        let good = filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(internal)?;
        Ok((good, refused))
    }
}

/// A bit field as the number it is; they have 64 bits at most.
fn bits(bytes: &[u8]) -> Value {
    Value::UInt(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

/// The builder of one column, by what it becomes.
#[derive(Debug)]
enum Values {
    Bool(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt8(UInt8Builder),
    UInt16(UInt16Builder),
    UInt32(UInt32Builder),
    UInt64(UInt64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal128(Decimal128Builder, u8, i8),
    Decimal256(Decimal256Builder, u8, i8),
    Text(StringBuilder, String),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Seconds(TimestampSecondBuilder),
    Millis(TimestampMillisecondBuilder),
    Micros(TimestampMicrosecondBuilder),
    Nanos(TimestampNanosecondBuilder),
}

/// Does the same with the builder of every kind of column.
macro_rules! each {
    ($values:expr, $builder:ident => $do:expr) => {
        match $values {
            Values::Bool($builder) => $do,
            Values::Int8($builder) => $do,
            Values::Int16($builder) => $do,
            Values::Int32($builder) => $do,
            Values::Int64($builder) => $do,
            Values::UInt8($builder) => $do,
            Values::UInt16($builder) => $do,
            Values::UInt32($builder) => $do,
            Values::UInt64($builder) => $do,
            Values::Float32($builder) => $do,
            Values::Float64($builder) => $do,
            Values::Decimal128($builder, ..) => $do,
            Values::Decimal256($builder, ..) => $do,
            Values::Text($builder, _) => $do,
            Values::Binary($builder) => $do,
            Values::Date($builder) => $do,
            Values::Time($builder) => $do,
            Values::Seconds($builder) => $do,
            Values::Millis($builder) => $do,
            Values::Micros($builder) => $do,
            Values::Nanos($builder) => $do,
        }
    };
}

impl Values {
    fn new(kind: &DataType) -> Option<Self> {
        Some(match kind {
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Int8 => Self::Int8(Int8Builder::new()),
            DataType::Int16 => Self::Int16(Int16Builder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::UInt8 => Self::UInt8(UInt8Builder::new()),
            DataType::UInt16 => Self::UInt16(UInt16Builder::new()),
            DataType::UInt32 => Self::UInt32(UInt32Builder::new()),
            DataType::UInt64 => Self::UInt64(UInt64Builder::new()),
            DataType::Float32 => Self::Float32(Float32Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Decimal128(precision, scale) if *scale >= 0 => {
                Self::Decimal128(Decimal128Builder::new().with_data_type(kind.clone()), *precision, *scale)
            }
            DataType::Decimal256(precision, scale) if *scale >= 0 => {
                Self::Decimal256(Decimal256Builder::new().with_data_type(kind.clone()), *precision, *scale)
            }
            DataType::Utf8 => Self::Text(StringBuilder::new(), String::new()),
            DataType::Binary => Self::Binary(BinaryBuilder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(unit, _) => match unit {
                TimeUnit::Second => Self::Seconds(TimestampSecondBuilder::new().with_data_type(kind.clone())),
                TimeUnit::Millisecond => Self::Millis(TimestampMillisecondBuilder::new().with_data_type(kind.clone())),
                TimeUnit::Microsecond => Self::Micros(TimestampMicrosecondBuilder::new().with_data_type(kind.clone())),
                TimeUnit::Nanosecond => Self::Nanos(TimestampNanosecondBuilder::new().with_data_type(kind.clone())),
            },
            _ => return None,
        })
    }

    fn null(&mut self) {
        each!(self, builder => builder.append_null());
    }

    fn finish(&mut self) -> ArrayRef {
        each!(self, builder => Arc::new(builder.finish()))
    }

    fn push(&mut self, value: Value, form: Form) -> Result<(), Refusal> {
        if value == Value::NULL {
            self.null();
            return Ok(());
        }
        /// Appends a whole number within the range of the builder's type.
        macro_rules! whole {
            ($builder:expr, $kind:literal) => {{
                let number = integer(&value).ok_or_else(|| misfit(&value, $kind))?;
                $builder.append_value(number.try_into().map_err(|_| misfit(&value, $kind))?)
            }};
        }
        match self {
            Self::Bool(builder) => match integer(&value) {
                Some(0) => builder.append_value(false),
                Some(1) => builder.append_value(true),
                _ => return Err(format!("{} is neither 0 nor 1 (read it as `tinyint`)", show(&value))),
            },
            Self::Int8(builder) => whole!(builder, "tinyint"),
            Self::Int16(builder) => whole!(builder, "smallint"),
            Self::Int32(builder) => whole!(builder, "int"),
            Self::Int64(builder) => whole!(builder, "bigint"),
            Self::UInt8(builder) => whole!(builder, "utinyint"),
            Self::UInt16(builder) => whole!(builder, "usmallint"),
            Self::UInt32(builder) => whole!(builder, "uint"),
            Self::UInt64(builder) => whole!(builder, "ubigint"),
            Self::Float32(builder) => match &value {
                Value::Float(number) => builder.append_value(*number),
                other => {
                    let number = real(other).ok_or_else(|| misfit(other, "real"))?;
                    if number.is_finite() && number.abs() > f64::from(f32::MAX) {
                        return Err(misfit(other, "real"));
                    }
                    #[expect(clippy::cast_possible_truncation, reason = "rounded to 32 bits, as was asked for")]
                    builder.append_value(number as f32);
                }
            },
            Self::Float64(builder) => builder.append_value(real(&value).ok_or_else(|| misfit(&value, "double"))?),
            Self::Decimal128(builder, precision, scale) => {
                let units = decimal128(&value, *precision, *scale);
                builder.append_value(units.ok_or_else(|| undecimal(&value, *precision, *scale))?);
            }
            Self::Decimal256(builder, precision, scale) => {
                let units = decimal256(&value, *precision, *scale);
                builder.append_value(units.ok_or_else(|| undecimal(&value, *precision, *scale))?);
            }
            Self::Text(builder, buffer) => match &value {
                Value::Bytes(bytes) => builder.append_value(text(bytes)?),
                other => {
                    buffer.clear();
                    write_text(buffer, other, form)?;
                    builder.append_value(buffer.as_str());
                }
            },
            Self::Binary(builder) => match &value {
                Value::Bytes(bytes) => builder.append_value(bytes),
                other => return Err(misfit(other, "binary")),
            },
            Self::Date(builder) => builder.append_value(day(&value)?),
            Self::Time(builder) => builder.append_value(clock(&value)?),
            Self::Seconds(builder) => builder.append_value(moment(&value, 1)?),
            Self::Millis(builder) => builder.append_value(moment(&value, 1_000)?),
            Self::Micros(builder) => builder.append_value(moment(&value, 1_000_000)?),
            Self::Nanos(builder) => builder.append_value(moment(&value, 1_000_000_000)?),
        }
        Ok(())
    }
}

#[cold]
fn misfit(value: &Value, kind: &str) -> Refusal {
    format!("{} is not of type `{kind}`", show(value))
}

#[cold]
fn undecimal(value: &Value, precision: u8, scale: i8) -> Refusal {
    format!("{} does not fit decimal({precision},{scale})", show(value))
}

/// A value for people, at most a hundred letters of it.
fn show(value: &Value) -> String {
    let mut shown = String::new();
    match value {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => shown.push_str(text),
            Err(_) => return format!("a value of {} bytes", bytes.len()),
        },
        other => {
            // Each of the others can be written.
            let _ = write_text(&mut shown, other, Form::Time(6));
        }
    }
    match shown.char_indices().nth(100) {
        Some((end, _)) => format!("`{}…`", &shown[..end]),
        None => format!("`{shown}`"),
    }
}

/// A whole number; none where it is no number, or has a fraction.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::UInt(number) => Some(i128::from(*number)),
        Value::Bytes(text) => text_to_decimal(text, 38, 0),
        Value::Float(number) => whole(f64::from(*number)),
        Value::Double(number) => whole(*number),
        _ => None,
    }
}

fn whole(number: f64) -> Option<i128> {
    #[expect(clippy::cast_possible_truncation, reason = "whole, and far within i128")]
    (number.fract() == 0.0 && number.abs() < 1e30).then_some(number as i128)
}

fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        // By its shortest text, so that 0.1 stays 0.1.
        Value::Float(number) => number.to_string().parse().ok(),
        #[expect(clippy::cast_precision_loss, reason = "looked at afterwards")]
        Value::Int(_) | Value::UInt(_) => {
            let number = integer(value)?;
            let real = number as f64;
            (whole(real) == Some(number)).then_some(real)
        }
        Value::Bytes(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        _ => None,
    }
}

fn decimal128(value: &Value, precision: u8, scale: i8) -> Option<i128> {
    match value {
        Value::Bytes(text) => quick_decimal(text, precision, scale).or_else(|| text_to_decimal(text, precision, scale)),
        Value::Int(_) | Value::UInt(_) => text_to_decimal(integer(value)?.to_string().as_bytes(), precision, scale),
        Value::Float(number) => text_to_decimal(format!("{number:e}").as_bytes(), precision, scale),
        Value::Double(number) => text_to_decimal(format!("{number:e}").as_bytes(), precision, scale),
        _ => None,
    }
}

/// The usual case: at most 18 digits, as many after the point as the column has. None where the long way has to look.
fn quick_decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let scale = usize::try_from(scale).ok()?;
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let point = digits.len().checked_sub(scale + 1);
    let mut total = 0u64;
    for (index, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => total = total * 10 + u64::from(byte - b'0'),
            b'.' if scale > 0 && point == Some(index) => {}
            _ => return None,
        }
    }
    if scale > 0 && point.is_none_or(|point| digits[point] != b'.') {
        return None;
    }
    if precision < 18 && total >= 10u64.pow(u32::from(precision)) {
        return None;
    }
    Some(if negative { -i128::from(total) } else { i128::from(total) })
}

fn decimal256(value: &Value, precision: u8, scale: i8) -> Option<i256> {
    let text = match value {
        Value::Bytes(text) => std::str::from_utf8(text).ok()?.trim().to_owned(),
        Value::Int(_) | Value::UInt(_) => integer(value)?.to_string(),
        // They have fewer digits than that.
        _ => return decimal128(value, precision.min(38), scale).map(i256::from_i128),
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.as_str()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = usize::try_from(scale).ok()?;
    let (kept, beyond) = fraction.split_at_checked(scale).unwrap_or((fraction, ""));
    let is_number =
        !(whole.is_empty() && fraction.is_empty()) && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !is_number || beyond.bytes().any(|byte| byte != b'0') {
        return None;
    }
    let all = format!("{whole}{kept}{}", "0".repeat(scale - kept.len()));
    let all = all.trim_start_matches('0');
    if all.len() > usize::from(precision) {
        return None;
    }
    let units = if all.is_empty() { i256::ZERO } else { i256::from_string(all)? };
    Some(if negative { units.wrapping_neg() } else { units })
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|error| format!("text that is not UTF-8 ({error})"))
}

/// What is no text as one, the way the server writes it.
fn write_text(out: &mut String, value: &Value, form: Form) -> Result<(), Refusal> {
    let written = match value {
        Value::NULL => Ok(()),
        Value::Bytes(bytes) => {
            out.push_str(text(bytes)?);
            Ok(())
        }
        Value::Int(number) => write!(out, "{number}"),
        Value::UInt(number) => write!(out, "{number}"),
        Value::Float(number) => write!(out, "{number}"),
        Value::Double(number) => write!(out, "{number}"),
        Value::Date(year, month, day, hour, minute, second, micros) => {
            let date = write!(out, "{year:04}-{month:02}-{day:02}");
            if (*hour, *minute, *second, *micros) == (0, 0, 0, 0) {
                date
            } else {
                date.and_then(|()| write!(out, " {hour:02}:{minute:02}:{second:02}.{micros:06}"))
            }
        }
        Value::Time(negative, days, hours, minutes, seconds, micros) => {
            let sign = if *negative { "-" } else { "" };
            let hours = u64::from(*days) * 24 + u64::from(*hours);
            let plain = write!(out, "{sign}{hours:02}:{minutes:02}:{seconds:02}");
            let digits = if let Form::Time(digits) = form { usize::from(digits) } else { 6 };
            let fraction = format!("{micros:06}");
            match fraction.get(..digits).filter(|digits| !digits.is_empty()) {
                Some(digits) => plain.and_then(|()| write!(out, ".{digits}")),
                None => plain,
            }
        }
    };
    written.map_err(|_| "a value that cannot be written".to_owned())
}

/// The date `0000-00-00`, and others that the server's `sql_mode` lets in.
#[cold]
fn no_date(value: &Value) -> Refusal {
    format!("{} is no date", show(value))
}

fn date(value: &Value) -> Result<NaiveDate, Refusal> {
    let Value::Date(year, month, day, ..) = value else { return Err(misfit(value, "date")) };
    NaiveDate::from_ymd_opt(i32::from(*year), u32::from(*month), u32::from(*day)).ok_or_else(|| no_date(value))
}

/// Days since 1970-01-01.
fn day(value: &Value) -> Result<i32, Refusal> {
    match value {
        Value::Date(_, _, _, 0, 0, 0, 0) => Ok(date(value)?.to_epoch_days()),
        Value::Bytes(text) => parse_day(text.trim_ascii()).ok_or_else(|| misfit(value, "date")),
        _ => Err(misfit(value, "date")),
    }
}

/// Since 1970-01-01 00:00, in units of which a second has `per_second`.
fn moment(value: &Value, per_second: i64) -> Result<i64, Refusal> {
    let moment = match value {
        Value::Date(_, _, _, hour, minute, second, micros) => {
            let seconds = i64::from(*hour) * 3600 + i64::from(*minute) * 60 + i64::from(*second);
            let seconds = i64::from(date(value)?.to_epoch_days()) * 86_400 + seconds;
            Some(Moment { seconds, nanos: i64::from(*micros) * 1_000 })
        }
        Value::Bytes(text) => Moment::from_text(text),
        _ => None,
    };
    moment.and_then(|moment| moment.in_units(per_second)).ok_or_else(|| misfit(value, "timestamp"))
}

/// Microseconds since midnight.
fn clock(value: &Value) -> Result<i64, Refusal> {
    let micros = match value {
        Value::Time(false, 0, hours, minutes, seconds, micros) if *hours < 24 => Some(
            (i64::from(*hours) * 3600 + i64::from(*minutes) * 60 + i64::from(*seconds)) * 1_000_000
                + i64::from(*micros),
        ),
        Value::Time(..) => return Err(format!("{} is not within a day", show(value))),
        Value::Bytes(text) => parse_time(text),
        _ => None,
    };
    micros.ok_or_else(|| misfit(value, "time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> Value {
        Value::Bytes(text.as_bytes().to_vec())
    }

    proptest! {
        #[test]
        fn the_quick_way_to_a_decimal_is_the_long_one(
            units in -99_999_999_999_999_999i64..=99_999_999_999_999_999,
            scale in 0usize..10,
            precision in 1u8..=38,
        ) {
            let digits = format!("{:0>width$}", units.unsigned_abs(), width = scale + 1);
            let (whole, part) = digits.split_at(digits.len() - scale);
            let point = if scale == 0 { "" } else { "." };
            let text = format!("{}{whole}{point}{part}", if units < 0 { "-" } else { "" });
            let scale = i8::try_from(scale).unwrap();
            let long = text_to_decimal(text.as_bytes(), precision, scale);
            if let Some(quick) = quick_decimal(text.as_bytes(), precision, scale) {
                prop_assert_eq!(Some(quick), long);
            }
            prop_assert_eq!(decimal256(&bytes(&text), precision, scale), long.map(i256::from_i128));
        }

        #[test]
        fn any_bytes_are_a_decimal_or_refused_and_never_a_panic(raw in prop::collection::vec(any::<u8>(), 0..30), scale in 0i8..20) {
            let value = Value::Bytes(raw);
            let _ = (decimal128(&value, 38, scale), decimal256(&value, 60, scale), day(&value), clock(&value), integer(&value));
        }

        #[test]
        fn text_that_looks_like_a_decimal_is_read_alike_by_both(text in "-?[0-9]{0,12}\\.?[0-9]{0,12}", scale in 0i8..12) {
            let (a, b) = (decimal128(&bytes(&text), 38, scale), decimal256(&bytes(&text), 38, scale));
            prop_assert_eq!(a.map(i256::from_i128), b, "{}", text);
        }
    }

    #[test]
    fn times_are_written_as_the_server_does() {
        let shown = |value: Value, form| {
            let mut text = String::new();
            write_text(&mut text, &value, form).unwrap();
            text
        };
        assert_eq!(shown(Value::Time(true, 34, 22, 59, 59, 0), Form::Time(0)), "-838:59:59");
        assert_eq!(shown(Value::Time(false, 0, 1, 2, 3, 40), Form::Time(6)), "01:02:03.000040");
        assert_eq!(shown(Value::Time(false, 0, 1, 2, 3, 400_000), Form::Time(1)), "01:02:03.4");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        let date = |y, m, d| day(&Value::Date(y, m, d, 0, 0, 0, 0));
        assert_eq!(date(1970, 1, 2), Ok(1));
        assert_eq!(date(0, 0, 0), Err("`0000-00-00` is no date".to_owned()));
        assert!(date(2024, 0, 1).is_err() && date(2023, 2, 29).is_err());
        assert!(moment(&Value::Date(0, 0, 0, 0, 0, 0, 0), 1_000_000).is_err());
        assert!(
            clock(&Value::Time(false, 1, 0, 0, 0, 0)).is_err() && clock(&Value::Time(true, 0, 1, 0, 0, 0)).is_err()
        );
    }
}
