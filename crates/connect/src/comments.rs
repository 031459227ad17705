//! Comments of columns: a table that a load makes has those of the table that its rows come from.
//!
//! They are in the metadata of a source's fields, and in that of the fields a sink is opened for. Rows go without: two columns that
//! differ in their comments alone are the same to whoever plans or compares, and files would keep them for ever.

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The entry of a field's metadata that is the comment.
const COMMENT: &str = "gristmill.comment";

/// The comment of a column.
pub(crate) fn comment_of(field: &Field) -> Option<&str> {
    field.metadata().get(COMMENT).map(String::as_str)
}

/// Columns with these comments, by their names. An empty one is none.
pub(crate) fn commented(schema: &SchemaRef, comments: &BTreeMap<String, String>) -> SchemaRef {
    if comments.is_empty() {
        return schema.clone();
    }
    changed(schema, |field| match comments.get(field.name()).filter(|comment| !comment.is_empty()) {
        Some(comment) => {
            let mut metadata = field.metadata().clone();
            metadata.insert(COMMENT.to_owned(), comment.clone());
            Arc::new(field.as_ref().clone().with_metadata(metadata))
        }
        None => field.clone(),
    })
}

/// Columns with the comments that those of the same names have in `other`.
#[must_use]
pub fn with_comments_of(schema: &SchemaRef, other: &Schema) -> SchemaRef {
    let comments =
        other.fields().iter().filter_map(|field| Some((field.name().clone(), comment_of(field)?.to_owned())));
    commented(schema, &comments.collect())
}

/// The columns alone.
#[must_use]
pub fn without_comments(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().all(|field| comment_of(field).is_none()) {
        return schema.clone();
    }
    changed(schema, |field| {
        let mut metadata = field.metadata().clone();
        metadata.remove(COMMENT);
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    })
}

fn changed(schema: &Schema, change: impl Fn(&FieldRef) -> FieldRef) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(change).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;
    use std::collections::HashMap;

    #[test]
    fn comments_come_and_go_and_all_else_stays() {
        let own = HashMap::from([("unit".to_owned(), "kg".to_owned())]);
        let fields = vec![
            Field::new("id", DataType::Int64, false),
            Field::new("weight", DataType::Float64, true).with_metadata(own.clone()),
            Field::new("note", DataType::Utf8, true),
        ];
        let plain: SchemaRef = Arc::new(Schema::new_with_metadata(fields, own));
        let comments = [("weight", "of all"), ("note", ""), ("gone", "x")];
        let comments = comments.map(|(column, comment)| (column.to_owned(), comment.to_owned()));
        let with = commented(&plain, &BTreeMap::from(comments));
        let told: Vec<Option<&str>> = with.fields().iter().map(|field| comment_of(field)).collect();
        assert_eq!(told, [None, Some("of all"), None]);
        assert_ne!(with, plain);
        assert_eq!(without_comments(&with), plain);
        assert_eq!(with_comments_of(&plain, &with), with);
        assert!(Arc::ptr_eq(&without_comments(&plain), &plain));
    }
}
