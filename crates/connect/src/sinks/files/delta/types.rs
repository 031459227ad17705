//! Column types: arrow's as Delta names them, and which of them a column of a table takes.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// A type of Delta (its protocol: "Schema Serialization Format").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A type of one word.
    Plain(Plain),
    /// Precision and scale.
    Decimal(u8, i8),
    Array(Box<Self>),
    Map(Box<Self>, Box<Self>),
    Struct(Vec<(String, Self)>),
}

/// Types of one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Boolean,
    Byte,
    Short,
    Integer,
    Long,
    Float,
    Double,
    String,
    Binary,
    Date,
    Timestamp,
    TimestampNtz,
}

const PLAIN: [(Plain, &str); 12] = [
    (Plain::Boolean, "boolean"),
    (Plain::Byte, "byte"),
    (Plain::Short, "short"),
    (Plain::Integer, "integer"),
    (Plain::Long, "long"),
    (Plain::Float, "float"),
    (Plain::Double, "double"),
    (Plain::String, "string"),
    (Plain::Binary, "binary"),
    (Plain::Date, "date"),
    (Plain::Timestamp, "timestamp"),
    (Plain::TimestampNtz, "timestamp_ntz"),
];

/// The digits of a decimal, at most.
const MOST_DIGITS: u8 = 38;

impl Plain {
    fn word(self) -> &'static str {
        PLAIN.iter().find(|(plain, _)| *plain == self).map_or("", |(_, word)| word)
    }

    /// Decimal digits of a whole number's type.
    fn digits(self) -> Option<u8> {
        match self {
            Self::Byte => Some(3),
            Self::Short => Some(5),
            Self::Integer => Some(10),
            Self::Long => Some(19),
            _ => None,
        }
    }

    fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Byte => DataType::Int8,
            Self::Short => DataType::Int16,
            Self::Integer => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::String => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            Self::TimestampNtz => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }
}

impl Kind {
    /// The type that takes every value of arrow's type; none where Delta has none.
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        let plain = |plain| Some(Self::Plain(plain));
        match data_type {
            DataType::Boolean => plain(Plain::Boolean),
            DataType::Int8 => plain(Plain::Byte),
            DataType::Int16 | DataType::UInt8 => plain(Plain::Short),
            DataType::Int32 | DataType::UInt16 => plain(Plain::Integer),
            DataType::Int64 | DataType::UInt32 => plain(Plain::Long),
            DataType::UInt64 => Some(Self::Decimal(20, 0)),
            DataType::Float16 | DataType::Float32 => plain(Plain::Float),
            DataType::Float64 => plain(Plain::Double),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => plain(Plain::String),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                plain(Plain::Binary)
            }
            DataType::Date32 | DataType::Date64 => plain(Plain::Date),
            DataType::Timestamp(_, Some(_)) => plain(Plain::Timestamp),
            DataType::Timestamp(_, None) => plain(Plain::TimestampNtz),
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => {
                let fits = *precision <= MOST_DIGITS && *scale >= 0 && u8::try_from(*scale).ok()? <= *precision;
                fits.then_some(Self::Decimal(*precision, *scale))
            }
            DataType::Dictionary(_, values) => Self::of(values),
            DataType::RunEndEncoded(_, values) => Self::of(values.data_type()),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => Some(Self::Array(Box::new(Self::of(item.data_type())?))),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) => {
                    let [key, value] = fields.as_ref() else { return None };
                    let (key, value) = (Self::of(key.data_type())?, Self::of(value.data_type())?);
                    Some(Self::Map(Box::new(key), Box::new(value)))
                }
                _ => None,
            },
            DataType::Struct(fields) => {
                let fields = fields.iter().map(|field| Some((field.name().clone(), Self::of(field.data_type())?)));
                Some(Self::Struct(fields.collect::<Option<_>>()?))
            }
            _ => None,
        }
    }

    /// The type as it is stored: what its columns are in Parquet.
    pub(super) fn arrow(&self) -> DataType {
        match self {
            Self::Plain(plain) => plain.arrow(),
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Self::Array(item) => DataType::List(Arc::new(Field::new("element", item.arrow(), true))),
            Self::Map(key, value) => {
                let fields = vec![Field::new("key", key.arrow(), false), Field::new("value", value.arrow(), true)];
                let entries = Field::new("key_value", DataType::Struct(Fields::from(fields)), false);
                DataType::Map(Arc::new(entries), false)
            }
            Self::Struct(fields) => DataType::Struct(
                fields.iter().map(|(name, kind)| Field::new(name, kind.arrow(), true)).collect::<Fields>(),
            ),
        }
    }

    /// A type as a table's schema writes it; none for one that this version does not know.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        if let Some(word) = value.as_str() {
            if let Some((plain, _)) = PLAIN.iter().find(|(_, name)| *name == word) {
                return Some(Self::Plain(*plain));
            }
            let inner = word.strip_prefix("decimal(")?.strip_suffix(')')?;
            let (precision, scale) = inner.split_once(',')?;
            return Some(Self::Decimal(precision.trim().parse().ok()?, scale.trim().parse().ok()?));
        }
        match value.get("type")?.as_str()? {
            "array" => Some(Self::Array(Box::new(Self::parse(value.get("elementType")?)?))),
            "map" => Some(Self::Map(
                Box::new(Self::parse(value.get("keyType")?)?),
                Box::new(Self::parse(value.get("valueType")?)?),
            )),
            "struct" => {
                let field =
                    |field: &Value| Some((field.get("name")?.as_str()?.to_owned(), Self::parse(field.get("type")?)?));
                Some(Self::Struct(value.get("fields")?.as_array()?.iter().map(field).collect::<Option<_>>()?))
            }
            _ => None,
        }
    }

    /// The type as a table's schema writes it.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Plain(plain) => json!(plain.word()),
            Self::Decimal(precision, scale) => json!(format!("decimal({precision},{scale})")),
            Self::Array(item) => json!({"type": "array", "elementType": item.json(), "containsNull": true}),
            Self::Map(key, value) => {
                json!({"type": "map", "keyType": key.json(), "valueType": value.json(), "valueContainsNull": true})
            }
            Self::Struct(fields) => {
                let fields: Vec<Value> = fields.iter().map(|(name, kind)| field_json(name, kind)).collect();
                json!({"type": "struct", "fields": fields})
            }
        }
    }

    /// Whether a column of this type can take every value of the other, and give it back.
    pub(super) fn holds(&self, other: &Self) -> bool {
        use Plain::{Byte, Double, Float, Integer, Long, Short};
        if self == other {
            return true;
        }
        match (self, other) {
            (Self::Plain(wide), Self::Plain(narrow)) => matches!(
                (wide, narrow),
                (Short, Byte)
                    | (Integer, Byte | Short)
                    | (Long, Byte | Short | Integer)
                    | (Double, Float | Byte | Short | Integer)
            ),
            (Self::Decimal(precision, scale), Self::Decimal(other_precision, other_scale)) => {
                let whole = |precision: &u8, scale: &i8| i16::from(*precision) - i16::from(*scale);
                scale >= other_scale && whole(precision, scale) >= whole(other_precision, other_scale)
            }
            (Self::Decimal(precision, scale), Self::Plain(narrow)) => {
                narrow.digits().is_some_and(|digits| i16::from(*precision) - i16::from(*scale) >= i16::from(digits))
            }
            _ => false,
        }
    }

    /// Whether a value somewhere in it is a timestamp without a time zone: a feature that a table must say it has.
    pub(super) fn needs_ntz(&self) -> bool {
        match self {
            Self::Plain(plain) => *plain == Plain::TimestampNtz,
            Self::Decimal(..) => false,
            Self::Array(item) => item.needs_ntz(),
            Self::Map(key, value) => key.needs_ntz() || value.needs_ntz(),
            Self::Struct(fields) => fields.iter().any(|(_, kind)| kind.needs_ntz()),
        }
    }

    /// The names of the columns within it.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::Plain(_) | Self::Decimal(..) => Vec::new(),
            Self::Array(item) => item.names(),
            Self::Map(key, value) => [key.names(), value.names()].concat(),
            Self::Struct(fields) => {
                fields.iter().flat_map(|(name, kind)| [vec![name.as_str()], kind.names()].concat()).collect()
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(plain) => f.write_str(plain.word()),
            Self::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            Self::Array(item) => write!(f, "array<{item}>"),
            Self::Map(key, value) => write!(f, "map<{key}, {value}>"),
            Self::Struct(fields) => {
                let fields: Vec<String> = fields.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
                write!(f, "struct<{}>", fields.join(", "))
            }
        }
    }
}

/// A field of a schema, as it is written. Every column of ours may be NULL: what a view gives may be, too.
pub(super) fn field_json(name: &str, kind: &Kind) -> Value {
    json!({"name": name, "type": kind.json(), "nullable": true, "metadata": {}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        let plain = (0..PLAIN.len()).prop_map(|at| Kind::Plain(PLAIN[at].0));
        let decimal = (1_u8..=38).prop_flat_map(|precision| {
            (0..=precision).prop_map(move |scale| Kind::Decimal(precision, i8::try_from(scale).unwrap()))
        });
        prop_oneof![plain, decimal].prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|item| Kind::Array(Box::new(item))),
                (inner.clone(), inner.clone()).prop_map(|(key, value)| Kind::Map(Box::new(key), Box::new(value))),
                proptest::collection::vec(inner, 1..3).prop_map(|kinds| {
                    Kind::Struct(kinds.into_iter().enumerate().map(|(at, kind)| (format!("f{at}"), kind)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_type_is_read_as_it_was_written(kind in kinds()) {
            prop_assert_eq!(Kind::parse(&kind.json()), Some(kind.clone()));
            prop_assert_eq!(Kind::of(&kind.arrow()), Some(kind.clone()));
            prop_assert!(kind.holds(&kind));
        }

        #[test]
        fn what_holds_what_is_an_order(a in kinds(), b in kinds(), c in kinds()) {
            prop_assert!(!(a.holds(&b) && b.holds(&c)) || a.holds(&c), "{a} {b} {c}");
            prop_assert!(a == b || !(a.holds(&b) && b.holds(&a)), "{a} {b}");
        }
    }

    #[test]
    fn types_that_delta_lacks_are_told_from_those_it_has() {
        for (data_type, kind) in [
            (DataType::UInt64, Some("decimal(20,0)")),
            (DataType::Timestamp(TimeUnit::Nanosecond, Some("Asia/Tokyo".into())), Some("timestamp")),
            (DataType::Timestamp(TimeUnit::Second, None), Some("timestamp_ntz")),
            (DataType::Decimal256(38, 4), Some("decimal(38,4)")),
            (DataType::Decimal256(39, 4), None),
            (DataType::Decimal128(5, -2), None),
            (DataType::Time64(TimeUnit::Microsecond), None),
            (DataType::Null, None),
        ] {
            assert_eq!(Kind::of(&data_type).map(|kind| kind.to_string()).as_deref(), kind, "{data_type}");
        }
    }
}
