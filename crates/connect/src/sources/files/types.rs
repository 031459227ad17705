//! Type names as people write them in `schema:`, and arrow's types as people read them.

use arrow::datatypes::{DataType, TimeUnit};
use gristmill_model::one_of;

/// The names that [`parse`] knows, without the parameterised ones' parameters.
const NAMES: [&str; 20] = [
    "tinyint", "smallint", "int", "bigint", "utinyint", "usmallint", "uint", "ubigint", "real", "double", "decimal(10,2)",
    "boolean", "text", "binary", "date", "time", "timestamp", "timestamp_ns", "timestamptz", "varchar",
];

/// The type of that name, as SQL, arrow and Spark write it; case does not matter. `decimal` alone is `decimal(38,10)`.
///
/// # Errors
/// A hint for a name that is unknown, or the limits of a decimal's digits.
pub(super) fn parse(text: &str) -> Result<DataType, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (name, parameters) = match lower.split_once('(') {
        Some((name, rest)) => match rest.strip_suffix(')') {
            Some(inside) => (name.trim(), Some(inside)),
            None => return Err(format!("the type `{text}` has no closing bracket")),
        },
        None => (lower.as_str(), None),
    };
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    Ok(match name {
        "tinyint" | "int1" | "byte" => DataType::Int8,
        "smallint" | "int2" | "int16" | "short" => DataType::Int16,
        "int" | "integer" | "int4" | "int32" => DataType::Int32,
        "bigint" | "int8" | "int64" | "long" => DataType::Int64,
        "utinyint" | "uint8" => DataType::UInt8,
        "usmallint" | "uint16" => DataType::UInt16,
        "uint" | "uinteger" | "uint32" => DataType::UInt32,
        "ubigint" | "uint64" => DataType::UInt64,
        "real" | "float4" | "float32" => DataType::Float32,
        "double" | "double precision" | "float" | "float8" | "float64" => DataType::Float64,
        "decimal" | "numeric" | "number" => return decimal(parameters.unwrap_or("38,10"), text),
        "boolean" | "bool" => DataType::Boolean,
        "text" | "string" | "varchar" | "char" | "character varying" | "utf8" | "json" | "uuid" => DataType::Utf8,
        "binary" | "varbinary" | "bytea" | "blob" | "bytes" => DataType::Binary,
        "date" | "date32" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" | "datetime" | "timestamp without time zone" | "timestamp_us" => micros(None),
        "timestamptz" | "timestamp with time zone" => micros(Some("UTC")),
        "timestamp_s" => DataType::Timestamp(TimeUnit::Second, None),
        "timestamp_ms" => DataType::Timestamp(TimeUnit::Millisecond, None),
        "timestamp_ns" => DataType::Timestamp(TimeUnit::Nanosecond, None),
        _ => return Err(one_of(name, NAMES)),
    })
}

fn decimal(parameters: &str, text: &str) -> Result<DataType, String> {
    let (precision, scale) = parameters.split_once(',').unwrap_or((parameters, "0"));
    match (precision.trim().parse::<u8>(), scale.trim().parse::<i8>()) {
        (Ok(precision @ 1..=38), Ok(scale)) if (0..=38).contains(&scale) && scale.unsigned_abs() <= precision => {
            Ok(DataType::Decimal128(precision, scale))
        }
        (Ok(precision @ 39..=76), Ok(scale)) if scale >= 0 && scale.unsigned_abs() <= precision => {
            Ok(DataType::Decimal256(precision, scale))
        }
        _ => Err(format!("`{text}`: a decimal has 1 to 76 digits, and no more of them after the point; e.g. `decimal(10,2)`")),
    }
}

/// A type as people write it.
pub(super) fn name(data_type: &DataType) -> String {
    match data_type {
        DataType::Int8 => "tinyint".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::UInt8 => "utinyint".to_owned(),
        DataType::UInt16 => "usmallint".to_owned(),
        DataType::UInt32 => "uint".to_owned(),
        DataType::UInt64 => "ubigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision},{scale})")
        }
        DataType::Boolean => "boolean".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Time64(_) | DataType::Time32(_) => "time".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamptz".to_owned(),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "timestamp_ns".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_valid_name_is_understood_and_reads_back() {
        for text in NAMES {
            let data_type = parse(text).unwrap();
            assert_eq!(parse(&name(&data_type)).unwrap(), data_type, "{text}");
        }
        assert_eq!(parse(" Decimal( 38 , 6 ) ").unwrap(), DataType::Decimal128(38, 6));
        assert_eq!(parse("VARCHAR(20)").unwrap(), DataType::Utf8);
        for text in ["decimal(0,0)", "decimal(5,6)", "decimal(77,1)", "decimal(a)", "decimal(5", "nosuch"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("timestmp").unwrap_err(), "did you mean `timestamp`?");
    }
}
