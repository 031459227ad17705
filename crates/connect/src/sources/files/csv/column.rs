//! Building typed columns from text, one row at a time: first every field of a row is understood, then all are kept,
//! so that a refused row leaves nothing behind.
//!
//! Values are understood by arrow's own parsers, so that a file read here and by the engine's scan gives the same rows;
//! except decimals, which arrow cuts off and we round half up, as SQL does.

use arrow::array::timezone::Tz;
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Decimal256Builder, LargeStringBuilder,
    PrimitiveBuilder, StringBuilder, StringViewBuilder, new_null_array,
};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::*;
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;

/// One column being built.
pub(super) trait Column: Send {
    /// Understands a value (`None` is NULL) and remembers it; false when it is not of the type.
    fn take(&mut self, text: Option<&str>) -> bool;
    /// Keeps what was remembered. `text` is what was taken.
    fn keep(&mut self, text: Option<&str>);
    /// Everything kept, leaving nothing.
    fn finish(&mut self) -> ArrayRef;
}

/// The builder of a type.
///
/// # Errors
/// [`ErrorKind::Schema`] for a type that text cannot be.
pub(super) fn column(field: &Field) -> Result<Box<dyn Column>> {
    use DataType as T;
    Ok(match field.data_type() {
        T::Int8 => parsed::<Int8Type>(),
        T::Int16 => parsed::<Int16Type>(),
        T::Int32 => parsed::<Int32Type>(),
        T::Int64 => parsed::<Int64Type>(),
        T::UInt8 => parsed::<UInt8Type>(),
        T::UInt16 => parsed::<UInt16Type>(),
        T::UInt32 => parsed::<UInt32Type>(),
        T::UInt64 => parsed::<UInt64Type>(),
        T::Float32 => parsed::<Float32Type>(),
        T::Float64 => parsed::<Float64Type>(),
        T::Date32 => parsed::<Date32Type>(),
        T::Date64 => parsed::<Date64Type>(),
        T::Time32(TimeUnit::Second) => parsed::<Time32SecondType>(),
        T::Time32(TimeUnit::Millisecond) => parsed::<Time32MillisecondType>(),
        T::Time64(TimeUnit::Microsecond) => parsed::<Time64MicrosecondType>(),
        T::Time64(TimeUnit::Nanosecond) => parsed::<Time64NanosecondType>(),
        T::Timestamp(unit, zone) => {
            let tz: Tz = zone.as_deref().unwrap_or("UTC").parse().map_err(|error| {
                Error::new(ErrorKind::Schema, format!("the column `{}` has an unknown time zone", field.name()))
                    .cause(error)
            })?;
            match unit {
                TimeUnit::Second => moments::<TimestampSecondType>(zone, move |text| {
                    string_to_datetime(&tz, text).ok().map(|time| time.timestamp())
                }),
                TimeUnit::Millisecond => moments::<TimestampMillisecondType>(zone, move |text| {
                    string_to_datetime(&tz, text).ok().map(|time| time.timestamp_millis())
                }),
                TimeUnit::Microsecond => moments::<TimestampMicrosecondType>(zone, move |text| {
                    string_to_datetime(&tz, text).ok().map(|time| time.timestamp_micros())
                }),
                TimeUnit::Nanosecond => moments::<TimestampNanosecondType>(zone, move |text| {
                    string_to_datetime(&tz, text).ok().and_then(|time| time.timestamp_nanos_opt())
                }),
            }
        }
        T::Decimal128(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            let builder = Decimal128Builder::new().with_data_type(field.data_type().clone());
            Box::new(Primitive { builder, value: None, parse: move |text: &str| decimal128(text, precision, scale) })
        }
        T::Decimal256(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            let builder = Decimal256Builder::new().with_data_type(field.data_type().clone());
            let parse = move |text: &str| {
                digits(text, scale).filter(|(_, digits)| significant(digits) <= usize::from(precision)).and_then(
                    |(negative, digits)| i256::from_string(&format!("{}{digits}", if negative { "-" } else { "" })),
                )
            };
            Box::new(Primitive { builder, value: None, parse })
        }
        T::Boolean => Box::new(Truth { builder: BooleanBuilder::new(), value: None }),
        T::Utf8 => Box::new(StringBuilder::new()),
        T::LargeUtf8 => Box::new(LargeStringBuilder::new()),
        T::Utf8View => Box::new(StringViewBuilder::new()),
        T::Binary => Box::new(BinaryBuilder::new()),
        other => {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("the column `{}` cannot be read from text as {}", field.name(), crate::types::type_name(other)),
            ));
        }
    })
}

/// A column that a file has not.
pub(super) fn missing(field: &Field, rows: usize) -> ArrayRef {
    new_null_array(field.data_type(), rows)
}

fn parsed<T: ArrowPrimitiveType + Parser>() -> Box<dyn Column> {
    Box::new(Primitive { builder: PrimitiveBuilder::<T>::new(), value: None, parse: T::parse })
}

fn moments<T: ArrowTimestampType>(
    zone: &Option<Arc<str>>,
    parse: impl Fn(&str) -> Option<i64> + Send + 'static,
) -> Box<dyn Column> {
    let builder = PrimitiveBuilder::<T>::new().with_timezone_opt(zone.clone());
    Box::new(Primitive { builder, value: None, parse })
}

struct Primitive<T: ArrowPrimitiveType, F> {
    builder: PrimitiveBuilder<T>,
    value: Option<T::Native>,
    parse: F,
}

impl<T: ArrowPrimitiveType, F: Fn(&str) -> Option<T::Native> + Send> Column for Primitive<T, F> {
    fn take(&mut self, text: Option<&str>) -> bool {
        self.value = text.and_then(&self.parse);
        text.is_none() || self.value.is_some()
    }

    fn keep(&mut self, _: Option<&str>) {
        self.builder.append_option(self.value);
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

struct Truth {
    builder: BooleanBuilder,
    value: Option<bool>,
}

impl Column for Truth {
    fn take(&mut self, text: Option<&str>) -> bool {
        self.value = text.and_then(truth);
        text.is_none() || self.value.is_some()
    }

    fn keep(&mut self, _: Option<&str>) {
        self.builder.append_option(self.value);
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

/// As arrow's CSV reader understands it.
pub(super) fn truth(text: &str) -> Option<bool> {
    match () {
        () if text.eq_ignore_ascii_case("true") => Some(true),
        () if text.eq_ignore_ascii_case("false") => Some(false),
        () => None,
    }
}

macro_rules! texts {
    ($($builder:ty),*) => {$(
        impl Column for $builder {
            fn take(&mut self, _: Option<&str>) -> bool {
                true
            }

            fn keep(&mut self, text: Option<&str>) {
                self.append_option(text);
            }

            fn finish(&mut self) -> ArrayRef {
                Arc::new(<$builder>::finish(self))
            }
        }
    )*};
}
texts!(StringBuilder, LargeStringBuilder, StringViewBuilder, BinaryBuilder);

fn decimal128(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = digits(text, scale)?;
    if significant(&digits) > usize::from(precision) {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    Some(if negative { -value } else { value })
}

fn significant(digits: &str) -> usize {
    digits.trim_start_matches('0').len()
}

/// The sign and digits of a number moved `scale` places to the left of the point, rounded half away from zero.
fn digits(text: &str, scale: i8) -> Option<(bool, String)> {
    let text = text.trim();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() <= 400)?),
        None => (text, 0),
    };
    let (negative, unsigned) = match mantissa.as_bytes().first() {
        Some(b'-') => (true, &mantissa[1..]),
        Some(b'+') => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !numeric(whole) || !numeric(fraction) || whole.len() + fraction.len() == 0 || unsigned.len() > 1000 {
        return None;
    }
    // How many of all digits stand before the point once it has been moved.
    let kept = i32::try_from(whole.len()).ok()? + exponent + i32::from(scale);
    let all = format!("{whole}{fraction}");
    let Ok(kept) = usize::try_from(kept) else { return Some((negative, "0".to_owned())) };
    if kept >= all.len() {
        return Some((negative, format!("{all}{}", "0".repeat(kept - all.len()))));
    }
    let up = all.as_bytes()[kept] >= b'5';
    let mut digits = all.as_bytes()[..kept].to_vec();
    if up {
        let mut at = digits.len();
        loop {
            if at == 0 {
                digits.insert(0, b'1');
                break;
            }
            at -= 1;
            if digits[at] == b'9' {
                digits[at] = b'0';
            } else {
                digits[at] += 1;
                break;
            }
        }
    }
    if digits.is_empty() {
        digits.push(b'0');
    }
    String::from_utf8(digits).ok().map(|digits| (negative, digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_rounded_half_away_from_zero_and_never_overflow() {
        for (text, value) in [
            ("1.005", Some(101)),
            ("-1.005", Some(-101)),
            ("1.004", Some(100)),
            ("9.995", Some(1000)),
            (".5", Some(50)),
            ("5.", Some(500)),
            ("1e2", Some(10_000)),
            ("125e-3", Some(13)),
            ("0.001", Some(0)),
            ("00000000000000000001", Some(100)),
            ("100000000", None),
            ("99999999.999", None),
            ("", None),
            ("-", None),
            (".", None),
            ("1e999999", None),
            ("1,5", None),
        ] {
            assert_eq!(decimal128(text, 10, 2), value, "{text}");
        }
        assert_eq!(decimal128("0.0049", 10, 2), Some(0));
        assert_eq!(decimal128(&"9".repeat(300), 38, 0), None);
    }
}
