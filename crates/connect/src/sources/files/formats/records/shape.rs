//! What a record should look like: the schema asked for, prepared for being held against records.

use super::Problem;
use arrow::datatypes::{DataType, Fields, Schema};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;

/// The part of a type that matters when JSON is held against it.
#[derive(Debug)]
pub(super) enum Shape {
    /// Anything goes; arrow's decoder has the last word.
    Any,
    /// A number without a fraction.
    Whole,
    /// A text; nested values are kept as their JSON.
    Text,
    /// A list of these.
    List(Box<Shape>),
    /// An object with values of this shape under any key.
    Map(Box<Shape>),
    /// An object with these fields.
    Object(Object),
}

/// The fields of an object.
#[derive(Debug)]
pub(super) struct Object {
    names: Vec<String>,
    shapes: Vec<Shape>,
    index: HashMap<String, usize>,
}

impl Object {
    fn new(fields: &Fields) -> Self {
        let mut index = HashMap::with_capacity(fields.len());
        for (at, field) in fields.iter().enumerate() {
            index.entry(field.name().clone()).or_insert(at);
        }
        Self {
            names: fields.iter().map(|field| field.name().clone()).collect(),
            shapes: fields.iter().map(|field| Shape::of(field.data_type())).collect(),
            index,
        }
    }

    /// Where the field of that name is; keys mostly come in the order of the schema, so that place is tried first.
    fn position(&self, name: &str, expected: usize) -> Option<usize> {
        if self.names.get(expected).is_some_and(|candidate| candidate == name) {
            return Some(expected);
        }
        self.index.get(name).copied()
    }

    /// The shape of the field of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Shape> {
        self.index.get(name).and_then(|at| self.shapes.get(*at))
    }
}

impl Shape {
    /// The shape of a record with these columns.
    pub(super) fn of_schema(schema: &Schema) -> Self {
        Self::Object(Object::new(schema.fields()))
    }

    fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => Self::List(Box::new(Self::of(item.data_type()))),
            DataType::Struct(fields) => Self::Object(Object::new(fields)),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 => Self::Map(Box::new(Self::of(fields[1].data_type()))),
                _ => Self::Any,
            },
            DataType::Date32
            | DataType::Date64
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Timestamp(_, _)
            | DataType::Duration(_) => Self::Whole,
            DataType::Decimal128(_, 0) => Self::Whole,
            whole if whole.is_integer() => Self::Whole,
            _ => Self::Any,
        }
    }

    /// How many columns this is, nested ones counted.
    pub(super) fn leaves(&self) -> usize {
        match self {
            Self::List(inner) | Self::Map(inner) => inner.leaves(),
            Self::Object(object) => object.shapes.iter().map(Self::leaves).sum::<usize>().max(1),
            _ => 1,
        }
    }

    /// Validates one record in full; true if a nested value stands where a text is asked for.
    pub(super) fn check(&self, record: &[u8]) -> Result<bool, Problem> {
        let text = std::str::from_utf8(record)
            .map_err(|error| Problem::Invalid(format!("byte {} is not UTF-8", error.valid_up_to() + 1)))?;
        let notes = Notes::default();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let result = Seed { shape: self, notes: &notes, top: true }
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        match result {
            Ok(()) => Ok(notes.nested.get()),
            Err(error) => Err(self.problem(text, &notes, &error)),
        }
    }

    fn problem(&self, text: &str, notes: &Notes, error: &serde_json::Error) -> Problem {
        if notes.not_a_row.get() {
            // It was given up at its first byte; whether it is JSON at all is yet to be seen.
            return match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => Problem::NotARow(error_words(error)),
                Err(error) => Problem::Invalid(error_words(&error)),
            };
        }
        let words = error_words(error);
        let mut path = notes.path.borrow().clone();
        if error.is_data() && !path.is_empty() {
            path.reverse();
            return Problem::Invalid(format!("column `{}`: {words}", path.join(".")));
        }
        Problem::Invalid(words)
    }
}

/// serde_json's words; a record is one line, so the column is enough of a place.
pub(super) fn error_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let Some((words, place)) = text.rsplit_once(" at line ") else { return text };
    if error.is_data() {
        return words.to_owned();
    }
    let words = match words.strip_prefix("EOF while parsing ") {
        Some(what) => format!("the line ends inside {}", what.replacen("an object", "a record", 1)),
        None => words.to_owned(),
    };
    match place.split_once(" column ") {
        Some((_, column)) => format!("{words} at character {column}"),
        None => words,
    }
}

/// What was noticed on the way.
#[derive(Default)]
struct Notes {
    nested: Cell<bool>,
    not_a_row: Cell<bool>,
    /// The keys from the place of an error outwards.
    path: RefCell<Vec<String>>,
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    shape: &'a Shape,
    notes: &'a Notes,
    top: bool,
}

impl Seed<'_> {
    fn scalar<E: serde::de::Error>(self, what: &str) -> Result<(), E> {
        if self.top {
            self.notes.not_a_row.set(true);
            return Err(E::custom(format!("found {what} where an object was expected")));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if matches!(self.shape, Shape::Any) {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.scalar("null")
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.scalar("true or false")
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.scalar("a number")
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.scalar("a number")
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        if matches!(self.shape, Shape::Whole) && value.fract() != 0.0 {
            return Err(E::custom(format!("{value} is not a whole number")));
        }
        self.scalar("a number")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.scalar("a text")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.top {
            self.scalar::<A::Error>("a list")?;
        }
        if let Shape::List(inner) = self.shape {
            let seed = Seed { shape: inner, notes: self.notes, top: false };
            while items.next_element_seed(seed)?.is_some() {}
            return Ok(());
        }
        self.notes.nested.set(self.notes.nested.get() | matches!(self.shape, Shape::Text));
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        match self.shape {
            Shape::Object(object) => {
                let mut expected = 0;
                while let Some(at) = entries.next_key_seed(Key { object, expected })? {
                    let Some((shape, name)) = at.and_then(|at| Some((object.shapes.get(at)?, object.names.get(at)?)))
                    else {
                        entries.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    expected = at.unwrap_or(expected) + 1;
                    entries.next_value_seed(Seed { shape, notes: self.notes, top: false }).inspect_err(|_| {
                        self.notes.path.borrow_mut().push(name.clone());
                    })?;
                }
            }
            Shape::Map(inner) => {
                while entries.next_key::<IgnoredAny>()?.is_some() {
                    entries.next_value_seed(Seed { shape: inner, notes: self.notes, top: false })?;
                }
            }
            shape => {
                self.notes.nested.set(self.notes.nested.get() | matches!(shape, Shape::Text));
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            }
        }
        Ok(())
    }
}

/// Looks a key up without keeping it.
#[derive(Clone, Copy)]
struct Key<'a> {
    object: &'a Object,
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.object.position(name, self.expected))
    }
}
