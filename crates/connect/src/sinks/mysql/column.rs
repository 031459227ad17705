//! A column of the target: what it takes of the rows, and how another table gets one like it.

use super::encode::Limits;
use super::session::Server;
use super::types::{Kind, Outgoing};
use crate::sources::mysql::connect::TextRow;
use crate::sources::mysql::names::quoted;

/// Letters of a text that go into an index of ours.
const INDEXED: u64 = 100;

/// A column as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// `decimal`
    base: String,
    /// As the owner declared it: `decimal(10,2) unsigned`.
    pub(crate) declared: String,
    takes_null: bool,
    pub(crate) must_be_given: bool,
    pub(crate) generated: bool,
    /// Whether the server writes it itself when the row changes.
    pub(crate) is_touched: bool,
    charset: Option<String>,
    collation: Option<String>,
    scale: Option<u32>,
    fraction: u8,
    /// Letters, or bytes.
    length: Option<u64>,
    /// The type that it is given for the rows, and the whole of what is said of it then (`widen.rs`).
    pub(crate) becomes: Option<String>,
    pub(crate) anew: Option<String>,
}

impl Column {
    /// What to select from `information_schema.columns`, for [`Column::read`].
    pub(crate) const QUESTION: &str = "column_name, data_type, column_type, is_nullable = 'YES', column_default IS NULL, extra, \
        character_set_name, collation_name, numeric_scale, datetime_precision, character_maximum_length";

    pub(crate) fn read(row: TextRow) -> Option<Self> {
        let [
            Some(name),
            Some(base),
            Some(declared),
            nullable,
            no_default,
            extra,
            charset,
            collation,
            scale,
            fraction,
            length,
        ] = <[Option<String>; 11]>::try_from(row).ok()?
        else {
            return None;
        };
        let is = |flag: Option<String>| flag.as_deref() == Some("1");
        let (takes_null, no_default) = (is(nullable), is(no_default));
        let extra = extra.unwrap_or_default().to_ascii_lowercase();
        // MySQL 8 says `DEFAULT_GENERATED` of defaults that are expressions.
        let generated = ["virtual generated", "stored generated", "persistent"].iter().any(|word| extra.contains(word));
        Some(Self {
            must_be_given: !takes_null && no_default && !generated && !extra.contains("auto_increment"),
            generated,
            is_touched: extra.contains("on update"),
            takes_null,
            base: base.to_ascii_lowercase(),
            declared: declared.to_ascii_lowercase(),
            name,
            charset,
            collation,
            scale: scale.and_then(|scale| scale.parse().ok()),
            fraction: fraction.and_then(|digits| digits.parse().ok()).unwrap_or_default(),
            length: length.and_then(|length| length.parse().ok()),
            becomes: None,
            anew: None,
        })
    }

    /// Its type, so that a value compares in another table as it does in this one.
    fn sql(&self) -> String {
        let mut sql = self.declared.clone();
        if let (Some(charset), Some(collation)) = (&self.charset, &self.collation) {
            sql.push_str(&format!(" CHARACTER SET {charset} COLLATE {collation}"));
        }
        sql
    }

    /// A column like it in a table of ours.
    pub(crate) fn definition(&self) -> String {
        // Said in so many words, since a `timestamp` may mean something else without.
        format!("{} {} NULL DEFAULT NULL", quoted(&self.name), self.sql())
    }

    /// It in an index of ours; none where there can be no index.
    pub(crate) fn indexed(&self) -> Option<String> {
        let name = quoted(&self.name);
        match self.base.as_str() {
            "json" | "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "vector" => None,
            _ if self.is_string() && self.length.is_none_or(|length| length > INDEXED) => {
                Some(format!("{name}({INDEXED})"))
            }
            _ => Some(name),
        }
    }

    fn is_string(&self) -> bool {
        self.base.ends_with("text")
            || self.base.ends_with("blob")
            || ["char", "varchar", "binary", "varbinary"].contains(&self.base.as_str())
    }

    /// A staged value as this column compares it.
    pub(crate) fn comparable(&self, staged: &str) -> String {
        match (&self.charset, &self.collation) {
            (Some(charset), Some(collation)) => format!("CONVERT({staged} USING {charset}) COLLATE {collation}"),
            _ => staged.to_owned(),
        }
    }

    /// Whether values that are equal may be written in different ways.
    pub(crate) fn compares_loosely(&self) -> bool {
        self.collation.is_some()
    }

    /// What it takes of the values of a type that it takes.
    pub(crate) fn limits(&self, server: &Server) -> Limits {
        Limits {
            takes_null: self.takes_null,
            fraction: self.fraction,
            last_second: (self.base == "timestamp").then(|| server.last_timestamp()),
            is_year: self.base == "year",
        }
    }

    /// Whether values can be assigned without losing anything unnoticed: where the server checks each value (the range of an
    /// integer, the length of a varchar, the words of an enum) it may; where it would round, cut or fill up, not.
    pub(crate) fn takes(&self, column: &Outgoing) -> bool {
        let base = self.base.as_str();
        let is_whole = matches!(base, "tinyint" | "smallint" | "mediumint" | "int" | "bigint");
        // `float(7,2)` rounds.
        let is_real = |name: &str| base == name && !self.declared.contains('(');
        let keeps = |scale: u16| base == "decimal" && self.scale.is_some_and(|kept| kept >= u32::from(scale));
        match &column.kind {
            Kind::Bool => matches!(base, "tinyint" | "bit"),
            Kind::Whole { bits, .. } => {
                is_whole
                    || keeps(0)
                    || matches!(base, "year" | "bit")
                    || (*bits <= 16 && is_real("float"))
                    || (*bits <= 32 && is_real("double"))
            }
            Kind::Float => is_real("float") || is_real("double"),
            Kind::Double => is_real("double"),
            Kind::Decimal(_, scale) => keeps(*scale) || (*scale == 0 && is_whole),
            Kind::Text => {
                let words = ["char", "varchar", "enum", "set", "json", "uuid", "inet4", "inet6"];
                base.ends_with("text") || words.contains(&base)
            }
            Kind::Blob(size) => {
                base.ends_with("blob")
                    || base == "varbinary"
                    // Shorter values would be filled up with zeros.
                    || (base == "binary" && size.is_some_and(|size| self.length == Some(size.into())))
            }
            Kind::Date => matches!(base, "date" | "datetime"),
            Kind::Time | Kind::Interval => base == "time",
            Kind::DateTime => base == "datetime",
            Kind::Timestamp => matches!(base, "timestamp" | "datetime"),
            Kind::Json => base == "json" || matches!(base, "longtext" | "mediumtext" | "text"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field};
    use std::sync::Arc;

    fn column(declared: &str, extra: &str) -> Column {
        let base = declared.split(['(', ' ']).next().unwrap_or_default();
        let scale = declared.split_once(',').and_then(|(_, rest)| rest.split(')').next());
        let some = |text: &str| Some(text.to_owned());
        let row = vec![
            some("c"),
            some(base),
            some(declared),
            some("0"),
            some("1"),
            some(extra),
            None,
            None,
            scale.map(str::to_owned).or(some("0")),
            None,
            some("16"),
        ];
        Column::read(row).unwrap()
    }

    #[test]
    fn a_type_fits_where_nothing_can_be_lost_unnoticed() {
        let takes = |declared: &str, arrow: DataType| {
            let outgoing = Outgoing::new(&Arc::new(Field::new("c", arrow, true))).unwrap();
            column(declared, "").takes(&outgoing)
        };
        assert!(takes("decimal(12,2)", DataType::Decimal128(10, 2)));
        assert!(!takes("decimal(12,2)", DataType::Decimal128(10, 3)));
        assert!(!takes("double", DataType::Decimal128(10, 2)));
        assert!(!takes("float", DataType::Float64));
        assert!(!takes("double(7,2)", DataType::Float64));
        assert!(!takes("bigint", DataType::Float64));
        assert!(!takes("double", DataType::Int64));
        assert!(takes("int(11)", DataType::Int64));
        assert!(!takes("int(11)", DataType::Utf8));
        assert!(takes("enum('a')", DataType::Utf8));
        assert!(!takes("timestamp", DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None)));
        assert!(!takes("binary(16)", DataType::Binary));
        assert!(takes("binary(16)", DataType::FixedSizeBinary(16)));
    }

    #[test]
    fn what_must_be_given_is_what_nothing_else_fills() {
        assert!(column("int(11)", "").must_be_given);
        assert!(!column("int(11)", "auto_increment").must_be_given);
        assert!(!column("int(11)", "STORED GENERATED").must_be_given && column("int", "STORED GENERATED").generated);
        assert!(!column("datetime", "DEFAULT_GENERATED on update CURRENT_TIMESTAMP").generated);
        assert!(column("timestamp", "on update current_timestamp()").is_touched);
    }
}
