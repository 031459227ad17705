//! Type names as people write them (`decimal(10,2)`, `timestamp`), to and from arrow types.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, TimeUnit};
use gristmill_model::{Error, ErrorKind, Result, did_you_mean};
use std::sync::Arc;

/// Names without parameters, and what they mean; the first name of a type is the one that people are shown. The widths
/// are SQL's (PostgreSQL, DuckDB, DataFusion): `int` has 32 bits and `int8` eight bytes, `real` is a float of 32 bits.
const PLAIN: [(&str, DataType); 59] = [
    ("boolean", DataType::Boolean),
    ("bool", DataType::Boolean),
    ("tinyint", DataType::Int8),
    ("int1", DataType::Int8),
    ("byte", DataType::Int8),
    ("smallint", DataType::Int16),
    ("int2", DataType::Int16),
    ("int16", DataType::Int16),
    ("short", DataType::Int16),
    ("int", DataType::Int32),
    ("integer", DataType::Int32),
    ("int4", DataType::Int32),
    ("int32", DataType::Int32),
    ("bigint", DataType::Int64),
    ("int8", DataType::Int64),
    ("int64", DataType::Int64),
    ("long", DataType::Int64),
    ("utinyint", DataType::UInt8),
    ("uint8", DataType::UInt8),
    ("usmallint", DataType::UInt16),
    ("uint16", DataType::UInt16),
    ("uint", DataType::UInt32),
    ("uinteger", DataType::UInt32),
    ("uint32", DataType::UInt32),
    ("ubigint", DataType::UInt64),
    ("uint64", DataType::UInt64),
    ("real", DataType::Float32),
    ("float4", DataType::Float32),
    ("float32", DataType::Float32),
    ("double", DataType::Float64),
    ("double precision", DataType::Float64),
    ("float", DataType::Float64),
    ("float8", DataType::Float64),
    ("float64", DataType::Float64),
    ("text", DataType::Utf8),
    ("string", DataType::Utf8),
    ("varchar", DataType::Utf8),
    ("char", DataType::Utf8),
    ("character varying", DataType::Utf8),
    ("utf8", DataType::Utf8),
    ("json", DataType::Utf8),
    ("uuid", DataType::Utf8),
    ("binary", DataType::Binary),
    ("varbinary", DataType::Binary),
    ("bytea", DataType::Binary),
    ("blob", DataType::Binary),
    ("bytes", DataType::Binary),
    ("date", DataType::Date32),
    ("date32", DataType::Date32),
    ("time", DataType::Time64(TimeUnit::Microsecond)),
    ("time64", DataType::Time64(TimeUnit::Microsecond)),
    ("timestamp", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ("datetime", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ("timestamp without time zone", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ("timestamp_us", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ("timestamp_s", DataType::Timestamp(TimeUnit::Second, None)),
    ("timestamp_ms", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ("timestamp_ns", DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ("null", DataType::Null),
];

/// The arrow type of a name such as `bigint`, `text`, `decimal(10,2)`, `timestamp(ms)`, `timestamptz` or
/// `timestamp(us, Europe/Paris)`, the same for every connector. Case does not matter. A timestamp counts microseconds
/// unless `s`, `ms`, `us` or `ns` is said; `decimal` alone is `decimal(38,10)`.
///
/// # Errors
/// A name that is no type, or parameters it does not take, with the name that was probably meant.
pub fn parse_type(name: &str) -> Result<DataType> {
    let text = name.trim().to_lowercase();
    let wrong = |message: String| Error::new(ErrorKind::Config, message);
    let (word, parameters) = match text.split_once('(') {
        None => (text.as_str(), None),
        Some((word, rest)) => {
            let inner = rest
                .trim_end()
                .strip_suffix(')')
                .ok_or_else(|| wrong(format!("`{name}` lacks its closing parenthesis")))?;
            (word.trim_end(), Some(inner.split(',').map(str::trim).collect::<Vec<_>>()))
        }
    };
    // A zone's name has its own capitals, so it is cut from what was written.
    let zone_as_written = || {
        let inner = name.split_once('(').map_or("", |(_, rest)| rest).trim_end().trim_end_matches(')');
        inner.rsplit(',').next().unwrap_or_default().trim().to_owned()
    };
    match (word, parameters.as_deref()) {
        ("decimal" | "numeric" | "number" | "decimal128" | "decimal256", Some(digits)) => parse_decimal(name, digits),
        ("decimal" | "numeric" | "number", None) => Ok(DataType::Decimal128(38, 10)),
        ("timestamptz" | "timestamp with time zone", None) => {
            Ok(DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))))
        }
        ("timestamptz", Some([unit])) => Ok(DataType::Timestamp(parse_unit(name, unit)?, Some(Arc::from("UTC")))),
        ("timestamp" | "datetime", Some([unit])) => Ok(DataType::Timestamp(parse_unit(name, unit)?, None)),
        ("timestamp", Some([unit, _])) => {
            let zone = zone_as_written();
            if zone.parse::<chrono_tz::Tz>().is_err() && !is_offset(&zone) {
                return Err(wrong(format!("`{name}` names no time zone"))
                    .hint("write an IANA name or an offset: `timestamp(us, Europe/Paris)`, `timestamp(us, +02:00)`"));
            }
            Ok(DataType::Timestamp(parse_unit(name, unit)?, Some(Arc::from(zone))))
        }
        ("varchar" | "char" | "character varying", Some([digits])) if digits.parse::<u32>().is_ok() => {
            Ok(DataType::Utf8)
        }
        (word, None) => PLAIN
            .iter()
            .find(|(plain, _)| *plain == word)
            .map(|(_, kind)| kind.clone())
            .ok_or_else(|| wrong(format!("`{name}` is not a type")).hint(nearest(word))),
        (word, Some(_)) if PLAIN.iter().any(|(plain, _)| *plain == word) => {
            Err(wrong(format!("`{word}` does not take the parameters of `{name}`")).hint(format!("write `{word}`")))
        }
        (word, Some(_)) => Err(wrong(format!("`{name}` is not a type")).hint(nearest(word))),
    }
}

fn nearest(word: &str) -> String {
    let names = PLAIN.iter().map(|(plain, _)| *plain).chain(["decimal(18,6)", "timestamptz"]);
    did_you_mean(word, names).map_or_else(
        || {
            "valid: `boolean`, `tinyint`, `smallint`, `int`, `bigint`, the same with `u` before it, `real`, `double`, \
             `text`, `binary`, `date`, `time`, `timestamp`, `timestamptz`, `decimal(18,6)`"
                .to_owned()
        },
        |near| format!("did you mean `{near}`?"),
    )
}

fn parse_decimal(name: &str, digits: &[&str]) -> Result<DataType> {
    let wrong = || {
        Error::new(ErrorKind::Config, format!("`{name}` is not a decimal type")).hint(format!(
            "write 1 to {DECIMAL256_MAX_PRECISION} digits, of which at most all stand after the point: `decimal(18,6)`"
        ))
    };
    let (precision, scale) = match digits {
        [precision] => (precision.parse::<u8>(), Ok(0)),
        [precision, scale] => (precision.parse::<u8>(), scale.parse::<i8>()),
        _ => return Err(wrong()),
    };
    match (precision, scale) {
        (Ok(precision), Ok(scale)) if precision >= 1 && scale >= 0 && i16::from(scale) <= i16::from(precision) => {
            if precision <= DECIMAL128_MAX_PRECISION {
                Ok(DataType::Decimal128(precision, scale))
            } else if precision <= DECIMAL256_MAX_PRECISION {
                Ok(DataType::Decimal256(precision, scale))
            } else {
                Err(wrong())
            }
        }
        _ => Err(wrong()),
    }
}

fn parse_unit(name: &str, unit: &str) -> Result<TimeUnit> {
    match unit {
        "s" | "0" => Ok(TimeUnit::Second),
        "ms" | "3" => Ok(TimeUnit::Millisecond),
        "us" | "6" => Ok(TimeUnit::Microsecond),
        "ns" | "9" => Ok(TimeUnit::Nanosecond),
        _ => Err(Error::new(ErrorKind::Config, format!("`{name}` has the unknown unit `{unit}`"))
            .hint("valid: `s`, `ms`, `us`, `ns`")),
    }
}

fn is_offset(zone: &str) -> bool {
    let bytes = zone.as_bytes();
    bytes.len() == 6
        && matches!(bytes[0], b'+' | b'-')
        && bytes[3] == b':'
        && [1, 2, 4, 5].iter().all(|index| bytes[*index].is_ascii_digit())
}

/// The name of an arrow type as [`parse_type`] reads it, and arrow's own words for the types it does not read.
#[must_use]
pub fn type_name(kind: &DataType) -> String {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Time64(_) | DataType::Time32(_) => "time".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => "timestamptz".to_owned(),
        DataType::Timestamp(each, None) => format!("timestamp({})", unit(each)),
        DataType::Timestamp(each, Some(zone)) => format!("timestamp({}, {zone})", unit(each)),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision},{scale})")
        }
        other => PLAIN
            .iter()
            .find(|(_, kind)| kind == other)
            .map_or_else(|| other.to_string(), |(name, _)| (*name).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types_go_both_ways() {
        for name in [
            "boolean",
            "tinyint",
            "smallint",
            "int",
            "bigint",
            "utinyint",
            "uint",
            "ubigint",
            "real",
            "double",
            "text",
            "binary",
            "date",
            "time",
            "timestamp",
            "timestamptz",
            "timestamp(ns)",
            "timestamp(ms, Europe/Paris)",
            "timestamp(us, +02:00)",
            "decimal(18,6)",
            "decimal(60,6)",
        ] {
            assert_eq!(type_name(&parse_type(name).unwrap()), name);
        }
        assert_eq!(parse_type(" Decimal( 10 , 2 ) ").unwrap(), DataType::Decimal128(10, 2));
        for (name, same) in [("int8", "bigint"), ("int64", "bigint"), ("integer", "int"), ("float32", "real")] {
            assert_eq!(parse_type(name).unwrap(), parse_type(same).unwrap(), "{name}");
        }
        assert_eq!(parse_type("decimal").unwrap(), DataType::Decimal128(38, 10));
        assert_eq!(parse_type("timestamp_ns").unwrap(), parse_type("timestamp(ns)").unwrap());
        assert_eq!(parse_type("NUMERIC(5)").unwrap(), DataType::Decimal128(5, 0));
        assert_eq!(parse_type("varchar(20)").unwrap(), DataType::Utf8);
    }

    #[test]
    fn a_wrong_name_says_what_may_be_meant() {
        let hint = |name: &str| parse_type(name).unwrap_err().hint_text().unwrap_or_default().to_owned();
        assert_eq!(hint("timestmp"), "did you mean `timestamp`?");
        assert!(hint("decimal(2,10)").contains("decimal(18,6)"));
        assert!(hint("timestamp(us, Mars)").contains("Europe/Paris"));
        assert!(hint("int64(3)").contains("int64"));
        assert!(hint("zzz").starts_with("valid:"));
        for broken in ["", "(", "decimal(", "decimal()", "decimal(1,2,3)", "decimal(300)", "timestamp(,)", "date(5)"] {
            assert!(parse_type(broken).is_err(), "{broken}");
        }
    }
}
