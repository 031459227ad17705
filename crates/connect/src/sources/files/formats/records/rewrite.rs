//! Nested values where a text is asked for become a text: their own JSON, byte for byte.

use super::shape::Shape;
use crate::json_text::{Walk, unquoted};

/// Copies a record that [`Shape::check`] has passed, with nested values quoted where `shape` asks for a text.
pub(super) fn nested_as_text(record: &[u8], shape: &Shape, out: &mut Vec<u8>) {
    Rewriter(Walk::new(record)).value(Some(shape), out);
}

/// It recurses no deeper than the schema.
struct Rewriter<'a>(Walk<'a>);

impl Rewriter<'_> {
    fn value(&mut self, shape: Option<&Shape>, out: &mut Vec<u8>) {
        self.0.space();
        match (self.0.peek(), shape) {
            (Some(b'{' | b'['), Some(Shape::Text)) => quote(self.0.value(), out),
            (Some(b'{'), Some(Shape::Object(object))) => self.object(out, |key| object.get(key)),
            (Some(b'{'), Some(Shape::Map(inner))) => self.object(out, |_| Some(inner)),
            (Some(b'['), Some(Shape::List(inner))) => {
                out.push(b'[');
                self.0.step();
                self.0.space();
                while self.0.peek().is_some_and(|byte| byte != b']') {
                    self.value(Some(inner), out);
                    self.separator(out);
                }
                out.push(b']');
                self.0.step();
            }
            _ => out.extend_from_slice(self.0.value()),
        }
    }

    fn object<'s>(&mut self, out: &mut Vec<u8>, shape_of: impl Fn(&str) -> Option<&'s Shape>) {
        out.push(b'{');
        self.0.step();
        self.0.space();
        while self.0.peek().is_some_and(|byte| byte != b'}') {
            let key = self.0.value();
            out.extend_from_slice(key);
            self.0.space();
            out.push(b':');
            self.0.step();
            let shape = unquoted(key).and_then(|key| shape_of(&key));
            self.value(shape, out);
            self.separator(out);
        }
        out.push(b'}');
        self.0.step();
    }

    fn separator(&mut self, out: &mut Vec<u8>) {
        self.0.space();
        if self.0.peek() == Some(b',') {
            out.push(b',');
            self.0.step();
            self.0.space();
        }
    }
}

fn quote(json: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(json);
    // Writing a text into memory cannot fail.
    out.extend_from_slice(serde_json::Value::String(text.into_owned()).to_string().as_bytes());
}
