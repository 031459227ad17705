//! The JSON that a request sends: as the pipeline says it, with fields of a parent and the page in it, numbers digit by digit.

use super::paginate::Token;
use super::raw::Scalar;
use super::request::Fields;
use super::template::Template;
use gristmill_model::{Error, ErrorKind, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// A JSON value to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// Anything that is neither an object nor a list, as it is sent.
    Scalar(String),
    List(Vec<Body>),
    Object(BTreeMap<String, Body>),
}

impl Body {
    pub(super) fn empty() -> Self {
        Self::Object(BTreeMap::new())
    }

    /// A body with its fields filled in, where there are `fields`; a text that is nothing but a field becomes the field's
    /// value, whatever its type.
    pub(super) fn new(value: &Value, fields: Option<&Fields>) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(|item| Self::new(item, fields)).collect()),
            Value::Object(map) => {
                Self::Object(map.iter().map(|(key, value)| (key.clone(), Self::new(value, fields))).collect())
            }
            Value::String(text) => {
                let template = fields.and_then(|fields| Some((fields, Template::parse(text, true).ok()?)));
                let Some((fields, template)) = template else { return Self::text(text) };
                match template.field() {
                    Some(field) => fields.get(field).map_or(Self::Scalar("null".to_owned()), Self::from),
                    None => Self::text(&template.fill(fields, false)),
                }
            }
            other => Self::Scalar(other.to_string()),
        }
    }

    fn text(text: &str) -> Self {
        Self::Scalar(quoted(text))
    }

    /// Puts a value into an object, below the objects that the dots of `name` lead through.
    ///
    /// # Errors
    /// A place within something that is no object.
    pub(super) fn put(&mut self, name: &str, value: Self) -> Result<()> {
        let mut place = self;
        for key in name.split('.') {
            if matches!(place, Self::Scalar(text) if text == "null") {
                *place = Self::empty();
            }
            let Self::Object(map) = place else {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("`{name}` leads into something in `body` that is no object"),
                ));
            };
            place = map.entry(key.to_owned()).or_insert_with(|| Self::Scalar("null".to_owned()));
        }
        *place = value;
        Ok(())
    }
}

/// The fields of a parent that a body names.
///
/// # Errors
/// A field that is no place in JSON.
pub(super) fn fields_of(body: &Value, fields: &mut Vec<String>) -> Result<(), String> {
    match body {
        Value::String(text) => fields.extend(Template::parse(text, true)?.fields().map(str::to_owned)),
        Value::Array(items) => items.iter().try_for_each(|item| fields_of(item, fields))?,
        Value::Object(map) => map.values().try_for_each(|value| fields_of(value, fields))?,
        _ => {}
    }
    Ok(())
}

impl From<&Scalar> for Body {
    fn from(scalar: &Scalar) -> Self {
        match scalar {
            Scalar::Text(text) => Self::text(text),
            other => Self::Scalar(other.plain()),
        }
    }
}

impl From<&Token> for Body {
    fn from(token: &Token) -> Self {
        let is_json = || serde_json::from_str::<serde_json::Number>(&token.text).is_ok();
        match token.text.parse::<i64>() {
            _ if !token.is_number => Self::text(&token.text),
            // Such as `007`, which is none in JSON.
            Ok(number) => Self::Scalar(number.to_string()),
            Err(_) if is_json() => Self::Scalar(token.text.clone()),
            Err(_) => Self::text(&token.text),
        }
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(text) => f.write_str(text),
            Self::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Object(map) => {
                f.write_str("{")?;
                for (at, (key, value)) in map.iter().enumerate() {
                    write!(f, "{}{}:{value}", if at > 0 { "," } else { "" }, quoted(key))?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_keeps_its_type_and_its_digits() {
        let fields = Fields::from([
            ("id".to_owned(), Scalar::Text("a\"b".to_owned())),
            ("n".to_owned(), Scalar::Number("123456789012345678901234567890".to_owned())),
            ("f".to_owned(), Scalar::Bool(false)),
        ]);
        let body = json!({"id": "{n}", "text": "no {n}", "list": ["{id}", 1.5, "{f}"], "gone": "{x}"});
        assert_eq!(
            Body::new(&body, Some(&fields)).to_string(),
            r#"{"gone":null,"id":123456789012345678901234567890,"list":["a\"b",1.5,false],"text":"no 123456789012345678901234567890"}"#
        );
        assert_eq!(Body::new(&body, None).to_string(), body.to_string());
    }

    #[test]
    fn a_value_is_put_where_the_dots_lead() {
        let token = |text: &str, is_number| Body::from(&Token { text: text.to_owned(), is_number });
        let mut body = Body::new(&json!({"query": "q", "variables": {"first": 10}}), None);
        body.put("variables.after", token("t", false)).unwrap();
        body.put("a.b", token("18446744073709551616", true)).unwrap();
        body.put("c", token("007", true)).unwrap();
        assert_eq!(
            body.to_string(),
            r#"{"a":{"b":18446744073709551616},"c":7,"query":"q","variables":{"after":"t","first":10}}"#
        );
        assert!(body.put("query.x", token("1", true)).is_err());
    }
}
