//! The columns of JSON records: integers widen to floats, what does not go together becomes a text, objects and lists
//! become structs and lists.

use super::Problem;
use super::shape::error_words;
use crate::sources::files::formats::RowCount;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Records that are looked at, at most.
const MAX_RECORDS: u64 = 1000;

/// Bytes that are looked at, at most, once there is a record.
const MAX_BYTES: u64 = 1 << 20;

/// Values nested deeper than this are texts; every library that follows a schema by recursion copes with it.
const MAX_DEPTH: usize = 32;

/// What the records seen so far have in common.
#[derive(Debug, Default)]
pub(in super::super) struct Inference {
    columns: Columns,
    records: u64,
    bytes: u64,
    problem: Option<(u64, Problem)>,
}

impl Inference {
    /// Looks at a record. A bad one is left to the reader, who knows what is to be done with it, as long as there are
    /// good ones.
    pub(in super::super) fn see(&mut self, record: &[u8], number: u64) {
        match parse(record) {
            Ok(columns) => {
                self.columns.merge(columns);
                self.records += 1;
            }
            Err(problem) => self.see_problem(number, problem),
        }
    }

    /// Notes that there is a record that is none.
    pub(in super::super) fn see_problem(&mut self, number: u64, problem: Problem) {
        self.problem.get_or_insert((number, problem));
    }

    /// Counts bytes looked at.
    pub(in super::super) fn see_bytes(&mut self, count: usize) {
        self.bytes += count as u64;
    }

    /// How many rows there were in how many bytes.
    pub(in super::super) fn count(&self) -> RowCount {
        RowCount::Sampled { rows: self.records, bytes: self.bytes }
    }

    /// Whether enough was seen.
    pub(in super::super) fn enough(&self) -> bool {
        self.records >= MAX_RECORDS || (self.records > 0 && self.bytes >= MAX_BYTES)
    }

    /// The columns, or what was wrong if no record was good.
    pub(in super::super) fn finish(self) -> Result<SchemaRef, (u64, Problem)> {
        match self.problem {
            Some(problem) if self.records == 0 => Err(problem),
            _ => Ok(Arc::new(Schema::new(self.columns.fields()))),
        }
    }
}

/// What a column's values have in common.
#[derive(Debug, Default)]
enum Kind {
    #[default]
    Null,
    Bool,
    Int,
    /// A whole number beyond 64 bits with a sign, of at most so many digits.
    Big(u8),
    Float,
    Text,
    List(Box<Kind>),
    Object(Columns),
}

/// Columns in the order of their first appearance.
#[derive(Debug, Default)]
struct Columns {
    entries: Vec<(String, Kind)>,
    index: HashMap<String, usize>,
}

impl Columns {
    /// The kind of a column, made if it is new.
    fn slot(&mut self, name: String) -> &mut Kind {
        let next = self.entries.len();
        let at = *self.index.entry(name.clone()).or_insert(next);
        if at == next {
            self.entries.push((name, Kind::Null));
        }
        &mut self.entries[at].1
    }

    fn merge(&mut self, other: Self) {
        for (name, kind) in other.entries {
            let slot = self.slot(name);
            *slot = std::mem::take(slot).with(kind);
        }
    }

    fn fields(self) -> Fields {
        self.entries.into_iter().map(|(name, kind)| Field::new(name, kind.data_type(), true)).collect()
    }
}

impl Kind {
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Null, kind) | (kind, Self::Null) => kind,
            (Self::Bool, Self::Bool) => Self::Bool,
            (Self::Int, Self::Int) => Self::Int,
            (Self::Big(one), Self::Big(other)) => Self::Big(one.max(other)),
            (Self::Big(digits), Self::Int) | (Self::Int, Self::Big(digits)) => Self::Big(digits),
            (Self::Int | Self::Big(_) | Self::Float, Self::Int | Self::Big(_) | Self::Float) => Self::Float,
            (Self::List(one), Self::List(other)) => Self::List(Box::new(one.with(*other))),
            (Self::Object(mut one), Self::Object(other)) => {
                one.merge(other);
                Self::Object(one)
            }
            _ => Self::Text,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Null => DataType::Null,
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            // A float would make one of numbers that differ in their last digits, as ids do.
            Self::Big(digits) => DataType::Decimal128(digits, 0),
            Self::Float => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::List(inner) => DataType::List(Arc::new(Field::new_list_field(inner.data_type(), true))),
            // An object without fields is nothing that a table can hold.
            Self::Object(columns) if columns.entries.is_empty() => DataType::Utf8,
            Self::Object(columns) => DataType::Struct(columns.fields()),
        }
    }
}

fn parse(record: &[u8]) -> Result<Columns, Problem> {
    let text = std::str::from_utf8(record)
        .map_err(|error| Problem::Invalid(format!("byte {} is not UTF-8", error.valid_up_to() + 1)))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let kind = Look { depth: 0, long: has_long_integer(record) }
        .deserialize(&mut deserializer)
        .and_then(|kind| deserializer.end().map(|()| kind))
        .map_err(|error| Problem::Invalid(error_words(&error)))?;
    match kind {
        Kind::Object(columns) => Ok(columns),
        other => {
            let what = match other {
                Kind::Null => "null",
                Kind::Bool => "true or false",
                Kind::Int | Kind::Big(_) | Kind::Float => "a number",
                Kind::Text => "a text",
                Kind::List(_) | Kind::Object(_) => "a list",
            };
            Err(Problem::NotARow(format!("found {what} where an object was expected")))
        }
    }
}

/// Whether somewhere 19 digits or more stand in a row that are neither a fraction nor have one.
fn has_long_integer(record: &[u8]) -> bool {
    let mut from = 0;
    while let Some(start) = record[from..].iter().position(u8::is_ascii_digit).map(|at| from + at) {
        let end = record[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(record.len(), |at| start + at);
        let fraction = start > 0 && record[start - 1] == b'.';
        if end - start >= 19 && !fraction && !matches!(record.get(end), Some(b'.' | b'e' | b'E')) {
            return true;
        }
        from = end;
    }
    false
}

#[derive(Clone, Copy)]
struct Look {
    depth: usize,
    /// Whether the record has a whole number of 19 digits or more.
    long: bool,
}

impl Look {
    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for Look {
    type Value = Kind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look {
    type Value = Kind;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Bool)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Int)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(if i64::try_from(value).is_ok() { Kind::Int } else { Kind::Big(20) })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        // The parser makes a float of a whole number beyond 64 bits; the text is what tells the two apart.
        let whole = self.long && value.abs() >= 9e18 && value.abs() < 1e38;
        Ok(if whole { Kind::Big(38) } else { Kind::Float })
    }

    fn visit_str<E>(self, _: &str) -> Result<Kind, E> {
        Ok(Kind::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        if self.depth >= MAX_DEPTH {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Kind::Text);
        }
        let mut inner = Kind::Null;
        while let Some(kind) = items.next_element_seed(self.deeper())? {
            inner = inner.with(kind);
        }
        Ok(Kind::List(Box::new(inner)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        if self.depth >= MAX_DEPTH {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Kind::Text);
        }
        let mut columns = Columns::default();
        while let Some(name) = entries.next_key::<String>()? {
            let kind = entries.next_value_seed(self.deeper())?;
            // The last of equal keys is the one that counts.
            *columns.slot(name) = kind;
        }
        Ok(Kind::Object(columns))
    }
}
