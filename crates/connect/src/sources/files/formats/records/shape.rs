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

    /// Validates one record in full; true if a nested value stands where a text is asked for. Fields that the shape does
    /// not have and that are not null go to `beyond`: `address.geo`, once each.
    pub(super) fn check(&self, record: &[u8], beyond: Option<&mut Vec<String>>) -> Result<bool, Problem> {
        let text = std::str::from_utf8(record)
            .map_err(|error| Problem::Invalid(format!("byte {} is not UTF-8", error.valid_up_to() + 1)))?;
        let notes = Notes { looks: beyond.is_some(), ..Notes::default() };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let result = Seed { shape: self, notes: &notes, top: true }
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        match result {
            Ok(()) => {
                if let Some(beyond) = beyond {
                    *beyond = notes.beyond.into_inner();
                    beyond.sort_unstable();
                    beyond.dedup();
                }
                Ok(notes.nested.get())
            }
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
    /// Whether fields that the shape does not have are noted.
    looks: bool,
    beyond: RefCell<Vec<String>>,
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
                let notes = self.notes;
                let mut expected = 0;
                while let Some(found) = entries.next_key_seed(Key { object, expected, looks: notes.looks })? {
                    let at = match found {
                        Found::At(at) => at,
                        Found::Beyond(None) => {
                            entries.next_value::<IgnoredAny>()?;
                            continue;
                        }
                        Found::Beyond(Some(name)) => {
                            // A null is nothing that could be lost.
                            if entries.next_value::<Option<IgnoredAny>>()?.is_some() {
                                notes.beyond.borrow_mut().push(name);
                            }
                            continue;
                        }
                    };
                    let (Some(shape), Some(name)) = (object.shapes.get(at), object.names.get(at)) else {
                        entries.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    expected = at + 1;
                    let before = notes.beyond.borrow().len();
                    entries.next_value_seed(Seed { shape, notes, top: false }).inspect_err(|_| {
                        notes.path.borrow_mut().push(name.clone());
                    })?;
                    for inner in notes.beyond.borrow_mut().iter_mut().skip(before) {
                        *inner = format!("{name}.{inner}");
                    }
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

/// Looks a key up, and keeps it only where it is to be told.
#[derive(Clone, Copy)]
struct Key<'a> {
    object: &'a Object,
    expected: usize,
    looks: bool,
}

/// Where a key is.
enum Found {
    /// The field at this place.
    At(usize),
    /// Nowhere; its name, where that is asked for.
    Beyond(Option<String>),
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Found;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(match self.object.position(name, self.expected) {
            Some(at) => Found::At(at),
            None => Found::Beyond(self.looks.then(|| name.to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;
    use std::sync::Arc;

    #[test]
    fn fields_that_no_column_holds_are_named_wherever_they_stand() {
        let address = DataType::Struct(vec![Field::new("city", DataType::Utf8, true)].into());
        let lines = DataType::List(Arc::new(Field::new_list_field(
            DataType::Struct(vec![Field::new("no", DataType::Int64, true)].into()),
            true,
        )));
        let shape = Shape::of_schema(&Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("address", address, true),
            Field::new("lines", lines, true),
            Field::new("text", DataType::Utf8, true),
        ]));
        let beyond = |json: &str| {
            let mut found = Vec::new();
            shape.check(json.as_bytes(), Some(&mut found)).unwrap();
            found.join(" ")
        };
        assert_eq!(beyond(r#"{"id": 1, "text": {"any": 1}, "address": {"city": "a"}, "lines": [{"no": 1}]}"#), "");
        assert_eq!(beyond(r#"{"id": 1, "x": null, "y": 0}"#), "y");
        let json = r#"{"z": 1, "address": {"geo": []}, "lines": [{"no": 1}, {"at": 2}, {"at": 3}], "y": {}}"#;
        assert_eq!(beyond(json), "address.geo lines.at y z");
    }
}
