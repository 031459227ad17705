//! Parent → child: the records of one answer are what others are asked for.

use super::path::JsonPath;
use super::records;
use super::request::{Fields, Request};
use crate::sources::files::hive;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use gristmill_model::spec::ForEach;
use gristmill_model::{Error, ErrorKind, Result, ResultExt};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// What is taken from each parent.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Fields that requests are filled with; every parent must have them.
    needed: Vec<(String, JsonPath)>,
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
        Ok(Self {
            needed,
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
        let document: Value = serde_json::from_slice(body)
            .map_err(|error| Error::new(ErrorKind::Data, format!("{what} cannot be read")).cause(error))?;
        let mut found = Vec::new();
        records::each(&document, &self.keys, &mut found).context(|| what.to_owned())?;
        for (at, parent) in found.into_iter().enumerate() {
            let mut fields = Fields::new();
            for (field, path) in &self.needed {
                let value = path.value(parent).filter(|value| !value.is_null());
                let Some(value) = value.filter(|value| !value.is_array() && !value.is_object()) else {
                    return Err(Error::new(
                        ErrorKind::Data,
                        format!("{what}: record {} has no value at `{field}`, which its children are asked by", at + 1),
                    )
                    .hint("look at `for_each`, and at the field in braces"));
                };
                fields.insert(field.clone(), value.clone());
            }
            // Of what it is asked by alone: a parent that comes twice, moved between pages or changed, has its children once.
            let key = serde_json::to_string(&fields).map_err(|error| Error::internal("a parent").cause(error))?;
            for (field, path) in &self.included {
                fields.insert(field.clone(), path.value(parent).cloned().unwrap_or(Value::Null));
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
            let text = parent.get(place).filter(|value| !value.is_null()).map(super::request::plain_text);
            hive::array(field, text.as_deref(), rows, "the parent")
        };
        let columns = schema.fields().iter().map(|field| column(field)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema.clone(), columns, &options)
            .map_err(|error| Error::internal("rows do not fit their schema").cause(error))
    }
}

/// The type that holds all values; anything goes as a text.
fn data_type<'v>(values: impl Iterator<Item = &'v Value>) -> DataType {
    let mut joined = None;
    for value in values {
        let one = match value {
            Value::Null => continue,
            Value::Bool(_) => DataType::Boolean,
            Value::Number(number) if number.is_i64() => DataType::Int64,
            Value::Number(number) if number.is_u64() => DataType::Decimal128(20, 0),
            Value::Number(_) => DataType::Float64,
            _ => DataType::Utf8,
        };
        joined = Some(match (joined, one) {
            (None, one) => one,
            (Some(all), one) if all == one => one,
            (Some(DataType::Int64), DataType::Decimal128(..)) | (Some(DataType::Decimal128(..)), DataType::Int64) => {
                DataType::Decimal128(20, 0)
            }
            (Some(DataType::Int64), DataType::Float64) | (Some(DataType::Float64), DataType::Int64) => {
                DataType::Float64
            }
            _ => DataType::Utf8,
        });
    }
    joined.unwrap_or(DataType::Utf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_type_holds_all_values_of_the_parents() {
        let of = |values: Value| data_type(values.as_array().unwrap().iter());
        assert_eq!(of(json!([1, null, 2])), DataType::Int64);
        assert_eq!(of(json!([1, 1.5])), DataType::Float64);
        assert_eq!(of(json!([1, u64::MAX])), DataType::Decimal128(20, 0));
        assert_eq!(of(json!(["007", 1])), DataType::Utf8);
        assert_eq!(of(json!([true])), DataType::Boolean);
        assert_eq!(of(json!([null])), DataType::Utf8);
    }
}
