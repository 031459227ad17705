//! Fields of records that no column holds.
//!
//! Columns are those of the first pages. What comes later with a field that none of them had must not be read past in
//! silence: a value would be lost.

use arrow::datatypes::{DataType, Fields, Schema};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// Fields that are named, at most.
const NAMED: usize = 10;

/// What is known of a value; lists are looked through.
#[derive(Debug)]
pub(super) enum Known {
    /// Whatever is there is held by a column.
    Any,
    /// An object of these fields.
    Object {
        fields: HashMap<String, Known>,
        /// Beside them there may be others, since it is no record.
        open: bool,
    },
}

impl Known {
    /// A document with records of these columns where the keys lead.
    pub(super) fn document(schema: &Schema, keys: &[String]) -> Self {
        let records = Self::object(schema.fields());
        keys.iter()
            .rev()
            .fold(records, |inner, key| Self::Object { fields: HashMap::from([(key.clone(), inner)]), open: true })
    }

    fn object(fields: &Fields) -> Self {
        let fields = fields.iter().map(|field| (field.name().clone(), Self::of(field.data_type()))).collect();
        Self::Object { fields, open: false }
    }

    fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Struct(fields) => Self::object(fields),
            DataType::List(item) | DataType::LargeList(item) => Self::of(item.data_type()),
            _ => Self::Any,
        }
    }

    /// The fields of a document that no column holds and that are not null: `address.geo`.
    ///
    /// # Errors
    /// A text that is not JSON.
    pub(super) fn beside(&self, json: &[u8]) -> serde_json::Result<BTreeSet<String>> {
        let notes = Notes::default();
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        Look { known: self, notes: &notes }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(notes.found.into_inner())
    }
}

#[derive(Default)]
struct Notes {
    found: RefCell<BTreeSet<String>>,
    path: RefCell<Vec<String>>,
}

impl Notes {
    fn note(&self, name: &str) {
        let mut found = self.found.borrow_mut();
        if found.len() < NAMED {
            let path = self.path.borrow();
            found.insert(path.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("."));
        }
    }
}

#[derive(Clone, Copy)]
struct Look<'a> {
    known: &'a Known,
    notes: &'a Notes,
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.known {
            Known::Any => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            Known::Object { .. } => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    // What is no object where one is expected is the reader's to refuse.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Known::Object { fields, open } = self.known else {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        while let Some(key) = entries.next_key::<Cow<'de, str>>()? {
            match fields.get(key.as_ref()) {
                Some(known) => {
                    let look = Look { known, ..self };
                    if *open {
                        entries.next_value_seed(look)?;
                    } else {
                        self.notes.path.borrow_mut().push(key.into_owned());
                        let looked = entries.next_value_seed(look);
                        self.notes.path.borrow_mut().pop();
                        looked?;
                    }
                }
                None if *open => {
                    entries.next_value::<IgnoredAny>()?;
                }
                // A null is nothing that could be lost.
                None => {
                    if entries.next_value::<Option<IgnoredAny>>()?.is_some() {
                        self.notes.note(&key);
                    }
                }
            }
        }
        Ok(())
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
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("address", address, true),
            Field::new("lines", lines, true),
            Field::new("text", DataType::Utf8, true),
        ]);
        let beside = |keys: &[&str], json: &str| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            let found = Known::document(&schema, &keys).beside(json.as_bytes()).unwrap();
            found.into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            beside(&[], r#"[{"id": 1, "text": {"any": 1}}, {"address": {"city": "a"}, "lines": [{"no": 1}]}, 7]"#),
            ""
        );
        assert_eq!(beside(&[], r#"[{"id": 1, "x": null, "y": 0}]"#), "y");
        assert_eq!(beside(&[], r#"{"address": {"geo": []}, "lines": [{"no": 1}, {"at": 2}]}"#), "address.geo lines.at");
        assert_eq!(beside(&["data", "items"], r#"{"x": 1, "data": [{"y": 1, "items": [{"id": 1, "z": 2}]}]}"#), "z");
    }
}
