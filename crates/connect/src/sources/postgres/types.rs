//! PostgreSQL's types as arrow's.
//!
//! | PostgreSQL | arrow |
//! |---|---|
//! | boolean | Boolean |
//! | smallint, integer, bigint | Int16, Int32, Int64 |
//! | oid | Int64 |
//! | real, double precision | Float32, Float64 |
//! | numeric(p,s), p up to 38; up to 76 | Decimal128(p,s); Decimal256(p,s) |
//! | numeric without precision, or with more than 76 digits | Utf8, every digit as the server shows it |
//! | text, varchar, char, name, citext, enums, json, jsonb, uuid | Utf8 |
//! | bytea | Binary |
//! | date | Date32 |
//! | time | Time64(µs) |
//! | timestamp; timestamptz | Timestamp(µs); Timestamp(µs, UTC) |
//! | arrays of all these | List |
//! | everything else (interval, inet, ranges, composites, money, xml, …) | Utf8: the server's own text of it |
//!
//! Nothing is rounded. What arrow has no place for (NaN and infinity as a decimal, infinite or too distant dates and
//! times, arrays of more dimensions than one) is a bad row, and follows `on_bad_row`; `schema: {column: text}` reads it
//! as text. A column of another type by `schema:` (a numeric without precision as `"decimal(20,4)"`, a text as `date`) is
//! read in its own, and each value is converted here by the rules that all databases share (`declared.rs`): a
//! value that would have to be rounded, or does not fit, is a bad row too. A cast by the server would round it.

use crate::declared::wanted_type;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, TimeUnit};
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;
use tokio_postgres::types::{Kind as ServerKind, Type};

/// How a value comes over the wire, and so what it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    /// Bytes that are UTF-8.
    Text,
    /// A version byte, then text.
    Jsonb,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    /// Base-10000 digits as a decimal.
    Decimal(u8, i8),
    /// Base-10000 digits as text.
    NumericText,
    List(Box<Kind>),
    /// As the first says, and then held to a type that was declared.
    Declared(Box<Kind>, DataType),
}

impl Kind {
    /// How its values are sent.
    pub(super) fn sent(&self) -> &Self {
        match self {
            Self::Declared(own, _) => own,
            own => own,
        }
    }

    pub(crate) fn arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 | Self::Oid => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Text | Self::Jsonb | Self::Uuid | Self::NumericText => DataType::Utf8,
            Self::Bytea => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Decimal(precision, scale) if *precision <= DECIMAL128_MAX_PRECISION => {
                DataType::Decimal128(*precision, *scale)
            }
            Self::Decimal(precision, scale) => DataType::Decimal256(*precision, *scale),
            Self::List(item) => DataType::List(Arc::new(Field::new_list_field(item.arrow(), true))),
            Self::Declared(_, wanted) => wanted.clone(),
        }
    }
}

/// A column of a table or query: its name, how it is read, and what the server must cast it to first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) cast: Option<&'static str>,
    /// How its values are kept where a row is refused; none for what is no column of the server.
    pub(crate) kept: Option<crate::kept::Column>,
}

impl Column {
    /// What a column of the server becomes; `wanted` is the type that `schema:` gives it.
    ///
    /// # Errors
    /// A wanted type that there is not, or that the column cannot be read as.
    pub(crate) fn new(name: &str, server: &Type, modifier: i32, wanted: Option<&str>) -> Result<Self> {
        let (kind, cast) = match wanted {
            Some(wanted) => declared_kind(name, wanted, server, modifier)?,
            None => kind_of(server, modifier).map_or((Kind::Text, Some("text")), |kind| (kind, None)),
        };
        let kept = Some(super::kept::column(name, server, modifier, &kind, cast));
        Ok(Self { name: name.to_owned(), kind, cast, kept })
    }

    /// What a server computed: a value of a kind, as it comes.
    pub(crate) fn plain(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), kind, cast: None, kept: None }
    }
}

/// How values of a type are read; none where its binary form is not worth reading.
pub(super) fn kind_of(server: &Type, modifier: i32) -> Option<Kind> {
    match server.kind() {
        ServerKind::Array(item) => match kind_of(item, modifier)? {
            Kind::List(_) => None,
            kind => Some(Kind::List(Box::new(kind))),
        },
        ServerKind::Domain(base) => kind_of(base, modifier),
        ServerKind::Enum(_) => Some(Kind::Text),
        ServerKind::Simple => simple(server, modifier),
        _ => None,
    }
}

fn simple(server: &Type, modifier: i32) -> Option<Kind> {
    Some(match *server {
        Type::BOOL => Kind::Bool,
        Type::INT2 => Kind::Int2,
        Type::INT4 => Kind::Int4,
        Type::INT8 => Kind::Int8,
        Type::OID => Kind::Oid,
        Type::FLOAT4 => Kind::Float4,
        Type::FLOAT8 => Kind::Float8,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON => Kind::Text,
        Type::JSONB => Kind::Jsonb,
        Type::BYTEA => Kind::Bytea,
        Type::DATE => Kind::Date,
        Type::TIME => Kind::Time,
        Type::TIMESTAMP => Kind::Timestamp,
        Type::TIMESTAMPTZ => Kind::TimestampTz,
        Type::UUID => Kind::Uuid,
        Type::NUMERIC => numeric(modifier),
        // An extension's type has no fixed number; its name is what it is known by.
        _ if server.name() == "citext" => Kind::Text,
        _ => return None,
    })
}

/// A numeric's precision and scale out of its type modifier (numeric.c: `numeric_typmod_precision`, `…_scale`).
fn numeric(modifier: i32) -> Kind {
    if modifier < 4 {
        return Kind::NumericText;
    }
    let packed = modifier - 4;
    let precision = (packed >> 16) & 0xffff;
    // Eleven bits, the highest of them the sign; PostgreSQL 15 knows scales below zero and above the precision.
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if precision <= DECIMAL256_MAX_PRECISION => Kind::Decimal(precision, scale),
        _ => Kind::NumericText,
    }
}

/// How a column is read that `schema:` gives a type: in its own, and each value is held to the one that is declared. Only
/// texts are the server's: it has one for every value.
///
/// # Errors
/// A word that is no type, or a type that the column's values can never have.
fn declared_kind(column: &str, word: &str, server: &Type, modifier: i32) -> Result<(Kind, Option<&'static str>)> {
    let wanted = wanted_type(column, word, "PostgreSQL")?;
    if wanted == DataType::Utf8 {
        return Ok((Kind::Text, Some("text")));
    }
    let of = base(server);
    let (own, cast) = match kind_of(server, modifier) {
        Some(own) => (own, None),
        // Its text has a currency and groups of digits; as a numeric it is the same amount.
        None if *of == Type::MONEY => (Kind::NumericText, Some("numeric")),
        None => (Kind::Text, Some("text")),
    };
    if own.arrow() == wanted {
        return Ok((own, cast));
    }
    let kind = match (own, wanted) {
        (Kind::Decimal(..) | Kind::NumericText, DataType::Decimal128(precision, scale))
        | (Kind::Decimal(..) | Kind::NumericText, DataType::Decimal256(precision, scale)) => {
            Kind::Decimal(precision, scale)
        }
        // A row of bits would be taken for a decimal number; bytes, arrays and ids for nothing at all.
        (own, wanted)
            if matches!(own, Kind::List(_) | Kind::Bytea | Kind::Uuid)
                || matches!(*of, Type::BIT | Type::VARBIT)
                || (wanted == DataType::Binary && !matches!(own, Kind::Text | Kind::Jsonb)) =>
        {
            let message = format!("column `{column}` is {}, which cannot be read as `{word}`", server.name());
            return Err(Error::new(ErrorKind::Config, message)
                .hint("read it as `text`, or let the server convert it: `query: select …::… from …`"));
        }
        (own, wanted) => Kind::Declared(Box::new(own), wanted),
    };
    Ok((kind, cast))
}

/// The type below all domains.
pub(super) fn base(server: &Type) -> &Type {
    match server.kind() {
        ServerKind::Domain(of) => base(of),
        _ => server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numeric_keeps_its_precision_and_scale() {
        let modifier = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        assert_eq!(numeric(modifier(10, 2)), Kind::Decimal(10, 2));
        assert_eq!(numeric(modifier(38, 38)), Kind::Decimal(38, 38));
        assert_eq!(numeric(modifier(76, 0)), Kind::Decimal(76, 0));
        assert_eq!(numeric(modifier(3, -2)), Kind::Decimal(5, 0));
        assert_eq!(numeric(modifier(2, 5)), Kind::Decimal(5, 5));
        assert_eq!(numeric(modifier(77, 0)), Kind::NumericText);
        assert_eq!(numeric(modifier(1000, -1000)), Kind::NumericText);
        assert_eq!(numeric(-1), Kind::NumericText);
    }

    #[test]
    fn an_unknown_word_for_a_type_is_answered_with_the_one_that_was_meant() {
        let error = Column::new("a", &Type::TEXT, -1, Some("timestam")).unwrap_err();
        assert_eq!(error.hint_text(), Some("did you mean `timestamp`?"));
        assert!(Column::new("a", &Type::NUMERIC, -1, Some("decimal(77,2)")).is_err());
        assert!(Column::new("a", &Type::NUMERIC, -1, Some("decimal(5,6)")).is_err());
        let column = Column::new("a", &Type::NUMERIC, -1, Some("Decimal(20, 4)")).unwrap();
        assert_eq!((column.kind, column.cast), (Kind::Decimal(20, 4), None));
    }

    #[test]
    fn a_declared_column_is_read_in_its_own_type() {
        let kind = |server: &Type, wanted| Column::new("a", server, -1, Some(wanted)).map(|of| (of.kind, of.cast));
        let held = |own, wanted| Kind::Declared(Box::new(own), wanted);
        assert_eq!(kind(&Type::INT4, "int").unwrap(), (Kind::Int4, None));
        assert_eq!(kind(&Type::NUMERIC, "int").unwrap(), (held(Kind::NumericText, DataType::Int32), None));
        assert_eq!(kind(&Type::FLOAT8, "decimal(40,2)").unwrap().0, held(Kind::Float8, DataType::Decimal256(40, 2)));
        assert_eq!(kind(&Type::MONEY, "decimal(12,2)").unwrap(), (Kind::Decimal(12, 2), Some("numeric")));
        assert_eq!(kind(&Type::INTERVAL, "time").unwrap().1, Some("text"));
        assert_eq!(kind(&Type::DATE, "text").unwrap(), (Kind::Text, Some("text")));
        for (server, wanted) in [
            (Type::BIT, "int"),
            (Type::INT4_ARRAY, "int"),
            (Type::BYTEA, "int"),
            (Type::UUID, "bigint"),
            (Type::INT4, "binary"),
        ] {
            let error = kind(&server, wanted).unwrap_err();
            assert!(error.message().contains("cannot be read as"), "{error}");
        }
    }
}
