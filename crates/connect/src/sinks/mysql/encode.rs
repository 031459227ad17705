//! Rows as bytes: lines of LOAD DATA, or values of an INSERT. Looks at every value that MySQL would refuse or change.

use super::digits::{push_clock, push_date, push_decimal, push_float, push_moment, push_signed, push_unsigned};
use super::types::Outgoing;
use crate::sinks::arrays::{between_microseconds, json};
use arrow::array::*;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};
use gristmill_model::{Error, ErrorKind, Result};

/// The longest time, in microseconds: 838:59:59.
const LONGEST_TIME: u64 = 3_020_399_999_999;

/// How the bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Fields between tabs, lines, escapes by a backslash, `\N`: what LOAD DATA reads by itself.
    Lines,
    /// `(1,'text',NULL),…`
    Values,
}

/// What a column of the target takes of the values that its type has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) takes_null: bool,
    /// Digits of a second's fraction.
    pub(crate) fraction: u8,
    /// The last second of a `timestamp`, which begins in 1970.
    pub(crate) last_second: Option<i64>,
    /// Whether it is a `year`: small numbers mean others there.
    pub(crate) is_year: bool,
}

/// Why a value cannot be kept.
struct Refused(&'static str, &'static str);

/// Turns batches into rows.
#[derive(Debug)]
pub(crate) struct Encoder {
    columns: Vec<Outgoing>,
    limits: Vec<Limits>,
    form: Form,
}

impl Encoder {
    pub(crate) fn new(columns: &[Outgoing], limits: Vec<Limits>, form: Form) -> Self {
        Self { columns: columns.to_vec(), limits, form }
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Makes a batch ready.
    ///
    /// # Errors
    /// Values that have no place in MySQL's types.
    pub(crate) fn prepare(&self, batch: &RecordBatch) -> Result<Prepared<'_>> {
        if batch.num_columns() != self.columns.len() {
            return Err(Error::internal("a batch has other columns than its schema"));
        }
        let cells = self.columns.iter().zip(batch.columns()).map(|(column, array)| Cells::new(&change(column, array)?));
        Ok(Prepared { encoder: self, cells: cells.collect::<Result<_>>()?, rows: batch.num_rows() })
    }
}

/// A batch that is ready to be written.
pub(crate) struct Prepared<'a> {
    encoder: &'a Encoder,
    cells: Vec<Cells>,
    rows: usize,
}

impl Prepared<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Writes one row.
    ///
    /// # Errors
    /// A value that MySQL cannot keep: the column and the value are named.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let form = self.encoder.form;
        for (place, cells) in self.cells.iter().enumerate() {
            match (form, place) {
                (Form::Lines, 0) => {}
                (Form::Lines, _) => out.push(b'\t'),
                (Form::Values, 0) => out.push(b'('),
                (Form::Values, _) => out.push(b','),
            }
            let limits = &self.encoder.limits[place];
            let begin = out.len();
            let written = if cells.is_null(row) {
                out.extend_from_slice(if form == Form::Lines { b"\\N" } else { b"NULL" });
                if limits.takes_null { Ok(()) } else { Err(Refused("cannot be NULL in the table", "is not null")) }
            } else {
                cells.write(row, form, limits, out)
            };
            written.map_err(|refused| refusal(&self.encoder.columns[place].name, &out[begin..], &refused))?;
        }
        out.push(if form == Form::Lines { b'\n' } else { b')' });
        Ok(())
    }
}

fn refusal(column: &str, value: &[u8], Refused(why, hint): &Refused) -> Error {
    let value = String::from_utf8_lossy(value);
    let value = value.trim_matches('\'');
    let value = if matches!(value, "\\N" | "NULL") { "NULL" } else { value };
    Error::new(ErrorKind::Data, format!("`{value}` in the column `{column}` {why}")).hint(match *hint {
        "is not null" => format!("leave such rows out in the step before (`where {column} is not null`)"),
        hint => hint.replace("{}", column),
    })
}

const FINITE: Refused =
    Refused("is no number, which MySQL cannot store", "make it NULL in the step's SQL: `nullif({}, 'NaN')`");
const YEARS: Refused =
    Refused("is not of the years 1 to 9999, which MySQL keeps", "leave it out, or make it NULL, in the step before");
const TIMESTAMPS: Refused = Refused(
    "is beyond what a `timestamp` of MySQL holds, which begins in 1970 and ends in 2038",
    "make the column `datetime(6)` before the first load, or cast it to a timestamp without time zone",
);
const LONG: Refused = Refused("is longer than a `time` of MySQL, which ends at 838 hours", "cast it to a number");
const FRACTION: Refused = Refused(
    "has more digits of a second than the column of the table",
    "widen the column (`datetime(6)`), or cut the value in the step before: `date_trunc('second', {})`",
);
const YEAR: Refused = Refused("is no `year` of MySQL: 0, or 1901 to 2155", "make the column `smallint`");

/// Columns in the few shapes that are written.
enum Cells {
    Bool(BooleanArray),
    Whole(Int64Array),
    Unsigned(UInt64Array),
    Real(Float64Array),
    Decimal(Decimal128Array),
    WideDecimal(Decimal256Array),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Bytes(BinaryArray),
    LargeBytes(LargeBinaryArray),
    BytesView(BinaryViewArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Moment(TimestampMicrosecondArray),
    Interval(DurationMicrosecondArray),
}

impl Cells {
    fn new(array: &ArrayRef) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Int64 => Self::Whole(array.as_primitive().clone()),
            DataType::UInt64 => Self::Unsigned(array.as_primitive().clone()),
            DataType::Float64 => Self::Real(array.as_primitive().clone()),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive().clone()),
            DataType::Decimal256(..) => Self::WideDecimal(array.as_primitive().clone()),
            DataType::Utf8 => Self::Text(array.as_string().clone()),
            DataType::LargeUtf8 => Self::LargeText(array.as_string().clone()),
            DataType::Utf8View => Self::TextView(array.as_string_view().clone()),
            DataType::Binary => Self::Bytes(array.as_binary().clone()),
            DataType::LargeBinary => Self::LargeBytes(array.as_binary().clone()),
            DataType::BinaryView => Self::BytesView(array.as_binary_view().clone()),
            DataType::Date32 => Self::Date(array.as_primitive().clone()),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(array.as_primitive().clone()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Moment(array.as_primitive().clone()),
            DataType::Duration(TimeUnit::Microsecond) => Self::Interval(array.as_primitive().clone()),
            other => return Err(Error::internal(format!("no way to write {other}"))),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(array) => array.is_null(row),
            Self::Whole(array) => array.is_null(row),
            Self::Unsigned(array) => array.is_null(row),
            Self::Real(array) => array.is_null(row),
            Self::Decimal(array) => array.is_null(row),
            Self::WideDecimal(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::LargeText(array) => array.is_null(row),
            Self::TextView(array) => array.is_null(row),
            Self::Bytes(array) => array.is_null(row),
            Self::LargeBytes(array) => array.is_null(row),
            Self::BytesView(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
            Self::Moment(array) => array.is_null(row),
            Self::Interval(array) => array.is_null(row),
        }
    }

    fn write(&self, row: usize, form: Form, limits: &Limits, out: &mut Vec<u8>) -> Result<(), Refused> {
        match self {
            Self::Bool(array) => out.push(b'0' + u8::from(array.value(row))),
            Self::Whole(array) => {
                let number = array.value(row);
                push_signed(out, number);
                if limits.is_year && number != 0 && !(1901..=2155).contains(&number) {
                    return Err(YEAR);
                }
            }
            Self::Unsigned(array) => {
                push_unsigned(out, array.value(row));
                if limits.is_year && array.value(row) != 0 && !(1901..=2155).contains(&array.value(row)) {
                    return Err(YEAR);
                }
            }
            Self::Real(array) => {
                push_float(out, array.value(row));
                if !array.value(row).is_finite() {
                    return Err(FINITE);
                }
            }
            Self::Decimal(array) => push_decimal(out, array.value(row), array.scale()),
            Self::WideDecimal(array) => out.extend_from_slice(array.value_as_string(row).as_bytes()),
            Self::Text(array) => push_text(out, array.value(row), form),
            Self::LargeText(array) => push_text(out, array.value(row), form),
            Self::TextView(array) => push_text(out, array.value(row), form),
            Self::Bytes(array) => push_bytes(out, array.value(row), form),
            Self::LargeBytes(array) => push_bytes(out, array.value(row), form),
            Self::BytesView(array) => push_bytes(out, array.value(row), form),
            Self::Date(array) => {
                let known = quoting(out, form, |out| push_date(out, array.value(row).into()));
                if !known {
                    out.extend_from_slice(format!("day {} since 1970", array.value(row)).as_bytes());
                    return Err(YEARS);
                }
            }
            Self::Time(array) => {
                let micros = array.value(row).unsigned_abs();
                quoting(out, form, |out| push_clock(out, micros));
                fits(micros, limits)?;
            }
            Self::Moment(array) => {
                let micros = array.value(row);
                let known = quoting(out, form, |out| push_moment(out, micros));
                if !known {
                    out.extend_from_slice(format!("{micros} microseconds since 1970").as_bytes());
                    return Err(YEARS);
                }
                fits(micros.unsigned_abs(), limits)?;
                // The very first second stands for the date that is none.
                let seconds = micros.div_euclid(1_000_000);
                if limits.last_second.is_some_and(|last| !(1..=last).contains(&seconds)) {
                    return Err(TIMESTAMPS);
                }
            }
            Self::Interval(array) => {
                let micros = array.value(row);
                quoting(out, form, |out| {
                    if micros < 0 {
                        out.push(b'-');
                    }
                    push_clock(out, micros.unsigned_abs());
                });
                if micros.unsigned_abs() > LONGEST_TIME {
                    return Err(LONG);
                }
                fits(micros.unsigned_abs(), limits)?;
            }
        }
        Ok(())
    }
}

/// Whether a time has no more digits than the column: the server would round without a word.
fn fits(micros: u64, limits: &Limits) -> Result<(), Refused> {
    let unit = 10_u64.pow(6_u32.saturating_sub(limits.fraction.into()));
    if micros.is_multiple_of(unit) { Ok(()) } else { Err(FRACTION) }
}

/// Times are texts in a statement.
fn quoting<T>(out: &mut Vec<u8>, form: Form, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    if form == Form::Lines {
        return write(out);
    }
    out.push(b'\'');
    let done = write(out);
    out.push(b'\'');
    done
}

fn push_text(out: &mut Vec<u8>, text: &str, form: Form) {
    match form {
        Form::Lines => push_line(out, text.as_bytes()),
        Form::Values => {
            out.push(b'\'');
            let mut rest = text.as_bytes();
            while let Some(at) = memchr::memchr3(b'\'', b'\\', 0, rest) {
                out.extend_from_slice(&rest[..at]);
                out.extend_from_slice(match rest[at] {
                    b'\'' => b"\\'",
                    b'\\' => b"\\\\",
                    _ => b"\\0",
                });
                rest = &rest[at + 1..];
            }
            out.extend_from_slice(rest);
            out.push(b'\'');
        }
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8], form: Form) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match form {
        Form::Lines => push_line(out, bytes),
        Form::Values => {
            out.extend_from_slice(b"x'");
            out.extend(bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
            out.push(b'\'');
        }
    }
}

/// Bytes as a field of a line.
fn push_line(out: &mut Vec<u8>, mut rest: &[u8]) {
    while let Some(at) = memchr::memchr3(b'\t', b'\n', b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        out.push(b'\\');
        out.push(rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// An array as one of those that are written.
fn change(column: &Outgoing, array: &ArrayRef) -> Result<ArrayRef> {
    let unfit = |cause: arrow::error::ArrowError| {
        Error::new(ErrorKind::Data, format!("a value of the column `{}` does not fit MySQL", column.name)).cause(cause)
    };
    if let Some(nanos) = between_microseconds(array) {
        return Err(Error::new(
            ErrorKind::Data,
            format!("a value of the column `{}` lies between two microseconds ({nanos} ns)", column.name),
        )
        .hint(format!(
            "MySQL keeps microseconds; write `date_trunc('microsecond', {})` in the step before",
            column.name
        )));
    }
    if column.is_json() {
        return json(&column.field, array).map_err(unfit);
    }
    if *array.data_type() == column.encoded {
        return Ok(array.clone());
    }
    // Not `safe`: a value that does not fit is an error, never a NULL.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, &column.encoded, &options).map_err(unfit)
}
