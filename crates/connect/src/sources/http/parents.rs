//! Parent → child: the records of one answer are what others are asked for.

use super::path::JsonPath;
use super::raw::{Raw, Scalar};
use super::records;
use super::request::{Fields, Request};
use crate::kept::{Record, Value};
use crate::sources::files::hive;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use gristmill_model::spec::ForEach;
use gristmill_model::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, HashSet};

/// What is taken from each parent.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Fields that requests are filled with; every parent must have them.
    needed: Vec<(String, JsonPath)>,
    /// Those of them that an empty text would make another request of.
    in_path: HashSet<String>,
    /// Those of them that stand in a body, where a number is another value than its text.
    in_body: HashSet<String>,
    /// Columns of the children: column → field.
    include: BTreeMap<String, String>,
    included: Vec<(String, JsonPath)>,
    pub(super) keys: Vec<String>,
}

impl Wanted {
    /// # Errors
    /// [`ErrorKind::Config`] for a field that is no place in JSON, and for children that take nothing of their parent.
    pub(super) fn new(spec: &ForEach, child: &Request) -> Result<Self> {
        let parse = |field: &String| {
            let path = JsonPath::parse(field).map_err(|message| Error::new(ErrorKind::Config, message))?;
            Ok((field.clone(), path))
        };
        let needed: Vec<_> = child.fields()?.iter().map(parse).collect::<Result<_>>()?;
        if needed.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "every parent would be asked for the same: nothing is taken from it",
            )
            .hint("write a field of the parent in braces, such as `path: orders/{id}/items`"));
        }
        let in_path = needed.iter().map(|(field, _)| field).filter(|field| child.is_in_path(field)).cloned().collect();
        Ok(Self {
            needed,
            in_path,
            in_body: child.fields_of_body()?.into_iter().collect(),
            included: spec.include.values().map(parse).collect::<Result<_>>()?,
            include: spec.include.clone(),
            keys: spec.records.as_deref().map(|keys| keys.split('.').map(str::to_owned).collect()).unwrap_or_default(),
        })
    }

    /// The parents of a page, added to those there are. Parents that ask for the same are one.
    ///
    /// # Errors
    /// A parent without a field that is needed.
    pub(super) fn take(
        &self,
        body: &[u8],
        what: &str,
        seen: &mut HashSet<String>,
        all: &mut Vec<Fields>,
    ) -> Result<()> {
        let unreadable =
            |error: serde_json::Error| Error::new(ErrorKind::Data, format!("{what} cannot be read")).cause(error);
        let document = Raw::document(body).map_err(unreadable)?;
        let found = records::each(document, &self.keys).unwrap_or_default();
        for (at, parent) in found.into_iter().enumerate() {
            let mut fields = Fields::new();
            for (field, path) in &self.needed {
                let value = path.find(parent).map(Raw::scalar).transpose().map_err(unreadable)?.flatten();
                let is_usable = |value: &Scalar| match value {
                    Scalar::Null => false,
                    Scalar::Text(text) => !(text.is_empty() && self.in_path.contains(field)),
                    _ => true,
                };
                let Some(value) = value.filter(is_usable) else {
                    return Err(Error::new(
                        ErrorKind::Data,
                        format!("{what}: record {} has no value at `{field}`, which its children are asked by", at + 1),
                    )
                    .hint("look at `for_each`, and at the field in braces"));
                };
                fields.insert(field.clone(), value);
            }
            // Of what it is asked by alone: a parent that comes twice, moved between pages or changed, has its children once.
            let asked_by = fields.iter().map(|(field, value)| match self.in_body.contains(field) {
                true => serde_json::to_string(value),
                false => serde_json::to_string(&value.plain()),
            });
            let key = asked_by.collect::<Result<Vec<_>, _>>();
            let key = key.map_err(|error| Error::internal("a parent").cause(error))?.join(",");
            for (field, path) in &self.included {
                fields.insert(field.clone(), included(path.find(parent)).map_err(unreadable)?);
            }
            if seen.insert(key) {
                all.push(fields);
            }
        }
        Ok(())
    }

    /// The columns that children have of their parents; `own` are those they have themselves.
    ///
    /// # Errors
    /// A column that both have.
    pub(super) fn columns(&self, parents: &[Fields], own: &Schema) -> Result<Vec<Field>> {
        self.include
            .iter()
            .map(|(column, field)| {
                if own.column_with_name(column).is_some() {
                    return Err(Error::new(
                        ErrorKind::Schema,
                        format!("both the children and `include` have a column `{column}`"),
                    )
                    .hint(format!("give it another name: `include: {{parent_{column}: {field}}}`")));
                }
                let values = parents.iter().filter_map(|parent| parent.get(field));
                Ok(Field::new(column, data_type(values), true))
            })
            .collect()
    }

    /// Whether a column is taken from the parent.
    pub(super) fn is_column(&self, column: &str) -> bool {
        self.include.contains_key(column)
    }

    /// Puts the columns of the parent between those of the children, in the order of `schema`.
    ///
    /// # Errors
    /// A value that is not of the column's type.
    pub(super) fn assemble(&self, batch: &RecordBatch, schema: &SchemaRef, parent: &Fields) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let column = |field: &Field| -> Result<ArrayRef> {
            let Some(place) = self.include.get(field.name()) else {
                return batch
                    .column_by_name(field.name())
                    .cloned()
                    .ok_or_else(|| Error::internal(format!("the reader left out the column `{}`", field.name())));
            };
            let text = parent.get(place).filter(|value| **value != Scalar::Null).map(Scalar::plain);
            hive::array(field, text.as_deref(), rows, "the parent")
        };
        let columns = schema.fields().iter().map(|field| column(field)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema.clone(), columns, &options)
            .map_err(|error| Error::internal("rows do not fit their schema").cause(error))
    }

    /// The columns that children have of this parent, as an object of JSON.
    pub(super) fn beside(&self, parent: &Fields) -> String {
        let mut record = Record::default();
        for (column, field) in &self.include {
            let value = match parent.get(field) {
                None | Some(Scalar::Null) => Value::Null,
                Some(Scalar::Text(text)) => Value::Text(text.as_str().into()),
                Some(plain) => Value::Plain(plain.plain().into()),
            };
            record.add(column, &value);
        }
        record.finish()
    }
}

/// A value for a column: objects and lists are their own text.
fn included(value: Option<Raw<'_>>) -> serde_json::Result<Scalar> {
    let Some(value) = value else { return Ok(Scalar::Null) };
    Ok(value.scalar()?.unwrap_or_else(|| Scalar::Text(String::from_utf8_lossy(value.text()).into_owned())))
}

/// The type that holds all values; anything goes as a text.
fn data_type<'v>(values: impl Iterator<Item = &'v Scalar>) -> DataType {
    let mut joined = None;
    for value in values {
        let one = match value {
            Scalar::Null => continue,
            Scalar::Bool(_) => DataType::Boolean,
            Scalar::Number(text) => number_type(text),
            Scalar::Text(_) => DataType::Utf8,
        };
        joined = Some(match (joined, one) {
            (None, one) => one,
            (Some(all), one) if all == one => one,
            (Some(DataType::Int64), big @ DataType::Decimal128(..))
            | (Some(big @ DataType::Decimal128(..)), DataType::Int64) => big,
            (Some(DataType::Decimal128(some, 0)), DataType::Decimal128(more, 0)) => {
                DataType::Decimal128(some.max(more), 0)
            }
            (Some(DataType::Int64), DataType::Float64) | (Some(DataType::Float64), DataType::Int64) => {
                DataType::Float64
            }
            _ => DataType::Utf8,
        });
    }
    joined.unwrap_or(DataType::Utf8)
}

/// As the reader of JSON files has it: whole numbers beyond 64 bits are decimals.
fn number_type(text: &str) -> DataType {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return DataType::Float64;
    }
    match (text.parse::<i64>(), u8::try_from(digits.len())) {
        (Ok(_), _) => DataType::Int64,
        (_, Ok(digits @ ..=38)) => DataType::Decimal128(digits.max(20), 0),
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_holds_all_values_of_the_parents() {
        let of = |values: &str| {
            let document = Raw::document(values.as_bytes()).unwrap();
            let values: Vec<_> = document.items().unwrap().map(|raw| included(Some(raw)).unwrap()).collect();
            data_type(values.iter())
        };
        let nines = "9".repeat(39);
        for (values, expected) in [
            ("[1, null, 2]", DataType::Int64),
            ("[1, 1.5]", DataType::Float64),
            ("[1, 18446744073709551615]", DataType::Decimal128(20, 0)),
            ("[1234567890123456789012, 18446744073709551615, -5]", DataType::Decimal128(22, 0)),
            (&format!("[{nines}]"), DataType::Utf8),
            ("[\"007\", 1]", DataType::Utf8),
            ("[true]", DataType::Boolean),
            ("[null]", DataType::Utf8),
            ("[{\"a\": 1}]", DataType::Utf8),
        ] {
            assert_eq!(of(values), expected, "{values}");
        }
    }
}
