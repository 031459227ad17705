//! JSON schemas of the project and pipeline files, for editors.

use gristmill::model::spec::{PipelineFile, ProjectFile};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};

/// The schema of `gristmill.yaml`. A connection's keys depend on its type, which is told by a condition each.
pub(crate) fn project() -> String {
    let mut schema = generate::<ProjectFile>();
    for pointer in ["/properties/connections", "/$defs/ProfileFile/properties/connections"] {
        if let Some(connections) = schema.pointer_mut(pointer) {
            connections["additionalProperties"] = serde_json::json!({"$ref": "#/$defs/Connection"});
        }
    }
    schema["$defs"]["Connection"] = connection_schema();
    text(&schema)
}

/// The schema of a pipeline file.
pub(crate) fn pipeline() -> String {
    text(&generate::<PipelineFile>())
}

fn generate<T: JsonSchema>() -> serde_json::Value {
    // What is read, not what is written: keys with defaults are optional.
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value()
}

/// `type` is one of the connectors, and the rest is what that connector takes.
fn connection_schema() -> serde_json::Value {
    let connectors = gristmill::connect::registry::connectors();
    let names: Vec<&str> = connectors.iter().map(|connector| connector.name).collect();
    let common = gristmill::connect::registry::common_schema().to_value();
    let cases: Vec<serde_json::Value> = connectors
        .iter()
        .map(|connector| {
            let mut keys = (connector.schema)().to_value();
            if let Some(object) = keys.as_object_mut() {
                object.remove("$schema");
                let properties = object.entry("properties").or_insert_with(|| serde_json::json!({}));
                properties["type"] = serde_json::json!({"const": connector.name});
                for (key, rule) in common["properties"].as_object().into_iter().flatten() {
                    properties[key.as_str()] = rule.clone();
                }
            }
            serde_json::json!({
                "if": {"properties": {"type": {"const": connector.name}}},
                "then": keys,
            })
        })
        .collect();
    serde_json::json!({
        "type": "object",
        "description": "A connection: its `type` and that type's keys.",
        "required": ["type"],
        "properties": {"type": {"enum": names}},
        "allOf": cases,
    })
}

fn text(schema: &serde_json::Value) -> String {
    // Values of a JSON schema can always be written.
    let mut text = serde_json::to_string_pretty(schema).unwrap_or_default();
    text.push('\n');
    text
}
